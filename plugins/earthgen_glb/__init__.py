"""Export of the surface as binary glTF: `earthgen export --format glb`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "glb", earthgen.__version__, "Apache-2.0", "exports the surface as a coloured glTF mesh"
    )


@hookimpl
def earthgen_exporters() -> list[Offer]:
    return [
        Offer(
            "glb",
            "earthgen_glb.exporter:GlbExporter",
            "the surface as a mesh with colours, in binary glTF",
            options="earthgen_glb.exporter:GlbOptions",
            suffixes=(".glb",),
        )
    ]
