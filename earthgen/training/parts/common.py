"""What the parts share: batches by step, conditions, and figures of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.errors import TrainingError
from earthgen.models.build import make
from earthgen.models.conditions import Conditions, mixed
from earthgen.models.presets import Preset
from earthgen.models.sparse_flow import Objective
from earthgen.models.weights.format import Header, load_weights, part_path
from earthgen.sparse.sites import Sites
from earthgen.training.batches import Batch, make_batch
from earthgen.training.data import Data
from earthgen.training.randomness import number
from earthgen.training.settings import Mixture, PartSettings

TALL = 2.0
"""Metres from which a column stands out: trees and buildings."""

SAMPLING_STEPS = 8
"""Steps of the samples that are measured and drawn."""

SHOWN = 3
"""Crops of a picture."""


@dataclass(frozen=True)
class Context:
    """What a task is made from.

    weights : the folder of the parts that are trained already
    devices : processes that train together
    """

    preset: Preset
    settings: PartSettings
    data: Data
    seed: int
    weights: Path
    device: torch.device
    devices: int = 1

    @property
    def examples(self) -> Sequence[Crop]:
        """Crops to draw: held out ones, or where the dataset holds none out, some of the
        training."""
        return self.data.held or tuple(
            self.data.crop(number(self.seed, "shown"), drawn) for drawn in range(SHOWN)
        )


def numbers(context: Context, step: int, rank: int) -> range:
    """The numbers of the crops of a step; each of a team's processes has its own."""
    size = context.settings.batch
    first = (step * context.devices + rank) * size
    return range(first, first + size)


def drawn_batch(context: Context, part: str, step: int, rank: int) -> Batch:
    """The crops of a step."""
    seed = number(context.seed, part, "data")
    crops = [context.data.crop(seed, each) for each in numbers(context, step, rank)]
    return make_batch(crops, context.settings.max_voxels)


def fresh(context: Context, part: str) -> nn.Module:
    """A model with fresh weights by the seed."""
    return make(part, context.preset.part(part), seed=number(context.seed, part, "weights"))


def trained(context: Context, part: str) -> tuple[nn.Module, Header]:
    """A part that was trained before, frozen. Raises TrainingError, and what `load_weights`
    does."""
    path = part_path(context.weights, part)
    if not path.is_file():
        raise TrainingError(
            f"there are no weights of {part} in {context.weights}", f"train it first: {part}"
        )
    model, header = load_weights(
        path,
        part,
        preset_name=context.preset.name,
        voxel_size=context.preset.voxel_size,
        device=context.device,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, header


def objective(settings: PartSettings, share: float, generator: torch.Generator) -> Objective:
    """Which of a flow's two losses a step has."""
    if share < settings.shortcut_from:
        return "flow"
    drawn = float(torch.rand(1, generator=generator, device=generator.device))
    return "shortcut" if drawn < settings.shortcut else "flow"


def mix(conditions: Conditions, mixture: Mixture, generator: torch.Generator) -> Conditions:
    """One set of conditions a sample."""
    return mixed(conditions, mixture, generator)


def only(conditions: Conditions, *names: str) -> Conditions:
    """These conditions and no others."""
    return mixed(conditions, ((names, 1.0),), torch.Generator())


def tops(sites: Sites, shape: tuple[int, int, int], low: int) -> Tensor:
    """(batch, ny, nx) float32 metres above the ground of the highest voxels' upper sides; 0 where
    there is none.

    shape : (nx, ny, nz) voxels; low : lattice index of coordinate z = 0
    """
    nx, ny, _ = shape
    found = torch.zeros(sites.batch_size, ny, nx, device=sites.device)
    sample, x, y, z = sites.coordinates.long().unbind(1)
    height = ((z + low + 1) * sites.place.voxel_size).clamp(min=0).float()
    index = (sample * ny + (ny - 1 - y)) * nx + x
    found.view(-1).scatter_reduce_(0, index, height, "amax")
    return found


def column_figures(found: NDArray, true: NDArray, valid: NDArray) -> dict[str, float]:
    """Of heights (ny, nx) in metres against true ones: who stands out, and the distance between
    distributions."""
    if not valid.any():
        return {}
    a, b = found[valid], true[valid]
    tall, wanted = a >= TALL, b >= TALL
    either = float((tall | wanted).sum())
    return {
        "tall_iou": float((tall & wanted).sum()) / either if either else 1.0,
        "height_mae": float(np.abs(a - b).mean()),
        # Between two samples of one size the Wasserstein distance is that of the sorted values.
        "height_w1": float(np.abs(np.sort(a) - np.sort(b)).mean()),
    }


def mean_figures(rows: Sequence[dict[str, float]], prefix: str = "") -> dict[str, float]:
    """Means by name over rows that have it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {prefix + name: float(np.mean(values)) for name, values in found.items()}
