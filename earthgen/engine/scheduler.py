"""Runs a task graph on a pool of workers, whatever kind they are of: a front of tasks moves through
the world.

Only the front is held: some tasks for each worker, and those that wait for them. The coordinator,
this process, is the one writer of the index, in which tiles become visible after their data is on
disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    wait,
)
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


@contextmanager
def start_pool(workers: int = 1, scheduler: str | None = None) -> Iterator[Pool]:
    """The pool that `--workers` and `--scheduler` ask for, before it has its work; see
    `Pool.begin`.

    scheduler : None (this process for one worker, else processes), "processes", "threads", "dask",
        or the address
        of a Dask scheduler

    Raises
    ------
    SchedulerError
        if there is no such scheduler, or it has no workers
    """
    if scheduler is not None and scheduler not in LOCAL:
        if scheduler != DASK and "://" not in scheduler:
            raise SchedulerError(
                f"--scheduler {scheduler!r} is none",
                f"give {', '.join((*LOCAL, DASK))} or an address: tcp://host:8786",
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
    site: WorkerContext, workers: int = 1, scheduler: str | None = None
) -> Iterator[Pool]:
    """A pool with its work."""
    with start_pool(workers, scheduler) as pool:
        pool.begin(site)
        yield pool


AHEAD = 2
"""Tasks handed out for each worker, so that it has its next one when it ends one."""

WAITING = 4096
"""Most tasks that wait for others; a bound on what the coordinator holds."""

COMMIT_S = 2.0
"""Finished tiles become visible this often: what a kill costs at most, beside the tasks that
run."""

LOSSES = 3
"""How often in a row workers may die without a task being finished in between."""


@dataclass
class Totals:
    """What a run did: tasks and seconds of work by stage, voxels outside the band."""

    tasks: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    clipped: int = 0

    def add(self, task: Task, account: TaskStats) -> None:
        self.tasks[task.stage] = self.tasks.get(task.stage, 0) + 1
        for name, seconds in account.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.clipped += account.clipped


def run_tasks(
    walk: Traversal,
    pool: Pool,
    done: Callable[[TaskResult], None],
    unneeded: Callable[[Task], None] = lambda task: None,
    breath: Callable[[], None] = lambda: None,
) -> int:
    """Run the tasks of a walk. Gives how often workers died on the way.

    done : told of every finished task, in the order in which they end
    unneeded : told of every task whose output no other needs any more
    breath : called about once a second

    Raises whatever a task raises; SchedulerError if workers die again and again.
    """
    tasks, exhausted = iter(walk), False
    ready: deque[Task] = deque()
    unfinished: set[Task] = set()
    missing: dict[Task, int] = {}  # for tasks that wait: how many of their needs are unfinished
    followers: dict[Task, list[Task]] = {}
    running: dict[Future[Any], Task] = {}
    ended: SimpleQueue[Future[Any]] = (
        SimpleQueue()
    )  # `wait` would look at thousands of futures for each that ends
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
            needs = [need for need in walk.graph.needs(task) if need in unfinished]
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
            except (
                BrokenExecutor
            ):  # found broken by the next `result` of a running task, or here if none runs
                ready.appendleft(task)
                break
            running[future] = task
            future.add_done_callback(ended.put)
        if not running and not ready:
            return died
        lost = not running
        # Failures come last: they may end the run, and what was finished beside them is not to be
        # lost.
        for future in sorted(_waited(ended), key=_failed) if running else []:
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
            walk.complete(task)
            done(result)
        while walk.unneeded:
            unneeded(walk.unneeded.pop())
        if lost:
            losses, died = losses + 1, died + 1
            if losses > LOSSES:
                raise _died(losses, f"made {', '.join(map(_name, list(ready)[:3]))}")
            ready.extendleft(task for task in running.values())
            running.clear()
            pool.renew()
        breath()


def _failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


def _waited(ended: SimpleQueue[Future[Any]]) -> list[Future[Any]]:
    """The futures that ended, as soon as there is one; none after a second."""
    found: list[Future[Any]] = []
    try:
        found.append(ended.get(timeout=1.0))
        while True:
            found.append(ended.get_nowait())
    except Empty:
        return found


def _name(task: Task) -> str:
    return f"{task.stage} ({task.x}, {task.y})"


def _died(losses: int, doing: str) -> SchedulerError:
    return SchedulerError(
        f"workers died {losses} times in a row while they {doing}",
        "they may lack memory: try fewer --workers, or a smaller --tile-size; then --resume",
    )


@dataclass
class IndexWriter:
    """Finished tiles on their way into the index."""

    store: Store
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)

    def add(self, tile: tuple[int, int], entry: Entry) -> None:
        self.entries[tile] = entry

    def breath(self) -> None:
        if time.monotonic() - self.last >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        if self.entries:
            self.store.commit(self.entries)
            self.entries.clear()
        self.last = time.monotonic()


def generate_tiles(
    store: Store,
    graph: Graph,
    pool: Pool,
    progress: Progress,
    breath: Callable[[], None] = lambda: None,
) -> Totals:
    """Make the tiles of a world that are not there yet. What is finished stays, whatever ends this.

    breath : called about once a second, such as the renewal of a lock
    """
    scratch, ledger, totals = StageCache(store), IndexWriter(store), Totals()
    there, place = store.finished(), store.tiles_frame  # a byte a tile
    west, south = place.x[0] // store.tile_size, place.y[0] // store.tile_size
    gone: list[Task] = []
    kept = {Task(*key) for key in scratch.listing()}
    progress.start("generate", graph.counts()[TILE], done=int(there.sum()))
    if pool.link:
        progress.say(f"Dask dashboard: {pool.link}")

    def finished(task: Task) -> bool:
        if task.stage == TILE:
            return bool(there[task.y - south, task.x - west])
        return task in kept and scratch.load(*task) is not None

    def done(result: TaskResult) -> None:
        totals.add(result.task, result.account)
        if result.entry is not None:
            ledger.add((result.task.x, result.task.y), result.entry)
            progress.step(f"tile {result.task.x}, {result.task.y}")

    def pause() -> None:
        # Together: on an object store each is a request that takes as long as hundreds of tasks
        # take us.
        store.folder.each([partial(scratch.remove, *task) for task in gone])
        gone.clear()
        ledger.breath()
        breath()

    try:
        died = run_tasks(Traversal(graph, finished), pool, done, gone.append, pause)
    finally:
        ledger.commit()
    scratch.clear()
    if died:  # what they were writing is left half written
        store.sweep()
    return totals


def check_tiles(store: Store, pool: Pool, progress: Progress) -> dict[tuple[int, int], str]:
    """What is wrong with the finished tiles of a world on disk, by tile."""
    tiles = deque(store.done())
    progress.start("check", len(tiles))
    wrong: dict[tuple[int, int], str] = {}
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
                wrong[tile] = problem
            progress.step(f"tile {tile[0]}, {tile[1]}")
        if lost:
            losses += 1
            if losses > LOSSES:
                raise _died(losses, f"checked tile {tiles[0]}")
            tiles.extendleft(running.values())
            running.clear()
            pool.renew()
    return dict(sorted(wrong.items(), key=lambda item: (item[0][1], item[0][0])))
