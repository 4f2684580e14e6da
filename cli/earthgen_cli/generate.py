"""`earthgen generate`: a world from GIS layers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, checked_bbox, lon_lat_bounds, parse_bbox
from earthgen_cli.output import bytes_text, say, say_json, say_pairs, seconds_text, shell_quoted
from earthgen_cli.progress import WARNING, Mode, display

if TYPE_CHECKING:
    from earthgen.generation import Report

OPTION_GROUPS = ("geometry", "texture")


class Unit(StrEnum):
    """Units of heights."""

    METRE = "m"
    FOOT = "ft"
    US_SURVEY_FOOT = "us-ft"


def generate(
    ctx: typer.Context,
    job: Annotated[
        Path | None,
        typer.Argument(metavar="JOB.toml", help="A job file; the options given beside it override its settings."),
    ] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)] = None,
    bbox_crs: Annotated[str | None, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="FILE[:LAYER]", help="Take the extent of this vector or raster file instead of --bbox."),
    ] = None,
    semantics: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:LAYER]", help="Land use or land cover, vector or raster. Repeats."),
    ] = None,
    class_field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Attribute that holds the class; else the legend's.")
    ] = None,
    legend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="How classes map: one of `earthgen legend`, or a YAML file. Repeats."),
    ] = None,
    dem: Annotated[str | None, typer.Option(metavar="FILE", help="Heights of the bare ground.")] = None,
    dem_unit: Annotated[Unit | None, typer.Option(help="Unit of --dem, where the file does not say.")] = None,
    dsm: Annotated[str | None, typer.Option(metavar="FILE", help="Heights with buildings and trees.")] = None,
    dsm_unit: Annotated[Unit | None, typer.Option(help="Unit of --dsm, where the file does not say.")] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="Aerial image for the colours from above.")] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Input of another condition, which a plugin reads. Repeats."),
    ] = None,
    attribution: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Whom the data names as its source; kept in the world. Repeats."),
    ] = None,
    assume_crs: Annotated[
        str | None, typer.Option(metavar="CRS", help="CRS of the inputs that have no record of theirs.")
    ] = None,
    allow_unmapped: Annotated[
        bool, typer.Option("--allow-unmapped", help="Go on though the legend does not know many of the classes.")
    ] = False,
    crs: Annotated[
        str | None, typer.Option(metavar="CRS", help="Projected CRS of the world, in metres; else the UTM zone.")
    ] = None,
    voxel_size: Annotated[float | None, typer.Option(metavar="M", help="Edge of a voxel in metres; else 1.")] = None,
    geometry: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Geometry backend, of `earthgen doctor`'s list; else procedural."),
    ] = None,
    texture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Texture backend, of `earthgen doctor`'s list; else procedural."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of a backend: geometry.KEY=VALUE or texture.KEY=VALUE. Repeats.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Other seeds give other worlds; else 0.")] = None,
    tile_size: Annotated[
        int | None, typer.Option(metavar="N", help="Edge of a stored tile in voxels; else 512. It changes no content.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="WORLD", help="The world to write, such as world.zarr.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the world at --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the world at --out.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Go on though the job is very large.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    progress: Annotated[Mode, typer.Option(help="How progress is shown, on stderr.")] = Mode.AUTO,
) -> None:
    """Generate a world from GIS layers.

    Everything can also stand in a TOML file (docs/cli.md shows one): `earthgen generate job.toml`.
    """
    given = {
        "bbox": None if bbox is None else parse_bbox(bbox),
        "bbox_crs": bbox_crs,
        "region": region,
        "semantics": semantics,
        "class_field": class_field,
        "legend": legend,
        "dem": dem,
        "dem_unit": dem_unit and dem_unit.value,
        "dsm": dsm,
        "dsm_unit": dsm_unit and dsm_unit.value,
        "image": image,
        "attribution": attribution,
        "assume_crs": assume_crs,
        "allow_unmapped": allow_unmapped,
        "crs": crs,
        "voxel_size": voxel_size,
        "geometry": geometry,
        "texture": texture,
        "seed": seed,
        "tile_size": tile_size,
        "out": out,
        "overwrite": overwrite,
        "resume": resume,
        "yes": yes,
    }
    from earthgen.generation import run
    from earthgen.job import load_job, make_job

    values = merged(
        load_job(job) if job is not None else {},
        # An option that was not given is None, False or an empty list, depending on the version of typer.
        {name: value for name, value in given.items() if value is not None and value is not False and value != []},
        read_conditions(condition or []),
        read_settings(settings or []),
        ctx.obj.plugin_dirs,
    )
    with display(progress, quiet=quiet, json_output=json_output) as show:
        report = run(make_job(values), show)
    if json_output:
        say_json(report_values(report))
    elif not quiet:
        for warning in report.warnings:
            if warning not in show.warned:
                say(f"{WARNING}{warning}", err=True)
        say_report(report)


def merged(
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    conditions: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    plugin_dirs: Sequence[Path],
) -> dict[str, Any]:
    """The job's settings: those of the job file, overridden by the options of the command line.

    --condition and --set override name by name, --plugin-dir adds, and --bbox and --region, like --overwrite and
    --resume, replace each other.

    Raises
    ------
    JobError
        if nothing says where to write
    """
    from earthgen.errors import JobError

    result = {**values, **given}
    for one, other in (("bbox", "region"), ("overwrite", "resume")):
        for name, rival in ((one, other), (other, one)):
            if name in given and rival not in given:
                result.pop(rival, None)
    if "out" not in result:
        raise JobError("nothing says where to write the world", "give --out, such as --out world.zarr")
    tables = {"conditions": conditions, **{f"{group}_options": values for group, values in settings.items()}}
    for name, more in tables.items():
        there = result.get(name, {})
        if more and isinstance(there, Mapping):  # else `make_job` says what is wrong with the file
            result[name] = {**there, **more}
    if plugin_dirs:
        folders = result.get("plugin_dir", [])
        result["plugin_dir"] = [*(folders if isinstance(folders, list) else [folders]), *plugin_dirs]
    return result


def read_conditions(pairs: Sequence[str]) -> dict[str, Any]:
    """Sources by condition from NAME=FILE; a list where a name repeats."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise typer.BadParameter(f"{pair!r} is not NAME=FILE", param_hint="'--condition'")
        found.setdefault(name, []).append(file)
    return {name: files[0] if len(files) == 1 else files for name, files in found.items()}


def read_settings(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Backend options by group from geometry.KEY=VALUE and texture.KEY=VALUE.

    A value is what it would be in a TOML file (true, 3, 0.5, ["a", "b"]), else text.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        group, _, key = name.partition(".")
        if not (equals and key.isidentifier() and group in OPTION_GROUPS):
            raise typer.BadParameter(f"{pair!r} is not geometry.KEY=VALUE or texture.KEY=VALUE", param_hint="'--set'")
        found.setdefault(group, {})[key] = read_value(text)
    return found


def read_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list) else text


def report_values(report: Report) -> dict[str, Any]:
    """What --json prints."""
    world, frame = report.world, report.frame
    return {
        "world": world.path,
        "crs": frame.crs,
        "vertical_crs": frame.vertical_crs,
        "voxel_size": frame.voxel_size,
        "bounds": frame.bounds,
        "bounds_lon_lat": lon_lat_bounds(frame),
        "shape": frame.shape,
        "tiles": report.tiles,
        "counts": world.counts,
        "bytes": world.bytes_on_disk(),
        "complete": world.complete,
        "seed": world.seed,
        "seconds": round(report.seconds, 3),
        "warnings": report.warnings,
    }


def say_report(report: Report) -> None:
    world, frame = report.world, report.frame
    width, height = frame.nx * frame.voxel_size, frame.ny * frame.voxel_size
    path = shell_quoted(world.path)
    stem = Path(world.path).stem
    say_pairs(
        [
            ("world", str(world.path)),
            ("CRS", crs_text(frame.crs)),
            ("extent", f"{width:,.0f} m x {height:,.0f} m, voxels of {frame.voxel_size:g} m"),
            ("voxels", f"{world.counts['voxels']:,}"),
            ("on disk", bytes_text(world.bytes_on_disk())),
            ("time", f"{seconds_text(report.seconds)} for {report.tiles:,} tiles"),
            ("next", f"earthgen preview {path} --out {shell_quoted(stem + '.png')}"),
            ("", f"earthgen export {path} --format cog --out {shell_quoted(stem + '-cog')}"),
            ("", f"earthgen info {path}"),
        ]
    )


def crs_text(crs: str) -> str:
    """A CRS with its name, such as "EPSG:32632 (WGS 84 / UTM zone 32N)"."""
    import pyproj

    name = pyproj.CRS.from_user_input(crs).name
    return f"{crs} ({name})" if len(crs) < 40 else name
