"""Tile meshes as binary glTF 2.0: quantised (KHR_mesh_quantization), with what each vertex is.

One mesh has two primitives: the terrain, with a picture of the ground as its texture, and what
stands on it, with colours of vertices. Both say to which feature a point belongs
(EXT_mesh_features): the terrain by a texture, the rest by an attribute. The table of features
(EXT_structural_metadata) has class, object number and height. Axes are those of glTF: x east, y up,
z south.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from earthgen._version import __version__
from earthgen.errors import JobError
from earthgen.mesh.tile import LINEAR, Features, TileMesh
from earthgen.mesh.trees import Trees, model
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.spz import encode_spz, y_up
from earthgen.voxels.splat_math import base_colours
from geo_io.legend import classes

FLOAT, USHORT, SHORT, UBYTE, BYTE, UINT = 5126, 5123, 5122, 5121, 5120, 5125
ARRAY, ELEMENTS = 34962, 34963
QUALITY = {16: 90, 8: 80}
"""Of the pictures of the ground, JPEG, by the bits of colours."""

MESHOPT = "EXT_meshopt_compression"
QUANTISED = "KHR_mesh_quantization"
FEATURES = "EXT_mesh_features"
METADATA = "EXT_structural_metadata"
INSTANCES = "EXT_mesh_gpu_instancing"
INSTANCE_FEATURES = "EXT_instance_features"
SPLATS = "KHR_gaussian_splatting"
SPZ = "KHR_gaussian_splatting_compression_spz_2"

NORMALIZED = {"normalized": True}

SAMPLERS = [
    {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071},
    {"magFilter": 9728, "minFilter": 9728, "wrapS": 33071, "wrapT": 33071},
]
"""Linear filters for pictures; the nearest texel for features, which cannot be blended. Clamped."""

NO_CLASS = "no data"

TOP = np.uint16(65535)
"""The quantised northing at which z is 0."""


class GlbBuilder:
    """Collects buffer views and accessors, and packs them with a document as GLB.

    Parameters
    ----------
    meshopt : bool
        Compress attributes and indices (EXT_meshopt_compression).

    Raises
    ------
    JobError
        If that is asked for, and the package meshoptimizer is not installed.
    """

    def __init__(self, meshopt: bool = False) -> None:
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._plain = 0  # bytes that the compressed views stand for
        self._encoder = _meshopt() if meshopt else None

    def view(self, data: bytes, **more: Any) -> int:
        """Append bytes as a buffer view. Returns its index."""
        self.views.append({**self._store(data), **more})
        return len(self.views) - 1

    def _store(self, data: bytes) -> dict[str, Any]:
        at = self._size
        padding = -len(data) % 8
        self._parts.append(data + b"\0" * padding)
        self._size += len(data) + padding
        return {"buffer": 0, "byteOffset": at, "byteLength": len(data)}

    def _compressed(self, packed: bytes, raw: int, **more: Any) -> int:
        """Append a compressed view of `raw` bytes; they lie in a second buffer without data."""
        stride = more.pop("byteStride")
        mode = more.pop("mode")
        stored = self._store(packed)
        view: dict[str, Any] = {"buffer": 1, "byteOffset": self._plain, "byteLength": raw, **more}
        if mode == "ATTRIBUTES":
            view["byteStride"] = stride
        view["extensions"] = {
            MESHOPT: {**stored, "byteStride": stride, "count": raw // stride, "mode": mode}
        }
        self._plain += raw + -raw % 8
        self.views.append(view)
        return len(self.views) - 1

    def attribute(self, values: NDArray, component: int, **more: Any) -> int:
        """Append one value (or row) per vertex, padded to four bytes. Returns the accessor."""
        rows = np.ascontiguousarray(values.reshape(len(values), -1))
        width = rows.shape[1] * rows.itemsize
        stride = width + -width % 4
        raw = np.zeros((len(rows), stride), np.uint8)
        raw[:, :width] = rows.view(np.uint8).reshape(len(rows), width)
        if self._encoder is None:
            view = self.view(raw.tobytes(), byteStride=stride, target=ARRAY)
        else:
            packed = self._encoder.encode_vertex_buffer(raw, len(raw), stride)
            view = self._compressed(
                packed, raw.size, byteStride=stride, mode="ATTRIBUTES", target=ARRAY
            )
        kind = ("SCALAR", "VEC2", "VEC3", "VEC4")[rows.shape[1] - 1]
        self.accessors.append(
            {
                "bufferView": view,
                "componentType": component,
                "count": len(rows),
                "type": kind,
                **more,
            }
        )
        return len(self.accessors) - 1

    def indices(self, triangles: NDArray, vertices: int) -> int:
        """Append triangles in the smallest type that holds them. Returns the accessor."""
        small = vertices < 65536
        data = triangles.ravel().astype(np.uint16 if small else np.uint32)
        if self._encoder is None:
            view = self.view(data.tobytes(), target=ELEMENTS)
        else:
            packed = self._encoder.encode_index_buffer(
                triangles.ravel().astype(np.uint32), data.size, vertices
            )
            view = self._compressed(
                packed, data.nbytes, byteStride=data.itemsize, mode="TRIANGLES", target=ELEMENTS
            )
        self.accessors.append(
            {
                "bufferView": view,
                "componentType": USHORT if small else UINT,
                "count": data.size,
                "type": "SCALAR",
            }
        )
        return len(self.accessors) - 1

    def pack(self, document: Mapping[str, Any]) -> bytes:
        """Return the bytes of the GLB."""
        buffers: list[dict[str, Any]] = [{"byteLength": self._size}]
        if self._plain:
            buffers.append({"byteLength": self._plain, "extensions": {MESHOPT: {"fallback": True}}})
        whole = {
            **document,
            "bufferViews": self.views,
            "accessors": self.accessors,
            "buffers": buffers,
        }
        text = json.dumps(
            {name: value for name, value in whole.items() if value != []},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        text += b" " * (-len(text) % 8)
        blob = b"".join(self._parts)
        total = 12 + 8 + len(text) + 8 + len(blob)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, total),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(blob), b"BIN\0"),
                blob,
            ]
        )


def _meshopt() -> Any:
    try:
        import meshoptimizer
    except ImportError as error:
        raise JobError(
            "meshopt compression needs the package meshoptimizer, which is not installed",
            "pip install 'earthgen[meshopt]', or leave out `compression`",
        ) from error
    meshoptimizer.encode_vertex_version(0)  # that of the extension
    meshoptimizer.encode_index_version(1)
    return meshoptimizer


class GlbScene:
    """Collects tile meshes, splats and instances as the nodes of one scene.

    Parameters
    ----------
    anchor : tuple of float
        East, north, height of the coordinates' origin: CRS metres.
    copyright_text : str
        Attribution, `asset.copyright`, which viewers show.
    extras : mapping, optional
        JSON values of the scene.
    colour_bits : int
        16, or 8 where small files matter more than steps in dark colours.
    meshopt : bool
        Compress meshes by meshopt.
    """

    def __init__(
        self,
        anchor: tuple[float, float, float],
        *,
        copyright_text: str = "",
        extras: Mapping[str, Any] | None = None,
        colour_bits: int = 16,
        meshopt: bool = False,
    ) -> None:
        self.anchor = anchor
        self._out = GlbBuilder(meshopt)
        self._credit, self._extras = copyright_text, extras
        self._bits = colour_bits
        self._used = {MESHOPT} if meshopt else set()
        self._required = set(self._used)
        self._nodes: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._textures: list[dict[str, Any]] = []
        self._materials: list[dict[str, Any]] = []
        self._tables: list[dict[str, Any]] = []

    def add_mesh(self, name: str, tile: TileMesh) -> None:
        """Add a tile as a node with a mesh."""
        table = len(self._tables)
        self._tables.append(_table(self._out, tile.features, table))
        count = len(tile.features.semantic)
        primitives = []
        if len(tile.terrain_triangles):
            primitives.append(self._ground(tile, count, table))
        if len(tile.solid_triangles):
            primitives.append(self._solids(tile, count, table))
        self._used |= {QUANTISED, FEATURES, METADATA}
        self._required.add(QUANTISED)
        self._meshes.append({"name": name, "primitives": primitives})
        east, north, up = (a - b for a, b in zip(tile.origin, self.anchor, strict=True))
        self._nodes.append(
            {
                "name": name,
                "mesh": len(self._meshes) - 1,
                "translation": [east, up, -north - int(TOP) * tile.step],
                "scale": [tile.step] * 3,
            }
        )

    def _ground(self, tile: TileMesh, count: int, table: int) -> dict[str, Any]:
        out = self._out
        picture, ids = io.BytesIO(), io.BytesIO()
        Image.fromarray(tile.picture).save(
            picture, "JPEG", quality=QUALITY[self._bits], subsampling=0
        )
        Image.fromarray(tile.classes).save(ids, "PNG")
        for sampler, (data, mime) in enumerate(((picture, "image/jpeg"), (ids, "image/png"))):
            self._images.append({"bufferView": out.view(data.getvalue()), "mimeType": mime})
            self._textures.append({"source": len(self._images) - 1, "sampler": sampler})
        self._materials.append(
            _material("ground", {"baseColorTexture": {"index": len(self._textures) - 2}})
        )
        normal = _glb_axes(tile.terrain_normal)
        ids_of = {
            "nullFeatureId": 0,
            "texture": {"index": len(self._textures) - 1, "texCoord": 0, "channels": [0]},
        }
        return {
            "attributes": {
                "POSITION": _position(out, tile.terrain),
                "NORMAL": out.attribute(normal, BYTE, normalized=True),
                "TEXCOORD_0": out.attribute(tile.terrain_uv, USHORT, normalized=True),
            },
            "indices": out.indices(tile.terrain_triangles, len(tile.terrain)),
            "material": len(self._materials) - 1,
            "extensions": _feature_ids(count, table, ids_of),
        }

    def _solids(self, tile: TileMesh, count: int, table: int) -> dict[str, Any]:
        out = self._out
        colour = tile.colour if self._bits == 16 else np.rint(tile.colour / 257).astype(np.uint8)
        return {
            "attributes": {
                "POSITION": _position(out, tile.solid),
                "NORMAL": out.attribute(_glb_axes(tile.solid_normal), BYTE, normalized=True),
                "COLOR_0": out.attribute(
                    colour, USHORT if self._bits == 16 else UBYTE, normalized=True
                ),
                "_FEATURE_ID_0": out.attribute(tile.feature, USHORT),
            },
            "indices": out.indices(tile.solid_triangles, len(tile.solid)),
            "material": self._material_named("objects"),
            "extensions": _feature_ids(count, table, {"attribute": 0}),
        }

    def _material_named(self, name: str) -> int:
        for number, material in enumerate(self._materials):
            if material["name"] == name:
                return number
        self._materials.append(_material(name, {}))
        return len(self._materials) - 1

    def add_trees(self, name: str, trees: Trees) -> None:
        """Add trees as instances of a model for each kind (EXT_mesh_gpu_instancing)."""
        table = len(self._tables)
        kinds = Features(trees.semantic, trees.object, trees.size[:, 2])
        self._tables.append(_table(self._out, kinds, table))
        self._used |= {INSTANCES, INSTANCE_FEATURES, METADATA}
        self._required.add(INSTANCES)
        for conical, kind in ((False, "round"), (True, "conical")):
            rows = np.flatnonzero(trees.conical == conical)
            if not len(rows):
                continue
            east, north, up = (trees.place[rows] - np.asarray(self.anchor)).T
            size = trees.size[rows]
            colour = LINEAR[trees.rgb[rows]].astype(np.float32) / 65535
            attributes = {
                "TRANSLATION": np.stack([east, up, -north], axis=1).astype(np.float32),
                "SCALE": size[:, [0, 2, 1]],
                "_COLOR_0": colour,
            }
            accessors = {
                key: self._out.attribute(values, FLOAT) for key, values in attributes.items()
            }
            accessors["_FEATURE_ID_0"] = self._out.attribute(rows.astype(np.float32), FLOAT)
            ids = {"featureCount": len(trees), "attribute": 0, "propertyTable": table}
            self._nodes.append(
                {
                    "name": f"{name}_{kind}",
                    "mesh": self._model(kind),
                    "extensions": {
                        INSTANCES: {"attributes": accessors},
                        INSTANCE_FEATURES: {"featureIds": [ids]},
                    },
                }
            )

    def _model(self, kind: str) -> int:
        """The mesh of a kind of tree, which all tiles of a file share."""
        for number, mesh in enumerate(self._meshes):
            if mesh["name"] == kind:
                return number
        position, normal, colour, triangles = model(kind)
        limits = {"min": position.min(axis=0).tolist(), "max": position.max(axis=0).tolist()}
        self._used.add(QUANTISED)
        self._required.add(QUANTISED)
        primitive = {
            "attributes": {
                "POSITION": self._out.attribute(position, FLOAT, **limits),
                "NORMAL": self._out.attribute(_bytes_of(normal), BYTE, normalized=True),
                "COLOR_0": self._out.attribute(
                    np.rint(colour * 255).astype(np.uint8), UBYTE, normalized=True
                ),
            },
            "indices": self._out.indices(triangles, len(position)),
            "material": self._material_named("objects"),
        }
        self._meshes.append({"name": kind, "primitives": [primitive]})
        return len(self._meshes) - 1

    def add_splats(self, name: str, gaussians: Gaussians, *, spz: bool = False) -> None:
        """Add Gaussians as a node: KHR_gaussian_splatting, of which only the base colour is kept.

        Parameters
        ----------
        name : str
            Of the node.
        gaussians : Gaussians
            In the CRS of the anchor.
        spz : bool
            Packed as SPZ version 2 (KHR_gaussian_splatting_compression_spz_2), which Cesium reads.
            SPZ has no classes: they are in a buffer view, a byte each and compressed by gzip, that
            `extras.classes` of the primitive names.

        Raises
        ------
        SplatError
            If SPZ does not reach as far from the anchor as they are.
        """
        means, scales, rotations = y_up(gaussians, self.anchor)
        n = len(means)
        limits = {
            "min": means.min(axis=0).astype(float).tolist(),
            "max": means.max(axis=0).astype(float).tolist(),
        }
        extension: dict[str, Any] = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
        columns = {
            "POSITION": (means, FLOAT, limits),
            SPLATS + ":ROTATION": (np.rint(rotations * 32767).astype(np.int16), SHORT, NORMALIZED),
            SPLATS + ":SCALE": (scales, FLOAT, {}),
            SPLATS + ":OPACITY": (
                np.rint(gaussians.opacities * 255).astype(np.uint8),
                UBYTE,
                NORMALIZED,
            ),
            SPLATS + ":SH_DEGREE_0_COEF_0": (gaussians.sh[:, 0].astype(np.float32), FLOAT, {}),
            "COLOR_0": (_display_colours(gaussians), UBYTE, NORMALIZED),
        }
        self._used.add(SPLATS)
        primitive: dict[str, Any] = {"mode": 0, "extensions": {SPLATS: extension}}
        if spz:
            self._used.add(SPZ)
            self._required |= {SPLATS, SPZ}
            packed = encode_spz(gaussians, self.anchor)
            extension["extensions"] = {SPZ: {"bufferView": self._out.view(packed)}}
            classes_packed = gzip.compress(gaussians.semantic.astype(np.uint8).tobytes(), mtime=0)
            primitive["extras"] = {"classes": self._out.view(classes_packed)}
            attributes = {}
            for key, (values, component, more) in columns.items():
                width = 1 if values.ndim == 1 else values.shape[1]
                # What a decoder gives: the types are those after decoding.
                unpacked = UBYTE if key == "COLOR_0" else FLOAT
                self._out.accessors.append(
                    {
                        "componentType": unpacked,
                        "count": n,
                        "type": ("SCALAR", "VEC2", "VEC3", "VEC4")[width - 1],
                        **(more if unpacked == component else {}),
                    }
                )
                attributes[key] = len(self._out.accessors) - 1
        else:
            attributes = {
                key: self._out.attribute(values, component, **more)
                for key, (values, component, more) in columns.items()
            }
        primitive["attributes"] = attributes
        self._meshes.append({"name": name, "primitives": [primitive]})
        self._nodes.append({"name": name, "mesh": len(self._meshes) - 1})

    def pack(self) -> bytes:
        """Return the bytes of the GLB."""
        asset: dict[str, Any] = {"version": "2.0", "generator": f"earthgen {__version__}"}
        if self._credit:
            asset["copyright"] = self._credit
        scene: dict[str, Any] = {"name": "earthgen", "nodes": list(range(len(self._nodes)))}
        if self._extras:
            scene["extras"] = dict(self._extras)
        document: dict[str, Any] = {
            "asset": asset,
            "extensionsUsed": sorted(self._used),
            "extensionsRequired": sorted(self._required),
            "scene": 0,
            "scenes": [scene],
            "nodes": self._nodes,
            "meshes": self._meshes,
            "materials": self._materials,
            "textures": self._textures,
            "images": self._images,
            "samplers": SAMPLERS if self._textures else [],
        }
        if self._tables:
            document["extensions"] = {
                METADATA: {"schema": schema(), "propertyTables": self._tables}
            }
        return self._out.pack(document)


def schema() -> dict[str, Any]:
    """Return the schema of the features' table (EXT_structural_metadata)."""
    values = [{"name": NO_CLASS, "value": 0}]
    values += [{"name": land.name, "value": land.code} for land in classes()]
    return {
        "id": "earthgen",
        "enums": {"landClass": {"valueType": "UINT8", "values": values}},
        "classes": {
            "surface": {
                "properties": {
                    "class": {
                        "name": "land class",
                        "type": "ENUM",
                        "enumType": "landClass",
                        "required": True,
                    },
                    "object": {
                        "description": "number of the building or tree; 0 for the ground, and for "
                        "objects that a coarse level does not tell apart",
                        "type": "SCALAR",
                        "componentType": "UINT32",
                        "required": True,
                    },
                    "height": {
                        "description": "highest point above the ground, metres",
                        "type": "SCALAR",
                        "componentType": "FLOAT32",
                        "required": True,
                    },
                }
            }
        },
    }


def _table(out: GlbBuilder, features: Features, number: int) -> dict[str, Any]:
    columns = {
        "class": features.semantic.astype(np.uint8),
        "object": features.object.astype("<u4"),
        "height": features.height.astype("<f4"),
    }
    return {
        "name": f"features {number}",
        "class": "surface",
        "count": len(features.semantic),
        "properties": {
            name: {"values": out.view(np.ascontiguousarray(values).tobytes())}
            for name, values in columns.items()
        },
    }


def _feature_ids(count: int, table: int, source: dict[str, Any]) -> dict[str, Any]:
    ids = {"featureCount": count, "propertyTable": table, **source}
    return {"EXT_mesh_features": {"featureIds": [ids]}}


def _material(name: str, colour: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "pbrMetallicRoughness": {**colour, "metallicFactor": 0.0, "roughnessFactor": 1.0},
    }


def _glb_axes(values: NDArray) -> NDArray:
    """East, north, up to x east, y up, z south, of signed values."""
    return np.stack([values[:, 0], values[:, 2], -values[:, 1]], axis=1)


def _position(out: GlbBuilder, quantised: NDArray) -> int:
    """Append positions; z counts from TOP to the south, because quantised values are unsigned."""
    data = np.stack([quantised[:, 0], quantised[:, 2], TOP - quantised[:, 1]], axis=1)
    low, high = data.min(axis=0), data.max(axis=0)
    return out.attribute(
        data, USHORT, min=[int(value) for value in low], max=[int(value) for value in high]
    )


def _bytes_of(normal: NDArray) -> NDArray:
    return np.rint(normal * 127).astype(np.int8)


def _display_colours(gaussians: Gaussians) -> NDArray:
    """(n, 4) uint8 linear colours and opacities, for viewers that draw points."""
    out = np.empty((len(gaussians), 4), np.uint8)
    out[:, :3] = np.rint(LINEAR[base_colours(gaussians.sh)] / 257)
    out[:, 3] = np.rint(gaussians.opacities * 255)
    return out
