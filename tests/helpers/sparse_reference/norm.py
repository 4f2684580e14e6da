"""Norms of (n, channels) features, sample by sample and voxel by voxel."""

from __future__ import annotations

import torch
from torch import Tensor


def group_norm(
    features: Tensor, sample: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """(n, channels): torch's own for each sample. sample : (n,), which one each row is of."""
    found = features * weight + bias  # in the right shape, of no rows too; all are replaced
    for number in sorted(set(sample.tolist())):
        rows = torch.nonzero(sample == number)[:, 0]
        channels_first = features[rows].T[None]
        done = torch.native_group_norm(
            channels_first.contiguous(), weight, bias, 1, features.shape[1], len(rows), groups, eps
        )
        found = found.index_put((rows,), done[0][0].T)
    return found


def layer_norm(features: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(n, channels): each row by its own mean and variance."""
    mean = features.mean(1, keepdim=True)
    variance = ((features - mean) ** 2).mean(1, keepdim=True)
    return (features - mean) / torch.sqrt(variance + eps) * weight + bias


def rms_norm(features: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """(n, channels): each row by its own root mean square."""
    return features / torch.sqrt((features**2).mean(1, keepdim=True) + eps) * weight
