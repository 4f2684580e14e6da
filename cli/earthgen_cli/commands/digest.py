"""`earthgen digest`: one line that identifies the content of a world."""

from __future__ import annotations

from typing import Annotated

import typer

from earthgen_cli.options import JsonOutput, WorldArgument
from earthgen_cli.output import count_text, say, say_json, say_warning


def digest(
    world: WorldArgument,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Compute it from all of the data instead of from the index."
        ),
    ] = False,
    json_output: JsonOutput = False,
) -> None:
    """Print the digest of a world's content.

    Worlds with the same content have the same digest, with any tile size and number of workers.
    """
    from earthgen.world.world import open_world

    opened = open_world(world)
    value, missing = opened.digest(recompute=recompute), opened.missing
    if missing and not json_output:
        say_warning(
            f"{world} lacks {count_text(missing, 'tile')}: this is the digest of the others"
        )
    if json_output:
        say_json(
            {"world": world, "digest": value, "recomputed": recompute, "tiles_missing": missing}
        )
    else:
        say(value)
