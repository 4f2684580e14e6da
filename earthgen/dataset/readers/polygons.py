"""Polygons in space, with holes, as triangles: through shapely's constrained Delaunay
triangulation (GEOS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

Ring = NDArray
"""(n, 3) float64, without the first point again at the end."""


@dataclass(frozen=True)
class Triangles:
    """Triangles of polygons.

    corners : (t, 3, 3) float64, wound as the outer rings are
    owner : (t,) int64, the polygon each belongs to
    source : (t, 3) int64, which point of the polygon's rings, counted through all of them, each
        corner is
    """

    corners: NDArray
    owner: NDArray
    source: NDArray


def triangulate(polygons: Sequence[Sequence[Ring]]) -> Triangles:
    """Triangles of polygons, each an outer ring and then its holes.

    A polygon is triangulated as it is seen along the axis that its normal (Newell's) is nearest to,
    and its corners keep their places, so one that is not quite plane stays closed with its
    neighbours. Polygons that cross themselves are mended first; what has no area is left out.
    """
    corners: list[NDArray] = []
    owner: list[NDArray] = []
    source: list[NDArray] = []
    simple = [n for n, rings in enumerate(polygons) if len(rings) == 1 and len(rings[0]) == 3]
    if simple:
        corners.append(np.array([polygons[n][0] for n in simple]))
        owner.append(np.array(simple))
        source.append(np.tile(np.arange(3), (len(simple), 1)))
    easy = set(simple)
    for n in (n for n in range(len(polygons)) if n not in easy):
        normal = newell(polygons[n][0])
        found = _one(polygons[n], normal) if normal.any() else None
        if found is not None:
            corners.append(found[0])
            owner.append(np.full(len(found[0]), n))
            source.append(found[1])
    if not corners:
        return Triangles(np.zeros((0, 3, 3)), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
    order = np.argsort(np.concatenate(owner), kind="stable")
    return Triangles(
        np.concatenate(corners)[order],
        np.concatenate(owner)[order].astype(np.int64),
        np.concatenate(source)[order].astype(np.int64),
    )


def newell(ring: Ring) -> NDArray:
    """(3,) normal of a ring that need not be plane, as long as twice its area (Newell's method)."""
    x, y, z = (ring[1:] - ring[0]).T  # numpy's own cross product is slow on few points
    return np.array(
        [
            y[:-1] @ z[1:] - z[:-1] @ y[1:],
            z[:-1] @ x[1:] - x[:-1] @ z[1:],
            x[:-1] @ y[1:] - y[:-1] @ x[1:],
        ]
    )


def _one(rings: Sequence[Ring], normal: NDArray) -> tuple[NDArray, NDArray] | None:
    """(t, 3, 3) corners and (t, 3) their points of one polygon."""
    axis = int(np.argmax(np.abs(normal)))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    points = np.concatenate(rings)
    # Near their own origin: the places of a city in metres leave few digits.
    flat = points[:, [first, second]] - points[0, [first, second]]
    if len(rings) == 1 and len(points) == 4 and _convex(flat):
        picks = np.array([[0, 1, 2], [0, 2, 3]])
        return points[picks], picks
    ends = np.cumsum([len(ring) for ring in rings])
    loops = np.split(flat, ends[:-1])
    shape: shapely.Geometry = shapely.Polygon(
        loops[0], [loop for loop in loops[1:] if len(loop) >= 3]
    )
    if not shapely.is_valid(shape):
        shape = shapely.make_valid(shape)
    parts = shapely.get_parts(shapely.constrained_delaunay_triangles(shape))
    parts = parts[shapely.get_type_id(parts) == 3] if len(parts) else parts
    if not len(parts):
        return None
    found = shapely.get_coordinates(parts).reshape(-1, 4, 2)[:, :3]
    one, other = found[:, 1] - found[:, 0], found[:, 2] - found[:, 0]
    across = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    found = np.where((across * normal[axis] < 0)[:, None, None], found[:, ::-1], found)[across != 0]
    distance, nearest = _nearest(flat, found.reshape(-1, 2))
    corners = points[nearest].copy()
    made = distance > 0  # where a mended polygon crossed itself: on the plane of the polygon
    if made.any():
        corners[made, first] = found.reshape(-1, 2)[made, 0] + points[0, first]
        corners[made, second] = found.reshape(-1, 2)[made, 1] + points[0, second]
        rest = corners[made] - points[0]
        rest[:, axis] = 0
        corners[made, axis] = points[0, axis] - rest @ normal / normal[axis]
    return corners.reshape(-1, 3, 3), nearest.reshape(-1, 3)


def _convex(flat: NDArray) -> bool:
    """Whether all corners of a ring turn one way."""
    edge = np.roll(flat, -1, axis=0) - flat
    following = np.roll(edge, -1, axis=0)
    turns = edge[:, 0] * following[:, 1] - edge[:, 1] * following[:, 0]
    return bool((turns > 0).all() or (turns < 0).all())


def _nearest(points: NDArray, wanted: NDArray) -> tuple[NDArray, NDArray]:
    """(distance, index) of the nearest of the points."""
    if len(points) * len(wanted) > 1_000_000:
        from scipy.spatial import cKDTree

        distance, index = cKDTree(points).query(wanted)
        return np.asarray(distance), np.asarray(index)
    squared = ((wanted[:, None] - points[None]) ** 2).sum(axis=2)
    index = squared.argmin(axis=1)
    return squared[np.arange(len(wanted)), index], index
