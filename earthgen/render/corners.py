"""Heights of the corners of a voxel mesh, and the walls where the ground drops.

A corner of the lattice lies between four columns, each with a ground of its own. Where these differ
little, the corner is one point. Where the ground drops by a wall, as at a cliff, a quay or the
abutment of a bridge, the columns above and below have a point each: what stands or hangs on one of
them is not drawn towards the ground of the other. Upright quads between both points keep the mesh
closed.

All of it depends on the four columns around a corner only, so that tiles match exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.voxels.voxels import WALL

DROP = 4.0
"""Voxels by which the ground of two columns must differ to have a wall between them; what is less
steep is a slope,"""

ABUTMENT = 0.75
"""unless something lower columns carry lies level with the higher ground, within so many voxels."""

JOINED = 0.75
"""Voxels within which tops of neighbouring columns are one surface, whatever their lattice heights:
on a slope, a level roof has others from column to column."""

THIN = 2
"""Voxels up to which the underside of what hangs is parallel to its top."""


@dataclass(frozen=True)
class Columns:
    """The columns of a piece and those next to it.

    Attributes
    ----------
    ground : NDArray (ny + 2, nx + 2) float64
        Metres, rows from the south; NaN where there is none.
    start : NDArray ((nx + 2) * (ny + 2) + 1,) int64
        Where each column begins in `z`.
    z, faces, lift : NDArray (m,)
        Lattice height, open sides, and height of the surface above the voxel's top, metres.
    split : NDArray (ny + 1, nx + 1) uint8
        Pairs of columns around each corner with a wall between them: south 1, north 2, west 4,
        east 8; 16 times as much where one of them has no ground.
    size : float
        Edge of a voxel, metres.
    """

    ground: NDArray
    start: NDArray
    z: NDArray
    faces: NDArray
    lift: NDArray
    split: NDArray
    size: float


def columns_of(
    ground: NDArray, start: NDArray, z: NDArray, faces: NDArray, lift: NDArray, size: float
) -> Columns:
    """Return the columns of a piece, with the walls between them."""
    heights = ground.astype(np.float64)
    return Columns(
        heights, start, z, faces, lift, _splits(heights, start, z, faces, lift, size), size
    )


def ground_corners(columns: Columns) -> NDArray:
    """Return the heights of the ground at the corners of each column of a piece.

    Returns
    -------
    NDArray (4, ny, nx) float64
        Metres, rows from the south; corners are numbered from the south-west by x + 2 y.
    """
    ny, nx = columns.ground.shape[0] - 2, columns.ground.shape[1] - 2
    out = np.empty((4, ny, nx))
    _ground_corners(columns.ground, columns.split, out)
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def find(z, low, high, wanted):  # type: ignore[no-untyped-def]
    """Index of `wanted` in the sorted z[low:high], -1 if it is absent."""
    while high - low > 8:
        middle = (low + high) >> 1
        if z[middle] <= wanted:
            low = middle
        else:
            high = middle
    for k in range(low, high):
        if z[k] == wanted:
            return k
    return -1


@numba.njit(cache=True, nogil=True)
def solid(z, faces, low, high, wanted):  # type: ignore[no-untyped-def]
    """Whether a column with surface voxels z[low:high] is solid at height `wanted`.

    Between two surface voxels it is solid if they are not open to each other.
    """
    for k in range(low, high):
        if z[k] == wanted:
            return True
        if z[k] > wanted:
            return not faces[k] & 16
    return high > low and not faces[high - 1] & 32


@numba.njit(cache=True, nogil=True)
def _is_wall(high, low, column, start, z, faces, lift, size):  # type: ignore[no-untyped-def]
    """Whether there is a wall between a column and a lower one, number `column`."""
    drop = high - low
    if drop > DROP * size:
        return True
    if not drop > ABUTMENT * size:
        return False
    for i in range(start[column], start[column + 1]):
        if z[i] >= 0 and faces[i] & 32:
            top = low + (z[i] + 1) * size + min(max(lift[i], -size), size)
            if abs(top - high) < ABUTMENT * size:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _splits(ground, start, z, faces, lift, size):  # type: ignore[no-untyped-def]
    rows, pitch = ground.shape
    out = np.zeros((rows - 1, pitch - 1), np.uint8)
    for y in range(rows):
        for x in range(pitch):
            for way in range(2):  # the pair with the column to the east, and to the north
                r, c = (y, x + 1) if way == 0 else (y + 1, x)
                if r == rows or c == pitch:
                    continue
                here, there = ground[y, x], ground[r, c]
                first, second = y * pitch + x, r * pitch + c
                if here > there:
                    wall = _is_wall(here, there, second, start, z, faces, lift, size)
                elif here < there:
                    wall = _is_wall(there, here, first, start, z, faces, lift, size)
                else:
                    wall = False
                # Through columns without ground, others do not share a point.
                bits = 16 if not np.isfinite(here - there) else 1
                if not wall and bits == 1:
                    continue
                if way == 0:
                    if y < rows - 1:
                        out[y, x] |= bits
                    if y > 0:
                        out[y - 1, x] |= 2 * bits
                else:
                    if x < pitch - 1:
                        out[y, x] |= 4 * bits
                    if x > 0:
                        out[y, x - 1] |= 8 * bits
    for y in range(rows - 1):
        for x in range(pitch - 1):
            # A corner has two points at most: of more walls, the highest remain.
            most = 1 if out[y, x] >> 4 else 2
            while out[y, x] & 15 and _bits(out[y, x] & 15) > most:
                worst, least = 0, np.inf
                for pair in range(4):
                    a, b = ((0, 1), (2, 3), (0, 2), (1, 3))[pair]
                    if out[y, x] & (1 << pair):
                        first = ground[y + (a >> 1), x + (a & 1)]
                        drop = abs(first - ground[y + (b >> 1), x + (b & 1)])
                        if drop < least:
                            worst, least = pair, drop
                out[y, x] &= ~np.uint8(1 << worst)
            if out[y, x] == 1 or out[y, x] == 2 or out[y, x] == 4 or out[y, x] == 8:
                out[y, x] = 0  # one wall divides nothing
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def _bits(mask):  # type: ignore[no-untyped-def]
    return (mask & 1) + ((mask >> 1) & 1) + ((mask >> 2) & 1) + ((mask >> 3) & 1)


@numba.njit(cache=True, nogil=True)
def _group(split, own):  # type: ignore[no-untyped-def]
    """Columns around a corner that share the point of column `own`: 4 bits, by x + 2 y."""
    if split == 0:
        return 15
    out = 1 << own
    for _ in range(3):
        for pair in range(4):
            a, b = ((0, 1), (2, 3), (0, 2), (1, 3))[pair]
            if not (split | (split >> 4)) & (1 << pair):
                if out & (1 << a):
                    out |= 1 << b
                if out & (1 << b):
                    out |= 1 << a
    return out


@numba.njit(cache=True, nogil=True)
def _mean_ground(ground, cx, cy, group):  # type: ignore[no-untyped-def]
    total, number = 0.0, 0
    for around in range(4):
        here = ground[cy + (around >> 1), cx + (around & 1)]
        if group & (1 << around) and np.isfinite(here):
            total += here
            number += 1
    return total / number if number else np.nan


@numba.njit(cache=True, nogil=True)
def corner_height(own, cx, cy, k, ground, start, z, faces, lift, split, size):  # type: ignore[no-untyped-def]
    """Height of the corner (cx, cy, k) for column `own` of the four around it, metres.

    Corners of the ground lie at the mean of the columns, lifted by the mean offset of their tops.
    What is above it does not follow the ground between the columns: tops lie where they are over
    the ground of their own columns, joined to those about as high in other columns. Solids that
    touch in a corner, one above it and one below, have a point each.
    """
    pitch = ground.shape[1]
    group = _group(split[cy, cx], own)
    middle = _mean_ground(ground, cx, cy, group)
    touch = k > 0 and split[cy, cx] & 15 == 0
    for around in range(4):
        if touch and group & (1 << around):
            column = (cy + (around >> 1)) * pitch + cx + (around & 1)
            ends = start[column], start[column + 1]
            touch = not (solid(z, faces, *ends, k) and solid(z, faces, *ends, k - 1))
    column = (cy + (own >> 1)) * pitch + cx + (own & 1)
    is_top = not touch or not solid(z, faces, start[column], start[column + 1], k)
    is_underside = not touch or not is_top
    tops, undersides, others = 0, 0, 0
    moved, high, low, beside = 0.0, 0.0, 0.0, 0.0
    for around in range(4):
        if not group & (1 << around):
            continue
        y, x = cy + (around >> 1), cx + (around & 1)
        here = ground[y, x]
        first, last = start[y * pitch + x], start[y * pitch + x + 1]
        below = find(z, first, last, k - 1)
        if is_top and below >= 0 and faces[below] & 32:
            # Offsets beyond the voxel, which half precision may cause, would fold the mesh.
            up = min(max(lift[below], -size), size)
            moved += up
            high += here + up
            tops += 1
        if k <= 0 or tops or not is_underside:
            continue
        above = find(z, first, last, k)
        if above >= 0 and faces[above] & 16:
            low += here
            for n in range(THIN):
                if above + n == last or z[above + n] != k + n:
                    break
                if faces[above + n] & 32:
                    low += min(max(lift[above + n], -size), size)
                    break
            undersides += 1
        elif above >= 0 or below >= 0:
            beside += here
            others += 1
    if k <= 0:
        return middle + k * size + (moved / tops if tops else 0.0)
    if tops:
        level = high / tops + k * size
        total, number = level * tops, tops
        for around in range(4):
            y, x = cy + (around >> 1), cx + (around & 1)
            first, last = start[y * pitch + x], start[y * pitch + x + 1]
            below = find(z, first, last, k - 1)
            if not group & (1 << around) or (below >= 0 and faces[below] & 32):
                continue
            best, least = 0.0, JOINED * size
            for i in range(first, last):
                if z[i] < 0 or not faces[i] & 32:
                    continue
                top = ground[y, x] + (z[i] + 1) * size + min(max(lift[i], -size), size)
                if abs(top - level) < least:
                    best, least = top, abs(top - level)
            if least < JOINED * size:
                total += best
                number += 1
        return total / number
    if undersides:
        return low / undersides + k * size
    if others:
        return beside / others + k * size
    return middle + k * size


@numba.njit(cache=True, nogil=True)
def _ground_corners(ground, split, out):  # type: ignore[no-untyped-def]
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            for c in range(4):
                cx, cy = x + (c & 1), y + (c >> 1)
                out[c, y, x] = _mean_ground(ground, cx, cy, _group(split[cy, cx], 3 - c))


def walls(
    xyz: NDArray,
    faces: NDArray,
    shown: NDArray,
    columns: Columns,
    x0: int,
    y0: int,
    sides: NDArray,
) -> tuple[NDArray, NDArray, NDArray]:
    """Return the quads between the two points of corners, where the ground drops.

    Parameters
    ----------
    xyz, faces : NDArray (n, 3), (n,)
        Voxels of a piece.
    shown : NDArray (n,) uint8
        The sides of which the mesh has quads.
    columns : Columns
        Of the piece.
    x0, y0 : int
        Its first column.
    sides : NDArray (6, 4) int64
        Corners of each side, counter-clockwise from outside.

    Returns
    -------
    position : NDArray (q, 4, 3) float64
        Corners counter-clockwise from outside: columns east and north of the piece's first, and
        metres.
    voxel : NDArray (q,) int32
        A voxel of the higher column: of its wall, where it has one.
    side : NDArray (q,) uint8
        To which a quad looks.
    """
    if not columns.split.any():
        return np.empty((0, 4, 3)), np.empty(0, np.int32), np.empty(0, np.uint8)
    args: list[Any] = [xyz, faces, shown, x0, y0, columns.ground, columns.start, columns.z]
    args += [columns.faces, columns.lift, columns.split, columns.size, sides]
    none: list[Any] = [np.empty((0, 4, 3)), np.empty(0, np.int32), np.empty(0, np.uint8)]
    count = _walls(*args, *none)
    out = np.empty((count, 4, 3)), np.empty(count, np.int32), np.empty(count, np.uint8)
    _walls(*[*args, *out])
    return out


@numba.njit(cache=True, nogil=True)
def _net(faces, first, second, sides):  # type: ignore[no-untyped-def]
    """How often the quads of a voxel run along an edge from one corner to another, less back."""
    out = 0
    for side in range(6):
        if not faces & (1 << side):
            continue
        for n in range(4):
            a, b = sides[side, n], sides[side, (n + 1) % 4]
            if a == first and b == second:
                out += 1
            elif a == second and b == first:
                out -= 1
    return out


@numba.njit(cache=True, nogil=True)
def _walls(  # type: ignore[no-untyped-def]
    xyz,
    own_faces,
    faces,
    x0,
    y0,
    ground,
    start,
    z,
    all_faces,
    lift,
    split,
    size,
    sides,
    position,
    voxel,
    side,
):
    """Count the quads of walls, or fill arrays that have room for them."""
    q = 0
    heights = np.empty((2, 2))
    for i in range(xyz.shape[0]):
        if faces[i] & 63 == 0:
            continue
        x, y = xyz[i, 0] - x0, xyz[i, 1] - y0
        around = 0
        for c in range(4):
            around |= split[y + (c >> 1), x + (c & 1)]
        if around & 15 == 0:
            continue
        here = ground[y + 1, x + 1]
        same = i > 0 and xyz[i - 1, 0] == xyz[i, 0] and xyz[i - 1, 1] == xyz[i, 1]
        joined = same and xyz[i - 1, 2] == xyz[i, 2] - 1 and faces[i - 1] & 63 != 0
        wall = i
        while wall > 0 and not own_faces[wall] & WALL and _same_column(xyz, wall - 1, i):
            wall -= 1
        if not own_faces[wall] & WALL:
            wall = i
        for c in range(4):
            # Upright edges: without area, but the mesh is closed by them.
            cx, cy = x + (c & 1), y + (c >> 1)
            along = _net(faces[i], c, c + 4, sides)
            if split[cy, cx] & 15 == 0 or along == 0:
                continue
            other = 0
            while not np.isfinite(ground[cy + (other >> 1), cx + (other & 1)]):
                other += 1
            for end in range(2):
                for far in range(2):
                    own = other if far else 3 - c
                    heights[end, far] = corner_height(
                        own, cx, cy, xyz[i, 2] + end, ground, start, z, all_faces, lift, split, size
                    )
            if heights[0, 0] == heights[0, 1] and heights[1, 0] == heights[1, 1]:
                continue
            if q < position.shape[0]:
                for n in range(4):
                    end = (1, 0, 0, 1)[n] if along > 0 else (0, 1, 1, 0)[n]
                    position[q, n, 0], position[q, n, 1] = cx, cy
                    position[q, n, 2] = heights[end, n >> 1]
                voxel[q], side[q] = wall, c & 1
            q += 1
        for way in range(4):
            dx, dy = ((-1, 0), (1, 0), (0, -1), (0, 1))[way]
            # Of the two columns, the higher one makes the wall.
            if not here > ground[y + 1 + dy, x + 1 + dx]:
                continue
            first, second = ((0, 2), (1, 3), (0, 1), (2, 3))[way]
            for upper in range(2):
                # An edge between two voxels of the column is the upper one's.
                k = xyz[i, 2] + upper
                last = i + 1 == xyz.shape[0] or not _same_column(xyz, i + 1, i)
                if upper and not last and xyz[i + 1, 2] == k and faces[i + 1] & 63 != 0:
                    continue
                along = _net(faces[i], first + 4 * upper, second + 4 * upper, sides)
                if not upper and joined:
                    along += _net(faces[i - 1], first + 4, second + 4, sides)
                if along == 0:
                    continue
                for end in range(2):
                    c = first if end == 0 else second
                    cx, cy = x + (c & 1), y + (c >> 1)
                    for far in range(2):
                        # The column's place among the four around the corner.
                        own = 3 - c
                        if far:
                            own ^= 1 if dx else 2
                        heights[end, far] = corner_height(
                            own, cx, cy, k, ground, start, z, all_faces, lift, split, size
                        )
                if heights[0, 0] == heights[0, 1] and heights[1, 0] == heights[1, 1]:
                    continue
                if q < position.shape[0]:
                    # The column runs from first to second; the wall runs back, and the other way
                    # along the lower column.
                    for n in range(4):
                        end = (1, 0, 0, 1)[n] if along > 0 else (0, 1, 1, 0)[n]
                        far = (0, 0, 1, 1)[n]
                        c = first if end == 0 else second
                        position[q, n, 0] = x + (c & 1)
                        position[q, n, 1] = y + (c >> 1)
                        position[q, n, 2] = heights[end, far]
                    voxel[q] = wall
                    side[q] = way
                q += 1
    return q


@numba.njit(cache=True, nogil=True, inline="always")
def _same_column(xyz, i, j):  # type: ignore[no-untyped-def]
    """Whether two voxels stand in one column."""
    return xyz[i, 0] == xyz[j, 0] and xyz[i, 1] == xyz[j, 1]
