"""Which polygon shows where several overlap: the smaller inside the larger, then by priority.

A polygon that lies inside another one is drawn above it whatever their classes: a lake in a quarry,
rock in a forest, a wood in a lake. Where polygons merely overlap, the priority of their classes
decides. So a nested polygon takes the priority of the highest polygon around it, and a level above.

The polygon around may come from the same source or from an earlier one: a later source is laid over
the earlier ones, and what they have inside one of its polygons does not show through.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.legend import priorities

TOLERANCE = 1.0
"""Metres by which a polygon may reach beyond one that it lies inside: borders are drawn twice, and
not to the centimetre."""

SMALLER = 0.9
"""A polygon is nested in another one if its area is at most this share of it."""

LEVELS = 4
"""Ranks that a priority has. Deeper nesting shows in the order of areas; lines have the highest."""


def rank_of(priority: int) -> int:
    """Return the rank of what has a priority and lies in no other polygon."""
    return priority * LEVELS


def class_ranks() -> NDArray:
    """Return the rank of each class that lies in no other polygon, by class code."""
    return (priorities().astype(np.int64) * LEVELS).astype(np.uint16)


def feature_ranks(
    shapes: NDArray, code: NDArray, is_area: NDArray, is_building: NDArray, source: NDArray
) -> NDArray:
    """Return the rank of each shape: of two that overlap, the one of higher rank is visible.

    A polygon's rank depends on it and on the polygons around it alone, all of which come within
    `TOLERANCE` of any place that it covers.

    Parameters
    ----------
    shapes : NDArray (n,) object
        Valid shapely Polygons, CRS metres.
    code : NDArray (n,) uint8
        Class codes.
    is_area : NDArray (n,) bool
        False for lines, which neither lie in others nor have others in them.
    is_building : NDArray (n,) bool
        Footprints, which do not either: they have rules of their own.
    source : NDArray (n,) int
        Number of the source of each, in the order given.

    Returns
    -------
    NDArray (n,) uint16
    """
    ranks = class_ranks()[code]
    ranks[~is_area] += LEVELS - 1
    chosen = np.flatnonzero(is_area & ~is_building)
    if len(chosen) < 2:
        return ranks
    priority = priorities()[code[chosen]].astype(np.int64)
    inner, outer = _pairs(shapes[chosen], priority, source[chosen])
    level = np.zeros(len(chosen), np.int64)
    highest = priority.copy()
    # From the largest inner polygon to the smallest: those around each are then known.
    area = shapely.area(shapes[chosen])
    for n in np.lexsort((outer, inner, -area[inner])).tolist():
        small, large = inner[n], outer[n]
        above = (highest[large], level[large] + 1)
        if above > (highest[small], level[small]) and highest[large] >= priority[small]:
            highest[small], level[small] = above
    ranks[chosen] = highest * LEVELS + np.minimum(level, LEVELS - 2)
    return ranks


def _pairs(shapes: NDArray, priority: NDArray, source: NDArray) -> tuple[NDArray, NDArray]:
    """Return the pairs (inner, outer) of polygons that matter, as indices."""
    area = shapely.area(shapes)
    tree = shapely.STRtree(shapely.point_on_surface(shapes))
    outer, inner = tree.query(shapes, predicate="contains")
    useful = (area[inner] <= SMALLER * area[outer]) & (source[outer] <= source[inner])
    outer, inner = outer[useful], inner[useful]
    # Only what lies, at last, in a polygon of higher priority is lifted.
    lifts = priority[outer] > priority[inner]
    lifted = np.zeros(len(shapes), bool)
    while True:
        before = lifted.sum()
        lifted[inner[lifts]] = True
        lifts = (priority[outer] > priority[inner]) | lifted[outer]
        if lifted.sum() == before:
            break
    outer, inner = outer[lifts], inner[lifts]
    inside = np.array(
        [_inside(shapes[a], shapes[b]) for a, b in zip(inner, outer, strict=True)], bool
    )
    return inner[inside], outer[inside]


def _inside(small: shapely.Polygon, large: shapely.Polygon) -> bool:
    """Return whether a polygon lies inside another one, but for `TOLERANCE`."""
    shapely.prepare(large)
    if shapely.covers(large, small):
        return True
    left, bottom, right, top = small.bounds
    margin = 4 * TOLERANCE
    box = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    near = shapely.buffer(shapely.intersection(large, box), TOLERANCE, quad_segs=2)
    return bool(shapely.covers(near, small))
