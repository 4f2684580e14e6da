"""Printing: results on stdout, everything else on stderr, no line wrapped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from earthgen_cli.visible import json_safe, printable, styled, visible


def say(text: str = "", *, err: bool = False) -> None:
    r"""Print a line; control characters that it got from a file are shown, such as \x1b.

    Colour codes are printed to terminals only, and not if NO_COLOR is set (https://no-color.org).
    """
    typer.echo(printable(text), err=err, color=False if os.environ.get("NO_COLOR") else None)


def say_warning(text: str, about: str = "") -> None:
    """Print a warning on stderr.

    Parameters
    ----------
    text : str
    about : str
        What the warning belongs to, such as a region of a batch.
    """
    say(warning_line(text, about), err=True)


def warning_line(text: str, about: str = "") -> str:
    """Return the line of a warning."""
    return f"warning: {about}: {text}" if about else f"warning: {text}"


def say_json(value: Any, *, err: bool = False) -> None:
    """Print one JSON object; NaN, which JSON does not have, becomes null."""
    text = json.dumps(plain(value), indent=None if err else 2, ensure_ascii=False, allow_nan=False)
    say(json_safe(text), err=err)


def plain(value: Any) -> Any:
    """Convert a value to JSON types: tuples to lists, numpy numbers to numbers, paths to text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def say_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print "name  value" lines with aligned values."""
    rows = [(name, visible(str(value), lines=False)) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        say(f"{name:<{width}}  {value}".rstrip())


def say_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print left-aligned columns under a header."""
    table = [[visible(str(cell), lines=False) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for number, row in enumerate(table):
        line = "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        say(styled(line, bold=True) if number == 0 else line)


def say_tree(value: Any, indent: int = 0) -> None:
    """Print nested mappings and lists as indented "name: value" lines."""
    pad = "  " * indent
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _is_leaf(item):
                say(f"{pad}{key}: {_leaf(item)}")
            else:
                say(f"{pad}{key}:")
                say_tree(item, indent + 1)
    elif not _is_leaf(value):
        for item in value:
            if _is_leaf(item):
                say(f"{pad}- {_leaf(item)}")
            else:
                say(f"{pad}-")
                say_tree(item, indent + 1)
    else:
        say(f"{pad}{_leaf(value)}")


def _is_leaf(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, list | tuple):
        return all(not isinstance(item, Mapping | list | tuple) for item in value)
    return True


def _leaf(value: Any) -> str:
    if value is None or (isinstance(value, Mapping | list | tuple | str) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_leaf, value))
    return visible(str(value), lines=False)


def bytes_text(count: float) -> str:
    """Return a number of bytes in decimal units, such as "1.5 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return (
                f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
            )
        count /= 1000
    return f"{count:,.1f} TB"


def seconds_text(seconds: float) -> str:
    """Return a duration, such as "2 min 10 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count_text(count: int, noun: str) -> str:
    """Return a number of things, such as "1 tile" or "1,200 tiles"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def shell_quoted(path: object) -> str:
    """Quote a path for the shell."""
    import shlex
    import subprocess

    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


def ends_with_name(text: str) -> bool:
    """Return whether a text ends with a path or a value, which a full stop would seem part of."""
    word = text.removesuffix(".").split()[-1] if text.split() else ""
    return word[-1:].isalnum() and any(sign in word for sign in ("/", "\\", ".", "="))


def say_error(problem: str, remedy: str, name: str, exit_code: int, as_json: bool) -> None:
    """Print the line (or JSON object) on stderr with which a failed command ends.

    Parameters
    ----------
    problem, remedy : str
        What is wrong, and the next step.
    name : str
        Name of the class of the error.
    exit_code : int
    as_json : bool
    """
    if as_json:
        say_json(
            {"error": problem, "remedy": remedy, "type": name, "exit_code": exit_code}, err=True
        )
        return
    from geo_io.errors import sentence

    line = sentence(" ".join(problem.split()))
    if remedy:
        first, *rest = remedy.split()
        # Capitalize a word, but no option, file or command.
        if first.isalpha() and first.islower() and first != "pip":
            first = first.capitalize()
        text = " ".join([first, *rest])
        line += " " + (text if ends_with_name(text) else sentence(text))
    elif ends_with_name(line):
        line = line.removesuffix(".")
    sys.stdout.flush()  # where both streams go to one place, the error comes last
    say(f"{styled('error:', fg=typer.colors.RED, bold=True)} {line}", err=True)
