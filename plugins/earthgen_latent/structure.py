"""Structure by StructFM and StructVAE: cells, their latents, and the logits of voxels.

The state of a window is dense: a value, or a latent, for each cell of the band in each column of
cells. So windows agree by the rules of `earthgen.stages.blending`, and which cells are active is
decided once, from what they agreed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.models.conditions import Conditions
from earthgen.models.struct_flow import StructCoarse, StructFine
from earthgen.models.struct_vae import StructVAE
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.stages.blending import STATE, InpaintingMask
from earthgen.stages.block import Block, Field, column_order
from earthgen.stages.stage import Read, rescale
from earthgen_latent.heights import height_of
from earthgen_latent.known import COLUMNS
from earthgen_latent.networks import Networks, inference
from earthgen_latent.sampling import Sampling, pinned, variant_name
from geo_io.frame import Frame

COARSE, FINE, VAE = "struct-coarse", "struct-fine", "struct-vae"

HEIGHTS = "latent.heights"

OCCUPANCY = {"logit": Field("float32", sparse=True), "semantic": Field("uint8", sparse=True)}
"""Candidates of voxels: the logit of being active, and the class, 0 where the decoder gave none."""

ABSENT = -4.0
"""Logit of a voxel that one window's decoder did not even consider, where another's did."""


@dataclass(frozen=True)
class Structure:
    """What the stages of structure share.

    Attributes
    ----------
    networks, sampling : see there
    window, stride : of all windows, voxels
    heights : whether there is a stage of generated heights to take as a condition
    variant : of the noise of cells and latents: another gives another structure for the same
        heights
    """

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    heights: bool
    variant: int = 0

    @property
    def cell(self) -> int:
        """Voxels along an edge of a cell."""
        return int(self.networks.config(VAE).stride)

    @property
    def cells(self) -> str:
        """The stage of which cells are active; its name keys the noise."""
        return f"latent.cells{variant_name(self.variant)}"

    @property
    def latents(self) -> str:
        """The stage of the cells' latents."""
        return f"latent.latents{variant_name(self.variant)}"

    @property
    def layers(self) -> int:
        """Cells from the bottom of the band to its top."""
        low, high = self.networks.band
        return (high - low) // self.cell

    @property
    def sources(self) -> tuple[str, ...]:
        return (COLUMNS, HEIGHTS) if self.heights else (COLUMNS,)

    def fine(self, window: Frame) -> Frame:
        """A frame of cells as the frame of their voxels, in the networks' band."""
        return self.banded(rescale(window, self.cell, 1))

    def banded(self, frame: Frame) -> Frame:
        return replace(frame, z=self.networks.band)

    def conditions(self, frame: Frame, inputs: Mapping[str, Any]) -> Conditions:
        """What is known of the columns of a frame of voxels."""
        known: Block = inputs[COLUMNS]
        height = known["above"]
        if HEIGHTS in inputs:
            height = np.where(
                np.isfinite(height), height, height_of(inputs[HEIGHTS], self.networks)
            )
        cover = self.networks.told(FINE, known["cover"])
        return conditions_of(
            frame, self.sampling, self.networks.device, cover, height, known["image"]
        )

    def sites(
        self, active: NDArray, window: Frame
    ) -> tuple[Sites, tuple[NDArray, NDArray, NDArray]]:
        """Active cells of (ny, nx, layers) bool on a frame of cells, and the index of each in
        such an array."""
        row, column, layer = np.nonzero(active)
        south = active.shape[0] - 1 - row
        rows = np.stack([np.zeros_like(row), column, south, layer], 1).astype(np.int32)
        place = Place.of(self.fine(window))
        sites, order = make_sites(torch.from_numpy(rows), stride=self.cell, place=place)
        picked = order.numpy()
        return sites.to(self.networks.device), (row[picked], column[picked], layer[picked])


def conditions_of(
    frame: Frame,
    sampling: Sampling,
    device: str,
    cover: NDArray,
    height: NDArray | None,
    image: NDArray | None,
) -> Conditions:
    """Conditions of one sample, without those that are not used, or known nowhere.

    cover : (ny, nx) class codes, 0 unknown; height : (ny, nx) metres, NaN unknown; image : (ny, nx,
        4) RGBA
    """
    maps: dict[str, Any] = {}
    if "semantics" in sampling.use and cover.any():
        maps["semantics"] = [cover]
    if "height" in sampling.use and height is not None and np.isfinite(height).any():
        maps["height"] = [height]
    if "image" in sampling.use and image is not None and image[..., 3].any():
        maps |= {"image": [image[..., :3]], "image_known": [image[..., 3] > 0]}
    return Conditions.of([frame], device=device, **maps)


def active_cells(state: NDArray) -> NDArray:
    """(ny, nx, layers) bool of (ny, nx, layers) float32, about -1 or 1: above 0, and one in
    every column of cells."""
    active = state > 0
    best = np.argmax(state, axis=2)
    active |= (np.arange(state.shape[2]) == best[..., None]) & ~active.any(axis=2, keepdims=True)
    return active


@dataclass(frozen=True)
class CellSampler:
    """Where the windows of cells lie that both stages of StructFM sample."""

    structure: Structure

    @property
    def window(self) -> int:
        return self.structure.window // self.structure.cell

    @property
    def stride(self) -> int:
        return self.structure.stride // self.structure.cell

    @property
    def scale(self) -> int:
        return self.structure.cell


@dataclass(frozen=True)
class CoarseSampler(CellSampler):
    """A `earthgen.stages.blending.Sampler` of which cells are active: a channel a layer of the
    band."""

    @property
    def name(self) -> str:
        return self.structure.cells

    @property
    def channels(self) -> int:
        return self.structure.layers

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(Read(source) for source in self.structure.sources)

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        structure = self.structure
        networks, sampling = structure.networks, structure.sampling
        with inference(networks):
            model: StructCoarse = networks(COARSE)
            frame = structure.fine(window)
            conditions = structure.conditions(frame, inputs)
            shape = (frame.nx, frame.ny, frame.z[1] - frame.z[0])
            grid = model.grid(Place.of(frame), shape, networks.device)
            told = model.condition(conditions, grid)
            free = model.condition(conditions.hidden(), grid) if sampling.guidance != 1 else None
            predict = model.predictor(grid, told, free, sampling.guidance)
            if known is not None:
                mask = np.broadcast_to(known.mask[..., None], known.values.shape)
                predict = pinned(
                    predict,
                    model.flow,
                    _rows(mask, networks.device),
                    _rows(known.values, networks.device),
                )
            few = COARSE in networks.few_steps
            found = sampling.follow(
                model.flow, predict, _rows(state, networks.device), start, stop, few
            )
            # Rows of a grid are sorted by (x, y, z), y from the south.
            back = (
                found[:, 0]
                .float()
                .cpu()
                .numpy()
                .reshape(window.nx, window.ny, -1)
                .transpose(1, 0, 2)[::-1]
            )
            return np.ascontiguousarray(back)


def _rows(values: NDArray, device: str) -> torch.Tensor:
    """(n, 1) in the order of a grid, of (ny, nx, layers)."""
    return (
        torch.from_numpy(np.ascontiguousarray(values[::-1].transpose(1, 0, 2)))
        .reshape(-1, 1)
        .to(device)
    )


@dataclass(frozen=True)
class FineSampler(CellSampler):
    """A `earthgen.stages.blending.Sampler` of latents, those of all layers; of cells that are
    not active they are unused."""

    @property
    def name(self) -> str:
        return self.structure.latents

    @property
    def channels(self) -> int:
        return self.structure.layers * int(self.structure.networks.config(FINE).latent)

    @property
    def reads(self) -> tuple[Read, ...]:
        return (*(Read(source) for source in self.structure.sources), Read(self.structure.cells))

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        structure = self.structure
        networks, sampling = structure.networks, structure.sampling
        sites, index = structure.sites(active_cells(inputs[structure.cells].dense[STATE]), window)
        shape = (*window.shape, structure.layers, -1)
        with inference(networks):
            model: StructFine = networks(FINE)
            conditions = structure.conditions(structure.fine(window), inputs)
            told = model.condition(conditions, sites)
            free = model.condition(conditions.hidden(), sites) if sampling.guidance != 1 else None
            predict = model.predictor(sites, told, free, sampling.guidance)
            features = torch.from_numpy(state.reshape(shape)[index]).to(networks.device)
            if known is not None:
                data = torch.from_numpy(known.values.reshape(shape)[index]).to(networks.device)
                mask = (
                    torch.from_numpy(known.mask[index[:2]][:, None])
                    .to(networks.device)
                    .expand_as(data)
                )
                predict = pinned(predict, model.flow, mask, data)
            found = sampling.follow(
                model.flow, predict, features, start, stop, FINE in networks.few_steps
            )
        out = state.reshape(shape).copy()
        out[index] = found.float().cpu().numpy()
        return out.reshape(state.shape)


def decode(structure: Structure, window: Frame, inputs: Mapping[str, Any], noise: Any) -> Block:
    """Candidates of voxels in `window` (a frame of voxels), from latents on it and a cell
    around."""
    latents, cells = inputs[structure.latents], inputs[structure.cells]
    networks = structure.networks
    sites, index = structure.sites(active_cells(cells.dense[STATE]), cells.frame)
    features = latents.dense[STATE].reshape(*latents.frame.shape, structure.layers, -1)[index]
    with inference(networks):
        fine: StructFine = networks(FINE)
        vae: StructVAE = networks(VAE)
        latent = fine.refined(SparseTensor(sites, torch.from_numpy(features).to(networks.device)))
        found = vae.decode(vae.statistics.restored(latent))
        candidates = found.levels[-1].candidates
        xyz = candidates.sites.lattice().cpu().numpy().astype(np.int32)
        logit = candidates.features[:, 0].float().cpu().numpy()
        semantic = np.zeros(len(xyz), np.uint8)
        if found.classes is not None and len(found.sites):
            semantic[candidates.sites.rows(found.sites.coordinates).cpu().numpy()] = (
                found.semantic().cpu().numpy()
            )
    order = column_order(xyz)
    sparse = {"logit": logit[order], "semantic": semantic[order]}
    return replace(
        Block(structure.fine(cells.frame), {}, xyz[order], sparse).crop(window), frame=window
    )
