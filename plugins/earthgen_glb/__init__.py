"""Export of the surface as binary glTF: `earthgen export --format glb`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen_glb.exporter import GlbExporter


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "glb", earthgen.__version__, "Apache-2.0", "exports the surface as a coloured glTF mesh"
    )


@hookimpl
def earthgen_exporters() -> list[Offer[GlbExporter]]:
    return [Offer("glb", _exporter, "the surface as a mesh with colours, in binary glTF")]


def _exporter(**options: Any) -> GlbExporter:
    from earthgen_glb.exporter import GlbExporter

    return GlbExporter(**options)
