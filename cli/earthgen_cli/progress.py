"""How the progress of long work is shown on stderr: a bar, JSON lines, now and then a line, or
not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from earthgen_cli.output import say, say_json, seconds_text

if TYPE_CHECKING:
    from earthgen.progress import Event

WARNING, MESSAGE = "warning: ", "note: "
"""What the note of an event starts with that is a warning, or a message: a line to show as it is.

Those of `earthgen.progress`, which --help need not import; a test keeps them equal.
"""

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Mode(StrEnum):
    """`--progress`."""

    AUTO = "auto"
    BAR = "bar"
    LINES = "lines"
    JSON = "json"
    NONE = "none"


class Display(Protocol):
    """Shows events.

    Attributes
    ----------
    warned : the warnings it has shown
    region : of a batch, the one that the events are of; "" for none
    """

    warned: set[str]
    region: str

    def __call__(self, event: Event) -> None: ...


@contextmanager
def display(mode: Mode, *, quiet: bool = False, json_output: bool = False) -> Iterator[Display]:
    """The listener for `earthgen.progress` that --progress, --quiet and --json ask for."""
    if mode is Mode.AUTO:
        mode = (
            Mode.NONE if quiet or json_output else Mode.BAR if sys.stderr.isatty() else Mode.LINES
        )
    if mode is Mode.BAR:
        with _bar() as bar:
            yield bar
    elif mode is Mode.JSON:
        yield JsonLines()
    elif mode is Mode.LINES:
        yield Lines()
    else:
        yield Silence()


@dataclass
class Silence:
    """Shows nothing."""

    warned: set[str] = field(default_factory=set)
    region: str = ""

    def __call__(self, event: Event) -> None:
        pass


@dataclass
class JsonLines:
    """One JSON object a line for each event: {"event": "progress", "warning" or "message",
    "task": ..., ...}."""

    warned: set[str] = field(default_factory=set)
    region: str = ""

    def __call__(self, event: Event) -> None:
        about = {"task": event.task, **({"region": self.region} if self.region else {})}
        warning, message = warning_of(event), message_of(event)
        if warning:
            self.warned.add(warning)
            say_json({"event": "warning", **about, "warning": warning}, err=True)
            return
        if message:
            say_json({"event": "message", **about, "message": message}, err=True)
            return
        values = {
            "event": "progress",
            **about,
            "done": event.done,
            "total": event.total,
            "seconds": round(event.seconds, 3),
            "eta": None if event.eta is None else round(event.eta, 3),
            "rate": rate(event),
            "note": event.note,
        }
        say_json(values, err=True)


@dataclass
class Lines:
    """A line at the start and the end of a task and every LINE_EVERY seconds, for log files."""

    warned: set[str] = field(default_factory=set)
    region: str = ""
    shown: tuple[str, float] = ("", 0.0)  # task and time of the last line

    def __call__(self, event: Event) -> None:
        line = line_of(event, self.region)
        if line:
            self.warned |= {warning_of(event)} - {""}
            say(line, err=True)
            return
        task, seconds = self.shown
        if not event.total:
            return
        name = task_name(event, self.region)
        if name == task and event.done < event.total and event.seconds - seconds < LINE_EVERY:
            return
        self.shown = (name, event.seconds)
        say(f"{name}: {event.done} of {event.total}  {speed_text(event)}".rstrip(), err=True)


@contextmanager
def _bar() -> Iterator[Display]:
    """A bar for each task, drawn by rich while the context is open."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        console=console,
    )

    @dataclass
    class Bar:
        warned: set[str] = field(default_factory=set)
        region: str = ""
        tasks: dict[str, TaskID] = field(default_factory=dict)
        names: dict[str, str] = field(default_factory=dict)

        def __call__(self, event: Event) -> None:
            line = line_of(event, self.region)
            if line:
                warning = warning_of(event)
                self.warned |= {warning} - {""}
                bars.console.print(Text(line, style="yellow" if warning else ""), soft_wrap=True)
                return
            if not event.total:
                return
            name = task_name(event, self.region)
            if event.task not in self.tasks:
                self.tasks[event.task] = bars.add_task(name, total=event.total, speed="")
            elif self.names[event.task] != name:  # the next region of a batch: the bar begins anew
                bars.reset(self.tasks[event.task], total=event.total, description=name)
            self.names[event.task] = name
            values: dict[str, Any] = {
                "completed": event.done,
                "total": event.total,
                "speed": speed_text(event),
            }
            bars.update(self.tasks[event.task], **values)

    with bars:
        yield Bar()


def warning_of(event: Event) -> str:
    """The warning that an event carries, "" for none."""
    return event.note.removeprefix(WARNING) if event.note.startswith(WARNING) else ""


def message_of(event: Event) -> str:
    """The message that an event carries, "" for none."""
    return event.note.removeprefix(MESSAGE) if event.note.startswith(MESSAGE) else ""


def line_of(event: Event, region: str) -> str:
    """The warning or message of an event as a line, "" for none."""
    warning = warning_of(event)
    if not warning:
        return message_of(event)
    return f"{WARNING}{region}: {warning}" if region else f"{WARNING}{warning}"


def task_name(event: Event, region: str) -> str:
    """What is being done, and for which region of a batch."""
    return f"{region}: {event.task}" if region else event.task


def rate(event: Event) -> float | None:
    """Steps a second; None where nothing says it. From the ETA, which leaves out what an earlier
    run finished."""
    if event.eta:
        return round((event.total - event.done) / event.eta, 3)
    return None


def speed_text(event: Event) -> str:
    """Rate and time left, such as "2.5/s, 3 min 20 s left"."""
    speed = rate(event)
    if not speed or event.eta is None:
        return ""
    pace = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
    return f"{pace}, {seconds_text(event.eta)} left"
