"""The sea beside natural=coastline: OpenStreetMap maps it as lines alone, land on their left.

Which side of the coast a place lies on is told by the coastline nearest to it, so islands, several
coasts, and lines that are cut at the edge of the data or have gaps need no polygons. A place
farther than `FARTHEST` from any coastline is neither land nor sea.

Some coastlines run the wrong way. A line is turned round where the heights or the land that is
mapped beside it contradict it, and that is counted for a warning.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo_io.frame import Bounds, Frame
from geo_io.vector.load import call_ogr
from geo_io.vector.parquet import is_parquet
from geo_io.vector.repair import clean, simple_parts
from geo_io.vector.source import VectorSource
from geo_io.water.levels import SEA_LEVEL, at_sea

FARTHEST = 20_000.0
"""Metres from the coast within which its lines tell land from sea."""

BLOCK_CELLS = 32
"""Cells along the edge of a block that is land or sea as a whole unless the coast is near. Blocks
lie on a lattice from the CRS origin."""

SIDE_SAMPLES = 12
"""Places along a line at which what lies on its two sides is looked up."""

SIDE_METRES = (12.0, 30.0)
"""Distances of these places from the line."""

HIGHER = 0.7
"""Metres by which the side of the sea must be higher than that of the land for a line to be turned
round."""

MAPPED = 0.5
"""Share of the places on the side of the sea that must be mapped as land, and none of the others,
for a line to be turned round."""

TAGS = "other_tags"
KEYS = ("natural", "fclass", "class", "subclass", "type", "kind", "featurecla", TAGS)
"""Columns that say coastline: OpenStreetMap's tag, and those in which others merge tags."""

SPELLINGS = "'coastline', 'Coastline', 'COASTLINE'"

UNSAID, LAND, SEA = 0, 1, 2
"""What a coast says of a cell."""

Evidence = Callable[[NDArray], NDArray]
"""Tells something of places (n, 2), CRS metres: (n,) float64, NaN where it is not known."""


@dataclass
class Coast:
    """The coastlines around a region.

    Attributes
    ----------
    lines : NDArray (n,) object
        LineStrings, CRS metres.
    heights, mapped : callable or None
        Height of the ground, metres; and whether land is mapped, 0 or 1.
    """

    lines: NDArray
    heights: Evidence | None = None
    mapped: Evidence | None = None
    _turned: dict[int, bool] = field(default_factory=dict, repr=False)
    _level: dict[int, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        xy, line = shapely.get_coordinates(self.lines, return_index=True)
        joined = line[1:] == line[:-1]
        long = (xy[1:] != xy[:-1]).any(axis=1)
        first = np.flatnonzero(joined & long)
        self._ends = np.concatenate([xy[first], xy[first + 1]], axis=1)
        self._line = line[first]
        pairs = self._ends.reshape(-1, 2, 2)
        segments: Any = shapely.linestrings(pairs) if len(first) else []
        self._tree = shapely.STRtree(np.asarray(segments, object))

    def turned(self, line: int) -> bool:
        """Return whether a line runs the wrong way, water on its left."""
        with self._lock:
            if line not in self._turned:
                self._turned[line] = self._runs_wrong(self.lines[line])
            return self._turned[line]

    def level(self, line: int) -> float:
        """Return the level of the sea at a line, metres."""
        with self._lock:
            known = self._level.get(line)
        if known is None:
            known = SEA_LEVEL
            if self.heights is not None:
                shape = self.lines[line]
                at = (np.arange(SIDE_SAMPLES) + 0.5) / SIDE_SAMPLES * shape.length
                places = shapely.get_coordinates(shapely.line_interpolate_point(shape, at))
                values = self.heights(places)
                values = values[np.isfinite(values)]
                known = at_sea(float(np.percentile(values, 25)) if len(values) else math.nan)
            with self._lock:
                self._level[line] = known
        return known

    def levels(self, frame: Frame) -> NDArray:
        """Return the level of the sea at the nearest line, (ny, nx) float32 metres.

        Blocks of `BLOCK_CELLS` cells have one level, `SEA_LEVEL` where no line is near.
        """
        out = np.full(frame.shape, np.float32(SEA_LEVEL))
        if not len(self._ends):
            return out
        edge = BLOCK_CELLS * frame.voxel_size
        for ty in range(frame.y[0] // BLOCK_CELLS, -(-frame.y[1] // BLOCK_CELLS)):
            tx = np.arange(frame.x[0] // BLOCK_CELLS, -(-frame.x[1] // BLOCK_CELLS))
            points = shapely.points((tx + 0.5) * edge, np.full(len(tx), (ty + 0.5) * edge))
            at, near = self._tree.query_nearest(points, max_distance=FARTHEST, all_matches=True)
            for block in np.unique(at).tolist():
                line = int(self._line[near[at == block]].min())
                rows, columns = _block(out, int(tx[block]), ty, frame.x[0], frame.y[1])
                out[rows, columns] = self.level(line)
        return out

    def count_turned(self, bounds: Bounds) -> int:
        """Return how many lines that meet bounds run the wrong way."""
        near = np.flatnonzero(shapely.intersects(shapely.box(*bounds), self.lines))
        return sum(self.turned(int(line)) for line in near)

    def _runs_wrong(self, line: shapely.LineString) -> bool:
        at = (np.arange(SIDE_SAMPLES) + 0.5) / SIDE_SAMPLES * line.length
        step = min(1.0, 0.25 * line.length / SIDE_SAMPLES)
        before, after = (
            shapely.get_coordinates(shapely.line_interpolate_point(line, at + d))
            for d in (-step, step)
        )
        along = after - before
        length = np.hypot(*along.T)
        along, middle = along[length > 0], (0.5 * (before + after))[length > 0]
        if not len(along):
            return False
        right = np.stack([along[:, 1], -along[:, 0]], axis=1) / length[length > 0][:, None]
        sides = [
            np.concatenate([middle + sign * metres * right for metres in SIDE_METRES])
            for sign in (-1.0, 1.0)
        ]
        if self.heights is not None:
            low, high = (self.heights(side) for side in sides)
            known = np.isfinite(low) & np.isfinite(high)
            if known.sum() >= 0.5 * len(known):
                rise = high[known] - low[known]
                if np.median(rise) > HIGHER and (rise > 0).mean() > 0.8:
                    return True
                if np.median(rise) < -HIGHER:
                    return False
        if self.mapped is not None:
            left, beyond = (np.nan_to_num(self.mapped(side)) for side in sides)
            return bool(beyond.mean() >= MAPPED and not left.any())
        return False

    def sides(self, frame: Frame, factor: int) -> NDArray:
        """Return what the coast says of the cells of a grid.

        Parameters
        ----------
        frame : Frame
            Where.
        factor : int
            The grid is this many times as fine as the frame.

        Returns
        -------
        NDArray (ny * factor, nx * factor) uint8
            `UNSAID`, `LAND` or `SEA`: a function of the place and the lines.
        """
        cell = frame.voxel_size / factor
        x, y = (np.array(r, np.int64) * factor for r in (frame.x, frame.y))
        out = np.zeros((int(y[1] - y[0]), int(x[1] - x[0])), np.uint8)
        if not len(self._ends):
            return out
        edge = BLOCK_CELLS * cell
        blocks = np.meshgrid(
            np.arange(x[0] // BLOCK_CELLS, -(-x[1] // BLOCK_CELLS)),
            np.arange(y[0] // BLOCK_CELLS, -(-y[1] // BLOCK_CELLS)),
        )
        column, row = (index.ravel() for index in blocks)
        centre = np.stack([(column + 0.5) * edge, (row + 0.5) * edge], axis=1)
        points = np.asarray(shapely.points(centre), object)
        (at, nearest), distance = self._tree.query_nearest(
            points, max_distance=FARTHEST, return_distance=True, all_matches=True
        )
        half = edge * np.sqrt(0.5)
        far = distance > half
        self._paint_far(out, centre, at[far], nearest[far], column, row, x[0], y[1])
        for block in np.unique(at[~far]).tolist():
            near = np.sort(self._tree.query(points[block], "dwithin", float(3.01 * half)))
            self._paint_near(out, near, column[block], row[block], cell, x[0], y[1])
        return out

    def _oriented(self, segments: NDArray) -> NDArray:
        """Return segments (n, 4) with the land on their left."""
        ends = self._ends[segments]
        turned = np.array([self.turned(int(line)) for line in self._line[segments]], bool)
        ends[turned] = ends[turned][:, [2, 3, 0, 1]]
        return ends

    def _paint_far(
        self,
        out: NDArray,
        centre: NDArray,
        at: NDArray,
        nearest: NDArray,
        column: NDArray,
        row: NDArray,
        left: int,
        top: int,
    ) -> None:
        """Fill the blocks that no coast crosses with the side of their centre."""
        if not len(at):
            return
        order = np.lexsort((nearest, at))
        at, ends = at[order], self._oriented(nearest[order])
        first = np.flatnonzero(np.append(True, at[1:] != at[:-1]))
        for start, stop in zip(first, np.append(first[1:], len(at)), strict=True):
            block = at[start]
            x, y = centre[block]
            side = _side(x, y, ends[start:stop])
            rows, columns = _block(out, column[block], row[block], left, top)
            out[rows, columns] = side

    def _paint_near(
        self,
        out: NDArray,
        near: NDArray,
        column: int,
        row: int,
        cell: float,
        left: int,
        top: int,
    ) -> None:
        rows, columns = _block(out, column, row, left, top)
        part = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        _sides(part, self._oriented(near), left + columns.start, top - rows.start, cell)
        out[rows, columns] = part


def _block(out: NDArray, column: int, row: int, left: int, top: int) -> tuple[slice, slice]:
    """Return the rows and columns of a grid that a block covers."""
    south, west = row * BLOCK_CELLS, column * BLOCK_CELLS
    return (
        slice(max(int(top - south - BLOCK_CELLS), 0), min(int(top - south), out.shape[0])),
        slice(max(int(west - left), 0), min(int(west + BLOCK_CELLS - left), out.shape[1])),
    )


@numba.njit(cache=True, nogil=True)
def _side(x, y, ends):  # type: ignore[no-untyped-def]
    """Return the side of a place by the nearest of segments (n, 4), whose land is on the left.

    Nearest to a corner, the sum of the directions of the segments there decides, which is right for
    convex and concave corners; beyond the end of a line it goes on straight.
    """
    best = np.inf
    to_land = 0.0
    for n in range(ends.shape[0]):
        ax, ay, bx, by = ends[n, 0], ends[n, 1], ends[n, 2], ends[n, 3]
        dx, dy = bx - ax, by - ay
        length = np.sqrt(dx * dx + dy * dy)
        t = min(max(((x - ax) * dx + (y - ay) * dy) / (length * length), 0.0), 1.0)
        px, py = x - (ax + t * dx), y - (ay + t * dy)
        far = px * px + py * py
        left = (dx * py - dy * px) / length
        # Two segments that meet are equally near but for rounding.
        if far < best - 1e-6 * (1e-3 + best) or best == np.inf:
            best, to_land = far, left
        elif far <= best + 1e-6 * (1e-3 + best):
            to_land += left
            best = min(best, far)
    return np.uint8(1) if to_land >= 0.0 else np.uint8(2)


@numba.njit(cache=True, nogil=True)
def _sides(out, ends, left, top, cell):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = _side((left + j + 0.5) * cell, (top - 1 - i + 0.5) * cell, ends)


def read_coastlines(sources: Sequence[VectorSource], crs: str, bounds: Bounds) -> NDArray:
    """Return the lines of natural=coastline that come near bounds, whole: (n,) object, in `crs`."""
    lines = []
    for source in sources:
        if "Point" in source.geometry_type:
            continue
        fields = {str(name).casefold(): str(name) for name in source.fields}
        columns = [fields[name] for name in KEYS if name in fields]
        if source.bounds is None or not columns:
            continue
        for geometry in _coastlines(source, columns, crs, bounds):
            parts = simple_parts(geometry)[0]
            dimension = shapely.get_dimensions(parts)
            lines += [parts[dimension == 1], _shores(parts[dimension == 2])]
    if not lines:
        return np.empty(0, object)
    every = np.concatenate(lines)
    # The same line from two sources counts once, and in an order of its own.
    keys = shapely.to_wkb(every)
    return np.asarray(every[np.unique(keys.astype("O"), return_index=True)[1]], object)


def _shores(areas: NDArray) -> NDArray:
    """Return the rings of areas, (n,) Polygons, as LineStrings with the areas on their left.

    Programs that make areas of closed ways make one of an island's coast, and keep no direction.
    """
    rings, of = shapely.get_rings(areas, return_index=True)
    outer = np.append(True, of[1:] != of[:-1])[: len(of)]
    wrong = shapely.is_ccw(rings) != outer
    rings[wrong] = shapely.reverse(rings[wrong])
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    return np.asarray(shapely.linestrings(xy, indices=ring), object)


def says_coastline(table: pd.DataFrame) -> NDArray:
    """Return which rows of attributes have natural=coastline, (n,) bool."""
    says = np.zeros(len(table), bool)
    for name in table.columns:
        if str(name).casefold() == TAGS:
            texts = table[name].astype(str)
            says |= texts.str.contains('"natural"=>"coastline"', regex=False).to_numpy(bool)
        elif str(name).casefold() in KEYS:
            texts = table[name].astype(str).str.strip().str.casefold()
            says |= (texts == "coastline").to_numpy(bool)
    return says


def _coastlines(source: VectorSource, keys: list[str], crs: str, bounds: Bounds) -> list[NDArray]:
    if source.path is None or is_parquet(source.path):
        table = source.features(crs, bounds, keys).table
        return [np.asarray(table.geometry.values, object)[says_coastline(table)]]
    where = [
        f'"{key}" LIKE \'%"natural"=>"coastline"%\''
        if key.casefold() == TAGS
        else f'CAST("{key}" AS CHARACTER(32)) IN ({SPELLINGS})'
        for key in keys
    ]
    found = []
    for box in source._search_boxes(crs, bounds):
        table = call_ogr(
            pyogrio.read_dataframe,
            source.path,
            layer=source.layer,
            columns=keys,
            bbox=box,
            where=" OR ".join(where),
        )
        geometry, _ = clean(np.asarray(table.geometry.values, object), source.crs, crs)
        found.append(geometry[[shape is not None for shape in geometry]])
    return found
