"""Meshes compressed by Draco and meshopt come back as the plain ones, and liars are refused."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import DracoPy
import numpy as np
import pytest

from earthgen.dataset.readers.compressed_gltf import unpack
from earthgen.dataset.readers.mesh_files import read_mesh_file
from geo_io.errors import InputError

N = 12


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A wavy sheet: (n, 3) vertices, (m, 3) faces, (n, 2) texture coordinates."""
    x, y = (a.ravel() for a in np.meshgrid(np.arange(N), np.arange(N)))
    vertices = np.column_stack([x, np.sin(x / 3) + 2, -y]).astype(np.float32)
    corner = (np.arange(N - 1)[:, None] * N + np.arange(N - 1)).ravel()
    faces = np.concatenate(
        [
            np.column_stack([corner, corner + 1, corner + N]),
            np.column_stack([corner + 1, corner + N + 1, corner + N]),
        ]
    ).astype(np.uint32)
    return vertices, faces, np.column_stack([x, y]).astype(np.float32) / N


def glb(document: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}, "scene": 0, **document}).encode()
    text += b" " * (-len(text) % 4)
    body += b"\0" * (-len(body) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def scene(primitive: dict[str, Any], node: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [primitive]}],
    }


def accessors(points: int, faces: int, **first: Any) -> list[dict[str, Any]]:
    return [
        {"componentType": 5126, "count": points, "type": "VEC3", "min": [0, 0, 0], **first}
        | {"max": [N, 3, N]},
        {"componentType": 5125, "count": faces * 3, "type": "SCALAR"},
    ]


def draco(change: Any = None) -> bytes:
    vertices, faces, _ = grid()
    content = DracoPy.encode(vertices, faces=faces, quantization_bits=16)
    document = {
        **scene(
            {
                "attributes": {"POSITION": 0},
                "indices": 1,
                "extensions": {
                    "KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}
                },
            }
        ),
        "extensionsUsed": ["KHR_draco_mesh_compression"],
        "extensionsRequired": ["KHR_draco_mesh_compression"],
        "accessors": accessors(len(vertices), len(faces)),
        "bufferViews": [{"buffer": 0, "byteLength": len(content)}],
        "buffers": [{"byteLength": len(content)}],
    }
    if change:
        content = change(document, content) or content
    return glb(document, content)


def meshopt(change: Any = None, quantised: bool = False) -> bytes:
    encoder = pytest.importorskip("meshoptimizer.encoder", exc_type=ImportError)
    vertices, faces, _ = grid()
    node = {}
    kind = {}
    if quantised:  # as gltfpack does: whole numbers, put right by the node
        stored = np.zeros((len(vertices), 4), np.uint16)
        stored[:, :3] = np.round((vertices - [0, 0, -N]) * 1000)
        node = {"translation": [0, 0, -N], "scale": [0.001] * 3}
        kind = {"componentType": 5123}
        packed, stride = encoder.encode_vertex_buffer(stored, len(stored), 8), 8
    else:
        packed, stride = encoder.encode_vertex_buffer(vertices, len(vertices), 12), 12
    index = encoder.encode_index_buffer(faces.ravel(), faces.size, len(vertices))
    views = []
    for start, content, mode, count, step in (
        (0, packed, "ATTRIBUTES", len(vertices), stride),
        (len(packed), index, "TRIANGLES", faces.size, 4),
    ):
        extension = {
            "buffer": 0,
            "byteOffset": start,
            "byteLength": len(content),
            "byteStride": step,
            "count": count,
            "mode": mode,
        }
        view = {"buffer": 1, "byteLength": count * step}
        if mode == "ATTRIBUTES":
            view["byteStride"] = step
        views.append({**view, "extensions": {"EXT_meshopt_compression": extension}})
    names = ["EXT_meshopt_compression"] + (["KHR_mesh_quantization"] if quantised else [])
    made = accessors(len(vertices), len(faces), bufferView=0, **kind)
    made[1]["bufferView"] = 1
    document = {
        **scene({"attributes": {"POSITION": 0}, "indices": 1}, node),
        "extensionsUsed": names,
        "extensionsRequired": names,
        "accessors": made,
        "bufferViews": views,
        "buffers": [
            {"byteLength": len(packed) + len(index)},
            {"byteLength": 4096, "extensions": {"EXT_meshopt_compression": {"fallback": True}}},
        ],
    }
    if change:
        change(document, packed)
    return glb(document, packed + index)


def corners(path: Path) -> np.ndarray:
    """(m, 3, 3) of all triangles, each and all of them in a fixed order."""
    parts = np.concatenate([part.corners for part in read_mesh_file(path, "y")])
    return parts[np.lexsort(parts.mean(axis=1).round(2).T)]


def expected() -> np.ndarray:
    vertices, faces, _ = grid()
    turned = np.column_stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]])
    parts = turned[faces].astype(np.float64)
    return parts[np.lexsort(parts.mean(axis=1).round(2).T)]


@pytest.mark.parametrize("kind", ["draco", "meshopt", "quantised"])
def test_compressed_meshes_come_back(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tile.glb"
    path.write_bytes(draco() if kind == "draco" else meshopt(quantised=kind == "quantised"))
    found, true = corners(path), expected()
    assert found.shape == true.shape
    assert np.allclose(
        np.sort(found.mean(axis=1), axis=0), np.sort(true.mean(axis=1), axis=0), atol=2e-3
    )
    # Triangles keep their winding: all of the sheet looks up.
    normal = np.cross(found[:, 1] - found[:, 0], found[:, 2] - found[:, 0])
    wanted = np.cross(true[:, 1] - true[:, 0], true[:, 2] - true[:, 0])
    assert (np.sign(normal[:, 2]) == np.sign(wanted[0, 2])).all()


def too_many_faces(document: dict[str, Any], content: bytes) -> None:
    document["accessors"][1]["count"] = 3 * 10**9


def other_count(document: dict[str, Any], content: bytes) -> None:
    document["accessors"][1]["count"] = 3


def liar(document: dict[str, Any], content: bytes) -> bytes:
    # The second number after the traversal byte is the count of faces.
    return content[:12] + b"\xff\xff\xff\xff\x0f" + b"\xff\xff\xff\xff\x0f" + content[16:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (too_many_faces, "declared in"),
        (other_count, "triangles in Draco, 1 in glTF"),
        (liar, "declared in"),
        (lambda d, c: c[: len(c) // 2], "cannot be decoded"),
        (lambda d, c: b"nonsense" + c, "Draco 2.2"),
    ],
)
def test_draco_that_lies(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "tile.glb"
    path.write_bytes(draco(change))
    with pytest.raises(InputError, match=message):
        read_mesh_file(path, "y")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 2**40, "declared in"),
        ("byteStride", 4096, "declared in|bytes"),
        ("mode", "GUESS", "mode"),
        ("filter", "GUESS", "GUESS"),
        ("byteLength", 20, "cannot be decoded"),
    ],
)
def test_meshopt_that_lies(tmp_path: Path, key: str, value: Any, message: str) -> None:
    def change(document: dict[str, Any], content: bytes) -> None:
        view = document["bufferViews"][0]
        view["extensions"]["EXT_meshopt_compression"][key] = value

    path = tmp_path / "tile.glb"
    path.write_bytes(meshopt(change))
    with pytest.raises(InputError, match=message):
        read_mesh_file(path, "y")


@pytest.mark.parametrize("package", ["DracoPy", "meshoptimizer"])
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    data = draco() if package == "DracoPy" else meshopt()
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "tile.glb"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"read with {package}, which is not installed"):
        read_mesh_file(path, "y")


def test_the_document_is_not_changed() -> None:
    data = draco()
    length = struct.unpack("<I", data[12:16])[0]
    header = json.loads(data[20 : 20 + length])
    before = json.dumps(header)
    plain, document = unpack(header, data[28 + length :], "tile", lambda uri: b"")
    assert json.dumps(header) == before
    assert "extensionsRequired" not in document and plain[:4] == b"glTF"
