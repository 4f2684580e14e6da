"""3D Tiles that are made when they are asked for: a large world can be looked at without waiting.

The tree is known without the tiles: the tiles of a level cover the whole region, and their heights
are within those of the world's coarsest layers. tileset.json has the tiles of level 8; each leads
to a tileset of its own (sub/X_Y.json) with the finer tiles in its square, which is written when a
viewer asks for it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import StoreError
from earthgen.files import replace_file
from earthgen.mesh.gltf import GlbScene
from earthgen.mesh.pieces import levels_down_to, piece_cells
from earthgen.world.selection import credit_of, select, source_record
from earthgen.world.world import World
from earthgen_3dtiles import pieces
from earthgen_3dtiles.pieces import Piece, PieceMaker, Record, Work
from earthgen_3dtiles.placing import fitted_transform
from earthgen_3dtiles.tree import Node, Tree, tileset_document
from geo_io.frame import Bounds, Frame, extent

TILE = re.compile(r"tiles/(\d+)/(-?\d+)_(-?\d+)(?:_\d+)?\.glb")
SUB = re.compile(r"sub/(-?\d+)_(-?\d+)\.json")

FINE = 2
"""The coarsest level whose pieces are half as wide as those of an export: nothing is split here,
and these have the most triangles."""

MARGIN = 2.0
"""Coarsest cells by which things may stand above and below the heights of their means."""


class TilesOnDemand:
    """The tiles of a world, in a folder that a web server serves: `make` makes what is missing.

    Parameters
    ----------
    world : World
    folder : Path
        Gets tileset.json at once, and what is made. What an earlier one has made is kept.
    bounds : tuple of float or None
        CRS metres; None for the whole world.
    level : int
        The finest level.
    workers : int
        Processes that make tiles; 1 makes them here, one after the other.
    content : str
        "mesh", or "splats": Gaussians packed as SPZ.

    Raises
    ------
    StoreError, RegionError
        If the world has no finished tile, or nothing within `bounds`.
    """

    def __init__(
        self,
        world: World,
        folder: Path,
        bounds: Bounds | None,
        level: int,
        workers: int = 1,
        content: Literal["mesh", "splats"] = "mesh",
    ) -> None:
        self.world, self.folder, self.bounds = world, folder, bounds
        self.levels = levels_down_to(level)
        scratch = folder / ".work"
        scratch.mkdir(parents=True, exist_ok=True)
        self._frames = {one: select(world, bounds, one).frame for one in self.levels}
        self._heights = _Heights(world, bounds)
        self._floor = self._heights.lowest
        self._extras = {"attribution": credit_of(world), **source_record(world)}
        self._work = Work(
            str(world.path),
            folder,
            scratch,
            bounds,
            content=content,
            splats="spz",
            compression="none",
            instances=False,
            height_offset=0.0,
            floor=self._floor,
        )
        self._lock = threading.Lock()
        self._writing: dict[str, threading.Lock] = {}
        self._maker: PieceMaker | None = None
        self._pool = (
            ProcessPoolExecutor(workers, _spawn(), pieces.begin, (self._work,))
            if workers > 1
            else None
        )
        if not (folder / "tileset.json").is_file():
            replace_file(folder, "tileset.json", _json(self._root()))

    def make(self, uri: str) -> bool:
        """Make the file of an address, unless it is there.

        Parameters
        ----------
        uri : str
            Relative to the folder, such as "tiles/1/3_4.glb".

        Returns
        -------
        bool
            Whether there is such a file now.
        """
        if (self.folder / uri).is_file():
            return True
        if (found := TILE.fullmatch(uri)) is not None:
            level, x, y = map(int, found.groups())
            if level not in self.levels or not self._has(level, x, y):
                return False
            piece = Piece(level, x, y, self._edge(level))
            if piece.uri(self.world.frame.voxel_size) != uri:
                return False
            self._once(uri, lambda: self._tile(uri, piece))
        elif (found := SUB.fullmatch(uri)) is not None:
            x, y = map(int, found.groups())
            if not self._has(self.levels[0], x, y):
                return False
            self._once(uri, lambda: replace_file(self.folder, uri, _json(self._finer(x, y))))
        return (self.folder / uri).is_file()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _once(self, uri: str, write: Any) -> None:
        """Write a file, unless another thread does: then wait for it."""
        with self._lock:
            lock = self._writing.setdefault(uri, threading.Lock())
        with lock:
            if not (self.folder / uri).is_file():
                write()
        with self._lock:
            self._writing.pop(uri, None)

    def _tile(self, uri: str, piece: Piece) -> None:
        if self._pool is not None:
            made = self._pool.submit(pieces.call, "make", piece).result()
        else:
            with self._lock:
                self._maker = self._maker or PieceMaker(self._work)
                made = self._maker.make(piece)
        if not made:  # nothing is drawn there: an empty scene is what viewers understand
            replace_file(self.folder, uri, GlbScene((0.0, 0.0, 0.0)).pack())

    def _edge(self, level: int) -> int:
        cells = piece_cells(self.world.frame.voxel_size, level)
        return cells // 2 if level <= FINE < self.levels[0] else cells

    def _has(self, level: int, x: int, y: int) -> bool:
        """Whether a piece has ground."""
        frame = self._frames[level]
        part = frame.intersection(frame.tile(x, y, self._edge(level)))
        return part is not None and self._heights.within(part.bounds) is not None

    def _records(self, level: int, within: Bounds | None = None) -> list[Record]:
        """The pieces of a level that have ground, within a square."""
        frame, n = self._frames[level], self._edge(level)
        size = self.world.frame.voxel_size * level
        records = []
        for x, y in frame.tiles(n):
            left, bottom = x * n * size, y * n * size
            if within is not None and not (
                within[0] <= left < within[2] and within[1] <= bottom < within[3]
            ):
                continue
            part = frame.intersection(frame.tile(x, y, n))
            heights = self._heights.within(part.bounds) if part is not None else None
            if heights is not None:
                records.append(self._record(level, x, y, n, heights))
        return records

    def _record(self, level: int, x: int, y: int, n: int, heights: tuple[float, float]) -> Record:
        frame = self._frames[level].tile(x, y, n)
        left, bottom, right, top = frame.bounds
        low, high = heights
        anchor = ((left + right) / 2, (bottom + top) / 2, self._floor)
        transform, error = fitted_transform(self.world.frame.crs, frame.bounds, heights, anchor)
        uri = Piece(level, x, y, n).uri(self.world.frame.voxel_size)
        numbers = transform.T.ravel().tolist()
        return Record(level, x, y, n, uri, (low, high), anchor, numbers, error, 0, 0, 0)

    def _tree(self, levels: tuple[int, ...], records: list[Record]) -> Tree:
        frame = self.world.frame
        return Tree(frame.crs, frame.voxel_size, 0.0, list(levels), records)

    def _root(self) -> Node:
        coarsest = self.levels[0]
        records = self._records(coarsest)
        if not records:
            raise StoreError(
                f"world {self.world.path} has nothing within "
                f"{extent(self._frames[coarsest].bounds)}",
                "give bounds where it has data",
            )
        tree = self._tree(self.levels[:1], records)
        root = tree.root()
        if len(self.levels) > 1:
            of = {record.uri: record for record in records}
            _lead_on(root, of, self.world.frame.voxel_size, self.levels)
        error = max(root["geometricError"], self.world.frame.voxel_size * 16)
        return tileset_document(root, 2 * error, self._extras)

    def _finer(self, x: int, y: int) -> Node:
        """The tileset of the finer tiles in a coarsest tile's square, at `sub/`."""
        coarsest = self.levels[0]
        square = self._frames[coarsest].tile(x, y, self._edge(coarsest)).bounds
        levels = self.levels[1:]
        records = [record for level in levels for record in self._records(level, square)]
        root = self._tree(levels, records).root()
        for node in _nodes(root):
            if "content" in node:
                node["content"]["uri"] = "../" + node["content"]["uri"]
        return tileset_document(root, self.world.frame.voxel_size * coarsest, {})


class _Heights:
    """Lowest and highest heights of squares, from the coarsest layers."""

    def __init__(self, world: World, bounds: Bounds | None) -> None:
        level = max(world.levels)
        selection = select(world, bounds, level)
        self._frame: Frame = selection.frame
        self._size = self._frame.voxel_size
        self._low = np.full(self._frame.shape, np.nan, np.float32)
        self._high = self._low.copy()
        for tx, ty in selection.tiles:
            part = selection.tile(world, tx, ty)
            if part is None:
                continue
            layers = world.tile_layers(tx, ty, level)
            of = world.tile_frame(tx, ty, level).slices(part)
            to = self._frame.slices(part)
            self._low[to] = layers["ground"][of]
            self._high[to] = layers["surface"][of]
        self._high = np.fmax(self._low, self._high)
        known = self._low[np.isfinite(self._low)]
        self.lowest = float(np.floor(known.min())) if known.size else 0.0

    def within(self, bounds: Bounds) -> tuple[float, float] | None:
        """Return the heights within bounds, with a margin; None without ground."""
        left, bottom, right, top = bounds
        here = self._frame.bounds
        rows = slice(
            max(int(np.floor((here[3] - top) / self._size)), 0),
            max(int(np.ceil((here[3] - bottom) / self._size)), 0),
        )
        columns = slice(
            max(int(np.floor((left - here[0]) / self._size)), 0),
            max(int(np.ceil((right - here[0]) / self._size)), 0),
        )
        low, high = self._low[rows, columns], self._high[rows, columns]
        if not np.isfinite(low).any():
            return None
        margin = MARGIN * self._size
        return float(np.nanmin(low)) - margin, float(np.nanmax(high)) + margin


def _lead_on(
    root: Node, records: Mapping[str, Record], voxel_size: float, levels: tuple[int, ...]
) -> None:
    """Let each tile with content be refined by the tileset of its square."""
    for node in list(_nodes(root)):
        if "content" not in node:
            continue
        record = records[node["content"]["uri"]]
        place = np.array(record.transform).reshape(4, 4).T
        node["geometricError"] = levels[0] * voxel_size
        node["children"] = [
            {
                # The other tileset counts from the middle of the earth.
                "transform": np.linalg.inv(place).T.ravel().tolist(),
                "boundingVolume": {"box": _moved(node["boundingVolume"]["box"], place)},
                "geometricError": levels[1] * voxel_size,
                "refine": "REPLACE",
                "content": {"uri": f"sub/{record.x}_{record.y}.json"},
            }
        ]


def _moved(box: list[float], place: NDArray) -> list[float]:
    """A box in the coordinates above a transform."""
    middle = place @ [*box[:3], 1]
    axes = [place[:3, :3] @ box[at : at + 3] for at in (3, 6, 9)]
    return [float(value) for part in (middle[:3], *axes) for value in part]


def _nodes(node: Node) -> list[Node]:
    return [node, *(one for child in node.get("children", []) for one in _nodes(child))]


def _spawn() -> Any:
    import multiprocessing

    return multiprocessing.get_context("spawn")


def _json(value: Node) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
