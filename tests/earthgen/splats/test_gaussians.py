"""Gaussians: checks, crops, merges, similarities, harmonics, levels of detail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from earthgen.errors import SplatError
from earthgen.splats import Gaussians
from earthgen.splats.coarsen import coarsen, pyramid
from earthgen.splats.spherical_harmonics import basis, colours, rotate, rotation_matrix
from earthgen.splats.transform import crop, merge, reanchor, transform, with_degree
from earthgen.voxels.splat_math import disc_normals
from geo_io.frame import Frame

NAMES = ("means", "scales", "rotations", "opacities", "sh", "semantic")
ANCHOR = (690_000.0, 5_540_000.0, 400.0)


def some(n: int = 200, degree: int = 2, seed: int = 3, spread: float = 20.0) -> Gaussians:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(n, random_state=seed).as_quat()[:, [3, 0, 1, 2]]
    return Gaussians(
        ANCHOR,
        "EPSG:32632",
        "EPSG:7837",
        rng.uniform(-spread, spread, (n, 3)).astype(np.float32),
        rng.uniform(0.05, 3, (n, 2)).astype(np.float32),
        turn.astype(np.float32),
        rng.uniform(0, 1, n).astype(np.float32),
        (0.3 * rng.normal(size=(n, (degree + 1) ** 2, 3))).astype(np.float32),
        rng.integers(1, 26, n).astype(np.uint8),
    )


def plane(n: int = 16, spacing: float = 1.0, sigma: float = 0.5, opacity: float = 1.0) -> Gaussians:
    """A level sheet of n x n discs, a disc a metre."""
    x, y = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)
    count = n * n
    return Gaussians(
        ANCHOR,
        "EPSG:32632",
        "unknown",
        (np.stack([x.ravel(), y.ravel(), np.full(count, 0.5)], axis=1) * spacing).astype(
            np.float32
        ),
        np.full((count, 2), sigma, np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        np.full(count, opacity, np.float32),
        np.zeros((count, 1, 3), np.float32),
        np.full(count, 2, np.uint8),
    )


def same(one: Gaussians, other: Gaussians) -> bool:
    return (one.anchor, one.crs, one.vertical_crs) == (
        other.anchor,
        other.crs,
        other.vertical_crs,
    ) and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)


def weights(gaussians: Gaussians) -> np.ndarray:
    return (
        gaussians.opacities.astype(np.float64)
        * 2
        * np.pi
        * gaussians.scales.astype(np.float64).prod(axis=1)
    )


def test_good_gaussians_pass() -> None:
    good = some()
    assert good.check() is good and good.faults() == {} and good.valid().all()
    half = replace(good, rotations=good.rotations.astype(np.float16).astype(np.float32))
    half.check()  # worlds keep quaternions in half precision
    Gaussians.empty(ANCHOR, "EPSG:32632").check()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("means", np.nan, "NaN or infinity among their means"),
        ("sh", np.inf, "NaN or infinity among their sh"),
        ("opacities", np.nan, "NaN or infinity among their opacities"),
        ("scales", np.nan, "NaN or infinity among their scales"),
        ("scales", 0.0, "scales that are not above 0"),
        ("scales", -1.0, "scales that are not above 0"),
        ("rotations", 0.0, "quaternions of another length than 1"),
        ("rotations", 1.0, "quaternions of another length than 1"),
        ("rotations", np.nan, "NaN or infinity among their rotations"),
        ("opacities", 1.5, r"opacities outside \[0, 1\]"),
        ("opacities", -0.1, r"opacities outside \[0, 1\]"),
    ],
)
def test_faults_are_counted_and_named(name: str, value: float, what: str) -> None:
    good = some(10)
    bad = getattr(good, name).copy()
    bad[[3, 7]] = value
    broken = replace(good, **{name: bad})
    with pytest.raises(
        SplatError, match=rf"^of 10 Gaussians 2 have {what} \(the first is 3\)\. [Rr]emove"
    ) as caught:
        broken.check()
    assert ";" not in caught.value.problem  # a fault is named once
    np.testing.assert_array_equal(np.flatnonzero(~broken.valid()), [3, 7])
    broken.take(broken.valid()).check()


def test_all_faults_are_named_together() -> None:
    bad = some(10)
    bad.means[2], bad.scales[4, 1], bad.scales[5, 0] = np.nan, 0, 0
    with pytest.raises(
        SplatError, match=r"1 have NaN .* means \(the first is 2\); 2 have scales .* is 4\)"
    ):
        bad.check()


def test_boxes_side_by_side_share_none_and_lose_none() -> None:
    whole = plane()  # centres at half metres
    left, right = (
        crop(whole, (ANCHOR[0] + a, ANCHOR[1], ANCHOR[0] + b, ANCHOR[1] + 16))
        for a, b in ((0, 5.5), (5.5, 16))
    )
    assert len(left) + len(right) == len(whole) == 256 and len(left) == 5 * 16
    assert left.positions[:, 0].max() < ANCHOR[0] + 5.5 <= right.positions[:, 0].min()
    assert (
        len(crop(whole, (ANCHOR[0], ANCHOR[1], ANCHOR[0] + 16, ANCHOR[1] + 16), (0.0, 400.5))) == 0
    )
    assert (
        len(crop(whole, (ANCHOR[0], ANCHOR[1], ANCHOR[0] + 16, ANCHOR[1] + 16), (400.5, 401.0)))
        == 256
    )
    frame = Frame("EPSG:32632", 1.0, (690_002, 690_004), (5_540_000, 5_540_003))
    assert len(crop(whole, frame)) == 6
    with pytest.raises(SplatError, match="EPSG:32633"):
        crop(whole, replace(frame, crs="EPSG:32633"))
    for bounds, heights in (
        ((1, 0, 0, 1), None),
        ((0, 0, 1, 1), (5.0, 4.0)),
        ((math.nan, 0, 1, 1), None),
    ):
        with pytest.raises(SplatError, match="are not ascending"):
            crop(whole, bounds, heights)


def test_merging_brings_parts_onto_one_anchor() -> None:
    one, far = some(50), some(30, degree=0, seed=9)
    other = reanchor(far, (690_500.0, 5_540_900.0, 0.0))
    whole = merge([one, other])
    assert len(whole) == 80 and whole.anchor == one.anchor and whole.degree == 2
    np.testing.assert_allclose(
        whole.positions, np.concatenate([one.positions, far.positions]), atol=1e-4
    )
    np.testing.assert_array_equal(whole.sh[50:, :1], far.sh)
    assert (whole.sh[50:, 1:] == 0).all()
    assert merge([one, other], anchor=(690_001.0, 5_540_001.0, 0.0)).anchor == (
        690_001,
        5_540_001,
        0,
    )
    assert same(merge([one]), one)
    with pytest.raises(SplatError, match="at least one"):
        merge([])
    for change in ({"crs": "EPSG:32633"}, {"vertical_crs": "unknown"}):
        with pytest.raises(SplatError, match="one CRS"):
            merge([one, replace(other, **change)])


def test_utm_northings_do_not_pass_through_float32() -> None:
    """From an anchor near by to one near by, although the numbers are millions."""
    near = some()
    there = reanchor(near, (690_003.3, 5_540_002.7, 398.1))
    np.testing.assert_allclose(there.positions, near.positions, atol=2e-6)
    assert (
        np.abs(near.positions.astype(np.float32) - near.positions).max() > 0.1
    )  # what would be lost
    assert reanchor(near, near.anchor) is near
    with pytest.raises(SplatError, match="is not finite"):
        reanchor(near, (math.nan, 0.0, 0.0))


def test_another_degree() -> None:
    g = some()
    up, down = with_degree(g, 3), with_degree(g, 1)
    assert (
        up.sh.shape == (200, 16, 3)
        and (up.sh[:, 9:] == 0).all()
        and with_degree(up, 2).sh.tolist() == g.sh.tolist()
    )
    np.testing.assert_array_equal(down.sh, g.sh[:, :4])
    assert with_degree(g, 2) is g


def directions(n: int, seed: int = 1) -> np.ndarray:
    d = np.random.default_rng(seed).normal(size=(n, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def test_the_basis_is_that_of_3dgs() -> None:
    """Constants as the reference implementation of 3D Gaussian Splatting prints them, at one
    direction."""
    d = np.array([[0.36, 0.48, 0.8]])
    x, y, z = d[0]
    expected = [
        0.28209479177387814,
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
        1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]
    np.testing.assert_allclose(basis(d, 3)[0], expected, rtol=1e-12)
    for degree in range(4):
        np.testing.assert_array_equal(basis(d, degree), basis(d, 3)[:, : (degree + 1) ** 2])
    with pytest.raises(SplatError, match="degree 4"):
        basis(d, 4)


def test_the_renderer_s_basis_in_torch_is_the_same() -> None:
    import torch

    from earthgen.splats.raster.colour import bases

    d = directions(50)
    for degree in range(4):
        # float64 both; the sums are taken in another order
        np.testing.assert_allclose(
            bases(torch.from_numpy(d), degree).numpy(), basis(d, degree), atol=1e-14
        )


def test_the_basis_is_orthonormal() -> None:
    """Gauss-Legendre in z and even steps around: exact for products of two functions of degree
    3."""
    z, weight = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * (2 * np.pi / 16)
    zz, aa = np.repeat(z, 16), np.tile(angle, 8)
    r = np.sqrt(1 - zz**2)
    values = basis(np.stack([r * np.cos(aa), r * np.sin(aa), zz], axis=1), 3)
    gram = values.T @ (values * (np.repeat(weight, 16) * 2 * np.pi / 16)[:, None])
    np.testing.assert_allclose(gram, np.eye(16), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 2**31 - 1))
def test_turned_colours_are_seen_in_turned_directions(degree: int, seed: int) -> None:
    turn = Rotation.random(random_state=seed).as_matrix()
    sh = some(20, degree, seed=seed % 1000).sh
    d = directions(20, seed % 997)
    # float32 coefficients of size 1, at most 16 of them
    np.testing.assert_allclose(colours(rotate(sh, turn), d @ turn.T), colours(sh, d), atol=3e-6)
    matrix = rotation_matrix(turn, degree)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-12)


def test_colours_are_albedo_and_not_below_0() -> None:
    sh = np.zeros((2, 1, 3), np.float32)
    sh[0], sh[1] = 1, -10
    np.testing.assert_allclose(
        colours(sh, directions(2)), [[0.5 + 0.28209479] * 3, [0] * 3], atol=1e-7
    )


def covariances(g: Gaussians) -> np.ndarray:
    axes = (
        Rotation.from_quat(g.rotations[:, [1, 2, 3, 0]]).as_matrix()
        * np.pad(g.scales, ((0, 0), (0, 1)))[:, None, :]
    )
    return axes @ axes.transpose(0, 2, 1)


def test_a_similarity_moves_discs_and_colours_together() -> None:
    g = some(degree=3)
    turn, about, move = (
        Rotation.random(random_state=5).as_matrix(),
        (690_010.0, 5_539_990.0, 405.0),
        (7.0, -8.0, 9.0),
    )
    there = transform(g, rotation=turn, scale=1.7, translation=move, about=about)
    there.check()
    expected = np.array(about) + 1.7 * (g.positions - about) @ turn.T + move
    np.testing.assert_allclose(there.positions, expected, atol=1e-5)
    np.testing.assert_allclose(
        covariances(there), 1.7**2 * turn @ covariances(g) @ turn.T, atol=1e-4
    )
    np.testing.assert_allclose(
        disc_normals(there.rotations), disc_normals(g.rotations) @ turn.T, atol=1e-6
    )
    d = directions(len(g))
    np.testing.assert_allclose(colours(there.sh, d @ turn.T), colours(g.sh, d), atol=3e-6)
    np.testing.assert_array_equal(there.opacities, g.opacities)
    x, y, z, w = Rotation.from_matrix(turn).as_quat()
    by_quaternion = transform(g, rotation=(w, x, y, z), scale=1.7, translation=move, about=about)
    np.testing.assert_allclose(by_quaternion.positions, there.positions, atol=1e-5)
    back = transform(there, rotation=turn.T, scale=1 / 1.7, about=there.anchor)
    np.testing.assert_allclose(back.means, g.means, atol=1e-5)


def test_a_translation_costs_no_digits() -> None:
    g = some()
    there = transform(g, translation=(1e6, -2e6, 0.125))
    assert there.anchor == (ANCHOR[0] + 1e6, ANCHOR[1] - 2e6, ANCHOR[2] + 0.125)
    assert there.means is g.means and there.sh is g.sh
    assert same(transform(g), g)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": np.diag([1, 1, -1])},
        {"rotation": 2 * np.eye(3)},
        {"rotation": (2, 0, 0, 0)},
        {"scale": 0},
        {"scale": -1},
        {"scale": math.nan},
        {"translation": (1, 2)},
        {"translation": (0, 0, math.inf)},
        {"rotation": np.full((3, 3), np.nan)},
    ],
)
def test_what_is_no_similarity(options: dict) -> None:
    with pytest.raises(SplatError, match=r"not a rotation|not a similarity"):
        transform(some(), **options)


def test_a_sheet_becomes_a_sheet_of_larger_discs() -> None:
    fine = plane(opacity=0.9)
    for factor, coarse in pyramid(fine, 1.0).items():
        assert len(coarse) == (16 // factor) ** 2
        # As a world's own levels: as opaque, and with deviations that grow with the cells.
        np.testing.assert_allclose(coarse.scales, 0.5 * factor, rtol=1e-5)
        np.testing.assert_allclose(coarse.opacities, 0.9, rtol=1e-5)
        np.testing.assert_allclose(
            disc_normals(coarse.rotations), [[0, 0, 1]] * len(coarse), atol=1e-6
        )
        np.testing.assert_allclose(coarse.means[:, 2], 0.5, atol=1e-6)
        np.testing.assert_allclose(coarse.means[0, :2], factor / 2, atol=1e-5)


def test_sparse_discs_keep_their_spread_and_lose_opacity() -> None:
    fine = plane(8, sigma=0.05)
    coarse = coarsen(fine, 2.0)
    spread = math.sqrt(0.5**2 + 0.05**2)  # of four points half a metre off, and of their discs
    np.testing.assert_allclose(coarse.scales, spread, rtol=1e-5)
    np.testing.assert_allclose(coarse.opacities, 4 * 0.05**2 / spread**2, rtol=1e-5)


@pytest.mark.parametrize("cell", [0.5, 3.0, 11.0, 1000.0])
def test_what_a_cell_keeps(cell: float) -> None:
    """Sums by dictionary, cell by cell."""
    fine = some(400, degree=1)
    coarse = coarsen(fine, cell)
    coarse.check()
    cells: dict[tuple, list[int]] = {}
    for n, place in enumerate(fine.positions):
        cells.setdefault(tuple(np.floor(place / cell).astype(int)[[1, 0, 2]]), []).append(n)
    assert len(coarse) == len(cells)
    w = weights(fine)
    np.testing.assert_allclose(weights(coarse).sum(), w.sum(), rtol=1e-6)
    for n, key in enumerate(sorted(cells)):
        rows = cells[key]
        if len(rows) == 1:
            assert same(coarse.take(np.array([n])), fine.take(np.array(rows)))
            continue
        share = w[rows] / w[rows].sum()
        np.testing.assert_allclose(weights(coarse)[n], w[rows].sum(), rtol=1e-5)
        np.testing.assert_allclose(coarse.means[n], share @ fine.means[rows], atol=1e-4)
        np.testing.assert_allclose(coarse.sh[n], np.tensordot(share, fine.sh[rows], 1), atol=1e-5)
        away = fine.means[rows].astype(float) - share @ fine.means[rows]
        spread = np.tensordot(
            share, covariances(fine)[rows] + away[:, :, None] * away[:, None, :], 1
        )
        values, vectors = np.linalg.eigh(spread)
        factor = max(
            1, (w / fine.opacities)[rows].sum() / (2 * np.pi * np.sqrt(values[1] * values[2]))
        )
        np.testing.assert_allclose(coarse.scales[n], np.sqrt(values[[2, 1]] * factor), rtol=1e-4)
        normal = disc_normals(coarse.rotations[n : n + 1])[0]
        assert abs(normal @ vectors[:, 0]) > 0.999
        if abs(share @ disc_normals(fine.rotations[rows]) @ vectors[:, 0]) > 1e-3:
            assert normal @ (share @ disc_normals(fine.rotations[rows])) > 0
        votes = np.bincount(fine.semantic[rows], w[rows])
        assert coarse.semantic[n] == votes.argmax()


def test_levels_do_not_depend_on_the_crop_or_the_anchor() -> None:
    whole = coarsen(plane(), 4.0)
    part = coarsen(crop(plane(), (ANCHOR[0] + 4, ANCHOR[1], ANCHOR[0] + 16, ANCHOR[1] + 8)), 4.0)
    inside = crop(whole, (ANCHOR[0] + 4, ANCHOR[1], ANCHOR[0] + 16, ANCHOR[1] + 8))
    assert same(part, inside)
    moved = coarsen(reanchor(plane(), (690_001.0, 5_540_003.0, 399.0)), 4.0)
    np.testing.assert_allclose(moved.positions, whole.positions, atol=1e-5)


def test_equal_votes_take_the_lowest_class_and_invisible_cells_stay_invisible() -> None:
    pair = plane(2, spacing=0.4).take(np.array([0, 1]))
    tied = coarsen(replace(pair, semantic=np.uint8([9, 4])), 8.0)
    assert tied.semantic.tolist() == [4]
    hidden = coarsen(replace(pair, opacities=np.zeros(2, np.float32)), 8.0)
    assert len(hidden) == 1 and hidden.opacities == 0 and np.isfinite(hidden.means).all()
    hidden.check()
    assert len(coarsen(Gaussians.empty(ANCHOR, "EPSG:32632"), 2.0)) == 0


def test_normals_that_cancel_out_look_up() -> None:
    pair = plane(2, spacing=0.4).take(np.array([0, 1]))
    both = replace(pair, rotations=np.float32([[1, 0, 0, 0], [0, 1, 0, 0]]))  # one up, one down
    np.testing.assert_allclose(disc_normals(coarsen(both, 8.0).rotations), [[0, 0, 1]], atol=1e-6)


def test_what_has_no_level() -> None:
    g = some()
    for cell in (0, -1, math.nan):
        with pytest.raises(SplatError, match="have no size"):
            coarsen(g, cell)
    with pytest.raises(SplatError, match="too many"):
        coarsen(g, 1e-6)
    with pytest.raises(SplatError, match="do not nest"):
        pyramid(g, 1.0, (2, 3))
    with pytest.raises(SplatError, match="do not nest"):
        pyramid(g, 1.0, (0,))
    bad = some()
    bad.scales[0] = 0
    with pytest.raises(SplatError, match="scales"):
        coarsen(bad, 1.0)
