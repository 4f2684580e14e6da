"""One world, made in every way and under every condition that must not matter: one digest.

    python -m benchmarks determinism [--python PATH ...] [--markdown]

The ways are those of tests/helpers/one_world.py, on a place of 192 m; conditions are those of the
process: threads, locale, time zone, hash seed, umask, and other interpreters, each of which needs
earthgen installed (`--python venv/bin/python`, repeated).
"""

from __future__ import annotations

import argparse
import json
import locale
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.machine import describe
from tests.helpers import one_world
from tests.helpers.one_world import Place

BOX = (684000.0, 5539808.0, 684192.0, 5540000.0)
"""The place: multiples of 8 voxels of 2 m in EPSG:32632."""

TILE_SIZE = 64

VERSIONS = ("numpy", "numba", "zarr", "rasterio", "geopandas", "shapely", "pyproj")
"""Packages whose versions stand beside an interpreter."""


def write_inputs(folder: Path) -> dict[str, object]:
    """Write land use, a building, a road and heights; return the settings that name them."""
    import geopandas as gpd
    import numpy as np
    import rasterio
    import shapely

    west, south, east, north = BOX
    middle = (west + east) / 2
    shapes = [
        shapely.box(west - 50, south - 50, middle, north + 50),
        shapely.box(middle, south - 50, east + 50, north + 50),
        shapely.box(west + 40, south + 40, west + 60, south + 54),
        shapely.box(middle - 30, north - 70, middle + 24, north - 55),
        shapely.LineString([(west - 50, north - 20), (east + 50, south + 60)]),
    ]
    values = {
        "landuse": ["meadow", "forest", None, None, None],
        "building": [None, None, "house", "yes", None],
        "highway": [None, None, None, None, "residential"],
        "name": ["Wiese", "Wald", "Straße", "İstanbul", "道"],
    }
    land = gpd.GeoDataFrame(values, geometry=shapes, crs=one_world.CRS)
    land.to_file(folder / "land.gpkg", engine="pyogrio")
    x, y = np.meshgrid(np.arange(40) * 10.0, np.arange(40) * 10.0)
    heights = (300 + 4 * np.sin(x / 60) + 3 * np.cos(y / 45)).astype(np.float32)
    transform = rasterio.transform.from_origin(west - 100, north + 100, 10, 10)
    profile = {"driver": "GTiff", "width": 40, "height": 40, "count": 1, "dtype": "float32"}
    with rasterio.open(
        folder / "dem.tif", "w", **profile, crs=one_world.CRS, transform=transform
    ) as dem:
        dem.write(heights, 1)
    return {"semantics": [str(folder / "land.gpkg")], "dem": str(folder / "dem.tif"), "seed": 5}


def ways(place: Place) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Yield (kind, name, call that gives a digest)."""
    for size in (72, 128, 512):
        yield "tile size", f"{size} voxels", lambda size=size: one_world.tiles_of(place, size)
    yield "order", "the last tile first", lambda: one_world.reversed_order(place)
    for count, scheduler in ((2, None), (3, None), (2, "threads")):
        name = f"{count} {scheduler or 'processes'}"
        yield "workers", name, lambda c=count, s=scheduler: one_world.workers(place, c, s)
    yield "extent", "four extensions of the middle", lambda: one_world.extended(place)
    yield "extent", "nine crops, added up", lambda: one_world.crops(place)
    yield "restart", "killed twice, and resumed", lambda: one_world.killed(place, 2)
    for kind, name, more in conditions():
        yield kind, name, lambda name=name, more=more: under(place, name, more)


def conditions() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield (kind, name, variables of the environment)."""
    for count in (1, 2, 4):
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        yield (
            "threads",
            f"{count}",
            {name: str(count) for name in names} | {"GDAL_NUM_THREADS": str(count)},
        )
    for name in ("C", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "ar_EG.UTF-8"):
        if available(name):
            yield "locale", name, {"LC_ALL": name, "LANG": name}
    for name in ("Pacific/Kiritimati", "Asia/Kathmandu", "America/St_Johns"):
        yield "time zone", name, {"TZ": name}
    for seed in ("0", "1", "4294967295"):
        yield "hash seed", seed, {"PYTHONHASHSEED": seed}


def available(name: str) -> bool:
    """Return whether the machine has a locale."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return True


def under(
    place: Place, name: str, variables: Mapping[str, str], python: str = sys.executable
) -> str:
    """Make the world by the command line under other variables, or by another interpreter."""
    out = place.folder / f"{name.replace('/', '-')}.zarr"
    words = [python, *place.words(out, workers=1)[1:]]
    done = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise SystemExit(f"{name}: ended with {done.returncode}: {done.stderr[-1000:]}")
    return one_world.digest(out)


def versions(python: str) -> str:
    """Return the versions of an interpreter and of what is installed for it."""
    code = (
        "import sys, importlib.metadata as m; print('Python', sys.version.split()[0], *(f', {n} "
        f"{{m.version(n)}}' for n in {VERSIONS!r}), sep='')"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace("Python", "Python ", 1)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 if a digest differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks determinism", description=__doc__)
    parser.add_argument("--python", action="append", default=[], help="another interpreter")
    parser.add_argument("--markdown", action="store_true", help="a table for the documentation")
    parser.add_argument("--only", help="one kind, such as 'locale'")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="earthgen-one-") as name:
        folder = Path(name)
        settings = {**write_inputs(folder), "voxel_size": 2.0}
        place = Place(folder, settings, BOX, TILE_SIZE)
        reference = one_world.one_go(place)
        rows = [("reference", versions(sys.executable), reference, 0.0)]
        every = list(ways(place))
        for python in asked.python:
            label = versions(python)
            every.append(
                ("library versions", label, lambda p=python, n=label: under(place, n[:20], {}, p))
            )
        for kind, label, call in every:
            if asked.only not in (None, kind):
                continue
            began = time.perf_counter()
            try:
                found = call()
            except SystemExit as error:  # the others are still of interest
                found = f"failed: {error}"
            rows.append((kind, label, found, time.perf_counter() - began))
            print(f"{kind}: {label}: {rows[-1][2][:16]}", file=sys.stderr, flush=True)
    wrong = [row for row in rows if row[2] != reference]
    if asked.markdown:
        print("| kind | | digest |\n|---|---|---|")
        for kind, label, found, _ in rows:
            note = "" if found == reference else " **differs**"
            text = found.replace("\n", " ")[-200:] if found.startswith("failed") else found[:16]
            print(f"| {kind} | {label} | `{text}`{note} |")
    else:
        print(json.dumps({"machine": describe(), "rows": rows, "wrong": wrong}, indent=1))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
