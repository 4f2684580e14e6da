"""Groups of kernel map rows with few absent neighbours, for matrix products on the CPU.

Many neighbours of a voxel are absent: on surfaces 9 to 13 of 27 are present. Rows with the same
pattern of present neighbours can be multiplied in one matrix product without zeros: gather their
neighbours side by side, and multiply. 27 offsets have too many patterns, but 9 have few. So the
offsets are divided into slices, and the rows are sorted by their pattern for each slice and cut
into blocks. (spconv and TorchSparse++ also sort rows by their pattern, for the warps of a GPU.)
Each output row is the sum of one row of products of each slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from earthgen.sparse.kernel_map import KernelMap

SLICE = 9
"""Offsets of a slice, one layer of a kernel of 3 x 3 x 3: patterns are numbers below 2^9."""

SPAN = 18 * 2**10
"""Output rows that are grouped together. More rows have fewer neighbours that are absent from
their block, fewer need less memory for products."""

BLOCK, MOST = 256, 512
"""Rows of a block, which are multiplied by the weights of all offsets that one of them has; and of
a group of blocks with the same offsets."""

STEP = 64
"""Numbers of rows of a group are rounded up to a multiple, so that there are few different ones:
the library compiles a kernel for each shape in bfloat16 and float16, in about 0.5 ms."""


@dataclass(frozen=True)
class Group:
    """Rows that are multiplied together. Their number is a multiple of STEP.

    Attributes
    ----------
    rows : Tensor (n,) int32
        Output rows; to fill up, the last one is repeated, with no neighbour.
    offsets : Tensor (m,) int64
        Numbers of the kernel's offsets.
    neighbours : Tensor (n * m,) int32
        Input row of each output row and offset, any where the neighbour is absent.
    absent : Tensor (k,) int64
        Indices of the absent among the neighbours.
    """

    rows: Tensor
    offsets: Tensor
    neighbours: Tensor
    absent: Tensor


@dataclass(frozen=True)
class Span:
    """The groups of output rows [first, last).

    Attributes
    ----------
    groups : list of Group
        Their products are stored in this order, from row 1 on.
    places : Tensor (last - first, slices) int64
        Rows of products whose sum is an output row; 0 where a slice has no neighbour.
    products : int
        Number of rows of products, with row 0.
    """

    first: int
    last: int
    groups: list[Group]
    places: Tensor
    products: int


def spans(pairs: KernelMap) -> list[Span]:
    """The groups of a kernel map, computed once. Together they contain each pair once."""
    if "spans" not in pairs._cache:
        table = pairs.table.numpy()
        offsets: dict[tuple[int, int], Tensor] = {}
        pairs._cache["spans"] = [
            _span(table, first, min(first + SPAN, len(table)), offsets)
            for first in range(0, len(table), SPAN)
        ]
    return pairs._cache["spans"]


def _span(table: NDArray, first: int, last: int, known: dict[tuple[int, int], Tensor]) -> Span:
    """Group output rows [first, last); `known` are the offsets of patterns of slices, so that
    groups share them."""
    volume = table.shape[1]
    starts = range(0, volume, SLICE)
    places = np.zeros((last - first, len(starts)), np.int64)
    groups, used = [], 1
    for number, start in enumerate(starts):
        count = min(SLICE, volume - start)
        rows, bounds, neighbours, absent = _group(
            table, first, last, start, count, BLOCK, MOST, STEP, places, number, used
        )
        at, rows = 0, torch.from_numpy(rows)
        for begin, end, pattern, low, high in bounds.tolist():
            if (start, pattern) not in known:
                known[start, pattern] = torch.tensor(
                    [start + bit for bit in range(count) if pattern >> bit & 1]
                )
            offsets = known[start, pattern]
            size = (end - begin) * len(offsets)
            groups.append(
                Group(
                    rows[begin:end],
                    offsets,
                    torch.from_numpy(neighbours[at : at + size]),
                    torch.from_numpy(absent[low:high]),
                )
            )
            at += size
        used += len(rows)
    return Span(first, last, groups, torch.from_numpy(places), used)


@njit(nogil=True, cache=True)
def _group(table, first, last, start, count, block, most, step, places, column, used):  # type: ignore[no-untyped-def]
    """Sort rows [first, last) of a table by their pattern in columns [start, start + count),
    without rows that have no neighbour there, and cut them into blocks.

    Parameters
    ----------
    table : NDArray (outputs, volume) int32
        A kernel map.
    block, most, step : int
        BLOCK, MOST and STEP.
    places : NDArray (last - first, slices) int64
        A column is set to the row of products of each row with a neighbour.
    used : int
        The first free row of products.

    Returns
    -------
    tuple
        Rows in order; (groups, 5) of begin, end, pattern, and begin and end of its absent
        neighbours; the neighbours of all groups, row by row; the absent ones.
    """
    rows = last - first
    begins = np.zeros((1 << count) + 1, np.int64)
    patterns = np.empty(rows, np.int32)
    for row in range(rows):
        pattern = 0
        for k in range(count):
            if table[first + row, start + k] >= 0:
                pattern |= 1 << k
        patterns[row] = pattern
        begins[pattern + 1] += 1
    begins = np.cumsum(begins)
    present, at = rows - begins[1], begins - begins[1]
    order = np.empty(-(-present // step) * step, np.int32)
    for row in range(rows):  # a counting sort, which is stable
        if patterns[row]:
            place = at[patterns[row]]
            at[patterns[row]] += 1
            order[place], places[row, column] = first + row, used + place

    bounds, groups, size = np.empty((-(-present // block), 5), np.int64), 0, 0
    for begin in range(0, present, block):
        union = 0
        for place in range(begin, min(begin + block, present)):
            union |= patterns[order[place] - first]
        end = min(begin + block, len(order))
        bits = 0
        for k in range(count):
            bits += union >> k & 1
        size += (end - begin) * bits
        before = groups - 1
        if groups and bounds[before, 2] == union and end - bounds[before, 0] <= most:
            bounds[before, 1] = end
        else:
            bounds[groups, :3] = begin, end, union
            groups += 1

    neighbours, absent = np.empty(size, np.int32), np.empty(size, np.int64)
    filled, lacking = 0, 0
    for number in range(groups):
        begin, end, union = bounds[number, :3]
        bounds[number, 3], begun = lacking, filled
        for place in range(begin, end):
            row = order[min(place, present - 1)]
            order[place] = row
            for k in range(count):
                if union >> k & 1:
                    found = table[row, start + k] if place < present else -1
                    neighbours[filled] = max(found, 0)
                    if found < 0:
                        absent[lacking] = filled - begun
                        lacking += 1
                    filled += 1
        bounds[number, 4] = lacking
    return order, bounds[:groups], neighbours, absent[:lacking].copy()
