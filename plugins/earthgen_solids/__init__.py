"""Export of closed solids for simulations: `earthgen export --format stl` and `--format obj`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "solids",
        earthgen.__version__,
        "Apache-2.0",
        "exports closed solids of the ground and of buildings, for simulations",
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "stl",
            "earthgen_solids.exporter:StlExporter",
            "closed solids of the ground and of each building, for OpenFOAM and others",
            options="earthgen_solids.exporter:StlOptions",
            suffixes=(".stl",),
        ),
        Offer(
            "obj",
            "earthgen_solids.exporter:ObjExporter",
            "closed solids of the ground and of each building, as named objects",
            options="earthgen_solids.exporter:SolidOptions",
            suffixes=(".obj",),
        ),
    ]
