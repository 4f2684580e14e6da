"""Columns with a top: the exact height and normal of what each holds, put onto the voxels of its
surface.

A voxel says where a surface is to half a voxel. A backend that knows the height of each column's
top gives it here, and roofs and ground come out smooth; walls, and what stands in the air, get
their normals from the voxels around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.terrain.cover import code
from earthgen.terrain.filters import slopes
from earthgen.voxels.surface import (
    NORMAL_RADIUS,
    face_offsets,
    occupancy_normals,
    shear_normals,
    surface_voxels,
)
from earthgen.voxels.voxels import FACES, TOP, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

SIDES = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
LEVEL = FACES["-z"] | TOP


@dataclass(frozen=True)
class ColumnTops:
    """The tops of the columns of a frame, all (ny, nx) but the frame.

    Attributes
    ----------
    frame : of the columns
    top : float32 metres above the column's ground: exact top of what is solid from the ground up
    object : uint32, what stands there; 0 for the ground
    level : int32, the highest solid voxel below the top
    normal : (ny, nx, 3) float32, unit, in the projected CRS
    east, north : float32, slope of the ground
    """

    frame: Frame
    top: NDArray
    object: NDArray
    level: NDArray
    normal: NDArray
    east: NDArray
    north: NDArray


def column_tops(
    frame: Frame, ground: NDArray, top: NDArray, number: NDArray, semantic: NDArray, z_end: int
) -> ColumnTops:
    """Tops of columns, exact one cell inside the frame.

    ground : (ny, nx) float32, absolute metres; top : as of Tops, float32; number : uint32 objects
    semantic : (ny, nx) uint8, class of what stands there: a normal looks no further than the same
        object and class
    z_end : no voxel at or above it
    """
    size = frame.voxel_size
    east, north = slopes(ground, size)
    normal = _column_normals(ground, top, number, semantic, size)
    return ColumnTops(frame, top, number, top_level(top, size, z_end), normal, east, north)


def top_level(top: NDArray, voxel_size: float, z_end: int) -> NDArray:
    """int32 level of the highest solid voxel below a surface `top` metres above ground.

    The surface lies between the voxel's middle and half a voxel above its upper face. At most z_end
    - 1.
    """
    level = np.ceil(top / np.float32(voxel_size) - np.float32(0.5)).astype(np.int32) - 1
    return np.asarray(np.clip(level, -1, z_end - 1))


def surface_of_columns(
    frame: Frame, volume: NDArray, objects: NDArray, low: int, tops: ColumnTops
) -> tuple[Voxels, NDArray, NDArray]:
    """The surface voxels of `frame`, and (n, 3) float32 each: their normals, and offsets as of
    `Geometry`.

    volume, objects, low : as of `earthgen.voxels.surface.surface_voxels`, with a margin of
        NORMAL_RADIUS voxels
    tops : on a frame that reaches at least one cell beyond `frame`

    Raises FrameError where the tops do not reach so far.
    """
    if frame.intersection(tops.frame.pad(-1)) != frame:
        raise FrameError(
            f"tops on {tops.frame} do not reach a cell beyond {frame}", "pad their frame"
        )
    size = frame.voxel_size
    voxels = surface_voxels(frame, volume, objects, low, NORMAL_RADIUS)
    row, col = tops.frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - tops.frame.x[0]
    is_top = (voxels.xyz[:, 2] == tops.level[row, col]) & (voxels.faces & TOP != 0)
    rough = ~is_top | (voxels.faces & SIDES != 0)
    normal = occupancy_normals(voxels, volume, low, NORMAL_RADIUS, rough)
    normal = shear_normals(normal, tops.east[row, col], tops.north[row, col])
    offset = face_offsets(voxels.faces, size)
    _finish(
        normal,
        offset,
        is_top,
        voxels.xyz,
        voxels.faces,
        voxels.semantic == code("building"),
        row,
        col,
        tops.normal,
        tops.top,
        tops.object,
        tops.level,
        size,
    )
    return voxels, normal, offset


@numba.njit(cache=True, nogil=True)
def _column_normals(ground, top, number, semantic, size):  # type: ignore[no-untyped-def]
    """(ny, nx, 3) float32 unit normals of the columns' exact tops, each from neighbours of the
    same thing."""
    rows, cols = ground.shape
    out = np.zeros((rows, cols, 3), np.float32)
    for row in range(rows):
        for col in range(cols):
            here = ground[row, col] + top[row, col]
            slope = np.zeros(2)
            for axis in range(2):
                total, count = 0.0, 0
                for side in (-1, 1):
                    r, c = (row, col + side) if axis == 0 else (row - side, col)
                    if r < 0 or r >= rows or c < 0 or c >= cols:
                        continue
                    same = number[r, c] == number[row, col] and semantic[r, c] == semantic[row, col]
                    if not same and (number[r, c] != 0 or number[row, col] != 0):
                        continue
                    step = ground[r, c] + top[r, c] - here
                    if abs(top[r, c] - top[row, col]) > 1.6 * size:
                        continue
                    total += side * step
                    count += 1
                if count > 0:
                    slope[axis] = total / (count * size)
            length = np.sqrt(1.0 + slope[0] * slope[0] + slope[1] * slope[1])
            out[row, col, 0], out[row, col, 1], out[row, col, 2] = (
                -slope[0] / length,
                -slope[1] / length,
                1.0 / length,
            )
    return out


@numba.njit(cache=True, nogil=True)
def _finish(  # type: ignore[no-untyped-def]
    normal, offset, tops, xyz, faces, building, row, col, normals, top, number, level, size
):
    """Exact normals and offsets where a voxel is its column's top; upright walls."""
    for n in range(xyz.shape[0]):
        r, c = row[n], col[n]
        if not tops[n]:
            if building[n] and faces[n] & LEVEL == 0:
                flat = np.sqrt(normal[n, 0] ** 2 + normal[n, 1] ** 2)
                if flat > 0.2:
                    normal[n, 0], normal[n, 1], normal[n, 2] = (
                        normal[n, 0] / flat,
                        normal[n, 1] / flat,
                        0.0,
                    )
            continue
        offset[n, 0], offset[n, 1] = 0.0, 0.0
        offset[n, 2] = top[r, c] - (xyz[n, 2] + 0.5) * size
        a, b, z = normals[r, c, 0], normals[r, c, 1], normals[r, c, 2]
        # Sides that drop to another thing make an edge; the steps of one roof do not.
        drop_x, drop_y = 0.0, 0.0
        for side in range(4):
            if faces[n] & (1 << side) == 0:
                continue
            dr, dc = ((0, -1), (0, 1), (1, 0), (-1, 0))[side]
            same = number[r + dr, c + dc] == number[r, c]
            if not same or level[r, c] - level[r + dr, c + dc] > 2:
                drop_x += dc
                drop_y -= dr
        if drop_x != 0.0 or drop_y != 0.0:
            # One disc stands for the edge of the roof and the wall below it: it chamfers the edge.
            far = np.sqrt(drop_x * drop_x + drop_y * drop_y)
            offset[n, 0], offset[n, 1] = 0.25 * size * drop_x / far, 0.25 * size * drop_y / far
            offset[n, 2] -= 0.2 * size
            a, b = a + 0.75 * drop_x / far, b + 0.75 * drop_y / far
            length = np.sqrt(a * a + b * b + z * z)
            a, b, z = a / length, b / length, z / length
        normal[n, 0], normal[n, 1], normal[n, 2] = a, b, z
