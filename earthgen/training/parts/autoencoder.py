"""What both autoencoders share: how they are measured and drawn, and the statistics of their
latents for the flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import Context, drawn_batch, fresh, mean_figures
from earthgen.training.randomness import number
from earthgen.training.task import Losses, Task, Work


def autoencoder_task(
    context: Context,
    part: str,
    loss: Callable[[Any, Batch, torch.Generator, float], Losses],
    latents: Callable[[Any, Batch], Tensor],
    crops: int,
    figures: Callable[[Any, Crop, torch.device], dict[str, float]],
    picture: Callable[[Any, Sequence[Crop], torch.device], Image.Image | None],
) -> Task:
    """The task of an autoencoder of voxels.

    latents : (model, batch) -> (n, channels), the means of the latents
    crops : of the training, over which the latents' mean and deviation are taken at the end
    figures, picture : of held-out crops
    """

    def work(model: Any, batch: Batch) -> Work:
        return Work(len(batch), len(batch.sites), model.flops(batch.sites))

    @torch.no_grad()
    def finish(model: Any) -> None:
        found = []
        for drawn in range(crops):
            crop = context.data.crop(number(context.seed, part, "statistics"), drawn)
            found.append(latents(model, make_batch([crop]).to(context.device)).float())
        model.statistics.fit(torch.cat(found))

    def measure(model: nn.Module) -> dict[str, float]:
        return mean_figures([figures(model, crop, context.device) for crop in context.data.held])

    return Task(
        part=part,
        make=lambda: fresh(context, part),
        batch=lambda step, rank: drawn_batch(context, part, step, rank),
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: picture(model, context.examples, context.device),
        finish=finish,
    )
