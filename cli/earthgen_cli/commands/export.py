"""`earthgen export`: a world, or a part of it, in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet, WorldArgument
from earthgen_cli.output import bytes_text, say, say_json
from earthgen_cli.progress import Mode, display


def export(
    ctx: typer.Context,
    world: WorldArgument,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="cog, ply, glb, or a plugin's; `earthgen doctor` lists them.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write into.")],
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    level: Annotated[int, typer.Option(metavar="1|2|4|8", help="Coarser by this factor.")] = 1,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Write a world, or a part of it, in another format."""
    from earthgen.errors import JobError
    from earthgen.progress import Progress
    from earthgen.voxels.tile import LEVELS
    from earthgen.world.world import open_world

    if level not in LEVELS:
        raise JobError(
            f"--level {level} is not one of {', '.join(map(str, LEVELS))}",
            "1 is the world's voxel size",
        )
    opened = open_world(world)
    bounds = bounds_on(opened.frame, bbox, bbox_crs)
    exporter = ctx.obj.plugins.create("exporter", format_name)
    out.mkdir(parents=True, exist_ok=True)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        files = exporter.export(opened, out, bounds=bounds, level=level, progress=Progress(show))
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
