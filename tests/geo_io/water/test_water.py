"""The sea beside coastlines, and the level of still water."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon, box

from geo_io.frame import Frame
from geo_io.layers import Raster
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics
from geo_io.water.coastlines import LAND, SEA, UNSAID, Coast
from geo_io.water.levels import WaterLevels, at_sea, still_level
from geo_io.water.rivers import falling

X, Y = 500_000, 5_500_000
FRAME = Frame("EPSG:32632", 1.0, (X, X + 200), (Y, Y + 160))
OPTIONS = SemanticsOptions(crosswalks=builtin_crosswalks())


def moved(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda xy: xy + np.array([X, Y]))


def lines(*shapes: shapely.Geometry) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"natural": ["coastline"] * len(shapes)}, geometry=list(map(moved, shapes)), crs=FRAME.crs
    )


def cover_of(*sources: gpd.GeoDataFrame) -> NDArray:
    return open_semantics(sources, FRAME, OPTIONS).read(FRAME).cover == codes()["sea"]


@dataclass(frozen=True)
class Heights:
    """Heights by a formula of the place: `west` metres, and `rise` metres a metre to the east."""

    base: float
    rise: float = 0.0
    noise: float = 0.0

    def read(self, frame: Frame) -> Raster:
        size = frame.voxel_size
        x = (np.arange(*frame.x) + 0.5) * size - X
        y = (np.arange(*frame.y)[::-1] + 0.5) * size - Y
        east, north = np.meshgrid(x, y)
        wave = np.sin(12.9898 * np.floor(east) + 78.233 * np.floor(north)) * 43758.5453
        heights = self.base + self.rise * east + self.noise * (wave - np.floor(wave) - 0.5)
        return Raster(frame, heights.astype(np.float32))


def with_heights(heights: Heights, *sources: gpd.GeoDataFrame) -> SemanticsReader:
    reader = open_semantics(sources, FRAME, OPTIONS)
    reader.use_heights(heights)
    return reader


# East to west along a bay, land in the north: its left is the south, so it runs west to east.
BAY = LineString([(-50, 80), (60, 80), (100, 40), (140, 80), (260, 80)])
ISLE = Polygon([(20, 10), (60, 10), (60, 50), (20, 50)])  # counter-clockwise: land inside


def test_the_sea_lies_on_the_right_with_islands() -> None:
    sea = cover_of(lines(BAY, ISLE.exterior))
    mainland = Polygon([*BAY.coords, (260, 300), (-50, 300)])
    window = box(0, 0, 200, 160)
    right = window.difference(mainland).difference(ISLE)
    assert abs(sea.sum() - right.area) < 60  # half cells along 110 m of diagonals
    x, y = np.meshgrid(np.arange(200) + 0.5, np.arange(160)[::-1] + 0.5)
    for margin, expected in ((-1.0, True), (1.0, False)):
        inside = shapely.contains_xy(right.buffer(margin), x, y)
        assert (sea[inside].all()) if expected else (not sea[~inside].any())


def test_a_coast_cut_into_pieces_is_the_same() -> None:
    whole = cover_of(lines(BAY, ISLE.exterior))
    points = list(BAY.coords)
    pieces = [LineString(points[k : k + 2]) for k in range(len(points) - 1)]
    ring = list(ISLE.exterior.coords)
    assert np.array_equal(
        whole, cover_of(lines(*pieces[::-1]), lines(LineString(ring[:3]), LineString(ring[2:])))
    )


def test_lines_that_end_at_the_edge_go_on() -> None:
    """A download cuts its lines at a box that may be smaller than the region."""
    sea = cover_of(lines(LineString([(60, 80), (140, 80)])))
    assert sea[81:].all() and not sea[:79].any()


@pytest.mark.parametrize(("y", "sea"), [(400, True), (-300, False)])
def test_a_region_without_a_coast_in_it(y: float, sea: bool) -> None:
    """The land is north of the line."""
    found = cover_of(lines(LineString([(-800, y), (900, y)])))
    assert found.all() if sea else not found.any()


def test_far_from_every_coast_nothing_is_said() -> None:
    coast = Coast(np.array([moved(LineString([(0, 30_000), (100, 30_000)]))], object))
    assert (coast.sides(FRAME, 1) == UNSAID).all()


def test_windows_of_a_coast_fit() -> None:
    coast = Coast(np.array([moved(BAY), moved(ISLE.exterior)], object))
    whole = coast.sides(FRAME, 4)
    assert set(np.unique(whole)) == {LAND, SEA}
    for x, y in ((0, 0), (37, 21), (90, 60)):
        window = Frame(FRAME.crs, 1.0, (X + x, X + x + 50), (Y + y, Y + y + 70))
        rows, columns = FRAME.slices(window)
        part = whole[rows.start * 4 : rows.stop * 4, columns.start * 4 : columns.stop * 4]
        assert np.array_equal(coast.sides(window, 4), part)


def test_beaches_lie_above_the_sea_and_towns_below() -> None:
    land = gpd.GeoDataFrame(
        {"natural": ["beach", None], "landuse": [None, "residential"]},
        geometry=[moved(box(0, 60, 30, 100)), moved(box(40, 60, 80, 100))],
        crs=FRAME.crs,
    )
    cover = (
        open_semantics([lines(LineString([(-50, 80), (260, 80)])), land], FRAME, OPTIONS)
        .read(FRAME)
        .cover
    )
    assert (cover == codes()["sand"]).sum() == 30 * 40
    assert (cover == codes()["residential"]).sum() == 40 * 20


def test_a_line_that_runs_the_wrong_way_is_turned_round() -> None:
    wrong = LineString([(100, 300), (100, -200)])  # land in the east, on its left by its direction
    rising_west = Heights(4.0, -0.04)
    reader = with_heights(rising_west, lines(wrong))
    sea = reader.read(FRAME).cover == codes()["sea"]
    assert sea[:, 101:].all() and not sea[:, :99].any()
    assert reader.gaps(FRAME).turned_coasts == 1
    right = with_heights(Heights(-4.0, 0.04), lines(wrong))
    assert right.gaps(FRAME).turned_coasts == 0


def test_without_a_coast_the_sea_is_where_the_ground_is_not_above_it() -> None:
    meadow = gpd.GeoDataFrame(
        {"landuse": ["meadow"]}, geometry=[moved(box(0, 0, 30, 160))], crs=FRAME.crs
    )
    reader = with_heights(Heights(-2.0, 0.02), meadow)  # 0 at x = 100
    read = reader.read(FRAME)
    assert (read.cover[:, :30] == codes()["grassland"]).all()  # a polder is mapped
    assert (read.cover[:, 30:100] == codes()["sea"]).all() and not read.cover[:, 101:].any()
    assert read.water is not None and (read.water[:, 30:100] == 0).all()
    gaps = reader.gaps(FRAME)
    assert abs(gaps.sea - 0.35) < 0.05 and abs(gaps.land - 0.5) < 0.05


def test_a_polder_behind_a_coast_is_land() -> None:
    # Land in the west, below the sea.
    reader = with_heights(Heights(-3.0), lines(LineString([(100, -200), (100, 300)])))
    cover = reader.read(FRAME).cover
    assert not cover[:, :99].any() and (cover[:, 101:] == codes()["sea"]).all()


def lake(shape: shapely.Geometry) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"natural": ["water"]}, geometry=[moved(shape)], crs=FRAME.crs)


def test_a_lake_has_one_level_in_every_window_and_process() -> None:
    around = Polygon(
        box(-300, -200, 400, 300).exterior, [box(50, 50, 90, 90).exterior.coords[::-1]]
    )
    reader = with_heights(Heights(420.0, 0.0, 8.0), lake(around))
    water = reader.read(FRAME).water
    assert water is not None
    levels = np.unique(water[np.isfinite(water)])
    assert len(levels) == 1 and abs(levels[0] - 420) < 0.5
    assert np.isnan(water[80:100, 60:80]).all()  # the island
    again = pickle.loads(pickle.dumps(reader)).read(FRAME.pad(-40)).water
    assert again is not None and set(np.unique(again[np.isfinite(again)])) == set(levels)


def test_levels_of_odd_lakes() -> None:
    shape = moved(box(0, 0, 64, 64))

    def level(heights: NDArray | float, shape: Polygon = shape) -> float:
        def read(frame: Frame) -> NDArray:
            x = (np.arange(*frame.x) + 0.5) * frame.voxel_size - X
            y = (np.arange(*frame.y)[::-1] + 0.5) * frame.voxel_size - Y
            east, north = np.meshgrid(x, y)
            return np.asarray(heights(east, north), float)  # type: ignore[operator]

        return still_level(shape, read, FRAME)

    # Flat water between steep banks, which the cells along the shore catch.
    bank = np.float64(8)
    assert level(lambda e, n: np.where(np.hypot(e - 32, n - 32) < 28, 400, 400 + bank * 3)) == 400
    # A pond on a slope stands at its lower end.
    assert abs(level(lambda e, n: 100 + 0.1 * e) - 100) < 0.5
    # A bed of 20 m below the shore.
    depth = level(
        lambda e, n: 50 - 0.02 * np.maximum(32 - np.maximum(abs(e - 32), abs(n - 32)), 0) ** 2
    )
    assert abs(depth - 50) < 1.0
    assert np.isnan(level(lambda e, n: np.full(e.shape, np.nan)))


def test_the_sea_is_at_zero_unless_the_heights_are_of_another_kind() -> None:
    assert at_sea(0.4) == at_sea(-2.0) == at_sea(float("nan")) == 0
    assert at_sea(45.2) == 45.0 and at_sea(-28.1) == -28.0


def test_a_river_falls_along_its_line() -> None:
    course = LineString([(-100, 20), (60, 60), (150, 60), (300, 140)])
    river = gpd.GeoDataFrame(
        {"waterway": ["river"], "name": ["Test"]}, geometry=[moved(course)], crs=FRAME.crs
    )
    reader = with_heights(Heights(80.0, -0.01, 4.0), river)
    read = reader.read(FRAME)
    wet = read.cover == codes()["river"]
    assert wet.sum() > 200 * 12 and read.water is not None
    assert np.isfinite(read.water[wet]).all() and np.isnan(read.water[~wet]).all()
    row, column = np.nonzero(wet)
    places = shapely.points(X + column + 0.5, Y + 160 - row - 0.5)
    order = np.argsort(shapely.line_locate_point(moved(course), places))
    levels = read.water[row, column][order].astype(float)
    assert (np.diff(levels) <= 1e-3).all()
    assert levels[0] > levels[-1] and abs(levels.mean() - 78.6) < 1.5
    window = Frame(FRAME.crs, 1.0, (X + 40, X + 90), (Y + 30, Y + 100))
    part = reader.read(window).water
    assert part is not None
    assert np.array_equal(part, read.crop(window).water, equal_nan=True)


def test_the_fit_of_a_river_never_rises() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 200)
    down = falling(np.linspace(20, 0, 200) + noise)
    assert (np.diff(down) <= 0).all() and abs(down[0] - 20) < 2 and abs(down[-1]) < 2
    # A line that was drawn upstream keeps its slope.
    up = falling(np.linspace(0, 20, 200) + noise)
    assert (np.diff(up) >= 0).all() and up[-1] - up[0] > 16
    # A bridge in the heights does not lift the water.
    bridge = np.full(50, 10.0)
    bridge[20:22] += 6
    assert falling(bridge).max() < 11
    assert len(falling(np.empty(0))) == 0


def test_heights_at_places_are_those_of_their_cells_in_few_reads() -> None:
    reads: list[Frame] = []

    def read(frame: Frame) -> NDArray:
        reads.append(frame)
        x, y = np.meshgrid(np.arange(*frame.x), np.arange(*frame.y)[::-1])
        return np.asarray(7.0 * x + 13.0 * y)

    random = np.random.default_rng(0)
    places = np.array([X, Y]) + random.uniform(-300, 300, (200, 2))
    found = WaterLevels(read, FRAME).at(places, 2.0)
    column, row = np.floor(places / 2).T
    assert np.array_equal(found, 7.0 * column + 13.0 * row)
    assert len(reads) <= 9, "nearby places are read at once"
    assert WaterLevels(read, FRAME).at(np.empty((0, 2)), 2.0).shape == (0,)
