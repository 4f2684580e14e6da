"""The content of tiles: makes the files of one piece, and remembers what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earthgen.files import replace_file
from earthgen.mesh.gltf import GlbScene
from earthgen.mesh.pieces import has_trees, make_piece, make_trees, piece_cells
from earthgen.mesh.reader import ColumnReader
from earthgen.mesh.splats import SplatReader
from earthgen.world.selection import credit_of, select
from earthgen.world.world import World, open_world
from earthgen_3dtiles.placing import fitted_transform
from geo_io.frame import Bounds

MOST_BYTES, MOST_TRIANGLES, MOST_SPLATS = 1_000_000, 150_000, 50_000
"""Limits of one file; a piece with more is split into four."""

SMALLEST = 16
"""Cells of the edge of the smallest piece."""

SKIRT = 2.0
"""Cells by which the rim of a tile hangs down, which hides gaps to tiles of other levels."""

FINE_COLOURS = 2
"""The coarsest level whose colours have 16 bits; those of coarser levels have 8."""


@dataclass(frozen=True)
class Work:
    """What all pieces of an export have in common; small, so that workers get it.

    Attributes
    ----------
    world : str
        Path or URL.
    out : Path
        The folder of the tileset.
    scratch : Path
        The folder of columns and records.
    bounds : tuple of float or None
        Of the export, CRS metres.
    content : str
        "mesh", "splats" or "both".
    splats : str
        "plain" or "spz".
    compression : str
        "none" or "meshopt".
    instances : bool
        Whether trees are instances where a level tells them apart.
    height_offset : float
        Added to heights, metres.
    floor : float or None
        Height of the origin of all tiles, for tilesets that are written before their tiles: pieces
        are not split then. None: each tile has its own.
    """

    world: str
    out: Path
    scratch: Path
    bounds: Bounds | None
    content: str
    splats: str
    compression: str
    instances: bool
    height_offset: float
    floor: float | None = None


@dataclass(frozen=True)
class Piece:
    """A square of n cells of a level: cells from (x n, y n) on."""

    level: int
    x: int
    y: int
    n: int

    @property
    def name(self) -> str:
        """Its place on the lattice of pieces as large."""
        return f"{self.x}_{self.y}"

    def uri(self, voxel_size: float) -> str:
        """Return the address of its file; smaller pieces than usual have their edge in the name."""
        usual = self.n == piece_cells(voxel_size, self.level)
        return f"tiles/{self.level}/{self.name}{'' if usual else f'_{self.n}'}.glb"


@dataclass(frozen=True)
class Record:
    """What is in the file of a piece.

    Attributes
    ----------
    level, x, y, n : int
        The piece.
    uri : str
        Relative to the tileset.
    heights : tuple of float
        Lowest and highest, metres.
    anchor : tuple of float
        Origin of its coordinates, CRS metres.
    transform : list of float
        16 numbers, column by column: from the coordinates, z up, to EPSG:4978.
    error : float
        Largest error of the transform, metres.
    bytes, triangles, splats : int
        Sizes.
    """

    level: int
    x: int
    y: int
    n: int
    uri: str
    heights: tuple[float, float]
    anchor: tuple[float, float, float]
    transform: list[float]
    error: float
    bytes: int
    triangles: int
    splats: int


class PieceMaker:
    """Makes pieces, in any process."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.world: World = open_world(work.world)
        self.columns = ColumnReader(self.world, work.scratch)
        self.splats = SplatReader(self.world)
        self.credit = credit_of(self.world)
        self._parts: dict[int, Any] = {}

    def prepare(self, tile: tuple[int, int]) -> None:
        """Write the columns of a tile of the world, for all pieces that need it."""
        if self.work.content != "splats":
            self.columns.prepare(*tile)

    def make(self, piece: Piece) -> list[Record]:
        """Write the file of a piece, or of its quarters if it is large; none if it is empty."""
        records = self._file(piece)
        return records if records is not None else self._remember(piece, self._quarters(piece))

    def done(self, piece: Piece) -> list[Record] | None:
        """Return the records of a piece that an earlier run made; None if there are none."""
        return read_records(self.work.scratch, piece)

    def _quarters(self, piece: Piece) -> list[Record]:
        half = piece.n // 2
        parts = [
            Piece(piece.level, 2 * piece.x + i, 2 * piece.y + j, half)
            for j in range(2)
            for i in range(2)
        ]
        return [record for part in parts for record in self.make(part)]

    def _file(self, piece: Piece) -> list[Record] | None:
        """None if the file would be too large."""
        work, world, level = self.work, self.world, piece.level
        if level not in self._parts:
            self._parts[level] = select(world, work.bounds, level).frame
        part = self._parts[level]
        frame = part.tile(piece.x, piece.y, piece.n)
        mesh = splats = trees = None
        if work.content != "splats":
            at = (self.columns, part, level, piece.x, piece.y, piece.n)
            instanced = work.instances and has_trees(level)
            mesh = make_piece(*at, skirt=SKIRT, trees=not instanced)
            trees = make_trees(*at) if instanced else None
        if work.content != "mesh":
            splats = self.splats.window(part, frame, level)
        triangles = mesh.triangles if mesh is not None else 0
        count = len(splats) if splats is not None else 0
        if not triangles and not count:
            return self._remember(piece, [])
        splits = piece.n > SMALLEST and work.floor is None
        if splits and (triangles > MOST_TRIANGLES or count > MOST_SPLATS):
            return None
        heights: list[float] = []
        if mesh is not None and triangles:
            heights += mesh.heights()
        if trees is not None:
            tops = trees.place[:, 2] + trees.size[:, 2]
            heights += [float(trees.place[:, 2].min()), float(tops.max())]
        if splats is not None and count:
            z = splats.means[:, 2].astype(np.float64) + splats.anchor[2]
            heights += [float(z.min()) - level, float(z.max()) + level]
        low, high = min(heights), max(heights)
        left, bottom, right, top = frame.bounds
        floor = float(np.floor(low)) if work.floor is None else work.floor
        anchor = ((left + right) / 2, (bottom + top) / 2, floor)
        scene = GlbScene(
            anchor,
            copyright_text=self.credit,
            colour_bits=16 if level <= FINE_COLOURS else 8,
            meshopt=work.compression == "meshopt",
        )
        if mesh is not None and triangles:
            scene.add_mesh(f"mesh_{level}_{piece.name}", mesh)
        if trees is not None:
            scene.add_trees(f"trees_{level}_{piece.name}", trees)
        if splats is not None and count:
            scene.add_splats(f"splats_{level}_{piece.name}", splats, spz=work.splats == "spz")
        data = scene.pack()
        if splits and len(data) > MOST_BYTES:
            return None
        uri = piece.uri(world.frame.voxel_size)
        replace_file(work.out, uri, data)
        shift = work.height_offset
        transform, error = fitted_transform(
            world.frame.crs,
            frame.bounds,
            (low + shift, high + shift),
            (anchor[0], anchor[1], anchor[2] + shift),
        )
        record = Record(
            level,
            piece.x,
            piece.y,
            piece.n,
            uri,
            (low, high),
            anchor,
            transform.T.ravel().tolist(),
            error,
            len(data),
            triangles,
            count,
        )
        return self._remember(piece, [record])

    def _remember(self, piece: Piece, records: list[Record]) -> list[Record]:
        text = json.dumps([asdict(record) for record in records])
        replace_file(self.work.scratch, _record_name(piece), text.encode())
        return records


def _record_name(piece: Piece) -> str:
    return f"records/{piece.level}_{piece.x}_{piece.y}_{piece.n}.json"


def read_records(scratch: Path, piece: Piece) -> list[Record] | None:
    """Return the records of a piece, None if it has not been made."""
    try:
        text = (scratch / _record_name(piece)).read_text("utf-8")
    except FileNotFoundError:
        return None
    return [
        Record(**{**one, "heights": tuple(one["heights"]), "anchor": tuple(one["anchor"])})
        for one in json.loads(text)
    ]


_maker: PieceMaker | None = None


def begin(work: Work) -> None:
    """Prepare a worker process."""
    global _maker
    _maker = PieceMaker(work)


def call(method: str, argument: Any) -> Any:
    """Call a method of the worker's `PieceMaker`."""
    assert _maker is not None
    run: Callable[[Any], Any] = getattr(_maker, method)
    return run(argument)
