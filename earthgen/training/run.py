"""A run: parts trained one after the other, and the set of weights that results.

RUN/PART/               metrics.csv, curves.png, pictures/, step-*/ (checkpoints), tensorboard/
RUN/weights/            PART.safetensors, card.json, README.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from earthgen.dataset.scene import Scene
from earthgen.errors import JobError, MissingWeightsError, TrainingError
from earthgen.models.image_features import missing_package
from earthgen.models.presets import Preset, preset
from earthgen.models.weights.card import (
    AUTOENCODERS,
    WeightSet,
    open_weights,
    read_card,
    write_card,
)
from earthgen.models.weights.format import part_path, read_header, save_weights
from earthgen.progress import Listener, Progress
from earthgen.sparse.products import product_dtype
from earthgen.training.checkpoint import checkpoints
from earthgen.training.data import TrainingData, classes_in_crops, load_scenes, open_data
from earthgen.training.devices import ProcessGroup, launch
from earthgen.training.loop import FitResult, fit
from earthgen.training.parts.common import TaskContext
from earthgen.training.parts.height_flow import height_flow_task
from earthgen.training.parts.struct_flow import struct_coarse_task, struct_fine_task
from earthgen.training.parts.struct_vae import struct_vae_task
from earthgen.training.parts.tex_flow import tex_flow_task
from earthgen.training.parts.tex_vae import tex_vae_task
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import (
    IDENTITY,
    LENGTH,
    TASKS,
    PartSettings,
    TexVaeSettings,
    TrainingSettings,
    part_settings,
)
from earthgen.training.task import Task

WEIGHTS = "weights"

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
    parts = TASKS[task]
    own_settings = {part: part_settings(settings, part, parts) for part in parts}
    sizes = preset(settings.preset)
    threads = torch.get_num_threads()
    _check_not_started(settings, parts, resume)
    progress = Progress(listener)

    def work(group: ProcessGroup) -> dict[str, dict[str, Any]]:
        """Return plain values, which the main process sends to the one that started it."""
        precision = resolve_precision(settings.precision, group.device)
        resolved = settings.model_copy(update={"precision": precision})
        settings.out.mkdir(parents=True, exist_ok=True)
        reports: dict[str, dict[str, Any]] = {}
        opened: dict[bool, TrainingData] = {}
        scenes: list[Scene] = []
        for part in parts:
            own = own_settings[part]
            coloured = part in COLOURED
            if coloured not in opened:
                scenes = scenes or load_scenes(settings.data, settings.grades, settings.scenes)
                opened[coloured] = _open_data(resolved, sizes, coloured, scenes)
            data = opened[coloured]
            if not data.held_out and group.is_main:
                progress.warn(
                    "no crop of the dataset is held out: nothing is measured while training"
                )
            identity = _identity(resolved, own, data)
            if _is_finished(resolved, part, own, identity):
                progress.say(f"{part} is trained already")
                continue
            if isinstance(own, TexVaeSettings) and own.perceptual_weight and missing_package():
                progress.warn(f"views are compared without features: {missing_package()}")
            fitted = _train_part(part, resolved, own, sizes, data, identity, group, progress)
            reports[part] = {
                "step": fitted.step,
                "seconds": fitted.seconds,
                "metrics": fitted.metrics,
                "speed": fitted.speed,
            }
            group.wait()
        if group.is_main:
            title = settings.title or f"earthgen {settings.preset}, trained on {settings.data.name}"
            write_card(
                settings.out / WEIGHTS,
                title=title,
                licence=settings.licence,
                notes=settings.notes,
                classes=_trained_classes(settings, opened),
            )
        group.wait()
        return reports

    torch.set_num_threads(settings.threads or threads)
    try:
        reports = launch(work, settings.device, settings.devices) or {}
    finally:
        torch.set_num_threads(threads)
    return TrainingResult(
        open_weights(settings.out / WEIGHTS),
        {part: PartReport(**values) for part, values in reports.items()},
    )


def _train_part(
    part: str,
    settings: TrainingSettings,
    own: PartSettings,
    sizes: Preset,
    data: TrainingData,
    identity: Mapping[str, Any],
    group: ProcessGroup,
    progress: Progress,
) -> FitResult:
    folder = settings.out / WEIGHTS
    context = TaskContext(sizes, own, data, settings.seed, folder, group.device, settings.devices)
    task = TASK_MAKERS[part](context)
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
            licence=settings.licence,
            data=data.sources,
            metrics=fitted.metrics,
            settings={
                **identity,
                "steps": fitted.step,
                "seconds": round(fitted.seconds, 1),
                "torch": torch.__version__,
            },
            dtype=settings.weights_dtype,
        )
    return fitted


def _trained_classes(
    settings: TrainingSettings, opened: Mapping[bool, TrainingData]
) -> dict[str, list[str]]:
    """Return the classes that structure and texture were trained on.

    Those that this call did not train are taken from the card.
    """
    try:
        before: dict[str, list[str]] = dict(read_card(settings.out / WEIGHTS).get("classes", {}))
    except MissingWeightsError:
        before = {}
    now = {
        "texture" if coloured else "structure": classes_in_crops(data, coloured)
        for coloured, data in opened.items()
    }
    return {**before, **now}


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return a precision with "auto" replaced: "bf16" if the device multiplies it in hardware."""
    if precision != "auto":
        return precision
    hardware = product_dtype(torch.bfloat16, device) == torch.bfloat16
    return "bf16" if hardware else "fp32"


def _open_data(
    settings: TrainingSettings, sizes: Preset, coloured: bool, scenes: list[Scene]
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
    )


def _identity(settings: TrainingSettings, own: PartSettings, data: TrainingData) -> dict[str, Any]:
    """Return what a continuation has to share, as JSON values."""
    values = settings.model_dump(mode="json", include=set(IDENTITY))
    own_values = own.model_dump(mode="json", exclude=set(LENGTH))
    result: dict[str, Any] = json.loads(
        json.dumps({**values, **own_values, "dataset": data.digest})
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
    if source is not None and before.latents != read_header(part_path(folder, source)).digest:
        return False
    # A tenth of a percent: seconds are rounded in the header.
    share = LearningSchedule.of(own).share(
        before.settings.get("steps", 0), before.settings.get("seconds", 0.0)
    )
    return share >= 0.999 and all(
        before.settings.get(name) == value for name, value in identity.items()
    )
