"""Positions of the voxels of a window on the pixel lattice of a raster."""

from __future__ import annotations

import functools
import math

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_io.crs import parse_crs, transformer
from geo_io.frame import Frame
from geo_io.raster.source import RasterSource

NODE_STEP = 16
"""Voxels between nodes, which are projected exactly. Positions between nodes are interpolated where
that is accurate to `NODE_TOLERANCE`."""

NODE_TOLERANCE = 1e-3
"""Largest error of an interpolated position, in voxels or source pixels, whichever is larger."""


def positions(source: RasterSource, window: Frame) -> tuple[NDArray, NDArray]:
    """Project the voxel centres of a window to the source's pixel lattice.

    Returns
    -------
    columns, rows : NDArray (ny, nx) float64
        Positions in pixels; 0 is the outer edge of the first pixel. NaN where a place cannot be
        projected. Columns of rasters in longitudes are unwrapped: they do not jump within the
        window.
    """
    step, s = NODE_STEP, window.voxel_size
    i = np.arange(*window.x)
    j = np.arange(*window.y)[::-1]
    target = parse_crs(window.crs)
    if source.crs.equals(target, ignore_axis_order=True):
        x, y = np.meshgrid((i + 0.5) * s, (j + 0.5) * s)
        return _to_lattice(source, x, y)

    project = functools.partial(_project, source, target, _middle(source, target, window))
    node_i = np.arange(window.x[0] // step, -(-window.x[1] // step) + 1) * step
    node_j = np.arange(window.y[0] // step, -(-window.y[1] // step) + 1) * step
    nodes = np.stack(project(*np.meshgrid(node_i * s, node_j * s)))
    middles = np.stack(
        project(*np.meshgrid((node_i[:-1] + step / 2) * s, (node_j[:-1] + step / 2) * s))
    )
    means = (nodes[:, :-1, :-1] + nodes[:, 1:, :-1] + nodes[:, :-1, 1:] + nodes[:, 1:, 1:]) / 4
    tolerance = NODE_TOLERANCE * max(1.0, s / min(source.pixel_metres))
    curved = ~(np.abs(means - middles) <= tolerance).all(axis=0)  # True for NaN

    # Interpolate along rows, then along columns: each cell between nodes depends on its own corners
    # alone.
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
    if b == 0 and d == 0:  # Subtracting first keeps whole pixels exact.
        return (x - source.transform.c) * a, (y - source.transform.f) * e
    return a * x + b * y + c, d * x + e * y + f


def _middle(source: RasterSource, target: pyproj.CRS, window: Frame) -> float:
    """Return the column around which the columns of a window are unwrapped."""
    if source.period is None:
        return math.nan
    left, bottom, right, top = window.bounds
    centre = np.array([(left + right) / 2]), np.array([(bottom + top) / 2])
    column = _project(source, target, source.shape[1] / 2, *centre)[0][0]
    return float(column) if np.isfinite(column) else source.shape[1] / 2


def _project(
    source: RasterSource, target: pyproj.CRS, middle: float, x: NDArray, y: NDArray
) -> tuple[NDArray, NDArray]:
    """Project places to the lattice; columns are unwrapped to within half a turn of `middle`."""
    x, y = transformer(target, source.crs).transform(x, y, errcheck=False)
    bad = ~(np.isfinite(x) & np.isfinite(y))
    with np.errstate(invalid="ignore"):
        column, row = _to_lattice(source, x, y)
        if source.period is not None:
            column = column - source.period * np.round((column - middle) / source.period)
    column[bad] = row[bad] = np.nan
    return column, row


def coverage_mask(source: RasterSource, window: Frame) -> NDArray:
    """Return which voxel centres lie inside the raster, with or without data, (ny, nx) bool."""
    return _inside(source, *positions(source, window))


def _inside(source: RasterSource, column: NDArray, row: NDArray) -> NDArray:
    height, width = source.shape
    if source.period is not None and width < source.period:
        column = np.mod(column, source.period)
    elif source.period is not None:
        column = np.zeros_like(column)  # A whole turn covers every longitude.
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.asarray(inside)


def overlaps(source: RasterSource, frame: Frame) -> bool:
    """Return whether a frame and a raster may overlap, by their extents."""
    coarse = frame.coarsen(max(1, math.ceil(max(frame.shape) / 64))).pad(1)
    column, row = positions(source, coarse)
    good = np.isfinite(column) & np.isfinite(row)
    if not good.any():
        return False
    column, row = column[good], row[good]
    height, width = source.shape
    turns = [0.0] if source.period is None else [-source.period, 0.0, source.period]
    return bool(
        row.min() < height
        and row.max() > 0
        and any(column.min() + t < width and column.max() + t > 0 for t in turns)
    )
