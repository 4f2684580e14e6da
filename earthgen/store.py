"""A world on disk: one Zarr v3 group. docs/store.md describes the layout for other readers.

Dense layers lie in the root group (level 1) and in `level_2`, `level_4`, `level_8`, so that
`xarray.open_zarr(path)` shows them; a chunk is a tile, compressed with gzip, whose CRC-32 is their checksum and
which any GDAL from 3.11 on reads. Voxels and Gaussians lie in `voxels/level_N` and `splats/level_N` as ragged
arrays of shape (tiles north to south, tiles west to east, rows, ...): a tile's rows fill the first of its chunks,
the rest do not exist. `index` says how many rows each tile has. It is written last, one chunk a tile, and a tile
that it does not name is not there: that is the one atomic step in which a tile appears.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.job import LEVELS
from earthgen.levels import Tile, coarsen
from earthgen.voxels import Splats, Voxels
from geo_io.frame import Frame

FORMAT_VERSION = 1
"""Of the layout on disk. A store with a higher one is refused."""

ROWS = 2**26
"""Most voxels a tile can have; rows that are not written take no space."""

ROW_CHUNK = 2**16

DENSE = {
    "ground": ("float32", (), np.nan, "terrain height", "m"),
    "surface": ("float32", (), np.nan, "height of the topmost surface", "m"),
    "semantics": ("uint8", (), 0, "land class of the topmost surface", "1"),
    "rgb": ("uint8", (3,), 0, "colour of the topmost surface", "1"),
}
VOXELS = {"xyz": ("int32", (3,)), "semantic": ("uint8", ()), "faces": ("uint8", ()), "object": ("uint32", ())}
SPLATS = {
    "offset": ("float16", (3,)),
    "scale": ("float16", (2,)),
    "rotation": ("float16", (4,)),
    "opacity": ("float16", ()),
}


@dataclass(frozen=True)
class Store:
    """An open world on disk; `World` is the view of it for users."""

    path: Path
    root: Any
    frame: Frame
    tile_size: int

    # ---- the tile lattice -------------------------------------------------------------------------------

    @property
    def tiles_frame(self) -> Frame:
        """The frame of all tiles that the world meets: what the arrays cover."""
        t = self.tile_size
        return Frame(
            self.frame.crs, self.frame.voxel_size,
            (self.frame.x[0] // t * t, -(-self.frame.x[1] // t) * t),
            (self.frame.y[0] // t * t, -(-self.frame.y[1] // t) * t),
            self.frame.z, self.frame.vertical_crs,
        )  # fmt: skip

    def tile_frame(self, tx: int, ty: int, level: int = 1) -> Frame:
        """The part of a tile that lies in the world, at a level."""
        part = self.frame.tile(tx, ty, self.tile_size).intersection(self.frame)
        if part is None:
            raise StoreError(f"tile ({tx}, {ty}) does not lie in {self.path}", "`earthgen info` prints the extent")
        return part.coarsen(level) if level > 1 else part

    def _place(self, tx: int, ty: int) -> tuple[int, int]:
        """Row and column of a tile in the arrays."""
        whole = self.tiles_frame
        return whole.y[1] // self.tile_size - 1 - ty, tx - whole.x[0] // self.tile_size

    # ---- the index --------------------------------------------------------------------------------------

    def index(self) -> NDArray:
        """(tiles north to south, tiles west to east, 1 + levels) int64: done, then rows by level."""
        return np.asarray(self.root["index"][...])

    def done(self) -> list[tuple[int, int]]:
        """(tx, ty) of the finished tiles, row by row from the south-west."""
        index, whole = self.index(), self.tiles_frame
        rows, columns = np.nonzero(index[..., 0])
        found = zip(columns + whole.x[0] // self.tile_size, whole.y[1] // self.tile_size - 1 - rows, strict=True)
        return sorted(((int(tx), int(ty)) for tx, ty in found), key=lambda tile: (tile[1], tile[0]))

    # ---- writing and reading tiles ----------------------------------------------------------------------

    def write(self, tx: int, ty: int, tile: Tile) -> None:
        """Write a tile at all levels; it becomes visible when the last byte is there.

        Raises
        ------
        StoreFullError
            if the disk is full; the tiles written before stay valid
        """
        row, column = self._place(tx, ty)
        entry = [1]
        try:
            for level in LEVELS:
                if level > 1:
                    tile = coarsen(tile)
                self._write_dense(level, tx, ty, tile)
                voxels, splats = self.root[f"voxels/level_{level}"], self.root[f"splats/level_{level}"]
                for name in VOXELS:
                    _write_rows(voxels[name], row, column, getattr(tile.voxels, name))
                for name in (*SPLATS, "sh"):
                    _write_rows(splats[name], row, column, getattr(tile.splats, name))
                entry.append(len(tile.voxels))
            self.root["index"][row, column] = np.array(entry, np.int64)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def _write_dense(self, level: int, tx: int, ty: int, tile: Tile) -> None:
        group = self.root if level == 1 else self.root[f"level_{level}"]
        whole = self.tiles_frame.coarsen(level)
        chunk = whole.tile(tx, ty, self.tile_size // level)
        rows, columns = whole.slices(chunk)
        for name, (dtype, extra, fill, *_) in DENSE.items():
            data = np.full((*chunk.shape, *extra), fill, dtype)
            data[chunk.slices(tile.frame)] = getattr(tile, name)
            group[name][rows, columns] = data

    def read_dense(self, name: str, tx: int, ty: int, level: int = 1) -> NDArray:
        """A dense layer on `tile_frame(tx, ty, level)`."""
        group = self.root if level == 1 else self.root[f"level_{level}"]
        rows, columns = self.tiles_frame.coarsen(level).slices(self.tile_frame(tx, ty, level))
        return np.asarray(group[name][rows, columns])

    def read_voxels(self, tx: int, ty: int, level: int = 1, splats: bool = True) -> tuple[Voxels, Splats | None]:
        """The voxels of a tile and, unless not wanted, their Gaussians in float32."""
        row, column = self._place(tx, ty)
        count = int(self.root["index"][row, column, 1 + LEVELS.index(level)])
        group = self.root[f"voxels/level_{level}"]
        voxels = Voxels(
            self.tile_frame(tx, ty, level), *(_read_rows(group[name], row, column, count) for name in VOXELS)
        )
        if not splats:
            return voxels, None
        group = self.root[f"splats/level_{level}"]
        parts = [_read_rows(group[name], row, column, count).astype(np.float32) for name in (*SPLATS, "sh")]
        return voxels, Splats(*parts)


def _write_rows(array: Any, row: int, column: int, data: NDArray) -> None:
    """Fill whole chunks, so that nothing that an earlier, broken-off write left is ever read back."""
    if len(data) > ROWS:
        raise StoreError(f"a tile has {len(data):,} voxels, more than {ROWS:,}", "use a smaller --tile-size")
    if not len(data):
        return
    filled = -(-len(data) // ROW_CHUNK) * ROW_CHUNK
    padded = np.zeros((filled, *array.shape[3:]), array.dtype)
    padded[: len(data)] = data.reshape(len(data), *array.shape[3:])
    array[row, column, :filled] = padded


def _read_rows(array: Any, row: int, column: int, count: int) -> NDArray:
    if not count:
        return np.empty((0, *array.shape[3:]), array.dtype)
    return np.asarray(array[row, column, :count])


def disk_error(error: OSError, path: Path) -> StoreError:
    """The error that says what an OSError means for a world."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the disk of {path} is full; the tiles written so far are valid", "free space and --resume"
        )
    return StoreError(f"{path} cannot be written: {error.strerror or error}", "check the folder and --resume")


# ---- making and opening ---------------------------------------------------------------------------------


def create_store(
    path: str | Path, frame: Frame, tile_size: int, attributes: Mapping[str, Any], sh_degree: int = 0
) -> Store:
    """An empty world.

    attributes : JSON values kept in the root group under "earthgen": identity, provenance, settings

    Raises
    ------
    StoreExistsError
        if there is something at `path`
    StoreError
        if nothing can be written there
    """
    path = Path(path)
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        raise StoreExistsError(f"{path} exists already", "give --overwrite, --resume, or another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        root = zarr.open_group(str(path), mode="w", zarr_format=3)
        store = Store(path, root, frame, tile_size)
        _create_arrays(store, sh_degree)
        # The attributes come last: a store without them was broken off while it was being made.
        root.attrs["earthgen"] = {
            "format_version": FORMAT_VERSION, "frame": frame.to_dict(), "tile_size": tile_size,
            "levels": list(LEVELS), **attributes,
        }  # fmt: skip
    except OSError as error:
        raise disk_error(error, path) from error
    return store


def _create_arrays(store: Store, sh_degree: int) -> None:
    root, whole, tile = store.root, store.tiles_frame, store.tile_size
    grid = (whole.ny // tile, whole.nx // tile)
    root.create_array(
        "index", shape=(*grid, 1 + len(LEVELS)), chunks=(1, 1, 1 + len(LEVELS)), dtype="int64",
        compressors=[Crc32cCodec()], fill_value=0, dimension_names=("tile_y", "tile_x", "entry"),
    )  # fmt: skip
    ragged = [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()]
    for level in LEVELS:
        group = root if level == 1 else root.create_group(f"level_{level}")
        _create_dense(group, whole.coarsen(level), tile // level)
        arrays = {f"voxels/level_{level}/{name}": spec for name, spec in VOXELS.items()}
        arrays |= {f"splats/level_{level}/{name}": spec for name, spec in SPLATS.items()}
        arrays[f"splats/level_{level}/sh"] = ("float16", ((sh_degree + 1) ** 2, 3))
        for name, (dtype, extra) in arrays.items():
            root.create_array(
                name, shape=(*grid, ROWS, *extra), chunks=(1, 1, ROW_CHUNK, *extra), dtype=dtype,
                compressors=ragged, fill_value=0,
            )  # fmt: skip


def _create_dense(group: Any, frame: Frame, chunk: int) -> None:
    import pyproj

    s = frame.voxel_size
    bands: tuple[str, ...]
    for name, (dtype, extra, fill, title, unit) in DENSE.items():
        bands = ("band",) * len(extra)
        array = group.create_array(
            name, shape=(*frame.shape, *extra), chunks=(chunk, chunk, *extra), dtype=dtype,
            compressors=[GzipCodec(level=4)], fill_value=fill, dimension_names=("y", "x", *bands),
        )  # fmt: skip
        array.attrs.update({"long_name": title, "units": unit, "grid_mapping": "spatial_ref"})
        if unit == "m":
            array.attrs["vertical_crs"] = frame.vertical_crs
    for axis, values in (
        ("x", (np.arange(frame.x[0], frame.x[1]) + 0.5) * s),
        ("y", (np.arange(frame.y[1], frame.y[0], -1) - 0.5) * s),
    ):
        array = group.create_array(
            axis, shape=values.shape, chunks=values.shape, dtype="float64",
            compressors=[GzipCodec(level=4)], dimension_names=(axis,),
        )  # fmt: skip
        array[:] = values
        array.attrs.update({"units": "m", "standard_name": f"projection_{axis}_coordinate"})
    reference = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)
    a = frame.transform
    wkt = pyproj.CRS.from_user_input(frame.crs).to_wkt()
    reference.attrs.update({
        "crs_wkt": wkt, "spatial_ref": wkt,
        "GeoTransform": f"{a.c!r} {a.a!r} {a.b!r} {a.f!r} {a.d!r} {a.e!r}",
    })  # fmt: skip


def open_store(path: str | Path, mode: Literal["r", "r+"] = "r") -> Store:
    """Open a world on disk.

    Raises
    ------
    StoreError
        if it is not there, is no world, or was written by a newer version
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"world {path} does not exist", "make it with `earthgen generate ... --out`")
    try:
        root = zarr.open_group(str(path), mode=mode, zarr_format=3)
        attributes: Any = root.attrs.get("earthgen")
    except (OSError, KeyError, ValueError, json.JSONDecodeError) as error:
        raise StoreError(
            f"{path} is not an earthgen world: {error}", "name a world made by `earthgen generate`"
        ) from error
    if attributes is None:
        raise StoreError(
            f"{path} is not an earthgen world, or was broken off while it was made",
            "generate it again with --overwrite",
        )
    if attributes["format_version"] > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {attributes['format_version']}, this earthgen reads up to {FORMAT_VERSION}",
            "update earthgen",
        )
    return Store(path, root, Frame.from_dict(attributes["frame"]), attributes["tile_size"])
