"""`--verbose` and `--log-file`: every step of a command as a line, on stderr or in a file."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from earthgen.progress import Event

LOG = logging.getLogger("earthgen")
"""Gets the events of commands; libraries below have loggers of their own."""

LINE = "%(asctime)s %(levelname)s %(message)s"


def start_log(words: Sequence[str]) -> list[str]:
    """Take --verbose, -v and --log-file FILE out of a command line, and begin what they ask for.

    Parameters
    ----------
    words : sequence of str
        The words of a command line, without its name.

    Returns
    -------
    list of str
        The other words.

    Raises
    ------
    typer.BadParameter
        If --log-file has no value, or the file cannot be written.
    """
    for handler in list(LOG.handlers):  # of an earlier command in this process
        LOG.removeHandler(handler)
        handler.close()
    rest: list[str] = []
    file, verbose = "", False
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *remaining]
        elif word in ("--verbose", "-v"):
            verbose = True
        elif name == "--log-file":
            file = value if equals else next(remaining, "")
            if not file:
                raise typer.BadParameter("--log-file needs a file")
        else:
            rest.append(word)
    handlers: list[logging.Handler] = []
    if verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(logging.Formatter("%(message)s"))
    if file:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            problem = f"--log-file {file} cannot be written: {error.strerror}"
            raise typer.BadParameter(problem) from error
        handlers[-1].setFormatter(logging.Formatter(LINE))
    LOG.handlers, LOG.propagate = handlers, False
    LOG.setLevel(logging.INFO if handlers else logging.CRITICAL)
    if file:
        import shlex

        from earthgen._version import __version__

        LOG.info(
            "earthgen %s, Python %s: %s",
            __version__,
            platform.python_version(),
            platform.platform(),
        )
        LOG.info("earthgen %s", shlex.join(words))
    return rest


def is_verbose() -> bool:
    """Return whether each step is printed on stderr."""
    return any(type(handler) is logging.StreamHandler for handler in LOG.handlers)


def log_event(event: Event, text: str) -> None:
    """Log one event of a command, whose text names options."""
    if event.kind == "warning":
        LOG.warning("%s: %s", event.task, text)
    elif event.kind == "message":
        LOG.info("%s", text)
    elif event.total:
        LOG.info(
            "%s %d of %d, %.1f s: %s",
            event.task,
            event.done,
            event.total,
            event.seconds,
            text or "-",
        )


def log_error(error: BaseException) -> None:
    """Log the error that ends a command, in a file with its traceback."""
    for handler in LOG.handlers:
        if isinstance(handler, logging.FileHandler):
            record = LOG.makeRecord(
                LOG.name,
                logging.ERROR,
                __file__,
                0,
                "%s: %s",
                (type(error).__name__, error),
                (type(error), error, error.__traceback__),
            )
            handler.emit(record)
