"""The loop goes on along the same curve after any end, stops at numbers that are none, refuses
what does not fit."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from earthgen.dataset.scene import scenes_in
from earthgen.errors import JobError, ModelError, TrainingError
from earthgen.models.weights.card import read_card
from earthgen.models.weights.format import load_weights
from earthgen.training import checkpoint as saved
from earthgen.training import loop, run
from earthgen.training.checkpoint import State
from earthgen.training.data import ADDED_CLASSES
from earthgen.training.log import read_log, series
from earthgen.training.run import TrainingResult, train
from earthgen.training.steps.interrupts import interrupts
from geo_io.legend import codes
from tests.helpers import training_places as places


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of StructVAE."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train("struct-vae", places.settings(data, out))
    return out


def losses(out: Path, part: str = "struct-vae") -> tuple[list[float], list[float]]:
    return series(read_log(out / part / "metrics.csv"), "loss")


def tensors(out: Path, part: str = "struct-vae") -> dict[str, torch.Tensor]:
    return load_file(out / "weights" / f"{part}.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_two_runs_have_the_same_bits(data: Path, whole: Path, tmp_path: Path) -> None:
    train("struct-vae", places.settings(data, tmp_path / "again"))
    assert losses(tmp_path / "again") == losses(whole)
    assert equal(tensors(tmp_path / "again"), tensors(whole))
    train("struct-vae", places.settings(data, tmp_path / "other", seed=1))
    assert losses(tmp_path / "other") != losses(whole)


def test_the_card_names_the_classes_that_were_shown(data: Path, whole: Path) -> None:
    (scene,) = (scene for scene in scenes_in(data) if scene.info.name == "here")
    crop = scene.crop(scene.frame)
    shown = set(np.unique(np.concatenate([crop.cover.ravel(), crop.semantic])).tolist())
    named = read_card(whole / "weights")["classes"]
    assert set(named) == {"structure"} and "building" in named["structure"]
    added = {codes()[name] for name in ADDED_CLASSES}
    assert {codes()[name] for name in named["structure"]} <= shown | added


@pytest.mark.slow
def test_a_killed_run_goes_on_along_the_same_curve(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    script = Path(places.__file__)
    process = subprocess.Popen(
        [sys.executable, str(script), str(data), str(out), "5"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), *sys.path])},
    )
    try:
        deadline = time.monotonic() + 120
        while losses(out)[0][-1:] != [5.0]:  # two steps after the checkpoint
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (
        out / "struct-vae" / f".step-000000006.x{saved.PARTIAL}"
    ).mkdir()  # killed while it wrote the next one
    assert [path.name for path in saved.checkpoints(out / "struct-vae")] == ["step-000000003"]
    train("struct-vae", places.settings(data, out), resume=True)
    assert losses(out) == losses(whole), "to the bit: on one thread sums have one order"
    assert equal(tensors(out), tensors(whole))
    assert not list((out / "struct-vae").glob(f".*{saved.PARTIAL}"))


def test_an_interrupted_run_keeps_its_last_step(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is heard within a step, which is ended; a second one would not wait."""
    out, accumulate, before = (
        tmp_path / "interrupted",
        loop.accumulate,
        signal.getsignal(signal.SIGINT),
    )

    def press(state: State, values: dict[str, float]) -> None:
        accumulate(state, values)
        if state.step == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate", press)
        with pytest.raises(KeyboardInterrupt):
            train("struct-vae", places.settings(data, out))
    assert signal.getsignal(signal.SIGINT) == before
    assert saved.checkpoints(out / "struct-vae")[-1].name == "step-000000005"
    train("struct-vae", places.settings(data, out), resume=True)
    assert losses(out) == losses(whole)
    assert equal(tensors(out), tensors(whole))


def test_ctrl_c_twice_does_not_wait() -> None:
    with interrupts() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with interrupts(False) as pressed:
        assert signal.getsignal(signal.SIGINT) == before and not pressed()


def test_rows_that_are_means_go_on_too(data: Path, tmp_path: Path) -> None:
    """Where the rows of the log do not fall together with the checkpoints."""
    for name, steps in (("a", (8,)), ("b", (4, 8))):
        for many in steps:
            given: dict[str, Any] = {
                "log_steps": 3,
                "checkpoint_steps": 4,
                "parts": {"height-flow": {"batch_size": 1}},
            }
            # Of one length throughout: the learning rate follows it.
            monkey = pytest.MonkeyPatch()
            monkey.setattr(
                loop.LearningSchedule,
                "share",
                lambda self, step, _, many=many: 1.0 if step >= many else step / 8,
            )
            train("height-flow", places.settings(data, tmp_path / name, **given), resume=True)
            monkey.undo()
            if many == 4:  # what a kill leaves
                (tmp_path / name / "weights" / "height-flow.safetensors").unlink()
    assert losses(tmp_path / "a", "height-flow") == losses(tmp_path / "b", "height-flow")
    assert losses(tmp_path / "a", "height-flow")[0] == [3, 6]


def test_batches_prepared_ahead_are_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    train("struct-vae", places.settings(data, tmp_path / "ahead", prefetch=3))
    assert losses(tmp_path / "ahead") == losses(whole)


def test_a_finished_run_can_be_made_longer(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short = {"parts": {"height-flow": {"batch_size": 1}}}
    train("height-flow", places.settings(data, out, steps=2, **short))
    done = train("height-flow", places.settings(data, out, steps=2, **short), resume=True)
    assert done.fitted == {}, "nothing is left to do"
    more = train("height-flow", places.settings(data, out, steps=5, **short), resume=True)
    assert more.fitted["height-flow"].step == 5


def test_minutes_end_a_run_with_the_rate_at_nothing(data: Path, tmp_path: Path) -> None:
    settings = places.settings(
        data, tmp_path / "run", steps=None, minutes=0.02, checkpoint_steps=None
    )
    began = time.monotonic()
    trained = train("height-flow", settings)
    assert 1.0 < time.monotonic() - began < 30
    report = trained.fitted["height-flow"]
    assert report.seconds >= 1.2 and report.step > 1
    _, rates = series(read_log(tmp_path / "run" / "height-flow" / "metrics.csv"), "learning_rate")
    assert rates[-1] < 0.25 * max(rates)


def state(width: int = 3) -> State:
    model = nn.Sequential(nn.Linear(width, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    return State(
        model, optimizer, {name: value.detach().clone() for name, value in model.named_parameters()}
    )


def advance(one: State, steps: int) -> None:
    for _ in range(steps):
        one.optimizer.zero_grad()
        one.model(torch.ones(2, one.model[0].in_features)).sum().backward()  # type: ignore[index]
        one.optimizer.step()
        one.step += 1


def test_a_checkpoint_holds_all_that_training_goes_on_from(tmp_path: Path) -> None:
    one = state()
    advance(one, 3)
    one.seconds, one.sums = 1.25, {"loss": (0.1, 2)}
    saved.save_checkpoint(tmp_path, one, {"preset": "tiny"})
    other = state()
    saved.load_checkpoint(saved.checkpoints(tmp_path)[-1], other)
    assert (other.step, other.seconds, other.sums) == (3, 1.25, {"loss": (0.1, 2)})
    advance(one, 2)
    advance(other, 2)
    assert equal(dict(one.model.state_dict()), dict(other.model.state_dict()))
    assert saved.read_state(saved.checkpoints(tmp_path)[-1])["identity"] == {"preset": "tiny"}


def test_the_number_of_steps_of_a_fused_optimiser_is_on_its_device(tmp_path: Path) -> None:
    """The meta device stands in for a GPU: there a fused optimiser has its counts."""
    one = state()
    advance(one, 1)
    saved.save_checkpoint(tmp_path, one, {})
    other = state()
    other.model.to("meta")
    other.optimizer = torch.optim.AdamW(other.model.parameters())
    stored = load_file(saved.checkpoints(tmp_path)[-1] / saved.TENSORS)
    saved._restore_optimizer(other, stored)
    kept = list(other.optimizer.state.values())
    assert kept and all(value.device.type == "meta" for each in kept for value in each.values())


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    one = state()
    for _ in range(4):
        advance(one, 1)
        saved.save_checkpoint(tmp_path, one, {}, keep=2)
    assert [path.name for path in saved.checkpoints(tmp_path)] == [
        "step-000000003",
        "step-000000004",
    ]


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = state()
    saved.save_checkpoint(tmp_path, one, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "save_file", full)
    advance(one, 1)
    with pytest.raises(OSError, match="full"):
        saved.save_checkpoint(tmp_path, one, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000"]


def test_damaged_checkpoints_are_told(tmp_path: Path) -> None:
    one = state()
    path = saved.save_checkpoint(tmp_path, one, {})
    with pytest.raises(TrainingError, match="another model"):
        saved.load_checkpoint(path, state(4))
    content = bytearray((path / saved.TENSORS).read_bytes())
    content[-3] ^= 1
    (path / saved.TENSORS).write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        saved.load_checkpoint(path, state())
    (path / saved.TENSORS).write_bytes(content[:40])
    with pytest.raises(TrainingError, match="damaged"):
        saved.load_checkpoint(path, state())
    about = json.loads((path / saved.STATE).read_text())
    (path / saved.STATE).write_text(json.dumps({**about, "version": 99}))
    with pytest.raises(TrainingError, match="version 99"):
        saved.read_state(path)
    for wrong in (
        {"identity": None},
        {"step": 10**30},
        {"seconds": float("nan")},
        {"sums": {"loss": ["a", 1]}},
        {"digest": []},
        {"length": "x"},
        {"first_length": 5},
    ):
        (path / saved.STATE).write_text(json.dumps({**about, **wrong}))
        with pytest.raises(TrainingError, match="damaged"):
            saved.read_state(path)
    (path / saved.STATE).write_text("{")
    with pytest.raises(TrainingError, match="damaged"):
        saved.read_state(path)


def copied(whole: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(whole, to))


def test_a_run_is_not_begun_twice(data: Path, whole: Path) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        train("struct-vae", places.settings(data, whole))


@pytest.mark.parametrize(("given", "named"), [({"seed": 3}, "seed"), ({"columns": 24}, "columns")])
def test_a_run_is_not_continued_with_other_settings(
    data: Path, whole: Path, tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(TrainingError, match=named):
        train(
            "struct-vae",
            places.settings(data, copied(whole, tmp_path / "run"), **given),
            resume=True,
        )


def test_a_run_is_not_continued_with_other_data(whole: Path, tmp_path: Path) -> None:
    other = places.dataset(tmp_path / "data")
    places.village_scene(other, "third", at=(0, 0))
    with pytest.raises(TrainingError, match="dataset"):
        train("struct-vae", places.settings(other, copied(whole, tmp_path / "run")), resume=True)


def test_flows_want_their_autoencoder(data: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="struct-vae"):
        train("struct-fine", places.settings(data, tmp_path / "run"))
    # One of another preset is not taken for it.
    out = copied(whole, tmp_path / "other")
    settings = places.settings(data, out, preset="tiny", columns=32)
    with pytest.raises(ModelError, match="micro"):
        train("struct-fine", settings, resume=True)


def test_no_such_task(data: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="struct-vea"):
        train("struct-vea", places.settings(data, tmp_path))
    with pytest.raises(JobError, match="cannot be used"):
        train("struct-vae", places.settings(data, tmp_path / "x", device="cuda:99"))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out = tmp_path / "run"
    made = run.TASK_MAKERS["height-flow"]

    def broken(context: Any) -> Any:
        from dataclasses import replace

        task = made(context)

        def loss(model: nn.Module, batch: Any, generator: torch.Generator, share: float) -> Any:
            found, parts = task.loss(model, batch, generator, share)
            if share < 4 / 8:
                return found, parts
            # The root's slope at 0 is infinite: a good loss with a bad gradient.
            bad = found * torch.nan if what == "loss" else found + (found * 0).sqrt()
            return bad, parts

        return replace(task, loss=loss)

    monkeypatch.setitem(run.TASK_MAKERS, "height-flow", broken)
    settings = places.settings(data, out)
    with pytest.raises(TrainingError, match=rf"{what} is .* at step 5"):
        train("height-flow", settings)
    kept = saved.checkpoints(out / "height-flow")
    assert [path.name for path in kept] == ["step-000000003"]
    assert all(
        bool(value.isfinite().all()) for value in load_file(kept[0] / saved.TENSORS).values()
    )
    assert losses(out, "height-flow")[0] == [1, 2, 3, 4]
    # With what was wrong put right, it goes on from there.
    monkeypatch.undo()
    assert train("height-flow", settings, resume=True).fitted["height-flow"].step == 8


def test_weights_say_what_they_are(whole: Path) -> None:
    model, header = load_weights(
        whole / "weights" / "struct-vae.safetensors", "struct-vae", preset_name=places.NAME
    )
    assert header.settings["steps"] == 8 and header.settings["dataset"]
    assert header.data[0]["licence"] == "CC0-1.0" and 0 <= header.metrics["iou"] <= 1
    assert not torch.equal(model.statistics.deviation, torch.ones(4)), "fitted to latents"  # type: ignore[union-attr]
    card = (whole / "weights" / "README.md").read_text()
    assert "struct-vae" in card and "Made up" in card


def test_threads_of_the_process_stay(data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train("height-flow", places.settings(data, tmp_path / "run", steps=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    importlib.util.find_spec("lightning_fabric") is None, reason="lightning-fabric is not installed"
)
@pytest.mark.slow
def test_a_team_of_two_stays_in_step(data: Path, tmp_path: Path) -> None:
    """Two processes on the CPU, each with its own crops: what comes out is one model, whose
    steps both took."""
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path; from tests.helpers import training_places as places\n"
        "from earthgen.training.run import train\n"
        f"data, out = Path({str(data)!r}), Path({str(tmp_path / 'run')!r})\n"
        "settings = places.settings(data, out, devices=2, steps=4)\n"
        "print('steps', train('height-flow', settings).fitted['height-flow'].step)\n"
    )
    # In a process of its own: forking one in which torch has threads can hang.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "steps 4" in done.stdout
    trained = tensors(tmp_path / "run", "height-flow")
    assert all(bool(value.isfinite().all()) for value in trained.values())
    assert losses(tmp_path / "run", "height-flow")[0] == [1, 2, 3, 4]


def test_a_team_averages_gradients() -> None:
    from earthgen.training.devices import ProcessGroup

    class Fabric:
        """Two processes, the other of which has gradients of 1."""

        def all_reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "mean"
            return (tensor + 1) / 2

    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 5.0]])  # the bias has none
    ProcessGroup(torch.device("cpu"), 0, Fabric()).average_gradients(model)
    assert model.weight.grad.tolist() == [[2.0, 3.0]]
    assert model.bias.grad is not None and model.bias.grad.tolist() == [0.5]


def test_trained_is_plain(whole: Path, data: Path) -> None:
    again = train("struct-vae", places.settings(data, whole), resume=True)
    assert (
        isinstance(again, TrainingResult)
        and again.fitted == {}
        and again.weights.parts.keys() == {"struct-vae"}
    )
