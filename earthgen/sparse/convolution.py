"""Sparse convolution: submanifold, strided, dilated, transposed, with gradients.

A convolution takes features from sites to sites: to their own ones (submanifold, Graham et al.
2018), to coarser ones, or back to finer ones. Which voxels meet is in the kernel map; see
`earthgen.sparse.kernel_map` for the offsets. Weights have shape (volume, in, out), the offsets in
the order of `Kernel.offsets`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.memory import require
from earthgen.sparse import products
from earthgen.sparse.interface import SparseBackend
from earthgen.sparse.kernel_map import Kernel, KernelMap, check_strides, grown, kernel_map, reached
from earthgen.sparse.linear import multiplied
from earthgen.sparse.sites import Sites
from earthgen.sparse.tensor import SparseTensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class TorchBackend:
    """Sparse convolution in torch, on any device, with gradients; on the CPU with compiled walks
    between the products.

    Its results have the same bits whenever the number of threads is the same.
    """

    name = "torch"
    devices: tuple[str, ...] = ("cpu", "cuda")
    deterministic = True

    def unavailable(self) -> str:
        return ""

    def refuses(self, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
        return "" if dtype in FLOATS else f"{dtype} is no floating dtype it knows"

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
            return multiplied(features.to(dtype), weight[0].to(dtype).T).to(features.dtype)
        found = (
            kernel_map(target, source, kernel) if transposed else kernel_map(source, target, kernel)
        )
        return _Product.apply(features, weight, found, transposed)  # type: ignore[no-untyped-call]


TORCH = TorchBackend()


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
    """A convolution.

    weight : (volume, in, out); bias : (out,)
    sites : of the output. By default those of `x` for stride 1 (submanifold), else the cells that
        hold voxels of `x`
    reach : with a stride, give every cell whose kernel meets a voxel, not only those that hold one
    backend : by default torch's

    Under `torch.autocast` features and weight are taken in its dtype.

    Raises
    ------
    SparseError, SparseError, SparseError
        for tensors that do not fit
    SparseError
        for sites of another place or stride
    OutOfMemoryError
        before memory is taken that is not there
    """
    if sites is None:
        if kernel.stride == (1, 1, 1) and not reach:
            sites = x.sites
        else:
            sites = reached(x.sites, kernel) if reach else x.sites.parents(kernel.stride)
    return _applied(x, weight, bias, x.sites, sites, kernel, False, backend)


def convolve_transposed(
    x: SparseTensor,
    weight: Tensor,
    kernel: Kernel,
    bias: Tensor | None = None,
    *,
    sites: Sites | None = None,
    backend: SparseBackend | None = None,
) -> SparseTensor:
    """The convolution the other way round: from coarse to fine.

    A fine voxel i gets, from each coarse one o with i = o * stride + offset * dilation, its
    features times the weight of the offset.

    sites : of the output, such as those that a strided convolution came from (an "inverse"
        convolution); by default
        every voxel that the kernel of one of `x` meets (a generative one)

    The other arguments and the errors are those of `convolve`.
    """
    if sites is None:
        sites = grown(x.sites, kernel)
    return _applied(x, weight, bias, x.sites, sites, kernel, True, backend)


def _applied(
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
    found = backend.convolve(features, weight, source, target, kernel, transposed)
    return SparseTensor(target, found if bias is None else found + bias)


def check_weight(features: Tensor, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> None:
    """Raise where features, weight and bias do not fit each other or the kernel."""
    if weight.ndim != 3 or weight.shape[:2] != (kernel.volume, features.shape[1]):
        raise SparseError(
            f"weight has shape {tuple(weight.shape)}, features {tuple(features.shape)}, the kernel {kernel.size}",
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
                "bring them to one device",
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
    """Features times weight over a kernel map. The gradient of each is the same kind of product,
    see `products`."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, found: KernelMap, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.found, ctx.transposed = found, transposed
        with torch.autocast(features.device.type, enabled=False):
            return products.forward(features, weight, found.transposed if transposed else found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors
        want_features, want_weight = ctx.needs_input_grad[:2]
        gradient = gradient.contiguous()
        # Of a transposed one the map itself is the way back: a transposed map's own would be made a
        # second time.
        back = ctx.found if ctx.transposed else ctx.found.transposed
        with torch.autocast(features.device.type, enabled=False):
            of_features, of_weight = products.backward(
                features, weight, gradient, back, want_features, want_weight
            )
        return of_features, None if of_weight is None else of_weight.to(weight.dtype), None, None
