"""A pool on a Dask cluster. Dask is an optional dependency, imported when the pool starts."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from earthgen.engine.pool import Pool, process_workers
from earthgen.engine.worker import Worker, WorkerContext, unpacked
from earthgen.errors import SchedulerError
from earthgen.world.store import single_thread

CONNECT_S = 10
"""Longest wait for a Dask scheduler, seconds."""

DASK = "dask"
"""The value of the setting `scheduler` that starts a Dask cluster on this machine for the job."""


@dataclass
class DaskPool(Pool):
    """The workers of a Dask cluster. Dask itself repeats the tasks of a lost worker."""

    key: str = field(default_factory=lambda: f"earthgen-{uuid.uuid4().hex[:12]}")
    client: Any = None
    executor: Any = None
    running: set[Future[Any]] = field(default_factory=set)

    def begin(self, context: WorkerContext) -> None:
        self.client.register_plugin(_setup(self.key, context.packed()), name=self.key)

    def call(self, method: str, argument: Any) -> Future[Any]:
        try:
            task = self.executor.submit(_call_dask, self.key, method, argument)
        except RuntimeError as error:  # the client closed when it lost the scheduler
            raise _scheduler_lost() from error
        future: Future[Any] = Future()
        self.running.add(future)

        def ended(task: Future[Any]) -> None:
            self.running.discard(future)
            try:
                future.set_result(task.result())
            except CancelledError:
                future.set_exception(_scheduler_lost())
            except Exception as error:  # noqa: BLE001 - raised again by `future.result`
                future.set_exception(_dask_error(error))

        task.add_done_callback(ended)
        return future

    def close(self) -> None:
        if self.client.status == "running":
            with suppress(OSError, TimeoutError):
                # Tasks that have not begun yet fail from now on.
                self.client.unregister_worker_plugin(self.key)
                wait(list(self.running))
        self.executor.shutdown(wait=False)


def _scheduler_lost() -> SchedulerError:
    return SchedulerError(
        "the Dask scheduler ended or cannot be reached",
        "start it again, and give its address as `scheduler` with `resume`",
    )


def _dask_error(error: Exception) -> Exception:
    """The error of a Dask task; an error of Dask itself becomes a SchedulerError."""
    import distributed

    if isinstance(error, distributed.KilledWorker):
        return SchedulerError(
            f"Dask workers died while they ran one task: {error}",
            "they may lack memory: give a smaller `tile_size`, then `resume`",
        )
    return error


# These are functions of the module, because Dask would copy to its workers what a class defined
# within a function refers to.
def _enter(key: str, data: bytes) -> None:
    single_thread()
    process_workers[key] = Worker(unpacked(data))


def _leave(key: str) -> None:
    process_workers.pop(key, None)


def _call_dask(key: str, method: str, argument: Any) -> Any:
    if key not in process_workers:
        raise SchedulerError(
            "a Dask worker did not receive the job",
            f"it needs the same earthgen, plugins and paths as the client ({sys.executable})",
        )
    return getattr(process_workers[key], method)(argument)


def _setup(key: str, data: bytes) -> Any:
    """A Dask plugin that gives the job to every worker, also to those that join later."""
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
def cluster(address: str, workers: int) -> Iterator[DaskPool]:
    """Connect to a Dask scheduler, or start one here.

    Parameters
    ----------
    address : str
        An address such as "tcp://host:8786"; `DASK` starts a cluster on this machine.
    workers : int
        Number of workers of a cluster that is started here.

    Raises
    ------
    SchedulerError
        If Dask is not installed, the scheduler cannot be reached, or it has no workers.
    """
    try:
        import distributed
    except ImportError as error:
        raise SchedulerError(
            f"`scheduler` {address!r} needs Dask, which is not installed",
            "pip install 'earthgen[dask]', or leave `scheduler` out",
        ) from error
    import logging

    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters comes back as an error

    with ExitStack() as stack:
        try:
            target: Any = address
            if address == DASK:
                target = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        dashboard_address="127.0.0.1:0",  # not on the network
                        host="127.0.0.1",
                        silence_logs=logging.CRITICAL,
                    )
                )
            client = stack.enter_context(distributed.Client(target, timeout=CONNECT_S))
        except (OSError, TimeoutError, ValueError) as error:
            raise SchedulerError(
                f"there is no Dask scheduler at {address} ({type(error).__name__})",
                "start one with `dask scheduler` and give its address, or give `workers` alone",
            ) from error
        threads = sum(client.nthreads().values())
        if not threads:
            raise SchedulerError(
                f"the Dask scheduler at {address} has no workers",
                f"start some: `dask worker {address}`",
            )
        pool = DaskPool(threads, client.dashboard_link or "", client=client)
        pool.executor = client.get_executor(pure=False)
        stack.callback(pool.close)
        yield pool
