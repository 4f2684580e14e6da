"""Building footprints: rasterised to cells, their smallest rectangles, and distances to walls.

Everything is computed from absolute coordinates in float64, so windows that share a cell agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.layers import Buildings


@dataclass(frozen=True)
class Outlines:
    """n polygons as flat arrays.

    Attributes
    ----------
    xy : NDArray (v, 2) float64
        Vertices, CRS metres; rings are closed.
    ring : NDArray (r + 1,) int64
        Offsets of rings in `xy`.
    polygon : NDArray (n + 1,) int64
        Offsets of polygons in `ring`.
    """

    xy: NDArray
    ring: NDArray
    polygon: NDArray

    def __len__(self) -> int:
        return len(self.polygon) - 1


@dataclass(frozen=True)
class Rectangles:
    """The smallest rectangle around each of n polygons: (n,) float64 arrays.

    Attributes
    ----------
    x, y : NDArray
        Centre, CRS metres.
    angle : NDArray
        Direction of the long side, radians from east.
    length, width : NDArray
        Half extents along and across it, metres.
    area : NDArray
        Of the polygon, m2.
    """

    x: NDArray
    y: NDArray
    angle: NDArray
    length: NDArray
    width: NDArray
    area: NDArray


def touching(buildings: Buildings, frame: Frame) -> NDArray:
    """Return the buildings whose bounding boxes meet `frame`: (k,) int64 indices, ascending."""
    if len(buildings) == 0:
        return np.empty(0, np.int64)
    left, bottom, right, top = frame.bounds
    box = shapely.bounds(buildings.footprint)
    meets = (box[:, 0] < right) & (box[:, 2] > left) & (box[:, 1] < top) & (box[:, 3] > bottom)
    return np.flatnonzero(meets)


def outlines(footprints: NDArray) -> Outlines:
    """Return the flat arrays of (n,) shapely Polygons."""
    if len(footprints) == 0:
        return Outlines(np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    _, xy, (ring, polygon) = shapely.to_ragged_array(shapely.force_2d(footprints))
    return Outlines(
        np.ascontiguousarray(xy[:, :2]), ring.astype(np.int64), polygon.astype(np.int64)
    )


def rectangles(lines: Outlines) -> Rectangles:
    """Return the smallest rectangle around each polygon that is parallel to one of its sides."""
    return Rectangles(*np.asarray(_rectangles(lines.xy, lines.ring, lines.polygon)))


def centroids(lines: Outlines) -> NDArray:
    """Return the centre of mass of each polygon's outer ring: (n, 2) float64, CRS metres."""
    return np.asarray(_centroids(lines.xy, lines.ring, lines.polygon))


@numba.njit(cache=True, nogil=True)
def _centroids(xy, ring, polygon):  # type: ignore[no-untyped-def]
    n = polygon.size - 1
    out = np.zeros((n, 2))
    for k in range(n):
        first, last = ring[polygon[k]], ring[polygon[k] + 1]
        x0, y0 = xy[first, 0], xy[first, 1]
        area, mx, my = 0.0, 0.0, 0.0
        for a in range(first, last - 1):
            ax, ay, bx, by = xy[a, 0] - x0, xy[a, 1] - y0, xy[a + 1, 0] - x0, xy[a + 1, 1] - y0
            cross = ax * by - bx * ay
            area += cross
            mx += (ax + bx) * cross
            my += (ay + by) * cross
        if area != 0.0:
            mx, my = mx / (3.0 * area), my / (3.0 * area)
        out[k, 0], out[k, 1] = x0 + mx, y0 + my
    return out


@numba.njit(cache=True, nogil=True)
def _rectangles(xy, ring, polygon):  # type: ignore[no-untyped-def]
    n = polygon.size - 1
    out = np.zeros((6, n))
    for k in range(n):
        first, last = ring[polygon[k]], ring[polygon[k] + 1]
        # Relative to a corner: squares of absolute coordinates would lose millimetres.
        x0, y0 = xy[first, 0], xy[first, 1]
        best = np.inf
        for a in range(first, last - 1):
            dx, dy = xy[a + 1, 0] - xy[a, 0], xy[a + 1, 1] - xy[a, 1]
            size = np.sqrt(dx * dx + dy * dy)
            if size < 1e-6:
                continue
            dx, dy = dx / size, dy / size
            u0, u1, v0, v1 = np.inf, -np.inf, np.inf, -np.inf
            for b in range(first, last):
                px, py = xy[b, 0] - x0, xy[b, 1] - y0
                u, v = px * dx + py * dy, py * dx - px * dy
                u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
            area = (u1 - u0) * (v1 - v0)
            if area < best - 1e-9:
                best = area
                u, v = 0.5 * (u0 + u1), 0.5 * (v0 + v1)
                out[0, k], out[1, k] = x0 + u * dx - v * dy, y0 + u * dy + v * dx
                if u1 - u0 >= v1 - v0:
                    out[2, k] = np.arctan2(dy, dx)
                    out[3, k], out[4, k] = 0.5 * (u1 - u0), 0.5 * (v1 - v0)
                else:
                    out[2, k] = np.arctan2(dx, -dy)
                    out[3, k], out[4, k] = 0.5 * (v1 - v0), 0.5 * (u1 - u0)
        total = 0.0
        for r in range(polygon[k], polygon[k + 1]):
            part = 0.0
            for a in range(ring[r], ring[r + 1] - 1):
                part += (xy[a, 0] - x0) * (xy[a + 1, 1] - y0) - (xy[a + 1, 0] - x0) * (
                    xy[a, 1] - y0
                )
            total += abs(part) * 0.5 if r == polygon[k] else -abs(part) * 0.5
        out[5, k] = total
    return out


def rasterise(lines: Outlines, frame: Frame) -> NDArray:
    """Return the index of the polygon that contains each cell's centre.

    Later polygons overwrite earlier ones. A polygon too small to contain a centre gets the cell of
    its first ring's centroid.

    Returns
    -------
    NDArray (ny, nx) int32
        -1 without a polygon.
    """
    return np.asarray(
        _rasterise(
            lines.xy,
            lines.ring,
            lines.polygon,
            frame.voxel_size,
            frame.x[0],
            frame.y[1],
            *frame.shape,
        )
    )


@numba.njit(cache=True, nogil=True)
def _rasterise(xy, ring, polygon, size, x0, y1, rows, cols):  # type: ignore[no-untyped-def]
    out = np.full((rows, cols), -1, np.int32)
    crossings = np.empty(max(xy.shape[0], 1))
    for k in range(polygon.size - 1):
        first, last = ring[polygon[k]], ring[polygon[k + 1]]
        bottom, top = xy[first, 1], xy[first, 1]
        for a in range(first, last):
            bottom, top = min(bottom, xy[a, 1]), max(top, xy[a, 1])
        filled = False
        # Rows outside the array are walked too: whether a polygon holds a centre must not depend on
        # the window.
        row0, row1 = int(np.floor(y1 - 0.5 - top / size)), int(np.ceil(y1 - 0.5 - bottom / size))
        for row in range(row0, row1 + 1):
            y = (y1 - 1 - row + 0.5) * size
            count = 0
            for r in range(polygon[k], polygon[k + 1]):
                for a in range(ring[r], ring[r + 1] - 1):
                    ya, yb = xy[a, 1], xy[a + 1, 1]
                    if (ya <= y) != (yb <= y):
                        crossings[count] = xy[a, 0] + (y - ya) / (yb - ya) * (
                            xy[a + 1, 0] - xy[a, 0]
                        )
                        count += 1
            for i in range(1, count):  # insertion sort: a row crosses few edges
                value, j = crossings[i], i - 1
                while j >= 0 and crossings[j] > value:
                    crossings[j + 1] = crossings[j]
                    j -= 1
                crossings[j + 1] = value
            for i in range(0, count - 1, 2):
                col0 = int(np.ceil(crossings[i] / size - 0.5)) - x0
                col1 = int(np.ceil(crossings[i + 1] / size - 0.5)) - x0
                filled = filled or col1 > col0
                if 0 <= row < rows:
                    for col in range(max(col0, 0), min(col1, cols)):
                        out[row, col] = k
        if not filled:
            mx, my, points = 0.0, 0.0, ring[polygon[k] + 1] - 1 - first
            for a in range(first, first + points):
                mx, my = mx + xy[a, 0] / points, my + xy[a, 1] / points
            row, col = y1 - 1 - int(np.floor(my / size)), int(np.floor(mx / size)) - x0
            if 0 <= row < rows and 0 <= col < cols:
                out[row, col] = k
    return out


def wall_distance(lines: Outlines, frame: Frame, owner: NDArray, mask: NDArray) -> NDArray:
    """Return the distance of each cell's centre to the outline of its polygon.

    Parameters
    ----------
    lines : Outlines
        n polygons.
    frame : Frame
        Of the cells.
    owner : NDArray (ny, nx) int32
        As from `rasterise`.
    mask : NDArray (n,) bool
        Polygons to compute.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres; 0 elsewhere.
    """
    return np.asarray(
        _wall_distance(
            lines.xy,
            lines.ring,
            lines.polygon,
            frame.voxel_size,
            frame.x[0],
            frame.y[1],
            owner,
            mask,
        )
    )


@numba.njit(cache=True, nogil=True)
def _wall_distance(xy, ring, polygon, size, x0, y1, owner, mask):  # type: ignore[no-untyped-def]
    rows, cols = owner.shape
    out = np.zeros((rows, cols), np.float32)
    for row in range(rows):
        py = (y1 - 1 - row + 0.5) * size
        for col in range(cols):
            k = owner[row, col]
            if k < 0 or not mask[k]:
                continue
            px = (x0 + col + 0.5) * size
            best = np.inf
            for r in range(polygon[k], polygon[k + 1]):
                for a in range(ring[r], ring[r + 1] - 1):
                    ax, ay = xy[a, 0] - px, xy[a, 1] - py
                    dx, dy = xy[a + 1, 0] - xy[a, 0], xy[a + 1, 1] - xy[a, 1]
                    length = dx * dx + dy * dy
                    t = 0.0 if length == 0.0 else min(max(-(ax * dx + ay * dy) / length, 0.0), 1.0)
                    best = min(best, (ax + t * dx) ** 2 + (ay + t * dy) ** 2)
            out[row, col] = np.sqrt(best)
    return out
