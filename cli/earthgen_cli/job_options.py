"""The options of a job, which several commands share, and how they become its settings."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, checked_bbox, parse_bbox
from earthgen_cli.options import Scheduler, Workers

Command = Callable[..., None]

GIVEN = "given"
"""The parameter of a command that the options of a job take the place of."""

OPTION_GROUPS = ("geometry", "texture")

TABLES = ("conditions", *(f"{group}_options" for group in OPTION_GROUPS))
"""Settings that are tables: they are overridden name by name."""

RIVALS = (("bbox", "region"), ("overwrite", "resume", "extend"))
"""Settings that replace each other: where the command line has one, the job file's others do not
count."""

PLACE = ("bbox", "bbox_crs", "region")
"""Settings that say where a world is."""


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

OPTIONS: dict[str, Any] = {
    "bbox": Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ],
    "bbox_crs": Annotated[str | None, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)],
    "region": Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:LAYER]",
            help="Take the extent of this vector or raster file instead of --bbox.",
        ),
    ],
    "semantics": Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:LAYER]", help="Land use or land cover, vector or raster. Repeats."
        ),
    ],
    "class_field": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Attribute that holds the class; else the legend's."),
    ],
    "legend": Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="How classes map: one of `earthgen legend`, or a YAML file. Repeats.",
        ),
    ],
    "dem": Annotated[str | None, typer.Option(metavar="FILE", help="Heights of the bare ground.")],
    "dem_unit": Annotated[
        Unit | None, typer.Option(help="Unit of --dem, where the file does not say.")
    ],
    "dsm": Annotated[
        str | None, typer.Option(metavar="FILE", help="Heights with buildings and trees.")
    ],
    "dsm_unit": Annotated[
        Unit | None, typer.Option(help="Unit of --dsm, where the file does not say.")
    ],
    "image": Annotated[
        str | None, typer.Option(metavar="FILE", help="Aerial image for the colours from above.")
    ],
    "condition": Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Input of another condition, which a plugin reads. Repeats."
        ),
    ],
    "attribution": Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="Whom the data names as its source; kept in the world. Repeats."
        ),
    ],
    "assume_crs": Annotated[
        str | None,
        typer.Option(metavar="CRS", help="CRS of the inputs that have no record of theirs."),
    ],
    "allow_unmapped": Annotated[
        bool,
        typer.Option(
            "--allow-unmapped", help="Go on though the legend does not know many of the classes."
        ),
    ],
    "crs": Annotated[
        str | None,
        typer.Option(
            metavar="CRS", help="Projected CRS of the world, in metres; else the UTM zone."
        ),
    ],
    "voxel_size": Annotated[
        float | None, typer.Option(metavar="M", help="Edge of a voxel in metres; else 1.")
    ],
    "geometry": Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Geometry backend, of `earthgen doctor`'s list; else procedural."
        ),
    ],
    "texture": Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Texture backend, of `earthgen doctor`'s list; else procedural."
        ),
    ],
    "set": Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of a backend: geometry.KEY=VALUE or texture.KEY=VALUE. Repeats.",
        ),
    ],
    "weights": Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Set of weights for learned backends; else the one that comes with earthgen.",
        ),
    ],
    "sparse_backend": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What computes sparse tensors in a learned backend, of `earthgen doctor`'s list; else picked by "
            "device and dtype.",
        ),
    ],
    "seed": Annotated[
        int | None, typer.Option(metavar="N", help="Other seeds give other worlds; else 0.")
    ],
    "tile_size": Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Edge of a stored tile in voxels; else 512. It changes no content."
        ),
    ],
    "out": Annotated[
        str | None,
        typer.Option(
            metavar="WORLD",
            help="The world to write, such as world.zarr or s3://bucket/world.zarr.",
        ),
    ],
    "overwrite": Annotated[bool, typer.Option("--overwrite", help="Replace the world at --out.")],
    "resume": Annotated[
        bool,
        typer.Option(
            "--resume", help="Finish the world at --out; settings not given are the world's."
        ),
    ],
    "extend": Annotated[
        bool,
        typer.Option(
            "--extend",
            help="Grow the world at --out so that it also holds --bbox; settings not given are the world's.",
        ),
    ],
    "workers": Workers,
    "scheduler": Scheduler,
    "yes": Annotated[bool, typer.Option("--yes", help="Go on though the job is very large.")],
}
"""The options by name, in the order of --help. Those of `Annotated[bool, ...]` are flags."""


def with_job_options(
    *, without: Collection[str] = (), **instead: Any
) -> Callable[[Command], Command]:
    """Gives a command the options of a job in place of its parameter `given`, a mapping of what was
    typed by name.

    without : options that it does not have
    instead : options that it declares otherwise, as in `OPTIONS`
    """
    shared = {
        name: instead.get(name, option) for name, option in OPTIONS.items() if name not in without
    }

    def decorated(command: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += map(_parameter, shared.items()) if parameter.name == GIVEN else [keyword]

        @wraps(command)
        def called(**values: Any) -> None:
            typed = {name: values.pop(name) for name in shared}
            command(**values, **{GIVEN: typed})

        # What typer reads; `wraps` would lead it to the command's own.
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del called.__wrapped__
        return called

    return decorated


def _parameter(option: tuple[str, Any]) -> inspect.Parameter:
    name, annotation = option
    default = False if annotation.__origin__ is bool else None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def job_settings(
    given: Mapping[str, Any],
    job_file: Path | None,
    plugin_dirs: Sequence[Path],
    out: str | None = None,
) -> dict[str, Any]:
    """The settings that the command line, the job file and, for --resume and --extend, the world at
    --out give.

    given : what was typed, as `with_job_options` passes it
    out : where to write unless something says it

    Raises
    ------
    JobError
        if the job file cannot be read, nothing says where to write, or the world does not say
        enough
    """
    from earthgen.errors import JobError
    from earthgen.jobs.job import load_job

    values = merged(load_job(job_file) if job_file is not None else {}, given, plugin_dirs)
    if "out" not in values:
        if out is None:
            raise JobError(
                "nothing says where to write the world", "give --out, such as --out world.zarr"
            )
        values["out"] = out
    if [name for name in RIVALS[1] if values.get(name) is True] in (["resume"], ["extend"]):
        values = with_settings_of_world(values)
    return values


def merged(
    values: Mapping[str, Any], given: Mapping[str, Any], plugin_dirs: Sequence[Path]
) -> dict[str, Any]:
    """The settings of the job file, overridden by what was typed.

    --condition and --set override name by name, --plugin-dir adds, and `RIVALS` replace each other.
    """
    typed = read_given(given)
    tables = {name: typed.pop(name) for name in TABLES}
    result = {**values, **typed}
    for rivals in RIVALS:
        if any(name in typed for name in rivals):
            for name in rivals:
                if name not in typed:
                    result.pop(name, None)
    for name, more in tables.items():
        there = result.get(name, {})
        if more and isinstance(there, Mapping):  # else `make_job` says what is wrong with the file
            result[name] = {**there, **more}
    if plugin_dirs:
        folders = result.get("plugin_dir", [])
        result["plugin_dir"] = [
            *(folders if isinstance(folders, list) else [folders]),
            *plugin_dirs,
        ]
    return result


def read_given(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed as settings; conditions and backend options are always there."""
    # An option that was not given is None, False or an empty list, depending on the version of
    # typer.
    typed = {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and value != []
    }
    typed = {
        name: value.value if isinstance(value, Unit) else value for name, value in typed.items()
    }
    if "bbox" in typed:
        typed["bbox"] = parse_bbox(typed["bbox"])
    conditions, options = (
        read_conditions(typed.pop("condition", [])),
        read_options(typed.pop("set", [])),
    )
    return {
        **typed,
        "conditions": conditions,
        **{f"{group}_options": options.get(group, {}) for group in OPTION_GROUPS},
    }


def read_conditions(pairs: Sequence[str]) -> dict[str, Any]:
    """Sources by condition from NAME=FILE; a list where a name repeats."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise typer.BadParameter(f"{pair!r} is not NAME=FILE", param_hint="'--condition'")
        found.setdefault(name, []).append(file)
    return {name: files[0] if len(files) == 1 else files for name, files in found.items()}


def read_options(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Backend options by group from geometry.KEY=VALUE and texture.KEY=VALUE.

    A value is what it would be in a TOML file (true, 3, 0.5, ["a", "b"]), else text.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        group, _, key = name.partition(".")
        if not (equals and key.isidentifier() and group in OPTION_GROUPS):
            raise typer.BadParameter(
                f"{pair!r} is not geometry.KEY=VALUE or texture.KEY=VALUE", param_hint="'--set'"
            )
        found.setdefault(group, {})[key] = read_value(text)
    return found


def read_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list) else text


def with_settings_of_world(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given, and those of the world at `out` where a --resume or --extend
    gives none.

    values : the settings that are given; `out` is one of them

    Raises
    ------
    JobError
        if an input was given in memory when the world was made, and is not given now; if nothing
        says how far to extend
    StoreError
        if there is no world, and nothing but where it should be is given
    """
    from earthgen.errors import JobError, StoreError
    from earthgen.jobs.job import RUN_FIELDS
    from earthgen.world.world import open_world

    out, extend = values["out"], values.get("extend") is True
    try:
        stored = open_world(out).settings
    except StoreError:
        if extend or set(values) - set(RUN_FIELDS) - {"plugin_dir"}:
            return dict(values)  # the run says what is wrong with it, if it wants it
        raise
    placed = "bbox" in values or "region" in values
    if extend and not placed:
        raise JobError(
            f"nothing says how far to extend {out}",
            "give --bbox W,S,E,N; the world keeps what it has",
        )
    if placed:
        stored = {name: value for name, value in stored.items() if name not in PLACE}
    if extend:
        stored.pop("crs", None)
    return filled(values, stored, out)


def filled(values: Mapping[str, Any], stored: Mapping[str, Any], out: object) -> dict[str, Any]:
    """The settings that are given, and those that a world stores where none is given.

    Raises
    ------
    JobError
        if one of those of the world is an input that was given in memory
    """
    result = {**{name: value for name, value in stored.items() if value is not None}, **values}
    for name in TABLES:
        there, given = stored.get(name) or {}, values.get(name, {})
        if isinstance(given, Mapping):
            result[name] = {**there, **given}
    for name in ("semantics", "dem", "dsm", "image", "region"):
        _refuse_memory(result.get(name), name, f"--{name} FILE", out)
    for name, source in (
        result["conditions"].items() if isinstance(result["conditions"], Mapping) else ()
    ):
        _refuse_memory(source, name, f"--condition {name}=FILE", out)
    return result


def _refuse_memory(source: Any, name: str, option: str, out: object) -> None:
    from earthgen.errors import JobError

    if any(
        str(item).startswith("in memory (")
        for item in (source if isinstance(source, list | tuple) else [source])
    ):
        raise JobError(
            f"{out} was made of {name} that were in no file", f"give them again as a file: {option}"
        )
