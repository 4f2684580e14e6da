"""Ground and surface heights on a frame: metres, without holes and without terraces.

How a height comes about, each step a function of the place alone:

1. pixels are decoded: scale and offset, unit, nodata;
2. voids take a wide-meshed surface fitted to the whole raster, plus the misfit of that surface along the
   void's rim, which fades out with distance from the rim (so that there is no step at the rim or
   deep in the void); so do places outside the raster;
3. heights that are stored in whole steps and are to be upsampled are smoothed within half a step of what is
   stored, which turns terraces back into slopes;
4. the pixels are resampled with the cubic B-spline where voxels are smaller than pixels, linearly where they
   are alike, after averaging where voxels are larger.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from numpy.typing import NDArray
from rasterio.fill import fillnodata
from scipy import ndimage

from geo_io.errors import InputError
from geo_io.frame import UNKNOWN_DATUM, Frame, Range, short_name
from geo_io.layers import Raster
from geo_io.raster.grid import block_mean, coarse_grid, grid_for, read_grid, sparse_grid
from geo_io.raster.positions import covered, overlaps, positions
from geo_io.raster.resample import cells_around, read_on, sample
from geo_io.raster.source import RasterSource, open_raster
from geo_io.raster.survey import survey_parts
from geo_io.region.region import no_overlap

METRES = {"m": 1.0, "ft": 0.3048, "us-ft": 1200 / 3937}
"""Metres in each unit that can be asked for."""

UNIT_TEXTS = {
    "m": "m",
    "metre": "m",
    "metres": "m",
    "meter": "m",
    "meters": "m",
    "mtr": "m",
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
"""What files write as the unit of a band, in lower case, with spaces for underscores."""

NO_UNIT = {"", "unknown", "none", "n/a", "unitless"}

SENTINELS = (-32768.0, -32767.0, -9999.0, -99999.0)
"""Stored values that mean "no data" in height rasters, whether declared or not. Zero only where
declared."""

HEIGHT_LIMITS = (-12_000.0, 9_500.0)
"""Heights on Earth lie within these metres; anything else is no data."""

SEARCH = 64
"""Pixels from measured heights over which a void is closed from its rim."""

UPSAMPLED = 1.5
"""Pixels this much larger than voxels are resampled with the B-spline."""

SMOOTH_RADIUS = 32
"""Pixels over which what is spread from the rim is smoothed."""

COARSE, COARSE_CELL = 256, 8
"""The surface that closes wide voids has at most this many cells along each side, each of at
least this many pixels: it shall show the lie of the land, and no detail of a rim."""

COARSE_SPARSE, COARSE_PIXELS = (64, 256), 64_000_000
"""... and these many, until one of them has heights, for a raster of more pixels than that and without
overviews: it is not read whole."""

MARGIN = 0.25
"""How far around the raster that surface goes, in lengths of its longer side; beyond, it is
constant."""

RELAXATIONS = 24
"""Steps of relaxation at each of its levels."""

FOUR_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4

TERRACE_STEPS = (8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1)
"""Radii of the passes that smooth terraces, pixels; their sum is how far they reach. Terraces up
to about 25 pixels wide become slopes."""

SURVEY_SAMPLES = 512
"""A survey looks at no more than this many places along each side of the region."""


@dataclass(frozen=True, eq=False)
class ElevationReader:
    """Heights of one raster. Made by `open_elevation`; can be sent to another process.

    Attributes
    ----------
    source : the raster
    unit : "m", "ft" or "us-ft": of the stored heights
    vertical_crs : CRS of the heights that `read` gives, in metres; "unknown" where the file does
        not say
    what : how messages call it, "DEM" or "DSM"
    """

    source: RasterSource
    unit: str
    vertical_crs: str
    what: str

    def read(self, window: Frame) -> Raster:
        """Heights in metres on a window, (ny, nx) float32 without NaN.

        Raises InputError if the file cannot be read or holds no heights at all.
        """
        source = self.source
        grid = grid_for(source, window.voxel_size)
        upsampled = max(source.pixel_metres) > UPSAMPLED * window.voxel_size
        smooth = upsampled and self.step > 0
        reach = math.ceil(max(source.shape) * MARGIN / min(grid.scale)) + SEARCH
        column, row, rows, columns = cells_around(
            source, grid, *positions(source, window), reach=reach
        )
        if smooth:
            rows, columns = _padded(rows, sum(TERRACE_STEPS)), _padded(columns, sum(TERRACE_STEPS))
        stored, valid = read_grid(source, grid, rows, columns, decode=self._decode)
        heights = stored[0]
        if not valid.all():
            # The rim of a void may lie outside: look as far as it can matter, and no farther.
            pad = SEARCH + SMOOTH_RADIUS
            wide = _padded(rows, pad), _padded(columns, pad)
            stored, valid = read_grid(source, grid, *wide, decode=self._decode)
            heights = _close(stored[0], valid, self._base(*wide, grid.scale))[pad:-pad, pad:-pad]
        if smooth:
            heights = _slope_terraces(heights, self.step)
        out = sample(heights, column - columns[0], row - rows[0], 3 if upsampled else 1)
        return Raster(window, out)

    def measured(self, window: Frame) -> Raster:
        """(ny, nx) bool: where the file itself holds heights; the others are filled."""
        _, valid = read_on(self.source, window, resampling="nearest", decode=self._decode)
        return Raster(window, valid)

    def survey(self, frame: Frame) -> dict[str, Any]:
        """What the source holds in a region, from at most 512 x 512 places spread evenly over it.

        Returns
        -------
        `coverage`, share of the region inside the raster; `voids`, share of that without heights; `min` and
        `max`, metres; `unit`; `vertical_crs`; `resolution`, metres

        Raises
        ------
        RegionError
            if the region and the raster have no place in common
        InputError
            if all of the region is nodata
        """
        if not overlaps(self.source, frame):
            raise no_overlap(self.source, frame, self.what)
        places, inside, known = 0, 0, 0
        low, high = math.inf, -math.inf
        for part in survey_parts(self.source, frame, SURVEY_SAMPLES):
            values, valid = read_on(self.source, part, resampling="nearest", decode=self._decode)
            places += valid.size
            inside += int(covered(self.source, part).sum())
            known += int(valid.sum())
            low = min(low, float(values[0].min(where=valid, initial=math.inf)))
            high = max(high, float(values[0].max(where=valid, initial=-math.inf)))
        if not inside:
            raise no_overlap(self.source, frame, self.what)
        if not known:
            raise InputError(
                f"the {self.what} {self.source.name} holds nothing but nodata in the region",
                "choose a region with data, or another file",
            )
        return {
            "coverage": inside / places,
            "voids": max(0.0, 1 - known / inside),
            "min": low,
            "max": high,
            "unit": self.unit,
            "vertical_crs": self.vertical_crs,
            "resolution": max(self.source.pixel_metres),
        }

    def summary(self) -> dict[str, Any]:
        """What is known of the source without reading it."""
        return {
            "name": self.source.name,
            "crs": short_name(self.source.crs),
            "vertical_crs": self.vertical_crs,
            "shape": list(self.source.shape),
            "resolution": max(self.source.pixel_metres),
            "unit": self.unit,
            "nodata": self.source.nodata[0],
        }

    def _decode(self, pixels: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
        """Stored values to float32 metres."""
        stored = pixels[0].astype(np.float64)
        for sentinel in SENTINELS:
            valid = valid & (stored != sentinel)
        metres = (stored * self.source.scales[0] + self.source.offsets[0]) * METRES[self.unit]
        with np.errstate(invalid="ignore"):
            valid = valid & (metres >= HEIGHT_LIMITS[0]) & (metres <= HEIGHT_LIMITS[1])
        return np.where(valid, metres, 0.0).astype(np.float32)[None], valid

    def _base(self, rows: Range, columns: Range, scale: tuple[float, float]) -> NDArray:
        """(h, w) float32: the wide-meshed surface at the cells of a lattice."""
        surface, origin, mesh = self._coarse
        row = (np.arange(*rows) + 0.5) * scale[0] / mesh[0] - 0.5 - origin[0]
        column = (np.arange(*columns) + 0.5) * scale[1] / mesh[1] - 0.5 - origin[1]
        return _sample_mesh(surface, row, column)

    @functools.cached_property
    def step(self) -> float:
        """The step in which heights are stored, metres; 0 where they are continuous."""
        step = abs(self.source.scales[0]) * METRES[self.unit]
        if np.dtype(self.source.dtypes[0]).kind in "iu":
            return step
        grid = sparse_grid(self.source, COARSE_SPARSE[0])
        stored, valid = read_grid(self.source, grid, (0, grid.shape[0]), (0, grid.shape[1]))
        whole = stored[0][valid]
        return step if whole.size and (whole == np.round(whole)).all() else 0.0

    @functools.cached_property
    def _coarse(self) -> tuple[NDArray, tuple[int, int], tuple[float, float]]:
        """A surface through the whole raster and a margin around it, made when first needed.

        Returns (heights (h, w) float32, its first row and column in cells from the raster's corner,
        source pixels in a cell along rows and columns).
        """
        cells = min(COARSE, math.ceil(max(self.source.shape) / COARSE_CELL))
        for sparse in COARSE_SPARSE:
            grid = coarse_grid(self.source, cells, sparse_cells=sparse, sparse_pixels=COARSE_PIXELS)
            margin = math.ceil(max(grid.shape) * MARGIN)
            rows, columns = _padded((0, grid.shape[0]), margin), _padded((0, grid.shape[1]), margin)
            stored, valid = read_grid(self.source, grid, rows, columns, decode=self._decode)
            if valid.any():
                return (
                    _spread(stored[0].astype(np.float32), valid),
                    (rows[0], columns[0]),
                    grid.scale,
                )
        raise InputError(
            f"the {self.what} {self.source.name} holds nothing but nodata",
            "check its nodata value with gdalinfo -stats; where it holds a little data, crop it to that",
        )


def _padded(cells: Range, by: int) -> Range:
    return cells[0] - by, cells[1] + by


def _sample_mesh(values: NDArray, row: NDArray, column: NDArray) -> NDArray:
    """Linear in between, at each pair of a row (n,) and a column (m,) of an array."""
    columns, rows = np.meshgrid(column, row)
    return sample(values, columns, rows, 1)


def _spread(values: NDArray, valid: NDArray) -> NDArray:
    """Values (h, w) where valid, elsewhere a soap film between them, which is level at the edges.

    Solved from coarse to fine: means of 2 x 2 cells, closed in the same way, are where relaxation
    starts.
    """
    if valid.all():
        return values
    h, w = (-(-n // 2) for n in valid.shape)
    means, some = block_mean(values[None], valid, h, w, 2)
    row, column = ((np.arange(n) + 0.5) / 2 - 0.5 for n in valid.shape)
    film = np.where(valid, values, _sample_mesh(_spread(means[0], some), row, column))
    for _ in range(RELAXATIONS):
        film = np.where(valid, values, ndimage.correlate(film, FOUR_NEIGHBOURS, mode="nearest"))
    return film


def _close(heights: NDArray, valid: NDArray, base: NDArray) -> NDArray:
    """Heights (h, w) with their voids closed: `base`, plus its misfit along the rim that fades with
    distance.

    The misfit is spread by inverse distances, and smoother the farther from the rim: a single tree
    there must not draw a streak. A value depends on what lies within `SEARCH` + `SMOOTH_RADIUS`
    pixels of it.
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
    """The heights (h, w) smoothed, but nowhere moved by more than half the step they were rounded
    to.

    Where heights fall evenly, that is the slope itself; where they hold detail, next to nothing
    changes.
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
) -> ElevationReader:
    """Open a raster of heights.

    Parameters
    ----------
    unit : "m", "ft" (0.3048 m) or "us-ft" (1200/3937 m); by default what the file says: its
        vertical CRS,
        else the unit of its band; else metres, unless its horizontal CRS is in feet
    assume_crs : CRS of a file that carries none
    what : how messages call it

    Raises
    ------
    InputError
        if the unit is not known, or cannot be told
    InputError
        as `open_raster`; also if the file holds depths or is no raster of single numbers
    """
    raster = open_raster(source, assume_crs=assume_crs)
    if raster.dtypes[0].startswith("complex"):
        raise InputError(
            f"the {what} {raster.name} holds complex numbers", "give a raster of heights"
        )
    if {"red", "green", "blue"} <= set(raster.colorinterp) or "palette" in raster.colorinterp:
        raise InputError(
            f"the {what} {raster.name} is a picture, not heights", "give it as --image"
        )
    declared, vertical = _vertical(raster, what)
    chosen = unit or declared or _unit_of_band(raster, what)
    if chosen not in METRES:
        raise InputError(
            f"unit {chosen!r} of the {what} {raster.name} is not known",
            f"give one of {', '.join(METRES)}",
        )
    return ElevationReader(raster, chosen, vertical, what)


def _vertical(raster: RasterSource, what: str) -> tuple[str | None, str]:
    """(unit that the vertical CRS declares, name of that CRS in metres); (None, "unknown") where
    there is none."""
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
    """The vertical CRS with the same datum and the metre as unit: NAVD88 height (ftUS) becomes
    NAVD88 height."""
    values = crs.to_json_dict()
    values.pop("id", None)
    values["coordinate_system"]["axis"][-1]["unit"] = "metre"
    values["name"] = values["name"].split(" (")[0]
    return pyproj.CRS.from_json_dict(values)


def _unit_of_band(raster: RasterSource, what: str) -> str:
    """The unit the first band declares, else metres if nothing speaks against it."""
    text = raster.units[0].strip(" []().").casefold().replace("_", " ")
    if text in UNIT_TEXTS:
        return UNIT_TEXTS[text]
    remedy = f"say which with --{what.casefold()}-unit m, ft or us-ft"
    if text not in NO_UNIT:
        raise InputError(
            f"the {what} {raster.name} is in {raster.units[0]!r}, which is no known unit", remedy
        )
    axis = raster.crs.axis_info[0]
    if raster.crs.is_projected and axis.unit_conversion_factor != 1:
        raise InputError(
            f"the {what} {raster.name} lies in {short_name(raster.crs)}, in {axis.unit_name}, and does not say "
            "whether its heights are in feet too",
            remedy,
        )
    return "m"
