"""StructVAE: voxel coordinates to a latent on cells of L/8, and back (Liu et al., AAAI 2026,
section "StructVAE").

The decoder's blocks are the paper's PSS blocks (pseudo-sparse to sparse): a sparse pixel shuffle
gives all eight children of a cell, blocks run on them, a classifier prunes, and blocks run on the
rest. With `early` the classifier looks at the parent instead, and nothing runs on children that
will be pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen.errors import ModelError
from earthgen.models.blocks import Chain, Down, Projection, Up, check_stride, lookup_table
from earthgen.models.latents import Latent, Statistics
from earthgen.models.occupancy import Repair, select_children
from earthgen.models.presets import StructVaeConfig
from earthgen.sparse.encoding import sinusoidal
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sampling import shuffle_up
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor

POSITIONS = 24
"""Channels of the encoding of a voxel's position in its latent cell: three axes, four waves."""


@dataclass(frozen=True)
class Level:
    """The decoder's result at one level.

    Attributes
    ----------
    candidates : SparseTensor (n, 1)
        Logits of being active, at all children of the active cells.
    kept : Sites
        Sites of the next level.
    """

    candidates: SparseTensor
    kept: Sites


@dataclass(frozen=True)
class Decoded:
    """The decoder's result.

    Attributes
    ----------
    levels : list of Level
        From coarse to fine, the last one at L.
    classes : SparseTensor (n, classes), optional
        Logits at the voxels of the last level; None for a model without classes.
    """

    levels: list[Level]
    classes: SparseTensor | None

    @property
    def sites(self) -> Sites:
        """The voxels at L."""
        return self.levels[-1].kept

    def semantic(self) -> Tensor:
        """Return the most likely class of each voxel, never 0 (unknown), (n,) uint8.

        Raises
        ------
        ModelError
            If the model has no classes.
        """
        if self.classes is None:
            raise ModelError("this StructVAE predicts no classes", "use a preset with classes")
        if not len(self.sites):
            return torch.zeros(0, dtype=torch.uint8, device=self.sites.device)
        return (self.classes.features[:, 1:].argmax(1) + 1).to(torch.uint8)


class StructVAE(nn.Module):
    """The autoencoder of structure."""

    def __init__(self, config: StructVaeConfig) -> None:
        super().__init__()
        self.config = config
        widths, blocks = config.channels, config.blocks
        pairs = list(pairwise(widths))
        self.position = nn.Linear(POSITIONS, widths[0])
        self.semantic = lookup_table(config.classes, widths[0]) if config.classes else None
        self.encoder = nn.ModuleList(
            Chain(kinds, a, blocks) for kinds, a in zip(config.encoder, widths, strict=False)
        )
        self.halving = nn.ModuleList(Down(fine, coarse) for fine, coarse in pairs)
        self.encoder_middle = Chain(config.middle, widths[-1], blocks)
        self.encoder_norm = LayerNorm(widths[-1])
        self.moments = Projection(widths[-1], 2 * config.latent)

        self.latent = Projection(config.latent, widths[-1])
        self.decoder_middle = Chain(config.middle, widths[-1], blocks)
        self.doubling = nn.ModuleList(
            Up(coarse, fine) if config.early else Projection(coarse, 8 * fine)
            for fine, coarse in pairs
        )
        self.before = nn.ModuleList(
            Chain(kinds, a, blocks) for kinds, a in zip(config.before, widths, strict=False)
        )
        self.after = nn.ModuleList(
            Chain(kinds, a, blocks) for kinds, a in zip(config.after, widths, strict=False)
        )
        self.judge_norm = nn.ModuleList(
            LayerNorm(coarse if config.early else fine) for fine, coarse in pairs
        )
        self.judge = nn.ModuleList(
            Projection(coarse, 8) if config.early else Projection(fine, 1) for fine, coarse in pairs
        )
        self.classes_norm = LayerNorm(widths[0]) if config.classes else None
        self.classes = Projection(widths[0], config.classes) if config.classes else None
        self.statistics = Statistics(config.latent)

    def encode(self, sites: Sites, semantic: Tensor | None = None) -> Latent:
        """Return the latent of voxels of stride 1.

        Parameters
        ----------
        sites : Sites
            The n voxels.
        semantic : Tensor (n,) int, optional
            Class codes of the voxels; None for unknown ones.

        Raises
        ------
        SparseError
            If the origin of a sample is no multiple of the latent's stride.
        """
        check_stride(sites, 1)
        place = sinusoidal(sites, POSITIONS, within=self.config.stride)
        x = SparseTensor(sites, self.position(place))
        if self.semantic is not None:
            codes = torch.zeros(len(sites), dtype=torch.int64, device=sites.device)
            x = x.with_features(
                x.features + self.semantic(codes if semantic is None else semantic.long())
            )
        for chain, halve in zip(self.encoder, self.halving, strict=True):
            x = halve(chain(x))
        return Latent.of(self.moments(self.encoder_norm(self.encoder_middle(x))))

    def decode(
        self, latent: SparseTensor, teacher: Sites | None = None, repair: Repair = "columns"
    ) -> Decoded:
        """Return the voxels of a latent on cells.

        Parameters
        ----------
        latent : SparseTensor
            Latent on cells.
        teacher : Sites, optional
            The true voxels at L. With them each level continues with the true children (teacher
            forcing), so that all candidates have a target; without them, with the children that the
            classifier keeps.
        repair : str
            As of `earthgen.models.occupancy.select_children`.
        """
        check_stride(latent.sites, self.config.stride)
        x = self.decoder_middle(self.latent(latent))
        truth = [] if teacher is None else self.levels(teacher)
        levels = []
        for level in reversed(range(len(self.doubling))):
            true = truth[level] if truth else None
            x, result = self._double(x, level, true, repair)
            levels.append(result)
        classes = None
        if self.classes is not None and self.classes_norm is not None:
            classes = self.classes(self.classes_norm(x))
        return Decoded(levels, classes)

    def _double(
        self, x: SparseTensor, level: int, true: Sites | None, repair: Repair
    ) -> tuple[SparseTensor, Level]:
        judge, norm, double = self.judge[level], self.judge_norm[level], self.doubling[level]
        if self.config.early:
            logits = shuffle_up(judge(norm(x)))
            sites = _chosen(logits, true, repair)
            x = double(x, sites)
        else:
            x = self.before[level](shuffle_up(double(x)))
            logits = judge(norm(x))
            sites = _chosen(logits, true, repair)
            x = x.at(sites)
        return self.after[level](x), Level(logits.with_features(logits.features.float()), sites)

    def levels(self, sites: Sites) -> list[Sites]:
        """Return the true sites of each level, finest first, down to the latent's."""
        levels = [sites]
        for _ in self.halving:
            levels.append(levels[-1].parents(2))
        return levels

    def forward(
        self, sites: Sites, semantic: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Latent, Decoded]:
        """Return the latent, and the decoder's result for a sample of it, with teacher forcing."""
        latent = self.encode(sites, semantic)
        return latent, self.decode(latent.sample(generator), teacher=sites)

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products to encode and decode voxels."""
        there = self.levels(sites)
        total = 2 * len(sites) * POSITIONS * self.config.channels[0]
        total += self.encoder_middle.flops(there[-1]) + self.moments.flops(there[-1])
        for level, (chain, halve) in enumerate(zip(self.encoder, self.halving, strict=True)):
            total += chain.flops(there[level]) + halve.flops(there[level])  # type: ignore[operator]
        return total + self.decoder_flops(sites)

    def decoder_flops(self, sites: Sites) -> int:
        """Return the decoder's part of `flops`, with the true children kept."""
        there = self.levels(sites)
        total = self.decoder_middle.flops(there[-1]) + self.latent.flops(there[-1])
        for level in range(len(self.doubling)):
            parents = there[level + 1]
            if self.config.early:
                parts = [
                    (self.judge, parents),
                    (self.doubling, there[level]),
                    (self.after, there[level]),
                ]
            else:
                children = parents.children(2)[0]
                parts = [(self.doubling, parents), (self.before, children), (self.judge, children)]
                parts.append((self.after, there[level]))
            total += sum(part[level].flops(where) for part, where in parts)  # type: ignore[operator]
        return total + (self.classes.flops(sites) if self.classes is not None else 0)


def _chosen(logits: SparseTensor, true: Sites | None, repair: Repair) -> Sites:
    """Return the true children, or those that the classifier keeps."""
    if true is not None:
        return true
    return logits.sites.select(select_children(logits.sites, logits.features[:, 0].float(), repair))


@dataclass(frozen=True)
class StructLoss:
    """The terms of `struct_loss`.

    Attributes
    ----------
    total : Tensor
        The weighted sum, which is minimised.
    occupancy : list of Tensor
        Binary cross-entropy at each level, from coarse to fine.
    divergence : Tensor
        Kullback-Leibler divergence of the latent.
    classes : Tensor
        Cross-entropy of the classes.
    """

    total: Tensor
    occupancy: list[Tensor]
    divergence: Tensor
    classes: Tensor


def struct_loss(
    latent: Latent,
    decoded: Decoded,
    true: Sites,
    semantic: Tensor | None = None,
    *,
    kl_weight: float = 1e-3,
    class_weight: float = 0.1,
) -> StructLoss:
    """Return the loss of StructVAE, as in XCube (Ren et al., CVPR 2024).

    Parameters
    ----------
    latent, decoded : Latent, Decoded
        Results of `StructVAE.forward`.
    true : Sites
        The n encoded voxels, which were the decoder's teacher.
    semantic : Tensor (n,) int, optional
        Class codes; 0, unknown, does not count.
    kl_weight, class_weight : float
        Weights of the divergence and the classes.
    """
    occupancy = []
    sites = [true]
    while len(sites) < len(decoded.levels):
        sites.append(sites[-1].parents(2))
    for level, there in zip(decoded.levels, reversed(sites), strict=True):
        target = (there.rows(level.candidates.coordinates) >= 0).float()
        occupancy.append(
            _mean(
                nn.functional.binary_cross_entropy_with_logits(
                    level.candidates.features[:, 0], target, reduction="none"
                )
            )
        )
    divergence = latent.divergence()
    classes = divergence.new_zeros(())
    if decoded.classes is not None and semantic is not None:
        logits = decoded.classes.features.float()
        losses = nn.functional.cross_entropy(
            logits, semantic.long(), reduction="none", ignore_index=0
        )
        classes = losses.sum() / (semantic != 0).sum().clamp(min=1)
    total = torch.stack(occupancy).sum() + kl_weight * divergence + class_weight * classes
    return StructLoss(total, occupancy, divergence, classes)


def _mean(values: Tensor) -> Tensor:
    """Return the mean, 0 of nothing."""
    return values.sum() / max(len(values), 1)
