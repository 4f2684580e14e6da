"""What a part learns, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

Losses = tuple[Tensor, Mapping[str, Tensor]]
"""The loss that is minimised, and its terms by name, for the log."""


@dataclass(frozen=True)
class StepCost:
    """The work of a step of training.

    Attributes
    ----------
    crops, voxels : int
        Crops and voxels of the batch; columns if the part has no voxels.
    flops : int
        Floating-point operations of the forward pass.
    """

    crops: int
    voxels: int
    flops: int


def _nothing(model: nn.Module) -> None:
    """Leave a finished model unchanged."""


@dataclass(frozen=True)
class Task:
    """A part and what it learns. All callables are functions of their arguments.

    Attributes
    ----------
    part : str
        A name in `earthgen.models.presets.PARTS`.
    make : () -> model
        Makes a model with new weights.
    batch : (step, rank) -> batch
        Makes the batch of a step, on the CPU; may be called ahead, and from another thread.
    loss : (model, batch, generator, share of the training) -> Losses
        Computes the loss in the precision of the run.
    work : (model, batch) -> StepCost
        Counts the work of a step.
    measure : (model) -> dict of str to float
        Measures held-out crops, the model in evaluation mode with averaged weights.
    picture : (model) -> Image or None
        Draws a sheet of held-out crops.
    finish : (model) -> None
        Adds what the weights need besides, such as statistics of latents, in place.
    latents : str
        Digest of the autoencoder whose latents are learned, "" for none.
    """

    part: str
    make: Callable[[], nn.Module]
    batch: Callable[[int, int], Any]
    loss: Callable[[nn.Module, Any, torch.Generator, float], Losses]
    work: Callable[[nn.Module, Any], StepCost]
    measure: Callable[[nn.Module], dict[str, float]]
    picture: Callable[[nn.Module], Image.Image | None]
    finish: Callable[[nn.Module], None] = _nothing
    latents: str = ""
