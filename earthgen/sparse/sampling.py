"""Changing the resolution: pixel shuffle to children, pooling, un-pooling, interpolation.

Sums do not depend on the timing of threads. With a kernel map the gradient is gathered over the map
of the other direction; otherwise rows are sorted and summed one after the other. A generative
decoder alternates `shuffle_up` with `SparseTensor.prune`, which keeps the children that a
classifier selects.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SparseError
from earthgen.memory import require
from earthgen.sparse.kernel_map import Kernel, KernelMap, kernel_map
from earthgen.sparse.products import sum_dtype
from earthgen.sparse.sites import (
    HIGH,
    LOW,
    Sites,
    Triple,
    coarsen_coordinates,
    triple,
)
from earthgen.sparse.tensor import SparseTensor, take_rows


def shuffle_up(x: SparseTensor, factor: int | Sequence[int] = 2) -> SparseTensor:
    """Divide every voxel into its children: a sparse pixel shuffle (Shi et al. 2016, "Real-Time
    Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN").

    Parameters
    ----------
    x : SparseTensor (n, c * C)
        c is the number of children of a voxel, 8 for factor 2. The features of child (i, j, k) are
        the C channels from `((i * factor_y + j) * factor_z + k) * C` on.
    factor : int or sequence of int
        Divisor of the stride, one number or one for each axis.

    Returns
    -------
    SparseTensor (n * c, C)
        All children.

    Raises
    ------
    SparseError
        If the channels are not divisible by the number of children, the stride is not divisible by
        the factor, or coordinates of children do not fit int32.
    OutOfMemoryError
        If there is too little free memory.
    """
    by = triple(factor, "factor")
    count = by[0] * by[1] * by[2]
    if x.channels % count:
        raise SparseError(
            f"features have shape {tuple(x.features.shape)}, a voxel has {count} children",
            f"give a number of channels that {count} divides",
        )
    # 64 bytes: coordinates, keys and order of a child.
    size = x.channels * x.features.element_size() + count * 64
    require(size * len(x), x.features.device, f"{count} children of each voxel", len(x) * count)
    sites, number = x.sites.children(by)
    split = x.features.reshape(len(x) * count, x.channels // count)
    # Each row is used once, so the gradient needs no sums.
    return SparseTensor(sites, split.index_select(0, number))


def up(x: SparseTensor, sites: Sites) -> SparseTensor:
    """Un-pool: give each finer voxel the features of the voxel that contains it, 0 where that is
    not active.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Coarse voxels.
    sites : Sites
        m finer voxels.

    Returns
    -------
    SparseTensor (m, channels)
        Features at `sites`.

    Raises
    ------
    SparseError
        If the sites lie in another place, or their stride does not divide that of `x`.
    """
    x.place.check_same(sites.place)
    if any(a % b for a, b in zip(x.stride, sites.stride, strict=True)):
        raise SparseError(
            f"stride {x.stride} is not divisible by that of the finer sites, {sites.stride}",
            "give sites whose stride divides it",
        )
    a, b, c = (coarse // fine for coarse, fine in zip(x.stride, sites.stride, strict=True))
    if (a, b, c) == (1, 1, 1):
        return x.at(sites)
    _require_rows(x, len(sites), "un-pooling")
    parents = sites.parents((a, b, c))
    rows = _parent_rows(sites, (a, b, c))
    features = _Gather.apply(x.at(parents).features, rows)  # type: ignore[no-untyped-call]
    return SparseTensor(sites, features)


def pool(
    x: SparseTensor, kernel: Kernel, how: str = "max", sites: Sites | None = None
) -> SparseTensor:
    """Pool the voxels of a kernel, channel by channel.

    A cell whose kernel contains no voxel gets 0. Half precision is summed in float32.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Input.
    kernel : Kernel
        Size, stride and dilation.
    how : str
        "max", "mean" or "sum" of the voxels that are present. The gradient of a maximum goes to the
        first of equal values in the order of the kernel's offsets.
    sites : Sites, optional
        Sites of the output. By default those of `x` for stride 1, otherwise the cells that contain
        voxels of `x`.

    Returns
    -------
    SparseTensor (m, channels)
        Features at the output sites.

    Raises
    ------
    SparseError
        If `how` is unknown, or the sites have another place or stride.
    OutOfMemoryError
        If there is too little free memory.
    """
    if how not in ("max", "mean", "sum"):
        raise SparseError(f"unknown pooling how={how!r}", "give max, mean or sum")
    if sites is None:
        sites = x.sites if kernel.stride == (1, 1, 1) else x.sites.parents(kernel.stride)
    size = 4 * kernel.volume + 3 * x.channels * sum_dtype(x.features.dtype).itemsize
    require(size * len(sites), x.features.device, f"pooling of {x.channels} channels", len(sites))
    pairs = kernel_map(x.sites, sites, kernel)
    if how == "max":
        return SparseTensor(sites, _Max.apply(x.features, pairs))  # type: ignore[no-untyped-call]
    return SparseTensor(sites, _Sum.apply(x.features, pairs, how == "mean"))  # type: ignore[no-untyped-call]


def interpolate(
    x: SparseTensor, points: Tensor, how: str = "nearest", missing: str = "zero"
) -> Tensor:
    """Interpolate features at points.

    There are gradients for the features, and with "linear" for the positions. In float32, positions
    beyond 2^23 are whole cells only: use float64 there.

    Parameters
    ----------
    x : SparseTensor (n, channels)
        Input.
    points : Tensor (m, 4) float32 or float64
        Rows (sample, x, y, z): positions in cells of the stride of `x`, from the origin of the
        sample. Voxel i covers [i, i + 1), its centre is at i + 0.5.
    how : str
        "nearest" for the voxel that contains the point, "linear" between the 8 nearest centres.
    missing : str
        Treatment of voxels that are not active. "zero": their features are 0. "renormalise": they
        are ignored, and the weights are divided by the sum of those of active voxels. Without any
        active voxel both give 0.

    Returns
    -------
    Tensor (m, channels)
        In the dtype of the features.

    Raises
    ------
    SparseError
        If `how` or `missing` is unknown, shape, dtype or device of the points do not match, the
        batch does not have their sample, or positions are not finite or beyond int32.
    OutOfMemoryError
        If there is too little free memory.
    """
    if how not in ("nearest", "linear") or missing not in ("zero", "renormalise"):
        raise SparseError(
            f"unknown interpolation how={how!r}, missing={missing!r}",
            "give nearest or linear, and zero or renormalise",
        )
    _check_points(x, points)
    _require_rows(x, len(points), f"{how} interpolation")
    position = points[:, 1:].double()
    sample = points[:, :1].detach().long()
    if how == "nearest":
        cells = torch.cat([sample, position.detach().floor().long()], 1)
        return _Gather.apply(x.features, x.sites.rows(cells))  # type: ignore[no-untyped-call]

    lowest = (position - 0.5).detach().floor()
    part = position - 0.5 - lowest  # of the way from the lower centre to the upper one
    sides = (1 - part, part)
    rows, weights = [], []
    for i, j, k in itertools.product((0, 1), repeat=3):
        cells = torch.cat(
            [sample, lowest.long() + torch.tensor([i, j, k], device=points.device)], 1
        )
        rows.append(x.sites.rows(cells))
        weights.append(sides[i][:, 0] * sides[j][:, 1] * sides[k][:, 2])
    corners, weight = torch.stack(rows), torch.stack(weights)
    weight = torch.where(corners >= 0, weight, 0)
    if missing == "renormalise":
        total = weight.sum(0)
        weight = torch.where(total > 0, weight / torch.where(total > 0, total, 1), 0)
    return _Blend.apply(x.features, weight.to(sum_dtype(x.features.dtype)), corners)  # type: ignore[no-untyped-call]


def _check_points(x: SparseTensor, points: Tensor) -> None:
    if points.ndim != 2 or points.shape[1] != 4:
        raise SparseError(
            f"points have shape {tuple(points.shape)}", "give (m, 4) rows (sample, x, y, z)"
        )
    if points.dtype not in (torch.float32, torch.float64):
        raise SparseError(f"points are {points.dtype}", "give float64 or float32")
    if points.device != x.features.device:
        raise SparseError(
            f"points are on {points.device}, features are on {x.features.device}",
            "move them to one device",
        )
    position, sample = points[:, 1:].detach(), points[:, 0].detach()
    if not bool(((position >= LOW) & (position < HIGH + 1)).all()):  # NaN is neither
        raise SparseError(
            "points lie at positions that are not finite or do not fit 32 bits", "drop these"
        )
    if not bool(((sample >= 0) & (sample < x.batch_size) & (sample == sample.floor())).all()):
        raise SparseError(
            f"points are in samples that a batch of {x.batch_size} does not have",
            "number the samples from 0",
        )


def _require_rows(x: SparseTensor, rows: int, what: str) -> None:
    size = x.channels * (x.features.element_size() + 2 * sum_dtype(x.features.dtype).itemsize)
    require(rows * (size + 256), x.features.device, f"{what} of {x.channels} channels", rows)


def _parent_rows(sites: Sites, by: Triple) -> Tensor:
    """(n,) int64: the row of each voxel's parent in `sites.parents(by)`."""

    def make() -> Tensor:
        cells = torch.cat(
            [sites.coordinates[:, :1], coarsen_coordinates(sites.coordinates[:, 1:], by)], 1
        )
        return sites.parents(by).rows(cells)

    return sites.cached(("earthgen.sparse.sampling", "parent rows", by), make)


def _sum_by_number(values: Tensor, number: Tensor, count: int) -> Tensor:
    """(count, c): sums of the (m, c) values with the same number, in their order; negative numbers
    are ignored."""
    number = torch.where(number < 0, count, number)
    order = torch.argsort(number, stable=True)
    lengths = torch.bincount(number, minlength=count + 1)
    return torch.segment_reduce(values.index_select(0, order), "sum", lengths=lengths)[:count]


class _Gather(torch.autograd.Function):
    """Select rows of (n, c) features by (m,) numbers; 0 where the number is negative."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, number: Tensor) -> Tensor:
        ctx.save_for_backward(number)
        ctx.count = len(features)
        return take_rows(features, number)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (number,) = ctx.saved_tensors
        return _sum_by_number(gradient.to(sum_dtype(gradient.dtype)), number, ctx.count).to(
            gradient.dtype
        ), None


class _Blend(torch.autograd.Function):
    """Sums of (n, c) features by (corners, m) weights and row numbers; a corner without a row is
    0."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(features, weights, numbers)
        total = features.new_zeros((numbers.shape[1], features.shape[1]), dtype=weights.dtype)
        for weight, number in zip(weights, numbers, strict=True):
            total += weight[:, None] * take_rows(features, number)
        return total.to(features.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weights, numbers = ctx.saved_tensors
        gradient = gradient.to(weights.dtype)
        of_features = of_weights = None
        if ctx.needs_input_grad[0]:
            total = gradient.new_zeros(features.shape)
            for weight, number in zip(weights, numbers, strict=True):
                total += _sum_by_number(weight[:, None] * gradient, number, len(features))
            of_features = total.to(features.dtype)
        if ctx.needs_input_grad[1]:
            of_weights = torch.stack(
                [(gradient * take_rows(features, number)).sum(1) for number in numbers]
            )
        return of_features, of_weights, None


def _sum_over(rows: Tensor, pairs: KernelMap) -> Tensor:
    """(outputs, c): sums of the (inputs, c) rows of each kernel, in the order of its offsets."""
    total = rows.new_zeros((len(pairs.table), rows.shape[1]))
    for number in pairs.table.unbind(1):
        total += take_rows(rows, number)
    return total


class _Sum(torch.autograd.Function):
    """The sum or the mean of the rows of each kernel."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pairs: KernelMap, mean: bool) -> Tensor:
        ctx.pairs, ctx.mean = pairs, mean
        total = _sum_over(features.to(sum_dtype(features.dtype)), pairs)
        return (total / _counts(pairs) if mean else total).to(features.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        of_sum = gradient.to(sum_dtype(gradient.dtype))
        if ctx.mean:
            of_sum = of_sum / _counts(ctx.pairs)
        return _sum_over(of_sum, ctx.pairs.transposed).to(gradient.dtype), None, None


def _counts(pairs: KernelMap) -> Tensor:
    """(outputs, 1): number of voxels of each kernel, at least 1, as a divisor."""
    return (pairs.table >= 0).sum(1, keepdim=True).clamp(min=1)


class _Max(torch.autograd.Function):
    """The largest of the rows of each kernel, channel by channel."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pairs: KernelMap) -> Tensor:
        best = features.new_zeros((len(pairs.table), features.shape[1]))
        winner = torch.full(best.shape, -1, dtype=torch.int32, device=features.device)
        for offset, number in enumerate(pairs.table.unbind(1)):
            value = take_rows(features, number)
            # NaN wins, as in torch's pooling, and the first present voxel wins even with minus
            # infinity.
            wins = (number >= 0)[:, None] & ((winner < 0) | (value > best) | value.isnan())
            best = torch.where(wins, value, best)
            winner.masked_fill_(wins, offset)
        ctx.save_for_backward(winner)
        ctx.pairs = pairs
        return best

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        back = ctx.pairs.transposed
        total = gradient.new_zeros(
            (ctx.pairs.inputs, gradient.shape[1]), dtype=sum_dtype(gradient.dtype)
        )
        for offset, number in enumerate(back.table.unbind(1)):
            total += take_rows(gradient.masked_fill(winner != offset, 0), number)
        return total.to(gradient.dtype), None
