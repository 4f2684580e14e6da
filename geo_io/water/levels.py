"""The level of still water: one for a whole lake, whatever the noise of the heights and the window.

The level is computed of the whole polygon and the heights in it, read on cells whose size depends
on the polygon alone, and is kept. So it is the same in any window, crop and process.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray

from geo_io.frame import Frame

ReadHeights = Callable[[Frame], NDArray]
"""Heights of the ground on a frame, (ny, nx) metres; NaN where there are none."""

CELLS = 1024
"""Approximate number of cells with which a lake is sampled."""

LONGEST = 128
"""Most cells along the bounds of a lake."""

SHORE_PLACES = 256
"""Places along a shore at which heights are looked up."""

FLAT, FLAT_SHARE = 0.25, 0.4
"""Heights within `FLAT` metres of their median, for this share of a lake, are its water's."""

TILTED = 1.0
"""Metres of a plane through the heights of a lake from which it lies on a slope: its water cannot
stand higher than the lower end."""

BELOW_SHORE = 1.5
"""Metres by which heights may lie below the shore; deeper they are those of a lake's bed."""

SEA_LEVEL, TIDAL = 0.0, 3.0
"""The sea stands at `SEA_LEVEL` where the heights at it differ from it by at most `TIDAL`."""

BLOCK = 256
"""Cells along an edge of a square in which heights at places are read at once."""

KEPT = 4096
"""Lakes whose level is kept."""


class WaterLevels:
    """Levels of still water, by polygon. Threads may share it.

    Parameters
    ----------
    read : callable
        Heights of the ground.
    frame : Frame
        The job's frame, which gives the lattice.
    """

    def __init__(self, read: ReadHeights, frame: Frame) -> None:
        self.read = read
        self._frame = frame
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, float] = LRUCache(KEPT)

    def of(self, lake: shapely.Polygon, sea: bool = False) -> float:
        """Return the level of a polygon of still water, metres; NaN without heights."""
        key = hashlib.blake2b(shapely.to_wkb(lake) + bytes([sea]), digest_size=16).digest()
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = still_level(lake, self.read, self._frame)
            if sea:
                known = at_sea(known)
            with self._lock:
                self._kept[key] = known
        return known

    def at(self, xy: NDArray, cell: float) -> NDArray:
        """Return the heights of the cells of `cell` metres that contain places (n, 2).

        Places that lie near each other are read at once, because what a read costs is its margins.
        """
        index = np.floor(xy / cell).astype(np.int64)
        heights = np.full(len(index), np.nan)
        _, block = np.unique(index // BLOCK, axis=0, return_inverse=True)
        for n in range(int(block.max(initial=-1)) + 1):
            mine = block.ravel() == n
            (left, bottom), (right, top) = index[mine].min(axis=0), index[mine].max(axis=0) + 1
            cells = replace(self._frame, voxel_size=cell, x=(left, right), y=(bottom, top))
            column, row = index[mine, 0] - left, top - 1 - index[mine, 1]
            heights[mine] = np.asarray(self.read(cells), float)[row, column]
        return heights


def at_sea(level: float) -> float:
    """Return the level of the sea where heights at it are about `level`."""
    if math.isnan(level) or abs(level - SEA_LEVEL) <= TIDAL:
        return SEA_LEVEL
    return round(2 * level) / 2


def still_level(lake: shapely.Polygon, read: ReadHeights, frame: Frame) -> float:
    """Return the level of still water in a polygon, metres to the centimetre; NaN without heights.

    - where the heights are flat, they are those of the water: their median
    - where they lie on a slope, as in a pond of a coarse model, the lower end of the plane through
      them
    - where they lie below the shore, as on a lake's bed, the lower quartile along the shore
    - else they are noise around the water: their median
    """
    left, bottom, right, top = lake.bounds
    size = frame.voxel_size
    longest = max(right - left, top - bottom)
    while size * size * CELLS < lake.area or longest > LONGEST * size:
        size *= 2
    cells = replace(
        frame,
        voxel_size=size,
        x=(math.floor(left / size), math.floor(right / size) + 1),
        y=(math.floor(bottom / size), math.floor(top / size) + 1),
    )
    heights = np.asarray(read(cells), float)
    x, y = np.meshgrid((np.arange(*cells.x) + 0.5) * size, (np.arange(*cells.y)[::-1] + 0.5) * size)
    shapely.prepare(lake)
    inside = shapely.contains_xy(lake, x, y) & np.isfinite(heights)
    ring = lake.exterior
    along = shapely.get_coordinates(
        shapely.line_interpolate_point(
            ring, (np.arange(SHORE_PLACES) + 0.5) / SHORE_PLACES * ring.length
        )
    )
    column = np.floor(along[:, 0] / size).astype(int) - cells.x[0]
    row = cells.y[1] - 1 - np.floor(along[:, 1] / size).astype(int)
    shore = heights[row.clip(0, cells.ny - 1), column.clip(0, cells.nx - 1)]
    shore = shore[np.isfinite(shore)]
    values = heights[inside]
    if not len(values):
        return round(float(np.percentile(shore, 25)), 2) if len(shore) else math.nan
    middle = float(np.median(values))
    if (np.abs(values - middle) <= FLAT).mean() >= FLAT_SHARE:
        return round(middle, 2)
    level = middle
    plane = _plane(x[inside], y[inside], values)
    spread = float(plane.max() - plane.min())
    if spread > max(TILTED, 2.0 * float(np.std(values - plane))):
        level = float(plane.min())
    elif len(shore) and level < np.percentile(shore, 25) - BELOW_SHORE:
        level = float(np.percentile(shore, 25))
    return round(level, 2)


def _plane(x: NDArray, y: NDArray, values: NDArray) -> NDArray:
    """Return the heights of the plane of least squares at its own places; level for few places."""
    mean = float(values.mean())
    u, v, w = x - x.mean(), y - y.mean(), values - mean
    a, b, c = float((u * u).sum()), float((u * v).sum()), float((v * v).sum())
    whole = a * c - b * b
    if len(values) < 6 or whole <= 1e-9 * (a + c) ** 2:
        return np.full(len(values), mean)
    p, q = float((u * w).sum()), float((v * w).sum())
    return mean + u * (p * c - q * b) / whole + v * (q * a - p * b) / whole
