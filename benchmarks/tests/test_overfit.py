"""benchmarks/overfit.py on the made-up village: its crop, its figures, when it stops, and what
it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import overfit, overfit_figures
from benchmarks.overfit import PARTS, WANTED, measured, one_crop, overfit_settings, reached
from benchmarks.overfit_figures import voxel_figures
from earthgen.errors import TrainingError
from earthgen.models.build import make_model
from earthgen.models.presets import preset
from earthgen.sparse import SparseTensor
from earthgen.training.batches import make_batch
from earthgen.training.data import TrainingData
from earthgen.training.parts.common import TaskContext
from earthgen.training.pictures import SIDE
from geo_io.legend import codes
from tests.helpers import training_places as places


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one(data: Path) -> TrainingData:
    return one_crop(data, preset(places.NAME))


def context(one: TrainingData, part: str, folder: Path) -> TaskContext:
    own = overfit_settings(part)
    return TaskContext(preset(places.NAME), own, one, 0, folder, torch.device("cpu"))


def test_it_is_one_crop_that_is_never_turned_with_all_that_is_to_be_learned(
    one: TrainingData,
) -> None:
    crop = one.crop(0, 0)
    assert all(one.crop(seed, drawn) is crop for seed in (0, 7) for drawn in (1, 2))
    assert len(one.train) == 1 and np.array_equal(one.train[0].xyz, crop.xyz)
    for name in ("building", "tree", "grass"):
        assert (crop.cover == codes()[name]).sum() > 20
    assert crop.valid.all() and crop.image_known.all()
    assert one.sources[0]["licence"] == "CC0-1.0"


def test_figures_of_the_truth_are_one_and_each_error_counts(one: TrainingData) -> None:
    batch = make_batch([one.held_out[0]])

    class Found:
        """What a decoder gives that finds voxels and classes as told."""

        def __init__(self, keep: torch.Tensor, classes: torch.Tensor) -> None:
            self.sites, self.classes = batch.sites.select(keep), classes[keep]

        def semantic(self) -> torch.Tensor:
            return self.classes

    whole = torch.ones(len(batch.sites), dtype=torch.bool)
    assert voxel_figures([Found(whole, batch.semantic)], batch) == {
        "iou": 1.0,
        "class_accuracy": 1.0,
    }
    part = whole.clone()
    part[::4] = False
    share = float(part.float().mean())
    # A voxel that is not there has no class either.
    lost = voxel_figures([Found(part, batch.semantic)], batch)
    assert lost == {"iou": pytest.approx(share), "class_accuracy": pytest.approx(share)}
    wrong = torch.where(part, batch.semantic, batch.semantic + 1)
    assert voxel_figures([Found(whole, wrong)], batch) == {
        "iou": 1.0,
        "class_accuracy": pytest.approx(share),
    }
    nothing = voxel_figures([Found(~whole, batch.semantic)], batch)
    assert nothing == {"iou": 0.0, "class_accuracy": 0.0}


def test_accuracy_of_levels_counts_voxels_whose_parents_were_lost(
    one: TrainingData, tmp_path: Path
) -> None:
    model = make_model("struct-vae", preset(places.NAME).struct_vae, seed=0).eval()
    with torch.no_grad():
        for judge in model.judge:
            for parameter in judge.parameters():
                parameter.fill_(
                    -1.0 if parameter.ndim == 1 else 0.0
                )  # nothing stays but the most likely child of each column of children
    given = context(one, "struct-vae", tmp_path)
    figures = overfit_figures.struct_vae_figures(model, given)
    batch = make_batch([one.held_out[0]])
    with torch.no_grad():
        decoded = model.decode(model.encode(batch.sites, batch.semantic).mean)
    true = {tuple(row) for row in batch.sites.coordinates.tolist()}
    kept = {tuple(row) for row in decoded.sites.coordinates.tolist()}
    candidates = {tuple(row) for row in decoded.levels[-1].candidates.coordinates.tolist()}
    every = candidates | true
    assert true - candidates
    assert figures["accuracy_1"] == pytest.approx(
        sum((row in kept) == (row in true) for row in every) / len(every)
    )


def test_coarse_figures_of_known_samples(
    one: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("struct-coarse", preset(places.NAME).struct_coarse, seed=0)
    given = context(one, "struct-coarse", tmp_path)
    _, grid, true = overfit_figures.coarse_parts(model, given)
    there = true.rows(grid.coordinates) >= 0
    monkeypatch.setattr(
        overfit_figures,
        "coarse_sample",
        lambda *_: SparseTensor(grid, there.float()[:, None] - 0.5),
    )
    assert overfit_figures.struct_coarse_figures(model, given) == {"accuracy": 1.0, "iou": 1.0}
    monkeypatch.setattr(
        overfit_figures, "coarse_sample", lambda *_: SparseTensor(grid, -torch.ones(len(grid), 1))
    )
    found = overfit_figures.struct_coarse_figures(model, given)
    assert found == {"accuracy": pytest.approx(1 - len(true) / len(grid)), "iou": 0.0}


def test_height_figures_of_known_samples(
    one: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop, given = one.held_out[0], context(one, "height-flow", tmp_path)
    true = torch.from_numpy(crop.height).repeat(overfit_figures.DRAWS, 1, 1)
    monkeypatch.setattr(overfit_figures, "height_sample", lambda *_: true)
    assert overfit_figures.height_flow_figures(None, given) == {"accuracy": 1.0, "mae": 0.0}
    monkeypatch.setattr(overfit_figures, "height_sample", lambda *_: torch.zeros_like(true))
    tall = float((crop.height >= 2).mean())
    assert overfit_figures.height_flow_figures(None, given) == {
        "accuracy": pytest.approx(1 - tall),
        "mae": pytest.approx(float(crop.height.mean()), rel=1e-5),
    }


def test_every_wanted_figure_has_to_be_there_and_exceeded() -> None:
    for part, wanted in WANTED.items():
        assert reached(part, {name: least + 0.001 for name, least in wanted.items()})
        assert not reached(part, {})
        for name in wanted:
            assert not reached(
                part,
                {**{other: least + 0.001 for other, least in wanted.items()}, name: wanted[name]},
            )


@pytest.mark.slow
def test_all_parts_leave_weights_a_picture_and_their_figures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfit_figures, "SAMPLING_STEPS", 2)
    lines: list[str] = []
    found = measured(
        data,
        tmp_path,
        preset_name=places.NAME,
        steps=2,
        every=5,
        precision="fp32",
        tell=lines.append,
    )
    for part in PARTS:
        outcome = found[part]
        assert isinstance(outcome, dict) and outcome["steps"] == 2 and not outcome["reached"]
        assert set(WANTED[part]) <= set(outcome)
        assert (tmp_path / f"{part}.safetensors").is_file()
    assert len(lines) == len(PARTS)
    frame = one_crop(data, preset(places.NAME)).held_out[0].frame
    assert found["crop"] == f"{frame.crs}, x {frame.x}, y {frame.y}"
    with Image.open(tmp_path / "overfit.png") as picture:
        assert picture.size[0] > 6 * SIDE and 2 * SIDE < picture.size[1] < 3 * SIDE
    # A flow takes the autoencoder that lies in the folder, and wants one.
    again = measured(
        data,
        tmp_path,
        parts=["tex-flow"],
        preset_name=places.NAME,
        steps=2,
        every=5,
        precision="fp32",
    )
    assert {**again["tex-flow"], "seconds": 0} == {**found["tex-flow"], "seconds": 0}  # type: ignore[dict-item]
    with pytest.raises(TrainingError):
        measured(data, tmp_path / "other", parts=["tex-flow"], preset_name=places.NAME, steps=1)


@pytest.mark.slow
def test_training_stops_when_the_figures_are_reached(
    one: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = context(one, "height-flow", tmp_path)
    seen: list[float] = []

    def better(model: object, context: object) -> dict[str, float]:
        seen.append(0.98 + 0.006 * len(seen))
        return {"accuracy": seen[-1]}

    monkeypatch.setitem(overfit.FIGURES, "height-flow", better)
    _, outcome, _ = overfit.overfit("height-flow", given, "fp32", 2, lambda line: None)
    assert (
        outcome.steps == 6
        and outcome.reached
        and outcome.figures["accuracy"] == pytest.approx(0.992)
    )
    seen.clear()
    on = replace(given, settings=given.settings.model_copy(update={"steps": 9}))
    _, first, last = overfit.overfit("height-flow", on, "fp32", 2, lambda line: None, whole=True)
    assert (first.steps, last.steps) == (6, 9) and first.figures != last.figures
    seen.clear()
    short = replace(given, settings=given.settings.model_copy(update={"steps": 3}))
    _, outcome, _ = overfit.overfit("height-flow", short, "fp32", 2, lambda line: None)
    assert outcome.steps == 3 and not outcome.reached


@pytest.mark.slow
def test_a_small_texture_autoencoder_learns_the_crop_by_heart(
    one: TrainingData, tmp_path: Path
) -> None:
    given = context(one, "tex-vae", tmp_path)
    torch.set_num_threads(1)
    _, outcome, _ = overfit.overfit("tex-vae", given, "fp32", 50, lambda line: None)
    assert outcome.reached and outcome.steps < 1500


def test_the_command(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfit, "measured", partial(measured, preset_name=places.NAME))
    overfit.main(["--data", str(data), "--parts", "height-flow", "--steps", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["height-flow"]["steps"] == 1 and found["scene"]["licence"] == "CC0-1.0"
    with pytest.raises(SystemExit):
        overfit.main([])
    assert "--data" in capsys.readouterr().err
