"""A worker: computes the tasks of one world and writes their outputs, in whatever process it runs.

A worker gets the name of a task and reads and writes the world itself, so no array travels between
processes.
"""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from cachetools import LRUCache

from earthgen.engine.compute import Engine, TaskStats
from earthgen.engine.decisions import decide
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.errors import StoreError
from earthgen.files import missing_world
from earthgen.stages.block import Block
from earthgen.voxels.tile import Tile
from earthgen.world import decisions
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import Entry, Store, open_store
from geo_io.safety.access import current_access, set_access

CACHE_BYTES = 100_000_000
"""Bytes of outputs that a worker keeps in memory: the next tile mostly reads the same windows."""


@dataclass(frozen=True)
class TaskResult:
    """What a worker reports about a finished task.

    Attributes
    ----------
    task : Task
    entry : Entry or None
        Of a tile, for the index.
    stats : TaskStats
    """

    task: Task
    entry: Entry | None
    stats: TaskStats


@dataclass(frozen=True)
class WorkerContext:
    """All that a worker needs to know; without an engine it can only check tiles.

    Attributes
    ----------
    engine : Engine or None
    path : path
        Of the world.
    tile_size : int
        Voxels.
    plugin_dirs : tuple of Path
        Plugin folders to load before the engine is unpickled.
    """

    engine: Engine | None
    path: str | Path
    tile_size: int
    plugin_dirs: tuple[Path, ...] = ()

    def packed(self) -> bytes:
        """Return the bytes for another process."""
        return packed(self, self.plugin_dirs)


def packed(value: Any, plugin_dirs: tuple[Path, ...] = ()) -> bytes:
    """Pickle a value for another process, with the plugin folders to load before unpickling it,
    and what its inputs may reach."""
    return pickle.dumps((plugin_dirs, current_access(), pickle.dumps(value)))


def unpacked(data: bytes) -> Any:
    """Return what `packed` got.

    Only for bytes that our own coordinator sends to its workers: no file is ever unpickled.
    """
    from earthgen import plugins

    folders, access, value = pickle.loads(data)
    set_access(access)
    if folders:
        plugins.load(folders)
    return pickle.loads(value)


@dataclass
class Worker:
    """Runs the tasks of one world; threads may share a worker.

    Attributes
    ----------
    context : WorkerContext
    outputs : LRUCache of Task to Block
        The latest outputs.
    lock : Lock
        Guards `outputs`.
    """

    context: WorkerContext
    outputs: LRUCache[Task, Block] = field(
        default_factory=lambda: LRUCache(CACHE_BYTES, getsizeof=lambda block: block.nbytes)
    )
    lock: Lock = field(default_factory=Lock)

    @cached_property
    def engine(self) -> Engine:
        """The engine of the context."""
        if self.context.engine is None:
            raise ValueError("this worker has no engine: it can only check")
        return self.context.engine

    @cached_property
    def graph(self) -> Graph:
        """The tasks of the world."""
        return self.engine.graph(self.context.tile_size)

    @cached_property
    def store(self) -> Store:
        """The world, open for writing."""
        return open_store(self.context.path, mode="r+")

    @cached_property
    def stage_cache(self) -> StageCache:
        """The outputs of stages on disk."""
        return StageCache(self.store)

    def do(self, task: Task) -> TaskResult:
        """Run a task and write its output."""
        stats = TaskStats()
        if task.stage == TILE:
            levels = self.engine.tile(task, self.graph, self.fetch, stats)
            began = time.perf_counter()
            entry = self.store.write(task.x, task.y, levels)
            stats.spent("write", began)
            self.note_decisions(task, levels[0], stats)
            return TaskResult(task, entry, stats)
        block = self.engine.block(task, self.graph, self.fetch, stats)
        self.stage_cache.save(*task, block)
        self.keep(task, block)
        return TaskResult(task, None, stats)

    def note_decisions(self, task: Task, tile: Tile, stats: TaskStats) -> None:
        """Write what of a tile its sources said, unless the world is an older one."""
        if not decisions.has_decisions(self.store):
            return
        began = time.perf_counter()
        codes = decide(tile, self.engine.conditions)
        decisions.write(self.store, task.x, task.y, codes)
        stats.spent("decisions", began)

    def check(self, tile: tuple[int, int]) -> str | None:
        """Return what is wrong with a finished tile on disk; None if nothing is."""
        return self.store.check(*tile)

    def fetch(self, task: Task) -> Block:
        """Return the output of another task, from memory or from disk.

        Raises
        ------
        StoreError
            If it is missing.
        """
        with self.lock:
            block = self.outputs.get(task)
        if block is not None:
            return block
        block = self.stage_cache.load(*task)
        if block is None:
            if not self.store.folder.exists("zarr.json"):
                raise missing_world(self.context.path)
            raise StoreError(
                f"stage {task.stage!r} of window ({task.x}, {task.y}) is missing from "
                f"{self.context.path}",
                "another process removed it: start again with `resume`",
            )
        self.keep(task, block)
        return block

    def keep(self, task: Task, block: Block) -> None:
        """Keep an output in memory for the next tasks."""
        with self.lock, suppress(ValueError):  # an output larger than the whole cache
            self.outputs[task] = block
