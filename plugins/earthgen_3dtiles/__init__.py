"""Export as 3D Tiles 1.1: `earthgen export --format 3dtiles`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "3dtiles",
        earthgen.__version__,
        "Apache-2.0",
        "exports worlds as 3D Tiles for web viewers and QGIS",
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "3dtiles",
            "earthgen_3dtiles.exporter:TilesExporter",
            "all levels of detail as 3D Tiles 1.1, which web viewers stream",
            options="earthgen_3dtiles.exporter:TilesOptions",
        )
    ]
