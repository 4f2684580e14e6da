"""Arguments and options that several commands take; those of a job are in `job_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthgen_cli.progress import Mode


def existing_world(path: str | None) -> str | None:
    """Check that a world's folder exists, which costs nothing, before anything is imported.

    Raises
    ------
    StoreError
        Naming the most similar folder beside it.
    """
    if path is None or "://" in path or Path(path).exists():
        return path
    from earthgen.errors import StoreError

    raise StoreError(
        f"world {path} does not exist{similar_file(Path(path))}", "make it with `earthgen generate`"
    )


def similar_file(path: Path) -> str:
    """Return a hint such as "; did you mean 'landuse.shp'?", or "" if nothing beside it is."""
    from geo_io.errors import nearest_name

    try:
        beside = [child.name for child in path.parent.iterdir()]
    except OSError:
        return ""
    return nearest_name(path.name, beside)


WORLD_HELP = "A world, such as world.zarr, or the URL of one: s3://bucket/world.zarr."

WorldArgument = Annotated[
    str,
    typer.Argument(metavar="WORLD", callback=existing_world, help=WORLD_HELP),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
ProgressMode = Annotated[Mode, typer.Option(help="How progress is shown on stderr.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
