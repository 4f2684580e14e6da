"""The flow on height maps: from land cover and the ground's shape to heights above the ground."""

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
    TaskContext,
    column_figures,
    crop_numbers,
    draw_objective,
    mean_figures,
    new_model,
)
from earthgen.training.parts.latent_pool import without_voxels
from earthgen.training.pictures import class_colours, heat, map_view, sheet
from earthgen.training.randomness import derive_seed, torch_generator
from earthgen.training.settings import HeightFlowSettings
from earthgen.training.task import Losses, StepCost, Task

PART = "height-flow"

FLAT = 0.1
"""Probability that the ground's shape is hidden from a sample: coarse elevation has none."""


def height_flow_task(context: TaskContext[HeightFlowSettings]) -> Task:
    """Return the task of the flow on height maps."""
    settings = context.settings
    seed = derive_seed(context.seed, PART, "data")

    def make(step: int, rank: int) -> Batch:
        return make_batch(
            [
                without_voxels(context.data.crop(seed, each))
                for each in crop_numbers(context, step, rank)
            ]
        )

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        random = torch.rand(2, len(batch), 1, 1, generator=generator, device=generator.device)
        semantics = torch.where(random[0] >= settings.condition_dropout, batch.classes, 0)
        ground = torch.where(random[1] >= FLAT, batch.ground, 0.0)
        kind = draw_objective(settings, share, generator)
        value = height_loss(
            model,
            batch.height,
            semantics,
            ground,
            context.preset.voxel_size,
            generator,
            kind,
            valid=batch.valid,
        )
        return value, {kind: value}

    def work(model: Any, batch: Batch) -> StepCost:
        nx, ny, _ = batch.shape
        return StepCost(len(batch), len(batch) * nx * ny, len(batch) * model.flops(ny, nx))

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held_out:
            batch = make_batch([without_voxels(crop)]).to(context.device)
            height = sample_heights(model, batch, context)[0].cpu().numpy()
            generator = torch_generator(context.seed, PART, "measure", device=context.device)
            value = height_loss(
                model,
                batch.height,
                batch.classes,
                batch.ground,
                context.preset.voxel_size,
                generator,
                valid=batch.valid,
            )
            rows.append({**column_figures(height, crop.height, crop.valid), "flow": float(value)})
        return mean_figures(rows)

    @torch.no_grad()
    def picture(model: Any) -> Image.Image | None:
        rows = []
        for crop in context.examples[:SHOWN]:
            batch = make_batch([without_voxels(crop)]).to(context.device)
            height = sample_heights(model, batch, context)[0].cpu().numpy()
            cover = (class_colours(crop.cover) * 255).astype("uint8")
            rows.append([map_view(cover), map_view(heat(crop.height)), map_view(heat(height))])
        return sheet(rows, ["land cover", "true height", "sampled height"])

    return Task(
        part=PART,
        make=lambda: new_model(context, PART),
        batch=make,
        loss=loss,
        work=work,
        measure=measure,
        picture=picture,
    )


@torch.no_grad()
def sample_heights(model: Any, batch: Batch, context: TaskContext[HeightFlowSettings]) -> Tensor:
    """Sample heights above the ground, (batch, ny, nx) float32 metres."""
    semantics = batch.classes
    slopes = ground_slopes(batch.ground, context.preset.voxel_size)
    generator = torch_generator(context.seed, PART, "sample", device=context.device)
    noise = torch.randn(
        len(batch), 1, *semantics.shape[1:], generator=generator, device=context.device
    )
    height: Tensor = model.to_height(
        sample(model.flow, model.predictor(semantics, slopes), noise, steps=SAMPLING_STEPS)
    )
    return height
