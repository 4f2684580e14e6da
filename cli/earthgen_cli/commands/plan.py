"""`earthgen plan`: time, disk and memory of a job, before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import lon_lat_bounds
from earthgen_cli.commands.generate import crs_text
from earthgen_cli.job_options import JobFile, JobSettings, job_settings
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import (
    bytes_text,
    count_text,
    say_json,
    say_pairs,
    say_warning,
    seconds_text,
)
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.forecast import Forecast


def plan(
    ctx: typer.Context,
    job: JobFile = None,
    *,
    typed: JobSettings,
    sample: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Make N tiles in a temporary folder and extrapolate from them."
        ),
    ] = 0,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Estimate tasks, disk, memory and time of a job; write nothing.

    The options are those of `earthgen generate`. Inputs and backends are opened and checked.
    Without --sample, the figures are those of the procedural backends on an ordinary machine.
    """
    from earthgen.jobs import forecast as planning
    from earthgen.jobs.job import make_job

    settings = make_job(job_settings(typed, job, ctx.obj.plugin_dirs))
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        forecast = planning.forecast(settings, sample, show)
    free = free_bytes(settings.out)
    if json_output:
        say_json(forecast_values(forecast, settings.out, free))
    elif not quiet:
        say_forecast(forecast, settings.out, free)
        if free is not None and free < forecast.bytes:
            say_warning(
                f"{settings.out} needs {bytes_text(forecast.bytes)}, and its disk has "
                f"{bytes_text(free)} free: free some space, or give another --out"
            )


def free_bytes(out: str | Path) -> int | None:
    """Return the free space of the disk of `out`; None for an object store."""
    if "://" in str(out):
        return None
    place = Path(out).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def forecast_values(forecast: Forecast, out: str | Path, free: int | None) -> dict[str, Any]:
    """Return what --json prints."""
    frame = forecast.frame
    return {
        "out": out,
        "crs": frame.crs,
        "voxel_size": frame.voxel_size,
        "bounds": frame.bounds,
        "bounds_lon_lat": lon_lat_bounds(frame),
        "shape": frame.shape,
        "area_km2": frame.area_km2,
        "tiles": forecast.tiles,
        "tiles_there": forecast.finished,
        "tasks": forecast.tasks,
        "workers": forecast.workers,
        "objects": forecast.objects,
        "bytes": forecast.bytes,
        "bytes_free": free,
        "enough_space": None if free is None else free >= forecast.bytes,
        "memory": forecast.memory,
        "seconds": round(forecast.seconds, 3),
        "basis": forecast.basis,
    }


def say_forecast(forecast: Forecast, out: str | Path, free: int | None) -> None:
    """Print the forecast as "name  value" lines."""
    frame = forecast.frame
    width, height = frame.nx * frame.voxel_size, frame.ny * frame.voxel_size
    tasks = ", ".join(f"{count:,} {stage}" for stage, count in forecast.tasks.items())
    existing = f", {forecast.finished:,} of them exist" if forecast.finished else ""
    space = "" if free is None else f"; {bytes_text(free)} are free"
    workers = count_text(forecast.workers, "worker")
    say_pairs(
        [
            ("world", str(out)),
            ("CRS", crs_text(frame.crs)),
            (
                "extent",
                f"{width:,.0f} m x {height:,.0f} m, {frame.area_km2:,.3f} km2, "
                f"voxels of {frame.voxel_size:g} m",
            ),
            ("tiles", f"{forecast.tiles:,}{existing}"),
            ("tasks", tasks),
            ("objects", f"{forecast.objects:,}"),
            ("on disk", f"{bytes_text(forecast.bytes)}{space}"),
            ("memory", f"{bytes_text(forecast.memory)} with {workers}"),
            ("time", f"{seconds_text(forecast.seconds)} with {workers}"),
            ("basis", forecast.basis),
        ]
    )
