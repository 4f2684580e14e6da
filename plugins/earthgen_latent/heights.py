"""Heights above the ground by the flow on height maps: a sampler for `earthgen.stages.blending`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from earthgen.models.height_flow import HeightFlow, ground_slopes
from earthgen.stages.blending import STATE, InpaintingMask
from earthgen.stages.block import Block
from earthgen.stages.stage import Read
from earthgen_latent.columns import COLUMNS
from earthgen_latent.networks import Networks, inference
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
            slopes = ground_slopes(_tensor(around["ground"], device), window.voxel_size)[
                :, :, inside[0], inside[1]
            ]
            cover = _tensor(self.networks.class_codes(PART, around["cover"][inside]), device)
            if "semantics" not in self.sampling.use:
                cover = torch.zeros_like(cover)
            predict = model.predictor(cover, slopes, self.sampling.guidance)
            above = around["above"][inside]
            mask = np.isfinite(above) & ("height" in self.sampling.use)
            data = model.to_state(_tensor(np.where(mask, above, 0), device))[0, 0].cpu().numpy()
            if known is not None:
                data = np.where(known.mask, known.values[..., 0], data)
                mask = mask | known.mask
            predict = hold_known(predict, model.flow, _map(mask, device), _map(data, device))
            few = PART in self.networks.few_steps
            result = self.sampling.integrate(
                model.flow, predict, _map(state[..., 0], device), start, stop, few
            )
            return result[0, 0, :, :, None].float().cpu().numpy()


def heights_of_state(block: Block, networks: Networks) -> NDArray:
    """Return the metres above the ground of a finished state, (ny, nx) float32."""
    with inference(networks):
        model: HeightFlow = networks(PART)
        state = _map(block.dense[STATE][..., 0], networks.device)
        return model.to_height(state)[0].float().cpu().numpy()


def _tensor(values: NDArray, device: str) -> torch.Tensor:
    """Return values of one sample as a batch, (1, ...)."""
    return torch.from_numpy(np.ascontiguousarray(values)[None]).to(device)


def _map(values: NDArray, device: str) -> torch.Tensor:
    """Return a map as a batch with one channel, (1, 1, ny, nx)."""
    return _tensor(values[None], device)
