"""Where tasks run: in this process, in threads, in processes, or on a Dask cluster.

All are `concurrent.futures` executors behind one small interface, `Pool`. A task is named, not
sent: a worker has the engine, and reads and writes the world's store itself. What travels is the
task's name, and what it took.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from earthgen.engine.graph import Task
from earthgen.engine.worker import Worker, WorkerContext, unpacked
from earthgen.world.store import single_thread


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

    def begin(self, site: WorkerContext) -> None:
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
class InlinePool(Pool):
    """This process: a task is done when it is asked for."""

    size: int = 1
    worker: Worker | None = None

    def begin(self, site: WorkerContext) -> None:
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
class ThreadPool(Pool):
    """Threads of this process."""

    worker: Worker | None = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        self.executor = ThreadPoolExecutor(self.size, thread_name_prefix="earthgen")

    def begin(self, site: WorkerContext) -> None:
        self.worker = Worker(site)

    def call(self, method: str, argument: Any) -> Future[Any]:
        assert self.executor is not None
        return self.executor.submit(getattr(self.worker, method), argument)

    def close(self) -> None:
        assert self.executor is not None
        self.executor.shutdown(wait=True, cancel_futures=True)


@dataclass
class ProcessPool(Pool):
    """Processes of this machine, one core each."""

    data: bytes | None = None  # the site, for workers that start later
    executor: ProcessPoolExecutor | None = None
    sites: Any = None  # a queue: a worker takes its site from it when it is ready

    def __post_init__(self) -> None:
        self.renew()
        for _ in range(self.size):
            self._submit(_nothing)  # a process starts when it gets work

    def begin(self, site: WorkerContext) -> None:
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
        # A fork could inherit a lock that a thread of this process holds, and a fork server can be
        # killed like any process, which leaves Python waiting for workers that are gone. So workers
        # start from nothing, in 2 s.
        context = multiprocessing.get_context("spawn")
        self.sites = context.Queue()
        self.sites.cancel_join_thread()  # what no worker came to take is not waited for
        self.executor = ProcessPoolExecutor(self.size, context, _begin, (self.sites,))
        if self.data is not None:
            self._tell()

    def close(self) -> None:
        assert self.executor is not None
        begun = self.data is not None
        if (
            not begun
        ):  # the inputs were refused: that is to be said before the workers have started and ended
            self._tell()
        self.executor.shutdown(wait=begun, cancel_futures=True)


LIBRARIES = ("geopandas", "numba", "rasterio", "scipy.ndimage", "xarray")
"""What nearly every job needs: a worker process loads them while the coordinator looks at the
inputs."""

_workers: dict[str, Worker] = {}
"""In a worker process: the worker by the key of its job. A Dask worker may serve several jobs."""


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that start within do not hear Ctrl-C, which reaches all processes of a terminal,
    from the beginning.

    One that came while they import would else print a traceback for each. The signal's mask is
    inherited.
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
    atexit.register(
        os._exit, 0
    )  # all is on disk; to take the interpreter apart would take most of a second
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
