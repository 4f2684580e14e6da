"""CondNet: conditions as features of voxels, at every scale of a flow.

The paper places a semantic map on a plane at a dummy depth and repeats it along z with a positional
encoding. Here the plane is the ground, and z is the height above it in metres. A height map becomes
the signed distance of each voxel to the top of its column. Where image and heights are both known,
the voxels of the surface get the colours of the image, as of the paper's image with depth (RGBD).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen.errors import ModelError
from earthgen.models.blocks import TOWER, Chain, Down, Projection, encode_heights, lookup_table
from earthgen.models.conditions import CONDITIONS, Conditions
from earthgen.models.presets import CLASSES, HIDDEN, CondConfig
from earthgen.sparse.attention import CrossAttention
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sampling import interpolate, pool
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor

CENTRE, SPREAD = 1.0, 1.2
"""Mean and deviation of log(1 + metres), as in `HeightFlowConfig`."""

SIGNED = 5
"""Channels of the signed distance of a voxel to a height map."""


class CondNet(nn.Module):
    """The network that turns conditions into features.

    Parameters
    ----------
    config : CondConfig
        Configuration.
    strides : sequence of int
        Strides of the flow's levels, finest first, powers of two.
    outputs : sequence of int
        Channels of the flow's levels.
    """

    def __init__(self, config: CondConfig, strides: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        widths, blocks = config.channels, config.blocks
        if strides[-1] > 2 ** (len(widths) - 1):
            raise ModelError(
                f"CondNet's plane ends at stride {2 ** (len(widths) - 1)}, "
                f"the flow's levels at {strides[-1]}",
                "configure more levels of the plane",
            )
        self.semantic = lookup_table(CLASSES + config.hidden_token, widths[0])
        self.maps = nn.Linear(6, widths[0])
        self.chains = nn.ModuleList(
            Chain(kinds, width, blocks, flat=True)
            for kinds, width in zip(config.plane, widths, strict=True)
        )
        self.halving = nn.ModuleList(Down(a, b) for a, b in pairwise(widths))
        planes = [widths[stride.bit_length() - 1] for stride in strides]
        self.lift = nn.ModuleList(
            Projection(plane + config.heights + SIGNED, out)
            for plane, out in zip(planes, outputs, strict=True)
        )
        self.out = nn.ModuleList(Projection(out, out) for out in outputs)
        pairs = list(zip(planes, outputs, strict=True))
        tower = {"window": (blocks.window, blocks.window, TOWER), "shift": (0, 0, TOWER // 2)}
        self.cross = nn.ModuleList(
            CrossAttention(out, plane, max(out // blocks.head, 1), **tower, rotary=True)
            for plane, out in pairs
            if config.cross
        )
        self.norms = nn.ModuleList(LayerNorm(out) for out in outputs if config.cross)
        self.colours = nn.ModuleList(Projection(4, out) for out in outputs if config.voxels)
        self.look = nn.ModuleList(
            CrossAttention(out, 4, max(out // blocks.head, 1), blocks.window, rotary=True)
            for out in outputs
            if config.cross and config.voxels
        )

    def forward(self, conditions: Conditions, sites: Sequence[Sites]) -> list[SparseTensor]:
        """Return features at the sites of each of the flow's levels.

        Parameters
        ----------
        conditions : Conditions
            Conditions on the columns of the batch.
        sites : sequence of Sites
            Sites of the flow's levels, finest first.

        Raises
        ------
        ModelError
            If the number of columns is no multiple of the plane's coarsest stride.
        SparseError
            If conditions and sites lie in different places.
        """
        conditions.place.check_same(sites[0].place)
        self._check(conditions)
        planes = self.plane(conditions, sites[0].device)
        features = []
        for level, (stride, there) in enumerate(zip(self.strides, sites, strict=True)):
            plane = planes[stride.bit_length() - 1]
            # A voxel's column on the plane, which lies at z = 0 of every sample.
            points = there.coordinates.double() + 0.5
            points[:, 0] -= 0.5
            points[:, 3] = 0.5
            under = interpolate(plane, points)
            above = torch.cat(
                [
                    encode_heights(there, self.config.heights),
                    self._signed_distance(conditions, there, stride),
                ],
                1,
            )
            lifted = self.lift[level](
                SparseTensor(there, torch.cat([under, above.to(under.dtype)], 1))
            )
            x = self.out[level](lifted.with_features(nn.functional.gelu(lifted.features)))
            if self.config.cross:
                x = x + self.cross[level](self.norms[level](x), plane)
            features.append(x)
        return self._add_colours(conditions, features) if self.config.voxels else features

    def plane(self, conditions: Conditions, device: torch.device) -> list[SparseTensor]:
        """Return features of the columns at strides 1, 2, 4, ..., as voxels at z = 0."""
        sites = columns(conditions.place, conditions.shape, device)
        codes = _codes(conditions, HIDDEN if self.config.hidden_token else 0, device)
        x = SparseTensor(sites, self.semantic(codes) + self.maps(_maps(conditions, device)))
        planes = [self.chains[0](x)]
        for halve, chain in zip(self.halving, list(self.chains)[1:], strict=True):
            planes.append(chain(halve(planes[-1])))
        return planes

    def _signed_distance(self, conditions: Conditions, sites: Sites, stride: int) -> Tensor:
        """Return signed distances to the column's top at several scales, and the known share.

        The result is (n, 5) float32.
        """
        if conditions.height is None or not len(sites):
            return torch.zeros(len(sites), SIGNED, device=sites.device)
        shown = conditions.shown(sites.device)[:, CONDITIONS.index("height"), None, None]
        height = conditions.height.to(sites.device).float()
        known = (height.isfinite() & shown).float()
        height = torch.where(known > 0, height, 0)
        share = nn.functional.avg_pool2d(known[:, None], stride)
        mean = nn.functional.avg_pool2d(height[:, None], stride) / share.clamp(min=1e-6)
        top = nn.functional.max_pool2d(height[:, None], stride)
        sample, x, y, _ = sites.coordinates.long().unbind(1)
        row = mean.shape[2] - 1 - y
        mean, top, share = (one[sample, 0, row, x] for one in (mean, top, share))
        centre = sites.centres()[:, 2].float()
        cell = stride * sites.place.voxel_size
        near, far = (centre - mean) / cell, (centre - mean) / (8 * cell)
        signed = torch.stack(
            [near.tanh(), far.tanh(), ((centre - top) / cell).tanh(), near.abs().neg().exp()], 1
        )
        return torch.cat([signed * (share > 0)[:, None], share[:, None]], 1)

    def _add_colours(
        self, conditions: Conditions, features: list[SparseTensor]
    ) -> list[SparseTensor]:
        """Add the colours of the surface, where image and heights are known."""
        device = features[0].features.device
        colours = surface_colours(conditions, device)
        ones = torch.ones(len(colours), 1, device=device)
        x = colours.with_features(torch.cat([colours.features * 2 - 1, ones], 1))
        results, stride = [], 1
        for level, (there, target) in enumerate(zip(features, self.strides, strict=True)):
            while stride < target:
                x = pool(x, Kernel((2, 2, 2), (2, 2, 2)), "mean")
                stride *= 2
            there = there + self.colours[level](x.at(there.sites))
            if self.config.cross:
                there = there + self.look[level](there, x)
            results.append(there)
        return results

    def _check(self, conditions: Conditions) -> None:
        coarsest = 2 ** len(self.halving)
        if conditions.shape[0] % coarsest or conditions.shape[1] % coarsest:
            raise ModelError(
                f"conditions on {conditions.shape[0]} x {conditions.shape[1]} columns "
                f"cannot be halved {len(self.halving)} times",
                f"give multiples of {coarsest} columns",
            )

    def flops(self, shape: tuple[int, int], sites: Sequence[Sites]) -> int:
        """Return the floating-point operations of products, cross-attention included.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of one sample.
        sites : sequence of Sites
            Sites of the flow's levels.
        """
        there = columns(Place(), shape)
        total, planes = 0, [there]
        for level, chain in enumerate(self.chains):
            total += chain.flops(planes[-1])  # type: ignore[operator]
            if level < len(self.halving):
                total += self.halving[level].flops(planes[-1])  # type: ignore[operator]
                planes.append(planes[-1].parents(2))
        total += 2 * len(there) * 6 * self.maps.out_features
        for level, where in enumerate(sites):
            total += self.lift[level].flops(where) + self.out[level].flops(where)  # type: ignore[operator]
            if self.config.cross:
                width, context = self.cross[level].channels, self.cross[level].context
                plane = planes[self.strides[level].bit_length() - 1]
                window = self.config.blocks.window**2
                total += 4 * len(where) * width * width + 4 * len(plane) * context * width  # type: ignore[operator]
                total += 4 * len(where) * window * width  # type: ignore[operator]
        return total


def columns(place: Place, shape: tuple[int, int], device: torch.device | str = "cpu") -> Sites:
    """Return all columns of a batch as voxels at z = 0, in rows (sample * nx + x) * ny + y."""
    ny, nx = shape
    ranges = (
        torch.arange(len(place.origins)),
        torch.arange(nx),
        torch.arange(ny),
        torch.zeros(1, dtype=torch.int64),
    )
    return make_sites(torch.cartesian_prod(*ranges).to(device), place=place)[0]


def by_column(maps: Tensor) -> Tensor:
    """Reshape (batch, channels, ny, nx) to (batch * nx * ny, channels), as `columns` orders it."""
    return maps.flip(2).permute(0, 3, 2, 1).flatten(0, 2)


def surface_colours(conditions: Conditions, device: torch.device) -> SparseTensor:
    """Return the colours of the topmost voxels where image and heights are both known and shown.

    Colours are in [0, 1]. A top below the band of the samples has no voxel.
    """
    if conditions.image is None or conditions.height is None:
        none = torch.zeros(0, 4, dtype=torch.int32, device=device)
        sites, _ = make_sites(none, place=conditions.place)
        return SparseTensor(sites, torch.zeros(0, 3, device=device))
    shown = conditions.shown(device)
    height = conditions.height.to(device).float()
    image = conditions.image.to(device).float()
    both = shown[:, CONDITIONS.index("height")] & shown[:, CONDITIONS.index("image")]
    known = both[:, None, None] & height.isfinite() & image.isfinite().all(1)
    sample, row, x = known.nonzero(as_tuple=True)
    place = conditions.place
    low = torch.tensor([origin[2] for origin in place.origins], device=device)
    # The solid voxel below the top; bare ground is the voxel below height 0.
    level = (height[known] / place.voxel_size).round().long() - 1 - low[sample]
    inside = level >= 0
    sample, row, x, level = (each[inside] for each in (sample, row, x, level))
    y = conditions.shape[0] - 1 - row
    rows = torch.stack([sample, x, y, level], 1).int()
    colours = image.permute(0, 2, 3, 1)[known][inside]
    sites, order = make_sites(rows, place=place)
    return SparseTensor(sites, colours[order])


def _codes(conditions: Conditions, hidden: int, device: torch.device) -> Tensor:
    """Return class codes, (columns,) int64, and `hidden` where they are hidden."""
    batch, (ny, nx) = len(conditions.place.origins), conditions.shape
    if conditions.semantics is None:
        return torch.full((batch * ny * nx,), hidden, dtype=torch.int64, device=device)
    shown = conditions.shown(device)[:, CONDITIONS.index("semantics"), None, None]
    codes = conditions.semantics.to(device).long()
    if bool(((codes < 0) | (codes >= CLASSES)).any()):
        raise ModelError(
            "the semantic condition has unknown class codes", "give 0 to 25; 0 is unmapped"
        )
    return by_column(torch.where(shown, codes, hidden)[:, None])[:, 0]


def _maps(conditions: Conditions, device: torch.device) -> Tensor:
    """Return height and image, each with a mask and 0 where unknown, (columns, 6) float32."""
    batch, (ny, nx) = len(conditions.place.origins), conditions.shape
    shown = conditions.shown(device)
    height = torch.zeros(batch, 2, ny, nx, device=device)
    if conditions.height is not None:
        given = conditions.height.to(device).float()[:, None]
        known = given.isfinite() & shown[:, CONDITIONS.index("height"), None, None, None]
        scaled = (torch.log1p(given.clamp(min=0)) - CENTRE) / SPREAD
        height = torch.cat([torch.where(known, scaled, 0), known.float()], 1)
    image = torch.zeros(batch, 4, ny, nx, device=device)
    if conditions.image is not None:
        given = conditions.image.to(device).float()
        known = (
            given.isfinite().all(1, keepdim=True)
            & shown[:, CONDITIONS.index("image"), None, None, None]
        )
        image = torch.cat([torch.where(known, given * 2 - 1, 0), known.float()], 1)
    return by_column(torch.cat([height, image], 1))
