"""What a survey says of the heights of a layer: unknown, not understood, or not plausible."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.legend import classes, codes
from geo_io.semantics.heights import HeightReading, Heights
from geo_io.semantics.lengths import UNITS

LEVEL_METRES = (1.7, 6.5)
"""Least and most plausible median of metres per level. Feet read as metres give 10, metres read as
feet 1."""

SMALL_FOOTPRINT, SMALL_METRES = 150.0, (1.8, 20.0)
"""Footprints of less than this, m2, and the least and most plausible median of their heights."""

FEWEST = 3
"""Buildings from which a median says something."""

UNIT_TEXTS = {
    "ft": "feet",
    "us-ft": "US survey feet",
    "in": "inches",
    "m": "metres",
    "cm": "centimetres",
    "mm": "millimetres",
}


@dataclass
class HeightTally:
    """Counts of buildings and their heights, over the blocks of a region.

    Attributes
    ----------
    reading : HeightReading
        The columns of heights.
    buildings, unknown, unread : int
        Buildings; those without a height; those with a height that is not understood.
    from_sea : int
        Buildings whose height is that of the roof above sea over the ground.
    land : int
        Areas of land use that have a height, as if they were buildings.
    example, land_example : str
        A value that is not understood, and one of land use with a height.
    """

    reading: HeightReading
    buildings: int = 0
    unknown: int = 0
    unread: int = 0
    from_sea: int = 0
    land: int = 0
    example: str = ""
    land_example: str = ""
    _heights: list[NDArray] = field(default_factory=list)

    def add(self, code: NDArray, value: NDArray, geometry: NDArray, heights: Heights) -> None:
        """Count n features: class codes, values that decided on them, geometries and heights."""
        area = shapely.get_dimensions(geometry) == 2
        building = area & (code == codes()["building"])
        self.buildings += int(building.sum())
        self.unknown += int((building & ~heights.known).sum())
        self.from_sea += int((building & np.isfinite(heights.at_sea) & heights.measured).sum())
        odd = building & (heights.unread != "")
        self.unread += int(odd.sum())
        if odd.any() and not self.example:
            self.example = str(heights.unread[odd][0])
        used = area & np.isin(code, _used_land()) & heights.measured
        self.land += int(used.sum())
        if used.any() and not self.land_example:
            row = np.flatnonzero(used)[0]
            tall = np.fmax(heights.top[row], heights.eaves[row])
            self.land_example = f"{value[row]} with {tall:.1f} m"
        chosen = building & heights.measured
        top = np.where(np.isnan(heights.top), heights.eaves, heights.top)
        self._heights.append(
            np.column_stack(
                [top[chosen], heights.levels[chosen], shapely.area(geometry[chosen])]
            ).reshape(-1, 3)
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what a user should know, one sentence each."""
        return tuple(
            text
            for text in (
                self._missing(),
                self._at_sea(),
                self._strange(),
                self._unit(),
                self._odd(),
                self._land(),
            )
            if text
        )

    def _missing(self) -> str:
        if not self.unknown:
            return ""
        text = (
            f"no height is known of {self.unknown:,} of {self.buildings:,} buildings: `dsm` gives "
            "it, else it is drawn"
        )
        if self.reading.sea and not self.reading.top and not self.from_sea:
            are = "is" if len(self.reading.sea) == 1 else "are"
            text += (
                f"; {', '.join(self.reading.sea)} {are} above sea, without the ground's height: "
                "`dem` gives it under roofs; name a column that is above ground as `height_field`"
            )
        if self.reading.too_tall:
            text += (
                f"; the middle of {', '.join(self.reading.too_tall)} is taller than any building, "
                "so it is not read: give its `height_unit` (cm, mm), or subtract the ground if it "
                "is above sea"
            )
        if self.reading.others and self.unknown == self.buildings:
            shown = ", ".join(self.reading.others[:6])
            text += f"; columns that look like heights: {shown}; name one as `height_field`"
        return text

    def _at_sea(self) -> str:
        if not self.from_sea:
            return ""
        names = ", ".join(column.field for column in self.reading.roofs_at_sea)
        return (
            f"the height of {self.from_sea:,} of {self.buildings:,} buildings is that of the roof "
            f"above sea ({names}) over the ground of the DEM: both must have one vertical datum"
        )

    def _strange(self) -> str:
        if not self.unread:
            return ""
        return (
            f"the height of {self.unread:,} of {self.buildings:,} buildings is not understood, "
            f"such as {self.example}"
        )

    def _unit(self) -> str:
        of_heights = (*self.reading.top, *self.reading.eaves)
        column = next((each for each in of_heights if each.why == "crs"), None)
        if column is None or not self.buildings:
            return ""
        unit = UNIT_TEXTS[column.style.unit]
        return (
            f"{column.name} names no unit and is read in {unit}, the unit of the layer's CRS: 100 "
            f"is {100 * UNITS[column.style.unit]:.1f} m; if that is wrong, give `height_unit`"
        )

    def _odd(self) -> str:
        """Compare heights with levels, else with the sizes of footprints."""
        column = next(iter((*self.reading.top, *self.reading.eaves)), None)
        if column is None or not self._heights:
            return ""
        top, levels, size = np.concatenate(self._heights).T
        remedy = (
            f"{column.name} is read in {UNIT_TEXTS.get(column.style.unit, column.style.unit)}; if "
            "that is wrong, give `height_unit`"
        )
        both = levels >= 1
        if both.sum() >= FEWEST:
            each = float(np.median(top[both] / levels[both]))
            if not LEVEL_METRES[0] <= each <= LEVEL_METRES[1]:
                return f"the median building has {each:.1f} m for each of its levels; {remedy}"
            return ""
        small = size < SMALL_FOOTPRINT
        if small.sum() >= FEWEST:
            middle = float(np.median(top[small]))
            if not SMALL_METRES[0] <= middle <= SMALL_METRES[1]:
                return (
                    f"the median building of less than {SMALL_FOOTPRINT:g} m2 is {middle:.1f} m "
                    f"tall; {remedy}"
                )
        return ""

    def _land(self) -> str:
        if not self.land:
            return ""
        return (
            f"{self.land:,} areas of land use have a height, such as {self.land_example}; if they "
            "are footprints of buildings, map them in a legend file, named with `legend`"
        )


def _used_land() -> list[int]:
    return [land.code for land in classes() if land.name in ("residential", "commercial")]
