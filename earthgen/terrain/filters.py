"""Filters with a bounded reach that give the same bits whatever window they run on.

Sums of floats depend on where they start; sums of integers do not. Heights are therefore summed in
fixed point. A filter's reach is its `radius` in cells: cells farther from the array's edge than
that are exact.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FIXED = 4096.0
"""Steps a metre of the fixed-point sums; the largest sum, 1e4 m over 1e6 cells, stays far below
2^63."""


def cells_of(metres: float, voxel_size: float) -> int:
    """How many whole voxels fit into `metres`."""
    return int(metres / voxel_size + 1e-9)


def box_mean(values: NDArray, mask: NDArray, radius: int) -> NDArray:
    """(ny, nx) float32: mean of `values` where `mask`, over squares of 2 * radius + 1 cells; NaN
    for none."""
    fixed = np.where(mask, np.rint(np.where(mask, values, 0.0) * FIXED), 0.0).astype(np.int64)
    total = _box_sum(fixed, radius)
    count = _box_sum(mask.astype(np.int64), radius)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count / FIXED).astype(np.float32)


def box_share(mask: NDArray, radius: int) -> NDArray:
    """(ny, nx) float32 in [0, 1]: share of cells of the square of 2 * radius + 1 cells where
    `mask`.

    Cells outside the array count as not masked.
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
    """(ny, nx) float32: least of `values` where `mask`, over squares of 2 * radius + 1 cells;
    inf for none."""
    filled = np.where(mask, values, np.float32(np.inf)).astype(np.float32)
    return np.asarray(ndimage.minimum_filter(filled, 2 * radius + 1, mode="constant", cval=np.inf))


def masked_max(values: NDArray, mask: NDArray, radius: int) -> NDArray:
    """(ny, nx) float32: greatest of `values` where `mask`; -inf where there is none."""
    return -masked_min(-values, mask, radius)


def fill_gaps(values: NDArray, trusted: NDArray, radii: tuple[int, ...]) -> NDArray:
    """(ny, nx) float32: `values` where `trusted`; elsewhere the mean of trusted cells in the
    smallest square of `radii` that has any, NaN where none has."""
    out = np.where(trusted, values, np.float32(np.nan)).astype(np.float32)
    for radius in radii:
        missing = np.isnan(out)
        if not missing.any():
            break
        out[missing] = box_mean(values, trusted, radius)[missing]
    return out


def nearest(mask: NDArray, radius: int) -> tuple[NDArray, NDArray]:
    """Distance in cells to, and flat index of, the nearest cell of `mask` within `radius` cells.

    Returns (ny, nx) float32, inf beyond the radius, and (ny, nx) int32, -1 there. Of cells equally
    near the one with the nearest column, then the western, then the northern counts.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32), np.full(mask.shape, -1, np.int32)
    distance, index = _nearest(np.ascontiguousarray(mask), int(radius))
    return np.asarray(distance), np.asarray(index)


@numba.njit(cache=True, nogil=True)
def _nearest(mask, radius):  # type: ignore[no-untyped-def]
    rows, cols = mask.shape
    vertical = np.full(
        (rows, cols), -1, np.int32
    )  # row of the nearest masked cell in the same column
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
    ahead = np.empty(
        cols, np.int64
    )  # columns to the nearest one eastwards that has a masked cell within reach
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
                    found = vertical[row, other]
                    if found >= 0:
                        d = step * step + (row - found) * (row - found)
                        if d < best:
                            best = d
                            distance[row, col] = np.sqrt(np.float32(d))
                            index[row, col] = found * cols + other
    return distance, index


def slopes(height: NDArray, voxel_size: float) -> tuple[NDArray, NDArray]:
    """(ny, nx) float32 slope towards east and towards north of a height field, by central
    differences."""
    north, east = np.gradient(height.astype(np.float32), voxel_size)
    return np.asarray(east), np.asarray(-north)
