"""The main job: from a Job to a world on disk."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import earthgen
from earthgen import plugins as plugin_module
from earthgen.engine import Engine
from earthgen.errors import JobError, SizeError, StoreError, StoreExistsError
from earthgen.job import Job, make_job
from earthgen.noise import NOISE_VERSION, Noise
from earthgen.progress import Listener, Progress
from earthgen.store import Store, create_store, open_store
from earthgen.world import World
from geo_io.frame import UNKNOWN_DATUM, Frame

YES_COLUMNS = 10**9
"""A job of more columns than this (1000 km2 at 1 m) wants an explicit yes."""

# Measured by `python -m benchmarks.generate` on two cores; only the estimate depends on them.
BYTES_PER_COLUMN = 50.0
SECONDS_PER_COLUMN = 13e-6

Placed = tuple[Frame, Callable[[Frame], NDArray] | None]
"""The frame of a job, and the mask of its region where that is not a box."""


@dataclass(frozen=True)
class Estimate:
    """What a job would take. bytes and seconds are rough: from measured figures of a column of voxels."""

    frame: Frame
    tiles: int
    columns: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.frame.area_km2:,.1f} km2, {self.columns:,} columns in {self.tiles:,} tiles, "
            f"about {self.bytes / 1e9:,.1f} GB on disk and {self.seconds / 3600:,.1f} h on this kind of machine"
        )


@dataclass(frozen=True)
class Report:
    """What a run did."""

    world: World
    frame: Frame
    tiles: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def generate(*, out: str | Path, listener: Listener | None = None, **settings: Any) -> World:
    """Generate a world; the settings are those of `earthgen.job.Job` and of the command line.

    `semantics`, `dem`, `dsm` and `image` may be paths, a GeoDataFrame (semantics) or an xarray.DataArray with a
    CRS. Returns the open world. Raises `geo_io.errors.EarthgenError` and its children; an existing world at
    `out` is left as it was by any of them.

    >>> world = earthgen.generate(bbox=(11.59, 50.00, 11.60, 50.01), semantics="landuse.shp", out="w.zarr")
    """
    return run(make_job({"out": out, **settings}), listener).world


def estimate(job: Job) -> Estimate:
    """What a job would take, from its frame alone."""
    return _estimate(job, place(job)[0])


def _estimate(job: Job, frame: Frame) -> Estimate:
    columns = frame.nx * frame.ny
    tiles = (-(-frame.x[1] // job.tile_size) - frame.x[0] // job.tile_size) * (
        -(-frame.y[1] // job.tile_size) - frame.y[0] // job.tile_size
    )
    return Estimate(frame, tiles, columns, int(columns * BYTES_PER_COLUMN), columns * SECONDS_PER_COLUMN)


def run(job: Job, listener: Listener | None = None) -> Report:
    """Run a job. Everything about the inputs is checked before anything is written."""
    began = time.monotonic()
    progress = Progress(listener)
    _check_output(job)
    placed = place(job)
    size = _estimate(job, placed[0])
    if size.columns > YES_COLUMNS and not job.yes:
        raise SizeError(f"the job is large: {size}", "give --yes to run it, a smaller --bbox or larger --voxel-size")
    plan = prepare(job, progress, placed)
    target = job.out.with_name(job.out.name + ".new") if job.overwrite and job.out.exists() else job.out
    if target != job.out and target.exists():
        shutil.rmtree(target)  # an overwrite that was broken off; nobody else writes there
    store = _resume(job, plan) if job.resume and target.exists() else _create(job, plan, target)
    _fill(store, plan.engine, progress)
    if plan.engine.clipped:
        plan.warnings.append(
            f"{plan.engine.clipped:,} voxels lay outside the height band {job.band} m and were left out: widen `band`"
        )
    _note_warnings(store, plan.warnings)
    if target != job.out:
        _swap(target, job.out)
        store = open_store(job.out)
    return Report(World(store), plan.frame, len(store.done()), time.monotonic() - began, plan.warnings)


# ---- preparing ------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """A job with everything opened and checked."""

    frame: Frame
    engine: Engine
    identity: dict[str, Any]
    provenance: dict[str, Any]
    sh_degree: int
    warnings: list[str]


def prepare(job: Job, progress: Progress | None = None, placed: Placed | None = None) -> Plan:
    """Open and check everything a job names; nothing is written. `placed` is what `place` gave, if it is known."""
    progress = progress or Progress()
    plugins = plugin_module.load(job.plugin_dir)
    warnings = [f"plugin {row.info.name} was skipped: {row.error}" for row in plugins.broken]
    geometry = plugins.create("geometry", job.geometry, **job.geometry_options)
    texture = plugins.create("texture", job.texture, **job.texture_options)
    frame, mask = placed or place(job)
    sources = _sources(job)
    for backend in (geometry, texture):
        lacking = [name for name in backend.requires if name not in sources]
        if lacking:
            raise JobError(f"backend {backend.name!r} needs {', '.join(lacking)}", "give --" + " --".join(lacking))
    options = {
        "class_field": job.class_field, "legends": job.legend, "crosswalks": plugins.crosswalks(),
        "assume_crs": job.assume_crs, "allow_unmapped": job.allow_unmapped,
        "dem_unit": job.dem_unit, "dsm_unit": job.dsm_unit,
    }  # fmt: skip
    encoders = {name: plugins.create("condition", name) for name in sources}
    progress.start("read", len(sources))
    conditions, surveys = {}, {}
    for name, source in sources.items():
        conditions[name] = encoders[name].open(source, frame, options)
        surveys[name] = dict(conditions[name].survey(frame))
        warnings += surveys[name].pop("warnings", [])
        progress.step(name)
    identity: dict[str, Any] = {
        "crs": frame.crs, "voxel_size": frame.voxel_size, "band": list(frame.z), "vertical_crs": frame.vertical_crs,
        "seed": job.seed, "noise_version": NOISE_VERSION, "earthgen": earthgen.__version__,
        "geometry": {"name": geometry.name, "version": geometry.version, "options": job.geometry_options},
        "texture": {"name": texture.name, "version": texture.version, "options": job.texture_options},
        "encoders": {name: encoder.version for name, encoder in encoders.items()},
        "inputs": {name: [_digest(item) for item in source] for name, source in sources.items()},
        "reading": {
            "class_field": job.class_field, "legend": [_legend_digest(item) for item in job.legend],
            "assume_crs": job.assume_crs, "dem_unit": job.dem_unit, "dsm_unit": job.dsm_unit,
            "region": _digest(job.region) if job.region is not None and mask is not None else None,
        },
    }  # fmt: skip
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: version(name) for name in ("earthgen", "numpy", "rasterio", "geopandas", "zarr", "pyproj")},
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "inputs": {
            name: [
                {"source": _name(item), "digest": digest}
                for item, digest in zip(source, identity["inputs"][name], strict=True)
            ]
            for name, source in sources.items()
        },
        "attribution": list(job.attribution),
        "licences": {
            row.info.name: {"code": row.info.licence, "weights": row.info.weights_licence} for row in plugins.listing()
        },
        "survey": surveys,
        "ground": "measured (dem)" if "dem" in sources else "estimated from the dsm" if "dsm" in sources
        else "generated, not measured",
        "warnings": warnings,
    }  # fmt: skip
    if frame.vertical_crs == UNKNOWN_DATUM and ("dem" in sources or "dsm" in sources):
        warnings.append("the heights' source does not name a vertical CRS: it is kept as 'unknown'")
    engine = Engine(frame, geometry, texture, conditions, Noise(job.seed), mask)
    return Plan(frame, engine, identity, provenance, texture.sh_degree, warnings)


def place(job: Job) -> Placed:
    """The frame of a job, and the mask of its region where that is not a box.

    Raises
    ------
    JobError
        if nothing says where the world is to be
    """
    from geo_io.elevation import open_elevation
    from geo_io.region import frame_from_bbox
    from geo_io.region_file import frame_from_file, inside, is_raster

    heights = next(((s, u) for s, u in ((job.dem, job.dem_unit), (job.dsm, job.dsm_unit)) if s is not None), None)
    vertical = UNKNOWN_DATUM
    if heights is not None:
        vertical = open_elevation(heights[0], unit=heights[1], assume_crs=job.assume_crs).vertical_crs
    kind: dict[str, Any] = {
        "crs": job.crs, "voxel_size": job.voxel_size, "band": job.band, "vertical_crs": vertical
    }  # fmt: skip
    if job.bbox is not None:
        return frame_from_bbox(job.bbox, bbox_crs=job.bbox_crs, **kind), None
    rasters = (s for s in (job.dsm, job.dem, job.image, *job.semantics) if s is not None and is_raster(s))
    place_file = job.region if job.region is not None else next(rasters, None)
    if place_file is None:
        raise JobError("nothing says where the world is to be", "give --bbox W,S,E,N or --region FILE")
    frame, shape = frame_from_file(place_file, assume_crs=job.assume_crs, **kind)
    return frame, None if shape is None else partial(inside, region=shape)


def _sources(job: Job) -> dict[str, list[Any]]:
    named = {
        "semantics": list(job.semantics),
        **{name: [getattr(job, name)] for name in ("dem", "dsm", "image") if getattr(job, name) is not None},
        **{name: value if isinstance(value, list) else [value] for name, value in job.conditions.items()},
    }
    return {name: source for name, source in named.items() if source}


def _digest(source: Any) -> str:
    from geo_io.digest import digest_source
    from geo_io.vector import split_layer

    if not isinstance(source, str | Path):
        return digest_source(source)
    path, layer = split_layer(source)
    return digest_source(path) + (f" layer {layer}" if layer else "")


def _legend_digest(legend: str) -> str:
    return _digest(legend) if Path(legend).exists() else legend


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"in memory ({type(source).__name__})"


# ---- writing --------------------------------------------------------------------------------------------


def _check_output(job: Job) -> None:
    out = job.out
    if not out.parent.is_dir():
        raise StoreError(f"folder {out.parent} of --out does not exist", "make it first, or give another --out")
    if not out.exists():
        return
    # The index array is made before the attributes: a world that was broken off while it was made has it too.
    is_world = (out / "zarr.json").exists() and (out / "index" / "zarr.json").exists()
    empty = out.is_dir() and not any(out.iterdir())
    if not (is_world or empty):
        raise StoreExistsError(f"{out} exists and is not an earthgen world", "give another --out")
    if is_world and not (job.overwrite or job.resume):
        raise StoreExistsError(
            f"{out} exists already", "give --resume to finish it, --overwrite to replace it, or another --out"
        )


def _create(job: Job, plan: Plan, path: Path) -> Store:
    attributes = {"identity": plan.identity, "provenance": plan.provenance, "settings": _settings(job)}
    return create_store(path, plan.frame, job.tile_size, attributes, plan.sh_degree)


def _resume(job: Job, plan: Plan) -> Store:
    store = open_store(job.out, mode="r+")
    found: Mapping[str, Any] = store.root.attrs["earthgen"]["identity"]
    changed = _differences(found, plan.identity)
    if store.frame != plan.frame:
        changed.append(f"extent ({store.frame} there, {plan.frame} now)")
    if store.tile_size != job.tile_size:
        changed.append(f"tile_size ({store.tile_size} there, {job.tile_size} now)")
    if changed:
        raise StoreError(
            f"{job.out} cannot be resumed: {'; '.join(changed)} changed",
            "give the settings it was made with, or --overwrite, or another --out",
        )
    return store


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The paths of the values that differ, with both values."""
    found = []
    for key in sorted({*there, *now}):
        old, new = there.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} ({old} there, {new} now)")
    return found


def _settings(job: Job) -> dict[str, Any]:
    return {name: _plain(value) for name, value in job if name not in ("overwrite", "resume", "yes")}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return _name(value)


def _fill(store: Store, engine: Engine, progress: Progress) -> None:
    done = set(store.done())
    size, window = store.tile_size, engine.geometry.window
    # Tiles smaller than a window are made window by window, so that each window is computed once.
    tiles = sorted(store.frame.tiles(size), key=lambda t: (t[1] * size // window, t[0] * size // window, t[1], t[0]))
    progress.start("generate", len(tiles), done=len(done))
    for tx, ty in tiles:
        if (tx, ty) not in done:
            store.write(tx, ty, engine.tile(tx, ty, size))
            progress.step(f"tile {tx}, {ty}")


def _note_warnings(store: Store, warnings: list[str]) -> None:
    attributes = dict(store.root.attrs["earthgen"])
    attributes["provenance"] = {**attributes["provenance"], "warnings": warnings}
    store.root.attrs["earthgen"] = attributes


def _swap(new: Path, out: Path) -> None:
    """Put a finished world in the place of the old one; the old one goes last."""
    old = out.with_name(out.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    out.rename(old)
    new.rename(out)
    shutil.rmtree(old)


__all__ = ["Estimate", "Plan", "Report", "estimate", "generate", "place", "prepare", "run"]
