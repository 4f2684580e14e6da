"""Datasets and recipes of strangers: nothing is written or searched outside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from earthgen.dataset.builders import sources
from earthgen.dataset.recipe import parse_recipe
from earthgen.dataset.report import write_report
from earthgen.dataset.scene import require_scene_or_nothing
from earthgen.errors import JobError, StoreExistsError
from earthgen.jobs.simulate import made_up_requests
from geo_io.errors import UnsafePathError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "keep.txt").write_text("keep")
    return folder


def recipe(**values: Any) -> Any:
    given = {"name": "a", "licence": "CC0-1.0", "grade": "A", **values}
    return parse_recipe({"scene": [given]}).scene[0]


def test_a_scene_replaces_scenes_only(tmp_path: Path, outside: Path) -> None:
    place = tmp_path / "a.zarr"
    require_scene_or_nothing(place)
    place.mkdir()
    require_scene_or_nothing(place)
    (place / "zarr.json").write_text('{"attributes": {"earthgen_scene": ')  # cut off
    require_scene_or_nothing(place)
    link = tmp_path / "b.zarr"
    link.symlink_to(outside)
    with pytest.raises(StoreExistsError, match=r"b\.zarr exists and is not a scene"):
        require_scene_or_nothing(link)
    with pytest.raises(StoreExistsError, match="is not a scene"):
        require_scene_or_nothing(outside / "keep.txt")


def test_the_report_stays_in_the_dataset(tmp_path: Path, outside: Path) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "report").symlink_to(outside)
    with pytest.raises(UnsafePathError, match="outside the folder"):
        write_report(dataset, [])
    assert [path.name for path in outside.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize("pattern", ["**/*.laz", "../**/*", "*/*/*/*"])
def test_no_disk_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.setattr(sources, "SEARCHED", 10)
    root = tmp_path / "root"
    for number in range(11):
        (root / "points" / f"{number}").mkdir(parents=True)
    with pytest.raises(JobError, match=r"searches .* which holds more than 10 files"):
        sources.find_sources(recipe(points=pattern), root)


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a" * 250, "../a", "a."])
def test_a_name_that_is_no_folder_everywhere_is_refused_first(name: str) -> None:
    with pytest.raises(JobError, match="name"):
        recipe(name=name, mesh="a.obj")


@pytest.mark.parametrize("km2", [0.0, -1.0, float("nan"), float("inf"), 1e308, 1e9])
def test_no_area_without_end_is_made_up(km2: float) -> None:
    with pytest.raises(JobError, match="cannot be simulated"):
        made_up_requests(km2)
