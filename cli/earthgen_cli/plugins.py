"""`earthgen plugins`: what is plugged in."""

from __future__ import annotations

from typing import Annotated

import typer

from earthgen_cli.output import say, say_json


def plugins(
    ctx: typer.Context,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print it as one JSON object.")
    ] = False,
) -> None:
    """List the plugins.

    With version, hooks, licences of code and of weights, source, and why one was skipped.
    """
    rows = ctx.obj.plugins.listing()
    if json_output:
        listed = [
            {
                "name": row.info.name,
                "version": row.info.version,
                "summary": row.info.summary,
                "licence": row.info.licence,
                "weights_licence": row.info.weights_licence,
                "hooks": row.hooks,
                "source": row.source,
                "error": row.error,
            }
            for row in rows
        ]
        say_json({"plugins": listed})
        return
    for row in rows:
        say(f"{typer.style(row.info.name, bold=True)} {row.info.version}")
        if row.info.summary:
            say(f"  {row.info.summary}")
        say(f"  licence  {row.info.licence}; weights: {row.info.weights_licence}")
        if row.hooks:
            say(f"  hooks    {', '.join(row.hooks)}")
        say(f"  source   {row.source}")
        if row.error:
            say(f"  {typer.style('skipped', fg=typer.colors.RED)}  {row.error}")
