"""The geometry backend `height-flow`: a learned height map, extruded to voxels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earthgen.noise.philox import Noise
from earthgen.stages.backends import Cost, GeometryBackend
from earthgen.stages.block import Block
from earthgen.stages.stage import Read, Stage
from earthgen.terrain.cover import semantics_on
from earthgen.voxels.voxels import GEOMETRY_FIELDS
from earthgen_latent.columns import COLUMNS, columns_stage
from earthgen_latent.costs import count_cost
from earthgen_latent.crowns import CROWN_REACH, ROUNDING, crown_reach, limit_crowns
from earthgen_latent.hanging import hang_columns
from earthgen_latent.heights import PART, HeightSampler, heights_of_state, known_surface
from earthgen_latent.networks import LearnedBackend, Networks, open_networks
from earthgen_latent.picture import PICTURE_REACH, classes_of_picture
from earthgen_latent.sampling import USE, WINDOW, Sampling, condition_names, window_lattice
from earthgen_latent.solid import SOLID_MARGIN, clear_open_land, columns_from_heights, raise_columns
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.stages.block import Inputs

STRIDE, MARGIN = 96, 16
"""Voxels of the core of a window of geometry, and of the margin that levels of detail need.

Wider cores waste less on margins, narrower ones less where a world ends within a core."""


class HeightFlowGeometry(LearnedBackend, GeometryBackend):
    """Solid columns whose heights a flow has made.

    Parameters
    ----------
    weights : str or Path, optional
        Folder of a set; None is the set that the package comes with.
    window, stride : int, optional
        Of the flow's windows, voxels; None is the default of the weights.
    surface : int
        Stride of the windows of voxels.
    device : str
        Device of torch.
    precision : str
        Of products, in `earthgen_latent.networks.PRECISIONS`.
    use, steps, method, guidance, shift, rule, phases
        As of `earthgen_latent.sampling.Sampling`.
    style : str
        What heights look like: "rules", "real", "any"; "" is "rules" if the weights know it.
    map_kind : str
        As of `earthgen_latent.networks.Networks.map_number`: nothing stands that is not on a
        "whole" map, and trees and small things are added to one with "gaps".
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
        precision: str = "auto",
        use: str | Sequence[str] = USE,
        steps: int = Sampling.steps,
        method: str = Sampling.method,
        guidance: float = Sampling.guidance,
        shift: float = Sampling.shift,
        rule: str = Sampling.rule,
        phases: int = Sampling.phases,
        style: str = "",
        map_kind: str = "",
    ) -> None:
        self.style, self.map_kind = style, map_kind
        self.sampling = Sampling(steps, method, guidance, shift, condition_names(use), rule, phases)
        super().__init__(open_networks(weights, (PART,), device, precision=precision))
        self.networks.style_number(PART, style)  # a clear error before anything is made
        self.networks.map_number(PART, map_kind)
        unit = 2 ** (len(self.networks.config(PART).channels) - 1)
        self.window, self.stride = window_lattice(window, stride, WINDOW, unit)
        self.surface = surface

    def cost(self) -> Cost:
        """Return the cost of a column of voxels."""
        return count_cost(self.networks, self.sampling, self.window, self.stride, (PART,), ())

    def stages(self) -> Sequence[Stage]:
        """Return the stages: columns, heights, surface."""
        heights = HeightSampler(
            self.networks,
            self.sampling,
            self.window,
            self.stride,
            style=self.style,
            map_kind=self.map_kind,
        )
        far = SOLID_MARGIN + ROUNDING
        reads = (
            Read(COLUMNS, CROWN_REACH, far + PICTURE_REACH),
            Read(heights.name, CROWN_REACH, far + PICTURE_REACH),
            Read("semantics", CROWN_REACH, far),
        )
        last = Stage(
            "height-flow.surface",
            self.surface + 2 * MARGIN,
            GEOMETRY_FIELDS,
            partial(
                make_surface,
                self.networks,
                heights.name,
                self.sampling.use,
                self.map_kind == "whole",
            ),
            reads,
            self.surface,
        )
        by_object = self.networks.config(PART).state == "object"
        return [columns_stage(by_object), *self.sampling.stages(heights), last]


def make_surface(
    networks: Networks,
    heights: str,
    use: tuple[str, ...],
    whole: bool,
    window: Frame,
    inputs: Inputs,
    noise: Noise,
) -> Block:
    """Return the surface of `window`.

    `use` names the conditions; with "height", the heights of a surface model are taken as they are.
    Nothing stands on open land but what a `whole` map has.
    """
    inner = window.pad(SOLID_MARGIN)
    wide = inner.pad(crown_reach(window.voxel_size))
    outer = wide.pad(PICTURE_REACH if "image" in use else 0)
    around: Block = inputs[COLUMNS].crop(outer)
    height = heights_of_state(inputs[heights].crop(outer), networks, around, use)
    cover = around["cover"]
    height = clear_open_land(cover, height, whole)
    known = known_surface(around, use)
    told = np.isfinite(known)
    height = np.where(told, known, height).astype(np.float32)
    if "image" in use:
        cover = classes_of_picture(cover, around["image"], height)
    height = np.where(told, height, limit_crowns(height, cover, window.voxel_size))
    part = outer.slices(wide)
    layer = semantics_on(inputs, wide)
    columns = columns_from_heights(wide, layer, cover[part], height[part], noise)
    columns = hang_columns(wide, layer, columns).crop(*wide.slices(inner))
    ground = np.ascontiguousarray(around.crop(inner)["ground"])
    return raise_columns(window, inner, ground, columns).block()
