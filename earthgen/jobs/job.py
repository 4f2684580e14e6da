"""A job: everything that `earthgen generate` can be told, as one checked value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from earthgen.errors import JobError
from earthgen.voxels.tile import LEVELS

PATH_FIELDS = (
    "region",
    "semantics",
    "legend",
    "dem",
    "dsm",
    "image",
    "weights",
    "out",
    "plugin_dir",
)

RUN_FIELDS = ("out", "overwrite", "resume", "extend", "workers", "scheduler", "yes")
"""Settings of a run rather than of a world."""


class RegionShape(pydantic.BaseModel):
    """A region that is no file of its own, such as a feature of a file of regions.

    name : what messages call it; crs : of the polygon; wkt : the polygon or multipolygon
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    crs: str
    wkt: str


class Job(pydantic.BaseModel):
    """The settings of one generation; docs/reference/cli.md describes each under the option of its
    name.

    Sources (`semantics`, `dem`, `dsm`, `image`, `conditions`) are paths, or from Python also a
    GeoDataFrame or an xarray.DataArray with a CRS.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str = "EPSG:4326"
    region: RegionShape | str | None = None
    semantics: tuple[Any, ...] = ()
    class_field: str | None = None
    legend: tuple[str, ...] = ()
    dem: Any = None
    dem_unit: str | None = None
    dsm: Any = None
    dsm_unit: str | None = None
    image: Any = None
    conditions: dict[str, Any] = pydantic.Field(default_factory=dict)
    attribution: tuple[str, ...] = ()
    assume_crs: str | None = None
    allow_unmapped: bool = False
    crs: str | None = None
    voxel_size: float = pydantic.Field(1.0, gt=0)
    band: tuple[float, float] = (-16.0, 496.0)
    geometry: str = "procedural"
    texture: str = "procedural"
    geometry_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    texture_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    weights: Path | None = None
    sparse_backend: str | None = None
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    tile_size: int = 512
    out: str | Path
    overwrite: bool = False
    resume: bool = False
    extend: bool = False
    workers: int = pydantic.Field(1, ge=1, le=1024)
    scheduler: str | None = None
    yes: bool = False
    plugin_dir: tuple[Path, ...] = ()

    @pydantic.field_validator("semantics", "legend", "attribution", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    @pydantic.field_validator("out")
    @classmethod
    def _path_or_url(cls, value: str | Path) -> str | Path:
        return value if "://" in str(value) else Path(value)

    @pydantic.field_validator("tile_size")
    @classmethod
    def _divisible(cls, value: int) -> int:
        if value < 64 or value % LEVELS[-1]:
            raise ValueError(f"must be a multiple of {LEVELS[-1]} voxels, at least 64")
        return value

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Job:
        given = [f"--{name}" for name in ("overwrite", "resume", "extend") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.bbox is not None and self.region is not None:
            raise ValueError("give either --bbox or --region, not both")
        return self


def source_name(source: Any) -> str:
    """What a source is called in a world's settings and provenance."""
    return str(source) if isinstance(source, str | Path) else f"in memory ({type(source).__name__})"


def stored_settings(job: Job) -> dict[str, Any]:
    """The settings of a job as a world keeps them: JSON values."""
    return {name: _plain(value) for name, value in job if name not in RUN_FIELDS}


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
    """A checked job from option values by field name.

    Raises
    ------
    JobError
        naming the first setting that is wrong
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
    """The settings in a TOML job file, with relative paths made relative to the file.

    Raises
    ------
    JobError
        if the file is absent or is not TOML
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise JobError(
            f"job file {path} does not exist", "write one as docs/reference/cli.md shows"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(
            f"job file {path} is not TOML: {error}", "see docs/reference/cli.md for an example"
        ) from error
    base = path.resolve().parent
    for name in PATH_FIELDS:
        if name in values:
            values[name] = _beside(base, values[name], keep_names=name == "legend")
    if isinstance(values.get("conditions"), dict):
        values["conditions"] = {
            key: _beside(base, value, False) for key, value in values["conditions"].items()
        }
    return values


def _beside(base: Path, value: Any, keep_names: bool) -> Any:
    if isinstance(value, list):
        return [_beside(base, item, keep_names) for item in value]
    if not isinstance(value, str) or (keep_names and "." not in value and "/" not in value):
        return value  # `legend = "osm"` names a built-in one
    return value if "://" in value else str(base / value)
