"""Errors of parsers, turned into errors about the file that they parsed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from geo_io.errors import EarthgenError, InputError

PARSE_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What parsers raise on a damaged file. Most of them check little, so it can be any of these."""


@contextmanager
def damaged_file(problem: str, remedy: str) -> Iterator[None]:
    """Turn `PARSE_ERRORS` into an InputError with `problem`, the parser's text, and `remedy`."""
    try:
        yield
    except EarthgenError:
        raise
    except PARSE_ERRORS as error:
        raise InputError(f"{problem} ({describe(error)})", remedy) from error


def describe(error: BaseException) -> str:
    """The text of an error in one line of at most 200 characters, with its type if it is short."""
    text = " ".join(str(error).split())[:200]
    if not text:
        return type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text
