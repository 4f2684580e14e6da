"""A scene on disk: one Zarr v3 group with the columns and the surface voxels of a place. See
docs/guides/datasets.md.

Columns are dense (ny, nx) arrays. Voxels are rows sorted by blocks of `BLOCK` x `BLOCK` columns
(north-west first, row by row), and by (y, x, z) within a block; `blocks` says where the rows of
each begin. A window reads the rows of the blocks that it meets, which lie together. Arrays are
sharded: a scene is some dozen files.

A scene is written beside its place and moved there when it is whole.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from earthgen.dataset.crop import CELL, Crop, require_cells
from earthgen.errors import JobError, StoreError, StoreExistsError
from earthgen.files import PARTIAL, disk_error
from earthgen.stages.block import column_order, within
from geo_io.errors import FrameError
from geo_io.frame import Frame

FORMAT_VERSION = 1
SUFFIX = ".zarr"
KEY = "earthgen_scene"
"""The attribute of the group that holds `SceneInfo`."""

GRADES = ("A", "B", "C")
"""Of licences: A stated for the data, B stated for the repository or known of the owner's data,
C inferred."""

READ_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError)
"""What zarr raises for a damaged array or group."""

BLOCK = 64
"""Columns along an edge of the blocks by which voxels are sorted."""

SHARD = 512
"""Columns along an edge of an object of a dense array."""

ROW_CHUNK, ROW_SHARD = 2**14, 2**20
"""Rows of voxels that are compressed together, and rows in an object."""

NORMAL_SCALE = 127
"""Normals are kept as int8: an error of less than half a degree."""

DENSE = {
    "ground": ("float32", (), "m", "height of the terrain"),
    "height": ("float32", (), "m", "top of the solid above the ground"),
    "cover": ("uint8", (), "1", "land class seen from above"),
    "image": ("uint8", (3,), "1", "colour seen from above, sRGB"),
    "image_known": ("bool", (), "1", "where the colour was seen"),
    "valid": ("bool", (), "1", "where the scene has data"),
}
VOXELS = {
    "xyz": ("int32", (3,)),
    "semantic": ("uint8", ()),
    "normal": ("int8", (3,)),
    "rgb": ("uint8", (3,)),
    "rgb_known": ("bool", ()),
}


@dataclass(frozen=True)
class SceneInfo:
    """What a scene is.

    Attributes
    ----------
    name : of the scene, and of its folder
    frame : where it is; its ranges are multiples of 8 voxels
    place : the name of the place
    source, licence, grade : where the data come from, under which licence, and how sure that is
        (`GRADES`)
    inputs : role, name and digest of each file
    kind : "real" or "simulated"
    held_out : bounds in CRS metres (left, bottom, right, top) of what must not be trained on; whole
        scene or parts
    settings : how it was built
    quality : figures of `earthgen.dataset.builders.quality`
    """

    name: str
    frame: Frame
    place: str
    source: str
    licence: str
    grade: str
    inputs: tuple[Mapping[str, str], ...] = ()
    kind: str = "real"
    held_out: tuple[tuple[float, float, float, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "frame": self.frame.to_dict(),
            "place": self.place,
            "source": self.source,
            "licence": self.licence,
            "grade": self.grade,
            "inputs": [dict(item) for item in self.inputs],
            "kind": self.kind,
            "held_out": [list(bounds) for bounds in self.held_out],
            "settings": dict(self.settings),
            "quality": dict(self.quality),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SceneInfo:
        return cls(
            values["name"],
            Frame.from_dict(values["frame"]),
            values["place"],
            values["source"],
            values["licence"],
            values["grade"],
            tuple(values["inputs"]),
            values["kind"],
            tuple(map(tuple, values["held_out"])),
            values["settings"],
            values["quality"],
        )


def check_licence(name: str, licence: str, grade: str) -> None:
    """Raise JobError where a scene does not say its licence, or the grade is none."""
    if not licence.strip():
        raise JobError(f"scene {name} has no licence", "say it: licence = 'CC0-1.0'")
    if grade not in GRADES:
        raise JobError(
            f"the licence grade {grade!r} of scene {name} is none",
            "give A (stated for the data), B (stated for the repository) or C (inferred)",
        )


@dataclass(frozen=True)
class Scene:
    """An open scene. `crop` reads a window; `loaded` gives a copy in memory, which is quicker."""

    path: Path
    info: SceneInfo
    blocks: NDArray
    """(blocks north to south, blocks west to east + 1) int64: the first row of each block; the
    last column is the end of the row of blocks."""
    arrays: Mapping[str, Any] = field(repr=False)
    """Arrays of Zarr, or of numpy."""

    @property
    def frame(self) -> Frame:
        return self.info.frame

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.blocks[-1, -1])

    def layer(self, name: str, window: Frame | None = None) -> NDArray:
        """A dense array on a window inside the scene; all of it unless a window is given.

        Raises
        ------
        StoreError
            if it is damaged
        """
        place = ... if window is None else self.frame.slices(window)
        return self._read(name, place)

    def crop(self, window: Frame) -> Crop:
        """A window of the scene; what lies outside is not valid.

        window : its ranges are multiples of 8 voxels, its z range at most the scene's

        Raises
        ------
        CropError, FrameError
            if the window lies on another lattice, or its ranges are no multiples of 8
        StoreError
            if the scene is damaged
        """
        require_cells(window)
        frame = self.frame
        inner = frame.intersection(window)
        columns: dict[str, NDArray] = {}
        for name, (dtype, extra, _, _) in DENSE.items():
            values = np.zeros((*window.shape, *extra), dtype)
            if inner is not None:
                values[window.slices(inner)] = self.layer(name, inner)
            columns[name] = values
        rows = (
            self._rows(inner)
            if inner is not None
            else {name: self._read(name, slice(0, 0)) for name in VOXELS}
        )
        keep = within(rows["xyz"], window)
        keep &= (rows["xyz"][:, 2] >= window.z[0]) & (rows["xyz"][:, 2] < window.z[1])
        rows = {name: values[keep] for name, values in rows.items()}
        order = column_order(rows["xyz"])
        normal = rows["normal"][order].astype(np.float32)
        normal /= np.maximum(np.sqrt((normal * normal).sum(axis=1, keepdims=True)), 1.0)
        return Crop(
            replace(window, vertical_crs=frame.vertical_crs),
            np.ascontiguousarray(rows["xyz"][order]),
            rows["semantic"][order],
            normal,
            rows["rgb"][order],
            rows["rgb_known"][order],
            **columns,
        )

    def loaded(self) -> Scene:
        """The scene with all arrays in memory."""
        return replace(self, arrays={name: self._read(name, ...) for name in self.arrays})

    def _rows(self, inner: Frame) -> dict[str, NDArray]:
        """The rows of the blocks that a window meets."""
        first_x, last_x = ((x - self.frame.x[0]) // BLOCK for x in (inner.x[0], inner.x[1] - 1))
        first_y, last_y = ((self.frame.y[1] - 1 - y) // BLOCK for y in (inner.y[1] - 1, inner.y[0]))
        runs = [
            (int(self.blocks[row, first_x]), int(self.blocks[row, last_x + 1]))
            for row in range(first_y, last_y + 1)
        ]
        return {
            name: np.concatenate([self._read(name, slice(*run)) for run in runs]) for name in VOXELS
        }

    def _read(self, name: str, place: Any) -> NDArray:
        try:
            return np.asarray(self.arrays[name][place])
        except READ_ERRORS as error:
            raise StoreError(
                f"scene {self.path} is damaged: {name} cannot be read: {error}", "build it again"
            ) from error


@dataclass(frozen=True)
class SceneData:
    """A scene in memory, before it is written: the columns on a frame, and the voxels of blocks in
    their order.

    rows : by the names of `VOXELS`; normals float32
    blocks : as of `Scene`
    """

    frame: Frame
    columns: Mapping[str, NDArray]
    rows: Mapping[str, NDArray]
    blocks: NDArray


def write_scene(
    folder: str | Path, info: SceneInfo, data: SceneData, *, overwrite: bool = False
) -> Scene:
    """Write a scene as `folder`/NAME.zarr; it appears whole or not at all.

    Raises
    ------
    StoreExistsError
        if it exists and is not to be overwritten
    JobError
        if it does not say its licence
    StoreError
        if it cannot be written
    """
    check_licence(info.name, info.licence, info.grade)
    for axis in ("x", "y", "z"):
        low, high = getattr(info.frame, axis)
        if low % CELL or high % CELL:
            raise FrameError(
                f"the {axis} range of scene {info.name} is no multiple of {CELL} voxels",
                "snap it outwards",
            )
    path = Path(folder) / f"{info.name}{SUFFIX}"
    if path.exists() and not overwrite:
        raise StoreExistsError(f"{path} exists already", "give --overwrite, or another --out")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        part.mkdir(parents=True)
        _write(part, info, data)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
            path.rename(old)
            part.rename(path)
            shutil.rmtree(old)
        else:
            part.rename(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return open_scene(path)


def _write(path: Path, info: SceneInfo, data: SceneData) -> None:
    root = zarr.open_group(path, mode="w", zarr_format=3)
    codecs = [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()]
    # One edge for all dense arrays of a scene: a small scene is one chunk a file, a large one is
    # sharded.
    shard = min(SHARD, -(-max(data.frame.shape) // BLOCK) * BLOCK)
    for name, (dtype, extra, unit, title) in DENSE.items():
        array = root.create_array(
            name,
            shape=(*data.frame.shape, *extra),
            chunks=(BLOCK, BLOCK, *extra),
            shards=(shard, shard, *extra),
            dtype=dtype,
            compressors=codecs,
            fill_value=0,
            dimension_names=("y", "x", *["band"] * len(extra)),
        )
        array[...] = data.columns[name].astype(dtype)
        array.attrs.update({"units": unit, "long_name": title})
    count = len(data.rows["xyz"])
    group = root.create_group("voxels")
    for name, (dtype, extra) in VOXELS.items():
        array = group.create_array(
            name,
            shape=(count, *extra),
            chunks=(ROW_CHUNK, *extra),
            shards=(ROW_SHARD, *extra),
            dtype=dtype,
            compressors=codecs,
            fill_value=0,
        )
        values = data.rows[name]
        array[...] = (
            np.round(values * NORMAL_SCALE).astype(dtype)
            if name == "normal"
            else values.astype(dtype)
        )
    index = group.create_array(
        "blocks",
        shape=data.blocks.shape,
        chunks=data.blocks.shape,
        dtype="int64",
        compressors=codecs,
        fill_value=0,
    )
    index[...] = data.blocks
    root.attrs[KEY] = info.to_dict()


def set_info(path: Path, info: SceneInfo) -> None:
    """Replace what a scene says of itself, in one step."""
    root = zarr.open_group(path, mode="r+", zarr_format=3)
    root.attrs[KEY] = info.to_dict()


def open_scene(path: str | Path) -> Scene:
    """Open a scene for reading.

    Raises
    ------
    StoreError
        if it is not there, is no scene, is damaged, or has another format version
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"scene {path} does not exist", "make it with `earthgen dataset build`")
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
        values = root.attrs.get(KEY)
    except READ_ERRORS as error:
        raise StoreError(f"{path} cannot be read as a scene: {error}", "build it again") from error
    if not isinstance(values, Mapping):
        raise StoreError(f"{path} is no scene", "name a folder made by `earthgen dataset build`")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this earthgen reads {FORMAT_VERSION}",
            "build the scene again",
        )
    try:
        info = SceneInfo.from_dict(values)
        arrays: dict[str, Any] = {name: root[name] for name in DENSE}
        arrays |= {name: root[f"voxels/{name}"] for name in VOXELS}
        blocks = np.asarray(_whole(root["voxels/blocks"]))
    except READ_ERRORS as error:
        raise StoreError(f"scene {path} is damaged: {error}", "build it again") from error
    return Scene(path, info, blocks, arrays)


def _whole(array: Any) -> NDArray:
    return np.asarray(array[...])


def scenes_in(folder: str | Path) -> list[Scene]:
    """The scenes of a dataset's folder, by name.

    Raises
    ------
    StoreError
        if there is none
    """
    folder = Path(folder)
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not found:
        raise StoreError(
            f"there is no scene in {folder}", "make one with `earthgen dataset build --out`"
        )
    return [open_scene(path) for path in found]
