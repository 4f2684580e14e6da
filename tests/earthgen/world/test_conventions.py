"""Other people's programs read a world: xarray, netCDF, the conventions of GeoZarr, notebooks; and
worlds of format 2 stay what they are."""

from __future__ import annotations

import importlib
import json
import shutil
import tomllib
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray
import zarr

from earthgen import files
from earthgen.errors import StoreError
from earthgen.testing.worlds import same_voxels
from earthgen.voxels.pyramid import tile_levels
from earthgen.voxels.tile import LEVELS, Tile
from earthgen.world import conventions, decisions
from earthgen.world.layout import DENSE
from earthgen.world.store import Store, create_store, open_store
from earthgen.world.world import World, open_world
from earthgen.world.xarray_backend import EarthgenBackend
from geo_io.frame import Frame
from geo_io.legend import codes
from tests.helpers import synthetic

# Neither edge of the world is one of a tile.
FRAME = Frame(
    "EPSG:32632", 1.0, (700_008, 700_088), (5_500_040, 5_500_080), vertical_crs="EPSG:5783"
)
ATTRIBUTES = {"identity": {"seed": 3}, "provenance": {"warnings": []}, "settings": {}}
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_sync_file_system", lambda path: True)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """No reader warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)  # of rioxarray
        yield


@pytest.fixture(scope="module")
def levels() -> list[Tile]:
    return tile_levels(synthetic.tile_from_voxels(FRAME, *synthetic.build(FRAME)))


@pytest.fixture(scope="module")
def path(levels: list[Tile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("world") / "w.zarr"
    store = create_store(found, FRAME, 64, ATTRIBUTES)
    synthetic.fill(store, levels)
    for tx, ty in store.finished_tiles():
        shape = store.tile_frame(tx, ty).shape
        decisions.write(store, tx, ty, np.full(shape, decisions.MAPPED, np.uint8))
    return found


@pytest.fixture
def old(path: Path, tmp_path: Path) -> Path:
    """The same world as format 2 has it."""
    copy = Path(shutil.copytree(path, tmp_path / "old.zarr"))
    for child in (copy / "level_1").iterdir():
        if child.is_dir():
            shutil.rmtree(copy / child.name, ignore_errors=True)
            child.rename(copy / child.name)
    shutil.rmtree(copy / "level_1")
    said = json.loads((copy / "zarr.json").read_text())
    values = {**said["attributes"]["earthgen"], "format_version": 2}
    root = {"zarr_format": 3, "node_type": "group", "attributes": {"earthgen": values}}
    (copy / "zarr.json").write_text(json.dumps(root))
    return copy


def as_netcdf(data: xarray.Dataset | xarray.DataTree, file: Path) -> Path:
    pytest.importorskip("h5netcdf")
    data.to_netcdf(file, engine="h5netcdf")  # type: ignore[call-overload]
    return file


def test_the_root_has_the_crs(path: Path) -> None:
    import rioxarray  # noqa: F401 - adds the .rio accessor

    root = xarray.open_zarr(path)
    assert "spatial_ref" in root.coords and root.rio.crs.to_epsg() == 32632


@pytest.mark.parametrize("level", LEVELS)
def test_the_layers_of_a_level_are_read_by_xarray_and_go_into_netcdf(
    path: Path, tmp_path: Path, level: int
) -> None:
    layers = xarray.open_zarr(path, group=f"level_{level}")
    assert set(layers.coords) == {"x", "y", "spatial_ref"}
    assert layers["rgb"].dims == ("y", "x", "band")
    assert layers.rio.crs.to_epsg() == layers["ground"].rio.crs.to_epsg() == 32632
    assert layers.rio.resolution() == (level, -level)
    file = as_netcdf(layers, tmp_path / "layers.nc")
    with xarray.open_dataset(file, engine="h5netcdf", decode_coords="all") as back:
        assert back.rio.crs.to_epsg() == 32632 and back.attrs.keys() == layers.attrs.keys()
        for name in DENSE:
            assert np.array_equal(
                back[name], layers[name], equal_nan=layers[name].dtype.kind == "f"
            )
            assert back[name].attrs["long_name"] == layers[name].attrs["long_name"]


def test_a_tree_of_all_levels(path: Path, tmp_path: Path) -> None:
    tree = xarray.open_datatree(path, engine="zarr")
    assert {f"level_{level}" for level in LEVELS} <= set(tree.children)
    assert tree["level_8"]["ground"].dims == ("y", "x")
    ours = xarray.open_datatree(path, engine=EarthgenBackend)  # type: ignore[arg-type]
    assert set(ours.children) == {f"level_{level}" for level in LEVELS}
    with xarray.open_datatree(as_netcdf(ours, tmp_path / "t.nc"), engine="h5netcdf") as back:
        assert back["level_4"]["semantics"].shape == FRAME.coarsen(4).shape


def test_the_backend_ends_where_the_world_ends(path: Path, old: Path, tmp_path: Path) -> None:
    assert EarthgenBackend().guess_can_open(path) and EarthgenBackend().guess_can_open(str(old))
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    for other in (tmp_path / "other.zarr", tmp_path, "s3://a/w.zarr", 5):
        assert not EarthgenBackend().guess_can_open(other)
    for world in (path, old):
        whole = xarray.open_dataset(world, engine=EarthgenBackend)
        assert whole.rio.bounds() == FRAME.bounds and whole.rio.crs.to_epsg() == 32632
        box = (700_010.0, 5_500_050.0, 700_030.0, 5_500_060.0)
        part = xarray.open_dataset(
            world, engine=EarthgenBackend, bounds=box, level=2, drop_variables="rgb"
        )
        assert part.rio.bounds() == box and "rgb" not in part
        assert part["spatial_ref"].attrs["GeoTransform"].split()[0] == "700010.0"
        west, north = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(
            part.attrs["geospatial_lon_min"], part.attrs["geospatial_lat_max"]
        )
        assert abs(west - box[0]) < 1 and abs(north - box[3]) < 1
        as_netcdf(part, tmp_path / "part.nc")
    with pytest.raises(StoreError, match="no level 3"):
        xarray.open_dataset(path, engine=EarthgenBackend, level=3)


def test_the_entry_point_names_the_backend() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, name = project["entry-points"]["xarray.backends"]["earthgen"].split(":")
    assert getattr(importlib.import_module(module), name) is EarthgenBackend


def test_layers_say_what_they_are_in_the_words_of_cf(path: Path) -> None:
    layers = xarray.open_zarr(path, group="level_1")
    meanings = layers["semantics"].attrs["flag_meanings"].split()
    values = layers["semantics"].attrs["flag_values"]
    assert dict(zip(meanings, values, strict=True)) == {"no_data": 0, **codes()}
    assert len(layers["semantics"].attrs["flag_colors"].split()) == len(values)
    names = {name: layers[name].attrs.get("standard_name") for name in ("ground", "surface", "x")}
    assert names == {
        "ground": "ground_level_altitude",
        "surface": "altitude",
        "x": "projection_x_coordinate",
    }
    assert layers["ground"].attrs["units"] == "m" and layers["x"].attrs["axis"] == "X"
    grid = layers["spatial_ref"].attrs
    assert grid["grid_mapping_name"] == "transverse_mercator"
    assert pyproj.CRS.from_cf(grid) == pyproj.CRS("EPSG:32632")


@pytest.mark.parametrize(
    ("datum", "name"),
    [("unknown", "ground_level_altitude"), ("EPSG:4979", "height_above_reference_ellipsoid")],
)
def test_heights_above_an_ellipsoid_are_not_called_altitudes(datum: str, name: str) -> None:
    frame = Frame("EPSG:32632", 1.0, (0, 8), (0, 8), vertical_crs=datum)
    assert conventions.of_layer("ground", frame)["standard_name"] == name


def test_the_conventions_of_geozarr(path: Path) -> None:
    said = json.loads((path / "zarr.json").read_text())
    names = {each["name"] for each in said["attributes"]["zarr_conventions"]}
    assert names == {"proj", "spatial", "multiscales"}
    for name in names:
        validator = pytest.importorskip(f"zarr_cm.{name}")
        validator.validate_group_metadata(said)
    assert said["attributes"]["spatial:bbox"] == list(FRAME.bounds)
    root = zarr.open_group(str(path), mode="r")
    for entry in said["attributes"]["multiscales"]["layout"]:
        level: Any = root[entry["asset"]]
        assert list(level["ground"].shape) == entry["spatial:shape"]
        a, _, left, _, _, top = entry["spatial:transform"]
        assert level["x"][0] == left + a / 2 and level["y"][0] == top - a / 2
        assert f"level_{int(a)}" == entry["asset"]


def test_what_is_consolidated_is_what_there_is(path: Path) -> None:
    def members(consolidated: bool) -> dict[str, Any]:
        root = zarr.open_group(str(path), mode="r", use_consolidated=consolidated)
        return {name: dict(each.attrs) for name, each in root.members(max_depth=None)}

    assert members(True).keys() == members(False).keys() and members(True) == members(False)


def test_a_description_is_replaced_and_the_rest_stays(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "w.zarr"))
    before = json.loads((copy / "zarr.json").read_text())
    store = open_store(copy, "r+")
    values = {**store.root.attrs["earthgen"], "provenance": {"warnings": ["a"]}}
    store.describe(values)
    after = json.loads((copy / "zarr.json").read_text())
    assert open_world(copy).provenance == {"warnings": ["a"]}
    del before["attributes"]["earthgen"], after["attributes"]["earthgen"]
    assert before == after and open_world(copy).digest() == open_world(path).digest()
    shutil.rmtree(copy)
    with pytest.raises(StoreError, match="deleted or moved"):
        store.describe(values)


def test_a_world_of_format_2_is_read_and_continued(
    path: Path, old: Path, levels: list[Tile]
) -> None:
    before, now = open_world(old), open_world(path)
    assert before.digest() == before.digest(recompute=True) == now.digest()
    assert same_voxels(before.voxels(), now.voxels())
    for level in LEVELS:
        xarray.testing.assert_identical(before.layers(level), now.layers(level))
    store = open_store(old, "r+")
    tile = store.finished_tiles()[0]
    assert np.array_equal(before.tile_decisions(*tile), now.tile_decisions(*tile))
    entry = store.entry(*tile)
    store.forget([tile])
    assert store.write(*tile, synthetic.cut(store, tile, levels)) == entry
    store.commit({tile: entry})
    store.describe(store.root.attrs["earthgen"])
    assert open_store(old).check(*tile) is None and open_store(old).version == 2
    assert not (old / "level_1").exists()


def test_tiles_of_format_2_are_adopted(path: Path, old: Path, tmp_path: Path) -> None:
    before = open_store(old)
    store: Store = create_store(tmp_path / "new.zarr", FRAME, 64, ATTRIBUTES)
    store.commit({tile: store.adopt(before, *tile) for tile in before.finished_tiles()})
    assert all(store.check(*tile) is None for tile in store.finished_tiles())
    world = World(store)
    assert world.digest(recompute=True) == open_world(path).digest()
    tile = world.tiles()[0]
    assert np.array_equal(world.tile_decisions(*tile), open_world(path).tile_decisions(*tile))


class _Page(HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_a_notebook_shows_a_world(path: Path, tmp_path: Path) -> None:
    named = Path(shutil.copytree(path, tmp_path / "<b>&w.zarr"))
    page = _Page(open_world(named)._repr_html_())
    assert str(named) in page.words and "EPSG:32632" in page.words and "80 m × 40 m" in page.words
    assert page.tags.count("img") == 1 and "b" not in page.tags
    for file in (named / "level_1" / "rgb" / "c").rglob("[0-9]*"):
        if file.is_file():
            file.write_bytes(b"rubble")
    assert "img" not in _Page(open_world(named)._repr_html_()).tags
