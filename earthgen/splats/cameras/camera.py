"""Cameras that know where they are: pinhole and orthographic, float64, in a projected CRS.

Axes. The world's are east, north, up. A camera's are those of OpenCV: x to the right of the
picture, y down, z into the scene. Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5); the
picture covers [0, width) x [0, height).

A pinhole camera sees the point p_cam = (x, y, z) at (fx x / z + cx, fy y / z + cy); an orthographic
one at (fx x + cx, fy y + cy), its fx and fy being pixels per metre.
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
"""How far R Rt may be from the identity: rotations that a file keeps in float32 pass, sheared
ones do not."""

ALONG_UP = 1e-6
"""Sine of the angle between view and `up` below which north is up in the picture instead."""


@dataclass(frozen=True)
class Camera:
    """A camera in a projected CRS.

    Attributes
    ----------
    kind : "pinhole" or "orthographic"
    width, height : of the picture, pixels
    fx, fy : pinhole: focal lengths, pixels; orthographic: pixels per metre
    cx, cy : the principal point, pixels
    position : east, north, up in metres of the CRS, float64: the centre of projection; of an
        orthographic camera the
        point at depth 0 on the axis
    rotation : three rows of three: world from camera. Its columns are the camera's right, down and
        forward, world axes
    crs, vertical_crs : as of `geo_io.frame.Frame`; crs "" for none
    near, far : what lies outside these depths along the view is not seen, metres

    Raises
    ------
    SplatError
        if a number is not finite, a size or focal length not positive, `rotation` no rotation, or
        near not before far
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
                f"no camera is of kind {self.kind!r}", "take 'pinhole' or 'orthographic'"
            )
        for name in ("width", "height"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value == int(value) and value >= 1):
                raise SplatError(
                    f"a picture with a {name} of {value} pixels has no pixels",
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
                f"focal lengths of {self.fx} and {self.fy} show nothing", "give positive numbers"
            )
        if not self.near < self.far or (self.kind == "pinhole" and self.near <= 0):
            raise SplatError(
                f"nothing lies between near = {self.near} and far = {self.far} metres",
                "give 0 < near < far",
            )
        object.__setattr__(self, "rotation", _rotation(self.rotation))

    @property
    def right(self) -> NDArray:
        """(3,) float64, unit, world axes."""
        return np.array(self.rotation)[:, 0]

    @property
    def down(self) -> NDArray:
        """(3,) float64, unit, world axes."""
        return np.array(self.rotation)[:, 1]

    @property
    def forward(self) -> NDArray:
        """(3,) float64, unit, world axes."""
        return np.array(self.rotation)[:, 2]

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Across the width and along the height, degrees; of an orthographic camera 0."""
        if self.kind == "orthographic":
            return 0.0, 0.0
        sides = ((self.cx, self.width, self.fx), (self.cy, self.height, self.fy))
        across, along = (
            math.degrees(math.atan(c / f) + math.atan((n - c) / f)) for c, n, f in sides
        )
        return across, along

    def world_to_camera(self, anchor: Vector) -> tuple[NDArray, NDArray]:
        """R (3, 3) and t (3,), float64: p_cam = R @ mean + t for means relative to `anchor`.

        Coordinates of a CRS need more digits than float32 has (a UTM northing is then good to half
        a metre), so the large numbers meet here, in float64, and R and t may be rounded afterwards.
        """
        turn = np.array(self.rotation).T
        return turn, turn @ (np.asarray(anchor, np.float64) - np.asarray(self.position))

    def project(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """Pixels (n, 2) as (column, row), and depths (n,) in metres, of points (n, 3) in the CRS;
        float64.

        Nothing is cut off. Points that a pinhole camera has beside or behind it (depth <= 0) get
        NaN for pixels.
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
        """(n, 3) float64 points in the CRS that are seen at pixels (n, 2) (column, row) at a
        depth, metres."""
        z = np.broadcast_to(np.asarray(depth, np.float64), len(pixels))
        plane = (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.kind == "pinhole":
            plane = plane * z[:, None]
        return np.column_stack([plane, z]) @ np.array(self.rotation).T + np.asarray(self.position)

    def crop(self, row0: int, row1: int, col0: int, col1: int) -> Camera:
        """The window [row0, row1) x [col0, col1) of the same picture; it may reach beyond the
        picture's edges.

        Raises
        ------
        SplatError
            if the window is empty
        """
        if row0 >= row1 or col0 >= col1:
            raise SplatError(
                f"rows [{row0}, {row1}) and columns [{col0}, {col1}) hold no pixel",
                "give low < high",
            )
        return replace(
            self, width=col1 - col0, height=row1 - row0, cx=self.cx - col0, cy=self.cy - row0
        )

    def scaled(self, factor: float) -> Camera:
        """The same view in `factor` times the pixels along each side, rounded to whole pixels, at
        least one.

        Both focal lengths go with the rounded sizes, so that the picture's edges stay where they
        are.
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
        """What `from_dict` reads: values that JSON has; a far of infinity is None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["position"] = list(self.position)
        values["rotation"] = [list(row) for row in self.rotation]
        values["far"] = None if math.isinf(self.far) else self.far
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Camera:
        """The camera of `to_dict`. Raises SplatError if a value is missing, unknown or no
        camera's."""
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
        return f"Camera({self.kind}, {self.width} x {self.height}, at {east:.2f}, {north:.2f}, {up:.2f} {self.crs})"


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
    """The camera at `eye` that has `target` in the middle of its picture.

    eye, target : east, north, up in metres of the CRS
    field_of_view : across the picture's width, degrees in (0, 180): a pinhole camera
    metres_per_pixel : instead of it: an orthographic camera
    up : what is up in the picture. Where the view runs along it (sine below `ALONG_UP`), north is
        up, as on a map;
        where it runs north too, the sky is.

    Raises
    ------
    SplatError
        if eye and target are one point, `up` has no direction, or not one of field of view and
        pixel size is given
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
                f"no picture spans {field_of_view} degrees",
                "give a field of view between 0 and 180",
            )
        focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    else:
        size = metres_per_pixel or 0.0
        if not (size > 0 and math.isfinite(size)):
            raise SplatError(f"pixels of {size} metres show nothing", "give a positive number")
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
    """The camera at `eye` that looks straight down.

    heading : what is up in the picture, degrees clockwise from north
    options : of `look_at`, but for `up`
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
    """The orthographic camera that draws `bounds` as a map: north up, the first pixel's corner at
    the north-west.

    bounds : left, bottom, right, top, metres of the CRS; the map covers them, its last row and
        column may reach beyond
    height : that it looks down from, metres; what lies above is not seen

    Raises
    ------
    SplatError
        if the bounds are empty or the size of pixels is not positive
    """
    left, bottom, right, top = bounds
    if not (left < right and bottom < top) or not metres_per_pixel > 0:
        raise SplatError(
            f"a map of {bounds} in pixels of {metres_per_pixel} metres has no pixel",
            "give left < right, bottom < top",
        )
    # An edge that is nearer to a line of pixels than a millionth of a pixel counts as on it.
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
    """`Camera.rotation` of a camera at `eye` that looks at `target`; see `look_at`."""
    forward = np.array(_vector(target, "the target")) - np.array(_vector(eye, "the eye"))
    length = np.linalg.norm(forward)
    if not length > 0:
        raise SplatError(f"the camera stands in its target {tuple(eye)}", "move one of them")
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
    except (TypeError, ValueError) as error:
        raise SplatError(f"{what} {value!r} is no point", "give east, north and up") from error
    if array.shape != (3,) or not np.isfinite(array).all():
        raise SplatError(
            f"{what} {value!r} is no point", "give three finite numbers: east, north, up"
        )
    return float(array[0]), float(array[1]), float(array[2])


def _rotation(value: Any) -> Matrix:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise SplatError(f"{value!r} is no rotation", "give three rows of three numbers") from error
    if array.shape != (3, 3) or not np.isfinite(array).all():
        raise SplatError(
            f"a rotation of shape {array.shape} is none", "give three rows of three finite numbers"
        )
    error_of = np.abs(array @ array.T - np.eye(3)).max()
    if error_of > TURN_TOLERANCE or np.linalg.det(array) < 0:
        raise SplatError(
            f"the camera's matrix {array.tolist()} is no rotation",
            "its columns are to be right, down and forward: unit, at right angles, right-handed",
        )
    array = array + 0.0  # no -0
    a, b, c = ((float(row[0]), float(row[1]), float(row[2])) for row in array)
    return a, b, c
