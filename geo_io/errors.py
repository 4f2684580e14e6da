"""Every error a user can cause, named after what they did.

Each carries the problem and the next step, and the exit code the command line ends with (see
docs/reference/exit-codes.md). The base also inherits ValueError, so code that catches what it
already knows goes on working.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EarthgenError(ValueError):
    """Base of all errors that a user can mend.

    `problem` names the file or option and what is wrong with it; `remedy` is the next step.
    """

    exit_code = 3

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem.rstrip(".")
        self.remedy = remedy.rstrip(".")
        parts = [
            text if text.endswith("?") else f"{text}."
            for text in (self.problem, self.remedy)
            if text
        ]
        super().__init__(" ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:  # survives the trip back from a worker process
        return (type(self), (self.problem, self.remedy))


class InputError(EarthgenError):
    """A file cannot be read, or does not hold what it is used for."""


class MissingFileError(InputError, FileNotFoundError):
    """An input path does not exist."""


class MissingCrsError(InputError):
    """An input has no CRS record and none was given."""


class RegionError(EarthgenError):
    """The region asked for is empty, impossible, or does not meet the data."""

    exit_code = 4


class FrameError(EarthgenError):
    """A frame cannot be made, or two frames that must agree do not."""

    exit_code = 4


def nearest_name(name: str, names: Iterable[str]) -> str:
    """A question such as "; did you mean 'class'?", or nothing."""
    by_fold = {other.casefold(): other for other in names}
    close = get_close_matches(name.casefold(), by_fold, n=1)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else ""
