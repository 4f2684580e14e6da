"""Beds of railways: flat across, smooth along, on embankments and in cuttings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import LineString

from earthgen_procedural.structures import DEEPEST_BED, level_beds
from geo_io.frame import Frame
from geo_io.legend import codes
from geo_io.semantics.structures.beds import AROUND, STEP, bed_profile, fitted
from geo_io.structures import KIND, STRUCTURE_FORM, Structures

CODE = codes()
FRAME = Frame("EPSG:32632", 1.0, (1000, 1120), (2000, 2040))
Heights = Callable[[NDArray], NDArray]
TRACK = LineString([(900, 2020), (1300, 2020)])


def rails(heights: Heights, *lines: LineString, frame: Frame = FRAME) -> Structures:
    """Railways of 4 m with the beds that a reader makes for a frame."""
    n = len(lines)
    form = np.zeros(n, STRUCTURE_FORM)
    form["kind"], form["cover"], form["width"] = KIND["way"], CODE["rail"], 4.0
    shapes, profiles = np.empty(n, object), np.empty(n, object)
    left, bottom, right, top = frame.bounds
    for k, line in enumerate(lines):
        shapes[k] = line
        profiles[k] = bed_profile(line, (left - 24, bottom - 24, right + 24, top + 24), heights)
    return Structures(shapes, shapes.copy(), profiles, form, np.arange(n, dtype=np.uint64))


def ground(heights: Heights, frame: Frame = FRAME) -> NDArray:
    x, y = np.meshgrid(np.arange(*frame.x) + 0.5, (np.arange(*frame.y) + 0.5)[::-1])
    at = np.stack([x.ravel(), y.ravel()], axis=1)
    return heights(at).reshape(frame.shape).astype(np.float32)


def land(frame: Frame = FRAME) -> NDArray:
    return np.full(frame.shape, CODE["grassland"], np.uint8)


def hillside(xy: NDArray) -> NDArray:
    """A slope of 25 % across the track, of 1 % along it, with humps of a metre every 25 m."""
    x, y = xy.T
    return 100 + 0.25 * (y - 2020) + 0.01 * (x - 1000) + 0.5 * np.sin(2 * np.pi * x / 25)


def test_a_bed_is_flat_across_and_smooth_along() -> None:
    before = ground(hillside)
    made = level_beds(FRAME, rails(hillside, TRACK), before, land())
    bed = made[17:23]  # 3 m on both sides
    assert np.ptp(bed, axis=0).max() < 1e-3
    along = bed[3].astype(float)
    assert np.abs(np.diff(along)).max() < 0.04 and np.abs(np.diff(before[20])).max() > 0.1
    assert np.abs(along - (100 + 0.01 * (np.arange(120) + 0.5))).max() < 0.2
    # Uphill a cutting, downhill an embankment, both no steeper than 1 in 1.5 beyond the slope.
    assert (made[16] < before[16]).mean() > 0.7 and (made[23] > before[23]).mean() > 0.7
    assert np.abs(np.diff(made - before, axis=0)).max() < 0.25 + 1 / 1.5 + 0.01
    assert np.array_equal(made[:6], before[:6]) and np.array_equal(made[-6:], before[-6:])


def test_an_even_slope_is_kept() -> None:
    def slope(xy: NDArray) -> NDArray:
        return 50 + 0.03 * xy[:, 0]

    before = ground(slope)
    made = level_beds(FRAME, rails(slope, TRACK), before, land())
    assert np.abs(made - before).max() < 1e-3
    # Also where a line ends, as at a bridge: what lies beyond does not pull it.
    half = rails(slope, LineString([(900, 2020), (1060, 2020)]))
    assert np.abs(level_beds(FRAME, half, before, land()) - before).max() < 1e-3


def test_windows_agree() -> None:
    line = LineString([(950, 1990), (1040, 2018), (1180, 2060)])
    whole = level_beds(FRAME, rails(hillside, line), ground(hillside), land())
    part = Frame(FRAME.crs, 1.0, (1030, 1075), (2008, 2035))
    own = rails(hillside, line, frame=part)
    made = level_beds(part, own, ground(hillside, part), land(part))
    assert np.array_equal(made, whole[FRAME.slices(part)])
    assert (whole != ground(hillside)).any()


def test_water_and_houses_stay_and_deep_errors_are_bounded() -> None:
    cover = land()
    cover[:, 30:40], cover[:, 60:70] = CODE["river"], CODE["building"]
    before = ground(hillside)
    made = level_beds(FRAME, rails(hillside, TRACK), before, cover)
    assert np.array_equal(made[:, 30:40], before[:, 30:40])
    assert np.array_equal(made[:, 60:70], before[:, 60:70])
    cliff = before.copy()
    cliff[:, 80:] -= 60
    moved = level_beds(FRAME, rails(hillside, TRACK), cliff, land()) - cliff
    assert np.abs(moved).max() <= DEEPEST_BED + 1e-3


def test_no_bed_without_heights_or_for_roads() -> None:
    before = ground(hillside)
    roads = rails(hillside, TRACK)
    roads.form["cover"] = CODE["road"]
    assert level_beds(FRAME, roads, before, land()) is before
    nothing = rails(lambda xy: np.full(len(xy), np.nan), TRACK)
    assert np.array_equal(level_beds(FRAME, nothing, before, land()), before)
    assert bed_profile(TRACK, (0, 0, 10, 10), hillside) is None


def test_fits_are_those_of_least_squares() -> None:
    random = np.random.default_rng(3)
    at = np.append(np.arange(59) * STEP, 58.4 * STEP)  # a line ends anywhere
    height = random.normal(size=60)
    height[7] = np.nan
    known = np.isfinite(height)
    made = fitted(at, height)
    for k in (0, 11, 59):
        weight = np.maximum(1 - np.abs(at - at[k]) / AROUND, 0)[known]
        terms = np.polyfit(at[known] - at[k], height[known], 1, w=np.sqrt(weight))
        assert made[k] == pytest.approx(terms[1], abs=1e-6)
    assert np.isnan(made[7])
    # Bit by bit the same, however much of a line is read.
    assert np.array_equal(fitted(at[5:45], height[5:45])[10:30], made[15:35])
