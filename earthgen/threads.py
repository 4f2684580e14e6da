"""Sharing work among threads, which end with the call. numba's own threads would have to be
disabled wherever processes fork."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PIECES = 6
"""Ranges for each thread where costs differ: cheap and expensive areas (sky, town) are
contiguous."""


def stretches(count: int, least: int = 8192) -> list[tuple[int, int]]:
    """Divide `count` into one range for each thread that torch uses, of about `least` or more."""
    threads = max(min(torch.get_num_threads(), -(-count // least)), 1)
    return list(pairwise(count * number // threads for number in range(threads + 1)))


def share(costs: NDArray, work: Callable[[int, int], Any]) -> None:
    """Call `work(first, last)` on ranges of about equal costs, on as many threads as torch uses.

    Parameters
    ----------
    costs : NDArray (count,)
        Cost of each item.
    work : callable
        Is called with ranges that cover all items.
    """
    count, threads = len(costs), torch.get_num_threads()
    if threads <= 1 or count < 2:
        work(0, count)
        return
    ends = np.cumsum(costs, dtype=np.float64)
    cuts = np.searchsorted(ends, np.linspace(0, ends[-1], threads * PIECES + 1)[1:-1])
    side_by_side(work, list(pairwise(np.unique([0, *cuts, count]).tolist())))


def side_by_side(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call `work` with each of the arguments, on as many threads as torch uses; errors of a call
    are raised here."""
    threads = min(torch.get_num_threads(), len(arguments))
    if threads <= 1:
        for values in arguments:
            work(*values)
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, *values) for values in arguments]:
            future.result()
