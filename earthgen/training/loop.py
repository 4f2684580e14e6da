"""The training loop: AdamW, a learning rate by schedule, clipped gradients, averaged weights,
checkpoints.

All random numbers are functions of the seed, the part and the step, so a run that was killed goes
on from its last checkpoint along the same curve; on one CPU thread with the same bits. The loop
has not been run on a GPU, nor on several devices.
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
from earthgen.training.devices import ProcessGroup
from earthgen.training.interrupts import interrupts
from earthgen.training.log import Log, read_log
from earthgen.training.plot import draw_curves
from earthgen.training.randomness import torch_generator
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import LoopSettings, PartSettings
from earthgen.training.task import StepCost, Task
from earthgen.training.throughput import peak_flops

PICTURES, CURVES = "pictures", "curves.png"


@dataclass(frozen=True)
class FitResult:
    """A trained part.

    Attributes
    ----------
    model : nn.Module
        The network with averaged weights, in evaluation mode.
    step, seconds : int, float
        Length of the training, over all continuations.
    metrics : dict of str to float
        Figures of held-out crops, measured with exactly these weights.
    speed : dict of str to float
        Crops, voxels and FLOPs per second of this process's steps, and the share of the speed of a
        plain matrix product.
    """

    model: nn.Module
    step: int
    seconds: float
    metrics: dict[str, float]
    speed: dict[str, float]


def fit(
    task: Task,
    settings: LoopSettings,
    part: PartSettings,
    folder: Path,
    identity: Mapping[str, Any],
    group: ProcessGroup,
    progress: Progress,
) -> FitResult:
    """Train a part to its end, from its newest checkpoint if there is one.

    Parameters
    ----------
    task : Task
        The part and what it learns.
    settings : LoopSettings
        Settings of the run.
    part : PartSettings
        Settings of the part.
    folder : Path
        Folder of the part in the run.
    identity : mapping
        Settings and digests that a continuation has to share, JSON values.
    group : ProcessGroup
        The processes that train together.
    progress : Progress
        Receives the steps.

    Raises
    ------
    TrainingError
        If the loss or its gradient is not finite (the last checkpoint stays), or the checkpoint is
        damaged or of other settings or data.
    KeyboardInterrupt
        After Ctrl-C, with a checkpoint of the last step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schedule = LearningSchedule.of(part)
    state = initial_state(task, part, group.device)
    if group.is_main:
        saved.clear_partial(folder)
    newest = saved.checkpoints(folder)[-1:]
    if newest:
        check_identity(folder, saved.read_state(newest[0])["identity"], identity)
        saved.load_checkpoint(newest[0], state)
    log = Log(folder, state.step, settings.tensorboard) if group.is_main else None
    meter = StepMeter(
        schedule, state, progress, f"train {task.part}", device_flops(settings, group.device)
    )
    metrics: dict[str, float] = {}
    last_seconds = state.seconds
    last_step = -1
    # With several processes, each hears Ctrl-C at another step: there it ends them at once.
    alone = group.fabric is None
    with (
        batches(task, state.step, settings.prefetch, group.rank) as stream,
        interrupts(alone) as interrupted,
    ):
        while not group.agree(schedule.share(state.step, state.seconds) >= 1):
            began = time.monotonic()
            share = schedule.share(state.step, state.seconds)
            rate = schedule.rate(share)
            values = train_step(
                task, settings, part, state, next(stream), share, rate, group, meter
            )
            state.seconds += time.monotonic() - began
            meter.report(values["loss"])
            accumulate(state, values)
            if log is not None and state.step % settings.log_steps == 0:
                means = {name: total / count for name, (total, count) in state.sums.items()}
                log.add(state.step, {**means, "seconds": round(state.seconds, 3), **meter.speed()})
                state.sums.clear()
            due = state.seconds - last_seconds >= 60 * settings.checkpoint_minutes
            if settings.checkpoint_steps is not None:
                due = state.step % settings.checkpoint_steps == 0
            if group.agree(due):
                began = time.monotonic()
                metrics = save_and_measure(task, settings, state, folder, identity, log)
                state.seconds += time.monotonic() - began
                last_seconds, last_step = state.seconds, state.step
            if interrupted():
                if last_step != state.step:
                    saved.save_checkpoint(folder, state, identity, settings.keep)
                raise KeyboardInterrupt
    if last_step != state.step or not metrics:
        metrics = save_and_measure(task, settings, state, folder, identity, log)
    if log is not None:
        log.close()
    state.model.load_state_dict(saved.averaged(state))
    state.model.eval()
    return FitResult(state.model, state.step, state.seconds, metrics, meter.speed())


def initial_state(task: Task, part: PartSettings, device: torch.device) -> State:
    """Return the state of a training before its first step."""
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


def train_step(
    task: Task,
    settings: LoopSettings,
    part: PartSettings,
    state: State,
    batch: Any,
    share: float,
    rate: float,
    group: ProcessGroup,
    meter: StepMeter,
) -> dict[str, float]:
    """Do one step of training, and return the figures of the log.

    Parameters
    ----------
    share : float
        Share of the training that is done, in [0, 1].
    rate : float
        Learning rate of this step.
    """
    generator = torch_generator(
        settings.seed, task.part, "loss", state.step, group.rank, device=group.device
    )
    batch = batch.to(group.device)
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(group.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        loss, parts = task.loss(state.model, batch, generator, share)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    group.average_gradients(state.model)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), part.max_grad_norm)
    values = {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}
    values |= {"gradient": float(norm), "learning_rate": rate}
    _check_finite(values, task.part, state.step)
    state.optimizer.step()
    _update_average(state, part.ema_decay)
    state.step += 1
    meter.add(task.work(state.model, batch))
    return values


def accumulate(state: State, values: Mapping[str, float]) -> None:
    """Add figures to the sums whose means become the next row of the log.

    Not every figure has a value in every step.
    """
    for name, value in values.items():
        total, count = state.sums.get(name, (0.0, 0))
        state.sums[name] = total + value, count + 1


def _check_finite(values: Mapping[str, float], part: str, step: int) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingError(
            f"training {part}: {wrong[0]} is {values[wrong[0]]} at step {step + 1}; "
            "the last checkpoint is kept",
            "continue with --resume and a lower learning_rate or max_grad_norm, "
            "or with precision fp32",
        )


def _update_average(state: State, decay: float) -> None:
    # A young average forgets faster, or it would keep the initial weights for long.
    keep = min(decay, (1 + state.step) / (10 + state.step))
    parameters = [value.detach() for value in state.model.parameters()]
    torch._foreach_lerp_(list(state.average.values()), parameters, 1 - keep)


@torch.no_grad()
def save_and_measure(
    task: Task,
    settings: LoopSettings,
    state: State,
    folder: Path,
    identity: Mapping[str, Any],
    log: Log | None,
) -> dict[str, float]:
    """Write a checkpoint, then figures, pictures and curves of the averaged weights.

    Parameters
    ----------
    log : Log, optional
        None in all processes but the main one, which then write nothing.

    Returns
    -------
    dict of str to float
        Figures of held-out crops.
    """
    if log is None:
        return {}
    saved.save_checkpoint(folder, state, identity, settings.keep)
    current = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(saved.averaged(state))
    state.model.eval()
    device = next(state.model.parameters()).device
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            metrics = task.measure(state.model)
            sheet = task.picture(state.model) if settings.pictures else None
    finally:
        state.model.load_state_dict(current)
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
    """Raise TrainingError for the first setting that differs from the checkpoint's."""
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise TrainingError(
                f"{folder} was trained with {name} = {before.get(name)!r}, "
                f"now it is {now.get(name)!r}",
                "continue with the same settings and data, or give another --out",
            )


@contextmanager
def batches(task: Task, first: int, ahead: int, rank: int) -> Iterator[Iterator[Any]]:
    """Iterate over the batches from step `first` on, `ahead` of them prepared by other threads."""
    if not ahead:
        yield (task.batch(step, rank) for step in range(first, 2**62))
        return
    with ThreadPoolExecutor(ahead) as pool:

        def stream() -> Iterator[Any]:
            waiting = [pool.submit(task.batch, first + offset, rank) for offset in range(ahead)]
            for step in range(first + ahead, 2**62):
                done = waiting.pop(0)
                waiting.append(pool.submit(task.batch, step, rank))
                yield done.result()

        try:
            yield stream()
        finally:
            pool.shutdown(cancel_futures=True)


class StepMeter:
    """Measures progress and speed of the steps of this process."""

    def __init__(
        self,
        schedule: LearningSchedule,
        state: State,
        progress: Progress,
        name: str,
        peak: float,
    ) -> None:
        self.schedule, self.state, self.progress, self.peak = schedule, state, progress, peak
        self.total = schedule.steps if schedule.seconds is None else round(schedule.seconds)
        self.work = StepCost(0, 0, 0)
        self.seconds_before = state.seconds
        progress.start(name, self.total or 0, self._done())

    def _done(self) -> int:
        share = self.schedule.share(self.state.step, self.state.seconds)
        return min(int(share * (self.total or 0)), self.total or 0)

    def add(self, work: StepCost) -> None:
        """Count the work of one step."""
        before = self.work
        self.work = StepCost(
            before.crops + work.crops, before.voxels + work.voxels, before.flops + work.flops
        )

    def report(self, loss: float) -> None:
        """Emit an event if the count has moved: at most one per second if it counts seconds."""
        if self._done() > self.progress.done:
            self.progress.done = self._done() - 1
            self.progress.step(f"step {self.state.step}, loss {loss:.4g}")

    def speed(self) -> dict[str, float]:
        """Return crops, voxels and floating-point operations per second.

        A backward pass counts as two forward passes.
        """
        spent = max(self.state.seconds - self.seconds_before, 1e-9)
        rate = 3 * self.work.flops / spent
        return {
            "crops_per_s": round(self.work.crops / spent, 4),
            "voxels_per_s": round(self.work.voxels / spent, 1),
            "gflops": round(rate / 1e9, 3),
            "flop_share": round(rate / self.peak, 4) if self.peak else 0.0,
        }


def device_flops(settings: LoopSettings, device: torch.device) -> float:
    """Return the floating-point operations per second that a device reaches in this precision."""
    return peak_flops(device, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
