"""Rasters of any CRS and resolution, read window by window onto a frame.

`read_on` is a pure function of the source and the place: where two windows overlap they hold the
same values, bit for bit. GDAL's warper does not promise that (its transformer approximates along
each window's scan lines, and its kernel width follows the window's size), so the steps are done
here:

1. the centre of each voxel is projected to a position on the source's pixel lattice;
2. a source much finer than the voxels is averaged in whole blocks of pixels that count from the source's
   corner, from an overview where it has one;
3. the pixels around each position are weighted by a kernel of fixed width: linear, or the cubic B-spline.

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
"""Spline order by name of the resampling. A source finer than the voxels is averaged first for
the last three, so "average" and "bilinear" mean the same."""

KERNEL_PAD = 2
"""Pixels beyond a position that a kernel may touch."""

WINDOW_PIXELS = 64_000_000
"""A window that needs more pixels than this, and far more than its area explains, wraps around
its source."""


def cells_around(
    source: RasterSource, grid: Grid, column: NDArray, row: NDArray, *, reach: int
) -> tuple[NDArray, NDArray, Range, Range]:
    """Positions in cells of a grid (cell centres at whole numbers), and the ranges of cells that
    are needed.

    Positions farther than `reach` cells outside the raster are moved to that distance: nothing is
    read there. The ranges reach `KERNEL_PAD` beyond the positions.

    Raises
    ------
    RegionError
        if the window wraps around the source's CRS, so that most of the source would have to be
        read
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
        raise RegionError(
            f"the region wraps around {source.name} in its CRS {short_name(source.crs)}",
            "reproject the file to the CRS of the region, with gdalwarp -t_srs",
        )
    return c, r, rows, columns


def _known(positions: NDArray) -> NDArray:
    """Positions with the least known one, or one outside, for those that are not known."""
    known = positions[np.isfinite(positions)]
    return np.where(np.isfinite(positions), positions, known.min() if known.size else -math.inf)


def sample(values: NDArray, column: NDArray, row: NDArray, order: int) -> NDArray:
    """Kernel-weighted means at positions in an array (h, w): order 1 linear, 3 the cubic B-spline;
    float32.

    The B-spline is used as a smoothing kernel (no prefilter), which never overshoots: GDAL's
    "cubicspline".
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
    """The cell (h, w) that each position lies in; a position on an edge belongs to the cell
    after it."""
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
) -> tuple[NDArray, NDArray]:
    """A raster's bands on a window. Depends on the source and the place alone, not on the window.

    Parameters
    ----------
    bands : numbers from 1
    resampling : "average" (= "bilinear") and "cubic_spline" average a source finer than the voxels
        first and
        give float32; "nearest" and "mode" (the value of most of a voxel, the smallest of equals)
        keep values and dtype
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
        raise InputError(
            f"resampling {resampling!r} is not known", f"choose one of {', '.join(KERNELS)}"
        )
    if not bands or min(bands) < 1 or max(bands) > source.count:
        raise InputError(
            f"{source.name} has no band {list(bands)}", f"it has {source.count}, counted from 1"
        )
    if resampling == "mode":
        return _mode(source, window, bands, masked, decode)
    order = KERNELS[resampling]
    grid = grid_for(source, window.voxel_size, average=order > 0)
    column, row, rows, columns = cells_around(
        source, grid, *positions(source, window), reach=KERNEL_PAD
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
    """The most frequent value among points spread evenly over each voxel; nodata has a vote too."""
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
