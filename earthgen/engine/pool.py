"""Where tasks run: in this process, in threads, in processes, or on a Dask cluster.

All are `concurrent.futures` executors behind one small interface, `Pool`. Only the name of a task
and its `TaskResult` travel: a worker has the engine, and reads and writes the world's store itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from earthgen.engine.graph import Task
from earthgen.engine.worker import Worker, WorkerContext, unpacked
from earthgen.world.store import single_thread


@dataclass
class Pool:
    """Base class of the workers of one world.

    `begin` is called once with their context; then `do` and `check` give futures.

    Attributes
    ----------
    size : int
        Number of tasks that run at a time.
    dashboard : str
        URL of the workers' dashboard, "" if they have none.
    """

    size: int
    dashboard: str = ""

    def begin(self, context: WorkerContext) -> None:
        """Give the workers their context. They start before it is known: while inputs are read."""
        raise NotImplementedError

    def do(self, task: Task) -> Future[Any]:
        """Run a task: `Worker.do`."""
        return self.call("do", task)

    def check(self, tile: tuple[int, int]) -> Future[Any]:
        """Check a tile: `Worker.check`."""
        return self.call("check", tile)

    def call(self, method: str, argument: Any) -> Future[Any]:
        """Call a method of a worker.

        Raises
        ------
        BrokenExecutor
            If workers died; `renew` replaces them.
        """
        raise NotImplementedError

    def renew(self) -> None:
        """Replace workers that died, if the executor does not do so itself."""

    def close(self) -> None:
        """Wait for running tasks, and stop."""


@dataclass
class InlinePool(Pool):
    """This process: a task runs within the call."""

    size: int = 1
    worker: Worker | None = None

    def begin(self, context: WorkerContext) -> None:
        single_thread()
        self.worker = Worker(context)

    def call(self, method: str, argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(getattr(self.worker, method)(argument))
        except Exception as error:  # noqa: BLE001 - raised again by `future.result`
            future.set_exception(error)
        return future


@dataclass
class ThreadPool(Pool):
    """Threads of this process."""

    worker: Worker | None = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        self.executor = ThreadPoolExecutor(self.size, thread_name_prefix="earthgen")

    def begin(self, context: WorkerContext) -> None:
        self.worker = Worker(context)

    def call(self, method: str, argument: Any) -> Future[Any]:
        assert self.executor is not None
        return self.executor.submit(getattr(self.worker, method), argument)

    def close(self) -> None:
        assert self.executor is not None
        self.executor.shutdown(wait=True, cancel_futures=True)


@dataclass
class ProcessPool(Pool):
    """Processes of this machine, one core each."""

    data: bytes | None = None  # the packed context, kept for workers that start later
    executor: ProcessPoolExecutor | None = None
    contexts: Any = None  # a queue: each worker takes the context from it when it is ready

    def __post_init__(self) -> None:
        self.renew()
        for _ in range(self.size):
            self._submit(_nothing)  # a process starts when it gets its first call

    def begin(self, context: WorkerContext) -> None:
        self.data = context.packed()
        self._send_context()

    def _send_context(self) -> None:
        for _ in range(self.size):
            self.contexts.put(self.data)

    def call(self, method: str, argument: Any) -> Future[Any]:
        return self._submit(_call, method, argument)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        assert self.executor is not None
        with _without_ctrl_c():
            return self.executor.submit(function, *arguments)

    def renew(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True, cancel_futures=True)
        # "fork" could inherit a lock that a thread of this process holds. A fork server can be
        # killed like any process, and then Python waits for its workers forever. "spawn" takes 2 s.
        method = multiprocessing.get_context("spawn")
        self.contexts = method.Queue()
        self.contexts.cancel_join_thread()  # do not wait for workers that never took a context
        self.executor = ProcessPoolExecutor(self.size, method, _begin, (self.contexts,))
        if self.data is not None:
            self._send_context()

    def close(self) -> None:
        assert self.executor is not None
        if self.data is None:
            # An input was refused, and workers may still be starting: they would print that this
            # process has gone. `kill_workers` comes with Python 3.14.
            for process in list((self.executor._processes or {}).values()):
                process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)


LIBRARIES = ("geopandas", "numba", "rasterio", "scipy.ndimage", "xarray")
"""What nearly every job needs: a worker process imports them while the coordinator reads inputs."""

process_workers: dict[str, Worker] = {}
"""The workers of a worker process, by job. A Dask worker may serve several jobs."""


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start processes that never receive Ctrl-C, which a terminal sends to all of its processes.

    During the imports of a worker it would print a traceback per process. The mask of signals is
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


def _begin(contexts: Any) -> None:
    """Start a worker process. Only the coordinator acts on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    # All data is on disk by then, and an orderly end of the interpreter takes most of a second.
    atexit.register(os._exit, 0)
    single_thread()
    for name in LIBRARIES:
        import_module(name)
    data = contexts.get()
    if data is not None:
        process_workers[""] = Worker(unpacked(data))


def _nothing() -> None:
    """Do nothing: the first call of a worker process."""


def _call(method: str, argument: Any) -> Any:
    return getattr(process_workers[""], method)(argument)


def _end_with_parent() -> None:
    """End this process when its parent dies: a killed run must leave no workers behind."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
