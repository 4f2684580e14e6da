"""Mesh files as patches: OBJ, glTF, PLY, STL and OFF, read with trimesh (MIT)."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.readers.compressed_gltf import COMPRESSED, is_compressed, unpack
from earthgen.dataset.readers.local_files import local_file
from earthgen.dataset.readers.points import INSTALL
from earthgen.dataset.readers.triangles import Patch, plain_patch
from geo_io.errors import InputError, UnsafePathError
from geo_io.safety.damage import damaged_file

SUFFIXES = (".obj", ".gltf", ".glb", ".ply", ".stl", ".off")
GLTF = (".gltf", ".glb")
"""Formats whose y axis points up, by the glTF specification. Others are read as z up by default."""

REFUSED = {
    ".gml": ("CityGML is not read", "convert it to CityJSON, for example with citygml-tools"),
    ".fbx": ("FBX is not read", "convert it to glTF"),
    ".b3dm": (
        "it is a single tile of 3D Tiles, without a location",
        "give the tileset.json that it belongs to",
    ),
}

CHECK = "check it, and the files that it refers to"

GLB, BIN = b"glTF", b"BIN\0"

UNDERSTOOD = (
    "CESIUM_RTC",
    "EXT_mesh_features",
    "EXT_structural_metadata",
    "EXT_texture_webp",
    "KHR_materials_unlit",
    "KHR_materials_specular",
    "KHR_materials_ior",
    "KHR_materials_pbrSpecularGlossiness",
)
"""Extensions of glTF that a file may require: they change only the appearance, or trimesh reads
them."""


def read_mesh_file(path: Path, up: str | None) -> list[Patch]:
    """Read the triangles of a file in its own coordinates, z up.

    Parameters
    ----------
    path : Path
        A file with one of `SUFFIXES`.
    up : str | None
        The axis that points up in the file, "y" or "z"; by default y in glTF and z in others.

    Raises
    ------
    InputError
        if the file has another format, cannot be read, or holds no triangles
    """
    suffix = path.suffix.casefold()
    if suffix not in SUFFIXES:
        problem, remedy = REFUSED.get(
            suffix,
            (
                f"meshes of the format {suffix or 'without a suffix'} are not read",
                "convert it to OBJ or glTF",
            ),
        )
        raise InputError(
            f"{path}: {problem}",
            f"{remedy}; {', '.join(SUFFIXES)}, CityJSON and tileset.json are read",
        )
    if suffix in GLTF:
        data = path.read_bytes()

        def fetch(uri: str) -> bytes:
            return local_file(uri, path.parent, path.parent, str(path)).read_bytes()

        return read_gltf(data, str(path), up or "y", fetch)
    beside = _Beside(path)
    with path.open("rb") as file:
        parts = _patches(file, str(path), up or "z", suffix[1:], beside)
    if beside.refused is not None:
        raise beside.refused
    return parts


def read_gltf(data: bytes, where: str, up: str, fetch: Callable[[str], bytes]) -> list[Patch]:
    """Read the triangles of a glTF document, .glb or .gltf, in its own coordinates, z up.

    Parameters
    ----------
    data : bytes
        The document.
    where : str
        Its name, for error messages.
    up : str
        The axis that points up in the document, "y" or "z".
    fetch : Callable[[str], bytes]
        Gives the content of a file that the document refers to: buffers, pictures. What it raises
        is raised here.

    Raises
    ------
    InputError
        as `read_mesh_file`
    """
    header = _gltf_header(data, where)
    check_extensions(header, where)
    if is_compressed(header):
        data, header = unpack(header, _binary(data), where, fetch)
    kind = "glb" if data[:4] == GLB else "gltf"
    with damaged_file(f"{where} is damaged glTF", CHECK):
        # Fetched here, because trimesh silently drops a picture that it cannot get.
        entries = [
            entry
            for role in ("buffers", "images")
            for entry in header.get(role, [])
            if isinstance(entry, dict)
        ]
        references = [
            uri
            for entry in entries
            if (uri := entry.get("uri")) is not None and not str(uri).startswith("data:")
        ]
        resolver = {str(uri): fetch(uri) for uri in references}
    parts = _patches(io.BytesIO(data), where, up, kind, resolver)
    with damaged_file(f"{where} is damaged glTF", CHECK):
        centre = header.get("extensions", {}).get("CESIUM_RTC", {}).get("center")
        if centre is None:
            return parts
        moved = turn(np.asarray(centre, np.float64).reshape(1, 1, 3), up)
        return [part.moved(part.corners + moved) for part in parts]


def check_extensions(header: dict[str, Any], where: str) -> None:
    """Check that all extensions that a glTF document requires are read.

    Raises
    ------
    InputError
        if one is not
    """
    with damaged_file(f"{where} is damaged glTF", CHECK):
        names = list(map(str, header.get("extensionsRequired", [])))
    for name in names:
        if name not in (*UNDERSTOOD, *COMPRESSED):
            raise InputError(
                f"{where} needs the glTF extension {name}, which is not read", "save it without"
            )


def turn(vectors: NDArray, up: str) -> NDArray:
    """Return (..., 3) vectors with z up, of vectors with `up` ("y" or "z") up."""
    return (
        np.stack([vectors[..., 0], -vectors[..., 2], vectors[..., 1]], axis=-1)
        if up == "y"
        else vectors
    )


def _gltf_header(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON of a .glb or .gltf document."""
    with damaged_file(f"{where} is not glTF, or is damaged", "check it, or fetch it again"):
        if data[:4] == GLB:
            version, _, length, kind = struct.unpack("<IIII", data[4:20])
            if version != 2 or kind != 0x4E4F534A:
                raise InputError(
                    f"{where} is glTF {version}, not 2.0",
                    "convert it, for example with gltf-pipeline",
                )
            data = data[20 : 20 + length]
        header = json.loads(data)
    if not isinstance(header, dict) or not isinstance(header.get("asset"), dict):
        raise InputError(f"{where} is not glTF: it has no `asset`", "give another file")
    return header


def _binary(data: bytes) -> bytes:
    """Return the binary chunk of a .glb, empty if it has none."""
    if data[:4] != GLB:
        return b""
    start = 20 + int.from_bytes(data[12:16], "little")
    length, kind = data[start : start + 4], data[start + 4 : start + 8]
    return data[start + 8 : start + 8 + int.from_bytes(length, "little")] if kind == BIN else b""


def _load(source: Any, where: str, kind: str | None = None, resolver: Any = None) -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise InputError(
            f"{where} is read with trimesh, which is not installed", INSTALL
        ) from error
    return trimesh.load(source, file_type=kind, resolver=resolver, process=False)


class _Beside:
    """Gives trimesh the files that a mesh names, from its own folder alone.

    trimesh goes on without a file that it does not get, so what was refused is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: UnsafePathError | None = None

    def get(self, name: str) -> bytes:
        """Return the content of a file."""
        folder = self.path.parent
        try:
            return local_file(str(name).strip(), folder, folder, str(self.path)).read_bytes()
        except UnsafePathError as error:
            self.refused = self.refused or error
            raise

    def __getitem__(self, name: str) -> bytes:
        return self.get(name)


def _patches(source: Any, where: str, up: str, kind: str, resolver: Any) -> list[Patch]:
    """Read the triangles of an open file. On a damaged one, trimesh raises anything, also when its
    result is used, and numpy when an index leads beyond the vertices."""
    with damaged_file(f"{where} cannot be read as a mesh", CHECK):
        return _read(_load(source, where, kind, resolver), up, where)


def _read(loaded: Any, up: str, where: str) -> list[Patch]:
    if hasattr(loaded, "dump"):
        meshes = [mesh for mesh in loaded.dump() if hasattr(mesh, "faces")]
        for mesh in meshes:  # a copy in the place of its node, which lacks the colours
            source = loaded.geometry.get(mesh.metadata.get("name"))
            colour = getattr(getattr(source, "visual", None), "vertex_attributes", {})
            if "color" in colour and len(source.vertices) == len(mesh.vertices):
                mesh.visual.vertex_attributes["color"] = colour["color"]
    else:
        meshes = [loaded] if hasattr(loaded, "faces") else []
    meshes = [mesh for mesh in meshes if len(mesh.faces)]
    if not meshes:
        raise InputError(f"{where} holds no triangles", "give a mesh with faces")
    return [_patch(mesh, up) for mesh in meshes]


def _patch(mesh: Any, up: str) -> Patch:
    faces = np.asarray(mesh.faces)
    if mesh.vertices.shape[1:] != (3,):
        raise ValueError("its vertices have no three coordinates")
    if faces.min() < 0 or faces.max() >= len(mesh.vertices):
        raise ValueError(f"a face of vertices that are none of {len(mesh.vertices):,}")
    part = plain_patch(turn(np.asarray(mesh.vertices, np.float64)[faces], up))
    every = np.ones(len(faces), bool)
    visual = mesh.visual
    uv, image = getattr(visual, "uv", None), _image(getattr(visual, "material", None))
    kind = getattr(visual, "kind", None)
    if uv is not None and image is not None:
        texels = np.asarray(image.convert("RGB"))
        return Patch(
            part.corners,
            part.rgb,
            every,
            part.code,
            part.role,
            np.asarray(uv, np.float64)[faces],
            texels,
        )
    if kind == "vertex":
        rgb = np.asarray(visual.vertex_colors, np.float64)[:, :3][faces]
    elif kind == "face":
        rgb = np.repeat(np.asarray(visual.face_colors, np.float64)[:, None, :3], 3, axis=1)
    elif "color" in getattr(visual, "vertex_attributes", {}):
        # Beside a material, trimesh leaves the colours of glTF as they are: linear light.
        rgb = _srgb(np.asarray(visual.vertex_attributes["color"])[:, :3])[faces]
    else:
        return part
    return Patch(part.corners, rgb, every, part.code, part.role)


def _srgb(linear: NDArray) -> NDArray:
    """Return sRGB values, 0 to 255 (IEC 61966-2-1), of linear light: floats, or integers of their
    type's range."""
    if linear.dtype.kind in "iu":
        linear = linear / np.iinfo(linear.dtype).max
    light = np.clip(linear.astype(np.float64), 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def _image(material: Any) -> Any:
    for name in ("baseColorTexture", "image"):
        image = getattr(material, name, None)
        if image is not None:
            return image
    return None
