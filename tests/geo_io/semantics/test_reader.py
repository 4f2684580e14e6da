"""Semantics of windows from vector and raster sources."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import rioxarray  # noqa: F401  registers the .rio accessor
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from geo_io.errors import FrameError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame
from geo_io.layers import Semantics, unknown_form
from geo_io.legend import UNMAPPED, builtin_crosswalks, codes, parse_crosswalk
from geo_io.semantics import packed_features, vector_layer
from geo_io.semantics import reader as semantics
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.prepare_features import place_keys
from geo_io.semantics.reader import open_semantics

UTM = "EPSG:32632"
X, Y = 683000, 5539000
ORIGIN = np.array([X, Y])
FRAME = Frame(UTM, 1.0, (X, X + 100), (Y, Y + 80))
CODE = codes()
SHARED = Path(__file__).parents[3].parent / "shared" / "data"
BAYREUTH, ANNEDAL = SHARED / "osm_bayreuth_srtm", SHARED / "umep_goteborg_annedal"
DELFT, BDTOPO = SHARED / "delft_ahn3_bgt", SHARED / "bdtopo_olemps_vectors"

TOWN = parse_crosswalk(
    {
        "name": "town",
        "rules": [
            {
                "field": ["use", "landuse"],
                "values": {
                    "meadow": "grassland",
                    "field": "cropland",
                    "wood": "broadleaf_forest",
                    "lawn": "grass",
                    "homes": "residential",
                    "street": "road",
                    "house": "building",
                    "oak": "tree",
                    "pond": "lake",
                    "brook": "river",
                    "nothing": "unknown",
                },
                "widths": {"street": 8},
            },
            {"field": "value", "values": {1: "grass", 2: "road", 3: "lake"}},
        ],
        "layers": {"houses*": "building"},
    },
    "town",
)
OTHER = parse_crosswalk(
    {
        "name": "other",
        "rules": [
            {"field": "kind", "values": {"meadow": "grass", "h": "building"}},
            {"field": "building", "values": {"*": "building"}},
            {"field": "value", "values": {1: "grass", 2: "rail"}},
        ],
    },
    "other",
)
GENERIC = parse_crosswalk(
    {
        "name": "generic",
        "rules": [
            {"field": ["use", "type"], "values": {"meadow": "grass", "wood": "mixed_forest"}}
        ],
    },
    "generic",
)
OPTIONS = SemanticsOptions(crosswalks=(GENERIC, TOWN, OTHER))


def layer(
    rows: list[tuple], fields: tuple[str, ...] = ("use",), crs: str | None = UTM
) -> gpd.GeoDataFrame:
    """Features from (geometry in metres from (X, Y), attribute, ...)."""
    shapes = shapely.transform(np.array([row[0] for row in rows], object), lambda xy: xy + ORIGIN)
    data = {field: [row[k + 1] for row in rows] for k, field in enumerate(fields)}
    return gpd.GeoDataFrame(data, geometry=shapes, crs=crs)


def read(*sources: object, window: Frame = FRAME, options: SemanticsOptions = OPTIONS) -> Semantics:
    return open_semantics(sources, FRAME, options).read(window)


def share(cover: np.ndarray, name: str) -> int:
    return int((cover == CODE[name]).sum())


def same(a: Semantics, b: Semantics) -> bool:
    return (
        (a.cover == b.cover).all()
        and (a.parcel == b.parcel).all()
        and a.buildings.key.tolist() == b.buildings.key.tolist()
        and bool(shapely.equals_exact(a.buildings.footprint, b.buildings.footprint).all())
        and np.array_equal(a.buildings.height, b.buildings.height, equal_nan=True)
        and np.array_equal(a.trees.xy, b.trees.xy)
        and a.trees.key.tolist() == b.trees.key.tolist()
    )


def test_cover_is_the_class_with_the_largest_share() -> None:
    found = read(layer([(box(0, 0, 50.4, 80), "meadow"), (box(50.4, 0, 100, 80), "wood")]))
    assert found.frame == FRAME and found.cover.shape == (80, 100) and found.cover.dtype == np.uint8
    assert (found.cover[:, :50] == CODE["grassland"]).all()
    assert (found.cover[:, 50:] == CODE["broadleaf_forest"]).all()
    assert (
        read(layer([(box(0, 0, 10, 10), "meadow")])).cover[-10:, :10].all()
    )  # rows run from north to south
    assert not read(layer([(box(0, 0, 10, 10), "meadow")])).cover[:-10].any()


def test_overlaps_within_a_source_follow_nesting_then_priority_then_size() -> None:
    forward = [
        (box(0, 0, 100, 80), "homes"),
        (box(10, 10, 60, 60), "meadow"),
        (box(20, 20, 30, 30), "field"),
        (box(40, 40, 50, 50), "meadow"),
    ]
    found = read(layer(forward))
    assert same(found, read(layer(forward[::-1])))
    assert share(found.cover, "grassland") == 2400  # over homes
    assert share(found.cover, "cropland") == 100  # of a lower priority, but inside the meadow
    assert len(np.unique(found.parcel)) == 4  # the small meadow is a parcel of its own
    assert (found.parcel[30:40, 40:50] != found.parcel[-1 - 15, 15]).all()


def test_a_later_source_wins_unless_its_class_is_of_lower_priority() -> None:
    below = layer([(box(0, 0, 50, 80), "street"), (box(50, 0, 100, 80), "meadow")])
    above = layer([(box(0, 0, 100, 80), "lawn")])
    found = read(below, above)
    assert share(found.cover, "road") == 4000 and share(found.cover, "grass") == 4000
    equal = read(layer([(box(0, 0, 100, 80), "wood")]), layer([(box(0, 0, 100, 80), "wood")]))
    assert share(equal.cover, "broadleaf_forest") == 8000


def test_values_known_to_mean_nothing_stay_unknown() -> None:
    rows = [(box(0, 0, 50, 80), "nothing"), (box(50, 0, 100, 80), "meadow")]
    assert share(read(layer(rows)).cover, "grassland") == 4000
    assert (read(layer(rows)).cover[:, :50] == 0).all()


def test_width_of_lines() -> None:
    rows = [
        (LineString([(0, 10), (100, 10)]), "street", None),  # 8 m by the rule
        (LineString([(0, 40), (100, 40)]), "street", "4 m"),
        (LineString([(0, 60), (100, 60)]), "brook", None),  # 4 m by the class
        (LineString([(0, 75), (100, 75)]), "field", None),  # no line
    ]
    found = read(layer(rows, ("use", "width")))
    assert share(found.cover, "road") == 1200
    assert share(found.cover, "river") == 400
    assert share(found.cover, "cropland") == 0
    assert not found.parcel.any()  # lines are no land-use polygons


def test_a_wide_line_outside_the_window_is_still_seen() -> None:
    source = layer([(LineString([(-500, -20), (500, -20)]), "brook", 60)], ("use", "width"))
    assert share(read(source).cover, "river") == 1000
    assert share(read(source, window=FRAME.pad(900)).cover, "river") > 50_000


def test_tunnels_are_left_out() -> None:
    rows = [
        (LineString([(0, 10), (100, 10)]), "street", "yes"),
        (LineString([(0, 40), (100, 40)]), "street", None),
    ]
    reader = open_semantics([layer(rows, ("use", "tunnel"))], FRAME, OPTIONS)
    assert share(reader.read(FRAME).cover, "road") == 800
    assert reader.survey().sources[0].underground == 1


def test_buildings() -> None:
    yard = Polygon([(0, 0), (20, 0), (20, 20), (0, 20)], [[(5, 5), (15, 5), (15, 15), (5, 15)]])
    pair = MultiPolygon([box(30, 0, 40, 10), box(50, 0, 60, 10)])
    rows = [
        (yard, "house", "12 m", None),
        (pair, "house", None, 2),
        (box(70, 0, 80, 10), "house", 0, np.nan),
        (box(300, 0, 310, 10), "house", 5, None),
        (LineString([(0, 50), (9, 50)]), "house", 5, None),
    ]
    found = read(layer(rows, ("use", "HAUTEUR", "building:levels")))
    assert len(found.buildings) == 4
    by_x = dict(
        zip(
            shapely.bounds(found.buildings.footprint)[:, 0] - X, found.buildings.height, strict=True
        )
    )
    np.testing.assert_equal(by_x, {0: 12.0, 30: 7.0, 50: 7.0, 70: np.nan})
    assert (found.cover[-10, 10], found.cover[-3, 3]) == (0, CODE["building"])  # the yard is open
    assert (
        found.buildings.key.dtype == np.uint64
        and (np.diff(found.buildings.key.astype(object)) > 0).all()
    )
    assert not found.parcel.any()
    assert len(read(layer(rows, ("use", "a", "b")), window=FRAME.pad(300)).buildings) == 5


def test_a_building_is_in_every_window_that_it_meets_whole() -> None:
    source = layer([(box(30, 30, 70, 50), "house")])
    for x in range(X, X + 100, 20):
        window = replace(FRAME, x=(x, x + 20))
        found = read(source, window=window)
        assert len(found.buildings) == (x + 20 >= X + 30 and x <= X + 70)
        assert all(shapely.area(found.buildings.footprint) == 800)


def test_the_same_building_from_two_sources_is_one_and_keeps_its_height() -> None:
    plain = layer([(box(10, 10, 20, 20), "house"), (box(30, 10, 40, 20), "house")])
    tall = layer(
        [(box(10, 10.01, 20, 20), "house", 15), (box(36, 10, 46, 20), "house", 8)],
        ("use", "height"),
    )
    for sources in ((plain, tall), (tall, plain)):
        found = read(*sources)
        assert len(found.buildings) == 3  # two that overlap by less than half are two
        assert sorted(found.buildings.height[np.isfinite(found.buildings.height)]) == [8, 15]


def test_trees() -> None:
    rows = [
        (Point(10, 10), "oak", "12 m", 6.0),
        (Point(100, 10), "oak", None, None),  # the second is on the east edge
        (shapely.MultiPoint([(20, 20), (30, 30)]), "oak", 900, None),
        (Point(5, 5), "street", None, None),
        (box(50, 50, 60, 60), "oak", None, None),
    ]
    reader = open_semantics([layer(rows, ("use", "height", "diameter_crown"))], FRAME, OPTIONS)
    found = reader.read(FRAME)
    assert len(found.trees) == 3
    first = found.trees.xy[:, 0] == X + 10
    assert (found.trees.height[first], found.trees.crown[first]) == (12, 6)
    assert np.isnan(found.trees.height[~first]).all()
    assert share(found.cover, "tree") == 100
    assert len(reader.read(replace(FRAME, x=(X + 100, X + 120))).trees) == 1
    assert reader.survey().sources[0].points == 1


def test_keys_depend_on_the_place_and_not_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 900, (300, 2)) + ORIGIN
    frame = gpd.GeoDataFrame(
        {"use": ["house"] * 300},
        geometry=shapely.buffer(shapely.points(corners), rng.uniform(3, 15, 300)),
        crs=UTM,
    )
    frame.to_crs(4326).sample(frac=1, random_state=1).to_file(tmp_path / "a.shp")
    frame.to_file(tmp_path / "b.gpkg")
    monkeypatch.setattr(semantics, "STRIP_VOXELS", 100_000)
    window = FRAME.pad(900)
    keys = [
        set(read(tmp_path / name, window=window).buildings.key.tolist())
        for name in ("a.shp", "b.gpkg")
    ]
    assert len(keys[0]) > 250
    assert len(keys[0] & keys[1]) >= 0.99 * len(keys[0])
    assert place_keys(np.array([1.2]), np.array([3.4]), np.array([9.0])) == place_keys(
        np.array([0.8]), np.array([2.6]), np.array([9.4])
    )


MEADOW = [(box(0, 0, 100, 80), "meadow")]


def legend_of(source: object, **options: object) -> str:
    reader = open_semantics([source], FRAME, replace(OPTIONS, **options))
    return reader.summary()["sources"][0]["legend"]


def test_the_legend_that_maps_most_is_taken_and_generic_last() -> None:
    assert legend_of(layer(MEADOW)) == "town"  # as many as generic
    both = layer([(box(0, 0, 1, 1), "wood", "x"), (box(0, 0, 1, 1), "wood", "h")], ("type", "kind"))
    assert legend_of(both) == "generic"  # more than "other"
    assert legend_of(layer([(box(0, 0, 1, 1), 7)], ("BUILDING",))) == "other"


def test_the_choice_does_not_depend_on_the_region() -> None:
    near = [(box(0, 0, 10, 10), "x", "meadow")]
    far = [(box(9000 + i, 0, 9001 + i, 1), "wood", None) for i in range(5)]
    frame = layer([*far, *near], ("use", "kind"))
    assert legend_of(frame) == "town"
    assert not read(frame).cover.any()


def test_user_legends_come_first_if_they_apply() -> None:
    assert legend_of(layer(MEADOW), legends=(OTHER,)) == "town"  # OTHER has no field of it
    assert legend_of(layer(MEADOW), legends=(OTHER, GENERIC)) == "generic"


def test_class_field() -> None:
    frame = layer(
        [(box(0, 0, 50, 80), "wood", "meadow"), (box(50, 0, 100, 80), "meadow", "lawn")],
        ("use", "sort"),
    )
    assert share(read(frame).cover, "broadleaf_forest") == 4000
    found = read(frame, options=replace(OPTIONS, class_field="SORT"))
    assert share(found.cover, "grassland") == 4000 and share(found.cover, "grass") == 4000
    # "*" of a rule for another field does not make everything a building
    assert share(found.cover, "building") == 0
    other = layer([(box(0, 0, 20, 20), "house")])
    assert (
        share(read(frame, other, options=replace(OPTIONS, class_field="sort")).cover, "building")
        == 400
    )
    with pytest.raises(
        InputError, match=r"no layer has an attribute 'srot'.* has use, sort.*did you mean 'sort'"
    ):
        read(frame, options=replace(OPTIONS, class_field="srot"))
    with pytest.raises(InputError, match=r"no legend maps the values of 'sort'.*: apple, pear"):
        read(
            layer([(box(0, 0, 1, 1), "apple"), (box(0, 0, 1, 1), "pear")], ("sort",)),
            options=replace(OPTIONS, class_field="sort"),
        )


def test_layer_names_say_the_class(tmp_path: Path) -> None:
    frame = layer([(box(0, 0, 10, 10), 1)], ("id",))
    frame.to_file(tmp_path / "Houses_2020.shp")
    frame.to_file(tmp_path / "houses.gpkg", layer="export")
    frame.to_file(tmp_path / "x.gpkg", layer="houses")
    for name in ("Houses_2020.shp", "houses.gpkg", "x.gpkg:houses"):
        assert len(read(f"{tmp_path}/{name}").buildings) == 1, name


def test_no_class_at_all_is_an_error_that_lists_the_fields(tmp_path: Path) -> None:
    layer([(box(0, 0, 10, 10), 1, "m")], ("id", "colour")).to_file(tmp_path / "a.gpkg")
    with pytest.raises(InputError, match=r"a\.gpkg.*id, colour.*`class_field`.*`legend`"):
        read(tmp_path / "a.gpkg")
    with pytest.raises(InputError, match=r"values of use: apple"):
        read(layer([(box(0, 0, 10, 10), "apple")]))


def test_rules_that_only_sort_out_do_not_name_values() -> None:
    state = {"field": "state", "values": {"planned": "unknown"}}
    legend = replace(TOWN, rules=(parse_crosswalk({"rules": [state]}, "x").rules[0], *TOWN.rules))
    rows = [
        (box(0, 0, 60, 80), "meadow", "built"),
        (box(60, 0, 70, 80), "apple", "built"),
        (box(70, 0, 80, 80), "meadow", "planned"),
        (box(80, 0, 90, 80), None, "built"),
    ]
    reader = open_semantics(
        [layer(rows, ("use", "state"))], FRAME, SemanticsOptions(crosswalks=(legend,))
    )
    assert [value.value for value in reader.survey().values] == [
        "use=meadow",
        "",
        "state=planned",
        "use=apple",
    ]
    assert share(reader.read(FRAME).cover, "grassland") == 4800
    with pytest.raises(InputError):
        read(layer(rows[2:3], ("name", "state")), options=SemanticsOptions(crosswalks=(legend,)))


def test_an_empty_layer_is_no_error_beside_another() -> None:
    empty = layer(MEADOW).iloc[:0]
    reader = open_semantics([empty, layer(MEADOW)], FRAME, OPTIONS)
    assert share(reader.read(FRAME).cover, "grassland") == 8000
    assert [source.meets for source in reader.survey().sources] == [False, True]


def cells(*values: float, dtype: type = np.uint8) -> xr.DataArray:
    """A class raster of two equal rows."""
    return raster(np.array([values, values], dtype))


def raster(
    values: np.ndarray, nodata: float | None = None, size: float = 10.0, crs: str = UTM
) -> xr.DataArray:
    """A class raster with its north-west corner at (X, Y + 80)."""
    ny, nx = values.shape
    x, y = X + (np.arange(nx) + 0.5) * size, Y + 80 - (np.arange(ny) + 0.5) * size
    array = xr.DataArray(values, {"y": y, "x": x}, ("y", "x")).rio.write_crs(crs)
    return array if nodata is None else array.rio.write_nodata(nodata)


def test_raster_cover() -> None:
    values = np.full((8, 10), 1.0, np.float32)
    values[:4, :5], values[0, 9] = 3, -9999
    found = read(raster(values, -9999))
    assert share(found.cover, "lake") == 2000 and (found.cover[:40, :50] == CODE["lake"]).all()
    assert share(found.cover, "grass") == 5900
    assert (found.cover[:10, 90:] == 0).all()
    assert len(found.buildings) == 0 and not found.parcel.any()
    both = read(raster(values, -9999), layer([(box(0, 0, 50, 80), "meadow")]))
    assert share(both.cover, "lake") == 2000  # of higher priority than the later meadow
    assert share(both.cover, "grass") == 3900 + 2000


def test_raster_file_in_another_crs_equals_its_warp(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    to = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    west, south, east, north = to.transform_bounds(X - 50, Y - 50, X + 150, Y + 130)
    transform = from_origin(west, north, (east - west) / 30, (north - south) / 30)
    values = rng.integers(1, 4, (30, 30)).astype(np.uint8)
    profile = {
        "driver": "GTiff",
        "height": 30,
        "width": 30,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:4326",
    }
    with rasterio.open(tmp_path / "a.tif", "w", transform=transform, **profile) as dataset:
        dataset.write(values, 1)
    found = read(tmp_path / "a.tif").cover
    x, y = np.meshgrid(X + np.arange(100) + 0.5, Y + 80 - np.arange(80) - 0.5)
    column, row = np.floor(~transform @ to.transform(x, y)).astype(int)
    expected = np.array([0, CODE["grass"], CODE["road"], CODE["lake"]])[values[row, column]]
    assert (
        found == expected
    ).mean() > 0.9  # the class of a voxel on a border is that of most of it
    inner = replace(FRAME, x=(X + 13, X + 77), y=(Y + 21, Y + 66))
    assert (read(tmp_path / "a.tif", window=inner).cover == found[FRAME.slices(inner)]).all()


def test_raster_legends() -> None:
    assert legend_of(cells(1, 3)) == "town"
    assert legend_of(cells(1, 1)) == "town"  # both agree
    with pytest.raises(InputError, match=r"fit several legends that differ: town, other.*`legend`"):
        legend_of(cells(1, 2))
    assert legend_of(cells(1, 2), legends=(OTHER,)) == "other"
    assert legend_of(cells(0, 3, 255)) == "town"  # likely nodata
    with pytest.raises(InputError, match=r"maps all values of .*: 1, 9"):
        legend_of(cells(1, 9))
    with pytest.raises(InputError, match=r"all values of .*: 0, 1"):
        legend_of(cells(0, 1, 9).rio.write_nodata(9))
    with pytest.raises(InputError, match=r"holds 1\.5, 2\.25, not classes"):
        legend_of(cells(1, 1.5, 2.25, dtype=np.float32))
    with pytest.raises(InputError, match="300 different values, not classes"):
        legend_of(cells(*range(300), dtype=np.int64))


def test_averaged_overviews_do_not_confuse(tmp_path: Path) -> None:
    values = (np.indices((3000, 3000)).sum(axis=0) % 2 * 2 + 1).astype(
        np.uint8
    )  # 1 and 3; their mean is 2
    profile = {
        "driver": "GTiff",
        "height": 3000,
        "width": 3000,
        "count": 1,
        "dtype": "uint8",
        "crs": UTM,
    }
    with rasterio.open(
        tmp_path / "a.tif", "w", transform=from_origin(X, Y + 80, 1, 1), **profile
    ) as dataset:
        dataset.write(values, 1)
        dataset.build_overviews([4], rasterio.enums.Resampling.average)
    only_13 = replace(TOWN, name="odd", rules=(replace(TOWN.rules[1], values={"1": 5, "3": 16}),))
    assert legend_of(tmp_path / "a.tif", crosswalks=(only_13,)) == "odd"


def test_kinds_of_files(tmp_path: Path) -> None:
    layer(MEADOW).to_file(tmp_path / "a.gpkg", layer="one")
    for source in (tmp_path / "a.gpkg", f"{tmp_path}/a.gpkg:one", str(tmp_path / "a.gpkg")):
        assert share(read(source).cover, "grassland") == 8000
    cells(3, 3).rio.to_raster(tmp_path / "b.dat", driver="GTiff")
    assert share(read(tmp_path / "b.dat").cover, "lake") == 400
    assert (
        share(read(f"GTIFF_DIR:1:{tmp_path}/b.dat").cover, "lake") == 400
    )  # a part of a file, as GDAL names it
    with pytest.raises(MissingFileError):
        read(tmp_path / "none.tif")
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    with pytest.raises(InputError, match=r"bad\.tif cannot be read as a raster"):
        read(tmp_path / "bad.tif")
    (tmp_path / "bad.shp").write_bytes(b"no shapes")
    with pytest.raises(InputError, match=r"bad\.shp cannot be read as a vector file"):
        read(tmp_path / "bad.shp")
    with pytest.raises(InputError, match="cannot be a dict"):
        read({})
    with pytest.raises(InputError, match="no semantics"):
        read()


def test_assume_crs_reaches_sources_without_one() -> None:
    with pytest.raises(MissingCrsError):
        read(layer(MEADOW, crs=None))
    found = read(layer(MEADOW, crs=None), options=replace(OPTIONS, assume_crs=UTM))
    assert share(found.cover, "grassland") == 8000


def test_windows_of_another_lattice_are_refused() -> None:
    with pytest.raises(FrameError):
        read(layer(MEADOW), window=replace(FRAME, voxel_size=2.0))


def test_missing_values_of_any_kind() -> None:
    frame = layer(
        [(box(0, 0, 50, 80), "meadow"), (box(50, 0, 100, 80), "wood"), (box(0, 0, 9, 9), "x")]
    )
    for column in (
        pd.Series(["meadow", "wood", None], dtype="str"),
        pd.Series(["meadow", "wood", pd.NA], dtype="string"),
        pd.Series(["meadow", "wood", np.nan], dtype=object),
        pd.Categorical(["meadow", "wood", None]),
    ):
        reader = open_semantics([frame.assign(use=column)], FRAME, OPTIONS)
        assert share(reader.read(FRAME).cover, "grassland") == 4000
        survey = reader.survey()
        assert survey.unmapped == () and [v.value for v in survey.values] == [
            "use=meadow",
            "use=wood",
            "",
        ]
    numbers = parse_crosswalk(
        {"name": "n", "rules": [{"field": "use", "values": {1: "grass", 2: "road"}}]}, "n"
    )
    for column in (pd.array([1, 2, None], "Int64"), [1.0, 2.0, np.nan], ["1", "2.0", None]):
        found = read(frame.assign(use=column), options=SemanticsOptions(crosswalks=(numbers,)))
        assert share(found.cover, "grass") == 4000


def test_survey_counts_areas_by_value() -> None:
    bowtie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    rows = [
        (box(-50, 0, 50, 80), "meadow"),
        (box(50, 0, 60, 80), "lawn"),
        (box(60, 0, 70, 80), "appel"),
        (box(70, 0, 72, 80), None),
        (bowtie, "wood"),
        (LineString([(0, 70), (200, 70)]), "street"),
        (LineString([(0, 75), (200, 75)]), "field"),
        (LineString([(0, 5), (200, 5)]), "appel"),
        (box(900, 0, 990, 80), "appel"),
        (None, "wood"),
    ]
    survey = open_semantics([layer(rows)], FRAME, OPTIONS).survey()
    areas = {value.value: round(value.area, 6) for value in survey.values}
    assert areas == {
        "use=meadow": 4000,
        "use=lawn": 800,
        "use=appel": 800 + 300,
        "": 160,
        "use=wood": 50,
        "use=street": 800,
        "use=field": 300,
    }
    assert [(value.value, value.code, value.features) for value in survey.unmapped] == [
        ("use=appel", UNMAPPED, 2)
    ]
    assert survey.unmapped_area == pytest.approx(1100)
    assert survey.mapped_area == pytest.approx(5950)
    (source,) = survey.sources
    assert (source.features, source.repaired, source.no_width, source.empty) == (8, 1, 1, 1)
    assert survey.to_dict()["values"][0] == {
        "source": "GeoDataFrame",
        "value": "use=meadow",
        "class": "grassland",
        "area": 4000.0,
        "features": 1,
    }


def test_survey_of_a_raster() -> None:
    values = np.array([[1, 1, 3, 0]] * 8, np.uint8)
    survey = open_semantics([raster(values)], FRAME, OPTIONS).survey()
    assert {value.value: (value.area, value.code) for value in survey.values} == {
        "value=1": (1600, CODE["grass"]),
        "value=3": (800, CODE["lake"]),
        "value=0": (800, 0),
    }


def test_survey_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = scene()
    whole = open_semantics([frame], FRAME, OPTIONS).survey()
    small_blocks(monkeypatch, 16)
    areas = prepared(monkeypatch)
    parts = open_semantics([frame], FRAME, OPTIONS).survey()
    assert len(areas) == 42
    assert parts.sources == whole.sources
    by_value = [
        {v.value: (round(v.area, 3), v.features) for v in survey.values}
        for survey in (whole, parts)
    ]
    assert by_value[0] == by_value[1] and len(by_value[0]) > 4


def test_more_than_half_unmapped_is_an_error_unless_allowed() -> None:
    rows = [(box(0, 0, 45, 80), "meadow"), (box(45, 0, 100, 80), "Forêt")]
    reader = open_semantics([layer(rows)], FRAME, OPTIONS)
    with pytest.raises(
        InputError, match=r"55% of the area.*use=foret.*\(4400 m2, 0\.44 ha\).*`allow_unmapped`"
    ):
        reader.survey()
    allowed = open_semantics([layer(rows)], FRAME, replace(OPTIONS, allow_unmapped=True))
    assert allowed.survey().unmapped_area == pytest.approx(4400)


def test_no_overlap_names_both_extents() -> None:
    far = FRAME.pad(0)
    far = replace(far, x=(far.x[0] + 50_000, far.x[1] + 50_000))
    reader = open_semantics([layer(MEADOW)], far, OPTIONS)
    with pytest.raises(
        RegionError, match=r"GeoDataFrame covers W,S,E,N = 11\.5.*the region is W,S,E,N = 12\.2"
    ) as e:
        reader.survey()
    assert "swapped" not in str(e.value)
    assert not reader.read(far).cover.any()
    with pytest.raises(RegionError, match="covers W,S,E,N"):
        open_semantics([cells(1, 1)], far, OPTIONS).survey()


def test_no_overlap_hints_at_swapped_coordinates() -> None:
    swapped = layer(MEADOW).to_crs(4326)
    swapped["geometry"] = shapely.transform(swapped.geometry.values, lambda xy: xy[:, ::-1])
    with pytest.raises(RegionError, match="swapped"):
        open_semantics([swapped], FRAME, OPTIONS).survey()


def test_a_region_between_the_features_is_an_error() -> None:
    frame = layer([(box(-500, -500, -400, -400), "meadow"), (box(400, 400, 500, 500), "meadow")])
    with pytest.raises(RegionError, match=r"no feature of GeoDataFrame lies in the region"):
        open_semantics([frame], FRAME, OPTIONS).survey()


def scene(crs: str = UTM) -> gpd.GeoDataFrame:
    """Three hundred features of all kinds, some broken, in 300 m x 300 m around the frame."""
    rng = np.random.default_rng(11)
    uses = ["meadow", "wood", "field", "homes", "lawn", "house", "house", "pond", "appel"]
    rows: list[tuple] = []
    for _ in range(250):
        corners = rng.uniform(-100, 200, 2) + rng.normal(0, 12, (rng.integers(3, 9), 2))
        rows.append((Polygon(corners), str(rng.choice(uses)), float(rng.choice([0, 5, 12.5]))))
    rows += [(LineString(rng.uniform(-100, 200, (3, 2))), "street", 0.0) for _ in range(20)]
    rows += [(Point(rng.uniform(-100, 200, 2)), "oak", 9.0) for _ in range(40)]
    return layer(rows, ("use", "height")).to_crs(crs)


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.gpkg"
    scene("EPSG:4326").to_file(path)
    return path


windows = st.tuples(
    st.integers(-60, 120), st.integers(-60, 120), st.integers(1, 70), st.integers(1, 70)
)


@settings(max_examples=12, deadline=None)
@given(windows, windows)
def test_a_window_is_the_same_in_every_job(scene_file: Path, window: tuple, job: tuple) -> None:
    frames = [
        replace(FRAME, x=(X + x, X + x + nx), y=(Y + y, Y + y + ny))
        for x, y, nx, ny in (window, job)
    ]
    one = open_semantics([scene_file], FRAME, OPTIONS).read(frames[0])
    two = open_semantics([scene_file], frames[1], OPTIONS).read(frames[0])
    assert same(one, two)


@settings(max_examples=12, deadline=None)
@given(windows)
def test_a_crop_of_a_window_is_the_window_of_the_crop(scene_file: Path, window: tuple) -> None:
    x, y, nx, ny = window
    inner = replace(FRAME, x=(X + x, X + x + nx), y=(Y + y, Y + y + ny))
    reader = open_semantics([scene_file], FRAME, OPTIONS)
    outer = inner.pad(37)
    small, large = reader.read(inner), reader.read(outer)
    # Not only close: painting is done in coordinates of the lattice.
    assert (small.cover == large.cover[outer.slices(inner)]).all()
    assert (small.parcel == large.parcel[outer.slices(inner)]).all()
    assert set(small.buildings.key.tolist()) <= set(large.buildings.key.tolist())


def test_strips_change_nothing(scene_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_semantics([scene_file, cells(1, 3)], FRAME, OPTIONS)
    whole = reader.read(FRAME)
    monkeypatch.setattr(semantics, "STRIP_VOXELS", 700)  # seven rows
    assert same(reader.read(FRAME), whole)


def test_blocks_change_nothing_and_are_read_once(
    scene_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [open_semantics([scene_file], FRAME, OPTIONS).read(window) for window in _tiles(25)]
    small_blocks(monkeypatch, 64)
    monkeypatch.setattr(vector_layer, "MARGIN_VOXELS", 32)
    areas = prepared(monkeypatch)
    reader = open_semantics([scene_file], FRAME, OPTIONS)
    reader.survey()
    assert len(areas) == 9  # the blocks of the job; windows see some around it too
    for window, whole in zip(_tiles(25), expected, strict=True):
        assert same(reader.read(window), whole)
    assert 9 < len(areas) == len(set(areas))
    before = len(areas)
    reader.read(_tiles(25)[-1])
    assert len(areas) == before
    far = replace(FRAME, x=(X - 300, X - 200))
    reader.read(far)
    assert areas[-1].x == (X - 300 - 128, X - 200 + 128)  # outside the job: read for itself


def test_blocks_that_are_not_kept_change_nothing(
    scene_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [scene_file, scene().translate(7, 3).to_frame("geometry").assign(use="house")]
    expected = [open_semantics(sources, FRAME, OPTIONS).read(window) for window in _tiles(100)]
    small_blocks(monkeypatch, 64)
    monkeypatch.setattr(packed_features, "CACHE_BYTES", 1)
    reader = open_semantics(sources, FRAME, OPTIONS)
    assert all(
        same(reader.read(window), whole)
        for window, whole in zip(_tiles(100), expected, strict=True)
    )


def test_kept_blocks_stay_within_their_bytes() -> None:
    block = packed_features.pack(
        packed_features.no_features(), np.empty(0, np.int64), np.empty(0, np.int64)
    )
    each = block.nbytes + packed_features.ENTRY_BYTES
    kept = packed_features.BlockCache(3 * each)
    made: list[int] = []
    for key in (1, 2, 3, 1, 4, 1, 2):
        kept.get(key, lambda key=key: made.append(key) or block)
    assert made == [1, 2, 3, 4, 2]  # 2 was used longest ago when 4 came


def test_a_block_above_the_limit_is_kept_alone() -> None:
    block = packed_features.pack(
        packed_features.no_features(), np.empty(0, np.int64), np.empty(0, np.int64)
    )
    cache = packed_features.BlockCache(1)
    made: list[int] = []
    for key in (1, 1, 2, 2, 1):
        assert cache.get(key, lambda key=key: made.append(key) or block) is block
    assert made == [1, 2, 1]


@pytest.mark.slow
def test_what_is_kept_does_not_grow_with_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 800, (4000, 2))
    houses = layer([(box(x, y, x + 9, y + 7), "house") for x, y in corners])
    small_blocks(monkeypatch, 64)
    monkeypatch.setattr(packed_features, "CACHE_BYTES", 100_000)
    held, largest = [], []
    prepare = vector_layer.prepare

    def spy(*args: object) -> object:
        block = prepare(*args)
        largest.append(len(block.fid))
        return block

    monkeypatch.setattr(vector_layer, "prepare", spy)
    for side in (200, 800):
        frame = Frame(UTM, 1.0, (X, X + side), (Y, Y + side))
        reader = open_semantics([houses], frame, OPTIONS)
        survey = reader.survey()
        for window in (frame.tile(tx, ty, 100) for tx, ty in frame.tiles(100)):
            reader.read(window)
        kept = next(layer._cache for layer in reader._layers)
        held.append(sum(block.nbytes for block in kept._blocks.values()))
    assert survey.sources[0].features == 4000
    assert max(held) <= 100_000 and max(largest) < 80


def test_a_packed_feature_is_the_feature() -> None:
    hole = Polygon(
        [(0, 0), (60, 0), (60, 60), (0, 60)],
        [[(10, 10), (10, 20), (20, 20)], [(30, 30), (30, 40), (40, 40)]],
    )
    shapes = shapely.transform(
        np.array([hole, box(5, 5, 9, 9), hole], object), lambda xy: xy + ORIGIN + 0.1
    )
    codes_ = np.full(3, CODE["grassland"], np.uint8)
    seen = packed_features.WindowFeatures(
        shapes,
        codes_,
        np.arange(3, dtype=np.uint64),
        np.full(3, np.nan),
        np.ones(3, bool),
        unknown_form(3),
        *(
            getattr(packed_features.no_features(), name)
            for name in ("xy", "tree_height", "crown", "tree_key", "ridges")
        ),
    )
    packed = packed_features.pack(seen, np.arange(3), np.zeros(3, np.int64))
    assert shapely.equals_exact(packed.shapes(np.array([2, 0])), shapes[[2, 0]]).all()
    assert len(packed.shapes(np.empty(0, np.int64))) == 0
    bounds = shapely.bounds(shapes)
    assert (packed.boxes[:, :2] <= bounds[:, :2]).all() and (
        packed.boxes[:, 2:] >= bounds[:, 2:]
    ).all()


def test_features_without_geometry_left_count_where_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spike(x: float) -> Polygon:
        return Polygon([(x, 20), (x + 30, 20), (x + 30, 50), (x + 30, 20), (x, 20)])

    rows = [
        (box(0, 0, 100, 80), "meadow"),
        (spike(10), "wood"),
        (spike(50), "wood"),
        (spike(130), "wood"),
    ]
    assert open_semantics([layer(rows)], FRAME, OPTIONS).survey().sources[0].dropped == 2
    small_blocks(monkeypatch, 16)
    assert open_semantics([layer(rows)], FRAME, OPTIONS).survey().sources[0].dropped == 2


def test_a_pickled_reader_holds_no_features(scene_file: Path) -> None:
    reader = open_semantics([scene_file], FRAME, OPTIONS)
    fresh = len(pickle.dumps(reader))
    reader.survey()
    reader.read(FRAME)
    assert len(pickle.dumps(reader)) == fresh < 20_000


def small_blocks(monkeypatch: pytest.MonkeyPatch, voxels: int) -> None:
    monkeypatch.setattr(vector_layer, "BLOCK_VOXELS", voxels)
    monkeypatch.setattr(vector_layer, "BLOCK_METRES", float(voxels))
    monkeypatch.setattr(vector_layer, "SCANNED_METRES", float(voxels))


def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """The areas that are prepared from now on."""
    areas: list[Frame] = []
    prepare = vector_layer.prepare
    monkeypatch.setattr(
        vector_layer, "prepare", lambda *args: areas.append(args[-1]) or prepare(*args)
    )
    return areas


def _tiles(size: int) -> list[Frame]:
    return [FRAME.tile(tx, ty, size) for tx, ty in FRAME.tiles(size)]


def test_threads_and_processes_read_the_same(scene_file: Path) -> None:
    sources = [scene_file, cells(1, 3)]
    reader = open_semantics(sources, FRAME, OPTIONS)
    expected = [open_semantics(sources, FRAME, OPTIONS).read(window) for window in _tiles(25)]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(reader.read, _tiles(25)), expected))
    again = pickle.loads(pickle.dumps(reader))
    assert same(again.read(_tiles(25)[3]), expected[3])


needs_data = pytest.mark.skipif(
    not SHARED.exists(), reason="the real data is not beside the checkout"
)
BUILTIN = SemanticsOptions(crosswalks=builtin_crosswalks())


@needs_data
def test_bayreuth_from_two_files_is_the_same() -> None:
    frame = Frame("EPSG:32632", 1.0, (683476, 685476), (5538883, 5540883))
    one = open_semantics([BAYREUTH / "landuse_4326.shp"], frame, BUILTIN)
    two = open_semantics([f"{BAYREUTH / 'landuse_utm.gpkg'}:landuse"], frame, BUILTIN)
    a, b = one.read(frame), two.read(frame)
    assert (a.cover == b.cover).mean() >= 0.999
    assert (a.parcel == b.parcel).mean() >= 0.99
    assert (a.cover > 0).mean() > 0.95 and len(np.unique(a.cover)) >= 7
    assert one.survey().unmapped_area < 0.05 * one.survey().mapped_area


@needs_data
def test_bayreuth_with_roads_and_buildings() -> None:
    frame = Frame("EPSG:32632", 2.0, (343108, 343620), (2769512, 2770024))
    sources = [f"{BAYREUTH / 'osm_4326.gpkg'}:{name}" for name in ("landuse", "buildings", "lines")]
    found = open_semantics(sources, frame, BUILTIN).read(frame)
    assert len(found.buildings) > 100 and np.isnan(found.buildings.height).all()
    assert share(found.cover, "road") > 1000 and share(found.cover, "building") > 1000


@needs_data
def test_annedal_raster_with_footprints() -> None:
    frame = Frame("EPSG:3006", 1.0, (318489, 318885), (6398349, 6398745))
    umep = tuple(legend for legend in builtin_crosswalks() if legend.name == "umep")
    sources = [ANNEDAL / "groundcover.tif", ANNEDAL / "buildings.shp"]
    reader = open_semantics(sources, frame, replace(BUILTIN, legends=umep))
    found = reader.read(frame)
    assert (found.cover > 0).all() and len(found.buildings) > 100
    with rasterio.open(ANNEDAL / "groundcover.tif") as dataset:
        paved = dataset.read(1).repeat(2, axis=0).repeat(2, axis=1) == 1
    assert (found.cover[paved] == CODE["paved"]).mean() > 0.95  # but where a footprint lies over it
    assert {source.meets for source in reader.survey().sources} == {True}


@needs_data
def test_delft() -> None:
    frame = Frame("EPSG:28992", 0.5, (169700, 170200), (894900, 895400))
    reader = open_semantics([DELFT / "delft_landuse_merged.gpkg"], frame, BUILTIN)
    found = reader.read(frame)
    assert reader.summary()["sources"][0]["legend"] == "bgt"
    assert len(found.buildings) > 50
    assert {"building", "road", "paved", "grass"} & {
        n for n, c in CODE.items() if c in np.unique(found.cover)
    }
    assert reader.survey().unmapped_area < 0.1 * reader.survey().mapped_area


@needs_data
def test_bd_topo_folder() -> None:
    frame = Frame("EPSG:2154", 1.0, (663552, 664576), (6359040, 6360064))
    names = [
        "ZONE_DE_VEGETATION",
        "SURFACE_HYDROGRAPHIQUE",
        "TERRAIN_DE_SPORT",
        "TRONCON_DE_ROUTE",
        "BATIMENT",
    ]
    reader = open_semantics([BDTOPO / f"{name}.shp" for name in names], frame, BUILTIN)
    found = reader.read(frame)
    assert share(found.cover, "road") > 1000  # the layer without .dbf goes by its name
    assert (
        share(found.cover, "broadleaf_forest") + share(found.cover, "mixed_forest") > 10_000
    )  # mis-encoded
    # HAUTEUR is the height of the eaves.
    heights = np.fmax(found.buildings.height, found.buildings.form["eaves"])
    assert len(heights) > 300 and np.isfinite(heights).mean() > 0.5 and np.nanmedian(heights) > 3
    assert reader.survey().unmapped_area < 0.1 * reader.survey().mapped_area
