"""The arithmetic of a sparse convolution: gather neighbours, multiply by the weight, and nothing
else.

output[o] = sum over offsets k of input[table[o, k]] @ weight[k], where the table has a row there.
Both directions of the gradient are the same kind of product over the map of the other direction. It
is written twice: `plain_*` lays all neighbours side by side, zeros for those that are not there,
and is for any device; `grouped_*` multiplies no zeros, which pays where products are slow against
memory: on a CPU in float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.sparse.grouping import MOST, SLICE, add_rows, groups
from earthgen.sparse.kernel_map import KernelMap


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which products of `dtype` are taken: that, or float32 on CPUs that have no
    instructions for it.

    Without them bfloat16 and float16 take 70 times as long as float32 on the CPU.
    """
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return dtype
    ask = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    known = getattr(torch.ops.mkldnn, ask, None)
    return dtype if known is not None and known() else torch.float32


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over several products."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def rung(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows a product of `rows` is to take, zeros after them: a count of which there are
    few.

    On the CPU the product library compiles a kernel for each new shape in bfloat16 and float16,
    some 0.5 ms each, and every scene has other numbers of voxels: most of a small network's time.
    There counts are rounded up to four an octave, elsewhere they are what they are.
    """
    if device.type != "cpu" or dtype.itemsize > 2 or not rows:
        return rows
    step = max(1 << (rows - 1).bit_length() >> 3, LEAST_RUNG)
    return -(-rows // step) * step


LEAST_RUNG = 32


def _with_zero(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, c) rows in a dtype, and one of zeros after them, for offsets that meet nothing."""
    padded = rows.new_empty((len(rows) + 1, rows.shape[1]), dtype=dtype)
    padded[:-1] = rows
    padded[-1] = 0
    return padded


def forward(features: Tensor, weight: Tensor, found: KernelMap) -> Tensor:
    """(outputs, out) from (inputs, in) and (volume, in, out), by the quicker of the two ways."""
    work = grouped_forward if _by_groups(features) else plain_forward
    return work(features, weight, found)


def backward(
    features: Tensor,
    weight: Tensor,
    gradient: Tensor,
    back: KernelMap,
    want_features: bool,
    want_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input, (inputs, in), and of the weight, (volume, in, out) in the dtype of
    sums.

    back : the map of the other direction
    """
    work = grouped_backward if _by_groups(features) else plain_backward
    return work(features, weight, gradient, back, want_features, want_weight)


def _by_groups(features: Tensor) -> bool:
    """Whether leaving zeros out pays: not on GPUs, and not in a CPU's own bfloat16 and float16.

    Products in those take a quarter of the time, but each new shape of one some 0.5 ms for a kernel
    to be compiled, and groups of each new scene have new shapes. (131 k voxels, 64 channels,
    bfloat16: 40 ms, by groups 60, at first 150.)
    """
    return (
        features.device.type == "cpu"
        and product_dtype(features.dtype, features.device).itemsize >= 4
    )


CHUNK = {"cpu": 2**22}
"""Elements that `plain_*` gather at once: on the CPU so many that they are multiplied from its
cache."""


def _chunks(found: KernelMap, channels: int) -> list[tuple[int, int]]:
    rows = max(
        128, CHUNK.get(found.table.device.type, 2**24) // max(channels * found.table.shape[1], 1)
    )
    return _ranges(len(found.table), 1 << rows.bit_length() - 1)  # a rung of its own


def _ranges(count: int, step: int) -> list[tuple[int, int]]:
    """[0, count) in ranges of `step`, the last one of what is left."""
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def _side_by_side(
    rows: Tensor, found: KernelMap, dtype: torch.dtype
) -> Callable[[int, int], Tensor]:
    """What gives the neighbours of output rows [first, last), side by side: (rung of last - first,
    volume * channels).

    It writes to the same memory at each call.
    """
    padded, volume = (
        rows.new_empty((len(rows) + 1, rows.shape[1]), dtype=dtype),
        found.table.shape[1],
    )
    padded[0], padded[1:] = 0, rows
    most = max((last - first for first, last in _chunks(found, rows.shape[1])), default=0)
    taken = padded.new_empty((rung(most, dtype, rows.device) * volume, rows.shape[1]))

    def gather(first: int, last: int) -> Tensor:
        numbers = (found.table[first:last] + 1).flatten()  # a hole is row 0
        whole = taken[: rung(last - first, dtype, rows.device) * volume]
        whole[len(numbers) :] = 0
        torch.index_select(padded, 0, numbers, out=whole[: len(numbers)])
        return whole.view(-1, volume * rows.shape[1])

    return gather


def plain_forward(features: Tensor, weight: Tensor, found: KernelMap) -> Tensor:
    """(outputs, out) from (inputs, in) and (volume, in, out)."""
    dtype = product_dtype(features.dtype, features.device)
    flat, gather = weight.to(dtype).flatten(0, 1), _side_by_side(features, found, dtype)
    result = features.new_empty((len(found.table), weight.shape[2]))
    for first, last in _chunks(found, features.shape[1]):
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

    Both come from one gather: of the output's gradient, by `back`, the map of the other direction.
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
            total += taken.T @ lengthened(features[first:last].to(dtype), len(taken))
    return result, None if total is None else total.view(volume, out, channels).transpose(1, 2)


def lengthened(rows: Tensor, count: int) -> Tensor:
    """Rows with zeros after them, `count` in all; the rows themselves where they are as many."""
    return (
        rows if len(rows) == count else torch.nn.functional.pad(rows, (0, 0, 0, count - len(rows)))
    )


PIECE = 2**12
"""Rows of a linear map that are multiplied at once where counts go by rungs."""


def linear_forward(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, out) from (n, in), (out, in) and (out,), by rungs."""
    found = features.new_empty((len(features), len(weight)))
    for first, last in _ranges(len(features), PIECE):
        rows = lengthened(features[first:last], rung(last - first, features.dtype, features.device))
        found[first:last] = torch.nn.functional.linear(rows, weight, bias)[: last - first]
    return found


def linear_backward(
    features: Tensor, weight: Tensor, gradient: Tensor, want_features: bool, want_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of (n, in) features and of the (out, in) weight, that in the dtype of sums, by
    rungs."""
    result = torch.empty_like(features) if want_features else None
    total = torch.zeros_like(weight, dtype=sum_dtype(weight.dtype)) if want_weight else None
    for first, last in _ranges(len(features), PIECE):
        count = rung(last - first, features.dtype, features.device)
        rows = lengthened(gradient[first:last], count)
        if result is not None:
            result[first:last] = (rows @ weight)[: last - first]
        if total is not None:
            total += rows.T @ lengthened(features[first:last], count)
    return result, total


CACHE = 2**20
"""Elements that are gathered for one product: they are to be in a core's cache when they are
multiplied."""


def _parts(found: KernelMap, channels: int) -> Iterator[tuple[NDArray, Tensor, Tensor]]:
    """Rows, offsets and neighbours of products of at most about CACHE elements."""
    for group in groups(found):
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
    """What gives rows by their numbers, (m,) to (m, channels) of a dtype, at most as many as a
    product takes.

    It writes to the same memory at each call. Rows are kept in their own dtype until they are
    gathered, since a wider copy of all of them would be much of what a convolution in bfloat16
    allocates.
    """
    channels = rows.shape[1]
    size = (min(max(CACHE // max(channels, 1), 128 * SLICE), MOST * SLICE), channels)
    gathered = rows.new_empty(size)
    wide = gathered if dtype == rows.dtype else rows.new_empty(size, dtype=dtype)

    def gather(numbers: Tensor) -> Tensor:
        found = torch.index_select(rows, 0, numbers, out=gathered[: len(numbers)])
        return found if wide is gathered else wide[: len(numbers)].copy_(found)

    return gather


def grouped_forward(features: Tensor, weight: Tensor, found: KernelMap) -> Tensor:
    """As `plain_forward`, by groups."""
    dtype = product_dtype(features.dtype, features.device)
    channels, out = features.shape[1], weight.shape[2]
    weights = weight.to(dtype)
    gather = _gatherer(_with_zero(features, features.dtype), dtype)
    total = features.new_zeros((len(found.table), out), dtype=sum_dtype(features.dtype))
    product, summed = weights.new_empty((MOST, out)), total.numpy()
    for rows, offsets, neighbours in _parts(found, channels):
        made = product[: len(rows)]
        torch.mm(gather(neighbours).view(len(rows), -1), weights[offsets].flatten(0, 1), out=made)
        add_rows(summed, rows, made.to(total.dtype).numpy())
    del gather, product  # before the result is made in another dtype
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

    Both come from one gather: of the output's gradient, by `back`, the map of the other direction.
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
            made = product[: len(rows)]
            torch.mm(taken, turned[offsets].flatten(0, 1), out=made)
            add_rows(summed, rows, made.to(total.dtype).numpy())
        if ours is not None:
            added = (taken.T @ ours(torch.from_numpy(rows))).view(len(offsets), -1).to(total.dtype)
            add_rows(summed_weights, offsets.numpy(), added.numpy())
    return (
        total.to(features.dtype) if want_features else None,
        weights.view(volume, out, channels).transpose(1, 2) if want_weight else None,
    )
