"""Which building stands where footprints overlap."""

from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Polygon, box

from geo_io.frame import Frame
from geo_io.layers import ROOF_SHAPES, Semantics
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics
from tests.helpers.roof_places import castle, roof_gallery

X, Y = 500000.0, 5500000.0
FRAME = Frame("EPSG:32632", 1.0, (500000, 500200), (5500000, 5500120))
OSM = next(each for each in builtin_crosswalks() if each.name == "osm")
OPTIONS = SemanticsOptions(legends=(OSM,))


def source(*rows: tuple[Polygon, dict[str, object]]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        [
            {"building": None, **tags, "geometry": shapely.affinity.translate(shape, X, Y)}
            for shape, tags in rows
        ],
        geometry="geometry",
        crs=FRAME.crs,
    )


def read(*sources: gpd.GeoDataFrame, window: Frame = FRAME) -> Semantics:
    return open_semantics(list(sources), FRAME, OPTIONS).read(window)


def heights_at(found: Semantics, x: float, y: float) -> list[float]:
    """Heights of the buildings at a place, in painting order."""
    place = shapely.Point(X + x, Y + y)
    return found.buildings.height[shapely.intersects(found.buildings.footprint, place)].tolist()


YES, PART = {"building": "yes"}, {"building:part": "yes"}


def test_an_outline_is_not_built_where_its_parts_are() -> None:
    whole, west, east = box(10, 10, 50, 40), box(10, 10, 30, 40), box(30, 10, 50, 40)
    for order in (1, -1):
        rows = [(whole, YES | {"height": 40}), (west, PART | {"height": 8}),
            (east, PART | {"height": 40})][::order]  # fmt: skip
        found = read(source(*rows))
        assert heights_at(found, 20, 20) == [8] and heights_at(found, 40, 20) == [40]
        assert all(site.equals(shapely.affinity.translate(whole, X, Y))
            for site in found.buildings.site)  # fmt: skip
    # Parts of a part of it: the outline stands elsewhere.
    found = read(source(*rows[-1:], (east, PART | {"height": 9})))
    assert heights_at(found, 20, 20) == [40] and heights_at(found, 40, 20) == [40, 9]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_sources_that_with_more_detail_stands(order: int) -> None:
    boxes = [box(10 + 30 * k, 10, 28 + 30 * k, 30) for k in range(4)]
    plain = source(*((each, YES) for each in boxes))
    aside = [shapely.affinity.translate(each, 1.4, 0.6) for each in boxes]
    tall = source(*((each, YES | {"height": 25}) for each in aside))
    found = read(*[plain, tall][::order])
    assert found.buildings.height.tolist() == [25] * 4
    # Of the other source nothing is left, not even a sliver of its land cover.
    assert (found.cover == read(tall).cover).all()


def test_of_two_sources_with_equal_detail_the_later_stands() -> None:
    one = source((box(10, 10, 30, 30), YES | {"height": 12}))
    two = source((box(11, 10, 31, 30), YES | {"height": 15}))
    assert read(one, two).buildings.height.tolist() == [15]
    assert read(two, one).buildings.height.tolist() == [12]


def test_of_one_source_the_smaller_stands_in_the_larger() -> None:
    rows = [(box(10, 10, 60, 60), YES | {"height": 8}), (box(20, 20, 30, 30), YES | {"height": 30})]
    for order in (1, -1):
        assert heights_at(read(source(*rows[::order])), 25, 25) == [8, 30]


def test_a_chain_of_overlaps_leaves_no_hole() -> None:
    # The block replaces the right house, but itself yields to the left one.
    houses = source((box(10, 10, 25, 20), YES | {"height": 9}), (box(25, 10, 35, 20), YES))
    block = source((box(10, 10, 35, 20), YES))
    found = read(houses, block)
    assert heights_at(found, 15, 15)[-1] == 9
    assert len(heights_at(found, 30, 15)) == 1


def test_what_hangs_is_no_land_cover_and_takes_nobodys_place() -> None:
    rows = [
        (box(10, 10, 30, 30), YES | {"height": 30}),
        (box(30, 15, 50, 20), {"building": "bridge", "height": 24, "min_height": 18}),
        (box(60, 10, 80, 30), {"building": "roof", "height": 6}),
        (box(90, 10, 110, 30), PART | {"height": 10}),
        (box(90, 10, 110, 30), PART | {"height": 20, "min_height": 10}),
    ]
    found = read(source(*rows))
    assert len(found.buildings) == 5 and len(set(found.buildings.key.tolist())) == 5
    assert found.buildings.hangs.sum() == 3
    built = found.cover[::-1] == codes()["building"]
    assert built[20, 20] and built[20, 100] and not built[17, 40] and not built[20, 70]


def test_an_outline_that_hangs_yields_to_its_parts_too() -> None:
    outline = box(10, 10, 30, 30), {"building": "roof", "height": 20}
    halves = [(box(x, 10, x + 10, 30), PART | {"height": 12, "min_height": 11}) for x in (10, 20)]
    assert read(source(outline, *halves)).buildings.height.tolist() == [12, 12]
    # But a roof above a building of another source stays.
    found = read(source(outline), source((box(10, 10, 30, 30), YES | {"height": 9})))
    assert sorted(found.buildings.height.tolist()) == [9, 20]


def test_ridges_belong_to_complex_roofs() -> None:
    tags = YES | {"height": 12, "roof:shape": "complex"}
    ridge = LineString([(15, 20), (25, 20)])
    rows = [
        (box(10, 10, 30, 30), tags),
        (ridge, {"roof:ridge": "yes"}),
        (box(40, 10, 60, 30), tags),
    ]
    found = read(source(*rows))
    west = np.argsort(shapely.bounds(found.buildings.footprint)[:, 0])
    lines = found.buildings.ridges[west]
    assert lines[1] is None and lines[0].length == pytest.approx(10)


def same(a: Semantics, b: Semantics, inside: shapely.Polygon) -> bool:
    """Whether two windows show the same buildings where they overlap."""
    one, two = (
        each.take(shapely.intersects(each.footprint, inside)) for each in (a.buildings, b.buildings)
    )
    return (
        one.key.tolist() == two.key.tolist()
        and one.form.tobytes() == two.form.tobytes()
        and shapely.equals_exact(one.footprint, two.footprint).all()
        and all((x is None) == (y is None) and (x is None or x.equals(y))
            for x, y in zip([*one.ridges, *one.site], [*two.ridges, *two.site], strict=True))
    )  # fmt: skip


def test_windows_agree_on_buildings() -> None:
    place = roof_gallery()
    shifted = place[place["building"].notna()].translate(2.0, 1.0).to_frame("geometry")
    sources = [place, shifted.assign(building="yes", height=None)]
    frame = replace(FRAME, x=(500000, 500620), y=(5500000, 5500160))
    reader = open_semantics(sources, frame, OPTIONS)
    whole = reader.read(frame)
    assert len(whole.buildings) > 55
    for tx, ty in frame.tiles(97):
        window = frame.tile(tx, ty, 97).intersection(frame)
        part = reader.read(window)
        assert same(part, whole, shapely.box(*window.bounds))
        assert (part.cover == whole.cover[frame.slices(window)]).all()


def test_a_castle_is_built_of_its_parts() -> None:
    rows = gpd.GeoDataFrame(castle(X + 60, Y + 40), geometry="geometry", crs=FRAME.crs)
    found = read(rows)
    assert 28 not in found.buildings.height[~found.buildings.form["part"]]
    assert found.buildings.form["part"].sum() == 9


def test_levels_do_not_count_a_roof_that_is_known() -> None:
    rows = [
        (box(10, 10, 20, 20), YES | {"building:levels": 2, "roof:levels": 1}),
        (box(30, 10, 40, 20), YES | {"building:levels": 2, "roof:height": "5 m"}),
        (box(50, 10, 60, 20), YES | {"building:levels": 2, "roof:shape": "flat"}),
    ]
    found = read(source(*rows)).buildings
    west = np.argsort(shapely.bounds(found.footprint)[:, 0])
    assert found.height[west].tolist() == [9, 11, 7]
    assert found.form["eaves"][west][:2].tolist() == [6, 6]


def test_ridges_and_tips_make_a_roof_complex() -> None:
    rows = [
        (box(10, 10, 30, 20), YES | {"height": 12}),
        (LineString([(12, 15), (28, 15)]), {"roof:ridge": "yes"}),
        (box(40, 10, 60, 30), YES | {"height": 12}),
        (shapely.Point(50, 20), {"roof:apex": "yes"}),
        (box(70, 10, 90, 20), YES | {"height": 12, "roof:shape": "flat"}),
        (LineString([(72, 15), (88, 15)]), {"roof:ridge": "yes"}),
    ]
    found = read(source(*rows)).buildings
    west = np.argsort(shapely.bounds(found.footprint)[:, 0])
    shapes = [ROOF_SHAPES[number] for number in found.form["roof"][west]]
    assert shapes == ["complex", "complex", "flat"]
    assert [line is not None for line in found.ridges[west]] == [True, True, False]
