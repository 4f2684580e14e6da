"""A sparse U-Net with a time and conditions at every scale: the network of StructFM and TexFM."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from earthgen.models.blocks import Chain, Down, Projection, Up
from earthgen.models.presets import UNetConfig
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor


class SparseUNet(nn.Module):
    """A U-Net from features to features at the same voxels.

    Parameters
    ----------
    config : UNetConfig
        Configuration.
    inputs, outputs : int
        Channels.
    embedding : int
        Channels of the time's embedding, 0 for none.
    """

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, embedding: int = 0) -> None:
        super().__init__()
        widths, blocks = config.channels, config.blocks
        pairs = list(pairwise(widths))
        # Half precision rounds to 1/256: what comes in and goes out is in float32.
        self.stem = Projection(inputs, widths[0], full=True)
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
        self.norm = LayerNorm(widths[0])
        self.head = Projection(widths[0], outputs, full=True)

    def forward(
        self,
        x: SparseTensor,
        embedded: Tensor | None = None,
        condition: Sequence[SparseTensor] | None = None,
    ) -> SparseTensor:
        """Return features at the sites of `x`, (n, outputs).

        Parameters
        ----------
        x : SparseTensor (n, inputs)
            Features.
        embedded : Tensor (batch, embedding), optional
            The embedded time.
        condition : sequence of SparseTensor, optional
            Features to add at each level, finest first, at the sites of `levels`.
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
        return self.head(self.norm(x.with_features(x.features.to(self.head.linear.weight.dtype))))

    def levels(self, sites: Sites) -> list[Sites]:
        """Return the sites of each level, finest first."""
        levels = [sites]
        for _ in self.halving:
            levels.append(levels[-1].parents(2))
        return levels

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products in one evaluation."""
        there = self.levels(sites)
        total = self.stem.flops(sites) + self.head.flops(sites) + self.middle.flops(there[-1])
        for level in range(len(self.halving)):
            for part in (self.down, self.up, self.skip, self.doubling, self.halving):
                total += part[level].flops(there[level])  # type: ignore[operator]
        return total
