"""Before anything is written: where a job lies, and its inputs and backends opened and checked."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import earthgen
from earthgen import plugins as plugin_module
from earthgen.engine.compute import Engine
from earthgen.errors import JobError
from earthgen.jobs.job import Job, RegionShape, source_name
from earthgen.noise.philox import NOISE_VERSION, Noise
from earthgen.progress import Progress
from earthgen.stages.backends import GeometryBackend, TextureBackend
from geo_io.frame import UNKNOWN_DATUM, Frame

Placed = tuple[Frame, Callable[[Frame], NDArray] | None]
"""The frame of a job, and the mask of its region where that is not a box."""


@dataclass
class PreparedJob:
    """A job with everything opened and checked. `warnings` is a list that is still written to."""

    frame: Frame
    engine: Engine
    identity: dict[str, Any]
    provenance: dict[str, Any]
    sh_degree: int
    warnings: list[str]


def prepare(
    job: Job, progress: Progress | None = None, placed: Placed | None = None
) -> PreparedJob:
    """Open and check everything a job names; nothing is written. `placed` is what `place` gave,
    if it is known."""
    progress = progress or Progress()
    plugins = plugin_module.load(job.plugin_dir)
    warnings = [f"plugin {row.info.name} was skipped: {row.error}" for row in plugins.broken]
    chosen = _with_weights(job, plugins, _with_sparse_backend(job, plugins))
    geometry = plugins.create("geometry", job.geometry, **chosen["geometry"])
    texture = plugins.create("texture", job.texture, **chosen["texture"])
    frame, mask = placed or place(job)
    for backend in (geometry, texture):
        if hasattr(backend, "check"):
            backend.check(frame)
    sources = _sources(job)
    for backend in (geometry, texture):
        lacking = [name for name in backend.requires if name not in sources]
        if lacking:
            raise JobError(
                f"backend {backend.name!r} needs {', '.join(lacking)}",
                "give --" + " --".join(lacking),
            )
    options = {
        "class_field": job.class_field,
        "legends": job.legend,
        "crosswalks": plugins.crosswalks(),
        "assume_crs": job.assume_crs,
        "allow_unmapped": job.allow_unmapped,
        "dem_unit": job.dem_unit,
        "dsm_unit": job.dsm_unit,
    }
    encoders = {name: plugins.create("condition", name) for name in sources}
    progress.start("read", len(sources))
    conditions, surveys = {}, {}
    for name, source in sources.items():
        conditions[name] = encoders[name].open(source, frame, options)
        surveys[name] = dict(conditions[name].survey(frame))
        warnings += surveys[name].pop("warnings", [])
        progress.step(name)
    identity: dict[str, Any] = {
        "crs": frame.crs,
        "voxel_size": frame.voxel_size,
        "band": list(frame.z),
        "vertical_crs": frame.vertical_crs,
        "seed": job.seed,
        "noise_version": NOISE_VERSION,
        "earthgen": earthgen.__version__,
        "geometry": _backend(geometry, chosen["geometry"]),
        "texture": _backend(texture, chosen["texture"]),
        "encoders": {name: encoder.version for name, encoder in encoders.items()},
        "inputs": {name: [_digest(item) for item in source] for name, source in sources.items()},
        "reading": {
            "class_field": job.class_field,
            "legend": [_legend_digest(item) for item in job.legend],
            "assume_crs": job.assume_crs,
            "dem_unit": job.dem_unit,
            "dsm_unit": job.dsm_unit,
            "region": _digest(job.region) if job.region is not None and mask is not None else None,
        },
    }
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {
            name: version(name)
            for name in ("earthgen", "numpy", "rasterio", "geopandas", "zarr", "pyproj")
        },
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "inputs": {
            name: [
                {"source": source_name(item), "digest": digest}
                for item, digest in zip(source, identity["inputs"][name], strict=True)
            ]
            for name, source in sources.items()
        },
        "attribution": list(job.attribution),
        "licences": {
            row.info.name: {"code": row.info.licence, "weights": row.info.weights_licence}
            for row in plugins.listing()
        },
        "weights": {
            kind: backend.weights_card
            for kind, backend in (("geometry", geometry), ("texture", texture))
            if hasattr(backend, "weights_card")
        },
        "survey": surveys,
        "ground": "measured (dem)"
        if "dem" in sources
        else "estimated from the dsm"
        if "dsm" in sources
        else "generated, not measured",
        "warnings": warnings,
    }
    if frame.vertical_crs == UNKNOWN_DATUM and ("dem" in sources or "dsm" in sources):
        warnings.append("the heights' source does not name a vertical CRS: it is kept as 'unknown'")
    engine = Engine(frame, geometry, texture, conditions, Noise(job.seed), mask)
    return PreparedJob(frame, engine, identity, provenance, texture.sh_degree, warnings)


def _with_sparse_backend(job: Job, plugins: plugin_module.Plugins) -> dict[str, dict[str, Any]]:
    """The options of the job's geometry and texture, with its sparse backend for those that compute
    with one.

    It is an option like any other there, so it enters the identity of a world: results may differ
    in the last bits.

    Raises
    ------
    JobError
        if neither takes a sparse backend
    UnknownNameError, SparseError
        if it is not installed, or cannot run here
    """
    options = {"geometry": dict(job.geometry_options), "texture": dict(job.texture_options)}
    if job.sparse_backend is None:
        return options
    from earthgen.sparse.backends import named

    named(job.sparse_backend)
    takers = _takers(job, plugins, "sparse_backend")
    if not takers:
        raise JobError(
            f"neither the {job.geometry} geometry nor the {job.texture} texture computes with sparse tensors",
            "leave --sparse-backend away",
        )
    for kind in takers:
        options[kind].setdefault("sparse_backend", job.sparse_backend)
    return options


def _with_weights(
    job: Job, plugins: plugin_module.Plugins, options: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Options with the job's weights for those of its geometry and texture that take some.

    Raises JobError if neither does.
    """
    if job.weights is None:
        return options
    takers = _takers(job, plugins, "weights")
    if not takers:
        raise JobError(
            f"neither the {job.geometry} geometry nor the {job.texture} texture is learned",
            "leave --weights away",
        )
    for kind in takers:
        options[kind].setdefault("weights", str(job.weights))
    return options


def _takers(job: Job, plugins: plugin_module.Plugins, parameter: str) -> list[str]:
    """Which of geometry and texture name a parameter in `create`; also those whose name `create`
    will refuse."""
    chosen = {"geometry": job.geometry, "texture": job.texture}
    offers = {kind: plugins.offers(kind).get(name) for kind, name in chosen.items()}
    return [
        kind
        for kind, offer in offers.items()
        if offer is None or parameter in inspect.signature(offer.create).parameters
    ]


def _backend(backend: GeometryBackend | TextureBackend, options: dict[str, Any]) -> dict[str, Any]:
    """What a world remembers of a backend. `weights`, a digest, is there for those that have any.

    Where weights lie and what computes with them is no part of it.
    """
    weights = getattr(backend, "weights", None)
    if weights is None:
        return {"name": backend.name, "version": backend.version, "options": options}
    own = {name: value for name, value in options.items() if name not in ("weights", "device")}
    return {"name": backend.name, "version": backend.version, "options": own, "weights": weights}


def place(job: Job) -> Placed:
    """The frame of a job, and the mask of its region where that is not a box.

    Raises
    ------
    JobError
        if nothing says where the world is to be
    """
    import shapely

    from geo_io.elevation import open_elevation
    from geo_io.region.file import frame_from_file, inside, is_raster
    from geo_io.region.region import frame_from_bbox, frame_from_polygons

    heights = next(
        ((s, u) for s, u in ((job.dem, job.dem_unit), (job.dsm, job.dsm_unit)) if s is not None),
        None,
    )
    vertical = UNKNOWN_DATUM
    if heights is not None:
        vertical = open_elevation(
            heights[0], unit=heights[1], assume_crs=job.assume_crs
        ).vertical_crs
    kind: dict[str, Any] = {
        "crs": job.crs,
        "voxel_size": job.voxel_size,
        "band": job.band,
        "vertical_crs": vertical,
    }
    if job.bbox is not None:
        return frame_from_bbox(job.bbox, bbox_crs=job.bbox_crs, **kind), None
    if isinstance(job.region, RegionShape):
        polygon = shapely.from_wkt(job.region.wkt)
        frame, cut = frame_from_polygons(
            [polygon], job.region.crs, name=f"region {job.region.name}", **kind
        )
        return frame, partial(inside, region=cut)
    rasters = (
        s for s in (job.dsm, job.dem, job.image, *job.semantics) if s is not None and is_raster(s)
    )
    place_file = job.region if job.region is not None else next(rasters, None)
    if place_file is None:
        raise JobError(
            "nothing says where the world is to be", "give --bbox W,S,E,N or --region FILE"
        )
    frame, shape = frame_from_file(place_file, assume_crs=job.assume_crs, **kind)
    return frame, None if shape is None else partial(inside, region=shape)


def _sources(job: Job) -> dict[str, list[Any]]:
    named = {
        "semantics": list(job.semantics),
        **{
            name: [getattr(job, name)]
            for name in ("dem", "dsm", "image")
            if getattr(job, name) is not None
        },
        **{
            name: value if isinstance(value, list) else [value]
            for name, value in job.conditions.items()
        },
    }
    return {name: source for name, source in named.items() if source}


def _digest(source: Any) -> str:
    from geo_io.digest import digest_source
    from geo_io.vector.source import split_layer

    if isinstance(source, RegionShape):
        return f"sha256:{hashlib.sha256(source.model_dump_json().encode()).hexdigest()}"
    if not isinstance(source, str | Path):
        return digest_source(source)
    path, layer = split_layer(source)
    return digest_source(path) + (f" layer {layer}" if layer else "")


def _legend_digest(legend: str) -> str:
    return _digest(legend) if Path(legend).exists() else legend
