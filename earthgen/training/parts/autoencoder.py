"""What both autoencoders share: measuring, drawing, and the statistics of latents for the flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import TaskContext, draw_batch, mean_figures, new_model
from earthgen.training.randomness import derive_seed
from earthgen.training.settings import StructVaeSettings, TexVaeSettings
from earthgen.training.task import Losses, StepCost, Task

V = TypeVar("V", StructVaeSettings, TexVaeSettings)


def autoencoder_task(
    context: TaskContext[V],
    part: str,
    loss: Callable[[Any, Batch, torch.Generator, float], Losses],
    latents: Callable[[Any, Batch], Tensor],
    crops: int,
    figures: Callable[[Any, Crop, torch.device], dict[str, float]],
    picture: Callable[[Any, Sequence[Crop], torch.device], Image.Image | None],
) -> Task:
    """Return the task of an autoencoder of voxels.

    Parameters
    ----------
    context : TaskContext
        What the task is made from.
    part : str
        The autoencoder.
    loss : callable
        As of `Task`.
    latents : (model, batch) -> Tensor (n, channels)
        Gives the means of the latents.
    crops : int
        Crops of the training over which the latents' mean and deviation are taken at the end.
    figures, picture : callable
        Measure and draw held-out crops.
    """
    max_voxels = context.settings.max_voxels

    def work(model: Any, batch: Batch) -> StepCost:
        return StepCost(len(batch), len(batch.sites), model.flops(batch.sites))

    @torch.no_grad()
    def finish(model: Any) -> None:
        seed = derive_seed(context.seed, part, "statistics")
        values = []
        for number in range(crops):
            batch = make_batch([context.data.crop(seed, number)]).to(context.device)
            values.append(latents(model, batch).float())
        model.statistics.fit(torch.cat(values))

    def measure(model: nn.Module) -> dict[str, float]:
        return mean_figures(
            [figures(model, crop, context.device) for crop in context.data.held_out]
        )

    return Task(
        part=part,
        make=lambda: new_model(context, part),
        batch=lambda step, rank: draw_batch(context, part, step, rank, max_voxels),
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: picture(model, context.examples, context.device),
        finish=finish,
    )
