"""One digest for one world, however it was made and through whatever it went; and the clear lines
of what cannot be.

The ways are those of tests/helpers/one_world.py, on a small world of the stranger's plugin.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from earthgen.engine.compute import Engine
from earthgen.engine.dask_pool import cluster
from earthgen.engine.graph import TILE, Task
from earthgen.engine.scheduler import check_tiles, open_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import SchedulerError, StoreError
from earthgen.jobs.generate import run
from earthgen.jobs.job import make_job
from earthgen.jobs.verify import verify
from earthgen.noise.philox import Noise
from earthgen.progress import Event, Progress
from earthgen.world.layout import STAGES
from earthgen.world.lock import lock_world
from earthgen.world.store import create_store, open_store
from earthgen_stripes.backends import Stripes, Terraces
from geo_io.frame import Frame
from tests.helpers import one_world
from tests.helpers.one_world import WAYS, Place, after_tiles, digest, events

ROOT = Path(__file__).parents[3]
BBOX = (684032.0, 5539840.0, 684032.0 + 200, 5539840.0 + 136)
KILLS = 3  # the benchmark kills as often as the table says
PLUGIN = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "plugin_package" / "src")!r})
from earthgen_stripes import *
"""
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(scope="module")
def plugin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "stripes.py").write_text(PLUGIN)
    return folder


@pytest.fixture(scope="module")
def settings(plugin_dir: Path) -> dict[str, Any]:
    return {"geometry": "terraces", "texture": "stripes", "seed": 5, "plugin_dir": [plugin_dir]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Place:
    """The world that one process makes in one go, as one.zarr; not to be changed."""
    place = Place(tmp_path_factory.mktemp("whole"), settings, BBOX, 96)
    one_world.one_go(place)
    return place


@pytest.fixture
def place(tmp_path: Path, whole: Place) -> Place:
    """Another folder with the same world in it."""
    shutil.copytree(whole.folder / "one.zarr", tmp_path / "one.zarr")
    return Place(tmp_path, whole.settings, BBOX, 96)


@pytest.fixture
def one(place: Place) -> Path:
    return place.folder / "one.zarr"


def tidy(world: Path) -> None:
    """Nothing is left of what a run needed on its way."""
    assert not [name for name in world.rglob("*") if name.name.endswith(".partial")]
    assert not [name for name in (world / STAGES).rglob("*") if name.is_file()]
    assert not (world / "index" / ".owner").exists()


LONG = (
    "Dask",
    "workers killed",
    "4 workers",
    "Dask at an address",
    "Ctrl-C",
    "9 crops",
    "tiles of 64",
    "1 worker process",
    "extended from its centre",
)
QUICK = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in WAYS
    if not name.startswith(("one go", "kill", "tiles of 512"))
]


@pytest.mark.parametrize("way", QUICK)
def test_ways(place: Place, one: Path, way: str) -> None:
    if os.name != "posix" and way in ("workers killed", "Ctrl-C"):
        pytest.skip("signals of POSIX")
    assert WAYS[way](place) == digest(one)
    for world in place.folder.glob("*.zarr"):
        tidy(world)
    assert not list(place.folder.glob(".*.new")) and not list(place.folder.glob(".*.old"))


@posix
@pytest.mark.parametrize(("tile_size", "workers"), [(96, 1), (256, 2)])
@pytest.mark.slow
def test_kills(place: Place, one: Path, tile_size: int, workers: int) -> None:
    """Tiles of 96 voxels are put together from windows; whether or not stages are fused, nothing
    is lost."""
    place.tile_size = tile_size
    assert one_world.killed(place, KILLS, workers=workers) == digest(one)
    tidy(place.folder / "killed.zarr")


@posix
@pytest.mark.slow
def test_an_extension_that_is_killed_leaves_the_old_world_whole_and_goes_on(
    place: Place, one: Path
) -> None:
    out = place.folder / "grown.zarr"
    before = place.make(out, bbox=place.crop(1, 1, 2, 2))
    for tiles in (0, 1):
        with place.start(out, extend=True) as child:
            after_tiles(child, tiles)
            child.kill()
        assert digest(out) == before
    assert (place.folder / ".grown.zarr.new").exists(), "the test shows nothing"
    assert place.finish(out, extend=True) == digest(one)
    assert [path.name for path in sorted(place.folder.iterdir())] == ["grown.zarr", "one.zarr"]
    tidy(out)


def test_a_kill_between_the_two_renames_of_an_extension(place: Place, one: Path) -> None:
    out = place.folder / "grown.zarr"
    place.make(out, bbox=place.crop(1, 1, 2, 2))
    shutil.copytree(one, place.folder / ".grown.zarr.new")
    out.rename(place.folder / ".grown.zarr.old")
    assert place.make(out, extend=True) == digest(one)
    assert not (place.folder / ".grown.zarr.old").exists()


@pytest.mark.parametrize(
    "made", [[], ["zarr.json"], ["zarr.json", "index/zarr.json", "level_1/ground/zarr.json"]]
)
@pytest.mark.parametrize("flags", [{}, {"resume": True}])
def test_a_kill_while_a_world_is_created(
    place: Place, one: Path, made: list[str], flags: dict[str, bool]
) -> None:
    out = place.folder / "begun.zarr"
    (out / "index").mkdir(parents=True)
    (out / "index" / ".lock").write_text("")
    for name in made:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one / name, out / name)
    if made:
        root = json.loads((out / "zarr.json").read_text())
        root["attributes"] = {}
        (out / "zarr.json").write_text(json.dumps(root))
    assert place.make(out, **flags) == digest(one)


def test_what_a_crash_left_is_swept(place: Place, one: Path) -> None:
    (one / "level_1" / "ground" / "zarr.json.0.partial").write_bytes(b"half")
    for key in (open_store(one).key, "0123456789abcdef"):
        (one / STAGES / key / "terraces").mkdir(parents=True)
        (one / STAGES / key / "terraces" / "0_0").write_bytes(b"torn")
    before = digest(one)
    assert place.make(one, resume=True) == before
    tidy(one)


def largest(world: Path, array: str) -> Path:
    return max((world / array).rglob("c*"), key=lambda file: file.stat().st_size * file.is_file())


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 4]) + data[half + 1 :]


@pytest.mark.parametrize(
    "harm",
    [
        truncate,
        pytest.param(flip, marks=pytest.mark.slow),
        pytest.param(lambda data: b"", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_damage_is_found_and_mended(
    place: Place, one: Path, harm: Callable[[bytes], bytes], first: bool
) -> None:
    before, chunk = digest(one), largest(one, "voxels/level_1/xyz")
    chunk.write_bytes(harm(chunk.read_bytes()))
    if first:
        child = subprocess.run(
            [sys.executable, "-m", "earthgen_cli", "verify", str(one), "--json"],
            capture_output=True,
            text=True,
        )
        assert child.returncode == 5
        (damaged,) = json.loads(child.stdout)["damaged"]
        row, column = map(int, chunk.name.split(".")[1:3])
        whole = open_store(one).tiles_frame
        assert damaged["tile"] == [whole.x[0] // 96 + column, whole.y[1] // 96 - 1 - row]
        assert digest(one) != before, "it is marked"
    notes: list[str] = []
    run(make_job(place.job(one, resume=True)), lambda event: notes.append(event.note))
    assert digest(one) == before and verify(one).sound
    assert first or any("was damaged and is generated again" in note for note in notes)


@pytest.mark.parametrize("harm", [truncate, flip, lambda data: b""])
def test_a_damaged_index(place: Place, one: Path, harm: Callable[[bytes], bytes]) -> None:
    before = digest(one)
    (chunk,) = (file for file in (one / "index").iterdir() if file.name.startswith("c."))
    chunk.write_bytes(harm(chunk.read_bytes()))
    with pytest.raises(StoreError, match=r"index .* damaged"):
        verify(one)
    assert place.make(one, resume=True) == before


@pytest.mark.parametrize("flag", ["resume", "extend"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 6}, r"seed \(5 before, 6 now\)"),
        ({"band": (0, 100)}, r"band \(\[-16, 496\] before, \[0, 100\] now"),
        ({"geometry_options": {"step": 4.0}}, r"geometry\.options.*step.*4\.0"),
    ],
)
def test_other_settings(
    place: Place, one: Path, flag: str, change: dict[str, Any], said: str
) -> None:
    before = digest(one)
    box = {"bbox": (BBOX[0], BBOX[1], BBOX[2] + 64, BBOX[3])} if flag == "extend" else {}
    with pytest.raises(StoreError, match=said):
        place.make(one, **{flag: True}, **box, **change)
    assert digest(one) == before and not (place.folder / ".one.zarr.new").exists()


def test_another_version(place: Place, one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earthgen.jobs.prepare.__version__", "9.9")
    for flag in ("resume", "extend"):
        with pytest.raises(StoreError, match=r"earthgen \(.* before, 9\.9 now\)"):
            place.make(one, **{flag: True})


def test_another_input(place: Place) -> None:
    source, out = place.folder / "landuse.gpkg", place.folder / "w.zarr"

    def write(kind: str) -> None:
        import geopandas
        import shapely

        frame = geopandas.GeoDataFrame(
            {"landuse": [kind]}, geometry=[shapely.box(*BBOX)], crs=one_world.CRS
        )
        frame.to_file(source)

    write("meadow")
    more = {"semantics": [str(source)], "legend": ["osm"], "bbox": place.crop(1, 1, 2, 2)}
    before = place.make(out, **more)
    source.unlink()
    write("forest")
    for flag in ("resume", "extend"):
        with pytest.raises(
            StoreError, match=r"inputs\.semantics \(\['sha256:.* before, \['sha256:.* now\)"
        ):
            place.make(out, **more, **{flag: True})
    assert digest(out) == before


def test_a_newer_format(place: Place, one: Path) -> None:
    file = one / "zarr.json"
    root = json.loads(file.read_text())
    root["attributes"]["earthgen"]["format_version"] = 99
    file.write_text(json.dumps(root))
    for flag in ("resume", "extend"):
        with pytest.raises(StoreError, match=r"format version 99.*update earthgen"):
            place.make(one, **{flag: True})


@posix
def test_a_folder_that_is_read_only(place: Place, one: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        world = shutil.copytree(one, Path(name) / "w.zarr")
        Path(name).chmod(0o755)
        (world / "index").chmod(0o555)
        (world / "index" / ".lock").unlink()
        user = os.geteuid()
        try:
            if not user:
                os.seteuid(65534)
            with pytest.raises(StoreError, match="read-only for this user"), lock_world(world):
                pass
        finally:
            os.seteuid(user)
            (world / "index").chmod(0o755)


@pytest.mark.parametrize("scheduler", [None, "threads"])
def test_a_world_that_vanishes(place: Place, scheduler: str | None) -> None:
    out = place.folder / "gone.zarr"

    def listener(event: Event) -> None:
        if event.note.startswith("tile") and out.exists():
            out.rename(place.folder / "moved")

    with pytest.raises(StoreError, match="was deleted or moved"):
        run(make_job(place.job(out, scheduler=scheduler, workers=2 if scheduler else 1)), listener)
    assert not out.exists(), "it is not made anew"


@pytest.mark.slow
def test_a_full_disk_of_workers_is_one_clear_line(place: Place) -> None:
    with one_world.small_disk(place.folder / "disk", 300_000):
        if (place.folder / "disk").is_mount():
            words = place.words(place.folder / "disk" / "w.zarr", workers=2)
            done = subprocess.run(words, capture_output=True, text=True)
            lines = [line for line in done.stderr.splitlines() if '"progress"' not in line]
            assert done.returncode == 5 and len(lines) == 1 and "is full" in lines[0]


@posix
def test_two_processes_on_one_world_and_what_a_kill_leaves(place: Place, one: Path) -> None:
    out = place.folder / "both.zarr"
    with place.start(out, tile_size=64, workers=2) as child:
        after_tiles(child, 1)
        family = psutil.Process(child.pid).children(recursive=True)
        for flags in ({"resume": True}, {"overwrite": True}, {"extend": True}):
            with pytest.raises(StoreError, match=rf"process {child.pid} on .* works on world"):
                place.make(out, tile_size=64, **flags)
        assert len(family) >= 3, "two workers, and a tracker of what they share"
        child.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE], (
        "workers outlive a kill"
    )
    assert place.make(out, tile_size=64, resume=True) == digest(one), "the lock is free"


def test_a_scheduler_that_is_not_there(place: Place) -> None:
    began = time.monotonic()
    with pytest.raises(SchedulerError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        place.make(place.folder / "w.zarr", scheduler="tcp://127.0.0.1:1")
    assert time.monotonic() - began < 30  # it is waited for 10 s


def hear_ctrl_c() -> None:
    """Tests that a script runs in the background inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@posix
def test_ctrl_c_says_one_line(place: Place) -> None:
    """Ctrl-C in a terminal reaches the workers too."""
    out = place.folder / "w.zarr"
    words = place.words(out, tile_size=64, workers=2)
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_ctrl_c
    ) as child:
        # Before the first tile: the others follow it so soon that the job might end before the
        # signal comes.
        next(event for event in events(child) if event.get("task") == "generate")
        os.killpg(child.pid, 2)
        assert child.stderr is not None
        rest = [line for line in child.stderr if '"event": "progress"' not in line]
    assert child.returncode == 130 and len(rest) == 1 and "interrupted" in rest[0], "".join(rest)


def small(path: Path) -> WorkerContext:
    frame = Frame("EPSG:32632", 1.0, (0, 128), (0, 64))
    create_store(path, frame, 64, {"identity": {"seed": 3}, "provenance": {}, "settings": {}})
    return WorkerContext(Engine(frame, Terraces(), Stripes(), {}, Noise(3)), path, 64)


@posix
@pytest.mark.slow
def test_workers_that_die_while_tiles_are_checked(one: Path) -> None:
    with open_pool(WorkerContext(None, one, 96), 2) as pool:
        pool.check(open_store(one).finished_tiles()[0]).result()
        for process in psutil.Process().children(recursive=True):
            if process.ppid() != os.getpid():
                process.kill()
        assert check_tiles(open_store(one), pool, Progress()) == {}


@pytest.mark.slow
def test_dask(place: Place, one: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The dashboard is shown; a worker is killed, another joins late; nothing is printed."""
    import distributed

    events: list[Event] = []
    out = place.folder / "dask.zarr"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as local:

        def listener(event: Event) -> None:
            events.append(event)
            if event.note.startswith("tile") and event.done == 1:
                psutil.Process(next(iter(local.workers.values())).pid).kill()
                local.scale(2)

        run(make_job(place.job(out, tile_size=64, scheduler=local.scheduler_address)), listener)
        assert digest(out) == digest(one)
        (message,) = (event.note for event in events if event.kind == "message")
        assert re.fullmatch(r"Dask dashboard: http://.*:\d+/status", message)

        with cluster(local.scheduler_address, 1) as pool:
            pool.begin(small(place.folder / "small.zarr"))
            shutil.rmtree(place.folder / "small.zarr")
            with pytest.raises(StoreError) as caught:
                pool.do(Task(TILE, 0, 0)).result(timeout=60)
            assert caught.value.problem and caught.value.remedy, (
                "an error comes back as what it was"
            )
            local.close()
            with pytest.raises(SchedulerError, match="scheduler ended"):
                pool.do(Task(TILE, 0, 0)).result(timeout=60)
    assert "Traceback" not in capfd.readouterr().err
