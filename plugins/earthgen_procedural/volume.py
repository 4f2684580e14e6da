"""A dense volume of solid voxels from columns and plants, a strip of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.voxels.heightfield import top_level, under_level
from earthgen_procedural.vegetation import BULGE, CONE, DOME, Plants
from geo_io.frame import Frame

LOW = -2
"""Lattice index z of the volume's lowest level, one below the surface voxels of the ground."""

MOST_LIFT = 10.0
"""Limit of the height difference between the ground under a crown and at its trunk, metres."""


@dataclass(frozen=True)
class Columns:
    """The content of each column of a frame, except trees and bushes; all arrays are (ny, nx).

    Attributes
    ----------
    ground : NDArray float32
        Absolute height of the ground, metres.
    top : NDArray float32
        Exact top of what is built or grows, metres above the ground.
    ground_class, semantic, lower_semantic : NDArray uint8
        Class of the ground's voxels, of the solid voxels above, and of those below an underside.
    object : NDArray uint32
        Object number.
    under : NDArray float32
        Underside of a building that hangs in the air, metres above the ground; 0 for what is solid
        from the ground up.
    lower : NDArray float32
        Top of what is built below that underside, metres above the ground; 0 for nothing.
    lower_object : NDArray uint32
        Its object number.
    canopy, canopy_base : NDArray float32
        Top and underside of a measured crown, metres above the ground; 0 without one.
    canopy_class : NDArray uint8
        Class of the crown.
    canopy_object : NDArray uint32
        Object number of the crown.
    """

    ground: NDArray
    top: NDArray
    ground_class: NDArray
    semantic: NDArray
    lower_semantic: NDArray
    object: NDArray
    under: NDArray
    lower: NDArray
    lower_object: NDArray
    canopy: NDArray
    canopy_base: NDArray
    canopy_class: NDArray
    canopy_object: NDArray


def fill_volume(
    frame: Frame,
    rows: tuple[int, int],
    columns: Columns,
    level: NDArray,
    plants: Plants,
    foot: NDArray,
) -> tuple[NDArray, NDArray]:
    """Return the classes and object numbers of the voxels of some rows.

    Solid columns are filled first, then the plants in their order; each takes empty voxels only.

    Parameters
    ----------
    frame : Frame
        Of the columns.
    rows : tuple of int
        Range [first, last) of the frame's rows.
    columns : Columns
        The columns.
    level : NDArray (ny, nx) int32
        Of `earthgen.voxels.top_level` for the columns.
    plants : Plants
        Trees and bushes on and beside the frame.
    foot : NDArray (n,)
        Height of the ground at the plants' trunks, metres.

    Returns
    -------
    volume : NDArray (rows, nx, nz) uint8
        Class codes, 0 for empty; the lowest level is z = LOW.
    objects : NDArray (rows, nx, nz) uint32
        Object numbers.
    """
    strip = slice(*rows)
    size = frame.voxel_size
    # Only plants whose crowns reach the strip.
    south, north = (frame.y[1] - rows[1]) * size, (frame.y[1] - rows[0]) * size
    reach = plants.radius * BULGE + size
    near = (plants.y + reach > south) & (plants.y - reach < north)
    near &= (plants.x + reach > frame.x[0] * size) & (plants.x - reach < frame.x[1] * size)
    highest = max(int(level[strip].max()), int(np.ceil(columns.canopy[strip].max() / size)))
    if near.any():
        # A crown on a slope reaches higher above its neighbours' ground than above its own.
        lift = np.clip(foot[near] - columns.ground[strip].min(), 0.0, MOST_LIFT)
        highest = max(highest, int(np.ceil((plants.height[near] + lift).max() / size)))
    levels = min(highest, frame.z[1] - 1) - LOW + 2
    shape = (rows[1] - rows[0], frame.nx, levels)
    volume, objects = np.zeros(shape, np.uint8), np.zeros(shape, np.uint32)
    canopy_level = top_level(columns.canopy, size, frame.z[1])
    base_level = np.ceil(columns.canopy_base / size).astype(np.int32)
    _fill_columns(
        volume,
        objects,
        level[strip],
        columns.ground_class[strip],
        columns.semantic[strip],
        columns.lower_semantic[strip],
        columns.object[strip],
        under_level(columns.under, level, size)[strip],
        top_level(columns.lower, size, frame.z[1])[strip],
        columns.lower_object[strip],
        np.where(columns.canopy > 0, canopy_level, -9)[strip],
        base_level[strip],
        columns.canopy_class[strip],
        columns.canopy_object[strip],
    )
    _fill_plants(
        volume,
        objects,
        columns.ground,
        rows[0],
        size,
        frame.x[0],
        frame.y[1],
        foot[near],
        plants.x[near],
        plants.y[near],
        plants.height[near],
        plants.radius[near],
        plants.base[near],
        plants.shape[near],
        plants.phase[near],
        plants.semantic[near],
        plants.object[near],
    )
    return volume, objects


@numba.njit(cache=True, nogil=True)
def _fill_columns(  # type: ignore[no-untyped-def]
    volume,
    objects,
    level,
    below,
    semantic,
    lower_semantic,
    number,
    under,
    lower,
    lower_number,
    canopy,
    base,
    canopy_class,
    canopy_number,
):
    rows, cols, levels = volume.shape
    for row in range(rows):
        for col in range(cols):
            top = level[row, col] + 2
            for k in range(2):
                volume[row, col, k] = below[row, col]
            first = under[row, col] + 2
            for k in range(max(first, 2), top + 1):
                volume[row, col, k] = semantic[row, col]
                objects[row, col, k] = number[row, col]
            if first > 2:
                for k in range(2, min(lower[row, col] + 3, first)):
                    volume[row, col, k] = lower_semantic[row, col]
                    objects[row, col, k] = lower_number[row, col]
            if top < 2 and number[row, col] != 0:
                objects[row, col, 1] = number[row, col]
            if canopy[row, col] >= 0:
                for k in range(max(base[row, col] + 2, top + 1), min(canopy[row, col] + 3, levels)):
                    volume[row, col, k] = canopy_class[row, col]
                    objects[row, col, k] = canopy_number[row, col]


@numba.njit(cache=True, nogil=True)
def _fill_plants(  # type: ignore[no-untyped-def]
    volume,
    objects,
    ground,
    row0,
    size,
    x0,
    y1,
    feet,
    px,
    py,
    height,
    radius,
    base,
    shape,
    phase,
    semantic,
    number,
):
    rows, cols, levels = volume.shape
    for n in range(px.size):
        trunk_row = y1 - 1 - int(np.floor(py[n] / size))
        trunk_col = int(np.floor(px[n] / size)) - x0
        foot = feet[n]
        reach = radius[n] * BULGE
        first_row = max(int(np.floor(y1 - 0.5 - (py[n] + reach) / size)), row0)
        last_row = min(int(np.ceil(y1 - 0.5 - (py[n] - reach) / size)), row0 + rows - 1)
        first_col = max(int(np.floor((px[n] - reach) / size - 0.5)) - x0, 0)
        last_col = min(int(np.ceil((px[n] + reach) / size - 0.5)) - x0, cols - 1)
        half = 0.5 * (height[n] - base[n])
        middle = base[n] + half
        if shape[n] == DOME:  # a dome stands on the ground
            middle, half = 0.25 * height[n], 0.75 * height[n]
        for row in range(first_row, last_row + 1):
            dy = (y1 - 1 - row + 0.5) * size - py[n]
            for col in range(first_col, last_col + 1):
                dx = (x0 + col + 0.5) * size - px[n]
                lift = min(max(ground[row, col] - foot, -MOST_LIFT), MOST_LIFT)
                flat = np.sqrt(dx * dx + dy * dy) / radius[n]
                if flat > BULGE:
                    continue
                u, v = 2.4 * dx / radius[n], 2.4 * dy / radius[n]
                bulge = 1.0 + 0.13 * np.sin(u + phase[n, 0]) * np.sin(v + phase[n, 1])
                low = int(np.floor((base[n] - lift) / size)) if shape[n] != DOME else 0
                high = int(np.ceil((height[n] - lift) / size))
                for z in range(max(low, -1), min(high, levels - 3) + 1):
                    up = (z + 0.5) * size + lift  # above the trunk's foot
                    if shape[n] == CONE:
                        if up > height[n] or up < base[n]:
                            continue
                        share = (height[n] - up) / (height[n] - base[n])
                        # Whorls: the cone widens in steps.
                        whorl = np.sin(phase[n, 2] + 5.0 * share * height[n] / (radius[n] + 1.0))
                        edge = share**0.75 * (1.0 + 0.08 * whorl)
                        inside = flat <= max(edge, 0.25 * size / radius[n]) * (
                            0.97 + 0.5 * (bulge - 1.0)
                        )
                    else:
                        tall = (up - middle) / half
                        lobe = bulge + 0.09 * np.sin(
                            3.0 * tall + phase[n, 2] + 2.0 * dx / radius[n]
                        )
                        inside = flat * flat + tall * tall <= lobe * lobe
                    if inside and volume[row - row0, col, z + 2] == 0:
                        volume[row - row0, col, z + 2] = semantic[n]
                        objects[row - row0, col, z + 2] = number[n]
        # The trunk, up into the crown.
        if row0 <= trunk_row < row0 + rows and 0 <= trunk_col < cols:
            for z in range(min(int(middle / size) + 1, levels - 2)):
                if volume[trunk_row - row0, trunk_col, z + 2] == 0:
                    volume[trunk_row - row0, trunk_col, z + 2] = semantic[n]
                    objects[trunk_row - row0, trunk_col, z + 2] = number[n]
