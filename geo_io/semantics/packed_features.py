"""Prepared features in few bytes: what is kept of blocks, and how a window takes from them what it
shows.

A footprint takes some 170 bytes here and ten times as many as a geometry of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds
from geo_io.legend import priorities

KEPT_BYTES = 24 * 2**20
"""Bytes of blocks that a reader keeps of all its sources together, whatever the region: some 150
000 footprints."""

ENTRY_BYTES = 4096
"""What a block counts for at least."""


@dataclass(frozen=True)
class Seen:
    """Prepared features: `shapes` (polygons, lines made wide) in the order of painting, and trees.

    code, key, height, is_area: of each shape; is_area is False for lines. xy (m, 2), tree_height,
    crown, tree_key: of each tree.
    """

    shapes: NDArray
    code: NDArray
    key: NDArray
    height: NDArray
    is_area: NDArray
    xy: NDArray
    tree_height: NDArray
    crown: NDArray
    tree_key: NDArray

    def take(self, shapes: NDArray, trees: NDArray) -> Seen:
        """The part with these indices or masks."""
        return Seen(
            self.shapes[shapes],
            self.code[shapes],
            self.key[shapes],
            self.height[shapes],
            self.is_area[shapes],
            self.xy[trees],
            self.tree_height[trees],
            self.crown[trees],
            self.tree_key[trees],
        )


@dataclass(frozen=True)
class Packed:
    """Features of one block in the order of painting, coordinates in one array.

    Attributes
    ----------
    coordinates : (c, 2) float64, CRS metres, of all rings
    rings : (r + 1,) int32, where each ring begins in `coordinates`
    polygons : (n + 1,) int32, where each polygon begins in `rings`
    boxes : (n, 4) float32, the bounds of each polygon rounded outwards
    fid, part : (n,) int64 feature id, and int32 number of the polygon within its feature
    rest : all else of the features; its `shapes` are None
    """

    coordinates: NDArray
    rings: NDArray
    polygons: NDArray
    boxes: NDArray
    fid: NDArray
    part: NDArray
    rest: Seen

    @property
    def nbytes(self) -> int:
        rest = (array.nbytes for name, array in vars(self.rest).items() if name != "shapes")
        return sum(array.nbytes for name, array in vars(self).items() if name != "rest") + sum(rest)

    def shapes(self, chosen: NDArray) -> NDArray:
        """The polygons with these indices, as they were before."""
        if len(chosen) == 0:
            return np.empty(0, object)
        rings, polygon_starts = _ranges(self.polygons[chosen], self.polygons[chosen + 1])
        places, ring_starts = _ranges(self.rings[rings], self.rings[rings + 1])
        made = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.coordinates[places], (ring_starts, polygon_starts)
        )
        return np.asarray(made, object)


def pack(seen: Seen, fid: NDArray, part: NDArray) -> Packed:
    """Pack features in the order of painting. `seen.shapes` are Polygons, none of them empty."""
    if len(seen.shapes):
        _, coordinates, (rings, polygons) = shapely.to_ragged_array(seen.shapes, include_z=False)
    else:
        coordinates, rings, polygons = (
            np.empty((0, 2)),
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
        )
    bounds = shapely.bounds(seen.shapes).reshape(-1, 4)
    infinite = np.array([-np.inf, -np.inf, np.inf, np.inf], np.float32)
    return Packed(
        coordinates,
        rings.astype(np.int32),
        polygons.astype(np.int32),
        np.nextafter(bounds.astype(np.float32), infinite),
        fid,
        part.astype(np.int32),
        Seen(
            np.empty(0, object),
            seen.code,
            seen.key,
            seen.height,
            seen.is_area,
            seen.xy,
            seen.tree_height,
            seen.crown,
            seen.tree_key,
        ),
    )


def seen_in(bounds: Bounds, blocks: Iterable[Packed]) -> Seen:
    """What blocks hold within bounds, each thing once, whichever blocks it lies in."""
    left, bottom, right, top = bounds
    window = shapely.box(left, bottom, right, top)
    shapely.prepare(window)
    found, fids, parts = [], [], []
    for block in blocks:
        west, south, east, north = block.boxes.T
        near = np.flatnonzero((west <= right) & (east >= left) & (south <= top) & (north >= bottom))
        shapes = block.shapes(near)
        meets = shapely.intersects(window, shapes)
        x, y = block.rest.xy.T
        # Half-open, as voxels are: of windows side by side one has the tree.
        chosen = near[meets], (x >= left) & (x < right) & (y >= bottom) & (y < top)
        rest = block.rest
        found.append(
            Seen(
                shapes[meets],
                rest.code[chosen[0]],
                rest.key[chosen[0]],
                rest.height[chosen[0]],
                rest.is_area[chosen[0]],
                rest.xy[chosen[1]],
                rest.tree_height[chosen[1]],
                rest.crown[chosen[1]],
                rest.tree_key[chosen[1]],
            )
        )
        fids.append(block.fid[chosen[0]])
        parts.append(block.part[chosen[0]])
    if not found:
        return nothing_seen()
    if len(found) == 1:
        return found[0]
    every = Seen(
        *(np.concatenate([getattr(seen, name) for seen in found]) for name in vars(found[0]))
    )
    fid, part = np.concatenate(fids), np.concatenate(parts)
    order = painting_order(every, fid, part)
    return every.take(order[_first(every, fid, part, order)], np.arange(len(every.xy)))


def painting_order(seen: Seen, fid: NDArray, part: NDArray) -> NDArray:
    """(n,) indices: lower priority first, then larger, then by key; then areas before lines, as
    in the file."""
    size = shapely.area(seen.shapes)
    return np.lexsort((part, fid, ~seen.is_area, seen.key, -size, priorities()[seen.code]))


def _first(seen: Seen, fid: NDArray, part: NDArray, order: NDArray) -> NDArray:
    """(n,) bool, of `order`: not the same thing as the one before, which another block held as
    well."""
    again = np.zeros(len(order), bool)
    if len(order):
        again[1:] = True
        for values in (fid, part, seen.is_area, seen.key, seen.code):
            again[1:] &= values[order[1:]] == values[order[:-1]]
    return ~again


def nothing_seen() -> Seen:
    none, no, keys, things = (
        np.empty(0),
        np.empty(0, bool),
        np.empty(0, np.uint64),
        np.empty(0, object),
    )
    return Seen(things, np.empty(0, np.uint8), keys, none, no, np.empty((0, 2)), none, none, keys)


def _ranges(start: NDArray, stop: NDArray) -> tuple[NDArray, NDArray]:
    """All of start[0]..stop[0], start[1]..stop[1], ... and (n + 1,) where each begins among
    them."""
    starts = np.concatenate([[0], np.cumsum(stop - start, dtype=np.int64)])
    return np.arange(starts[-1]) + np.repeat(start - starts[:-1], stop - start), starts


class KeptBlocks:
    """The blocks that were used last, as many as fit in so many bytes. Threads may share it."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = KEPT_BYTES if limit is None else limit
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Hashable, Packed] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Packed]) -> Packed:
        """The block with this key, made if it is not there: by one thread, for all that wait for
        it."""
        with self._lock:
            if key not in self._blocks:
                self._put(key, make())
            self._blocks.move_to_end(key)
            return self._blocks[key]

    def put(self, key: Hashable, block: Packed) -> None:
        with self._lock:
            if key not in self._blocks:
                self._put(key, block)

    def _put(self, key: Hashable, block: Packed) -> None:
        self._blocks[key] = block
        self._bytes += block.nbytes + ENTRY_BYTES
        while self._bytes > self._limit and len(self._blocks) > 1:
            _, old = self._blocks.popitem(last=False)
            self._bytes -= old.nbytes + ENTRY_BYTES
