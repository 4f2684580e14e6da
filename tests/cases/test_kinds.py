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

from earthgen.errors import InputError
from earthgen.jobs.point_layers import point_layers
from earthgen.jobs.surface_fit import open_ground_jump
from geo_io.elevation import open_elevation
from geo_io.errors import EarthgenError, MissingCrsError
from geo_io.frame import Frame
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


# What is a building, and what is seen


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


def grid(path: Path, values: np.ndarray, unit: str = "") -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=60, count=1, dtype=values.dtype, crs=CRS,
        transform=rasterio.transform.from_origin(X, Y + 60, 1, 1),
    ) as out:  # fmt: skip
        out.write(values, 1)
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
