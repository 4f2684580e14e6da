"""One process at a time works on a world; its workers write tiles for it.

In a local folder the operating system keeps the lock and frees it however the process ends. On an
object store the lock is an object that says who works there, renewed as long as they do. That is
advisory: an object store cannot exclude that two processes start in the same moment, or that one
goes on that was cut off for ten minutes.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from earthgen.errors import StoreError
from earthgen.files import HIDDEN, PARTIAL, Folder, LocalFolder, disk_error, failures, folder
from earthgen.world.store import Store

LOCK = f"{HIDDEN}lock"
OWNER = f"{HIDDEN}owner"  # a file of its own: Windows lets nobody read a locked one

STALE_SECONDS = 600.0
"""A lock on an object store that was not renewed for so long was left by a crash."""

RENEW_SECONDS = 60.0
"""How often `renew` writes at most."""


@dataclass
class WorldLock:
    """A lock that this process holds."""

    where: Folder
    owner: dict[str, Any]
    _renewed: float = field(default_factory=time.monotonic)

    def renew(self) -> None:
        """Say that the work goes on: to be called at least every few minutes. Nothing to do in a
        local folder.

        Raises
        ------
        StoreError
            if another process has taken the world over
        """
        if isinstance(self.where, LocalFolder) or time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        try:
            found = _read(self.where, LOCK)
            if found is None or found.get("token") != self.owner["token"]:
                raise _held(self.where, found)
            _claim(self.where, self.owner)
        except failures() as error:
            if isinstance(error, StoreError):
                raise
            raise disk_error(error, self.where.path) from error
        self._renewed = time.monotonic()


@contextmanager
def lock_world(world: Store | str | Path) -> Iterator[WorldLock]:
    """Hold a world, or the place where one is to be made, for the time of a `with` block.

    Raises
    ------
    StoreError
        if another process holds it, saying which, or there is something else than a world
    """
    where = world.folder if isinstance(world, Store) else folder(world)
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "token": uuid.uuid4().hex,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with (
        _hold_local(where, owner) if isinstance(where, LocalFolder) else _hold_remote(where, owner)
    ):
        yield WorldLock(where, owner)


@contextmanager
def _hold_local(where: LocalFolder, owner: dict[str, Any]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        others = [
            name for name in where.children() if name != "index" and not name.endswith(PARTIAL)
        ]
        if others and not where.exists("zarr.json"):
            raise StoreError(f"{where.path} is not an earthgen world", "give another folder")
        made = not where.exists()
        (where.path / "index").mkdir(parents=True, exist_ok=True)
        lock = FileLock(where.path / LOCK, thread_local=False)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _held(where, _read(where, OWNER)) from error
    except NotImplementedError as error:
        raise StoreError(
            f"the file system of {where.path} has no locks", "give a folder on another disk"
        ) from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise disk_error(error, where.path) from error
    try:
        where.write(OWNER, json.dumps(owner).encode())
        yield
    finally:
        with suppress(OSError):  # the world may have been moved away or deleted
            where.remove([OWNER])
        lock.release()
        if made and not where.exists("zarr.json"):
            _tidy(where)


def _tidy(where: LocalFolder) -> None:
    """Remove the folders that were made for a lock, if no world was made in them."""
    with suppress(OSError):
        where.remove([LOCK])
        (where.path / "index").rmdir()
        where.path.rmdir()


@contextmanager
def _hold_remote(where: Folder, owner: dict[str, Any]) -> Iterator[None]:
    try:
        found = _read(where, LOCK)
        if found is not None and time.time() - float(found.get("renewed", 0)) < STALE_SECONDS:
            raise _held(where, found)
        _claim(where, owner)
        found = _read(where, LOCK)
        if (
            found is None or found.get("token") != owner["token"]
        ):  # somebody else began in the same moment
            raise _held(where, found)
    except failures() as error:
        if isinstance(error, StoreError):
            raise
        raise disk_error(error, where.path) from error
    try:
        yield
    finally:
        with suppress(*failures()):
            found = _read(where, LOCK)
            if found is not None and found.get("token") == owner["token"]:
                where.remove([LOCK])


def _claim(where: Folder, owner: dict[str, Any]) -> None:
    where.write(LOCK, json.dumps({**owner, "renewed": time.time()}).encode())


def _read(where: Folder, name: str) -> dict[str, Any] | None:
    data = where.read(name)
    try:
        found = json.loads(data) if data else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _held(where: Folder, owner: dict[str, Any] | None) -> StoreError:
    remedy = "wait until it is done, or end it"
    if not isinstance(where, LocalFolder):
        remedy += (
            f"; a lock that is not renewed for {STALE_SECONDS / 60:.0f} minutes counts no more"
        )
    if owner is None:
        return StoreError(f"another process works on world {where.path}", remedy)
    who = f"process {owner.get('pid')} on {owner.get('host')}"
    return StoreError(f"{who} works on world {where.path}, since {owner.get('since')}", remedy)
