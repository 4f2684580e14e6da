"""Pictures of worlds on the CPU: `earthgen preview`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import earthgen
from earthgen.backends import Offer, PluginInfo
from earthgen.hooks import hookimpl

if TYPE_CHECKING:
    from earthgen_preview.renderer import ZBuffer


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo("preview", earthgen.__version__, "Apache-2.0", "draws maps and oblique views on the CPU")


@hookimpl
def earthgen_renderers() -> list[Offer[ZBuffer]]:
    return [Offer("zbuffer", _renderer, "shaded map or oblique view of the voxels' surface, on the CPU")]


def _renderer(**options: Any) -> ZBuffer:
    from earthgen_preview.renderer import ZBuffer

    return ZBuffer(**options)
