"""What hangs in the air under the heights of a network, and what buildings of a map look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely

from earthgen.noise.philox import Noise
from earthgen_latent.buildings import footprint_heights
from earthgen_latent.hanging import cover_with_hanging, hang_columns, hanging_bases
from earthgen_latent.solid import columns_from_heights
from geo_io.frame import Frame
from geo_io.layers import Buildings, Semantics, unknown_form
from geo_io.legend import codes

FRAME = Frame("EPSG:32632", 1.0, (0, 60), (0, 30))


def town(*rows: tuple[tuple[float, float, float, float], float, float]) -> Buildings:
    """Buildings from (bounds, underside, top)."""
    form = unknown_form(len(rows))
    form["base"] = [low for _, low, _ in rows]
    return Buildings(
        np.array([shapely.box(*bounds) for bounds, _, _ in rows], object),
        np.array([top for *_, top in rows], float),
        np.arange(1, len(rows) + 1, dtype=np.uint64),
        form,
    )


def test_the_underside_of_what_hangs() -> None:
    bridge = town(((0, 0, 10, 30), 0, 30), ((10, 10, 30, 20), 18, 24))
    base = hanging_bases(FRAME, bridge)
    assert (base[10:20, 10:30] == 18).all() and base.sum() == 18 * 200
    # Parts on top of each other; the lowest hangs, or stands.
    stack = [((0, 0, 10, 10), 20, 30), ((0, 0, 10, 10), 10, 20)]
    assert hanging_bases(FRAME, town(*stack)).max() == 10
    assert hanging_bases(FRAME, town(*stack, ((0, 0, 10, 10), 0, 10))).max() == 0
    apart = [((0, 0, 10, 10), 20, 30), ((0, 0, 10, 10), 5, 8)]
    assert hanging_bases(FRAME, town(*apart)).max() == 20


def test_columns_are_empty_under_what_hangs() -> None:
    made = town(((0, 0, 10, 30), 0, 30), ((10, 10, 30, 20), 18, 24))
    cover = np.full(FRAME.shape, codes()["road"], np.uint8)
    cover[:, :10] = codes()["building"]
    layer = Semantics(FRAME, cover, np.zeros(FRAME.shape, np.uint32), made)
    seen = cover_with_hanging(FRAME, layer)
    assert (seen == codes()["building"]).sum() == 300 + 200
    height = np.where(seen == codes()["building"], np.float32(23.5), np.float32(0))
    height[:, :10] = 30
    solid = columns_from_heights(FRAME, layer, seen, height, Noise(0))
    hung = hang_columns(FRAME, layer, solid)
    assert (hung.base[10:20, 10:30] == 18).all() and (hung.base[:, :10] == 0).all()
    assert (hung.ground_class[10:20, 10:30] == codes()["road"]).all()
    assert hang_columns(FRAME, replace(layer, buildings=made.take([0])), solid) is solid


def test_heights_of_eaves_and_undersides() -> None:
    made = town(((0, 0, 10, 10), 0, np.nan), ((20, 0, 30, 10), 0, np.nan), ((40, 0, 50, 10), 15, 1))
    made.form["eaves"][0] = 9.0
    made.height[2] = np.nan
    plain = town(((40, 0, 50, 10), 0, np.nan))
    plain.key[0] = 3
    heights = footprint_heights(made, np.zeros(3), Noise(1))
    drawn = footprint_heights(plain, np.zeros(1), Noise(1))
    assert heights[0] == 11.0
    assert heights[2] == 15.0 + drawn[0]
