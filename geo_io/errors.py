"""Errors about inputs and places, and the base class of all errors that a user can fix.

Messages name settings in backquotes (`crs`); the command line shows them as options. The base also
inherits ValueError, so that code which catches ValueError keeps working.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from geo_io.redaction import redacted


class EarthgenError(ValueError):
    """Base of all errors that a user can fix.

    Parameters
    ----------
    problem : str
        The file or setting, and what is wrong with it.
    remedy : str
        The next step.

    Attributes
    ----------
    exit_code : int
        The exit code of the command line (docs/reference/exit-codes.md).
    """

    exit_code = 3

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = without_stop(redacted(problem))
        self.remedy = without_stop(redacted(remedy))
        super().__init__(" ".join(sentence(text) for text in (self.problem, self.remedy) if text))

    def __reduce__(self) -> tuple[object, ...]:  # survives the trip back from a worker process
        return (type(self), (self.problem, self.remedy))


class InputError(EarthgenError):
    """A file cannot be read, or does not hold what it is used for."""


class MissingFileError(InputError, FileNotFoundError):
    """An input path does not exist."""


class UnsafePathError(InputError):
    """An input names a file or an address that it may not reach."""


class MissingCrsError(InputError):
    """An input has no CRS record and none was given."""


class RegionError(EarthgenError):
    """The requested region is empty, impossible, or does not overlap the data."""

    exit_code = 4


class FrameError(EarthgenError):
    """A frame is invalid, or two frames that must agree do not."""

    exit_code = 4


def without_stop(text: str) -> str:
    """Return a text without its full stop; dots that stand for more, as in "EPSG:...", stay."""
    return text if text.endswith("...") else text.removesuffix(".")


def sentence(text: str) -> str:
    """Return a text with a full stop, unless it ends with a question mark or with "..."."""
    return text if text.endswith(("?", "...")) else f"{without_stop(text)}."


def remedy_for(path: str, otherwise: str) -> str:
    """Return the next step for a file that is given as an input of another kind."""
    points = path.casefold().endswith((".las", ".laz", ".copc", "ept.json"))
    return "it is a point cloud: give it as `points`" if points else otherwise


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Return a hint such as "; did you mean 'class'?", or "" if no name is similar."""
    by_fold = {other.casefold(): other for other in names}
    close = get_close_matches(name.casefold(), by_fold, n=1)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else ""
