"""Camera paths: interpolation between key poses, and JSON files."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.files import read_json
from earthgen.splats.cameras.camera import Camera, facing
from earthgen.splats.cameras.poses import CLEARANCE, Surface, clear
from geo_io.errors import InputError
from geo_io.safety.damage import damaged_file

FORMAT = "earthgen cameras"
"""Value of the key "format" in files of `write_cameras`."""


def interpolate(
    keys: Sequence[Camera],
    count: int,
    *,
    closed: bool = False,
    surface: Surface | None = None,
    clearance: float = CLEARANCE,
) -> list[Camera]:
    """Create cameras along a smooth path through key poses, evenly spaced in distance and rotation.

    Positions lie on a cubic spline, rotations on a spline of quaternions (scipy's RotationSpline).
    The time between two keys is their distance, plus their rotation in radians times the mean
    distance. Focal lengths, principal point and depths are interpolated linearly. Successive keys
    with the same pose are used once.

    Parameters
    ----------
    keys : sequence of Camera
        At least one; all of one kind, picture size and CRS.
    count : int
        Number of cameras; the first and the last key are among them.
    closed : bool
        Continue from the last key to the first, which is not repeated at the end.
    surface : float or callable, optional
        Heights; cameras below it are raised to `clearance` metres above it, see
        `earthgen.splats.cameras.poses.clear`.
    clearance : float
        Metres.

    Raises
    ------
    SplatError
        If there is no key, `count` is below 1, or keys differ in kind, size, CRS or vertical CRS.
    """
    if not keys or count < 1:
        raise SplatError(
            f"{len(keys)} key poses and {count} cameras make no path", "give at least one of each"
        )
    first = keys[0]
    for key in keys[1:]:
        if (key.crs, key.vertical_crs) != (first.crs, first.vertical_crs):
            raise SplatError(
                f"a path cannot lead from {first.crs}, {first.vertical_crs} to {key.crs}, "
                f"{key.vertical_crs}",
                "give all key poses in one CRS",
            )
        if (key.kind, key.width, key.height) != (first.kind, first.width, first.height):
            raise SplatError(
                f"a path cannot lead from {first} to {key}", "give key poses of one kind and size"
            )
    stops = _distinct([*keys, first] if closed else list(keys))
    closed = closed and len(stops) > 1
    if len(stops) == 1:
        cameras = [first] * count
    else:
        # A closed path is computed for three rounds; the middle one is smooth at its ends too.
        around = [*stops[:-1], *stops[:-1], *stops] if closed else stops
        times = _times(around)
        low, high = (
            (times[len(stops) - 1], times[2 * len(stops) - 2]) if closed else (times[0], times[-1])
        )
        cameras = _along(around, times, np.linspace(low, high, count, endpoint=not closed))
    return [
        replace(camera, position=clear(camera.position, surface, clearance)) for camera in cameras
    ]


def _distinct(keys: list[Camera]) -> list[Camera]:
    return [key for n, key in enumerate(keys) if n == 0 or _moved(keys[n - 1], key) > 1e-9]


def _moved(one: Camera, other: Camera) -> float:
    return math.dist(one.position, other.position) + _turned(one, other)


def _turned(one: Camera, other: Camera) -> float:
    """Angle between two cameras' rotations, radians."""
    turn = np.array(one.rotation).T @ np.array(other.rotation)
    sine = (
        np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
        / 2
    )
    return math.atan2(float(sine), float(np.trace(turn) - 1) / 2)


def _times(keys: Sequence[Camera]) -> NDArray:
    pairs = list(itertools.pairwise(keys))
    distance = np.array([math.dist(a.position, b.position) for a, b in pairs])
    turn = np.array([_turned(a, b) for a, b in pairs])
    return np.concatenate([[0.0], np.cumsum(distance + turn * (distance.mean() or 1.0))])


def _along(keys: Sequence[Camera], times: NDArray, at: NDArray) -> list[Camera]:
    from scipy.interpolate import CubicSpline
    from scipy.spatial.transform import Rotation, RotationSpline

    origin = np.array(keys[0].position)  # near the path, to keep precision
    positions = np.array([key.position for key in keys]) - origin
    ends = "natural" if len(keys) == 2 else "not-a-knot"
    places = CubicSpline(times, positions, bc_type=ends)(at) + origin
    turns = RotationSpline(times, Rotation.from_matrix(np.array([key.rotation for key in keys])))(
        at
    ).as_matrix()
    fx, fy, cx, cy, near, far = (
        _linear(at, times, [getattr(key, name) for key in keys])
        for name in ("fx", "fy", "cx", "cy", "near", "far")
    )
    return [
        replace(
            keys[0],
            position=(float(x), float(y), float(z)),
            rotation=turns[n],
            fx=fx[n],
            fy=fy[n],
            cx=cx[n],
            cy=cy[n],
            near=near[n],
            far=far[n],
        )
        for n, (x, y, z) in enumerate(places)
    ]


def _linear(at: NDArray, times: NDArray, values: list[float]) -> NDArray:
    """Interpolate; exact for equal values, infinite if one value is."""
    if len(set(values)) == 1 or math.inf in values:
        return np.full(len(at), max(values))
    return np.interp(at, times, values)


def look_along(cameras: Sequence[Camera], target: Sequence[float]) -> list[Camera]:
    """Rotate cameras to look at `target` (east, north, up in metres of the CRS)."""
    return [replace(camera, rotation=facing(camera.position, target)) for camera in cameras]


def write_cameras(path: str | Path, cameras: Sequence[Camera]) -> Path:
    """Write cameras as JSON, from which `read_cameras` restores them exactly. Return the path."""
    out = Path(path)
    document = {"format": FORMAT, "version": 1, "cameras": [camera.to_dict() for camera in cameras]}
    out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
    return out


def read_cameras(path: str | Path) -> list[Camera]:
    """Read cameras of `write_cameras`, or of a nerfstudio transforms.json.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError
        If the file holds no cameras.
    SplatError
        If a camera is not valid.
    """
    document = read_json(path)
    with damaged_file(f"{path} holds no cameras that can be read", "write it with earthgen"):
        return _cameras(document, path)


def _cameras(document: dict, path: str | Path) -> list[Camera]:
    if "frames" in document:
        from earthgen.splats.cameras.transforms_json import from_transforms

        return [view.camera for view in from_transforms(document)]
    cameras = document.get("cameras")
    if document.get("format") != FORMAT or not isinstance(cameras, list):
        raise InputError(
            f"{path} holds no cameras", "write it with earthgen, or give a transforms.json"
        )
    if document.get("version") != 1:
        raise InputError(
            f"{path} has version {document.get('version')}, this earthgen reads version 1",
            "upgrade earthgen",
        )
    if not all(isinstance(values, dict) for values in cameras):
        raise InputError(f"{path} has cameras that are not JSON objects", "write it with earthgen")
    return [Camera.from_dict(values) for values in cameras]
