"""Closed solids of buildings: extruded outlines (LoD 1.2), and roofs with their slopes (LoD 2.2).

Faces are lists of rings of points (x, y, z), exteriors counter-clockwise from outside, as in
CityJSON. A roof that is none of the simple shapes on a rectangle is a triangulated surface through
the tops of the cells.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree
from shapely.geometry import Polygon

from earthgen.render.features.buildings import Building

ROOF, WALL, GROUND = "RoofSurface", "WallSurface", "GroundSurface"

BLOCK_PERCENTILE = 70.0
"""Percentile of the tops that is the height of an extruded building, as in 3DBAG."""

LOWEST_ROOF = 0.3
"""Metres of walls below the eaves, at least."""

STEP = 3.0
"""Metres, at least two cells, between the points of a triangulated roof."""

Point = tuple[float, float, float]
Ring = list[Point]


@dataclass
class Solid:
    """The faces of a closed solid, and the type of each: ROOF, WALL or GROUND."""

    faces: list[list[Ring]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, kind: str, *rings: Ring) -> None:
        self.faces.append(list(rings))
        self.kinds.append(kind)


def ring_of(coordinates: Sequence[Sequence[float]], z: float) -> Ring:
    """Return a closed ring's points once each, at one height."""
    return [(float(x), float(y), z) for x, y, *_ in list(coordinates)[:-1]]


def prism(polygon: Polygon, low: float, high: float) -> Solid:
    """Return a polygon (exterior counter-clockwise) between two heights."""
    solid = Solid()
    rings = [list(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    solid.add(GROUND, *(ring_of(ring, low)[::-1] for ring in rings))
    solid.add(ROOF, *(ring_of(ring, high) for ring in rings))
    for ring in rings:
        _walls(solid, ring_of(ring, low), ring_of(ring, high))
    return solid


def _walls(solid: Solid, foot: Ring, top: Ring) -> None:
    for k in range(len(foot)):
        n = (k + 1) % len(foot)
        solid.add(WALL, [foot[k], foot[n], top[n], top[k]])


def block(building: Building, polygon: Polygon, level: float) -> Solid:
    """Return the extruded building, LoD 1.2, standing at an absolute height."""
    top = float(np.percentile(building.cells["top"], BLOCK_PERCENTILE))
    return prism(polygon, level, max(top, level + LOWEST_ROOF))


def detailed(building: Building, polygon: Polygon, level: float, size: float) -> Solid:
    """Return the building with its roof, LoD 2.2, standing at an absolute height.

    Parameters
    ----------
    building : Building
    polygon : Polygon
        One part of its outline, exterior counter-clockwise.
    level : float
        Absolute height of its foot, metres.
    size : float
        Edge of a cell, metres.
    """
    ridge = max(building.level_ground + building.height, level + 2 * LOWEST_ROOF)
    eaves = min(max(building.level_ground + building.eaves, level + LOWEST_ROOF), ridge)
    if building.roof == "flat" or ridge - eaves < 0.2:
        return prism(polygon, level, ridge)
    corners = np.array(polygon.exterior.coords)[:-1, :2]
    if len(corners) == 4 and not polygon.interiors:
        solid = _on_rectangle(building, corners, level, eaves, ridge)
        if solid is not None:
            return solid
    return _through_tops(building, polygon, level, size) or prism(
        polygon, level, (eaves + ridge) / 2
    )


def _on_rectangle(
    building: Building, corners: NDArray, level: float, eaves: float, ridge: float
) -> Solid | None:
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.hypot(*sides.T)
    square = abs(lengths[0] - lengths[2]) + abs(lengths[1] - lengths[3]) < 0.02 * lengths.sum()
    right = abs(float(sides[0] @ sides[1])) < 0.02 * lengths[0] * lengths[1]
    if not (square and right):
        return None
    if building.roof == "skillion":
        # The outward normal of the low side points to where the roof falls.
        outward = np.degrees(np.arctan2(sides[:, 1], -sides[:, 0])) % 360
        low = int(np.argmin(np.abs((outward - building.direction + 180) % 360 - 180)))
        return _skillion(np.roll(corners, -low, axis=0), level, eaves, ridge)
    if building.roof in ("gabled", "hipped"):
        first = 0 if lengths[0] >= lengths[1] else 1
        if building.roof == "gabled" and np.isfinite(building.direction):
            azimuth = np.degrees(np.arctan2(sides[:2, 0], sides[:2, 1]))
            first = int(np.argmin(np.abs((azimuth - building.direction + 90) % 180 - 90)))
        corners, lengths = np.roll(corners, -first, axis=0), np.roll(lengths, -first)
        inset = min(lengths[1] / 2, lengths[0] / 2) if building.roof == "hipped" else 0.0
        if lengths[0] - 2 * inset > 0.1:
            return _ridged(corners, level, eaves, ridge, inset)
        return _pyramid(corners, level, eaves, ridge)
    if building.roof == "pyramidal":
        return _pyramid(corners, level, eaves, ridge)
    return None


def _corners(corners: NDArray, z: float) -> Ring:
    return [(float(x), float(y), z) for x, y in corners]


def _middle(a: NDArray, b: NDArray, z: float) -> Point:
    x, y = ((a + b) / 2).tolist()
    return x, y, z


def _ridged(corners: NDArray, level: float, eaves: float, ridge: float, inset: float) -> Solid:
    """A ridge along the first side; hips that begin at `inset` from the ends, or gables."""
    foot, top = _corners(corners, level), _corners(corners, eaves)
    along = (corners[1] - corners[0]) / np.hypot(*(corners[1] - corners[0])) * inset
    a = _middle(corners[1] - along, corners[2] - along, ridge)
    b = _middle(corners[3] + along, corners[0] + along, ridge)
    solid = Solid()
    solid.add(GROUND, foot[::-1])
    solid.add(ROOF, [top[0], top[1], a, b])
    solid.add(ROOF, [top[2], top[3], b, a])
    solid.add(WALL, [foot[0], foot[1], top[1], top[0]])
    solid.add(WALL, [foot[2], foot[3], top[3], top[2]])
    if inset:
        solid.add(ROOF, [top[1], top[2], a])
        solid.add(ROOF, [top[3], top[0], b])
        solid.add(WALL, [foot[1], foot[2], top[2], top[1]])
        solid.add(WALL, [foot[3], foot[0], top[0], top[3]])
    else:
        solid.add(WALL, [foot[1], foot[2], top[2], a, top[1]])
        solid.add(WALL, [foot[3], foot[0], top[0], b, top[3]])
    return solid


def _pyramid(corners: NDArray, level: float, eaves: float, ridge: float) -> Solid:
    foot, top = _corners(corners, level), _corners(corners, eaves)
    apex = _middle(corners[0], corners[2], ridge)
    solid = Solid()
    solid.add(GROUND, foot[::-1])
    for k in range(4):
        solid.add(ROOF, [top[k], top[(k + 1) % 4], apex])
    _walls(solid, foot, top)
    return solid


def _skillion(corners: NDArray, level: float, eaves: float, ridge: float) -> Solid:
    foot = _corners(corners, level)
    top = [*_corners(corners[:2], eaves), *_corners(corners[2:], ridge)]
    solid = Solid()
    solid.add(GROUND, foot[::-1])
    solid.add(ROOF, top)
    _walls(solid, foot, top)
    return solid


def _through_tops(building: Building, polygon: Polygon, level: float, size: float) -> Solid | None:
    """A roof through the tops of the cells; None if its triangles do not fill the polygon.

    The sides of the polygon get points at half the distance from which points inside keep away, so
    that they are edges of the Delaunay triangulation (they have empty circles, Gabriel).
    """
    step = max(STEP, 2 * size)
    rings = [_densified(np.array(ring.coords)[:, :2], step) for ring in _rings(polygon)]
    edge = np.concatenate(rings)
    cells = building.cells
    xy = np.stack([cells["x"] + 0.5, cells["y"] + 0.5], axis=1) * size
    tops = cKDTree(xy)
    lattice = (cells["x"] % round(step / size) == 0) & (cells["y"] % round(step / size) == 0)
    inner = xy[lattice]
    if len(inner):
        far, _ = cKDTree(edge).query(inner)
        inside = shapely.contains_xy(polygon, *inner.T)
        inner = inner[inside & (far > step)]
    points = np.concatenate([edge, inner])
    centre = points.mean(axis=0)
    try:
        triangles = Delaunay(points - centre).simplices
    except QhullError:
        return None
    triangles = _inside(points, triangles, polygon)
    number = np.cumsum([0, *(len(ring) for ring in rings)])
    border: Counter[tuple[int, int]] = Counter()
    for low, high in itertools.pairwise(number):
        border.update((k, k + 1 if k + 1 < high else low) for k in range(low, high))
    if _open_edges(triangles) != border:
        return None
    _, nearest = tops.query(points)
    z = np.maximum(cells["top"][nearest], level + LOWEST_ROOF)
    top = [(float(x), float(y), float(h)) for (x, y), h in zip(points, z, strict=True)]
    solid = Solid()
    for triangle in triangles.tolist():
        solid.add(ROOF, [top[k] for k in triangle])
    foot = [(x, y, level) for x, y, _ in top]
    solid.add(GROUND, *(foot[a:b][::-1] for a, b in itertools.pairwise(number)))
    for a, b in itertools.pairwise(number):
        _walls(solid, foot[a:b], top[a:b])
    return solid


def _rings(polygon: Polygon) -> list:
    return [polygon.exterior, *polygon.interiors]


def _densified(ring: NDArray, step: float) -> NDArray:
    """The points of a closed ring, once each, with points between them at most `step` apart."""
    parts = []
    for a, b in itertools.pairwise(ring):
        count = max(1, int(np.ceil(np.hypot(*(b - a)) / step)))
        parts.append(a + (b - a) * np.arange(count)[:, None] / count)
    return np.concatenate(parts)


def _inside(points: NDArray, triangles: NDArray, polygon: Polygon) -> NDArray:
    """The triangles within a polygon, counter-clockwise."""
    corner = points[triangles]
    keep = shapely.contains_xy(polygon, *corner.mean(axis=1).T)
    a, b, c = np.moveaxis(corner, 1, 0)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    keep &= np.abs(area) > 1e-6
    turned = np.where((area < 0)[:, None], triangles[:, ::-1], triangles)
    return np.asarray(turned[keep])


def _open_edges(triangles: NDArray) -> Counter[tuple[int, int]]:
    """The edges of triangles that no other one has in the other direction."""
    edges = Counter((int(t[k]), int(t[(k + 1) % 3])) for t in triangles.tolist() for k in range(3))
    return Counter({(a, b): n for (a, b), n in edges.items() if (b, a) not in edges})
