"""What a part learns, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class StepBatch:
    """The samples of a step, in micro-batches whose gradients are accumulated.

    Attributes
    ----------
    parts : tuple of batch
        The micro-batches. Each has `to(device)` and a length.
    weights : tuple of float
        Weight of each one's loss; their sum is 1.
    divided : int
        Crops that were divided because they have more than `max_voxels`.
    """

    parts: tuple[Any, ...]
    weights: tuple[float, ...]
    divided: int = 0

    @classmethod
    def whole(cls, batch: Any) -> StepBatch:
        """Return a step of one micro-batch."""
        return cls((batch,), (1.0,))

    def to(self, device: torch.device | str) -> StepBatch:
        """Return the micro-batches on another device."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))


def _nothing(model: nn.Module) -> None:
    """Leave a finished model unchanged."""


def _nowhere(batch: StepBatch) -> str:
    return ""


@dataclass(frozen=True)
class Task:
    """A part and what it learns. All callables are functions of their arguments.

    Attributes
    ----------
    part : str
        A name in `earthgen.models.presets.PARTS`.
    make : () -> model
        Makes a model with new weights.
    batch : (step, rank) -> StepBatch
        Makes the batch of a step; may be called ahead, and from another thread.
    loss : (model, micro-batch, generator, share of the training) -> Losses
        Computes the loss in the precision of the run.
    work : (model, micro-batch) -> StepCost
        Counts the work of a micro-batch.
    measure : (model) -> dict of str to float
        Measures held-out crops, the model in evaluation mode with averaged weights.
    picture : (model) -> Image or None
        Draws a sheet of held-out crops.
    finish : (model) -> None
        Adds what the weights need besides, such as statistics of latents, in place.
    latents : str
        Digest of the autoencoder whose latents are learned, "" for none.
    places : (batch) -> str
        Names the scenes and places of the crops of a batch, for messages.
    """

    part: str
    make: Callable[[], nn.Module]
    batch: Callable[[int, int], StepBatch]
    loss: Callable[[nn.Module, Any, torch.Generator, float], Losses]
    work: Callable[[nn.Module, Any], StepCost]
    measure: Callable[[nn.Module], dict[str, float]]
    picture: Callable[[nn.Module], Image.Image | None]
    finish: Callable[[nn.Module], None] = _nothing
    latents: str = ""
    places: Callable[[StepBatch], str] = _nowhere
