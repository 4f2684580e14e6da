"""Is a world on disk what it was made as: checksums of all its chunks, and tiles made again and
compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthgen.engine.scheduler import check_tiles, open_pool
from earthgen.engine.worker import WorkerContext
from earthgen.jobs.forecast import spread
from earthgen.jobs.identity import changes, require_none
from earthgen.jobs.job import make_job
from earthgen.jobs.prepare import prepare
from earthgen.progress import Listener, Progress
from earthgen.world.digest import tile_digest
from earthgen.world.lock import lock_world
from earthgen.world.store import Store, open_store

Tile = tuple[int, int]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes
    ----------
    checked : finished tiles whose chunks were all read
    damaged : what is wrong with a tile on disk
    compared : tiles that were made again from the inputs
    different : of those, the ones that came out otherwise than they are on disk
    marked : whether the bad tiles were marked, so that --resume makes them again
    """

    checked: int
    damaged: dict[Tile, str] = field(default_factory=dict)
    compared: list[Tile] = field(default_factory=list)
    different: list[Tile] = field(default_factory=list)
    marked: bool = False

    @property
    def sound(self) -> bool:
        return not (self.damaged or self.different)


def verify(
    path: str | Path,
    *,
    sample: int = 0,
    mark: bool = True,
    workers: int = 1,
    scheduler: str | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> Verification:
    """Check a world.

    sample : tiles to make again from the inputs that its settings name, and to compare by their
        digests
    mark : mark bad tiles as not finished, so that --resume makes them again
    settings : override the world's own, where an input has moved

    Raises
    ------
    StoreError
        if there is no world, or its inputs are not those it was made of (names the difference)
    """
    progress = Progress(listener)
    store = open_store(path)
    done = store.done()
    with open_pool(WorkerContext(None, path, store.tile_size), workers, scheduler) as pool:
        damaged = check_tiles(store, pool, progress)
    compared = [tile for tile in spread(done, sample) if tile not in damaged]
    different = _compare(store, compared, settings or {}, progress) if sample else []
    bad = [*damaged, *different]
    if bad and mark:
        with lock_world(path):
            open_store(path, mode="r+").forget(bad)
    return Verification(len(done), damaged, compared, different, bool(bad) and mark)


def _compare(
    store: Store, tiles: list[Tile], settings: Mapping[str, Any], progress: Progress
) -> list[Tile]:
    """Those of the tiles that come out otherwise when they are made again."""
    attributes: Mapping[str, Any] = store.root.attrs["earthgen"]
    given = {**attributes["settings"], **settings}
    job = make_job(
        {name: value for name, value in given.items() if value is not None} | {"out": store.path}
    )
    plan = prepare(job, progress)
    remedy = "give the inputs it was made of, or leave --sample away to check the chunks alone"
    require_none(store, changes(store, plan), "compared", remedy)
    progress.start("compare", len(tiles))
    different = []
    for tx, ty in tiles:
        levels = plan.engine.reference(store.tile_size)(tx, ty)
        entry = store.entry(tx, ty)
        if entry is None or tile_digest(levels) != entry.digest:
            different.append((tx, ty))
        progress.step(f"tile {tx}, {ty}")
    return different
