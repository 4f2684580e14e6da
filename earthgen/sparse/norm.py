"""Normalisation of features: over the voxels of a sample and a group of channels, or over the
channels of a voxel.

Statistics are taken in float32 for half dtypes, else in the dtype of the features, and the result
has that dtype again. Weights may be of another dtype: they are cast.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from earthgen.errors import SparseError
from earthgen.sparse.products import sum_dtype
from earthgen.sparse.tensor import SparseTensor


def group_norm(
    x: SparseTensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> SparseTensor:
    """Group normalisation (Wu & He 2018): mean 0 and variance 1 over the voxels of a sample and a
    group of channels.

    weight, bias : (channels,), by default 1 and 0

    Samples do not see each other; one without voxels takes no part. Raises SparseError,
    SparseError.
    """
    _check_groups(groups, x.channels)
    scale, offset = _cast(x, weight), _cast(x, bias)
    bounds = x.sites.bounds
    sizes = [last - first for first, last in pairwise(bounds)]
    done = []
    for rows in torch.split(
        x.features, sizes
    ):  # split and cat: the gradient is put together once, not once a sample
        if not len(rows):
            continue
        grouped = rows.to(sum_dtype(rows.dtype)).reshape(len(rows), groups, -1)
        variance, mean = torch.var_mean(grouped, (0, 2), correction=0, keepdim=True)
        found = ((grouped - mean) * (variance + eps).rsqrt()).flatten(1)
        done.append(_scaled(found, scale, offset).to(rows.dtype))
    if not done:  # of no voxels, and still the weights have a gradient
        done = [_scaled(x.features, scale, offset).to(x.features.dtype)]
    return x.with_features(torch.cat(done))


def layer_norm(
    x: SparseTensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> SparseTensor:
    """Layer normalisation (Ba et al. 2016): mean 0 and variance 1 over the channels of each voxel.

    weight, bias : (channels,), by default 1 and 0

    Raises SparseError, SparseError.
    """
    scale, offset = _cast(x, weight), _cast(x, bias)
    features = x.features.to(sum_dtype(x.features.dtype))
    found = nn.functional.layer_norm(features, (x.channels,), scale, offset, eps)
    return x.with_features(found.to(x.features.dtype))


def rms_norm(x: SparseTensor, weight: Tensor | None = None, eps: float = 1e-6) -> SparseTensor:
    """Root mean square normalisation (Zhang & Sennrich 2019): mean square 1 over the channels of
    each voxel.

    weight : (channels,), by default 1

    Raises SparseError, SparseError.
    """
    scale = _cast(x, weight)
    features = x.features.to(sum_dtype(x.features.dtype))
    found = features * (features.square().mean(1, keepdim=True) + eps).rsqrt()
    return x.with_features(_scaled(found, scale, None).to(x.features.dtype))


class GroupNorm(nn.Module):
    """`group_norm` with weight and bias. Raises SparseError where the groups do not divide the
    channels."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        _check_groups(groups, channels)
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return group_norm(x, self.groups, self.weight, self.bias, self.eps)


class LayerNorm(nn.Module):
    """`layer_norm` with weight and bias."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """`rms_norm` with a weight."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return rms_norm(x, self.weight, self.eps)


def _check_groups(groups: int, channels: int) -> None:
    if groups < 1 or channels % groups:
        raise SparseError(
            f"{channels} channels are not divisible into {groups} groups",
            "give a number of groups that divides them",
        )


def _cast(x: SparseTensor, weight: Tensor | None) -> Tensor | None:
    """A weight or bias in the dtype of statistics."""
    if weight is None:
        return None
    if weight.shape != (x.channels,):
        raise SparseError(
            f"a norm's weight has shape {tuple(weight.shape)}, features {tuple(x.features.shape)}",
            f"make the norm for {x.channels} channels",
        )
    if weight.device != x.features.device:
        raise SparseError(
            f"a norm's weight is on {weight.device}, features are on {x.features.device}",
            "bring them to one device",
        )
    return weight.to(sum_dtype(x.features.dtype))


def _scaled(features: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        features = features * weight
    return features if bias is None else features + bias
