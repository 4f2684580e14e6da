"""What the flow of heights is told about buildings: the map's heights, else one draw for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely

from earthgen.models.roofs import FLAT, GABLED, HIPPED
from earthgen.noise.philox import Noise
from earthgen.testing.worlds import village
from earthgen_latent.buildings import plot_heights, told_buildings
from earthgen_latent.roofs import settle_roofs, told_roofs
from earthgen_latent.usual_heights import building_heights, stand_heights
from geo_io.frame import Frame
from geo_io.layers import ACROSS, ROOF_NUMBER, Buildings
from geo_io.legend import codes
from geo_io.semantics.rasterize import paint

FRAME = Frame("EPSG:32632", 1.0, (341_000, 341_096), (2_769_000, 2_769_064))
B = codes()["building"]


def scene(frame: Frame):  # type: ignore[no-untyped-def]
    """A village with two houses of told height and one turned house without."""
    x, y = 341_020.0, 2_769_020.0
    turned = shapely.affinity.rotate(shapely.box(x + 40, y, x + 60, y + 10), 30)
    shapes = [shapely.box(x, y, x + 16, y + 8), shapely.box(x, y + 20, x + 8, y + 30), turned]
    buildings = Buildings(
        np.array(shapes, object), np.array([7.5, 22.0, np.nan]), np.array([11, 12, 13], np.uint64)
    )
    cover = np.where(
        paint(frame, buildings.footprint, np.full(3, B, np.uint8), 1) == B, B, codes()["grass"]
    )
    return replace(village(frame), cover=cover.astype(np.uint8), buildings=buildings)


def test_heights_are_told_or_drawn_once_and_axes_follow_the_footprint() -> None:
    layer = scene(FRAME)
    told, objects, _ = told_buildings(FRAME, layer, layer.cover, Noise(3))
    built = layer.cover == B
    assert (told[~built] == 0).all() and (objects[~built] == 0).all()
    values = np.unique(told[built])
    assert len(values) == 3 and {7.5, 22.0} <= set(values.tolist())
    (drawn,) = set(values.tolist()) - {7.5, 22.0}
    assert 3.5 <= drawn <= 26, "an area of 200 m2"
    # The turned house is as long and wide as it is: 20 m by 10 m.
    house = told == np.float32(drawn)
    assert objects[house][:, 3] == pytest.approx(1.0, abs=1e-3)
    assert objects[house][:, 4] == pytest.approx(1.0, abs=1e-3)
    assert objects[house][:, 1].max() == pytest.approx(1.0, abs=0.06)
    assert objects[house][:, 2].max() == pytest.approx(1.0, abs=0.12)


def test_a_window_sees_the_same_as_the_whole() -> None:
    layer = scene(FRAME)
    told, objects, _ = told_buildings(FRAME, layer, layer.cover, Noise(3))
    part = replace(FRAME, x=(FRAME.x[0] + 24, FRAME.x[1]), y=(FRAME.y[0] + 8, FRAME.y[1]))
    cut = scene(part)
    again, maps, _ = told_buildings(part, cut, cut.cover, Noise(3))
    inside = FRAME.slices(part)
    assert np.array_equal(told[inside], again)
    # Distances to edges may be cut off at the border of the window; axes are whole.
    assert np.array_equal(objects[inside][..., 1:7], maps[..., 1:7])


def test_heights_follow_area_and_town_and_seeds_differ() -> None:
    area, key = np.array([20.0, 200.0, 1800.0]), np.array([1, 2, 3], np.uint64)
    half, country = np.full(3, 0.5), np.zeros(3)
    draws = np.array(
        [building_heights(area, country, key, half, Noise(seed)) for seed in range(60)]
    )
    low, middle, high = np.median(draws, 0)
    assert low < middle < high and len(np.unique(draws)) == draws.size
    town = building_heights(area, np.ones(3), key, half, Noise(0))
    assert (town > 1.5 * draws[0]).all(), "the same draw"
    part = building_heights(area[1:], country[1:], key[1:], half[1:], Noise(0))
    assert np.array_equal(draws[0, 1:], part)


def test_a_house_is_higher_in_a_town_in_any_window() -> None:
    frame = replace(FRAME, x=(341_000, 341_300), y=(2_769_000, 2_769_300))
    houses = [
        shapely.box(341_000.0 + x, 2_769_000.0 + y, 341_010.0 + x, 2_769_010.0 + y)
        for x in range(2, 290, 13)
        for y in range(2, 290, 13)
        if x < 150 or (x, y) == (275, 145)
    ]
    none = np.full(len(houses), np.nan)
    buildings = Buildings(np.array(houses, object), none, np.full(len(houses), 7, np.uint64))
    cover = paint(frame, buildings.footprint, np.full(len(houses), B, np.uint8), 1)
    layer = replace(village(frame), cover=cover, buildings=buildings)
    told, _, _ = told_buildings(frame, layer, cover, Noise(3))
    assert told[150, 280] < 0.7 * told[150:160, 60:80].max(), "the same key, so the same draw"
    part = replace(frame, x=(341_020, 341_180))
    inside = frame.slices(part)
    seen = replace(layer, frame=part, cover=np.ascontiguousarray(cover[inside]))
    again, _, _ = told_buildings(part, seen, seen.cover, Noise(3))
    assert np.array_equal(told[inside][60:-60, 60:-60], again[60:-60, 60:-60])


def test_stands_have_one_height_and_those_of_woods_are_higher() -> None:
    frame = replace(FRAME, x=(341_000, 341_400), y=(2_769_000, 2_769_400))
    cover = np.full(frame.shape, codes()["grass"], np.uint8)
    cover[:200] = codes()["tree"]
    cover[250::40, ::40] = codes()["tree"]
    medians = []
    for seed in range(12):
        told = stand_heights(frame, cover, Noise(seed))
        assert (told[cover == codes()["grass"]] == 0).all()
        wood, single = told[20:180], told[250:][told[250:] > 0]
        assert wood.min() >= 6 and wood.max() <= 26 and single.min() >= 2.5
        medians.append((np.median(wood), np.median(single)))
    wood, single = np.median(medians, 0)
    assert wood > 1.3 * single and len(np.unique(medians)) == 24
    part = replace(frame, x=(341_050, 341_340), y=(2_769_040, 2_769_390))
    inside = frame.slices(part)
    again = stand_heights(part, cover[inside], Noise(11))
    assert np.array_equal(told[inside][48:-48, 48:-48], again[48:-48, 48:-48])


def test_told_roofs_settle_but_for_what_differs_much() -> None:
    told, roof = np.full((1, 4), 10, np.float32), np.array([[2, 2, 2, np.nan]], np.float32)
    height = np.array([[8.5, 11.0, 3.0, 3.3]], np.float32)
    border = np.array([[False, False, True, True]])
    settled = settle_roofs(height, told, roof, border)
    np.testing.assert_allclose(settled, [[8.0, 10.3, 7.7, 3.3]], atol=1e-5)


def test_roofs_follow_the_map_and_are_drawn_once_elsewhere() -> None:
    buildings = scene(FRAME).buildings
    form = buildings.form.copy()
    form["roof"] = [ROOF_NUMBER["gabled"], ROOF_NUMBER["flat"], ROOF_NUMBER["skillion"]]
    form["roof_angle"] = [45, np.nan, np.nan]
    form["roof_height"] = [np.nan, 3, 2]
    mapped = replace(buildings, form=form)
    half = np.array([[8, 4], [5, 4], [10, 5]], float)
    near = np.full(3, 0.4)
    found = told_roofs(mapped, np.array([12.0, 22, 9]), half, near, Noise(1))
    assert found["kind"].tolist() == [GABLED, FLAT, -1]
    assert found["slope"][0] == pytest.approx(1.0)
    assert found["depth"] == pytest.approx([4, 4, 5], abs=0.2)

    form["roof_height"][0] = 3.0  # metres say more than degrees
    found = told_roofs(replace(buildings, form=form), np.array([12.0, 22, 9]), half, near, Noise(1))
    assert found["slope"][0] == pytest.approx(3 / 4)
    form["roof_orientation"][0] = ACROSS
    found = told_roofs(replace(buildings, form=form), np.array([12.0, 22, 9]), half, near, Noise(1))
    assert found["turned"][0] and found["slope"][0] == pytest.approx(3 / 8)

    kinds = []
    for seed in range(40):
        drawn = told_roofs(buildings, np.array([7.5, 40.0, 9]), half, near, Noise(seed))
        last = buildings.take(np.array([2]))
        one = told_roofs(last, np.array([9.0]), half[2:], near[2:], Noise(seed))
        assert one["kind"][0] == drawn["kind"][2] and one["slope"][0] == drawn["slope"][2]
        kinds.append(drawn["kind"])
    assert set(np.array(kinds)[:, 0].tolist()) == {FLAT, GABLED, HIPPED}
    assert set(np.array(kinds)[:, 1].tolist()) == {FLAT}, "a tower"


def test_a_roof_falls_from_its_ridge_to_the_eaves() -> None:
    layer = scene(FRAME)
    form = layer.buildings.form.copy()
    form["roof"][2], form["eaves"][2] = ROOF_NUMBER["gabled"], 6.0
    buildings = replace(layer.buildings, form=form, height=np.array([7.5, 22.0, 9.0]))
    told, objects, roof = told_buildings(
        FRAME, replace(layer, buildings=buildings), layer.cover, Noise(3)
    )
    house = told == 9
    assert np.isnan(roof[layer.cover != B]).all() and np.isfinite(roof[house]).all()
    # 3 m over half a width of 5 m.
    np.testing.assert_allclose(roof[house], 0.6 * 5 * objects[house][:, 2], atol=0.02)
    assert 2 < roof[house].max() <= 3


def test_a_town_without_footprints_is_higher_than_a_hamlet_in_any_window() -> None:
    frame = replace(FRAME, x=(341_000, 341_400), y=(2_769_000, 2_769_400))
    built = np.zeros(frame.shape, bool)
    built[:200] = True
    built[300:310, ::60] = built[300:310, 1::60] = built[300:310, 2::60] = True
    heights = plot_heights(frame, built, Noise(1))
    town, hamlet = heights[40:120, 100:300], heights[300:310][built[300:310]]
    assert town.min() >= 7.3 and town.max() <= 28.4 and len(np.unique(town)) > 10
    assert hamlet.min() >= 4.0 and hamlet.max() <= 13.5 and town.mean() > 1.4 * hamlet.mean()
    part = frame.intersection(replace(frame, x=(341_080, 341_330), y=(2_769_050, 2_769_390)))
    assert part is not None
    where = frame.slices(part)
    again = plot_heights(part, built[where], Noise(1))
    assert np.array_equal(again[85:-85, 85:-85], heights[where][85:-85, 85:-85])
