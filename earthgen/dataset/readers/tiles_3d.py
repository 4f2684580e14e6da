"""3D Tiles 1.0 and 1.1 (OGC 22-025r4) as patches: tilesets on disk with glTF or b3dm content.

Of tiles that are replaced by their children the children are taken, down to the first whose
geometric error is a small part of a voxel. Content is opened where its tile meets the scene.
Nothing is fetched, and nothing outside the folder of the tileset is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.readers.local_files import local_file
from earthgen.dataset.readers.mesh_files import GLB, read_gltf
from earthgen.dataset.readers.tile_volumes import (
    HIGHEST,
    LOWEST,
    Place,
    centre_of,
    largest_scale,
    lon_lat_height,
    project,
)
from earthgen.dataset.readers.triangles import Patch
from geo_io.errors import InputError
from geo_io.frame import Bounds
from geo_io.region.region import utm_crs

VERSIONS = ("1.0", "1.1")

DETAIL = 0.25
"""Voxels of geometric error below which finer tiles are not opened."""

DEEPEST = 200
"""Tiles below each other; more is a tileset that names itself."""

LARGEST = 200_000.0
"""Metres that the middle of a tileset's volume may lie off the surface: boxes of countries cut
through the earth."""

UNDERSTOOD = (
    "3DTILES_content_gltf",
    "3DTILES_metadata",
    "3DTILES_batch_table_hierarchy",
    "CESIUM_RTC",
)
"""Extensions that a tileset may require: they say nothing of where or what the surfaces are."""

CONVERT = "write its tiles as plain .glb, for example with 3d-tiles-tools, or leave them out"

REFUSED = {
    b"i3dm": "instanced models (i3dm)",
    b"pnts": "point clouds (pnts)",
    b"cmpt": "composite tiles (cmpt)",
    b"vctr": "vector tiles (vctr)",
    b"subt": "implicit tiling (subtree files)",
}


@dataclass(frozen=True)
class Tileset:
    """A tileset.json, parsed.

    root : the folder that everything it names lies in
    """

    path: Path
    root: Path
    document: Mapping[str, Any]

    @property
    def up(self) -> str:
        """Which axis of its glTF points up: y, unless it says so in the way of before version
        1.0."""
        said = str(self.document["asset"].get("gltfUpAxis", "Y")).casefold()
        if said not in ("y", "z"):
            raise InputError(f"{self.path} has gltfUpAxis {said!r}", "write it with y up")
        return said


@dataclass(frozen=True)
class _Content:
    path: Path
    transform: NDArray
    up: str


def is_tileset(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("asset"), dict)
        and "root" in document
    )


def open_tileset(path: Path, root: Path | None = None) -> Tileset:
    """Parse a tileset.json.

    root : folder that it may name files of; its own unless given

    Raises
    ------
    InputError
        if it is damaged, of another version, or needs an extension that is not read
    """
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}", "fetch it again") from error
    if not is_tileset(document) or not isinstance(document["root"], dict):
        raise InputError(
            f"{path} is no tileset: it has no `asset` and `root`", "give a tileset.json"
        )
    version = document["asset"].get("version")
    if version not in VERSIONS:
        raise InputError(
            f"{path} is 3D Tiles {version}; {' and '.join(VERSIONS)} are read",
            "convert it, for example with `3d-tiles-tools upgrade`",
        )
    for name in document.get("extensionsRequired", []):
        if name not in UNDERSTOOD:
            raise InputError(f"{path} needs the extension {name}, which is not read", CONVERT)
    return Tileset(path, root or path.parent, document)


def tileset_crs(tileset: Tileset) -> str:
    """The UTM zone of the middle of a tileset."""
    tile = tileset.document["root"]
    transform = _transform(tile, np.eye(4), tileset.path)
    try:
        lon, lat, height = centre_of(tile["boundingVolume"], transform)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the bounding volume of the root of {tileset.path} is none ({error})", "correct it"
        ) from error
    if not abs(height) < LARGEST:
        raise _off_earth(tileset.path)
    return utm_crs((lon, lat, lon, lat))


def tileset_patches(
    tileset: Tileset, crs: str, size: float, bounds: Bounds | None, up: str | None = None
) -> Iterator[Patch]:
    """The surfaces of a tileset in a projected CRS, tile by tile; heights are above the ellipsoid
    of WGS 84.

    size : metres, of a voxel: what is much finer is not opened
    bounds : in `crs`: tiles that do not meet them are not opened
    up : "y" or "z", the axis of the glTF that points up, instead of what the tileset says

    Raises
    ------
    InputError, InputError
        if a tile is damaged, does not lie on the earth, or is of a kind that is not read: the error
        names it
    InputError, MissingFileError
        if a tile names an address on the network, something outside the folder, or what is not
        there
    """
    place = None if bounds is None else Place.of(bounds, crs)
    for content in _contents(tileset, tileset.document["root"], np.eye(4), size, place, "", 0):
        for patch in _read(content, up, tileset.root):
            points = (
                patch.corners.reshape(-1, 3) @ content.transform[:3, :3].T
                + content.transform[:3, 3]
            )
            _check_on_earth(lon_lat_height(points[:1]), content.path)
            found = patch.moved(project(points, crs).reshape(-1, 3, 3))
            mirrored = np.linalg.det(content.transform[:3, :3]) < 0
            yield _rewound(found) if mirrored else found


def _contents(
    tileset: Tileset,
    tile: Mapping[str, Any],
    above: NDArray,
    size: float,
    place: Place | None,
    refine: str,
    depth: int,
) -> Iterator[_Content]:
    """What is to be opened of a tile and those below it, in the order of the document."""
    where = tileset.path
    if depth > DEEPEST:
        raise InputError(
            f"{where} has tiles more than {DEEPEST} deep", "look for a tileset that names itself"
        )
    if not isinstance(tile, dict):
        raise InputError(f"a tile of {where} is none", "correct it")
    if "implicitTiling" in tile or "3DTILES_implicit_tiling" in tile.get("extensions", {}):
        raise InputError(
            f"{where} has implicit tiling, which is not read",
            "write its tiles out, as explicit ones",
        )
    transform = _transform(tile, above, where)
    try:
        volume = tile["boundingVolume"]
        error = float(tile["geometricError"]) * largest_scale(transform)
        refine = str(tile.get("refine", refine or "REPLACE")).upper()
        children = list(tile.get("children", ()))
        entries = list(tile.get("contents", [tile["content"]] if tile.get("content") else []))
    except (KeyError, TypeError, ValueError) as fault:
        raise InputError(f"a tile of {where} is damaged ({fault!r})", "correct it") from fault
    if not _meets(volume, place, transform, where):
        return
    fine = bool(entries) and error <= DETAIL * size
    nested = False
    for entry in entries:
        if not isinstance(entry, dict):
            raise InputError(f"a tile's content in {where} is none", "correct it")
        if not _meets(entry.get("boundingVolume", volume), place, transform, where):
            continue
        file = local_file(
            entry.get("uri", entry.get("url")), where.parent, tileset.root, str(where)
        )
        if file.suffix.casefold() == ".json":
            nested = True
            inner = open_tileset(file, tileset.root)
            yield from _contents(
                inner, inner.document["root"], transform, size, place, refine, depth + 1
            )
        elif not children or fine or refine == "ADD":
            yield _Content(file, transform, tileset.up)
    if not fine or nested:
        for child in children:
            yield from _contents(tileset, child, transform, size, place, refine, depth + 1)


def _meets(volume: Any, place: Place | None, transform: NDArray, where: Path) -> bool:
    if place is None:
        return True
    try:
        return place.meets(volume, transform)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a bounding volume in {where} is damaged ({error})", "correct it"
        ) from error


def _transform(tile: Mapping[str, Any], above: NDArray, where: Path) -> NDArray:
    """(4, 4) from a tile to the earth; in files it stands column by column."""
    values = tile.get("transform")
    if values is None:
        return above
    try:
        own = np.asarray(values, np.float64).reshape(4, 4).T
    except (TypeError, ValueError) as error:
        raise InputError(f"a transform in {where} is not 16 numbers", "correct it") from error
    if not np.isfinite(own).all() or not np.array_equal(own[3], (0, 0, 0, 1)):
        raise InputError(f"a transform in {where} is no affine one", "correct it")
    return np.asarray(above @ own)


def _read(content: _Content, up: str | None, root: Path) -> list[Patch]:
    """The triangles of one content, in the axes of its tile."""
    path, data = content.path, content.path.read_bytes()
    magic, centre = data[:4], np.zeros(3)
    if magic in REFUSED:
        raise InputError(f"{path} holds {REFUSED[magic]}, which are not read", CONVERT)
    if magic == b"b3dm":
        data, centre = _unwrap(data, path)
    elif magic != GLB and path.suffix.casefold() != ".gltf":
        raise InputError(
            f"{path} is neither glTF nor b3dm",
            "fetch it again, unpacked if it is compressed by gzip",
        )

    def fetch(uri: str) -> bytes:
        return local_file(uri, path.parent, root, str(path)).read_bytes()

    parts = read_gltf(data, str(path), up or content.up, fetch)
    return [part.moved(part.corners + centre) for part in parts] if centre.any() else parts


def _unwrap(data: bytes, path: Path) -> tuple[bytes, NDArray]:
    """(glTF, RTC_CENTER) of a b3dm tile: 28 bytes of header, feature table, batch table, glTF."""
    try:
        version, length, *tables = struct.unpack("<6I", data[4:28])
        if version != 1 or length > len(data):
            raise ValueError(f"version {version}, {len(data):,} of {length:,} bytes")
        table, binary = data[28 : 28 + tables[0]], data[28 + tables[0] : 28 + sum(tables[:2])]
        features = json.loads(table) if table.strip() else {}
        centre = features.get("RTC_CENTER", (0.0, 0.0, 0.0))
        if isinstance(centre, dict):
            centre = np.frombuffer(binary, "<f4", 3, int(centre["byteOffset"]))
        found = np.asarray(centre, np.float64).reshape(3)
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is a damaged b3dm tile: {error}", "fetch it again") from error
    model = data[28 + sum(tables) : length]
    if model[:4] != GLB:
        raise InputError(f"{path} is a b3dm tile without a glTF in it", CONVERT)
    return model, found


def _check_on_earth(points: NDArray, path: Path) -> None:
    """InputError unless (n, 3) degrees and metres lie near the earth's surface."""
    if not (
        np.isfinite(points).all()
        and (points[:, 2] > LOWEST).all()
        and (points[:, 2] < HIGHEST).all()
    ):
        raise _off_earth(path)


def _off_earth(path: Path) -> InputError:
    return InputError(
        f"{path} does not lie on the earth's surface, as 3D Tiles in EPSG:4978 do",
        "give the root of the tileset a transform, or give its .glb files as meshes, with crs and mesh_offset; of a "
        "tileset of the whole earth give target and bounds",
    )


def _rewound(patch: Patch) -> Patch:
    """The same triangles seen from the other side: a mirror turned them."""
    return Patch(
        patch.corners[:, ::-1],
        patch.rgb[:, ::-1],
        patch.seen,
        patch.code,
        patch.role,
        None if patch.uv is None else patch.uv[:, ::-1],
        patch.texels,
    )
