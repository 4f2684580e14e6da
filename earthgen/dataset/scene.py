"""Scenes on disk: one Zarr v3 group with the columns and surface voxels of a place. The format is
described in docs/guides/datasets.md.

Columns are dense (ny, nx) arrays. Voxels are rows sorted by blocks of `BLOCK` x `BLOCK` columns
(north-west first, row by row), and by (y, x, z) within a block; `blocks` has the first row of each
block. A window reads the rows of the blocks that it meets, which lie together. Arrays are sharded,
so a scene is some dozen files. A scene is written to a temporary folder and renamed when complete.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from earthgen.dataset.crop import CELL, Crop, require_cells
from earthgen.errors import JobError, StoreError, StoreExistsError
from earthgen.stages.block import column_order, within
from earthgen.staging import put_back, real_place, replace_folder, staging_folder
from earthgen.world.bounded_codecs import bounded_codecs, has_bounded_codecs
from earthgen.world.local_store import GuardedStore
from geo_io.errors import FrameError
from geo_io.frame import Frame
from geo_io.safety.names import require_name

FORMAT_VERSION = 2
"""Version 2 added the map, buildings and objects."""

SUFFIX = ".zarr"
KEY = "earthgen_scene"
"""Attribute of the group that holds the `SceneInfo`."""

GRADES = ("A", "B", "C")
"""How sure a licence is: A stated for the data, B stated for the repository or for the owner's data
in general, C inferred."""

CHUNK_BYTES = 2**26
"""Size of a chunk of a scene, at most."""

READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)
"""Errors that zarr raises for a damaged array or group."""

BLOCK = 64
"""Edge of the blocks by which voxels are sorted, columns."""

SHARD = 512
"""Edge of a shard of a dense array, columns."""

ROW_CHUNK, ROW_SHARD = 2**14, 2**20
"""Number of voxels in a chunk, and in a shard."""

NORMAL_SCALE = 127
"""Factor of normals stored as int8, which keeps their error below half a degree."""

DENSE = {
    "ground": ("float32", (), "m", "height of the terrain"),
    "height": ("float32", (), "m", "top of the solid above the ground"),
    "cover": ("uint8", (), "1", "land class seen from above"),
    "image": ("uint8", (3,), "1", "colour seen from above, sRGB"),
    "image_known": ("bool", (), "1", "where the colour was seen"),
    "valid": ("bool", (), "1", "where the scene has data"),
    "map": ("uint8", (), "1", "land class as a map has it"),
    "building": ("uint32", (), "1", "number of the building, 0 for none"),
    "building_height": ("float32", (), "m", "height of the building as a map has it"),
    "building_axes": ("float16", (4,), "m", "place along the axes of the building"),
}
"""dtype, shape of a cell, unit and title of each dense array."""

VOXELS = {
    "xyz": ("int32", (3,)),
    "semantic": ("uint8", ()),
    "normal": ("int8", (3,)),
    "rgb": ("uint8", (3,)),
    "rgb_known": ("bool", ()),
    "object": ("uint32", ()),
}
"""dtype and shape of a row of each array of voxels."""


@dataclass(frozen=True)
class SceneInfo:
    """The description of a scene.

    Attributes
    ----------
    name : str
        Name of the scene, and of its folder.
    frame : Frame
        Place of the scene; its ranges are multiples of 8 voxels.
    place : str
        Name of the place, for people.
    source, licence, grade : str
        Origin of the data, their licence, and how sure that is (`GRADES`).
    inputs : tuple[Mapping[str, str], ...]
        Role, name and digest of each file.
    kind : str
        "real" or "simulated".
    resolution : float | None
        Distance of independent heights in the source, metres; None for that of the voxels.
    colour_resolution : float | None
        The same of its colours.
    held_out : tuple[tuple[float, float, float, float], ...]
        Bounds (left, bottom, right, top) in metres of the CRS that must not be trained on.
    settings : mapping
        How the scene was built.
    quality : mapping
        Figures from `earthgen.dataset.builders.quality`.
    """

    name: str
    frame: Frame
    place: str
    source: str
    licence: str
    grade: str
    inputs: tuple[Mapping[str, str], ...] = ()
    kind: str = "real"
    resolution: float | None = None
    colour_resolution: float | None = None
    held_out: tuple[tuple[float, float, float, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    def native(self, of: Literal["heights", "colours"] = "heights") -> float:
        """Return the distance of independent heights, or colours, in the source, metres."""
        own = self.resolution if of == "heights" else self.colour_resolution
        return self.frame.voxel_size if own is None else own

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON values."""
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
            "resolution": self.resolution,
            "colour_resolution": self.colour_resolution,
            "held_out": [list(bounds) for bounds in self.held_out],
            "settings": dict(self.settings),
            "quality": dict(self.quality),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SceneInfo:
        """Make a description from what `to_dict` returned."""
        return cls(
            name=values["name"],
            frame=Frame.from_dict(values["frame"]),
            place=values["place"],
            source=values["source"],
            licence=values["licence"],
            grade=values["grade"],
            inputs=tuple(values["inputs"]),
            kind=values["kind"],
            resolution=values.get("resolution"),  # scenes from before have none
            colour_resolution=values.get("colour_resolution"),
            held_out=tuple(map(tuple, values["held_out"])),
            settings=values["settings"],
            quality=values["quality"],
        )


def check_licence(name: str, licence: str, grade: str) -> None:
    """Check that a scene has a licence and a valid grade of it.

    Raises
    ------
    JobError
        if it has not
    """
    if not licence.strip():
        raise JobError(f"scene {name} has no licence", "give one, such as licence = 'CC0-1.0'")
    if grade not in GRADES:
        raise JobError(
            f"unknown licence grade {grade!r} of scene {name}",
            "give A (stated for the data), B (stated for the repository) or C (inferred)",
        )


@dataclass(frozen=True)
class Scene:
    """An open scene. `crop` reads a window; `loaded` returns a copy in memory, which is faster.

    Attributes
    ----------
    path : Path
        Its folder.
    info : SceneInfo
        Its description.
    blocks : NDArray (blocks north to south, blocks west to east + 1) int64
        First row of each block; the last column is the end of the row of blocks.
    arrays : mapping
        Zarr or numpy arrays by name.
    """

    path: Path
    info: SceneInfo
    blocks: NDArray
    arrays: Mapping[str, Any] = field(repr=False)

    @property
    def frame(self) -> Frame:
        """Place of the scene."""
        return self.info.frame

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.blocks[-1, -1])

    def layer(self, name: str, window: Frame | None = None) -> NDArray:
        """Read a dense array.

        Parameters
        ----------
        name : str
            One of the keys of `DENSE`.
        window : Frame | None
            A window inside the scene; by default all of it.

        Returns
        -------
        NDArray (ny, nx) or (ny, nx, 3)
            With the dtype of `DENSE`.

        Raises
        ------
        StoreError
            if it is damaged
        """
        return self._read(name, ... if window is None else self.frame.slices(window))

    def crop(self, window: Frame) -> Crop:
        """Read a window of the scene. Columns outside the scene are not valid.

        Parameters
        ----------
        window : Frame
            Ranges are multiples of 8 voxels; the z range lies within that of the scene.

        Raises
        ------
        CropError, FrameError
            if the window lies on another lattice, or its ranges are not multiples of 8
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
            rows["object"][order],
            **columns,
            kind=self.info.kind,
        )

    def loaded(self) -> Scene:
        """Return the scene with all arrays in memory."""
        return replace(self, arrays={name: self._read(name, ...) for name in self.arrays})

    def _rows(self, inner: Frame) -> dict[str, NDArray]:
        """Read the rows of the blocks that a window meets."""
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
    """A scene in memory, before it is written.

    Attributes
    ----------
    frame : Frame
        Place of the scene.
    columns : Mapping[str, NDArray]
        Dense arrays on the frame, with the keys of `DENSE`.
    rows : Mapping[str, NDArray]
        Arrays of voxels in the order of blocks, with the keys of `VOXELS`; normals are float32.
    blocks : NDArray
        As in `Scene`.
    """

    frame: Frame
    columns: Mapping[str, NDArray]
    rows: Mapping[str, NDArray]
    blocks: NDArray


def write_scene(
    folder: str | Path, info: SceneInfo, data: SceneData, *, overwrite: bool = False
) -> Scene:
    """Write a scene as `folder`/NAME.zarr. It appears complete or not at all.

    Parameters
    ----------
    folder : str | Path
        Folder of the dataset.
    info : SceneInfo
        Its description.
    data : SceneData
        Its arrays.
    overwrite : bool
        Whether an existing scene is replaced.

    Raises
    ------
    StoreExistsError
        if the scene exists and is not to be overwritten
    JobError
        if its licence is missing
    FrameError
        if a range of its frame is not a multiple of 8 voxels
    StoreError
        if it cannot be written
    """
    check_licence(info.name, info.licence, info.grade)
    for axis in ("x", "y", "z"):
        low, high = getattr(info.frame, axis)
        if low % CELL or high % CELL:
            raise FrameError(
                f"the {axis} range of scene {info.name} is not a multiple of {CELL} voxels",
                "snap it outwards",
            )
    path = Path(folder) / f"{info.name}{SUFFIX}"
    if path.exists() and not overwrite:
        raise StoreExistsError(f"{path} exists already", "give --overwrite, or another --out")
    require_scene_or_nothing(path)
    place = real_place(path)
    with staging_folder(place, beside=True) as part:
        put_back(place)
        whole = part / path.name
        _write(whole, info, data)
        replace_folder(whole, place)
    return open_scene(path)


def require_scene_or_nothing(path: Path) -> None:
    """Check that what lies at a path, links followed, may be overwritten by a scene: a scene, also
    a damaged one, or nothing. A dataset of a stranger may hold a link to anything.

    Raises
    ------
    StoreExistsError
        If it is something else.
    """
    if path.is_dir():
        about = path / "zarr.json"
        replaceable = not any(path.iterdir()) or (
            about.is_file() and KEY in about.read_text("utf-8", errors="replace")
        )
    else:
        replaceable = not path.exists()
    if not replaceable:
        raise StoreExistsError(
            f"{path} exists and is not a scene", "remove it, or give another --out"
        )


def _write(path: Path, info: SceneInfo, data: SceneData) -> None:
    root = zarr.open_group(path, mode="w", zarr_format=3)
    codecs = [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()]
    # All dense arrays of a scene have one shard size; a small scene is one file per array.
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


def open_scene(path: str | Path) -> Scene:
    """Open a scene for reading.

    Raises
    ------
    StoreError
        if it does not exist, is not a scene, is damaged, or has another format version
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"scene {path} does not exist", "make it with `earthgen dataset build`")
    try:
        # What is consolidated may say something else than the arrays themselves.
        store = GuardedStore(path, read_only=True)
        root = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        values = root.attrs.get(KEY)
    except StoreError:
        raise
    except READ_ERRORS as error:
        raise StoreError(f"{path} cannot be read as a scene: {error}", "build it again") from error
    if not isinstance(values, Mapping):
        raise StoreError(f"{path} is not a scene", "give a folder from `earthgen dataset build`")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this earthgen reads {FORMAT_VERSION}",
            "build the scene again",
        )
    try:
        info = SceneInfo.from_dict(values)
        with bounded_codecs():
            arrays: dict[str, Any] = {name: root[name] for name in DENSE}
            arrays |= {name: root[f"voxels/{name}"] for name in VOXELS}
            index: Any = root["voxels/blocks"]
        for name, array in {**arrays, "voxels/blocks": index}.items():
            _require_bounds(name, array)
        blocks = _blocks(index, info.frame)
        _require_shapes(info.frame, arrays, int(blocks[-1, -1]))
        require_name(info.name, "scene", str(path))
    except READ_ERRORS as error:
        raise StoreError(f"scene {path} is damaged: {error}", "build it again") from error
    return Scene(path, info, blocks, arrays)


def _require_bounds(name: str, array: Any) -> None:
    """Raise ValueError if an array has codecs or chunks that no scene is written with: a chunk is
    allocated whole."""
    size = math.prod(array.chunks) * array.dtype.itemsize
    if not has_bounded_codecs(array) or size > CHUNK_BYTES:
        raise ValueError(f"{name} has chunks of {size:,} bytes, or codecs that no scene has")


def _blocks(index: Any, frame: Frame) -> NDArray:
    """Return the first rows of blocks; ValueError if they are not those of the frame."""
    shape = -(-frame.ny // BLOCK), -(-frame.nx // BLOCK) + 1
    if index.shape != shape:
        raise ValueError(f"voxels/blocks has the shape {index.shape}, not {shape}")
    blocks = np.asarray(index[...])
    flat = blocks.ravel()
    if blocks.dtype.kind != "i" or flat[0] < 0 or (np.diff(flat) < 0).any():
        raise ValueError("voxels/blocks does not count up")
    return blocks


def _require_shapes(frame: Frame, arrays: Mapping[str, Any], rows: int) -> None:
    """Raise ValueError if arrays do not have the shapes that the frame and the blocks say."""
    for name, (_, extra, *_) in DENSE.items():
        if arrays[name].shape != (*frame.shape, *extra):
            raise ValueError(f"{name} has the shape {arrays[name].shape} on {frame}")
    for name, (_, extra) in VOXELS.items():
        if arrays[name].shape != (rows, *extra):
            raise ValueError(f"voxels/{name} has the shape {arrays[name].shape}, not {rows} rows")


def scenes_in(folder: str | Path) -> list[Scene]:
    """Open the scenes in a folder, in the order of their names.

    Raises
    ------
    StoreError
        if there is none
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))
    if not paths:
        raise StoreError(
            f"there is no scene in {folder}", "make one with `earthgen dataset build --out`"
        )
    return [open_scene(path) for path in paths]
