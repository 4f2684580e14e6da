"""`earthgen legend`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from earthgen_cli.main import main


def test_legend(plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from geo_io.legend import classes

    words = ["legend", "--plugin-dir", str(plugin_dir)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(
        f"{land.code:>2}" in text and land.name in text and land.color in text for land in classes()
    )
    assert "stripes" in text
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [land["code"] for land in values["classes"]] == list(range(1, 26))
    assert {"name": "stripes", "title": "stripes"} in values["crosswalks"]
    assert main([*words, "stripes"]) == 0
    assert re.search(r"attribute zone\n  w +lake\n", capsys.readouterr().out)
    (tmp_path / "mine.yaml").write_text(
        "rules: [{field: use, values: {7: road}, widths: {7: 5}}]\nlayers: {h*: building}\n"
    )
    assert main([*words, str(tmp_path / "mine.yaml"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["rules"] == [{"field": ["use"], "values": {"7": "road"}, "widths": {"7": 5.0}}]
    assert values["layers"] == {"h*": "building"}


def test_legend_has_colour_swatches_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from earthgen_cli.commands.legend import swatch
    from earthgen_cli.visible import printable
    from geo_io.legend import classes

    assert printable(swatch(classes()[0])) == "\x1b[48;2;185;163;127m    \x1b[0m"
