"""Normalisation of features: over the voxels of a sample and a group of channels, or over the
channels of a voxel.

Statistics are computed in float32 for half precision, otherwise in the dtype of the features. The
result has the dtype of the features. Weights may have another dtype: they are cast.
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
    """Group normalisation (Wu & He 2018, "Group Normalization"): mean 0 and variance 1 over the
    voxels of a sample and a group of channels.

    Samples are independent of each other.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Input.
    groups : int
        Number of groups, a divisor of the channels.
    weight, bias : Tensor (channels,), optional
        By default 1 and 0.
    eps : float
        Added to the variance.

    Raises
    ------
    SparseError
        If the groups do not divide the channels, or shapes or devices do not match.
    """
    _check_groups(groups, x.channels)
    scale, offset = _cast(x, weight), _cast(x, bias)
    bounds = x.sites.bounds
    sizes = [last - first for first, last in pairwise(bounds)]
    parts = []
    # split and cat: the gradient is assembled once and not once for each sample.
    for rows in torch.split(x.features, sizes):
        if not len(rows):
            continue
        grouped = rows.to(sum_dtype(rows.dtype)).reshape(len(rows), groups, -1)
        variance, mean = torch.var_mean(grouped, (0, 2), correction=0, keepdim=True)
        normalised = ((grouped - mean) * (variance + eps).rsqrt()).flatten(1)
        parts.append(_scale(normalised, scale, offset).to(rows.dtype))
    if not parts:  # without voxels the weights still need a gradient
        parts = [_scale(x.features, scale, offset).to(x.features.dtype)]
    return x.with_features(torch.cat(parts))


def layer_norm(
    x: SparseTensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> SparseTensor:
    """Layer normalisation (Ba et al. 2016, "Layer Normalization"): mean 0 and variance 1 over the
    channels of each voxel.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Input.
    weight, bias : Tensor (channels,), optional
        By default 1 and 0.
    eps : float
        Added to the variance.

    Raises
    ------
    SparseError
        If shapes or devices do not match.
    """
    scale, offset = _cast(x, weight), _cast(x, bias)
    features = x.features.to(sum_dtype(x.features.dtype))
    normalised = nn.functional.layer_norm(features, (x.channels,), scale, offset, eps)
    return x.with_features(normalised.to(x.features.dtype))


def rms_norm(x: SparseTensor, weight: Tensor | None = None, eps: float = 1e-6) -> SparseTensor:
    """Root mean square normalisation (Zhang & Sennrich 2019, "Root Mean Square Layer
    Normalization"): mean square 1 over the channels of each voxel.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Input.
    weight : Tensor (channels,), optional
        By default 1.
    eps : float
        Added to the mean square.

    Raises
    ------
    SparseError
        If shapes or devices do not match.
    """
    scale = _cast(x, weight)
    features = x.features.to(sum_dtype(x.features.dtype))
    normalised = features * (features.square().mean(1, keepdim=True) + eps).rsqrt()
    return x.with_features(_scale(normalised, scale, None).to(x.features.dtype))


class GroupNorm(nn.Module):
    """`group_norm` with weight and bias; SparseError if the groups do not divide the channels."""

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
    """A weight or bias in the dtype of the statistics."""
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
            "move them to one device",
        )
    return weight.to(sum_dtype(x.features.dtype))


def _scale(features: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        features = features * weight
    return features if bias is None else features + bias
