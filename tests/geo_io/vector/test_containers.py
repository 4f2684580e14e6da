"""Features in OSM extracts, ZIPs, geodatabases, KML and GML, and texts of unknown encodings."""

from __future__ import annotations

import gzip
import html
import json
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from shapely.geometry import box

from geo_io.errors import InputError, MissingCrsError
from geo_io.vector import osm
from geo_io.vector.encoding import with_encoding
from geo_io.vector.source import VectorSource, holds_features, open_vector

UTM = "EPSG:32632"

CORNERS = [(9.0, 49.65), (9.004, 49.65), (9.004, 49.654), (9.0, 49.654)]
HOLE = [(9.001, 49.651), (9.001, 49.652), (9.002, 49.652), (9.002, 49.651)]


def nodes(first: int, places: list[tuple[float, float]]) -> str:
    return "".join(
        f'<node id="{first + n}" version="1" lat="{y}" lon="{x}"/>'
        for n, (x, y) in enumerate(places)
    )


def way(number: int, first: int, count: int = 4, /, **tags: str) -> str:
    refs = "".join(f'<nd ref="{first + n % count}"/>' for n in range(count + 1))
    return f'<way id="{number}" version="1">{refs}{tagged(tags)}</way>'


def tagged(tags: dict[str, str]) -> str:
    return "".join(
        f'<tag k="{key.replace("__", ":")}" v="{html.escape(v)}"/>' for key, v in tags.items()
    )


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    members = '<member type="way" ref="1" role="outer"/><member type="way" ref="2" role="inner"/>'
    text = (
        '<osm version="0.6">'
        + nodes(1, CORNERS)
        + nodes(11, HOLE)
        + '<node id="30" version="1" lat="49.653" lon="9.003"><tag k="natural" v="tree"/>'
        + '<tag k="height" v="12"/></node>'
        + way(1, 1)
        + way(2, 11, natural="coastline", place="islet")
        + way(3, 11, building__part="yes", roof__shape="dome", operator='a "b"')
        + way(4, 11, highway="pedestrian", area="yes")
        + way(5, 11, highway="service")
        + way(6, 11, barrier="hedge", natural="tree_row")
        + f'<relation id="9" version="1">{members}'
        + tagged({"type": "multipolygon", "landuse": "forest"})
        + '</relation><relation id="10" version="1"><member type="way" ref="5" role=""/>'
        + tagged({"type": "route", "route": "bus", "highway": "service"})
        + "</relation></osm>"
    )
    path = tmp_path / "map.osm"
    path.write_text(text, "utf-8")
    return path


def everything(source: VectorSource) -> gpd.GeoDataFrame:
    assert source.bounds is not None
    return source.read(source.crs, source.bounds)


def row(table: gpd.GeoDataFrame, **tags: str) -> gpd.GeoSeries:
    for key, value in tags.items():
        table = table[table[key.replace("__", ":")] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_an_osm_file_has_all_layers_and_tags(extract: Path) -> None:
    assert holds_features(str(extract))
    source = open_vector(extract)
    assert (source.name, source.origin) == (str(extract), str(extract))
    table = everything(source)
    assert len(table) == 7  # the route repeats a way
    forest = row(table, landuse="forest")
    assert len(shapely.get_parts(forest.geometry)[0].interiors) == 1
    assert pd.isna(forest["other_tags"])  # "multipolygon" is not what it is
    tree = row(table, natural="tree")
    assert tree.geometry.geom_type == "Point" and tree["height"] == "12"
    part = row(table, building__part="yes")
    assert shapely.get_dimensions(part.geometry) == 2 and part["roof:shape"] == "dome"
    assert part["other_tags"] == '"operator"=>"a \\"b\\""'


def test_closed_ways_are_areas_or_lines_by_their_tags(extract: Path) -> None:
    table = everything(open_vector(extract))
    dimension = {
        "coastline": row(table, natural="coastline"),
        "square": row(table, highway="pedestrian"),
        "street": row(table, highway="service"),
        "trees": row(table, natural="tree_row"),
    }
    found = {name: int(shapely.get_dimensions(each.geometry)) for name, each in dimension.items()}
    coast = shapely.get_coordinates(dimension["coastline"].geometry)
    np.testing.assert_array_equal(coast, [*HOLE, HOLE[0]])  # the land stays on the left
    assert found == {"coastline": 1, "square": 2, "street": 1, "trees": 1}


def test_a_layer_of_an_osm_file_and_packed_ones(extract: Path) -> None:
    areas = everything(open_vector(f"{extract}:multipolygons"))
    assert set(shapely.get_dimensions(areas.geometry.to_numpy())) <= {1, 2} and len(areas) == 5
    packed = extract.with_suffix(".osm.gz")
    packed.write_bytes(gzip.compress(extract.read_bytes()))
    assert len(everything(open_vector(packed))) == 7
    with pytest.raises(InputError, match=r"layer 'roads' of .*map\.osm does not exist"):
        open_vector(f"{extract}:roads")
    packed.write_bytes(packed.read_bytes()[:80])
    with pytest.raises(InputError, match="cannot be unpacked"):
        open_vector(packed)
    broken = extract.with_name("broken.osm")
    broken.write_text(extract.read_text("utf-8")[:400], "utf-8")
    with pytest.raises(InputError, match="cannot be read as an OpenStreetMap file"):
        open_vector(broken)


def test_nodes_in_any_order_and_with_negative_ids(tmp_path: Path) -> None:
    path = tmp_path / "josm.osm"
    places = nodes(-14, HOLE[::-1]) + nodes(1, CORNERS[:1]) + nodes(-18, HOLE)
    refs = way(-1, -14, building="yes") + way(-2, -18, building="yes")
    path.write_text(f'<osm version="0.6">{places}{refs}</osm>')
    table = everything(open_vector(path))
    assert len(table) == 2 and set(shapely.get_dimensions(table.geometry.to_numpy())) == {2}


def test_a_pbf_whose_nodes_are_not_sorted() -> None:
    sample = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "sample.osm.pbf"
    if not sample.exists():
        pytest.skip("pyogrio came without its tests")
    table = everything(open_vector(sample))
    found = table.geometry.geom_type.value_counts()
    assert found["LineString"] == 36 and found["MultiPolygon"] == 8 and found["Point"] == 10


def test_a_cut_pbf_is_refused(tmp_path: Path) -> None:
    block = b"\x00\x00\x00\x0d\x0a\x09OSMHeader\x18\x05" + b"12345"
    path = tmp_path / "map.osm.pbf"
    path.write_bytes(block)
    assert osm._whole_blocks(path)
    for damaged in (block[:-1], block + b"\x00\x00", b"", b"PK\x03\x04" + block):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="it is cut off, or not a PBF"):
            open_vector(path)


def test_an_osm_file_is_converted_once(extract: Path) -> None:
    first = open_vector(extract).path
    assert open_vector(extract).path == first
    extract.write_text(extract.read_text("utf-8").replace("forest", "meadow"), "utf-8")
    again = open_vector(extract)
    assert again.path != first and "meadow" in set(everything(again)["landuse"])


def squares(name: str) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"landuse": [name]}, geometry=[box(500000, 5500000, 500100, 5500100)], crs=UTM
    )


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_zipped_shapefiles(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    squares("forest").to_file(folder / "deep" / "one.shp")
    single = open_vector(zipped(tmp_path / "single.zip", folder))
    assert list(everything(single)["landuse"]) == ["forest"]
    squares("meadow").to_file(folder / "two.shp")
    several = zipped(tmp_path / "several.zip", folder)
    with pytest.raises(InputError, match=r"several layers: one, two.*several\.zip:one"):
        open_vector(several)
    assert list(everything(open_vector(f"{several}:two"))["landuse"]) == ["meadow"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no vector file"):
        open_vector(zipped(tmp_path / "none.zip", tmp_path / "none"))
    (tmp_path / "no.zip").write_text("no")
    with pytest.raises(InputError, match="is not a ZIP file"):
        open_vector(tmp_path / "no.zip")


@pytest.mark.parametrize("suffix", [".gdb", ".kml", ".gml", ".gpkg", ".fgb"])
def test_formats_of_gis(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"land{suffix}"
    table = squares("forest")
    driver = {".gdb": "OpenFileGDB", ".kml": "KML"}.get(suffix)
    pyogrio.write_dataframe(table.to_crs(4326) if suffix == ".kml" else table, path, driver=driver)
    assert holds_features(str(path))
    assert len(everything(open_vector(path))) == 1
    inside = tmp_path / "in"
    inside.mkdir()
    path.rename(inside / path.name)
    source = open_vector(zipped(tmp_path / "land.zip", inside))
    assert len(everything(source)) == 1 and source.name == str(tmp_path / "land.zip")


def test_gml_with_the_crs_as_a_url(tmp_path: Path) -> None:
    url = "http://www.opengis.net/gml/srs/epsg.xml#4326"
    ring = "9.0,49.65 9.004,49.65 9.004,49.654 9.0,49.65"
    path = tmp_path / "wfs.gml"
    path.write_text(
        '<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:t="http://t" '
        'xmlns:gml="http://www.opengis.net/gml"><gml:featureMember><t:land><t:geom>'
        f'<gml:Polygon srsName="{url}"><gml:outerBoundaryIs><gml:LinearRing><gml:coordinates>{ring}'
        "</gml:coordinates></gml:LinearRing></gml:outerBoundaryIs></gml:Polygon></t:geom>"
        "<t:landuse>forest</t:landuse></t:land></gml:featureMember></wfs:FeatureCollection>"
    )
    source = open_vector(path)
    assert source.crs == "EPSG:4326" and source.bounds == (9.0, 49.65, 9.004, 49.654)
    assert [file.name for file in tmp_path.iterdir()] == ["wfs.gml"]  # nothing beside the input


def shapefile(path: Path, texts: list[str], encoding: str) -> VectorSource:
    table = gpd.GeoDataFrame(
        {"klasse": texts}, geometry=[box(n, 0, n + 1, 1) for n in range(len(texts))], crs=UTM
    )
    pyogrio.write_dataframe(table, path, encoding=encoding)
    path.with_suffix(".cpg").unlink()
    header = bytearray(path.with_suffix(".dbf").read_bytes())
    header[29] = 0  # the language driver
    path.with_suffix(".dbf").write_bytes(bytes(header))
    return open_vector(path)


WORDS = {
    "CP932": ["森林", "畑", "住宅地", "ビル"],
    "CP1251": ["лес", "Пашня", "ДОМ", "жилая застройка"],
    "CP949": ["산림", "주거지역", "농경지"],
    "GB18030": ["森林", "草地", "耕地"],
    "CP1252": ["Forêt", "L’église", "Prés – haies"],
}


@pytest.mark.parametrize("encoding", WORDS)
def test_texts_without_a_declared_encoding(tmp_path: Path, encoding: str) -> None:
    texts = WORDS[encoding]
    source = shapefile(tmp_path / "land.shp", texts, encoding)
    found, doubt = with_encoding(source, lambda text: text in texts)
    assert doubt is None and found.encoding == encoding
    assert list(found.head(9)["klasse"]) == texts
    assert (encoding in found.notes[0] and texts[0] in found.notes[0]) or len(found.notes) == 1


def test_texts_in_latin_1_and_utf_8_stay(tmp_path: Path) -> None:
    for encoding in ("ISO-8859-1", "UTF-8"):
        source = shapefile(
            tmp_path / f"{encoding}.shp", ["Forêt", "Ödland", "åäö", "Wald"], encoding
        )
        assert with_encoding(source, lambda text: False) == (source, None)


def test_a_doubtful_encoding_names_a_cpg(tmp_path: Path) -> None:
    source = shapefile(tmp_path / "land.shp", ["Žleb", "Škola"], "CP1250")
    found, doubt = with_encoding(source, lambda text: False)
    assert found.encoding is None and doubt is not None
    assert "'Škola' (CP1252)" in doubt.problem and "land.cpg" in doubt.remedy
    declared = tmp_path / "land.cpg"
    declared.write_text("CP1250")
    assert list(open_vector(tmp_path / "land.shp").head(2)["klasse"]) == ["Žleb", "Škola"]
    found, doubt = with_encoding(source, lambda text: text == "Škola")
    assert np.all(found.head(2)["klasse"] == ["Žleb", "Škola"])


def wood(path: Path) -> Path:
    frame = gpd.GeoDataFrame(
        {"landuse": ["forest"]}, geometry=[box(9, 49.65, 9.01, 49.66)], crs="EPSG:4326"
    )
    frame.to_file(path, driver="KML" if path.suffix == ".kml" else "GeoJSON")
    return path


def test_kmz_and_packed_geojson(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wood.kmz", "w") as archive:
        archive.write(wood(tmp_path / "doc.kml"), "doc.kml")
    plain = wood(tmp_path / "wood.geojson").read_bytes()
    (tmp_path / "wood.geojson.gz").write_bytes(gzip.compress(plain))
    for name in ("wood.kmz", "wood.geojson.gz"):
        source = open_vector(str(tmp_path / name))
        assert source.head(5)["landuse"].tolist() == ["forest"] and source.crs == "EPSG:4326"
    (tmp_path / "cut.geojson.gz").write_bytes(gzip.compress(plain)[:-20])
    with pytest.raises(InputError, match="cannot be unpacked"):
        open_vector(str(tmp_path / "cut.geojson.gz"))


def test_geojson_in_metres_without_a_crs(tmp_path: Path) -> None:
    path = tmp_path / "metres.geojson"
    ring = [[500000, 5500000], [500100, 5500000], [500100, 5500100], [500000, 5500000]]
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(MissingCrsError, match="has no CRS record"):
        open_vector(str(path))
    assert open_vector(str(path), assume_crs=UTM).crs == UTM
