"""Structure by StructFM and StructVAE: cells, their latents, and the logits of voxels.

The state of a window is dense: a value, or a latent, for each cell of the band in each column of
cells. Windows are blended by the rules of `earthgen.stages.blending`, and the active cells are
chosen once, from the blended values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.models.conditions import Conditions
from earthgen.models.struct_flow import StructCoarse, StructFine, cells_near_heights
from earthgen.models.struct_vae import StructVAE
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.stages.blending import STATE, InpaintingMask
from earthgen.stages.block import Block, Field, column_order
from earthgen.stages.stage import Read, rescale
from earthgen_latent.columns import COLUMNS
from earthgen_latent.heights import PART as HEIGHT_FLOW
from earthgen_latent.heights import has_map, heights_of_state, known_surface
from earthgen_latent.networks import Networks, inference
from earthgen_latent.sampling import (
    WINDOW,
    Sampling,
    hold_known,
    variant_suffix,
    window_lattice,
)
from geo_io.frame import Frame

COARSE, FINE, VAE = "struct-coarse", "struct-fine", "struct-vae"

HEIGHTS = "latent.heights"

STRIDE, DECODED, SURFACE = 192, 16, 80
"""Voxels of the core of a window from heights to voxels, those around it that are decoded as
context, and those of the core of a window of the surface. Wider cores waste less on context,
narrower ones less where a world ends within a core. Of the cores from 96 to 192 and from 64 to 128
these two take the least for 200 x 200 m, and nearly the least for 4 km2: counted over many
places."""

OCCUPANCY = {"logit": Field("float32", sparse=True), "semantic": Field("uint8", sparse=True)}
"""Candidate voxels: the logit of being active, and the class, 0 if the decoder gave none."""

ABSENT = -4.0
"""Logit of a voxel that is a candidate in another window only."""

NESTED = 2
"""Units of context that a window of latents has beyond one of the decoder, and a window of cells
beyond one of latents. They are enough: beyond, no cell of a window differs from that of a much
larger one, and latents by 0.01 of a deviation (shipped weights)."""


def lattice_unit(networks: Networks, heights: bool) -> int:
    """Return the voxels along an edge of the coarsest cells that any network works on.

    Parameters
    ----------
    networks : Networks
    heights : bool
        Whether there is a flow on heights.
    """
    unit = int(networks.config(VAE).stride) * int(networks.config(COARSE).patch)
    levels = len(networks.config(HEIGHT_FLOW).channels) if heights else 1
    return max(unit, 2 ** (levels - 1))


def nested_margins(margin: int, unit: int) -> tuple[int, int, int]:
    """Return the margins of the windows of cells, of latents and of the decoder, voxels.

    Parameters
    ----------
    margin : int
        Of the windows of cells. Where it leaves less than a unit to the decoder, all are wider.
    unit : int
        Of which they are multiples.
    """
    decoder = max(margin - 2 * NESTED * unit, unit)
    return decoder + 2 * NESTED * unit, decoder + NESTED * unit, decoder


def nested_lattice(window: int | None, stride: int | None, unit: int) -> tuple[int, int]:
    """Return window and stride of nested windows, voxels.

    Parameters
    ----------
    window, stride : int, optional
        None is `STRIDE`, and a window with context for all of its stages. A window that has no
        room for that keeps the margin of `window_lattice`.
    unit : int
        Windows begin and end at multiples of it.

    Raises
    ------
    ModelError
        If windows do not lie on cells.
    """
    margin = (-(-DECODED // unit) + 2 * NESTED) * unit
    if window is None:
        step = STRIDE if stride is None else stride
        return window_lattice(step + 2 * margin, step, WINDOW, unit)
    if stride is None and window >= 4 * margin:
        return window_lattice(window, window - 2 * margin, WINDOW, unit)
    return window_lattice(window, stride, WINDOW, unit)


@dataclass(frozen=True)
class Structure:
    """What the stages of structure share.

    Attributes
    ----------
    networks, sampling : Networks, Sampling
        The weights, and the options of the flows.
    window, stride : int
        Of the windows of cells, and distance between all windows, voxels.
    heights : bool
        Whether generated heights are a condition.
    variant : int
        Of the noise of cells and latents: another one gives another structure for the same heights.
    style : str
        As of `earthgen_latent.networks.Networks.style_number`.
    """

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    heights: bool
    variant: int = 0
    style: str = ""

    @property
    def cell(self) -> int:
        """Voxels along an edge of a cell."""
        return int(self.networks.config(VAE).stride)

    @property
    def cells(self) -> str:
        """Name of the stage of active cells, which keys the noise."""
        return f"latent.cells{variant_suffix(self.variant)}"

    @property
    def latents(self) -> str:
        """Name of the stage of the cells' latents, which keys the noise."""
        return f"latent.latents{variant_suffix(self.variant)}"

    @property
    def margins(self) -> tuple[int, int, int]:
        """Voxels around the cores of the windows of cells, of latents and of the decoder.

        Under the rule "crossfaded" they are nested: each window carries the context of its own
        later stages, which then need no neighbour.
        """
        margin = (self.window - self.stride) // 2
        if self.sampling.rule != "crossfaded":
            return margin, margin, margin
        return nested_margins(margin, self.unit)

    @property
    def unit(self) -> int:
        """Voxels of which windows and margins are multiples."""
        return lattice_unit(self.networks, self.heights)

    @property
    def layers(self) -> int:
        """Number of cells from the bottom of the band to its top."""
        low, high = self.networks.band
        return (high - low) // self.cell

    @property
    def sources(self) -> tuple[str, ...]:
        """Stages of the conditions."""
        return (COLUMNS, HEIGHTS) if self.heights else (COLUMNS,)

    def fine(self, window: Frame) -> Frame:
        """Return the frame of the voxels of a frame of cells, in the networks' band."""
        return self.banded(rescale(window, self.cell, 1))

    def banded(self, frame: Frame) -> Frame:
        """Return a frame with the heights of the networks' band."""
        return replace(frame, z=self.networks.band)

    def heights_on(self, inputs: Mapping[str, Any]) -> NDArray:
        """Return known and generated heights above the ground, NaN elsewhere, (ny, nx) float32."""
        columns: Block = inputs[COLUMNS]
        height = known_surface(columns, self.sampling.use)
        if HEIGHTS in inputs:
            use = self.sampling.use
            generated = heights_of_state(inputs[HEIGHTS], self.networks, columns, use)
            height = np.where(np.isfinite(height), height, generated)
        return height

    def conditions(self, frame: Frame, inputs: Mapping[str, Any]) -> Conditions:
        """Return the conditions on the columns of a frame of voxels."""
        columns: Block = inputs[COLUMNS]
        cover = self.networks.class_codes(FINE, columns["cover"])
        return conditions_of(
            frame,
            self.sampling,
            self.networks.device,
            cover if has_map(columns, self.sampling.use) else None,
            self.heights_on(inputs),
            columns["image"],
        )

    def sites(
        self, active: NDArray, window: Frame
    ) -> tuple[Sites, tuple[NDArray, NDArray, NDArray]]:
        """Return active cells of (ny, nx, layers) bool, and the index of each in that array."""
        row, column, layer = np.nonzero(active)
        south = active.shape[0] - 1 - row
        rows = np.stack([np.zeros_like(row), column, south, layer], 1).astype(np.int32)
        place = Place.of(self.fine(window))
        sites, order = make_sites(torch.from_numpy(rows), stride=self.cell, place=place)
        index = order.numpy()
        return sites.to(self.networks.device), (row[index], column[index], layer[index])


def conditions_of(
    frame: Frame,
    sampling: Sampling,
    device: str,
    cover: NDArray | None,
    height: NDArray | None,
    image: NDArray | None,
) -> Conditions:
    """Return conditions of one sample, without those that are not used or known nowhere.

    Parameters
    ----------
    frame : Frame
        Frame of the voxels.
    sampling : Sampling
        Says which conditions are used.
    device : str
        Device of torch.
    cover : NDArray (ny, nx) uint8, optional
        Class codes, 0 unmapped; None if there is no map.
    height : NDArray (ny, nx) float32, optional
        Metres above the ground, NaN unknown.
    image : NDArray (ny, nx, 4) uint8, optional
        RGBA, alpha 0 unknown.
    """
    maps: dict[str, Any] = {}
    if "semantics" in sampling.use and cover is not None:
        maps["semantics"] = [cover]
    if "height" in sampling.use and height is not None and np.isfinite(height).any():
        maps["height"] = [height]
    if "image" in sampling.use and image is not None and image[..., 3].any():
        maps |= {"image": [image[..., :3]], "image_known": [image[..., 3] > 0]}
    return Conditions.of([frame], device=device, **maps)


def active_cells(state: NDArray) -> NDArray:
    """Return the active cells: those above 0, and at least one in every column of cells.

    Parameters
    ----------
    state : NDArray (ny, nx, layers) float32
        Values about -1 or 1.

    Returns
    -------
    NDArray (ny, nx, layers) bool
    """
    active = state > 0
    best = np.argmax(state, axis=2)
    active |= (np.arange(state.shape[2]) == best[..., None]) & ~active.any(axis=2, keepdims=True)
    return active


@dataclass(frozen=True)
class CellSampler:
    """The windows of cells of both stages of StructFM."""

    structure: Structure

    @property
    def margin(self) -> int:
        """Voxels around the core of a window."""
        return self.structure.margins[0]

    @property
    def window(self) -> int:
        """Cells along an edge of a window."""
        return (self.structure.stride + 2 * self.margin) // self.structure.cell

    @property
    def stride(self) -> int:
        """Cells between windows."""
        return self.structure.stride // self.structure.cell

    @property
    def scale(self) -> int:
        """Voxels along an edge of a cell."""
        return self.structure.cell


@dataclass(frozen=True)
class CoarseSampler(CellSampler):
    """An `earthgen.stages.blending.Sampler` of active cells, one channel per layer of the band."""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.structure.cells

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return self.structure.layers

    @property
    def reads(self) -> tuple[Read, ...]:
        """Inputs of the stage."""
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
        """Return the state at time `stop`, as of `earthgen.stages.blending.Sampler`."""
        structure = self.structure
        networks, sampling = structure.networks, structure.sampling
        with inference(networks):
            model: StructCoarse = networks(COARSE)
            frame = structure.fine(window)
            conditions = structure.conditions(frame, inputs)
            shape = (frame.nx, frame.ny, frame.z[1] - frame.z[0])
            grid = model.grid(Place.of(frame), shape, networks.device)
            rows = cells_near_heights(grid, conditions, model.config.patch)
            grid = grid.select(rows)
            condition = model.condition(conditions, grid)
            free = model.condition(conditions.hidden(), grid) if sampling.guidance != 1 else None
            style = networks.style_number(COARSE, structure.style)
            predict = model.predictor(grid, condition, free, sampling.guidance, style)
            if known is not None:
                mask = np.broadcast_to(known.mask[..., None], known.values.shape)
                predict = hold_known(
                    predict,
                    model.flow,
                    _rows(mask, networks.device)[rows],
                    _rows(known.values, networks.device)[rows],
                )
            every = _rows(state, networks.device)
            # All other cells go straight to inactive.
            part = (stop - start) / (1 - start)
            result = (1 - part) * every - part
            result[rows] = sampling.integrate(model.flow, predict, every[rows], start, stop)
            # Rows of a grid are sorted by (x, y, z), y from the south.
            back = (
                result[:, 0]
                .float()
                .cpu()
                .numpy()
                .reshape(window.nx, window.ny, -1)
                .transpose(1, 0, 2)[::-1]
            )
            return np.ascontiguousarray(back)


def _rows(values: NDArray, device: str) -> torch.Tensor:
    """Return (ny, nx, layers) values in the order of a grid, (n, 1)."""
    return (
        torch.from_numpy(np.ascontiguousarray(values[::-1].transpose(1, 0, 2)))
        .reshape(-1, 1)
        .to(device)
    )


@dataclass(frozen=True)
class FineSampler(CellSampler):
    """An `earthgen.stages.blending.Sampler` of latents of all layers, unused in inactive cells."""

    @property
    def margin(self) -> int:
        """Voxels around the core of a window."""
        return self.structure.margins[1]

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.structure.latents

    @property
    def channels(self) -> int:
        """Channels of the state."""
        return self.structure.layers * int(self.structure.networks.config(FINE).latent)

    @property
    def reads(self) -> tuple[Read, ...]:
        """Inputs of the stage."""
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
        """Return the state at time `stop`, as of `earthgen.stages.blending.Sampler`."""
        structure = self.structure
        networks, sampling = structure.networks, structure.sampling
        sites, index = structure.sites(active_cells(inputs[structure.cells].dense[STATE]), window)
        shape = (*window.shape, structure.layers, -1)
        with inference(networks):
            model: StructFine = networks(FINE)
            conditions = structure.conditions(structure.fine(window), inputs)
            condition = model.condition(conditions, sites)
            free = model.condition(conditions.hidden(), sites) if sampling.guidance != 1 else None
            style = networks.style_number(FINE, structure.style)
            predict = model.predictor(sites, condition, free, sampling.guidance, style)
            features = torch.from_numpy(state.reshape(shape)[index]).to(networks.device)
            if known is not None:
                data = torch.from_numpy(known.values.reshape(shape)[index]).to(networks.device)
                mask = (
                    torch.from_numpy(known.mask[index[:2]][:, None])
                    .to(networks.device)
                    .expand_as(data)
                )
                predict = hold_known(predict, model.flow, mask, data)
            result = sampling.integrate(model.flow, predict, features, start, stop)
        out = state.reshape(shape).copy()
        out[index] = result.float().cpu().numpy()
        return out.reshape(state.shape)


def decode(structure: Structure, window: Frame, inputs: Mapping[str, Any], noise: Any) -> Block:
    """Return candidate voxels in `window`, from latents on it and a margin of one cell."""
    latents, cells = inputs[structure.latents], inputs[structure.cells]
    networks = structure.networks
    sites, index = structure.sites(active_cells(cells.dense[STATE]), cells.frame)
    features = latents.dense[STATE].reshape(*latents.frame.shape, structure.layers, -1)[index]
    with inference(networks):
        fine: StructFine = networks(FINE)
        vae: StructVAE = networks(VAE)
        latent = fine.refined(SparseTensor(sites, torch.from_numpy(features).to(networks.device)))
        decoded = vae.decode(vae.statistics.restored(latent))
        candidates = decoded.levels[-1].candidates
        xyz = candidates.sites.lattice().cpu().numpy().astype(np.int32)
        logit = candidates.features[:, 0].float().cpu().numpy()
        semantic = np.zeros(len(xyz), np.uint8)
        if decoded.classes is not None and len(decoded.sites):
            semantic[candidates.sites.rows(decoded.sites.coordinates).cpu().numpy()] = (
                decoded.semantic().cpu().numpy()
            )
    order = column_order(xyz)
    sparse = {"logit": logit[order], "semantic": semantic[order]}
    return replace(
        Block(structure.fine(cells.frame), {}, xyz[order], sparse).crop(window), frame=window
    )
