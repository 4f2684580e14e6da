"""Pictures of worlds on the CPU: `earthgen preview`."""

from __future__ import annotations

import earthgen
from earthgen import Offer, PluginInfo, hookimpl


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "preview", earthgen.__version__, "Apache-2.0", "draws maps and oblique views on the CPU"
    )


@hookimpl
def earthgen_renderers() -> list[Offer]:
    return [
        Offer(
            "splats",
            "earthgen_preview.splats:SplatRenderer",
            "the 2D Gaussians from above, oblique or as a camera sees them, on the CPU",
        ),
        Offer(
            "zbuffer",
            "earthgen_preview.zbuffer:ZBufferRenderer",
            "shaded map or oblique view of the voxels' surface, on the CPU, without torch",
        ),
    ]
