"""TODO docstring of earthgen.engine.compute.worker."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from earthgen.engine.compute import Engine, TaskStats
from earthgen.engine.graph import TILE, Graph, Task
from earthgen.errors import StoreError
from earthgen.files import gone
from earthgen.stages.block import Block
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import Entry, Store, open_store


@dataclass(frozen=True)
class TaskResult:
    """What a worker says of a finished task: the entry of a tile for the index, and what it
    took."""

    task: Task
    entry: Entry | None
    account: TaskStats


@dataclass(frozen=True)
class WorkerContext:
    """Where a world is made and of what: all that a worker has to know. Without an engine it can
    check tiles alone."""

    engine: Engine | None
    path: str | Path
    tile_size: int
    plugin_dirs: tuple[Path, ...] = ()

    def packed(self) -> bytes:
        """This for another process."""
        return packed(self, self.plugin_dirs)


def packed(value: Any, plugin_dirs: tuple[Path, ...] = ()) -> bytes:
    """A value for another process, where the plugins of --plugin-dir have to be loaded before it
    is unpacked."""
    return pickle.dumps((plugin_dirs, pickle.dumps(value)))


def unpacked(data: bytes) -> Any:
    """What `packed` gave. Only for bytes that our own coordinator sent to its workers: no file
    is ever unpickled."""
    from earthgen import plugins

    folders, value = pickle.loads(data)
    if folders:
        plugins.load(folders)
    return pickle.loads(value)


KEPT_BYTES = 100_000_000
"""How much of what it read last a worker keeps: the next tile mostly reads the same windows."""


@dataclass
class Worker:
    """Does the tasks of one world."""

    site: WorkerContext
    kept: dict[Task, Block] = field(default_factory=dict)  # the oldest first

    @cached_property
    def engine(self) -> Engine:
        if self.site.engine is None:
            raise ValueError("this worker has no engine: it can only check")
        return self.site.engine

    @cached_property
    def graph(self) -> Graph:
        return self.engine.graph(self.site.tile_size)

    @cached_property
    def store(self) -> Store:
        return open_store(self.site.path, mode="r+")

    @cached_property
    def scratch(self) -> StageCache:
        return StageCache(self.store)

    def do(self, task: Task) -> TaskResult:
        """Run a task and write its output."""
        account = TaskStats()
        if task.stage == TILE:
            levels = self.engine.tile(task.x, task.y, self.graph, self.fetch, account)
            began = time.perf_counter()
            entry = self.store.write(task.x, task.y, levels)
            account.spent("write", began)
            return TaskResult(task, entry, account)
        block = self.engine.block(task, self.graph, self.fetch, account)
        self.scratch.save(*task, block)
        self.keep(task, block)
        return TaskResult(task, None, account)

    def check(self, tile: tuple[int, int]) -> str | None:
        """What is wrong with a finished tile on disk, None for nothing."""
        return self.store.check(*tile)

    def fetch(self, task: Task) -> Block:
        """What another task made, from here or from the disk."""
        block = self.kept.pop(task, None) or self.scratch.load(*task)
        if block is None:
            if not self.store.folder.exists("zarr.json"):
                raise gone(self.site.path)
            raise StoreError(
                f"stage {task.stage!r} of window ({task.x}, {task.y}) is gone from {self.site.path}",
                "somebody else removed it: start again with --resume",
            )
        self.keep(task, block)
        return block

    def keep(self, task: Task, block: Block) -> None:
        self.kept[task] = block
        size = sum(one.nbytes for one in list(self.kept.values()))
        for oldest in list(self.kept):  # a copy: threads share a worker
            if size <= KEPT_BYTES:
                return
            gone = self.kept.pop(oldest, None)
            size -= gone.nbytes if gone is not None else 0
