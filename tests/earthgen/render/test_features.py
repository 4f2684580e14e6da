"""What stands in a world as things: buildings, plants, areas and contours, each once and whole."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from earthgen.render.features.areas import world_areas
from earthgen.render.features.buildings import Building, building_of, outline_of
from earthgen.render.features.contours import _lines, world_contours
from earthgen.render.features.objects import CELL, _together, world_objects
from earthgen.render.features.plants import KINDS, plants_of
from earthgen.world.selection import select
from earthgen.world.world import World
from geo_io.legend import codes
from tests.helpers import mapped_place as place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same place in tiles of another size."""
    return place.make(tmp_path_factory.mktemp("whole"), tile_size=128)


def buildings(world: World, bounds=None) -> list[Building]:
    selection = select(world, bounds, 1)
    found = [
        building_of(cells, 1.0)
        for objects in world_objects(world, selection, buildings=True)
        for cells in objects
    ]
    return sorted(found, key=lambda building: building.name)


def of_house(found: list[Building], outline) -> Building:
    own = [each for each in found if each.outline.intersection(outline).area > 0.5 * outline.area]
    assert len(own) == 1  # once, and not in parts
    return own[0]


def test_buildings_are_measured_whole(mapped_world: World) -> None:
    found = buildings(mapped_world)
    assert len(found) == len(place.HOUSES) + 1
    for name, (outline, height, rise) in place.HOUSES.items():
        house = of_house(found, outline)
        # A cell belongs to a house if its middle does.
        assert house.area == pytest.approx(outline.area, rel=0.04), name
        assert house.roof == ("flat" if name == "ell" else name)
        # The ground within a house rises by up to 1 m, and ridges lie between cells.
        assert house.height == pytest.approx(height, abs=0.5), name
        assert house.eaves == pytest.approx(height - rise, abs=0.8), name
        both = house.outline.intersection(outline).area
        assert both > 0.9 * house.outline.union(outline).area, name
        assert house.outline.is_valid and house.outline.exterior.is_ccw
    gabled, skillion = (of_house(found, place.HOUSES[n][0]) for n in ("gabled", "skillion"))
    # The long side of the gabled house points 20 degrees north of east.
    assert gabled.direction == pytest.approx(70, abs=4)
    assert skillion.direction == pytest.approx(180, abs=15)
    flat = of_house(found, place.HOUSES["flat"][0])
    assert flat.volume == pytest.approx(12 * 160, rel=0.01)
    assert flat.material == "plaster" and flat.roof_material == "gravel" and flat.base == 0
    assert len(gabled.outline.exterior.coords) == 5
    assert len(of_house(found, place.HOUSES["ell"][0]).outline.exterior.coords) == 7


def test_objects_do_not_depend_on_tiles(mapped_world: World, whole: World) -> None:
    for first, second in zip(buildings(mapped_world), buildings(whole), strict=True):
        assert first.name == second.name and first.outline.equals(second.outline)
        assert (first.height, first.volume, first.roof) == (
            second.height,
            second.volume,
            second.roof,
        )


def test_a_part_has_whole_objects(mapped_world: World) -> None:
    """One cell of a house that lies in four tiles is enough."""
    found = buildings(
        mapped_world, (place.WEST + 43, place.SOUTH + 33, place.WEST + 44, place.SOUTH + 34)
    )
    (ell,) = found
    assert ell.area == 280
    assert (
        buildings(mapped_world, (place.WEST + 50, place.SOUTH, place.WEST + 60, place.SOUTH + 9))
        == []
    )


def test_numbers_may_be_shared_by_objects_far_apart() -> None:
    cells = np.zeros(9, CELL)
    cells["number"] = 77
    # Two pieces 5 cells apart, and one 100 cells away.
    cells["x"] = [0, 1, 2, 7, 8, 9, 110, 111, 112]
    assert [len(each) for each in _together([cells], gap=8)] == [6, 3]


@pytest.mark.parametrize("angle", [0, 20, 45, 77])
def test_outlines_have_no_stairs(angle: float) -> None:
    shape = shapely.affinity.rotate(shapely.box(3, 4, 33, 18), angle)
    y, x = (a.ravel() for a in np.mgrid[-20:60, -20:60])
    inside = shapely.contains_xy(shape, x + 0.5, y + 0.5)
    outline = outline_of(x[inside], y[inside], 1.0)
    assert len(outline.exterior.coords) == 5
    assert outline.intersection(shape).area > 0.93 * outline.union(shape).area


def test_plants(mapped_world: World) -> None:
    selection = select(mapped_world, None, 1)
    sets = [plants_of(o, 1.0) for o in world_objects(mapped_world, selection, buildings=False)]
    xy = np.concatenate([plants.xy for plants in sets])
    kinds = [KINDS[k] for plants in sets for k in plants.kind]
    assert sorted(kinds) == ["broadleaf", "broadleaf", "needleleaf"]
    for point, radius, _ in place.TREES.values():
        k = int(np.argmin(np.hypot(*(xy - point.coords[0]).T)))
        assert np.hypot(*(xy[k] - point.coords[0])) < 0.5  # also the one in two tiles
        height, crown, base = (
            np.concatenate([getattr(plants, name) for plants in sets])[k]
            for name in ("height", "crown", "base")
        )
        assert height == pytest.approx(7.0, abs=0.01) and base == pytest.approx(4.0)
        assert crown == pytest.approx(2 * radius, abs=0.5)


def test_areas_are_joined_and_cut(mapped_world: World) -> None:
    selection = select(mapped_world, None, 1)
    road, lake = codes()["road"], codes()["lake"]

    def areas(**edges):
        found = world_areas(mapped_world, selection, {codes()[k]: v for k, v in edges.items()})
        return [each for group in found for each in group]

    (one,) = areas(road=None)  # in two tiles, and below a crown
    assert one.code == road and one.polygon.equals(
        place.ROAD.intersection(shapely.box(*selection.frame.bounds))
    )
    pieces = areas(road=16.0)
    assert len(pieces) == 2 * 5  # its middle lies on a cut, and it crosses four
    assert sum(each.polygon.area for each in pieces) == pytest.approx(4 * 80)
    (water,) = areas(lake=None)
    assert water.code == lake and water.polygon.equals(place.LAKE)


def test_contours_are_whole_and_lie_on_the_ground(mapped_world: World, whole: World) -> None:
    def lines(world: World):
        found = world_contours(world, select(world, None, 1), 0.5)
        return sorted(
            ((each.height, each.line) for group in found for each in group),
            key=lambda item: (item[0], item[1].shape, item[1][:, 0].min()),
        )

    first, second = lines(mapped_world), lines(whole)
    assert len(first) == len(second) > 8
    bounds = shapely.box(*mapped_world.frame.bounds).buffer(-0.75)
    closed = 0
    for (height, line), (other, twin) in zip(first, second, strict=True):
        assert height == other
        assert shapely.linestrings(line).hausdorff_distance(shapely.linestrings(twin)) < 0.3
        off = np.abs(place.terrain(*line.T) - height)
        assert off.max() < 0.05
        if (line[0] == line[-1]).all():
            closed += 1
        else:  # ends only where the world does
            assert not bounds.contains(shapely.points(line[[0, -1]])).any()
    assert closed >= 2


def test_gaps_in_the_ground_end_contours() -> None:
    ground = np.add.outer(np.zeros(6), np.arange(6.0))
    ground[2, 2] = np.nan
    found = _lines(np.arange(6) + 0.5, np.arange(6) + 0.5, ground, 2.0)
    assert found and all(np.isfinite(line).all() for _, line in found)


def test_cells_of_coarse_levels(mapped_world: World) -> None:
    selection = select(mapped_world, None, 4)
    found = list(world_objects(mapped_world, selection, buildings=True))
    assert sum(map(len, found)) == len(place.HOUSES) + 1
