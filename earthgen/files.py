"""The few file operations that a world needs, on a local folder or on an object store.

An object store is named by a URL that fsspec understands: s3://, gs://, memory://. Names inside a
folder are relative and have "/" between their parts. An object appears whole or not at all; on a
local disk `write` sees to that.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from earthgen.errors import StoreError, StoreFullError
from geo_io.errors import InputError, MissingFileError

PARTIAL = ".partial"
"""Ending of files that are being written; zarr's temporary files have it too."""

HIDDEN = "index/."
"""Beginning of the names of files of ours that are no part of the Zarr hierarchy.

Zarr libraries look for arrays in every folder of a group, and warn of what is none; the folder of
an array they do not list.
"""

REQUESTS = 16
"""Requests to an object store that are under way at once."""

R = TypeVar("R")


class Folder(Protocol):
    """A folder with everything below it. Operations raise OSError, or see `failures`."""

    @property
    def path(self) -> Path | str:
        """Where it is: a Path, or a URL."""

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file, or with "" the folder itself."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""

    def write(self, name: str, data: bytes, durable: bool = False) -> None:
        """Make or replace a file in one step; with `durable`, return when it would survive a power
        cut.

        On a disk the folder itself has to be there: FileNotFoundError where it was deleted or
        moved.
        """

    def sync(self, names: Iterable[str]) -> None:
        """Return when these files, those that exist, and their names would survive a power cut."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that do not exist are none to remove."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it."""

    def children(self, name: str = "") -> list[str]:
        """Names of the files and folders in a folder, sorted; none where it does not exist."""

    def names(self, under: str = "") -> Iterator[str]:
        """Names of all files below a folder, sorted within each folder."""

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the files that exist."""

    def size(self) -> int:
        """Bytes of all files together."""

    def partial(self) -> Iterator[str]:
        """Files that a broken-off write left; looks through all folders."""

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        """Results of calls that read or write here: one after the other, or many at once where
        each has to wait."""


def folder(path: str | Path) -> Folder:
    """The folder at a path or URL, which need not exist.

    Raises
    ------
    StoreError
        if the URL's scheme is unknown, or needs a package that is not installed
    """
    text = os.fspath(path)
    if text.startswith("file://"):
        from urllib.request import url2pathname

        return LocalFolder(Path(url2pathname(text.removeprefix("file://"))))
    if "://" not in text:
        return LocalFolder(Path(text))
    from fsspec import url_to_fs

    try:
        system, root = url_to_fs(text)
    except ImportError as error:
        raise StoreError(f"{text} cannot be opened: {error}", "install that package") from error
    except ValueError as error:
        raise StoreError(
            f"{text} cannot be opened: {error}", "give a folder, or a URL such as s3://..."
        ) from error
    return RemoteFolder(text.rstrip("/"), system, root.rstrip("/"))


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    path: Path

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, durable: bool = False) -> None:
        replace_file(self.path, name, data, durable)

    def sync(self, names: Iterable[str]) -> None:
        names = list(names)
        if len(names) > 1 and _sync_file_system(self.path):
            return
        folders = set()
        for name in names:
            file = self.path / name
            if file.exists():
                _sync(file)
                # Up to the world's folder: any of them may be new.
                folders |= {parent for parent in file.parents if parent.is_relative_to(self.path)}
        for parent in folders:
            _sync(parent)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        if (self.path / name).exists():
            shutil.rmtree(self.path / name)

    def children(self, name: str = "") -> list[str]:
        try:
            return sorted(child.name for child in (self.path / name).iterdir())
        except FileNotFoundError:
            return []

    def names(self, under: str = "") -> Iterator[str]:
        for place, folders, files in os.walk(self.path / under):
            folders.sort()
            base = Path(place).relative_to(self.path).as_posix()
            for name in sorted(files):
                yield name if base == "." else f"{base}/{name}"

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        found = {}
        for name in names:
            try:
                found[name] = (self.path / name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def size(self) -> int:
        return sum(self.sizes(self.names()).values())

    def partial(self) -> Iterator[str]:
        return (name for name in self.names() if name.endswith(PARTIAL))

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        return [job() for job in jobs]


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix of an object store, through fsspec. What it wrote is durable, by the promise of
    such stores."""

    path: str
    system: Any
    root: str

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        self.system.invalidate_cache()  # others write there too
        return bool(self.system.exists(self._at(name)))

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self.system.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes, durable: bool = False) -> None:
        self.system.pipe_file(self._at(name), data)

    def sync(self, names: Iterable[str]) -> None:
        return

    def remove(self, names: Iterable[str]) -> None:
        self.each([lambda name=name: self._remove(name) for name in names])  # type: ignore[misc]

    def _remove(self, name: str) -> None:
        try:
            self.system.rm_file(self._at(name))
        except FileNotFoundError:
            return

    def remove_folder(self, name: str) -> None:
        self.remove(list(self.names(name)))

    def children(self, name: str = "") -> list[str]:
        self.system.invalidate_cache()
        try:
            found = self.system.ls(self._at(name), detail=False)
        except FileNotFoundError:
            return []
        return sorted(
            {
                entry.rstrip("/").rsplit("/", 1)[-1]
                for entry in found
                if entry.rstrip("/") != self._at(name)
            }
        )

    def names(self, under: str = "") -> Iterator[str]:
        self.system.invalidate_cache()
        for entry in sorted(self.system.find(self._at(under))):
            yield entry.removeprefix(self.root).lstrip("/")

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        self.system.invalidate_cache()
        names = list(names)
        sizes = self.each([lambda name=name: self._size(name) for name in names])  # type: ignore[misc]
        return {name: size for name, size in zip(names, sizes, strict=True) if size is not None}

    def _size(self, name: str) -> int | None:
        try:
            return int(self.system.size(self._at(name)))
        except FileNotFoundError:
            return None

    def size(self) -> int:
        self.system.invalidate_cache()
        return sum(
            int(entry["size"] or 0) for entry in self.system.find(self.root, detail=True).values()
        )

    def partial(self) -> Iterator[str]:
        return iter(())  # an upload that was broken off leaves no object

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(lambda job: job(), jobs))


def replace_file(root: Path, name: str, data: Any, durable: bool = False) -> None:
    """Make or replace a file below a folder in one step. A crash leaves the old file, or the new
    one, never a part.

    Raises FileNotFoundError where the folder itself is gone: what was deleted or moved is not to
    come back as a ruin.
    """
    path = root / name
    _make_folders(root, path.parent)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        _sync(path.parent)


def _make_folders(root: Path, path: Path) -> None:
    """Make a folder below `root` with those above it, but not `root`."""
    if path == root or path.is_dir():
        return
    _make_folders(root, path.parent)
    path.mkdir(exist_ok=True)


def link_file(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy of it where the file system has no
    links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _sync_file_system(path: Path) -> bool:
    """Write out all that waits for the disk of `path`, where the system can: Linux.

    For many small files this is one commit of the file system's journal instead of one for each,
    and several times as quick.
    """
    if sys.platform != "linux":
        return False
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None or not path.exists():
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        if syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)
    return True


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle of a folder; its names are written with the files
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def failures() -> tuple[type[Exception], ...]:
    """What a failed operation raises: OSError, and what clients of object stores raise that is
    none."""
    kinds: list[type[Exception]] = [OSError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


def disk_error(error: Exception, path: str | Path) -> StoreError:
    """The error that says what one of `failures` means for the writer of a world."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the disk of {path} is full; the tiles written so far are valid",
            "free space and --resume",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(
            f"{path} is read-only for this user ({error})", "give a folder you may write to"
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return gone(path)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return StoreError(f"{path} cannot be written: {text}", "check the folder and --resume")


def gone(path: str | Path) -> StoreError:
    """The error of a world that was deleted or moved while somebody worked on it."""
    return StoreError(
        f"world {path} is gone: it was deleted or moved", "put it back, or generate it again"
    )


def read_json(path: str | Path) -> dict:
    """A JSON object from a file. Raises MissingFileError or InputError if there is none."""
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path} does not exist", "give the path of a JSON file with cameras"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON: {error}", "give a JSON file with cameras"
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object", "give a JSON file with cameras")
    return document
