"""Walls of the ground: cliffs, quarries and quays, where it drops by voxels from column to column.

Voxels lie on a lattice whose heights are above the ground of each column, so the top of the ground
is one voxel a column however steep it is, and between two columns of a cliff there is none. Wall
voxels close it: they hang below the ground's surface voxel of the upper column, in the plane of the
wall, and cover it down to the foot. They carry the bit `WALL`: those who draw the lattice as a
solid, such as meshes, leave them out, since the solid has no opening there.

A frame has few voxels below the ground. A wall that is deeper is covered by as many, whose heights
grow downwards in a geometric series, so that the upper edge stays sharp.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.stages.block import column_order
from earthgen.terrain.cover import CODES, class_code, on_surface
from earthgen.voxels.voxels import WALL, Voxels
from geo_io.frame import Frame

LEAST_STEP = 2.0
"""A wall is a step of more than so many voxels between two columns,"""

STEEPEST = 4.0
"""and of more than so many, or more than `STEP_SHARE` of the slope around: a steep slope has steps
too, and discs that are stretched down the slope cover it."""

STEP_SHARE = 1.5

HIGHEST = 3000.0
"""Metres that a wall is covered down to."""


@numba.njit(cache=True, nogil=True, inline="always")
def is_step(drop, slope, size):  # type: ignore[no-untyped-def]
    """Return whether a drop between two columns is a wall.

    drop : metres
    slope : of the ground along the same axis, rise over run
    """
    drop = abs(drop)
    return drop > LEAST_STEP * size and (
        drop > STEEPEST * size or drop > STEP_SHARE * abs(slope) * size
    )


def add_ground_walls(
    frame: Frame,
    voxels: Voxels,
    normal: NDArray,
    offset: NDArray,
    around: Frame,
    ground: NDArray,
    volume: NDArray,
    low: int,
    pad: int,
) -> tuple[Voxels, NDArray, NDArray]:
    """Add the voxels of walls of the ground to a surface.

    Parameters
    ----------
    frame : Frame
        Of the surface.
    voxels : Voxels
        Surface voxels, sorted by (y, x, z).
    normal, offset : NDArray (n, 3) float32
        As in `Geometry`.
    around : Frame
        Of the ground; extends at least a cell beyond `frame`.
    ground : NDArray (ny, nx) float32
        Absolute height of the ground, metres.
    volume, low, pad
        As for `surface_voxels`: what stands on a column hides the wall behind it.

    Returns
    -------
    voxels, normal, offset
        As given where there is no wall.
    """
    rows, columns = around.slices(frame)
    near = np.ascontiguousarray(
        ground[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1]
    )
    if np.abs(np.diff(near, axis=0)).max() <= LEAST_STEP * frame.voxel_size and (
        np.abs(np.diff(near, axis=1)).max() <= LEAST_STEP * frame.voxel_size
    ):
        return voxels, normal, offset
    inner = slice(pad - 1, volume.shape[0] - pad + 1), slice(pad - 1, volume.shape[1] - pad + 1)
    solid = np.ascontiguousarray(volume[inner])
    args = (near, solid, low, frame.z[0], frame.x[0], frame.y[0], frame.voxel_size)
    count = _walls(*args, *_rows(0), _classes(), False)
    if count == 0:
        return voxels, normal, offset
    xyz, semantic, faces, walls, moved = _rows(count)
    _walls(*args, xyz, semantic, faces, walls, moved, _classes(), True)
    every = np.concatenate([voxels.xyz, xyz])
    order = column_order(every)
    joined = Voxels(
        frame,
        every[order],
        np.concatenate([voxels.semantic, semantic])[order],
        np.concatenate([voxels.faces, faces])[order],
        np.concatenate([voxels.object, np.zeros(count, np.uint32)])[order],
    )
    return (
        joined,
        np.concatenate([normal, walls])[order],
        np.concatenate([offset, moved])[order],
    )


def _rows(count: int) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    return (
        np.empty((count, 3), np.int32),
        np.empty(count, np.uint8),
        np.empty(count, np.uint8),
        np.empty((count, 3), np.float32),
        np.empty((count, 3), np.float32),
    )


def _classes() -> NDArray:
    """Return the class of a wall by that of the ground above it: (CODES,) uint8."""
    table = np.full(CODES, class_code("rock"), np.uint8)
    every = np.arange(CODES, dtype=np.uint8)
    table[on_surface(every, "building", "road")] = class_code("paved")
    for kept in ("paved", "snow_ice", "extraction", "bare_ground", "sand"):
        table[class_code(kept)] = class_code(kept)
    return table


@numba.njit(cache=True, nogil=True)
def _growth(depth, size, count):  # type: ignore[no-untyped-def]
    """Return the ratio of a geometric series of `count` heights from `size` that sums to depth."""
    if count * size >= depth:
        return 1.0
    low, high = 1.0, 2.0
    while _sum(high, size, count) < depth:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _sum(middle, size, count) < depth:
            low = middle
        else:
            high = middle
    return high


@numba.njit(cache=True, nogil=True)
def _sum(ratio, size, count):  # type: ignore[no-untyped-def]
    total, height = 0.0, size
    for _ in range(count):
        total += height
        height *= ratio
    return total


@numba.njit(cache=True, nogil=True)
def _walls(  # type: ignore[no-untyped-def]
    ground, volume, low, z0, x0, y0, size, xyz, semantic, faces, normal, offset, classes, fill
):
    """Count the wall voxels, or fill the arrays with them; `ground` has a margin of one cell."""
    rows, cols = ground.shape[0] - 2, ground.shape[1] - 2
    available = -1 - z0
    n = 0
    drops = np.zeros(4)
    for row in range(rows, 0, -1):
        for col in range(1, cols + 1):
            deepest = 0.0
            for side in range(4):
                dr, dc = ((0, -1), (0, 1), (1, 0), (-1, 0))[side]
                r, c = row + dr, col + dc
                drops[side] = 0.0
                slope = (ground[row + dr, col + dc] - ground[row - dr, col - dc]) / (2.0 * size)
                if not is_step(ground[row, col] - ground[r, c], slope, size):
                    continue
                top = 0
                while top < volume.shape[2] and volume[r, c, top] != 0:
                    top += 1
                stands = max(low + top, 0) * size
                drop = min(float(ground[row, col]) - float(ground[r, c]) - stands, HIGHEST)
                if drop > LEAST_STEP * size:
                    drops[side] = drop
                    deepest = max(deepest, drop)
            if deepest == 0.0 or available < 1:
                continue
            count = min(int(np.ceil(deepest / size)), available)
            ratio = _growth(deepest, size, count)
            upper, height = 0.0, size
            for k in range(count):
                east, north, sides = 0.0, 0.0, 0
                for side in range(4):
                    if drops[side] > upper:
                        dr, dc = ((0, -1), (0, 1), (1, 0), (-1, 0))[side]
                        sides |= 1 << side
                        east += dc
                        north -= dr
                lower = min(upper + height, deepest)
                if sides != 0:
                    if fill:
                        if east == 0.0 and north == 0.0:  # open on opposite sides: one of them
                            east = 1.0 if sides & 2 else 0.0
                            north = 0.0 if sides & 2 else 1.0
                        far = np.sqrt(east * east + north * north)
                        total = abs(east) + abs(north)
                        xyz[n, 0], xyz[n, 1] = x0 + col - 1, y0 + rows - row
                        xyz[n, 2] = -2 - k
                        semantic[n] = classes[volume[row, col, 0]]
                        faces[n] = sides | WALL
                        normal[n, 0], normal[n, 1], normal[n, 2] = east / far, north / far, 0.0
                        offset[n, 0] = 0.5 * size * east / total
                        offset[n, 1] = 0.5 * size * north / total
                        offset[n, 2] = (1.5 + k) * size - 0.5 * (upper + lower)
                    n += 1
                upper = lower
                height *= ratio
    return n


def wall_heights(voxels: Voxels, offset: NDArray) -> NDArray:
    """Return the height that each wall voxel covers, (n,) float32 metres; 0 for other voxels.

    It follows from the distance to the voxel above: the heights of neighbours are about equal.
    """
    size = voxels.frame.voxel_size
    out = np.zeros(len(voxels), np.float32)
    wall = np.flatnonzero(voxels.faces & WALL)
    if not len(wall):
        return out
    centre = (voxels.xyz[:, 2] + 0.5) * size + offset[:, 2]
    above = np.minimum(wall + 1, len(voxels) - 1)
    same = (voxels.xyz[above, :2] == voxels.xyz[wall, :2]).all(axis=1) & (above > wall)
    same &= voxels.faces[above] & WALL != 0
    out[wall] = np.where(same, 1.1 * np.abs(centre[above] - centre[wall]), size)
    return out
