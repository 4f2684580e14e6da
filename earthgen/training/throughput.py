"""What this machine can compute, for the share of it that training uses."""

from __future__ import annotations

import functools
import time

import torch

from earthgen.sparse.products import product_dtype


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype, size: int = 768) -> float:
    """Floating-point operations a second of a matrix product, the best of some, on as many
    threads as torch has now."""
    kind = product_dtype(dtype, device)
    a = torch.ones(size, size, dtype=kind, device=device)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
