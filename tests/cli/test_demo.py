"""`earthgen demo`, `earthgen doctor --warm`, and what is said before numba compiles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import earthgen
from earthgen.jobs import compiling
from earthgen.render.preview import default_renderer
from earthgen_cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_the_data_of_the_demo() -> None:
    import tomllib

    assert earthgen.sample_data() == ROOT / "examples" / "data"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["examples/data"] == "earthgen/sample"
    size = sum(file.stat().st_size for file in earthgen.sample_data().iterdir())
    assert size < 1_000_000


def test_a_demo_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo.zarr").write_text("mine")
    assert main(["demo", "-o", str(tmp_path / "demo.zarr")]) == 5
    assert "demo.zarr exists" in capsys.readouterr().err


@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo.zarr"
    assert main(["demo", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "earthgen preview" in text and "OpenStreetMap" in text
    assert main(["info", str(out), "--decisions", "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert min(total.values()) > 0, "each kind of decision is there"


@pytest.mark.slow
def test_doctor_warms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--warm", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["compiled"] > 50 and values["seconds"] > 0
    assert compiling.notice() is None


def test_compiling_is_announced_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import earthgen.voxels.pyramid  # noqa: F401 - has kernels

    assert compiling.kernels()
    monkeypatch.setattr(compiling, "_index_of", lambda kernel: Path("nowhere.nbi"))
    text = compiling.notice()
    assert text is not None
    assert f"compiles {len(compiling.kernels())} functions" in text and "doctor --warm" in text
    monkeypatch.setattr(compiling, "_index_of", lambda kernel: Path(__file__))
    assert compiling.notice() is None


def test_previews_are_drawn_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    assert default_renderer() == "splats"
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else real(name)
    )
    assert default_renderer() == "zbuffer"
