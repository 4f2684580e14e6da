"""Cases of users: which class wins, the sea, still water, cliffs, and crowns in a surface model."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import earthgen
from earthgen.voxels.voxels import WALL
from tests.helpers.user_cases import Run


@pytest.mark.parametrize(
    ("name", "cover", "outer"),
    [
        pytest.param("nested_golf_bunkers", "sand", "grass", marks=pytest.mark.slow),
        ("nested_quarry_lake", "lake", "extraction"),
        pytest.param("nested_rock_in_forest", "rock", "mixed_forest", marks=pytest.mark.slow),
        ("nested_wetland_in_wood", "wetland", "mixed_forest"),
    ],
)
def test_nested(run: Run, name: str, cover: str, outer: str) -> None:
    outcome = run(name)
    assert outcome.codes == [0]
    assert outcome.places[0].cover == cover
    # Seen from above: crowns of the wood and single trees hang over its edge.
    assert 6000 <= outcome.areas[cover] <= 6400
    assert outcome.areas[outer] > 30_000


def test_coastline_lines_only(run: Run) -> None:
    outcome = run("coastline_lines_only")
    assert outcome.codes == [0]
    assert outcome.places[0].cover == "sea"
    assert abs(outcome.areas["sea"] - 23_600) < 100
    assert outcome.areas.get("grassland", 0) < 500
    assert outcome.areas["residential"] > 10_000
    # The line has the land, by its heights and by the town, on its right.
    assert "1 natural=coastline" in " ".join(outcome.warnings)


def test_lake_level(run: Run) -> None:
    outcome = run("lake_level")
    assert outcome.codes == [0]
    ground = earthgen.open_world(outcome.folder / "out.zarr").layers(1)["ground"].values
    assert ground.max() == ground.min()
    assert abs(ground.max() - 50) < 0.5  # the median of the noise


def test_cliff_80m(run: Run) -> None:
    outcome = run("cliff_80m")
    assert outcome.codes[0] == 0
    assert outcome.places[0].ground == 0 and outcome.places[1].ground == 80
    world = earthgen.open_world(outcome.folder / "out.zarr")
    tx, ty = next(iter(world.tiles()))
    voxels, splats = world.tile_voxels(tx, ty)
    wall = voxels.faces & WALL > 0
    assert (voxels.xyz[wall, 0] == 500_100).all()
    height = 80 + (voxels.xyz[wall, 2] + 0.5) + splats.offset[wall, 2].astype(float)
    reach = 2 * splats.scale[wall, 0].astype(float)
    for y in np.unique(voxels.xyz[:, 1]):
        row = voxels.xyz[wall, 1] == y
        for level in np.arange(0.5, 80, 1.0):
            assert (np.abs(height[row] - level) < reach[row]).any(), (y, level)
    # The sky is the bluest of the picture; none of it shows between the rim and the foot.
    drawn = np.asarray(Image.open(outcome.folder / "splats.png").convert("RGB"), int)
    cliff = drawn[210:420, 60:640]
    assert (cliff.max(axis=(0, 1)) < 175).all()


def test_crowns_become_buildings(run: Run) -> None:
    outcome = run("crowns_become_buildings")
    assert outcome.codes == [0]
    assert outcome.areas["building"] == 800
    assert outcome.areas["tree"] > 8000
    (told,) = [text for text in outcome.warnings if "no land cover" in text]
    assert told.startswith("98% of the region (3.9 ha)")
