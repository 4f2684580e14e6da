"""Linear maps of the features of voxels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from earthgen.errors import SparseError
from earthgen.sparse import products


def linear(features: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer to features; under `torch.autocast` in its dtype.

    Parameters
    ----------
    features : Tensor (n, in)
        Input.
    layer : nn.Linear
        The layer. Products are computed in `earthgen.sparse.products.product_dtype`.

    Returns
    -------
    Tensor (n, out)
        Output.

    Raises
    ------
    SparseError
        If features and weight differ in dtype.
    """
    kind, dtype = features.device.type, features.dtype
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    elif layer.weight.dtype != dtype:
        raise SparseError(
            f"weight is {layer.weight.dtype}, features are {dtype}",
            "cast one of them, or use torch.autocast",
        )
    product = products.product_dtype(dtype, features.device)
    bias = None if layer.bias is None else layer.bias.to(dtype).to(product)
    return multiply(features.to(dtype).to(product), layer.weight.to(dtype).to(product), bias).to(
        dtype
    )


def multiply(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(n, out) from (n, in), (out, in) and (out,) of one dtype; ignores autocast."""
    with torch.autocast(features.device.type, enabled=False):
        if features.device.type == "cpu" and features.element_size() == 2 and features.ndim == 2:
            return _PaddedLinear.apply(features, weight, bias)  # type: ignore[no-untyped-call]
        return nn.functional.linear(features, weight, bias)


class _PaddedLinear(torch.autograd.Function):
    """A linear map with padded numbers of rows, see `products.padded_rows`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.biased = bias is not None
        return products.linear_forward(features, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        want_features, want_weight, want_bias = ctx.needs_input_grad
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient.contiguous()
            of_features, of_weight = products.linear_backward(
                features, weight, gradient, want_features, want_weight
            )
            summed = products.sum_dtype(weight.dtype)
            bias = (
                gradient.sum(0, dtype=summed).to(weight.dtype) if ctx.biased and want_bias else None
            )
        return of_features, None if of_weight is None else of_weight.to(weight.dtype), bias
