"""Where tasks run: in this process, in threads, in processes, or on a Dask cluster.

All are `concurrent.futures` executors behind one small interface, `Pool`. A task is named, not sent: a worker has the
engine, and reads and writes the world's store itself. What travels is the task's name, and what it took.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from earthgen.blocks import Block
from earthgen.engine import Account, Engine
from earthgen.errors import SchedulerError, StoreError
from earthgen.files import gone
from earthgen.graph import TILE, Graph, Task
from earthgen.scratch import Scratch
from earthgen.store import Entry, Store, open_store, single_thread

CONNECT_S = 10
"""How long a Dask scheduler is waited for."""

DASK = "dask"
"""`--scheduler dask`: a Dask cluster on this machine, for as long as the job runs."""

LOCAL = ("processes", "threads")
"""Schedulers that need no Dask."""


@dataclass(frozen=True)
class Done:
    """What a worker says of a finished task: the entry of a tile for the index, and what it took."""

    task: Task
    entry: Entry | None
    account: Account


@dataclass(frozen=True)
class Site:
    """Where a world is made and of what: all that a worker has to know. Without an engine it can check tiles alone."""

    engine: Engine | None
    path: str | Path
    tile_size: int
    plugin_dirs: tuple[Path, ...] = ()

    def packed(self) -> bytes:
        """This for another process."""
        return packed(self, self.plugin_dirs)


def packed(value: Any, plugin_dirs: tuple[Path, ...] = ()) -> bytes:
    """A value for another process, where the plugins of --plugin-dir have to be loaded before it is unpacked."""
    return pickle.dumps((plugin_dirs, pickle.dumps(value)))


def unpacked(data: bytes) -> Any:
    """What `packed` gave. Only for bytes that our own coordinator sent to its workers: no file is ever unpickled."""
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

    site: Site
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
    def scratch(self) -> Scratch:
        return Scratch(self.store)

    def do(self, task: Task) -> Done:
        """Run a task and write its output."""
        account = Account()
        if task.stage == TILE:
            levels = self.engine.tile(task.x, task.y, self.graph, self.fetch, account)
            began = time.perf_counter()
            entry = self.store.write(task.x, task.y, levels)
            account.spent("write", began)
            return Done(task, entry, account)
        block = self.engine.block(task, self.graph, self.fetch, account)
        self.scratch.save(*task, block)
        self.keep(task, block)
        return Done(task, None, account)

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


# ---- pools ------------------------------------------------------------------------------------------------


@dataclass
class Pool:
    """Workers of one world. `begin` gives it to them, once; then `do` and `check` give futures.

    `renew` replaces workers that died.

    Attributes
    ----------
    size : how many tasks run at a time
    link : where their dashboard is, "" where there is none
    """

    size: int
    link: str = ""

    def begin(self, site: Site) -> None:
        """Say what to work on. Workers start before it is known: while the inputs are read."""

    def do(self, task: Task) -> Future[Any]:
        return self.call("do", task)

    def check(self, tile: tuple[int, int]) -> Future[Any]:
        return self.call("check", tile)

    def call(self, method: str, argument: Any) -> Future[Any]:
        raise BrokenExecutor("a pool of no kind")

    def renew(self) -> None:
        """Replace workers that died, where the executor does not do it itself."""

    def close(self) -> None:
        """Let running tasks end, and stop."""


@dataclass
class Inline(Pool):
    """This process: a task is done when it is asked for."""

    size: int = 1
    worker: Worker | None = None

    def begin(self, site: Site) -> None:
        single_thread()
        self.worker = Worker(site)

    def call(self, method: str, argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(getattr(self.worker, method)(argument))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)
        return future


@dataclass
class Threads(Pool):
    """Threads of this process."""

    worker: Worker | None = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        self.executor = ThreadPoolExecutor(self.size, thread_name_prefix="earthgen")

    def begin(self, site: Site) -> None:
        self.worker = Worker(site)

    def call(self, method: str, argument: Any) -> Future[Any]:
        assert self.executor is not None
        return self.executor.submit(getattr(self.worker, method), argument)

    def close(self) -> None:
        assert self.executor is not None
        self.executor.shutdown(wait=True, cancel_futures=True)


@dataclass
class Processes(Pool):
    """Processes of this machine, one core each."""

    data: bytes | None = None  # the site, for workers that start later
    executor: ProcessPoolExecutor | None = None
    sites: Any = None  # a queue: a worker takes its site from it when it is ready

    def __post_init__(self) -> None:
        self.renew()
        for _ in range(self.size):
            self._submit(_nothing)  # a process starts when it gets work

    def begin(self, site: Site) -> None:
        self.data = site.packed()
        self._tell()

    def _tell(self) -> None:
        for _ in range(self.size):
            self.sites.put(self.data)

    def call(self, method: str, argument: Any) -> Future[Any]:
        return self._submit(_call, method, argument)

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        assert self.executor is not None
        with _without_ctrl_c():
            return self.executor.submit(work, *arguments)

    def renew(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)
        # A fork could inherit a lock that a thread of this process holds, and a fork server can be killed like any
        # process, which leaves Python waiting for workers that are gone. So workers start from nothing, in 2 s.
        context = multiprocessing.get_context("spawn")
        self.sites = context.Queue()
        self.sites.cancel_join_thread()  # what no worker came to take is not waited for
        self.executor = ProcessPoolExecutor(self.size, context, _begin, (self.sites,))
        if self.data is not None:
            self._tell()

    def close(self) -> None:
        assert self.executor is not None
        begun = self.data is not None
        if not begun:  # the inputs were refused: that is to be said before the workers have started and ended
            self._tell()
        self.executor.shutdown(wait=begun, cancel_futures=True)


LIBRARIES = ("geopandas", "numba", "rasterio", "scipy.ndimage", "xarray")
"""What nearly every job needs: a worker process loads them while the coordinator looks at the inputs."""

_workers: dict[str, Worker] = {}
"""In a worker process: the worker by the key of its job. A Dask worker may serve several jobs."""


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start within do not hear Ctrl-C, which reaches all processes of a terminal, from the beginning.

    One that came while they import would else print a traceback for each. The signal's mask is inherited.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(sites: Any) -> None:
    """Start a worker process. The coordinator is the one to act on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    atexit.register(os._exit, 0)  # all is on disk; to take the interpreter apart would take most of a second
    single_thread()
    for name in LIBRARIES:
        import_module(name)
    data = sites.get()
    if data is not None:
        _workers[""] = Worker(unpacked(data))


def _nothing() -> None:
    """The first work of a worker process."""


def _call(method: str, argument: Any) -> Any:
    return getattr(_workers[""], method)(argument)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed run must leave no workers behind."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---- Dask -------------------------------------------------------------------------------------------------


@dataclass
class Cluster(Pool):
    """A Dask cluster. Dask itself runs the tasks of a lost worker again."""

    key: str = field(default_factory=lambda: f"earthgen-{uuid.uuid4().hex[:12]}")
    client: Any = None
    executor: Any = None
    flying: set[Future[Any]] = field(default_factory=set)

    def begin(self, site: Site) -> None:
        self.client.register_plugin(_setup(self.key, site.packed()), name=self.key)

    def call(self, method: str, argument: Any) -> Future[Any]:
        try:
            task = self.executor.submit(_call_dask, self.key, method, argument)
        except RuntimeError as error:  # the client closed when it lost the scheduler
            raise _lost() from error
        future: Future[Any] = Future()
        self.flying.add(future)

        def ended(task: Future[Any]) -> None:
            self.flying.discard(future)
            try:
                future.set_result(task.result())
            except CancelledError:
                future.set_exception(_lost())
            except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
                future.set_exception(_dask_error(error))

        task.add_done_callback(ended)
        return future

    def close(self) -> None:
        if self.client.status == "running":
            with suppress(OSError, TimeoutError):
                self.client.unregister_worker_plugin(self.key)  # tasks that did not begin yet fail from now on
                wait(list(self.flying))
        self.executor.shutdown(wait=False)


def _lost() -> SchedulerError:
    return SchedulerError("the Dask scheduler is gone", "start it again, and give its address with --resume")


def _dask_error(error: Exception) -> Exception:
    """What a Dask task raised, where that is Dask's own error as one of ours."""
    import distributed

    if isinstance(error, distributed.KilledWorker):
        return SchedulerError(
            f"Dask workers died while they made one task: {error}",
            "they may lack memory: try a smaller --tile-size; then --resume",
        )
    return error


# Module functions: what a class defined in a function refers to is otherwise copied to the Dask worker.
def _enter(key: str, data: bytes) -> None:
    single_thread()
    _workers[key] = Worker(unpacked(data))


def _leave(key: str) -> None:
    _workers.pop(key, None)


def _call_dask(key: str, method: str, argument: Any) -> Any:
    if key not in _workers:
        raise SchedulerError(
            "a Dask worker did not get the job",
            f"it needs the same earthgen, plugins and paths as the client ({sys.executable})",
        )
    return getattr(_workers[key], method)(argument)


def _setup(key: str, data: bytes) -> Any:
    """What gives the job to every Dask worker, also to those that join later."""
    import distributed

    class Setup(distributed.WorkerPlugin):
        def __init__(self, key: str, data: bytes) -> None:
            self.name, self.data = key, data

        def setup(self, worker: Any) -> None:
            _enter(self.name, self.data)

        def teardown(self, worker: Any) -> None:
            _leave(self.name)

    return Setup(key, data)


@contextmanager
def cluster(address: str, workers: int) -> Iterator[Cluster]:
    """Workers of the Dask scheduler at an address such as "tcp://host:8786", or ("dask") of one started here."""
    try:
        import distributed
    except ImportError as error:
        raise SchedulerError(
            "--scheduler wants Dask, which is not installed", "pip install 'earthgen[dask]', or leave --scheduler away"
        ) from error
    import logging

    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters comes back as an error

    with ExitStack() as stack:
        try:
            place: Any = address
            if address == DASK:
                place = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
                    )
                )
            client = stack.enter_context(distributed.Client(place, timeout=CONNECT_S))
        except (OSError, TimeoutError, ValueError) as error:
            raise SchedulerError(
                f"there is no Dask scheduler at {address} ({type(error).__name__})",
                "start one with `dask scheduler`, give its address, or use --workers N alone",
            ) from error
        threads = sum(client.nthreads().values())
        if not threads:
            raise SchedulerError(
                f"the Dask scheduler at {address} has no workers", f"start some: `dask worker {address}`"
            )
        pool = Cluster(threads, client.dashboard_link or "", client=client)
        pool.executor = client.get_executor(pure=False)
        stack.callback(pool.close)
        yield pool


# ---- which one --------------------------------------------------------------------------------------------


@contextmanager
def start_pool(workers: int = 1, scheduler: str | None = None) -> Iterator[Pool]:
    """The pool that `--workers` and `--scheduler` ask for, before it has its work; see `Pool.begin`.

    scheduler : None (this process for one worker, else processes), "processes", "threads", "dask", or the address
        of a Dask scheduler

    Raises
    ------
    SchedulerError
        if there is no such scheduler, or it has no workers
    """
    if scheduler is not None and scheduler not in LOCAL:
        if scheduler != DASK and "://" not in scheduler:
            raise SchedulerError(
                f"--scheduler {scheduler!r} is none", f"give {', '.join((*LOCAL, DASK))} or an address: tcp://host:8786"
            )
        with cluster(scheduler, workers) as pool:
            yield pool
        return
    local: Pool
    if scheduler == "threads":
        local = Threads(workers)
    elif scheduler == "processes" or workers > 1:
        local = Processes(workers)
    else:
        local = Inline()
    try:
        yield local
    finally:
        local.close()


@contextmanager
def open_pool(site: Site, workers: int = 1, scheduler: str | None = None) -> Iterator[Pool]:
    """A pool with its work."""
    with start_pool(workers, scheduler) as pool:
        pool.begin(site)
        yield pool
