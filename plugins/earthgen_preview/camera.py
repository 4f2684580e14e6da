"""Where an orthographic picture looks from, and what a pixel of it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import JobError
from earthgen.render.interfaces import View
from earthgen.world.selection import Selection, select
from earthgen.world.world import World

MARGIN = 0.03
"""Of an oblique picture, as a share of its longer edge, on each side."""


@dataclass(frozen=True)
class Camera:
    """An orthographic camera.

    Attributes
    ----------
    right, up, toward : (3,) float64 unit vectors east, north, up: of the picture's axes, and of the
        view
    anchor : (3,) float64, CRS metres, that projected points are relative to
    left, top : place of the picture's upper left corner along right and up, metres from the anchor
    metres_per_pixel : float
    shape : (height, width) pixels
    low, high : heights between which the world lies, metres
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
        """Direction of north in the picture, right and up, not normalised."""
        return float(self.right[1]), float(self.up[1])


def camera(world: World, view: View) -> Camera:
    """The camera of a view.

    Raises
    ------
    JobError
        if the kind of view, its size or its angle is impossible
    StoreError, RegionError
        if the world has no finished tile, or none within the view's bounds
    """
    if view.kind not in ("top", "oblique"):
        raise JobError(f"there is no view {view.kind!r}", "choose top or oblique")
    if view.size < 16:
        raise JobError(f"a picture of {view.size} pixels is too small", "give at least 16")
    if view.kind == "oblique" and not 5 <= view.elevation <= 90:
        raise JobError(f"an elevation of {view.elevation:g} degrees shows nothing", "give 5 to 90")
    frame = select(world, view.bounds, 1).frame
    coarse = select(world, view.bounds, max(world.levels))
    low, high = _heights(world, coarse)
    left, bottom, right, top = frame.bounds
    anchor = np.array([(left + right) / 2, (bottom + top) / 2, low])
    if view.kind == "top":
        axes = np.eye(3)
        mpp = max(right - left, top - bottom) / view.size
        shape = (max(round((top - bottom) / mpp), 1), max(round((right - left) / mpp), 1))
        place = (left - anchor[0], top - anchor[1])
        return Camera(axes[0], axes[1], -axes[2], anchor, *place, mpp, shape, low, high)
    a, e = math.radians(view.azimuth), math.radians(view.elevation)
    across = np.array([-math.cos(a), math.sin(a), 0.0])
    upward = np.array([-math.sin(a) * math.sin(e), -math.cos(a) * math.sin(e), math.cos(e)])
    toward = -np.array([math.sin(a) * math.cos(e), math.cos(a) * math.cos(e), math.sin(e)])
    base = low - plinth(frame.bounds)
    corners = (
        np.array([(x, y, z) for x in (left, right) for y in (bottom, top) for z in (base, high)])
        - anchor
    )
    u, v = corners @ across, corners @ upward
    extent = max(np.ptp(u), np.ptp(v))
    mpp = extent * (1 + 2 * MARGIN) / view.size
    border = extent * MARGIN
    shape = (math.ceil((np.ptp(v) + 2 * border) / mpp), math.ceil((np.ptp(u) + 2 * border) / mpp))
    # Rounding may add a pixel to the longer edge; the picture keeps the size asked for.
    shape = (min(shape[0], view.size), min(shape[1], view.size))
    return Camera(
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


def plinth(bounds: tuple[float, float, float, float]) -> float:
    """Depth in metres of the block of earth that an oblique view puts under the lowest ground."""
    return 0.02 * math.hypot(bounds[2] - bounds[0], bounds[3] - bounds[1])


def _heights(world: World, coarse: Selection) -> tuple[float, float]:
    """Lowest ground and highest surface, from the coarsest level and so with a little room."""
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
