"""Lists of the Gaussians that each tile of a picture draws, front to back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from earthgen.splats.raster.lanes import LANES
from earthgen.threads import side_by_side, stretches

TILE = LANES
"""Edge of a tile, pixels."""

MOST_PAIRS = 2**24
"""Largest number of Gaussians of a tile: they are counted in float32."""

DIGIT = 11
"""Bits of a digit of the radix sort."""


@dataclass(frozen=True)
class Bins:
    """The Gaussians of each tile.

    Attributes
    ----------
    starts : NDArray (tiles + 1,) int64
        Where the list of each tile begins, tiles row by row.
    rows : NDArray (pairs,) int32
        Gaussians of tile t at [starts[t], starts[t + 1]), sorted by depth and then by number.
    across, down : int
        Numbers of tiles.
    """

    starts: NDArray
    rows: NDArray
    across: int
    down: int


def tiles(width: int, height: int) -> tuple[int, int]:
    """Numbers of tiles across and down a picture."""
    return -(-width // TILE), -(-height // TILE)


def bin_by_tile(boxes: NDArray, depths: NDArray, width: int, height: int) -> Bins:
    """Build the lists of a picture's tiles.

    Each thread counts, and then writes, the pairs of a range of the sorted Gaussians, after those
    of the ranges before it. So the lists do not depend on the ranges.

    Parameters
    ----------
    boxes : NDArray (n, 4) int32
        Pixels, of `earthgen.splats.raster.projection.project`.
    depths : NDArray (n,) float32
        Metres.
    width, height : int
        Size of the picture, pixels.
    """
    across, down = tiles(width, height)
    seen = np.flatnonzero(boxes[:, 0] < boxes[:, 1])
    order = seen[by_depth(depths[seen])]
    parts = stretches(len(order))
    counts, touched = (
        np.zeros((len(parts), across * down), np.int64),
        np.empty((len(order), 4), np.int32),
    )
    side_by_side(
        lambda k, first, last: count(boxes, order, first, last, across, counts[k], touched),
        _numbered(parts),
    )
    starts = np.zeros(across * down + 1, np.int64)
    np.cumsum(counts.sum(axis=0), out=starts[1:])
    at = starts[:-1] + np.cumsum(counts, axis=0) - counts
    rows = np.empty(starts[-1], np.int32)
    side_by_side(
        lambda k, first, last: fill(touched, order, first, last, across, at[k], rows),
        _numbered(parts),
    )
    return Bins(starts, rows, across, down)


def _numbered(parts: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(k, first, last) for k, (first, last) in enumerate(parts)]


@njit(nogil=True, cache=True)
def pairs(boxes):  # type: ignore[no-untyped-def]
    """(n + 1,) int64 numbers of tiles that the boxes (n, 4) before each one touch."""
    total = np.empty(len(boxes) + 1, np.int64)
    total[0] = 0
    for i in range(len(boxes)):
        here = 0
        if boxes[i, 0] < boxes[i, 1]:
            across = (boxes[i, 1] + TILE - 1) // TILE - boxes[i, 0] // TILE
            here = across * ((boxes[i, 3] + TILE - 1) // TILE - boxes[i, 2] // TILE)
        total[i + 1] = total[i] + here
    return total


def by_depth(depths: NDArray) -> NDArray:
    """(n,) int64 stable order of float32 depths without NaN."""
    bits = (depths + np.float32(0)).view(np.uint32)  # -0 becomes 0
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # rises with the float
    order = np.arange(len(keys), dtype=np.int64)
    for shift in range(0, 32, DIGIT):
        order = sorted_by_digit(keys, order, shift)
    return order


@njit(nogil=True, cache=True)
def sorted_by_digit(keys, order, shift):  # type: ignore[no-untyped-def]
    """One pass of a radix sort: sort `order` stably by the digit of the keys at `shift`."""
    mask = (1 << DIGIT) - 1
    at = np.zeros(1 << DIGIT, np.int64)
    for i in range(len(keys)):
        at[(np.int64(keys[i]) >> shift) & mask] += 1
    before = 0
    for digit in range(len(at)):
        here = at[digit]
        at[digit] = before
        before += here
    result = np.empty_like(order)
    for i in range(len(order)):
        digit = (np.int64(keys[order[i]]) >> shift) & mask
        result[at[digit]] = order[i]
        at[digit] += 1
    return result


@njit(nogil=True, cache=True)
def count(boxes, order, first, last, across, counts, touched):  # type: ignore[no-untyped-def]
    """Count the pairs of each tile for the Gaussians at [first, last) of the order.

    `touched`, (n, 4) int32, is written: the range of tiles of each, left, right, top, bottom.
    """
    for k in range(first, last):
        i = order[k]
        left, right = boxes[i, 0] // TILE, (boxes[i, 1] + TILE - 1) // TILE
        top, bottom = boxes[i, 2] // TILE, (boxes[i, 3] + TILE - 1) // TILE
        touched[k, 0], touched[k, 1], touched[k, 2], touched[k, 3] = left, right, top, bottom
        for y in range(top, bottom):
            for x in range(left, right):
                counts[y * across + x] += 1


@njit(nogil=True, cache=True)
def fill(touched, order, first, last, across, at, rows):  # type: ignore[no-untyped-def]
    """Write the Gaussians at [first, last) of the order to the lists of their tiles; `at` is the
    next position of each list."""
    for k in range(first, last):
        for y in range(touched[k, 2], touched[k, 3]):
            for x in range(touched[k, 0], touched[k, 1]):
                tile = y * across + x
                rows[at[tile]] = order[k]
                at[tile] += 1
