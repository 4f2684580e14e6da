"""Settings of a job that stand for others."""

from __future__ import annotations

from earthgen.jobs.job import LEARNED, make_job, stored_settings

PLACE = {"bbox": (11.0, 50.0, 11.01, 50.01), "out": "w.zarr"}


def test_learned_is_short_for_two_backends_and_gives_way_to_names() -> None:
    assert make_job({**PLACE, "learned": True}).geometry == LEARNED["geometry"]
    job = make_job({**PLACE, "learned": True, "texture": "procedural"})
    assert (job.geometry, job.texture) == (LEARNED["geometry"], "procedural")
    assert make_job(PLACE).geometry == make_job({**PLACE, "learned": False}).geometry
    stored = stored_settings(make_job({**PLACE, "learned": True}))
    assert "learned" not in stored and stored["texture"] == LEARNED["texture"]
