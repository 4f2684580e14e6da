"""Crowns in a surface model are trees, and what is made of planes is a building."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from earthgen.noise.philox import Noise
from earthgen_procedural.surface_model import SurfaceObjects, detect_objects, measured_roofs
from geo_io.frame import Frame
from geo_io.legend import codes

SIDE = 120.0
CROWNS = [(20, 20, 4.0, 8.0), (45, 22, 8.0, 12.0), (75, 25, 6.0, 16.0), (100, 20, 5.0, 6.0)]


def places(size: float) -> tuple[Frame, NDArray, NDArray]:
    n = int(SIDE / size)
    frame = Frame("EPSG:32632", size, (0, n), (0, n))
    x = (np.arange(n) + 0.5) * size
    return (frame, *np.meshgrid(x, x[::-1]))


def crowns(x: NDArray, y: NDArray) -> NDArray:
    """Smooth domes: what is left of crowns in a surface model of 2 m."""
    out = np.zeros(x.shape)
    for east, north, radius, height in CROWNS:
        far = np.hypot(x - east, y - north) / radius
        dome = height * (0.5 + 0.5 * np.sqrt(np.maximum(1 - far**2, 0)))
        out = np.maximum(out, np.where(far < 1, dome, 0))
    return out


def houses(x: NDArray, y: NDArray) -> NDArray:
    """A flat hall, and a gabled house of 12 m x 10 m with a roof of 35 degrees."""
    hall = np.where((abs(x - 30) < 12) & (abs(y - 80) < 10), 7.0, 0.0)
    gable = 8.0 - np.tan(np.radians(35)) * abs(y - 80)
    return np.maximum(hall, np.where((abs(x - 90) < 6) & (abs(y - 80) < 5), gable, 0.0))


def found(frame: Frame, above: NDArray, noise: float = 0.05, **options: object) -> SurfaceObjects:
    grit = np.random.default_rng(0).normal(0, noise, above.shape)
    cover = np.zeros(frame.shape, np.uint8)  # no layer maps it
    return detect_objects(
        frame,
        cover,
        np.full(frame.shape, 100, np.float32),
        (100 + above + grit).astype(np.float32),
        np.zeros(frame.shape, bool),
        Noise(1),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_crowns_are_trees(size: float) -> None:
    frame, x, y = places(size)
    seen = found(frame, crowns(x, y))
    assert not seen.block.any()
    tall = crowns(x, y) > 3
    assert (seen.canopy & tall).sum() > 0.95 * tall.sum()


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_roofs_are_buildings_unless_footprints_say_where_buildings_stand(size: float) -> None:
    frame, x, y = places(size)
    roof = houses(x, y) > 2
    hall = roof & (x < 60)
    seen = found(frame, houses(x, y))
    assert (seen.block & hall).sum() > 0.75 * hall.sum()
    assert (seen.block & roof & ~hall).any()
    ruled = found(frame, houses(x, y), footprints=True)
    assert not ruled.block.any()
    inside = hall & (abs(x - 30) < 8) & (abs(y - 80) < 6)
    assert not (ruled.canopy & inside).any(), "a roof without a footprint is no tree"


def test_leaves_in_a_picture_are_no_roof() -> None:
    frame, x, y = places(1.0)
    picture = np.full((*frame.shape, 4), (120, 118, 115, 255), np.uint8)
    hall = houses(x, y) > 2
    assert found(frame, houses(x, y), image=picture).block.any()
    picture[hall, :3] = (70, 105, 55)
    seen = found(frame, houses(x, y), image=picture)
    assert not seen.block.any() and (seen.canopy & hall).sum() > 0.8 * hall.sum()


def test_a_crown_over_a_footprint_is_no_roof() -> None:
    """The surface model is older than the house: the house is built by the rules, whole."""
    frame, x, y = places(1.0)
    footprint = (abs(x - 45) < 20) & (abs(y - 25) < 12)
    cover = np.where(footprint, codes()["building"], codes()["grassland"]).astype(np.uint8)
    terrain = np.full(frame.shape, 100, np.float32)
    top = np.where(footprint, 109, np.nan).astype(np.float32)
    number = footprint.astype(np.uint32)
    small = np.hypot(x - 45, y - 25)
    surface = terrain + np.where(small < 4, 12 - 0.4 * small**2, 0).astype(np.float32)
    roofs, _ = measured_roofs(frame, cover, terrain, surface, top, number)
    assert np.array_equal(np.isfinite(roofs), footprint)
    assert (roofs[footprint] == 109).all()
    # A model that shows the house gives it its heights, and keeps its yard.
    yard = (abs(x - 52) < 6) & (abs(y - 25) < 5)
    surface = terrain + np.where(footprint & ~yard, 7, 0).astype(np.float32)
    roofs, _ = measured_roofs(frame, cover, terrain, surface, top, number)
    assert np.array_equal(np.isfinite(roofs), footprint & ~yard)
    assert (roofs[footprint & ~yard] == 107).all()
