"""`earthgen render`: pictures of a world from cameras, or a georeferenced image from above."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.completion import renderer_names
from earthgen_cli.options import JsonOutput, Overwrite, ProgressMode, Quiet, WorldArgument
from earthgen_cli.output import bytes_text, say, say_json
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.splats.cameras.camera import Camera
    from earthgen.world.world import World
    from geo_io.frame import Bounds

DEFAULT_RENDERER = "splats"


class Layer(StrEnum):
    """Layers that can be written beside pictures; `earthgen.render.frames.LAYERS`."""

    DEPTH = "depth"
    NORMAL = "normal"
    SEMANTICS = "semantics"


def render(
    ctx: typer.Context,
    world: WorldArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="The folder for the pictures; with --ortho the GeoTIFF.",
        ),
    ],
    overwrite: Overwrite = False,
    camera: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Cameras: JSON of earthgen, or a nerfstudio transforms.json."
        ),
    ] = None,
    orbit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Instead of a file: N cameras on a circle around the world."
        ),
    ] = None,
    ortho: Annotated[
        float | None,
        typer.Option(
            metavar="METRES",
            help="Instead of cameras: a GeoTIFF from above with pixels of this size.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="N pictures along a smooth path through the cameras."
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option(metavar="FACTOR", help="Factor on the cameras' resolution.")
    ] = 1.0,
    layer: Annotated[
        list[Layer] | None, typer.Option(help="Also write this layer. Can be repeated.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the pictures as an .mp4; needs the program ffmpeg."
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(metavar="N", min=1, max=240, help="Pictures per second of the video.")
    ] = 25.0,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    renderer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=renderer_names,
            help="The renderer; `earthgen doctor` lists them.",
        ),
    ] = DEFAULT_RENDERER,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Draw what cameras see of a world, or a georeferenced image of it from above."""
    from earthgen.errors import JobError
    from earthgen.progress import Progress
    from earthgen.staging import staged_file
    from earthgen.world.world import open_world

    if [camera is None, orbit is None, ortho is None].count(False) != 1:
        raise JobError("--camera, --orbit and --ortho exclude each other", "give one of the three")
    if video is not None and video.suffix.lower() != ".mp4":
        raise JobError(f"--video {video} is not the name of a video", "use .mp4")
    if ortho is not None and out.suffix.lower() not in (".tif", ".tiff"):
        raise JobError(f"--out {out} is not the name of a GeoTIFF", "use .tif")
    opened = open_world(world)
    bounds = bounds_on(opened.frame, bbox, bbox_crs)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        if ortho is not None:
            from earthgen.render.ortho import write_ortho

            with staged_file(out, overwrite=overwrite) as part:
                write_ortho(opened, part, ortho, bounds=bounds, progress=Progress(show))
            files = [out]
        else:
            from earthgen.render.frames import write_frames

            chosen = ctx.obj.plugins.create("renderer", renderer)
            files = write_frames(
                opened,
                _cameras(opened, camera, orbit, frames, scale, bounds),
                out,
                chosen,
                bounds=bounds,
                layers=[one.value for one in layer or ()],
                video=video,
                fps=fps,
                overwrite=overwrite,
                progress=Progress(show),
            )
    sizes = [file.stat().st_size for file in files]
    if json_output:
        listed = [{"path": file, "bytes": size} for file, size in zip(files, sizes, strict=True)]
        say_json({"files": listed, "renderer": None if ortho is not None else renderer})
    elif not quiet:
        say(f"{out}  {len(files)} file{'s' * (len(files) != 1)}, {bytes_text(sum(sizes))}")


def _cameras(
    world: World,
    file: Path | None,
    orbit: int | None,
    frames: int | None,
    scale: float,
    bounds: Bounds | None,
) -> list[Camera]:
    """The cameras of a file or of an orbit, interpolated and scaled."""
    from earthgen.render import frames as views
    from earthgen.splats.cameras.paths import interpolate, read_cameras

    if file is not None:
        cameras = read_cameras(file)
    else:
        cameras = views.orbit(world, orbit or 1, bounds=bounds)
    if frames is not None:
        cameras = interpolate(cameras, frames)
    return [camera.scaled(scale) for camera in cameras] if scale != 1 else cameras
