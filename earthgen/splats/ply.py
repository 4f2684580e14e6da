"""How a Gaussian stands in a PLY: names, order and encodings of its fields.

They are those of the reference implementation of 3D Gaussian Splatting (Kerbl et al. 2023): logit
of the opacity, logarithm of the scales, colour coefficients per channel. Its viewers want three
scales where a disc has two, so a third, thin one is written. The disc's normal stands in nx, ny,
nz, for programs that take the file as a point cloud. Four fields of one byte come last; viewers
that look fields up by name pass over them:

- `semantic` : the class code
- `bits_opacity`, `bits_scale_0`, `bits_scale_1` : the last eight bits of these numbers in float32.
  A logit or logarithm
  in float32 tells them to some units in the last place (at most 65, see `restore`), and these bits
  tell which of those it was, so that a file gives back what was written, to the bit. A program that
  edits a file without knowing them does little harm: a number comes out wrong by 128 units in the
  last place, or 0.002 %. (Their names do not begin with "scale_", since loaders count fields that
  do.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from earthgen.splats.gaussians import Anchor, Gaussians
from earthgen.voxels.splat_math import normals as disc_normals
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import UNKNOWN_DATUM

NO_OPACITY, FULL_OPACITY = -110.0, 18.0
"""What stands for the logits of 0 and 1, which are infinite: the logistic function takes them to
0 and 1 in float32."""

ENCODED = ("opacity", "scale_0", "scale_1")
"""Fields that hold a function of the number, and have their last bits in `bits_...`."""

_LARGEST = np.finfo(np.float32).max


def record_type(degree: int) -> np.dtype:
    """One Gaussian as it stands in the file, little endian, without gaps."""
    rest = 3 * ((degree + 1) ** 2 - 1)
    floats = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    floats += [f"f_rest_{i}" for i in range(rest)]
    floats += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return np.dtype(
        [(name, "<f4") for name in floats]
        + [(name, "u1") for name in ("semantic", *map(bits_of, ENCODED))]
    )


def bits_of(field: str) -> str:
    """The field with the last bits of another."""
    return f"bits_{field}"


def encode(gaussians: Gaussians, thickness: float) -> NDArray:
    """(n,) records of `record_type`; `thickness` is the third standard deviation, metres.

    Raises
    ------
    SplatError
        if `Gaussians.check` finds a fault: viewers do strange things with NaN, and a scale of 0 has
        no logarithm
    """
    gaussians.check()
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
    numbers = dict(zip(ENCODED, (gaussians.opacities, *gaussians.scales.T), strict=True))
    records["opacity"] = logit(gaussians.opacities)
    for axis in range(2):
        records[f"scale_{axis}"] = np.log(gaussians.scales[:, axis].astype(np.float64))
    for name, value in numbers.items():
        records[bits_of(name)] = _pattern(value) & 255
    records["scale_2"] = np.log(thickness)
    for i in range(4):
        records[f"rot_{i}"] = gaussians.rotations[:, i]
    records["semantic"] = gaussians.semantic
    return records


def logit(opacities: NDArray) -> NDArray:
    """float64 log(o / (1 - o)), finite at 0 and 1."""
    o = opacities.astype(np.float64)
    inside = np.clip(o, np.finfo(np.float32).smallest_subnormal, 1 - 2**-24)
    return np.where(
        o <= 0, NO_OPACITY, np.where(o >= 1, FULL_OPACITY, np.log(inside) - np.log1p(-inside))
    )


def logistic(logits: NDArray) -> NDArray:
    """float32 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore", under="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def exponential(logarithms: NDArray) -> NDArray:
    """float32 exp(x); what is beyond float32 becomes its largest number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.minimum(np.exp(logarithms.astype(np.float64)), _LARGEST).astype(np.float32)


def restore(near: NDArray, bits: NDArray, most: float = float(_LARGEST)) -> NDArray:
    """The float32 numbers in [0, most] with these last eight bits that are nearest to `near`.

    near : (n,) float32, not negative, less than 128 units in the last place from the number looked
        for
    bits : (n,) uint8

    Half a unit of a logarithm x in float32 is at most 2^-18 for |x| < 128, a relative error of
    exp(x) of 2^-18, or 64 units in the last place; that of the logistic function is smaller. So the
    nearest is the right one, also where another machine's exp differs in its last digit.
    """
    pattern = _pattern(near)
    away = ((bits.astype(np.int64) - pattern + 128) & 255) - 128
    found = np.clip(pattern + away, 0, _pattern(np.array([most], np.float32))[0])
    return np.where(np.isfinite(near), found.astype(np.uint32).view(np.float32), near)


def _pattern(values: NDArray) -> NDArray:
    """(n,) int64 bits of numbers in float32, in which neighbours differ by one."""
    return np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)


FLAT = 0.1
"""Of a 3D Gaussian: shortest to middle scale, up to which it counts as a disc."""

FAR = 10_000.0
"""Metres from the anchor beyond which coordinates of other programs get one of their own."""

EXACTLY_UNIT = 1e-6
"""Quaternions whose length is this near to 1 are taken as they stand, others are normalised."""


class PlyWriter:
    """Writes a PLY piece by piece; the number of Gaussians need not be known before the end.

    The file appears under its name when the `with` block ends without an error.
    """

    def __init__(
        self, path: Path, degree: int, thickness: float, comments: Sequence[str] = ()
    ) -> None:
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
            raise InputError(
                f"Gaussians of degree {gaussians.degree} do not fit {self.path} of degree {self._degree}"
            )
        self._file.write(encode(gaussians, self._thickness).tobytes())
        self.count += len(gaussians)

    def _header(self, count: int) -> bytes:
        record = record_type(self._degree)
        lines = [
            "ply",
            "format binary_little_endian 1.0",
            *(f"comment {text}" for text in self._comments),
        ]
        # The header is written twice, and keeps its length by a comment that is as much shorter as
        # the count is longer. (Blanks or zeros around the count itself would trip viewers that
        # match it by a pattern.)
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
    """Write Gaussians and their sidecar; `thickness` as of `encode`, `extra` goes into the
    sidecar."""
    with PlyWriter(path, gaussians.degree, thickness) as writer:
        writer.write(gaussians)
    return [path, sidecar(path, gaussians, extra or {})]


def sidecar(path: Path, gaussians: Gaussians, extra: Mapping[str, Any]) -> Path:
    """Write NAME.ply.json: anchor, CRS, axes and encodings of the PLY at `path`. Returns its
    path."""
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
            "bits": "bits_opacity, bits_scale_0, bits_scale_1: last eight bits of the numbers in float32",
            "rotation": "unit quaternion rot_0..3 = w, x, y, z; turns z into the disc's normal",
            "colour": "sRGB = 0.5 + 0.28209479 * f_dc; f_rest by channel, then by coefficient",
            "semantic": "class code, see `earthgen legend`",
        },
        **extra,
    }
    out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return out


def read_records(path: str | Path) -> NDArray:
    """The vertices of a PLY of any format as records of the file's own fields; binary ones stay on
    disk until used.

    Raises
    ------
    MissingFileError, InputError
        if the file is absent, is no PLY, has no vertices, or is cut short
    """
    import plyfile

    path = Path(path)
    again = "export it anew with `earthgen export --format ply`"
    try:
        with path.open("rb") as file:
            if file.readline().strip() != b"ply":
                raise InputError(f"{path} is not a PLY", "give the path of a .ply file")
        found = plyfile.PlyData.read(str(path), mmap="r")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist", "give the path of a .ply file") from error
    except plyfile.PlyElementParseError as error:
        element = error.element
        if error.message == "early end-of-file" and element is not None:
            raise InputError(
                f"{path} ends after {error.row} of {element.count} Gaussians", again
            ) from error
        raise InputError(f"{path} cannot be read: {error}", again) from error
    except (plyfile.PlyParseError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as PLY: {error}", again) from error
    if "vertex" not in found:
        raise InputError(
            f"{path} has no vertices, only {', '.join(e.name for e in found.elements)}", again
        )
    return found["vertex"].data


def read_ply(
    path: str | Path,
    *,
    crs: str | None = None,
    vertical_crs: str = UNKNOWN_DATUM,
    anchor: Anchor = (0.0, 0.0, 0.0),
    flatten: bool = False,
) -> Gaussians:
    """Gaussians from a PLY: of `write_ply` or the ply exporter, or of another program.

    crs, vertical_crs, anchor : where the file's coordinates are, if no sidecar beside the file says
        it; crs "" for
        nowhere. Given a crs, a sidecar is not looked for.
    flatten : take 3D Gaussians that are no discs, and drop their shortest axis

    Of other programs' files: coordinates in float64, or beyond 10 km, get an anchor of their own
    near their middle, in whole metres (such as UTM, of which float32 keeps half metres). 3D
    Gaussians whose shortest scale is at most a tenth of the middle one become discs across it.
    Quaternions are normalised; classes that are not there are 0. Values are not looked at:
    `Gaussians.check` does that.

    Raises
    ------
    MissingFileError, InputError
        if there is no such file, it cannot be read as PLY, or its sidecar cannot be read
    MissingCrsError
        if no CRS is given and the sidecar is absent
    InputError
        if fields of Gaussians are missing, or there are 3D Gaussians that are no discs
    """
    path = Path(path)
    records = read_records(path)
    names = records.dtype.names or ()
    _require_gaussians(path, names)
    place = (anchor, crs, vertical_crs) if crs is not None else _place(path)
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
    return Gaussians(
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


def _place(path: Path) -> tuple[Anchor, str, str]:
    side = path.with_name(path.name + ".json")
    if not side.exists():
        raise MissingCrsError(
            f"{path} has no {side.name} beside it, which says its CRS and anchor",
            "copy both files, or give crs and anchor",
        )
    try:
        place = json.loads(side.read_text("utf-8"))
        east, north, up = (float(value) for value in place["anchor"])
        return (east, north, up), str(place["crs"]), str(place["vertical_crs"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{side} does not say anchor and CRS: {error}", "export the world anew"
        ) from error


def _require_gaussians(path: Path, names: Sequence[str]) -> None:
    if "packed_position" in names:
        raise InputError(
            f"{path} holds Gaussians in a compressed form",
            "write it as a plain PLY from the program it is of",
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


def _columns(records: NDArray, *fields: str) -> NDArray:
    """(n, len(fields)) float32."""
    return np.stack([records[field].astype(np.float32) for field in fields], axis=1)


def _means(records: NDArray, anchor: Anchor, own: bool) -> tuple[Anchor, NDArray]:
    places = np.stack([records[axis].astype(np.float64) for axis in "xyz"], axis=1)
    known = places[np.isfinite(places).all(axis=1)]
    short = all(records[axis].dtype.itemsize <= 4 for axis in "xyz")
    if own or len(known) == 0 or (short and np.abs(known).max() < FAR):
        return anchor, places.astype(np.float32)
    middle = np.round(known.mean(axis=0))
    at = np.asarray(anchor, np.float64) + middle
    return (float(at[0]), float(at[1]), float(at[2])), (places - middle).astype(np.float32)


def _harmonics(path: Path, records: NDArray) -> NDArray:
    """(n, k, 3) float32; in the file stands all of red, then green, then blue."""
    names = records.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    k = 1 + rest // 3
    absent = [f"f_rest_{i}" for i in range(rest) if f"f_rest_{i}" not in names]
    if rest % 3 or round(k**0.5) ** 2 != k or absent:
        raise InputError(
            f"{path} has {rest} fields f_rest_..., which are not the coefficients of a degree",
            "give a PLY with 0, 9, 24 or 45 of them, numbered from 0",
        )
    sh = np.empty((len(records), k, 3), np.float32)
    for channel in range(3):
        sh[:, 0, channel] = records[f"f_dc_{channel}"]
        for i in range(k - 1):
            sh[:, 1 + i, channel] = records[f"f_rest_{channel * (k - 1) + i}"]
    return sh


def _discs(path: Path, records: NDArray, flatten: bool) -> tuple[NDArray, NDArray]:
    """Scales (n, 2) and quaternions (n, 4) float32, of 3D Gaussians across their shortest axis."""
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
            f"{thick.sum()} of {len(records)} Gaussians of {path} are not flat: their shortest scale is more than "
            f"{FLAT:.0%} of the middle one",
            "flatten=True drops the shortest axis of all",
        )
    shortest = np.argmin(three[:, ::-1], axis=1)  # of equals the last
    for axis, (first, second), turn in (
        (0, (1, 2), (0.5, 0.5, 0.5, 0.5)),
        (1, (2, 0), (0.5, -0.5, -0.5, -0.5)),
    ):
        rows = shortest == 2 - axis
        # The axes are renamed in their order, x y z -> y z x or z x y: a turn by 120 degrees about
        # their diagonal.
        scales[rows] = three[rows][:, [first, second]]
        rotations[rows] = _after(rotations[rows], turn)
    return scales, rotations


def _after(rotations: NDArray, turn: Sequence[float]) -> NDArray:
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
    """Quaternions of length 1: other programs keep what they trained, of any length."""
    length = np.linalg.norm(rotations.astype(np.float64), axis=1, keepdims=True)
    near = np.abs(length - 1) <= EXACTLY_UNIT
    return (rotations / np.where(near | (length == 0), 1, length)).astype(np.float32)
