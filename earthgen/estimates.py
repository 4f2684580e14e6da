"""What a job would take, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from earthgen.job import Job
from earthgen.preparation import place
from geo_io.frame import Frame

YES_COLUMNS = 10**9
"""A job of more columns than this (1000 km2 at 1 m) wants an explicit yes."""

# Measured by `python -m benchmarks.generate` on two cores; only the estimate depends on them.
BYTES_PER_COLUMN = 47.0
SECONDS_PER_COLUMN = 10e-6


@dataclass(frozen=True)
class Cost:
    """What a learned backend takes beside what rules take: what its optional method `cost()` gives.

    Attributes
    ----------
    seconds : a column of voxels, on one core
    memory : bytes of a worker
    basis : what the figures rest on
    """

    seconds: float
    memory: int
    basis: str


@dataclass(frozen=True)
class Estimate:
    """What a job would take. bytes and seconds are rough: from measured figures of a column of voxels."""

    frame: Frame
    tiles: int
    columns: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.frame.area_km2:,.1f} km2, {self.columns:,} columns in {self.tiles:,} tiles, "
            f"about {self.bytes / 1e9:,.1f} GB on disk and {self.seconds / 3600:,.1f} h on this kind of machine"
        )


def estimate(job: Job, frame: Frame | None = None) -> Estimate:
    """What a job would take, from its frame alone."""
    frame = frame or place(job)[0]
    columns = frame.nx * frame.ny
    tiles = (-(-frame.x[1] // job.tile_size) - frame.x[0] // job.tile_size) * (
        -(-frame.y[1] // job.tile_size) - frame.y[0] // job.tile_size
    )
    return Estimate(
        frame, tiles, columns, int(columns * BYTES_PER_COLUMN), columns * SECONDS_PER_COLUMN / max(job.workers, 1)
    )
