"""Export of rasters as cloud-optimised GeoTIFF: `earthgen export --format cog`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "cog", earthgen.__version__, "Apache-2.0", "exports rasters as cloud-optimised GeoTIFF"
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "cog",
            "earthgen_cog.exporter:CogExporter",
            "ground, surface, height, classes and colours as cloud-optimised GeoTIFF",
        )
    ]
