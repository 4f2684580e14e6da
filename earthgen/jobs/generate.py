"""The main job: from a Job to a world on disk."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthgen.engine.pool import Pool
from earthgen.engine.scheduler import Totals, check_tiles, generate_tiles, start_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import SizeError, StoreError, StoreExistsError
from earthgen.files import HIDDEN, Folder, LocalFolder, RemoteFolder, folder
from earthgen.jobs import extend as extension
from earthgen.jobs.forecast import YES_COLUMNS, estimate
from earthgen.jobs.identity import changes, require_none
from earthgen.jobs.job import Job, make_job, stored_settings
from earthgen.jobs.prepare import PreparedJob, place, prepare
from earthgen.progress import Listener, Progress
from earthgen.world.lock import LOCK, lock_world
from earthgen.world.store import Store, create_store, open_store
from earthgen.world.world import World
from geo_io.frame import Frame


@dataclass(frozen=True)
class Report:
    """What a run did."""

    world: World
    frame: Frame
    tiles: int
    seconds: float
    warnings: list[str] = field(default_factory=list)
    work: dict[str, float] = field(default_factory=dict)  # seconds by stage, summed over workers


def generate(*, out: str | Path, listener: Listener | None = None, **settings: Any) -> World:
    """Generate a world; the settings are those of `earthgen.jobs.job.Job` and of the command line.

    `semantics`, `dem`, `dsm` and `image` may be paths, a GeoDataFrame (semantics) or an
    xarray.DataArray with a CRS. Returns the open world. Raises `geo_io.errors.EarthgenError` and
    its children; an existing world at `out` is left as it was by any of them. With `workers` above
    1, a script needs the usual `if __name__ == "__main__":`, since worker processes import it.

    >>> world = earthgen.generate(bbox=(11.59, 50.00, 11.60, 50.01), semantics="landuse.shp", out="w.zarr")
    """
    return run(make_job({"out": out, **settings}), listener).world


def run(job: Job, listener: Listener | None = None) -> Report:
    """Run a job. Everything about the inputs is checked before anything is written."""
    began = time.monotonic()
    progress = Progress(listener)
    _put_back(job.out)
    exists = _check_output(job)
    before = open_store(job.out) if job.extend and exists else None
    if before is not None:
        job = extension.match_job(job, before)
    placed = place(job)
    if before is not None:
        placed = extension.union_frame(before, placed), None
    size = estimate(job, placed[0])
    if size.columns > YES_COLUMNS and not job.yes:
        raise SizeError(
            f"the job is large: {size}",
            "give --yes to run it, a smaller --bbox or larger --voxel-size",
        )
    with start_pool(
        job.workers, job.scheduler
    ) as pool:  # processes start while the inputs are read
        plan = prepare(job, progress, placed)
        totals = _fill(job, plan, before, exists, pool, progress)
    store = open_store(job.out)
    return Report(
        World(store),
        plan.frame,
        len(store.done()),
        time.monotonic() - began,
        plan.warnings,
        totals.seconds,
    )


def _fill(
    job: Job, plan: PreparedJob, before: Store | None, exists: bool, pool: Pool, progress: Progress
) -> Totals:
    """Make the world of a plan, or what is missing of it.

    before : the world that is extended; exists : whether there is one at `job.out`
    """
    beside = exists and (job.overwrite or before is not None)
    target = _beside(job.out, ".new") if beside else job.out
    with lock_world(
        job.out
    ) as held:  # also where a new world grows beside the old one: both are this job's
        if job.overwrite and beside:
            _remove(target)  # an overwrite that was broken off; nobody else writes there
        if _unborn(held.where):
            _clear(held.where)
        if before is not None:
            if open_store(job.out).frame != before.frame:
                raise StoreError(
                    f"{job.out} was extended by another process in this moment",
                    "give the command again",
                )
            store = extension.open_or_create_extended(before, target, plan, job)
        else:
            store = _resumed(job, plan) if job.resume and exists else _created(job, plan, target)
        pool.begin(WorkerContext(plan.engine, target, job.tile_size, job.plugin_dir))
        if job.resume and exists:
            _forget_damaged(store, pool, progress, plan)
        totals = generate_tiles(store, plan.engine.graph(job.tile_size), pool, progress, held.renew)
        if totals.clipped:
            plan.warnings.append(
                f"{totals.clipped:,} voxels lay outside the height band {job.band} m and were left out: widen `band`"
            )
        _note_warnings(store, plan.warnings)
        if target != job.out:
            _swap(Path(target), Path(job.out))
    return totals


def _check_output(job: Job) -> bool:
    """Whether there is a world at --out that the job may go on with; raises where it must not be
    touched."""
    out = job.out
    files = folder(out)
    remote = isinstance(files, RemoteFolder)
    if not remote and not Path(out).parent.is_dir():
        raise StoreError(
            f"folder {Path(out).parent} of --out does not exist",
            "make it first, or give another --out",
        )
    if not files.exists():
        if job.extend:
            raise StoreError(
                f"there is no world at {out} to extend", "leave --extend away to make one"
            )
        return False
    if _unborn(files) and not job.extend:
        return False
    # The index array is made before the attributes: a world that was broken off while it was made
    # has it too.
    is_world = files.exists("zarr.json") and files.exists("index/zarr.json")
    if not is_world and files.children():
        raise StoreExistsError(f"{out} exists and is not an earthgen world", "give another --out")
    if is_world and not (job.overwrite or job.resume or job.extend):
        raise StoreExistsError(
            f"{out} exists already",
            "give --resume to finish it, --extend to grow it, --overwrite to replace it, or another --out",
        )
    if is_world and remote and (job.overwrite or job.extend):
        raise StoreError(
            f"{out} is an object store, where a world cannot be replaced in one step",
            "write to another --out, and remove the old world after",
        )
    return is_world


def _unborn(files: Folder) -> bool:
    """Whether a crash broke a world off while it was being made: it holds nothing yet. A lock
    says that it was ours."""
    if not files.exists(LOCK):
        return False
    try:
        return "earthgen" not in json.loads(files.read("zarr.json") or b"{}").get("attributes", {})
    except (ValueError, AttributeError):
        return False


def _clear(files: Folder) -> None:
    """Remove what was made of a world, but its lock."""
    files.remove([name for name in files.names() if not name.startswith(HIDDEN)])
    for name in files.children():
        if name != "index":
            files.remove_folder(name)


def _put_back(out: str | Path) -> None:
    """Put the old world back, if a crash came in the moment in which a new one was taking its
    place."""
    if (
        not isinstance(folder(out), LocalFolder)
        or Path(out).exists()
        or not _beside(out, ".old").exists()
    ):
        return
    with lock_world(_beside(out, ".old")):  # a living process does it itself
        _beside(out, ".old").rename(out)


def _beside(out: str | Path, suffix: str) -> Path:
    path = Path(out)
    return path.with_name(path.name + suffix)


def _remove(path: str | Path) -> None:
    if Path(path).exists():
        shutil.rmtree(path)


def _created(job: Job, plan: PreparedJob, path: str | Path) -> Store:
    attributes = {
        "identity": plan.identity,
        "provenance": plan.provenance,
        "settings": stored_settings(job),
    }
    return create_store(path, plan.frame, job.tile_size, attributes, plan.sh_degree)


def _resumed(job: Job, plan: PreparedJob) -> Store:
    store = open_store(job.out, mode="r+")
    changed = changes(store, plan)
    if store.tile_size != job.tile_size:
        changed.append(f"tile_size ({store.tile_size} there, {job.tile_size} now)")
    remedy = "give the settings it was made with, or --overwrite, or another --out"
    require_none(store, changed, "resumed", remedy)
    store.sweep()
    lost = store.mend_index()
    if lost:
        plan.warnings.append(
            f"{lost} damaged parts of the index were dropped: their tiles are made again"
        )
    return store


def _forget_damaged(store: Store, pool: Pool, progress: Progress, plan: PreparedJob) -> None:
    """Tiles that a crash or a bad disk harmed are made again."""
    wrong = check_tiles(store, pool, progress)
    for (tx, ty), problem in wrong.items():
        warning = f"tile {tx}, {ty} was damaged and is made again: {problem}"
        plan.warnings.append(warning)
        progress.warn(warning)
    store.forget(list(wrong))


def _note_warnings(store: Store, warnings: list[str]) -> None:
    attributes = dict(store.root.attrs["earthgen"])
    attributes["provenance"] = {**attributes["provenance"], "warnings": warnings}
    store.root.attrs["earthgen"] = attributes


def _swap(new: Path, out: Path) -> None:
    """Put a finished world in the place of the old one; the old one goes last."""
    old = _beside(out, ".old")
    _remove(old)
    out.rename(old)
    new.rename(out)
    shutil.rmtree(old)


__all__ = ["Report", "generate", "run"]
