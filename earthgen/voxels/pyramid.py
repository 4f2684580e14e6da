"""Levels of detail: overviews of the dense layers, and voxels and Gaussians of doubled size.

The rule (source: own). A coarse cell has 2 x 2 children, a coarse voxel 2 x 2 x 2, all of the level
before. Heights and colours are means over the children with data. The class of a cell is the most
frequent one, of equally frequent ones the first in row order.

A coarse voxel exists where any of its children is a surface voxel. A side of it is open if that
side of a child is open and no coarse voxel is adjacent there; voxels without an open side are
dropped, because others hide them. Class and object are those of the topmost child, of equally high
ones the last in row order. The Gaussian is the mean of the children's, with twice the standard
deviations. Sums run in float32 over the children, sorted by (y, x, z).

So a voxel depends on what lies within one coarse voxel of it at each level, at most LEVEL_HALO
voxels, whatever piece of the world is computed.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.stages.block import Block, take_runs
from earthgen.voxels.columns import ColumnIndex, index_columns
from earthgen.voxels.tile import LEVELS, Tile, tile_from_voxels
from earthgen.voxels.voxels import WALL, Splats, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

LEVEL_HALO = 16
"""Voxels of geometry around a piece of a world that make all its levels exact.

Each level depends on one of its own voxels more: 2 + 4 + 8 = 14 voxels, rounded up to whole voxels
of level 8. This holds for any voxels and faces, also for a surface that the height range cuts off;
a closed surface would need 8.
"""


def build_pyramid(frame: Frame, geometry: Block, texture: Block) -> list[Tile]:
    """Return the tiles of all `LEVELS` of a piece of a world.

    The content at a place does not depend on the piece.

    Parameters
    ----------
    frame : Frame
        The piece; its x and y ranges are multiples of 8.
    geometry : Block
        GEOMETRY_FIELDS on `frame.pad(LEVEL_HALO)`, rows sorted by (y, x, z).
    texture : Block
        `texture_fields` on `frame`, one row per voxel of the geometry in `frame`, in the same
        order.

    Returns
    -------
    list of Tile
        One for each level, on `frame.coarsen(level)`.

    Raises
    ------
    FrameError
        If the frames do not fit.
    PluginError
        If the rows do not fit.
    """
    if any(edge % LEVELS[-1] for edge in (*frame.x, *frame.y)):
        raise FrameError(
            f"{frame} does not consist of whole voxels of level {LEVELS[-1]}",
            f"align it to multiples of {LEVELS[-1]}",
        )
    for block, required in ((geometry, frame.pad(LEVEL_HALO)), (texture, frame)):
        block.frame.require_lattice(required)
        if (block.frame.x, block.frame.y) != (required.x, required.y):
            raise FrameError(
                f"levels of {frame} need a block on {required}, not on {block.frame}",
                "crop or pad it",
            )
    xyz = np.empty((0, 3), np.int32) if geometry.xyz is None else geometry.xyz
    around = index_columns(geometry.frame, xyz, geometry["faces"])
    runs = around.runs_in(frame)
    voxels = Voxels(
        frame,
        *(
            take_runs(a, runs)
            for a in (xyz, geometry["semantic"], geometry["faces"], geometry["object"])
        ),
    )
    splats = Splats.of(texture)
    same = len(splats) == len(voxels) and (
        texture.xyz is None or np.array_equal(texture.xyz, voxels.xyz)
    )
    if not same:
        raise PluginError(
            f"{len(splats)} Gaussians do not match the {len(voxels)} voxels of {frame}",
            "report it to the texture plugin's author",
        )
    ground = geometry["ground"][geometry.frame.slices(frame)]
    return _levels(tile_from_voxels(frame, ground, voxels, splats), around)


def tile_levels(tile: Tile) -> list[Tile]:
    """Return the levels of a level-1 tile without neighbours, by the rule of `build_pyramid`.

    Its frame need not be aligned; coarse cells at its border have fewer children.

    Raises
    ------
    PluginError
        If the voxels are not sorted by (y, x, z) or not in the frame.
    """
    return _levels(tile, index_columns(tile.frame, tile.voxels.xyz, tile.voxels.faces))


def _levels(tile: Tile, around: ColumnIndex) -> list[Tile]:
    """Return the levels of a tile, given the voxels in and around it."""
    tiles = [tile]
    for _ in LEVELS[1:]:  # each has voxels twice as large as those before
        tile, around = _coarsen(tile, around)
        tiles.append(tile)
    return tiles


def _coarsen(tile: Tile, around: ColumnIndex) -> tuple[Tile, ColumnIndex]:
    """Return a tile and the voxels in and around it at twice the voxel size."""
    frame = tile.frame.coarsen(2)
    coarse, parent = _merge(around)
    runs = coarse.runs_in(frame)
    # Row in the tile of each coarse voxel; the last entry is for parent -1.
    number = np.full(len(coarse.xyz) + 1, -1, np.int32)
    at = 0
    for first, end in runs:
        number[first:end] = np.arange(at, at + end - first)
        at += end - first
    parent = number[take_runs(parent, around.runs_in(tile.frame))]
    voxels, splats = tile.voxels, tile.splats
    bands = prod(splats.sh.shape[1:])
    top, count = np.full(at, -1, np.int32), np.zeros(at, np.float32)
    offset, scale, rotation = (np.zeros((at, k), np.float32) for k in (3, 2, 4))
    opacity, sh = np.zeros(at, np.float32), np.zeros((at, bands), np.float32)
    children = (
        splats.offset,
        splats.scale,
        splats.rotation,
        splats.opacity,
        splats.sh.reshape(len(splats), bands),
    )
    _add_children(
        parent,
        np.ascontiguousarray(voxels.xyz, np.int32),
        np.float32(tile.frame.voxel_size / 2),
        tuple(np.ascontiguousarray(values, np.float32) for values in children),
        top,
        count,
        (offset, scale, rotation, opacity, sh),
    )
    offset /= count[:, None]
    scale /= count[:, None] / np.float32(2)
    opacity /= count
    sh /= count[:, None]
    _rotations_of_sums(rotation, count)
    merged = Splats(offset, scale, rotation, opacity, sh.reshape(at, *splats.sh.shape[1:]))
    coarse_voxels = Voxels(
        frame,
        take_runs(coarse.xyz, runs),
        voxels.semantic[top],
        take_runs(coarse.faces, runs),
        voxels.object[top],
    )
    return replace(_overview(tile, frame), voxels=coarse_voxels, splats=merged), coarse


def _merge(fine: ColumnIndex) -> tuple[ColumnIndex, NDArray]:
    """Return the coarse voxels that have an open side, and each voxel's parent.

    Parents are (n,) int32 rows of the coarse voxels, -1 for a dropped one.
    """
    frame = fine.frame.coarsen(2)
    n = len(fine.xyz)
    xyz, faces, parent = np.empty((n, 3), np.int32), np.empty(n, np.uint8), np.empty(n, np.int32)
    start = np.empty(frame.nx * frame.ny + 1, np.int64)
    shape = (frame.x[0], frame.y[0], frame.nx, frame.ny)
    _find_parents(
        fine.xyz,
        fine.faces,
        fine.start,
        fine.frame.x[0],
        fine.frame.y[0],
        fine.frame.nx,
        fine.frame.ny,
        *shape,
        xyz,
        faces,
        start,
        parent,
    )
    _close_faces(xyz, faces, start, frame.nx, frame.ny)
    n = _drop_hidden(xyz, faces, start, parent)
    return ColumnIndex(frame, xyz[:n], faces[:n], start), parent


@numba.njit(cache=True, nogil=True)
def _find_parents(  # type: ignore[no-untyped-def]
    xyz, faces, start, x0, y0, nx, ny, px0, py0, pnx, pny, out_xyz, out_faces, out_start, parent
):
    """Merge the four columns of each coarse column; a side is open if that of a child is."""
    at, end = np.zeros(4, np.int64), np.zeros(4, np.int64)
    n = 0
    for row in range(pny):
        for col in range(pnx):
            out_start[row * pnx + col] = n
            for child in range(4):
                x, y = 2 * (px0 + col) + child % 2 - x0, 2 * (py0 + row) + child // 2 - y0
                at[child], end[child] = 0, 0
                if 0 <= x < nx and 0 <= y < ny:
                    at[child], end[child] = start[y * nx + x], start[y * nx + x + 1]
            while True:
                lowest, any_left = 0, False
                for child in range(4):
                    if at[child] < end[child]:
                        z = xyz[at[child], 2] >> 1
                        if not any_left or z < lowest:
                            lowest, any_left = z, True
                if not any_left:
                    break
                # A voxel of which only walls of the ground are children is one; beside others
                # they do not count, so that the height of the surface stays.
                sides, wall_sides, solid = np.uint8(0), np.uint8(0), False
                for child in range(4):
                    k = at[child]
                    while k < end[child] and xyz[k, 2] >> 1 == lowest:
                        if faces[k] & WALL:
                            wall_sides |= faces[k]
                        else:
                            sides |= faces[k]
                            solid = True
                        k += 1
                for child in range(4):
                    k = at[child]
                    while k < end[child] and xyz[k, 2] >> 1 == lowest:
                        parent[k] = -1 if solid and faces[k] & WALL else n
                        k += 1
                    at[child] = k
                out_xyz[n, 0], out_xyz[n, 1], out_xyz[n, 2] = px0 + col, py0 + row, lowest
                out_faces[n] = sides if solid else wall_sides
                n += 1
    out_start[pnx * pny] = n


@numba.njit(cache=True, nogil=True)
def _close_faces(xyz, faces, start, nx, ny):  # type: ignore[no-untyped-def]
    """Close the sides that touch another voxel; the bits are those of FACES."""
    for row in range(ny):
        for col in range(nx):
            column = row * nx + col
            for k in range(start[column] + 1, start[column + 1]):
                if xyz[k, 2] == xyz[k - 1, 2] + 1:
                    faces[k] &= 255 - 16
                    faces[k - 1] &= 255 - 32
            if col + 1 < nx:
                _close_between(xyz, faces, start, column, column + 1, 2, 1)
            if row + 1 < ny:
                _close_between(xyz, faces, start, column, column + nx, 8, 4)


@numba.njit(cache=True, nogil=True)
def _close_between(xyz, faces, start, here, there, side, back):  # type: ignore[no-untyped-def]
    a, b = start[here], start[there]
    while a < start[here + 1] and b < start[there + 1]:
        if xyz[a, 2] < xyz[b, 2]:
            a += 1
        elif xyz[b, 2] < xyz[a, 2]:
            b += 1
        else:
            if not (faces[a] | faces[b]) & WALL:
                faces[a] &= 255 - side
                faces[b] &= 255 - back
            a += 1
            b += 1


@numba.njit(cache=True, nogil=True)
def _drop_hidden(xyz, faces, start, parent):  # type: ignore[no-untyped-def]
    """Remove voxels without an open side in place, update parents, and return the number left."""
    number = np.empty(start[-1], np.int32)
    n = 0
    first = start[0]
    for column in range(start.shape[0] - 1):
        end = start[column + 1]
        start[column] = n
        for k in range(first, end):
            number[k] = -1
            if faces[k] != 0:
                number[k] = n
                xyz[n, 0], xyz[n, 1], xyz[n, 2] = xyz[k, 0], xyz[k, 1], xyz[k, 2]
                faces[n] = faces[k]
                n += 1
        first = end
    start[-1] = n
    for k in range(parent.shape[0]):
        if parent[k] >= 0:
            parent[k] = number[parent[k]]
    return n


@numba.njit(cache=True, nogil=True)
def _add_children(parent, xyz, half, children, top, count, sums):  # type: ignore[no-untyped-def]
    """Sum the children of each parent, in one pass because memory bandwidth is the limit.

    half : half a child's edge, the distance of its centre from its parent's along each axis
    children : their offset, scale, rotation, opacity and sh
    top : filled with the row of the topmost child, of equally high ones the last
    sums : filled like `children`; the first three columns of rotation get the sum of the normals
    """
    offset, scale, rotation, opacity, sh = children
    out_offset, out_scale, out_normal, out_opacity, out_sh = sums
    one, two = np.float32(1), np.float32(2)
    for k in range(parent.shape[0]):
        p = parent[k]
        if p < 0:
            continue
        count[p] += one
        if top[p] < 0 or xyz[k, 2] >= xyz[top[p], 2]:
            top[p] = k
        for axis in range(3):
            out_offset[p, axis] += offset[k, axis] + (half if xyz[k, axis] & 1 else -half)
        out_scale[p, 0] += scale[k, 0]
        out_scale[p, 1] += scale[k, 1]
        w, x, y, z = rotation[k, 0], rotation[k, 1], rotation[k, 2], rotation[k, 3]
        out_normal[p, 0] += two * (x * z + w * y)
        out_normal[p, 1] += two * (y * z - w * x)
        out_normal[p, 2] += one - two * (x * x + y * y)
        out_opacity[p] += opacity[k]
        for band in range(sh.shape[1]):
            out_sh[p, band] += sh[k, band]


@numba.njit(cache=True, nogil=True)
def _rotations_of_sums(rotation, count):  # type: ignore[no-untyped-def]
    """Turn sums of normals into rotations of their means, in place; up where they cancel out."""
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    for p in range(rotation.shape[0]):
        a, b, c = rotation[p, 0] / count[p], rotation[p, 1] / count[p], rotation[p, 2] / count[p]
        length = np.sqrt(a * a + b * b + c * c)
        if length > np.float32(1e-6):
            a, b, c = a / length, b / length, c / length
        else:
            a, b, c = zero, zero, one
        w = np.sqrt(max((one + c) / two, zero))
        if w < np.float32(1e-4):
            w, x, y = zero, one, zero  # straight down, as in `disc_rotations`
        else:
            scale = one / (two * w)
            x, y = -b * scale, a * scale
            length = np.sqrt(w * w + x * x + y * y)
            w, x, y = w / length, x / length, y / length
        rotation[p, 0], rotation[p, 1], rotation[p, 2], rotation[p, 3] = w, x, y, zero


def _overview(tile: Tile, frame: Frame) -> Tile:
    """Return the tile with its dense layers at twice the cell size; voxels stay as in `tile`."""
    # Where the tile begins in `frame`, in fine cells.
    row, col = frame.y[1] * 2 - tile.frame.y[1], tile.frame.x[0] - frame.x[0] * 2
    ground, surface = np.empty(frame.shape, np.float32), np.empty(frame.shape, np.float32)
    semantics, rgb = np.empty(frame.shape, np.uint8), np.empty((*frame.shape, 3), np.uint8)
    _mean_of_four(np.ascontiguousarray(tile.ground, np.float32), row, col, ground)
    _mean_of_four(np.ascontiguousarray(tile.surface, np.float32), row, col, surface)
    classes = np.ascontiguousarray(tile.semantics)
    _mode_of_four(classes, row, col, semantics)
    _colour_of_four(np.ascontiguousarray(tile.rgb), classes, row, col, rgb)
    return replace(tile, frame=frame, ground=ground, surface=surface, semantics=semantics, rgb=rgb)


@numba.njit(cache=True, nogil=True)
def _mean_of_four(data, row, col, out):  # type: ignore[no-untyped-def]
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            total, count = 0.0, 0
            for i in range(max(2 * r - row, 0), min(2 * r + 2 - row, data.shape[0])):
                for j in range(max(2 * c - col, 0), min(2 * c + 2 - col, data.shape[1])):
                    if not np.isnan(data[i, j]):
                        total += data[i, j]
                        count += 1
            out[r, c] = total / count if count else np.nan


@numba.njit(cache=True, nogil=True)
def _mode_of_four(data, row, col, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the most frequent non-zero value; of equals the first in row order."""
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            best, most = 0, 0
            first, last = max(2 * r - row, 0), min(2 * r + 2 - row, data.shape[0])
            left, right = max(2 * c - col, 0), min(2 * c + 2 - col, data.shape[1])
            for i in range(first, last):
                for j in range(left, right):
                    votes = 0
                    for k in range(first, last):
                        for m in range(left, right):
                            votes += data[k, m] == data[i, j]
                    if data[i, j] != 0 and votes > most:
                        best, most = data[i, j], votes
            out[r, c] = best


@numba.njit(cache=True, nogil=True)
def _colour_of_four(rgb, classes, row, col, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the mean over the cells that have a class; black where none has."""
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            red, green, blue, count = 0.0, 0.0, 0.0, 0
            for i in range(max(2 * r - row, 0), min(2 * r + 2 - row, rgb.shape[0])):
                for j in range(max(2 * c - col, 0), min(2 * c + 2 - col, rgb.shape[1])):
                    if classes[i, j] != 0:
                        red, green, blue = (
                            red + rgb[i, j, 0],
                            green + rgb[i, j, 1],
                            blue + rgb[i, j, 2],
                        )
                        count += 1
            weight = max(count, 1)
            out[r, c, 0] = np.uint8(np.rint(red / weight))
            out[r, c, 1] = np.uint8(np.rint(green / weight))
            out[r, c, 2] = np.uint8(np.rint(blue / weight))
