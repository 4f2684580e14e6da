"""The surface of a world as quads: the open sides of its voxels, lifted by the terrain.

The open sides of voxels bound a solid on the voxel lattice, so they form a closed mesh: every edge
is used equally often in both directions. Each lattice corner is then moved by a function of that
corner alone: up by the height of the terrain, and by the offset between the tops of the voxels
below it and the surface that they represent (`corners`). So the mesh stays closed, slopes are
smooth and roofs keep their pitch. Where the ground drops by a wall, a corner has two points and the
mesh an upright quad. A corner depends on the columns around it, also those of neighbouring tiles,
so that tiles match exactly. The mesh is open at the border of the world, and has no bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from earthgen.render.corners import Columns, columns_of, corner_height, solid, walls
from earthgen.voxels.voxels import WALL, Splats, Voxels
from earthgen.world.selection import Selection
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.world.world import World

CACHED_VOXELS = 4_000_000
"""Voxels of the whole tiles that are cached for their neighbours (about 100 bytes each)."""

CORNERS = np.array([[(c >> axis) & 1 for axis in range(3)] for c in range(8)], np.int64)
"""(8, 3) corners of a voxel: bit 0 east, bit 1 north, bit 2 up."""

QUADS = np.array(
    [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]],
    np.int64,
)
"""(6, 4) corners of each side, counter-clockwise from outside, in the order of the bits of
`Voxels.faces`."""

NORMALS = np.array(
    [[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], np.float32
)
"""(6, 3) outward normals of the sides, before the terrain lifts them."""


@dataclass(frozen=True)
class Piece:
    """The part of one tile in a selection, and the columns next to it.

    Attributes
    ----------
    tile : tuple of int
        (tx, ty).
    frame : Frame
        Frame of the piece.
    voxels, splats : Voxels, Splats
        In the piece, sorted by (y, x, z).
    ground : NDArray (ny + 2, nx + 2) float32
        Metres, on the piece's frame padded by one column; NaN where the world has no ground.
    start : NDArray ((nx + 2) * (ny + 2) + 1,) int64
        Where each padded column begins in `z`, row by row from the south-west.
    z, faces, lift : NDArray (m,)
        Of all voxels of the padded columns: lattice height, sides, and height of the surface above
        the voxel's top, metres.
    """

    tile: tuple[int, int]
    frame: Frame
    voxels: Voxels
    splats: Splats
    ground: NDArray
    start: NDArray
    z: NDArray
    faces: NDArray
    lift: NDArray


@dataclass(frozen=True)
class Mesh:
    """The surface of one piece.

    Attributes
    ----------
    vertices : NDArray (v, 3) float32
        East, north, up in metres relative to an anchor. Each voxel has its own vertices, so that it
        can have a colour; those at one lattice corner are bitwise equal.
    quads : NDArray (q, 4) int32
        Vertices, counter-clockwise from outside; the diagonal goes from the first to the third.
    voxel : NDArray (q,) int32
        Voxel of each quad.
    side : NDArray (q,) uint8
        Side of each quad, an index of `NORMALS`.
    owner : NDArray (v,) int32
        Voxel of each vertex.
    """

    vertices: NDArray
    quads: NDArray
    voxel: NDArray
    side: NDArray
    owner: NDArray


def pieces(world: World, selection: Selection) -> Iterator[Piece]:
    """Yield the pieces of a selection, tile by tile.

    Memory holds a few tiles, and the borders of three rows of tiles. A thread reads the next piece
    while the caller works on the current one.
    """
    reader = _Reader(world, selection.level)
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[Piece] | None = None
        for tx, ty in selection.tiles:
            frame = selection.tile(world, tx, ty)
            if frame is None:
                continue
            following = pool.submit(reader.piece, tx, ty, frame)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


@dataclass(frozen=True)
class _Columns:
    """Columns of one tile: ground, and voxels sorted by (y, x, z)."""

    frame: Frame
    ground: NDArray
    xyz: NDArray
    faces: NDArray
    lift: NDArray


class _Reader:
    """Reads tiles, and keeps their borders as long as neighbours need them."""

    def __init__(self, world: World, level: int) -> None:
        self.world = world
        self.level = level
        self.finished = set(world.tiles())
        self.frame = world.level_frame(level)
        self.ground = world.layers(level)["ground"]  # lazy: the other layers are not read
        self.borders: dict[tuple[int, int], _Columns] = {}
        # A larger tile fills the cache alone.
        self.tiles: LRUCache[tuple[int, int], tuple[Voxels, Splats, NDArray]] = LRUCache(
            CACHED_VOXELS, getsizeof=lambda tile: min(len(tile[0]), CACHED_VOXELS)
        )

    def read(self, tile: tuple[int, int]) -> tuple[Voxels, Splats, NDArray]:
        """Voxels, splats and ground of a whole tile."""
        if tile not in self.tiles:
            rows, columns = self.frame.slices(self.world.tile_frame(*tile, self.level))
            ground = np.asarray(self.ground[rows, columns].values)
            self.tiles[tile] = (*self.world.tile_voxels(*tile, self.level), ground)
        return self.tiles[tile]

    def border(self, tile: tuple[int, int]) -> _Columns:
        """The outermost columns of a tile."""
        if tile not in self.borders:
            voxels, splats, ground = self.read(tile)
            f = voxels.frame
            x, y = voxels.xyz[:, 0], voxels.xyz[:, 1]
            rim = (x == f.x[0]) | (x == f.x[1] - 1) | (y == f.y[0]) | (y == f.y[1] - 1)
            self.borders[tile] = _columns(voxels.take(rim), splats.take(rim), ground)
        return self.borders[tile]

    def piece(self, tx: int, ty: int, frame: Frame) -> Piece:
        """The part of a tile in a frame. Tiles have to be read row by row from the south."""
        self.borders = {
            tile: columns for tile, columns in self.borders.items() if tile[1] >= ty - 1
        }
        padded = frame.pad(1)
        size = self.world.tile_size // self.level
        around = [tile for tile in padded.tiles(size) if tile in self.finished and tile != (tx, ty)]
        parts = [self.border(tile) for tile in around]
        voxels, splats, ground = self.read((tx, ty))
        parts.append(_columns(voxels, splats, ground))
        # The padding contains columns of the whole tile too, so that a crop does not move corners.
        columns = padded.nx * padded.ny
        count = np.zeros(columns + 1, np.int64)
        for part in parts:
            _count(part.xyz, padded.x[0], padded.y[0], padded.nx, padded.ny, count)
        start = np.cumsum(count)
        z = np.empty(start[-1], np.int32)
        faces = np.empty(start[-1], np.uint8)
        lift = np.empty(start[-1], np.float32)
        at = start[:-1].copy()
        heights = np.full(padded.shape, np.nan, np.float32)
        for part in parts:
            _scatter(
                part.xyz,
                part.faces,
                part.lift,
                padded.x[0],
                padded.y[0],
                padded.nx,
                padded.ny,
                at,
                z,
                faces,
                lift,
            )
            shared = padded.intersection(part.frame)
            if shared is not None:
                heights[padded.slices(shared)] = part.ground[part.frame.slices(shared)]
        if frame != voxels.frame:
            inside = voxels.inside(frame)
            voxels, splats = voxels.take(inside, frame), splats.take(inside)
        return Piece((tx, ty), frame, voxels, splats, heights[::-1], start, z, faces, lift)


def _columns(voxels: Voxels, splats: Splats, ground: NDArray) -> _Columns:
    lift = splats.offset[:, 2] - np.float32(0.5 * voxels.frame.voxel_size)
    return _Columns(voxels.frame, ground, voxels.xyz, voxels.faces, lift)


def surface_mesh(piece: Piece, anchor: tuple[float, float, float]) -> Mesh:
    """Build the mesh of the open sides of a piece's voxels, relative to `anchor` (CRS metres)."""
    frame = piece.frame
    xyz = piece.voxels.xyz
    faces = _open_sides(
        xyz,
        piece.voxels.faces,
        piece.start,
        piece.z,
        piece.faces,
        frame.x[0],
        frame.y[0],
        frame.nx,
        frame.ny,
    )
    columns = piece_columns(piece)
    upright, wall, looks = walls(
        xyz, piece.voxels.faces, faces, columns, frame.x[0], frame.y[0], QUADS
    )
    vertices, quads = _sizes(faces, QUADS)
    more = len(wall)
    out = Mesh(
        np.empty((vertices + 4 * more, 3), np.float32),
        np.empty((quads + more, 4), np.int32),
        np.empty(quads + more, np.int32),
        np.empty(quads + more, np.uint8),
        np.empty(vertices + 4 * more, np.int32),
    )
    _build(
        xyz,
        faces,
        columns.ground,
        columns.start,
        columns.z,
        columns.faces,
        columns.lift,
        columns.split,
        frame.x[0],
        frame.y[0],
        frame.voxel_size,
        np.asarray(anchor, np.float64),
        CORNERS,
        QUADS,
        out.vertices,
        out.quads,
        out.voxel,
        out.side,
        out.owner,
    )
    if more:
        flat = upright.reshape(-1, 3)
        first = np.array([frame.x[0], frame.y[0]])
        out.vertices[vertices:, :2] = (flat[:, :2] + first) * frame.voxel_size - anchor[:2]
        out.vertices[vertices:, 2] = flat[:, 2] - anchor[2]
        out.owner[vertices:] = np.repeat(wall, 4)
        out.quads[quads:] = np.arange(vertices, vertices + 4 * more).reshape(-1, 4)
        out.voxel[quads:], out.side[quads:] = wall, looks
    return out


def piece_columns(piece: Piece) -> Columns:
    """Return the columns of a piece and those next to it, with the walls between them."""
    size = piece.frame.voxel_size
    return columns_of(piece.ground, piece.start, piece.z, piece.faces, piece.lift, size)


@numba.njit(cache=True, nogil=True)
def _count(xyz, x0, y0, nx, ny, count):  # type: ignore[no-untyped-def]
    """Count voxels by padded column, into count[column + 1]."""
    for i in range(xyz.shape[0]):
        c, r = xyz[i, 0] - x0, xyz[i, 1] - y0
        if 0 <= c < nx and 0 <= r < ny:
            count[r * nx + c + 1] += 1


@numba.njit(cache=True, nogil=True)
def _scatter(xyz, faces, lift, x0, y0, nx, ny, at, z_out, faces_out, lift_out):  # type: ignore[no-untyped-def]
    """Sort voxels into their columns; a column is complete in one part, sorted by z."""
    for i in range(xyz.shape[0]):
        c, r = xyz[i, 0] - x0, xyz[i, 1] - y0
        if 0 <= c < nx and 0 <= r < ny:
            k = at[r * nx + c]
            at[r * nx + c] = k + 1
            z_out[k] = xyz[i, 2]
            faces_out[k] = faces[i]
            lift_out[k] = lift[i]


@numba.njit(cache=True, nogil=True)
def _open_sides(xyz, faces, start, z, all_faces, x0, y0, nx, ny):  # type: ignore[no-untyped-def]
    """The sides without those at the rim of the piece that are covered by a neighbouring tile.

    Coarse levels are computed tile by tile, without their neighbours.
    """
    out = faces.copy()
    pitch = nx + 2
    for i in range(xyz.shape[0]):
        if faces[i] & WALL:  # the solid of the lattice has no opening there
            out[i] = 0
            continue
        c, r = xyz[i, 0] - x0, xyz[i, 1] - y0
        if c > 0 and c < nx - 1 and r > 0 and r < ny - 1:
            continue
        for side in range(4):
            if not faces[i] & (1 << side):
                continue
            step = 1 if side & 1 else -1
            column = (r + 1) * pitch + c + 1 + (step if side < 2 else step * pitch)
            if solid(z, all_faces, start[column], start[column + 1], xyz[i, 2]):
                out[i] &= ~np.uint8(1 << side)
    return out


@numba.njit(cache=True, nogil=True)
def _sizes(faces, quads):  # type: ignore[no-untyped-def]
    """Numbers of vertices and of quads."""
    by_faces = np.zeros(64, np.int64)
    sides = np.zeros(64, np.int64)
    for f in range(64):
        used = 0
        for side in range(6):
            if f & (1 << side):
                sides[f] += 1
                for n in range(4):
                    used |= 1 << quads[side, n]
        for c in range(8):
            by_faces[f] += (used >> c) & 1
    vertices, total = 0, 0
    for i in range(faces.shape[0]):
        vertices += by_faces[faces[i] & 63]
        total += sides[faces[i] & 63]
    return vertices, total


@numba.njit(cache=True, nogil=True)
def _build(  # type: ignore[no-untyped-def]
    xyz,
    faces,
    ground,
    start,
    z,
    all_faces,
    lift,
    split,
    x0,
    y0,
    s,
    anchor,
    corners,
    sides,
    vertices,
    quads,
    quad_voxel,
    quad_side,
    owner,
):
    v, q = 0, 0
    number = np.empty(8, np.int64)
    height = np.empty(8, np.float64)
    for i in range(xyz.shape[0]):
        used = 0
        for side in range(6):
            if faces[i] & (1 << side):
                for n in range(4):
                    used |= 1 << sides[side, n]
        if used == 0:
            continue
        for c in range(8):
            if not used & (1 << c):
                continue
            # Corner (cx, cy) lies between padded columns (cx, cy) and (cx + 1, cy + 1).
            cx = xyz[i, 0] - x0 + corners[c, 0]
            cy = xyz[i, 1] - y0 + corners[c, 1]
            k = xyz[i, 2] + corners[c, 2]
            # The column's place among the four around a corner.
            own = 3 - (c & 3)
            height[c] = corner_height(own, cx, cy, k, ground, start, z, all_faces, lift, split, s)
            number[c] = v
            vertices[v, 0] = (xyz[i, 0] + corners[c, 0]) * s - anchor[0]
            vertices[v, 1] = (xyz[i, 1] + corners[c, 1]) * s - anchor[1]
            vertices[v, 2] = height[c] - anchor[2]
            owner[v] = i
            v += 1
        for side in range(6):
            if not faces[i] & (1 << side):
                continue
            # Split along the flatter diagonal, so that ridges and valleys run along edges.
            a, b = sides[side, 0], sides[side, 2]
            c, d = sides[side, 1], sides[side, 3]
            turn = 1 if abs(height[c] - height[d]) < abs(height[a] - height[b]) else 0
            for n in range(4):
                quads[q, n] = number[sides[side, (n + turn) % 4]]
            quad_voxel[q] = i
            quad_side[q] = side
            q += 1
