"""Which rasteriser draws. They come through the hook `earthgen_rasterizers`."""

from __future__ import annotations

import functools

import torch

from earthgen import plugins
from earthgen.errors import SplatError
from earthgen.splats.raster.model import Rasterizer

BY_DEVICE = {"cpu": "cpu", "cuda": "gsplat"}
"""What draws tensors on a device where none is named."""


def pick(device: torch.device | str, name: str | None = None) -> Rasterizer:
    """The rasteriser for tensors on a device.

    name : of the one to use; None takes that of `BY_DEVICE`

    Raises
    ------
    UnknownNameError
        where no installed plugin offers the name; names the nearest
    SplatError
        where it cannot run here, or does not draw on the device
    """
    kind = torch.device(device).type
    wanted = name if name is not None else BY_DEVICE.get(kind)
    if wanted is None:
        raise SplatError(
            f"nothing draws on {kind} unasked",
            "move the Gaussians to the CPU, or name a rasterizer",
        )
    rasterizer: Rasterizer = offered().create("rasterizer", wanted)
    reason = rasterizer.unavailable()
    if reason:
        raise SplatError(
            f"rasterizer {wanted!r} cannot run here: {reason}", "use the rasterizer 'cpu'"
        )
    if kind not in rasterizer.devices:
        raise SplatError(
            f"rasterizer {wanted!r} draws on {', '.join(rasterizer.devices)}, the Gaussians are on {kind}",
            "move them, or name another rasterizer",
        )
    return rasterizer


@functools.cache
def offered() -> plugins.Plugins:
    """The installed plugins."""
    return plugins.load()
