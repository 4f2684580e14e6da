"""How the progress of long work is shown on stderr: as a bar, JSON lines, lines of text now and
then, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from earthgen_cli.log import is_verbose, log_event
from earthgen_cli.output import say, say_json, say_warning, seconds_text, warning_line
from earthgen_cli.settings import name_options, setting_options
from earthgen_cli.visible import visible

if TYPE_CHECKING:
    from earthgen.progress import Event

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Mode(StrEnum):
    """The values of --progress."""

    AUTO = "auto"
    BAR = "bar"
    LINES = "lines"
    JSON = "json"
    NONE = "none"


@dataclass
class Display:
    """Shows events. This one shows nothing; the others print or draw them.

    Attributes
    ----------
    options : Mapping[str, str]
        The options of the command by setting.
    warned : set[str]
        The warnings that it has shown.
    region : str
        Of a batch, the region that the events belong to; otherwise empty.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    region: str = ""

    def __call__(self, event: Event) -> None:
        """Log one event, and show it."""
        log_event(event, self.text(event.note))
        if event.kind == "warning" and is_verbose():
            self.warned.add(event.note)
        self.draw(event)

    def draw(self, event: Event) -> None:
        """Show one event."""

    def text(self, note: str) -> str:
        """Return a text of earthgen with options in place of settings, safe to print."""
        return visible(name_options(note, self.options))


@dataclass
class JsonLines(Display):
    """Prints one JSON object per event.

    Its key "event" is "progress", "warning" or "message".
    """

    def draw(self, event: Event) -> None:
        """Print the event."""
        about = {"task": event.task, **({"region": self.region} if self.region else {})}
        if event.kind == "step":
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
        else:
            values = {"event": event.kind, **about, event.kind: self.text(event.note)}
        if event.kind == "warning":
            self.warned.add(event.note)
        say_json(values, err=True)


@dataclass
class Lines(Display):
    """Prints a line at the start and the end of a task and every `LINE_EVERY` seconds.

    Attributes
    ----------
    last : (str, float)
        Task and time of the last line.
    """

    last: tuple[str, float] = ("", 0.0)

    def draw(self, event: Event) -> None:
        """Print the event if it is time for a line."""
        if event.kind == "warning":
            self.warned.add(event.note)
            say_warning(self.text(event.note), self.region)
            return
        if event.kind == "message":
            say(self.text(event.note), err=True)
            return
        name = task_name(event, self.region)
        last, seconds = self.last
        soon = event.seconds - seconds < LINE_EVERY
        if not event.total or (name == last and event.done < event.total and soon):
            return
        self.last = (name, event.seconds)
        say(f"{name}: {event.done} of {event.total}  {speed_text(event)}".rstrip(), err=True)


@contextmanager
def display(
    ctx: typer.Context, mode: Mode, *, quiet: bool = False, json_output: bool = False
) -> Iterator[Display]:
    """Open the display that --progress, --quiet and --json select for a command.

    Its texts name the options of this command where earthgen names settings.
    """
    options = setting_options(ctx.command)
    if mode is Mode.AUTO:
        text_mode = Mode.BAR if sys.stderr.isatty() else Mode.LINES
        mode = Mode.NONE if quiet or json_output or is_verbose() else text_mode
    if mode is Mode.BAR:
        with _bar(options) as bar:
            yield bar
    else:
        kinds = {Mode.JSON: JsonLines, Mode.LINES: Lines, Mode.NONE: Display}
        yield kinds[mode](options)


@contextmanager
def _bar(options: Mapping[str, str]) -> Iterator[Display]:
    """A bar per task, drawn by rich while the context is open."""
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
    class Bar(Display):
        tasks: dict[str, TaskID] = field(default_factory=dict)
        names: dict[str, str] = field(default_factory=dict)

        def draw(self, event: Event) -> None:
            text = self.text(event.note)
            if event.kind == "warning":
                self.warned.add(event.note)
                line = Text(warning_line(text, self.region), style="yellow")
                bars.console.print(line, soft_wrap=True)
                return
            if event.kind == "message":
                bars.console.print(Text(text), soft_wrap=True)
                return
            if not event.total:
                return
            name = task_name(event, self.region)
            if event.task not in self.tasks:
                self.tasks[event.task] = bars.add_task(name, total=event.total, speed="")
            elif self.names[event.task] != name:  # the next region of a batch: start anew
                bars.reset(self.tasks[event.task], total=event.total, description=name)
            self.names[event.task] = name
            values: dict[str, Any] = {
                "completed": event.done,
                "total": event.total,
                "speed": speed_text(event),
            }
            bars.update(self.tasks[event.task], **values)

    with bars:
        yield Bar(options)


def task_name(event: Event, region: str) -> str:
    """Return the task of an event, with its region of a batch."""
    return visible(f"{region}: {event.task}" if region else event.task, lines=False)


def rate(event: Event) -> float | None:
    """Return steps per second, None if unknown.

    It is computed from the ETA, which leaves out the steps that an earlier run finished.
    """
    if event.eta:
        return round((event.total - event.done) / event.eta, 3)
    return None


def speed_text(event: Event) -> str:
    """Return rate and time left, such as "2.5/s, 3 min 20 s left"."""
    speed = rate(event)
    if not speed or event.eta is None:
        return ""
    pace = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
    return f"{pace}, {seconds_text(event.eta)} left"
