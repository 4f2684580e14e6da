"""Reading vector files, what their attributes mean, and painting them."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.legend import normalise
from geo_io.semantics.heights import choose_heights
from geo_io.vector import parquet
from geo_io.vector.source import open_vector, split_layer

UTM = "EPSG:32632"
X, Y = 683000.0, 5539000.0
ORIGIN = np.array([X, Y])
SHARED = Path(__file__).parents[3].parent / "shared" / "data"
BDTOPO = SHARED / "bdtopo_olemps_vectors"


def squares(n: int = 6, crs: str | None = UTM) -> gpd.GeoDataFrame:
    """n squares of 10 m in a row, 20 m apart, from (X, Y) eastwards."""
    shapes = [box(X + 20 * i, Y, X + 20 * i + 10, Y + 10) for i in range(n)]
    return gpd.GeoDataFrame(
        {"class": [f"c{i}" for i in range(n)], "n": range(n)}, geometry=shapes, crs=crs
    )


@pytest.mark.parametrize(
    ("text", "path", "layer"),
    [
        ("a.gpkg", "a.gpkg", None),
        ("a.gpkg:roads", "a.gpkg", "roads"),
        ("dir/a.gpkg:roads", "dir/a.gpkg", "roads"),
        ("C:\\data\\a.gpkg", "C:\\data\\a.gpkg", None),
        ("C:\\data\\a.gpkg:roads", "C:\\data\\a.gpkg", "roads"),
        ("C:/data/a.shp", "C:/data/a.shp", None),
        ("D:a.shp", "D:a.shp", None),
        ("https://example.org/a.gpkg", "https://example.org/a.gpkg", None),
        ("https://example.org:8080/a.gpkg", "https://example.org:8080/a.gpkg", None),
        ("https://example.org/a.gpkg:roads", "https://example.org/a.gpkg", "roads"),
        ("http://example.org:80", "http://example.org:80", None),
    ],
)
def test_split_layer(text: str, path: str, layer: str | None) -> None:
    assert split_layer(text) == (path, layer)


def test_split_layer_believes_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "a:b.gpkg"
    file.touch()
    assert split_layer(file) == (str(file), None)
    assert split_layer(f"{file}:x") == (str(file), "x")
    plain = tmp_path / "c.gpkg"
    plain.touch()
    assert split_layer(f"{plain}:ns:roads/minor") == (str(plain), "ns:roads/minor")


WRITERS = {
    "a.shp": lambda frame, path: frame.to_file(path),
    "a.gpkg": lambda frame, path: frame.to_file(path, layer="things"),
    "a.geojson": lambda frame, path: frame.to_crs(4326).to_file(
        path, driver="GeoJSON", COORDINATE_PRECISION=9
    ),
    "a.fgb": lambda frame, path: frame.to_file(path, driver="FlatGeobuf"),
    "a.sqlite": lambda frame, path: frame.to_file(path, driver="SQLite", SPATIALITE="NO"),
    "a.parquet": lambda frame, path: frame.to_parquet(path),
    "b.parquet": lambda frame, path: frame.to_parquet(
        path, write_covering_bbox=True, row_group_size=2
    ),
    "c.parquet": lambda frame, path: frame.to_parquet(path, geometry_encoding="geoarrow"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_alike(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](squares(), path)
    source = open_vector(path)
    assert source.feature_count == 6
    assert {"class", "n"} <= set(source.fields)
    # A box in degrees becomes a wider one in metres, never a narrower.
    np.testing.assert_allclose(source.bounds_in(UTM), (X, Y, X + 110, Y + 10), atol=5)
    found = source.read(UTM, (X + 15, Y, X + 45, Y + 5), ["class"])
    assert sorted(found["class"]) == ["c1", "c2"]
    assert list(found.index) == [0, 1]
    assert found.crs == pyproj.CRS(UTM)
    expected = squares().set_index("class").loc[found["class"]].geometry.values
    assert shapely.area(shapely.symmetric_difference(found.geometry.values, expected)).max() < 0.01
    assert len(source.head(3)) == 3
    assert sorted(source.head(99)["class"]) == [
        "c0",
        "c1",
        "c2",
        "c3",
        "c4",
        "c5",
    ]  # FlatGeobuf reorders
    assert len(source.read(UTM, (X - 500, Y, X - 400, Y + 5))) == 0
    assert source.count_empty() == 0


def test_frame_in_memory_reads_alike() -> None:
    source = open_vector(squares().iloc[::-1].set_index(pd.Index(list("fedcba"))))
    assert source.read(UTM, (X + 15, Y, X + 45, Y + 5))["class"].tolist() == ["c2", "c1"]
    assert source.head(1)["class"].tolist() == ["c5"]


def test_parquet_reads_only_the_row_groups_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = squares(10)
    frame["geometry"] = shapely.transform(
        frame.geometry.values, lambda xy: (xy - ORIGIN) * 100 + ORIGIN
    )
    frame.to_parquet(tmp_path / "a.parquet", write_covering_bbox=True, row_group_size=2)
    groups = []
    read = pq.ParquetFile.iter_batches

    def spy(file: pq.ParquetFile, *args: object, **options: object) -> object:
        groups.extend(options["row_groups"])
        return read(file, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    source = open_vector(tmp_path / "a.parquet")
    assert groups == []
    assert source.read(UTM, (X + 8200, Y, X + 8800, Y + 5))["class"].tolist() == ["c4"]
    assert groups == [2]


@pytest.mark.parametrize("columns", [["class", "n"], ["n"], []])
def test_parquet_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str]
) -> None:
    squares(11).to_parquet(tmp_path / "a.parquet", row_group_size=5)
    bounds = (X + 15, Y, X + 190, Y + 5)
    source = open_vector(tmp_path / "a.parquet")
    whole, head = source.features(UTM, bounds, columns), source.head(8)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 2)
    parts = source.features(UTM, bounds, columns)
    assert parts.fid.tolist() == whole.fid.tolist() == list(range(1, 10))
    pd.testing.assert_frame_equal(parts.table, whole.table)
    pd.testing.assert_frame_equal(source.head(8), head)
    assert len(head) == 8


def test_which_files_are_gone_through_for_every_box(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(squares(), tmp_path / name)
    indexed = {name: open_vector(tmp_path / name).indexed for name in WRITERS}
    assert {name for name, yes in indexed.items() if yes} == {"a.gpkg", "a.fgb", "b.parquet"}
    assert open_vector(squares()).indexed


def test_an_ogr_window_does_not_load_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyogrio

    frame = squares(3)
    far = frame.set_geometry(frame.translate(1e5))
    pd.concat([frame, far]).to_file(tmp_path / "a.shp")
    rows = []
    read = pyogrio.read_dataframe

    def spy(*args: object, **options: object) -> pd.DataFrame:
        table = read(*args, **options)
        rows.append(len(table))
        return table

    monkeypatch.setattr(pyogrio, "read_dataframe", spy)
    assert len(open_vector(tmp_path / "a.shp").read(UTM, (X, Y, X + 50, Y + 5))) == 3
    assert rows == [3]


def test_order_is_that_of_the_file_whatever_the_index_returns(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    xy = ORIGIN + rng.uniform(0, 1000, (500, 2))
    frame = gpd.GeoDataFrame(
        {"n": range(500)}, geometry=shapely.buffer(shapely.points(xy), 3), crs=UTM
    )
    frame.to_file(tmp_path / "a.gpkg")
    bounds = (X + 100, Y + 100, X + 800, Y + 800)
    order = open_vector(tmp_path / "a.gpkg").read(UTM, bounds)["n"].tolist()
    assert order == sorted(order)
    assert order == open_vector(frame).read(UTM, bounds)["n"].tolist()


def test_layers(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    squares().to_file(path, layer="roads")
    pd_only = gpd.GeoDataFrame({"x": [1]})
    import pyogrio

    pyogrio.write_dataframe(pd_only, path, layer="table", append=False)
    assert open_vector(path).layer == "roads"  # the only one with geometry
    with pytest.raises(InputError, match=r"'table'.*has no geometry"):
        open_vector(f"{path}:table")
    squares().to_file(path, layer="houses")
    with pytest.raises(InputError, match=r"several layers: roads, houses.*a\.gpkg:roads"):
        open_vector(path)
    with pytest.raises(
        InputError, match=r"'hauses'.*does not exist.*roads, houses.*did you mean 'houses'"
    ):
        open_vector(f"{path}:hauses")
    assert open_vector(f"{path}:houses").name == f"{path}:houses"
    assert open_vector(path, layer="houses").layer == "houses"


def test_a_folder_of_shapefiles_is_a_file_with_layers(tmp_path: Path) -> None:
    squares().to_file(tmp_path / "a.shp")
    squares(2).to_file(tmp_path / "b.shp")
    assert open_vector(f"{tmp_path}:b").feature_count == 2


def test_named_errors_for_files(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.shp does not exist"):
        open_vector(tmp_path / "nothing.shp")
    text = tmp_path / "a.txt"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"a\.txt cannot be read as a vector file"):
        open_vector(text)
    squares().to_file(tmp_path / "a.shp")
    (tmp_path / "a.shx").unlink()
    with pytest.raises(InputError, match=r"its \.shx is missing"):
        open_vector(tmp_path / "a.shp")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="Parquet file without geometry"):
        open_vector(tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read as a Parquet file"):
        open_vector(tmp_path / "broken.parquet")


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_crs_is_never_guessed(tmp_path: Path) -> None:
    squares(crs=None).to_file(tmp_path / "metres.shp")
    with pytest.raises(MissingCrsError, match=r"has no CRS record.*`assume_crs`") as caught:
        open_vector(tmp_path / "metres.shp")
    assert "4326" not in str(caught.value)
    source = open_vector(tmp_path / "metres.shp", assume_crs=UTM)
    assert source.crs == UTM
    degrees = gpd.GeoDataFrame({"a": [1]}, geometry=[box(11, 49, 12, 50)])
    degrees.to_file(tmp_path / "degrees.gpkg")
    with pytest.raises(MissingCrsError, match=r"look like longitude and latitude.*EPSG:4326"):
        open_vector(tmp_path / "degrees.gpkg")
    with pytest.raises(MissingCrsError):
        open_vector(degrees)


def test_assumed_crs_does_not_override_a_record(tmp_path: Path) -> None:
    squares().to_file(tmp_path / "a.gpkg")
    assert open_vector(tmp_path / "a.gpkg", assume_crs="EPSG:3006").crs == UTM


def test_wrong_prj_is_found_out(tmp_path: Path) -> None:
    squares().to_file(tmp_path / "a.shp")
    (tmp_path / "a.prj").write_text(pyproj.CRS(4326).to_wkt("WKT1_ESRI"))
    with pytest.raises(
        InputError, match=r"in degrees, but its bounds are \(683000\.0, .*\.prj.* is wrong"
    ):
        open_vector(tmp_path / "a.shp")


def test_compound_crs_is_read_as_its_horizontal_part() -> None:
    assert (
        open_vector(squares(crs="EPSG:25832").set_crs("EPSG:5555", allow_override=True)).crs
        == "EPSG:25832"
    )


def test_parquet_crs_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    squares().to_crs(4326).to_parquet(path)
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    for crs, expected in (("absent", "OGC:CRS84"), (None, None)):
        column = dict(geo["columns"]["geometry"])
        column.pop("crs") if crs == "absent" else column.update(crs=None)
        record = json.dumps({**geo, "columns": {"geometry": column}})
        pq.write_table(table.replace_schema_metadata({b"geo": record.encode()}), path)
        if expected:
            assert open_vector(path).crs == expected
        else:
            with pytest.raises(MissingCrsError, match="look like longitude"):
                open_vector(path)


def test_long_edges_keep_their_place_in_another_crs() -> None:
    # One edge of three degrees along a parallel: straight in degrees, curved by 5 km in UTM.
    wide = gpd.GeoDataFrame({"a": [1]}, geometry=[box(9, 49, 12, 49.9)], crs=4326)
    x, y = pyproj.Transformer.from_crs(4326, UTM, always_xy=True).transform(10.5, 49.9)
    # The middle of the edge lies here; a straight edge between projected corners would lie north of
    # it.
    found = open_vector(wide).read(UTM, (x - 50, y - 300, x + 50, y + 300))
    assert len(found) == 1
    assert abs(found.geometry[0].boundary.distance(Point(x, y))) < 1.0
    assert len(open_vector(wide).read(UTM, (x - 50, y + 5, x + 50, y + 300))) == 0


def test_features_on_both_sides_of_the_antimeridian() -> None:
    both = gpd.GeoDataFrame(
        {"a": [1, 2, 3]},
        geometry=[
            box(179.99, 0, 179.995, 0.01),
            box(-179.995, 0, -179.99, 0.01),
            box(0, 0, 0.1, 0.1),
        ],
        crs=4326,
    )
    x, y = pyproj.Transformer.from_crs(4326, 32601, always_xy=True).transform(180, 0)
    found = open_vector(both).read("EPSG:32601", (x - 3000, y - 10, x + 3000, y + 3000))
    assert found["a"].tolist() == [1, 2]


def test_broken_geometry_is_repaired_and_counted(tmp_path: Path) -> None:
    bowtie = Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10)])
    spike = Polygon([(X, Y), (X + 10, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y)])  # no area at all
    overlap = MultiPolygon([box(X, Y, X + 10, Y + 10), box(X + 5, Y, X + 15, Y + 10)])
    fine = box(X, Y, X + 1, Y + 1)
    frame = gpd.GeoDataFrame(
        {"n": range(6)}, geometry=[bowtie, spike, overlap, fine, None, Polygon()], crs=UTM
    )
    for source in (open_vector(frame), _written(frame, tmp_path / "a.gpkg")):
        found = source.features(UTM, (X, Y, X + 100, Y + 100))
        assert found.table["n"].tolist() == [0, 2, 3]
        assert found.table.geometry.is_valid.all()
        np.testing.assert_allclose(found.table.area, [50, 150, 1])
        assert found.repaired.tolist() == [True, True, False]
        assert len(found.dropped) == 1
        assert source.count_empty() == 2


def test_repair_keeps_the_dimension() -> None:
    # A bow tie with a tail: make_valid alone would give an area and a line.
    tail = Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10), (X, Y), (X - 5, Y), (X, Y)])
    dot = LineString([(X, Y), (X, Y)])
    frame = gpd.GeoDataFrame({"n": [0, 1]}, geometry=[tail, dot], crs=UTM)
    found = open_vector(frame).features(UTM, (X - 10, Y, X + 100, Y + 100))
    assert set(found.table.geom_type) <= {"Polygon", "MultiPolygon"}
    assert len(found.table) == 1
    assert found.dropped.tolist() == [1]


def test_height_is_dropped_and_curves_are_read(tmp_path: Path) -> None:
    solid = gpd.GeoDataFrame(
        {"n": [0]}, geometry=[shapely.force_3d(box(X, Y, X + 10, Y + 10), 7.0)], crs=UTM
    )
    assert not _written(solid, tmp_path / "z.gpkg").read(UTM, (X, Y, X + 1, Y + 1)).has_z.any()
    (tmp_path / "c.csv").write_text(
        'WKT,n\n"CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0))",1\n'
    )
    circle = open_vector(tmp_path / "c.csv", assume_crs=UTM).read(UTM, (0, -1, 2, 1))
    assert circle.area[0] == pytest.approx(np.pi, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(0, 200)] * 2), st.integers(1, 100), st.integers(0, 300))
def test_what_is_read_depends_on_the_place_alone(
    corner: tuple[int, int], size: int, extra: int
) -> None:
    left, bottom = X + corner[0], Y + corner[1]
    small = (left, bottom, left + size, bottom + size)
    large = (left - extra, bottom - extra, left + size + extra, bottom + size + extra)
    few = RANDOM.read(UTM, small)
    many = RANDOM.read(UTM, large)
    inside = many[shapely.intersects(box(*small), many.geometry.values)]
    assert few["n"].tolist() == inside["n"].tolist()
    assert shapely.equals_exact(few.geometry.values, inside.geometry.values).all()


def _random_shapes() -> gpd.GeoDataFrame:
    rng = np.random.default_rng(7)
    corners = rng.uniform(0, 300, (80, 1, 2)) + rng.normal(0, 25, (80, 5, 2)) + ORIGIN
    return gpd.GeoDataFrame({"n": range(80)}, geometry=shapely.polygons(corners), crs=UTM)


RANDOM = open_vector(_random_shapes().to_crs(4326))  # most of them cross themselves


def _written(frame: gpd.GeoDataFrame, path: Path):
    frame.to_file(path)
    return open_vector(path)


def test_text_in_another_encoding_than_the_file_says(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame({"class": ["Straße", "Forêt"]}, geometry=squares(2).geometry, crs=UTM)
    for written, said in (("ISO-8859-1", "UTF-8"), ("UTF-8", None), ("UTF-8", "ISO-8859-1")):
        frame.to_file(tmp_path / "a.shp", encoding=written)
        (tmp_path / "a.cpg").unlink()
        if said:
            (tmp_path / "a.cpg").write_text(said)
        source = open_vector(tmp_path / "a.shp")
        assert [normalise(value) for value in source.head(9)["class"]] == ["strasse", "foret"], (
            written,
            said,
        )
        found = source.read(UTM, (X, Y, X + 50, Y + 5))
        assert [normalise(value) for value in found["class"]] == ["strasse", "foret"]


def test_shapefile_without_dbf(tmp_path: Path) -> None:
    squares().to_file(tmp_path / "a.shp")
    (tmp_path / "a.dbf").unlink()
    source = open_vector(tmp_path / "a.shp")
    assert source.fields == ()
    assert len(source.head(4)) == 4
    assert len(source.read(UTM, (X, Y, X + 50, Y + 5))) == 3


@pytest.mark.skipif(not BDTOPO.exists(), reason="the real data is not beside the checkout")
def test_bd_topo() -> None:
    bounds = (663000.0, 6359000.0, 664000.0, 6360000.0)
    woods = open_vector(BDTOPO / "ZONE_DE_VEGETATION.shp").read("EPSG:2154", bounds, ["NATURE"])
    assert "foret fermee de feuillus" in {normalise(value) for value in woods["NATURE"]}
    roads = open_vector(BDTOPO / "TRONCON_DE_ROUTE.shp")
    assert roads.fields == () and len(roads.read("EPSG:2154", bounds)) > 10
    houses = open_vector(BDTOPO / "BATIMENT.shp").read(
        "EPSG:2154", bounds, ["HAUTEUR", "NB_ETAGES"]
    )
    assert not houses.has_z.any()
    known = choose_heights(list(houses.columns), houses, str(houses.crs)).read(houses).known
    assert 0.5 < known.mean() <= 1
