"""Linear maps of the features of voxels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from earthgen.errors import SparseError
from earthgen.sparse import products


def linear(features: Tensor, layer: nn.Linear) -> Tensor:
    """A linear layer on (n, in) features, multiplied in `product_dtype`; under autocast in its
    dtype.

    Raises SparseError where features and weight are of several dtypes.
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
    return multiplied(features.to(dtype).to(product), layer.weight.to(dtype).to(product), bias).to(
        dtype
    )


def multiplied(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(n, out) from (n, in), (out, in) and (out,), all of one dtype, whatever is autocast."""
    with torch.autocast(features.device.type, enabled=False):
        if features.device.type == "cpu" and features.element_size() == 2 and features.ndim == 2:
            return _ByRungs.apply(features, weight, bias)  # type: ignore[no-untyped-call]
        return nn.functional.linear(features, weight, bias)


class _ByRungs(torch.autograd.Function):
    """A linear map in shapes of which there are few, see `products.rung`."""

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
            found, total = products.linear_backward(
                features, weight, gradient, want_features, want_weight
            )
            summed = products.sum_dtype(weight.dtype)
            bias = (
                gradient.sum(0, dtype=summed).to(weight.dtype) if ctx.biased and want_bias else None
            )
        return found, None if total is None else total.to(weight.dtype), bias
