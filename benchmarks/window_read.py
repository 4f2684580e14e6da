"""Reading a 2 km window of a 500 MB shapefile: what the window costs, not what the file costs.

Side by side: earthgen's semantics reader, geopandas with a bounding box, and geopandas reading the
whole file. The window's own cost is what reading the same features costs from a file that holds
nothing else. Each runs in a process of its own, and its start-up (the same process reading nothing)
is taken off.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.machine import elsewhere, measure, median

CRS = "EPSG:32632"
WINDOW = (640_000.0, 5_440_000.0, 642_000.0, 5_442_000.0)
FEATURES = 1_000_000
VERTICES = 24

OURS = """
import sys
from geo_io.frame import Frame
from geo_io.legend import builtin_crosswalks
from geo_io.semantics.reader import open_semantics
from geo_io.semantics.options import SemanticsOptions
frame = Frame("EPSG:32632", 2.0, (320_000, 321_000), (2_720_000, 2_721_000))
if sys.argv[1] != "-":
    options = SemanticsOptions(None, (), builtin_crosswalks(), None)
    reader = open_semantics([sys.argv[1]], frame, options)
    seen = reader.read(frame)
    assert (seen.cover > 0).mean() > 0.5
"""
BOX = """
import sys, geopandas
if sys.argv[1] != "-":
    box = (640_000.0, 5_440_000.0, 642_000.0, 5_442_000.0)
    assert len(geopandas.read_file(sys.argv[1], bbox=box))
"""
WHOLE = """
import sys, geopandas
if sys.argv[1] != "-":
    assert len(geopandas.read_file(sys.argv[1]))
"""


def write_inputs(folder: Path) -> None:
    """big.shp, and small.shp with what of it meets the window."""
    import geopandas as gpd
    import numpy as np
    import shapely

    side = int(np.sqrt(FEATURES))
    i, j = np.divmod(np.arange(side * side), side)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(i))  # no spatial order: the worst case for a file without an index
    x, y = 600_000 + i[order] * 100.0, 5_400_000 + j[order] * 100.0
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 50
    shapes = shapely.polygons(np.stack([x, y], axis=1)[:, None, :] + 50 + ring[None])
    kinds = np.array(["forest", "farmland", "meadow", "residential"])[rng.integers(0, 4, len(x))]
    table = gpd.GeoDataFrame({"landuse": kinds}, geometry=shapes, crs=CRS)
    table.to_file(folder / "big.shp")
    table[table.intersects(shapely.box(*WINDOW).buffer(1200))].to_file(folder / "small.shp")


def cost(script: str, path: Path | str, rounds: int) -> tuple[float, float]:
    """Median wall seconds above start-up, and median peak MB."""
    runs, idle = [], []
    for _ in range(rounds):
        runs.append(measure([sys.executable, "-c", script, path]))
        idle.append(measure([sys.executable, "-c", script, "-"]))
    return median(runs, "wall") - median(idle, "wall"), median(runs, "peak_mb")


def run(rounds: int = 3) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elsewhere("benchmarks.window_read", "write_inputs", folder)
        size = sum((folder / f"big.{end}").stat().st_size for end in ("shp", "shx", "dbf")) / 1e6
        cost(OURS, folder / "big.shp", 1)  # the file is in the cache for all of them
        big, peak = cost(OURS, folder / "big.shp", rounds)
        small, small_peak = cost(OURS, folder / "small.shp", rounds)
        peer, _ = cost(BOX, folder / "big.shp", rounds)
        whole, whole_peak = cost(WHOLE, folder / "big.shp", 1)
    return {
        "file_mb": round(size),
        "window_s": round(big, 2),
        "window_alone_s": round(small, 2),
        "window_over_alone": round(big / small, 2),
        "geopandas_bbox_s": round(peer, 2),
        "vs_geopandas_bbox": round(big / peer, 2),
        "geopandas_whole_s": round(whole, 2),
        "peak_mb": round(peak),
        "peak_mb_alone": round(small_peak),
        "peak_mb_whole": round(whole_peak),
        "limit": "without a .qix index the bounding box of every shape in the .shp is looked at "
        "once",
    }
