"""Growing a world that is there, in any direction.

The grown world is begun beside the old one (`<world>.new`), from links to the tiles that stay as
they are, and takes its place when it is finished. So the old world stays whole until then, and a
run that is broken off goes on. A tile stays if it lies in the old world as far as it lies in the
new one; a content that is a function of the place does the rest.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from earthgen.errors import JobError, StoreError
from earthgen.jobs.identity import changes, differences, require_none
from earthgen.jobs.job import Job, stored_settings
from earthgen.jobs.prepare import Placed, PreparedJob
from earthgen.world.store import Store, create_store, open_store
from geo_io.frame import Frame


def match_job(job: Job, before: Store) -> Job:
    """The job on the lattice of the world that it extends: CRS, voxel size and tile size are the
    world's.

    Raises
    ------
    JobError
        if the job cuts its region out of a polygon: the old and the new cut could not be told apart
    """
    if job.region is not None or before.root.attrs["earthgen"]["identity"]["reading"].get("region"):
        raise JobError(
            f"{before.path} cannot be extended by or from a --region",
            "give --bbox, or generate the whole region anew",
        )
    frame = before.frame
    fixed: dict[str, Any] = {"crs": frame.crs, "tile_size": before.tile_size}
    for name, there in (("crs", frame.crs), ("voxel_size", frame.voxel_size)):
        if name in job.model_fields_set and getattr(job, name) not in (there, None):
            raise StoreError(
                f"{before.path} cannot be extended: {name} ({there} there, {getattr(job, name)} now) changed",
                "leave it away, or give another --out",
            )
    if "band" not in job.model_fields_set:
        fixed["band"] = tuple(z * frame.voxel_size for z in frame.z)
    return job.model_copy(update={**fixed, "voxel_size": frame.voxel_size})


def union_frame(before: Store, placed: Placed) -> Frame:
    """The smallest frame that holds the old world and the box asked for.

    Raises
    ------
    StoreError
        if they have other height bands
    """
    old, new = before.frame, placed[0]
    if old.z != new.z:
        raise StoreError(
            f"{before.path} cannot be extended: band ({list(old.z)} there, {list(new.z)} now, in voxels) changed",
            "leave it away, or give another --out",
        )
    return replace(
        old,
        x=(min(old.x[0], new.x[0]), max(old.x[1], new.x[1])),
        y=(min(old.y[0], new.y[0]), max(old.y[1], new.y[1])),
    )


def open_or_create_extended(before: Store, path: str | Path, plan: PreparedJob, job: Job) -> Store:
    """The grown world at `path`, with the tiles that stay; goes on with one that was broken off.

    Raises
    ------
    StoreError
        if the old world was made of something else: names the difference
    """
    changed = differences(before.identity, plan.identity)
    require_none(
        before, changed, "extended", "give the settings it was made with, or another --out"
    )
    path = Path(path)
    if path.exists():
        store = _continued(path, plan, before.tile_size)
        if store is not None:
            _adopt(before, store)
            return store
        shutil.rmtree(path)
    whole = {"bbox": list(plan.frame.bounds), "bbox_crs": plan.frame.crs, "crs": plan.frame.crs}
    settings = {**stored_settings(job), **whole}
    new = {"identity": plan.identity, "provenance": plan.provenance, "settings": settings}
    store = create_store(path, plan.frame, before.tile_size, new, plan.sh_degree)
    _adopt(before, store)
    return store


def _adopt(before: Store, store: Store) -> None:
    """Take the tiles that stay as they are, but those that are there."""
    there, kept = set(store.done()), {}
    for tx, ty in before.done():
        if (tx, ty) not in there and before.tile_frame(tx, ty) == store.tile_frame(tx, ty):
            kept[tx, ty] = store.adopt(before, tx, ty)
    store.commit(kept)


def _continued(path: Path, plan: PreparedJob, tile_size: int) -> Store | None:
    """An extension that was broken off and is the same as this one; None where there is none."""
    try:
        store = open_store(path, mode="r+")
    except StoreError:
        return None
    if store.tile_size != tile_size or changes(store, plan):
        return None
    store.sweep()
    store.mend_index()
    return store
