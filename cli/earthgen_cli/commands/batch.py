"""`earthgen batch`: many worlds, one for each feature of a file or cell of a grid."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.job_options import JOB, merge_settings
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import (
    count_text,
    plain,
    say,
    say_error,
    say_json,
    say_pairs,
    say_table,
    say_warning,
    seconds_text,
    shell_quoted,
)
from earthgen_cli.progress import Display, Mode, display
from earthgen_cli.settings import OptionStyle, name_options, setting_options

if TYPE_CHECKING:
    from earthgen.jobs.batch import Outcome
    from earthgen.jobs.job import Job
    from earthgen.progress import Event
    from geo_io.errors import EarthgenError

NAMED = 5
"""How many worlds a message names at most."""


@dataclass(frozen=True)
class Region:
    """A region before its world is made.

    Attributes
    ----------
    area : float
        Area in km2 of the region itself, not of the box around it.
    tiles : int
        Tiles of its world.
    overrides : dict
        Settings that its attributes give.
    """

    area: float
    tiles: int
    overrides: dict[str, Any]


SETTINGS = JOB.without("out", "extend").changed(
    bbox=replace(JOB.styles["bbox"], help="The box that --grid divides: west, south, east, north."),
    region=OptionStyle("FILE[:LAYER]", help="The file whose extent --grid divides."),
    overwrite=OptionStyle(help="Replace the worlds that exist."),
    resume=OptionStyle(help="Finish the worlds that exist, and make the others."),
)


def batch(
    ctx: typer.Context,
    regions: Annotated[
        str | None,
        typer.Argument(
            metavar="REGIONS[:LAYER]",
            help="A file of polygons. Each feature becomes a world with the name of its attribute "
            "name, id or region. Attributes with the name of a setting override it.",
        ),
    ] = None,
    out_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The folder for the worlds; created if it does not exist."
        ),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option(
            metavar="METRES",
            help="Instead of REGIONS: a world for each cell of a grid over --bbox or --region.",
        ),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-overlap", help="Features may overlap; each world has the shared part."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the regions, and write nothing.")
    ] = False,
    job_file: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB.toml", help="A job file with settings for all regions."),
    ] = None,
    *,
    typed: Annotated[dict[str, Any], SETTINGS],
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Generate many worlds, one after the other.

    A region that fails does not stop the others; the exit code is then that of the first error.
    """
    from earthgen.errors import JobError
    from earthgen.jobs.job import load_job

    if out_dir is None:
        raise JobError(
            "no folder for the worlds is given", "give --out-dir, such as --out-dir worlds"
        )
    file_settings = load_job(job_file) if job_file is not None else {}
    settings = merge_settings(file_settings, typed, ctx.obj.plugin_dirs)
    settings = {name: value for name, value in settings.items() if name not in ("out", "extend")}
    jobs = batch_jobs(settings, regions, grid, out_dir, allow_overlap)
    regions_by_name = survey_regions(jobs, settings)
    if dry_run:
        say_regions(jobs, regions_by_name, json_output)
        return
    refuse_existing(jobs, out_dir)
    make_folder(out_dir)
    run_regions(ctx, jobs, regions_by_name, out_dir, quiet, json_output, progress)


def batch_jobs(
    settings: Mapping[str, Any],
    regions: str | None,
    grid: float | None,
    out_dir: str,
    allow_overlap: bool,
) -> dict[str, Job]:
    """Make the jobs by the name of their region.

    Raises
    ------
    EarthgenError
        If the options exclude each other, or something is wrong with the regions.
    """
    from earthgen.errors import JobError
    from earthgen.jobs.batch import jobs_of_features, jobs_of_grid

    placed = [name for name in ("bbox", "region") if name in settings]
    if regions is not None and grid is not None:
        raise JobError(
            "REGIONS and --grid exclude each other",
            "give --grid with --bbox or --region, or REGIONS alone",
        )
    if regions is not None:
        if placed:
            raise JobError(f"REGIONS and --{placed[0]} exclude each other", f"omit --{placed[0]}")
        return jobs_of_features(settings, regions, out_dir, allow_overlap=allow_overlap)
    if grid is None:
        raise JobError(
            "no regions are given",
            "give a file of polygons, or --grid with --bbox or --region",
        )
    if not placed:
        raise JobError("no area for --grid is given", "give --bbox W,S,E,N or --region FILE")
    return jobs_of_grid(settings, grid, out_dir)


def survey_regions(jobs: Mapping[str, Job], settings: Mapping[str, Any]) -> dict[str, Region]:
    """Place all regions, so that one that cannot be placed is reported before any is made."""
    from earthgen.jobs.batch import PER_REGION
    from earthgen.jobs.forecast import estimate
    from earthgen.jobs.job import RegionShape, make_job
    from earthgen.jobs.prepare import place

    common = make_job({**settings, "out": "common"})
    regions = {}
    for name, job in jobs.items():
        placement = place(job)
        frame, mask = placement.frame, placement.mask
        # The mask of a region is `partial(inside, region=polygon)`, the polygon in metres of the
        # frame's CRS.
        shape = None if mask is None else mask.keywords["region"]  # type: ignore[attr-defined]
        own = PER_REGION if isinstance(job.region, RegionShape) else ()
        overrides = {
            key: getattr(job, key)
            for key in sorted(own)
            if getattr(job, key) != getattr(common, key)
        }
        area = frame.area_km2 if shape is None else shape.area / 1e6
        regions[name] = Region(area, estimate(job, frame).tiles, overrides)
    return regions


def refuse_existing(jobs: Mapping[str, Job], out_dir: str) -> None:
    """Raise StoreExistsError if there are worlds that the jobs must not change."""
    from earthgen.errors import StoreExistsError
    from earthgen.files import folder

    existing = [
        name
        for name, job in jobs.items()
        if not (job.resume or job.overwrite) and folder(job.out).exists()
    ]
    if existing:
        more = f" and {len(existing) - NAMED:,} more" if len(existing) > NAMED else ""
        raise StoreExistsError(
            f"{len(existing):,} of the {len(jobs):,} worlds are in {out_dir} already: "
            f"{', '.join(existing[:NAMED])}{more}",
            "give --resume to finish them and make the others, --overwrite to replace them, or "
            "another --out-dir",
        )


def make_folder(out_dir: str) -> None:
    """Make the folder of the worlds, unless it is the URL of an object store."""
    from earthgen.errors import StoreError

    if "://" in out_dir:
        return
    path = Path(out_dir)
    if path.exists() and not path.is_dir():
        raise StoreError(f"--out-dir {out_dir} is a file", "give a folder")
    if not path.absolute().parent.is_dir():
        raise StoreError(
            f"folder {path.parent} of --out-dir does not exist",
            "make it first, or give another --out-dir",
        )
    path.mkdir(exist_ok=True)


@dataclass
class RegionEvents:
    """Passes events on, and sets their region at the display."""

    show: Display
    names: Sequence[str]

    def __call__(self, event: Event) -> None:
        """Pass the event on."""
        if event.task != "regions":
            self.show(event)
            return
        self.show.region = ""
        self.show(event)
        self.show.region = self.names[event.done] if event.done < len(self.names) else ""


def run_regions(
    ctx: typer.Context,
    jobs: Mapping[str, Job],
    regions: Mapping[str, Region],
    out_dir: str,
    quiet: bool,
    json_output: bool,
    progress: Mode,
) -> None:
    """Run the jobs, print errors as they come and the table at the end.

    Raises
    ------
    typer.Exit
        With the code of the first error, if a region failed.
    """
    from earthgen.jobs.batch import run_batch

    options, as_json = setting_options(ctx.command), json_output or progress is Mode.JSON
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        try:
            for outcome in run_batch(jobs, RegionEvents(show, list(jobs))):
                outcomes.append(outcome)
                if outcome.error is not None:
                    say_failure(outcome.name, outcome.error, options, as_json)
                elif outcome.report is not None and not (quiet or json_output):
                    for warning in outcome.report.warnings:
                        if warning not in show.warned:
                            show.warned.add(warning)
                            say_warning(show.text(warning), outcome.name)
        finally:  # also after a full disk or Ctrl-C: it matters which regions are finished
            if outcomes:
                seconds = time.monotonic() - began
                if json_output:
                    say_json(batch_values(jobs, regions, outcomes, out_dir, seconds))
                elif not quiet:
                    say_outcomes(jobs, regions, outcomes, out_dir, seconds)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise typer.Exit(errors[0].exit_code)


def say_failure(name: str, error: EarthgenError, options: Mapping[str, str], as_json: bool) -> None:
    """Print the error of a region."""
    problem = f"region {name}: {name_options(error.problem, options)}"
    remedy = name_options(error.remedy, options)
    say_error(problem, remedy, type(error).__name__, error.exit_code, as_json)


def say_regions(jobs: Mapping[str, Job], regions: Mapping[str, Region], json_output: bool) -> None:
    """Print the regions for --dry-run."""
    if json_output:
        listed = [
            {
                "name": name,
                "world": job.out,
                "area_km2": regions[name].area,
                "tiles": regions[name].tiles,
                "overrides": regions[name].overrides,
            }
            for name, job in jobs.items()
        ]
        say_json({"regions": listed})
        return
    rows = [
        (
            name,
            f"{regions[name].area:,.3f}",
            f"{regions[name].tiles:,}",
            ", ".join(f"{key}={text(value)}" for key, value in regions[name].overrides.items())
            or "-",
        )
        for name in jobs
    ]
    say_table(("region", "km2", "tiles", "own settings"), rows)
    tiles = sum(region.tiles for region in regions.values())
    area = sum(region.area for region in regions.values())
    say(f"{count_text(len(rows), 'region')}, {area:,.3f} km2, {count_text(tiles, 'tile')}")


def text(value: Any) -> str:
    """Return a setting as one line."""
    value = plain(value)
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def batch_values(
    jobs: Mapping[str, Job],
    regions: Mapping[str, Region],
    outcomes: Sequence[Outcome],
    out_dir: str,
    seconds: float,
) -> dict[str, Any]:
    """Return what --json prints."""
    listed = [
        {
            "name": outcome.name,
            "world": outcome.job.out,
            "result": "failed" if outcome.report is None else "done",
            "area_km2": regions[outcome.name].area,
            "tiles": regions[outcome.name].tiles,
            "seconds": None if outcome.report is None else round(outcome.report.seconds, 3),
            "work": None if outcome.report is None else outcome.report.work,
            "warnings": [] if outcome.report is None else outcome.report.warnings,
            "error": None
            if outcome.error is None
            else {
                "error": outcome.error.problem,
                "remedy": outcome.error.remedy,
                "type": type(outcome.error).__name__,
                "exit_code": outcome.error.exit_code,
            },
        }
        for outcome in outcomes
    ]
    failed = sum(outcome.error is not None for outcome in outcomes)
    return {
        "out_dir": out_dir,
        "regions": listed,
        "done": len(outcomes) - failed,
        "failed": failed,
        "not_run": len(jobs) - len(outcomes),
        "seconds": round(seconds, 3),
    }


def say_outcomes(
    jobs: Mapping[str, Job],
    regions: Mapping[str, Region],
    outcomes: Sequence[Outcome],
    out_dir: str,
    seconds: float,
) -> None:
    """Print the table of regions and what to do next."""
    rows = [
        (
            outcome.name,
            f"{regions[outcome.name].area:,.3f}",
            f"{regions[outcome.name].tiles:,}",
            "-" if outcome.report is None else seconds_text(outcome.report.seconds),
            "done" if outcome.error is None else f"failed: {type(outcome.error).__name__}",
        )
        for outcome in outcomes
    ]
    say_table(("region", "km2", "tiles", "time", "result"), rows)
    failed = sum(outcome.error is not None for outcome in outcomes)
    result = f"{len(outcomes) - failed:,} of {len(jobs):,} regions are done"
    result += f", {failed:,} failed" if failed else ""
    say()
    say_pairs([("worlds", out_dir), ("result", result), ("time", seconds_text(seconds))])
    first = next((outcome for outcome in outcomes if outcome.report is not None), None)
    if first is not None:
        say_pairs([("next", f"  earthgen info {shell_quoted(first.job.out)}")])
