"""Options for reading land cover, buildings and trees."""

from __future__ import annotations

from dataclasses import dataclass

from geo_io.legend import Crosswalk


@dataclass(frozen=True)
class SemanticsOptions:
    """How sources are interpreted.

    Attributes
    ----------
    class_field : str or None
        Attribute with the class; by default it is chosen by the legend.
    legends : tuple of Crosswalk
        Crosswalks that the user names; they are tried first.
    crosswalks : tuple of Crosswalk
        All available crosswalks, built in or from plugins, "generic" last.
    height_field : str or None
        Attribute with heights above ground; by default `geo_io.semantics.heights` chooses it.
    height_unit : str or None
        Unit of heights of features that name none.
    assume_crs : str or None
        CRS of sources without a CRS record.
    allow_unmapped : bool
        Accept that more than half of the area maps to no class.
    """

    class_field: str | None = None
    legends: tuple[Crosswalk, ...] = ()
    crosswalks: tuple[Crosswalk, ...] = ()
    height_field: str | None = None
    height_unit: str | None = None
    assume_crs: str | None = None
    allow_unmapped: bool = False
