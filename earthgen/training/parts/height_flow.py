"""The flow on height maps: from land cover and the ground's shape to heights above the ground."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.models.flow import sample
from earthgen.models.height_flow import HeightCondition, HeightFlow, height_loss
from earthgen.models.height_state import OBJECT_MAPS
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
    settings, size = context.settings, context.preset.voxel_size
    seed = derive_seed(context.seed, PART, "data")

    def make(step: int, rank: int) -> Batch:
        return make_batch(
            [
                without_voxels(context.data.crop(seed, each))
                for each in crop_numbers(context, step, rank)
            ]
        )

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        random = torch.rand(5, len(batch), 1, 1, generator=generator, device=generator.device)
        seen = torch.where(random[2] < settings.map_ratio, map_classes(batch), batch.classes)
        semantics = torch.where(random[0] >= settings.condition_dropout, seen, 0)
        ground = torch.where(random[1] >= FLAT, batch.ground, 0.0)
        objects = hide_axes(batch.objects, random[3] < settings.axes_dropout)
        style = torch.where(random[4, :, 0, 0] < settings.style_dropout, 0, batch.style)
        kind = draw_objective(settings, share, generator)
        condition = model.condition(
            semantics, ground, size, told=batch.told, objects=objects, style=style
        )
        value = height_loss(model, batch.height, condition, generator, kind, valid=batch.valid)
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
            known = batch_condition(model, batch, size)
            value = height_loss(model, batch.height, known, generator, valid=batch.valid)
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
    condition = batch_condition(model, batch, context.preset.voxel_size)
    generator = torch_generator(context.seed, PART, "sample", device=context.device)
    noise = torch.randn(
        len(batch), 1, *batch.height.shape[1:], generator=generator, device=context.device
    )
    state = sample(model.flow, model.predictor(condition), noise, steps=SAMPLING_STEPS)
    height: Tensor = model.to_height(state, condition)
    return height


def batch_condition(model: HeightFlow, batch: Batch, voxel_size: float) -> HeightCondition:
    """Return all that is known of the columns of a batch."""
    return model.condition(
        batch.classes,
        batch.ground,
        voxel_size,
        told=batch.told,
        objects=batch.objects,
        style=batch.style,
    )


def map_classes(batch: Batch) -> Tensor:
    """Return the classes of the map, 0 where the scene has no data, (batch, ny, nx) uint8."""
    return torch.where(batch.valid, batch.map, 0)


def hide_axes(objects: Tensor, hidden: Tensor) -> Tensor:
    """Return maps of objects without the axes of buildings where `hidden` (batch, 1, 1)."""
    axes = torch.ones(OBJECT_MAPS, dtype=torch.bool, device=objects.device)
    axes[0] = axes[-1] = False  # the distance to the edge and the border stay
    return torch.where(hidden[:, None] & axes[:, None, None], 0.0, objects)
