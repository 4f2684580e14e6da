"""StructFM, coarse to fine (Liu et al., AAAI 2026): which cells of L/8 are active, then their
latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from earthgen.errors import ModelError
from earthgen.models.blocks import Down, Projection
from earthgen.models.conditions import CONDITIONS, Conditions
from earthgen.models.presets import StructCoarseConfig, StructFineConfig, UNetConfig
from earthgen.models.sparse_flow import SparseFlow
from earthgen.sparse.sampling import shuffle_up
from earthgen.sparse.sites import Place, Sites, distinct_sites, make_sites
from earthgen.sparse.tensor import SparseTensor

SKY = 2
"""Cells above the heights that may be active."""


class StructCoarse(SparseFlow):
    """The first stage: a flow over all cells of the band towards -1 (empty) and 1 (active).

    The dense grid is a sparse tensor of all cells, so the blocks are those of the other networks.
    With a patch of 2 cells the blocks run at half the resolution, as in the paper, and origins are
    multiples of 2 * stride voxels; with 1 they run on the cells.
    """

    def __init__(self, config: StructCoarseConfig) -> None:
        width, patch = config.channels, config.patch
        if patch not in (1, 2):
            raise ModelError(f"patches of {patch} cells are not supported", "give 1 or 2")
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
            styles=config.styles,
        )
        self.config = config
        self.patchify = Down(1, width) if patch == 2 else None
        self.unpatchify = Projection(width, 8, full=True) if patch == 2 else None

    def forward(
        self, state: SparseTensor, time: Tensor, condition: object, style: Tensor | None = None
    ) -> SparseTensor:
        """Return the flow's prediction, as `SparseFlow.forward`."""
        embedded = self.embedded(time, style)
        if self.patchify is None or self.unpatchify is None:
            return self.unet(state, embedded, condition)
        with torch.autocast(state.features.device.type, enabled=False):
            patches = self.patchify(state)
        patches = self.unpatchify(self.unet(patches, embedded, condition))
        return shuffle_up(patches).at(state.sites)

    def grid(
        self, place: Place, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> Sites:
        """Return all cells of a box of (x, y, z) voxels at the origin of each sample.

        Raises
        ------
        ModelError
            If the box is no whole number of patches.
        """
        size = self.config.stride * self.config.patch
        if any(extent % size or extent < size for extent in shape):
            raise ModelError(
                f"a box of {shape} voxels is not a whole number of patches",
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
        """Return features of conditions for a grid, for `forward` and `predictor`."""
        return self.cond_net(conditions, [grid if self.config.patch == 1 else grid.parents(2)])

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of one evaluation on a grid, without conditions."""
        if self.patchify is None or self.unpatchify is None:
            return self.unet.flops(sites)
        tokens = sites.parents(2)
        return self.patchify.flops(sites) + self.unet.flops(tokens) + self.unpatchify.flops(tokens)


def cells_near_heights(grid: Sites, conditions: Conditions, patch: int = 1) -> Tensor:
    """Return which cells may be active: not those far above the heights or below the ground.

    Where heights are a condition, most of the band is sky, which need not be computed.

    Parameters
    ----------
    grid : Sites
        The n cells.
    conditions : Conditions
        Of the columns. Samples without heights keep all cells, and so do columns near an unknown
        height.
    patch : int
        Cells along an edge of what the network works on, all or none of which are kept.

    Returns
    -------
    Tensor (n,) bool
    """
    if conditions.height is None:
        return torch.ones(len(grid), dtype=torch.bool, device=grid.device)
    stride, unit = grid.stride[0], grid.stride[0] * patch
    known = conditions.shown(grid.device)[:, CONDITIONS.index("height")]
    height = conditions.height.to(grid.device)
    top = torch.where(height.isfinite() & known[:, None, None], height, torch.inf)[:, None]
    # The highest of a column of cells and of the eight around it, which lean over.
    top = functional.max_pool2d(functional.max_pool2d(top, unit), 3, 1, 1)
    sample, x, y, z = grid.coordinates.long().unbind(1)
    above = top[sample, 0, top.shape[2] - 1 - y // patch, x // patch] / grid.place.voxel_size
    bottom = torch.tensor([origin[2] for origin in grid.place.origins], device=grid.device)
    low = bottom[sample] + z // patch * unit
    return above.isinf() | ((low < above + SKY * stride) & (low + unit > -2 * stride))


def grid_state(grid: Sites, cells: Sites) -> SparseTensor:
    """Return the data of StructCoarse: 1 for active cells, else -1, (n, 1) float32."""
    return SparseTensor(grid, torch.where(cells.rows(grid.coordinates) >= 0, 1.0, -1.0)[:, None])


def active_cells(state: SparseTensor, threshold: float = 0.0) -> Sites:
    """Return the active cells of a sampled grid."""
    return state.sites.select(state.features[:, 0] > threshold)


def coarse_loss(
    model: StructCoarse,
    cells: Sites,
    grid: Sites,
    conditions: Conditions,
    generator: torch.Generator,
    style: Tensor | None = None,
) -> Tensor:
    """Return the loss of one batch.

    Parameters
    ----------
    model : StructCoarse
        The network.
    cells, grid : Sites
        The active cells, such as `StructVAE.encode(...).mean.sites`, and all cells.
    conditions : Conditions
        Conditions of the batch.
    generator : torch.Generator
        Draws times and noise.
    style : Tensor (batch,), optional
        Numbers of styles, 0 for any.
    """
    return model.loss(
        grid_state(grid, cells), model.condition(conditions, grid), generator, style=style
    )


class StructFine(SparseFlow):
    """The second stage: a flow over the latents of given cells, which also prunes the cells."""

    def __init__(self, config: StructFineConfig) -> None:
        super().__init__(
            config.unet,
            config.condition,
            config.flow,
            stride=config.stride,
            channels=config.latent,
            styles=config.styles,
        )
        self.config = config

    def condition(self, conditions: Conditions, cells: Sites) -> list[SparseTensor]:
        """Return features of conditions for cells, for `forward` and `predictor`."""
        return self.cond_net(conditions, self.unet.levels(cells))

    def refined(self, latent: SparseTensor) -> SparseTensor:
        """Keep the cells of a sampled latent of which more than half of the channels are set.

        A channel is set if its absolute value is above `threshold` (0.3 in the paper): cells that
        training added by dilation have a latent of 0, true ones one of about unit variance.
        """
        n_set = (latent.features.abs() > self.config.threshold).sum(1)
        return latent.prune(2 * n_set > self.channels)

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of one evaluation on cells, without conditions."""
        return self.unet.flops(sites)


def dilate_cells(
    cells: Sites,
    shape: tuple[int, int, int],
    probability: float,
    generator: torch.Generator | None = None,
) -> Sites:
    """Return active cells with some of the six neighbours of each, like an imperfect coarse stage.

    For training the fine stage, which learns from it which cells to prune.

    Parameters
    ----------
    cells : Sites
        The active cells.
    shape : (int, int, int)
        Cells (x, y, z) of the box that neighbours lie in.
    probability : float
        Of adding a neighbour.
    generator : torch.Generator, optional
        Draws which neighbours are added; None adds all.
    """
    steps = torch.tensor(
        [[0, *step] for step in _NEIGHBOURS], dtype=torch.int32, device=cells.device
    )
    near = (cells.coordinates[:, None] + steps).flatten(0, 1)
    limit = torch.tensor(shape, device=cells.device)
    near = near[((near[:, 1:] >= 0) & (near[:, 1:] < limit)).all(1)]
    added = distinct_sites(near, cells.stride, cells.place)
    added = added.select(cells.rows(added.coordinates) < 0)
    if generator is not None:
        random = torch.rand(len(added), generator=generator, device=generator.device)
        added = added.select(random.to(cells.device) < probability)
    return make_sites(
        torch.cat([cells.coordinates, added.coordinates]), stride=cells.stride, place=cells.place
    )[0]


_NEIGHBOURS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def fine_loss(
    model: StructFine,
    latent: SparseTensor,
    conditions: Conditions,
    generator: torch.Generator,
    *,
    cells: Sites | None = None,
    style: Tensor | None = None,
) -> Tensor:
    """Return the loss of one batch.

    Parameters
    ----------
    model : StructFine
        The network.
    latent : SparseTensor
        Normalised (`StructVAE.statistics.normalised`), at the active cells.
    conditions, generator, style
        As of `coarse_loss`.
    cells : Sites, optional
        Active and further cells, from `dilate_cells`; the latent of the further ones is 0.
    """
    data = latent if cells is None else latent.at(cells)
    return model.loss(data, model.condition(conditions, data.sites), generator, style=style)
