"""The command line: options, exit codes, messages, progress, and what `--help` costs.

Worlds are made with the stranger's plugin of tests/plugin_package, which needs no input.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from earthgen import errors
from earthgen import progress as core_progress
from earthgen.jobs.job import Job, load_job, make_job
from earthgen.progress import Event
from earthgen_cli import doctor, progress, reference
from earthgen_cli.main import COMMANDS, EXIT_CODES, main
from geo_io.errors import FrameError, InputError, MissingFileError, RegionError

ROOT = Path(__file__).parents[2]
BBOX = "11.5500,49.9403,11.5512,49.9407"  # two tiles of 64 m
NEAR = 1e-4  # degrees: the UTM grid is turned by 2 degrees here, and boxes grow to whole voxels
PLUGIN = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "plugin_package" / "src")!r})
from earthgen_stripes import *
"""


@pytest.fixture(scope="session")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stranger's plugin and a broken one."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "stripes.py").write_text(PLUGIN)
    (folder / "broken.py").write_text("raise RuntimeError('made for [red]another[/red] release')\n")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, plugin_dir: Path) -> Path:
    """A small world."""
    path = tmp_path_factory.mktemp("worlds") / "small world.zarr"
    assert main([*generate_words(path, plugin_dir), "--quiet"]) == 0
    return path


def generate_words(out: Path, plugin_dir: Path) -> list[str]:
    return [
        "generate",
        "--bbox",
        BBOX,
        "--geometry",
        "terraces",
        "--texture",
        "stripes",
        "--seed",
        "5",
        "--tile-size",
        "64",
        "--plugin-dir",
        str(plugin_dir),
        "--out",
        str(out),
    ]


@dataclass
class Core:
    """Stands in for `earthgen.jobs.generate.run`: keeps the job, tells `events`, raises `error`."""

    jobs: list[Job] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    error: BaseException | None = None

    def run(self, job: Job, listener: Callable[[Event], None] | None = None) -> Any:
        self.jobs.append(job)
        for event in self.events:
            assert listener is not None
            listener(event)
        raise self.error or errors.JobError("the test stops here", "go on")


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    fake = Core()
    monkeypatch.setattr(importlib.import_module("earthgen.jobs.generate"), "run", fake.run)
    return fake


def test_help_is_light_and_quick() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    seconds = []
    for _ in range(4):  # the first run compiles
        code = (
            "import sys, time\n"
            "from earthgen_cli.main import main\n"
            "main(['--help'])\n"
            "print('MARK', time.process_time(), *sys.modules, sep='\\n')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        text, _, rest = done.stdout.partition("MARK")
        assert "generate" in text and "130 interrupted" in " ".join(text.split())
        time, *modules = rest.split()
        seconds.append(float(time))
        heavy = {
            "torch",
            "numba",
            "numpy",
            "rasterio",
            "pandas",
            "geopandas",
            "pyproj",
            "pydantic",
            "rich",
            "yaml",
        }
        assert not heavy & set(modules)
    assert min(seconds) < 0.3, "CPU seconds, the interpreter's start included"


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    import earthgen

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"earthgen {earthgen.__version__}\n"
    assert main([]) == 2
    assert "Usage: earthgen" in capsys.readouterr().out


OPTIONS = {
    "generate": "--bbox --bbox-crs --region --semantics --class-field --legend --dem --dem-unit --dsm --dsm-unit "
    "--image --condition --assume-crs --allow-unmapped --crs --voxel-size --geometry --texture --set --seed "
    "--tile-size --out --overwrite --resume --extend --workers --scheduler --yes --quiet --json --progress",
    "plan": "--bbox --region --semantics --dem --set --out --resume --extend --workers --sample --quiet --json",
    "batch": "--out-dir --grid --allow-overlap --dry-run --job --bbox --bbox-crs --region --semantics --dem --set "
    "--overwrite --resume --workers --scheduler --yes --quiet --json --progress",
    "verify": "--sample --semantics --dem --dsm --image --condition --workers --scheduler --no-mark --quiet --json "
    "--progress",
    "digest": "--recompute --json",
    "info": "--json",
    "preview": "--out --view --size --bbox --bbox-crs --azimuth --elevation --renderer --quiet --json --progress",
    "render": "--out --camera --orbit --ortho --frames --scale --layer --video --fps --bbox --bbox-crs --renderer "
    "--quiet --json --progress",
    "export": "--format --out --bbox --bbox-crs --level --quiet --json --progress",
    "plugins": "--json",
    "legend": "--json",
    "models": "--preset --tile --json",
    "train": "--data --preset --out --minutes --steps --resume --seed --batch --learning-rate --columns --grade "
    "--scene --precision --device --devices --threads --checkpoint-minutes --weights-dtype --licence --quiet --json "
    "--progress",
    "evaluate": "--data --out --weights --preset --place --backends --crops --size --seed --seeds --borders --steps "
    "--guidance --set --grade --images --no-images --learned --no-learned --card --quiet --json --progress",
    "doctor": "--json",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_that_hold_from_now_on(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    missing = [name for name in OPTIONS[command].split() if not re.search(rf"{name}\b(?!-)", text)]
    assert not missing


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


def test_every_error_ends_with_an_exit_code_of_the_reference() -> None:
    def below(kind: type[errors.EarthgenError]) -> set[type[errors.EarthgenError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    for kind in below(errors.EarthgenError):
        if kind.__module__.split(".")[0] in ("geo_io", "earthgen"):
            assert kind.exit_code in EXIT_CODES, kind


@pytest.mark.parametrize(
    "words", [["--bbox", "-0.1,51.5,-0.09,51.51"], ["--bbox=-0.1,51.5,-0.09,51.51"]]
)
def test_negative_numbers_in_bbox(words: list[str], core: Core, tmp_path: Path) -> None:
    main(["generate", *words, "--out", str(tmp_path / "w.zarr")])
    assert core.jobs[0].bbox == (-0.1, 51.5, -0.09, 51.51)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bbox", "11.5,", "49.9,", "11.6,", "50.0"], "spaces"),
        (["--bbox", "11.5, 49.9, 11.6, 50.0"], "spaces"),
        (["--bbox", "11.5 49.9 11.6 50.0"], "spaces"),
        (["--bbox", "11.5", "49.9", "11.6", "50.0"], "1 number, not 4"),
        (["--bbox", "11.5,49.9,11.6"], "3 numbers, not 4"),
        (["--bbox", "11.5,49.9,11.6,north"], "not four numbers"),
        (["--bbox", "11.5,49.9,11.6,nan"], "finite"),
    ],
)
def test_a_wrong_bbox_is_a_usage_error(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str], core: Core
) -> None:
    assert main(["generate", "--out", "w.zarr", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    assert complaint in line and "--bbox" in line and "11.585,49.992,11.595,49.998" in line
    assert not core.jobs


@pytest.mark.parametrize("words", [["export", "w.zarr", "--format", "cog"], ["preview", "w.zarr"]])
def test_a_wrong_bbox_elsewhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--out", "p.png", "--bbox", "1,2,3"]) == 2
    assert "3 numbers, not 4" in capsys.readouterr().err


def test_options_override_the_job_file(core: Core, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'bbox = [1, 2, 3, 4]\nseed = 3\nvoxel_size = 2.0\nsemantics = "a.shp"\nout = "w.zarr"\nresume = true\n'
        'plugin_dir = "mine"\n'
        'geometry_options = { roof = "flat", depth = 1 }\nconditions = { rain = "r.tif", wind = "w.tif" }\n'
    )
    (tmp_path / "more").mkdir()
    main(
        [
            "generate",
            str(tmp_path / "job.toml"),
            "--seed",
            "0",
            "--semantics",
            "b.shp:roads",
            "--semantics",
            "c.shp",
            "--set",
            "geometry.depth=2.5",
            "--set",
            "geometry.names=['a', 'b']",
            "--set",
            "texture.look=dry summer",
            "--set",
            "texture.sharp=true",
            "--condition",
            "rain=x.tif",
            "--condition",
            "rain=y.tif",
            "--overwrite",
            "--dem-unit",
            "us-ft",
            "--legend",
            "osm",
            "--legend",
            "mine.yaml",
            "--plugin-dir",
            str(tmp_path / "more"),
        ]
    )
    job = core.jobs[0]
    assert (job.bbox, job.seed, job.voxel_size) == ((1, 2, 3, 4), 0, 2.0)
    assert job.semantics == ("b.shp:roads", "c.shp")
    assert job.geometry_options == {"roof": "flat", "depth": 2.5, "names": ["a", "b"]}
    assert job.texture_options == {"look": "dry summer", "sharp": True}
    assert job.conditions == {"rain": ["x.tif", "y.tif"], "wind": str(tmp_path / "w.tif")}
    assert job.overwrite and not job.resume, (
        "each excludes the other, and the command line is heard"
    )
    assert job.dem_unit == "us-ft" and job.legend == ("osm", "mine.yaml")
    assert job.plugin_dir == (tmp_path / "mine", tmp_path / "more")
    assert job.out == tmp_path / "w.zarr"


def test_bbox_on_the_command_line_replaces_the_region_of_the_job_file(
    core: Core, tmp_path: Path
) -> None:
    (tmp_path / "job.toml").write_text('region = "town.gpkg"\nout = "w.zarr"\n')
    main(["generate", str(tmp_path / "job.toml"), "--bbox", "1,2,3,4"])
    assert core.jobs[0].bbox == (1, 2, 3, 4) and core.jobs[0].region is None


def test_a_table_of_the_job_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text('geometry_options = 3\nout = "w.zarr"\n')
    assert main(["generate", str(tmp_path / "job.toml"), "--set", "geometry.depth=2"]) == 2
    assert "geometry_options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["generate", "--bbox", "1,2,3,4"], 2, "--out"),
        (["generate", "none.toml"], 2, "none.toml does not exist"),
        (["generate", "--out", "w.zarr", "--set", "depth=2"], 2, "geometry.KEY=VALUE"),
        (["generate", "--out", "w.zarr", "--condition", "rain"], 2, "NAME=FILE"),
        (["generate", "--out", "w.zarr", "--voxel-size", "0"], 2, "voxel_size"),
        (["generate", "--out", "w.zarr", "--overwrite", "--resume"], 2, "--overwrite and --resume"),
        (["generate", "--dem-unit", "yards"], 2, "us-ft"),
        (["generate", "--sed", "1"], 2, "--seed"),
        (["generat"], 2, "generat"),
        (["export", "w.zarr", "--format", "cog"], 2, "--out"),
        (["export", "w.zarr", "--format", "cog", "--out", "x", "--level", "3"], 2, "--level 3"),
        (["preview", "w.zarr", "--out", "p.gif"], 2, "p.gif"),
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
        (["plan", "--out", "w.zarr", "--extend", "--bbox", BBOX], 5, "w.zarr does not exist"),
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
        "w.zarr: No space left on device. Free some space and continue with --resume"
        in capsys.readouterr().err
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


def test_debug_prints_the_traceback(
    core: Core, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARTHGEN_DEBUG", "1")
    core.error = ZeroDivisionError("division by zero")
    assert main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "in run" in said


@pytest.mark.parametrize("words", [["--json"], ["--progress", "json"], ["--progress=json"]])
def test_who_asks_for_json_gets_errors_as_json(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words, "--seed", "x"]) == 2
    values = json.loads(capsys.readouterr().err)
    assert values["exit_code"] == 2 and "earthgen generate --help" in values["remedy"]


def test_a_closed_pipe_is_no_error(plugin_dir: Path) -> None:
    code = "import sys\nfrom earthgen_cli.main import main\nsys.exit(main(['legend']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in said and "error" not in said


EVENTS = [
    Event("read", 0, 0, 0.0, None),  # nothing to do is not shown
    Event("generate", 0, 20, 0.0, None),
    *(
        Event("generate", done, 20, done * 2.0, (20 - done) * 2.0, f"tile {done}, 0")
        for done in range(1, 21)
    ),
]
WARNING = Event("generate", 20, 20, 40.0, 0.0, "warning: 3 [bold]roofs[/bold] were flat")
MESSAGE = Event("generate", 0, 20, 0.0, None, "note: Dask dashboard: http://[::1]:8787")


def test_the_prefixes_of_notes_are_those_of_the_core() -> None:
    assert (progress.WARNING, progress.MESSAGE) == (core_progress.WARNING, core_progress.MESSAGE)


@pytest.mark.parametrize("mode", ["lines", "bar"])
def test_a_message_is_a_line(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(progress.Mode(mode)) as show:
        show(EVENTS[1])
        show(MESSAGE)
    assert re.search(r"^Dask dashboard: http://\[::1\]:8787 *$", capsys.readouterr().err, re.M)
    assert show.warned == set()


def test_the_region_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("lines", "bar", "json"):
        with progress.display(progress.Mode(mode)) as show:
            for name in ("east", "west"):
                show.region = name
                for event in [*EVENTS[1:3], WARNING]:
                    show(event)
    said = capsys.readouterr().err
    assert "east: generate: 0 of 20" in said and "west: generate: 0 of 20" in said
    assert "warning: west: 3 [bold]roofs[/bold] were flat" in said
    assert '{"event": "warning", "task": "generate", "region": "west", "warning"' in said


def test_json_lines(core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    core.events = [*EVENTS, MESSAGE, WARNING]
    main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr", "--progress", "json"])
    nothing, *lines, message, warning, error = map(json.loads, capsys.readouterr().err.splitlines())
    assert nothing["total"] == 0 and [line["done"] for line in lines] == list(range(21))
    assert lines[0]["eta"] is None and lines[0]["rate"] is None
    assert lines[10] == {
        "event": "progress",
        "task": "generate",
        "done": 10,
        "total": 20,
        "seconds": 20.0,
        "eta": 20.0,
        "rate": 0.5,
        "note": "tile 10, 0",
    }
    assert message == {
        "event": "message",
        "task": "generate",
        "message": "Dask dashboard: http://[::1]:8787",
    }
    assert warning == {
        "event": "warning",
        "task": "generate",
        "warning": "3 [bold]roofs[/bold] were flat",
    }
    assert error["exit_code"] == 2


def test_without_a_terminal_a_line_now_and_then(
    core: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    core.events = [*EVENTS, WARNING]
    main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr"])
    *lines, warning, _ = capsys.readouterr().err.splitlines()
    assert lines == [
        "generate: 0 of 20",
        "generate: 5 of 20  2.0 s each, 30 s left",
        "generate: 10 of 20  2.0 s each, 20 s left",
        "generate: 15 of 20  2.0 s each, 10 s left",
        "generate: 20 of 20",
    ]
    assert warning == "warning: 3 [bold]roofs[/bold] were flat"


@pytest.mark.parametrize("words", [["--quiet"], ["--progress", "none"]])
def test_silence(words: list[str], core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    core.events = [*EVENTS, WARNING]
    main(["generate", "--bbox", "1,2,3,4", "--out", "w.zarr", *words])
    assert capsys.readouterr().err == "error: the test stops here. Go on.\n"


def test_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(progress.Mode.BAR) as show:
        for event in [replace(EVENTS[1], task="read [x]"), *EVENTS[:7], WARNING]:
            show(event)
    said = capsys.readouterr().err
    assert "read [x]" in said and "5/20" in said and "2.0 s each, 30 s left" in said
    assert "warning: 3 [bold]roofs[/bold] were flat" in said
    assert show.warned == {"3 [bold]roofs[/bold] were flat"}


def test_generate_says_what_it_made(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my world.zarr"
    assert main(generate_words(out, plugin_dir)) == 0
    said = capsys.readouterr()
    for text in (
        "EPSG:32632 (WGS 84 / UTM zone 32N)",
        str(out),
        "voxels of 1 m",
        "tiles",
        f"preview '{out}' --out",
        "earthgen export",
        "earthgen info",
        "km2/h",
        "of all workers together",
    ):
        assert text in said.out
    assert "generate: " in said.err
    assert (
        "warning: plugin broken was skipped: RuntimeError: made for [red]another[/red] release\n"
        in said.err
    )
    assert main(generate_words(out, plugin_dir)) == 5, "it exists"
    assert "--resume" in capsys.readouterr().err
    assert main([*generate_words(out, plugin_dir), "--resume", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_generate_json(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*generate_words(tmp_path / "w.zarr", plugin_dir), "--json"]) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert said.err == ""
    assert values["crs"] == "EPSG:32632" and values["complete"] and values["seed"] == 5
    assert values["counts"]["voxels"] == values["shape"][0] * values["shape"][1] > 0
    assert values["bounds_lon_lat"] == pytest.approx(
        [float(part) for part in BBOX.split(",")], abs=NEAR
    )
    assert (
        values["warnings"] and values["bytes"] > 0 and values["tiles"] == values["tiles_made"] > 1
    )
    assert values["work"]["terraces"] >= 0 and values["work"]["levels"] > 0
    assert values["km2_per_hour"] == pytest.approx(
        values["area_km2"] / values["seconds"] * 3600, rel=0.01
    )


def test_info(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(made)]) == 0
    text = capsys.readouterr().out
    for expected in (
        "EPSG:32632",
        "lon/lat",
        "complete",
        "voxels",
        "provenance",
        "seed",
        "software:",
        "vertical CRS",
    ):
        assert expected in text
    assert main(["info", str(made), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["identity"]["geometry"]["name"] == "terraces"
    assert main(["digest", str(made)]) == 0
    assert capsys.readouterr().out == values["digest"] + "\n" and f"{values['digest']}\n" in text
    assert (
        values["frame"]["crs"] == "EPSG:32632"
        and values["complete"]
        and values["tiles_missing"] == 0
    )
    assert values["provenance"]["ground"] == "generated, not measured"
    assert values["bounds_lon_lat"] == pytest.approx(
        [float(part) for part in BBOX.split(",")], abs=NEAR
    )


def test_export(
    made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from earthgen.world.world import open_world

    words = ["export", str(made), "--format", "csv", "--plugin-dir", str(plugin_dir)]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    assert str(tmp_path / "all" / "voxels.csv") in capsys.readouterr().out
    world = open_world(made)
    every = (tmp_path / "all" / "voxels.csv").read_text().splitlines()
    assert len(every) == world.counts["voxels"]
    left, bottom, _, _ = world.frame.bounds
    box = f"{left},{bottom},{left + 10},{bottom + 6}"
    assert (
        main(
            [
                *words,
                "--out",
                str(tmp_path / "part"),
                "--bbox",
                box,
                "--bbox-crs",
                "EPSG:32632",
                "--json",
            ]
        )
        == 0
    )
    values = json.loads(capsys.readouterr().out)
    assert values["files"][0]["path"] == str(tmp_path / "part" / "voxels.csv")
    assert values["bounds"] == [left, bottom, left + 10, bottom + 6]
    assert len((tmp_path / "part" / "voxels.csv").read_text().splitlines()) == 60
    assert main([*words, "--out", str(tmp_path / "lonlat"), "--bbox", BBOX]) == 0
    assert (tmp_path / "lonlat" / "voxels.csv").read_text().splitlines() == every
    assert main([*words, "--out", str(tmp_path / "coarse"), "--level", "8"]) == 0
    assert 0 < len((tmp_path / "coarse" / "voxels.csv").read_text().splitlines()) < len(every) / 30


def test_export_where_the_world_is_not(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(made), "--format", "ply", "--out", str(tmp_path / "d")]
    for box in ("-1,51,0,52", "11.6,49.94,11.7,49.95", "11.55,49.94,11.55,49.95"):
        assert main([*words, "--bbox", box]) == 4
        line = capsys.readouterr().err
        assert box in line and "The world covers 11.54" in line and "--crs" not in line
    assert main([*words, "--bbox", "1,2,3,4", "--bbox-crs", "EPSG:0"]) == 4
    assert main(["export", str(made), "--format", "obj", "--out", str(tmp_path / "d")]) == 6
    assert "here are: " in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


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
    assert main([*words, "--renderer", "flatt"]) == 6
    assert "'flat'" in capsys.readouterr().err


def test_preview_tells_the_renderer_what_to_show(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "echo.py").write_text(
        "from earthgen import hookimpl\nfrom earthgen.stages.backends import Offer\nimport numpy, pathlib\n"
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


def test_render(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import rasterio
    from PIL import Image

    turn = tmp_path / "turn"
    words = ["render", str(made), "--json", "--out"]
    assert main([*words, str(turn), "--orbit", "2", "--scale", "0.05", "--layer", "depth"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [Path(file["path"]).name for file in values["files"]] == [
        "00000.png",
        "00000.tif",
        "00001.png",
        "00001.tif",
        "transforms.json",
    ]
    with Image.open(turn / "00001.png") as picture:
        assert picture.size == (64, 36)
    # The cameras of a folder of pictures make the same pictures again, and a path through them.
    again = tmp_path / "again"
    assert main([*words, str(again), "--camera", str(turn / "transforms.json")]) == 0
    assert (again / "00001.png").read_bytes() == (turn / "00001.png").read_bytes()
    assert (
        main([*words, str(again), "--camera", str(turn / "transforms.json"), "--frames", "3"]) == 0
    )
    assert (again / "00002.png").exists()
    assert main([*words, str(tmp_path / "deep" / "o.tif"), "--ortho", "2"]) == 0
    with rasterio.open(tmp_path / "deep" / "o.tif") as image:
        assert image.res == (2, 2) and image.count == 4 and image.read(4).max() == 255


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "one of the three"),
        (["--orbit", "3", "--ortho", "1"], 2, "one of the three"),
        (["--ortho", "1"], 2, ".tif"),
        (["--orbit", "1", "--video", "v.gif"], 2, ".mp4"),
        (["--camera", "nowhere.json"], 3, "nowhere.json"),
        (["--camera", "broken.json"], 3, "broken.json"),
        (["--camera", "other.json"], 10, "EPSG:3006"),
        (["--orbit", "1", "--renderer", "splat"], 6, "'splats'"),
        (["--orbit", "1", "--bbox", "1,1,2,2"], 4, "1,1,2,2"),
    ],
)
def test_render_says_what_is_wrong(
    made: Path,
    words: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.cameras.paths import write_cameras

    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    write_cameras(
        "other.json",
        [look_at((0, 0, 9), (0, 1, 0), width=9, height=9, field_of_view=9, crs="EPSG:3006")],
    )
    assert main(["render", str(made), "--out", "out", *words]) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and expected in errors[0]
    assert not Path("out").exists()


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
    from earthgen_cli.legend import swatch
    from geo_io.legend import classes

    assert swatch(classes()[0]) == "\x1b[48;2;185;163;127m    \x1b[0m"


def test_options_of_a_run(core: Core) -> None:
    main(
        [
            "generate",
            "--bbox",
            "1,2,3,4",
            "--out",
            "s3://b/w.zarr",
            "--workers",
            "3",
            "--scheduler",
            "tcp://host:8786",
        ]
    )
    job = core.jobs[0]
    assert (job.workers, job.scheduler, job.out) == (3, "tcp://host:8786", "s3://b/w.zarr")


def test_resume_takes_the_settings_of_the_world(
    core: Core, made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--out", str(made), "--resume"])
    (job,) = core.jobs
    assert job.bbox == tuple(map(float, BBOX.split(","))) and job.resume
    assert (job.seed, job.tile_size, job.geometry, job.plugin_dir) == (
        5,
        64,
        "terraces",
        (plugin_dir,),
    )
    main(["generate", "--out", str(made), "--resume", "--seed", "6", "--set", "geometry.step=3.0"])
    assert (core.jobs[1].seed, core.jobs[1].geometry_options) == (6, {"step": 3.0})
    (tmp_path / "job.toml").write_text(
        f"tile_size = 128\nresume = true\nout = {str(made)!r}\nregion = 'town.gpkg'\n"
    )
    main(["generate", str(tmp_path / "job.toml")])
    assert (core.jobs[2].tile_size, core.jobs[2].seed) == (128, 5)
    assert core.jobs[2].region == str(tmp_path / "town.gpkg") and core.jobs[2].bbox is None
    capsys.readouterr()
    assert main(["generate", "--out", str(tmp_path / "none.zarr"), "--resume", "--bbox", BBOX]) == 2
    assert "the test stops here" in capsys.readouterr().err, "it is a new world"
    assert core.jobs[3].seed == 0


def test_extend_takes_the_settings_of_the_world_but_its_place(
    core: Core, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--out", str(made), "--extend", "--bbox", "11.5,49.9,11.6,50.0"])
    (job,) = core.jobs
    assert job.extend and job.bbox == (11.5, 49.9, 11.6, 50.0)
    assert (job.seed, job.geometry, job.crs, job.bbox_crs) == (5, "terraces", None, "EPSG:4326")
    capsys.readouterr()
    assert main(["generate", "--out", str(made), "--extend"]) == 2
    assert "how far to extend" in capsys.readouterr().err and len(core.jobs) == 1


def test_a_world_is_resumed_and_extended(
    plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.zarr"
    assert main([*generate_words(out, plugin_dir), "--quiet"]) == 0
    before = digest_of(out, capsys)
    drop_tile(out)
    assert main(["digest", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() != before and said.err == (
        f"warning: {out} lacks 1 tile: this is the digest of those that are there\n"
    )
    assert main(["generate", "--out", str(out), "--resume", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["tiles_made"] == 1 < values["tiles"] and values["complete"]
    assert digest_of(out, capsys) == before
    left, bottom, right, top = values["bounds"]
    wide = [
        "--extend",
        "--bbox",
        f"{left},{bottom},{right + 40},{top}",
        "--bbox-crs",
        values["crs"],
        "--json",
    ]
    assert main(["plan", "--out", str(out), *wide]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert 0 < planned["tiles_there"] < planned["tiles"]
    assert main(["generate", "--out", str(out), *wide]) == 0
    grown = json.loads(capsys.readouterr().out)
    assert (
        grown["tiles_made"] == planned["tiles"] - planned["tiles_there"]
        and grown["shape"][1] > values["shape"][1]
    )
    assert main(["generate", "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tiles_made"] == 0, (
        "its settings know how far it goes"
    )


def digest_of(world: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["digest", str(world), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["tiles_missing"] == 0
    return str(values["digest"])


def drop_tile(world: Path) -> None:
    """A world as a run leaves it that was broken off."""
    from earthgen.world.store import open_store

    store = open_store(world, mode="r+")
    store.forget(store.done()[:1])


def test_what_was_given_in_memory_has_to_be_given_again(
    plugin_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import earthgen

    out = tmp_path / "w.zarr"
    box = tuple(map(float, BBOX.split(",")))
    meadow = areas(tmp_path / "meadow.gpkg", [BBOX], landuse=["meadow"])
    options = {
        "bbox": box,
        "geometry": "terraces",
        "texture": "stripes",
        "plugin_dir": [plugin_dir],
        "legend": "osm",
    }
    earthgen.generate(out=out, semantics=meadow, tile_size=64, **options)
    for words in (
        ["generate", "--out", str(out), "--resume"],
        ["verify", str(out), "--sample", "1"],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "semantics that were in no file" in said and "--semantics FILE" in said
    fake = Core()
    monkeypatch.setattr(importlib.import_module("earthgen.jobs.generate"), "run", fake.run)
    main(["generate", "--out", str(out), "--resume", "--semantics", str(tmp_path / "meadow.gpkg")])
    assert fake.jobs[0].semantics == (str(tmp_path / "meadow.gpkg"),)


def areas(path: Path, boxes: list[str], **columns: list[Any]) -> Any:
    """A file of rectangles, W,S,E,N each, and what it holds."""
    import geopandas
    import shapely

    shapes = [shapely.box(*map(float, box.split(","))) for box in boxes]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    frame.to_file(path)
    return frame


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
    assert main(["generate", "--out", str(worlds / "west.zarr"), "--resume", "--quiet"]) == 0


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


@pytest.fixture
def worn(made: Path, tmp_path: Path) -> Path:
    """A copy of the world with a damaged tile."""
    path = tmp_path / "worn.zarr"
    shutil.copytree(made, path)
    chunk = max(
        (path / "ground" / "c").rglob("[0-9]*"),
        key=lambda file: file.stat().st_size * file.is_file(),
    )
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))
    return path


def test_verify_a_sound_world(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(made)]) == 0
    said = capsys.readouterr()
    assert re.search(r"^damaged +0$", said.out, re.M) and re.search(
        r"^result +sound$", said.out, re.M
    )
    assert "check: " in said.err
    assert main(["verify", str(made), "--sample", "1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (
        values["sound"]
        and values["checked"] > 1 == len(values["compared"])
        and values["different"] == []
    )
    assert main(["verify", str(made), "--quiet"]) == 0 and capsys.readouterr() == ("", "")


def test_verify_finds_damage_that_resume_repairs(
    worn: Path, made: Path, capsys: pytest.CaptureFixture[str]
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
    assert main(["generate", "--out", str(worn), "--resume", "--quiet"]) == 0
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
    assert main(["verify", str(out), "--sample", "1"]) == 3
    assert "old.gpkg" in capsys.readouterr().err
    assert main(["verify", str(out), "--sample", "1", "--semantics", str(new)]) == 0
    new.unlink()
    areas(new, [BBOX], landuse=["forest"])
    assert main(["verify", str(out), "--sample", "1", "--semantics", str(new)]) == 5
    assert "inputs" in capsys.readouterr().err


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


@pytest.mark.parametrize("scheduler", ["nonsense", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_is_none(
    scheduler: str, made: Path, plugin_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (generate_words(tmp_path / "w.zarr", plugin_dir), ["verify", str(made)]):
        assert main([*words, "--scheduler", scheduler, "--progress", "none"]) == 8
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1


def test_doctor(plugin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--plugin-dir", str(plugin_dir)]) == 0
    values = json.loads(capsys.readouterr().out)
    checks = {(check["area"], check["name"]): check for check in values["checks"]}
    assert values["ok"]
    for name in ("Python", "operating system", "earthgen"):
        assert checks["system", name]["status"] == "ok"
    for name in ("numpy", "numba", "GDAL", "PROJ"):
        assert re.match(r"\d+\.\d+", checks["packages", name]["detail"])
    for name in ("PROJ of pyproj", "PROJ of rasterio"):
        assert checks["coordinates", name]["status"] == "ok"
    for name in ("ESRI Shapefile", "GPKG", "GTiff"):
        assert checks["formats", name]["status"] == "ok"
    assert checks["rasterizers", "cpu"]["detail"] == "runs on cpu"
    gsplat = checks["rasterizers", "gsplat"]
    assert "never run on a GPU" in gsplat["detail"] and (
        gsplat["status"] == "ok" or "use 'cpu'" in gsplat["remedy"]
    )
    assert checks["sparse backends", "nosparse"]["remedy"] == "it never can; this is an example"
    assert "terraces" in checks["plugins", "geometry backends"]["detail"]
    assert "csv" in checks["plugins", "export formats"]["detail"]
    assert (
        "another" in checks["plugins", "broken"]["detail"]
        and checks["plugins", "broken"]["status"] == "note"
    )
    for check in values["checks"]:
        assert check["status"] == "ok" or check["remedy"], f"{check['name']}: no remedy"


def test_doctor_finds_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_python(code: str, *arguments: str) -> doctor.Probe:
        if "GDAL" in code:
            return doctor.Probe(
                "numpy|ok|2.0\nscipy|no|ImportError: libfoo\nnumba|", "it crashed with signal 11"
            )
        if "Transformer" in code:
            return doctor.Probe("[714984.2, 5542944.0]\n", "")
        return doctor.Probe("", "OSError: no such library")

    monkeypatch.setattr(doctor, "run_python", run_python)
    monkeypatch.setenv("PROJ_LIB", "/elsewhere/proj")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"ok +numpy: 2.0", text)
    assert re.search(r"broken +scipy: ImportError: libfoo", text)
    assert re.search(r"broken +numba: it crashed with signal 11", text)
    assert "0.0367 m off the known point" in text and "unset PROJ_LIB=/elsewhere/proj" in text
    assert re.search(r"broken +GPKG: OSError", text)
    assert re.search(r"note +torch: OSError", text), "the main path does not need torch"


def test_probes_survive_what_they_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.run_python("print(6 * 7)").output == "42\n"
    assert (
        doctor.run_python("import no_such_thing").error
        == "ModuleNotFoundError: No module named 'no_such_thing'"
    )
    assert "crashed" in doctor.run_python("import os; os.abort()").error
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.2)
    assert "no answer" in doctor.run_python("while True: pass").error


def test_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        doctor, "run_python", lambda code: doctor.Probe("", "RuntimeError: no CUDA")
    )
    check = doctor.optional_package("torchsparse")
    assert (
        check.status is doctor.Status.NOTE
        and "its import fails: RuntimeError: no CUDA" in check.detail
    )
    assert check.remedy.startswith("optional")


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
    assert "geometry        procedural" in text and "sha256:" in text


def test_info_lists_what_no_legend_knows(
    tmp_path: Path, plugin_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import geopandas
    import shapely

    west, south, east, north = map(float, BBOX.split(","))
    middle = (west + east) / 2
    halves = [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    frame = geopandas.GeoDataFrame(
        {"landuse": ["meadow", "moonbase"]}, geometry=halves, crs="EPSG:4326"
    )
    frame.to_file(tmp_path / "landuse.gpkg")
    words = [
        "--semantics",
        str(tmp_path / "landuse.gpkg"),
        "--legend",
        "osm",
        "--allow-unmapped",
        "--quiet",
    ]
    assert main([*generate_words(tmp_path / "w.zarr", plugin_dir), *words]) == 0
    assert main(["info", str(tmp_path / "w.zarr"), "--json"]) == 0
    unmapped = json.loads(capsys.readouterr().out)["unmapped"]
    assert len(unmapped) == 1 and "moonbase" in unmapped[0]["value"] and unmapped[0]["area"] > 0
    assert main(["info", str(tmp_path / "w.zarr")]) == 0
    assert re.search(r"moonbase +unmapped +[\d,]+ +1\n", capsys.readouterr().out)
