"""Buildings of a scene as objects: a number per building, and the height that a map would tell.

Land cover says where buildings are, not which. Footprints would; where a scene has none, connected
areas are taken, and joined blocks are split, because a network that is told one height for a whole
block makes a mountain of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.scene import SceneData
from geo_io.legend import codes

SPLIT_AREA = 900.0
"""Connected areas of buildings above this are split, square metres."""

MAX_STEP = 2.5
"""A larger step between neighbouring columns of a roof separates buildings, metres."""

SPLIT_DISTANCE = 14.0
"""Distance between the centres of the parts of a split block, metres."""


def number_buildings(cover: NDArray, voxel_size: float, height: NDArray | None = None) -> NDArray:
    """Number the buildings of a land cover.

    Parameters
    ----------
    cover : NDArray (ny, nx) uint8
        Class codes.
    voxel_size : float
        Metres.
    height : NDArray (ny, nx) float32, optional
        Metres above the ground. Steps of more than `MAX_STEP` inside a block separate buildings.

    Returns
    -------
    NDArray (ny, nx) uint32
        0 where there is no building.
    """
    built = cover == codes()["building"]
    solid = built
    if height is not None:
        low = ndimage.minimum_filter(np.where(built, height, np.inf), 3)
        high = ndimage.maximum_filter(np.where(built, height, -np.inf), 3)
        solid = built & (high - low <= MAX_STEP)
    parts, count = ndimage.label(solid)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    tiny = sizes < 6  # crumbs of the separation belong to their neighbours
    parts[tiny[parts]] = 0
    large = np.flatnonzero(sizes * voxel_size**2 > SPLIT_AREA)
    for part in large[large > 0]:
        parts = _split(parts, int(part), int(parts.max()) + 1, voxel_size)
    if (built & (parts == 0)).any() and parts.any():
        near = ndimage.distance_transform_edt(
            parts == 0, return_distances=False, return_indices=True
        )
        parts = np.where(built, parts[tuple(near)], 0)
    return np.where(built, np.maximum(parts, 1), 0).astype(np.uint32)


def roof_medians(height: NDArray, number: NDArray) -> NDArray:
    """Replace the height of each building's column by the median of the building's columns in the
    3 x 3 around it.

    Chimneys, antennas and the highest of scattered returns go; ridges, eaves and the steps
    between two buildings stay.

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres above the ground.
    number : NDArray (ny, nx)
        Number of the building, 0 for none; a mask makes all of them one.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres; unchanged where there is no building.
    """
    number = np.asarray(number, np.uint32)
    row, col = np.nonzero(number)
    heights, numbers = np.pad(height, 1), np.pad(number, 1)
    around = np.full((len(row), 9), np.nan, np.float32)
    for n in range(9):
        place = row + n // 3, col + n % 3
        mine = numbers[place] == number[row, col]
        around[:, n] = np.where(mine, heights[place], np.nan)
    around.sort(axis=1)  # NaN last
    count = np.isfinite(around).sum(axis=1)
    every = np.arange(len(row))
    low, high = around[every, (count - 1) // 2], around[every, count // 2]
    out = np.array(height, np.float32)
    out[row, col] = 0.5 * (low + high)
    return out


def building_heights(number: NDArray, height: NDArray) -> NDArray:
    """Return the height of each building, on its columns: the 95th percentile of its heights.

    It is about that of the ridge, as maps mean it, and no chimney moves it.

    Parameters
    ----------
    number : NDArray (ny, nx) uint32
        Of `number_buildings`; 0 is no building.
    height : NDArray (ny, nx) float32
        Metres above the ground.

    Returns
    -------
    NDArray (ny, nx) float32
        Metres; 0 where there is no building.
    """
    ids, inverse = np.unique(number, return_inverse=True)
    inverse = inverse.reshape(number.shape)
    order = np.lexsort((height.ravel(), inverse.ravel()))
    ends = np.cumsum(np.bincount(inverse.ravel()))
    starts = np.concatenate([[0], ends[:-1]])
    at = starts + np.floor(0.95 * (ends - starts - 1)).astype(np.int64)
    heights = np.where(ids == 0, 0.0, height.ravel()[order][at])
    return np.asarray(heights, np.float32)[inverse]


def building_axes(number: NDArray, voxel_size: float) -> NDArray:
    """Return where the columns of buildings lie along the axes of their footprints.

    The axes are the principal ones of the building's columns.

    Parameters
    ----------
    number : NDArray (ny, nx) uint32
        Of `number_buildings`; 0 is no building.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (ny, nx, 4) float16
        Distance from the centre along and across the longer axis, half length, half width, metres;
        0 where there is no building.
    """
    ids, inverse = np.unique(number, return_inverse=True)
    group = inverse.ravel()
    row, col = np.indices(number.shape).astype(np.float64)
    count = np.bincount(group)

    def mean(values: NDArray) -> NDArray:
        return np.bincount(group, weights=values) / count

    x, y = col.ravel(), -row.ravel()
    x, y = x - mean(x)[group], y - mean(y)[group]
    turn = 0.5 * np.arctan2(2 * mean(x * y), mean(x * x) - mean(y * y))
    cos, sin = np.cos(turn)[group], np.sin(turn)[group]
    along, across = np.abs(cos * x + sin * y), np.abs(cos * y - sin * x)
    half = np.zeros((2, len(ids)))
    np.maximum.at(half[0], group, along)
    np.maximum.at(half[1], group, across)
    half += 0.5
    axes = np.stack([along, across, half[0][group], half[1][group]], axis=1) * voxel_size
    axes = np.where((number.ravel() > 0)[:, None], np.minimum(axes, 1000.0), 0.0)
    return axes.reshape(*number.shape, 4).astype(np.float16)


def add_objects(data: SceneData) -> SceneData:
    """Complete a scene with a map, buildings and objects, where its builder made none.

    The map is then the land cover itself, buildings are those of `number_buildings`, and voxels of
    the class building belong to the building of their column.
    """
    columns, rows = dict(data.columns), dict(data.rows)
    valid = columns["valid"]
    columns.setdefault("map", np.where(valid, columns["cover"], 0).astype(np.uint8))
    if "building" not in columns:
        cover = np.where(valid, columns["cover"], 0)
        size = data.frame.voxel_size
        columns["building"] = number_buildings(cover, size, columns["height"])
    columns.setdefault("building_height", building_heights(columns["building"], columns["height"]))
    columns["building_axes"] = building_axes(columns["building"], data.frame.voxel_size)
    if "object" not in rows:
        xyz, frame = rows["xyz"], data.frame
        number = columns["building"][frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]]
        built = rows["semantic"] == codes()["building"]
        rows["object"] = np.where(built, number, 0).astype(np.uint32)
    return replace(data, columns=columns, rows=rows)


def _split(parts: NDArray, part: int, first: int, voxel_size: float) -> NDArray:
    """Split one area around the points that lie deepest inside it, one per cell of a coarse
    grid."""
    rows, cols = np.nonzero(parts == part)
    box = slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1)
    inside = np.pad(parts[box] == part, 1)
    depth = ndimage.distance_transform_edt(inside)
    row, col = np.nonzero(depth >= 2)
    step = max(int(SPLIT_DISTANCE / voxel_size), 1)
    across = inside.shape[1] // step + 1
    cell = row // step * across + col // step
    order = np.lexsort((-depth[row, col], cell))
    deepest = order[np.concatenate([[True], np.diff(cell[order]) != 0])] if len(order) else order
    if len(deepest) < 2:
        return parts
    seeds = np.zeros(inside.shape, np.int64)
    seeds[row[deepest], col[deepest]] = np.arange(1, len(deepest) + 1)
    near = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    nearest = seeds[tuple(near)][1:-1, 1:-1]
    parts = parts.copy()
    inner = inside[1:-1, 1:-1]
    parts[box][inner] = first + nearest[inner] - 1
    return parts
