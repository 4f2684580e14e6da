"""Point clouds: LAS, LAZ and COPC files, and folders of EPT and Potree (`point_octrees`), as arrays
in a projected CRS in metres.

Read with laspy (BSD-2-Clause) and lazrs (MIT). A COPC file is a LAZ file, and is read whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from earthgen.dataset.readers.las_header import check_counts, check_layers, points_at_once
from earthgen.dataset.readers.point_octrees import NAMES, Arrays, find_octree, read_octree
from geo_io.crs import transformer
from geo_io.elevation import METRES
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import Bounds, horizontal_crs, projected_crs, short_name, vertical_crs
from geo_io.region.region import lonlat_bounds, utm_crs
from geo_io.safety.damage import describe, parser_errors
from geo_io.safety.limits import too_far

INSTALL = "pip install 'earthgen[dataset]'"

CHUNK = 2_000_000
"""Number of points that are decoded at a time."""

NO_SURFACE = (7, 13, 14, 15, 16, 18, 65, 66)
"""ASPRS classes that are not part of the surface: low and high noise, wires and their pylons; IGN's
artefacts and virtual points."""

GROUND = (2, 8, 20)
"""ASPRS classes of the ground."""

STRETCH = (2.0, 98.0)
"""Percentiles that become 0 and 255 in colours of unusual depth."""

_IMPORTED_BY = os.getpid()
"""Process that imported this module."""

_LINEAR_UNITS = {9001: "m", 9002: "ft", 9003: "us-ft"}
_PROJ_UNITS, _VERTICAL_UNITS = 3076, 4099  # GeoTIFF keys


@dataclass(frozen=True)
class Points:
    """Points of one or more files.

    Attributes
    ----------
    crs : str
        Projected CRS in metres.
    vertical_crs : str
        Vertical CRS, or "unknown".
    xyz : NDArray (n, 3) float64
        Places, metres.
    classification : NDArray (n,) uint8
        ASPRS codes.
    intensity : NDArray (n,) float32
        Intensity of the laser's return, without a unit; 0 in files that have none.
    rgb : NDArray (n, 3) uint8 | None
        sRGB colours, None if no file has them.
    unit_told : bool
        Whether each file, or the caller, says in which unit the heights are; else they are taken as
        metres.
    returns : NDArray (n,) uint8 | None
        Number of returns of the laser pulse of each point; 0 where a file does not tell.
    """

    crs: str
    vertical_crs: str
    xyz: NDArray
    classification: NDArray
    intensity: NDArray
    rgb: NDArray | None
    unit_told: bool = True
    returns: NDArray | None = None

    def __len__(self) -> int:
        return len(self.xyz)


def read_points(
    paths: Sequence[str | Path],
    *,
    crs: str | None = None,
    target: str | None = None,
    unit: str | None = None,
    bounds: Bounds | None = None,
    colour_bits: int | None = None,
    colours: bool = True,
) -> Points:
    """Read point clouds into one CRS.

    Parameters
    ----------
    paths : Sequence[str | Path]
        LAS, LAZ or COPC files; ept.json, metadata.json or cloud.js of octrees, or their folders.
    crs : str | None
        CRS of files without a CRS of their own.
    target : str | None
        Projected CRS in metres of the result; by default that of the first file, or its UTM zone if
        that is not in metres.
    unit : {"m", "ft", "us-ft"} | None
        Unit of heights. By default that of the file's vertical CRS or GeoTIFF key, else metres,
        unless its horizontal CRS is in feet: then it has to be given.
    bounds : tuple[float, float, float, float] | None
        Left, bottom, right, top in `target`; points outside are left out.
    colour_bits : {8, 16} | None
        Depth of the colours; by default derived from the values of all files, see `scale_colours`.
    colours : bool
        False ignores the colours of the files, for example if they show ids of trees.

    Raises
    ------
    MissingFileError
        if a file does not exist
    MissingCrsError
        if neither a file nor `crs` gives a CRS
    InputError
        if a file is not a point cloud, is empty, or ends before its last point
    FrameError
        if the target CRS is not projected in metres
    """
    parts = [_read(Path(path), crs, unit) for path in paths]
    if not parts:
        raise InputError("no point cloud was given", "give a .laz file")
    chosen = projected_crs(target or _metric(parts[0].crs, parts[0].xyz))
    xyz, kept = [], []
    for path, part in zip(paths, parts, strict=True):
        points = part.xyz
        if short_name(part.crs) != chosen:
            east, north = transformer(part.crs, pyproj.CRS(chosen)).transform(
                points[:, 0], points[:, 1]
            )
            points = np.column_stack([east, north, points[:, 2]])
        keep = np.isfinite(points).all(axis=1)
        if not keep.any():
            raise InputError(
                f"no point of {path} has a place in {chosen}", "check its CRS, or give the true one"
            )
        if bounds is not None:
            keep &= (points[:, 0] >= bounds[0]) & (points[:, 0] < bounds[2])
            keep &= (points[:, 1] >= bounds[1]) & (points[:, 1] < bounds[3])
        xyz.append(points[keep])
        kept.append(keep)
    rgb = None
    if colours and all(part.rgb is not None for part in parts):
        raw = np.concatenate([part.rgb for part in parts if part.rgb is not None])
        if raw.any():
            scaled = scale_colours(raw, colour_bits, ", ".join(Path(path).name for path in paths))
            rgb = scaled[np.concatenate(kept)]
    return Points(
        chosen,
        parts[0].vertical,
        np.concatenate(xyz),
        np.concatenate([part.classification[keep] for part, keep in zip(parts, kept, strict=True)]),
        np.concatenate([part.intensity[keep] for part, keep in zip(parts, kept, strict=True)]),
        rgb,
        all(part.unit_told for part in parts),
        np.concatenate([part.returns[keep] for part, keep in zip(parts, kept, strict=True)]),
    )


def scale_colours(
    values: NDArray, bits: int | None = None, name: str = "the point cloud"
) -> NDArray:
    """Scale the colours of a point cloud to 8 bits.

    The LAS specification asks for 16 bits, but files differ. Without `bits` the depth is derived
    from the values: up to 255 they are 8 bits; if all are multiples of 256 or of 257 they are
    8 bits, scaled up; if their 98th percentile lies in the upper half they are 16 bits; anything
    else is stretched, its 2nd percentile to 0 and its 98th to 255, with the same scale for all
    bands.

    Parameters
    ----------
    values : NDArray (n, 3) uint16
        Colours as stored.
    bits : {8, 16} | None
        Their depth.
    name : str
        Name of the file, for error messages.

    Returns
    -------
    NDArray (n, 3) uint8
        sRGB.

    Raises
    ------
    InputError
        if `bits` is 8 and a value is larger, or `bits` is neither 8 nor 16
    """
    if bits not in (None, 8, 16):
        raise InputError(
            f"colours of {bits} bits are not supported", "give 8 or 16, or leave it out"
        )
    top = int(values.max(initial=0))
    if bits == 8 or (bits is None and top <= 255):
        if top > 255:
            raise InputError(
                f"the colours of {name} go up to {top}, more than an 8-bit colour",
                "give colour_bits = 16, or leave it out",
            )
        return values.astype(np.uint8)
    if bits == 16 or not (values % 256).any():
        return (values // 256).astype(np.uint8)
    if not (values % 257).any():
        return (values // 257).astype(np.uint8)
    low, high = np.percentile(values, STRETCH)
    if high > 32767:
        return (values // 256).astype(np.uint8)
    stretched = (values.astype(np.float32) - low) * (255 / max(high - low, 1.0))
    return np.clip(np.round(stretched), 0, 255).astype(np.uint8)


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise InputError(f"{path} is read with laspy, which is not installed", INSTALL) from error
    if path.suffix.casefold() == ".laz" and not laspy.LazBackend.detect_available():
        raise InputError(
            f"{path} is compressed: laspy reads it with lazrs, which is not installed", INSTALL
        )
    return laspy


def _opened(path: Path) -> Any:
    """Open a file with laspy.

    A forked process has none of the threads that lazrs started in its parent, and would wait for
    them for ever: there, one thread decodes.
    """
    laspy = _laspy(path)
    forked = os.getpid() != _IMPORTED_BY
    reader = laspy.open(path, laz_backend=laspy.LazBackend.Lazrs if forked else None)
    header = reader.header
    packed = [vlr for vlr in header.vlrs if vlr.user_id == "laszip encoded"]
    if packed and header.are_points_compressed:
        record = packed[0].record_data_bytes()
        check_layers(path, record, header.offset_to_point_data, header.point_format.size)
    return reader


@dataclass(frozen=True)
class _File:
    crs: pyproj.CRS
    vertical: str
    xyz: NDArray
    classification: NDArray
    intensity: NDArray
    rgb: NDArray | None
    unit_told: bool
    returns: NDArray


def _read(path: Path, crs: str | None, unit: str | None) -> _File:
    if not path.exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    tree = find_octree(path)
    if tree is not None:
        return _read_tree(tree, crs, unit)
    if path.is_dir():
        raise InputError(f"{path} is a folder without {', '.join(NAMES)}", "give a file in it")
    check_counts(path)
    with parser_errors(partial(_unreadable, path)), _opened(path) as reader:
        header = reader.header
        if path.stat().st_size <= header.offset_to_point_data:
            raise InputError(f"{path} ends within its header", "fetch it again")
        _check_records(path, header)
        horizontal, metres, vertical, told = _reference(path, header, crs, unit)
        parts = [_arrays(points) for points in reader.chunk_iterator(_at_once(header))]
    count = sum(len(part[0]) for part in parts)
    if count < header.point_count:
        raise InputError(
            f"{path} holds {count:,} of the {header.point_count:,} points of its header",
            "fetch it again",
        )
    if count == 0:
        raise InputError(f"{path} holds no points", "give another file")
    xyz, classification, intensity, rgb, returns = _joined(parts)
    _require_near(path, xyz, horizontal)
    xyz[:, 2] *= metres
    return _File(horizontal, vertical, xyz, classification, intensity, rgb, told, returns)


def _read_tree(path: Path, crs: str | None, unit: str | None) -> _File:
    """Read an octree of points."""

    def node(file: Path) -> Arrays:
        check_counts(file)
        with parser_errors(partial(_unreadable, file)), _opened(file) as reader:
            size = _at_once(reader.header)
            parts = [_arrays(points) for points in reader.chunk_iterator(size)]
            if sum(len(part[0]) for part in parts) < reader.header.point_count:
                raise InputError(f"{file} ends before its last point", "fetch it again")
        return _joined(parts)

    octree = read_octree(path, node)
    if not sum(len(part[0]) for part in octree.parts):
        raise InputError(f"{path} holds no points", "give another file")
    try:
        parsed = pyproj.CRS.from_user_input(octree.crs or crs) if octree.crs or crs else None
    except pyproj.exceptions.CRSError as error:
        raise MissingCrsError(
            f"the CRS of {path} is not understood: {error}", "give --crs EPSG:..."
        ) from error
    horizontal, metres, vertical, told = _units(path, parsed, {}, unit)
    xyz, classification, intensity, rgb, returns = _joined(octree.parts)
    _require_near(path, xyz, horizontal)
    xyz[:, 2] *= metres
    return _File(horizontal, vertical, xyz, classification, intensity, rgb, told, returns)


def _require_near(path: Path, xyz: NDArray, crs: pyproj.CRS) -> None:
    """Raise InputError if coordinates, in CRS units, are no numbers or beyond all data on Earth:
    those of LAS are integers, whose scale or offset is then damaged."""
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    if (
        too_far(np.concatenate([low[:2], high[:2]])[None], crs.is_geographic)[0]
        or too_far(np.array([[low[2], high[2]]]), False)[0]
    ):
        raise InputError(
            f"the coordinates of {path} go from {low.tolist()} to {high.tolist()}, beyond all data "
            "on Earth",
            "fetch it again, or mend the scale and offset of its header",
        )


def _at_once(header: Any) -> int:
    """How many points to decode at a time."""
    return points_at_once(header.point_format.size, CHUNK)


def _joined(parts: Sequence[Arrays]) -> Arrays:
    """Return the arrays of all parts; colours only if every part has them."""
    rgb = [part[3] for part in parts if part[3] is not None]
    return (
        np.concatenate([part[0] for part in parts]) if parts else np.zeros((0, 3)),
        np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.uint8),
        np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, np.float32),
        np.concatenate(rgb) if rgb and len(rgb) == len(parts) else None,
        np.concatenate([part[4] for part in parts]) if parts else np.zeros(0, np.uint8),
    )


def _unreadable(path: Path, error: BaseException) -> InputError:
    if path.stat().st_size and path.open("rb").read(4) == b"LASF":
        return InputError(f"{path} is cut off or damaged: {describe(error)}", "fetch it again")
    return InputError(
        f"{path} is not a LAS or LAZ file: {describe(error)}",
        "give a .las, .laz or .copc.laz file",
    )


def _check_records(path: Path, header: Any) -> None:
    """Check that the records after the points are complete.

    COPC keeps its index there, and often the CRS, so a file without its end would seem to have
    no CRS.

    Raises
    ------
    InputError
        if they are not
    """
    place, size = header.start_of_first_evlr, path.stat().st_size
    with path.open("rb") as file:
        for _ in range(header.number_of_evlrs):
            file.seek(place + 20)  # reserved 2, user 16, record 2; LAS 1.4 R15, section 2.7
            length = file.read(8)
            place += 60 + int.from_bytes(length, "little")
            if len(length) < 8 or place > size:
                raise InputError(
                    f"{path} ends before the records after its points", "fetch it again"
                )


def _arrays(points: Any) -> Arrays:
    xyz = np.column_stack(
        [np.asarray(points.x), np.asarray(points.y), np.asarray(points.z)]
    ).astype(np.float64)
    names = set(points.point_format.dimension_names)
    rgb = None
    if {"red", "green", "blue"} <= names:
        rgb = np.column_stack(
            [np.asarray(points[name]) for name in ("red", "green", "blue")]
        ).astype(np.uint16)
    intensity = (
        np.asarray(points.intensity).astype(np.float32)
        if "intensity" in names
        else np.zeros(len(xyz), np.float32)
    )
    returns = (
        np.asarray(points.number_of_returns).astype(np.uint8)
        if "number_of_returns" in names
        else np.zeros(len(xyz), np.uint8)
    )
    code = np.asarray(points.classification).astype(np.uint8)
    if "withheld" in names:  # "should not be included in processing" (LAS 1.4 R15, table 9)
        code[np.asarray(points.withheld).astype(bool)] = NO_SURFACE[0]
    return xyz, code, intensity, rgb, returns


def _reference(
    path: Path, header: Any, crs: str | None, unit: str | None
) -> tuple[pyproj.CRS, float, str, bool]:
    """Return what `_units` does of a LAS file."""
    try:
        parsed = header.parse_crs()
        parsed = (
            parsed if parsed is not None else (pyproj.CRS.from_user_input(crs) if crs else None)
        )
    except pyproj.exceptions.CRSError as error:
        raise MissingCrsError(
            f"the CRS of {path} is not understood: {error}", "give --crs EPSG:..."
        ) from error
    return _units(path, parsed, _geo_keys(header), unit)


def _units(
    path: Path, parsed: pyproj.CRS | None, keys: dict[int, int], unit: str | None
) -> tuple[pyproj.CRS, float, str, bool]:
    """Return horizontal CRS, metres a unit of height, vertical CRS, whether the unit is told."""
    if unit is not None and unit not in METRES:
        raise InputError(f"unknown unit {unit!r} of {path}", f"give one of {', '.join(METRES)}")
    if parsed is None:
        raise MissingCrsError(
            f"{path} has no CRS record", "give it with --crs, for example --crs EPSG:2154"
        )
    horizontal = horizontal_crs(parsed)
    vertical = vertical_crs(parsed)
    if unit is None:
        unit = _vertical_unit(parsed) or _LINEAR_UNITS.get(keys.get(_VERTICAL_UNITS, 0))
    told = unit is not None
    if unit is None:
        factor = horizontal.axis_info[0].unit_conversion_factor
        if (horizontal.is_projected and factor != 1) or keys.get(_PROJ_UNITS, 9001) != 9001:
            raise InputError(
                f"{path} is in {short_name(horizontal)}, in {horizontal.axis_info[0].unit_name}, "
                "and its unit of heights is not given",
                "give it with --unit m, ft or us-ft",
            )
        unit = "m"
    return horizontal, METRES[unit], vertical, told


def _vertical_unit(crs: pyproj.CRS) -> str | None:
    if not crs.is_compound and len(crs.axis_info) < 3:
        return None
    factor = crs.axis_info[-1].unit_conversion_factor
    return next((name for name, metres in METRES.items() if abs(metres - factor) < 1e-9), None)


def _geo_keys(header: Any) -> dict[int, int]:
    """Return the GeoTIFF keys of a header whose value is in the directory itself."""
    for record in header.vlrs:
        if record.record_id == 34735:
            try:
                raw = np.frombuffer(record.record_data_bytes(), "<u2").reshape(-1, 4)
            except (AttributeError, ValueError):
                return {}
            return {int(key): int(value) for key, place, _, value in raw[1:] if place == 0}
    return {}


def _metric(crs: pyproj.CRS, xyz: NDArray) -> str:
    """Return the CRS of the points if it is projected in metres, else their UTM zone."""
    if crs.is_projected and {axis.unit_conversion_factor for axis in crs.axis_info[:2]} == {1.0}:
        return short_name(crs)
    (left, bottom), (right, top) = xyz[:, :2].min(axis=0), xyz[:, :2].max(axis=0)
    return utm_crs(lonlat_bounds((left, bottom, right, top), crs))
