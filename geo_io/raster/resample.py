"""Resampling of rasters of any CRS and resolution onto a frame, window by window.

`read_on` is a pure function of the source and the place: where two windows overlap, their values
are equal to the bit. GDAL's warper does not guarantee that, since its transformer approximates
along the scan lines of a window and its kernel width depends on the size of the window. The steps
are:

1. The centre of each voxel is projected to a position on the source's pixel lattice.
2. A source much finer than the voxels is averaged in blocks of pixels that count from the source's
   corner, from an overview if it has one.
3. The pixels around each position are weighted by a kernel of fixed width: linear, or the cubic
   B-spline.

Only the pixels under the window and the kernel are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geo_io.errors import InputError, RegionError
from geo_io.frame import Frame, Range, short_name
from geo_io.raster.grid import Decode, Grid, grid_for, read_grid
from geo_io.raster.positions import positions
from geo_io.raster.source import RasterSource

KERNELS = {"nearest": 0, "mode": 0, "bilinear": 1, "average": 1, "cubic_spline": 3}
"""Spline order by name of the resampling method. For the last three a source finer than the voxels
is averaged first, so "average" and "bilinear" are the same."""

KERNEL_PAD = 2
"""Pixels beyond a position that a kernel may touch."""

WINDOW_PIXELS = 64_000_000
"""A window that needs more pixels than this, and many more than its area, wraps around the
source."""


def cells_around(
    source: RasterSource, grid: Grid, column: NDArray, row: NDArray, *, reach: int
) -> tuple[NDArray, NDArray, Range, Range]:
    """Convert positions to cells of a grid, and find the ranges of cells to read.

    Parameters
    ----------
    source : RasterSource
        The raster.
    grid : Grid
        The lattice of cells.
    column, row : NDArray (ny, nx) float64
        Positions in pixels, as from `positions`.
    reach : int
        Positions farther than this many cells outside the raster are moved to that distance.

    Returns
    -------
    column, row : NDArray (ny, nx) float64
        Positions in cells; the centre of a cell is a whole number.
    rows, columns : (int, int)
        Half-open ranges of cells, which extend `KERNEL_PAD` beyond the positions.

    Raises
    ------
    RegionError
        If the window wraps around the source's CRS, so that most of the source would have to be
        read.
    """
    height, width = source.shape
    far = reach * max(grid.scale)
    wrap = 0.0 if source.period is None else source.period
    c, r = _without_nan(column), _without_nan(row)
    c = np.clip(c, -far - wrap, width + far + wrap) / grid.scale[1] - 0.5
    r = np.clip(r, -far, height + far) / grid.scale[0] - 0.5
    rows = (math.floor(r.min()) - KERNEL_PAD, math.ceil(r.max()) + KERNEL_PAD + 1)
    columns = (math.floor(c.min()) - KERNEL_PAD, math.ceil(c.max()) + KERNEL_PAD + 1)
    cells = (rows[1] - rows[0]) * (columns[1] - columns[0])
    if cells > 256 * column.size and cells * grid.factor**2 > WINDOW_PIXELS:
        raise RegionError(
            f"the region wraps around {source.name} in its CRS {short_name(source.crs)}",
            "reproject the file to the CRS of the region, with gdalwarp -t_srs",
        )
    return c, r, rows, columns


def _without_nan(positions: NDArray) -> NDArray:
    """Replace NaN by the smallest finite position, or by one outside if there is none."""
    finite = positions[np.isfinite(positions)]
    return np.where(np.isfinite(positions), positions, finite.min() if finite.size else -math.inf)


def sample(values: NDArray, column: NDArray, row: NDArray, order: int) -> NDArray:
    """Interpolate an array by a kernel.

    The B-spline is a smoothing kernel (without prefilter) that never overshoots, as in GDAL's
    "cubicspline".

    Parameters
    ----------
    values : NDArray (h, w)
        Values at whole positions.
    column, row : NDArray (ny, nx) float64
        Positions to interpolate at.
    order : int
        1 for linear, 3 for the cubic B-spline.

    Returns
    -------
    NDArray (ny, nx) float32
        Kernel-weighted means.
    """
    out = ndimage.map_coordinates(
        values,
        np.stack([row, column]),
        order=order,
        prefilter=False,
        mode="nearest",
        output=np.float64,
    )
    return np.asarray(out, np.float32)


def pick(values: NDArray, column: NDArray, row: NDArray) -> NDArray:
    """Return the value of the cell that each position lies in.

    A position on an edge belongs to the next cell.

    Parameters
    ----------
    values : NDArray (..., h, w)
        Values of the cells.
    column, row : NDArray (ny, nx) float64
        Positions in cells; the centre of a cell is a whole number.

    Returns
    -------
    NDArray (..., ny, nx)
        Values, of the same dtype.
    """
    r = np.floor(row + 0.5 + 1e-6).astype(np.intp).clip(0, values.shape[-2] - 1)
    c = np.floor(column + 0.5 + 1e-6).astype(np.intp).clip(0, values.shape[-1] - 1)
    return np.asarray(values[..., r, c])


def read_on(
    source: RasterSource,
    window: Frame,
    *,
    bands: Sequence[int] = (1,),
    resampling: str = "average",
    masked: bool = True,
    decode: Decode | None = None,
    at: tuple[NDArray, NDArray] | None = None,
) -> tuple[NDArray, NDArray]:
    """Resample bands of a raster onto a window.

    A value depends on the source and the place alone, not on the window.

    Parameters
    ----------
    source : RasterSource
        The raster.
    window : Frame
        Where to sample.
    bands : sequence of int
        Band numbers, counted from 1.
    resampling : str
        "average" (= "bilinear") and "cubic_spline" average a source finer than the voxels first,
        and give float32. "nearest" and "mode" (the most frequent value in a voxel, the smallest of
        equally frequent ones) keep values and dtype.
    masked : bool
        Leave out nodata, masked and transparent pixels.
    decode : callable, optional
        Applied to the pixels before they are resampled (see `geo_io.raster.grid.Decode`).
    at : (NDArray, NDArray), optional
        The result of `positions` for the window, if it is known. "mode" makes no use of it.

    Returns
    -------
    values : NDArray (bands, ny, nx)
        0 where not valid.
    valid : NDArray (ny, nx) bool
        True where at least half of the kernel's weight is on valid pixels inside the raster.

    Raises
    ------
    InputError
        If the file cannot be read, or has no such band.
    RegionError
        If the window wraps around the source's CRS.
    """
    if resampling not in KERNELS:
        raise InputError(
            f"unknown resampling {resampling!r}", f"choose one of {', '.join(KERNELS)}"
        )
    if not bands or min(bands) < 1 or max(bands) > source.count:
        raise InputError(
            f"{source.name} does not have the bands {list(bands)}",
            f"choose from its {source.count} bands, counted from 1",
        )
    if resampling == "mode":
        return _mode(source, window, bands, masked, decode)
    order = KERNELS[resampling]
    grid = grid_for(source, window.voxel_size, average=order > 0)
    column, row, rows, columns = cells_around(
        source, grid, *(positions(source, window) if at is None else at), reach=KERNEL_PAD
    )
    values, valid = read_grid(
        source, grid, rows, columns, bands=bands, decode=decode, masked=masked
    )
    column, row = column - columns[0], row - rows[0]
    if order == 0:
        chosen, good = pick(values, column, row), pick(valid, column, row)
        return np.where(good, chosen, chosen.dtype.type(0)), good
    weight = sample(valid.astype(np.float32), column, row, order)
    good = weight >= 0.5 - 1e-6
    out = np.zeros((values.shape[0], *window.shape), np.float32)
    for band, cells in enumerate(values):
        # Cells that are not valid hold 0, so the weighted sum is over valid ones alone.
        np.divide(
            sample(cells.astype(np.float32), column, row, order), weight, out=out[band], where=good
        )
    return out, good


def _mode(
    source: RasterSource, window: Frame, bands: Sequence[int], masked: bool, decode: Decode | None
) -> tuple[NDArray, NDArray]:
    """Return the most frequent value among regular points of each voxel; nodata counts too."""
    ratio = window.voxel_size / min(source.pixel_metres)
    k = min(max(1, math.ceil(ratio - 0.25)), 5)
    if k == 1:
        return read_on(
            source, window, bands=bands, resampling="nearest", masked=masked, decode=decode
        )
    fine = Frame(
        window.crs,
        window.voxel_size / k,
        (window.x[0] * k, window.x[1] * k),
        (window.y[0] * k, window.y[1] * k),
        window.z,
    )
    values, valid = read_on(
        source, fine, bands=bands, resampling="nearest", masked=masked, decode=decode
    )
    ny, nx = window.shape
    votes = np.where(valid, values.astype(np.float64), np.nan).reshape(-1, ny, k, nx, k)
    votes = np.sort(votes.transpose(0, 1, 3, 2, 4).reshape(-1, ny, nx, k * k), axis=-1)
    best = votes[..., 0].copy()
    best_run, run = np.ones(best.shape, np.int16), np.ones(best.shape, np.int16)
    for n in range(1, k * k):
        same = (votes[..., n] == votes[..., n - 1]) | (
            np.isnan(votes[..., n]) & np.isnan(votes[..., n - 1])
        )
        run = np.where(same, run + 1, 1)
        longer = run > best_run
        best, best_run = np.where(longer, votes[..., n], best), np.where(longer, run, best_run)
    good = ~np.isnan(best[0])
    return np.nan_to_num(best).astype(values.dtype), good
