"""Figures and pictures of models that were trained on one crop, for benchmarks/overfit.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.models.flow import Predict, sample
from earthgen.models.occupancy import agreement
from earthgen.models.struct_flow import active_cells, grid_state
from earthgen.models.struct_vae import Decoded
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites
from earthgen.training.batches import Batch, make_batch
from earthgen.training.parts import tex_vae
from earthgen.training.parts.common import (
    TALL,
    TaskContext,
    keep_conditions,
    load_trained,
    voxel_tops,
)
from earthgen.training.parts.height_flow import batch_condition
from earthgen.training.parts.tex_flow import (
    colour_figures,
    colours_of_objects,
    make_codec,
    visible_classes,
)
from earthgen.training.parts.tex_vae import covering_splats
from earthgen.training.pictures import class_colours, heat, map_view, sheet, view, voxel_view
from earthgen.training.randomness import torch_generator

SAMPLING_STEPS = 25

DRAWS = 4
"""Samples of a flow, each from other noise."""


def struct_vae_figures(model: Any, context: TaskContext) -> dict[str, float]:
    batch = make_batch([context.data.held_out[0]])
    with torch.no_grad():
        decoded = model.decode(model.encode(batch.sites, batch.semantic).mean)
    result = {}
    for level, true in zip(decoded.levels, reversed(model.levels(batch.sites)[:-1]), strict=True):
        candidates = level.candidates.sites
        match = agreement(level.kept, true)
        every = len(candidates) + int((candidates.rows(true.coordinates) < 0).sum())
        result[f"accuracy_{true.stride[0]}"] = 1 - (match.false + match.missed) / every
    return {**result, **voxel_figures([decoded], batch)}


def voxel_figures(result: Sequence[Decoded], batch: Batch) -> dict[str, float]:
    """Return `iou` and `class_accuracy` of decoded voxels, means over several samples."""
    known = batch.semantic > 0
    overlaps, classes = [], []
    for decoded in result:
        overlaps.append(agreement(decoded.sites, batch.sites).iou)
        rows = decoded.sites.rows(batch.sites.coordinates).long()
        there = rows >= 0
        right = torch.zeros_like(there)
        right[there] = decoded.semantic()[rows[there]] == batch.semantic[there]
        classes.append(float(right[known].float().mean()))
    return {"iou": float(np.mean(overlaps)), "class_accuracy": float(np.mean(classes))}


def struct_coarse_figures(model: Any, context: TaskContext) -> dict[str, float]:
    batch, grid, true = coarse_parts(model, context)
    with torch.no_grad():
        result = active_cells(coarse_sample(model, batch, grid, context.seed))
    wrong = grid_state(grid, result).features != grid_state(grid, true).features
    return {"accuracy": 1 - float(wrong.float().mean()), "iou": agreement(result, true).iou}


def coarse_parts(model: Any, context: TaskContext) -> tuple[Batch, Sites, Sites]:
    """Return the crop `DRAWS` times, its grid of cells, and the active ones."""
    batch = make_batch([context.data.held_out[0]] * DRAWS)
    true = batch.sites
    while true.stride[0] < model.config.stride:
        true = true.parents(2)
    return batch, model.grid(batch.sites.place, batch.shape), true


def coarse_sample(model: Any, batch: Batch, grid: Sites, seed: int) -> SparseTensor:
    features = model.condition(keep_conditions(batch.conditions, "semantics", "height"), grid)
    return SparseTensor(grid, drawn(model, model.predictor(grid, features), (len(grid), 1), seed))


def struct_fine_figures(model: Any, context: TaskContext) -> dict[str, float]:
    batch = make_batch([context.data.held_out[0]])
    decoded, cells = zip(
        *(fine_sample(model, context, batch, draw) for draw in range(DRAWS)), strict=True
    )
    matches = [agreement(each.sites, batch.sites) for each in decoded]
    wrong = np.mean([match.false + match.missed for match in matches])
    return {
        "accuracy": 1 - float(wrong) / (cells[0] * model.config.stride**3),
        **voxel_figures(decoded, batch),
    }


def fine_sample(model: Any, context: TaskContext, batch: Batch, draw: int) -> tuple[Decoded, int]:
    """Sample a latent on the true cells; return its voxels and the number of cells."""
    vae: Any = load_trained(context, "struct-vae")[0]
    with torch.no_grad():
        sites = vae.encode(batch.sites, batch.semantic).mean.sites
        features = model.condition(keep_conditions(batch.conditions, "semantics", "height"), sites)
        result = drawn(
            model,
            model.predictor(sites, features),
            (len(sites), model.channels),
            context.seed + draw,
        )
        return vae.decode(vae.statistics.restored(SparseTensor(sites, result))), len(sites)


def tex_vae_figures(model: Any, context: TaskContext) -> dict[str, float]:
    result = tex_vae.figures(model, context.data.held_out[0])
    return {name: result[name] for name in ("colour_psnr", "view_psnr")}


def tex_flow_figures(model: Any, context: TaskContext) -> dict[str, float]:
    batch = make_batch([context.data.held_out[0]])
    # The mean of the errors, not of the decibels, which one good draw would lift.
    parts = colours_of_objects(batch)
    errors = []
    for draw in range(DRAWS):
        found = colour_figures(tex_sample(model, context, batch, draw), batch, parts)
        errors.append(10 ** (-found["colour_psnr"] / 10))
    return {"colour_psnr": -10 * math.log10(float(np.mean(errors)))}


def tex_sample(model: Any, context: TaskContext, batch: Batch, draw: int) -> Tensor:
    """Sample colours of voxels, (n, 3)."""
    codec = make_codec(context)
    conditions, sites = keep_conditions(batch.conditions, "semantics", "image"), batch.sites
    with torch.no_grad():
        features = model.condition(
            conditions, sites, visible_classes(batch, conditions), batch.normal
        )
        result = drawn(
            model,
            model.predictor(sites, features),
            (len(sites), model.channels),
            context.seed + draw,
        )
        return codec.decode(
            model, SparseTensor(sites, result), codec.scales(model, None, None, None)
        )


def height_flow_figures(model: Any, context: TaskContext) -> dict[str, float]:
    crop = context.data.held_out[0]
    result = height_sample(model, context, make_batch([crop] * DRAWS)).numpy()[:, crop.valid]
    true = crop.height[crop.valid]
    right = (result >= TALL) == (true >= TALL)
    return {"accuracy": float(right.mean()), "mae": float(np.abs(result - true).mean())}


def height_sample(model: Any, context: TaskContext, batch: Batch) -> Tensor:
    """Sample heights, (batch, ny, nx) metres."""
    shape = (len(batch), 1, *batch.height.shape[1:])
    with torch.no_grad():
        condition = batch_condition(model, batch, context.preset.voxel_size)
        state = drawn(model, model.predictor(condition), shape, context.seed)
        return model.to_height(state, condition)


def drawn(model: Any, predict: Predict, shape: tuple[int, ...], seed: int) -> Tensor:
    """Sample a state, from noise that is not in the training."""
    noise = torch.randn(shape, generator=torch_generator(seed, "overfit", device="cpu"))
    with torch.no_grad():
        return sample(model.flow, predict, noise, steps=SAMPLING_STEPS)


FIGURES: dict[str, Callable[[Any, TaskContext], dict[str, float]]] = {
    "struct-vae": struct_vae_figures,
    "struct-coarse": struct_coarse_figures,
    "struct-fine": struct_fine_figures,
    "height-flow": height_flow_figures,
    "tex-vae": tex_vae_figures,
    "tex-flow": tex_flow_figures,
}


def picture(
    models: Mapping[str, Any], context_of: Callable[[str], TaskContext]
) -> Image.Image | None:
    """Draw a column per part, the truth above the result; None without parts."""
    pairs = [PICTURES[part](model, context_of(part)) for part, model in models.items()]
    return sheet(list(zip(*pairs, strict=True)), list(models))


def struct_vae_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    crop = context.data.held_out[0]
    batch = make_batch([crop])
    with torch.no_grad():
        return _voxels(crop, model.decode(model.encode(batch.sites, batch.semantic).mean))


def struct_fine_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    crop = context.data.held_out[0]
    return _voxels(crop, fine_sample(model, context, make_batch([crop]), 0)[0])


def _voxels(crop: Crop, decoded: Decoded) -> list[Image.Image]:
    pairs = (
        (crop.xyz, crop.semantic),
        (decoded.sites.lattice().numpy(), decoded.semantic().numpy()),
    )
    return [
        voxel_view(xyz, class_colours(classes), crop.frame, crop.ground) for xyz, classes in pairs
    ]


def struct_coarse_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    batch, grid, true = coarse_parts(model, context)
    result = active_cells(coarse_sample(model, batch, grid, context.seed))
    pictures = []
    for cells in (true, result):
        while cells.stride != (1, 1, 1):
            cells = cells.children(2)[0]
        pictures.append(
            map_view(
                heat(voxel_tops(cells, batch.shape, context.data.held_out[0].frame.z[0])[0].numpy())
            )
        )
    return pictures


def height_flow_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    crop = context.data.held_out[0]
    result = height_sample(model, context, make_batch([crop] * DRAWS))[0].numpy()
    return [map_view(heat(each)) for each in (crop.height, result)]


def tex_vae_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    batch = make_batch([context.data.held_out[0]])
    with torch.no_grad():
        features = tex_vae.encoder_features(batch, model)
        return _discs(batch, model.decode(model.encode(features).mean))


def tex_flow_pair(model: Any, context: TaskContext) -> list[Image.Image]:
    batch = make_batch([context.data.held_out[0]])
    return _discs(batch, tex_sample(model, context, batch, 0))


def _discs(batch: Batch, result: Tensor) -> list[Image.Image]:
    crop = batch.crops[0]
    return [
        view(covering_splats(batch, 0, each), crop.frame, crop.ground)
        for each in (batch.rgb, result)
    ]


PICTURES: dict[str, Callable[[Any, TaskContext], list[Image.Image]]] = {
    "struct-vae": struct_vae_pair,
    "struct-coarse": struct_coarse_pair,
    "struct-fine": struct_fine_pair,
    "height-flow": height_flow_pair,
    "tex-vae": tex_vae_pair,
    "tex-flow": tex_flow_pair,
}
