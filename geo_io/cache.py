"""Files made once of an input, such as a table of an OSM extract, and kept for later runs.

The folder is `earthgen/inputs` in `$EARTHGEN_CACHE`, else in `$XDG_CACHE_HOME`, else in `~/.cache`;
one of temporary files if that cannot be written. It can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from geo_io.digest import digest_file

CACHE = "EARTHGEN_CACHE"
"""Environment variable that names the folder."""

FOLDER = Path("earthgen", "inputs")

UNUSED_DAYS = 30
"""Files that no run used for so long are removed when another is made."""


def cache_folder() -> Path:
    """Return the folder of made files; it exists and can be written."""
    named = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME")
    for folder in (Path(named) if named else Path.home() / ".cache", Path(tempfile.gettempdir())):
        place = folder / FOLDER
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    return Path(tempfile.mkdtemp(prefix="earthgen-"))


def made_once(source: str | Path, how: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """Return a file made of a source; it is made if this content was not made before.

    Parameters
    ----------
    source : str or Path
        The input.
    how : str
        How the file is made, with a version and all settings.
    suffix : str
        Of the file, with the dot.
    make : callable
        Writes the file at the path that it is given. If it fails, nothing is left.

    Raises
    ------
    MissingFileError, InputError
        If the source cannot be read.
    """
    key = hashlib.sha256(f"{how}\0{digest_file(source)}".encode()).hexdigest()[:32]
    folder = cache_folder()
    path = folder / f"{key}{suffix}"
    if path.exists():
        os.utime(path)
        return path
    _remove_unused(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        part = Path(scratch) / path.name
        make(part)
        part.replace(path)  # in one step: other processes see a whole file or none
    return path


def _remove_unused(folder: Path) -> None:
    limit = time.time() - UNUSED_DAYS * 86400
    for file in folder.iterdir():
        try:
            if file.is_file() and file.stat().st_mtime < limit:
                file.unlink()
        except OSError:  # another process removed it, or it belongs to another user
            continue
