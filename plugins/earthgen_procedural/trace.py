"""Cells along lines: how far along a line, and how far aside of it, each cell lies."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Frame


@dataclass(frozen=True)
class Traced:
    """The nearest of some lines for each cell of a frame.

    Attributes
    ----------
    line : NDArray (ny, nx) int32
        Number of the line, -1 where none is near.
    along, aside : NDArray (ny, nx) float32
        Metres from the line's start, and to the left of it.
    """

    line: NDArray
    along: NDArray
    aside: NDArray

    def cells(self, n: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Return rows, columns, and places along and aside of the cells of a line."""
        cells, line = self._by_line
        first, last = np.searchsorted(line, (n, n + 1))
        row, col = np.divmod(cells[first:last], self.line.shape[1])
        return row, col, self.along[row, col], self.aside[row, col]

    def strip(self, n: int, half: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Return rows, columns, metres along a line, and metres outside its half width."""
        row, col, along, aside = self.cells(n)
        return row, col, along, np.maximum(np.abs(aside) - half, 0.0)

    @functools.cached_property
    def _by_line(self) -> tuple[NDArray, NDArray]:
        """Flat indices of the cells of all lines, sorted by line and place, and their lines."""
        near = np.flatnonzero(self.line >= 0)
        line = self.line.ravel()[near]
        order = np.argsort(line, kind="stable")
        return near[order], line[order]


def trace(frame: Frame, lines: NDArray, half: NDArray, cap: NDArray) -> Traced:
    """Find the nearest line within its half width for each cell.

    Each cell is computed on its own, from coordinates of the lattice.

    Parameters
    ----------
    frame : Frame
        The cells.
    lines : NDArray (n,) object
        Shapely LineStrings, CRS metres.
    half : NDArray (n,)
        Half widths, metres.
    cap : NDArray (n,)
        Metres by which cells may lie beyond the ends of a line.
    """
    line = np.full(frame.shape, -1, np.int32)
    along, aside = np.zeros(frame.shape, np.float32), np.zeros(frame.shape, np.float32)
    if len(lines):
        xy = shapely.get_coordinates(lines)
        start = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(lines))])
        _trace(
            xy,
            start.astype(np.int64),
            np.asarray(half, float),
            np.asarray(cap, float),
            frame.voxel_size,
            frame.x[0],
            frame.y[1],
            np.full(frame.shape, np.inf),
            line,
            along,
            aside,
        )
    return Traced(line, along, aside)


@numba.njit(cache=True, nogil=True)
def _trace(xy, start, half, cap, size, x0, y1, near, line, along, aside):  # type: ignore[no-untyped-def]
    rows, cols = line.shape
    for n in range(half.size):
        done = 0.0
        for k in range(start[n], start[n + 1] - 1):
            ax, ay, bx, by = xy[k, 0], xy[k, 1], xy[k + 1, 0], xy[k + 1, 1]
            length = np.sqrt((bx - ax) ** 2 + (by - ay) ** 2)
            if length < 1e-9:
                continue
            ux, uy = (bx - ax) / length, (by - ay) / length
            reach = half[n] + cap[n]
            first_col = max(int(np.floor((min(ax, bx) - reach) / size - 0.5)) - x0, 0)
            last_col = min(int(np.ceil((max(ax, bx) + reach) / size - 0.5)) - x0, cols - 1)
            first_row = max(int(np.floor(y1 - 0.5 - (max(ay, by) + reach) / size)), 0)
            last_row = min(int(np.ceil(y1 - 0.5 - (min(ay, by) - reach) / size)), rows - 1)
            # Beyond an inner vertex the line bends: round there, and cut off at its ends.
            before = cap[n] if k == start[n] else half[n]
            after = cap[n] if k == start[n + 1] - 2 else half[n]
            for row in range(first_row, last_row + 1):
                dy = (y1 - 1 - row + 0.5) * size - ay
                for col in range(first_col, last_col + 1):
                    dx = (x0 + col + 0.5) * size - ax
                    t = dx * ux + dy * uy
                    if t < -before or t > length + after:
                        continue
                    side = dy * ux - dx * uy
                    past = max(max(-t, t - length), 0.0)
                    gap = np.sqrt(side * side + past * past)
                    if gap > half[n] and abs(side) > half[n]:
                        continue
                    if gap > max(half[n], cap[n]):
                        continue
                    if gap < near[row, col]:
                        near[row, col] = gap
                        line[row, col] = n
                        along[row, col] = done + min(max(t, 0.0), length)
                        aside[row, col] = side if past == 0.0 else (gap if side >= 0 else -gap)
            done += length
