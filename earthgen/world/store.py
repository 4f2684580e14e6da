"""A world in storage: one Zarr v3 group. docs/reference/store.md describes the layout for other
readers.

Dense layers lie in the root group (level 1) and in `level_2`, `level_4`, `level_8`, so that
`xarray.open_zarr(path)` shows them; a chunk is a tile, compressed with gzip, whose CRC-32 is their
checksum and which any GDAL from 3.11 on reads. Voxels and Gaussians lie in `voxels/level_N` and
`splats/level_N` as ragged arrays of shape (tiles north to south, tiles west to east, rows, ...): a
tile's rows fill the first of its chunks, the rest do not exist; a shard keeps the chunks of a tile
in one object.

Many workers write tiles, each tile by one of them, and one coordinator enters what they wrote in
`index`: how many rows a tile has, the digest of its content and its size. A tile that the index
does not name is not there. The index is written after the data it speaks of, and both are on the
disk for good when the calls return.
"""

from __future__ import annotations

import asyncio
import gzip
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
from zarr.storage import FsspecStore, LocalStore

from earthgen.errors import StoreError, StoreExistsError
from earthgen.files import (
    Folder,
    LocalFolder,
    disk_error,
    failures,
    folder,
    gone,
    link_file,
    replace_file,
)
from earthgen.voxels.tile import LEVELS, Tile
from earthgen.voxels.voxels import Splats, Voxels
from earthgen.world.digest import Digest, identity_key, tile_digest
from earthgen.world.layout import (
    DENSE,
    FORMAT_VERSION,
    INDEX_CHUNK,
    INDEX_FIELDS,
    RAGGED,
    ROW_CHUNK,
    ROW_SHARD,
    ROWS,
    SPLATS,
    VOXELS,
)
from geo_io.errors import FrameError
from geo_io.frame import Frame

_DAMAGE = (ValueError, RuntimeError, EOFError, zlib.error, gzip.BadGzipFile)  # what decoders raise


@dataclass(frozen=True)
class Entry:
    """What the index says of a tile.

    Attributes
    ----------
    rows : number of voxels by level
    digest : of the content, see `earthgen.world.digest`
    bytes : size of the tile's objects together
    """

    rows: tuple[int, ...]
    digest: Digest
    bytes: int


@dataclass(frozen=True)
class Store:
    """An open world in storage; `World` is the view of it for users."""

    path: Path | str
    root: Any
    frame: Frame
    tile_size: int
    folder: Folder
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # opened ones

    @property
    def identity(self) -> dict[str, Any]:
        """What the content depends on, but the extent."""
        return dict(self.root.attrs["earthgen"].get("identity", {}))

    @property
    def key(self) -> str:
        """The identity as 16 hex digits."""
        return identity_key(self.identity)

    @property
    def tiles_frame(self) -> Frame:
        """The frame of all tiles that the world meets: what the arrays cover."""
        t = self.tile_size
        return Frame(
            self.frame.crs,
            self.frame.voxel_size,
            (self.frame.x[0] // t * t, -(-self.frame.x[1] // t) * t),
            (self.frame.y[0] // t * t, -(-self.frame.y[1] // t) * t),
            self.frame.z,
            self.frame.vertical_crs,
        )

    def tile_frame(self, tx: int, ty: int, level: int = 1) -> Frame:
        """The part of a tile that lies in the world, at a level."""
        part = self.frame.tile(tx, ty, self.tile_size).intersection(self.frame)
        if part is None:
            raise StoreError(
                f"tile ({tx}, {ty}) does not lie in {self.path}",
                "`earthgen info` prints the extent",
            )
        return part.coarsen(level) if level > 1 else part

    def _place(self, tx: int, ty: int) -> tuple[int, int]:
        """Row and column of a tile in the arrays."""
        self.tile_frame(tx, ty)  # it has to have one
        whole = self.tiles_frame
        return whole.y[1] // self.tile_size - 1 - ty, tx - whole.x[0] // self.tile_size

    def index(self) -> NDArray:
        """(tiles north to south, tiles west to east, fields) int64; all 0 where there is no
        finished tile.

        The fields are a marker, the number of voxels at level 1, 2, 4 and 8, the digest (four
        uint64 read as int64) and the bytes of the tile.

        Raises
        ------
        StoreError
            if the index is damaged; `mend_index` forgets the tiles of the damaged part
        """
        index = self._get("index", ...)
        index[index[..., 0] != self._marker] = 0
        return index

    def done(self, part: Frame | None = None) -> list[tuple[int, int]]:
        """(tx, ty) of the finished tiles that `part` meets (None: of all), row by row from the
        south-west."""
        part = part or self.tiles_frame
        rows, columns = np.nonzero(self.finished(part))
        tx, ty = columns + part.x[0] // self.tile_size, rows + part.y[0] // self.tile_size
        return list(zip(tx.tolist(), ty.tolist(), strict=True))

    def finished(self, part: Frame | None = None) -> NDArray:
        """(tiles south to north, tiles west to east) bool: which tiles are finished, of those that
        `part` meets.

        part : a frame of level 1 inside `tiles_frame`; None for all of it
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
        """What the index says of a tile; None if it is not finished."""
        fields = self._get("index", self._place(tx, ty))
        if fields[0] != self._marker:
            return None
        a, b, c, d = (int(value) for value in fields[1 + len(LEVELS) : -1].view(np.uint64))
        return Entry(
            tuple(int(n) for n in fields[1 : 1 + len(LEVELS)]), (a, b, c, d), int(fields[-1])
        )

    def digest(self) -> Digest:
        """The digests of all finished tiles together, as the index has them."""
        lanes = (
            self.index()[..., 1 + len(LEVELS) : -1]
            .view(np.uint64)
            .sum(axis=(0, 1), dtype=np.uint64)
        )
        a, b, c, d = (int(value) for value in lanes)
        return a, b, c, d

    def commit(self, entries: Mapping[tuple[int, int], Entry]) -> None:
        """Make tiles visible whose `write` returned these entries. One process does that, see
        `earthgen.world.lock`.

        Returns when the index is on the disk for good.

        Raises
        ------
        StoreError
            if the world is gone, its index is damaged or cannot be written
        """
        rows = {}
        for tile, entry in entries.items():
            digest = np.array(entry.digest, np.uint64).view(np.int64)
            rows[tile] = np.array([self._marker, *entry.rows, *digest, entry.bytes], np.int64)
        self._set_index(rows)

    def forget(self, tiles: Iterable[tuple[int, int]]) -> None:
        """Take tiles out of the index, before they are written anew."""
        self._set_index({tile: np.zeros(INDEX_FIELDS, np.int64) for tile in tiles})

    def mend_index(self) -> int:
        """Forget the tiles whose part of the index is damaged; gives the number of parts. They
        are made again then."""
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
        """What marks a finished tile: its world's identity, so that no entry is taken for one of
        another world."""
        return int(self.key, 16) >> 1 or 1

    def _set_index(self, entries: Mapping[tuple[int, int], NDArray]) -> None:
        chunks: dict[tuple[int, int], list[tuple[int, int, NDArray]]] = defaultdict(list)
        for tile, fields in entries.items():
            row, column = self._place(*tile)
            chunks[row // INDEX_CHUNK, column // INDEX_CHUNK].append((row, column, fields))
        self._require()
        array = self._array("index")
        if isinstance(
            self.folder, LocalFolder
        ):  # zarr's own writes may come to lie on the disk after the rename
            array = zarr.open_array(
                _Durable(self.folder.path), path="index", mode="r+", zarr_format=3
            )
        for (i, j), changes in sorted(chunks.items()):
            first = i * INDEX_CHUNK, j * INDEX_CHUNK
            place = slice(first[0], first[0] + INDEX_CHUNK), slice(first[1], first[1] + INDEX_CHUNK)
            chunk = self._get("index", place)
            for row, column, fields in changes:
                chunk[row - first[0], column - first[1]] = fields
            self._safely(partial(array.__setitem__, place, chunk))
        self._safely(
            lambda: self.folder.sync(["index/zarr.json"])
        )  # the folder's names: a chunk may have gone

    def write(self, tx: int, ty: int, levels: Sequence[Tile]) -> Entry:
        """Write a tile at all levels; it becomes visible when the entry is given to `commit`.

        Any process may write, a tile only one at a time. A tile in the index is to be forgotten
        first. Returns when the data is on the disk for good.

        levels : the tile at level 1, 2, 4 and 8, on `tile_frame(tx, ty, level)`

        Raises
        ------
        StoreFullError
            if the disk is full; the tiles written before stay valid
        StoreError
            if it cannot be written for another reason, or has too many voxels
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
        # zarr would merge new rows into what an earlier, broken-off write left, if it can read
        # that.
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
            jobs.append(
                partial(self._array(_dense(name, level)).__setitem__, whole.slices(chunk), data)
            )
        return jobs

    def _objects(self, tx: int, ty: int, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Names of the objects of a tile's dense and ragged layers. Those that hold nothing but
        0 do not exist."""
        row, column = self._place(tx, ty)
        dense = [
            f"{_dense(name, level)}/c/{row}/{column}" + "/0" * len(extra)
            for level in LEVELS
            for name, (_, extra, *_) in DENSE.items()
        ]
        ragged = []
        for level, count in zip(LEVELS, rows, strict=True):
            for name in RAGGED:
                # attributes of a voxel that are no single number have more axes, each in one chunk
                axes = self._array(name.format(level=level)).ndim - 3
                shards = range(-(-count // ROW_SHARD))
                ragged += [
                    f"{name.format(level=level)}/c.{row}.{column}.{shard}" + ".0" * axes
                    for shard in shards
                ]
        return dense, ragged

    def adopt(self, other: Store, tx: int, ty: int) -> Entry:
        """Take a finished tile of another local world as it is: its files are linked, or copied
        where they cannot be.

        Links are safe, since a file of a world is replaced and never changed. The tile's frame has
        to be the same in both, and their identity too; the caller commits the entry.
        """
        entry = other.entry(tx, ty)
        if entry is None:
            raise StoreError(
                f"tile ({tx}, {ty}) of {other.path} is not finished", "finish it with --resume"
            )
        there, here = (
            [name for part in store._objects(tx, ty, entry.rows) for name in part]
            for store in (other, self)
        )
        for source, target in zip(there, here, strict=True):
            old, new = Path(other.path) / source, Path(self.path) / target
            if old.exists():  # what holds nothing but 0 has no file
                self._safely(partial(link_file, old, new))
        self._safely(lambda: self.folder.sync(here))
        return entry

    def sweep(self) -> int:
        """Remove what crashes left: files half written, and scratch of other identities. Gives
        their number.

        For the one process that works on the world, while no worker does; looks through all
        folders.
        """
        from earthgen.world.layout import STAGES

        names = list(self._safely(lambda: list(self.folder.partial())))
        names += [name for name in self.folder.names(STAGES) if name.split("/")[2] != self.key]
        self._safely(lambda: self.folder.remove(names))
        for key in self.folder.children(STAGES):
            if key != self.key:
                self._safely(partial(self.folder.remove_folder, f"{STAGES}/{key}"))
        return len(names)

    def read_dense(self, name: str, tx: int, ty: int, level: int = 1) -> NDArray:
        """A dense layer on `tile_frame(tx, ty, level)`."""
        place = self.tiles_frame.coarsen(level).slices(self.tile_frame(tx, ty, level))
        return self._get(_dense(name, level), place)

    def read_voxels(
        self, tx: int, ty: int, level: int = 1, splats: bool = True
    ) -> tuple[Voxels, Splats | None]:
        """The voxels of a finished tile and, unless not wanted, their Gaussians in float32; none
        of any other tile."""
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
        """The voxels of a tile and their Gaussians as they are stored."""
        row, column = self._place(tx, ty)

        def read(name: str) -> NDArray:
            if not count:
                array = self._array(name)
                return np.empty((0, *array.shape[3:]), array.dtype)
            return self._get(name, (row, column, slice(count)))

        names = [name.format(level=level) for name in (RAGGED if splats else RAGGED[: len(VOXELS)])]
        values = self.folder.each([partial(read, name) for name in names])
        voxels = Voxels(self.tile_frame(tx, ty, level), *values[: len(VOXELS)])
        return voxels, Splats(*values[len(VOXELS) :]) if splats else None

    def digest_of(self, tx: int, ty: int) -> Digest:
        """The digest of a finished tile, from what is stored; checksums are verified on the way.

        Raises
        ------
        StoreError
            if the tile is not finished, or damaged so that it cannot be read
        """
        entry = self.entry(tx, ty)
        if entry is None:
            raise StoreError(
                f"tile ({tx}, {ty}) of {self.path} is not finished", "continue it with --resume"
            )
        levels = []
        for level, count in zip(LEVELS, entry.rows, strict=True):
            voxels, splats = self._ragged(tx, ty, level, count, True)
            assert splats is not None  # asked for
            ground, surface, semantics, rgb = self.folder.each(
                [partial(self.read_dense, name, tx, ty, level) for name in DENSE]
            )
            frame = self.tile_frame(tx, ty, level)
            levels.append(Tile(frame, ground, surface, semantics, rgb, voxels, splats))
        return tile_digest(levels)

    def check(self, tx: int, ty: int, quick: bool = False) -> str | None:
        """What is wrong with a tile in storage, None where nothing is.

        quick : compare the size of its objects only, without reading them
        """
        entry = self.entry(tx, ty)
        if entry is None:
            return "it is not in the index"
        dense, ragged = self._objects(tx, ty, entry.rows)
        sizes = self._safely(lambda: self.folder.sizes([*dense, *ragged]))
        # A layer of nothing but 0 has no object, so an absent one is a fault only if the content is
        # another.
        absent = [name.split("/c")[0] for name in (*dense, *ragged) if name not in sizes]
        lost = f"; without an object: {', '.join(absent)}" if absent else ""
        if quick:
            size = sum(sizes.values())
            return (
                None
                if size == entry.bytes
                else f"its objects have {size:,} bytes, not {entry.bytes:,}{lost}"
            )
        try:
            digest = self.digest_of(tx, ty)
        except StoreError as error:
            return error.problem
        return (
            None if digest == entry.digest else f"its content is not that which was written{lost}"
        )

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            try:
                self._arrays[name] = self.root[name]
            except (KeyError, TypeError, ValueError) as error:
                self._require()
                raise StoreError(
                    f"{self.path} is damaged: {name}/zarr.json is absent or not whole",
                    "generate it again",
                ) from error
            except failures() as error:
                raise disk_error(error, self.path) from error
        return self._arrays[name]

    def _get(self, name: str, place: Any) -> NDArray:
        array = self._array(name)
        try:
            return np.asarray(array[place])
        except _DAMAGE as error:
            if name == "index":
                raise StoreError(
                    f"the index of {self.path} is damaged: {error}",
                    "--resume makes the tiles of the damaged part again",
                ) from error
            raise StoreError(
                f"{name} of {self.path} is damaged: {error}",
                "`earthgen verify` finds and mends damaged tiles",
            ) from error
        except failures() as error:
            raise StoreError(
                f"{name} of {self.path} cannot be read: {error}", "check the disk or network"
            ) from error

    def _safely(self, call: Callable[[], Any]) -> Any:
        """The result of a call that writes; its failure as a StoreError."""
        try:
            return call()
        except failures() as error:
            if isinstance(error, StoreError):
                raise
            raise disk_error(error, self.path) from error

    def _require(self) -> None:
        """Raise StoreError if the world was deleted: on an object store writes would go on."""
        if not self._safely(lambda: self.folder.exists("zarr.json")):
            raise gone(self.path)


class _Disk(LocalStore):
    """A local Zarr store that does not make its own folder anew when that was deleted or moved."""

    durable = False

    async def set(self, key: str, value: Any) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Any) -> None:
        self._check_writable()
        replace_file(self.root, key, value.as_buffer_like(), self.durable)


class _Durable(_Disk):
    """Its writes would survive a power cut."""

    durable = True


def _dense(name: str, level: int) -> str:
    return name if level == 1 else f"level_{level}/{name}"


def _halves(splats: Splats) -> Splats:
    return Splats(*(np.asarray(getattr(splats, name), np.float16) for name in (*SPLATS, "sh")))


def _write_rows(array: Any, row: int, column: int, data: NDArray) -> None:
    """Fill whole chunks, so that zarr need not read one to write it."""
    if len(data) > ROWS:
        raise StoreError(
            f"a tile has {len(data):,} voxels, more than {ROWS:,}", "use a smaller --tile-size"
        )
    if not len(data):
        return
    filled = -(-len(data) // ROW_CHUNK) * ROW_CHUNK
    padded = np.zeros((filled, *array.shape[3:]), array.dtype)
    padded[: len(data)] = data.reshape(len(data), *array.shape[3:])
    array[row, column, :filled] = padded


def single_thread() -> None:
    """Keep zarr and its codecs to one thread: for workers, of which there is one a core. Call it
    before any use."""
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
    """An empty world.

    path : a folder, or the URL of a place in an object store
    attributes : JSON values kept in the root group under "earthgen": identity, provenance, settings

    Raises
    ------
    StoreExistsError
        if there is something at `path`
    StoreError
        if nothing can be written there
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
        where.sync(list(where.names()))
        # The attributes come last: a store without them was broken off while it was being made.
        root.attrs["earthgen"] = {
            "format_version": FORMAT_VERSION,
            "frame": frame.to_dict(),
            "tile_size": tile_size,
            "levels": list(LEVELS),
            **attributes,
        }
        where.sync(["zarr.json"])
    except StoreError:
        raise
    except failures() as error:
        raise disk_error(error, where.path) from error
    return store


def _exists(path: Path | str) -> StoreExistsError:
    return StoreExistsError(
        f"{path} exists already", "give --overwrite, --resume, or another --out"
    )


def _zarr_store(where: Folder, read_only: bool) -> Any:
    if isinstance(where, LocalFolder):
        return _Disk(where.path, read_only=read_only)
    return FsspecStore.from_url(str(where.path), read_only=read_only)


def _array_jobs(store: Store, sh_degree: int) -> list[Callable[[], Any]]:
    """Calls that make the arrays."""
    root, whole, tile = store.root, store.tiles_frame, store.tile_size
    grid = (whole.ny // tile, whole.nx // tile)
    names = {
        "name": "default",
        "separator": ".",
    }  # a file an object instead of a file in two folders of its own
    jobs: list[Callable[[], Any]] = [
        partial(
            root.create_array,
            "index",
            shape=(*grid, INDEX_FIELDS),
            chunks=(INDEX_CHUNK, INDEX_CHUNK, INDEX_FIELDS),
            dtype="int64",
            compressors=[Crc32cCodec()],
            fill_value=0,
            dimension_names=("tile_y", "tile_x", "field"),
            chunk_key_encoding=names,
        )
    ]
    kinds = [*VOXELS.values(), *SPLATS.values(), ("float16", ((sh_degree + 1) ** 2, 3))]
    for level in LEVELS:
        group = root if level == 1 else root.create_group(f"level_{level}")
        jobs.append(partial(_create_dense, group, whole.coarsen(level), tile // level))
        jobs += [
            partial(
                root.create_array,
                name.format(level=level),
                shape=(*grid, ROWS, *extra),
                chunks=(1, 1, ROW_CHUNK, *extra),
                shards=(1, 1, ROW_SHARD, *extra),
                dtype=dtype,
                compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
                fill_value=0,
                chunk_key_encoding=names,
            )
            for name, (dtype, extra) in zip(RAGGED, kinds, strict=True)
        ]
    return jobs


def _create_dense(group: Any, frame: Frame, chunk: int) -> None:
    import pyproj

    s = frame.voxel_size
    bands: tuple[str, ...]
    for name, (dtype, extra, fill, title, unit) in DENSE.items():
        bands = ("band",) * len(extra)
        array = group.create_array(
            name,
            shape=(*frame.shape, *extra),
            chunks=(chunk, chunk, *extra),
            dtype=dtype,
            compressors=[GzipCodec(level=1)],
            fill_value=fill,
            dimension_names=("y", "x", *bands),
        )
        array.attrs.update({"long_name": title, "units": unit, "grid_mapping": "spatial_ref"})
        if unit == "m":
            array.attrs["vertical_crs"] = frame.vertical_crs
    for axis, values in (
        ("x", (np.arange(frame.x[0], frame.x[1]) + 0.5) * s),
        ("y", (np.arange(frame.y[1], frame.y[0], -1) - 0.5) * s),
    ):
        array = group.create_array(
            axis,
            shape=values.shape,
            chunks=values.shape,
            dtype="float64",
            compressors=[GzipCodec(level=1)],
            dimension_names=(axis,),
        )
        array[:] = values
        array.attrs.update({"units": "m", "standard_name": f"projection_{axis}_coordinate"})
    reference = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)
    a = frame.transform
    wkt = pyproj.CRS.from_user_input(frame.crs).to_wkt()
    reference.attrs.update(
        {
            "crs_wkt": wkt,
            "spatial_ref": wkt,
            "GeoTransform": f"{a.c!r} {a.a!r} {a.b!r} {a.f!r} {a.d!r} {a.e!r}",
        }
    )


def open_store(path: str | Path, mode: Literal["r", "r+"] = "r") -> Store:
    """Open a world, at a path or URL.

    Raises
    ------
    StoreError
        if it is not there, is no world, is damaged, or was written by a newer or older version
    """
    where = folder(path)
    attributes: Any
    try:
        if not where.exists() and not where.exists("zarr.json"):
            raise StoreError(
                f"world {path} does not exist", "make it with `earthgen generate ... --out`"
            )
        root = zarr.open_group(_zarr_store(where, read_only=mode == "r"), mode=mode, zarr_format=3)
        attributes = root.attrs.get("earthgen")
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not an earthgen world", "name a world made by `earthgen generate`"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    except failures() as error:
        raise StoreError(
            f"{path} cannot be read: {error}", "check its place and your rights to it"
        ) from error
    if attributes is None:
        raise StoreError(
            f"{path} is not an earthgen world, or was broken off while it was made",
            "generate it again with --overwrite",
        )
    try:
        version = int(attributes["format_version"])
        frame, tile_size = Frame.from_dict(attributes["frame"]), int(attributes["tile_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this earthgen reads version {FORMAT_VERSION}",
            "update earthgen",
        )
    if version < FORMAT_VERSION:
        raise StoreError(
            f"{path} was made by an older earthgen, in format version {version}; this one reads {FORMAT_VERSION}",
            "generate it again",
        )
    return Store(where.path, root, frame, tile_size, where)


def _damaged(path: Path | str) -> StoreError:
    return StoreError(
        f"{path} is damaged: its zarr.json is not whole", "generate it again with --overwrite"
    )
