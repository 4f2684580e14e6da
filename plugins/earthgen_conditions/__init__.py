"""The built-in conditions semantics, dem, dsm, canopy and image, and the crosswalks of geo_io."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from earthgen import Offer, PluginInfo, __version__, hookimpl

if TYPE_CHECKING:
    from geo_io.legend import Crosswalk


@hookimpl
def earthgen_info() -> PluginInfo:
    """Describe the plugin."""
    return PluginInfo(
        "conditions", __version__, "Apache-2.0", "reads land cover, heights and images"
    )


@hookimpl
def earthgen_condition_encoders() -> Iterable[Offer]:
    """Offer an encoder for each built-in condition."""
    return [
        Offer(
            "semantics",
            "earthgen_conditions.encoders:SemanticsEncoder",
            "land cover, buildings and trees from vector and raster layers",
        ),
        Offer("dem", "earthgen_conditions.encoders:DemEncoder", "height of the ground, metres"),
        Offer("dsm", "earthgen_conditions.encoders:DsmEncoder", "height of the surface, metres"),
        Offer(
            "canopy",
            "earthgen_conditions.encoders:CanopyEncoder",
            "height of trees above the ground, metres",
        ),
        Offer("image", "earthgen_conditions.encoders:ImageEncoder", "an orthorectified RGBA image"),
    ]


@hookimpl
def earthgen_legends() -> Iterable[Crosswalk]:
    """Offer the crosswalks of geo_io."""
    from geo_io.legend import builtin_crosswalks

    return builtin_crosswalks()
