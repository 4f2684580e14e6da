"""Export of Gaussians as PLY: `earthgen export --format ply`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "ply", earthgen.__version__, "Apache-2.0", "exports Gaussians for splat viewers"
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "ply",
            "earthgen_ply.exporter:PlyExporter",
            "Gaussians as splat viewers read them, and a sidecar with anchor and CRS",
        )
    ]
