"""The flow on height maps: from land cover, image and ground to heights above the ground."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from earthgen.models.conditions import draw_sets
from earthgen.models.flow import sample
from earthgen.models.height_flow import HeightCondition, HeightFlow, height_loss
from earthgen.models.height_state import object_maps
from earthgen.training.batches import Batch, make_batch
from earthgen.training.map_noise import batch_map, draw_map
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    TaskContext,
    column_figures,
    crop_numbers,
    mean_figures,
    new_model,
)
from earthgen.training.parts.height_conditions import (
    Given,
    map_kinds,
    only,
    part_of_surface,
    true_roofs,
    wood_heights,
)
from earthgen.training.parts.latent_pool import without_voxels
from earthgen.training.pictures import class_colours, heat, map_view, sheet
from earthgen.training.randomness import derive_seed, torch_generator
from earthgen.training.settings import HeightFlowSettings
from earthgen.training.steps.columns import step_batch_of_columns
from earthgen.training.steps.micro_batches import step_batch
from earthgen.training.task import Losses, StepBatch, StepCost, Task

PART = "height-flow"

FLAT = 0.1
"""Probability that the ground's shape is hidden from a sample: coarse elevation has none."""

MAP_ALONE, IMAGE_ALONE = ("semantics",), ("image",)
"""Conditions that held-out crops are sampled under."""

MOSTLY = 0.9
"""Share of a held-out crop whose colour has to be known, to measure heights from an image alone."""


def height_flow_task(context: TaskContext[HeightFlowSettings]) -> Task:
    """Return the task of the flow on height maps."""
    settings, size = context.settings, context.preset.voxel_size
    seed = derive_seed(context.seed, PART, "data")

    def make(step: int, rank: int) -> StepBatch:
        numbers = crop_numbers(context, step, rank)
        if context.columns is not None:
            return step_batch_of_columns(context.columns, seed, numbers, settings.micro_batch)
        crops = [without_voxels(context.data.crop(seed, each)) for each in numbers]
        return step_batch(crops, make_batch, micro_batch=settings.micro_batch)

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        random = torch.rand(7, len(batch), 1, 1, generator=generator, device=generator.device)
        land = draw_map(batch, settings.map_ratio, settings.map_noise, generator)
        woods = wood_heights(batch.height, land.cover, size, generator)
        woods = torch.where(random[2] < settings.wood_ratio, woods, 0.0)
        axes = torch.where(random[3, ..., None] < settings.axes_dropout, 0.0, land.axes)
        land = replace(land, axes=axes)
        objects = object_maps(land.building, axes, size)
        roof = true_roofs(batch, land, objects)
        land = replace(
            land,
            told=torch.maximum(land.told, woods),
        )
        given = Given(
            land,
            objects,
            roof=torch.where(random[6] < settings.roof_dropout, torch.nan, roof),
            ground=torch.where(random[1] >= FLAT, batch.ground, 0.0),
            style=torch.where(random[4, :, 0, 0] < settings.style_dropout, 0, batch.style),
            map_kind=torch.where(random[5, :, 0, 0] < settings.style_dropout, 0, map_kinds(land)),
            image=batch.image,
            surface=part_of_surface(batch.height, batch.valid, generator),
        )
        sets = draw_sets(settings.condition_mixture, len(batch), generator)
        condition = given.condition(model, sets, size)
        hide, free = random[0] < settings.condition_dropout, model.without_guides(condition)
        condition = replace(
            condition,
            semantics=torch.where(hide, free.semantics, condition.semantics),
            maps=torch.where(hide[:, None], free.maps, condition.maps),
        )
        value = height_loss(model, batch.height, condition, generator, valid=batch.valid)
        return value, {"flow": value}

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
            row = {**column_figures(height, crop.height, crop.valid), "flow": float(value)}
            if model.config.image and crop.image_known.mean() > MOSTLY:
                seen = sample_heights(model, batch, context, IMAGE_ALONE)[0].cpu().numpy()
                figures = column_figures(seen, crop.height, crop.valid & crop.image_known)
                row |= {f"by_image_{name}": value for name, value in figures.items()}
            rows.append(row)
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
def sample_heights(
    model: Any,
    batch: Batch,
    context: TaskContext[HeightFlowSettings],
    names: tuple[str, ...] = MAP_ALONE,
) -> Tensor:
    """Sample heights above the ground, (batch, ny, nx) float32 metres, from these conditions."""
    condition = batch_condition(model, batch, context.preset.voxel_size, names)
    generator = torch_generator(context.seed, PART, "sample", device=context.device)
    noise = torch.randn(
        len(batch), 1, *batch.height.shape[1:], generator=generator, device=context.device
    )
    state = sample(model.flow, model.predictor(condition), noise, steps=SAMPLING_STEPS)
    height: Tensor = model.to_height(state, condition)
    return height


def batch_condition(
    model: HeightFlow, batch: Batch, voxel_size: float, names: tuple[str, ...] = MAP_ALONE
) -> HeightCondition:
    """Return the condition of a batch: its true land cover, buildings and roofs, or other
    conditions.

    With "height" all true heights are given.
    """
    surface = torch.where(batch.valid, batch.height, torch.nan)
    land = batch_map(batch)
    objects = object_maps(land.building, land.axes, voxel_size)
    roof = true_roofs(batch, land, objects)
    given = Given(
        land, objects, roof, batch.ground, batch.style, map_kinds(land), batch.image, surface
    )
    return given.condition(model, only(batch, *names), voxel_size)
