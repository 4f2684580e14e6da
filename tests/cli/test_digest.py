"""`earthgen digest`."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen_cli.main import main
from tests.helpers.command_line import (
    digest_of,
    generate_words,
)


def test_the_digest_does_not_depend_on_how_a_world_was_made(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.zarr"
    words = generate_words(out, plugin_dir)
    words[words.index("--tile-size") + 1] = "128"
    assert main([*words, "--workers", "2", "--scheduler", "threads", "--quiet"]) == 0
    assert digest_of(out, capsys) == digest_of(made, capsys)
    assert main(["digest", str(out), "--recompute"]) == 0
    assert capsys.readouterr() == (digest_of(made, capsys) + "\n", "")
