"""The blocks that all networks are chains of: convolution and attention, with or without a time.

Norms are over the channels of a voxel, never over a sample: what a voxel gets must not depend on
how large the window is that it is computed in.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen import sparse
from earthgen.errors import SparseError
from earthgen.models.presets import BlockConfig
from earthgen.sparse import SparseTensor
from earthgen.sparse.kernel_map import kernel_map
from earthgen.sparse.linear import linear
from earthgen.sparse.sites import Sites
from earthgen.sparse.windows import Partition, whole, windows

TOWER = 2**20
"""Height of a window of all heights, cells. Its lattice is shifted by half: the ground would be
one of its faces."""


def modulated(x: SparseTensor, change: Tensor | None) -> SparseTensor:
    """x * (1 + scale) + offset, both of the sample.

    change : (batch, 2 channels), scale and offset; None leaves x as it is
    """
    if change is None:
        return x
    scale, offset = change.chunk(2, 1)
    if x.batch_size == 1:
        return x.with_features(x.features * (1 + scale) + offset)
    # By sample: rows of one lie together, and so the gradient is a sum a sample and no scatter.
    bounds = x.sites.bounds
    parts = torch.split(x.features, [last - first for first, last in pairwise(bounds)])
    done = [part * (1 + scale[number]) + offset[number] for number, part in enumerate(parts)]
    return x.with_features(torch.cat(done))


class Projection(nn.Module):
    """A linear map at every voxel; under autocast in its dtype."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(linear(x.features, self.linear))

    def flops(self, sites: Sites) -> int:
        return 2 * len(sites) * self.linear.in_features * self.linear.out_features


class ConvBlock(nn.Module):
    """x + W gelu(conv(norm(x))): a residual block of one 3 x 3 x 3 submanifold convolution."""

    def __init__(self, channels: int, embedding: int, *, flat: bool = False) -> None:
        super().__init__()
        self.norm = sparse.LayerNorm(channels)
        self.change = nn.Linear(embedding, 2 * channels) if embedding else None
        self.convolution = sparse.Convolution(channels, channels, (3, 3, 1) if flat else 3)
        self.out = Projection(channels, channels)

    def forward(self, x: SparseTensor, embedded: Tensor | None = None) -> SparseTensor:
        h = modulated(self.norm(x), changed(self.change, embedded))
        h = self.convolution(h)
        return x + self.out(h.with_features(nn.functional.gelu(h.features)))

    def begins_small(self) -> list[nn.Module]:
        """Layers whose weights begin small, see `initialise`."""
        return [self.out.linear, *([] if self.change is None else [self.change])]

    def flops(self, sites: Sites) -> int:
        kernel = self.convolution.kernel
        pairs = kernel_map(sites, sites, kernel).pairs
        return 2 * pairs * self.convolution.weight.shape[1] * self.convolution.weight.shape[
            2
        ] + self.out.flops(sites)


class AttentionBlock(nn.Module):
    """A transformer block (Liu et al. 2021, equation 3) with rotary positions, modulated by a time
    where there is one.

    The modulation is that of DiT's adaLN (Peebles & Xie 2023) without its gates.

    kind : "s" cubes, "t" towers, "f" whole samples
    shifted : whether windows lie half a window off the lattice
    """

    def __init__(
        self,
        channels: int,
        kind: str,
        shifted: bool,
        config: BlockConfig,
        embedding: int,
        *,
        flat: bool = False,
    ) -> None:
        super().__init__()
        side = config.window
        half = side // 2 if shifted else 0
        window: int | tuple[int, int, int] | None = None
        shift: int | tuple[int, int, int] = 0
        if kind == "t" or (kind == "s" and flat):
            window, shift = (side, side, TOWER), (half, half, TOWER // 2)
        elif kind == "s":
            window, shift = side, half
        heads = max(channels // config.head, 1)
        hidden = int(channels * config.mlp)
        self.attention_norm = sparse.LayerNorm(channels)
        self.attention = sparse.WindowAttention(channels, heads, window, shift, rotary=True)
        self.mlp_norm = sparse.LayerNorm(channels)
        self.change = nn.Linear(embedding, 4 * channels) if embedding else None
        self.expand = Projection(channels, hidden)
        self.contract = Projection(hidden, channels)

    def forward(self, x: SparseTensor, embedded: Tensor | None = None) -> SparseTensor:
        change = changed(self.change, embedded)
        first, second = (None, None) if change is None else change.chunk(2, 1)
        x = x + self.attention(modulated(self.attention_norm(x), first))
        h = self.expand(modulated(self.mlp_norm(x), second))
        return x + self.contract(h.with_features(nn.functional.gelu(h.features)))

    def begins_small(self) -> list[nn.Module]:
        """Layers whose weights begin small, see `initialise`."""
        layers = [self.contract.linear, self.attention.out]
        return [*layers, *([] if self.change is None else [self.change])]

    def partition(self, sites: Sites) -> Partition:
        where = self.attention
        return whole(sites) if where.window is None else windows(sites, where.window, where.shift)

    def flops(self, sites: Sites) -> int:
        channels = self.attention.channels
        projections = (
            2 * len(sites) * 4 * channels * channels
            + self.expand.flops(sites)
            + self.contract.flops(sites)
        )
        return projections + 4 * channels * int(self.partition(sites).counts.square().sum())


class Chain(nn.Module):
    """Blocks one after the other, as a text of `earthgen.models.presets` names them.

    flat : the voxels are a plane, one a column: kernels are 3 x 3 x 1, and windows are towers
    """

    def __init__(
        self,
        kinds: str,
        channels: int,
        config: BlockConfig,
        embedding: int = 0,
        *,
        flat: bool = False,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        attentions = 0
        for kind in kinds:
            if kind == "c":
                blocks.append(ConvBlock(channels, embedding, flat=flat))
                continue
            blocks.append(
                AttentionBlock(channels, kind, attentions % 2 == 1, config, embedding, flat=flat)
            )
            attentions += 1
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: SparseTensor, embedded: Tensor | None = None) -> SparseTensor:
        for block in self.blocks:
            x = block(x, embedded)
        return x

    def flops(self, sites: Sites) -> int:
        return sum(block.flops(sites) for block in self.blocks)  # type: ignore[operator]


class Down(nn.Module):
    """To the cells of two voxels an edge: a convolution of size and stride 2."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = sparse.Convolution(channels, out, 2, 2)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.convolution(x, x.sites.parents(2))

    def flops(self, sites: Sites) -> int:
        """sites : of the input"""
        return 2 * len(sites) * self.convolution.weight.shape[1] * self.convolution.weight.shape[2]


class Up(nn.Module):
    """From cells to given children: each child's own linear map of its parent, a pixel shuffle
    of those alone."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = sparse.TransposedConvolution(channels, out, 2, 2)

    def forward(self, x: SparseTensor, sites: Sites) -> SparseTensor:
        return self.convolution(x, sites)

    def flops(self, sites: Sites) -> int:
        """sites : of the output"""
        return 2 * len(sites) * self.convolution.weight.shape[1] * self.convolution.weight.shape[2]


class Embedding(nn.Module):
    """A time and a step of a flow as a vector.

    frequencies : of sines and cosines of the time in [0, 1], from half a turn to 2^frequencies of
        them
    """

    FREQUENCIES = 8

    def __init__(self, out: int) -> None:
        super().__init__()
        self.time = nn.Linear(2 * self.FREQUENCIES + 1, out)
        self.step = nn.Linear(2 * self.FREQUENCIES + 1, out)
        self.hidden = nn.Linear(out, out)

    def forward(self, time: Tensor, step: Tensor | None = None) -> Tensor:
        """(batch, out) of a time and a step, both (batch,) in [0, 1]; no step is one of 0."""
        step = torch.zeros_like(time) if step is None else step
        found = self.time(_waves(time)) + self.step(_waves(step))
        return nn.functional.silu(self.hidden(nn.functional.silu(found)))


def _waves(time: Tensor) -> Tensor:
    powers = 2.0 ** torch.arange(Embedding.FREQUENCIES, device=time.device)
    angles = time.float()[:, None] * powers * math.pi
    return torch.cat([time.float()[:, None], angles.sin(), angles.cos()], 1)


def changed(layer: nn.Linear | None, embedded: Tensor | None) -> Tensor | None:
    """What a block makes of the time, (batch, out); None for a block without."""
    if layer is None or embedded is None:
        return None
    found: Tensor = layer(embedded)
    return found


def heights(sites: Sites, channels: int) -> Tensor:
    """(n, channels) float32: sines and cosines of the cells' mean height above the ground, in
    metres.

    The waves are 2^1 to 2^(channels / 2) metres long, so that they say the same at every voxel size
    and stride.
    """
    centre = sites.centres()[:, 2]
    lengths = 2.0 ** torch.arange(1, channels // 2 + 1, dtype=torch.float64, device=sites.device)
    angles = centre[:, None] * (2 * math.pi / lengths)
    found = torch.cat([angles.sin(), angles.cos()], 1).float()
    return nn.functional.pad(found, (0, channels - found.shape[1]))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of a network anew from a generator; no global random numbers are used.

    Weights are uniform within 1 / sqrt(inputs), biases 0, norms 1, embeddings normal. The last
    layer of a residual branch, and of a modulation, begins ten times smaller, so that a deep chain
    begins near the identity and yet every weight has a gradient from the first step.
    """
    with torch.no_grad():
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is None:
                    continue
                if name == "bias":
                    value.zero_()
                elif isinstance(part, sparse.LayerNorm) or value.ndim == 1:
                    value.fill_(1)
                elif isinstance(part, nn.Embedding):
                    value.normal_(generator=generator)
                else:
                    bound = 1 / math.sqrt(_inputs(part, value))
                    value.uniform_(-bound, bound, generator=generator)
            reset = getattr(part, "reset_buffers", None)
            if reset is not None:
                reset()
        for part in module.modules():
            for layer in getattr(part, "begins_small", list)():
                layer.weight.mul_(0.1)


def _inputs(part: nn.Module, weight: Tensor) -> int:
    """How many numbers an output of a layer is a sum of."""
    if isinstance(part, sparse.Convolution):
        return weight.shape[0] * weight.shape[1]
    if isinstance(part, sparse.TransposedConvolution):
        return weight.shape[1]  # a child has one parent
    if isinstance(part, nn.ConvTranspose2d):
        return weight.shape[0]
    return weight[0].numel()


def check_stride(sites: Sites, stride: int) -> None:
    """Raise SparseError unless cells have a stride."""
    if sites.stride != (stride,) * 3:
        raise SparseError(
            f"voxels have stride {sites.stride}, the model works on {stride}",
            "give those of that stride",
        )


def spread(values: Tensor, sites: Sites) -> Tensor:
    """(n, 1): the value of each voxel's sample, of (batch,) values."""
    return values[sites.coordinates[:, 0].long()][:, None]
