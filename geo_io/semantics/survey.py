"""Results of a survey: areas by value, and counts by source, within a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geo_io.legend import UNKNOWN, UNMAPPED, codes


@dataclass(frozen=True)
class ValueArea:
    """Area of a region that has a certain value of a source.

    Attributes
    ----------
    source : str
        Name of the source.
    value : str
        Attribute and value, such as "landuse=forest"; "" for features without any value.
    code : int
        Class code, `legend.UNMAPPED` if no rule maps the value.
    area : float
        Square metres; of lines, length times width.
    features : int
        Number of features, 0 for a raster.
    """

    source: str
    value: str
    code: int
    area: float
    features: int


@dataclass(frozen=True)
class SourceSurvey:
    """Counts of a survey for one source.

    Attributes
    ----------
    source : str
        Name of the source.
    meets : bool
        Whether the extent of the source overlaps the region.
    features : int
        Features in the region, 0 for a raster.
    repaired, dropped : int
        Features whose geometry was repaired, or was beyond repair.
    empty : int
        Features without geometry among the first 100 000 of the file.
    underground : int
        Tunnels and other underground features, left out.
    no_width : int
        Lines of unknown width, left out.
    points : int
        Points that are not trees, left out.
    buildings, unknown_heights, unread_heights : int
        Buildings, those without a height, and those with a height that is not understood.
    warnings : tuple of str
        What else a user should know.
    hint : str
        Why the source does not meet the region, as the end of a message.
    """

    source: str
    meets: bool
    features: int = 0
    repaired: int = 0
    dropped: int = 0
    empty: int = 0
    underground: int = 0
    no_width: int = 0
    points: int = 0
    buildings: int = 0
    unknown_heights: int = 0
    unread_heights: int = 0
    warnings: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Survey:
    """Values and counts of all sources within a region."""

    values: tuple[ValueArea, ...]
    sources: tuple[SourceSurvey, ...]

    @property
    def mapped(self) -> tuple[ValueArea, ...]:
        """Values that rules map to a class or to unknown, the largest first."""
        return tuple(value for value in self.values if value.code != UNMAPPED)

    @property
    def unmapped(self) -> tuple[ValueArea, ...]:
        """Values that no rule maps, the largest first."""
        return tuple(value for value in self.values if value.code == UNMAPPED and value.value)

    @property
    def mapped_area(self) -> float:
        """Area of mapped values in square metres; overlaps count repeatedly."""
        return sum(value.area for value in self.mapped)

    @property
    def unmapped_area(self) -> float:
        """Area of unmapped values in square metres, without features that have no value."""
        return sum(value.area for value in self.unmapped)

    def to_dict(self) -> dict[str, Any]:
        """Return the survey as JSON values."""
        names = {code: name for name, code in codes().items()} | {
            UNKNOWN: "unknown",
            UNMAPPED: None,
        }
        rows = [{**vars(value), "class": names[value.code]} for value in self.values]
        return {
            "mapped_m2": self.mapped_area,
            "unmapped_m2": self.unmapped_area,
            "values": [{key: item for key, item in row.items() if key != "code"} for row in rows],
            "sources": [vars(source).copy() for source in self.sources],
        }
