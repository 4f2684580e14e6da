"""One process at a time trains in the folder of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from earthgen.errors import TrainingError
from earthgen.files import disk_error

LOCK = ".train.lock"


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Lock the folder of a run for a `with` block; the lock ends with the process.

    Raises
    ------
    TrainingError
        If another process trains there.
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
        yield
    finally:
        lock.release()
