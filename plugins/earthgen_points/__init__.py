"""Export of a world as a coloured point cloud: `earthgen export --format laz` and `copc`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "points", earthgen.__version__, "Apache-2.0", "exports the surface as classified points"
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "laz",
            "earthgen_points.laz:LazExporter",
            "the surface as points with colour, class and object id, in LAZ 1.4",
            options="earthgen_points.records:PointOptions",
            suffixes=(".laz",),
        ),
        Offer(
            "copc",
            "earthgen_points.copc:CopcExporter",
            "the same points as cloud-optimised point cloud (COPC), for viewers and PDAL",
            options="earthgen_points.records:CopcOptions",
            suffixes=(".copc.laz",),
        ),
    ]
