"""From a network's heights and classes to solid columns, with rules for objects and yards."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import jittered_lattice, voronoi_cells
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import (
    CODES,
    class_code,
    fill_unknown_cover,
    is_class,
    on_surface,
    surface_table,
)
from earthgen.voxels.heightfield import column_tops, surface_of_columns, top_level
from earthgen.voxels.surface import NORMAL_RADIUS
from earthgen.voxels.voxels import Geometry
from geo_io.frame import Frame
from geo_io.layers import Semantics
from geo_io.semantics.rasterize import paint

SOLID_MARGIN = NORMAL_RADIUS + 1
"""Margin of a window that is computed too, for normals and for slopes in the margin of these."""

LOWEST_LEVEL = -2
"""Lowest level of a volume: the ground's surface voxels (z = -1) and one below."""

MIN_BUILDING_HEIGHT = 2.0
"""Metres; a lower building becomes a yard."""

MIN_PLANT_HEIGHT = 0.5
"""Metres; what is lower is roughness of the ground."""

PLOT_SIZE, CROWN_SIZE = 26.0, 6.0
"""Metres; about the width of buildings and crowns that no map lists."""


@dataclass(frozen=True)
class Columns:
    """Solid columns of a frame.

    Attributes
    ----------
    top : NDArray (ny, nx) float32
        Exact top of the column above its ground, metres.
    ground_class, semantic : NDArray (ny, nx) uint8
        Classes of the ground's voxels and of those above.
    object : NDArray (ny, nx) uint32
        Object of the voxels above the ground, 0 for none.
    """

    top: NDArray
    ground_class: NDArray
    semantic: NDArray
    object: NDArray


def columns_from_heights(
    frame: Frame, layer: Semantics, cover: NDArray, height: NDArray, noise: Noise
) -> Columns:
    """Return columns from heights.

    Water is level, a building below `MIN_BUILDING_HEIGHT` is a yard, and what stands elsewhere is a
    plant.

    Parameters
    ----------
    frame : Frame
        The columns.
    layer : Semantics
        The semantics condition on the frame, all unknown if the job has none.
    cover : NDArray (ny, nx) uint8
        Class seen from above, 0 unknown.
    height : NDArray (ny, nx) float32
        Metres above the ground.
    noise : Noise
        Keys the objects that no map lists.
    """
    land = fill_unknown_cover(cover)
    top = np.where(height < MIN_PLANT_HEIGHT, np.float32(0), height).astype(np.float32)
    top, yard = clear_water_and_yards(land, top)
    built = is_class(land, "building") & ~yard
    standing = top_level(top, frame.voxel_size, 2**30) >= 0
    number = np.where(built, building_objects(frame, layer, noise), crown_objects(frame, noise))
    return Columns(
        top=top,
        ground_class=np.where(yard, np.uint8(class_code("paved")), land),
        semantic=np.where(built, np.uint8(class_code("building")), plant_class_table()[land]),
        object=np.where(standing | built, number, np.uint32(0)),
    )


def clear_water_and_yards(land: NDArray, top: NDArray) -> tuple[NDArray, NDArray]:
    """Set the tops of water and of buildings below `MIN_BUILDING_HEIGHT` to 0.

    Parameters
    ----------
    land : NDArray (ny, nx) uint8
        Class seen from above, without unknown.
    top : NDArray (ny, nx) float32
        Tops of the columns, metres.

    Returns
    -------
    top : NDArray (ny, nx) float32
        The new tops.
    yard : NDArray (ny, nx) bool
        Where a building became a yard.
    """
    yard = is_class(land, "building") & (top < MIN_BUILDING_HEIGHT)
    return np.where(on_surface(land, "water") | yard, np.float32(0), top), yard


def standing_classes(cover: NDArray, decoded: NDArray) -> NDArray:
    """Return the classes of what stands in columns, (ny, nx) uint8.

    A mapped building is a building. Elsewhere a building needs a network that decoded one and a map
    that is unknown or built up. Everything else that stands is a plant: unsure networks give it the
    class of the ground nearby.

    Parameters
    ----------
    cover : NDArray (ny, nx) uint8
        Class seen from above of the map, 0 unknown.
    decoded : NDArray (ny, nx) uint8
        Class of the column's highest voxel.
    """
    land = fill_unknown_cover(cover)
    mapped = is_class(land, "building")
    built_up = (cover == 0) | is_class(land, "residential", "commercial")
    built = is_class(decoded, "building") & built_up
    plant = on_surface(decoded, "wood", "tree", "shrub")
    classes = np.where(built | plant, decoded, plant_class_table()[land])
    return np.where(mapped, np.uint8(class_code("building")), classes)


@functools.cache
def plant_class_table() -> NDArray:
    """Return the class of what stands on each class of land and is not a building, (256,) uint8."""
    table = np.full(CODES, class_code("tree"), np.uint8)
    wood = surface_table("wood", "tree", "shrub")
    table[wood] = np.flatnonzero(wood)
    return table


def building_objects(frame: Frame, layer: Semantics, noise: Noise) -> NDArray:
    """Return the mapped building, else a plot keyed by place, (ny, nx) uint32, never 0."""
    plots = jittered_lattice(
        noise.stream("plots"), frame, max(PLOT_SIZE, 3.0 * frame.voxel_size), 0.8
    )
    number = plots.key.ravel()[voronoi_cells(plots, frame)]
    if not len(layer.buildings):
        return number
    key = layer.buildings.key
    short = ((key ^ (key >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    mapped = paint(frame, layer.buildings.footprint, np.maximum(short, np.uint32(1)), 1)
    return np.where(mapped != 0, mapped, number)


def crown_objects(frame: Frame, noise: Noise) -> NDArray:
    """Return crowns keyed by place, (ny, nx) uint32, never 0."""
    points = jittered_lattice(noise.stream("crowns"), frame, max(CROWN_SIZE, frame.voxel_size), 0.8)
    return points.key.ravel()[voronoi_cells(points, frame)]


def raise_columns(
    window: Frame,
    inner: Frame,
    ground: NDArray,
    columns: Columns,
    xyz: NDArray | None = None,
    semantic: NDArray | None = None,
) -> Geometry:
    """Return the surface of solid columns in `window`.

    Parameters
    ----------
    window : Frame
        The window.
    inner : Frame
        The window with a margin of `SOLID_MARGIN` cells.
    ground : NDArray (ny, nx) float32
        Absolute metres, on `inner`.
    columns : Columns
        On `inner`.
    xyz : NDArray (n, 3) int32, optional
        Voxels with a class of their own.
    semantic : NDArray (n,) uint8, optional
        Their classes.
    """
    tops = column_tops(inner, ground, columns.top, columns.object, columns.semantic, window.z[1])
    level = tops.level
    z = np.arange(LOWEST_LEVEL, max(int(level.max()), 0) + 2)
    volume = np.where(z < 0, columns.ground_class[..., None], columns.semantic[..., None])
    if xyz is not None and semantic is not None:
        row, col, layer = (
            inner.y[1] - 1 - xyz[:, 1],
            xyz[:, 0] - inner.x[0],
            xyz[:, 2] - LOWEST_LEVEL,
        )
        take = (layer >= 0) & (layer < len(z))
        volume[row[take], col[take], layer[take]] = semantic[take]
    solid = z <= level[..., None]
    volume = np.where(solid, volume, np.uint8(0)).astype(np.uint8)
    objects = np.where(solid & (z >= 0), columns.object[..., None], np.uint32(0)).astype(np.uint32)
    edge = SOLID_MARGIN - NORMAL_RADIUS
    trimmed = tuple(np.ascontiguousarray(a[edge:-edge, edge:-edge]) for a in (volume, objects))
    voxels, normal, offset = surface_of_columns(window, trimmed[0], trimmed[1], LOWEST_LEVEL, tops)
    return Geometry(
        window, np.ascontiguousarray(ground[inner.slices(window)]), voxels, offset, normal
    )
