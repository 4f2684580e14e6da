"""Bridges, barriers, masts, marked surfaces and rows of trees, as attributes say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import LineString, Point, Polygon, box

from geo_io.frame import Frame
from geo_io.layers import Raster, Semantics
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics
from geo_io.semantics.structures.decks import CLEAR, CLEAR_WATER, SLOPE, thickness
from geo_io.semantics.structures.rows import trees_along
from geo_io.semantics.structures.tags import find_structures, tree_leaves
from geo_io.structures import KIND, KINDS

X, Y = 500_000, 5_500_000
FRAME = Frame("EPSG:32632", 1.0, (X, X + 200), (Y, Y + 160))
OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())
CODE = codes()
MEADOW = (box(-300, -300, 500, 500), {"landuse": "meadow"})
TO_BRIDGE = (LineString([(-100, 80), (80, 80)]), {"highway": "primary"})
BRIDGE = (LineString([(80, 80), (120, 80)]), {"highway": "primary", "bridge": "yes", "layer": "1"})
FROM_BRIDGE = (LineString([(120, 80), (300, 80)]), {"highway": "primary"})
RAILWAY = (LineString([(100, -50), (100, 250)]), {"railway": "rail"})
RIVER = (box(85, -50, 95, 250), {"natural": "water", "water": "river"})

Row = tuple[shapely.Geometry, dict[str, Any]]


def layer(*rows: Row) -> gpd.GeoDataFrame:
    shapes = [shapely.transform(shape, lambda xy: xy + np.array([X, Y])) for shape, _ in rows]
    names = sorted({name for _, tags in rows for name in tags})
    columns = {name: [tags.get(name) for _, tags in rows] for name in names}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=FRAME.crs)


@dataclass(frozen=True)
class Valley:
    """Heights: `deep` metres below `high` between two places to the east."""

    high: float = 50.0
    deep: float = 0.0

    def read(self, frame: Frame) -> Raster:
        x = (np.arange(*frame.x) + 0.5) * frame.voxel_size - X
        heights = self.high - self.deep * ((x > 82) & (x < 118))
        return Raster(frame, np.broadcast_to(heights, frame.shape).astype(np.float32))


def reader(*rows: Row, heights: Valley | None = None) -> SemanticsReader:
    opened = open_semantics([layer(*rows)], FRAME, OPTIONS)
    if heights is not None:
        opened.use_heights(heights)
    return opened


def read(*rows: Row, heights: Valley | None = None) -> Semantics:
    return reader(*rows, heights=heights).read(FRAME)


def kinds(table: dict[str, list[Any]], dimension: int = 1, code: int | str = 0) -> list[str]:
    n = len(next(iter(table.values())))
    code = CODE[code] if isinstance(code, str) else code
    unknown = np.full(n, np.nan)
    found = find_structures(
        pd.DataFrame(table), np.full(n, dimension), np.full(n, code, np.uint8), unknown, unknown
    )
    return [KINDS[kind] for kind in found.form["kind"]]


def test_bridges_in_the_spellings_of_files() -> None:
    said = {"bridge": ["yes", "no", "F", "T", None, "viaduct", "0", 1, "abandoned"]}
    expected = ["deck", "way", "way", "deck", "way", "deck", "way", "deck", "way"]
    assert kinds(said, code="road") == expected
    assert kinds({"POS_SOL": [1, 0, -1]}, code="road") == ["deck", "way", "way"]
    assert kinds({"KUNSTBAUTE": ["Bruecke", "Keine"]}, code="road") == ["deck", "way"]
    assert kinds({"bridge": ["yes"]}, code="mixed_forest") == ["none"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"barrier": ["fence", "wall", "hedge", "city_wall", "gate"]},
         ["barrier", "barrier", "hedge", "barrier", "none"]),
        ({"type": ["Zaun", "Mauer", "Hecke", "guardrail"]},
         ["barrier", "barrier", "hedge", "barrier"]),
        ({"power": ["line", "minor_line", "cable"]}, ["cable", "cable", "none"]),
        ({"man_made": ["pier", "mast"]}, ["pier", "none"]),
    ],
)  # fmt: skip
def test_lines(table: dict[str, list[Any]], expected: list[str]) -> None:
    assert kinds(table) == expected


def test_points_and_areas() -> None:
    assert kinds({"power": ["tower", "pole", "line"]}, 0) == ["mast", "mast", "none"]
    assert kinds({"man_made": ["chimney", "surveillance"]}, 0) == ["mast", "none"]
    pitches = {"leisure": ["pitch"] * 3, "sport": ["tennis", "skateboard;soccer", "boules"]}
    assert kinds(pitches, 2, "sports") == ["pitch", "pitch", "none"]
    parks = {
        "amenity": ["parking", "parking", "parking_space"],
        "parking": [None, "underground", 0],
    }
    assert kinds(parks, 2, "paved") == ["parking", "none", "bay"]
    assert kinds({"leisure": ["swimming_pool"]}, 2, "lake") == ["pool"]


def test_leaves_by_type_genus_and_common_name() -> None:
    table = pd.DataFrame(
        {
            "leaf_type": ["needleleaved", "broadleaved", None, None, None, None],
            "genus": [None, "Picea", "Pinus", "Acer", None, None],
            "spc_common": [None, None, None, None, "Norway spruce", "crepe myrtle"],
        }
    )
    assert tree_leaves(table).tolist() == [2, 1, 2, 1, 2, 1]
    assert tree_leaves(pd.DataFrame({"height": [3]})).tolist() == [0]


def test_a_row_of_trees_stands_at_equal_distances() -> None:
    line = np.array([LineString([(0, 0), (40, 0)])], object)
    xy, of = trees_along(line, np.array([np.nan]))
    assert xy[:, 0].tolist() == [4, 12, 20, 28, 36] and not of.any()
    wide, _ = trees_along(line, np.array([10.0]))
    assert wide[:, 0].tolist() == [5, 15, 25, 35]
    reverse = np.array([LineString([(40, 0), (0, 0)])], object)
    assert np.allclose(np.sort(trees_along(reverse, np.array([np.nan]))[0], axis=0), xy)
    row = (line[0], {"natural": "tree_row", "height": "9", "genus": "Picea"})
    seen = read(MEADOW, row).trees
    assert seen.height.tolist() == [9.0] * 5 and seen.leaf.tolist() == [2] * 5


def test_what_is_beneath_a_bridge_stays() -> None:
    seen = read(MEADOW, TO_BRIDGE, BRIDGE, FROM_BRIDGE, RIVER, RAILWAY, heights=Valley(50, 8))
    under = box(85, 77, 95, 83)
    assert seen.beneath is not None
    rows = slice(160 - 83, 160 - 77)
    assert (seen.cover[rows, 85:95] == CODE["road"]).all()  # as seen from above
    assert (seen.beneath[rows, 85:95] == CODE["river"]).all() and under.area == 60
    assert (seen.beneath[rows, 99:101] == CODE["rail"]).all()
    assert (seen.ground_cover[rows, :79] == CODE["road"]).any()


def test_a_layer_hides_no_land() -> None:
    forest = (box(0, 0, 100, 100), {"landuse": "forest", "layer": "-2"})
    cutting = (LineString([(0, 120), (200, 120)]), {"highway": "primary", "layer": "-1"})
    seen = read(MEADOW, forest, cutting)
    assert (seen.cover[60:, :100] == CODE["mixed_forest"]).all() and seen.beneath is None
    assert (seen.cover[38:42] == CODE["road"]).all()


def test_a_deck_lies_between_its_banks() -> None:
    """Over a valley deep enough for what runs through it nothing rises."""
    seen = read(MEADOW, TO_BRIDGE, BRIDGE, FROM_BRIDGE, RAILWAY, heights=Valley(50, 12))
    (deck,) = seen.structures.of("deck").profile
    assert np.allclose(deck.height(np.linspace(0, 40, 9)), 50.0)
    assert not len(seen.structures.of("ramp"))


def test_a_deck_clears_what_it_crosses_and_ways_climb_to_it() -> None:
    seen = read(MEADOW, TO_BRIDGE, BRIDGE, FROM_BRIDGE, RAILWAY, heights=Valley(50, 0))
    (deck,) = seen.structures.of("deck").profile
    least = CLEAR["rail"] + thickness(CODE["road"])
    assert deck.height(np.array([20.0]))[0] >= 50 + least - 0.01
    slope = np.abs(np.diff(deck.rise) / np.diff(deck.place))
    assert slope.max() <= SLOPE["road"] + 1e-6
    ramps = seen.structures.of("ramp")
    assert len(ramps) == 2
    for ramp in ramps.profile:
        assert math.isclose(ramp.rise.max(), deck.rise[0], abs_tol=0.2) and ramp.rise[-1] == 0.0


def test_a_bridge_cut_into_pieces_has_one_height() -> None:
    whole = read(MEADOW, BRIDGE, RAILWAY, heights=Valley(50)).structures.of("deck")
    tags = BRIDGE[1]
    pieces = read(
        MEADOW,
        (LineString([(98, 80), (80, 80)]), tags),
        (LineString([(98, 80), (120, 80)]), tags),
        RAILWAY,
        heights=Valley(50),
    ).structures.of("deck")
    assert len(pieces) == 2
    for shape, profile in zip(pieces.shape, pieces.profile, strict=True):
        for along in (1.0, 5.0, 15.0):
            at = shapely.line_locate_point(whole.shape[0], shape.interpolate(along))
            expected = whole.profile[0].height(np.array([at]))[0]
            assert abs(profile.height(np.array([along]))[0] - expected) < 0.1


def test_a_bridge_over_a_river_clears_it_a_little() -> None:
    deck = read(MEADOW, BRIDGE, RIVER, heights=Valley(50)).structures.of("deck")
    top = deck.profile[0].height(np.array([10.0]))[0]
    assert 50 + CLEAR_WATER < top < 50 + CLEAR_WATER + 2.0


def test_upper_bridges_lie_above_lower_ones() -> None:
    lower = (LineString([(100, 40), (100, 120)]), {"highway": "primary", "bridge": "yes"})
    upper = (BRIDGE[0], {**BRIDGE[1], "layer": "2"})
    decks = read(MEADOW, lower, upper, heights=Valley(50)).structures.of("deck")
    height = {
        int(form["layer"] == 2): profile.height(np.array([at]))[0]
        for form, profile, at in zip(decks.form, decks.profile, [20.0, 20.0], strict=True)
    }
    assert height[1] - 50 > 10.0


def test_heights_do_not_depend_on_the_window() -> None:
    every = reader(MEADOW, TO_BRIDGE, BRIDGE, FROM_BRIDGE, RAILWAY, heights=Valley(50))
    whole = every.read(FRAME).structures
    part = every.read(Frame(FRAME.crs, 1.0, (X + 100, X + 130), (Y + 70, Y + 90))).structures
    deck, same = whole.of("deck"), part.of("deck")
    assert len(same) == 1 and np.array_equal(deck.profile[0].rise, same.profile[0].rise)
    assert {shape.wkt for shape in part.of("ramp").shape} <= {
        shape.wkt for shape in whole.of("ramp").shape
    }


def test_outline_of_a_bridge_has_the_height_of_its_way() -> None:
    outline = (box(78, 74, 122, 86), {"man_made": "bridge", "layer": "1"})
    decks = read(MEADOW, BRIDGE, outline, RAILWAY, heights=Valley(50)).structures.of("deck")
    heights = [profile.height(np.array([20.0]))[0] for profile in decks.profile]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) < 1e-6


def test_what_is_too_fine_is_counted_in_one_line() -> None:
    coarse = Frame(FRAME.crs, 2.0, (X // 2, X // 2 + 100), (Y // 2, Y // 2 + 80))
    rows = [
        MEADOW,
        (LineString([(0, 20), (60, 20)]), {"barrier": "fence"}),
        (LineString([(0, 30), (60, 30)]), {"barrier": "fence"}),
        (LineString([(0, 40), (60, 40)]), {"barrier": "city_wall"}),
        (LineString([(0, 60), (60, 60)]), {"power": "line"}),
        (Point(9, 60), {"power": "tower"}),
    ]
    found = open_semantics([layer(*rows)], coarse, OPTIONS)
    (source,) = found.survey().sources
    (line,) = [text for text in source.warnings if "too fine" in text]
    assert "2 x fence" in line and "1 x power line" in line and "city wall" not in line
    assert "2 m" in line and source.points == 0
    kept = found.read(coarse).structures
    assert sorted(KINDS[kind] for kind in kept.form["kind"]) == ["barrier", "mast"]


def test_a_layer_of_fences_alone_is_understood() -> None:
    fences = gpd.GeoDataFrame(
        {"type": ["fence"]}, geometry=[LineString([(X, Y), (X + 50, Y)])], crs=FRAME.crs
    )
    found = open_semantics([layer(MEADOW), fences], FRAME, OPTIONS).read(FRAME)
    assert found.structures.form["kind"].tolist() == [KIND["barrier"]]


def test_areas_with_a_fence_keep_their_surface() -> None:
    garden = (box(20, 20, 60, 60), {"leisure": "garden", "barrier": "fence"})
    wall = (Polygon([(100, 20), (160, 20), (160, 24), (100, 24)]), {"barrier": "city_wall"})
    seen = read(MEADOW, garden, wall)
    shapes = {shape.geom_type for shape in seen.structures.of("barrier").shape}
    assert shapes == {"LineString", "Polygon"} or shapes == {"LinearRing", "Polygon"}
    assert (seen.cover[105:135, 25:55] == CODE["grass"]).all()
