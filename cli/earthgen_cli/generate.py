"""`earthgen generate`: a world from GIS layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from earthgen_cli.bbox import lon_lat_bounds
from earthgen_cli.job_options import JobFile, job_settings, with_job_options
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import (
    bytes_text,
    count_text,
    say,
    say_json,
    say_pairs,
    seconds_text,
    shell_quoted,
)
from earthgen_cli.progress import WARNING, Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.generate import Report
    from earthgen.progress import Event


@with_job_options()
def generate(
    ctx: typer.Context,
    job: JobFile = None,
    *,
    given: Mapping[str, Any],
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Generate a world from GIS layers.

    Everything can also stand in a TOML file (docs/reference/cli.md shows one): `earthgen generate
    job.toml`.
    """
    from earthgen.jobs.generate import run
    from earthgen.jobs.job import make_job

    settings = job_settings(given, job, ctx.obj.plugin_dirs)
    with display(progress, quiet=quiet, json_output=json_output) as show:
        made = Made(show)
        report = run(make_job(settings), made)
    if json_output:
        say_json(report_values(report, made.tiles))
    elif not quiet:
        for warning in report.warnings:
            if warning not in show.warned:
                say(f"{WARNING}{warning}", err=True)
        say_report(report, made.tiles)


@dataclass
class Made:
    """Passes events on, and counts the tiles that a run makes: a world may have some before."""

    listener: Callable[[Event], None]
    tiles: int = 0
    before: int | None = None

    def __call__(self, event: Event) -> None:
        if event.task == "generate":
            self.before = event.done if self.before is None else self.before
            self.tiles = event.done - self.before
        self.listener(event)


def km2_per_hour(report: Report, made: int) -> float | None:
    """The area of the tiles that a run made by its time, tiles taken as equal; None if it made
    none."""
    if not made or not report.tiles or report.seconds <= 0:
        return None
    return report.frame.area_km2 * made / report.tiles / report.seconds * 3600


def report_values(report: Report, made: int) -> dict[str, Any]:
    """What --json prints."""
    world, frame = report.world, report.frame
    speed = km2_per_hour(report, made)
    return {
        "world": world.path,
        "crs": frame.crs,
        "vertical_crs": frame.vertical_crs,
        "voxel_size": frame.voxel_size,
        "bounds": frame.bounds,
        "bounds_lon_lat": lon_lat_bounds(frame),
        "shape": frame.shape,
        "area_km2": frame.area_km2,
        "tiles": report.tiles,
        "tiles_made": made,
        "counts": world.counts,
        "bytes": world.bytes_on_disk(),
        "complete": world.complete,
        "seed": world.seed,
        "seconds": round(report.seconds, 3),
        "km2_per_hour": speed and round(speed, 4),
        "work": {stage: round(seconds, 3) for stage, seconds in report.work.items()},
        "warnings": report.warnings,
    }


def say_report(report: Report, made: int) -> None:
    world, frame = report.world, report.frame
    width, height = frame.nx * frame.voxel_size, frame.ny * frame.voxel_size
    path = shell_quoted(world.path)
    stem = Path(world.path).stem
    speed = km2_per_hour(report, made)
    time = f"{seconds_text(report.seconds)} for {made:,} of {count_text(report.tiles, 'tile')}" + (
        f", {speed:,.3g} km2/h" if speed else ""
    )
    work = ", ".join(f"{stage} {seconds_text(seconds)}" for stage, seconds in report.work.items())
    say_pairs(
        [
            ("world", str(world.path)),
            ("CRS", crs_text(frame.crs)),
            ("extent", f"{width:,.0f} m x {height:,.0f} m, voxels of {frame.voxel_size:g} m"),
            ("voxels", f"{world.counts['voxels']:,}"),
            ("on disk", bytes_text(world.bytes_on_disk())),
            ("time", time),
            *([("work", f"{work} (of all workers together)")] if work else []),
            ("next", f"earthgen preview {path} --out {shell_quoted(stem + '.png')}"),
            ("", f"earthgen export {path} --format cog --out {shell_quoted(stem + '-cog')}"),
            ("", f"earthgen info {path}"),
        ]
    )


def crs_text(crs: str) -> str:
    """A CRS with its name, such as "EPSG:32632 (WGS 84 / UTM zone 32N)"."""
    import pyproj

    name = pyproj.CRS.from_user_input(crs).name
    return f"{crs} ({name})" if len(crs) < 40 else name
