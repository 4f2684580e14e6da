"""A job: all settings of a generation, as one checked value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from earthgen.errors import JobError
from geo_io.redaction import redacted
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import bounded_text

PATH_FIELDS = (
    "region",
    "semantics",
    "legend",
    "dem",
    "dsm",
    "image",
    "canopy",
    "points",
    "weights",
    "out",
)

LEARNED = {"geometry": "height-flow", "texture": "latent"}
"""The backends of the setting `learned`."""

COARSEST = 1000.0
"""Largest edge of a voxel, metres."""

FARTHEST_SHIFT = 12_000.0
"""Largest shift between vertical datums, and largest height of the band of voxels, metres: no
height on Earth is larger."""

HeightUnit = Literal["m", "dm", "cm", "mm", "ft", "us-ft", "in"]

RUN_FIELDS = (
    "out",
    "overwrite",
    "resume",
    "extend",
    "workers",
    "scheduler",
    "yes",
    "plugin_dir",
    "allow_network",
    "allow_linked",
    "learned",  # short for the names of two backends, which are stored
)
"""Settings that concern the run and not the world. A world stores none of them, and none is read
from a world: what it names is neither run nor fetched."""

NOT_OF_FILES = ("plugin_dir", "allow_network", "allow_linked")
"""Settings that a job file cannot have: it may come from someone else."""


class RegionShape(pydantic.BaseModel):
    """A region given by a polygon instead of a file, such as a feature of a layer of regions.

    Attributes
    ----------
    name : str
        For messages.
    crs : str
        Of the polygon.
    wkt : str
        The polygon or multipolygon.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    crs: str
    wkt: str


class Job(pydantic.BaseModel):
    """The settings of one generation; docs/reference/cli.md describes them as options.

    Sources (`semantics`, `dem`, `dsm`, `image`, `canopy`, `points`, `conditions`) are paths, or
    lists of paths. From Python, a source may also be a GeoDataFrame or an xarray.DataArray with a
    CRS; not one of `points`.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    bbox: tuple[float, float, float, float] | None = Field(
        None, description="Extent of the world: west, south, east, north in `bbox_crs`"
    )
    bbox_crs: str = Field("EPSG:4326", description="CRS of `bbox`")
    region: RegionShape | str | None = Field(
        None,
        description="File whose polygons replace `bbox`; of a raster, and of a layer of buildings, "
        "it is the extent",
    )
    semantics: tuple[Any, ...] = Field(
        (), description="Land use or land cover: vector or raster files"
    )
    class_field: str | None = Field(
        None, description="Attribute that holds the class; the legend names it otherwise"
    )
    legend: tuple[str, ...] = Field(
        (), description="Mapping to the 25 classes: a name that `earthgen legend` lists, or a file"
    )
    height_field: str | None = Field(
        None, description="Attribute with the heights of buildings above ground"
    )
    height_unit: HeightUnit | None = Field(
        None,
        description="Unit of heights in `semantics`, where neither value nor column names one: m, "
        "dm, cm, mm, ft, us-ft or in",
    )
    dem: Any = Field(
        None,
        description="Heights of the ground, without buildings and vegetation: rasters or folders "
        "of tiles, of which later ones lie over earlier ones; contour lines; points",
    )
    dem_unit: str | None = Field(
        None, description="Unit of `dem`, if the file does not contain it: m, dm, cm, ft or us-ft"
    )
    dsm: Any = Field(
        None,
        description="Heights of the surface, with buildings and vegetation: rasters or folders of "
        "tiles",
    )
    dsm_unit: str | None = Field(
        None, description="Unit of `dsm`, if the file does not contain it: m, dm, cm, ft or us-ft"
    )
    vertical_shift: float | None = Field(
        None,
        ge=-FARTHEST_SHIFT,
        le=FARTHEST_SHIFT,
        description="Metres to add to the heights of `dsm`, to bring it to the datum of `dem`; 0 "
        "takes them as they are, whether they fit or not",
    )
    image: Any = Field(
        None, description="Aerial images: the colours seen from above; rasters or folders of tiles"
    )
    canopy: Any = Field(
        None,
        description="Heights of trees above the ground (CHM, CDSM): rasters or folders of tiles",
    )
    canopy_unit: str | None = Field(
        None,
        description="Unit of `canopy`, if the file does not contain it: m, dm, cm, ft or us-ft",
    )
    points: tuple[str, ...] = Field(
        (),
        description="Point clouds (LAS, LAZ, COPC, EPT) for ground, surface, classes and colours; "
        "`dem`, `dsm`, `semantics` and `image` lie over them",
    )
    points_unit: str | None = Field(
        None, description="Unit of the heights of `points`, if the files do not contain it"
    )
    conditions: dict[str, Any] = Field(
        default_factory=dict, description="Inputs of conditions that plugins read, by name"
    )
    attribution: tuple[str, ...] = Field(
        (), description="Credit that the data requires, stored in the world"
    )
    assume_crs: str | None = Field(None, description="CRS of the inputs that contain none")
    allow_unmapped: bool = Field(
        False, description="Continue although the legend lacks many of the input's classes"
    )
    crs: str | None = Field(
        None, description="Projected CRS of the world, in metres; the UTM zone if not given"
    )
    voxel_size: float = Field(1.0, gt=0, le=COARSEST, description="Edge of a voxel in metres")
    band: tuple[float, float] = Field(
        (-16.0, 496.0), description="Lowest and highest voxel, in metres above the ground"
    )
    geometry: str = Field(
        "procedural", description="Geometry backend; `earthgen doctor` lists them"
    )
    texture: str = Field("procedural", description="Texture backend; `earthgen doctor` lists them")
    learned: bool = Field(
        False,
        description="Short for the learned backends, geometry `height-flow` and texture `latent`, "
        "where no others are given",
    )
    geometry_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the geometry backend"
    )
    texture_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the texture backend"
    )
    weights: Path | None = Field(
        None, description="Weights of learned backends; those that come with earthgen if not given"
    )
    sparse_backend: str | None = Field(
        None,
        description="Backend of sparse operations in learned backends, listed by `earthgen "
        "doctor`; chosen by device and dtype if not given",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Each seed gives another world")
    tile_size: int = Field(
        512, description="Edge of a stored tile in voxels; it does not change the content"
    )
    out: str | Path = Field(
        description="The world to write, such as world.zarr or s3://bucket/world.zarr"
    )
    overwrite: bool = Field(False, description="Replace the world at `out`")
    resume: bool = Field(
        False, description="Finish the world at `out`, with its settings where none are given"
    )
    extend: bool = Field(
        False,
        description="Extend the world at `out` to cover `bbox` too, with its settings where none "
        "are given",
    )
    workers: int = Field(1, ge=1, le=1024, description="Number of workers that make tiles")
    scheduler: str | None = Field(
        None,
        description="Where the workers run: processes (used if not given), threads, dask, or the "
        "address of a Dask scheduler such as tcp://host:8786",
    )
    yes: bool = Field(False, description="Start the job even if it is very large")
    plugin_dir: tuple[Path, ...] = Field((), description="Folders of plugin files")
    allow_network: bool = Field(
        False, description="Let inputs be addresses, and name addresses, which GDAL then reads"
    )
    allow_linked: bool = Field(
        False, description="Let inputs such as VRTs name files outside their own folder"
    )

    # Validators that come before run from the last to the first: single values are in tuples here.
    @pydantic.field_validator("region", "legend", "points", mode="before")
    @classmethod
    def _paths_as_text(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(str(one) if isinstance(one, Path) else one for one in value)
        return str(value) if isinstance(value, Path) else value

    @pydantic.field_validator("semantics", "legend", "attribution", "points", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    @pydantic.field_validator("dem", "dsm", "image", "canopy", mode="before")
    @classmethod
    def _one_of_one(cls, value: Any) -> Any:
        """Keep several sources as a tuple, and one as itself."""
        if not isinstance(value, list | tuple):
            return value
        return tuple(value) if len(value) > 1 else next(iter(value), None)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _learned_backends(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("learned") is True:
            return {**LEARNED, **values, "learned": False}  # a world stores the names
        return values

    @pydantic.field_validator("out")
    @classmethod
    def _path_or_url(cls, value: str | Path) -> str | Path:
        return value if "://" in str(value) else Path(value)

    @pydantic.field_validator("tile_size")
    @classmethod
    def _divisible(cls, value: int) -> int:
        from earthgen.voxels.tile import LEVELS  # imports numpy, which `--help` does not need

        if value < 64 or value % LEVELS[-1]:
            raise ValueError(f"must be a multiple of {LEVELS[-1]} voxels, at least 64")
        return value

    @pydantic.field_validator("band")
    @classmethod
    def _on_earth(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(abs(end) <= FARTHEST_SHIFT for end in value):  # also NaN
            raise ValueError(f"must lie between -{FARTHEST_SHIFT:g} and {FARTHEST_SHIFT:g} m")
        return value

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Job:
        given = [f"`{name}`" for name in ("overwrite", "resume", "extend") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.bbox is not None and self.region is not None:
            raise ValueError("give either `bbox` or `region`, not both")
        if self.vertical_shift is not None and self.dsm is None and not self.points:
            raise ValueError("`vertical_shift` is added to `dsm`, which is not given")
        return self


def sources_of(setting: Any) -> list[Any]:
    """Return the sources of a setting that has none, one or several."""
    if setting is None:
        return []
    return list(setting) if isinstance(setting, list | tuple) else [setting]


def source_name(source: Any) -> str:
    """Return the name of a source in a world's settings and provenance."""
    if isinstance(source, str | Path):
        return redacted(str(source))
    return f"in memory ({type(source).__name__})"


def stored_settings(job: Job) -> dict[str, Any]:
    """Return the settings of a job that a world stores, as JSON values."""
    return {name: _plain(value) for name, value in job if name not in RUN_FIELDS}


def recalled_settings(stored: Mapping[str, Any], world: str | Path) -> dict[str, Any]:
    """Return the settings of a world to make it again, or to continue it.

    Parameters
    ----------
    stored : mapping
        As the world has them.
    world : path or URL
        Paths that do not exist from the current folder are looked for from the folder of the
        world.

    Returns
    -------
    dict
        Without `RUN_FIELDS`: a world says neither what code is loaded nor what is fetched.
    """
    kept = {
        name: value
        for name, value in stored.items()
        if value is not None and name not in RUN_FIELDS
    }
    if "://" in str(world):
        return kept
    base = Path(world).resolve().parent
    for name in PATH_FIELDS:
        if name in kept:
            kept[name] = _found_from(base, kept[name])
    for name in ("conditions", "geometry_options", "texture_options"):
        if isinstance(kept.get(name), Mapping):
            kept[name] = {key: _found_from(base, value) for key, value in kept[name].items()}
    return kept


def _found_from(base: Path, value: Any) -> Any:
    """Return a path from a folder where it exists there and not here; other values unchanged."""
    if isinstance(value, list):
        return [_found_from(base, item) for item in value]
    if not isinstance(value, str) or not value or len(value) > 4000 or "\0" in value:
        return value
    head = value.rpartition(":")[0]
    try:
        for text in (value, head):  # file.gpkg:layer
            if text and not Path(text).exists() and (base / text).exists():
                return str(base / text) + value[len(text) :]
    except OSError:
        return value
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return source_name(value)


def make_job(values: Mapping[str, Any]) -> Job:
    """Make a checked job from its settings.

    Raises
    ------
    JobError
        Naming the first setting that is wrong.
    """
    try:
        return Job(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        problem = f"setting {name!r}: {message}" if name else message
        raise JobError(problem, "`earthgen generate --help` describes the settings") from error


def load_job(path: str | Path) -> dict[str, Any]:
    """Read the settings in a TOML job file. Relative paths in it are relative to its folder.

    Raises
    ------
    JobError
        If the file does not exist, is not TOML, or has one of `NOT_OF_FILES`.
    """
    path = Path(path)
    if not path.exists():
        raise JobError(
            f"job file {path} does not exist", "write one as docs/reference/cli.md shows"
        )
    remedy = "see docs/reference/cli.md for an example"
    with damaged_file(f"job file {path} is not TOML", remedy, JobError):
        values = tomllib.loads(bounded_text(path))
    for name in NOT_OF_FILES:
        if name in values:
            raise JobError(
                f"job file {path} has `{name}`, which a file cannot decide",
                f"remove it there, and give `{name}` on the command line or from Python",
            )
    base = path.resolve().parent
    for name in PATH_FIELDS:
        if name in values:
            values[name] = _resolve(base, values[name], keep_names=name == "legend")
    if isinstance(values.get("conditions"), dict):
        values["conditions"] = {
            key: _resolve(base, value, False) for key, value in values["conditions"].items()
        }
    return values


def _resolve(base: Path, value: Any, keep_names: bool) -> Any:
    """Make relative paths relative to a folder. With `keep_names`, bare names stay names."""
    if isinstance(value, list):
        return [_resolve(base, item, keep_names) for item in value]
    if not isinstance(value, str) or (keep_names and "." not in value and "/" not in value):
        return value  # `legend = "osm"` names a built-in one
    return value if "://" in value else str(base / value)
