"""Groups of kernel map rows without absent neighbours, for matrix products on the CPU.

Many neighbours of a voxel are absent: on the surface of a terrain 13 of 27 are present. Rows with
the same pattern of present neighbours can be multiplied in one matrix product without zeros: gather
their neighbours side by side, and multiply. 27 offsets have too many patterns, but 9 have few. So
the offsets are divided into slices, and the rows are grouped for each slice. (spconv and
TorchSparse++ also sort rows by their pattern, for the warps of a GPU.)
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

LEAST, MOST = 256, 2048
"""Rows of a group: patterns with fewer than LEAST rows share a group, with some padding; groups of
more than MOST rows are divided."""


@dataclass(frozen=True)
class Group:
    """Rows that are multiplied together.

    Attributes
    ----------
    rows : NDArray (n,) int32
        Output rows.
    offsets : Tensor (m,) int64
        Numbers of the kernel's offsets.
    neighbours : Tensor (n * m,) int32
        Input row of each output row and offset; the number of inputs where the neighbour is absent.
    """

    rows: NDArray
    offsets: Tensor
    neighbours: Tensor


def groups(pairs: KernelMap) -> list[Group]:
    """The groups of a kernel map, computed once. Together they contain each pair once."""
    if "groups" not in pairs._cache:
        table = pairs.table.numpy()
        pairs._cache["groups"] = [
            group
            for first in range(0, table.shape[1], SLICE)
            for group in _slice(table, first, min(SLICE, table.shape[1] - first), pairs.inputs)
        ]
    return pairs._cache["groups"]


def _slice(table: NDArray, first: int, count: int, inputs: int) -> list[Group]:
    order, chunks, neighbours = _group(table, first, count, inputs, LEAST, MOST)
    result, at, numbers = [], 0, torch.from_numpy(neighbours)
    for begin, end, pattern in chunks.tolist():
        offsets = [first + bit for bit in range(count) if pattern >> bit & 1]
        size = (end - begin) * len(offsets)
        result.append(Group(order[begin:end], torch.tensor(offsets), numbers[at : at + size]))
        at += size
    return result


@njit(nogil=True, cache=True)
def _group(table, first, count, inputs, least, most):  # type: ignore[no-untyped-def]
    """Sort rows by their pattern in columns [first, first + count) of a table, without rows that
    have no neighbour.

    Return the rows in order, (groups, 3) of begin, end and pattern, and the neighbours of all
    groups, row by row.
    """
    rows = len(table)
    begins = np.zeros((1 << count) + 1, np.int64)
    patterns = np.empty(rows, np.int32)
    for row in range(rows):
        pattern = 0
        for k in range(count):
            if table[row, first + k] >= 0:
                pattern |= 1 << k
        patterns[row] = pattern
        begins[pattern + 1] += 1
    begins = np.cumsum(begins)
    at = begins.copy()
    order = np.empty(rows, np.int32)
    for row in range(rows):  # a counting sort, which is stable
        order[at[patterns[row]]] = row
        at[patterns[row]] += 1

    chunks = np.empty((2 * (rows // least + 2), 3), np.int64)
    used, size = 0, 0
    begin = end = begins[1]
    union = 0
    for pattern in range(1, 1 << count):
        here = begins[pattern + 1] - begins[pattern]
        if here == 0:
            continue
        if here >= least and end > begin:  # a large pattern does not share its group
            chunks[used] = begin, end, union
            used, begin, union = used + 1, end, 0
        union |= pattern
        end += here
        if end - begin >= least:
            parts, length = (end - begin + most - 1) // most, end - begin
            for part in range(parts):
                chunks[used] = (
                    begin + length * part // parts,
                    begin + length * (part + 1) // parts,
                    union,
                )
                used += 1
            begin, union = end, 0
    if end > begin:
        chunks[used] = begin, end, union
        used += 1
    for number in range(used):
        bits = 0
        for k in range(count):
            bits += chunks[number, 2] >> k & 1
        size += bits * (chunks[number, 1] - chunks[number, 0])

    neighbours = np.empty(size, np.int32)
    filled = 0
    for number in range(used):
        for place in range(chunks[number, 0], chunks[number, 1]):
            for k in range(count):
                if chunks[number, 2] >> k & 1:
                    found = table[order[place], first + k]
                    neighbours[filled] = found if found >= 0 else inputs
                    filled += 1
    return order, chunks[:used], neighbours


@njit(nogil=True, cache=True)
def add_rows(total, rows, part):  # type: ignore[no-untyped-def]
    """total[rows] += part, of (m, c), (n,) and (n, c). torch's index_add_ is slower: it adds row by
    row on one thread."""
    for i in range(len(rows)):
        row = rows[i]
        for c in range(total.shape[1]):
            total[row, c] += part[i, c]
