"""`earthgen view`: worlds in the browser."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from functools import partial
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
        int,
        typer.Option(
            metavar="1|2|4|8",
            help="Finest level to show, in multiples of the voxel size.",
        ),
    ] = 1,
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

    Its tiles are made when the page asks for them, and kept in the cache. The page is served to
    this computer only, and asks no other one for anything.
    """
    from earthgen.errors import JobError
    from earthgen_cli.serving import open_server

    if len(worlds) > 2:
        raise JobError(f"{len(worlds)} worlds are given", "give one, or two to compare them")
    folder = Path(worlds[0])
    live: dict[str, Any] = {}
    if len(worlds) > 1 or not (folder / "index.html").is_file():
        with display(ctx, progress, quiet=quiet, json_output=json_output):
            folder, live = make_page(ctx, worlds, bbox, bbox_crs, level, workers)
    server = open_server(folder, port, partial(make_tile, live) if live else None)
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
        for tiles in live.values():
            tiles.close()


def make_tile(live: Mapping[str, Any], path: str) -> None:
    """Make the tile that is asked for, of the tiles in folders of the page."""
    for folder, tiles in live.items():
        if path.startswith(f"{folder}/"):
            tiles.make(path.removeprefix(f"{folder}/"))


def make_page(
    ctx: typer.Context,
    worlds: list[str],
    bbox: str | None,
    bbox_crs: str,
    level: int,
    workers: int,
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the page, and its tiles, by their folders, which are made on demand."""
    from earthgen.errors import JobError
    from earthgen.voxels.tile import LEVELS
    from earthgen.world.world import open_world

    if level not in LEVELS:
        raise JobError(
            f"--level {level} is not one of {', '.join(map(str, LEVELS))}",
            "1 is the world's voxel size",
        )
    opened = [open_world(world) for world in worlds]
    bounds = bounds_on(opened[0].frame, bbox, bbox_crs)
    opened[0].part(level, bounds)  # what is wrong with the region is said before a folder is made
    beside = worlds[1] if len(worlds) > 1 else ""
    exporter = ctx.obj.plugins.create(
        "exporter", "html", one_file=False, beside=beside, workers=workers
    )
    place = views_folder() / page_key(opened, worlds, bounds, level, exporter.page_version)
    remove_unused(place.parent)
    place.mkdir(exist_ok=True)
    live: dict[str, Any] = exporter.open_live(opened[0], place, bounds=bounds, level=level)
    (place / "index.html").touch()
    return place, live


def page_key(
    opened: list[World], paths: list[str], bounds: Bounds | None, level: int, version: str
) -> str:
    """Return a name for what the page of these worlds shows; equal contents share a page."""
    from earthgen._version import __version__

    what = [__version__, version, [world.digest() for world in opened], paths, bounds, level]
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
