"""The terrain under a point cloud, on columns: from ground points, or by a filter where points
have no classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator

SLOPE = 0.15
"""Rise over run that terrain has at most between windows of the filter."""

STEP, LARGEST_STEP = 0.4, 5.0
"""Metres that something rises above its window's terrain before it is a thing: at first, and at
most."""

LARGEST_THING = 60.0
"""Width in metres of the largest thing that the filter takes off the ground."""


def filter_ground(
    lowest: NDArray, voxel_size: float, *, largest: float = LARGEST_THING, slope: float = SLOPE
) -> NDArray:
    """(ny, nx) bool: columns whose lowest point is ground.

    lowest : (ny, nx) height of the lowest point, metres, NaN for none

    The progressive morphological filter of Zhang et al. (2003, "A progressive morphological filter
    for removing nonground measurements from airborne LIDAR data", IEEE TGRS 41(4), section II):
    openings with windows that double up to `largest`, and what an opening lowers by more than
    terrain of that slope could is no ground. Hollow ways and cliffs suffer, and things wider than
    `largest` stay.
    """
    known = np.isfinite(lowest)
    if not known.any():
        return known
    surface = fill_nearest(lowest.astype(np.float32), known)
    # Single points below the ground (multipath) would pull a whole window down.
    surface = np.maximum(surface, ndimage.median_filter(surface, 5) - np.float32(1.0))
    ground = np.abs(surface - np.where(known, lowest, 0)) < 0.5
    radius, previous = 1, 0
    while True:
        size = 2 * radius + 1
        opened = ndimage.maximum_filter(ndimage.minimum_filter(surface, size), size)
        step = (
            min(STEP + slope * 2 * (radius - previous) * voxel_size, LARGEST_STEP)
            if previous
            else STEP
        )
        ground &= surface - opened <= step
        surface = opened
        if size * voxel_size >= largest:
            return np.asarray(ground & known)
        radius, previous = 2 * radius, radius


def interpolate(values: NDArray, known: NDArray) -> NDArray:
    """(ny, nx) float32 with unknown columns filled: linear between the known ones, nearest
    outside."""
    filled = fill_nearest(values.astype(np.float32), known)
    if known.all() or not known.any():
        return filled
    rim = known & ndimage.binary_dilation(~known, np.ones((3, 3)))
    row, col = np.nonzero(rim)
    if len(row) < 4 or np.ptp(row) == 0 or np.ptp(col) == 0:
        return filled
    linear = LinearNDInterpolator(np.column_stack([row, col]), values[rim].astype(np.float64))
    r, c = np.nonzero(~known)
    between = linear(np.column_stack([r, c]))
    filled[r, c] = np.where(np.isfinite(between), between, filled[r, c])
    return filled


def fill_nearest(values: NDArray, known: NDArray) -> NDArray:
    """A copy of (ny, nx, ...) values with those of the nearest known column where none is known."""
    if known.all() or not known.any():
        return values.copy()
    row, col = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[row, col])
