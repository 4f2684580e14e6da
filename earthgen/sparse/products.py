"""The arithmetic of a sparse convolution: gather neighbours, multiply by the weight.

output[o] = sum over offsets k of input[table[o, k]] @ weight[k], over the entries of the table that
are not -1. The gradients are such products too, over the map of the other direction. There are two
implementations. `plain_*` puts all neighbours of a row side by side, zeros for absent ones, and
runs on any device. `grouped_*` multiplies few zeros, which is faster where products are slow
compared to memory: on a CPU, except with few channels in bfloat16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.sparse.grouping import MOST, SLICE, Span, spans
from earthgen.sparse.kernel_map import KernelMap


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which products of `dtype` are computed: float32 for half precision on CPUs
    where that is faster, otherwise `dtype`.

    On CPUs without instructions for bfloat16 and float16 these take 70 times as long as float32. On
    Intel's with AVX-512 BF16 but without AMX bfloat16 takes twice as long, on AMD's half as long.
    """
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return dtype
    return dtype if _fast(dtype) else torch.float32


@functools.cache
def _fast(dtype: torch.dtype) -> bool:
    """Whether this CPU's products in bfloat16 or float16 are faster than in float32. It is decided
    by its features and not by measuring, since results depend on it."""
    query = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    supported = getattr(torch.ops.mkldnn, query, None)
    if supported is None or not supported():
        return False
    has: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # unknown to older torch
    matrices = "amx_bf16" if dtype == torch.bfloat16 else "amx_fp16"
    amd = bool(has.get("sse4a"))  # Intel has never had these instructions
    return has.get("architecture") != "x86_64" or amd or bool(has.get(matrices))


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums of products: float32 for half precision, otherwise `dtype`."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


LEAST_STEP = 32
"""Smallest step between padded numbers of rows."""


def padded_rows(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """Number of rows, with zeros appended, of a product of `rows` rows.

    On the CPU the library compiles a kernel for each new shape in bfloat16 and float16, about
    0.5 ms each, and every scene has another number of voxels. That is most of the time of a small
    network. So there the numbers are rounded up to four values per octave; elsewhere they are not
    changed.
    """
    if device.type != "cpu" or dtype.itemsize > 2 or not rows:
        return rows
    step = max(1 << (rows - 1).bit_length() >> 3, LEAST_STEP)
    return -(-rows // step) * step


def forward(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """(outputs, out) from (inputs, in) and (volume, in, out), by the faster implementation."""
    work = grouped_forward if _by_groups(features, weight) else plain_forward
    return work(features, weight, pairs)


def backward(
    features: Tensor,
    weight: Tensor,
    gradient: Tensor,
    back: KernelMap,
    want_features: bool,
    want_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input, (inputs, in), and of the weight, (volume, in, out) in the dtype of
    sums; `back` is the map of the other direction."""
    work = grouped_backward if _by_groups(features, weight) else plain_backward
    return work(features, weight, gradient, back, want_features, want_weight)


FEW = 64 * 64
"""Elements of an offset's matrix below which products in bfloat16 and float16 take less time than
leaving zeros out."""


def _by_groups(features: Tensor, weight: Tensor) -> bool:
    """Whether omitting zeros is faster: on CPUs, except in bfloat16 and float16 with few channels
    where the CPU is fast in them."""
    if features.device.type != "cpu":
        return False
    dtype = product_dtype(features.dtype, features.device)
    return dtype.itemsize >= 4 or weight[0].numel() >= FEW


CHUNK = {"cpu": 2**22}
"""Elements that `plain_*` gather at once: on the CPU as many as its cache holds."""


def _chunks(pairs: KernelMap, channels: int) -> list[tuple[int, int]]:
    rows = max(
        128, CHUNK.get(pairs.table.device.type, 2**24) // max(channels * pairs.table.shape[1], 1)
    )
    return _ranges(len(pairs.table), 1 << rows.bit_length() - 1)  # a padded number of rows


def _ranges(count: int, step: int) -> list[tuple[int, int]]:
    """Divide [0, count) into ranges of `step`; the last one may be shorter."""
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def _side_by_side(
    rows: Tensor, pairs: KernelMap, dtype: torch.dtype
) -> Callable[[int, int], Tensor]:
    """A function that gathers the neighbours of output rows [first, last), side by side: (padded
    rows, volume * channels).

    It returns the same memory at each call.
    """
    padded, volume = (
        rows.new_empty((len(rows) + 1, rows.shape[1]), dtype=dtype),
        pairs.table.shape[1],
    )
    padded[0], padded[1:] = 0, rows
    most = max((last - first for first, last in _chunks(pairs, rows.shape[1])), default=0)
    taken = padded.new_empty((padded_rows(most, dtype, rows.device) * volume, rows.shape[1]))

    def gather(first: int, last: int) -> Tensor:
        numbers = (pairs.table[first:last] + 1).flatten()  # absent neighbours are row 0
        whole = taken[: padded_rows(last - first, dtype, rows.device) * volume]
        whole[len(numbers) :] = 0
        torch.index_select(padded, 0, numbers, out=whole[: len(numbers)])
        return whole.view(-1, volume * rows.shape[1])

    return gather


def plain_forward(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """(outputs, out) from (inputs, in) and (volume, in, out)."""
    dtype = product_dtype(features.dtype, features.device)
    flat, gather = weight.to(dtype).flatten(0, 1), _side_by_side(features, pairs, dtype)
    result = features.new_empty((len(pairs.table), weight.shape[2]))
    for first, last in _chunks(pairs, features.shape[1]):
        result[first:last] = (gather(first, last) @ flat)[: last - first]
    return result


def plain_backward(
    features: Tensor,
    weight: Tensor,
    gradient: Tensor,
    back: KernelMap,
    want_features: bool,
    want_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input, (inputs, in), and of the weight, (volume, in, out) in the dtype of
    sums.

    Both need one gather of the output's gradient, by `back`, the map of the other direction.
    """
    dtype = product_dtype(gradient.dtype, gradient.device)
    volume, channels, out = weight.shape
    gather = _side_by_side(gradient, back, dtype)
    turned = weight.to(dtype).transpose(1, 2).flatten(0, 1)  # (volume * out, in)
    result = features.new_empty(features.shape) if want_features else None
    total = (
        features.new_zeros((volume * out, channels), dtype=sum_dtype(features.dtype))
        if want_weight
        else None
    )
    for first, last in _chunks(back, out):
        taken = gather(first, last)
        if result is not None:
            result[first:last] = (taken @ turned)[: last - first]
        if total is not None:
            total += taken.T @ pad_to(features[first:last].to(dtype), len(taken))
    return result, None if total is None else total.view(volume, out, channels).transpose(1, 2)


def pad_to(rows: Tensor, count: int) -> Tensor:
    """Append zeros to rows up to `count`; the same tensor if there are as many already."""
    return (
        rows if len(rows) == count else torch.nn.functional.pad(rows, (0, 0, 0, count - len(rows)))
    )


PIECE = 2**12
"""Rows of a linear map with padded numbers of rows that are multiplied at once."""


def linear_forward(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, out) from (n, in), (out, in) and (out,), with padded numbers of rows."""
    result = features.new_empty((len(features), len(weight)))
    for first, last in _ranges(len(features), PIECE):
        count = padded_rows(last - first, features.dtype, features.device)
        rows = pad_to(features[first:last], count)
        result[first:last] = torch.nn.functional.linear(rows, weight, bias)[: last - first]
    return result


def linear_backward(
    features: Tensor, weight: Tensor, gradient: Tensor, want_features: bool, want_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of (n, in) features and of the (out, in) weight, the latter in the dtype of sums,
    with padded numbers of rows."""
    result = torch.empty_like(features) if want_features else None
    total = torch.zeros_like(weight, dtype=sum_dtype(weight.dtype)) if want_weight else None
    for first, last in _ranges(len(features), PIECE):
        count = padded_rows(last - first, features.dtype, features.device)
        rows = pad_to(gradient[first:last], count)
        if result is not None:
            result[first:last] = (rows @ weight)[: last - first]
        if total is not None:
            total += rows.T @ pad_to(features[first:last], count)
    return result, total


class _Gatherer:
    """Gathers neighbours side by side, each time into the same memory.

    Rows are converted after they are gathered, because a wider copy of all of them would be a
    large part of the memory of a convolution in bfloat16.
    """

    def __init__(self, rows: Tensor, dtype: torch.dtype) -> None:
        size = (MOST * SLICE, rows.shape[1])
        self.rows, self.gathered = rows, rows.new_empty(size)
        self.wide = self.gathered if dtype == rows.dtype else rows.new_empty(size, dtype=dtype)

    def __call__(self, numbers: Tensor, width: int, absent: Tensor | None = None) -> Tensor:
        """(n, width * channels) from (n * width,) numbers of rows, with zeros at the absent."""
        chosen = torch.index_select(self.rows, 0, numbers, out=self.gathered[: len(numbers)])
        if self.wide is not self.gathered:
            chosen = self.wide[: len(numbers)].copy_(chosen)
        if absent is not None and len(absent):
            chosen.index_fill_(0, absent, 0)
        return chosen.view(len(numbers) // width, width * self.rows.shape[1])


def _sums(products: Tensor, span: Span) -> Tensor:
    """Output rows of a span: (last - first, c) sums of rows of products, rounded once."""
    return torch.nn.functional.embedding_bag(span.places, products[: span.products], mode="sum")


def _room(rows: Tensor, pairs: KernelMap, channels: int, dtype: torch.dtype) -> Tensor:
    """(n, channels) for the products of any span; row 0 stands for none."""
    count = max((span.products for span in spans(pairs)), default=1)
    products = rows.new_empty((count, channels), dtype=dtype)
    products[0] = 0
    return products


class _Weights:
    """Matrices of a group's offsets, one below the other, each time in the same memory."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.chosen = weight, torch.empty_like(weight[:SLICE])
        self.last: Tensor | None = None

    def __call__(self, offsets: Tensor) -> Tensor:
        chosen = self.chosen[: len(offsets)]
        if offsets is not self.last:
            torch.index_select(self.weight, 0, offsets, out=chosen)
            self.last = offsets
        return chosen.flatten(0, 1)


def grouped_forward(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """The result of `plain_forward`, by groups."""
    dtype = product_dtype(features.dtype, features.device)
    gather, matrix = _Gatherer(features, dtype), _Weights(weight.to(dtype))
    result = features.new_empty((len(pairs.table), weight.shape[2]))
    products = _room(features, pairs, weight.shape[2], dtype)
    for span in spans(pairs):
        at = 1
        for group in span.groups:
            taken = gather(group.neighbours, len(group.offsets), group.absent)
            torch.mm(taken, matrix(group.offsets), out=products[at : at + len(taken)])
            at += len(taken)
        result[span.first : span.last] = _sums(products, span)
    return result


def grouped_backward(
    features: Tensor,
    weight: Tensor,
    gradient: Tensor,
    back: KernelMap,
    want_features: bool,
    want_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input, (inputs, in), and of the weight, (volume, in, out) in the dtype of
    sums.

    Both need one gather of the output's gradient, by `back`, the map of the other direction.
    """
    dtype = product_dtype(gradient.dtype, gradient.device)
    gather, ours = _Gatherer(gradient, dtype), _Gatherer(features, dtype)
    volume, channels, out = weight.shape
    matrix = _Weights(weight.to(dtype).transpose(1, 2).contiguous())  # (volume, out, in)
    result = torch.empty_like(features) if want_features else None
    products = _room(features, back, channels, dtype)
    total = features.new_zeros((volume, out * channels), dtype=sum_dtype(features.dtype))
    for span in spans(back):
        at = 1
        for group in span.groups:
            taken = gather(group.neighbours, len(group.offsets), group.absent)
            if result is not None:
                torch.mm(taken, matrix(group.offsets), out=products[at : at + len(taken)])
                at += len(taken)
            if want_weight:
                added = (taken.T @ ours(group.rows, 1)).view(len(group.offsets), -1)
                total.index_add_(0, group.offsets, added.to(total.dtype))
        if result is not None:
            result[span.first : span.last] = _sums(products, span)
    return result, total.view(volume, out, channels).transpose(1, 2) if want_weight else None
