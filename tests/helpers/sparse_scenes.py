"""Small sets of voxels to test sparse operations on, all in no particular order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earthgen.sparse.sites import HIGH, LOW, Place
from earthgen.sparse.tensor import SparseTensor, sparse_tensor


def voxels(
    count: int, *, extent: int = 6, at: Sequence[int] = (0, 0, 0), sample: int = 0, seed: int = 0
) -> Tensor:
    """(count, 4) int32: random voxels of a cube of `extent` an edge whose lowest corner is `at`,
    none twice."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.randperm(extent**3, generator=random)[:count]
    xyz = torch.stack(
        [cells // extent**2, cells // extent % extent, cells % extent], 1
    ) + torch.tensor(list(at))
    return torch.nn.functional.pad(xyz, (1, 0), value=sample).int()


def shell(n: int, *, at: Sequence[int] = (0, 0, 0), sample: int = 0, seed: int = 0) -> Tensor:
    """(2 n^2, 4) int32: smooth terrain of n x n columns, each two voxels deep."""
    x, y = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    top = (3 * torch.sin(x / 5.0) + 2 * torch.cos(y / 7.0)).floor().long()
    xyz = torch.cat([torch.stack([x, y, top - depth], -1).reshape(-1, 3) for depth in (0, 1)])
    xyz = xyz[
        torch.randperm(len(xyz), generator=torch.Generator().manual_seed(seed))
    ] + torch.tensor(list(at))
    return torch.nn.functional.pad(xyz, (1, 0), value=sample).int()


SCENES: dict[str, tuple[int, Tensor]] = {
    "random": (1, voxels(60)),
    "empty": (1, voxels(0)),
    "single": (1, voxels(1, at=(3, 1, 2))),
    "negative": (1, voxels(50, at=(-7, -4, -9))),
    "far": (1, voxels(50, at=(HIGH - 20, LOW + 15, 2**30))),
    "terrain": (1, shell(6)),
    # The second of its three samples has no voxel.
    "batch": (3, torch.cat([voxels(40, sample=2, seed=1), voxels(30, at=(-2, 3, -4), seed=2)])),
}
"""Number of samples and (n, 4) int32 coordinates, by name."""


def scene(
    name: str, channels: int, *, stride: int = 1, dtype: torch.dtype = torch.float64
) -> SparseTensor:
    """A scene with normal random features."""
    samples, coordinates = SCENES[name]
    features = normal(len(coordinates), channels).to(dtype)
    return sparse_tensor(coordinates, features, stride=stride, place=Place(((0, 0, 0),) * samples))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
