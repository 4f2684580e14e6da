"""Crowns of learned plants: none much higher than wide, one base a crown, a trunk under its top."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import CRS

from earthgen.noise.philox import Noise
from earthgen_latent.crowns import (
    LIP,
    SHORTEST,
    SLENDERNESS,
    crown_bases,
    crown_reach,
    crown_tops,
    limit_crowns,
    trunk_columns,
)
from geo_io import codes
from geo_io.frame import Frame

SHAPE = (60, 60)


def cover_of(name: str) -> NDArray:
    return np.full(SHAPE, codes()[name], np.uint8)


def pillar(half: float, height: float = 25.0) -> NDArray:
    """Heights of a round plant about the middle, `half` columns from edge to axis."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]] - 30
    return np.where(np.hypot(row, column) < half, height, 0).astype(np.float32)


@pytest.mark.parametrize("voxel_size", [0.5, 1.0, 2.0])
def test_a_plant_is_as_high_as_its_width_allows(voxel_size: float) -> None:
    grass = cover_of("grass")
    for half in (1.5, 2.5, 4.5):
        top = limit_crowns(pillar(half), grass, voxel_size).max()
        if half * voxel_size < 2.6:
            allowed = SHORTEST + SLENDERNESS * half * voxel_size
            assert 0.75 * allowed < top <= min(allowed, 25), (half, voxel_size)
        else:
            assert top == 25, (half, voxel_size)
    wide = pillar(8.0 / voxel_size)
    kept = limit_crowns(wide, grass, voxel_size) == wide
    assert kept.mean() > 0.99 and kept[30, 30], "all but corners of the wood"


def test_what_is_no_plant_is_left_alone() -> None:
    needle = pillar(1.0)
    for name in ("building", "river"):
        np.testing.assert_array_equal(limit_crowns(needle, cover_of(name), 1.0), needle)
    low = pillar(1.0, 1.9)
    np.testing.assert_array_equal(limit_crowns(low, cover_of("grass"), 1.0), low)
    lower = limit_crowns(needle, cover_of("grass"), 1.0)
    assert (lower <= needle).all() and lower.max() < 10


@pytest.mark.parametrize("voxel_size", [0.5, 1.0])
def test_a_margin_is_all_that_crowns_need(voxel_size: float) -> None:
    noise = np.random.default_rng(4).uniform(0, 1, (140, 140))
    height = np.where(noise > 0.6, 30 * noise, 0).astype(np.float32)
    cover = np.full(height.shape, codes()["grass"], np.uint8)
    tree = np.full(height.shape, codes()["tree"], np.uint8)
    reach = crown_reach(voxel_size)

    def made(at: slice) -> tuple[NDArray, NDArray]:
        top = limit_crowns(height[at, at], cover[at, at], voxel_size)
        return top, crown_tops(top, tree[at, at], voxel_size)

    part = slice(30, 130)
    inside = slice(reach, 100 - reach)
    for whole, cut in zip(made(slice(0, 140)), made(part), strict=True):
        np.testing.assert_array_equal(whole[part, part][inside, inside], cut[inside, inside])


def test_a_crown_has_one_base_and_a_trunk_under_its_top() -> None:
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]] - 30
    top = np.maximum(10 - 1.5 * np.hypot(row, column), 0).astype(np.float32)
    tree = cover_of("tree")
    tallest = crown_tops(top, tree, 1.0)
    frame = Frame(CRS("EPSG:32632"), 1.0, (0, 60), (0, 60))
    trunks = trunk_columns(top, tree, frame, Noise(1)) & (top > 0)
    assert trunks[30, 30] and trunks[top > 0].sum() == 1
    base = crown_bases(top, tree, trunks, tallest=tallest)
    assert base[30, 30] == 0, "the trunk stands on the ground"
    under = (np.hypot(row, column) <= 3) & ~trunks
    assert (np.abs(base[under] - 3.5) < 1e-5).all(), "as high under its edge as at its axis"
    edge = (top >= 3) & ~under & ~trunks
    assert (base[edge] <= top[edge] - LIP + 1e-5).all()
    assert not crown_bases(top, cover_of("shrub"), trunks, tallest=tallest).any()
