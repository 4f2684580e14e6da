"""A run: parts trained one after the other, each continued where it was left, and the set of
weights that comes out.

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
from earthgen.training import perceptual
from earthgen.training.checkpoint import checkpoints
from earthgen.training.data import Data, load_scenes, open_data, seen_classes
from earthgen.training.devices import Team, launch
from earthgen.training.loop import Fitted, fit
from earthgen.training.parts.common import Context
from earthgen.training.parts.height_flow import height_flow_task
from earthgen.training.parts.struct_flow import struct_coarse_task, struct_fine_task
from earthgen.training.parts.struct_vae import struct_vae_task
from earthgen.training.parts.tex_flow import tex_flow_task
from earthgen.training.parts.tex_vae import tex_vae_task
from earthgen.training.schedule import Schedule
from earthgen.training.settings import FREE, FREE_OF_PART, TASKS, PartSettings, Settings, of_part
from earthgen.training.task import Task

WEIGHTS = "weights"

MAKERS: dict[str, Callable[[Context], Task]] = {
    "struct-vae": struct_vae_task,
    "struct-coarse": struct_coarse_task,
    "struct-fine": struct_fine_task,
    "tex-vae": tex_vae_task,
    "tex-flow": tex_flow_task,
    "height-flow": height_flow_task,
}

COLOURED = frozenset({"tex-vae", "tex-flow"})
"""Parts that learn from crops whose colour is known."""


@dataclass(frozen=True)
class Report:
    """How the training of a part went.

    Attributes
    ----------
    step, seconds : of the training, all continuations together
    metrics : of held-out crops, measured with exactly the weights that came out
    speed : of this call's steps: crops, voxels and FLOPs a second, and the share of what a matrix
        product reaches
    """

    step: int
    seconds: float
    metrics: Mapping[str, float]
    speed: Mapping[str, float]


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes
    ----------
    weights : the set, with all parts that are trained so far
    fitted : the parts that this call trained
    """

    weights: WeightSet
    fitted: Mapping[str, Report]


def train(
    task: str, settings: Settings, *, resume: bool = False, listener: Listener | None = None
) -> Trained:
    """Train a task's parts, and write their weights.

    task : of `TASKS`
    resume : go on with the run at `settings.out`, or begin it where there is none. Parts that are
        done are left alone

    Raises
    ------
    TrainingError
        where the run has parts of the task already, and is not to be resumed
    TrainingError
        where it was begun with other settings or data
    TrainingError
        where a flow's autoencoder was not trained
    TrainingError, StoreError, ModelError and their subclasses
        see `fit` and `open_data`
    """
    if task not in TASKS:
        raise JobError(
            f"there is nothing to train called {task!r}", f"there are {', '.join(TASKS)}"
        )
    parts = TASKS[task]
    chosen = {part: of_part(settings, part, parts) for part in parts}
    found = preset(settings.preset)
    threads = torch.get_num_threads()
    _check_free(settings, parts, resume)
    progress = Progress(listener)

    def work(team: Team) -> dict[str, dict[str, Any]]:
        """Plain values, which go from the first process of a team to the one that started it."""
        resolved = replace_precision(settings, team.device)
        settings.out.mkdir(parents=True, exist_ok=True)
        done: dict[str, dict[str, Any]] = {}
        opened: dict[bool, Data] = {}
        scenes: list[Scene] = []
        for part in parts:
            coloured = part in COLOURED
            if coloured not in opened:
                scenes = scenes or load_scenes(settings.data, settings.grades, settings.scenes)
                opened[coloured] = _data(resolved, found, coloured, scenes)
            if not opened[coloured].held and team.first:
                progress.warn(
                    "no crop of the dataset is held out: nothing is measured while training"
                )
            identity = _identity(resolved, chosen[part], opened[coloured])
            if _finished(resolved, part, chosen[part], identity):
                progress.say(f"{part} is trained already")
                continue
            if part == "tex-vae" and chosen[part].perceptual and perceptual.missing():
                progress.warn(f"views are compared without features: {perceptual.missing()}")
            fitted = _train_part(
                part, resolved, chosen[part], found, opened[coloured], identity, team, progress
            )
            done[part] = {
                "step": fitted.step,
                "seconds": fitted.seconds,
                "metrics": fitted.metrics,
                "speed": fitted.speed,
            }
            team.wait()
        if team.first:
            title = settings.title or f"earthgen {settings.preset}, trained on {settings.data.name}"
            write_card(
                settings.out / WEIGHTS,
                title=title,
                licence=settings.licence,
                notes=settings.notes,
                classes=_classes(settings, opened),
            )
        team.wait()
        return done

    torch.set_num_threads(settings.threads or threads)
    try:
        done = launch(work, settings.device, settings.devices) or {}
    finally:
        torch.set_num_threads(threads)
    return Trained(
        open_weights(settings.out / WEIGHTS),
        {part: Report(**values) for part, values in done.items()},
    )


def _train_part(
    part: str,
    settings: Settings,
    chosen: PartSettings,
    found: Preset,
    data: Data,
    identity: Mapping[str, Any],
    team: Team,
    progress: Progress,
) -> Fitted:
    folder = settings.out / WEIGHTS
    context = Context(found, chosen, data, settings.seed, folder, team.device, settings.devices)
    task = MAKERS[part](context)
    identity = {**identity, "latents": task.latents}
    fitted = fit(task, settings, chosen, settings.out / part, identity, team, progress)
    task.finish(fitted.model)
    if team.first:
        about = {
            **identity,
            "steps": fitted.step,
            "seconds": round(fitted.seconds, 1),
            "torch": torch.__version__,
            "settings": chosen.model_dump(mode="json"),
        }
        save_weights(
            part_path(folder, part),
            part,
            fitted.model,
            preset_name=found.name,
            voxel_size=found.voxel_size,
            latents=task.latents,
            licence=settings.licence,
            data=data.sources,
            metrics=fitted.metrics,
            settings=about,
            dtype=settings.weights_dtype,
        )
    return fitted


def _classes(settings: Settings, opened: Mapping[bool, Data]) -> dict[str, list[str]]:
    """Which classes structure and texture were trained on; of those that this call does not
    train as the card says."""
    try:
        known: dict[str, list[str]] = dict(read_card(settings.out / WEIGHTS).get("classes", {}))
    except MissingWeightsError:
        known = {}
    found = {
        "texture" if coloured else "structure": seen_classes(data, coloured)
        for coloured, data in opened.items()
    }
    return {**known, **found}


def replace_precision(settings: Settings, device: torch.device) -> Settings:
    """Settings with a precision in place of "auto": bf16 where the device multiplies bfloat16 in
    hardware."""
    if settings.precision != "auto":
        return settings
    hardware = product_dtype(torch.bfloat16, device) == torch.bfloat16
    return settings.model_copy(update={"precision": "bf16" if hardware else "fp32"})


def _data(settings: Settings, found: Preset, coloured: bool, scenes: list[Scene]) -> Data:
    return open_data(
        settings.data,
        found,
        columns=settings.columns,
        overlap=settings.overlap,
        grades=settings.grades,
        names=settings.scenes,
        held_out=settings.held_out,
        coloured=coloured,
        seed=settings.seed,
        scenes=scenes,
    )


def _identity(settings: Settings, chosen: PartSettings, data: Data) -> dict[str, Any]:
    """What a continuation has to agree with, as JSON values."""
    values = settings.model_dump(mode="json", exclude=set(FREE))
    mine = chosen.model_dump(mode="json", exclude=set(FREE_OF_PART))
    return json.loads(json.dumps({**values, **mine, "dataset": data.digest}))


def _check_free(settings: Settings, parts: tuple[str, ...], resume: bool) -> None:
    begun = [part for part in parts if checkpoints(settings.out / part)]
    if begun and not resume:
        raise TrainingError(
            f"{settings.out} has {begun[0]} already", "give --resume, or another --out"
        )


def _finished(
    settings: Settings, part: str, chosen: PartSettings, identity: Mapping[str, Any]
) -> bool:
    """Whether a part has weights of these settings, data and latents already, and was trained as
    long as is asked."""
    folder = settings.out / WEIGHTS
    if not part_path(folder, part).is_file():
        return False
    before = read_header(part_path(folder, part))
    source = AUTOENCODERS.get(part)
    if source is not None and before.latents != read_header(part_path(folder, source)).digest:
        return False
    # A tenth of a percent: seconds are rounded in the header.
    share = Schedule.of(chosen).share(
        before.settings.get("steps", 0), before.settings.get("seconds", 0.0)
    )
    return share >= 0.999 and all(
        before.settings.get(name) == value for name, value in identity.items()
    )
