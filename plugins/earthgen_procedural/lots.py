"""Buildings on residential and commercial land without mapped footprints.

Houses stand on jittered lattices that are keyed by place. Each block of a Voronoi diagram has its
own lattice at a random angle. Houses near a road are turned and moved to it. Of two houses that
would touch, one is removed by priority, in two rounds, so that nothing beyond REACH matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from earthgen.noise.fields import PointLattice, jittered_lattice, nearest_point
from earthgen.noise.philox import Noise
from earthgen.terrain.cover import is_class, on_surface
from earthgen.terrain.filters import box_mean, nearest_cell, slopes, whole_cells
from earthgen.terrain.reach import Reach, widest_reach
from earthgen_procedural.footprints import Outlines
from geo_io.frame import Frame

# Lengths in metres.
EXCLUSION = 48.0  # none are added this close to a mapped building: its surroundings are mapped
ROAD = 36.0  # houses this close to a road turn to it
ROAD_SMOOTH = 3.0
MOVE = 8.0  # the farthest that a house moves to its road
APART = 14.0  # least distance between the centres of two houses
ROUNDS = 2
HOUSE_REACH = 14.0  # from a house's centre to the corners of its annexes
HALL_REACH = 23.0
REACH = (
    widest_reach(Reach(HOUSE_REACH + (2 * ROUNDS - 1) * APART), Reach(HALL_REACH))
    + widest_reach(Reach(EXCLUSION, 1), Reach(MOVE + ROAD + ROAD_SMOOTH, 2))
    + Reach(0, 2)  # a house's centre and corners are looked up in the cells that contain them
)
"""Reach from a cell to everything that decides whether a building is added there.

In the second round a house depends on neighbours of neighbours of its neighbours: on the houses
that the first round left, and on those that removed others.
"""

HOUSE_BLOCK, HOUSE_LOT = 160.0, (16.5, 22.0)
HALL_BLOCK, HALL_LOT = 320.0, (46.0, 46.0)
MARGIN = 1.5  # between a wall and cover that excludes buildings


@dataclass(frozen=True)
class Lots:
    """n rectangular buildings.

    Attributes
    ----------
    corner : NDArray (n, 4, 2) float64
        CRS metres.
    key : NDArray (n,) uint64
        Random keys.
    trade : NDArray (n,) bool
        Shops and works.
    annex : NDArray (n,) bool
        Whether it stands beside a house and is lower.
    """

    corner: NDArray
    key: NDArray
    trade: NDArray
    annex: NDArray

    def __len__(self) -> int:
        return len(self.key)

    def outlines(self) -> Outlines:
        """Return the rectangles as polygons."""
        closed = np.concatenate([self.corner, self.corner[:, :1]], axis=1).reshape(-1, 2)
        n = len(self)
        return Outlines(
            np.ascontiguousarray(closed), np.arange(n + 1, dtype=np.int64) * 5, np.arange(n + 1)
        )

    def take(self, mask: NDArray) -> Lots:
        """Return the buildings where an (n,) mask is True."""
        return Lots(self.corner[mask], self.key[mask], self.trade[mask], self.annex[mask])


@dataclass(frozen=True)
class _Site:
    """The surroundings of lots.

    frame : of the arrays, all (ny, nx)
    free : bool, where buildings may stand
    road : float32, metres to the nearest road
    away_x, away_y : float32, gradient of that distance
    mapped : bool, where mapped buildings exclude others
    """

    frame: Frame
    cover: NDArray
    free: NDArray
    road: NDArray
    away_x: NDArray
    away_y: NDArray
    mapped: NDArray

    def index(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Return clipped rows and columns of points, and whether they lie on the frame."""
        size = self.frame.voxel_size
        row = self.frame.y[1] - 1 - np.floor(y / size).astype(np.int64)
        col = np.floor(x / size).astype(np.int64) - self.frame.x[0]
        on = (row >= 0) & (row < self.frame.ny) & (col >= 0) & (col < self.frame.nx)
        return np.clip(row, 0, self.frame.ny - 1), np.clip(col, 0, self.frame.nx - 1), on


def grow(frame: Frame, cover: NDArray, measured: NDArray, noise: Noise) -> Lots:
    """Return the buildings whose centres lie on `frame`, exact farther than REACH from its edge.

    Parameters
    ----------
    frame : Frame
        The padded window.
    cover : NDArray (ny, nx) uint8
        Land classes.
    measured : NDArray (ny, nx) bool
        Where a surface model has data; no buildings are added there.
    noise : Noise
        Of the stage.
    """
    free = on_surface(cover, "grow") & ~measured
    if not free.any():
        return _join([])
    size = frame.voxel_size
    road, _ = nearest_cell(on_surface(cover, "road"), max(whole_cells(ROAD, size), 1))
    metres = np.where(np.isfinite(road), road * size, ROAD).astype(np.float32)
    smooth = box_mean(metres, np.ones(frame.shape, bool), whole_cells(ROAD_SMOOTH, size))
    mapped, _ = nearest_cell(is_class(cover, "building"), max(whole_cells(EXCLUSION, size), 1))
    site = _Site(frame, cover, free, metres, *slopes(smooth, size), np.isfinite(mapped))
    parts = []
    if is_class(cover, "residential").any():
        parts.append(_houses(site, noise))
    if is_class(cover, "commercial").any():
        parts.append(_halls(site, noise))
    return _join(parts)


def _join(parts: list[Lots]) -> Lots:
    if not parts:
        return Lots(
            np.empty((0, 4, 2)), np.empty(0, np.uint64), np.empty(0, bool), np.empty(0, bool)
        )
    return Lots(
        *(
            np.concatenate([getattr(p, f) for p in parts])
            for f in ("corner", "key", "trade", "annex")
        )
    )


def _lattice(
    points: PointLattice,
    lot: tuple[float, float],
    block: float,
    jitter: float,
    words: NDArray,
    i: NDArray,
    j: NDArray,
) -> tuple[NDArray, NDArray, NDArray]:
    """Return x, y and angle of the lots of all blocks, each (blocks, lots)."""
    angle = np.broadcast_to((points.key.ravel() * (2.0**-32 * np.pi))[:, None], words.shape[:2])
    u = (i + 0.5 + jitter * (words[..., 0] * 2.0**-32 - 0.5)) * lot[0]
    v = (j + 0.5 + jitter * (words[..., 1] * 2.0**-32 - 0.5)) * lot[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        points.x.ravel()[:, None] + u * cos - v * sin,
        points.y.ravel()[:, None] + u * sin + v * cos,
        angle,
    )


def _candidates(
    site: _Site,
    noise: Noise,
    kind: str,
    block: float,
    lot: tuple[float, float],
    jitter: float,
    name: str,
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray, PointLattice]:
    """Return lots of one class: x, y, angle, block, (n, 8) random words, and the blocks."""
    points = jittered_lattice(noise.stream(f"{kind}.blocks"), site.frame, block, 0.7)
    half = [int(np.ceil(block / edge)) for edge in lot]
    i, j = (
        a.ravel() for a in np.meshgrid(np.arange(-half[0], half[0]), np.arange(-half[1], half[1]))
    )
    stream = noise.stream(kind)
    key = points.key.ravel()[:, None]
    words = np.concatenate([stream.bits(key, i, j, channel) for channel in (0, 1)], axis=-1)
    x, y, angle = _lattice(points, lot, block, jitter, words, i, j)
    row, col, on = site.index(x, y)
    keep = on & site.free[row, col] & is_class(site.cover[row, col], name)
    block_of = np.broadcast_to(np.arange(len(key))[:, None], x.shape)[keep]
    x, y, angle, words = x[keep], y[keep], angle[keep], words[keep]
    own = nearest_point(points, x, y) == block_of
    return x[own], y[own], angle[own], block_of[own], words[own], points


def _corners(x: NDArray, y: NDArray, angle: NDArray, length: NDArray, width: NDArray) -> NDArray:
    """Return (n, 4, 2) corners of rectangles, `length` along `angle` and `width` across."""
    u = np.stack([length, -length, -length, length], axis=1) * 0.5
    v = np.stack([width, width, -width, -width], axis=1) * 0.5
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([x[:, None] + u * cos - v * sin, y[:, None] + u * sin + v * cos], axis=-1)


def _fits(
    site: _Site, x: NDArray, y: NDArray, angle: NDArray, length: NDArray, width: NDArray
) -> NDArray:
    """Return whether rectangles and a margin lie on free ground: (n,) bool."""
    ok = np.ones(len(x), bool)
    cos, sin = np.cos(angle), np.sin(angle)
    for fu in (-0.5, -0.25, 0.0, 0.25, 0.5):
        for fv in (-0.5, 0.0, 0.5):
            u, v = fu * (length + 2 * MARGIN), fv * (width + 2 * MARGIN)
            row, col, on = site.index(x + u * cos - v * sin, y + u * sin + v * cos)
            ok &= on & site.free[row, col]
    return ok


def _key(words: NDArray) -> NDArray:
    return (words[:, 6].astype(np.uint64) << np.uint64(32)) | words[:, 7].astype(np.uint64)


def _houses(site: _Site, noise: Noise) -> Lots:
    x, y, angle, _, words, _ = _candidates(
        site, noise, "houses", HOUSE_BLOCK, HOUSE_LOT, 0.16, "residential"
    )
    draw = words * 2.0**-32
    length, width = 9.0 + 3.5 * draw[:, 2], 8.0 + 2.0 * draw[:, 3]
    row, col, _ = site.index(x, y)
    away = np.stack([site.away_x[row, col], site.away_y[row, col]])
    norm = np.hypot(*away)
    roadside = (site.road[row, col] < ROAD - 1.0) & (norm > 0.2)
    away = away / np.maximum(norm, 1e-6)
    # The first row of houses moves to its setback; those behind only turn to the road.
    setback = 0.5 * width + 4.0 + 2.5 * draw[:, 4]
    move = np.where(
        roadside & (site.road[row, col] < 22.0),
        np.clip(setback - site.road[row, col], -MOVE, MOVE),
        0.0,
    )
    x, y = x + away[0] * move, y + away[1] * move
    angle = np.where(roadside, np.arctan2(away[1], away[0]) + 0.5 * np.pi, angle)
    angle = angle + np.where(draw[:, 5] < 0.25, 0.5 * np.pi, 0.0)

    row, col, on = site.index(x, y)
    alive = on & ~site.mapped[row, col] & _fits(site, x, y, angle, length, width)
    stay = _thin(x, y, words[:, 6].astype(np.int64) << 32 | words[:, 7], alive)
    x, y, angle, length, width, words = (a[stay] for a in (x, y, angle, length, width, words))
    homes = Lots(
        _corners(x, y, angle, length, width),
        _key(words),
        np.zeros(len(x), bool),
        np.zeros(len(x), bool),
    )

    # Some houses have a garage beside, others a wing in front.
    draw = noise.stream("houses.annexes").bits(words[:, 6], words[:, 7]) * 2.0**-32
    side = np.where(draw[:, 1] < 0.5, 1.0, -1.0)
    garage = draw[:, 0] < 0.45
    wing = ~garage & (draw[:, 0] < 0.75)
    u = np.where(garage, side * (0.5 * length + 2.0), side * 0.22 * length)
    v = np.where(garage, (draw[:, 2] - 0.5) * 3.0, 0.5 * width + 0.5)
    turned = angle + 0.5 * np.pi
    ax, ay = x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)
    along, across = np.where(garage, 6.0, 7.5), np.where(garage, 3.4, 4.8)
    stands = (garage | wing) & _fits(site, ax, ay, turned, along, across)
    # A wing belongs to its house, and has its key; a garage is a building of its own.
    keys = np.where(wing, _key(words), _key(words) ^ np.uint64(0x9E3779B97F4A7C15))
    n = len(keys)
    beside = Lots(
        _corners(ax, ay, turned, along, across), keys, np.zeros(n, bool), np.ones(n, bool)
    )
    return _join([homes, beside.take(stands)])


def _thin(x: NDArray, y: NDArray, priority: NDArray, alive: NDArray) -> NDArray:
    """Choose some of the `alive` points by priority in ROUNDS rounds, no two nearer than APART.

    Returns (n,) bool.
    """
    chosen = np.zeros(len(x), bool)
    index = np.flatnonzero(alive)
    if len(index) == 0:
        return chosen
    # The tree only finds candidates: its rounding depends on how it is built.
    pairs = cKDTree(np.stack([x[index], y[index]], axis=1)).query_pairs(
        APART + 0.01, output_type="ndarray"
    )
    a, b = index[pairs[:, 0]], index[pairs[:, 1]]
    near = (x[a] - x[b]) ** 2 + (y[a] - y[b]) ** 2 < APART**2
    a, b = a[near], b[near]
    alive = alive.copy()
    for _ in range(ROUNDS):
        beaten = np.zeros(len(x), bool)
        both = alive[a] & alive[b]
        beaten[np.where(priority[a] < priority[b], a, b)[both]] = True
        fresh = alive & ~beaten
        chosen |= fresh
        alive &= beaten
        alive[a[fresh[b]]] = False
        alive[b[fresh[a]]] = False
    return chosen


def _halls(site: _Site, noise: Noise) -> Lots:
    """Return halls and shops; each stays in its lattice cell and block, so no two overlap."""
    x, y, angle, block, words, points = _candidates(
        site, noise, "halls", HALL_BLOCK, HALL_LOT, 0.0, "commercial"
    )
    draw = words * 2.0**-32
    row, col, _ = site.index(x, y)
    away_x, away_y = site.away_x[row, col], site.away_y[row, col]
    roadside = (site.road[row, col] < ROAD - 1.0) & (np.hypot(away_x, away_y) > 0.2)
    angle = np.where(roadside, np.arctan2(away_y, away_x) + 0.5 * np.pi, angle)
    length, width = 26.0 + 11.0 * draw[:, 2], 16.0 + 8.0 * draw[:, 3]
    stands = np.zeros(len(x), bool)
    for shrink in (1.0, 0.6):
        smaller = ~stands
        length, width = (
            np.where(smaller, length * shrink, length),
            np.where(smaller, width * shrink, width),
        )
        corner = _corners(x, y, angle, length, width)
        inside = (nearest_point(points, corner[..., 0], corner[..., 1]) == block[:, None]).all(
            axis=1
        )
        stands |= inside & _fits(site, x, y, angle, length, width)
    stands &= ~site.mapped[row, col] & (draw[:, 4] < 0.85)
    n = len(x)
    return Lots(corner, _key(words), np.ones(n, bool), np.zeros(n, bool)).take(stands)
