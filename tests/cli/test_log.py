"""`--verbose`, `--log-file`, and what the shell completes."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen.progress import Event
from earthgen_cli.log import LOG
from earthgen_cli.main import main
from earthgen_cli.output import say_error
from tests.helpers.command_line import Core

EVENTS = [
    Event("step", "generate", 1, 2, 0.5, 0.5, "tile 3, 4"),
    Event("warning", "generate", 1, 2, 0.6, None, "`semantics` is odd"),
]


def test_verbose_prints_each_step(core: Core, capsys: pytest.CaptureFixture[str]) -> None:
    core.events = EVENTS
    assert main(["-v", "generate", "--bbox", "1,2,3,4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "generate 1 of 2, 0.5 s: tile 3, 4"
    assert lines[1] == "generate: --semantics is odd" and lines[2].startswith("error: the test")
    assert main(["generate", "--bbox", "1,2,3,4"]) == 2
    assert "tile 3, 4" not in capsys.readouterr().err, "a later command is quiet again"


def test_a_log_file_has_steps_and_tracebacks(
    core: Core, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core.events = EVENTS
    log = tmp_path / "run.log"
    for word in (f"--log-file={log}", "--log-file"):
        value = [] if "=" in word else [str(log)]
        assert main(["generate", word, *value, "--bbox", "1,2,3,4", "--quiet"]) == 2
    text = log.read_text()
    assert text.count("generate 1 of 2, 0.5 s: tile 3, 4") == 2
    assert text.count("WARNING generate: --semantics is odd") == 2
    assert text.count("Traceback") == 2 and "JobError: the test stops here" in text
    assert capsys.readouterr().err.count("\n") == 2, "on the terminal an error stays one line"
    assert main(["--log-file", str(tmp_path / "no" / "run.log"), "info", "w"]) == 2
    assert main(["info", "w", "--log-file"]) == 2
    assert not LOG.handlers


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("export w --format ", {"cog", "glb", "ply"}),
        ("generate --geometry ", {"procedural", "latent"}),
        ("generate --legend os", {"osm"}),
        ("preview w --renderer z", {"zbuffer"}),
    ],
)
def test_values_complete(
    words: str,
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = f"earthgen {words}"
    monkeypatch.setenv("_EARTHGEN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    with pytest.raises(SystemExit):  # as click ends a completion
        main([])
    assert expected <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("problem", "remedy", "line"),
    [
        (
            "no output is given",
            "give --out world.zarr",
            "no output is given. Give --out world.zarr",
        ),
        ("it is wrong.", "check the path", "it is wrong. Check the path."),
        ("the disk is full: /tmp/a.b", "", "the disk is full: /tmp/a.b"),
        ("it is wrong", "use .tif", "it is wrong. Use .tif"),
        ("it is wrong", "run `earthgen info`", "it is wrong. Run `earthgen info`."),
    ],
)
def test_no_stop_is_glued_to_a_name(
    problem: str, remedy: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_error(problem, remedy, "JobError", 2, as_json=False)
    assert capsys.readouterr().err == f"error: {line}\n"
