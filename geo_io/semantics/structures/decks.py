"""Heights of bridges: from their banks, what they cross, and the order of what crosses.

A bridge is often cut into several lines, and each depends on all of them: on the heights of the
ground at the two ends of their chain, and on the clearance above what runs below. Where the banks
are too low for the clearance, the deck rises, and so do the ways that lead to it. All of it depends
on the place and not on the window: lines are followed over bounded ways.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from cachetools import LRUCache
from numpy.typing import NDArray
from shapely.ops import substring

from geo_io.frame import Bounds
from geo_io.legend import codes
from geo_io.semantics.structures.reach import RAMP
from geo_io.semantics.structures.things import Things
from geo_io.structures import KIND, STRUCTURE_FORM, Profile

JOINED = 0.3
"""Metres between the ends of two lines that join."""

LONGEST, PIECES = 3000.0, 32
"""Metres of a chain of lines, and lines of it, that are followed on each side."""

BANK = (0.0, 3.0, 6.0)
"""Metres beyond the end of a bridge at which the ground of its bank is looked up."""

BANK_RISE = 1.5
"""Metres by which the bank beyond the end may be higher than the ground at the end."""

CLEAR = {"road": 4.7, "rail": 5.7, "paved": 2.7, "river": 1.3}
"""Metres between what runs below and the underside of a bridge."""

CLEAR_WATER = 1.3
"""Metres between water and the underside of a bridge."""

SLOPE = {"road": 0.07, "rail": 0.035, "paved": 0.12, "river": 0.01}
"""Rise over run of ways that climb to a bridge."""

STOREY = 5.7
"""Metres by which a bridge above another one is higher."""

VIADUCT = 40.0
"""Metres from which a bridge in a layer above the ground, below which nothing is mapped, crosses
something that is not mapped; shorter ones lie level with their banks."""

UNSEEN = 5.0
"""Clearance of such a bridge, metres."""

GAP = 2.0
"""Metres by which the ground below a bridge is lower than its banks where it crosses a valley."""

ABUTMENT = 0.01
"""Metres below a bridge within which the ground falls away at each of its ends: a wall."""

STEP = 2.0
"""Metres between the places at which rises are computed."""

KEPT = 4096
"""Bridges whose heights are kept."""

WaysIn = Callable[[Bounds], Things]
"""The structures of all sources whose bounds meet others."""

WaterIn = Callable[[Bounds], NDArray]
"""The polygons of water that meet bounds, (n,) object."""

HeightsAt = Callable[[NDArray], NDArray]
"""Heights of the ground at places (n, 2), metres; NaN where there are none."""


def thickness(cover: int) -> float:
    """Return the thickness of the deck of a bridge, metres."""
    return 0.6 if cover == codes()["paved"] else 1.0


@dataclass(frozen=True)
class Ramp:
    """Ground that rises to a bridge.

    Attributes
    ----------
    line : LineString
        From below the bridge outwards, CRS metres.
    form : NDArray () STRUCTURE_FORM
    profile : Profile
        Its rises; levels are those of the ground below.
    key : int
    """

    line: shapely.LineString
    form: NDArray
    profile: Profile
    key: int


@dataclass(frozen=True)
class Deck:
    """The height of a bridge.

    Attributes
    ----------
    axis : LineString
        Along which the profile runs.
    profile : Profile
    ramps : tuple of Ramp
        On the ways beyond the ends of its chain.
    """

    axis: shapely.LineString
    profile: Profile
    ramps: tuple[Ramp, ...]


class Decks:
    """Heights of bridges. Threads may share it.

    Parameters
    ----------
    ways : callable
        Finds structures.
    water : callable
        Finds polygons of water.
    heights : callable or None
        Heights of the ground; None without heights.
    """

    def __init__(self, ways: WaysIn, water: WaterIn, heights: HeightsAt | None) -> None:
        self._ways, self._water, self._heights = ways, water, heights
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, Deck] = LRUCache(KEPT)

    def of(self, shape: shapely.Geometry, form: NDArray) -> Deck:
        """Return the height of a bridge, a line or an area."""
        key = shapely.to_wkb(shape) + form.tobytes()
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            known = self._make(shape, form)
            with self._lock:
                self._kept[key] = known
        return known

    def _make(self, shape: shapely.Geometry, form: NDArray) -> Deck:
        if isinstance(shape, shapely.LineString):
            return self._line(shape, form)
        assert isinstance(shape, shapely.Polygon)  # bridges are lines and areas, in simple parts
        # The outline of a bridge has the height of the longest way over it.
        near = self._ways(shape.bounds)
        lines = near.take(_lines(near) & (near.form["kind"] == KIND["deck"]))
        axis = long_axis(shape)
        inside = np.asarray(shapely.length(shapely.intersection(lines.shape, shape)))
        if len(lines) and inside.max() > 0.4 * axis.length:
            best = np.lexsort((lines.key, -np.round(inside, 2)))[0]
            found = self.of(lines.shape[best], lines.form[best])
            return Deck(found.axis, found.profile, ())
        return self._line(axis, form)

    def _line(self, line: shapely.LineString, form: NDArray) -> Deck:
        chain, first = self.chain(line, KIND["deck"])
        total = chain.length
        ends = self._banks(chain)
        level = self._ground(ends)
        around = self._ways(_padded(chain.bounds, 2.0))
        at, above, wide = self._needs(chain, level, form, around)
        place = np.linspace(0.0, total, max(math.ceil(total / STEP), 1) + 1)
        name = _name_of(int(form["cover"]))
        rise = _rises(place, at, above, wide, SLOPE[name])
        profile = Profile(
            np.array([0.0, total]) - first,
            shapely.get_coordinates(chain)[[0, -1]],
            level,
            place - first,
            rise,
        )
        ramps: list[Ramp] = []
        if np.isnan(form["base"]):  # a skywalk ends in buildings
            for end, up in ((0, rise[0]), (-1, rise[-1])):
                if up > 0.3:
                    ramps += self._ramps(chain, end, float(up), name)
        return Deck(line, profile, tuple(ramps))

    def chain(self, line: shapely.LineString, kind: int) -> tuple[shapely.LineString, float]:
        """Return a line with those of a kind that continue it, and where it begins on them."""
        after, _ = self._follow(line, kind, LONGEST)
        before, _ = self._follow(shapely.reverse(line), kind, LONGEST)
        coordinates = shapely.get_coordinates(line)
        head = before[::-1] if len(before) else np.empty((0, 2))
        chain = shapely.LineString(_distinct(np.concatenate([head, coordinates, after])))
        first = (
            shapely.LineString(_distinct(np.concatenate([head, coordinates[:1]]))).length
            if (len(head))
            else 0.0
        )
        return chain, first

    def _follow(self, line: shapely.LineString, kind: int, longest: float) -> tuple[NDArray, float]:
        """Return the coordinates (n, 2) of what continues a line of a kind from its last point."""
        seen = {_undirected(line)}
        places = shapely.get_coordinates(line)
        found: list[NDArray] = []
        length = 0.0
        for _ in range(PIECES):
            if length > longest:
                break
            node, heading = places[-1], places[-1] - places[-2]
            best, most = None, 0.0
            for other in self._joining(node, kind):
                if _undirected(shapely.LineString(other)) in seen:
                    continue
                step = other[1] - other[0]
                straight = float(step @ heading) / max(
                    float(np.hypot(*step) * np.hypot(*heading)), 1e-9
                )
                if straight > most:
                    best, most = other, straight
            if best is None:
                break
            seen.add(_undirected(shapely.LineString(best)))
            places = best
            found.append(best)
            length += shapely.LineString(best).length
        return (np.concatenate(found) if found else np.empty((0, 2))), length

    def _joining(self, node: NDArray, kind: int) -> list[NDArray]:
        """Return the lines of a kind that begin or end at a place, from there, in a fixed order."""
        x, y = node.tolist()
        near = self._ways((x - JOINED, y - JOINED, x + JOINED, y + JOINED))
        near = near.take(_lines(near) & (near.form["kind"] == kind))
        near = near.take(np.argsort(near.key, kind="stable"))
        out = []
        for shape in near.shape:
            places = shapely.get_coordinates(shape)
            if np.hypot(*(places[0] - node)) <= JOINED:
                out.append(places)
            elif np.hypot(*(places[-1] - node)) <= JOINED:
                out.append(places[::-1])
        return out

    def _ground(self, places: NDArray) -> NDArray:
        """Return heights (n,) of the banks, the highest of `BANK` places each (n, k, 2)."""
        if self._heights is None:
            return np.full(len(places), np.nan)
        found = self._heights(places.reshape(-1, 2)).reshape(len(places), -1)
        return np.minimum(np.fmax.reduce(found, axis=1), found[:, 0] + BANK_RISE)

    @staticmethod
    def _banks(chain: shapely.LineString) -> NDArray:
        """Return the places (2, k, 2) at the ends of a chain and beyond."""
        xy = shapely.get_coordinates(chain)
        out = []
        for end, inner in ((xy[0], xy[1]), (xy[-1], xy[-2])):
            step = (end - inner) / max(float(np.hypot(*(end - inner))), 1e-9)
            out.append(end + np.array(BANK)[:, None] * step)
        return np.array(out)

    def _needs(
        self, chain: shapely.LineString, level: NDArray, form: NDArray, around: Things
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Return what a bridge must clear: places along it, rises there, and half widths, metres.

        Rises are those of the top of the deck above the straight line between its banks.
        """
        total = chain.length
        thick = thickness(int(form["cover"]))
        own = _layer(form)
        at: list[float] = []
        clear: list[float] = []
        wide: list[float] = []
        kinds = np.isin(around.form["kind"], [KIND["way"], KIND["deck"], KIND["passage"]])
        others = around.take(kinds & _lines(around))
        others = others.take(shapely.intersects(others.shape, chain))
        for shape, other in zip(others.shape, others.form, strict=True):
            is_deck = other["kind"] == KIND["deck"]
            if is_deck and _layer(other) >= own:
                continue
            ends = shapely.get_coordinates(shape)[[0, -1]]
            for place in shapely.get_coordinates(shapely.intersection(shape, chain)):
                s = float(shapely.line_locate_point(chain, shapely.Point(place)))
                # What begins at the bridge joins it, and does not run below.
                joins = np.hypot(*(ends - place).T).min() < JOINED
                if joins or s < 1.0 or s > total - 1.0:
                    continue
                below = STOREY * _layer(other) if is_deck else 0.0
                name = _name_of(int(other["cover"]))
                at.append(s)
                clear.append(below + CLEAR[name] + thick)
                half = 0.5 * float(other["width"]) if np.isfinite(other["width"]) else 2.0
                wide.append(half + 1.0)
        wet = self._water(chain.bounds)
        for part in _parts(shapely.intersection(wet, chain)):
            ends_of = np.sort(
                [
                    shapely.line_locate_point(chain, shapely.Point(xy))
                    for xy in shapely.get_coordinates(part)[[0, -1]]
                ]
            )
            first, last = ends_of.tolist()
            for along in np.linspace(first, last, max(math.ceil((last - first) / 10.0), 1) + 1):
                at.append(float(along))
                clear.append(CLEAR_WATER + thick)
                wide.append(0.0)
        if np.isfinite(form["base"]):
            at += np.linspace(0.0, total, 5).tolist()
            clear += [float(form["base"]) + thick] * 5
            wide += [total] * 5
        elif not at:
            deep = self._depth(chain, level)
            if deep < GAP and (form["viaduct"] or (own > 0 and total > VIADUCT)):
                at.append(0.5 * total)
                clear.append(UNSEEN * max(own, 1.0) + thick)
                wide.append(0.2 * total)
        places, above = np.array(at), np.array(clear)
        if len(places) and self._heights is not None and np.isfinite(level).all():
            xy = shapely.get_coordinates(shapely.line_interpolate_point(chain, places))
            ground = self._heights(xy)
            line = level[0] + (level[1] - level[0]) * places / total
            if np.isfinite(form["base"]):
                ground = np.maximum(ground, line)
            above = above + np.where(np.isfinite(ground), ground - line, 0.0)
        return places, above, np.array(wide)

    def _depth(self, chain: shapely.LineString, level: NDArray) -> float:
        """Return how far the ground lies below the line between the banks, metres."""
        if self._heights is None or not np.isfinite(level).all():
            return 0.0
        share = np.linspace(0.05, 0.95, 13)
        xy = shapely.get_coordinates(shapely.line_interpolate_point(chain, share, normalized=True))
        deep = level[0] + (level[1] - level[0]) * share - self._heights(xy)
        return float(np.nanmax(deep)) if np.isfinite(deep).any() else 0.0

    def _ramps(self, chain: shapely.LineString, end: int, up: float, name: str) -> list[Ramp]:
        """Return the ramps on the ways that go on where a chain ends."""
        node = shapely.get_coordinates(chain)[end]
        length = min(up / SLOPE[name], RAMP)
        inner = chain if end == 0 else shapely.reverse(chain)
        slope = shapely.get_coordinates(substring(inner, 0.0, ABUTMENT))[::-1]
        x, y = node.tolist()
        near = self._ways((x - JOINED, y - JOINED, x + JOINED, y + JOINED))
        river = codes()["river"]
        kind = np.isin(near.form["kind"], [KIND["way"], KIND["passage"]])
        near = near.take(_lines(near) & kind & (near.form["cover"] != river))
        near = near.take(np.argsort(near.key, kind="stable"))
        out = []
        for shape, form, key in zip(near.shape, near.form, near.key.tolist(), strict=True):
            for line in _outward(shape, node):
                reach = line
                if line.length < length:
                    more, _ = self._follow(line, KIND["way"], length)
                    if len(more):
                        both = np.concatenate([shapely.get_coordinates(line), more])
                        reach = shapely.LineString(_distinct(both))
                cut = substring(reach, 0.0, length)
                if cut.geom_type != "LineString" or cut.length < 1.0:
                    continue
                own = np.zeros((), STRUCTURE_FORM)
                for field in STRUCTURE_FORM.names or ():
                    own[field] = form[field]
                own["kind"] = KIND["ramp"]
                both = np.concatenate([slope, shapely.get_coordinates(cut)[1:]])
                path = shapely.LineString(_distinct(both))
                top = shapely.LineString(slope).length
                flat = Profile(
                    np.array([0.0, path.length]),
                    both[[0, -1]],
                    np.zeros(2),
                    np.array([0.0, top, max(path.length, top + 1e-3)]),
                    np.array([0.0, up, 0.0]),
                )
                out.append(Ramp(path, own, flat, key))
        return out


def _layer(form: NDArray) -> float:
    """Return the layer of a structure; that of a bridge without one is 1."""
    if np.isfinite(form["layer"]) and form["layer"] != 0:
        return float(form["layer"])
    return 1.0 if form["kind"] == KIND["deck"] else 0.0


def _name_of(cover: int) -> str:
    """Return the class of what runs over a structure."""
    land = codes()
    return next((name for name in SLOPE if land[name] == cover), "paved")


def _rises(place: NDArray, at: NDArray, above: NDArray, wide: NDArray, slope: float) -> NDArray:
    """Return the least rises that clear all needs and are nowhere steeper than `slope`, (n,)."""
    rise = np.zeros(len(place))
    for s, up, half in zip(at.tolist(), above.tolist(), wide.tolist(), strict=True):
        rise = np.maximum(rise, up - slope * np.maximum(np.abs(place - s) - half, 0.0))
    return rise


def long_axis(shape: shapely.Polygon) -> shapely.LineString:
    """Return the line between the middles of the short sides of an area's smallest rectangle."""
    box = shapely.oriented_envelope(shape)
    if box.geom_type != "Polygon":
        west, south, east, north = shape.bounds
        return shapely.LineString([(west, south), (east, north)])
    corner = shapely.get_coordinates(box)[:4]
    sides = np.hypot(*(np.roll(corner, -1, axis=0) - corner).T)
    if sides[0] > sides[1]:
        corner = np.roll(corner, -1, axis=0)
    first, second = 0.5 * (corner[0] + corner[1]), 0.5 * (corner[2] + corner[3])
    # From the west, else the south: the rectangle may begin at any corner.
    if tuple(second) < tuple(first):
        first, second = second, first
    return shapely.LineString([first, second])


def _lines(things: Things) -> NDArray:
    return np.asarray(shapely.get_dimensions(things.shape) == 1)


def _undirected(line: shapely.LineString) -> bytes:
    """Return a line as bytes, the same in both directions."""
    return min(bytes(shapely.to_wkb(line)), bytes(shapely.to_wkb(shapely.reverse(line))))


def _distinct(xy: NDArray) -> NDArray:
    """Return places without those that repeat the one before."""
    keep = np.ones(len(xy), bool)
    keep[1:] = np.hypot(*np.diff(xy, axis=0).T) > 1e-9
    return xy[keep] if keep.sum() > 1 else xy[[0, -1]]


def _parts(shapes: NDArray) -> NDArray:
    """Return the lines among geometries, with a length."""
    parts = shapely.get_parts(np.asarray(shapes))
    parts = parts[shapely.get_dimensions(parts) == 1]
    return np.asarray(parts[shapely.length(parts) > 0.2])


def _outward(line: shapely.LineString, node: NDArray) -> list[shapely.LineString]:
    """Return the parts of a line that lead away from a place on it."""
    xy = shapely.get_coordinates(line)
    if np.hypot(*(xy[0] - node)) <= JOINED:
        return [line]
    if np.hypot(*(xy[-1] - node)) <= JOINED:
        return [shapely.reverse(line)]
    near = np.hypot(*(xy - node).T)
    k = int(near.argmin())
    if near[k] > JOINED:
        return []
    return [shapely.LineString(xy[k:]), shapely.LineString(xy[: k + 1][::-1])]


def _padded(bounds: Bounds, by: float) -> Bounds:
    return bounds[0] - by, bounds[1] - by, bounds[2] + by, bounds[3] + by
