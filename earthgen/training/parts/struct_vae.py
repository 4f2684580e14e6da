"""StructVAE: occupancy at each level, the divergence of the latent, and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.models.occupancy import accuracy, agreement
from earthgen.models.struct_vae import struct_loss
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.autoencoder import autoencoder_task
from earthgen.training.parts.common import SHOWN, TaskContext
from earthgen.training.pictures import class_colours, sheet, voxel_view
from earthgen.training.settings import StructVaeSettings
from earthgen.training.task import Losses, Task

PART = "struct-vae"

STATISTICS_CROPS = 48
"""Crops over which mean and deviation of the latents are taken."""


def struct_vae_task(context: TaskContext[StructVaeSettings]) -> Task:
    """Return the task of StructVAE."""
    weight = context.settings.kl_weight

    def loss(model: nn.Module, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        latent, decoded = model(batch.sites, batch.semantic, generator)
        losses = struct_loss(latent, decoded, batch.sites, batch.semantic, kl_weight=weight)
        parts = {
            f"occupancy_{2 ** (len(losses.occupancy) - 1 - n)}": each
            for n, each in enumerate(losses.occupancy)
        }
        return losses.total, {**parts, "divergence": losses.divergence, "classes": losses.classes}

    def latents(model: Any, batch: Batch) -> Tensor:
        means: Tensor = model.encode(batch.sites, batch.semantic).mean.features
        return means

    return autoencoder_task(context, PART, loss, latents, STATISTICS_CROPS, figures, picture)


@torch.no_grad()
def figures(model: Any, crop: Crop, device: torch.device | str = "cpu") -> dict[str, float]:
    """Measure one crop: how well its voxels are decoded, and children of true cells classified."""
    batch = make_batch([crop]).to(device)
    latent, decoded = model(batch.sites, batch.semantic)
    losses = struct_loss(latent, decoded, batch.sites, batch.semantic)
    result = {"loss": float(losses.total)}
    levels = model.levels(batch.sites)
    for level, sites in zip(decoded.levels, reversed(levels[:-1]), strict=True):
        true = sites.rows(level.candidates.coordinates) >= 0
        result[f"accuracy_{sites.stride[0]}"] = accuracy(level.candidates.features[:, 0], true)
    known = batch.semantic > 0
    if decoded.classes is not None and bool(known.any()):
        result["class_accuracy"] = float(
            (decoded.semantic() == batch.semantic)[known].float().mean()
        )
    free = model.decode(latent.mean)
    match = agreement(free.sites, batch.sites)
    holes = match.holes / max(match.columns, 1)
    return {**result, "iou": match.iou, "f1": match.f1, "holes": holes}


@torch.no_grad()
def picture(model: Any, crops: Sequence[Crop], device: torch.device | str) -> Image.Image | None:
    """Draw true and decoded voxels, coloured by class."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(device)
        decoded = model.decode(model.encode(batch.sites, batch.semantic).mean)
        classes = (
            decoded.semantic().cpu().numpy()
            if decoded.classes is not None
            else np.zeros(len(decoded.sites))
        )
        xyz = decoded.sites.lattice().cpu().numpy()
        rows.append(
            [
                voxel_view(crop.xyz, class_colours(crop.semantic), crop.frame, crop.ground),
                voxel_view(xyz, class_colours(classes), crop.frame, crop.ground),
            ]
        )
    return sheet(rows, ["true voxels", "through the latent"])
