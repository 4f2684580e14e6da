"""A world in storage: one Zarr v3 group, whose layout docs/reference/store.md describes.

Dense layers lie in `level_1`, `level_2`, `level_4` and `level_8`, the levels of a GeoZarr pyramid
(`earthgen.world.conventions`); in format 2, those of level 1 lie in the root group. Voxels and
Gaussians lie in `voxels/level_N` and `splats/level_N` as ragged arrays: the rows of a tile fill the
first of its chunks, and the other chunks do not exist.

Many workers write tiles, each tile by one of them, and one coordinator enters finished tiles in
`index`: number of rows, digest and size. A tile counts only if the index has it. The index is
written after the data, and both have reached the disk when the calls return.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec
from zarr.storage import FsspecStore

from earthgen._version import __version__
from earthgen.errors import StoreError, StoreExistsError
from earthgen.files import (
    PARTIAL,
    Folder,
    LocalFolder,
    disk_error,
    failures,
    folder,
    link_file,
    missing_world,
)
from earthgen.voxels.tile import LEVELS, Tile
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world import conventions, decisions, objects
from earthgen.world.bounded_codecs import bounded_codecs, has_bounded_codecs
from earthgen.world.digest import Digest, identity_key, tile_digest
from earthgen.world.layout import (
    AXES,
    DENSE,
    FORMAT_VERSION,
    INDEX_CHUNK,
    INDEX_FIELDS,
    OLDEST_VERSION,
    RAGGED,
    ROW_CHUNK,
    ROW_SHARD,
    ROWS,
    SPLATS,
    STAGES,
    VOXELS,
    array_layout,
)
from earthgen.world.local_store import DurableStore, GuardedStore
from geo_io.crs import require_plain_crs
from geo_io.errors import FrameError, InputError
from geo_io.frame import Frame
from geo_io.legend import palette
from geo_io.safety.limits import FARTHEST

_DAMAGE = (  # raised by decoders
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    gzip.BadGzipFile,
    zlib.error,
)


MOST_TILE = 2**14
"""Largest edge of a tile, voxels."""

LEAST_VOXEL = 1e-3
"""Smallest voxel, metres; the largest has as many kilometres."""

MOST_NAMES = 4
"""Missing files that an error names."""

SH_SHAPES = [((degree + 1) ** 2, 3) for degree in range(4)]
"""Shapes of the colour of a Gaussian, by the degree of its spherical harmonics."""


@dataclass(frozen=True)
class Entry:
    """The record of a tile in the index.

    Attributes
    ----------
    rows : tuple of int
        Number of voxels at level 1, 2, 4 and 8.
    digest : Digest
        Of the content; see `earthgen.world.digest`.
    bytes : int
        Size of all objects of the tile.
    """

    rows: tuple[int, ...]
    digest: Digest
    bytes: int


@dataclass(frozen=True)
class Store:
    """An open world in storage; `World` is its face for users.

    Attributes
    ----------
    path : Path or str
        A folder, or a URL.
    root : zarr.Group
    frame : Frame
        Of the world.
    tile_size : int
        Edge of a tile, voxels.
    folder : Folder
        File operations on `path`.
    version : int
        Of the format.
    """

    path: Path | str
    root: Any
    frame: Frame
    tile_size: int
    folder: Folder
    version: int = FORMAT_VERSION
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _whole: set[tuple[int, int, int]] = field(default_factory=set, repr=False, compare=False)
    """Tiles that have all of their bytes, with their number."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the content depends on, apart from the extent."""
        return dict(self.root.attrs["earthgen"].get("identity", {}))

    @property
    def key(self) -> str:
        """The identity as 16 hex digits."""
        return identity_key(self.identity)

    @property
    def tiles_frame(self) -> Frame:
        """The frame of all tiles that the world meets. The arrays cover it."""
        t = self.tile_size
        return Frame(
            self.frame.crs,
            self.frame.voxel_size,
            (self.frame.x[0] // t * t, -(-self.frame.x[1] // t) * t),
            (self.frame.y[0] // t * t, -(-self.frame.y[1] // t) * t),
            self.frame.z,
            self.frame.vertical_crs,
        )

    def dense_group(self, level: int) -> str | None:
        """Return the name of the group with the dense layers of a level; None for the root."""
        return None if level == 1 and self.version == 2 else f"level_{level}"

    def dense_path(self, name: str, level: int) -> str:
        """Return the path of a dense layer in the root group."""
        group = self.dense_group(level)
        return name if group is None else f"{group}/{name}"

    def require_level(self, level: int) -> list[str]:
        """Check the dense layers of a level and its coordinates, before others read them.

        Returns
        -------
        list of str
            Members of the group that are no layers.

        Raises
        ------
        StoreError
            If one of them is missing, or is not what the frame says.
        """
        shape, group = self.tiles_frame.coarsen(level).shape, self.dense_group(level)
        for name in DENSE:
            self._array(self.dense_path(name, level))
        for axis, length in (("y", shape[0]), ("x", shape[1])):
            found = self.member(self.dense_path(axis, level))
            if getattr(found, "shape", None) != (length,) or found.chunks != (length,):
                name = self.dense_path(axis, level)
                raise StoreError(
                    f"{self.path} is damaged: {name} is no coordinate of it", "generate it again"
                )
        known = {*DENSE, "x", "y", "spatial_ref"}
        known |= {decisions.NAME} if decisions.has_decisions(self) else set()
        where = self.folder.children(group or "")
        return [name for name in where if name not in known]

    def describe(self, values: Mapping[str, Any]) -> None:
        """Replace what the root group says about the world, and return when it is on the disk.

        Zarr would drop the consolidated metadata, or write what it consolidated when it opened.

        Parameters
        ----------
        values : mapping
            All of the attribute "earthgen", as JSON values.

        Raises
        ------
        StoreError
            If it cannot be written.
        """

        def write() -> None:
            document = json.loads(self.folder.read("zarr.json") or b"{}")
            document["attributes"] = {**document["attributes"], "earthgen": dict(values)}
            text = json.dumps(document, indent=2)
            self.folder.write("zarr.json", text.encode(), durable=True)

        self._require()
        self._safely(write)

    def tile_frame(self, tx: int, ty: int, level: int = 1) -> Frame:
        """Return the part of a tile that lies in the world, at a level.

        Raises
        ------
        StoreError
            If the tile does not lie in the world.
        """
        part = self.frame.tile(tx, ty, self.tile_size).intersection(self.frame)
        if part is None:
            raise StoreError(
                f"tile ({tx}, {ty}) does not lie in {self.path}",
                "`earthgen info` prints the extent",
            )
        return part.coarsen(level) if level > 1 else part

    def _place(self, tx: int, ty: int) -> tuple[int, int]:
        """Row and column of a tile in the arrays."""
        self.tile_frame(tx, ty)  # raises if the tile lies elsewhere
        whole = self.tiles_frame
        return whole.y[1] // self.tile_size - 1 - ty, tx - whole.x[0] // self.tile_size

    def index(self) -> NDArray:
        """Return the index.

        Returns
        -------
        NDArray (tiles north to south, tiles west to east, fields) int64
            The fields are a marker, the number of voxels at level 1, 2, 4 and 8, the digest (four
            uint64 read as int64) and the bytes of the tile; all 0 for an unfinished tile.

        Raises
        ------
        StoreError
            If the index is damaged; `repair_index` mends it.
        """
        index = self._get("index", ...)
        index[index[..., 0] != self._marker] = 0
        return index

    def finished_tiles(self, part: Frame | None = None) -> list[tuple[int, int]]:
        """Return (tx, ty) of the finished tiles that `part` meets, row by row from the south-west.

        Parameters
        ----------
        part : Frame, optional
            At level 1, inside `tiles_frame`, which is the default.
        """
        part = part or self.tiles_frame
        rows, columns = np.nonzero(self.finished_mask(part))
        tx, ty = columns + part.x[0] // self.tile_size, rows + part.y[0] // self.tile_size
        return list(zip(tx.tolist(), ty.tolist(), strict=True))

    def finished_mask(self, part: Frame | None = None) -> NDArray:
        """Return which of the tiles that `part` meets are finished.

        Parameters
        ----------
        part : Frame, optional
            At level 1, inside `tiles_frame`, which is the default.

        Returns
        -------
        NDArray (tiles south to north, tiles west to east) bool
        """
        whole, t = self.tiles_frame, self.tile_size
        part = part or whole
        (west, east), (south, north) = ((low // t, -(-high // t)) for low, high in (part.x, part.y))
        top = whole.y[1] // t
        place = (
            slice(top - north, top - south),
            slice(west - whole.x[0] // t, east - whole.x[0] // t),
        )
        return np.asarray(self._get("index", (*place, 0))[::-1] == self._marker)

    def entry(self, tx: int, ty: int) -> Entry | None:
        """Return the record of a tile; None if it is not finished."""
        fields = self._get("index", self._place(tx, ty))
        if fields[0] != self._marker:
            return None
        a, b, c, d = (int(value) for value in fields[1 + len(LEVELS) : -1].view(np.uint64))
        rows = tuple(int(n) for n in fields[1 : 1 + len(LEVELS)])
        if not all(0 <= n <= ROWS for n in rows):
            raise StoreError(
                f"the index of {self.path} is damaged: tile ({tx}, {ty}) has {max(rows):,} voxels, "
                "which it has no place or no file for",
                "`earthgen verify` finds and mends damaged tiles",
            )
        return Entry(rows, (a, b, c, d), int(fields[-1]))

    def digest(self) -> Digest:
        """Return the digest of all finished tiles, from the index."""
        lanes = (
            self.index()[..., 1 + len(LEVELS) : -1]
            .view(np.uint64)
            .sum(axis=(0, 1), dtype=np.uint64)
        )
        a, b, c, d = (int(value) for value in lanes)
        return a, b, c, d

    def commit(self, entries: Mapping[tuple[int, int], Entry]) -> None:
        """Make tiles visible, and return when the index has reached the disk.

        Only one process may do this; see `earthgen.world.lock`.

        Parameters
        ----------
        entries : mapping of (tx, ty) to Entry
            What `write` returned.

        Raises
        ------
        StoreError
            If the world was removed, or its index is damaged or cannot be written.
        """
        rows = {}
        for tile, entry in entries.items():
            digest = np.array(entry.digest, np.uint64).view(np.int64)
            rows[tile] = np.array([self._marker, *entry.rows, *digest, entry.bytes], np.int64)
        self._set_index(rows)

    def forget(self, tiles: Iterable[tuple[int, int]]) -> None:
        """Remove tiles from the index, before they are written again."""
        self._set_index({tile: np.zeros(INDEX_FIELDS, np.int64) for tile in tiles})

    def repair_index(self) -> int:
        """Remove the damaged parts of the index; return their number.

        The tiles in them count as unfinished from then on.
        """
        array, damaged = self._array("index"), []
        for row in range(0, array.shape[0], INDEX_CHUNK):
            for column in range(0, array.shape[1], INDEX_CHUNK):
                try:
                    array[row, column]
                except _DAMAGE:
                    damaged.append(f"index/c.{row // INDEX_CHUNK}.{column // INDEX_CHUNK}.0")
        self._safely(lambda: self.folder.remove(damaged))
        return len(damaged)

    @property
    def _marker(self) -> int:
        """The marker of a finished tile. It holds the identity, so that no entry of another world
        counts."""
        return int(self.key, 16) >> 1 or 1

    def _set_index(self, entries: Mapping[tuple[int, int], NDArray]) -> None:
        chunks: dict[tuple[int, int], list[tuple[int, int, NDArray]]] = defaultdict(list)
        for tile, fields in entries.items():
            row, column = self._place(*tile)
            chunks[row // INDEX_CHUNK, column // INDEX_CHUNK].append((row, column, fields))
        self._require()
        array = self._array("index")
        if isinstance(self.folder, LocalFolder):
            # Data that zarr writes itself may reach the disk only after the rename of the file.
            store = DurableStore(self.folder.path)
            array = zarr.open_array(store, path="index", mode="r+", zarr_format=3)
        for (i, j), changes in sorted(chunks.items()):
            first = i * INDEX_CHUNK, j * INDEX_CHUNK
            place = slice(first[0], first[0] + INDEX_CHUNK), slice(first[1], first[1] + INDEX_CHUNK)
            chunk = self._get("index", place)
            for row, column, fields in changes:
                chunk[row - first[0], column - first[1]] = fields
            self._safely(partial(array.__setitem__, place, chunk))
        # Syncs the names in the folder too: a chunk may have been removed.
        self._safely(lambda: self.folder.sync(["index/zarr.json"]))

    def write(self, tx: int, ty: int, levels: Sequence[Tile]) -> Entry:
        """Write a tile at all levels, and return when the data has reached the disk.

        The tile becomes visible when the entry is passed to `commit`. Any process may write, but
        only one at a time may write a tile. A tile in the index must be forgotten first.

        Parameters
        ----------
        tx, ty : int
            Index of the tile.
        levels : sequence of Tile
            The tile at level 1, 2, 4 and 8, on `tile_frame(tx, ty, level)`.

        Raises
        ------
        StoreFullError
            If the disk is full; the tiles written before stay valid.
        StoreError
            If it cannot be written for another reason, or has too many voxels.
        FrameError
            If a level is on another frame.
        """
        row, column = self._place(tx, ty)
        stored = [replace(tile, splats=_halves(tile.splats)) for tile in levels]
        jobs: list[Callable[[], None]] = []
        for level, tile in zip(LEVELS, stored, strict=True):
            frame = self.tile_frame(tx, ty, level)
            tile.frame.require_lattice(frame)
            if (tile.frame.x, tile.frame.y) != (frame.x, frame.y):
                raise FrameError(
                    f"level {level} of tile ({tx}, {ty}) is on {tile.frame}, not on {frame}",
                    "crop it",
                )
            jobs += self._dense_jobs(level, tx, ty, tile)
            for name in RAGGED:
                part = tile.splats if name.startswith("splats") else tile.voxels
                array = self._array(name.format(level=level))
                jobs.append(
                    partial(_write_rows, array, row, column, getattr(part, name.rsplit("/")[-1]))
                )
        rows = tuple(len(tile.voxels) for tile in stored)
        dense, ragged = self._objects(tx, ty, rows)
        self._require()
        # Otherwise zarr would merge the new rows into what an interrupted write left.
        self._safely(lambda: self.folder.remove(ragged))
        self._safely(lambda: self.folder.each(jobs))
        self._safely(lambda: self.folder.sync([*dense, *ragged]))
        size = sum(self._safely(lambda: self.folder.sizes([*dense, *ragged])).values())
        self._require()
        return Entry(rows, tile_digest(stored), size)

    def _dense_jobs(self, level: int, tx: int, ty: int, tile: Tile) -> list[Callable[[], None]]:
        whole = self.tiles_frame.coarsen(level)
        chunk = whole.tile(tx, ty, self.tile_size // level)
        jobs: list[Callable[[], None]] = []
        for name, (dtype, extra, fill, *_) in DENSE.items():
            data = np.full((*chunk.shape, *extra), fill, dtype)
            data[chunk.slices(tile.frame)] = getattr(tile, name)
            array = self._array(self.dense_path(name, level))
            jobs.append(partial(array.__setitem__, whole.slices(chunk), data))
        return jobs

    def _objects(self, tx: int, ty: int, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Names of the objects of a tile's dense and ragged layers. An object of zeros does not
        exist."""
        row, column = self._place(tx, ty)
        dense = [
            f"{self.dense_path(name, level)}/c/{row}/{column}" + "/0" * len(extra)
            for level in LEVELS
            for name, (_, extra, *_) in DENSE.items()
        ]
        ragged = []
        for level, count in zip(LEVELS, rows, strict=True):
            for name in RAGGED:
                # Attributes with several values per voxel have more axes, each in one chunk.
                axes = self._array(name.format(level=level)).ndim - 3
                shards = range(-(-count // ROW_SHARD))
                ragged += [
                    f"{name.format(level=level)}/c.{row}.{column}.{shard}" + ".0" * axes
                    for shard in shards
                ]
        return dense, ragged

    def adopt(self, other: Store, tx: int, ty: int) -> Entry:
        """Link the files of a finished tile of another local world, or copy them.

        Links are safe, because a file of a world is replaced and never changed. Both worlds must
        have the same identity, and the tile the same frame in both. The caller commits the entry.

        Raises
        ------
        StoreError
            If the tile is not finished there, or cannot be linked or copied.
        """
        entry = other.entry(tx, ty)
        if entry is None:
            raise StoreError(
                f"tile ({tx}, {ty}) of {other.path} is not finished", "finish it with `resume`"
            )
        problem = other.check(tx, ty, quick=True)
        if problem:
            raise StoreError(
                f"tile ({tx}, {ty}) of {other.path} is damaged: {problem}",
                f"mend it: `earthgen generate --out {other.path} --resume`",
            )
        sources, targets = (
            [name for part in store._objects(tx, ty, entry.rows) for name in part]
            for store in (other, self)
        )
        for source, target in zip(sources, targets, strict=True):
            old, new = Path(other.path) / source, Path(self.path) / target
            if old.exists():  # an object of zeros has no file
                self._safely(partial(link_file, old, new))
        self._safely(lambda: self.folder.sync(targets))
        decisions.adopt(self, other, tx, ty)
        return entry

    def sweep(self) -> int:
        """Remove what crashes left: half-written files, and stage caches of other identities.

        Call it in the process that holds the lock, while no worker runs. It looks through all
        folders.

        Returns
        -------
        int
            Number of removed files.
        """
        names = list(self._safely(lambda: list(self.folder.partial())))
        names += [name for name in self.folder.names(STAGES) if name.split("/")[2] != self.key]
        self._safely(lambda: self.folder.remove(names))
        for key in self.folder.children(STAGES):
            if key != self.key:
                self._safely(partial(self.folder.remove_folder, f"{STAGES}/{key}"))
        return len(names)

    def read_dense(self, name: str, tx: int, ty: int, level: int = 1) -> NDArray:
        """Return a dense layer of a tile.

        Parameters
        ----------
        name : str
            A key of `earthgen.world.layout.DENSE`.
        tx, ty, level : int

        Returns
        -------
        NDArray (ny, nx, ...)
            On `tile_frame(tx, ty, level)`; the fill value for an unfinished tile.
        """
        place = self.tiles_frame.coarsen(level).slices(self.tile_frame(tx, ty, level))
        return self.read_part(self.dense_path(name, level), place)

    def read_part(self, name: str, place: Any, how: str = "") -> NDArray:
        """Return a part of a dense layer.

        Parameters
        ----------
        name : str
            Path of the layer.
        place : index
            Rows, columns and bands.
        how : {"", "oindex", "vindex"}
            How Zarr understands an index with vectors.

        Raises
        ------
        StoreError
            If an object of the layer is damaged, or one that the index counts is missing.
        """
        array = self._array(name)
        values = self.decode(name, array, place, how)
        if values.size and objects.has_fill(values, array.fill_value):
            at = objects.objects_of(array, place)
            self._require_objects({objects.object_name(name, array, each): each for each in at})
        return values

    def _require_objects(self, names: Mapping[str, tuple[int, ...]]) -> None:
        """Raise StoreError if one of these objects is missing and its tile lacks bytes.

        Parameters
        ----------
        names : mapping of str to tuple of int
            Row and column of the tile, and more, by the name of the object.
        """
        absent = set(names) - set(self._safely(lambda: self.folder.sizes(names)))
        west, north = self.tiles_frame.x[0], self.tiles_frame.y[1]
        for name in sorted(absent):
            row, column = names[name][:2]
            tile = west // self.tile_size + column, north // self.tile_size - 1 - row
            entry = self.entry(*tile)
            if entry is None or (*tile, entry.bytes) in self._whole:
                continue
            parts = [each for part in self._objects(*tile, entry.rows) for each in part]
            sizes = self._safely(partial(self.folder.sizes, parts))
            size = sum(sizes.values())
            if size < entry.bytes:
                without = [each for each in parts if each not in sizes]
                without = [name, *(each for each in without if each != name)]
                text = self._damaged_in(tile, entry) or (
                    f"tile {tile} has {size:,} of its {entry.bytes:,} bytes; these files do not "
                    f"exist: {', '.join(without[:MOST_NAMES])}"
                    + (f" and {len(without) - MOST_NAMES} more" * (len(without) > MOST_NAMES))
                )
                raise StoreError(
                    f"{self.path} is damaged: {text}",
                    "`earthgen verify` finds and mends damaged tiles",
                )
            self._whole.add((*tile, entry.bytes))

    def read_voxels(
        self, tx: int, ty: int, level: int = 1, splats: bool = True
    ) -> tuple[Voxels, Splats | None]:
        """Return the voxels of a tile and their Gaussians in float32.

        An unfinished tile has none. Without `splats`, the Gaussians are not read and are None.
        """
        entry = self.entry(tx, ty)
        count = entry.rows[LEVELS.index(level)] if entry else 0
        voxels, halves = self._ragged(tx, ty, level, count, splats)
        if halves is None:
            return voxels, None
        return voxels, Splats(
            *(getattr(halves, name).astype(np.float32) for name in (*SPLATS, "sh"))
        )

    def _ragged(
        self, tx: int, ty: int, level: int, count: int, splats: bool
    ) -> tuple[Voxels, Splats | None]:
        """The voxels of a tile and their Gaussians in the stored dtypes."""
        row, column = self._place(tx, ty)
        frame = self.tile_frame(tx, ty, level)
        self._require_rows(tx, ty, level, count)

        def read(name: str) -> NDArray:
            if not count:
                array = self._array(name)
                return np.empty((0, *array.shape[3:]), array.dtype)
            values = self._get(name, (row, column, slice(count)))
            if len(values) != count:
                raise StoreError(
                    f"{name} of {self.path} is damaged: it has {len(values):,} of {count:,} rows",
                    "`earthgen verify` finds and mends damaged tiles",
                )
            shards = range(-(-count // ROW_SHARD))
            empty = [n for n in shards if not values[n * ROW_SHARD : (n + 1) * ROW_SHARD].any()]
            if empty:
                array = self._array(name)
                at = [(row, column, n, *[0] * (array.ndim - 3)) for n in empty]
                self._require_objects({objects.object_name(name, array, each): each for each in at})
            return values

        names = [name.format(level=level) for name in (RAGGED if splats else RAGGED[: len(VOXELS)])]
        values = self.folder.each([partial(read, name) for name in names])
        voxels = Voxels(frame, *values[: len(VOXELS)])
        if not _within_tile(voxels):
            raise StoreError(
                f"the voxels of tile ({tx}, {ty}) of {self.path} are damaged: some lie outside it, "
                "or have no class",
                "`earthgen verify` finds and mends damaged tiles",
            )
        attributes = values[len(VOXELS) :]
        if not all(map(_finite, attributes)):
            raise StoreError(
                f"the Gaussians of tile ({tx}, {ty}) of {self.path} are damaged: some are "
                "infinite, or no numbers",
                "`earthgen verify` finds and mends damaged tiles",
            )
        return voxels, Splats(*attributes) if splats else None

    def _require_rows(self, tx: int, ty: int, level: int, count: int) -> None:
        """Raise StoreError if the index says more voxels than a tile can have, or has files for:
        rows that do not exist are zeros, which take memory."""
        frame = self.tile_frame(tx, ty, level)
        cells = frame.nx * frame.ny * (frame.z[1] - frame.z[0])
        if 0 <= count <= min(cells, ROWS):
            row, column = self._place(tx, ty)
            name = f"voxels/level_{level}/xyz/c.{row}.{column}"
            shards = [f"{name}.{n}.0" for n in range(-(-count // ROW_SHARD))]
            few = count <= ROW_CHUNK
            if few or len(self._safely(lambda: self.folder.sizes(shards))) == len(shards):
                return
        raise StoreError(
            f"the index of {self.path} is damaged: tile ({tx}, {ty}) has {count:,} voxels at level "
            f"{level}, which it has no place or no file for",
            "`earthgen verify` finds and mends damaged tiles",
        )

    def _damaged_in(self, tile: tuple[int, int], entry: Entry) -> str:
        """Say which object of a tile cannot be read; "" if all can that exist."""
        row, column = self._place(*tile)
        for level, count in zip(LEVELS, entry.rows, strict=True):
            cells = self.tiles_frame.coarsen(level).slices(self.tile_frame(*tile, level))
            places: dict[str, Any] = {self.dense_path(name, level): cells for name in DENSE}
            rows = (row, column, slice(count))
            places |= {name.format(level=level): rows for name in RAGGED if count}
            for name, place in places.items():
                found = objects.damaged_object(name, self._array(name), place, _DAMAGE)
                if found != name:
                    return f"{found} cannot be read"
        return ""

    def compute_digest(self, tx: int, ty: int) -> Digest:
        """Read a finished tile, verifying checksums, and return its digest.

        Raises
        ------
        StoreError
            If the tile is not finished, or so damaged that it cannot be read.
        """
        entry = self.entry(tx, ty)
        if entry is None:
            raise StoreError(
                f"tile ({tx}, {ty}) of {self.path} is not finished", "finish it with `resume`"
            )
        levels = []
        for level, count in zip(LEVELS, entry.rows, strict=True):
            voxels, splats = self._ragged(tx, ty, level, count, True)
            assert splats is not None  # requested
            ground, surface, semantics, rgb = self.folder.each(
                [partial(self.read_dense, name, tx, ty, level) for name in DENSE]
            )
            frame = self.tile_frame(tx, ty, level)
            levels.append(Tile(frame, ground, surface, semantics, rgb, voxels, splats))
        return tile_digest(levels)

    def check(self, tx: int, ty: int, quick: bool = False) -> str | None:
        """Check a tile in storage.

        Parameters
        ----------
        tx, ty : int
        quick : bool
            Only compare the size of its objects, without reading them.

        Returns
        -------
        str or None
            What is wrong; None if nothing is.
        """
        try:
            entry = self.entry(tx, ty)
        except StoreError as error:
            return error.problem
        if entry is None:
            return "it is not in the index"
        dense, ragged = self._objects(tx, ty, entry.rows)
        sizes = self._safely(lambda: self.folder.sizes([*dense, *ragged]))
        # A layer of zeros has no object: a missing one is a fault only if the content differs.
        absent = [name.split("/c")[0] for name in (*dense, *ragged) if name not in sizes]
        note = f"; without an object: {', '.join(absent)}" if absent else ""
        if quick:
            size = sum(sizes.values())
            if size == entry.bytes:
                return None
            return f"its objects have {size:,} bytes, not {entry.bytes:,}{note}"
        try:
            digest = self.compute_digest(tx, ty)
        except StoreError as error:
            return f"{error.problem}{note}"
        return None if digest == entry.digest else f"its content has changed{note}"

    def damage(self) -> list[str]:
        """Return what a look at names and sizes shows to be damaged, at most `MOST_NAMES` texts.

        It finds what is missing or cut off, as long as the unfinished tiles have no data; for the
        rest, `check` reads tiles.

        Raises
        ------
        StoreError
            If the index is damaged.
        """
        texts = self.lost_metadata()
        if texts:
            return texts[:MOST_NAMES]
        stated, tiles = int(self.index()[..., -1].sum()), self.finished_tiles()
        there = self.folder.size(_is_data)
        if there and not tiles:
            lost = self.lost_index()
            return [f"no tile counts as finished{lost}"] if lost else []
        if there >= stated:
            return []
        for tile in tiles:
            problem = self.check(*tile, quick=True)
            if problem:
                texts.append(f"tile {tile}: {problem}")
            if len(texts) == MOST_NAMES:
                break
        return texts or [f"{stated - there:,} bytes of tiles are missing"]

    def lost_metadata(self) -> list[str]:
        """Return what is wrong with the descriptions of arrays and groups."""
        texts = []
        dense = [self.dense_path(name, level) for level in LEVELS for name in DENSE]
        for name in (*dense, *(name.format(level=level) for level in LEVELS for name in RAGGED)):
            try:
                self._array(name)
            except StoreError as error:
                texts.append(error.problem.removeprefix(f"{self.path} is damaged: "))
        axes = [self.dense_path(name, level) for level in LEVELS for name in ("x", "y")]
        groups = [group for level in LEVELS if (group := self.dense_group(level)) is not None]
        for name in ("spatial_ref", *groups, *axes):
            try:
                found = self.member(name)
            except StoreError as error:
                texts.append(error.problem.removeprefix(f"{self.path} is damaged: "))
                continue
            if found is None:
                texts.append(f"{name}/zarr.json is missing")
        return texts

    def lost_index(self) -> str:
        """Return the end of a sentence about a world without finished tiles: which object of the
        index does not exist, "" if all do."""
        array = self._array("index")
        names = [
            objects.object_name("index", array, at) for at in objects.objects_of(array, Ellipsis)
        ]
        absent = sorted(set(names) - set(self._safely(lambda: self.folder.sizes(names))))
        return f": {absent[0]} does not exist" if absent else ""

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            try:
                with bounded_codecs():
                    array = self.root[name]
                fits = self._fits(name, array)
            except _DAMAGE as error:
                self._require()
                raise StoreError(
                    f"{self.path} is damaged: {name}/zarr.json is missing or incomplete",
                    "generate it again",
                ) from error
            except failures() as error:
                raise disk_error(error, self.path) from error
            if not fits:
                raise StoreError(
                    f"{self.path} is damaged: {name}/zarr.json does not describe this array",
                    "generate it again",
                )
            self._arrays[name] = array
        return self._arrays[name]

    def member(self, name: str) -> Any:
        """Return an array or a group of the world that not every world has; None without it.

        Raises
        ------
        StoreError
            If its description is damaged, or cannot be read.
        """
        try:
            with bounded_codecs():
                return self.root.get(name)
        except (AttributeError, *_DAMAGE) as error:
            raise StoreError(
                f"{self.path} is damaged: {name}/zarr.json is incomplete", "generate it again"
            ) from error
        except failures() as error:
            raise disk_error(error, self.path) from error

    def _fits(self, name: str, array: Any) -> bool:
        """Return whether an array is as `create_store` makes it for this frame: its shape, dtype,
        chunks and codecs. What is read is allocated first, so nothing else is taken for granted."""
        sh = tuple(array.shape[3:]) if name.endswith("/sh") else SH_SHAPES[0]
        wanted = array_layout(name, self.tiles_frame, self.tile_size, sh)
        made = {key: getattr(array, key) for key in wanted}
        return bool(sh in SH_SHAPES and made == wanted) and has_bounded_codecs(array)

    def _get(self, name: str, place: Any) -> NDArray:
        return self.decode(name, self._array(name), place)

    def decode(self, name: str, array: Any, place: Any, how: str = "") -> NDArray:
        """Read a part of an array of the world.

        Parameters
        ----------
        name : str
            What errors call it.
        array : zarr.Array
        place : index
            The part.
        how : {"", "oindex", "vindex"}
            How Zarr understands an index with vectors.

        Raises
        ------
        StoreError
            If it is damaged, or cannot be read.
        """
        try:
            return np.asarray((getattr(array, how) if how else array)[place])
        except _DAMAGE as error:
            text = getattr(error, "problem", str(error))
            text = "its checksum does not match" if "checksum" in text else text
            if name == "index":
                raise StoreError(
                    f"the index of {self.path} is damaged: "
                    f"{self._damaged_object(name, array, place, error)}: {text}",
                    "`resume` generates the tiles of the damaged part again",
                ) from error
            raise StoreError(
                f"{self._damaged_object(name, array, place, error)} of {self.path} is damaged: "
                f"{text}",
                "`earthgen verify` finds and mends damaged tiles",
            ) from error
        except failures() as error:
            raise StoreError(
                f"{name} of {self.path} cannot be read: {error}", "check the disk or network"
            ) from error

    def _damaged_object(self, name: str, array: Any, place: Any, error: Exception) -> str:
        """Return the name of the object that an error comes from, or of its array."""
        if isinstance(error, MemoryError):
            return name
        try:
            return objects.damaged_object(name, array, place, _DAMAGE)
        except failures():
            return name

    def _safely(self, call: Callable[[], Any]) -> Any:
        """Make a call that writes; its failure becomes a StoreError."""
        try:
            return call()
        except failures() as error:
            if isinstance(error, StoreError):
                raise
            raise disk_error(error, self.path) from error

    def _require(self) -> None:
        """Raise StoreError if the world was deleted: on an object store, writes would succeed."""
        if not self._safely(lambda: self.folder.exists("zarr.json")):
            raise missing_world(self.path)


def _is_data(name: str) -> bool:
    """Return whether a file of a world is an object of a tile, which the index counts."""
    folders = name.split("/")
    inside = folders[0] in ("voxels", "splats") or any(part in DENSE for part in folders[:2])
    return inside and not name.endswith(("zarr.json", PARTIAL))


def _within_tile(voxels: Voxels) -> bool:
    """Return whether voxels lie in their frame and have classes of the legend."""
    if not len(voxels):
        return True
    low, high = voxels.xyz.min(axis=0).tolist(), voxels.xyz.max(axis=0).tolist()
    axes = (voxels.frame.x, voxels.frame.y, voxels.frame.z)
    inside = all(a <= b and c < d for (a, d), b, c in zip(axes, low, high, strict=True))
    return inside and int(voxels.semantic.max()) < len(palette())


def _finite(halves: NDArray) -> bool:
    """Return whether all float16 values are finite: the exponent of others has all its bits set."""
    exponent = 0x7C00
    return int((halves.view(np.uint16) & np.uint16(exponent)).max(initial=0)) < exponent


def _halves(splats: Splats) -> Splats:
    return Splats(*(np.asarray(getattr(splats, name), np.float16) for name in (*SPLATS, "sh")))


def _write_rows(array: Any, row: int, column: int, data: NDArray) -> None:
    """Write whole chunks, because zarr reads a chunk before it writes a part of it."""
    if len(data) > ROWS:
        raise StoreError(
            f"a tile has {len(data):,} voxels, more than {ROWS:,}", "give a smaller `tile_size`"
        )
    if not len(data):
        return
    filled = -(-len(data) // ROW_CHUNK) * ROW_CHUNK
    padded = np.zeros((filled, *array.shape[3:]), array.dtype)
    padded[: len(data)] = data.reshape(len(data), *array.shape[3:])
    array[row, column, :filled] = padded


def single_thread() -> None:
    """Limit zarr and its codecs to one thread, for workers that have one core each.

    Call it before the first use of zarr.
    """
    from numcodecs import blosc

    zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
    blosc.use_threads = False
    blosc.set_nthreads(1)


def create_store(
    path: str | Path,
    frame: Frame,
    tile_size: int,
    attributes: Mapping[str, Any],
    sh_degree: int = 0,
) -> Store:
    """Create an empty world.

    Parameters
    ----------
    path : path or URL
    frame : Frame
        Of the world.
    tile_size : int
        Edge of a tile, voxels.
    attributes : mapping
        "identity", "provenance" and "settings" as JSON values, stored in the root group under
        "earthgen".
    sh_degree : int
        Degree of the spherical harmonics of the colours.

    Raises
    ------
    StoreExistsError
        If something exists at `path`.
    StoreError
        If nothing can be written there.
    """
    where = folder(path)
    try:
        if isinstance(where, LocalFolder):
            if where.path.is_file():
                raise _exists(where.path)
            where.path.mkdir(parents=True, exist_ok=True)
        lock_only = all(name.startswith(".") for name in where.children("index"))
        if set(where.children()) - ({"index"} if lock_only else set()):
            raise _exists(where.path)
        root = zarr.create_group(_zarr_store(where, read_only=False), zarr_format=3)
        store = Store(where.path, root, frame, tile_size, where)
        where.each(_array_jobs(store, sh_degree))
        # In one step: `attrs.update` writes the file anew for each of them.
        root.update_attributes(conventions.of_world(frame, store.tiles_frame, __version__))
        conventions.consolidate(root.store)
        where.sync(list(where.names()))
        # These attributes come last: a store without them was interrupted while it was created.
        values = {
            "format_version": FORMAT_VERSION,
            "frame": frame.to_dict(),
            "tile_size": tile_size,
            "levels": list(LEVELS),
            **attributes,
        }
        store.describe(values)
        root = zarr.open_group(root.store, mode="r+", zarr_format=3, use_consolidated=False)
        store = replace(store, root=root)
    except StoreError:
        raise
    except failures() as error:
        raise disk_error(error, where.path) from error
    return store


def _exists(path: Path | str) -> StoreExistsError:
    return StoreExistsError(
        f"{path} exists already", "give `overwrite`, `resume`, or another `out`"
    )


def _zarr_store(where: Folder, read_only: bool) -> Any:
    if isinstance(where, LocalFolder):
        return GuardedStore(where.path, read_only=read_only)
    return FsspecStore.from_url(str(where.path), read_only=read_only)


def _array_jobs(store: Store, sh_degree: int) -> list[Callable[[], Any]]:
    """Calls that create the arrays."""
    root, whole, tile = store.root, store.tiles_frame, store.tile_size
    # One file per object, instead of one in two folders of its own.
    names = {"name": "default", "separator": "."}
    jobs: list[Callable[[], Any]] = [
        partial(
            root.create_array,
            "index",
            **array_layout("index", whole, tile),
            compressors=[Crc32cCodec()],
            fill_value=0,
            dimension_names=("tile_y", "tile_x", "field"),
            chunk_key_encoding=names,
        ),
        partial(_create_reference, root, whole),
    ]
    sh = ((sh_degree + 1) ** 2, 3)
    for level in LEVELS:
        # Arrays and coordinates are of whole tiles; what the group says is of the world.
        about = conventions.of_level(store.frame.coarsen(level))
        group = root.create_group(f"level_{level}", attributes=about)
        jobs.append(partial(_create_dense, group, level, whole, tile))
        if level == 1:
            jobs.append(partial(decisions.create, group, whole, tile))
        jobs += [
            partial(
                root.create_array,
                name,
                **array_layout(name, whole, tile, sh),
                compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
                fill_value=0,
                dimension_names=("tile_y", "tile_x", "row", *AXES.get(name.rsplit("/")[-1], ())),
                chunk_key_encoding=names,
            )
            for name in (name.format(level=level) for name in RAGGED)
        ]
    return jobs


def _create_dense(group: Any, level: int, whole: Frame, tile: int) -> None:
    frame = whole.coarsen(level)
    for name, (_, _, fill, *_) in DENSE.items():
        group.create_array(
            name,
            **array_layout(f"level_{level}/{name}", whole, tile),
            compressors=[GzipCodec(level=1)],
            fill_value=fill,
            dimension_names=("y", "x", *AXES.get(name, ())),
            attributes=conventions.of_layer(name, frame),
        )
    for axis in ("x", "y"):
        values = conventions.centres(frame, axis)
        array = group.create_array(
            axis,
            shape=values.shape,
            chunks=values.shape,
            dtype="float64",
            compressors=[GzipCodec(level=1)],
            dimension_names=(axis,),
            attributes=conventions.of_axis(axis),
        )
        array[:] = values
    _create_reference(group, frame)


def _create_reference(group: Any, frame: Frame) -> None:
    group.create_array(
        "spatial_ref",
        shape=(),
        dtype="int64",
        fill_value=0,
        attributes=conventions.of_reference(frame),
    )


def open_store(path: str | Path, mode: Literal["r", "r+"] = "r") -> Store:
    """Open a world at a path or URL.

    Raises
    ------
    StoreError
        If it does not exist, is not a world, is damaged, or has a format version that is not read.
    """
    where = folder(path)
    attributes: Any
    try:
        if not where.exists() and not where.exists("zarr.json"):
            raise StoreError(f"world {path} does not exist", "make it with `earthgen generate`")
        # What is consolidated is for others: here each array's own file counts, which may be
        # damaged.
        files = _zarr_store(where, read_only=mode == "r")
        root = zarr.open_group(files, mode=mode, zarr_format=3, use_consolidated=False)
        attributes = root.attrs.get("earthgen")
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not an earthgen world: it has no zarr.json",
            "name a world made by `earthgen generate`",
        ) from error
    except _DAMAGE as error:
        raise _damaged(path) from error
    except failures() as error:
        raise StoreError(
            f"{path} cannot be read: {error}", "check the path and your permissions"
        ) from error
    if attributes is None:
        raise StoreError(
            f"{path} is not an earthgen world, or its creation was interrupted",
            "generate it again with `overwrite`",
        )
    try:
        version = int(attributes["format_version"])
        frame, tile_size = Frame.from_dict(attributes["frame"]), int(attributes["tile_size"])
        for part in ("identity", "provenance", "settings"):
            dict(attributes.get(part, {}).items())
        far = FARTHEST / frame.voxel_size
        fits = LEAST_VOXEL <= frame.voxel_size <= 1 / LEAST_VOXEL
        if not (fits and 0 < tile_size <= MOST_TILE) or max(map(abs, (*frame.x, *frame.y))) > far:
            raise ValueError(f"tiles of {tile_size} voxels on {frame}")
        require_plain_crs(frame.crs, str(path))
    except InputError as error:
        raise StoreError(error.problem, "generate it again") from error
    except (AttributeError, *_DAMAGE) as error:
        raise _damaged(path) from error
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this earthgen reads versions up to "
            f"{FORMAT_VERSION}",
            "update earthgen",
        )
    if version < OLDEST_VERSION:
        raise StoreError(
            f"{path} was made by an older earthgen, in format version {version}; this one reads "
            f"versions {OLDEST_VERSION} to {FORMAT_VERSION}",
            "generate it again",
        )
    return Store(where.path, root, frame, tile_size, where, version)


def _damaged(path: Path | str) -> StoreError:
    return StoreError(
        f"{path} is damaged: its zarr.json is incomplete", "generate it again with `overwrite`"
    )
