"""What memory is free, asked before much of it is taken."""

from __future__ import annotations

from pathlib import Path

import torch

from earthgen.errors import OutOfMemoryError

MEMINFO = Path("/proc/meminfo")

GROUP = Path("/sys/fs/cgroup")
"""What a container may use: its limit lies in memory.max, what it uses in memory.current."""

ASK = 64_000_000
"""Bytes from which on it is worth a look: free memory is read from a file of the kernel's, or
from the driver."""


def free(device: torch.device) -> int | None:
    """Bytes that a tensor on a device could take; None where that cannot be told."""
    if device.type == "cuda":
        return (
            int(torch.cuda.mem_get_info(device)[0])
            + torch.cuda.memory_reserved(device)
            - int(torch.cuda.memory_allocated(device))
        )
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    there = None
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            there = int(line.split()[1]) * 1024
    limit, used = GROUP / "memory.max", GROUP / "memory.current"
    if (
        there is not None
        and limit.exists()
        and used.exists()
        and limit.read_text().strip() != "max"
    ):
        there = min(there, max(int(limit.read_text()) - int(used.read_text()), 0))
    return there


def require(size: int, device: torch.device, what: str, voxels: int) -> None:
    """Raise OutOfMemoryError where `size` bytes more do not fit.

    what : names the operation in the message; voxels : how many it works on
    """
    if size < ASK:
        return
    there = free(device)
    if there is not None and size > there:
        raise OutOfMemoryError(
            f"{what} needs {size / 1e9:,.1f} GB for {voxels:,} voxels, {there / 1e9:,.1f} GB are free on {device}",
            "crop to fewer voxels, use a smaller batch, or bfloat16",
        )
