"""The `procedural` backends: geometry and texture by rules, from land cover, heights and an image
where given.

They are the baseline that learned backends are measured against, a source of simulated scenes, and
what runs where there are no weights. All random draws are keyed by seed and place;
docs/plugins/stages.md says how windows agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from earthgen.hookspecs import Offer, PluginInfo, hookimpl
from earthgen.stages.backends import GeometryBackend, TextureBackend

if TYPE_CHECKING:
    from earthgen_procedural.geometry import ProceduralGeometry
    from earthgen_procedural.texture import ProceduralTexture

PROCEDURAL_VERSION = "2"
"""Enters the identity of worlds; raised whenever the rules would give another world."""


def _geometry(**options: Any) -> ProceduralGeometry:
    from earthgen_procedural.geometry import ProceduralGeometry

    return ProceduralGeometry(**options)


def _texture(**options: Any) -> ProceduralTexture:
    from earthgen_procedural.texture import ProceduralTexture

    return ProceduralTexture(**options)


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        name="procedural",
        version=PROCEDURAL_VERSION,
        licence="Apache-2.0",
        summary="geometry and texture by rules: terrain, water, roads, buildings, vegetation",
    )


@hookimpl
def earthgen_geometry_backends() -> Iterable[Offer[GeometryBackend]]:
    return [Offer("procedural", _geometry, "terrain, buildings and plants by rules")]


@hookimpl
def earthgen_texture_backends() -> Iterable[Offer[TextureBackend]]:
    return [
        Offer(
            "procedural",
            _texture,
            "colours by class, object and place; drapes an image where there is one",
        )
    ]
