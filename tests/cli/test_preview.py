"""`earthgen preview`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earthgen_cli.main import main


def test_preview(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    out = tmp_path / "deep" / "p.png"
    words = ["preview", str(made), "--plugin-dir", str(plugin_dir), "--out", str(out)]
    assert main([*words, "--renderer", "flat", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    with Image.open(out) as picture:
        assert picture.size == (values["width"], values["height"])
    before = out.read_bytes()
    assert main([*words, "--renderer", "flat"]) == 5
    assert f"{out} exists already. Give --overwrite" in capsys.readouterr().err
    assert main([*words, "--renderer", "flat", "--overwrite", "--size", "32"]) == 0
    assert out.read_bytes() == before and [one.name for one in out.parent.iterdir()] == ["p.png"]
    assert main([*words, "--renderer", "flatt", "--overwrite"]) == 6
    assert "'flat'" in capsys.readouterr().err


def test_preview_tells_the_renderer_what_to_show(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "echo.py").write_text(
        "from earthgen import Offer, hookimpl\nimport numpy, pathlib\n"
        "class Echo:\n    name = 'echo'\n    def render(self, world, view, progress):\n"
        "        progress.start('render', 1)\n        progress.step()\n"
        "        pathlib.Path(__file__).with_name('view.txt').write_text(repr(view))\n"
        "        return numpy.zeros((2, 3, 3), 'uint8')\n"
        "@hookimpl\ndef earthgen_renderers():\n    return [Offer('echo', Echo)]\n"
    )
    words = [
        "--view",
        "oblique",
        "--size",
        "99",
        "--azimuth",
        "-10",
        "--elevation",
        "30",
        "--renderer",
        "echo",
    ]
    assert (
        main(
            [
                "--plugin-dir",
                str(folder),
                "preview",
                str(made),
                "--out",
                str(tmp_path / "p.jpg"),
                *words,
            ]
        )
        == 0
    )
    expected = (
        "View(kind='oblique', size=99, bounds=None, azimuth=-10.0, elevation=30.0, camera=None)"
    )
    assert (folder / "view.txt").read_text() == expected
    assert "3 x 2 pixels" in capsys.readouterr().out
