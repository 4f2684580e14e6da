"""Crowns of learned plants, by rule: how high one of its width can be, where it begins, and where
its trunk stands.

A network that learns heights of columns knows no trees: at the scale of a crown it may raise a few
columns to any height, and nothing says what is below them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.noise.fields import white_noise
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import on_surface
from geo_io.frame import Frame

LEAST_TREE = 2.0
"""Metres; what is lower is no tree: it may have any width, and on mown or open land it is nothing
that a map left out."""

SHORTEST, SLENDERNESS, DOME = 6.0, 3.0, 0.3
"""A plant is at most as high as the first, metres, and the second for each metre of half its width:
a crown of 4 m is below 12 m. Nine of ten columns of trees are lower at Annedal and in the Dueffel
(11 and 6 m where plants are a column wide, 12.5 and 8 m at three, 13.5 and 11 m at five, 14 and
13 m at seven). At its edge, a crown is lower by the last share of that."""

WIDEST = 3.5
"""Metres of half a width from which on a plant is a wood, and of any height."""

CROWN_SHARE, CROWN_DEPTH, MIN_CROWN = 0.35, 9.0, 3.0
"""A crown begins at this share of the height or this many metres below its top, whichever is
higher; plants below the last, metres, reach down to the ground."""

CROWN_RADIUS, LIP = 3.0, 1.0
"""Metres around a column whose highest plant is the crown that it belongs to, and least thickness
of the crown's edge."""


TIE = 0.01
"""Metres by which one of columns of the same height is the highest."""

CROWN_REACH, ROUNDING = 2 * WIDEST + CROWN_RADIUS, 3
"""Metres, and columns, of margin that `limit_crowns`, and trunks and bases after it, need."""


def crown_reach(voxel_size: float) -> int:
    """Return the columns of margin that crowns need."""
    return int(np.ceil(CROWN_REACH / voxel_size - 1e-9)) + ROUNDING


def limit_crowns(height: NDArray, cover: NDArray, voxel_size: float) -> NDArray:
    """Return generated heights in which no plant is much higher than it is wide.

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres above the ground.
    cover : NDArray (ny, nx) uint8
        Class of the map, 0 unknown; buildings and water are left as they are.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (ny, nx) float32
        Exact from `crown_reach` columns inside.
    """
    plant = (height >= LEAST_TREE) & ~on_surface(cover, "building", "water")
    if not plant.any():
        return height
    radii = np.arange(1.0, max(WIDEST / voxel_size, 1.5) + 0.25, 0.5)
    depth = np.minimum(ndimage.distance_transform_edt(plant), radii[-1])
    # Half the width of the plant around a column: the largest disc inside it that has the column.
    half = np.where(plant, 0.5, 0.0)
    for radius in radii:
        core = depth >= radius
        if not core.any():
            break
        half[ndimage.distance_transform_edt(~core) < radius] = radius - 0.5
    dome = 1 - DOME * (1 - np.minimum(depth / np.maximum(half, 0.5), 1))
    highest = (SHORTEST + SLENDERNESS * half * voxel_size) * dome
    limited = plant & (half < radii[-1] - 0.5)
    return np.where(limited, np.minimum(height, highest), height).astype(np.float32)


def crown_tops(top: NDArray, semantic: NDArray, voxel_size: float) -> NDArray:
    """Return the top of the highest plant within `CROWN_RADIUS`, (ny, nx) float32 metres.

    Parameters
    ----------
    top : NDArray (ny, nx) float32
        Metres.
    semantic : NDArray (ny, nx) uint8
        Class of what stands there.
    voxel_size : float
        Metres.
    """
    radius = _radius(voxel_size)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    plants = np.where(on_surface(semantic, "wood", "tree"), top, np.float32(0))
    disc = x * x + y * y <= radius * radius
    return np.asarray(ndimage.maximum_filter(plants, footprint=disc), np.float32)


def trunk_columns(top: NDArray, semantic: NDArray, frame: Frame, noise: Noise) -> NDArray:
    """Return the columns with trunks, (ny, nx) bool: the highest within `CROWN_RADIUS`.

    Of columns that are as high as each other, `noise` picks one.

    Parameters
    ----------
    top : NDArray (ny, nx) float32
        Metres.
    semantic : NDArray (ny, nx) uint8
        Class of what stands there.
    frame : Frame
    noise : Noise
    """
    one = top + TIE * white_noise(noise.stream("trunks"), frame).astype(np.float32)
    return np.asarray(one == crown_tops(one, semantic, frame.voxel_size))


def crown_bases(
    top: NDArray,
    semantic: NDArray,
    trunks: NDArray,
    lowest: NDArray | None = None,
    tallest: NDArray | None = None,
) -> NDArray:
    """Return the height below which columns are empty, (ny, nx) float32; 0 but under crowns.

    Parameters
    ----------
    top : NDArray (ny, nx) float32
        Metres.
    semantic : NDArray (ny, nx) uint8
        Class of what stands there.
    trunks : NDArray (ny, nx) bool
        Columns with a trunk, which reach down to the ground.
    lowest : NDArray (ny, nx) float32, optional
        Base that a network gave, NaN where it gave none.
    tallest : NDArray (ny, nx) float32, optional
        Top of the crown that a column belongs to (`crown_tops`); by default the column's own. With
        it a crown has one base, and its edge does not hang down.
    """
    of = top if tallest is None else tallest
    base = np.maximum(np.float32(CROWN_SHARE) * of, of - np.float32(CROWN_DEPTH))
    base = np.clip(base, 0, np.maximum(top - np.float32(LIP), 0))
    if lowest is not None:
        base = np.where(np.isfinite(lowest), np.minimum(lowest, top), base)
    crown = on_surface(semantic, "wood", "tree") & (top >= MIN_CROWN) & ~trunks
    return np.where(crown, base, np.float32(0)).astype(np.float32)


def _radius(voxel_size: float) -> int:
    return max(int(np.ceil(CROWN_RADIUS / voxel_size)), 1)
