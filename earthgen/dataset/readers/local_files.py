"""Files that other files name: found beside them, and nowhere else.

A tileset or a city model may come from anyone. What it names is read into a scene that may be
passed on, so a name must not lead out of the folder that its owner pointed at, by `..`, by an
absolute path or by a link; and nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from geo_io.errors import InputError, MissingFileError


def local_file(uri: object, base: Path, root: Path, where: str) -> Path:
    """The file that `uri` names, relative to the folder `base`, inside the folder `root`.

    Raises
    ------
    InputError
        if it is an address on a network, leads out of `root`, or is no path; `where` is the file
        that says so
    MissingFileError
        if there is no such file
    """
    text = uri if isinstance(uri, str) else ""
    try:
        scheme = urlsplit(text).scheme
    except ValueError:
        scheme = "?"
    if scheme in ("http", "https", "ftp"):
        raise InputError(
            f"{where} names {text}, and nothing is fetched from the network",
            "download all of it, and name the files",
        )
    plain = unquote(text.split("?", 1)[0].split("#", 1)[0])
    if not plain or "\0" in plain or scheme:
        raise InputError(
            f"{where} names {str(uri)[:80]!r}, which is no relative path", "correct it"
        )
    try:
        path = (base / plain).resolve()
        found = path.is_file()
    except (OSError, RuntimeError) as error:  # too long a name; links that lead in a circle
        raise InputError(
            f"{where} names {plain[:80]!r}, which is no path to a file", "correct it"
        ) from error
    if not path.is_relative_to(root.resolve()):
        raise InputError(
            f"{where} names {plain}, which lies outside the folder {root}",
            "move what it names into that folder",
        )
    if not found:
        raise MissingFileError(
            f"{where} names {plain}, which does not exist", "fetch the missing file"
        )
    return path
