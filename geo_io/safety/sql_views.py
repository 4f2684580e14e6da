"""Views in GeoPackage and SQLite files: SQL that a file brings, and that GDAL runs.

A view may count to infinity, join a table with itself five times, or make texts of a gigabyte from
a file of a few kilobytes. So each view is run once with bounds on its steps and on its values,
before GDAL runs it without.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from geo_io.errors import InputError

MAGIC = b"SQLite format 3\0"

STEPS, STEPS_A_BYTE = 20_000_000, 50
"""Steps of SQLite's machine that the views of a file may take, in all, and for each byte of the
file where that is more. Counting the rows of a view of one table takes about five a row."""

STEP = 1000
"""Steps between two looks at the bound."""

LONGEST = 2**26
"""Bytes of a text or a geometry in a view."""

UNKNOWN = re.compile(r"no such function: (\w+)")

RECURSIVE = 33
"""SQLite's number of the action of a query that refers to itself (SQLITE_RECURSIVE)."""

REMEDY = "export the view as a table, for example with ogr2ogr"


def require_bounded_views(path: Path) -> None:
    """Check the views of a file, if it is a database.

    Raises
    ------
    InputError
        If a view refers to itself, takes too many steps, or makes too long values.
    """
    try:
        state = path.stat()
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return
    except OSError:
        return  # who opens it says so
    _check(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(64)
def _check(path: Path, changed: int, size: int) -> None:
    """Check once for each state of a file."""
    left = [max(STEPS, STEPS_A_BYTE * size) // STEP]

    def over() -> bool:
        left[0] -= 1
        return left[0] < 0

    try:
        with closing(_opened(path)) as base:
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(LONGEST, size))
            base.set_authorizer(_authorised)
            base.set_progress_handler(over, STEP)
            for name in _views(base):
                _run(base, path, name, left)
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # also of a message about damage
        return  # GDAL says what is wrong with it


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database without writing anything beside it."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _views(base: sqlite3.Connection) -> Iterator[str]:
    rows = base.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    yield from (str(row[0]) for row in rows)


def _authorised(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == RECURSIVE else sqlite3.SQLITE_OK


def _run(base: sqlite3.Connection, path: Path, name: str, left: list[int]) -> None:
    """Run a view once; functions of GDAL, which are not here, are 0."""
    quoted = name.replace('"', '""')
    where = f"the view {name!r} of {path}"
    for _ in range(50):
        try:
            for _row in base.execute(f'SELECT * FROM "{quoted}"'):
                pass
        except (sqlite3.DatabaseError, MemoryError, UnicodeDecodeError) as error:
            text = str(error)
            if left[0] < 0:
                raise InputError(
                    f"{where} takes more than {STEPS:,} steps, and more than {STEPS_A_BYTE} for "
                    "each byte of the file",
                    REMEDY,
                ) from error
            if "prohibited" in text or "not authorized" in text:
                raise InputError(f"{where} refers to itself", REMEDY) from error
            if isinstance(error, MemoryError) or "too big" in text:
                problem = f"{where} makes values of over {LONGEST:,} bytes"
                raise InputError(problem, REMEDY) from error
            missing = UNKNOWN.search(text)
            if missing is None:
                return  # a view of what is not there: GDAL says so, or leaves it out
            base.create_function(missing[1], -1, lambda *_: 0)
        else:
            return
