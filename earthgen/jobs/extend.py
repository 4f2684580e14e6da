"""Growing a world in any direction.

The larger world is begun beside the old one (`.<world>.new`), from links to the tiles that stay,
and takes its place when it is finished. So the old world stays whole until then, and an
interrupted run can continue. A tile stays if its part of the world does not
change: content is a function of the place, so nothing else can.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from earthgen.errors import JobError, StoreError
from earthgen.jobs.identity import changes, named_differences, require_unchanged
from earthgen.jobs.job import Job, stored_settings
from earthgen.jobs.prepare import PreparedJob
from earthgen.jobs.privacy import public, public_settings
from earthgen.world.store import Store, create_store, open_store
from geo_io.frame import Frame


def match_job(job: Job, before: Store) -> Job:
    """Return the job on the lattice of the world it extends: CRS, voxel size, tile size.

    Raises
    ------
    JobError
        If the job or the world has a polygon as region: the old and the new cut could not be told
        apart.
    StoreError
        If the job asks for another CRS or voxel size.
    """
    if job.region is not None or before.root.attrs["earthgen"]["identity"]["reading"].get("region"):
        raise JobError(
            f"{before.path} cannot be extended by or from a `region`",
            "give a `bbox`, or generate the whole region anew",
        )
    frame = before.frame
    lattice: dict[str, Any] = {"crs": frame.crs, "tile_size": before.tile_size}
    for name, before_value in (("crs", frame.crs), ("voxel_size", frame.voxel_size)):
        if name in job.model_fields_set and getattr(job, name) not in (before_value, None):
            raise StoreError(
                f"{before.path} cannot be extended: {name} "
                f"({before_value} before, {getattr(job, name)} now) changed",
                f"leave `{name}` out, or change `out`",
            )
    if "band" not in job.model_fields_set:
        lattice["band"] = tuple(z * frame.voxel_size for z in frame.z)
    return job.model_copy(update={**lattice, "voxel_size": frame.voxel_size})


def union_frame(before: Store, new: Frame) -> Frame:
    """Return the smallest frame that holds the old world and a new frame.

    Raises
    ------
    StoreError
        If they have different height bands.
    """
    old = before.frame
    if old.z != new.z:
        raise StoreError(
            f"{before.path} cannot be extended: band "
            f"({list(old.z)} before, {list(new.z)} now, in voxels) changed",
            "leave `band` out, or change `out`",
        )
    x = min(old.x[0], new.x[0]), max(old.x[1], new.x[1])
    y = min(old.y[0], new.y[0]), max(old.y[1], new.y[1])
    return replace(old, x=x, y=y)


def open_or_create_extended(
    before: Store, path: str | Path, prepared: PreparedJob, job: Job
) -> Store:
    """Return the larger world at `path`, with the tiles that stay.

    Continues an interrupted extension if it is the same as this one.

    Raises
    ------
    StoreError
        If the old world was made with other settings or inputs; names the difference.
    """
    changed = named_differences(before, prepared)
    remedy = "give the settings it was made with, or change `out`"
    require_unchanged(before, changed, "extended", remedy)
    path = Path(path)
    if path.exists():
        store = _interrupted(path, prepared, before.tile_size)
        if store is not None:
            _adopt(before, store)
            return store
        shutil.rmtree(path)
    frame = prepared.frame
    whole = {"bbox": list(frame.bounds), "bbox_crs": frame.crs, "crs": frame.crs}
    attributes = {
        "identity": prepared.identity,
        "provenance": public(prepared.provenance, job),
        "settings": public_settings({**stored_settings(job), **whole}, job),
    }
    degree = prepared.backends.texture.sh_degree
    store = create_store(path, frame, before.tile_size, attributes, degree)
    _adopt(before, store)
    return store


def _adopt(before: Store, store: Store) -> None:
    """Link the tiles that stay, except those that were linked before."""
    linked, entries = set(store.finished_tiles()), {}
    for tx, ty in before.finished_tiles():
        if (tx, ty) not in linked and before.tile_frame(tx, ty) == store.tile_frame(tx, ty):
            entries[tx, ty] = store.adopt(before, tx, ty)
    store.commit(entries)


def _interrupted(path: Path, prepared: PreparedJob, tile_size: int) -> Store | None:
    """An interrupted extension that is the same as this one; None if there is none."""
    try:
        store = open_store(path, mode="r+")
    except StoreError:
        return None
    if store.tile_size != tile_size or changes(store, prepared):
        return None
    store.sweep()
    store.repair_index()
    return store
