"""Cases of users: parts of buildings, what hangs in the air, roofs, and overlapping footprints."""

from __future__ import annotations

import numpy as np
import pytest

import earthgen
from geo_io.legend import codes
from tests.helpers.user_cases import Outcome, Run

ROUND = 0.5
"""Metres by which a level roof of voxels of 1 m differs from its height at its edges."""


def levels(outcome: Outcome, x: int, y: int) -> list[int]:
    """The z of the surface voxels of a column, upwards."""
    world = earthgen.open_world(outcome.folder / "out.zarr")
    return sorted(
        z
        for tx, ty in world.tiles()
        for east, north, z in world.tile_voxels(tx, ty)[0].xyz.tolist()
        if (east, north) == (x, y)
    )


def test_building_parts_in_outline(run: Run) -> None:
    outcome = run("building_parts_in_outline")
    assert outcome.codes == [0]
    above = [place.above for place in outcome.places]
    assert len(above) == 32
    assert above[0::2] == pytest.approx([8.0] * 16, abs=ROUND)
    assert above[1::2] == pytest.approx([40.0] * 16, abs=ROUND)


def test_min_height_skywalk(run: Run) -> None:
    outcome = run("min_height_skywalk")
    assert outcome.codes == [0]
    bridge, roof = outcome.places[1], outcome.places[2]
    assert bridge.above == pytest.approx(24.0, abs=ROUND) and bridge.cover == "building"
    assert roof.above == pytest.approx(6.0, abs=ROUND)
    # The ground, then air, then the underside and the top of the bridge.
    assert levels(outcome, 500_090, 5_500_100) == [-1, 18, 23]
    assert levels(outcome, 500_055, 5_500_030) == [-1, 5]


def test_two_footprint_sources(run: Run) -> None:
    outcome = run("two_footprint_sources")
    assert outcome.codes == [0]
    assert [place.above for place in outcome.places] == pytest.approx([25.0] * 16, abs=ROUND)
    layers = earthgen.open_world(outcome.folder / "out.zarr").layers(1)
    built = layers["semantics"].values == codes()["building"]
    # No sliver of the other source stands beside: every wall is that of a building of 25 m.
    assert np.unique((layers["surface"] - layers["ground"]).values[built]).min() > 12


def test_roof_shape_flat(run: Run) -> None:
    outcome = run("roof_shape_flat")
    assert outcome.codes == [0]
    layers = earthgen.open_world(outcome.folder / "out.zarr").layers(1)
    built = layers["semantics"].values == codes()["building"]
    above = (layers["surface"] - layers["ground"]).values[built]
    assert built.sum() == outcome.areas["building"]
    assert above == pytest.approx(12.0, abs=ROUND)
    # Volumes are right: 12 m times the area.
    assert above.sum() == pytest.approx(12.0 * built.sum(), rel=0.01)
