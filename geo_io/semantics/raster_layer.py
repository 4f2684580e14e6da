"""A class raster among the sources of land cover: its classes on a window, and a survey of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.frame import Frame, short_name
from geo_io.legend import UNKNOWN, UNMAPPED, Crosswalk
from geo_io.raster.positions import overlaps
from geo_io.raster.source import RasterSource
from geo_io.raster.survey import survey_parts
from geo_io.semantics.rasterize import nearest
from geo_io.semantics.survey import SourceSurvey, ValueArea

SURVEY_CELLS = 4096
"""A raster is surveyed on no more than so many places along each edge of the region."""

SURVEY_PIXELS = 2048
"""... and about so many pixels along each edge at a time."""

SHIFT = 2**40
"""Added to cell values while a survey counts them, so that 0 is free to mean "nothing here"."""


@dataclass(frozen=True)
class RasterLayer:
    """A class raster with its legend, and the class code of each cell value."""

    source: RasterSource
    crosswalk: Crosswalk
    table: dict[int, int]

    @property
    def name(self) -> str:
        return self.source.name

    def classes(self, window: Frame, factor: int) -> NDArray | None:
        """Class codes on the fine grid of a window, None where the raster does not reach."""
        if not overlaps(self.source, window):
            return None
        return nearest(window, factor, self.source, self._codes)

    def _codes(self, values: NDArray, valid: NDArray) -> NDArray:
        integers, whole = _whole(values, valid)
        known = np.array(sorted(self.table), np.int64)
        place = np.searchsorted(known, integers).clip(0, len(known) - 1)
        code = np.array([self.table[value] for value in known.tolist()], np.uint8)[place]
        return np.where(whole & (known[place] == integers), code, UNKNOWN).astype(np.uint8)

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
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
        counts.pop(0, None)  # outside the raster, or nodata
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
        return values, SourceSurvey(self.name, meets=True)

    def summary(self) -> dict[str, Any]:
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
    """Cell values as int64, and which of them are valid and whole numbers."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64), valid
    rounded = np.round(np.where(valid, values, 0))
    whole = valid & (rounded == values) & (np.abs(rounded) < SHIFT)
    return np.where(whole, rounded, 0).astype(np.int64), whole


def _shifted(values: NDArray, valid: NDArray) -> NDArray:
    integers, whole = _whole(values, valid)
    return np.where(whole, integers + SHIFT, 0)
