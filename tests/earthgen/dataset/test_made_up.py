"""Made-up places: a function of seed and kind, on the lattice, with what each kind promises."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from earthgen.dataset.made_up import CRS, KINDS, LAYOUTS, PITCH, make_place
from earthgen.errors import UnknownNameError
from geo_io.legend import classes

NAMES = {land.name for land in classes()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_is_a_function_of_seed_and_kind(kind: str) -> None:
    one, again, other = make_place(3, kind, 256), make_place(3, kind, 256), make_place(4, kind, 256)
    assert one.land.equals(again.land) and one.buildings.equals(again.buildings)
    assert one.roads.equals(again.roads) and one.ground.identical(again.ground)
    assert not shapely.box(*one.bounds).intersects(shapely.box(*other.bounds))
    assert one.land.crs == CRS and set(one.land["class"]) <= NAMES
    area = shapely.box(*one.bounds)
    assert shapely.union_all(one.land.geometry).covers(area), "no land is without a class"
    assert one.land.geometry.is_valid.all() and one.buildings.geometry.is_valid.all()
    assert one.ground.rio.crs == CRS and np.isfinite(one.ground.values).all()
    left, bottom, right, top = one.ground.rio.bounds()
    assert shapely.box(left, bottom, right, top).covers(area.buffer(100)), "rules look around"


def test_houses_keep_their_right_angles_and_streets_bend() -> None:
    place = make_place(1, "suburb", 512)
    assert len(place.buildings) > 100
    for house in place.buildings.geometry:
        corners = np.array(house.exterior.coords)
        sides = np.diff(corners, axis=0)
        turns = (sides[:-1] * sides[1:]).sum(axis=1) / (
            np.hypot(*sides[:-1].T) * np.hypot(*sides[1:].T)
        )
        assert np.minimum(np.abs(turns), np.abs(np.abs(turns) - 1)).max() < 1e-6
    # A street that is not straight is longer than the distance of its ends.
    lengths = shapely.length(place.roads.geometry)
    ends = [
        shapely.Point(line.coords[0]).distance(shapely.Point(line.coords[-1]))
        for line in place.roads.geometry
    ]
    assert float(np.max(lengths - np.array(ends))) > 0.1


def test_towns_are_built_and_woods_are_not() -> None:
    def built(kind: str) -> float:
        place = make_place(2, kind, 512)
        area = shapely.box(*place.bounds)
        return float(place.buildings.geometry.intersection(area).area.sum()) / (area.area)

    assert built("town") > 0.15 > 0.05 > built("village") > built("woods")


def test_every_layout_of_a_kind_exists_and_an_unknown_kind_is_named() -> None:
    assert {name for kind in KINDS.values() for name in kind.layouts} == set(LAYOUTS)
    with pytest.raises(UnknownNameError, match="unknown kind of place 'city'"):
        make_place(0, "city")
    assert PITCH % 512 == 0, "places begin where windows do"
