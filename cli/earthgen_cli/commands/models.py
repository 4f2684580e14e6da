"""`earthgen models`: the sizes of the learned models, and the cost of a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from earthgen_cli.options import JsonOutput
from earthgen_cli.output import bytes_text, say, say_json, say_table

if TYPE_CHECKING:
    from earthgen.models.cost import PartCost


def models(
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="List this preset only: tiny, base or paper. Can be repeated."
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=64, help="Columns along an edge of the tile, instead of the preset's."
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """List the learned models of each preset: parameters, operations and memory per tile.

    The tile is the surface of a town. Operations are those of one step of a flow, or of encoding
    and decoding; conditions are encoded once per tile. Memory is an estimate for a forward pass in
    float32. Nothing is computed.
    """
    from dataclasses import asdict

    from earthgen.errors import ModelError
    from earthgen.models.cost import part_cost
    from earthgen.models.presets import PARTS, PRESETS

    if tile is not None and tile % 16:
        raise ModelError(f"--tile {tile} is not a multiple of 16", "give a multiple of 16")
    models = [part_cost(name, part, tile) for name in preset or reversed(PRESETS) for part in PARTS]
    if json_output:
        say_json({"models": [asdict(one) for one in models]})
        return
    say_table(
        ("preset", "model", "parameters", "tile", "voxels", "GFLOP", "conditions", "memory"),
        map(row, models),
    )
    for name in dict.fromkeys(one.preset for one in models):
        total = sum(one.parameters for one in models if one.preset == name)
        say(f"{name}: {millions(total)} parameters, {bytes_text(2 * total)} in bfloat16")


def row(one: PartCost) -> tuple[str, ...]:
    """Return the cells of one line of the table."""
    return (
        one.preset,
        one.part,
        millions(one.parameters),
        f"{one.tile} x {one.tile}",
        f"{one.voxels:,}",
        f"{one.flops / 1e9:,.1f}",
        f"{one.condition_flops / 1e9:,.1f}" if one.condition_flops else "",
        bytes_text(one.memory),
    )


def millions(count: int) -> str:
    """Return a number of parameters, such as "1.68 M"."""
    return f"{count / 1e6:,.2f} M"
