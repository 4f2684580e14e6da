"""Convolution of dense boxes: what sparse convolution must equal.

Voxels that are not active count as 0. Everything is computed in float64 and given in the dtype of
the features. Gradients are autograd's. Memory is that of the box around the voxels, so inputs must
be small and lie together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor


def convolve(
    x: SparseTensor, weight: Tensor, kernel: Kernel, bias: Tensor | None = None, *, sites: Sites
) -> SparseTensor:
    """A convolution, read at the voxels of `sites`.

    x : features (n, in); weight : (volume, in, out), as of `earthgen.sparse.convolution`; bias :
        (out,)
    """
    if not len(sites):
        return _nothing(x, weight, bias, sites)
    # The box of what the kernel looks at from the outputs' box. conv3d begins to count at its lower
    # corner, so no padding is needed, and output 0 is that of a whole number of strides, for
    # negative coordinates too.
    low, high = sites.box
    begin = [
        o * s + first for o, s, first in zip(low[1:], kernel.stride, kernel.first, strict=True)
    ]
    end = [
        o * s + last + 1 for o, s, last in zip(high[1:], kernel.stride, _last(kernel), strict=True)
    ]
    made = functional.conv3d(
        x.with_features(x.features.double()).dense(begin, end),
        _by_axis(weight, kernel).permute(4, 3, 0, 1, 2),
        stride=kernel.stride,
        dilation=kernel.dilation,
    )
    return _read(x, made, low[1:], bias, sites)


def convolve_transposed(
    x: SparseTensor, weight: Tensor, kernel: Kernel, bias: Tensor | None = None, *, sites: Sites
) -> SparseTensor:
    """A transposed convolution, read at the voxels of `sites`, which are finer. Arguments as of
    `convolve`."""
    if not len(x) or not len(sites):
        return _nothing(x, weight, bias, sites)
    made = functional.conv_transpose3d(
        x.with_features(x.features.double()).dense(),
        _by_axis(weight, kernel).permute(3, 4, 0, 1, 2),
        stride=kernel.stride,
        dilation=kernel.dilation,
    )
    begin = [
        o * s + first
        for o, s, first in zip(x.sites.box[0][1:], kernel.stride, kernel.first, strict=True)
    ]
    return _read(x, made, begin, bias, sites)


def _last(kernel: Kernel) -> list[int]:
    return [
        f + (n - 1) * d for f, n, d in zip(kernel.first, kernel.size, kernel.dilation, strict=True)
    ]


def _by_axis(weight: Tensor, kernel: Kernel) -> Tensor:
    """(x, y, z, in, out) float64."""
    return weight.double().reshape(*kernel.size, *weight.shape[1:])


def _read(
    x: SparseTensor, dense: Tensor, low: list[int], bias: Tensor | None, sites: Sites
) -> SparseTensor:
    """A dense (batch, out, x, y, z), whose first voxel is `low`, at the voxels of sites; 0
    beyond it."""
    coordinates = sites.coordinates.long() - torch.tensor([0, *low])
    inside = (
        (coordinates >= 0) & (coordinates < torch.tensor([len(dense), *dense.shape[2:]]))
    ).all(1)
    sample, i, j, k = torch.where(inside[:, None], coordinates, 0).unbind(1)
    found = torch.where(inside[:, None], dense[sample, :, i, j, k], 0.0)
    return _biased(x, found, bias, sites)


def _nothing(x: SparseTensor, weight: Tensor, bias: Tensor | None, sites: Sites) -> SparseTensor:
    """What no voxels give: zeros, of which there are gradients, zeros too."""
    zero = 0 * x.features.double().sum() * weight.double().sum()
    return _biased(x, zero.expand(len(sites), weight.shape[2]), bias, sites)


def _biased(x: SparseTensor, found: Tensor, bias: Tensor | None, sites: Sites) -> SparseTensor:
    return SparseTensor(
        sites, (found if bias is None else found + bias.double()).to(x.features.dtype)
    )
