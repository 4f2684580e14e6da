"""Meetings of a kernel map in groups whose rows need no padding, for matrix products on the CPU.

A row of a kernel map is mostly holes: on a terrain's shell 13 of 27 offsets meet a voxel. Rows that
have the same holes make one matrix product without any: gather their neighbours side by side, and
multiply. There are too many patterns of 27 holes, but few of 9, so the offsets are taken in slices,
and rows are put in groups anew for each. (Sorting rows by the pattern of their neighbours is what
spconv and TorchSparse++ do on GPUs, where a warp is the unit that pays.)
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
"""Offsets that are taken together, one layer of a kernel of 3 x 3 x 3: patterns are numbers
below 2^9."""

LEAST, MOST = 256, 2048
"""Rows of a group: fewer patterns than LEAST share one, with some padding; more than MOST are
divided."""


@dataclass(frozen=True)
class Group:
    """Rows that are computed together.

    Attributes
    ----------
    rows : (n,) int32, output rows
    offsets : (m,) int64, which of the kernel's offsets they use
    neighbours : (n * m,) int32, the input row of each row's offset; the number of inputs where
        there is none
    """

    rows: NDArray
    offsets: Tensor
    neighbours: Tensor


def groups(found: KernelMap) -> list[Group]:
    """The groups of a kernel map, made once for it. Together they name each meeting once."""
    if "groups" not in found._cache:
        table = found.table.numpy()
        made = [
            group
            for first in range(0, table.shape[1], SLICE)
            for group in _slice(table, first, min(SLICE, table.shape[1] - first), found.inputs)
        ]
        found._cache["groups"] = made
    return found._cache["groups"]


def _slice(table: NDArray, first: int, count: int, inputs: int) -> list[Group]:
    order, chunks, neighbours = _grouped(table, first, count, inputs, LEAST, MOST)
    found, at, named = [], 0, torch.from_numpy(neighbours)
    for begin, end, pattern in chunks.tolist():
        offsets = [first + bit for bit in range(count) if pattern >> bit & 1]
        size = (end - begin) * len(offsets)
        found.append(Group(order[begin:end], torch.tensor(offsets), named[at : at + size]))
        at += size
    return found


@njit(nogil=True, cache=True)
def _grouped(table, first, count, inputs, least, most):  # type: ignore[no-untyped-def]
    """Rows by their pattern in columns [first, first + count) of a table; those that meet nothing
    are left out.

    Returns the rows in order, (groups, 3) of begin, end and pattern, and the neighbours of all
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
    for row in range(rows):  # a counting sort, which keeps the rows of a pattern in their order
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
        if here >= least and end > begin:  # a large pattern shares its group with no other
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
    """total[rows] += part; (m, c), (n,), (n, c). torch's own index_add_ takes a row at a time on
    one thread."""
    for i in range(len(rows)):
        row = rows[i]
        for c in range(total.shape[1]):
            total[row, c] += part[i, c]
