"""A vector layer among the sources of land cover: read in blocks, seen through windows, and
surveyed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.crs import transform_bounds
from geo_io.frame import Bounds, Frame
from geo_io.legend import UNKNOWN, UNMAPPED, codes
from geo_io.semantics.attributes import WIDEST, attribute_columns
from geo_io.semantics.classify import Choice
from geo_io.semantics.packed_features import KeptBlocks, Packed, Seen, nothing_seen, seen_in
from geo_io.semantics.prepare_features import Block, prepare
from geo_io.semantics.survey import SourceSurvey, ValueArea
from geo_io.vector.source import VectorSource

BLOCK_VOXELS = 512
"""Edge of the blocks in which features are read and kept, at least. Blocks lie on a lattice from
the CRS origin."""

BLOCK_METRES = 2048.0
"""Blocks of small voxels are doubled up to this: memory goes with the area."""

SCANNED_METRES, SCANNED_FEATURES = 8192.0, 48_000
"""... and up to this in a file that is gone through for each block, unless they would hold more features than that (as
many as the file has in the mean)."""

MARGIN_VOXELS = 640
"""Blocks are read up to so many voxels around the job's frame, for windows that stick out."""

REACH = WIDEST / 2 + 28.0
"""Metres beyond a window within which a feature can still be seen in it: half the widest line,
and spare."""

NOMINAL_WIDTH = 3.0
"""Metres of width by which the area of lines that map to nothing is counted."""


class VectorLayer:
    """A vector source with its legend. The blocks of it that were used last are in `kept`."""

    def __init__(
        self, source: VectorSource, choice: Choice | None, frame: Frame, kept: KeptBlocks
    ) -> None:
        self.source = source
        self.choice = choice
        self.frame = frame
        self._kept = kept
        self._extent = source.bounds_in(frame.crs)
        self._size = _block_size(source, self._extent, frame.voxel_size)
        self._reach = math.ceil(REACH / frame.voxel_size)
        self._read = frame.pad(MARGIN_VOXELS + self._reach)
        fields = (
            []
            if choice is None
            else [field for field, _ in choice.crosswalk.matching_rules(source.fields)]
        )
        self._fields = tuple(dict.fromkeys(fields))
        self._columns = list(dict.fromkeys([*fields, *attribute_columns(source.fields)]))

    @property
    def name(self) -> str:
        return self.source.name

    def seen(self, window: Frame) -> Seen:
        """What of the layer can be seen in a window: depends on the window and the features
        alone."""
        need = window.pad(self._reach)
        if self.choice is None or not self._may_meet(need):
            return nothing_seen()
        if not _holds(self._read, need):  # too far outside the job to be worth keeping
            return seen_in(window.bounds, [self._prepare(need).packed])
        # One after the other: of blocks that are not kept only what the window shows stays.
        return seen_in(window.bounds, (self._packed(tx, ty) for tx, ty in need.tiles(self._size)))

    def _packed(self, tx: int, ty: int) -> Packed:
        return self._kept.get((id(self), tx, ty), lambda: self._prepare(self._area(tx, ty)).packed)

    def _area(self, tx: int, ty: int) -> Frame:
        """What is read for a block: no more of it than a job can need."""
        area = self._read.intersection(self.frame.tile(tx, ty, self._size))
        assert area is not None  # only blocks of the job are asked for
        return area

    def _prepare(self, area: Frame) -> Block:
        assert self.choice is not None  # a layer without a choice is empty, and never looked at
        return prepare(self.source, self.choice, self._columns, area)

    def _may_meet(self, area: Frame) -> bool:
        if self.source.bounds is None:
            return False
        if self._extent is None:  # the frame's CRS does not reach as far as the layer does
            return self.meets(area)
        # A margin, as the bounds went through the transformation at other points than the features.
        extent = np.array(self._extent) + np.array([-1, -1, 1, 1]) * (
            50 + 0.01 * _longest(self._extent)
        )
        return _meet(tuple(extent), area.bounds)

    def meets(self, frame: Frame) -> bool:
        """Whether the extents of layer and frame meet, in the layer's CRS."""
        bounds = transform_bounds(frame.bounds, frame.crs, self.source.crs)
        if bounds is None or self.source.bounds is None:
            return False
        left, bottom, right, top = bounds
        if left <= right:
            return _meet(bounds, self.source.bounds)
        return any(
            _meet(part, self.source.bounds)
            for part in ((left, bottom, 180.0, top), (-180.0, bottom, right, top))
        )

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        """Count what meets a frame, block by block from the south-west; a feature counts in its
        first block, whole."""
        if self.choice is None or not self.meets(frame):
            return [], SourceSurvey(self.name, meets=False)
        totals: dict[tuple[str, int], list[float]] = {}
        counts = dict.fromkeys(("features", "repaired", "underground", "no_width", "points"), 0)
        dropped: set[int] = set()
        # Features that reach into blocks still to come, so that they count once, and how far north
        # they reach.
        again, reach = np.empty(0, np.int64), np.empty(0)
        inside_job = _holds(self._read, frame)
        for tx, ty in frame.tiles(self._size):
            tile = frame.tile(tx, ty, self._size)
            area = self._area(tx, ty) if inside_job else tile.intersection(frame)
            assert area is not None  # tiles() only gives tiles that meet the frame
            if not self._may_meet(area):
                continue
            block = self._prepare(area)
            if inside_job:
                self._kept.put((id(self), tx, ty), block.packed)
            dropped.update(block.dropped[self._dropped_within(block, frame)].tolist())
            fresh = shapely.intersects(_box(frame), block.geometry) & ~np.isin(block.fid, again)
            for name, mask in _feature_kinds(block).items():
                counts[name] += int((mask & fresh).sum())
            shown = np.flatnonzero(fresh & ~block.hidden)
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
            self.name, meets=True, dropped=len(dropped), empty=empty, **counts
        )

    def _dropped_within(self, block: Block, frame: Frame) -> NDArray:
        """Which of a block's unusable features lie in a frame, by their bounds in the source's
        CRS."""
        bounds = transform_bounds(frame.bounds, frame.crs, self.source.crs)
        if bounds is None or bounds[0] > bounds[2]:  # across the antimeridian: as found
            return np.ones(len(block.dropped), bool)
        left, bottom, right, top = block.dropped_bounds.T
        apart = (left > bounds[2]) | (right < bounds[0]) | (bottom > bounds[3]) | (top < bounds[1])
        return np.asarray(~apart)

    def summary(self) -> dict[str, Any]:
        return {
            "path": self.source.path or self.name,
            "layer": self.source.layer,
            "kind": "vector",
            "crs": self.source.crs,
            "legend": self.choice.crosswalk.name if self.choice else None,
            "fields": list(self._fields),
            "features": self.source.feature_count,
        }


def _holds(outer: Frame, inner: Frame) -> bool:
    common = outer.intersection(inner)
    return common is not None and (common.x, common.y) == (inner.x, inner.y)


def _longest(bounds: Bounds) -> float:
    return max(bounds[2] - bounds[0], bounds[3] - bounds[1])


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _feature_kinds(block: Block) -> dict[str, NDArray]:
    """Which features each number of a survey counts."""
    code, dimension = block.classified.code, shapely.get_dimensions(block.geometry)
    shown = ~block.hidden & (code != UNMAPPED) & (code != UNKNOWN)
    return {
        "features": np.ones(len(code), bool),
        "repaired": block.repaired,
        "underground": block.hidden,
        "no_width": shown & (dimension == 1) & np.isnan(block.width),
        "points": shown & (dimension == 0) & (code != codes()["tree"]),
    }


def _areas_within(block: Block, chosen: NDArray, frame: Frame) -> NDArray:
    """(n,) m2 within a frame of the features of a block with these indices."""
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
    """Ids of counted features that later blocks hold too, and the north of their bounds: no more
    than a row's."""
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
    """Voxels along the edge of a block: a property of the source and the lattice, never of the
    region."""
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
