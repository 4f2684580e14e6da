"""Which Gaussians each tile of a picture draws, front to back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from earthgen.splats.raster.lanes import LANES
from earthgen.splats.raster.threads import side_by_side, stretches

TILE = LANES
"""Pixels along a tile's side."""

MOST_PAIRS = 2**24
"""Gaussians a tile can draw: they are counted in float32."""

DIGIT = 11
"""Bits that a pass of the sort looks at."""


@dataclass(frozen=True)
class Bins:
    """The Gaussians of each tile.

    Attributes
    ----------
    starts : (tiles + 1,) int64, tiles row by row
    rows : (pairs,) int32, Gaussians of tile t at [starts[t], starts[t + 1]), by depth, those of one
        depth by number
    across, down : numbers of tiles
    """

    starts: NDArray
    rows: NDArray
    across: int
    down: int


def tiles(width: int, height: int) -> tuple[int, int]:
    """Tiles across and down a picture."""
    return -(-width // TILE), -(-height // TILE)


def bin_by_tile(boxes: NDArray, depths: NDArray, width: int, height: int) -> Bins:
    """The lists of a picture's tiles.

    boxes : (n, 4) int32 of pixels, as `earthgen.splats.raster.projection.project` has them; depths
        : (n,) float32

    Each thread counts, and then writes, the pairs of a stretch of the Gaussians in their order;
    those of the stretches before it come first, so that the lists do not depend on the stretches.
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
    """(n + 1,) int64, how many tiles the boxes (n, 4) before each touch."""
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
    """(n,) int64, the stable order of float32 depths, none of them NaN."""
    bits = (depths + np.float32(0)).view(np.uint32)  # -0 becomes 0
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # rises with the float
    order = np.arange(len(keys), dtype=np.int64)
    for shift in range(0, 32, DIGIT):
        order = sorted_by_digit(keys, order, shift)
    return order


@njit(nogil=True, cache=True)
def sorted_by_digit(keys, order, shift):  # type: ignore[no-untyped-def]
    """One pass of a radix sort: `order`, by the digit of the keys at `shift`, else as it was."""
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
    """Add the pairs of each tile, of the Gaussians at [first, last) of the order.

    touched : (n, 4) int32, written there: the tiles of each, left, right, top, bottom
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
    """Put the Gaussians at [first, last) of the order into their tiles; `at` is where each tile
    goes on."""
    for k in range(first, last):
        for y in range(touched[k, 2], touched[k, 3]):
            for x in range(touched[k, 0], touched[k, 1]):
                tile = y * across + x
                rows[at[tile]] = order[k]
                at[tile] += 1
