"""The lock of a world: only one process at a time works on it, with its workers.

In a local folder the operating system holds the lock, and frees it however the process ends. On an
object store the lock is an object that names its owner, who renews it. That is advisory: an object
store cannot prevent two processes from starting in the same moment, or a process from continuing
after it was cut off for ten minutes.
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
"""Name of the locked file, or of the lock object."""

OWNER = f"{HIDDEN}owner"
"""Name of the file with the owner of a local lock; Windows lets no process read the locked one."""

STALE_SECONDS = 600.0
"""Age after which a lock on an object store no longer counts: a crash left it."""

RENEW_SECONDS = 60.0
"""Shortest time between two writes of `renew`."""


@dataclass
class WorldLock:
    """A lock that this process holds.

    Attributes
    ----------
    where : Folder
        Of the world.
    owner : dict
        "host", "pid", "token" and "since" of this process.
    """

    where: Folder
    owner: dict[str, Any]
    _renewed: float = field(default_factory=time.monotonic)

    def renew(self) -> None:
        """Renew the lock; call it at least every few minutes. A local lock needs no renewal.

        Raises
        ------
        StoreError
            If another process has taken the lock.
        """
        if isinstance(self.where, LocalFolder) or time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        try:
            owner = _read(self.where, LOCK)
            if owner is None or owner.get("token") != self.owner["token"]:
                raise _held(self.where, owner)
            _claim(self.where, self.owner)
        except failures() as error:
            if isinstance(error, StoreError):
                raise
            raise disk_error(error, self.where.path) from error
        self._renewed = time.monotonic()


@contextmanager
def lock_world(world: Store | str | Path) -> Iterator[WorldLock]:
    """Lock a world, or the place of a new one, for a `with` block.

    Parameters
    ----------
    world : Store, path or URL

    Raises
    ------
    StoreError
        If another process holds the lock (names it), or something else than a world is there.
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
        created = not where.exists()
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
        if created and not where.exists("zarr.json"):
            _remove_folders(where)


def _remove_folders(where: LocalFolder) -> None:
    """Remove the folders that were created for a lock."""
    with suppress(OSError):
        where.remove([LOCK])
        (where.path / "index").rmdir()
        where.path.rmdir()


@contextmanager
def _hold_remote(where: Folder, owner: dict[str, Any]) -> Iterator[None]:
    try:
        other = _read(where, LOCK)
        if other is not None and time.time() - float(other.get("renewed", 0)) < STALE_SECONDS:
            raise _held(where, other)
        _claim(where, owner)
        other = _read(where, LOCK)
        if other is None or other.get("token") != owner["token"]:  # two began in the same moment
            raise _held(where, other)
    except failures() as error:
        if isinstance(error, StoreError):
            raise
        raise disk_error(error, where.path) from error
    try:
        yield
    finally:
        with suppress(*failures()):
            other = _read(where, LOCK)
            if other is not None and other.get("token") == owner["token"]:
                where.remove([LOCK])


def _claim(where: Folder, owner: dict[str, Any]) -> None:
    where.write(LOCK, json.dumps({**owner, "renewed": time.time()}).encode())


def _read(where: Folder, name: str) -> dict[str, Any] | None:
    data = where.read(name)
    try:
        document = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _held(where: Folder, owner: dict[str, Any] | None) -> StoreError:
    remedy = "wait until it is done, or end it"
    if not isinstance(where, LocalFolder):
        remedy += f"; a lock expires {STALE_SECONDS / 60:.0f} minutes after its last renewal"
    if owner is None:
        return StoreError(f"another process works on world {where.path}", remedy)
    who = f"process {owner.get('pid')} on {owner.get('host')}"
    return StoreError(f"{who} works on world {where.path}, since {owner.get('since')}", remedy)
