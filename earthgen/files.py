"""File operations that a world needs, on a local folder or on an object store.

An object store is given by a URL that fsspec understands: s3://, gs://, memory://. Names inside a
folder are relative, with "/" between their parts. A file appears complete or not at all: object
stores guarantee this, and `LocalFolder.write` does it on a disk.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from earthgen.errors import StoreError, StoreFullError
from geo_io.errors import InputError, MissingFileError
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import TEXT_BYTES, bounded_text

PARTIAL = ".partial"
"""Ending of the names of files that are being written, also by zarr."""

HIDDEN = "index/."
"""Beginning of the names of files that are not part of the Zarr hierarchy.

Zarr libraries list the folder of a group and warn about what is not an array. They do not list the
folder of an array.
"""

REQUESTS = 16
"""Number of simultaneous requests to an object store."""

R = TypeVar("R")


class Folder(Protocol):
    """A folder with everything below it. Operations raise the exceptions of `failures`."""

    @property
    def path(self) -> Path | str:
        """Its Path, or its URL."""

    def exists(self, name: str = "") -> bool:
        """Return whether a file exists, or with "" the folder itself."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""

    def write(self, name: str, data: bytes, durable: bool = False) -> None:
        """Create or replace a file in one step.

        Parameters
        ----------
        name : str
        data : bytes
        durable : bool
            Return only when the file would survive a power cut.

        Raises
        ------
        FileNotFoundError
            If this folder is on a disk and was deleted or moved.
        """

    def sync(self, names: Iterable[str]) -> None:
        """Return when those of the files that exist would survive a power cut."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of the files that exist."""

    def remove_folder(self, name: str) -> None:
        """Remove a folder with its content, if it exists."""

    def children(self, name: str = "") -> list[str]:
        """Return the sorted names of the files and folders in a folder; [] if it does not exist."""

    def names(self, under: str = "") -> Iterator[str]:
        """Yield the names of all files below a folder, sorted within each folder."""

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those of the files that exist, bytes."""

    def size(self, of: Callable[[str], bool] | None = None) -> int:
        """Return the size of all files together, or of those whose name `of` accepts, bytes."""

    def partial(self) -> Iterator[str]:
        """Yield the files that an interrupted write left; looks through all folders."""

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        """Make calls that read or write here, simultaneously on an object store; return their
        results."""


def folder(path: str | Path) -> Folder:
    """Return the folder at a path or URL, which need not exist.

    Raises
    ------
    StoreError
        If the URL's scheme is unknown, or needs a package that is not installed.
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


def require_file(path: Path) -> None:
    """Check that what lies at a path, if anything, is a file or a folder, links followed.

    A pipe or a device in a world of a stranger would be read for ever.

    Raises
    ------
    StoreError
        If it is not, or is a file of metadata of more than `TEXT_BYTES`.
    """
    try:
        state = path.stat()
    except (OSError, ValueError):
        return  # who opens it says so
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise StoreError(f"{path} is no file, but a pipe or a device", "remove it")
    if path.name == "zarr.json" and state.st_size > TEXT_BYTES:
        raise StoreError(
            f"{path} has {state.st_size:,} bytes, more than {TEXT_BYTES:,}", "generate it again"
        )


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    path: Path

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes | None:
        try:
            require_file(self.path / name)
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
                # Up to this folder: any of them may be new.
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
        for parent, folders, files in os.walk(self.path / under):
            folders.sort()
            base = Path(parent).relative_to(self.path).as_posix()
            for name in sorted(files):
                yield name if base == "." else f"{base}/{name}"

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        sizes = {}
        for name in names:
            try:
                sizes[name] = (self.path / name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return sizes

    def size(self, of: Callable[[str], bool] | None = None) -> int:
        return sum(self.sizes(filter(of, self.names()) if of else self.names()).values())

    def partial(self) -> Iterator[str]:
        return (name for name in self.names() if name.endswith(PARTIAL))

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        return [job() for job in jobs]


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix of an object store, through fsspec. Object stores keep what is written."""

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
            entries = self.system.ls(self._at(name), detail=False)
        except FileNotFoundError:
            return []
        paths = {entry.rstrip("/") for entry in entries} - {self._at(name)}
        return sorted({path.rsplit("/", 1)[-1] for path in paths})

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

    def size(self, of: Callable[[str], bool] | None = None) -> int:
        self.system.invalidate_cache()
        return sum(
            int(entry["size"] or 0)
            for name, entry in self.system.find(self.root, detail=True).items()
            if of is None or of(name.removeprefix(self.root).lstrip("/"))
        )

    def partial(self) -> Iterator[str]:
        return iter(())  # an interrupted upload leaves no object

    def each(self, jobs: Sequence[Callable[[], R]]) -> list[R]:
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(lambda job: job(), jobs))


def replace_file(root: Path, name: str, data: Any, durable: bool = False) -> None:
    """Create or replace a file below a folder in one step; a crash leaves the old or the new file.

    Parameters
    ----------
    root : Path
        The folder.
    name : str
        Relative to it; folders between them are created.
    data : bytes or buffer
    durable : bool
        Return only when the file would survive a power cut.

    Raises
    ------
    FileNotFoundError
        If `root` does not exist: a world that was deleted or moved must not reappear in parts.
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
    """Create a folder below `root` with its parents, but not `root`."""
    if path == root or path.is_dir():
        return
    _make_folders(root, path.parent)
    path.mkdir(exist_ok=True)


def link_file(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _sync_file_system(path: Path) -> bool:
    """Flush the whole file system of `path`, if the operating system can: Linux.

    For many small files this is several times faster, because the journal is committed only once.
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
        return  # Windows gives no handle of a folder; names are written with the files
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of failed operations: OSError, and those of object-store clients."""
    classes: list[type[Exception]] = [OSError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")):
        if module in sys.modules:
            classes.append(getattr(sys.modules[module], name))
    return tuple(classes)


def disk_error(error: Exception, path: str | Path) -> StoreError:
    """Return the error for a write that failed with one of `failures`."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(
            f"the disk of {path} is full; the tiles written so far are valid",
            "free space, then `resume`",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(
            f"{path} is read-only for this user ({error})", "give a folder that you can write to"
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return missing_world(path)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return StoreError(f"{path} cannot be written: {text}", "check the folder, then `resume`")


def missing_world(path: str | Path) -> StoreError:
    """Return the error for a world that was deleted or moved while it was used."""
    return StoreError(f"world {path} was deleted or moved", "put it back, or generate it again")


def read_json(path: str | Path) -> dict:
    """Read a JSON object from a file with cameras.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError
        If it cannot be read, or holds something else.
    """
    if not Path(path).exists():
        raise MissingFileError(
            f"{path} does not exist", "give the path of a JSON file with cameras"
        )
    with damaged_file(f"{path} cannot be read as JSON", "give a JSON file with cameras"):
        document = json.loads(bounded_text(Path(path)))
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object", "give a JSON file with cameras")
    return document
