"""Latents of crops by a frozen StructVAE, computed on first use and kept in memory.

The latent of a crop is a function of its number, so the cache changes nothing but the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from earthgen.dataset.crop import ROWS, Crop
from earthgen.models.latents import Latent
from earthgen.sparse.sites import Place, make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.training.batches import Batch, make_batch
from earthgen.training.data import TrainingData


@dataclass(frozen=True)
class LatentBatch:
    """Crops without their voxels, and the latents of these voxels.

    Attributes
    ----------
    columns : Batch
        The crops without voxels.
    latent : Latent
        At the active cells.
    """

    columns: Batch
    latent: Latent

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device | str) -> LatentBatch:
        """Return the batch on another device."""
        latent = Latent(self.latent.mean.to(device), self.latent.log_variance.to(device))
        return LatentBatch(self.columns.to(device), latent)


@dataclass(frozen=True)
class CachedLatent:
    """The latent of one crop.

    Attributes
    ----------
    crop : Crop
        The columns, without voxels.
    cells : Tensor (m, 3) int32
        The active cells.
    moments : Tensor (m, 2 channels) float32
        Means and logarithms of variances.
    """

    crop: Crop
    cells: Tensor
    moments: Tensor


@dataclass(frozen=True)
class LatentPool:
    """The latents of `size` crops.

    Attributes
    ----------
    vae : StructVAE
        A frozen network.
    data : TrainingData
        The crops.
    seed : int
        Seed of the drawn crops.
    size : int
        Number of crops.
    device : torch.device
        Device of the network.
    cache : dict
        Latents by the number of the crop.
    """

    vae: Any
    data: TrainingData
    seed: int
    size: int
    device: torch.device
    cache: dict[int, CachedLatent] = field(default_factory=dict)

    def get(self, number: int) -> CachedLatent:
        """Return the latent of a crop. Two threads may compute the same one, with equal results."""
        number %= self.size
        if number not in self.cache:
            self.cache[number] = encode_crop(
                self.vae, self.data.crop(self.seed, number), self.device
            )
        return self.cache[number]


@torch.no_grad()
def encode_crop(vae: Any, crop: Crop, device: torch.device | str) -> CachedLatent:
    """Return a crop's latent in float32."""
    batch = make_batch([crop]).to(device)
    latent = vae.encode(batch.sites, batch.semantic)
    moments = torch.cat([latent.mean.features, latent.log_variance], 1).float().cpu()
    return CachedLatent(without_voxels(crop), latent.mean.coordinates[:, 1:].cpu(), moments)


def without_voxels(crop: Crop) -> Crop:
    """Return only the columns of a crop."""
    return replace(crop, xyz=crop.xyz[:0], **{name: getattr(crop, name)[:0] for name in ROWS})


def latent_batch(latents: list[CachedLatent], stride: int) -> LatentBatch:
    """Return the latents of several crops as a batch."""
    batch = make_batch([each.crop for each in latents])
    rows = [torch.nn.functional.pad(each.cells, (1, 0), value=n) for n, each in enumerate(latents)]
    place: Place = batch.sites.place
    sites, order = make_sites(torch.cat(rows), stride=stride, place=place)
    moments = torch.cat([each.moments for each in latents])[order]
    return LatentBatch(batch, Latent.of(SparseTensor(sites, moments)))
