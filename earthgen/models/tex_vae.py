"""TexVAE: from features of voxels to a latent at the same voxels, and back to their colours.

After Liu et al., AAAI 2026: no spatial compression, 8 latent channels. The paper decodes 16 numbers
of a 2D Gaussian; here a colour, and shape and place come from the geometry
(docs/background/models.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen.models.blocks import Chain, Projection, check_stride
from earthgen.models.latents import Latent, Statistics
from earthgen.models.presets import TexVaeConfig
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.spherical_harmonics import C0

COLOUR = slice(10, 13)
"""Channels of the colour of weights that decode 16."""


class TexVAE(nn.Module):
    """The autoencoder of texture."""

    def __init__(self, config: TexVaeConfig) -> None:
        super().__init__()
        self.config = config
        width, blocks = config.channels, config.blocks
        self.stem = Projection(config.inputs, width)
        self.encoder = Chain(config.encoder, width, blocks)
        self.encoder_norm = LayerNorm(width)
        self.moments = Projection(width, 2 * config.latent)
        self.latent = Projection(config.latent, width)
        self.decoder = Chain(config.decoder, width, blocks)
        self.decoder_norm = LayerNorm(width)
        self.head = Projection(width, config.outputs)
        self.statistics = Statistics(config.latent)

    def encode(self, features: SparseTensor) -> Latent:
        """Return the latent of (n, inputs) features of voxels, such as of `voxel_features`."""
        check_stride(features.sites, 1)
        return Latent.of(self.moments(self.encoder_norm(self.encoder(self.stem(features)))))

    def decode(self, latent: SparseTensor) -> Tensor:
        """Return the colours of voxels, (n, 3) float32: sRGB about [0, 1], not clipped.

        Parameters
        ----------
        latent : SparseTensor (n, latent)
            Latent at the voxels.
        """
        x = self.head(self.decoder_norm(self.decoder(self.latent(latent)))).features.float()
        return (x if self.config.outputs == 3 else x[:, COLOUR]) * C0 + 0.5

    def forward(
        self, features: SparseTensor, generator: torch.Generator | None = None
    ) -> tuple[Latent, Tensor]:
        """Return the latent, and the colours of a sample of it."""
        latent = self.encode(features)
        return latent, self.decode(latent.sample(generator))

    def flops(self, sites: Sites) -> int:
        """Return the floating-point operations of products to encode and decode voxels."""
        parts = (self.stem, self.encoder, self.moments, self.latent, self.decoder, self.head)
        return sum(part.flops(sites) for part in parts)


CROSS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Offsets of the neighbouring columns: east, west, north, south."""


def voxel_features(sites: Sites, rgb: Tensor, normal: Tensor) -> SparseTensor:
    """Return features of voxels: five colours and the normal.

    The colours are the voxel's own and those of its neighbours to the east, west, north and south,
    at its height or else one above or below; its own if there is no neighbour. (The paper takes
    five pixels of a view in the same way.)

    Parameters
    ----------
    sites : Sites
        The n voxels.
    rgb : Tensor (n, 3) float
        Colours in [0, 1].
    normal : Tensor (n, 3) float
        Unit normals.

    Returns
    -------
    SparseTensor (n, 18) float32
    """
    colours = rgb.float() * 2 - 1
    parts = [colours]
    for east, north in CROSS:
        row = torch.full((len(sites),), -1, dtype=torch.int64, device=sites.device)
        for up in (0, 1, -1):
            step = torch.tensor([0, east, north, up], dtype=torch.int32, device=sites.device)
            row = torch.where(row < 0, sites.rows(sites.coordinates + step), row)
        parts.append(
            colours[torch.where(row < 0, torch.arange(len(sites), device=sites.device), row)]
        )
    return SparseTensor(sites, torch.cat([*parts, normal.float()], 1))


@dataclass(frozen=True)
class TexLoss:
    """The terms of `tex_loss`, means over voxels; `total` is minimised."""

    total: Tensor
    colour: Tensor
    divergence: Tensor


def tex_loss(
    latent: Latent,
    colours: Tensor,
    rgb: Tensor,
    *,
    known: Tensor | None = None,
    kl_weight: float = 1e-4,
) -> TexLoss:
    """Compare the colours of voxels with true ones, without rendering.

    Parameters
    ----------
    latent, colours : Latent, Tensor (n, 3)
        Results of `TexVAE.forward`.
    rgb : Tensor (n, 3) float
        Colours of the voxels in [0, 1].
    known : Tensor (n,), optional
        Weight of each colour, 0 if it was not seen.
    kl_weight : float
        Weight of the divergence.
    """
    error = (colours - rgb.float()).abs()
    weight = torch.ones_like(error) if known is None else known[:, None].float().expand_as(error)
    colour_loss = (error * weight).sum() / weight.sum().clamp(min=1)
    divergence = latent.divergence()
    return TexLoss(colour_loss + kl_weight * divergence, colour_loss, divergence)
