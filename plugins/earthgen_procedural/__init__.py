"""The `procedural` backends: geometry and texture by rules from land cover, heights and an image.

They need no weights: the baseline for learned backends, and a source of simulated scenes. All
random draws are keyed by seed and place; docs/plugins/stages.md explains how windows agree.
"""

from __future__ import annotations

from collections.abc import Iterable

from earthgen import Offer, PluginInfo, hookimpl

PROCEDURAL_VERSION = "5"
"""Enters the identity of worlds; raised whenever a change of the rules changes worlds."""


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        name="procedural",
        version=PROCEDURAL_VERSION,
        licence="Apache-2.0",
        summary="geometry and texture by rules: terrain, water, roads, buildings, vegetation",
    )


@hookimpl
def earthgen_geometry_backends() -> Iterable[Offer]:
    return [
        Offer(
            "procedural",
            "earthgen_procedural.geometry:ProceduralGeometry",
            "terrain, buildings and plants by rules",
        )
    ]


@hookimpl
def earthgen_texture_backends() -> Iterable[Offer]:
    return [
        Offer(
            "procedural",
            "earthgen_procedural.texture:ProceduralTexture",
            "colours by class, object and place; drapes an image if there is one",
        )
    ]
