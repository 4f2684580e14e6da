"""Every setting that changes what a world holds is part of its identity, so that `resume` with
another value is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earthgen.errors import StoreError
from earthgen.jobs.generate import generate
from earthgen.jobs.identity import differences
from earthgen.jobs.job import RUN_FIELDS, Job, make_job
from earthgen.jobs.prepare import LATER_READING, PreparedJob, prepare
from tests.helpers.command_line import PLUGIN
from tests.helpers.rasters import CORNER, UTM, write

LEFT, TOP = CORNER
BOX = (LEFT, TOP - 40, LEFT + 40, TOP)

CHANGED: dict[str, Any] = {
    "bbox": (LEFT, TOP - 30, LEFT + 40, TOP),
    "bbox_crs": "EPSG:32633",
    "region": {
        "name": "a corner",
        "crs": UTM,
        "wkt": "POLYGON((500000 5499960, 500040 5500000, 500000 5500000, 500000 5499960))",
    },
    "semantics": ["areas.tif"],
    "class_field": "use",
    "legend": ["osm"],
    "height_field": "h",
    "height_unit": "ft",
    "dem": "other.tif",
    "dem_unit": "ft",
    "dsm": "other.tif",
    "dsm_unit": "ft",
    "vertical_shift": 0.5,
    "image": "areas.tif",
    "canopy": "other.tif",
    "canopy_unit": "ft",
    "points_unit": "ft",
    "conditions": {"canopy": "other.tif"},
    "assume_crs": UTM,
    "crs": "EPSG:32633",
    "voxel_size": 2.0,
    "band": (-16.0, 240.0),
    "geometry": "procedural",
    "texture": "procedural",
    "geometry_options": {"step": 3.0},
    "texture_options": {"width": 4},
    "seed": 1,
}
"""Another value of each setting that changes the content or the extent of a world."""

ELSEWHERE = {
    "points": "a source like the others; read by tests/earthgen/jobs/test_point_layers.py",
    "weights": "a digest, for learned backends only; tests/plugins/test_latent_backends.py",
    "sparse_backend": "becomes an option of learned backends; tests/plugins",
}
"""Settings that change the content and are tested in other files."""

NOT_CONTENT = {
    "attribution": "a text of the provenance",
    "allow_unmapped": "lets a job go on, and changes nothing that it reads",
    "tile_size": "a property of the files, not of the content",
    "plugin_dir": "code: backends and encoders have versions",
    **dict.fromkeys(RUN_FIELDS, "a property of the run"),
}
"""Settings that change nothing that a world holds, and why."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of a small world with a raster for each kind of heights."""
    folder = tmp_path_factory.mktemp("identity")
    (folder / "stripes.py").write_text(PLUGIN)
    flat = np.zeros((40, 40), np.float32)
    for name, heights in (("dem", flat), ("dsm", flat), ("canopy", flat), ("other", flat + 0.01)):
        write(folder / f"{name}.tif", heights, size=1.0)
    write(folder / "areas.tif", np.full((40, 40), 10, np.uint8), size=1.0)
    paths = {name: str(folder / f"{name}.tif") for name in ("dem", "dsm", "canopy")}
    named = {"geometry": "terraces", "texture": "stripes", "plugin_dir": [folder]}
    return {"bbox": BOX, "bbox_crs": UTM, "crs": UTM, "out": folder / "w.zarr", **paths, **named}


def prepared(base: dict[str, Any], name: str = "", value: Any = None) -> PreparedJob:
    """The base job with another value of a setting."""
    folder = Path(base["out"]).parent
    values = dict(base)
    if name:
        values[name] = _with_folder(value, folder)
    if name == "region":
        values |= {"bbox": None}
    if name == "bbox_crs":
        values |= dict.fromkeys(("crs", "dem", "dsm", "canopy"))
    if name in ("semantics", "image"):
        values |= {"legend": ["worldcover"], "semantics": values.get("semantics", [])}
    if name == "geometry":
        values |= {"texture": "procedural"}
    return prepare(make_job(values))


def _with_folder(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_folder(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_folder(item, folder) for item in value]
    return str(folder / value) if isinstance(value, str) and value.endswith(".tif") else value


def test_every_setting_is_accounted_for() -> None:
    tables = [set(CHANGED), set(ELSEWHERE), set(NOT_CONTENT)]
    assert set.union(*tables) == set(Job.model_fields)
    assert sum(map(len, tables)) == len(Job.model_fields), "a setting stands in one table"


@pytest.fixture(scope="module")
def before(base: dict[str, Any]) -> PreparedJob:
    return prepared(base)


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_setting_changes_the_identity(
    base: dict[str, Any], before: PreparedJob, name: str
) -> None:
    after = prepared(base, name, CHANGED[name])
    differing = differences(before.identity, after.identity)
    assert differing or before.frame != after.frame
    if name.endswith("_unit") or name in ("class_field", "height_field", "legend", "assume_crs"):
        assert [text.split(" ")[0] for text in differing] == [f"reading.{name}"]


def test_settings_that_were_added_later_are_recorded_if_given(before: PreparedJob) -> None:
    """Digests hash the identity: a new key in every world would change them all."""
    assert not set(LATER_READING) & set(before.identity["reading"])


def test_resume_with_another_unit_is_refused(base: dict[str, Any], tmp_path: Path) -> None:
    settings = {**base, "dsm": None, "out": tmp_path / "w.zarr"}
    generate(**settings)
    for name in LATER_READING:
        with pytest.raises(StoreError, match=rf"reading\.{name} \(None before, ft now\) changed"):
            generate(**settings, resume=True, **{name: "ft"})
