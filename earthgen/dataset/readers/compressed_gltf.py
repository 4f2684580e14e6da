"""Compressed glTF as plain glTF: Draco (KHR_draco_mesh_compression), meshopt
(EXT_meshopt_compression), and quantised vertices (KHR_mesh_quantization).

Decoded with DracoPy (Apache-2.0) and meshoptimizer (MIT). Tiles come from anyone, so the counts
that a file declares are checked against its size before anything is allocated.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import InputError
from geo_io.safety.damage import damaged_file, describe

DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
QUANTISED = "KHR_mesh_quantization"
COMPRESSED = (DRACO, *MESHOPT, QUANTISED)

MOST_PER_BYTE = {"draco": 16, "meshopt": 256}
"""Largest believable expansion: triangles or vertices for a byte of Draco, bytes for a byte of
meshopt (https://github.com/zeux/meshoptimizer: 64 for its first vertex format). More is a file that
was made to exhaust the memory."""

SLACK = 4096
"""Elements or bytes that are always allowed, for tiny meshes."""

COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
FLOAT, UINT = 5126, 5125

GLB_HEADER = b"glTF" + struct.pack("<I", 2)


def is_compressed(header: Mapping[str, Any]) -> bool:
    """Whether a glTF document uses one of the extensions that `unpack` removes."""
    used = (*header.get("extensionsRequired", ()), *header.get("extensionsUsed", ()))
    return any(name in COMPRESSED for name in used)


def unpack(
    header: dict[str, Any], binary: bytes, where: str, fetch: Callable[[str], bytes]
) -> tuple[bytes, dict[str, Any]]:
    """Decode a glTF document.

    Parameters
    ----------
    header : dict
        The JSON of the document; it is not changed.
    binary : bytes
        The binary chunk of a .glb, else empty.
    where : str
        Name of the document, for error messages.
    fetch : Callable[[str], bytes]
        Gives the content of a file that the document refers to.

    Returns
    -------
    tuple[bytes, dict]
        A .glb without compression, and its JSON.

    Raises
    ------
    InputError
        if the document is damaged, declares more than its data can hold, or needs a package that
        is not installed
    """
    document = json.loads(json.dumps(header))
    problem, remedy = f"{where} is compressed glTF that cannot be decoded", "save it again"
    with damaged_file(problem, remedy), _decoder_errors():
        writer = _Writer(document, _buffers(document, binary, fetch), where)
        writer.views()
        for mesh in document.get("meshes", []):
            for primitive in mesh.get("primitives", []):
                writer.draco(primitive)
        writer.floats()
        return writer.glb(), document


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn errors of the decoders into ValueError."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(describe(error)) from error
    except Exception as error:
        # DracoPy's own errors derive from Exception alone.
        if type(error).__module__.startswith("DracoPy"):
            raise ValueError(describe(error)) from error
        raise


def _buffers(
    document: Mapping[str, Any], binary: bytes, fetch: Callable[[str], bytes]
) -> list[bytes]:
    """Return the content of all buffers; those that exist only as a fallback are empty."""
    out = []
    for number, buffer in enumerate(document.get("buffers", [])):
        uri = buffer.get("uri")
        if uri is None:
            out.append(binary if number == 0 else b"")
        elif str(uri).startswith("data:"):
            out.append(base64.b64decode(str(uri).partition(",")[2]))
        else:
            out.append(fetch(uri))
    return out


class _Writer:
    """The new buffer of a document, and its views."""

    def __init__(self, document: dict[str, Any], buffers: list[bytes], where: str) -> None:
        self.document, self.buffers, self.where = document, buffers, where
        self.data: list[bytes] = []
        self.length = 0
        self.raw: list[bytes] = []
        """Content of each view of the new document."""

    def add(self, content: bytes, view: dict[str, Any] | None = None) -> int:
        """Append content as a view, and return its number."""
        kept = {k: v for k, v in (view or {}).items() if k in ("byteStride", "target", "name")}
        new = {"buffer": 0, "byteOffset": self.length, "byteLength": len(content), **kept}
        padded = content + b"\0" * (-len(content) % 4)
        self.data.append(padded)
        self.length += len(padded)
        self.raw.append(content)
        if view is None:
            self.document.setdefault("bufferViews", []).append(new)
            return len(self.document["bufferViews"]) - 1
        view.clear()
        view.update(new)
        return len(self.raw) - 1

    def views(self) -> None:
        """Copy all views, and decode those that are compressed by meshopt."""
        for number, view in enumerate(self.document.get("bufferViews", [])):
            extensions = view.get("extensions", {})
            packed = next((extensions[name] for name in MESHOPT if name in extensions), None)
            if packed is None:
                self.add(self._slice(view), view)
                continue
            content, indices = _meshopt(self._slice(packed), packed, self.where)
            for accessor in self.document.get("accessors", []):
                if indices and accessor.get("bufferView") == number:
                    accessor["componentType"] = UINT
            self.add(content, view)

    def _slice(self, view: Mapping[str, Any]) -> bytes:
        content = self.buffers[int(view["buffer"])]
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(content):
            if view.get("extensions") or not content:
                return b""
            raise ValueError(f"a view of {length:,} bytes in a buffer of {len(content):,}")
        return content[start : start + length]

    def draco(self, primitive: dict[str, Any]) -> None:
        """Decode a primitive that is compressed by Draco."""
        packed = primitive.get("extensions", {}).pop(DRACO, None)
        if packed is None:
            return
        content = self.raw[int(packed["bufferView"])]
        accessors = self.document["accessors"]
        indices = accessors[int(primitive["indices"])]
        points = int(accessors[int(primitive["attributes"]["POSITION"])]["count"])
        _check_draco(content, int(indices["count"]) // 3, points, self.where)
        mesh = _dracopy(self.where).decode(content)
        faces = np.asarray(mesh.faces, "<u4")
        if faces.size and faces.max() >= len(mesh.points):
            raise ValueError("an index beyond the vertices")
        self._accessor(indices, faces.reshape(-1, 1), UINT)
        for name, place in primitive["attributes"].items():
            unique = packed["attributes"].get(name)
            if unique is None:
                continue
            values = np.asarray(mesh.get_attribute_by_unique_id(int(unique))["data"])
            values = values.reshape(len(mesh.points), -1)
            accessor = accessors[int(place)]
            if accessor.get("normalized") and values.dtype.kind in "iu":
                values = values / np.iinfo(values.dtype).max
            self._accessor(accessor, values.astype("<f4"), FLOAT)

    def floats(self) -> None:
        """Turn quantised vertices into floating point numbers."""
        accessors = self.document.get("accessors", [])
        done: set[int] = set()
        for mesh in self.document.get("meshes", []):
            for primitive in mesh.get("primitives", []):
                for name, place in primitive.get("attributes", {}).items():
                    plain = name.startswith(("POSITION", "NORMAL", "TEXCOORD"))
                    accessor = accessors[int(place)]
                    if plain and accessor["componentType"] != FLOAT and int(place) not in done:
                        done.add(int(place))
                        self._accessor(accessor, self._values(accessor), FLOAT)

    def _values(self, accessor: Mapping[str, Any]) -> NDArray:
        """Return (count, components) float32 values of an accessor."""
        kind = np.dtype(COMPONENTS[accessor["componentType"]])
        count, width = int(accessor["count"]), WIDTHS[accessor["type"]]
        number = int(accessor["bufferView"])
        content, start = self.raw[number], int(accessor.get("byteOffset", 0))
        stride = self.document["bufferViews"][number].get("byteStride", width * kind.itemsize)
        if count < 1 or start + (count - 1) * stride + width * kind.itemsize > len(content):
            raise ValueError(f"{count:,} values in a view of {len(content):,} bytes")
        values = np.ndarray(
            (count, width), kind, content, start, (int(stride), kind.itemsize)
        ).astype("<f4")
        if accessor.get("normalized"):
            values = np.maximum(values / np.iinfo(kind).max, -1.0).astype("<f4")
        return values

    def _accessor(self, accessor: dict[str, Any], values: NDArray, component: int) -> None:
        """Point an accessor to new values."""
        number = self.add(np.ascontiguousarray(values).tobytes())
        for key in ("byteOffset", "normalized", "sparse", "min", "max"):
            accessor.pop(key, None)
        accessor.update(bufferView=number, componentType=component, count=len(values))
        if values.shape[1] > 1:
            accessor["type"] = f"VEC{values.shape[1]}"
            low, high = values.min(axis=0), values.max(axis=0)
            accessor.update(min=low.tolist(), max=high.tolist())

    def glb(self) -> bytes:
        """Return the document as a .glb."""
        for key in ("extensionsUsed", "extensionsRequired"):
            left = [name for name in self.document.pop(key, []) if name not in COMPRESSED]
            if left:
                self.document[key] = left
        self.document["buffers"] = [{"byteLength": self.length}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        body = b"".join(self.data)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
        return GLB_HEADER + struct.pack("<I", 12 + len(chunks)) + chunks


def _meshopt(content: bytes, packed: Mapping[str, Any], where: str) -> tuple[bytes, bool]:
    """Return the decoded bytes of a view, and whether they are indices, which are then uint32."""
    count, stride = int(packed["count"]), int(packed["byteStride"])
    mode, how = packed["mode"], packed.get("filter", "NONE")
    _check_size(count * stride, len(content), "meshopt", "bytes")
    if count < 0 or not 1 <= stride <= 256:
        raise ValueError(f"{count} elements of {stride} bytes")
    decoder = _meshoptimizer(where)
    if mode in ("TRIANGLES", "INDICES"):
        decode = (
            decoder.decode_index_buffer if mode == "TRIANGLES" else decoder.decode_index_sequence
        )
        return np.asarray(decode(count, 4, content), "<u4").tobytes(), True
    if mode != "ATTRIBUTES":
        raise ValueError(f"the mode {mode!r}")
    values = decoder.decode_vertex_buffer(
        count, stride, content, dtype=np.dtype([("b", "u1", (stride,))])
    )
    flat = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    filters = {
        "OCTAHEDRAL": decoder.decode_filter_oct,
        "QUATERNION": decoder.decode_filter_quat,
        "EXPONENTIAL": decoder.decode_filter_exp,
    }
    if how != "NONE":
        flat = np.asarray(filters[how](flat, count, stride))
    return flat.tobytes(), False


def _check_draco(content: bytes, faces: int, points: int, where: str) -> None:
    """Check that the counts in the header of Draco data are those of glTF, and fit its size.

    The layout is that of the Draco bitstream specification 2.2, sections "Header" and
    "Connectivity".
    """
    magic, major, minor, kind, method, flags = struct.unpack("<5sBBBBH", content[:11])
    if magic != b"DRACO" or (major, minor) != (2, 2) or kind != 1:
        raise ValueError("it is no mesh of Draco 2.2")
    if flags & 0x8000:
        raise ValueError("it has metadata of Draco, which glTF does not allow")
    at = 11
    if method == 1:
        at += 1  # the way of traversal
    one, at = _varint(content, at)
    other, at = _varint(content, at)
    declared = (other, one) if method == 1 else (one, other)
    for number in (*declared, faces, points):
        _check_size(number, len(content), "draco", "triangles or vertices")
    if declared[0] != faces:
        raise ValueError(f"{declared[0]:,} triangles in Draco, {faces:,} in glTF")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to 64 bits, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _check_size(declared: int, size: int, codec: str, what: str) -> None:
    if declared > SLACK + MOST_PER_BYTE[codec] * size:
        raise ValueError(f"{declared:,} {what} declared in {size:,} bytes")


def _dracopy(where: str) -> Any:
    try:
        import DracoPy
    except ImportError as error:
        raise InputError(
            f"{where} is compressed by Draco, and is read with DracoPy, which is not installed",
            "pip install 'earthgen[dataset]'",
        ) from error
    return DracoPy


def _meshoptimizer(where: str) -> Any:
    try:
        from meshoptimizer import decoder
    except (ImportError, OSError) as error:
        raise InputError(
            f"{where} is compressed by meshopt, and is read with meshoptimizer, "
            "which is not installed",
            "pip install 'earthgen[meshopt]' (there is no wheel: it needs a C++ compiler), or save "
            "the file without compression, for example with `gltf-transform copy IN OUT`",
        ) from error
    return decoder
