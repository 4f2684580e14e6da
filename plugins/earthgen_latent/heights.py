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
from earthgen_latent.known import COLUMNS
from earthgen_latent.networks import Networks, inference
from earthgen_latent.sampling import Sampling, pinned
from geo_io.frame import Frame

PART = "height-flow"


@dataclass(frozen=True)
class HeightSampler:
    """A `earthgen.stages.blending.Sampler` of height maps; where a surface model is known, it
    goes straight to that."""

    networks: Networks
    sampling: Sampling
    window: int
    stride: int
    name: str = "latent.heights"
    scale: int = 1
    channels: int = 1
    reads: tuple[Read, ...] = (Read(COLUMNS, cells=1),)  # a cell around, for slopes

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        """(ny, nx, 1) float32 at time `stop`."""
        self.networks.check(window)
        around: Block = inputs[COLUMNS]
        inside = around.frame.slices(window)
        with inference(self.networks):
            model: HeightFlow = self.networks(PART)
            device = self.networks.device
            slopes = ground_slopes(_tensor(around["ground"], device), window.voxel_size)[
                :, :, inside[0], inside[1]
            ]
            cover = _tensor(self.networks.told(PART, around["cover"][inside]), device)
            if "semantics" not in self.sampling.use:
                cover = torch.zeros_like(cover)
            predict = model.predictor(cover, slopes, self.sampling.guidance)
            above = around["above"][inside]
            mask = np.isfinite(above) & ("height" in self.sampling.use)
            data = model.to_state(_tensor(np.where(mask, above, 0), device))[0, 0].cpu().numpy()
            if known is not None:
                data = np.where(known.mask, known.values[..., 0], data)
                mask = mask | known.mask
            predict = pinned(predict, model.flow, _map(mask, device), _map(data, device))
            few = PART in self.networks.few_steps
            found = self.sampling.follow(
                model.flow, predict, _map(state[..., 0], device), start, stop, few
            )
            return found[0, 0, :, :, None].float().cpu().numpy()


def height_of(block: Block, networks: Networks) -> NDArray:
    """(ny, nx) float32 metres above the ground, of a finished state."""
    with inference(networks):
        model: HeightFlow = networks(PART)
        state = _map(block.dense[STATE][..., 0], networks.device)
        return model.to_height(state)[0].float().cpu().numpy()


def _tensor(values: NDArray, device: str) -> torch.Tensor:
    """(1, ...) of one sample."""
    return torch.from_numpy(np.ascontiguousarray(values)[None]).to(device)


def _map(values: NDArray, device: str) -> torch.Tensor:
    """(1, 1, ny, nx)."""
    return _tensor(values[None], device)
