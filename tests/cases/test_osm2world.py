"""The test maps of OSM2World (tests/data/osm2world): classes and heights.

What is expected is built here from the nodes and tags of each map, by the rules of OpenStreetMap:
land lies on the left of a coastline, inner rings are holes, Simple 3D Buildings has the rest.
`SITES` are places that OSM2World's own tests name. Its tests have no map of a bridge.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from numpy.typing import NDArray

from geo_io import Frame, SemanticsOptions, builtin_crosswalks, codes, open_semantics
from geo_io.semantics.reader import SemanticsReader
from tests.helpers import procedural_scene

MAPS = Path(__file__).parents[1] / "data" / "osm2world"
OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())
CODE = codes()


@dataclass
class Map:
    """A map as its XML says: places of nodes in a CRS, and the nodes of ways."""

    path: Path
    crs: str
    nodes: dict[int, tuple[float, float]]
    ways: dict[int, list[int]]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the nodes."""
        places = np.array(list(self.nodes.values()))
        return (*places.min(axis=0), *places.max(axis=0))

    def ring(self, *ways: int) -> shapely.Geometry:
        """The area within ways, one after the other."""
        nodes = [node for way in ways for node in self.ways[way]]
        return shapely.make_valid(shapely.Polygon([self.nodes[node] for node in nodes]))

    def at(self, lat: float, lon: float) -> tuple[float, float]:
        """A place in the CRS."""
        return to_metres(self.crs)(lon, lat)


def to_metres(crs: str):  # type: ignore[no-untyped-def]
    return pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform


def read_map(name: str, crs: str) -> Map:
    root = ET.parse(MAPS / name).getroot()
    place = to_metres(crs)
    return Map(
        MAPS / name,
        crs,
        {
            int(node.attrib["id"]): place(float(node.attrib["lon"]), float(node.attrib["lat"]))
            for node in root.iter("node")
        },
        {
            int(way.attrib["id"]): [int(nd.attrib["ref"]) for nd in way.iter("nd")]
            for way in root.iter("way")
        },
    )


def around(
    crs: str, box: tuple[float, float, float, float], size: float, margin: float = 2.0
) -> Frame:
    west, south, east, north = box
    return Frame(
        crs,
        size,
        (int((west - margin) // size), int(-(-(east + margin) // size))),
        (int((south - margin) // size), int(-(-(north + margin) // size))),
    )


def opened(path: Path, frame: Frame) -> SemanticsReader:
    return open_semantics([str(path)], frame, OPTIONS)


def sure(area: shapely.Geometry, frame: Frame, margin: float) -> tuple[NDArray, NDArray]:
    """The cells that surely lie within an area, and those that surely do not."""
    x, y = np.broadcast_arrays(*procedural_scene.places(frame))
    return (
        shapely.contains_xy(area.buffer(-margin), x, y),
        ~shapely.contains_xy(area.buffer(margin), x, y),
    )


def class_at(reader: SemanticsReader, x: float, y: float) -> int:
    """The class of a place."""
    size = reader.frame.voxel_size
    i, j = int(x // size), int(y // size)
    return int(reader.read(Frame(reader.frame.crs, size, (i, i + 1), (j, j + 1))).cover[0, 0])


FAR = {"north-east": (51.52, 2.27), "south-east": (51.44, 2.27)}
COASTS = {
    # One ring that runs anticlockwise: an island larger than the map's box.
    "coastline_big_island": ([((-81, -79), None)], []),
    # Two such rings.
    "coastline_islands": ([((-83,), None), ((-81, -79), None)], []),
    # The same, a coast that runs south-east with land in the north-east, and one that runs
    # south-west with land in the south-east; both end outside of the box.
    "coastline_islands_and_coast": (
        [
            ((-111,), None),
            ((-113, -115), None),
            ((-117, -107), "north-east"),
            ((-109,), "south-east"),
        ],
        [],
    ),
    # Land between a coast that runs south in the west, and one that runs north in the east. In it
    # a ring that runs clockwise: water, not an island.
    "coastline_multiple_coasts": ([((-81, -83, -131), None)], [(-170,)]),
}
"""Rings of land, closed over a corner where the coast leaves the map, and rings of water."""

SITES = {
    "coastline_big_island": (
        [(51.4946619, 2.1931507)],
        [
            (51.4994015, 2.183386),
            (51.4982682, 2.2522352),
            (51.4590992, 2.2500837),
            (51.4569336, 2.1838825),
        ],
    ),
    "coastline_islands": (
        [(51.4662933, 2.2364075), (51.4780457, 2.2009898)],
        [(51.4815502, 2.2271393), (51.4596942, 2.1930457)],
    ),
    "coastline_islands_and_coast": (
        [
            (51.4957716, 2.2466687),
            (51.456188, 2.2522958),
            (51.4662933, 2.2364075),
            (51.4780457, 2.2009898),
        ],
        [(51.4815502, 2.2271393), (51.4596942, 2.1930457)],
    ),
    "coastline_multiple_coasts": (
        [(51.4730977, 2.2165471)],
        [(51.4654685, 2.2374005), (51.4978323, 2.1844396), (51.4555692, 2.2178711)],
    ),
}
"""Latitude and longitude of land and of water in OSMToMapDataConverterTest."""


@pytest.mark.parametrize("name", COASTS)
def test_coastlines(name: str) -> None:
    drawn = read_map(f"{name}.osm", "EPSG:32631")
    west, south = drawn.at(51.4542208, 2.1811295)  # the <bounds> of all four
    east, north = drawn.at(51.5006218, 2.2549438)
    frame = around(drawn.crs, (west, south, east, north), 40.0, 0.0)
    lands, waters = COASTS[name]
    land = shapely.union_all(
        [
            shapely.make_valid(
                shapely.Polygon(
                    [drawn.nodes[node] for way in ways for node in drawn.ways[way]]
                    + ([drawn.at(*FAR[corner])] if corner else [])
                )
            )
            for ways, corner in lands
        ]
    ).difference(shapely.union_all([drawn.ring(*ways) for ways in waters]))
    reader = opened(drawn.path, frame)
    sea = reader.read(frame).cover == CODE["sea"]
    dry, wet = sure(land, frame, 40.0)
    if name == "coastline_multiple_coasts":
        # Beyond the end of a coast, here south of the box, the map leaves open what is land.
        wet &= sure(shapely.Point(drawn.nodes[-117]).buffer(1400.0), frame, 0.0)[1]
    assert dry.sum() > 1000 and wet.sum() > 1000
    assert sea[wet].all() and not sea[dry].any()
    for places, expected in zip(SITES[name], (False, True), strict=True):
        found = [class_at(reader, *drawn.at(*place)) == CODE["sea"] for place in places]
        assert found == [expected] * len(places)


MULTIPOLYGONS = {
    # Outer ways, inner ways: the same square with two holes, mapped in six ways.
    "mp_two_holes": ((-5,), [(-23,), (-17,)]),
    "mp_two_holes_outer_tagged": ((-5,), [(-23,), (-17,)]),  # the tags are the outer way's
    "mp_two_holes_advanced": ((-97, -100), [(-93, -103), (-95,)]),  # rings of several ways
    "mp_two_holes_advanced2": ((-36, -34), [(-40,), (-32,), (-38,)]),
    "mp_two_holes_touching_inners": ((-36,), [(-32,), (-42,), (-34,)]),  # two make one hole
    "mp_broken": ((-36, -34), [(-38,)]),  # and way -32, which is no ring
}


@pytest.mark.parametrize("name", MULTIPOLYGONS)
@pytest.mark.filterwarnings("error")
def test_multipolygons(name: str) -> None:
    drawn = read_map(f"{name}.osm", "EPSG:32731")
    outer, inner = MULTIPOLYGONS[name]
    if name == "mp_two_holes_advanced2":  # its ways -40 and -32 are one ring, the second backwards
        drawn.ways[-32].reverse()
        inner = [(-40, -32), (-38,)]
    area = drawn.ring(*outer).difference(shapely.union_all([drawn.ring(*each) for each in inner]))
    frame = around(drawn.crs, drawn.box, 0.25)
    reader = opened(drawn.path, frame)
    cover = reader.read(frame).cover
    inside, outside = sure(area, frame, 0.25)
    if name == "mp_broken":  # what lies within the way that is no ring is not said
        inside &= sure(drawn.ring(-32), frame, 0.25)[1]
        (survey,) = reader.survey(frame).sources
        told = "1 outline of an area is not closed, such as relation -42 (highway=service)"
        assert any(told in text for text in survey.warnings)
    assert inside.sum() > 1000 and outside.sum() > 1000
    assert (cover[inside] == CODE["road"]).all()  # highway=service with area=yes
    assert not cover[outside].any()


def heights(reader: SemanticsReader, frame: Frame) -> NDArray:
    """Metres of the surface above the ground, which is level: (ny, nx)."""
    wide = procedural_scene.padded(frame)
    made = procedural_scene.generate(frame, {"semantics": reader.read(wide)})
    x, y, z = made.voxels.xyz.T
    above = np.full(frame.shape, -np.inf)
    tops = (z + 0.5) * frame.voxel_size + made.offset[:, 2]
    np.maximum.at(above, (frame.y[1] - 1 - y, x - frame.x[0]), tops)
    return above


def test_a_hipped_roof_on_two_outlines() -> None:
    """height=15 with roof:height=7: walls of 8 m, and ridges of 15 m over both outlines. Three
    rings are courts."""
    drawn = read_map("mp_two_outer_roof.osm", "EPSG:32637")
    outers = [drawn.ring(-7878), drawn.ring(-7881)]
    courts = shapely.union_all([drawn.ring(way) for way in (-7879, -7877, -7880)])
    frame = around(drawn.crs, drawn.box, 4.0)
    reader = opened(drawn.path, procedural_scene.padded(frame))
    form = reader.read(frame)
    above = heights(reader, frame)
    for outer in outers:
        inside, _ = sure(outer.difference(courts), frame, 4.0)
        assert (form.cover[inside] == CODE["building"]).all()
        assert above[inside].min() > 7.9 and 14.3 < above[inside].max() < 15.1
        rim = inside & ~sure(outer, frame, 9.0)[0]
        assert 8.0 < np.median(above[rim]) < 9.0  # 7 m in half a width of 96 m: 0.3 m a cell
    court, _ = sure(courts, frame, 6.0)
    assert court.sum() > 50 and (form.cover[court] != CODE["building"]).all()
    assert np.median(above[court]) < 1.0


def test_parts_that_are_roofs_alone() -> None:
    """A flat part of 2.8 m in the west; on its south, on a passage in the middle, and on the part
    in the east gabled roofs from 2.8 to 5 m, their ridges along the longer side, from north to
    south. A part with one level of 2.8 m that begins at level 1 begins at 2.8 m."""
    drawn = read_map("issue-203.osm", "EPSG:32632")
    frame = around(drawn.crs, drawn.box, 0.5)
    reader = opened(drawn.path, procedural_scene.padded(frame))
    houses = reader.read(frame).buildings
    assert sorted(houses.form["base"].tolist()) == pytest.approx([0, 0, 2.8, 2.8])
    assert houses.form["part"].all()  # the outline is not built
    above = heights(reader, frame)

    def height(lat: float, lon: float) -> float:
        x, y = drawn.at(lat, lon)
        row, column = frame.y[1] - 1 - int(y // 0.5), int(x // 0.5) - frame.x[0]
        return float(above[row, column])

    flat = height(50.09861, 8.66276)
    assert flat == pytest.approx(2.8, abs=0.3)
    # Half a cell beside the ridge the roof is 0.2 m lower.
    ridges = [
        height(50.09851, (8.6627058 + 8.6628142) / 2),  # south-west
        height(50.09856, (8.6628128 + 8.6629428) / 2),  # middle
        height(50.09856, (8.6629428 + 8.6630622) / 2),  # east
    ]
    assert ridges == pytest.approx([5.0, 5.0, 5.0], abs=0.35)
    assert height(50.09856, 8.662952) == pytest.approx(2.8, abs=0.6)  # the eaves in the east


@pytest.mark.parametrize("name", ["simpleTest01.osm", "simpleTest01.osm.pbf"])
def test_a_house_with_a_court_and_a_road(name: str) -> None:
    drawn = read_map("simpleTest01.osm", "EPSG:32633")
    frame = around(drawn.crs, drawn.box, 1.0)
    reader = opened(MAPS / name, frame)
    made = reader.read(frame)
    inside, outside = sure(drawn.ring(103397).difference(drawn.ring(103399)), frame, 1.0)
    assert (made.cover[inside] == CODE["building"]).all()
    assert not (made.cover[outside] == CODE["building"]).any()
    line = shapely.LineString([drawn.nodes[node] for node in drawn.ways[103380]])
    on_road, _ = sure(line.buffer(2.0, cap_style="flat"), frame, 0.5)
    assert (made.cover[on_road] == CODE["road"]).all()
    (height,) = made.buildings.height  # two levels of 2.5 to 3 m, and a roof that is not mapped
    assert 5 <= height <= 8


def test_an_outline_that_crosses_itself() -> None:
    drawn = read_map("self_intersection.osm", "EPSG:32633")
    frame = around(drawn.crs, drawn.box, 0.5)
    inside, outside = sure(drawn.ring(-170087), frame, 0.5)
    built = opened(drawn.path, frame).read(frame).cover == CODE["building"]
    assert inside.sum() > 5000 and built[inside].all() and not built[outside].any()


def test_areas_of_a_thousand_kilometres() -> None:
    """A wood in a desert, both much larger than the map, and a yard of 5 m in the wood."""
    drawn = read_map("huge_areas.osm", "EPSG:32630")
    yard = (21.879922, -4.147562)
    frame = around(drawn.crs, (*drawn.at(21.8775, -4.1527), *drawn.at(21.8802, -4.1465)), 0.5)
    reader = opened(drawn.path, frame)
    assert class_at(reader, *drawn.at(*yard)) == CODE["road"]
    # The edge of the wood runs through longitude -4.1506 there; it lies in the east.
    assert class_at(reader, *drawn.at(21.8790, -4.1470)) == CODE["mixed_forest"]
    assert class_at(reader, *drawn.at(21.8780, -4.1525)) == CODE["sand"]


def test_what_an_editor_deleted_is_gone() -> None:
    """JOSM keeps deleted elements in its files, with action="delete": here a tree."""
    drawn = read_map("josmTest01.osm", "EPSG:32633")
    frame = around(drawn.crs, drawn.box, 0.5)
    reader = opened(drawn.path, frame)
    made = reader.read(frame)
    assert len(made.trees.xy) == 0
    places = [drawn.nodes[node] for node in drawn.ways[-103231]]
    for a, b in itertools.pairwise(places):
        assert class_at(reader, *np.mean([a, b], axis=0)) == CODE["paved"]


def test_a_road_of_three_nodes() -> None:
    drawn = read_map("validFile.osm", "EPSG:32633")
    frame = around(drawn.crs, drawn.box, 2.0)
    line = shapely.LineString([drawn.nodes[node] for node in drawn.ways[5]])
    cover = opened(drawn.path, frame).read(frame).cover
    on_road, beside = (
        sure(line.buffer(2.0, cap_style="flat"), frame, 0.5)[0],
        sure(line.buffer(6.0), frame, 2.0)[1],
    )
    assert (cover[on_road] == CODE["road"]).all() and not cover[beside].any()


@pytest.mark.parametrize("name", ["josm_emoji.osm", "sameCoordNodes.osm"])
def test_nodes_that_cover_nothing(name: str) -> None:
    """A shop as a point, with an id of 37 bits, and two nodes without tags at one place."""
    drawn = read_map(name, "EPSG:32633")
    frame = around(drawn.crs, drawn.box, 1.0)
    made = opened(drawn.path, frame).read(frame)
    assert not made.cover.any() and len(made.buildings.footprint) == 0


X, Y = 500_000, 5_500_000

OVERHANGS = {
    # Boxes x0, x1 in metres with levels and the level they begin at, all 10 m wide, on an outline
    # of 10 m: testBuildingWithOverhang and testBuildingWithPartOutsideOutline.
    "overhang": [(0, 10, 1, 0), (0, 15, 2, 1)],
    "outside": [(0, 10, 1, 0), (0, 15, 2, 1), (15, 20, 2, 1)],
}


@pytest.mark.parametrize("name", OVERHANGS)
def test_parts_beyond_their_outline(name: str) -> None:
    """What stands out of the outline hangs in the air, one level above the ground."""
    parts = OVERHANGS[name]
    boxes = [(0, 10), *((west, east) for west, east, _, _ in parts)]
    table = gpd.GeoDataFrame(
        {
            "building": ["yes", *[None] * len(parts)],
            "building:part": [None, *["yes"] * len(parts)],
            "building:levels": [None, *(str(levels) for _, _, levels, _ in parts)],
            "building:min_level": [None, *(str(lowest) or None for *_, lowest in parts)],
        },
        geometry=[shapely.box(X + west, Y, X + east, Y + 10) for west, east in boxes],
        crs="EPSG:32632",
    )
    frame = Frame("EPSG:32632", 1.0, (X - 3, X + 23), (Y - 3, Y + 13))
    reader = open_semantics([table], procedural_scene.padded(frame), OPTIONS)
    houses = reader.read(frame).buildings
    assert len(houses.footprint) == len(parts) and houses.form["part"].all()
    top = max(east for _, east, _, _ in parts)
    above = heights(reader, frame)
    tall = above[5:11, 4 : top + 2]
    # Two levels: 6 m of walls, at most 1 m of roof, in steps of a voxel.
    assert 5.5 < np.median(tall) < 7.6 and tall.min() > 5.0
    hanging = houses.form["base"] > 0
    assert houses.form["base"][hanging] == pytest.approx(3.0)
    under = {
        tuple(np.rint(each.bounds).astype(int) - [X, Y, X, Y]) for each in houses.footprint[hanging]
    }
    assert under == {(west, 0, east, 10) for west, east, _, lowest in parts if lowest}
