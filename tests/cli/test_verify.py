"""`earthgen verify`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    areas,
    digest_of,
    generate_words,
)


@pytest.fixture
def worn(made: Path, tmp_path: Path) -> Path:
    """A copy of the world with a damaged tile."""
    path = tmp_path / "worn.zarr"
    shutil.copytree(made, path)
    chunk = max(
        (path / "level_1" / "ground" / "c").rglob("[0-9]*"),
        key=lambda file: file.stat().st_size * file.is_file(),
    )
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))
    return path


def test_verify_a_sound_world(
    made: Path, plugin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(made)]) == 0
    said = capsys.readouterr()
    assert re.search(r"^damaged +0$", said.out, re.M) and re.search(
        r"^result +intact$", said.out, re.M
    )
    assert "check: " in said.err
    again = ["verify", str(made), "--sample", "1", "--json"]
    assert main(again) == 6, "the world names its plugin, and is not believed"
    assert "unknown geometry 'terraces'" in capsys.readouterr().err
    assert main([*again, "--plugin-dir", str(plugin_dir)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (
        values["sound"]
        and values["checked"] > 1 == len(values["compared"])
        and values["different"] == []
    )
    assert main(["verify", str(made), "--quiet"]) == 0 and capsys.readouterr() == ("", "")


def test_verify_finds_damage_that_resume_repairs(
    worn: Path, made: Path, plugin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(worn), "--no-mark", "--json"]) == 5
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert not values["sound"] and not values["marked"] and len(values["damaged"]) == 1
    assert "--no-mark" in json.loads(said.err)["remedy"]
    assert main(["verify", str(worn)]) == 5
    said = capsys.readouterr()
    x, y = values["damaged"][0]["tile"]
    assert re.search(rf"^{x} +{y} +\w+", said.out, re.M)
    assert f"`earthgen generate --out {worn} --resume`" in said.err
    plugins = ["--plugin-dir", str(plugin_dir)]
    assert main(["generate", "--out", str(worn), "--resume", "--quiet", *plugins]) == 0
    assert main(["verify", str(worn), "--quiet"]) == 0
    assert digest_of(worn, capsys) == digest_of(made, capsys)


def test_verify_with_an_input_that_moved(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, old, new = tmp_path / "w.zarr", tmp_path / "old.gpkg", tmp_path / "new.gpkg"
    areas(old, [BBOX], landuse=["meadow"])
    words = [
        *generate_words(out, plugin_dir),
        "--semantics",
        str(old),
        "--legend",
        "osm",
        "--quiet",
    ]
    assert main(words) == 0
    old.rename(new)
    verify = ["verify", str(out), "--sample", "1", "--plugin-dir", str(plugin_dir)]
    assert main(verify) == 3
    assert "old.gpkg" in capsys.readouterr().err
    assert main([*verify, "--semantics", str(new)]) == 0
    new.unlink()
    areas(new, [BBOX], landuse=["forest"])
    assert main([*verify, "--semantics", str(new)]) == 5
    assert "new.gpkg" in capsys.readouterr().err
