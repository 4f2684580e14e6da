"""Beds of railways: the height along a line, smoother than the ground.

A train climbs little and evenly. The height of the bed at a place is that of the straight line
fitted to the ground along the railway around it, so it depends on the place alone; the ends of a
line, such as those at a bridge, use what lies on their side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds
from geo_io.structures import Profile

STEP = 4.0
"""Metres between the places at which the ground is looked up."""

AROUND = 40.0
"""Metres of line before and after a place that its height is fitted to."""


def bed_profile(
    line: shapely.LineString, bounds: Bounds, heights: Callable[[NDArray], NDArray]
) -> Profile | None:
    """Return the heights of the bed of a railway where it is near bounds; None where it is not.

    Parameters
    ----------
    line : LineString
        The railway, CRS metres.
    bounds : tuple of float
        Left, bottom, right, top, CRS metres.
    heights : callable
        Heights of the ground at places (n, 2), metres; NaN where there are none.

    Notes
    -----
    A local linear regression with weights that fall linearly (Cleveland, 1979, "Robust locally
    weighted regression and smoothing scatterplots", without the robust steps).
    """
    part = shapely.intersection(line, shapely.box(*bounds))
    if shapely.is_empty(part):
        return None
    total = line.length
    along = shapely.line_locate_point(line, shapely.points(shapely.get_coordinates(part)))
    # Where a line touches itself its places are ambiguous: all between the extremes are taken.
    first = max(math.floor(float(along.min()) / STEP) - 1, 0)
    last = min(math.ceil(float(along.max()) / STEP) + 1, math.ceil(total / STEP))
    reach = math.ceil(AROUND / STEP)
    low, high = max(first - reach, 0), min(last + reach, math.ceil(total / STEP))
    at = np.minimum(np.arange(low, high + 1) * STEP, total)
    xy = shapely.get_coordinates(shapely.line_interpolate_point(line, at))
    ground = heights(xy)
    level = fitted(at, ground)[first - low : last - low + 1]
    own = slice(first - low, last - low + 1)
    flat = np.zeros(2)
    if last == first:
        return None
    return Profile(at[own], xy[own], level, at[own][[0, -1]], flat)


def fitted(at: NDArray, ground: NDArray) -> NDArray:
    """Return heights (n,) of straight lines fitted around each place, NaN where there are none.

    Parameters
    ----------
    at : NDArray (n,) float64
        Places, metres along a line, `STEP` apart.
    ground : NDArray (n,) float64
        Metres, NaN where unknown.
    """
    known = np.isfinite(ground)
    n, reach = len(at), math.ceil(AROUND / STEP)
    value = np.where(known, ground, 0.0)
    zero, one, level, slope, square = (np.zeros(n) for _ in range(5))
    # Neighbour by neighbour: the order of sums must not depend on how much of a line is read.
    for step in range(-reach, reach + 1):
        here = slice(max(-step, 0), min(n - step, n))
        there = slice(max(step, 0), min(n + step, n))
        if here.start >= here.stop:
            continue
        away = at[there] - at[here]
        weight = np.maximum(1.0 - np.abs(away) / AROUND, 0.0) * known[there]
        zero[here] += weight
        one[here] += weight * away
        square[here] += weight * away * away
        level[here] += weight * value[there]
        slope[here] += weight * away * value[there]
    spread = zero * square - one * one
    with np.errstate(divide="ignore", invalid="ignore"):
        line = (square * level - one * slope) / spread
        mean = level / zero
    return np.where(known, np.where(spread > 1e-6, line, mean), np.nan)
