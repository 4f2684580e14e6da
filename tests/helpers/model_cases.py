"""Each model with its loss and a forward pass on a town, so that what all of them keep is tested
in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earthgen.models.flow import Predict
from earthgen.models.height_flow import height_loss
from earthgen.models.struct_flow import coarse_loss, dilate_cells, fine_loss
from earthgen.models.struct_vae import struct_loss
from earthgen.models.tex_flow import tex_flow_loss, told_features
from earthgen.models.tex_vae import tex_loss, voxel_features
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites
from tests.helpers.model_scenes import Town


def cells_of(town: Town) -> Sites:
    return town.sites.parents(2).parents(2).parents(2)


def latent_of(sites: Sites, channels: int) -> SparseTensor:
    """Latents that are a function of the place."""
    where = sites.lattice().remainder(64).float() / torch.tensor(sites.stride)
    waves = torch.arange(1, channels + 1) / 7.0
    return SparseTensor(sites, torch.sin(where.sum(1, keepdim=True) * waves) * 1.4)


def features_of(town: Town, inputs: int) -> SparseTensor:
    features = voxel_features(town.sites, town.rgb, town.normal)
    return features.with_features(
        nn.functional.pad(features.features, (0, inputs - features.channels))
    )


def _struct_vae(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    latent, decoded = model(town.sites, town.semantic, generator)
    return struct_loss(latent, decoded, town.sites, town.semantic).total


def _tex_vae(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    latent, found = model(features_of(town, model.config.inputs), generator)
    return tex_loss(latent, found, town.rgb).total


def _coarse(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    grid = model.grid(town.sites.place, town.shape)
    return coarse_loss(model, cells_of(town), grid, town.conditions, generator)


def _fine(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    cells = cells_of(town)
    box = tuple(extent // 8 for extent in town.shape)
    more = dilate_cells(cells, (box[0], box[1], box[2]), 0.2, generator)
    return fine_loss(
        model, latent_of(cells, model.channels), town.conditions, generator, cells=more
    )


def _tex_flow(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    latent = latent_of(town.sites, model.channels)
    return tex_flow_loss(
        model,
        latent,
        town.conditions,
        generator,
        semantic=town.semantic,
        normal=town.normal,
        told=told_features(town.rgb, town.rgb[:, 0] > 0.5),
    )


def _height(model: Any, town: Town, generator: torch.Generator) -> Tensor:
    condition = model.condition(town.cover, town.ground, 1.0)
    return height_loss(model, town.height, condition, generator)


LOSSES: dict[str, Callable[[Any, Town, torch.Generator], Tensor]] = {
    "struct-vae": _struct_vae,
    "tex-vae": _tex_vae,
    "struct-coarse": _coarse,
    "struct-fine": _fine,
    "tex-flow": _tex_flow,
    "height-flow": _height,
}


def flow_case(part: str, model: Any, town: Town) -> tuple[Tensor, Predict]:
    """The data of a flow over given voxels, as its loss has them, and its predictor."""
    with torch.no_grad():
        if part == "struct-fine":
            sites = cells_of(town)
            condition = model.condition(town.conditions, sites)
        else:
            sites = town.sites
            condition = model.condition(town.conditions, sites, town.semantic, town.normal)
        return latent_of(sites, model.channels).features, model.predictor(sites, condition)


@dataclass(frozen=True)
class Output:
    """What a model gives on a town: features of voxels, or a map."""

    sparse: SparseTensor | None = None
    dense: Tensor | None = None


def output(part: str, model: Any, town: Town) -> Output:
    """One forward pass without gradients, on states that are functions of the place."""
    time = torch.full((len(town.frames),), 0.4)
    with torch.no_grad():
        if part == "struct-vae":
            return Output(
                model.decode(model.encode(town.sites, town.semantic).mean, town.sites).classes
            )
        if part == "tex-vae":
            latent = model.encode(features_of(town, model.config.inputs)).mean
            return Output(SparseTensor(town.sites, model.decode(latent)))
        if part == "height-flow":
            condition = model.condition(town.cover, town.ground, 1.0)
            return Output(dense=model(model.to_state(town.height, condition), time, condition))
        if part == "struct-coarse":
            sites = model.grid(town.sites.place, town.shape)
            return Output(model(latent_of(sites, 1), time, model.condition(town.conditions, sites)))
        if part == "struct-fine":
            sites = cells_of(town)
            return Output(
                model(
                    latent_of(sites, model.channels), time, model.condition(town.conditions, sites)
                )
            )
        condition = model.condition(town.conditions, town.sites, town.semantic, town.normal)
        return Output(model(latent_of(town.sites, model.channels), time, condition))
