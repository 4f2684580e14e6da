"""Verification of a world on disk: checksums of all chunks, and a comparison of some tiles with the
same tiles generated again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthgen.engine.scheduler import check_tiles, open_pool
from earthgen.engine.worker import WorkerContext
from earthgen.errors import StoreError
from earthgen.jobs.forecast import spread
from earthgen.jobs.identity import changes, require_unchanged, with_machine_options
from earthgen.jobs.job import make_job, recalled_settings
from earthgen.jobs.prepare import PreparedJob, prepare
from earthgen.progress import Listener, Progress
from earthgen.world.digest import tile_digest
from earthgen.world.lock import lock_world
from earthgen.world.store import Store, open_store
from geo_io.safety.access import allowing

Tile = tuple[int, int]


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes
    ----------
    checked : int
        Number of finished tiles, all chunks of which were read.
    damaged : dict of (tx, ty) to str
        What is wrong with a tile on disk.
    compared : list of (tx, ty)
        Tiles that were generated again.
    different : list of (tx, ty)
        Those of them that differ from the tile on disk.
    marked : bool
        Whether the bad tiles were marked as unfinished.
    """

    checked: int
    damaged: dict[Tile, str] = field(default_factory=dict)
    compared: list[Tile] = field(default_factory=list)
    different: list[Tile] = field(default_factory=list)
    marked: bool = False

    @property
    def sound(self) -> bool:
        """Whether no tile is damaged or different."""
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
    """Verify a world.

    Parameters
    ----------
    path : path or URL
    sample : int
        Number of tiles to generate again from the inputs that its settings name, and to compare by
        their digests.
    mark : bool
        Mark bad tiles as unfinished, so that a job with `resume` generates them again.
    workers : int
    scheduler : str, optional
    settings : mapping, optional
        Override settings of the world, for example if an input has moved.
    listener : callable, optional

    Raises
    ------
    StoreError
        If there is no world, or its inputs have changed (names the difference).
    UnknownNameError
        If it needs a plugin that is not installed; code that a world names is never loaded.
    """
    progress = Progress(listener)
    store = open_store(path)
    lost = store.lost_metadata()
    if lost:
        raise StoreError(f"{store.path} is damaged: {lost[0]}", "generate it again")
    tiles = store.finished_tiles()
    if not tiles and store.damage():
        raise StoreError(
            f"{store.path} is damaged: {store.damage()[0]}",
            f"make its tiles again: `earthgen generate --out {store.path} --resume`",
        )
    with open_pool(WorkerContext(None, path, store.tile_size), workers, scheduler) as pool:
        damaged = check_tiles(store, pool, progress)
    compared = [tile for tile in spread(tiles, sample) if tile not in damaged]
    different = _compare(store, compared, settings or {}, progress) if sample else []
    bad = [*damaged, *different]
    if bad and mark:
        with lock_world(path):
            open_store(path, mode="r+").forget(bad)
    return Verification(len(tiles), damaged, compared, different, bool(bad) and mark)


def _compare(
    store: Store, tiles: list[Tile], settings: Mapping[str, Any], progress: Progress
) -> list[Tile]:
    """The tiles that differ from those on disk when they are generated again."""
    attributes: Mapping[str, Any] = store.root.attrs["earthgen"]
    given = {**recalled_settings(attributes["settings"], store.path), **settings}
    job = make_job(
        {name: value for name, value in given.items() if value is not None} | {"out": store.path}
    )
    prepared = prepare(with_machine_options(job, store.identity), progress)
    remedy = "give the inputs it was made from, or leave `sample` out to check the chunks alone"
    require_unchanged(store, changes(store, prepared), "compared", remedy)
    progress.start("compare", len(tiles))
    with allowing(job.allow_network, job.allow_linked):
        return _different(store, prepared, tiles, progress)


def _different(
    store: Store, prepared: PreparedJob, tiles: list[Tile], progress: Progress
) -> list[Tile]:
    different = []
    for tx, ty in tiles:
        levels = prepared.engine.reference(store.tile_size)(tx, ty)
        entry = store.entry(tx, ty)
        if entry is None or tile_digest(levels) != entry.digest:
            different.append((tx, ty))
        progress.step(f"tile {tx}, {ty}")
    return different
