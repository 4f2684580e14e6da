"""Export of a world as the grids of other programs: UMEP and SOLWEIG, PALM, game engines,
Minecraft."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "grids",
        earthgen.__version__,
        "Apache-2.0",
        "exports grids for UMEP, PALM, game engines and Minecraft",
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "umep",
            "earthgen_grids.umep:UmepExporter",
            "DSM, CDSM, TDSM, DEM and land cover for UMEP and SOLWEIG (urban climate)",
        ),
        Offer(
            "palm",
            "earthgen_grids.palm:PalmExporter",
            "the static driver of PALM (urban climate), netCDF",
            options="earthgen_grids.palm:PalmOptions",
            suffixes=("_static.nc",),
        ),
        Offer(
            "heightmap",
            "earthgen_grids.heightmap:HeightmapExporter",
            "heights as 16-bit PNG with classes and colours, for Unreal, Unity and Godot",
            options="earthgen_grids.heightmap:HeightmapOptions",
        ),
        Offer(
            "schem",
            "earthgen_grids.schem:SchemExporter",
            "blocks as a Minecraft schematic (Sponge version 2)",
            options="earthgen_grids.schem:SchemOptions",
            suffixes=(".schem",),
        ),
    ]
