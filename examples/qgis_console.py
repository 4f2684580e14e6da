"""Generate a world from QGIS's Python console, for the map that is on the screen.

QGIS has its own Python, into which earthgen's packages should not be installed. This script runs
the `earthgen` command as a subprocess and loads the exported rasters. Open it in the editor of the
console, set EARTHGEN to the command in the environment where earthgen is installed, select the
land-use layer, and run the script.

`generate` and `export` work outside QGIS too; only `main` needs QGIS.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

EARTHGEN = os.environ.get("EARTHGEN", "earthgen")


class EarthgenFailed(RuntimeError):
    """The command failed; `str(error)` says what is wrong and what to do."""


def call(arguments: Iterable[str], on_progress: Callable[[dict], None] | None = None) -> dict:
    """Run `earthgen`, pass each progress event to `on_progress`, and return the printed JSON."""
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
        raise EarthgenFailed(sentence(last))
    return json.loads(output) if output.strip() else {}


def sentence(line: str) -> str:
    """Return the error that the command printed as a JSON object, in words."""
    try:
        error = json.loads(line)
        parts = [error["error"], error.get("remedy", "")]
    except (ValueError, KeyError, TypeError):
        return line  # something else than earthgen spoke last
    words = [part.strip().rstrip(".") for part in parts if part]
    return ". ".join(word[:1].upper() + word[1:] for word in words) + "."


def clean_environment() -> dict[str, str]:
    """Return the environment without the variables of QGIS for Python, GDAL and PROJ."""
    of_qgis = {
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONEXECUTABLE",
        "GDAL_DATA",
        "GDAL_DRIVER_PATH",
        "PROJ_LIB",
        "PROJ_DATA",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
    }
    return {name: value for name, value in os.environ.items() if name not in of_qgis}


def generate(
    semantics: str,
    bbox: tuple[float, float, float, float],
    bbox_crs: str,
    out: Path,
    **options: str,
) -> dict:
    """Run `earthgen generate`, with more options by name, such as dem="dem.tif"."""
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
    """Print how many tiles are finished."""
    if event["task"] == "generate":
        print(f"{event['done']} of {event['total']} tiles")


def export(world: Path, out: Path) -> list[Path]:
    """Export the rasters and return their paths."""
    call(["export", str(world), "--format", "cog", "--out", str(out)])
    return sorted(out.glob("*.tif"))


def main() -> None:
    """Generate a world from the active layer on the map's extent, and add its rasters to the
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
    try:
        generate(semantics, bbox, crs, folder / "world.zarr")
        rasters = export(folder / "world.zarr", folder / "world-rasters")
    except EarthgenFailed as error:
        iface.messageBar().pushCritical("earthgen", str(error))
        print(error)
        return
    for path in rasters:
        QgsProject.instance().addMapLayer(QgsRasterLayer(str(path), path.stem))


if __name__ in ("__console__", "__main__"):
    main()
