"""Attention over ragged batches: in windows, shifted windows, whole samples, and from one sparse
tensor to another.

Voxels of a window lie side by side in a packed tensor; windows of similar length share a call of
torch's scaled_dot_product_attention, which holds no matrix of scores. So time and memory grow with
the number of voxels for windows of one size, and memory does so for whole samples too. Gradients
are deterministic on the CPU; on CUDA torch's own kernels sum them in a fixed order only under
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
"""Windows whose lengths lie between the same two rungs are padded to one length: less than a
quarter is padding."""

LONGEST = LADDER[-1]
"""Longer windows are never padded, only those of one length go together: a mask that torch
spreads out to queries times keys has at most TOKENS * LONGEST elements."""

TOKENS = 2**15
"""Rows of a call, padding included; a longer window goes alone. Below 2^16, the most windows
that CUDA takes a call."""


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, partition: Partition) -> Tensor:
    """(n, heads, dim): softmax(q k^T / sqrt(dim)) v, each row over those of its window (Vaswani et
    al. 2017).

    q, k, v : (n, heads, dim), of one floating dtype, in the order of the sites that were
        partitioned

    Under `torch.autocast` they are taken in its dtype. Half dtypes are multiplied in float32 on
    CPUs without instructions for them. Raises SparseError, SparseError, SparseError.
    """
    return cross_attention(q, k, v, partition, partition)


def cross_attention(q: Tensor, k: Tensor, v: Tensor, queries: Partition, keys: Partition) -> Tensor:
    """(n, heads, dim): as `ragged_attention`, with keys and values of other voxels. No keys in a
    window give zeros.

    q : (n, heads, dim); k, v : (m, heads, dim)
    queries, keys : partitions of both into the same windows

    Raises SparseError where the windows are others, SparseError, SparseError, SparseError.
    """
    _check(q, k, v, queries, keys)
    kind = q.device.type
    dtype = q.dtype
    if torch.is_autocast_enabled(kind) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    found = _meeting(queries, keys)
    there, back = found.queries
    with torch.autocast(kind, enabled=False):
        product = product_dtype(dtype, q.device)
        if not (torch.is_grad_enabled() and any(one.requires_grad for one in (q, k, v))):
            return _by_calls(q, k, v, found, dtype, product)
        q = _moved(q.to(dtype).to(product), there, back)
        k, v = (_moved(one.to(dtype).to(product), *found.keys) for one in (k, v))
        query_rows = [call.windows * call.queries for call in found.calls]
        key_rows = [call.windows * call.keys for call in found.calls]
        parts = zip(
            *map(torch.split, (q, k, v), (query_rows, key_rows, key_rows)), found.calls, strict=True
        )
        # Where nothing meets all are empty, and still each of them has a gradient.
        done = [_call(*one) for one in parts] or [q + k + v]
        return _moved(torch.cat(done), back, there).to(dtype)


@dataclass(frozen=True, eq=False)
class _Table:
    """Where rows come from: `rows` (m,) int64, and `blank` (b,) int64, which of the m come from
    nowhere and are 0."""

    rows: Tensor
    blank: Tensor


def _moved(x: Tensor, there: _Table, back: _Table) -> Tensor:
    """Rows by a table. Each row is moved at most once, so the gradient moves back by the other
    table, and no sums."""
    return _Moved.apply(x, there, back)  # type: ignore[no-untyped-call]


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: _Table, back: _Table) -> Tensor:
        ctx.tables = there, back
        if not len(x):
            return x.new_zeros((len(there.rows), *x.shape[1:]))
        return _picked(x, there.rows, there.blank)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        there, back = ctx.tables
        return _moved(gradient, back, there), None, None


@dataclass(frozen=True, eq=False)
class _Call:
    """Windows that are computed together.

    Attributes
    ----------
    windows : how many
    queries, keys : rows of each, padding included
    mask : (windows, 1, 1, keys) bool, which keys are no padding; None where none is
    """

    windows: int
    queries: int
    keys: int
    mask: Tensor | None


@dataclass(frozen=True, eq=False)
class _Meeting:
    """All calls of two partitions, and the tables to the packed rows and back."""

    queries: tuple[_Table, _Table]
    keys: tuple[_Table, _Table]
    calls: list[_Call]


def _call(q: Tensor, k: Tensor, v: Tensor, call: _Call) -> Tensor:
    """(windows * queries, heads, dim) of packed rows."""
    q = q.view(call.windows, call.queries, *q.shape[1:]).transpose(1, 2)
    k, v = (x.view(call.windows, call.keys, *x.shape[1:]).transpose(1, 2) for x in (k, v))
    found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=call.mask)
    return found.transpose(1, 2).flatten(0, 1)


def _by_calls(
    q: Tensor, k: Tensor, v: Tensor, found: _Meeting, dtype: torch.dtype, product: torch.dtype
) -> Tensor:
    """What the packed tensors give, where no gradient is wanted: packed a call at a time.

    Packing all at once takes five more tensors of the size of the input, and of a million voxels
    their first touch longer than the attention.
    """
    result = q.new_zeros(q.shape, dtype=dtype)  # a window without keys keeps zeros
    query, key = 0, 0
    for call in found.calls:
        queries, keys = call.windows * call.queries, call.windows * call.keys
        rows, blank = _part(found.queries[0], query, queries)
        others, blanks = (
            (rows, blank) if found.keys is found.queries else _part(found.keys[0], key, keys)
        )
        one = _picked(q, rows, blank).to(dtype).to(product)
        two, three = (_picked(x, others, blanks).to(dtype).to(product) for x in (k, v))
        made = _call(one, two, three, call).to(dtype)
        if len(blank):
            there = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill_(
                0, blank, False
            )
            rows, made = rows[there], made[there]
        result.index_copy_(0, rows, made)
        query, key = query + queries, key + keys
    return result


def _part(table: _Table, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Rows [first, first + count) of a table: where they come from, and which of them come from
    nowhere."""
    low, high = torch.searchsorted(
        table.blank, torch.tensor([first, first + count], device=table.blank.device)
    ).tolist()
    return table.rows[first : first + count], table.blank[low:high] - first


def _picked(x: Tensor, rows: Tensor, blank: Tensor) -> Tensor:
    return x.index_select(0, rows).index_fill_(0, blank, 0)


def _meeting(queries: Partition, keys: Partition) -> _Meeting:
    """What depends on the partitions only, made once for the two."""
    if keys not in queries._cache:
        queries._cache[keys] = _met(queries, keys)
    return queries._cache[keys]


def _met(queries: Partition, keys: Partition) -> _Meeting:
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
    ours = _tables(queries, mine[order], padded[0])
    return _Meeting(
        ours, ours if queries is keys else _tables(keys, theirs[order], padded[1]), calls
    )


def _ranges(rungs: Tensor) -> list[tuple[int, int]]:
    """Windows of each call, as ranges of (2, windows) rungs of queries and keys, those of equal
    rungs side by side."""
    kinds, counts = torch.unique_consecutive(rungs, dim=1, return_counts=True)
    ranges, first = [], 0
    for longest, count in zip(kinds.amax(0).tolist(), counts.tolist(), strict=True):
        step = max(TOKENS // longest, 1)
        ranges += [(at, min(at + step, first + count)) for at in range(first, first + count, step)]
        first += count
    return ranges


def _tables(partition: Partition, chosen: Tensor, padded: Tensor) -> tuple[_Table, _Table]:
    """From the rows of a partition to packed ones, and back.

    chosen, padded : (w,) int64, windows in the order in which they are packed, and their lengths
        then
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
    """The table that brings rows to places."""
    found = rows.new_full((size,), -1)
    found[places] = rows
    return _Table(found.clamp(min=0), torch.nonzero(found < 0)[:, 0])


def _check(q: Tensor, k: Tensor, v: Tensor, queries: Partition, keys: Partition) -> None:
    n, m = len(queries.order), len(keys.order)
    shapes = f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
    if q.ndim != 3 or len(q) != n or k.shape != (m, *q.shape[1:]) or v.shape != k.shape:
        raise SparseError(
            f"{shapes} for {n:,} queries and {m:,} keys",
            "give (voxels, heads, dim), heads and dim alike",
        )
    if 0 in q.shape[1:]:
        raise SparseError(
            f"{shapes}: there is nothing to attend to", "give at least a head of one channel"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise SparseError(
            f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}", "give them in one floating dtype"
        )
    devices = {one.device for one in (q, k, v, queries.order, keys.order)}
    if len(devices) > 1:
        raise SparseError(
            f"q, k, v and partitions are on {' and '.join(sorted(map(str, devices)))}",
            "bring them to one device",
        )
    if queries is not keys:
        queries.boxes.place.check_same(keys.boxes.place)
        if queries.boxes.stride != keys.boxes.stride:
            raise SparseError(
                f"windows of queries are {queries.boxes.stride} voxels large, those of keys {keys.boxes.stride}",
                "partition both into the same windows",
            )


class WindowAttention(nn.Module):
    """Self-attention of several heads in windows of the lattice, with projections in and out.

    After Liu et al. 2021 (Swin) and, for sparse voxels, Yang et al. 2023 (Swin3D). Positions come
    in by turning queries and keys where `rotary` is set, not by a table of biases, which would need
    all pairs of voxels in memory.

    channels : of input and output, a multiple of heads
    window, shift : see `earthgen.sparse.windows.windows`; a window of None is the whole sample
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
    """Self-attention of several heads among all voxels of a sample. Time grows with their
    square, memory does not."""

    def __init__(self, channels: int, heads: int, *, rotary: bool = False) -> None:
        super().__init__(channels, heads, None, rotary=rotary)


class CrossAttention(nn.Module):
    """Attention of several heads from voxels to those of another sparse tensor, in windows or whole
    samples.

    channels : of input and output, a multiple of heads
    context : channels of the other tensor, which lies in the same place and has the same stride
    window, shift : see `earthgen.sparse.windows.windows`; a window of None is the whole sample

    A voxel whose window holds no voxel of the context gets the bias of the projection out.
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
        """Raises SparseError where the two lie in other places or have other strides."""
        _check_channels(x, self.channels)
        _check_channels(context, self.context)
        x.place.check_same(context.place)
        if x.stride != context.stride:
            raise SparseError(
                f"strides differ: {x.stride} and {context.stride}", "bring them to one first"
            )
        (q,) = _heads(linear(x.features, self.q), 1, self.heads)
        k, v = _heads(linear(context.features, self.kv), 2, self.heads)
        if self.rotary:
            q, k = rotary(q, x.sites), rotary(k, context.sites)
        found = cross_attention(q, k, v, self._partition(x.sites), self._partition(context.sites))
        return x.with_features(linear(found.flatten(1), self.out))

    def _partition(self, sites: Sites) -> Partition:
        return whole(sites) if self.window is None else windows(sites, self.window, self.shift)


class SwinBlock(nn.Module):
    """A block of a Swin transformer: x + attention(norm(x)), then x + mlp(norm(x)) (Liu et al.
    2021, equation 3).

    Blocks with a shift of 0 and of half a window take turns. The other arguments are those of
    `WindowAttention`.

    mlp_ratio : channels of the hidden layer by those of the input
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
                f"mlp_ratio {mlp_ratio} leaves {channels} channels no hidden one",
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
    """Each of several parts of the channels, as (n, heads, dim)."""
    return features.view(len(features), parts, heads, features.shape[1] // (parts * heads)).unbind(
        1
    )


def _check_heads(channels: int, heads: int, turned: bool) -> None:
    if heads < 1 or channels < 1 or channels % heads:
        raise SparseError(
            f"{channels} channels are not divisible into {heads} heads",
            "give heads that divide them",
        )
    if turned:
        check_rotary(channels // heads)


def _check_channels(x: SparseTensor, channels: int) -> None:
    if x.channels != channels:
        raise SparseError(
            f"features have shape {tuple(x.features.shape)}, the layer takes {channels} channels",
            f"make the layer for {x.channels} channels",
        )
