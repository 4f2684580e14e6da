"""Levels of detail: dense layers as overviews, voxels and Gaussians as a pyramid of doubling voxels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgen.voxels import FACES, Splats, Voxels
from geo_io.frame import Frame

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: colour = 0.5 + SH_C0 * coefficient."""


@dataclass(frozen=True)
class Tile:
    """The content of one tile at one level.

    Attributes
    ----------
    frame : where it is
    ground, surface : (ny, nx) float32 metres, terrain and the top of what stands on it; NaN: no data
    semantics : (ny, nx) uint8, class of the topmost voxel; 0: no data
    rgb : (ny, nx, 3) uint8, colour of the topmost voxel
    voxels, splats : the surface voxels and their Gaussians
    """

    frame: Frame
    ground: NDArray
    surface: NDArray
    semantics: NDArray
    rgb: NDArray
    voxels: Voxels
    splats: Splats


def tile_of(frame: Frame, ground: NDArray, voxels: Voxels, splats: Splats) -> Tile:
    """A tile whose dense layers are what its voxels (sorted by y, x, z) show from above.

    Columns without a voxel become no data.
    """
    ny, nx = frame.shape
    surface = np.full((ny, nx), np.nan, np.float32)
    semantics = np.zeros((ny, nx), np.uint8)
    rgb = np.zeros((ny, nx, 3), np.uint8)
    covered = np.zeros((ny, nx), bool)
    if len(voxels):
        x, y, z = voxels.xyz.T
        top = np.append((x[1:] != x[:-1]) | (y[1:] != y[:-1]), True)  # the last voxel of each column
        rows, columns = frame.y[1] - 1 - y[top], x[top] - frame.x[0]
        height = (z[top] + np.float32(0.5)) * np.float32(frame.voxel_size) + splats.offset[top, 2]
        surface[rows, columns] = ground[rows, columns] + height
        semantics[rows, columns] = voxels.semantic[top]
        rgb[rows, columns] = colours(splats.sh[top])
        covered[rows, columns] = True
    return Tile(frame, np.where(covered, ground, np.float32(np.nan)), surface, semantics, rgb, voxels, splats)


def colours(sh: NDArray) -> NDArray:
    """(n, 3) uint8 view-independent colours of (n, k, 3) spherical harmonics."""
    return np.clip(np.rint((0.5 + SH_C0 * sh[:, 0, :].astype(np.float32)) * 255), 0, 255).astype(np.uint8)


def coarsen(tile: Tile) -> Tile:
    """The tile at twice the voxel size.

    Heights and colours are means, classes the most frequent one. A coarse voxel is solid where any of its eight
    children is; a side is open where a child's is and no coarse voxel stands there, which is exact inside the
    tile and may leave inner walls along its border.
    """
    frame = tile.frame.coarsen(2)
    ground = _mean(_blocks(tile.ground, tile.frame, frame, np.nan))
    surface = _mean(_blocks(tile.surface, tile.frame, frame, np.nan))
    classes = _blocks(tile.semantics, tile.frame, frame, 0)
    covered = classes > 0
    rgb = np.stack([_blocks(tile.rgb[..., band], tile.frame, frame, 0) for band in range(3)], axis=-1)
    weight = np.maximum(covered.sum(axis=0), 1)[..., None]
    rgb = np.rint((rgb * covered[..., None]).sum(axis=0) / weight).astype(np.uint8)
    voxels, splats = _coarsen_voxels(tile.voxels, tile.splats, frame)
    return Tile(frame, ground, surface, _mode(classes), rgb, voxels, splats)


def _blocks(data: NDArray, fine: Frame, coarse: Frame, fill: float) -> NDArray:
    """(4, ny, nx): the four children of each coarse cell, `fill` where the fine frame does not reach."""
    full = np.full((coarse.ny * 2, coarse.nx * 2), fill, data.dtype)
    row, column = coarse.y[1] * 2 - fine.y[1], fine.x[0] - coarse.x[0] * 2
    full[row : row + fine.ny, column : column + fine.nx] = data
    return np.stack([full[0::2, 0::2], full[0::2, 1::2], full[1::2, 0::2], full[1::2, 1::2]])


def _mean(children: NDArray) -> NDArray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # four children without data stay without
        return np.asarray(np.nanmean(children, axis=0, dtype=np.float64), np.float32)


def _mode(children: NDArray) -> NDArray:
    """The most frequent non-zero of four values; of equals the first in row order."""
    votes = np.stack([(children == children[i]).sum(axis=0) * (children[i] > 0) for i in range(4)])
    return np.take_along_axis(children, votes.argmax(axis=0)[None], axis=0)[0]


def _coarsen_voxels(voxels: Voxels, splats: Splats, frame: Frame) -> tuple[Voxels, Splats]:
    if not len(voxels):
        return replace(voxels, frame=frame), splats
    parent = voxels.xyz >> 1
    order = np.lexsort((voxels.xyz[:, 2], parent[:, 2], parent[:, 0], parent[:, 1]))
    sorted_parent = parent[order]
    starts = np.flatnonzero(np.append(True, (sorted_parent[1:] != sorted_parent[:-1]).any(axis=1)))
    ends = np.append(starts[1:], len(order)) - 1
    count = np.diff(np.append(starts, len(order))).astype(np.float32)
    xyz = sorted_parent[starts]

    def mean(values: NDArray) -> NDArray:
        flat = values.reshape(len(values), -1)[order].astype(np.float32)
        return (np.add.reduceat(flat, starts, axis=0) / count[:, None]).reshape(len(starts), *values.shape[1:])

    size = np.float32(frame.voxel_size / 2)
    centre = (voxels.xyz + 0.5) * size - (parent + 0.5) * (2 * size)  # of a child, from its parent's centre
    normal = mean(normals(splats.rotation))
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), np.array([0, 0, 1], np.float32))
    faces = np.bitwise_or.reduceat(voxels.faces[order], starts) & ~_covered(xyz)
    coarse = Voxels(frame, xyz, voxels.semantic[order][ends], faces, voxels.object[order][ends])
    merged = Splats(
        offset=mean(splats.offset + centre.astype(np.float32)),
        scale=mean(splats.scale) * 2,
        rotation=rotations(normal),
        opacity=mean(splats.opacity),
        sh=mean(splats.sh),
    )
    seen = faces > 0  # the others are surrounded by solid voxels now
    return coarse.take(seen), merged.take(seen)


def _covered(xyz: NDArray) -> NDArray:
    """(n,) uint8 bits of FACES: the sides at which another of these voxels stands. xyz is sorted by (y, x, z)."""
    low = xyz.min(axis=0).astype(np.int64) - 1
    span = xyz.max(axis=0).astype(np.int64) - low + 2

    def key(points: NDArray) -> NDArray:
        x, y, z = (points.astype(np.int64) - low).T
        return (y * span[0] + x) * span[2] + z

    keys = key(xyz)
    bits = np.zeros(len(xyz), np.uint8)
    for axis, name in enumerate("xyz"):
        for sign, step in (("-", -1), ("+", 1)):
            moved = xyz.copy()
            moved[:, axis] += step
            wanted = key(moved)
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            bits[keys[found] == wanted] |= FACES[sign + name]
    return bits


def normals(rotation: NDArray) -> NDArray:
    """(n, 3) float32: where the unit quaternions (n, 4) (w, x, y, z) turn the z axis."""
    w, x, y, z = rotation.astype(np.float32).T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def rotations(normal: NDArray) -> NDArray:
    """(n, 4) float32 unit quaternions (w, x, y, z): the shortest turns of the z axis into unit normals (n, 3)."""
    n = normal.astype(np.float32)
    w = np.sqrt(np.maximum((1 + n[:, 2]) / 2, 0))
    down = w < 1e-4  # straight down: any half turn about a horizontal axis
    scale = 1 / (2 * np.where(down, 1, w))
    quaternion = np.stack([w, -n[:, 1] * scale, n[:, 0] * scale, np.zeros_like(w)], axis=1)
    quaternion[down] = (0, 1, 0, 0)
    return (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).astype(np.float32)
