"""Bridges, piers, barriers, hedges, masts, cables, and ways through buildings, on a window.

Each cell is a function of the place: of the structures around it, whose heights readers know
whole, and of the ground below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from earthgen.noise.philox import Noise
from earthgen.terrain.cover import class_code, is_class, on_surface
from earthgen.terrain.ground import relief
from earthgen.terrain.reach import Reach
from earthgen.voxels.objects import HEDGE, object_number
from earthgen_procedural.footprints import outlines, rasterise
from earthgen_procedural.parts import GAP, separate
from earthgen_procedural.trace import trace
from geo_io.frame import Frame
from geo_io.structures import KIND, Profile, Structures

Solid = tuple[NDArray, NDArray, NDArray]
"""Tops, object numbers and undersides of what hangs on a frame, as `parts.stack_solids` reads."""

REACH = Reach(0, 1)
"""Reach beyond that of the ground: all else of structures is in their own heights."""

EDGE = 0.5
"""Metres that a bridge is wider than its way, on each side."""

RAILING, RAILING_VOXEL = 1.0, 1.0
"""Height of the railing of a bridge, and the largest voxels with one, metres."""

SPAN = {"road": 24.0, "rail": 24.0, "paved": 14.0}
"""Approximate distance between the piers of a bridge, metres."""

PIER_HALF, PIER_WIDTH = 0.6, 0.35
"""Half the length of a pier along the bridge, metres, and its half width as a share of its way."""

PIER_LEAST = 2.0
"""Metres between the ground and the underside of a bridge from which piers stand."""

JETTY, JETTY_THICK, POSTS = 1.4, 0.3, 5.0
"""Height of a pier's deck above the water, its thickness, and the distance of its posts, metres."""

SHOULDER, BATTER = 0.8, 1.5
"""Metres of level ground beside a ramp, and run over rise of its slopes."""

BED, DEEPEST_BED = 1.0, 4.0
"""Metres of level ground beside a railway, and the highest embankment and deepest cutting that are
made for it: more is no bed, but a map that does not fit the heights."""

OPEN = 0.35
"""Share of the width of a way within which barriers that it crosses are open, from its middle."""

SAG, DEEPEST = 0.03, 9.0
"""Sag of cables as a share of their span, and its limit in metres."""

ROOF = 0.3
"""Thickness of the roof over a covered way, metres."""

ARM_AT, ARM_THICK = 0.88, 0.8
"""Height of a power tower's arms as a share of its own, and their thickness in metres."""

HEDGE_PLANT = 5.0
"""Metres of hedge that have one shade."""


@dataclass(frozen=True)
class Built:
    """What structures add to a window.

    Attributes
    ----------
    cover : NDArray (ny, nx) uint8
        Land classes, with those of bridges that lie on the ground.
    top, number : NDArray (ny, nx)
        Tops and object numbers of what stands on the ground; NaN and 0 for nothing.
    solids : list of Solid
        What hangs.
    classes : dict of int to int
        Class codes of the object numbers that are no buildings.
    """

    cover: NDArray
    top: NDArray
    number: NDArray
    solids: list[Solid]
    classes: dict[int, int]

    def class_of(self, number: NDArray, built: NDArray) -> NDArray:
        """Return the classes of object numbers, uint8: `building` but for structures."""
        out = np.where(built, np.uint8(class_code("building")), np.uint8(0)).astype(np.uint8)
        if self.classes:
            names = np.array(sorted(self.classes), np.uint32)
            codes = np.array([self.classes[int(name)] for name in names], np.uint8)
            place = np.minimum(np.searchsorted(names, number), len(names) - 1)
            known = built & (names[place] == number)
            out[known] = codes[place[known]]
        return out


def raise_ramps(frame: Frame, structures: Structures, height: NDArray, cover: NDArray) -> NDArray:
    """Return the ground (ny, nx) with the ramps that lead to bridges.

    Parameters
    ----------
    frame : Frame
        The window.
    structures : Structures
        In and around it.
    height : NDArray (ny, nx) float32
        The ground, metres.
    cover : NDArray (ny, nx) uint8
        Land classes; water, and the ground of buildings, stay.
    """
    ramps = structures.of("ramp")
    if not len(ramps):
        return height
    up = np.zeros(frame.shape, np.float32)
    stays = on_surface(cover, "water", "building")
    for k in range(len(ramps)):
        half = 0.5 * float(ramps.form["width"][k]) + SHOULDER
        wide = half + BATTER * float(ramps.profile[k].rise.max())
        west, south, east, north = ramps.shape[k].bounds
        part = frame.crop((west - wide, south - wide, east + wide, north + wide))
        if part is None:
            continue
        found = trace(part, ramps.shape[k : k + 1], np.array([wide]), np.zeros(1))
        row, col, along, beside = found.strip(0, half)
        first = frame.slices(part)
        row, col = row + first[0].start, col + first[1].start
        left = ramps.profile[k].above(along) - beside / BATTER
        up[row, col] = np.maximum(up[row, col], np.maximum(left, 0.0).astype(np.float32))
    return np.where(stays, height, height + up).astype(np.float32)


def level_beds(frame: Frame, structures: Structures, height: NDArray, cover: NDArray) -> NDArray:
    """Return the ground (ny, nx) with the beds of railways: flat across, smooth along.

    Beside them are the slopes of embankments and cuttings.

    Parameters
    ----------
    frame : Frame
        The window.
    structures : Structures
        In and around it.
    height : NDArray (ny, nx) float32
        The ground, metres.
    cover : NDArray (ny, nx) uint8
        Land classes; water, and the ground of buildings, stay.
    """
    ways = structures.of("way")
    ways = ways.take(
        np.array(
            [
                profile is not None and code == class_code("rail")
                for profile, code in zip(ways.profile, ways.form["cover"], strict=True)
            ],
            bool,
        )
    )
    if not len(ways):
        return height
    aim = np.full(frame.shape, np.nan)
    beside = np.zeros(frame.shape)
    width = np.nan_to_num(ways.form["width"].astype(float), nan=4.0)
    half = np.maximum(0.5 * width, 0.5 * frame.voxel_size) + BED
    wide = half + BATTER * DEEPEST_BED
    found = trace(frame, ways.shape, wide, np.zeros(len(ways)))
    for k in range(len(ways)):
        row, col, along, out = found.strip(k, half[k])
        profile = ways.profile[k]
        near = (along >= profile.at[0]) & (along <= profile.at[-1])
        row, col = row[near], col[near]
        aim[row, col] = profile.height(along[near])
        beside[row, col] = out[near]
    move = np.clip(np.nan_to_num(aim - height), -DEEPEST_BED, DEEPEST_BED)
    left = np.maximum(np.abs(move) - beside / BATTER, 0.0)
    stays = on_surface(cover, "water", "building") | ~np.isfinite(aim)
    return np.where(stays, height, height + np.sign(move) * left).astype(np.float32)


def add_structures(
    frame: Frame,
    structures: Structures,
    cover: NDArray,
    ground: NDArray,
    top: NDArray,
    number: NDArray,
    solids: list[Solid],
    noise: Noise,
) -> Built:
    """Return buildings and structures together.

    Parameters
    ----------
    frame : Frame
        The window.
    structures : Structures
        In and around it.
    cover : NDArray (ny, nx) uint8
        Land classes of the ground.
    ground : NDArray (ny, nx) float32
        Absolute height of the ground, metres.
    top, number : NDArray (ny, nx)
        Tops and object numbers of buildings on the ground.
    solids : list of Solid
        Buildings that hang.
    noise : Noise
        Of the stage; hills are where there are no heights.
    """
    built = Built(cover.copy(), top.copy(), number.copy(), list(solids), {})
    if not len(structures):
        return built
    _open_passages(frame, structures.of("passage"), ground, built)
    _raise_barriers(frame, structures, ground, built)
    _raise_masts(frame, structures, ground, built)
    _lay_decks(frame, structures.of("deck"), ground, built, noise)
    _lay_piers(frame, structures.of("pier"), ground, built)
    _hang_cables(frame, structures.of("cable"), ground, built, noise)
    return built


def _none(frame: Frame) -> Solid:
    return (
        np.full(frame.shape, np.nan, np.float32),
        np.zeros(frame.shape, np.uint32),
        np.full(frame.shape, np.nan, np.float32),
    )


def _numbers(structures: Structures, built: Built) -> NDArray:
    """Return the object numbers of structures, whose types are their materials; keep classes."""
    number = object_number(structures.key, structures.form["style"])
    built.classes.update(zip(number.tolist(), structures.form["cover"].tolist(), strict=True))
    return number


def _level(profile: Profile, frame: Frame, noise: Noise) -> Profile:
    """Return a profile whose ground is that of the hills where heights are not known."""
    if np.isfinite(profile.level).all():
        return profile
    size = frame.voxel_size
    hills = []
    for x, y in np.floor(profile.xy / size).astype(np.int64).tolist():
        cell = replace(frame, x=(x, x + 1), y=(y, y + 1))
        hills.append(float(relief(cell, noise)[0, 0]))
    return profile.with_level(np.array(hills))


def _lay_decks(
    frame: Frame, decks: Structures, ground: NDArray, built: Built, noise: Noise
) -> None:
    """Hang the decks of bridges, with railings and piers."""
    if not len(decks):
        return
    size = frame.voxel_size
    half = 0.5 * np.nan_to_num(decks.form["width"].astype(float), nan=4.0) + EDGE
    is_line = shapely.get_dimensions(decks.shape) == 1
    shapes = decks.shape.copy()
    shapes[is_line] = shapely.buffer(decks.shape[is_line], half[is_line], cap_style="flat")
    numbers = _numbers(decks, built)
    water = on_surface(built.cover, "water")
    busy = on_surface(built.cover, "road")
    # With a margin: which of two that touch has a cell must not depend on how they are grouped.
    for group in separate(shapely.buffer(shapes, size)):
        top, number, under = _none(frame)
        lines = group[is_line[group]]
        found = trace(frame, decks.shape[lines], half[lines], np.full(len(lines), 0.5 * size))
        areas = group[~is_line[group]]
        owner = rasterise(outlines(decks.shape[areas]), frame) if len(areas) else None
        for k in group:
            form = decks.form[k]
            if is_line[k]:
                row, col, along, aside = found.cells(int(np.flatnonzero(lines == k)[0]))
                edge = half[k] - np.abs(aside)
            else:
                assert owner is not None
                row, col = np.nonzero(owner == int(np.flatnonzero(areas == k)[0]))
                x = (frame.x[0] + col + 0.5) * size
                y = (frame.y[1] - row - 0.5) * size
                points = shapely.points(x, y)
                along = shapely.line_locate_point(decks.axis[k], points)
                aside = np.zeros(len(row))
                edge = shapely.distance(shapely.boundary(decks.shape[k]), points)
            if not len(row):
                continue
            profile = _level(decks.profile[k], frame, noise)
            z = profile.height(along).astype(np.float32)
            thick = np.float32(0.6 if form["cover"] == class_code("paved") else 1.0)
            low = z - thick
            here = ground[row, col]
            # Over water a coarse voxel must not close the gap.
            wet = water[row, col]
            low = np.where(wet, np.maximum(low, here + np.float32((GAP + 0.3) * size)), low)
            z = np.where(wet, np.maximum(z, low + np.float32(0.6 * size)), z)
            hangs = low - here >= GAP * size
            on_ground = ~hangs & ~is_class(built.cover[row, col], "building")
            built.cover[row[on_ground], col[on_ground]] = form["cover"]
            low = np.where(_piers(profile, along, aside, form, size, low - here)
                           & ~busy[row, col], here, low)  # fmt: skip
            if size <= RAILING_VOXEL:
                rail = (edge < size) & (z - here > 1.5)
                z = np.where(rail, z + np.float32(RAILING), z)
            # A deck that lies on the ground, or in it, is the way's surface there.
            keep = hangs | on_ground
            row, col = row[keep], col[keep]
            top[row, col] = np.where(hangs, z, np.maximum(z, here + np.float32(0.02)))[keep]
            under[row, col], number[row, col] = low[keep], numbers[k]
        built.solids.append((top, number, under))


def _piers(
    profile: Profile, along: NDArray, aside: NDArray, form: NDArray, size: float, clear: NDArray
) -> NDArray:
    """Return which cells of a deck stand on a pier, (m,) bool."""
    total = float(profile.at[-1] - profile.at[0])
    name = next((n for n in SPAN if class_code(n) == form["cover"]), "paved")
    count = int(np.rint(total / SPAN[name]))
    if count < 2:
        return np.zeros(len(along), bool)
    step = total / count
    place = np.asarray(along, float) - float(profile.at[0])
    nearest = np.clip(np.rint(place / step), 1, count - 1) * step
    width = float(form["width"]) if np.isfinite(form["width"]) else 4.0
    wide = np.abs(aside) <= max(PIER_WIDTH * width, 0.5 * size)
    return np.asarray(
        (np.abs(place - nearest) <= max(PIER_HALF, 0.5 * size)) & wide & (clear > PIER_LEAST)
    )


def _lay_piers(frame: Frame, piers: Structures, ground: NDArray, built: Built) -> None:
    """Lay decks over water, on posts, and on the ground where they begin."""
    if not len(piers):
        return
    size = frame.voxel_size
    half = 0.5 * np.nan_to_num(piers.form["width"].astype(float), nan=3.0)
    half = np.maximum(half, 0.5 * size)
    numbers = _numbers(piers, built)
    is_line = shapely.get_dimensions(piers.shape) == 1
    water = on_surface(built.cover, "water")
    top, number, under = _none(frame)
    lines, areas = np.flatnonzero(is_line), np.flatnonzero(~is_line)
    found = trace(frame, piers.shape[lines], half[lines], np.zeros(len(lines)))
    owner = found.line.copy()
    owner[owner >= 0] = lines[owner[owner >= 0]]
    if len(areas):
        inside = rasterise(outlines(piers.shape[areas]), frame)
        owner = np.where(inside >= 0, areas[np.maximum(inside, 0)], owner)
    row, col = np.nonzero(owner >= 0)
    k = owner[row, col]
    here, wet = ground[row, col], water[row, col]
    base = piers.form["base"][k]
    up = np.where(np.isfinite(base), base + JETTY_THICK, JETTY)
    up = np.maximum(up, (GAP + 0.9) * size)
    built.cover[row[~wet], col[~wet]] = class_code("paved")
    x = (frame.x[0] + col + 0.5) * size
    y = (frame.y[1] - row - 0.5) * size
    reach = max(0.25, 0.5 * size)
    post = (np.abs(np.mod(x, POSTS) - 0.5 * POSTS) <= reach) & (
        np.abs(np.mod(y, POSTS) - 0.5 * POSTS) <= reach
    )
    floats = np.isfinite(base)
    z = (here + up).astype(np.float32)
    low = np.where(post & ~floats, here, z - np.float32(max(JETTY_THICK, 0.6 * size)))
    row, col, k = row[wet], col[wet], k[wet]
    top[row, col], under[row, col], number[row, col] = z[wet], low[wet], numbers[k]
    built.solids.append((top, number, under))


def _open_passages(frame: Frame, ways: Structures, ground: NDArray, built: Built) -> None:
    """Open buildings where ways run through them, and put roofs over other covered ways."""
    if not len(ways):
        return
    size = frame.voxel_size
    half = np.maximum(0.5 * np.nan_to_num(ways.form["width"].astype(float), nan=3.0), 0.5 * size)
    found = trace(frame, ways.shape, half, np.full(len(ways), 0.5 * size))
    row, col = np.nonzero(found.line >= 0)
    k = found.line[row, col]
    roofed = np.zeros(frame.shape, bool)
    for solid in built.solids:
        roofed |= ~np.isnan(solid[0])
    free = ground[row, col] + np.maximum(ways.form["height"][k], np.float32(1.5 * size))
    tall = built.top[row, col]
    through = ~np.isnan(tall) & (tall - free > 0.5 * size)
    top, number, under = _none(frame)
    r, c = row[through], col[through]
    top[r, c], number[r, c], under[r, c] = tall[through], built.number[r, c], free[through]
    built.top[r, c], built.number[r, c] = np.nan, 0
    roof = ways.form["covered"][k] & np.isnan(tall) & ~roofed[row, col]
    if roof.any():
        numbers = object_number(ways.key, ways.form["style"])
        built.classes.update(dict.fromkeys(numbers.tolist(), class_code("paved")))
        r, c = row[roof], col[roof]
        top[r, c] = free[roof] + np.float32(max(ROOF, 0.6 * size))
        under[r, c], number[r, c] = free[roof], numbers[k[roof]]
    built.solids.append((top, number, under))


def _raise_barriers(frame: Frame, structures: Structures, ground: NDArray, built: Built) -> None:
    """Raise walls, fences and hedges, with openings where ways cross them."""
    barriers = structures.of("barrier", "hedge")
    if not len(barriers):
        return
    size = frame.voxel_size
    half = np.maximum(0.5 * barriers.form["width"].astype(float), 0.5 * size)
    is_line = shapely.get_dimensions(barriers.shape) == 1
    lines = np.flatnonzero(is_line)
    found = trace(frame, barriers.shape[lines], half[lines], np.full(len(lines), 0.5 * size))
    owner, along = found.line.copy(), found.along
    owner[owner >= 0] = lines[owner[owner >= 0]]
    areas = np.flatnonzero(shapely.get_dimensions(barriers.shape) == 2)
    if len(areas):
        inside = rasterise(outlines(barriers.shape[areas]), frame)
        owner = np.where(inside >= 0, areas[np.maximum(inside, 0)], owner)
    ways = structures.of("way", "passage")
    ways = ways.take(ways.form["cover"] != class_code("river"))
    crossing = ways.take(_crosses(ways.shape, barriers.shape[lines]))
    gap = np.maximum(OPEN * np.nan_to_num(crossing.form["width"].astype(float), nan=2.0), 0.5)
    gate = trace(frame, crossing.shape, gap + 0.3 * size, np.zeros(len(crossing))).line >= 0
    # On land, or on the wall's own footing; buildings go on behind it.
    free = ~gate & ~on_surface(built.cover, "water") & np.isnan(built.top)
    row, col = np.nonzero((owner >= 0) & free)
    k = owner[row, col]
    form = barriers.form[k]
    hedge = form["kind"] == KIND["hedge"]
    # Stretches of a hedge are different plants.
    stretch = np.floor(along[row, col] / HEDGE_PLANT).astype(np.uint64)
    key = np.where(
        hedge, barriers.key[k] + stretch * np.uint64(0x9E3779B97F4A7C15), barriers.key[k]
    )
    number = object_number(key, np.where(hedge, HEDGE, form["style"]))
    pairs = np.unique(np.stack([number.astype(np.int64), form["cover"].astype(np.int64)]), axis=1)
    built.classes.update(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))
    built.top[row, col] = ground[row, col] + form["height"]
    built.number[row, col] = number


def _crosses(ways: NDArray, lines: NDArray) -> NDArray:
    """Return which ways meet any of some lines, (n,) bool."""
    hit = np.zeros(len(ways), bool)
    if len(ways) and len(lines):
        hit[np.unique(shapely.STRtree(ways).query(lines, predicate="intersects")[1])] = True
    return hit


def _raise_masts(frame: Frame, structures: Structures, ground: NDArray, built: Built) -> None:
    """Raise masts, poles and towers; those of power lines have arms across the line."""
    masts = structures.of("mast")
    if not len(masts):
        return
    size = frame.voxel_size
    numbers = _numbers(masts, built)
    cables = structures.of("cable")
    arms = _none(frame)
    for k in range(len(masts)):
        x, y = masts.shape[k].x, masts.shape[k].y
        form = masts.form[k]
        height, width = float(form["height"]), float(form["width"])
        cell = _cells(frame, x, y, max(0.5 * width, size))
        if cell is None:
            continue
        row, col, dx, dy = cell
        far = np.hypot(dx, dy)
        if width >= 2.0 and form["style"] == 3:  # a lattice tower, slender above
            share = np.clip(far / (0.5 * width), 0.0, 1.0)
            tall = height * (1.0 - share) ** 2
            tall = np.where((np.abs(dx) <= 0.5 * size) & (np.abs(dy) <= 0.5 * size), height, tall)
        else:
            inside = (far <= 0.5 * width) | (
                (dx > -0.5 * size) & (dx <= 0.5 * size) & (dy > -0.5 * size) & (dy <= 0.5 * size)
            )
            tall = np.where(inside, height, 0.0)
        stands = (tall > 0.5 * size) & ~(built.top[row, col] > ground[row, col] + tall)
        r, c = row[stands], col[stands]
        built.top[r, c] = ground[r, c] + tall[stands].astype(np.float32)
        built.number[r, c] = numbers[k]
        if form["style"] == 3 and height > 12.0 and width >= 2.0 and len(cables):
            _arms(frame, (x, y), height, numbers[k], cables, ground, arms)
    if not np.isnan(arms[0]).all():
        built.solids.append(arms)


def _cells(
    frame: Frame, x: float, y: float, reach: float
) -> tuple[NDArray, NDArray, NDArray, NDArray] | None:
    """Return the rows and columns of cells around a place, and how far they lie east and north."""
    size = frame.voxel_size
    cols = np.arange(int(np.floor((x - reach) / size)), int(np.floor((x + reach) / size)) + 1)
    rows = np.arange(int(np.floor((y - reach) / size)), int(np.floor((y + reach) / size)) + 1)
    col, up = (a.ravel() for a in np.meshgrid(cols, rows))
    dx, dy = (col + 0.5) * size - x, (up + 0.5) * size - y
    col, row = col - frame.x[0], frame.y[1] - 1 - up
    inside = (row >= 0) & (row < frame.ny) & (col >= 0) & (col < frame.nx)
    if not inside.any():
        return None
    return row[inside], col[inside], dx[inside], dy[inside]


def _arms(
    frame: Frame,
    place: tuple[float, float],
    height: float,
    number: int,
    cables: Structures,
    ground: NDArray,
    arms: Solid,
) -> None:
    """Add the arms of a tower across the cables at it."""
    here = shapely.Point(place)
    near = np.flatnonzero(shapely.distance(cables.shape, here) < 2.0)
    if not len(near):
        return
    line = cables.shape[near[0]]
    at = float(line.project(here))
    a, b = line.interpolate(max(at - 5.0, 0.0)), line.interpolate(min(at + 5.0, line.length))
    length = max(np.hypot(b.x - a.x, b.y - a.y), 1e-9)
    ux, uy = (b.x - a.x) / length, (b.y - a.y) / length
    half = 0.5 * float(cables.form["width"][near[0]]) + 0.5
    size = frame.voxel_size
    cell = _cells(frame, place[0], place[1], half + size)
    centre = _cells(frame, place[0], place[1], 0.0)
    if cell is None or centre is None:  # beyond the padded window, so not seen in the window
        return
    row, col, dx, dy = cell
    on = (np.abs(dx * ux + dy * uy) <= max(0.4, 0.6 * size)) & (np.abs(dy * ux - dx * uy) <= half)
    foot = ground[centre[0][0], centre[1][0]]
    row, col = row[on], col[on]
    top, numbers, under = arms
    top[row, col] = foot + np.float32(ARM_AT * height + max(ARM_THICK, 0.6 * size))
    under[row, col] = foot + np.float32(ARM_AT * height)
    numbers[row, col] = number


def _hang_cables(
    frame: Frame, cables: Structures, ground: NDArray, built: Built, noise: Noise
) -> None:
    """Hang three cables a line between its supports."""
    if not len(cables):
        return
    size = frame.voxel_size
    numbers = _numbers(cables, built)
    half = 0.5 * cables.form["width"].astype(float) + 0.5 * size
    found = trace(frame, cables.shape, half, np.zeros(len(cables)))
    top, number, under = _none(frame)
    for k in range(len(cables)):
        row, col, along, aside = found.cells(k)
        if not len(row):
            continue
        out = 0.5 * float(cables.form["width"][k])
        wire = (np.abs(aside) <= 0.5 * size) | (np.abs(np.abs(aside) - out) <= 0.5 * size)
        row, col, along = row[wire], col[wire], along[wire].astype(float)
        profile = _level(cables.profile[k], frame, noise)
        span = np.clip(np.searchsorted(profile.at, along, "right") - 1, 0, len(profile.at) - 2)
        first, last = profile.at[span], profile.at[span + 1]
        length = np.maximum(last - first, 1e-6)
        share = (along - first) / length
        sag = np.minimum(SAG * length, DEEPEST) * 4.0 * share * (1.0 - share)
        z = (profile.height(along) - sag).astype(np.float32)
        up = z - ground[row, col] > 2.0
        row, col, z = row[up], col[up], z[up]
        under[row, col], top[row, col] = z, z + np.float32(0.9 * size)
        number[row, col] = numbers[k]
    built.solids.append((top, number, under))
