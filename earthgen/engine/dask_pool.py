"""TODO docstring of earthgen.engine.compute.dask_pool."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import (
    CancelledError,
    Future,
    wait,
)
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from earthgen.engine.pool import Pool, _workers
from earthgen.engine.worker import Worker, WorkerContext, unpacked
from earthgen.errors import SchedulerError
from earthgen.world.store import single_thread

CONNECT_S = 10
"""How long a Dask scheduler is waited for."""

DASK = "dask"
"""`--scheduler dask`: a Dask cluster on this machine, for as long as the job runs."""


@dataclass
class DaskPool(Pool):
    """A Dask cluster. Dask itself runs the tasks of a lost worker again."""

    key: str = field(default_factory=lambda: f"earthgen-{uuid.uuid4().hex[:12]}")
    client: Any = None
    executor: Any = None
    flying: set[Future[Any]] = field(default_factory=set)

    def begin(self, site: WorkerContext) -> None:
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
                self.client.unregister_worker_plugin(
                    self.key
                )  # tasks that did not begin yet fail from now on
                wait(list(self.flying))
        self.executor.shutdown(wait=False)


def _lost() -> SchedulerError:
    return SchedulerError(
        "the Dask scheduler is gone", "start it again, and give its address with --resume"
    )


def _dask_error(error: Exception) -> Exception:
    """What a Dask task raised, where that is Dask's own error as one of ours."""
    import distributed

    if isinstance(error, distributed.KilledWorker):
        return SchedulerError(
            f"Dask workers died while they made one task: {error}",
            "they may lack memory: try a smaller --tile-size; then --resume",
        )
    return error


# Module functions: what a class defined in a function refers to is otherwise copied to the Dask
# worker.
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
def cluster(address: str, workers: int) -> Iterator[DaskPool]:
    """Workers of the Dask scheduler at an address such as "tcp://host:8786", or ("dask") of one
    started here."""
    try:
        import distributed
    except ImportError as error:
        raise SchedulerError(
            "--scheduler wants Dask, which is not installed",
            "pip install 'earthgen[dask]', or leave --scheduler away",
        ) from error
    import logging

    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters comes back as an error

    with ExitStack() as stack:
        try:
            place: Any = address
            if address == DASK:
                place = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        dashboard_address=":0",
                        silence_logs=logging.CRITICAL,
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
                f"the Dask scheduler at {address} has no workers",
                f"start some: `dask worker {address}`",
            )
        pool = DaskPool(threads, client.dashboard_link or "", client=client)
        pool.executor = client.get_executor(pure=False)
        stack.callback(pool.close)
        yield pool
