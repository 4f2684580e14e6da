"""Inputs of the same kinds as the cases of users, read without making a world: a test for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import laspy
import numpy as np
import pyproj
import pytest
import rasterio
import shapely

from earthgen.errors import InputError, JobError
from earthgen.jobs.job import make_job
from earthgen.jobs.point_layers import point_layers
from earthgen.jobs.prepare import place
from earthgen.jobs.surface_fit import open_ground_jump
from earthgen_conditions.encoders import CanopyEncoder, SemanticsCondition
from geo_io.elevation import open_elevation
from geo_io.errors import EarthgenError, MissingCrsError
from geo_io.frame import Frame
from geo_io.image import open_image
from geo_io.layers import Raster
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import SemanticsReader, open_semantics
from geo_io.vector.source import open_vector

X, Y, CRS = 500_000, 5_500_000, "EPSG:32632"
FRAME = Frame(CRS, 1.0, (X, X + 60), (Y, Y + 60))
MEADOW = {"landuse": "meadow"}


def box(west: float, south: float, east: float, north: float) -> shapely.Polygon:
    return shapely.box(X + west, Y + south, X + east, Y + north)


def line(*points: tuple[float, float]) -> shapely.LineString:
    return shapely.LineString([(X + x, Y + y) for x, y in points])


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    gpd.GeoDataFrame(rows, crs=CRS).to_file(path)
    return path


def opened(*paths: Path, **options: Any) -> SemanticsReader:
    reading = SemanticsOptions(crosswalks=builtin_crosswalks(), **options)
    return open_semantics([str(path) for path in paths], FRAME, reading)


def cover_at(reader: SemanticsReader, *places: tuple[int, int]) -> list[str]:
    names = {code: name for name, code in codes().items()} | {0: "unknown"}
    cover = reader.read(FRAME).cover
    return [names[int(cover[59 - y, x])] for x, y in places]


def said(reader: SemanticsReader) -> str:
    return " ".join(text for source in reader.survey().sources for text in source.warnings)


def surveyed(reader: SemanticsReader) -> list[str]:
    return list(SemanticsCondition(reader).survey(FRAME)["warnings"])


# Heights


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([{"height": 30.0, "unit": "ft"}, {"height": 40.0, "unit": "ft"}], [9.14, 12.19]),
        ([{"height": 30.0, "unit": "ft"}, {"height": 12.0, "unit": "m"}], [9.14, 12.0]),
        ([{"height": 30.0, "unit": "A1"}, {"height": 12.0, "unit": "7"}], [30.0, 12.0]),
        ([{"RoofElev": 112.0, "GroundElev": 100.0}], [12.0]),
        ([{"RoofElev_FT": 412.0, "GroundElev_FT": 400.0}], [3.66]),
        ([{"z_max": 122.0, "z_min": 100.0}], [22.0]),
    ],
)
def test_heights_of_columns(rows: list[dict[str, Any]], right: list[float], tmp_path: Path) -> None:
    placed = [{"geometry": box(9 * n, 0, 9 * n + 8, 8), **row} for n, row in enumerate(rows)]
    buildings = opened(write(tmp_path / "buildings.gpkg", placed)).read(FRAME).buildings
    np.testing.assert_allclose(sorted(buildings.height), sorted(right), atol=0.01)


def test_eaves_in_feet_and_heights_above_the_sea(tmp_path: Path) -> None:
    rows = [{"geometry": box(0, 0, 8, 8), "EAVE_HT_FT": 30.0, "height_m_above_sea": 112.0}]
    reader = opened(write(tmp_path / "buildings.gpkg", rows))
    np.testing.assert_allclose(reader.read(FRAME).buildings.form["eaves"], 9.14, atol=0.01)
    heights = reader.summary()["sources"][0]["heights"]
    assert heights["above_sea"] == ["height_m_above_sea"] and heights["not_read"] == []


def test_an_underside_above_the_levels_is_dropped(tmp_path: Path) -> None:
    rows = [
        {"geometry": box(0, 0, 8, 8), "building:levels": "2", "min_level": "3"},
        {"geometry": box(20, 0, 28, 8), "building:levels": "0", "roof:levels": "1"},
    ]
    reader = opened(write(tmp_path / "b.geojson", [{"building": "yes", **row} for row in rows]))
    buildings = reader.read(FRAME).buildings
    # A building of 0 levels is its roof, on the ground.
    assert sorted(buildings.height) == [3.0, 7.0] and (buildings.form["base"] == 0).all()
    assert "the underside (min_height, min_level) of 1 building is not below" in said(reader)


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([{"height_in": 480.0}, {"height_in": 360.0}], [12.19, 9.14]),
        (
            [{"geschosse": text} for text in ("IV", "II+D", "2+1", "II-III", "5F")],
            [13, 7, 10, 8.5, 16],
        ),
    ],
)
def test_inches_and_numbers_of_levels(
    rows: list[dict[str, Any]], right: list[float], tmp_path: Path
) -> None:
    placed = [{"geometry": box(9 * n, 0, 9 * n + 8, 8), **row} for n, row in enumerate(rows)]
    buildings = opened(write(tmp_path / "buildings.gpkg", placed)).read(FRAME).buildings
    np.testing.assert_allclose(sorted(buildings.height), sorted(right), atol=0.01)


def test_heights_that_no_building_has(tmp_path: Path) -> None:
    values = {"height": [1200.0, 900.0, 1500.0], "num_floors": [255, 99, 3]}
    for name, column in values.items():
        rows = [{"geometry": box(9 * n, 0, 9 * n + 8, 8), name: v} for n, v in enumerate(column)]
        reader = opened(write(tmp_path / f"{name}_buildings.gpkg", rows))
        known = reader.read(FRAME).buildings.height
        assert sorted(known[np.isfinite(known)]) == ([] if name == "height" else [10.0])
        text = "height (1200 m) is taller" if name == "height" else "num_floors=255"
        assert text in said(reader)
    fixed = opened(tmp_path / "height_buildings.gpkg", height_unit="cm").read(FRAME).buildings
    assert sorted(fixed.height) == [9.0, 12.0, 15.0]


class _Flat:
    """Ground at 400 m."""

    def read(self, window: Frame) -> Raster:
        return Raster(window, np.full(window.shape, 400.0, np.float32))


@pytest.mark.parametrize("name", ["DACH_MAX", "Roof_Elev_ft", "z_max"])
def test_roofs_above_the_sea_stand_on_the_dem(name: str, tmp_path: Path) -> None:
    metres = 0.3048 if name.endswith("ft") else 1.0
    rows = [
        {"geometry": box(9 * n, 0, 9 * n + 8, 8), "building": "yes", name: roof / metres}
        for n, roof in enumerate((412.0, 390.0, -9999.0))
    ]
    reader = opened(write(tmp_path / "buildings.gpkg", rows))
    reader.use_heights(_Flat(), ground=True)
    known = reader.read(FRAME).buildings.height
    np.testing.assert_allclose(known[np.isfinite(known)], [12.0], atol=0.01)
    text = said(reader)
    assert f"height of 1 of 3 buildings is that of the roof above sea ({name})" in text
    assert "roof at 390 m above sea over ground at 400.0 m" in text
    reader.use_heights(_Flat())  # a surface model holds the roofs themselves
    assert np.isnan(opened(tmp_path / "buildings.gpkg").read(FRAME).buildings.height).all()


# What is a building, and what is seen


def test_what_is_planned_or_gone_by_its_status(tmp_path: Path) -> None:
    rows = [
        {"geometry": box(9 * n, 0, 9 * n + 8, 8), "height": 9.0, "status": status}
        for n, status in enumerate(("Demolished", "existing", "Pand gesloopt"))
    ]
    reader = opened(write(tmp_path / "building_footprints.gpkg", rows))
    assert len(reader.read(FRAME).buildings.height) == 1
    (warning, _) = [text for text in surveyed(reader) if "planned or gone" in text]
    assert "1 features with 'status=demolished' are planned or gone" in warning


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("landuse", "forest;meadow", "mixed_forest"),
        ("code_18", "3.1.1. Broad-leaved forest", "broadleaf_forest"),
        ("code_2018", "14100 - Green urban areas", "grass"),
    ],
)
def test_values_that_say_more_than_one(field: str, value: str, name: str, tmp_path: Path) -> None:
    rows = [{"geometry": box(0, 0, 60, 60), field: value}]
    assert cover_at(opened(write(tmp_path / "land.gpkg", rows)), (30, 30)) == [name]


def test_outlines_that_are_drawn_as_lines(tmp_path: Path) -> None:
    corners = [(10, 10), (30, 10), (30, 30), (10, 30)]
    rows = [
        {"geometry": line(*corners, corners[0]), **MEADOW},
        {"geometry": line((40, 10), (55, 10), (55, 30), (40, 30)), "landuse": "forest"},
        {"geometry": line((0, 50), (60, 50)), "landuse": "forest"},
        {"geometry": line((0, 40), (60, 40)), "building": "yes"},
        {"geometry": line((5, 0), (5, 60)), "highway": "service"},
    ]
    reader = opened(write(tmp_path / "cad.gpkg", rows))
    places = (20, 20), (48, 20), (30, 51), (30, 40), (5, 20)
    right = ["grassland", "mixed_forest", "mixed_forest", "unknown", "road"]
    assert cover_at(reader, *places) == right
    text = said(reader)
    assert "2 closed lines of a class of areas, such as landuse=meadow, are taken for areas" in text
    assert "1 had a gap" in text and "1 line of a class of areas is left out" in text
    assert "is drawn as a strip, such as landuse=forest, 8 m wide" in text


@pytest.mark.parametrize("sea", [None, {"place": "sea"}, {"natural": "water"}])
def test_a_marina_lies_in_what_is_around_it(sea: dict[str, str] | None, tmp_path: Path) -> None:
    around = (
        {"geometry": line((70, 40), (-10, 40)), "natural": "coastline"}
        if sea is None
        else {"geometry": box(-5, -5, 65, 65), **sea}
    )
    rows = [around, {"geometry": box(20, 10, 40, 30), "leisure": "marina"}]
    right = "lake" if sea == {"natural": "water"} else "sea"
    assert cover_at(opened(write(tmp_path / "map.gpkg", rows)), (30, 20)) == [right]


@pytest.mark.parametrize(
    ("crs", "place", "hint"),
    [
        (CRS, shapely.box(9.0001, 49.6526, 9.0007, 49.653), "as longitude and latitude"),
        ("EPSG:32633", shapely.box(X, Y, X + 9, Y + 9), "in EPSG:32632 (WGS 84 / UTM zone 32N)"),
    ],
)
def test_a_record_that_contradicts_the_numbers(
    crs: str, place: shapely.Polygon, hint: str, tmp_path: Path
) -> None:
    land = write(tmp_path / "land.gpkg", [{"geometry": box(0, 0, 60, 60), **MEADOW}])
    gpd.GeoDataFrame([{"geometry": place, **MEADOW}], crs=crs).to_file(tmp_path / "odd.shp")
    (warning,) = [text for text in surveyed(opened(land, tmp_path / "odd.shp")) if "meet" in text]
    assert f"its numbers would, {hint}" in warning


def test_areas_of_a_map_without_buildings_are_land(tmp_path: Path) -> None:
    """An OpenStreetMap table has columns of roofs and levels whether or not a building is in it."""
    tags = {"building": None, "roof:shape": None, "building:levels": None}
    rows = [{"geometry": box(0, 0, 60, 60), "highway": "pedestrian", "area": "yes", **tags}]
    assert cover_at(opened(write(tmp_path / "map.geojson", rows)), (30, 30)) == ["paved"]


@pytest.mark.parametrize("value", ["demolished", "proposed", "razed"])
def test_the_land_use_of_what_is_not_there(value: str, tmp_path: Path) -> None:
    rows = [
        {"geometry": box(-5, -5, 65, 65), "landuse": "meadow"},
        {"geometry": box(10, 10, 30, 30), "landuse": "grass", "building": value},
        {"geometry": box(40, 40, 50, 50), "building": value},
    ]
    reader = opened(write(tmp_path / "map.geojson", rows))
    assert cover_at(reader, (20, 20), (45, 45)) == ["grass", "grassland"]


def test_water_under_a_cover_is_not_seen(tmp_path: Path) -> None:
    water = {"natural": "water", "water": "reservoir"}
    rows = [
        {"geometry": box(-5, -5, 65, 65), **MEADOW},
        {"geometry": box(10, 10, 30, 30), "covered": "yes", **water},
        {"geometry": box(40, 40, 50, 50), "covered": "no", **water},
    ]
    reader = opened(write(tmp_path / "map.geojson", rows))
    assert cover_at(reader, (20, 20), (45, 45)) == ["grassland", "lake"]
    assert reader.survey().sources[0].underground == 1


# The sea


ISLAND = box(20, 20, 40, 40)


@pytest.mark.parametrize(
    ("shape", "tags", "land", "sea"),
    [
        (ISLAND, {"natural": "coastline"}, (30, 30), (5, 5)),
        (shapely.Polygon(ISLAND.exterior.coords[::-1]), {"natural": "Coastline"}, (30, 30), (5, 5)),
        (line((-30, 32), (90, 32)), {"fclass": "coastline"}, (30, 50), (30, 10)),
    ],
)
@pytest.mark.parametrize("ending", ["gpkg", "shp"])
def test_coastlines_as_areas_and_in_merged_columns(
    shape: Any, tags: dict[str, str], land: Any, sea: Any, ending: str, tmp_path: Path
) -> None:
    field = tmp_path / "field.gpkg"
    write(field, [{"geometry": box(land[0] - 2, land[1] - 2, land[0] + 2, land[1] + 2), **MEADOW}])
    coast = write(tmp_path / f"coast.{ending}", [{"geometry": shape, **tags}])
    assert cover_at(opened(coast, field), land, sea) == ["grassland", "sea"]


def test_a_number_in_a_merged_column_is_no_coastline(tmp_path: Path) -> None:
    rows = [{"geometry": box(0, 0, 60, 60), "type": 7, "class": 2.5, **MEADOW}]
    assert cover_at(opened(write(tmp_path / "a.shp", rows)), (30, 30)) == ["grassland"]


# Files


def osm(path: Path, body: str) -> Path:
    change = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    nodes = ""
    for n, (x, y) in enumerate([(10, 10), (30, 10), (30, 30), (10, 30)], 1):
        lon, lat = change.transform(X + x, Y + y)
        nodes += f'<node id="{n}" lat="{lat:.8f}" lon="{lon:.8f}"/>'
    path.write_text(f'<?xml version="1.0"?><osm version="0.6">{nodes}{body}</osm>')
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHGEN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_what_an_extract_cut_off_is_said(tmp_path: Path) -> None:
    refs = "".join(f'<nd ref="{ref}"/>' for ref in (1, 2, 3, 77, 4, 1))
    forest = '<tag k="landuse" v="forest"/>'
    lake = '<tag k="natural" v="water"/><tag k="type" v="multipolygon"/>'
    path = osm(
        tmp_path / "map.osm",
        f'<way id="5">{refs}{forest}</way><relation id="6">'
        f'<member type="way" ref="99" role="outer"/>{lake}</relation>'
        f'<relation id="7" action="delete"><member type="way" ref="98" role="outer"/>{lake}'
        "</relation>",
    )
    notes = " ".join(open_vector(path).notes)
    assert "1 area lacks ways of its outline in the file, such as relation 6 (natural=wa" in notes
    assert "1 way lacks nodes" in notes


def tags(**values: str) -> str:
    return "".join(f'<tag k="{key}" v="{value}"/>' for key, value in values.items())


def as_pbf(path: Path) -> Path:
    import osmium

    out = path.with_suffix(".osm.pbf")
    with osmium.SimpleWriter(str(out)) as target:
        for each in osmium.FileProcessor(str(path)):
            target.add(each)
    return out


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("packed", [False, True])
def test_areas_of_extracts_that_are_not_whole(packed: bool, tmp_path: Path) -> None:
    """A way with a gap, an area without one of its holes, and an outline with a gap."""
    change = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    nodes = ""
    for n, west in enumerate((5, 25, 45)):
        for k, (x, y) in enumerate([(0, 0), (10, 0), (10, 10), (0, 10)], 1):
            lon, lat = change.transform(X + west + x, Y + 20 + y)
            nodes += f'<node id="{10 * n + k}" lat="{lat:.8f}" lon="{lon:.8f}"/>'

    def way(number: int, *refs: int, **values: str) -> str:
        inside = "".join(f'<nd ref="{ref}"/>' for ref in refs)
        return f'<way id="{number}">{inside}{tags(**values)}</way>'

    def relation(number: int, *ways: int) -> str:
        members = "".join(f'<member type="way" ref="{one}" role="outer"/>' for one in ways)
        wood = tags(type="multipolygon", landuse="forest")
        return f'<relation id="{number}">{members}{wood}</relation>'

    body = way(1, 1, 2, 3, 4, landuse="forest") + way(2, 11, 12, 13, 14, 11)
    body += way(3, 21, 22, 23, 24) + relation(6, 2, 99) + relation(7, 3)
    path = tmp_path / "map.osm"
    path.write_text(f'<osm version="0.6">{nodes}{body}</osm>')
    reader = opened(as_pbf(path) if packed else path)
    places = (10, 25), (30, 25), (50, 25), (20, 25)
    assert cover_at(reader, *places) == ["mixed_forest"] * 3 + ["unknown"]
    text = said(reader)
    assert "1 way of an area is not closed, such as way 1 (landuse=forest)" in text
    assert "such as relation 6 (landuse=forest), and is left out but for its whole rings" in text
    assert "1 outline of an area is not closed, such as relation 7 (landuse=forest)" in text


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("head", "refs", "problem"),
    [
        ("", "<nd ref='1'/><nd ref='2'/>" * 5001, "way 5 of .* has 10,002 nodes; at most 9,999"),
        ('<!DOCTYPE osm [<!ENTITY a "b">]>', "", "declares entities of XML"),
    ],
)
def test_osm_files_made_to_break(head: str, refs: str, problem: str, tmp_path: Path) -> None:
    path = osm(tmp_path / "map.osm", f'<way id="5">{refs}{tags(landuse="forest")}</way>')
    path.write_text(path.read_text().replace("<osm", f"{head}<osm"))
    with pytest.raises(InputError, match=problem):
        open_vector(path)


@pytest.mark.usefixtures("cache")
def test_a_file_of_areas_that_are_cut_off_says_why_it_is_empty(tmp_path: Path) -> None:
    member = '<member type="way" ref="99" role="outer"/><tag k="type" v="multipolygon"/>'
    path = osm(tmp_path / "map.osm", f'<relation id="6">{member}</relation>')
    with pytest.raises(EarthgenError, match=r"is empty \(1 area lacks ways of its outline"):
        opened(path).survey()


@pytest.mark.parametrize(
    ("word", "encoding"),
    [("łąka", "cp1250"), ("лес", "cp866"), ("Straße", "cp850")],
)
def test_texts_that_look_like_latin_words(word: str, encoding: str, tmp_path: Path) -> None:
    gpd.GeoDataFrame({"klasse": [word]}, geometry=[box(0, 0, 60, 60)], crs=CRS).to_file(
        tmp_path / "a.shp", encoding=encoding
    )
    (tmp_path / "a.cpg").unlink()
    table = bytearray((tmp_path / "a.dbf").read_bytes())
    table[29] = 0  # the driver's own note of the encoding
    (tmp_path / "a.dbf").write_bytes(table)
    from geo_io.legend import parse_crosswalk

    rule = {"field": "klasse", "values": {word: "wetland"}}
    legend = parse_crosswalk({"name": "my", "rules": [rule]}, "my.yaml")
    reader = opened(tmp_path / "a.shp", legends=(legend,))
    assert cover_at(reader, (30, 30)) == ["wetland"] and f"'{word}'" in said(reader)


def test_a_shapefile_without_its_table(tmp_path: Path) -> None:
    write(tmp_path / "a.shp", [{"geometry": box(0, 0, 60, 60), **MEADOW}])
    (tmp_path / "a.dbf").unlink()
    with pytest.raises(InputError, match=r"copy a\.dbf beside a\.shp"):
        opened(tmp_path / "a.shp")


def test_json_of_overpass(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"version": 0.6, "elements": []}')
    with pytest.raises(InputError) as error:
        opened(tmp_path / "map.json")
    assert "[out:xml]" in error.value.remedy


@pytest.mark.parametrize(
    "wkt",
    [
        "POLYHEDRALSURFACE Z({floor}, {wall}, {roof})",
        "TIN Z({triangle})",
        "GEOMETRYCOLLECTION Z(TIN Z({triangle}))",
    ],
)
def test_surfaces_of_patches_are_areas(wkt: str, tmp_path: Path) -> None:
    def patch(*corners: tuple[int, int, int]) -> str:
        ring = ", ".join(f"{X + x} {Y + y} {z}" for x, y, z in (*corners, corners[0]))
        return f"(({ring}))"

    text = wkt.format(
        floor=patch((10, 10, 0), (30, 10, 0), (30, 30, 0), (10, 30, 0)),
        wall=patch((10, 10, 0), (10, 10, 9), (30, 10, 9), (30, 10, 0)),
        roof=patch((10, 10, 9), (30, 10, 9), (30, 30, 9), (10, 30, 9)),
        triangle=patch((10, 10, 0), (40, 10, 5), (10, 40, 5)),
    )
    (tmp_path / "a.csv").write_text(f'WKT,building\n"{text}",yes\n')
    reader = opened(tmp_path / "a.csv", assume_crs=CRS)
    assert cover_at(reader, (15, 15), (50, 50)) == ["building", "unknown"]


# Rasters of heights


def grid(path: Path, values: np.ndarray, unit: str = "", nodata: int | None = None) -> Path:
    bands = values.reshape(-1, 60, 60)
    profile: dict[str, Any] = {"driver": "GTiff", "width": 60, "height": 60, "count": len(bands)}
    profile |= {"dtype": values.dtype, "crs": CRS, "nodata": nodata}
    profile |= {"transform": rasterio.transform.from_origin(X, Y + 60, 1, 1)}
    with rasterio.open(path, "w", **profile) as out:
        out.write(bands)
        if unit:
            out.set_band_unit(1, unit)
    return path


@pytest.mark.parametrize(("unit", "asked"), [("cm", None), ("", "cm")])
def test_centimetres(unit: str, asked: str | None, tmp_path: Path) -> None:
    path = grid(tmp_path / "dem.tif", np.full((60, 60), 12_345, np.uint16), unit)
    assert open_elevation(path, unit=asked).read(FRAME).data[0, 0] == pytest.approx(123.45)


def test_heights_that_are_none_on_earth_are_told(tmp_path: Path) -> None:
    path = grid(tmp_path / "dem.tif", np.full((60, 60), 12_345, np.uint16))
    with pytest.raises(InputError, match="holds 12345 to 12345 in the region, which are no heig"):
        open_elevation(path).survey(FRAME)


@pytest.mark.parametrize("value", [-3.4028235e38, 1e20, 65535])
def test_values_beyond_all_heights_are_said_to_be_nodata(value: float, tmp_path: Path) -> None:
    heights = np.full((60, 60), 100, np.float32) + np.arange(60, dtype=np.float32)
    heights[20:40, 20:40] = value
    (note,) = open_elevation(grid(tmp_path / "dem.tif", heights)).survey(FRAME)["notes"]
    assert note.endswith("without declaring it as nodata: it was read as nodata")


def test_bytes_may_be_a_picture(tmp_path: Path) -> None:
    path = grid(tmp_path / "hillshade.tif", np.full((60, 60), 180, np.uint8))
    assert "holds bytes, 0 to 255, as pictures do" in open_elevation(path).survey(FRAME)["notes"][0]


@pytest.mark.parametrize(
    ("name", "values", "nodata", "text"),
    [
        ("worldcover.tif", (10, 37), None, "'value=37' maps to no class"),
        ("worldcover.tif", (10, 50), 50, "value 50, declared as nodata, is residential"),
    ],
)
def test_class_rasters_with_odd_values(
    name: str, values: tuple[int, int], nodata: int | None, text: str, tmp_path: Path
) -> None:
    cells = np.full((60, 60), values[0], np.uint8)
    cells[:20] = values[1]
    path = grid(tmp_path / name, cells, nodata=nodata)
    reader = opened(path)
    assert cover_at(reader, (30, 10), (30, 55)) == ["mixed_forest", "unknown"]
    assert any(text in warning for warning in surveyed(reader))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slope.tif", "is called slope, and is read as heights in m"),
        ("dem_feet.tif", "is called feet, and is read in m: if its heights are in feet"),
    ],
)
def test_names_of_rasters_that_contradict(name: str, text: str, tmp_path: Path) -> None:
    path = grid(tmp_path / name, np.full((60, 60), 12, np.float32))
    assert any(text in note for note in open_elevation(path).survey(FRAME)["notes"])


@pytest.mark.parametrize(
    ("name", "half", "text"),
    [
        ("picture.tif", 0, "50.0% of the image"),
        ("picture.tif", 255, "is exactly white"),
        ("cir_2020.tif", 90, "is called cir, and bands 1, 2, 3 are shown as red, green and blue"),
    ],
)
def test_pictures_with_a_collar_or_infrared(
    name: str, half: int, text: str, tmp_path: Path
) -> None:
    colours = np.full((3, 60, 60), 120, np.uint8)
    colours[:, :30] = half
    (note,) = open_image(grid(tmp_path / name, colours)).survey(FRAME)["notes"]
    assert text in note


@pytest.mark.parametrize(("height", "text"), [(90, "percent of cover"), (1, "a mask of trees")])
def test_canopies_that_are_no_heights(height: int, text: str, tmp_path: Path) -> None:
    cells = np.zeros((60, 60), np.uint8)
    cells[:9] = height
    path = str(grid(tmp_path / "canopy.tif", cells))
    condition = CanopyEncoder().open([path], FRAME, {"canopy_unit": None, "assume_crs": None})
    assert any(text in warning for warning in condition.survey(FRAME)["warnings"])


def test_settings_beyond_all_bounds() -> None:
    for name, value in (("voxel_size", 2e3), ("vertical_shift", 1e5), ("band", (-1e9, 9.0))):
        with pytest.raises(JobError, match=f"setting '{name}'"):
            make_job({"out": "a.zarr", "bbox": (9, 49, 9.1, 49.1), "dsm": "a.tif", name: value})


def test_a_crs_that_names_another_datum_than_the_dem(tmp_path: Path) -> None:
    path = tmp_path / "dem.tif"
    with rasterio.open(grid(path, np.full((60, 60), 9, np.float32)), "r+") as raster:
        raster.crs = "EPSG:25832+7837"
    box = (X, Y, X + 60, Y + 60)
    job = {"out": "a.zarr", "bbox": box, "bbox_crs": CRS, "dem": str(path)}
    (warning,) = place(make_job({**job, "crs": "EPSG:25832+5783"})).warnings
    assert "names EPSG:5783 (DHHN92 height) for heights" in warning
    assert place(make_job({**job, "crs": "EPSG:25832+7837"})).warnings == ()


class _Fixed:
    def __init__(self, heights: np.ndarray) -> None:
        self.heights = heights

    def read(self, window: Frame) -> Raster:
        return Raster(window, self.heights[FRAME.slices(window)])


def test_a_jump_is_measured_on_all_of_a_small_region(tmp_path: Path) -> None:
    """Windows that overlap would count the wood in the middle more often than the meadow."""
    surface = np.full(FRAME.shape, 147.0)
    surface[10:50, 10:50] += 15
    land = write(tmp_path / "land.gpkg", [{"geometry": box(-5, -5, 65, 65), **MEADOW}])
    models: dict[str, Any] = {"dsm": _Fixed(surface), "dem": _Fixed(np.full(FRAME.shape, 100.0))}
    models["semantics"] = opened(land)
    jump = open_ground_jump(models, FRAME)
    assert jump is not None and jump.metres == 47


# Point clouds


def cloud(path: Path, crs: str | None = CRS) -> Path:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 60, (6000, 2)) + np.array([X, Y])
    xyz = np.column_stack([places, np.full(6000, 100.0)])
    xyz[:50, 2] = 900
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = [0.01] * 3, [X, Y, 0]
    if crs is not None:
        header.add_crs(pyproj.CRS(crs))
    points = laspy.LasData(header)
    points.x, points.y, points.z = xyz.T
    points.classification = np.full(6000, 2, np.uint8)
    points.withheld = xyz[:, 2] > 800
    points.write(path)
    return path


@pytest.mark.usefixtures("cache")
def test_withheld_points_are_not_used_and_an_unknown_unit_is_said(tmp_path: Path) -> None:
    (surface,) = point_layers([cloud(tmp_path / "a.las")])["dsm"]
    (note,) = surface.notes
    assert "metres are assumed" in note and "`points_unit` says which" in note
    with rasterio.open(surface.path) as raster:
        assert np.nanmax(raster.read(1)) == 100
    (told,) = point_layers([tmp_path / "a.las"], unit="m")["dsm"]
    assert told.notes == ()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("crs", "setting"), [(None, "`assume_crs`"), ("EPSG:2263", "`points_unit`")]
)
def test_the_next_step_is_a_setting_of_generate(
    crs: str | None, setting: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingCrsError if crs is None else InputError) as error:
        point_layers([cloud(tmp_path / "a.las", crs)])
    assert setting in error.value.remedy
