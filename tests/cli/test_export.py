"""`earthgen export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
)


def test_export(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from earthgen.world.world import open_world

    words = ["export", str(made), "--format", "csv", "--plugin-dir", str(plugin_dir)]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    assert str(tmp_path / "all" / "voxels.csv") in capsys.readouterr().out
    world = open_world(made)
    every = (tmp_path / "all" / "voxels.csv").read_text().splitlines()
    assert len(every) == world.counts["voxels"]
    left, bottom, _, _ = world.frame.bounds
    box = f"{left},{bottom},{left + 10},{bottom + 6}"
    assert (
        main(
            [
                *words,
                "--out",
                str(tmp_path / "part"),
                "--bbox",
                box,
                "--bbox-crs",
                "EPSG:32632",
                "--json",
            ]
        )
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    assert values["files"][0]["path"] == str(tmp_path / "part" / "voxels.csv")
    assert values["bounds"] == [left, bottom, left + 10, bottom + 6]
    assert len((tmp_path / "part" / "voxels.csv").read_text().splitlines()) == 60
    assert main([*words, "--out", str(tmp_path / "lonlat"), "--bbox", BBOX]) == 0
    assert (tmp_path / "lonlat" / "voxels.csv").read_text().splitlines() == every
    assert main([*words, "--out", str(tmp_path / "coarse"), "--level", "8"]) == 0
    assert 0 < len((tmp_path / "coarse" / "voxels.csv").read_text().splitlines()) < len(every) / 30


def test_export_where_the_world_is_not(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(made), "--format", "ply", "--out", str(tmp_path / "d")]
    for box in ("-1,51,0,52", "11.6,49.94,11.7,49.95", "11.55,49.94,11.55,49.95"):
        assert main([*words, "--bbox", box]) == 4
        line = capsys.readouterr().err
        assert box in line and "The world covers 11.54" in line and "--crs" not in line
    assert main([*words, "--bbox", "1,2,3,4", "--bbox-crs", "EPSG:0"]) == 4
    assert main(["export", str(made), "--format", "obj", "--out", str(tmp_path / "d")]) == 6
    assert "unknown exporter 'obj'" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
