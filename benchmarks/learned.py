"""Learned worlds on a real map: seconds for a small place alone and per km2 of a larger one, the
windows made against those needed, share of the matrix-product peak, and memory.

`python -m benchmarks.learned [--side METRES] [--steps N] [--workers N] [--json]`; without the real
data beside the checkout a made-up place of the same size stands in, which the result says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import describe, elsewhere, measure

if TYPE_CHECKING:
    from earthgen.engine.graph import Chain, Graph

REAL = Path(__file__).parents[2] / "shared" / "data" / "osm_bayreuth_srtm"
REAL_CORNER = (683_476.0, 5_538_883.0)
"""South-west corner, EPSG:32632, of the 2 x 2 km of the real map that are mapped best."""

CRS = "EPSG:32632"

ALONE, LARGE = 200.0, 2000.0
"""Edges, metres, of the place alone and of the area that a figure per km2 is of."""

INSIDE = 900.0
"""Metres from the corner to the place alone."""

STEPS, WORKERS = 3, 2

CHAINS = {"heights + colour": "height-flow", "whole chain": "latent"}
"""Geometry backends; the texture is always `latent`."""

TARGETS = {
    "heights + colour": {"alone_s": 20.0, "s_per_km2": 60.0},
    "whole chain": {"alone_s": 60.0, "s_per_km2": 300.0},
}
WINDOWS_TARGETS = {"alone": 1.5, "large": 1.15}

PARTS = {
    "latent.heights": ("height-flow",),
    "latent.cells": ("struct-coarse",),
    "latent.latents": ("struct-fine",),
    "latent.voxels": ("struct-vae",),
    "latent.colours": ("tex-flow",),
}
"""The network of each stage."""


def inputs(folder: Path) -> tuple[dict[str, Any], tuple[float, float], str]:
    """The inputs of a job, the south-west corner of the large area, and where they come from."""
    if REAL.is_dir():
        vectors = REAL / "landuse_utm.gpkg"
        given = {
            "semantics": [f"{vectors}:landuse", f"{vectors}:buildings"],
            "dem": str(REAL / "srtm3_4326.tif"),
        }
        return given, REAL_CORNER, "OpenStreetMap and SRTM north of Bayreuth"
    from benchmarks.generate import ORIGIN, write_inputs

    write_inputs(folder, LARGE)
    given = {
        "semantics": [str(folder / "landuse.shp"), str(folder / "buildings.gpkg")],
        "dem": str(folder / "dem.tif"),
    }
    return given, ORIGIN, "a made-up place: the real data do not lie beside the checkout"


def settings(
    given: dict[str, Any],
    corner: tuple[float, float],
    geometry: str,
    inside: float,
    side: float,
    steps: int,
) -> dict[str, Any]:
    """The settings of a job on a square."""
    west, south = corner[0] + inside, corner[1] + inside
    return {
        **given,
        "bbox": [west, south, west + side, south + side],
        "bbox_crs": CRS,
        "crs": CRS,
        "voxel_size": 1.0,
        "geometry": geometry,
        "texture": "latent",
        "geometry_options": {"steps": steps},
        "texture_options": {"steps": steps},
    }


def extents(chain: Chain, voxel_size: float) -> dict[str, int]:
    """How far around a place each stage has to be known, voxels: the sum of the margins that its
    readers read, without rounding to whole windows."""
    from earthgen.engine.graph import reads_own
    from earthgen.voxels.pyramid import LEVEL_HALO

    found = dict.fromkeys((stage.name for stage in chain.stages), 0)
    solid = chain[chain.geometry]
    found[solid.name] = 0 if solid.margin >= LEVEL_HALO else LEVEL_HALO
    for reader in reversed(chain.stages):
        for read in reader.reads:
            if read.source not in chain:
                continue
            source = chain[read.source]
            wide = found[reader.name]
            if not reads_own(reader, read, source, voxel_size):
                halo = read.halo(voxel_size * reader.scale)
                wide += (reader.margin + halo) * reader.scale
            found[source.name] = max(found[source.name], wide)
    return found


def windows(graph: Graph) -> dict[str, dict[str, Any]]:
    """Windows of each stage: made; needed by what later stages read around the place; and those
    that cover the place itself."""
    chain, frame = graph.chain, graph.frame
    around = extents(chain, frame.voxel_size)
    counts = graph.counts()
    found = {}
    for group, members in graph.groups.items():
        for name in members:
            stage = chain[name]
            reach = stage.counted * stage.scale

            def meeting(wide: int, pitch: int = stage.pitch) -> int:
                total = 1
                for low, high in (frame.x, frame.y):
                    total *= -(-(high + wide) // pitch) - (low - wide) // pitch
                return total

            needed = meeting(around[name] + reach)
            made = counts[group]
            found[name] = {
                "made": made,
                "needed": needed,
                "cover": meeting(reach),
                "made_over_needed": round(made / needed, 2),
                "window": stage.window * stage.scale,
            }
    return found


def count(folder: Path, which: float, inside: float, side: float) -> dict[str, Any]:
    """Windows of a job; nothing is computed. `which` numbers `CHAINS`."""
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import prepare

    given, corner, _ = inputs(folder)
    geometry = list(CHAINS.values())[int(which)]
    values = settings(given, corner, geometry, inside, side, STEPS)
    job = make_job({**values, "out": folder / "none.zarr"})
    return windows(prepare(job).engine.graph(job.tile_size))


def peaks(folder: Path) -> dict[str, float]:
    """GFLOP/s of the best matrix product on one thread, by dtype."""
    import torch

    torch.set_num_threads(1)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        best = float("inf")
        for _ in range(8):
            began = time.process_time()
            a @ b
            best = min(best, time.process_time() - began)
        found[name] = round(2 * 1024**3 / best / 1e9, 1)
    return found


def flops(folder: Path, which: float, steps: float) -> dict[str, float]:
    """Products of a window of each stage, FLOP: those of the shipped preset on a schematic town."""
    from earthgen.models.cost import part_cost
    from earthgen.models.weights.bundled import bundled_weights
    from earthgen.models.weights.card import open_weights

    weights = bundled_weights()
    assert weights is not None
    found = {}
    for name, window in count(folder, which, INSIDE, ALONE).items():
        for part in PARTS.get(name, ()):
            header = open_weights(weights).parts[part]
            cost = part_cost(header.preset, part, window["window"], heights=True)
            times = 1 if part == "struct-vae" else int(steps)
            found[name] = float(cost.flops * times + cost.condition_flops)
    return found


def make_world(path: Path) -> None:
    """Make the world of a job file and write the seconds of its stages beside it."""
    from earthgen.jobs.generate import run as run_job
    from earthgen.jobs.job import make_job

    report = run_job(make_job(json.loads(path.read_text())))
    path.with_suffix(".report.json").write_text(json.dumps(report.work))


def timed(
    folder: Path, name: str, values: dict[str, Any], workers: int
) -> tuple[Any, dict[str, float]]:
    """Wall, CPU and peak memory of a job in a process of its own, and the seconds of its stages."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**values, "out": str(folder / f"{name}.zarr"), "workers": workers}))
    ran = measure([sys.executable, "-m", "benchmarks.learned", "--job", str(file)])
    return ran, json.loads(file.with_suffix(".report.json").read_text())


def run(side: float = LARGE, steps: int = STEPS, workers: int = WORKERS) -> dict[str, object]:
    result: dict[str, object] = {"steps": steps, "workers": workers, "large_km2": side**2 / 1e6}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given, corner, result["map"] = inputs(folder)
        peak = elsewhere("benchmarks.learned", "peaks", folder)
        result["peak_gflops"] = peak
        warm = settings(given, corner, "latent", INSIDE, 32, 1)
        timed(folder, "warm", warm, 1)  # compiles, so that the figures are of later runs
        for which, (chain, geometry) in enumerate(CHAINS.items()):
            short = geometry.replace("-", "_")
            alone, stages = timed(
                folder,
                f"{short}_alone",
                settings(given, corner, geometry, INSIDE, ALONE, steps),
                workers,
            )
            large, _ = timed(
                folder, f"{short}_large", settings(given, corner, geometry, 0, side, steps), workers
            )
            made = {
                "alone": elsewhere("benchmarks.learned", "count", folder, which, INSIDE, ALONE),
                "large": elsewhere("benchmarks.learned", "count", folder, which, 0, side),
            }
            work = elsewhere("benchmarks.learned", "flops", folder, which, steps)
            share = {
                stage: round(
                    each * made["alone"][stage]["made"] / stages[stage] / 1e9 / max(peak.values()),
                    2,
                )
                for stage, each in work.items()
                if stages.get(stage)
            }
            worst = {
                size: max(found[stage]["made_over_needed"] for stage in work)
                for size, found in made.items()
            }
            km2 = side**2 / 1e6
            result[chain] = {
                "alone_s": round(alone.wall, 1),
                "alone_cpu_s": round(alone.cpu, 1),
                "s_per_km2": round(large.wall / km2, 1),
                "cpu_s_per_km2": round(large.cpu / km2, 1),
                "peak_mb_alone": round(alone.peak_mb),
                "peak_mb_large": round(large.peak_mb),
                "stage_s_alone": {key: round(value, 2) for key, value in stages.items()},
                "share_of_peak": share,
                "windows_alone": made["alone"],
                "windows_large": made["large"],
                "windows_made_over_needed": worst,
                "targets": TARGETS[chain] | {"windows_made_over_needed": WINDOWS_TARGETS},
                "met": alone.wall <= TARGETS[chain]["alone_s"]
                and large.wall / km2 <= TARGETS[chain]["s_per_km2"]
                and all(worst[size] <= WINDOWS_TARGETS[size] for size in worst),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned", description=__doc__)
    parser.add_argument("--side", type=float, default=LARGE, help="metres of the large area")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the flows")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        make_world(options.job)
        return
    found = run(options.side, options.steps, options.workers)
    if options.json:
        print(json.dumps({"machine": describe(), "learned": found}, indent=2))
        return
    for key, value in found.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()
