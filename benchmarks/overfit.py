"""Overfit each learned model on one real crop: if one cannot, it has a fault that more data hides.

    python -m benchmarks.overfit --data DATASET [--scene NAME] [--parts PART ...] [--minutes M]
    [--out DIR] [--json]

A part is trained on one crop of the preset's size, always the same and never rotated, with the
losses of `earthgen.training.parts`, until its figures are reached or its steps or minutes are over.
Conditions are fixed: land cover and heights for structure, land cover and the picture from above
for texture. Figures are measured without autocast; those of flows on four samples in 25 Euler steps
from noise that is not in the training.

The figures, each of which has to exceed 99 % or 30 dB:

struct-vae
    `accuracy_4`, `accuracy_2`, `accuracy_1`: of the candidates of a level (the eight children of
    each cell that the decoder itself kept, no teacher) and the true ones that are no candidate, the
    share that is rightly kept or left out, from the latent's mean. `iou`: of voxels.
    `class_accuracy`: of true voxels of known class, the share that comes back with its class; a
    voxel that does not come back counts as wrong.
tex-vae
    `colour_psnr`: of the colours of voxels that were seen, dB. `view_psnr`: of two rendered views
    against opaque discs in the voxels' colours, dB.
struct-coarse
    `accuracy`: of all cells of the dense grid, the share that is rightly active or empty. `iou`: of
    active cells.
struct-fine
    `accuracy`: of all places for a voxel in the true cells, 512 a cell, the share that is rightly
    full or empty, once the sampled latents are decoded by the StructVAE of this run. `iou` and
    `class_accuracy` as above.
tex-flow
    `colour_psnr`: as above, of sampled latents, decoded by the TexVAE of this run.
height-flow
    `accuracy`: of columns with data, the share that is rightly 2 m and more, or less. `mae`:
    metres, only reported.

Seconds are CPU time on one thread, with measuring. It was never run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.overfit_figures import FIGURES, picture
from earthgen.dataset.crop import Crop
from earthgen.dataset.crop_sampler import open_crops
from earthgen.dataset.scene import scenes_in
from earthgen.models.presets import Preset, preset
from earthgen.models.weights.card import AUTOENCODERS
from earthgen.models.weights.format import part_path, save_weights
from earthgen.progress import Progress
from earthgen.training.data import TrainingData
from earthgen.training.devices import ProcessGroup
from earthgen.training.loop import StepMeter, initial_state, train_step
from earthgen.training.parts.common import TALL, TaskContext, load_trained
from earthgen.training.run import TASK_MAKERS, resolve_precision
from earthgen.training.schedule import LearningSchedule
from earthgen.training.settings import (
    PART_SETTINGS,
    FlowSettings,
    LoopSettings,
    PartSettings,
    make_part_settings,
)
from geo_io.legend import codes

PARTS = ("struct-vae", "struct-coarse", "struct-fine", "height-flow", "tex-vae", "tex-flow")

DECIBELS, SHARE = 30.0, 0.99

WANTED: dict[str, dict[str, float]] = {
    "struct-vae": dict.fromkeys(
        ("accuracy_4", "accuracy_2", "accuracy_1", "iou", "class_accuracy"), SHARE
    ),
    "tex-vae": {"colour_psnr": DECIBELS, "view_psnr": DECIBELS},
    "struct-coarse": {"accuracy": SHARE, "iou": SHARE},
    "struct-fine": dict.fromkeys(("accuracy", "iou", "class_accuracy"), SHARE),
    "tex-flow": {"colour_psnr": DECIBELS},
    "height-flow": {"accuracy": SHARE},
}
"""Figures that have to be exceeded."""

SEMANTICS_HEIGHT = ((("semantics", "height"), 1.0),)
SEMANTICS_IMAGE = ((("semantics", "image"), 1.0),)

ALONE: dict[str, Any] = {"ema_decay": 0.0, "weight_decay": 0.0, "warmup_ratio": 0.02}
"""Of all parts: the weights themselves instead of averages, no decay."""

SETTINGS: dict[str, dict[str, Any]] = {
    "struct-vae": {"steps": 3000, "batch_size": 1, "learning_rate": 4e-3},
    "tex-vae": {
        "steps": 1500,
        "batch_size": 1,
        "learning_rate": 4e-3,
        "render_start": 0.2,
        "render_every": 2,
    },
    "struct-coarse": {
        "steps": 1500,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "condition_mixture": SEMANTICS_HEIGHT,
    },
    "struct-fine": {
        "steps": 4000,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "condition_mixture": SEMANTICS_HEIGHT,
        "dilation_probability": 0.0,
        "latent_pool_size": 1,
    },
    "tex-flow": {
        "steps": 3000,
        "batch_size": 1,
        "learning_rate": 2e-3,
        "condition_mixture": SEMANTICS_IMAGE,
    },
    "height-flow": {
        "steps": 1500,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "condition_dropout": 0.0,
    },
}
"""Settings of each part. A batch has the crop several times, each with another time and noise of a
flow."""


def overfit_settings(part: str, **given: Any) -> PartSettings:
    """Return the settings of a part; a flow always knows the style."""
    flow = {"style_dropout": 0.0} if issubclass(PART_SETTINGS[part], FlowSettings) else {}
    return make_part_settings(part, {**ALONE, **flow, **SETTINGS[part], **given})


@dataclass(frozen=True)
class Outcome:
    """The result of a part.

    Attributes
    ----------
    steps, seconds : int, float
        Steps and CPU time.
    figures : mapping of str to float
        Figures of the last measurement.
    reached : bool
        Whether all figures of `WANTED` are exceeded.
    """

    steps: int
    seconds: float
    figures: Mapping[str, float]
    reached: bool

    def to_dict(self) -> dict[str, object]:
        figures = {name: round(value, 4) for name, value in self.figures.items()}
        return {
            "steps": self.steps,
            "seconds": round(self.seconds),
            "reached": self.reached,
            **figures,
        }


def reached(part: str, figures: Mapping[str, float]) -> bool:
    """Whether all figures of a part that `WANTED` names are exceeded."""
    return all(figures.get(name, -math.inf) > least for name, least in WANTED[part].items())


@dataclass(frozen=True)
class OneCrop(TrainingData):
    """Always the same crop, unlike `TrainingData.crop`."""

    def crop(self, seed: int, number: int) -> Crop:
        """Return the crop."""
        return self.held_out[0]


def one_crop(folder: Path | str, preset: Preset, scene: str | None = None) -> OneCrop:
    """Return the training data of one crop with data and known colour everywhere.

    It is the crop with most voxels among those with a quarter each of building, tree and open
    ground; if there is none, the one that comes nearest.

    Raises
    ------
    StoreError, CropError
        If no crop is suitable.
    """
    crops = open_crops(
        scenes_in(folder),
        size=preset.columns,
        band=preset.band,
        voxel_size=preset.voxel_size,
        overlap=0.5,
        part=None,
        names=(scene,) if scene else None,
        grades=("A", "B", "C"),
        least_valid=1.0,
        least_coloured=0.95,
    )
    drawn = {int(number) for number in crops.windows[:, 0]}
    scenes = tuple(
        scene.loaded() if number in drawn else scene for number, scene in enumerate(crops.scenes)
    )
    crops = replace(crops, scenes=scenes)
    building, tree = codes()["building"], codes()["tree"]

    def worth(index: int) -> tuple[int, int]:
        crop = crops[index]
        fewest = min(
            (crop.cover == building).sum(), (crop.cover == tree).sum(), (crop.height < TALL).sum()
        )
        return min(int(fewest), crops.size**2 // 4), len(crop)

    best = max(range(len(crops)), key=worth)
    info = crops.where(best)[0].info
    source = {"name": info.place or info.name, "source": info.source, "licence": info.licence}
    train = replace(crops, windows=crops.windows[best : best + 1])
    return OneCrop(train, np.ones(1), (crops[best],), f"one crop of {info.name}", (source,))


def overfit(
    part: str,
    context: TaskContext,
    precision: str,
    every: int,
    tell: Callable[[str], None],
    whole: bool = False,
) -> tuple[Any, Outcome, Outcome]:
    """Train a part on the one crop until its figures are reached, or its steps or minutes are over.

    Parameters
    ----------
    part, context, precision
        The part, what its task is made from, and "bf16" or "fp32".
    every : int
        Steps between measurements.
    tell : callable
        Gets a line of text for each measurement.
    whole : bool
        Whether to continue to the end after the figures are reached.

    Returns
    -------
    model : nn.Module
        The network.
    first, last : Outcome
        The result when the figures were first reached, or else at the end, and that at the end.
    """
    first: Outcome | None = None
    began = time.process_time()
    task, team = TASK_MAKERS[part](context), ProcessGroup(context.device)
    settings = LoopSettings.model_validate({"seed": context.seed, "precision": precision})
    schedule = LearningSchedule.of(context.settings)
    state = initial_state(task, context.settings, context.device)
    watch = StepMeter(schedule, state, Progress(None), part, 0.0)
    while True:
        seconds = time.process_time() - began
        share = schedule.share(state.step, seconds)
        rate = schedule.rate(state.step, seconds)
        values = train_step(
            task,
            settings,
            context.settings,
            state,
            task.batch(state.step, 0),
            share,
            rate,
            team,
            watch,
        )
        over = schedule.share(state.step, time.process_time() - began) >= 1
        if state.step % every and not over:
            continue
        state.model.eval()
        task.finish(state.model)
        figures = FIGURES[part](state.model, context)
        outcome = Outcome(state.step, time.process_time() - began, figures, reached(part, figures))
        shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
        loss = f"loss {float(values['loss']):.4g}"
        tell(f"{part}: step {state.step}, {outcome.seconds:.0f} s, {loss}, {shown}")
        if outcome.reached and first is None:
            first = outcome
        if over or (outcome.reached and not whole):
            return state.model, first or outcome, outcome
        state.model.train()


def measured(
    data: Path | str,
    out: Path,
    *,
    scene: str | None = None,
    parts: Sequence[str] = PARTS,
    minutes: float = 30.0,
    steps: int | None = None,
    preset_name: str = "tiny",
    precision: str = "auto",
    every: int = 50,
    whole: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, object]:
    """Overfit parts in order, and write their weights and a picture to a folder.

    Parameters
    ----------
    data : Path or str
        Folder of scenes.
    out : Path
        Folder of the results, PART.safetensors; autoencoders that are not in `parts` are read from
        it.
    scene : str, optional
        Name of the scene; None is the one with the best crop.
    parts : sequence of str
        The parts.
    minutes, steps : float, int
        Largest CPU time of each part, and steps instead of the part's own.
    preset_name, precision, every, whole, tell
        As of the command line and `overfit`.

    Raises
    ------
    StoreError, CropError
        If no crop is suitable.
    TrainingError
        If a flow's autoencoder is neither in `parts` nor in the folder.
    """
    sizes = preset(preset_name)
    one = one_crop(data, sizes, scene)
    crop = one.held_out[0]
    out.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    precision = resolve_precision(precision, torch.device("cpu"))

    def context_of(part: str) -> TaskContext[Any]:
        length = {"minutes": minutes} if steps is None else {"minutes": minutes, "steps": steps}
        own = overfit_settings(part, **length)
        return TaskContext(sizes, own, one, 0, out, torch.device("cpu"))

    outcomes: dict[str, object] = {}
    models: dict[str, Any] = {}
    try:
        for part in sorted(parts, key=PARTS.index):
            model, first, last = overfit(part, context_of(part), precision, every, tell, whole)
            colours = getattr(model.config, "target", "latent") == "rgb"
            source = None if colours else AUTOENCODERS.get(part)
            save_weights(
                part_path(out, part),
                part,
                model,
                preset_name=sizes.name,
                voxel_size=sizes.voxel_size,
                latents=load_trained(context_of(part), source)[1].digest if source else "",
                data=one.sources,
                metrics=dict(last.figures),
                licence=one.sources[0]["licence"],
            )
            outcomes[part] = {
                **first.to_dict(),
                **({"at the end": last.to_dict()} if whole else {}),
            }
            models[part] = model
        sheet = picture(models, context_of)
        if sheet is not None:
            sheet.save(out / "overfit.png", optimize=True)
    finally:
        torch.set_num_threads(threads)
    place = f"{crop.frame.crs}, x {crop.frame.x}, y {crop.frame.y}"
    return {
        "scene": one.sources[0],
        "crop": place,
        "voxels": len(crop),
        "precision": precision,
        **outcomes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overfit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of scenes")
    parser.add_argument("--scene", help="its name; the one with the best crop unless given")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="all unless given"
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="of CPU time, of each part at most"
    )
    parser.add_argument("--steps", type=int, help="of each part, instead of its own")
    parser.add_argument("--every", type=int, default=50, help="steps between measurements")
    parser.add_argument(
        "--whole", action="store_true", help="train on to the end after the figures are reached"
    )
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--out", type=Path, help="where weights and the picture stay")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as kept:
        parts_done = measured(
            options.data,
            options.out or Path(kept),
            scene=options.scene,
            parts=options.parts,
            minutes=options.minutes,
            steps=options.steps,
            precision=options.precision,
            every=options.every,
            whole=options.whole,
            tell=(lambda line: None) if options.json else lambda line: print(line, flush=True),
        )
    result = {"machine": describe(), **parts_done}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:24} {value}")


if __name__ == "__main__":
    main()
