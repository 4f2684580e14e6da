"""Colours of walls from coloured points that lie on them.

Photogrammetry and meshes sample walls as densely as roofs. A surface voxel takes the mean colour of
the points in it, or else of those in the voxels around it, and then its colour is seen; a wall
without points keeps the guess of its column.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.readers.points import Points
from earthgen.dataset.scene import SceneData

BESIDE = 0.25
"""Weight of points in a neighbouring voxel, against 1 for those in the voxel itself: the surface
lies up to half a voxel beside the points, and walls are less flat than their voxels."""


def colour_walls(data: SceneData, cloud: Points) -> SceneData:
    """Give the voxels of a scene the colours of the points at them.

    Voxels that are seen from above keep the colours of the picture, which is sharper than points.

    Parameters
    ----------
    data : SceneData
        The scene.
    cloud : Points
        Points with colours, in the CRS of the scene.

    Returns
    -------
    SceneData
        With `rgb` and `rgb_known` of the other voxels where there are points.
    """
    if cloud.rgb is None:
        return data
    frame = data.frame
    col = np.floor(cloud.xyz[:, 0] / frame.voxel_size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor(cloud.xyz[:, 1] / frame.voxel_size).astype(np.int64)
    keep = (col >= 0) & (col < frame.nx) & (row >= 0) & (row < frame.ny)
    col, row, rgb = col[keep], row[keep], cloud.rgb[keep]
    above = cloud.xyz[keep, 2] - data.columns["ground"][row, col]
    level = np.floor(above / frame.voxel_size).astype(np.int64) - frame.z[0]
    keep = (level >= 0) & (level < frame.z[1] - frame.z[0])
    points = _Colours(_keys(data, row[keep], col[keep], level[keep]), rgb[keep])

    xyz = data.rows["xyz"]
    row, col = frame.y[1] - 1 - xyz[:, 1], xyz[:, 0] - frame.x[0]
    # Where the picture is left out, a mesh has no texture, and its points are white.
    hidden = np.flatnonzero(~data.rows["rgb_known"] & data.columns["image_known"][row, col])
    row, col = row[hidden], col[hidden]
    level = xyz[hidden, 2] - frame.z[0]
    total, weight = np.zeros((len(hidden), 3)), np.zeros(len(hidden))
    for step in product((-1, 0, 1), repeat=3):
        of = BESIDE if any(step) else 1.0
        colour, count = points.at(_keys(data, row + step[0], col + step[1], level + step[2]))
        total += of * colour
        weight += of * count
    seen = weight > 0
    out, known = data.rows["rgb"].copy(), data.rows["rgb_known"].copy()
    mean = total[seen] / weight[seen, None]
    out[hidden[seen]] = np.clip(np.round(mean), 0, 255).astype(np.uint8)
    known[hidden[seen]] = True
    return replace(data, rows={**data.rows, "rgb": out, "rgb_known": known})


class _Colours:
    """Sums of the colours of points by voxel."""

    def __init__(self, key: NDArray, rgb: NDArray) -> None:
        self.keys, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
        self.count = count.astype(np.float64)
        self.total = np.column_stack(
            [np.bincount(inverse, rgb[:, band], len(self.keys)) for band in range(3)]
        )

    def at(self, key: NDArray) -> tuple[NDArray, NDArray]:
        """Return the (n, 3) sums and (n,) counts of the points in voxels."""
        if not len(self.keys):
            return np.zeros((len(key), 3)), np.zeros(len(key))
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        same = self.keys[place] == key
        return self.total[place] * same[:, None], self.count[place] * same


def _keys(data: SceneData, row: NDArray, col: NDArray, level: NDArray) -> NDArray:
    """Return one int64 per voxel; with a margin of one voxel, so that neighbours stay apart."""
    frame = data.frame
    depth, across = frame.z[1] - frame.z[0] + 2, frame.nx + 2
    return np.asarray(((row + 1) * across + col + 1) * depth + level + 1, np.int64)
