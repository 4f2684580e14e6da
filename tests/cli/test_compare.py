"""`earthgen generate --outcomes` and `earthgen compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen.world.world import open_world
from earthgen_cli.main import main
from tests.helpers.command_line import generate_words


def test_outcomes_and_their_comparison(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*generate_words(tmp_path / "w.zarr", plugin_dir), "--outcomes", "2"]
    assert main([*words, "--json"]) == 0
    worlds = json.loads(capsys.readouterr().out)["worlds"]
    paths = [tmp_path / "w-1.zarr", tmp_path / "w-2.zarr"]
    assert [Path(world["world"]) for world in worlds] == paths
    assert [open_world(path).seed for path in paths] == [5, 6]
    assert not (tmp_path / "w.zarr").exists()
    (tmp_path / "w-1.zarr").rename(tmp_path / "kept.zarr")
    assert main(words) == 5  # the second place is not free: nothing is made in the first
    assert "w-2.zarr exists already" in capsys.readouterr().err
    assert not (tmp_path / "w-1.zarr").exists()
    compare = ["compare", str(tmp_path / "kept.zarr"), str(paths[1])]
    assert main([*compare, "--level", "4"]) == 0
    said = capsys.readouterr().out
    assert "buildings" in said and "have another class" in said
    assert main([*compare, "--level", "4", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["seeds"] == [5, 6] and made["files"] == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main([*compare, "--out", str(tmp_path / "out")]) == 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
