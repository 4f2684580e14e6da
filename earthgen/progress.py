"""Progress of long work, as plain events; the command line draws them or prints them as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["step", "warning", "message"]


@dataclass(frozen=True)
class Event:
    """One step of long work, or something to say on the way.

    Attributes
    ----------
    kind : "step", "warning" or "message"
    task : str
        What is being done, such as "generate".
    done, total : int
        Finished steps, and steps in all.
    seconds : float
        Since the task began.
    eta : float or None
        Estimated seconds to the end; None before the first step is finished.
    note : str
        What the last step was, or the text of the warning or message.
    """

    kind: Kind
    task: str
    done: int
    total: int
    seconds: float
    eta: float | None
    note: str = ""


Listener = Callable[[Event], None]


@dataclass
class Progress:
    """Counts the steps of one task and tells a listener.

    Attributes
    ----------
    skipped : int
        Steps that were finished before this run and say nothing about its speed.
    """

    listener: Listener | None = None
    task: str = ""
    total: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    skipped: int = 0

    def start(self, task: str, total: int, done: int = 0) -> None:
        """Begin a task of `total` steps, of which `done` are finished already."""
        self.task, self.total, self.done, self.skipped = task, total, done, done
        self.began = time.monotonic()
        self._tell("step", "")

    def step(self, note: str = "") -> None:
        """Count a finished step."""
        self.done += 1
        self._tell("step", note)

    def warn(self, text: str) -> None:
        """Tell the listener of something that the user should know."""
        self._tell("warning", text)

    def say(self, text: str) -> None:
        """Tell the listener of something worth showing."""
        self._tell("message", text)

    def _tell(self, kind: Kind, note: str) -> None:
        if self.listener is None:
            return
        seconds = time.monotonic() - self.began
        worked = self.done - self.skipped
        eta = seconds / worked * (self.total - self.done) if worked else None
        self.listener(Event(kind, self.task, self.done, self.total, seconds, eta, note))
