"""Export of rasters as cloud-optimised GeoTIFF: `earthgen export --format cog`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen_cog.exporter import CogExporter


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "cog", earthgen.__version__, "Apache-2.0", "exports rasters as cloud-optimised GeoTIFF"
    )


@hookimpl
def earthgen_exporters() -> list[Offer[CogExporter]]:
    return [
        Offer(
            "cog",
            _exporter,
            "ground, surface, height, classes and colours as cloud-optimised GeoTIFF",
        )
    ]


def _exporter() -> CogExporter:
    from earthgen_cog.exporter import CogExporter

    return CogExporter()
