"""`earthgen preview`: a picture of a world."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.completion import renderer_names
from earthgen_cli.options import JsonOutput, Overwrite, ProgressMode, Quiet, WorldArgument
from earthgen_cli.output import say, say_json
from earthgen_cli.progress import Mode, display


class Kind(StrEnum):
    """Directions of view."""

    TOP = "top"
    OBLIQUE = "oblique"


def preview(
    ctx: typer.Context,
    world: WorldArgument,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="The picture to write, .png or .jpg."),
    ],
    overwrite: Overwrite = False,
    view: Annotated[
        Kind, typer.Option(help="From above with north up, or at an angle.")
    ] = Kind.TOP,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", min=16, max=16384, help="The picture's longer edge.")
    ] = 1600,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    azimuth: Annotated[
        float,
        typer.Option(
            metavar="DEG", help="Direction that an oblique view is seen from, clockwise from north."
        ),
    ] = 200.0,
    elevation: Annotated[
        float,
        typer.Option(
            metavar="DEG", min=5, max=90, help="Height of the viewpoint above the horizon."
        ),
    ] = 40.0,
    renderer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=renderer_names,
            help="The renderer; `earthgen doctor` lists them. By default splats, or zbuffer where "
            "torch is not installed.",
        ),
    ] = None,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Draw a picture of a world."""
    from PIL import Image

    from earthgen.errors import JobError
    from earthgen.progress import Progress
    from earthgen.render.preview import default_renderer, preview_world
    from earthgen.staging import require_file_place, staged_file
    from earthgen.world.world import open_world

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise JobError(f"--out {out} is not the name of a picture", "use .png or .jpg")
    require_file_place(out, overwrite)
    opened = open_world(world)
    bounds = bounds_on(opened.frame, bbox, bbox_crs)
    renderer = renderer or default_renderer()
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        pixels = preview_world(
            opened,
            view.value,
            size=size,
            bounds=bounds,
            azimuth=azimuth,
            elevation=elevation,
            renderer=renderer,
            progress=Progress(show),
            plugins=ctx.obj.plugins,
        )
    with staged_file(out, overwrite=overwrite) as part:
        Image.fromarray(pixels).save(part)
    height, width = pixels.shape[:2]
    if json_output:
        say_json(
            {
                "picture": out,
                "width": width,
                "height": height,
                "view": view.value,
                "renderer": renderer,
            }
        )
    elif not quiet:
        say(f"{out}  {width} x {height} pixels")
