"""Work shared among threads. They end with the call: numba's own would have to be switched off
where workers fork."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PIECES = 6
"""Pieces a thread where costs differ: what is cheap and what is dear (sky and town) lies in
stretches."""


def stretches(count: int, least: int = 8192) -> list[tuple[int, int]]:
    """Ranges that cover `count`, one for each of the threads that torch uses, of `least` at
    least."""
    threads = max(min(torch.get_num_threads(), -(-count // least)), 1)
    return list(pairwise(count * number // threads for number in range(threads + 1)))


def share(costs: NDArray, work: Callable[[int, int], Any]) -> None:
    """Call `work(first, last)` on ranges that cover `costs` (count,), on as many threads as
    torch uses."""
    count, threads = len(costs), torch.get_num_threads()
    if threads <= 1 or count < 2:
        work(0, count)
        return
    ends = np.cumsum(costs, dtype=np.float64)
    cuts = np.searchsorted(ends, np.linspace(0, ends[-1], threads * PIECES + 1)[1:-1])
    side_by_side(work, list(pairwise(np.unique([0, *cuts, count]).tolist())))


def side_by_side(work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call `work` with each of the arguments, on as many threads as torch uses; raises what a
    call raises."""
    threads = min(torch.get_num_threads(), len(arguments))
    if threads <= 1:
        for given in arguments:
            work(*given)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *given) for given in arguments]:
            done.result()
