"""Sparse convolution: against a dense one, forward and backward, against spconv, and what it
promises beside that."""

from __future__ import annotations

import gc
import itertools
import json
import pickle
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from earthgen import memory
from earthgen.errors import OutOfMemoryError, SparseError
from earthgen.sparse import convolution, kernel_map, products
from earthgen.sparse.convolution import convolve, convolve_transposed
from earthgen.sparse.grouping import BLOCK, MOST, SPAN, STEP, spans
from earthgen.sparse.kernel_map import (
    Kernel,
    KernelMap,
    _merge,
    generative_sites,
    reached_sites,
    search_table,
)
from earthgen.sparse.linear import multiply
from earthgen.sparse.products import (
    grouped_backward,
    grouped_forward,
    plain_backward,
    plain_forward,
)
from earthgen.sparse.sites import HIGH, LOW, Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor, sparse_tensor
from tests.helpers.sparse_reference import convolution as reference
from tests.helpers.sparse_scenes import SCENES, normal, scene, shell, voxels

SAME = [
    Kernel.of(1),
    Kernel.of(3),
    Kernel.of(5),
    Kernel.of(2),
    Kernel.of(4),
    Kernel.of(3, dilation=2),
    Kernel.of((1, 2, 3), dilation=(1, 3, 2)),
]
STRIDED = [
    Kernel.of(1, 2),
    Kernel.of(2, 2),
    Kernel.of(3, 2),
    Kernel.of((3, 2, 1), (1, 2, 3)),
    Kernel.of(3, 2, 2),
]


def name(kernel: Kernel) -> str:
    return "-".join(
        "".join(map(str, part)) for part in (kernel.size, kernel.stride, kernel.dilation)
    )


def rows_of(coordinates: Tensor) -> dict[tuple[int, ...], int]:
    return {tuple(row): number for number, row in enumerate(coordinates.tolist())}


def table_by_hand(source: Sites, target: Sites, kernel: Kernel) -> list[list[int]]:
    """The kernel map as the docstring of Kernel has it, in Python's integers, which do not wrap."""
    there = rows_of(source.coordinates)
    steps = list(itertools.product(*([i - (n - 1) // 2 for i in range(n)] for n in kernel.size)))
    table = []
    for sample, *at in target.coordinates.tolist():
        looked = [
            (sample, *(at[n] * kernel.stride[n] + step[n] * kernel.dilation[n] for n in range(3)))
            for step in steps
        ]
        table.append([there.get(one, -1) for one in looked])
    return table


triples = st.tuples(*[st.integers(1, 3)] * 3)
cells = st.lists(st.tuples(st.integers(0, 1), *[st.integers(-4, 4)] * 3), unique=True, max_size=30)
shifts = st.sampled_from([(0, 0, 0), (-3, 5, -11), (HIGH - 40, LOW + 40, 7)])


def sites_of(
    found: list[tuple[int, ...]], shift: tuple[int, int, int], stride: int | tuple[int, ...] = 1
) -> Sites:
    coordinates = torch.tensor(found, dtype=torch.int64).reshape(-1, 4) + torch.tensor([0, *shift])
    return make_sites(coordinates, stride=stride, place=Place(((0, 0, 0),) * 2))[0]


@settings(max_examples=60)
@given(cells, cells, triples, triples, triples, shifts)
def test_tables_by_walking_by_searching_and_by_hand_are_the_same(
    source, target, size, stride, dilation, shift
) -> None:
    kernel = Kernel(size, stride, dilation)
    fine = sites_of(source, shift)
    coarse = sites_of(target, tuple(a // b for a, b in zip(shift, stride, strict=True)), stride)
    table = _merge(fine, coarse, kernel)
    assert table.dtype == torch.int32
    assert torch.equal(table, search_table(fine, coarse, kernel))
    assert table.tolist() == table_by_hand(fine, coarse, kernel)


def test_tables_of_many_rows_on_two_threads_and_in_several_chunks() -> None:
    coordinates = torch.cat([shell(80), shell(30, at=(-90, 4, 9), sample=1)])
    sites, _ = make_sites(coordinates)
    assert len(sites) > 8192 * 1.5
    for kernel, target in ((Kernel.of(3), sites), (Kernel.of(2, 2), sites.parents(2))):
        assert torch.equal(_merge(sites, target, kernel), search_table(sites, target, kernel))


def test_tables_at_the_ends_of_32_bits() -> None:
    ends = torch.tensor([[0, HIGH, LOW, 0], [0, HIGH - 1, LOW + 1, 1]])
    sites, _ = make_sites(ends)
    kernel = Kernel.of(5, dilation=(2**30, 1, 1))
    for table in (_merge(sites, sites, kernel), search_table(sites, sites, kernel)):
        assert table.tolist() == table_by_hand(sites, sites, kernel)
    with pytest.raises(SparseError, match="32 bits"):
        generative_sites(Sites(ends.int(), (2, 2, 2)), Kernel.of(2, 2))
    with pytest.raises(SparseError, match="32 bits"):
        reached_sites(sites, Kernel.of(3))


def test_offsets_run_from_minus_half_to_half_with_z_fastest() -> None:
    assert Kernel.of(2).offsets().tolist() == [
        list(one) for one in itertools.product((0, 1), repeat=3)
    ]
    assert Kernel.of(3, dilation=2).offsets().tolist() == [
        list(a) for a in itertools.product((-2, 0, 2), repeat=3)
    ]
    assert Kernel.of((1, 1, 4)).offsets().tolist() == [[0, 0, k] for k in (-1, 0, 1, 2)]


@pytest.mark.parametrize(
    "kernel", [Kernel.of(3), Kernel.of(2), Kernel.of(2, 2), Kernel.of(3, 2)], ids=name
)
@pytest.mark.parametrize("where", SCENES)
def test_the_transposed_map_names_the_same_meetings(where: str, kernel: Kernel) -> None:
    fine = scene(where, 1).sites
    coarse = fine if kernel.stride == (1, 1, 1) else fine.parents(kernel.stride)
    found = kernel_map.kernel_map(fine, coarse, kernel)
    back = found.transposed
    assert back.table.shape == (len(fine), kernel.volume) and back.inputs == len(coarse)
    meetings = {
        (o, k, i) for o, row in enumerate(found.table.tolist()) for k, i in enumerate(row) if i >= 0
    }
    assert {
        (o, k, i) for i, row in enumerate(back.table.tolist()) for k, o in enumerate(row) if o >= 0
    } == meetings
    assert found.pairs == back.pairs == len(meetings)
    assert (
        torch.equal(back.transposed.table, found.table) and back.transposed.inputs == found.inputs
    )
    assert found.transposed is back


def test_a_map_is_made_once_for_two_sites() -> None:
    fine = scene("terrain", 1).sites
    coarse, kernel = fine.parents(2), Kernel.of(2, 2)
    found = kernel_map.kernel_map(fine, coarse, kernel)
    assert kernel_map.kernel_map(fine, coarse, Kernel.of(2, 2)) is found
    other = make_sites(coarse.coordinates[:5], stride=2)[0]
    assert kernel_map.kernel_map(fine, other, kernel) is not found  # other output voxels
    assert kernel_map.kernel_map(fine, coarse, Kernel.of(3, 2)) is not found
    ours, theirs = pickle.loads(pickle.dumps((fine, coarse)))
    assert torch.equal(kernel_map.kernel_map(ours, theirs, kernel).table, found.table)


def test_sites_that_follow_others_in_memory_get_their_own_map() -> None:
    fine, kernel = scene("terrain", 1).sites, Kernel.of(1)
    for count in range(1, 20):  # an address is soon taken again
        target = make_sites(fine.coordinates[:count])[0]
        assert len(kernel_map.kernel_map(fine, target, kernel).table) == count
        del target


USES: dict[str, Callable[[SparseTensor], object]] = {
    "submanifold": lambda x: convolve(x, normal(27, 2, 2), Kernel.of(3)),
    "strided": lambda x: convolve(x, normal(8, 2, 2), Kernel.of(2, 2)),
    "reach": lambda x: convolve(x, normal(27, 2, 2), Kernel.of(3, 2), reach=True),
    "inverse": lambda x: convolve_transposed(
        convolve(x, normal(8, 2, 2), Kernel.of(2, 2)),
        normal(8, 2, 2),
        Kernel.of(2, 2),
        sites=x.sites,
    ),
    "generative": lambda x: convolve_transposed(
        SparseTensor(Sites(x.coordinates, (2, 2, 2)), x.features), normal(8, 2, 2), Kernel.of(2, 2)
    ),
    "down and up": lambda x: convolve_transposed(
        convolve(x, normal(8, 2, 2), Kernel.of(2, 2)), normal(8, 2, 2), Kernel.of(2, 2)
    ),
    "there and back": lambda x: convolve(
        convolve(x, normal(27, 2, 2), Kernel.of(3), reach=True),
        normal(27, 2, 2),
        Kernel.of(3),
        sites=x.sites,
    ),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_cached_goes_when_the_sites_go(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref] = []
    whole = Sites.__init__

    def noted(self: Sites, *args: object, **kwargs: object) -> None:
        whole(self, *args, **kwargs)
        made.append(weakref.ref(self))

    convolve(scene("random", 2), normal(27, 2, 2), Kernel.of(3))  # numba compiles, and keeps frames
    gc.collect()
    gc.disable()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Sites, "__init__", noted)
            x = scene("random", 2)
            x.features.requires_grad_(True)
            result = USES[use](x)
            assert isinstance(result, SparseTensor)
            result.features.sum().backward()
            assert made and any(one() is not None for one in made)
            del x, result
            assert [one() for one in made if one() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("kernel", STRIDED, ids=name)
@pytest.mark.parametrize("where", SCENES)
def test_output_sites_are_all_that_the_kernel_reaches(where: str, kernel: Kernel) -> None:
    sites = scene(where, 1).sites
    found = reached_sites(sites, kernel)
    steps = kernel.offsets().tolist()
    expected = set()
    for sample, *xyz in sites.coordinates.tolist():
        for step in steps:
            at = [c - d for c, d in zip(xyz, step, strict=True)]
            if all(c % t == 0 for c, t in zip(at, kernel.stride, strict=True)):
                expected.add((sample, *(c // t for c, t in zip(at, kernel.stride, strict=True))))
    assert [tuple(row) for row in found.coordinates.tolist()] == sorted(expected)
    assert found.stride == kernel.stride
    finer = generative_sites(
        Sites(sites.parents(kernel.stride).coordinates, kernel.stride, sites.place), kernel
    )
    expected = {
        (sample, *(c * t + d for c, t, d in zip(xyz, kernel.stride, step, strict=True)))
        for sample, *xyz in sites.parents(kernel.stride).coordinates.tolist()
        for step in steps
    }
    assert [tuple(row) for row in finer.coordinates.tolist()] == sorted(expected)
    assert finer.stride == (1, 1, 1)


def random_map(
    rows: int, columns: int, inputs: int, share: float = 0.5, seed: int = 0
) -> KernelMap:
    """A map in which an offset meets an input once at most, as a kernel's does, and about
    `share` of rows have one."""
    random = np.random.default_rng(seed)
    table = np.full((rows, columns), -1, np.int32)
    for column in range(columns):
        count = min(int(random.binomial(rows, share)), inputs)
        table[random.permutation(rows)[:count], column] = random.permutation(inputs)[:count]
    return KernelMap(torch.from_numpy(table), inputs)


MAPS = {
    "one column": random_map(700, 1, 500),
    "eight columns": random_map(900, 8, 1000),
    "27 columns": random_map(3000, 27, 2500),
    "125 columns": random_map(40, 125, 60, 0.1),
    "full, with several groups of one pattern": random_map(5000, 8, 5000, 1.0),
    "sparse": random_map(2000, 27, 1000, 0.02),
    "no meetings": random_map(30, 27, 20, 0.0),
    "no rows": random_map(0, 27, 20),
    "no inputs": random_map(20, 27, 0),
    "one row": random_map(1, 27, 5),
    "terrain": kernel_map.kernel_map(*[make_sites(shell(30))[0]] * 2, Kernel.of(3)),
}


@pytest.mark.parametrize("which", MAPS)
def test_groups_name_each_meeting_once(which: str) -> None:
    found = MAPS[which]
    rebuilt = np.full(found.table.shape, -1, np.int32)
    times = np.zeros(found.table.shape, np.int32)
    for span in spans(found):
        rows_of_products = [np.array([-1])]
        for group in span.groups:
            named = group.neighbours.numpy().copy()
            assert (named >= 0).all() and (named < found.inputs).all()
            named[group.absent.numpy()] = -1
            named = named.reshape(len(group.rows), len(group.offsets))
            assert 0 < len(group.rows) <= MOST and len(group.rows) % STEP == 0
            for row, near in zip(group.rows.tolist(), named, strict=True):
                there = near >= 0
                rebuilt[row, group.offsets.numpy()[there]] = near[there]
                times[row, group.offsets.numpy()[there]] += 1
            rows_of_products.append(np.where((named >= 0).any(1), group.rows.numpy(), -1))
        owners, places = np.concatenate(rows_of_products), span.places.numpy()
        assert len(owners) == span.products and len(places) == span.last - span.first
        for number, row in enumerate(range(span.first, span.last)):
            used = places[number][places[number] > 0]
            assert (owners[used] == row).all() and (owners == row).sum() == len(used)
    assert (rebuilt == found.table.numpy()).all()
    assert (times == (found.table.numpy() >= 0)).all()
    assert spans(found) is spans(found)


def test_rows_of_a_common_pattern_need_no_zeros() -> None:
    table = torch.full((3 * BLOCK, 9), -1, dtype=torch.int32)
    table[::3, 2], table[1::3, 4:6], table[2::3, :] = 0, 1, 2
    (span,) = spans(KernelMap(table, 3))
    assert [len(group.offsets) for group in span.groups] == [1, 2, 9]
    assert not any(len(group.absent) for group in span.groups)


def test_more_rows_than_a_span() -> None:
    found = random_map(SPAN + 100, 2, 50, 0.9)
    features, weight = normal(50, 2), normal(2, 2, 3, seed=1)
    assert [(span.first, span.last) for span in spans(found)] == [(0, SPAN), (SPAN, SPAN + 100)]
    close(
        grouped_forward(features, weight, found),
        plain_forward(features, weight, found),
        torch.float64,
    )


# Sums of at most 125 * 6 products of normal numbers: an error of some units in the last place of
# the largest. bfloat16 and float16 are summed in float32 over slices of the kernel, and rounded
# once more at the end.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    size = float(b.detach().abs().max()) if b.numel() else 1.0
    torch.testing.assert_close(
        a.double(), b.double(), rtol=0, atol=TOLERANCE[dtype] * max(size, 1.0)
    )


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(each, marks=pytest.mark.slow)
        if each in (torch.float64, torch.float16)
        else each
        for each in TOLERANCE
    ],
    ids=str,
)
@pytest.mark.parametrize("which", MAPS)
def test_products_by_groups_are_those_in_plain_torch(which: str, dtype: torch.dtype) -> None:
    found = MAPS[which]
    features = normal(found.inputs, 5).to(dtype)
    weight = normal(found.table.shape[1], 5, 6, seed=1).to(dtype)
    gradient = normal(len(found.table), 6, seed=2).to(dtype)
    # The sum as it is written, in float64.
    padded = torch.cat([features.double(), torch.zeros(1, 5)])
    beside = padded[torch.where(found.table < 0, found.inputs, found.table).long()]
    exact = torch.einsum("oki,kic->oc", beside, weight.double())
    for forward in (grouped_forward, plain_forward):
        made = forward(features, weight, found)
        assert made.dtype == dtype
        close(made, exact, dtype)
    exact_weight = torch.einsum("oki,oc->kic", beside, gradient.double())
    exact = torch.zeros(found.inputs + 1, 5, dtype=torch.float64)
    parts = torch.einsum("oc,kic->oki", gradient.double(), weight.double())
    exact.index_add_(0, found.table.flatten().long() % (found.inputs + 1), parts.reshape(-1, 5))
    for backward in (grouped_backward, plain_backward):
        of_features, of_weight = backward(features, weight, gradient, found.transposed, True, True)
        assert of_features is not None and of_weight is not None and of_features.dtype == dtype
        close(of_weight, exact_weight, dtype)
        close(of_features, exact[:-1], dtype)
        assert backward(features, weight, gradient, found.transposed, False, False) == (None, None)


def test_which_way_products_go(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, narrow, wide = torch.zeros(1, 1), torch.zeros(27, 32, 32), torch.zeros(27, 64, 64)
    assert products._by_groups(rows, narrow) and products._by_groups(rows.double(), narrow)
    monkeypatch.setattr(products, "product_dtype", lambda dtype, device: dtype)
    for half in (rows.bfloat16(), rows.half()):
        assert not products._by_groups(half, narrow) and products._by_groups(half, wide)
    monkeypatch.setattr(products, "product_dtype", lambda dtype, device: torch.float32)
    assert products._by_groups(rows.bfloat16(), narrow)
    assert not products._by_groups(torch.zeros(1, 1, device="meta"), wide)


@pytest.mark.parametrize(
    ("supported", "capabilities", "native"),
    [
        (False, {"architecture": "x86_64", "sse4a": True}, False),
        (True, {"architecture": "x86_64", "sse4a": True}, True),  # AMD
        (True, {"architecture": "x86_64", "sse4a": False, "amx_bf16": True}, True),
        (True, {"architecture": "x86_64", "sse4a": False, "amx_bf16": False}, False),
        (True, {"architecture": "aarch64"}, True),
    ],
)
def test_products_are_in_bfloat16_where_that_is_faster(
    supported: bool, capabilities: dict[str, object], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert products._fast.__wrapped__(torch.bfloat16) == native


def test_shapes_of_products_in_half_dtypes_are_few() -> None:
    cpu = torch.device("cpu")
    found = {
        rows: products.padded_rows(rows, torch.bfloat16, cpu)
        for rows in range(1, products.PIECE + 1)
    }
    assert all(rows <= count for rows, count in found.items())
    assert all(
        count < 1.25 * rows for rows, count in found.items() if rows > 4 * products.LEAST_STEP
    )
    assert len(set(found.values())) < 30 and found[products.PIECE] == products.PIECE
    assert (
        products.padded_rows(1001, torch.float32, cpu)
        == products.padded_rows(1001, torch.bfloat16, torch.device("meta"))
        == 1001
    )
    assert products.padded_rows(0, torch.bfloat16, cpu) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 33, products.PIECE, products.PIECE + 5])
def test_linear_maps_by_rungs(rows: int, dtype: torch.dtype) -> None:
    """Against float64, forward and backward; zeros after the rows change nothing."""
    x, weight, bias = (
        normal(rows, 5).to(dtype),
        normal(6, 5, seed=1).to(dtype),
        normal(6, seed=2).to(dtype),
    )
    gradient = normal(rows, 6, seed=3).to(dtype)
    given = [value.requires_grad_() for value in (x, weight, bias)]
    made = multiply(*given)
    assert made.dtype == dtype and made.shape == (rows, 6)
    made.backward(gradient)
    wide = [value.detach().double().requires_grad_() for value in given]
    exact = torch.nn.functional.linear(*wide)
    exact.backward(gradient.double())
    close(made.detach(), exact.detach(), dtype)
    for mine, true in zip(given, wide, strict=True):
        close(mine.grad, true.grad, dtype)
    x.requires_grad_(False)
    multiply(x, weight).sum().backward()
    assert x.grad is not None and weight.grad is not None


def test_plain_products_in_chunks_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = MAPS["terrain"]
    features, weight = normal(found.inputs, 5), normal(27, 5, 6, seed=1)
    gradient = normal(len(found.table), 6, seed=2)
    whole = [
        plain_forward(features, weight, found),
        *plain_backward(features, weight, gradient, found, True, True),
    ]
    monkeypatch.setitem(products.CHUNK, "cpu", 1)
    assert len(products._chunks(found, 5)) > 5
    parts = [
        plain_forward(features, weight, found),
        *plain_backward(features, weight, gradient, found, True, True),
    ]
    for one, other in zip(whole, parts, strict=True):
        assert one is not None and other is not None
        close(one, other, torch.float64)


@pytest.mark.parametrize("channels", [(0, 3), (3, 0), (1, 1), (700, 2)], ids=str)
def test_any_number_of_channels(channels: tuple[int, int]) -> None:
    x, kernel = scene("random", channels[0]), Kernel.of(3)
    weight = normal(27, *channels).requires_grad_(True)
    made = convolve(x, weight, kernel)
    if 0 in channels:  # dense convolutions refuse these
        assert torch.equal(made.features, torch.zeros(60, channels[1], dtype=torch.float64))
    else:
        close(
            made.features,
            reference.convolve(x, weight, kernel, sites=x.sites).features,
            torch.float64,
        )
    made.features.sum().backward()
    assert weight.grad is not None and weight.grad.shape == weight.shape


def both_ways(ours: Callable, theirs: Callable, x: SparseTensor, kernel: Kernel) -> None:
    """Compare results and gradients of two functions of (x, weight, bias)."""
    weight, bias = (
        normal(kernel.volume, x.channels, 4, seed=3).to(x.features.dtype),
        normal(4, seed=4),
    )
    found = []
    for function in (ours, theirs):
        leaves = [
            t.to(x.features.dtype).clone().requires_grad_(True) for t in (x.features, weight, bias)
        ]
        made = function(x.with_features(leaves[0]), leaves[1], leaves[2])
        gradient = normal(*made.features.shape, seed=5).to(x.features.dtype)
        found.append([made.features, *torch.autograd.grad(made.features, leaves, gradient)])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        close(a, b, x.features.dtype)


@pytest.mark.parametrize("kernel", SAME, ids=name)
@pytest.mark.parametrize("where", SCENES)
def test_submanifold_convolution(where: str, kernel: Kernel) -> None:
    x = scene(where, 3)
    assert convolve(x, normal(kernel.volume, 3, 4), kernel).sites is x.sites
    both_ways(
        lambda x, w, b: convolve(x, w, kernel, b),
        lambda x, w, b: reference.convolve(x, w, kernel, b, sites=x.sites),
        x,
        kernel,
    )


@pytest.mark.parametrize("reach", [False, True], ids=["held", "reached"])
@pytest.mark.parametrize("kernel", [*STRIDED, Kernel.of(3)], ids=name)
@pytest.mark.parametrize("where", SCENES)
def test_strided_convolution(where: str, kernel: Kernel, reach: bool) -> None:
    x = scene(where, 3)
    if not reach:
        sites = x.sites.parents(kernel.stride) if kernel.stride != (1, 1, 1) else x.sites
    else:
        sites = reached_sites(x.sites, kernel)
    both_ways(
        lambda x, w, b: convolve(x, w, kernel, b, reach=reach),
        lambda x, w, b: reference.convolve(x, w, kernel, b, sites=sites),
        x,
        kernel,
    )


@pytest.mark.parametrize("where", SCENES)
def test_convolution_to_given_sites(where: str) -> None:
    x, kernel = scene(where, 3), Kernel.of(3)
    shifted = x.coordinates[::2] + torch.tensor([0, 1, 0, -1], dtype=torch.int32)
    sites, _ = make_sites(shifted, place=x.place)
    for one in (kernel, Kernel.of(1)):
        both_ways(
            lambda x, w, b, one=one: convolve(x, w, one, b, sites=sites),
            lambda x, w, b, one=one: reference.convolve(x, w, one, b, sites=sites),
            x,
            one,
        )


@pytest.mark.parametrize("kernel", [*STRIDED, Kernel.of(3), Kernel.of(2)], ids=name)
@pytest.mark.parametrize("where", SCENES)
def test_transposed_convolution(where: str, kernel: Kernel) -> None:
    fine = scene(where, 1).sites
    coarse = fine.parents(kernel.stride)
    x = SparseTensor(coarse, normal(len(coarse), 3))
    for sites in (fine, None):
        both_ways(
            lambda x, w, b, sites=sites: convolve_transposed(x, w, kernel, b, sites=sites),
            lambda x, w, b, sites=sites: reference.convolve_transposed(
                x, w, kernel, b, sites=generative_sites(x.sites, kernel) if sites is None else sites
            ),
            x,
            kernel,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("where", ["batch", "terrain", "empty", "single"])
def test_other_dtypes(where: str, dtype: torch.dtype) -> None:
    x = scene(where, 6, dtype=dtype)
    for kernel in (Kernel.of(1), Kernel.of(3)):
        both_ways(
            lambda x, w, b, kernel=kernel: convolve(x, w, kernel, b),
            lambda x, w, b, kernel=kernel: reference.convolve(x, w, kernel, b, sites=x.sites),
            x,
            kernel,
        )


def test_the_second_stride_follows_the_first() -> None:
    x = scene("negative", 3, stride=2)
    kernel = Kernel.of(2, 2)
    made = convolve(x, normal(8, 3, 4), kernel)
    assert made.stride == (4, 4, 4)
    assert convolve_transposed(made, normal(8, 4, 3), kernel).stride == (2, 2, 2)


@pytest.mark.parametrize("kernel", [Kernel.of(1), Kernel.of(3), Kernel.of(2, 2)], ids=name)
def test_gradients_by_differences(kernel: Kernel) -> None:
    x = sparse_tensor(voxels(9, extent=3), normal(9, 2))
    weight, bias = (
        normal(kernel.volume, 2, 2, seed=1).requires_grad_(True),
        normal(2).requires_grad_(True),
    )

    def down(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve(x.with_features(features), weight, kernel, bias).features

    assert torch.autograd.gradcheck(
        down, (x.features.requires_grad_(True), weight, bias), fast_mode=True
    )
    coarse = x.sites.parents(kernel.stride)

    def up(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve_transposed(SparseTensor(coarse, features), weight, kernel, bias).features

    features = normal(len(coarse), 2).requires_grad_(True)
    assert torch.autograd.gradcheck(up, (features, weight, bias), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_in_a_short_dtype_itself(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CPUs with instructions for it, whatever this one has."""
    monkeypatch.setattr(products, "product_dtype", lambda dtype, device: dtype)
    x, kernel = scene("terrain", 8), Kernel.of(3)
    weight = normal(kernel.volume, 8, 5, seed=1) / 8
    expected = grown_by(x, weight, kernel)
    found = grown_by(x.to(dtype), weight.to(dtype), kernel)
    for one, other in zip(found, expected, strict=True):
        # Each of three slices and the sum are rounded to the 8 or 11 bits of the dtype.
        scale = float(other.abs().max())
        assert (
            one.dtype == dtype
            and float((one.double() - other).abs().max()) < 4 * torch.finfo(dtype).eps * scale
        )


def grown_by(x: SparseTensor, weight: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """The result of a convolution, and the gradients of features and weight for a gradient of
    its own values."""
    features, weight = x.features.clone().requires_grad_(), weight.clone().requires_grad_()
    made = convolve(x.with_features(features), weight, kernel).features
    made.backward(made.detach())
    assert features.grad is not None and weight.grad is not None
    return made.detach(), features.grad, weight.grad


def test_only_the_gradients_that_are_asked_for() -> None:
    x, kernel = scene("random", 3), Kernel.of(3)
    weight = normal(27, 3, 4).requires_grad_(True)
    convolve(x, weight, kernel).features.sum().backward()
    both = weight.grad
    assert both is not None and x.features.grad is None
    features = x.features.clone().requires_grad_(True)
    convolve(x.with_features(features), weight.detach(), kernel).features.sum().backward()
    assert features.grad is not None and weight.grad is both


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def bits(x: SparseTensor, weight: Tensor) -> list[Tensor]:
    """Results and gradients of a convolution."""
    leaves = [x.features.clone().requires_grad_(True), weight.clone().requires_grad_(True)]
    made = convolve(
        SparseTensor(Sites(x.coordinates, x.stride, x.place), leaves[0]), leaves[1], Kernel.of(3)
    )
    gradient = normal(*made.features.shape).to(made.features.dtype)
    return [made.coordinates, made.features, *torch.autograd.grad(made.features, leaves, gradient)]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str
)
def test_the_same_bits_for_any_order_and_every_time(dtype: torch.dtype) -> None:
    coordinates, weight = shell(70), normal(27, 16, 16).to(dtype)
    features = normal(len(coordinates), 16).to(dtype)
    assert len(coordinates) > 8192  # several threads
    first = bits(sparse_tensor(coordinates, features), weight)
    order = torch.randperm(len(coordinates), generator=torch.Generator().manual_seed(9))
    assert same_bits(first, bits(sparse_tensor(coordinates[order], features[order]), weight))
    with one_thread():
        alone = bits(sparse_tensor(coordinates, features), weight)
        assert same_bits(alone, bits(sparse_tensor(coordinates[order], features[order]), weight))
    for one, other in zip(alone, first, strict=True):
        close(one, other, dtype)


@pytest.mark.parametrize(
    "kernel", [Kernel.of(3), Kernel.of(2), Kernel.of(2, 2), Kernel.of(3, 2)], ids=name
)
def test_a_convolution_is_a_function_of_the_place(kernel: Kernel) -> None:
    """A crop with another origin gives what the whole gives there, but for the voxels at its
    edge."""
    coordinates, features, weight = shell(20), normal(2 * 20**2, 3), normal(kernel.volume, 3, 4)
    whole = sparse_tensor(coordinates, features, place=Place(((-8, 100, 0),)))
    begin = torch.tensor([0, 4, 2, -2])
    inside = (coordinates[:, 1] >= 4) & (coordinates[:, 2] >= 2)
    crop = sparse_tensor(
        coordinates[inside] - begin, features[inside], place=Place(((-4, 102, -2),))
    )
    a, b = convolve(whole, weight, kernel), convolve(crop, weight, kernel)
    theirs = {
        tuple(at): row for at, row in zip(a.sites.lattice().tolist(), a.features, strict=True)
    }
    interior = (b.coordinates[:, 1:3] >= 1).all(
        1
    )  # the kernels here reach one voxel below their own
    assert int(interior.sum()) > 50
    expected = torch.stack([theirs[tuple(at)] for at in b.sites.lattice()[interior].tolist()])
    # Rows lie in other groups, whose products may sum in another order.
    torch.testing.assert_close(b.features[interior], expected, rtol=0, atol=1e-13)


def peak(work: Callable[[], object], folder: Path) -> int:
    """The most bytes that torch and numpy hold at once of what `work` allocates; the sum of both
    peaks."""
    tracemalloc.start()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        kept = work()  # what is returned is part of it
        arrays = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del kept
    prof.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    tensors = max(itertools.accumulate(event["args"]["Bytes"] for event in changes))
    return int(tensors) + arrays


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_forward_takes_at_most_three_times_input_and_output(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    coordinates, weight = shell(174), (normal(27, 64, 64) / 40).to(dtype)
    x = sparse_tensor(coordinates, normal(len(coordinates), 64).to(dtype))
    small = sparse_tensor(coordinates[:100], x.features[:100])
    assert x.sites._cache == {}
    with (
        one_thread()
    ):  # other processes that run beside this make torch's threads wait for each other
        peak(
            lambda: convolve(small, weight, Kernel.of(3)), tmp_path
        )  # compiling and importing is not counted
        taken = peak(lambda: convolve(x, weight, Kernel.of(3)), tmp_path)
    assert (
        x.features.nbytes < taken <= 3 * 2 * x.features.nbytes
    )  # the measurement sees the output at least


def test_memory_is_checked_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x = scene("random", 3)
    monkeypatch.setattr(memory, "ASK", 0)
    monkeypatch.setattr(memory, "free", lambda device: 1000)
    with pytest.raises(
        OutOfMemoryError, match=r"a convolution from 3 to 4 channels.* for 60 voxels"
    ) as found:
        convolve(x, normal(27, 3, 4), Kernel.of(3))
    assert isinstance(found.value, MemoryError) and "crop to fewer voxels" in found.value.remedy
    assert not [key for key in x.sites._cache if "kernel map" in key]
    monkeypatch.setattr(memory, "free", lambda device: 10**9)
    assert len(convolve(x, normal(27, 3, 4), Kernel.of(3))) == 60


def test_autocast_takes_features_and_weight_in_its_dtype() -> None:
    for kernel in (Kernel.of(1), Kernel.of(3)):
        x = scene("random", 6, dtype=torch.float32)
        weight, bias = (
            normal(kernel.volume, 6, 6).float().requires_grad_(True),
            torch.zeros(6, requires_grad=True),
        )
        x.features.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            made = convolve(x, weight, kernel, bias)
            assert (
                convolve(x.to(torch.float64), weight.double(), kernel).features.dtype
                == torch.float64
            )
        assert made.features.dtype == torch.bfloat16
        made.features.float().sum().backward()
        assert weight.grad is not None and bias.grad is not None and x.features.grad is not None
        assert {weight.grad.dtype, bias.grad.dtype, x.features.grad.dtype} == {torch.float32}
        exact = reference.convolve(x, weight, kernel, sites=x.sites).features
        close(made.features, exact, torch.bfloat16)


ELSEWHERE = Place(((8, 0, 0),))
X = scene("random", 3)
BAD: dict[str, tuple[type[SparseError], str, str, Callable[[], object]]] = {
    "weight of two axes": (
        SparseError,
        r"weight has shape \(27, 3\), features \(60, 3\)",
        "(27, 3, out channels)",
        lambda: convolve(X, normal(27, 3), Kernel.of(3)),
    ),
    "weight of another kernel": (
        SparseError,
        r"\(8, 3, 4\).*\(3, 3, 3\)",
        "(27, 3, out channels)",
        lambda: convolve(X, normal(8, 3, 4), Kernel.of(3)),
    ),
    "weight of other channels": (
        SparseError,
        r"\(27, 5, 4\).*\(60, 3\)",
        "(27, 3, out channels)",
        lambda: convolve_transposed(X, normal(27, 5, 4), Kernel.of(3)),
    ),
    "bias of other channels": (
        SparseError,
        r"bias has shape \(3,\)",
        "(4,)",
        lambda: convolve(X, normal(27, 3, 4), Kernel.of(3), normal(3)),
    ),
    "features of one axis": (
        SparseError,
        r"\(60,\).*60 voxels",
        "(60, channels)",
        lambda: X.with_features(normal(60)),
    ),
    "features of other rows": (
        SparseError,
        r"\(59, 3\).*60 voxels",
        "(60, channels)",
        lambda: X.with_features(normal(59, 3)),
    ),
    "weight of another dtype": (
        SparseError,
        r"weight is torch.float32, features are torch.float64",
        "cast",
        lambda: convolve(X, normal(27, 3, 4).float(), Kernel.of(3)),
    ),
    "bias of another dtype": (
        SparseError,
        r"bias is torch.float16",
        "cast",
        lambda: convolve(X, normal(27, 3, 4), Kernel.of(3), normal(4).half()),
    ),
    "integers": (
        SparseError,
        "torch.int64",
        "float32",
        lambda: convolve(
            X.with_features(torch.ones(60, 3).long()), torch.ones(27, 3, 4).long(), Kernel.of(3)
        ),
    ),
    "weight on another device": (
        SparseError,
        "weight is on meta, features are on cpu",
        "one device",
        lambda: convolve(X, normal(27, 3, 4).to("meta"), Kernel.of(3)),
    ),
    "sites of another place": (
        SparseError,
        r"\(8, 0, 0\)",
        "crop or batch",
        lambda: convolve(
            X, normal(27, 3, 4), Kernel.of(3), sites=make_sites(X.coordinates, place=ELSEWHERE)[0]
        ),
    ),
    "sites of another stride": (
        SparseError,
        r"stride \(2, 2, 2\).*not \(1, 1, 1\)",
        "that stride",
        lambda: convolve(X, normal(8, 3, 4), Kernel.of(2, 2), sites=X.sites),
    ),
    "finer sites of another stride": (
        SparseError,
        r"stride \(2, 2, 2\).*not \(1, 1, 1\)",
        "that stride",
        lambda: convolve_transposed(X, normal(8, 3, 4), Kernel.of(2, 2), sites=X.sites),
    ),
    "a map to another stride": (
        SparseError,
        r"and \(2, 2, 2\), not \(1, 1, 1\)",
        "that stride",
        lambda: kernel_map.kernel_map(X.sites, X.sites, Kernel.of(2, 2)),
    ),
    "nothing finer": (
        SparseError,
        r"stride \(1, 1, 1\) is not divisible by \(2, 2, 2\)",
        "coarser",
        lambda: convolve_transposed(X, normal(8, 3, 4), Kernel.of(2, 2)),
    ),
    "an origin between cells": (
        SparseError,
        r"origin \(1, 0, 0\)",
        "multiples of the coarsest stride",
        lambda: convolve(
            sparse_tensor(X.coordinates, X.features, place=Place(((1, 0, 0),))),
            normal(8, 3, 4),
            Kernel.of(2, 2),
        ),
    ),
    "a size of two axes": (
        SparseError,
        r"kernel size \(3, 3\)",
        "each axis",
        lambda: Kernel.of((3, 3)),
    ),
    "a stride of 0": (SparseError, "stride 0", "each axis", lambda: Kernel.of(3, 0)),
    "a voxel that occurs twice": (
        SparseError,
        "1 of 61 voxels occur twice",
        "merge",
        lambda: sparse_tensor(torch.cat([X.coordinates, X.coordinates[7:8]]), normal(61, 3)),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_with_a_remedy(what: str) -> None:
    kind, problem, remedy, work = BAD[what]
    with pytest.raises(kind, match=problem) as found:
        work()
    assert type(found.value) is kind and remedy in found.value.remedy


def test_a_backend_is_used_that_is_given() -> None:
    class Doubled(convolution.TorchBackend):
        def convolve(self, *args: object, **kwargs: object) -> Tensor:
            return 2 * super().convolve(*args, **kwargs)

    weight = normal(27, 3, 4)
    plain = convolve(X, weight, Kernel.of(3)).features
    assert torch.equal(convolve(X, weight, Kernel.of(3), backend=Doubled()).features, 2 * plain)


def test_spconv_gives_the_same() -> None:
    """Submanifold, strided and inverse convolution of spconv on the CPU, which has neither bias nor
    gradients there.

    On one thread: on several, spconv 2.3.8 now and then gives a wrong row.
    """
    spconv = pytest.importorskip("spconv.pytorch")
    native = {"bias": False, "algo": spconv.ConvAlgo.Native}
    coordinates = torch.cat(
        [voxels(300, extent=10, at=(4, 4, 4)), voxels(200, extent=10, at=(4, 4, 4), sample=1)]
    )
    x = sparse_tensor(coordinates, normal(500, 4).float())
    theirs = spconv.SparseConvTensor(x.features, x.coordinates, [20, 20, 20], 2)

    def weight(layer: torch.nn.Module) -> Tensor:
        """(volume, in, out) from (out, x, y, z, in)."""
        return layer.weight.detach().permute(1, 2, 3, 4, 0).flatten(0, 2)

    with torch.no_grad(), one_thread():
        for dilation in (1, 2):
            layer = spconv.SubMConv3d(
                4, 5, 3, dilation=dilation, indice_key=f"same {dilation}", **native
            ).eval()
            expected = layer(theirs)
            assert torch.equal(expected.indices, x.coordinates)
            made = convolve(x, weight(layer), Kernel.of(3, dilation=dilation))
            close(made.features, expected.features, torch.float32)
        for size, padding in ((3, 1), (2, 0)):
            kernel, key = Kernel.of(size, 2), f"down {size}"
            layer = spconv.SparseConv3d(
                4, 5, size, stride=2, padding=padding, indice_key=key, **native
            ).eval()
            down = layer(theirs)
            expected = sparse_tensor(down.indices, down.features, stride=2)
            made = convolve(x, weight(layer), kernel, reach=True)
            assert torch.equal(made.coordinates, expected.coordinates)
            close(made.features, expected.features, torch.float32)
            layer = spconv.SparseInverseConv3d(5, 3, size, indice_key=key, **native).eval()
            up = layer(down)
            assert torch.equal(up.indices, x.coordinates)
            made = convolve_transposed(expected, weight(layer), kernel, sites=x.sites)
            close(made.features, up.features, torch.float32)
