"""Output that appears under its final name only when it is complete.

Files are written into a folder beside their place, and moved when the work has ended. Whatever ends
it before, an error or Ctrl-C, leaves what was there as it was. (After a kill or a power cut, a
folder called ".NAME.….partial" may remain, which can be deleted.)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.files import PARTIAL
from geo_io.errors import EarthgenError

RESUME_FILE = ".earthgen-resume.json"
"""In a folder that an interrupted piece of work left to be continued: what the work was."""


def require_file_place(path: Path, overwrite: bool) -> None:
    """Raise StoreExistsError if a file cannot be put at a path: a folder is there, or a file that
    `overwrite` does not allow to replace."""
    if path.is_dir():
        raise StoreExistsError(f"{path} is a folder", "give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise StoreExistsError(f"{path} exists already", "give `overwrite` to replace it")


def require_folder_place(path: Path, overwrite: bool) -> None:
    """Raise StoreExistsError if files cannot be put into a folder: a file is there, or other files
    are in it, and `overwrite` does not allow to replace those of the same names."""
    if os.path.lexists(path) and not path.is_dir():
        raise StoreExistsError(
            f"{path} cannot be written: it is a file", "give the name of a folder"
        )
    if overwrite or not path.is_dir():
        return
    if any(not _is_staging(child.name) for child in path.iterdir()):
        raise StoreExistsError(
            f"the folder {path} exists already and is not empty",
            "give another name, or `overwrite` to replace files of the same names",
        )


@contextlib.contextmanager
def staged_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give the path to write a file to; it gets its own name when the block ends without an error.

    The path that is given has the same ending, because libraries choose formats by it. Missing
    parents of `path` are created.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Replace the file that exists at `path`.

    Raises
    ------
    StoreExistsError
        If there is a file, and `overwrite` is not given; before the block runs.
    StoreError
        If the place cannot be written to, or the disk fills up.
    """
    require_file_place(path, overwrite)
    with staging_folder(path) as folder:
        yield folder / path.name
        publish(folder, path.parent, overwrite=overwrite)


@contextlib.contextmanager
def staged_folder(
    path: Path, *, overwrite: bool = False, earlier: Sequence[str] = ()
) -> Iterator[Path]:
    """Give a folder to write files to; they get their places in `path` when the block ends without
    an error.

    Parameters
    ----------
    path : Path
        The final folder; it is created with its parents.
    overwrite : bool
        Replace files of the same names that exist in `path`; the others stay.
    earlier : sequence of str
        Names of files and folders in `path` that an earlier run wrote: they are removed when the
        new ones are complete.

    Raises
    ------
    StoreExistsError
        If `path` has files, and `overwrite` is not given; before the block runs.
    StoreError
        If the place cannot be written to, or the disk fills up.
    """
    require_folder_place(path, overwrite)
    with staging_folder(path) as folder:
        yield folder
        publish(folder, path, overwrite=overwrite, earlier=earlier)


@contextlib.contextmanager
def staging_folder(path: Path, resume: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Give an empty folder on the same disk as `path`, and remove it when the block ends.

    It lies in `path` if that is a folder, and beside it otherwise.

    Parameters
    ----------
    path : Path
        The place of the output.
    resume : mapping, optional
        JSON values that say what the work is. The folder then stays if the block raises, and the
        next call with the same values gives it again with all that it has.

    Raises
    ------
    StoreError
        If the place cannot be written to, or the disk fills up.
    """
    place = path if path.is_dir() else path.parent
    unique = "" if resume is not None else f".{uuid.uuid4().hex[:12]}"
    folder = place / f".{path.name}{unique}{PARTIAL}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if resume is not None and not _continues(folder, resume):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=resume is not None)
        if resume is not None:
            (folder / RESUME_FILE).write_text(_resume_text(resume), "utf-8")
    except OSError as error:
        raise write_error(error, path) from error
    finished = False
    try:
        yield folder
        finished = True
    except OSError as error:
        if isinstance(error, EarthgenError) or _is_elsewhere(error, folder):
            raise
        raise write_error(error, path) from error
    finally:
        if finished or resume is None:
            shutil.rmtree(folder, ignore_errors=True)


def publish(
    folder: Path,
    target: Path,
    *,
    overwrite: bool = False,
    names: Mapping[str, str] | None = None,
    earlier: Sequence[str] = (),
) -> None:
    """Move what is in one folder into another on the same disk.

    Parameters
    ----------
    folder : Path
        Of `staging_folder`.
    target : Path
        Created if it does not exist.
    overwrite : bool
        Replace files of the same names.
    names : mapping of str to str, optional
        New names of files and folders by old names; the others keep theirs.
    earlier : sequence of str
        Names in `target` that the move replaces, folders included.

    Raises
    ------
    StoreExistsError
        If something stands in the way; nothing is moved then.
    """
    (folder / RESUME_FILE).unlink(missing_ok=True)
    moves = {
        child: target / (names or {}).get(child.name, child.name)
        for child in sorted(folder.iterdir())
    }
    replaced = {target / name for name in earlier if _is_plain_name(name)}
    for place in moves.values():
        if not os.path.lexists(place) or place in replaced:
            continue
        if place.is_dir():
            raise StoreExistsError(
                f"{place} is a folder that is not of this output", "give another place"
            )
        if not overwrite:
            raise StoreExistsError(f"{place} exists already", "give `overwrite` to replace it")
    target.mkdir(parents=True, exist_ok=True)
    for old in replaced:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old not in moves.values():
            old.unlink(missing_ok=True)
    for source, place in moves.items():
        source.replace(place)


def write_error(error: OSError, path: Path) -> StoreError:
    """Return the error for an output that the operating system does not let us write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the disk of {path} is full; nothing was written under that name",
            "free some space, then run the command again",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            f"{path} cannot be written: {error.strerror}", "give a place that you may write to"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return StoreError(
            f"{path} cannot be written: one of its folders is a file", "give another place"
        )
    return StoreError(
        f"{path} cannot be written: {error.strerror or error}", "check the place and the disk"
    )


def _is_elsewhere(error: OSError, folder: Path) -> bool:
    """Whether an error is about a file that is not in a folder, such as an input."""
    named = error.filename
    return isinstance(named, str | bytes | os.PathLike) and folder not in (
        Path(os.fsdecode(named)).parents
    )


def _is_staging(name: str) -> bool:
    return name.startswith(".") and name.endswith(PARTIAL)


def _is_plain_name(name: str) -> bool:
    """Whether a name of a list in a file is that of something in the folder itself."""
    return bool(name) and name not in (".", "..") and "/" not in name and "\\" not in name


def _resume_text(resume: Mapping[str, Any]) -> str:
    return json.dumps(resume, sort_keys=True, indent=1, default=str)


def _continues(folder: Path, resume: Mapping[str, Any]) -> bool:
    try:
        return (folder / RESUME_FILE).read_text("utf-8") == _resume_text(resume)
    except OSError:
        return False
