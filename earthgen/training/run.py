"""A run: parts trained one after the other, and the set of weights that results.

RUN/PART/               metrics.csv, curves.png, pictures/, step-*/ (checkpoints), tensorboard/
RUN/weights/            PART.safetensors, card.json, README.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earthgen.dataset.scene import Scene
from earthgen.errors import JobError, MissingWeightsError, TrainingError
from earthgen.models.image_features import missing_package
from earthgen.models.presets import PARTS, STYLES, Preset, preset
from earthgen.models.weights.card import (
    AUTOENCODERS,
    WeightSet,
    headers_in,
    open_weights,
    read_card,
    strangers,
    write_card,
)
from earthgen.models.weights.format import part_path, read_header, save_weights
from earthgen.progress import Listener, Progress
from earthgen.sparse.products import product_dtype
from earthgen.training.checkpoint import checkpoints, read_state
from earthgen.training.data import TrainingData, classes_in_crops, load_scenes, open_data
from earthgen.training.devices import ProcessGroup, launch
from earthgen.training.loop import FitResult, fit
from earthgen.training.parts.common import TaskContext
from earthgen.training.parts.height_flow import height_flow_task
from earthgen.training.parts.struct_flow import struct_coarse_task, struct_fine_task
from earthgen.training.parts.struct_vae import struct_vae_task
from earthgen.training.parts.tex_flow import tex_flow_task
from earthgen.training.parts.tex_vae import tex_vae_task
from earthgen.training.runs.initial import WEIGHTS, copy_parts, initial_model, open_initial
from earthgen.training.runs.lock import hold_run
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import (
    IDENTITY,
    LENGTH,
    TASKS,
    PartSettings,
    TexVaeSettings,
    TrainingSettings,
    default_settings,
    part_settings,
)
from earthgen.training.steps.columns import device_columns
from earthgen.training.task import StepBatch, Task

SHOWN = 4
"""Crops that a message names."""

TASK_MAKERS: dict[str, Callable[[TaskContext[Any]], Task]] = {
    "struct-vae": struct_vae_task,
    "struct-coarse": struct_coarse_task,
    "struct-fine": struct_fine_task,
    "tex-vae": tex_vae_task,
    "tex-flow": tex_flow_task,
    "height-flow": height_flow_task,
}

COLOURED = frozenset({"tex-vae", "tex-flow"})
"""Parts that are trained on crops with known colour."""


@dataclass(frozen=True)
class PartReport:
    """How the training of a part went.

    Attributes
    ----------
    step, seconds : int, float
        Length of the training, over all continuations.
    metrics : mapping of str to float
        Figures of held-out crops, measured with exactly the resulting weights.
    speed : mapping of str to float
        Of this call's steps: crops, voxels and FLOPs per second, and the share of the speed of a
        plain matrix product.
    """

    step: int
    seconds: float
    metrics: Mapping[str, float]
    speed: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes
    ----------
    weights : WeightSet
        The set, with all parts that are trained so far.
    fitted : mapping of str to PartReport
        The parts that this call trained.
    """

    weights: WeightSet
    fitted: Mapping[str, PartReport]


def train(
    task: str,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    listener: Listener | None = None,
) -> TrainingResult:
    """Train the parts of a task, and write their weights.

    Parameters
    ----------
    task : str
        A name in `earthgen.training.settings.TASKS`.
    settings : TrainingSettings
        The run, made by `earthgen.training.settings.make_settings`.
    resume : bool
        Whether to continue the run at `settings.out`, or start it if there is none. Finished parts
        are not trained again.
    listener : Listener, optional
        Receives events of progress.

    Raises
    ------
    JobError
        If there is no such task, or a setting of a part is wrong.
    TrainingError
        If the run has parts of the task already and `resume` is False, was started with other
        settings or data, or a flow's autoencoder was not trained; else as of
        `earthgen.training.loop.fit`.
    StoreError, ModelError
        As of `earthgen.training.data.open_data` and `earthgen.models.weights.format.load_weights`.
    """
    if task not in TASKS:
        raise JobError(f"unknown task {task!r}", f"choose from {', '.join(TASKS)}")
    parts = tuple(part for part in parts_of(task, settings) if part not in settings.freeze)
    own_settings = {part: part_settings(settings, part, parts) for part in parts}
    sizes = preset(settings.preset)
    threads = torch.get_num_threads()
    start = _initial(settings, sizes, parts)
    progress = Progress(listener)

    def work(group: ProcessGroup) -> dict[str, dict[str, Any]]:
        """Return plain values, which the main process sends to the one that started it."""
        with hold_run(settings.out, (WEIGHTS, *PARTS)) if group.is_main else nullcontext():
            _check_not_started(settings, parts, resume)
            if start is not None and group.is_main:
                _take_over(start, settings, parts, progress)
            group.wait()
            return _train_parts(settings, parts, own_settings, sizes, start, group, progress)

    torch.set_num_threads(settings.threads or threads)
    try:
        reports = launch(work, settings.device, settings.devices) or {}
    finally:
        torch.set_num_threads(threads)
    return TrainingResult(
        open_weights(settings.out / WEIGHTS),
        {part: PartReport(**values) for part, values in reports.items()},
    )


def _train_parts(
    settings: TrainingSettings,
    parts: tuple[str, ...],
    own_settings: Mapping[str, PartSettings],
    sizes: Preset,
    start: WeightSet | None,
    group: ProcessGroup,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    precision = resolve_precision(settings.precision, group.device)
    resolved = settings.model_copy(update={"precision": precision})
    reports: dict[str, dict[str, Any]] = {}
    opened: dict[bool, TrainingData] = {}
    by_weight: dict[tuple[bool, float], TrainingData] = {}
    scenes: list[Scene] = []
    for part in parts:
        own = own_settings[part]
        coloured = part in COLOURED
        key = coloured, own.coarse_weight
        if key not in by_weight:
            scenes = scenes or load_scenes(settings.data, settings.grades, settings.scenes)
            by_weight[key] = _open_data(resolved, sizes, *key, scenes)
        data = by_weight[key]
        opened.setdefault(coloured, data)
        if not data.held_out and group.is_main:
            progress.warn("no crop of the dataset is held out: nothing is measured while training")
        identity = _identity(resolved, own, data, _parent(resolved, part, start))
        if _is_finished(resolved, part, own, identity):
            progress.say(f"{part} is trained already")
            continue
        if isinstance(own, TexVaeSettings) and own.perceptual_weight and missing_package():
            progress.warn(f"views are compared without features: {missing_package()}")
        fitted = _train_part(part, resolved, own, sizes, data, identity, start, group, progress)
        reports[part] = {
            "step": fitted.step,
            "seconds": fitted.seconds,
            "metrics": fitted.metrics,
            "speed": fitted.speed,
        }
        group.wait()
    if group.is_main:
        _leave_out_strangers(settings.out / WEIGHTS, progress)
        names = " and ".join(folder.name for folder in settings.data)
        title = settings.title or f"earthgen {settings.preset}, trained on {names}"
        write_card(
            settings.out / WEIGHTS,
            title=title,
            licence=settings.licence,
            notes=settings.notes,
            classes=_trained_classes(settings, opened, start),
            defaults={part: default_settings(part, settings.preset) for part in TASKS["all"]},
        )
    group.wait()
    return reports


def _initial(settings: TrainingSettings, sizes: Preset, parts: tuple[str, ...]) -> WeightSet | None:
    """Open the weights that the run starts from, and check that frozen parts are among them."""
    if settings.init is None:
        start, known = None, {part for part in PARTS if _trained(settings, part)}
    else:
        start = open_initial(settings.init, sizes, parts)
        known = set(start.parts)
    missing = [part for part in settings.freeze if part not in known]
    if missing:
        where = settings.out if start is None else start.folder
        raise TrainingError(
            f"{missing[0]} cannot be frozen: {where} has no weights of it",
            "give weights that have it with --init, or train it",
        )
    return start


def _take_over(
    start: WeightSet, settings: TrainingSettings, parts: tuple[str, ...], progress: Progress
) -> None:
    """Copy what the run does not train, and say what the weights do not have."""
    others = [part for part in PARTS if part not in parts]
    copied, left_out = copy_parts(start, others, settings.out / WEIGHTS, parts)
    if copied:
        progress.say(f"taken over without training: {', '.join(copied)}")
    if left_out:
        progress.warn(
            f"{', '.join(left_out)} of {start.folder} is left out: its latents are those of an "
            "autoencoder that this run trains again; train it too, or freeze the autoencoder"
        )
    new = [part for part in parts if part not in start.parts]
    if new:
        progress.warn(f"{start.folder} has no {', '.join(new)}: it starts from new weights")


def _leave_out_strangers(folder: Path, progress: Progress) -> None:
    """Remove weights of flows of an earlier run that learned latents which are no more."""
    for flow, source in strangers(headers_in(folder)).items():
        part_path(folder, flow).unlink()
        progress.warn(
            f"{flow} is left out of {folder}: it learned the latents of the {source} before; "
            "train it again"
        )


def _trained(settings: TrainingSettings, part: str) -> bool:
    return part_path(settings.out / WEIGHTS, part).is_file()


def _parent(settings: TrainingSettings, part: str, start: WeightSet | None) -> str:
    """Return the digest of the weights that a part starts from, "" for new ones.

    A continuation without `init` keeps that of its checkpoint.
    """
    if start is not None:
        return start.parts[part].digest if part in start.parts else ""
    newest = checkpoints(settings.out / part)[-1:]
    return str(read_state(newest[0])["identity"].get("parent", "")) if newest else ""


def parts_of(task: str, settings: TrainingSettings) -> tuple[str, ...]:
    """Return the parts that a task trains: `all` without TexVAE if TexFM makes colours itself."""
    parts = TASKS[task]
    target = settings.parts.get("tex-flow", {}).get("target") or (
        preset(settings.preset).tex_flow.target
    )
    if task == "all" and target == "rgb":
        return tuple(part for part in parts if part != "tex-vae")
    return parts


def _train_part(
    part: str,
    settings: TrainingSettings,
    own: PartSettings,
    sizes: Preset,
    data: TrainingData,
    identity: Mapping[str, Any],
    start: WeightSet | None,
    group: ProcessGroup,
    progress: Progress,
) -> FitResult:
    folder = settings.out / WEIGHTS
    on_device = settings.data_device == "training" or (
        settings.data_device == "auto" and group.device.type != "cpu"
    )
    context = TaskContext(
        sizes,
        own,
        data,
        settings.seed,
        folder,
        group.device,
        settings.devices,
        device_columns(data, group.device) if on_device and part == "height-flow" else None,
    )
    task = replace(TASK_MAKERS[part](context), places=partial(crop_places, data))
    sources, licence, styles = data.sources, settings.licence, data.styles
    if start is not None and part in start.parts:
        task = replace(task, make=lambda: initial_model(start, part))
        before = start.parts[part]
        sources = (*before.data, *(source for source in sources if source not in before.data))
        licence = licence or before.licence
        styles = tuple(name for name in STYLES if name in {*before.styles, *styles})
    identity = {**identity, "latents": task.latents}
    fitted = fit(task, settings, own, settings.out / part, identity, group, progress)
    task.finish(fitted.model)
    if group.is_main:
        save_weights(
            part_path(folder, part),
            part,
            fitted.model,
            preset_name=sizes.name,
            voxel_size=sizes.voxel_size,
            latents=task.latents,
            parent=identity.get("parent", ""),
            licence=licence,
            data=sources,
            metrics=fitted.metrics,
            settings={
                **identity,
                "steps": fitted.step,
                "seconds": round(fitted.seconds, 1),
                "torch": torch.__version__,
            },
            styles=styles,
            dtype=settings.weights_dtype,
        )
    return fitted


def crop_places(data: TrainingData, batch: StepBatch) -> str:
    """Name the scenes of the crops of a step and their places, first those with values that are
    not finite."""
    crops = [crop for part in batch.parts for crop in getattr(part, "columns", part).crops]
    broken = [
        crop
        for crop in crops
        if not all(
            np.isfinite(values).all()
            for values in (crop.ground, crop.height, crop.building_height, crop.normal)
        )
    ]
    names = []
    for crop in broken or crops:
        frame = crop.frame
        inside = [
            scene.info.name
            for scene in data.train.scenes
            if scene.frame.crs == frame.crs and scene.frame.intersection(frame) is not None
        ]
        west, south = (edge[0] * frame.voxel_size for edge in (frame.x, frame.y))
        names.append(f"{' or '.join(inside) or 'a scene'} at {west:g}, {south:g}")
    named = list(dict.fromkeys(names))
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    what = "the crop with values that are not finite, " if broken else "crops of "
    return what + "; ".join(named[:SHOWN]) + more


def _trained_classes(
    settings: TrainingSettings, opened: Mapping[bool, TrainingData], start: WeightSet | None
) -> dict[str, list[str]]:
    """Return the classes that structure and texture were trained on.

    Those that this call did not train are taken from the card, and those of the weights that it
    started from are added.
    """
    try:
        before: dict[str, list[str]] = dict(read_card(settings.out / WEIGHTS).get("classes", {}))
    except MissingWeightsError:
        before = {}
    now = {
        "texture" if coloured else "structure": classes_in_crops(data, coloured)
        for coloured, data in opened.items()
    }
    known: dict[str, list[str]] = {} if start is None else start.card.get("classes", {})
    result = {**known, **before, **now}
    return {
        kind: list(dict.fromkeys([*known.get(kind, []), *names])) for kind, names in result.items()
    }


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return a precision with "auto" replaced: "bf16" if the device multiplies it in hardware."""
    if precision != "auto":
        return precision
    hardware = product_dtype(torch.bfloat16, device) == torch.bfloat16
    return "bf16" if hardware else "fp32"


def _open_data(
    settings: TrainingSettings,
    sizes: Preset,
    coloured: bool,
    coarse_weight: float,
    scenes: list[Scene],
) -> TrainingData:
    return open_data(
        settings.data,
        sizes,
        columns=settings.columns,
        overlap=settings.overlap,
        grades=settings.grades,
        names=settings.scenes,
        held_out=settings.held_out,
        coloured=coloured,
        seed=settings.seed,
        scenes=scenes,
        coarse_weight=coarse_weight,
        simulated=settings.simulated,
    )


def _identity(
    settings: TrainingSettings, own: PartSettings, data: TrainingData, parent: str
) -> dict[str, Any]:
    """Return what a continuation has to share, as JSON values."""
    values = settings.model_dump(mode="json", include=set(IDENTITY))
    own_values = own.model_dump(mode="json", exclude=set(LENGTH))
    start = {"parent": parent} if parent else {}
    result: dict[str, Any] = json.loads(
        json.dumps({**values, **own_values, "dataset": data.digest, **start})
    )
    return result


def _check_not_started(settings: TrainingSettings, parts: tuple[str, ...], resume: bool) -> None:
    started = [part for part in parts if checkpoints(settings.out / part)]
    if started and not resume:
        raise TrainingError(
            f"{settings.out} has {started[0]} already", "give --resume, or another --out"
        )


def _is_finished(
    settings: TrainingSettings, part: str, own: PartSettings, identity: Mapping[str, Any]
) -> bool:
    """Whether a part has weights of these settings, data and latents, trained long enough."""
    folder = settings.out / WEIGHTS
    if not part_path(folder, part).is_file():
        return False
    before = read_header(part_path(folder, part))
    source = AUTOENCODERS.get(part)
    latents = read_header(part_path(folder, source)).digest if source and before.latents else ""
    if before.latents != latents:  # a flow of colours has none
        return False
    # A tenth of a percent: seconds are rounded in the header.
    share = LearningSchedule.of(own).share(
        before.settings.get("steps", 0), before.settings.get("seconds", 0.0)
    )
    return share >= 0.999 and all(
        before.settings.get(name) == value for name, value in identity.items()
    )
