"""Free memory, checked before a large allocation."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from earthgen.errors import OutOfMemoryError

GROUP = Path("/sys/fs/cgroup")
"""The control group of a container: its limit is in memory.max, its use in memory.current."""

ASK = 64_000_000
"""Bytes below which an allocation is not checked, because the check itself takes time."""


def free(device: torch.device) -> int | None:
    """Bytes that a tensor on a device may take, None where this is not known."""
    if device.type == "cuda":
        return (
            int(torch.cuda.mem_get_info(device)[0])
            + torch.cuda.memory_reserved(device)
            - int(torch.cuda.memory_allocated(device))
        )
    if device.type != "cpu":
        return None
    available = int(psutil.virtual_memory().available)
    limit, used = GROUP / "memory.max", GROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        available = min(available, max(int(limit.read_text()) - int(used.read_text()), 0))
    return available


def require(size: int, device: torch.device, what: str, voxels: int) -> None:
    """Check that an allocation fits into the free memory.

    Parameters
    ----------
    size : int
        Bytes to allocate.
    device : torch.device
        Where.
    what : str
        Name of the operation, for the message.
    voxels : int
        Number of voxels that the operation works on, for the message.

    Raises
    ------
    OutOfMemoryError
        If the device has less free memory.
    """
    if size < ASK:
        return
    available = free(device)
    if available is not None and size > available:
        raise OutOfMemoryError(
            f"{what} needs {size / 1e9:,.1f} GB for {voxels:,} voxels, "
            f"{available / 1e9:,.1f} GB are free on {device}",
            "crop to fewer voxels, use a smaller batch, or bfloat16",
        )
