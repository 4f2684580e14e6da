"""The ground: terrain from a DEM, a DSM or noise, with level water, banks and levelled roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import fractal_noise
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from earthgen.terrain.filters import (
    box_mean,
    fill_gaps,
    masked_max,
    masked_min,
    nearest_cell,
    whole_cells,
)
from earthgen.terrain.reach import Reach
from geo_io.frame import Frame

# Radii of the filters, metres. Their sums are the halo that a stage must read (GROUND_REACH).
OPENING = 8.0  # half the width of the widest tree or shed that opening removes from a DSM
FILL = (4.0, 12.0, 24.0)  # gaps, and ground below buildings, are filled from this far
SMOOTH = 4.0  # terrain derived from a DSM is smoothed over this
TERRAIN_REACH = Reach(2 * OPENING + max(FILL) + SMOOTH)
LAKE_MIN, LAKE_MEAN = 32.0, 12.0  # a lake's level is the mean of the lowest ground nearby
RIVER_MIN, RIVER_MEAN = 6.0, 12.0  # a river may slope along its course, but not across
JOIN = 4.0  # smoothing where a river meets a lake
WATER_REACH = Reach(LAKE_MIN + LAKE_MEAN + JOIN)
BANK = 16.0  # ground this close to water is fitted to its level
ROAD_MEAN, ROAD_EDGE = 4.0, 2.0  # levelling across a road, and blending into the ground beside
ROAD_REACH = Reach(ROAD_MEAN + ROAD_EDGE, 1)
GROUND_REACH = TERRAIN_REACH + WATER_REACH + Reach(BANK, 1) + ROAD_REACH

WATER_DROP = 0.4  # metres from the ground to the water
BANK_SLOPE = 0.7  # of the steepest bank, rise over run
RELIEF_WAVES = (2048.0, 1024.0, 512.0, 256.0, 128.0, 64.0)
RELIEF_GAIN = 0.48
# Metres, of the longest wave; the sum has a standard deviation of about 9 m.
RELIEF_AMPLITUDE = 20.0


@dataclass(frozen=True)
class Ground:
    """The ground on a padded window.

    Attributes
    ----------
    terrain : NDArray (ny, nx) float32
        Metres, before water and roads are levelled; buildings stand on it.
    height : NDArray (ny, nx) float32
        Metres: the ground of the world.
    surface : NDArray (ny, nx) float32 or None
        The DSM, metres; NaN for no data. None if the job has no DSM.
    """

    terrain: NDArray
    height: NDArray
    surface: NDArray | None


def make_ground(
    frame: Frame,
    cover: NDArray,
    dem: NDArray | None,
    dsm: NDArray | None,
    noise: Noise,
    water: NDArray | None = None,
) -> Ground:
    """Return the ground on `frame`; it is exact for cells farther than GROUND_REACH from the edge.

    Parameters
    ----------
    frame : Frame
        The padded window.
    cover : NDArray (ny, nx) uint8
        Land classes.
    dem, dsm : NDArray (ny, nx) float32 or None
        Terrain and surface model, metres; NaN for no data. The terrain comes from the DEM, else
        from the DSM; gaps become hills of noise.
    noise : Noise
        For the hills.
    water : NDArray (ny, nx) float32, optional
        Level of still water, metres, as in `geo_io.layers.Semantics`; NaN where it is not known:
        there water follows the ground nearby.
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
    level = _water_level(terrain, cover, size, water)
    return Ground(terrain, _road_level(level, cover, size), dsm)


def relief(frame: Frame, noise: Noise) -> NDArray:
    """Return gentle hills for places without height data: (ny, nx) float32 metres."""
    hills = fractal_noise(noise.stream("relief"), frame, RELIEF_WAVES, RELIEF_GAIN)
    return np.float32(RELIEF_AMPLITUDE) * hills


def _fill(heights: NDArray, size: float) -> NDArray:
    heights = heights.astype(np.float32)
    known = np.isfinite(heights)
    if known.all():
        return heights
    return fill_gaps(heights, known, tuple(whole_cells(r, size) for r in FILL))


def _terrain_of_surface(dsm: NDArray, cover: NDArray, size: float) -> NDArray:
    """Return the bare ground of a surface model.

    Open cells keep their height, others get that of the morphological opening around them.
    """
    known = np.isfinite(dsm)
    radius = whole_cells(OPENING, size)
    building = is_class(cover, "building")
    eroded = masked_min(dsm, known & ~building, radius)
    opened = masked_max(eroded, np.isfinite(eroded), radius)
    # Land use does not list every tree and car: an open cell is trusted only where the opening has
    # about the same height.
    open_ground = on_surface(cover, "flat", "crop", "meadow", "road", "water")
    trusted = known & open_ground & (dsm - opened < 1.0)
    usable = known & ~building & np.isfinite(opened)
    merged = np.where(trusted, dsm, np.where(usable, opened, np.float32(np.nan)))
    filled = fill_gaps(merged, np.isfinite(merged), tuple(whole_cells(r, size) for r in FILL))
    smooth = box_mean(filled, np.isfinite(filled), whole_cells(SMOOTH, size))
    return np.where(
        trusted, merged, np.where(np.isfinite(filled), smooth, np.float32(np.nan))
    ).astype(np.float32)


def _water_level(
    terrain: NDArray, cover: NDArray, size: float, known: NDArray | None = None
) -> NDArray:
    """Return `terrain` with level water and banks that slope down to it."""
    water = on_surface(cover, "water")
    if not water.any():
        return terrain
    river = is_class(cover, "river")
    level = np.zeros_like(terrain)
    for mask, low, wide in ((river, RIVER_MIN, RIVER_MEAN), (water & ~river, LAKE_MIN, LAKE_MEAN)):
        lowest = masked_min(terrain, mask, whole_cells(low, size))
        flat = box_mean(np.where(mask, lowest, 0.0), mask, whole_cells(wide, size))
        level = np.where(mask, flat, level)
    level = np.where(
        water, box_mean(level, water, whole_cells(JOIN, size)) - WATER_DROP, np.nan
    ).astype(np.float32)
    if known is not None:
        level = np.where(water & np.isfinite(known), known, level).astype(np.float32)

    distance, index = nearest_cell(water, max(whole_cells(BANK, size), 1))
    metres = np.where(np.isfinite(distance), distance * size, 0.0).astype(np.float32)
    shore = level.ravel()[np.maximum(index, 0)]
    near = (index >= 0) & ~water
    # The first voxel of a bank may be steep; beyond it the bank rises no faster than BANK_SLOPE.
    # Ground lower than the water is raised to a dam that slopes away from it.
    high = shore + 0.3 + BANK_SLOPE * metres
    low = shore + 0.25 - 0.3 * np.maximum(metres - 4.0, 0.0)
    banked = np.clip(terrain, low, np.maximum(high, low))
    return np.where(water, level, np.where(near, banked, terrain)).astype(np.float32)


def _road_level(height: NDArray, cover: NDArray, size: float) -> NDArray:
    """Return `height` with roads and railways levelled across and blended into the ground."""
    road = on_surface(cover, "road")
    radius, edge = whole_cells(ROAD_MEAN, size), whole_cells(ROAD_EDGE, size)
    if radius == 0 or not road.any():
        return height
    mean = box_mean(height, road, radius)
    distance, _ = nearest_cell(road, max(edge, 1))
    weight = np.where(np.isfinite(mean), np.clip(1.0 - distance / (edge + 1.0), 0.0, 1.0), 0.0)
    weight[on_surface(cover, "water", "building")] = 0.0
    return (height + weight * (np.where(weight > 0, mean, height) - height)).astype(np.float32)
