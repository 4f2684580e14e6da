"""`earthgen plugins`, and commands that plugins add."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import BBOX


def test_plugins(plugin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--plugin-dir", str(plugin_dir)]) == 0
    text = capsys.readouterr().out
    for expected in (
        "stripes 0.3.0",
        "licence  MIT; weights: CC0-1.0",
        "earthgen_commands",
        str(plugin_dir),
    ):
        assert expected in text
    assert "skipped  RuntimeError: made for [red]another[/red] release" in text
    assert main([f"--plugin-dir={plugin_dir}", "plugins", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["plugins"]}
    assert set(rows["stripes"]) == {
        "name",
        "version",
        "summary",
        "licence",
        "weights_licence",
        "hooks",
        "source",
        "error",
    }
    assert rows["stripes"]["weights_licence"] == "CC0-1.0" and rows["stripes"]["error"] == ""
    assert "another" in rows["broken"]["error"]


def test_commands_of_plugins(plugin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stripes-hello", "--plugin-dir", str(plugin_dir)]) == 0
    assert capsys.readouterr().out == "hello from stripes\n"
    assert main(["--plugin-dir", str(plugin_dir), "--help"]) == 0
    assert "Say hello from a plugin." in capsys.readouterr().out


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The template of a plugin as it is written."""
    folder = tmp_path / "my package"
    assert main(["plugins", "new", "rolling_hills", "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.mark.slow
def test_the_template_of_a_plugin_passes_its_tests(package: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^1\d passed", done.stdout, re.M), "the tests of the conformance kit"


def test_the_template_of_a_plugin_makes_a_world(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hooks are found as an installed package's, through an entry point."""
    names = tomllib.loads((package / "pyproject.toml").read_text())["project"]["entry-points"]
    assert names == {"earthgen": {"rolling_hills": "earthgen_rolling_hills"}}
    installed = tmp_path / "installed" / "earthgen_rolling_hills-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Name: earthgen-rolling-hills\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(
        "[earthgen]\nrolling_hills = earthgen_rolling_hills\n"
    )
    path = os.pathsep.join([str(package / "src"), str(installed.parent)])
    monkeypatch.setenv("PYTHONPATH", path)
    out = tmp_path / "hills.zarr"
    words = ["generate", "--bbox", BBOX, "--geometry", "rolling_hills", "--out", str(out)]
    command = [sys.executable, "-m", "earthgen_cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["complete"] and values["counts"]["voxels"] > 4000


@pytest.mark.parametrize(
    "name", ["../hills", "a/b", "hills.py", "Hills", "2hills", "my-hills", "class", "hügel", ""]
)
def test_a_name_that_a_plugin_cannot_have(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "--", name]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and repr(name) in line
    assert not list(tmp_path.iterdir())


def test_the_template_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("earthgen-hills").mkdir()
    assert main(["plugins", "new", "hills"]) == 5
    assert "earthgen-hills exists already" in capsys.readouterr().err
    assert not list(Path("earthgen-hills").iterdir())
    assert main(["plugins", "new", "hills", "--out", "none/hills"]) == 5
    assert "none does not exist" in capsys.readouterr().err
    assert main(["plugins", "new", "procedural", "--out", "other"]) == 6
    assert "'procedural'" in capsys.readouterr().err and not Path("other").exists()
    assert main(["plugins", "new", "hills", "--out", "other", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["files"]) == 5 and all(Path(file).is_file() for file in values["files"])
