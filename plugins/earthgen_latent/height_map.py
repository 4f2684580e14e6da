"""The geometry backend `height-flow`: a learned height map, raised to voxels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthgen.noise.philox import Noise
from earthgen.stages.backends import Cost
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.terrain.cover import semantics_on
from earthgen.voxels.voxels import GEOMETRY_FIELDS
from earthgen_latent.costs import cost_of
from earthgen_latent.heights import PART, HeightSampler, height_of
from earthgen_latent.known import COLUMNS, columns_stage
from earthgen_latent.networks import Learned, Networks, open_networks
from earthgen_latent.sampling import USE, Sampling, lattice, names
from earthgen_latent.solid import SOLID, columns_of, raised
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

STRIDE, MARGIN = 256, 16
"""Voxels: the core of a window of geometry, and what levels of detail want around it."""


class HeightFlowGeometry(Learned):
    """Solid columns whose heights a flow has made.

    weights : folder of a set; None for the one that the package comes with
    steps, method, guidance, shift, use, rule, phases : as of `Sampling`
    window, stride : of the flow's windows, voxels; None for what suits the weights
    surface : stride of the windows of voxels
    device : of torch; precision : of products, "fp32" or "bf16"
    """

    name = "height-flow"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        surface: int = STRIDE,
        device: str = "cpu",
        precision: str = "fp32",
        use: str | Sequence[str] = USE,
        **sampling: Any,
    ) -> None:
        self.sampling = Sampling(use=names(use), **sampling)
        self.networks = open_networks(weights, (PART,), device, precision=precision)
        unit = 2 ** (len(self.networks.config(PART).channels) - 1)
        self.window, self.stride = lattice(window, stride, self.networks.window, unit)
        self.surface = surface

    def cost(self) -> Cost:
        """What a column of voxels takes."""
        return cost_of(self.networks, self.sampling, self.window, self.stride, (PART,), ())

    def stages(self) -> Sequence[Stage]:
        """What is known of the columns, their heights under the rule, and the surface."""
        heights = HeightSampler(self.networks, self.sampling, self.window, self.stride)
        reads = (
            Read(COLUMNS, cells=SOLID),
            Read(heights.name, cells=SOLID),
            Read("semantics", cells=SOLID),
        )
        last = Stage(
            "height-flow.surface",
            self.surface + 2 * MARGIN,
            GEOMETRY_FIELDS,
            partial(make_surface, self.networks, heights.name, "height" in self.sampling.use),
            reads,
            self.surface,
        )
        return [columns_stage(), *self.sampling.stages(heights), last]


def make_surface(
    networks: Networks, heights: str, measured: bool, window: Frame, inputs: Inputs, noise: Noise
) -> Block:
    """The surface of `window`. measured : whether a surface model's heights count where it has
    data"""
    inner = window.pad(SOLID)
    known: Block = inputs[COLUMNS].crop(inner)
    height = height_of(inputs[heights].crop(inner), networks)
    if measured:
        height = np.where(np.isfinite(known["above"]), known["above"], height).astype(np.float32)
    columns = columns_of(inner, semantics_on(inputs, inner), known["cover"], height, noise)
    return raised(window, inner, np.ascontiguousarray(known["ground"]), columns).block()
