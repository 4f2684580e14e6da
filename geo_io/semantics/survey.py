"""What the sources of land cover, buildings and trees hold within a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geo_io.legend import UNKNOWN, UNMAPPED, codes


@dataclass(frozen=True)
class ValueArea:
    """How much of a region has one value of one source.

    `code` is its class, `legend.UNMAPPED` where no rule knows it; `area` in m2 (lines: length times
    width). `value` is "" where the features have no value at all.
    """

    source: str
    value: str
    code: int
    area: float
    features: int


@dataclass(frozen=True)
class SourceSurvey:
    """What a survey counted in one source.

    Attributes
    ----------
    features : features in the region (0 for a raster)
    repaired, dropped : of these, geometries mended, and not mendable
    empty : features without geometry in the whole file (in its first 100 000)
    underground : tunnels and the like, left out
    no_width : lines of a class that no width is known for, left out
    points : points that are no trees, left out
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


@dataclass(frozen=True)
class Survey:
    """What the sources hold within a region."""

    values: tuple[ValueArea, ...]
    sources: tuple[SourceSurvey, ...]

    @property
    def mapped(self) -> tuple[ValueArea, ...]:
        """Values with a class (or known to mean nothing), the largest first."""
        return tuple(value for value in self.values if value.code != UNMAPPED)

    @property
    def unmapped(self) -> tuple[ValueArea, ...]:
        """Values that no rule knows, the largest first."""
        return tuple(value for value in self.values if value.code == UNMAPPED and value.value)

    @property
    def mapped_area(self) -> float:
        """m2, overlaps counted as often as they occur."""
        return sum(value.area for value in self.mapped)

    @property
    def unmapped_area(self) -> float:
        """m2 of values that no rule knows. Features without any value do not count."""
        return sum(value.area for value in self.unmapped)

    def to_dict(self) -> dict[str, Any]:
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
