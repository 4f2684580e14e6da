"""Ground and surface heights on a frame: metres, without voids and without terraces.

Each step is a function of the place alone:

1. Pixels are decoded: scale and offset, unit, nodata.
2. Voids, and places outside the raster, take the heights of a coarse surface fitted to the whole
   raster, plus the misfit of that surface along the rim of the void. The misfit fades out with
   distance from the rim, so there is no step at the rim or inside the void.
3. Heights that are stored in whole steps and are to be upsampled are smoothed within half a step of
   the stored value, which turns terraces back into slopes.
4. Pixels are resampled: with the cubic B-spline where voxels are smaller than pixels, linearly
   where they are of similar size, and by averages where voxels are larger.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from cachetools import LRUCache
from numpy.typing import NDArray
from rasterio.fill import fillnodata
from scipy import ndimage

from geo_io.errors import InputError, nearest_name
from geo_io.frame import UNKNOWN_DATUM, Frame, Range, short_name
from geo_io.layers import Raster
from geo_io.raster.grid import Grid, block_mean, coarse_grid, grid_for, read_grid, sparse_grid
from geo_io.raster.nodata import Undeclared, undeclared_nodata
from geo_io.raster.positions import coverage_mask, overlaps, positions
from geo_io.raster.resample import cells_around, read_on, sample
from geo_io.raster.source import RasterSource, open_raster, split_band
from geo_io.raster.survey import survey_parts
from geo_io.region.region import no_overlap

METRES = {
    "m": 1.0,
    "dm": 0.1,
    "cm": 0.01,
    "mm": 0.001,
    "km": 1000.0,
    "in": 0.0254,
    "ft": 0.3048,
    "us-ft": 1200 / 3937,
}
"""Length in metres of each unit of heights."""

UNIT_TEXTS = {
    "m": "m",
    "metre": "m",
    "metres": "m",
    "meter": "m",
    "meters": "m",
    "mtr": "m",
    "dm": "dm",
    "decimetre": "dm",
    "decimetres": "dm",
    "decimeter": "dm",
    "decimeters": "dm",
    "cm": "cm",
    "centimetre": "cm",
    "centimetres": "cm",
    "centimeter": "cm",
    "centimeters": "cm",
    "mm": "mm",
    "millimetre": "mm",
    "millimetres": "mm",
    "millimeter": "mm",
    "millimeters": "mm",
    "km": "km",
    "kilometre": "km",
    "kilometres": "km",
    "kilometer": "km",
    "kilometers": "km",
    "ft": "ft",
    "foot": "ft",
    "feet": "ft",
    "international foot": "ft",
    "international feet": "ft",
    "us-ft": "us-ft",
    "ftus": "us-ft",
    "us ft": "us-ft",
    "us foot": "us-ft",
    "us feet": "us-ft",
    "us survey foot": "us-ft",
    "us survey feet": "us-ft",
    "survey foot": "us-ft",
    "survey feet": "us-ft",
    "foot us": "us-ft",
    "feet us": "us-ft",
    "u.s. survey foot": "us-ft",
    "u.s. survey feet": "us-ft",
}
"""Unit by the text that files use for it, in lower case and with spaces for underscores."""

UNIT_IN_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]\s*$")
"""A unit at the end of a band's description: "elevation (ft)"."""

NO_UNIT = {"", "unknown", "none", "n/a", "unitless"}

HEIGHT_WORDS = {
    "altitude",
    "chm",
    "dem",
    "dgm",
    "dom",
    "dsm",
    "dtm",
    "elev",
    "elevation",
    "elevations",
    "height",
    "heights",
    "hoehe",
    "höhe",
    "hoogte",
    "mde",
    "mdt",
    "mnt",
    "mns",
    "terrain",
    "z",
}
"""Words in the description of a band that holds heights."""

OWN_WORDS = {
    "DEM": {"dem", "dtm", "dgm", "mdt", "mnt", "terrain", "ground", "bare"},
    "DSM": {"dsm", "dom", "mds", "mns", "surface"},
    "canopy": {"chm", "cdsm", "ndsm", "canopy"},
}
"""Words that tell which of several bands of heights an input is."""

DERIVED = {
    *("slope", "aspect", "hillshade", "curvature", "roughness", "tpi", "tri", "pente", "neigung"),
    *("exposition", "schummerung", "pendiente", "pendenza"),
}
"""Words in the names of rasters that are made of heights, and hold none."""

FEET_WORDS = {"ft", "feet", "foot", "usft", "ftus"}
"""Words in the names of rasters of heights in feet."""

HEIGHT_LIMITS = (-12_000.0, 9_500.0)
"""Lowest and highest heights on Earth, metres; everything else is nodata."""

SEARCH = 64
"""Pixels from measured heights within which a void is filled from its rim."""

UPSAMPLED = 1.5
"""Ratio of pixel to voxel size above which pixels are resampled with the B-spline."""

SMOOTH_RADIUS = 32
"""Pixels over which the misfit that is spread from the rim is smoothed."""

COARSE, COARSE_CELL = 256, 8
"""Most cells along each side of the coarse surface, and least pixels along a cell: it must follow
the terrain, and must not show details of a rim."""

COARSE_SPARSE, COARSE_PIXELS = (64, 256), 64_000_000
"""A raster of more than this many pixels without overviews is not read whole. Its coarse surface
has the first number of cells along each side, or the second if no height is found with the
first."""

MARGIN = 0.25
"""Margin of the coarse surface around the raster, in lengths of its longer side. Beyond it, heights
are constant."""

RELAXATIONS = 24
"""Steps of relaxation at each level of the coarse surface."""

FOUR_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4

TERRACE_STEPS = (8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1)
"""Radii in pixels of the passes that smooth terraces; their sum is their reach. Terraces of up to
about 25 pixels become slopes."""

PREPARED = 32
"""Cells along an edge of the squares in whole numbers of which heights are filled and smoothed, so
that windows near each other share the result."""

KEPT_BYTES = 48_000_000
"""Filled and smoothed heights, and positions, that the readers of a process keep together."""

SURVEY_SAMPLES = 512
"""Most places along each side of a region that a survey reads."""


class _Kept:
    """The arrays that were used last, within `KEPT_BYTES`. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: LRUCache[Hashable, NDArray] = LRUCache(KEPT_BYTES, lambda array: array.nbytes)

    def get(self, key: Hashable, make: Callable[[], NDArray]) -> NDArray:
        """Return the array of a key, made if it is not kept. It must not be written to."""
        with self._lock:
            array = self._arrays.get(key)
        if array is None:
            array = make()
            array.flags.writeable = False
            if array.nbytes <= KEPT_BYTES:
                with self._lock:
                    self._arrays[key] = array
        return array


_KEPT = _Kept()


@dataclass(frozen=True, eq=False)
class ElevationReader:
    """Reader of the heights of a raster. Made by `open_elevation`; can be sent to another process.

    Attributes
    ----------
    source : RasterSource
        The raster.
    unit : str
        Unit of the stored heights: "m", "ft" or "us-ft".
    vertical_crs : str
        CRS of the heights that `read` returns, in metres; "unknown" if the file does not name one.
    what : str
        Name of the input in messages, such as "DEM" or "DSM".
    band : int
        The band with the heights, counted from 1.
    undeclared : Undeclared
        Nodata that the file does not declare.
    """

    source: RasterSource
    unit: str
    vertical_crs: str
    what: str
    band: int = 1
    undeclared: Undeclared = field(default_factory=Undeclared)

    def read(self, window: Frame) -> Raster:
        """Read heights on a window.

        Returns
        -------
        Raster
            (ny, nx) float32 metres without NaN.

        Raises
        ------
        InputError
            If the file cannot be read or holds no heights at all.
        """
        cells, column, row, order = self._around(window)
        return Raster(window, sample(cells, column, row, order))

    def lowest(self, window: Frame) -> float:
        """Return a bound, metres, below which no height on a window lies; far cheaper than them."""
        # What is read is a mean of cells, with weights that are not negative.
        return float(self._around(window)[0].min())

    def _around(self, window: Frame) -> tuple[NDArray, NDArray, NDArray, int]:
        """Return heights of cells (h, w), where in them a window lies, and the order of the kernel.

        Columns and rows are (ny, nx) float64.
        """
        source = self.source
        grid = grid_for(source, window.voxel_size)
        upsampled = max(source.pixel_metres) > UPSAMPLED * window.voxel_size
        smooth = upsampled and self.step > 0
        reach = math.ceil(max(source.shape) * MARGIN / min(grid.scale)) + SEARCH
        column, row, rows, columns = cells_around(
            source, grid, *self._positions(window), reach=reach
        )
        if smooth:
            rows, columns = _padded(rows, sum(TERRACE_STEPS)), _padded(columns, sum(TERRACE_STEPS))
            heights = self._prepared(grid, rows, columns, smooth=True)
        else:
            stored, valid = self._cells(grid, rows, columns)
            heights = (
                stored[0] if valid.all() else self._prepared(grid, rows, columns, smooth=False)
            )
        return heights, column - columns[0], row - rows[0], 3 if upsampled else 1

    def measured(self, window: Frame) -> Raster:
        """Return where the file itself holds heights, (ny, nx) bool; the others are filled."""
        return Raster(window, self.nearest(window)[1])

    def nearest(self, window: Frame) -> tuple[NDArray, NDArray]:
        """Return the nearest heights of the file, (ny, nx) float32 metres, and where it has some.

        It is far cheaper than `read`: nothing is filled, smoothed or resampled.
        """
        values, valid = read_on(
            self.source,
            window,
            bands=(self.band,),
            resampling="nearest",
            decode=self._decode,
            at=self._positions(window),
        )
        return values[0], valid

    def survey(self, frame: Frame) -> dict[str, Any]:
        """Measure heights and voids of a region, at up to 512 x 512 regular places.

        Returns
        -------
        dict
            `coverage`, the share of the region inside the raster; `voids`, the share of that
            without heights; `min` and `max`, metres; `unit`; `vertical_crs`; `resolution`, metres;
            `undeclared`, the share of the region with each stored value that is nodata without
            being declared so, and with means of it; `notes`, texts for warnings.

        Raises
        ------
        RegionError
            If the region and the raster do not overlap.
        InputError
            If the raster has no heights in the region.
        """
        if not overlaps(self.source, frame):
            raise no_overlap(self.source, frame, self.what)
        places, inside, with_data = 0, 0, 0
        low, high = math.inf, -math.inf
        undeclared: dict[str, int] = {}
        odd = 0
        for part in survey_parts(self.source, frame, SURVEY_SAMPLES):
            stored, valid = read_on(self.source, part, bands=(self.band,), resampling="nearest")
            for value, count in self._undeclared_in(stored[0], valid).items():
                undeclared[value] = undeclared.get(value, 0) + count
            odd += int(((stored[0] == self.undeclared.odd) & valid).sum())
            values, valid = self._decode(stored, valid)
            places += valid.size
            inside += int(coverage_mask(self.source, part).sum())
            with_data += int(valid.sum())
            low = min(low, float(values[0].min(where=valid, initial=math.inf)))
            high = max(high, float(values[0].max(where=valid, initial=-math.inf)))
        if not inside:
            raise no_overlap(self.source, frame, self.what)
        if not with_data:
            raise self._nothing(frame)
        return {
            "coverage": inside / places,
            "voids": max(0.0, 1 - with_data / inside),
            "min": low,
            "max": high,
            "unit": self.unit,
            "vertical_crs": self.vertical_crs,
            "resolution": max(self.source.pixel_metres),
            "undeclared": {value: count / places for value, count in undeclared.items()},
            "notes": [
                *self.source.notes,
                *self._odd_note(odd / places),
                *self._byte_note(),
                *self._name_note(),
            ],
        }

    def _nothing(self, frame: Frame) -> InputError:
        """Return what to say of a region without heights."""
        low, high = math.inf, -math.inf
        for part in survey_parts(self.source, frame, SURVEY_SAMPLES):
            stored, valid = read_on(self.source, part, bands=(self.band,), resampling="nearest")
            real = valid & ~np.isin(stored[0], self.undeclared.values)
            values = stored[0][real].astype(float)
            low = min(low, float(values.min(initial=math.inf)))
            high = max(high, float(values.max(initial=-math.inf)))
        if not math.isfinite(low + high):
            return InputError(
                f"the {self.what} {self.source.name} holds nothing but nodata in the region",
                "choose a region with data, or another file",
            )
        setting = f"{self.what.casefold()}_unit"
        return InputError(
            f"the {self.what} {self.source.name} holds {low:g} to {high:g} in the region, which "
            f"are no heights on Earth in {self.unit}",
            f"give their unit, as `{setting}` or with gdal_edit -units cm, or another file",
        )

    def _byte_note(self) -> list[str]:
        if self.source.dtypes[self.band - 1] != "uint8" or self.what == "canopy":
            return []
        return [
            f"the {self.what} {self.source.name} holds bytes, 0 to 255, as pictures do: they are "
            "read as heights in metres; a hillshade has none"
        ]

    def _name_note(self) -> list[str]:
        """Tell that the name of the file or the band contradicts how it is read."""
        words = _words(Path(self.source.name).stem.casefold())
        words |= _words(self.source.descriptions[self.band - 1].casefold())
        notes = []
        for word in sorted(words & DERIVED):
            notes.append(
                f"the {self.what} {self.source.name} is called {word}, and is read as heights in "
                f"{self.unit}: a raster of {word} has none"
            )
        if words & FEET_WORDS and self.unit not in ("ft", "us-ft"):
            notes.append(
                f"the {self.what} {self.source.name} is called "
                f"{next(iter(sorted(words & FEET_WORDS)))}, and is read in {self.unit}: if its "
                f"heights are in feet, give `{self.what.casefold()}_unit` ft"
            )
        return notes

    def _odd_note(self, share: float) -> list[str]:
        if not share:
            return []
        odd = self.undeclared.odd
        assert odd is not None  # it has a share
        value, metres = f"{odd:g}", odd * METRES[self.unit] * self.source.scales[self.band - 1]
        if not HEIGHT_LIMITS[0] <= metres <= HEIGHT_LIMITS[1]:
            return [
                f"{share:.1%} of the {self.what} {self.source.name} in the region holds {value} "
                "without declaring it as nodata: it was read as nodata"
            ]
        return [
            f"{share:.1%} of the {self.what} {self.source.name} in the region is exactly {value}, "
            "far from all other heights, and is taken as a height: if it means that there is no "
            f"data, declare it, for example with gdal_edit -a_nodata {value}"
        ]

    def summary(self) -> dict[str, Any]:
        """Describe the source without reading its pixels."""
        return {
            "name": self.source.name,
            "crs": short_name(self.source.crs),
            "vertical_crs": self.vertical_crs,
            "shape": list(self.source.shape),
            "resolution": max(self.source.pixel_metres),
            "unit": self.unit,
            "nodata": self.source.nodata[self.band - 1],
            "band": self.band,
            "overviews": bool(self.source.overviews),
        }

    def _decode(self, pixels: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
        """Convert stored values to float32 metres."""
        stored = pixels[0].astype(np.float64)
        for sentinel in (*self.undeclared.values, self.source.nodata[self.band - 1]):
            valid = valid & (stored != sentinel)
        valid = valid & (stored >= self.undeclared.floor) & (stored <= self.undeclared.ceiling)
        scale, offset = self.source.scales[self.band - 1], self.source.offsets[self.band - 1]
        metres = (stored * scale + offset) * METRES[self.unit]
        with np.errstate(invalid="ignore"):
            valid = valid & (metres >= HEIGHT_LIMITS[0]) & (metres <= HEIGHT_LIMITS[1])
        return np.where(valid, metres, 0.0).astype(np.float32)[None], valid

    def _cells(self, grid: Grid, rows: Range, columns: Range) -> tuple[NDArray, NDArray]:
        """Read heights (1, h, w) and their mask at cells of a lattice."""
        return read_grid(self.source, grid, rows, columns, bands=(self.band,), decode=self._decode)

    def _prepared(self, grid: Grid, rows: Range, columns: Range, *, smooth: bool) -> NDArray:
        """Return heights at cells (h, w), with voids filled and, if asked, without terraces.

        Within `sum(TERRACE_STEPS)` cells of the edges, terraces may be left.
        """
        wide_rows, wide_columns = _in_squares(rows), _in_squares(columns)

        def make() -> NDArray:
            stored, valid = self._cells(grid, wide_rows, wide_columns)
            heights = stored[0]
            if not valid.all():
                # The rim of a void may lie outside: read as far as it has an influence.
                pad = SEARCH + SMOOTH_RADIUS
                around = _padded(wide_rows, pad), _padded(wide_columns, pad)
                stored, valid = self._cells(grid, *around)
                heights = _fill_voids(stored[0], valid, self._base(*around, grid.scale))[
                    pad:-pad, pad:-pad
                ]
            return np.ascontiguousarray(_slope_terraces(heights, self.step) if smooth else heights)

        heights = _KEPT.get((self._own, grid, wide_rows, wide_columns, smooth), make)
        return heights[
            rows[0] - wide_rows[0] : rows[1] - wide_rows[0],
            columns[0] - wide_columns[0] : columns[1] - wide_columns[0],
        ]

    def _positions(self, window: Frame) -> tuple[NDArray, NDArray]:
        """Return the columns and rows of a window in the raster, (ny, nx) float64 each."""
        key = self._own, window
        column, row = _KEPT.get(key, lambda: np.stack(positions(self.source, window)))
        return column, row

    @functools.cached_property
    def _own(self) -> object:
        """What tells the arrays of this reader from those of others."""
        return object()

    def _undeclared_in(self, stored: NDArray, valid: NDArray) -> dict[str, int]:
        """Count the places that hold nodata without saying so, by the value as text."""
        declared = self.source.nodata[self.band - 1]
        counts = {
            f"{value:g}": int(((stored == value) & valid).sum())
            for value in self.undeclared.values
            if value != declared
        }
        means = (stored < self.undeclared.floor) | (stored > self.undeclared.ceiling)
        counts["means"] = int((means & valid & ~np.isin(stored, self.undeclared.values)).sum())
        return {value: count for value, count in counts.items() if count}

    def _base(self, rows: Range, columns: Range, scale: tuple[float, float]) -> NDArray:
        """Sample the coarse surface at the cells of a lattice, (h, w) float32."""
        surface, origin, mesh = self._coarse
        row = (np.arange(*rows) + 0.5) * scale[0] / mesh[0] - 0.5 - origin[0]
        column = (np.arange(*columns) + 0.5) * scale[1] / mesh[1] - 0.5 - origin[1]
        return _sample_mesh(surface, row, column)

    @functools.cached_property
    def step(self) -> float:
        """The step of stored heights, metres; 0 if they are continuous."""
        step = abs(self.source.scales[self.band - 1]) * METRES[self.unit]
        if np.dtype(self.source.dtypes[self.band - 1]).kind in "iu":
            return step
        grid = sparse_grid(self.source, COARSE_SPARSE[0])
        stored, valid = read_grid(
            self.source, grid, (0, grid.shape[0]), (0, grid.shape[1]), bands=(self.band,)
        )
        whole = stored[0][valid]
        return step if whole.size and (whole == np.round(whole)).all() else 0.0

    @functools.cached_property
    def _coarse(self) -> tuple[NDArray, tuple[int, int], tuple[float, float]]:
        """The coarse surface of the whole raster and a margin around it.

        Its heights (h, w) float32, its first row and column in cells from the raster's corner, and
        the source pixels of a cell along rows and columns.
        """
        cells = min(COARSE, math.ceil(max(self.source.shape) / COARSE_CELL))
        for sparse in COARSE_SPARSE:
            grid = coarse_grid(self.source, cells, sparse_cells=sparse, sparse_pixels=COARSE_PIXELS)
            margin = math.ceil(max(grid.shape) * MARGIN)
            rows, columns = _padded((0, grid.shape[0]), margin), _padded((0, grid.shape[1]), margin)
            stored, valid = self._cells(grid, rows, columns)
            if valid.any():
                return (
                    spread(stored[0].astype(np.float32), valid),
                    (rows[0], columns[0]),
                    grid.scale,
                )
        raise InputError(
            f"the {self.what} {self.source.name} holds nothing but nodata",
            "check its nodata value with gdalinfo -stats, or crop it to the part with data",
        )


def _padded(cells: Range, by: int) -> Range:
    return cells[0] - by, cells[1] + by


def _in_squares(cells: Range) -> Range:
    return cells[0] // PREPARED * PREPARED, -(-cells[1] // PREPARED) * PREPARED


def _sample_mesh(values: NDArray, row: NDArray, column: NDArray) -> NDArray:
    """Sample an array linearly at each pair of a row (n,) and a column (m,)."""
    columns, rows = np.meshgrid(column, row)
    return sample(values, columns, rows, 1)


def spread(values: NDArray, valid: NDArray) -> NDArray:
    """Fill invalid cells with a membrane between the valid ones (h, w), level at the edges.

    Solved from coarse to fine: relaxation starts from means of 2 x 2 cells, filled in the same way.
    """
    if valid.all():
        return values
    h, w = (-(-n // 2) for n in valid.shape)
    means, some = block_mean(values[None], valid, h, w, 2)
    row, column = ((np.arange(n) + 0.5) / 2 - 0.5 for n in valid.shape)
    film = np.where(valid, values, _sample_mesh(spread(means[0], some), row, column))
    for _ in range(RELAXATIONS):
        film = np.where(valid, values, ndimage.correlate(film, FOUR_NEIGHBOURS, mode="nearest"))
    return film


def _fill_voids(heights: NDArray, valid: NDArray, base: NDArray) -> NDArray:
    """Fill voids (h, w) with `base` plus its misfit along the rim, which fades with distance.

    The misfit is spread by inverse distances, and gets smoother with distance from the rim, so that
    a single tree there leaves no streak. A value depends on the cells within `SEARCH` +
    `SMOOTH_RADIUS` pixels.
    """
    if not valid.any():
        return base
    misfit = np.where(valid, heights - base, 0).astype(np.float32)
    misfit = fillnodata(misfit, valid.astype(np.uint8), max_search_distance=float(SEARCH))
    blurred = ndimage.gaussian_filter(
        misfit, SMOOTH_RADIUS / 4, mode="nearest", radius=SMOOTH_RADIUS
    )
    distance = ndimage.distance_transform_edt(~valid)
    misfit = misfit + (blurred - misfit) * np.clip((distance - 1) / SMOOTH_RADIUS * 2, 0, 1)
    near = np.clip(1 - distance / SEARCH, 0, 1)
    fade = near * near * (3 - 2 * near)
    return np.where(valid, heights, base + misfit * fade).astype(np.float32)


def _slope_terraces(heights: NDArray, step: float) -> NDArray:
    """Smooth heights (h, w), but move none by more than half of the step they were rounded to.

    On an even slope this gives the slope itself; where heights have detail, it changes very little.
    """
    low, high = heights - np.float64(step / 2), heights + np.float64(step / 2)
    smooth = heights.astype(np.float64)
    for radius in TERRACE_STEPS:
        weights = np.full(2 * radius + 1, 1 / (2 * radius + 1))
        # correlate1d adds in a fixed order; a running mean would depend on where the array starts.
        for axis in (0, 1):
            smooth = ndimage.correlate1d(smooth, weights, axis, mode="nearest")
        smooth = np.clip(smooth, low, high)
    return smooth


def open_elevation(
    source: str | Path | xr.DataArray | RasterSource,
    *,
    unit: str | None = None,
    assume_crs: str | None = None,
    what: str = "DEM",
    band: str | None = None,
) -> ElevationReader:
    """Open a raster of heights.

    Parameters
    ----------
    source : str, Path, DataArray or RasterSource
        The raster, as in `open_raster`. "file.tif:elevation" or "file.tif:2" names one of several
        bands by its description or number.
    unit : str, optional
        "m", "ft" (0.3048 m) or "us-ft" (1200/3937 m). By default the unit of the vertical CRS, else
        that of the band, else metres unless the horizontal CRS is in feet.
    assume_crs : str, optional
        CRS of a file that has none.
    what : str
        Name of the input in messages.
    band : str, optional
        Description or number of the band with the heights, if `source` does not name it.

    Raises
    ------
    MissingFileError, MissingCrsError
        As `open_raster`.
    InputError
        As `open_raster`; also if the file holds depths, colours or complex numbers, if the unit is
        unknown or not declared, or if it has several bands and none says that it holds heights.
    """
    file, named = (source, band) if band is not None else split_band(source)
    raster = open_raster(file, assume_crs=assume_crs)
    if raster.dtypes[0].startswith("complex"):
        raise InputError(
            f"the {what} {raster.name} holds complex numbers", "give a raster of heights"
        )
    if {"red", "green", "blue"} <= set(raster.colorinterp) or "palette" in raster.colorinterp:
        raise InputError(
            f"the {what} {raster.name} is a picture, not heights", "give it as `image`"
        )
    number = height_band(raster, named, what)
    declared, vertical = _vertical(raster, what)
    chosen = raster.height_unit or unit or declared or _unit_of_band(raster, what, number)
    if chosen not in METRES:
        raise InputError(
            f"unknown unit {chosen!r} of the {what} {raster.name}",
            f"choose one of {', '.join(METRES)}",
        )
    undeclared = undeclared_nodata(raster, number, abs(raster.scales[number - 1]) * METRES[chosen])
    if undeclared.overviews:
        raster = raster.without_overviews()
    return ElevationReader(raster, chosen, vertical, what, number, undeclared)


def height_band(raster: RasterSource, named: str | None, what: str) -> int:
    """Return the number of the band with heights, counted from 1.

    Parameters
    ----------
    raster : RasterSource
        The raster.
    named : str, optional
        Description or number of the band, if the user names one.
    what : str
        Name of the input in messages.

    Raises
    ------
    InputError
        If it has no such band, or several and none or more than one is called a height.
    """
    bands = [n for n, name in enumerate(raster.colorinterp, 1) if name != "alpha"]
    texts = [text.strip().casefold() for text in raster.descriptions]
    listed = ", ".join(raster.descriptions[n - 1] or str(n) for n in bands)
    if named is not None:
        chosen = [n for n in bands if named.casefold() in (texts[n - 1], str(n))]
        if chosen:
            return chosen[0]
        raise InputError(
            f"the {what} {raster.name} has no band {named!r}; its bands are {listed}",
            f"name one of them{nearest_name(named, raster.descriptions)}",
        )
    if len(bands) <= 1:
        return bands[0] if bands else 1
    heights = [n for n in bands if _words(texts[n - 1]) & HEIGHT_WORDS]
    own = [n for n in bands if _words(texts[n - 1]) & OWN_WORDS.get(what, set())]
    plain = [n for n in heights if texts[n - 1] in HEIGHT_WORDS]
    for chosen in (own, heights, plain):
        if len(chosen) == 1:
            return chosen[0]
    raise InputError(
        f"the {what} {raster.name} has {len(bands)} bands: {listed}",
        f"name the one with heights, as {Path(raster.name).name}:"
        f"{raster.descriptions[(heights or bands)[-1] - 1] or bands[-1]}",
    )


def _words(text: str) -> set[str]:
    return set(re.split(r"[^0-9a-zà-öø-ÿ]+", text))


def _vertical(raster: RasterSource, what: str) -> tuple[str | None, str]:
    """Return the unit of the vertical CRS and the name of that CRS in metres.

    (None, "unknown") if the raster has no vertical CRS.
    """
    crs = raster.vertical
    if crs is None:
        return None, UNKNOWN_DATUM
    axis = crs.axis_info[-1]
    if axis.direction == "down":
        raise InputError(
            f"the {what} {raster.name} holds depths: {crs.name} points down",
            "turn them into heights first, with gdal_calc and gdal_edit -a_srs",
        )
    for unit, metres in METRES.items():
        if math.isclose(axis.unit_conversion_factor, metres, rel_tol=1e-8):
            return unit, short_name(crs if unit == "m" else _in_metres(crs))
    raise InputError(
        f"the {what} {raster.name} is in {axis.unit_name}, by its vertical CRS",
        "convert it to metres first",
    )


def _in_metres(crs: pyproj.CRS) -> pyproj.CRS:
    """Return the vertical CRS with the same datum in metres.

    NAVD88 height (ftUS), for example, becomes NAVD88 height.
    """
    values = crs.to_json_dict()
    values.pop("id", None)
    values["coordinate_system"]["axis"][-1]["unit"] = "metre"
    values["name"] = values["name"].split(" (")[0]
    return pyproj.CRS.from_json_dict(values)


def _unit_of_band(raster: RasterSource, what: str, band: int) -> str:
    """Return the unit that the band declares, else metres if nothing contradicts."""
    text = raster.units[band - 1].strip(" []().").casefold().replace("_", " ")
    if text in UNIT_TEXTS:
        return UNIT_TEXTS[text]
    described = UNIT_IN_BRACKETS.search(raster.descriptions[band - 1].casefold())
    if text in NO_UNIT and described and described[1].strip() in UNIT_TEXTS:
        return UNIT_TEXTS[described[1].strip()]
    setting = f"{what.casefold()}_unit" if what.casefold() in ("dem", "dsm", "canopy") else "unit"
    remedy = f"give its unit as `{setting}`: m, dm, cm, ft or us-ft"
    if text not in NO_UNIT:
        raise InputError(
            f"the {what} {raster.name} has the unknown unit {raster.units[band - 1]!r}", remedy
        )
    axis = raster.crs.axis_info[0]
    if raster.crs.is_projected and axis.unit_conversion_factor != 1:
        raise InputError(
            f"the {what} {raster.name} lies in {short_name(raster.crs)}, in {axis.unit_name}, and "
            "does not say whether its heights are in feet too",
            remedy,
        )
    return "m"
