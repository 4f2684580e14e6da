"""An index of sorted voxels by column: operations on ranges of rows instead of single voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.stages.block import run_edges
from geo_io.frame import Frame


@dataclass(frozen=True)
class ColumnIndex:
    """The voxels of a frame by column: rows start[c] to start[c + 1] are those of column c.

    Attributes
    ----------
    frame : Frame
        Frame of the columns, which run from west to east, then from south to north, as voxels do.
    xyz : NDArray (n, 3) int32
        Voxels, sorted by (y, x, z).
    faces : NDArray (n,) uint8
        Bits of `earthgen.voxels.FACES`.
    start : NDArray (ny * nx + 1,) int64
        First row of each column, and n.
    """

    frame: Frame
    xyz: NDArray
    faces: NDArray
    start: NDArray

    def runs(self, columns: NDArray) -> list[tuple[int, int]]:
        """Return the ranges [first, last) of rows in some columns, in order.

        Parameters
        ----------
        columns : NDArray (ny, nx) bool
            The columns, rows from north to south.
        """
        edges = self.start[run_edges(columns[::-1].ravel())].tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    def runs_in(self, frame: Frame) -> list[tuple[int, int]]:
        """Return the ranges [first, last) of rows in the columns of a frame inside this one."""
        columns = np.zeros(self.frame.shape, bool)
        columns[self.frame.slices(frame)] = True
        return self.runs(columns)


def index_columns(frame: Frame, xyz: NDArray, faces: NDArray) -> ColumnIndex:
    """Return the index of sorted voxels.

    Parameters
    ----------
    frame : Frame
        Contains the voxels.
    xyz : NDArray (n, 3) int32
        Sorted by (y, x, z).
    faces : NDArray (n,) uint8
        Bits of `earthgen.voxels.FACES`.

    Raises
    ------
    PluginError
        If the voxels are not sorted, listed twice, or outside the frame.
    """
    start = np.empty(frame.nx * frame.ny + 1, np.int64)
    xyz = np.ascontiguousarray(xyz, np.int32)
    if not _find_columns(xyz, frame.x[0], frame.y[0], frame.nx, frame.ny, start):
        raise PluginError(
            f"voxels are not sorted by (y, x, z), are listed twice, or lie outside {frame}",
            "sort them with earthgen.voxels.Voxels.order",
        )
    return ColumnIndex(frame, xyz, np.ascontiguousarray(faces, np.uint8), start)


@numba.njit(cache=True, nogil=True)
def _find_columns(xyz, x0, y0, nx, ny, start):  # type: ignore[no-untyped-def]
    """Fill `start`; return False if voxels are unsorted, listed twice, or outside the frame."""
    at, before, below = 0, -1, 0
    for row in range(xyz.shape[0]):
        x, y, z = xyz[row, 0] - x0, xyz[row, 1] - y0, xyz[row, 2]
        if x < 0 or x >= nx or y < 0 or y >= ny:
            return False
        column = y * nx + x
        if column < before or (column == before and z <= below):
            return False
        while at <= column:
            start[at] = row
            at += 1
        before, below = column, z
    start[at:] = xyz.shape[0]
    return True
