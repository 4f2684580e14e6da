"""What is decided about the place of a world: new, resumed, replaced, extended or refused."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from earthgen.errors import JobError, StoreError, StoreExistsError
from earthgen.jobs.job import Job, make_job
from earthgen.jobs.output import inspect_output, open_output
from earthgen.jobs.prepare import prepare
from earthgen.world.lock import LOCK, lock_world
from earthgen.world.store import Store, create_store, open_store
from geo_io.frame import Frame
from tests.helpers.places import bucket, place  # noqa: F401 - fixtures

FRAME = Frame("EPSG:32632", 1.0, (700_000, 700_064), (5_540_000, 5_540_064))
IDENTITY = {"seed": 3, "reading": {"region": None}}
STRIPES = Path(__file__).parents[2] / "plugin_package" / "src" / "earthgen_stripes"


def job(out: Path | str, **settings: Any) -> Job:
    box = {"bbox": FRAME.bounds, "bbox_crs": FRAME.crs, "crs": FRAME.crs, "tile_size": 64}
    backends = {"geometry": "terraces", "texture": "stripes", "plugin_dir": [STRIPES]}
    return make_job({**box, **backends, "out": out, **settings})


def world(path: Path | str, identity: dict[str, Any] = IDENTITY) -> Store:
    return create_store(path, FRAME, 64, {"identity": identity, "provenance": {}, "settings": {}})


def begin(made: Job) -> Store:
    """Begin a job's output, and end without an error."""
    output = open_output(made)
    with output.begin(prepare(output.job, placement=output.place())) as (store, _):
        return store


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_new_world(place: Path | str, flags: dict[str, bool]) -> None:  # noqa: F811
    output = open_output(job(place, **flags))
    assert not output.exists and not output.resumes and output.before is None
    assert output.place().frame == FRAME


def test_nothing_to_extend_is_refused(place: Path | str) -> None:  # noqa: F811
    with pytest.raises(StoreError, match=r"no world at .* to extend"):
        open_output(job(place, extend=True))


def test_a_world_that_exists(place: Path | str) -> None:  # noqa: F811
    world(place)
    with pytest.raises(StoreExistsError, match=r"`resume`.*`extend`.*`overwrite`"):
        open_output(job(place))
    resumed = open_output(job(place, resume=True))
    assert resumed.exists and resumed.resumes and resumed.before is None
    for flag in ("overwrite", "extend"):
        if "://" in str(place):
            with pytest.raises(StoreError, match="in an object store"):
                open_output(job(place, **{flag: True}))
            continue
        output = open_output(job(place, **{flag: True}))
        assert output.exists and not output.resumes
        assert (output.before is not None) == (flag == "extend")


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(StoreExistsError, match="not an earthgen world"):
            open_output(job(tmp_path / "mine", **flags))
    with pytest.raises(StoreError, match="does not exist"):
        open_output(job(tmp_path / "no" / "w.zarr"))
    (tmp_path / "empty").mkdir()
    assert not open_output(job(tmp_path / "empty", resume=True)).exists


def test_an_interrupted_creation_counts_as_nothing(place: Path | str) -> None:  # noqa: F811
    store = world(place)
    root = json.loads(store.folder.read("zarr.json") or b"")
    store.folder.write("zarr.json", json.dumps({**root, "attributes": {}}).encode())
    store.folder.write(LOCK, b"")
    for flags in ({}, {"resume": True}):
        assert not open_output(job(place, **flags)).exists


def test_a_forecast_looks_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "no" / "w.zarr"
    assert not inspect_output(job(out)).exists, "the folder need not exist yet"
    assert not list(tmp_path.iterdir())
    world(tmp_path / "w.zarr")
    assert not inspect_output(job(tmp_path / "w.zarr")).exists, "as if it were new"
    assert inspect_output(job(tmp_path / "w.zarr", resume=True)).resumes
    extended = inspect_output(job(tmp_path / "w.zarr", extend=True))
    assert extended.before is not None


def test_an_extension_takes_the_lattice_and_holds_both_frames(tmp_path: Path) -> None:
    out = tmp_path / "w.zarr"
    world(out)
    east = (700_100.0, 5_540_010.0, 700_150.0, 5_540_020.0)
    given = {"bbox": east, "bbox_crs": FRAME.crs, "out": out, "extend": True}
    output = open_output(make_job(given))
    assert (output.job.crs, output.job.tile_size) == (FRAME.crs, 64)
    assert output.place().frame.bounds == (700_000, 5_540_000, 700_150, 5_540_064)
    with pytest.raises(StoreError, match=r"voxel_size \(1\.0 before, 2\.0 now\) changed"):
        open_output(make_job({**given, "voxel_size": 2.0}))
    with pytest.raises(StoreError, match=r"band .* changed.*`band`"):
        open_output(make_job({**given, "band": (0, 64)})).place()
    with pytest.raises(JobError, match="by or from a `region`"):
        open_output(make_job({**given, "bbox": None, "region": "area.gpkg"}))
    world(tmp_path / "cut.zarr", {**IDENTITY, "reading": {"region": "sha256:1"}})
    with pytest.raises(JobError, match="by or from a `region`"):
        open_output(make_job({**given, "out": tmp_path / "cut.zarr"}))


def test_a_world_is_replaced_at_the_end_alone(tmp_path: Path) -> None:
    out = tmp_path / "w.zarr"
    old = world(out)
    output = open_output(job(out, overwrite=True))
    prepared = prepare(output.job, placement=output.place())
    with pytest.raises(KeyboardInterrupt), output.begin(prepared):
        raise KeyboardInterrupt
    assert open_store(out).identity == old.identity
    assert (tmp_path / ".w.zarr.new").exists(), "of the interrupted run"
    with output.begin(prepared) as (store, _):
        assert store.path == tmp_path / ".w.zarr.new" and open_store(out).identity == old.identity
        with pytest.raises(StoreError, match="works on world"), lock_world(out):
            pass
    assert open_store(out).identity == prepared.identity
    assert [path.name for path in tmp_path.iterdir()] == ["w.zarr"]


def test_a_swap_that_was_interrupted_is_undone(tmp_path: Path) -> None:
    world(tmp_path / ".w.zarr.old")
    with pytest.raises(StoreExistsError):
        open_output(job(tmp_path / "w.zarr"))
    assert [path.name for path in tmp_path.iterdir()] == ["w.zarr"]


def test_resuming_needs_the_same_identity_and_tile_size(tmp_path: Path) -> None:
    out = tmp_path / "w.zarr"
    begin(job(out))
    assert begin(job(out, resume=True)).identity == open_store(out).identity
    with pytest.raises(StoreError, match=r"tile_size \(64 before, 72 now\).*`overwrite`"):
        begin(job(out, resume=True, tile_size=72))
    with pytest.raises(StoreError, match=r"seed \(0 before, 5 now\)"):
        begin(job(out, resume=True, seed=5))


def test_a_world_that_another_process_extends_is_not_extended_from_before(tmp_path: Path) -> None:
    out = tmp_path / "w.zarr"
    begin(job(out))
    output = open_output(job(out, extend=True))
    prepared = prepare(output.job, placement=output.place())
    larger = (*FRAME.bounds[:2], FRAME.bounds[2] + 64, FRAME.bounds[3])
    begin(job(out, extend=True, bbox=larger))
    with pytest.raises(StoreError, match="extended by another process"), output.begin(prepared):
        pass


def test_a_url_has_no_parent_folder() -> None:
    assert not open_output(job(f"memory://{uuid.uuid4().hex}/deep/w.zarr")).exists


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody may write")
def test_a_parent_that_cannot_be_written_is_told_at_once() -> None:
    with pytest.raises(StoreError, match=r"/proc/w\.zarr cannot be written") as caught:
        open_output(make_job({"bbox": (1, 2, 3, 4), "out": "/proc/w.zarr"}))
    assert "deleted or moved" not in str(caught.value)
