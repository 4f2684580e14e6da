"""tileset.json: the tree of the tiles.

A tile of a level is refined by the tiles of the next finer level in its square. Above the coarsest
level, empty tiles gather four each. Every tile with content has a transform of its own, relative to
that of the tile above it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen._version import __version__
from earthgen_3dtiles.pieces import Record
from earthgen_3dtiles.placing import lon_lat
from geo_io.frame import Bounds

Node = dict[str, Any]

EDGE_POINTS = 9
"""Points along each edge of an empty tile at which its longitudes and latitudes are measured."""


def tileset_document(
    root: Node,
    error: float,
    extras: Mapping[str, Any],
    gltf: Mapping[str, Sequence[str]] | None = None,
) -> Node:
    """Return a tileset with a root tile.

    Parameters
    ----------
    root : dict
    error : float
        Metres of error where nothing of it is drawn.
    extras : mapping
        What else it says.
    gltf : mapping, optional
        "extensionsUsed" and "extensionsRequired" of the contents (3DTILES_content_gltf). Cesium
        finds out from it that contents are Gaussians.
    """
    declared: Node = {}
    if gltf:
        name = "3DTILES_content_gltf"
        declared = {"extensionsUsed": [name], "extensions": {name: dict(gltf)}}
    return {
        "asset": {"version": "1.1", "generator": f"earthgen {__version__}"},
        "geometricError": error,
        "root": root,
        "extras": dict(extras),
        **declared,
    }


class Tree:
    """Builds the tree from the records of all pieces.

    Parameters
    ----------
    crs : str
        Of the records.
    voxel_size : float
        Of level 1, metres.
    height_offset : float
        Metres added to heights.
    levels : sequence of int
        From the coarsest to the finest.
    records : sequence of Record
        Of all files.
    overhang : float
        Metres by which something may stand out of its tile.
    """

    def __init__(
        self,
        crs: str,
        voxel_size: float,
        height_offset: float,
        levels: Sequence[int],
        records: Sequence[Record],
        overhang: float = 0.0,
    ) -> None:
        self.overhang = overhang
        self.crs, self.voxel_size, self.shift = crs, voxel_size, height_offset
        self.levels = list(levels)
        self._by_level: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            self._by_level[record.level].append(record)
        self._above: dict[tuple[int, int, int, int], list[Record]] = defaultdict(list)
        for coarse, fine in zip(self.levels[:-1], self.levels[1:], strict=True):
            squares = self._squares(coarse)
            for record in self._by_level[fine]:
                parent = self._parent(record, coarse, squares)
                self._above[parent].append(record)

    def root(self) -> Node:
        """Return the root tile."""
        nodes = [
            (self._square(record), self._node(record, np.eye(4)))
            for record in self._by_level[self.levels[0]]
        ]
        if len(nodes) == 1:
            return nodes[0][1]
        size = max(right - left for (left, _, right, _), _ in nodes)
        while len(nodes) > 1:
            size *= 2
            groups: dict[tuple[int, int], list[tuple[Bounds, Node]]] = defaultdict(list)
            for square, node in nodes:
                key = (int(square[0] // size), int(square[1] // size))
                groups[key].append((square, node))
            # Two halves of the lattice can lie either side of a corner that no size joins.
            if len(groups) == len(nodes):
                groups = {(0, 0): nodes}
            nodes = [self._gather(members) for _, members in sorted(groups.items())]
        return nodes[0][1]

    def _square(self, record: Record) -> Bounds:
        edge = record.n * record.level * self.voxel_size
        left, bottom = record.x * edge, record.y * edge
        return left, bottom, left + edge, bottom + edge

    def _squares(self, level: int) -> dict[int, set[tuple[int, int]]]:
        out: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for record in self._by_level[level]:
            out[record.n].add((record.x, record.y))
        return out

    def _parent(
        self, record: Record, coarse: int, squares: Mapping[int, set[tuple[int, int]]]
    ) -> tuple[int, int, int, int]:
        left, bottom, _, _ = self._square(record)
        for n, places in squares.items():
            edge = n * coarse * self.voxel_size
            place = (int(np.floor(left / edge + 1e-6)), int(np.floor(bottom / edge + 1e-6)))
            if place in places:
                return (coarse, *place, n)
        # Nothing is drawn there at the coarse level; the nearest tile takes it in.
        nearest = min(
            self._by_level[coarse],
            key=lambda other: (
                (self._square(other)[0] - left) ** 2 + (self._square(other)[1] - bottom) ** 2
            ),
        )
        return (coarse, nearest.x, nearest.y, nearest.n)

    def _node(self, record: Record, above: NDArray) -> Node:
        own = np.array(record.transform).reshape(4, 4).T
        finer = self._above[(record.level, record.x, record.y, record.n)]
        children = [self._node(child, own) for child in finer]
        low, high = self._heights(record)
        edge = record.n * record.level * self.voxel_size
        margin = record.level * self.voxel_size + self.overhang
        half = edge / 2 + margin
        relative = own if above is None else np.linalg.solve(above, own)
        if np.array_equal(above, np.eye(4)):
            relative = own
        node: Node = {
            "boundingVolume": {
                "box": [
                    0.0,
                    0.0,
                    round((low + high) / 2 - record.anchor[2], 3),
                    half,
                    0.0,
                    0.0,
                    0.0,
                    half,
                    0.0,
                    0.0,
                    0.0,
                    round((high - low) / 2 + 0.01, 3),
                ]
            },
            "geometricError": record.level * self.voxel_size if children else 0.0,
            "refine": "REPLACE",
            "content": {"uri": record.uri},
            "transform": relative.T.ravel().tolist(),
        }
        if children:
            node["children"] = children
        return node

    def _heights(self, record: Record) -> tuple[float, float]:
        low, high = record.heights
        for child in self._above[(record.level, record.x, record.y, record.n)]:
            below = self._heights(child)
            low, high = min(low, below[0]), max(high, below[1])
        return low, high

    def _gather(self, members: list[tuple[Bounds, Node]]) -> tuple[Bounds, Node]:
        """An empty tile around others."""
        squares = np.array([square for square, _ in members])
        bounds = (*squares[:, :2].min(axis=0).tolist(), *squares[:, 2:].max(axis=0).tolist())
        records = [
            record
            for record in self._by_level[self.levels[0]]
            if bounds[0] <= self._square(record)[0] < bounds[2]
            and bounds[1] <= self._square(record)[1] < bounds[3]
        ]
        heights = np.array([self._heights(record) for record in records]) + self.shift
        margin = self.levels[0] * self.voxel_size + self.overhang
        region = self._region(
            (bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin),
            float(heights.min()) - 1,
            float(heights.max()) + 1,
        )
        diagonal = float(np.hypot(bounds[2] - bounds[0], bounds[3] - bounds[1]))
        node = {
            "boundingVolume": {"region": region},
            "geometricError": diagonal,
            "refine": "REPLACE",
            "children": [child for _, child in members],
        }
        return bounds, node

    def _region(self, bounds: Bounds, low: float, high: float) -> list[float]:
        """West, south, east, north in radians, and heights."""
        along = np.linspace(0, 1, EDGE_POINTS)
        u, v = (a.ravel() for a in np.meshgrid(along, along))
        lon, lat = lon_lat(
            self.crs,
            bounds[0] + u * (bounds[2] - bounds[0]),
            bounds[1] + v * (bounds[3] - bounds[1]),
        )
        lon, lat = np.radians(lon), np.radians(lat)
        if np.ptp(lon) > np.pi:  # across the antimeridian: west is larger than east
            lon = np.where(lon < 0, lon + 2 * np.pi, lon)
        west, east = lon.min(), lon.max()
        east = east - 2 * np.pi if east > np.pi else east
        return [float(west), float(lat.min()), float(east), float(lat.max()), low, high]
