"""`earthgen plan`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    BBOX,
    NEAR,
    generate_words,
)


def test_plan(
    plugin_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [
        "plan",
        *generate_words(tmp_path / "deep" / "w.zarr", plugin_dir)[1:],
        "--workers",
        "2",
    ]
    assert main([*words, "--quiet"]) == 0 and capsys.readouterr() == ("", "")
    assert main(words) == 0
    said = capsys.readouterr()
    for expected in (
        "tasks",
        "tile",
        "objects",
        "are free",
        "with 2 workers",
        "basis",
        "figures of the procedural",
    ):
        assert expected in said.out
    assert main([*words, "--json"]) == 0
    rough = json.loads(capsys.readouterr().out)
    assert main([*words, "--sample", "1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (
        values["tiles"] == values["tasks"]["tile"] == rough["tiles"] > 1 and values["workers"] == 2
    )
    assert (
        values["basis"] != rough["basis"]
        and values["seconds"] > 0 < values["bytes"]
        and values["enough_space"]
    )
    assert values["bounds_lon_lat"] == pytest.approx(
        [float(part) for part in BBOX.split(",")], abs=NEAR
    )
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1000, 900, 100))  # type: ignore[attr-defined]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "100 bytes are free" in said.out and re.search(
        r"^warning: .* its disk has 100 bytes free", said.err, re.M
    )
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["bytes_free"] == 100 and values["enough_space"] is False
    assert main([*words[:-2], "--out", "s3://bucket/w.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_free"] is None
