"""Plants: mapped trees, woods, gardens, orchards, shrubs, hedges, crops and grass.

Trees stand on jittered lattices. Each is drawn from its own key, and depends only on the land cover
and the buildings around it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from earthgen.noise.fields import (
    gradient_noise,
    gradient_noise_at,
    jittered_lattice,
    nearest_point,
    voronoi_cells,
)
from earthgen.noise.philox import Noise, Stream
from earthgen.terrain.cover import CODES, class_code, is_class, on_surface
from earthgen.terrain.filters import nearest_cell, whole_cells
from earthgen.terrain.reach import Reach, widest_reach
from earthgen.voxels.objects import BROADLEAF, BUSH, HEDGE, NEEDLELEAF, object_number
from earthgen_procedural.fields import BLOCK, LEY, Fields, field_blocks
from geo_io.frame import Frame
from geo_io.layers import Trees
from geo_io.legend import classes

# Metres.
CROWN_RADIUS = 8.0  # of the widest crown, without bulges
BULGE = 1.3  # greatest extent of a crown in radii
MAPPED = 24.0  # no garden trees are added this close to a mapped tree
MAPPED_ROW = 6.0  # and no trees of rows and hedges this close to one, or to a mapped hedge
WALL, KERB = 2.5, 1.5  # least distance of trunks from walls and roads
EDGE = 6.0  # trees this close to a wood's edge are lower, with branches down to the ground
CROWN_REACH = Reach(BULGE * CROWN_RADIUS, 1)
"""Reach from a voxel to the trunk of a crown that may contain it."""
TRUNK_REACH = widest_reach(Reach(max(MAPPED, WALL, KERB, EDGE), 2), Reach(1.5, 3))
"""Reach from a trunk to what decides on it: mapped trees, walls, roads, the wood's edge, hedges."""
LOW_REACH = Reach(1.5, 2)
"""Reach from a cell to what decides its low growth: the borders of fields and gardens."""
HEDGE_VOXEL = 2.5  # the largest voxels with hedges, which are too narrow for larger ones

BROADLEAF_SPACING, NEEDLELEAF_SPACING = 6.2, 4.5
ORCHARD_ROWS, ORCHARD_SPACING = 6.5, 4.5
ROW_SPACING = 4.0  # of trees where the land class is trees and hedges
GARDEN_SPACING = 7.0
SHRUB_SPACING = 2.4

GARDEN_CHANCE = {
    "residential": 0.30,
    "commercial": 0.05,
    "grass": 0.10,
    "grassland": 0.02,
    "wetland": 0.06,
    "paved": 0.012,
    "sports": 0.015,
    "bare_ground": 0.015,
    "extraction": 0.01,
    "rock": 0.01,
}
"""Probability of a tree or bush at a point of the garden lattice, by land class."""

GARDEN_LOT, GARDEN_HEDGE, GARDEN_HEDGE_VOXEL = 21.0, 0.28, 1.3
"""Gardens: width in metres, probability of a hedge between two, and the largest voxels with one."""

NEEDLES = 2
"""Of the leaves in `geo_io.layers.Trees`."""

ELLIPSOID, CONE, DOME = 0, 1, 2
"""Shapes of crowns."""


@dataclass(frozen=True)
class Plants:
    """n trees and bushes, the tallest first.

    Attributes
    ----------
    x, y : NDArray (n,) float64
        Position of the trunk, CRS metres.
    height, radius, base : NDArray (n,) float64
        Top, half width of the crown, and underside of the crown, metres.
    shape : NDArray (n,) int64
        Shape of the crown.
    phase : NDArray (n, 3) float64
        Phases of the crown's bulges, radians.
    semantic : NDArray (n,) uint8
        Class.
    object : NDArray (n,) uint32
        Object number.
    """

    x: NDArray
    y: NDArray
    height: NDArray
    radius: NDArray
    base: NDArray
    shape: NDArray
    phase: NDArray
    semantic: NDArray
    object: NDArray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Site:
    """The surroundings of plants: arrays (ny, nx) on a frame.

    Attributes
    ----------
    frame : Frame
        Of the arrays.
    cover : NDArray uint8
        Land classes.
    built : NDArray bool
        Where buildings and other structures stand.
    shows_trees : NDArray bool
        Where a surface model shows the trees.
    measured : NDArray bool
        Where a surface model has data, or the map says what is there: a pitch, a car park.
    built_class : NDArray uint8
        Classes of what is built.
    """

    frame: Frame
    cover: NDArray
    built: NDArray
    shows_trees: NDArray
    measured: NDArray
    built_class: NDArray

    def at(self, layer: NDArray, x: NDArray, y: NDArray) -> NDArray:
        """Return the values of a layer at points on the frame."""
        return np.asarray(layer[self.cell(x, y)])

    def holds(self, x: NDArray, y: NDArray) -> NDArray:
        """Return whether points lie on the frame."""
        row, col = self.cell(x, y)
        return np.asarray((row >= 0) & (row < self.frame.ny) & (col >= 0) & (col < self.frame.nx))

    def cell(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Return row and column of the cells that contain points."""
        size = self.frame.voxel_size
        row = self.frame.y[1] - 1 - np.floor(y / size).astype(np.int64)
        return row, np.floor(x / size).astype(np.int64) - self.frame.x[0]

    def crop(self, inner: Frame) -> Site:
        """Return the part on a frame inside this one."""
        part = self.frame.slices(inner)
        return Site(
            inner,
            self.cover[part],
            self.built[part],
            self.shows_trees[part],
            self.measured[part],
            self.built_class[part],
        )


def plant(site: Site, field: Fields, trees: Trees, noise: Noise) -> Plants:
    """Return all trees and bushes whose trunks stand on the site's frame."""
    size = site.frame.voxel_size
    wall, _ = nearest_cell(site.built, max(whole_cells(WALL, size), 1))
    kerb, _ = nearest_cell(on_surface(site.cover, "road"), max(whole_cells(KERB, size), 1))
    clear = (
        (wall * size > WALL)
        & (kerb * size > KERB)
        & ~on_surface(site.cover, "water", "road")
        & ~site.built
    )
    parts = [_source_trees(site, trees, noise)]
    parts += [_wood(site, noise, kind, clear) for kind in (BROADLEAF, NEEDLELEAF)]
    parts += [_orchard(site, noise, clear), _rows(site, trees, noise)]
    parts += [_shrubs(site, noise, clear)]
    parts += [_gardens(site, trees, noise, clear), _hedge_trees(site, field, noise, clear)]
    return _join_sorted([part for part in parts if len(part)])


def _join_sorted(parts: list[Plants]) -> Plants:
    if not parts:
        empty = np.empty(0)
        return Plants(
            empty,
            empty,
            empty,
            empty,
            empty,
            empty.astype(np.int64),
            np.empty((0, 3)),
            empty.astype(np.uint8),
            empty.astype(np.uint32),
        )
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Plants)
    }
    order = np.lexsort((joined["object"], joined["x"], joined["y"], -joined["height"]))
    return Plants(**{name: values[order] for name, values in joined.items()})


def _lattice(
    site: Site, stream: Stream, spacing: float, mask: NDArray, jitter: float = 0.75
) -> tuple[NDArray, ...]:
    """Return x, y, key and (n, 8) uniform draws of the lattice points on masked cells."""
    if not mask.any():
        return np.empty(0), np.empty(0), np.empty(0, np.uint32), np.empty((0, 8))
    points = jittered_lattice(stream, site.frame, max(spacing, site.frame.voxel_size), jitter)
    x, y, key = points.x.ravel(), points.y.ravel(), points.key.ravel()
    keep = site.holds(x, y)
    keep[keep] = site.at(mask, x[keep], y[keep])
    return x[keep], y[keep], key[keep], _draws(stream, key[keep])


def _draws(stream: Stream, key: NDArray) -> NDArray:
    """Return eight uniform draws of each key: (n, 8) float64 in [0, 1)."""
    return (
        np.concatenate([stream.bits(key, 0, 1, channel) for channel in (8, 9)], axis=-1) * 2.0**-32
    )


def _make_plants(
    size: float,
    x: NDArray,
    y: NDArray,
    height: NDArray,
    radius: NDArray,
    base: NDArray,
    shape: NDArray | int,
    semantic: NDArray | int,
    key: NDArray,
    kind: NDArray | int,
    draw: NDArray,
) -> Plants:
    """Return plants; crowns are at least a voxel wide, so that each contains a voxel's centre."""
    n = len(x)
    radius = np.clip(radius, 0.55 * size, max(CROWN_RADIUS, 0.55 * size))
    phase = draw[:, [0, 3, 6]] * (2.0 * np.pi)
    shape_of = np.broadcast_to(np.asarray(shape, np.int64), n)
    number = object_number(key, kind) if n else np.empty(0, np.uint32)
    semantic_of = np.broadcast_to(np.asarray(semantic, np.uint8), n)
    return Plants(x, y, height, radius, base, shape_of, phase, semantic_of, number)


def _source_trees(site: Site, trees: Trees, noise: Noise) -> Plants:
    keep = site.holds(trees.xy[:, 0], trees.xy[:, 1])
    xy, key = trees.xy[keep], trees.key[keep]
    stream = noise.stream("trees")
    draw = np.stack([stream.of_objects(key, c) for c in range(8)], axis=1).reshape(-1, 8)
    cover = site.at(site.cover, xy[:, 0], xy[:, 1])
    needle = is_class(cover, "needleleaf_forest") | (
        is_class(cover, "mixed_forest") & (draw[:, 4] < 0.5)
    )
    leaf = trees.leaf[keep]
    needle = np.where(leaf == 0, needle, leaf == NEEDLES)
    height = np.where(np.isfinite(trees.height[keep]), trees.height[keep], 6.0 + 9.0 * draw[:, 1])
    height = np.maximum(height, 1.0)
    width = np.where(needle, 0.3, 0.45 + 0.15 * draw[:, 2]) * height
    radius = 0.5 * np.where(
        np.isfinite(trees.crown[keep]), trees.crown[keep], np.clip(width, 1.5, 11.0)
    )
    wood = on_surface(cover, "wood", "tree", "shrub")
    return _make_plants(
        site.frame.voxel_size,
        xy[:, 0],
        xy[:, 1],
        height,
        radius,
        height * np.where(needle, 0.15, 0.3),
        np.where(needle, CONE, ELLIPSOID),
        np.where(wood, cover, class_code("tree")),
        key,
        np.where(needle, NEEDLELEAF, BROADLEAF),
        draw,
    )


def _wood(site: Site, noise: Noise, kind: int, clear: NDArray) -> Plants:
    """Return the broadleaf or needleleaf trees of woods; in mixed woods they grow in patches."""
    name = ("broadleaf", "needleleaf")[kind]
    spacing = (BROADLEAF_SPACING, NEEDLELEAF_SPACING)[kind]
    mixed = is_class(site.cover, "mixed_forest")
    mask = (is_class(site.cover, f"{name}_forest") | mixed) & ~site.shows_trees & clear
    x, y, key, draw = _lattice(site, noise.stream(f"wood.{name}"), spacing, mask)
    size = site.frame.voxel_size
    if len(x) == 0:
        return _join_sorted([])
    stands = noise.stream("wood.stands")
    stand = gradient_noise_at(stands, site.frame, x, y, 110.0, 0) * 0.5 + 0.5
    patch = 0.6 * gradient_noise_at(stands, site.frame, x, y, 45.0, 1)
    patch = patch + 0.6 * gradient_noise_at(stands, site.frame, x, y, 190.0, 3)
    gap = gradient_noise_at(stands, site.frame, x, y, 38.0, 2)
    is_mixed = site.at(mixed, x, y)
    own = (patch > 0.05) == (kind == NEEDLELEAF)
    keep = (
        (gap > -0.72)
        & (draw[:, 0] < 0.97)
        & np.where(is_mixed, np.where(own, True, draw[:, 5] < 0.1), True)
    )
    rim, _ = nearest_cell(~on_surface(site.cover, "wood"), max(whole_cells(EDGE, size), 1))
    edge = site.at(rim, x, y) * size < EDGE

    cover = site.at(site.cover, x, y)
    low, high = _height_range()[cover].T
    height = low + (high - low) * np.clip(0.15 + 0.5 * stand + 0.35 * (draw[:, 1] - 0.3), 0.05, 1.0)
    height = height * np.where(edge, 0.6 + 0.25 * draw[:, 2], 1.0)
    if kind == BROADLEAF:
        radius, base = spacing * (0.48 + 0.2 * draw[:, 2]), height * np.where(edge, 0.12, 0.38)
    else:
        radius, base = spacing * (0.52 + 0.2 * draw[:, 2]), height * np.where(edge, 0.05, 0.25)
    shape = CONE if kind == NEEDLELEAF else ELLIPSOID
    plants = _make_plants(
        size, x, y, height, radius * max(1.0, size / spacing), base, shape, cover, key, kind, draw
    )
    return _select(plants, keep)


def _select(plants: Plants, keep: NDArray) -> Plants:
    return Plants(*(getattr(plants, f.name)[keep] for f in fields(plants)))


def _height_range() -> NDArray:
    """Return the default range of heights by class: (CODES, 2) float64 metres."""
    table = np.zeros((CODES, 2))
    for land in classes():
        table[land.code] = land.height
    return table


def _orchard(site: Site, noise: Noise, clear: NDArray) -> Plants:
    """Return fruit trees in rows that run in the direction of the fields' rows."""
    size = site.frame.voxel_size
    mask = is_class(site.cover, "orchard") & clear & ~site.shows_trees
    stream = noise.stream("orchard")
    if not mask.any():
        return _join_sorted([])
    blocks, of_block = field_blocks(site.frame, noise)
    turn = of_block[:, 0] * np.pi
    step_u, step_v = max(ORCHARD_SPACING, size), max(ORCHARD_ROWS, size)
    left, bottom, right, top = site.frame.bounds
    parts = []
    for b in range(len(turn)):
        # The range of lattice points in the frame, from its corners in block coordinates.
        dx = np.array([left, right, left, right]) - blocks.x.flat[b]
        dy = np.array([bottom, bottom, top, top]) - blocks.y.flat[b]
        cos, sin = np.cos(turn[b]), np.sin(turn[b])
        u, v = (
            np.clip(dx * cos + dy * sin, -BLOCK, BLOCK),
            np.clip(dy * cos - dx * sin, -BLOCK, BLOCK),
        )
        i = np.arange(int(np.floor(u.min() / step_u)), int(np.ceil(u.max() / step_u)) + 1)
        j = np.arange(int(np.floor(v.min() / step_v)), int(np.ceil(v.max() / step_v)) + 1)
        i, j = (a.ravel() for a in np.meshgrid(i, j))
        draw = np.concatenate([stream.bits(blocks.key.flat[b], i, j, c) for c in (0, 1)], axis=-1)
        u, v = (i + 0.5 + 0.16 * (draw[:, 6] * 2.0**-32 - 0.5)) * step_u, (j + 0.5) * step_v
        x, y = blocks.x.flat[b] + u * cos - v * sin, blocks.y.flat[b] + u * sin + v * cos
        keep = site.holds(x, y)
        keep[keep] = site.at(mask, x[keep], y[keep])
        keep[keep] = nearest_point(blocks, x[keep], y[keep]) == b
        parts.append((x[keep], y[keep], draw[keep]))
    x, y, words = (np.concatenate([part[c] for part in parts]) for c in range(3))
    draw = words * 2.0**-32
    height = 2.6 + 1.8 * draw[:, 1]
    radius, base = 1.2 + 0.4 * draw[:, 2], height * 0.28
    plants = _make_plants(
        size,
        x,
        y,
        height,
        radius,
        base,
        ELLIPSOID,
        class_code("orchard"),
        words[:, 7],
        BROADLEAF,
        draw,
    )
    return _select(plants, draw[:, 4] < 0.94)


def _rows(site: Site, trees: Trees, noise: Noise) -> Plants:
    """Return plants of the class trees and hedges: bushes where it is narrow, trees where wide.

    None are added where the trees themselves are mapped, or a hedge.
    """
    mask = is_class(site.cover, "tree") & ~site.shows_trees & ~site.built
    if mask.any():
        size = site.frame.voxel_size
        known = site.holds(trees.xy[:, 0], trees.xy[:, 1])
        stands = site.built & is_class(site.built_class, "tree")
        stands[site.cell(trees.xy[known, 0], trees.xy[known, 1])] = True
        near, _ = nearest_cell(stands, max(whole_cells(MAPPED_ROW, size), 1))
        mask &= np.isinf(near)
    x, y, key, draw = _lattice(site, noise.stream("rows"), ROW_SPACING, mask, 0.5)
    size = site.frame.voxel_size
    rim, _ = nearest_cell(~is_class(site.cover, "tree"), max(whole_cells(4.0, size), 1))
    wide = site.at(rim, x, y) * size > 2.5 if len(x) else np.empty(0, bool)
    tall = draw[:, 4] < np.where(wide, 0.75, 0.22)
    height = np.where(tall, 6.0 + 6.0 * draw[:, 1] ** 1.2, 2.0 + 1.6 * draw[:, 1])
    radius = np.where(tall, 0.24 * height + 0.6 * draw[:, 2], 1.5 + 0.7 * draw[:, 2])
    base = np.where(tall, 0.22 * height, 0.0)
    shape = np.where(tall, ELLIPSOID, DOME)
    return _make_plants(
        size,
        x,
        y,
        height,
        radius,
        base,
        shape,
        class_code("tree"),
        key,
        np.where(tall, BROADLEAF, BUSH),
        draw,
    )


def _shrubs(site: Site, noise: Noise, clear: NDArray) -> Plants:
    mask = is_class(site.cover, "shrub") & ~site.shows_trees & clear
    stream = noise.stream("shrubs")
    x, y, key, draw = _lattice(site, stream, SHRUB_SPACING, mask)
    size = site.frame.voxel_size
    # Thickets, heath and glades at three scales.
    patch = np.zeros(len(x))
    for channel, (wavelength, weight) in enumerate(((22.0, 0.45), (75.0, 0.5), (240.0, 0.5))):
        if len(x):
            patch += weight * gradient_noise_at(stream, site.frame, x, y, wavelength, 3 + channel)
    height = 0.6 + 1.9 * np.clip(0.4 + 0.6 * patch + 0.5 * (draw[:, 1] - 0.5), 0.0, 1.0)
    tree = draw[:, 5] < 0.02 + 0.10 * np.clip(patch - 0.1, 0.0, 1.0)
    height = np.where(tree, 4.0 + 3.0 * draw[:, 1] + 2.0 * np.clip(patch, 0.0, 1.0), height)
    radius = np.where(tree, 1.6 + 0.8 * draw[:, 2], 0.5 + (0.35 + 0.35 * draw[:, 2]) * height)
    base, shape = np.where(tree, 0.8, 0.0), np.where(tree, ELLIPSOID, DOME)
    plants = _make_plants(
        size, x, y, height, radius, base, shape, class_code("shrub"), key, BUSH, draw
    )
    return _select(plants, draw[:, 4] < np.clip(0.55 + 1.1 * patch, 0.04, 1.0))


def _gardens(site: Site, trees: Trees, noise: Noise, clear: NDArray) -> Plants:
    """Return sparse trees and bushes of gardens, parks and pastures where no trees are mapped."""
    size = site.frame.voxel_size
    chance = np.zeros(CODES)
    for name, share in GARDEN_CHANCE.items():
        chance[class_code(name)] = share
    points = np.zeros(site.frame.shape, bool)
    known = site.holds(trees.xy[:, 0], trees.xy[:, 1])
    points[site.cell(trees.xy[known, 0], trees.xy[known, 1])] = True
    mapped, _ = nearest_cell(points, max(whole_cells(MAPPED, size), 1))
    mask = (chance[site.cover] > 0) & ~site.measured & clear & np.isinf(mapped)
    stream = noise.stream("gardens")
    x, y, key, draw = _lattice(site, stream, GARDEN_SPACING, mask)
    if len(x) == 0:
        return _join_sorted([])
    patch = gradient_noise_at(stream, site.frame, x, y, 70.0, 4)
    keep = draw[:, 4] < chance[site.at(site.cover, x, y)] * np.clip(1.0 + 1.6 * patch, 0.0, 2.5)
    cover = site.at(site.cover, x, y)
    bush = draw[:, 5] < np.where(is_class(cover, "grass", "paved", "commercial"), 0.15, 0.45)
    needle = ~bush & (draw[:, 6] < 0.18)
    height = np.where(bush, 1.2 + 1.3 * draw[:, 1], 4.5 + 6.5 * draw[:, 1] ** 1.4)
    radius = np.where(
        bush, 0.7 + 0.7 * draw[:, 2], np.where(needle, 0.18, 0.25 + 0.1 * draw[:, 2]) * height
    )
    base = np.where(bush, 0.0, height * np.where(needle, 0.1, 0.27))
    shape = np.where(bush, DOME, np.where(needle, CONE, ELLIPSOID))
    kind = np.where(bush, BUSH, np.where(needle, NEEDLELEAF, BROADLEAF))
    return _select(
        _make_plants(size, x, y, height, radius, base, shape, class_code("tree"), key, kind, draw),
        keep,
    )


def _hedge_trees(site: Site, field: Fields, noise: Noise, clear: NDArray) -> Plants:
    """Return trees in the hedges between fields."""
    size = site.frame.voxel_size
    if size > HEDGE_VOXEL or not field.hedge.any():
        mask = np.zeros(site.frame.shape, bool)
    else:
        distance, _ = nearest_cell(field.hedge, max(whole_cells(1.5, size), 1))
        mask = np.isfinite(distance) & clear & ~site.measured
    x, y, key, draw = _lattice(site, noise.stream("hedges.trees"), 5.0, mask, 0.9)
    height = 5.0 + 6.0 * draw[:, 1] ** 1.5
    radius = height * (0.25 + 0.1 * draw[:, 2])
    plants = _make_plants(
        size,
        x,
        y,
        height,
        radius,
        0.25 * height,
        ELLIPSOID,
        class_code("tree"),
        key,
        BROADLEAF,
        draw,
    )
    return _select(plants, draw[:, 4] < 0.4)


@dataclass(frozen=True)
class LowGrowth:
    """The low growth on the ground.

    Attributes
    ----------
    height : NDArray (ny, nx) float32
        Metres, 0 for bare ground.
    semantic : NDArray (ny, nx) uint8
        Class.
    object : NDArray (ny, nx) uint32
        Object number of hedges, 0 for crops and grass.
    """

    height: NDArray
    semantic: NDArray
    object: NDArray


def low_growth(site: Site, field: Fields, noise: Noise) -> LowGrowth:
    """Return grass, crops, hedges and reed, and the roughness of rock and rubble."""
    frame, cover = site.frame, site.cover
    size = frame.voxel_size
    stream = noise.stream("low")
    fine = gradient_noise(stream, frame, 5.0, 0) * 0.5 + 0.5
    coarse = gradient_noise(stream, frame, 26.0, 1) * 0.5 + 0.5
    height = np.zeros(frame.shape, np.float32)

    crop = on_surface(cover, "crop")
    margin = field.edge & (size <= HEDGE_VOXEL)
    grown = field.height * (0.92 + 0.16 * coarse)
    height = np.where(crop, np.where(margin, np.minimum(grown, 0.2), grown), height)
    ley = crop & (field.crop == LEY)
    height = np.where(
        is_class(cover, "grassland") | ley, 0.1 + 0.35 * coarse * (0.5 + 0.5 * fine), height
    )
    height = np.where(is_class(cover, "grass"), 0.06, height)
    reed = np.clip((coarse - 0.35) * 4.0, 0.0, 1.0)
    height = np.where(is_class(cover, "wetland"), 0.2 + 1.2 * reed * (0.6 + 0.4 * fine), height)
    height = np.where(is_class(cover, "rock"), 0.6 * fine**2, height)
    height = np.where(is_class(cover, "extraction"), np.clip(2.2 * coarse - 0.9, 0.0, 1.0), height)
    height = np.where(is_class(cover, "rail"), 0.2, height)
    height = np.where(site.built, 0.0, height).astype(np.float32)

    semantic, number = cover.copy(), np.zeros(frame.shape, np.uint32)
    hedge = _hedges(site, field, stream) | _garden_hedges(site, noise)
    if hedge.any():
        bushes = jittered_lattice(stream, frame, max(5.0, size), 0.8)
        key = object_number(bushes.key.ravel(), HEDGE)[voronoi_cells(bushes, frame)]
        low = is_class(cover, "residential")
        height = np.where(hedge, np.where(low, 1.1 + 0.4 * fine, 1.3 + 1.3 * fine), height).astype(
            np.float32
        )
        semantic = np.where(hedge, np.uint8(class_code("tree")), semantic)
        number = np.where(hedge, key, number)
    return LowGrowth(height, semantic, number)


def _hedges(site: Site, field: Fields, stream: Stream) -> NDArray:
    """Return where hedges stand between fields, with gaps: (ny, nx) bool."""
    size = site.frame.voxel_size
    if size > HEDGE_VOXEL or not field.hedge.any():
        return np.zeros(site.frame.shape, bool)
    distance, _ = nearest_cell(field.hedge, max(whole_cells(1.0, size), 1))
    near = distance * size <= max(0.75, 0.1 * size)
    gaps = gradient_noise(stream, site.frame, 17.0, 2) > -0.55
    land = on_surface(site.cover, "crop", "meadow") & ~site.built & ~site.measured
    return np.asarray(near & gaps & land)


def _garden_hedges(site: Site, noise: Noise) -> NDArray:
    """Return hedges between some gardens of a Voronoi diagram: (ny, nx) bool."""
    size, frame = site.frame.voxel_size, site.frame
    garden = is_class(site.cover, "residential") & ~site.built & ~site.measured
    if size > GARDEN_HEDGE_VOXEL or not garden.any():
        return np.zeros(frame.shape, bool)
    points = jittered_lattice(noise.stream("gardens.lots"), frame, GARDEN_LOT, 0.6)
    plot = points.key.ravel()[voronoi_cells(points, frame)].astype(np.uint64)
    wall, _ = nearest_cell(site.built, max(whole_cells(1.5, size), 1))
    hedge = np.zeros(frame.shape, bool)
    stream = noise.stream("gardens.hedges")
    # Both cells of a border have a hedge; the frame's outermost cells are not used.
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        other = np.roll(plot, step, axis)
        between = garden & (other != plot) & np.isinf(wall)
        low, high = np.minimum(plot, other)[between], np.maximum(plot, other)[between]
        hedge[between] |= stream.of_objects(low << np.uint64(32) | high) < GARDEN_HEDGE
    return hedge
