"""Export of Gaussians as PLY and SPZ: `earthgen export --format ply` and `--format spz`."""

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
            options="earthgen_ply.exporter:PlyOptions",
            suffixes=(".ply",),
        ),
        Offer(
            "spz",
            "earthgen_ply.exporter:SpzExporter",
            "Gaussians in the packed form of Niantic, for viewers on the web",
            suffixes=(".spz",),
        ),
    ]
