"""TexFM: a flow of the texture of given voxels (after Liu et al., AAAI 2026).

The state of a voxel is TexVAE's latent, as in the paper, or its colour itself, normalised.

Colour belongs to objects: a roof has one, its walls have another. So the network may be told the
colour of the part of the object that a voxel belongs to. Training takes it from the truth
(`object_colours`); worlds take it from a palette (`earthgen.voxels.draw_object_colours`). What a
roof looks like beyond its colour is the flow's: with `by_object`, the state of a voxel whose colour
is told is the difference from it, as heights are differences from the height of their building
(`earthgen.models.height_state`). A roof's few hundredths of grain are then as visible to a network
as the windows of a wall.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen.models.blocks import lookup_table
from earthgen.models.conditions import Conditions
from earthgen.models.latents import Statistics
from earthgen.models.presets import TexFlowConfig
from earthgen.models.sparse_flow import SparseFlow
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.terrain.cover import surface_table
from earthgen.voxels.object_colours import CROWN, OTHER, ROOF, WALL
from geo_io.legend import codes

TOLD = 4
"""Channels of a told colour: red, green, blue, and whether it is known."""

LEVEL = 0.3
"""Upward part of a normal from which on the top of a building is a roof."""

LEAST_SPREAD = 0.02
"""Smallest scale of the differences from told colours."""

LEAST_SEEN = 3
"""Voxels of known colour that a part of an object needs for a colour of its own."""

MOTTLED = 0.1
"""Largest spread of a roof that has one colour. What a surface model takes for one building may be
a row of roofs, or a roof half under a tree: no map tells the colour of such a thing."""


class TexFlow(SparseFlow):
    """The flow: a sparse U-Net from L to L/8.

    It has conditions at every scale; class, normal and told colour at the first. A flow of colours
    has the mean and deviation of the colours of its training as `statistics`, and with `by_object`
    the deviation from the told colour of each part of objects by style as `spread`: real roofs are
    several times as uneven as those of the rules.
    """

    spread: Tensor

    def __init__(self, config: TexFlowConfig) -> None:
        super().__init__(
            config.unet,
            config.condition,
            config.flow,
            stride=1,
            channels=config.channels,
            styles=config.styles,
        )
        self.config = config
        width = config.unet.channels[0]
        self.semantic = lookup_table(config.classes, width) if config.classes else None
        self.normal = nn.Linear(4, width)
        self.told = nn.Linear(TOLD, width) if config.told else None
        self.statistics = Statistics(3) if config.target == "rgb" else None
        self.by_object = config.by_object and config.target == "rgb"
        if self.by_object:
            self.register_buffer("spread", torch.ones(config.styles + 1, 4))

    def condition(
        self,
        conditions: Conditions,
        sites: Sites,
        semantic: Tensor | None = None,
        normal: Tensor | None = None,
        told: Tensor | None = None,
    ) -> list[SparseTensor]:
        """Return features of conditions for voxels, for `forward` and `predictor`.

        Parameters
        ----------
        conditions : Conditions
            Conditions of the batch.
        sites : Sites
            The n voxels.
        semantic : Tensor (n,) int, optional
            Class codes of the voxels; None is unknown.
        normal : Tensor (n, 3) float, optional
            Unit normals; None is unknown.
        told : Tensor (n, TOLD) float, optional
            Of `told_features`; None is unknown. Networks without this input ignore it.
        """
        features = self.cond_net(conditions, self.unet.levels(sites))
        normals = torch.zeros(len(sites), 4, device=sites.device)
        if normal is not None:
            normals = torch.cat([normal.float(), torch.ones_like(normals[:, :1])], 1)
        side = self.normal(normals)
        if self.semantic is not None:
            codes = torch.zeros(len(sites), dtype=torch.int64, device=sites.device)
            side = side + self.semantic(codes if semantic is None else semantic.long())
        if self.told is not None:
            colours = torch.zeros(len(sites), TOLD, device=sites.device) if told is None else told
            side = side + self.told(colours)
        return [features[0].with_features(features[0].features + side), *features[1:]]

    def reset_buffers(self) -> None:
        """Set all spreads to 1."""
        if self.by_object:
            self.spread.fill_(1)

    def colour_scales(
        self, told: Tensor | None, part: Tensor | None, style: Tensor | None = None
    ) -> ColourScales:
        """Return centre and scale of the state of voxels, for a flow of colours.

        Parameters
        ----------
        told : Tensor (n, TOLD), optional
            Told colours, as of `condition`.
        part : Tensor (n,) int64, optional
            As of `object_parts`.
        style : Tensor (n,) int64, optional
            Numbers of styles, 0 for any, which None is.
        """
        assert self.statistics is not None, "a flow of latents"
        centre, scale = self.statistics.mean, self.statistics.deviation
        if not self.by_object or told is None or part is None:
            return ColourScales(centre, scale)
        known = told[:, 3:] > 0
        row = torch.zeros_like(part) if style is None else style
        return ColourScales(
            torch.where(known, (told[:, :3] + 2) / 4, centre),
            torch.where(known, self.spread[row, part, None], scale),
        )

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of one evaluation on voxels, without conditions."""
        return self.unet.flops(sites)


@dataclass(frozen=True)
class ColourScales:
    """Centre and scale of the state of a flow of colours, made by `TexFlow.colour_scales`.

    Attributes
    ----------
    centre, scale : Tensor (n, 3) or (3,), Tensor (n, 1) or (3,)
        In units of a colour in [0, 1].
    """

    centre: Tensor
    scale: Tensor

    def to_state(self, rgb: SparseTensor) -> SparseTensor:
        """Return the state of (n, 3) colours in [0, 1]."""
        return rgb.with_features((rgb.features - self.centre) / self.scale)

    def to_colours(self, state: SparseTensor) -> Tensor:
        """Return the (n, 3) colours in [0, 1] of a state."""
        return (state.features.float() * self.scale + self.centre).clamp(0, 1)


@functools.cache
def _plants() -> Tensor:
    """Which class codes are plants that can have a crown, (256,) bool."""
    return torch.from_numpy(surface_table("wood", "tree", "shrub"))


def object_parts(sites: Sites, semantic: Tensor, normal: Tensor, objects: Tensor) -> Tensor:
    """Return which part of its object each voxel belongs to.

    Parameters
    ----------
    sites : Sites
        The n voxels.
    semantic : Tensor (n,) uint8
        Class codes.
    normal : Tensor (n, 3) float32
        Unit normals in ground-relative space.
    objects : Tensor (n,) int64
        Numbers of objects, 0 for none.

    Returns
    -------
    Tensor (n,) int64
        `ROOF`, `WALL`, `CROWN` or `OTHER` of `earthgen.voxels`.
    """
    above = torch.tensor([0, 0, 0, 1], dtype=torch.int32, device=sites.device)
    top = (sites.rows(sites.coordinates + above) < 0) & (normal[:, 2] > LEVEL)
    building = semantic == codes()["building"]
    plant = _plants().to(sites.device)[semantic.long()]
    part = torch.where(building, torch.where(top, ROOF, WALL), torch.where(plant, CROWN, OTHER))
    return torch.where(objects > 0, part, OTHER)


@dataclass(frozen=True)
class ObjectColours:
    """The colours of the parts of objects.

    Attributes
    ----------
    group : Tensor (n,) int64
        Number of the part of an object that a voxel belongs to.
    colour : Tensor (groups, 3) float32
        Medians of the seen colours by channel, in [0, 1].
    known : Tensor (groups,) bool
        False for what belongs to no object, where too little was seen, and for roofs of many
        colours (`MOTTLED`).
    sample : Tensor (groups,) int64
        Sample of the batch.
    part : Tensor (groups,) int64
        As of `object_parts`.
    """

    group: Tensor
    colour: Tensor
    known: Tensor
    sample: Tensor
    part: Tensor


def object_colours(
    sites: Sites, objects: Tensor, part: Tensor, rgb: Tensor, seen: Tensor
) -> ObjectColours:
    """Return the colour of each part of each object of a batch.

    Parameters
    ----------
    sites : Sites
        The n voxels.
    objects, part : Tensor (n,) int64
        Numbers of objects, and the parts of them (`object_parts`).
    rgb : Tensor (n, 3) float32
        Colours in [0, 1].
    seen : Tensor (n,) bool
        Where the colour is known.
    """
    owner = torch.where(part == OTHER, 0, objects.long() * 4 + part)
    keys, group = torch.unique(sites.coordinates[:, 0].long() * 2**36 + owner, return_inverse=True)
    count = torch.bincount(group[seen], minlength=len(keys))
    # Of the seen voxels of a group, sorted by value, the middle one.
    middle = (count.cumsum(0) - count + (count - 1).clamp(min=0) // 2).clamp(
        max=max(int(seen.sum()) - 1, 0)
    )
    colour = rgb.new_zeros(len(keys), 3, dtype=torch.float32)
    if bool(seen.any()):
        values, of = rgb[seen].float(), group[seen]
        for channel in range(3):
            order = values[:, channel].argsort(stable=True)
            order = order[of[order].argsort(stable=True)]
            colour[:, channel] = values[order, channel][middle]
    of_key = keys % 2**36
    away = rgb.float().sub(colour[group]).square().mean(1)[seen]
    spread = away.new_zeros(len(keys)).index_add_(0, group[seen], away).div(count.clamp(min=1))
    mottled = (of_key % 4 == ROOF) & (spread > MOTTLED**2)
    known = (count >= LEAST_SEEN) & (of_key > 0) & ~mottled
    return ObjectColours(group, colour, known, keys // 2**36, of_key % 4)


def told_features(rgb: Tensor, known: Tensor) -> Tensor:
    """Return the input of the network for told colours.

    Parameters
    ----------
    rgb : Tensor (n, 3) float32
        Colours in [0, 1].
    known : Tensor (n,) bool
        Where a colour is told.

    Returns
    -------
    Tensor (n, TOLD) float32
    """
    flag = known[:, None].float()
    return torch.cat([(rgb.float() * 4 - 2) * flag, flag], 1)


def colour_spread(rgb: Tensor, group: Tensor, counted: Tensor) -> Tensor:
    """Return how much colours differ within groups.

    Parameters
    ----------
    rgb : Tensor (n, 3) float32
        Colours in [0, 1].
    group : Tensor (n,) int64
        Groups of the voxels.
    counted : Tensor (n,) bool
        Voxels that count.

    Returns
    -------
    Tensor () float32
        The standard deviation from the means of the groups, over all channels; 0 without voxels.
    """
    if not bool(counted.any()):
        return rgb.new_zeros(())
    values = deviations(rgb, group, counted)
    return values.square().mean().sqrt()


def deviations(rgb: Tensor, group: Tensor, counted: Tensor) -> Tensor:
    """Return the differences of the counted colours from the means of their groups, (m, 3)."""
    values, of = rgb[counted].float(), group[counted]
    groups = int(of.max()) + 1
    count = torch.bincount(of, minlength=groups).clamp(min=1)[:, None]
    mean = values.new_zeros(groups, 3).index_add_(0, of, values) / count
    return values - mean[of]


def tex_flow_loss(
    model: TexFlow,
    state: SparseTensor,
    conditions: Conditions,
    generator: torch.Generator,
    *,
    semantic: Tensor | None = None,
    normal: Tensor | None = None,
    told: Tensor | None = None,
    style: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the loss of one batch.

    Parameters
    ----------
    model : TexFlow
        The network.
    state : SparseTensor (n, channels)
        Latents, normalised (`TexVAE.statistics.normalised`), or colours (`ColourScales.to_state`).
    conditions : Conditions
        Conditions of the batch.
    generator : torch.Generator
        Draws times and noise.
    semantic, normal, told
        As of `TexFlow.condition`.
    style : Tensor (batch,), optional
        Numbers of styles, 0 for any.
    weight : Tensor (n,), optional
        Weight of each voxel, such as 0 if its colour was not seen.
    """
    features = model.condition(conditions, state.sites, semantic, normal, told)
    return model.loss(
        state,
        features,
        generator,
        weight=None if weight is None else weight[:, None],
        style=style,
    )
