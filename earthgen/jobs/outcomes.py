"""Several worlds of one map: the same job with other seeds, each in a world of its own."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

from earthgen.errors import JobError
from earthgen.jobs.generate import Report, run
from earthgen.jobs.job import Job, make_job
from earthgen.jobs.output import open_output
from earthgen.progress import Listener

LARGEST_SEED = 2**63 - 1


def outcome_path(out: str, number: int) -> str:
    """Return the path or URL of one outcome: "town-2.zarr" of "town.zarr"."""
    pure = PureWindowsPath(out) if "\\" in out else PurePosixPath(out)
    stem, suffix = pure.stem, pure.suffix
    return out[: len(out.rstrip("/\\")) - len(pure.name)] + f"{stem}-{number}{suffix}"


def outcome_jobs(job: Job, count: int) -> list[Job]:
    """Return the jobs of `count` outcomes; the first has the seed of the job, the next the next.

    Noise comes from a hash of the seed and the stage, so neighbouring seeds have nothing in common.

    Raises
    ------
    JobError
        If `count` is not positive, or there are not so many seeds after that of the job.
    """
    if count < 1:
        raise JobError(f"`outcomes` is {count}", "give 1 or more")
    if job.seed > LARGEST_SEED - (count - 1):
        raise JobError(
            f"there are not {count} seeds from {job.seed} on", f"give a `seed` below {LARGEST_SEED}"
        )
    return [
        make_job({**dict(job), "seed": job.seed + k, "out": outcome_path(str(job.out), k + 1)})
        for k in range(count)
    ]


def run_outcomes(job: Job, count: int, listener: Listener | None = None) -> list[Report]:
    """Generate several worlds of one map. All places are looked at before the first is written.

    Parameters
    ----------
    job : Job
        Its `out` names the worlds: "town.zarr" becomes town-1.zarr, town-2.zarr and so on.
    count : int
    listener : callable, optional
        Told of each step of each world.

    Raises
    ------
    JobError
        See `outcome_jobs`.
    EarthgenError
        As `earthgen.generate` does; worlds before the one that failed stay.
    """
    jobs = outcome_jobs(job, count)
    for each in jobs:
        open_output(each)
    return [run(each, listener) for each in jobs]
