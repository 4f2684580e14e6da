"""What the parts share: batches by step, conditions, and figures of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.errors import TrainingError
from earthgen.models.build import make_model
from earthgen.models.conditions import Conditions, mix_conditions
from earthgen.models.presets import Preset
from earthgen.models.weights.format import Header, load_weights, part_path
from earthgen.sparse.sites import Sites
from earthgen.training.batches import make_batch
from earthgen.training.data import TrainingData, crop_cell
from earthgen.training.randomness import derive_seed
from earthgen.training.settings import PartSettings
from earthgen.training.steps.columns import DeviceColumns
from earthgen.training.steps.micro_batches import bounded, step_batch
from earthgen.training.task import StepBatch

TALL = 2.0
"""Metres from which a column stands out: trees and buildings."""

SAMPLING_STEPS = 8
"""Steps of the samples that are measured and drawn."""

SHOWN = 3
"""Crops of a picture."""

S = TypeVar("S", bound=PartSettings)


@dataclass(frozen=True)
class TaskContext(Generic[S]):
    """What a task is made from.

    Attributes
    ----------
    preset : Preset
        Sizes of the models.
    settings : PartSettings
        Settings of the part.
    data : TrainingData
        Crops to train on and to measure.
    seed : int
        Seed of the run.
    weights : Path
        Folder with the parts that are trained already.
    device : torch.device
        Device of this process.
    devices : int
        Processes that train together.
    columns : DeviceColumns, optional
        The rasters of the scenes on the device of the training.
    """

    preset: Preset
    settings: S
    data: TrainingData
    seed: int
    weights: Path
    device: torch.device
    devices: int = 1
    columns: DeviceColumns | None = None

    @property
    def examples(self) -> Sequence[Crop]:
        """Crops to draw: held-out ones, or some of the training if the dataset holds none out."""
        return self.data.held_out or tuple(
            self.data.crop(derive_seed(self.seed, "shown"), number) for number in range(SHOWN)
        )


def crop_numbers(context: TaskContext[S], step: int, rank: int) -> range:
    """Return the numbers of the crops of a step; each process has its own."""
    size = context.settings.batch_size
    first = (step * context.devices + rank) * size
    return range(first, first + size)


def draw_batch(
    context: TaskContext[S], part: str, step: int, rank: int, max_voxels: int
) -> StepBatch:
    """Return the crops of a step; one of more than `max_voxels` is divided into quarters."""
    seed = derive_seed(context.seed, part, "data")
    crops = [context.data.crop(seed, each) for each in crop_numbers(context, step, rank)]
    cell = crop_cell(context.preset)
    samples = [each for crop in crops for each in bounded(crop, max_voxels, cell)]
    settings = context.settings
    return step_batch(
        samples,
        make_batch,
        micro_batch=settings.micro_batch,
        micro_voxels=getattr(settings, "micro_voxels", None),
        divided=sum(len(crop) > max_voxels for crop in crops),
    )


def new_model(context: TaskContext[S], part: str) -> nn.Module:
    """Return a model with new weights, which depend on the seed."""
    seed = derive_seed(context.seed, part, "weights")
    return make_model(part, context.preset.part(part), seed=seed)


def load_trained(context: TaskContext[S], part: str) -> tuple[nn.Module, Header]:
    """Return a part that was trained before, frozen, and the header of its weights.

    Raises
    ------
    TrainingError
        If the part was not trained.
    ModelError
        As of `earthgen.models.weights.format.load_weights`.
    """
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


def hide_styles(style: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return numbers of styles, (batch,), each 0 with a probability."""
    random = torch.rand(len(style), generator=generator, device=generator.device)
    return torch.where(random.to(style.device) < probability, 0, style)


def keep_conditions(conditions: Conditions, *names: str) -> Conditions:
    """Return only these conditions, the others hidden."""
    return mix_conditions(conditions, ((names, 1.0),), torch.Generator())


def voxel_tops(sites: Sites, shape: tuple[int, int, int], low: int) -> Tensor:
    """Return the height of the highest voxel's upper face above the ground, 0 without voxels.

    Parameters
    ----------
    sites : Sites
        Voxels of a batch.
    shape : (int, int, int)
        Number of voxels (nx, ny, nz) of a sample.
    low : int
        Lattice index of coordinate z = 0.

    Returns
    -------
    Tensor (batch, ny, nx) float32
        Metres.
    """
    nx, ny, _ = shape
    result = torch.zeros(sites.batch_size, ny, nx, device=sites.device)
    sample, x, y, z = sites.coordinates.long().unbind(1)
    height = ((z + low + 1) * sites.place.voxel_size).clamp(min=0).float()
    index = (sample * ny + (ny - 1 - y)) * nx + x
    result.view(-1).scatter_reduce_(0, index, height, "amax")
    return result


def column_figures(height: NDArray, true: NDArray, valid: NDArray) -> dict[str, float]:
    """Compare heights with true ones: which columns are tall, and the distributions.

    Parameters
    ----------
    height, true : NDArray (ny, nx) float32
        Metres above the ground.
    valid : NDArray (ny, nx) bool
        Columns to compare.

    Returns
    -------
    dict of str to float
        `tall_iou`, and `height_mae` and `height_w1` in metres; empty without valid columns.
    """
    if not valid.any():
        return {}
    a, b = height[valid], true[valid]
    tall, truly_tall = a >= TALL, b >= TALL
    either = float((tall | truly_tall).sum())
    return {
        "tall_iou": float((tall & truly_tall).sum()) / either if either else 1.0,
        "height_mae": float(np.abs(a - b).mean()),
        # Between two samples of one size the Wasserstein distance is that of the sorted values.
        "height_w1": float(np.abs(np.sort(a) - np.sort(b)).mean()),
    }


def mean_figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over the rows that have it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: float(np.mean(each)) for name, each in values.items()}
