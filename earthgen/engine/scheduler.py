"""Runs a task graph on a pool of workers; a front of tasks moves through the world.

Only the front is held in memory: some tasks for each worker, and those that wait for them. The
coordinator, this process, is the only writer of the index, which makes tiles visible after their
data is on disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from earthgen.engine.compute import TaskStats
from earthgen.engine.dask_pool import DASK, cluster
from earthgen.engine.graph import TILE, Graph, Task, Traversal
from earthgen.engine.pool import InlinePool, Pool, ProcessPool, ThreadPool
from earthgen.engine.worker import TaskResult, WorkerContext
from earthgen.errors import SchedulerError
from earthgen.progress import Progress
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import Entry, Store

LOCAL = ("processes", "threads")
"""Schedulers that need no Dask."""

AHEAD = 2
"""Tasks submitted per worker, so that it has its next one when it ends one."""

WAITING = 4096
"""Most tasks that wait for others; bounds the memory of the coordinator."""

COMMIT_S = 2.0
"""Seconds between commits of finished tiles. A kill loses at most these and the running tasks."""

LOSSES = 3
"""How many times in a row workers may die without a task being finished in between."""


@contextmanager
def start_pool(workers: int = 1, scheduler: str | None = None) -> Iterator[Pool]:
    """Start workers, which still need `Pool.begin`; they end with the `with` block.

    Parameters
    ----------
    workers : int
    scheduler : str, optional
        "processes", "threads", "dask", or the address of a Dask scheduler. By default one worker
        is this process, and more are processes.

    Raises
    ------
    SchedulerError
        If there is no such scheduler, or it has no workers.
    """
    if scheduler is not None and scheduler not in LOCAL:
        if scheduler != DASK and "://" not in scheduler:
            raise SchedulerError(
                f"unknown scheduler {scheduler!r}",
                f"set `scheduler` to one of {', '.join((*LOCAL, DASK))}, or to an address such as "
                "tcp://host:8786",
            )
        with cluster(scheduler, workers) as pool:
            yield pool
        return
    local: Pool
    if scheduler == "threads":
        local = ThreadPool(workers)
    elif scheduler == "processes" or workers > 1:
        local = ProcessPool(workers)
    else:
        local = InlinePool()
    try:
        yield local
    finally:
        local.close()


@contextmanager
def open_pool(
    context: WorkerContext, workers: int = 1, scheduler: str | None = None
) -> Iterator[Pool]:
    """Start workers and give them their context; see `start_pool`."""
    with start_pool(workers, scheduler) as pool:
        pool.begin(context)
        yield pool


@dataclass
class Totals:
    """Statistics of a run.

    Attributes
    ----------
    tasks : dict of str to int
        Number of tasks by their last stage.
    seconds : dict of str to float
        Work by stage, summed over workers.
    clipped : int
        Voxels outside the height band.
    """

    tasks: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    clipped: int = 0

    def add(self, task: Task, stats: TaskStats) -> None:
        """Add a finished task."""
        self.tasks[task.stage] = self.tasks.get(task.stage, 0) + 1
        for name, seconds in stats.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.clipped += stats.clipped


def run_tasks(
    traversal: Traversal,
    pool: Pool,
    on_result: Callable[[TaskResult], None],
    on_unneeded: Callable[[Task], None] = lambda task: None,
    on_tick: Callable[[], None] = lambda: None,
) -> int:
    """Run the tasks of a traversal.

    Parameters
    ----------
    traversal : Traversal
    pool : Pool
    on_result : callable
        Called with the result of every task, in the order in which they end.
    on_unneeded : callable
        Called with every task whose output no other task reads any more.
    on_tick : callable
        Called at least about once a second.

    Returns
    -------
    int
        How many times workers died and were replaced.

    Raises
    ------
    SchedulerError
        If workers die again and again.
    Exception
        Whatever a task raises.
    """
    tasks, exhausted = iter(traversal), False
    ready: deque[Task] = deque()
    unfinished: set[Task] = set()
    missing: dict[Task, int] = {}  # number of unfinished needs of each waiting task
    followers: dict[Task, list[Task]] = {}
    running: dict[Future[Any], Task] = {}
    # `concurrent.futures.wait` would look at all running futures for each one that ends.
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    losses = died = 0
    while True:
        while (
            not exhausted
            and len(ready) + len(running) < AHEAD * pool.size
            and len(missing) < WAITING
        ):
            task = next(tasks, None)
            if task is None:
                exhausted = True
                break
            unfinished.add(task)
            needs = [need for need in traversal.graph.needs(task) if need in unfinished]
            if needs:
                missing[task] = len(needs)
                for need in needs:
                    followers.setdefault(need, []).append(task)
            else:
                ready.append(task)
        while ready and len(running) < AHEAD * pool.size:
            task = ready.popleft()
            try:
                future = pool.do(task)
            except BrokenExecutor:  # handled below, with the running tasks that were lost too
                ready.appendleft(task)
                break
            running[future] = task
            future.add_done_callback(ended.put)
        if not running and not ready:
            return died
        lost = not running
        # Failures come last: one may end the run, and the results beside it must not be lost.
        for future in sorted(_wait(ended), key=_failed) if running else []:
            if future not in running:  # of workers that were replaced
                continue
            task = running.pop(future)
            try:
                result: TaskResult = future.result()
            except BrokenExecutor:
                lost = True
                ready.append(task)
                continue
            losses = 0
            unfinished.discard(task)
            for follower in followers.pop(task, ()):
                missing[follower] -= 1
                if not missing[follower]:
                    del missing[follower]
                    ready.append(follower)
            traversal.complete(task)
            on_result(result)
        while traversal.unneeded:
            on_unneeded(traversal.unneeded.pop())
        if lost:
            losses, died = losses + 1, died + 1
            if losses > LOSSES:
                raise _workers_died(losses, f"ran {', '.join(map(_name, list(ready)[:3]))}")
            ready.extendleft(running.values())
            running.clear()
            pool.renew()
        on_tick()


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


def _wait(ended: SimpleQueue[Future[Any]]) -> list[Future[Any]]:
    """All futures that have ended, as soon as there is one; an empty list after a second."""
    futures: list[Future[Any]] = []
    try:
        futures.append(ended.get(timeout=1.0))
        while True:
            futures.append(ended.get_nowait())
    except Empty:
        return futures


def _name(task: Task) -> str:
    return f"{task.stage} ({task.x}, {task.y})"


def _workers_died(losses: int, doing: str) -> SchedulerError:
    return SchedulerError(
        f"workers died {losses} times in a row while they {doing}",
        "they may lack memory: give fewer `workers` or a smaller `tile_size`, then `resume`",
    )


@dataclass
class IndexWriter:
    """Collects finished tiles and commits them to the index every `COMMIT_S` seconds."""

    store: Store
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict)
    committed: float = field(default_factory=time.monotonic)

    def add(self, tile: tuple[int, int], entry: Entry) -> None:
        """Add a finished tile."""
        self.entries[tile] = entry

    def on_tick(self) -> None:
        """Commit if it is time."""
        if time.monotonic() - self.committed >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Make the collected tiles visible."""
        if self.entries:
            self.store.commit(self.entries)
            self.entries.clear()
        self.committed = time.monotonic()


def generate_tiles(
    store: Store,
    graph: Graph,
    pool: Pool,
    progress: Progress,
    on_tick: Callable[[], None] = lambda: None,
) -> Totals:
    """Generate the unfinished tiles of a world. Finished tiles stay, even if an error ends the run.

    Parameters
    ----------
    store : Store
        Open for writing.
    graph : Graph
    pool : Pool
        Begun, on the same world.
    progress : Progress
    on_tick : callable
        Called at least about once a second, for example to renew a lock.
    """
    stage_cache, index_writer, totals = StageCache(store), IndexWriter(store), Totals()
    finished_tiles, frame = store.finished_mask(), store.tiles_frame  # one byte per tile
    west, south = frame.x[0] // store.tile_size, frame.y[0] // store.tile_size
    cached = {Task(*key) for key in stage_cache.listing()}
    unneeded: list[Task] = []
    progress.start("generate", graph.counts()[TILE], done=int(finished_tiles.sum()))
    if pool.dashboard:
        progress.say(f"Dask dashboard: {pool.dashboard}")

    def finished(task: Task) -> bool:
        if task.stage == TILE:
            return bool(finished_tiles[task.y - south, task.x - west])
        return task in cached and stage_cache.load(*task) is not None

    def on_result(result: TaskResult) -> None:
        totals.add(result.task, result.stats)
        if result.entry is not None:
            index_writer.add((result.task.x, result.task.y), result.entry)
            progress.step(f"tile {result.task.x}, {result.task.y}")

    def tick() -> None:
        # In one go: each removal on an object store takes as long as hundreds of tasks take here.
        store.folder.each([partial(stage_cache.remove, *task) for task in unneeded])
        unneeded.clear()
        index_writer.on_tick()
        on_tick()

    try:
        died = run_tasks(Traversal(graph, finished), pool, on_result, unneeded.append, tick)
    finally:
        index_writer.commit()
    stage_cache.clear()
    if died:  # dead workers leave half-written files
        store.sweep()
    return totals


def check_tiles(store: Store, pool: Pool, progress: Progress) -> dict[tuple[int, int], str]:
    """Check the finished tiles of a world on disk; return what is wrong with the bad ones."""
    tiles = deque(store.finished_tiles())
    progress.start("check", len(tiles))
    problems: dict[tuple[int, int], str] = {}
    running: dict[Future[Any], tuple[int, int]] = {}
    losses = 0
    while tiles or running:
        lost = False
        while tiles and len(running) < AHEAD * pool.size:
            try:
                running[pool.check(tiles[0])] = tiles[0]
            except BrokenExecutor:
                lost = not running
                break
            tiles.popleft()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            tile = running.pop(future)
            try:
                problem = future.result()
            except BrokenExecutor:
                lost = True
                tiles.appendleft(tile)
                continue
            losses = 0
            if problem is not None:
                problems[tile] = problem
            progress.step(f"tile {tile[0]}, {tile[1]}")
        if lost:
            losses += 1
            if losses > LOSSES:
                raise _workers_died(losses, f"checked tile {tiles[0]}")
            tiles.extendleft(running.values())
            running.clear()
            pool.renew()
    return dict(sorted(problems.items(), key=lambda item: (item[0][1], item[0][0])))
