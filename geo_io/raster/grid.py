"""Cells of a raster: pixels of the raster or of an overview, averaged in blocks.

Blocks count from the corner of the raster, so that all windows see the same cells.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.env import GDALVersion
from rasterio.windows import Window

from geo_io.frame import Range
from geo_io.raster.source import BASE_ONLY, RasterSource, open_dataset

SAMPLES = 8
"""Least number of pixels along each axis of a voxel that a block average uses, if there are as
many."""

STRIP_PIXELS = 4_000_000
"""Pixels that are read at a time when blocks are averaged; limits the memory of a read."""

Decode = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
"""Function of stored pixels (bands, h, w) and their mask (h, w) bool, applied before resampling.
It returns values and mask."""


@dataclass(frozen=True)
class Grid:
    """The lattice of cells that is sampled: a raster or one of its overviews, reduced.

    Attributes
    ----------
    level : int or None
        Overview level to read (see `open_dataset`).
    size : (int, int)
        Rows and columns of the level in pixels.
    stride : int
        Every `stride`-th pixel of the level is read.
    factor : int
        A cell is the mean of `factor` x `factor` of these pixels.
    scale : (float, float)
        Source pixels of a cell along rows and along columns.
    """

    level: int | None
    size: tuple[int, int]
    stride: int
    factor: int
    scale: tuple[float, float]

    @property
    def cell(self) -> int:
        """Pixels of the level along each edge of a cell."""
        return self.stride * self.factor

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)


def grid_for(source: RasterSource, voxel_size: float, *, average: bool = True) -> Grid:
    """Choose the lattice to sample for voxels of a size in metres.

    It depends on the source and this size alone, so that all windows agree. With `average`, a cell
    is about as large as a voxel and never smaller than a pixel. Without, single pixels are picked,
    at least eight along each edge of a voxel if there are as many.
    """
    ratio = voxel_size / math.sqrt(source.pixel_metres[0] * source.pixel_metres[1])
    if not average:
        # Overviews of classes may hold means of codes, so they are not used. GDAL before 3.9 has no
        # option for that.
        if source.overviews and not GDALVersion.runtime().at_least("3.9"):
            return _grid(source, None, 1, 1)
        return _grid(source, BASE_ONLY if source.overviews else None, max(1, int(ratio / 8)), 1)
    # The coarsest overview with at least two pixels along a voxel: how overviews were made is
    # unknown.
    level = max((n for n, f in enumerate(source.overviews) if 2 * f <= ratio), default=None)
    rest = max(1, int(ratio / (source.overviews[level] if level is not None else 1) + 0.5))
    stride = max(1, rest // SAMPLES)
    return _grid(source, level, stride, rest // stride)


def coarse_grid(source: RasterSource, cells: int, *, sparse_cells: int, sparse_pixels: int) -> Grid:
    """Make a lattice with about `cells` cells along the longer side of a raster, each a mean.

    Means need the whole raster to be read if it has no overviews. If it has more than
    `sparse_pixels`, single pixels are picked instead, about `sparse_cells` along the longer side.
    """
    longest = max(source.shape)
    level = max((n for n, f in enumerate(source.overviews) if longest >= f * cells), default=None)
    if level is None and source.shape[0] * source.shape[1] > sparse_pixels:
        return sparse_grid(source, sparse_cells)
    rest = max(
        1, math.ceil(longest / cells / (source.overviews[level] if level is not None else 1))
    )
    stride = max(1, rest // SAMPLES)
    return _grid(source, level, stride, rest // stride)


def sparse_grid(source: RasterSource, cells: int) -> Grid:
    """Make a lattice of single stored pixels, about `cells` along the longer side of a raster."""
    return _grid(source, BASE_ONLY if source.overviews else None, -(-max(source.shape) // cells), 1)


def _grid(source: RasterSource, level: int | None, stride: int, factor: int) -> Grid:
    height, width = source.shape
    size = (height, width)
    if level is None and source.base_only:
        level = BASE_ONLY
    if level is not None and level != BASE_ONLY:
        with open_dataset(source.path, level) as dataset:
            size = (dataset.height, dataset.width)
    cell = stride * factor
    return Grid(level, size, stride, factor, (cell * height / size[0], cell * width / size[1]))


def read_grid(
    source: RasterSource,
    grid: Grid,
    rows: Range,
    columns: Range,
    *,
    bands: Sequence[int] = (1,),
    decode: Decode | None = None,
    masked: bool = True,
) -> tuple[NDArray, NDArray]:
    """Read cells of a lattice, also beyond the raster.

    Parameters
    ----------
    source : RasterSource
        The raster.
    grid : Grid
        The lattice.
    rows, columns : (int, int)
        Half-open ranges of cells; h and w cells.
    bands : sequence of int
        Band numbers, counted from 1.
    decode : callable, optional
        Applied to the pixels before they are averaged (see `Decode`).
    masked : bool
        Leave out nodata, masked and transparent pixels.

    Returns
    -------
    values : NDArray (bands, h, w)
        Mean of the valid pixels of each cell, float32; the decoded pixel where a cell is a single
        pixel. 0 where not valid.
    valid : NDArray (h, w) bool
        False outside the raster and where it has no data.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    height, width = grid.shape
    shape = (rows[1] - rows[0], columns[1] - columns[0])
    values: NDArray | None = None
    valid = np.zeros(shape, bool)
    r0, r1 = max(rows[0], 0), min(rows[1], height)
    turn = width if source.period is None else round(source.period / grid.scale[1])
    turns = (
        range(columns[0] // turn, -(-columns[1] // turn)) if source.period is not None else range(1)
    )
    with _handle(source, grid.level) as handle:
        for k in turns:
            c0, c1 = max(columns[0] - k * turn, 0), min(columns[1] - k * turn, width, turn)
            if r0 >= r1 or c0 >= c1:
                continue
            block, block_valid = _read_cells(
                source, handle, grid, (r0, r1), (c0, c1), bands, decode, masked
            )
            if values is None:
                values = np.zeros((block.shape[0], *shape), block.dtype)
            row = slice(r0 - rows[0], r1 - rows[0])
            column = slice(c0 + k * turn - columns[0], c1 + k * turn - columns[0])
            values[:, row, column] = block
            valid[row, column] = block_valid
    if values is None:  # Nothing to read: one pixel shows bands and dtype of what `decode` returns.
        one, _ = _decoded(
            np.zeros((len(bands), 1, 1), source.dtypes[bands[0] - 1]),
            np.zeros((1, 1), bool),
            decode,
        )
        values = np.zeros((one.shape[0], *shape), one.dtype if grid.factor == 1 else np.float32)
    return values, valid


def _read_cells(
    source: RasterSource,
    handle: Any,
    grid: Grid,
    rows: Range,
    columns: Range,
    bands: Sequence[int],
    decode: Decode | None,
    masked: bool,
) -> tuple[NDArray, NDArray]:
    """Read cells within the raster, strip by strip so that memory is bounded."""
    if grid.factor == 1:
        pixels, good = _read_pixels(source, handle, grid, rows, columns, bands, decode, masked)
        # A part of a stride at the far edge has no pixel of its own.
        missing = (
            (0, rows[1] - rows[0] - good.shape[0]),
            (0, columns[1] - columns[0] - good.shape[1]),
        )
        return np.pad(pixels, ((0, 0), *missing)), np.pad(good, missing)
    wide = (columns[1] - columns[0]) * grid.factor
    strip = max(1, STRIP_PIXELS // (wide * grid.factor * len(bands)))
    values, valid = [], []
    for start in range(rows[0], rows[1], strip):
        part = (start, min(start + strip, rows[1]))
        pixels, good = _read_pixels(source, handle, grid, part, columns, bands, decode, masked)
        mean, some = block_mean(
            pixels, good, part[1] - part[0], columns[1] - columns[0], grid.factor
        )
        values.append(mean)
        valid.append(some)
    return np.concatenate(values, axis=1), np.concatenate(valid, axis=0)


def block_mean(
    pixels: NDArray, good: NDArray, h: int, w: int, factor: int
) -> tuple[NDArray, NDArray]:
    """Average the good pixels of each block; blocks at the raster's edge may have fewer pixels.

    Pixels are added in a fixed order, so that a mean does not depend on the shape of the window.

    Parameters
    ----------
    pixels : NDArray (bands, rows, columns)
        Pixel values.
    good : NDArray (rows, columns) bool
        Pixels to average.
    h, w : int
        Rows and columns of blocks.
    factor : int
        Pixels along each edge of a block.

    Returns
    -------
    mean : NDArray (bands, h, w) float32
        0 for blocks without a good pixel.
    valid : NDArray (h, w) bool
        Blocks with a good pixel.
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
    source: RasterSource,
    handle: Any,
    grid: Grid,
    rows: Range,
    columns: Range,
    bands: Sequence[int],
    decode: Decode | None,
    masked: bool,
) -> tuple[NDArray, NDArray]:
    """Read every `stride`-th pixel under cells, decoded; cells at the far edges may have fewer."""
    s = grid.stride
    top, left = rows[0] * grid.cell, columns[0] * grid.cell
    h = min(rows[1] * grid.cell, grid.size[0]) - top
    w = min(columns[1] * grid.cell, grid.size[1]) - left
    if s > 1:  # With whole strides GDAL picks the same pixel of each in every window.
        h, w = max(h // s, 1) * s, max(w // s, 1) * s
        h, w = min(h, grid.size[0] - top), min(w, grid.size[1] - left)
    shape = (max(h // s, 1), max(w // s, 1))
    if isinstance(handle, xr.DataArray):
        row = slice(top + min(s, h) // 2, top + h, s)  # The same pixels as GDAL picks.
        column = slice(left + min(s, w) // 2, left + w, s)
        pixels = np.asarray(handle[[band - 1 for band in bands], row, column].values)
        valid = _array_mask(source, pixels, bands) if masked else np.ones(shape, bool)
    else:
        window = Window(left, top, w, h)
        if s > 1 and source.mosaic:
            pixels, valid = _read_rows(handle, window, s, shape, bands, masked)
            if pixels.dtype.kind == "f":
                valid = valid & np.isfinite(pixels).all(axis=0)
            return _decoded(pixels, valid, decode)
        pixels = handle.read(list(bands), window=window, out_shape=(len(bands), *shape))
        if masked:
            masks = handle.read_masks(list(bands), window=window, out_shape=(len(bands), *shape))
            valid = (masks > 127).any(axis=0)
        else:
            valid = np.ones(shape, bool)
    if pixels.dtype.kind == "f":
        valid = valid & np.isfinite(pixels).all(axis=0)
    return _decoded(pixels, valid, decode)


def _read_rows(
    handle: Any,
    window: Window,
    stride: int,
    shape: tuple[int, int],
    bands: Sequence[int],
    masked: bool,
) -> tuple[NDArray, NDArray]:
    """Read every `stride`-th pixel of every `stride`-th row of a mosaic, and the mask.

    In a mosaic GDAL picks pixels tile by tile, so that the choice would depend on the window.
    """
    at = min(stride, window.height) // 2, min(stride, window.width) // 2
    rows, masks = [], []
    for row in range(shape[0]):
        line = Window(window.col_off, window.row_off + at[0] + row * stride, window.width, 1)
        rows.append(handle.read(list(bands), window=line)[:, :, at[1] :: stride])
        if masked:
            mask = handle.read_masks(list(bands), window=line)[:, :, at[1] :: stride]
            masks.append((mask > 127).any(axis=0))
    pixels = np.concatenate(rows, axis=1)[:, :, : shape[1]]
    valid = np.concatenate(masks)[:, : shape[1]] if masked else np.ones(shape, bool)
    return pixels, valid


def _decoded(pixels: NDArray, valid: NDArray, decode: Decode | None) -> tuple[NDArray, NDArray]:
    values, valid = decode(pixels, valid) if decode else (pixels, valid)
    return np.where(valid, values, values.dtype.type(0)), valid


def _array_mask(source: RasterSource, pixels: NDArray, bands: Sequence[int]) -> NDArray:
    """Mask nodata as GDAL does: a pixel is nodata if all its bands are."""
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
    with open_dataset(source.path, level) as dataset:
        yield dataset
