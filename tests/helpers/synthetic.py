"""A small made-up world for tests of what reads worlds: hills, a stream, a road, gabled houses,
trees.

It is written through the store's own writer. Everything is a function of the place, so that tiles
agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earthgen.voxels.pyramid import tile_levels
from earthgen.voxels.splat_math import disc_rotations
from earthgen.voxels.tile import Tile, crop_tile, tile_from_voxels
from earthgen.voxels.voxels import FACES, Splats, Voxels
from earthgen.world.store import Store, create_store
from earthgen.world.world import World, open_world
from geo_io.frame import Frame
from geo_io.legend import codes, palette

LOW, HIGH = -3, 40  # the band in which there is anything, voxels
SH_C0 = 0.28209479177387814


def hash01(*values: np.ndarray) -> np.ndarray:
    """Values in [0, 1) that look random, by integer place."""
    state = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for value in values:
            state = (state ^ np.asarray(value).astype(np.int64).astype(np.uint64)) * np.uint64(
                0xBF58476D1CE4E5B9
            )
            state ^= state >> np.uint64(29)
    return (state >> np.uint64(11)).astype(np.float64) / 2**53


def terrain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    hills = (
        14 * np.sin(x / 170) * np.cos(y / 210)
        + 6 * np.sin(x / 61 + y / 90)
        + 1.2 * np.sin(x / 13) * np.sin(y / 17)
    )
    return 412.25 + hills - 5 * np.exp(-((stream(x, y) / 14) ** 2))


def stream(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance from the middle of the stream, roughly."""
    return y % 900 - 430 - 60 * np.sin(x / 140)


def exposed(solid: np.ndarray) -> tuple[np.ndarray, ...]:
    """Open sides (nz, ny, nx) of a solid, without the outermost columns, and where they are, by
    (y, x, z)."""
    faces = np.zeros(solid.shape, np.uint8)
    empty = ~solid
    faces[:-1] |= empty[1:] * np.uint8(FACES["+z"])
    faces[1:] |= empty[:-1] * np.uint8(FACES["-z"])
    faces[:, :, 1:] |= empty[:, :, :-1] * np.uint8(FACES["-x"])
    faces[:, :, :-1] |= empty[:, :, 1:] * np.uint8(FACES["+x"])
    faces[:, 1:] |= empty[:, :-1] * np.uint8(FACES["+y"])  # the row before lies to the north
    faces[:, :-1] |= empty[:, 1:] * np.uint8(FACES["-y"])
    faces[~solid] = 0
    faces[:, [0, -1]] = 0
    faces[:, :, [0, -1]] = 0
    kk, rr, cc = np.nonzero(faces)
    order = np.lexsort((kk, cc, -rr))
    return faces, kk[order], rr[order], cc[order]


def rubble(frame: Frame, share: float) -> tuple[np.ndarray, Voxels, Splats]:
    """Voxels thrown at random on rough ground: the hardest thing to make a closed surface of."""
    i, j = np.meshgrid(np.arange(*frame.pad(1).x), np.arange(*frame.pad(1).y)[::-1])
    k = np.arange(LOW, 8)
    solid = hash01(i[None], j[None], k[:, None, None]) < share
    solid[k < 0], solid[k == 7] = True, False
    faces, kk, rr, cc = exposed(solid)
    n = len(kk)
    xyz = np.stack([i[rr, cc], j[rr, cc], k[kk]], axis=1).astype(np.int32)
    offset = (hash01(xyz[:, 0], xyz[:, 1], xyz[:, 2])[:, None] - 0.5) * np.array([0, 0, 0.9])
    voxels = Voxels(frame, xyz, np.full(n, 2, np.uint8), faces[kk, rr, cc], np.zeros(n, np.uint32))
    splats = Splats(
        offset.astype(np.float32),
        np.full((n, 2), 0.5, np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (n, 1)),
        np.ones(n, np.float32),
        np.zeros((n, 1, 3), np.float32),
    )
    return (300 + 3 * hash01(i, j))[1:-1, 1:-1].astype(np.float32), voxels, splats


def build(frame: Frame, flat: bool = False, degree: int = 0) -> tuple[np.ndarray, Voxels, Splats]:
    """Ground, voxels and splats on `frame`."""
    s = frame.voxel_size
    wide = frame.pad(1)
    i, j = np.meshgrid(np.arange(*wide.x), np.arange(*wide.y)[::-1])
    x, y = (i + 0.5) * s, (j + 0.5) * s
    z0 = np.full(x.shape, 400.0) if flat else terrain(x, y)
    ny, nx = x.shape
    cover = np.full((ny, nx), codes()["grassland"], np.uint8)
    field = hash01(i * s // 90, j * s // 70)
    cover[field > 0.55] = codes()["cropland"]
    wood = np.sin(x / 120 + 1) * np.sin(y / 150) > 0.45
    cover[wood] = codes()["mixed_forest"]
    road = np.abs(x % 300 - 150 - 20 * np.sin(y / 80)) < 3.5
    cover[road] = codes()["road"]
    water = np.abs(stream(x, y)) < 8
    cover[water] = codes()["river"]
    height = np.zeros((ny, nx))  # of houses
    slope = np.zeros((ny, nx, 2))
    pitch = 36
    px, py = np.floor(x / pitch), np.floor(y / pitch)
    u, v = x % pitch - pitch / 2, y % pitch - pitch / 2
    house = (hash01(px, py, 3) < 0.45) & (np.sin(px * pitch / 260) * np.sin(py * pitch / 300) > 0.1)
    house &= (np.abs(u) < 8) & (np.abs(v) < 5.5) & ~road & ~water & ~wood
    eaves = 4 + 3 * hash01(px, py, 5)
    height = np.where(house, eaves + (5.5 - np.abs(v)) * 0.8, 0)
    slope[..., 1] = np.where(house, -np.sign(v) * 0.8, 0)
    cover[house] = codes()["building"]
    k = np.arange(LOW, HIGH)
    solid = (k[:, None, None] + 0.5) * s < height
    solid[:-LOW] = True
    leaf = np.zeros(solid.shape, bool)
    crowns = np.zeros((*solid.shape, 3), np.float32)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            cx, cy = np.floor(x / 9) + dx, np.floor(y / 9) + dy
            tx, ty = (
                (cx + 0.2 + 0.6 * hash01(cx, cy, 7)) * 9,
                (cy + 0.2 + 0.6 * hash01(cx, cy, 8)) * 9,
            )
            inside = np.sin(tx / 120 + 1) * np.sin(ty / 150) > 0.47
            grows = (hash01(cx, cy, 9) < np.where(inside, 0.9, 0.03)) & ~house & ~road & ~water
            tall, wide_r = 8 + 10 * hash01(cx, cy, 10), 2.6 + 2 * hash01(cx, cy, 11)
            middle = tall * 0.62
            w = (k[:, None, None] + 0.5) * s
            d = np.stack(
                np.broadcast_arrays(
                    (x - tx) / wide_r, (y - ty) / wide_r, (w - middle) / (tall * 0.38)
                ),
                -1,
            )
            crown = grows & ((d**2).sum(-1) < 1) & (w > 0)
            trunk = grows & (np.hypot(x - tx, y - ty) < 0.75 * max(s, 1)) & (w < middle) & (w > 0)
            crowns[crown] = d[crown]
            leaf |= crown | trunk
    solid |= leaf
    faces, kk, rr, cc = exposed(solid)
    xyz = np.stack([i[rr, cc], j[rr, cc], k[kk]], axis=1).astype(np.int32)
    is_leaf = leaf[kk, rr, cc]
    semantic = np.where(is_leaf, codes()["tree"], cover[rr, cc]).astype(np.uint8)
    # Surfaces: crowns point outwards, roofs and terrain by their slope, walls to the open side.
    gy, gx = np.gradient(z0, s)
    normal = np.stack([-gx[rr, cc], gy[rr, cc], np.ones(len(kk))], axis=1)
    roof = house[rr, cc] & ~is_leaf & (xyz[:, 2] >= 0)
    top = (faces[kk, rr, cc] & FACES["+z"]) > 0
    normal[roof] = np.stack([-slope[rr, cc, 0], -slope[rr, cc, 1], np.ones(len(kk))], axis=1)[roof]
    wall = roof & ~top
    bits = faces[kk, rr, cc]
    sides = np.stack(
        [
            (bits & 2 > 0) * 1.0 - (bits & 1 > 0),
            (bits & 8 > 0) * 1.0 - (bits & 4 > 0),
            np.full(len(kk), 0.05),
        ],
        axis=1,
    )
    normal[wall] = sides[wall]
    normal[is_leaf] = crowns[kk, rr, cc][is_leaf] + np.array([0, 0, 1e-3])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    offset = np.zeros((len(kk), 3), np.float32)
    ground_top = (xyz[:, 2] == -1) & top
    offset[ground_top, 2] = s / 2
    offset[roof & top, 2] = (height[rr, cc] - (xyz[:, 2] + 0.5) * s)[roof & top]
    colour = palette()[semantic] / 255
    wall_colour = 0.86 + 0.1 * hash01(px, py, 13)[rr, cc]
    colour[wall] = wall_colour[wall, None] * [1, 0.97, 0.9]
    colour[roof & top] = ([0.62, 0.3, 0.22] + 0.12 * hash01(px, py, 14)[rr, cc, None])[roof & top]
    colour *= 0.92 + 0.16 * hash01(xyz[:, 0], xyz[:, 1], xyz[:, 2])[:, None]
    crop = semantic == codes()["cropland"]
    colour[crop] *= (0.75 + 0.35 * field[rr, cc])[crop, None]
    sh = np.zeros((len(kk), (degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = (np.clip(colour, 0, 1) - 0.5) / SH_C0
    if degree:
        sh[:, 1:] = hash01(xyz[:, 0], xyz[:, 1], xyz[:, 2])[:, None, None] * 0.1
    opacity = np.where(is_leaf, 0.9, 1.0).astype(np.float32)
    voxels = Voxels(frame, xyz, semantic, bits, (roof * 7).astype(np.uint32))
    splats = Splats(
        offset,
        np.full((len(kk), 2), 0.5 * s, np.float32),
        disc_rotations(normal.astype(np.float32)),
        opacity,
        sh,
    )
    return z0[1:-1, 1:-1].astype(np.float32), voxels, splats


def start(
    path: Path,
    x: tuple[int, int],
    y: tuple[int, int],
    *,
    voxel_size: float = 1.0,
    tile_size: int = 64,
    vertical_crs: str = "EPSG:7837",
    degree: int = 0,
) -> Store:
    """A world without a tile. x and y are voxels from (640000, 5560000) in UTM 32."""
    east, north = round(640000 / voxel_size), round(5560000 / voxel_size)
    frame = Frame(
        "EPSG:32632",
        voxel_size,
        (east + x[0], east + x[1]),
        (north + y[0], north + y[1]),
        vertical_crs=vertical_crs,
    )
    attributes = {
        "identity": {"seed": 7},
        "provenance": {
            "ground": "generated, not measured",
            "inputs": {"semantics": [{"source": "/home/somebody/made.gpkg"}]},
        },
        "settings": {},
    }
    return create_store(path, frame, tile_size, attributes, degree)


def put(store: Store, tile: tuple[int, int], content: Tile) -> None:
    """Write a level-1 tile with its levels, and make it visible."""
    store.commit({tile: store.write(*tile, tile_levels(content))})


def fill(store: Store, levels: Sequence[Tile]) -> None:
    """Write the tiles of a world from its levels, which cover it or more, and make them visible
    together."""
    store.commit(
        {
            tile: store.write(*tile, cut(store, tile, levels))
            for tile in store.frame.tiles(store.tile_size)
        }
    )


def cut(store: Store, tile: tuple[int, int], levels: Sequence[Tile]) -> list[Tile]:
    """The part of levels that a tile of a world has."""
    return [crop_tile(part, store.tile_frame(*tile, 2**n)) for n, part in enumerate(levels)]


def make(
    path: Path,
    x: tuple[int, int],
    y: tuple[int, int],
    *,
    flat: bool = False,
    degree: int = 0,
    **kind,
) -> World:
    """A finished world."""
    store = start(path, x, y, degree=degree, **kind)
    for tx, ty in store.frame.tiles(store.tile_size):
        frame = store.tile_frame(tx, ty)
        ground, voxels, splats = build(frame, flat, degree)
        put(store, (tx, ty), tile_from_voxels(frame, ground, voxels, splats))
    return open_world(path)
