"""The store: what is written comes back, a tile appears in one step, damage is found, and others
can read it."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
import zarr

from earthgen import files
from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.testing.worlds import same_voxels
from earthgen.voxels.pyramid import tile_levels
from earthgen.voxels.tile import LEVELS, Tile
from earthgen.world import store as store_module
from earthgen.world.digest import add_digests, tile_digest
from earthgen.world.store import Entry, Store, create_store, open_store
from earthgen.world.world import open_world
from geo_io.errors import FrameError, RegionError
from geo_io.frame import Frame
from tests.helpers import synthetic
from tests.helpers.places import bucket, place  # noqa: F401 - fixtures

FRAME = Frame(
    "EPSG:32632", 1.0, (700_008, 700_152), (5_500_032, 5_500_104), vertical_crs="EPSG:5783"
)
ATTRIBUTES = {"identity": {"seed": 3}, "provenance": {}, "settings": {}}


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were synced; waiting for the disk would be most of these tests' time."""
    found: list[Path] = []
    monkeypatch.setattr(
        files, "_sync_file_system", lambda path: False
    )  # file by file, to see which
    monkeypatch.setattr(files, "_sync", found.append)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return found


@pytest.fixture(scope="module")
def levels() -> list[Tile]:
    """The world of these tests, whole."""
    return tile_levels(synthetic.tile_from_voxels(FRAME, *synthetic.build(FRAME)))


def make(path: Path | str, levels: list[Tile], tile_size: int = 64, seed: int = 3) -> Store:
    store = create_store(path, FRAME, tile_size, {**ATTRIBUTES, "identity": {"seed": seed}})
    synthetic.fill(store, levels)
    return store


@pytest.fixture(scope="module")
def finished(levels: list[Tile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished world, for tests that read."""
    path = tmp_path_factory.mktemp("finished") / "w.zarr"
    make(path, levels)
    return path


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A finished world, for tests that spoil it."""
    return Path(shutil.copytree(finished, tmp_path / "w.zarr"))


def only_tile(levels: list[Tile], path: Path) -> tuple[Store, tuple[int, int], list[Tile]]:
    """A world without a tile, and the first tile's levels."""
    store = create_store(path, FRAME, 64, ATTRIBUTES)
    tile = next(iter(FRAME.tiles(64)))
    return store, tile, synthetic.cut(store, tile, levels)


@pytest.mark.parametrize(
    ("name", "value"), [("offset", np.nan), ("sh", np.inf), ("opacity", -np.inf)]
)
def test_gaussians_without_a_place_are_damage(copy: Path, name: str, value: float) -> None:
    """Every format would write them, or end in an error that names no file."""
    array = zarr.open_array(copy / f"splats/level_8/{name}", mode="r+")
    tile = open_store(copy).finished_tiles()[0]
    row, column = open_store(copy)._place(*tile)
    values = array[row, column, :1]
    values.reshape(-1)[0] = value
    array[row, column, :1] = values
    with pytest.raises(StoreError, match=r"Gaussians of tile .* are damaged.*`earthgen verify`"):
        open_store(copy).read_voxels(*tile, 8)
    assert "damaged" in str(open_store(copy).check(*tile))


def test_what_is_written_comes_back(finished: Path, levels: list[Tile]) -> None:
    world = open_world(finished)
    assert world.frame == FRAME and world.seed == 3 and world.complete and world.path == finished
    for tx, ty in world.tiles():
        for level, tile in zip(
            LEVELS, synthetic.cut(open_store(finished), (tx, ty), levels), strict=True
        ):
            voxels, splats = world.tile_voxels(tx, ty, level)
            assert world.tile_frame(tx, ty, level) == tile.frame and splats.sh.dtype == np.float32
            assert same_voxels(voxels, tile.voxels)
            for name in ("offset", "scale", "rotation", "opacity", "sh"):
                stored = getattr(tile.splats, name).astype(np.float16)
                assert np.array_equal(getattr(splats, name), stored.astype(np.float32))
            for name, data in world.tile_layers(tx, ty, level).items():
                assert np.array_equal(
                    data, getattr(tile, name), equal_nan=name in ("ground", "surface")
                )
    assert world.counts == {
        "voxels" + (f"_level_{level}" if level > 1 else ""): len(tile.voxels)
        for level, tile in zip(LEVELS, levels, strict=True)
    }
    assert world.bytes_on_disk() == sum(
        file.stat().st_size for file in finished.rglob("*") if file.is_file()
    )


@pytest.mark.parametrize("tile_size", [64, 72, 200])
def test_the_tile_size_does_not_show(
    tmp_path: Path, finished: Path, levels: list[Tile], tile_size: int
) -> None:
    make(tmp_path / "b.zarr", levels, tile_size)
    a, b = open_world(finished), open_world(tmp_path / "b.zarr")
    assert same_voxels(a.voxels(), b.voxels())
    assert np.array_equal(a.gaussians().means, b.gaussians().means)
    for name in ("ground", "surface", "semantics", "rgb"):
        assert np.array_equal(a.layers()[name].values, b.layers()[name].values)
    assert a.digest() == b.digest() == b.digest(recompute=True)
    assert open_store(tmp_path / "b.zarr").digest() == tile_digest(levels)


def test_a_box_gives_the_same_as_the_whole(finished: Path) -> None:
    world = open_world(finished)
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
def test_xarray_opens_it(finished: Path, level: int) -> None:
    import rioxarray  # noqa: F401 - adds the .rio accessor

    dataset = xarray.open_zarr(str(finished), group=f"level_{level}")
    assert dataset.rio.crs.to_epsg() == 32632
    assert dataset["ground"].attrs["vertical_crs"] == "EPSG:5783"
    assert dataset.rio.resolution() == (level, -level)
    layers = open_world(finished).layers(level)
    assert layers.rio.crs.to_epsg() == 32632
    assert layers["rgb"].shape == (*FRAME.coarsen(level).shape, 3)


def test_gdal_can_read_what_it_says_it_can(finished: Path) -> None:
    """GDAL from 3.11 on reads the codecs used (bytes, gzip); an older one says so instead of
    reading wrong."""
    path = f'ZARR:"{finished}":/level_1/ground'
    if rasterio.__gdal_version__ < "3.11":
        with pytest.raises(rasterio.errors.RasterioIOError, match="codec"):
            rasterio.open(path)
        return
    with rasterio.open(path) as data:
        assert np.nanmax(data.read(1)) == np.nanmax(open_world(finished).layers()["ground"].values)


def test_only_standard_codecs(finished: Path) -> None:
    root = zarr.open_group(str(finished), mode="r")
    assert root.metadata.zarr_format == 3
    for name in ("level_1/ground", "level_1/semantics", "level_4/rgb"):
        assert [codec.to_dict()["name"] for codec in root[name].metadata.codecs] == [
            "bytes",
            "gzip",
        ]
    (sharding,) = (codec.to_dict() for codec in root["voxels/level_1/xyz"].metadata.codecs)
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == [
        "bytes",
        "blosc",
        "crc32c",
    ]
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == [
        "bytes",
        "crc32c",
    ]
    assert [codec.to_dict()["name"] for codec in root["index"].metadata.codecs] == [
        "bytes",
        "crc32c",
    ]


def test_a_layer_of_a_tile_is_one_object(tmp_path: Path, levels: list[Tile]) -> None:
    """Also with more rows than a chunk has."""
    store, tile, parts = only_tile(levels, tmp_path / "w.zarr")
    before = len(list(store.folder.names()))
    first = parts[0]
    many = np.arange(len(first.voxels)).repeat(
        -(-(store_module.ROW_CHUNK + 5) // len(first.voxels))
    )
    parts[0] = replace(first, voxels=first.voxels.take(many), splats=first.splats.take(many))
    entry = store.write(*tile, parts)
    assert entry.rows[0] > store_module.ROW_CHUNK
    objects = len(list(store.folder.names())) - before
    assert 40 < objects <= 4 * (4 + 9)  # a layer of nothing but 0 has none
    assert (
        entry.bytes
        == store.folder.size()
        - create_store(tmp_path / "o.zarr", FRAME, 64, ATTRIBUTES).folder.size()
    )
    store.commit({tile: entry})
    assert (
        len(open_store(tmp_path / "w.zarr").read_voxels(*tile)[0]) == len(many)
        and store.check(*tile) is None
    )


def test_a_tile_appears_when_it_is_committed(tmp_path: Path, levels: list[Tile]) -> None:
    store, tile, parts = only_tile(levels, tmp_path / "w.zarr")
    entry = store.write(*tile, parts)
    assert entry == Entry(
        tuple(len(part.voxels) for part in parts), tile_digest(parts), entry.bytes
    )
    other = open_store(tmp_path / "w.zarr")
    assert (
        other.finished_tiles() == []
        and other.entry(*tile) is None
        and not len(other.read_voxels(*tile)[0])
    )
    store.commit({tile: entry})
    assert other.finished_tiles() == [tile] and other.entry(*tile) == entry
    assert np.count_nonzero(other.index()[..., 0]) == 1
    store.forget([tile])
    assert other.finished_tiles() == [] and other.entry(*tile) is None
    with pytest.raises(StoreError, match="does not lie in"):
        store.commit({(0, 0): entry})


def test_what_is_written_is_on_the_disk(
    tmp_path: Path, levels: list[Tile], synced: list[Path]
) -> None:
    path = tmp_path / "w.zarr"
    store, tile, parts = only_tile(levels, path)
    assert {file for file in path.rglob("*") if file.is_file()} <= set(synced)
    synced.clear()
    before = set(path.rglob("*"))
    entry = store.write(*tile, parts)
    new = set(path.rglob("*")) - before
    assert len(new) > 40 and new | {item.parent for item in new} <= set(synced)
    synced.clear()
    store.commit({tile: entry})
    assert path / "index" in synced


def test_a_full_disk_leaves_the_tiles_before(
    tmp_path: Path, levels: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create_store(tmp_path / "w.zarr", FRAME, 64, ATTRIBUTES)
    tiles = list(FRAME.tiles(64))
    store.commit({tiles[0]: store.write(*tiles[0], synthetic.cut(store, tiles[0], levels))})

    real, calls = store_module._write_rows, []

    def full(*arguments: object) -> None:
        calls.append(1)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(store_module, "_write_rows", full)
    with pytest.raises(StoreFullError, match=r"disk.*full.*`resume`"):
        store.write(*tiles[1], synthetic.cut(store, tiles[1], levels))
    monkeypatch.undo()
    world = open_world(tmp_path / "w.zarr")
    assert world.tiles() == [tiles[0]] and not world.complete and world.missing == len(tiles) - 1
    assert same_voxels(world.voxels(), world.tile_voxels(*tiles[0])[0])
    store.commit({tiles[1]: store.write(*tiles[1], synthetic.cut(store, tiles[1], levels))})
    assert store.check(*tiles[1]) is None


def test_a_tile_is_written_anew_over_whatever_was_there(copy: Path, levels: list[Tile]) -> None:
    store = open_store(copy, "r+")
    tile = store.finished_tiles()[1]
    entry = store.entry(*tile)
    for file in (*(copy / "voxels").rglob("c.*"), *(copy / "splats").rglob("c.*")):
        file.write_bytes(b"rubble" * 999)
    store.forget([tile])
    assert store.write(*tile, synthetic.cut(store, tile, levels)) == entry
    fewer = [
        replace(part, voxels=part.voxels.take(np.arange(3)), splats=part.splats.take(np.arange(3)))
        for part in synthetic.cut(store, tile, levels)
    ]
    store.commit({tile: store.write(*tile, fewer)})
    assert store.check(*tile) is None and len(store.read_voxels(*tile)[0]) == 3


def test_an_entry_of_another_identity_does_not_count(tmp_path: Path, copy: Path) -> None:
    root = zarr.open_group(str(copy), mode="r+")
    root.attrs["earthgen"] = {**root.attrs["earthgen"], "identity": {"seed": 4}}
    world = open_world(copy)
    assert world.tiles() == [] and world.counts["voxels"] == 0
    assert open_store(copy).digest() == (0, 0, 0, 0)


def test_many_workers_write_and_one_commits(
    tmp_path: Path, levels: list[Tile], finished: Path
) -> None:
    path = tmp_path / "w.zarr"
    store = create_store(path, FRAME, 32, ATTRIBUTES)
    tiles = list(FRAME.tiles(32))
    with ThreadPoolExecutor(4) as pool:
        written = pool.map(
            lambda tile: store.write(*tile, synthetic.cut(store, tile, levels)), tiles
        )
    store.commit(dict(zip(tiles, written, strict=True)))
    assert open_world(path).complete and open_world(path).digest() == open_world(finished).digest()
    assert pickle.loads(pickle.dumps(store)).finished_tiles() == tiles


def test_the_index_of_a_large_world_is_quick(tmp_path: Path) -> None:
    frame = Frame("EPSG:32632", 1.0, (0, 64 * 150), (0, 64 * 100))
    store = create_store(tmp_path / "w.zarr", frame, 64, ATTRIBUTES)
    entries = {
        tile: Entry((1, 2, 3, 4), (tile[0], 2**64 - 1, 0, 2**63), 5) for tile in frame.tiles(64)
    }
    store.commit(entries)
    assert len(list((tmp_path / "w.zarr" / "index").glob("c.*"))) == 6
    assert store.finished_tiles() == list(frame.tiles(64))
    assert store.entry(149, 99) == entries[149, 99] and store.entry(0, 0) == entries[0, 0]
    assert store.digest() == add_digests(*(entry.digest for entry in entries.values()))
    assert open_world(tmp_path / "w.zarr").counts["voxels_level_8"] == 60000


def objects(path: Path, name: str) -> list[Path]:
    """The objects of a layer, largest first."""
    found = [
        file for file in (path / name).rglob("*") if file.is_file() and file.name != "zarr.json"
    ]
    return sorted(found, key=lambda file: -file.stat().st_size)


def spoiled(data: bytes) -> bytes:
    bad = bytearray(data)
    bad[len(bad) // 3] ^= 4
    return bytes(bad)


HARMS = ["flip", "cut", "empty", "lose"]
DAMAGE = [*((name, harm) for name in ("level_1/ground", "splats/level_1/sh") for harm in HARMS)]
DAMAGE += [
    ("level_2/rgb", "flip"),
    ("voxels/level_8/faces", "lose"),
    ("splats/level_4/scale", "cut"),
]


@pytest.mark.parametrize(("name", "harm"), DAMAGE)
def test_damage_is_found(copy: Path, name: str, harm: str) -> None:
    store = open_store(copy)
    assert all(store.check(*tile, quick=True) is None for tile in store.finished_tiles())
    chunk = objects(copy, name)[0]
    data = chunk.read_bytes()
    if harm == "lose":
        chunk.unlink()
    else:
        chunk.write_bytes(
            {"flip": spoiled(data), "cut": data[: len(data) // 2], "empty": b""}[harm]
        )
    problems = {tile: store.check(*tile) for tile in store.finished_tiles()}
    (problem,) = (text for text in problems.values() if text)
    assert name in problem, problem
    assert "\n" not in problem
    bad = [tile for tile in store.finished_tiles() if store.check(*tile, quick=True)]
    assert bad == ([] if harm == "flip" else [tile for tile, text in problems.items() if text])


def test_a_chunk_in_another_tiles_place_is_found(copy: Path) -> None:
    store = open_store(copy)
    first, second = objects(copy, "splats/level_1/offset")[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert sum(store.check(*tile) is not None for tile in store.finished_tiles()) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_index_is_said_to_be_one_and_mended(
    copy: Path, levels: list[Tile], harm: str
) -> None:
    digest = open_world(copy).digest()
    (chunk,) = (copy / "index").glob("c.*")
    data = chunk.read_bytes()
    chunk.write_bytes({"flip": spoiled(data), "cut": data[:1000], "empty": b""}[harm])
    store = open_store(copy, "r+")
    for call in (
        store.finished_tiles,
        lambda: store.entry(*next(iter(FRAME.tiles(64)))),
        lambda: open_world(copy).counts,
    ):
        with pytest.raises(StoreError, match=r"index of .* is damaged.*`resume`"):
            call()
    assert store.repair_index() == 1 and store.repair_index() == 0
    assert store.finished_tiles() == []
    synthetic.fill(store, levels)
    assert open_world(copy).digest() == digest


@pytest.mark.parametrize(
    "name",
    ["zarr.json", "voxels/level_2/xyz/zarr.json", "index/zarr.json", "level_1/ground/zarr.json"],
)
def test_truncated_metadata_is_a_line(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    for part in (data[: len(data) // 2], b"", b"[1, 2]"):
        (copy / name).write_bytes(part)
        with pytest.raises(StoreError, match=r"is damaged: .*zarr\.json|not an earthgen world"):
            world = open_world(copy)
            for tile in world.tiles():
                world.tile_voxels(*tile, 2)
                world.tile_layers(*tile)


def test_a_world_that_was_deleted_is_not_begun_anew(tmp_path: Path, levels: list[Tile]) -> None:
    store, tile, parts = only_tile(levels, tmp_path / "w.zarr")
    entry = store.write(*tile, parts)
    shutil.rmtree(tmp_path / "w.zarr")
    with pytest.raises(StoreError, match=r"w\.zarr was deleted or moved"):
        store.commit({tile: entry})
    with pytest.raises(StoreError, match=r"w\.zarr was deleted or moved"):
        store.write(*tile, parts)
    assert not (tmp_path / "w.zarr").exists()


def test_what_is_no_world_is_said_to_be_none(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="not an earthgen world"):
        open_store(tmp_path / "folder")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(StoreError, match="not an earthgen world"):
        open_store(tmp_path / "other.zarr")
    (tmp_path / "file.zarr").touch()
    for there in (copy, tmp_path / "other.zarr", tmp_path / "file.zarr"):
        with pytest.raises(StoreExistsError):
            create_store(there, FRAME, 64, ATTRIBUTES)
    root = zarr.open_group(str(copy), mode="r+")
    good = dict(root.attrs["earthgen"])
    for change, text in (
        ({"format_version": 99}, "version 99.*update"),
        ({"format_version": 1}, "made by an older earthgen.*generate it again"),
        ({"frame": None}, "damaged"),
        ({"tile_size": "large"}, "damaged"),
    ):
        root.attrs["earthgen"] = {**good, **change}
        with pytest.raises(StoreError, match=text):
            open_store(copy)


def test_tiles_that_do_not_fit_are_refused(
    tmp_path: Path, levels: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "ROWS", 10)
    store, tile, parts = only_tile(levels, tmp_path / "w.zarr")
    with pytest.raises(FrameError, match="level 1 of tile"):
        store.write(*tile, levels)
    with pytest.raises(StoreError, match="more than 10"):
        store.write(*tile, parts)


def test_a_world_lies_anywhere(place: Path | str) -> None:  # noqa: F811
    frame = Frame("EPSG:32632", 1.0, (640_000, 640_048), (5_560_400, 5_560_448))
    with pytest.raises(StoreError, match=r"does not exist|not an earthgen world"):
        open_store(place)
    store = create_store(place, frame, 64, ATTRIBUTES)
    (tile,) = frame.tiles(64)
    parts = tile_levels(synthetic.tile_from_voxels(frame, *synthetic.build(frame)))
    store.commit({tile: store.write(*tile, parts)})
    with pytest.raises(StoreExistsError):
        create_store(place, frame, 64, ATTRIBUTES)
    world = open_world(place)
    assert world.path == place and world.complete
    assert store.digest() == tile_digest(parts) and world.digest() == world.digest(recompute=True)
    assert same_voxels(world.voxels(), parts[0].voxels)
    assert np.array_equal(world.layers(2)["rgb"].values, parts[1].rgb)
    assert world.bytes_on_disk() > 10_000
    assert store.check(*tile, quick=True) is None and store.check(*tile) is None
    entry = store.entry(*tile)
    assert entry is not None
    lost = store._objects(*tile, entry.rows)[1][0]
    store.folder.remove([lost])
    assert "voxels/level_1/xyz" in (store.check(*tile) or "") and "bytes" in (
        store.check(*tile, quick=True) or ""
    )
    store.forget([tile])
    assert open_store(place).finished_tiles() == []


def test_one_thread(tmp_path: Path) -> None:
    """In a process of its own: the setting is for a whole process."""
    code = f"""
from earthgen.world.store import create_store, single_thread
from geo_io.frame import Frame
import threading
single_thread()
import numcodecs.blosc, zarr
frame = Frame("EPSG:32632", 1.0, (0, 64), (0, 64))
store = create_store({str(tmp_path / uuid.uuid4().hex)!r}, frame, 64, {{"identity": {{}}}})
store.root["level_1/ground"][:] = 1
assert numcodecs.blosc.use_threads is False and zarr.config.get("async.concurrency") == 1
names = [thread.name for thread in threading.enumerate()]
workers = [name for name in names if "zarr_pool" in name or "asyncio" in name]
assert len(workers) <= 1, workers
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
