"""The store: what is written comes back, a tile appears in one step, and other readers can open it."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
import zarr

from earthgen import store as store_module
from earthgen.engine import Engine
from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.noise import Noise
from earthgen.store import create_store, open_store
from earthgen.testing import same_voxels
from earthgen.world import open_world
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.errors import RegionError
from geo_io.frame import Frame

FRAME = Frame("EPSG:32632", 1.0, (700_010, 700_150), (5_500_030, 5_500_100), vertical_crs="EPSG:5783")
ATTRIBUTES = {"identity": {"seed": 3}, "provenance": {}, "settings": {}}


def fill(path: Path, tile_size: int = 64, frame: Frame = FRAME):
    engine = Engine(frame, Terraces(), Stripes(), {}, Noise(3))
    store = create_store(path, frame, tile_size, ATTRIBUTES)
    for tx, ty in frame.tiles(tile_size):
        store.write(tx, ty, engine.tile(tx, ty, tile_size))
    return engine


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    engine = fill(tmp_path / "w.zarr")
    world = open_world(tmp_path / "w.zarr")
    assert world.frame == FRAME and world.seed == 3 and world.complete
    for tx, ty in world.tiles():
        tile = engine.tile(tx, ty, 64)
        voxels, splats = world.tile_voxels(tx, ty)
        assert world.tile_frame(tx, ty) == tile.frame
        assert same_voxels(voxels, tile.voxels)
        half = tile.splats.take(np.arange(len(tile.splats)))
        assert np.allclose(splats.offset, half.offset, atol=1e-3) and np.allclose(splats.sh, half.sh, atol=1e-3)
        for name, data in world.tile_layers(tx, ty).items():
            assert np.array_equal(data, getattr(tile, name))
    assert world.counts["voxels"] == FRAME.nx * FRAME.ny
    assert world.counts["voxels_level_8"] == FRAME.coarsen(8).nx * FRAME.coarsen(8).ny


@pytest.mark.parametrize("tile_size", [64, 72, 200])
def test_the_tile_size_does_not_show(tmp_path: Path, tile_size: int) -> None:
    fill(tmp_path / "a.zarr", 64)
    fill(tmp_path / "b.zarr", tile_size)
    a, b = open_world(tmp_path / "a.zarr"), open_world(tmp_path / "b.zarr")
    assert same_voxels(a.voxels(), b.voxels())
    assert np.array_equal(a.gaussians().means, b.gaussians().means)
    for name in ("ground", "surface", "semantics", "rgb"):
        assert np.array_equal(a.layers()[name].values, b.layers()[name].values)


def test_a_box_gives_the_same_as_the_whole(tmp_path: Path) -> None:
    fill(tmp_path / "w.zarr")
    world = open_world(tmp_path / "w.zarr")
    box = (700_040.0, 5_500_050.0, 700_080.5, 5_500_071.0)
    part, whole = world.voxels(box), world.voxels()
    inside = whole.inside(part.frame)
    assert part.frame.x == (700_040, 700_081)
    assert np.array_equal(part.xyz, whole.xyz[inside])
    gaussians = world.gaussians(box)
    assert len(gaussians.means) == len(part)
    ground = world.layers(bounds=box)["ground"]
    assert ground.shape == part.frame.shape
    assert float(ground.x[0]) == 700_040.5 and float(ground.y[0]) == part.frame.y[1] - 0.5
    with pytest.raises(RegionError, match="does not meet"):
        world.voxels((0.0, 0.0, 1.0, 1.0))
    with pytest.raises(StoreError, match="no level 3"):
        world.layers(level=3)


@pytest.mark.parametrize("level", [1, 2, 4, 8])
def test_xarray_opens_it(tmp_path: Path, level: int) -> None:
    import rioxarray  # noqa: F401 - adds the .rio accessor

    fill(tmp_path / "w.zarr")
    group = None if level == 1 else f"level_{level}"
    dataset = xarray.open_zarr(str(tmp_path / "w.zarr"), group=group, consolidated=False, decode_coords="all")
    assert dataset.rio.crs.to_epsg() == 32632
    assert dataset["ground"].attrs["vertical_crs"] == "EPSG:5783"
    assert dataset.rio.resolution() == (level, -level)
    layers = open_world(tmp_path / "w.zarr").layers(level)
    assert layers.rio.crs.to_epsg() == 32632
    assert layers["rgb"].shape == (*FRAME.coarsen(level).shape, 3)


def test_gdal_can_read_what_it_says_it_can(tmp_path: Path) -> None:
    """GDAL from 3.11 on reads the codecs used (bytes, gzip); an older one says so instead of reading wrong."""
    fill(tmp_path / "w.zarr")
    path = f'ZARR:"{tmp_path / "w.zarr"}":/ground'
    if rasterio.__gdal_version__ < "3.11":
        with pytest.raises(rasterio.errors.RasterioIOError, match="codec"):
            rasterio.open(path)
        return
    with rasterio.open(path) as data:
        assert np.nanmax(data.read(1)) == np.nanmax(open_world(tmp_path / "w.zarr").layers()["ground"].values)


def test_only_standard_codecs(tmp_path: Path) -> None:
    fill(tmp_path / "w.zarr")
    root = zarr.open_group(str(tmp_path / "w.zarr"), mode="r")
    assert root.metadata.zarr_format == 3
    for name in ("ground", "semantics"):
        assert [codec.to_dict()["name"] for codec in root[name].metadata.codecs] == ["bytes", "gzip"]
    names = [codec.to_dict()["name"] for codec in root["voxels/level_1/xyz"].metadata.codecs]
    assert names == ["bytes", "blosc", "crc32c"]


def test_a_tile_that_is_not_in_the_index_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(FRAME, Terraces(), Stripes(), {}, Noise(3))
    store = create_store(tmp_path / "w.zarr", FRAME, 64, ATTRIBUTES)
    tiles = list(FRAME.tiles(64))
    store.write(*tiles[0], engine.tile(*tiles[0], 64))

    real, calls = store_module._write_rows, []

    def full(*arguments: object) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(store_module, "_write_rows", full)
    with pytest.raises(StoreFullError, match=r"disk.*full.*--resume"):
        store.write(*tiles[1], engine.tile(*tiles[1], 64))
    monkeypatch.undo()
    world = open_world(tmp_path / "w.zarr")
    assert world.tiles() == [tiles[0]] and not world.complete and world.missing == len(tiles) - 1
    assert len(world.voxels()) == world.tile_frame(*tiles[0]).nx * world.tile_frame(*tiles[0]).ny


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "w.zarr")
    world = open_world(tmp_path / "w.zarr")
    for folder in ("ground", "voxels/level_1/xyz", "splats/level_1/sh"):
        chunk = next(file for file in sorted((tmp_path / "w.zarr" / folder / "c").rglob("*")) if file.is_file())
        good = chunk.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 4
        chunk.write_bytes(bad)
        with pytest.raises(Exception, match=r"(?i)crc|checksum|corrupt|invalid|decompress|error"):
            for tile in world.tiles():
                world.tile_layers(*tile)
                world.tile_voxels(*tile)
        chunk.write_bytes(good)


def test_what_is_no_world_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="not an earthgen world"):
        open_store(tmp_path / "folder")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(StoreError, match="not an earthgen world"):
        open_store(tmp_path / "other.zarr")
    fill(tmp_path / "w.zarr")
    with pytest.raises(StoreExistsError):
        create_store(tmp_path / "w.zarr", FRAME, 64, ATTRIBUTES)
    root = zarr.open_group(str(tmp_path / "w.zarr"), mode="r+")
    root.attrs["earthgen"] = {**root.attrs["earthgen"], "format_version": 99}
    with pytest.raises(StoreError, match="version 99"):
        open_store(tmp_path / "w.zarr")
