"""What both renderers share: framing, level of detail, background, sun and light.

The renderer of Gaussians needs torch, that of the surface does not; this module does not either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import JobError
from earthgen.render.interfaces import View
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from earthgen_preview import light
from earthgen_preview.light import SHOULDER, SKY_STRENGTH, SUN_STRENGTH
from earthgen_preview.relief import Relief

MARGIN = 0.03
"""Margin of an oblique picture on each side, relative to its longer edge."""

SAMPLES = 2
"""Samples of an oblique view along each edge of a pixel."""

PAPER = np.array([247, 245, 240], np.uint8)
HORIZON = np.array([214, 226, 236], np.uint8)
"""Background colours at the bottom and at the top of an oblique view."""

HAZE = 0.10
"""Share of the background's colour in the farthest things."""

MAP_SUN = (315.0, 45.0)
"""Azimuth and elevation of the sun on maps, degrees: in the north-west, as is usual in hill
shading."""


@dataclass(frozen=True)
class Projection:
    """An orthographic projection of a world to a picture.

    Attributes
    ----------
    right, up, toward : NDArray (3,) float64
        Unit vectors (east, north, up) of the picture's axes and of the view.
    anchor : NDArray (3,) float64
        Origin of projected points, CRS metres.
    left, top : float
        Upper left corner of the picture along `right` and `up`, metres from the anchor.
    metres_per_pixel : float
        Edge of a pixel.
    shape : tuple of int
        Height and width, pixels.
    low, high : float
        Heights between which the world lies, metres.
    """

    right: NDArray
    up: NDArray
    toward: NDArray
    anchor: NDArray
    left: float
    top: float
    metres_per_pixel: float
    shape: tuple[int, int]
    low: float
    high: float

    @property
    def north(self) -> tuple[float, float]:
        """Direction of north in the picture (right, up), not normalised."""
        return float(self.right[1]), float(self.up[1])


def project_view(world: World, view: View) -> Projection:
    """Frame a world, or a part of it, from above or oblique.

    Raises
    ------
    JobError
        If the kind of the view, its size or its angle is not supported.
    StoreError, RegionError
        If the world has no finished tile, or none within the view's bounds.
    """
    if view.kind not in ("top", "oblique"):
        raise JobError(f"unknown view {view.kind!r}", "choose top or oblique")
    if view.size < 16:
        raise JobError(f"a picture of {view.size} pixels is too small", "give at least 16")
    if view.kind == "oblique" and not 5 <= view.elevation <= 90:
        raise JobError(
            f"an elevation of {view.elevation:g} degrees is out of range", "give 5 to 90"
        )
    frame = select(world, view.bounds, 1).frame
    coarse = select(world, view.bounds, max(world.levels))
    low, high = _heights(world, coarse)
    left, bottom, right, top = frame.bounds
    anchor = np.array([(left + right) / 2, (bottom + top) / 2, low])
    if view.kind == "top":
        axes = np.eye(3)
        mpp = max(right - left, top - bottom) / view.size
        shape = (max(round((top - bottom) / mpp), 1), max(round((right - left) / mpp), 1))
        corner = (left - anchor[0], top - anchor[1])
        return Projection(axes[0], axes[1], -axes[2], anchor, *corner, mpp, shape, low, high)
    a, e = math.radians(view.azimuth), math.radians(view.elevation)
    across = np.array([-math.cos(a), math.sin(a), 0.0])
    upward = np.array([-math.sin(a) * math.sin(e), -math.cos(a) * math.sin(e), math.cos(e)])
    toward = -np.array([math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), math.sin(e)])
    base = low - block_depth(frame.bounds)
    corners = (
        np.array([(x, y, z) for x in (left, right) for y in (bottom, top) for z in (base, high)])
        - anchor
    )
    u, v = corners @ across, corners @ upward
    extent = max(np.ptp(u), np.ptp(v))
    mpp = extent * (1 + 2 * MARGIN) / view.size
    border = extent * MARGIN
    shape = (math.ceil((np.ptp(v) + 2 * border) / mpp), math.ceil((np.ptp(u) + 2 * border) / mpp))
    # Rounding may add a pixel to the longer edge.
    shape = (min(shape[0], view.size), min(shape[1], view.size))
    return Projection(
        across,
        upward,
        toward,
        anchor,
        float(u.min() - border),
        float(v.max() + border),
        float(mpp),
        shape,
        low,
        high,
    )


def block_depth(bounds: tuple[float, float, float, float]) -> float:
    """Depth in metres of the block of earth that an oblique view shows below the lowest ground."""
    return 0.02 * math.hypot(bounds[2] - bounds[0], bounds[3] - bounds[1])


def _heights(world: World, coarse: Selection) -> tuple[float, float]:
    """Lowest ground and highest surface of the coarsest level, with a margin for finer ones."""
    low, high = math.inf, -math.inf
    for tx, ty in coarse.tiles:
        part = coarse.tile(world, tx, ty)
        if part is None:
            continue
        inside = world.tile_frame(tx, ty, coarse.level).slices(part)
        layers = world.tile_layers(tx, ty, coarse.level)
        ground, surface = layers["ground"][inside], layers["surface"][inside]
        if np.isfinite(ground).any():
            low = min(low, float(np.nanmin(ground)))
            high = max(high, float(np.nanmax(surface)))
    if low > high:
        return 0.0, 0.0
    return low - coarse.frame.voxel_size / 2, high + coarse.frame.voxel_size


def level_for(world: World, metres_per_pixel: float) -> int:
    """The coarsest level whose voxels are not larger than a pixel, otherwise the finest."""
    fitting = [
        level for level in world.levels if level * world.frame.voxel_size <= metres_per_pixel
    ]
    return max(fitting, default=min(world.levels))


def background(height: int) -> NDArray:
    """(height, 3) float32 linear colours of the rows of an oblique view, from the top down."""
    t = np.linspace(0, 1, height)[:, None]
    return (light.to_linear(HORIZON) * (1 - t) + light.to_linear(PAPER) * t).astype(np.float32)


def average_samples(colour: NDArray, samples: int) -> NDArray:
    """(h, w, c) means of the samples of each pixel, from (h * samples, w * samples, c)."""
    h, w = colour.shape[0] // samples, colour.shape[1] // samples
    return colour.reshape(h, samples, w, samples, -1).mean(axis=(1, 3))


@dataclass(frozen=True)
class Light:
    """Sun and sky, and what keeps them from a place; relative to an anchor.

    Attributes
    ----------
    left, top, cell : float
        Upper left corner and cell size of the two grids, metres.
    shadow, around : NDArray (ny, nx) float32
        Metres, of `light.shadow_heights` and `light.surroundings`.
    sun : NDArray (3,) float32
        Unit vector towards the sun.
    softness : float
        Metres below the shadow's height at which the shadow is full.
    """

    left: float
    top: float
    cell: float
    shadow: NDArray
    around: NDArray
    sun: NDArray
    softness: float


def side_sun(azimuth: float) -> tuple[float, float]:
    """Azimuth and elevation of the sun for a view from `azimuth`, degrees.

    The sun is to the left of the viewer and a little behind, so that visible walls are lit.
    """
    return azimuth + 48.0, 40.0


def sunlight(
    relief: Relief, sun: tuple[float, float], anchor: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Light:
    """Compute the light on a relief.

    Parameters
    ----------
    relief : Relief
        Heights that cast shadows.
    sun : tuple of float
        Azimuth and elevation, degrees.
    anchor : tuple of float
        Origin of the result, CRS metres.
    """
    return Light(
        left=relief.left - anchor[0],
        top=relief.top - anchor[1],
        cell=relief.cell,
        shadow=light.shadow_heights(relief.surface, relief.cell, *sun) - np.float32(anchor[2]),
        around=light.surroundings(relief.surface, relief.cell, 7.0) - np.float32(anchor[2]),
        sun=light.sun_vector(*sun),
        softness=1.2 * relief.cell + 0.6,
    )


def unshaded(azimuth: float) -> Light:
    """The light of a view from `azimuth` without shadows: grids of one cell, which is
    everywhere."""
    nothing = np.full((1, 1), light.FAR_BELOW, np.float32)
    return Light(0.0, 0.0, 1.0, nothing, nothing, light.sun_vector(*side_sun(azimuth)), 1.0)


@numba.njit(cache=True, nogil=True, inline="always")
def _roll_off(value):  # type: ignore[no-untyped-def]
    """`light.roll_off` of one value."""
    if value <= SHOULDER:
        return max(value, 0.0)
    return SHOULDER + (1 - SHOULDER) * math.tanh((value - SHOULDER) / (1 - SHOULDER))


@numba.njit(cache=True, nogil=True, inline="always")
def _sample(grid, x, y):  # type: ignore[no-untyped-def]
    """Interpolate bilinearly, in cells from the centre of the first; constant beyond the border."""
    ny, nx = grid.shape
    x = min(max(x, 0.0), nx - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    i, j = min(int(y), max(ny - 2, 0)), min(int(x), max(nx - 2, 0))
    t, u = y - i, x - j
    i1, j1 = min(i + 1, ny - 1), min(j + 1, nx - 1)
    return (grid[i, j] * (1 - u) + grid[i, j1] * u) * (1 - t) + (
        grid[i1, j] * (1 - u) + grid[i1, j1] * u
    ) * t


@numba.njit(cache=True, nogil=True)
def shade_point(  # type: ignore[no-untyped-def]
    x,
    y,
    z,
    colour,
    normal,
    water,
    outward,
    grid_left,
    grid_top,
    cell,
    shadow,
    around,
    sun,
    softness,
    sun_colour,
    sky_colour,
    shade,
):
    """Write the linear light of one place to `shade` (3,); x, y, z and the grids as in `Light`."""
    # The splat's normal is smoother than the voxel's side, but means nothing on a side that faces
    # elsewhere.
    nx, ny, nz = normal[0], normal[1], normal[2]
    if nx * outward[0] + ny * outward[1] + nz * outward[2] < 0.25:
        nx, ny, nz = 0.5 * nx + outward[0], 0.5 * ny + outward[1], 0.5 * nz + outward[2]
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        if length > 1e-6:
            nx, ny, nz = nx / length, ny / length, nz / length
    # Half a cell in front of the side, so that its own column does not shade it.
    gx = (x + outward[0] * cell * 0.5 - grid_left) / cell - 0.5
    gy = (grid_top - y - outward[1] * cell * 0.5) / cell - 0.5
    shaded = (_sample(shadow, gx, gy) - z) / softness
    shaded = min(max(shaded, 0.0), 1.0)
    below = min(max((_sample(around, gx, gy) - z) / 10.0, 0.0), 1.0)
    facing = max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0) / sun[2]
    if water:
        facing = 1.0
        shaded *= 0.5
    direct = SUN_STRENGTH * min(facing, 1.5) * (1 - 0.85 * shaded)
    ambient = SKY_STRENGTH * (1 - 0.5 * below) * (0.65 + 0.35 * nz)
    for band in range(3):
        value = colour[band] * (direct * sun_colour[band] + ambient * sky_colour[band])
        if water:
            value = 0.88 * value + 0.12 * sky_colour[band] * 0.8
        shade[band] = _roll_off(value)
