"""Rasterisation onto a frame: painting polygons, nearest cells of a raster, and majority classes.

Each cell is computed on its own, in coordinates of the lattice and not of the window. Its value is
therefore the same, to the bit, in all windows that contain it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.crs import parse_crs, transformer
from geo_io.frame import Frame, Range
from geo_io.legend import UNKNOWN, priorities
from geo_io.raster.grid import grid_for, read_grid
from geo_io.raster.source import RasterSource

SUPERSAMPLE = 4
"""Fine cells along the edge of a voxel. Classes are painted on them before the largest share is
chosen."""

NODE_CELLS = 128
"""Fine cells between exact positions on a raster; positions between them are interpolated."""


def paint(frame: Frame, geometries: NDArray, values: NDArray, factor: int) -> NDArray:
    """Paint polygons on a grid, the later over the earlier.

    A cell belongs to a polygon if its centre does. A centre on a border belongs to the polygon to
    the east or north of it, so polygons that share a border leave neither a gap nor an overlap.

    Parameters
    ----------
    frame : Frame
        Where to paint.
    geometries : NDArray (n,) object
        Valid shapely Polygons or MultiPolygons, CRS metres.
    values : NDArray (n,) int
        Value of each geometry, of any integer dtype.
    factor : int
        The grid is this many times as fine as the frame.

    Returns
    -------
    NDArray (ny * factor, nx * factor)
        Values, of the dtype of `values`; 0 outside the polygons.
    """
    out = np.zeros((frame.ny * factor, frame.nx * factor), values.dtype)
    parts, part_of = shapely.get_parts(geometries, return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    if len(rings) == 0:
        return out
    ring_start = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(rings))])
    first_ring = np.searchsorted(part_of[ring_of], np.arange(len(geometries) + 1))
    xy = shapely.get_coordinates(rings) / (frame.voxel_size / factor)
    _paint(out, xy, ring_start, first_ring, values, frame.x[0] * factor, frame.y[1] * factor)
    return out


CLASS_BITS = 5
"""Bits of a class code in a `ranked` cell; its rank lies above them."""


def ranked(code: NDArray, rank: NDArray) -> NDArray:
    """Return class codes and their ranks in one number each, uint16; 0 for unknown."""
    both = (rank.astype(np.uint16) << CLASS_BITS) | code.astype(np.uint16)
    return np.where(code == UNKNOWN, np.uint16(0), both).astype(np.uint16)


def class_of(cells: NDArray) -> NDArray:
    """Return the class codes of `ranked` cells, uint8."""
    out = np.empty(cells.shape, np.uint8)
    return np.bitwise_and(cells, np.uint16(2**CLASS_BITS - 1), out=out, casting="unsafe")


def composite(base: NDArray, top: NDArray) -> None:
    """Lay classes over others, in place, where their rank is not lower.

    Parameters
    ----------
    base : NDArray (h, w) uint16
        Cells as `ranked` makes them, which are changed.
    top : NDArray (h, w) uint16
        Cells to lay over them; unknown ones change nothing.
    """
    _composite(base, top, CLASS_BITS)


def majority(fine: NDArray, factor: int) -> NDArray:
    """Return the class with the largest share of each block of cells.

    Of equal shares the class with the higher priority wins, then the lower code. Unknown wins only
    with more than half, so that known classes reach up to the edge of the data.

    Parameters
    ----------
    fine : NDArray (ny * factor, nx * factor) uint8
        Class codes.
    factor : int
        Cells along each edge of a block.

    Returns
    -------
    NDArray (ny, nx) uint8
        Class codes.
    """
    out = np.empty((fine.shape[0] // factor, fine.shape[1] // factor), np.uint8)
    _majority(fine, factor, priorities(), out)
    return out


def nearest(
    frame: Frame, factor: int, source: RasterSource, decode: Callable[[NDArray, NDArray], NDArray]
) -> NDArray:
    """Sample a raster's first band at the centre of each fine cell.

    Like `resample.read_on` with "nearest", but for grids of many millions of cells.

    Parameters
    ----------
    frame : Frame
        Where to sample.
    factor : int
        The grid is this many times as fine as the frame.
    source : RasterSource
        The raster.
    decode : callable
        Function of pixels (h, w) and their mask (h, w) bool that returns the values to sample.

    Returns
    -------
    NDArray (ny * factor, nx * factor)
        Values, of the dtype that `decode` returns; 0 outside the raster.
    """
    cell = frame.voxel_size / factor
    # `grid_for` picks at least eight pixels per voxel: one for each fine cell.
    grid = grid_for(source, 8 * cell, average=False)
    nodes, start = _nodes(frame, factor, source)
    nodes /= grid.cell
    finite = nodes[np.isfinite(nodes).all(axis=-1)]
    low = finite.min(axis=0) if len(finite) else np.zeros(2)
    high = finite.max(axis=0) if len(finite) else np.zeros(2)
    rows, columns = (
        _cell_range(
            low[axis],
            high[axis],
            grid.size[1 - axis] // grid.cell,
            axis == 0 and source.period is not None,
        )
        for axis in (1, 0)
    )
    values, valid = read_grid(source, grid, rows, columns)
    cells = decode(values[0], valid)
    out = np.zeros((frame.ny * factor, frame.nx * factor), cells.dtype)
    left, top = frame.x[0] * factor, frame.y[1] * factor
    _nearest(out, nodes, start, cells, columns[0], rows[0], left, top, NODE_CELLS)
    return out


def _cell_range(low: float, high: float, size: int, periodic: bool) -> Range:
    """Return the range of cells between two positions, cropped to `size` unless periodic."""
    first, last = math.floor(low), math.ceil(high) + 1
    if not periodic:
        first, last = max(first, 0), min(last, max(size, 1))
    return (first, last) if first < last else (0, 1)


def _nodes(frame: Frame, factor: int, source: RasterSource) -> tuple[NDArray, NDArray]:
    """Project nodes of the fine lattice to pixel positions of a raster.

    Returns
    -------
    nodes : NDArray (rows, columns, 2) float64
        Column and row on the raster at every `NODE_CELLS` fine cells, from the south-west; not
        finite where the raster's CRS is not defined.
    start : NDArray (2,) int64
        Lattice index (x, y) of the first node, in steps of `NODE_CELLS`.
    """
    left, right = frame.x[0] * factor // NODE_CELLS, -(-frame.x[1] * factor // NODE_CELLS)
    bottom, top = frame.y[0] * factor // NODE_CELLS, -(-frame.y[1] * factor // NODE_CELLS)
    step = NODE_CELLS * (frame.voxel_size / factor)
    x, y = np.meshgrid(np.arange(left, right + 1) * step, np.arange(bottom, top + 1) * step)
    crs = parse_crs(frame.crs)
    if not source.crs.equals(crs, ignore_axis_order=True):
        x, y = transformer(crs, source.crs).transform(x, y)
    column, row = ~source.transform @ (x, y)
    if source.period is not None:  # Longitudes must not jump within the window.
        middle = column[column.shape[0] // 2, column.shape[1] // 2]
        with np.errstate(invalid="ignore"):
            column = column - source.period * np.round((column - middle) / source.period)
    return np.stack([column, row], axis=-1), np.array([left, bottom], np.int64)


# In these loops `left` and `top` are the lattice indices of the grid's north-west corner.


def _paint_loop(out, xy, ring_start, first_ring, values, left, top):  # type: ignore[no-untyped-def]
    ny, nx = out.shape
    for shape in range(len(values)):
        begin, end = ring_start[first_ring[shape]], ring_start[first_ring[shape + 1]]
        if begin == end:
            continue
        west = east = xy[begin, 0]
        south = north = xy[begin, 1]
        for k in range(begin, end):
            west, east = min(west, xy[k, 0]), max(east, xy[k, 0])
            south, north = min(south, xy[k, 1]), max(north, xy[k, 1])
        if east < left or west > left + nx or north < top - ny or south > top:
            continue
        # Row j has its centre at j + 0.5, and belongs to polygons that span [south, north).
        low = max(int(np.ceil(south - 0.5)), top - ny)
        high = min(int(np.ceil(north - 0.5)), top)
        if low >= high:
            continue
        # Two passes over the edges: count the crossings of each row, then note their columns.
        place = np.zeros(high - low + 1, np.int64)
        columns = np.empty(0, np.int64)
        for task in range(2):
            if task == 1:
                total = 0
                for j in range(high - low + 1):
                    total, place[j] = total + place[j], total
                columns = np.empty(total, np.int64)
            for ring in range(first_ring[shape], first_ring[shape + 1]):
                for k in range(ring_start[ring], ring_start[ring + 1] - 1):
                    # From south to north in both directions of the ring, so that neighbours get
                    # the same crossings.
                    if xy[k, 1] <= xy[k + 1, 1]:
                        xa, ya, xb, yb = xy[k, 0], xy[k, 1], xy[k + 1, 0], xy[k + 1, 1]
                    else:
                        xa, ya, xb, yb = xy[k + 1, 0], xy[k + 1, 1], xy[k, 0], xy[k, 1]
                    if yb < low or ya > high:
                        continue
                    for j in range(
                        max(int(np.ceil(ya - 0.5)), low), min(int(np.ceil(yb - 0.5)), high)
                    ):
                        if task == 0:
                            place[j - low] += 1
                        else:
                            x = xa + (j + 0.5 - ya) / (yb - ya) * (xb - xa)
                            columns[place[j - low]] = min(
                                max(int(np.ceil(x - 0.5)), left), left + nx
                            )
                            place[j - low] += 1
        first = 0
        for j in range(low, high):
            last = place[j - low]
            crossings = np.sort(columns[first:last])
            for k in range(0, last - first - 1, 2):
                out[top - 1 - j, crossings[k] - left : crossings[k + 1] - left] = values[shape]
            first = last


def _composite_loop(base, top, bits):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        for j in range(base.shape[1]):
            new = top[i, j]
            if new != UNKNOWN and new >> bits >= base[i, j] >> bits:
                base[i, j] = new


def _majority_loop(fine, factor, priority, out):  # type: ignore[no-untyped-def]
    share = np.zeros(256, np.int64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            first = fine[i * factor, j * factor]
            same = True
            for a in range(factor):
                for b in range(factor):
                    same = same and fine[i * factor + a, j * factor + b] == first
            if same:
                out[i, j] = first
                continue
            for a in range(factor):
                for b in range(factor):
                    share[fine[i * factor + a, j * factor + b]] += 1
            best = np.uint8(UNKNOWN)
            if 2 * share[UNKNOWN] <= factor * factor:
                for code in range(1, len(priority)):
                    more = share[code] - share[best] if best != UNKNOWN else share[code]
                    if more > 0 or (
                        more == 0 and share[code] > 0 and priority[code] > priority[best]
                    ):
                        best = np.uint8(code)
            for a in range(factor):
                for b in range(factor):
                    share[fine[i * factor + a, j * factor + b]] = 0
            out[i, j] = best


def _nearest_loop(out, nodes, start, cells, column0, row0, left, top, step):  # type: ignore[no-untyped-def]
    ny, nx = out.shape
    rows, columns = cells.shape
    # In cells. Rounding must not move a centre on a border to either side.
    tolerance = 1e-6
    for i in range(ny):
        y = (top - 1 - i + 0.5) / step - start[1]
        n = int(np.floor(y))
        v = y - n
        for m in range(nodes.shape[1] - 1):
            column = (1 - v) * nodes[n, m, 0] + v * nodes[n + 1, m, 0]
            row = (1 - v) * nodes[n, m, 1] + v * nodes[n + 1, m, 1]
            column_slope = (1 - v) * nodes[n, m + 1, 0] + v * nodes[n + 1, m + 1, 0] - column
            row_slope = (1 - v) * nodes[n, m + 1, 1] + v * nodes[n + 1, m + 1, 1] - row
            if not (np.isfinite(column + column_slope) and np.isfinite(row + row_slope)):
                continue
            west = (start[0] + m) * step
            for j in range(max(west - left, 0), min(west + step - left, nx)):
                u = (left + j - west + 0.5) / step
                c = int(np.floor(column + u * column_slope + tolerance)) - column0
                r = int(np.floor(row + u * row_slope + tolerance)) - row0
                if 0 <= c < columns and 0 <= r < rows:
                    out[i, j] = cells[r, c]


_compile = numba.njit(cache=True, nogil=True)
_paint = _compile(_paint_loop)
_composite = _compile(_composite_loop)
_majority = _compile(_majority_loop)
_nearest = _compile(_nearest_loop)
