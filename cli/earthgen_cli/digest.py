"""`earthgen digest`: what a world holds, as one line to compare."""

from __future__ import annotations

from typing import Annotated

import typer

from earthgen_cli.options import JsonOutput, WorldArgument
from earthgen_cli.output import count_text, say, say_json
from earthgen_cli.progress import WARNING


def digest(
    world: WorldArgument,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="From the data itself, all of it, rather than from the index."
        ),
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Print the digest of a world's content.

    Worlds of the same content have the same, however they were made: in tiles of any size, by any
    number of workers.
    """
    from earthgen.world.world import open_world

    opened = open_world(world)
    found, missing = opened.digest(recompute=recompute), opened.missing
    if missing and not json_output:
        unfinished = f"{world} lacks {count_text(missing, 'tile')}"
        say(f"{WARNING}{unfinished}: this is the digest of those that are there", err=True)
    if json_output:
        say_json(
            {"world": world, "digest": found, "recomputed": recompute, "tiles_missing": missing}
        )
    else:
        say(found)
