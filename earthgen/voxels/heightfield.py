"""Surfaces of columns whose exact heights are known: smooth roofs and ground on voxels.

Voxels alone locate a surface to half a voxel. Here the top voxel of each column gets the exact
height and normal of the column's top. Walls, and parts above the tops such as crowns, get their
normals from the voxels around. `surface_of_heights` is all that a backend with height maps needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.terrain.cover import class_code, fill_unknown_cover
from earthgen.terrain.filters import slopes
from earthgen.voxels.ground_walls import add_ground_walls, is_step
from earthgen.voxels.objects import structure_classes
from earthgen.voxels.surface import (
    NORMAL_RADIUS,
    face_offsets,
    occupancy_normals,
    shear_normals,
    surface_voxels,
)
from earthgen.voxels.voxels import SIDES, TOP, TOP_AND_BOTTOM, Geometry, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

STEEP_ROOF = 0.45
"""Upward part of the normals at the steps of roofs that are steeper than voxels show."""

HEIGHT_MARGIN = NORMAL_RADIUS + 1
"""Cells around a window on which `surface_of_heights` needs its arrays."""


@dataclass(frozen=True)
class ColumnTops:
    """The exact tops of the columns of a frame.

    Attributes
    ----------
    frame : Frame
        Of the columns.
    ground : NDArray (ny, nx) float32
        Absolute height of the ground, metres.
    top : NDArray (ny, nx) float32
        Top of what is solid from the ground up, metres above the column's ground.
    object : NDArray (ny, nx) uint32
        Object numbers; 0 for the ground.
    level : NDArray (ny, nx) int32
        Lattice index z of the highest solid voxel below the top.
    normal : NDArray (ny, nx, 3) float32
        Unit normals of the tops in the projected CRS.
    east, north : NDArray (ny, nx) float32
        Slope of the ground, rise over run.
    """

    frame: Frame
    ground: NDArray
    top: NDArray
    object: NDArray
    level: NDArray
    normal: NDArray
    east: NDArray
    north: NDArray


def column_tops(
    frame: Frame, ground: NDArray, top: NDArray, number: NDArray, semantic: NDArray, z_end: int
) -> ColumnTops:
    """Return the tops of columns; they are exact from one cell inside the frame.

    Parameters
    ----------
    frame : Frame
        Of the columns.
    ground : NDArray (ny, nx) float32
        Absolute height of the ground, metres.
    top : NDArray (ny, nx) float32
        Metres above the ground.
    number : NDArray (ny, nx) uint32
        Object numbers; 0 for the ground.
    semantic : NDArray (ny, nx) uint8
        Class of what stands there. A normal uses neighbours of the same object and class only.
    z_end : int
        Lattice index above the highest possible voxel.
    """
    size = frame.voxel_size
    east, north = slopes(ground, size)
    normal = _column_normals(ground, top, number, semantic, size)
    return ColumnTops(frame, ground, top, number, top_level(top, size, z_end), normal, east, north)


def top_level(top: NDArray, voxel_size: float, z_end: int) -> NDArray:
    """Return the lattice index z of the highest solid voxel below a surface.

    The surface lies between the voxel's middle and half a voxel above its upper face.

    Parameters
    ----------
    top : NDArray float32
        Metres above the ground.
    voxel_size : float
        Metres.
    z_end : int
        Results are at most z_end - 1.

    Returns
    -------
    NDArray int32
        Of the shape of `top`, at least -1: the voxel of the ground's surface.
    """
    level = np.ceil(top / np.float32(voxel_size) - np.float32(0.5)).astype(np.int32) - 1
    return np.asarray(np.clip(level, -1, z_end - 1))


def under_level(under: NDArray, level: NDArray, voxel_size: float) -> NDArray:
    """Return the lattice index z of the lowest solid voxel above the underside of a solid.

    The underside lies between the voxel's middle and half a voxel below its lower face.

    Parameters
    ----------
    under : NDArray float32
        Metres above the ground; 0 or less where the solid reaches down to the ground.
    level : NDArray int32
        Index of the solid's highest voxel, of `top_level`; the solid keeps at least that one.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray int32
        Of the shape of `under`, at least 0.
    """
    lowest = np.ceil(under / np.float32(voxel_size) - np.float32(0.5)).astype(np.int32)
    return np.asarray(np.clip(lowest, 0, np.maximum(level, 0)))


def surface_of_columns(
    frame: Frame, volume: NDArray, objects: NDArray, low: int, tops: ColumnTops
) -> tuple[Voxels, NDArray, NDArray]:
    """Return the surface voxels of a volume with exact heights and normals at the column tops.

    Parameters
    ----------
    frame : Frame
        Of the result.
    volume, objects, low
        As for `surface_voxels`, with a padding of NORMAL_RADIUS voxels.
    tops : ColumnTops
        On a frame that extends at least one cell beyond `frame`.

    Returns
    -------
    voxels : Voxels
        The surface voxels.
    normal, offset : NDArray (n, 3) float32
        As in `Geometry`.

    Raises
    ------
    FrameError
        If the shapes do not fit, or the tops do not extend far enough.
    """
    if frame.intersection(tops.frame.pad(-1)) != frame:
        raise FrameError(
            f"tops on {tops.frame} do not extend a cell beyond {frame}", "pad their frame"
        )
    size = frame.voxel_size
    voxels = surface_voxels(frame, volume, objects, low, NORMAL_RADIUS)
    row, col = tops.frame.y[1] - 1 - voxels.xyz[:, 1], voxels.xyz[:, 0] - tops.frame.x[0]
    is_top = (voxels.xyz[:, 2] == tops.level[row, col]) & (voxels.faces & TOP != 0)
    rough = ~is_top | (voxels.faces & SIDES != 0)
    normal = occupancy_normals(voxels, volume, low, NORMAL_RADIUS, rough)
    normal = shear_normals(normal, tops.east[row, col], tops.north[row, col])
    offset = face_offsets(voxels.faces, size)
    _apply_tops(
        normal,
        offset,
        is_top,
        voxels.xyz,
        voxels.faces,
        (voxels.semantic == class_code("building"))
        | (structure_classes()[voxels.semantic] & (voxels.object != 0)),
        row,
        col,
        tops.normal,
        tops.top,
        tops.object,
        tops.level,
        size,
    )
    return add_ground_walls(
        frame, voxels, normal, offset, tops.frame, tops.ground, volume, low, NORMAL_RADIUS
    )


def surface_of_heights(
    window: Frame,
    ground: NDArray,
    height: NDArray,
    semantic: NDArray,
    objects: NDArray | None = None,
    *,
    absolute: bool = False,
) -> Geometry:
    """Return the closed surface of solid columns, given their heights and land classes.

    All arrays lie on `window.pad(HEIGHT_MARGIN)`, rows from north to south, because normals depend
    on the columns around. A stage with height maps is then complete with::

        def surface(window, inputs, noise):
            around = window.pad(HEIGHT_MARGIN)
            ...
            return surface_of_heights(window, ground, height, semantic).block()

    Parameters
    ----------
    window : Frame
        Of the result.
    ground : NDArray (ny + 2 HEIGHT_MARGIN, nx + 2 HEIGHT_MARGIN) float32
        Absolute height of the ground, metres.
    height : NDArray float32
        Height of what stands on the ground, metres; 0 or less for bare ground. Heights above the
        frame's z range are cut off.
    semantic : NDArray uint8
        Land class of each column, a code of `geo_io.legend`; 0, unknown, becomes grassland. Walls
        of the class "building" are upright.
    objects : NDArray uint32, optional
        One number for all columns of a building or tree, 0 for the ground; columns without height
        count as ground. Default: all 0. Tops of different objects are not smoothed into each other.
    absolute : bool
        Whether `height` is absolute, such as a surface model, instead of above the ground.

    Returns
    -------
    Geometry
        The surface on `window`; its `block()` is the result of a geometry backend's last stage.

    Raises
    ------
    FrameError
        If an array does not fit `window.pad(HEIGHT_MARGIN)`.
    PluginError
        If a height is not finite, or a class or object number is not an unsigned integer in range.
    """
    around = window.pad(HEIGHT_MARGIN)
    size, z_end = window.voxel_size, window.z[1]
    ground = _require("ground", ground, around, np.float32)
    height = _require("height", height, around, np.float64 if absolute else np.float32)
    cover = fill_unknown_cover(_require("semantic", semantic, around, np.uint8))
    number = np.zeros(around.shape, np.uint32)
    if objects is not None:
        number = _require("objects", objects, around, np.uint32)
    if absolute:
        height = (height - ground).astype(np.float32)
    top = np.clip(height, np.float32(0), np.float32(z_end * size))
    number = np.where(top_level(top, size, z_end) >= 0, number, np.uint32(0))
    tops = column_tops(around, ground, top, number, cover, z_end)
    # One level below the ground's surface voxels, z = -1, so that they have solid voxels below.
    z = np.arange(-2, int(tops.level.max()) + 2)
    solid = z <= tops.level[..., None]
    volume = np.where(solid, cover[..., None], np.uint8(0))
    numbers = np.where(solid & (z >= 0), number[..., None], np.uint32(0))
    edge = HEIGHT_MARGIN - NORMAL_RADIUS
    volume, numbers = (np.ascontiguousarray(a[edge:-edge, edge:-edge]) for a in (volume, numbers))
    voxels, normal, offset = surface_of_columns(window, volume, numbers, int(z[0]), tops)
    inside = np.ascontiguousarray(ground[around.slices(window)])
    return Geometry(window, inside, voxels, offset, normal)


def _require(name: str, values: NDArray, frame: Frame, dtype: type[np.generic]) -> NDArray:
    """Return an argument of `surface_of_heights` as a contiguous array of `dtype`, checked."""
    values = np.asarray(values)
    if values.shape != frame.shape:
        raise FrameError(
            f"{name} of shape {values.shape} does not fit {frame} of shape {frame.shape}",
            "compute it on window.pad(HEIGHT_MARGIN)",
        )
    if np.issubdtype(dtype, np.floating):
        if not np.isfinite(values).all():
            raise PluginError(f"{name} on {frame} is not finite everywhere", "fill its gaps")
    elif values.dtype.kind not in "bui" or not np.array_equal(values, values.astype(dtype)):
        raise PluginError(
            f"{name} on {frame} has values that {np.dtype(dtype).name} cannot hold",
            "pass unsigned integers in range",
        )
    return np.ascontiguousarray(values, dtype)


@numba.njit(cache=True, nogil=True)
def _column_normals(ground, top, number, semantic, size):  # type: ignore[no-untyped-def]
    """Return (ny, nx, 3) float32 unit normals of the tops, from neighbours of the same object."""
    rows, cols = ground.shape
    out = np.zeros((rows, cols, 3), np.float32)
    for row in range(rows):
        for col in range(cols):
            here = ground[row, col] + top[row, col]
            slope = np.zeros(2)
            for axis in range(2):
                total, count = 0.0, 0
                before, after = (
                    (row, col - 1) if axis == 0 else (row + 1, col),
                    ((row, col + 1) if axis == 0 else (row - 1, col)),
                )
                around = 0.0
                if (
                    min(before[0], before[1], after[0], after[1]) >= 0
                    and max(before[0], after[0]) < rows
                    and max(before[1], after[1]) < cols
                ):
                    around = (ground[after] - ground[before]) / (2.0 * size)
                for side in (-1, 1):
                    r, c = (row, col + side) if axis == 0 else (row - side, col)
                    if r < 0 or r >= rows or c < 0 or c >= cols:
                        continue
                    same = number[r, c] == number[row, col] and semantic[r, c] == semantic[row, col]
                    if not same and (number[r, c] != 0 or number[row, col] != 0):
                        continue
                    if is_step(ground[r, c] - ground[row, col], around, size):
                        continue  # a wall of the ground: the top goes up to its edge
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
def _is_roof_step(faces, r, c, top, number):  # type: ignore[no-untyped-def]
    """Return whether a voxel is open only where a steep roof steps down: not a wall.

    The neighbour belongs to the same building, and the roof goes on rising or falling beyond; at
    an upright band, such as that of a sawtooth roof or a chimney, it does neither.
    """
    for side in range(4):
        if faces & (1 << side) == 0:
            continue
        dr, dc = ((0, -1), (0, 1), (1, 0), (-1, 0))[side]
        if number[r + dr, c + dc] != number[r, c]:
            return False
        down = top[r, c] - top[r + dr, c + dc]
        beyond = top[r - dr, c - dc] - top[r, c]
        if number[r - dr, c - dc] != number[r, c] or abs(beyond) < 0.2 * down:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _apply_tops(  # type: ignore[no-untyped-def]
    normal, offset, tops, xyz, faces, building, row, col, normals, top, number, level, size
):
    """Set exact normals and offsets where a voxel is its column's top, and make walls upright."""
    for n in range(xyz.shape[0]):
        r, c = row[n], col[n]
        if not tops[n]:
            if building[n] and faces[n] & TOP_AND_BOTTOM == 0:
                flat = np.sqrt(normal[n, 0] ** 2 + normal[n, 1] ** 2)
                if _is_roof_step(faces[n], r, c, top, number):
                    # Never quite upright, so that textures know a steep roof from a wall.
                    up = max(normal[n, 2], STEEP_ROOF)
                    length = np.sqrt(flat * flat + up * up)
                    normal[n, 0], normal[n, 1] = normal[n, 0] / length, normal[n, 1] / length
                    normal[n, 2] = up / length
                elif flat > 0.2:
                    normal[n, 0], normal[n, 1], normal[n, 2] = (
                        normal[n, 0] / flat,
                        normal[n, 1] / flat,
                        0.0,
                    )
            continue
        offset[n, 0], offset[n, 1] = 0.0, 0.0
        offset[n, 2] = top[r, c] - (xyz[n, 2] + 0.5) * size
        a, b, z = normals[r, c, 0], normals[r, c, 1], normals[r, c, 2]
        # Sides that drop to another object make an edge; the steps of one roof do not.
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
            # One disc covers the edge of the roof and the wall below it: it chamfers the edge.
            far = np.sqrt(drop_x * drop_x + drop_y * drop_y)
            offset[n, 0], offset[n, 1] = 0.25 * size * drop_x / far, 0.25 * size * drop_y / far
            offset[n, 2] -= 0.2 * size
            a, b = a + 0.75 * drop_x / far, b + 0.75 * drop_y / far
            length = np.sqrt(a * a + b * b + z * z)
            a, b, z = a / length, b / length, z / length
        normal[n, 0], normal[n, 1], normal[n, 2] = a, b, z
