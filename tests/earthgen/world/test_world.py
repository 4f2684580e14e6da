"""The main job end to end, on the demo's data: a world is a function, and bad input harms
nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import earthgen
from earthgen.engine.compute import Engine
from earthgen.errors import (
    JobError,
    SizeError,
    StoreError,
    StoreExistsError,
    StoreFullError,
    UnknownNameError,
)
from earthgen.jobs.forecast import estimate
from earthgen.jobs.generate import run
from earthgen.jobs.job import load_job, make_job
from earthgen.jobs.prepare import prepare
from earthgen.testing.backends import same_levels
from earthgen.testing.worlds import same_splats, same_voxels
from earthgen.voxels.tile import LEVELS, Tile
from earthgen.voxels.voxels import Splats, Voxels, concatenate_voxels
from earthgen.world import store as store_module
from earthgen.world.world import World, open_world
from geo_io.errors import EarthgenError, FrameError, InputError, MissingCrsError, RegionError
from geo_io.frame import Frame
from geo_io.legend import codes

DATA = Path(__file__).parents[3] / "examples" / "data"
BOX = (11.5920, 50.0052, 11.5938, 50.0064)
SETTINGS: dict[str, Any] = {
    "bbox": BOX,
    "voxel_size": 2.0,
    "semantics": [
        str(DATA / "landuse.shp"),
        f"{DATA / 'osm.gpkg'}:lines",
        f"{DATA / 'osm.gpkg'}:buildings",
    ],
    "dem": str(DATA / "srtm3.tif"),
    "tile_size": 64,
}


def make(path: Path, **changes: Any) -> World:
    return earthgen.generate(out=path, **{**SETTINGS, **changes})


DENSE = ("ground", "surface", "semantics", "rgb")


def same_worlds(left: World, right: World) -> bool:
    """The same content at all levels, voxel by voxel and cell by cell, whatever the layout on
    disk."""
    return all(
        same_layers(left, right, level)
        and same_rows(
            stored(left, left.level_frame(level), level),
            stored(right, right.level_frame(level), level),
        )
        for level in LEVELS
    )


def same_layers(left: World, right: World, level: int) -> bool:
    """Whether the dense layers of a level are the same where `left` is."""
    ours, theirs = left.layers(level), right.layers(level, left.level_frame(level).bounds)
    return all(
        np.array_equal(
            ours[name].values, theirs[name].values, equal_nan=name in ("ground", "surface")
        )
        for name in DENSE
    )


def stored(world: World, part: Frame, level: int) -> tuple[Voxels, Splats]:
    """What a world holds on a part of it at a level, sorted."""
    tiles = [
        world.tile_voxels(*tile, level)
        for tile in part.tiles(world.tile_size // level)
        if tile in world.tiles()
    ]
    inside = [(voxels.inside(part), voxels, splats) for voxels, splats in tiles]
    voxels = concatenate_voxels(part, [v.take(i) for i, v, _ in inside])
    splats = Splats.concatenate([s.take(i) for i, _, s in inside])
    order = voxels.order()
    return voxels.take(order), splats.take(order)


def same_rows(left: tuple[Voxels, Splats], right: tuple[Voxels, Splats]) -> bool:
    return same_voxels(left[0], right[0]) and same_splats(left[1], right[1])


def as_stored(splats: Splats) -> Splats:
    """Gaussians with the digits that a store keeps of them."""
    names = ("offset", "scale", "rotation", "opacity", "sh")
    return Splats(*(getattr(splats, name).astype(np.float16).astype(np.float32) for name in names))


def check_tile(world: World, tile: Tile, level: int) -> None:
    """A tile is what a world holds in its place."""
    layers = world.layers(level, tile.frame.bounds)
    for name in DENSE:
        assert np.array_equal(
            layers[name].values, getattr(tile, name), equal_nan=name in ("ground", "surface")
        ), name
    order = tile.voxels.order()
    found = tile.voxels.take(order), as_stored(tile.splats.take(order))
    assert same_rows(found, stored(world, tile.frame, level))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make(tmp_path_factory.mktemp("world") / "w.zarr")


def test_it_is_where_it_was_asked_for(world: World) -> None:
    assert world.frame.crs == "EPSG:32632" and world.complete
    layers = world.layers()
    west, south, east, north = layers.rio.transform_bounds("EPSG:4326")
    assert (
        west <= BOX[0] + 1e-7
        and south <= BOX[1] + 1e-7
        and east >= BOX[2] - 1e-7
        and north >= BOX[3] - 1e-7
    )
    assert east - west < (BOX[2] - BOX[0]) * 1.2
    assert np.isfinite(layers["ground"].values).all() and (layers["semantics"].values > 0).all()
    assert 300 < float(layers["ground"].mean()) < 500
    assert (layers["surface"].values >= layers["ground"].values - 2.0).all()


def test_its_buildings_are_the_footprints(world: World) -> None:
    layers = world.layers()
    footprints = gpd.read_file(DATA / "osm.gpkg", layer="buildings").to_crs(32632)
    from rasterio.features import geometry_mask

    truth = geometry_mask(
        footprints.geometry, world.frame.shape, world.frame.transform, invert=True
    )
    made = layers["semantics"].values == codes()["building"]
    assert truth.sum() > 300
    assert (truth & made).sum() / (truth | made).sum() > 0.85


def test_it_says_where_it_came_from(world: World) -> None:
    said = world.provenance
    assert said["ground"] == "measured (dem)"
    assert all(
        row["digest"].startswith("sha256:") for rows in said["inputs"].values() for row in rows
    )
    assert said["inputs"]["semantics"][1]["digest"].endswith("layer lines")
    assert "unknown" in " ".join(said["warnings"])
    assert world.identity["geometry"]["name"] == "procedural"
    assert {row["class"] for row in said["survey"]["semantics"]["values"]} >= {
        "building",
        "residential",
    }


def test_levels_agree_with_each_other(world: World) -> None:
    fine = world.layers()["ground"].values
    for level in (2, 4, 8):
        coarse = world.layers(level)["ground"].values
        assert coarse.shape == world.frame.coarsen(level).shape
        assert abs(np.nanmean(coarse) - fine.mean()) < 1.0
        assert len(world.voxels(level=level)) < len(world.voxels(level=max(1, level // 2)))


@pytest.mark.slow
def test_same_seed_same_bits_other_seed_other_world(world: World, tmp_path: Path) -> None:
    assert same_worlds(world, make(tmp_path / "same.zarr"))
    assert not same_worlds(world, make(tmp_path / "other.zarr", seed=1))


@pytest.mark.parametrize(
    "tile_size", [pytest.param(size, marks=pytest.mark.slow) for size in (72, 128, 512)]
)
def test_any_tile_size_gives_the_same_world(world: World, tmp_path: Path, tile_size: int) -> None:
    made = make(tmp_path / "w.zarr", tile_size=tile_size)
    assert same_worlds(world, made)
    assert world.digest() == made.digest(recompute=True)


@pytest.mark.slow
def test_two_processes_make_the_same_world(world: World, tmp_path: Path) -> None:
    made = make(tmp_path / "w.zarr", workers=2)
    assert same_worlds(world, made) and world.digest() == made.digest()


def crop_of(frame: Frame, x: tuple[int, int], y: tuple[int, int]) -> tuple[Frame, Engine]:
    """A part of a frame, and the engine of a job for it."""
    part = replace(frame, x=x, y=y)
    prepared = prepare(
        make_job({**SETTINGS, "out": "unused", "bbox": part.bounds, "bbox_crs": frame.crs})
    )
    assert prepared.frame == part
    return part, prepared.engine


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
@pytest.mark.slow
def test_a_crop_is_the_whole_s_part(world: World, data: st.DataObject) -> None:
    """At every level, also where the edges of the crop cut coarse cells."""
    frame = world.frame
    x0 = data.draw(st.integers(frame.x[0], frame.x[1] - 2))
    y0 = data.draw(st.integers(frame.y[0], frame.y[1] - 2))
    x1 = data.draw(st.integers(x0 + 1, frame.x[1]))
    y1 = data.draw(st.integers(y0 + 1, frame.y[1]))
    part, engine = crop_of(frame, (x0, x1), (y0, y1))
    size = data.draw(st.sampled_from([64, 96, 320]))
    tile = engine.reference(size)
    for tx, ty in part.tiles(size):
        for level, made in zip(LEVELS, tile(tx, ty), strict=True):
            check_tile(world, made, level)


@pytest.mark.slow
def test_a_crop_that_cuts_coarse_cells_is_the_whole_s_part_on_disk(
    world: World, tmp_path: Path
) -> None:
    """Its edges leave every remainder to 8 that coarse levels could stumble over: 3, 5, 1 and 7."""
    frame = world.frame
    x = frame.x[0] // 8 * 8 + 16 + 3, frame.x[0] // 8 * 8 + 56 + 5
    y = frame.y[0] // 8 * 8 + 16 + 1, frame.y[0] // 8 * 8 + 56 + 7
    part = replace(frame, x=x, y=y)
    made = make(tmp_path / "w.zarr", bbox=part.bounds, bbox_crs=frame.crs, tile_size=72)
    assert made.frame == part
    for level in LEVELS:
        coarse = made.level_frame(level)
        assert coarse == (part.coarsen(level) if level > 1 else part)
        assert same_layers(made, world, level), level
        assert same_rows(stored(made, coarse, level), stored(world, coarse, level)), level


@pytest.mark.slow
def test_the_order_of_tiles_does_not_matter(world: World) -> None:
    prepared = prepare(make_job({**SETTINGS, "out": "unused"}))
    other = prepare(make_job({**SETTINGS, "out": "unused"}))
    tiles = list(prepared.frame.tiles(64))
    one, another = prepared.engine.reference(64), other.engine.reference(64)
    forward = {tile: one(*tile) for tile in tiles}
    for tile in reversed(tiles):
        assert same_levels(forward[tile], another(*tile))
    for level, made in zip(LEVELS, forward[tiles[0]], strict=True):
        check_tile(world, made, level)


@pytest.mark.slow
def test_sources_in_memory_give_what_files_give(world: World, tmp_path: Path) -> None:
    import rioxarray

    layers = [
        gpd.read_file(DATA / "landuse.shp"),
        *(gpd.read_file(DATA / "osm.gpkg", layer=n) for n in ("lines", "buildings")),
    ]
    for frame, name in zip(layers, ("landuse", "lines", "buildings"), strict=True):
        frame.attrs["name"] = name
    dem = rioxarray.open_rasterio(DATA / "srtm3.tif")
    assert isinstance(dem, xarray.DataArray)
    made = make(tmp_path / "w.zarr", semantics=layers, dem=dem.squeeze())
    assert np.array_equal(made.layers()["semantics"].values, world.layers()["semantics"].values)
    assert np.array_equal(made.layers()["ground"].values, world.layers()["ground"].values)


@pytest.mark.slow
def test_a_job_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        f"bbox = {list(BOX)}\nvoxel_size = 2\ntile_size = 64\nout = 'w.zarr'\n"
        f"semantics = {SETTINGS['semantics']!r}\ndem = {SETTINGS['dem']!r}\n"
    )
    report = run(make_job(load_job(tmp_path / "job.toml")))
    assert report.world.path == tmp_path / "w.zarr"
    assert same_worlds(report.world, world)


@pytest.mark.slow
def test_a_region_file_masks_the_world(world: World, tmp_path: Path) -> None:
    left, bottom, right, top = world.frame.bounds
    triangle = shapely.Polygon(
        [(left + 20, bottom + 20), (right - 20, bottom + 20), (left + 20, top - 20)]
    )
    gpd.GeoDataFrame(geometry=[triangle], crs=32632).to_file(tmp_path / "region.gpkg", layer="area")
    made = make(tmp_path / "w.zarr", bbox=None, region=f"{tmp_path / 'region.gpkg'}:area")
    seen = made.layers()["semantics"].values > 0
    assert seen.mean() == pytest.approx(0.5, abs=0.03)
    assert any(edge % 8 for edge in (*made.frame.x, *made.frame.y)), "the frame cuts coarse cells"
    for level in LEVELS:
        frame = made.level_frame(level)
        layers, whole = made.layers(level), world.layers(level, frame.bounds)
        shown = layers["semantics"].values > 0
        assert np.array_equal(shown, any_child(seen, made.frame, frame, level)), (
            "a coarse cell is in if a child is"
        )
        for name in DENSE:
            assert np.array_equal(layers[name].values[shown], whole[name].values[shown]), (
                level,
                name,
            )
        assert (
            np.isnan(layers["surface"].values[~shown]).all()
            and np.isnan(layers["ground"].values[~shown]).all()
        )
        assert not layers["rgb"].values[~shown].any()
        voxels, splats = stored(world, frame, level)
        x, y = voxels.xyz[:, 0] - frame.x[0], frame.y[1] - 1 - voxels.xyz[:, 1]
        inside = shown[y, x]
        assert same_rows(stored(made, frame, level), (voxels.take(inside), splats.take(inside))), (
            level
        )
    # ... whatever the tile size, at every level
    other = make(
        tmp_path / "o.zarr", bbox=None, region=f"{tmp_path / 'region.gpkg'}:area", tile_size=104
    )
    assert made.digest() == other.digest(recompute=True)


def any_child(seen: np.ndarray, frame: Frame, coarse: Frame, level: int) -> np.ndarray:
    """(ny, nx) of the cells of `coarse` that have a child in `seen`, which is on `frame`."""
    wide = np.zeros((coarse.ny * level, coarse.nx * level), bool)
    top, left = coarse.y[1] * level - frame.y[1], frame.x[0] - coarse.x[0] * level
    wide[top : top + frame.ny, left : left + frame.nx] = seen
    return wide.reshape(coarse.ny, level, coarse.nx, level).any(axis=(1, 3))


def test_the_extent_of_a_raster_is_a_region(tmp_path: Path) -> None:
    place = {"crs": "EPSG:25832", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000)}
    with rasterio.open(
        tmp_path / "dem.tif", "w", width=20, height=10, count=1, dtype="float32", **place
    ) as dem:
        dem.write(np.full((1, 10, 20), 70, np.float32))
    made = earthgen.generate(
        dem=str(tmp_path / "dem.tif"), crs="EPSG:25832", voxel_size=2, out=tmp_path / "w.zarr"
    )
    assert made.frame.bounds == (500_000, 5_499_900, 500_200, 5_500_000)
    assert np.allclose(made.layers()["ground"].values, 70, atol=0.01)


def test_without_a_dem_the_ground_is_generated_and_said_to_be(tmp_path: Path) -> None:
    made = make(tmp_path / "w.zarr", dem=None)
    assert made.provenance["ground"] == "generated, not measured"
    assert np.isfinite(made.layers()["ground"].values).all()


def snapshot(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("standing") / "w.zarr"
    make(path, bbox=(11.5930, 50.0055, 11.5940, 50.0061))
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Bad input of every kind."""
    square = shapely.box(11.59, 50.0, 11.6, 50.01)
    gpd.GeoDataFrame({"class": ["forest"]}, geometry=[square], crs=4326).to_file(
        tmp_path / "good.gpkg"
    )
    gpd.GeoDataFrame({"class": ["forest"]}, geometry=[square]).to_file(tmp_path / "nocrs.shp")
    far = shapely.box(2.0, 48.0, 2.1, 48.1)
    gpd.GeoDataFrame({"class": ["forest"]}, geometry=[far], crs=4326).to_file(tmp_path / "far.gpkg")
    gpd.GeoDataFrame({"class": ["zzz"]}, geometry=[square], crs=4326).to_file(
        tmp_path / "strange.gpkg"
    )
    gpd.GeoDataFrame({"a": ["q"], "b": [1.5]}, geometry=[square], crs=4326).to_file(
        tmp_path / "fieldless.gpkg"
    )
    (tmp_path / "text.txt").write_text("no map")

    def dem(
        name: str,
        crs: str,
        box: tuple[float, float, float, float],
        value: float,
        nodata: float | None,
    ) -> None:
        transform = rasterio.transform.from_bounds(*box, 40, 40)
        with rasterio.open(
            tmp_path / name,
            "w",
            driver="GTiff",
            width=40,
            height=40,
            count=1,
            dtype="float32",
            crs=crs,
            transform=transform,
            nodata=nodata,
        ) as out:
            out.write(np.full((1, 40, 40), value, np.float32))

    dem("empty.tif", "EPSG:4326", (11.58, 49.99, 11.61, 50.02), -9999, -9999)
    dem("nan.tif", "EPSG:4326", (11.58, 49.99, 11.61, 50.02), np.nan, None)
    dem("feet.tif", "EPSG:2229", (6_480_000, 1_830_000, 6_484_000, 1_834_000), 300, None)
    return tmp_path


BAD: list[tuple[dict[str, Any], type[EarthgenError], str]] = [
    ({"semantics": "{}/none.shp"}, InputError, "none.shp does not exist"),
    ({"semantics": "{}/text.txt"}, InputError, "text.txt"),
    ({"semantics": "{}/far.gpkg"}, RegionError, "far.gpkg"),
    ({"bbox": (50.0050, 11.5915, 50.0068, 11.5945)}, EarthgenError, ""),
    ({"bbox": (11.5945, 50.0050, 11.5915, 50.0068)}, RegionError, ""),
    ({"bbox": (11.5915, 50.0068, 11.5945, 50.0050)}, RegionError, ""),
    ({"bbox": (11.59, 50.005, 11.59, 50.005)}, RegionError, ""),
    ({"bbox": (9.5, 48.5, 13.5, 51.5)}, SizeError, "tiles.*GB.*h.*`yes`"),
    ({"crs": "EPSG:4326"}, FrameError, "geographic"),
    ({"semantics": "{}/nocrs.shp"}, MissingCrsError, "`assume_crs`"),
    ({"class_field": "klass"}, InputError, "class"),
    ({"semantics": "{}/fieldless.gpkg"}, InputError, "a, b|`class_field`"),
    ({"semantics": "{}/strange.gpkg"}, EarthgenError, "zzz|fieldless|class"),
    ({"dem": "{}/empty.tif"}, InputError, "nodata"),
    ({"dem": "{}/nan.tif"}, InputError, "nodata"),
    ({"dem": "{}/feet.tif", "bbox": (-118.3, 34.0, -118.29, 34.01)}, InputError, "`dem_unit`"),
    ({"dem": "{}/none.tif"}, InputError, "none.tif does not exist"),
    ({"geometry": "procedual"}, UnknownNameError, "did you mean 'procedural'"),
    ({"legend": "korine"}, EarthgenError, "korine"),
    ({"image": "{}/text.txt"}, InputError, "text.txt"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_bad_input_is_one_line_and_harms_nothing(
    standing: Path, files: Path, change: dict[str, Any], error: type[EarthgenError], words: str
) -> None:
    change = {
        key: value.format(files) if isinstance(value, str) else value
        for key, value in change.items()
    }
    before = snapshot(standing)
    with pytest.raises(error, match=words or None) as caught:
        make(standing, overwrite=True, **{"semantics": f"{files}/good.gpkg", "dem": None, **change})
    assert "\n" not in str(caught.value) and caught.value.exit_code > 1
    assert caught.value.remedy, "an error ends with the next step"
    assert snapshot(standing) == before
    assert sorted(path.name for path in standing.parent.iterdir()) == ["w.zarr"]


def test_an_existing_world_is_kept_or_replaced_as_asked(tmp_path: Path) -> None:
    box = (11.5930, 50.0055, 11.5940, 50.0061)
    path = tmp_path / "w.zarr"
    make_small = partial(make, semantics=str(DATA / "landuse.shp"), bbox=box)
    first = make_small(path).voxels()
    before = snapshot(path)
    with pytest.raises(StoreExistsError, match=r"`resume`.*`overwrite`"):
        make_small(path)
    with pytest.raises(StoreError, match=r"seed \(0 before, 5 now\)"):
        make_small(path, resume=True, seed=5)
    with pytest.raises(StoreError, match="extent"):
        make_small(path, bbox=BOX, resume=True)
    with pytest.raises(StoreError, match=r"dem|inputs"):
        make_small(path, resume=True, dem=None)
    assert snapshot(path) == before
    assert same_voxels(make_small(path, resume=True).voxels(), first)
    assert not same_voxels(make_small(path, overwrite=True, seed=5).voxels(), first)
    assert [file.name for file in tmp_path.iterdir()] == ["w.zarr"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreExistsError, match="not an earthgen world"):
        make_small(tmp_path / "mine", overwrite=True)
    foreign = xarray.Dataset({"depth": ("x", [1.0, 2.0])})
    foreign.to_zarr(tmp_path / "foreign.zarr", zarr_format=3)
    with pytest.raises(StoreExistsError, match="not an earthgen world"):
        make_small(tmp_path / "foreign.zarr", overwrite=True)
    assert xarray.open_zarr(tmp_path / "foreign.zarr")["depth"].values.tolist() == [1.0, 2.0]
    with pytest.raises(StoreError, match="does not exist"):
        make_small(tmp_path / "no" / "folder.zarr")


@pytest.mark.slow
def test_a_job_that_broke_off_is_resumed_to_the_same_world(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Engine.tile, []

    def failing(self: Engine, *arguments: Any):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(Engine, "tile", failing)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "w.zarr")
    monkeypatch.undo()
    assert len(open_world(tmp_path / "w.zarr").tiles()) == 2
    assert same_worlds(make(tmp_path / "w.zarr", resume=True), world)


@pytest.mark.slow
def test_a_full_disk_leaves_what_is_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real, calls = store_module._write_rows, []

    def full(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 100:  # a tile has 36 layers of voxels
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(store_module, "_write_rows", full)
    with pytest.raises(StoreFullError, match="full"):
        make(tmp_path / "w.zarr")
    monkeypatch.undo()
    partial = open_world(tmp_path / "w.zarr")
    for tx, ty in partial.tiles():
        assert same_voxels(partial.tile_voxels(tx, ty)[0], world.tile_voxels(tx, ty)[0])
    assert partial.tiles() and not partial.complete
    assert same_worlds(make(tmp_path / "w.zarr", resume=True), world)


def test_settings_that_contradict_each_other() -> None:
    for values, words in [
        ({"tile_size": 100}, "multiple of 8"),
        ({"voxel_size": -1}, "voxel_size"),
        ({"overwrite": True, "resume": True}, "exclude"),
        ({"region": "a.gpkg"}, "not both"),
        ({"voxelsize": 1}, "voxelsize"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(JobError, match=words):
            make_job({**SETTINGS, "out": "w.zarr", **values})
    with pytest.raises(JobError, match="`bbox`"):
        estimate(make_job({"out": "w.zarr", "semantics": SETTINGS["semantics"]}))


def test_repaired_geometries_are_counted(tmp_path: Path) -> None:
    bow = shapely.Polygon(
        [(11.5915, 50.005), (11.5945, 50.0068), (11.5945, 50.005), (11.5915, 50.0068)]
    )
    gpd.GeoDataFrame(
        {"class": ["forest", "meadow"]}, geometry=[bow, shapely.Polygon()], crs=4326
    ).to_file(tmp_path / "bow.gpkg")
    report = run(
        make_job({**SETTINGS, "semantics": str(tmp_path / "bow.gpkg"), "out": tmp_path / "w.zarr"})
    )
    text = " ".join(report.warnings)
    assert "1 geometries were repaired" in text and "1 features have no geometry" in text
