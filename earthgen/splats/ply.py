"""Gaussians as the PLY files that splat viewers read.

The field names and encodings are those of the reference implementation of 3D Gaussian Splatting (Kerbl et al.
2023): logit of the opacity, logarithm of the scales, colour coefficients per channel. Its viewers want three
scales where a disc has two, so a third, thin one is written. The disc's normal stands in nx, ny, nz, for programs
that take the file as a point cloud. The class code is a last field of its own; viewers that look fields up by name
pass over it.

PLY has no place for a CRS, so `NAME.ply.json` beside the file says it; see `sidecar`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from earthgen.levels import normals as disc_normals
from earthgen.splats.gaussians import Gaussians
from geo_io.errors import FieldError, InputError, MissingCrsError, MissingFileError

OPACITY_MARGIN = 1e-6
"""Opacities are held this far from 0 and 1, so that their logit is finite."""

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def record_type(degree: int) -> np.dtype:
    """One Gaussian as it stands in the file, little endian, without gaps."""
    rest = 3 * ((degree + 1) ** 2 - 1)
    floats = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    floats += [f"f_rest_{i}" for i in range(rest)]
    floats += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return np.dtype([(name, "<f4") for name in floats] + [("semantic", "u1")])


def encode(gaussians: Gaussians, thickness: float) -> NDArray:
    """(n,) records of `record_type`; `thickness` is the third standard deviation, metres."""
    records = np.zeros(len(gaussians), record_type(gaussians.degree))
    normals = disc_normals(gaussians.rotations)
    for axis, name in enumerate("xyz"):
        records[name] = gaussians.means[:, axis]
        records["n" + name] = normals[:, axis]
        records[f"f_dc_{axis}"] = gaussians.sh[:, 0, axis]
    # The reference implementation writes all of red, then green, then blue.
    rest = gaussians.sh.shape[1] - 1
    for channel in range(3):
        for i in range(rest):
            records[f"f_rest_{channel * rest + i}"] = gaussians.sh[:, 1 + i, channel]
    opacity = np.clip(gaussians.opacities.astype(np.float64), OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    records["opacity"] = np.log(opacity / (1 - opacity))
    tiny = np.finfo(np.float32).tiny
    for axis in range(2):
        records[f"scale_{axis}"] = np.log(np.maximum(gaussians.scales[:, axis], tiny))
    records["scale_2"] = np.log(thickness)
    for i in range(4):
        records[f"rot_{i}"] = gaussians.rotations[:, i]
    records["semantic"] = gaussians.semantic
    return records


class PlyWriter:
    """Writes a PLY piece by piece; the number of Gaussians need not be known before the end.

    The file appears under its name when the `with` block ends without an error.
    """

    def __init__(self, path: Path, degree: int, thickness: float, comments: Sequence[str] = ()) -> None:
        self.path = path
        self.count = 0
        self._degree = degree
        self._thickness = thickness
        self._comments = list(comments)
        self._part = path.with_name(path.name + ".part")
        self._file: IO[bytes] = self._part.open("wb")
        self._header_size = len(self._header(0))
        self._file.write(self._header(0))

    def write(self, gaussians: Gaussians) -> None:
        """Append Gaussians; they must have the file's degree."""
        if gaussians.degree != self._degree:
            raise FieldError(f"Gaussians of degree {gaussians.degree} do not fit {self.path} of degree {self._degree}")
        self._file.write(encode(gaussians, self._thickness).tobytes())
        self.count += len(gaussians)

    def _header(self, count: int) -> bytes:
        record = record_type(self._degree)
        lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in self._comments)]
        # The header is written twice, and keeps its length by a comment that is as much shorter as the count is
        # longer. (Blanks or zeros around the count itself would trip viewers that match it by a pattern.)
        lines += [f"comment {'-' * (20 - len(str(count)))}", f"element vertex {count}"]
        lines += [f"property {'uchar' if record[name] == np.uint8 else 'float'} {name}" for name in record.names or ()]
        return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(self._header(self.count))
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_ply(path: Path, gaussians: Gaussians, thickness: float, extra: Mapping[str, Any] | None = None) -> list[Path]:
    """Write Gaussians and their sidecar; `thickness` as of `encode`, `extra` goes into the sidecar."""
    with PlyWriter(path, gaussians.degree, thickness) as writer:
        writer.write(gaussians)
    return [path, sidecar(path, gaussians, extra or {})]


def sidecar(path: Path, gaussians: Gaussians, extra: Mapping[str, Any]) -> Path:
    """Write NAME.ply.json: anchor, CRS, axes and encodings of the PLY at `path`. Returns its path."""
    out = path.with_name(path.name + ".json")
    document = {
        "anchor": list(gaussians.anchor),
        "crs": gaussians.crs,
        "vertical_crs": gaussians.vertical_crs,
        "axes": {"x": "east", "y": "north", "z": "up"},
        "units": "metre",
        "position": "CRS coordinate = anchor + (x, y, z)",
        "encoding": {
            "opacity": "logit",
            "scale": "natural logarithm of metres; scale_0 and scale_1 are the disc's, scale_2 a thin third",
            "rotation": "unit quaternion rot_0..3 = w, x, y, z; turns z into the disc's normal",
            "colour": "sRGB = 0.5 + 0.28209479 * f_dc; f_rest by channel, then by coefficient",
            "semantic": "class code, see `earthgen legend`",
        },
        **extra,
    }
    out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return out


def read_records(path: Path) -> NDArray:
    """The vertices of a binary little-endian PLY as records of the file's own fields.

    Raises
    ------
    MissingFileError, InputError
        if the file is absent, is another kind of PLY, or is cut short
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", "give the path of a .ply file")
    again = "export it anew with `earthgen export --format ply`"
    with path.open("rb") as file:
        if file.readline().strip() != b"ply" or file.readline().split()[:2] != [b"format", b"binary_little_endian"]:
            raise InputError(f"{path} is not a binary little-endian PLY", again)
        count, fields, element = 0, [], ""
        for line in file:
            words = line.decode("ascii", "replace").split()
            if words[:1] == ["end_header"]:
                break
            if words[:1] == ["element"] and len(words) == 3:
                element = words[1]
                if element == "vertex":
                    count = int(words[2])
            elif words[:1] == ["property"] and element == "vertex":
                if len(words) != 3 or words[1] not in _TYPES:
                    raise InputError(f"{path} has a vertex field {' '.join(words[1:])!r} that cannot be read", again)
                fields.append((words[2], "<" + _TYPES[words[1]]))
        else:
            raise InputError(f"{path} has no end of its header", again)
        records = np.fromfile(file, np.dtype(fields), count)
    if len(records) < count:
        raise InputError(f"{path} ends after {len(records)} of {count} Gaussians", again)
    return records


def read_ply(path: str | Path) -> Gaussians:
    """Gaussians from a PLY and the sidecar beside it, as `write_ply` or the ply exporter made them.

    Positions, rotations, colours and classes come back to the bit, scales and opacities as far as the logarithm
    and the logit carry them.

    Raises
    ------
    MissingFileError, InputError, FieldError
        if the file is absent, cannot be read, or lacks a field
    MissingCrsError
        if the sidecar is absent
    """
    path = Path(path)
    records = read_records(path)
    side = path.with_name(path.name + ".json")
    if not side.exists():
        raise MissingCrsError(f"{path} has no {side.name} beside it, which says its CRS and anchor", "copy both files")
    try:
        place = json.loads(side.read_text("utf-8"))
        anchor = tuple(float(value) for value in place["anchor"])
        crs, vertical = str(place["crs"]), str(place["vertical_crs"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{side} does not say anchor and CRS: {error}", "export the world anew") from error
    names = records.dtype.names or ()
    missing = [name for name in record_type(0).names or () if name not in names and name != "semantic"]
    if missing:
        raise FieldError(f"{path} lacks the fields {', '.join(missing)}", "give a PLY of Gaussian splats")

    def columns(*fields: str) -> NDArray:
        return np.stack([records[field].astype(np.float32, copy=False) for field in fields], axis=1)

    rest = sum(name.startswith("f_rest_") for name in names) // 3
    sh = np.empty((len(records), 1 + rest, 3), np.float32)
    sh[:, 0] = columns("f_dc_0", "f_dc_1", "f_dc_2")
    for channel in range(3):
        for i in range(rest):
            sh[:, 1 + i, channel] = records[f"f_rest_{channel * rest + i}"]
    logit = records["opacity"].astype(np.float64)
    return Gaussians(
        anchor=(anchor[0], anchor[1], anchor[2]),
        crs=crs,
        vertical_crs=vertical,
        means=columns("x", "y", "z"),
        scales=np.exp(columns("scale_0", "scale_1").astype(np.float64)).astype(np.float32),
        rotations=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        opacities=(1 / (1 + np.exp(-logit))).astype(np.float32),
        sh=sh,
        semantic=records["semantic"].astype(np.uint8) if "semantic" in names else np.zeros(len(records), np.uint8),
    )
