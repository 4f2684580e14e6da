"""A vector layer as a source of land cover: read in blocks, shown on windows, and surveyed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray

from geo_io.crs import transform_bounds
from geo_io.frame import Bounds, Frame
from geo_io.legend import UNKNOWN, UNMAPPED, codes
from geo_io.region.region import swap_hint
from geo_io.semantics.attributes import WIDEST, attribute_columns
from geo_io.semantics.building_tags import TagTally
from geo_io.semantics.classify import LegendChoice, classify
from geo_io.semantics.height_survey import HeightTally
from geo_io.semantics.heights import HeightReading
from geo_io.semantics.packed_features import (
    BlockCache,
    PackedFeatures,
    WindowFeatures,
    features_within,
    no_features,
)
from geo_io.semantics.prepare_features import Block, prepare
from geo_io.semantics.structures.reach import AROUND, RAMP
from geo_io.semantics.structures.tags import structure_columns, tree_columns
from geo_io.semantics.structures.tally import StructureTally
from geo_io.semantics.structures.things import Things, no_things
from geo_io.semantics.survey import SourceSurvey, ValueArea
from geo_io.vector.repair import simple_parts
from geo_io.vector.source import VectorSource

BLOCK_VOXELS = 512
"""Least edge of the blocks in which features are read and cached. Blocks lie on a lattice from the
CRS origin."""

BLOCK_METRES = 2048.0
"""Blocks of small voxels are doubled up to this edge, since memory depends on the area."""

SCANNED_METRES, SCANNED_FEATURES = 8192.0, 48_000
"""Blocks of a file without a spatial index, which is read whole for each block, are doubled up to
this edge, unless they would have more features than this at the mean density of the file."""

MARGIN_VOXELS = 640
"""Blocks are read up to this many voxels around the job's frame, for windows that extend beyond."""

REACH = WIDEST / 2 + 28.0
"""Metres beyond a window within which a feature can be visible in it: half the widest line, and a
margin."""

STRUCTURES = AROUND + RAMP
"""Metres beyond a window within which a bridge can raise the ways in it."""

OUTSIDE = 64
"""Areas outside the job whose structures are kept."""

RIVER_BLOCKS = 64
"""Blocks whose lines of rivers are kept."""

NOMINAL_WIDTH = 3.0
"""Width in metres with which the area of lines without a width is counted."""


class VectorLayer:
    """A vector source with its legend.

    Parameters
    ----------
    source : VectorSource
        The features.
    choice : LegendChoice or None
        Their legend; None for an empty source.
    heights : HeightReading
        The columns of heights.
    frame : Frame
        The job's frame, which bounds what is cached.
    cache : BlockCache
        Cache of blocks, shared with other layers.
    """

    def __init__(
        self,
        source: VectorSource,
        choice: LegendChoice | None,
        heights: HeightReading,
        frame: Frame,
        cache: BlockCache,
    ) -> None:
        self.source = source
        self.choice = choice
        self.heights = heights
        self.ground: Callable[[NDArray], NDArray] | None = None
        """Heights of the ground at places (n, 2), where a DEM gives them; set before reading."""
        self.frame = frame
        self._cache = cache
        self._extent = source.bounds_in(frame.crs)
        self._river_lock = threading.Lock()
        self._rivers: LRUCache[tuple[int, int], NDArray] = LRUCache(RIVER_BLOCKS)
        self._size = _block_size(source, self._extent, frame.voxel_size)
        self._reach = math.ceil(REACH / frame.voxel_size)
        self._read = frame.pad(
            MARGIN_VOXELS + max(self._reach, math.ceil(STRUCTURES / frame.voxel_size) + 1)
        )
        self._outside: LRUCache[tuple[Any, ...], Things] = LRUCache(OUTSIDE)
        fields = (
            []
            if choice is None
            else [field for field, _ in choice.crosswalk.matching_rules(source.fields)]
        )
        self._fields = tuple(dict.fromkeys(fields))
        of_heights = [name for name in heights.columns if name in source.fields]
        self._columns = list(
            dict.fromkeys(
                [
                    *fields,
                    *attribute_columns(source.fields),
                    *of_heights,
                    *structure_columns(source.fields),
                    *tree_columns(source.fields),
                ]
            )
        )

    @property
    def name(self) -> str:
        """Name of the layer in messages."""
        return self.source.name

    def features(self, window: Frame, around: float = 0.0) -> WindowFeatures:
        """Return the features within so many metres of a window, at most REACH.

        They depend on the window and the layer alone. Lines that are drawn wide are complete in
        the window only.
        """
        need = window.pad(self._reach)
        left, bottom, right, top = window.bounds
        bounds = left - around, bottom - around, right + around, top + around
        if self.choice is None or not self._may_overlap(need):
            return no_features()
        if not _holds(self._read, need):  # Too far outside the job to be cached.
            return features_within(bounds, [self._prepare(need).packed])
        # Block by block, so that no more than one block beyond the cache is in memory.
        return features_within(bounds, (self._packed(tx, ty) for tx, ty in need.tiles(self._size)))

    def things(self, bounds: Bounds) -> Things:
        """Return the structures whose bounds meet others, in any order."""
        left, bottom, right, top = bounds
        size = self.frame.voxel_size
        need = replace(
            self.frame,
            x=(math.floor(left / size), math.floor(right / size) + 1),
            y=(math.floor(bottom / size), math.floor(top / size) + 1),
        )
        if self.choice is None or not self._may_overlap(need):
            return no_things()
        if not _holds(self._read, need):  # Too far outside the job for the cache of blocks.
            with self._river_lock:
                known = self._outside.get((need.x, need.y))
                if known is None:
                    known = self._prepare(need).packed.rest.things
                    self._outside[need.x, need.y] = known
            return known.within(bounds)
        blocks = (self._packed(tx, ty) for tx, ty in need.tiles(self._size))
        return Things.joined([block.rest.things.within(bounds) for block in blocks])

    def maps_buildings(self, count: int) -> bool:
        """Return whether any of the first `count` features is a building."""
        if self.choice is None:
            return False
        code = classify(self.source.head(count), self.choice).code
        return bool((code == codes()["building"]).any())

    def river_lines(self, window: Frame, around: float) -> NDArray:
        """Return the lines of rivers within so many metres of a window, whole: (n,) object."""
        area = window.pad(math.ceil(around / window.voxel_size))
        if self.choice is None or "polygon" in self.source.geometry_type.casefold():
            return np.empty(0, object)
        if not self._may_overlap(area):
            return np.empty(0, object)
        found = [self._rivers_in(*tile) for tile in area.tiles(self._size)]
        return np.concatenate(found) if found else np.empty(0, object)

    def _rivers_in(self, tx: int, ty: int) -> NDArray:
        with self._river_lock:
            known = self._rivers.get((tx, ty))
            if known is None:
                block = self._prepare_lines(self.frame.tile(tx, ty, self._size))
                known = self._rivers[tx, ty] = block
        return known

    def _prepare_lines(self, area: Frame) -> NDArray:
        assert self.choice is not None
        features = self.source.features(area.crs, area.bounds, self._columns)
        geometry = np.asarray(features.table.geometry.values, object)
        line = shapely.get_dimensions(geometry) == 1
        code = classify(features.table[line].reset_index(drop=True), self.choice).code
        return simple_parts(geometry[line][code == codes()["river"]])[0]

    def _packed(self, tx: int, ty: int) -> PackedFeatures:
        return self._cache.get((id(self), tx, ty), lambda: self._prepare(self._area(tx, ty)).packed)

    def _area(self, tx: int, ty: int) -> Frame:
        """Return the part of a block that a job can need."""
        area = self._read.intersection(self.frame.tile(tx, ty, self._size))
        assert area is not None  # Only blocks of the job are read.
        return area

    def _prepare(self, area: Frame) -> Block:
        assert self.choice is not None  # A layer without a legend is empty and never read.
        return prepare(self.source, self.choice, self.heights, self._columns, self.ground, area)

    def _may_overlap(self, area: Frame) -> bool:
        if self.source.bounds is None:
            return False
        if self._extent is None:  # The frame's CRS is not defined for all of the layer.
            return self.overlaps(area)
        # With a margin, since bounds and features are transformed at different points.
        extent = np.array(self._extent) + np.array([-1, -1, 1, 1]) * (
            50 + 0.01 * _longest(self._extent)
        )
        return _overlap(tuple(extent), area.bounds)

    def overlaps(self, frame: Frame) -> bool:
        """Return whether the extents of layer and frame overlap, in the layer's CRS."""
        bounds = transform_bounds(frame.bounds, frame.crs, self.source.crs)
        if bounds is None or self.source.bounds is None:
            return False
        left, bottom, right, top = bounds
        if left <= right:
            return _overlap(bounds, self.source.bounds)
        return any(
            _overlap(part, self.source.bounds)
            for part in ((left, bottom, 180.0, top), (-180.0, bottom, right, top))
        )

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        """Measure areas by value, and count features, in a frame.

        Blocks are read from the south-west, and a feature counts once, in its first block.
        """
        if self.choice is None or not self.overlaps(frame):
            hint = ""
            if self.source.bounds is not None:
                hint = swap_hint(frame.bounds, frame.crs, self.source.bounds, self.source.crs)
            return [], SourceSurvey(self.name, meets=False, hint=hint)
        totals: dict[tuple[str, int], list[float]] = {}
        counts = dict.fromkeys(("features", "repaired", "underground", "no_width", "points"), 0)
        tally, tags = HeightTally(self.heights), TagTally()
        structures = StructureTally(self.name, frame.voxel_size)
        outlines = OutlineTally()
        dropped: set[int] = set()
        # Features that extend into later blocks, and how far north: they must not count again.
        again, reach = np.empty(0, np.int64), np.empty(0)
        inside_job = _holds(self._read, frame)
        for tx, ty in frame.tiles(self._size):
            tile = frame.tile(tx, ty, self._size)
            area = self._area(tx, ty) if inside_job else tile.intersection(frame)
            assert area is not None  # tiles() yields tiles that overlap the frame.
            if not self._may_overlap(area):
                continue
            block = self._prepare(area)
            if inside_job:
                self._cache.put((id(self), tx, ty), block.packed)
            dropped.update(block.dropped[self._dropped_within(block, frame)].tolist())
            fresh = shapely.intersects(_box(frame), block.geometry) & ~np.isin(block.fid, again)
            for name, mask in _counted(block).items():
                counts[name] += int((mask & fresh).sum())
            shown = np.flatnonzero(fresh & ~block.hidden)
            tags.add(block.unread, shown)
            structures.add(block.structures, shown)
            outlines.add(block, shown)
            tally.add(
                block.classified.code[shown],
                block.classified.value[shown],
                block.geometry[shown],
                block.heights.take(shown),
            )
            for key, each in zip(
                zip(
                    block.classified.value[shown],
                    block.classified.code[shown].tolist(),
                    strict=True,
                ),
                _areas_within(block, shown, frame).tolist(),
                strict=True,
            ):
                total = totals.setdefault(key, [0.0, 0])
                total[0] += each
                total[1] += 1
            again, reach = _reaching_on(again, reach, block, fresh, tile)
        values = [
            ValueArea(self.name, value, code, a, int(n)) for (value, code), (a, n) in totals.items()
        ]
        empty = self.source.count_empty()
        return values, SourceSurvey(
            self.name,
            meets=True,
            dropped=len(dropped),
            empty=empty,
            buildings=tally.buildings,
            unknown_heights=tally.unknown,
            unread_heights=tally.unread,
            hint="",
            warnings=(
                *self.source.notes,
                *tally.warnings(),
                *tags.warnings(),
                *structures.warnings(),
                *outlines.warnings(),
            ),
            **counts,
        )

    def _dropped_within(self, block: Block, frame: Frame) -> NDArray:
        """Return which dropped features of a block lie in a frame, by their bounds."""
        bounds = transform_bounds(frame.bounds, frame.crs, self.source.crs)
        if bounds is None or bounds[0] > bounds[2]:  # Across the antimeridian: count all.
            return np.ones(len(block.dropped), bool)
        left, bottom, right, top = block.dropped_bounds.T
        apart = (left > bounds[2]) | (right < bounds[0]) | (bottom > bounds[3]) | (top < bounds[1])
        return np.asarray(~apart)

    def summary(self) -> dict[str, Any]:
        """Describe the layer and its legend."""
        return {
            "path": self.source.origin or self.source.path or self.name,
            "layer": self.source.layer,
            "kind": "vector",
            "crs": self.source.crs,
            "legend": self.choice.crosswalk.name if self.choice else None,
            "fields": list(self._fields),
            "footprints": bool(self.choice and self.choice.footprints),
            "heights": self.heights.summary(),
            "features": self.source.feature_count,
        }


@dataclass
class OutlineTally:
    """Counts of lines of a class of areas: those drawn as strips, and those left out."""

    strips: int = 0
    left_out: int = 0
    _strip: str = ""
    _left_out: str = ""

    def add(self, block: Block, shown: NDArray) -> None:
        """Count those of a block in the rows `shown`, indices."""
        rows = shown[block.outlines[shown]]
        wide = ~np.isnan(block.width[rows])
        self.strips += int(wide.sum())
        self.left_out += int((~wide).sum())
        value = block.classified.value
        if wide.any() and not self._strip:
            row = rows[wide][0]
            self._strip = f"{value[row]}, {block.width[row]:g} m wide"
        if not wide.all() and not self._left_out:
            self._left_out = str(value[rows[~wide][0]])

    def warnings(self) -> tuple[str, ...]:
        """Return what a user should know, one sentence each."""
        texts = []
        for count, shown, what in (
            (self.strips, self._strip, ("drawn as a strip", "drawn as strips")),
            (self.left_out, self._left_out, ("left out", "left out")),
        ):
            if count:
                one = count == 1
                texts.append(
                    f"{count:,} {'line' if one else 'lines'} of a class of areas "
                    f"{'is' if one else 'are'} {what[0 if one else 1]}, such as {shown}: what is "
                    "an area must be closed"
                )
        return tuple(texts)


def _holds(outer: Frame, inner: Frame) -> bool:
    common = outer.intersection(inner)
    return common is not None and (common.x, common.y) == (inner.x, inner.y)


def _longest(bounds: Bounds) -> float:
    return max(bounds[2] - bounds[0], bounds[3] - bounds[1])


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _counted(block: Block) -> dict[str, NDArray]:
    """Return masks of the features that each number of a survey counts."""
    code, dimension = block.classified.code, shapely.get_dimensions(block.geometry)
    shown = ~block.hidden & (code != UNMAPPED) & (code != UNKNOWN)
    return {
        "features": np.ones(len(code), bool),
        "repaired": block.repaired,
        "underground": block.hidden,
        "no_width": shown & (dimension == 1) & np.isnan(block.width),
        "points": shown
        & (dimension == 0)
        & (code != codes()["tree"])
        & (block.structures.name == ""),
    }


def _areas_within(block: Block, chosen: NDArray, frame: Frame) -> NDArray:
    """Return the square metres within a frame of the features with these indices, (n,)."""
    left, bottom, right, top = frame.bounds
    pieces = block.geometry[chosen]
    bounds = shapely.bounds(pieces)
    across = ~np.all((bounds[:, :2] > (left, bottom)) & (bounds[:, 2:] < (right, top)), axis=1)
    dimension = shapely.get_dimensions(pieces)
    pieces[across] = shapely.intersection(_box(frame), pieces[across])
    width = np.where(np.isnan(block.width[chosen]), NOMINAL_WIDTH, block.width[chosen])
    return np.where(dimension == 1, shapely.length(pieces) * width, shapely.area(pieces))


def _reaching_on(
    again: NDArray, reach: NDArray, block: Block, fresh: NDArray, tile: Frame
) -> tuple[NDArray, NDArray]:
    """Return ids and northern bounds of counted features that later blocks contain too."""
    left, bottom, right, top = tile.bounds
    bounds = shapely.bounds(block.geometry)
    across = fresh & ~np.all(
        (bounds[:, :2] > (left, bottom)) & (bounds[:, 2:] < (right, top)), axis=1
    )
    still = reach >= bottom
    return np.concatenate([again[still], block.fid[across]]), np.concatenate(
        [reach[still], bounds[across, 3]]
    )


def _box(frame: Frame) -> shapely.Polygon:
    box = shapely.box(*frame.bounds)
    shapely.prepare(box)
    return box


def _block_size(source: VectorSource, extent: Bounds | None, voxel_size: float) -> int:
    """Choose the voxels along the edge of a block; they do not depend on the region."""
    size = BLOCK_VOXELS
    while 2 * size * voxel_size <= BLOCK_METRES:
        size *= 2
    if source.indexed or extent is None:
        return size
    area = max((extent[2] - extent[0]) * (extent[3] - extent[1]), 1.0)
    density = source.feature_count / area
    while (
        2 * size * voxel_size <= SCANNED_METRES
        and min(density * (2 * size * voxel_size) ** 2, source.feature_count) <= SCANNED_FEATURES
    ):
        size *= 2
    return size
