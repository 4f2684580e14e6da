"""The training loop: AdamW, a learning rate by schedule, clipped gradients, averaged weights,
checkpoints.

All random numbers are functions of the seed, the part and the step, so a run that was killed goes
on from its last checkpoint along the same curve; on one CPU thread with the same bits. A step never
waits for the device: figures are read, and checked, when they are logged or shown. The loop has not
been run on a GPU, nor on several devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earthgen.errors import TrainingError
from earthgen.progress import Progress
from earthgen.training import checkpoint as saved
from earthgen.training.checkpoint import State
from earthgen.training.devices import ProcessGroup
from earthgen.training.log import Log, read_log
from earthgen.training.plot import draw_curves
from earthgen.training.randomness import torch_generator
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import LoopSettings, PartSettings
from earthgen.training.steps.acceleration import prepare_model
from earthgen.training.steps.interrupts import interrupts
from earthgen.training.steps.throughput import peak_flops
from earthgen.training.task import StepBatch, StepCost, Task

PICTURES, CURVES = "pictures", "curves.png"

COUNTED = 50
"""The work of one in so many steps is counted."""

PREFETCH = 4
"""Batches prepared ahead for a GPU, unless a setting says how many."""


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
    schedule = continue_from(folder, state, schedule, identity, group.is_main, progress)
    prepare_model(state.model, settings, group.device)
    log = Log(folder, state.step, settings.tensorboard) if group.is_main else None
    meter = StepMeter(
        schedule, state, progress, f"train {task.part}", device_flops(settings, group.device)
    )
    pending = PendingFigures(task, group.rank)
    keeper = partial(saved.save_checkpoint, folder, state, identity, settings.keep, schedule.length)
    metrics: dict[str, float] = {}
    last_seconds = state.seconds
    last_step = -1
    # With several processes, each hears Ctrl-C at another step: there it ends them at once.
    alone = group.fabric is None
    with (
        batches(task, state.step, settings, group) as stream,
        interrupts(alone) as interrupted,
    ):
        while not group.agree(schedule.share(state.step, state.seconds) >= 1):
            share = schedule.share(state.step, state.seconds)
            if state.steady and schedule.is_cooling(share):
                pending.read(state)
                if group.is_main and state.step:
                    keeper()
                state.steady = False
            began = time.monotonic()
            rate = schedule.rate(state.step, state.seconds)
            values = train_step(
                task, settings, part, state, next(stream), share, rate, group, meter
            )
            pending.add(state.step, values)
            state.seconds += time.monotonic() - began
            logged = state.step % settings.log_steps == 0
            due = state.seconds - last_seconds >= 60 * settings.checkpoint_minutes
            if settings.checkpoint_steps is not None:
                due = state.step % settings.checkpoint_steps == 0
            due = group.agree(due)
            if logged or due or meter.moved() or interrupted():
                began = time.monotonic()
                meter.report(pending.read(state))
                state.seconds += time.monotonic() - began  # the device computes meanwhile
            if log is not None and logged:
                means = {name: total / count for name, (total, count) in state.sums.items()}
                log.add(state.step, {**means, "seconds": round(state.seconds, 3), **meter.speed()})
                state.sums.clear()
            if due:
                metrics = save_and_measure(task, settings, state, folder, keeper, log)
                last_seconds, last_step = state.seconds, state.step
            if interrupted():
                pending.read(state)
                if last_step != state.step:
                    keeper()
                raise KeyboardInterrupt
    pending.read(state)
    if log is not None and state.sums and not read_log(log.path):
        # Shorter than the distance of rows.
        log.add(state.step, {name: total / count for name, (total, count) in state.sums.items()})
    if last_step != state.step or not metrics:
        metrics = save_and_measure(task, settings, state, folder, keeper, log)
    if log is not None:
        log.close()
    if meter.divided:
        progress.warn(
            f"{task.part}: {meter.divided:,} of {meter.crops:,} crops have more voxels than "
            "max_voxels, and were divided into quarters"
        )
    state.model.load_state_dict(saved.averaged(state))
    state.model.eval()
    return FitResult(state.model, state.step, state.seconds, metrics, meter.speed())


def continue_from(
    folder: Path,
    state: State,
    schedule: LearningSchedule,
    identity: Mapping[str, Any],
    is_main: bool,
    progress: Progress,
) -> LearningSchedule:
    """Load the checkpoint that a training continues from, if there is one, in place.

    That is the newest one. If the training shall be longer than before and the learning rate has
    begun to fall, it is the one from before that; what came after it is removed and trained again.

    Returns
    -------
    LearningSchedule
        With the warm-up that the training was started with.
    """
    every = saved.checkpoints(folder)
    if not every:
        state.first_length = schedule.length
        return schedule
    chosen = every[-1]
    about = saved.read_state(chosen)
    check_identity(folder, about["identity"], identity)
    length = about.get("length") or (None, None)
    longer = schedule.is_longer((length[0], length[1]))
    if longer and length != [None, None] and not about.get("steady"):
        before = saved.steady_checkpoint(folder)
        if before is None:
            progress.warn(
                f"{folder}: no checkpoint from before the learning rate fell is left, so that it "
                "rises again"
            )
        else:
            chosen = before
    saved.load_checkpoint(chosen, state)
    if longer and is_main:
        saved.remove_after(folder, chosen)
    first = state.first_length
    if first is None or first == (None, None):
        return schedule
    return schedule.extended_from(first)


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
    batch: StepBatch,
    share: float,
    rate: float,
    group: ProcessGroup,
    meter: StepMeter,
) -> dict[str, Tensor | float]:
    """Do one step of training, and return the figures of the log, which lie on the device.

    A step whose loss or gradient is not finite leaves the weights unchanged.

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
    figures: dict[str, list[tuple[float, Tensor]]] = {}
    for micro, weight in zip(batch.parts, batch.weights, strict=True):
        with torch.autocast(
            group.device.type, torch.bfloat16, enabled=settings.precision == "bf16"
        ):
            loss, parts = task.loss(state.model, micro, generator, share)
        if loss.requires_grad:
            (loss * weight).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss, **parts}.items():
            figures.setdefault(name, []).append((weight, value.detach().float()))
    group.average_gradients(state.model)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), part.max_grad_norm)
    values: dict[str, Tensor | float] = {
        name: _weighted_mean(pairs) for name, pairs in figures.items()
    }
    values["gradient"] = norm.detach().float()
    finite = torch.stack([v for v in values.values() if isinstance(v, Tensor)]).isfinite().all()
    # The fused optimiser leaves the weights unchanged where this is 1, as for a gradient scaler,
    # without the device having to report it.
    state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    state.optimizer.step()
    _update_average(state, part.ema_decay)
    state.step += 1
    meter.add(task, state.model, batch)
    if batch.divided:
        values["divided"] = float(batch.divided)
    return {**values, "learning_rate": rate}


def _weighted_mean(pairs: list[tuple[float, Tensor]]) -> Tensor:
    if len(pairs) == 1:
        return pairs[0][1]
    total = sum(weight for weight, _ in pairs)
    return torch.stack([value * (weight / total) for weight, value in pairs]).sum()


class PendingFigures:
    """Figures of steps that have not been read from the device yet.

    Parameters
    ----------
    task : Task
        The part.
    rank : int
        Number of this process.
    """

    def __init__(self, task: Task, rank: int) -> None:
        self.task, self.rank = task, rank
        self.steps: list[tuple[int, dict[str, Tensor | float]]] = []
        self.loss = 0.0

    def add(self, step: int, values: dict[str, Tensor | float]) -> None:
        """Keep the figures of a step."""
        self.steps.append((step, values))

    def read(self, state: State) -> float:
        """Add all figures to the sums of the log, and return the newest loss.

        Raises
        ------
        TrainingError
            For the first step with a figure that is not finite.
        """
        steps, self.steps = self.steps, []
        if not steps:
            return self.loss
        tensors = [v for _, values in steps for v in values.values() if isinstance(v, Tensor)]
        numbers = iter(torch.stack(tensors).tolist())
        for step, values in steps:
            read = {n: next(numbers) if isinstance(v, Tensor) else v for n, v in values.items()}
            _check_finite(read, self.task, step, self.rank)
            accumulate(state, read)
            self.loss = read["loss"]
        return self.loss


def accumulate(state: State, values: Mapping[str, float]) -> None:
    """Add figures to the sums whose means become the next row of the log.

    Not every figure has a value in every step.
    """
    for name, value in values.items():
        total, count = state.sums.get(name, (0.0, 0))
        state.sums[name] = total + value, count + 1


def _check_finite(values: Mapping[str, float], task: Task, step: int, rank: int) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    places = task.places(task.batch(step - 1, rank))
    raise TrainingError(
        f"training {task.part}: {wrong[0]} is {values[wrong[0]]} at step {step}"
        + (f", of {places}" if places else "")
        + "; the last checkpoint is kept",
        "look at the scene with `earthgen dataset inspect`, or continue with --resume and a lower "
        "learning_rate or max_grad_norm, or with precision fp32",
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
    save: Callable[[], object],
    log: Log | None,
) -> dict[str, float]:
    """Write a checkpoint, then figures, pictures and curves of the averaged weights.

    Parameters
    ----------
    save : callable
        Writes the checkpoint.
    log : Log, optional
        None in all processes but the main one, which then write nothing.

    Returns
    -------
    dict of str to float
        Figures of held-out crops.
    """
    if log is None:
        return {}
    save()
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
def batches(
    task: Task, first: int, settings: LoopSettings, group: ProcessGroup
) -> Iterator[Iterator[StepBatch]]:
    """Iterate over the batches from step `first` on, prepared ahead and copied by other threads."""
    on_cpu = group.device.type == "cpu"
    ahead = settings.prefetch if settings.prefetch is not None else 0 if on_cpu else PREFETCH
    rank = group.rank

    def make(step: int) -> StepBatch:
        batch = task.batch(step, rank)
        if on_cpu:
            return batch
        parts = tuple(part.pinned() if hasattr(part, "pinned") else part for part in batch.parts)
        return replace(batch, parts=parts).to(group.device)

    if not ahead:
        yield (make(step) for step in range(first, 2**62))
        return
    with ThreadPoolExecutor(ahead) as pool:

        def stream() -> Iterator[StepBatch]:
            waiting = [pool.submit(make, first + offset) for offset in range(ahead)]
            for step in range(first + ahead, 2**62):
                done = waiting.pop(0)
                waiting.append(pool.submit(make, step))
                yield done.result()

        try:
            yield stream()
        finally:
            pool.shutdown(cancel_futures=True)


class StepMeter:
    """Measures progress and speed of the steps of this process.

    The work of a step is counted in the first step and then in every `COUNTED`-th, because counting
    the products of a sparse network builds its kernel maps; the others count as their mean.
    """

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
        self.work, self.counted = StepCost(0, 0, 0), 0
        self.steps = self.crops = self.divided = 0
        self.seconds_before = state.seconds
        progress.start(name, self.total or 0, self._done())

    def _done(self) -> int:
        share = self.schedule.share(self.state.step, self.state.seconds)
        return min(int(share * (self.total or 0)), self.total or 0)

    def add(self, task: Task, model: nn.Module, batch: StepBatch) -> None:
        """Count a step."""
        self.steps += 1
        self.crops += sum(len(part) for part in batch.parts)
        self.divided += batch.divided
        if self.steps % COUNTED != 1:
            return
        self.counted += 1
        for part in batch.parts:
            cost, before = task.work(model, part), self.work
            self.work = StepCost(
                before.crops + cost.crops, before.voxels + cost.voxels, before.flops + cost.flops
            )

    def moved(self) -> bool:
        """Whether the count of the progress has moved: at most once a second if it counts time."""
        return self._done() > self.progress.done

    def report(self, loss: float) -> None:
        """Emit an event if the count has moved."""
        if self.moved():
            self.progress.done = self._done() - 1
            self.progress.step(f"step {self.state.step}, loss {loss:.4g}")

    def speed(self) -> dict[str, float]:
        """Return crops, voxels and floating-point operations per second.

        A backward pass counts as two forward passes.
        """
        spent = max(self.state.seconds - self.seconds_before, 1e-9)
        times = self.steps / max(self.counted, 1)
        rate = 3 * self.work.flops * times / spent
        return {
            "crops_per_s": round(self.crops / spent, 4),
            "voxels_per_s": round(self.work.voxels * times / spent, 1),
            "gflops": round(rate / 1e9, 3),
            "flop_share": round(rate / self.peak, 4) if self.peak else 0.0,
        }


def device_flops(settings: LoopSettings, device: torch.device) -> float:
    """Return the floating-point operations per second that a device reaches in this precision."""
    return peak_flops(device, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
