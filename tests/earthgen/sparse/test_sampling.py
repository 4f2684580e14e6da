"""Pixel shuffle, pooling, un-pooling and interpolation equal the dense reference, forward and
backward."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from earthgen.errors import OutOfMemoryError, SparseError
from earthgen.sparse.kernel_map import Kernel
from earthgen.sparse.sampling import interpolate, pool, shuffle_up, up
from earthgen.sparse.sites import Place, Sites
from earthgen.sparse.tensor import SparseTensor, batch, from_dense, sparse_tensor
from tests.helpers.sparse_reference import sampling as reference

FAR = 2**31 - 64  # an even number near the end of int32
EXACT = 1e-12
"""Of float64 sums of at most 64 numbers around 1, taken in two orders: 64 times 2^-53, and some
room."""
HALF_ULP = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""One rounding of a sum that was taken in float32, relative."""

KERNELS = [
    Kernel.of(2, 2),
    Kernel.of(3),
    Kernel.of(3, 2),
    Kernel.of((3, 1, 2), (2, 1, 2)),
    Kernel.of(3, 1, 2),
    Kernel.of((4, 3, 2), (4, 3, 2), (1, 2, 1)),
    Kernel.of(1, 3),
]


def some(
    channels: int = 3,
    *,
    count: int = 40,
    low: tuple[int, int, int] = (-3, -2, -4),
    stride: int = 1,
    seed: int = 0,
    size: int = 5,
) -> SparseTensor:
    """A batch of three samples, the middle one empty, in a box of `size` from `low` in each."""
    random.seed(seed)
    cells = [
        (s, x, y, z) for s in (0, 2) for x in range(size) for y in range(size) for z in range(size)
    ]
    rows = [(s, x + low[0], y + low[1], z + low[2]) for s, x, y, z in random.sample(cells, count)]
    features = torch.randn(
        count, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    place = Place(((0, 0, 0), (-72, 144, 0), (72 * 5, -72, 72)), 0.5, "EPSG:32632")
    return sparse_tensor(torch.tensor(rows), features, stride=stride, place=place)


def lone(
    channels: int, *, at: tuple[int, int, int] = (-1, -1, -1), stride: int = 1, dtype=torch.float64
):
    return sparse_tensor(
        torch.tensor([[0, *at]]), torch.arange(1, channels + 1, dtype=dtype)[None], stride=stride
    )


def nothing(channels: int, *, stride: int = 1) -> SparseTensor:
    return sparse_tensor(
        torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, channels).double(), stride=stride
    )


def boxed(x: SparseTensor) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """Dense features and mask of the box around all voxels, and its first coordinates; it may be
    empty."""
    low = tuple(x.sites.box[0][1:])
    mask = x.with_features(torch.ones(len(x), 1, dtype=torch.float64)).dense()[:, 0] > 0
    return x.dense(), mask, low


def followed(x: SparseTensor) -> SparseTensor:
    return x.with_features(x.features.detach().clone().requires_grad_())


def same(
    ours: Tensor, theirs: Tensor, x: SparseTensor, y: SparseTensor, tolerance: float = EXACT
) -> None:
    """Results and the gradients of the features of x and y, each from its own way, are the same."""
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    of_result = torch.randn(
        ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9)
    )
    (a,) = torch.autograd.grad(ours, x.features, of_result)
    theirs = (
        theirs + 0 * y.features.sum()
    )  # where no voxel is met, the reference never touched the features
    (b,) = torch.autograd.grad(theirs, y.features, of_result)
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


SHAPES = {
    "random": lambda channels, stride: some(channels, stride=stride),
    "positive": lambda channels, stride: some(channels, stride=stride, low=(0, 2, 1), seed=3),
    "far": lambda channels, stride: some(channels, stride=stride, low=(FAR // 2, -4, -FAR // 2)),
    "lone": lambda channels, stride: lone(channels, stride=stride),
    "nothing": lambda channels, stride: nothing(channels, stride=stride),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 3, 2)])
def test_shuffle_is_the_dense_one(shape, factor) -> None:
    volume = factor[0] * factor[1] * factor[2]
    x = (
        SHAPES[shape](volume * 2, 6)
        if shape != "far" or factor[1] == 2
        else some(volume * 2, stride=6)
    )
    x, y = followed(x), followed(x)
    fine = shuffle_up(x, factor)
    assert fine.stride == tuple(6 // one for one in factor) and fine.place == x.place
    dense, active, low = boxed(y)
    dense, active = reference.shuffle_up(dense, active, factor)
    low = tuple(a * b for a, b in zip(low, factor, strict=True))
    expected = from_dense(dense, active, low=low, place=y.place, stride=fine.stride)
    fine.sites.check_same(expected.sites)
    assert len(fine) == volume * len(x)
    same(fine.features, expected.features, x, y, 0.0)


def test_child_and_channels_go_together() -> None:
    """Child (i, j, k) has channels (4 i + 2 j + k) C and on, written out."""
    fine = shuffle_up(lone(16, at=(5, -3, 0), stride=2, dtype=torch.float32))
    for row, (_, x, y, z) in enumerate(fine.coordinates.tolist()):
        child = 4 * (x - 10) + 2 * (y + 6) + z
        assert fine.features[row].tolist() == [2 * child + 1, 2 * child + 2]


def test_shuffle_then_prune_is_a_decoder_step() -> None:
    """A classifier's channel decides which children stay; the gradient comes through those
    alone."""
    x = followed(some(16, stride=2, count=7))
    fine = shuffle_up(x)
    keep = fine.features[:, 0] > 0
    kept = fine.prune(keep)
    assert 0 < len(kept) < len(fine) and bool((kept.features[:, 0] > 0).all())
    kept.features[:, 1].sum().backward()
    assert int((x.features.grad != 0).sum()) == int(keep.sum())


def test_shuffle_refuses() -> None:
    with pytest.raises(SparseError, match=r"\(1, 12\).*8 children"):
        shuffle_up(lone(12, stride=2))
    with pytest.raises(SparseError, match="not divisible"):
        shuffle_up(lone(8))
    with pytest.raises(SparseError):
        shuffle_up(lone(8, at=(2**30, 0, 0), stride=2))
    top = shuffle_up(lone(8, at=(2**30 - 1, -(2**30), 0), stride=2))
    assert top.coordinates[-1].tolist() == [0, 2**31 - 1, -(2**31) + 1, 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [(2, 2, 2), (3, 1, 2)])
def test_up_is_the_dense_one(shape, factor) -> None:
    whole = SHAPES[shape](3, 1)
    parents = whole.sites.parents(factor)
    kept = parents.select(torch.arange(len(parents)) % 3 != 1)  # some voxels have no parent
    x = SparseTensor(kept, torch.randn(len(kept), 2, dtype=torch.float64))
    x, y = followed(x), followed(x)
    fine = up(x, whole.sites)
    assert fine.sites is whole.sites
    dense, _, low = boxed(y)
    if not len(kept):
        assert fine.features.abs().sum() == 0
        return
    spread = reference.spread(dense, factor)
    expected = torch.zeros(len(whole), 2, dtype=torch.float64)
    first = torch.tensor(low) * torch.tensor(factor)
    at = whole.coordinates.long()[:, 1:] - first
    there = ((at >= 0) & (at < torch.tensor(spread.shape[2:]))).all(1)
    sample, at = whole.coordinates.long()[there, 0], at[there]
    expected[there] = spread[sample, :, at[:, 0], at[:, 1], at[:, 2]]
    assert shape == "lone" or bool((fine.features == 0).all(1).any())
    same(fine.features, expected, x, y)


def test_up_undoes_pooling_of_whole_cells() -> None:
    x = some(2, stride=4)
    spread = up(x, x.sites.children()[0])
    for how in ("max", "mean"):
        again = pool(spread, Kernel.of(2, 2), how)
        assert torch.equal(again.coordinates, x.coordinates) and torch.allclose(
            again.features, x.features, atol=EXACT
        )


def test_up_to_the_same_stride_is_at() -> None:
    x = some(2)
    other = some(2, seed=5).sites
    assert torch.equal(up(x, other).features, x.at(other).features)


def test_up_refuses() -> None:
    x = some(2, stride=2)
    with pytest.raises(SparseError, match="divisible"):
        up(x, some(2, stride=3).sites)
    with pytest.raises(SparseError, match="places"):
        up(x, lone(2).sites)


@pytest.mark.parametrize("how", ["max", "mean", "sum"])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_pool_is_the_dense_one(shape, kernel, how) -> None:
    x = SHAPES[shape](3, 1)
    x, y = followed(x), followed(x)
    pooled = pool(x, kernel, how)
    assert pooled.stride == kernel.stride
    if kernel.stride == (1, 1, 1):
        assert pooled.sites is x.sites
    else:
        assert pooled.sites is x.sites.parents(kernel.stride)
    dense, active, low = boxed(y)
    expected = reference.pool(
        dense, active, low, pooled.coordinates, kernel.size, kernel.stride, kernel.dilation, how
    )
    same(pooled.features, expected, x, y)


@pytest.mark.parametrize("how", ["max", "mean", "sum"])
def test_pool_to_given_sites_gives_0_where_nothing_is_met(how) -> None:
    x = followed(lone(2, at=(0, 0, 0)).with_features(torch.tensor([[-3.0, 4.0]])))
    sites = lone(1, at=(9, 9, 9), stride=2).sites
    both = Sites(torch.tensor([[0, 0, 0, 0], [0, 9, 9, 9]], dtype=torch.int32), (2, 2, 2), x.place)
    assert pool(x, Kernel.of(2, 2), how, sites).features.tolist() == [[0, 0]]
    pooled = pool(x, Kernel.of(2, 2), how, both)
    assert pooled.features.tolist() == [[-3, 4], [0, 0]]  # the largest of what is there is below 0
    pooled.features.backward(torch.tensor([[1.0, 2.0], [5.0, 7.0]]))
    assert x.features.grad.tolist() == [[1, 2]]


def test_the_first_of_equals_wins_and_nan_is_not_hidden() -> None:
    nan = float("nan")
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    features = torch.tensor(
        [[2.0, nan, -float("inf")], [2.0, 1.0, -float("inf")], [1.0, 0.0, -float("inf")]]
    )
    x = followed(sparse_tensor(coordinates, features))
    pooled = pool(x, Kernel.of(2, 2), "max").features
    assert pooled[0, 0] == 2 and pooled[0, 1].isnan() and pooled[0, 2] == -float("inf")
    pooled.sum().backward()
    assert x.features.grad.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    later = pool(x.with_features(features.detach().flip(0)), Kernel.of(2, 2), "max").features
    assert later[0, 0] == 2 and later[0, 1].isnan()


@pytest.mark.parametrize("how", ["max", "mean", "sum"])
@pytest.mark.parametrize(
    "kernel", [Kernel.of(2, 2), Kernel.of(3), Kernel.of((3, 2, 1), (2, 2, 1))], ids=str
)
def test_pool_gradcheck(kernel, how) -> None:
    x = some(2, count=9, size=3)
    assert gradcheck(
        lambda f: pool(x.with_features(f), kernel, how).features,
        x.features.clone().requires_grad_(),
    )


def test_pool_refuses() -> None:
    x = some(2)
    with pytest.raises(SparseError, match="median"):
        pool(x, Kernel.of(2, 2), "median")
    with pytest.raises(SparseError, match="stride"):
        pool(x, Kernel.of(2, 2), "sum", x.sites)


def points_in(x: SparseTensor, count: int, dtype=torch.float64) -> Tensor:
    """Points in and around the box of x, and the centres and corners of some of its voxels."""
    generator = torch.Generator().manual_seed(4)
    low, high = (torch.tensor(bound[1:], dtype=torch.float64) for bound in x.sites.box)
    position = (
        low - 2 + torch.rand(count, 3, dtype=torch.float64, generator=generator) * (high - low + 4)
    )
    sample = torch.randint(x.batch_size, (count, 1), generator=generator)
    corners = x.coordinates[::3].double()
    centres = corners + torch.tensor([0, 0.5, 0.5, 0.5])
    return torch.cat([torch.cat([sample.double(), position], 1), corners, centres]).to(dtype)


@pytest.mark.parametrize("missing", ["zero", "renormalise"])
@pytest.mark.parametrize("how", ["nearest", "linear"])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolation_is_the_dense_one(shape, how, missing) -> None:
    x = SHAPES[shape](2, 1)
    x, y = followed(x), followed(x)
    mine, theirs = (points_in(x, 40).requires_grad_() for _ in range(2))
    ours = interpolate(x, mine, how, missing)
    dense, active, low = boxed(y)
    expected = reference.interpolate(dense, active, low, theirs, how, missing)
    # positions near 2^30 have 2^-22 of a voxel left
    tolerance = 1e-5 if shape == "far" else 1e-9 if missing == "renormalise" else EXACT
    same(ours, expected, x, y, tolerance)
    if shape == "far" or not len(x):
        return
    inner = slice(0, 40)  # at centres and faces the slope has two sides
    of_result = torch.ones_like(ours)
    (a,) = torch.autograd.grad(
        interpolate(x, mine, how, missing), mine, of_result, allow_unused=True
    )
    if how == "nearest":
        assert a is None
        return
    again = reference.interpolate(dense, active, low, theirs, how, missing)
    (b,) = torch.autograd.grad(again, theirs, of_result)
    torch.testing.assert_close(a[inner], b[inner], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("missing", ["zero", "renormalise"])
def test_interpolation_gradcheck(missing) -> None:
    x = some(2, count=20, size=3)
    points = points_in(x, 200)[:200]
    smooth = ((points[:, 1:] - 0.5) % 1 - 0.5).abs().amax(1) < 0.49  # the slope jumps at centres
    points = points[smooth & (interpolate(x, points, "linear") != 0).any(1)]
    assert len(points) > 5
    sample, position = points[:, :1], points[:, 1:].clone().requires_grad_()
    features = x.features.clone().requires_grad_()
    assert gradcheck(
        lambda f, p: interpolate(x.with_features(f), torch.cat([sample, p], 1), "linear", missing),
        (features, position),
    )
    assert gradcheck(lambda f: interpolate(x.with_features(f), points, "nearest"), features)


def test_linear_interpolation_gives_a_plane_back() -> None:
    """A plane is linear: where all 8 voxels are there, exactly; with holes, what is left does
    not shrink."""
    cells = torch.cartesian_prod(torch.arange(1), *(torch.arange(-2, 3) for _ in range(3)))
    plane = (cells[:, 1:].double() + 0.5) @ torch.tensor(
        [[2.0], [-3.0], [0.5]], dtype=torch.float64
    ) + 7
    x = sparse_tensor(cells, plane)
    points = torch.tensor([[0, 0.3, -0.9, 1.7], [0, -1.5, 2.5, 0.0]], dtype=torch.float64)
    expected = points[:, 1:] @ torch.tensor([[2.0], [-3.0], [0.5]], dtype=torch.float64) + 7
    torch.testing.assert_close(interpolate(x, points, "linear"), expected, rtol=EXACT, atol=EXACT)
    ones = x.with_features(torch.ones_like(plane)).prune(torch.arange(len(x)) % 2 == 0)
    assert interpolate(ones, points[:1], "linear", "zero").item() < 0.9
    assert interpolate(ones, points[:1], "linear", "renormalise").item() == pytest.approx(1)


def test_positions_at_the_end_of_int32() -> None:
    end = 2**31 - 1
    x = lone(1, at=(end, -(2**31), 0))
    points = torch.tensor([[0, end + 0.75, -(2.0**31), 0.5]], dtype=torch.float64)
    assert interpolate(x, points).item() == 1
    assert interpolate(x, points, "linear").item() == 0.375
    with pytest.raises(SparseError):
        interpolate(x, points + torch.tensor([0, 0.25, 0, 0]))


def test_float32_points_are_taken() -> None:
    x = some(2)
    points = points_in(x, 20, torch.float32)
    for how in ("nearest", "linear"):
        assert torch.equal(interpolate(x, points, how), interpolate(x, points.double(), how))


def test_interpolation_refuses() -> None:
    x = some(2)
    points = torch.zeros(3, 4)
    for bad, error in (
        (torch.zeros(3, 3), SparseError),
        (torch.zeros(4), SparseError),
        (points.long(), SparseError),
        (points.bfloat16(), SparseError),
        (points.to("meta"), SparseError),
        (points + 3, SparseError),
        (points - torch.tensor([1.0, 0, 0, 0]), SparseError),
        (points + torch.tensor([0.5, 0, 0, 0]), SparseError),
        (points * torch.nan, SparseError),
        (points + torch.tensor([0, 0, 1e10, 0]), SparseError),
    ):
        with pytest.raises(error):
            interpolate(x, bad)
    with pytest.raises(SparseError, match="cubic"):
        interpolate(x, points, "cubic")
    with pytest.raises(SparseError, match="guess"):
        interpolate(x, points, "linear", "guess")


def operations(x: SparseTensor) -> dict[str, Tensor]:
    """Features of every operation on x, (n, 8) of stride 2."""
    points = points_in(x, 60)
    found = {
        "shuffle": shuffle_up(x).features,
        "up": up(x, x.sites.children()[0]).features,
        "nearest": interpolate(x, points),
        "linear": interpolate(x, points, "linear"),
        "renormalised": interpolate(x, points, "linear", "renormalise"),
    }
    return found | {how: pool(x, Kernel.of(3, 2), how).features for how in ("max", "mean", "sum")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_one_rounding_away(dtype) -> None:
    """Sums are taken in float32, so a result is the float64 one, rounded once; gradients too."""
    exact = some(8, stride=2).to(dtype).to(torch.float64)
    x, y = followed(exact.to(dtype)), followed(exact)
    tolerance = HALF_ULP.get(dtype, 1e-6)
    ours, theirs = operations(x), operations(y)
    for name, value in ours.items():
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), theirs[name], rtol=tolerance, atol=1e-6)
        one = torch.ones_like(value)
        (a,) = torch.autograd.grad(value, x.features, one)
        (b,) = torch.autograd.grad(theirs[name], y.features, one.double())
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=1e-6)


def test_many_points_in_one_voxel_are_summed_in_float32() -> None:
    """A thousand gradients of 1 are 1000, which bfloat16 can tell; its own sums would stay at
    256."""
    x = followed(lone(1, at=(0, 0, 0), dtype=torch.bfloat16))
    points = torch.tensor([[0, 0.5, 0.5, 0.5]]).expand(1000, 4)
    for how in ("nearest", "linear"):
        (gradient,) = torch.autograd.grad(interpolate(x, points, how).sum(), x.features)
        assert gradient.item() == 1000


def test_under_autocast() -> None:
    x = followed(some(8, stride=2).to(torch.float32))
    expected = operations(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name, value in operations(x).items():
            assert torch.equal(value, expected[name])


def test_same_bits_in_any_order_of_voxels_and_on_any_number_of_threads() -> None:
    x = some(8, stride=2).to(torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for seed, threads in ((0, before), (1, 1), (2, 2)):
            torch.set_num_threads(threads)
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            y = followed(
                sparse_tensor(x.coordinates[order], x.features[order], stride=2, place=x.place)
            )
            made = operations(y)
            (gradient,) = torch.autograd.grad(
                sum((value**2).sum() for value in made.values()), y.features
            )
            results.append([*made.values(), gradient])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_crop_pools_to_the_same_cells() -> None:
    """Cells lie on the lattice, not on the first voxel: a crop gives the same inside."""
    x = some(2, count=100)
    whole = pool(x, Kernel.of(2, 2), "sum")
    part = pool(x.crop((-2, -2, -2), (2, 2, 2)), Kernel.of(2, 2), "sum")
    inside = whole.crop((-1, -1, -1), (1, 1, 1))
    assert len(part) and torch.equal(part.coordinates, inside.coordinates)
    assert torch.equal(part.features, inside.features)


def test_samples_do_not_mix() -> None:
    a, b = lone(8, stride=2), some(8, stride=2).samples()[2]
    b = SparseTensor(Sites(b.coordinates, b.stride, a.place), b.features)
    both = batch([a, b])
    for make in (
        lambda x: pool(x, Kernel.of(3, 2), "mean"),
        shuffle_up,
        lambda x: up(x, x.sites.children()[0]),
    ):
        for one, alone in zip(make(both).samples(), (make(a), make(b)), strict=True):
            assert torch.equal(one.coordinates, alone.coordinates) and torch.equal(
                one.features, alone.features
            )


def test_more_than_is_free_is_refused(monkeypatch) -> None:
    monkeypatch.setattr("earthgen.memory.free", lambda device: 1000)
    monkeypatch.setattr("earthgen.memory.ASK", 2000)
    x = some(8, stride=2)
    for make, count in (
        (lambda: shuffle_up(x), 320),
        (lambda: up(x, some(8, stride=1).sites), 40),
        (lambda: pool(x, Kernel.of(3)), 40),
        (lambda: interpolate(x, torch.zeros(123, 4)), 123),
    ):
        with pytest.raises(OutOfMemoryError, match=f"{count} voxels"):
            make()
