"""Figures of objects and intervals over places, compared with cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student

from earthgen.evaluation.distances import interval_over_places, over_places
from earthgen.evaluation.objects import (
    ObjectSums,
    crown_diameters,
    figures_of_objects,
    inner_columns,
    measure_objects,
    needles,
    open_below,
    plane_residuals,
    squares_within,
)
from earthgen.evaluation.patch import Patch
from earthgen.evaluation.settings import CELL
from geo_io.legend import codes
from tests.helpers.evaluation_places import BUILDING, GRASS, column_patch

TREE = codes()["tree"]


def house(size: int = 16, low: int = 2, high: int = 14) -> NDArray:
    """Number 1 on a square of columns, 0 around."""
    number = np.zeros((size, size), np.int64)
    number[low:high, low:high] = 1
    return number


def house_patch(height: NDArray, told: float = 10.0) -> Patch:
    """A patch of grass with the house, whose heights are exact, in metres."""
    number = house(len(height))
    cover = np.where(number > 0, BUILDING, GRASS).astype(np.uint8)
    patch = column_patch(np.where(number > 0, 10, 1), cover)
    return replace(
        patch,
        surface=np.where(number > 0, height, 0).astype(np.float32),
        building=number,
        building_height=np.where(number > 0, told, 0).astype(np.float32),
    )


def test_slopes_are_planes_and_a_ridge_is_none() -> None:
    """A gabled roof, 1 m down per metre from a ridge along column 8: in the five rows of a window
    with the ridge in its middle the heights are -2, -1, 0, -1, -2 and the plane is their mean,
    -1.2: residuals 0.8, 0.2, 1.2, 0.2, 0.8, mean 0.64. With the ridge a column off the middle they
    are -1, 0, -1, -2, -3 with the plane -1.4 - 0.6 x: residuals 0.8, 0.8, 0.4, 0, 0.4."""
    col = np.arange(16)[None].repeat(16, 0).astype(np.float32)
    inner = inner_columns(house())
    assert (inner > 0).sum() == 10 * 10, "the outermost ring is left out"
    shed = plane_residuals(10 + 0.7 * col, inner)
    assert len(shed) == 6 * 6 and np.allclose(shed, 0, atol=1e-6)  # heights are float32
    gable = plane_residuals(10 - np.abs(col - 8), inner).reshape(6, 6)
    # Middles of windows are columns 5 to 10.
    assert np.allclose(gable[0], [0, 0, 0.48, 0.64, 0.48, 0])
    assert np.allclose(gable, gable[0])


def test_a_plane_lies_within_one_building() -> None:
    number = house()
    number[:, 8:] *= 2  # two houses side by side, the second 6 m lower
    height = np.where(number == 1, 10.0, 4.0)
    assert np.allclose(plane_residuals(height, inner_columns(number)), 0)
    assert len(plane_residuals(height, inner_columns(number))) == 0, "each is six columns wide"
    joined = plane_residuals(height, inner_columns(np.minimum(number, 1)))
    assert joined.max() > 1, "a step inside one roof is rough"
    assert len(plane_residuals(height[:4, :4], number[:4, :4])) == 0


def test_spread_within_buildings() -> None:
    """Two buildings of nine columns: 0 and 6 m around their means, and squares of 1 around each."""
    number = np.array([[1] * 9, [2] * 9, [0] * 9, [3] * 2 + [0] * 7])
    values = np.zeros((4, 9, 1))
    values[0, :, 0] = [4, 6, 4, 6, 4, 6, 4, 6, 5]  # mean 5, squares 8
    values[1, :, 0] = 11
    assert squares_within(values, number) == (8.0, 18.0), "the third is too small"
    assert squares_within(values, np.zeros_like(number)) == (0.0, 0.0)
    sums = ObjectSums({"roof_spread": (8.0, 18.0)})
    assert figures_of_objects([sums, sums])["roof_spread"] == pytest.approx((8 / 18) ** 0.5)


def test_needles_stand_above_their_building() -> None:
    number = house()
    told = np.where(number > 0, 10.0, 0.0)
    height = np.where(number > 0, 9.0, 0.0)
    height[5, 5], height[7, 7] = 13.5, 12.9
    found = needles(height, number, told)
    assert found.sum() == 1 and found[5, 5]
    # A building that is 5 m too tall as a whole has no needle; one column above it is one.
    height = np.where(number > 0, 15.0, 0.0)
    height[6, 6] = 18.5
    assert np.argwhere(needles(height, number, told)).tolist() == [[6, 6]]
    assert not needles(np.full((16, 16), 50.0), np.zeros_like(number), told).any()


def test_objects_of_a_world_against_the_truth() -> None:
    flat = np.full((16, 16), 10.0)
    truth = house_patch(flat + np.indices((16, 16))[1] % 2)  # 10 and 11 m in turn
    made = replace(house_patch(flat), building=None, building_height=None)
    spiky = flat.copy()
    spiky[4, 4] = 30.0
    figures = {
        name: figures_of_objects([measure_objects(patch, truth)], [measure_objects(truth, truth)])
        for name, patch in {
            "truth": truth,
            "flat": made,
            "spiky": replace(made, surface=spiky.astype(np.float32)),
        }.items()
    }
    assert figures["truth"]["roof_spread"] == pytest.approx(0.5)
    assert figures["truth"]["roof_residual_ratio"] == figures["truth"]["roof_spread_ratio"] == 1
    # Rows of a window are 0, 1, 0, 1, 0 or the other way: the plane is level at 0.4 or 0.6.
    assert figures["truth"]["roof_residual"] == pytest.approx((3 * 0.4 + 2 * 0.6) / 5)
    assert figures["flat"]["roof_residual_ratio"] == pytest.approx(0, abs=1e-9)
    assert figures["flat"]["needles"] == figures["flat"]["roof_spread_ratio"] == 0
    assert figures["spiky"]["needles"] == figures["spiky"]["above_25"] == pytest.approx(1 / 144)
    assert figures["spiky"]["roof_residual"] > 0
    assert np.isnan(figures["flat"]["roof_colour"]) and np.isnan(figures["flat"]["crown_w1"])
    tower = house_patch(np.full((16, 16), 40.0), told=40.0)
    alone = figures_of_objects([measure_objects(tower, tower)], [measure_objects(tower, tower)])
    assert np.isnan(alone["above_25"]), "where the truth has tall buildings they are no error"
    assert alone["needles"] == 0


def test_colours_of_a_roof() -> None:
    """Half of the columns of a roof 20 lighter than the other half, in all channels."""
    from earthgen.evaluation.patch import plain_splats

    truth = house_patch(np.full((16, 16), 10.0))
    col = truth.xyz[:, 0] - truth.frame.x[0]
    rgb = np.where(col % 2, 120, 100)[:, None].repeat(3, 1)
    truth = replace(truth, splats=plain_splats(truth, rgb))
    plain = replace(truth, splats=plain_splats(truth, np.full_like(rgb, 90)))
    known = np.ones((16, 16), bool)
    sums = measure_objects(truth, truth, known)
    found = figures_of_objects([sums], [sums])
    assert found["roof_colour"] == pytest.approx(10 / 255, abs=1e-3)
    assert found["roof_colour_ratio"] == 1
    even = figures_of_objects([measure_objects(plain, truth, known)], [sums])
    assert even["roof_colour_ratio"] == pytest.approx(0, abs=1e-3)
    unknown = figures_of_objects([measure_objects(plain, truth)], [measure_objects(truth, truth)])
    assert unknown["roof_colour"] == pytest.approx(0, abs=1e-3)
    assert np.isnan(unknown["roof_colour_ratio"])


def test_a_crown_has_air_below_it_and_a_curtain_has_none() -> None:
    """Trees of 6 m on two columns: of the first there are the top, the base and the ground; of the
    second all voxels down to the ground."""
    cover = np.full((8, 8), GRASS, np.uint8)
    cover[2, 2] = cover[5, 5] = TREE
    height = np.zeros((8, 8), int)
    height[2, 2] = height[5, 5] = 6
    patch = column_patch(height, cover)
    row, col = 2, 2
    crown = [[col, row, z] for z in (-1, 3)]
    curtain = [[5, 5, z] for z in (0, 1, 2, 3, 4)]
    more = np.array(crown + curtain)
    xyz = np.column_stack(
        [patch.frame.x[0] + more[:, 0], patch.frame.y[1] - 1 - more[:, 1], more[:, 2]]
    )
    xyz = np.concatenate([patch.xyz, xyz]).astype(np.int32)
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
    semantic = np.concatenate([patch.semantic, np.full(len(more), TREE, np.uint8)])
    patch = replace(patch, xyz=xyz[order], semantic=semantic[order])
    assert open_below(patch)[2, 2] and not open_below(patch)[5, 5]
    assert figures_of_objects([measure_objects(patch, patch)])["crown_gaps"] == 1 / 2


def test_crowns_are_told_apart_by_their_tops() -> None:
    """Two cones of radius 5 m that do not touch, and one at the edge, which does not count."""
    row, col = np.mgrid[0:40, 0:40]
    height = np.zeros((40, 40), np.float32)
    for r, c in ((10, 10), (10, 24), (30, 0)):
        height = np.maximum(height, 12 - 1.5 * np.hypot(row - r, col - c))
    tall = height >= 4.5  # within 5 m of a top
    found = crown_diameters(height, tall, 1.0)
    disc = int((np.hypot(row - 10, col - 10) <= 5).sum())
    assert found.tolist() == pytest.approx([2 * (disc / np.pi) ** 0.5] * 2)
    assert len(crown_diameters(height, np.zeros_like(tall), 1.0)) == 0
    # Two tops in one wood: the valley between them parts it.
    wood = np.maximum(12 - np.abs(col - 13.0), 12 - np.abs(col - 25.0)).astype(np.float32)
    inside = (row > 4) & (row < 36) & (col > 8) & (col < 30)
    assert len(crown_diameters(np.where(inside, wood, 0), inside, 1.0)) >= 2


def test_the_jackknife_of_two_places_by_hand() -> None:
    """Values 2 and 6 without each of two places: their mean is 4, the variance 1/2 (4 + 4) = 4, and
    Student's t of one degree of freedom is 12.7."""
    low, high = interval_over_places(3.5, [2.0, 6.0]) or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(2 * 12.7062, rel=1e-5)
    assert (high + low) / 2 == pytest.approx(3.5)
    assert interval_over_places(3.5, [2.0]) is None
    assert interval_over_places(3.5, [2.0, float("nan")]) is None
    assert interval_over_places(float("nan"), [2.0, 6.0]) is None


def test_intervals_are_over_places_and_not_over_crops() -> None:
    """Of a mean, the jackknife over places of one crop each is the usual standard error."""
    values = np.array([1.0, 4.0, 2.0, 9.0])

    def mean(use: list[int]) -> dict[str, float]:
        return {"mean": float(values[use].mean())}

    found, ends = over_places(mean, [0, 1, 2, 3])
    error = values.std(ddof=1) / 2
    assert found["mean"] == 4
    assert ends["mean"] is not None
    assert ends["mean"][1] - 4 == pytest.approx(student.ppf(0.975, 3) * error)
    # Twice the same crops are no more places.
    values = np.repeat(values, 2)
    assert over_places(mean, [0, 0, 1, 1, 2, 2, 3, 3])[1]["mean"] == pytest.approx(ends["mean"])
    assert over_places(mean, [5] * 8)[1] == {"mean": None}


def test_crops_have_whole_cells() -> None:
    from earthgen.dataset import crop

    assert crop.CELL == CELL
