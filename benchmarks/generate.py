"""The main job: seconds a km2 at 1 m voxels, and how memory grows from 4 to 16 km2.

The land use is made up (a patchwork of fields, woods, villages with footprints, roads, water over
hills), so that any area has the same density; it is written to files and read back as a user's
would be. There is no peer that does this job on a CPU: the table says so instead of naming one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import elsewhere, measure

CRS = "EPSG:32632"
ORIGIN = (600_000.0, 5_400_000.0)
TARGET_S_PER_KM2 = 60.0
TARGET_GROWTH = 1.10


def write_inputs(folder: Path, side_m: float) -> None:
    """landuse.shp, buildings.gpkg and dem.tif of a square of `side_m` and a margin around it."""
    import geopandas as gpd
    import numpy as np
    import rasterio
    import shapely

    rng = np.random.default_rng(0)
    cell, margin = 250.0, 500.0
    count = int((side_m + 2 * margin) // cell)
    west, south = ORIGIN[0] - margin, ORIGIN[1] - margin
    kinds = np.array(["farmland", "meadow", "forest", "residential", "water", "industrial"])
    chosen = rng.choice(kinds, (count, count), p=[0.35, 0.2, 0.22, 0.15, 0.04, 0.04])
    shapes, classes, houses = [], [], []
    for i in range(count):
        for j in range(count):
            x, y = west + i * cell, south + j * cell
            jitter = rng.uniform(-12, 12, (4, 2))
            corners = (
                np.array([(x, y), (x + cell, y), (x + cell, y + cell), (x, y + cell)]) + jitter
            )
            shapes.append(shapely.make_valid(shapely.Polygon(corners)))
            classes.append(chosen[i, j])
            if chosen[i, j] == "residential":
                for _ in range(45):
                    hx, hy = x + rng.uniform(10, cell - 25), y + rng.uniform(10, cell - 25)
                    houses.append(
                        shapely.affinity.rotate(
                            shapely.box(hx, hy, hx + 12, hy + 9), rng.uniform(0, 90)
                        )
                    )
    gpd.GeoDataFrame({"class": classes}, geometry=shapes, crs=CRS).to_file(folder / "landuse.shp")
    gpd.GeoDataFrame({"building": ["yes"] * len(houses)}, geometry=houses, crs=CRS).to_file(
        folder / "buildings.gpkg"
    )
    step = 10.0
    n = int((side_m + 2 * margin) / step)
    x, y = np.meshgrid(west + np.arange(n) * step, south + np.arange(n) * step)
    height = 300 + 30 * np.sin(x / 700) * np.cos(y / 900) + 8 * np.sin((x + y) / 210)
    transform = rasterio.transform.from_origin(west, south + n * step, step, step)
    with rasterio.open(
        folder / "dem.tif",
        "w",
        driver="GTiff",
        width=n,
        height=n,
        count=1,
        dtype="float32",
        crs=CRS,
        transform=transform,
    ) as dem:
        dem.write(height[::-1].astype(np.float32), 1)


def command(folder: Path, side_m: float, out: Path) -> list[str | Path]:
    box = f"{ORIGIN[0]},{ORIGIN[1]},{ORIGIN[0] + side_m},{ORIGIN[1] + side_m}"
    return [
        sys.executable,
        "-m",
        "earthgen_cli",
        "generate",
        f"--bbox={box}",
        "--bbox-crs",
        CRS,
        "--crs",
        CRS,
        "--semantics",
        folder / "landuse.shp",
        "--semantics",
        folder / "buildings.gpkg",
        "--dem",
        folder / "dem.tif",
        "--voxel-size",
        "1",
        "--out",
        out,
        "--quiet",
    ]


def run() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elsewhere("benchmarks.generate", "write_inputs", folder, 4000)
        measure(
            command(folder, 100, folder / "warm.zarr")
        )  # compiles, so that the figures are of a second run
        small = measure(command(folder, 2000, folder / "small.zarr"))
        large = measure(command(folder, 4000, folder / "large.zarr"))
        info = json.loads((folder / "small.zarr" / "zarr.json").read_text())["attributes"][
            "earthgen"
        ]
        size = sum(
            file.stat().st_size for file in (folder / "small.zarr").rglob("*") if file.is_file()
        )
    growth = large.peak_mb / small.peak_mb
    return {
        "km2": 4,
        "s_per_km2": round(small.wall / 4, 2),
        "cpu_s_per_km2": round(small.cpu / 4, 2),
        "s_per_km2_at_16_km2": round(large.wall / 16, 2),
        "target_s_per_km2": TARGET_S_PER_KM2,
        "peak_mb_4_km2": round(small.peak_mb),
        "peak_mb_16_km2": round(large.peak_mb),
        "peak_16_over_4": round(growth, 3),
        "target_growth": TARGET_GROWTH,
        "disk_mb_per_km2": round(size / 4e6, 1),
        "tile_size": info["tile_size"],
        "met": small.wall / 4 < TARGET_S_PER_KM2 and growth < TARGET_GROWTH,
        "peer": "none: no other toolkit makes such a world on a CPU",
    }
