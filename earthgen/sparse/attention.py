"""Attention over ragged batches: in windows, shifted windows, whole samples, and from one sparse
tensor to another.

The voxels of a window are adjacent in a packed tensor. Windows of similar length share one call of
torch's scaled_dot_product_attention, which stores no matrix of scores. So for windows of a fixed
size time and memory grow linearly with the number of voxels; for whole samples memory does.
Gradients are deterministic on the CPU. On CUDA torch's kernels sum them in a fixed order only under
`torch.use_deterministic_algorithms(True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earthgen.errors import SparseError
from earthgen.sparse.encoding import check_rotary, rotary
from earthgen.sparse.linear import linear
from earthgen.sparse.norm import LayerNorm
from earthgen.sparse.products import product_dtype
from earthgen.sparse.sites import Sites, triple
from earthgen.sparse.tensor import SparseTensor
from earthgen.sparse.windows import Partition, whole, windows

LADDER = (1, 2, 3, *(part << octave for octave in range(8) for part in (4, 5, 6, 7)))
"""Length classes: windows whose lengths lie between the same two values are padded to one length.
Less than a quarter is padding."""

LONGEST = LADDER[-1]
"""Longer windows are not padded and share a call only with windows of the same length. So a mask,
which torch expands to queries times keys, has at most TOKENS * LONGEST elements."""

TOKENS = 2**15
"""Rows of a call, padding included; a longer window has a call of its own. Below 2^16, the largest
number of windows in a call on CUDA."""


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, partition: Partition) -> Tensor:
    """Compute softmax(q k^T / sqrt(dim)) v within each window (Vaswani et al. 2017).

    Under `torch.autocast` the tensors are cast to its dtype. Half precision is multiplied in
    float32 on CPUs without instructions for it.

    Parameters
    ----------
    q, k, v : Tensor (n, heads, dim)
        Of one floating dtype, in the order of the partitioned sites.
    partition : Partition
        The windows.

    Returns
    -------
    Tensor (n, heads, dim)
        One row for each query.

    Raises
    ------
    SparseError
        If shapes, dtypes or devices do not match.
    """
    return cross_attention(q, k, v, partition, partition)


def cross_attention(q: Tensor, k: Tensor, v: Tensor, queries: Partition, keys: Partition) -> Tensor:
    """Compute softmax(q k^T / sqrt(dim)) v, with keys and values of other voxels than the queries.

    A window without keys gives zeros. See `ragged_attention` for dtypes.

    Parameters
    ----------
    q : Tensor (n, heads, dim)
        Queries.
    k, v : Tensor (m, heads, dim)
        Keys and values.
    queries, keys : Partition
        Partitions of both into the same windows.

    Returns
    -------
    Tensor (n, heads, dim)
        One row for each query.

    Raises
    ------
    SparseError
        If shapes, dtypes, devices or windows do not match.
    """
    _check(q, k, v, queries, keys)
    kind = q.device.type
    dtype = q.dtype
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    plan = _plan(queries, keys)
    pack, unpack = plan.queries
    with torch.autocast(kind, enabled=False):
        product = product_dtype(dtype, q.device)
        if not (torch.is_grad_enabled() and any(one.requires_grad for one in (q, k, v))):
            return _by_calls(q, k, v, plan, dtype, product)
        q = _move(q.to(dtype).to(product), pack, unpack)
        k, v = (_move(one.to(dtype).to(product), *plan.keys) for one in (k, v))
        query_rows = [call.windows * call.queries for call in plan.calls]
        key_rows = [call.windows * call.keys for call in plan.calls]
        parts = zip(
            *map(torch.split, (q, k, v), (query_rows, key_rows, key_rows)), plan.calls, strict=True
        )
        # Without calls all tensors are empty, and each of them still needs a gradient.
        results = [_attend(*one) for one in parts] or [q + k + v]
        return _move(torch.cat(results), unpack, pack).to(dtype)


@dataclass(frozen=True, eq=False)
class _Table:
    """Source rows of a permuted tensor: `rows` (m,) int64, and `blank` (b,) int64, which of the m
    have no source and are 0."""

    rows: Tensor
    blank: Tensor


def _move(x: Tensor, table: _Table, inverse: _Table) -> Tensor:
    """Permute rows by a table. Each row is used at most once, so the gradient is permuted by the
    inverse table, without sums."""
    return _Move.apply(x, table, inverse)  # type: ignore[no-untyped-call]


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: _Table, inverse: _Table) -> Tensor:
        ctx.tables = table, inverse
        if not len(x):
            return x.new_zeros((len(table.rows), *x.shape[1:]))
        return _select(x, table.rows, table.blank)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        table, inverse = ctx.tables
        return _move(gradient, inverse, table), None, None


@dataclass(frozen=True, eq=False)
class _Call:
    """Windows that are computed together.

    Attributes
    ----------
    windows : int
        Number of windows.
    queries, keys : int
        Rows of each window, padding included.
    mask : Tensor (windows, 1, 1, keys) bool or None
        Which keys are not padding; None if no key is.
    """

    windows: int
    queries: int
    keys: int
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class _Plan:
    """All calls of two partitions, and the tables to the packed rows and back."""

    queries: tuple[_Table, _Table]
    keys: tuple[_Table, _Table]
    calls: list[_Call]


def _attend(q: Tensor, k: Tensor, v: Tensor, call: _Call) -> Tensor:
    """(windows * queries, heads, dim) of packed rows."""
    q = q.view(call.windows, call.queries, *q.shape[1:]).transpose(1, 2)
    k, v = (x.view(call.windows, call.keys, *x.shape[1:]).transpose(1, 2) for x in (k, v))
    result = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=call.mask)
    return result.transpose(1, 2).flatten(0, 1)


def _by_calls(
    q: Tensor, k: Tensor, v: Tensor, plan: _Plan, dtype: torch.dtype, product: torch.dtype
) -> Tensor:
    """The same result without gradients, packed call by call.

    Packing everything at once needs five more tensors of the size of the input. For a million
    voxels their first memory access takes longer than the attention.
    """
    result = q.new_zeros(q.shape, dtype=dtype)  # windows without keys remain 0
    query, key = 0, 0
    for call in plan.calls:
        queries, keys = call.windows * call.queries, call.windows * call.keys
        rows, blank = _part(plan.queries[0], query, queries)
        others, blanks = (
            (rows, blank) if plan.keys is plan.queries else _part(plan.keys[0], key, keys)
        )
        one = _select(q, rows, blank).to(dtype).to(product)
        two, three = (_select(x, others, blanks).to(dtype).to(product) for x in (k, v))
        part = _attend(one, two, three, call).to(dtype)
        if len(blank):
            present = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill_(
                0, blank, False
            )
            rows, part = rows[present], part[present]
        result.index_copy_(0, rows, part)
        query, key = query + queries, key + keys
    return result


def _part(table: _Table, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows [first, first + count) of a table: their sources, and which of them have none."""
    low, high = torch.searchsorted(
        table.blank, torch.tensor([first, first + count], device=table.blank.device)
    ).tolist()
    return table.rows[first : first + count], table.blank[low:high] - first


def _select(x: Tensor, rows: Tensor, blank: Tensor) -> Tensor:
    return x.index_select(0, rows).index_fill_(0, blank, 0)


def _plan(queries: Partition, keys: Partition) -> _Plan:
    """What depends on the partitions alone, computed once for each pair."""
    if keys not in queries._cache:
        queries._cache[keys] = _make_plan(queries, keys)
    return queries._cache[keys]


def _make_plan(queries: Partition, keys: Partition) -> _Plan:
    device = queries.order.device
    if queries is keys:
        mine = theirs = torch.arange(len(queries), device=device)
    else:
        theirs = keys.boxes.rows(queries.boxes.coordinates)
        mine = torch.nonzero(theirs >= 0)[:, 0]
        theirs = theirs[mine]
    lengths = torch.stack([queries.counts[mine], keys.counts[theirs]]).cpu()
    ladder = torch.tensor(LADDER)
    rungs = ladder[torch.bucketize(lengths, ladder).clamp_(max=len(LADDER) - 1)].maximum(lengths)
    order = torch.arange(lengths.shape[1])
    for row in (lengths[1], lengths[0], rungs[1], rungs[0]):
        order = order[torch.argsort(row[order], stable=True)]
    lengths, rungs = lengths[:, order], rungs[:, order]
    padded, calls = torch.empty_like(lengths), []
    for first, last in _ranges(rungs):
        here = lengths[:, first:last]
        longest = here.amax(1)
        padded[:, first:last] = longest[:, None]
        mask = (torch.arange(int(longest[1])) < here[1, :, None])[:, None, None]
        full = None if bool(mask.all()) else mask.to(device)
        calls.append(_Call(last - first, int(longest[0]), int(longest[1]), full))
    order, padded = order.to(device), padded.to(device)
    tables = _tables(queries, mine[order], padded[0])
    return _Plan(
        tables, tables if queries is keys else _tables(keys, theirs[order], padded[1]), calls
    )


def _ranges(rungs: Tensor) -> list[tuple[int, int]]:
    """Windows of each call, as ranges of the (2, windows) sorted length classes of queries and
    keys."""
    kinds, counts = torch.unique_consecutive(rungs, dim=1, return_counts=True)
    ranges, first = [], 0
    for longest, count in zip(kinds.amax(0).tolist(), counts.tolist(), strict=True):
        step = max(TOKENS // longest, 1)
        ranges += [(at, min(at + step, first + count)) for at in range(first, first + count, step)]
        first += count
    return ranges


def _tables(partition: Partition, chosen: Tensor, padded: Tensor) -> tuple[_Table, _Table]:
    """Tables from the rows of a partition to packed rows, and back.

    Parameters
    ----------
    partition : Partition
        The windows.
    chosen : Tensor (w,) int64
        Windows in the order in which they are packed.
    padded : Tensor (w,) int64
        Their lengths, padding included.
    """
    counts = partition.counts[chosen]
    inside = torch.arange(int(counts.sum()), device=counts.device) - _spread(
        counts.cumsum(0) - counts, counts
    )
    rows = partition.order[_spread(partition.bounds[chosen], counts) + inside]
    places = _spread(padded.cumsum(0) - padded, counts) + inside
    return _table(rows, places, int(padded.sum())), _table(places, rows, len(partition.order))


def _spread(values: Tensor, counts: Tensor) -> Tensor:
    return torch.repeat_interleave(values, counts)


def _table(rows: Tensor, places: Tensor, size: int) -> _Table:
    """The table that moves rows to places."""
    source = rows.new_full((size,), -1)
    source[places] = rows
    return _Table(source.clamp(min=0), torch.nonzero(source < 0)[:, 0])


def _check(q: Tensor, k: Tensor, v: Tensor, queries: Partition, keys: Partition) -> None:
    n, m = len(queries.order), len(keys.order)
    shapes = f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
    if q.ndim != 3 or len(q) != n or k.shape != (m, *q.shape[1:]) or v.shape != k.shape:
        raise SparseError(
            f"{shapes} for {n:,} queries and {m:,} keys",
            "give (voxels, heads, dim) with equal heads and dim",
        )
    if 0 in q.shape[1:]:
        raise SparseError(
            f"{shapes}: heads or channels are missing", "give at least one head of one channel"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise SparseError(
            f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}", "give them in one floating dtype"
        )
    devices = {one.device for one in (q, k, v, queries.order, keys.order)}
    if len(devices) > 1:
        raise SparseError(
            f"q, k, v and partitions are on {' and '.join(sorted(map(str, devices)))}",
            "move them to one device",
        )
    if queries is not keys:
        queries.boxes.place.check_same(keys.boxes.place)
        if queries.boxes.stride != keys.boxes.stride:
            raise SparseError(
                f"windows of queries have {queries.boxes.stride} voxels along their edges, those "
                f"of keys {keys.boxes.stride}",
                "partition both into the same windows",
            )


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of the lattice, with input and output projections.

    After Liu et al. 2021, "Swin Transformer", and for sparse voxels Yang et al. 2023, "Swin3D".
    Positions are encoded by rotating queries and keys, not by a table of biases, which would need
    all pairs of voxels in memory.

    Parameters
    ----------
    channels : int
        Channels of input and output, a multiple of heads.
    heads : int
        Number of heads.
    window : int, sequence of int or None
        Window size in cells, see `earthgen.sparse.windows`; None for the whole sample.
    shift : int or sequence of int
        Shift of the windows in cells.
    rotary : bool
        Rotate queries and keys by their positions.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int | Sequence[int] | None,
        shift: int | Sequence[int] = 0,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        _check_heads(channels, heads, rotary)
        self.channels, self.heads, self.rotary = channels, heads, rotary
        self.window = None if window is None else triple(window, "window size")
        self.shift = triple(shift, "shift", least=0)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        _check_channels(x, self.channels)
        q, k, v = _heads(linear(x.features, self.qkv), 3, self.heads)
        if self.rotary:
            q, k = rotary(q, x.sites), rotary(k, x.sites)
        partition = (
            whole(x.sites) if self.window is None else windows(x.sites, self.window, self.shift)
        )
        return x.with_features(linear(ragged_attention(q, k, v, partition).flatten(1), self.out))


class FullAttention(WindowAttention):
    """Multi-head self-attention among all voxels of a sample.

    Time grows with the square of their number, memory linearly.
    """

    def __init__(self, channels: int, heads: int, *, rotary: bool = False) -> None:
        super().__init__(channels, heads, None, rotary=rotary)


class CrossAttention(nn.Module):
    """Multi-head attention from voxels to those of another sparse tensor, in windows or whole
    samples.

    If the window of a voxel contains no voxel of the context, the output is the bias of the output
    projection.

    Parameters
    ----------
    channels : int
        Channels of input and output, a multiple of heads.
    context : int
        Channels of the other tensor, which lies in the same place and has the same stride.
    heads : int
        Number of heads.
    window : int, sequence of int or None
        Window size in cells, see `earthgen.sparse.windows`; None for the whole sample.
    shift : int or sequence of int
        Shift of the windows in cells.
    rotary : bool
        Rotate queries and keys by their positions.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        heads: int,
        window: int | Sequence[int] | None = None,
        shift: int | Sequence[int] = 0,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        _check_heads(channels, heads, rotary)
        self.channels, self.context, self.heads, self.rotary = channels, context, heads, rotary
        self.window = None if window is None else triple(window, "window size")
        self.shift = triple(shift, "shift", least=0)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(context, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: SparseTensor, context: SparseTensor) -> SparseTensor:
        """Attend from `x` to `context`; SparseError if they differ in place or stride."""
        _check_channels(x, self.channels)
        _check_channels(context, self.context)
        x.place.check_same(context.place)
        if x.stride != context.stride:
            raise SparseError(
                f"strides differ: {x.stride} and {context.stride}", "resample one of them first"
            )
        (q,) = _heads(linear(x.features, self.q), 1, self.heads)
        k, v = _heads(linear(context.features, self.kv), 2, self.heads)
        if self.rotary:
            q, k = rotary(q, x.sites), rotary(k, context.sites)
        result = cross_attention(q, k, v, self._partition(x.sites), self._partition(context.sites))
        return x.with_features(linear(result.flatten(1), self.out))

    def _partition(self, sites: Sites) -> Partition:
        return whole(sites) if self.window is None else windows(sites, self.window, self.shift)


class SwinBlock(nn.Module):
    """A block of a Swin transformer: x + attention(norm(x)), then x + mlp(norm(x)) (Liu et al.
    2021, equation 3).

    Networks alternate blocks with a shift of 0 and of half a window.

    Parameters
    ----------
    channels, heads, window, shift, rotary
        As in `WindowAttention`.
    mlp_ratio : float
        Channels of the hidden layer divided by those of the input.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int | Sequence[int] | None,
        shift: int | Sequence[int] = 0,
        *,
        mlp_ratio: float = 4,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        if hidden < 1:
            raise SparseError(
                f"mlp_ratio {mlp_ratio} of {channels} channels gives no hidden channel",
                "give a larger ratio",
            )
        self.attention_norm = LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window, shift, rotary=rotary)
        self.mlp_norm = LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        _check_channels(x, self.attention.channels)
        x = x + self.attention(self.attention_norm(x))
        hidden = nn.functional.gelu(linear(self.mlp_norm(x).features, self.expand))
        return x + x.with_features(linear(hidden, self.contract))


def _heads(features: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split the channels into parts of (n, heads, dim)."""
    return features.view(len(features), parts, heads, features.shape[1] // (parts * heads)).unbind(
        1
    )


def _check_heads(channels: int, heads: int, rotary: bool) -> None:
    if heads < 1 or channels < 1 or channels % heads:
        raise SparseError(
            f"{channels} channels are not divisible into {heads} heads",
            "give a number of heads that divides them",
        )
    if rotary:
        check_rotary(channels // heads)


def _check_channels(x: SparseTensor, channels: int) -> None:
    if x.channels != channels:
        raise SparseError(
            f"features have shape {tuple(x.features.shape)}, the layer takes {channels} channels",
            f"make the layer for {x.channels} channels",
        )
