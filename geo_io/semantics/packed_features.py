"""Compact storage of prepared features: packed blocks, a cache of them, and the part in a window.

A packed footprint takes about 170 bytes, a tenth of a shapely geometry with its attributes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray

from geo_io.frame import Bounds
from geo_io.layers import unknown_form
from geo_io.legend import priorities
from geo_io.semantics.structures.things import Things, no_things

CACHE_BYTES = 24 * 2**20
"""Bytes of blocks that a reader keeps of all its sources together, whatever the region: about
150 000 footprints."""

ENTRY_BYTES = 4096
"""Bytes that a block counts in addition to its arrays."""


@dataclass(frozen=True)
class WindowFeatures:
    """Prepared features: n shapes in painting order, and m trees.

    Attributes
    ----------
    shapes : NDArray (n,) object
        Shapely Polygons: areas, and lines widened to polygons.
    code : NDArray (n,) uint8
        Class code.
    key : NDArray (n,) uint64
        Key from the place of the shape.
    height : NDArray (n,) float64
        Metres above ground, NaN where unknown.
    is_area : NDArray (n,) bool
        False for lines.
    form : NDArray (n,) BUILDING_FORM
        Shape and colours of buildings.
    xy : NDArray (m, 2) float64
        Position of trees, CRS metres.
    tree_height, crown : NDArray (m,) float64
        Height and crown diameter of trees in metres, NaN where unknown.
    tree_key : NDArray (m,) uint64
        Key from the place of the tree.
    ridges : NDArray (k,) object
        Ridges of complex roofs, shapely LineStrings.
    lifted : NDArray (n,) bool
        Shapes that hang above what the other sources say of the ground: bridges and piers.
    tree_leaf : NDArray (m,) uint8
        Leaves of trees, as in `geo_io.layers.Trees`.
    things : Things
        Structures.
    """

    shapes: NDArray
    code: NDArray
    key: NDArray
    height: NDArray
    is_area: NDArray
    form: NDArray
    xy: NDArray
    tree_height: NDArray
    crown: NDArray
    tree_key: NDArray
    ridges: NDArray
    lifted: NDArray = None  # type: ignore[assignment]  # none are, and set below
    tree_leaf: NDArray = None  # type: ignore[assignment]
    things: Things = field(default_factory=no_things)

    def __post_init__(self) -> None:
        if vars(self)["lifted"] is None:
            object.__setattr__(self, "lifted", np.zeros(len(self.code), bool))
        if vars(self)["tree_leaf"] is None:
            object.__setattr__(self, "tree_leaf", np.zeros(len(self.xy), np.uint8))

    def take(self, shapes: NDArray, trees: NDArray) -> WindowFeatures:
        """Return the shapes and trees with these indices or masks, and all ridges and things."""
        return WindowFeatures(
            self.shapes[shapes],
            self.code[shapes],
            self.key[shapes],
            self.height[shapes],
            self.is_area[shapes],
            self.form[shapes],
            self.xy[trees],
            self.tree_height[trees],
            self.crown[trees],
            self.tree_key[trees],
            self.ridges,
            self.lifted[shapes],
            self.tree_leaf[trees],
            self.things,
        )

    def within(self, bounds: Bounds) -> WindowFeatures:
        """Return the shapes that intersect bounds, and the trees in them."""
        window = shapely.box(*bounds)
        shapely.prepare(window)
        return self.take(shapely.intersects(window, self.shapes), trees_within(self.xy, bounds))


def trees_within(xy: NDArray, bounds: Bounds) -> NDArray:
    """Return which trees lie in bounds, (m,) bool.

    Half-open like voxels, so that a tree belongs to one of two neighbouring windows.
    """
    left, bottom, right, top = bounds
    x, y = xy.T
    return np.asarray((x >= left) & (x < right) & (y >= bottom) & (y < top))


@dataclass(frozen=True)
class PackedFeatures:
    """Features of one block in painting order, with all coordinates in one array.

    Attributes
    ----------
    coordinates : NDArray (c, 2) float64
        Coordinates of all rings, CRS metres.
    rings : NDArray (r + 1,) int32
        Start of each ring in `coordinates`.
    polygons : NDArray (n + 1,) int32
        Start of each polygon in `rings`.
    boxes : NDArray (n, 4) float32
        Bounds of each polygon, rounded outwards.
    fid : NDArray (n,) int64
        Feature id of each polygon.
    part : NDArray (n,) int32
        Number of the polygon within its feature.
    rest : WindowFeatures
        All other arrays of the features; its `shapes` are empty.
    """

    coordinates: NDArray
    rings: NDArray
    polygons: NDArray
    boxes: NDArray
    fid: NDArray
    part: NDArray
    rest: WindowFeatures

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        rest = (a.nbytes for name, a in vars(self.rest).items() if name not in ("shapes", "things"))
        own = sum(array.nbytes for name, array in vars(self).items() if name != "rest")
        return own + sum(rest) + self.rest.things.nbytes

    def shapes(self, chosen: NDArray) -> NDArray:
        """Unpack the polygons with these indices."""
        if len(chosen) == 0:
            return np.empty(0, object)
        rings, polygon_starts = _ranges(self.polygons[chosen], self.polygons[chosen + 1])
        places, ring_starts = _ranges(self.rings[rings], self.rings[rings + 1])
        polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.coordinates[places], (ring_starts, polygon_starts)
        )
        return np.asarray(polygons, object)


def pack(features: WindowFeatures, fid: NDArray, part: NDArray) -> PackedFeatures:
    """Pack features.

    Parameters
    ----------
    features : WindowFeatures
        n shapes, none of them empty, and m trees.
    fid : NDArray (n,) int64
        Feature id of each shape.
    part : NDArray (n,) int
        Number of the shape within its feature.
    """
    if len(features.shapes):
        _, coordinates, (rings, polygons) = shapely.to_ragged_array(
            features.shapes, include_z=False
        )
    else:
        coordinates = np.empty((0, 2))
        rings = polygons = np.zeros(1, np.int64)
    bounds = shapely.bounds(features.shapes).reshape(-1, 4)
    infinite = np.array([-np.inf, -np.inf, np.inf, np.inf], np.float32)
    return PackedFeatures(
        coordinates,
        rings.astype(np.int32),
        polygons.astype(np.int32),
        np.nextafter(bounds.astype(np.float32), infinite),
        fid,
        part.astype(np.int32),
        replace(features, shapes=np.empty(0, object)),
    )


def features_within(bounds: Bounds, blocks: Iterable[PackedFeatures]) -> WindowFeatures:
    """Return the features of blocks within bounds; one that lies in several blocks occurs once."""
    left, bottom, right, top = bounds
    window = shapely.box(left, bottom, right, top)
    shapely.prepare(window)
    visible: list[WindowFeatures] = []
    fids, parts = [], []
    for block in blocks:
        west, south, east, north = block.boxes.T
        near = np.flatnonzero((west <= right) & (east >= left) & (south <= top) & (north >= bottom))
        shapes = np.empty(len(block.fid), object)
        shapes[near] = block.shapes(near)
        chosen = near[shapely.intersects(window, shapes[near])]
        trees = trees_within(block.rest.xy, bounds)
        ridges = block.rest.ridges[shapely.intersects(window, block.rest.ridges)]
        things = block.rest.things.within(bounds)
        visible.append(
            replace(block.rest, shapes=shapes, ridges=ridges, things=things).take(chosen, trees)
        )
        fids.append(block.fid[chosen])
        parts.append(block.part[chosen])
    if not visible:
        return no_features()
    if len(visible) == 1:
        return visible[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(features, name) for features in visible])
        for name in vars(visible[0])
        if name != "things"
    }
    every = WindowFeatures(**arrays, things=Things.joined([each.things for each in visible]))
    fid, part = np.concatenate(fids), np.concatenate(parts)
    order = painting_order(every, fid, part)
    return every.take(order[_first(every, fid, part, order)], np.arange(len(every.xy)))


def painting_order(features: WindowFeatures, fid: NDArray, part: NDArray) -> NDArray:
    """Return the indices of shapes in painting order, (n,) int.

    Shapes of lower priority come first, then larger ones, then by key; then areas before lines, in
    the order of the file (`fid` and `part`, as in `PackedFeatures`).
    """
    size = shapely.area(features.shapes)
    return np.lexsort(
        (part, fid, ~features.is_area, features.key, -size, priorities()[features.code])
    )


def _first(features: WindowFeatures, fid: NDArray, part: NDArray, order: NDArray) -> NDArray:
    """Return which shapes in `order` differ from the one before, (n,) bool.

    Equal ones come from different blocks.
    """
    again = np.zeros(len(order), bool)
    if len(order):
        again[1:] = True
        for values in (fid, part, features.is_area, features.key, features.code):
            again[1:] &= values[order[1:]] == values[order[:-1]]
    return ~again


def no_features() -> WindowFeatures:
    """Return an empty set of features."""
    numbers, keys = np.empty(0), np.empty(0, np.uint64)
    return WindowFeatures(
        shapes=np.empty(0, object),
        code=np.empty(0, np.uint8),
        key=keys,
        height=numbers,
        is_area=np.empty(0, bool),
        form=unknown_form(0),
        xy=np.empty((0, 2)),
        tree_height=numbers,
        crown=numbers,
        tree_key=keys,
        ridges=np.empty(0, object),
    )


def _ranges(start: NDArray, stop: NDArray) -> tuple[NDArray, NDArray]:
    """Concatenate the ranges start[0]..stop[0], start[1]..stop[1], ...

    Returns their numbers, and the place (n + 1,) where each range starts among them.
    """
    starts = np.concatenate([[0], np.cumsum(stop - start, dtype=np.int64)])
    return np.arange(starts[-1]) + np.repeat(start - starts[:-1], stop - start), starts


class BlockCache:
    """Cache of the blocks that were used last, bounded by bytes. Threads may share it.

    Parameters
    ----------
    limit : int, optional
        Most bytes, by default `CACHE_BYTES`. A single block may exceed it.
    """

    def __init__(self, limit: int | None = None) -> None:
        limit = CACHE_BYTES if limit is None else limit

        def size(block: PackedFeatures) -> int:
            # A block that exceeds the limit takes all of it, and is kept alone.
            return min(block.nbytes + ENTRY_BYTES, limit)

        self._lock = threading.Lock()
        self._blocks: LRUCache[Hashable, PackedFeatures] = LRUCache(limit, getsizeof=size)

    def get(self, key: Hashable, make: Callable[[], PackedFeatures]) -> PackedFeatures:
        """Return the block with this key; if it is missing, one thread makes it for all."""
        with self._lock:
            block = self._blocks.get(key)
            if block is None:
                block = self._blocks[key] = make()
            return block

    def put(self, key: Hashable, block: PackedFeatures) -> None:
        """Add a block, unless there is one with this key."""
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
