"""Crops of a training: by number alone, of the right part of a dataset, as tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from earthgen.errors import StoreError, TrainingError
from earthgen.models.presets import preset
from earthgen.training import data as datas
from earthgen.training.batches import GUESSED, make_batch
from earthgen.training.data import TrainingData, open_data
from earthgen.training.parts.common import column_figures, voxel_tops
from earthgen.training.randomness import derive_seed, numpy_generator, torch_generator
from geo_io.errors import FrameError
from tests.helpers import training_places as places
from tests.helpers.dataset_places import EAST, SIZE, village_scene


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return open_data(
        places.dataset(tmp_path_factory.mktemp("data")), preset(places.NAME), held_out=3
    )


def test_random_numbers_are_of_their_names() -> None:
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1) != derive_seed(0, "a", 2)
    assert derive_seed(0, "a", 1) != derive_seed(1, "a", 1) and 0 <= derive_seed(0, "b") < 2**63
    one, other = (torch.rand(3, generator=torch_generator(0, "x", step)) for step in (1, 2))
    assert torch.equal(
        one, torch.rand(3, generator=torch_generator(0, "x", 1))
    ) and not torch.equal(one, other)
    assert numpy_generator(3, "x").random() == numpy_generator(3, "x").random()


def test_crops_are_functions_of_seed_and_number(opened: TrainingData) -> None:
    first = [opened.crop(7, drawn) for drawn in (0, 1, 2, 3)]
    again = [opened.crop(7, drawn) for drawn in (3, 2, 1, 0)][::-1]
    for a, b in zip(first, again, strict=True):
        assert a.frame == b.frame and np.array_equal(a.xyz, b.xyz) and np.array_equal(a.rgb, b.rgb)
    assert len({(c.frame.x, c.frame.y, c.xyz.tobytes()) for c in first}) == 4, (
        "shifts, turns and places differ"
    )
    assert any(opened.crop(8, n).xyz.tobytes() != first[n].xyz.tobytes() for n in range(4))


def test_what_is_held_out_is_not_trained_on(opened: TrainingData) -> None:
    assert all(opened.crop(0, drawn).frame.x[1] <= EAST + SIZE for drawn in range(20))
    assert len(opened.held_out) == 3 and all(
        crop.frame.x[0] >= EAST + 10 * SIZE for crop in opened.held_out
    )
    assert len({(crop.frame.x, crop.frame.y) for crop in opened.held_out}) == 3
    assert opened.sources == ({"name": "Made up", "source": "nobody", "licence": "CC0-1.0"},)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    micro = preset(places.NAME)
    one = open_data(places.dataset(tmp_path / "a"), micro).digest
    assert one == open_data(places.dataset(tmp_path / "b"), micro).digest
    village_scene(tmp_path / "b", "third", at=(EAST - 5 * SIZE, 0))
    assert one != open_data(tmp_path / "b", micro).digest


def test_nothing_held_out_is_no_error(tmp_path: Path) -> None:
    village_scene(tmp_path, "alone")
    assert open_data(tmp_path, preset(places.NAME)).held_out == ()


def test_datasets_that_do_not_fit(tmp_path: Path) -> None:
    micro = preset(places.NAME)
    with pytest.raises(StoreError, match="no scene"):
        open_data(tmp_path, micro)
    village_scene(tmp_path, "half", voxel_size=0.5, at=(2 * EAST, 0))
    with pytest.raises(FrameError, match=r"0\.5 m, not 1 m"):
        open_data(tmp_path, micro)
    whole = tmp_path / "whole"
    whole.mkdir()
    village_scene(whole, "small", size=32)
    with pytest.raises(TrainingError, match="--columns"):
        open_data(whole, micro, columns=64)
    with pytest.raises(StoreError, match="grade"):
        open_data(whole, micro, grades=("B",))


def test_crops_without_voxels_are_passed_over(
    opened: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = opened.held_out[0]
    empty = replace(
        crop,
        xyz=crop.xyz[:0],
        semantic=crop.semantic[:0],
        normal=crop.normal[:0],
        rgb=crop.rgb[:0],
        rgb_known=crop.rgb_known[:0],
    )
    shown = iter([empty, empty, crop])

    class Crops:
        def at_epoch(self, epoch: int) -> Crops:
            return self

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> object:
            return next(shown, empty)

    fake = replace(opened, train=Crops(), cumulative=np.array([1.0]))  # type: ignore[arg-type]
    assert fake.crop(0, 0) is crop
    with pytest.raises(TrainingError, match=f"{datas.ATTEMPTS} crops"):
        fake.crop(0, 1)


def test_a_batch_keeps_every_voxel_with_its_own(opened: TrainingData) -> None:
    crops = [opened.crop(1, drawn) for drawn in range(3)]
    batch = make_batch(crops)
    assert (
        len(batch) == 3 and len(batch.sites) == sum(map(len, crops)) and batch.shape == (32, 32, 48)
    )
    for sample, crop in enumerate(crops):
        rows = slice(*batch.sites.bounds[sample : sample + 2])
        found = {
            tuple(at): (int(code), *colour, *normal)
            for at, code, colour, normal in zip(
                batch.sites.lattice()[rows].tolist(),
                batch.semantic[rows],
                batch.rgb[rows].mul(255).round().int().tolist(),
                batch.normal[rows].tolist(),
                strict=True,
            )
        }
        for at, code, colour, normal in zip(
            crop.xyz, crop.semantic, crop.rgb, crop.normal, strict=True
        ):
            assert found[tuple(at.tolist())] == (int(code), *colour.tolist(), *normal.tolist())
    assert torch.equal(batch.classes[1], torch.from_numpy(crops[1].cover))
    assert batch.conditions.shape == (32, 32) and bool(batch.conditions.height.isfinite().all())  # type: ignore[union-attr]


def test_trust_in_colours(opened: TrainingData) -> None:
    crop = opened.held_out[0]
    known = crop.image_known.copy()
    known[: len(known) // 2] = False
    row, column = crop.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - crop.frame.x[0]
    seen = crop.rgb_known & known[row, column]
    batch = make_batch([replace(crop, image_known=known, rgb_known=seen)])
    count = [int((batch.trust == value).sum()) for value in (1.0, torch.tensor(GUESSED), 0.0)]
    assert count == [
        int(seen.sum()),
        int((known[row, column] & ~seen).sum()),
        int((~known[row, column]).sum()),
    ]
    assert sum(count) == len(crop) and all(count)
    assert int(batch.seen.sum()) == int(seen.sum())


def test_colours_at_the_edges_of_real_buildings_teach_little(opened: TrainingData) -> None:
    crop = opened.held_out[0]
    building = np.zeros(crop.frame.shape, np.uint32)
    building[8:16, 8:16] = 7
    row, column = crop.frame.y[1] - 1 - crop.xyz[:, 1], crop.xyz[:, 0] - crop.frame.x[0]
    edge = np.zeros(crop.frame.shape, bool)
    edge[7:17, 7:17] = True
    edge[9:15, 9:15] = False
    top = np.append((np.diff(row) != 0) | (np.diff(column) != 0), True)
    seen = np.ones(len(crop), bool)
    for kind in ("real", "simulated"):
        batch = make_batch([replace(crop, building=building, rgb_known=seen, kind=kind)])
        little = int((~batch.seen).sum())
        assert little == (int((edge[row, column] & top).sum()) if kind == "real" else 0)
        assert kind == "simulated" or little >= 64


def test_tops_of_columns_are_the_scene_s_heights(opened: TrainingData) -> None:
    crop = opened.held_out[0]
    batch = make_batch([crop])
    found = voxel_tops(batch.sites, batch.shape, crop.frame.z[0])[0].numpy()
    # A voxel is half filled or not at all: heights are rounded to whole metres, half up.
    assert np.array_equal(found, np.floor(crop.height + 0.5))


def test_figures_of_columns() -> None:
    true = np.array([[0.0, 0, 10], [10, 0, 0]])
    valid = np.ones_like(true, bool)
    assert column_figures(true, true, valid) == {
        "tall_iou": 1.0,
        "height_mae": 0.0,
        "height_w1": 0.0,
    }
    moved = column_figures(true[::-1], true, valid)
    assert (
        moved["tall_iou"] == 0
        and moved["height_mae"] == pytest.approx(40 / 6)
        and moved["height_w1"] == 0
    )
    assert column_figures(true, true, ~valid) == {}
