"""Many worlds from one call: one per feature of a layer, or one per cell of a grid over a region.

All jobs are made and placed before the first one runs, so an error in a region is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthgen.errors import JobError, SchedulerError, SizeError, StoreFullError
from earthgen.jobs.forecast import YES_COLUMNS, estimate
from earthgen.jobs.generate import Report, run
from earthgen.jobs.job import RUN_FIELDS, Job, RegionShape, make_job
from earthgen.jobs.prepare import place
from earthgen.progress import Listener, Progress
from geo_io.errors import EarthgenError

PER_REGION = frozenset(Job.model_fields) - {
    *RUN_FIELDS,
    "bbox",
    "bbox_crs",
    "region",
    "plugin_dir",
    "conditions",
}
"""Settings that attributes of a feature can override."""


@dataclass(frozen=True)
class Outcome:
    """The result of one region: a report, or the error that ended it.

    Attributes
    ----------
    name : str
        Of the region.
    job : Job
    report : Report or None
    error : EarthgenError or None
    """

    name: str
    job: Job
    report: Report | None = None
    error: EarthgenError | None = None


def jobs_of_features(
    settings: Mapping[str, Any], source: str, out_dir: str | Path, *, allow_overlap: bool = False
) -> dict[str, Job]:
    """Make a job for each feature of a polygon layer, by its name.

    Parameters
    ----------
    settings : mapping
        Of all jobs. An attribute of a feature with the name of a setting overrides it.
    source : str
        The layer.
    out_dir : path or URL
        Where the worlds go.
    allow_overlap : bool
        Accept features that overlap.

    Raises
    ------
    EarthgenError
        Naming the file, the features and what is wrong with them.
    """
    import shapely

    from geo_io.region.features import read_regions

    features = read_regions(
        source,
        settings=PER_REGION,
        assume_crs=settings.get("assume_crs"),
        crs=settings.get("crs"),
        voxel_size=settings.get("voxel_size", 1.0),
        allow_overlap=allow_overlap,
    )
    jobs = {}
    for feature in features:
        wkt = shapely.to_wkt(feature.geometry, rounding_precision=-1)
        shape = RegionShape(name=feature.name, crs=feature.crs, wkt=wkt)
        own = {name: _parsed(name, value) for name, value in feature.attributes.items()}
        try:
            jobs[feature.name] = make_job(
                {**settings, **own, "region": shape, "out": _world_path(out_dir, feature.name)}
            )
        except JobError as error:
            where = f"{source}, feature {feature.number} ({feature.name})"
            raise JobError(f"{where}: {error.problem}", error.remedy) from error
    return jobs


def jobs_of_grid(settings: Mapping[str, Any], cell_m: float, out_dir: str | Path) -> dict[str, Job]:
    """Make a job for each cell of a grid over a region, by the cell's name.

    The cells lie on a lattice that starts at the origin of the CRS, so they do not depend on the
    region.

    Parameters
    ----------
    settings : mapping
        Of all jobs; `bbox` or `region` is the region.
    cell_m : float
        Edge of a cell, metres.
    out_dir : path or URL
        Where the worlds go.
    """
    from geo_io.region.features import grid_cells

    whole = make_job({**settings, "out": _world_path(out_dir, "whole")})
    placement = place(whole)
    frame, mask = placement.frame, placement.mask
    shape = None if mask is None else mask.keywords["region"]  # type: ignore[attr-defined]
    given = {
        name: value
        for name, value in settings.items()
        if name not in ("bbox", "bbox_crs", "region", "crs")
    }
    return {
        name: make_job(
            {
                **given,
                "bbox": bounds,
                "bbox_crs": frame.crs,
                "crs": frame.crs,
                "out": _world_path(out_dir, name),
            }
        )
        for name, bounds in grid_cells(frame, cell_m, shape)
    }


def run_batch(jobs: Mapping[str, Job], listener: Listener | None = None) -> Iterator[Outcome]:
    """Run jobs one after the other, yielding each outcome.

    An error ends only its region; a full disk or a lost scheduler ends the batch. Jobs with
    `resume` finish the worlds that exist and make the others.

    Parameters
    ----------
    jobs : mapping of str to Job
    listener : callable, optional

    Raises
    ------
    SizeError
        If the batch is large and a job lacks `yes`.
    StoreFullError, SchedulerError
        If the disk is full, or the workers cannot be reached.
    """
    columns = sum(_columns(name, job) for name, job in jobs.items())
    if columns > YES_COLUMNS and not all(job.yes for job in jobs.values()):
        raise SizeError(
            f"the batch is large: {columns:,} columns of voxels in {len(jobs):,} regions",
            "give `yes` to run it, fewer regions, or a larger `voxel_size`",
        )
    progress = Progress(listener)
    progress.start("regions", len(jobs))
    for name, job in jobs.items():
        try:
            yield Outcome(name, job, report=run(job, listener))
        except (StoreFullError, SchedulerError):
            raise
        except EarthgenError as error:
            yield Outcome(name, job, error=error)
        progress.step(name)


def _columns(name: str, job: Job) -> int:
    try:
        return estimate(job).columns
    except EarthgenError as error:
        raise type(error)(f"region {name}: {error.problem}", error.remedy) from error


def _world_path(folder: str | Path, name: str) -> str | Path:
    if "://" in str(folder):
        return f"{str(folder).rstrip('/')}/{name}.zarr"
    return Path(folder) / f"{name}.zarr"


def _parsed(name: str, value: Any) -> Any:
    """Convert an attribute to the setting it overrides. Columns hold no lists, and CRS codes are
    often numbers."""
    if name == "crs" and isinstance(value, int | float):
        return f"EPSG:{int(value)}"
    if name == "band" and isinstance(value, str):
        return tuple(value.split(","))
    if name == "seed" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
