"""The terrain below a surface, on columns: from ground points, or by a filter where points have no
classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator

SLOPE = 0.15
"""Largest slope of terrain between windows of the filter, rise over run."""

STEP, LARGEST_STEP = 0.4, 5.0
"""Height above the terrain of a window from which a column counts as an object, metres: for the
first window, and at most."""

LARGEST_THING = 60.0
"""Width of the largest object that the filter removes from the ground, metres."""


def filter_ground(
    lowest: NDArray, voxel_size: float, *, largest: float = LARGEST_THING, slope: float = SLOPE
) -> NDArray:
    """Find the columns whose lowest point is ground.

    The progressive morphological filter of Zhang et al. (2003, "A progressive morphological filter
    for removing nonground measurements from airborne LIDAR data", IEEE TGRS 41(4), section II):
    openings with windows that double up to `largest`. A column that an opening lowers by more than
    terrain of that slope allows is not ground. Sunken roads and cliffs are wrongly removed, and
    objects wider than `largest` stay.

    Parameters
    ----------
    lowest : NDArray (ny, nx)
        Height of the lowest point, metres, NaN without points.
    voxel_size : float
        Metres.
    largest : float
        Width of the largest object that is removed, metres.
    slope : float
        Largest slope of terrain, rise over run.

    Returns
    -------
    NDArray (ny, nx) bool
        Columns that are ground.
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
    """Fill unknown columns: linearly between the known ones, and from the nearest one outside.

    Parameters
    ----------
    values : NDArray (ny, nx)
        Values of the columns.
    known : NDArray (ny, nx) bool
        Columns whose value is known.

    Returns
    -------
    NDArray (ny, nx) float32
        A copy.
    """
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
    """Fill unknown columns from the nearest known one.

    Parameters
    ----------
    values : NDArray (ny, nx, ...)
        Values of the columns.
    known : NDArray (ny, nx) bool
        Columns whose value is known. If there is none, the values stay.

    Returns
    -------
    NDArray (ny, nx, ...)
        A copy.
    """
    if known.all() or not known.any():
        return values.copy()
    row, col = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[row, col])
