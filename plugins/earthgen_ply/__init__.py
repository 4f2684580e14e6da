"""Export of Gaussians as PLY: `earthgen export --format ply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen_ply.exporter import PlyExporter


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "ply", earthgen.__version__, "Apache-2.0", "exports Gaussians for splat viewers"
    )


@hookimpl
def earthgen_exporters() -> list[Offer[PlyExporter]]:
    return [
        Offer(
            "ply",
            _exporter,
            "Gaussians as splat viewers read them, and a sidecar with anchor and CRS",
        )
    ]


def _exporter() -> PlyExporter:
    from earthgen_ply.exporter import PlyExporter

    return PlyExporter()
