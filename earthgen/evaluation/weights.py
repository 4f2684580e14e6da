"""The set of weights that an evaluation measures: the given one, that of a run or of a checkpoint,
or that of the package."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from earthgen.dataset.scene import scenes_in
from earthgen.errors import ModelError
from earthgen.evaluation.settings import Settings
from earthgen.models.build import make_model
from earthgen.models.presets import PARTS, preset
from earthgen.models.weights.bundled import bundled_weights
from earthgen.models.weights.card import AUTOENCODERS, CARD, WeightSet, open_weights, write_card
from earthgen.models.weights.format import part_path, read_header, save_weights
from earthgen.training.checkpoint import checkpoints, read_average
from earthgen.training.runs.initial import WEIGHTS


def find_weights(settings: Settings, scratch: Path) -> tuple[WeightSet | None, list[str]]:
    """Open the set of weights to measure.

    Given weights must fit the dataset. Those of the package are skipped if the scenes have another
    voxel size, because nobody asked for them and rules can still be measured.

    Parameters
    ----------
    settings : Settings
        The settings.
    scratch : Path
        An empty folder, where weights of checkpoints are written.

    Returns
    -------
    tuple[WeightSet | None, list[str]]
        The set, and lines for the notes, such as why there is none.

    Raises
    ------
    StoreError
        if there is no scene
    ModelError, TrainingError
        if the weights, or a checkpoint, cannot be opened
    """
    if not settings.learned:
        return None, []
    folder = settings.weights or bundled_weights()
    if folder is None:
        return None, [
            "no learned part is measured, because this installation comes without weights; "
            "--weights DIR gives a set"
        ]
    folder, notes = weights_of_run(folder, scratch)
    weights = open_weights(folder, preset_name=settings.preset)
    voxel_size = next(iter(weights.parts.values())).voxel_size
    sizes = {
        scene.frame.voxel_size
        for scene in scenes_in(settings.data)
        if scene.info.grade in settings.grades
    }
    if settings.weights is None and sizes - {voxel_size}:
        return None, [
            f"no learned part is measured, because the weights of this installation are for voxels "
            f"of {voxel_size:g} m, and the scenes have voxels of "
            f"{', '.join(f'{size:g}' for size in sorted(sizes))} m"
        ]
    return weights, notes


def weights_of_run(folder: Path, scratch: Path) -> tuple[Path, list[str]]:
    """Return a set of weights for a folder, which may be a run or one of its checkpoints.

    Of a run each part is that of its finished weights, or of its newest checkpoint if that is
    further. A checkpoint gives the averaged parameters, which finished weights have too.

    Parameters
    ----------
    folder : Path
        A set of weights, a run of `earthgen train`, or RUN/PART/step-N.
    scratch : Path
        An empty folder for the set of a run.

    Returns
    -------
    tuple[Path, list[str]]
        The folder of a set, and a line for each part of a checkpoint.
    """
    folder = folder.resolve()
    if (folder / CARD).is_file():
        return folder, []
    run, chosen = folder, {part: checkpoints(folder / part) for part in PARTS}
    if folder.parent.name in PARTS and folder in checkpoints(folder.parent):
        run, chosen = folder.parent.parent, {folder.parent.name: [folder]}
    finished = run / WEIGHTS
    if not any(chosen.values()):
        return (finished if (finished / CARD).is_file() else folder), []
    notes = []
    for part in PARTS:
        source = part_path(finished, part)
        step = read_header(source).settings.get("steps", 0) if source.is_file() else -1
        if found := chosen.get(part):
            about, tensors = read_average(found[-1])
            # A named checkpoint is what was asked for; else the further one counts.
            if run != folder or about["step"] > step:
                _write_part(scratch, part, about, tensors)
                notes.append(f"{part} is that of step {about['step']} of its training")
                continue
        if source.is_file():
            shutil.copy(source, part_path(scratch, part))
    for part, autoencoder in AUTOENCODERS.items():
        if part_path(scratch, part).is_file() and not _fits(scratch, part, autoencoder):
            part_path(scratch, part).unlink()
            notes.append(f"{part} is left out: it was trained on another {autoencoder}")
    write_card(scratch, title=f"{run.name}, in training")
    return scratch, notes


def _fits(folder: Path, part: str, autoencoder: str) -> bool:
    """Whether a flow's latents, if it has any, are those of the autoencoder beside it."""
    latents, source = read_header(part_path(folder, part)).latents, part_path(folder, autoencoder)
    return not latents or (source.is_file() and read_header(source).digest == latents)


def _write_part(
    folder: Path, part: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write the averaged parameters of a checkpoint as weights."""
    identity = about["identity"]
    if not about.get("config"):
        raise ModelError(
            f"a checkpoint of {part} does not say the sizes of its network",
            "continue its training with this version, which writes them",
        )
    sizes = preset(identity["preset"])
    save_weights(
        part_path(folder, part),
        part,
        make_model(part, PARTS[part].model_validate(about["config"])),
        preset_name=sizes.name,
        voxel_size=sizes.voxel_size,
        latents=str(identity.get("latents", "")),
        settings={**identity, "steps": about["step"]},
        tensors=dict(tensors),
    )
