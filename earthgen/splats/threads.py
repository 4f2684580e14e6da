"""Work shared among threads in pieces of about equal cost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PIECES = 6
"""Pieces a thread: what is cheap and what is dear (sky and town) lies in stretches."""


def share(costs: NDArray, work: Callable[[int, int], Any], least: int = 1) -> None:
    """Call `work(first, last)` on ranges that cover `costs`, on as many threads as torch uses.

    costs : (count,) cost of each number
    least : sum of costs below which no second thread is worth while

    The threads end with the call. numba's own, and torch's, would have to be switched off where workers fork.
    """
    count = len(costs)
    ends = np.cumsum(costs, dtype=np.float64)
    total = float(ends[-1]) if count else 0.0
    threads = torch.get_num_threads()
    if threads <= 1 or total < least or count < 2:
        work(0, count)
        return
    cuts = np.searchsorted(ends, np.linspace(0, total, threads * PIECES + 1)[1:-1])
    bounds = np.unique(np.concatenate([[0], cuts, [count]]))
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in pairwise(bounds)]:
            done.result()
