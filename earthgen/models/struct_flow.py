"""StructFM, coarse to fine (Liu et al., AAAI 2026): which cells of L/8 are active, then their
latents."""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen import sparse
from earthgen.errors import ModelError
from earthgen.models.blocks import Down, Projection
from earthgen.models.conditions import Conditions
from earthgen.models.presets import StructCoarseConfig, StructFineConfig, UNetConfig
from earthgen.models.sparse_flow import Objective, SparseFlow
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Place, Sites, distinct, make_sites


class StructCoarse(SparseFlow):
    """The first stage: a flow over all cells of the band towards -1 (empty) and 1 (active).

    The dense grid is a sparse tensor with no cell left out, so the blocks are those of all other
    networks. With a patch of 2 cells the blocks run at half the resolution, as in the paper, and
    origins have to be multiples of 2 * stride voxels; with 1 they run on the cells.
    """

    def __init__(self, config: StructCoarseConfig) -> None:
        width, patch = config.channels, config.patch
        if patch not in (1, 2):
            raise ModelError(f"patches of {patch} cells are not foreseen", "give 1 or 2")
        unet = UNetConfig(channels=(width,), middle=config.middle, blocks=config.blocks)
        super().__init__(
            unet,
            config.condition,
            config.flow,
            stride=config.stride,
            channels=1,
            first=config.stride * patch,
            inputs=width if patch == 2 else 1,
            outputs=width if patch == 2 else 1,
        )
        self.config = config
        self.patchify = Down(1, width) if patch == 2 else None
        self.unpatchify = Projection(width, 8) if patch == 2 else None

    def forward(
        self, state: SparseTensor, time: Tensor, condition: object, step: Tensor | None = None
    ) -> SparseTensor:
        embedded = self.embed(time, step)
        if self.patchify is None or self.unpatchify is None:
            return self.unet(state, embedded, condition)
        found = self.unpatchify(self.unet(self.patchify(state), embedded, condition))
        return sparse.shuffle_up(found).at(state.sites)

    def grid(
        self, place: Place, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> Sites:
        """All cells of a box of (x, y, z) voxels that begins at the origin of each sample.

        Raises ModelError where the box is no whole number of patches.
        """
        size = self.config.stride * self.config.patch
        if any(extent % size or extent < size for extent in shape):
            raise ModelError(
                f"a box of {shape} voxels is no whole number of patches",
                f"give multiples of {size}",
            )
        ranges = [
            torch.arange(len(place.origins)),
            *(torch.arange(extent // self.config.stride) for extent in shape),
        ]
        return make_sites(
            torch.cartesian_prod(*ranges).to(device), stride=self.config.stride, place=place
        )[0]

    def condition(self, conditions: Conditions, grid: Sites) -> list[SparseTensor]:
        """Features of conditions for a grid, for `forward` and `predictor`."""
        return self.cond_net(conditions, [grid if self.config.patch == 1 else grid.parents(2)])

    def flops(self, sites: Sites) -> int:
        """Of products in one evaluation on a grid, without conditions."""
        if self.patchify is None or self.unpatchify is None:
            return self.unet.flops(sites)
        tokens = sites.parents(2)
        return self.patchify.flops(sites) + self.unet.flops(tokens) + self.unpatchify.flops(tokens)


def grid_state(grid: Sites, cells: Sites) -> SparseTensor:
    """(n, 1) float32 on a grid: 1 where a cell is active, else -1. What StructCoarse learns."""
    return SparseTensor(grid, torch.where(cells.rows(grid.coordinates) >= 0, 1.0, -1.0)[:, None])


def active_cells(state: SparseTensor, threshold: float = 0.0) -> Sites:
    """The cells of a sampled grid that are active."""
    return state.sites.select(state.features[:, 0] > threshold)


def coarse_loss(
    model: StructCoarse,
    cells: Sites,
    grid: Sites,
    conditions: Conditions,
    generator: torch.Generator,
    objective: Objective = "flow",
) -> Tensor:
    """The loss of one batch.

    cells : the active cells, such as `StructVAE.encode(...).mean.sites`; grid : all cells
    """
    return model.loss(
        grid_state(grid, cells), model.condition(conditions, grid), generator, objective
    )


class StructFine(SparseFlow):
    """The second stage: a flow over the latents of given cells, and which of the cells stay."""

    def __init__(self, config: StructFineConfig) -> None:
        super().__init__(
            config.unet, config.condition, config.flow, stride=config.stride, channels=config.latent
        )
        self.config = config

    def condition(self, conditions: Conditions, cells: Sites) -> list[SparseTensor]:
        """Features of conditions for cells, for `forward` and `predictor`."""
        return self.cond_net(conditions, self.unet.levels(cells))

    def refined(self, latent: SparseTensor) -> SparseTensor:
        """The cells of a sampled latent that stay: those of which more than half of the channels
        are set.

        A channel is set where it lies further than `threshold` from 0 (0.3 in the paper): cells
        that the dilation of training added have a latent of 0, and true ones one of about unit
        variance.
        """
        set_ = (latent.features.abs() > self.config.threshold).sum(1)
        return latent.prune(2 * set_ > self.channels)

    def flops(self, sites: Sites) -> int:
        """Of products in one evaluation on cells, without conditions."""
        return self.unet.flops(sites)


def dilated(
    cells: Sites, shape: tuple[int, int, int], odds: float, generator: torch.Generator | None = None
) -> Sites:
    """Active cells and some of the six neighbours of each: what a coarse stage that is not perfect
    would give.

    shape : (x, y, z) cells of the box that they stay in
    odds : of each neighbour to be added, drawn from the generator; 1 adds all and needs none

    For training the fine stage, which so learns to find out what is no cell.
    """
    steps = torch.tensor(
        [[0, *step] for step in _NEIGHBOURS], dtype=torch.int32, device=cells.device
    )
    near = (cells.coordinates[:, None] + steps).flatten(0, 1)
    limit = torch.tensor(shape, device=cells.device)
    near = near[((near[:, 1:] >= 0) & (near[:, 1:] < limit)).all(1)]
    fresh = distinct(near, cells.stride, cells.place)
    fresh = fresh.select(cells.rows(fresh.coordinates) < 0)
    if generator is not None:
        drawn = torch.rand(len(fresh), generator=generator, device=generator.device).to(
            cells.device
        )
        fresh = fresh.select(drawn < odds)
    return make_sites(
        torch.cat([cells.coordinates, fresh.coordinates]), stride=cells.stride, place=cells.place
    )[0]


_NEIGHBOURS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def fine_loss(
    model: StructFine,
    latent: SparseTensor,
    conditions: Conditions,
    generator: torch.Generator,
    objective: Objective = "flow",
    *,
    cells: Sites | None = None,
) -> Tensor:
    """The loss of one batch.

    latent : normalised (`StructVAE.statistics.normalised`), at the active cells
    cells : more cells, of `dilated`, whose latent is to be 0
    """
    data = latent if cells is None else latent.at(cells)
    return model.loss(data, model.condition(conditions, data.sites), generator, objective)
