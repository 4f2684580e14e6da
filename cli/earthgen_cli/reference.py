"""docs/reference/cli.md, written from the application itself: `python -m earthgen_cli.reference`
prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from earthgen_cli.main import EXIT_CODES, build_app

JOB_EXAMPLE = """\
bbox = [11.585, 49.992, 11.595, 49.998]
semantics = ["landuse.gpkg:landuse", "buildings.shp"]
legend = ["osm"]
dem = "dem.tif"
dem_unit = "m"
voxel_size = 1.0
seed = 7
out = "town.zarr"
"""

INTRODUCTION = """\
# The command line

`earthgen` has a command for each step. This page is made from the program itself
(`python -m earthgen_cli.reference`), and a test keeps it up to date.

```console
$ earthgen plan --bbox 11.585,49.992,11.595,49.998 --semantics landuse.shp --out town.zarr
$ earthgen generate --bbox 11.585,49.992,11.595,49.998 --semantics landuse.shp --out town.zarr --workers 2
$ earthgen generate --bbox 11.595,49.992,11.600,49.998 --out town.zarr --extend
$ earthgen verify town.zarr --sample 1
$ earthgen info town.zarr
$ earthgen preview town.zarr --out town.png --view oblique
$ earthgen render town.zarr --orbit 8 --scale 0.5 --out turn --video turn.mp4
$ earthgen render town.zarr --ortho 0.5 --out ortho.tif
$ earthgen export town.zarr --format cog --out town-cog
```
"""

SCRIPTS = """\
## For scripts

- Results go to stdout, everything else (progress, warnings, errors) to stderr.
- `--quiet` prints errors only. `--json` prints the result as one JSON object, without a progress bar.
- `--progress json` prints JSON lines to stderr. `eta` (seconds) and `rate` (steps a second) are null until the first
  step is finished. Without a terminal, a line of text every ten seconds takes the place of the bar.
- Events of `earthgen batch` also have `region`, the name of the region that they are of.
- An error is one line, `error: what is wrong. What to do.`; with `--json` or `--progress json` it is a JSON object.
- Ctrl-C, a full disk or a lost machine leaves what is written valid. `earthgen generate --out WORLD --resume` goes on
  from there: it knows the settings.
- Colours are left out where stdout is no terminal or `NO_COLOR` is set. `EARTHGEN_DEBUG=1` prints tracebacks.
- `EARTHGEN_LOAD_PLUGINS` restricts the plugins that other packages bring: empty for none, or names with commas.

```json
{"event": "progress", "task": "generate", "done": 3, "total": 16, "seconds": 2.1, "eta": 9.1, "rate": 1.43, "note": ""}
{"event": "warning", "task": "generate", "warning": "what to know"}
{"event": "message", "task": "generate", "message": "Dask dashboard: http://127.0.0.1:8787/status"}
{"error": "what is wrong", "remedy": "what to do", "type": "RegionError", "exit_code": 4}
```
"""

JOB_FILES = """\
## Job files

`earthgen generate job.toml` reads its settings from a file; options given beside it override it. `--condition` and
`--set` override one by one, `--plugin-dir` adds to the file's. Relative paths are relative to the file.

```toml
{example}```

Keys are the options' names with `_` for `-`. Besides: `--condition NAME=FILE` is a line of the table
`[conditions]`; `--set geometry.KEY=VALUE` is a line of `[geometry_options]`, `--set texture.KEY=VALUE` of
`[texture_options]`; `band = [-16, 496]` is the range of heights, in metres above the ground, that voxels can have.
"""


def reference() -> str:
    """The whole page, in Markdown. Commands of plugins are left out."""
    group: Any = typer.main.get_command(
        build_app()
    )  # the classes behind typer differ between its versions
    top = group.make_context("earthgen", [], resilient_parsing=True)
    parts = [INTRODUCTION, "## Options of all commands\n", options(group, top), "## Commands\n"]
    for name, command, context in each_command(group, top):
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [f"### earthgen {name}\n", f"```text\n{' '.join(usage.split())}\n```\n"]
        parts += [paragraph(text) for text in command.help.split("\n\n")]
        parts.append(options(command, context))
    parts += [JOB_FILES.format(example=JOB_EXAMPLE), "## Exit codes\n", exit_codes(), SCRIPTS]
    return "\n".join(parts).rstrip() + "\n"


def each_command(group: Any, parent: Any, before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, command, its context) of all commands, those of groups by both words."""
    for word, command in group.commands.items():
        context = command.make_context(word, [], parent=parent, resilient_parsing=True)
        if hasattr(command, "commands"):
            yield from each_command(command, context, f"{before}{word} ")
        else:
            yield f"{before}{word}", command, context


def options(command: Any, context: Any) -> str:
    """A table of a command's arguments and options."""
    rows = ["| | |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            spelling, text = record
            rows.append(f"| `{escape(spelling)}` | {escape(' '.join(text.split()))} |")
    return "\n".join(rows) + "\n"


def exit_codes() -> str:
    rows = [f"| {code} | {text} |" for code, text in EXIT_CODES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows]) + "\n"


def paragraph(text: str) -> str:
    return " ".join(text.split()) + "\n"


def escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
