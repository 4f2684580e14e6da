"""One digest for one world, made in all the ways there are: tile sizes, orders, workers, crashes,
extension, crops.

    python -m benchmarks one_world

About 1 km2 at 2 m. Each way is a function of a `Place` that gives the digest of the world it made;
tests/earthgen/jobs/test_generate.py calls them on a small world. What goes wrong at random does so
by a seeded generator.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from earthgen.engine.scheduler import generate_tiles, open_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import StoreFullError
from earthgen.files import LocalFolder
from earthgen.jobs.generate import run as generate
from earthgen.jobs.job import make_job
from earthgen.jobs.prepare import prepare
from earthgen.progress import Progress
from earthgen.world.digest import add_digests, digest_text
from earthgen.world.store import create_store, open_store

CRS = "EPSG:32632"
WHOLE = (
    684000.0,
    5539808.0,
    685024.0,
    5540832.0,
)  # edges are multiples of 8 voxels, so that crops add up
VOXEL_SIZE = 2.0
TILE_SIZE = 128
KILLS = 10

Bbox = tuple[float, float, float, float]


@dataclass
class Place:
    """A world that is made again and again.

    Attributes
    ----------
    folder : worlds are made in it
    settings : of the job, but bbox, tile size and output
    bbox : W, S, E, N in CRS, multiples of 8 voxels
    """

    folder: Path
    settings: dict[str, Any]
    bbox: Bbox
    tile_size: int = TILE_SIZE
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def job(self, out: Path, **more: Any) -> dict[str, Any]:
        common = {
            "bbox": self.bbox,
            "bbox_crs": CRS,
            "crs": CRS,
            "tile_size": self.tile_size,
            "out": out,
        }
        return {**common, **self.settings, **more}

    def make(self, out: Path, **more: Any) -> str:
        """Make a world in this process; its digest."""
        generate(make_job(self.job(out, **more)))
        return digest(out)

    def words(self, out: Path, **more: Any) -> list[str]:
        """The command line of the same."""
        words = [sys.executable, "-m", "earthgen_cli", "generate"]
        for name, value in self.job(out, **more).items():
            option = "--" + name.replace("_", "-")
            if name == "bbox":
                words.append(f"{option}={','.join(map(str, value))}")
            elif value is True:
                words.append(option)
            else:
                for one in value if isinstance(value, list) else [value]:
                    words += [option, str(one)]
        return [*words, "--progress", "json"]

    def start(self, out: Path, **more: Any) -> subprocess.Popen[str]:
        """Start the command line; its progress comes on stderr."""
        words = self.words(out, **more)
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, out: Path, **more: Any) -> str:
        """Run the command line to the end; the world's digest."""
        child = self.start(out, **more)
        _, said = child.communicate()
        if child.returncode:
            raise SystemExit(
                f"{' '.join(self.words(out, **more))} ended with {child.returncode}: {said[-1000:]}"
            )
        return digest(out)

    def crop(self, west: int, south: int, east: int, north: int) -> Bbox:
        """A part of the box, of its thirds in steps of 8 voxels."""
        edge = 8 * self.settings.get("voxel_size", 1.0)
        xs, ys = (
            [
                low,
                low + round((high - low) * 0.35 / edge) * edge,
                low + round((high - low) * 0.7 / edge) * edge,
                high,
            ]
            for low, high in ((self.bbox[0], self.bbox[2]), (self.bbox[1], self.bbox[3]))
        )
        return xs[west], ys[south], xs[east], ys[north]


def digest(path: Path) -> str:
    """The digest of a world, as `earthgen digest` prints it."""
    store = open_store(path)
    return digest_text(store.identity, store.digest())


def events(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The progress of a command as it comes."""
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("{"):
            yield json.loads(line)


def after_tiles(child: subprocess.Popen[str], count: int) -> None:
    """Wait until a command has made so many tiles, or has ended."""
    for event in events(child):
        if event.get("task") == "generate" and event.get("note", "").startswith("tile"):
            count -= 1
        if count <= 0:
            return


def one_go(place: Place) -> str:
    return place.make(place.folder / "one.zarr")


def tiles_of(place: Place, tile_size: int) -> str:
    return place.make(place.folder / f"tiles{tile_size}.zarr", tile_size=tile_size)


def reversed_order(place: Place) -> str:
    out = place.folder / "reversed.zarr"
    prepared = prepare(make_job(place.job(out)))
    attributes = {"identity": prepared.identity, "provenance": {}, "settings": {}}
    degree = prepared.backends.texture.sh_degree
    store = create_store(out, prepared.frame, place.tile_size, attributes, degree)
    graph = prepared.engine.graph(place.tile_size)
    backwards = list(graph.tiles())[::-1]
    graph.tiles = lambda: iter(backwards)  # type: ignore[method-assign]
    with open_pool(
        WorkerContext(
            prepared.engine, out, place.tile_size, tuple(place.settings.get("plugin_dir", ()))
        )
    ) as pool:
        generate_tiles(store, graph, pool, Progress())
    return digest(out)


def workers(place: Place, count: int, scheduler: str | None = None) -> str:
    return place.make(
        place.folder / f"workers{count}-{scheduler}.zarr", workers=count, scheduler=scheduler
    )


def dask_address(place: Place) -> str:
    import distributed

    out = place.folder / "dask-address.zarr"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        return place.make(out, scheduler=cluster.scheduler_address)


def killed(place: Place, kills: int = KILLS, **more: Any) -> str:
    """Kill -9 at random moments, and --resume."""
    out = place.folder / "killed.zarr"
    for _ in range(kills):
        with place.start(out, **more, **({"resume": True} if out.exists() else {})) as child:
            if place.dice.random() < 0.5:  # soon after the first sign, or at any other moment
                after_tiles(child, place.dice.randint(0, 2))
            else:
                time.sleep(place.dice.uniform(0, 5))
            child.kill()
    return place.finish(out, **more, **({"resume": True} if out.exists() else {}))


def worker_killed(place: Place) -> str:
    """Kill a worker process at random, twice; the run goes on by itself."""
    out = place.folder / "worker-killed.zarr"
    with place.start(out, workers=2) as child:
        for _ in range(2):
            after_tiles(child, 1)
            found = worker_processes(child.pid)
            if found:
                os.kill(place.dice.choice(found), signal.SIGKILL)
        for _ in events(child):
            pass
    if child.returncode:
        raise SystemExit(f"a run whose workers were killed ended with {child.returncode}")
    return digest(out)


def worker_processes(pid: int) -> list[int]:
    """The worker processes of a command; its other child tracks what they share."""
    import psutil

    try:
        children = psutil.Process(pid).children()
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def extended(place: Place) -> str:
    """From the centre to the west, east, south and north."""
    out = place.folder / "extended.zarr"
    place.make(out, bbox=place.crop(1, 1, 2, 2))
    for part in ((0, 1, 1, 2), (2, 1, 3, 2), (0, 0, 3, 1), (0, 2, 3, 3)):
        place.make(out, bbox=place.crop(*part), extend=True)
    return digest(out)


def crops(place: Place) -> str:
    """Nine worlds, whose digests add up."""
    digests, identity = [], {}
    for x in range(3):
        for y in range(3):
            out = place.folder / f"crop{x}{y}.zarr"
            place.make(out, bbox=place.crop(x, y, x + 1, y + 1))
            store = open_store(out)
            digests.append(store.digest())
            identity = store.identity
    return digest_text(identity, add_digests(*digests))


def interrupted(place: Place) -> str:
    """Ctrl-C, and --resume."""
    out = place.folder / "interrupted.zarr"
    with place.start(out, workers=2) as child:
        after_tiles(child, 2)
        child.send_signal(signal.SIGINT)
        said = child.stderr.read() if child.stderr else ""
    if child.returncode not in (0, 130):
        raise SystemExit(f"Ctrl-C ended with {child.returncode}: {said[-1000:]}")
    return place.finish(out, resume=True)


def full_disk(place: Place) -> str:
    """A disk too small by half, then room on it, and --resume."""
    size = sum(
        file.stat().st_size for file in (place.folder / "one.zarr").rglob("*") if file.is_file()
    )
    with small_disk(place.folder / "disk", size // 2) as grow:
        out = place.folder / "disk" / "full.zarr"
        try:
            place.make(out)
        except StoreFullError:
            grow()
            return place.make(out, resume=True)
    raise SystemExit("the disk did not fill up")


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Callable[[], None]]:
    """A folder on a disk of `size` bytes, and what makes it large. Where none can be mounted,
    writes fail instead."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=0", "none", str(path)]
    try:
        real = (
            os.name == "posix"
            and os.geteuid() == 0
            and not subprocess.run(mount, capture_output=True).returncode
        )
    except FileNotFoundError:
        real = False
    if real:
        try:
            yield (
                lambda: (
                    subprocess.run(["mount", "-o", "remount,size=4g", str(path)], check=True)
                    and None
                )
            )
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)
        return
    calls, sync = [0], LocalFolder.sync

    def failing(self: LocalFolder, names: Any) -> None:
        calls[0] += 1
        if calls[0] > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(self, names)

    patched = patch.object(LocalFolder, "sync", failing)
    patched.start()
    try:
        yield patched.stop
    finally:
        patched.stop()


WAYS: dict[str, Callable[[Place], str]] = {
    "one go": one_go,
    "tiles of 64": lambda place: tiles_of(place, 64),
    "tiles of 200": lambda place: tiles_of(place, 200),
    "tiles of 256": lambda place: tiles_of(place, 256),
    "tiles of 512": lambda place: tiles_of(place, 512),
    "reversed order": reversed_order,
    "1 worker process": lambda place: workers(place, 1, "processes"),
    "2 workers": lambda place: workers(place, 2),
    "4 workers": lambda place: workers(place, 4),
    "threads": lambda place: workers(place, 2, "threads"),
    "Dask": lambda place: workers(place, 2, "dask"),
    "Dask at an address": dask_address,
    f"kill -9, {KILLS} times": killed,
    "workers killed": worker_killed,
    "extended from its centre": extended,
    "9 crops": crops,
    "Ctrl-C": interrupted,
    "full disk": full_disk,
}


def town(folder: Path) -> Place:
    """A square kilometre of real data: that beside the checkout, else the demo's."""
    root = Path(__file__).parents[1]
    shared, demo = root.parent / "shared" / "data" / "osm_bayreuth_srtm", root / "examples" / "data"
    if shared.is_dir():
        names = [
            str(shared / "landuse_4326.shp"),
            f"{shared / 'osm_4326.gpkg'}:buildings",
            str(shared / "srtm3_4326.tif"),
        ]
    else:
        names = [
            str(demo / "landuse.shp"),
            f"{demo / 'osm.gpkg'}:buildings",
            str(demo / "srtm3.tif"),
        ]
    return Place(folder, {"semantics": names[:2], "dem": names[2], "voxel_size": VOXEL_SIZE}, WHOLE)


def run() -> dict[str, object]:
    rows: dict[str, object] = {}
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        place = town(Path(name))
        for way, make in WAYS.items():
            began = time.perf_counter()
            found = make(place)
            digests.add(found)
            rows[way] = f"{found} {time.perf_counter() - began:7.1f} s"
            for (
                path
            ) in place.folder.iterdir():  # the full disk wants to know how large the world is
                if path.name != "one.zarr":
                    shutil.rmtree(path)
    return {
        "km2": round((WHOLE[2] - WHOLE[0]) * (WHOLE[3] - WHOLE[1]) / 1e6, 2),
        **rows,
        "one_digest": len(digests) == 1,
    }
