"""Trees as instances: a model for each kind, and the place, size and colour of each tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.mesh.columns import Columns
from earthgen.terrain.cover import class_code
from geo_io.frame import Frame

REACH = 16
"""Cells around a piece in which its trees may have crowns."""

SEGMENTS = 7
"""Sides of the models."""

RINGS: dict[str, tuple[tuple[float, float], ...]] = {
    "round": ((0.25, 0.0), (0.4, 0.8), (0.65, 1.0), (0.88, 0.62), (1.0, 0.0)),
    "conical": ((0.15, 0.0), (0.2, 1.0), (0.55, 0.6), (1.0, 0.0)),
}
"""Outlines of the crowns: height as a part of the tree's, radius as a part of the crown's."""

TRUNK = (0.0, 0.35, 0.1)
"""Foot and top of the trunk as parts of the height, radius as a part of the crown's."""

BARK = (0.45, 0.3, 0.2)
"""Linear colour of the trunk, times that of the crown."""


@dataclass(frozen=True)
class Trees:
    """Trees of a piece.

    Attributes
    ----------
    place : NDArray (n, 3) float64
        Middle of the crown, east and north, and the ground: CRS metres.
    size : NDArray (n, 3) float32
        Radius to the east and to the north, and height, metres.
    rgb : NDArray (n, 3) uint8
        sRGB of the crowns.
    conical : NDArray (n,) bool
        Needle-leaved.
    object : NDArray (n,) uint32
    semantic : NDArray (n,) uint8
    """

    place: NDArray
    size: NDArray
    rgb: NDArray
    conical: NDArray
    object: NDArray
    semantic: NDArray

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray) -> Trees:
        """Return some of the trees."""
        return Trees(
            self.place[rows],
            self.size[rows],
            self.rgb[rows],
            self.conical[rows],
            self.object[rows],
            self.semantic[rows],
        )


def trees_of(columns: Columns, inside: Frame) -> Trees:
    """Return the trees whose crowns have their middle in a frame.

    Parameters
    ----------
    columns : Columns
        On a frame that reaches `REACH` cells beyond `inside`.
    inside : Frame
    """
    frame, slabs = columns.frame, columns.slabs
    cell = np.repeat(np.arange(len(slabs.start) - 1), np.diff(slabs.start))
    rows = np.flatnonzero(slabs.crown & (slabs.object > 0))
    numbers, index = np.unique(slabs.object[rows], return_inverse=True)
    n, size = len(numbers), frame.voxel_size
    y, x = np.divmod(cell[rows], frame.nx)
    count = np.maximum(np.bincount(index, minlength=n), 1)

    def mean(values: NDArray) -> NDArray:
        return np.bincount(index, values, n) / count

    east, north = mean(x + 0.5), mean(y + 0.5)
    spread = [
        np.sqrt(np.maximum(mean((at + 0.5) ** 2) - middle**2, 1 / 12)) * 2
        for at, middle in ((x, east), (y, north))
    ]
    ground = mean(np.nan_to_num(columns.ground.ravel()[cell[rows]]))
    height = np.zeros(n)
    np.maximum.at(height, index, slabs.top[rows])
    first = np.zeros(n, np.int64)
    first[index[::-1]] = rows[::-1]
    rgb = np.stack([mean(slabs.roof[rows, band]) for band in range(3)], axis=1)
    here = (
        (east >= inside.x[0] - frame.x[0])
        & (east < inside.x[1] - frame.x[0])
        & (north >= inside.y[0] - frame.y[0])
        & (north < inside.y[1] - frame.y[0])
    )
    semantic = slabs.semantic[first]
    trees = Trees(
        np.stack([(frame.x[0] + east) * size, (frame.y[0] + north) * size, ground], axis=1),
        np.stack([spread[0] * size, spread[1] * size, height], axis=1).astype(np.float32),
        np.rint(rgb).astype(np.uint8),
        semantic == class_code("needleleaf_forest"),
        numbers,
        semantic,
    )
    return trees.take(np.flatnonzero(here))


def model(kind: str) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return a tree of radius and height 1, y up, that stands on the origin.

    Parameters
    ----------
    kind : str
        "round" or "conical".

    Returns
    -------
    position, normal : NDArray (v, 3) float32
    colour : NDArray (v, 3) float32
        Linear factors of the crown's colour.
    triangles : NDArray (t, 3) int32
    """
    foot, top, thick = TRUNK
    crown = _turned(RINGS[kind])
    trunk = _turned(((foot, thick), (top, thick * 0.7)))
    position = np.concatenate([crown[0], trunk[0]])
    normal = np.concatenate([crown[1], trunk[1]])
    colour = np.ones((len(position), 3), np.float32)
    colour[len(crown[0]) :] = BARK
    triangles = np.concatenate([crown[2], trunk[2] + len(crown[0])])
    return position, normal, colour, triangles


def _turned(outline: tuple[tuple[float, float], ...]) -> tuple[NDArray, NDArray, NDArray]:
    """A body of revolution about y; rings of radius 0 are points."""
    angle = np.arange(SEGMENTS) * (2 * np.pi / SEGMENTS)
    around = np.stack([np.cos(angle), np.zeros(SEGMENTS), -np.sin(angle)], axis=1)
    rings, first, points = [], [], 0
    for height, radius in outline:
        ring = around * radius + [0, height, 0]
        rings.append(ring[:1] if radius == 0 else ring)
        first.append(points)
        points += len(rings[-1])
    triangles: list[tuple[int, int, int]] = []
    for k in range(len(rings) - 1):
        low, high = len(rings[k]) > 1, len(rings[k + 1]) > 1
        for i in range(SEGMENTS):
            j = (i + 1) % SEGMENTS
            a, b = first[k] + i * low, first[k] + j * low
            c, d = first[k + 1] + j * high, first[k + 1] + i * high
            if low:
                triangles.append((a, b, c))
            if high:
                triangles.append((a, c, d))
    position = np.concatenate(rings)
    faces = np.array(triangles, np.int32)
    normal = np.zeros_like(position)
    across = np.cross(
        position[faces[:, 1]] - position[faces[:, 0]], position[faces[:, 2]] - position[faces[:, 0]]
    )
    for corner in range(3):
        np.add.at(normal, faces[:, corner], across)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return position.astype(np.float32), normal.astype(np.float32), faces
