"""`earthgen generate`: a world from GIS layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import lon_lat_bounds
from earthgen_cli.job_options import JobFile, JobSettings, job_settings
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import (
    bytes_text,
    count_text,
    say,
    say_json,
    say_pairs,
    say_table,
    say_warning,
    seconds_text,
    shell_quoted,
)
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.generate import Report
    from earthgen.progress import Event


def generate(
    ctx: typer.Context,
    job: JobFile = None,
    *,
    typed: JobSettings,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say how each input is understood (legend, class and height fields, units, "
            "datums, shares), and write nothing.",
        ),
    ] = False,
    outcomes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=10_000,
            help="Make N worlds of the map with seeds from --seed on: town-1.zarr, town-2.zarr ... "
            "for --out town.zarr.",
        ),
    ] = 1,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Generate a world from GIS layers.

    Without --out, the world is named after the first input, in the current folder: landuse.zarr of
    --semantics landuse.shp. What exists is never replaced unasked.

    All settings can also be in a TOML file: `earthgen generate job.toml`. docs/reference/cli.md
    shows one.
    """
    settings = job_settings(typed, job, ctx.obj.plugin_dirs)
    if dry_run:
        say_understanding(ctx, settings, json_output)
        return
    from earthgen.jobs.generate import run
    from earthgen.jobs.job import make_job

    if outcomes > 1:
        make_outcomes(ctx, settings, outcomes, quiet, json_output, progress)
        return
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        counter = TileCounter(show)
        report = run(make_job(settings), counter)
    if json_output:
        values = report_values(report, counter.tiles)
        say_json({**values, "warnings": [show.text(warning) for warning in report.warnings]})
    elif not quiet:
        for warning in report.warnings:
            if warning not in show.warned:
                say_warning(show.text(warning))
        say_report(report, counter.tiles)


def make_outcomes(
    ctx: typer.Context,
    settings: dict[str, Any],
    count: int,
    quiet: bool,
    json_output: bool,
    progress: Mode,
) -> None:
    """Make several worlds of one map, and print what was made."""
    from earthgen.jobs.job import make_job
    from earthgen.jobs.outcomes import run_outcomes

    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        reports = run_outcomes(make_job(settings), count, show)
    if json_output:
        worlds = [
            {
                **report_values(report, report.tiles),
                "warnings": [show.text(warning) for warning in report.warnings],
            }
            for report in reports
        ]
        say_json({"worlds": worlds})
    elif not quiet:
        for warning in dict.fromkeys(text for report in reports for text in report.warnings):
            if warning not in show.warned:
                say_warning(show.text(warning))
        say_table(
            ("world", "seed", "voxels", "on disk", "time"),
            [
                (
                    str(report.world.path),
                    str(report.world.seed),
                    f"{report.world.counts['voxels']:,}",
                    bytes_text(report.world.bytes_on_disk()),
                    seconds_text(report.seconds),
                )
                for report in reports
            ],
        )
        pair = " ".join(shell_quoted(report.world.path) for report in reports[:2])
        say_pairs([("next", f"earthgen compare {pair} --out comparison")])


def say_understanding(ctx: typer.Context, settings: dict[str, Any], json_output: bool) -> None:
    """Open and survey the inputs of a job, and print how they are understood."""
    from earthgen.jobs.job import make_job
    from earthgen.jobs.prepare import prepare
    from earthgen.progress import Progress
    from earthgen_cli.understanding import understanding

    with display(ctx, Mode.NONE, quiet=True, json_output=json_output) as show:
        prepared = prepare(make_job(settings), Progress(show))
    surveys = prepared.provenance["survey"]
    warnings = [show.text(warning) for warning in prepared.warnings]
    frame = prepared.frame
    if json_output:
        say_json(
            {"crs": frame.crs, "bounds": frame.bounds, "survey": surveys, "warnings": warnings}
        )
        return
    width, height = frame.nx * frame.voxel_size, frame.ny * frame.voxel_size
    say_pairs(
        [
            ("CRS", crs_text(frame.crs)),
            ("datum", frame.vertical_crs),
            ("extent", f"{width:,.0f} m x {height:,.0f} m, voxels of {frame.voxel_size:g} m"),
            *understanding(surveys),
            ("ground", prepared.provenance["ground"]),
        ]
    )
    for warning in warnings:
        say_warning(warning)
    say("nothing was written: leave --dry-run out to make the world")


@dataclass
class TileCounter:
    """Passes events on, and counts the tiles of this run: a resumed world has some before.

    Attributes
    ----------
    tiles : int
        The tiles that this run made.
    before : int or None
        The tiles that the world had before; None until the run starts.
    """

    listener: Callable[[Event], None]
    tiles: int = 0
    before: int | None = None

    def __call__(self, event: Event) -> None:
        """Count, and pass the event on."""
        if event.task == "generate" and event.kind == "step":
            self.before = event.done if self.before is None else self.before
            self.tiles = event.done - self.before
        self.listener(event)


def km2_per_hour(report: Report, tiles_made: int) -> float | None:
    """Return the area that a run made per hour, None if it made no tile.

    All tiles count as equally large.
    """
    if not tiles_made or not report.tiles or report.seconds <= 0:
        return None
    return report.frame.area_km2 * tiles_made / report.tiles / report.seconds * 3600


def report_values(report: Report, tiles_made: int) -> dict[str, Any]:
    """Return what --json prints."""
    world, frame = report.world, report.frame
    speed = km2_per_hour(report, tiles_made)
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
        "tiles_made": tiles_made,
        "counts": world.counts,
        "bytes": world.bytes_on_disk(),
        "complete": world.complete,
        "seed": world.seed,
        "seconds": round(report.seconds, 3),
        "km2_per_hour": speed and round(speed, 4),
        "work": {stage: round(seconds, 3) for stage, seconds in report.work.items()},
    }


def say_report(report: Report, tiles_made: int) -> None:
    """Print what was made, what it took, and the next commands."""
    world, frame = report.world, report.frame
    width, height = frame.nx * frame.voxel_size, frame.ny * frame.voxel_size
    path = shell_quoted(world.path)
    stem = Path(world.path).stem
    speed = km2_per_hour(report, tiles_made)
    time = f"{seconds_text(report.seconds)} for {tiles_made:,} of "
    time += count_text(report.tiles, "tile") + (f", {speed:,.3g} km2/h" if speed else "")
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
    """Return a CRS with its name, such as "EPSG:32632 (WGS 84 / UTM zone 32N)"."""
    import pyproj

    name = pyproj.CRS.from_user_input(crs).name
    return f"{crs} ({name})" if len(crs) < 40 else name
