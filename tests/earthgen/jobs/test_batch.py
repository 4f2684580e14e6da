"""Many worlds from Python: settings of features, cells of a grid, and a region that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from earthgen.errors import JobError, SizeError
from earthgen.jobs.batch import Outcome, jobs_of_features, jobs_of_grid, run_batch
from earthgen.jobs.generate import run
from earthgen.jobs.job import make_job
from earthgen.world.digest import add_digests
from earthgen.world.store import open_store
from earthgen.world.world import open_world
from geo_io.errors import EarthgenError, MissingFileError

STRIPES = Path(__file__).parents[2] / "plugin_package" / "src" / "earthgen_stripes"
SETTINGS: dict[str, Any] = {
    "geometry": "terraces",
    "texture": "stripes",
    "plugin_dir": [STRIPES],
    "tile_size": 64,
}
WEST, SOUTH = 700_000, 5_540_000


def layer(path: Path, **columns: list[Any]) -> str:
    """A row of squares of 40 m, 60 m apart, with these attributes."""
    count = len(next(iter(columns.values())))
    squares = [
        shapely.box(WEST + 60 * n, SOUTH, WEST + 60 * n + 40, SOUTH + 40) for n in range(count)
    ]
    gpd.GeoDataFrame(columns, geometry=squares, crs=32632).to_file(path)
    return str(path)


def test_attributes_of_a_feature_override_the_settings(tmp_path: Path) -> None:
    source = layer(
        tmp_path / "regions.gpkg",
        name=["plain", "other"],
        seed=[None, 7],
        voxel_size=[None, 2.0],
        crs=[None, "EPSG:25832"],
        colour=["red", "blue"],
    )
    jobs = jobs_of_features({**SETTINGS, "seed": 3, "crs": "EPSG:32632"}, source, tmp_path)
    assert list(jobs) == ["plain", "other"]
    plain, other = jobs.values()
    assert (plain.seed, plain.voxel_size, plain.crs) == (3, 1.0, "EPSG:32632")
    assert (other.seed, other.voxel_size, other.crs) == (7, 2.0, "EPSG:25832")
    assert [Path(job.out).name for job in jobs.values()] == ["plain.zarr", "other.zarr"]

    outcomes = list(run_batch(jobs))
    assert [(row.name, row.error) for row in outcomes] == [("plain", None), ("other", None)]
    one, two = (open_world(tmp_path / f"{name}.zarr") for name in jobs)
    assert one.frame.crs == "EPSG:32632" and one.frame.shape == (40, 40) and one.seed == 3
    assert two.frame.crs == "EPSG:25832" and two.frame.voxel_size == 2 and two.seed == 7
    assert abs(two.frame.nx - 20) <= 1 and abs(two.frame.ny - 20) <= 1, (
        "a datum of some decimetres' difference"
    )


def test_a_setting_that_is_wrong_names_its_feature(tmp_path: Path) -> None:
    source = layer(tmp_path / "regions.gpkg", name=["good", "bad"], seed=[1, -5])
    with pytest.raises(JobError, match=r"regions\.gpkg, feature \d \(bad\).*seed"):
        jobs_of_features(SETTINGS, source, tmp_path)


def test_the_cells_of_a_grid_make_the_whole_box(tmp_path: Path) -> None:
    """Their edges are multiples of 8 voxels, so no record belongs to two of them."""
    box = {
        "bbox": (WEST, SOUTH, WEST + 200, SOUTH + 80),
        "bbox_crs": "EPSG:32632",
        "crs": "EPSG:32632",
    }
    assert WEST % 80 == 0 and SOUTH % 80 == 0
    jobs = jobs_of_grid({**SETTINGS, **box}, 80.0, tmp_path)
    assert len(jobs) == 3
    for outcome in run_batch(jobs):
        assert outcome.error is None and outcome.report is not None
    frames = [open_world(job.out).frame for job in jobs.values()]
    assert sorted(frame.x[0] - WEST for frame in frames) == [0, 80, 160]
    assert sorted(frame.nx for frame in frames) == [40, 80, 80], (
        "the last cell ends where the box does"
    )
    whole = run(
        make_job({**SETTINGS, **box, "tile_size": 96, "out": tmp_path / "whole.zarr"})
    ).world
    parts = [open_store(job.out) for job in jobs.values()]
    assert add_digests(*(part.digest() for part in parts)) == open_store(whole.path).digest()
    assert {part.key for part in parts} == {open_store(whole.path).key}


def test_a_region_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    source = layer(
        tmp_path / "regions.gpkg", name=["a", "b", "c"], semantics=[None, "none.shp", None]
    )
    jobs = jobs_of_features(SETTINGS, source, tmp_path)
    outcomes: list[Outcome] = list(run_batch(jobs))
    assert [row.name for row in outcomes] == ["a", "b", "c"]
    assert [row.error is None for row in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, EarthgenError) and "none.shp" in str(outcomes[1].error)
    assert outcomes[1].report is None and not (tmp_path / "b.zarr").exists()
    assert all(open_world(tmp_path / f"{name}.zarr").complete for name in "ac")


def test_a_region_without_a_place_is_said_before_anything_runs(tmp_path: Path) -> None:
    source = layer(tmp_path / "regions.gpkg", name=["a", "b"], dem=[None, "none.tif"])
    jobs = jobs_of_features(SETTINGS, source, tmp_path)
    with pytest.raises(MissingFileError, match=r"none\.tif"):
        next(run_batch(jobs))
    assert not (tmp_path / "a.zarr").exists()


def test_a_large_batch_wants_a_yes(tmp_path: Path) -> None:
    box = {
        "bbox": (600_000, SOUTH, 640_000, SOUTH + 40_000),
        "bbox_crs": "EPSG:32632",
        "crs": "EPSG:32632",
    }
    jobs = jobs_of_grid({**SETTINGS, **box}, 20_000.0, tmp_path)
    assert len(jobs) >= 4, "none of them is large alone"
    with pytest.raises(SizeError, match="`yes`"):
        next(run_batch(jobs))
    assert list(tmp_path.iterdir()) == []
