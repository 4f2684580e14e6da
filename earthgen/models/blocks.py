"""The blocks of all networks: convolution and attention, with or without a time.

Norms are over the channels of a voxel, never over a sample: the result at a voxel must not depend
on the size of the window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen.errors import SparseError
from earthgen.models.presets import BlockConfig
from earthgen.sparse.attention import WindowAttention
from earthgen.sparse.kernel_map import kernel_map
from earthgen.sparse.layers import Convolution, TransposedConvolution
from earthgen.sparse.linear import linear
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.sparse.windows import Partition, whole, windows

TOWER = 2**20
"""Height of a window of all heights, cells. Its lattice is shifted by half, or the ground would be
a boundary of windows."""


def lookup_table(count: int, width: int) -> nn.Embedding:
    """Return a table of `count` rows, whose values `initialise` sets.

    A table that torch starts by itself is drawn; on the meta device, where networks are made before
    their weights are read, that imports a library for symbolic mathematics: one and a half seconds.
    """
    return nn.Embedding(count, width, _weight=torch.zeros(count, width))


def modulate(x: SparseTensor, change: Tensor | None) -> SparseTensor:
    """Return x * (1 + scale) + offset, with one scale and offset per sample.

    Parameters
    ----------
    x : SparseTensor
        Features.
    change : Tensor (batch, 2 channels), optional
        Scale and offset; None leaves x unchanged.
    """
    if change is None:
        return x
    scale, offset = change.chunk(2, 1)
    if x.batch_size == 1:
        return x.with_features(x.features * (1 + scale) + offset)
    # Rows of a sample lie together: split by sample, the gradient is a sum instead of a scatter.
    bounds = x.sites.bounds
    parts = torch.split(x.features, [last - first for first, last in pairwise(bounds)])
    results = [part * (1 + scale[number]) + offset[number] for number, part in enumerate(parts)]
    return x.with_features(torch.cat(results))


class Projection(nn.Module):
    """A linear layer at every voxel, under autocast in its dtype, or always in float32 (`full`)."""

    def __init__(self, channels: int, out: int, *, full: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out)
        self.full = full

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the mapped features."""
        if not self.full:
            return x.with_features(linear(x.features, self.linear))
        with torch.autocast(x.features.device.type, enabled=False):
            return x.with_features(linear(x.features.to(self.linear.weight.dtype), self.linear))

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products."""
        return 2 * len(sites) * self.linear.in_features * self.linear.out_features


class ConvBlock(nn.Module):
    """x + W gelu(conv(norm(x))): a residual block of one 3 x 3 x 3 submanifold convolution."""

    def __init__(self, channels: int, embedding: int, *, flat: bool = False) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.change = nn.Linear(embedding, 2 * channels) if embedding else None
        self.convolution = Convolution(channels, channels, (3, 3, 1) if flat else 3)
        self.out = Projection(channels, channels)

    def forward(self, x: SparseTensor, embedded: Tensor | None = None) -> SparseTensor:
        """Return the block's features; `embedded` is the time, (batch, embedding)."""
        h = modulate(self.norm(x), modulation(self.change, embedded))
        h = self.convolution(h)
        return x + self.out(h.with_features(nn.functional.gelu(h.features)))

    def small_layers(self) -> list[nn.Module]:
        """Return the layers that are initialised with small weights, see `initialise`."""
        return [self.out.linear, *([] if self.change is None else [self.change])]

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products."""
        kernel = self.convolution.kernel
        pairs = kernel_map(sites, sites, kernel).pairs
        return 2 * pairs * self.convolution.weight.shape[1] * self.convolution.weight.shape[
            2
        ] + self.out.flops(sites)


class AttentionBlock(nn.Module):
    """A transformer block (Liu et al. 2021, equation 3) with rotary positions.

    With a time, it is modulated as by DiT's adaLN (Peebles & Xie 2023), without gates.

    Parameters
    ----------
    channels : int
        Channels of the features.
    kind : str
        Attention in cubes ("s"), in towers ("t") or over whole samples ("f").
    shifted : bool
        Whether windows are shifted by half their size.
    config : BlockConfig
        Configuration of all blocks.
    embedding : int
        Channels of the time's embedding, 0 for none.
    flat : bool
        Whether the voxels are a plane.
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
        self.attention_norm = LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window, shift, rotary=True)
        self.mlp_norm = LayerNorm(channels)
        self.change = nn.Linear(embedding, 4 * channels) if embedding else None
        self.expand = Projection(channels, hidden)
        self.contract = Projection(hidden, channels)

    def forward(self, x: SparseTensor, embedded: Tensor | None = None) -> SparseTensor:
        """Return the block's features; `embedded` is the time, (batch, embedding)."""
        change = modulation(self.change, embedded)
        first, second = (None, None) if change is None else change.chunk(2, 1)
        x = x + self.attention(modulate(self.attention_norm(x), first))
        h = self.expand(modulate(self.mlp_norm(x), second))
        return x + self.contract(h.with_features(nn.functional.gelu(h.features)))

    def small_layers(self) -> list[nn.Module]:
        """Return the layers that are initialised with small weights, see `initialise`."""
        layers = [self.contract.linear, self.attention.out]
        return [*layers, *([] if self.change is None else [self.change])]

    def partition(self, sites: Sites) -> Partition:
        """Return the windows of attention."""
        attention = self.attention
        if attention.window is None:
            return whole(sites)
        return windows(sites, attention.window, attention.shift)

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products."""
        channels = self.attention.channels
        projections = (
            2 * len(sites) * 4 * channels * channels
            + self.expand.flops(sites)
            + self.contract.flops(sites)
        )
        return projections + 4 * channels * int(self.partition(sites).counts.square().sum())


class Chain(nn.Module):
    """Blocks one after the other, named by a text as of `earthgen.models.presets`.

    Parameters
    ----------
    kinds : str
        One letter per block.
    channels, config, embedding
        As of `AttentionBlock`.
    flat : bool
        Whether the voxels are a plane, one per column: kernels are then 3 x 3 x 1, and windows are
        towers.
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
        """Return the features after all blocks; `embedded` is the time, (batch, embedding)."""
        for block in self.blocks:
            x = block(x, embedded)
        return x

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products."""
        return sum(block.flops(sites) for block in self.blocks)  # type: ignore[operator]


class Down(nn.Module):
    """A convolution of size and stride 2, to cells of 2 x 2 x 2 voxels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = Convolution(channels, out, 2, 2)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return features of the parents."""
        return self.convolution(x, x.sites.parents(2))

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products; `sites` are those of the input."""
        return 2 * len(sites) * self.convolution.weight.shape[1] * self.convolution.weight.shape[2]


class Up(nn.Module):
    """A transposed convolution of size and stride 2, from cells to given children only."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.convolution = TransposedConvolution(channels, out, 2, 2)

    def forward(self, x: SparseTensor, sites: Sites) -> SparseTensor:
        """Return features of the children `sites`."""
        return self.convolution(x, sites)

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products; `sites` are those of the output."""
        return 2 * len(sites) * self.convolution.weight.shape[1] * self.convolution.weight.shape[2]


class Embedding(nn.Module):
    """A time of a flow as a vector. It is in float32, under autocast too."""

    FREQUENCIES = 8
    """Sines and cosines of a time in [0, 1], the slowest of half a turn, each twice as fast."""

    def __init__(self, out: int, logit: bool = False) -> None:
        super().__init__()
        self.logit = logit
        self.time = nn.Linear(2 * (LOGIT_OCTAVES if logit else self.FREQUENCIES) + 1, out)
        self.hidden = nn.Linear(out, out)

    def forward(self, time: Tensor) -> Tensor:
        """Return the embedding, (batch, out), of times (batch,)."""
        waves = _logit_waves(time) if self.logit else _waves(time)
        with torch.autocast(time.device.type, enabled=False):
            return nn.functional.silu(self.hidden(nn.functional.silu(self.time(waves))))

    @classmethod
    def without_step(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return float32 tensors of a network without the input of a step's length.

        Earlier networks embedded the length of a step, which is 0 for the methods of
        `earthgen.models.flow.METHODS`: what it adds then is a constant, part of the time's bias.
        """
        found = {name: value.float() for name, value in tensors.items()}
        for name in [each for each in found if each.endswith("embed.step.weight")]:
            stem = name.removesuffix("step.weight")
            if f"{stem}step.bias" not in found or f"{stem}time.bias" not in found:
                continue
            weight, bias = found.pop(name), found.pop(f"{stem}step.bias")
            # The time and the sines are 0 at a step of 0, the cosines 1.
            constant = weight[:, 1 + cls.FREQUENCIES :].double().sum(1) + bias.double()
            found[f"{stem}time.bias"] = (found[f"{stem}time.bias"].double() + constant).float()
        return found


def _waves(time: Tensor) -> Tensor:
    powers = 2.0 ** torch.arange(Embedding.FREQUENCIES, device=time.device)
    angles = time.float()[:, None] * powers * math.pi
    return torch.cat([time.float()[:, None], angles.sin(), angles.cos()], 1)


LOGIT_OCTAVES = 4
"""Octaves of the logit of a time; the slowest has a turn in 18, about the range of the logit."""


def _logit_waves(time: Tensor) -> Tensor:
    logit = torch.logit(time.float().clamp(2e-3, 1 - 2e-3))[:, None]
    powers = 0.35 * 2.0 ** torch.arange(LOGIT_OCTAVES, device=time.device)
    angles = logit * powers
    return torch.cat([logit / 4, angles.sin(), angles.cos()], 1)


def modulation(layer: nn.Linear | None, embedded: Tensor | None) -> Tensor | None:
    """Return scales and offsets of a time, (batch, out); None for a block without a time."""
    if layer is None or embedded is None:
        return None
    change: Tensor = layer(embedded)
    return change


def encode_heights(sites: Sites, channels: int) -> Tensor:
    """Return sines and cosines of the height of cells' centres above the ground.

    The wavelengths are 2^1 to 2^(channels / 2) metres at every voxel size and stride.

    Returns
    -------
    Tensor (n, channels) float32
    """
    centre = sites.centres()[:, 2]
    lengths = 2.0 ** torch.arange(1, channels // 2 + 1, dtype=torch.float64, device=sites.device)
    angles = centre[:, None] * (2 * math.pi / lengths)
    waves = torch.cat([angles.sin(), angles.cos()], 1).float()
    return nn.functional.pad(waves, (0, channels - waves.shape[1]))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of a network from a generator, without global random numbers.

    Weights are uniform within 1 / sqrt(inputs), biases 0, norms 1, embeddings normal. The last
    layer of a residual branch, and of a modulation, starts ten times smaller, so that a deep chain
    starts near the identity and yet every weight has a gradient from the first step.
    """
    with torch.no_grad():
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is None:
                    continue
                if name == "bias":
                    value.zero_()
                elif isinstance(part, LayerNorm) or value.ndim == 1:
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
            for layer in getattr(part, "small_layers", list)():
                layer.weight.mul_(0.1)


def _inputs(part: nn.Module, weight: Tensor) -> int:
    """Return how many inputs an output of a layer is a sum of."""
    if isinstance(part, Convolution):
        return weight.shape[0] * weight.shape[1]
    if isinstance(part, TransposedConvolution):
        return weight.shape[1]  # a child has one parent
    if isinstance(part, nn.ConvTranspose2d):
        return weight.shape[0]
    return weight[0].numel()


def check_stride(sites: Sites, stride: int) -> None:
    """Raise SparseError unless cells have a stride."""
    if sites.stride != (stride,) * 3:
        raise SparseError(
            f"voxels have stride {sites.stride}, the model needs {stride}",
            f"give voxels of stride {stride}",
        )


def expand_to_rows(values: Tensor, sites: Sites) -> Tensor:
    """Return the value of each voxel's sample, (n, 1), from (batch,) values."""
    return values[sites.coordinates[:, 0].long()][:, None]
