"""Output that appears under its final name only when it is complete.

Files are written into a folder beside their place, and moved when the work has ended. Whatever ends
it before, an error or Ctrl-C, leaves what was there as it was. After a kill or a power cut, a
folder called ".NAME.….partial" remains; the next output into the same folder removes it. It knows
it by the lock that a living process holds on the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earthgen.errors import StoreError, StoreExistsError, StoreFullError
from earthgen.files import PARTIAL
from geo_io.errors import EarthgenError, InputError

if sys.platform != "win32":
    import fcntl

RESUME_FILE = ".earthgen-resume.json"
"""In a folder that an interrupted piece of work left to be continued: what the work was."""

LEFTOVER = re.compile(rf"\..+\.[0-9a-f]{{12}}{re.escape(PARTIAL)}")
"""Names of staging folders of work that cannot be continued."""

REPLACED = ".replaced"
"""Folder in a staging folder, for what gives way to new files."""

FULL = re.compile(
    r"no space left|disk (is )?full|not enough space|quota exceeded|os error (28|122)\b", re.I
)
"""What libraries say that keep no number of an error: GDAL, SQLite, Rust's."""

SMALLEST_DISK = 2**20
"""Free bytes below which a disk counts as full when a write has failed."""


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
def staging_folder(
    path: Path, resume: Mapping[str, Any] | None = None, *, beside: bool = False
) -> Iterator[Path]:
    """Give an empty folder on the same disk as `path`, and remove it when the block ends.

    It lies in `path` if that is a folder, and beside it otherwise. Those that killed processes left
    there are removed first.

    Parameters
    ----------
    path : Path
        The place of the output.
    resume : mapping, optional
        JSON values that say what the work is. The folder then stays if the block raises, and the
        next call with the same values gives it again with all that it has.
    beside : bool
        Whether it lies beside `path` in any case.

    Raises
    ------
    StoreError
        If the place cannot be written to, the disk fills up, or another process does the same work
        that can be continued.
    """
    place = path if path.is_dir() and not beside else path.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
        folder, handle = _claimed(place, path.name, resume)
    except BlockingIOError as error:
        raise StoreError(
            f"another process is writing {path}", "wait for it, or give another place"
        ) from error
    except OSError as error:
        raise write_error(error, path) from error
    finished = False
    try:
        yield folder
        finished = True
    except StoreFullError:
        raise
    except Exception as error:
        if is_full(error, folder):
            raise _full(path) from error
        if not isinstance(error, OSError) or isinstance(error, EarthgenError):
            raise
        if _is_elsewhere(error, folder):
            raise
        raise write_error(error, path) from error
    finally:
        if finished or resume is None:
            shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep(place: Path) -> None:
    """Remove the staging folders in a folder whose processes were killed.

    Nothing is removed where folders cannot be locked: on Windows, and on some network file systems.
    """
    for child in sorted(place.iterdir()):
        if not LEFTOVER.fullmatch(child.name) or child.is_symlink() or not child.is_dir():
            continue
        try:
            handle = _lock(child)
        except OSError:  # another process works there, or has just ended
            continue
        if handle is not None:
            shutil.rmtree(child, ignore_errors=True)
            os.close(handle)


def _claimed(place: Path, name: str, resume: Mapping[str, Any] | None) -> tuple[Path, int | None]:
    """Make a staging folder and lock it; BlockingIOError if another process has the one to be
    continued."""
    if resume is not None:
        folder = place / f".{name}{PARTIAL}"
        folder.mkdir(exist_ok=True)
        handle = _lock(folder)
        if not _continues(folder, resume):
            for child in folder.iterdir():
                _remove(child)
            (folder / RESUME_FILE).write_text(_resume_text(resume), "utf-8")
        return folder, handle
    while True:
        folder = place / f".{name}.{uuid.uuid4().hex[:12]}{PARTIAL}"
        folder.mkdir()
        try:
            handle = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # a sweep came between the two calls
        if folder.is_dir():
            return folder, handle
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the handle is closed or the process ends. None where that is impossible.

    Raises
    ------
    BlockingIOError
        If another process has it.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


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
    if not os.path.lexists(target) and all(place.name == old.name for old, place in moves.items()):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)  # all of it in one step
        return
    target.mkdir(parents=True, exist_ok=True)
    # What gives way is moved aside, which is quick, and goes with the staging folder.
    aside = folder / REPLACED
    aside.mkdir()
    steps = [
        (old, aside / old.name)
        for old in replaced
        if os.path.lexists(old) and (_is_folder(old) or old not in moves.values())
    ]
    done: list[tuple[Path, Path]] = []
    try:
        for source, place in [*steps, *moves.items()]:
            source.replace(place)
            done.append((source, place))
    except OSError:
        for source, place in reversed(done):
            with contextlib.suppress(OSError):
                place.replace(source)
        raise


def replace_folder(new: Path, place: Path) -> None:
    """Put a complete folder in the place of another one, which is removed last, or of nothing.

    A link at `place` stays, and what it leads to is replaced. Linux and macOS exchange both names
    in one step: there is a whole folder under the name at every moment. Elsewhere the old one is
    `old_folder(place)` between two renamings, and `put_back` ends what a crash has interrupted.

    Parameters
    ----------
    new, place : Path
        On the same disk. With the link followed, `place` is what `real_place` returns.

    Raises
    ------
    OSError
        If a name cannot be changed; the old folder is in its place then.
    """
    place = real_place(place)
    if not os.path.lexists(place):
        new.rename(place)
        return
    old = old_folder(place)
    _remove(old)
    if _exchange(new, place):
        new.rename(old)
    else:
        place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
    shutil.rmtree(old, ignore_errors=True)


def real_place(path: Path) -> Path:
    """Return where a path leads to if it is a link, which need not exist; else the path."""
    return path.resolve() if path.is_symlink() else path


def old_folder(place: Path) -> Path:
    """Return where `replace_folder` puts the old folder for a moment."""
    place = real_place(place)
    return place.with_name(f".{place.name}.old")


def put_back(place: Path) -> None:
    """End what `replace_folder` did when a crash interrupted it: the old folder gets its name back
    if there is no new one. The caller holds the lock of the place."""
    place = real_place(place)
    old = old_folder(place)
    if not os.path.lexists(place):
        if old.exists():
            old.rename(place)
    else:
        _remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the names of two folders in one step. False where the system or the disk cannot."""
    library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    first, second = os.fsencode(a), os.fsencode(b)
    here, swap = -100, 2  # AT_FDCWD, and RENAME_EXCHANGE of Linux or RENAME_SWAP of macOS
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(here, first, here, second, swap) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(first, second, swap) == 0)
    return False


def is_full(error: BaseException, folder: Path) -> bool:
    """Return whether a write failed because a disk is full, or a quota used up.

    Libraries seldom pass on the number of the error: what they say counts too, and what is free.

    Parameters
    ----------
    error : BaseException
        With its causes.
    folder : Path
        Where it was written to.
    """
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        number = one.errno if isinstance(one, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or FULL.search(str(one)):
            return True
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
    # What a library raises, and not a wrong call or an error about something else.
    of_writing = isinstance(error, OSError | RuntimeError | InputError) or (
        type(error).__module__ != "builtins" and not isinstance(error, EarthgenError)
    )
    try:
        return of_writing and shutil.disk_usage(folder).free < SMALLEST_DISK
    except OSError:
        return False


def write_error(error: OSError, path: Path) -> StoreError:
    """Return the error for an output that the operating system does not let us write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    if error.errno == errno.EFBIG:
        return StoreError(
            f"{path} cannot be written: its disk, or a limit of this user, allows no file that "
            "large",
            "write a part of it, or give a place on another disk",
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


def _full(path: Path) -> StoreFullError:
    return StoreFullError(
        f"the disk of {path} is full; nothing was written under that name",
        "free some space, then run the command again",
    )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
