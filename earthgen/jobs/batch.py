"""Many worlds from one call: a feature of a file a world, or the cells of a grid over one large
region.

All jobs are made and placed before the first one runs, so that what is wrong with a region is said
at once.
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
"""Settings that an attribute of a feature can override."""


@dataclass(frozen=True)
class Outcome:
    """What became of one region: a report, or the error that ended it."""

    name: str
    job: Job
    report: Report | None = None
    error: EarthgenError | None = None


def jobs_of_features(
    settings: Mapping[str, Any], source: str, out_dir: str | Path, *, allow_overlap: bool = False
) -> dict[str, Job]:
    """A job for each feature of a polygon layer, by name; attributes named as settings override
    them.

    Raises
    ------
    EarthgenError
        naming the file, the features and what is wrong with them
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
                {**settings, **own, "region": shape, "out": _out(out_dir, feature.name)}
            )
        except JobError as error:
            where = f"{source}, feature {feature.number} ({feature.name})"
            raise JobError(f"{where}: {error.problem}", error.remedy) from error
    return jobs


def jobs_of_grid(settings: Mapping[str, Any], cell_m: float, out_dir: str | Path) -> dict[str, Job]:
    """A job for each cell of a grid over the region of the settings (bbox or region), by the cell's
    name.

    Cells lie on the lattice of the CRS, so that they are the same whatever region they are asked
    for with.
    """
    from geo_io.region.features import grid_cells

    whole = make_job({**settings, "out": _out(out_dir, "whole")})
    frame, mask = place(whole)
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
                "out": _out(out_dir, name),
            }
        )
        for name, bounds in grid_cells(frame, cell_m, shape)
    }


def run_batch(jobs: Mapping[str, Job], listener: Listener | None = None) -> Iterator[Outcome]:
    """Run the jobs one after the other; an error ends its region alone, a full disk or a lost
    scheduler all.

    With `resume`, worlds that are there are finished and those that are not are made.
    """
    columns = sum(_columns(name, job) for name, job in jobs.items())
    if columns > YES_COLUMNS and not all(job.yes for job in jobs.values()):
        raise SizeError(
            f"the batch is large: {columns:,} columns of voxels in {len(jobs):,} regions",
            "give --yes to run it, fewer regions or a larger --voxel-size",
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


def _out(folder: str | Path, name: str) -> str | Path:
    return (
        f"{str(folder).rstrip('/')}/{name}.zarr"
        if "://" in str(folder)
        else Path(folder) / f"{name}.zarr"
    )


def _parsed(name: str, value: Any) -> Any:
    """An attribute as the setting it overrides: columns hold no lists, and CRS codes are often
    numbers."""
    if name == "crs" and isinstance(value, int | float):
        return f"EPSG:{int(value)}"
    if name == "band" and isinstance(value, str):
        return tuple(value.split(","))
    if name == "seed" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
