"""`earthgen export`: a world, or a part of it, in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.completion import format_names
from earthgen_cli.options import (
    WORLD_HELP,
    JsonOutput,
    Overwrite,
    ProgressMode,
    Quiet,
    existing_world,
)
from earthgen_cli.output import bytes_text, say, say_json, say_table
from earthgen_cli.progress import Mode, display


def export(
    ctx: typer.Context,
    world: Annotated[
        str | None,
        typer.Argument(metavar="WORLD", callback=existing_world, help=WORLD_HELP),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            autocompletion=format_names,
            help="cog, ply, glb, or a plugin's; `earthgen doctor` lists them. By default what the "
            "ending of --out says.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="The folder to write into; of a format that is one file, also its name, such as "
            "town.glb.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Option of the format; --help-options lists them. Can be repeated.",
        ),
    ] = None,
    help_options: Annotated[
        bool, typer.Option("--help-options", help="List the options of --format, and end.")
    ] = False,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    level: Annotated[int, typer.Option(metavar="1|2|4|8", help="Coarser by this factor.")] = 1,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Write a world, or a part of it, in another format.

    A STAC item beside the files says where they are and what they were made from.
    """
    from earthgen.errors import JobError
    from earthgen.render.export import export_world, format_of
    from earthgen_cli.format_options import read_options

    plugins = ctx.obj.plugins
    if format_name is None:
        if out is None:
            raise JobError("no format is given", f"give --format: {known_formats(plugins)}")
        format_name = format_of(out, plugins)
    if help_options:
        say_options(plugins, format_name, json_output)
        return
    if world is None or out is None:
        missing = "no world is given" if world is None else "no output is given"
        raise JobError(
            missing, f"write `earthgen export world.zarr --format {format_name} --out folder`"
        )
    from earthgen.progress import Progress
    from earthgen.voxels.tile import LEVELS
    from earthgen.world.world import open_world

    if level not in LEVELS:
        raise JobError(
            f"--level {level} is not one of {', '.join(map(str, LEVELS))}",
            "1 is the world's voxel size",
        )
    options = read_options(settings or [], plugins.options_of("exporter", format_name))
    opened = open_world(world)
    bounds = bounds_on(opened.frame, bbox, bbox_crs)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        files = export_world(
            opened,
            format_name,
            out,
            options=options,
            bounds=bounds,
            level=level,
            overwrite=overwrite,
            progress=Progress(show),
            plugins=plugins,
        )
    sizes = [
        sum(part.stat().st_size for part in [file, *file.rglob("*")] if part.is_file())
        for file in files
    ]
    if json_output:
        listed = [{"path": file, "bytes": size} for file, size in zip(files, sizes, strict=True)]
        say_json({"format": format_name, "level": level, "bounds": bounds, "files": listed})
    elif not quiet:
        for file, size in zip(files, sizes, strict=True):
            say(f"{file}  {bytes_text(size)}")


def known_formats(plugins: Any) -> str:
    """Return the names of all formats."""
    return ", ".join(sorted(plugins.offers("exporter")))


def say_options(plugins: Any, format_name: str, json_output: bool) -> None:
    """Print the options of a format."""
    from earthgen_cli.format_options import option_rows

    model = plugins.options_of("exporter", format_name)
    rows = option_rows(model) if model is not None else []
    if json_output:
        names = ("name", "values", "default", "description")
        say_json(
            {"format": format_name, "options": [dict(zip(names, row, strict=True)) for row in rows]}
        )
    elif rows:
        say_table(("--set", "value", "default", "meaning"), rows)
    else:
        say(f"the format {format_name} has no options")
