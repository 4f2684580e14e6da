"""What is painted or laid on the ground: lines of pitches, parking bays, rails, and pools.

Lines are thinner than voxels: a cell takes the share of its width that a line covers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.terrain.cover import class_code, is_class, on_surface
from earthgen_procedural.footprints import outlines, rasterise
from earthgen_procedural.trace import trace
from geo_io.frame import Frame
from geo_io.structures import ORDERS, SPORTS, Structures

LINE, BAY_LINE = 0.12, 0.1
"""Widths of the lines of pitches and of parking bays, metres."""

WHITE = np.array([232.0, 232.0, 226.0], np.float32)
CLAY, HARD = np.array([176.0, 98.0, 66.0]), np.array([70.0, 112.0, 122.0])
RAIL, SLEEPER = np.array([112.0, 96.0, 86.0]), np.array([92.0, 84.0, 76.0])
POOL_WATER, ASPHALT = np.array([86.0, 176.0, 196.0]), np.array([112.0, 112.0, 112.0])

GAUGE = 1.5
"""Distance of rails, metres."""

RAIL_VOXEL = 0.5
"""The largest voxels on which rails and sleepers are drawn, metres."""

SLEEPERS, SLEEPER_LONG, SLEEPER_WIDE = 0.65, 2.6, 0.26
"""Distance, length and width of sleepers, metres."""

BAY_WIDE, BAY_DEEP, AISLE = 2.5, 5.0, 6.0
"""Width and depth of a parking bay, and width of an aisle, metres."""

POOL_RIM = 1.0
"""Width of the paving around a pool, metres."""

Distance = Callable[[NDArray, NDArray], NDArray]
"""Metres from the nearest line at places along (u) and across (v) a pitch, from its middle."""


def pave_rims(frame: Frame, structures: Structures, cover: NDArray) -> NDArray:
    """Return land classes with paving around pools, (ny, nx) uint8."""
    pools = structures.of("pool")
    if not len(pools):
        return cover
    wide = shapely.buffer(pools.shape, max(POOL_RIM, frame.voxel_size), join_style="mitre")
    open_ground = on_surface(cover, "flat", "meadow", "crop", "grow", "shrub")
    rim = (rasterise(outlines(wide), frame) >= 0) & open_ground
    return np.where(rim, np.uint8(class_code("paved")), cover).astype(np.uint8)


def marked_cells(frame: Frame, structures: Structures) -> NDArray:
    """Return the cells of pitches, car parks and pools, on which nothing grows: (ny, nx) bool."""
    areas = structures.of("pitch", "parking", "bay", "pool")
    if not len(areas):
        return np.zeros(frame.shape, bool)
    return np.asarray(rasterise(outlines(areas.shape), frame) >= 0)


def mark_ground(frame: Frame, structures: Structures, cover: NDArray, colour: NDArray) -> None:
    """Draw markings into colours of the ground, in place.

    Parameters
    ----------
    frame : Frame
        The window.
    structures : Structures
        In and around it.
    cover : NDArray (ny, nx) uint8
        Land classes of the ground.
    colour : NDArray (ny, nx, 3) float32
        sRGB, 0 to 255.
    """
    if not len(structures):
        return
    _pools(frame, structures.of("pool"), cover, colour)
    _pitches(frame, structures.of("pitch"), cover, colour)
    _car_parks(frame, structures, cover, colour)
    if frame.voxel_size <= RAIL_VOXEL:
        _rails(frame, structures.of("way"), cover, colour)


def _mix(colour: NDArray, row: NDArray, col: NDArray, share: NDArray, paint: NDArray) -> None:
    share = np.clip(share, 0.0, 1.0)[:, None]
    colour[row, col] += (share * (paint - colour[row, col])).astype(np.float32)


def _share(distance: NDArray, width: float, size: float) -> NDArray:
    """Return the share of cells that a line covers whose middle is so far away."""
    return np.asarray(
        np.clip((0.5 * (size + width) - np.abs(distance)) / size, 0.0, min(width / size, 1.0))
    )


def _cells_of(
    frame: Frame, shape: shapely.Polygon
) -> tuple[NDArray, NDArray, NDArray, NDArray] | None:
    """Return rows and columns of the cells of an area, and their places in CRS metres."""
    part = frame.crop(shape.bounds)
    if part is None:
        return None
    one = np.empty(1, object)
    one[0] = shape
    row, col = np.nonzero(rasterise(outlines(one), part) >= 0)
    if not len(row):
        return None
    first = frame.slices(part)
    row, col = row + first[0].start, col + first[1].start
    size = frame.voxel_size
    return row, col, (frame.x[0] + col + 0.5) * size, (frame.y[1] - row - 0.5) * size


def _axes(shape: shapely.Polygon) -> tuple[float, float, float, float, float, float]:
    """Return middle, direction, half length and half width of an area's smallest rectangle."""
    box = shapely.oriented_envelope(shape)
    corner = shapely.get_coordinates(box)[:4]
    if len(corner) < 4:
        return 0.0, 0.0, 1.0, 0.0, 0.0, 0.0
    first, second = corner[1] - corner[0], corner[2] - corner[1]
    if np.hypot(*second) > np.hypot(*first):
        first, second = second, first
    length, width = float(np.hypot(*first)), float(np.hypot(*second))
    ux, uy = (first / max(length, 1e-9)).tolist()
    if (ux, uy) < (0.0, 0.0):  # the same axis from whichever corner the rectangle begins
        ux, uy = -ux, -uy
    middle = corner.mean(axis=0)
    return float(middle[0]), float(middle[1]), ux, uy, 0.5 * length, 0.5 * width


def _pools(frame: Frame, pools: Structures, cover: NDArray, colour: NDArray) -> None:
    for shape in pools.shape:
        cells = _cells_of(frame, shape)
        if cells is None:
            continue
        row, col, _, _ = cells
        wet = on_surface(cover[row, col], "water")
        _mix(colour, row[wet], col[wet], np.full(int(wet.sum()), 0.9), POOL_WATER)


def _pitches(frame: Frame, pitches: Structures, cover: NDArray, colour: NDArray) -> None:
    size = frame.voxel_size
    for shape, style in zip(pitches.shape, pitches.form["style"], strict=True):
        cells = _cells_of(frame, shape)
        if cells is None:
            continue
        row, col, x, y = cells
        kept = is_class(cover[row, col], "sports", "grass", "paved", "sand")
        row, col, x, y = (a[kept] for a in (row, col, x, y))
        mx, my, ux, uy, half_long, half_wide = _axes(shape)
        u, v = (x - mx) * ux + (y - my) * uy, (y - my) * ux - (x - mx) * uy
        sport = SPORTS[style]
        ground = {"tennis": CLAY, "basketball": HARD, "volleyball": None, "badminton": HARD}.get(
            sport
        )
        if ground is not None:
            _mix(colour, row, col, np.full(len(row), 0.75), ground)
        for distance in court_lines(sport, u, v, half_long, half_wide):
            _mix(colour, row, col, _share(distance, LINE, size), WHITE)


def court_lines(
    sport: str, u: NDArray, v: NDArray, half_long: float, half_wide: float
) -> list[NDArray]:
    """Return distances from the lines of a pitch, each (m,) metres, infinite where there is none.

    Sizes are those of the rules of each sport where the area allows for them, and else shrink with
    the area.

    Parameters
    ----------
    sport : str
        Of `geo_io.structures.SPORTS`.
    u, v : NDArray (m,)
        Places along and across the pitch from its middle, metres.
    half_long, half_wide : float
        Half its length and width, metres.
    """
    full = {
        "soccer": (52.5, 34.0), "tennis": (11.885, 5.485), "basketball": (14.0, 7.5),
        "american_football": (54.9, 24.4), "rugby": (50.0, 35.0), "hockey": (45.7, 27.5),
        "volleyball": (9.0, 4.5), "handball": (20.0, 10.0), "badminton": (6.7, 3.05),
        "athletics": (half_long, half_wide), "baseball": (half_long, half_wide),
    }.get(sport, (half_long, half_wide))  # fmt: skip
    # An area is drawn around its run-off; the court keeps its size where it fits.
    scale = min(1.0, (half_long - 0.3) / full[0], (half_wide - 0.3) / full[1])
    if scale <= 0.05:
        return []
    long, wide = scale * full[0], scale * full[1]
    if sport == "soccer":  # fields differ in size, and fill their area
        long, wide = min(half_long - 0.3, 55.0), min(half_wide - 0.3, 37.5)
    far = np.abs(u)
    lines = [_box(u, v, long, wide)]
    middle = np.where(np.abs(v) <= wide, u, np.inf)
    if sport in ("soccer", "handball", "hockey", "rugby", "american_football", "basketball"):
        lines.append(middle)
    if sport in ("soccer", "basketball"):
        radius = 9.15 if sport == "soccer" else 1.8
        lines.append(np.hypot(u, v) - scale * radius)
    if sport == "soccer":
        for depth, half in ((16.5, 20.16), (5.5, 9.16)):
            lines.append(_box(far - (long - 0.5 * scale * depth), v, 0.5 * scale * depth,
                              scale * half))  # fmt: skip
        spot = scale * 11.0
        arc = np.hypot(far - (long - spot), v) - scale * 9.15
        lines.append(np.where(far < long - scale * 16.5, arc, np.inf))
    elif sport == "tennis":
        side = 0.75 * wide
        lines.append(np.where(far <= long, np.abs(v) - side, np.inf))
        lines.append(np.where(np.abs(v) <= side, far - scale * 6.4, np.inf))
        lines.append(np.where(far <= scale * 6.4, v, np.inf))
        lines.append(middle)
    elif sport == "basketball":
        lines.append(_box(far - (long - scale * 2.9), v, scale * 2.9, scale * 2.45))
        hoop = np.hypot(far - (long - scale * 1.575), v) - scale * 6.75
        lines.append(np.where(far < long - scale * 1.5, hoop, np.inf))
    elif sport in ("handball", "hockey"):
        radius = 6.0 if sport == "handball" else 14.6
        lines.append(np.where(far <= long, np.hypot(far - long, v) - scale * radius, np.inf))
    elif sport == "volleyball":
        lines.append(np.where(np.abs(v) <= wide, far - scale * 3.0, np.inf))
        lines.append(middle)
    elif sport == "badminton":
        lines += [np.where(np.abs(v) <= wide, far - scale * at, np.inf) for at in (1.98, 5.94)]
        lines.append(np.where(far <= long, np.abs(v) - scale * 2.59, np.inf))
        lines.append(np.where(far >= scale * 1.98, np.where(far <= long, v, np.inf), np.inf))
        lines.append(middle)
    elif sport in ("american_football", "rugby"):
        step = scale * (4.57 if sport == "american_football" else 22.0)
        last = long - (scale * 9.14 if sport == "american_football" else 0.0)
        across = far - np.rint(far / step) * step
        lines.append(np.where((np.abs(v) <= wide) & (far <= last + 0.1), across, np.inf))
    elif sport == "athletics":
        lanes = np.abs(v) - np.floor(np.abs(v) / 1.22) * 1.22 - 0.61
        lines.append(np.where(far <= long, lanes, np.inf))
    return lines


def _box(u: NDArray, v: NDArray, long: float, wide: float) -> NDArray:
    """Return the distance from the outline of a rectangle."""
    out_u, out_v = np.abs(u) - long, np.abs(v) - wide
    outside = np.hypot(np.maximum(out_u, 0.0), np.maximum(out_v, 0.0))
    return np.where((out_u > 0) | (out_v > 0), outside, np.maximum(out_u, out_v))


def _car_parks(frame: Frame, structures: Structures, cover: NDArray, colour: NDArray) -> None:
    """Draw the bays of car parks, and the outlines of bays that are mapped themselves."""
    size = frame.voxel_size
    bays, parks = structures.of("bay"), structures.of("parking")
    for shape, style in zip(parks.shape, parks.form["style"], strict=True):
        if len(bays) and shapely.intersects(bays.shape, shape).any():
            continue  # its bays are mapped
        cells = _cells_of(frame, shape)
        if cells is None:
            continue
        row, col, x, y = cells
        kept = is_class(cover[row, col], "paved", "commercial")
        row, col, x, y = (a[kept] for a in (row, col, x, y))
        mx, my, ux, uy, half_long, half_wide = _axes(shape)
        u, v = (x - mx) * ux + (y - my) * uy, (y - my) * ux - (x - mx) * uy
        distance = bay_lines(u, v + half_wide, half_long, half_wide, ORDERS[style])
        _mix(colour, row, col, np.full(len(row), 0.7), ASPHALT)
        _mix(colour, row, col, _share(distance, BAY_LINE, size), WHITE)
    for shape in bays.shape:
        wide = shapely.buffer(shape, 0.5 * size)
        cells = _cells_of(frame, wide)
        if cells is None:
            continue
        row, col, x, y = cells
        distance = shapely.distance(shapely.boundary(shape), shapely.points(x, y))
        kept = ~on_surface(cover[row, col], "building")
        share = 0.8 * _share(distance[kept], BAY_LINE, size)
        _mix(colour, row[kept], col[kept], share, WHITE)


def bay_lines(
    u: NDArray, across: NDArray, half_long: float, half_wide: float, order: str
) -> NDArray:
    """Return distances from the lines of the bays of a car park, (m,) metres.

    Rows of bays lie on both sides of aisles, along the longer side.

    Parameters
    ----------
    u : NDArray (m,)
        Place along the car park, from its middle, metres.
    across : NDArray (m,)
        Place across it, from its edge, metres.
    half_long, half_wide : float
        Half its length and width, metres.
    order : str
        Of `geo_io.structures.ORDERS`.
    """
    deep, wide = (2.2, 5.5) if order == "parallel" else (BAY_DEEP, BAY_WIDE)
    module = 2.0 * deep + AISLE
    total = 2.0 * half_wide
    if total < module:
        # A narrow one has a single row, if an aisle is left.
        in_row = across < min(deep, total)
        edge = np.full(len(u), np.inf)
    else:
        step = total / np.floor(total / module)
        place = np.mod(across, step)
        in_row = (place < deep) | (place > step - deep)
        # Two rows meet where modules do.
        edge = np.where(np.abs(across - np.rint(across / step) * step) < 0.5 * deep,
                        across - np.rint(across / step) * step, np.inf)  # fmt: skip
        edge = np.where((across < 0.5 * deep) | (across > total - 0.5 * deep), np.inf, edge)
        across = np.where(place < deep, place, step - place)
    along = u + (across if order == "diagonal" else 0.0)
    count = max(np.floor(2.0 * half_long / wide), 1.0)
    pitch = 2.0 * half_long / count
    place = along + half_long
    divider = place - np.rint(place / pitch) * pitch
    return np.where(in_row, np.minimum(np.abs(divider), np.abs(edge)), np.inf)


def _rails(frame: Frame, ways: Structures, cover: NDArray, colour: NDArray) -> None:
    """Draw rails and sleepers along the middle of railways."""
    tracks = ways.take(ways.form["cover"] == class_code("rail"))
    if not len(tracks):
        return
    size = frame.voxel_size
    half = np.full(len(tracks), 0.5 * SLEEPER_LONG + size)
    found = trace(frame, tracks.shape, half, np.zeros(len(tracks)))
    row, col = np.nonzero((found.line >= 0) & is_class(cover, "rail"))
    along, aside = found.along[row, col].astype(float), np.abs(found.aside[row, col])
    phase = along - np.rint(along / SLEEPERS) * SLEEPERS
    sleeper = np.where(aside < 0.5 * SLEEPER_LONG, _share(phase, SLEEPER_WIDE, size), 0.0)
    _mix(colour, row, col, 0.8 * sleeper, SLEEPER)
    _mix(colour, row, col, 2.0 * _share(aside - 0.5 * GAUGE, 0.12, size), RAIL)
