"""Heights that no map tells: of buildings by area and town, of stands of trees by what surrounds
them. The flow of heights is told them as it is told those of a map.

Medians and spreads are those of 2,381 buildings of 16 places and 1,034 stands of 20 places of the
training data with surface models (docs/guides/datasets.md), places weighted by the root of their
buildings: a building's height is the median of its columns, a stand's the 0.9 quantile of the trees
in a square of 32 m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from earthgen.models.height_state import wood_table
from earthgen.noise.fields import jittered_lattice, voronoi_cells
from earthgen.noise.philox import Noise, Stream
from earthgen.terrain.cover import is_class
from earthgen.terrain.filters import box_share, whole_cells
from geo_io.frame import Frame

BUILDINGS_BY_AREA = (
    # Largest area, m2, then the median height in the country, metres, how many times that it is in
    # the middle of a town, and the deviation of its logarithm.
    (35.0, 4.0, 2.5, 0.42),
    (90.0, 5.0, 2.4, 0.42),
    (300.0, 7.0, 2.1, 0.36),
    (900.0, 7.5, 1.9, 0.38),
    (np.inf, 10.0, 1.8, 0.34),
)
"""The towns of the training data are mostly the middles of large cities, where buildings are 2.3 to
3.8 times as high as in the country; the 0.7th power of that is taken."""

TREES_BY_SHARE = (
    # Share of the ground around that trees stand on, then median and deviation of the logarithm.
    (0.03, 7.0, 0.55),
    (0.13, 9.6, 0.5),
    (0.4, 12.2, 0.42),
    (0.75, 13.9, 0.3),
)
"""Trees and tree rows; single ones are lower than those in a wood."""

FOREST, ORCHARD = (16.0, 0.25), (3.0, 0.2)
"""Median height of a stand that the map calls a forest or an orchard, and the deviation of its
logarithm; of few places."""

MOST = 1.6
"""Deviations from the median that a draw may lie away from it."""

DISTRICT = 0.5
"""How much of a draw is shared by a neighbourhood, so that its buildings and trees are alike."""

NEIGHBOURHOOD = 160.0
"""Wavelength over which what is drawn varies together, metres."""

STAND = 32.0
"""Metres; about the width of a stand, whose trees have one height."""


def building_heights(
    area: NDArray, town: NDArray, key: NDArray, near: NDArray, noise: Noise
) -> NDArray:
    """Draw heights of buildings, (n,) float64 metres.

    Parameters
    ----------
    area : NDArray (n,) float64
        Of the footprints, m2.
    town : NDArray (n,) float64
        How deep in a town each stands, of `earthgen.terrain.town.town_share`.
    key : NDArray (n,) uint
        Keys of the buildings.
    near : NDArray (n,) float64
        Numbers in [0, 1] that neighbours share (`neighbourhood`).
    noise : Noise
        Keys the draw.
    """
    limits, country, times, deviation = np.array(BUILDINGS_BY_AREA).T
    size = np.searchsorted(limits, area, side="left")
    own = noise.stream("building heights").of_objects(np.asarray(key, np.uint64))
    median = country[size] * times[size] ** town
    return np.asarray(median * np.exp(deviation[size] * _normal(own, near)))


def stand_heights(frame: Frame, cover: NDArray, noise: Noise) -> NDArray:
    """Draw heights of stands of trees, (ny, nx) float32 metres, 0 where the map has no trees.

    Parameters
    ----------
    frame : Frame
        The columns; those within one and a half `STAND` of its edges are not exact.
    cover : NDArray (ny, nx) uint8
        Class codes; 0 unknown.
    noise : Noise
        Keys the draw.
    """
    wood = wood_table()[cover]
    if not wood.any():
        return np.zeros(frame.shape, np.float32)
    share = box_share(wood, whole_cells(STAND / 2, frame.voxel_size))[wood]
    at, medians, deviations = np.array(TREES_BY_SHARE).T
    middle, wide = np.interp(share, at, medians), np.interp(share, at, deviations)
    forest = is_class(cover, "broadleaf_forest", "needleleaf_forest", "mixed_forest")[wood]
    orchard = is_class(cover, "orchard")[wood]
    for where, (median, deviation) in ((forest, FOREST), (orchard, ORCHARD)):
        middle, wide = np.where(where, median, middle), np.where(where, deviation, wide)
    points = jittered_lattice(noise.stream("stands"), frame, max(STAND, frame.voxel_size), 0.8)
    own = noise.stream("stand heights").of_objects(points.key.ravel().astype(np.uint64))
    near = neighbourhood(points.x.ravel(), points.y.ravel(), noise.stream("stand districts"))
    stand = voronoi_cells(points, frame)[wood]
    told = np.zeros(frame.shape, np.float32)
    told[wood] = middle * np.exp(wide * _normal(own, near)[stand])
    return told


def neighbourhood(x: NDArray, y: NDArray, stream: Stream) -> NDArray:
    """Return numbers in [0, 1) that vary smoothly from place to place, (n,) float64.

    Parameters
    ----------
    x, y : NDArray (n,) float64
        CRS metres.
    stream : Stream
        Source of the numbers.
    """
    u, v = x / NEIGHBOURHOOD, y / NEIGHBOURHOOD
    i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    a, b = u - i, v - j
    south = stream.uniform(i, j) * (1 - a) + stream.uniform(i + 1, j) * a
    north = stream.uniform(i, j + 1) * (1 - a) + stream.uniform(i + 1, j + 1) * a
    return np.asarray(south * (1 - b) + north * b)


def uniform_of_mix(own: NDArray, shared: NDArray) -> NDArray:
    """Return numbers in [0, 1), about uniform, of which a part is shared by neighbours.

    A sum of two uniform numbers is a trapezoid; its distribution function makes it uniform.

    Parameters
    ----------
    own, shared : NDArray (n,) float64
        In [0, 1).
    """
    a, b = sorted((DISTRICT, 1 - DISTRICT))
    total = (1 - DISTRICT) * own + DISTRICT * shared
    rising = total**2 / (2 * a * b)
    level = (total - a / 2) / b
    falling = 1 - (1 - total) ** 2 / (2 * a * b)
    return np.where(total < a, rising, np.where(total < b, level, falling))


def _normal(own: NDArray, near: NDArray) -> NDArray:
    return np.clip(ndtri(uniform_of_mix(own, near)), -MOST, MOST)
