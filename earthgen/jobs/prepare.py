"""From a job to an engine: everything it names is opened and checked, and nothing is written.

`prepare` runs four steps: `choose_backends`, `open_inputs`, `world_identity`, `world_provenance`.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from earthgen import plugins as plugin_sets
from earthgen._version import __version__
from earthgen.engine.compute import Engine
from earthgen.errors import JobError, PluginError
from earthgen.jobs.job import Job, RegionShape, source_name, sources_of
from earthgen.jobs.surface_fit import ShiftedSurface, fit_surface
from earthgen.noise.philox import NOISE_VERSION, Noise
from earthgen.progress import Progress
from earthgen.stages.backends import Backend, Condition, GeometryBackend, TextureBackend
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.safety.access import allowing

MOST_FILES = 1000
"""Files of an input whose digests a world records one by one, to name the one that changed."""

SOFTWARE = ("earthgen", "numpy", "rasterio", "geopandas", "zarr", "pyproj")
"""The packages whose versions a world records."""


LATER_READING = ("canopy_unit", "points_unit")
"""Settings of reading that are part of a world's identity if they are given: worlds made before
they were recorded stay what they are."""


@dataclass(frozen=True)
class Placement:
    """Where a world is.

    Attributes
    ----------
    frame : Frame
    mask : callable or None
        Gives, for a frame, the (ny, nx) bool of the cells inside the region; None for a box.
    warnings : tuple of str
        What a user should know about it.
    """

    frame: Frame
    mask: Callable[[Frame], NDArray] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backends:
    """The backends of a job, and the options they were made with."""

    geometry: GeometryBackend
    texture: TextureBackend
    geometry_options: Mapping[str, Any]
    texture_options: Mapping[str, Any]

    @property
    def both(self) -> tuple[Backend, Backend]:
        return self.geometry, self.texture


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a job by condition: sources, readers, versions of encoders, surveys;
    and, by path, the digests of the files that each source is made of."""

    sources: Mapping[str, list[Any]]
    conditions: Mapping[str, Condition]
    encoders: Mapping[str, str]
    surveys: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Mapping[str, str]]
    warnings: list[str] = field(default_factory=list)


@dataclass
class PreparedJob:
    """A job with everything opened and checked.

    Attributes
    ----------
    engine : Engine
    backends : Backends
    identity, provenance : dict
        What the world records, as JSON values.
    warnings : list of str
        Added to while the job runs.
    """

    engine: Engine
    backends: Backends
    identity: dict[str, Any]
    provenance: dict[str, Any]
    warnings: list[str]

    @property
    def frame(self) -> Frame:
        return self.engine.frame


def prepare(
    job: Job, progress: Progress | None = None, placement: Placement | None = None
) -> PreparedJob:
    """Open and check everything that a job names; nothing is written.

    Parameters
    ----------
    job : Job
    progress : Progress, optional
        Told of each input that is read.
    placement : Placement, optional
        What `place` gave, if it was called before.
    """
    placement = placement or place(job)
    with allowing(job.allow_network, job.allow_linked):
        return _prepared(job, progress, placement)


def _prepared(job: Job, progress: Progress | None, placement: Placement) -> PreparedJob:
    frame = placement.frame
    plugins = plugin_sets.load(job.plugin_dir)
    backends = choose_backends(job, plugins, frame)
    inputs = open_inputs(job, plugins, backends, frame, progress or Progress())
    identity = world_identity(job, placement, backends, inputs)
    warnings = [f"plugin {row.info.name} was skipped: {row.error}" for row in plugins.broken]
    warnings += [*placement.warnings, *inputs.warnings]
    with_heights = not inputs.conditions.keys().isdisjoint(("dem", "dsm"))
    if frame.vertical_crs == UNKNOWN_DATUM and with_heights:
        warnings.append("the source of heights names no vertical CRS: it is recorded as 'unknown'")
    engine = Engine(
        frame,
        backends.geometry,
        backends.texture,
        inputs.conditions,
        Noise(job.seed),
        placement.mask,
    )
    read = {each.source for stage in engine.chain.stages for each in stage.reads}
    warnings += [
        f"`{name}` is left out: neither the {job.geometry} geometry nor the {job.texture} texture "
        "reads it"
        for name in inputs.conditions
        if name not in read
    ]
    provenance = world_provenance(job, plugins, backends, inputs, identity, warnings)
    return PreparedJob(engine, backends, identity, provenance, warnings)


def choose_backends(job: Job, plugins: plugin_sets.Plugins, frame: Frame) -> Backends:
    """Make the geometry and texture backends of a job.

    Raises
    ------
    JobError
        If the job gives weights or a sparse backend that neither of them takes.
    UnknownNameError
        If no plugin offers one of the names.
    PluginError
        If an option is refused, or the result is not a backend.
    EarthgenError
        If a backend cannot work with its weights or on the frame.
    """
    names = {"geometry": job.geometry, "texture": job.texture}
    offers = {kind: plugins.offer(kind, name) for kind, name in names.items()}
    options = {"geometry": dict(job.geometry_options), "texture": dict(job.texture_options)}
    for setting, value in (
        ("sparse_backend", job.sparse_backend),
        ("weights", None if job.weights is None else str(job.weights)),
    ):
        if value is None:
            continue
        takers = [kind for kind, offer in offers.items() if setting in offer.takes]
        if not takers:
            raise JobError(
                f"neither the {job.geometry} geometry nor the {job.texture} texture takes "
                f"`{setting}`",
                f"leave `{setting}` out, or choose other backends",
            )
        for kind in takers:
            options[kind].setdefault(setting, value)
    if job.sparse_backend is not None:
        from earthgen.sparse.backends import create_backend

        create_backend(job.sparse_backend)  # a clear error before the backends are made
    geometry = plugins.create("geometry", job.geometry, **options["geometry"])
    texture = plugins.create("texture", job.texture, **options["texture"])
    _require_base("geometry", job.geometry, geometry, GeometryBackend)
    _require_base("texture", job.texture, texture, TextureBackend)
    backends = Backends(geometry, texture, options["geometry"], options["texture"])
    for backend in backends.both:
        backend.check(frame)
    return backends


def _require_base(kind: str, name: str, thing: Any, base: type) -> None:
    if not isinstance(thing, base):
        raise PluginError(
            f"{kind} {name!r} is a {type(thing).__name__}, not an earthgen.{base.__name__}",
            f"its plugin has to subclass earthgen.{base.__name__}",
        )


def open_inputs(
    job: Job,
    plugins: plugin_sets.Plugins,
    backends: Backends,
    frame: Frame,
    progress: Progress,
) -> Inputs:
    """Open every input of a job and survey it against the frame.

    Raises
    ------
    JobError
        If a backend needs an input that the job does not give.
    EarthgenError
        Naming the input, what is wrong with it and the next step.
    """
    recorded = _sources(job)
    sources = read_sources(job)
    for backend in backends.both:
        lacking = [name for name in backend.requires if name not in sources]
        if lacking:
            raise JobError(
                f"backend {backend.name!r} needs {', '.join(lacking)}",
                f"give {' and '.join(f'`{name}`' for name in lacking)}",
            )
    options = reading_options(job, plugins)
    encoders = {name: plugins.create("condition", name) for name in sources}
    progress.start("read", len(sources))
    conditions, surveys, warnings = {}, {}, []
    for name, source in sources.items():
        conditions[name] = encoders[name].open(source, frame, options)
    if "dsm" in conditions and job.vertical_shift:
        conditions["dsm"] = ShiftedSurface(conditions["dsm"], job.vertical_shift)
    for condition in conditions.values():
        relate = getattr(condition, "relate", None)
        if relate is not None:
            relate(conditions)
    for name in sources:
        surveys[name] = dict(conditions[name].survey(frame))
        warnings += surveys[name].pop("warnings", [])
        progress.step(name)
    if "dsm" in conditions:
        conditions["dsm"], said = fit_surface(conditions, surveys, frame, job.vertical_shift)
        warnings += said
    for backend in backends.both:
        backend.check_inputs(surveys)
    versions = {name: encoder.version for name, encoder in encoders.items()}
    return Inputs(recorded, conditions, versions, surveys, _parts_of(recorded), warnings)


def reading_options(job: Job, plugins: plugin_sets.Plugins) -> dict[str, Any]:
    """Return the options that a job gives to the encoders of its conditions."""
    return {
        "class_field": job.class_field,
        "legends": job.legend,
        "crosswalks": plugins.crosswalks(),
        "assume_crs": job.assume_crs,
        "allow_unmapped": job.allow_unmapped,
        "height_field": job.height_field,
        "height_unit": job.height_unit,
        "dem_unit": job.dem_unit,
        "dsm_unit": job.dsm_unit,
        "canopy_unit": job.canopy_unit,
    }


def world_identity(
    job: Job, placement: Placement, backends: Backends, inputs: Inputs
) -> dict[str, Any]:
    """Return what the content of a world depends on, apart from the extent, as JSON values."""
    frame = placement.frame
    masked = job.region is not None and placement.mask is not None
    return {
        "crs": frame.crs,
        "voxel_size": frame.voxel_size,
        "band": list(frame.z),
        "vertical_crs": frame.vertical_crs,
        "seed": job.seed,
        "noise_version": NOISE_VERSION,
        "earthgen": __version__,
        "geometry": _backend_identity(backends.geometry, backends.geometry_options),
        "texture": _backend_identity(backends.texture, backends.texture_options),
        "encoders": dict(inputs.encoders),
        "inputs": {
            name: [_digest(item, inputs.parts) for item in source]
            for name, source in inputs.sources.items()
        },
        "reading": {
            "class_field": job.class_field,
            "legend": [_digest(item) if Path(item).exists() else item for item in job.legend],
            "assume_crs": job.assume_crs,
            "height_field": job.height_field,
            "height_unit": job.height_unit,
            "dem_unit": job.dem_unit,
            "dsm_unit": job.dsm_unit,
            "vertical_shift": _shift_of(inputs.conditions.get("dsm")),
            "region": _digest(job.region) if masked else None,
            **{name: value for name in LATER_READING if (value := getattr(job, name)) is not None},
        },
    }


def world_provenance(
    job: Job,
    plugins: plugin_sets.Plugins,
    backends: Backends,
    inputs: Inputs,
    identity: Mapping[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """Return where a world comes from, as JSON values: software, inputs, licences, surveys."""
    kinds = {"geometry": backends.geometry, "texture": backends.texture}
    if "dem" in inputs.conditions:
        ground = "measured (dem)"
    elif "dsm" in inputs.conditions:
        ground = "estimated from the dsm"
    else:
        ground = "generated, not measured"
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: version(name) for name in SOFTWARE},
        "machine": (
            f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        ),
        "inputs": {
            name: [
                {"source": source_name(item), "digest": digest, **_files_of(item, inputs.parts)}
                for item, digest in zip(source, identity["inputs"][name], strict=True)
            ]
            for name, source in inputs.sources.items()
        },
        "attribution": list(job.attribution),
        "licences": {
            row.info.name: {"code": row.info.licence, "weights": row.info.weights_licence}
            for row in plugins.listing()
        },
        "weights": {
            kind: backend.weights_card
            for kind, backend in kinds.items()
            if backend.weights_card is not None
        },
        "survey": inputs.surveys,
        "ground": ground,
        "warnings": warnings,
    }


def place(job: Job) -> Placement:
    """Find the frame of a job, and the mask of its region if that is not a box.

    Raises
    ------
    JobError
        If the job does not say where the world is to be.
    """
    with allowing(job.allow_network, job.allow_linked):
        return _placed(job)


def _placed(job: Job) -> Placement:
    import shapely

    from geo_io.elevation_mosaic import open_heights
    from geo_io.region.file import frame_from_file, inside, is_raster
    from geo_io.region.region import frame_from_bbox, frame_from_polygons

    vertical_crs = UNKNOWN_DATUM
    sources = read_sources(job)
    for name, unit in (("dem", job.dem_unit), ("dsm", job.dsm_unit)):
        if name in sources:
            heights, what = sources[name], name.upper()
            reader = open_heights(heights, unit=unit, assume_crs=job.assume_crs, what=what)
            vertical_crs = reader.vertical_crs
            break
    lattice: dict[str, Any] = {
        "crs": job.crs,
        "voxel_size": job.voxel_size,
        "band": job.band,
        "vertical_crs": vertical_crs,
    }
    datum = _datum_warnings(job.crs, vertical_crs)
    if job.bbox is not None:
        return Placement(frame_from_bbox(job.bbox, bbox_crs=job.bbox_crs, **lattice), None, datum)
    if isinstance(job.region, RegionShape):
        polygons, name = [shapely.from_wkt(job.region.wkt)], f"region {job.region.name}"
        frame, cut = frame_from_polygons(polygons, job.region.crs, name=name, **lattice)
        return Placement(frame, partial(inside, region=cut), datum)
    rasters = (
        source
        for name in ("dsm", "dem", "image", "semantics", "canopy")
        for source in sources.get(name, [])
        if is_raster(source)
    )
    file = job.region if job.region is not None else next(rasters, None)
    if file is None:
        raise JobError("nothing says where the world is to be", "give a `bbox` or a `region`")
    buildings = _buildings_in(file, job) if file is job.region else 0
    frame, shape = frame_from_file(file, assume_crs=job.assume_crs, extent=buildings > 1, **lattice)
    if buildings > 1:
        text = (
            f"region {source_name(file)} is a layer of {buildings:,} buildings: its extent is taken"
        )
        return Placement(frame, warnings=(*datum, text))
    return Placement(frame, None if shape is None else partial(inside, region=shape), datum)


def _datum_warnings(crs: str | None, of_heights: str) -> tuple[str, ...]:
    """Return a warning if a compound `crs` names another vertical CRS than the heights have."""
    import pyproj

    from geo_io.frame import spoken_name, vertical_crs

    if crs is None or of_heights == UNKNOWN_DATUM:
        return ()
    try:
        asked = vertical_crs(pyproj.CRS.from_user_input(crs))
    except pyproj.exceptions.CRSError:  # the frame says so
        return ()
    if asked in (UNKNOWN_DATUM, of_heights):
        return ()
    names = [spoken_name(pyproj.CRS.from_user_input(each)) for each in (asked, of_heights)]
    return (
        f"`crs` names {names[0]} for heights, but they stay as they are, in {names[1]}: transform "
        "the DEM first (gdalwarp -t_srs) if the world is to have the former",
    )


def _buildings_in(file: Any, job: Job) -> int:
    """Return the number of features of a layer of buildings; 0 of any other region."""
    from geo_io.errors import InputError
    from geo_io.legend import builtin_crosswalks
    from geo_io.region.file import is_raster
    from geo_io.semantics.footprints import holds_buildings
    from geo_io.semantics.options import SemanticsOptions
    from geo_io.vector.source import open_vector

    if is_raster(file):
        return 0
    layer = open_vector(file, assume_crs=job.assume_crs)
    try:
        options = SemanticsOptions(crosswalks=builtin_crosswalks())
        return layer.feature_count if holds_buildings(layer, options) else 0
    except InputError:  # no legend fits
        return 0


def _backend_identity(backend: Backend, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a world records of a backend.

    The path of weights and the device are no part of it; the digest of the weights is.
    """
    record: dict[str, Any] = {"name": backend.name, "version": backend.version}
    if backend.weights is None:
        return {**record, "options": dict(options)}
    own = {name: value for name, value in options.items() if name not in ("weights", "device")}
    own |= backend.chosen
    return {**record, "options": own, "weights": backend.weights}


def _shift_of(surface: Condition | None) -> Any:
    """Return what is added to the heights of a surface model, as JSON values; None for nothing.

    Whether a transformation is at hand depends on the machine, so a world records it.
    """
    if not isinstance(surface, ShiftedSurface):
        return None
    by_place = surface.by_place
    return {
        "metres": surface.constant,
        "from_to": None if by_place is None else [by_place.source, by_place.target],
    }


def _sources(job: Job) -> dict[str, list[Any]]:
    """The sources of a job by condition; conditions without any are left out."""
    sources = {
        "semantics": list(job.semantics),
        "dem": sources_of(job.dem),
        "dsm": sources_of(job.dsm),
        "image": sources_of(job.image),
        "canopy": sources_of(job.canopy),
        "points": list(job.points),
        **{name: sources_of(value) for name, value in job.conditions.items()},
    }
    return {name: source for name, source in sources.items() if source}


def read_sources(job: Job) -> dict[str, list[Any]]:
    """Return the sources that encoders read: point clouds are rasters, below all others.

    Heights of points are metres, whatever unit is given for those of rasters.
    """
    sources = _sources(job)
    points = sources.pop("points", [])
    if not points:
        return sources
    from earthgen.jobs.point_layers import point_layers

    made = point_layers(points, assume_crs=job.assume_crs, unit=job.points_unit)
    names = [*dict.fromkeys(("semantics", "dem", "dsm", "image", *sources))]
    every = {name: [*made.get(name, []), *sources.get(name, [])] for name in names}
    return {name: source for name, source in every.items() if source}


def _parts_of(sources: Mapping[str, list[Any]]) -> dict[str, Mapping[str, str]]:
    """Return the digests of the parts of all sources that are local files, by path: each file is
    read once, however many of its layers are sources."""
    from geo_io.digest import digest_parts
    from geo_io.vector.source import split_layer

    items = [item for each in sources.values() for item in each if isinstance(item, str | Path)]
    paths = dict.fromkeys(split_layer(item)[0] for item in items)
    return {path: digest_parts(path) for path in paths if Path(path).exists()}


def _files_of(source: Any, parts: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the digests of the files that a source is made of, if there are several."""
    from geo_io.vector.source import split_layer

    found = parts.get(split_layer(source)[0], {}) if isinstance(source, str | Path) else {}
    return {"files": found} if 1 < len(found) <= MOST_FILES else {}


def _digest(source: Any, parts: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> str:
    """Return the digest of a source, from those of its `parts` where they are known."""
    from geo_io.digest import digest_of_parts, digest_source
    from geo_io.vector.source import split_layer

    if isinstance(source, RegionShape):
        return f"sha256:{hashlib.sha256(source.model_dump_json().encode()).hexdigest()}"
    if not isinstance(source, str | Path):
        return digest_source(source)
    path, layer = split_layer(source)
    known = parts.get(path)
    digest = digest_source(path) if known is None else digest_of_parts(Path(path), known)
    return digest + (f" layer {layer}" if layer else "")
