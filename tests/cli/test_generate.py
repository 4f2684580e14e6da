"""`earthgen generate`: whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    NEAR,
    digest_of,
    drop_tile,
    generate_words,
)


def test_generate_says_what_it_made(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my world.zarr"
    assert main(generate_words(out, plugin_dir)) == 0
    said = capsys.readouterr()
    for text in (
        "EPSG:32632 (WGS 84 / UTM zone 32N)",
        str(out),
        "voxels of 1 m",
        "tiles",
        f"preview '{out}' --out",
        "earthgen export",
        "earthgen info",
        "km2/h",
        "of all workers together",
    ):
        assert text in said.out
    assert "generate: " in said.err
    assert (
        "warning: plugin broken was skipped: RuntimeError: made for [red]another[/red] release\n"
        in said.err
    )
    assert main(generate_words(out, plugin_dir)) == 5, "it exists"
    assert "--resume" in capsys.readouterr().err
    assert main([*generate_words(out, plugin_dir), "--resume", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_generate_json(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*generate_words(tmp_path / "w.zarr", plugin_dir), "--json"]) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert said.err == ""
    assert values["crs"] == "EPSG:32632" and values["complete"] and values["seed"] == 5
    # One a column, and the walls between terraces.
    columns = values["shape"][0] * values["shape"][1]
    assert 0 < columns <= values["counts"]["voxels"] < 1.2 * columns
    assert values["bounds_lon_lat"] == pytest.approx(
        [float(part) for part in BBOX.split(",")], abs=NEAR
    )
    assert (
        values["warnings"] and values["bytes"] > 0 and values["tiles"] == values["tiles_made"] > 1
    )
    assert values["work"]["terraces"] >= 0 and values["work"]["levels"] > 0
    assert values["km2_per_hour"] == pytest.approx(
        values["area_km2"] / values["seconds"] * 3600, rel=0.01
    )


def test_a_world_is_resumed_and_extended(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.zarr"
    plugins = ["--plugin-dir", str(plugin_dir)]  # a world does not say where code is
    assert main([*generate_words(out, plugin_dir), "--quiet"]) == 0
    before = digest_of(out, capsys)
    drop_tile(out)
    assert main(["digest", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() != before and said.err == (
        f"warning: {out} lacks 1 tile: this is the digest of the others\n"
    )
    assert main(["generate", "--out", str(out), "--resume", "--json", *plugins]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["tiles_made"] == 1 < values["tiles"] and values["complete"]
    assert digest_of(out, capsys) == before
    left, bottom, right, top = values["bounds"]
    wide = [
        "--extend",
        "--bbox",
        f"{left},{bottom},{right + 40},{top}",
        "--bbox-crs",
        values["crs"],
        "--json",
    ]
    assert main(["plan", "--out", str(out), *wide, *plugins]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert 0 < planned["tiles_there"] < planned["tiles"]
    assert main(["generate", "--out", str(out), *wide, *plugins]) == 0
    grown = json.loads(capsys.readouterr().out)
    assert (
        grown["tiles_made"] == planned["tiles"] - planned["tiles_there"]
        and grown["shape"][1] > values["shape"][1]
    )
    assert main(["generate", "--out", str(out), "--resume", "--json", *plugins]) == 0
    assert json.loads(capsys.readouterr().out)["tiles_made"] == 0, (
        "its settings know how far it goes"
    )


@pytest.mark.parametrize("scheduler", ["nonsense", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_is_none(
    scheduler: str, made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (generate_words(tmp_path / "w.zarr", plugin_dir), ["verify", str(made)]):
        assert main([*words, "--scheduler", scheduler, "--progress", "none"]) == 8
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1
