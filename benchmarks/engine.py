"""The engine: what it costs beside the stages' own work, and how that grows with workers and area.

    python -m benchmarks.engine --json [--quick]

The peers of a task graph are a plain loop over the tiles (no graph, no ledger, nothing that
survives a crash) and Dask's own way to hold a graph. Nothing else runs a world's generation; the
table says so instead of naming one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import generate, seams
from benchmarks.machine import Run, elsewhere, measure, show

TILE = 512  # voxels
TASKS = 10**6


def job_settings(folder: Path, side_m: float, voxel_size: float, out: Path) -> dict[str, Any]:
    """A square whose edges lie on the lattice of tiles, so that no window is half used."""
    tile = TILE * voxel_size
    west, south = (round(value / tile) * tile for value in generate.ORIGIN)
    return {
        "bbox": (west, south, west + side_m, south + side_m),
        "bbox_crs": generate.CRS,
        "crs": generate.CRS,
        "semantics": [str(folder / "landuse.shp"), str(folder / "buildings.gpkg")],
        "dem": str(folder / "dem.tif"),
        "voxel_size": voxel_size,
        "tile_size": TILE,
        "out": out,
    }


def command(settings: dict[str, Any], workers: int) -> list[str | Path]:
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "earthgen_cli",
        "generate",
        "--quiet",
        "--overwrite",
    ]
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if name == "bbox":
            words.append(f"{option}={','.join(map(str, value))}")
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [option, str(one)]
    return [*words, "--workers", str(workers)]


def overhead(folder: Path, tiles: float) -> dict[str, float]:
    """One worker in this process, against a plain loop over the same tiles and stages."""
    from earthgen.engine.scheduler import generate_tiles, open_pool
    from earthgen.engine.worker import WorkerContext
    from earthgen.jobs.generate import run
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import prepare
    from earthgen.world.store import create_store

    side = tiles * TILE
    run(
        make_job({**job_settings(folder, 64.0, 1.0, folder / "warm.zarr"), "overwrite": True})
    )  # loads and compiles
    plan = prepare(make_job(job_settings(folder, side, 1.0, folder / "w.zarr")))
    attributes = {"identity": plan.identity, "provenance": {}, "settings": {}}
    from earthgen.progress import Progress

    store = create_store(folder / "engine.zarr", plan.frame, TILE, attributes)
    graph = plan.engine.graph(TILE)
    with open_pool(WorkerContext(plan.engine, store.path, TILE)) as pool:
        began = time.perf_counter()
        totals = generate_tiles(store, graph, pool, Progress())
        whole = time.perf_counter() - began
    own = sum(totals.seconds.values())
    bare = create_store(folder / "loop.zarr", plan.frame, TILE, attributes)
    began = time.perf_counter()
    make = plan.engine.reference(TILE)
    for tx, ty in plan.frame.tiles(TILE):
        bare.write(tx, ty, make(tx, ty))
    loop = time.perf_counter() - began
    return {
        "km2": plan.frame.area_km2,
        "own_s": own,
        "engine_s": whole,
        "loop_s": loop,
        "overhead": whole / own - 1,
        **{f"{name}_s": seconds for name, seconds in totals.seconds.items()},
    }


def plan_graph(folder: Path, count: float) -> dict[str, float]:
    """Go through a graph of so many tasks as the scheduler does; peak memory of this process."""
    import resource

    from earthgen.engine.graph import Graph, Traversal, make_chain
    from earthgen_procedural.geometry import ProceduralGeometry
    from earthgen_procedural.texture import ProceduralTexture
    from geo_io.frame import Frame

    stages = ProceduralGeometry().stages()
    chain = make_chain(stages, ProceduralTexture().stages(stages[-1]))
    edge = int((count / 1.25) ** 0.5) + 1  # a land window for every four tiles
    graph = Graph(chain, Frame(generate.CRS, 1.0, (0, TILE * edge), (0, TILE * edge)), TILE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    walk, tasks, front = Traversal(graph, lambda task: False), 0, 0
    for task in walk:
        walk.complete(task)
        walk.unneeded.clear()
        tasks += 1
        front = max(front, len(walk._readers_left))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "tasks": tasks,
        "s": seconds,
        "peak_mb": peak / 1e3,
        "grown_mb": (peak - before) / 1e3,
        "front": front,
    }


def plan_dask(folder: Path, count: float) -> dict[str, float]:
    """The same number of tasks with the same neighbours as a Dask graph, built and ordered."""
    import resource

    import dask.order

    edge = int((count / 2) ** 0.5) + 1
    began = time.perf_counter()
    graph: dict[Any, Any] = {}
    for y in range(-1, edge + 1):
        for x in range(-1, edge + 1):
            graph["land", x, y] = (abs, 1)
    for y in range(edge):
        for x in range(edge):
            graph["tile", x, y] = (
                max,
                [("land", x + i, y + j) for j in (-1, 0, 1) for i in (-1, 0, 1)],
            )
    dask.order.order(graph)
    seconds = time.perf_counter() - began
    return {
        "tasks": len(graph),
        "s": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def seam_ratios(found: dict[str, Any]) -> dict[str, float]:
    """Jump across window borders over jump elsewhere, of a smooth field, by rule."""
    return {
        rule: values["seam_relief"]
        for rule, values in found.items()
        if isinstance(values, dict) and "seam_relief" in values
    }


apart = partial(elsewhere, "benchmarks.engine")
"""Calls a function of this module in a process of its own."""


def run(quick: bool = False) -> dict[str, object]:
    """quick: a tenth of the areas, to see that it works; its figures mean little."""
    large = 3 * TILE * 2.0 if quick else 10 * TILE * 2.0  # metres; 10.24 km is 104.9 km2
    small = 2 * TILE * 2.0  # 4.2 km2
    tasks = TASKS // 10 if quick else TASKS
    seam_ratio = seam_ratios(seams.run())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elsewhere("benchmarks.generate", "write_inputs", folder, large + 1500)
        engine = apart("overhead", folder, 2 if quick else 3)
        side = 2 * TILE if quick else 6 * TILE
        speed: dict[int, list[Run]] = {1: [], 2: []}
        for workers in (1, 2) * (1 if quick else 2):  # in turn: the speed of shared cores drifts
            speed[workers].append(
                measure(command(job_settings(folder, side, 1.0, folder / "s.zarr"), workers))
            )
        area: dict[float, Run] = {
            metres: measure(command(job_settings(folder, metres, 2.0, folder / "a.zarr"), 1))
            for metres in (small, large)
        }
        graph, dask = (
            apart("plan_graph", folder, tasks),
            apart("plan_dask", folder, tasks / 10),
        )
    ratio = area[large].wall / (large / 1000) ** 2 / (area[small].wall / (small / 1000) ** 2)
    rss = area[large].peak_mb / area[small].peak_mb
    seconds = {workers: [found.wall for found in runs] for workers, runs in speed.items()}
    speedup = sum(seconds[1]) / sum(seconds[2])
    return {
        "overhead": round(engine["overhead"], 4),
        "speedup_2_workers": round(speedup, 3),
        "rss_100_over_4": round(rss, 3),
        "cost_100_over_4": round(ratio, 3),
        "plan_1m_tasks_s": round(graph["s"] * TASKS / graph["tasks"], 1),
        "seam_ratio": seam_ratio,
        "targets": {
            "overhead": 0.05,
            "speedup_2_workers": 1.8,
            "rss_100_over_4": 1.1,
            "cost_100_over_4": 1.1,
            "plan_1m_tasks_s": 60.0,
        },
        "met": engine["overhead"] <= 0.05
        and speedup >= 1.8
        and rss <= 1.1
        and ratio <= 1.1
        and graph["s"] * TASKS / graph["tasks"] < 60
        and graph["peak_mb"] < 2000,
        "engine_over_plain_loop": round(engine["engine_s"] / engine["loop_s"], 3),
        "overhead_run": {key: round(value, 3) for key, value in engine.items()},
        "speedup_km2": round((side / 1000) ** 2, 2),
        "s_1_worker": [round(value, 1) for value in seconds[1]],
        "s_2_workers": [round(value, 1) for value in seconds[2]],
        "km2": [round((metres / 1000) ** 2, 1) for metres in area],
        "s_per_km2": [
            round(found.wall / (metres / 1000) ** 2, 3) for metres, found in area.items()
        ],
        "peak_mb": [round(found.peak_mb) for found in area.values()],
        "plan": {key: round(value, 2) for key, value in graph.items()},
        "plan_in_dask": {key: round(value, 2) for key, value in dask.items()},
        "us_per_task_over_dask": round(
            graph["s"] / graph["tasks"] / (dask["s"] / dask["tasks"]), 2
        ),
        "peer": "a plain loop (overhead), Dask's graph and its ordering (plan); no other program "
        "generates such worlds",
    }


if __name__ == "__main__":
    show("benchmarks.engine", __doc__, run)
