"""Heights above the ground by the flow on height maps: a sampler for `earthgen.stages.blending`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.models.height_flow import HeightCondition, HeightFlow
from earthgen.models.height_state import BORDER
from earthgen.models.presets import HIDDEN
from earthgen.stages.blending import STATE, InpaintingMask
from earthgen.stages.block import Block
from earthgen.stages.stage import Read
from earthgen_latent.columns import COLUMNS
from earthgen_latent.networks import Networks, inference
from earthgen_latent.roofs import settle_roofs
from earthgen_latent.sampling import Sampling, hold_known
from geo_io.frame import Frame

PART = "height-flow"


@dataclass(frozen=True)
class HeightSampler:
    """An `earthgen.stages.blending.Sampler` of height maps.

    Where a surface model is known, the state goes straight to its heights.
    """

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    name: str = "latent.heights"
    style: str = ""
    map_kind: str = ""
    scale: int = 1
    channels: int = 1
    # A margin of one cell, for slopes.
    reads: tuple[Read, ...] = (Read(COLUMNS, cells=1),)

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        """Return the state at time `stop`, (ny, nx, 1) float32."""
        self.networks.check(window)
        around: Block = inputs[COLUMNS]
        inside = around.frame.slices(window)
        with inference(self.networks):
            model: HeightFlow = self.networks(PART)
            device = self.networks.device
            condition = columns_condition(
                model,
                self.networks,
                around,
                self.sampling.use,
                self.style,
                inside,
                self.map_kind,
            )
            predict = model.predictor(condition, self.sampling.guidance)
            above = known_surface(around, self.sampling.use)[inside]
            mask = np.isfinite(above)
            known_heights = _tensor(np.where(mask, above, 0), device)
            data = model.to_state(known_heights, condition)[0, 0].cpu().numpy()
            if known is not None:
                data = np.where(known.mask, known.values[..., 0], data)
                mask = mask | known.mask
            predict = hold_known(predict, model.flow, _map(mask, device), _map(data, device))
            result = self.sampling.integrate(
                model.flow, predict, _map(state[..., 0], device), start, stop
            )
            return result[0, 0, :, :, None].float().cpu().numpy()


def heights_of_state(
    block: Block, networks: Networks, columns: Block, use: tuple[str, ...]
) -> NDArray:
    """Return the metres above the ground of a finished state, (ny, nx) float32; roofs are settled.

    Parameters
    ----------
    block : Block
        The state.
    networks : Networks
    columns : Block
        Of the stage `latent.columns`, on the frame of the state.
    use : tuple of str
        Conditions that the network took.
    """
    with inference(networks):
        model: HeightFlow = networks(PART)
        state = _map(block.dense[STATE][..., 0], networks.device)
        condition = columns_condition(model, networks, columns, use)
        height = model.to_height(state, condition)[0].float().cpu().numpy()
    if not model.by_object or not has_map(columns, use):
        return height
    border = columns["objects"][..., BORDER] > 0
    return settle_roofs(height, columns["told"], columns["roof"], border)


def columns_condition(
    model: HeightFlow,
    networks: Networks,
    columns: Block,
    use: tuple[str, ...],
    style: str = "",
    inside: tuple[slice, slice] | None = None,
    map_kind: str = "",
) -> HeightCondition:
    """Return what the network is given about columns.

    Parameters
    ----------
    model, networks : HeightFlow, Networks
    columns : Block
        Of the stage `latent.columns`.
    use : tuple of str
        Conditions that the network takes.
    style : str
        As of `HeightFlowGeometry`.
    inside : tuple of slice, optional
        Rows and columns of the result; slopes are exact if there is a cell around them.
    map_kind : str
        As of `HeightFlowGeometry`.
    """
    device = networks.device
    part = inside or (slice(None), slice(None))
    cover = networks.class_codes(PART, columns["cover"])
    given: dict[str, torch.Tensor] = {}
    if has_map(columns, use):
        given_kind = networks.map_number(PART, map_kind)
        if given_kind is not None:
            given["map_kind"] = given_kind
        if model.by_object:
            objects = columns["objects"].astype(np.float32).transpose(2, 0, 1)
            given |= {
                "told": _tensor(columns["told"], device),
                "roof": _tensor(columns["roof"], device),
                "objects": _tensor(objects, device),
            }
    else:
        cover = np.full_like(cover, HIDDEN)
    if "image" in use:
        given["image"] = _colours(columns["image"], device)
    whole = model.condition(
        _tensor(cover, device),
        _tensor(columns["ground"], device),
        columns.frame.voxel_size,
        style=networks.style_number(PART, style),
        surface=_tensor(known_surface(columns, use), device),
        **given,
    )
    scales = whole.scales
    return HeightCondition(
        whole.semantics[:, part[0], part[1]],
        whole.slopes[:, :, part[0], part[1]],
        whole.maps[:, :, part[0], part[1]],
        None if scales is None else (scales[0][:, *part], scales[1][:, *part]),
        whole.style,
        whole.map_kind,
    )


def has_map(columns: Block, use: tuple[str, ...]) -> bool:
    """Return whether the job has land cover, and the networks take it."""
    return "semantics" in use and bool(columns["mapped"].all())


def known_surface(columns: Block, use: tuple[str, ...]) -> NDArray:
    """Return the heights of a surface model above the ground, NaN unknown, (ny, nx) float32."""
    above = columns["above"]
    return above if "height" in use else np.full_like(above, np.nan)


def _colours(image: NDArray, device: str) -> torch.Tensor:
    """Return RGBA (ny, nx, 4) uint8 as colours in [0, 1], NaN unknown, (1, 3, ny, nx) float32."""
    colours = image[..., :3].astype(np.float32) / 255
    colours = np.where(image[..., 3:] > 0, colours, np.float32(np.nan))
    return _tensor(colours.transpose(2, 0, 1), device)


def _tensor(values: NDArray, device: str) -> torch.Tensor:
    """Return values of one sample as a batch, (1, ...)."""
    return torch.from_numpy(np.ascontiguousarray(values)[None]).to(device)


def _map(values: NDArray, device: str) -> torch.Tensor:
    """Return a map as a batch with one channel, (1, 1, ny, nx)."""
    return _tensor(values[None], device)
