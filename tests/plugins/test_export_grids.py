"""Grids of other programs: UMEP, PALM, game engines, Minecraft."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import nbtlib
import numpy as np
import pytest
import rasterio
import shapely
import xarray
from PIL import Image

from earthgen.errors import StoreError
from earthgen.progress import Progress
from earthgen.world.selection import Selection, select
from earthgen.world.world import World
from earthgen_grids.heightmap import HeightmapExporter, HeightmapOptions, sizes_of
from earthgen_grids.palm import PalmExporter, PalmOptions
from earthgen_grids.schem import SchemExporter, SchemOptions, require_size
from earthgen_grids.umep import COVER, GRIDS, UmepExporter
from geo_io.frame import Frame
from geo_io.legend import classes, codes
from tests.helpers import mapped_place as place


def write(exporter, world: World, out: Path, bounds=None, level: int = 1) -> list[Path]:
    out.mkdir(exist_ok=True)
    paths = exporter.export(world, out, bounds=bounds, level=level, progress=Progress())
    assert {each.name for each in out.iterdir()} == {path.name for path in paths}
    return paths


def inside(area) -> np.ndarray:
    """Cells of the place whose middle lies in an area; rows from the north."""
    frame = place.frame()
    x, y = np.meshgrid(np.arange(*frame.x) + 0.5, np.arange(*frame.y)[::-1] + 0.5)
    return shapely.contains_xy(area, x, y)


def test_umep(mapped_world: World, tmp_path: Path) -> None:
    grids = {}
    for path in write(UmepExporter(), mapped_world, tmp_path):
        with rasterio.open(path) as file:
            assert file.crs.to_epsg() == 32632 and file.transform == place.frame().transform
            grids[path.stem] = file.read(1)
    assert list(grids) == list(GRIDS)
    flat = inside(place.HOUSES["flat"][0])
    # Gaussians at the rim of a roof lean towards the wall, a little lower.
    np.testing.assert_allclose((grids["DSM"] - grids["DEM"])[flat], 12, atol=0.25)
    assert (
        (grids["DSM"] - grids["DEM"])[
            ~inside(shapely.union_all([place.SHED, *(h[0] for h in place.HOUSES.values())]))
        ]
        == 0
    ).all()
    crown = grids["CDSM"] > 0
    trees = inside(
        shapely.union_all([p.buffer(r) for p, r, _ in (*place.TREES.values(), (*place.WILD, 0))])
    )
    assert (crown == trees).mean() > 0.99
    np.testing.assert_allclose(grids["CDSM"][crown], 7, atol=0.01)
    np.testing.assert_allclose(grids["TDSM"][crown], 4, atol=0.01)
    ground, above = grids["landcover_ground"], grids["landcover"]
    road = inside(place.ROAD)
    assert (ground[road] == 1).all()  # also below the crown
    assert set(np.unique(above[road])) == {1, 4} and (above[inside(place.LAKE)] == 7).all()
    assert (above[flat] == 2).all() and (ground[flat] == 2).all()
    assert set(np.unique(ground)) == {1, 2, 5, 7}
    assert all(1 <= COVER[land.code] <= 7 for land in classes())


@pytest.mark.slow
def test_umep_runs_on_it(mapped_world: World, tmp_path: Path) -> None:
    """UMEP's own code (AGPL, not a dependency) makes what SOLWEIG needs of the grids: sky view
    factors with crowns, and heights of walls."""
    pytest.importorskip("umep")
    from umep.skyviewfactor_algorithm import generate_svf
    from umep.wall_heightaspect_algorithm import generate_wall_hts

    paths = {path.stem: str(path) for path in write(UmepExporter(), mapped_world, tmp_path / "in")}
    bounds = list(place.frame().bounds)
    out = tmp_path / "out"
    generate_wall_hts(paths["DSM"], bounds, str(out))
    generate_svf(paths["DSM"], bounds, str(out), dem_path=paths["DEM"], cdsm_path=paths["CDSM"])
    with rasterio.open(out / "wall_hts.tif") as file:
        walls = file.read(1)
    flat = inside(place.HOUSES["flat"][0])
    assert walls[flat | inside(place.HOUSES["flat"][0].buffer(1.5))].max() == pytest.approx(
        12, abs=1
    )
    with zipfile.ZipFile(out / "svfs.zip") as archive:
        (out / "svf.tif").write_bytes(archive.read("svf.tif"))
    with rasterio.open(out / "svf.tif") as file:
        svf = file.read(1)
    assert svf.shape == walls.shape == (80, 96) and 0 <= svf.min() < svf.max() <= 1
    far, beside = svf[inside(place.at(86, 18, 94, 26))], svf[inside(place.at(34, 34, 36, 36))]
    assert beside.mean() < far.mean() - 0.2


def test_heightmap(mapped_world: World, tmp_path: Path) -> None:
    paths = write(HeightmapExporter(), mapped_world, tmp_path)
    assert [path.name for path in paths] == [
        "heightmap.png",
        "classes.png",
        "colours.png",
        "heightmap.json",
    ]
    record = json.loads(paths[3].read_text("utf-8"))
    values = np.array(Image.open(paths[0])).astype(float)
    heights = record["lowest"] + values / 65535 * (record["highest"] - record["lowest"])
    ground = mapped_world.layers()["ground"].values
    np.testing.assert_allclose(heights, ground, atol=1e-3)
    picture = Image.open(paths[1])
    np.testing.assert_array_equal(np.array(picture), mapped_world.layers()["semantics"].values)
    building = codes()["building"]
    assert (
        tuple(picture.getpalette()[3 * building : 3 * building + 3]) == classes()[building - 1].rgb
    )
    assert np.array(Image.open(paths[2])).shape == (80, 96, 3)


def test_heightmap_for_engines(mapped_world: World, tmp_path: Path) -> None:
    options = HeightmapOptions(engine="unreal", heights="surface")
    paths = write(HeightmapExporter(options), mapped_world, tmp_path)
    record = json.loads(paths[3].read_text("utf-8"))
    values = np.array(Image.open(paths[0]))
    assert values.shape == (127, 127) and values.dtype == np.uint16
    # A landscape is 512 units of its z scale high, in cm: the whole range of the map.
    reach = record["highest"] - record["lowest"]
    assert record["unreal"]["scale_z"] * 512 / 100 == pytest.approx(reach)
    assert record["unreal"]["scale_x"] * 127 / 100 == pytest.approx(96)
    assert record["highest"] >= 115.7
    for cells, engine, size, wanted in (
        ((96, 80), "none", None, (96, 80)),
        ((96, 80), "godot", 48, (48, 40)),
        ((96, 80), "unity", None, (65, 65)),
        ((5000, 100), "unity", None, (4097, 4097)),
        ((96, 80), "unreal", 1000, (1009, 1009)),
    ):
        assert sizes_of(cells, HeightmapOptions(engine=engine, size=size)) == wanted


def test_schematic(mapped_world: World, tmp_path: Path) -> None:
    (path,) = write(SchemExporter(SchemOptions(depth=3)), mapped_world, tmp_path)
    root = nbtlib.load(path)
    shape = tuple(int(root[name]) for name in ("Height", "Length", "Width"))
    assert shape[1:] == (80, 96) and int(root["Version"]) == 2
    names = {int(number): name for name, number in root["Palette"].items()}
    assert int(root["PaletteMax"]) == len(names) <= 128
    blocks = np.array(root["BlockData"]).astype(np.uint8).reshape(shape)
    assert set(np.unique(blocks)) <= set(names)
    low = int(root["Metadata"]["EarthgenLowestLayer"])
    top = low + shape[0] - 1 - (blocks[::-1] > 0).argmax(axis=0)
    flat, lake = inside(place.HOUSES["flat"][0]), inside(place.LAKE)
    ground = mapped_world.layers()["ground"].values
    # The highest block ends at the height of the roof.
    np.testing.assert_allclose(top[flat] + 1, ground[flat] + 12, atol=0.51)
    surface = np.take_along_axis(blocks, (top - low)[None], axis=0)[0]
    assert {names[n] for n in np.unique(surface[lake])} == {"minecraft:water[level=0]"}
    far = inside(place.ROAD) & ~inside(place.TREES["road"][0].buffer(6))
    assert {names[n] for n in np.unique(surface[far])} == {"minecraft:gray_concrete"}
    trunkless = inside(place.TREES["border"][0].buffer(2))
    assert all("leaves" in names[n] for n in np.unique(surface[trunkless]))


def test_a_schematic_has_limits() -> None:
    frame = Frame("EPSG:32632", 1.0, (0, 70_000), (0, 10), (-16, 64))
    with pytest.raises(StoreError, match=r"70,000 x 10 x 30 blocks.*65,535"):
        require_size((30, 10, 70_000), Selection(frame, 1, ((0, 0),)))
    with pytest.raises(StoreError, match="coarser level"):
        require_size((300, 9000, 9000), Selection(frame, 1, ((0, 0),)))


def test_palm(mapped_world: World, tmp_path: Path) -> None:
    (path,) = write(PalmExporter(), mapped_world, tmp_path)
    assert path.name == "world_static.nc"
    with xarray.open_dataset(path, engine="scipy", mask_and_scale=False) as data:
        data = data.load()
    assert data.attrs["origin_x"] == place.WEST and data.attrs["origin_y"] == place.SOUTH
    assert data.attrs["origin_z"] == 100 and abs(data.attrs["origin_lat"] - 49.983918) < 1e-6
    flat = inside(place.HOUSES["flat"][0])[::-1]  # rows from the south
    np.testing.assert_allclose(
        data["zt"].values[::-1], mapped_world.layers()["ground"].values - 100, atol=1e-3
    )
    np.testing.assert_allclose(data["buildings_2d"].values[flat], 12, atol=0.25)
    number = data["building_id"].values
    assert len(np.unique(number[flat])) == 1 and len(np.unique(number)) == 8  # 7 and none
    # Each cell has one kind of surface, or a building.
    kinds = [
        data[f"{name}_type"].values for name in ("vegetation", "pavement", "water", "building")
    ]
    assert all(kind.dtype == np.int8 for kind in kinds)
    assert (np.stack([kind != -127 for kind in kinds]).sum(axis=0) == 1).all()
    assert (data["pavement_type"].values[inside(place.ROAD)[::-1]] == 2).all()
    assert (data["water_type"].values[inside(place.LAKE)[::-1]] == 1).all()
    soil = data["soil_type"].values != -127
    assert (soil == ((kinds[0] != -127) | (kinds[1] != -127))).all()
    assert data["surface_fraction"].values[:, ~flat].max() == 1
    lad = data["lad"].values
    crown = inside(place.TREES["border"][0].buffer(3))[::-1]
    z = data["zlad"].values
    leaves = lad[:, crown]
    assert (leaves[(z > 4) & (z < 7)] == 1).all()  # an index of 3 over 3 m
    assert (leaves[z < 4] == 0).all() and z[-1] == 6.5
    (bare,) = write(PalmExporter(PalmOptions(trees=False)), mapped_world, tmp_path)
    with xarray.open_dataset(bare, engine="scipy") as data:
        assert "lad" not in data


def test_palm_wants_a_full_rectangle(mapped_world: World, tmp_path: Path) -> None:
    from earthgen_grids import palm

    selection = select(mapped_world, None, 1)
    part = Selection(selection.frame, 1, selection.tiles[:-1])
    with pytest.raises(StoreError, match="have no data"):
        palm.read_grids(mapped_world, part, Progress())
