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
ProgressMode = Annotated[Mode, typer.Option(help="How progress is shown, on stderr.")]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=1024, help="How many work at a time; else 1.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|ADDRESS",
        help="Where they work: processes, threads, dask, or a Dask scheduler such as tcp://host:8786; "
        "else processes of this machine.",
    ),
]
