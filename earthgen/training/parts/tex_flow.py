"""TexFM: the latents of TexVAE on given voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.conditions import CONDITIONS, Conditions, mix_conditions
from earthgen.models.flow import sample
from earthgen.models.gaussian_head import VoxelGaussians
from earthgen.models.tex_flow import tex_flow_loss
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.spherical_harmonics import C0
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    TaskContext,
    draw_batch,
    draw_objective,
    keep_conditions,
    load_trained,
    mean_figures,
    new_model,
)
from earthgen.training.parts.tex_vae import encoder_features, reference_gaussians, sample_splats
from earthgen.training.pictures import sheet, view
from earthgen.training.randomness import torch_generator
from earthgen.training.settings import TexFlowSettings
from earthgen.training.task import Losses, StepCost, Task

PART = "tex-flow"

CONDITION_SETS = {"": ("semantics",), "by_image_": ("semantics", "image")}
"""Conditions that held-out crops are sampled under, by the prefix of their figures."""


def tex_flow_task(context: TaskContext[TexFlowSettings]) -> Task:
    """Return the task of TexFM.

    Raises
    ------
    TrainingError
        If TexVAE was not trained.
    """
    settings = context.settings
    vae: Any
    vae, header = load_trained(context, "tex-vae")

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        conditions = mix_conditions(batch.conditions, settings.condition_mixture, generator)
        kind = draw_objective(settings, share, generator)
        with torch.no_grad():
            latent = vae.statistics.normalised(
                vae.encode(encoder_features(batch)).sample(generator)
            )
        value = tex_flow_loss(
            model,
            latent,
            conditions,
            generator,
            kind,
            semantic=visible_classes(batch, conditions),
            normal=batch.normal,
            weight=batch.trust,
        )
        return value, {kind: value}

    def work(model: Any, batch: Batch) -> StepCost:
        maps = model.cond_net.flops(batch.shape[1::-1], model.unet.levels(batch.sites))
        # The frozen encoder has no backward pass: it counts a third of a forward pass.
        frozen = vae.encoder.flops(batch.sites) // 3
        return StepCost(
            len(batch), len(batch.sites), model.flops(batch.sites) + len(batch) * maps + frozen
        )

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held_out:
            batch = make_batch([crop]).to(context.device)
            row: dict[str, float] = {}
            for prefix, names in CONDITION_SETS.items():
                gaussians = sample_gaussians(
                    model, vae, batch, keep_conditions(batch.conditions, *names), context.seed
                )
                row |= {
                    prefix + name: value for name, value in colour_figures(gaussians, batch).items()
                }
            conditions = keep_conditions(batch.conditions, "semantics")
            latent = vae.statistics.normalised(vae.encode(encoder_features(batch)).mean)
            generator = torch_generator(context.seed, PART, "measure", device=context.device)
            row["flow"] = float(
                tex_flow_loss(
                    model,
                    latent,
                    conditions,
                    generator,
                    semantic=visible_classes(batch, conditions),
                    normal=batch.normal,
                )
            )
            rows.append(row)
        return mean_figures(rows)

    return Task(
        part=PART,
        make=lambda: new_model(context, PART),
        batch=lambda step, rank: draw_batch(context, PART, step, rank, settings.max_voxels),
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: picture(model, vae, context.examples, context),
        latents=header.digest,
    )


def visible_classes(batch: Batch, conditions: Conditions) -> Tensor:
    """Return class codes of voxels, 0 in samples whose land cover is hidden, (n,)."""
    shown = conditions.shown(batch.sites.device)[:, CONDITIONS.index("semantics")]
    return batch.semantic * shown[batch.sites.coordinates[:, 0].long()]


@torch.no_grad()
def sample_gaussians(
    model: Any, vae: Any, batch: Batch, conditions: Conditions, seed: int
) -> VoxelGaussians:
    """Sample a latent, and decode it to Gaussians."""
    sites = batch.sites
    generator = torch_generator(seed, PART, "sample", device=sites.device)
    noise = torch.randn(len(sites), model.channels, generator=generator, device=sites.device)
    condition = model.condition(conditions, sites, visible_classes(batch, conditions), batch.normal)
    latent = sample(model.flow, model.predictor(sites, condition), noise, steps=SAMPLING_STEPS)
    return vae.decode(vae.statistics.restored(SparseTensor(sites, latent)), batch.normal)


def colour_figures(gaussians: VoxelGaussians, batch: Batch) -> dict[str, float]:
    """Compare sampled colours of voxels with seen ones.

    Returns
    -------
    dict of str to float
        `colour_psnr` in dB, and `colour_spread`, the ratio of the standard deviations; empty if no
        colour was seen.
    """
    if not bool(batch.seen.any()):
        return {}
    colour, true = (gaussians.sh[:, 0] * C0 + 0.5).clamp(0, 1)[batch.seen], batch.rgb[batch.seen]
    error = float((colour - true).square().mean())
    spread = (
        float(colour.std(0).mean() / true.std(0).mean().clamp(min=1e-3)) if len(true) > 1 else 1.0
    )
    return {"colour_psnr": -10 * math.log10(error + 1e-9), "colour_spread": spread}


@torch.no_grad()
def picture(
    model: Any, vae: Any, crops: Sequence[Crop], context: TaskContext
) -> Image.Image | None:
    """Draw true Gaussians and sampled ones."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(context.device)
        row = [view(sample_splats(reference_gaussians(batch), batch), crop.frame, crop.ground)]
        for names in CONDITION_SETS.values():
            gaussians = sample_gaussians(
                model, vae, batch, keep_conditions(batch.conditions, *names), context.seed
            )
            row.append(view(sample_splats(gaussians, batch), crop.frame, crop.ground))
        rows.append(row)
    return sheet(rows, ["true colours", "sampled: land cover", "sampled: cover + image"])
