"""StructFM: which cells of L/8 are active, then the latents of StructVAE on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from earthgen.dataset.crop import Crop
from earthgen.models.conditions import Conditions
from earthgen.models.flow import sample
from earthgen.models.occupancy import agreement
from earthgen.models.struct_flow import active_cells, dilated, fine_loss, grid_state
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts.common import (
    SAMPLING_STEPS,
    SHOWN,
    Context,
    column_figures,
    drawn_batch,
    fresh,
    mean_figures,
    mix,
    numbers,
    objective,
    only,
    tops,
    trained,
)
from earthgen.training.parts.latent_pool import LatentBatch, LatentPool, latent_batch
from earthgen.training.pictures import class_colours, heat, map_view, sheet, voxel_view
from earthgen.training.randomness import number, numpy_generator, torch_generator
from earthgen.training.task import Losses, Task, Work

COARSE, FINE = "struct-coarse", "struct-fine"

WAYS = {"": ("semantics",), "by_height_": ("semantics", "height")}
"""Conditions that held-out crops are sampled under, by the prefix of their figures."""


def struct_coarse_task(context: Context) -> Task:
    settings, levels = context.settings, _halvings(context.preset.struct_coarse.stride)

    def loss(model: Any, batch: Batch, generator: torch.Generator, share: float) -> Losses:
        grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
        state = grid_state(grid, _parents(batch.sites, levels))
        conditions = mix(batch.conditions, settings.mixture, generator)
        kind = objective(settings, share, generator)
        weight = cells_with_data(batch.valid, grid)
        lost = model.loss(state, model.condition(conditions, grid), generator, kind, weight)
        return lost, {kind: lost}

    def work(model: Any, batch: Batch) -> Work:
        grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
        maps = model.cond_net.flops(batch.shape[1::-1], [grid]) if model.config.patch == 1 else 0
        return Work(len(batch), len(batch.sites), model.flops(grid) + len(batch) * maps)

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held:
            batch = make_batch([crop]).to(context.device)
            true = _parents(batch.sites, levels)
            row: dict[str, float] = {}
            for prefix, names in WAYS.items():
                found = active_cells(
                    sampled_cells(model, batch, only(batch.conditions, *names), context.seed)
                )
                match = agreement(found, true)
                row |= {f"{prefix}iou": match.iou, f"{prefix}cells": len(found) / max(len(true), 1)}
            generator = torch_generator(context.seed, COARSE, "measure", device=context.device)
            grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
            features = model.condition(only(batch.conditions, "semantics"), grid)
            rows.append(
                {**row, "flow": float(model.loss(grid_state(grid, true), features, generator))}
            )
        return mean_figures(rows)

    @torch.no_grad()
    def picture(model: Any) -> Image.Image | None:
        rows = []
        for crop in context.examples[:SHOWN]:
            batch = make_batch([crop]).to(context.device)
            found = active_cells(
                sampled_cells(model, batch, only(batch.conditions, "semantics"), context.seed)
            )
            low = crop.frame.z[0]
            pictures = [
                tops(_as_voxels(each), batch.shape, low)[0].cpu().numpy()
                for each in (_parents(batch.sites, levels), found)
            ]
            cover = (class_colours(crop.cover) * 255).astype("uint8")
            rows.append([map_view(cover), *(map_view(heat(each)) for each in pictures)])
        return sheet(rows, ["land cover", "true cells' tops", "sampled cells' tops"])

    return Task(
        part=COARSE,
        make=lambda: fresh(context, COARSE),
        batch=lambda step, rank: drawn_batch(context, COARSE, step, rank),
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
    """The voxels of cells, all of them."""
    while cells.stride != (1, 1, 1):
        cells = cells.children(2)[0]
    return cells


def cells_with_data(valid: Tensor, grid: Sites) -> Tensor:
    """(n, 1) float32: 1 for cells all of whose columns have data; in others an empty cell means
    nothing.

    valid : (batch, ny, nx) bool
    """
    stride = grid.stride[0]
    whole = -nn.functional.max_pool2d(-valid[:, None].float(), stride)
    sample, x, y, _ = grid.coordinates.long().unbind(1)
    return whole[sample, 0, whole.shape[2] - 1 - y, x][:, None]


@torch.no_grad()
def sampled_cells(model: Any, batch: Batch, conditions: Conditions, seed: int) -> SparseTensor:
    """A sampled grid of a batch, (n, 1) about -1 or 1."""
    grid = model.grid(batch.sites.place, batch.shape, batch.sites.device)
    noise = torch.randn(
        len(grid),
        1,
        generator=torch_generator(seed, COARSE, "sample", device=grid.device),
        device=grid.device,
    )
    predict = model.predictor(grid, model.condition(conditions, grid))
    return SparseTensor(grid, sample(model.flow, predict, noise, steps=SAMPLING_STEPS))


def struct_fine_task(context: Context) -> Task:
    """Raises TrainingError where StructVAE was not trained."""
    settings = context.settings
    vae: Any
    vae, header = trained(context, "struct-vae")
    stride = vae.config.stride
    pool = LatentPool(
        vae, context.data, number(context.seed, FINE, "data"), settings.pool, context.device
    )

    def batch(step: int, rank: int) -> LatentBatch:
        random = numpy_generator(context.seed, FINE, "draw", step, rank)
        # The first round goes through the pool in order, so that it fills while it is learned from.
        first = numbers(context, step, rank)
        drawn = (
            first
            if first.stop <= settings.pool
            else random.integers(settings.pool, size=settings.batch).tolist()
        )
        return latent_batch([pool.get(each) for each in drawn], stride)

    def loss(model: Any, given: LatentBatch, generator: torch.Generator, share: float) -> Losses:
        latent = vae.statistics.normalised(given.latent.sample(generator))
        shape = tuple(extent // stride for extent in given.batch.shape)
        cells = dilated(latent.sites, (shape[0], shape[1], shape[2]), settings.dilation, generator)
        conditions = mix(given.batch.conditions, settings.mixture, generator)
        kind = objective(settings, share, generator)
        lost = fine_loss(model, latent, conditions, generator, kind, cells=cells)
        return lost, {kind: lost}

    def work(model: Any, given: LatentBatch) -> Work:
        sites = given.latent.mean.sites
        maps = model.cond_net.flops(given.batch.shape[1::-1], model.unet.levels(sites))
        columns = len(given) * given.batch.shape[0] * given.batch.shape[1]
        return Work(len(given), columns, model.flops(sites) + len(given) * maps)

    @torch.no_grad()
    def measure(model: Any) -> dict[str, float]:
        rows = []
        for crop in context.data.held:
            true = make_batch([crop]).to(context.device)
            latent = vae.statistics.normalised(vae.encode(true.sites, true.semantic).mean)
            row: dict[str, float] = {}
            for prefix, names in WAYS.items():
                voxels = decoded_sample(
                    model, vae, latent, only(true.conditions, *names), context.seed
                ).sites
                high = tops(voxels, true.shape, crop.frame.z[0])[0].cpu().numpy()
                mine = {
                    "iou": agreement(voxels, true.sites).iou,
                    **column_figures(high, crop.height, crop.valid),
                }
                row |= {prefix + name: value for name, value in mine.items()}
            generator = torch_generator(context.seed, FINE, "measure", device=context.device)
            lost = fine_loss(model, latent, only(true.conditions, "semantics"), generator)
            rows.append({**row, "flow": float(lost)})
        return mean_figures(rows)

    return Task(
        part=FINE,
        make=lambda: fresh(context, FINE),
        batch=batch,
        loss=loss,
        work=work,
        measure=measure,
        picture=lambda model: fine_picture(model, vae, context.examples, context),
        latents=header.digest,
    )


@torch.no_grad()
def decoded_sample(
    model: Any, vae: Any, cells: SparseTensor, conditions: Conditions, seed: int
) -> Any:
    """Voxels of a latent that was sampled on given cells."""
    sites = cells.sites
    generator = torch_generator(seed, FINE, "sample", device=sites.device)
    noise = torch.randn(len(sites), model.channels, generator=generator, device=sites.device)
    predict = model.predictor(sites, model.condition(conditions, sites))
    found = SparseTensor(sites, sample(model.flow, predict, noise, steps=SAMPLING_STEPS))
    return vae.decode(vae.statistics.restored(found))


@torch.no_grad()
def fine_picture(
    model: Any, vae: Any, crops: Sequence[Crop], context: Context
) -> Image.Image | None:
    """True voxels, and those sampled on the true cells by land cover alone, and by land cover
    and heights."""
    rows = []
    for crop in crops[:SHOWN]:
        batch = make_batch([crop]).to(context.device)
        latent = vae.encode(batch.sites, batch.semantic).mean
        row = [voxel_view(crop.xyz, class_colours(crop.semantic), crop.frame, crop.ground)]
        for names in WAYS.values():
            found = decoded_sample(model, vae, latent, only(batch.conditions, *names), context.seed)
            classes = found.semantic().cpu().numpy()
            xyz = found.sites.lattice().cpu().numpy()
            row.append(voxel_view(xyz, class_colours(classes), crop.frame, crop.ground))
        rows.append(row)
    return sheet(rows, ["true voxels", "sampled: land cover", "sampled: cover + height"])
