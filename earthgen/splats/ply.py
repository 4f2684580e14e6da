"""Gaussians as PLY files, as viewers of 3D Gaussian Splatting read them.

The names, the order and the encodings of the fields are those of the reference implementation
(Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering"): logit of the
opacity, natural logarithm of the scales, colour coefficients channel by channel. Its viewers
expect three scales where a disc has two, so a third, thin one is written. nx, ny, nz hold the
disc's normal, for programs that read the file as a point cloud. The layouts:

- "plain": these fields
- "inria": with 45 coefficients of colour always, 248 bytes a Gaussian: programs that copy the file
  into an array of that width read no other
- "exact": four more fields of one byte. Viewers that read fields by name ignore them, but some
  programs expect floats only, and read wrong numbers


- `semantic`: the class code
- `bits_opacity`, `bits_scale_0`, `bits_scale_1`: the last eight bits of these numbers in float32.
  A logit or a logarithm in float32 gives the number back within some units in the last place (at
  most 65, see `restore`). With these bits a file gives back exactly what was written. If a program
  edits a file without updating them, a number is wrong by at most 128 units in the last place, or
  0.002 %. (Their names do not begin with "scale_", because loaders count the fields that do.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from earthgen.splats.gaussians import Anchor, Gaussians
from earthgen.splats.transform import transform
from earthgen.voxels.splat_math import disc_normals
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import UNKNOWN_DATUM
from geo_io.safety.damage import damaged_file

NO_OPACITY, FULL_OPACITY = -110.0, 18.0
"""Stored instead of the logits of 0 and 1, which are infinite. In float32 the logistic function
maps them to 0 and 1."""

ENCODED = ("opacity", "scale_0", "scale_1")
"""Fields that hold a function of the number; the number's last bits are in `bits_...`."""

FLAT = 0.1
"""Largest ratio of the shortest to the middle scale of a 3D Gaussian that is read as a disc."""

FAR = 10_000.0
"""Metres from the anchor. Coordinates of other programs that are farther get a new anchor."""

EXACTLY_UNIT = 1e-6
"""Quaternions whose length differs from 1 by no more than this are not normalised."""

SCALARS = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
"""numpy type codes of the PLY types."""

BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
"""numpy byte orders of the PLY formats."""

HEADER_LIMIT = 1_000_000
"""Bytes within which a header has to end."""

Layout = Literal["exact", "plain", "inria"]
"""Which fields a file has; see above."""

Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Turns east, north, up to x east, y up, z south."""

_LARGEST = np.finfo(np.float32).max
_AGAIN = "export it again with `earthgen export --format ply`"


def record_type(degree: int, layout: Layout = "exact") -> np.dtype:
    """Type of one Gaussian in the file: little endian, packed.

    Parameters
    ----------
    degree : int
        Degree of the spherical harmonics, 0 to 3.
    layout : {"exact", "plain", "inria"}
    """
    degree = 3 if layout == "inria" else degree
    n_rest = 3 * ((degree + 1) ** 2 - 1)
    floats = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    floats += [f"f_rest_{i}" for i in range(n_rest)]
    floats += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    small = ("semantic", *map(bits_of, ENCODED)) if layout == "exact" else ()
    return np.dtype([(name, "<f4") for name in floats] + [(name, "u1") for name in small])


def bits_of(name: str) -> str:
    """Name of the field with the last bits of another field."""
    return f"bits_{name}"


def encode(gaussians: Gaussians, thickness: float, layout: Layout = "exact") -> NDArray:
    """Convert Gaussians to records of the file.

    Parameters
    ----------
    gaussians : Gaussians
        n Gaussians.
    thickness : float
        The third standard deviation of each disc, metres.
    layout : {"exact", "plain", "inria"}

    Returns
    -------
    NDArray (n,)
        Records of `record_type`.

    Raises
    ------
    SplatError
        If `Gaussians.check` finds invalid values: viewers do not expect NaN, and a scale of 0 has
        no logarithm.
    """
    gaussians.check()
    records = np.zeros(len(gaussians), record_type(gaussians.degree, layout))
    normals = disc_normals(gaussians.rotations)
    for axis, name in enumerate("xyz"):
        records[name] = gaussians.means[:, axis]
        records["n" + name] = normals[:, axis]
        records[f"f_dc_{axis}"] = gaussians.sh[:, 0, axis]
    # The reference implementation writes all of red, then green, then blue.
    n_rest = gaussians.sh.shape[1] - 1
    stored = 15 if layout == "inria" else n_rest
    for channel in range(3):
        for i in range(n_rest):
            records[f"f_rest_{channel * stored + i}"] = gaussians.sh[:, 1 + i, channel]
    numbers = dict(zip(ENCODED, (gaussians.opacities, *gaussians.scales.T), strict=True))
    records["opacity"] = logit(gaussians.opacities)
    for axis in range(2):
        records[f"scale_{axis}"] = np.log(gaussians.scales[:, axis].astype(np.float64))
    if layout == "exact":
        for name, value in numbers.items():
            records[bits_of(name)] = _pattern(value) & 255
        records["semantic"] = gaussians.semantic
    records["scale_2"] = np.log(thickness)
    for i in range(4):
        records[f"rot_{i}"] = gaussians.rotations[:, i]
    return records


def logit(opacities: NDArray) -> NDArray:
    """log(o / (1 - o)) in float64, finite at 0 and 1."""
    o = opacities.astype(np.float64)
    inside = np.clip(o, np.finfo(np.float32).smallest_subnormal, 1 - 2**-24)
    return np.where(
        o <= 0, NO_OPACITY, np.where(o >= 1, FULL_OPACITY, np.log(inside) - np.log1p(-inside))
    )


def logistic(logits: NDArray) -> NDArray:
    """1 / (1 + exp(-x)) in float32."""
    with np.errstate(over="ignore", under="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def exponential(logarithms: NDArray) -> NDArray:
    """exp(x) in float32; a result beyond float32 becomes its largest number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.minimum(np.exp(logarithms.astype(np.float64)), _LARGEST).astype(np.float32)


def restore(near: NDArray, bits: NDArray, most: float = float(_LARGEST)) -> NDArray:
    """Find the float32 numbers that have given last bits and are nearest to given numbers.

    Half a unit in the last place of a logarithm x in float32 is at most 2^-18 for |x| < 128. That
    is a relative error of exp(x) of 2^-18, or 64 units in the last place; the error of the
    logistic function is smaller. So the nearest number with these bits is the right one, even if
    the exp of another machine differs in its last digit.

    Parameters
    ----------
    near : NDArray (n,) float32
        Not negative, and less than 128 units in the last place from the numbers to find.
    bits : NDArray (n,) uint8
        Last eight bits of the numbers.
    most : float
        Upper bound of the result.

    Returns
    -------
    NDArray (n,) float32
        Numbers in [0, most].
    """
    pattern = _pattern(near)
    offset = ((bits.astype(np.int64) - pattern + 128) & 255) - 128
    restored = np.clip(pattern + offset, 0, _pattern(np.array([most], np.float32))[0])
    return np.where(np.isfinite(near), restored.astype(np.uint32).view(np.float32), near)


def _pattern(values: NDArray) -> NDArray:
    """(n,) int64 bits of numbers in float32; neighbouring numbers differ by one."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)


class PlyWriter:
    """Write a PLY file part by part; the number of Gaussians may be unknown until the end.

    The file appears under its name when the `with` block ends without an error.

    Parameters
    ----------
    path : Path
        The file.
    degree : int
        Degree of the spherical harmonics of all Gaussians.
    thickness : float
        Third standard deviation of each disc, metres.
    comments : sequence of str
        Comment lines of the header.
    layout : {"exact", "plain", "inria"}

    Attributes
    ----------
    count : int
        Number of Gaussians written so far.
    """

    def __init__(
        self,
        path: Path,
        degree: int,
        thickness: float,
        comments: Sequence[str] = (),
        layout: Layout = "exact",
    ) -> None:
        self.path = path
        self.count = 0
        self._degree = degree
        self._thickness = thickness
        self._layout: Layout = layout
        self._comments = list(comments)
        self._part = path.with_name(path.name + ".part")
        self._file: IO[bytes] = self._part.open("wb")
        self._file.write(self._header(0))

    def write(self, gaussians: Gaussians) -> None:
        """Append Gaussians; their degree has to be that of the file."""
        if gaussians.degree != self._degree:
            raise InputError(
                f"Gaussians of degree {gaussians.degree} do not fit {self.path} of degree "
                f"{self._degree}"
            )
        self._file.write(encode(gaussians, self._thickness, self._layout).tobytes())
        self.count += len(gaussians)

    def _header(self, count: int) -> bytes:
        record = record_type(self._degree, self._layout)
        lines = [
            "ply",
            "format binary_little_endian 1.0",
            *(f"comment {text}" for text in self._comments),
        ]
        # The header is written twice. A comment that gets shorter as the count gets longer keeps
        # its length. (Some viewers match the count by a pattern that allows no padding.)
        lines += [f"comment {'-' * (20 - len(str(count)))}", f"element vertex {count}"]
        lines += [
            f"property {'uchar' if record[name] == np.uint8 else 'float'} {name}"
            for name in record.names or ()
        ]
        return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(self._header(self.count))
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_ply(
    path: Path, gaussians: Gaussians, thickness: float, extra: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write Gaussians and their sidecar file.

    Parameters
    ----------
    path : Path
        The PLY file; the sidecar is `path` with ".json" appended.
    gaussians : Gaussians
        What to write.
    thickness : float
        Third standard deviation of each disc, metres.
    extra : mapping, optional
        More entries of the sidecar.

    Returns
    -------
    list of Path
        Both files.

    Raises
    ------
    SplatError
        If `Gaussians.check` finds invalid values.
    """
    with PlyWriter(path, gaussians.degree, thickness) as writer:
        writer.write(gaussians)
    return [path, sidecar(path, gaussians, extra or {})]


def sidecar(
    path: Path, gaussians: Gaussians, extra: Mapping[str, Any], layout: Layout = "exact"
) -> Path:
    """Write NAME.ply.json: anchor, CRS, axes and encodings of the PLY at `path`. Return its
    path."""
    out = path.with_name(path.name + ".json")
    small = {
        "bits": "bits_opacity, bits_scale_0, bits_scale_1: last eight bits of the numbers in "
        "float32",
        "semantic": "class code, see `earthgen legend`",
    }
    document = {
        "anchor": list(gaussians.anchor),
        "crs": gaussians.crs,
        "vertical_crs": gaussians.vertical_crs,
        "axes": {"x": "east", "y": "north", "z": "up"},
        "units": "metre",
        "position": "CRS coordinate = anchor + (x, y, z)",
        "encoding": {
            "opacity": "logit",
            "scale": "natural logarithm of metres; scale_0 and scale_1 are the disc's, "
            "scale_2 a thin third",
            "rotation": "unit quaternion rot_0..3 = w, x, y, z; turns z into the disc's normal",
            "colour": "sRGB = 0.5 + 0.28209479 * f_dc; f_rest by channel, then by coefficient",
            **(small if layout == "exact" else {}),
        },
        **extra,
    }
    out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return out


@dataclass
class _Element:
    """An element of a PLY header: type codes of its properties by name, None for a list."""

    name: str
    count: int
    properties: dict[str, str | None] = field(default_factory=dict)

    @property
    def has_lists(self) -> bool:
        return None in self.properties.values()

    def dtype(self, byte_order: str) -> np.dtype:
        codes = self.properties.items()
        return np.dtype([(name, byte_order + (code or "")) for name, code in codes])


@dataclass(frozen=True)
class _Header:
    """What the header of a PLY says, and where the data begin, in bytes."""

    format: str
    elements: list[_Element]
    end: int


def read_records(path: str | Path) -> NDArray:
    """Read the vertices of a PLY file in any of its three formats.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    NDArray (n,)
        Records of the file's own fields. Those of a binary file are mapped from the disk.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError
        If the file is not a PLY, has no vertices, is too short for what its header says, or puts
        lists into or before the vertices.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = _read_header(path, file)
            names = [element.name for element in header.elements]
            if "vertex" not in names:
                raise InputError(f"{path} has no vertices, only {', '.join(names)}", _AGAIN)
            place = names.index("vertex")
            before, vertex = header.elements[:place], header.elements[place]
            if vertex.has_lists:
                raise _unreadable(path, "its vertices have lists")
            if not vertex.properties:
                raise _unreadable(path, "its vertices have no properties")
            if header.format == "ascii":
                return _read_ascii(path, file, before, vertex)
            return _map_binary(path, header, before, vertex)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist", "give the path of a .ply file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read as PLY: {error}", _AGAIN) from error


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read as PLY: {why}", _AGAIN)


def _cut_short(path: Path, rows: int, count: int) -> InputError:
    return InputError(f"{path} ends after {rows} of {count} Gaussians", _AGAIN)


def _read_header(path: Path, file: IO[bytes]) -> _Header:
    if file.readline(HEADER_LIMIT).strip() != b"ply":
        raise InputError(f"{path} is not a PLY", "give the path of a .ply file")
    file_format = ""
    elements: dict[str, _Element] = {}
    element: _Element | None = None
    while file.tell() < HEADER_LIMIT:
        line = file.readline(HEADER_LIMIT).decode("ascii", "replace").strip()
        words = line.split()
        match words:
            case ["end_header"]:
                if not file_format:
                    raise _unreadable(path, "its header names no format")
                return _Header(file_format, list(elements.values()), file.tell())
            case ["comment" | "obj_info", *_]:
                continue
            case ["format", name, "1.0"] if name in BYTE_ORDERS:
                file_format = name
            case ["element", name, count] if count.isdecimal() and len(count) < 20:
                if name in elements:
                    raise _unreadable(path, f"its header has two elements {name!r}")
                element = elements[name] = _Element(name, int(count))
            case ["property", "list", length, item, name] if (
                element is not None and length in SCALARS and item in SCALARS
            ):
                _add_property(path, element, name, None)
            case ["property", code, name] if element is not None and code in SCALARS:
                _add_property(path, element, name, SCALARS[code])
            case _:
                raise _unreadable(path, f"its header has the line {line[:80]!r}")
    raise _unreadable(path, f"its header does not end within {HEADER_LIMIT:,} bytes")


def _add_property(path: Path, element: _Element, name: str, code: str | None) -> None:
    if name in element.properties:
        raise _unreadable(path, f"its element {element.name!r} has two properties {name!r}")
    element.properties[name] = code


def _map_binary(
    path: Path, header: _Header, before: Sequence[_Element], vertex: _Element
) -> NDArray:
    """Map the vertices of a binary file; the size of each element before them has to be known."""
    byte_order = BYTE_ORDERS[header.format]
    offset = header.end
    for element in before:
        if element.has_lists:
            raise _unreadable(path, f"lists of {element.name!r} stand before its vertices")
        offset += element.count * element.dtype(byte_order).itemsize
    record = vertex.dtype(byte_order)
    rows = max(path.stat().st_size - offset, 0) // record.itemsize
    if rows < vertex.count:
        raise _cut_short(path, rows, vertex.count)
    if vertex.count == 0:  # mmap refuses empty ranges
        return np.empty(0, record)
    return np.memmap(path, record, "r", offset, (vertex.count,))


def _read_ascii(
    path: Path, file: IO[bytes], before: Sequence[_Element], vertex: _Element
) -> NDArray:
    """Read the vertices of a text file, which has one line for each row of an element."""
    record = vertex.dtype("=")
    size = path.stat().st_size  # no file has more lines than bytes
    for element in before:
        for _ in islice(file, min(element.count, size)):
            pass
    lines = [line.decode("ascii", "replace") for line in islice(file, min(vertex.count, size))]
    if len(lines) < vertex.count:
        raise _cut_short(path, len(lines), vertex.count)
    if not lines:
        return np.empty(0, record)
    try:
        records = np.loadtxt(lines, record, comments=None, ndmin=1)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    if len(records) < vertex.count:
        raise _unreadable(path, f"{vertex.count - len(records)} lines of its vertices are empty")
    return records


def read_ply(
    path: str | Path,
    *,
    crs: str | None = None,
    vertical_crs: str = UNKNOWN_DATUM,
    anchor: Anchor = (0.0, 0.0, 0.0),
    flatten: bool = False,
) -> Gaussians:
    """Read Gaussians from a PLY file of `write_ply`, of the ply exporter, or of another program.

    Files of other programs: coordinates in float64, or beyond 10 km, get a new anchor near their
    middle, in whole metres (float32 keeps UTM coordinates to half a metre only). 3D Gaussians whose
    shortest scale is at most a tenth of the middle one become discs across it. Quaternions are
    normalised; absent classes become 0. Values are not checked; see `Gaussians.check`.

    Parameters
    ----------
    path : str or Path
        The file.
    crs : str, optional
        CRS of the file's coordinates, "" for none. If given, the sidecar file is not read.
    vertical_crs : str
        Vertical CRS of the file's coordinates, used if `crs` is given.
    anchor : tuple of float
        Origin of the file's coordinates in the CRS (east, north, up), metres, used if `crs` is
        given.
    flatten : bool
        Accept 3D Gaussians that are not discs, and drop their shortest axis.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError
        If the file cannot be read as PLY, its sidecar cannot be read, fields of Gaussians are
        missing, or there are 3D Gaussians that are not discs.
    MissingCrsError
        If no CRS is given and there is no sidecar file.
    """
    path = Path(path)
    with damaged_file(f"{path} cannot be read as PLY", _AGAIN):
        return _read(path, None if crs is None else (anchor, crs, vertical_crs), flatten)


def _read(path: Path, given: tuple[Anchor, str, str] | None, flatten: bool) -> Gaussians:
    records = read_records(path)
    names = records.dtype.names or ()
    _require_gaussians(path, names)
    place, up = (_read_sidecar(path)) if given is None else (given, "z")
    scales, rotations = _discs(path, records, flatten)
    opacities = logistic(records["opacity"])
    own = all(bits_of(name) in names for name in ENCODED)
    if own:
        opacities = restore(opacities, records[bits_of("opacity")], 1.0)
        scales = np.stack(
            [restore(scales[:, i], records[bits_of(f"scale_{i}")]) for i in range(2)], axis=1
        )
    else:
        rotations = _unit(rotations)
    at, means = _means(records, place[0], own)
    read = Gaussians(
        anchor=at,
        crs=place[1],
        vertical_crs=place[2],
        means=means,
        scales=scales,
        rotations=rotations,
        opacities=opacities,
        sh=_harmonics(path, records),
        semantic=records["semantic"].astype(np.uint8)
        if "semantic" in names
        else np.zeros(len(records), np.uint8),
    )
    return read if up == "z" else transform(read, rotation=Y_UP.T, about=place[0])


def _read_sidecar(path: Path) -> tuple[tuple[Anchor, str, str], str]:
    """Anchor, CRS and vertical CRS; and the axis that points up, y or z."""
    side = path.with_name(path.name + ".json")
    if not side.exists():
        raise MissingCrsError(
            f"{path} has no sidecar {side.name}, which holds its CRS and anchor",
            "copy both files, or give crs and anchor",
        )
    with damaged_file(f"{side} has no valid anchor and CRS", "export the world again"):
        place = json.loads(side.read_text("utf-8"))
        east, north, up = (float(value) for value in place["anchor"])
        upward = "y" if place.get("axes", {}).get("y") == "up" else "z"
        return ((east, north, up), str(place["crs"]), str(place["vertical_crs"])), upward


def _require_gaussians(path: Path, names: Sequence[str]) -> None:
    if "packed_position" in names:
        raise InputError(
            f"{path} holds Gaussians in a compressed form",
            "write a plain PLY with the program that made it",
        )
    needed = [
        name
        for name in record_type(0).names or ()
        if name[0] != "n" and name[:5] not in ("seman", "bits_")
    ]
    missing = [name for name in needed if name not in names and name != "scale_2"]
    if missing:
        colours = " It has points with red, green and blue: a point cloud." * (
            {"red", "green", "blue"} <= set(names)
        )
        raise InputError(
            f"{path} lacks the fields {', '.join(missing)} of Gaussians.{colours}",
            "give a PLY of Gaussian splats",
        )


def _columns(records: NDArray, *names: str) -> NDArray:
    """(n, len(names)) float32."""
    return np.stack([records[name].astype(np.float32) for name in names], axis=1)


def _means(records: NDArray, anchor: Anchor, own: bool) -> tuple[Anchor, NDArray]:
    positions = np.stack([records[axis].astype(np.float64) for axis in "xyz"], axis=1)
    finite = positions[np.isfinite(positions).all(axis=1)]
    single = all(records[axis].dtype.itemsize <= 4 for axis in "xyz")
    if own or len(finite) == 0 or (single and np.abs(finite).max() < FAR):
        return anchor, positions.astype(np.float32)
    middle = np.round(finite.mean(axis=0))
    at = np.asarray(anchor, np.float64) + middle
    return (float(at[0]), float(at[1]), float(at[2])), (positions - middle).astype(np.float32)


def _harmonics(path: Path, records: NDArray) -> NDArray:
    """(n, k, 3) float32; the file has all of red, then green, then blue."""
    names = records.dtype.names or ()
    n_rest = sum(name.startswith("f_rest_") for name in names)
    k = 1 + n_rest // 3
    absent = [f"f_rest_{i}" for i in range(n_rest) if f"f_rest_{i}" not in names]
    if n_rest % 3 or round(k**0.5) ** 2 != k or absent:
        raise InputError(
            f"{path} has {n_rest} fields f_rest_..., which are not the coefficients of a degree",
            "give a PLY with 0, 9, 24 or 45 of them, numbered from 0",
        )
    sh = np.empty((len(records), k, 3), np.float32)
    for channel in range(3):
        sh[:, 0, channel] = records[f"f_dc_{channel}"]
        for i in range(k - 1):
            sh[:, 1 + i, channel] = records[f"f_rest_{channel * (k - 1) + i}"]
    return sh


def _discs(path: Path, records: NDArray, flatten: bool) -> tuple[NDArray, NDArray]:
    """Scales (n, 2) and quaternions (n, 4) float32; 3D Gaussians lose their shortest axis."""
    names = records.dtype.names or ()
    rotations = _columns(records, "rot_0", "rot_1", "rot_2", "rot_3")
    scales = exponential(_columns(records, "scale_0", "scale_1"))
    if "scale_2" not in names or bits_of("opacity") in names:
        return scales, rotations
    three = np.column_stack([scales, exponential(_columns(records, "scale_2"))])
    ordered = np.sort(three, axis=1)
    thick = ordered[:, 0] > FLAT * ordered[:, 1]
    if thick.any() and not flatten:
        raise InputError(
            f"{thick.sum()} of {len(records)} Gaussians of {path} are not flat: their shortest "
            f"scale is more than {FLAT:.0%} of the middle one",
            "flatten=True drops the shortest axis of all",
        )
    shortest = np.argmin(three[:, ::-1], axis=1)  # the last of equal ones
    for axis, (first, second), turn in (
        (0, (1, 2), (0.5, 0.5, 0.5, 0.5)),
        (1, (2, 0), (0.5, -0.5, -0.5, -0.5)),
    ):
        rows = shortest == 2 - axis
        # The axes are renamed in cyclic order, x y z -> y z x or z x y. That is a rotation by 120
        # degrees about their diagonal.
        scales[rows] = three[rows][:, [first, second]]
        rotations[rows] = _multiply(rotations[rows], turn)
    return scales, rotations


def _multiply(rotations: NDArray, turn: Sequence[float]) -> NDArray:
    """(n, 4) float32 products: each quaternion times `turn`, which acts first."""
    w, x, y, z = rotations.astype(np.float64).T
    a, b, c, d = turn
    product = (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )
    return np.stack(product, axis=1).astype(np.float32)


def _unit(rotations: NDArray) -> NDArray:
    """Quaternions of length 1; other programs store trained ones of any length."""
    length = np.linalg.norm(rotations.astype(np.float64), axis=1, keepdims=True)
    near = np.abs(length - 1) <= EXACTLY_UNIT
    return (rotations / np.where(near | (length == 0), 1, length)).astype(np.float32)
