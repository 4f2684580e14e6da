"""Buildings from footprints, on lots, from raster land cover, and from a surface model."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import jittered_lattice, voronoi_cells
from earthgen.noise.philox import Noise, Stream
from earthgen.terrain.cover import is_class
from earthgen.terrain.filters import FIXED, box_mean, box_share, nearest_cell, whole_cells
from earthgen.terrain.ground import TERRAIN_REACH, Ground
from earthgen.terrain.reach import Reach, widest_reach
from earthgen.terrain.town import TOWN_REACH, house_heights
from earthgen.voxels.objects import (
    FLAT_ROOF,
    HALL_ROOF,
    PITCHED_ROOF,
    PLAIN_ROOF,
    object_number,
)
from earthgen_procedural.footprints import (
    Outlines,
    Rectangles,
    centroids,
    outlines,
    rasterise,
    rectangles,
    touching,
    wall_distance,
)
from earthgen_procedural.lots import HOUSE_REACH, grow
from earthgen_procedural.parts import (
    WHOLE,
    apart,
    ridged_share,
    site_bases,
    under_parts,
)
from earthgen_procedural.posts import on_posts
from earthgen_procedural.roofs import (
    AXIAL,
    BULKY,
    COMPLEX,
    DOME,
    FLAT,
    GABLED,
    GAMBREL,
    HIPPED,
    MANSARD,
    ONION,
    PYRAMIDAL,
    SKELETON,
    radial_place,
    roof_axes,
    roof_of_map,
    roof_share,
    usual_rises,
)
from earthgen_procedural.surface_model import measured_roofs
from geo_io.frame import Frame
from geo_io.layers import ROOF_NUMBER, Buildings, unknown_form

# Reaches, metres.
BASE_MEAN = 16.0  # the ground under larger ones is averaged over this
SURROUNDINGS = 20.0  # radius of the surroundings of a building
PLOT = 26.0  # cells of class building without footprints are divided into houses about this wide
# Such houses search for their walls this far, and their roofs rise over this distance.
SLOPE_REACH, SLOPE_RUN = 7.0, 5.0
FOOTPRINT_REACH = Reach(WHOLE, 4) + widest_reach(TERRAIN_REACH, Reach(SURROUNDINGS))
PLOT_REACH = Reach(1.5 * PLOT, 1) + widest_reach(Reach(BASE_MEAN) + TERRAIN_REACH, TOWN_REACH)
GROWN_REACH = Reach(2 * HOUSE_REACH, 2) + TERRAIN_REACH

LOWEST = 2.0  # metres, of any building
CHIMNEY_VOXEL = 1.3  # metres: the largest voxels with chimneys

CAP = 0.3  # metres that a mapped roof which rises from the ground has at its walls
SLAB = 0.4  # metres: thickness of a roof on posts


@dataclass(frozen=True)
class Roofs:
    """The tops of buildings on a window.

    Attributes
    ----------
    top : NDArray (ny, nx) float32
        Absolute height, metres; NaN without a building.
    object : NDArray (ny, nx) uint32
        Object number; 0 without a building.
    """

    top: NDArray
    object: NDArray

    def over(self, other: Roofs) -> Roofs:
        """Return the higher roof of both in each cell."""
        mine = ~np.isnan(self.top) & ~(self.top < other.top)
        return Roofs(np.where(mine, self.top, other.top), np.where(mine, self.object, other.object))


@dataclass(frozen=True)
class Stock:
    """The footprints and properties of n buildings.

    Attributes
    ----------
    lines : Outlines
        Footprints.
    height : NDArray (n,)
        Metres from base to ridge; NaN to draw it.
    key : NDArray (n,) uint64
        Random keys.
    trade : NDArray (n,) bool or None
        Shops and works; None to derive it from the surroundings.
    form : NDArray (n,) BUILDING_FORM or None
        What the map says of roofs; None for nothing.
    ridges : NDArray (n,) object or None
        Ridges of complex roofs.
    site : NDArray (n,) object or None
        Footprints on whose ground parts of buildings stand; None for their own.
    """

    lines: Outlines
    height: NDArray
    key: NDArray
    trade: NDArray | None = None
    form: NDArray | None = None
    ridges: NDArray | None = None
    site: NDArray | None = None


def mapped_stock(buildings: Buildings) -> Stock:
    """Return mapped buildings as a stock."""
    return Stock(
        outlines(buildings.footprint),
        buildings.height,
        buildings.key,
        None,
        buildings.form,
        buildings.ridges,
        buildings.site,
    )


@dataclass(frozen=True)
class Shapes:
    """The roofs of n buildings: (n,) arrays.

    Attributes
    ----------
    roof, kind : NDArray int
        Shape of the roof, and the type in the object number.
    eaves, rise : NDArray
        Metres from the base to the eaves, and from there to the ridge.
    span : NDArray
        Metres from the wall over which the roof rises, farther in it is level; 0 where the axes
        of the footprint decide.
    bottom : NDArray
        Metres from the base to the underside.
    bump_at, bump_half, bump_up : NDArray
        A chimney or a box on the roof: position along the long side (-1 to 1), half width (0
        without one) and height above the eaves, metres.
    """

    roof: NDArray
    kind: NDArray
    eaves: NDArray
    rise: NDArray
    span: NDArray
    bottom: NDArray
    bump_at: NDArray
    bump_half: NDArray
    bump_up: NDArray


def make_buildings(
    frame: Frame, cover: NDArray, buildings: Buildings, ground: Ground, noise: Noise
) -> tuple[Roofs, list[tuple[NDArray, NDArray, NDArray]]]:
    """Return all buildings on `frame`; cells nearer to its edge than land.HALO are not exact.

    These are those that stand on the ground, and tops, object numbers and undersides of those that
    hang in the air, as `parts.stack_solids` reads them.

    Mapped buildings stand where the land cover has the class building, others on lots. Those that
    hang in the air do so over any land cover.

    Parameters
    ----------
    frame : Frame
        The padded window.
    cover : NDArray (ny, nx) uint8
        Land classes.
    buildings : Buildings
        Mapped footprints.
    ground : Ground
        The ground on the frame.
    noise : Noise
        Of the stage.
    """
    size = frame.voxel_size
    built = is_class(cover, "building")
    measured = (
        np.zeros(frame.shape, bool) if ground.surface is None else np.isfinite(ground.surface)
    )
    local = box_mean(ground.terrain, np.ones(frame.shape, bool), whole_cells(BASE_MEAN, size))
    roofs = Roofs(np.full(frame.shape, np.nan, np.float32), np.zeros(frame.shape, np.uint32))

    near = buildings.take(touching(buildings, frame))
    standing, hanging = near.take(~near.hangs), near.take(near.hangs)
    least = np.full(frame.shape, LOWEST, np.float32)
    if built.any():
        owner = np.full(frame.shape, -1, np.int32)
        open_yard = np.zeros(frame.shape, bool)
        if len(standing):
            stock = mapped_stock(standing)
            owner = rasterise(stock.lines, frame)
            # The land cover may be rasterised by another rule: building cells beside a footprint
            # belong to it.
            distance, index = nearest_cell(owner >= 0, 2)
            owner = np.where(
                built & (distance < 1.9), owner.ravel()[np.maximum(index, 0)], -1
            ).astype(np.int32)
            open_yard = under_parts(frame, standing, hanging, owner)
            owner[open_yard] = -1
            roofs, _ = raise_roofs(frame, cover, stock, owner, ground.terrain, local, noise)
            least[np.append(_rises_from_ground(standing), False)[owner]] = CAP
        rest = built & (owner < 0) & ~open_yard
        if rest.any():
            plots = _roofs_of_cells(frame, cover, built, local, noise)
            roofs = Roofs(
                np.where(rest, plots.top, roofs.top), np.where(rest, plots.object, roofs.object)
            )
        if ground.surface is not None:
            roofs = Roofs(
                *measured_roofs(
                    frame, cover, ground.terrain, ground.surface, roofs.top, roofs.object
                )
            )

    lots = grow(frame, cover, measured, noise)
    for annex in (False, True):
        part = lots.take(lots.annex == annex)
        if len(part):
            stock = Stock(part.outlines(), np.full(len(part), np.nan), part.key, part.trade)
            owner = np.where(built, -1, rasterise(stock.lines, frame)).astype(np.int32)
            grown, _ = raise_roofs(frame, cover, stock, owner, ground.terrain, local, noise)
            roofs = roofs.over(grown)
    top = np.where(np.isnan(roofs.top), roofs.top, np.maximum(roofs.top, ground.height + least))
    number = np.where(np.isnan(top), np.uint32(0), roofs.object)  # yards have no object
    made = Roofs(top.astype(np.float32), number.astype(np.uint32))
    solids = []
    for group in apart(hanging):
        roofs_of = hanging.take(group)
        stock = mapped_stock(roofs_of)
        owner = rasterise(stock.lines, frame)
        raised, under = raise_roofs(frame, cover, stock, owner, ground.terrain, local, noise)
        under = on_posts(frame, roofs_of, owner, under, ground.height)
        solids.append((raised.top, raised.object, under))
    return made, solids


def _rises_from_ground(buildings: Buildings) -> NDArray:
    """Return which buildings are roofs from the ground up, such as pyramids, (n,) bool."""
    form = buildings.form
    sloped = (form["roof"] > ROOF_NUMBER["flat"]) & np.isfinite(form["roof_height"])
    return np.asarray(sloped & (form["roof_height"] > buildings.height - LOWEST))


def raise_roofs(
    frame: Frame,
    cover: NDArray,
    stock: Stock,
    owner: NDArray,
    terrain: NDArray,
    local: NDArray,
    noise: Noise,
) -> tuple[Roofs, NDArray]:
    """Return the roofs of some buildings, and their undersides.

    Parameters
    ----------
    frame : Frame
        The padded window.
    cover : NDArray (ny, nx) uint8
        Land classes.
    stock : Stock
        The buildings.
    owner : NDArray (ny, nx) int32
        Which building a cell belongs to; -1 for none.
    terrain : NDArray (ny, nx) float32
        Metres.
    local : NDArray (ny, nx) float32
        The terrain, smoothed: base of buildings too large for the window.
    noise : Noise
        Of the stage.

    Returns
    -------
    roofs : Roofs
        Their tops.
    under : NDArray (ny, nx) float32
        Absolute height of the underside, metres; that of the base where a building stands on the
        ground, NaN without one.
    """
    n = len(stock.lines)
    box = rectangles(stock.lines)
    whole = 2.0 * np.hypot(box.length, box.width) <= WHOLE
    walls = wall_distance(stock.lines, frame, owner, np.ones(n, bool))
    radius = whole_cells(SURROUNDINGS, frame.voxel_size)
    shops = box_share(is_class(cover, "commercial"), radius) - box_share(
        is_class(cover, "residential"), radius
    )
    fixed = np.rint(terrain * FIXED).astype(np.int64)
    foot, shop_sum, count, inside = _sums(
        owner, fixed, np.rint(shops * FIXED).astype(np.int64), walls, n
    )
    known = whole & (count > 0)
    base = np.where(known, foot / np.maximum(count, 1) / FIXED, np.nan)
    if stock.site is not None:
        base = site_bases(frame, stock.lines, stock.site, fixed, base)
    trade = stock.trade
    if trade is None:
        trade = known & (shop_sum > 0.1 * FIXED * count)
    stream = noise.stream("buildings")
    form = unknown_form(n) if stock.form is None else stock.form
    roof = roof_of_map(form["roof"])
    if stock.ridges is not None:
        drawn = np.array([line is not None for line in stock.ridges], bool)
        roof = np.where((roof == COMPLEX) & ~drawn, GABLED, roof)
    axes = roof_axes(stock.lines, box, roof, form["roof_direction"], form["roof_orientation"])
    shapes = shape_roofs(
        stream,
        stock.key,
        box,
        stock.height,
        trade,
        np.where(whole, inside, 4.0),
        (form, roof, axes),
    )
    centre = centroids(stock.lines)
    top, under = _raise(
        owner,
        walls,
        local,
        base,
        frame.voxel_size,
        frame.x[0],
        frame.y[1],
        stock.lines.xy,
        stock.lines.ring,
        stock.lines.polygon,
        centre[:, 0],
        centre[:, 1],
        axes.x,
        axes.y,
        axes.angle,
        axes.length,
        axes.width,
        shapes.roof,
        shapes.eaves,
        shapes.rise,
        shapes.span,
        shapes.bottom,
        shapes.bump_at,
        shapes.bump_half,
        shapes.bump_up,
    )
    for k in np.flatnonzero(shapes.roof == COMPLEX):
        assert stock.ridges is not None  # the shape is kept only where there are ridges
        rows, cols = np.nonzero(owner == k)
        x, y = (
            (frame.x[0] + cols + 0.5) * frame.voxel_size,
            (frame.y[1] - rows - 0.5) * (frame.voxel_size),
        )
        share = ridged_share(stock.lines, int(k), stock.ridges[k], x, y)
        top[rows, cols] += (shapes.rise[k] * share).astype(np.float32)
    number = np.where(
        owner >= 0, object_number(stock.key, shapes.kind)[np.maximum(owner, 0)], np.uint32(0)
    )
    return Roofs(top, number), under


@numba.njit(cache=True, nogil=True)
def _sums(owner, fixed, shops, walls, n):  # type: ignore[no-untyped-def]
    base, other, count = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    inside = np.zeros(n)
    for row in range(owner.shape[0]):
        for col in range(owner.shape[1]):
            k = owner[row, col]
            if k >= 0:
                base[k] += fixed[row, col]
                other[k] += shops[row, col]
                count[k] += 1
                inside[k] = max(inside[k], walls[row, col])
    return base, other, count, inside


def draw_heights(draw: NDArray, area: NDArray, trade: NDArray) -> NDArray:
    """Return plausible heights of buildings, from sheds to blocks.

    Parameters
    ----------
    draw : NDArray (n,)
        Uniform in [0, 1).
    area : NDArray (n,)
        Of the footprints, m2.
    trade : NDArray (n,) bool
        Shops and works.

    Returns
    -------
    NDArray (n,) float64
        Metres.
    """
    step = np.searchsorted([25.0, 60.0, 250.0, 800.0], area, side="right")
    low = np.where(
        trade, np.array([2.5, 3.5, 5.0, 6.0, 7.0])[step], np.array([2.4, 2.8, 6.0, 6.5, 6.5])[step]
    )
    high = np.where(
        trade,
        np.array([3.2, 5.0, 8.0, 11.0, 13.0])[step],
        np.array([3.2, 5.0, 9.5, 11.5, 11.0])[step],
    )
    return np.asarray(low + draw * (high - low))


def shape_roofs(
    stream: Stream,
    key: NDArray,
    box: Rectangles,
    height: NDArray,
    trade: NDArray,
    inside: NDArray,
    mapped: tuple[NDArray, NDArray, Rectangles] | None = None,
) -> Shapes:
    """Choose the roof of each building: what the map says, and else what is usual.

    Parameters
    ----------
    stream : Stream
        Source of the draws.
    key : NDArray (n,) uint64
        Random keys of the buildings.
    box : Rectangles
        Around the footprints.
    height : NDArray (n,)
        Metres to the ridge; NaN to draw it.
    trade : NDArray (n,) bool
        Shops and works.
    inside : NDArray (n,)
        Metres from the innermost cell to the walls.
    mapped : tuple, optional
        What the map says of roofs: (n,) BUILDING_FORM, (n,) shapes with -1 for unknown, and the
        axes of the roofs.
    """
    form, shape, axes = mapped or (unknown_form(len(key)), np.full(len(key), -1), box)
    known = shape >= 0
    base, to_eaves, roof_height, roof_angle = (
        form[name].astype(float) for name in ("base", "eaves", "roof_height", "roof_angle")
    )
    height_draw, flat_draw, form_draw, pitch_draw, bump_draw = (
        stream.of_objects(key, c) for c in range(5)
    )
    # A height to the eaves alone: the roof comes on top.
    below = ~np.isfinite(height) & np.isfinite(to_eaves)
    drawn = ~np.isfinite(height) & ~below
    usual_height = base + draw_heights(height_draw, box.area, trade)
    usual_height = np.fmax(usual_height, np.fmax(base + roof_height + 2.4, 0.0))
    height = np.where(drawn, usual_height, np.where(below, to_eaves, height))
    height = np.maximum(height, np.where(base > 0, base + SLAB, LOWEST))

    shed = height < 3.3
    chance = np.where(trade, 0.85, np.where(box.area > 600.0, 0.5, np.where(shed, 0.6, 0.1)))
    chance = np.where(height > 22.0, 0.92, chance)
    flat = (flat_draw < chance) | (box.width < 1.0)
    attic = np.where(np.isfinite(to_eaves) & ~below, height - to_eaves, np.nan)
    told = np.where(np.isfinite(roof_height), roof_height, np.where(attic > 0.5, attic, 0 * attic))
    told = np.where(np.isfinite(told), told, roof_angle)
    # What is modelled in parts has level roofs unless it says else.
    level = form["open"] | form["part"] | (base > 0)
    flat = np.where(np.isfinite(told), told <= 0, flat | level)
    compact = box.area > 0.82 * 4.0 * box.length * box.width
    gabled = (form_draw < 0.72) | shed | (box.length > 2.2 * box.width)
    roof = np.where(flat, FLAT, np.where(~compact, SKELETON, np.where(gabled, GABLED, HIPPED)))
    roof = np.where(known, shape, roof)
    roof = np.where(~compact & np.isin(roof, AXIAL), SKELETON, roof)
    flat = roof == FLAT
    kind = np.where(trade | (box.area > 900.0), HALL_ROOF, np.where(shed, PLAIN_ROOF, FLAT_ROOF))
    kind = np.where(flat, kind, PITCHED_ROOF)

    span = np.where(roof == SKELETON, np.maximum(np.minimum(inside, 6.0), 0.1), 0.0)
    span = np.where(~compact & np.isin(roof, (GAMBREL, MANSARD)), np.maximum(inside, 0.1), span)
    pitch = np.where(box.width > 8.0, 27.0 + 10.0 * pitch_draw, 33.0 + 12.0 * pitch_draw)
    over = np.where(span > 0, span, np.maximum(axes.width, 0.1))
    pitched = np.minimum(np.tan(np.radians(pitch)) * over, 7.0)
    usual = usual_rises(roof, axes, pitched, inside)
    room = height - base
    most = np.where(below, np.inf, np.where(np.isin(roof, BULKY), 0.8, 0.5) * room)
    rise = np.minimum(usual.rise, most)
    rise = np.where(np.isfinite(attic) & (attic > 0), attic, rise)
    sloped = np.isfinite(roof_angle) & (roof_angle > 0)
    rise = np.where(sloped, np.tan(np.radians(np.where(sloped, roof_angle, 0.0))) * usual.run, rise)
    rise = np.where(np.isfinite(roof_height), roof_height, rise)
    rise = np.where(flat, 0.0, np.where(below, rise, np.minimum(rise, room)))
    height = np.where(below, height + rise, height)
    eaves = height - rise
    bottom = np.where(form["open"] & (base <= 0), np.maximum(eaves - SLAB, 0.0), base)

    # Chimneys end at the ridge and boxes stand on roofs of drawn height only, so that a given
    # height is kept. Parts of buildings are what they are.
    whole = ~form["part"] & (bottom <= 0)
    chimney = ((roof == GABLED) | (roof == HIPPED)) & (box.area > 45.0) & (bump_draw < 0.75)
    boxed = flat & ~known & drawn & (box.area > 150.0) & (bump_draw < 0.8)
    half = np.where(chimney & whole, 0.6, np.where(boxed & whole, 1.2 + 1.3 * form_draw, 0.0))
    up = np.where(chimney, rise, 1.2 + 0.6 * pitch_draw)
    at = np.where(bump_draw < 0.38, 0.45, -0.45)
    return Shapes(roof, kind, eaves, rise, span, bottom, at, half, up)


@numba.njit(cache=True, nogil=True)
def _raise(  # type: ignore[no-untyped-def]
    owner,
    walls,
    local,
    base,
    size,
    x0,
    y1,
    xy,
    ring,
    polygon,
    mx,
    my,
    cx,
    cy,
    angle,
    length,
    width,
    roof,
    eaves,
    rise,
    span,
    bottom,
    bump_at,
    bump_half,
    bump_up,
):
    """Return absolute heights of roofs and undersides of cells.

    Where `base` is NaN the base is the ground `local`.
    """
    rows, cols = owner.shape
    out = np.full((rows, cols), np.nan, np.float32)
    under = np.full((rows, cols), np.nan, np.float32)
    for row in range(rows):
        for col in range(cols):
            k = owner[row, col]
            if k < 0:
                continue
            foot = local[row, col] if np.isnan(base[k]) else base[k]
            x, y = (x0 + col + 0.5) * size, (y1 - 1 - row + 0.5) * size
            px, py = x - cx[k], y - cy[k]
            cos, sin = np.cos(angle[k]), np.sin(angle[k])
            u, v = px * cos + py * sin, py * cos - px * sin
            up = 0.0
            if roof[k] != FLAT and roof[k] != COMPLEX:
                place = 0.0
                if roof[k] == PYRAMIDAL or roof[k] == DOME or roof[k] == ONION:
                    first, last = ring[polygon[k]], ring[polygon[k] + 1]
                    place = radial_place(xy, first, last, mx[k], my[k], x, y)
                far, wide = max(length[k], 1e-3), max(width[k], 1e-3)
                up = rise[k] * roof_share(roof[k], u, v, far, wide, walls[row, col], span[k], place)
            half = bump_half[k]
            fine = size <= CHIMNEY_VOXEL or (roof[k] == FLAT and size < half)
            if fine and abs(u - bump_at[k] * length[k]) < half and abs(v - 0.3 * width[k]) < half:
                up = max(up, bump_up[k])
            out[row, col] = foot + eaves[k] + up
            under[row, col] = foot + bottom[k]
    return out, under


def _roofs_of_cells(
    frame: Frame, cover: NDArray, built: NDArray, local: NDArray, noise: Noise
) -> Roofs:
    """Return roofs of building cells without a footprint: houses on a jittered lattice."""
    size = frame.voxel_size
    points = jittered_lattice(noise.stream("plots"), frame, max(PLOT, 3.0 * size), 0.8)
    plot = voronoi_cells(points, frame)
    draws = noise.stream("plots.roofs").bits(points.key.ravel(), 0) * 2.0**-32
    # Properties of a whole house are looked up at the lattice point of its plot.
    middle = points.cells(frame)
    trade = box_share(is_class(cover, "commercial"), whole_cells(SURROUNDINGS, size))[middle] > 0.2
    # Isolated houses have two storeys, those in the middle of a town up to seven.
    eaves = house_heights(local[middle] + 4.0, draws[:, 0], built, middle, size)
    flat = draws[:, 1] < np.where(trade, 0.85, 0.25)
    slope = np.where(flat, 0.0, 0.55 + 0.3 * draws[:, 2])
    kind = np.where(flat, np.where(trade, HALL_ROOF, FLAT_ROOF), PITCHED_ROOF)

    distance, _ = nearest_cell(~built, max(whole_cells(SLOPE_REACH, size), 1))
    inward = np.minimum(
        np.where(np.isfinite(distance), distance * size, SLOPE_REACH) - 0.5 * size, SLOPE_RUN
    )
    top = eaves[plot] + slope[plot] * np.maximum(inward, 0.0)
    return Roofs(top.astype(np.float32), object_number(points.key.ravel(), kind)[plot])
