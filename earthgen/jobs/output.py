"""Where the world of a job goes: everything that is decided about `out`, in one place.

`open_output` looks at the place once, before any input is read. `Output.begin` locks it, makes,
opens or extends the world, and puts a world that was made beside an older one in its place at the
end. The older world is whole until that moment.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthgen.errors import StoreError, StoreExistsError
from earthgen.files import HIDDEN, Folder, LocalFolder, RemoteFolder, folder
from earthgen.jobs.extend import match_job, open_or_create_extended, union_frame
from earthgen.jobs.identity import changes, require_unchanged, with_machine_options
from earthgen.jobs.job import Job, stored_settings
from earthgen.jobs.prepare import Placement, PreparedJob, place
from earthgen.jobs.privacy import public, public_settings
from earthgen.staging import old_folder, put_back, real_place, replace_folder, write_error
from earthgen.world.lock import LOCK, WorldLock, lock_world
from earthgen.world.store import Store, create_store, open_store


@dataclass(frozen=True)
class Output:
    """The place of a job's world.

    Attributes
    ----------
    job : Job
        With the lattice of the world that it extends, if it extends one.
    exists : bool
        Whether there is a world at `job.out`.
    before : Store or None
        The world that is extended.
    """

    job: Job
    exists: bool
    before: Store | None

    @property
    def resumes(self) -> bool:
        """Whether tiles of an interrupted run of this very job stay."""
        return self.job.resume and self.exists

    def place(self) -> Placement:
        """Find the frame of the job; that of an extension holds the old world too."""
        placement = place(self.job)
        if self.before is None:
            return placement
        return Placement(union_frame(self.before, placement.frame))

    @contextmanager
    def begin(self, prepared: PreparedJob) -> Iterator[tuple[Store, WorldLock]]:
        """Lock the place and open the world to be filled; on success it takes its final place.

        Raises
        ------
        StoreError
            If the existing world was made with other settings or inputs, or another process works
            on it.
        """
        job = self.job
        beside = self.exists and (job.overwrite or self.before is not None)
        path = _beside(job.out, ".new") if beside else job.out
        with lock_world(job.out) as lock:  # it also covers the world that grows beside the old one
            if isinstance(lock.where, LocalFolder):
                put_back(Path(job.out))  # what an interrupted replacement left
            if job.overwrite and beside:
                _remove(path)  # of an interrupted overwrite; the lock is ours
            if _is_stillborn(lock.where):
                _clear(lock.where)
            yield self._open(prepared, path), lock
            if path != job.out:
                replace_folder(Path(path), Path(job.out))

    def _open(self, prepared: PreparedJob, path: str | Path) -> Store:
        job = self.job
        if self.before is not None:
            if open_store(job.out).frame != self.before.frame:
                raise StoreError(
                    f"{job.out} was extended by another process in this moment", "run it again"
                )
            return open_or_create_extended(self.before, path, prepared, job)
        if self.resumes:
            return _resumed(job, prepared)
        attributes = {
            "identity": prepared.identity,
            "provenance": public(prepared.provenance, job),
            "settings": public_settings(stored_settings(job), job),
        }
        degree = prepared.backends.texture.sh_degree
        return create_store(path, prepared.frame, job.tile_size, attributes, degree)


def open_output(job: Job) -> Output:
    """Look at the place of a job's world.

    Raises
    ------
    StoreError
        If a world cannot be written there.
    StoreExistsError
        If something exists there and the job says neither to resume, extend nor overwrite it.
    """
    _put_back(job.out)
    return _output(job, _check(job))


def inspect_output(job: Job) -> Output:
    """Look at the place of a job's world without writing to it, for a forecast.

    Raises
    ------
    StoreError
        If the job extends a world that does not exist.
    """
    exists = (job.extend or job.resume) and folder(job.out).exists()
    if job.extend and not exists:
        raise _nothing_to_extend(job)
    return _output(job, exists)


def _output(job: Job, exists: bool) -> Output:
    if not (exists and (job.extend or job.resume)):
        return Output(job, exists, None)
    before = open_store(job.out)
    job = with_machine_options(job, before.identity)
    return Output(match_job(job, before), exists, before) if job.extend else Output(job, True, None)


def _nothing_to_extend(job: Job) -> StoreError:
    return StoreError(f"there is no world at {job.out} to extend", "leave `extend` out")


def _check(job: Job) -> bool:
    """Whether there is a world at `out` that the job may continue; raises if it must not."""
    out = job.out
    files = folder(out)
    remote = isinstance(files, RemoteFolder)
    if not remote and not Path(out).parent.is_dir():
        raise StoreError(
            f"folder {Path(out).parent} of `out` does not exist", "make it first, or change `out`"
        )
    if not files.exists():
        if job.extend:
            raise _nothing_to_extend(job)
        if not remote:
            _require_writable(Path(out))
        return False
    if not remote and Path(out).is_file():
        raise StoreExistsError(f"{out} exists and is not an earthgen world", "change `out`")
    if _is_stillborn(files) and not job.extend:
        return False
    # The index array is made before the attributes, so that a world whose making was interrupted
    # has it too.
    is_world = files.exists("zarr.json") and files.exists("index/zarr.json")
    if not is_world and files.children():
        raise StoreExistsError(f"{out} exists and is not an earthgen world", "change `out`")
    if is_world and not (job.overwrite or job.resume or job.extend):
        raise StoreExistsError(
            f"{out} exists already",
            "give `resume` to finish it, `extend` to grow it, `overwrite` to replace it, "
            "or another `out`",
        )
    if is_world and remote and (job.overwrite or job.extend):
        raise StoreError(
            f"{out} is in an object store, where a world cannot be replaced in one step",
            "write to another `out`, and remove the old world afterwards",
        )
    return is_world


def _require_writable(out: Path) -> None:
    """Raise StoreError if nothing can be made beside `out`; only an attempt tells."""
    try:
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent).cleanup()
    except OSError as error:
        raise write_error(error, out) from error


def _is_stillborn(files: Folder) -> bool:
    """Whether a crash interrupted the creation of a world before it held anything.

    The lock shows that earthgen created the folder; a folder without any file is free too, such as
    one with an empty `index`.
    """
    if not files.exists(LOCK):
        return next(iter(files.names()), None) is None
    try:
        return "earthgen" not in json.loads(files.read("zarr.json") or b"{}").get("attributes", {})
    except (ValueError, AttributeError, RecursionError):
        return False


def _clear(files: Folder) -> None:
    """Remove a stillborn world, except its lock."""
    files.remove([name for name in files.names() if not name.startswith(HIDDEN)])
    for name in files.children():
        if name != "index":
            files.remove_folder(name)


def _put_back(out: str | Path) -> None:
    """Put the old world back if a crash came while a new one was taking its place."""
    if not isinstance(folder(out), LocalFolder) or Path(out).exists():
        return
    old = old_folder(Path(out))
    if old.exists():
        with lock_world(old):  # a living process finishes its swap itself
            put_back(Path(out))


def _beside(out: str | Path, suffix: str) -> Path:
    path = real_place(Path(out))
    return path.with_name(f".{path.name}{suffix}")


def _remove(path: str | Path) -> None:
    if Path(path).exists():
        shutil.rmtree(path)


def _resumed(job: Job, prepared: PreparedJob) -> Store:
    store = open_store(job.out, mode="r+")
    changed = changes(store, prepared)
    if store.tile_size != job.tile_size:
        changed.append(f"tile_size ({store.tile_size} before, {job.tile_size} now)")
    remedy = "give the settings it was made with, or `overwrite`, or another `out`"
    require_unchanged(store, changed, "resumed", remedy)
    store.sweep()
    lost = store.repair_index()
    if lost:
        prepared.warnings.append(
            f"{lost} damaged parts of the index were removed; their tiles are generated again"
        )
    return store


def record_warnings(store: Store, warnings: list[str]) -> None:
    """Write the warnings of a run into the provenance of its world."""
    attributes: dict[str, Any] = dict(store.root.attrs["earthgen"])
    attributes["provenance"] = {**attributes["provenance"], "warnings": warnings}
    store.describe(attributes)
