"""TexVAE: features of voxels to a latent at the same voxels, and from it one 2D Gaussian a voxel.

After Liu et al., AAAI 2026: no spatial compression, 8 latent channels, and 16 numbers a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen import sparse
from earthgen.models.blocks import Chain, Projection, check_stride
from earthgen.models.gaussian_head import NUMBERS, Discs, discs, normals
from earthgen.models.latents import Latent, Statistics
from earthgen.models.presets import TexVaeConfig
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Sites
from earthgen.splats.spherical_harmonics import C0


class TexVAE(nn.Module):
    """The autoencoder of texture."""

    def __init__(self, config: TexVaeConfig) -> None:
        super().__init__()
        self.config = config
        width, blocks = config.channels, config.blocks
        self.stem = Projection(config.inputs, width)
        self.encoder = Chain(config.encoder, width, blocks)
        self.encoder_norm = sparse.LayerNorm(width)
        self.moments = Projection(width, 2 * config.latent)
        self.latent = Projection(config.latent, width)
        self.decoder = Chain(config.decoder, width, blocks)
        self.decoder_norm = sparse.LayerNorm(width)
        self.head = Projection(width, NUMBERS)
        self.statistics = Statistics(config.latent)

    def encode(self, features: SparseTensor) -> Latent:
        """The latent of (n, inputs) features of voxels at L, such as those of `voxel_features`."""
        check_stride(features.sites, 1)
        return Latent.of(self.moments(self.encoder_norm(self.encoder(self.stem(features)))))

    def decode(self, latent: SparseTensor, normal: Tensor) -> Discs:
        """One Gaussian a voxel.

        normal : (n, 3) float, unit, of the surface that each voxel stands for: what a Gaussian's
            rotation begins from
        """
        x = self.head(self.decoder_norm(self.decoder(self.latent(latent))))
        size = latent.place.voxel_size
        return discs(
            x.features.float(), normal, size, reach=self.config.reach, scales=self.config.scales
        )

    def forward(
        self, features: SparseTensor, normal: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Latent, Discs]:
        """What training needs: the latent, and the Gaussians of a draw of it."""
        latent = self.encode(features)
        return latent, self.decode(latent.sample(generator), normal)

    def flops(self, sites: Sites) -> int:
        """Of products to encode and decode voxels, two a multiplication and addition."""
        parts = (self.stem, self.encoder, self.moments, self.latent, self.decoder, self.head)
        return sum(part.flops(sites) for part in parts)


CROSS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Columns of a cross around a voxel: east, west, north, south."""


def voxel_features(sites: Sites, rgb: Tensor, normal: Tensor) -> SparseTensor:
    """(n, 18) float32 features of voxels: five colours of a cross, and the normal.

    rgb : (n, 3) float in [0, 1]; normal : (n, 3) unit

    The colours are the voxel's own and those of its neighbours to the east, west, north and south,
    at its height or else one above or below; its own where there is none. (The paper takes five
    pixels of a view in the same way.)
    """
    colours = rgb.float() * 2 - 1
    parts = [colours]
    for east, north in CROSS:
        row = torch.full((len(sites),), -1, dtype=torch.int64, device=sites.device)
        for up in (0, 1, -1):
            step = torch.tensor([0, east, north, up], dtype=torch.int32, device=sites.device)
            found = sites.rows(sites.coordinates + step)
            row = torch.where(row < 0, found, row)
        parts.append(
            colours[torch.where(row < 0, torch.arange(len(sites), device=sites.device), row)]
        )
    return SparseTensor(sites, torch.cat([*parts, normal.float()], 1))


@dataclass(frozen=True)
class TexLoss:
    """The parts of `tex_loss`; `total` is what is minimised. Each is a mean over voxels."""

    total: Tensor
    colour: Tensor
    shape: Tensor
    divergence: Tensor


def tex_loss(
    latent: Latent,
    found: Discs,
    rgb: Tensor,
    normal: Tensor,
    *,
    known: Tensor | None = None,
    surface: Tensor | None = None,
    divergence_weight: float = 1e-4,
    shape_weight: float = 0.1,
) -> TexLoss:
    """Gaussians against what is known of their voxels, without rendering: colour, place and shape.

    rgb : (n, 3) float in [0, 1]; known : (n,) bool, where the colour was seen
    normal : (n, 3) unit
    surface : (n, 3) metres from the voxel's centre to the surface it stands for; None wants means
        at the centre

    Opaque discs in the surface, of a deviation of half a voxel, look like a closed surface from all
    sides. Fine texture, and what views see, comes from a loss on rendered views:
    `found.splats(...)` gives what they are made of.
    """
    colour = (found.sh[:, 0] * C0 + 0.5 - rgb.float()).abs()
    weight = torch.ones_like(colour) if known is None else known[:, None].float().expand_as(colour)
    colour_loss = (colour * weight).sum() / weight.sum().clamp(min=1)
    size = found.voxel_size
    at = torch.zeros_like(found.offset) if surface is None else surface.float()
    place = ((found.offset - at) / size).square().mean(1)
    extent = (found.scale / (0.5 * size)).log().square().mean(1)
    turned = 1 - (normals(found.rotation) * normal.float()).sum(1)
    view = found.sh[:, 1:].square().flatten(1).mean(1)
    opaque = -found.opacity.clamp(min=1e-4).log()
    each = place + 0.25 * extent + turned + 0.1 * view + 0.1 * opaque
    shape_loss = each.sum() / max(len(each), 1)
    divergence = latent.divergence()
    total = colour_loss + shape_weight * shape_loss + divergence_weight * divergence
    return TexLoss(total, colour_loss, shape_loss, divergence)
