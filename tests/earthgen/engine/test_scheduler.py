"""Schedulers run one graph: the same world from any pool, in any order, through deaths of
workers."""

from __future__ import annotations

import gc
import random
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from earthgen.engine.compute import Engine, TaskStats
from earthgen.engine.graph import TILE, Task, Traversal
from earthgen.engine.pool import Pool
from earthgen.engine.scheduler import (
    LOSSES,
    check_tiles,
    generate_tiles,
    open_pool,
    run_tasks,
    start_pool,
)
from earthgen.engine.worker import TaskResult, Worker, WorkerContext
from earthgen.errors import PluginError, SchedulerError
from earthgen.noise.philox import Noise
from earthgen.progress import Progress
from earthgen.stages.block import Block
from earthgen.world.digest import add_digests, digest_text
from earthgen.world.stage_cache import StageCache
from earthgen.world.store import Store, create_store, open_store
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame

FRAME = Frame("EPSG:32632", 1.0, (-70, 150), (7, 150))
IDENTITY = {"seed": 3}


def engine(frame: Frame = FRAME, step: float = 2.0) -> Engine:
    return Engine(frame, Terraces(step), Stripes(), {}, Noise(3))


def make(path: Path, tile_size: int = 64, frame: Frame = FRAME) -> Store:
    return create_store(
        path, frame, tile_size, {"identity": IDENTITY, "provenance": {}, "settings": {}}
    )


def digest(path: Path) -> str:
    store = open_store(path)
    return digest_text(
        store.identity,
        add_digests(*(store.compute_digest(*tile) for tile in store.finished_tiles())),
    )


@pytest.fixture(scope="module")
def one_go(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the world that one process makes from the first tile to the last."""
    path = tmp_path_factory.mktemp("one") / "w.zarr"
    run(path)
    return digest(path)


def run(path: Path, tile_size: int = 64, workers: int = 1, scheduler: str | None = None):
    store = make(path, tile_size)
    made = engine()
    with open_pool(WorkerContext(made, path, tile_size), workers, scheduler) as pool:
        return generate_tiles(store, made.graph(tile_size), pool, Progress())


@pytest.mark.parametrize("tile_size", [pytest.param(64, marks=pytest.mark.slow), 96, 104, 512])
def test_tile_sizes(tmp_path: Path, one_go: str, tile_size: int) -> None:
    totals = run(tmp_path / "w.zarr", tile_size)
    assert digest(tmp_path / "w.zarr") == one_go
    counts = engine().graph(tile_size).counts()
    assert totals.tasks == {name: n for name, n in counts.items() if n}


@pytest.mark.parametrize(
    ("workers", "scheduler"),
    [
        (2, "threads"),
        (2, None),
        pytest.param(4, "processes", marks=pytest.mark.slow),
    ],
)
def test_local_schedulers(tmp_path: Path, one_go: str, workers: int, scheduler: str | None) -> None:
    run(tmp_path / "w.zarr", workers=workers, scheduler=scheduler)
    assert digest(tmp_path / "w.zarr") == one_go


def test_nothing_of_the_stages_is_left(tmp_path: Path) -> None:
    most = 0
    store, made = make(tmp_path / "w.zarr", 64), engine()
    graph = made.graph(64)
    assert graph.counts()["terraces"] > 5

    def watch(event: object) -> None:
        nonlocal most
        most = max(most, len(list(StageCache(store).listing())))

    with open_pool(WorkerContext(made, store.path, 64)) as pool:
        generate_tiles(store, graph, pool, Progress(watch))
    assert 0 < most < graph.counts()["terraces"] + graph.counts()["stripes"], (
        "outputs go when nobody wants them"
    )
    assert not list(StageCache(store).listing())


@dataclass
class Unreliable(Pool):
    """Keeps tasks back and ends them in a random order; now and then all of its workers die."""

    size: int = 3
    worker: Worker | None = None
    deaths: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    held: list[tuple[Future, Task]] = field(default_factory=list)
    renewed: int = 0

    def call(self, method: str, argument: Task) -> Future:
        future: Future = Future()
        self.held.append((future, argument))
        while len(self.held) >= self.size:  # else nothing would ever end: the coordinator waits
            self.end(self.held.pop(self.dice.randrange(len(self.held))))
        return future

    def end(self, job: tuple[Future, Task]) -> None:
        future, task = job
        if self.dice.random() < self.deaths:
            for other, _ in [job, *self.held]:
                other.set_exception(BrokenExecutor("died"))
            self.held.clear()
            return
        try:
            assert self.worker is not None
            future.set_result(self.worker.do(task))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)

    def on_tick(self) -> None:
        while self.held:
            self.end(self.held.pop(self.dice.randrange(len(self.held))))

    def renew(self) -> None:
        self.renewed += 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_random_orders_and_deaths(tmp_path: Path, one_go: str, seed: int) -> None:
    store, made = make(tmp_path / "w.zarr"), engine()
    pool = Unreliable(
        worker=Worker(WorkerContext(made, store.path, 64)), deaths=0.2, dice=random.Random(seed)
    )
    graph, entries = made.graph(64), {}

    def done(result: TaskResult) -> None:
        if result.entry is not None:
            entries[result.task.x, result.task.y] = result.entry

    stage_cache = StageCache(store)
    run_tasks(
        Traversal(graph, lambda task: False),
        pool,
        done,
        lambda task: stage_cache.remove(*task),
        pool.on_tick,
    )
    store.commit(entries)
    assert pool.renewed, "nobody died: the test shows nothing"
    assert digest(store.path) == one_go


def test_what_dying_workers_were_writing_is_swept(tmp_path: Path, one_go: str) -> None:
    @dataclass
    class Writing(Unreliable):
        def renew(self) -> None:
            super().renew()
            (tmp_path / "w.zarr" / "level_1/ground" / f"c.{self.renewed}.partial").write_bytes(
                b"half"
            )

    store, made = make(tmp_path / "w.zarr"), engine()
    pool = Writing(worker=Worker(WorkerContext(made, store.path, 64)), deaths=0.1)
    generate_tiles(store, made.graph(64), pool, Progress(), pool.on_tick)
    assert pool.renewed, "nobody died: the test shows nothing"
    assert not list(store.folder.partial())
    assert digest(store.path) == one_go


def test_workers_that_die_again_and_again_end_the_run(tmp_path: Path) -> None:
    store, made = make(tmp_path / "w.zarr"), engine()
    pool = Unreliable(size=1, worker=Worker(WorkerContext(made, store.path, 64)), deaths=1.0)
    with pytest.raises(SchedulerError, match=rf"died {LOSSES + 1} times"):
        run_tasks(Traversal(made.graph(64), lambda task: False), pool, lambda done: None)


def test_an_error_in_a_task_comes_out_and_what_is_done_stays(tmp_path: Path, one_go: str) -> None:
    store, made = make(tmp_path / "w.zarr"), engine()
    with open_pool(WorkerContext(made, store.path, 64)) as pool:
        real, calls = pool.worker.do, []

        def broken(task: Task) -> TaskResult:
            calls.append(task)
            if len(calls) == 17:
                raise PluginError("the stage is broken", "mend it")
            return real(task)

        pool.worker.do = broken
        with pytest.raises(PluginError, match="stage is broken"):
            generate_tiles(store, made.graph(64), pool, Progress())
    there = store.finished_tiles()
    graph = made.graph(64)
    assert there and len(there) < graph.counts()[TILE]
    again = open_store(store.path, mode="r+")
    with open_pool(WorkerContext(made, store.path, 64)) as pool:
        totals = generate_tiles(again, made.graph(64), pool, Progress())
    assert totals.tasks[TILE] == graph.counts()[TILE] - len(there), (
        "finished tiles are not made again"
    )
    assert digest(store.path) == one_go


def test_finished_windows_are_not_made_again(tmp_path: Path) -> None:
    store, made = make(tmp_path / "w.zarr"), engine()
    graph = made.graph(64)
    worker = Worker(WorkerContext(made, store.path, 64))
    first = next(iter(graph.tiles()))
    needed = [task for task in graph.needs(first) if task.stage == "terraces"]
    for task in needed:
        worker.do(task)
    with open_pool(WorkerContext(made, store.path, 64)) as pool:
        totals = generate_tiles(store, graph, pool, Progress())
    assert totals.tasks["terraces"] == graph.counts()["terraces"] - len(needed)


def test_check_finds_what_is_damaged(tmp_path: Path) -> None:
    run(tmp_path / "w.zarr")
    store = open_store(tmp_path / "w.zarr")
    chunk = next(
        p for p in sorted((tmp_path / "w.zarr" / "level_1/ground" / "c").rglob("*")) if p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with open_pool(WorkerContext(None, store.path, 64)) as pool:
        wrong = check_tiles(store, pool, Progress())
    assert len(wrong) == 1 and "ground" in next(iter(wrong.values()))


def test_a_scheduler_that_is_not_there() -> None:
    context = WorkerContext(None, "nowhere", 64)
    with (
        pytest.raises(SchedulerError, match="unknown scheduler 'slurm'"),
        open_pool(context, 1, "slurm"),
    ):
        pass


class Below(Terraces):
    """Its voxels lie at z = -1, whatever the band."""

    def terraces(self, window, inputs, noise):
        block = super().terraces(replace(window, z=(-16, 496)), inputs, noise)
        return Block(window, block.dense, block.xyz, block.sparse)


def test_voxels_outside_the_band_are_counted_once(tmp_path: Path) -> None:
    flat = replace(FRAME, z=(0, 10))
    made = Engine(flat, Below(), Stripes(), {}, Noise(3))
    store = create_store(
        tmp_path / "w.zarr", flat, 96, {"identity": IDENTITY, "provenance": {}, "settings": {}}
    )
    with open_pool(WorkerContext(made, store.path, 96)) as pool:
        totals = generate_tiles(store, made.graph(96), pool, Progress())
    columns = len(list(flat.tiles(96))) * 96 * 96
    # A voxel a column and the walls between terraces; twice as many if margins counted too.
    assert columns <= totals.clipped < 1.3 * columns and isinstance(TaskStats().clipped, int)


def test_workers_of_a_refused_input_end_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SchedulerError), start_pool(2) as pool:
        workers = list(pool.executor._processes.values())  # type: ignore[attr-defined]
        raise SchedulerError("an input is refused", "give another")
    for worker in workers:
        worker.join(timeout=20)
        assert not worker.is_alive()
    gc.collect()
    assert capfd.readouterr().err == ""
