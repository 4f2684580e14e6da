"""Worlds of which a part is missing or cut off: whoever reads that part names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from earthgen.errors import StoreError
from earthgen.jobs.verify import verify
from earthgen.world.store import open_store
from earthgen.world.world import open_world
from earthgen.world.xarray_backend import EarthgenBackend
from earthgen_cli.main import main
from tests.helpers import synthetic

Harm = Callable[[Path], None]


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def lazy(path: Path) -> None:
    xarray.open_dataset(path, engine=EarthgenBackend).load()


def layers(path: Path) -> None:
    open_world(path).layers(8).load()


def gaussians(path: Path) -> None:
    open_world(path).gaussians()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiles."""
    folder = tmp_path_factory.mktemp("worlds")
    return Path(synthetic.make(folder / "a.zarr", (0, 16), (64, 112)).path)


@pytest.fixture
def world(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def first(world: Path, array: str) -> str:
    """The first object of an array, by its name in the world."""
    inside = sorted((world / array).rglob("*"))
    files = [path for path in inside if path.is_file() and path.name[0] in "c0123456789"]
    return files[0].relative_to(world).as_posix()


@pytest.mark.parametrize(
    ("harm", "array", "read"),
    [
        (gone, "level_1/ground", lazy),
        (cut, "level_1/rgb", lazy),
        (gone, "level_8/semantics", layers),
        (emptied, "level_8/surface", layers),
        (gone, "voxels/level_1/semantic", gaussians),
        (cut, "voxels/level_1/xyz", gaussians),
        (gone, "splats/level_1/sh", gaussians),
    ],
)
def test_an_object(harm: Harm, array: str, read: Harm, world: Path) -> None:
    name = first(world, array)
    harm(world / name)
    with pytest.raises(StoreError) as caught:
        read(world)
    assert name in caught.value.problem and str(world) in caught.value.problem
    assert "verify" in caught.value.remedy
    texts = open_world(world).damage()
    assert texts and "bytes" in texts[0]


@pytest.mark.parametrize("harm", [gone, cut])
@pytest.mark.parametrize("array", ["level_1", "level_2/rgb", "level_4/x", "splats/level_1/sh"])
def test_a_description(harm: Harm, array: str, world: Path) -> None:
    name = f"{array}/zarr.json"
    harm(world / name)
    assert name in open_world(world).damage()[0]
    with pytest.raises(StoreError, match=name):
        verify(world)


def test_a_level(world: Path) -> None:
    gone(world / "level_8")
    with pytest.raises(StoreError, match=r"level_8/zarr\.json is missing"):
        layers(world)
    with pytest.raises(StoreError, match=r"level_8/"):
        verify(world)


def test_the_index(world: Path) -> None:
    """Its tiles do not count as finished; that they were lost is said."""
    gone(world / first(world, "index"))
    with pytest.raises(StoreError, match=r"no finished tile.*index/c\.0\.0\.0 does not exist"):
        gaussians(world)
    with pytest.raises(StoreError, match=r"index/c\.0\.0\.0 does not exist.*--resume"):
        verify(world)


def test_coordinates_are_those_of_the_frame(world: Path, sound: Path) -> None:
    """A coordinate that is cut off moves nothing."""
    gone(world / first(world, "level_1/x"))
    cut(world / first(world, "level_1/y"))
    assert open_world(world).layers().equals(open_world(sound).layers())


def test_an_object_of_zeros_is_not_missed(sound: Path) -> None:
    """Layers that are nothing but no data have no object, and are read."""
    store = open_store(sound)
    tile = store.finished_tiles()[0]
    absent = [name for part in store._objects(*tile, store.entry(*tile).rows) for name in part]  # type: ignore[union-attr]
    assert any(not (sound / name).exists() for name in absent)
    assert len(open_world(sound).gaussians()) and open_world(sound).damage() == []


def test_a_tile_of_the_index_that_no_disk_holds(world: Path) -> None:
    array = zarr.open_group(world, mode="r+", use_consolidated=False)["index"]
    rows = np.array(array[...])  # type: ignore[index]
    rows[0, 0, 1:5] = 2**62
    array[...] = rows  # type: ignore[index]
    store = open_store(world)
    texts = [store.check(*tile, quick=quick) for tile in store.finished_tiles() for quick in (0, 1)]
    assert sum("no place or no file" in (text or "") for text in texts) == 2


def test_parts_of_lazy_layers(sound: Path) -> None:
    """As Zarr itself would read them, whatever the index."""
    ground = open_world(sound).layers()["ground"]
    values = np.asarray(ground.values)
    rows, columns = np.array([5, 0, 40]), np.array([10, 3, 7])
    assert np.array_equal(ground[::7, ::-3], values[::7, ::-3], equal_nan=True)
    assert np.array_equal(ground[rows, columns], values[np.ix_(rows, columns)], equal_nan=True)
    points = ground.isel(y=("p", rows), x=("p", columns))
    assert np.array_equal(points, values[rows, columns], equal_nan=True)
    assert np.array_equal(ground[-1, 5], values[-1, 5], equal_nan=True)


def test_commands(world: Path, sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = first(world, "level_1/ground")
    gone(world / name)
    assert main(["info", str(world)]) == 0
    assert "level_1/ground" in capsys.readouterr().out
    for words in (["compare", str(world), str(sound)], ["compare", str(sound), str(world)]):
        assert main([*words, "--quiet"]) == 5
        assert name in capsys.readouterr().err


def test_a_damaged_tile_is_not_adopted(world: Path, tmp_path: Path) -> None:
    old = open_store(world)
    tile = old.finished_tiles()[0]
    other = Path(shutil.copytree(world, tmp_path / "b.zarr"))
    gone(world / first(world, "level_1/ground"))
    with pytest.raises(StoreError, match=r"without an object: level_1/ground.*--resume"):
        open_store(other, mode="r+").adopt(old, *tile)
