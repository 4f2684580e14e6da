"""Runs that start from trained weights, are made longer, are compared, and are locked."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from earthgen.errors import JobError, ModelError, TrainingError
from earthgen.models.build import make_model
from earthgen.models.presets import PARTS
from earthgen.models.weights.card import open_weights, read_card
from earthgen.models.weights.format import load_weights, part_path, read_header, save_weights
from earthgen.progress import Event
from earthgen.training import checkpoint as saved
from earthgen.training.log import CSV, read_log, series
from earthgen.training.run import train
from earthgen.training.runs import initial
from earthgen.training.runs.compare import compare_runs, run_names, write_page
from earthgen.training.runs.lock import LOCK, hold_run
from earthgen.training.schedule import LearningSchedule
from earthgen_cli.main import main
from tests.helpers import training_places as places
from tests.helpers.dataset_places import write_village

PART = "height-flow"
VAE = "struct-vae"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def parent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with heights and StructVAE."""
    out = tmp_path_factory.mktemp("runs") / "parent"
    for part in (PART, VAE):
        train(part, places.settings(data, out, steps=2))
    return out


def settings(data: Path, out: Path, **given: Any) -> Any:
    own = {"batch_size": 1, **given.pop("own", {})}
    return places.settings(data, out, parts={PART: own, VAE: {"batch_size": 1}}, **given)


def rates(out: Path) -> list[float]:
    return series(read_log(out / PART / "metrics.csv"), "learning_rate")[1]


def losses(out: Path) -> list[float]:
    return series(read_log(out / PART / "metrics.csv"), "loss")[1]


def test_fine_tuning_starts_from_weights(data: Path, parent: Path, tmp_path: Path) -> None:
    """With a rate of almost 0 the weights stay, and what is not trained is taken over."""
    own = {"learning_rate": 1e-12}
    given: list[Event] = []
    tuned = train(
        PART,
        settings(data, tmp_path / "run", steps=2, init=str(parent), own=own),
        listener=given.append,
    )
    before, after = (
        load_weights(part_path(folder / "weights", PART))[0].state_dict()
        for folder in (parent, tmp_path / "run")
    )
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())
    digest = open_weights(parent / "weights").parts[PART].digest
    assert tuned.weights.parts[PART].parent == digest
    card = read_card(tmp_path / "run" / "weights")
    assert card["parts"][PART]["parent"] == digest
    assert digest in (tmp_path / "run" / "weights" / "README.md").read_text()
    assert set(tuned.weights.parts) == {PART, VAE}, "the set is as complete as its parent"
    copied = part_path(tmp_path / "run" / "weights", VAE).read_bytes()
    assert copied == part_path(parent / "weights", VAE).read_bytes()
    # Resume does not need --init again, and knows what the run started from.
    again = train(PART, settings(data, tmp_path / "run", steps=2, own=own), resume=True)
    assert again.fitted == {}
    with pytest.raises(TrainingError, match="parent"):
        other = places.settings(data, tmp_path / "other", steps=1)
        train(PART, other)
        train(
            PART,
            settings(data, tmp_path / "run", steps=4, init=str(tmp_path / "other"), own=own),
            resume=True,
        )


def test_what_weights_lack_is_said(data: Path, parent: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    shutil.copytree(parent / "weights", only / "weights")
    part_path(only / "weights", PART).unlink()
    card = read_card(only / "weights")
    del card["parts"][PART]
    (only / "weights" / "card.json").write_text(json.dumps(card))
    warned: list[str] = []
    train(
        PART,
        settings(data, tmp_path / "run", steps=1, init=str(only)),
        listener=lambda event: warned.append(str(event)),
    )
    assert any("has no height-flow: it starts from new weights" in text for text in warned)
    with pytest.raises(TrainingError, match="height-flow cannot be frozen"):
        train(VAE, settings(data, tmp_path / "x", steps=1, init=str(only), freeze=(PART,)))


def test_a_flow_of_latents_that_are_no_more_is_left_out(
    data: Path, parent: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(parent, out)
    path = part_path(out / "weights", "struct-fine")
    head = read_header(part_path(out / "weights", VAE))
    flow = make_model("struct-fine", head.preset)
    save_weights(path, "struct-fine", flow, preset_name=head.preset, latents="0" * 64)
    said: list[str] = []
    train(
        VAE,
        places.settings(data, out, steps=3),
        resume=True,
        listener=lambda event: said.append(str(event)),
    )
    assert not path.is_file() and set(open_weights(out / "weights").parts) == {PART, VAE}
    assert any("struct-fine is left out" in text for text in said)


def test_frozen_parts_are_taken_over(data: Path, parent: Path, tmp_path: Path) -> None:
    frozen = tuple(part for part in PARTS if part not in (PART,))
    with pytest.raises(TrainingError, match="cannot be frozen"):
        train("all", settings(data, tmp_path / "run", steps=2, init=str(parent), freeze=frozen))
    with pytest.raises(JobError, match="unknown part 'hights'"):
        settings(data, tmp_path / "run", freeze=("hights",))


def test_weights_that_do_not_fit_are_refused_in_one_line(
    data: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="no set of weights"):
        train(PART, settings(data, tmp_path / "a", init=str(tmp_path)))
    with pytest.raises(ModelError, match="preset 'micro', the training is of 'tiny'"):
        train(PART, settings(data, tmp_path / "a", init=str(parent), preset="tiny"))
    # Another objective, as that of earlier versions.
    other = tmp_path / "old"
    shutil.copytree(parent / "weights", other)
    model, header = load_weights(part_path(other, PART))
    config = model.config.model_copy(
        update={"flow": model.config.flow.model_copy(update={"time_logit_mean": 0.3})}
    )
    model.config = config
    changed = save_weights(
        part_path(other, PART), PART, model, preset_name=header.preset, voxel_size=1.0
    )
    card = read_card(other)
    card["parts"][PART]["digest"] = changed.digest
    (other / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"flow\.time_logit_mean is 0\.3, not"):
        train(PART, settings(data, tmp_path / "a", init=str(other)))
    monkeypatch.setattr(initial, "bundled_weights", lambda: parent / "weights")
    card = read_card(parent / "weights")
    moved = tmp_path / "large"
    shutil.copytree(parent / "weights", moved)
    (moved / "card.json").write_text(json.dumps({**card, "voxel_size": 2.0}))
    with pytest.raises(ModelError, match=r"voxel size 2\.0, the training is of 1\.0"):
        train(PART, settings(data, tmp_path / "a", init=str(moved)))
    assert train(PART, settings(data, tmp_path / "b", steps=1, init="shipped")).fitted
    monkeypatch.setattr(initial, "bundled_weights", lambda: None)
    with pytest.raises(TrainingError, match="comes without weights"):
        train(PART, settings(data, tmp_path / "c", init="shipped"))


@pytest.mark.slow
def test_an_extended_run_is_a_longer_one(data: Path, tmp_path: Path) -> None:
    """To the bit: it continues from before the rate fell, with the warm-up that it had."""
    short, long = {"warmup_ratio": 0.25}, {"warmup_ratio": 0.125}
    every: dict[str, Any] = {"checkpoint_steps": 3, "keep": 1}
    cooled = {"cooldown_ratio": 0.375}
    train(PART, settings(data, tmp_path / "a", steps=8, own={**short, **cooled}, **every))
    names = [path.name for path in saved.checkpoints(tmp_path / "a" / PART)]
    assert names == ["step-000000006", "step-000000008"], "the one before the rate falls stays"
    assert rates(tmp_path / "a")[6:] == pytest.approx([1e-3 * 2 / 3, 1e-3 / 3])
    more = settings(data, tmp_path / "a", steps=16, own={**short, **cooled}, **every)
    train(PART, more, resume=True)
    train(PART, settings(data, tmp_path / "b", steps=16, own={**long, **cooled}, **every))
    assert rates(tmp_path / "a") == rates(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    one, other = (load_file(part_path(tmp_path / name / "weights", PART)) for name in ("a", "b"))
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_schedules_of_continuations() -> None:
    first = LearningSchedule(1.0, 0.1, 0.4, 1.0, None, 600.0)
    longer = LearningSchedule(1.0, 0.1, 0.4, 1.0, None, 6000.0).extended_from(first.length)
    assert longer.rate(0, 61.0) == 1.0 and longer.rate(0, 30.0) == first.rate(0, 30.0)
    assert longer.rate(0, 3599.0) == 1.0 and longer.rate(0, 4800.0) == pytest.approx(0.5)
    assert longer.is_longer(first.length) and not first.is_longer((None, 600.0))
    assert first.is_cooling(0.61) and not first.is_cooling(0.6)


def test_two_processes_do_not_train_one_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / LOCK), pytest.raises(TrainingError, match="another process is training"):
        train(PART, settings(data, out, steps=1))
    assert train(PART, settings(data, out, steps=1), resume=True).fitted


def test_a_run_of_a_stranger_leads_nowhere(tmp_path: Path) -> None:
    """Its weights would be written to where a link in it leads."""
    out, outside, part = tmp_path / "run", tmp_path / "outside", next(iter(PARTS))
    (out / "height-flow").mkdir(parents=True)
    outside.mkdir()
    (out / "inside").symlink_to("height-flow")
    with hold_run(out, PARTS):
        pass
    (out / "weights").symlink_to(outside)
    leads_out = pytest.raises(TrainingError, match="weights is a link that leads out of the run")
    with leads_out, hold_run(out, PARTS):
        pass
    (out / "weights").unlink()
    (out / part).write_text("")
    with pytest.raises(TrainingError, match="is a file where a folder"), hold_run(out, PARTS):
        pass
    (out / part).unlink()
    (out / part).mkdir()
    (out / part / CSV).mkdir()
    with pytest.raises(TrainingError, match=r"metrics\.csv is damaged"):
        read_log(out / part / CSV)


@pytest.mark.slow
def test_runs_are_compared(
    data: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    train(PART, settings(data, other, steps=1, own={"ema_decay": 0.5}))
    found = compare_runs([parent, other])
    assert found["runs"] == ["parent", "other"] and set(found["parts"]) == {PART, VAE}
    heights = found["parts"][PART]
    assert heights["steps"] == [2, 1] and heights["settings"]["ema_decay"] == [0.998, 0.5]
    assert "dataset" not in heights["settings"] and "seed" not in heights["settings"]
    assert all(None not in pair for pair in heights["figures"].values()) and heights["figures"]
    assert found["parts"][VAE]["steps"] == [2, None]
    page = tmp_path / "page.html"
    write_page([parent, other], page)
    assert page.read_text().count("data:image/png;base64,") == 2
    assert main(["train", "compare", str(parent), str(other), "--out", str(page)]) == 0
    assert "ema_decay" in capsys.readouterr().out
    assert main(["train", "compare", str(parent), str(other), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parts"][PART]["steps"] == [2, 1]
    assert main(["train", "compare", str(parent), str(tmp_path)]) == 12
    assert "is not the folder of a run" in capsys.readouterr().err
    assert main(["train", "compare", str(parent)]) == 12
    assert run_names([Path("/a/x"), Path("/b/x")]) == ["a/x", "b/x"]
    (parent.parent / "compare.html").unlink()


def test_the_card_shows_what_differs(data: Path, parent: Path, tmp_path: Path) -> None:
    text = (parent / "weights" / "README.md").read_text()
    assert '"batch_size": 2' in text and "ema_decay" not in text and "betas" not in text
    assert open_weights(parent / "weights").parts[PART].settings["ema_decay"] == 0.998


def test_a_bad_value_names_its_scene(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earthgen.dataset import crop_sampler
    from earthgen.dataset.crop_sampler import Crops

    read = Crops.__getitem__

    def broken(self: Crops, index: int) -> Any:
        crop = read(self, index)
        crop.height[3, 4] = float("nan")
        return crop

    monkeypatch.setattr(crop_sampler.Crops, "__getitem__", broken)
    with pytest.raises(TrainingError, match=r"values that are not finite, here at \d+"):
        train(PART, settings(data, tmp_path / "run", steps=2, held_out=0))


GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "fine-tuning.md"


@pytest.mark.slow
def test_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its recipe and commands, on the village and by steps; all but the last one, a world."""
    text = GUIDE.read_text("utf-8")
    write_village(tmp_path)
    recipe = re.search(r"```toml\n(.*?)```", text, re.S)
    assert recipe is not None
    (tmp_path / "mine.toml").write_text(recipe[1])
    monkeypatch.chdir(tmp_path)
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", text, re.S)
        for line in block.splitlines()
    ]
    build, *rest = [shlex.split(line)[2:] for line in lines]
    assert main([*build, "--quiet"]) == 0, capsys.readouterr().err
    shipped = tmp_path / "shipped"
    small = ["--preset", places.NAME, "--threads", "1", "--batch", "1", "--quiet"]
    for part in (PART, VAE, "tex-vae"):
        own = ["train", part, "--data", "mine", "--out", str(shipped), "--steps", "1", "--resume"]
        assert main([*own, *small]) == 0, capsys.readouterr().err
    monkeypatch.setattr(initial, "bundled_weights", lambda: shipped / "weights")
    ran = 0
    for words in rest:
        if words[0] == "generate":
            assert words[words.index("--weights") + 1] == "heights/weights"
            continue
        if words[1] != "compare":
            minutes = words.index("--minutes")
            steps = str(int(words[minutes + 1]) // 10)
            words = [*words[:minutes], "--steps", steps, *words[minutes + 2 :], *small]
        assert main(words) == 0, (words, capsys.readouterr().err)
        ran += 1
    assert ran == 6 and (tmp_path / "comparison.html").stat().st_size > 10_000
    assert set(open_weights(tmp_path / "run" / "weights").parts) == set(PARTS)
    flows = open_weights(tmp_path / "flows" / "weights").parts
    start = open_weights(shipped / "weights").parts
    assert flows[VAE].digest == start[VAE].digest and flows[PART].parent == start[PART].digest
    assert set(open_weights(tmp_path / "heights" / "weights").parts) == {PART, VAE, "tex-vae"}
