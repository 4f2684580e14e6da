"""File operations and locks, the same on a disk and on an object store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earthgen.errors import StoreError, StoreFullError
from earthgen.files import LocalFolder, disk_error, folder
from earthgen.stages.block import Block
from earthgen.world import lock
from earthgen.world.lock import LOCK, lock_world
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import create_store, open_store
from geo_io.frame import Frame
from tests.helpers.places import EVERYWHERE, bucket, place  # noqa: F401 - fixtures

FRAME = Frame("EPSG:32632", 1.0, (0, 64), (0, 64))
ATTRIBUTES = {"identity": {"seed": 1}, "provenance": {}, "settings": {}}


def test_a_folder(place: Path | str) -> None:  # noqa: F811
    where = folder(place)
    assert not where.exists() and not where.exists("a") and where.read("a/b") is None
    assert where.children() == [] and list(where.names()) == [] and where.size() == 0
    if isinstance(where, LocalFolder):
        with pytest.raises(FileNotFoundError):
            where.write("a/b.c", b"one")
        assert not where.exists(), "what is gone is not made anew"
        where.path.mkdir()
    where.write("a/b.c", b"one")
    where.write("a/b.c", b"other", durable=True)
    where.write("a/.d/e", b"123", durable=True)
    where.write("f", b"")
    assert where.exists() and where.exists("a/b.c") and not where.exists("a/b")
    assert where.read("a/b.c") == b"other" and where.read("f") == b""
    assert (
        where.children() == ["a", "f"]
        and where.children("a") == [".d", "b.c"]
        and where.children("x") == []
    )
    assert sorted(where.names()) == ["a/.d/e", "a/b.c", "f"] and list(where.names("a/.d")) == [
        "a/.d/e"
    ]
    assert (
        where.sizes(["f", "a/b.c", "none", "a/none"]) == {"f": 0, "a/b.c": 5} and where.size() == 8
    )
    where.sync(["a/b.c", "none"])
    where.remove(["f", "none"])
    where.remove_folder("a")
    where.remove_folder("a")
    assert list(where.names()) == [] and list(where.partial()) == []
    assert where.each([lambda i=i: i for i in range(40)]) == list(range(40))


def test_what_is_not_written_whole_is_not_there(tmp_path: Path) -> None:
    where = folder(tmp_path)
    where.write("a", b"old")
    with pytest.raises(TypeError):
        where.write("a", "no bytes")  # type: ignore[arg-type]
    assert where.read("a") == b"old" and list(where.names()) == ["a"]


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="s4://"):
        folder("s4://bucket/world")
    assert folder(f"file://{tmp_path}") == folder(tmp_path) == folder(str(tmp_path))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (28, r"full.*free space"),
        (30, r"read-only"),
        (13, r"read-only"),
        (2, "was deleted or moved"),
        (5, r"cannot be written"),
    ],
)
def test_disk_errors_are_lines(number: int, text: str) -> None:
    error = disk_error(OSError(number, os.strerror(number)), "w.zarr")
    assert isinstance(error, StoreFullError) == (number == 28)
    with pytest.raises(StoreError, match=text):
        raise error
    assert "w.zarr" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_a_second_holder_is_told_of_the_first(place: Path | str) -> None:  # noqa: F811
    with lock_world(place) as held:
        store = create_store(place, FRAME, 64, ATTRIBUTES)
        held.renew()
        told = rf"process {os.getpid()} on .* works on world .*w\.zarr.*wait until"
        with pytest.raises(StoreError, match=told), lock_world(store):
            pass
    with lock_world(store), pytest.raises(StoreError, match="works on world"), lock_world(place):
        pass
    with lock_world(open_store(place)):
        pass
    assert not list(folder(place).names("index/.owner"))


def test_a_place_without_a_world_is_left_as_it_was(tmp_path: Path) -> None:
    with lock_world(tmp_path / "new" / "w.zarr"):
        pass
    assert not (tmp_path / "new" / "w.zarr").exists()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    with pytest.raises(StoreError, match="not an earthgen world"), lock_world(tmp_path / "letters"):
        pass
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no kill -9")
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.zarr"
    create_store(path, FRAME, 64, ATTRIBUTES)
    code = (
        "from earthgen.world.lock import lock_world\n"
        f"with lock_world({str(path)!r}): print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=f"process {child.pid} on"), lock_world(path):
        pass
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with lock_world(path):
        pass


def test_a_stale_lock_on_an_object_store_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://stale/w.zarr"
    where = folder(url)
    create_store(url, FRAME, 64, ATTRIBUTES)
    there = {"host": "elsewhere", "pid": 7, "token": "t", "since": "2026-01-01T00:00:00+00:00"}
    where.write(LOCK, json.dumps({**there, "renewed": time.time() - 300}).encode())
    with (
        pytest.raises(StoreError, match=r"process 7 on elsewhere.*since 2026.*10 minutes"),
        lock_world(url),
    ):
        pass
    where.write(LOCK, json.dumps({**there, "renewed": time.time() - 700}).encode())
    with lock_world(url) as held:
        monkeypatch.setattr(lock, "RENEW_SECONDS", 0.0)
        before = json.loads(where.read(LOCK) or b"")["renewed"]
        held.renew()
        assert json.loads(where.read(LOCK) or b"")["renewed"] > before
        where.write(LOCK, json.dumps({**there, "renewed": time.time()}).encode())
        with pytest.raises(StoreError, match="process 7"):
            held.renew()
    assert where.exists(LOCK)  # it is the other's now


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "w.zarr"
    create_store(path, FRAME, 64, ATTRIBUTES)
    (path / "index").chmod(0o500)
    try:
        with pytest.raises(StoreError, match="read-only"), lock_world(path):
            pass
        with pytest.raises(StoreError, match="read-only"):
            StageCache(open_store(path, "r+")).save("s", 0, 0, Block(FRAME))
    finally:
        (path / "index").chmod(0o700)
