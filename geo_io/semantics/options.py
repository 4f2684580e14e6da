"""What the user may say about land cover, buildings and trees."""

from __future__ import annotations

from dataclasses import dataclass

from geo_io.legend import Crosswalk


@dataclass(frozen=True)
class SemanticsOptions:
    """How sources are understood.

    Attributes
    ----------
    class_field : the attribute that holds the class; found by itself where None
    legends : crosswalks that the user names; tried first
    crosswalks : all that are known, built in or from plugins; "generic" last
    assume_crs : CRS of sources without a CRS record
    allow_unmapped : accept that more than half of the area maps to nothing
    """

    class_field: str | None = None
    legends: tuple[Crosswalk, ...] = ()
    crosswalks: tuple[Crosswalk, ...] = ()
    assume_crs: str | None = None
    allow_unmapped: bool = False
