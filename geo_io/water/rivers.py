"""The level of rivers: along each line of a river it falls, or is level, and never rises.

Heights along the middle of a river are noisy, and bridges and trees stand in them. The level is the
best fit to them that never rises in the direction of the flow (isotonic regression by pooling
adjacent violators; Ayer et al., 1955). It is a function of the whole line and the heights, so it is
the same in any window. Maps draw most rivers downstream; where the heights fit far better the other
way, the line is taken to run upstream.
"""

from __future__ import annotations

import functools
import math
import threading

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray
from scipy import ndimage

from geo_io.frame import Frame
from geo_io.water.levels import SEA_LEVEL, WaterLevels

FLOW_REACH = 80.0
"""Metres from the line of a river within which its water has the level of the line."""

STEP, MOST_STEPS = 10.0, 256
"""Metres between the places along a line at which heights are looked up; for long lines they are
so many."""

UPSTREAM = 0.5
"""A line runs upstream if fitting it that way leaves less than this share of the squared misfit."""

BELOW = 0.4
"""Metres from the ground along a river down to its water."""

KEPT = 2048
"""Lines whose level is kept."""


class RiverLevels:
    """Levels along lines of rivers. Threads may share it.

    Parameters
    ----------
    levels : WaterLevels
        Gives the heights.
    voxel_size : float
        Metres; heights are looked up on cells of at least this size.
    """

    def __init__(self, levels: WaterLevels, voxel_size: float) -> None:
        self._heights = functools.partial(levels.at, cell=max(voxel_size, 2.0))
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, tuple[NDArray, NDArray]] = LRUCache(KEPT)

    def profile(self, line: shapely.LineString) -> tuple[NDArray, NDArray]:
        """Return the level along a line: metres from its start, and the level there, ascending.

        Empty where there are no heights.
        """
        key = shapely.to_wkb(line)
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            count = min(max(math.ceil(line.length / STEP), 1), MOST_STEPS)
            along = (np.arange(count) + 0.5) / count * line.length
            places = shapely.get_coordinates(shapely.line_interpolate_point(line, along))
            heights = self._heights(places)
            there = np.isfinite(heights)
            along, heights = along[there], heights[there]
            # A bridge or a tree over the water must not lift all of it.
            heights = ndimage.median_filter(heights, 5, mode="nearest") if len(heights) else heights
            ground = falling(heights)
            # At its mouth a river is as high as the sea, and not BELOW it.
            level = np.where(ground >= SEA_LEVEL, np.maximum(ground - BELOW, SEA_LEVEL), ground)
            known = along, np.round(level, 3)
            with self._lock:
                self._kept[key] = known
        return known

    def at(self, lines: NDArray, frame: Frame, river: NDArray) -> NDArray:
        """Return the level of the cells of rivers.

        Parameters
        ----------
        lines : NDArray (n,) object
            All LineStrings within `FLOW_REACH` of the frame.
        frame : Frame
            Where.
        river : NDArray (ny, nx) bool
            The cells of rivers.

        Returns
        -------
        NDArray (ny, nx) float32
            Metres, by the nearest line, of equally near ones the lowest; NaN where none is near,
            and outside rivers.
        """
        out = np.full(frame.shape, np.inf, np.float32)
        row, column = np.nonzero(river)
        if len(lines) and len(row):
            size = frame.voxel_size
            x = (frame.x[0] + column + 0.5) * size
            y = (frame.y[1] - row - 0.5) * size
            points = np.asarray(shapely.points(x, y), object)
            at, near = shapely.STRtree(lines).query_nearest(points, max_distance=FLOW_REACH)
            for n in np.unique(near).tolist():
                along, level = self.profile(lines[n])
                if not len(along):
                    continue
                here = at[near == n]
                where = shapely.line_locate_point(lines[n], points[here])
                cells = row[here], column[here]
                out[cells] = np.minimum(out[cells], np.interp(where, along, level))
        return np.where(np.isfinite(out), out, np.float32(np.nan)).astype(np.float32)


def falling(heights: NDArray) -> NDArray:
    """Return the best fit to heights (n,) that never rises, or never falls if that fits better."""
    down = -_rising(-heights)
    up = _rising(heights)
    if ((up - heights) ** 2).sum() < UPSTREAM * ((down - heights) ** 2).sum():
        return up
    return down


def _rising(values: NDArray) -> NDArray:
    """Return the least-squares fit to values (n,) that never falls."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            count = counts[-2] + counts[-1]
            mean = (means[-2] * counts[-2] + means[-1] * counts[-1]) / count
            means[-2:], counts[-2:] = [mean], [count]
    return np.repeat(np.array(means), counts) if means else np.empty(0)
