"""Sites and sparse tensors: sorted, looked up, coarsened, cropped and merged as plain Python
sets and dicts would."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck

from earthgen import memory
from earthgen.errors import OutOfMemoryError, SparseError
from earthgen.sparse.sites import (
    Place,
    Sites,
    coarsen_coordinates,
    make_sites,
    triple,
    union_sites,
)
from earthgen.sparse.tensor import (
    SparseTensor,
    batch,
    from_dense,
    merge_duplicates,
    sparse_tensor,
    union,
)
from geo_io.errors import EarthgenError
from geo_io.frame import Frame

LEAST, MOST = -(2**31), 2**31 - 1
NOWHERE = torch.zeros(0, 4, dtype=torch.int64)


def voxels(
    count: int = 60, *, samples: int = 3, span: int = 5, seed: int = 0
) -> list[tuple[int, int, int, int]]:
    """Voxels in no order, none twice, around the origin."""
    cells = itertools.product(range(samples), *(range(-span, span) for _ in range(3)))
    return random.Random(seed).sample(list(cells), count)


def rows(*given: tuple[int, ...], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(given, dtype=dtype).reshape(-1, 4)


def some(
    channels: int = 2,
    *,
    seed: int = 0,
    count: int = 60,
    stride: int = 1,
    place: Place | None = None,
):
    features = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    place = place or Place(((0, 0, 0), (24, -48, 0), (-72, 0, 144)), 0.5, "EPSG:32632")
    return sparse_tensor(rows(*voxels(count, seed=seed)), features, stride=stride, place=place)


def as_dict(x: SparseTensor) -> dict[tuple[int, ...], list[float]]:
    return {
        tuple(at): value
        for at, value in zip(x.coordinates.tolist(), x.features.tolist(), strict=True)
    }


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_sites_are_sorted_and_name_their_row(dtype) -> None:
    given = voxels()
    sites, order = make_sites(rows(*given, dtype=dtype))
    assert sites.coordinates.dtype == torch.int32 and sites.coordinates.is_contiguous()
    assert [tuple(row) for row in sites.coordinates.tolist()] == sorted(given)
    assert [given[row] for row in order.tolist()] == sorted(given)
    assert sites.batch_size == 3 and sites.place == Place(((0, 0, 0),) * 3)


def test_any_order_gives_the_same_bits() -> None:
    given = voxels()
    first = some()
    for seed in range(3):
        order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
        again = sparse_tensor(first.coordinates[order], first.features[order], place=first.place)
        assert torch.equal(again.coordinates, first.coordinates) and torch.equal(
            again.features, first.features
        )


def test_sorted_voxels_stay_where_they_are() -> None:
    _, order = make_sites(some().coordinates)
    assert order.tolist() == list(range(60))


def test_no_voxel_and_one_voxel() -> None:
    nothing, order = make_sites(NOWHERE)
    assert (len(nothing), len(order), nothing.batch_size) == (0, 0, 1)
    assert nothing.box == ([0] * 4, [-1] * 4) and nothing.bounds == [0, 0]
    assert nothing.rows(rows((0, 1, 2, 3))).tolist() == [-1]
    assert nothing.keys.shape == (0,) and nothing.lattice().shape == (0, 3)
    one, _ = make_sites(rows((0, MOST, LEAST, -1)))
    assert one.coordinates.tolist() == [[0, MOST, LEAST, -1]]
    assert one.rows(rows((0, MOST, LEAST, -1), (0, MOST - 1, LEAST, -1))).tolist() == [0, -1]


def test_a_voxel_named_twice_is_refused() -> None:
    with pytest.raises(SparseError, match=r"1 of 3 voxels.*\(0, -4, 5, 6\).*merge"):
        make_sites(rows((0, -4, 5, 6), (0, 1, 1, 1), (0, -4, 5, 6)))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.bool,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.complex64,
    ],
)
def test_coordinates_of_another_dtype_are_refused(dtype) -> None:
    with pytest.raises(SparseError, match="int32"):
        make_sites(torch.zeros(2, 4, dtype=dtype))


@pytest.mark.parametrize("shape", [(4,), (3, 3), (3, 5), (2, 2, 4), (0,)])
def test_coordinates_of_another_shape_are_refused(shape) -> None:
    with pytest.raises(SparseError, match=r"\(n, 4\)"):
        make_sites(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62, -(2**63)])
def test_coordinates_beyond_int32_are_refused(value) -> None:
    with pytest.raises(SparseError, match="32 bits"):
        make_sites(rows((0, 0, value, 0)))


def test_two_voxels_at_the_ends_of_all_axes_are_refused() -> None:
    """Their box has 2^96 cells, whose numbers would wrap and could fall on each other."""
    far = rows((0, LEAST, LEAST, LEAST), (0, MOST, MOST, MOST))
    with pytest.raises(SparseError, match="4,294,967,296 x 4,294,967,296"):
        make_sites(far)
    a, b = (make_sites(one)[0] for one in far.split(1))
    with pytest.raises(SparseError):
        union_sites([a, b])


def test_the_ends_of_one_axis_are_not() -> None:
    sites, _ = make_sites(rows((0, MOST, 0, 3), (0, LEAST, 0, 5), (0, LEAST, 0, 4)))
    assert sites.coordinates[:, 1].tolist() == [LEAST, LEAST, MOST]
    assert sites.rows(sites.coordinates).tolist() == [0, 1, 2]
    assert sites.rows(rows((0, 2**31, 0, 3), (0, LEAST - 1, 0, 4))).tolist() == [-1, -1]


def test_samples_out_of_range_are_refused() -> None:
    with pytest.raises(SparseError, match="samples 0 to 2 are given, the batch has 2"):
        make_sites(rows((0, 0, 0, 0), (2, 0, 0, 0)), place=Place(((0, 0, 0),) * 2))
    for place in (None, Place()):
        with pytest.raises(SparseError, match="samples -1"):
            make_sites(rows((-1, 0, 0, 0)), place=place)


def test_origins_that_are_no_multiple_of_the_stride_are_refused() -> None:
    place = Place(((4, -8, 0), (4, 2, 0)))
    assert make_sites(rows((0, 0, 0, 0)), stride=2, place=place)[0].stride == (2, 2, 2)
    with pytest.raises(SparseError, match=r"\(4, 2, 0\).*\(4, 4, 4\)"):
        make_sites(rows((0, 0, 0, 0)), stride=4, place=place)
    assert make_sites(rows((0, 0, 0, 0)), stride=(4, 2, 1024), place=place)[0].stride == (
        4,
        2,
        1024,
    )


@pytest.mark.parametrize("value", [0, -1, (1, 2), (1, 2, 0), 1.5, (1, 1, 1.0), "abc"])
def test_strides_that_are_none_are_refused(value) -> None:
    with pytest.raises((SparseError, TypeError)):
        triple(value, "stride")


def test_errors_are_of_the_builtin_kind_too() -> None:
    assert issubclass(SparseError, EarthgenError)
    assert issubclass(OutOfMemoryError, EarthgenError) and issubclass(OutOfMemoryError, MemoryError)


def test_rows_are_those_of_a_dict() -> None:
    sites = some().sites
    known = {tuple(row): number for number, row in enumerate(sites.coordinates.tolist())}
    asked = list(itertools.product(range(-1, 4), *(range(-7, 7, 2) for _ in range(3)))) + list(
        known
    )
    for dtype in (torch.int16, torch.int32, torch.int64):
        assert sites.rows(rows(*asked, dtype=dtype)).tolist() == [
            known.get(one, -1) for one in asked
        ]
    assert sites.rows(NOWHERE).tolist() == []


def test_what_lies_outside_the_box_is_not_taken_for_another() -> None:
    """In a box of 2 x 2 x 2 the cell (0, 0, 2) would have the number of (0, 1, 0)."""
    sites, _ = make_sites(rows(*itertools.product([0], range(2), range(2), range(2))))
    outside = [
        (0, 0, 0, 2),
        (0, 0, 1, -1),
        (0, 0, 2, 0),
        (1, 0, 0, 0),
        (-1, 1, 1, 1),
        (0, MOST, MOST, MOST),
    ]
    assert sites.rows(rows(*outside)).tolist() == [-1] * 6


def test_bounds_of_samples() -> None:
    sites, _ = make_sites(
        rows((1, 0, 0, 0), (1, 0, 0, 1), (3, 0, 0, 0)), place=Place(((0, 0, 0),) * 5)
    )
    assert sites.bounds == [0, 0, 2, 2, 3, 3]


def test_what_is_cached_is_the_same_object() -> None:
    sites = some(stride=4).sites
    assert sites.keys is sites.keys and sites.box is sites.box
    assert sites.parents() is sites.parents((2, 2, 2)) and sites.parents() is not sites.parents(3)
    assert sites.children()[0] is sites.children(2)[0]
    calls: list[int] = []
    for _ in range(2):
        assert sites.cached(("mine", 1), lambda: calls.append(1) or "made") == "made"
    assert calls == [1]
    assert sites.cached(("mine", 2), lambda: "other") == "other"


def test_sites_are_freed_with_their_last_user() -> None:
    """What is cached does not hold its owner: large tensors go at once, not when Python looks
    for cycles."""
    gc.disable()
    try:
        sites = some(stride=4).sites
        gone = weakref.ref(sites)
        assert (
            len(sites.parents()) and len(sites.children()[0]) and sites.bounds and len(sites.keys)
        )
        del sites
        assert gone() is None
    finally:
        gc.enable()


def test_select() -> None:
    sites = some().sites
    keep = sites.coordinates[:, 1] > 0
    kept = sites.select(keep)
    assert kept.coordinates.tolist() == [row for row in sites.coordinates.tolist() if row[1] > 0]
    assert (kept.stride, kept.place) == (sites.stride, sites.place)
    assert kept.rows(kept.coordinates).tolist() == list(range(len(kept)))


def test_place_of_frames() -> None:
    a = Frame("EPSG:32632", 0.5, (-40, 24), (10, 74), (-16, 48))
    b = Frame("EPSG:32632", 0.5, (4, 8), (-8, 8), (0, 16))
    assert Place.of(a, b) == Place(((-40, 10, -16), (4, -8, 0)), 0.5, "EPSG:32632")
    for other in (
        Frame("EPSG:32633", 0.5, (0, 4), (0, 4)),
        Frame("EPSG:32632", 1.0, (0, 4), (0, 4)),
    ):
        with pytest.raises(SparseError, match="several lattices"):
            Place.of(a, other)
    with pytest.raises(SparseError):
        Place.of()


def test_lattice_and_centres() -> None:
    place = Place(((100, -200, 0), (2**31 - 4, 0, -8)), 0.5, "EPSG:32632")
    sites, _ = make_sites(rows((0, -3, 0, 2), (1, MOST, 1, 1)), stride=(4, 2, 1), place=place)
    assert sites.lattice().tolist() == [
        [88, -200, 2],
        [2**31 - 4 + 4 * MOST, 2, -7],
    ]  # beyond int32, not wrapped
    assert sites.lattice().dtype == torch.int64
    assert sites.centres().dtype == torch.float64
    assert sites.centres()[0].tolist() == [(88 + 2) * 0.5, (-200 + 1) * 0.5, 2.5 * 0.5]


def test_a_cell_is_the_middle_of_its_children() -> None:
    x = some(stride=2)
    children, number = x.sites.children()
    means = (
        torch.zeros(len(x), 3, dtype=torch.float64).index_add(0, number // 8, children.centres())
        / 8
    )
    torch.testing.assert_close(means, x.sites.centres())


@pytest.mark.parametrize("factor", [2, 3, (2, 1, 3)])
def test_parents_are_those_rounded_down(factor) -> None:
    x = some()
    by = triple(factor, "factor")
    parents = x.sites.parents(factor)
    expected = {(s, a // by[0], b // by[1], c // by[2]) for s, a, b, c in x.coordinates.tolist()}
    assert [tuple(row) for row in parents.coordinates.tolist()] == sorted(expected)
    assert (
        parents.stride == by
        and parents.place == x.place
        and parents.coordinates.dtype == torch.int32
    )


@pytest.mark.parametrize("factor", [2, 3, (2, 1, 3)])
def test_children_and_their_numbers(factor) -> None:
    coarse = some(stride=6).sites
    by = triple(factor, "factor")
    children, number = coarse.children(factor)
    assert children.stride == tuple(6 // one for one in by) and children.place == coarse.place
    found = [tuple(row) for row in children.coordinates.tolist()]
    assert found == sorted(found)
    expected = {}
    for row, (s, x, y, z) in enumerate(coarse.coordinates.tolist()):
        for i, j, k in itertools.product(*map(range, by)):
            child = (s, x * by[0] + i, y * by[1] + j, z * by[2] + k)
            expected[child] = row * by[0] * by[1] * by[2] + (i * by[1] + j) * by[2] + k
    assert dict(zip(found, number.tolist(), strict=True)) == expected
    again = children.parents(factor)
    again.check_same(coarse)


def test_parents_and_children_of_no_voxel() -> None:
    nothing, _ = make_sites(NOWHERE, stride=2)
    assert len(nothing.parents()) == 0 and nothing.parents().stride == (4, 4, 4)
    children, number = nothing.children()
    assert (len(children), len(number), children.stride) == (0, 0, (1, 1, 1))


def test_parents_need_origins_on_the_coarser_lattice() -> None:
    sites, _ = make_sites(rows((0, 0, 0, 0)), place=Place(((2, 6, 0),)))
    assert sites.parents().stride == (2, 2, 2)
    with pytest.raises(SparseError, match="multiple of stride"):
        sites.parents(4)


def test_children_need_a_divisible_stride() -> None:
    with pytest.raises(SparseError, match="not divisible"):
        make_sites(rows((0, 0, 0, 0)), stride=(2, 2, 1))[0].children()


def test_children_that_would_wrap_are_refused() -> None:
    for value in (2**30, -(2**30) - 1, MOST, LEAST):
        with pytest.raises(SparseError, match="32 bits"):
            make_sites(rows((0, 0, 0, value)), stride=2)[0].children()
    ends, _ = make_sites(rows((0, 0, 0, 2**30 - 1), (0, 0, 0, -(2**30))), stride=2)
    children, _ = ends.children()
    assert children.box == ([0, 0, 0, LEAST], [0, 1, 1, MOST])
    children.parents().check_same(ends)


def test_parents_of_the_last_voxels() -> None:
    sites, _ = make_sites(rows((0, LEAST, 0, 0), (0, MOST, 0, 0)))
    assert sites.parents(2).coordinates[:, 1].tolist() == [-(2**30), 2**30 - 1]
    assert coarsen_coordinates(
        torch.tensor([[-1, LEAST, 5]], dtype=torch.int32), (2, 3, 5)
    ).tolist() == [[-1, -715827883, 1]]


def test_a_crop_has_the_parents_of_the_whole() -> None:
    x = some()
    inside = x.crop((-4, -4, -4), (4, 4, 4)).sites.parents(2).coordinates.tolist()
    whole = x.sites.parents(2).coordinates.tolist()
    assert inside == [row for row in whole if all(-2 <= one < 2 for one in row[1:])]


def test_joined() -> None:
    a, b = some(seed=1).sites, some(seed=2).sites
    both = union_sites([a, b, a])
    expected = {tuple(row) for one in (a, b) for row in one.coordinates.tolist()}
    assert [tuple(row) for row in both.coordinates.tolist()] == sorted(expected)
    with pytest.raises(SparseError, match="places"):
        union_sites([a, make_sites(rows((0, 0, 0, 0)))[0]])
    with pytest.raises(SparseError, match="strides"):
        union_sites([a, a.parents()])


def test_features_follow_their_voxels() -> None:
    given = voxels()
    features = torch.arange(60.0)[:, None]
    x = sparse_tensor(rows(*given), features)
    assert {tuple(at): value for at, (value,) in as_dict(x).items()} == {
        at: float(n) for n, at in enumerate(given)
    }
    assert (len(x), x.channels, x.batch_size, x.stride) == (60, 1, 3, (1, 1, 1))


def test_features_that_do_not_fit_are_refused() -> None:
    x = some()
    with pytest.raises(SparseError, match=r"\(60, 4\).*\(59, 2\)"):
        sparse_tensor(x.coordinates, x.features[1:])
    with pytest.raises(SparseError):
        sparse_tensor(x.coordinates, x.features[:, 0])
    with pytest.raises(SparseError, match="meta"):
        sparse_tensor(x.coordinates, x.features.to("meta"))
    with pytest.raises(SparseError, match="60 voxels"):
        x.with_features(x.features[1:])
    with pytest.raises(SparseError):
        x.with_features(x.features[None])
    with pytest.raises(SparseError, match="meta"):
        x.with_features(x.features.to("meta"))


def test_to() -> None:
    x = some()
    half = x.to(torch.bfloat16)
    assert half.features.dtype == torch.bfloat16 and half.sites is x.sites
    assert x.to("cpu").sites is x.sites
    there = x.to("meta")
    assert (
        there.features.device.type == there.coordinates.device.type == "meta"
        and there.place == x.place
    )


def test_sums_need_the_same_voxels() -> None:
    x = some()
    same = sparse_tensor(x.coordinates, x.features, place=x.place)
    assert torch.equal((x + same).features, 2 * x.features)
    other = x.features.new_ones(len(x), 2)
    with pytest.raises(SparseError, match="2 and 3 channels"):
        x + x.with_features(torch.ones(60, 3))
    with pytest.raises(SparseError, match="union"):
        x + x.prune(x.coordinates[:, 0] == 0)
    with pytest.raises(SparseError, match="union"):
        x + some(seed=1)
    with pytest.raises(SparseError, match="strides"):
        x + SparseTensor(Sites(x.coordinates, (2, 2, 2), x.place), other)
    with pytest.raises(SparseError, match="places"):
        x + sparse_tensor(x.coordinates, other)
    with pytest.raises(SparseError, match="meta"):
        x + x.to("meta")


def test_crop_and_prune() -> None:
    x = some()
    part = x.crop((-2, -5, 0), (3, 2, 99))
    low, high = (-2, -5, 0), (3, 2, 99)
    expected = {
        at: value
        for at, value in as_dict(x).items()
        if all(a <= one < b for a, one, b in zip(low, at[1:], high, strict=True))
    }
    assert as_dict(part) == expected and 0 < len(part) < len(x) and part.place == x.place
    assert len(x.crop((0, 0, 0), (0, 9, 9))) == 0
    assert len(x.crop((-(2**40),) * 3, (2**40,) * 3)) == len(x)  # limits need not fit int32
    kept = x.prune(x.features[:, 0] > 0)
    assert as_dict(kept) == {at: value for at, value in as_dict(x).items() if value[0] > 0}


def test_crop_and_prune_refuse() -> None:
    x = some()
    for low, high in (((0, 0), (1, 1)), ((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 1, 1, 1))):
        for use in (x.crop, x.dense):
            with pytest.raises(SparseError, match="three axes"):
                use(low, high)
    for mask in (
        torch.ones(60),
        torch.ones(59, dtype=torch.bool),
        torch.ones(60, 1, dtype=torch.bool),
    ):
        with pytest.raises(SparseError, match=r"\(60,\) of torch.bool"):
            x.prune(mask)


def test_at_other_sites() -> None:
    x, other = some(seed=1), some(seed=2).sites
    assert x.at(x.sites) is x
    moved = x.at(other)
    known = as_dict(x)
    assert moved.sites is other
    assert as_dict(moved) == {
        tuple(at): known.get(tuple(at), [0.0, 0.0]) for at in other.coordinates.tolist()
    }
    nothing = sparse_tensor(NOWHERE, torch.zeros(0, 2), place=x.place)
    assert not nothing.at(other).features.any() and len(x.at(nothing.sites)) == 0
    with pytest.raises(SparseError, match="strides"):
        x.at(other.parents())
    with pytest.raises(SparseError, match="places"):
        x.at(make_sites(rows((0, 0, 0, 0)))[0])


def test_union_adds_where_both_are() -> None:
    x, y = some(seed=1, count=400), some(seed=2, count=300)
    expected = as_dict(x)
    for at, value in as_dict(y).items():
        expected[at] = [
            a + b for a, b in zip(expected.get(at, [0.0, 0.0]), torch.tensor(value), strict=True)
        ]
    both = union(x, y)
    assert 400 < len(both) < 700
    assert as_dict(both) == {
        at: [float(one) for one in value] for at, value in sorted(expected.items())
    }
    assert union(x, x).sites is x.sites
    with pytest.raises(SparseError, match="channels"):
        union(x, some(3))


def test_samples_and_batch_come_back() -> None:
    x = some()
    parts = x.samples()
    assert [len(one) for one in parts] == [
        x.sites.bounds[n + 1] - x.sites.bounds[n] for n in range(3)
    ]
    assert [one.place.origins for one in parts] == [(origin,) for origin in x.place.origins]
    assert all(not one.coordinates[:, 0].any() for one in parts)
    whole = batch(parts)
    whole.sites.check_same(x.sites)
    assert torch.equal(whole.features, x.features)
    twice = batch([x, parts[1]])
    assert twice.batch_size == 4 and torch.equal(twice.samples()[3].features, parts[1].features)
    nothing = sparse_tensor(NOWHERE, torch.zeros(0, 2), place=parts[1].place)
    assert [len(one) for one in batch([nothing, parts[0], nothing]).samples()] == [
        0,
        len(parts[0]),
        0,
    ]


def test_batch_refuses() -> None:
    x = some()
    for other, error in (
        (some(3), SparseError),
        (some(place=Place(x.place.origins, 1.0, "EPSG:32632")), SparseError),
        (some(stride=2), SparseError),
        (some(place=Place(x.place.origins, 0.5, "")), SparseError),
        (x.to("meta"), SparseError),
    ):
        with pytest.raises(error):
            batch([x, other])
    with pytest.raises(SparseError):
        batch([])


def test_dense_and_back() -> None:
    x = some(stride=2)
    dense = x.dense(fill=7.0)
    low, high = (bound[1:] for bound in x.sites.box)
    assert dense.shape == (3, 2, *(b - a + 1 for a, b in zip(low, high, strict=True)))
    for (s, *at), value in as_dict(x).items():
        a, b, c = (one - first for one, first in zip(at, low, strict=True))
        assert dense[s, :, a, b, c].tolist() == value
    active = (dense != 7).all(1)
    assert int(active.sum()) == len(x)
    again = from_dense(dense, active, low=low, place=x.place, stride=2)
    again.sites.check_same(x.sites)
    assert torch.equal(again.features, x.features)


def test_dense_of_a_given_box() -> None:
    x = some()
    dense = x.dense((-9, 0, 2), (0, 1, 4))
    assert dense.shape == (3, 2, 9, 1, 2)
    assert torch.equal(dense, x.crop((-9, 0, 2), (0, 1, 4)).dense((-9, 0, 2), (0, 1, 4)))
    assert dense.abs().sum() == pytest.approx(
        x.crop((-9, 0, 2), (0, 1, 4)).features.abs().sum().item(), rel=1e-5
    )
    assert x.dense((0, 0, 0), (0, 2, 2)).shape == (3, 2, 0, 2, 2)
    with pytest.raises(SparseError, match="ends before it begins"):
        x.dense((0, 0, 0), (-1, 2, 2))


def test_dense_of_few_and_far_voxels() -> None:
    nothing = sparse_tensor(NOWHERE, torch.zeros(0, 2))
    assert nothing.dense().shape == (1, 2, 0, 0, 0)
    assert (
        len(from_dense(torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 3, 3, 3, dtype=torch.bool))) == 0
    )
    far = sparse_tensor(rows((0, MOST, LEAST, 5)), torch.tensor([[3.0]]))
    assert far.dense().tolist() == [[[[[3.0]]]]]
    back = from_dense(far.dense(), torch.ones(1, 1, 1, 1, dtype=torch.bool), low=(MOST, LEAST, 5))
    assert back.coordinates.tolist() == [[0, MOST, LEAST, 5]]


def test_from_dense_refuses() -> None:
    dense, active = torch.zeros(1, 2, 3, 3, 3), torch.ones(1, 3, 3, 3, dtype=torch.bool)
    with pytest.raises(SparseError):
        from_dense(dense[0], active)
    with pytest.raises(SparseError):
        from_dense(dense, active[:, 1:])
    with pytest.raises(SparseError, match="three axes"):
        from_dense(dense, active, low=(0, 0))
    with pytest.raises(SparseError):
        from_dense(dense, active, low=(MOST - 1, 0, 0))


def test_gradients_go_through_moves() -> None:
    x, other = some(1, seed=1, count=40), some(seed=2, count=400).sites
    features = x.features.double().requires_grad_()
    for use in (
        lambda y: y.at(other).features,
        lambda y: y.crop((-3, -3, -3), (3, 3, 3)).features,
        lambda y: union(y, y.at(other)).features,
        lambda y: y.dense((-3, -2, -1), (3, 1, 2)),
        lambda y: batch(y.samples()).features,
        lambda y: (
            merge_duplicates(y.coordinates // 4 * torch.tensor([0, 1, 1, 1]), y.features).features
        ),
    ):
        result = use(x.with_features(features))
        assert result.numel() and gradcheck(lambda f, use=use: use(x.with_features(f)), features)


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_merged(how) -> None:
    source = random.Random(1)
    given = [source.choice(voxels(7)) for _ in range(40)]
    features = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = merge_duplicates(rows(*given), features, how=how, stride=2)
    found: dict[tuple[int, ...], list[int]] = {}
    for number, at in enumerate(given):
        found.setdefault(at, []).append(number)
    assert list(as_dict(x)) == sorted(found) and x.stride == (2, 2, 2)
    for at, value in as_dict(x).items():
        taken = features[found[at]]
        assert value == pytest.approx(
            (taken.mean(0) if how == "mean" else taken.sum(0)).tolist(), rel=1e-12
        )


def test_merged_of_voxels_named_once_is_sparse_tensor() -> None:
    given = rows(*voxels())
    features = torch.randn(60, 2)
    for how in ("mean", "sum", "refuse"):
        assert as_dict(merge_duplicates(given, features, how=how)) == as_dict(
            sparse_tensor(given, features)
        )


def test_merged_of_nothing_and_far_away() -> None:
    for how in ("mean", "sum", "refuse"):
        assert merge_duplicates(NOWHERE, torch.zeros(0, 3), how=how).features.shape == (0, 3)
    far = rows((0, MOST, LEAST, 0), (0, MOST, LEAST, 0))
    x = merge_duplicates(far, torch.tensor([[1.0], [2.0]]), how="sum")
    assert as_dict(x) == {(0, MOST, LEAST, 0): [3.0]}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merged_sums_in_float32(dtype) -> None:
    """A thousand ones: bfloat16's own sum would stay at 256."""
    ones = torch.ones(1000, 1, dtype=dtype)
    for how, expected in (("sum", 1000), ("mean", 1)):
        x = merge_duplicates(torch.zeros(1000, 4, dtype=torch.int32), ones, how=how)
        assert x.features.dtype == dtype and x.features.item() == expected


def test_merged_refuses() -> None:
    twice, features = rows((0, 1, 2, 3), (0, 1, 2, 3)), torch.ones(2, 1)
    with pytest.raises(SparseError, match="twice"):
        merge_duplicates(twice, features, how="refuse")
    with pytest.raises(SparseError, match="median"):
        merge_duplicates(twice, features, how="median")
    for how in ("mean", "sum"):
        for coordinates, values, error in (
            (twice.double(), features, SparseError),
            (twice[:, :3], features, SparseError),
            (twice[0], features, SparseError),
            (twice, torch.ones(3, 1), SparseError),
            (twice, torch.ones(2), SparseError),
            (twice, features.to("meta"), SparseError),
            (twice + 2**31, features, SparseError),
            (twice - 1, features, SparseError),
        ):
            with pytest.raises(error):
                merge_duplicates(coordinates, values, how=how)


def test_a_dense_box_that_does_not_fit_is_refused_before(monkeypatch) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 80_000_000)
    x = sparse_tensor(rows((0, 0, 0, 0), (0, 299, 299, 299)), torch.ones(2, 1))
    with pytest.raises(
        OutOfMemoryError, match=r"300 x 300 x 300.*0\.1 GB for 27,000,000 voxels.*cpu.*crop"
    ):
        x.dense()
    assert x.crop((0, 0, 0), (9, 9, 9)).dense().numel() == 1
    monkeypatch.setattr(memory, "free", lambda device: None)
    memory.require(10**15, torch.device("cpu"), "all", 1)  # where it cannot be told, torch says so


def test_small_pieces_do_not_ask(monkeypatch) -> None:
    def asked(device: torch.device) -> int:
        raise AssertionError

    monkeypatch.setattr(memory, "free", asked)
    memory.require(memory.ASK - 1, torch.device("cpu"), "little", 1)
    with pytest.raises(AssertionError):
        memory.require(memory.ASK, torch.device("cpu"), "much", 1)


def test_free_memory_is_that_of_the_machine_or_of_the_container(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    monkeypatch.setattr(
        memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=12_345_000)
    )
    cpu = torch.device("cpu")
    assert memory.free(cpu) == 12_345_000
    (tmp_path / "memory.current").write_text("400\n")
    for limit, free in (("max", 12_345_000), ("1000", 600), ("300", 0), ("99999999", 12_345_000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert memory.free(cpu) == free
    assert memory.free(torch.device("meta")) is None
