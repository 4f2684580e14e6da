"""Files that other files refer to, read only from the folder of the file that the user named.

A tileset or a city model may come from anyone, and its content goes into scenes that may be passed
on. So a reference must not lead out of that folder, by `..`, by an absolute path or by a link, and
nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from geo_io.errors import InputError, MissingFileError, UnsafePathError


def local_file(uri: object, base: Path, root: Path, where: str) -> Path:
    """Return the path of a file that another file refers to.

    Parameters
    ----------
    uri : object
        The reference as it stands in the file.
    base : Path
        Folder that the reference is relative to.
    root : Path
        Folder that the file must lie in.
    where : str
        The referring file, for error messages.

    Raises
    ------
    UnsafePathError
        if the reference is a network address, or leads out of `root`
    InputError
        if it is not a path
    MissingFileError
        if the file does not exist
    """
    text = uri if isinstance(uri, str) else ""
    try:
        scheme = urlsplit(text).scheme
    except ValueError:
        scheme = "?"
    if scheme in ("http", "https", "ftp"):
        raise UnsafePathError(
            f"{where} refers to {text}, but nothing is read from the network",
            "download everything, and refer to the files",
        )
    plain = unquote(text.split("?", 1)[0].split("#", 1)[0])
    if not plain or "\0" in plain or scheme:
        raise InputError(
            f"{where} refers to {str(uri)[:80]!r}, which is not a relative path", "correct it"
        )
    try:
        path = (base / plain).resolve()
        exists = path.is_file()
    except (OSError, RuntimeError) as error:  # the name is too long, or links form a circle
        raise InputError(
            f"{where} refers to {plain[:80]!r}, which is not a path to a file", "correct it"
        ) from error
    if not path.is_relative_to(root.resolve()):
        raise UnsafePathError(
            f"{where} refers to {plain}, which lies outside the folder {root}",
            "move that file into the folder",
        )
    if not exists:
        raise MissingFileError(
            f"{where} refers to {plain}, which does not exist", "fetch the missing file"
        )
    return path
