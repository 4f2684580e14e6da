"""Heights of one or several sources: rasters, folders of tiles, contour lines, points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.elevation import (
    METRES,
    SURVEY_SAMPLES,
    ElevationReader,
    height_band,
    open_elevation,
)
from geo_io.elevation_jumps import require_no_jumps
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.layers import Raster
from geo_io.raster.mosaic import joined, listed, over, require_one_datum
from geo_io.raster.nodata import undeclared_nodata
from geo_io.raster.positions import overlaps, positions
from geo_io.raster.source import RasterSource, open_raster, split_band
from geo_io.raster.survey import cover_together
from geo_io.region.region import no_overlap

NEXT = 4.0
"""A place that no raster covers is filled from the rasters that are at most so many times as far
away as the nearest."""


@dataclass(frozen=True, eq=False)
class ElevationMosaic:
    """Reader of several rasters of heights that do not share a lattice; later ones lie on top.

    Where none has heights, the fillings of the nearest are blended by distance. Everything is a
    function of the place. The methods are those of `ElevationReader`.
    """

    readers: tuple[ElevationReader, ...]
    vertical_crs: str
    what: str

    def read(self, window: Frame) -> Raster:
        """Read heights on a window, (ny, nx) float32 metres without NaN."""
        out = np.zeros(window.shape, np.float32)
        known = np.zeros(window.shape, bool)
        for reader in self.readers:
            if overlaps(reader.source, window):
                measured = reader.measured(window).data
                if measured.any():
                    out = over(out, reader.read(window).data, measured)
                    known |= measured
        if not known.all():
            out = np.where(known, out, self._filled(window))
        return Raster(window, out.astype(np.float32))

    def measured(self, window: Frame) -> Raster:
        """Return where a file holds heights, (ny, nx) bool."""
        known = np.zeros(window.shape, bool)
        for reader in self.readers:
            if overlaps(reader.source, window):
                known |= reader.measured(window).data
        return Raster(window, known)

    def _filled(self, window: Frame) -> NDArray:
        """Blend the fillings of the rasters near each place, (ny, nx) float64."""
        away = np.stack([_distance(reader.source, window) for reader in self.readers])
        nearest = away.min(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.maximum(nearest / away - 1 / NEXT, 0)
        inside = away == 0
        # Within rasters the topmost fills its own voids.
        top = inside & (np.cumsum(inside[::-1], axis=0)[::-1] == 1)
        weights = np.where(inside.any(axis=0), top, np.nan_to_num(weights))
        lost = weights.sum(axis=0) == 0
        weights[-1][lost] = 1.0
        total = np.zeros(window.shape)
        for reader, weight in zip(self.readers, weights, strict=True):
            if weight.any():
                total += weight * reader.read(window).data
        return np.asarray(total / weights.sum(axis=0))

    def survey(self, frame: Frame) -> dict[str, Any]:
        """Measure heights and voids of a region; see `ElevationReader.survey`."""
        meeting = [reader for reader in self.readers if overlaps(reader.source, frame)]
        if not meeting:
            raise no_overlap(self.readers[0].source, frame, self.what)
        reports = [reader.survey(frame) for reader in meeting]
        coverage, voids = cover_together(
            [reader.source for reader in meeting],
            frame,
            SURVEY_SAMPLES,
            lambda part: self.measured(part).data,
        )
        undeclared: dict[str, float] = {}
        for report in reports:
            for value, share in report["undeclared"].items():
                undeclared[value] = undeclared.get(value, 0.0) + share
        return {
            **reports[0],
            "coverage": coverage,
            "voids": voids,
            "min": min(report["min"] for report in reports),
            "max": max(report["max"] for report in reports),
            "resolution": max(report["resolution"] for report in reports),
            "undeclared": undeclared,
            "notes": [note for report in reports for note in report["notes"]],
            "vertical_crs": self.vertical_crs,
            "outside": [reader.source.name for reader in self.readers if reader not in meeting],
        }

    def summary(self) -> dict[str, Any]:
        """Describe the sources without reading their pixels."""
        return {
            **self.readers[0].summary(),
            "sources": [reader.summary() for reader in self.readers],
        }


Heights = ElevationReader | ElevationMosaic
"""Readers with the same methods."""


def open_heights(
    sources: Any,
    *,
    unit: str | None = None,
    assume_crs: str | None = None,
    what: str = "DEM",
) -> Heights:
    """Open heights: a raster, or several of which later ones lie over earlier ones.

    Parameters
    ----------
    sources : source or sequence of sources
        Rasters as in `open_elevation`, folders and ZIPs of them, or vector files of contour lines
        or points with heights, which are interpolated (`geo_io.terrain_points`).
    unit, assume_crs, what
        As in `open_elevation`; they hold for all sources.

    Raises
    ------
    MissingFileError, MissingCrsError, InputError
        As `open_elevation`; also if sources have heights in different vertical CRS, or jump
        against each other as units or datums do, or a vector file has no heights.
    """
    from geo_io.terrain_points import height_raster

    opened: list[RasterSource] = []
    bands: list[str | None] = []
    for source in listed(sources):
        if not isinstance(source, RasterSource):
            source = height_raster(source, unit=unit, assume_crs=assume_crs, what=what)
        file, band = split_band(source)
        opened.append(open_raster(file, assume_crs=assume_crs))
        bands.append(band)
    if len(opened) == 1:
        return _open(opened[0], bands[0], unit, what)
    if len(set(bands)) == 1:

        @functools.lru_cache(maxsize=2 * len(opened))
        def reader_of(number: int) -> ElevationReader:
            return _open(opened[number], bands[0], unit, what)

        numbers = {id(raster): number for number, raster in enumerate(opened)}

        def read(raster: RasterSource, frame: Frame) -> tuple[NDArray, NDArray]:
            return reader_of(numbers[id(raster)]).nearest(frame)

        require_no_jumps(opened, read, what)
    groups = _groups(opened, bands, what)
    readers = tuple(_open(raster, band, unit, what) for raster, band in groups)
    datum = require_one_datum(
        [reader.source.name for reader in readers],
        [reader.vertical_crs for reader in readers],
        what,
        UNKNOWN_DATUM,
    )
    return readers[0] if len(readers) == 1 else ElevationMosaic(readers, datum, what)


def _open(raster: RasterSource, band: str | None, unit: str | None, what: str) -> ElevationReader:
    return open_elevation(raster, unit=unit, what=what, band=band)


def _groups(
    opened: Sequence[RasterSource], bands: Sequence[str | None], what: str
) -> list[tuple[RasterSource, str | None]]:
    """Join tiles of one lattice whose heights are in the same band."""
    if len(set(bands)) > 1:
        return list(zip(opened, bands, strict=True))

    def missing(raster: RasterSource) -> float | None:
        band = height_band(raster, bands[0], what)
        found = undeclared_nodata(raster, band, METRES["m"]).found
        return found[0] if found else None

    return [(raster, bands[0]) for raster in joined(opened, missing)]


def _distance(source: RasterSource, window: Frame) -> NDArray:
    """Return metres from each place to the rectangle of a raster, 0 inside, (ny, nx) float64."""
    column, row = positions(source, window)
    height, width = source.shape
    across = np.maximum(np.maximum(-column, column - width), 0) * source.pixel_metres[0]
    along = np.maximum(np.maximum(-row, row - height), 0) * source.pixel_metres[1]
    away = np.hypot(across, along)
    return np.asarray(np.where(np.isfinite(away), away, np.inf))
