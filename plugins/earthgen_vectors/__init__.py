"""Export of what stands in a world as vector data: `earthgen export --format gpkg`, `geoparquet`
and `cityjson`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "vectors",
        earthgen.__version__,
        "Apache-2.0",
        "exports buildings, trees, roads, water and contours as vector data",
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "gpkg",
            "earthgen_vectors.gpkg:GpkgExporter",
            "buildings, trees, roads, water and contours as layers of one GeoPackage",
            options="earthgen_vectors.options:VectorOptions",
            suffixes=(".gpkg",),
        ),
        Offer(
            "geoparquet",
            "earthgen_vectors.geoparquet:GeoParquetExporter",
            "buildings, trees, roads, water and contours as a GeoParquet file each",
            options="earthgen_vectors.options:VectorOptions",
        ),
        Offer(
            "cityjson",
            "earthgen_vectors.city_json:CityJsonExporter",
            "buildings (LoD 1.2 and 2.2), trees and terrain as CityJSON 2.0",
            options="earthgen_vectors.options:CityJsonOptions",
            suffixes=(".city.json",),
        ),
    ]
