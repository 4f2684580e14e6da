"""What draws 2D Gaussians: earthgen's own rasteriser for CPUs, and gsplat, which is installed
apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen.splats.raster.model import Rasterizer


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "splats",
        earthgen.__version__,
        "Apache-2.0",
        "pictures of 2D Gaussians by earthgen's own rasteriser, or by gsplat (Apache-2.0), which is installed apart",
    )


@hookimpl
def earthgen_rasterizers() -> list[Offer[Rasterizer]]:
    return [
        Offer("cpu", _cpu, "on the CPU, with gradients"),
        Offer("gsplat", _gsplat, "gsplat 1.5 (Apache-2.0): CUDA, never run by this project"),
    ]


def _cpu() -> Rasterizer:
    from earthgen_splats.cpu import CpuRasterizer

    return CpuRasterizer()


def _gsplat() -> Rasterizer:
    from earthgen_splats.gsplat_rasterizer import GsplatRasterizer

    return GsplatRasterizer()
