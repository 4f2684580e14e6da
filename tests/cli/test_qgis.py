"""`earthgen qgis package`, and how the plugin runs the program; tests/test_qgis_plugin.py runs it
in QGIS."""

from __future__ import annotations

import ast
import configparser
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from earthgen._version import __version__
from earthgen.plugins import load
from earthgen_cli.main import main
from earthgen_qgis import program

PLUGIN = Path(program.__file__).parent


def test_the_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plugin.zip"
    assert main(["qgis", "package", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {"earthgen_qgis"}
        assert {Path(name).name for name in names} >= {path.name for path in PLUGIN.glob("*.py")}
        metadata = configparser.ConfigParser()
        metadata.read_string(archive.read("earthgen_qgis/metadata.txt").decode())
        product = json.loads(archive.read("earthgen_qgis/product.json"))
    assert metadata["general"]["version"] == product["version"] == __version__
    assert metadata["general"]["hasProcessingProvider"] == "yes"
    assert product["command"] == [sys.executable, "-I", "-m", "earthgen_cli"]
    assert [one["name"] for one in product["formats"]] == sorted(load().offers("exporter"))
    assert len(product["classes"]) == 25
    # The same version gives the same bytes, and nothing is replaced unasked.
    again = tmp_path / "again.zip"
    assert main(["qgis", "package", "--out", str(again), "--quiet"]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert main(["qgis", "package", "--out", str(out)]) == 5
    assert main(["qgis", "package", "--out", str(out), "--overwrite", "--quiet"]) == 0
    assert main(["qgis", "package", "--out", str(tmp_path / "plugin.tar")]) == 2


def test_the_plugin_needs_qgis_and_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "qgis", "processing", "earthgen_qgis"}
    for path in PLUGIN.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), feature_version=(3, 9))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_how_the_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PACKAGED", tmp_path / "product.json")
    monkeypatch.setenv("EARTHGEN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(program.ProgramError, match=r"was not found.*Settings"):
        program.find_command()
    command = tmp_path / "earthgen"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert program.find_command() == [str(command)]
    known = [sys.executable, "-I", "-m", "earthgen_cli"]
    program.PACKAGED.write_text(json.dumps({"command": known}))
    assert program.find_command() == known
    program.PACKAGED.write_text(json.dumps({"command": [str(tmp_path / "gone"), "-m", "x"]}))
    assert program.find_command() == [str(command)]  # packaged on another computer
    monkeypatch.setenv("EARTHGEN", sys.executable)
    assert program.find_command() == known
    spaced = tmp_path / "my tools" / "earthgen"
    spaced.parent.mkdir()
    command.rename(spaced)
    assert program.find_command(f" {spaced} ") == [str(spaced)]
    with pytest.raises(program.ProgramError, match="is not a program"):
        program.find_command(str(tmp_path / "none"))


def test_variables_of_qgis_are_not_passed_on() -> None:
    given = {"PATH": "a", "PYTHONHOME": "b", "PROJ_LIB": "c", "LD_LIBRARY_PATH": "d", "HOME": "e"}
    assert program.clean_environment(given) == {"PATH": "a", "HOME": "e"}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_answers_progress_and_warnings() -> None:
    parts: list[tuple[float, str]] = []
    lines: list[str] = []
    events = [
        {"event": "progress", "task": "generate", "done": 1, "total": 4},
        {"event": "warning", "task": "read", "warning": "two features are empty"},
        {"event": "progress", "task": "generate", "done": 4, "total": 4, "region": "west"},
    ]
    code = f"import sys, json\nfor e in {events}: print(json.dumps(e), file=sys.stderr)\n"
    answer = program.run(
        python(code + "print(json.dumps({'ok': sys.argv[1:]}))"),
        ["a b", "ä"],
        on_progress=lambda part, text: parts.append((part, text)),
        on_line=lines.append,
    )
    assert answer == {"ok": ["a b", "ä", "--json", "--progress", "json"]}
    assert parts == [(0.25, "1 of 4 tiles made"), (1.0, "west: 4 of 4 tiles made")]
    assert lines == ["two features are empty"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            'print(\'{"error": "no layer lies there", "remedy": "move the box"}\','
            " file=sys.stderr); sys.exit(4)",
            "No layer lies there. Move the box.",
        ),
        ("print('Killed', file=sys.stderr); sys.exit(9)", "earthgen failed (exit code 9): Killed"),
        ("sys.exit(3)", "earthgen failed with exit code 3 and said nothing."),
        ("print('hello')", "the answer of earthgen is not understood: hello"),
    ],
)
def test_errors_are_sentences(code: str, says: str) -> None:
    with pytest.raises(program.ProgramError) as caught:
        program.run(python(f"import sys\n{code}"), [])
    assert str(caught.value) == says


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(program.ProgramError, match="cannot be started"):
        program.run(["/nowhere/earthgen"], [])


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_cancel_is_ctrl_c(tmp_path: Path) -> None:
    done = tmp_path / "done"
    event = json.dumps({"event": "progress", "task": "generate", "done": 1, "total": 2})
    code = f"""
import signal, time, sys, pathlib
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell put behind
print({event!r}, file=sys.stderr, flush=True)
try: time.sleep(60)
except KeyboardInterrupt: pathlib.Path({str(done)!r}).write_text('tidied up')
"""
    began: list[float] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(program.Canceled):
        program.run(
            python(code),
            [],
            on_progress=lambda part, text: began.append(part),
            is_canceled=lambda: bool(began),
        )
    assert done.read_text() == "tidied up"
    assert signal.getsignal(signal.SIGINT) is before
