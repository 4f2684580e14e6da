"""The built-in conditions: semantics, dem, dsm and image, read by geo_io; and the crosswalks
that ship with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from earthgen import __version__, hookimpl
from earthgen.hookspecs import Offer, PluginInfo
from earthgen.stages.backends import ConditionEncoder

if TYPE_CHECKING:
    from geo_io.legend import Crosswalk


@hookimpl
def earthgen_info() -> PluginInfo:
    return PluginInfo(
        "conditions", __version__, "Apache-2.0", "reads land cover, heights and images"
    )


@hookimpl
def earthgen_condition_encoders() -> Iterable[Offer[ConditionEncoder]]:
    def create(name: str) -> ConditionEncoder:
        from earthgen_conditions import encoders

        return encoders.ENCODERS[name]()

    return [
        Offer(
            "semantics",
            lambda: create("semantics"),
            "land cover, buildings and trees from vector and raster layers",
        ),
        Offer("dem", lambda: create("dem"), "height of the ground, metres"),
        Offer("dsm", lambda: create("dsm"), "height of the topmost surface, metres"),
        Offer("image", lambda: create("image"), "an orthorectified image, RGBA"),
    ]


@hookimpl
def earthgen_legends() -> Iterable[Crosswalk]:
    from geo_io.legend import builtin_crosswalks

    return builtin_crosswalks()
