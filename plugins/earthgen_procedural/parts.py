"""Parts of buildings: on whose ground they stand, what hangs in the air, and complex roofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.terrain.filters import FIXED
from earthgen_procedural.footprints import Outlines, outlines, rasterise
from geo_io.frame import Frame
from geo_io.layers import Buildings

WHOLE = 60.0
"""Metres: largest diagonal of footprints that every window they touch reads completely."""

GAP = 0.75
"""Voxels: a lower gap between two solids is closed, since no voxel fits in."""

STEP = 1.0
"""Metres between the points of outlines and ridges on which complex roofs are spanned."""


@dataclass(frozen=True)
class Stacked:
    """What is built on the cells of a window: a solid, and another one that hangs above it.

    Attributes
    ----------
    top : NDArray (ny, nx) float32
        Absolute height of the highest roof, metres; NaN without a building.
    object : NDArray (ny, nx) uint32
        Its object number; 0 without a building.
    under : NDArray (ny, nx) float32
        Absolute height of the underside of the highest solid; NaN where it stands on the ground.
    lower : NDArray (ny, nx) float32
        Absolute top of the solid below the underside; NaN where there is open ground.
    lower_object : NDArray (ny, nx) uint32
        Object number of that solid.
    """

    top: NDArray
    object: NDArray
    under: NDArray
    lower: NDArray
    lower_object: NDArray


def stack_solids(
    top: NDArray,
    number: NDArray,
    ground: NDArray,
    voxel_size: float,
    solids: list[tuple[NDArray, NDArray, NDArray]],
) -> Stacked:
    """Put solids that hang in the air above what stands on the ground.

    A column keeps two solids. Where there are more, the lowest gaps are closed.

    Parameters
    ----------
    top, number : NDArray (ny, nx)
        Tops and object numbers of what stands on the ground; NaN and 0 for nothing.
    ground : NDArray (ny, nx) float32
        Absolute height of the ground, metres.
    voxel_size : float
        Metres.
    solids : list of three NDArray (ny, nx)
        Tops, object numbers and undersides, in any order: the result does not depend on it.
    """
    none = np.full(top.shape, np.nan, np.float32)
    result = Stacked(top.copy(), number.copy(), none, none.copy(), np.zeros_like(number))
    if not solids:
        return result
    tops, numbers, under = (np.stack([solid[n] for solid in solids]) for n in range(3))
    _stack(
        top,
        number,
        ground,
        np.float32(GAP * voxel_size),
        tops,
        numbers,
        under,
        result.top,
        result.object,
        result.under,
        result.lower,
        result.lower_object,
    )
    return result


@numba.njit(cache=True, nogil=True)
def _stack(  # type: ignore[no-untyped-def]
    standing, standing_number, ground, gap, tops, numbers, under,
    top, number, bottom, lower, lower_number,
):  # fmt: skip
    count, rows, cols = tops.shape
    low, high = np.empty(count + 1, np.float32), np.empty(count + 1, np.float32)
    name = np.empty(count + 1, np.uint32)
    for row in range(rows):
        for col in range(cols):
            n = 0
            for k in range(count):
                if np.isnan(tops[k, row, col]):
                    continue
                # Sorted by underside, then top, then number.
                at = n
                while at > 0 and (
                    low[at - 1] > under[k, row, col]
                    or (
                        low[at - 1] == under[k, row, col]
                        and (
                            high[at - 1] > tops[k, row, col]
                            or (
                                high[at - 1] == tops[k, row, col]
                                and name[at - 1] > numbers[k, row, col]
                            )
                        )
                    )
                ):
                    low[at], high[at], name[at] = low[at - 1], high[at - 1], name[at - 1]
                    at -= 1
                low[at], high[at] = under[k, row, col], tops[k, row, col]
                name[at] = numbers[k, row, col]
                n += 1
            if n == 0:
                continue
            # The solid from the ground up, then merged ones above it: (low, high, name) of each.
            here = standing[row, col]
            floor = ground[row, col] if np.isnan(here) else here
            first = standing_number[row, col]
            grounded = not np.isnan(here)
            m = 0
            for k in range(n):
                if m == 0 and low[k] - floor < gap:
                    if high[k] > floor:
                        floor, first, grounded = high[k], name[k], True
                elif m > 0 and low[k] - high[m - 1] < gap:
                    if high[k] > high[m - 1]:
                        high[m - 1], name[m - 1] = high[k], name[k]
                else:
                    low[m], high[m], name[m] = low[k], high[k], name[k]
                    m += 1
            while m > 1:
                # The lowest of the gaps among what hangs.
                best = 0
                for k in range(m - 1):
                    if low[k + 1] - high[k] < low[best + 1] - high[best]:
                        best = k
                high[best], name[best] = high[best + 1], name[best + 1]
                for k in range(best + 1, m - 1):
                    low[k], high[k], name[k] = low[k + 1], high[k + 1], name[k + 1]
                m -= 1
            if m == 0:
                if grounded:
                    top[row, col], number[row, col] = floor, first
                continue
            top[row, col], number[row, col], bottom[row, col] = high[0], name[0], low[0]
            if grounded:
                lower[row, col], lower_number[row, col] = floor, first


def apart(buildings: Buildings) -> list[NDArray]:
    """Divide buildings into groups in which no two overlap: lists of indices.

    Which group a building is in does not matter to what is built.
    """
    return separate(buildings.footprint)


def separate(footprint: NDArray) -> list[NDArray]:
    """Divide polygons (n,) into groups in which no two overlap: lists of indices."""
    n = len(footprint)
    if n == 0:
        return []
    first, second = shapely.STRtree(footprint).query(footprint, predicate="intersects")
    first, second = first[first > second], second[first > second]
    overlaps = shapely.area(shapely.intersection(footprint[first], footprint[second])) > 0
    first, second = first[overlaps], second[overlaps]
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    start = np.searchsorted(first, np.arange(n + 1))
    group = np.zeros(n, np.int64)
    for k in range(n):
        taken = set(group[second[start[k] : start[k + 1]]].tolist())
        while group[k] in taken:
            group[k] += 1
    return [np.flatnonzero(group == g) for g in range(group.max() + 1)]


def under_parts(frame: Frame, standing: Buildings, hanging: Buildings, owner: NDArray) -> NDArray:
    """Return the cells of whole footprints above which their own parts hang, (ny, nx) bool.

    Where a building has parts its footprint is not built, also where the part hangs in the air.
    """
    result = np.zeros(frame.shape, bool)
    parts = np.flatnonzero(
        hanging.form["part"] & np.array([site is not None for site in hanging.site], bool)
    )
    if not len(parts):
        return result
    rows = {
        polygon.wkb: k
        for k, polygon in enumerate(standing.footprint)
        if not standing.form["part"][k]
    }
    for group in apart(hanging.take(parts)):
        chosen = parts[group]
        whole = np.array([rows.get(hanging.site[k].wkb, -2) for k in chosen], np.int64)
        over = rasterise(outlines(hanging.footprint[chosen]), frame)
        result |= (over >= 0) & (whole[np.maximum(over, 0)] == owner)
    return result


def site_bases(
    frame: Frame, lines: Outlines, site: NDArray, fixed: NDArray, base: NDArray
) -> NDArray:
    """Return the base of buildings; parts stand on the mean ground of the whole building.

    Parameters
    ----------
    frame : Frame
        The window.
    lines : Outlines
        n footprints.
    site : NDArray (n,) object
        Whole buildings of parts, None for others.
    fixed : NDArray (ny, nx) int64
        Heights of the terrain in units of 1 / FIXED metres.
    base : NDArray (n,)
        Bases of the footprints alone, metres.

    Returns
    -------
    NDArray (n,)
        Metres; NaN where a building is too large for its mean.
    """
    base, known = base.copy(), dict[bytes, float]()
    for k, polygon in enumerate(site):
        if polygon is None:
            continue
        own = lines.xy[lines.ring[lines.polygon[k]] : lines.ring[lines.polygon[k] + 1]]
        west, south, east, north = polygon.bounds
        corner = np.minimum(own.min(axis=0), (west, south))
        if np.hypot(*(np.maximum(own.max(axis=0), (east, north)) - corner)) > WHOLE:
            base[k] = np.nan
            continue
        place = polygon.wkb
        if place not in known:
            known[place] = _mean_ground(frame, polygon, fixed)
        base[k] = known[place]
    return base


def _mean_ground(frame: Frame, polygon: shapely.Polygon, fixed: NDArray) -> float:
    """Return the mean terrain under a polygon in metres; NaN if it is not on the frame."""
    part = frame.crop(polygon.bounds)
    if part is None:
        return np.nan
    shape = np.empty(1, object)
    shape[0] = polygon
    inside = rasterise(outlines(shape), part) == 0
    count = int(inside.sum())
    if count == 0:
        return np.nan
    return float(int(fixed[frame.slices(part)][inside].sum()) / count / FIXED)


def ridged_share(
    lines: Outlines, k: int, ridges: shapely.MultiLineString, x: NDArray, y: NDArray
) -> NDArray:
    """Return the height of a complex roof as a share of its rise, (m,) float64.

    The outline is at 0 and the ridges at 1; between them triangles are spanned. Edges are straight
    between the outline, the ridges, and the places where the roof without them has a height.

    Parameters
    ----------
    lines : Outlines
        Footprints, of which the k-th is meant.
    k : int
        Its number.
    ridges : MultiLineString
        Ridges within the footprint, CRS metres, and edges, whose z is 0.
    x, y : NDArray (m,)
        Places on the footprint, CRS metres.
    """
    from scipy.interpolate import LinearNDInterpolator  # takes 0.3 s, and few maps have ridges

    first, last = lines.polygon[k], lines.polygon[k + 1]
    rings = [lines.xy[lines.ring[r] : lines.ring[r + 1]] for r in range(first, last)]
    origin = rings[0][0]
    every = shapely.get_parts(ridges)
    level = np.array([shapely.get_coordinates(one, include_z=True)[0, 2] != 0 for one in every])
    every = shapely.transform(every, lambda xy: xy - origin)
    line = shapely.segmentize(shapely.MultiLineString(every[level].tolist()), STEP)
    top = shapely.get_coordinates(line)
    # An outline rises to a ridge that ends on it, from the corners beside: a gable.
    low = [_gabled_ring(ring - origin, line) for ring in rings]
    points = np.concatenate([top, *(xy for xy, _ in low)])
    share = np.concatenate([np.ones(len(top)), *(up for _, up in low)])
    points, kept = np.unique(np.round(points, 3), axis=0, return_index=True)
    places = np.stack([x - origin[0], y - origin[1]], axis=1)
    span = LinearNDInterpolator(points, share[kept])
    edges = [_edge(edge, span) for edge in every[~level]]
    if edges:
        # Beside an edge the planes without it are not those of the roof.
        broken = shapely.union_all(every[~level])
        near = shapely.distance(broken, shapely.points(points)) < 0.5 * STEP
        fixed = (share[kept] == 0) | (share[kept] == 1) | ~near
        points = np.concatenate([points[fixed], *(xy for xy, _ in edges)])
        share = np.concatenate([share[kept][fixed], *(up for _, up in edges)])
        points, kept = np.unique(np.round(points, 3), axis=0, return_index=True)
        span = LinearNDInterpolator(points, share[kept])
    found = span(places)
    return np.nan_to_num(np.asarray(found), nan=0.0)


def _edge(line: shapely.LineString, span: Callable[[NDArray], NDArray]) -> tuple[NDArray, NDArray]:
    """Return points along an edge of a roof, and their heights as shares of the rise.

    It is straight between its ends, whose heights are those of the roof without it.
    """
    ends = shapely.get_coordinates(line)[[0, -1]]
    high = np.clip(np.nan_to_num(span(ends), nan=0.0), 0.0, 1.0)
    xy = shapely.get_coordinates(shapely.segmentize(line, STEP))
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    return xy, np.interp(along, [0.0, along[-1]], high)


def _gabled_ring(ring: NDArray, ridges: shapely.Geometry) -> tuple[NDArray, NDArray]:
    """Return points along a ring, and their heights as shares of the rise."""
    ends = shapely.get_coordinates(ridges)
    points, shares = [], []
    for a, b in pairwise(ring):
        edge, length = b - a, float(np.hypot(*(b - a)))
        if length < 1e-6:
            continue
        along = ((ends - a) @ edge) / length
        aside = np.abs((ends - a) @ np.array([-edge[1], edge[0]])) / length
        on = np.unique(
            np.round(along[(aside < 0.05) & (along > -0.05) & (along < length + 0.05)], 3)
        )
        steps = np.unique(
            np.concatenate([np.linspace(0, length, max(int(np.ceil(length / STEP)), 1) + 1), on])
        )
        knots = np.concatenate([[0.0], on[(on > 0.05) & (on < length - 0.05)], [length]])
        height = np.concatenate([[0.0], np.ones(len(knots) - 2), [0.0]])
        height[0] = float((on <= 0.05).any())
        height[-1] = float((on >= length - 0.05).any())
        points.append(a + steps[:, None] / length * edge)
        shares.append(np.interp(steps, knots, height))
    return np.concatenate(points), np.concatenate(shares)
