"""The flow on height maps: land cover and the ground's shape to the height of what stands on it."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.models.flow import sample
from earthgen.models.height_flow import ground_slopes, height_loss
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    Context,
    column_figures,
    fresh,
    mean_figures,
    numbers,
    objective,
)
from earthgen.training.parts.latent_pool import without_voxels
from earthgen.training.pictures import class_colours, heat, map_view, sheet
from earthgen.training.randomness import number, torch_generator
from earthgen.training.task import Losses, Task, Work

PART = "height-flow"

FLAT = 0.1
"""Odds that a sample is told nothing of its ground's shape: coarse elevation has none."""


def height_flow_task(context: Context) -> Task:
    settings = context.settings
    seed = number(context.seed, PART, "data")

    def batch(step: int, rank: int) -> Batch:
        return make_batch(
            [without_voxels(context.data.crop(seed, each)) for each in numbers(context, step, rank)]
        )

    def loss(model: Any, given: Batch, generator: torch.Generator, share: float) -> Losses:
        drawn = torch.rand(2, len(given), 1, 1, generator=generator, device=generator.device)
        semantics = torch.where(drawn[0] >= settings.drop, given.classes, 0)
        ground = torch.where(drawn[1] >= FLAT, given.ground, 0.0)
        kind = objective(settings, share, generator)
        lost = height_loss(
            model,
            given.height,
            semantics,
            ground,
            context.preset.voxel_size,
            generator,
            kind,
            valid=given.valid,
        )
        return lost, {kind: lost}

    def work(model: Any, given: Batch) -> Work:
        nx, ny, _ = given.shape
        return Work(len(given), len(given) * nx * ny, len(given) * model.flops(ny, nx))

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held:
            given = make_batch([without_voxels(crop)]).to(context.device)
            found = sampled(model, given, context)[0].cpu().numpy()
            generator = torch_generator(context.seed, PART, "measure", device=context.device)
            lost = height_loss(
                model,
                given.height,
                given.classes,
                given.ground,
                context.preset.voxel_size,
                generator,
                valid=given.valid,
            )
            rows.append({**column_figures(found, crop.height, crop.valid), "flow": float(lost)})
        return mean_figures(rows)

    @torch.no_grad()
    def picture(model: Any) -> Image.Image | None:
        rows = []
        for crop in context.examples[:SHOWN]:
            given = make_batch([without_voxels(crop)]).to(context.device)
            found = sampled(model, given, context)[0].cpu().numpy()
            cover = (class_colours(crop.cover) * 255).astype("uint8")
            rows.append([map_view(cover), map_view(heat(crop.height)), map_view(heat(found))])
        return sheet(rows, ["land cover", "true height", "sampled height"])

    return Task(
        part=PART,
        make=lambda: fresh(context, PART),
        batch=batch,
        loss=loss,
        work=work,
        measure=measure,
        picture=picture,
    )


@torch.no_grad()
def sampled(model: Any, given: Batch, context: Context) -> Tensor:
    """(batch, ny, nx) metres: sampled heights."""
    semantics = given.classes
    slopes = ground_slopes(given.ground, context.preset.voxel_size)
    generator = torch_generator(context.seed, PART, "sample", device=context.device)
    noise = torch.randn(
        len(given), 1, *semantics.shape[1:], generator=generator, device=context.device
    )
    found: Tensor = model.to_height(
        sample(model.flow, model.predictor(semantics, slopes), noise, steps=SAMPLING_STEPS)
    )
    return found
