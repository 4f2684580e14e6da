"""TexVAE: from features of voxels to a latent at the same voxels, and to one 2D Gaussian per voxel.

After Liu et al., AAAI 2026: no spatial compression, 8 latent channels, and 16 numbers a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earthgen.models.blocks import Chain, Projection, check_stride
from earthgen.models.gaussian_head import (
    CHANNELS,
    VoxelGaussians,
    decode_gaussians,
    normals_from_rotation,
)
from earthgen.models.latents import Latent, Statistics
from earthgen.models.presets import TexVaeConfig
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.spherical_harmonics import C0


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
        self.head = Projection(width, CHANNELS)
        self.statistics = Statistics(config.latent)

    def encode(self, features: SparseTensor) -> Latent:
        """Return the latent of (n, inputs) features of voxels, such as of `voxel_features`."""
        check_stride(features.sites, 1)
        return Latent.of(self.moments(self.encoder_norm(self.encoder(self.stem(features)))))

    def decode(self, latent: SparseTensor, normal: Tensor) -> VoxelGaussians:
        """Return one Gaussian per voxel.

        Parameters
        ----------
        latent : SparseTensor (n, latent)
            Latent at the voxels.
        normal : Tensor (n, 3) float
            Unit normals of the surface, to which the Gaussians' rotations are relative.
        """
        x = self.head(self.decoder_norm(self.decoder(self.latent(latent))))
        size = latent.place.voxel_size
        return decode_gaussians(
            x.features.float(), normal, size, reach=self.config.reach, scales=self.config.scales
        )

    def forward(
        self, features: SparseTensor, normal: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Latent, VoxelGaussians]:
        """Return the latent, and the Gaussians of a sample of it."""
        latent = self.encode(features)
        return latent, self.decode(latent.sample(generator), normal)

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
    shape: Tensor
    divergence: Tensor


def tex_loss(
    latent: Latent,
    gaussians: VoxelGaussians,
    rgb: Tensor,
    normal: Tensor,
    *,
    known: Tensor | None = None,
    surface: Tensor | None = None,
    kl_weight: float = 1e-4,
    shape_weight: float = 0.1,
) -> TexLoss:
    """Compare Gaussians with their voxels without rendering: colour, place and shape.

    Opaque Gaussians in the surface, with a standard deviation of half a voxel, look like a closed
    surface from all sides. Fine texture comes from a loss on rendered views.

    Parameters
    ----------
    latent, gaussians : Latent, VoxelGaussians
        Results of `TexVAE.forward`.
    rgb : Tensor (n, 3) float
        Colours of the voxels in [0, 1].
    normal : Tensor (n, 3) float
        Unit normals.
    known : Tensor (n,), optional
        Weight of each colour, 0 if it was not seen.
    surface : Tensor (n, 3) float, optional
        Metres from the voxel's centre to its surface; None is the centre.
    kl_weight, shape_weight : float
        Weights of the divergence and of place and shape.
    """
    colour = (gaussians.sh[:, 0] * C0 + 0.5 - rgb.float()).abs()
    weight = torch.ones_like(colour) if known is None else known[:, None].float().expand_as(colour)
    colour_loss = (colour * weight).sum() / weight.sum().clamp(min=1)
    size = gaussians.voxel_size
    at = torch.zeros_like(gaussians.offset) if surface is None else surface.float()
    place = ((gaussians.offset - at) / size).square().mean(1)
    extent = (gaussians.scale / (0.5 * size)).log().square().mean(1)
    turned = 1 - (normals_from_rotation(gaussians.rotation) * normal.float()).sum(1)
    view = gaussians.sh[:, 1:].square().flatten(1).mean(1)
    opaque = -gaussians.opacity.clamp(min=1e-4).log()
    each = place + 0.25 * extent + turned + 0.1 * view + 0.1 * opaque
    shape_loss = each.sum() / max(len(each), 1)
    divergence = latent.divergence()
    total = colour_loss + shape_weight * shape_loss + kl_weight * divergence
    return TexLoss(total, colour_loss, shape_loss, divergence)
