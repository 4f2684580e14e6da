"""Whether numba still has to compile kernels, which it does once on a machine and then keeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

OURS = ("earthgen", "geo_io")
"""Beginnings of the names of modules whose kernels are looked at."""

SHARE = 0.5
"""Share of kernels without a kept version above which a run announces that it compiles. A few are
always missing, because no job has used them yet."""


def kernels() -> dict[str, bool]:
    """Return the kernels of the modules imported so far, and whether numba has kept each.

    Kernels that numba is told not to keep, and those that are inlined into others, are left out.
    """
    from numba.core.dispatcher import Dispatcher

    kept: dict[str, bool] = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith(OURS):
            continue
        for kernel in list(vars(module).values()):
            if not isinstance(kernel, Dispatcher) or kernel.__module__ != name:
                continue
            index = _index_of(kernel)
            if index is not None and kernel.targetoptions.get("inline", "never") != "always":
                kept[f"{name}.{kernel.py_func.__name__}"] = index.exists()
    return kept


def notice() -> str | None:
    """Return what to say before a run that compiles most kernels; None if it does not."""
    kept = kernels()
    missing = len(kept) - sum(kept.values())
    if missing <= SHARE * len(kept):
        return None
    return (
        f"numba compiles {missing} functions for this machine: this once takes up to a minute "
        "of one core more (`earthgen doctor --warm` does it beforehand)"
    )


def _index_of(kernel: Any) -> Path | None:
    """The file in which numba lists the kept versions of a kernel; None if it keeps none."""
    cache = kernel._cache
    name = getattr(getattr(cache, "_impl", None), "filename_base", None)
    return None if name is None else Path(cache.cache_path) / f"{name}.nbi"
