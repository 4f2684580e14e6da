"""A sparse U-Net: what StructFM and TexFM are, with a time, and conditions at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from earthgen import sparse
from earthgen.models.blocks import Chain, Down, Projection, Up
from earthgen.models.presets import UNetConfig
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites


class SparseUNet(nn.Module):
    """From features to features at the same voxels.

    inputs, outputs : channels
    embedding : channels of the time's embedding, 0 for none
    """

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, embedding: int = 0) -> None:
        super().__init__()
        widths, blocks = config.channels, config.blocks
        pairs = list(pairwise(widths))
        self.stem = Projection(inputs, widths[0])
        self.down = nn.ModuleList(
            Chain(kinds, width, blocks, embedding)
            for kinds, width in zip(config.down, widths, strict=False)
        )
        self.halving = nn.ModuleList(Down(fine, coarse) for fine, coarse in pairs)
        self.middle = Chain(config.middle, widths[-1], blocks, embedding)
        self.doubling = nn.ModuleList(Up(coarse, fine) for fine, coarse in pairs)
        self.skip = nn.ModuleList(Projection(fine, fine) for fine, _ in pairs)
        self.up = nn.ModuleList(
            Chain(kinds, width, blocks, embedding)
            for kinds, width in zip(config.up, widths, strict=False)
        )
        self.norm = sparse.LayerNorm(widths[0])
        self.head = Projection(widths[0], outputs)

    def forward(
        self,
        x: SparseTensor,
        embedded: Tensor | None = None,
        condition: Sequence[SparseTensor] | None = None,
    ) -> SparseTensor:
        """(n, outputs) at the sites of `x`.

        embedded : (batch, embedding), of the time
        condition : added at each level, finest first, as `levels` gives their sites
        """
        x = self.stem(x)
        skips = []
        for level, (chain, halve) in enumerate(zip(self.down, self.halving, strict=True)):
            x = chain(x if condition is None else x + condition[level], embedded)
            skips.append(x)
            x = halve(x)
        x = self.middle(x if condition is None else x + condition[-1], embedded)
        for level in reversed(range(len(skips))):
            skip = skips[level]
            x = self.up[level](
                self.doubling[level](x, skip.sites) + self.skip[level](skip), embedded
            )
        return self.head(self.norm(x))

    def levels(self, sites: Sites) -> list[Sites]:
        """The sites of each level, finest first."""
        found = [sites]
        for _ in self.halving:
            found.append(found[-1].parents(2))
        return found

    def flops(self, sites: Sites) -> int:
        """Of products in one evaluation on `sites`, two a multiplication and addition."""
        there = self.levels(sites)
        total = self.stem.flops(sites) + self.head.flops(sites) + self.middle.flops(there[-1])
        for level in range(len(self.halving)):
            for part in (self.down, self.up, self.skip, self.doubling, self.halving):
                total += part[level].flops(there[level])  # type: ignore[operator]
        return total
