"""A flow on height maps in 2D: from land cover and ground to heights above the ground.

It is not in the paper, whose StructFM takes a depth as a condition; this flow makes one where none
was measured. All layers have a bounded reach and norms are over the channels of a pixel, so a pixel
far from the edge has the same result in windows of any size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen.errors import ModelError
from earthgen.models.blocks import Embedding
from earthgen.models.flow import Flow, Predict, apply_guidance, batch_of_times
from earthgen.models.flow_loss import flow_loss, over_maps, shortcut_loss
from earthgen.models.presets import HeightFlowConfig
from earthgen.models.sparse_flow import Objective

SLOPES = 3
"""Channels of the ground's shape: slope to the east, slope to the north, curvature."""


class HeightFlow(nn.Module):
    """The flow: a convolutional U-Net over columns.

    Attributes
    ----------
    config : HeightFlowConfig
        Configuration.
    flow : Flow
        What is predicted, and the training times.
    """

    def __init__(self, config: HeightFlowConfig) -> None:
        super().__init__()
        self.config, self.flow = config, Flow.of(config.flow)
        widths, embedding = config.channels, config.flow.embedding
        pairs = list(pairwise(widths))
        self.embed = Embedding(embedding)
        self.semantic = nn.Embedding(config.classes, widths[0])
        self.stem = nn.Conv2d(1 + SLOPES, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            _chain(width, count, embedding)
            for width, count in zip(widths, config.blocks, strict=True)
        )
        self.halving = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.doubling = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.skip = nn.ModuleList(nn.Conv2d(a, a, 1) for a, _ in pairs)
        self.up = nn.ModuleList(
            _chain(width, count, embedding)
            for width, count in zip(widths[:-1], config.blocks, strict=False)
        )
        self.norm = PixelNorm(widths[0])
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(
        self,
        state: Tensor,
        time: Tensor,
        semantics: Tensor,
        slopes: Tensor,
        step: Tensor | None = None,
    ) -> Tensor:
        """Return the flow's prediction.

        Parameters
        ----------
        state : Tensor (batch, 1, ny, nx)
            State; ny and nx are multiples of `multiple`.
        time, step : Tensor (batch,)
            Time and length of the step, in [0, 1].
        semantics : Tensor (batch, ny, nx)
            Class codes, 0 unknown.
        slopes : Tensor (batch, 3, ny, nx)
            Result of `ground_slopes`.

        Returns
        -------
        Tensor (batch, 1, ny, nx)

        Raises
        ------
        ModelError
            If maps have other shapes.
        """
        self._check(state, semantics, slopes)
        embedded = self.embed(time, step)
        x = self.stem(torch.cat([state, slopes.to(state.dtype)], 1))
        x = x + self.semantic(semantics.long()).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for level, chain in enumerate(self.down):
            for block in chain:  # type: ignore[attr-defined]
                x = block(x, embedded)
            if level < len(self.halving):
                skips.append(x)
                x = self.halving[level](x)
        for level in reversed(range(len(skips))):
            x = self.doubling[level](x) + self.skip[level](skips[level])
            for block in self.up[level]:  # type: ignore[attr-defined]
                x = block(x, embedded)
        return self.head(self.norm(x))

    @property
    def multiple(self) -> int:
        """Numbers of rows and columns are multiples of this."""
        return 2 ** len(self.halving)

    @property
    def reach(self) -> int:
        """Largest distance, in columns, of an input that an output pixel depends on."""
        total = 1
        for level, count in enumerate(self.config.blocks):
            blocks = count if level == len(self.halving) else 2 * count
            # Two 3 x 3 convolutions per block, and half a cell of a halving.
            total += 2**level * 2 * blocks + 2**level
        return total

    def predictor(self, semantics: Tensor, slopes: Tensor, guidance: float = 1.0) -> Predict:
        """Return a function for `earthgen.models.flow.sample`, of (batch, 1, ny, nx) states."""

        def by(codes: Tensor, lie: Tensor) -> Predict:
            def predict(state: Tensor, time: float, step: float) -> Tensor:
                times = (batch_of_times(value, len(state), state.device) for value in (time, step))
                first, second = times
                return self(state, first, codes, lie, second).float()

            return predict

        free = by(torch.zeros_like(semantics), slopes)
        return apply_guidance(by(semantics, slopes), free, guidance)

    def to_state(self, height: Tensor) -> Tensor:
        """Return normalised heights, (batch, 1, ny, nx), from metres, (batch, ny, nx)."""
        return ((torch.log1p(height.clamp(min=0)) - self.config.centre) / self.config.spread)[
            :, None
        ]

    def to_height(self, state: Tensor) -> Tensor:
        """Return metres, (batch, ny, nx) and not negative, from a state, (batch, 1, ny, nx)."""
        return torch.expm1(state[:, 0].float() * self.config.spread + self.config.centre).clamp(
            min=0
        )

    def _check(self, state: Tensor, semantics: Tensor, slopes: Tensor) -> None:
        batch, _, ny, nx = state.shape
        if semantics.shape != (batch, ny, nx) or slopes.shape != (batch, SLOPES, ny, nx):
            raise ModelError(
                f"semantics {tuple(semantics.shape)} and slopes {tuple(slopes.shape)} do not fit "
                f"a state of {tuple(state.shape)}",
                f"give ({batch}, {ny}, {nx}) and ({batch}, {SLOPES}, {ny}, {nx})",
            )
        if ny % self.multiple or nx % self.multiple:
            raise ModelError(
                f"{ny} x {nx} columns cannot be halved", f"give multiples of {self.multiple}"
            )

    def flops(self, ny: int, nx: int) -> int:
        """Return the floating-point operations of products in one evaluation on one sample."""
        total, widths = 0, self.config.channels
        total += 2 * ny * nx * 9 * (1 + SLOPES) * widths[0] + 2 * ny * nx * widths[0]
        for level, (width, count) in enumerate(zip(widths, self.config.blocks, strict=True)):
            pixels = (ny >> level) * (nx >> level)
            chains = 1 if level == len(self.halving) else 2
            total += chains * count * 2 * pixels * 18 * width * width
            # Halving and doubling are four products of a quarter of the pixels.
            if level < len(self.halving):
                total += 2 * 2 * pixels * width * widths[level + 1] + 2 * pixels * width * width
        return total


def ground_slopes(ground: Tensor, voxel_size: float) -> Tensor:
    """Return slopes to the east and to the north (m/m) and curvature (1/m) of the ground.

    Only the ground's shape is an input: heights above the sea would tie a world to the place of
    its training data.

    Parameters
    ----------
    ground : Tensor (batch, ny, nx)
        Metres, rows from north to south.
    voxel_size : float
        Metres.

    Returns
    -------
    Tensor (batch, 3, ny, nx) float32
    """
    padded = nn.functional.pad(ground.float()[:, None], (1, 1, 1, 1), mode="replicate")
    east, west = padded[:, :, 1:-1, 2:], padded[:, :, 1:-1, :-2]
    north, south = padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]
    here = padded[:, :, 1:-1, 1:-1]
    curvature = (east + west + north + south - 4 * here) / voxel_size**2
    return torch.cat(
        [(east - west) / (2 * voxel_size), (north - south) / (2 * voxel_size), curvature], 1
    )


def height_loss(
    model: HeightFlow,
    height: Tensor,
    semantics: Tensor,
    ground: Tensor,
    voxel_size: float,
    generator: torch.Generator,
    objective: Objective = "flow",
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """Return the loss of one batch.

    Parameters
    ----------
    model : HeightFlow
        The network.
    height : Tensor (batch, ny, nx)
        Metres above the ground.
    semantics : Tensor (batch, ny, nx)
        Class codes.
    ground : Tensor (batch, ny, nx)
        Metres.
    voxel_size : float
        Metres.
    generator : torch.Generator
        Draws times and noise.
    objective : str
        "flow" or "shortcut".
    valid : Tensor (batch, ny, nx) bool, optional
        Where the data count.
    """
    slopes = ground_slopes(ground, voxel_size)

    def network(state: Tensor, time: Tensor, step: Tensor) -> Tensor:
        return model(state, time, semantics, slopes, step).float()

    loss = flow_loss if objective == "flow" else shortcut_loss
    weight = None if valid is None else valid[:, None].float()
    return loss(
        model.flow, network, model.to_state(height), len(height), over_maps, generator, weight
    )


class PixelNorm(nn.Module):
    """RMS norm over the channels of a pixel, which does not depend on the size of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features, (batch, channels, ny, nx)."""
        wide = x.float()
        scaled = wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        return (scaled * self.weight[:, None, None]).to(x.dtype)


class MapBlock(nn.Module):
    """x + conv(gelu(conv(norm(x) * (1 + scale) + offset))), scale and offset from the time."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.change = nn.Linear(embedding, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def small_layers(self) -> list[nn.Module]:
        """Return the layers that are initialised with small weights, see `initialise`."""
        return [self.out, self.change]

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return the block's features; `embedded` is the time, (batch, embedding)."""
        scale, offset = self.change(embedded)[:, :, None, None].chunk(2, 1)
        h = self.norm(x) * (1 + scale) + offset
        return x + self.out(nn.functional.gelu(self.first(h)))


def _chain(width: int, count: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(MapBlock(width, embedding) for _ in range(count))
