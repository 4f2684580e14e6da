"""Simulated scenes: worlds that rules make of made-up or given places, as training data."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from earthgen._version import __version__
from earthgen.dataset.builders.quality import judge
from earthgen.dataset.builders.worlds import scene_of_world
from earthgen.dataset.made_up import CRS, KINDS, make_place
from earthgen.dataset.scene import SUFFIX, Scene, SceneInfo, open_scene, write_scene
from earthgen.errors import JobError, UnknownNameError
from earthgen.jobs.generate import run
from earthgen.jobs.job import Job, make_job
from earthgen.progress import Listener, Progress

EDGE = 1024.0
"""Edge of a made-up place, metres."""

MIX = {
    "town": 4,
    "suburb": 3,
    "village": 3,
    "estate": 1.5,
    "industry": 1,
    "fields": 1,
    "woods": 1.5,
}
"""How often each kind of place is made up, unless kinds are given."""

LARGEST = 100_000
"""Most square kilometres of made-up places."""

LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class Request:
    """One scene to simulate.

    Attributes
    ----------
    name : str
        Of the scene.
    seed : int
        Of the made-up place, and of the world.
    kind : str
        Kind of made-up place; "" for given layers.
    settings : mapping
        Settings of the job, for given layers.
    source, licence, grade : str
        Of the layers, as a scene records them.
    """

    name: str
    seed: int
    kind: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = f"made up by earthgen {__version__}"
    licence: str = LICENCE
    grade: str = "A"


def made_up_requests(km2: float, seed: int = 0, kinds: Sequence[str] = ()) -> list[Request]:
    """Return requests for made-up places of a total area.

    The kinds follow each other so that any beginning of the list has about the shares of `MIX`.

    Parameters
    ----------
    km2 : float
        Area in all; rounded up to whole places.
    seed : int
        Of the first place.
    kinds : sequence of str
        Keys of `earthgen.dataset.made_up.KINDS`, used in turn; by default those of `MIX`.

    Raises
    ------
    UnknownNameError
        If there is no such kind.
    JobError
        If the area is not positive, or larger than `LARGEST`.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError(f"unknown kind of place {kind!r}", f"known: {', '.join(KINDS)}")
    if not 0 < km2 <= LARGEST:
        raise JobError(
            f"an area of {km2:g} km2 cannot be simulated",
            f"give a positive area of at most {LARGEST:,} km2",
        )
    count = int(np.ceil(km2 * 1e6 / EDGE**2))
    shares = dict.fromkeys(kinds, 1.0) if kinds else MIX
    requests = []
    made = dict.fromkeys(shares, 0)
    for number in range(count):
        kind = min(shares, key=lambda name: (made[name] + 0.5) / shares[name])
        made[kind] += 1
        requests.append(Request(f"{kind}-{seed + number}", seed + number, kind))
    return requests


def simulate(
    requests: Sequence[Request],
    out: str | Path,
    *,
    voxel_size: float = 1.0,
    band: tuple[int, int] = (-16, 112),
    workers: int = 1,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Iterator[Scene]:
    """Make simulated scenes, and yield each when it is written.

    The colours are those of the rules, walls and crowns are whole, the map is the land-use layers
    as the rules read them, and buildings and plants have object numbers. Scenes that exist are
    kept, so that an interrupted run continues.

    Parameters
    ----------
    requests : sequence of Request
    out : path
        Folder of the dataset; made if it does not exist.
    voxel_size : float
        Metres.
    band : tuple of int
        z range of the scenes in voxels, multiples of 8.
    workers : int
        Places that are made at the same time.
    overwrite : bool
        Whether scenes that exist are made again.
    listener : callable, optional

    Raises
    ------
    EarthgenError
        If a layer or a setting is wrong.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress(listener)
    missing = []
    for request in requests:
        path = out / f"{request.name}{SUFFIX}"
        if path.exists() and not overwrite:
            yield open_scene(path)
        else:
            missing.append(request)
    progress.start("simulate", len(requests), done=len(requests) - len(missing))
    if workers == 1:
        for request in missing:
            yield _simulate(request, out, voxel_size, band)
            progress.step(request.name)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {
            pool.submit(_simulate_path, request, out, voxel_size, band): request
            for request in missing
        }
        for future in as_completed(futures):
            yield open_scene(future.result())
            progress.step(futures[future].name)


def _simulate_path(request: Request, out: Path, voxel_size: float, band: tuple[int, int]) -> Path:
    return _simulate(request, out, voxel_size, band).path


def _simulate(request: Request, out: Path, voxel_size: float, band: tuple[int, int]) -> Scene:
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
        world = Path(folder) / "world.zarr"
        job = _job(request, world, voxel_size)
        conditions = run(job).conditions
        data, evidence, vertical = scene_of_world(world, voxel_size, band)
    frame = replace(data.frame, vertical_crs=vertical)
    # The land cover of the layers alone, as a backend is given it; 0 where nothing is mapped.
    columns = {**data.columns, "map": np.asarray(conditions["semantics"].read(frame).cover)}
    columns["map"] = np.where(columns["valid"], columns["map"], 0).astype(np.uint8)
    data = replace(data, frame=frame, columns=columns)
    info = SceneInfo(
        name=request.name,
        frame=frame,
        place=request.name,
        source=request.source,
        licence=request.licence,
        grade=request.grade,
        kind="simulated",
        settings={"seed": request.seed, "kind": request.kind, "geometry": job.geometry},
        quality=judge(data, evidence),
    )
    return write_scene(out, info, data, overwrite=True)


def _job(request: Request, world: Path, voxel_size: float) -> Job:
    settings = dict(request.settings)
    if request.kind:
        place = make_place(request.seed, request.kind, EDGE)
        layers = [place.land, place.roads, place.buildings]
        settings |= {
            "bbox": place.bounds,
            "bbox_crs": CRS,
            "crs": CRS,
            "semantics": [layer for layer in layers if len(layer)],
            "dem": place.ground,
        }
    return make_job(
        {**settings, "seed": request.seed, "voxel_size": voxel_size, "out": world, "yes": True}
    )
