"""Rasterizers of 2D Gaussians: earthgen's own for the CPU, and gsplat, which is installed
separately."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "splats",
        earthgen.__version__,
        "Apache-2.0",
        "pictures of 2D Gaussians by earthgen's own rasterizer, or by gsplat (Apache-2.0), which "
        "is installed separately",
    )


@hookimpl
def earthgen_rasterizers() -> list[Offer]:
    return [
        Offer("cpu", "earthgen_splats.cpu:CpuRasterizer", "on the CPU, with gradients"),
        Offer(
            "gsplat",
            "earthgen_splats.gsplat_rasterizer:GsplatRasterizer",
            "gsplat 1.5 (Apache-2.0): CUDA, never run by this project",
        ),
    ]
