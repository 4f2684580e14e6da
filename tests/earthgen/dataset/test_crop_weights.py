"""Odds of scenes by their native resolution, and of simulated ones; several datasets at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earthgen.dataset.crop_sampler import open_crops
from earthgen.dataset.crop_weights import crop_weights, resolution_odds
from earthgen.dataset.scene import SceneInfo, open_scene, scenes_in
from earthgen.dataset.split import join_splits, split_by_name
from earthgen.errors import TrainingError
from earthgen.models.presets import preset
from earthgen.training.data import open_data
from tests.helpers import training_places as places


def test_odds_fall_from_the_voxel_size_to_twice_of_it() -> None:
    assert resolution_odds(0.5, 1.0) == resolution_odds(1.0, 1.0) == 1
    assert resolution_odds(2.0, 1.0, 0.2) == resolution_odds(25.0, 1.0, 0.2) == pytest.approx(0.2)
    assert 0.2 < resolution_odds(1.4, 1.0, 0.2) < 1
    assert resolution_odds(2.0, 2.0) == 1  # fine enough for larger voxels


def test_a_scene_knows_its_native_resolution(tmp_path: Path) -> None:
    scene = scenes_in(places.dataset(tmp_path))[0]
    assert scene.info.native() == scene.frame.voxel_size  # unknown: as fine as its voxels
    info = replace(scene.info, resolution=1.9, colour_resolution=0.2)
    again = SceneInfo.from_dict(info.to_dict())
    assert (again.native(), again.native("colours")) == (1.9, 0.2)


def test_weights_of_coarse_and_simulated_scenes(tmp_path: Path) -> None:
    scenes = scenes_in(places.dataset(tmp_path))
    assert len(scenes) >= 2
    size = scenes[0].frame.voxel_size
    coarse = replace(scenes[0], info=replace(scenes[0].info, resolution=2 * size))
    fine = replace(scenes[1], info=replace(scenes[1].info, kind="simulated"))
    crops = open_crops([coarse, fine], size=32, part=None, least_valid=0.0)
    first = crops.windows[:, 0] == 0
    count = first.sum(), (~first).sum()
    weights = crop_weights(crops, coarse=0.25)
    assert weights[first].sum() == pytest.approx(0.25 * np.sqrt(count[0]))
    assert weights[~first].sum() == pytest.approx(np.sqrt(count[1]))
    shared = crop_weights(crops, coarse=0.25, simulated=0.7)
    assert shared[~first].sum() / shared.sum() == pytest.approx(0.7)
    assert not crop_weights(crops, coarse=0.0)[first].any()
    # Of one kind alone there is nothing to share.
    alone = open_crops([fine], size=32, part=None, least_valid=0.0)
    assert crop_weights(alone, simulated=0.7).sum() == pytest.approx(np.sqrt(len(alone)))


def test_what_one_dataset_holds_out_is_held_out_of_all(tmp_path: Path) -> None:
    scenes = scenes_in(places.dataset(tmp_path))
    one = split_by_name(scenes, [scenes[0].info.name], buffer=16)
    other = split_by_name(scenes, [scenes[1].info.name], buffer=48)
    both = join_splits([one, other])
    assert {area.bounds for area in both.areas} >= {scene.frame.bounds for scene in scenes[:2]}
    assert both.buffer == 48 and join_splits([one]) == one


def test_training_mixes_datasets(tmp_path: Path) -> None:
    micro = preset(places.NAME)
    folders = [places.dataset(tmp_path / name) for name in ("a", "b")]
    one, two = open_data(folders[0], micro), open_data(folders, micro)
    assert len(two.train) == 2 * len(one.train) and one.digest != two.digest
    assert two.cumulative[-1] == pytest.approx(2 * one.cumulative[-1])


def test_only_coarse_sources_are_refused(tmp_path: Path) -> None:
    folder = places.dataset(tmp_path)
    scenes = [
        replace(scene, info=replace(scene.info, resolution=25.0)).loaded()
        for scene in map(open_scene, sorted(folder.glob("*.zarr")))
    ]
    with pytest.raises(TrainingError, match="coarser than the voxels"):
        open_data(folder, preset(places.NAME), scenes=scenes, coarse_weight=0.0)
    assert open_data(folder, preset(places.NAME), scenes=scenes, coarse_weight=0.1).cumulative[-1]
