"""Errors of parsers, turned into errors about the file that they parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from geo_io.errors import EarthgenError, InputError


@contextmanager
def damaged_file(
    problem: str, remedy: str, kind: type[EarthgenError] = InputError
) -> Iterator[None]:
    """Turn whatever a parser raises into an error about its file.

    On a damaged file a parser raises anything: RecursionError on nested JSON, OverflowError on a
    long number, AssertionError in trimesh, errors of GEOS, Arrow and zlib that derive from
    Exception alone. So there is no list here. The original error is the cause of the new one, and
    `EARTHGEN_DEBUG=1` prints it.

    Parameters
    ----------
    problem : str
        The file, and what is wrong with it; the parser's text follows in parentheses.
    remedy : str
        The next step.
    kind : type
        Class of the error.

    Raises
    ------
    EarthgenError
        Of `kind`; errors of earthgen pass unchanged.
    """
    with parser_errors(lambda error: kind(f"{problem} ({describe(error)})", remedy)):
        yield


@contextmanager
def parser_errors(told: Callable[[BaseException], EarthgenError]) -> Iterator[None]:
    """Turn whatever a parser raises into the error that `told` makes of it, as `damaged_file`."""
    try:
        yield
    except EarthgenError:
        raise
    except BaseException as error:
        # A panic of Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise told(error) from error


def describe(error: BaseException) -> str:
    """Return the text of an error in one line of at most 200 characters.

    Its type stands before it where the text says little alone.
    """
    text = " ".join(str(error).split())[:200]
    if not text:
        return type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text
