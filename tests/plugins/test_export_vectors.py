"""What stands in a world as GeoPackage, GeoParquet and CityJSON."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import jsonschema
import numpy as np
import pyogrio
import pytest
import shapely

from earthgen.dataset.readers.city_json import open_city
from earthgen.errors import JobError, StoreError
from earthgen.plugins import load
from earthgen.progress import Event, Progress
from earthgen.render.features.buildings import building_of
from earthgen.render.features.objects import world_objects
from earthgen.world.selection import select
from earthgen.world.world import World
from earthgen_vectors.city_json import CityJsonExporter
from earthgen_vectors.geoparquet import GeoParquetExporter
from earthgen_vectors.gpkg import GpkgExporter
from earthgen_vectors.options import LAYERS, CityJsonOptions, VectorOptions
from earthgen_vectors.solids import Solid, detailed
from geo_io.layers import ROOF_NUMBER
from geo_io.legend import builtin_crosswalks, codes
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.reader import open_semantics
from tests.helpers import mapped_place as place

SCHEMA = Path(__file__).parents[1] / "data" / "cityjson-2.0.min.schema.json.gz"
"""The schema of CityJSON 2.0, from cjval (MIT, see the file beside it)."""

OPTIONS = VectorOptions(interval=1.0)


def write(exporter, world: World, out: Path, bounds=None, listener=None) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    return exporter.export(world, out, bounds=bounds, level=1, progress=Progress(listener))


@pytest.fixture(scope="module")
def gpkg(mapped_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = write(GpkgExporter(OPTIONS), mapped_world, tmp_path_factory.mktemp("gpkg"))
    return path


def test_layers_of_a_geopackage(gpkg: Path) -> None:
    assert [name for name, _ in pyogrio.list_layers(gpkg)] == list(LAYERS)
    layers = {name: gpd.read_file(gpkg, layer=name) for name in LAYERS}
    for layer in layers.values():
        assert layer.crs.to_epsg() == 32632 and layer.geometry.is_valid.all()
    houses = layers["buildings"].set_index("id")
    assert houses.index.is_unique and len(houses) == len(place.HOUSES) + 1
    assert Counter(houses["source"]) == {"map": len(place.HOUSES), "generated": 1}
    for name, (outline, height, _) in place.HOUSES.items():
        # Mapped houses have the outline of the map, not that of their cells.
        (row,) = houses[houses.geometry.intersects(outline.centroid.buffer(0.1))].itertuples()
        assert row.geometry.symmetric_difference(outline).area < 0.01, name
        assert row.height == pytest.approx(height, abs=0.5)
        assert row.roof_shape == ("flat" if name == "ell" else name)
    trees = layers["trees"]
    assert Counter(trees["source"]) == {"map": 2, "generated": 1}
    mapped = shapely.MultiPoint([point for point, *_ in place.TREES.values()])
    assert all(mapped.distance(p) < 0.01 for p in trees.geometry[trees["source"] == "map"])
    assert set(layers["roads"]["class"]) == {"road"} and set(layers["water"]["class"]) == {"lake"}
    assert layers["contours"]["elevation"].between(100, 106).all()
    about = pyogrio.read_info(gpkg, layer="buildings")["layer_metadata"]
    assert about["seed"] == "7" and about["vertical_crs"] == "EPSG:7837"


def test_the_same_world_gives_the_same_bytes(
    gpkg: Path, mapped_world: World, tmp_path: Path
) -> None:
    (again,) = write(GpkgExporter(OPTIONS), mapped_world, tmp_path)
    assert again.read_bytes() == gpkg.read_bytes()


def test_geoparquet_has_the_same_rows(gpkg: Path, mapped_world: World, tmp_path: Path) -> None:
    paths = write(GeoParquetExporter(OPTIONS), mapped_world, tmp_path)
    assert [path.name for path in paths] == [f"{name}.parquet" for name in LAYERS]
    for path in paths:
        layer, other = gpd.read_parquet(path), gpd.read_file(gpkg, layer=path.stem)
        assert layer.crs.to_epsg() == 32632 and list(layer.columns) == list(other.columns)
        assert layer.geometry.geom_equals_exact(other.geometry, 1e-6).all()
        left, right = (t.drop(columns="geometry").astype(object) for t in (layer, other))
        assert left.where(left.notna(), None).equals(right.where(right.notna(), None))


def test_our_own_reader_reads_it_back(gpkg: Path) -> None:
    """What is exported can be the map of the next world."""
    options = SemanticsOptions(crosswalks=builtin_crosswalks())
    sources = [f"{gpkg}:{layer}" for layer in ("water", "roads", "buildings", "trees")]
    semantics = open_semantics(sources, place.frame(), options).read(place.frame())
    cover = Counter(semantics.cover.ravel().tolist())
    assert cover[codes()["lake"]] == 240 and cover[codes()["road"]] == 320
    assert len(semantics.buildings) == len(place.HOUSES) + 1
    by_area = {round(f.area): k for k, f in enumerate(semantics.buildings.footprint)}
    for name, (outline, height, _) in place.HOUSES.items():
        k = by_area[round(outline.area)]
        assert semantics.buildings.height[k] == pytest.approx(height, abs=0.5)
        shape = "flat" if name == "ell" else name
        assert semantics.buildings.form["roof"][k] == ROOF_NUMBER[shape]
    assert sorted(semantics.trees.height) == pytest.approx([7, 7, 7], abs=0.05)
    assert semantics.trees.crown.max() == pytest.approx(8, abs=0.5)


def test_a_part_has_what_meets_it(mapped_world: World, tmp_path: Path) -> None:
    w, s = place.WEST, place.SOUTH
    options = VectorOptions(layers=("buildings", "trees"))
    (path,) = write(GpkgExporter(options), mapped_world, tmp_path, (w + 43, s + 33, w + 44, s + 34))
    (ell,) = gpd.read_file(path, layer="buildings").itertuples()
    assert ell.area == 280  # whole
    trees = gpd.read_file(path, layer="trees")  # a layer without rows keeps its columns
    assert len(trees) == 0 and "crown_diameter" in trees.columns


def test_without_its_map_a_world_says_unknown(mapped_world: World, tmp_path: Path) -> None:
    source = Path(str(mapped_world.path)).parent / "map.gpkg"
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    options = VectorOptions(layers=("buildings",))
    shutil.move(source, moved / "map.gpkg")
    try:
        told: list[Event] = []
        (path,) = write(GpkgExporter(options), mapped_world, tmp_path / "a", listener=told.append)
        assert set(gpd.read_file(path)["source"]) == {"unknown"}
        (warning,) = (event.note for event in told if event.kind == "warning")
        assert "map.gpkg" in warning and "`inputs`" in warning
        found = VectorOptions(layers=("buildings",), inputs=moved)
        (path,) = write(GpkgExporter(found), mapped_world, tmp_path / "b")
        assert Counter(gpd.read_file(path)["source"])["map"] == len(place.HOUSES)
        wrong = VectorOptions(layers=("buildings",), inputs=tmp_path)
        with pytest.raises(StoreError, match=r"map.gpkg .*is not at"):
            write(GpkgExporter(wrong), mapped_world, tmp_path / "c")
        (tmp_path / "map.gpkg").write_bytes(b"another map")
        with pytest.raises(StoreError, match=r"it has changed"):
            write(GpkgExporter(wrong), mapped_world, tmp_path / "d")
    finally:
        shutil.move(moved / "map.gpkg", source)


@pytest.fixture(scope="module")
def city(mapped_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("city")
    (path,) = write(CityJsonExporter(CityJsonOptions(relief_step=10)), mapped_world, out)
    assert [each.name for each in out.iterdir()] == ["world.city.json"]  # nothing temporary
    return path


def test_cityjson_is_valid(city: Path) -> None:
    import cjio.cityjson

    # It rounds all floats that json writes from then on, also those of other tests.
    vars(json.encoder).pop("float", None)
    with city.open(encoding="utf-8") as file:
        model = cjio.cityjson.reader(file)
    document = model.j
    assert document["version"] == "2.0" and model.get_epsg() == 32632
    kinds = Counter(item["type"] for item in document["CityObjects"].values())
    assert kinds == {"Building": 7, "SolitaryVegetationObject": 3, "TINRelief": 4}
    # cjio's own validator, cjvalpy, has no wheel everywhere; its schema is the official one.
    jsonschema.validate(document, json.loads(gzip.decompress(SCHEMA.read_bytes())))
    if cjio.cityjson.MODULE_CJVAL_AVAILABLE:
        assert "ERROR" not in str(model.validate())
    count = len(document["vertices"])
    used = set()
    for item in document["CityObjects"].values():
        for geometry in item["geometry"]:
            flat = np.array(list(_numbers(geometry["boundaries"])))
            assert flat.min() >= 0 and flat.max() < count
            used |= set(flat.tolist())
    assert len(used) == count  # no vertex is left over
    low, high = np.array(document["metadata"]["geographicalExtent"]).reshape(2, 3)
    w, s, e, n = place.frame().bounds
    assert (low[:2] >= (w, s)).all() and (high[:2] <= (e, n)).all()
    assert 99 < low[2] < 101 and 114 < high[2] < 118


def _numbers(nested):
    for each in nested:
        if isinstance(each, list):
            yield from _numbers(each)
        else:
            yield each


def test_solids_are_closed_and_have_semantics(city: Path) -> None:
    document = json.loads(city.read_text("utf-8"))
    scale, move = (np.array(document["transform"][key]) for key in ("scale", "translate"))
    vertices = np.array(document["vertices"]) * scale + move
    houses = {n: o for n, o in document["CityObjects"].items() if o["type"] == "Building"}
    for item in houses.values():
        assert [geometry["lod"] for geometry in item["geometry"]] == ["1.2", "2.2"]
        for geometry in item["geometry"]:
            shell = geometry["boundaries"][0]
            edges = Counter(
                (a, b)
                for face in shell
                for ring in face
                for a, b in zip(ring, ring[1:] + ring[:1], strict=True)
            )
            assert all(n == 1 and edges[b, a] == 1 for (a, b), n in edges.items())
            kinds = [
                geometry["semantics"]["surfaces"][k]["type"]
                for k in geometry["semantics"]["values"][0]
            ]
            assert len(kinds) == len(shell) and set(kinds) == {
                "RoofSurface",
                "WallSurface",
                "GroundSurface",
            }
            volume = sum(_signed_volume(vertices[ring]) for face in shell for ring in face)
            # Solids stand on the lowest ground; volumes of cells on the ground of each.
            assert volume == pytest.approx(item["attributes"]["volume"], rel=0.2)
    roofs = {
        item["attributes"]["roofShape"]: Counter(
            item["geometry"][1]["semantics"]["surfaces"][k]["type"]
            for k in item["geometry"][1]["semantics"]["values"][0]
        )["RoofSurface"]
        for item in houses.values()
    }
    assert roofs == {"flat": 1, "gabled": 2, "hipped": 4, "pyramidal": 4, "skillion": 1}


def _signed_volume(ring: np.ndarray) -> float:
    """Of the cone from a ring to a point; the sum over a closed surface is its volume."""
    points = ring - (place.WEST, place.SOUTH, 100.0)
    fan = (np.cross(points[k], points[k + 1]) @ points[0] for k in range(1, len(points) - 1))
    return float(sum(fan)) / 6


def test_roofs_of_other_shapes_are_closed_too(mapped_world: World) -> None:
    """A roof that is none of the simple shapes goes through the tops of its cells."""
    selection = select(mapped_world, None, 1)
    every = [
        building_of(cells, 1.0)
        for objects in world_objects(mapped_world, selection, buildings=True)
        for cells in objects
    ]
    ell = next(each for each in every if each.area == 280)
    ell.cells["top"] += 3 * np.sin(ell.cells["x"] / 4.0)
    solid: Solid = detailed(
        replace(ell, roof="complex", eaves=ell.height - 3), ell.outline, ell.ground, 1.0
    )
    assert solid.kinds.count("RoofSurface") > 20 and solid.kinds.count("GroundSurface") == 1
    edges = Counter(
        (a, b)
        for face in solid.faces
        for ring in face
        for a, b in zip(ring, ring[1:] + ring[:1], strict=True)
    )
    assert all(n == 1 and edges[b, a] == 1 for (a, b), n in edges.items())


def test_our_own_reader_reads_cityjson_back(city: Path) -> None:
    model = open_city(city)
    assert model.crs == "EPSG:32632"
    patches = list(model.patches())
    code = np.concatenate([patch.code for patch in patches])
    corners = np.concatenate([patch.corners for patch in patches])
    assert {codes()["building"], codes()["tree"], codes()["bare_ground"]} == set(code.tolist())
    for name, top in (("building", 103.7 + 12), ("tree", 102.6 + 7)):
        assert corners[code == codes()[name], :, 2].max() == pytest.approx(top, abs=0.6)


def test_options_are_checked() -> None:
    plugins = load()
    for name, options, text in (
        ("gpkg", {"interval": "0"}, "interval"),
        ("gpkg", {"layers": ["houses"]}, "layers"),
        ("cityjson", {"interval": "1"}, "interval"),
    ):
        with pytest.raises(JobError, match=text):
            plugins.create("exporter", name, **options)
    assert plugins.create("exporter", "geoparquet", layers=["trees"]).options.layers == ("trees",)
