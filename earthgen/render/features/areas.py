"""Areas of single classes as polygons, joined across tiles.

Parts of an area in neighbouring tiles are held until it is complete, and joined. A network of roads
can cover a whole world; such areas are cut along a lattice, so that neither files nor memory have
to hold one polygon of all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from earthgen.render.features.cover import ground_cover
from earthgen.world.selection import Selection

if TYPE_CHECKING:
    from earthgen.world.world import World

SMOOTH = 0.75
"""Cells: stairs of outlines that are lower become straight lines."""


@dataclass(frozen=True)
class Area:
    """An area of one class.

    Attributes
    ----------
    code : int
        Class.
    polygon : Polygon
        CRS metres, valid, exterior counter-clockwise.
    """

    code: int
    polygon: Polygon


def world_areas(
    world: World, selection: Selection, codes: Mapping[int, float | None]
) -> Iterator[list[Area]]:
    """Yield the areas of some classes on the ground within a selection.

    Parameters
    ----------
    world : World
    selection : Selection
    codes : mapping of int to float or None
        The classes, and for each the edge in metres of the lattice from the CRS origin along which
        its areas are cut; None for whole areas.

    Yields
    ------
    list of Area
        After each tile those that are complete, by class and place.
    """
    size = selection.frame.voxel_size
    joiner = _Joiner(selection)
    for tile in selection.tiles:
        part = selection.tile(world, *tile)
        assert part is not None  # the selection has only tiles that it meets
        whole = world.tile_frame(*tile, selection.level)
        cover = ground_cover(world, *tile, selection.level)[whole.slices(part)]
        pieces: list[tuple[int, tuple[int, int], Polygon]] = []
        for code, edge in codes.items():
            mask = cover == code
            if not mask.any():
                continue
            cells = 0 if edge is None else max(1, round(edge / size))
            for place, polygon in _polygons(mask, part.x, part.y, cells):
                pieces.append((code, place, polygon))
        done = joiner.add(tile, (part.x, part.y), pieces)
        yield [Area(code, _in_metres(polygon, size)) for code, polygon in done]


def _polygons(
    mask: NDArray, x: tuple[int, int], y: tuple[int, int], cells: int
) -> Iterator[tuple[tuple[int, int], Polygon]]:
    """Outlines of a mask in lattice indices, and the block of the lattice that each lies in."""
    blocks = np.ones(mask.shape, np.int32)
    wide = 1
    if cells:
        column = np.arange(*x) // cells
        row = np.arange(y[1] - 1, y[0] - 1, -1) // cells
        wide = int(column[-1] - column[0]) + 1
        blocks = (row - row[-1])[:, None] * wide + (column - column[0])[None, :] + 1
        blocks = blocks.astype(np.int32)
    place = rasterio.Affine(1, 0, x[0], 0, -1, y[1])
    values = np.where(mask, blocks, 0).astype(np.int32)
    for shape, value in rasterio.features.shapes(values, mask=mask, transform=place):
        index = int(value) - 1
        where = (0, 0)
        if cells:
            where = (x[0] // cells + index % wide, y[0] // cells + index // wide)
        rings = shape["coordinates"]
        yield where, Polygon(rings[0], rings[1:])


def _in_metres(polygon: Polygon, size: float) -> Polygon:
    """A polygon of cells with straight lines instead of low stairs, in CRS metres."""
    plain = polygon.simplify(SMOOTH)
    if not isinstance(plain, Polygon) or not plain.is_valid or plain.is_empty:
        plain = polygon
    moved = shapely.transform(plain, lambda xy: xy * size)
    return shapely.geometry.polygon.orient(moved)


Tile = tuple[int, int]
Border = tuple[int, tuple[int, int], str, int]
"""Class, block of the lattice of cuts, axis and lattice line of a border between tiles."""


class _Joiner:
    """Joins polygons that share an edge between tiles, with union and find.

    Tiles come row by row from the south-west; what touches the east or north side of a tile that
    has a neighbour there stays open.
    """

    def __init__(self, selection: Selection) -> None:
        self.tiles = set(selection.tiles)
        self.parent: dict[int, int] = {}
        self.pieces: dict[int, list[Polygon]] = {}
        self.waits: dict[int, set[tuple[int, int]]] = {}
        self.waiting: dict[tuple[int, int], set[int]] = defaultdict(set)
        # Pieces that touch a border, with the cells along it, by the border and the tile behind it.
        self.border: dict[tuple[Border, Tile], list[tuple[int, int, int]]] = defaultdict(list)
        self.code: dict[int, tuple[int, tuple[int, int]]] = {}
        self.next = 0

    def find(self, piece: int) -> int:
        while self.parent[piece] != piece:
            self.parent[piece] = self.parent[self.parent[piece]]
            piece = self.parent[piece]
        return piece

    def add(
        self,
        tile: tuple[int, int],
        box: tuple[tuple[int, int], tuple[int, int]],
        pieces: list[tuple[int, tuple[int, int], Polygon]],
    ) -> list[tuple[int, Polygon]]:
        (west, east), (south, north) = box
        tx, ty = tile
        sides = (
            ("x", west, (tx - 1, ty), False),
            ("x", east, (tx + 1, ty), True),
            ("y", south, (tx, ty - 1), False),
            ("y", north, (tx, ty + 1), True),
        )
        done: list[tuple[int, Polygon]] = []
        for code, block, polygon in pieces:
            me, self.next = self.next, self.next + 1
            self.parent[me], self.pieces[me] = me, [polygon]
            self.waits[me], self.code[me] = set(), (code, block)
            for axis, at, neighbour, ahead in sides:
                if neighbour not in self.tiles:
                    continue
                for low, high in _along(polygon, axis, at):
                    key = (code, block, axis, at)
                    if ahead:
                        self.border[key, neighbour].append((low, high, me))
                        self.waits[self.find(me)].add(neighbour)
                        self.waiting[neighbour].add(me)
                    else:
                        for a, b, other in self.border.get((key, tile), ()):
                            if a < high and low < b:
                                self._join(me, other)
        for met in [met for met in self.border if met[1] == tile]:
            del self.border[met]
        roots = {self.find(piece) for piece in self.waiting.pop(tile, ())}
        roots |= {self.find(piece) for piece in range(self.next - len(pieces), self.next)}
        for root in sorted(roots):
            self.waits[root].discard(tile)
            if not self.waits[root]:
                whole = shapely.union_all(self.pieces.pop(root))
                parts = getattr(whole, "geoms", [whole])
                done += [(self.code[root][0], part) for part in parts if isinstance(part, Polygon)]
        for piece in [p for p in self.parent if self.find(p) not in self.pieces]:
            del self.parent[piece]
        for table in (self.waits, self.code):
            for piece in [p for p in table if p not in self.parent]:
                del table[piece]
        return sorted(done, key=lambda item: (item[0], item[1].bounds))

    def _join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        self.parent[a] = b
        self.pieces[b] += self.pieces.pop(a)
        self.waits[b] |= self.waits.pop(a)


def _along(polygon: Polygon, axis: str, at: int) -> list[tuple[int, int]]:
    """The intervals in which a polygon of cells touches a lattice line."""
    k = 0 if axis == "x" else 1
    touching = []
    for ring in (polygon.exterior, *polygon.interiors):
        xy = np.asarray(ring.coords)
        on = (xy[:-1, k] == at) & (xy[1:, k] == at)
        for low, high in zip(xy[:-1][on, 1 - k], xy[1:][on, 1 - k], strict=True):
            touching.append((int(min(low, high)), int(max(low, high))))
    return touching
