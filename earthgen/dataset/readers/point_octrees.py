"""Point clouds as octrees on disk: EPT (https://entwine.io/entwine-point-tile.html) and Potree 1.x
and 2.x (https://github.com/potree/PotreeConverter).

Every point lies in exactly one node of these trees, so all nodes together are the cloud. Counts and
places that a file declares are checked against the sizes of the files before anything is allocated.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import InputError, MissingFileError
from geo_io.safety.damage import damaged_file

NAMES = ("ept.json", "metadata.json", "cloud.js")
"""Files that describe an octree: of EPT, Potree 2 and Potree 1."""

Arrays = tuple[NDArray, NDArray, NDArray, NDArray | None, NDArray]
"""Places, classes, intensity, colours, and numbers of returns of points."""

NODE = struct.Struct("<BBIQQ")
"""A node in hierarchy.bin of Potree 2: type, mask of children, points, first byte, bytes."""

PROXY = 2
"""Type of a node that stands for another part of hierarchy.bin."""

KEY = re.compile(r"\d+-\d+-\d+-\d+")

TYPES = {
    "int8": "<i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "uint8": "<u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "float": "<f4",
    "double": "<f8",
}

POTREE_1 = {
    "POSITION_CARTESIAN": "(3,)<u4",
    "COLOR_PACKED": "(4,)<u1",
    "RGB_PACKED": "(3,)<u1",
    "RGBA_PACKED": "(4,)<u1",
    "INTENSITY": "<u2",
    "CLASSIFICATION": "<u1",
}
"""Attributes of Potree 1 that are used. Others are skipped by their size."""

POTREE_1_SIZES = {
    "NORMAL": 12,
    "NORMAL_FLOATS": 12,
    "NORMAL_SPHEREMAPPED": 2,
    "NORMAL_OCT16": 2,
    "RETURN_NUMBER": 1,
    "NUMBER_OF_RETURNS": 1,
    "SOURCE_ID": 2,
    "INDICES": 4,
    "SPACING": 4,
    "GPS_TIME": 8,
}


@dataclass(frozen=True)
class Octree:
    """The points of an octree.

    Attributes
    ----------
    crs : str | None
        Its CRS as text, None if it does not say any.
    parts : list of (xyz, classification, intensity, rgb)
        (n, 3) float64 in units of the CRS, (n,) uint8, (n,) float32, (n, 3) uint16 or None.
    """

    crs: str | None
    parts: list[Arrays]


def find_octree(path: Path) -> Path | None:
    """Return the file that describes an octree, if the path is one or the folder of one."""
    if path.is_dir():
        return next((path / name for name in NAMES if (path / name).is_file()), None)
    return path if path.name in NAMES else None


def read_octree(path: Path, read_las: Callable[[Path], Arrays]) -> Octree:
    """Read all points of an octree.

    Parameters
    ----------
    path : Path
        One of `NAMES`.
    read_las : Callable[[Path], Arrays]
        Reads a LAS or LAZ file, of which some octrees consist.

    Raises
    ------
    InputError
        if it is damaged, declares more points than its files hold, or has an encoding that is not
        read
    MissingFileError
        if a file of it is missing
    """
    with damaged_file(f"{path} is a damaged octree of points", "fetch it again"):
        document = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        if path.name == "ept.json":
            return Octree(_ept_crs(document), list(_ept(path, document, read_las)))
        if path.name == "metadata.json":
            return Octree(_text(document.get("projection")), list(_potree_2(path, document)))
        return Octree(_text(document.get("projection")), list(_potree_1(path, document, read_las)))


def _ept(
    path: Path, document: Mapping[str, Any], read_las: Callable[[Path], Arrays]
) -> Iterator[Arrays]:
    kind = document["dataType"]
    if kind not in ("laszip", "binary"):
        raise InputError(
            f"{path} stores its points as {str(kind)[:40]!r}, which is not read",
            "write it again as laszip or binary, for example with entwine",
        )
    fields = [(str(field["name"]), _ept_type(field), field) for field in document.get("schema", [])]
    layout = np.dtype([(name, dtype) for name, dtype, _ in fields])
    for key, count in _ept_nodes(path.parent).items():
        if count == 0:
            continue
        file = path.parent / "ept-data" / f"{key}.{'laz' if kind == 'laszip' else 'bin'}"
        size = _size(file, path)
        if kind == "laszip":
            part = read_las(file)
            if len(part[0]) != count:
                raise ValueError(f"node {key} holds {len(part[0]):,} of {count:,} points")
            yield part
            continue
        if size != count * layout.itemsize:
            raise ValueError(
                f"node {key} of {count:,} points of {layout.itemsize} bytes has {size:,} bytes"
            )
        raw = np.fromfile(file, layout)
        xyz = np.column_stack(
            [
                raw[name] * float(field.get("scale", 1)) + float(field.get("offset", 0))
                for name, _, field in sorted(fields)
                if name in ("X", "Y", "Z")
            ]
        )
        names = layout.names or ()
        rgb = (
            np.column_stack([raw[name] for name in ("Red", "Green", "Blue")])
            if {"Red", "Green", "Blue"} <= set(names)
            else None
        )
        yield _arrays(
            xyz,
            raw["Classification"] if "Classification" in names else None,
            raw["Intensity"] if "Intensity" in names else None,
            rgb,
        )


def _ept_nodes(folder: Path) -> dict[str, int]:
    """Return the number of points by node."""
    nodes: dict[str, int] = {}
    seen: set[str] = set()
    waiting = ["0-0-0-0"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            raise ValueError(f"the hierarchy refers to {name} twice")
        seen.add(name)
        file = folder / "ept-hierarchy" / f"{name}.json"
        _size(file, folder)
        for key, count in json.loads(file.read_text("utf-8")).items():
            if not KEY.fullmatch(key) or not isinstance(count, int) or count < -1:
                raise ValueError(f"the node {key[:40]!r}: {count!r} of {name}.json")
            if count == -1:
                waiting.append(key)
            elif nodes.setdefault(key, count) != count:
                raise ValueError(f"node {key} has two numbers of points")
    return nodes


def _ept_type(field: Mapping[str, Any]) -> str:
    letter = {"signed": "i", "unsigned": "u", "float": "f"}[field["type"]]
    return f"<{letter}{int(field['size'])}"


def _ept_crs(document: Mapping[str, Any]) -> str | None:
    srs = document.get("srs") or {}
    if srs.get("wkt"):
        return str(srs["wkt"])
    if not srs.get("horizontal"):
        return None
    code = f"{srs.get('authority', 'EPSG')}:{srs['horizontal']}"
    return f"{code}+{srs['vertical']}" if srs.get("vertical") else code


def _potree_2(path: Path, document: Mapping[str, Any]) -> Iterator[Arrays]:
    if not str(document.get("version", "")).startswith("2."):
        raise ValueError(f"it is no metadata of Potree 2, but of {document.get('version')!r}")
    encoding = document.get("encoding", "DEFAULT")
    if encoding not in ("DEFAULT", "UNCOMPRESSED"):
        raise InputError(
            f"{path} stores its points with the encoding {str(encoding)[:40]!r}, which is not read",
            "convert it with PotreeConverter --encoding UNCOMPRESSED",
        )
    layout = np.dtype(
        [
            (str(item["name"]), TYPES[item["type"]], (int(item["numElements"]),))
            for item in document["attributes"]
        ]
    )
    octree = path.with_name("octree.bin")
    size = _size(octree, path)
    nodes = _potree_2_nodes(path, int(document["hierarchy"]["firstChunkSize"]))
    if sum(count for count, _, _ in nodes) > size // layout.itemsize:
        raise ValueError(f"its nodes declare more points than {size:,} bytes can hold")
    scale = np.asarray(document["scale"], np.float64).reshape(3)
    offset = np.asarray(document["offset"], np.float64).reshape(3)
    names = layout.names or ()
    with octree.open("rb") as file:
        for count, start, length in nodes:
            if count == 0:
                continue
            if length != count * layout.itemsize or start + length > size:
                raise ValueError(f"a node of {count:,} points has {length:,} bytes at {start:,}")
            file.seek(start)
            raw = np.frombuffer(file.read(length), layout)
            yield _arrays(
                raw["position"] * scale + offset,
                raw["classification"][:, 0] if "classification" in names else None,
                raw["intensity"][:, 0] if "intensity" in names else None,
                raw["rgb"] if "rgb" in names else None,
            )


def _potree_2_nodes(path: Path, first: int) -> list[tuple[int, int, int]]:
    """Return (points, first byte, bytes) of all nodes."""
    file = path.with_name("hierarchy.bin")
    _size(file, path)
    data = file.read_bytes()
    chunks, seen = [(0, first)], set()
    nodes: list[tuple[int, int, int]] = []
    while chunks:
        start, length = chunks.pop()
        if start in seen or length % NODE.size or start + length > len(data):
            raise ValueError(f"a part of its hierarchy has {length:,} bytes at {start:,}")
        seen.add(start)
        for kind, _, count, place, size in NODE.iter_unpack(data[start : start + length]):
            if kind == PROXY:
                chunks.append((place, size))
            else:
                nodes.append((count, place, size))
    return nodes


def _potree_1(
    path: Path, document: Mapping[str, Any], read_las: Callable[[Path], Arrays]
) -> Iterator[Arrays]:
    attributes = document["pointAttributes"]
    folder = (path.parent / str(document.get("octreeDir", "data"))).resolve()
    if not folder.is_relative_to(path.parent.resolve()):
        raise InputError(
            f"{path} refers to {str(document['octreeDir'])[:80]}, which lies outside its folder",
            "move it into the folder",
        )
    if not folder.is_dir():
        raise MissingFileError(f"{folder}, of {path}, does not exist", "fetch the whole folder")
    kinds = ("las", "laz") if attributes in ("LAS", "LAZ") else ("bin",)
    files = sorted(file for kind in kinds for file in folder.rglob(f"r*.{kind}"))
    files = [file for file in files if file.resolve().is_relative_to(folder)]
    if not files:
        raise MissingFileError(f"there are no nodes of {path} in {folder}", "fetch all of it")
    if kinds != ("bin",):
        yield from map(read_las, files)
        return
    layout = _potree_1_layout(attributes)
    names = layout.names or ()
    box = document["boundingBox"]
    corner = np.array([box["lx"], box["ly"], box["lz"]], np.float64)
    edge = np.array([box["ux"], box["uy"], box["uz"]], np.float64) - corner
    for file in files:
        size = file.stat().st_size
        if not re.fullmatch(r"r[0-7]*", file.stem) or size % layout.itemsize:
            raise ValueError(f"{file.name} of {size:,} bytes is no node")
        raw = np.fromfile(file, layout)
        origin, half = corner, edge
        for digit in map(int, file.stem[1:]):
            half = half / 2
            origin = origin + half * [digit >> 2 & 1, digit >> 1 & 1, digit & 1]
        colour = next((name for name in names if name.endswith("_PACKED")), None)
        yield _arrays(
            raw["POSITION_CARTESIAN"] * float(document["scale"]) + origin,
            raw["CLASSIFICATION"] if "CLASSIFICATION" in names else None,
            raw["INTENSITY"] if "INTENSITY" in names else None,
            None if colour is None else raw[colour][:, :3],
        )


def _potree_1_layout(attributes: Sequence[Any]) -> np.dtype:
    fields: list[tuple[str, Any]] = []
    for number, item in enumerate(attributes):
        name = item["name"] if isinstance(item, dict) else item
        if name in POTREE_1:
            fields.append((name, POTREE_1[name]))
            continue
        size = item["size"] if isinstance(item, dict) else POTREE_1_SIZES[name]
        fields.append((f"skipped {number}", np.dtype((np.void, int(size)))))
    return np.dtype(fields)


def _arrays(
    xyz: NDArray, classification: NDArray | None, intensity: NDArray | None, rgb: NDArray | None
) -> Arrays:
    zeros = np.zeros(len(xyz), np.uint8)
    return (
        np.asarray(xyz, np.float64).reshape(-1, 3),
        zeros if classification is None else classification.astype(np.uint8),
        (zeros if intensity is None else intensity).astype(np.float32),
        None if rgb is None else rgb.astype(np.uint16),
        zeros,
    )


def _size(file: Path, of: Path) -> int:
    if not file.is_file():
        raise MissingFileError(f"{file}, of {of}, does not exist", "fetch the whole folder")
    return file.stat().st_size


def _text(value: Any) -> str | None:
    return str(value) if value else None
