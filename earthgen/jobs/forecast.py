"""What a job would take, before anything runs."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from earthgen.engine.compute import TaskStats
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.jobs.job import Job
from earthgen.jobs.output import inspect_output
from earthgen.jobs.prepare import PreparedJob, place, prepare
from earthgen.progress import Listener, Progress
from earthgen.stages.block import Block
from earthgen.world.layout import OBJECTS_PER_TILE
from earthgen.world.store import Store, create_store, open_store, single_thread
from geo_io.frame import Frame

YES_COLUMNS = 10**9
"""A job of more columns than this (1000 km2 at 1 m) needs an explicit yes."""

# Measured by `python -m benchmarks.generate` on two cores; only the estimate depends on them.
BYTES_PER_COLUMN = 47.0
SECONDS_PER_COLUMN = 10e-6


@dataclass(frozen=True)
class Estimate:
    """What a job would take, from its frame alone.

    Attributes
    ----------
    frame : Frame
    tiles, columns : int
    bytes : int
        On disk; rough, from measured figures per column of voxels.
    seconds : float
        Likewise.
    """

    frame: Frame
    tiles: int
    columns: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.frame.area_km2:,.1f} km2, {self.columns:,} columns in {self.tiles:,} tiles, "
            f"about {self.bytes / 1e9:,.1f} GB on disk and {self.seconds / 3600:,.1f} h on an "
            "ordinary machine"
        )


def estimate(job: Job, frame: Frame | None = None) -> Estimate:
    """Estimate what a job would take, from its frame alone."""
    frame = frame or place(job).frame
    columns = frame.nx * frame.ny
    nx, ny = (-(-high // job.tile_size) - low // job.tile_size for low, high in (frame.x, frame.y))
    return Estimate(
        frame,
        nx * ny,
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
    frame : Frame
    tasks : dict of str to int
        Number of tasks per stage, tiles last. A stage that is fused into another has none.
    workers : int
    objects, bytes : int
        Files and bytes that would be written.
    memory : int
        Bytes of all workers together.
    seconds : float
        With the job's workers.
    basis : str
        Where the figures come from.
    finished : int
        Tiles that a world to resume or to extend keeps.
    """

    frame: Frame
    tasks: dict[str, int]
    workers: int
    objects: int
    bytes: int
    memory: int
    seconds: float
    basis: str
    finished: int = 0

    @property
    def tiles(self) -> int:
        return self.tasks[TILE]


def forecast(job: Job, sample: int = 0, listener: Listener | None = None) -> Forecast:
    """Forecast what a job would take; nothing is written where it would write.

    Parameters
    ----------
    job : Job
    sample : int
        Tiles that are made, in a temporary folder, to measure what a tile takes. With 0, nothing is
        made, and the forecast rests on figures of an ordinary machine.
    listener : callable, optional
    """
    progress = Progress(listener)
    output = inspect_output(job)
    job, placement = output.job, output.place()
    before = open_store(job.out) if output.exists else None
    prepared = prepare(job, progress, placement)
    graph = prepared.engine.graph(job.tile_size)
    frame, tasks = placement.frame, graph.counts()
    finished = 0 if before is None else _kept(before, frame)
    left = (tasks[TILE] - finished) / tasks[TILE]
    columns = int(frame.nx * frame.ny * left)
    if sample:
        tiles = spread(list_of_tiles(graph), sample)
        seconds, size, area = _measure(prepared, graph, job, tiles, progress)
        per_column = size / area
        memory = _peak_memory()
        work = sum(seconds.get(name, 0.0) * count for name, count in tasks.items()) * left
        basis = f"{len(tiles)} tile{'s' * (len(tiles) != 1)} made here"
    else:
        costs = [cost for cost in (backend.cost() for backend in prepared.backends.both) if cost]
        per_column = BYTES_PER_COLUMN
        memory = MEMORY_PER_WORKER + max((cost.memory for cost in costs), default=0)
        work = columns * (SECONDS_PER_COLUMN + sum(cost.seconds for cost in costs))
        rules = "figures of the procedural backends at 1 m on an ordinary core"
        basis = "; ".join(dict.fromkeys([rules, *(cost.basis for cost in costs)]))
    return Forecast(
        frame=frame,
        tasks=tasks,
        workers=job.workers,
        objects=(tasks[TILE] - finished) * OBJECTS_PER_TILE,
        bytes=int(per_column * columns),
        memory=memory * job.workers,
        seconds=work / job.workers,
        basis=basis,
        finished=finished,
    )


def _kept(before: Store, frame: Frame) -> int:
    """How many tiles of a world stay when it is extended to a frame."""
    if before.frame == frame:
        return len(before.finished_tiles())
    size = before.tile_size
    parts = (
        (before.tile_frame(*tile), frame.tile(*tile, size).intersection(frame))
        for tile in before.finished_tiles()
    )
    return sum(old == new for old, new in parts)


def list_of_tiles(graph: Graph) -> Sequence[Task]:
    """Return the tiles as a sequence computed on access: a million tiles take no memory."""
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
    """Return `count` tiles, spread evenly over the world."""
    count = min(count, len(tiles))
    return [tiles[(2 * n + 1) * len(tiles) // (2 * count)] for n in range(count)]


def _measure(
    prepared: PreparedJob, graph: Graph, job: Job, tiles: list[Task], progress: Progress
) -> tuple[dict[str, float], int, int]:
    """Mean seconds per task by stage; bytes and columns of the tiles."""
    single_thread()
    spent: dict[str, list[float]] = {}
    size = area = 0
    progress.start("sample", len(tiles))
    with tempfile.TemporaryDirectory() as place:
        attributes = {"identity": prepared.identity, "provenance": {}, "settings": {}}
        path = Path(place) / "sample.zarr"
        store = create_store(
            path, prepared.frame, job.tile_size, attributes, prepared.backends.texture.sh_degree
        )
        for tile in tiles:
            outputs: dict[Task, Block] = {}

            def fetch(task: Task, outputs: dict[Task, Block] = outputs) -> Block:
                if task not in outputs:
                    stats = TaskStats()
                    outputs[task] = prepared.engine.block(task, graph, fetch, stats)
                    spent.setdefault(task.stage, []).append(sum(stats.seconds.values()))
                return outputs[task]

            for need in graph.needs(tile):
                fetch(need)
            began = time.perf_counter()
            entry = store.write(tile.x, tile.y, prepared.engine.tile(tile, graph, fetch))
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


def _peak_memory() -> int:
    """Peak memory of this process, bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
