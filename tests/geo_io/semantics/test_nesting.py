"""geo_io.semantics.nesting: a polygon inside another one is seen, whatever their classes."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, box

from geo_io.frame import Frame
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.nesting import LEVELS, TOLERANCE, class_ranks, feature_ranks
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics

X, Y = 500_000, 5_500_000
FRAME = Frame("EPSG:32632", 1.0, (X, X + 120), (Y, Y + 100))
OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())


def layer(*rows: tuple[shapely.Geometry, str, str]) -> gpd.GeoDataFrame:
    columns: dict[str, list[str | None]] = {key: [] for key in {key for _, key, _ in rows}}
    for _, key, value in rows:
        for name, column in columns.items():
            column.append(value if name == key else None)
    shapes = [shapely.transform(shape, lambda xy: xy + np.array([X, Y])) for shape, _, _ in rows]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32632")


def area(cover: np.ndarray, name: str) -> int:
    return int((cover == codes()[name]).sum())


@pytest.mark.parametrize("reverse", [False, True])
def test_each_of_a_chain_is_seen(reverse: bool) -> None:
    """An island with a pond, in a lake, in a quarry, in a wood, whatever their order."""
    rows = [
        (box(-50, -50, 200, 200), "natural", "wood"),
        (box(10, 10, 110, 90), "landuse", "quarry"),
        (box(20, 20, 100, 80), "natural", "water"),
        (box(30, 30, 90, 70), "landuse", "meadow"),
        (box(40, 40, 60, 60), "natural", "water"),
    ]
    cover = (
        open_semantics([layer(*rows[:: -1 if reverse else 1])], FRAME, OPTIONS).read(FRAME).cover
    )
    assert area(cover, "mixed_forest") == 120 * 100 - 100 * 80
    assert area(cover, "extraction") == 100 * 80 - 80 * 60
    assert area(cover, "grassland") == 60 * 40 - 400
    assert area(cover, "lake") == 80 * 60 - 60 * 40 + 400


def test_those_that_only_overlap_go_by_priority() -> None:
    rows = [
        (box(0, 0, 70, 100), "landuse", "quarry"),
        (box(50, 0, 120, 60), "landuse", "meadow"),
    ]
    cover = open_semantics([layer(*rows)], FRAME, OPTIONS).read(FRAME).cover
    assert area(cover, "extraction") == 7000 and area(cover, "grassland") == 50 * 60


def test_borders_may_differ_by_a_hand() -> None:
    quarry, lake = codes()["extraction"], codes()["lake"]
    for beyond, nested in ((0.9 * TOLERANCE, True), (3 * TOLERANCE, False)):
        shapes = np.array([box(0, 0, 100, 100), box(60, 20, 100 + beyond, 50)], object)
        ranks = feature_ranks(
            shapes,
            np.array([quarry, lake], np.uint8),
            np.ones(2, bool),
            np.zeros(2, bool),
            np.zeros(2, int),
        )
        assert (ranks[1] > ranks[0]) == nested
        assert ranks[0] == class_ranks()[quarry] == 56 * LEVELS


def test_lines_and_buildings_stay_above() -> None:
    rows = [
        (box(0, 0, 120, 100), "area:highway", "pedestrian"),
        (box(10, 10, 110, 90), "landuse", "grass"),
        (LineString([(0, 50), (120, 50)]), "highway", "primary"),
        (box(40, 20, 60, 40), "building", "yes"),
    ]
    cover = open_semantics([layer(*rows)], FRAME, OPTIONS).read(FRAME).cover
    assert (cover[48:52] == codes()["road"]).all()
    assert area(cover, "building") == 400
    assert area(cover, "grass") > 6000


def test_a_later_source_is_laid_over_earlier_ones() -> None:
    """Its small polygons show in an earlier large one; its large ones hide what lay there."""
    quarry = layer((box(0, 0, 120, 100), "landuse", "quarry"))
    lake = layer((box(40, 40, 60, 60), "natural", "water"))
    assert area(open_semantics([quarry, lake], FRAME, OPTIONS).read(FRAME).cover, "lake") == 400
    assert area(open_semantics([lake, quarry], FRAME, OPTIONS).read(FRAME).cover, "lake") == 0


def test_windows_see_what_the_whole_sees() -> None:
    rng = np.random.default_rng(7)
    kinds = [
        ("natural", "wood"), ("landuse", "quarry"), ("natural", "water"), ("landuse", "meadow"),
        ("leisure", "golf_course"), ("natural", "bare_rock"), ("landuse", "residential"),
    ]  # fmt: skip
    rows = []
    for size in (90, 60, 40, 25, 12):
        for _ in range(6):
            x, y = rng.uniform(-20, 90, 2)
            rows.append((box(x, y, x + size, y + size), *kinds[rng.integers(len(kinds))]))
    reader = open_semantics([layer(*rows)], FRAME, OPTIONS)
    whole = reader.read(FRAME)
    for x in range(0, 120, 24):
        window = Frame("EPSG:32632", 1.0, (X + x, X + x + 24), (Y + 13, Y + 37))
        part = reader.read(window)
        assert np.array_equal(part.cover, whole.crop(window).cover)
        assert np.array_equal(part.parcel, whole.crop(window).parcel)
