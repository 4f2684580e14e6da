"""Generate a world from QGIS's Python console, for the map that is on the screen.

QGIS brings its own Python, which should not be asked to hold earthgen's packages: this script runs
the `earthgen` command as a subprocess and loads what it exports. Open it in the console's editor,
set EARTHGEN to the command in the environment where earthgen is installed, select the land-use
layer, and run it.

Outside QGIS `generate` and `export` work as they are; only `main` needs a QGIS.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

EARTHGEN = os.environ.get("EARTHGEN", "earthgen")


class EarthgenFailed(RuntimeError):
    """The command said what is wrong; `str(error)` is that line."""


def call(arguments: Iterable[str], on_progress: Callable[[dict], None] | None = None) -> dict:
    """Run `earthgen`, hand each progress event to `on_progress`, and return the JSON it printed."""
    process = subprocess.Popen(
        [EARTHGEN, *arguments, "--json", "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    last = ""
    assert process.stderr is not None and process.stdout is not None
    for line in process.stderr:
        last = line.strip() or last
        if on_progress is not None and line.startswith("{") and '"done"' in line:
            on_progress(json.loads(line))
    output = process.stdout.read()
    if process.wait() != 0:
        raise EarthgenFailed(last)
    return json.loads(output) if output.strip() else {}


def clean_environment() -> dict[str, str]:
    """The environment without what QGIS sets for its own Python, GDAL and PROJ."""
    ours = {"PYTHONHOME", "PYTHONPATH", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def generate(
    semantics: str,
    bbox: tuple[float, float, float, float],
    bbox_crs: str,
    out: Path,
    **options: str,
) -> dict:
    """`earthgen generate` with any further options by name, such as dem="dem.tif" or
    voxel_size="2"."""
    arguments = [
        "generate",
        "--semantics",
        semantics,
        f"--bbox={','.join(map(repr, bbox))}",
        "--bbox-crs",
        bbox_crs,
    ]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    return call([*arguments, "--out", str(out)], say)


def say(event: dict) -> None:
    """Print how many tiles are made."""
    if event["task"] == "generate":
        print(f"{event['done']} of {event['total']} tiles")


def export(world: Path, out: Path) -> list[Path]:
    """Export the rasters and return their paths."""
    call(["export", str(world), "--format", "cog", "--out", str(out)])
    return sorted(out.glob("*.tif"))


def main() -> None:
    """The map canvas's extent and the active layer become a world; its rasters are added to the
    project."""
    from qgis.core import QgsProject, QgsRasterLayer
    from qgis.utils import iface

    layer = iface.activeLayer()
    source = layer.source().split("|layername=")
    semantics = source[0] if len(source) == 1 else f"{source[0]}:{source[1].split('|')[0]}"
    extent = iface.mapCanvas().extent()
    crs = iface.mapCanvas().mapSettings().destinationCrs().authid()
    folder = Path(QgsProject.instance().homePath() or Path.home())
    bbox = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
    generate(semantics, bbox, crs, folder / "world.zarr")
    for path in export(folder / "world.zarr", folder / "world-rasters"):
        QgsProject.instance().addMapLayer(QgsRasterLayer(str(path), path.stem))


if __name__ in ("__console__", "__main__"):
    main()
