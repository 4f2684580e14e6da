"""Progress of long work, as plain events; the command line draws them or prints them as JSON
lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WARNING, MESSAGE = "warning: ", "note: "


@dataclass(frozen=True)
class Event:
    """One step of long work.

    Attributes
    ----------
    task : what is being done, such as "generate"
    done, total : steps finished, steps in all
    seconds : since the task began
    eta : estimated seconds to the end, None before the first step is finished
    note : what the last step was; a warning or a message to show where it begins with `WARNING` or
        `MESSAGE`
    """

    task: str
    done: int
    total: int
    seconds: float
    eta: float | None
    note: str = ""


Listener = Callable[[Event], None]


@dataclass
class Progress:
    """Counts the steps of one task and tells a listener."""

    listener: Listener | None = None
    task: str = ""
    total: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    skipped: int = 0  # steps that were finished before this run and say nothing about its speed

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.task, self.total, self.done, self.skipped = task, total, done, done
        self.began = time.monotonic()
        self._tell("")

    def step(self, note: str = "") -> None:
        self.done += 1
        self._tell(note)

    def warn(self, note: str) -> None:
        self._tell(f"{WARNING}{note}")

    def say(self, note: str) -> None:
        self._tell(f"{MESSAGE}{note}")

    def _tell(self, note: str) -> None:
        if self.listener is None:
            return
        seconds = time.monotonic() - self.began
        worked = self.done - self.skipped
        eta = seconds / worked * (self.total - self.done) if worked else None
        self.listener(Event(self.task, self.done, self.total, seconds, eta, note))
