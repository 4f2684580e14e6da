"""The same place with earthgen and with VoxCity, from the same files: seconds, and how footprints
and heights agree with the map and the surface model.

Housing on a hillside in Gothenburg (../shared/data/umep_goteborg_annedal, CC0): footprints without
heights, a ground model, a surface model with buildings, and canopy heights, all at 2 m; voxels of
1 m. VoxCity (https://github.com/kunifujiwara/VoxCity, MIT) needs an environment of its own, whose
interpreter $VOXCITY_PYTHON names. It downloads what it is not given, so `voxcity_side` calls the
steps of its pipeline on the files, as `voxcity.generator` does. Land cover is left out there.

The two do not do the same work. VoxCity makes one dense array of class codes, and buildings with
one height each; earthgen makes surface voxels at four levels, Gaussians and rasters.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import elsewhere, measure

DATA = Path(__file__).parents[2] / "shared" / "data" / "umep_goteborg_annedal"
CRS = "EPSG:3006"
BOX = (318489, 6398349, 318885, 6398745)
FEWEST = 20
LEAST = 2.0
"""Metres of the surface model above the ground from which a cell of a footprint counts as built."""


def interpreter() -> str | None:
    """The Python that has VoxCity, None if there is none."""
    named = os.environ.get("VOXCITY_PYTHON")
    if named is None:
        found = importlib.util.find_spec("voxcity")
        # This file has the same name: a package is meant.
        return sys.executable if found and found.submodule_search_locations else None
    try:
        done = subprocess.run([named, "-P", "-c", "import voxcity"], capture_output=True)
    except OSError:
        return None
    return named if done.returncode == 0 else None


def truth() -> dict[str, NDArray]:
    """What the files say at the centres of cells of 1 m, from north to south, read without either:
    the number of the footprint there, 0 for none, and the surface model above the ground."""
    import geopandas as gpd
    import rasterio
    from rasterio.features import rasterize

    shape = BOX[3] - BOX[1], BOX[2] - BOX[0]
    transform = rasterio.transform.from_origin(BOX[0], BOX[3], 1.0, 1.0)
    shapes = gpd.read_file(DATA / "buildings.shp").geometry
    number = rasterize(
        zip(shapes, range(1, len(shapes) + 1), strict=True),
        out_shape=shape,
        transform=transform,
        dtype="int32",
    )
    with rasterio.open(DATA / "dsm.tif") as surface, rasterio.open(DATA / "dem.tif") as ground:
        above = surface.read(1) - ground.read(1)
    return {"number": number, "above": np.kron(above, np.ones((2, 2)))}


def write_heights(folder: Path) -> None:
    """above.tif: the surface model above the ground, as VoxCity takes heights from a raster."""
    import rasterio

    with rasterio.open(DATA / "dsm.tif") as surface, rasterio.open(DATA / "dem.tif") as ground:
        above, profile = surface.read(1) - ground.read(1), ground.profile
    with rasterio.open(folder / "above.tif", "w", **profile) as out:
        out.write(above, 1)


def ours(folder: Path) -> dict[str, NDArray]:
    """Where earthgen's world has buildings, and their heights above the ground."""
    import earthgen
    from geo_io import codes

    layers = earthgen.open_world(folder / "w.zarr").layers(1)
    return {
        "built": layers["semantics"].values == codes()["building"],
        "height": (layers["surface"] - layers["ground"]).values,
    }


def agreement(number: NDArray, above: NDArray, built: NDArray, height: NDArray) -> dict[str, float]:
    """How a world agrees with the files, on the cells of both.

    Footprints: the intersection over the union of cells. Heights: cells that the map, the surface
    model and the world have as built; and the median height of each footprint of 20 such cells.

    Parameters
    ----------
    number, above : NDArray (ny, nx)
        Of `truth`.
    built : NDArray (ny, nx) bool
        Where the world has buildings.
    height : NDArray (ny, nx) float
        Of its surface above its ground, metres.
    """
    footprint = number > 0
    both = footprint & built & (above >= LEAST)
    error = height[both] - above[both]
    each = [
        abs(float(np.median(height[cells]) - np.median(above[cells])))
        for one in range(1, int(number.max()) + 1)
        if (cells := both & (number == one)).sum() >= FEWEST
    ]
    return {
        "footprint_iou": round(float((footprint & built).sum() / (footprint | built).sum()), 3),
        "height_median_error_m": round(float(np.median(np.abs(error))), 2),
        "height_rmse_m": round(float(np.sqrt(np.mean(error**2))), 2),
        "height_bias_m": round(float(np.mean(error)), 2),
        "footprint_height_median_error_m": round(float(np.median(each)), 2),
        "footprints": len(each),
    }


def judged(folder: Path, who: str) -> dict[str, float]:
    """The agreement of what `who` left in a folder."""
    made = ours(folder) if who == "earthgen" else dict(np.load(folder / "voxcity.npz"))
    return agreement(**truth(), **made)


def run() -> dict[str, object]:
    if not DATA.is_dir():
        return {"skipped": "the real data is not beside this checkout"}
    python = interpreter()
    if python is None:
        return {
            "skipped": "VoxCity is not installed: make an environment (python -m venv), pip "
            "install voxcity in it, and name its interpreter as VOXCITY_PYTHON"
        }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        elsewhere("benchmarks.voxcity", "write_heights", folder)
        box = ",".join(map(str, BOX))
        words: list[str | Path] = [
            "--bbox",
            box,
            "--bbox-crs",
            CRS,
            "--crs",
            CRS,
            "--quiet",
            "--workers",
            "1",
        ]
        for key in ("dem", "dsm"):
            words += [f"--{key}", str(DATA / f"{key}.tif")]
        words += ["--canopy", str(DATA / "cdsm.tif"), "--semantics", str(DATA / "buildings.shp")]
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "earthgen_cli",
            "generate",
            *words,
            "--overwrite",
            "--out",
        ]
        # -P: the script's folder has a module named voxcity.
        side: list[str | Path] = [
            python,
            "-P",
            Path(__file__).with_name("voxcity_side.py"),
            DATA,
            folder,
        ]
        bounds = json.dumps([CRS, *BOX])
        figures: dict[str, object] = {"km2": round((BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / 1e6, 3)}
        for who, words_of in (
            ("earthgen", [*command, folder / "w.zarr"]),
            ("voxcity", [*side, bounds]),
        ):
            measure(words_of)  # compiles
            second = measure(words_of)
            figures |= {
                f"{who}_cpu_s": round(second.cpu, 1),
                f"{who}_wall_s": round(second.wall, 1),
                f"{who}_peak_mb": round(second.peak_mb),
            }
            found = elsewhere_named("judged", folder, who)
            figures |= {f"{who}_{key}": value for key, value in found.items()}
        figures["voxcity_version"] = (folder / "version.txt").read_text()
    return figures


def elsewhere_named(function: str, folder: Path, name: str) -> dict[str, float]:
    """Call `function(folder, name)` in another process: what measures must stay small."""
    call = (
        "import json, pathlib, benchmarks.voxcity as here; "
        f"print(json.dumps(here.{function}(pathlib.Path({str(folder)!r}), {name!r})))"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{function} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
