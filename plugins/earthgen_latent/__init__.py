"""The learned backends: geometry and texture from a set of weights (docs/guides/learned.md).

`height-flow` makes a height map and raises it to voxels; `latent` makes voxels and Gaussians by the
chain of EarthCrafter. Nothing here loads torch before a backend is created.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earthgen.hookspecs import Offer, PluginInfo, hookimpl
from earthgen.stages.backends import GeometryBackend, TextureBackend

if TYPE_CHECKING:
    from earthgen_latent.geometry import LatentGeometry
    from earthgen_latent.height_map import HeightFlowGeometry
    from earthgen_latent.texture import LatentTexture

LATENT_VERSION = "1"
"""Enters the identity of worlds; raised whenever the same weights would give another world."""


def _height_flow(weights: str | Path | None = None, **options: Any) -> HeightFlowGeometry:
    from earthgen_latent.height_map import HeightFlowGeometry

    return HeightFlowGeometry(weights, **options)


def _geometry(
    weights: str | Path | None = None, sparse_backend: str | None = None, **options: Any
) -> LatentGeometry:
    from earthgen_latent.geometry import LatentGeometry

    return LatentGeometry(weights, sparse_backend=sparse_backend, **options)


def _texture(
    weights: str | Path | None = None, sparse_backend: str | None = None, **options: Any
) -> LatentTexture:
    from earthgen_latent.texture import LatentTexture

    return LatentTexture(weights, sparse_backend=sparse_backend, **options)


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        name="latent",
        version=LATENT_VERSION,
        licence="Apache-2.0",
        summary="geometry and texture by flows over sparse latents, after EarthCrafter; experimental",
        weights_licence="that of the set in use, which a world's provenance names",
    )


@hookimpl
def earthgen_geometry_backends() -> Iterable[Offer[GeometryBackend]]:
    return [
        Offer("height-flow", _height_flow, "a learned height map, raised to voxels; wants weights"),
        Offer("latent", _geometry, "learned voxels: coarse cells, latents, decoder; wants weights"),
    ]


@hookimpl
def earthgen_texture_backends() -> Iterable[Offer[TextureBackend]]:
    return [Offer("latent", _texture, "learned Gaussians over any geometry; wants weights")]
