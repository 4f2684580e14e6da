"""How events of progress are shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from earthgen.progress import Event
from earthgen_cli import progress
from earthgen_cli.main import COMMANDS, lazy_commands, main
from tests.helpers.command_line import (
    Core,
)

EVENTS = [
    Event("step", "read", 0, 0, 0.0, None),  # nothing to do is not shown
    Event("step", "generate", 0, 20, 0.0, None),
    *(
        Event("step", "generate", done, 20, done * 2.0, (20 - done) * 2.0, f"tile {done}, 0")
        for done in range(1, 21)
    ),
]


WARNING = Event("warning", "generate", 20, 20, 40.0, 0.0, "3 [bold]roofs[/bold] were flat")


MESSAGE = Event("message", "generate", 0, 20, 0.0, None, "Dask dashboard: http://[::1]:8787")


@pytest.fixture
def context() -> Any:
    """The context of a command."""
    return lazy_commands(COMMANDS)["plan"].make_context("plan", [], resilient_parsing=True)


@pytest.mark.parametrize("mode", ["lines", "bar", "json"])
def test_warnings_name_options(mode: str, context: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(context, progress.Mode(mode)) as show:
        show(replace(WARNING, note="widen `voxel_size` or `that`"))
    assert "widen --voxel-size or `that`" in capsys.readouterr().err
    assert show.warned == {"widen `voxel_size` or `that`"}


@pytest.mark.parametrize("mode", ["lines", "bar"])
def test_a_message_is_a_line(mode: str, context: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(context, progress.Mode(mode)) as show:
        show(EVENTS[1])
        show(MESSAGE)
    assert re.search(r"^Dask dashboard: http://\[::1\]:8787 *$", capsys.readouterr().err, re.M)
    assert show.warned == set()


def test_the_region_of_a_batch(context: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("lines", "bar", "json"):
        with progress.display(context, progress.Mode(mode)) as show:
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


def test_the_bar(context: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display(context, progress.Mode.BAR) as show:
        for event in [replace(EVENTS[1], task="read [x]"), *EVENTS[:7], WARNING]:
            show(event)
    said = capsys.readouterr().err
    assert "read [x]" in said and "5/20" in said and "2.0 s each, 30 s left" in said
    assert "warning: 3 [bold]roofs[/bold] were flat" in said
    assert show.warned == {"3 [bold]roofs[/bold] were flat"}
