"""Cells of a raster: its pixels or those of an overview, averaged in whole blocks that windows
agree on."""

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
from geo_io.raster.source import BASE_ONLY, RasterSource, opened

SAMPLES = 8
"""Pixels a block average takes along each axis of a voxel at least, where the source is that
fine."""

STRIP_PIXELS = 4_000_000
"""Pixels that are read at a time when blocks are averaged; bounds the memory of a read."""

Decode = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
"""From (pixels (bands, h, w) as stored, valid (h, w) bool) to (values, valid) before anything is
resampled."""


@dataclass(frozen=True)
class Grid:
    """The lattice that is sampled: a raster or one of its overviews, reduced by whole factors.

    Cell (r, c) is the mean of `factor` x `factor` pixels, every `stride`-th of the level being
    read.
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
    """The lattice to sample for voxels of a size in metres: depends on nothing else, so that
    windows agree.

    With `average` a cell is about as large as a voxel, and never smaller than a pixel. Without,
    pixels are picked, eight or more a voxel.
    """
    ratio = voxel_size / math.sqrt(source.pixel_metres[0] * source.pixel_metres[1])
    if not average:
        # Overviews of classes may hold means of codes, so they are not used. GDAL before 3.9 cannot
        # be told so.
        if source.overviews and not GDALVersion.runtime().at_least("3.9"):
            return _grid(source, None, 1, 1)
        return _grid(source, BASE_ONLY if source.overviews else None, max(1, int(ratio / 8)), 1)
    # The coarsest overview that leaves at least two of its pixels a voxel: how overviews were made
    # is unknown.
    level = max((n for n, f in enumerate(source.overviews) if 2 * f <= ratio), default=None)
    rest = max(1, int(ratio / (source.overviews[level] if level is not None else 1) + 0.5))
    stride = max(1, rest // SAMPLES)
    return _grid(source, level, stride, rest // stride)


def coarse_grid(source: RasterSource, cells: int, *, sparse_cells: int, sparse_pixels: int) -> Grid:
    """A lattice of about `cells` cells along the longer side of a whole raster, each a mean.

    A raster of more than `sparse_pixels` without overviews would have to be read whole for that:
    there, single pixels are picked, `sparse_cells` along the longer side.
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
    """A lattice of single pixels as they are stored, about `cells` along the longer side of a
    whole raster."""
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
    source: RasterSource,
    grid: Grid,
    rows: Range,
    columns: Range,
    *,
    bands: Sequence[int] = (1,),
    decode: Decode | None = None,
    masked: bool = True,
) -> tuple[NDArray, NDArray]:
    """Cells of a lattice, also beyond the raster.

    Returns
    -------
    (values (bands, h, w), valid (h, w) bool) : the mean of the valid pixels of each cell, float32; the pixels
        as they are (decoded) where cells are single pixels. 0 where not valid: outside the raster,
        or nodata.
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
            block, good = _read_cells(
                source, handle, grid, (r0, r1), (c0, c1), bands, decode, masked
            )
            if values is None:
                values = np.zeros((block.shape[0], *shape), block.dtype)
            row = slice(r0 - rows[0], r1 - rows[0])
            column = slice(c0 + k * turn - columns[0], c1 + k * turn - columns[0])
            values[:, row, column] = block
            valid[row, column] = good
    if (
        values is None
    ):  # nothing to read: one pixel tells how many bands decode makes of these, and their dtype
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
    """Cells that lie within the raster, strip by strip so that memory is bounded."""
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
    source: RasterSource,
    handle: Any,
    grid: Grid,
    rows: Range,
    columns: Range,
    bands: Sequence[int],
    decode: Decode | None,
    masked: bool,
) -> tuple[NDArray, NDArray]:
    """Every `stride`-th pixel of the level under cells, decoded. Cells at the far edges may be
    cut short."""
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
