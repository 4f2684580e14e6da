"""The speed of a plain matrix product on this machine, to which training is compared."""

from __future__ import annotations

import functools
import time

import torch

from earthgen.sparse.products import product_dtype


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype, size: int = 768) -> float:
    """Return floating-point operations per second of a matrix product, the best of six runs.

    It uses as many threads as torch has at the time of the first call.
    """
    kind = product_dtype(dtype, device)
    a = torch.ones(size, size, dtype=kind, device=device)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
