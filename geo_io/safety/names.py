"""Names that become parts of paths."""

from __future__ import annotations

import re
import unicodedata

from geo_io.errors import EarthgenError, InputError

NAME = re.compile(r"\w[\w .,+()&'-]*")
"""Letters and digits of any script, and what is harmless between them; no path, no hidden file."""

LONGEST = 200
"""Bytes of a name; with an ending it fits in the 255 of file systems."""

RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{n}" for name in ("com", "lpt") for n in range(10)),
}
"""Names that Windows keeps for devices."""


def require_name(
    name: object, what: str, where: str, kind: type[EarthgenError] = InputError
) -> str:
    """Return a name that may be a part of a path.

    Parameters
    ----------
    name : object
        As it stands in a file or a setting.
    what : str
        What it is the name of, such as "scene".
    where : str
        Where it stands.
    kind : type
        Class of the error.

    Raises
    ------
    EarthgenError
        Of `kind`, if it is no text, is empty or too long, begins with a dot, or holds a slash, a
        control character or a sign that paths do not have everywhere.
    """
    text = name if isinstance(name, str) else ""
    if (
        not NAME.fullmatch(text)
        or any(unicodedata.category(letter)[0] == "C" for letter in text)
        or text != text.rstrip(" .")
        or len(text.encode(errors="replace")) > LONGEST
        or text.partition(".")[0].casefold() in RESERVED
    ):
        raise kind(
            f"{where}: {str(name)[:80]!r} is no name for a {what}",
            "use letters, digits, '-', '_' and '.', and begin with a letter or a digit",
        )
    return text
