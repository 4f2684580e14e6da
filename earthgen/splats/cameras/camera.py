"""Georeferenced cameras: pinhole and orthographic, float64, in a projected CRS.

Axes of the world are east, north, up. Axes of a camera are those of OpenCV: x to the right of the
picture, y down, z into the scene. The centre of pixel (row i, column j) is (j + 0.5, i + 0.5); the
picture covers [0, width) x [0, height).

A pinhole camera maps the point p_cam = (x, y, z) to (fx x / z + cx, fy y / z + cy); an orthographic
one maps it to (fx x + cx, fy y + cy), with fx and fy in pixels per metre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthgen.errors import SplatError
from geo_io.frame import UNKNOWN_DATUM, Bounds

Kind: TypeAlias = Literal["pinhole", "orthographic"]
Vector: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Vector, Vector, Vector]

UP: Vector = (0.0, 0.0, 1.0)

TURN_TOLERANCE = 1e-5
"""Largest difference between R Rt and the identity: accepts rotations stored in float32, but not
sheared ones."""

ALONG_UP = 1e-6
"""Sine of the angle between the view and `up` below which north is up in the picture instead."""


@dataclass(frozen=True)
class Camera:
    """A camera in a projected CRS.

    Attributes
    ----------
    kind : str
        "pinhole" or "orthographic".
    width, height : int
        Size of the picture, pixels.
    fx, fy : float
        Focal lengths of a pinhole camera, pixels; pixels per metre of an orthographic one.
    cx, cy : float
        Principal point, pixels.
    position : tuple of float
        East, north, up in metres of the CRS: the centre of projection, or the point at depth 0 on
        the axis of an orthographic camera.
    rotation : tuple of tuple of float
        World from camera, three rows of three. Its columns are the camera's right, down and
        forward in world axes.
    crs, vertical_crs : str
        CRSs, see `geo_io.frame.Frame`; crs "" for none.
    near, far : float
        Depths along the view between which the camera sees, metres.

    Raises
    ------
    SplatError
        If a number is not finite, a size or focal length is not positive, `rotation` is not a
        rotation, or near is not before far.
    """

    kind: Kind
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: Vector
    rotation: Matrix
    crs: str = ""
    vertical_crs: str = UNKNOWN_DATUM
    near: float = 0.05
    far: float = math.inf

    def __post_init__(self) -> None:
        if self.kind not in ("pinhole", "orthographic"):
            raise SplatError(
                f"unknown kind of camera {self.kind!r}", "choose 'pinhole' or 'orthographic'"
            )
        for name in ("width", "height", "fx", "fy", "cx", "cy", "near", "far"):
            try:
                float(getattr(self, name))
            except (TypeError, ValueError, OverflowError) as error:
                text = str(getattr(self, name))[:40]
                raise SplatError(
                    f"the camera's {name} {text!r} is not a number that a picture can have",
                    "give a finite number",
                ) from error
        for name in ("width", "height"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value == int(value) and value >= 1):
                raise SplatError(
                    f"a picture cannot have a {name} of {value} pixels",
                    "give a positive integer",
                )
            object.__setattr__(self, name, int(value))
        for name in ("fx", "fy", "cx", "cy", "near", "far"):
            object.__setattr__(self, name, float(getattr(self, name)))
        numbers = {name: getattr(self, name) for name in ("fx", "fy", "cx", "cy", "near")}
        object.__setattr__(self, "position", _vector(self.position, "the camera's position"))
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        if wrong:
            raise SplatError(
                f"the camera's {wrong[0]} is {numbers[wrong[0]]}", "give a finite number"
            )
        if not (self.fx > 0 and self.fy > 0):
            raise SplatError(
                f"focal lengths of {self.fx} and {self.fy} are not positive",
                "give positive numbers",
            )
        if not self.near < self.far or (self.kind == "pinhole" and self.near <= 0):
            raise SplatError(
                f"near = {self.near} and far = {self.far} metres enclose no depth",
                "give 0 < near < far",
            )
        object.__setattr__(self, "rotation", _rotation(self.rotation))

    @property
    def right(self) -> NDArray:
        """(3,) float64 unit vector to the right of the picture, world axes."""
        return np.array(self.rotation)[:, 0]

    @property
    def down(self) -> NDArray:
        """(3,) float64 unit vector downwards in the picture, world axes."""
        return np.array(self.rotation)[:, 1]

    @property
    def forward(self) -> NDArray:
        """(3,) float64 unit vector of the view, world axes."""
        return np.array(self.rotation)[:, 2]

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Angles across the width and the height, degrees; 0 for an orthographic camera."""
        if self.kind == "orthographic":
            return 0.0, 0.0
        sides = ((self.cx, self.width, self.fx), (self.cy, self.height, self.fy))
        across, along = (
            math.degrees(math.atan(c / f) + math.atan((n - c) / f)) for c, n, f in sides
        )
        return across, along

    def world_to_camera(self, anchor: Vector) -> tuple[NDArray, NDArray]:
        """Compute R (3, 3) and t (3,), float64, with p_cam = R @ mean + t for means relative to an
        anchor.

        float32 is too coarse for coordinates of a CRS (half a metre for a UTM northing). So large
        numbers are subtracted here in float64; R and t may be rounded afterwards.
        """
        turn = np.array(self.rotation).T
        return turn, turn @ (np.asarray(anchor, np.float64) - np.asarray(self.position))

    def project(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Project points to the picture; points outside of it are not removed.

        Parameters
        ----------
        points : NDArray (n, 3)
            Metres of the CRS.

        Returns
        -------
        NDArray (n, 2) float64
            Pixels (column, row), NaN for points that are not in front of a pinhole camera.
        NDArray (n,) float64
            Depths, metres.
        """
        seen = (np.asarray(points, np.float64) - np.asarray(self.position)) @ np.array(
            self.rotation
        )
        depth = seen[:, 2]
        plane = seen[:, :2]
        if self.kind == "pinhole":
            plane = plane / np.where(depth > 0, depth, np.nan)[:, None]
        return plane * (self.fx, self.fy) + (self.cx, self.cy), depth

    def unproject(self, pixels: NDArray, depth: ArrayLike) -> NDArray:
        """(n, 3) float64 points in the CRS at pixels (n, 2) (column, row) and a depth, metres."""
        z = np.broadcast_to(np.asarray(depth, np.float64), len(pixels))
        plane = (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.kind == "pinhole":
            plane = plane * z[:, None]
        return np.column_stack([plane, z]) @ np.array(self.rotation).T + np.asarray(self.position)

    def crop(self, row0: int, row1: int, col0: int, col1: int) -> Camera:
        """The camera of the window [row0, row1) x [col0, col1) of the picture, which may extend
        beyond its edges.

        Raises
        ------
        SplatError
            If the window is empty.
        """
        if row0 >= row1 or col0 >= col1:
            raise SplatError(
                f"rows [{row0}, {row1}) and columns [{col0}, {col1}) contain no pixel",
                "give low < high",
            )
        return replace(
            self, width=col1 - col0, height=row1 - row0, cx=self.cx - col0, cy=self.cy - row0
        )

    def scaled(self, factor: float) -> Camera:
        """The same view with `factor` times the pixels along each edge, rounded to whole pixels, at
        least one.

        Both focal lengths are scaled with the rounded sizes, so that the edges of the picture do
        not move.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise SplatError(f"a picture cannot be scaled by {factor}", "give a positive number")
        width, height = max(round(self.width * factor), 1), max(round(self.height * factor), 1)
        across, along = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * across,
            fy=self.fy * along,
            cx=self.cx * across,
            cy=self.cy * along,
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values for `from_dict`; an infinite `far` becomes None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["position"] = list(self.position)
        values["rotation"] = [list(row) for row in self.rotation]
        values["far"] = None if math.isinf(self.far) else self.far
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Camera:
        """Create a camera from the values of `to_dict`.

        Raises
        ------
        SplatError
            If a value is missing, unknown or not valid.
        """
        given = dict(values)
        if given.get("far", 0) is None:
            given["far"] = math.inf
        try:
            return cls(**given)
        except SplatError:
            raise
        except (TypeError, ValueError) as error:
            raise SplatError(
                f"a camera cannot be read from {sorted(given)}: {error}", "write it with to_dict"
            ) from error

    def __str__(self) -> str:
        east, north, up = self.position
        return (
            f"Camera({self.kind}, {self.width} x {self.height}, at {east:.2f}, {north:.2f}, "
            f"{up:.2f} {self.crs})"
        )


def look_at(
    eye: Sequence[float],
    target: Sequence[float],
    *,
    width: int,
    height: int,
    field_of_view: float | None = None,
    metres_per_pixel: float | None = None,
    up: Sequence[float] = UP,
    crs: str = "",
    vertical_crs: str = UNKNOWN_DATUM,
    near: float = 0.05,
    far: float = math.inf,
) -> Camera:
    """Create the camera at `eye` that has `target` in the middle of its picture.

    Parameters
    ----------
    eye, target : sequence of float
        East, north, up in metres of the CRS.
    width, height : int
        Size of the picture, pixels.
    field_of_view : float, optional
        Angle across the picture's width, degrees in (0, 180), of a pinhole camera.
    metres_per_pixel : float, optional
        Edge of a pixel of an orthographic camera; give one of the two.
    up : sequence of float
        Direction that is up in the picture. If the view is parallel to it (sine below `ALONG_UP`),
        north is up, as on a map; if the view is also parallel to north, the sky is up.
    crs, vertical_crs : str
        CRSs, see `geo_io.frame.Frame`; crs "" for none.
    near, far : float
        Depths along the view between which the camera sees, metres.

    Raises
    ------
    SplatError
        If eye and target are one point, `up` is zero, or not exactly one of field of view and pixel
        size is given.
    """
    turn = facing(eye, target, up)
    if (field_of_view is None) == (metres_per_pixel is None):
        raise SplatError(
            "a camera needs either a field of view or a size of pixels",
            "give field_of_view or metres_per_pixel",
        )
    kind: Kind = "pinhole"
    if field_of_view is not None:
        if not 0 < field_of_view < 180:
            raise SplatError(
                f"a field of view of {field_of_view} degrees is not possible",
                "give one between 0 and 180",
            )
        focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    else:
        size = metres_per_pixel or 0.0
        if not (size > 0 and math.isfinite(size)):
            raise SplatError(f"pixels of {size} metres are not possible", "give a positive number")
        kind, focal = "orthographic", 1 / size
    return Camera(
        kind,
        width,
        height,
        focal,
        focal,
        width / 2,
        height / 2,
        _vector(eye, "the eye"),
        turn,
        crs,
        vertical_crs,
        near,
        far,
    )


def nadir(eye: Sequence[float], *, heading: float = 0.0, **options: Any) -> Camera:
    """Create the camera at `eye` that looks straight down.

    Parameters
    ----------
    eye : sequence of float
        East, north, up in metres of the CRS.
    heading : float
        Direction that is up in the picture, degrees clockwise from north.
    **options
        Of `look_at`, except `up`.
    """
    east, north, up = _vector(eye, "the eye")
    angle = math.radians(heading)
    return look_at(
        (east, north, up),
        (east, north, up - 1),
        up=(math.sin(angle), math.cos(angle), 0.0),
        **options,
    )


def map_view(
    bounds: Bounds,
    metres_per_pixel: float,
    height: float,
    *,
    crs: str = "",
    vertical_crs: str = UNKNOWN_DATUM,
) -> Camera:
    """Create the orthographic camera that draws bounds as a map: north is up, the first pixel is in
    the north-west corner.

    Parameters
    ----------
    bounds : tuple of float
        Left, bottom, right, top, metres of the CRS. The map covers them; its last row and column
        may extend beyond.
    metres_per_pixel : float
        Edge of a pixel.
    height : float
        Height of the camera, metres; what lies above is not drawn.
    crs, vertical_crs : str
        CRSs, see `geo_io.frame.Frame`; crs "" for none.

    Raises
    ------
    SplatError
        If the bounds are empty or the size of pixels is not positive.
    """
    left, bottom, right, top = bounds
    if not (left < right and bottom < top) or not metres_per_pixel > 0:
        raise SplatError(
            f"a map of {bounds} in pixels of {metres_per_pixel} metres has no pixel",
            "give left < right, bottom < top",
        )
    # Edges within a millionth of a pixel of a pixel boundary are treated as on it.
    width = max(math.ceil((right - left) / metres_per_pixel - 1e-6), 1)
    rows = max(math.ceil((top - bottom) / metres_per_pixel - 1e-6), 1)
    middle = (left + width * metres_per_pixel / 2, top - rows * metres_per_pixel / 2, height)
    return nadir(
        middle,
        width=width,
        height=rows,
        metres_per_pixel=metres_per_pixel,
        crs=crs,
        vertical_crs=vertical_crs,
        near=0.0,
    )


def facing(eye: Sequence[float], target: Sequence[float], up: Sequence[float] = UP) -> Matrix:
    """Compute `Camera.rotation` of a camera at `eye` that looks at `target`; see `look_at`."""
    forward = np.array(_vector(target, "the target")) - np.array(_vector(eye, "the eye"))
    length = np.linalg.norm(forward)
    if not length > 0:
        raise SplatError(f"the camera is at its target {tuple(eye)}", "move one of them")
    forward /= length
    sky = np.array(_vector(up, "up"))
    if not np.linalg.norm(sky) > 0:
        raise SplatError("up = (0, 0, 0) has no direction", "give a vector such as (0, 0, 1)")
    for candidate in (sky / np.linalg.norm(sky), np.array((0.0, 1.0, 0.0)), np.array(UP)):
        right = np.cross(forward, candidate)
        sine = np.linalg.norm(right)
        if sine > ALONG_UP:
            right /= sine
            break
    down = np.cross(forward, right)
    return _rotation(np.stack([right, down, forward], axis=1))


def _vector(value: Any, what: str) -> Vector:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        text = str(value)[:80]
        raise SplatError(f"{what} {text} is not a point", "give east, north and up") from error
    if array.shape != (3,) or not np.isfinite(array).all():
        raise SplatError(
            f"{what} {value!r} is not a point", "give three finite numbers: east, north, up"
        )
    return float(array[0]), float(array[1]), float(array[2])


def _rotation(value: Any) -> Matrix:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SplatError(
            f"{str(value)[:80]} is not a rotation", "give three rows of three numbers"
        ) from error
    if array.shape != (3, 3) or not np.isfinite(array).all():
        raise SplatError(
            f"a matrix of shape {array.shape} is not a rotation",
            "give three rows of three finite numbers",
        )
    deviation = np.abs(array @ array.T - np.eye(3)).max()
    if deviation > TURN_TOLERANCE or np.linalg.det(array) < 0:
        raise SplatError(
            f"the camera's matrix {array.tolist()} is not a rotation",
            "its columns have to be right, down and forward: unit, orthogonal, right-handed",
        )
    array = array + 0.0  # no -0
    a, b, c = ((float(row[0]), float(row[1]), float(row[2])) for row in array)
    return a, b, c
