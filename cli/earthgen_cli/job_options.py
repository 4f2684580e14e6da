"""The options of a job, which several commands share, and how they become its settings."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.bbox import checked_bbox, parse_bbox
from earthgen_cli.settings import OptionStyle, Settings

OPTION_GROUPS = ("geometry", "texture")

TABLES = ("conditions", *(f"{group}_options" for group in OPTION_GROUPS))
"""Settings that are tables, which are merged key by key."""

EXCLUSIVE = (("bbox", "region"), ("overwrite", "resume", "extend"))
"""Settings that exclude each other. One that is typed replaces those of the job file."""

PLACE = ("bbox", "bbox_crs", "region")
"""Settings that say where a world lies."""


class Unit(StrEnum):
    """Units of heights."""

    METRE = "m"
    FOOT = "ft"
    US_SURVEY_FOOT = "us-ft"


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
        "legend": "NAME|FILE",
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
        "geometry": "NAME",
        "texture": "NAME",
        "set": Annotated[list[str] | None, SetOption],
        "weights": "DIR",
        "sparse_backend": "NAME",
        "seed": "N",
        "tile_size": "N",
        "out": "WORLD",
        "overwrite": OptionStyle(),
        "resume": OptionStyle(),
        "extend": OptionStyle(),
        "workers": "N",
        "scheduler": "NAME|ADDRESS",
        "yes": OptionStyle(),
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
        The world if nothing else names one.

    Raises
    ------
    JobError
        If the job file cannot be read, no world is named, or the world lacks a setting.
    StoreError
        If the world to resume does not exist and no setting is given.
    """
    from earthgen.errors import JobError
    from earthgen.jobs.job import load_job

    values = merge_settings(load_job(job_file) if job_file is not None else {}, typed, plugin_dirs)
    if "out" not in values:
        if default_out is None:
            raise JobError("no output is given", "give --out, such as --out world.zarr")
        values["out"] = default_out
    if [name for name in EXCLUSIVE[1] if values.get(name) is True] in (["resume"], ["extend"]):
        values = add_world_settings(values)
    return values


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
    except tomllib.TOMLDecodeError:
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
        if extend or set(values) - set(RUN_FIELDS) - {"plugin_dir"}:
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
    result = {**{name: value for name, value in stored.items() if value is not None}, **values}
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

    sources = source if isinstance(source, list | tuple) else [source]
    if any(str(each).startswith("in memory (") for each in sources):
        raise JobError(
            f"the {name} of {out} came from memory, not from a file",
            f"write it to a file and give {option}",
        )
