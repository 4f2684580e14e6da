"""Triangulation of polygons with holes in space, by shapely's constrained Delaunay triangulation
(GEOS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

Ring = NDArray
"""(n, 3) float64; the first point is not repeated at the end."""


@dataclass(frozen=True)
class Triangles:
    """Triangles of polygons.

    Attributes
    ----------
    corners : NDArray (t, 3, 3) float64
        Corners, wound as the outer rings.
    owner : NDArray (t,) int64
        Number of the polygon that each triangle belongs to.
    source : NDArray (t, 3) int64
        Which point of its polygon each corner is, counted through all rings.
    """

    corners: NDArray
    owner: NDArray
    source: NDArray


def triangulate(polygons: Sequence[Sequence[Ring]]) -> Triangles:
    """Triangulate polygons.

    A polygon is projected along the axis nearest to its normal (Newell's) and triangulated there.
    Its corners keep their places, so a polygon that is not quite plane stays closed with its
    neighbours. Polygons that cross themselves are repaired first; parts without area are left out.

    Parameters
    ----------
    polygons : Sequence[Sequence[Ring]]
        Each an outer ring and then its holes, (n, 3) float64.
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
        triangles = _triangulate_one(polygons[n], normal) if normal.any() else None
        if triangles is not None:
            corners.append(triangles[0])
            owner.append(np.full(len(triangles[0]), n))
            source.append(triangles[1])
    if not corners:
        return Triangles(np.zeros((0, 3, 3)), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
    order = np.argsort(np.concatenate(owner), kind="stable")
    return Triangles(
        np.concatenate(corners)[order],
        np.concatenate(owner)[order].astype(np.int64),
        np.concatenate(source)[order].astype(np.int64),
    )


def newell(ring: Ring) -> NDArray:
    """Return the (3,) normal of a ring that need not be plane, as long as twice its area (Newell's
    method)."""
    x, y, z = (ring[1:] - ring[0]).T  # numpy's own cross product is slow on few points
    return np.array(
        [
            y[:-1] @ z[1:] - z[:-1] @ y[1:],
            z[:-1] @ x[1:] - x[:-1] @ z[1:],
            x[:-1] @ y[1:] - y[:-1] @ x[1:],
        ]
    )


def _triangulate_one(rings: Sequence[Ring], normal: NDArray) -> tuple[NDArray, NDArray] | None:
    """Return (t, 3, 3) corners and (t, 3) the numbers of their points, for one polygon."""
    axis = int(np.argmax(np.abs(normal)))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    points = np.concatenate(rings)
    # Relative to the first point: coordinates of a city in metres leave few digits.
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
    corners2d = shapely.get_coordinates(parts).reshape(-1, 4, 2)[:, :3]
    one, other = corners2d[:, 1] - corners2d[:, 0], corners2d[:, 2] - corners2d[:, 0]
    across = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    turned = (across * normal[axis] < 0)[:, None, None]
    corners2d = np.where(turned, corners2d[:, ::-1], corners2d)[across != 0]
    distance, nearest = _nearest(flat, corners2d.reshape(-1, 2))
    corners = points[nearest].copy()
    crossing = distance > 0  # points that the repair added; they lie on the polygon's plane
    if crossing.any():
        corners[crossing, first] = corners2d.reshape(-1, 2)[crossing, 0] + points[0, first]
        corners[crossing, second] = corners2d.reshape(-1, 2)[crossing, 1] + points[0, second]
        rest = corners[crossing] - points[0]
        rest[:, axis] = 0
        corners[crossing, axis] = points[0, axis] - rest @ normal / normal[axis]
    return corners.reshape(-1, 3, 3), nearest.reshape(-1, 3)


def _convex(flat: NDArray) -> bool:
    """Whether all corners of a ring turn one way."""
    edge = np.roll(flat, -1, axis=0) - flat
    following = np.roll(edge, -1, axis=0)
    turns = edge[:, 0] * following[:, 1] - edge[:, 1] * following[:, 0]
    return bool((turns > 0).all() or (turns < 0).all())


def _nearest(points: NDArray, wanted: NDArray) -> tuple[NDArray, NDArray]:
    """Return (distance, index) of the point nearest to each wanted place."""
    if len(points) * len(wanted) > 1_000_000:
        from scipy.spatial import cKDTree

        distance, index = cKDTree(points).query(wanted)
        return np.asarray(distance), np.asarray(index)
    squared = ((wanted[:, None] - points[None]) ** 2).sum(axis=2)
    index = squared.argmin(axis=1)
    return squared[np.arange(len(wanted)), index], index
