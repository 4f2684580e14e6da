"""Rings and grids of aerial cameras around a scene, above its surface.

After Aerial-Earth3D (Liu et al., AAAI 2026, section "Aerial-Earth3D"), whose cameras are designed
on a simulated scene of each site: rings of oblique and of nadir views at two heights. The paper
gives no radii, heights or numbers of views; the proportions of `aerial` are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import UP, Camera, Vector, look_at
from geo_io.frame import UNKNOWN_DATUM, Bounds

Surface: TypeAlias = float | Callable[[NDArray, NDArray], NDArray]
"""Heights in metres: one for all places, or a function of arrays of eastings and northings, such
as a `HeightField`."""

CLEARANCE = 3.0
"""Default smallest height of a camera above the surface, metres."""

SITE = 600.0
"""Edge of the scenes of Aerial-Earth3D, metres; `aerial` divides larger scenes into such sites."""

MOST_POSES = 1_000_000
"""Largest number of cameras of a set."""


@dataclass(frozen=True)
class Lens:
    """Picture size, view and CRS of a set of cameras; the fields are the options of `look_at`."""

    width: int
    height: int
    field_of_view: float | None = None
    metres_per_pixel: float | None = None
    crs: str = ""
    vertical_crs: str = UNKNOWN_DATUM
    near: float = 0.05
    far: float = math.inf

    def look_at(self, eye: Vector, target: Vector, up: Vector = UP) -> Camera:
        """Create the camera at `eye` that looks at `target`; see `earthgen.splats.look_at`."""
        options: dict[str, Any] = asdict(self)
        return look_at(eye, target, up=up, **options)

    def down(self, eye: Vector, heading: float = 0.0) -> Camera:
        """Create the camera at `eye` that looks straight down; `heading`, degrees clockwise from
        north, is up in the picture."""
        angle = math.radians(heading)
        return self.look_at(
            eye, (eye[0], eye[1], eye[2] - 1), (math.sin(angle), math.cos(angle), 0.0)
        )

    def footprint(self, distance: float) -> tuple[float, float]:
        """Width and height of the picture at a distance from the camera, metres."""
        model = self.look_at((0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
        reach = distance if model.kind == "pinhole" else 1.0
        return model.width / model.fx * reach, model.height / model.fy * reach


@dataclass(frozen=True)
class HeightField:
    """A surface on a raster, as a function of easting and northing.

    Attributes
    ----------
    heights : NDArray (ny, nx)
        Metres, rows from north to south; cells of NaN get the nearest height.
    bounds : tuple of float
        Left, bottom, right, top, metres of the CRS; beyond them the heights of the border apply.

    Raises
    ------
    SplatError
        If all heights are NaN, or the bounds are empty.
    """

    heights: NDArray
    bounds: Bounds

    def __post_init__(self) -> None:
        left, bottom, right, top = self.bounds
        known = np.isfinite(self.heights)
        if self.heights.ndim != 2 or not known.any() or not (left < right and bottom < top):
            raise SplatError(
                f"heights of shape {self.heights.shape} within {self.bounds} are not a surface",
                "give (ny, nx) heights, not all NaN, and left < right, bottom < top",
            )
        if not known.all():
            from scipy.ndimage import distance_transform_edt

            row, col = distance_transform_edt(~known, return_distances=False, return_indices=True)
            object.__setattr__(self, "heights", self.heights[row, col])

    def __call__(self, east: NDArray, north: NDArray) -> NDArray:
        """Heights of the cells that contain the points, float64."""
        left, bottom, right, top = self.bounds
        ny, nx = self.heights.shape
        col = np.clip(np.floor((np.asarray(east) - left) / (right - left) * nx), 0, nx - 1).astype(
            np.int64
        )
        row = np.clip(np.floor((top - np.asarray(north)) / (top - bottom) * ny), 0, ny - 1).astype(
            np.int64
        )
        return self.heights[row, col].astype(np.float64)


def height_at(surface: Surface, east: float, north: float) -> float:
    """Height of the surface at one place, metres; SplatError if it is not finite."""
    height = surface(np.array([east]), np.array([north])) if callable(surface) else surface
    value = float(np.asarray(height, np.float64).reshape(-1)[0])
    if not math.isfinite(value):
        raise SplatError(
            f"the height of the surface is {value} at {east}, {north}",
            "give a surface without gaps there",
        )
    return value


def clear(eye: Vector, surface: Surface | None, clearance: float = CLEARANCE) -> Vector:
    """Raise a position to `clearance` metres above the surface, if it is lower.

    The surface is evaluated at the position and on a circle of radius `clearance` around it.
    """
    if surface is None:
        return eye
    angle = np.arange(8) * (math.pi / 4)
    east = eye[0] + clearance * np.concatenate([[0.0], np.cos(angle)])
    north = eye[1] + clearance * np.concatenate([[0.0], np.sin(angle)])
    highest = max(height_at(surface, x, y) for x, y in zip(east, north, strict=True))
    return eye[0], eye[1], max(eye[2], highest + clearance)


def ring(
    centre: Vector,
    radius: float,
    height: float,
    count: int,
    lens: Lens,
    *,
    target: Vector | None = None,
    start: float = 0.0,
    down: bool = False,
    surface: Surface | None = None,
    clearance: float = CLEARANCE,
) -> list[Camera]:
    """Create cameras on a horizontal circle, clockwise.

    Parameters
    ----------
    centre : tuple of float
        East, north, up in metres of the CRS.
    radius : float
        Of the circle, metres.
    height : float
        Of the circle above the centre, metres.
    count : int
        Number of cameras.
    lens : Lens
        Picture size, view and CRS.
    target : tuple of float, optional
        What the cameras look at; by default the centre.
    start : float
        Bearing of the first camera from the centre, degrees clockwise from north.
    down : bool
        Look straight down, with the centre towards the lower edge of the picture.
    surface : float or callable, optional
        Heights; cameras below it are raised to `clearance` metres above it, see `clear`.
    clearance : float
        Metres.

    Raises
    ------
    SplatError
        If `count` is below 1, or a camera is at its target.
    """
    if not 1 <= count <= MOST_POSES or not radius >= 0:
        raise SplatError(
            f"{count} cameras at a radius of {radius} metres make no ring", "give positive numbers"
        )
    cameras = []
    for number in range(count):
        bearing = math.radians(start) + 2 * math.pi * number / count
        eye = (
            centre[0] + radius * math.sin(bearing),
            centre[1] + radius * math.cos(bearing),
            centre[2] + height,
        )
        eye = clear(eye, surface, clearance)
        if down:
            cameras.append(lens.down(eye, math.degrees(bearing)))
        else:
            cameras.append(lens.look_at(eye, centre if target is None else target))
    return cameras


def grid(
    bounds: Bounds,
    height: float,
    lens: Lens,
    *,
    ground: Surface = 0.0,
    tilt: float = 0.0,
    headings: Sequence[float] = (0.0,),
    overlap: float = 80.0,
    side_overlap: float = 60.0,
    surface: Surface | None = None,
    clearance: float = CLEARANCE,
) -> list[Camera]:
    """Create cameras whose picture centres lie on a grid, in lines to and fro, one grid for each
    heading.

    The overlap is that of rectangles at the distance of the picture centre. It is exact for nadir
    pictures of a plane, and a lower bound in the middle of oblique ones.

    Parameters
    ----------
    bounds : tuple of float
        Left, bottom, right, top, metres of the CRS; the outermost rows of the grid lie on them.
    height : float
        Of the cameras above the ground in the picture centre, metres.
    lens : Lens
        Picture size, view and CRS.
    ground : float or callable
        Height of the ground; if it is a function, the flight follows it.
    tilt : float
        Angle between the view and straight down, degrees in [0, 90); 45 is a usual oblique view.
    headings : sequence of float
        Directions of tilted views, which are up in the picture, degrees clockwise from north.
    overlap : float
        Of successive pictures along the heading, percent in [0, 100).
    side_overlap : float
        Of pictures side by side, percent in [0, 100).
    surface : float or callable, optional
        Heights; cameras below it are raised to `clearance` metres above it. By default the ground.
    clearance : float
        Metres.

    Raises
    ------
    SplatError
        If bounds, height, tilt or overlap are out of range, or there would be more than a million
        cameras.
    """
    left, bottom, right, top = bounds
    if not (left <= right and bottom <= top and height > 0 and 0 <= tilt < 90):
        raise SplatError(
            f"cameras cannot fly {height} metres above {bounds} with a tilt of {tilt} degrees",
            "give left <= right, bottom <= top, a positive height and a tilt from 0 to below 90",
        )
    if not (0 <= overlap < 100 and 0 <= side_overlap < 100):
        raise SplatError(
            f"overlaps of {overlap} and {side_overlap} % are out of range",
            "give them in [0, 100)",
        )
    slope = math.radians(tilt)
    across, along = lens.footprint(height / math.cos(slope))
    across, along = across * (1 - side_overlap / 100), along * (1 - overlap / 100)
    cameras: list[Camera] = []
    for heading in headings:
        angle = math.radians(heading)
        sine, cosine = math.sin(angle), math.cos(angle)
        east = _stations(left, right, _chord(across, along, cosine, sine))
        north = _stations(bottom, top, _chord(across, along, sine, cosine))
        if len(cameras) + len(east) * len(north) > MOST_POSES:
            raise SplatError(
                f"a grid of {len(east)} by {len(north)} cameras is too large",
                "fly higher or with less overlap",
            )
        for line, x in enumerate(east):
            for y in north if line % 2 == 0 else north[::-1]:
                below = height_at(ground, x, y)
                back = height * math.tan(slope)
                eye = (x - back * sine, y - back * cosine, below + height)
                eye = clear(eye, ground if surface is None else surface, clearance)
                # Up along the heading: the sky for tilted views, and well defined straight down.
                up = (sine, cosine, 0.0)
                cameras.append(lens.look_at(eye, (x, y, below), up))
    return cameras


def aerial(
    bounds: Bounds,
    lens: Lens,
    *,
    ground: Surface = 0.0,
    surface: Surface | None = None,
    views: int = 12,
    clearance: float = CLEARANCE,
    site: float = SITE,
) -> list[Camera]:
    """Create high and low rings of oblique and nadir views around a scene, as in the paper.

    With s the longer edge of a site, each site has: a high ring (height 0.5 s, radius 0.7 s) and a
    low ring (0.2 s, 0.45 s), which look at its centre, a ring that looks straight down (0.4 s,
    0.25 s), and one view straight down from the height at which it covers the site (from s for an
    orthographic lens).

    Parameters
    ----------
    bounds : tuple of float
        Left, bottom, right, top of the scene, metres of the CRS.
    lens : Lens
        Picture size, view and CRS.
    ground : float or callable
        Height of the ground.
    surface : float or callable, optional
        Heights that cameras have to stay above (trees, roofs); by default the ground.
    views : int
        Number of cameras in a low ring; a high ring has twice as many.
    clearance : float
        Smallest height above the surface, metres.
    site : float
        Longer scenes are divided into equal sites of at most this edge, metres, each with its own
        rings.

    Raises
    ------
    SplatError
        If the bounds are empty, `views` is below 1, or there would be more than a million cameras.
    """
    left, bottom, right, top = bounds
    if not (left < right and bottom < top and site > 0):
        raise SplatError(f"the scene {bounds} is empty", "give left < right, bottom < top")
    solid = ground if surface is None else surface
    nx, ny = math.ceil((right - left) / site - 1e-9), math.ceil((top - bottom) / site - 1e-9)
    cameras: list[Camera] = []
    high = 1 / min(lens.footprint(1.0)) if lens.metres_per_pixel is None else 1.0
    if nx * ny * (4 * views + 1) > MOST_POSES:
        raise SplatError(
            f"{nx} by {ny} sites have too many cameras", "give a larger site or fewer views"
        )
    for j in range(ny):
        for i in range(nx):
            x = left + (right - left) * (i + 0.5) / nx
            y = bottom + (top - bottom) * (j + 0.5) / ny
            s = max((right - left) / nx, (top - bottom) / ny)
            centre = (x, y, height_at(ground, x, y))
            options: dict[str, Any] = {"surface": solid, "clearance": clearance}
            cameras += ring(centre, 0.7 * s, 0.5 * s, 2 * views, lens, **options)
            cameras += ring(
                centre, 0.45 * s, 0.2 * s, views, lens, start=180 / max(views, 1), **options
            )
            cameras += ring(centre, 0.25 * s, 0.4 * s, views, lens, down=True, **options)
            cameras.append(lens.down(clear((x, y, centre[2] + high * s), solid, clearance)))
    return cameras


def above(
    cameras: Sequence[Camera], surface: Surface, clearance: float = CLEARANCE
) -> list[Camera]:
    """Raise cameras that are too low to `clearance` metres above the surface; see `clear`."""
    return [
        replace(camera, position=clear(camera.position, surface, clearance)) for camera in cameras
    ]


def _chord(across: float, along: float, cosine: float, sine: float) -> float:
    """Length of the line through the middle of a rectangle at an angle to its edge `across`."""
    tiny = 1e-12
    return min(across / max(abs(cosine), tiny), along / max(abs(sine), tiny))


def _stations(low: float, high: float, step: float) -> list[float]:
    """Evenly spaced numbers from low to high, at most `step` apart."""
    count = (high - low) / step
    if not count < MOST_POSES:
        raise SplatError(
            f"a line of {count:.0f} cameras is too long", "fly higher or with less overlap"
        )
    return (
        [float(value) for value in np.linspace(low, high, math.ceil(count - 1e-9) + 1)]
        if high > low
        else [low]
    )
