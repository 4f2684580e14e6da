"""What all commands have in common: help and its cost, options, JSON, pipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from earthgen_cli.main import COMMANDS, main
from tests.helpers.command_line import (
    Core,
)


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
    "generate": "--bbox --bbox-crs --region --semantics --class-field --legend --dem --dem- "
    "unit --dsm --dsm-unit --image --condition --assume-crs --allow-unmapped "
    "--crs --voxel-size --geometry --texture --set --seed --tile-size --out "
    "--overwrite --resume --extend --workers --scheduler --yes --quiet --json "
    "--allow-network --allow-linked --progress --weights --sparse-backend --attribution",
    "plan": "--bbox --region --semantics --dem --set --out --resume --extend --workers "
    "--sample --quiet --json",
    "batch": "--out-dir --grid --allow-overlap --dry-run --job --bbox --bbox-crs --region "
    "--semantics --dem --set --overwrite --resume --workers --scheduler --yes "
    "--quiet --json --progress",
    "verify": "--sample --semantics --dem --dsm --image --condition --workers --scheduler "
    "--no-mark --quiet --json --progress",
    "digest": "--recompute --json",
    "info": "--decisions --all --json",
    "demo": "--out --overwrite --quiet --json --progress",
    "preview": "--out --overwrite --view --size --bbox --bbox-crs --azimuth --elevation --renderer "
    "--quiet --json --progress",
    "render": "--out --overwrite --camera --orbit --ortho --frames --scale --layer --video --fps "
    "--bbox --bbox-crs --renderer --quiet --json --progress",
    "export": "--format --out --overwrite --set --help-options --bbox --bbox-crs --level "
    "--quiet --json --progress",
    "view": "--browser --no-browser",
    "compare": "--out",
    "plugins": "--json",
    "legend": "--json",
    "models": "--preset --tile --json",
    "train": "--data --preset --out --minutes --steps --resume --seed --batch --learning- "
    "rate --columns --grade --scene --precision --device --devices --threads "
    "--checkpoint-minutes --weights-dtype --licence --init --freeze --micro-batch --data-device "
    "--sparse-backend --compile --recompute --quiet --json --progress",
    "train compare": "--out --quiet --json",
    "evaluate": "--data --out --weights --preset --place --backends --crops --size --seed "
    "--seeds --borders --steps --guidance --set --grade --images --no-images "
    "--learned --no-learned --card --quiet --json --progress",
    "doctor": "--warm --json",
    "plugins new": "--out --quiet --json",
}


def test_every_command_has_options_that_hold() -> None:
    assert set(COMMANDS) <= set(OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_that_hold_from_now_on(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    missing = [name for name in OPTIONS[command].split() if not re.search(rf"{name}\b(?!-)", text)]
    assert not missing


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
