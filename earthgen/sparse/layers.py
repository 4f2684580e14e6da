"""Convolution and linear layers as torch modules.

Those of norms and attention are in `earthgen.sparse.norm` and `earthgen.sparse.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from earthgen.sparse.convolution import convolve, convolve_transposed
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor


class Convolution(nn.Module):
    """A sparse convolution; see `earthgen.sparse.convolve`.

    Parameters
    ----------
    channels, out : int
        Numbers of input and output channels.
    size, stride, dilation : int or sequence of int
        Shape of the kernel, one number or one for each axis.
    bias : bool
        Add a bias.
    reach : bool
        With a stride, output every cell whose kernel touches a voxel.
    backend : SparseBackend, optional
        By default torch's.

    Attributes
    ----------
    weight : Parameter (volume, in, out)
        One matrix for each offset.
    bias : Parameter (out,) or None
        Added to each output.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        out: int,
        size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        *,
        bias: bool = True,
        reach: bool = False,
        backend: SparseBackend | None = None,
    ) -> None:
        super().__init__()
        self.kernel = Kernel.of(size, stride, dilation)
        self.reach, self.backend = reach, backend
        self.weight, self.bias = _parameters(self.kernel.volume, channels, out, bias)

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        return convolve(
            x,
            self.weight,
            self.kernel,
            self.bias,
            sites=sites,
            reach=self.reach,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return _describe(self.weight, self.kernel)


class TransposedConvolution(nn.Module):
    """A sparse convolution from coarse to fine; see `earthgen.sparse.convolve_transposed`.

    Parameters
    ----------
    channels, out : int
        Numbers of input and output channels.
    size, stride, dilation : int or sequence of int
        Shape of the kernel, one number or one for each axis.
    bias : bool
        Add a bias.
    backend : SparseBackend, optional
        By default torch's.

    Attributes
    ----------
    weight : Parameter (volume, in, out)
        One matrix for each offset.
    bias : Parameter (out,) or None
        Added to each output.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        out: int,
        size: int | Sequence[int] = 2,
        stride: int | Sequence[int] = 2,
        dilation: int | Sequence[int] = 1,
        *,
        bias: bool = True,
        backend: SparseBackend | None = None,
    ) -> None:
        super().__init__()
        self.kernel = Kernel.of(size, stride, dilation)
        self.backend = backend
        self.weight, self.bias = _parameters(self.kernel.volume, channels, out, bias)

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        return convolve_transposed(
            x, self.weight, self.kernel, self.bias, sites=sites, backend=self.backend
        )

    def extra_repr(self) -> str:
        return _describe(self.weight, self.kernel)


class Linear(nn.Module):
    """The same linear map at every voxel: a convolution of size 1.

    Parameters
    ----------
    channels, out : int
        Numbers of input and output channels.
    bias : bool
        Add a bias.

    Attributes
    ----------
    weight : Parameter (1, in, out)
        The matrix.
    bias : Parameter (out,) or None
        Added to each output.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight, self.bias = _parameters(1, channels, out, bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return convolve(x, self.weight, Kernel((1, 1, 1)), self.bias)


class Pointwise(nn.Module):
    """A function of the features alone, such as an activation, at every voxel."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(self.function(x.features))


def _parameters(
    volume: int, channels: int, out: int, bias: bool
) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Initial values, uniform in +-1 / sqrt(inputs of an output) as in torch's convolutions."""
    bound = 1 / math.sqrt(volume * channels)
    weight = torch.empty(volume, channels, out).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(
        torch.empty(out).uniform_(-bound, bound)
    ) if bias else None


def _describe(weight: Tensor, kernel: Kernel) -> str:
    return f"{weight.shape[1]} -> {weight.shape[2]}, size={kernel.size}, stride={kernel.stride}"
