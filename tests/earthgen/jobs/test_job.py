"""Settings of a job that stand for others."""

from __future__ import annotations

from pathlib import Path

from earthgen.jobs.job import LEARNED, make_job, stored_settings

PLACE = {"bbox": (11.0, 50.0, 11.01, 50.01), "out": "w.zarr"}


def test_learned_is_short_for_two_backends_and_gives_way_to_names() -> None:
    assert make_job({**PLACE, "learned": True}).geometry == LEARNED["geometry"]
    job = make_job({**PLACE, "learned": True, "texture": "procedural"})
    assert (job.geometry, job.texture) == (LEARNED["geometry"], "procedural")
    assert make_job(PLACE).geometry == make_job({**PLACE, "learned": False}).geometry
    stored = stored_settings(make_job({**PLACE, "learned": True}))
    assert "learned" not in stored and stored["texture"] == LEARNED["texture"]


def test_paths_are_taken_wherever_files_are() -> None:
    files = {"region": "a.gpkg", "legend": "l.yaml", "points": "p.laz", "semantics": "s.shp"}
    text = make_job({**files, "out": "w.zarr"})
    paths = make_job({**{name: Path(file) for name, file in files.items()}, "out": Path("w.zarr")})
    assert (paths.region, paths.legend, paths.points) == ("a.gpkg", ("l.yaml",), ("p.laz",))
    assert stored_settings(paths) == stored_settings(text)
    many = make_job({**files, "legend": [Path("l.yaml"), "corine"], "out": "w.zarr"})
    assert many.legend == ("l.yaml", "corine")
