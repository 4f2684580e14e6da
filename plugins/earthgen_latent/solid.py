"""From a network's heights and classes to solid columns, with rules for objects, crowns and yards.

Networks give heights. What a viewer also needs is done by rule here: a tree has a crown with a base
and a trunk instead of a curtain down to the ground, the number of a building says what kind of roof
it has, water is level, and no column rises far above its surroundings."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.noise.fields import PointLattice, jittered_lattice, voronoi_cells
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
from earthgen.voxels.objects import (
    BROADLEAF,
    BUSH,
    FLAT_ROOF,
    HALL_ROOF,
    NEEDLELEAF,
    PITCHED_ROOF,
    PLAIN_ROOF,
    object_number,
)
from earthgen.voxels.surface import NORMAL_RADIUS
from earthgen.voxels.voxels import Geometry
from earthgen_latent.crowns import LEAST_TREE, crown_bases, crown_tops, trunk_columns
from geo_io.frame import Frame
from geo_io.layers import Buildings, Semantics
from geo_io.legend import classes
from geo_io.semantics.rasterize import paint

SOLID_MARGIN = NORMAL_RADIUS + 1
"""Margin of a window that is computed too, for normals and for slopes in the margin of these."""

LOWEST_LEVEL = -2
"""Lowest level of a volume: the ground's surface voxels (z = -1) and one below."""

MIN_BUILDING_HEIGHT = 2.0
"""Metres; a lower building becomes a yard."""

MIN_PLANT_HEIGHT = 0.5
"""Metres; what is lower is roughness of the ground."""

MAX_STEP = 3.0
"""Metres that a column of a roof may rise above the roof around it."""

PLANT_EXCESS = 1.25
"""Plants are at most this many times the largest height of their class."""

SHED_AREA, LARGE_AREA, HALL_AREA, TALL = 30.0, 450.0, 1500.0, 24.0
"""Square metres of a footprint, and metres of height, that tell kinds of roofs apart."""

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
    base : NDArray (ny, nx) float32
        Metres above the ground below which the column is empty: the base of a crown.
    """

    top: NDArray
    ground_class: NDArray
    semantic: NDArray
    object: NDArray
    base: NDArray

    def crop(self, rows: slice, columns: slice) -> Columns:
        """Return the columns of a part of the frame."""
        values = (
            np.ascontiguousarray(getattr(self, each.name)[rows, columns]) for each in fields(self)
        )
        return Columns(*values)


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

    Returns
    -------
    Columns
        Exact from `crown_reach` columns inside.
    """
    land = fill_unknown_cover(cover)
    top = np.where(height < MIN_PLANT_HEIGHT, np.float32(0), height).astype(np.float32)
    top, yard = clear_water_and_yards(land, top)
    built = is_class(land, "building") & ~yard
    semantic = np.where(built, np.uint8(class_code("building")), plant_class_table()[land])
    top = limit_tops(top, semantic)
    standing = top_level(top, frame.voxel_size, 2**30) >= 0
    plants, _ = plant_objects(frame, semantic, noise)
    number = np.where(built, building_objects(frame, layer, noise), plants)
    tallest = crown_tops(top, semantic, frame.voxel_size)
    trunks = trunk_columns(top, semantic, frame, noise)
    return Columns(
        top=top,
        ground_class=np.where(yard, np.uint8(class_code("paved")), land),
        semantic=semantic,
        object=np.where(standing | built, number, np.uint32(0)),
        base=crown_bases(top, semantic, trunks, tallest=tallest),
    )


def clear_open_land(cover: NDArray, top: NDArray, whole: bool) -> NDArray:
    """Return generated heights without what cannot stand on mapped land, (ny, nx) float32 metres.

    Nothing stands on roads and on bare or paved land. On meadows nothing stands if the map is
    whole, else only what is a tree by its height.

    Parameters
    ----------
    cover : NDArray (ny, nx) uint8
        Class of the map, 0 unknown.
    top : NDArray (ny, nx) float32
        Metres above the ground.
    whole : bool
        Whether the map has everything.
    """
    low = on_surface(cover, "meadow") & (whole | (top < LEAST_TREE))
    return np.where(on_surface(cover, "road", "flat") | low, np.float32(0), top)


def limit_tops(top: NDArray, semantic: NDArray) -> NDArray:
    """Return tops without needles.

    A building rises at most `MAX_STEP` above the opening of its roof by 3 x 3 columns, in which
    only columns of buildings count; a plant to `PLANT_EXCESS` times the height of its class.

    Parameters
    ----------
    top : NDArray (ny, nx) float32
        Metres. Exact from two cells inside.
    semantic : NDArray (ny, nx) uint8
        Class of what stands there.
    """
    built = is_class(semantic, "building")
    low = ndimage.minimum_filter(np.where(built, top, np.inf), 3, mode="nearest")
    opened = ndimage.maximum_filter(np.where(built, low, -np.inf), 3, mode="nearest")
    around = opened + np.float32(MAX_STEP)
    plant = on_surface(semantic, "wood", "tree", "shrub")
    highest = np.where(plant, np.float32(PLANT_EXCESS) * class_heights()[semantic], np.inf)
    return np.minimum(top, np.where(built, around, highest)).astype(np.float32)


@functools.cache
def class_heights() -> NDArray:
    """Return the largest usual height of each class, metres, (256,) float32."""
    table = np.zeros(CODES, np.float32)
    for land in classes():
        table[land.code] = land.height[1]
    table[class_code("tree")] = max(land.height[1] for land in classes() if land.surface == "wood")
    return table


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


def building_objects(
    frame: Frame, layer: Semantics, noise: Noise, index: NDArray | None = None
) -> NDArray:
    """Return the number of the mapped building, else of a plot, (ny, nx) uint32, never 0.

    The number says which kind of roof it has, by the area and height of the whole footprint, so
    that a building in two windows has one roof. Plots keyed by place have pitched roofs.

    `index` is that of `painted_footprints`, where it is known already.
    """
    plots, plot = house_plots(frame, noise)
    number = object_number(plots.key.ravel(), PITCHED_ROOF)[plot]
    buildings = layer.buildings
    if not len(buildings):
        return number
    kinds = roof_kinds(shapely.area(buildings.footprint), buildings.height)
    index = painted_footprints(frame, buildings) if index is None else index
    return np.where(index >= 0, object_number(buildings.key, kinds)[index], number)


def house_plots(frame: Frame, noise: Noise) -> tuple[PointLattice, NDArray]:
    """Return the plots that building land without footprints is divided into, and which of them
    each column lies on, (ny, nx) int64."""
    plots = jittered_lattice(
        noise.stream("plots"), frame, max(PLOT_SIZE, 3.0 * frame.voxel_size), 0.8
    )
    return plots, voronoi_cells(plots, frame)


def painted_footprints(frame: Frame, buildings: Buildings) -> NDArray:
    """Return the index of the building on each column, (ny, nx) int64, -1 for none."""
    if not len(buildings):
        return np.full(frame.shape, -1)
    numbers = np.arange(1, len(buildings) + 1, dtype=np.uint32)
    return paint(frame, buildings.footprint, numbers, 1).astype(np.int64) - 1


def roof_kinds(area: NDArray, height: NDArray) -> NDArray:
    """Return the kinds of roofs of footprints, (n,) int.

    Parameters
    ----------
    area : NDArray (n,) float64
        Square metres.
    height : NDArray (n,) float64
        Metres; NaN where unknown.
    """
    tall = np.nan_to_num(height, nan=0.0) > TALL
    kinds = np.where((area > LARGE_AREA) | tall, FLAT_ROOF, PITCHED_ROOF)
    kinds = np.where((area > HALL_AREA) & ~tall, HALL_ROOF, kinds)
    return np.where(area < SHED_AREA, PLAIN_ROOF, kinds)


def plant_objects(frame: Frame, semantic: NDArray, noise: Noise) -> tuple[NDArray, NDArray]:
    """Return the numbers of plants and the columns with trunks, keyed by place.

    Parameters
    ----------
    frame : Frame
    semantic : NDArray (ny, nx) uint8
        Class of what stands there; it gives the kind of plant.
    noise : Noise

    Returns
    -------
    number : NDArray (ny, nx) uint32
        Never 0.
    trunk : NDArray (ny, nx) bool
    """
    points = jittered_lattice(noise.stream("crowns"), frame, max(CROWN_SIZE, frame.voxel_size), 0.8)
    key = points.key.ravel()[voronoi_cells(points, frame)]
    kind = np.where(is_class(semantic, "needleleaf_forest"), NEEDLELEAF, BROADLEAF)
    kind = np.where(on_surface(semantic, "shrub"), BUSH, kind)
    trunk = np.zeros(frame.shape, bool)
    col = np.floor(points.x / frame.voxel_size).astype(np.int64) - frame.x[0]
    row = frame.y[1] - 1 - np.floor(points.y / frame.voxel_size).astype(np.int64)
    inside = (col >= 0) & (col < frame.nx) & (row >= 0) & (row < frame.ny)
    trunk[row[inside], col[inside]] = True
    return object_number(key, kind), trunk


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
    solid &= (z < 0) | ((z + 0.5) * inner.voxel_size >= columns.base[..., None])
    volume = np.where(solid, volume, np.uint8(0)).astype(np.uint8)
    objects = np.where(solid & (z >= 0), columns.object[..., None], np.uint32(0)).astype(np.uint32)
    edge = SOLID_MARGIN - NORMAL_RADIUS
    trimmed = tuple(np.ascontiguousarray(a[edge:-edge, edge:-edge]) for a in (volume, objects))
    voxels, normal, offset = surface_of_columns(window, trimmed[0], trimmed[1], LOWEST_LEVEL, tops)
    return Geometry(
        window, np.ascontiguousarray(ground[inner.slices(window)]), voxels, offset, normal
    )
