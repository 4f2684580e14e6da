"""Texts of files, made safe to print: a name in a file can hold commands for the terminal."""

from __future__ import annotations

import functools
import re
import secrets
from typing import Any

import typer

from geo_io.redaction import redacted

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters but tab and line feed, and marks that turn the direction of writing."""


@functools.cache
def _mark() -> str:
    """Stands for ESC in our own styles. No file can know it, so no file can write one."""
    return f"\ue000{secrets.token_hex(8)}"


def visible(text: str, lines: bool = True) -> str:
    r"""Return a text with control characters as \x1b or \u202e.

    Parameters
    ----------
    text : str
    lines : bool
        Keep line feeds; else they become \n.
    """
    text = HIDDEN.sub(_shown, text)
    return text if lines else text.replace("\n", "\\n")


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def styled(text: str, **style: Any) -> str:
    """Return a text with a style of `typer.style` that `printable` keeps."""
    return typer.style(visible(text), **style).replace("\x1b", _mark())


def printable(text: str) -> str:
    """Return what is printed of a text: control characters visible, credentials taken out, and the
    styles of `styled`."""
    return visible(redacted(text)).replace(_mark(), "\x1b")


def json_safe(text: str) -> str:
    r"""Return JSON with the control characters that JSON allows, such as \x9b, as \u009b."""
    return HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
