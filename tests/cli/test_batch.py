"""`earthgen batch`."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from earthgen import errors
from earthgen.jobs.job import Job
from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    areas,
    drop_tile,
)

EAST, WEST, FAR = (
    "11.5506,49.9403,11.5512,49.9407",
    "11.5500,49.9403,11.5505,49.9407",
    "11.5600,49.94,11.5604,49.9404",
)


def batch_words(folder: Path, plugin_dir: Path) -> list[str]:
    return [
        "batch",
        str(folder / "regions.gpkg"),
        "--out-dir",
        str(folder / "worlds"),
        "--geometry",
        "terraces",
        "--texture",
        "stripes",
        "--plugin-dir",
        str(plugin_dir),
    ]


def test_batch(plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    areas(
        tmp_path / "regions.gpkg",
        [EAST, WEST, FAR],
        name=["east", "west", "far"],
        seed=[None, 7, None],
    )
    words, worlds = batch_words(tmp_path, plugin_dir), tmp_path / "worlds"
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^west +0\.00\d +\d+ +seed=7$", text, re.M) and re.search(
        r"^far .* -$", text, re.M
    )
    assert main([*words, "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["regions"]
    assert [row["name"] for row in rows] == ["east", "west", "far"] and rows[1]["overrides"] == {
        "seed": 7
    }
    assert not worlds.exists(), "a dry run writes nothing"

    assert main(words) == 0
    said = capsys.readouterr()
    assert (
        re.search(r"^west +0\.00\d +\d+ +[\d.]+ s +done$", said.out, re.M)
        and "3 of 3 regions are done" in said.out
    )
    assert "regions: 3 of 3" in said.err and "west: generate: 0 of" in said.err
    assert said.err.count("plugin broken was skipped") == 1
    assert sorted(path.name for path in worlds.iterdir()) == ["east.zarr", "far.zarr", "west.zarr"]

    assert main(words) == 5
    assert "3 of the 3 worlds are in" in capsys.readouterr().err
    shutil.rmtree(worlds / "far.zarr")
    drop_tile(worlds / "west.zarr")
    assert main(words) == 5
    assert (
        "2 of the 3 worlds are in" in capsys.readouterr().err and not (worlds / "far.zarr").exists()
    )
    assert main([*words, "--resume", "--progress", "json", "--json"]) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert (values["done"], values["failed"], values["not_run"]) == (3, 0, 0)
    events = [json.loads(line) for line in said.err.splitlines()]
    steps = [
        (event["region"], event["note"])
        for event in events
        if event["task"] == "generate" and event.get("note")
    ]
    assert {region for region, _ in steps} == {"west", "far"}
    assert [event["note"] for event in events if event["task"] == "regions"] == [
        "",
        "east",
        "west",
        "far",
    ]
    assert not any("region" in event for event in events if event["task"] == "regions")
    assert main(["info", str(worlds / "west.zarr")]) == 0, "made of a region that is no file"
    assert "POLYGON" not in capsys.readouterr().out
    again = ["generate", "--out", str(worlds / "west.zarr"), "--resume", "--quiet"]
    assert main([*again, "--plugin-dir", str(plugin_dir)]) == 0


def test_a_batch_goes_on_after_a_region_that_fails(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    areas(
        tmp_path / "regions.gpkg",
        [EAST, WEST, FAR],
        name=["a", "b", "c"],
        semantics=["none.shp", None, "no.tif"],
    )
    words = batch_words(tmp_path, plugin_dir)
    assert main([*words, "--progress", "none"]) == 3
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2 and lines[0].startswith("error: region a: ") and "none.shp" in lines[0]
    assert re.search(r"^a .* failed: MissingFileError$", said.out, re.M) and re.search(
        r"^b .* done$", said.out, re.M
    )
    assert "1 of 3 regions are done, 2 failed" in said.out
    assert main([*words, "--overwrite", "--json"]) == 3
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert (values["done"], values["failed"]) == (1, 2)
    assert [row["result"] for row in values["regions"]] == ["failed", "done", "failed"]
    assert values["regions"][0]["error"]["exit_code"] == 3 and values["regions"][1]["error"] is None
    assert [json.loads(line)["exit_code"] for line in said.err.splitlines()] == [3, 3]


def test_a_full_disk_ends_a_batch_that_still_says_what_is_done(
    plugin_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from earthgen.jobs import batch

    areas(tmp_path / "regions.gpkg", [EAST, WEST, FAR], name=["a", "b", "c"])
    real = batch.run

    def run(job: Job, listener: Any = None) -> Any:
        if Path(job.out).stem == "b":
            raise errors.StoreFullError("the disk of b.zarr is full", "free space and --resume")
        return real(job, listener)

    monkeypatch.setattr(batch, "run", run)
    assert main([*batch_words(tmp_path, plugin_dir), "--progress", "none"]) == 5
    said = capsys.readouterr()
    assert re.search(r"^a .* done$", said.out, re.M) and "1 of 3 regions are done" in said.out
    assert said.err.endswith("error: the disk of b.zarr is full. Free space and --resume.\n")


def test_a_batch_of_a_grid(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text(
        'seed = 3\ngeometry = "terraces"\ntexture = "stripes"\nout = "w.zarr"\n'
    )
    words = [
        "batch",
        "--grid",
        "64",
        "--bbox",
        BBOX,
        "--out-dir",
        str(tmp_path / "worlds"),
        "--tile-size",
        "64",
        "--job",
        str(tmp_path / "job.toml"),
        "--plugin-dir",
        str(plugin_dir),
    ]
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (
        values["done"] == len(values["regions"]) == len(list((tmp_path / "worlds").iterdir())) > 1
    )
    assert sum(row["area_km2"] for row in values["regions"]) == pytest.approx(0.0042, rel=0.1)
    assert all(re.fullmatch(r"x\+\d+_y\+\d+", row["name"]) for row in values["regions"])
    assert main(["info", values["regions"][0]["world"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3


def test_what_is_wrong_with_regions_is_said_before_anything_runs(
    plugin_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = batch_words(tmp_path, plugin_dir)
    areas(tmp_path / "regions.gpkg", [BBOX, WEST], name=["all", "west"])
    assert main(words) == 4
    assert "overlap" in capsys.readouterr().err and not (tmp_path / "worlds").exists()
    assert main([*words, "--allow-overlap", "--dry-run"]) == 0
    (tmp_path / "worlds").write_text("")
    capsys.readouterr()
    assert main([*words, "--allow-overlap"]) == 5
    assert "is a file" in capsys.readouterr().err

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "worlds").unlink()
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main([*words, "--allow-overlap"]) == 5
    line = capsys.readouterr().err
    assert "Permission denied" in line and "may write to" in line and line.count("\n") == 1
