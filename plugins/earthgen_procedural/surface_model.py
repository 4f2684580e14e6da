"""Objects that a surface model shows: roofs, unmapped buildings, and canopies.

A surface model is often coarser than the voxels, or smoothed: its walls are ramps some cells wide.
A cell belongs to a ramp if the surface is steep both above and below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import jittered_lattice, voronoi_cells
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import CODES, class_code, is_class, on_surface, surface_table
from earthgen.terrain.filters import box_mean, box_share, nearest_cell, whole_cells
from earthgen.terrain.reach import Reach, widest_reach
from earthgen.voxels.objects import BROADLEAF, FLAT_ROOF, NEEDLELEAF, object_number
from geo_io.frame import Frame

TALL = 2.0  # metres above ground from which a cell is an object and not rough ground
# Rise over run: only spires are steeper, and no tree is steep above and below over many cells.
STEEP = 1.4
SHARPEN = 4.0  # metres: ramps take the height of the nearest roof within this distance
BESIDE = 2.5  # metres: tall cells this close to a building are its wall's ramp
# Metres: tall cells this close to a roof, and this close in height, belong to it.
JOIN, LEVEL = 4.0, 3.0
# Metres: without a measured roof this close, the surface model is older than the building.
PRESENT = 10.0
# Least mean deviation of a canopy from the mean around, per metre of voxel; roofs are smoother.
ROUGH = 0.28
# Crowns are domes, curved in all directions; roofs, also pitched ones, are straight in one. A cell
# is straight if the second derivative of the heights within PLANE metres is less than this in some
# direction, 1 / m; a block has this share of straight cells among those of its inside, within SHARE
# metres.
PLANE, CURVED, SHARE, STRAIGHT_SHARE = 2.0, 0.05, 4.0, 0.5
# Tall cells that are not straight, and less than this share of the footprints within LONE metres,
# are a crown.
LONE, LONE_SHARE = 6.0, 0.7
# Excess green of leaves, (2 G - R - B) / (R + G + B).
GREEN = 0.06
# Metres: approximate width of the objects into which measured canopies and blocks are divided.
CROWN, PLOT = 6.0, 26.0
# A surface model shows trees where this share of the woods within this distance (metres) is tall.
SEEN, SEEN_SHARE = 32.0, 0.1
ROOFS_REACH = Reach(max(JOIN, SHARPEN, PRESENT) + max(LONE, PLANE + SHARE), 5)
THINGS_REACH = widest_reach(Reach(BESIDE + 2.0 + 2.0, 4), Reach(BESIDE + PLANE + SHARE, 3))
SEEN_REACH = Reach(SEEN)


def ramps(surface: NDArray, voxel_size: float) -> NDArray:
    """Return the cells of ramps: steeper than STEEP both above and below, or at the foot of such.

    The outermost cells are never ramps.

    Parameters
    ----------
    surface : NDArray (ny, nx) float32
        Surface model, metres; NaN for no data.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (ny, nx) bool
    """
    filled = np.where(np.isfinite(surface), surface, np.float32(-1e4)).astype(np.float32)
    step = np.float32(STEEP * voxel_size)
    inner = (slice(1, -1), slice(1, -1))
    here = filled[inner]
    neighbours = [
        filled[1:-1, 2:],
        filled[1:-1, :-2],
        filled[:-2, 1:-1],
        filled[2:, 1:-1],
    ]  # east, west, north, south
    up = [side - here > step for side in neighbours]
    down = [here - side > step for side in neighbours]
    slope = np.zeros(filled.shape, bool)
    # Only opposite sides count: a low roof in the corner of a high one is no ramp.
    slope[inner] = (up[0] & down[1]) | (up[1] & down[0]) | (up[2] & down[3]) | (up[3] & down[2])
    beside = [slope[1:-1, 2:], slope[1:-1, :-2], slope[:-2, 1:-1], slope[2:, 1:-1]]
    foot = np.zeros(filled.shape, bool)
    foot[inner] = np.logical_or.reduce(
        [rises & ramp for rises, ramp in zip(up, beside, strict=True)]
    )
    return slope | foot


def measured_roofs(
    frame: Frame, cover: NDArray, terrain: NDArray, surface: NDArray, top: NDArray, number: NDArray
) -> tuple[NDArray, NDArray]:
    """Return roofs with the heights of a surface model.

    Parameters
    ----------
    frame : Frame
        Of the arrays.
    cover : NDArray (ny, nx) uint8
        Land classes.
    terrain, surface : NDArray (ny, nx) float32
        Terrain and surface model, metres; surface is NaN for no data.
    top : NDArray (ny, nx) float32
        Roofs by the rules, used where the surface model shows none; absolute metres, NaN without
        a building.
    number : NDArray (ny, nx) uint32
        Their object numbers.

    Returns
    -------
    top : NDArray (ny, nx) float32
        Absolute metres, NaN without a building.
    number : NDArray (ny, nx) uint32
    """
    size = frame.voxel_size
    known = np.isfinite(surface)
    above = np.where(known, surface - terrain, 0.0).astype(np.float32)
    ramp = ramps(surface, size)
    built = is_class(cover, "building")
    # A crown over a building that the surface model does not show is no roof.
    above = np.where(_lone_crowns(above, built, size), np.float32(0), above)
    sound = built & (above > TALL) & ~ramp
    out = np.where(sound, surface, np.float32(np.nan))

    # Tall cells beside a roof belong to it, although the land cover, often coarser, differs.
    solid = ~on_surface(cover, "wood", "tree", "shrub", "water", "road") & known & ~built
    _, index = nearest_cell(sound, max(whole_cells(JOIN, size), 1))
    roof = surface.ravel()[np.maximum(index, 0)]
    joins = solid & (index >= 0) & (above > TALL) & ~ramp & (np.abs(surface - roof) < LEVEL)
    out = np.where(joins, surface, out)
    number = np.where(joins, number.ravel()[np.maximum(index, 0)], number)

    missing = built & np.isnan(out) & (ramp | (above > TALL) | ~known)
    _, index = nearest_cell(sound, max(whole_cells(SHARPEN, size), 1))
    out = np.where(missing & (index >= 0), surface.ravel()[np.maximum(index, 0)], out)
    spire = built & np.isnan(out) & (above > TALL)
    out = np.where(spire, surface, out)
    # A building that the surface model does not show at all is built by the rules; where it shows
    # one, cells of its footprint that are low are a yard.
    shown, _ = nearest_cell(sound, max(whole_cells(PRESENT, size), 1))
    absent = built & np.isnan(out) & (np.isinf(shown) | ~known)
    return np.where(absent, top, out).astype(np.float32), number


@dataclass(frozen=True)
class SurfaceObjects:
    """Objects that a surface model shows besides the roofs of mapped buildings.

    Attributes
    ----------
    block : NDArray (ny, nx) bool
        Objects with smooth tops where the land cover allows for a building.
    block_object : NDArray (ny, nx) uint32
        Their object numbers.
    canopy : NDArray (ny, nx) bool
        Trees.
    shows_trees : NDArray (ny, nx) bool
        Where the surface model shows trees at all, so that none are invented.
    has_data : NDArray (ny, nx) bool
        Where the surface model has data.
    """

    block: NDArray
    block_object: NDArray
    canopy: NDArray
    shows_trees: NDArray
    has_data: NDArray


def detect_objects(
    frame: Frame,
    cover: NDArray,
    terrain: NDArray,
    surface: NDArray,
    built: NDArray,
    noise: Noise,
    *,
    footprints: bool = False,
    image: NDArray | None = None,
) -> SurfaceObjects:
    """Find trees and unmapped buildings in a surface model.

    An unmapped building is smooth, straight in some direction and not green. None is found where
    footprints are given: they say where buildings stand, and what else looks like one is left out.

    Heights are above the terrain, not above the ground: the rules of water and roads reach far.

    Parameters
    ----------
    frame : Frame
        Of the arrays.
    cover : NDArray (ny, nx) uint8
        Land classes.
    terrain, surface : NDArray (ny, nx) float32
        Terrain and surface model, metres; surface is NaN for no data.
    built : NDArray (ny, nx) bool
        Where a mapped building stands.
    noise : Noise
        For the division of blocks into objects.
    footprints : bool
        Whether the job's sources map buildings.
    image : NDArray (ny, nx, 4) uint8, optional
        RGBA, to tell leaves from roofs.
    """
    size = frame.voxel_size
    known = np.isfinite(surface)
    above = np.where(known, surface - terrain, 0.0).astype(np.float32)
    wood = on_surface(cover, "wood", "tree", "shrub")
    # Tall cells beside a wall are its ramp, unless the land cover is trees.
    distance, _ = nearest_cell(built, max(whole_cells(BESIDE, size), 1))
    wall = np.isfinite(distance) & ~wood
    tall = (
        (above > TALL) & ~built & ~wall & ~is_class(cover, "building") & ~on_surface(cover, "water")
    )

    around = box_mean(above, tall, 1)
    departure = np.abs(above - np.where(tall, around, above))
    rough = box_mean(departure, tall, max(whole_cells(2.0, size), 1))
    smooth = tall & (rough < ROUGH * max(size, 0.5))
    dense = box_share(smooth, max(whole_cells(2.0, size), 1)) > 0.55
    allows = on_surface(cover, "grow", "flat") | (cover == 0)
    block = smooth & dense & allows
    block &= _is_straight(above, tall, size) & ~_green(image, tall, size)
    radius = whole_cells(SEEN, size)
    trees = wood & (above > TALL)
    shows_trees = known & (box_share(trees, radius) > SEEN_SHARE * box_share(wood, radius))
    plots = jittered_lattice(noise.stream("measured.blocks"), frame, max(PLOT, 3.0 * size), 0.8)
    plot_key = plots.key.ravel()[voronoi_cells(plots, frame)]
    return SurfaceObjects(
        block=block & (not footprints),
        block_object=object_number(plot_key, FLAT_ROOF),
        canopy=tall & ~block,
        shows_trees=shows_trees,
        has_data=known,
    )


def _lone_crowns(above: NDArray, built: NDArray, size: float) -> NDArray:
    """Return the cells of crowns above footprints that are otherwise low, (ny, nx) bool."""
    tall = built & (above > TALL)
    radius = max(whole_cells(LONE, size), 1)
    share = box_share(tall, radius) / np.maximum(box_share(built, radius), np.float32(1e-6))
    straight = _share_of_straight(above, above > TALL, size)
    return np.asarray(tall & (share < LONE_SHARE) & ~(straight > STRAIGHT_SHARE))


def _is_straight(above: NDArray, tall: NDArray, size: float) -> NDArray:
    """Return the cells around which objects are straight, as roofs are, (ny, nx) bool."""
    return np.asarray(
        tall & (np.nan_to_num(_share_of_straight(above, tall, size)) > STRAIGHT_SHARE)
    )


def _share_of_straight(above: NDArray, tall: NDArray, size: float) -> NDArray:
    """Return the share of straight cells inside the objects around, NaN where they are too thin."""
    radius = max(whole_cells(PLANE, size), 1)
    inner, straight = _straight(above, tall, radius, float(CURVED * size * size))
    return box_mean(straight.astype(np.float32), inner, max(whole_cells(SHARE, size), radius))


@numba.njit(cache=True, nogil=True)
def _straight(above, tall, radius, limit):  # type: ignore[no-untyped-def]
    """Return which cells have only tall cells around them, and which of them are straight.

    The second derivatives are those of the quadratic surface of least squares, in metres a cell
    squared; on a square the terms of it are independent of each other.
    """
    rows, cols = above.shape
    inner, straight = np.zeros((rows, cols), np.bool_), np.zeros((rows, cols), np.bool_)
    wide = 2 * radius + 1
    mean_square, fourth, square = radius * (radius + 1) / 3.0, 0.0, 0.0
    for d in range(-radius, radius + 1):
        fourth += wide * (d * d - mean_square) ** 2
        square += d * d
    for row in range(radius, rows - radius):
        for col in range(radius, cols - radius):
            if not tall[row, col]:
                continue
            xx, yy, xy, full = 0.0, 0.0, 0.0, True
            for i in range(-radius, radius + 1):
                for j in range(-radius, radius + 1):
                    if not tall[row + i, col + j]:
                        full = False
                        break
                    z = float(above[row + i, col + j]) - float(above[row, col])
                    xx += z * (j * j - mean_square)
                    yy += z * (i * i - mean_square)
                    xy += z * i * j
                if not full:
                    break
            if not full:
                continue
            inner[row, col] = True
            xx, yy, xy = 2.0 * xx / fourth, 2.0 * yy / fourth, xy / (square * square)
            middle, spread = 0.5 * (xx + yy), np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
            least = max(abs(middle) - spread, 0.0)
            if abs(middle) < spread:  # a saddle: curved both ways
                least = spread - abs(middle)
            straight[row, col] = least < limit
    return inner, straight


def _green(image: NDArray | None, tall: NDArray, size: float) -> NDArray:
    """Return the tall cells around which a picture shows leaves, (ny, nx) bool."""
    if image is None:
        return np.zeros(tall.shape, bool)
    red, green, blue = (image[..., band].astype(np.int32) for band in range(3))
    leaf = (2 * green - red - blue) > GREEN * (red + green + blue)
    shown = tall & (image[..., 3] > 0)
    share = box_mean(leaf.astype(np.float32), shown, max(whole_cells(2.0, size), 1))
    return np.asarray(shown & (np.nan_to_num(share) > 0.5))


def crown_objects(frame: Frame, cover: NDArray, noise: Noise) -> NDArray:
    """Return object numbers that divide measured canopies into crowns: (ny, nx) uint32."""
    points = jittered_lattice(
        noise.stream("measured.crowns"), frame, max(CROWN, frame.voxel_size), 0.8
    )
    kind = np.where(is_class(cover, "needleleaf_forest"), NEEDLELEAF, BROADLEAF)
    return object_number(points.key.ravel()[voronoi_cells(points, frame)], kind)


def canopy_class(cover: NDArray) -> NDArray:
    """Return the class of a measured canopy: that of the wood it stands in, or single trees."""
    table = np.full(CODES, class_code("tree"), np.uint8)
    wood = surface_table("wood", "tree", "shrub")
    table[wood] = np.flatnonzero(wood)
    return np.asarray(table[cover])
