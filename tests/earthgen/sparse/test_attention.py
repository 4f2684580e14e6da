"""Attention in windows and samples equals a masked softmax over all pairs; windows lie on the
lattice."""

import copy
import gc
import pickle
import weakref
from itertools import pairwise

import pytest
import torch

from earthgen.errors import SparseError
from earthgen.sparse import attention
from earthgen.sparse.attention import (
    CrossAttention,
    FullAttention,
    SwinBlock,
    WindowAttention,
    cross_attention,
    ragged_attention,
)
from earthgen.sparse.encoding import rotary, sinusoidal
from earthgen.sparse.linear import linear
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.sparse.tensor import SparseTensor, batch, sparse_tensor
from earthgen.sparse.windows import whole, windows
from tests.helpers.sparse_reference import attention as reference

FAR = 2**31 - 20
DOUBLE = torch.float64


def voxels(
    counts: list[int],
    place: Place | None = None,
    *,
    low: tuple[int, int, int] = (-6, -5, -4),
    seed: int = 0,
    stride: int = 1,
) -> Sites:
    """Voxels of several samples in boxes of 12 x 10 x 8 cells, which begin below 0."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for sample, count in enumerate(counts):
        at = torch.randperm(12 * 10 * 8, generator=generator)[:count]
        xyz = torch.stack([at // 80, at // 8 % 10, at % 8], 1) + torch.tensor(low)
        rows.append(torch.cat([torch.full((count, 1), sample), xyz], 1))
    place = place or Place(((0, 0, 0),) * len(counts))
    return make_sites(torch.cat(rows), place=place, stride=stride)[0]


def drawn(count: int, *shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE
    ).to(dtype)


def qkv(
    n: int, m: int | None = None, heads: int = 2, dim: int = 8, dtype: torch.dtype = DOUBLE
) -> list[torch.Tensor]:
    m = n if m is None else m
    return [
        drawn(count, heads, dim, seed=seed, dtype=dtype) for seed, count in enumerate((n, m, m))
    ]


def features(
    sites: Sites, channels: int = 12, dtype: torch.dtype = torch.float32, seed: int = 5
) -> SparseTensor:
    return SparseTensor(sites, drawn(len(sites), channels, seed=seed, dtype=dtype))


def checked(found, expected, inputs, **tolerance) -> None:
    """Two results of the same inputs are equal, and so are their gradients."""
    torch.testing.assert_close(found, expected, **tolerance)
    pattern = drawn(*expected.shape, seed=77)
    ours, theirs = (torch.autograd.grad((one * pattern).sum(), inputs) for one in (found, expected))
    torch.testing.assert_close(ours, theirs, **tolerance)


PLACES = [
    Place(((0, 0, 0), (0, 0, 0))),
    Place(((1_000_003, -7, 11), (5, 400_000_001, -1))),  # origins that are no multiples of a window
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("size", "shift"),
    [
        ((4, 4, 4), (0, 0, 0)),
        ((4, 4, 4), (2, 2, 2)),
        ((3, 5, 1), (1, 0, 7)),
        ((100,) * 3, (50,) * 3),
    ],
)
def test_windows_are_boxes_of_the_lattice(place, size, shift):
    sites = voxels([90, 70], place)
    found, expected = windows(sites, size, shift), reference.windows(sites, size, shift)
    assert sorted(found.order.tolist()) == list(range(len(sites)))
    named, bounds = [], found.bounds.tolist()
    for number, (first, last) in enumerate(pairwise(bounds)):
        rows = found.order[first:last].tolist()
        assert rows == sorted(rows) and rows  # in the order of the sites
        labels = {expected[row] for row in rows}
        assert len(labels) == 1  # one window of one sample
        named += labels
        corner = [at * by + moved for at, by, moved in zip(named[-1][1:], size, shift, strict=True)]
        assert found.boxes.lattice()[number].tolist() == corner
    assert len(set(named)) == len(named)  # and no window twice
    assert found.boxes.stride == size


def test_coordinates_below_zero_round_down():
    sites = make_sites(torch.tensor([[0, x, 0, 0] for x in range(-4, 4)]))[0]
    assert windows(sites, 4).counts.tolist() == [4, 4]  # truncation would put -3 to 3 together
    assert windows(sites, 4, 2).counts.tolist() == [2, 4, 2]


def test_windows_of_strides_count_cells():
    place = Place(((8, 16, -24),))
    sites = voxels([100], place, stride=8)
    labels = reference.windows(sites, (3, 3, 3), (1, 1, 1))
    found = windows(sites, 3, 1)
    assert len(found) == len(set(labels))
    assert found.boxes.stride == (24, 24, 24)
    assert (found.boxes.lattice() % 24 == 8).all()


def test_a_crop_of_another_origin_has_the_same_windows():
    here = voxels([120], Place(((500_000, 40, -3),)))
    step = torch.tensor([0, 5, -7, 3])
    there = make_sites(here.coordinates - step, place=Place(((500_005, 33, 0),)))[0]
    assert torch.equal(here.lattice(), there.lattice())
    for size, shift in ((4, 0), (4, 2), ((3, 7, 5), (2, 1, 0))):
        a, b = windows(here, size, shift), windows(there, size, shift)
        assert torch.equal(a.order, b.order) and torch.equal(a.counts, b.counts)
        assert torch.equal(a.boxes.lattice(), b.boxes.lattice())


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_coordinates_at_the_ends_of_32_bits(axis):
    rows = torch.zeros(6, 4, dtype=torch.int64)
    rows[:, axis] = torch.tensor([-(2**31), -(2**31) + 1, -1, 0, 2**31 - 2, 2**31 - 1])
    place = Place(((7, 7, 7),))
    sites = make_sites(rows, place=place)[0]
    for size, shift in ((4, 0), (4, 3), (2, 1), (1, 0), (10**6, 17)):
        labels = reference.windows(sites, (size,) * 3, (shift,) * 3)
        counts = [labels.count(one) for one in sorted(set(labels))]
        assert windows(sites, size, shift).counts.tolist() == counts


def test_partitions_are_made_once_and_let_the_sites_go():
    sites = voxels([50])
    assert windows(sites, 4) is windows(sites, (4, 4, 4), 0) is windows(sites, 4, 4)
    assert windows(sites, 4) is not windows(sites, 4, 2)
    assert whole(sites) is whole(sites)
    ragged_attention(*qkv(50), windows(sites, 4))
    gone = weakref.ref(sites.coordinates)
    gc.disable()  # no cycle may keep them
    try:
        del sites
        assert gone() is None
    finally:
        gc.enable()


def test_whole_samples_are_one_window_each():
    found = whole(voxels([3, 0, 5]))
    assert found.counts.tolist() == [3, 5] and found.order.tolist() == list(range(8))
    assert found.boxes.coordinates[:, 0].tolist() == [0, 2]
    assert whole(voxels([0])).counts.tolist() == []


def test_partitions_can_be_copied_and_pickled():
    sites = voxels([20])
    found = windows(sites, 4)
    ragged_attention(*qkv(20), found)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert torch.equal(again.order, found.order) and torch.equal(again.counts, found.counts)


def test_windows_refuse_sizes_and_shifts():
    sites = voxels([3])
    for size, shift in ((0, 0), ((4, 4), 0), (4, -1), (4.0, 0)):
        with pytest.raises((SparseError, TypeError)):
            windows(sites, size, shift)


@pytest.fixture(params=["plain", "tiny calls"])
def calls(request, monkeypatch):
    """Also with so few rows a call, and so short a ladder, that windows fall into many of them."""
    if request.param == "tiny calls":
        monkeypatch.setattr(attention, "TOKENS", 24)
        monkeypatch.setattr(attention, "LADDER", (1, 2, 4, 8))


@pytest.mark.parametrize("counts", [[150], [60, 0, 1, 80], [1], [0], [0, 0], [2, 1]])
@pytest.mark.parametrize(
    ("size", "shift"), [((4, 4, 4), (0, 0, 0)), ((4, 4, 4), (2, 2, 2)), ((6, 3, 2), (5, 1, 0))]
)
def test_windows_equal_the_masked_softmax(counts, size, shift, calls):
    sites = voxels(counts, Place(((3, 1, -2),) * len(counts)))
    inputs = [one.requires_grad_() for one in qkv(len(sites))]
    labels = reference.windows(sites, size, shift)
    checked(
        ragged_attention(*inputs, windows(sites, size, shift)),
        reference.attention(*inputs, labels, labels),
        inputs,
    )


@pytest.mark.parametrize("counts", [[100], [40, 0, 1, 25], [1], [0]])
def test_whole_samples_equal_the_masked_softmax(counts, calls):
    sites = voxels(counts)
    inputs = [one.requires_grad_() for one in qkv(len(sites))]
    labels = [(sample, 0, 0, 0) for sample in sites.coordinates[:, 0].tolist()]
    checked(
        ragged_attention(*inputs, whole(sites)),
        reference.attention(*inputs, labels, labels),
        inputs,
    )


def test_large_coordinates_in_one_axis():
    sites = voxels([80, 40], low=(-3, FAR, 5))
    inputs = [one.requires_grad_() for one in qkv(len(sites))]
    labels = reference.windows(sites, (4, 4, 4), (2, 2, 2))
    checked(
        ragged_attention(*inputs, windows(sites, 4, 2)),
        reference.attention(*inputs, labels, labels),
        inputs,
    )


@pytest.mark.parametrize(
    ("here", "there"),
    [([80, 50], [60, 90]), ([40, 30], [0, 50]), ([0, 20], [9, 0]), ([0], [0]), ([5], [0])],
)
@pytest.mark.parametrize("size", [(4, 4, 4), None])
def test_cross_attention_equals_the_masked_softmax(here, there, size, calls):
    a, b = voxels(here), voxels(there, seed=3)
    inputs = [one.requires_grad_() for one in qkv(len(a), len(b))]
    if size is None:
        parts = whole(a), whole(b)
        labels = [
            [(sample, 0, 0, 0) for sample in one.coordinates[:, 0].tolist()] for one in (a, b)
        ]
    else:
        parts = windows(a, size, 1), windows(b, size, 1)
        labels = [reference.windows(one, size, (1, 1, 1)) for one in (a, b)]
    found = cross_attention(*inputs, *parts)
    checked(found, reference.attention(*inputs, *labels), inputs)
    with torch.no_grad():  # packed a call at a time
        assert torch.equal(cross_attention(*inputs, *parts), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_with_and_without_gradients(dtype, calls):
    sites = voxels([300, 0, 100])
    inputs = [one.requires_grad_() for one in qkv(len(sites), dtype=dtype)]
    for partition in (windows(sites, 4, 2), whole(sites)):
        found = ragged_attention(*inputs, partition)
        with torch.no_grad():
            alone = ragged_attention(*inputs, partition)
        assert alone.dtype == dtype and torch.equal(alone, found.detach())


def test_queries_without_keys_get_zeros_and_no_gradient():
    a = make_sites(torch.tensor([[0, 0, 0, 0], [0, 9, 0, 0]]))[0]
    b = make_sites(torch.tensor([[0, 1, 0, 0], [0, -5, 0, 0]]))[0]
    q, k, v = (one.requires_grad_() for one in qkv(2))
    found = cross_attention(q, k, v, windows(a, 4), windows(b, 4))
    assert torch.equal(found[0], v[1]) and not found[1].any()
    found.sum().backward()
    assert (
        not q.grad[1].any()
        and not k.grad[0].any()
        and not v.grad[0].any()
        and (v.grad[1] == 1).all()
    )
    torch.testing.assert_close(q.grad[0], torch.zeros_like(q[0]))  # the only key has all the weight


def test_cross_attention_from_one_stride_to_another():
    place = Place(((4, -8, 0),))
    fine, coarse = (
        voxels([100], place, stride=1),
        voxels([60], place, stride=2, low=(-3, -3, -2), seed=2),
    )
    inputs = [one.requires_grad_() for one in qkv(100, 60)]
    labels = [reference.windows(fine, (8, 8, 8)), reference.windows(coarse, (4, 4, 4))]
    found = cross_attention(*inputs, windows(fine, 8), windows(coarse, 4))
    checked(found, reference.attention(*inputs, *labels), inputs)


@pytest.mark.parametrize("shift", [0, 2])
def test_gradcheck(shift, monkeypatch):
    monkeypatch.setattr(attention, "LADDER", (4, 16))
    sites = voxels([9, 4], low=(-2, -2, -2))
    other = voxels([5, 6], low=(-2, -2, -2), seed=1)
    queries, keys = windows(sites, 8, shift), windows(other, 8, shift)
    assert any(
        call.mask is not None for call in attention._plan(queries, queries).calls
    )  # padding is gone through
    inputs = [one.requires_grad_() for one in qkv(13, dim=3, heads=1)]
    assert torch.autograd.gradcheck(lambda *given: ragged_attention(*given, queries), inputs)
    inputs = [one.requires_grad_() for one in qkv(13, 11, dim=3, heads=1)]
    assert torch.autograd.gradcheck(lambda *given: cross_attention(*given, queries, keys), inputs)


def test_calls_are_bounded_and_padding_is_small():
    sites = voxels([900, 500, 10])
    for partition in (windows(sites, 5), windows(sites, 8, 4), whole(sites)):
        found = attention._plan(partition, partition)
        rows = sum(call.windows * call.queries for call in found.calls)
        assert len(sites) <= rows <= 1.25 * len(sites)
        assert len(found.queries[0].rows) == rows
        for call in found.calls:
            assert call.windows == 1 or call.windows * call.queries <= attention.TOKENS
            assert call.mask is None or call.keys <= attention.LONGEST


def test_windows_of_one_length_need_no_mask():
    grid = torch.cartesian_prod(torch.arange(1), *(torch.arange(8),) * 3)
    partition = windows(make_sites(grid)[0], 4)
    (call,) = attention._plan(partition, partition).calls
    assert (call.windows, call.queries, call.mask) == (8, 64, None)


def test_tables_are_made_once_and_keep_no_other_partition_alive():
    a, b = voxels([30]), voxels([20], seed=1)
    queries, keys = windows(a, 4), windows(b, 4)
    assert attention._plan(queries, keys) is attention._plan(queries, keys)
    attention._plan(keys, queries)  # both ways: a strong reference would make a cycle
    gone = weakref.ref(keys)
    gc.disable()
    try:
        del b, keys
        assert gone() is None
    finally:
        gc.enable()


def test_infinite_features_stay_in_their_window():
    sites = voxels([100, 50])
    partition = windows(sites, 4)
    inputs = qkv(150)
    expected = ragged_attention(*inputs, partition)
    inputs[2][7] = torch.inf
    found = ragged_attention(*inputs, partition)
    labels = reference.windows(sites, (4, 4, 4))
    others = torch.tensor([label != labels[7] for label in labels])
    assert torch.equal(found[others], expected[others]) and not torch.isfinite(found[7]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_differ_from_the_reference_by_their_rounding(dtype):
    sites = voxels([120, 60])
    inputs = [one.to(dtype).requires_grad_() for one in qkv(180)]
    labels = reference.windows(sites, (4, 4, 4))
    found = ragged_attention(*inputs, windows(sites, 4))
    expected = reference.attention(*inputs, labels, labels)
    assert found.dtype == dtype
    # Averages of values of about 1: a rounding of the result, and on machines with instructions for
    # halves one of each weight. float32 sums of 20 terms take a few steps.
    step = {torch.float32: 1e-6, torch.bfloat16: 2**-6, torch.float16: 2**-9}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=step, atol=step)
    found.sum().backward()
    assert all(one.grad.dtype == dtype and torch.isfinite(one.grad).all() for one in inputs)


def test_the_same_bits_again_and_for_any_order_of_voxels():
    sites = voxels([300, 100])
    x = features(sites)
    order = torch.randperm(len(sites), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    block = SwinBlock(12, 2, 4, 2, rotary=True)
    given = [x.features.clone().requires_grad_(), x.features[order].clone().requires_grad_()]
    results = [
        block(sparse_tensor(sites.coordinates, given[0])),
        block(sparse_tensor(sites.coordinates[order], given[1])),
    ]
    assert torch.equal(results[0].features, results[1].features)
    for one in results:
        one.features.square().sum().backward()
    assert torch.equal(given[0].grad[order], given[1].grad)


def test_what_does_not_fit_is_refused():
    sites, other = voxels([10]), voxels([8], seed=1)
    partition = windows(sites, 4)
    q, k, v = qkv(10)
    for bad in (
        (q[:9], k, v),
        (q, k[:, :1], v),
        (q, k, v[..., :3]),
        (q[0], k, v),
        (q, k[:8], v[:8]),
    ):
        with pytest.raises(SparseError, match="for 10 queries and 10 keys"):
            ragged_attention(*bad, partition)
    with pytest.raises(SparseError, match="heads or channels are missing"):
        ragged_attention(q[..., :0], k[..., :0], v[..., :0], partition)
    with pytest.raises(SparseError, match="float32"):
        ragged_attention(q.float(), k, v, partition)
    with pytest.raises(SparseError, match="int64"):
        ragged_attention(q.long(), k.long(), v.long(), partition)
    with pytest.raises(SparseError, match="meta"):
        ragged_attention(q.to("meta"), k, v, partition)
    _, k, v = qkv(10, 8)
    for keys in (windows(other, 5), windows(other, 4, 1), whole(other)):
        with pytest.raises(SparseError):
            cross_attention(q, k, v, partition, keys)


def test_sinusoidal_says_sines_and_cosines_of_positions():
    sites = make_sites(torch.tensor([[0, 3, -2, 1000], [0, 0, 0, 0]]))[0]
    found = sinusoidal(sites, 14, base=100.0)
    assert found.shape == (2, 14) and found.dtype == torch.float32
    for row, xyz in enumerate(([0, 0, 0], [3, -2, 1000])):
        expected = []
        for position in xyz:
            angles = torch.tensor([position, position / 10], dtype=DOUBLE)
            expected += [*angles.sin().tolist(), *angles.cos().tolist()]
        # one rounding to float32
        torch.testing.assert_close(
            found[row].double(), torch.tensor([*expected, 0, 0], dtype=DOUBLE), atol=1e-7, rtol=0
        )


def test_sinusoidal_in_windows_agrees_between_crops():
    here = voxels([60], Place(((500_000, 40, -3),)))
    there = make_sites(
        here.coordinates - torch.tensor([0, 5, -7, 3]), place=Place(((500_005, 33, 0),))
    )[0]
    assert torch.equal(sinusoidal(here, 24, within=16), sinusoidal(there, 24, within=16))
    assert not torch.equal(sinusoidal(here, 24), sinusoidal(there, 24))
    inside = here.lattice() % 16
    again = make_sites(
        torch.cat([torch.zeros(60, 1).long(), inside], 1)[
            torch.argsort(inside @ torch.tensor([256, 16, 1]))
        ]
    )
    order = torch.argsort(inside @ torch.tensor([256, 16, 1]))
    assert torch.equal(sinusoidal(here, 24, within=16)[order], sinusoidal(again[0], 24))


def test_encodings_are_as_good_far_from_the_origin():
    sites = make_sites(torch.tensor([[0, 2**31 - 1, -(2**31), 0], [0, 2**31 - 2, -(2**31), 0]]))[0]
    found = sinusoidal(sites, 12)
    assert (found[0] - found[1]).abs().max() > 0.1  # neighbours differ: float32 positions would not
    x = drawn(2, 1, 6, dtype=torch.float32)
    near = make_sites(torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0]]))[0]
    # The same distance gives the same product: float32 roundings of sums of about 6.
    a, b = (rotary(x, where)[:, 0] for where in (sites, near))
    torch.testing.assert_close(a[0] @ a[1], b[0] @ b[1], rtol=0, atol=5e-6)


@pytest.mark.parametrize("dim", [6, 8, 14, 32])
def test_rotary_turns_pairs_of_channels(dim):
    sites = voxels([40, 20])
    x = drawn(60, 2, dim)
    found, expected = (
        rotary(x, sites, base=50.0),
        reference.rotary(x, sites.coordinates[:, 1:], 50.0),
    )
    half = dim // 6 * 3
    torch.testing.assert_close(
        torch.complex(found[..., :half], found[..., half : 2 * half]), expected
    )
    assert torch.equal(found[..., 2 * half :], x[..., 2 * half :])


def test_rotary_gradcheck():
    sites = voxels([3])
    assert torch.autograd.gradcheck(lambda x: rotary(x, sites), drawn(3, 1, 7).requires_grad_())


def test_attention_of_rotary_agrees_between_crops():
    here = voxels([90], Place(((500_000, 40, -3),)))
    there = make_sites(
        here.coordinates - torch.tensor([0, 5, -7, 3]), place=Place(((500_005, 33, 0),))
    )[0]
    torch.manual_seed(0)
    module = WindowAttention(16, 2, 4, 2, rotary=True).double()
    given = features(here, 16, DOUBLE).features
    found = [module(SparseTensor(where, given)).features for where in (here, there)]
    torch.testing.assert_close(*found)
    plain = WindowAttention(16, 2, 4, 2).double()
    plain.load_state_dict(module.state_dict())
    assert not torch.allclose(plain(SparseTensor(here, given)).features, found[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotary_of_halves_turns_in_float32(dtype):
    sites, x = voxels([30]), drawn(30, 2, 12, dtype=dtype)
    found = rotary(x, sites)
    assert found.dtype == dtype
    # one rounding of the result
    torch.testing.assert_close(
        found.double(), rotary(x.double(), sites), rtol=torch.finfo(dtype).eps, atol=1e-6
    )


def test_encodings_of_no_voxels_and_of_wrong_shapes():
    none = voxels([0])
    assert sinusoidal(none, 9).shape == (0, 9) and rotary(torch.zeros(0, 2, 6), none).shape == (
        0,
        2,
        6,
    )
    sites = voxels([4])
    with pytest.raises(SparseError, match="5 channels"):
        sinusoidal(sites, 5)
    with pytest.raises(SparseError, match="window size"):
        sinusoidal(sites, 6, within=0)
    with pytest.raises(SparseError, match="heads of 4 channels"):
        rotary(torch.zeros(4, 2, 4), sites)
    with pytest.raises(SparseError, match="there are 4 voxels"):
        rotary(torch.zeros(3, 2, 6), sites)
    with pytest.raises(SparseError, match="meta"):
        rotary(torch.zeros(4, 2, 6, device="meta"), sites)


def blocks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        "window": WindowAttention(12, 2, 4, 2),
        "full": FullAttention(12, 2, rotary=True),
        "swin": SwinBlock(12, 2, (4, 4, 2), (2, 2, 1), mlp_ratio=2, rotary=True),
    }


@pytest.mark.parametrize("name", ["window", "full", "swin"])
def test_samples_of_a_batch_do_not_mix(name):
    module = blocks()[name].double()
    parts = [
        features(voxels([count], seed=count), dtype=DOUBLE, seed=count) for count in (40, 0, 1, 70)
    ]
    together = module(batch(parts))
    torch.testing.assert_close(
        together.features, torch.cat([module(one).features for one in parts])
    )


def test_window_attention_is_projection_attention_projection():
    sites = voxels([50, 30])
    x, module = features(sites, dtype=DOUBLE), WindowAttention(12, 3, 4, 1).double()
    q, k, v = (part.reshape(80, 3, 4) for part in module.qkv(x.features).split(12, 1))
    labels = reference.windows(sites, (4, 4, 4), (1, 1, 1))
    expected = module.out(reference.attention(q, k, v, labels, labels).reshape(80, 12))
    torch.testing.assert_close(module(x).features, expected)


def test_swin_block_is_the_paper_s_equation():
    sites = voxels([50, 30])
    x, block = features(sites, dtype=DOUBLE), SwinBlock(12, 2, 4).double()
    first = x.features + block.attention(block.attention_norm(x)).features
    normed = torch.nn.functional.layer_norm(first, (12,))
    expected = first + block.contract(torch.nn.functional.gelu(block.expand(normed)))
    torch.testing.assert_close(block(x).features, expected)


def test_cross_attention_module():
    a, b = voxels([50, 30]), voxels([40, 0], seed=1)
    x, context = features(a, dtype=DOUBLE), features(b, 7, DOUBLE)
    module = CrossAttention(12, 7, 2, 4, 2).double()
    q = module.q(x.features).reshape(80, 2, 6)
    k, v = (part.reshape(40, 2, 6) for part in module.kv(context.features).split(12, 1))
    labels = [reference.windows(one, (4, 4, 4), (2, 2, 2)) for one in (a, b)]
    expected = module.out(reference.attention(q, k, v, *labels).reshape(80, 12))
    torch.testing.assert_close(module(x, context).features, expected)
    assert torch.equal(
        module(x, context).features[50:], module.out.bias.expand(30, 12)
    )  # no context in the sample
    whole_sample = CrossAttention(12, 7, 2, rotary=True).double()
    assert whole_sample(x, context).features.shape == (80, 12)
    with pytest.raises(SparseError, match="different places"):
        module(x, features(voxels([40, 0], Place(((4, 0, 0),) * 2)), 7, DOUBLE))
    with pytest.raises(SparseError, match="strides differ"):
        module(x, features(voxels([40, 0], stride=2), 7, DOUBLE))
    with pytest.raises(SparseError, match="takes 7 channels"):
        module(x, x)


@pytest.mark.parametrize("counts", [[0], [1], [0, 0, 1]])
@pytest.mark.parametrize("name", ["window", "full", "swin"])
def test_gradients_of_no_voxel_and_of_one(name, counts):
    module, sites = blocks()[name], voxels(counts)
    x = features(sites)
    found = module(x)
    found.features.sum().backward()
    assert found.features.shape == x.features.shape
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("name", ["window", "full", "swin"])
def test_autocast_and_bfloat16_agree_with_float32(name):
    module, x = blocks()[name], features(voxels([80, 40]))
    expected = module(x).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = module(x).features
    cast.float().sum().backward()
    assert all(
        p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in module.parameters()
    )
    # The attention's output is bfloat16; a block adds it to float32 features.
    assert cast.dtype == (torch.float32 if name == "swin" else torch.bfloat16)
    halved = copy.deepcopy(module).bfloat16()(x.to(torch.bfloat16)).features
    assert halved.dtype == torch.bfloat16
    # Features and weights have 8 bits; some ten roundings of 2^-9 in values of up to 4.
    for found in (cast, halved):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.06)


def test_products_of_halves_round_once():
    layer, x = torch.nn.Linear(16, 8).bfloat16(), drawn(20, 16, dtype=torch.bfloat16)
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(
        linear(x, layer).double(), expected, rtol=2**-8, atol=1e-3
    )  # and sums of float32
    with pytest.raises(
        SparseError, match=r"weight is torch\.bfloat16, features are torch\.float32"
    ):
        linear(x.float(), layer)


def test_modules_refuse_channels():
    for make in (
        lambda: WindowAttention(12, 5, 4),
        lambda: FullAttention(12, 0),
        lambda: CrossAttention(12, 4, 7),
        lambda: SwinBlock(12, 5, 4),
    ):
        with pytest.raises(SparseError, match="not divisible into"):
            make()
    with pytest.raises(SparseError, match="heads of 3 channels"):
        WindowAttention(12, 4, 4, rotary=True)
    with pytest.raises(SparseError, match="window size"):
        WindowAttention(12, 4, 0)
    with pytest.raises(SparseError, match="mlp_ratio"):
        SwinBlock(12, 2, 4, mlp_ratio=0)
    for module in blocks().values():
        with pytest.raises(SparseError, match="takes 12 channels"):
            module(features(voxels([5]), 8))
