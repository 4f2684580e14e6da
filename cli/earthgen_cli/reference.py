"""docs/reference/cli.md, generated from the commands: `python -m earthgen_cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from earthgen_cli.main import SplitCommand, build_group

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

`earthgen` has a command for each step. This page is generated from the program
(`python -m earthgen_cli.reference`), and a test keeps it up to date.

```console
$ earthgen plan --bbox 11.585,49.992,11.595,49.998 --semantics landuse.shp --out town.zarr
$ earthgen generate --bbox 11.585,49.992,11.595,49.998 --semantics landuse.shp --dry-run
$ earthgen generate --bbox 11.585,49.992,11.595,49.998 --semantics landuse.shp --out town.zarr
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

- Results go to stdout; progress, warnings and errors go to stderr.
- `--quiet` prints errors only. `--json` prints the result as one JSON object, without a progress
  bar.
- `--progress json` prints JSON lines to stderr. `eta` (seconds) and `rate` (steps per second) are
  null until the first step is finished. Without a terminal, a line of text every ten seconds
  replaces the bar.
- Events of `earthgen batch` also have `region`, the name of their region.
- An error is one line, `error: what is wrong. What to do.`; with `--json` or `--progress json` it
  is a JSON object. [Exit codes](exit-codes.md) lists the codes and the classes of errors.
- After Ctrl-C, a full disk or a lost machine, what is written is valid.
  `earthgen generate --out WORLD --resume` continues with the settings of the world.
- Colours are omitted if stdout is no terminal or `NO_COLOR` is set. `EARTHGEN_DEBUG=1` prints
  tracebacks.
- Each option can be given by an environment variable, `EARTHGEN_COMMAND_OPTION`, such as
  `EARTHGEN_GENERATE_VOXEL_SIZE=2` or `EARTHGEN_EXPORT_LEVEL=4`. The values of one that can be
  repeated have spaces between them. What is typed wins.
- `--verbose` prints each step as a line on stderr. `--log-file FILE` adds steps, warnings and
  errors with time and traceback to a file.
- `EARTHGEN_LOAD_PLUGINS` restricts the plugins of other packages: empty for none, or names
  separated by commas.

```json
{example_events}
```
"""

EVENTS = (
    '{"event": "progress", "task": "generate", "done": 3, "total": 16, "seconds": 2.1, '
    '"eta": 9.1, "rate": 1.43, "note": ""}',
    '{"event": "warning", "task": "generate", "warning": "the text"}',
    '{"event": "message", "task": "generate", '
    '"message": "Dask dashboard: http://127.0.0.1:8787/status"}',
    '{"error": "what is wrong", "remedy": "what to do", "type": "RegionError", "exit_code": 4}',
)

JOB_FILES = """\
## Job files

`earthgen generate job.toml` reads its settings from a file; options given beside it override
them. `--condition` and `--set` override key by key, `--plugin-dir` adds to the folders of the
file. Relative paths are relative to the file.

```toml
{example}```

Keys are the names of the options with `_` for `-`, with these exceptions: `--condition NAME=FILE`
is a line of the table `[conditions]`, `--set geometry.KEY=VALUE` a line of `[geometry_options]`,
and `--set texture.KEY=VALUE` a line of `[texture_options]`. `band = [-16, 496]` has no option: it
is the height range of voxels, in metres above the ground.
"""


def reference() -> str:
    """Return the whole page as Markdown, without the commands of plugins."""
    group: Any = build_group()  # the classes behind typer differ between its versions
    top = group.make_context("earthgen", [], resilient_parsing=True)
    parts = [INTRODUCTION, "## Options of all commands\n", options(top), "## Commands\n"]
    for name, context in each_command(top):
        usage = context.command.get_usage(context).removeprefix("Usage: ")
        parts += [f"### earthgen {name}\n", f"```text\n{' '.join(usage.split())}\n```\n"]
        parts += [f"{' '.join(text.split())}\n" for text in context.command.help.split("\n\n")]
        parts.append(options(context))
    parts += [
        JOB_FILES.format(example=JOB_EXAMPLE),
        SCRIPTS.replace("{example_events}", "\n".join(EVENTS)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def each_command(parent: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, context) of all commands, those of groups with both words."""
    for word, command in parent.command.commands.items():
        context = command.make_context(word, [], parent=parent, resilient_parsing=True)
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{before}{word}", context
            if isinstance(command, SplitCommand):
                for own in command.commands:
                    yield (
                        f"{before}{word} {own}",
                        command.make_context(word, [own], parent=parent, resilient_parsing=True),
                    )
            else:
                yield from each_command(context, f"{before}{word} ")
        else:
            yield f"{before}{word}", context


def options(context: Any) -> str:
    """Return a table of the arguments and options of a context's command."""
    rows = ["| | |", "|---|---|"]
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            spelling, text = record
            rows.append(f"| `{escape(spelling)}` | {escape(' '.join(text.split()))} |")
    return "\n".join(rows) + "\n"


def escape(text: str) -> str:
    """Escape the separator of Markdown tables."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
