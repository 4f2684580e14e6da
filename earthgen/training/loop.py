"""The training loop: AdamW, a learning rate by schedule, clipped gradients, averaged weights,
checkpoints.

Everything that is drawn is a function of the seed, the part and the step, so a run that was killed
goes on from its last checkpoint along the same curve; on one thread of the CPU with the same bits.
The path for CUDA, and that for several devices, have not been run on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from earthgen.errors import TrainingError
from earthgen.progress import Progress
from earthgen.training import checkpoint as saved
from earthgen.training.checkpoint import State
from earthgen.training.devices import Team
from earthgen.training.interrupts import interrupts
from earthgen.training.log import Log, read_log
from earthgen.training.plot import draw_curves
from earthgen.training.randomness import torch_generator
from earthgen.training.schedule import Schedule
from earthgen.training.settings import PartSettings, Settings
from earthgen.training.task import Task, Work
from earthgen.training.throughput import peak_flops

PICTURES, CURVES = "pictures", "curves.png"


@dataclass(frozen=True)
class Fitted:
    """A trained part.

    Attributes
    ----------
    model : with averaged weights, in evaluation mode
    step, seconds : of the training, all continuations together
    metrics : of held-out crops, measured with exactly these weights
    speed : crops, voxels and FLOPs a second of this process's steps, and `share` of what a matrix
        product reaches
    """

    model: nn.Module
    step: int
    seconds: float
    metrics: dict[str, float]
    speed: dict[str, float]


def fit(
    task: Task,
    settings: Settings,
    part: PartSettings,
    folder: Path,
    identity: Mapping[str, Any],
    team: Team,
    progress: Progress,
) -> Fitted:
    """Train a part to its end, from its newest checkpoint where there is one.

    folder : of the part in the run
    identity : what a continuation has to agree with

    Raises
    ------
    TrainingError
        where the loss or its gradient is NaN or infinite; the last checkpoint stays
    TrainingError
        where the checkpoint is of other settings or data
    TrainingError
        where it is damaged
    KeyboardInterrupt
        after Ctrl-C, with a checkpoint of the last step
    """
    folder.mkdir(parents=True, exist_ok=True)
    schedule = Schedule.of(part)
    state = begin(task, part, team.device)
    if team.first:
        saved.clear_partial(folder)
    newest = saved.checkpoints(folder)[-1:]
    if newest:
        check_identity(folder, saved.read_state(newest[0])["identity"], identity)
        saved.load_checkpoint(newest[0], state)
    log = Log(folder, state.step, settings.tensorboard) if team.first else None
    watch = Watch(
        schedule, state, progress, f"train {task.part}", measured_flops(settings, team.device)
    )
    metrics: dict[str, float] = {}
    last = state.seconds
    kept = -1
    # In a team each process hears Ctrl-C at its own step: there it ends them at once.
    alone = team.fabric is None
    with (
        batches(task, state.step, settings.prefetch, team.rank) as stream,
        interrupts(alone) as interrupted,
    ):
        while not team.agree(schedule.share(state.step, state.seconds) >= 1):
            began = time.monotonic()
            share = schedule.share(state.step, state.seconds)
            values = step(
                task, settings, part, state, next(stream), share, schedule.rate(share), team, watch
            )
            state.seconds += time.monotonic() - began
            watch.tell(values["loss"])
            note(state, values)
            if log is not None and state.step % settings.log_steps == 0:
                means = {name: total / count for name, (total, count) in state.sums.items()}
                log.add(state.step, {**means, "seconds": round(state.seconds, 3), **watch.speed()})
                state.sums.clear()
            due = state.seconds - last >= 60 * settings.checkpoint_minutes
            if settings.checkpoint_steps is not None:
                due = state.step % settings.checkpoint_steps == 0
            if team.agree(due):
                began = time.monotonic()
                metrics = keep(task, settings, state, folder, identity, log)
                state.seconds += time.monotonic() - began
                last, kept = state.seconds, state.step
            if interrupted():
                if kept != state.step:
                    saved.save_checkpoint(folder, state, identity, settings.keep)
                raise KeyboardInterrupt
    if kept != state.step or not metrics:
        metrics = keep(task, settings, state, folder, identity, log)
    if log is not None:
        log.close()
    state.model.load_state_dict(saved.averaged(state))
    state.model.eval()
    return Fitted(state.model, state.step, state.seconds, metrics, watch.speed())


def begin(task: Task, part: PartSettings, device: torch.device) -> State:
    """A training before its first step."""
    model = task.make().to(device).train()
    plain = [value for value in model.parameters() if value.ndim < 2]
    matrices = [value for value in model.parameters() if value.ndim >= 2]
    # Biases and norms are not drawn towards 0.
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=part.learning_rate, betas=part.betas, weight_decay=part.weight_decay, fused=True
    )
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    return State(model, optimizer, average)


def step(
    task: Task,
    settings: Settings,
    part: PartSettings,
    state: State,
    batch: Any,
    share: float,
    rate: float,
    team: Team,
    watch: Watch,
) -> dict[str, float]:
    """One step of training. Returns the figures of the log."""
    generator = torch_generator(
        settings.seed, task.part, "loss", state.step, team.rank, device=team.device
    )
    batch = batch.to(team.device)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(team.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        loss, parts = task.loss(state.model, batch, generator, share)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    team.average_gradients(state.model)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), part.clip)
    values = {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}
    values |= {"gradient": float(norm), "learning_rate": rate}
    _check_finite(values, task.part, state.step)
    state.optimizer.step()
    _average(state, part.average)
    state.step += 1
    watch.add(task.work(state.model, batch))
    return values


def note(state: State, values: Mapping[str, float]) -> None:
    """Add figures to the sums that the next row of the log is the means of; a figure may be of
    some steps alone."""
    for name, value in values.items():
        total, count = state.sums.get(name, (0.0, 0))
        state.sums[name] = total + value, count + 1


def _check_finite(values: Mapping[str, float], part: str, step: int) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingError(
            f"training {part}: {wrong[0]} is {values[wrong[0]]} at step {step + 1}; the last checkpoint stays as it is",
            "continue with --resume after lowering learning_rate or clip, or with precision fp32",
        )


def _average(state: State, decay: float) -> None:
    # Young averages forget faster, or the first weights would stay in them for long.
    keep = min(decay, (1 + state.step) / (10 + state.step))
    mine = [value.detach() for value in state.model.parameters()]
    torch._foreach_lerp_(list(state.average.values()), mine, 1 - keep)


@torch.no_grad()
def keep(
    task: Task,
    settings: Settings,
    state: State,
    folder: Path,
    identity: Mapping[str, Any],
    log: Log | None,
) -> dict[str, float]:
    """A checkpoint, then figures, pictures and curves of the averaged weights. Only the first of
    a team does so."""
    if log is None:
        return {}
    saved.save_checkpoint(folder, state, identity, settings.keep)
    mine = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(saved.averaged(state))
    state.model.eval()
    try:
        with torch.autocast(
            _device(state.model).type, torch.bfloat16, enabled=settings.precision == "bf16"
        ):
            metrics = task.measure(state.model)
            sheet = task.picture(state.model) if settings.pictures else None
    finally:
        state.model.load_state_dict(mine)
        state.model.train()
    if metrics:
        log.add(state.step, {f"held_out.{name}": value for name, value in metrics.items()})
    if sheet is not None:
        where = folder / PICTURES
        where.mkdir(exist_ok=True)
        sheet.save(where / f"step-{state.step:09d}.png")
        log.picture(state.step, "held_out", np.asarray(sheet.convert("RGB")))
    draw_curves(read_log(log.path), task.part, folder / CURVES)
    return metrics


def check_identity(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise TrainingError, naming the first setting that is another one than in the checkpoint."""
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise TrainingError(
                f"{folder} was trained with {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                "continue with the settings and data it was begun with, or give another --out",
            )


@contextmanager
def batches(task: Task, first: int, ahead: int, rank: int) -> Iterator[Iterator[Any]]:
    """The batches of step `first` on, `ahead` of them prepared by other threads."""
    if not ahead:
        yield (task.batch(number, rank) for number in range(first, 2**62))
        return
    with ThreadPoolExecutor(ahead) as pool:

        def stream() -> Iterator[Any]:
            waiting = [pool.submit(task.batch, first + number, rank) for number in range(ahead)]
            for number in range(first + ahead, 2**62):
                done = waiting.pop(0)
                waiting.append(pool.submit(task.batch, number, rank))
                yield done.result()

        try:
            yield stream()
        finally:
            pool.shutdown(cancel_futures=True)


class Watch:
    """Progress and speed of the steps of this process."""

    def __init__(
        self, schedule: Schedule, state: State, progress: Progress, name: str, peak: float
    ) -> None:
        self.schedule, self.state, self.progress, self.peak = schedule, state, progress, peak
        self.total = schedule.steps if schedule.seconds is None else round(schedule.seconds)
        self.work = Work(0, 0, 0)
        self.before = state.seconds
        progress.start(name, self.total or 0, self._done())

    def _done(self) -> int:
        share = self.schedule.share(self.state.step, self.state.seconds)
        return min(int(share * (self.total or 0)), self.total or 0)

    def add(self, work: Work) -> None:
        before = self.work
        self.work = Work(
            before.crops + work.crops, before.voxels + work.voxels, before.flops + work.flops
        )

    def tell(self, loss: float) -> None:
        """An event when the count has moved, and so at most one a second where it is of seconds."""
        if self._done() > self.progress.done:
            self.progress.done = self._done() - 1
            self.progress.step(f"step {self.state.step}, loss {loss:.4g}")

    def speed(self) -> dict[str, float]:
        """A second: crops, voxels and floating-point operations, a backward pass counted as two
        forward ones."""
        spent = max(self.state.seconds - self.before, 1e-9)
        rate = 3 * self.work.flops / spent
        return {
            "crops_per_s": round(self.work.crops / spent, 4),
            "voxels_per_s": round(self.work.voxels / spent, 1),
            "gflops": round(rate / 1e9, 3),
            "flop_share": round(rate / self.peak, 4) if self.peak else 0.0,
        }


def measured_flops(settings: Settings, device: torch.device) -> float:
    return peak_flops(device, torch.bfloat16 if settings.precision == "bf16" else torch.float32)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
