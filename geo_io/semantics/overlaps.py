"""Which building stands where footprints overlap: one rule of the data, and never a draw.

1. A part of a building (building:part) stands before a whole footprint. A footprint that parts
   cover is not built; one that they cover in part is built where they are not.
2. Of whole footprints the one with more detail stands: with a height or a roof's shape before one
   without. Of equal detail that of the later source, then the smaller one, then the taller one.
3. Of parts that of the later source stands, then the taller one.

A footprint that others of a higher rank and another source cover for the most part is the same
building, drawn twice, and is left out whole. What hangs in the air takes nobody's place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.layers import ROOF_NUMBER, Buildings

SMALL = 60.0
"""Largest diagonal, in metres, of footprints that are left out whole, and of complex roofs. Larger
ones yield cell by cell: what a window shows must not depend on places far outside."""

CONTEXT = 2 * SMALL
"""Metres around a window within which other footprints decide on those within it."""

COVERED_BY_PARTS = 0.9
"""Share of a footprint that parts must cover so that it is not built."""

COVERED_BY_OTHERS = 0.5
"""Share of a footprint that those of other sources must cover so that it is the same building."""

SAME_CENTRE = 0.5
"""Metres between the centroids of two footprints that may be the same building."""

SAME_OVERLAP = 0.99
"""Share of their union that two footprints of the same building have in common."""


@dataclass(frozen=True)
class Candidates:
    """Buildings of all sources, and the number of the source of each, (n,) int."""

    buildings: Buildings
    source: NDArray


def rank_buildings(found: Candidates) -> NDArray:
    """Return the place of each building in painting order, (n,) int: the higher one stands."""
    every = found.buildings
    part = every.form["part"]
    height = np.nan_to_num(every.height, nan=-1.0)
    known = np.isfinite(every.height) | np.isfinite(every.form["eaves"])
    detail = known.astype(int) + (every.form["roof"] != ROOF_NUMBER["unknown"])
    area = shapely.area(every.footprint)
    bounds = shapely.bounds(every.footprint).reshape(-1, 4)
    order = np.lexsort(
        (
            *bounds.T[::-1],
            every.key,
            height,
            np.where(part, height, -area),
            found.source,
            np.where(part, 0, detail),
            part,
        )
    )
    rank = np.empty(len(every), np.int64)
    rank[order] = np.arange(len(every))
    return rank


def left_out(found: Candidates, rank: NDArray) -> NDArray:
    """Return which buildings others replace whole, (n,) bool.

    It depends on the buildings within `CONTEXT` alone.
    """
    every, n = found.buildings, len(found.buildings)
    if n < 2:
        return np.zeros(n, bool)
    hangs, part = every.hangs, every.form["part"]
    west, south, east, north = shapely.bounds(every.footprint).T
    small = ~(hangs & part) & (np.hypot(east - west, north - south) <= SMALL)
    repeated = _repeated(every, rank)
    loser, winner = _pairs(found, rank, small, hangs, part)
    if len(loser) == 0:
        return repeated
    common = shapely.area(shapely.intersection(every.footprint[loser], every.footprint[winner]))
    # Parts that hang beside a building take away nothing from it.
    own = ~hangs[winner] | (common >= 0.5 * shapely.area(every.footprint[winner]))
    loser, winner, common = loser[own], winner[own], common[own]
    yields = _covered(found, loser, winner, common, ~repeated)
    # Only those that are not left out themselves may replace others: no place stays empty.
    return repeated | (yields & _covered(found, loser, winner, common, ~repeated & ~yields))


def _pairs(
    found: Candidates, rank: NDArray, small: NDArray, hangs: NDArray, part: NDArray
) -> tuple[NDArray, NDArray]:
    """Return pairs of buildings that meet, of which the second may replace the first."""
    footprint = found.buildings.footprint
    # Neighbours of one source without parts need no look: most of a town.
    if not part.any() and (found.source == found.source[0]).all():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    losers = np.flatnonzero(small)
    first, second = shapely.STRtree(footprint).query(footprint[losers], predicate="intersects")
    first = losers[first]
    fits = (rank[second] > rank[first]) & (~hangs[second] | part[second])
    of_parts = part[second] & ~part[first]
    fits &= of_parts | ((found.source[first] != found.source[second]) & ~hangs[first])
    return first[fits], second[fits]


def _covered(
    found: Candidates, loser: NDArray, winner: NDArray, common: NDArray, stands: NDArray
) -> NDArray:
    """Return which buildings those that stand among the winners cover, (n,) bool."""
    footprint, n = found.buildings.footprint, len(found.buildings)
    area = shapely.area(footprint)
    result = np.zeros(n, bool)
    same = found.source[loser] == found.source[winner]
    for chosen, share in ((same, COVERED_BY_PARTS), (~same, COVERED_BY_OTHERS)):
        use = chosen & stands[winner]
        total = np.bincount(loser[use], common[use], n)
        for k in np.flatnonzero((total >= share * area) & (total > 0)):
            by = winner[use & (loser == k)]
            if len(by) > 1:  # Winners may overlap each other.
                union = shapely.union_all(footprint[by])
                result[k] |= (
                    shapely.area(shapely.intersection(footprint[k], union)) >= share * area[k]
                )
            else:
                result[k] = True
    return result


def _repeated(every: Buildings, rank: NDArray) -> NDArray:
    """Return which buildings are the same as one of a higher rank, (n,) bool."""
    centre = shapely.centroid(every.footprint)
    first, second = shapely.STRtree(centre).query(centre, predicate="dwithin", distance=SAME_CENTRE)
    lower = rank[first] < rank[second]
    first, second = first[lower], second[lower]
    level = (every.form["base"][first] == every.form["base"][second]) & (
        every.form["open"][first] == every.form["open"][second]
    )
    first, second = first[level], second[level]
    common = shapely.area(shapely.intersection(every.footprint[first], every.footprint[second]))
    union = shapely.area(every.footprint[first]) + shapely.area(every.footprint[second]) - common
    repeated = np.zeros(len(every), bool)
    repeated[first[common >= SAME_OVERLAP * union]] = True
    return repeated


def with_ridges(buildings: Buildings, lines: NDArray) -> Buildings:
    """Return buildings with the ridges, (k,) LineStrings, that lie on their complex roofs.

    Lines whose z is 0 are edges, where planes of a roof meet. A roof of no known shape is complex
    if ridges lie on it.
    """
    if not len(lines):
        return buildings
    shape = buildings.form["roof"]
    may_have = np.isin(shape, [ROOF_NUMBER["complex"], ROOF_NUMBER["unknown"]])
    met = np.unique(shapely.STRtree(buildings.footprint).query(lines)[1])
    ridges, form = buildings.ridges.copy(), buildings.form.copy()
    for k in met[may_have[met]]:
        footprint = buildings.footprint[k]
        west, south, east, north = footprint.bounds
        if np.hypot(east - west, north - south) > SMALL:
            continue
        own = lines[shapely.covers(shapely.buffer(footprint, 0.1), lines)]
        # Edges alone say nothing of heights.
        if len(own) and (shapely.get_coordinates(own, include_z=True)[:, 2] != 0).any():
            # Sorted, so that blocks and files may hold them in any order.
            unique = sorted({line.wkb: line for line in own}.items())
            ridges[k] = shapely.MultiLineString([line for _, line in unique])
            form["roof"][k] = ROOF_NUMBER["complex"]
    return replace(buildings, ridges=ridges, form=form)


def with_sites(buildings: Buildings) -> Buildings:
    """Return buildings whose parts know the footprint of the whole building they belong to.

    It is the one that covers most of a part, and at least half.
    """
    part = buildings.form["part"]
    parts, wholes = np.flatnonzero(part), np.flatnonzero(~part & ~buildings.hangs)
    if not len(parts) or not len(wholes):
        return buildings
    footprint = buildings.footprint
    first, second = shapely.STRtree(footprint[wholes]).query(
        footprint[parts], predicate="intersects"
    )
    first, second = parts[first], wholes[second]
    share = shapely.area(shapely.intersection(footprint[first], footprint[second]))
    share = share / np.maximum(shapely.area(footprint[first]), 1e-9)
    site = buildings.site.copy()
    # The last written has the largest share, and of equal shares the smallest footprint.
    for k in np.lexsort((-shapely.area(footprint[second]), np.round(share, 6))):
        if share[k] >= 0.5:
            site[first[k]] = footprint[second[k]]
    return replace(buildings, site=site)
