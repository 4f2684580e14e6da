"""Surfaces of slabs: roofs from the exact heights of tops, upright walls, round crowns.

Corners of the lattice are the vertices. Slabs of one object that meet at a corner share its vertex
if their tops are about equally high there; where they are not, a wall stands. Outlines that run
askew to the lattice are straightened: a corner of a flight of steps moves to the line through the
middles of the steps. All this depends on the columns within `HALO` of a corner only, so that pieces
fit together exactly.

A crown that hangs has a top and an underside that meet at its rim, and below it its trunk; a canopy
of a coarse level, which is seen from afar, has no underside. Where a crown is so narrow that its
rim would be all of it, it has sides, and so has what grows from the ground: hedges and bushes. On
coarse levels these are pyramids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.mesh.columns import CANOPY_LEVEL, Columns

HALO = 4
"""Cells around a piece on which its shells depend."""

STEP = 1.6
"""Difference in height, in voxels of level 1, up to which neighbouring tops are one roof; coarse
levels: times the root of the level."""

SUNK = 0.5
"""Cells by which walls go on below the ground, so that no gap shows beside a simplified terrain."""


ROOF, UNDERSIDE, WALL = 0, 1, 2

TRUNK_WIDTH = (0.08, 0.02)
"""Metres from the middle of a trunk to its edges: this much, and this part of the tree's height."""

APART = 0.1
"""Cells by which the corners of two parts of an object that touch in a point move apart."""


@dataclass(frozen=True)
class Shells:
    """Triangles of the slabs of a piece.

    Attributes
    ----------
    position : NDArray (v, 3) float64
        Cells east and north of the piece's south-west corner, and absolute height, metres.
    normal : NDArray (v, 3) float32
        Unit normals.
    slab : NDArray (v,) int32
        Row of the slab, in the columns that were given.
    side : NDArray (v,) bool
        Whether the vertex has the colour of the sides.
    triangles : NDArray (t, 3) int32
        Vertices, counter-clockwise from outside.
    part : NDArray (t,) uint8
        ROOF, UNDERSIDE or WALL.
    """

    position: NDArray
    normal: NDArray
    slab: NDArray
    side: NDArray
    triangles: NDArray
    part: NDArray


def corner_ground(ground: NDArray) -> NDArray:
    """Return the heights of the corners between cells: the mean of the cells around with a height.

    Parameters
    ----------
    ground : NDArray (ny, nx) float32
        Metres, NaN for no data.

    Returns
    -------
    NDArray (ny - 1, nx - 1) float64
        Of the inner corners; NaN where no cell has a height.
    """
    values = ground.astype(np.float64)
    total = np.zeros((ground.shape[0] - 1, ground.shape[1] - 1))
    count = np.zeros(total.shape)
    for part in (values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]):
        known = np.isfinite(part)  # in a fixed order, so that neighbours compute the same sum
        total += np.where(known, part, 0.0)
        count = count + known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def shells(
    columns: Columns,
    level: int,
    *,
    inside: NDArray | None = None,
    closed: bool = False,
    steps: bool = True,
) -> Shells:
    """Return the shells of the slabs in the inner columns.

    Parameters
    ----------
    columns : Columns
        Of `shown`, with a margin of HALO cells that gets no triangles itself.
    level : int
        Of the columns.
    inside : NDArray (ny - 2 HALO, nx - 2 HALO) bool, optional
        The inner columns that get triangles; by default all.
    closed : bool
        Keep walls that a neighbouring building hides, so that each object is a closed shell but for
        its underside.
    steps : bool
        Whether roofs of one object at different heights have a wall between them; else a slope.
    """
    slabs, frame = columns.slabs, columns.frame
    voxel = frame.voxel_size / level
    ground = np.where(np.isfinite(columns.ground), columns.ground, np.float32(0))
    corners = np.full((frame.ny + 1, frame.nx + 1), np.nan)
    corners[1:-1, 1:-1] = corner_ground(columns.ground)
    args = (
        slabs.start,
        slabs.bottom.astype(np.float64),
        slabs.top.astype(np.float64),
        slabs.object,
        slabs.semantic,
        slabs.crown,
        ground.astype(np.float64),
        corners,
        frame.nx,
        frame.ny,
        frame.voxel_size,
        STEP * voxel * level**0.5 if steps else np.inf,
        closed,
    )
    hangs = slabs.bottom > 0
    below = hangs if level < CANOPY_LEVEL else hangs & ~slabs.crown
    trunk = slabs.trunk & hangs if level == 1 else np.zeros(len(slabs), bool)
    slopes = _slopes(*args[:-1])
    slender = _slender(*args[:7], frame.nx, frame.ny)
    n = len(slabs)
    drawn = np.zeros(frame.shape, bool)
    drawn[HALO:-HALO, HALO:-HALO] = True if inside is None else inside
    inner = _inner(slabs.start, frame.nx, frame.ny)
    position = np.empty((inner * 32 + 8, 3))
    normal = np.empty((len(position), 3), np.float32)
    owner, side = np.empty(len(position), np.int32), np.empty(len(position), np.bool_)
    triangles = np.empty((inner * 20 + 8, 3), np.int32)
    part = np.empty(len(triangles), np.uint8)
    shared = np.full((n, 8), -1, np.int32)
    vertices, count = _build(
        *args,
        *(drawn, below, slender, trunk, level >= CANOPY_LEVEL, slopes),
        *(shared, position, normal, owner, side, triangles, part),
    )
    position[:vertices, :2] -= HALO
    return Shells(
        position[:vertices].copy(),
        normal[:vertices].copy(),
        owner[:vertices].copy(),
        side[:vertices].copy(),
        triangles[:count].copy(),
        part[:count].copy(),
    )


@numba.njit(cache=True, nogil=True)
def _inner(start, nx, ny):  # type: ignore[no-untyped-def]
    n = 0
    for y in range(HALO, ny - HALO):
        n += start[y * nx + nx - HALO] - start[y * nx + HALO]
    return n


@numba.njit(cache=True, nogil=True, inline="always")
def _same(a, b, number, semantic, crown):  # type: ignore[no-untyped-def]
    """Whether two slabs are parts of one object; those of none: of one class."""
    if number[a] != number[b] or crown[a] != crown[b]:
        return False
    return number[a] != 0 or crown[a] or semantic[a] == semantic[b]


@numba.njit(cache=True, nogil=True)
def _partner(s, y, x, start, bottom, top, number, semantic, crown, ground, nx, ny, limit, here):  # type: ignore[no-untyped-def]
    """The slab of the same object in a column, nearest in height and joined to slab s; or -1.

    With an infinite limit: whether the column has any slab of the object.
    """
    if x < 0 or y < 0 or x >= nx or y >= ny:
        return -1
    best, least = -1, np.inf
    for k in range(start[y * nx + x], start[y * nx + x + 1]):
        if not _same(s, k, number, semantic, crown):
            continue
        apart = abs(ground[y, x] + top[k] - here - top[s])
        if (crown[s] or apart <= limit) and apart < least:
            best, least = k, apart
    return best


@numba.njit(cache=True, nogil=True)
def _slopes(start, bottom, top, number, semantic, crown, ground, corners, nx, ny, size, limit):  # type: ignore[no-untyped-def]
    """Slope of each slab's top and underside to the east and the north, rise over run."""
    out = np.zeros((top.shape[0], 4))
    for y in range(1, ny - 1):
        for x in range(1, nx - 1):
            for s in range(start[y * nx + x], start[y * nx + x + 1]):
                for axis in range(2):
                    count, hanging = 0, 0
                    for step in (-1, 1):
                        r, c = (y, x + step) if axis == 0 else (y + step, x)
                        k = _partner(
                            s,
                            r,
                            c,
                            start,
                            bottom,
                            top,
                            number,
                            semantic,
                            crown,
                            ground,
                            nx,
                            ny,
                            limit,
                            ground[y, x],
                        )
                        if k < 0:
                            continue
                        rise = ground[r, c] - ground[y, x]
                        out[s, axis] += step * (rise + top[k] - top[s])
                        count += 1
                        # The foot of what stands is no part of an underside.
                        if crown[s] or (bottom[s] > 0) == (bottom[k] > 0):
                            out[s, 2 + axis] += step * (rise + bottom[k] - bottom[s])
                            hanging += 1
                    if count > 0:
                        out[s, axis] /= count * size
                    if hanging > 0:
                        out[s, 2 + axis] /= hanging * size
    return out


@numba.njit(cache=True, nogil=True)
def _mask(s, cy, cx, start, bottom, top, number, semantic, crown, ground, nx, ny):  # type: ignore[no-untyped-def]
    """Which of the four columns around a corner have a part of the object of slab s: 4 bits.

    Bits: south-west 1, south-east 2, north-west 4, north-east 8.
    """
    out = 0
    for around in range(4):
        y, x = cy - 1 + (around >> 1), cx - 1 + (around & 1)
        k = _partner(
            s, y, x, start, bottom, top, number, semantic, crown, ground, nx, ny, np.inf, 0.0
        )
        if k >= 0:
            out |= 1 << around
    return out


@numba.njit(cache=True, nogil=True)
def _slender(start, bottom, top, number, semantic, crown, ground, nx, ny):  # type: ignore[no-untyped-def]
    """Whether a crown has sides at a slab: no corner lies within the crown, or it stands."""
    out = np.zeros(top.shape[0], np.bool_)
    for y in range(2, ny - 2):
        for x in range(2, nx - 2):
            for s in range(start[y * nx + x], start[y * nx + x + 1]):
                if not crown[s]:
                    continue
                out[s] = True
                if bottom[s] <= 0:
                    continue
                for corner in range(4):
                    mask = _mask(
                        s,
                        y + (corner >> 1),
                        x + (corner & 1),
                        start,
                        bottom,
                        top,
                        number,
                        semantic,
                        crown,
                        ground,
                        nx,
                        ny,
                    )
                    if mask == 15:
                        out[s] = False
                        break
    return out


@numba.njit(cache=True, nogil=True)
def _count_bits(mask):  # type: ignore[no-untyped-def]
    return (mask & 1) + ((mask >> 1) & 1) + ((mask >> 2) & 1) + ((mask >> 3) & 1)


@numba.njit(cache=True, nogil=True)
def _moved(s, y, x, cy, cx, start, bottom, top, number, semantic, crown, ground, nx, ny):  # type: ignore[no-untyped-def]
    """How far a corner of an outline moves to straighten it, cells east and north."""
    mask = _mask(s, cy, cx, start, bottom, top, number, semantic, crown, ground, nx, ny)
    bits = _count_bits(mask)
    if mask == 6 or mask == 9:
        return APART * (2 * (x - cx) + 1), APART * (2 * (y - cy) + 1)
    if bits != 1 and bits != 3:
        return 0.0, 0.0
    # The column that differs from the other three, and the two arms of the outline along it.
    odd = mask if bits == 1 else 15 - mask
    toward_x = -1 if odd & 5 else 1
    toward_y = -1 if odd & 3 else 1
    east, north = 0.0, 0.0
    for axis in range(2):
        step_x, step_y = (toward_x, 0) if axis == 0 else (0, toward_y)
        for length in range(1, 3):
            there = _mask(
                s,
                cy + length * step_y,
                cx + length * step_x,
                start,
                bottom,
                top,
                number,
                semantic,
                crown,
                ground,
                nx,
                ny,
            )
            other = _count_bits(there)
            if other == 1 or other == 3:
                if other != bits:  # a step
                    east += 0.25 * length * step_x
                    north += 0.25 * length * step_y
                elif crown[s] and length == 1:
                    east += 0.2 * step_x
                    north += 0.2 * step_y
                break
            if other == 2 and (there == 6 or there == 9):
                break
    return east, north


@numba.njit(cache=True, nogil=True)
def _build(  # type: ignore[no-untyped-def]
    start,
    bottom,
    top,
    number,
    semantic,
    crown,
    ground,
    corners,
    nx,
    ny,
    size,
    limit,
    closed,
    drawn,
    below,
    slender,
    trunk,
    pyramids,
    slopes,
    shared,
    position,
    normal,
    owner,
    side,
    triangles,
    part,
):
    v, t = 0, 0
    group = np.empty(4, np.int64)
    place = np.empty((4, 2), np.int64)
    ends = np.empty((4, 3))
    for y in range(HALO, ny - HALO):
        for x in range(HALO, nx - HALO):
            if not drawn[y, x]:
                continue
            for s in range(start[y * nx + x], start[y * nx + x + 1]):
                for corner in range(4):
                    if shared[s, corner] >= 0:
                        continue
                    cx, cy = x + (corner & 1), y + (corner >> 1)
                    # The slabs around the corner that share the vertex: neighbours of neighbours.
                    members = 1
                    group[0], place[0, 0], place[0, 1] = s, y, x
                    at = 0
                    while at < members:
                        for around in range(4):
                            r, c = cy - 1 + (around >> 1), cx - 1 + (around & 1)
                            if abs(r - place[at, 0]) + abs(c - place[at, 1]) != 1:
                                continue
                            k = _partner(
                                group[at],
                                r,
                                c,
                                start,
                                bottom,
                                top,
                                number,
                                semantic,
                                crown,
                                ground,
                                nx,
                                ny,
                                limit,
                                ground[place[at, 0], place[at, 1]],
                            )
                            known = k < 0
                            for m in range(members):
                                known = known or (place[m, 0] == r and place[m, 1] == c)
                            if not known:
                                group[members], place[members, 0], place[members, 1] = k, r, c
                                members += 1
                        at += 1
                    high, low, gx, gy, ux, uy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                    # Undersides are of those that hang, crowns among them: beside the bank or a
                    # pier a deck does not sink to the ground on which these stand.
                    # A rim is round where a wide part of the crown hangs, and nothing stands.
                    hanging, drops, wide = 0, False, False
                    for m in range(members):
                        drops = drops or below[group[m]]
                        hanging += bottom[group[m]] > 0
                        wide = wide or not slender[group[m]]
                    for m in range(members):
                        wide = wide and bottom[group[m]] > 0
                    for m in range(members):
                        k, r, c = group[m], place[m, 0], place[m, 1]
                        dx, dy = (cx - c - 0.5) * size, (cy - r - 0.5) * size
                        up = ground[r, c] + top[k]
                        down = ground[r, c] + bottom[k]
                        if not crown[s]:
                            up += slopes[k, 0] * dx + slopes[k, 1] * dy
                            down += slopes[k, 2] * dx + slopes[k, 3] * dy
                        high += up / members
                        gx += slopes[k, 0] / members
                        gy += slopes[k, 1] / members
                        if bottom[k] > 0:
                            low += down / hanging
                            ux += slopes[k, 2] / hanging
                            uy += slopes[k, 3] / hanging
                    east, north = 0.0, 0.0
                    mask = _mask(
                        s, cy, cx, start, bottom, top, number, semantic, crown, ground, nx, ny
                    )
                    if mask != 15:
                        east, north = _moved(
                            s,
                            y,
                            x,
                            cy,
                            cx,
                            start,
                            bottom,
                            top,
                            number,
                            semantic,
                            crown,
                            ground,
                            nx,
                            ny,
                        )
                    rim = crown[s] and wide and mask != 15
                    if not crown[s]:  # along the roof, so that eaves are level
                        high += (gx * east + gy * north) * size
                        low += (ux * east + uy * north) * size
                    if rim:
                        high = low = 0.5 * (high + low)
                        # Outwards: away from the columns of the crown.
                        gx = -(
                            ((mask >> 0) & 1)
                            + ((mask >> 2) & 1)
                            - ((mask >> 1) & 1)
                            - ((mask >> 3) & 1)
                        )
                        gy = -(
                            ((mask >> 0) & 1)
                            + ((mask >> 1) & 1)
                            - ((mask >> 2) & 1)
                            - ((mask >> 3) & 1)
                        )
                    for under in range(2 if drops and not rim else 1):
                        position[v, 0], position[v, 1] = cx + east, cy + north
                        position[v, 2] = low if under else high
                        a, b, z = -gx, -gy, 1.0
                        if under:
                            a, b, z = ux, uy, -1.0
                        if rim:
                            z = 0.3
                        length = np.sqrt(a * a + b * b + z * z)
                        normal[v, 0], normal[v, 1], normal[v, 2] = (
                            a / length,
                            b / length,
                            z / length,
                        )
                        owner[v], side[v] = s, rim or under == 1
                        for m in range(members):
                            r, c = place[m, 0], place[m, 1]
                            q = (cx - c) + 2 * (cy - r)
                            shared[group[m], 4 * under + q] = v
                            if rim:
                                shared[group[m], 4 + q] = v
                        v += 1
                if pyramids and slender[s]:
                    position[v, 0], position[v, 1] = x + 0.5, y + 0.5
                    position[v, 2] = ground[y, x] + top[s]
                    normal[v, 0], normal[v, 1], normal[v, 2] = 0.0, 0.0, 1.0
                    owner[v], side[v] = s, False
                    for i in range(4):
                        q = (0, 1, 3, 2)[i]  # counter-clockwise from the south-west
                        cx, cy = x + (q & 1), y + (q >> 1)
                        foot = corners[cy, cx]
                        p, at = shared[s, q], v + 1 + i
                        position[at, 0], position[at, 1] = position[p, 0], position[p, 1]
                        position[at, 2] = ground[y, x] if np.isnan(foot) else foot
                        normal[at, 0] = 0.6 * (2 * (q & 1) - 1)
                        normal[at, 1] = 0.6 * (2 * (q >> 1) - 1)
                        normal[at, 2] = np.sqrt(1 - 2 * 0.6**2)
                        owner[at], side[at] = s, True
                        triangles[t, 0], triangles[t, 1] = at, v + 1 + ((i + 1) & 3)
                        triangles[t, 2] = v
                        part[t] = ROOF
                        t += 1
                    v += 5
                    continue
                # The top, and the underside of what floats.
                for under in range(2 if below[s] else 1):
                    a, b = shared[s, 4 * under], shared[s, 4 * under + 1]
                    d, c = shared[s, 4 * under + 2], shared[s, 4 * under + 3]
                    # Split along the flatter diagonal, so that ridges run along edges.
                    turn = abs(position[a, 2] - position[c, 2]) > abs(
                        position[b, 2] - position[d, 2]
                    )
                    for half in range(2):
                        if turn:
                            i, j, k = (b, c, d) if half == 0 else (b, d, a)
                        else:
                            i, j, k = (a, b, c) if half == 0 else (a, c, d)
                        if i == j or j == k or k == i:
                            continue
                        triangles[t, 0] = i
                        triangles[t, 1] = k if under else j
                        triangles[t, 2] = j if under else k
                        part[t] = UNDERSIDE if under else ROOF
                        t += 1
                if trunk[s]:
                    thick = min((TRUNK_WIDTH[0] + TRUNK_WIDTH[1] * top[s]) / size, 0.5)
                    for i in range(8):
                        a = 2.0 * (((i + 1) >> 1) & 1) - 1.0  # -1, 1, 1, -1: around the trunk
                        b = 2.0 * ((i >> 1) & 1) - 1.0
                        position[v + i, 0] = x + 0.5 + a * thick
                        position[v + i, 1] = y + 0.5 + b * thick
                        position[v + i, 2] = ground[y, x] + (
                            0.5 * (bottom[s] + top[s]) if i >= 4 else -SUNK * size
                        )
                        normal[v + i, 0], normal[v + i, 1] = a * 0.5**0.5, b * 0.5**0.5
                        normal[v + i, 2] = 0.0
                        owner[v + i], side[v + i] = s, True
                    for i in range(4):
                        j = (i + 1) & 3
                        triangles[t, 0], triangles[t, 1], triangles[t, 2] = v + i, v + j, v + j + 4
                        triangles[t + 1, 0], triangles[t + 1, 1] = v + i, v + j + 4
                        triangles[t + 1, 2] = v + i + 4
                        part[t] = part[t + 1] = WALL
                        t += 2
                    v += 8
                for way in range(4):  # walls to the south, east, north and west
                    dx, dy = ((0, -1), (1, 0), (0, 1), (-1, 0))[way]
                    first, last = ((0, 1), (1, 3), (3, 2), (2, 0))[way]
                    r, c = y + dy, x + dx
                    k = _partner(
                        s,
                        r,
                        c,
                        start,
                        bottom,
                        top,
                        number,
                        semantic,
                        crown,
                        ground,
                        nx,
                        ny,
                        np.inf,
                        ground[y, x],
                    )
                    wall, leg = True, False
                    if k >= 0:
                        joined = _partner(
                            s,
                            r,
                            c,
                            start,
                            bottom,
                            top,
                            number,
                            semantic,
                            crown,
                            ground,
                            nx,
                            ny,
                            limit,
                            ground[y, x],
                        )
                        wall = joined < 0 and ground[r, c] + top[k] < ground[y, x] + top[s]
                        # Below a deck that goes on, the side of its pier.
                        leg = joined >= 0 and bottom[s] <= 0 and below[joined]
                        wall = wall or leg
                    if not wall:
                        continue
                    for end in range(2):
                        q = first if end == 0 else last
                        p = shared[s, q]
                        cx, cy = x + (q & 1), y + (q >> 1)
                        for i in range(3):
                            ends[end, i] = position[p, i]
                            ends[2 + end, i] = position[p, i]
                        if leg:
                            ends[end, 2] = min(ends[end, 2], position[shared[s, 4 + q], 2])
                        if k >= 0 and not leg:
                            # The neighbour's corner; it is a vertex of its own only if it has one.
                            foot = ground[r, c] + top[k]
                            foot += slopes[k, 0] * (cx - c - 0.5) * size
                            foot += slopes[k, 1] * (cy - r - 0.5) * size
                            foot -= 0.25 * size
                        elif crown[s] and shared[s, 4 + q] == p:
                            foot = position[p, 2]  # the rim
                        elif below[s]:
                            foot = position[shared[s, 4 + q], 2]
                        else:
                            foot = corners[cy, cx]
                            if np.isnan(foot):
                                foot = ground[y, x]
                            foot -= SUNK * size
                        ends[2 + end, 2] = min(foot, ends[end, 2])
                    stands = (k < 0 or leg) and bottom[s] <= 0
                    if (
                        stands
                        and not closed
                        and _hidden(s, r, c, start, bottom, top, crown, ground, nx, ny, ends)
                    ):
                        continue
                    if ends[2, 2] == ends[0, 2] and ends[3, 2] == ends[1, 2]:
                        continue
                    nx_, ny_ = ends[1, 1] - ends[0, 1], ends[0, 0] - ends[1, 0]
                    length = np.sqrt(nx_ * nx_ + ny_ * ny_)
                    if length < 1e-9:
                        continue
                    for i in range(4):
                        for axis in range(3):
                            position[v + i, axis] = ends[i, axis]
                        normal[v + i, 0], normal[v + i, 1] = nx_ / length, ny_ / length
                        normal[v + i, 2] = 0.0
                        owner[v + i], side[v + i] = s, True
                    # Corners: 0 first top, 1 last top, 2 first foot, 3 last foot.
                    triangles[t, 0], triangles[t, 1], triangles[t, 2] = v + 2, v + 3, v + 1
                    triangles[t + 1, 0], triangles[t + 1, 1], triangles[t + 1, 2] = v + 2, v + 1, v
                    part[t] = part[t + 1] = WALL
                    t += 2
                    v += 4
    return v, t


@numba.njit(cache=True, nogil=True)
def _hidden(s, r, c, start, bottom, top, crown, ground, nx, ny, ends):  # type: ignore[no-untyped-def]
    """Whether what stands in the next column hides a wall, whose line was not moved.

    Solids hide those of solids, and hedges those of hedges.
    """
    for end in range(2):
        if ends[end, 0] != np.rint(ends[end, 0]) or ends[end, 1] != np.rint(ends[end, 1]):
            return False
    for k in range(start[r * nx + c], start[r * nx + c + 1]):
        if crown[k] != crown[s] or bottom[k] > 0:
            continue
        high = ground[r, c] + top[k]
        if high >= ends[0, 2] and high >= ends[1, 2]:
            return True
    return False
