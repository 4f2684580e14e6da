"""StructFM: which cells of L/8 are active, then the latents of StructVAE on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.models.conditions import Conditions, mix_conditions
from earthgen.models.flow import sample
from earthgen.models.occupancy import agreement
from earthgen.models.struct_flow import (
    active_cells,
    cells_near_heights,
    dilate_cells,
    fine_loss,
    grid_state,
)
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.training.batches import Batch, make_batch
from earthgen.training.map_noise import noisy_conditions
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    TaskContext,
    column_figures,
    crop_numbers,
    draw_batch,
    hide_styles,
    keep_conditions,
    load_trained,
    mean_figures,
    new_model,
    voxel_tops,
)
from earthgen.training.parts.latent_pool import LatentBatch, LatentPool, latent_batch
from earthgen.training.pictures import class_colours, heat, map_view, sheet, voxel_view
from earthgen.training.randomness import derive_seed, numpy_generator, torch_generator
from earthgen.training.settings import StructCoarseSettings, StructFineSettings
from earthgen.training.steps.micro_batches import step_batch
from earthgen.training.task import Losses, StepBatch, StepCost, Task

COARSE, FINE = "struct-coarse", "struct-fine"

LIMITED = 0.5
"""Share of the samples with heights that have only cells near the heights."""

ENCODED_AT_ONCE = 8
"""Crops that StructVAE encodes in one batch."""

CONDITION_SETS = {"": ("semantics",), "by_height_": ("semantics", "height")}
"""Conditions that held-out crops are sampled under, by the prefix of their figures."""


def struct_coarse_task(context: TaskContext[StructCoarseSettings]) -> Task:
    """Return the task of the first stage."""
    settings, levels = context.settings, _halvings(context.preset.struct_coarse.stride)

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
        conditions = noisy_conditions(batch, settings.map_ratio, settings.map_noise, generator)
        conditions = mix_conditions(conditions, settings.condition_mixture, generator)
        # Worlds with heights have no cells of the sky, those without have them.
        near = cells_near_heights(grid, conditions, model.config.patch)
        limited = torch.rand(len(batch), generator=generator, device=generator.device) < LIMITED
        sample = grid.coordinates[:, 0].long()
        grid = grid.select(near | ~limited.to(grid.device)[sample])
        state = grid_state(grid, _parents(batch.sites, levels))
        style = hide_styles(batch.style, settings.style_dropout, generator)
        weight = cells_with_data(batch.valid, grid)
        value = model.loss(state, model.condition(conditions, grid), generator, weight, style)
        return value, {"flow": value}

    def work(model: Any, batch: Batch) -> StepCost:
        grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
        maps = model.cond_net.flops(batch.shape[1::-1], [grid]) if model.config.patch == 1 else 0
        return StepCost(len(batch), len(batch.sites), model.flops(grid) + len(batch) * maps)

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held_out:
            batch = make_batch([crop]).to(context.device)
            true = _parents(batch.sites, levels)
            row: dict[str, float] = {}
            for prefix, names in CONDITION_SETS.items():
                cells = active_cells(
                    sampled_cells(
                        model, batch, keep_conditions(batch.conditions, *names), context.seed
                    )
                )
                match = agreement(cells, true)
                row |= {f"{prefix}iou": match.iou, f"{prefix}cells": len(cells) / max(len(true), 1)}
            generator = torch_generator(context.seed, COARSE, "measure", device=context.device)
            grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
            features = model.condition(keep_conditions(batch.conditions, "semantics"), grid)
            rows.append(
                {
                    **row,
                    "flow": float(
                        model.loss(grid_state(grid, true), features, generator, style=batch.style)
                    ),
                }
            )
        return mean_figures(rows)

    @torch.no_grad()
    def picture(model: Any) -> Image.Image | None:
        rows = []
        for crop in context.examples[:SHOWN]:
            batch = make_batch([crop]).to(context.device)
            cells = active_cells(
                sampled_cells(
                    model, batch, keep_conditions(batch.conditions, "semantics"), context.seed
                )
            )
            low = crop.frame.z[0]
            pictures = [
                voxel_tops(_as_voxels(each), batch.shape, low)[0].cpu().numpy()
                for each in (_parents(batch.sites, levels), cells)
            ]
            cover = (class_colours(crop.cover) * 255).astype("uint8")
            rows.append([map_view(cover), *(map_view(heat(each)) for each in pictures)])
        return sheet(rows, ["land cover", "true cells' tops", "sampled cells' tops"])

    return Task(
        part=COARSE,
        make=lambda: new_model(context, COARSE),
        batch=lambda step, rank: draw_batch(context, COARSE, step, rank, settings.max_voxels),
        loss=loss,
        work=work,
        measure=measure,
        picture=picture,
    )


def _halvings(stride: int) -> int:
    return stride.bit_length() - 1


def _parents(sites: Sites, levels: int) -> Sites:
    for _ in range(levels):
        sites = sites.parents(2)
    return sites


def _as_voxels(cells: Sites) -> Sites:
    """Return all voxels of cells."""
    while cells.stride != (1, 1, 1):
        cells = cells.children(2)[0]
    return cells


def cells_with_data(valid: Tensor, grid: Sites) -> Tensor:
    """Return 1 for cells all of whose columns have data, else 0, (n, 1) float32.

    In the others an empty cell means nothing.

    Parameters
    ----------
    valid : Tensor (batch, ny, nx) bool
        Columns with data.
    grid : Sites
        The n cells.
    """
    stride = grid.stride[0]
    whole = -nn.functional.max_pool2d(-valid[:, None].float(), stride)
    sample, x, y, _ = grid.coordinates.long().unbind(1)
    return whole[sample, 0, whole.shape[2] - 1 - y, x][:, None]


@torch.no_grad()
def sampled_cells(model: Any, batch: Batch, conditions: Conditions, seed: int) -> SparseTensor:
    """Sample the cells of a batch, (n, 1), about -1 or 1; by heights, those near the heights."""
    grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
    grid = grid.select(cells_near_heights(grid, conditions, model.config.patch))
    noise = torch.randn(
        len(grid),
        1,
        generator=torch_generator(seed, COARSE, "sample", device=grid.device),
        device=grid.device,
    )
    predict = model.predictor(grid, model.condition(conditions, grid), style=batch.style)
    return SparseTensor(grid, sample(model.flow, predict, noise, steps=SAMPLING_STEPS))


def struct_fine_task(context: TaskContext[StructFineSettings]) -> Task:
    """Return the task of the second stage.

    Raises
    ------
    TrainingError
        If StructVAE was not trained.
    """
    settings = context.settings
    vae: Any
    vae, header = load_trained(context, "struct-vae")
    stride = vae.config.stride
    pool = LatentPool(
        vae,
        context.data,
        derive_seed(context.seed, FINE, "data"),
        settings.latent_pool_size,
        context.device,
        # On a CPU a batch gains nothing, and the first step would wait for it.
        group=1 if context.device.type == "cpu" else ENCODED_AT_ONCE,
    )

    def make(step: int, rank: int) -> StepBatch:
        random = numpy_generator(context.seed, FINE, "draw", step, rank)
        # The first round goes through the pool in order, so that it fills while training.
        first = crop_numbers(context, step, rank)
        drawn = (
            first
            if first.stop <= settings.latent_pool_size
            else random.integers(settings.latent_pool_size, size=settings.batch_size).tolist()
        )
        return step_batch(
            pool.take(drawn),
            lambda latents: latent_batch(latents, stride),
            micro_batch=settings.micro_batch,
            crop_of=lambda latent: latent.crop,
        )

    def loss(model: Any, batch: LatentBatch, generator: torch.Generator, share: float) -> Losses:
        latent = vae.statistics.normalised(batch.latent.sample(generator))
        shape = tuple(extent // stride for extent in batch.columns.shape)
        cells = dilate_cells(
            latent.sites, (shape[0], shape[1], shape[2]), settings.dilation_probability, generator
        )
        conditions = noisy_conditions(
            batch.columns, settings.map_ratio, settings.map_noise, generator
        )
        conditions = mix_conditions(conditions, settings.condition_mixture, generator)
        style = hide_styles(batch.columns.style, settings.style_dropout, generator)
        value = fine_loss(model, latent, conditions, generator, cells=cells, style=style)
        return value, {"flow": value}

    def work(model: Any, batch: LatentBatch) -> StepCost:
        sites = batch.latent.mean.sites
        maps = model.cond_net.flops(batch.columns.shape[1::-1], model.unet.levels(sites))
        columns = len(batch) * batch.columns.shape[0] * batch.columns.shape[1]
        return StepCost(len(batch), columns, model.flops(sites) + len(batch) * maps)

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held_out:
            true = make_batch([crop]).to(context.device)
            latent = vae.statistics.normalised(vae.encode(true.sites, true.semantic).mean)
            row: dict[str, float] = {}
            for prefix, names in CONDITION_SETS.items():
                conditions = keep_conditions(true.conditions, *names)
                voxels = decoded_sample(
                    model, vae, latent, conditions, context.seed, true.style
                ).sites
                high = voxel_tops(voxels, true.shape, crop.frame.z[0])[0].cpu().numpy()
                mine = {
                    "iou": agreement(voxels, true.sites).iou,
                    **column_figures(high, crop.height, crop.valid),
                }
                row |= {prefix + name: value for name, value in mine.items()}
            generator = torch_generator(context.seed, FINE, "measure", device=context.device)
            conditions = keep_conditions(true.conditions, "semantics")
            value = fine_loss(model, latent, conditions, generator, style=true.style)
            rows.append({**row, "flow": float(value)})
        return mean_figures(rows)

    return Task(
        part=FINE,
        make=lambda: new_model(context, FINE),
        batch=make,
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: fine_picture(model, vae, context.examples, context),
        latents=header.digest,
    )


@torch.no_grad()
def decoded_sample(
    model: Any,
    vae: Any,
    cells: SparseTensor,
    conditions: Conditions,
    seed: int,
    style: Tensor | None = None,
) -> Any:
    """Sample a latent on given cells, and decode it to voxels."""
    sites = cells.sites
    generator = torch_generator(seed, FINE, "sample", device=sites.device)
    noise = torch.randn(len(sites), model.channels, generator=generator, device=sites.device)
    predict = model.predictor(sites, model.condition(conditions, sites), style=style)
    latent = SparseTensor(sites, sample(model.flow, predict, noise, steps=SAMPLING_STEPS))
    return vae.decode(vae.statistics.restored(latent))


@torch.no_grad()
def fine_picture(
    model: Any, vae: Any, crops: Sequence[Crop], context: TaskContext
) -> Image.Image | None:
    """Draw true voxels and those sampled on the true cells, by land cover, and also by heights."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(context.device)
        latent = vae.encode(batch.sites, batch.semantic).mean
        row = [voxel_view(crop.xyz, class_colours(crop.semantic), crop.frame, crop.ground)]
        for names in CONDITION_SETS.values():
            conditions = keep_conditions(batch.conditions, *names)
            decoded = decoded_sample(model, vae, latent, conditions, context.seed, batch.style)
            classes = decoded.semantic().cpu().numpy()
            xyz = decoded.sites.lattice().cpu().numpy()
            row.append(voxel_view(xyz, class_colours(classes), crop.frame, crop.ground))
        rows.append(row)
    return sheet(rows, ["true voxels", "sampled: land cover", "sampled: cover + height"])
