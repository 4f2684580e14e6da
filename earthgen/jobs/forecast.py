"""What a job would take, before anything runs."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from earthgen.engine.compute import TaskStats
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.files import folder
from earthgen.jobs import extend as extension
from earthgen.jobs.job import Job
from earthgen.jobs.prepare import PreparedJob, place, prepare
from earthgen.progress import Listener, Progress
from earthgen.stages.backends import Cost
from earthgen.stages.block import Block
from earthgen.world.layout import OBJECTS_PER_TILE
from earthgen.world.store import Store, create_store, open_store, single_thread
from geo_io.frame import Frame

YES_COLUMNS = 10**9
"""A job of more columns than this (1000 km2 at 1 m) wants an explicit yes."""

# Measured by `python -m benchmarks.generate` on two cores; only the estimate depends on them.
BYTES_PER_COLUMN = 47.0
SECONDS_PER_COLUMN = 10e-6


@dataclass(frozen=True)
class Estimate:
    """What a job would take. bytes and seconds are rough: from measured figures of a column of
    voxels."""

    frame: Frame
    tiles: int
    columns: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.frame.area_km2:,.1f} km2, {self.columns:,} columns in {self.tiles:,} tiles, "
            f"about {self.bytes / 1e9:,.1f} GB on disk and {self.seconds / 3600:,.1f} h on this kind of machine"
        )


def estimate(job: Job, frame: Frame | None = None) -> Estimate:
    """What a job would take, from its frame alone."""
    frame = frame or place(job)[0]
    columns = frame.nx * frame.ny
    tiles = (-(-frame.x[1] // job.tile_size) - frame.x[0] // job.tile_size) * (
        -(-frame.y[1] // job.tile_size) - frame.y[0] // job.tile_size
    )
    return Estimate(
        frame,
        tiles,
        columns,
        int(columns * BYTES_PER_COLUMN),
        columns * SECONDS_PER_COLUMN / max(job.workers, 1),
    )


MEMORY_PER_WORKER = 900_000_000
"""Bytes; measured by `python -m benchmarks.generate` for the procedural backends at 1 m voxels."""

T = TypeVar("T")


@dataclass(frozen=True)
class Forecast:
    """What a job would take.

    Attributes
    ----------
    frame : where the world is
    tasks : their number by stage, the tiles last; a stage that is fused into another has none of
        its own
    there : tiles that a world to resume or to extend keeps
    objects, bytes : that are written besides those
    memory : bytes of all workers together
    seconds : with the job's workers
    basis : what the figures rest on
    """

    frame: Frame
    tasks: dict[str, int]
    workers: int
    objects: int
    bytes: int
    memory: int
    seconds: float
    basis: str
    there: int = 0

    @property
    def tiles(self) -> int:
        return self.tasks[TILE]


def plan(job: Job, sample: int = 0, listener: Listener | None = None) -> Forecast:
    """What a job would take; nothing is written where it would write.

    sample : tiles that are made, in a temporary folder, to measure what a tile takes; 0 for figures
        of the
        procedural backends on an ordinary machine, without making anything
    """
    progress = Progress(listener)
    before = (
        open_store(job.out) if job.extend or (job.resume and folder(job.out).exists()) else None
    )
    if before is not None and job.extend:
        job = extension.match_job(job, before)
    placed = place(job)
    if before is not None and job.extend:
        placed = extension.union_frame(before, placed), None
    prepared = prepare(job, progress, placed)
    graph = prepared.engine.graph(job.tile_size)
    frame, tasks = placed[0], graph.counts()
    there = 0 if before is None else _kept(before, frame)
    left = (tasks[TILE] - there) / tasks[TILE]
    columns = int(frame.nx * frame.ny * left)
    objects = (tasks[TILE] - there) * OBJECTS_PER_TILE
    if not sample:
        costs = _costs(prepared)
        memory = MEMORY_PER_WORKER + max((cost.memory for cost in costs), default=0)
        rate = SECONDS_PER_COLUMN + sum(cost.seconds for cost in costs)
        basis = [
            "figures of the procedural backends at 1 m on an ordinary core",
            *(cost.basis for cost in costs),
        ]
        return Forecast(
            frame,
            tasks,
            job.workers,
            objects,
            int(columns * BYTES_PER_COLUMN),
            memory * job.workers,
            columns * rate / job.workers,
            "; ".join(dict.fromkeys(basis)),
            there,
        )
    made = spread(list_of_tiles(graph), sample)
    seconds, size, area = _measure(prepared, graph, job, made, progress)
    work = sum(seconds.get(name, 0.0) * count for name, count in tasks.items()) * left
    return Forecast(
        frame,
        tasks,
        job.workers,
        objects,
        int(size / area * columns),
        _peak() * job.workers,
        work / job.workers,
        f"{len(made)} tile{'s' * (len(made) != 1)} made here",
        there,
    )


def _costs(prepared: PreparedJob) -> list[Cost]:
    """What the backends say that they take; rules say nothing."""
    backends = (prepared.engine.geometry, prepared.engine.texture)
    return [backend.cost() for backend in backends if hasattr(backend, "cost")]


def _kept(before: Store, frame: Frame) -> int:
    """How many tiles of a world stay when it is grown to a frame: those that lie in it as far as
    they did."""
    if before.frame == frame:
        return len(before.done())
    size = before.tile_size
    parts = (
        (before.tile_frame(*tile), frame.tile(*tile, size).intersection(frame))
        for tile in before.done()
    )
    return sum(old == new for old, new in parts)


def list_of_tiles(graph: Graph) -> Sequence[Task]:
    """The tiles as a sequence that is not held: a million tiles take no memory."""
    (west, east), (south, north) = graph.range[TILE]
    return _Tiles(west, south, east - west, north - south)


@dataclass(frozen=True)
class _Tiles(Sequence[Task]):
    west: int
    south: int
    nx: int
    ny: int

    def __len__(self) -> int:
        return self.nx * self.ny

    def __getitem__(self, n: int) -> Task:  # type: ignore[override]
        return Task(TILE, self.west + n % self.nx, self.south + n // self.nx)


def spread(tiles: Sequence[T], count: int) -> list[T]:
    """`count` tiles, evenly over the world."""
    count = min(count, len(tiles))
    return [tiles[(2 * n + 1) * len(tiles) // (2 * count)] for n in range(count)]


def _measure(
    prepared: PreparedJob, graph: Graph, job: Job, tiles: list[Task], progress: Progress
) -> tuple[dict[str, float], int, int]:
    """Mean seconds of a task by stage, bytes and columns of the tiles."""
    single_thread()
    spent: dict[str, list[float]] = {}
    size = area = 0
    progress.start("sample", len(tiles))
    with tempfile.TemporaryDirectory() as place:
        attributes = {"identity": prepared.identity, "provenance": {}, "settings": {}}
        path = Path(place) / "sample.zarr"
        store = create_store(path, prepared.frame, job.tile_size, attributes, prepared.sh_degree)
        for tile in tiles:
            known: dict[Task, Block] = {}

            def fetch(task: Task, known: dict[Task, Block] = known) -> Block:
                if task not in known:
                    account = TaskStats()
                    known[task] = prepared.engine.block(task, graph, fetch, account)
                    spent.setdefault(task.stage, []).append(sum(account.seconds.values()))
                return known[task]

            for need in graph.needs(tile):
                fetch(need)
            began = time.perf_counter()
            entry = store.write(tile.x, tile.y, prepared.engine.tile(tile.x, tile.y, graph, fetch))
            spent.setdefault(TILE, []).append(time.perf_counter() - began)
            size += entry.bytes
            frame = store.tile_frame(tile.x, tile.y)
            area += frame.nx * frame.ny
            progress.step(f"tile {tile.x}, {tile.y}")
    # The first task of a kind also compiles or loads what is compiled.
    means = {
        name: sum(times[1:] or times) / len(times[1:] or times) for name, times in spent.items()
    }
    return means, size, area


def _peak() -> int:
    """Peak memory of this process, bytes; the usual figure where the system does not tell, as
    Windows."""
    try:
        import resource
    except ImportError:
        return MEMORY_PER_WORKER
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
