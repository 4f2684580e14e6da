"""Filters of bounded reach that give the same bits in any window.

Sums of floats depend on where they start, sums of integers do not: heights are summed in fixed
point. The reach of a filter is its `radius` in cells; results are exact for cells that are farther
than that from the array's edge.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FIXED = 4096.0
"""Fixed-point steps per metre; the largest sum, 1e4 m over 1e6 cells, stays far below 2^63."""


def whole_cells(metres: float, voxel_size: float) -> int:
    """Return how many whole cells of `voxel_size` metres fit into `metres`."""
    return int(metres / voxel_size + 1e-9)


def box_mean(values: NDArray, mask: NDArray, radius: int) -> NDArray:
    """Return the mean of the masked cells in a square around each cell.

    Parameters
    ----------
    values : NDArray (ny, nx)
        Metres, or other values of that size: sums have a resolution of 1 / FIXED.
    mask : NDArray (ny, nx) bool
        Cells to average.
    radius : int
        The square is 2 * radius + 1 cells wide.

    Returns
    -------
    NDArray (ny, nx) float32
        NaN where the square has no masked cell.
    """
    fixed = np.where(mask, np.rint(np.where(mask, values, 0.0) * FIXED), 0.0).astype(np.int64)
    total = _box_sum(fixed, radius)
    count = _box_sum(mask.astype(np.int64), radius)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count / FIXED).astype(np.float32)


def box_share(mask: NDArray, radius: int) -> NDArray:
    """Return the share of masked cells in a square around each cell.

    Parameters
    ----------
    mask : NDArray (ny, nx) bool
        Cells outside the array count as not masked.
    radius : int
        The square is 2 * radius + 1 cells wide.

    Returns
    -------
    NDArray (ny, nx) float32
        0 to 1.
    """
    return (_box_sum(mask.astype(np.int64), radius) / float((2 * radius + 1) ** 2)).astype(
        np.float32
    )


@numba.njit(cache=True, nogil=True)
def _box_sum(values, radius):  # type: ignore[no-untyped-def]
    rows, cols = values.shape
    across = np.empty((rows, cols), np.int64)
    for row in range(rows):
        total = np.int64(0)
        for col in range(min(radius, cols)):
            total += values[row, col]
        for col in range(cols):
            if col + radius < cols:
                total += values[row, col + radius]
            if col - radius - 1 >= 0:
                total -= values[row, col - radius - 1]
            across[row, col] = total
    out = np.empty((rows, cols), np.int64)
    sums = np.zeros(cols, np.int64)
    for row in range(min(radius, rows)):
        for col in range(cols):
            sums[col] += across[row, col]
    for row in range(rows):
        add, drop = row + radius, row - radius - 1
        for col in range(cols):
            if add < rows:
                sums[col] += across[add, col]
            if drop >= 0:
                sums[col] -= across[drop, col]
            out[row, col] = sums[col]
    return out


def masked_min(values: NDArray, mask: NDArray, radius: int) -> NDArray:
    """Return the minimum of the masked cells in a square around each cell.

    Parameters
    ----------
    values : NDArray (ny, nx)
        Any unit.
    mask : NDArray (ny, nx) bool
        Cells to compare.
    radius : int
        The square is 2 * radius + 1 cells wide.

    Returns
    -------
    NDArray (ny, nx) float32
        inf where the square has no masked cell.
    """
    filled = np.where(mask, values, np.float32(np.inf)).astype(np.float32)
    return np.asarray(ndimage.minimum_filter(filled, 2 * radius + 1, mode="constant", cval=np.inf))


def masked_max(values: NDArray, mask: NDArray, radius: int) -> NDArray:
    """Return the maximum of the masked cells in a square, -inf for none; see `masked_min`."""
    return -masked_min(-values, mask, radius)


def fill_gaps(values: NDArray, trusted: NDArray, radii: tuple[int, ...]) -> NDArray:
    """Fill gaps with the mean of trusted cells nearby.

    Parameters
    ----------
    values : NDArray (ny, nx) float32
        Metres.
    trusted : NDArray (ny, nx) bool
        Cells to keep; the others are gaps.
    radii : tuple of int
        Radii of squares in cells, ascending; the first square with a trusted cell is used.

    Returns
    -------
    NDArray (ny, nx) float32
        NaN where no square has a trusted cell.
    """
    out = np.where(trusted, values, np.float32(np.nan)).astype(np.float32)
    for radius in radii:
        missing = np.isnan(out)
        if not missing.any():
            break
        out[missing] = box_mean(values, trusted, radius)[missing]
    return out


def nearest_cell(mask: NDArray, radius: int) -> tuple[NDArray, NDArray]:
    """Return the nearest masked cell of each cell within a radius.

    Of equally near cells it is the one with the nearest column, then the western, then the
    northern one.

    Parameters
    ----------
    mask : NDArray (ny, nx) bool
        Cells to find.
    radius : int
        Greatest distance, cells.

    Returns
    -------
    distance : NDArray (ny, nx) float32
        Cells; inf where there is none within the radius.
    index : NDArray (ny, nx) int32
        Flat index of the nearest masked cell; -1 where there is none.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32), np.full(mask.shape, -1, np.int32)
    distance, index = _nearest(np.ascontiguousarray(mask), int(radius))
    return np.asarray(distance), np.asarray(index)


@numba.njit(cache=True, nogil=True)
def _nearest(mask, radius):  # type: ignore[no-untyped-def]
    rows, cols = mask.shape
    # Row of the nearest masked cell in the same column.
    vertical = np.full((rows, cols), -1, np.int32)
    last = np.full(cols, -1, np.int32)
    for row in range(rows):
        for col in range(cols):
            if mask[row, col]:
                last[col] = row
            if last[col] >= 0 and row - last[col] <= radius:
                vertical[row, col] = last[col]
    last[:] = -1
    for row in range(rows - 1, -1, -1):
        for col in range(cols):
            if mask[row, col]:
                last[col] = row
            north = vertical[row, col]
            nearer = north < 0 or last[col] - row < row - north
            if last[col] >= 0 and last[col] - row <= radius and nearer:
                vertical[row, col] = last[col]
    distance = np.full((rows, cols), np.inf, np.float32)
    index = np.full((rows, cols), -1, np.int32)
    # Distance eastwards to the next column that has a masked cell within the radius.
    ahead = np.empty(cols, np.int64)
    for row in range(rows):
        steps = radius + 1
        for col in range(cols - 1, -1, -1):
            steps = 0 if vertical[row, col] >= 0 else steps + 1
            ahead[col] = steps
        steps = radius + 1
        for col in range(cols):
            steps = 0 if vertical[row, col] >= 0 else steps + 1
            best = radius * radius + 1
            for step in range(min(steps, ahead[col]), radius + 1):
                if step * step >= best:
                    break
                for side in range(2):
                    other = col - step if side == 0 else col + step
                    if other < 0 or other >= cols or (side == 1 and step == 0):
                        continue
                    at = vertical[row, other]
                    if at >= 0:
                        d = step * step + (row - at) * (row - at)
                        if d < best:
                            best = d
                            distance[row, col] = np.sqrt(np.float32(d))
                            index[row, col] = at * cols + other
    return distance, index


def slopes(height: NDArray, voxel_size: float) -> tuple[NDArray, NDArray]:
    """Return the slopes of a height field by central differences.

    Parameters
    ----------
    height : NDArray (ny, nx)
        Metres, rows from north to south.
    voxel_size : float
        Metres.

    Returns
    -------
    east, north : NDArray (ny, nx) float32
        Rise over run.
    """
    north, east = np.gradient(height.astype(np.float32), voxel_size)
    return np.asarray(east), np.asarray(-north)
