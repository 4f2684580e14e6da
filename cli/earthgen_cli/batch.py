"""`earthgen batch`: many worlds, a feature of a file or a cell of a grid each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import BBOX_HELP, checked_bbox
from earthgen_cli.job_options import merged, with_job_options
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import (
    count_text,
    plain,
    say,
    say_error,
    say_json,
    say_pairs,
    say_table,
    seconds_text,
    shell_quoted,
)
from earthgen_cli.progress import WARNING, Display, Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.batch import Outcome
    from earthgen.jobs.job import Job
    from earthgen.progress import Event
    from geo_io.errors import EarthgenError

NAMED = 5
"""How many of many worlds a message names."""


@dataclass(frozen=True)
class Region:
    """What is known of a region before its world is made.

    area : km2, of the region rather than of the box around it
    overrides : settings that its attributes give
    """

    area: float
    tiles: int
    overrides: dict[str, Any]


@with_job_options(
    without=("out", "extend"),
    bbox=Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N", callback=checked_bbox, help=f"What --grid divides. {BBOX_HELP}"
        ),
    ],
    region=Annotated[
        str | None,
        typer.Option(metavar="FILE[:LAYER]", help="What --grid divides: the extent of this file."),
    ],
    overwrite=Annotated[
        bool, typer.Option("--overwrite", help="Replace the worlds that are there.")
    ],
    resume=Annotated[
        bool,
        typer.Option("--resume", help="Finish the worlds that are there, and make the others."),
    ],
)
def batch(
    ctx: typer.Context,
    regions: Annotated[
        str | None,
        typer.Argument(
            metavar="REGIONS[:LAYER]",
            help="A file of polygons: each feature becomes a world, called like its attribute name, id or region. "
            "Attributes called like a setting override it.",
        ),
    ] = None,
    out_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder for the worlds; made if it is not there."),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option(
            metavar="METRES",
            help="Instead of REGIONS: a world for each cell over --bbox or --region.",
        ),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Features may overlap: each makes the shared part."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the regions, and write nothing.")
    ] = False,
    job_file: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB.toml", help="A job file with settings of all regions."),
    ] = None,
    *,
    given: Mapping[str, Any],
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
            "nothing says where to write the worlds", "give --out-dir, such as --out-dir worlds"
        )
    settings = merged(
        load_job(job_file) if job_file is not None else {}, given, ctx.obj.plugin_dirs
    )
    settings = {name: value for name, value in settings.items() if name not in ("out", "extend")}
    jobs = batch_jobs(settings, regions, grid, out_dir, allow_overlap)
    found = surveyed(jobs, settings)
    if dry_run:
        say_regions(jobs, found, json_output)
        return
    refuse_existing(jobs, out_dir)
    make_folder(out_dir)
    run_and_say(jobs, found, out_dir, quiet, json_output, progress)


def batch_jobs(
    settings: Mapping[str, Any],
    regions: str | None,
    grid: float | None,
    out_dir: str,
    allow_overlap: bool,
) -> dict[str, Job]:
    """The jobs by the name of their region.

    Raises
    ------
    EarthgenError
        if the options contradict each other, or something is wrong with the regions
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
            raise JobError(
                f"REGIONS and --{placed[0]} exclude each other", f"leave --{placed[0]} away"
            )
        return jobs_of_features(settings, regions, out_dir, allow_overlap=allow_overlap)
    if grid is None:
        raise JobError(
            "nothing says which regions",
            "give a file of polygons, or --grid with --bbox or --region",
        )
    if not placed:
        raise JobError(
            "nothing says what --grid is to divide", "give --bbox W,S,E,N or --region FILE"
        )
    return jobs_of_grid(settings, grid, out_dir)


def surveyed(jobs: Mapping[str, Job], settings: Mapping[str, Any]) -> dict[str, Region]:
    """The regions by name, each placed, so that one that cannot be is found before any is made."""
    from earthgen.jobs.batch import PER_REGION
    from earthgen.jobs.forecast import estimate
    from earthgen.jobs.job import RegionShape, make_job
    from earthgen.jobs.prepare import place

    common = make_job({**settings, "out": "common"})
    found = {}
    for name, job in jobs.items():
        frame, mask = place(job)
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
        found[name] = Region(area, estimate(job, frame).tiles, overrides)
    return found


def refuse_existing(jobs: Mapping[str, Job], out_dir: str) -> None:
    """Raises StoreExistsError if there are worlds that the jobs may not touch."""
    from earthgen.errors import StoreExistsError
    from earthgen.files import folder

    there = [
        name
        for name, job in jobs.items()
        if not (job.resume or job.overwrite) and folder(job.out).exists()
    ]
    if there:
        more = f" and {len(there) - NAMED:,} more" if len(there) > NAMED else ""
        raise StoreExistsError(
            f"{len(there):,} of the {len(jobs):,} worlds are in {out_dir} already: {', '.join(there[:NAMED])}{more}",
            "give --resume to finish them and make the others, --overwrite to replace them, or another --out-dir",
        )


def make_folder(out_dir: str) -> None:
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
    """Passes events on, and tells the display which region they are of."""

    show: Display
    names: Sequence[str]

    def __call__(self, event: Event) -> None:
        if event.task != "regions":
            self.show(event)
            return
        self.show.region = ""
        self.show(event)
        self.show.region = self.names[event.done] if event.done < len(self.names) else ""


def run_and_say(
    jobs: Mapping[str, Job],
    found: Mapping[str, Region],
    out_dir: str,
    quiet: bool,
    json_output: bool,
    progress: Mode,
) -> None:
    """Run the jobs, print errors as they come and the table at the end.

    Raises
    ------
    typer.Exit
        with the code of the first error, if a region failed
    """
    from earthgen.jobs.batch import run_batch

    began = time.monotonic()
    outcomes: list[Outcome] = []
    with display(progress, quiet=quiet, json_output=json_output) as show:
        try:
            for outcome in run_batch(jobs, RegionEvents(show, list(jobs))):
                outcomes.append(outcome)
                if outcome.error is not None:
                    say_failure(outcome.name, outcome.error, json_output or progress is Mode.JSON)
                elif outcome.report is not None and not (quiet or json_output):
                    for warning in outcome.report.warnings:
                        if warning not in show.warned:
                            show.warned.add(warning)
                            say(f"{WARNING}{outcome.name}: {warning}", err=True)
        finally:  # also where a full disk or Ctrl-C ends it: what is finished is worth knowing
            if outcomes:
                seconds = time.monotonic() - began
                if json_output:
                    say_json(batch_values(jobs, found, outcomes, out_dir, seconds))
                elif not quiet:
                    say_outcomes(jobs, found, outcomes, out_dir, seconds)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise typer.Exit(errors[0].exit_code)


def say_failure(name: str, error: EarthgenError, as_json: bool) -> None:
    say_error(
        f"region {name}: {error.problem}",
        error.remedy,
        type(error).__name__,
        error.exit_code,
        as_json,
    )


def say_regions(jobs: Mapping[str, Job], found: Mapping[str, Region], json_output: bool) -> None:
    """What --dry-run prints."""
    if json_output:
        listed = [
            {
                "name": name,
                "world": job.out,
                "area_km2": found[name].area,
                "tiles": found[name].tiles,
                "overrides": found[name].overrides,
            }
            for name, job in jobs.items()
        ]
        say_json({"regions": listed})
        return
    rows = [
        (
            name,
            f"{found[name].area:,.3f}",
            f"{found[name].tiles:,}",
            ", ".join(f"{key}={text(value)}" for key, value in found[name].overrides.items())
            or "-",
        )
        for name in jobs
    ]
    say_table(("region", "km2", "tiles", "settings of its own"), rows)
    tiles, area = (
        sum(region.tiles for region in found.values()),
        sum(region.area for region in found.values()),
    )
    say(f"{count_text(len(rows), 'region')}, {area:,.3f} km2, {count_text(tiles, 'tile')}")


def text(value: Any) -> str:
    """A setting on one line."""
    made = plain(value)
    return ",".join(map(str, made)) if isinstance(made, list) else str(made)


def batch_values(
    jobs: Mapping[str, Job],
    found: Mapping[str, Region],
    outcomes: Sequence[Outcome],
    out_dir: str,
    seconds: float,
) -> dict[str, Any]:
    """What --json prints."""
    listed = [
        {
            "name": outcome.name,
            "world": outcome.job.out,
            "result": "failed" if outcome.report is None else "done",
            "area_km2": found[outcome.name].area,
            "tiles": found[outcome.name].tiles,
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
    found: Mapping[str, Region],
    outcomes: Sequence[Outcome],
    out_dir: str,
    seconds: float,
) -> None:
    rows = [
        (
            outcome.name,
            f"{found[outcome.name].area:,.3f}",
            f"{found[outcome.name].tiles:,}",
            "-" if outcome.report is None else seconds_text(outcome.report.seconds),
            "done" if outcome.error is None else f"failed: {type(outcome.error).__name__}",
        )
        for outcome in outcomes
    ]
    say_table(("region", "km2", "tiles", "time", "result"), rows)
    failed = sum(outcome.error is not None for outcome in outcomes)
    said = [f"{len(outcomes) - failed:,} of {len(jobs):,} regions are done"]
    said += [f"{failed:,} failed"] * bool(failed)
    say()
    say_pairs([("worlds", out_dir), ("result", ", ".join(said)), ("time", seconds_text(seconds))])
    first = next((outcome for outcome in outcomes if outcome.report is not None), None)
    if first is not None:
        say_pairs([("next", f"  earthgen info {shell_quoted(first.job.out)}")])
