"""Sparse convolution: submanifold, strided, dilated, transposed, with gradients.

A convolution maps features from sites to sites: to the same ones (submanifold, Graham et al. 2018,
"3D Semantic Segmentation with Submanifold Sparse Convolutional Networks"), to coarser ones, or back
to finer ones. The kernel map lists the input voxels of each output voxel, see
`earthgen.sparse.kernel_map`. Weights have shape (volume, in, out), with the offsets in the order of
`Kernel.offsets`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.memory import require
from earthgen.sparse import products
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import (
    Kernel,
    KernelMap,
    check_strides,
    generative_sites,
    kernel_map,
    reached_sites,
)
from earthgen.sparse.linear import multiply
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class TorchBackend(SparseBackend):
    """Sparse convolution in torch, on any device, with gradients; on the CPU with compiled code
    between the matrix products.

    Results are bitwise equal for the same number of threads.
    """

    name = "torch"
    devices = ("cpu", "cuda")
    deterministic = True

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        return "" if dtype in FLOATS else f"{dtype} is not a supported floating dtype"

    def convolve(
        self,
        features: Tensor,
        weight: Tensor,
        source: Sites,
        target: Sites,
        kernel: Kernel,
        transposed: bool = False,
    ) -> Tensor:
        if kernel.volume == 1 and source is target:
            dtype = products.product_dtype(features.dtype, features.device)
            return multiply(features.to(dtype), weight[0].to(dtype).T).to(features.dtype)
        pairs = (
            kernel_map(target, source, kernel) if transposed else kernel_map(source, target, kernel)
        )
        return _Product.apply(features, weight, pairs, transposed)  # type: ignore[no-untyped-call]


TORCH = TorchBackend()
"""The default backend."""


def convolve(
    x: SparseTensor,
    weight: Tensor,
    kernel: Kernel,
    bias: Tensor | None = None,
    *,
    sites: Sites | None = None,
    reach: bool = False,
    backend: SparseBackend | None = None,
) -> SparseTensor:
    """Convolve a sparse tensor.

    Under `torch.autocast` features and weight are cast to its dtype.

    Parameters
    ----------
    x : SparseTensor (n, in)
        Input.
    weight : Tensor (volume, in, out)
        One matrix for each offset, in the order of `Kernel.offsets`.
    kernel : Kernel
        Size, stride and dilation.
    bias : Tensor (out,), optional
        Added to each output.
    sites : Sites, optional
        Sites of the output. By default those of `x` for stride 1 (submanifold), otherwise the
        cells that contain voxels of `x`.
    reach : bool
        With a stride, output every cell whose kernel touches a voxel, not only those that contain
        one.
    backend : SparseBackend, optional
        By default torch's.

    Returns
    -------
    SparseTensor (m, out)
        Features at the output sites.

    Raises
    ------
    SparseError
        If shapes, dtypes or devices do not match, or the sites have another place or stride.
    OutOfMemoryError
        If there is too little free memory.
    """
    if sites is None:
        if kernel.stride == (1, 1, 1) and not reach:
            sites = x.sites
        else:
            sites = reached_sites(x.sites, kernel) if reach else x.sites.parents(kernel.stride)
    return _apply(x, weight, bias, x.sites, sites, kernel, False, backend)


def convolve_transposed(
    x: SparseTensor,
    weight: Tensor,
    kernel: Kernel,
    bias: Tensor | None = None,
    *,
    sites: Sites | None = None,
    backend: SparseBackend | None = None,
) -> SparseTensor:
    """Convolve a sparse tensor from coarse to fine sites.

    The output at a fine voxel i is the sum over coarse voxels o with i = o * stride + offset *
    dilation of the features of o times the weight of the offset.

    Parameters
    ----------
    x : SparseTensor (n, in)
        Input.
    weight : Tensor (volume, in, out)
        One matrix for each offset, in the order of `Kernel.offsets`.
    kernel : Kernel
        Size, stride and dilation.
    bias : Tensor (out,), optional
        Added to each output.
    sites : Sites, optional
        Sites of the output, such as the input sites of a strided convolution ("inverse"
        convolution). By default every voxel that the kernel of a voxel of `x` touches
        ("generative" convolution).
    backend : SparseBackend, optional
        By default torch's.

    Raises
    ------
    SparseError
        If shapes, dtypes or devices do not match, or the sites have another place or stride.
    OutOfMemoryError
        If there is too little free memory.
    """
    if sites is None:
        sites = generative_sites(x.sites, kernel)
    return _apply(x, weight, bias, x.sites, sites, kernel, True, backend)


def _apply(
    x: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Sites,
    target: Sites,
    kernel: Kernel,
    transposed: bool,
    backend: SparseBackend | None,
) -> SparseTensor:
    backend = backend or TORCH
    features, weight, bias = _cast(x.features, weight, bias)
    check_weight(features, weight, bias, kernel)
    check_strides(*((target, source) if transposed else (source, target)), kernel)
    size = features.element_size() * weight.shape[2] + 8 * kernel.volume
    what = f"a convolution from {weight.shape[1]} to {weight.shape[2]} channels"
    require(2 * size * len(target) + features.nbytes, features.device, what, len(target))
    result = backend.convolve(features, weight, source, target, kernel, transposed)
    return SparseTensor(target, result if bias is None else result + bias)


def check_weight(features: Tensor, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> None:
    """Raise SparseError if features, weight and bias do not match each other or the kernel."""
    if weight.ndim != 3 or weight.shape[:2] != (kernel.volume, features.shape[1]):
        raise SparseError(
            f"weight has shape {tuple(weight.shape)}, features {tuple(features.shape)}, "
            f"the kernel {kernel.size}",
            f"give ({kernel.volume}, {features.shape[1]}, out channels)",
        )
    if bias is not None and bias.shape != (weight.shape[2],):
        raise SparseError(f"bias has shape {tuple(bias.shape)}", f"give ({weight.shape[2]},)")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.device != features.device:
            raise SparseError(
                f"{name} is on {tensor.device}, features are on {features.device}",
                "move them to one device",
            )
        if tensor.dtype != features.dtype:
            raise SparseError(
                f"{name} is {tensor.dtype}, features are {features.dtype}",
                "cast one of them, or use torch.autocast",
            )
    if features.dtype not in FLOATS:
        raise SparseError(
            f"features are {features.dtype}", "give float32, bfloat16, float16 or float64"
        )


def _cast(
    features: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    kind = features.device.type
    if not torch.is_autocast_enabled(kind) or features.dtype == torch.float64:
        return features, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return features.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


class _Product(torch.autograd.Function):
    """Features times weight over a kernel map. The gradients are such products too, see
    `products`."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, pairs: KernelMap, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.pairs, ctx.transposed = pairs, transposed
        with torch.autocast(features.device.type, enabled=False):
            return products.forward(features, weight, pairs.transposed if transposed else pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors
        want_features, want_weight = ctx.needs_input_grad[:2]
        gradient = gradient.contiguous()
        # For a transposed convolution the map itself is the backward map. Transposing the
        # transposed map would build it a second time.
        back = ctx.pairs if ctx.transposed else ctx.pairs.transposed
        with torch.autocast(features.device.type, enabled=False):
            of_features, of_weight = products.backward(
                features, weight, gradient, back, want_features, want_weight
            )
        return of_features, None if of_weight is None else of_weight.to(weight.dtype), None, None
