"""Land cover corrupted as maps are, and what the flow on heights is given in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from earthgen.models.height_state import object_maps, wood_table
from earthgen.models.presets import MAPS
from earthgen.training.data import ADDED_CLASSES
from earthgen.training.map_noise import LandMap, corrupt_map
from earthgen.training.parts.height_conditions import map_kinds, part_of_surface, wood_heights
from geo_io.legend import codes

pytestmark = pytest.mark.usefixtures("one_thread")

CODE = codes()
BUILDING, TREE, GRASS, PAVED, ROAD, LAKE = (
    CODE[name] for name in ("building", "tree", "grass", "paved", "road", "lake")
)
SAMPLES, SIZE = 24, 64


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def town() -> LandMap:
    """Houses, a shed, trees along a road, a wood and a lake, the same in every sample."""
    cover = np.full((SIZE, SIZE), GRASS, np.uint8)
    building = np.zeros((SIZE, SIZE), np.int64)
    told = np.zeros((SIZE, SIZE), np.float32)
    axes = np.zeros((SIZE, SIZE, 4), np.float32)
    cover[:, 30:36], cover[40:, 44:] = ROAD, LAKE
    cover[:20, 44:] = TREE  # a wood
    for row in range(4, 60, 12):
        cover[row : row + 3, 26:29] = TREE  # single trees
    for number, (row, column) in enumerate(
        ((4, 4), (4, 14), (24, 4), (24, 14), (44, 4), (24, 46)), 1
    ):
        part = np.s_[row : row + 10, column : column + 10]
        cover[part], building[part], told[part] = BUILDING, number, 3.0 * number
        axes[part] = (2, 1, 5, 5)
    shed = np.s_[58:61, 20:23]
    cover[shed], building[shed], told[shed], axes[shed] = BUILDING, 9, 2.5, (1, 1, 1.5, 1.5)
    arrays = (cover, building, told, axes)
    return LandMap(
        *(torch.from_numpy(each)[None].repeat(SAMPLES, *[1] * each.ndim) for each in arrays),
        torch.zeros(SAMPLES, dtype=torch.bool),
    )


def values(maps: Tensor) -> list[int]:
    return np.unique(maps.numpy()).tolist()


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_strength_of_0_changes_nothing_and_a_seed_is_one_map() -> None:
    land, strength = town(), torch.ones(SAMPLES)
    strength[:8] = 0
    found, again = (corrupt_map(land, 1.0, strength, random(3)) for _ in range(2))
    other = corrupt_map(land, 1.0, strength, random(4))
    for name in ("cover", "building", "told", "axes"):
        one = getattr(found, name)
        assert (
            torch.equal(one[:8], getattr(land, name)[:8]) and one.dtype == getattr(land, name).dtype
        )
        assert torch.equal(one, getattr(again, name))
    assert not torch.equal(found.cover, other.cover)
    assert not torch.equal(found.cover[8], found.cover[9]), "each sample has a map of its own"


def test_buildings_stay_consistent() -> None:
    land = town()
    found = corrupt_map(land, 1.0, torch.ones(SAMPLES), random())
    built = found.cover == BUILDING
    assert torch.equal(found.building > 0, built), "a number where, and only where, a building is"
    assert bool((found.told[built] > 0).all()) and not found.told[~built].any()
    assert not found.axes[~built].any()
    # A height for each building; that of a block is the mean of its buildings.
    for sample in range(SAMPLES):
        for number in values(found.building[sample])[1:]:
            heights = found.told[sample][found.building[sample] == number]
            assert float(heights.max() - heights.min()) < 1e-4
            assert 2.5 <= float(heights[0]) <= 18
    maps = object_maps(found.building, found.axes, 1.0)
    assert torch.equal(maps[:, 0] > 0, built)
    # Houses are in nearly all maps, sheds in half of them.
    houses, shed = (found.building[:, 8, 8] > 0), (found.building[:, 59, 21] > 0)
    assert float(houses.float().mean()) > 0.6 > float(shed.float().mean())
    assert 0.6 < overlap(built, land.cover == BUILDING) < 0.97


def test_trees_go_woods_stay_and_parts_are_unmapped() -> None:
    """The measured range of real maps: 0.46 where there is land use, 0.23 over everything."""
    land = town()
    found = corrupt_map(land, 1.0, torch.ones(SAMPLES), random())
    wood = torch.from_numpy(wood_table())
    stands, truth = wood[found.cover.long()], land.cover == TREE
    mapped = found.cover != 0
    alone = torch.zeros_like(truth)
    alone[:, :, 26:29] = True
    assert float(stands[alone & truth & mapped].float().mean()) < 0.35, "single trees"
    assert float(stands[~alone & truth & mapped].float().mean()) > 0.7, "the wood"
    assert 0.1 < float((~mapped).float().mean()) < 0.6
    kinds = set(values(found.cover))
    assert kinds <= set(values(land.cover)) | {0} | {CODE[n] for n in ADDED_CLASSES}
    assert {0, CODE["residential"], CODE["mixed_forest"]} <= kinds
    lake = (found.cover == LAKE) & mapped
    assert 0.5 < overlap(lake, (land.cover == LAKE) & mapped) < 0.99, "outlines are simplified"


def test_a_map_says_whether_it_has_gaps() -> None:
    land = town()
    strength = (torch.arange(SAMPLES) % 2).float()
    noisy = corrupt_map(land, 1.0, strength, random())
    assert torch.equal(noisy.gaps, strength > 0)
    kinds = map_kinds(noisy)
    assert [MAPS[kind - 1] for kind in kinds[:2].tolist()] == ["whole", "gaps"]


def test_metres_are_metres_at_every_voxel_size() -> None:
    land = town()
    coarse = LandMap(
        *(getattr(land, name)[:, ::2, ::2] for name in ("cover", "building", "told", "axes")),
        land.gaps,
    )
    unmapped = [
        float((corrupt_map(each, size, torch.ones(SAMPLES), random()).cover == 0).float().mean())
        for each, size in ((land, 1.0), (coarse, 2.0))
    ]
    assert unmapped[0] == pytest.approx(unmapped[1], abs=0.15)


def test_woods_have_the_height_of_their_crowns() -> None:
    cover = torch.full((2, 48, 64), GRASS)
    cover[:, :, :40] = CODE["mixed_forest"]
    height = torch.zeros(2, 48, 64)
    height[:, :, :40] = torch.linspace(0, 20, 48)[:, None]
    for seed in range(4):
        found = wood_heights(height, cover, 1.0, random(seed))
        assert not found[:, :, 40:].any()
        assert float(found[:, :, :40].min()) > 11 and float(found.max()) < 20
    assert bool((wood_heights(height, torch.full_like(cover, GRASS), 1.0, random()) == 0).all())


def test_a_surface_model_covers_a_part() -> None:
    height = torch.rand(200, 16, 16, generator=random())
    valid = torch.ones_like(height, dtype=torch.bool)
    valid[:, :2] = False
    found = part_of_surface(height, valid, random())
    known = found.isfinite()
    assert not known[:, :2].any() and torch.equal(found[known], height[known])
    share = known.flatten(1).float().mean(1)
    assert float(share.min()) < 0.2 and float(share.max()) > 0.7 and 0.2 < float(share.mean()) < 0.6
