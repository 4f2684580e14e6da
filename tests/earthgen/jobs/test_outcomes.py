"""Several worlds of one map."""

from __future__ import annotations

from pathlib import Path

import pytest

from earthgen.errors import JobError
from earthgen.jobs.job import make_job
from earthgen.jobs.outcomes import outcome_jobs, outcome_path


@pytest.mark.parametrize(
    ("out", "wanted"),
    [
        ("town.zarr", "town-2.zarr"),
        ("town", "town-2"),
        ("a.b/town.v1.zarr", "a.b/town.v1-2.zarr"),
        ("/data/town.zarr/", "/data/town-2.zarr"),
        ("s3://bucket/a/town.zarr", "s3://bucket/a/town-2.zarr"),
        ("C:\\maps\\town.zarr", "C:\\maps\\town-2.zarr"),
    ],
)
def test_names(out: str, wanted: str) -> None:
    assert outcome_path(out, 2) == wanted


def job(**settings):
    return make_job({"bbox": (0, 0, 8, 8), "bbox_crs": "EPSG:32632", "out": "w.zarr", **settings})


def test_seeds_follow_each_other() -> None:
    jobs = outcome_jobs(job(seed=41), 3)
    assert [each.seed for each in jobs] == [41, 42, 43]
    assert [Path(each.out).name for each in jobs] == ["w-1.zarr", "w-2.zarr", "w-3.zarr"]
    assert all(each.bbox == jobs[0].bbox for each in jobs)


def test_too_many() -> None:
    with pytest.raises(JobError, match="`outcomes` is 0"):
        outcome_jobs(job(), 0)
    with pytest.raises(JobError, match="not 2 seeds"):
        outcome_jobs(job(seed=2**63 - 1), 2)
    assert len(outcome_jobs(job(seed=2**63 - 1), 1)) == 1
