"""Rasters of any CRS and resolution, read window by window onto a frame.

`read_on` is a pure function of the source and the place: where two windows overlap they hold the same values,
bit for bit. GDAL's warper does not promise that (its transformer approximates along each window's scan lines,
and its kernel width follows the window's size), so the steps are done here:

1. the centre of each voxel is projected to a position on the source's pixel lattice;
2. a source much finer than the voxels is averaged in whole blocks of pixels that count from the source's
   corner, from an overview where it has one;
3. the pixels around each position are weighted by a kernel of fixed width: linear, or the cubic B-spline.

Only the pixels under the window and the kernel are read.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.env import GDALVersion
from rasterio.windows import Window
from scipy import ndimage

from geo_io.errors import InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Bounds, Frame, Range, short_name

KERNELS = {"nearest": 0, "mode": 0, "bilinear": 1, "average": 1, "cubic_spline": 3}
"""Spline order by name of the resampling. A source finer than the voxels is averaged first for the last
three, so "average" and "bilinear" mean the same."""

KERNEL_PAD = 2
"""Pixels beyond a position that a kernel may touch."""

NODE_STEP = 16
"""Voxels between the places that are projected exactly; those between are interpolated, where that is
exact to `NODE_TOLERANCE`."""

NODE_TOLERANCE = 1e-3
"""Largest error of an interpolated position, in voxels or source pixels, whichever is larger."""

SAMPLES = 8
"""Pixels a block average takes along each axis of a voxel at least, where the source is that fine."""

STRIP_PIXELS = 4_000_000
"""Pixels that are read at a time when blocks are averaged; bounds the memory of a read."""

WINDOW_PIXELS = 64_000_000
"""A window that needs more pixels than this, and far more than its area explains, wraps around its source."""

BASE_ONLY = -1
"""The overview level that means: the raster itself, and no overview."""

WGS84 = pyproj.CRS.from_epsg(4326)

Decode = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
"""From (pixels (bands, h, w) as stored, valid (h, w) bool) to (values, valid) before anything is
resampled."""


@dataclass(frozen=True, eq=False)
class RasterSource:
    """What is known of a raster without reading its pixels. Made by `open_raster`; holds no open file.

    Attributes
    ----------
    name : how messages call it: the path, or the name of the DataArray
    path : what GDAL opens; empty for a DataArray
    array : (bands, rows, columns) DataArray of an in-memory source, else None
    crs : horizontal CRS
    vertical : vertical CRS, None where the file does not say
    transform : from (column, row) to CRS coordinates
    shape : (rows, columns)
    dtypes, nodata, units, descriptions, colorinterp, scales, offsets : one a band; units and descriptions are
        "" and nodata is None where the file does not say
    overviews : reduction factors of the overviews of the first band, finest first
    """

    name: str
    path: str
    array: xr.DataArray | None
    crs: pyproj.CRS
    vertical: pyproj.CRS | None
    transform: Affine
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    units: tuple[str, ...]
    descriptions: tuple[str, ...]
    colorinterp: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    overviews: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.dtypes)

    @property
    def resolution(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the CRS."""
        a, b, _, d, e, _ = self.transform[:6]
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The four corners in CRS coordinates, in the order of a ring."""
        h, w = self.shape
        return [self.place(*corner) for corner in ((0, 0), (w, 0), (w, h), (0, h))]

    def place(self, column: float, row: float) -> tuple[float, float]:
        """CRS coordinates of a place on the pixel lattice; 0, 0 is the outer corner of the first pixel."""
        a, b, c, d, e, f = self.transform[:6]
        return a * column + b * row + c, d * column + e * row + f

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in the raster's CRS."""
        x, y = zip(*self.corners, strict=True)
        return min(x), min(y), max(x), max(y)

    def bounds_in(self, crs: str | pyproj.CRS) -> Bounds:
        """left, bottom, right, top in another CRS, edges densified. Across the antimeridian, left > right."""
        left, bottom, right, top = transformer(self.crs, pyproj.CRS(crs)).transform_bounds(*self.bounds, densify_pts=21)
        return left, bottom, right, top

    @functools.cached_property
    def pixel_metres(self) -> tuple[float, float]:
        """Width and height of the pixel in the middle of the raster on the ground, metres."""
        h, w = self.shape
        points = [self.place(*p) for p in ((w / 2, h / 2), (w / 2 + 1, h / 2), (w / 2, h / 2 + 1))]
        lon, lat = transformer(self.crs, WGS84).transform([p[0] for p in points], [p[1] for p in points])
        if not np.isfinite([*lon, *lat]).all():
            raise InputError(f"{self.name} lies where its CRS {short_name(self.crs)} is not defined",
                             "check the CRS of the file, or give it anew with gdal_edit -a_srs")  # fmt: skip
        geod = pyproj.Geod(ellps="WGS84")
        _, _, sizes = geod.inv(lon[:1] * 2, lat[:1] * 2, lon[1:], lat[1:])
        return float(sizes[0]), float(sizes[1])

    @functools.cached_property
    def period(self) -> float | None:
        """Columns after which a raster in longitudes repeats, None for other rasters."""
        a, b, _, d, _, _ = self.transform[:6]
        if not self.crs.is_geographic or b != 0 or d != 0:
            return None
        return float(2 * math.pi / (self.crs.axis_info[0].unit_conversion_factor * abs(a)))


# ---- opening ----------------------------------------------------------------------------------------------


def open_raster(source: str | Path | xr.DataArray | RasterSource, *, assume_crs: str | None = None) -> RasterSource:
    """Read the metadata of a raster file, or of a DataArray with a CRS (see rioxarray).

    `assume_crs` is the CRS of a raster that carries none; one that it carries wins.

    Raises
    ------
    MissingFileError
        if the path does not exist
    MissingCrsError
        if there is no CRS
    InputError
        if it is no raster, has no bands, or has no position
    """
    if isinstance(source, RasterSource):
        return source
    if isinstance(source, xr.DataArray):
        return _describe_array(source, assume_crs)
    path = str(source)
    local = "://" not in path and not path.startswith("/vsi") and ":" not in path[2:]
    if local and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    with _unplaced_ignored(), opened(path) as dataset:
        if dataset.count == 0:
            parts = ", ".join(dataset.subdatasets[:5]) or "it has none"
            raise InputError(f"{path} holds no raster bands itself", f"name one of its parts: {parts}")
        if dataset.transform == Affine.identity():
            located = ", only ground control points or RPCs" if dataset.gcps[0] or dataset.rpcs else ""
            raise InputError(
                f"{path} has no geotransform{located}",
                "georeference it first, with gdalwarp or a world file beside it",
            )
        crs, vertical = _parse_crs(path, dataset.crs, assume_crs)
        return RasterSource(
            name=path, path=path, array=None, crs=crs, vertical=vertical,
            transform=_checked(path, dataset.transform), shape=(dataset.height, dataset.width),
            dtypes=tuple(dataset.dtypes), nodata=tuple(dataset.nodatavals),
            units=tuple(unit or "" for unit in dataset.units),
            descriptions=tuple(text or "" for text in dataset.descriptions),
            colorinterp=tuple(each.name for each in dataset.colorinterp),
            scales=tuple(dataset.scales), offsets=tuple(dataset.offsets),
            overviews=tuple(dataset.overviews(1)),
        )  # fmt: skip


def _describe_array(array: xr.DataArray, assume_crs: str | None) -> RasterSource:
    import rioxarray  # registers the .rio accessor

    name = f"DataArray {array.name!r}" if array.name is not None else "DataArray"
    try:
        array = array.transpose(..., array.rio.y_dim, array.rio.x_dim)
        transform = array.rio.transform(recalc=True)
    except (rioxarray.exceptions.RioXarrayError, ValueError) as error:
        raise InputError(f"{name} is no raster: {error}", "give it dimensions y and x with coordinates") from error
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"{name} has dimensions {array.dims}", "give it y and x, and bands before them if any")
    if transform == Affine.identity():
        raise InputError(f"{name} has no geotransform", "give it x and y coordinates in its CRS")
    if array.ndim == 2:
        array = array.expand_dims("band")
    crs, vertical = _parse_crs(name, array.rio.crs, assume_crs)
    bands = array.shape[0]
    nodata = array.rio.nodata if array.rio.nodata is not None else array.rio.encoded_nodata
    names = array.attrs.get("long_name", "")
    texts = tuple(map(str, names)) if isinstance(names, (tuple, list)) else (str(names),) * bands
    return RasterSource(
        name=name, path="", array=array, crs=crs, vertical=vertical, transform=_checked(name, transform),
        shape=(array.shape[1], array.shape[2]), dtypes=(str(array.dtype),) * bands,
        nodata=(None if nodata is None else float(nodata),) * bands,
        units=(str(array.attrs.get("units", "")),) * bands, descriptions=texts,
        colorinterp=("undefined",) * bands, scales=(float(array.attrs.get("scale_factor", 1.0)),) * bands,
        offsets=(float(array.attrs.get("add_offset", 0.0)),) * bands, overviews=(),
    )  # fmt: skip


@contextlib.contextmanager
def _unplaced_ignored() -> Iterator[None]:
    """Silence rasterio about files without a position: `open_raster` raises an error instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def opened(path: str, level: int | None = None) -> Iterator[Any]:
    """An open rasterio dataset; GDAL's errors become ours.

    `level` is an overview level (0 is the finest), or `BASE_ONLY` to keep GDAL from using overviews by
    itself.
    """
    options: dict[str, Any] = {}
    if level is not None:
        options = {"OVERVIEW_LEVEL": "NONE"} if level == BASE_ONLY else {"overview_level": level}
    try:
        with rasterio.open(path, **options) as dataset:
            yield dataset
    except rasterio.errors.RasterioIOError as error:
        raise InputError(
            f"{path} cannot be read as a raster: {error}",
            "check with gdalinfo that it is whole and of a format GDAL knows",
        ) from error


def _parse_crs(name: str, crs: Any, assume_crs: str | None) -> tuple[pyproj.CRS, pyproj.CRS | None]:
    """(horizontal, vertical) from what the raster carries, or from what is assumed."""
    if not crs and assume_crs is None:
        raise MissingCrsError(f"{name} has no CRS", "name it with --assume-crs, for example EPSG:4326")
    try:
        if crs:
            parsed = pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))
        else:
            parsed = pyproj.CRS.from_user_input(assume_crs)
    except pyproj.exceptions.CRSError as error:
        raise MissingCrsError(f"the CRS {str(crs or assume_crs)!r} of {name} is not understood",
                              "name it with an EPSG code such as EPSG:32632") from error  # fmt: skip
    vertical = None
    if parsed.is_compound:
        parsed, vertical = parsed.sub_crs_list[0], _identified(parsed.sub_crs_list[1])
    elif len(parsed.axis_info) == 3:
        vertical, parsed = parsed, parsed.to_2d()
    base = parsed.source_crs if parsed.is_bound else parsed
    if base is None or not (base.is_geographic or base.is_projected):
        raise MissingCrsError(
            f"the CRS {parsed.name!r} of {name} is local: nothing says where on Earth it lies",
            "write its real CRS into the file with gdal_edit -a_srs",
        )
    return parsed, vertical


def _identified(vertical: pyproj.CRS) -> pyproj.CRS:
    """The EPSG vertical CRS of the same name, where GDAL gives one that has lost its code.

    GDAL 3.10 reads the vertical part of GeoTIFFs that were written with a compound code (EPSG:7415, 7405)
    with the right name and a wrong datum.
    """
    if vertical.to_authority(min_confidence=70) is None:
        for match in vertical.list_authority(min_confidence=0):
            known = pyproj.CRS.from_authority(match.auth_name, match.code)
            if known.name == vertical.name:
                return known
    return vertical


def _checked(name: str, transform: Affine) -> Affine:
    if not np.isfinite(transform[:6]).all() or transform.determinant == 0:
        raise InputError(f"{name} has an unusable geotransform {tuple(transform[:6])}", "georeference it anew")
    return Affine(*transform[:6])


@functools.lru_cache(maxsize=64)
def transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    """x (east or longitude) first, whatever the axis order of the two CRSs."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


# ---- places -----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def parsed_crs(crs: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(crs)


def positions(source: RasterSource, window: Frame) -> tuple[NDArray, NDArray]:
    """Where the voxel centres of a window lie on the source's pixel lattice.

    Returns
    -------
    (columns, rows) : (ny, nx) float64 each, 0 at the outer edge of the first pixel; NaN where a place cannot
        be projected. Columns of rasters in longitudes are unwrapped: they do not jump within the window.
    """
    step, s = NODE_STEP, window.voxel_size
    i = np.arange(*window.x)
    j = np.arange(*window.y)[::-1]
    target = parsed_crs(window.crs)
    if source.crs.equals(target, ignore_axis_order=True):
        x, y = np.meshgrid((i + 0.5) * s, (j + 0.5) * s)
        return _to_lattice(source, x, y)

    project = functools.partial(_project, source, target, _middle(source, target, window))
    node_i = np.arange(window.x[0] // step, -(-window.x[1] // step) + 1) * step
    node_j = np.arange(window.y[0] // step, -(-window.y[1] // step) + 1) * step
    nodes = np.stack(project(*np.meshgrid(node_i * s, node_j * s)))
    middles = np.stack(project(*np.meshgrid((node_i[:-1] + step / 2) * s, (node_j[:-1] + step / 2) * s)))
    means = (nodes[:, :-1, :-1] + nodes[:, 1:, :-1] + nodes[:, :-1, 1:] + nodes[:, 1:, 1:]) / 4
    tolerance = NODE_TOLERANCE * max(1.0, s / min(source.pixel_metres))
    curved = ~(np.abs(means - middles) <= tolerance).all(axis=0)  # NaN counts as curved

    # Interpolate along rows, then along columns: each cell between nodes depends on its own corners alone.
    cell_i, cell_j = i // step - node_i[0] // step, j // step - node_j[0] // step
    t_i, t_j = ((i % step) + 0.5) / step, (((j % step) + 0.5) / step)[:, None]
    rows = nodes[:, cell_j] * (1 - t_j) + nodes[:, cell_j + 1] * t_j
    place = rows[:, :, cell_i] * (1 - t_i) + rows[:, :, cell_i + 1] * t_i
    exact = curved[cell_j[:, None], cell_i[None, :]]
    if exact.any():
        row, column = np.nonzero(exact)
        place[:, row, column] = project((i[column] + 0.5) * s, (j[row] + 0.5) * s)
    return place[0], place[1]


def _to_lattice(source: RasterSource, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    a, b, c, d, e, f = (~source.transform)[:6]
    if b == 0 and d == 0:  # subtract first: keeps whole pixels whole
        return (x - source.transform.c) * a, (y - source.transform.f) * e
    return a * x + b * y + c, d * x + e * y + f


def _middle(source: RasterSource, target: pyproj.CRS, window: Frame) -> float:
    """The column, near the raster's own, that the columns of a window are unwrapped around."""
    if source.period is None:
        return math.nan
    left, bottom, right, top = window.bounds
    centre = np.array([(left + right) / 2]), np.array([(bottom + top) / 2])
    column = _project(source, target, source.shape[1] / 2, *centre)[0][0]
    return float(column) if np.isfinite(column) else source.shape[1] / 2


def _project(
    source: RasterSource, target: pyproj.CRS, middle: float, x: NDArray, y: NDArray
) -> tuple[NDArray, NDArray]:
    """Lattice positions of places in the frame's CRS; columns unwrapped to within half a turn of `middle`."""
    x, y = transformer(target, source.crs).transform(x, y, errcheck=False)
    bad = ~(np.isfinite(x) & np.isfinite(y))
    with np.errstate(invalid="ignore"):
        column, row = _to_lattice(source, x, y)
        if source.period is not None:
            column = column - source.period * np.round((column - middle) / source.period)
    column[bad] = row[bad] = np.nan
    return column, row


def covered(source: RasterSource, window: Frame) -> NDArray:
    """(ny, nx) bool: voxel centres inside the raster, whether it holds data there or not."""
    return _inside(source, *positions(source, window))


def _inside(source: RasterSource, column: NDArray, row: NDArray) -> NDArray:
    height, width = source.shape
    if source.period is not None and width < source.period:
        column = np.mod(column, source.period)
    elif source.period is not None:
        column = np.zeros_like(column)  # a whole turn covers every longitude
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.asarray(inside)


def overlaps(source: RasterSource, frame: Frame) -> bool:
    """True if a frame and a raster may have a place in common (by the extent of either on the other)."""
    coarse = frame.coarsen(max(1, math.ceil(max(frame.shape) / 64))).pad(1)
    column, row = positions(source, coarse)
    good = np.isfinite(column) & np.isfinite(row)
    if not good.any():
        return False
    column, row = column[good], row[good]
    height, width = source.shape
    turns = [0.0] if source.period is None else [-source.period, 0.0, source.period]
    return bool(row.min() < height and row.max() > 0
                and any(column.min() + t < width and column.max() + t > 0 for t in turns))  # fmt: skip


# ---- pixels -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """The lattice that is sampled: a raster or one of its overviews, reduced by whole factors.

    Cell (r, c) is the mean of `factor` x `factor` pixels, every `stride`-th of the level being read.
    """

    level: int | None
    size: tuple[int, int]
    """(rows, columns) of the level in pixels."""
    stride: int
    factor: int
    scale: tuple[float, float]
    """Source pixels in a cell, along rows and along columns."""

    @property
    def cell(self) -> int:
        """Pixels of the level along a cell."""
        return self.stride * self.factor

    @property
    def shape(self) -> tuple[int, int]:
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)


def grid_for(source: RasterSource, voxel_size: float, *, average: bool = True) -> Grid:
    """The lattice to sample for voxels of a size in metres: depends on nothing else, so that windows agree.

    With `average` a cell is about as large as a voxel, and never smaller than a pixel. Without, pixels are
    picked, eight or more a voxel.
    """
    ratio = voxel_size / math.sqrt(source.pixel_metres[0] * source.pixel_metres[1])
    if not average:
        # Overviews of classes may hold means of codes, so they are not used. GDAL before 3.9 cannot be told
        # so.
        if source.overviews and not GDALVersion.runtime().at_least("3.9"):
            return _grid(source, None, 1, 1)
        return _grid(source, BASE_ONLY if source.overviews else None, max(1, int(ratio / 8)), 1)
    # The coarsest overview that leaves at least two of its pixels a voxel: how overviews were made is
    # unknown.
    level = max((n for n, f in enumerate(source.overviews) if 2 * f <= ratio), default=None)
    rest = max(1, int(ratio / (source.overviews[level] if level is not None else 1) + 0.5))
    stride = max(1, rest // SAMPLES)
    return _grid(source, level, stride, rest // stride)


def coarse_grid(source: RasterSource, cells: int, *, sparse_cells: int, sparse_pixels: int) -> Grid:
    """A lattice of about `cells` cells along the longer side of a whole raster, each a mean.

    A raster of more than `sparse_pixels` without overviews would have to be read whole for that: there,
    single pixels are picked, `sparse_cells` along the longer side.
    """
    longest = max(source.shape)
    level = max((n for n, f in enumerate(source.overviews) if longest >= f * cells), default=None)
    if level is None and source.shape[0] * source.shape[1] > sparse_pixels:
        return sparse_grid(source, sparse_cells)
    rest = max(1, math.ceil(longest / cells / (source.overviews[level] if level is not None else 1)))
    stride = max(1, rest // SAMPLES)
    return _grid(source, level, stride, rest // stride)


def sparse_grid(source: RasterSource, cells: int) -> Grid:
    """A lattice of single pixels as they are stored, about `cells` along the longer side of a whole raster."""
    return _grid(source, BASE_ONLY if source.overviews else None, -(-max(source.shape) // cells), 1)


def _grid(source: RasterSource, level: int | None, stride: int, factor: int) -> Grid:
    height, width = source.shape
    size = (height, width)
    if level is not None and level != BASE_ONLY:
        with opened(source.path, level) as dataset:
            size = (dataset.height, dataset.width)
    cell = stride * factor
    return Grid(level, size, stride, factor, (cell * height / size[0], cell * width / size[1]))


def read_grid(
    source: RasterSource, grid: Grid, rows: Range, columns: Range, *, bands: Sequence[int] = (1,),
    decode: Decode | None = None, masked: bool = True,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Cells of a lattice, also beyond the raster.

    Returns
    -------
    (values (bands, h, w), valid (h, w) bool) : the mean of the valid pixels of each cell, float32; the pixels
        as they are (decoded) where cells are single pixels. 0 where not valid: outside the raster, or nodata.
    """
    height, width = grid.shape
    shape = (rows[1] - rows[0], columns[1] - columns[0])
    values: NDArray | None = None
    valid = np.zeros(shape, bool)
    r0, r1 = max(rows[0], 0), min(rows[1], height)
    turn = width if source.period is None else round(source.period / grid.scale[1])
    turns = range(columns[0] // turn, -(-columns[1] // turn)) if source.period is not None else range(1)
    with _handle(source, grid.level) as handle:
        for k in turns:
            c0, c1 = max(columns[0] - k * turn, 0), min(columns[1] - k * turn, width, turn)
            if r0 >= r1 or c0 >= c1:
                continue
            block, good = _read_cells(source, handle, grid, (r0, r1), (c0, c1), bands, decode, masked)
            if values is None:
                values = np.zeros((block.shape[0], *shape), block.dtype)
            row = slice(r0 - rows[0], r1 - rows[0])
            column = slice(c0 + k * turn - columns[0], c1 + k * turn - columns[0])
            values[:, row, column] = block
            valid[row, column] = good
    if values is None:  # nothing to read: one pixel tells how many bands decode makes of these, and their dtype
        one, _ = _decoded(np.zeros((len(bands), 1, 1), source.dtypes[bands[0] - 1]), np.zeros((1, 1), bool), decode)
        values = np.zeros((one.shape[0], *shape), one.dtype if grid.factor == 1 else np.float32)
    return values, valid


def _read_cells(
    source: RasterSource, handle: Any, grid: Grid, rows: Range, columns: Range, bands: Sequence[int],
    decode: Decode | None, masked: bool,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Cells that lie within the raster, strip by strip so that memory is bounded."""
    if grid.factor == 1:
        pixels, good = _read_pixels(source, handle, grid, rows, columns, bands, decode, masked)
        # A part of a stride at the far edge has no pixel of its own.
        missing = (0, rows[1] - rows[0] - good.shape[0]), (0, columns[1] - columns[0] - good.shape[1])
        return np.pad(pixels, ((0, 0), *missing)), np.pad(good, missing)
    wide = (columns[1] - columns[0]) * grid.factor
    strip = max(1, STRIP_PIXELS // (wide * grid.factor * len(bands)))
    values, valid = [], []
    for start in range(rows[0], rows[1], strip):
        part = (start, min(start + strip, rows[1]))
        pixels, good = _read_pixels(source, handle, grid, part, columns, bands, decode, masked)
        mean, some = block_mean(pixels, good, part[1] - part[0], columns[1] - columns[0], grid.factor)
        values.append(mean)
        valid.append(some)
    return np.concatenate(values, axis=1), np.concatenate(valid, axis=0)


def block_mean(pixels: NDArray, good: NDArray, h: int, w: int, factor: int) -> tuple[NDArray, NDArray]:
    """Mean of the good pixels of each block; the last blocks may be cut short by the raster's edge.

    Added pixel by pixel in one order, so that a mean does not depend on the shape of what was read.
    """
    total = np.zeros((pixels.shape[0], h, w), np.float64)
    count = np.zeros((h, w), np.int32)
    for r in range(factor):
        for c in range(factor):
            part, ok = pixels[:, r::factor, c::factor], good[r::factor, c::factor]
            n, m = ok.shape
            total[:, :n, :m] += np.where(ok, part, 0)
            count[:n, :m] += ok
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0


def _read_pixels(
    source: RasterSource, handle: Any, grid: Grid, rows: Range, columns: Range, bands: Sequence[int],
    decode: Decode | None, masked: bool,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Every `stride`-th pixel of the level under cells, decoded. Cells at the far edges may be cut short."""
    s = grid.stride
    top, left = rows[0] * grid.cell, columns[0] * grid.cell
    h = min(rows[1] * grid.cell, grid.size[0]) - top
    w = min(columns[1] * grid.cell, grid.size[1]) - left
    if s > 1:  # whole strides only: GDAL then picks the same pixel of each, whatever the window
        h, w = max(h // s, 1) * s, max(w // s, 1) * s
        h, w = min(h, grid.size[0] - top), min(w, grid.size[1] - left)
    shape = (max(h // s, 1), max(w // s, 1))
    if isinstance(handle, xr.DataArray):
        row = slice(top + min(s, h) // 2, top + h, s)  # the pixels that GDAL picks, too
        column = slice(left + min(s, w) // 2, left + w, s)
        pixels = np.asarray(handle[[band - 1 for band in bands], row, column].values)
        valid = _array_mask(source, pixels, bands) if masked else np.ones(shape, bool)
    else:
        window = Window(left, top, w, h)
        pixels = handle.read(list(bands), window=window, out_shape=(len(bands), *shape))
        if masked:
            masks = handle.read_masks(list(bands), window=window, out_shape=(len(bands), *shape))
            valid = (masks > 127).any(axis=0)
        else:
            valid = np.ones(shape, bool)
    if pixels.dtype.kind == "f":
        valid = valid & np.isfinite(pixels).all(axis=0)
    return _decoded(pixels, valid, decode)


def _decoded(pixels: NDArray, valid: NDArray, decode: Decode | None) -> tuple[NDArray, NDArray]:
    values, valid = decode(pixels, valid) if decode else (pixels, valid)
    return np.where(valid, values, values.dtype.type(0)), valid


def _array_mask(source: RasterSource, pixels: NDArray, bands: Sequence[int]) -> NDArray:
    """As GDAL: a pixel is nodata if all its bands are."""
    valid = np.zeros(pixels.shape[1:], bool)
    for values, band in zip(pixels, bands, strict=True):
        nodata = source.nodata[band - 1]
        valid |= values != nodata if nodata is not None and np.isfinite(nodata) else True
    return valid


@contextlib.contextmanager
def _handle(source: RasterSource, level: int | None) -> Iterator[Any]:
    if source.array is not None:
        yield source.array
        return
    with opened(source.path, level) as dataset:
        yield dataset


# ---- sampling ---------------------------------------------------------------------------------------------


def cells_around(
    source: RasterSource, grid: Grid, column: NDArray, row: NDArray, *, reach: int
) -> tuple[NDArray, NDArray, Range, Range]:
    """Positions in cells of a grid (cell centres at whole numbers), and the ranges of cells that are needed.

    Positions farther than `reach` cells outside the raster are moved to that distance: nothing is
    read there. The ranges reach `KERNEL_PAD` beyond the positions.

    Raises
    ------
    RegionError
        if the window wraps around the source's CRS, so that most of the source would have to be read
    """
    height, width = source.shape
    far = reach * max(grid.scale)
    wrap = 0.0 if source.period is None else source.period
    c, r = _known(column), _known(row)
    c = np.clip(c, -far - wrap, width + far + wrap) / grid.scale[1] - 0.5
    r = np.clip(r, -far, height + far) / grid.scale[0] - 0.5
    rows = (math.floor(r.min()) - KERNEL_PAD, math.ceil(r.max()) + KERNEL_PAD + 1)
    columns = (math.floor(c.min()) - KERNEL_PAD, math.ceil(c.max()) + KERNEL_PAD + 1)
    cells = (rows[1] - rows[0]) * (columns[1] - columns[0])
    if cells > 256 * column.size and cells * grid.factor**2 > WINDOW_PIXELS:
        raise RegionError(f"the region wraps around {source.name} in its CRS {short_name(source.crs)}",
                          "reproject the file to the CRS of the region, with gdalwarp -t_srs")  # fmt: skip
    return c, r, rows, columns


def _known(positions: NDArray) -> NDArray:
    """Positions with the least known one, or one outside, for those that are not known."""
    known = positions[np.isfinite(positions)]
    return np.where(np.isfinite(positions), positions, known.min() if known.size else -math.inf)


def sample(values: NDArray, column: NDArray, row: NDArray, order: int) -> NDArray:
    """Kernel-weighted means at positions in an array (h, w): order 1 linear, 3 the cubic B-spline; float32.

    The B-spline is used as a smoothing kernel (no prefilter), which never overshoots: GDAL's "cubicspline".
    """
    out = ndimage.map_coordinates(
        values, np.stack([row, column]), order=order, prefilter=False, mode="nearest", output=np.float64
    )
    return np.asarray(out, np.float32)


def pick(values: NDArray, column: NDArray, row: NDArray) -> NDArray:
    """The cell (h, w) that each position lies in; a position on an edge belongs to the cell after it."""
    r = np.floor(row + 0.5 + 1e-6).astype(np.intp).clip(0, values.shape[-2] - 1)
    c = np.floor(column + 0.5 + 1e-6).astype(np.intp).clip(0, values.shape[-1] - 1)
    return np.asarray(values[..., r, c])


def read_on(
    source: RasterSource, window: Frame, *, bands: Sequence[int] = (1,), resampling: str = "average",
    masked: bool = True, decode: Decode | None = None,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """A raster's bands on a window. Depends on the source and the place alone, not on the window.

    Parameters
    ----------
    bands : numbers from 1
    resampling : "average" (= "bilinear") and "cubic_spline" average a source finer than the voxels first and
        give float32; "nearest" and "mode" (the value of most of a voxel, the smallest of equals) keep values
        and dtype
    masked : leave out nodata, masked and transparent pixels
    decode : what to make of the pixels before they are resampled, for example colours of a palette

    Returns
    -------
    (values (bands, ny, nx), valid (ny, nx) bool) : 0 where not valid. A voxel is valid if at least half of
        the kernel's weight is on valid pixels inside the raster.

    Raises
    ------
    InputError
        if the file cannot be read, or has no such band
    RegionError
        if the window wraps around the source's CRS
    """
    if resampling not in KERNELS:
        raise InputError(f"resampling {resampling!r} is not known", f"choose one of {', '.join(KERNELS)}")
    if not bands or min(bands) < 1 or max(bands) > source.count:
        raise InputError(f"{source.name} has no band {list(bands)}", f"it has {source.count}, counted from 1")
    if resampling == "mode":
        return _mode(source, window, bands, masked, decode)
    order = KERNELS[resampling]
    grid = grid_for(source, window.voxel_size, average=order > 0)
    column, row, rows, columns = cells_around(source, grid, *positions(source, window), reach=KERNEL_PAD)
    values, valid = read_grid(source, grid, rows, columns, bands=bands, decode=decode, masked=masked)
    column, row = column - columns[0], row - rows[0]
    if order == 0:
        chosen, good = pick(values, column, row), pick(valid, column, row)
        return np.where(good, chosen, chosen.dtype.type(0)), good
    weight = sample(valid.astype(np.float32), column, row, order)
    good = weight >= 0.5 - 1e-6
    out = np.zeros((values.shape[0], *window.shape), np.float32)
    for band, cells in enumerate(values):
        # Cells that are not valid hold 0, so the weighted sum is over valid ones alone.
        np.divide(sample(cells.astype(np.float32), column, row, order), weight, out=out[band], where=good)
    return out, good


def _mode(
    source: RasterSource, window: Frame, bands: Sequence[int], masked: bool, decode: Decode | None
) -> tuple[NDArray, NDArray]:
    """The most frequent value among points spread evenly over each voxel; nodata has a vote too."""
    ratio = window.voxel_size / min(source.pixel_metres)
    k = min(max(1, math.ceil(ratio - 0.25)), 5)
    if k == 1:
        return read_on(source, window, bands=bands, resampling="nearest", masked=masked, decode=decode)
    fine = Frame(window.crs, window.voxel_size / k, (window.x[0] * k, window.x[1] * k),
                 (window.y[0] * k, window.y[1] * k), window.z)  # fmt: skip
    values, valid = read_on(source, fine, bands=bands, resampling="nearest", masked=masked, decode=decode)
    ny, nx = window.shape
    votes = np.where(valid, values.astype(np.float64), np.nan).reshape(-1, ny, k, nx, k)
    votes = np.sort(votes.transpose(0, 1, 3, 2, 4).reshape(-1, ny, nx, k * k), axis=-1)
    best = votes[..., 0].copy()
    best_run, run = np.ones(best.shape, np.int16), np.ones(best.shape, np.int16)
    for n in range(1, k * k):
        same = (votes[..., n] == votes[..., n - 1]) | (np.isnan(votes[..., n]) & np.isnan(votes[..., n - 1]))
        run = np.where(same, run + 1, 1)
        longer = run > best_run
        best, best_run = np.where(longer, votes[..., n], best), np.where(longer, run, best_run)
    good = ~np.isnan(best[0])
    return np.nan_to_num(best).astype(values.dtype), good
