"""What docs/guides/scale.md is computed from: a tile of each size, the coordinator at up to 10^6
tasks, messages, requests.

    python -m benchmarks.scale --json [--quick]

Tiles are made by the procedural backends from the inputs of `benchmarks.generate`. The coordinator
runs its own code on workers that do nothing, so that what is left is its own cost. Seconds are of
CPU unless they are called wall.
"""

from __future__ import annotations

import pickle
import resource
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import generate
from benchmarks.machine import elsewhere, show

SIZES = (256, 512, 1024, 2048)
CORES = 1000
"""Workers whose tasks the coordinator keeps in flight in the measurement of it."""


def tiles(folder: Path, size: float, side: float, voxel_size: float) -> dict[str, Any]:
    """A square of `side` voxels in tiles of `size`, in this process."""
    from benchmarks.engine import job_settings
    from earthgen.engine.scheduler import generate_tiles, open_pool
    from earthgen.engine.worker import WorkerContext
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import prepare
    from earthgen.progress import Progress
    from earthgen.world.stage_cache import StageCache
    from earthgen.world.store import create_store

    def job(edge: float, name: str) -> Any:
        return make_job(
            job_settings(folder, edge, voxel_size, folder / name) | {"tile_size": int(size)}
        )

    warm = prepare(job(64 * voxel_size, "warm.zarr"))  # loads and compiles
    warm.engine.reference(int(size))(*next(warm.frame.tiles(int(size))))
    settings = job(side * voxel_size, f"{uuid.uuid4().hex}.zarr")
    began = time.process_time()
    plan = prepare(settings)
    prepared = time.process_time() - began
    attributes = {"identity": plan.identity, "provenance": plan.provenance, "settings": {}}
    store = create_store(settings.out, plan.frame, int(size), attributes)
    empty = set(store.folder.names())
    graph = plan.engine.graph(int(size))
    held: dict[tuple[str, int, int], int] = {}
    most, saved, blocks = 0, 0, Counter[str]()
    save, remove = StageCache.save, StageCache.remove

    def counted_save(self: StageCache, stage: str, x: int, y: int, block: Any) -> None:
        nonlocal most, saved
        save(self, stage, x, y, block)
        held[stage, x, y] = bytes_ = (Path(store.path) / self._name(stage, x, y)).stat().st_size
        most, saved = max(most, sum(held.values())), saved + bytes_
        blocks[stage] += bytes_

    def counted_remove(self: StageCache, stage: str, x: int, y: int) -> None:
        held.pop((stage, x, y), None)
        remove(self, stage, x, y)

    with (
        open_pool(WorkerContext(plan.engine, store.path, int(size))) as pool,
        mock.patch.object(StageCache, "save", counted_save),
        mock.patch.object(StageCache, "remove", counted_remove),
    ):
        began = time.process_time()
        totals = generate_tiles(store, graph, pool, Progress())
        spent = time.process_time() - began
    done = store.finished_tiles()
    began = time.process_time()
    problems = [store.check(*tile) for tile in done]
    checked = (time.process_time() - began) / len(done)
    index = store.index()
    km2 = plan.frame.area_km2
    names = [
        name for name in store.folder.names() if name not in empty and not name.startswith("index/")
    ]
    return {
        "tile": int(size),
        "voxel_m": voxel_size,
        "km2": round(km2, 2),
        "tiles": len(done),
        "tasks": dict(totals.tasks),
        "sound": not any(problems),
        "cpu_s_per_tile": round(spent / len(done), 3),
        "cpu_s_per_km2": round(spent / km2, 2),
        "wall_s_per_tile_by_stage": {
            name: round(s / len(done), 3) for name, s in sorted(totals.seconds.items())
        },
        "check_cpu_s_per_tile": round(checked, 3),
        "mb_per_tile": round(int(index[..., -1].sum()) / len(done) / 1e6, 2),
        "mb_per_km2": round(int(index[..., -1].sum()) / km2 / 1e6, 1),
        "voxels_per_column": round(int(index[..., 1].sum()) / (km2 * 1e6 / voxel_size**2), 2),
        "objects_per_tile": round(len(names) / len(done), 1),
        "scratch_mb_most": round(most / 1e6, 1),
        "scratch_written_mb_per_km2": round(saved / km2 / 1e6, 1),
        "scratch_mb_per_block": {
            name: round(size_ / totals.tasks[name] / 1e6, 2)
            for name, size_ in sorted(blocks.items())
        },
        "prepare_cpu_s": round(prepared, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def coordinator(folder: Path, count: float) -> dict[str, Any]:
    """The coordinator of a world of so many tiles of 512, with workers that do nothing: nobody
    writes a tile."""
    from earthgen.engine.compute import TaskStats
    from earthgen.engine.graph import TILE, Graph, Task, make_chain
    from earthgen.engine.pool import Pool
    from earthgen.engine.scheduler import generate_tiles
    from earthgen.engine.worker import TaskResult
    from earthgen.progress import Progress
    from earthgen.world.store import Entry, Store, create_store, open_store
    from earthgen.world.world import World
    from earthgen_procedural.geometry import ProceduralGeometry
    from earthgen_procedural.texture import ProceduralTexture
    from geo_io.frame import Frame

    @dataclass
    class Idle(Pool):
        size: int = CORES

        def call(self, method: str, argument: Any) -> Future[Any]:
            future: Future[Any] = Future()
            entry = (
                Entry((1, 1, 1, 1), (argument.x & 7, 2, 3, 4), 1000)
                if argument.stage == TILE
                else None
            )
            future.set_result(TaskResult(argument, entry, TaskStats()))
            return future

    def peak() -> float:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)

    def cpu(call: Any) -> float:
        began = time.process_time()
        call()
        return round(time.process_time() - began, 3)

    stages = ProceduralGeometry().stages()
    chain = make_chain(stages, ProceduralTexture().stages(stages[-1]))
    edge = round(count**0.5)
    frame = Frame(generate.CRS, 1.0, (0, 512 * edge), (0, 512 * edge))
    before, found = peak(), {}
    began = time.process_time()
    path = folder / f"{uuid.uuid4().hex}.zarr"
    attributes: dict[str, Any] = {"identity": {"seed": 0}, "provenance": {}, "settings": {}}
    store = create_store(path, frame, 512, attributes)
    found["create_cpu_s"] = round(time.process_time() - began, 3)
    found["empty_store_mb"] = round(store.folder.size() / 1e6, 3)
    found["empty_store_objects"] = len(list(store.folder.names()))
    graph = Graph(chain, frame, 512)
    commits: list[float] = []
    commit = Store.commit

    def timed(self: Store, entries: Any) -> None:
        began = time.process_time()
        commit(self, entries)
        commits.append(time.process_time() - began)

    began = time.process_time()
    with mock.patch.object(Store, "commit", timed):
        totals = generate_tiles(store, graph, Idle(), Progress())
    spent = time.process_time() - began
    tasks = sum(totals.tasks.values())
    found |= {
        "tiles": totals.tasks[TILE],
        "tasks": tasks,
        "s": round(spent, 2),
        "us_per_task": round(1e6 * spent / tasks, 1),
        "commit_us_per_tile": round(1e6 * sum(commits) / totals.tasks[TILE], 1),
        "commits": len(commits),
        "peak_mb": peak(),
        "grown_mb": peak() - before,
        "index_mb": round(
            sum(file.stat().st_size for file in (path / "index").glob("c.*")) / 1e6, 2
        ),
    }
    again = open_store(path, mode="r+")
    found["done_s"] = cpu(again.finished_tiles)
    found["digest_s"] = cpu(again.digest)
    found["missing_s"] = cpu(lambda: World(again).missing)
    found["resume_of_a_finished_world_s"] = cpu(
        lambda: generate_tiles(again, graph, Idle(), Progress())
    )
    tile = Task(TILE, edge // 2, edge // 2)
    one = Entry((1, 1, 1, 1), (1, 2, 3, 4), 1000)
    found["commit_of_one_tile_ms"] = round(
        1e3 * cpu(lambda: again.commit({(tile.x, tile.y): one})), 2
    )
    found["open_layers_s"] = cpu(lambda: World(again).layers())
    found["peak_with_reads_mb"] = peak()
    return found


def front(folder: Path, count: float) -> dict[str, Any]:
    """The most outputs of each stage that wait for a reader at a time, in the order in which
    tiles are visited."""
    from earthgen.engine.graph import TILE, Graph, Traversal, make_chain
    from earthgen_procedural.geometry import ProceduralGeometry
    from earthgen_procedural.texture import ProceduralTexture
    from geo_io.frame import Frame

    stages = ProceduralGeometry().stages()
    chain = make_chain(stages, ProceduralTexture().stages(stages[-1]))
    edge = round(count**0.5)
    found: dict[str, Any] = {}
    for size in SIZES:
        voxels = edge * 512 // size * size
        graph = Graph(chain, Frame(generate.CRS, 1.0, (0, voxels), (0, voxels)), size)
        walk, alive, most = (
            Traversal(graph, lambda task: False),
            Counter[str](),
            defaultdict[str, int](int),
        )
        for task in walk:
            if task.stage != TILE:
                alive[task.stage] += 1
                most[task.stage] = max(most[task.stage], alive[task.stage])
            walk.complete(task)
            for gone in walk.unneeded:
                alive[gone.stage] -= 1
            walk.unneeded.clear()
        found[str(size)] = {"width_km": voxels / 1000, "most": dict(most), "tasks": graph.counts()}
    return found


def _nothing(key: str, method: str, task: Any) -> Any:
    """A task of a Dask worker that does nothing; a module function, which travels by name."""
    from earthgen.engine.compute import TaskStats
    from earthgen.engine.graph import TILE
    from earthgen.engine.worker import TaskResult
    from earthgen.world.store import Entry

    account = TaskStats(
        {"conditions": 0.1, "procedural.land": 0.1, "procedural.surface": 0.1, "levels": 0.1}
    )
    entry = Entry((1, 1, 1, 1), (2**63, 2, 3, 4), 1000) if task.stage == TILE else None
    return TaskResult(task, entry, account)


def dask(folder: Path, count: float) -> dict[str, Any]:
    """Tasks that do nothing, through our coordinator and a Dask cluster on this machine."""
    import distributed

    cluster: Any = distributed.LocalCluster
    connected: Any = distributed.Client

    from earthgen.engine.graph import TILE, Graph, Task, Traversal, make_chain
    from earthgen.engine.pool import Pool
    from earthgen.engine.scheduler import run_tasks
    from earthgen_procedural.geometry import ProceduralGeometry
    from earthgen_procedural.texture import ProceduralTexture
    from geo_io.frame import Frame

    @dataclass
    class Idle(Pool):
        executor: Any = None

        def call(self, method: str, argument: Any) -> Future[Any]:
            future: Future[Any] = self.executor.submit(
                _nothing, "earthgen-0123456789ab", method, argument
            )
            return future

    stages = ProceduralGeometry().stages()
    chain = make_chain(stages, ProceduralTexture().stages(stages[-1]))
    edge = round(count**0.5)
    graph = Graph(chain, Frame(generate.CRS, 1.0, (0, 512 * edge), (0, 512 * edge)), 512)
    done: list[Any] = []
    with (
        cluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        connected(local) as client,
    ):
        pool = Idle(32, executor=client.get_executor(pure=False, retries=2))
        run_tasks(
            Traversal(graph, lambda task: False), Idle(2, executor=pool.executor), lambda one: None
        )  # warm
        wall, cpu = time.perf_counter(), time.process_time()
        run_tasks(Traversal(graph, lambda task: False), pool, done.append)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sent = pickle.dumps(("earthgen-0123456789ab", "do", Task(TILE, 100_000, 100_000)))
    received = pickle.dumps(next(one for one in done if one.task.stage == TILE))
    return {
        "tasks": len(done),
        "cpu_ms_per_task": round(1e3 * cpu / len(done), 3),
        "wall_ms_per_task": round(1e3 * wall / len(done), 3),
        "tasks_per_s_of_coordinator_and_scheduler": round(len(done) / cpu),
        "bytes_sent_per_task": len(sent),
        "bytes_received_per_task": len(received),
    }


def requests(folder: Path, size: float) -> dict[str, Any]:
    """Requests of one tile of a small world, on a server on this machine that speaks S3; and in
    fsspec's memory."""
    from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

    from benchmarks.engine import job_settings
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import prepare
    from earthgen.world.store import create_store, open_store
    from tests.helpers.object_store import object_store

    plan = prepare(make_job(job_settings(folder, size, 1.0, folder / "none.zarr")))
    tile = next(plan.frame.tiles(512))
    levels = plan.engine.reference(512)(*tile)
    attributes: dict[str, Any] = {"identity": {"seed": 0}, "provenance": {}, "settings": {}}
    counts: Counter[str] = Counter()
    send = AIOHTTPSession.send

    async def counted(self: Any, request: Any) -> Any:
        counts[request.method] += 1
        return await send(self, request)

    found: dict[str, Any] = {"voxels": len(levels[0].voxels)}
    with object_store() as bucket, mock.patch.object(AIOHTTPSession, "send", counted):
        for kind, url in (
            ("s3", f"{bucket}/w.zarr"),
            ("memory", f"memory://{uuid.uuid4().hex}/w.zarr"),
        ):
            rows: dict[str, Any] = {}

            def timed(name: str, call: Any, rows: dict[str, Any] = rows) -> Any:
                counts.clear()
                began = time.perf_counter()
                result = call()
                rows[name] = {
                    "wall_s": round(time.perf_counter() - began, 2),
                    **dict(sorted(counts.items())),
                }
                return result

            store = timed("create", lambda url=url: create_store(url, plan.frame, 512, attributes))
            entry = timed("write", lambda store=store: store.write(*tile, levels))
            timed("commit", partial(store.commit, {tile: entry}))
            again = timed("open", lambda url=url: open_store(url))
            timed("read_voxels", lambda again=again: again.read_voxels(*tile))
            timed("read_again", lambda again=again: again.read_voxels(*tile))
            rows["sound"] = again.check(*tile) is None
            found[kind] = rows
    return found


apart = partial(elsewhere, "benchmarks.scale")
"""Calls a function of this module in a process of its own."""


def run(quick: bool = True) -> dict[str, object]:
    """quick: one tile size and 10^4 tiles; else all sizes and up to 10^6 tiles, about half an
    hour."""
    sizes = (512,) if quick else SIZES
    side = 1024.0 if quick else 2048.0
    counts = (10**4,) if quick else (10**4, 10**5, 10**6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elsewhere("benchmarks.generate", "write_inputs", folder, (1 if quick else 2) * side + 1500)
        found: dict[str, object] = {
            f"tile_{size}_at_{metres:g}_m": apart("tiles", folder, size, side, metres)
            for metres in ((1.0,) if quick else (1.0, 2.0))
            for size in sizes
        }
        found |= {f"coordinator_{count}": apart("coordinator", folder, count) for count in counts}
        found["front"] = apart("front", folder, 2500 if quick else 22500)
        found["dask"] = apart("dask", folder, 400 if quick else 1500)
        found["requests"] = apart("requests", folder, 512)
    return found


if __name__ == "__main__":
    show("benchmarks.scale", __doc__, run)
