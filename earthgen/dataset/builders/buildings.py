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
        Metres above the ground. Steps of more than 2.5 m inside a block separate buildings.

    Returns
    -------
    NDArray (ny, nx) uint32
        0 where there is no building.
    """
    built = cover == codes()["building"]
    solid = built
    if height is not None:
        low = ndimage.minimum_filter(height, 3)
        high = ndimage.maximum_filter(height, 3)
        solid = built & ~((high - low > 2.5) & ndimage.binary_erosion(built))
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


def building_heights(number: NDArray, height: NDArray) -> NDArray:
    """Return the median height of each building, on its columns.

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
    medians = ndimage.median(height, inverse, np.arange(len(ids)))
    medians = np.where(ids == 0, 0.0, medians)
    return np.asarray(medians, np.float32)[inverse]


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
    if "object" not in rows:
        xyz, frame = rows["xyz"], data.frame
        number = columns["building"][frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]]
        built = rows["semantic"] == codes()["building"]
        rows["object"] = np.where(built, number, 0).astype(np.uint32)
    return replace(data, columns=columns, rows=rows)


def _split(parts: NDArray, part: int, first: int, voxel_size: float) -> NDArray:
    """Split one area around the points that lie deepest inside it."""
    rows, cols = np.nonzero(parts == part)
    box = slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1)
    inside = np.pad(parts[box] == part, 1)
    depth = ndimage.distance_transform_edt(inside)
    reach = max(int(SPLIT_DISTANCE / voxel_size) // 2, 1)
    peaks = inside & (depth == ndimage.maximum_filter(depth, 2 * reach + 1)) & (depth >= 2)
    seeds, count = ndimage.label(ndimage.binary_dilation(peaks, iterations=2) & inside)
    if count < 2:
        return parts
    near = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    nearest = seeds[tuple(near)]
    parts = parts.copy()
    target = parts[box]
    inner = inside[1:-1, 1:-1]
    target[inner] = first + nearest[1:-1, 1:-1][inner] - 1
    return parts
