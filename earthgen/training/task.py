"""What a part learns, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

Losses = tuple[Tensor, Mapping[str, Tensor]]
"""What is minimised, and its parts by name, for the log."""


@dataclass(frozen=True)
class Work:
    """What a step of training costs: crops, voxels (columns where there are none), and FLOPs of
    the forward pass."""

    crops: int
    voxels: int
    flops: int


@dataclass(frozen=True)
class Task:
    """A part and what it learns. All callables are functions of their arguments: nothing is drawn
    in an order.

    Attributes
    ----------
    part : of `earthgen.models.presets.PARTS`
    make : a fresh model
    batch : (step, rank) -> what `loss` takes, on the CPU; may be called ahead, and from another
        thread
    loss : (model, batch, generator, share of the training) -> what is minimised, in the precision
        of the run
    work : (model, batch) -> what the step costs
    measure : (model) -> figures of held-out crops by name, the model in evaluation mode with
        averaged weights
    picture : (model) -> a sheet of held-out crops, or None
    finish : (model) -> None: what the weights need besides, such as statistics of latents, in place
    latents : digest of the autoencoder whose latents are learned, "" for none
    better : for each figure of `measure` whether "higher" or "lower" is better; others are not
        drawn
    """

    part: str
    make: Callable[[], nn.Module]
    batch: Callable[[int, int], Any]
    loss: Callable[[nn.Module, Any, torch.Generator, float], Losses]
    work: Callable[[nn.Module, Any], Work]
    measure: Callable[[nn.Module], dict[str, float]]
    picture: Callable[[nn.Module], Image.Image | None]
    finish: Callable[[nn.Module], None] = lambda model: None
    latents: str = ""
    better: Mapping[str, str] = field(default_factory=dict)
