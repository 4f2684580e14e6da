"""Exports: CPU seconds and megabytes a km2 for each format and level, and how memory grows.

    python -m benchmarks delivery --json
    python -m benchmarks.delivery --quick

The place is that of the demo (examples/data: villages, fields and woods); memory is measured on the
made-up land of the benchmark `generate`, which is as large as one likes. CPU seconds are those of
the whole command, start of Python included, after a first run that compiles.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.generate import command
from benchmarks.machine import elsewhere, measure, show

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
CRS = "EPSG:32632"
CORNER = (685_200.0, 5_542_100.0)
"""South-west corner of the place, inside the demo's."""

SIDE, QUICK_SIDE = 1000.0, 500.0
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
}
"""What is measured: format, and what follows the first word of the name is a variant's options."""

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
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
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


def packed(folder: Path, world: Path, km2: float) -> dict[str, object] | None:
    """What gltfpack makes of our plain mesh, where it is installed."""
    program = shutil.which("gltfpack")
    if program is None:
        return None
    measure(export_command(world, "glb", folder / "out"))
    run = measure([program, "-cc", "-i", folder / "out" / "world.glb", "-o", folder / "p.glb"])
    size = (folder / "p.glb").stat().st_size
    shutil.rmtree(folder / "out")
    return {"cpu_s_per_km2": round(run.cpu / km2, 1), "mb_per_km2": round(size / 1e6 / km2, 2)}


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
    """Measure; quick: a quarter of a km2, level 1, and no memory of large places."""
    side = QUICK_SIDE if quick else SIDE
    km2 = side * side / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = folder / "world.zarr"
        make_world(world, side)
        for variant in FORMATS:  # compiles
            measure(
                export_command(world, variant, folder / "out", 8 if "tree" not in variant else 1)
            )
            shutil.rmtree(folder / "out")
        result: dict[str, object] = {"km2": km2}
        for variant in FORMATS:
            levels = (1,) if quick or variant.startswith(("3dtiles", "cog")) else (1, 2, 4, 8)
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
        peer = packed(folder, world, km2)
        result["peers"] = {**PUBLISHED, "gltfpack -cc of our glb": peer or "not installed"}
        if not quick:
            result |= memory(folder)
    return result


if __name__ == "__main__":
    show("benchmarks.delivery", __doc__, run)
