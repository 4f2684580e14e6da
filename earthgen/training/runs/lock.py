"""One process at a time trains in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from earthgen.errors import TrainingError
from earthgen.files import disk_error

LOCK = ".train.lock"


@contextmanager
def hold_run(folder: Path, parts: Iterable[str] = ()) -> Iterator[None]:
    """Lock the folder of a run for a `with` block; the lock ends with the process.

    Parameters
    ----------
    folder : Path
    parts : iterable of str
        Names of the folders in it.

    Raises
    ------
    TrainingError
        If another process trains there, a file has the name of a part, or a link in the run leads
        out of it: it may be the run of a stranger, and what it leads to would be written to.
    StoreError
        If the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(
            f"another process is training in {folder}", "wait for it, or give another --out"
        ) from error
    except NotImplementedError:  # a file system without locks: as before there were any
        yield
        return
    except OSError as error:
        raise disk_error(error, folder) from error
    try:
        _check_places(folder, parts)
        yield
    finally:
        lock.release()


def _check_places(folder: Path, parts: Iterable[str]) -> None:
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(home):
                raise TrainingError(
                    f"{folder / path.relative_to(home)} is a link that leads out of the run",
                    "remove it, or put there what it leads to",
                )
    for name in parts:
        path = folder / name
        if path.exists() and not path.is_dir():
            raise TrainingError(f"{path} is a file where a folder of the run belongs", "remove it")
