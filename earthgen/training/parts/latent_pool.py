"""Latents of crops by a frozen StructVAE, computed on first use and kept in memory.

The latent of a crop is a function of its number, so the cache changes nothing but the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
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
    group : int
        Crops that are encoded at once.
    cache : dict
        Latents by the number of the crop.
    """

    vae: Any
    data: TrainingData
    seed: int
    size: int
    device: torch.device
    group: int = 1
    cache: dict[int, CachedLatent] = field(default_factory=dict)

    def get(self, number: int) -> CachedLatent:
        """Return the latent of a crop. Two threads may compute the same one, with equal results."""
        return self.take([number])[0]

    def take(self, numbers: Sequence[int]) -> list[CachedLatent]:
        """Return the latents of several crops.

        Crops are encoded `group` at a time, those of consecutive numbers, so that a latent depends
        on its number only.
        """
        places = [number % self.size for number in numbers]
        for first in sorted({place - place % self.group for place in places}):
            group = range(first, min(first + self.group, self.size))
            if any(place not in self.cache for place in group if place in places):
                crops = [self.data.crop(self.seed, place) for place in group]
                encoded = encode_crops(self.vae, crops, self.device)
                self.cache.update(zip(group, encoded, strict=True))
        return [self.cache[place] for place in places]


@torch.no_grad()
def encode_crops(vae: Any, crops: Sequence[Crop], device: torch.device | str) -> list[CachedLatent]:
    """Return the latents of crops, encoded in one batch: in float32 on a CPU, else in bfloat16."""
    kind = torch.device(device).type
    batch = make_batch(crops).to(device)
    with torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu"):
        latent = vae.encode(batch.sites, batch.semantic)
    moments = torch.cat([latent.mean.features, latent.log_variance], 1).float().cpu()
    cells, bounds = latent.mean.coordinates[:, 1:].cpu(), latent.mean.sites.bounds
    return [
        CachedLatent(without_voxels(crop), cells[first:last], moments[first:last])
        for crop, (first, last) in zip(crops, pairwise(bounds), strict=True)
    ]


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
