"""The objects of a world, each once and whole, read tile by tile.

An object is what has one object number and hangs together: cells of one number within `GAP` metres.
Numbers have 30 bits, so in a large world two objects far apart may share one. An object in several
tiles is held until all of them were read; what lies inside a tile is passed on at once. Memory
therefore holds a tile, and the objects across the borders of one row of tiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.terrain.cover import class_code
from earthgen.voxels.splat_math import base_colours, disc_normals
from earthgen.voxels.voxels import SIDES, WALL, Splats, Voxels
from earthgen.world.selection import Selection

if TYPE_CHECKING:
    from earthgen.world.world import World

GAP = 8.0
"""Metres: cells of one number that are no farther apart belong to one object, such as the two wings
of a building that a tower divides."""

FILLED = 0.3
"""Objects that fill a larger share of their bounding box are not searched for gaps."""

CELL = np.dtype(
    [
        ("number", "u4"),
        ("semantic", "u1"),
        ("x", "i4"),
        ("y", "i4"),
        ("top", "f8"),
        ("low", "f4"),
        ("ground", "f4"),
        ("normal", "f4", 3),
        ("rgb", "u1", 3),
        ("wall", "u4", 3),
        ("walls", "u4"),
    ]
)
"""A column of one object.

- number, semantic: object number, and class of its highest voxel
- x, y: lattice indices
- top: absolute height of its surface, metres
- low: height of its underside above the ground, metres; 0 where it stands on the ground
- ground: absolute height of the ground, metres
- normal, rgb: of its highest voxel
- wall, walls: sum of the colours of the voxels with open vertical sides, and their number
"""


@dataclass(frozen=True)
class Objects:
    """Whole objects.

    Attributes
    ----------
    cells : NDArray (m,) CELL
        Object by object, each sorted by (y, x).
    start : NDArray (n + 1,) int64
        Where each object begins in `cells`.
    """

    cells: NDArray
    start: NDArray

    def __len__(self) -> int:
        return len(self.start) - 1

    def __iter__(self) -> Iterator[NDArray]:
        return (
            self.cells[low:high] for low, high in zip(self.start[:-1], self.start[1:], strict=True)
        )


def world_objects(world: World, selection: Selection, buildings: bool) -> Iterator[Objects]:
    """Yield the objects that have a cell in a selection, whole, also beyond its bounds.

    Parameters
    ----------
    world : World
    selection : Selection
    buildings : bool
        Buildings, or all other objects: plants.

    Yields
    ------
    Objects
        After each tile those that are complete, in the order of their numbers.
    """
    gap = max(1, round(GAP / selection.frame.voxel_size))
    collector = _Collector(world, selection, gap)
    for tile in selection.tiles:
        done = collector.add(tile, _cells_in(world, tile, selection.level, buildings))
        if len(done):
            yield done
    while (beyond := collector.wanted()) is not None:
        cells = _cells_in(world, beyond, selection.level, buildings)
        done = collector.add(beyond, cells[np.isin(cells["number"], collector.numbers())])
        if len(done):
            yield done


def _cells_in(world: World, tile: tuple[int, int], level: int, buildings: bool) -> NDArray:
    """Read a tile, and return the columns of its objects."""
    ground = world.tile_layers(*tile, level)["ground"]
    return object_cells(*world.tile_voxels(*tile, level), ground, buildings)


def object_cells(voxels: Voxels, splats: Splats, ground: NDArray, buildings: bool) -> NDArray:
    """Return the columns of objects in a tile: (m,) CELL, sorted by (number, y, x).

    Parameters
    ----------
    voxels, splats : Voxels, Splats
        Of the tile.
    ground : NDArray (ny, nx) float32
        On the frame of the voxels, metres.
    buildings : bool
        As of `world_objects`.
    """
    built = voxels.semantic == class_code("building")
    own = np.flatnonzero(
        (voxels.object != 0) & (voxels.faces & WALL == 0) & (built if buildings else ~built)
    )
    own = own[np.argsort(voxels.object[own], kind="stable")]  # voxels are sorted by (y, x, z)
    number, (x, y, z) = voxels.object[own], voxels.xyz[own].T
    cells = np.zeros(0, CELL)
    if not len(own):
        return cells
    new = np.ones(len(own), bool)
    new[1:] = (number[1:] != number[:-1]) | (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(own)) - 1
    frame, s = voxels.frame, voxels.frame.voxel_size
    rgb = base_colours(splats.sh[own])
    cells = np.zeros(len(first), CELL)
    cells["number"], cells["semantic"] = number[first], voxels.semantic[own[last]]
    cells["x"], cells["y"] = x[first], y[first]
    cells["ground"] = ground[frame.y[1] - 1 - cells["y"], cells["x"] - frame.x[0]]
    # Offsets beyond the voxel, which half precision may cause, are no heights.
    lift = np.clip(splats.offset[own[last], 2], -1.5 * s, 1.5 * s)
    cells["top"] = cells["ground"] + (z[last] + 0.5) * s + lift
    hangs = (voxels.faces[own[first]] & 16 > 0) & (z[first] > 0)
    cells["low"] = np.where(hangs, z[first] * s, 0.0)
    cells["normal"], cells["rgb"] = disc_normals(splats.rotation[own[last]]), rgb[last]
    side = voxels.faces[own] & SIDES > 0
    cells["wall"] = np.add.reduceat(np.where(side[:, None], rgb, 0).astype(np.uint32), first)
    cells["walls"] = np.add.reduceat(side.astype(np.uint32), first)
    return cells


Box = tuple[int, int, int, int]


@dataclass(eq=False)
class _Held:
    """Cells of one number that may go on in tiles that were not read yet."""

    cells: list[NDArray]
    box: Box
    needs: set[tuple[int, int]]
    wanted: bool
    open: bool = True


class _Collector:
    """Joins the parts of objects in several tiles."""

    def __init__(self, world: World, selection: Selection, gap: int) -> None:
        self.frame, self.gap = selection.frame, gap
        self.size = world.tile_size // selection.level
        self.finished = set(world.tiles())
        self.read: set[tuple[int, int]] = set()
        self.held: dict[int, list[_Held]] = defaultdict(list)
        self.waiting: dict[tuple[int, int], list[_Held]] = defaultdict(list)

    def numbers(self) -> list[int]:
        return sorted(self.held)

    def wanted(self) -> tuple[int, int] | None:
        """The next tile that an object of the selection goes on in."""
        tiles = {
            tile
            for groups in self.held.values()
            for group in groups
            if group.wanted
            for tile in group.needs
        }
        return min(tiles, key=lambda tile: (tile[1], tile[0]), default=None)

    def add(self, tile: tuple[int, int], cells: NDArray) -> Objects:
        """Take the columns of a tile; the objects that are complete."""
        self.read.add(tile)
        parts: list[NDArray] = []
        if len(cells):
            number = cells["number"]
            start = np.append(
                np.flatnonzero(np.append(True, number[1:] != number[:-1])), len(cells)
            )
            low = [np.minimum.reduceat(cells[axis], start[:-1]) for axis in "xy"]
            high = [np.maximum.reduceat(cells[axis], start[:-1]) for axis in "xy"]
            boxes = np.stack([*low, *high], axis=1)
            inside = np.ones(len(boxes), bool)
            for axis, t in enumerate(tile):
                inside &= boxes[:, axis] - self.gap >= t * self.size
                inside &= boxes[:, axis + 2] + self.gap < (t + 1) * self.size
            for k in np.flatnonzero(inside):
                group = cells[start[k] : start[k + 1]]
                if self.meets(group):
                    parts.append(group)
            for k in np.flatnonzero(~inside):
                group = cells[start[k] : start[k + 1]]
                self._hold(int(number[start[k]]), group, tuple(boxes[k].tolist()))
        for held in self.waiting.pop(tile, ()):
            held.needs.discard(tile)
        for key in [key for key, groups in self.held.items() if any(not g.needs for g in groups)]:
            for held in self.held[key]:
                if not held.needs and held.wanted:
                    parts.append(_ordered(held.cells))
            self.held[key] = [held for held in self.held[key] if held.needs]
            if not self.held[key]:
                del self.held[key]
        return _together(parts, self.gap)

    def meets(self, cells: NDArray) -> bool:
        """Whether cells lie in the selection."""
        (west, east), (south, north) = self.frame.x, self.frame.y
        x, y = cells["x"], cells["y"]
        return bool(((x >= west) & (x < east) & (y >= south) & (y < north)).any())

    def _hold(self, key: int, cells: NDArray, box: Box) -> None:
        group = _Held([cells], box, set(), self.meets(cells))
        merged = True
        while merged:  # a larger box may reach others
            merged = False
            for other in self.held[key]:
                if _near(group.box, other.box, self.gap):
                    self.held[key].remove(other)
                    group.cells += other.cells
                    group.box = _around(group.box, other.box)
                    group.wanted |= other.wanted
                    merged = True
                    break
        low, high = ([v // self.size for v in edge] for edge in self._reach(group.box))
        group.needs = {
            (tx, ty)
            for tx in range(low[0], high[0] + 1)
            for ty in range(low[1], high[1] + 1)
            if (tx, ty) in self.finished and (tx, ty) not in self.read
        }
        for tile in group.needs:
            self.waiting[tile].append(group)
        self.held[key].append(group)

    def _reach(self, box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
        west, south, east, north = box
        return (west - self.gap, south - self.gap), (east + self.gap, north + self.gap)


def _near(a: Box, b: Box, gap: int) -> bool:
    return a[0] - gap <= b[2] and b[0] - gap <= a[2] and a[1] - gap <= b[3] and b[1] - gap <= a[3]


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _ordered(parts: list[NDArray]) -> NDArray:
    cells = np.concatenate(parts)
    return cells[np.lexsort((cells["x"], cells["y"]))]


def _together(parts: Iterable[NDArray], gap: int) -> Objects:
    """Objects from the cells of single numbers, which may lie far apart."""
    pieces = [piece for part in parts for piece in _pieces(part, gap)]
    if not pieces:
        return Objects(np.zeros(0, CELL), np.zeros(1, np.int64))
    pieces.sort(key=lambda piece: (int(piece["number"][0]), int(piece["y"][0]), int(piece["x"][0])))
    start = np.cumsum([0, *(len(piece) for piece in pieces)])
    return Objects(np.concatenate(pieces), start)


def _pieces(cells: NDArray, gap: int) -> list[NDArray]:
    x, y = cells["x"] - cells["x"].min(), cells["y"] - cells["y"].min()
    nx, ny = int(x.max()) + 1, int(y.max()) + 1
    if max(nx, ny) <= gap or len(cells) >= FILLED * nx * ny:
        return [cells]
    half = gap // 2
    near = np.zeros((ny + 2 * half, nx + 2 * half), np.uint8)
    near[y + half, x + half] = 1
    grown = ndimage.maximum_filter(near, gap | 1) if half else near
    label, count = ndimage.label(grown, np.ones((3, 3)))
    if count == 1:
        return [cells]
    mine = label[y + half, x + half]
    return [cells[mine == k] for k in range(1, count + 1)]
