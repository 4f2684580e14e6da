"""A vector layer among the sources of land cover: read in blocks, seen through windows, and surveyed."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.attributes import WIDEST, attribute_columns
from geo_io.classify import Choice
from geo_io.crs import transform_bounds
from geo_io.frame import Bounds, Frame
from geo_io.legend import UNKNOWN, UNMAPPED, codes
from geo_io.prepare_features import Block, Seen, no_block, prepare
from geo_io.survey import SourceSurvey, ValueArea
from geo_io.vector import VectorSource

BLOCK_VOXELS = 8192
"""Edge of the blocks in which features are read and kept."""

BLOCK_METRES = 16384.0
"""Blocks of large voxels are halved until they are no larger than this: memory goes with the area."""

MARGIN_VOXELS = 512
"""Blocks are read with so many voxels around them, for windows that stick out."""

REACH = WIDEST / 2 + 28.0
"""Metres beyond a window within which a feature can still be seen in it: half the widest line, and spare."""

BLOCKS_KEPT = 2
"""Blocks kept of each source."""

NOMINAL_WIDTH = 3.0
"""Metres of width by which the area of lines that map to nothing is counted."""


class VectorLayer:
    """A vector source with its legend, and the blocks of it that were used last."""

    def __init__(self, source: VectorSource, choice: Choice | None, frame: Frame) -> None:
        self.source = source
        self.choice = choice
        self.frame = frame
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._size = BLOCK_VOXELS
        while self._size * frame.voxel_size > BLOCK_METRES and self._size > MARGIN_VOXELS:
            self._size //= 2
        self._reach = math.ceil(REACH / frame.voxel_size)
        self._extent = source.bounds_in(frame.crs)
        fields = [] if choice is None else [field for field, _ in choice.crosswalk.matching_rules(source.fields)]
        self._fields = tuple(dict.fromkeys(fields))
        self._columns = list(dict.fromkeys([*fields, *attribute_columns(source.fields)]))

    @property
    def name(self) -> str:
        return self.source.name

    def seen(self, window: Frame) -> Seen:
        """What of the layer can be seen in a window: depends on the window and the features alone."""
        block = self._block(window)
        left, bottom, right, top = window.bounds
        shapes = np.sort(block.index.query(shapely.box(left, bottom, right, top), predicate="intersects"))
        x, y = block.all.xy.T
        # Half-open, as voxels are: of windows side by side one has the tree.
        return block.all.take(shapes, (x >= left) & (x < right) & (y >= bottom) & (y < top))

    def _block(self, window: Frame) -> Block:
        """A block that holds all that can be seen in a window: a kept one if one can, else one made for it."""
        need = window.pad(self._reach)
        if self.choice is None or not self._may_meet(need):
            return no_block()
        tx, ty = (sum(axis) // 2 // self._size for axis in (window.x, window.y))
        margin = MARGIN_VOXELS + self._reach
        area = self.frame.tile(tx, ty, self._size).pad(margin).intersection(self.frame.pad(margin))
        if area is None or area.intersection(need) != replace(area, x=need.x, y=need.y):
            return prepare(self.source, self.choice, self._columns, need)
        with self._lock:
            if (tx, ty) not in self._blocks:
                self._blocks[tx, ty] = prepare(self.source, self.choice, self._columns, area)
                while len(self._blocks) > BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end((tx, ty))
            return self._blocks[tx, ty]

    def _may_meet(self, area: Frame) -> bool:
        if self.source.bounds is None:
            return False
        if self._extent is None:  # the frame's CRS does not reach as far as the layer does
            return self.meets(area)
        # A margin, as the bounds went through the transformation at other points than the features.
        extent = np.array(self._extent) + np.array([-1, -1, 1, 1]) * (50 + 0.01 * _longest(self._extent))
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
            _meet(part, self.source.bounds) for part in ((left, bottom, 180.0, top), (-180.0, bottom, right, top))
        )

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        if self.choice is None or not self.meets(frame):
            return [], SourceSurvey(self.name, meets=False)
        totals: dict[tuple[str, int], list[float]] = {}
        counts = dict.fromkeys(("features", "repaired", "underground", "no_width", "points"), 0)
        dropped: set[int] = set()
        seen: set[int] = set()  # features across a border between blocks, so that they count once
        for tx, ty in frame.tiles(self._size):
            part = frame.intersection(frame.tile(tx, ty, self._size))
            assert part is not None  # tiles() only gives tiles that meet the frame
            block = self._block(part)
            dropped.update(block.dropped.tolist())
            area, inside, whole = _areas_within(block, part)
            fresh = inside & (whole | ~np.isin(block.fid, list(seen)))
            seen.update(block.fid[inside & ~whole].tolist())
            for name, mask in _feature_kinds(block).items():
                counts[name] += int((mask & fresh).sum())
            shown = inside & ~block.hidden
            for key, each, new in zip(
                zip(block.classified.value[shown], block.classified.code[shown].tolist(), strict=True),
                area[shown], fresh[shown], strict=True,
            ):  # fmt: skip
                total = totals.setdefault(key, [0.0, 0])
                total[0] += float(each)
                total[1] += bool(new)
        values = [ValueArea(self.name, value, code, a, int(n)) for (value, code), (a, n) in totals.items()]
        empty = self.source.count_empty()
        return values, SourceSurvey(self.name, meets=True, dropped=len(dropped), empty=empty, **counts)

    def summary(self) -> dict[str, Any]:
        return {
            "path": self.source.path or self.name, "layer": self.source.layer, "kind": "vector",
            "crs": self.source.crs, "legend": self.choice.crosswalk.name if self.choice else None,
            "fields": list(self._fields), "features": self.source.feature_count,
        }  # fmt: skip


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


def _areas_within(block: Block, part: Frame) -> tuple[NDArray, NDArray, NDArray]:
    """m2 of each feature within a frame, whether it meets the frame, and whether it lies within it wholly."""
    left, bottom, right, top = part.bounds
    box = shapely.box(left, bottom, right, top)
    shapely.prepare(box)
    bounds = shapely.bounds(block.geometry)
    whole: NDArray = np.all((bounds[:, :2] > (left, bottom)) & (bounds[:, 2:] < (right, top)), axis=1)
    inside = whole | shapely.intersects(box, block.geometry)
    pieces = block.geometry.copy()
    pieces[inside & ~whole] = shapely.intersection(box, pieces[inside & ~whole])
    width = np.where(np.isnan(block.width), NOMINAL_WIDTH, block.width)
    area = np.where(shapely.get_dimensions(block.geometry) == 1, shapely.length(pieces) * width, shapely.area(pieces))
    return np.where(inside, area, 0.0), inside, whole
