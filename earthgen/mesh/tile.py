"""The mesh of one square piece of a world at one level, quantised, as files hold it.

Coordinates are whole steps of a power of two of the cell, from an origin on the lattice: corners of
the lattice are exact, and neighbouring pieces round alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.mesh.columns import BLOCK_LEVEL, Columns
from earthgen.mesh.shells import HALO, WALL, Shells, corner_ground, shells
from earthgen.mesh.terrain import Terrain, triangulate

TOLERANCE = 0.1
"""Cells by which the simplified terrain may miss a corner of the ground."""

FINEST_STEP = 256
"""Steps of a cell, at most."""

CLASSES = 26
"""The first rows of a tile's table of features: the land classes by their code, 0 for none."""


def _linear() -> NDArray:
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535).astype(np.uint16)


LINEAR = _linear()
"""(256,) uint16 linear light of the 8-bit sRGB values (IEC 61966-2-1)."""


@dataclass(frozen=True)
class Features:
    """What the vertices of a tile belong to, a row each.

    Attributes
    ----------
    semantic : NDArray (n,) uint8
        Class codes; row i < CLASSES is class i.
    object : NDArray (n,) uint32
        Object numbers; 0 for the ground and canopies.
    height : NDArray (n,) float32
        Largest height above the ground, metres; 0 for the ground.
    """

    semantic: NDArray
    object: NDArray
    height: NDArray


@dataclass(frozen=True)
class TileMesh:
    """Quantised meshes of the terrain and of what stands on it.

    Attributes
    ----------
    origin : tuple of float
        East, north, height of the coordinates' zero: CRS metres.
    step : float
        Metres of one unit of the coordinates.
    terrain, terrain_normal, terrain_uv, terrain_triangles : NDArray
        (v, 3) uint16 east, north, up; (v, 3) int8; (v, 2) uint16 of 65535, from the north-west;
        (t, 3) int32 counter-clockwise.
    picture, classes : NDArray (n + 2, n + 2, 3), (n + 2, n + 2) uint8
        sRGB and classes of the ground with a cell of what lies around, so that neighbours blend
        alike at their rim; rows from north to south.
    solid, solid_normal, colour, feature, solid_triangles : NDArray
        (v, 3) uint16; (v, 3) int8; (v, 3) uint16 linear light; (v,) uint16 rows of `features`;
        (t, 3) int32.
    features : Features
    """

    origin: tuple[float, float, float]
    step: float
    terrain: NDArray
    terrain_normal: NDArray
    terrain_uv: NDArray
    terrain_triangles: NDArray
    picture: NDArray
    classes: NDArray
    solid: NDArray
    solid_normal: NDArray
    colour: NDArray
    feature: NDArray
    solid_triangles: NDArray
    features: Features

    @property
    def triangles(self) -> int:
        """Number of triangles."""
        return len(self.terrain_triangles) + len(self.solid_triangles)

    def heights(self) -> tuple[float, float]:
        """Return the lowest and the highest height, metres."""
        z = np.concatenate([self.terrain[:, 2], self.solid[:, 2]]).astype(np.float64)
        return self.origin[2] + z.min() * self.step, self.origin[2] + z.max() * self.step


def tile_mesh(
    columns: Columns, level: int, *, inside: NDArray | None = None, skirt: float = 0.0
) -> TileMesh | None:
    """Return the mesh of a square piece; None if it has no ground.

    Parameters
    ----------
    columns : Columns
        On the square padded by HALO cells; its edge is a power of two of cells.
    level : int
        Of the columns.
    inside : NDArray (n, n) bool, optional
        The cells to draw; by default all that have ground.
    skirt : float
        Cells by which strips hang down from the rim of the terrain, which hide the gaps to
        neighbours of another level.
    """
    inner = columns.frame.pad(-HALO)
    n, size = inner.nx, inner.voxel_size
    middle = slice(HALO, HALO + n)
    around = slice(HALO - 1, HALO + n + 1)
    here = np.isfinite(columns.ground[around, around])
    known = np.isfinite(columns.ground[middle, middle])
    if inside is not None:
        known &= inside
    if not known.any():
        return None
    corners = corner_ground(columns.ground)[HALO - 2 : HALO + n + 1, HALO - 2 : HALO + n + 1]
    surface = triangulate(corners[1:-1, 1:-1], known, TOLERANCE * size, whole_rim=skirt <= 0)
    position, normal = _ground_vertices(surface, corners, size)
    uv = (position[:, :2] + 1) / (n + 2)
    triangles = surface.triangles
    if skirt > 0:
        position, normal, uv, triangles = _with_skirt(
            position, normal, uv, triangles, known, surface, _within(known, here), skirt * size
        )
    walls = shells(columns, level, inside=known)
    features, feature = _features(columns, walls)
    origin, step = _grid(inner.x[0], inner.y[0], size, n, position, walls.position)
    slabs = columns.slabs
    rgb = np.where(walls.side[:, None], slabs.side[walls.slab], slabs.roof[walls.slab])
    place = _quantised(walls.position, origin, step, size)
    normal_of, colour = walls.normal, LINEAR[rgb]
    if level >= BLOCK_LEVEL:
        normal_of, colour = _shared(place, feature, normal_of, colour, walls)
    solid, solid_triangles, first = _welded(
        place, _bytes(normal_of), colour, feature, walls.triangles
    )
    picture = _filled(columns.rgb[around, around], here)
    # What is not drawn is of one colour: it packs well, and nothing dark bleeds over the rim.
    picture[~_near(known)] = columns.rgb[middle, middle][known].mean(axis=0).astype(np.uint8)
    return TileMesh(
        (inner.x[0] * size - origin[0], inner.y[0] * size - origin[1], origin[2]),
        step,
        _quantised(position, origin, step, size),
        _bytes(normal),
        np.rint(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * 65535).astype(np.uint16),
        triangles,
        np.ascontiguousarray(picture[::-1]),
        np.where(_near(known), _filled(columns.semantic[around, around], here), 0)[::-1],
        solid,
        _bytes(normal_of)[first],
        colour[first],
        feature[first],
        solid_triangles,
        features,
    )


def _shared(
    place: NDArray, feature: NDArray, normal: NDArray, colour: NDArray, walls: Shells
) -> tuple[NDArray, NDArray]:
    """Return normals and colours that the walls of one feature share at a corner, as roofs do.

    Edges between walls are round then, which is not seen where a house is a few pixels, and a house
    of one cell has 12 vertices instead of 20.
    """
    if not len(place):
        return normal, colour
    upright = np.zeros(len(place), bool)
    upright[walls.triangles[walls.part == WALL]] = True
    key = np.zeros((len(place), 2), np.uint64)
    for values in (place[:, 0], place[:, 1], place[:, 2], feature):
        key[:, 0] = (key[:, 0] << np.uint64(16)) | values.astype(np.uint64)
    key[:, 1] = upright
    _, group = np.unique(key, axis=0, return_inverse=True)
    group = group.ravel()
    groups = int(group.max()) + 1
    total = np.bincount(group, minlength=groups)

    def mean(values: NDArray) -> NDArray:
        sums = [np.bincount(group, values[:, k], groups) for k in range(3)]
        return np.stack(sums, axis=1) / total[:, None]

    across = mean(normal)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    across = np.where(length > 0.01, across / np.maximum(length, 0.01), [0.0, 0.0, 1.0])
    blended = np.rint(mean(colour)).astype(colour.dtype)
    return across[group].astype(np.float32), blended[group]


def _filled(values: NDArray, known: NDArray) -> NDArray:
    """The cells, with that of the nearest one that has ground where there is none."""
    if known.all():
        return values.copy()
    near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(near)])


def _near(known: NDArray) -> NDArray:
    """The cells that are drawn, and those beside them, with a rim of one more."""
    return np.asarray(ndimage.binary_dilation(np.pad(known, 1), np.ones((3, 3), bool)))


def _ground_vertices(surface: Terrain, corners: NDArray, size: float) -> tuple[NDArray, NDArray]:
    """Positions, in cells and metres, and normals of a terrain; `corners` has a margin of one."""
    row, col = surface.row + 1, surface.column + 1
    here = corners[row, col]
    slope = []
    for dr, dc in ((0, 1), (1, 0)):
        after, before = corners[row + dr, col + dc], corners[row - dr, col - dc]
        after, before = (np.where(np.isfinite(v), v, here) for v in (after, before))
        slope.append((after - before) / (2 * size))
    normal = np.stack([-slope[0], -slope[1], np.ones(len(here))], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.stack([surface.column, surface.row, here], axis=1).astype(np.float64), normal


def _with_skirt(
    position: NDArray,
    normal: NDArray,
    uv: NDArray,
    triangles: NDArray,
    known: NDArray,
    surface: Terrain,
    within: NDArray,
    depth: float,
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Hang strips from the sides that have neighbours; they end at the rim of the world."""
    n = len(known)
    number = np.full((n + 1, n + 1), -1, np.int64)
    number[surface.row, surface.column] = np.arange(len(surface.row))
    # The four sides, counter-clockwise from above: vertices and the cells beside their edges.
    sides = [
        (number[0, :], known[0, :]),
        (number[:, -1], known[:, -1]),
        (number[-1, ::-1], known[-1, ::-1]),
        (number[::-1, 0], known[::-1, 0]),
    ]
    edges = []
    for line, cells in sides:
        used = np.flatnonzero(line >= 0)  # between two of them, all cells have ground or none has
        ends = within[surface.row, surface.column][line[used]]
        here = cells[used[:-1]] & (ends[:-1] | ends[1:])
        edges.append((line[used[:-1]][here], line[used[1:]][here]))
    first, second = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    if not len(first):
        return position, normal, uv, triangles
    rim, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    low = len(position) + index
    low_first, low_second = low[: len(first)], low[len(first) :]
    below = position[rim]
    below[:, 2] -= np.where(within[surface.row[rim], surface.column[rim]], depth, 0.0)
    strips = np.concatenate(
        [
            np.stack([low_first, low_second, second], axis=1),
            np.stack([low_first, second, first], axis=1),
        ]
    ).astype(np.int32)
    return (
        np.concatenate([position, below]),
        np.concatenate([normal, normal[rim]]),
        np.concatenate([uv, uv[rim]]),
        np.concatenate([triangles, strips]),
    )


def _within(known: NDArray, here: NDArray) -> NDArray:
    """Corners (n + 1, n + 1) with ground in all four cells; `here` has a margin of one cell."""
    cells = here.copy()
    cells[1:-1, 1:-1] = known
    return cells[:-1, :-1] & cells[:-1, 1:] & cells[1:, :-1] & cells[1:, 1:]


def _grid(
    x: int, y: int, size: float, n: int, *positions: NDArray
) -> tuple[tuple[float, float, float], float]:
    """Return the metres from the zero of the coordinates to the piece's corner, and its height;
    and the step."""
    margin = 1  # straightened corners at the rim lie up to half a cell outside
    every = np.concatenate([part[:, 2] for part in positions])
    low = np.floor(every.min() / size) * size
    steps = FINEST_STEP
    while steps > 1 and (
        (n + 2 * margin) * steps > 65535 or (every.max() - low) / size * steps > 65535
    ):
        steps //= 2
    step = size / steps
    while (every.max() - low) / step > 65535:  # cliffs higher than 65535 cells
        step *= 2
    return (margin * size, margin * size, float(low)), step


def _quantised(
    position: NDArray, origin: tuple[float, float, float], step: float, size: float
) -> NDArray:
    """(v, 3) uint16 of positions in cells, cells and metres."""
    metres = position * np.array([size, size, 1.0])
    metres += np.array([origin[0], origin[1], -origin[2]])
    return np.asarray(np.clip(np.rint(metres / step), 0, 65535), np.uint16)


def _bytes(normal: NDArray) -> NDArray:
    return np.rint(normal * 127).astype(np.int8)


def _welded(
    position: NDArray, normal: NDArray, colour: NDArray, feature: NDArray, triangles: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Merge equal vertices. Return positions, triangles, and the first row of each vertex."""
    if not len(position):
        return position, triangles, np.zeros(0, np.int64)
    rows = np.zeros((len(position), 4), np.uint64)
    p, c = position.astype(np.uint64), colour.astype(np.uint64)
    q = (normal.astype(np.int64) + 128).astype(np.uint64)
    rows = (p[:, 0] << 48) | (p[:, 1] << 32) | (p[:, 2] << 16) | feature
    more = (c[:, 0] << 48) | (c[:, 1] << 32) | (c[:, 2] << 16)
    # Colours of 8 bits fit their table, so the low bits are free for the normal.
    mixed = rows * np.uint64(0x9E3779B97F4A7C15) ^ more
    mixed ^= (q[:, 0] << 16) | (q[:, 1] << 8) | q[:, 2]
    order = np.lexsort((mixed, rows))
    same = np.zeros(len(rows), bool)
    a, b = order[1:], order[:-1]
    same[1:] = (rows[a] == rows[b]) & (more[a] == more[b]) & (normal[a] == normal[b]).all(axis=1)
    group = np.cumsum(~same) - 1
    first = order[~same]
    number = np.empty(len(rows), np.int64)
    number[order] = group
    # Vertices in the order of their first use, which viewers and compressors like.
    used, at = np.unique(number[triangles.ravel()], return_index=True)
    rank = np.empty(len(first), np.int64)
    sequence = used[np.argsort(at)]
    rank[sequence] = np.arange(len(sequence))
    kept = rank[number[triangles]].astype(np.int32)
    flat = (kept[:, 0] == kept[:, 1]) | (kept[:, 1] == kept[:, 2]) | (kept[:, 2] == kept[:, 0])
    return position[first[sequence]], kept[~flat], first[sequence]


def _features(columns: Columns, walls: Shells) -> tuple[Features, NDArray]:
    """Return the table of features, and each vertex's row of it: (v,) uint16.

    Objects beyond 65,535 are shown by their class alone.
    """
    slabs = columns.slabs
    classes = np.arange(CLASSES, dtype=np.uint8)
    used = np.unique(walls.slab)
    named = used[slabs.object[used] > 0]
    keys = (slabs.object[named].astype(np.int64) << 8) | slabs.semantic[named]
    unique, index = np.unique(keys, return_inverse=True)
    row = slabs.semantic.astype(np.int64)
    row[row >= CLASSES] = 0
    fits = index < 65535 - CLASSES
    row[named[fits]] = CLASSES + index[fits]
    unique = unique[: 65535 - CLASSES]
    height = np.zeros(CLASSES + len(unique), np.float32)
    np.maximum.at(height, row[used], slabs.top[used])
    features = Features(
        np.concatenate([classes, (unique & 255).astype(np.uint8)]),
        np.concatenate([np.zeros(CLASSES, np.uint32), (unique >> 8).astype(np.uint32)]),
        height,
    )
    return features, row[walls.slab].astype(np.uint16)
