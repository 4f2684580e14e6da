"""The weights that a run starts from: those of the package, of a folder, or of another run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from earthgen.errors import ModelError, TrainingError
from earthgen.files import replace_file
from earthgen.models.presets import Preset
from earthgen.models.weights.bundled import bundled_weights
from earthgen.models.weights.card import AUTOENCODERS, CARD, WeightSet, open_weights
from earthgen.models.weights.format import check_config, load_weights, part_path

SHIPPED = "shipped"
WEIGHTS = "weights"
"""Folder of the weights within a run."""


def open_initial(init: str, sizes: Preset, parts: Iterable[str]) -> WeightSet:
    """Return the set of weights that a run starts from.

    Parameters
    ----------
    init : str
        "shipped", a folder of weights, or the folder of a run.
    sizes : Preset
        The preset of the run, which the weights must have.
    parts : iterable of str
        Parts whose configuration must be that of the preset, if the set has them.

    Raises
    ------
    TrainingError
        If there are no such weights.
    ModelError
        If they are damaged, or of another preset, voxel size or configuration.
    """
    folder = _folder(init)
    weights = open_weights(folder)
    for name, found, needed in (
        ("preset", weights.card.get("preset"), sizes.name),
        ("voxel size", weights.card.get("voxel_size"), sizes.voxel_size),
    ):
        if found != needed:
            raise ModelError(
                f"{folder}: the weights are of {name} {found!r}, the training is of {needed!r}",
                f"give weights of that {name}, or train with --preset {weights.card.get('preset')}",
            )
    for part in parts:
        if part in weights.parts:
            check_config(part_path(folder, part), weights.parts[part], sizes.part(part))
    return weights


def _folder(init: str) -> Path:
    if init == SHIPPED:
        bundled = bundled_weights()
        if bundled is None:
            raise TrainingError(
                "this copy of earthgen comes without weights", "give a folder of weights to --init"
            )
        return bundled
    for folder in (Path(init), Path(init) / WEIGHTS):
        if (folder / CARD).is_file():
            return folder
    raise TrainingError(
        f"--init {init}: there is no set of weights ({CARD})",
        f"give {SHIPPED!r}, a folder of weights, or a run that has finished a part",
    )


def initial_model(weights: WeightSet, part: str) -> nn.Module:
    """Return the network of a part on the CPU, with gradients."""
    return load_weights(part_path(weights.folder, part), part)[0].train()


def copy_parts(
    weights: WeightSet, parts: Sequence[str], folder: Path, trained: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Copy the parts of a set that a run does not train, so that its own set is complete.

    Parameters
    ----------
    weights : WeightSet
        What the run starts from.
    parts : sequence of str
        Parts that may be copied, if the set has them and the folder does not.
    folder : Path
        The run's own weights.
    trained : sequence of str
        Parts that the run trains: a flow whose autoencoder is among them does not fit any more.

    Returns
    -------
    copied, left_out : list of str
        Names of parts.
    """
    copied, left_out = [], []
    for part in parts:
        if part not in weights.parts or part_path(folder, part).is_file():
            continue
        if AUTOENCODERS.get(part) in trained:
            left_out.append(part)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        data = part_path(weights.folder, part).read_bytes()
        replace_file(folder, part_path(folder, part).name, data, durable=True)
        copied.append(part)
    return copied, left_out
