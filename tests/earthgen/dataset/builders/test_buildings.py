"""Buildings as objects: joined blocks are split, heights are those of ridges, axes of boxes."""

from __future__ import annotations

import numpy as np
import pytest

from earthgen.dataset.builders.buildings import (
    building_axes,
    building_heights,
    number_buildings,
)
from geo_io.legend import codes

B = codes()["building"]


def cover(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (80, 120)) -> np.ndarray:
    out = np.full(shape, codes()["grass"], np.uint8)
    for top, left, bottom, right in boxes:
        out[top:bottom, left:right] = B
    return out


def test_apart_buildings_are_apart_and_cover_what_is_built() -> None:
    land = cover((5, 5, 15, 20), (30, 40, 45, 60))
    number = number_buildings(land, 1.0)
    assert ((number > 0) == (land == B)).all()
    assert len(np.unique(number)) == 3


def test_a_joined_block_is_split_and_a_step_in_height_separates() -> None:
    block = cover((10, 10, 70, 30), (10, 10, 30, 110))  # an L of 2400 m2
    number = number_buildings(block, 1.0)
    assert ((number > 0) == (block == B)).all()
    parts = np.unique(number[number > 0])
    assert len(parts) >= 4
    row = cover((10, 10, 20, 22), (10, 22, 20, 34))
    height = np.where(np.arange(120) < 22, 6.0, 12.0) * (row == B)
    assert len(np.unique(number_buildings(row, 1.0))) == 2
    assert len(np.unique(number_buildings(row, 1.0, height.astype(np.float32)))) == 3


def test_the_height_is_that_of_the_ridge_and_no_chimney() -> None:
    land = cover((10, 10, 20, 30))
    number = number_buildings(land, 1.0)
    roof = 6 + 4 * (1 - np.abs(np.arange(80)[:, None] - 14.5) / 5) * (land == B)
    height = (roof * (land == B)).astype(np.float32)
    height[12, 12] = 30
    told = building_heights(number, height)
    assert told[land != B].max() == 0
    assert np.unique(told[land == B]) == pytest.approx([9.6], abs=0.2)


def test_axes_of_a_turned_rectangle() -> None:
    y, x = np.mgrid[-40:40, -60:60].astype(float) * -1
    turn = np.radians(30)
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    inside = (np.abs(u) <= 20) & (np.abs(v) <= 8)
    axes = building_axes(inside.astype(np.uint32) * 7, 0.5).astype(float)
    assert (axes[~inside] == 0).all()
    # Rows run to the south, so the turn shows mirrored; distances do not care.
    along, across, length, width = axes[inside].T
    assert length.max() == pytest.approx(20 * 0.5, abs=0.6)
    assert width.max() == pytest.approx(8 * 0.5, abs=0.6)
    assert np.abs(np.sort(along) - np.sort(np.abs(u[inside]) * 0.5)).max() < 0.5
    assert np.abs(np.sort(across) - np.sort(np.abs(v[inside]) * 0.5)).max() < 0.5
