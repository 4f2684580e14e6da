"""Every error is one line or one JSON object, with its exit code."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from earthgen import errors
from earthgen_cli.main import EXIT_CODES, main
from geo_io.errors import FrameError, InputError, MissingFileError, RegionError
from tests.helpers.command_line import (
    BBOX,
    Core,
)

ROOT = Path(__file__).parents[2]


def test_the_exit_codes_are_those_of_the_docs() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) ?\|$", page, re.M)
    assert {int(code): text for code, text, _ in rows} == EXIT_CODES
    for code, _, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(errors, name).exit_code == int(code), name


def test_every_error_ends_with_an_exit_code_of_the_reference() -> None:
    def below(kind: type[errors.EarthgenError]) -> set[type[errors.EarthgenError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    for kind in below(errors.EarthgenError):
        if kind.__module__.split(".")[0] in ("geo_io", "earthgen"):
            assert kind.exit_code in EXIT_CODES, kind


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["generate", "none.toml"], 2, "none.toml does not exist"),
        (["generate", "--out", "w.zarr", "--set", "depth=2"], 2, "geometry.KEY=VALUE"),
        (["generate", "--out", "w.zarr", "--condition", "rain"], 2, "NAME=FILE"),
        (["generate", "--out", "w.zarr", "--voxel-size", "0"], 2, "voxel_size"),
        (["generate", "--out", "w.zarr", "--overwrite", "--resume"], 2, "--overwrite and --resume"),
        (["generate", "--dem-unit", "yards"], 2, "us-ft"),
        (["generate", "--sed", "1"], 2, "--seed"),
        (["generat"], 2, "generat"),
        (["export", "w.zarr", "--format", "cog"], 5, "w.zarr does not exist"),
        (["generate", "--out", "w.zarr", "--workers", "0"], 2, "--workers"),
        (["generate", "--out", "w.zarr", "--resume"], 5, "w.zarr does not exist"),
        (
            ["generate", "--out", "w.zarr", "--extend", "--bbox", BBOX],
            5,
            "no world at w.zarr to extend",
        ),
        (["generate", "--out", "none/w.zarr", "--bbox", BBOX], 5, "folder none"),
        (["generate", "--out", "w.zarr", "--resume", "--extend"], 2, "--resume and --extend"),
        (["plan"], 2, "--bbox"),
        (
            ["plan", "--out", "w.zarr", "--extend", "--bbox", BBOX],
            5,
            "no world at w.zarr to extend",
        ),
        (["batch", "regions.gpkg"], 2, "--out-dir"),
        (["batch", "regions.gpkg", "--out-dir", "d"], 3, "regions.gpkg"),
        (["batch", "regions.gpkg", "--out-dir", "d", "--grid", "100"], 2, "REGIONS and --grid"),
        (["batch", "regions.gpkg", "--out-dir", "d", "--bbox", BBOX], 2, "REGIONS and --bbox"),
        (["batch", "--out-dir", "d"], 2, "--grid"),
        (["batch", "--out-dir", "d", "--grid", "100"], 2, "--bbox"),
        (
            ["batch", "--out-dir", "d", "--grid", "100.5", "--bbox", BBOX],
            4,
            "100.5 m is not a multiple",
        ),
        (["batch", "--out-dir", "none/d", "--grid", "100", "--bbox", BBOX], 5, "folder none"),
        (["verify", "w.zarr"], 5, "w.zarr does not exist"),
        (["verify", "w.zarr", "--sample", "-1"], 2, "--sample"),
        (["digest", "w.zarr"], 5, "w.zarr does not exist"),
        (["info", "w.zarr"], 5, "w.zarr does not exist"),
        (["legend", "osmm"], 3, "'osm'"),
        (["--plugin-dir", "none", "legend"], 6, "none does not exist"),
        (["legend", "--plugin-dir"], 2, "--plugin-dir"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str],
    code: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert complaint in said.err
    assert not list(tmp_path.iterdir())


LONG = (
    "field [bold]'nutzung_der_flaeche'[/bold] of C:\\[data]\\"
    + "a very long folder name\\" * 12
    + "x.shp"
)


ERRORS = [
    (InputError(LONG, "name another"), 3),
    (InputError("no field", ""), 3),
    (MissingFileError("x.shp does not exist", "check its name"), 3),
    (RegionError("the region is empty", "give a larger one"), 4),
    (FrameError("EPSG:4326 is geographic", "give a projected CRS"), 4),
    (errors.StoreExistsError("w.zarr exists already", "give --resume"), 5),
    (errors.StoreFullError("the disk of w.zarr is full", "free space and --resume"), 5),
    (errors.PluginError("geometry 'x' broke", "tell its author"), 6),
    (errors.UnknownNameError("there is no geometry 'x'", "there are: y"), 6),
    (errors.SizeError("the job is large", "give --yes"), 7),
    (errors.SchedulerError("there is no Dask scheduler at tcp://host:1", "start one"), 8),
    (OSError(errno.ENOSPC, "No space left on device", "w.zarr"), 5),
    (PermissionError(errno.EACCES, "Permission denied", "w.zarr"), 5),
    (OSError("cannot identify image file a.tif"), 1),  # no number, and no object store
    (KeyboardInterrupt(), 130),
    (KeyError("nobody\nexpects\nthis"), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("json_words", [[], ["--json"]])
def test_errors_are_a_line_or_an_object(
    error: BaseException,
    code: int,
    json_words: list[str],
    core: Core,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    core.error = error
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr", *json_words]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    problem = getattr(error, "problem", "")
    if json_words:
        values = json.loads(said.err)
        assert set(values) == {"error", "remedy", "type", "exit_code"}
        assert values["exit_code"] == code and values["type"] == type(error).__name__
        assert problem in values["error"]
        assert values["remedy"] == getattr(error, "remedy", values["remedy"])
    else:
        assert said.err.startswith("error: ") and said.err.endswith(".\n") and ".." not in said.err
        assert problem in said.err and getattr(error, "remedy", "")[1:] in said.err


def test_what_to_do_about_errors_of_the_system(
    core: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"]
    core.error = OSError(errno.ENOSPC, "No space left on device", "w.zarr")
    main(words)
    assert (
        "w.zarr: No space left on device. Free some space and run the command again; a world or a "
        "training continues with --resume" in capsys.readouterr().err
    )
    core.error = KeyboardInterrupt()
    main(words)
    assert (
        "interrupted; what is written stays valid, continue with --resume"
        in capsys.readouterr().err
    )
    core.error = ZeroDivisionError("division by zero")
    main(words)
    assert "EARTHGEN_DEBUG=1" in capsys.readouterr().err


def test_an_object_store_that_refuses(core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    exceptions = pytest.importorskip(
        "botocore.exceptions", reason="the packages for object stores are not installed"
    )
    core.error = exceptions.NoCredentialsError()
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "s3://bucket/w.zarr"]) == 5
    assert "Unable to locate credentials. Check the URL" in capsys.readouterr().err


def test_the_way_to_install_something_can_be_pasted(
    core: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    core.error = errors.SchedulerError("--scheduler wants Dask", "pip install 'earthgen[dask]'")
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"]) == 8
    assert "wants Dask. pip install 'earthgen[dask]'." in capsys.readouterr().err
