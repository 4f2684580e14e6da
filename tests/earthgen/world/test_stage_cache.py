"""StageCache: blocks come back whole or not at all, from any place a world can lie at, and
disturb no reader."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from earthgen.errors import StoreError
from earthgen.stages.block import Block
from earthgen.world.layout import STAGES
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import Store, create_store, open_store
from geo_io.frame import Frame
from tests.helpers.places import bucket, place  # noqa: F401 - fixtures

FRAME = Frame("EPSG:32632", 1.0, (0, 64), (0, 64))


def start(where: Path | str, seed: int = 1) -> Store:
    return create_store(
        where, FRAME, 64, {"identity": {"seed": seed}, "provenance": {}, "settings": {}}
    )


def block(value: int) -> Block:
    xyz = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    return Block(
        FRAME, {"ground": np.full(FRAME.shape, value, np.float32)}, xyz, {"sh": np.ones((2, 1, 3))}
    )


def test_blocks_come_back(place: Path | str) -> None:  # noqa: F811
    cache = StageCache(start(place))
    assert (
        cache.load("coarse", 0, 0) is None
        and not cache.has("coarse", 0, 0)
        and not list(cache.listing())
    )
    odd = "../a stage.of/x"
    cache.save("coarse", -3, 4, block(1))
    cache.save("coarse", -3, 4, block(2))
    cache.save(odd, 0, -1, block(3))
    found = StageCache(open_store(place)).load("coarse", -3, 4)
    assert found is not None and found.frame == FRAME and found.xyz is not None
    assert found["ground"][0, 0] == 2 and found["sh"].shape == (2, 1, 3)
    assert sorted(cache.listing()) == [(odd, 0, -1), ("coarse", -3, 4)]
    assert cache.has("coarse", -3, 4) and cache.has(odd, 0, -1)
    cache.remove("coarse", -3, 4)
    cache.remove("coarse", -3, 4)
    assert list(cache.listing()) == [(odd, 0, -1)]
    cache.clear()
    cache.clear()
    assert list(cache.listing()) == []


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: b"", lambda data: data[:99] + b"~" + data[100:]]
)
def test_a_torn_block_is_none(tmp_path: Path, spoil: object) -> None:
    cache = StageCache(start(tmp_path / "w.zarr"))
    cache.save("coarse", 1, 1, block(1))
    (file,) = [path for path in (tmp_path / "w.zarr" / STAGES).rglob("*") if path.is_file()]
    file.write_bytes(spoil(file.read_bytes()))  # type: ignore[operator]
    assert cache.load("coarse", 1, 1) is None and cache.has("coarse", 1, 1)


def test_readers_do_not_see_it(tmp_path: Path) -> None:
    path = tmp_path / "w.zarr"

    def found() -> list[str]:
        # From the folders: what is consolidated names what there was at the beginning.
        root = zarr.open_group(str(path), mode="r", use_consolidated=False)
        return sorted(name for name, _ in root.members(max_depth=None))

    start(path)
    before = found()
    cache = StageCache(open_store(path, "r+"))
    cache.save("coarse", 0, 0, block(1))
    (path / "index" / ".lock").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found() == before
        assert zarr.open_group(str(path), mode="r")["index"].nchunks_initialized == 0
        names = set(xarray.open_zarr(str(path), group="level_1").variables)
    layers = {"ground", "surface", "semantics", "rgb", "decisions"}
    assert names == {*layers, "x", "y", "spatial_ref"}


def test_sweep_leaves_what_is_of_use(tmp_path: Path) -> None:
    path = tmp_path / "w.zarr"
    store = start(path)
    cache = StageCache(store)
    cache.save("coarse", 0, 0, block(1))
    other = store.folder.path / STAGES / "0123456789abcdef" / "coarse"
    other.mkdir(parents=True)
    (other / "1_1").write_bytes(b"of another world")
    (path / "level_1" / "ground" / "c.0123.partial").write_bytes(b"half")
    (other.parent.parent / store.key / "coarse" / "5_5.77.partial").write_bytes(b"half")
    assert store.sweep() == 3
    assert not other.parent.exists() and not list(path.rglob("*.partial"))
    assert list(cache.listing()) == [("coarse", 0, 0)] and cache.load("coarse", 0, 0) is not None
    assert store.sweep() == 0


def test_a_lost_disk_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StageCache(start(tmp_path / "w.zarr"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"disk.*full.*`resume`"):
        cache.save("coarse", 0, 0, block(1))
    monkeypatch.undo()
    assert not list((tmp_path / "w.zarr").rglob("*.partial"))


def test_another_identity_has_another_folder(tmp_path: Path) -> None:
    one, two = StageCache(start(tmp_path / "a.zarr", 1)), StageCache(start(tmp_path / "b.zarr", 2))
    assert one.store.key != two.store.key
    assert replace(one).store.key == one.store.key
