"""TexFM: the latents of TexVAE on given voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.conditions import CONDITIONS, Conditions
from earthgen.models.flow import sample
from earthgen.models.gaussian_head import Discs
from earthgen.models.tex_flow import tex_flow_loss
from earthgen.sparse import SparseTensor
from earthgen.splats.spherical_harmonics import C0
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    Context,
    drawn_batch,
    fresh,
    mean_figures,
    mix,
    objective,
    only,
    trained,
)
from earthgen.training.parts.tex_vae import features, splats_of, true_discs
from earthgen.training.pictures import sheet, view
from earthgen.training.randomness import torch_generator
from earthgen.training.task import Losses, Task, Work

PART = "tex-flow"

WAYS = {"": ("semantics",), "by_image_": ("semantics", "image")}
"""Conditions that held-out crops are sampled under, by the prefix of their figures."""


def tex_flow_task(context: Context) -> Task:
    """Raises TrainingError where TexVAE was not trained."""
    settings = context.settings
    vae: Any
    vae, header = trained(context, "tex-vae")

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        conditions = mix(batch.conditions, settings.mixture, generator)
        kind = objective(settings, share, generator)
        with torch.no_grad():
            latent = vae.statistics.normalised(vae.encode(features(batch)).sample(generator))
        lost = tex_flow_loss(
            model,
            latent,
            conditions,
            generator,
            kind,
            semantic=told(batch, conditions),
            normal=batch.normal,
            weight=batch.trust,
        )
        return lost, {kind: lost}

    def work(model: Any, batch: Batch) -> Work:
        maps = model.cond_net.flops(batch.shape[1::-1], model.unet.levels(batch.sites))
        # The frozen encoder has no backward pass: a third of what a forward pass of the model
        # counts for.
        frozen = vae.encoder.flops(batch.sites) // 3
        return Work(
            len(batch), len(batch.sites), model.flops(batch.sites) + len(batch) * maps + frozen
        )

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held:
            batch = make_batch([crop]).to(context.device)
            row: dict[str, float] = {}
            for prefix, names in WAYS.items():
                found = sampled(model, vae, batch, only(batch.conditions, *names), context.seed)
                row |= {
                    prefix + name: value for name, value in colour_figures(found, batch).items()
                }
            conditions = only(batch.conditions, "semantics")
            latent = vae.statistics.normalised(vae.encode(features(batch)).mean)
            generator = torch_generator(context.seed, PART, "measure", device=context.device)
            row["flow"] = float(
                tex_flow_loss(
                    model,
                    latent,
                    conditions,
                    generator,
                    semantic=told(batch, conditions),
                    normal=batch.normal,
                )
            )
            rows.append(row)
        return mean_figures(rows)

    return Task(
        part=PART,
        make=lambda: fresh(context, PART),
        batch=lambda step, rank: drawn_batch(context, PART, step, rank),
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: picture(model, vae, context.examples, context),
        latents=header.digest,
    )


def told(batch: Batch, conditions: Conditions) -> Tensor:
    """(n,) class codes of voxels, 0 in samples whose land cover is hidden: it would tell them."""
    shown = conditions.shown(batch.sites.device)[:, CONDITIONS.index("semantics")]
    return batch.semantic * shown[batch.sites.coordinates[:, 0].long()]


@torch.no_grad()
def sampled(model: Any, vae: Any, batch: Batch, conditions: Conditions, seed: int) -> Discs:
    """Gaussians of a sampled latent."""
    sites = batch.sites
    generator = torch_generator(seed, PART, "sample", device=sites.device)
    noise = torch.randn(len(sites), model.channels, generator=generator, device=sites.device)
    known = model.condition(conditions, sites, told(batch, conditions), batch.normal)
    latent = sample(model.flow, model.predictor(sites, known), noise, steps=SAMPLING_STEPS)
    return vae.decode(vae.statistics.restored(SparseTensor(sites, latent)), batch.normal)


def colour_figures(found: Discs, batch: Batch) -> dict[str, float]:
    """Of sampled colours of voxels against seen ones; and how much they vary beside the true
    ones, 1 being as much."""
    if not bool(batch.seen.any()):
        return {}
    colour, true = (found.sh[:, 0] * C0 + 0.5).clamp(0, 1)[batch.seen], batch.rgb[batch.seen]
    error = float((colour - true).square().mean())
    spread = (
        float(colour.std(0).mean() / true.std(0).mean().clamp(min=1e-3)) if len(true) > 1 else 1.0
    )
    return {"colour_psnr": -10 * math.log10(error + 1e-9), "colour_spread": spread}


@torch.no_grad()
def picture(model: Any, vae: Any, crops: Sequence[Crop], context: Context) -> Image.Image | None:
    """True Gaussians, and sampled ones."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(context.device)
        row = [view(splats_of(true_discs(batch), batch), crop.frame, crop.ground)]
        for names in WAYS.values():
            found = sampled(model, vae, batch, only(batch.conditions, *names), context.seed)
            row.append(view(splats_of(found, batch), crop.frame, crop.ground))
        rows.append(row)
    return sheet(rows, ["true colours", "sampled: land cover", "sampled: cover + image"])
