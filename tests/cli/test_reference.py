"""docs/reference/cli.md is up to date, and its commands and job file work."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from earthgen.jobs.job import Job, load_job, make_job
from earthgen_cli import reference
from earthgen_cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_reference_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    assert page == reference.reference(), (
        "run: python -m earthgen_cli.reference > docs/reference/cli.md"
    )


def test_the_job_file_of_the_reference_works(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(reference.JOB_EXAMPLE)
    job = make_job(load_job(path))
    assert job.bbox == (11.585, 49.992, 11.595, 49.998)
    assert job.out == tmp_path / "town.zarr"


@pytest.mark.parametrize("name", Job.model_fields)
def test_every_setting_of_a_job_is_in_the_reference(name: str) -> None:
    page = reference.reference()
    spelled = {"conditions": "[conditions]", "band": "band = "}.get(
        name, f"--{name.replace('_', '-')}"
    )
    assert spelled in page or f"[{name}]" in page


@pytest.mark.slow
def test_the_commands_of_the_reference_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the demo's data, at 8 m to be quick."""
    for file in (ROOT / "examples" / "data").glob("landuse.*"):
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    console = re.search(r"```console\n(.*?)```", reference.reference(), re.S)
    assert console is not None
    for line in console[1].splitlines():
        prompt, program, *words = shlex.split(line)
        assert (prompt, program) == ("$", "earthgen")
        if "--video" in words and shutil.which("ffmpeg") is None:
            words = words[: words.index("--video")]
        coarse = ["--voxel-size", "8"] if words[0] in ("plan", "generate") else []
        assert main([*words, *coarse]) == 0, capsys.readouterr().err
    assert (tmp_path / "town.png").stat().st_size > 1000
    assert {path.name for path in (tmp_path / "town-cog").glob("*.tif")} >= {
        "ground.tif",
        "semantics.tif",
        "rgb.tif",
    }
    text = capsys.readouterr().out
    assert re.search(r"class=farmland +cropland +[\d,]+ +\d+\n", text)
    assert re.search(r"geometry +procedural", text)
