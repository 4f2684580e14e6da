"""`earthgen demo`: a world of a real place, from data that comes with earthgen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.commands.generate import TileCounter, report_values, say_report
from earthgen_cli.options import JsonOutput, Overwrite, ProgressMode, Quiet
from earthgen_cli.output import say, say_json
from earthgen_cli.progress import Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.generate import Report
    from earthgen.progress import Listener

BOX = (11.5935, 50.0065, 11.5985, 50.0097)
"""A village north of Bayreuth with its fields, about 360 m x 360 m."""

SMALL_BOX = (11.5950, 50.0075, 11.5964, 50.0084)
"""About 100 m x 100 m of it, with houses, a road and trees."""


def demo(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="WORLD", help="The world to write.")
    ] = Path("demo.zarr"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Generate a small world of a real place, from data that comes with earthgen.

    The data are a few square kilometres of OpenStreetMap and SRTM; nothing is downloaded.
    """
    from earthgen.jobs.sample import SAMPLE_CREDIT, sample_data

    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        counter = TileCounter(show)
        report = make_demo(out, counter, overwrite=overwrite)
    if json_output:
        say_json(report_values(report, counter.tiles))
    elif not quiet:
        say_report(report, counter.tiles)
        say(f"data  {SAMPLE_CREDIT}; the files: {sample_data()}")


def make_demo(
    out: Path, listener: Listener, *, overwrite: bool = False, small: bool = False
) -> Report:
    """Generate the world of the demo.

    Parameters
    ----------
    out : Path
    listener : callable
        Gets the events.
    overwrite : bool
        Replace the world at `out`.
    small : bool
        Only about a hundred metres of it.
    """
    from earthgen.jobs.generate import run
    from earthgen.jobs.job import make_job
    from earthgen.jobs.sample import SAMPLE_CREDIT, sample_data

    data = sample_data()
    settings: dict[str, Any] = {
        "bbox": SMALL_BOX if small else BOX,
        "semantics": [
            data / "landuse.shp",
            f"{data / 'osm.gpkg'}:lines",
            f"{data / 'osm.gpkg'}:buildings",
        ],
        "dem": data / "srtm3.tif",
        "attribution": [SAMPLE_CREDIT],
        "out": out,
        "overwrite": overwrite,
    }
    return run(make_job(settings), listener)
