"""Small synthetic inputs, as formulas of the position, and comparisons of worlds bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from earthgen.noise.fields import cell_centres
from earthgen.voxels.tile import Tile
from earthgen.voxels.voxels import FACES, Splats, Voxels
from geo_io.frame import Frame
from geo_io.layers import Buildings, Raster, Semantics, Trees
from geo_io.legend import codes

CRS = "EPSG:32632"
"""Of the synthetic inputs."""

SMALL = 72
"""A tile size in voxels that does not lie on the window lattices of most backends."""


@dataclass(frozen=True)
class FormulaCondition:
    """A condition given by a formula of the position, so it is the same on every window.

    Attributes
    ----------
    layer : callable
        (frame) to the layer on that frame.
    """

    layer: Callable[[Frame], Any]

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        """Return an empty report."""
        return {}

    def read(self, window: Frame) -> Any:
        """Return the layer on a window."""
        return self.layer(window)


def hills(frame: Frame) -> Raster:
    """Return a smooth relief of about 40 m, float32 metres."""
    x, y = np.meshgrid(*cell_centres(frame))
    height = 300 + 12 * np.sin(x / 170) * np.cos(y / 230) + 8 * np.sin((x + y) / 410)
    return Raster(frame, height.astype(np.float32))


def village(frame: Frame) -> Semantics:
    """Return a map of fields, a wood, a river, a road and a grid of houses.

    The houses measure 12 m x 8 m and stand 24 m apart. The map is endless in all directions.
    """
    import shapely

    code = codes()
    x, y = np.meshgrid(*cell_centres(frame))
    cover = np.full(frame.shape, code["cropland"], np.uint8)
    parcel = ((x // 90).astype(np.int64) * 7919 + (y // 60).astype(np.int64)).astype(
        np.uint32
    ) | np.uint32(1)
    cover[np.mod(x, 700) < 180] = code["mixed_forest"]
    cover[np.mod(y, 500) < 160] = code["residential"]
    cover[np.abs(np.mod(x, 640) - 320 + 15 * np.sin(y / 60)) < 9] = code["river"]
    cover[np.abs(np.mod(y, 500) - 80) < 3.5] = code["road"]
    left, bottom, right, top = frame.bounds
    i, j = np.meshgrid(
        np.arange(int(left // 24) - 1, int(right // 24) + 2),
        np.arange(int(bottom // 24) - 1, int(top // 24) + 2),
    )
    bx, by = i * 24.0 + 3, j * 24.0 + 3
    here = (bx + 12 > left) & (bx < right) & (by + 8 > bottom) & (by < top) & (by % 500 < 60)
    i, j, bx, by = i[here], j[here], bx[here], by[here]
    keys = ((i & 0xFFFFFFFF).astype(np.uint64) << np.uint64(32)) | (j & 0xFFFFFFFF).astype(
        np.uint64
    )
    east, north = np.mod(x - 3, 24.0), np.mod(y - 3, 24.0)  # within the plot
    house = (east > 0) & (east < 12) & (north > 0) & (north < 8) & (np.mod(y - north, 500) < 60)
    cover[house] = code["building"]
    order = np.argsort(keys)
    heights = np.where(i % 3 != 0, 5.0 + (i + j) % 4, np.nan)
    buildings = Buildings(shapely.box(bx, by, bx + 12, by + 8)[order], heights[order], keys[order])
    trees = Trees(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, np.uint64))
    return Semantics(frame, cover, parcel, buildings, trees)


def sample_conditions() -> dict[str, FormulaCondition]:
    """Return the conditions "semantics" (`village`) and "dem" (`hills`)."""
    return {"semantics": FormulaCondition(village), "dem": FormulaCondition(hills)}


def same_tiles(left: Tile, right: Tile) -> bool:
    """Return whether two tiles are equal bit by bit."""
    dense = all(
        np.array_equal(
            getattr(left, name), getattr(right, name), equal_nan=name in ("ground", "surface")
        )
        for name in ("ground", "surface", "semantics", "rgb")
    )
    return (
        dense and same_voxels(left.voxels, right.voxels) and same_splats(left.splats, right.splats)
    )


def same_voxels(left: Voxels, right: Voxels) -> bool:
    """Return whether two sets of voxels are equal bit by bit."""
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("xyz", "semantic", "faces", "object")
    )


def same_splats(left: Splats, right: Splats) -> bool:
    """Return whether two sets of Gaussians are equal bit by bit."""
    return all(
        np.array_equal(getattr(left, f.name), getattr(right, f.name)) for f in fields(Splats)
    )


def count_holes(voxels: Voxels) -> int:
    """Count the holes of a surface, along x and y inside its frame.

    The solid cells of a column follow from its voxels: from the top down, a voxel begins a solid
    stretch, and a face that looks down ends it. A hole is a solid cell beside an open one without a
    face between them.
    """
    frame = voxels.frame
    low, high = int(voxels.xyz[:, 2].min()) - 1, int(voxels.xyz[:, 2].max()) + 2
    surface = np.zeros((frame.ny, frame.nx, high - low), np.uint8)
    x, y, z = voxels.xyz.T
    surface[y - frame.y[0], x - frame.x[0], z - low] = voxels.faces
    listed = np.zeros(surface.shape, bool)
    listed[y - frame.y[0], x - frame.x[0], z - low] = True
    solid = np.zeros(surface.shape, bool)
    inside = np.zeros(surface.shape[:2], bool)
    for k in range(surface.shape[2] - 1, -1, -1):  # from the top down
        inside = np.where(listed[..., k], True, inside)
        solid[..., k] = inside
        inside &= ~((surface[..., k] & FACES["-z"]) > 0)
    holes = 0
    for axis, (minus, plus) in enumerate((("-y", "+y"), ("-x", "+x"))):
        first = solid.take(range(solid.shape[axis] - 1), axis)
        second = solid.take(range(1, solid.shape[axis]), axis)
        faces_first = (surface.take(range(solid.shape[axis] - 1), axis) & FACES[plus]) > 0
        faces_second = (surface.take(range(1, solid.shape[axis]), axis) & FACES[minus]) > 0
        holes += int(
            (first & ~second & ~faces_first).sum() + (second & ~first & ~faces_second).sum()
        )
    return holes
