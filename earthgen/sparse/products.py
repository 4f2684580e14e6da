"""The arithmetic of a sparse convolution: gather neighbours, multiply by the weight.

output[o] = sum over offsets k of input[table[o, k]] @ weight[k], over the entries of the table that
are not -1. The gradients are such products too, over the map of the other direction. There are two
implementations. `plain_*` puts all neighbours of a row side by side, zeros for absent ones, and
runs on any device. `grouped_*` multiplies no zeros, which is faster where products are slow
compared to memory: on a CPU in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.sparse.grouping import MOST, SLICE, add_rows, groups
from earthgen.sparse.kernel_map import KernelMap


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which products of `dtype` are computed: float32 for half precision on CPUs
    without instructions for it, otherwise `dtype`.

    On such CPUs bfloat16 and float16 take 70 times as long as float32.
    """
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return dtype
    query = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    supported = getattr(torch.ops.mkldnn, query, None)
    return dtype if supported is not None and supported() else torch.float32


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


def _with_zero(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(n + 1, c): rows in a dtype and a row of zeros, which absent neighbours refer to."""
    padded = rows.new_empty((len(rows) + 1, rows.shape[1]), dtype=dtype)
    padded[:-1] = rows
    padded[-1] = 0
    return padded


def forward(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """(outputs, out) from (inputs, in) and (volume, in, out), by the faster implementation."""
    work = grouped_forward if _by_groups(features) else plain_forward
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
    work = grouped_backward if _by_groups(features) else plain_backward
    return work(features, weight, gradient, back, want_features, want_weight)


def _by_groups(features: Tensor) -> bool:
    """Whether omitting zeros is faster: not on GPUs, and not in bfloat16 and float16 on CPUs with
    instructions for them.

    Products in these take a quarter of the time, but the library compiles a kernel for each new
    shape in about 0.5 ms, and the groups of each scene have new shapes. (131 k voxels, 64 channels,
    bfloat16: 40 ms plain; 60 ms by groups, 150 ms the first time.)
    """
    return (
        features.device.type == "cpu"
        and product_dtype(features.dtype, features.device).itemsize >= 4
    )


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


CACHE = 2**20
"""Elements that are gathered for one product; they should fit into a core's cache."""


def _parts(pairs: KernelMap, channels: int) -> Iterator[tuple[NDArray, Tensor, Tensor]]:
    """Rows, offsets and neighbours of products of at most about CACHE elements."""
    for group in groups(pairs):
        width = len(group.offsets)
        step = max(CACHE // max(width * channels, 1), 128)
        for first in range(0, len(group.rows), step):
            rows = group.rows[first : first + step]
            yield (
                rows,
                group.offsets,
                group.neighbours[first * width : first * width + len(rows) * width],
            )


def _gatherer(rows: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function that gathers rows by their numbers, (m,) to (m, channels) of a dtype, at most as
    many as one product needs.

    It returns the same memory at each call. Rows are converted after they are gathered, because a
    wider copy of all of them would be a large part of the memory of a convolution in bfloat16.
    """
    channels = rows.shape[1]
    size = (min(max(CACHE // max(channels, 1), 128 * SLICE), MOST * SLICE), channels)
    gathered = rows.new_empty(size)
    wide = gathered if dtype == rows.dtype else rows.new_empty(size, dtype=dtype)

    def gather(numbers: Tensor) -> Tensor:
        chosen = torch.index_select(rows, 0, numbers, out=gathered[: len(numbers)])
        return chosen if wide is gathered else wide[: len(numbers)].copy_(chosen)

    return gather


def grouped_forward(features: Tensor, weight: Tensor, pairs: KernelMap) -> Tensor:
    """The result of `plain_forward`, by groups."""
    dtype = product_dtype(features.dtype, features.device)
    channels, out = features.shape[1], weight.shape[2]
    weights = weight.to(dtype)
    gather = _gatherer(_with_zero(features, features.dtype), dtype)
    total = features.new_zeros((len(pairs.table), out), dtype=sum_dtype(features.dtype))
    product, summed = weights.new_empty((MOST, out)), total.numpy()
    for rows, offsets, neighbours in _parts(pairs, channels):
        part = product[: len(rows)]
        torch.mm(gather(neighbours).view(len(rows), -1), weights[offsets].flatten(0, 1), out=part)
        add_rows(summed, rows, part.to(total.dtype).numpy())
    del gather, product  # frees memory before the result is converted
    return total.to(features.dtype)


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
    gather = _gatherer(_with_zero(gradient, gradient.dtype), dtype)
    ours = _gatherer(features, dtype) if want_weight else None
    volume, channels, out = weight.shape
    turned = weight.to(dtype).transpose(1, 2).contiguous()  # (volume, out, in)
    total = features.new_zeros(features.shape, dtype=sum_dtype(features.dtype))
    weights = features.new_zeros((volume, out * channels), dtype=total.dtype)
    product, summed, summed_weights = (
        turned.new_empty((MOST, channels)),
        total.numpy(),
        weights.numpy(),
    )
    for rows, offsets, neighbours in _parts(back, out):
        taken = gather(neighbours).view(len(rows), -1)
        if want_features:
            part = product[: len(rows)]
            torch.mm(taken, turned[offsets].flatten(0, 1), out=part)
            add_rows(summed, rows, part.to(total.dtype).numpy())
        if ours is not None:
            added = (taken.T @ ours(torch.from_numpy(rows))).view(len(offsets), -1).to(total.dtype)
            add_rows(summed_weights, offsets.numpy(), added.numpy())
    return (
        total.to(features.dtype) if want_features else None,
        weights.view(volume, out, channels).transpose(1, 2) if want_weight else None,
    )
