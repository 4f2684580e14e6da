"""Pictures of worlds on the CPU: `earthgen preview`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import earthgen
from earthgen.hookspecs import Offer, PluginInfo, hookimpl

if TYPE_CHECKING:
    from earthgen.render.interfaces import Renderer


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "preview", earthgen.__version__, "Apache-2.0", "draws maps and oblique views on the CPU"
    )


@hookimpl
def earthgen_renderers() -> list[Offer[Renderer]]:
    return [
        Offer(
            "splats",
            _splats,
            "the 2D Gaussians from above, oblique or as a camera sees them, on the CPU",
        ),
        Offer("zbuffer", _zbuffer, "shaded map or oblique view of the voxels' surface, on the CPU"),
    ]


def _splats(**options: Any) -> Renderer:
    from earthgen_preview.splats import SplatRenderer

    return SplatRenderer(**options)


def _zbuffer(**options: Any) -> Renderer:
    from earthgen_preview.renderer import ZBuffer

    return ZBuffer(**options)
