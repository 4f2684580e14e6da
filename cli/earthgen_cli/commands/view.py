"""`earthgen view`: worlds in the browser."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_warning
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.world.world import World
    from geo_io.frame import Bounds

FINEST = ((1.5e6, 1), (8e6, 2), (60e6, 4))
"""The finest level shown of worlds up to so many square metres, if none is given: its tiles take a
minute or less to make. Larger ones are shown at level 8."""

KEPT_DAYS = 30
"""Tiles that nobody looked at for so long are removed."""


def view(
    ctx: typer.Context,
    worlds: Annotated[
        list[str],
        typer.Argument(
            metavar="WORLD [WORLD]",
            help="A world, or two of the same place with a slider between them; or a folder that "
            "`earthgen export --format html` wrote.",
        ),
    ],
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    level: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|4|8",
            help="Finest level to show, in multiples of the voxel size. By default what a minute "
            "is enough for: 1 up to 1.5 km², 2 up to 8 km².",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="Processes that make tiles.")
    ] = 1,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; by default a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Look at a world in the browser, until Ctrl-C.

    Its tiles are made once and kept in the cache. The page is served to this computer only, and
    asks no other one for anything.
    """
    from earthgen.errors import JobError
    from earthgen_cli.serving import open_server

    if len(worlds) > 2:
        raise JobError(f"{len(worlds)} worlds are given", "give one, or two to compare them")
    folder = Path(worlds[0])
    if len(worlds) > 1 or not (folder / "index.html").is_file():
        with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
            folder = make_page(ctx, worlds, bbox, bbox_crs, level, workers, show)
    server = open_server(folder, port)
    if json_output:
        say_json({"url": server.url, "folder": folder})
    elif not quiet:
        say(f"{server.url}  (Ctrl-C ends)")
    if browser and not open_browser(server.url):
        say_warning(f"no browser could be opened; open {server.url} yourself")
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        server.server_close()


def make_page(
    ctx: typer.Context,
    worlds: list[str],
    bbox: str | None,
    bbox_crs: str,
    level: int | None,
    workers: int,
    show: Any,
) -> Path:
    """Return the folder of the page, which is made if the cache does not have it."""
    from earthgen.errors import JobError
    from earthgen.progress import Progress
    from earthgen.render.export import export_world
    from earthgen.voxels.tile import LEVELS
    from earthgen.world.world import open_world

    if level is not None and level not in LEVELS:
        raise JobError(
            f"--level {level} is not one of {', '.join(map(str, LEVELS))}",
            "1 is the world's voxel size",
        )
    opened = [open_world(world) for world in worlds]
    bounds = bounds_on(opened[0].frame, bbox, bbox_crs)
    finest = level or finest_level(opened[0], bounds)
    report = Progress(show)
    place = views_folder() / page_key(opened, worlds, bounds, finest)
    if not (place / "index.html").is_file():
        remove_unused(place.parent)
        if finest > (level or 1):
            report.say(f"the finest tiles are of level {finest}; `--level 1` makes all")
        beside = worlds[1] if len(worlds) > 1 else ""
        options = {"one_file": False, "beside": beside, "workers": workers}
        export_world(
            opened[0],
            "html",
            place,
            options=options,
            bounds=bounds,
            level=finest,
            overwrite=True,
            progress=report,
            plugins=ctx.obj.plugins,
        )
    (place / "index.html").touch()
    return place


def finest_level(world: World, bounds: Bounds | None) -> int:
    """Return the finest level whose tiles are made while one waits."""
    frame = world.part(1, bounds)
    left, bottom, right, top = frame.bounds
    cells = (right - left) * (top - bottom) / frame.voxel_size**2
    return next((level for most, level in FINEST if cells <= most), max(world.levels))


def page_key(opened: list[World], paths: list[str], bounds: Bounds | None, level: int) -> str:
    """Return a name for what the page of these worlds shows; equal contents share a page."""
    from earthgen._version import __version__

    what = [__version__, [world.digest() for world in opened], paths, bounds, level]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def views_folder() -> Path:
    """Return the folder of pages in the cache."""
    from geo_io.cache import cache_folder

    folder = cache_folder().parent / "views"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_unused(folder: Path) -> None:
    """Remove pages that nobody opened for `KEPT_DAYS`."""
    oldest = time.time() - KEPT_DAYS * 86400
    for page in folder.glob("*/index.html"):
        if page.stat().st_mtime < oldest:
            shutil.rmtree(page.parent, ignore_errors=True)


def open_browser(url: str) -> bool:
    """Open an address in the user's browser; False if there is none."""
    import webbrowser

    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
