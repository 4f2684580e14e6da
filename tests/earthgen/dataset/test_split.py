"""Splits by place and crops by number: training never sees held-out areas, and a number is always
the same crop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest

from earthgen.dataset.crop import CELL, COLUMNS, ROWS, Crop
from earthgen.dataset.crop_sampler import Crops, open_crops
from earthgen.dataset.scene import Scene
from earthgen.dataset.split import (
    Area,
    Split,
    read_split,
    split_by_blocks,
    split_by_name,
    split_summary,
    write_split,
)
from earthgen.errors import CropError, JobError, StoreError
from geo_io.errors import FrameError
from tests.helpers.dataset_places import CRS, EAST, NORTH, SIZE, village_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes: "a", whose southern quarter is held out, and "b" to the east of it, of grade
    B."""
    path = tmp_path_factory.mktemp("dataset")
    village_scene(path, "a", size=192, held_out=[(EAST, NORTH, EAST + 192, NORTH + 48)])
    village_scene(path, "b", at=(EAST + 192, NORTH), grade="B", holes=True)
    return path


def alike(one: Crop, other: Crop) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("xyz", *ROWS, *COLUMNS)
    )


def windows(crops: Crops) -> list[tuple[str, float, float, float, float]]:
    out = []
    for index in range(len(crops)):
        scene, frame = crops.where(index)
        out.append((scene.info.name, *frame.bounds))
    return out


@pytest.mark.parametrize("jitter", [False, True])
def test_training_keeps_its_distance_from_what_is_held_out(folder: Path, jitter: bool) -> None:
    split = Split("by hand", (Area(CRS, (EAST, NORTH, EAST + 192, NORTH + 48)),), buffer=20.0)
    train = open_crops(folder, size=32, overlap=0.5, split=split, jitter=jitter, seed=4)
    for crop in train:
        west, south = crop.frame.bounds[:2]
        apart = max(south - (NORTH + 48), west - (EAST + 192), 0.0)
        assert apart >= 20.0, crop.frame
    held = open_crops(folder, size=32, overlap=0.5, split=split, part="held_out", jitter=jitter)
    assert len(held) > 0
    for crop in held:
        assert crop.frame.y[1] <= NORTH + 48 and crop.frame.x[1] <= EAST + 192


def test_a_place_is_held_out_of_other_scenes_in_other_crs(tmp_path: Path) -> None:
    to = pyproj.Transformer.from_crs(
        CRS, "EPSG:25832", always_xy=True
    )  # the same axes, another CRS
    x, y = to.transform(EAST, NORTH)
    village_scene(
        tmp_path,
        "whole",
        at=(round(x) // CELL * CELL, round(y) // CELL * CELL),
        size=160,
        crs="EPSG:25832",
    )
    small = village_scene(tmp_path, "small", at=(EAST + 64, NORTH + 64), size=32, held_out=[])
    split = split_by_name([small], ["small"], buffer=8.0)
    write_split(tmp_path, split)
    train = open_crops(tmp_path, size=16)
    assert {name for name, *_ in windows(train)} == {"whole"}
    for _, west, south, east, north in windows(train):
        assert (
            east <= EAST + 64 - 7
            or west >= EAST + 96 + 7
            or north <= NORTH + 64 - 7
            or south >= NORTH + 96 + 7
        )
    held = {name for name, *_ in windows(open_crops(tmp_path, size=16, part="held_out"))}
    assert "small" in held


def test_recipes_and_names_hold_out(folder: Path) -> None:
    scenes = [Scene(**vars(scene)) for scene in open_crops(folder, size=32, part=None).scenes]
    named = split_by_name(scenes, ["b"])
    assert [area.bounds for area in named.areas] == [
        (EAST, NORTH, EAST + 192, NORTH + 48),
        (EAST + 192, NORTH, EAST + 288, NORTH + 96),
    ]
    with pytest.raises(JobError, match="there is no scene 'bb'; did you mean 'b'"):
        split_by_name(scenes, ["bb"])
    rows = {row["scene"]: row for row in split_summary(scenes, named)}
    assert rows["b"]["train_km2"] == 0 and rows["b"]["held_out_km2"] == pytest.approx(
        rows["b"]["km2"]
    )
    assert rows["a"]["held_out_km2"] == pytest.approx(192 * 48 / 1e6)
    assert rows["a"]["train_km2"] == pytest.approx(
        (192 - 32) * (192 - 48 - 32) / 1e6 + 32 * (192 - 96 - 32) / 1e6
    )


def test_blocks_are_drawn_by_place(folder: Path) -> None:
    scenes = list(open_crops(folder, size=32, part=None).scenes)
    one = split_by_blocks(scenes, 0.3, block=32, seed=1)
    assert (
        one
        == split_by_blocks(scenes, 0.3, block=32, seed=1)
        != split_by_blocks(scenes, 0.3, block=32, seed=2)
    )
    # another scene more or less changes nothing of a place
    alone = split_by_blocks(scenes[1:], 0.3, block=32, seed=1)
    assert set(alone.areas) <= set(one.areas)
    drawn = [area for area in one.areas if area.bounds[2] - area.bounds[0] == 32]
    assert 0.15 < len(drawn) / (9 * 6) < 0.45
    assert (EAST, NORTH, EAST + 192, NORTH + 48) in [area.bounds for area in one.areas]
    for share in (0.0, 1.0):
        with pytest.raises(JobError, match="share"):
            split_by_blocks(scenes, share)


def test_a_split_is_a_file(folder: Path, tmp_path: Path) -> None:
    scenes = list(open_crops(folder, size=32, part=None).scenes)
    assert read_split(tmp_path, scenes) == split_by_name(scenes)
    split = split_by_blocks(scenes, 0.2, block=64, seed=3, buffer=16)
    path = write_split(tmp_path, split)
    assert read_split(tmp_path, scenes) == split
    assert json.loads(path.read_text())["buffer"] == 16
    path.write_text("{}")
    with pytest.raises(StoreError, match=r"split\.json cannot be read"):
        read_split(tmp_path, scenes)


def test_cells_are_held_out_whole_and_kept_when_touched() -> None:
    frame = open_frame()
    split = Split("x", (Area(CRS, (EAST + 12, NORTH + 8, EAST + 40, NORTH + 33)),), buffer=0.0)
    held, train = split.cells(frame, "held_out"), split.cells(frame, "train")
    assert held.sum() == 3 * 3 and (~train).sum() == 4 * 4  # x 16-40 of 8-40, y 8-32 of 8-40
    assert not (held & train).any()
    assert held[8 - 4 : 8 - 1, 2:5].all()  # rows from the north
    nowhere = Split("x", (Area(CRS, (0, 0, 100, 100)),), 10.0)
    assert nowhere.cells(frame, "train").all() and not nowhere.cells(frame, "held_out").any()


def open_frame():
    from geo_io.frame import Frame

    return Frame(CRS, 1.0, (EAST, EAST + 64), (NORTH, NORTH + 64))


def test_sliding_windows_cover_the_part(folder: Path) -> None:
    crops = open_crops(folder, size=32, part=None, least_valid=0.0)
    covered = np.zeros((192, 288), int)
    for _, west, south, east, north in windows(crops):
        covered[int(south - NORTH) : int(north - NORTH), int(west - EAST) : int(east - EAST)] += 1
    assert (
        (covered[:96] == 1).all()
        and (covered[96:, :192] == 1).all()
        and not covered[96:, 192:].any()
    )
    half = open_crops(folder, size=32, overlap=0.5, part=None, least_valid=0.0)
    assert len(half) == 11 * 11 + 5 * 5
    assert all(x % CELL == 0 and y % CELL == 0 for _, x, y in crops.windows.tolist())


def test_a_crop_is_a_function_of_number_seed_and_epoch(folder: Path) -> None:
    options = {"size": 32, "overlap": 0.5, "seed": 7, "jitter": True, "augment": True}
    one, other = open_crops(folder, **options), open_crops(folder, **options, in_memory=True)
    order = np.random.default_rng(0).permutation(len(one))[:12]
    assert all(alike(one[int(i)], other[int(i)]) for i in order)
    assert alike(one[-1], one[len(one) - 1])
    differ = [not alike(one[int(i)], one.at_epoch(1)[int(i)]) for i in order]
    assert np.mean(differ) > 0.7
    assert not all(alike(one[int(i)], replace(one, seed=8)[int(i)]) for i in order)
    with pytest.raises(IndexError):
        one[len(one)]
    assert len(list(one)) == len(one)


def test_moved_windows_stay_in_the_part_and_on_the_cells(folder: Path) -> None:
    crops = open_crops(folder, size=32, overlap=0.5, jitter=True, seed=1)
    moved = 0
    for index, crop in enumerate(crops):
        _, window = crops.where(index)
        moved += (crop.frame.x, crop.frame.y) != (window.x, window.y)
        assert crop.frame.x[0] % CELL == 0 and crop.frame.y[0] % CELL == 0
        assert crop.valid.mean() >= 0.9
        assert crop.frame.y[0] >= NORTH + 48 + 32 or crop.frame.x[0] >= EAST + 192 + 32
    assert moved > len(crops) / 4


def test_crops_without_data_or_colour_are_left_out(folder: Path) -> None:
    whole = open_crops(folder, size=32, part=None, names=["b"], least_valid=0.0)
    full = open_crops(folder, size=32, part=None, names=["b"], least_valid=0.99)
    assert len(full) < len(whole) and all(crop.valid.mean() >= 0.99 for crop in full)
    coloured = open_crops(
        folder, size=32, part=None, names=["b"], least_valid=0.0, least_coloured=0.99
    )
    assert len(coloured) == len(full)


def test_a_scene_smaller_than_a_crop(tmp_path: Path) -> None:
    village_scene(tmp_path, "tiny", size=40)
    crops = open_crops(tmp_path, size=64, least_valid=0.3)
    assert len(crops) == 1 and crops[0].valid.sum() == 40 * 40
    with pytest.raises(CropError, match="no window of 64"):
        open_crops(tmp_path, size=64)


def test_grades_names_sizes_and_voxels(folder: Path, tmp_path: Path) -> None:
    assert {name for name, *_ in windows(open_crops(folder, size=32, grades=("B",)))} == {"b"}
    village_scene(tmp_path, "c", grade="C")
    with pytest.raises(StoreError, match="none of 1 scenes has grade A or B"):
        open_crops(tmp_path)
    assert len(open_crops(tmp_path, grades=("C",), size=32)) == (SIZE // 32) ** 2
    village_scene(tmp_path, "d", at=(2 * EAST, 2 * NORTH), voxel_size=0.5)
    with pytest.raises(FrameError, match=r"scene d has voxels of 0\.5 m, not 1 m"):
        open_crops(tmp_path, grades=("A", "C"))
    with pytest.raises(FrameError, match="not 2 m"):
        open_crops(tmp_path, grades=("A",), voxel_size=2.0)
    assert open_crops(tmp_path, grades=("A",), size=32)[0].frame.voxel_size == 0.5
    for size, overlap in ((12, 0.0), (0, 0.0), (32, 1.0), (32, -0.1)):
        with pytest.raises(CropError):
            open_crops(folder, size=size, overlap=overlap)
    with pytest.raises(StoreError, match="is one of x"):
        open_crops(folder, names=["x"])


def test_another_band(folder: Path) -> None:
    crops = open_crops(folder, size=32, band=(-8, 8), part=None)
    assert crops[0].frame.z == (-8, 8) and max(crop.xyz[:, 2].max() for crop in crops) == 7


def test_a_data_loader_takes_them(folder: Path) -> None:
    from torch.utils.data import DataLoader

    crops = open_crops(folder, size=32, augment=True, jitter=True)
    loader = DataLoader(crops, batch_size=2, num_workers=2, collate_fn=list)
    got = [crop for batch in loader for crop in batch]
    assert len(got) == len(crops) and all(alike(a, b) for a, b in zip(got, crops, strict=True))
