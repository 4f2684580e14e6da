"""A plugin folder, a small world and a stand-in for generation, shared by all tests of commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    PLUGIN,
    Core,
    generate_words,
)


@pytest.fixture(scope="session")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin of tests/plugin_package and a broken one."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "stripes.py").write_text(PLUGIN)
    (folder / "broken.py").write_text("raise RuntimeError('made for [red]another[/red] release')\n")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, plugin_dir: Path) -> Path:
    """A small world."""
    path = tmp_path_factory.mktemp("worlds") / "small world.zarr"
    assert main([*generate_words(path, plugin_dir), "--quiet"]) == 0
    return path


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    fake = Core()
    monkeypatch.setattr(importlib.import_module("earthgen.jobs.generate"), "run", fake.run)
    return fake
