"""`earthgen verify`: is a world on disk what it was made as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.job_options import filled, read_conditions
from earthgen_cli.options import JsonOutput, ProgressMode, Quiet, Scheduler, Workers, WorldArgument
from earthgen_cli.output import count_text, say, say_json, say_pairs, say_table, shell_quoted
from earthgen_cli.progress import WARNING, Mode, display

if TYPE_CHECKING:
    from earthgen.jobs.verify import Verification


def moved(metavar: str, *, repeats: bool = False) -> Any:
    """An option for an input that is no longer where the world's settings say."""
    return typer.Option(
        metavar=metavar,
        help=f"Instead of the world's own, where it has moved.{' Repeats.' * repeats}",
    )


def verify(
    ctx: typer.Context,
    world: WorldArgument,
    sample: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Make N tiles again from the inputs, and compare."),
    ] = 0,
    semantics: Annotated[list[str] | None, moved("FILE[:LAYER]", repeats=True)] = None,
    dem: Annotated[str | None, moved("FILE")] = None,
    dsm: Annotated[str | None, moved("FILE")] = None,
    image: Annotated[str | None, moved("FILE")] = None,
    condition: Annotated[list[str] | None, moved("NAME=FILE", repeats=True)] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    no_mark: Annotated[
        bool,
        typer.Option(
            "--no-mark",
            help="Leave bad tiles as they are, so that --resume does not make them again.",
        ),
    ] = False,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
    progress: ProgressMode = Mode.AUTO,
) -> None:
    """Check that a world is what it was made as.

    All of it is read and compared with its checksums; with --sample, tiles are also made again from
    the inputs and compared. Exit code 0 if the world is sound, else 5.
    """
    from earthgen.errors import StoreError
    from earthgen.jobs import verify as verification
    from earthgen.world.world import open_world

    opened = open_world(world)
    given = {"semantics": semantics, "dem": dem, "dsm": dsm, "image": image}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value}
    if ctx.obj.plugin_dirs:
        settings["plugin_dir"] = list(ctx.obj.plugin_dirs)
    conditions = read_conditions(condition or [])
    if conditions:
        settings["conditions"] = conditions
    if sample:
        settings = filled(settings, opened.settings, world)
    with display(progress, quiet=quiet, json_output=json_output) as show:
        found = verification.verify(
            world,
            sample=sample,
            mark=not no_mark,
            workers=workers or 1,
            scheduler=scheduler,
            settings=settings,
            listener=show,
        )
    missing = opened.missing
    if json_output:
        say_json({"world": world, **verification_values(found, missing)})
    elif not quiet:
        say_verification(world, found, missing)
    if missing and not (quiet or json_output):
        say(
            f"{WARNING}{world} lacks {count_text(missing, 'tile')}; --resume makes what is missing",
            err=True,
        )
    if not found.sound:
        bad = len(found.damaged) + len(found.different)
        raise StoreError(
            f"{world} is not what it was made as: {bad:,} of {count_text(found.checked, 'tile')}",
            next_step(world, found),
        )


def next_step(world: str, found: Verification) -> str:
    repair = f"`earthgen generate --out {shell_quoted(world)} --resume`"
    return (
        f"make them again: {repair}" if found.marked else f"run it without --no-mark, then {repair}"
    )


def verification_values(found: Verification, missing: int) -> dict[str, Any]:
    """What --json prints."""
    return {
        "sound": found.sound,
        "checked": found.checked,
        "tiles_missing": missing,
        "damaged": [{"tile": tile, "problem": problem} for tile, problem in found.damaged.items()],
        "compared": found.compared,
        "different": found.different,
        "marked": found.marked,
    }


def say_verification(world: str, found: Verification, missing: int) -> None:
    say_pairs(
        [
            ("world", world),
            ("checked", count_text(found.checked, "tile")),
            ("damaged", f"{len(found.damaged):,}"),
            *(
                [("compared", f"{count_text(len(found.compared), 'tile')} made again")]
                if found.compared
                else []
            ),
            *([("different", f"{len(found.different):,}")] if found.compared else []),
            *([("missing", count_text(missing, "tile"))] if missing else []),
            *([("marked", "yes: --resume makes them again")] if found.marked else []),
            ("result", "sound" if found.sound else "not sound"),
        ]
    )
    if not found.sound:
        say()
        rows = [(*map(str, tile), problem) for tile, problem in found.damaged.items()]
        rows += [
            (*map(str, tile), "comes out otherwise when it is made again")
            for tile in found.different
        ]
        say_table(("tile x", "tile y", "what is wrong"), rows)
