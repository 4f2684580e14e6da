"""Latents of crops by a frozen StructVAE, computed when they are first drawn and kept in memory.

The latent of a crop is a function of its number, so what is kept or not changes nothing but the
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from earthgen.dataset.crop import ROWS, Crop
from earthgen.models.latents import Latent
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Place, make_sites
from earthgen.training.batches import Batch, make_batch
from earthgen.training.data import Data


@dataclass(frozen=True)
class LatentBatch:
    """Crops without their voxels, and the latents of these.

    Attributes
    ----------
    batch : the columns
    latent : at the active cells
    """

    batch: Batch
    latent: Latent

    def __len__(self) -> int:
        return len(self.batch)

    def to(self, device: torch.device | str) -> LatentBatch:
        latent = Latent(self.latent.mean.to(device), self.latent.log_variance.to(device))
        return LatentBatch(self.batch.to(device), latent)


@dataclass(frozen=True)
class Kept:
    """One crop's: columns, (m, 3) int32 cells, and (m, 2 channels) float32 means and logarithms
    of variances."""

    crop: Crop
    cells: Tensor
    moments: Tensor


@dataclass(frozen=True)
class LatentPool:
    """The latents of `size` crops.

    vae : a frozen StructVAE; seed : of the crops' draws
    """

    vae: Any
    data: Data
    seed: int
    size: int
    device: torch.device
    kept: dict[int, Kept] = field(default_factory=dict)

    def get(self, number: int) -> Kept:
        """The latent of a crop of the pool; (another thread may compute the same at once, to the
        same end)"""
        number %= self.size
        if number not in self.kept:
            self.kept[number] = encoded(self.vae, self.data.crop(self.seed, number), self.device)
        return self.kept[number]


@torch.no_grad()
def encoded(vae: Any, crop: Crop, device: torch.device | str) -> Kept:
    """A crop's latent in float32."""
    batch = make_batch([crop]).to(device)
    latent = vae.encode(batch.sites, batch.semantic)
    moments = torch.cat([latent.mean.features, latent.log_variance], 1).float().cpu()
    return Kept(without_voxels(crop), latent.mean.coordinates[:, 1:].cpu(), moments)


def without_voxels(crop: Crop) -> Crop:
    """The columns of a crop alone."""
    return replace(crop, xyz=crop.xyz[:0], **{name: getattr(crop, name)[:0] for name in ROWS})


def latent_batch(kept: list[Kept], stride: int) -> LatentBatch:
    """Several crops' latents side by side."""
    batch = make_batch([each.crop for each in kept])
    rows = [torch.nn.functional.pad(each.cells, (1, 0), value=n) for n, each in enumerate(kept)]
    place: Place = batch.sites.place
    sites, order = make_sites(torch.cat(rows), stride=stride, place=place)
    moments = torch.cat([each.moments for each in kept])[order]
    return LatentBatch(batch, Latent.of(SparseTensor(sites, moments)))
