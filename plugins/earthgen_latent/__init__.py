"""The learned backends: geometry and texture from a set of weights (docs/guides/learned.md).

`height-flow` makes a height map and extrudes it to voxels; `latent` makes voxels and Gaussians by
the method of EarthCrafter. Torch is loaded when a backend is created.
"""

from __future__ import annotations

from collections.abc import Iterable

from earthgen import Offer, PluginInfo, hookimpl

LATENT_VERSION = "7"
"""Enters the identity of worlds; raised whenever the same weights would give another world."""

LEARNED = ("weights", "sparse_backend")
"""Settings of a job that learned backends with sparse networks take."""


@hookimpl
def earthgen_info() -> PluginInfo:
    """Describe the plugin."""
    return PluginInfo(
        name="latent",
        version=LATENT_VERSION,
        licence="Apache-2.0",
        summary="geometry and texture by flows over sparse latents, experimental",
        weights_licence="that of the set in use, which a world's provenance names",
    )


@hookimpl
def earthgen_geometry_backends() -> Iterable[Offer]:
    """Offer the learned geometries."""
    return [
        Offer(
            "height-flow",
            "earthgen_latent.height_map:HeightFlowGeometry",
            "a learned height map, extruded to voxels; needs weights",
            takes=("weights",),
        ),
        Offer(
            "latent",
            "earthgen_latent.geometry:LatentGeometry",
            "learned voxels: coarse cells, latents, decoder; needs weights",
            takes=LEARNED,
        ),
    ]


@hookimpl
def earthgen_texture_backends() -> Iterable[Offer]:
    """Offer the learned texture."""
    return [
        Offer(
            "latent",
            "earthgen_latent.texture:LatentTexture",
            "learned Gaussians for the voxels of any geometry; needs weights",
            takes=LEARNED,
        )
    ]
