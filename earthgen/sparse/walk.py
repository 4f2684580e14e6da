"""The walks along sorted voxels that plain torch has no operation for, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from numba import njit

CHUNK = 1024
"""Output rows whose part of the table stays in a core's cache while all offsets are looked at."""


def spread(count: int, work: Callable[[int, int], Any], least: int = 8192) -> None:
    """Call `work(first, last)` on ranges that cover `count`, on as many threads as torch uses.

    numba's own threads would have to be switched off wherever threads or forks are used; these end with the call.
    """
    threads = min(torch.get_num_threads(), -(-count // least))
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(bounds)]:
            done.result()


@njit(nogil=True, cache=True)
def fill_table(keys, outputs, low, high, stride, first, step, size, table, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of a kernel map.

    keys : (inputs,) int64, rising: row-major numbers in the box [low, high] of (sample, x, y, z)
    outputs : (m, 4) int32, sorted
    stride, first, step, size : of the kernel: stride, lowest offset, dilation, number of offsets
    table : (m, volume) int32, written
    """
    extent_x, extent_y = high[1] - low[1] + 1, high[2] - low[2] + 1
    extent_z = high[3] - low[3] + 1
    count = len(keys)
    for chunk in range(begin, end, CHUNK):
        last = min(chunk + CHUNK, end)
        for i in range(size[0]):
            for j in range(size[1]):
                column = (i * size[1] + j) * size[2]
                at = -1
                for row in range(chunk, last):
                    sample = outputs[row, 0] - low[0]
                    x = outputs[row, 1] * stride[0] + first[0] + i * step[0] - low[1]
                    y = outputs[row, 2] * stride[1] + first[1] + j * step[1] - low[2]
                    inside = 0 <= sample <= high[0] - low[0] and 0 <= x < extent_x and 0 <= y < extent_y
                    z = outputs[row, 3] * stride[2] + first[2] - low[3]
                    if not inside or z >= extent_z:
                        for k in range(size[2]):
                            table[row, column + k] = -1
                        continue
                    base = ((sample * extent_x + x) * extent_y + y) * extent_z
                    lowest = base + max(z, 0)
                    if at < 0:  # the first of the chunk: by bisection; the others follow in order
                        a, b = 0, count
                        while a < b:
                            middle = (a + b) // 2
                            if keys[middle] < lowest:
                                a = middle + 1
                            else:
                                b = middle
                        at = a
                    while at < count and keys[at] < lowest:
                        at += 1
                    there = at
                    for k in range(size[2]):
                        height = z + k * step[2]
                        found = -1
                        if 0 <= height < extent_z:
                            key = base + height
                            while there < count and keys[there] < key:
                                there += 1
                            if there < count and keys[there] == key:
                                found = there
                        table[row, column + k] = found
