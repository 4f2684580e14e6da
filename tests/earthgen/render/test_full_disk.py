"""Every format on a disk that takes no more: one error with the right advice, and no file under its
name.

A limit on the size of files stands for the end of the disk: writes fail in the middle of a file, in
Python as in the libraries in C. That the disk is full is what the system would say then.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from earthgen.errors import StoreFullError
from earthgen.plugins import load
from earthgen.render.export import export_world
from earthgen.world.world import World
from tests.helpers import synthetic

if sys.platform == "win32":
    pytest.skip("Windows has no limit on the size of files", allow_module_level=True)
import resource

FORMATS = sorted(load().offers("exporter"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("full") / "world.zarr"
    return synthetic.make(path, (0, 40), (100, 140), tile_size=64)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_format(
    format_name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        usage = shutil.disk_usage(tmp_path)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with files_of_at_most(700), pytest.raises(StoreFullError) as caught:
            export_world(world, format_name, tmp_path / "out", level=2)
    finally:
        monkeypatch.undo()
    assert "free some space" in caught.value.remedy and "resume" not in str(caught.value)
    assert caught.value.exit_code == 5
    left = [path.name for path in tmp_path.iterdir()]
    assert all(name.endswith(".partial") for name in left)  # of a format that can be continued
