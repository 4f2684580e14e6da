"""`base` and `paper` train: scaled-down copies of them do a step of every part; large batches are
computed in micro-batches, and large crops divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from earthgen.dataset.crop import Crop
from earthgen.errors import JobError, TrainingError
from earthgen.models.image_features import missing_package
from earthgen.models.presets import PARTS, preset
from earthgen.progress import Progress
from earthgen.training.batches import make_batch
from earthgen.training.data import TrainingData, crop_cell, open_data
from earthgen.training.devices import single_process
from earthgen.training.log import read_log, series
from earthgen.training.loop import StepMeter, initial_state, train_step
from earthgen.training.parts.latent_pool import LatentPool, without_voxels
from earthgen.training.parts.tex_vae import encoder_features
from earthgen.training.run import train
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import LoopSettings, make_part_settings
from earthgen.training.steps.acceleration import choose_backend, prepare_model
from earthgen.training.steps.columns import device_columns, step_batch_of_columns
from earthgen.training.steps.micro_batches import bounded, quarters, step_batch
from earthgen.training.task import StepBatch, StepCost, Task
from tests.helpers import training_places as places
from tests.helpers.scaled_presets import scaled, structure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def opened(data: Path) -> TrainingData:
    return open_data(data, preset(places.NAME), held_out=1)


@pytest.mark.parametrize("name", ["base", pytest.param("paper", marks=pytest.mark.slow)])
def test_every_part_of_a_large_preset_trains(name: str, data: Path, tmp_path: Path) -> None:
    if name == "paper" and missing_package():
        pytest.skip(missing_package())
    small = scaled(name)
    assert structure(preset(small)) == structure(preset(name))
    settings = places.settings(
        data,
        tmp_path / "run",
        preset=small,
        steps=6,
        held_out=0,
        checkpoint_steps=100,
        parts={
            **{part: {"steps": 1, "batch_size": 2, "micro_batch": 1} for part in PARTS},
            "tex-vae": {"steps": 1, "batch_size": 2, "render_size": 24, "render_start": 0.0},
        },
    )
    trained = train("all", settings)
    assert set(trained.fitted) == set(PARTS)
    for part in PARTS:
        _, found = series(read_log(tmp_path / "run" / part / "metrics.csv"), "loss")
        assert len(found) == 1 and found[0] > 0


def test_crops_lie_on_the_cells_of_the_preset(data: Path) -> None:
    small = preset(scaled("paper"))
    assert crop_cell(small) == 16 and crop_cell(preset(places.NAME)) == 8
    found = open_data(data, small, held_out=2)
    crops = [*(found.crop(0, number) for number in range(12)), *found.held_out]
    assert all(edge % 16 == 0 for crop in crops for edge in (*crop.frame.x, *crop.frame.y))
    assert len({crop.frame.x for crop in crops}) > 2
    with pytest.raises(JobError, match=r"'columns': 24 is not a multiple of 16"):
        open_data(data, small, columns=24)


def test_features_of_the_picture(opened: TrainingData) -> None:
    if missing_package():
        pytest.skip(missing_package())
    from earthgen.models.build import make_model

    batch = make_batch([opened.crop(0, 0), opened.crop(0, 1)])
    model = make_model("tex-vae", preset(scaled("paper")).tex_vae)
    features = encoder_features(batch, model).features
    assert features.shape == (len(batch.sites), 98) and bool(features.isfinite().all())
    own = features[:, 18:]
    # Equal columns have equal features, other columns others.
    columns = batch.sites.coordinates[:, :3].unique(dim=0, return_inverse=True)[1]
    first = torch.zeros(int(columns.max()) + 1, own.shape[1])
    first[columns] = own
    assert torch.equal(first[columns], own) and float(first.std(0).min()) > 0


def test_large_crops_are_divided(opened: TrainingData) -> None:
    crop = opened.crop(0, 3)
    parts = quarters(crop)
    assert sum(len(part) for part in parts) == len(crop)
    assert [part.frame.shape for part in parts] == [(16, 16)] * 4
    south_west = parts[0]
    assert (south_west.frame.x[0], south_west.frame.y[0]) == (crop.frame.x[0], crop.frame.y[0])
    assert (south_west.ground == crop.ground[16:, :16]).all()
    rows = {tuple(row) for part in parts for row in part.xyz.tolist()}
    assert rows == {tuple(row) for row in crop.xyz.tolist()}
    half = len(crop) // 2
    assert bounded(crop, len(crop), 8) == [crop]
    assert all(len(part) <= half for part in bounded(crop, half, 8))
    with pytest.raises(TrainingError, match="max_voxels = 3, and cannot be divided"):
        bounded(crop, 3, 8)


def test_samples_become_micro_batches(opened: TrainingData) -> None:
    crops = [opened.crop(0, number) for number in range(5)]
    sizes = [len(crop) for crop in crops]
    whole = step_batch(crops, make_batch)
    assert len(whole.parts) == 1 and whole.weights == (1.0,)
    two = step_batch(crops, make_batch, micro_batch=2)
    assert [len(part) for part in two.parts] == [2, 2, 1]
    assert two.weights == pytest.approx(
        [sum(sizes[a:b]) / sum(sizes) for a, b in ((0, 2), (2, 4), (4, 5))]
    )
    few = step_batch(crops, make_batch, micro_voxels=max(sizes))
    assert all(len(part.sites) <= max(sizes) for part in few.parts) and len(few.parts) > 2
    mixed = step_batch([*quarters(crops[0]), crops[1]], make_batch)
    assert [len(part) for part in mixed.parts] == [1, 4], "samples of a batch have one shape"
    flat = step_batch([without_voxels(crop) for crop in crops], make_batch, micro_batch=4)
    assert flat.weights == pytest.approx([0.8, 0.2])


def toy_task(crops: list[Crop], micro: int | None) -> Task:
    """A mean over voxels, whose gradient does not depend on how they are divided."""

    def loss(model: Any, batch: Any, generator: torch.Generator, share: float) -> Any:
        value = (model(batch.normal) - batch.rgb).square().mean()
        return value, {"error": value}

    return Task(
        part="struct-vae",
        make=lambda: nn.Linear(3, 3),
        batch=lambda step, rank: step_batch(crops, make_batch, micro_batch=micro),
        loss=loss,
        work=lambda model, batch: StepCost(len(batch), len(batch.sites), 9 * len(batch.sites)),
        measure=lambda model: {},
        picture=lambda model: None,
    )


def test_accumulated_gradients_are_those_of_the_batch(opened: TrainingData) -> None:
    crops = [opened.crop(0, number) for number in range(4)]
    found = []
    for micro in (None, 1):
        torch.manual_seed(0)
        task = toy_task(crops, micro)
        part = make_part_settings("struct-vae", {"steps": 1, "max_grad_norm": 1e6})
        state = initial_state(task, part, torch.device("cpu"))
        meter = StepMeter(LearningSchedule.of(part), state, Progress(None), "x", 0.0)
        values = train_step(
            task,
            LoopSettings(precision="fp32"),
            part,
            state,
            task.batch(0, 0),
            0.0,
            1e-3,
            single_process("cpu"),
            meter,
        )
        assert meter.crops == 4 and meter.work.crops == 4
        found.append((values, [value.grad.clone() for value in state.model.parameters()]))  # type: ignore[union-attr]
    (whole, gradients), (divided, accumulated) = found
    assert float(whole["loss"]) == pytest.approx(float(divided["loss"]), rel=1e-5)
    for one, other in zip(gradients, accumulated, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_a_divided_crop_is_counted(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    own = {"struct-vae": {"batch_size": 1, "max_voxels": 900}}
    train(
        "struct-vae",
        places.settings(data, tmp_path / "run", steps=2, parts=own, held_out=0),
        listener=lambda event: said.append(str(event)),
    )
    assert any("2 of" in text and "divided into quarters" in text for text in said), said
    assert series(read_log(tmp_path / "run" / "struct-vae" / "metrics.csv"), "divided")[1] == [1, 1]


def test_a_bad_step_changes_no_weight() -> None:
    def loss(model: Any, batch: Any, generator: torch.Generator, share: float) -> Any:
        return model(batch).sum() * float("nan"), {}

    task = replace(toy_task([], None), loss=loss)
    part = make_part_settings("struct-vae", {"steps": 1})
    state = initial_state(task, part, torch.device("cpu"))
    before = [value.detach().clone() for value in state.model.parameters()]
    meter = StepMeter(LearningSchedule.of(part), state, Progress(None), "x", 0.0)
    given = StepBatch.whole(torch.ones(2, 3))
    task = replace(task, work=lambda model, batch: StepCost(2, 2, 2))
    values = train_step(
        task, LoopSettings(), part, state, given, 0.0, 1e-3, single_process("cpu"), meter
    )
    assert not bool(torch.as_tensor(values["loss"]).isfinite())
    after = list(state.model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_crops_cut_on_the_device_are_the_same(opened: TrainingData) -> None:
    """The CPU stands in for the device; turned and mirrored windows are among the crops."""
    columns = device_columns(opened, torch.device("cpu"))
    numbers = range(24)
    found = step_batch_of_columns(columns, 5, numbers, 10)
    assert [len(part) for part in found.parts] == [10, 10, 4]
    whole = make_batch([without_voxels(opened.crop(5, number)) for number in numbers])
    for name, value in vars(whole).items():
        if isinstance(value, torch.Tensor):
            mine = torch.cat([getattr(part, name) for part in found.parts])
            assert mine.dtype == value.dtype, name
            assert torch.equal(mine.nan_to_num(-1), value.nan_to_num(-1)), name
    frames = [crop.frame for part in found.parts for crop in part.crops]
    assert frames == [crop.frame for crop in whole.crops]
    turned = {opened.place(5, number).turns for number in numbers}
    assert turned == {0, 1, 2, 3}


def test_rasters_on_the_device_train_the_same(data: Path, tmp_path: Path) -> None:
    own = {"height-flow": {"batch_size": 2}}
    found = []
    for where in ("cpu", "training"):
        out = tmp_path / where
        train(
            "height-flow",
            places.settings(data, out, steps=2, data_device=where, parts=own, held_out=0),
        )
        found.append(series(read_log(out / "height-flow" / "metrics.csv"), "loss")[1])
    assert found[0] == found[1]


@pytest.mark.parametrize("part", ["height-flow", "struct-vae"])
def test_recomputed_blocks_have_the_same_gradients(
    part: str, opened: TrainingData, tmp_path: Path, data: Path
) -> None:
    found = []
    for recompute in (False, True):
        out = tmp_path / str(recompute)
        settings = places.settings(
            data, out, steps=2, recompute=recompute, held_out=0, checkpoint_steps=100
        )
        train(part, settings)
        found.append(series(read_log(out / part / "metrics.csv"), "gradient")[1])
    assert found[0] == found[1]


def test_a_sparse_backend_is_chosen() -> None:
    from earthgen.errors import SparseError, UnknownNameError
    from earthgen.models.build import make_model
    from earthgen.sparse.layers import Convolution

    model = make_model("struct-vae", preset(places.NAME).struct_vae)
    layers = [layer for layer in model.modules() if isinstance(layer, Convolution)]
    prepare_model(model, LoopSettings(), torch.device("cpu"))
    assert all(layer.backend is None for layer in layers), "torch's own on the CPU"
    choose_backend(model, torch.device("cpu"), torch.float32, "torch")
    assert layers and all(layer.backend.name == "torch" for layer in layers)  # type: ignore[union-attr]
    with pytest.raises(UnknownNameError, match="nothing"):
        choose_backend(model, torch.device("cpu"), torch.float32, "nothing")
    with pytest.raises(SparseError, match="spconv"):  # missing, or without gradients on a CPU
        choose_backend(model, torch.device("cpu"), torch.float32, "spconv")


def test_latents_are_encoded_in_groups(opened: TrainingData) -> None:
    from earthgen.models.build import make_model

    vae = make_model("struct-vae", preset(places.NAME).struct_vae).eval()
    one, many = (
        LatentPool(vae, opened, 3, 10, torch.device("cpu"), group=group) for group in (1, 4)
    )
    for number in (5, 9, 0):
        single, grouped = one.get(number), many.get(number)
        assert torch.equal(single.cells, grouped.cells)
        assert torch.allclose(single.moments, grouped.moments, atol=1e-5)
    assert sorted(one.cache) == [0, 5, 9] and sorted(many.cache) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
