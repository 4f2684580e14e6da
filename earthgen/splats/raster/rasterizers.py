"""Choosing a rasterizer. Plugins offer them through the hook `earthgen_rasterizers`."""

from __future__ import annotations

import torch

from earthgen import plugins
from earthgen.errors import SplatError
from earthgen.splats.raster.model import Rasterizer

BY_DEVICE = {"cpu": "cpu", "cuda": "gsplat"}
"""Default rasterizer of each device type."""


def draws_here(device: torch.device | str) -> bool:
    """Whether the default rasterizer of a device exists and can run on this machine."""
    chosen = BY_DEVICE.get(torch.device(device).type)
    offered = plugins.load()
    if chosen is None or chosen not in offered.offers("rasterizer"):
        return False
    return not offered.create("rasterizer", chosen).unavailable()


def pick_rasterizer(device: torch.device | str, name: str | None = None) -> Rasterizer:
    """Choose the rasterizer for tensors on a device.

    Parameters
    ----------
    device : torch.device or str
        Device of the tensors.
    name : str, optional
        Name of the rasterizer. By default "cpu" on the CPU and "gsplat" on CUDA.

    Raises
    ------
    UnknownNameError
        If no plugin offers the name.
    SplatError
        If the rasterizer cannot run on this machine or does not draw on the device.
    """
    kind = torch.device(device).type
    chosen = name if name is not None else BY_DEVICE.get(kind)
    if chosen is None:
        raise SplatError(
            f"no rasterizer is the default on {kind}",
            "move the Gaussians to the CPU, or name a rasterizer",
        )
    rasterizer: Rasterizer = plugins.load().create("rasterizer", chosen)
    reason = rasterizer.unavailable()
    if reason:
        raise SplatError(
            f"rasterizer {chosen!r} cannot run here: {reason}", "use the rasterizer 'cpu'"
        )
    if kind not in rasterizer.devices:
        raise SplatError(
            f"rasterizer {chosen!r} draws on {', '.join(rasterizer.devices)}, the Gaussians are on "
            f"{kind}",
            "move them, or name another rasterizer",
        )
    return rasterizer
