"""Arguments and options that several commands take; those of a job are in `job_options`."""

from __future__ import annotations

from typing import Annotated

import typer

from earthgen_cli.progress import Mode

WorldArgument = Annotated[
    str,
    typer.Argument(
        metavar="WORLD",
        help="A world, such as world.zarr, or the URL of one: s3://bucket/world.zarr.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
ProgressMode = Annotated[Mode, typer.Option(help="How progress is shown on stderr.")]
