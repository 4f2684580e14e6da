"""The measures of evaluations, compared with cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from earthgen.dataset.crop import transform_crop
from earthgen.dataset.crop_sampler import open_crops
from earthgen.dataset.scene import scenes_in
from earthgen.evaluation.baselines import mean_heights, nearest_tile
from earthgen.evaluation.distances import (
    frechet,
    frechet_of_normals,
    gaussian,
    kernel_distance,
    median_distance,
    polynomial,
)
from earthgen.evaluation.diversity import Seams, borders, crop_on, diversity
from earthgen.evaluation.geometry_features import GEOMETRY_FEATURES, geometry_features, standardise
from earthgen.evaluation.metrics import (
    Agreement,
    Overlap,
    overlap_of_masks,
    overlap_of_voxels,
    wasserstein,
)
from earthgen.evaluation.patch import patch_of_crop, plain_geometry
from earthgen.voxels.voxels import FACES, TOP
from geo_io.errors import InputError
from tests.helpers.dataset_places import village_scene
from tests.helpers.evaluation_places import BUILDING, GRASS, column_patch, dataset, frame


def test_overlaps_by_hand() -> None:
    found = overlap_of_masks(
        np.array([True, True, False, False]), np.array([True, False, True, True])
    )
    assert found == Overlap(both=1, predicted=1, true=2)
    assert found.iou == 1 / 4 and found.f1 == 2 / 5
    assert (found + Overlap(1, 0, 0)).iou == 2 / 5
    assert Overlap().iou == Overlap().f1 == 1


def test_voxels_overlap_by_voxel_and_by_cell() -> None:
    one = np.array([[0, 0, 0], [7, 7, 7], [8, 0, -1]], np.int32)
    other = np.array([[0, 0, 0], [1, 1, 1], [8, 0, -1]], np.int32)
    assert overlap_of_voxels(one, other) == Overlap(2, 1, 1)
    assert overlap_of_voxels(one, other, 8) == Overlap(2, 0, 0)
    assert overlap_of_voxels(one[:0], other) == Overlap(0, 0, 3)
    assert overlap_of_voxels(one[:0], other[:0]).iou == 1


def test_wasserstein_distance_by_hand() -> None:
    assert wasserstein(np.array([0.0, 2.0]), np.array([1.0, 5.0])) == pytest.approx((1 + 3) / 2)
    assert wasserstein(np.array([1.0, 1.0, 4.0]), np.array([1.0, 4.0, 1.0])) == 0
    assert np.isnan(wasserstein(np.zeros(0), np.array([1.0])))


def test_agreement_of_a_world_by_hand() -> None:
    """A true house of 2 x 2 columns, 5 m; made one column to the east, 7 m, with one hole in the
    grass."""
    cover = np.full((8, 8), GRASS, np.uint8)
    cover[2:4, 2:4] = BUILDING
    truth = column_patch(np.where(cover == BUILDING, 5, 0), cover)
    moved = np.roll(cover, 1, axis=1)
    height = np.where(moved == BUILDING, 7, 0)
    height[7, 7] = -1
    made = column_patch(height, moved)
    found = Agreement()
    found.add(made, truth, cover)
    table = found.table()
    assert table["building_iou"] == 2 / 6
    grass = 57 / (57 + 2 + 3)  # 60 true, 59 found with the hole, 57 of them in both
    assert found.class_table() == {"grass": pytest.approx(grass), "building": pytest.approx(1 / 3)}
    assert table["class_iou"] == pytest.approx((grass + 1 / 3) / 2)
    assert table["class_right"] == 59 / 64
    assert table["holes"] == 1 / 64
    assert table["building_w1"] == 2
    # In the 63 columns with a voxel: two houses in both (7 against 5), two made only (7), two true
    # only (5).
    assert table["height_error"] == pytest.approx((2 * 2 + 2 * 7 + 2 * 5) / 63)
    assert table["voxel_iou"] == 57 / (57 + 6 + 7)


def test_what_is_not_valid_or_not_known_does_not_count() -> None:
    cover = np.full((8, 8), GRASS, np.uint8)
    cover[0, 0] = 0
    truth = column_patch(np.zeros((8, 8), int), np.full((8, 8), GRASS, np.uint8))
    truth = truth.only(np.arange(8)[None].repeat(8, 0) < 4)
    made = column_patch(np.where(np.arange(8)[None].repeat(8, 0) < 4, 0, -1))
    found = Agreement()
    found.add(made, truth, cover)
    assert found.table()["holes"] == 0 and found.table()["voxel_iou"] == 1
    assert found.by_class[int(GRASS)] == Overlap(31, 0, 0)


def test_frechet_distance_of_normals_by_formula() -> None:
    """Of diagonal covariances it is the distance of the means, and of the deviations, squared."""
    mean, other = np.array([1.0, 2.0, 0.0]), np.array([0.0, 2.0, 2.0])
    found = frechet_of_normals(mean, np.diag([4.0, 1.0, 0.0]), other, np.diag([1.0, 9.0, 0.25]))
    assert found == pytest.approx(1 + 4 + (2 - 1) ** 2 + (1 - 3) ** 2 + 0.5**2)


def test_frechet_distance_of_normals_that_do_not_commute() -> None:
    """Against scipy's root of a matrix that is not symmetric, as in the definition."""
    from scipy.linalg import sqrtm

    random = np.random.default_rng(0)
    a, b = (m @ m.T for m in random.normal(size=(2, 5, 5)))
    means = random.normal(size=(2, 5))
    expected = np.square(means[0] - means[1]).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_of_normals(means[0], a, means[1], b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_samples() -> None:
    random = np.random.default_rng(1)
    one = random.normal(size=(4000, 3))
    other = random.normal(size=(4000, 3)) * [1, 2, 1] + [0.5, 0, 0]
    assert frechet(one, one[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet(one, other) == pytest.approx(0.25 + 1, rel=0.1)
    # More features than samples: the same number in the space that the samples span.
    wide = np.pad(one[:20], ((0, 0), (0, 60)))
    assert frechet(wide, np.pad(other[:20], ((0, 0), (0, 60)))) == pytest.approx(
        frechet(one[:20], other[:20])
    )


@pytest.mark.parametrize("kernel", [polynomial, gaussian(1.5)], ids=["polynomial", "gaussian"])
@pytest.mark.parametrize("sizes", [(12, 12), (12, 20)], ids=["pairs", "others"])
def test_the_kernel_distance_is_unbiased(kernel: object, sizes: tuple[int, int]) -> None:
    """Of one distribution: 0 on average over many draws, within three standard errors of that
    average."""
    random = np.random.default_rng(2)
    values = [
        kernel_distance(
            random.normal(size=(sizes[0], 4)), random.normal(size=(sizes[1], 4)), kernel
        ).value
        for _ in range(400)
    ]  # type: ignore[arg-type]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0 < max(values)
    apart = [
        kernel_distance(random.normal(size=(40, 4)), random.normal(size=(40, 4)) + 1, kernel)
        for _ in range(3)
    ]  # type: ignore[arg-type]
    assert all(found.low > 0 for found in apart)


def test_the_kernel_distance_by_the_definition() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(5, 2)), random.normal(size=(7, 2))

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return float(np.mean([(a[i] @ b[j] / 2 + 1) ** 3 for i, j in pairs]))

    assert kernel_distance(x, y).value == pytest.approx(
        mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    )
    # As many of each: pairs of one number are left out of the third term too.
    found = kernel_distance(x, y[:5]).value
    assert found == pytest.approx(
        mean(x, x, True) + mean(y[:5], y[:5], True) - 2 * mean(x, y[:5], True)
    )


def test_the_jackknife_by_leaving_out() -> None:
    """The interval, which is computed from sums, against distances that are computed anew
    without each sample."""
    random = np.random.default_rng(4)
    x, y = random.normal(size=(6, 3)), random.normal(size=(6, 3)) + 0.5
    found = kernel_distance(x, y)
    left = np.array(
        [kernel_distance(np.delete(x, i, 0), np.delete(y, i, 0)).value for i in range(6)]
    )
    reach = 1.96 * np.sqrt(5 / 6 * np.square(left - left.mean()).sum())
    assert found.high - found.value == pytest.approx(reach, rel=1e-3)
    y = random.normal(size=(4, 3))
    found = kernel_distance(x, y)
    left_x = np.array([kernel_distance(np.delete(x, i, 0), y).value for i in range(6)])
    left_y = [mean_discrepancy(x, np.delete(y, i, 0)) for i in range(4)]
    variance = (
        5 / 6 * np.square(left_x - left_x.mean()).sum()
        + 3 / 4 * np.square(left_y - np.mean(left_y)).sum()
    )
    assert found.high - found.value == pytest.approx(1.96 * np.sqrt(variance), rel=1e-3)


def mean_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased distance by the polynomial kernel, from the definition."""
    k = polynomial
    within = [(k(a, a).sum() - np.trace(k(a, a))) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(sum(within) - 2 * k(x, y).mean())


def test_the_median_distance_and_too_few_samples() -> None:
    assert median_distance(np.array([[0.0], [1.0], [3.0]])) == 2
    assert median_distance(np.zeros((4, 2))) == 1
    for call in (
        lambda: frechet(np.zeros((1, 2)), np.zeros((5, 2))),
        lambda: kernel_distance(*np.zeros((2, 2, 2))),
    ):
        with pytest.raises(InputError, match="crops"):
            call()


def test_geometry_features_of_one_house() -> None:
    """A house of 4 x 2 columns and 10 m on 16 x 16 columns of level grass."""
    cover = np.full((16, 16), GRASS, np.uint8)
    cover[4:6, 4:8] = BUILDING
    found = dict(
        zip(
            GEOMETRY_FEATURES,
            geometry_features(column_patch(np.where(cover == BUILDING, 10, 0), cover)),
            strict=True,
        )
    )
    assert found["height_0_0.5"] == 248 / 256 and found["height_7_11"] == 8 / 256
    assert found["building_height"] == 10 and found["building_spread"] == 0
    assert found["building_count"] == pytest.approx(1 / 0.0256)
    assert found["building_area"] == found["building_largest"] == pytest.approx(np.log(8))
    assert found["building_edge"] == 12 / 8
    # Of 2 * 15 * 16 pairs, 12 cross a wall.
    assert found["difference_1"] == pytest.approx(12 * 10 / 480)
    assert found["plant_height"] == 0 and found["voxels"] == 1
    # Level ground and a level roof: the walls between them are no roughness.
    assert found["rough_open"] == found["rough_building"] == found["rough_plants"] == 0
    shares = [value for name, value in found.items() if name.startswith("slope_")]
    assert sum(shares) == pytest.approx(1) and len(shares) == 4


def test_features_of_nothing_and_of_what_never_varies() -> None:
    empty = column_patch(np.full((8, 8), -1))
    assert (geometry_features(empty) == 0).all() and len(geometry_features(empty)) == len(
        GEOMETRY_FEATURES
    )
    truth = np.array([[0.0, 5.0], [2.0, 5.0]])
    assert np.allclose(standardise(np.array([[3.0, 6.0]]), truth), [[2.0, 1.0]])


def test_a_patch_is_what_is_seen_from_above(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scene = village_scene(tmp_path)
    crop = scene.crop(scene.frame)
    patch = patch_of_crop(crop)
    assert np.array_equal(patch.cover, crop.cover)
    assert np.array_equal(patch.height, crop.height) and patch.surface is not None
    rounded = replace(patch, surface=None).height
    assert np.abs(rounded - crop.height).max() <= 0.5  # voxels of a metre
    assert patch.covered.all() and patch.splats is not None and len(patch.splats) == len(crop)
    assert patch.colour is not None and np.array_equal(patch.colour, crop.image)
    half = patch.only(np.arange(96)[None].repeat(96, 0) < 48).seen()
    assert 0 < len(half) < len(patch) and half.splats is not None and len(half.splats) == len(half)
    assert not half.covered[:, 48:].any()


def test_open_sides_of_columns_by_hand() -> None:
    """A tower of 3 voxels in the middle of level ground."""
    ground = column_patch(np.zeros((5, 5), int))
    middle = np.array(
        [[640_002, 5_560_002, 0], [640_002, 5_560_002, 1], [640_002, 5_560_002, 2]], np.int32
    )
    xyz = np.concatenate([ground.xyz, middle])
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
    patch = replace(ground, xyz=xyz[order], semantic=np.full(28, GRASS, np.uint8))
    faces = plain_geometry(patch).voxels.faces
    walls = FACES["-x"] | FACES["+x"] | FACES["-y"] | FACES["+y"]
    tower = (patch.xyz[:, :2] == middle[0, :2]).all(axis=1)
    assert faces[tower].tolist() == [0, walls, walls, walls | TOP]
    assert (faces[~tower] == TOP).all()


def test_diversity_by_hand() -> None:
    one, other = column_patch(np.zeros((8, 8), int)), column_patch(np.full((8, 8), 3))
    found = diversity([one, other, other], one)
    assert found["height_share"] == 1 and found["voxels_share"] == 1
    assert diversity([one, other], column_patch(np.full((8, 8), 7)))["height_share"] == 3 / 5.5
    assert found["voxels"] == pytest.approx(2 / 3) and found["height"] == 2
    assert np.isnan(found["building_height"]) and np.isnan(found["colour"])
    assert diversity([one, one], one)["voxels"] == 0
    assert all(np.isnan(value) for value in diversity([one], one).values())


def test_a_step_at_the_border_is_a_seam() -> None:
    """Heights that rise by 1 m in each column, and by 5 where windows of 8 voxels meet."""
    x = np.arange(640_004, 640_020)
    rising = np.cumsum(np.where(x % 8 == 0, 5, 1))[None].repeat(16, 0)
    where = frame(16, x=640_004)
    found = Seams(half=4)
    for north in (0, 160):
        found.add(
            column_patch(rising, where=replace(where, y=(5_560_001 + north, 5_560_017 + north))), 8
        )
    ratio = found.ratios()["height"]
    assert ratio.value == pytest.approx(5)
    # Any other line: jumps of 1 where 2 of the 13 or 14 lines elsewhere jump by 5.
    assert ratio.low == pytest.approx(13 / (2 * 5 + 11)) and ratio.high == pytest.approx(
        14 / (2 * 5 + 12), rel=0.05
    )
    assert np.isnan(found.ratios()["colour"].value)


def test_what_has_no_windows_has_no_seams() -> None:
    random = np.random.default_rng(5)
    found = Seams(half=4)
    for number in range(20):
        where = frame(16, x=640_004 + 16 * number)
        found.add(column_patch(random.integers(0, 9, (16, 16)), where=where), 8)
    ratio = found.ratios()["height"]
    assert ratio.low < 1 < ratio.high and ratio.low - 0.1 < ratio.value < ratio.high + 0.1
    level = Seams(half=4)
    level.add(column_patch(np.arange(16)[None].repeat(16, 0), where=frame(16, x=640_004)), 8)
    assert level.ratios()["height"].value == level.ratios()["height"].high == 1
    assert np.isnan(Seams().ratios()["height"].value)


def test_borders_lie_where_windows_meet(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scene = village_scene(tmp_path)
    cells = np.ones((12, 12), bool)
    found = borders(scene, cells, 40, (-16, 112), half=8, along=32, most=99)
    assert {border.frame.shape for border in found} == {(32, 16), (16, 32)}
    for border in found:
        axis = border.frame.x if border.frame.nx == 16 else border.frame.y
        assert (axis[0] + 8) % 40 == 0
    assert len(borders(scene, cells, 40, (-16, 112), half=8, along=32, most=3)) == 3
    cells[:, :6] = False
    kept = borders(scene, cells, 40, (-16, 112), half=8, along=32, most=99)
    assert kept and all(border.frame.x[0] >= scene.frame.x[0] + 48 - 4 for border in kept)


def test_a_crop_beside_the_cells(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scene = village_scene(tmp_path)
    whole = scene.crop(scene.frame)
    part = replace(scene.frame, x=(640_003, 640_030), y=(5_560_009, 5_560_050))
    found = crop_on(scene, part)
    rows, cols = scene.frame.slices(part)
    assert found.frame == part and np.array_equal(found.cover, whole.cover[rows, cols])
    assert np.array_equal(patch_of_crop(found).height, patch_of_crop(whole).height[rows, cols])


def test_the_nearest_tile_finds_a_turned_training_crop(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scenes = scenes_in(dataset(tmp_path / "data"))
    training = open_crops(scenes, size=32, part="train")
    finder = nearest_tile(training)
    for number, turns, flip in ((0, 1, False), (4, 3, True), (7, 0, True)):
        wanted = transform_crop(training[number], turns, flip)
        found = finder.find(wanted)
        assert found[3] == 1.0
        again = transform_crop(training[found[0]], found[1], found[2])
        assert np.array_equal(again.cover, wanted.cover)
    there = open_crops(scenes, size=32, part="held_out")[3]
    patch = finder.patch(there)  # the villages are alike
    assert patch.frame == there.frame and np.array_equal(patch.cover, there.cover)
    assert np.array_equal(patch.xyz, there.xyz)


def test_mean_heights_by_class(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scenes = scenes_in(dataset(tmp_path / "data"))
    training = open_crops(scenes, size=32, part="train")
    means = mean_heights(training)
    cover, height = scenes[0].layer("cover"), scenes[0].layer("height")
    assert means.height[BUILDING] == pytest.approx(height[cover == BUILDING].mean(), rel=1e-5)
    image = scenes[0].layer("image")
    assert np.abs(means.colour[GRASS] - image[cover == GRASS].mean(axis=0)).max() <= 0.5
    crop = open_crops(scenes, size=32, part="held_out")[0]
    patch = means.patch(crop)
    assert np.array_equal(patch.cover, crop.cover)
    assert len(np.unique(patch.height[crop.cover == BUILDING])) == 1
