"""A file of regions, a feature a region: what is read, what is refused; and the cells of a grid."""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from geo_io.errors import EarthgenError, InputError, MissingCrsError, MissingFileError, RegionError
from geo_io.frame import Frame
from geo_io.region.features import RegionFeature, grid_cells, read_regions
from geo_io.region.file import inside
from geo_io.region.region import frame_from_polygons

UTM = "EPSG:32632"
X, Y = 683_000.0, 5_538_000.0
SETTINGS = frozenset(
    {"seed", "voxel_size", "crs", "geometry", "class_field", "band", "geometry_options", "yes"}
)


def square(
    east: float = 0, north: float = 0, size: float = 100, height: float | None = None
) -> shapely.Polygon:
    return shapely.box(X + east, Y + north, X + east + size, Y + north + (height or size))


def table(geometry: Sequence[Any], crs: str | None = UTM, **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs=crs)


def write(
    path: Path,
    geometry: Sequence[Any],
    crs: str | None = UTM,
    layer: str | None = None,
    **columns: Any,
) -> Path:
    options = {} if layer is None else {"layer": layer}
    table(geometry, crs, **columns).to_file(path, **options)
    return path


def read(source: Any, **options: Any) -> list[RegionFeature]:
    return read_regions(source, settings=SETTINGS, **options)


def refused(kind: type[EarthgenError], source: Any, *words: str, **options: Any) -> EarthgenError:
    """The error, which must be of this very kind, hold the words in its problem, and have a
    remedy."""
    with pytest.raises(EarthgenError) as caught:
        read(source, **options)
    error = caught.value
    assert type(error) is kind, error
    for word in words:
        assert word in error.problem, error
    assert error.remedy
    return error


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet"])
def test_features_and_their_settings(tmp_path: Path, suffix: str) -> None:
    frame = table(
        [square(), square(200), square(400)],
        NAME=["Süd/Ost", "b 2", "c"],
        seed=[2**53 + 1, 5, 7],
        voxel_size=[0.5, 2.0, np.nan],
        class_field=["use", None, " "],
        owner=["x", "y", "z"],
    )
    path = tmp_path / f"regions.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the shapefile cuts class_field
            frame.to_file(path)
    found = read(path)
    assert [region.number for region in found] == [1, 2, 3]
    if suffix == "fgb":  # whose writer sorts by place
        found.sort(key=lambda region: region.name)
    assert [region.name for region in found] == ["Süd_Ost", "b_2", "c"]
    assert [region.attributes for region in found] == [
        {"seed": 2**53 + 1, "voxel_size": 0.5, "class_field": "use"},
        {"seed": 5, "voxel_size": 2.0},
        {"seed": 7},
    ]
    assert {type(value) for region in found for value in region.attributes.values()} == {
        int,
        float,
        str,
    }
    assert all(region.crs == UTM for region in found)
    assert shapely.equals(found[1].geometry, square(200))


def test_integers_beside_nulls_stay_integers(tmp_path: Path) -> None:
    seed = pd.array([2**62 + 1, None], dtype="Int64")
    for path in (tmp_path / "a.gpkg", tmp_path / "a.geojson"):
        found = read(write(path, [square(), square(200)], seed=seed))
        assert [region.attributes for region in found] == [{"seed": 2**62 + 1}, {}]
    frame = table([square(), square(200)], seed=[3, 4], yes=[True, False], voxel_size=[2.0, 1.0])
    found = read(frame)
    assert [region.attributes for region in found] == [
        {"seed": 3, "yes": True, "voxel_size": 2.0},
        {"seed": 4, "yes": False, "voxel_size": 1.0},
    ]
    assert {type(value) for region in found for value in region.attributes.values()} == {
        int,
        bool,
        float,
    }


def test_geojson_keeps_lists_objects_and_a_property_called_geometry(tmp_path: Path) -> None:
    properties = {"Geometry": "core", "band": [-16, 100], "geometry_options": {"trees": False}}
    shape = json.loads(shapely.to_geojson(shapely.box(11.5, 49.9, 11.51, 49.91)))
    path = tmp_path / "a.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [{"type": "Feature", "properties": properties, "geometry": shape}],
            }
        )
    )
    region = read(path)[0]
    assert region.attributes == {
        "geometry": "core",
        "band": [-16, 100],
        "geometry_options": {"trees": False},
    }
    assert region.crs == "EPSG:4326"


def test_a_geopackage_column_called_geometry_is_a_setting(tmp_path: Path) -> None:
    frame = table([square()], mode=["core"])
    path = tmp_path / "a.gpkg"
    frame.to_file(path, layer="a")
    with sqlite3.connect(path) as base:
        base.execute("ALTER TABLE a RENAME COLUMN mode TO geometry")
    region = read(path)[0]
    assert region.attributes == {"geometry": "core"}
    assert shapely.equals(region.geometry, square())


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({}, ["region-1", "region-2"]),
        ({"Name": ["a", None], "ID": [7, 8]}, ["7", "8"]),
        ({"id": [7.0, 8.5]}, ["7", "8.5"]),
        ({"region": ["n", "s"], "id": [1, 2]}, ["1", "2"]),
        ({"name": ["", "b"]}, ["region-1", "region-2"]),
        ({"name": ["../x", ".."]}, ["_._x", "__"]),
        ({"name": ["-rf", "CON"]}, ["_rf", "_CON"]),
        ({"name": ["Nord", "nord"]}, ["Nord-1", "nord-2"]),
        ({"name": ["a b", "a/b"]}, ["a_b-1", "a_b-2"]),
        ({"name": ["दिल्ली", "東京"]}, ["दिल्ली", "東京"]),
    ],
)
def test_names(columns: dict[str, Any], names: list[str]) -> None:
    assert [region.name for region in read(table([square(), square(200)], **columns))] == names


@limits(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(max_size=300).filter(str.strip),
        min_size=1,
        max_size=6,
        unique_by=lambda text: text.strip(),
    )
)
def test_any_names_make_different_folders(texts: list[str]) -> None:
    frame = table([square(200 * i) for i in range(len(texts))], name=texts)
    try:
        names = [region.name for region in read(frame)]
    except RegionError as error:  # two spellings of the same letters
        assert "same name" in error.problem
        return
    assert len({name.casefold() for name in names}) == len(texts)
    for name in names:
        assert (
            name
            and name == Path(name).name
            and not name.startswith((".", "-"))
            and len(name.encode()) < 255
        )


def test_invalid_polygons_are_repaired_and_collections_give_their_polygons() -> None:
    bow = shapely.Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10)])
    mixed = shapely.GeometryCollection([square(200), shapely.Point(X, Y), square(300)])
    high = shapely.force_3d(square(500), 7)
    found = read(table([bow, mixed, high]))
    assert all(region.geometry.is_valid and not region.geometry.has_z for region in found)
    assert found[0].geometry.area == pytest.approx(50)
    assert found[1].geometry.area == pytest.approx(20_000)
    assert found[1].geometry.geom_type in ("Polygon", "MultiPolygon")


def test_a_layer_is_named_or_the_only_one_with_polygons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [shapely.Point(X, Y)], layer="points")
    write(path, [square(), square(200)], layer="parts")
    assert len(read(path)) == 2
    write(path, [square()], layer="whole")
    assert len(read(f"{path}:whole")) == 1


def test_a_crs_may_be_assumed_and_a_column_of_them_is_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.shp", [square()], crs=None)
    assert read(path, assume_crs=UTM)[0].crs == UTM
    found = read(
        table([square(), square(200)], crs_=["EPSG:32632", "EPSG:25832"]).rename(
            columns={"crs_": "CRS"}
        )
    )
    assert [region.attributes for region in found] == [{"crs": "EPSG:32632"}, {"crs": "EPSG:25832"}]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refused(MissingFileError, tmp_path / "no.gpkg", "no.gpkg", "does not exist")
    text = tmp_path / "text.gpkg"
    text.write_text("not a GeoPackage")
    refused(InputError, text, "text.gpkg", "cannot be read")
    raster = tmp_path / "dem.tif"
    with rasterio.open(
        raster, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8"
    ) as file:
        file.write(np.zeros((1, 2, 2), np.uint8))
    refused(InputError, raster, "dem.tif")
    good = write(tmp_path / "a.gpkg", [square()], layer="parts")
    refused(InputError, f"{good}:part", "a.gpkg", "'part'", "parts")


def test_no_features(tmp_path: Path) -> None:
    refused(RegionError, write(tmp_path / "a.gpkg", []), "a.gpkg", "no features")


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_no_polygons(tmp_path: Path, suffix: str) -> None:
    line = shapely.LineString([(X, Y), (X + 1, Y)])
    refused(
        RegionError, write(tmp_path / f"a.{suffix}", [line]), "a.", "no polygons, but LineString"
    )
    path = write(tmp_path / "b.gpkg", [line], layer="roads")
    write(path, [shapely.Point(X, Y)], layer="trees")
    refused(
        RegionError, path, "b.gpkg has no layer of polygons", "roads (LineString)", "trees (Point)"
    )


def test_one_that_is_no_polygon(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", [square(), shapely.Point(X, Y)], name=["a", "b"])
    refused(RegionError, path, "a.geojson", "not polygons but Point: 2 'b'")


def test_no_crs(tmp_path: Path) -> None:
    error = refused(
        MissingCrsError, write(tmp_path / "a.shp", [square()], crs=None), "a.shp", "no CRS record"
    )
    assert "`assume_crs`" in error.remedy


def test_several_layers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square()], layer="west")
    write(path, [square()], layer="east")
    error = refused(InputError, path, "a.gpkg has 2 layers of polygons: west, east")
    assert f"{path}:west" in error.remedy


def test_layers_with_mixed_crs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", [square()], layer="west")
    write(path, [square()], crs="EPSG:32633", layer="east")
    error = refused(InputError, path, "mixed CRSs", "west (EPSG:32632)", "east (EPSG:32633)")
    assert f"{path}:west" in error.remedy


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp"])
def test_empty_and_null_geometry(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"a.{suffix}", [square(), None, shapely.Polygon()], name=["a", "b", "c"]
    )
    refused(
        RegionError, path, f"a.{suffix}", "without geometry, or with a broken one: 2 'b', 3 'c'"
    )
    refused(RegionError, table([None, square()]), "without geometry", ": 1")


def test_a_list_of_features_names_three_and_the_count() -> None:
    frame = table([square(), None, None, None, None, None], name=list("abcdef"))
    refused(
        RegionError, frame, "without geometry, or with a broken one: 2 'b', 3 'c', 4 'd' and 2 more"
    )


def test_a_ring_that_is_none_is_named(tmp_path: Path) -> None:
    ring = [[11, 49], [11.1, 49]]
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    refused(RegionError, path, "a.geojson", "broken", ": 1")


def test_text_in_another_encoding_than_said_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    table([square()], name=["Süd"]).to_file(path, encoding="ISO-8859-1")
    path.with_suffix(".cpg").write_text("UTF-8")
    assert read(path)[0].name == "Süd"


def test_no_area(tmp_path: Path) -> None:
    flat = shapely.Polygon([(X, Y), (X + 10, Y), (X + 5, Y)])
    refused(
        RegionError,
        write(tmp_path / "a.gpkg", [square(), flat], id=[1, 2]),
        "a.gpkg",
        "without area: 2 '2'",
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", ["gpkg", "parquet"])
def test_coordinates_that_are_no_numbers(tmp_path: Path, suffix: str, bad: float) -> None:
    wild = shapely.Polygon([(X, Y), (X + 10, Y), (bad, Y + 5), (X, Y + 10)])
    frame = table([square(), wild], name=["a", "b"])
    path = tmp_path / f"a.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    refused(RegionError, path, f"a.{suffix}", "not finite numbers: 2 'b'")


def test_the_same_name_twice(tmp_path: Path) -> None:
    shapes = [square(200 * i) for i in range(6)]
    path = write(tmp_path / "a.gpkg", shapes, name=["a", "a", "b", "b", "a", "a "])
    refused(
        RegionError,
        path,
        "a.gpkg",
        "same name",
        "4 pairs",
        "1 'a' and 2 'a'; 3 'b' and 4 'b'; 1 'a' and 5 'a'",
    )


def test_the_same_geometry_twice(tmp_path: Path) -> None:
    other_start = shapely.Polygon(np.roll(shapely.get_coordinates(square())[:-1], 1, axis=0))
    path = write(
        tmp_path / "a.gpkg",
        [square(), square(200), other_start],
        name=["a", "b", "c"],
        seed=[1, 1, 1],
    )
    refused(
        RegionError,
        path,
        "a.gpkg",
        "same geometry",
        "1 pair",
        "1 'a' and 3 'c'",
        allow_overlap=True,
    )
    # With other settings it is an overlap like any other.
    path = write(tmp_path / "b.gpkg", [square(), other_start], name=["a", "c"], seed=[1, 2])
    refused(RegionError, path, "overlap", "1 'a' and 2 'c'")
    assert len(read(path, allow_overlap=True)) == 2


def test_geojson_s_two_columns_for_a_setting_of_different_case(tmp_path: Path) -> None:
    shape = json.loads(shapely.to_geojson(shapely.box(11.5, 49.9, 11.51, 49.91)))
    feature = {"type": "Feature", "properties": {"seed": 1, "SEED": 2}, "geometry": shape}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    refused(InputError, path, "a.geojson", "'seed' and 'SEED'")


def test_two_columns_for_a_setting(tmp_path: Path) -> None:
    frame = table([square()], seed=[1], Seed=[2])
    path = tmp_path / "a.parquet"
    frame.to_parquet(path)
    refused(InputError, path, "a.parquet", "'seed' and 'Seed'")


def test_overlaps_name_three_pairs_and_the_count(tmp_path: Path) -> None:
    shapes = [square(60 * i) for i in range(6)]
    path = write(tmp_path / "a.gpkg", shapes, name=list("abcdef"))
    error = refused(
        RegionError,
        path,
        "a.gpkg",
        "overlap",
        "5 pairs",
        "1 'a' and 2 'b'; 2 'b' and 3 'c'; 3 'c' and 4 'd'",
    )
    assert "'e'" not in error.problem
    assert "`allow_overlap`" in error.remedy
    assert len(read(path, allow_overlap=True)) == 6


@pytest.mark.parametrize(
    ("other", "voxel_size", "overlap"),
    [
        (square(100), 1.0, False),  # an edge in common
        (square(100, 100), 1.0, False),  # a corner
        (square(99.2), 1.0, False),  # a sliver of 0.8 m and 0.8 %
        (square(99.2), 0.5, True),  # the same, wider than a voxel
        (square(98.5), 1.0, True),
        (square(98.5), 2.0, True),  # narrower than a voxel, but 1.5 %
        (square(99.9, 40, size=4, height=4), 1.0, True),  # 0.1 m, but 2.5 % of the smaller
        (square(40, 40, size=2), 1.0, True),  # one within the other
    ],
)
def test_what_is_an_overlap(other: shapely.Polygon, voxel_size: float, overlap: bool) -> None:
    frame = table([square(), other])
    if overlap:
        refused(RegionError, frame, "overlap", "1 and 2", voxel_size=voxel_size)
    else:
        assert len(read(frame, voxel_size=voxel_size)) == 2


def test_a_feature_s_own_voxel_size_decides_its_slivers() -> None:
    refused(RegionError, table([square(), square(99.2)], voxel_size=[0.5, 0.5]), "overlap")
    assert len(read(table([square(), square(99.2)], voxel_size=[0.5, 1.0]))) == 2


def test_overlaps_count_within_one_crs_only() -> None:
    # On both sides of the border of the zones 32 and 33, at 12° east.
    west, east = shapely.box(11.9, 50, 12.02, 50.1), shapely.box(11.98, 50, 12.1, 50.1)
    frame = table([west, east], crs="EPSG:4326")
    assert len(read(frame)) == 2
    refused(RegionError, frame, "overlap", crs="EPSG:25832")
    frame["CRS"] = ["EPSG:32633", None]
    refused(RegionError, frame, "overlap")
    frame["CRS"] = ["EPSG:32632", "EPSG:25832"]
    assert len(read(frame)) == 2


def test_overlaps_are_found_across_the_antimeridian() -> None:
    def place(west: float, east: float) -> shapely.Polygon:
        ring = [(west, -17), (east, -17), (east, -16.9), (west, -16.9)]
        return shapely.Polygon([((lon + 180) % 360 - 180, lat) for lon, lat in ring])

    found = read(table([place(179.95, 180.05), place(180.05, 180.1)], crs="EPSG:4326"))
    assert found[0].geometry.bounds == pytest.approx((179.95, -17, 180.05, -16.9))
    assert frame_from_polygons(found[0].geometry, found[0].crs)[0].area_km2 < 130
    halves = shapely.MultiPolygon(
        [shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.9, -16.9)]
    )
    joined = read(table([halves], crs="EPSG:4326"))[0].geometry
    assert joined.equals(shapely.box(179.9, -17, 180.1, -16.9))
    refused(
        RegionError, table([place(179.95, 180.05), place(180.0, 180.1)], crs="EPSG:4326"), "overlap"
    )


def test_ten_thousand_neighbours_take_seconds() -> None:
    """A grid in degrees: the borders are shared, 40,000 pairs touch, and none overlaps."""
    east, north = np.meshgrid(11 + 0.01 * np.arange(100), 49 + 0.01 * np.arange(100))
    shapes = shapely.box(east.ravel(), north.ravel(), east.ravel() + 0.01, north.ravel() + 0.01)
    frame = table(
        shapes,
        crs="EPSG:4326",
        name=[f"r{i}" for i in range(len(shapes))],
        seed=np.arange(len(shapes)),
    )
    start = time.process_time()
    assert len(read(frame)) == 10_000
    assert time.process_time() - start < 30  # a few seconds; all pairs would take hours
    frame.loc[5_000, "geometry"] = shapely.box(11, 49.5, 11.015, 49.51)
    refused(RegionError, frame, "1 pair", "5001 'r5000' and 5002 'r5001'")


def test_everything_over_everything_ends_soon() -> None:
    shapes = [square(i * 0.01, size=1000) for i in range(3000)]
    start = time.process_time()
    refused(RegionError, table(shapes), "at least 1000 pairs")
    assert time.process_time() - start < 30


def test_cells_lie_on_the_lattice_of_the_crs() -> None:
    frame = Frame(UTM, 1.0, (682_500, 684_200), (5_537_900, 5_539_000))
    cells = dict(grid_cells(frame, 1000))
    assert list(cells) == [
        "x+0682_y+5537",
        "x+0683_y+5537",
        "x+0684_y+5537",
        "x+0682_y+5538",
        "x+0683_y+5538",
        "x+0684_y+5538",
    ]
    assert cells["x+0682_y+5537"] == (682_500, 5_537_900, 683_000, 5_538_000)
    assert cells["x+0683_y+5538"] == (683_000, 5_538_000, 684_000, 5_539_000)
    assert grid_cells(Frame(UTM, 0.25, (-4, 4), (-4, 0)), 1)[0][0] == "x-0000001_y-0000001"
    assert grid_cells(Frame(UTM, 2.5, (0, 5), (0, 5)), 7.5) == [
        ("x+0000000_y+0000000", (0.0, 0.0, 7.5, 7.5)),
        ("x+0000001_y+0000000", (7.5, 0.0, 12.5, 7.5)),
        ("x+0000000_y+0000001", (0.0, 7.5, 7.5, 12.5)),
        ("x+0000001_y+0000001", (7.5, 7.5, 12.5, 12.5)),
    ]


@limits(max_examples=40, deadline=None)
@given(
    x=st.integers(-300, 300),
    y=st.integers(-300, 300),
    nx=st.integers(1, 200),
    ny=st.integers(1, 200),
    size=st.integers(8, 90),
    voxel=st.sampled_from([0.5, 1.0, 0.1, 2.5]),
    pad=st.integers(0, 50),
)
def test_cells_tile_the_frame_whatever_is_asked_for(
    x: int, y: int, nx: int, ny: int, size: int, voxel: float, pad: int
) -> None:
    frame = Frame(UTM, voxel, (x, x + nx), (y, y + ny))
    cells = grid_cells(frame, size * voxel)
    assert len(dict(cells)) == len(cells)
    covered = np.zeros(frame.shape, int)
    for _, bounds in cells:
        part = frame.crop(bounds)
        assert part is not None and part.bounds == bounds
        covered[frame.slices(part)] += 1
    assert (covered == 1).all()
    wider = {name: frame.crop(bounds) for name, bounds in grid_cells(frame.pad(pad), size * voxel)}
    assert {name: frame.crop(bounds) for name, bounds in cells}.items() <= wider.items()


@limits(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40)), min_size=3, max_size=6))
@example([(0.0, -2.8e-190), (1.0, 0.0), (0.0, 1.0)])  # a sliver, which GEOS cannot shrink
@example([(1.0, 32.0), (3.8e-295, 9.0), (0.0, 0.0), (26.0, 0.0), (0.0, 9.0)])
def test_cells_of_a_region_are_those_that_hold_its_voxels(
    corners: list[tuple[float, float]],
) -> None:
    region = shapely.make_valid(shapely.Polygon(corners))
    frame = Frame(UTM, 1.0, (-40, 40), (-40, 40))
    expected = []
    for name, bounds in grid_cells(frame, 16):
        part = frame.crop(bounds)
        if part is not None and inside(part, region).any():
            expected.append(name)
    if expected:
        assert [name for name, _ in grid_cells(frame, 16, region)] == expected
    else:
        with pytest.raises(RegionError, match="no cell"):
            grid_cells(frame, 16, region)


@pytest.mark.parametrize("cell", [2.3, 0.0, -10.0, 0.4, float("nan"), float("inf"), 1000.5])
def test_a_cell_must_be_a_multiple_of_the_voxel(cell: float) -> None:
    with pytest.raises(RegionError, match="multiple of the voxel size"):
        grid_cells(Frame(UTM, 1.0, (0, 10), (0, 10)), cell)


def test_too_many_cells() -> None:
    with pytest.raises(RegionError, match="4000000 cells"):
        grid_cells(Frame(UTM, 1.0, (0, 2000), (0, 2000)), 1)
