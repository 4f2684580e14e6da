"""The main job: from a Job to a world on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthgen.engine.pool import Pool
from earthgen.engine.scheduler import Totals, check_tiles, generate_tiles, start_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import SizeError
from earthgen.jobs.compiling import notice
from earthgen.jobs.forecast import YES_COLUMNS, estimate
from earthgen.jobs.job import Job, make_job
from earthgen.jobs.output import Output, open_output, record_warnings
from earthgen.jobs.prepare import PreparedJob, prepare
from earthgen.jobs.privacy import public
from earthgen.progress import Listener, Progress
from earthgen.stages.backends import Condition
from earthgen.world.store import Store, open_store
from earthgen.world.world import World
from geo_io.frame import Frame
from geo_io.safety.access import allowing


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    world : World
    frame : Frame
    tiles : int
        Finished tiles of the world.
    seconds : float
        Wall time.
    warnings : list of str
    work : dict of str to float
        Seconds per stage, summed over workers.
    conditions : mapping of str to Condition
        The opened inputs, to be read on.
    """

    world: World
    frame: Frame
    tiles: int
    seconds: float
    warnings: list[str] = field(default_factory=list)
    work: dict[str, float] = field(default_factory=dict)
    conditions: Mapping[str, Condition] = field(default_factory=dict)


def generate(*, out: str | Path, listener: Listener | None = None, **settings: Any) -> World:
    """Generate a world.

    With `workers` above 1, a script needs the usual `if __name__ == "__main__":`, because worker
    processes import it.

    Parameters
    ----------
    out : path or URL
        Where the world goes.
    listener : callable, optional
        Called with an `earthgen.progress.Event` for each step.
    **settings
        The settings of `earthgen.Job`, which are those of the command line. `semantics`, `dem`,
        `dsm` and `image` may be paths, a GeoDataFrame (semantics) or an xarray.DataArray with a
        CRS.

    Returns
    -------
    World
        Open for reading.

    Raises
    ------
    EarthgenError
        If a setting or an input is wrong. A world that exists at `out` stays as it was.

    Examples
    --------
    >>> world = earthgen.generate(
    ...     bbox=(11.59, 50.00, 11.60, 50.01), semantics="landuse.shp", out="w.zarr"
    ... )
    """
    return run(make_job({"out": out, **settings}), listener).world


def run(job: Job, listener: Listener | None = None) -> Report:
    """Run a job. Everything about the inputs is checked before anything is written."""
    with allowing(job.allow_network, job.allow_linked):
        return _run(job, listener)


def _run(job: Job, listener: Listener | None) -> Report:
    began = time.monotonic()
    progress = Progress(listener)
    output = open_output(job)
    placement = output.place()
    size = estimate(output.job, placement.frame)
    if size.columns > YES_COLUMNS and not job.yes:
        raise SizeError(
            f"the job is large: {size}",
            "give `yes` to run it, a smaller `bbox` or larger `voxel_size`",
        )
    with start_pool(job.workers, job.scheduler) as pool:  # processes start while inputs are read
        prepared = prepare(output.job, progress, placement)
        with output.begin(prepared) as (store, lock):
            totals = _fill(output, prepared, store, pool, progress, lock.renew)
    store = open_store(job.out)
    return Report(
        World(store),
        prepared.frame,
        len(store.finished_tiles()),
        time.monotonic() - began,
        prepared.warnings,
        totals.seconds,
        prepared.engine.conditions,
    )


def _fill(
    output: Output,
    prepared: PreparedJob,
    store: Store,
    pool: Pool,
    progress: Progress,
    on_tick: Any,
) -> Totals:
    """Make the tiles that are missing, and again those that are damaged."""
    job = output.job
    if (text := notice()) is not None:
        progress.say(text)
    pool.begin(WorkerContext(prepared.engine, store.path, job.tile_size, job.plugin_dir))
    if output.resumes:
        for (tx, ty), problem in _forget_damaged(store, pool, progress).items():
            warning = f"tile {tx}, {ty} was damaged and is generated again: {problem}"
            prepared.warnings.append(warning)
            progress.warn(warning)
    totals = generate_tiles(store, prepared.engine.graph(job.tile_size), pool, progress, on_tick)
    if totals.clipped:
        prepared.warnings.append(
            f"{totals.clipped:,} voxels lay outside the height band {job.band} m and were left "
            "out: widen `band`"
        )
    record_warnings(store, public(prepared.warnings, job))
    return totals


def _forget_damaged(store: Store, pool: Pool, progress: Progress) -> dict[tuple[int, int], str]:
    """Take tiles that a crash or a bad disk harmed out of the index; what is wrong, by tile."""
    wrong = check_tiles(store, pool, progress)
    store.forget(list(wrong))
    return wrong
