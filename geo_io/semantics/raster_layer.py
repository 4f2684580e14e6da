"""A class raster as a source of land cover: classes on a window, and a survey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.frame import Frame, short_name
from geo_io.legend import UNKNOWN, UNMAPPED, Crosswalk, codes
from geo_io.raster.positions import overlaps
from geo_io.raster.source import RasterSource
from geo_io.raster.survey import survey_parts
from geo_io.semantics.rasterize import nearest
from geo_io.semantics.survey import SourceSurvey, ValueArea

SURVEY_CELLS = 4096
"""Most places along each edge of a region that a survey reads."""

SURVEY_PIXELS = 2048
"""Approximate number of pixels along each edge that a survey reads at a time."""

SHIFT = 2**40
"""Offset of cell values while a survey counts them, so that 0 can stand for no value."""


@dataclass(frozen=True)
class RasterLayer:
    """A class raster with its legend.

    Attributes
    ----------
    source : RasterSource
        The raster.
    crosswalk : Crosswalk
        The legend.
    table : dict of int to int
        Class code by cell value.
    """

    source: RasterSource
    crosswalk: Crosswalk
    table: dict[int, int]

    @property
    def name(self) -> str:
        """Name of the raster in messages."""
        return self.source.name

    def classes(self, window: Frame, factor: int) -> NDArray | None:
        """Return class codes on a grid `factor` times as fine as a window, None outside the raster.

        The result is (ny * factor, nx * factor) uint8.
        """
        if not overlaps(self.source, window):
            return None
        return nearest(window, factor, self.source, self._codes)

    def _codes(self, values: NDArray, valid: NDArray) -> NDArray:
        integers, whole = _whole(values, valid)
        listed = np.array(sorted(self.table), np.int64)
        place = np.searchsorted(listed, integers).clip(0, len(listed) - 1)
        code = np.array([self.table[value] for value in listed.tolist()], np.uint8)[place]
        return np.where(whole & (listed[place] == integers), code, UNKNOWN).astype(np.uint8)

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        """Measure the area of each cell value in a frame."""
        if not overlaps(self.source, frame):
            return [], SourceSurvey(self.name, meets=False)
        counts: dict[int, int] = {}
        area = 0.0
        for part in survey_parts(self.source, frame, SURVEY_CELLS, SURVEY_PIXELS):
            area = part.voxel_size**2
            if not overlaps(self.source, part):
                continue
            cells = nearest(part, 1, self.source, _shifted)
            for value, count in zip(*np.unique(cells, return_counts=True), strict=True):
                counts[int(value)] = counts.get(int(value), 0) + int(count)
        counts.pop(0, None)  # Outside the raster, or nodata.
        values = [
            ValueArea(
                self.name,
                f"value={shifted - SHIFT}",
                self.table.get(shifted - SHIFT, UNMAPPED),
                n * area,
                0,
            )
            for shifted, n in sorted(counts.items())
        ]
        return values, SourceSurvey(self.name, meets=True, warnings=self._nodata_note())

    def _nodata_note(self) -> tuple[str, ...]:
        """Tell that the value for no data is a class of the legend."""
        nodata = self.source.nodata[0]
        if nodata is None or not np.isfinite(nodata) or int(nodata) != nodata:
            return ()
        code = dict(self.crosswalk.raster_table()).get(int(nodata), UNKNOWN)
        if code == UNKNOWN:
            return ()
        name = next(name for name, own in codes().items() if own == code)
        return (
            f"its value {int(nodata)}, declared as nodata, is {name} in the legend "
            f"{self.crosswalk.name}: where it is a class, remove the declaration with gdal_edit "
            "-unsetnodata",
        )

    def summary(self) -> dict[str, Any]:
        """Describe the raster and its legend."""
        return {
            "path": self.source.path or self.name,
            "layer": None,
            "kind": "raster",
            "crs": short_name(self.source.crs),
            "legend": self.crosswalk.name,
            "fields": [],
            "shape": list(self.source.shape),
        }


def _whole(values: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
    """Return cell values as int64, and which of them are valid integers."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64), valid
    rounded = np.round(np.where(valid, values, 0))
    whole = valid & (rounded == values) & (np.abs(rounded) < SHIFT)
    return np.where(whole, rounded, 0).astype(np.int64), whole


def _shifted(values: NDArray, valid: NDArray) -> NDArray:
    integers, whole = _whole(values, valid)
    return np.where(whole, integers + SHIFT, 0)
