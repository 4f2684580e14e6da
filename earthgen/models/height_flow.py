"""A flow on height maps in 2D: from land cover, image and ground to heights above the ground.

It is not in the paper, whose StructFM takes a depth as a condition; this flow makes one where none
was measured. All layers have a bounded reach and norms are over the channels of a pixel, so a pixel
far from the edge has the same result in windows of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from earthgen.errors import ModelError
from earthgen.models.blocks import Embedding, lookup_table
from earthgen.models.flow import Flow, Predict, apply_guidance, batch_of_times, flow_loss, over_maps
from earthgen.models.height_state import OBJECT_MAPS, height_scales, to_height, to_state
from earthgen.models.presets import HIDDEN, MAPS, HeightFlowConfig

SLOPES = 3
"""Channels of the ground's shape: slope to the east, slope to the north, curvature."""

IMAGE, SURFACE = 4, 2
"""Channels of an image, RGB in [-1, 1] and where it is known; and of known heights, their state and
where they are known."""


@dataclass(frozen=True)
class HeightCondition:
    """What a network is given about columns, made by `HeightFlow.condition`.

    Attributes
    ----------
    semantics : Tensor (batch, ny, nx)
        Class codes, 0 unmapped, `HIDDEN` where no land cover is given.
    slopes : Tensor (batch, SLOPES, ny, nx)
        Of `ground_slopes`.
    maps : Tensor (batch, channels, ny, nx)
        All maps of numbers that the network takes; the image is the last of them.
    scales : tuple of Tensor (batch, ny, nx), optional
        Centre and scale of the state "object", metres; None for the state "log".
    style : Tensor (batch,), optional
        Numbers of styles, 0 for any.
    map_kind : Tensor (batch,), optional
        Numbers of kinds of maps (`earthgen.models.presets.MAPS`), 0 for any.
    """

    semantics: Tensor
    slopes: Tensor
    maps: Tensor
    scales: tuple[Tensor, Tensor] | None
    style: Tensor | None = None
    map_kind: Tensor | None = None


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
        self.by_object = config.state == "object"
        self.embed = Embedding(embedding, config.flow.logit_time)
        self.style = lookup_table(config.styles + 1, embedding) if config.styles else None
        self.map_kind = lookup_table(len(MAPS) + 1, embedding) if config.map_kinds else None
        self.semantic = lookup_table(config.classes + config.hidden_token, widths[0])
        self.inputs = 1 + SLOPES
        if self.by_object:
            self.inputs += 1 + config.hidden_token + OBJECT_MAPS
            self.inputs += SURFACE * config.surface + IMAGE * config.image
        self.stem = nn.Conv2d(self.inputs, widths[0], 3, padding=1)
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

    def condition(
        self,
        semantics: Tensor,
        ground: Tensor,
        voxel_size: float,
        *,
        told: Tensor | None = None,
        roof: Tensor | None = None,
        objects: Tensor | None = None,
        style: Tensor | None = None,
        map_kind: Tensor | None = None,
        image: Tensor | None = None,
        surface: Tensor | None = None,
    ) -> HeightCondition:
        """Return what the network is given about columns.

        Parameters
        ----------
        semantics : Tensor (batch, ny, nx)
            Class codes, 0 unmapped, `HIDDEN` where no land cover is given.
        ground : Tensor (batch, ny, nx)
            Height of the ground, metres.
        voxel_size : float
            Metres.
        told : Tensor (batch, ny, nx), optional
            Heights of buildings, and of the canopy of woods, in metres, 0 where none is told; used
            in the state "object".
        roof : Tensor (batch, ny, nx), optional
            How far told roofs lie below the heights of their buildings, metres, NaN where none is
            told; not used by networks without `roofs`.
        objects : Tensor (batch, OBJECT_MAPS, ny, nx), optional
            Of `earthgen.models.height_state.object_maps`; used in the state "object".
        style : Tensor (batch,), optional
            Numbers of styles, 0 for any.
        map_kind : Tensor (batch,), optional
            Numbers of kinds of maps, 0 for any; not used by networks without `map_kinds`.
        image : Tensor (batch, 3, ny, nx), optional
            sRGB in [0, 1] seen from above, NaN unknown; not used by networks without `image`.
        surface : Tensor (batch, ny, nx), optional
            Known heights above the ground, metres, NaN unknown; not used by networks without
            `surface`.

        Raises
        ------
        ModelError
            If maps have other shapes.
        """
        batch, ny, nx = semantics.shape
        if not self.config.hidden_token:
            semantics = torch.where(semantics == HIDDEN, 0, semantics)
        shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {"ground": (ground, (batch, ny, nx))}
        if told is not None:
            shapes["told"] = told, (batch, ny, nx)
        if roof is not None:
            shapes["roof"] = roof, (batch, ny, nx)
        if objects is not None:
            shapes["objects"] = objects, (batch, OBJECT_MAPS, ny, nx)
        if image is not None:
            shapes["image"] = image, (batch, 3, ny, nx)
        if surface is not None:
            shapes["surface"] = surface, (batch, ny, nx)
        for name, (values, shape) in shapes.items():
            if values.shape != shape:
                raise ModelError(
                    f"{name} {tuple(values.shape)} does not fit semantics of {(batch, ny, nx)}",
                    f"give {shape}",
                )
        slopes = ground_slopes(ground, voxel_size)
        if not self.by_object:
            return HeightCondition(semantics, slopes, slopes, None, style, map_kind)
        known = torch.zeros_like(ground, dtype=torch.float32) if told is None else told.float()
        scales = height_scales(semantics, known, roof if self.config.roofs else None)
        if objects is None:
            objects = slopes.new_zeros(batch, OBJECT_MAPS, ny, nx)
        maps = [slopes, scales[0][:, None] / 10]
        if self.config.hidden_token:
            maps.append(scales[1][:, None] / 5)
        maps.append(objects.float())
        if self.config.surface:
            maps.append(_surface_maps(surface, scales))
        if self.config.image:
            maps.append(_image_maps(image, slopes))
        return HeightCondition(semantics, slopes, torch.cat(maps, 1), scales, style, map_kind)

    def forward(self, state: Tensor, time: Tensor, condition: HeightCondition) -> Tensor:
        """Return the flow's prediction.

        Parameters
        ----------
        state : Tensor (batch, 1, ny, nx)
            The network's input for a state (`Flow.network_input`); ny and nx are multiples of
            `multiple`.
        time : Tensor (batch,)
            Times in [0, 1].
        condition : HeightCondition
            Of the columns.

        Returns
        -------
        Tensor (batch, 1, ny, nx)

        Raises
        ------
        ModelError
            If the state does not fit the condition.
        """
        self._check(state, condition)
        embedded = self.embed(time)
        if self.style is not None:
            style = torch.zeros_like(time) if condition.style is None else condition.style
            embedded = embedded + self.style(style.long())
        if self.map_kind is not None:
            kind = torch.zeros_like(time) if condition.map_kind is None else condition.map_kind
            embedded = embedded + self.map_kind(kind.long())
        # Half precision has steps of 0.1 m at 30 m: what comes in and goes out is full.
        with torch.autocast(state.device.type, enabled=False):
            x = self.stem(torch.cat([state.float(), condition.maps.float()], 1))
        x = x + self.semantic(condition.semantics.long()).permute(0, 3, 1, 2)
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
        with torch.autocast(state.device.type, enabled=False):
            return self.head(self.norm(x.float()))

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

    def predictor(self, condition: HeightCondition, guidance: float = 1.0) -> Predict:
        """Return a function for `earthgen.models.flow.sample`, of (batch, 1, ny, nx) states."""

        def by(known: HeightCondition) -> Predict:
            def predict(state: Tensor, time: float) -> Tensor:
                times = batch_of_times(time, len(state), state.device)
                return self(self.flow.network_input(state, time), times, known).float()

            return predict

        return apply_guidance(by(condition), by(self.without_guides(condition)), guidance)

    def without_guides(self, condition: HeightCondition) -> HeightCondition:
        """Return a condition without classes and image, which guidance goes away from.

        Centre and scale stay, because the states of both have to mean the same heights.
        """
        hidden = HIDDEN if self.config.hidden_token else 0
        maps = condition.maps
        if self.by_object and self.config.image:
            maps = torch.cat([maps[:, :-IMAGE], torch.zeros_like(maps[:, -IMAGE:])], 1)
        return replace(condition, semantics=torch.full_like(condition.semantics, hidden), maps=maps)

    def to_state(self, height: Tensor, condition: HeightCondition) -> Tensor:
        """Return normalised heights, (batch, 1, ny, nx), from metres, (batch, ny, nx)."""
        if condition.scales is not None:
            return to_state(height, *condition.scales)
        log = torch.log1p(height.clamp(min=0))
        return ((log - self.config.centre) / self.config.spread)[:, None]

    def to_height(self, state: Tensor, condition: HeightCondition) -> Tensor:
        """Return metres, (batch, ny, nx) and not negative, from a state, (batch, 1, ny, nx)."""
        if condition.scales is not None:
            return to_height(state, *condition.scales)
        log = state[:, 0].float() * self.config.spread + self.config.centre
        return torch.expm1(log).clamp(min=0)

    def _check(self, state: Tensor, condition: HeightCondition) -> None:
        batch, _, ny, nx = state.shape
        if condition.semantics.shape != (batch, ny, nx):
            raise ModelError(
                f"conditions of {tuple(condition.semantics.shape)} do not fit a state of "
                f"{tuple(state.shape)}",
                f"give those of ({batch}, {ny}, {nx})",
            )
        if ny % self.multiple or nx % self.multiple:
            raise ModelError(
                f"{ny} x {nx} columns cannot be halved", f"give multiples of {self.multiple}"
            )

    def flops(self, ny: int, nx: int) -> int:
        """Return the floating-point operations of products in one evaluation on one sample."""
        total, widths = 0, self.config.channels
        total += 2 * ny * nx * 9 * self.inputs * widths[0] + 2 * ny * nx * widths[0]
        for level, (width, count) in enumerate(zip(widths, self.config.blocks, strict=True)):
            pixels = (ny >> level) * (nx >> level)
            chains = 1 if level == len(self.halving) else 2
            total += chains * count * 2 * pixels * 18 * width * width
            # Halving and doubling are four products of a quarter of the pixels.
            if level < len(self.halving):
                total += 2 * 2 * pixels * width * widths[level + 1] + 2 * pixels * width * width
        return total


def _surface_maps(surface: Tensor | None, scales: tuple[Tensor, Tensor]) -> Tensor:
    """Return the state of known heights, 0 where unknown, and where it is known."""
    if surface is None:
        return scales[0].new_zeros(len(scales[0]), SURFACE, *scales[0].shape[1:])
    known = surface.isfinite()
    state = to_state(torch.where(known, surface, 0.0), *scales)
    return torch.cat([torch.where(known[:, None], state, 0.0), known[:, None].float()], 1)


def _image_maps(image: Tensor | None, like: Tensor) -> Tensor:
    """Return colours in [-1, 1], 0 where unknown, and where they are known."""
    if image is None:
        return like.new_zeros(len(like), IMAGE, *like.shape[2:])
    known = image.isfinite().all(1, keepdim=True)
    return torch.cat([torch.where(known, image.float() * 2 - 1, 0.0), known.float()], 1)


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
    condition: HeightCondition,
    generator: torch.Generator,
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
    condition : HeightCondition
        Of `HeightFlow.condition`.
    generator : torch.Generator
        Draws times and noise.
    valid : Tensor (batch, ny, nx) bool, optional
        Where the data count.
    """

    def network(state: Tensor, time: Tensor) -> Tensor:
        return model(state, time, condition).float()

    weight = None if valid is None else valid[:, None].float()
    state = model.to_state(height, condition)
    return flow_loss(model.flow, network, state, len(height), over_maps, generator, weight)


class PixelNorm(nn.Module):
    """RMS norm over the channels of a pixel, which does not depend on the size of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def modulated(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """Return norm(x) * (1 + scale) + offset; scale and offset are (batch, channels, 1, 1).

        Without gradients, on the CPU and in float32, it is one pass over the pixels instead of six
        (a fifth of the time of a whole evaluation).
        """
        flat = x.is_contiguous(memory_format=torch.channels_last)
        fits = x.device.type == "cpu" and x.dtype == torch.float32 and flat
        if torch.is_grad_enabled() or not fits:
            return self(x) * (1 + scale) + offset
        batch, channels = x.shape[:2]
        out = torch.empty_like(x)
        factor = (self.weight * (1 + scale[:, :, 0, 0].float())).contiguous()
        rows = [each.permute(0, 2, 3, 1).reshape(batch, -1, channels).numpy() for each in (x, out)]
        shift = offset[:, :, 0, 0].float().contiguous()
        _normalise(rows[0], factor.numpy(), shift.numpy(), rows[1])
        return out

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
        h = self.norm.modulated(x, scale, offset)
        return x + self.out(nn.functional.gelu(self.first(h)))


@njit(cache=True, nogil=True)
def _normalise(x: NDArray, factor: NDArray, offset: NDArray, out: NDArray) -> None:
    """out = x / rms(x) * factor + offset for (batch, pixels, channels) float32."""
    share = np.float32(1.0 / x.shape[2])
    for n in range(x.shape[0]):
        for row in range(x.shape[1]):
            total = np.float32(0.0)
            for c in range(x.shape[2]):
                total += x[n, row, c] * x[n, row, c]
            scale = np.float32(1.0) / np.sqrt(total * share + np.float32(1e-6))
            for c in range(x.shape[2]):
                out[n, row, c] = x[n, row, c] * scale * factor[n, c] + offset[n, c]


def _chain(width: int, count: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(MapBlock(width, embedding) for _ in range(count))
