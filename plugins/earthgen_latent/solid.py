"""From what a network says of columns to solid columns: classes, objects, and rules where the
network has no say."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import cells, seeds
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import CODES, code, is_class, known_cover, on_surface, surface_table
from earthgen.voxels.heightfield import column_tops, surface_of_columns, top_level
from earthgen.voxels.surface import NORMAL_RADIUS
from earthgen.voxels.voxels import Geometry
from geo_io.frame import Frame
from geo_io.layers import Semantics
from geo_io.semantics.rasterize import paint

SOLID = NORMAL_RADIUS + 1
"""Cells around a window that are made solid, for normals, and for slopes at those cells."""

LOW = -2
"""The lowest level of a volume: the ground's surface voxels (z = -1) and one below."""

HOUSE = 2.0  # metres: no building is lower, and a lower one is a yard
GROWTH = 0.5  # metres: what is lower is the ground's roughness
PLOT, CROWN = (
    26.0,
    6.0,
)  # metres: tall things that no map lists are divided into objects about this wide


@dataclass(frozen=True)
class Columns:
    """What stands in the columns of a frame, all (ny, nx).

    Attributes
    ----------
    top : float32 metres, exact top of what is solid, above the column's ground
    ground_class, semantic : uint8, class of the ground's voxels, and of those above
    object : uint32, 0 for the ground
    """

    top: NDArray
    ground_class: NDArray
    semantic: NDArray
    object: NDArray


def columns_of(
    frame: Frame, layer: Semantics, cover: NDArray, height: NDArray, noise: Noise
) -> Columns:
    """Columns from heights.

    layer : the semantics condition on the frame, all unknown where the job has none
    cover : (ny, nx) uint8, class seen from above, 0 unknown; height : (ny, nx) float32 metres above
        the ground

    Water is level, a building that would be no higher than a man is a yard, and what is tall
    elsewhere is a plant.
    """
    land = known_cover(cover)
    building = is_class(land, "building")
    top = np.where(on_surface(land, "water") | (height < GROWTH), np.float32(0), height).astype(
        np.float32
    )
    yard = building & (top < HOUSE)
    top[yard] = 0
    built = building & ~yard
    standing = top_level(top, frame.voxel_size, 2**30) >= 0
    number = np.where(built, building_objects(frame, layer, noise), crown_objects(frame, noise))
    return Columns(
        top=top,
        ground_class=np.where(yard, np.uint8(code("paved")), land),
        semantic=np.where(built, np.uint8(code("building")), plant_classes()[land]),
        object=np.where(standing | built, number, np.uint32(0)),
    )


def standing_classes(cover: NDArray, decoded: NDArray) -> NDArray:
    """(ny, nx) uint8: classes of what stands in columns, those that a network decoded where the map
    does not say more.

    cover : class seen from above as the map has it, 0 unknown; decoded : class of the column's
        highest voxel

    On a mapped building a building stands, and none where a map knows the land to be neither a
    building nor built up. Anything else that stands is a plant: networks that are unsure give
    things the class of the ground beside.
    """
    land = known_cover(cover)
    mapped = is_class(land, "building")
    lived = (cover == 0) | is_class(land, "residential", "commercial")
    built = is_class(decoded, "building") & lived
    plant = on_surface(decoded, "wood", "tree", "shrub")
    found = np.where(built | plant, decoded, plant_classes()[land])
    return np.where(mapped, np.uint8(code("building")), found)


@functools.cache
def plant_classes() -> NDArray:
    """(256,) uint8: class of what stands on a class of land and is no building."""
    table = np.full(CODES, code("tree"), np.uint8)
    wood = surface_table("wood", "tree", "shrub")
    table[wood] = np.flatnonzero(wood)
    return table


def building_objects(frame: Frame, layer: Semantics, noise: Noise) -> NDArray:
    """(ny, nx) uint32, never 0: of the mapped building, else of a plot keyed by the place."""
    plots = seeds(noise.stream("plots"), frame, max(PLOT, 3.0 * frame.voxel_size), 0.8)
    number = plots.key.ravel()[cells(plots, frame)]
    if not len(layer.buildings):
        return number
    key = layer.buildings.key
    short = ((key ^ (key >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    mapped = paint(frame, layer.buildings.footprint, np.maximum(short, np.uint32(1)), 1)
    return np.where(mapped != 0, mapped, number)


def crown_objects(frame: Frame, noise: Noise) -> NDArray:
    """(ny, nx) uint32, never 0: crowns keyed by the place."""
    points = seeds(noise.stream("crowns"), frame, max(CROWN, frame.voxel_size), 0.8)
    return points.key.ravel()[cells(points, frame)]


def raised(
    window: Frame,
    inner: Frame,
    ground: NDArray,
    columns: Columns,
    xyz: NDArray | None = None,
    semantic: NDArray | None = None,
) -> Geometry:
    """The surface of solid columns in `window`.

    inner : `window` and SOLID cells around, on which ground (float32, absolute metres) and columns
        lie
    xyz, semantic : (n, 3) voxels in it whose class is known better than the column's, and (n,)
        uint8 their classes
    """
    tops = column_tops(inner, ground, columns.top, columns.object, columns.semantic, window.z[1])
    level = tops.level
    z = np.arange(LOW, max(int(level.max()), 0) + 2)
    # The classes of voxels by column and level, in layers so that no whole volume of wider numbers
    # is made.
    volume = np.where(z < 0, columns.ground_class[..., None], columns.semantic[..., None])
    if xyz is not None and semantic is not None:
        row, col, layer = inner.y[1] - 1 - xyz[:, 1], xyz[:, 0] - inner.x[0], xyz[:, 2] - LOW
        take = (layer >= 0) & (layer < len(z))
        volume[row[take], col[take], layer[take]] = semantic[take]
    solid = z <= level[..., None]
    volume = np.where(solid, volume, np.uint8(0)).astype(np.uint8)
    objects = np.where(solid & (z >= 0), columns.object[..., None], np.uint32(0)).astype(np.uint32)
    edge = SOLID - NORMAL_RADIUS
    trimmed = tuple(np.ascontiguousarray(a[edge:-edge, edge:-edge]) for a in (volume, objects))
    voxels, normal, offset = surface_of_columns(window, trimmed[0], trimmed[1], LOW, tops)
    return Geometry(
        window, np.ascontiguousarray(ground[inner.slices(window)]), voxels, offset, normal
    )
