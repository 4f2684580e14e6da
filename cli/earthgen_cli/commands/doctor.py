"""`earthgen doctor`: what is installed, what can run here, and how to repair the rest.

Packages with native code are imported in their own processes, so that a crash is one line of the
report.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.options import JsonOutput
from earthgen_cli.output import bytes_text, say, say_json, seconds_text
from earthgen_cli.progress import Mode, display
from earthgen_cli.visible import styled

if TYPE_CHECKING:
    from earthgen.plugins import Plugins

MAIN_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "shapely",
    "pyproj",
    "rasterio",
    "pyogrio",
    "geopandas",
    "xarray",
    "rioxarray",
    "odc.geo",
    "zarr",
    "PIL",
    "pydantic",
    "pluggy",
    "lazy_loader",
    "cachetools",
    "jinja2",
    "matplotlib",
    "psutil",
)
"""The packages of rule-based generation, its inputs, exports and reports."""

OPTIONAL_PACKAGES = {
    "gsplat": "draws splats on CUDA: `pip install 'earthgen[gpu]'`",
    "torchsparse": "sparse convolution on CUDA; it has no wheel on the package index and cannot be "
    "imported without CUDA, so build it from source",
    "spconv": "sparse convolution: install its wheel for your CUDA release, such as spconv-cu124",
}
"""Packages for GPUs, and how to install them."""

DRIVERS = {"ESRI Shapefile": True, "GPKG": True, "GTiff": True, "FlatGeobuf": False}
"""GDAL drivers, and whether generation needs them."""

PROJ_POINT = (12.0, 50.0)
PROJ_EXPECTED = (714984.2367, 5542944.0186)
"""Longitude and latitude, and the same point in EPSG:32632 (metres) by the Krueger series to
n^4."""

PROJ_TOLERANCE = 0.001
LOW_DISK = 2e9
PROBE_SECONDS = 120.0

REINSTALL = "reinstall earthgen into a fresh virtual environment: its dependencies come with it"


class Status(StrEnum):
    """Result of a check. Only BROKEN changes the exit code."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"
    BROKEN = "broken"


COLOURS = {
    Status.OK: "green",
    Status.NOTE: "yellow",
    Status.MISSING: "yellow",
    Status.BROKEN: "red",
}


@dataclass(frozen=True)
class Check:
    """One line of the report; `remedy` is the next step, empty if there is none."""

    area: str
    name: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Probe:
    """Result of a piece of Python in its own process: its stdout, or the error."""

    output: str
    error: str

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return not self.error


def doctor(
    ctx: typer.Context,
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Only compile what generation, previews and meshes use, which the first run "
            "would do.",
        ),
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Check what can run here, and print how to repair the rest.

    The exit code is 1 if something is broken that generation without a GPU needs, else 0.
    """
    if warm:
        say_warm(ctx, json_output)
        return
    checks = examine(ctx.obj.plugins, [str(folder) for folder in ctx.obj.plugin_dirs])
    broken = sum(check.status is Status.BROKEN for check in checks)
    if json_output:
        say_json({"ok": not broken, "checks": [asdict(check) for check in checks]})
    else:
        say_checks(checks)
        say()
        say(f"{broken} broken, see above" if broken else "generation works here")
    if broken:
        raise typer.Exit(1)


def say_warm(ctx: typer.Context, json_output: bool) -> None:
    """Make a small world, pictures and tiles of it in a temporary folder, so that numba compiles.

    What numba compiles it keeps on the disk, for this user and this kind of processor.
    """
    import tempfile
    import time

    from earthgen.jobs.compiling import kernels
    from earthgen.progress import Progress
    from earthgen.render.export import export_world
    from earthgen.render.preview import preview_world
    from earthgen_cli.commands.demo import make_demo

    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        display(ctx, Mode.AUTO, json_output=json_output) as show,
    ):
        before = sum(kernels().values())
        report = make_demo(Path(folder) / "warm.zarr", show, small=True)
        for view in ("top", "oblique"):
            preview_world(
                report.world, view, size=64, progress=Progress(show), plugins=ctx.obj.plugins
            )
        # The meshes of `earthgen view`, and of exports.
        export_world(report.world, "3dtiles", Path(folder) / "tiles", plugins=ctx.obj.plugins)
    kept = kernels()
    seconds = time.monotonic() - began
    values = {"compiled": sum(kept.values()), "before": before, "seconds": round(seconds, 1)}
    if json_output:
        say_json(values)
    else:
        say(
            f"{values['compiled']} functions are compiled for this machine, {seconds_text(seconds)}"
        )


def say_checks(checks: list[Check]) -> None:
    """Print the checks by area."""
    area = ""
    for check in checks:
        if check.area != area:
            area = check.area
            say(styled(area, bold=True))
        mark = styled(f"{check.status.value:<7}", fg=COLOURS[check.status])
        say(f"  {mark}  {check.name}: {check.detail}")
        if check.remedy:
            say(f"           -> {check.remedy}")


def examine(plugins: Plugins, plugin_dirs: list[str]) -> list[Check]:
    """Run all checks, in the order of the report."""
    from concurrent.futures import ThreadPoolExecutor

    sparse, rasterizers = sorted(plugins.offers("sparse")), sorted(plugins.offers("rasterizer"))
    tasks: list[Callable[[], list[Check]]] = [
        packages,
        proj,
        drivers,
        lambda: [disk(Path.cwd())],
        torch,
        *(lambda name=name: [optional_package(name)] for name in OPTIONAL_PACKAGES),
        *(lambda name=name: [sparse_backend(name, plugin_dirs)] for name in sparse),
        *(lambda name=name: [rasterizer(name, plugin_dirs)] for name in rasterizers),
    ]
    with ThreadPoolExecutor(
        os.cpu_count() or 1
    ) as pool:  # the threads only wait for their processes
        probed = [check for checks in pool.map(lambda task: task(), tasks) for check in checks]
    return [*system(), *probed, *plugged(plugins)]


def system() -> list[Check]:
    """Report Python, the operating system and earthgen."""
    import platform

    from earthgen import __version__

    return [
        Check("system", "Python", Status.OK, f"{platform.python_version()} ({sys.executable})"),
        Check(
            "system",
            "operating system",
            Status.OK,
            f"{platform.platform()}, {os.cpu_count()} processors",
        ),
        Check("system", "earthgen", Status.OK, __version__),
    ]


def packages() -> list[Check]:
    """Import the main packages one after the other in one process, which shows where it crashes."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        version = getattr(importlib.import_module(name), '__version__', '')\n"
        "        print(name, 'ok', version, sep='|', flush=True)\n"
        "    except Exception as error:\n"
        "        text = f'{type(error).__name__}: {error}'.splitlines()[0]\n"
        "        print(name, 'no', text, sep='|', flush=True)\n"
        "import pyogrio, pyproj, rasterio\n"
        "pyogrio_gdal = '.'.join(map(str, pyogrio.__gdal_version__))\n"
        "both = f'{rasterio.__gdal_version__} in rasterio, {pyogrio_gdal} in pyogrio'\n"
        "print('GDAL', 'ok', both, sep='|')\n"
        "print('PROJ', 'ok', pyproj.proj_version_str, sep='|')\n"
    )
    probe = run_python(code, *MAIN_PACKAGES)
    lines = [line.split("|", 2) for line in probe.output.splitlines() if line.count("|") >= 2]
    results = {name: (state, detail) for name, state, detail in lines}
    checks = []
    for name in (*MAIN_PACKAGES, "GDAL", "PROJ"):
        state, detail = results.get(name, ("no", probe.error or "not imported"))
        if state == "ok":
            checks.append(Check("packages", name, Status.OK, detail or "installed"))
        else:
            checks.append(Check("packages", name, Status.BROKEN, detail, REINSTALL))
    return checks


def proj() -> list[Check]:
    """Check that PROJ finds its data: transform a point whose result is known, with each PROJ."""
    snippets = {
        "pyproj": "from pyproj import Transformer\n"
        "transformer = Transformer.from_crs('EPSG:4326', 'EPSG:32632', always_xy=True)\n"
        "point = transformer.transform(lon, lat)\n",
        "rasterio": "from rasterio.warp import transform\n"
        "x, y = transform('EPSG:4326', 'EPSG:32632', [lon], [lat])\n"
        "point = (x[0], y[0])\n",
    }
    variables = [
        f"{name}={os.environ[name]}"
        for name in ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA")
        if name in os.environ
    ]
    remedy = (
        f"unset {' and '.join(variables)}: they point to the data of another program"
        if variables
        else REINSTALL
    )
    checks = []
    for name, snippet in snippets.items():
        probe = run_python(
            f"import json\nlon, lat = {PROJ_POINT}\n{snippet}print(json.dumps(list(point)))\n"
        )
        point = read_json(probe) or (float("nan"), float("nan"))
        gap = max(abs(point[0] - PROJ_EXPECTED[0]), abs(point[1] - PROJ_EXPECTED[1]))
        if gap <= PROJ_TOLERANCE:
            detail = "EPSG:4326 to EPSG:32632 gives the known point"
            checks.append(Check("coordinates", f"PROJ of {name}", Status.OK, detail))
        else:
            detail = probe.error or f"EPSG:4326 to EPSG:32632 is {gap:g} m off the known point"
            checks.append(Check("coordinates", f"PROJ of {name}", Status.BROKEN, detail, remedy))
    return checks


def drivers() -> list[Check]:
    """Check which formats GDAL reads."""
    code = (
        "import json, pyogrio, rasterio.drivers\n"
        "from rasterio.env import Env\n"
        "with Env() as env:\n"
        "    names = {*pyogrio.list_drivers(), *env.drivers()}\n"
        "print(json.dumps(sorted(names)))\n"
    )
    probe = run_python(code)
    names = read_json(probe) or []
    checks = []
    for name, needed in DRIVERS.items():
        if name in names:
            checks.append(Check("formats", name, Status.OK, "GDAL reads it"))
        else:
            status = Status.BROKEN if needed else Status.MISSING
            detail = probe.error or "GDAL was built without it"
            checks.append(
                Check(
                    "formats",
                    name,
                    status,
                    detail,
                    REINSTALL if needed else "convert to GeoPackage",
                )
            )
    return checks


def disk(folder: Path) -> Check:
    """Check the free space of a folder's disk."""
    free = shutil.disk_usage(folder).free
    detail = f"{bytes_text(free)} free in {folder}"
    if free < LOW_DISK:
        return Check(
            "disk", "space", Status.NOTE, detail, "free some, or give --out on another disk"
        )
    return Check("disk", "space", Status.OK, detail)


def torch() -> list[Check]:
    """Check torch, which only the learned backends import, and its devices."""
    code = (
        "import json, torch\n"
        "cuda = torch.cuda.is_available()\n"
        "name = torch.cuda.get_device_name(0) if cuda else ''\n"
        "print(json.dumps([torch.__version__, cuda, name, torch.version.cuda]))\n"
    )
    probe = run_python(code)
    values = read_json(probe)
    if values is None:
        remedy = "reinstall torch; rule-based generation works without it"
        return [Check("learned backends", "torch", Status.NOTE, probe.error, remedy)]
    version, cuda, name, built_for = values
    if cuda:
        gpu = Check(
            "learned backends", "CUDA", Status.OK, f"{name}, torch built for CUDA {built_for}"
        )
    elif built_for:
        detail = f"torch is built for CUDA {built_for} but finds no GPU"
        gpu = Check(
            "learned backends",
            "CUDA",
            Status.MISSING,
            detail,
            "check the driver with nvidia-smi; CPU works",
        )
    else:
        remedy = (
            "for an NVIDIA GPU install the CUDA build of torch; without one there is nothing to do"
        )
        gpu = Check(
            "learned backends",
            "CUDA",
            Status.MISSING,
            "torch is built for the CPU; everything runs on it",
            remedy,
        )
    return [Check("learned backends", "torch", Status.OK, version), gpu]


def optional_package(name: str) -> Check:
    """Import an optional package."""
    if importlib.util.find_spec(name) is None:
        return Check(
            "optional packages",
            name,
            Status.MISSING,
            "not installed",
            f"optional; {OPTIONAL_PACKAGES[name]}",
        )
    probe = run_python(f"import {name}\nprint(getattr({name}, '__version__', ''))\n")
    if probe.ok:
        return Check("optional packages", name, Status.OK, probe.output.strip() or "installed")
    detail = f"installed, but its import fails: {probe.error}"
    return Check(
        "optional packages", name, Status.NOTE, detail, f"optional; {OPTIONAL_PACKAGES[name]}"
    )


def sparse_backend(name: str, plugin_dirs: list[str]) -> Check:
    """Check in its own process whether a sparse backend can run here."""
    code = (
        "import json, sys\n"
        "from earthgen.plugins import load\n"
        "backend = load(json.loads(sys.argv[2])).create('sparse', sys.argv[1])\n"
        "reason, devices = backend.unavailable(), []\n"
        "if not reason:\n"
        "    import torch\n"
        "    able = lambda name: not backend.refuses(torch.device(name), torch.float32, False)\n"
        "    devices = [name for name in backend.devices if able(name)]\n"
        "print(json.dumps([reason, devices, backend.note]))\n"
    )
    return _runs("sparse backends", name, run_python(code, name, json.dumps(plugin_dirs)))


def rasterizer(name: str, plugin_dirs: list[str]) -> Check:
    """Check in its own process whether a rasteriser of splats can run here."""
    code = (
        "import json, sys\n"
        "from earthgen.plugins import load\n"
        "drawer = load(json.loads(sys.argv[2])).create('rasterizer', sys.argv[1])\n"
        "print(json.dumps([drawer.unavailable(), drawer.devices, drawer.note]))\n"
    )
    return _runs("rasterizers", name, run_python(code, name, json.dumps(plugin_dirs)))


def _runs(area: str, name: str, probe: Probe) -> Check:
    """The check of a backend from the reason why it cannot run, its devices, and a note."""
    values = read_json(probe)
    if values is None:
        return Check(
            area,
            name,
            Status.NOTE,
            probe.error,
            "choose another backend, or update the plugin that offers it",
        )
    reason, devices, note = values
    note = f"; {note}" if note else ""
    if reason:
        return Check(area, name, Status.MISSING, f"cannot run here{note}", reason)
    return Check(area, name, Status.OK, f"runs on {', '.join(devices) or 'no device'}{note}")


def plugged(plugins: Plugins) -> list[Check]:
    """Report what the plugins offer, and the plugins that were skipped."""
    checks = []
    needed = {"geometry", "texture", "condition"}
    for kind, title in (
        ("geometry", "geometry backends"),
        ("texture", "texture backends"),
        ("condition", "conditions"),
        ("exporter", "export formats"),
        ("renderer", "renderers"),
    ):
        names = sorted(plugins.offers(kind))
        if names:
            checks.append(Check("plugins", title, Status.OK, ", ".join(names)))
        else:
            status = Status.BROKEN if kind in needed else Status.MISSING
            checks.append(Check("plugins", title, status, "no plugin offers one", REINSTALL))
    for row in plugins.listing():
        if row.error:
            builtin = row.source.endswith("of earthgen")
            remedy = (
                REINSTALL
                if builtin
                else "update or uninstall it; `earthgen plugins` says where it is"
            )
            status = Status.BROKEN if builtin else Status.NOTE
            checks.append(Check("plugins", row.info.name, status, f"skipped: {row.error}", remedy))
    return checks


def run_python(code: str, *arguments: str) -> Probe:
    """Run Python source in a new process of this interpreter.

    -P keeps the current folder off its path, because a numpy.py there would replace numpy.
    """
    command = [sys.executable, "-P", "-W", "ignore", "-c", code, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Probe("", f"no answer within {PROBE_SECONDS:.0f} s")
    except OSError as error:
        return Probe("", f"cannot start Python: {error}")
    if done.returncode == 0:
        return Probe(done.stdout, "")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        return Probe(done.stdout, f"it crashed with signal {-done.returncode}")
    return Probe(
        done.stdout, lines[-1].strip() if lines else f"it ended with exit code {done.returncode}"
    )


def read_json(probe: Probe) -> Any:
    """Return the JSON of the last line that a probe printed, None if it failed."""
    lines = probe.output.splitlines()
    if not probe.ok or not lines:
        return None
    try:
        return json.loads(lines[-1])
    except json.JSONDecodeError:
        return None
