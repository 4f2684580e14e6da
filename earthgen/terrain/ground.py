"""The ground: terrain from a DEM, a DSM or noise, with level water, banks, and roads that follow
it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import fractal
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from earthgen.terrain.filters import box_mean, cells_of, fill_gaps, masked_max, masked_min, nearest
from earthgen.terrain.reach import Reach
from geo_io.frame import Frame

# Reaches of the filters, metres. Their sums tell what is read around a window (land.HALO).
OPENING = 8.0  # half the width of the widest tree or shed that opening takes off a DSM
FILL = (
    4.0,
    12.0,
    24.0,
)  # gaps of the terrain, and ground below buildings, come from trusted cells this near
SMOOTH = 4.0  # the terrain got from a DSM is smoothed this much
TERRAIN_REACH = Reach(2 * OPENING + max(FILL) + SMOOTH)
LAKE_MIN, LAKE_MEAN = 32.0, 12.0  # a lake's level is the mean of the lowest ground near it
RIVER_MIN, RIVER_MEAN = 6.0, 12.0  # a river may slope, but not across
JOIN = 4.0  # where a river meets a lake
WATER_REACH = Reach(LAKE_MIN + LAKE_MEAN + JOIN)
BANK = 16.0  # ground this near to water is fitted to its level
ROAD_MEAN, ROAD_EDGE = 4.0, 2.0  # roads are levelled across, and joined to the ground beside them
ROAD_REACH = Reach(ROAD_MEAN + ROAD_EDGE, 1)
GROUND_REACH = TERRAIN_REACH + WATER_REACH + Reach(BANK, 1) + ROAD_REACH

WATER_DROP = 0.4  # metres from the ground to the water
BANK_SLOPE = 0.7  # the steepest bank
RELIEF_WAVES = (2048.0, 1024.0, 512.0, 256.0, 128.0, 64.0)
RELIEF_GAIN = 0.48
RELIEF_AMPLITUDE = (
    20.0  # metres, of the longest wave; the sum has a standard deviation of about 9 m
)


@dataclass(frozen=True)
class Ground:
    """The ground on a padded window.

    Attributes
    ----------
    terrain : (ny, nx) float32, metres: before water and roads, what buildings stand on
    height : (ny, nx) float32, metres: the ground of the world
    surface : (ny, nx) float32, metres: the DSM where there is one, NaN elsewhere; None without a
        DSM
    """

    terrain: NDArray
    height: NDArray
    surface: NDArray | None


def make_ground(
    frame: Frame, cover: NDArray, dem: NDArray | None, dsm: NDArray | None, noise: Noise
) -> Ground:
    """The ground on `frame`; cells nearer than GROUND_REACH to its edge are not to be used.

    cover : (ny, nx) uint8; dem, dsm : (ny, nx) float32 metres, NaN for nodata, or None
    """
    size = frame.voxel_size
    if dem is not None:
        terrain = _fill(dem, size)
    elif dsm is not None:
        terrain = _terrain_of_surface(dsm, cover, size)
    else:
        terrain = np.full(frame.shape, np.nan, np.float32)
    missing = np.isnan(terrain)
    if missing.any():
        terrain = np.where(missing, relief(frame, noise), terrain)
    return Ground(terrain, _road_level(_water_level(terrain, cover, size), cover, size), dsm)


def relief(frame: Frame, noise: Noise) -> NDArray:
    """(ny, nx) float32 metres: gentle hills where no height is given."""
    hills = fractal(noise.stream("relief"), frame, RELIEF_WAVES, RELIEF_GAIN)
    return np.float32(RELIEF_AMPLITUDE) * hills


def _fill(heights: NDArray, size: float) -> NDArray:
    heights = heights.astype(np.float32)
    known = np.isfinite(heights)
    return (
        heights
        if known.all()
        else fill_gaps(heights, known, tuple(cells_of(r, size) for r in FILL))
    )


def _terrain_of_surface(dsm: NDArray, cover: NDArray, size: float) -> NDArray:
    """Bare ground from a surface model: open cells as they are, others from the morphological
    opening around them."""
    known = np.isfinite(dsm)
    radius = cells_of(OPENING, size)
    building = is_class(cover, "building")
    eroded = masked_min(dsm, known & ~building, radius)
    opened = masked_max(eroded, np.isfinite(eroded), radius)
    # Land use does not list every tree and car, so that an open cell counts only where the opening
    # agrees.
    open_ground = on_surface(cover, "flat", "crop", "meadow", "road", "water")
    trusted = known & open_ground & (dsm - opened < 1.0)
    usable = known & ~building & np.isfinite(opened)
    merged = np.where(trusted, dsm, np.where(usable, opened, np.float32(np.nan)))
    filled = fill_gaps(merged, np.isfinite(merged), tuple(cells_of(r, size) for r in FILL))
    smooth = box_mean(filled, np.isfinite(filled), cells_of(SMOOTH, size))
    return np.where(
        trusted, merged, np.where(np.isfinite(filled), smooth, np.float32(np.nan))
    ).astype(np.float32)


def _water_level(terrain: NDArray, cover: NDArray, size: float) -> NDArray:
    """`terrain` with level water and banks that lead down to it."""
    water = on_surface(cover, "water")
    if not water.any():
        return terrain
    river = is_class(cover, "river")
    level = np.zeros_like(terrain)
    for kind, low, wide in ((river, RIVER_MIN, RIVER_MEAN), (water & ~river, LAKE_MIN, LAKE_MEAN)):
        lowest = masked_min(terrain, kind, cells_of(low, size))
        flat = box_mean(np.where(kind, lowest, 0.0), kind, cells_of(wide, size))
        level = np.where(kind, flat, level)
    level = np.where(
        water, box_mean(level, water, cells_of(JOIN, size)) - WATER_DROP, np.nan
    ).astype(np.float32)

    distance, index = nearest(water, max(cells_of(BANK, size), 1))
    metres = np.where(np.isfinite(distance), distance * size, 0.0).astype(np.float32)
    shore = level.ravel()[np.maximum(index, 0)]
    near = (index >= 0) & ~water
    # A voxel's width of bank is cut off steeply; beyond it the bank rises no faster than
    # BANK_SLOPE. Ground that lies lower than the water is raised to a dam that falls away again.
    high = shore + 0.3 + BANK_SLOPE * metres
    low = shore + 0.25 - 0.3 * np.maximum(metres - 4.0, 0.0)
    banked = np.clip(terrain, low, np.maximum(high, low))
    return np.where(water, level, np.where(near, banked, terrain)).astype(np.float32)


def _road_level(height: NDArray, cover: NDArray, size: float) -> NDArray:
    """`height` with roads and railways levelled across, and blended into the ground beside them."""
    road = on_surface(cover, "road")
    radius, edge = cells_of(ROAD_MEAN, size), cells_of(ROAD_EDGE, size)
    if radius == 0 or not road.any():
        return height
    mean = box_mean(height, road, radius)
    distance, _ = nearest(road, max(edge, 1))
    weight = np.where(np.isfinite(mean), np.clip(1.0 - distance / (edge + 1.0), 0.0, 1.0), 0.0)
    weight[on_surface(cover, "water", "building")] = 0.0
    return (height + weight * (np.where(weight > 0, mean, height) - height)).astype(np.float32)
