"""Exports: CPU seconds and megabytes a km2 for each format and level, how memory grows, and how
long a browser waits.

    python -m benchmarks delivery --json
    python -m benchmarks.delivery --quick

The place is that of the demo (examples/data: villages, fields and woods); memory is measured on the
made-up land of the benchmark `generate`, which is as large as one likes. CPU seconds are those of
the whole command, start of Python included, after a first run that compiles. The browser is a
headless Chromium that draws on the CPU, at 20 MB/s: what it waits for is data and our program, and
its drawing is slower than a graphics card's.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.generate import command
from benchmarks.machine import elsewhere, measure, show

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
CRS = "EPSG:32632"
CORNER = (685_200.0, 5_542_100.0)
"""South-west corner of the place, inside the demo's."""

SIDE, QUICK_SIDE = 1000.0, 300.0
"""Edge of the place, metres."""

TARGET_CPU_S = 25.0
TARGET_MB = {8: 0.5, 4: 2.5, 2: 12.0, 1: 50.0}
"""Megabytes a km2 of the meshes of 3D Tiles by level."""

TARGET_SPLAT_BYTES = 11.0
TARGET_GROWTH = 1.10

FORMATS = {
    "3dtiles": [],
    "3dtiles meshopt": ["compression=meshopt"],
    "3dtiles trees": ["trees=instances"],
    "3dtiles spz": ["content=splats", "splats=spz"],
    "glb": [],
    "glb trees": ["trees=instances"],
    "glb voxel": ["style=voxel"],
    "stl": ["binary=yes"],
    "obj": [],
    "ply": [],
    "ply inria": ["layout=inria"],
    "spz": [],
    "cog": [],
    "gpkg": [],
    "geoparquet": [],
    "cityjson": [],
    "laz": [],
    "copc": [],
    "umep": [],
    "palm": [],
    "heightmap": [],
    "schem": [],
    "html": [],
}
"""What is measured: format, and what follows the first word of the name is a variant's options."""

LEVELLED = ("glb", "stl", "obj", "ply", "spz")
"""Formats that are measured at each level; 3D Tiles have all in one export."""

SPEED = 20e6
"""Bytes a second of the browser's network."""

LATENCY = 5.0
"""Milliseconds."""

TARGET_FIRST_S, TARGET_FAR_S, TARGET_NEAR_MB, TARGET_NEAR_TRIANGLES = 2.0, 4.0, 25.0, 1.5e6

PUBLISHED = {"gotiler": "0.74 million splats a second, as its authors say"}


def make_world(out: Path, side: float) -> None:
    """Generate the place of the demo's data."""
    box = f"{CORNER[0]},{CORNER[1]},{CORNER[0] + side},{CORNER[1] + side}"
    words = [sys.executable, "-m", "earthgen_cli", "generate", f"--bbox={box}", "--bbox-crs", CRS]
    for source in ("landuse.shp", "osm.gpkg:lines", "osm.gpkg:buildings"):
        words += ["--semantics", f"{DATA}/{source}"]
    measure([*words, "--dem", f"{DATA}/srtm3.tif", "--crs", CRS, "--out", out, "--quiet"])


def export_command(world: Path, name: str, out: Path, level: int = 1) -> list[str | Path]:
    """Return the command that exports a variant of `FORMATS`."""
    words: list[str | Path] = [sys.executable, "-m", "earthgen_cli", "export", world]
    words += ["--format", name.split()[0], "--out", out, "--level", str(level), "--quiet"]
    for option in FORMATS[name]:
        words += ["--set", option]
    return words


def measure_export(folder: Path, world: Path, name: str, km2: float, level: int) -> dict:
    """Export once, and return CPU seconds and megabytes a km2, and megabytes of memory."""
    out = folder / "out"
    run = measure(export_command(world, name, out, level))
    size = _bytes(out)
    result: dict[str, object] = {
        "cpu_s_per_km2": round(run.cpu / km2, 1),
        "mb_per_km2": round(size / 1e6 / km2, 2),
        "peak_mb": round(run.peak_mb),
    }
    if name.startswith("3dtiles"):
        extras = json.loads((out / "tileset.json").read_text())["extras"]
        result["mb_per_km2_by_level"] = {
            level: round(size / 1e6 / km2, 2) for level, size in extras["bytes"].items()
        }
        result["largest_tile_mb"] = round(
            max(path.stat().st_size for path in out.rglob("*.glb")) / 1e6, 2
        )
        result["placing_error_mm"] = round(extras["placing_error"] * 1000, 1)
        splats = sum(extras["splats"].values())
        if splats:
            result["bytes_per_splat"] = round(sum(extras["bytes"].values()) / splats, 1)
    shutil.rmtree(out)
    return result


def peers(folder: Path, world: Path, km2: float) -> dict[str, object]:
    """What others make of the same: our mesh and our points, and what they take for it."""
    measure(export_command(world, "glb", folder / "out"))
    measure(export_command(world, "laz", folder / "points"))
    mesh, points = folder / "out" / "world.glb", next((folder / "points").glob("*.laz"))
    rewrite = (  # without colours: it cannot write those that it reads here
        "import sys, trimesh; mesh = trimesh.load(sys.argv[1], force='mesh'); "
        "trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(sys.argv[2])"
    )
    python = [sys.executable, "-c"]
    convert = "from py3dtiles.command_line import main; main()"
    commands: dict[str, list[str | Path] | None] = {
        "gltfpack -cc of our glb": _where(
            shutil.which("gltfpack"), "-cc", "-i", mesh, "-o", folder / "peer" / "p.glb"
        ),
        "trimesh, the shape of our glb as glb": [*python, rewrite, mesh, folder / "peer" / "t.glb"]
        if find_spec("trimesh")
        else None,
        "py3dtiles, our laz as 3D Tiles": [
            *(*python, convert, "convert", points, "--out", folder / "peer" / "tiles"),
            *("--jobs", "1"),
        ]
        if find_spec("py3dtiles")
        else None,
    }
    found: dict[str, object] = dict(PUBLISHED)
    for name, words in commands.items():
        if words is None:
            found[name] = "not installed"
            continue
        (folder / "peer").mkdir()
        run = measure(words)
        found[name] = {
            "cpu_s_per_km2": round(run.cpu / km2, 1),
            "mb_per_km2": round(_bytes(folder / "peer") / 1e6 / km2, 2),
            "peak_mb": round(run.peak_mb),
        }
        shutil.rmtree(folder / "peer")
    shutil.rmtree(folder / "out")
    shutil.rmtree(folder / "points")
    return found


def _where(program: str | None, *words: str | Path) -> list[str | Path] | None:
    return None if program is None else [program, *words]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def browser(folder: Path, world: Path) -> dict[str, Any]:
    """How long a visitor of the page waits: for the first picture, and until a view is whole."""
    from earthgen_cli.serving import open_server
    from tests.helpers.chromium import NAMES, chromium_page

    if not any(map(shutil.which, NAMES)):
        return {"browser": "no Chromium"}
    measure([*export_command(world, "html", folder / "page"), "--set", "one_file=no"])
    server = open_server(folder / "page")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with chromium_page(1280, 800) as page:
            page.call(
                "Network.emulateNetworkConditions",
                offline=False,
                latency=LATENCY,
                downloadThroughput=SPEED,
                uploadThroughput=SPEED,
            )
            began = time.perf_counter()
            page.call("Page.navigate", url=server.url)
            drawn = "window.earthgen?.view?.sides[0].tiles.drawn"
            page.wait(f"{drawn}?.triangles > 0", 300)
            first = time.perf_counter() - began
            page.wait("window.earthgen.settled", 300)
            far = time.perf_counter() - began
            result = {
                "first_picture_s": round(first, 2),
                "far_view_settled_s": round(far, 2),
                "far_view_mb": round(page.received / 1e6, 2),
                "far_view_triangles": page.run(f"{drawn}.triangles"),
            }
            before = page.received
            began = time.perf_counter()
            page.run("earthgen.view.step(0, 0, 0.85)")
            time.sleep(0.3)
            page.wait("earthgen.settled", 300)
            result |= {
                "near_view_settled_s": round(time.perf_counter() - began, 2),
                "near_view_mb": round((page.received - before) / 1e6, 2),
                "near_view_triangles": page.run(f"{drawn}.triangles"),
            }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        shutil.rmtree(folder / "page")
    result["browser_met"] = (
        first <= TARGET_FIRST_S
        and far <= TARGET_FAR_S
        and result["near_view_mb"] <= TARGET_NEAR_MB
        and result["near_view_triangles"] <= TARGET_NEAR_TRIANGLES
    )
    return result


def memory(folder: Path) -> dict[str, object]:
    """Peak memory of the tiles of 4 and of 16 km2."""
    elsewhere("benchmarks.generate", "write_inputs", folder, 4000)
    peaks = {}
    for side in (2000, 4000):
        world = folder / f"{side}.zarr"
        measure(command(folder, side, world))
        run = measure(export_command(world, "3dtiles", folder / "out"))
        shutil.rmtree(folder / "out")
        peaks[side] = run.peak_mb
    growth = peaks[4000] / peaks[2000]
    return {
        "peak_mb_4_km2": round(peaks[2000]),
        "peak_mb_16_km2": round(peaks[4000]),
        "peak_16_over_4": round(growth, 3),
        "memory_met": growth < TARGET_GROWTH,
    }


def run(quick: bool = False) -> dict[str, object]:
    """Measure; quick: a small place, level 1, and no memory of large places."""
    side = QUICK_SIDE if quick else SIDE
    km2 = side * side / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = folder / "world.zarr"
        make_world(world, side)
        for variant in FORMATS:  # compiles
            level = 8 if variant.split()[0] in LEVELLED and "tree" not in variant else 1
            measure(export_command(world, variant, folder / "out", level))
            shutil.rmtree(folder / "out")
        result: dict[str, object] = {"km2": km2}
        for variant in FORMATS:
            levelled = not quick and variant.split()[0] in LEVELLED
            levels = (1, 2, 4, 8) if levelled else (1,)
            for level in levels:
                if "tree" in variant and level > 2:
                    continue
                key = variant if level == 1 else f"{variant} level {level}"
                result[key] = measure_export(folder, world, variant, km2, level)
        tiles = result["3dtiles"]
        assert isinstance(tiles, dict)
        sizes = tiles["mb_per_km2_by_level"]
        result["target_cpu_s_per_km2"] = TARGET_CPU_S
        result["target_mb_per_km2"] = TARGET_MB
        result["met"] = tiles["cpu_s_per_km2"] <= TARGET_CPU_S and all(
            sizes[str(level)] <= most for level, most in TARGET_MB.items()
        )
        result["peers"] = peers(folder, world, km2)
        result |= browser(folder, world)
        if not quick:
            result |= memory(folder)
    return result


if __name__ == "__main__":
    show("benchmarks.delivery", __doc__, run)
