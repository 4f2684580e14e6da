"""Vector features made ready for reading windows: classified, simple, lines made wide, in the order of painting."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.attributes import (
    CROWN_FIELDS,
    HEIGHT_FIELDS,
    WIDEST,
    expand_tags,
    first_metres,
    heights,
    line_widths,
    underground,
)
from geo_io.classify import Choice, Classified, classify
from geo_io.frame import Frame
from geo_io.legend import UNKNOWN, UNMAPPED, classes, codes, priorities
from geo_io.repair import simple_parts
from geo_io.vector import VectorSource

TALLEST_TREE = 130.0
"""Metres; tree heights above this are errors of the source. The tallest living tree has 116 m."""

WIDEST_CROWN = 60.0
"""Metres; likewise for crowns."""


@dataclass(frozen=True)
class Seen:
    """Prepared features: `shapes` (polygons, lines made wide) in the order of painting, and trees.

    code, key, height, is_area: of each shape; is_area is False for lines. xy (m, 2), tree_height, crown,
    tree_key: of each tree.
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
            self.shapes[shapes], self.code[shapes], self.key[shapes], self.height[shapes], self.is_area[shapes],
            self.xy[trees], self.tree_height[trees], self.crown[trees], self.tree_key[trees],
        )  # fmt: skip


@dataclass(frozen=True)
class Block:
    """All features that can be seen in an area, prepared. `width`, metres, is that of lines."""

    fid: NDArray
    geometry: NDArray
    classified: Classified
    width: NDArray
    hidden: NDArray
    repaired: NDArray
    dropped: NDArray
    all: Seen
    index: shapely.STRtree


def prepare(source: VectorSource, choice: Choice, columns: list[str], area: Frame) -> Block:
    """Read, classify and prepare all features that meet an area."""
    features = source.features(area.crs, area.bounds, columns)
    table = expand_tags(features.table)
    geometry = np.asarray(features.table.geometry.values, object)
    classified = classify(features.table, choice)
    code = classified.code
    land = {land.name: land.code for land in classes()}
    hidden = underground(table, np.isin(code, [land["river"], land["lake"], land["sea"]]))
    width = line_widths(table, code == land["road"])
    for other in (classified.width, _class_widths()[np.where(code == UNMAPPED, UNKNOWN, code)]):
        width = np.where(np.isnan(width), np.minimum(other, WIDEST), width)
    shown = ~hidden & (code != UNMAPPED) & (code != UNKNOWN)
    return Block(
        features.fid, geometry, classified, width, hidden, features.repaired, features.dropped,
        *_shapes_and_trees(table, geometry, code, width, np.flatnonzero(shown)),
    )  # fmt: skip


def _shapes_and_trees(
    table: pd.DataFrame, geometry: NDArray, code: NDArray, width: NDArray, shown: NDArray
) -> tuple[Seen, shapely.STRtree]:
    parts, row = simple_parts(geometry[shown])
    row = shown[row]
    dimension = shapely.get_dimensions(parts)
    wide = (dimension == 1) & ~np.isnan(width[row])
    strips, strip_of = simple_parts(
        shapely.buffer(parts[wide], width[row[wide]] / 2, cap_style="flat", join_style="round", quad_segs=4)
    )
    shapes = np.concatenate([parts[dimension == 2], strips])
    of = np.concatenate([row[dimension == 2], row[wide][strip_of]])
    is_area = np.arange(len(shapes)) < int((dimension == 2).sum())
    size = shapely.area(shapes)
    key = place_keys(shapely.get_x(shapely.centroid(shapes)), shapely.get_y(shapely.centroid(shapes)), np.sqrt(size))
    order = np.lexsort((np.arange(len(shapes)), key, -size, priorities()[code[of]]))

    tree = (dimension == 0) & (code[row] == codes()["tree"])
    xy = shapely.get_coordinates(parts[tree]).reshape(-1, 2)
    of_tree = row[tree]
    seen = Seen(
        shapes=shapes[order],
        code=code[of[order]],
        key=key[order],
        height=heights(table)[of[order]],
        is_area=is_area[order],
        xy=xy,
        tree_height=first_metres(table, HEIGHT_FIELDS, TALLEST_TREE)[of_tree],
        crown=first_metres(table, CROWN_FIELDS, WIDEST_CROWN)[of_tree],
        tree_key=place_keys(xy[:, 0], xy[:, 1], np.zeros(len(xy))),
    )
    return seen, shapely.STRtree(seen.shapes)


@functools.cache
def no_block() -> Block:
    """The block of an area without features."""
    none, no = np.empty(0), np.empty(0, bool)
    keys, ids, things = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, object)
    empty = Classified(np.empty(0, np.uint8), none, things)
    seen = Seen(things, empty.code, keys, none, no, np.empty((0, 2)), none, none, keys)
    return Block(ids, things, empty, none, no, no, ids, seen, shapely.STRtree(things))


@functools.cache
def _class_widths() -> NDArray:
    """(26,) width of lines by class code, NaN where a line makes no sense."""
    return np.array([np.nan] + [np.nan if land.width is None else land.width for land in classes()])


def place_keys(x: NDArray, y: NDArray, size: NDArray) -> NDArray:
    """(n,) uint64 keys of things by where they are: rounded to the metre, so that the same footprint has the
    same key in whatever file and CRS it came (but for the few that lie at the edge of the rounding).

    Parameters
    ----------
    x, y : (n,) float64, CRS metres
    size : (n,) float64, metres
    """
    rows = np.column_stack([np.rint(x), np.rint(y), np.rint(size)]).astype("<i8")
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
