"""3D Tiles 1.0 and 1.1 (OGC 22-025r4) as patches: tilesets on disk with glTF or b3dm content.

Where children replace a tile, the children are read, down to the first whose geometric error is a
small part of a voxel. Content is opened only if its tile meets the scene. Nothing is downloaded,
and nothing outside the folder of the tileset is read.
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
from geo_io.safety.damage import damaged_file

VERSIONS = ("1.0", "1.1")

DETAIL = 0.25
"""Geometric error, in voxels, below which finer tiles are not opened."""

DEEPEST = 200
"""Largest depth of nested tiles; a deeper tileset refers to itself."""

LARGEST = 200_000.0
"""Largest distance of the middle of a tileset's volume from the surface, metres: the boxes of whole
countries cut through the earth."""

UNDERSTOOD = (
    "3DTILES_content_gltf",
    "3DTILES_metadata",
    "3DTILES_batch_table_hierarchy",
    "CESIUM_RTC",
)
"""Extensions that a tileset may require: they do not change the surfaces."""

CONVERT = "save its tiles as plain .glb, for example with 3d-tiles-tools, or leave them out"

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

    Attributes
    ----------
    path : Path
        The file.
    root : Path
        Folder that contains everything it refers to.
    document : mapping
        Its content.
    """

    path: Path
    root: Path
    document: Mapping[str, Any]

    @property
    def up(self) -> str:
        """The axis of its glTF that points up: y, unless `gltfUpAxis` (before version 1.0) differs.

        Raises
        ------
        InputError
            if that is neither y nor z
        """
        axis = str(self.document["asset"].get("gltfUpAxis", "Y")).casefold()
        if axis not in ("y", "z"):
            raise InputError(f"{self.path} has gltfUpAxis {axis!r}", "save it with y up")
        return axis


@dataclass(frozen=True)
class _Content:
    """A file to open, and where it lies."""

    path: Path
    transform: NDArray
    up: str


def is_tileset(document: Any) -> bool:
    """Whether a parsed JSON document is a tileset."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("asset"), dict)
        and "root" in document
    )


def open_tileset(path: Path, root: Path | None = None) -> Tileset:
    """Parse a tileset.json.

    Parameters
    ----------
    path : Path
        The file.
    root : Path | None
        Folder that it may refer to files of; by default its own.

    Raises
    ------
    InputError
        if it is damaged, has another version, or needs an extension that is not read
    """
    with damaged_file(f"{path} is damaged", "fetch it again"):
        document = json.loads(path.read_text("utf-8-sig"))
    if not is_tileset(document) or not isinstance(document["root"], dict):
        raise InputError(
            f"{path} is not a tileset: it has no `asset` and `root`", "give a tileset.json"
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
    """Return the UTM zone of the middle of a tileset.

    Raises
    ------
    InputError
        if the bounding volume of its root is damaged, or not near the earth's surface
    """
    tile = tileset.document["root"]
    transform = _transform(tile, np.eye(4), tileset.path)
    problem = f"the bounding volume of the root of {tileset.path} is damaged"
    with damaged_file(problem, "correct it"):
        lon, lat, height = centre_of(tile["boundingVolume"], transform)
    if not abs(height) < LARGEST:
        raise _off_earth(tileset.path)
    return utm_crs((lon, lat, lon, lat))


def tileset_patches(
    tileset: Tileset, crs: str, size: float, bounds: Bounds | None, up: str | None = None
) -> Iterator[Patch]:
    """Yield the surfaces of a tileset in a projected CRS, tile by tile.

    Heights are above the ellipsoid of WGS 84.

    Parameters
    ----------
    tileset : Tileset
        The tileset.
    crs : str
        A projected CRS in metres.
    size : float
        Voxel size, metres; tiles that are much finer are not opened.
    bounds : tuple[float, float, float, float] | None
        In `crs`; tiles outside are not opened.
    up : {"y", "z"} | None
        Axis of the glTF that points up; by default that of the tileset.

    Raises
    ------
    InputError
        if a tile is damaged, does not lie on the earth, has a format that is not read, or refers
        to an address on the network or outside the folder; the error names the tile
    MissingFileError
        if a tile refers to a file that does not exist
    """
    place = None if bounds is None else Place.of(bounds, crs)
    for content in _contents(tileset, tileset.document["root"], np.eye(4), size, place, "", 0):
        for patch in _read(content, up, tileset.root):
            points = (
                patch.corners.reshape(-1, 3) @ content.transform[:3, :3].T
                + content.transform[:3, 3]
            )
            _check_on_earth(lon_lat_height(points[:1]), content.path)
            projected = patch.moved(project(points, crs).reshape(-1, 3, 3))
            mirrored = np.linalg.det(content.transform[:3, :3]) < 0
            yield _rewound(projected) if mirrored else projected


def _contents(
    tileset: Tileset,
    tile: Mapping[str, Any],
    above: NDArray,
    size: float,
    place: Place | None,
    refine: str,
    depth: int,
) -> Iterator[_Content]:
    """Yield the contents to open of a tile and those below it, in the order of the document."""
    where = tileset.path
    if depth > DEEPEST:
        raise InputError(
            f"{where} has tiles nested more than {DEEPEST} deep",
            "look for a tileset that refers to itself",
        )
    if not isinstance(tile, dict):
        raise InputError(f"a tile of {where} is not a JSON object", "correct it")
    if "implicitTiling" in tile or "3DTILES_implicit_tiling" in tile.get("extensions", {}):
        raise InputError(
            f"{where} has implicit tiling, which is not read",
            "save it with explicit tiles",
        )
    transform = _transform(tile, above, where)
    with damaged_file(f"a tile of {where} is damaged", "correct it"):
        volume = tile["boundingVolume"]
        error = float(tile["geometricError"]) * largest_scale(transform)
        refine = str(tile.get("refine", refine or "REPLACE")).upper()
        children = list(tile.get("children", ()))
        entries = list(tile.get("contents", [tile["content"]] if tile.get("content") else []))
    if not _meets(volume, place, transform, where):
        return
    fine = bool(entries) and error <= DETAIL * size
    nested = False
    for entry in entries:
        if not isinstance(entry, dict):
            raise InputError(f"the content of a tile of {where} is not a JSON object", "correct it")
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
    with damaged_file(f"a bounding volume of {where} is damaged", "correct it"):
        return place.meets(volume, transform)


def _transform(tile: Mapping[str, Any], above: NDArray, where: Path) -> NDArray:
    """Return the (4, 4) transform from a tile to the earth. Files store it column by column."""
    values = tile.get("transform")
    if values is None:
        return above
    with damaged_file(f"a transform of {where} is not 16 numbers", "correct it"):
        own = np.asarray(values, np.float64).reshape(4, 4).T
    if not np.isfinite(own).all() or not np.array_equal(own[3], (0, 0, 0, 1)):
        raise InputError(f"a transform of {where} is not affine", "correct it")
    return np.asarray(above @ own)


def _read(content: _Content, up: str | None, root: Path) -> list[Patch]:
    """Return the triangles of one content, in the axes of its tile."""
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
    """Return (glTF, RTC_CENTER) of a b3dm tile.

    A tile is 28 bytes of header, the feature table, the batch table, and the glTF.
    """
    with damaged_file(f"{path} is a damaged b3dm tile", "fetch it again"):
        version, length, *tables = struct.unpack("<6I", data[4:28])
        if version != 1 or length > len(data):
            raise ValueError(f"version {version}, {len(data):,} of {length:,} bytes")
        table, binary = data[28 : 28 + tables[0]], data[28 + tables[0] : 28 + sum(tables[:2])]
        features = json.loads(table) if table.strip() else {}
        centre = features.get("RTC_CENTER", (0.0, 0.0, 0.0))
        if isinstance(centre, dict):
            centre = np.frombuffer(binary, "<f4", 3, int(centre["byteOffset"]))
        offset = np.asarray(centre, np.float64).reshape(3)
    model = data[28 + sum(tables) : length]
    if model[:4] != GLB:
        raise InputError(f"{path} is a b3dm tile without a glTF in it", CONVERT)
    return model, offset


def _check_on_earth(points: NDArray, path: Path) -> None:
    """Raise InputError unless (n, 3) degrees and metres lie near the earth's surface."""
    if not (
        np.isfinite(points).all()
        and (points[:, 2] > LOWEST).all()
        and (points[:, 2] < HIGHEST).all()
    ):
        raise _off_earth(path)


def _off_earth(path: Path) -> InputError:
    return InputError(
        f"{path} does not lie on the earth's surface, as 3D Tiles in EPSG:4978 do",
        "give the root of the tileset a transform, or give its .glb files as meshes, with crs and "
        "mesh_offset; for a tileset of the whole earth give target and bounds",
    )


def _rewound(patch: Patch) -> Patch:
    """Return the triangles with reversed winding, which a mirrored transform needs."""
    return Patch(
        patch.corners[:, ::-1],
        patch.rgb[:, ::-1],
        patch.seen,
        patch.code,
        patch.role,
        None if patch.uv is None else patch.uv[:, ::-1],
        patch.texels,
    )
