"""What the flow on height maps is given in training: land cover, image, surface model, woods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.models.conditions import CONDITIONS
from earthgen.models.height_flow import HeightCondition, HeightFlow
from earthgen.models.height_state import EDGE_UNIT, wood_table
from earthgen.models.presets import HIDDEN, MAPS
from earthgen.models.roofs import fitted_drop
from earthgen.training.batches import Batch
from earthgen.training.map_noise import LandMap

WOOD_BLOCK = 32.0
"""Metres of a square in which a wood has one height, where it does not have one in a whole crop."""

WOOD_QUANTILE = 0.9
"""A wood's height is this quantile of the heights of its columns: crowns, not gaps."""


@dataclass(frozen=True)
class Given:
    """What is known of the columns of a batch, before a part of it is hidden.

    Attributes
    ----------
    land : LandMap
        The map.
    objects : Tensor (batch, OBJECT_MAPS, ny, nx) float32
        Of `earthgen.models.height_state.object_maps`.
    roof : Tensor (batch, ny, nx) float32
        How far told roofs lie below the heights of their buildings, metres, NaN where none is told.
    ground : Tensor (batch, ny, nx) float32
        Metres.
    style : Tensor (batch,) int64
        Numbers of styles, 0 for any.
    map_kind : Tensor (batch,) int64
        Numbers of kinds of maps, 0 for any.
    image : Tensor (batch, 3, ny, nx) float32
        sRGB in [0, 1], NaN unknown.
    surface : Tensor (batch, ny, nx) float32
        Known heights above the ground, metres, NaN unknown.
    """

    land: LandMap
    objects: Tensor
    roof: Tensor
    ground: Tensor
    style: Tensor
    map_kind: Tensor
    image: Tensor
    surface: Tensor

    def condition(self, model: HeightFlow, present: Tensor, voxel_size: float) -> HeightCondition:
        """Return the condition of a network.

        Parameters
        ----------
        model : HeightFlow
            The network.
        present : Tensor (batch, 3) bool
            Conditions that are not hidden, in the order of `CONDITIONS`. Heights and shapes of
            buildings belong to the land cover.
        voxel_size : float
            Metres.
        """
        mapped, high, seen = (
            present[:, CONDITIONS.index(name), None, None].to(self.ground.device)
            for name in ("semantics", "height", "image")
        )
        land = self.land
        return model.condition(
            torch.where(mapped, land.cover.long(), HIDDEN),
            self.ground,
            voxel_size,
            told=torch.where(mapped, land.told, 0.0),
            roof=torch.where(mapped, self.roof, torch.nan),
            objects=torch.where(mapped[:, None], self.objects, 0.0),
            style=self.style,
            map_kind=torch.where(mapped[:, 0, 0], self.map_kind, 0),
            image=torch.where(seen[:, None], self.image, torch.nan),
            surface=torch.where(high, self.surface, torch.nan),
        )


def map_kinds(land: LandMap) -> Tensor:
    """Return the numbers of the kinds of the maps of a batch (`MAPS`), (batch,) int64."""
    return torch.where(land.gaps, 1 + MAPS.index("gaps"), 1 + MAPS.index("whole"))


def true_roofs(batch: Batch, land: LandMap, objects: Tensor) -> Tensor:
    """Return the roofs that fit the buildings of a map best, as of `Given.roof`."""
    known = land.axes[..., 3] > 0
    across = torch.where(known, land.axes[..., 1], -1.0)
    edge = EDGE_UNIT * objects[:, 0]
    return fitted_drop(batch.height, land.told, land.building, batch.valid, across, edge)


def only(batch: Batch, *names: str) -> Tensor:
    """Return for `Given.condition` that these conditions are given to all samples of a batch."""
    row = torch.tensor([name in names for name in CONDITIONS], device=batch.height.device)
    return row.expand(len(batch), -1)


def wood_heights(
    height: Tensor, cover: Tensor, voxel_size: float, generator: torch.Generator
) -> Tensor:
    """Return the heights of woods, as a map of forest stands tells them.

    In half of the samples each square of `WOOD_BLOCK` has a height of its own, in the others all
    woods of the sample have one.

    Parameters
    ----------
    height : Tensor (batch, ny, nx) float32
        Metres above the ground.
    cover : Tensor (batch, ny, nx)
        Class codes.
    voxel_size : float
        Metres.
    generator : torch.Generator
        Draws which.

    Returns
    -------
    Tensor (batch, ny, nx) float32
        Metres, 0 outside of woods.
    """
    batch, ny, nx = height.shape
    wood = torch.from_numpy(wood_table()).to(height.device)[cover.long()]
    tops = torch.where(wood, height, torch.nan)
    cells = max(round(WOOD_BLOCK / voxel_size), 1)
    rows, cols = -(-ny // cells), -(-nx // cells)
    padding = (0, cols * cells - nx, 0, rows * cells - ny)
    padded = torch.nn.functional.pad(tops, padding, value=torch.nan)
    squares = padded.view(batch, rows, cells, cols, cells).permute(0, 1, 3, 2, 4).flatten(3)
    local = squares.nanquantile(WOOD_QUANTILE, dim=3)
    local = local.repeat_interleave(cells, 1).repeat_interleave(cells, 2)[:, :ny, :nx]
    whole = tops.flatten(1).nanquantile(WOOD_QUANTILE, dim=1)[:, None, None]
    random = torch.rand(batch, 1, 1, generator=generator, device=generator.device)
    return torch.where(wood, torch.where(random < 0.5, local, whole), 0.0)


def part_of_surface(height: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
    """Return heights as of a surface model that covers a part of each sample.

    The part is one side of a line, a rectangle, or all but a rectangle.

    Parameters
    ----------
    height : Tensor (batch, ny, nx) float32
        Metres above the ground.
    valid : Tensor (batch, ny, nx) bool
        Where they are known.
    generator : torch.Generator
        Draws the parts.

    Returns
    -------
    Tensor (batch, ny, nx) float32
        Metres, NaN outside of the part.
    """
    batch, ny, nx = height.shape
    random = torch.rand(6, batch, 1, 1, generator=generator, device=generator.device)
    y = torch.arange(ny, device=height.device)[:, None] - random[0] * ny
    x = torch.arange(nx, device=height.device) - random[1] * nx
    angle = random[2] * 2 * torch.pi
    side = y * angle.sin() + x * angle.cos() > 0
    box = (y.abs() < (0.1 + 0.4 * random[3]) * ny) & (x.abs() < (0.1 + 0.4 * random[4]) * nx)
    part = torch.where(random[5] < 0.5, side, torch.where(random[5] < 0.75, box, ~box))
    return torch.where(part & valid, height, torch.nan)
