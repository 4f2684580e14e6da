"""The options of a job, which several commands share, and how they become its settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli import completion
from earthgen_cli.bbox import checked_bbox, parse_bbox
from earthgen_cli.options import similar_file
from earthgen_cli.settings import OptionStyle, Settings

OPTION_GROUPS = ("geometry", "texture")

TABLES = ("conditions", *(f"{group}_options" for group in OPTION_GROUPS))
"""Settings that are tables, which are merged key by key."""

EXCLUSIVE = (("bbox", "region"), ("overwrite", "resume", "extend"))
"""Settings that exclude each other. One that is typed replaces those of the job file."""

SOURCES = ("semantics", "points", "dsm", "dem", "image", "canopy", "region")
"""Settings that name files to read, in the order in which a world is named after them."""

DATA = {
    "--points": (".las", ".laz"),
    "--dem": (".asc", ".dem", ".hgt", ".tif", ".tiff", ".vrt"),
    "--semantics": (
        *(".fgb", ".gdb", ".geojson", ".gml", ".gpkg", ".json", ".kml", ".kmz", ".osm", ".parquet"),
        *(".pbf", ".shp", ".zip"),
    ),
}
"""Endings of data that people give as the job file, by the option that is meant."""

PLACE = ("bbox", "bbox_crs", "region")
"""Settings that say where a world lies."""


class Unit(StrEnum):
    """Units of heights."""

    METRE = "m"
    DECIMETRE = "dm"
    CENTIMETRE = "cm"
    MILLIMETRE = "mm"
    FOOT = "ft"
    US_SURVEY_FOOT = "us-ft"
    INCH = "in"


JobFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="JOB.toml", help="A job file; the options given beside it override its settings."
    ),
]

SetOption = typer.Option(
    "--set",
    metavar="KEY=VALUE",
    help="Option of a backend: geometry.KEY=VALUE or texture.KEY=VALUE. Can be repeated.",
)

JOB = Settings(
    "earthgen.jobs.job:Job",
    {
        "bbox": OptionStyle("W,S,E,N", kind=str, callback=checked_bbox),
        "bbox_crs": "CRS",
        "region": "FILE[:LAYER]",
        "semantics": "FILE[:LAYER]",
        "class_field": "NAME",
        "legend": OptionStyle("NAME|FILE", complete=completion.legend_names),
        "height_field": "NAME",
        "height_unit": OptionStyle(kind=Unit),
        "dem": OptionStyle("FILE", many=True),
        "dem_unit": OptionStyle(kind=Unit),
        "dsm": OptionStyle("FILE", many=True),
        "dsm_unit": OptionStyle(kind=Unit),
        "vertical_shift": "M",
        "image": OptionStyle("FILE", many=True),
        "canopy": OptionStyle("FILE", many=True),
        "canopy_unit": OptionStyle(kind=Unit),
        "points": "FILE",
        "points_unit": OptionStyle(kind=Unit),
        "conditions": Annotated[
            list[str] | None,
            typer.Option(
                "--condition",
                metavar="NAME=FILE",
                help="Input of a condition that a plugin reads. Can be repeated.",
            ),
        ],
        "attribution": "TEXT",
        "assume_crs": "CRS",
        "allow_unmapped": OptionStyle(),
        "crs": "CRS",
        "voxel_size": "M",
        "geometry": OptionStyle("NAME", complete=completion.geometry_names),
        "texture": OptionStyle("NAME", complete=completion.texture_names),
        "learned": OptionStyle(),
        "set": Annotated[list[str] | None, SetOption],
        "weights": "DIR",
        "sparse_backend": OptionStyle("NAME", complete=completion.sparse_names),
        "seed": "N",
        "tile_size": "N",
        "out": OptionStyle("WORLD", short="-o"),
        "overwrite": OptionStyle(),
        "resume": OptionStyle(),
        "extend": OptionStyle(),
        "workers": "N",
        "scheduler": "NAME|ADDRESS",
        "yes": OptionStyle(),
        "allow_network": OptionStyle(),
        "allow_linked": OptionStyle(),
    },
)
"""The settings of a job that are options."""

JobSettings = Annotated[dict[str, Any], JOB]
"""The parameter of a command that receives the typed settings of a job."""


def job_settings(
    typed: Mapping[str, Any],
    job_file: Path | None,
    plugin_dirs: Sequence[Path],
    default_out: str | None = None,
) -> dict[str, Any]:
    """Collect the settings of a job.

    They come from the command line, the job file and, for --resume and --extend, the world at
    --out; the first of these that gives a setting wins.

    Parameters
    ----------
    typed : Mapping[str, Any]
        What was typed, as the parameter `JobSettings` receives it.
    job_file : Path or None
    plugin_dirs : Sequence[Path]
        The folders of --plugin-dir.
    default_out : str, optional
        The world if no setting names one. By default it is named after the first input, in the
        current folder: landuse.zarr of ../data/landuse.shp.

    Raises
    ------
    JobError
        If the job file cannot be read, no world is named, or the world lacks a setting.
    MissingFileError
        If an input does not exist.
    StoreError
        If the world to resume does not exist and no setting is given.
    """
    from earthgen.errors import JobError
    from earthgen.jobs.job import load_job

    if job_file is not None:
        require_job_file(job_file)
    values = merge_settings(load_job(job_file) if job_file is not None else {}, typed, plugin_dirs)
    if "out" not in values:
        out = default_out or named_after(values, job_file)
        if out is None:
            raise JobError("no output is given", "give --out, such as --out world.zarr")
        values["out"] = out
    require_sources(values)
    if [name for name in EXCLUSIVE[1] if values.get(name) is True] in (["resume"], ["extend"]):
        values = add_world_settings(values)
    return values


def named_after(values: Mapping[str, Any], job_file: Path | None) -> str | None:
    """Return the world of a job that names none: after the job file, else after the first input.

    Returns
    -------
    str or None
        A name in the current folder; None if there is no input to name it after.
    """
    sources = [source for name in SOURCES for source in _sources(values.get(name))]
    first = job_file or next(iter(sources), None)
    if first is None:
        return None if values.get("resume") or values.get("extend") else "world.zarr"
    stem = _path_of(str(first)).name.split(".")[0]
    return f"{stem or 'world'}.zarr"


def require_sources(values: Mapping[str, Any]) -> None:
    """Check that the files that settings name exist, before anything heavy is imported.

    URLs and what only GDAL can tell apart are left to the readers.

    Raises
    ------
    MissingFileError
        Naming the setting, the file, and the most similar name beside it.
    """
    for name in (*SOURCES, "weights"):
        for source in _sources(values.get(name)):
            text = str(source)
            path = _path_of(text)
            if "://" in text or text.startswith(("/vsi", "in memory (")) or _is_driver(text):
                continue
            if path.exists() or Path(text).exists():
                continue
            from geo_io.errors import MissingFileError

            raise MissingFileError(
                f"`{name}`: {path} does not exist{similar_file(path)}", "check the path"
            )


def require_job_file(path: Path) -> None:
    """Raise JobError if a job file is data, which is given with an option."""
    suffix = path.suffix.lower()
    option = next((option for option, endings in DATA.items() if suffix in endings), None)
    if option is None and not (path.is_dir() and suffix != ".toml"):
        return
    from earthgen.errors import JobError

    given = f"{option or '--semantics'} {path}"
    raise JobError(
        f"{path} is data, not a job file",
        f"write `earthgen generate {given} --bbox W,S,E,N`, or the same settings in a .toml file",
    )


def _sources(value: Any) -> list[str | Path]:
    """The paths of a setting that has none, one or several."""
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if isinstance(each, str | Path)]


def _path_of(source: str) -> Path:
    """The file of a source, without its layer."""
    path, colon, _ = source.rpartition(":")
    return Path(path if colon and len(path) > 1 and not Path(source).exists() else source)


def _is_driver(source: str) -> bool:
    """Whether a source begins with a name of one of GDAL's drivers, such as NETCDF:"a.nc":v."""
    driver, colon, rest = source.partition(":")
    return bool(colon and rest) and len(driver) > 1 and driver.isupper() and driver.isalnum()


def merge_settings(
    file_settings: Mapping[str, Any], typed: Mapping[str, Any], plugin_dirs: Sequence[Path]
) -> dict[str, Any]:
    """Override the settings of the job file by what was typed.

    --condition and --set override key by key, --plugin-dir adds, and `EXCLUSIVE` settings replace
    each other.
    """
    given = read_typed(typed)
    tables = {name: given.pop(name) for name in TABLES}
    result = {**file_settings, **given}
    for names in EXCLUSIVE:
        if any(name in given for name in names):
            for name in names:
                if name not in given:
                    result.pop(name, None)
    for name, entries in tables.items():
        table = result.get(name, {})
        if entries and isinstance(table, Mapping):  # else `make_job` says what is wrong in the file
            result[name] = {**table, **entries}
    if plugin_dirs:
        folders = result.get("plugin_dir", [])
        folders = folders if isinstance(folders, list) else [folders]
        result["plugin_dir"] = [*folders, *plugin_dirs]
    return result


def read_typed(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Turn typed options into settings. The result always has the `TABLES`."""
    given = dict(typed)
    if "bbox" in given:
        given["bbox"] = parse_bbox(given["bbox"])
    conditions = read_conditions(given.pop("conditions", []))
    options = read_backend_options(given.pop("set", []))
    groups = {f"{group}_options": options.get(group, {}) for group in OPTION_GROUPS}
    return {**given, "conditions": conditions, **groups}


def read_conditions(pairs: Sequence[str]) -> dict[str, Any]:
    """Read NAME=FILE pairs as sources by condition; a name that repeats has a list."""
    files_by_name: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise typer.BadParameter(f"{pair!r} is not NAME=FILE", param_hint="'--condition'")
        files_by_name.setdefault(name, []).append(file)
    return {name: files[0] if len(files) == 1 else files for name, files in files_by_name.items()}


def read_backend_options(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read geometry.KEY=VALUE and texture.KEY=VALUE pairs as options by group.

    A value is read as in a TOML file (true, 3, 0.5, ["a", "b"]), else as text.
    """
    options: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        group, _, key = name.partition(".")
        if not (equals and key.isidentifier() and group in OPTION_GROUPS):
            raise typer.BadParameter(
                f"{pair!r} is not geometry.KEY=VALUE or texture.KEY=VALUE", param_hint="'--set'"
            )
        options.setdefault(group, {})[key] = read_value(text)
    return options


def read_value(text: str) -> Any:
    """Read a TOML value; anything else, dates and tables included, is text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number too long to be one
        return text
    return value if isinstance(value, bool | int | float | str | list) else text


def add_world_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings that the world at `out` stores to those that are given.

    Parameters
    ----------
    values : Mapping[str, Any]
        The given settings, `out` among them.

    Raises
    ------
    JobError
        If the world was made of an input in memory that is not given now, or no setting says how
        far to extend.
    StoreError
        If there is no world and nothing but its place is given.
    """
    from earthgen.errors import JobError, StoreError
    from earthgen.jobs.job import RUN_FIELDS
    from earthgen.world.world import open_world

    out, extend = values["out"], values.get("extend") is True
    try:
        stored = open_world(out).settings
    except StoreError:
        if extend or set(values) - set(RUN_FIELDS):
            return dict(values)  # the run reports it, or makes a new world
        raise
    placed = "bbox" in values or "region" in values
    if extend and not placed:
        raise JobError(
            f"nothing says how far to extend {out}",
            "give --bbox W,S,E,N; the world keeps the area that it has",
        )
    if placed:
        stored = {name: value for name, value in stored.items() if name not in PLACE}
    if extend:
        stored.pop("crs", None)
    return merge_stored(values, stored, out)


def merge_stored(
    values: Mapping[str, Any], stored: Mapping[str, Any], out: object
) -> dict[str, Any]:
    """Combine the given settings with those of a world; the given ones win.

    Raises
    ------
    JobError
        If a setting of the world is an input in memory, which cannot be read again.
    """
    from earthgen.jobs.job import recalled_settings

    stored = recalled_settings(stored, str(out))
    result = {**stored, **values}
    for name in TABLES:
        table, given = stored.get(name) or {}, values.get(name, {})
        if isinstance(given, Mapping):
            result[name] = {**table, **given}
    for name in ("semantics", "dem", "dsm", "image", "canopy", "region"):
        _refuse_memory(result.get(name), name, f"--{name} FILE", out)
    conditions = result["conditions"]
    for name, source in conditions.items() if isinstance(conditions, Mapping) else ():
        _refuse_memory(source, name, f"--condition {name}=FILE", out)
    return result


def _refuse_memory(source: Any, name: str, option: str, out: object) -> None:
    from earthgen.errors import JobError
    from geo_io.redaction import is_redacted

    sources = source if isinstance(source, list | tuple) else [source]
    if any(is_redacted(str(each)) for each in sources):
        raise JobError(
            f"the {name} of {out} is an address whose credentials a world does not keep",
            f"give it again: {option}",
        )
    if any(str(each).startswith("in memory (") for each in sources):
        raise JobError(
            f"the {name} of {out} came from memory, not from a file",
            f"write it to a file and give {option}",
        )
