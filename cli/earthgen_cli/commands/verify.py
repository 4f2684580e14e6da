"""`earthgen verify`: whether a world on disk is as it was generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.job_options import JOB, merge_stored, read_conditions
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet, WorldArgument
from earthgen_cli.output import (
    count_text,
    say,
    say_json,
    say_pairs,
    say_table,
    say_warning,
    shell_quoted,
)
from earthgen_cli.progress import Mode, display
from earthgen_cli.settings import OptionStyle, Settings

if TYPE_CHECKING:
    from earthgen.jobs.verify import Verification


MOVED = "Replaces the world's own input, for example if the file was moved."

SETTINGS = Settings(
    JOB.model,
    {
        "semantics": OptionStyle("FILE[:LAYER]", help=MOVED),
        "dem": OptionStyle("FILE", help=MOVED),
        "dsm": OptionStyle("FILE", help=MOVED),
        "image": OptionStyle("FILE", help=MOVED),
        "conditions": Annotated[
            list[str] | None,
            typer.Option("--condition", metavar="NAME=FILE", help=f"{MOVED} Can be repeated."),
        ],
        "workers": JOB.styles["workers"],
        "scheduler": JOB.styles["scheduler"],
        "allow_network": JOB.styles["allow_network"],
        "allow_linked": JOB.styles["allow_linked"],
    },
)


def verify(
    ctx: typer.Context,
    world: WorldArgument,
    sample: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Make N tiles again from the inputs and compare."),
    ] = 0,
    no_mark: Annotated[
        bool,
        typer.Option(
            "--no-mark",
            help="Do not mark bad tiles, so that --resume does not make them again.",
        ),
    ] = False,
    *,
    typed: Annotated[dict[str, Any], SETTINGS],
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Check that a world is as it was generated.

    The whole world is read and compared with its checksums. With --sample, tiles are also made
    again from the inputs and compared. The exit code is 0 if the world is intact, else 5.
    """
    from earthgen.errors import StoreError
    from earthgen.jobs import verify as verification
    from earthgen.world.world import open_world

    opened = open_world(world)
    settings = dict(typed)
    run = {name: settings.pop(name) for name in ("workers", "scheduler") if name in settings}
    if ctx.obj.plugin_dirs:
        settings["plugin_dir"] = list(ctx.obj.plugin_dirs)
    if "conditions" in settings:
        settings["conditions"] = read_conditions(settings["conditions"])
    if sample:
        settings = merge_stored(settings, opened.settings, world)
    with display(ctx, progress, quiet=quiet, json_output=json_output) as show:
        result = verification.verify(
            world,
            sample=sample,
            mark=not no_mark,
            settings=settings,
            listener=show,
            **run,
        )
    missing = opened.missing
    if json_output:
        say_json({"world": world, **verification_values(result, missing)})
    elif not quiet:
        say_verification(world, result, missing)
    if missing and not (quiet or json_output):
        say_warning(f"{world} lacks {count_text(missing, 'tile')}; --resume makes them")
    if not result.sound:
        bad = len(result.damaged) + len(result.different)
        raise StoreError(
            f"{bad:,} of {count_text(result.checked, 'tile')} of {world} are not as generated",
            next_step(world, result),
        )


def next_step(world: str, result: Verification) -> str:
    """Return how to repair a world."""
    repair = f"`earthgen generate --out {shell_quoted(world)} --resume`"
    return (
        f"make them again: {repair}"
        if result.marked
        else f"run it without --no-mark, then {repair}"
    )


def verification_values(result: Verification, missing: int) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "sound": result.sound,
        "checked": result.checked,
        "tiles_missing": missing,
        "damaged": [{"tile": tile, "problem": problem} for tile, problem in result.damaged.items()],
        "compared": result.compared,
        "different": result.different,
        "marked": result.marked,
    }


def say_verification(world: str, result: Verification, missing: int) -> None:
    """Print the result and a table of the bad tiles."""
    say_pairs(
        [
            ("world", world),
            ("checked", count_text(result.checked, "tile")),
            ("damaged", f"{len(result.damaged):,}"),
            *(
                [("compared", f"{count_text(len(result.compared), 'tile')} made again")]
                if result.compared
                else []
            ),
            *([("different", f"{len(result.different):,}")] if result.compared else []),
            *([("missing", count_text(missing, "tile"))] if missing else []),
            *([("marked", "yes: --resume makes them again")] if result.marked else []),
            ("result", "intact" if result.sound else "not intact"),
        ]
    )
    if not result.sound:
        say()
        rows = [(*map(str, tile), problem) for tile, problem in result.damaged.items()]
        rows += [(*map(str, tile), "differs when it is made again") for tile in result.different]
        say_table(("tile x", "tile y", "what is wrong"), rows)
