"""`earthgen compare`: two worlds of one place beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earthgen_cli.bbox import BBOX_CRS_HELP, BBOX_HELP, LON_LAT, bounds_on, checked_bbox
from earthgen_cli.options import JsonOutput, Overwrite, ProgressMode, Quiet
from earthgen_cli.output import say, say_json, say_table
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.evaluation.compare import Comparison


def compare(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="A world.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another world of the place.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for a GeoTIFF of the differences, pictures, and an HTML page.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", callback=checked_bbox, help=BBOX_HELP)
    ] = None,
    bbox_crs: Annotated[str, typer.Option(metavar="CRS", help=BBOX_CRS_HELP)] = LON_LAT,
    level: Annotated[int, typer.Option(metavar="1|2|4|8", help="Coarser by this factor.")] = 1,
    renderer: Annotated[
        str, typer.Option(metavar="NAME", help="The renderer of the pictures.")
    ] = "zbuffer",
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Compare two worlds of one place: areas by class, buildings, trees, heights.

    Such as two outcomes of one map (`generate --outcomes`), or before and after a change.
    """
    from earthgen.evaluation.compare import NAMES, write_comparison
    from earthgen.evaluation.compare import compare as compare_worlds
    from earthgen.progress import Progress
    from earthgen.staging import staged_folder
    from earthgen.world.world import open_world

    worlds = open_world(first), open_world(second)
    bounds = bounds_on(worlds[0].frame, bbox, bbox_crs)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        told = Progress(show)
        if out is None:
            made = compare_worlds(*worlds, bounds=bounds, level=level, progress=told)
        else:
            drawer = ctx.obj.plugins.create("renderer", renderer)
            with staged_folder(out, overwrite=overwrite, earlier=NAMES) as folder:
                made = write_comparison(
                    *worlds, folder, renderer=drawer, bounds=bounds, level=level, progress=told
                )
    if json_output:
        files = [] if out is None else [out / name for name in NAMES]
        say_json({**made.to_dict(), "files": files})
    elif not quiet:
        say_comparison(made)
        if out is not None:
            say(f"{out / 'report.html'}")


def say_comparison(made: Comparison) -> None:
    """Print a comparison as tables."""
    from earthgen.evaluation.compare import HECTARE

    heads = ("", *made.worlds)
    before, after = made.stocks

    def metres(value: float | None) -> str:
        return "none" if value is None else f"{value:.1f} m"

    def area(value: float, largest: float) -> str:
        if largest < HECTARE:
            return f"{value:,.0f} m2"
        return f"{value / HECTARE:,.2f} ha"

    say_table(
        heads,
        [
            *(
                (name.replace("_", " "), *(area(value, max(a, b)) for value in (a, b)))
                for name, (a, b) in sorted(made.areas.items(), key=lambda item: -max(item[1]))
            ),
            ("buildings", f"{before.buildings:,}", f"{after.buildings:,}"),
            ("footprints", f"{before.footprint:,.0f} m2", f"{after.footprint:,.0f} m2"),
            ("volume", f"{before.volume:,.0f} m3", f"{after.volume:,.0f} m3"),
            ("height", metres(before.building_height), metres(after.building_height)),
            ("trees", f"{before.trees:,}", f"{after.trees:,}"),
            ("height", metres(before.tree_height), metres(after.tree_height)),
        ],
    )
    say(
        f"{made.changed:.1%} of {made.area / 1e6:.3f} km2 have another class; surfaces differ by "
        f"{made.surface.mean_absolute:.2f} m in the mean, grounds by "
        f"{made.ground.mean_absolute:.2f} m"
    )
