"""Land cover corrupted as maps are, on the device of a batch.

The land cover of a scene comes from the survey that its heights come from, and follows every tree.
A map that a user has does not: measured on Bayreuth, "the map has something tall there" and "what
stands there is taller than 2 m" have an intersection over union of 0.46 where the map has land use
at all, and of 0.23 over everything; the survey's own land cover has 0.93 and more. A network that
was trained on the latter believes every outline.

Each sample has a strength of its own, and some are left clean. What is done, in this order: single
trees become the ground around them; outlines of areas are simplified by a few metres, as polygons
or as a coarse raster; gardens and yards become built-up areas; areas are shifted; whole areas, or
half of the map, become unmapped (0). Small buildings are dropped, blocks are merged, and in some
samples footprints are shifted by a cell, or wider or narrower by one. Numbers, heights and axes of
buildings follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earthgen.models.conditions import Conditions
from earthgen.models.height_state import wood_table
from earthgen.models.presets import CLASSES
from earthgen.training.batches import Batch
from earthgen.training.data import ADDED_CLASSES
from geo_io.legend import classes, codes

LEAST_STRENGTH = 0.3
"""Least strength of a sample that is corrupted; the largest is 1."""

WOOD_WIDTH, WOOD_DENSITY = 24.0, 0.55
"""Trees are a wood where they cover this share of a square of so many metres, else single trees."""

TREE_DROP = 0.95
"""Share of single trees that are dropped at full strength: few maps have any."""

OUTLINES = (0.0, 2.0, 4.0, 8.0)
"""Metres over which outlines of areas are simplified; the strength chooses among them."""

RASTER = 0.25
"""Probability that areas are a coarse raster instead of polygons."""

SHIFT_AREAS = 2.0
"""Metres that areas are shifted at most along each axis."""

AREA_WIDTH = 40.0
"""Metres across a polygon of a map, about."""

BUILT_UP, BUILT_SHARE = 0.4, 0.06
"""Probability that land around buildings is a built-up area, from this share of buildings on."""

UNMAPPED = 0.45
"""Share of areas that are not mapped, at most."""

NO_AREAS, HALF_MAP = 0.1, 0.15
"""Probabilities that a map has no areas at all, as OpenStreetMap in many places, and that it ends
within the sample."""

NO_LINES = 0.1
"""Probability that roads and railways are not mapped."""

DROP, DROP_SMALL, SMALL = 0.03, 0.5, 30.0
"""Share of buildings that are not mapped, of all and of those below so many square metres."""

SHIFT_BUILDINGS, RESIZE_BUILDINGS, MERGE_BUILDINGS = 0.25, 0.2, 0.15
"""Probabilities that footprints are shifted by a cell, that they are wider or narrower by one, and
that buildings which touch are one block without axes."""

MERGE_STEPS = 24
"""Cells over which the number of a block spreads."""


@dataclass(frozen=True)
class LandMap:
    """What a map says about the columns of a batch.

    Attributes
    ----------
    cover : Tensor (batch, ny, nx) uint8
        Class codes, 0 unmapped.
    building : Tensor (batch, ny, nx) int64
        Number of the building, 0 for none; it has one where, and only where, the class is building.
    told : Tensor (batch, ny, nx) float32
        Height of the building, metres; 0 where there is none.
    axes : Tensor (batch, ny, nx, 4) float32
        As of `earthgen.models.height_state.object_maps`.
    gaps : Tensor (batch,) bool
        Whether the map leaves out what is there.
    """

    cover: Tensor
    building: Tensor
    told: Tensor
    axes: Tensor
    gaps: Tensor

    def select(self, other: LandMap, where: Tensor) -> LandMap:
        """Return this map where `where` (batch,) bool, else the other."""
        wide = where[:, None, None]
        return LandMap(
            torch.where(wide, self.cover, other.cover),
            torch.where(wide, self.building, other.building),
            torch.where(wide, self.told, other.told),
            torch.where(wide[..., None], self.axes, other.axes),
            torch.where(where, self.gaps, other.gaps),
        )


def batch_map(batch: Batch, of_map: Tensor | None = None) -> LandMap:
    """Return the land cover of a batch as it is.

    Parameters
    ----------
    batch : Batch
        Crops.
    of_map : Tensor (batch,) bool, optional
        Samples that take the class of the scene's map, which of simulated scenes is the land use
        that they were made from, instead of the class of what stands there.
    """
    cover = batch.classes
    if of_map is None:
        of_map = torch.zeros(len(batch), dtype=torch.bool, device=cover.device)
    else:
        mapped = torch.where(batch.valid, batch.map, 0)
        cover = torch.where(of_map[:, None, None], mapped, cover)
    built = cover == codes()["building"]
    # A building without a number, of a scene without footprints, has the number of no other.
    number = torch.where(batch.building > 0, batch.building, torch.iinfo(torch.int32).max)
    return LandMap(
        cover,
        torch.where(built, number, 0),
        torch.where(built, batch.told, 0.0),
        torch.where(built[..., None], batch.axes, 0.0),
        of_map,
    )


def draw_map(
    batch: Batch, map_ratio: float, map_noise: float, generator: torch.Generator
) -> LandMap:
    """Return land cover as users have it.

    Parameters
    ----------
    batch : Batch
        Crops.
    map_ratio : float
        Probability that a sample starts from the scene's map, see `batch_map`.
    map_noise : float
        Probability that a sample is corrupted.
    generator : torch.Generator
        Draws everything, on the device of the batch.
    """
    random = torch.rand(2, len(batch), generator=generator, device=generator.device)
    land = batch_map(batch, random[0] < map_ratio)
    if not map_noise:
        return land
    spread = torch.rand(len(batch), generator=generator, device=generator.device)
    strength = LEAST_STRENGTH + (1 - LEAST_STRENGTH) * spread
    strength = torch.where(random[1] < map_noise, strength, 0.0)
    return corrupt_map(land, batch.sites.place.voxel_size, strength, generator)


def noisy_conditions(
    batch: Batch, map_ratio: float, map_noise: float, generator: torch.Generator
) -> Conditions:
    """Return the conditions of a batch with land cover as users have it, see `draw_map`."""
    land = draw_map(batch, map_ratio, map_noise, generator)
    return replace(batch.conditions, semantics=land.cover)


def noisy_ground(
    batch: Batch, map_ratio: float, map_noise: float, generator: torch.Generator
) -> Batch:
    """Return a batch whose ground has the classes of a map, see `draw_map`; what stands stays.

    For textures: their land cover is that of a geometry, in which a map's outlines are the ground
    and a plant or building is one.
    """
    land = draw_map(batch, map_ratio, map_noise, generator)
    stands = torch.from_numpy(_standing_table()).to(batch.cover.device)
    ground = (land.cover != 0) & ~stands[land.cover.long()] & ~stands[batch.classes.long()]
    sample, x, y, _ = batch.sites.coordinates.long().unbind(1)
    row = batch.cover.shape[1] - 1 - y
    below = ground[sample, row, x] & ~stands[batch.semantic.long()]
    return replace(
        batch,
        cover=torch.where(ground, land.cover, batch.cover),
        semantic=torch.where(below, land.cover[sample, row, x], batch.semantic),
    )


def _standing_table() -> NDArray:
    """(256,) bool: classes of things that stand on the ground."""
    table = wood_table().copy()
    for land in classes():
        table[land.code] |= land.surface in ("building", "shrub")
    return table


def corrupt_map(
    land: LandMap, voxel_size: float, strength: Tensor, generator: torch.Generator
) -> LandMap:
    """Return land cover corrupted as maps are.

    Parameters
    ----------
    land : LandMap
        The true land cover.
    voxel_size : float
        Metres.
    strength : Tensor (batch,) float32
        0 leaves a sample as it is, 1 is the most.
    generator : torch.Generator
        Draws everything; on the device of the land cover.
    """
    draw = _Draw(generator, len(strength))
    areas = _areas(land, voxel_size, strength, draw)
    lines = torch.zeros_like(land.cover)
    for name in ("road", "rail"):
        lines = torch.where(land.cover == codes()[name], land.cover, lines)
    lines = _shifted(lines, draw.integers(-1, 1), draw.integers(-1, 1))
    lines = torch.where(draw.chance(NO_LINES)[:, None, None], 0, lines)
    cover = torch.where(lines > 0, lines, areas)
    buildings = _buildings(land, voxel_size, strength, draw)
    cover = torch.where(buildings.building > 0, codes()["building"], cover)
    outside = _half_planes(land.cover.shape, draw) & draw.chance(HALF_MAP)[:, None, None]
    result = LandMap(
        torch.where(outside, 0, cover).to(land.cover.dtype),
        torch.where(outside, 0, buildings.building),
        torch.where(outside, 0.0, buildings.told),
        torch.where(outside[..., None], 0.0, buildings.axes),
        torch.ones_like(land.gaps),
    )
    return result.select(land, strength > 0)


@dataclass(frozen=True)
class _Draw:
    """Random numbers, one or more for each sample."""

    generator: torch.Generator
    batch: int

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), (batch, *shape)."""
        device = self.generator.device
        return torch.rand(self.batch, *shape, generator=self.generator, device=device)

    def chance(self, probability: float) -> Tensor:
        """Return True with a probability, (batch,) bool."""
        return self.uniform() < probability

    def integers(self, low: int, high: int) -> Tensor:
        """Return integers from low to high, both included, (batch,)."""
        return (low + (self.uniform() * (high - low + 1)).floor()).long()


def _areas(land: LandMap, voxel_size: float, strength: Tensor, draw: _Draw) -> Tensor:
    """Return the areas of a map, without lines and buildings, (batch, ny, nx) uint8."""
    cover, code = land.cover.long(), codes()
    device, shape = cover.device, cover.shape
    trees = torch.from_numpy(wood_table()).to(device)[cover]
    wood = trees & (_box_mean(trees.float(), WOOD_WIDTH / voxel_size) > WOOD_DENSITY)
    patches = _patches(shape, 12.0 / voxel_size, draw)
    drop = trees & ~wood & (patches < TREE_DROP * strength.sqrt()[:, None, None])
    on_top = land.building > 0
    for name in ("building", "road", "rail"):
        on_top = on_top | (cover == code[name])
    areas = _filled(cover, ~(drop | on_top), ~(trees | on_top | (cover == 0)), voxel_size)

    kind = torch.tensor([code[name] for name in ADDED_CLASSES[:3]])
    forest = kind.to(device)[draw.integers(0, len(kind) - 1)][:, None, None]
    areas = torch.where(wood & (areas == code["tree"]), forest, areas)

    # One polygon covers a neighbourhood, so it is one choice for each.
    polygons = _voronoi(shape, AREA_WIDTH / voxel_size, draw)
    built = _box_mean((land.building > 0).float(), AREA_WIDTH / voxel_size) > BUILT_SHARE
    plain = torch.zeros(CLASSES, dtype=torch.bool, device=device)
    plain[[code[n] for n in ("grass", "grassland", "bare_ground", "paved")]] = True
    residential, commercial = (code[name] for name in ADDED_CLASSES[3:])
    urban = torch.where(draw.chance(0.7), residential, commercial)
    share = draw.chance(BUILT_UP).float() * draw.uniform()
    grown = _by_polygon(draw, polygons) < share[:, None, None]
    areas = torch.where(built & plain[areas] & grown, urban[:, None, None], areas)

    polygons = polygons * CLASSES + areas
    lost = _by_polygon(draw, polygons) < (UNMAPPED * strength * draw.uniform())[:, None, None]
    areas = torch.where(lost, 0, areas)
    areas = _simplified(areas, voxel_size, strength, draw)
    far = max(round(SHIFT_AREAS / voxel_size), 1)
    areas = _shifted(areas, draw.integers(-far, far), draw.integers(-far, far))
    nothing = draw.chance(NO_AREAS)[:, None, None]
    return torch.where(nothing, 0, areas).to(land.cover.dtype)


def _buildings(land: LandMap, voxel_size: float, strength: Tensor, draw: _Draw) -> LandMap:
    """Return the buildings of a map; its cover is not set."""
    batch, ny, nx = land.building.shape
    sample = torch.arange(batch, device=land.building.device)[:, None, None]
    key = torch.where(land.building > 0, land.building + (sample << 33), 0)
    keys = torch.cat([key.new_zeros(1), key.reshape(-1)])
    every, index = torch.unique(keys, return_inverse=True)
    index = index[1:].reshape(batch, ny, nx)
    area = torch.bincount(index.reshape(-1), minlength=len(every)) * voxel_size**2
    random = torch.rand(len(every), generator=draw.generator, device=draw.generator.device)
    likely = torch.where(area < SMALL, DROP_SMALL, DROP)[index] * strength[:, None, None]
    index = torch.where(random[index] < likely, 0, index)

    moves = draw.chance(SHIFT_BUILDINGS)
    east, north = (torch.where(moves, draw.integers(-1, 1), 0) for _ in range(2))
    index, told = (_shifted(each, east, north) for each in (index, land.told))
    axes = torch.stack([_shifted(each, east, north) for each in land.axes.unbind(-1)], -1)

    resized = draw.chance(RESIZE_BUILDINGS)
    grows = (resized & draw.chance(0.5))[:, None, None]
    shrinks = resized[:, None, None] & ~grows
    largest, source = nn.functional.max_pool2d(
        index[:, None].float(), 3, stride=1, padding=1, return_indices=True
    )
    rim = grows & (index == 0) & (largest[:, 0] > 0)
    source = source.reshape(batch, -1)
    beside = told.reshape(batch, -1).gather(1, source).reshape(batch, ny, nx)
    index = torch.where(rim, largest[:, 0].long(), index)
    told = torch.where(rim, beside, told)
    wide = source[..., None].expand(-1, -1, 4)
    axes = torch.where(
        rim[..., None], axes.reshape(batch, -1, 4).gather(1, wide).reshape(axes.shape), axes
    )
    smallest = -nn.functional.max_pool2d(-index[:, None].float(), 3, stride=1, padding=1)[:, 0]
    index = torch.where(shrinks & (smallest == 0), 0, index)

    merged = draw.chance(MERGE_BUILDINGS).nonzero()[:, 0]
    blocks = index[merged].float()
    for _ in range(MERGE_STEPS):
        spread = nn.functional.max_pool2d(blocks[:, None], 3, stride=1, padding=1)[:, 0]
        blocks = torch.where(blocks > 0, spread, 0.0)
    block = blocks.long()
    count = torch.bincount(block.reshape(-1), minlength=len(every)).clamp(min=1)
    total = torch.zeros(len(every), device=told.device)
    total.index_add_(0, block.reshape(-1), told[merged].reshape(-1))
    index = index.index_copy(0, merged, block)
    told = told.index_copy(0, merged, (total / count)[block])
    axes = axes.index_fill(0, merged, 0.0)
    built = index > 0
    return LandMap(
        land.cover,
        torch.where(built, every[index], 0),
        torch.where(built, told, 0.0),
        torch.where(built[..., None], axes, 0.0),
        land.gaps,
    )


def _filled(cover: Tensor, keep: Tensor, donor: Tensor, voxel_size: float) -> Tensor:
    """Return classes with those that are not kept replaced by the most frequent donor around.

    Where there is none within 40 m it is grass.
    """
    present = _values(cover[donor])
    filled, missing = cover, ~keep
    if present:
        names = torch.tensor(present, device=cover.device)
        layers = torch.stack([(cover == code) & donor for code in present], 1).float()
        for width in (5.0, 15.0, 80.0):
            share = _box_mean(layers, width / voxel_size)
            most, which = share.max(1)
            found = missing & (most > 1e-6)
            filled = torch.where(found, names[which], filled)
            missing = missing & ~found
    return torch.where(missing, codes()["grass"], filled)


def _simplified(areas: Tensor, voxel_size: float, strength: Tensor, draw: _Draw) -> Tensor:
    """Return areas with simpler outlines: the most frequent class of a square, or of a cell."""
    pick = (strength * draw.uniform() * len(OUTLINES)).floor().long()
    raster = draw.chance(RASTER)
    present = _values(areas)
    names = torch.tensor(present, device=areas.device)
    layers = torch.stack([(areas == code).float() for code in present], 1)
    result = areas
    for number, metres in enumerate(OUTLINES):
        cells = round(metres / voxel_size)
        chosen = pick == number
        if cells < 2 or not bool(chosen.any()):
            continue
        mine = layers[chosen]
        polygon = names[_box_mean(mine, 2 * cells + 1).argmax(1)]
        mean = nn.functional.avg_pool2d(mine, cells, ceil_mode=True, count_include_pad=False)
        coarse = names[mean.argmax(1)].repeat_interleave(cells, 1).repeat_interleave(cells, 2)
        coarse = coarse[:, : areas.shape[1], : areas.shape[2]]
        result = result.clone()
        result[chosen] = torch.where(raster[chosen][:, None, None], coarse, polygon)
    return result


def _values(maps: Tensor) -> list[int]:
    """Return the values that occur, in ascending order."""
    return torch.unique(maps).tolist()


def _box_mean(values: Tensor, width: float) -> Tensor:
    """Return the mean over squares, of what of them is inside.

    `values` are (batch, ny, nx) or (batch, channels, ny, nx) float32, `width` is in cells.
    """
    radius = max(int(width / 2), 1)
    for axis in (-2, -1):
        # Running sums take the same time for every width.
        count = values.shape[axis]
        total = nn.functional.pad(values.cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
        here = torch.arange(count, device=values.device)
        last, first = (here + radius + 1).clamp(max=count), (here - radius).clamp(min=0)
        size = (last - first).to(values.dtype)
        mean = total.index_select(axis, last) - total.index_select(axis, first)
        values = mean / (size if axis == -1 else size[:, None])
    return values


def _shifted(maps: Tensor, east: Tensor, north: Tensor) -> Tensor:
    """Return maps (batch, ny, nx) moved by so many cells a sample, (batch,), edges repeated."""
    batch, ny, nx = maps.shape
    rows = (torch.arange(ny, device=maps.device)[None] + north[:, None]).clamp(0, ny - 1)
    cols = (torch.arange(nx, device=maps.device)[None] - east[:, None]).clamp(0, nx - 1)
    maps = maps.gather(1, rows[:, :, None].expand(batch, ny, nx))
    return maps.gather(2, cols[:, None, :].expand(batch, ny, nx))


def _voronoi(shape: Sequence[int], width: float, draw: _Draw) -> Tensor:
    """Return numbers of irregular cells about `width` columns wide, (batch, ny, nx) int64."""
    _, ny, nx = shape
    device = draw.generator.device
    count = max(int(ny * nx / width**2), 1) + 3
    y, x = draw.uniform(count) * ny, draw.uniform(count) * nx
    rows = torch.arange(ny, device=device)[None, :, None] - y[:, None]
    cols = torch.arange(nx, device=device)[None, :, None] - x[:, None]
    distance = rows.square()[:, :, None] + cols.square()[:, None]
    return distance.argmin(-1)


def _by_polygon(draw: _Draw, polygons: Tensor) -> Tensor:
    """Return one random number for each number of `polygons` (batch, ny, nx), of its shape."""
    table = draw.uniform(int(polygons.max()) + 1)
    return table.gather(1, polygons.reshape(len(polygons), -1)).reshape(polygons.shape)


def _patches(shape: Sequence[int], width: float, draw: _Draw) -> Tensor:
    """Return random numbers that are constant over squares, (batch, ny, nx) float32."""
    _, ny, nx = shape
    cells = max(round(width), 1)
    noise = draw.uniform(-(-ny // cells), -(-nx // cells))
    return noise.repeat_interleave(cells, 1).repeat_interleave(cells, 2)[:, :ny, :nx]


def _half_planes(shape: Sequence[int], draw: _Draw) -> Tensor:
    """Return one side of a random line through each sample, (batch, ny, nx) bool."""
    _, ny, nx = shape
    device = draw.generator.device
    angle = draw.uniform() * 2 * torch.pi
    y = torch.arange(ny, device=device)[None, :, None] - (draw.uniform() * ny)[:, None, None]
    x = torch.arange(nx, device=device)[None, None] - (draw.uniform() * nx)[:, None, None]
    return y * angle.sin()[:, None, None] + x * angle.cos()[:, None, None] > 0
