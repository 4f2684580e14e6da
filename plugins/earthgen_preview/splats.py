"""The `splats` renderer: the Gaussians of a world, lit like the surface in the other renderer.

The Gaussians are drawn window by window (`earthgen.render.pictures`). Each pixel is then lit by its
colour, normal, depth and class. So a picture of any size needs the memory of one window and of the
picture itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import JobError
from earthgen.progress import Progress
from earthgen.render.interfaces import View
from earthgen.render.pictures import Tiles, Window, draw
from earthgen.splats.cameras.camera import Camera
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.block import paint_block
from earthgen_preview.marks import with_marks
from earthgen_preview.relief import WATER, read_relief
from earthgen_preview.views import (
    HAZE,
    HORIZON,
    MAP_SUN,
    PAPER,
    SAMPLES,
    Light,
    Projection,
    average_samples,
    background,
    level_for,
    project_view,
    shade_point,
    side_sun,
    sunlight,
)

RELIEF = 2048
"""Approximate largest number of cells along an edge of the grid of heights that cast shadows."""

FAR = 1e6
"""Metres before and behind an orthographic camera within which everything is visible."""

LEAST = 0.02
"""A pixel of which a smaller share is covered shows the background."""

SURFACE = 0.8
"""Alpha that a closed surface of discs has everywhere. Between four discs it is below 1; what is
behind must not shine through as a lattice of dots."""


class SplatRenderer:
    """Draw the Gaussians of a world on the CPU, from above, oblique, or as a camera sees them.

    Parameters
    ----------
    marks : bool
        Draw a scale bar and a north arrow into maps and oblique views of 200 pixels or more.
    lit : bool
        Light the world with a low sun and shadows; otherwise show the stored colours.
    rasterizer : str, optional
        Name of the rasterizer, see `earthgen.splats.rasterize`.
    """

    name = "splats"

    def __init__(self, marks: bool = True, lit: bool = True, rasterizer: str | None = None) -> None:
        self.marks = marks
        self.lit = lit
        self.rasterizer = rasterizer
        self._lights: dict[tuple[object, ...], Light] = {}
        self._tiles: Tiles | None = None

    def render(self, world: World, view: View, progress: Progress) -> NDArray:
        """Draw a view.

        Returns
        -------
        NDArray (height, width, 3) uint8
            sRGB.

        Raises
        ------
        JobError
            If the view is not supported.
        StoreError, RegionError
            If the world has no finished tile, or none within the view's bounds.
        """
        eye: Projection | None = None
        if view.kind == "camera":
            if view.camera is None:
                raise JobError(
                    "a view of kind 'camera' needs a camera", "give View(kind='camera', camera=...)"
                )
            seen = view.camera
        else:
            eye = project_view(world, view)
            seen = orthographic(eye, world)
        image = self._draw(world, view, seen, eye, progress)
        return with_marks(image, eye) if self.marks and eye is not None else image

    def _draw(
        self, world: World, view: View, seen: Camera, eye: Projection | None, progress: Progress
    ) -> NDArray:
        samples = SAMPLES if view.kind == "oblique" else 1
        fine = seen.scaled(samples) if samples > 1 else seen
        scene = self._light(world, view) if self.lit else None
        behind = _backdrop(world, view, eye, fine.height)
        haze = _haze(world, view, seen)
        image = np.empty((seen.height, seen.width, 3), np.uint8)
        for window in draw(
            world,
            fine,
            bounds=view.bounds,
            detail=float(samples),
            window=512 * samples,
            progress=progress,
            rasterizer=self.rasterizer,
            tiles=self._read(world, view),
        ):
            rows, columns = window.place
            colours = _light_window(
                window, scene, behind[rows, columns if behind.shape[1] > 1 else slice(None)], haze
            )
            row, column = rows.start // samples, columns.start // samples
            mean = average_samples(colours, samples)
            h, w = mean.shape[:2]
            image[row : row + h, column : column + w] = light.to_srgb(mean)
        return image

    def _read(self, world: World, view: View) -> Tiles:
        """The tiles of a view, which the frames of a path share."""
        tiles = self._tiles
        if tiles is None or tiles.world is not world or tiles.bounds != view.bounds:
            tiles = self._tiles = Tiles(world, view.bounds)
        return tiles

    def _light(self, world: World, view: View) -> Light:
        """The light of a view, which the frames of a path share."""
        sun = MAP_SUN if view.kind == "top" else side_sun(view.azimuth)
        key = (world.path, view.bounds, sun, len(world.tiles()))
        if key not in self._lights:
            self._lights = {key: light_of(world, view, sun)}
        return self._lights[key]


def orthographic(eye: Projection, world: World) -> Camera:
    """Convert a projection to the camera of the same view."""
    turn = np.stack([eye.right, -eye.up, eye.toward], axis=1)
    pixel = 1 / eye.metres_per_pixel
    height, width = eye.shape
    x, y, z = (float(value) for value in eye.anchor)
    rows = [(float(a), float(b), float(c)) for a, b, c in turn]
    return Camera(
        "orthographic",
        width,
        height,
        pixel,
        pixel,
        -eye.left * pixel,
        eye.top * pixel,
        (x, y, z),
        (rows[0], rows[1], rows[2]),
        world.frame.crs,
        world.frame.vertical_crs,
        near=-FAR,
        far=FAR,
    )


def light_of(world: World, view: View, sun: tuple[float, float]) -> Light:
    """The light on a world in metres of the CRS; `sun` is azimuth and elevation, degrees."""
    whole = select(world, view.bounds, 1)
    left, bottom, right, top = whole.frame.bounds
    pixel = max(max(right - left, top - bottom) / RELIEF, world.frame.voxel_size)
    selection = select(world, view.bounds, level_for(world, pixel))
    return sunlight(read_relief(world, selection, pixel, colours=False), sun)


@dataclass(frozen=True)
class Haze:
    """Depths at which the haze begins and is full, metres along the view."""

    near: float
    far: float


def _haze(world: World, view: View, seen: Camera) -> Haze | None:
    if view.kind == "top":
        return None
    left, bottom, right, top = world.part(1, view.bounds).bounds
    size = math.hypot(right - left, top - bottom)
    if seen.kind == "orthographic":
        return Haze(-size / 2, size / 2)
    return Haze(0.0, size)


def _backdrop(world: World, view: View, eye: Projection | None, height: int) -> NDArray:
    """(height, width or 1, 3) float32 linear colours behind the world."""
    if view.kind == "top":
        return np.tile(light.to_linear(PAPER), (height, 1, 1))
    if eye is None:
        return background(height)[:, None, :]
    selection = select(world, view.bounds, level_for(world, eye.metres_per_pixel))
    return paint_block(world, selection, eye, view.azimuth).colour


def _light_window(
    window: Window, scene: Light | None, behind: NDArray, haze: Haze | None
) -> NDArray:
    """(h, w, 3) float32 linear light of a window; `behind`, (h, w or 1, 3), is the background."""
    picture = window.rendering
    alpha, rgb = picture.alpha.numpy(), picture.rgb.numpy()
    colour = light.decode(np.clip(rgb / np.maximum(alpha, LEAST)[..., None], 0, 1)).astype(
        np.float32
    )
    median = picture.median_depth.numpy()
    depth = np.where(median != 0, median, picture.depth.numpy())
    if scene is not None:
        seen = picture.camera
        h, w = alpha.shape
        row, column = np.mgrid[0:h, 0:w] + 0.5
        points = seen.unproject(np.stack([column.ravel(), row.ravel()], 1), depth.ravel())
        near = replace(scene, left=scene.left - seen.position[0], top=scene.top - seen.position[1])
        points[:, 0] -= seen.position[0]
        points[:, 1] -= seen.position[1]
        _light_pixels(
            points,
            colour.reshape(-1, 3),
            picture.normal.numpy().reshape(-1, 3),
            WATER[picture.semantics.numpy().ravel()],
            alpha.ravel() >= LEAST,
            near.left,
            near.top,
            near.cell,
            near.shadow,
            near.around,
            near.sun,
            near.softness,
            light.SUN,
            light.SKY,
        )
    if haze is not None:
        share = (
            HAZE
            * np.clip((depth - haze.near) / (haze.far - haze.near), 0, 1).astype(np.float32)[
                ..., None
            ]
        )
        colour = colour * (1 - share) + light.to_linear(HORIZON) * share
    cover = np.minimum(alpha / SURFACE, 1)[..., None]
    return np.where(cover >= LEAST, colour * cover + behind * (1 - cover), behind)


@numba.njit(cache=True, nogil=True)
def _light_pixels(  # type: ignore[no-untyped-def]
    points,
    colour,
    normal,
    water,
    covered,
    left,
    top,
    cell,
    shadow,
    around,
    sun,
    softness,
    sun_colour,
    sky_colour,
):
    shade = np.empty(3, np.float32)
    unit = np.empty(3, np.float32)
    for k in range(points.shape[0]):
        if not covered[k]:
            continue
        length = math.sqrt(normal[k, 0] ** 2 + normal[k, 1] ** 2 + normal[k, 2] ** 2)
        for axis in range(3):
            unit[axis] = normal[k, axis] / length if length > 1e-6 else (1.0 if axis == 2 else 0.0)
        shade_point(
            points[k, 0],
            points[k, 1],
            points[k, 2],
            colour[k],
            unit,
            water[k],
            unit,
            left,
            top,
            cell,
            shadow,
            around,
            sun,
            softness,
            sun_colour,
            sky_colour,
            shade,
        )
        for band in range(3):
            colour[k, band] = shade[band]
