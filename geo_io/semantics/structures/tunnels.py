"""Where tunnels and culverts run in the open: their ends before a slope, and valleys they cross.

A map says that a way is in a tunnel, and rarely how deep. Its height is taken for that of the
straight line between the ground at both ends of its chain of lines. It is hidden where the ground
lies over that line; where it does not, though it does elsewhere, the mapped tunnel is longer than
the real one, and the way is shown. Under level ground nothing says that the map is wrong, and all
of it stays hidden, unless the map puts it in a layer at or above the ground.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray
from shapely.ops import substring

from geo_io.legend import codes

COVER = {"river": 0.5}
"""Metres of ground over the line between its ends that hide a way; `COVER_ELSE` for the others."""

COVER_ELSE = 1.0

HILL = {"river": 1.5}
"""Metres of ground over a tunnel somewhere from which it is one through a hill or an embankment;
`HILL_ELSE` for the others."""

HILL_ELSE = 4.0

OPEN_END = 60.0
"""Metres that an end in a layer below the ground may run in the open; a longer one is a tunnel
under level ground that begins before the hill."""

STEP = 2.0
"""Metres between the places at which the ground is looked up."""

LEAST = 3.0
"""Metres of way in the open that are worth showing."""

KEPT = 4096
"""Tunnels whose open parts are kept."""

Chain = Callable[[shapely.LineString], tuple[shapely.LineString, float]]
"""Returns a line with the tunnels that continue it, and where it begins on them, metres."""


class Tunnels:
    """Open parts of tunnels. Threads may share it.

    Parameters
    ----------
    chain : callable
        Finds the tunnels that continue one.
    heights : callable or None
        Heights of the ground at places (n, 2), metres; None without heights, and all is hidden.
    """

    def __init__(self, chain: Chain, heights: Callable[[NDArray], NDArray] | None) -> None:
        self._chain, self._heights = chain, heights
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, list[shapely.LineString]] = LRUCache(KEPT)

    def open(self, line: shapely.Geometry, form: NDArray) -> list[shapely.LineString]:
        """Return the parts of a tunnel that run in the open, in the order of its line.

        Parameters
        ----------
        line : LineString
            The tunnel, CRS metres.
        form : NDArray () STRUCTURE_FORM
            What the map says of it.
        """
        if self._heights is None or not isinstance(line, shapely.LineString):
            return []
        key = shapely.to_wkb(line) + form.tobytes()
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = self._find(line, form, self._heights)
            with self._lock:
                self._kept[key] = known
        return known

    def _find(
        self, line: shapely.LineString, form: NDArray, heights: Callable[[NDArray], NDArray]
    ) -> list[shapely.LineString]:
        chain, first = self._chain(line)
        total = chain.length
        if total < LEAST:
            return []
        at = np.linspace(0.0, total, max(math.ceil(total / STEP), 2) + 1)
        ground = heights(shapely.get_coordinates(shapely.line_interpolate_point(chain, at)))
        if not np.isfinite(ground[[0, -1]]).all():
            return []
        over = ground - (ground[0] + (ground[-1] - ground[0]) * at / total)
        name = "river" if form["cover"] == codes()["river"] else ""
        shown = in_the_open(
            at,
            over,
            float(form["layer"]),
            COVER.get(name, COVER_ELSE),
            HILL.get(name, HILL_ELSE),
        )
        out = []
        for start, stop in _runs(at, shown):
            low, high = max(start - first, 0.0), min(stop - first, line.length)
            if high - low >= LEAST:
                part = substring(line, low, high)
                assert isinstance(part, shapely.LineString)
                out.append(part)
        return out


def in_the_open(at: NDArray, over: NDArray, layer: float, cover: float, hill: float) -> NDArray:
    """Return where a way that is mapped as a tunnel runs in the open, (n,) bool.

    Parameters
    ----------
    at : NDArray (n,) float64
        Places along it, metres from its start.
    over : NDArray (n,) float64
        Metres by which the ground lies over the line between its ends; NaN where it is unknown.
    layer : float
        What the map says; NaN for nothing.
    cover, hill : float
        Metres of ground that hide it, and that show that it runs through a hill.
    """
    free = over < cover  # where the ground is unknown, the map is believed
    if layer >= 0:
        return np.asarray(free)
    if not np.nanmax(over) >= hill:
        return np.zeros(len(at), bool)
    shown = np.zeros(len(at), bool)
    if np.isnan(layer):
        shown |= over < -cover
    longest = OPEN_END if layer < 0 else np.inf
    covered = np.flatnonzero(~free)
    first, last = int(covered[0]), int(covered[-1])
    if at[first] - at[0] <= longest:
        shown[:first] = True
    if at[-1] - at[last] <= longest:
        shown[last + 1 :] = True
    return shown


def _runs(at: NDArray, shown: NDArray) -> list[tuple[float, float]]:
    """Return the first and the last place of each run of places that are shown."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shown.astype(np.int8), [0]])))
    middle = 0.5 * (at[1:] + at[:-1])
    ends = np.concatenate([[at[0]], middle, [at[-1]]])
    return [(float(ends[a]), float(ends[b])) for a, b in zip(edges[::2], edges[1::2], strict=True)]
