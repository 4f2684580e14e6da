"""The `earthgen` command: one module a command, and every error a line with an exit code.

Nothing heavy is imported before a command runs; tests/cli/test_cli.py keeps it so.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli import (
    batch,
    dataset,
    digest,
    doctor,
    evaluate,
    export,
    generate,
    info,
    legend,
    models,
    plan,
    plugins,
    preview,
    render,
    train,
    verify,
)
from earthgen_cli.output import say, say_error

if TYPE_CHECKING:
    from earthgen.plugins import Plugins

EXIT_CODES = {
    0: "done",
    1: "an unexpected error; also `doctor` found something broken that the main path needs",
    2: "the command line or the job file is wrong",
    3: "an input cannot be read or does not hold what it is used for",
    4: "the region or the CRS does not work, or does not meet the data",
    5: "a world or the disk: cannot be opened, exists already, is full; also `verify` found damage",
    6: "a plugin is unknown or broken",
    7: "the job is too large without --yes",
    8: "workers or a scheduler cannot be reached, or died again and again",
    9: "a computation with sparse tensors cannot be done: no such backend here, too little memory, voxels out of range",
    10: "Gaussians, cameras or pictures of them: wrong values or files, another CRS, too little memory",
    11: "a learned model, its conditions or its weights do not fit, or are damaged",
    12: "training: the loss is no number, a run or checkpoint does not fit, or there is nothing to train on",
    130: "interrupted; what is written stays valid",
}
"""The exit codes of every command; docs/reference/exit-codes.md lists them."""

# Click's base exception, which also prints usage errors. Newer typers bring their own copy of
# click, older ones import it, so its place in the ancestry of an exception that all of them export
# is the one stable name for it.
ClickError: type[Exception] = typer.BadParameter.__mro__[2]

COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate.generate,
    "plan": plan.plan,
    "batch": batch.batch,
    "info": info.info,
    "preview": preview.preview,
    "render": render.render,
    "export": export.export,
    "verify": verify.verify,
    "digest": digest.digest,
    "plugins": plugins.plugins,
    "legend": legend.legend,
    "models": models.models,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "doctor": doctor.doctor,
}

GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "dataset": (dataset.HELP, dataset.COMMANDS)
}
"""Commands of two words: what the first is for, and the second ones."""


@dataclass
class State:
    """What the commands find in their context."""

    plugins: Plugins
    plugin_dirs: tuple[Path, ...] = field(default_factory=tuple)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a name that the terminal cannot show must not end the run
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(words)
    debug = bool(os.environ.get("EARTHGEN_DEBUG"))
    try:
        return run(words)
    except KeyboardInterrupt:
        return interrupted(as_json)
    except ClickError as error:
        return usage_error(error, as_json)
    except Exception as error:  # noqa: BLE001 - the last place where an error can become a line
        if debug:
            import traceback

            traceback.print_exc()
        return other_error(error, as_json)


def run(words: list[str]) -> int:
    """Run the command line; errors pass through."""
    from earthgen.plugins import load

    folders, rest = plugin_folders(words)
    loaded = load(folders)
    app = build_app(loaded)
    hoisted = [word for folder in folders for word in ("--plugin-dir", str(folder))]
    command = typer.main.get_command(app)
    try:
        code = command.main(
            [*hoisted, *rest],
            prog_name="earthgen",
            standalone_mode=False,
            obj=State(loaded, tuple(folders)),
        )
    except typer.Abort:  # how some versions pass Ctrl-C on; the others pass exit code 130
        raise KeyboardInterrupt from None
    if code == 130:
        raise KeyboardInterrupt
    return code if type(code) is int else 0


def build_app(loaded: Plugins | None = None) -> typer.Typer:
    """The Typer application: the built-in commands, and those of plugins."""
    # rich_markup_mode None: help without rich, whose import would take longer than all the rest of
    # `--help`.
    app = typer.Typer(
        name="earthgen",
        help="Georeferenced 3D worlds from GIS layers.",
        epilog="Exit codes: "
        + "; ".join(f"{code} {text.split(';')[0]}" for code, text in EXIT_CODES.items())
        + ".",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback(invoke_without_command=True)(root)
    for name, function in COMMANDS.items():
        app.command(name)(function)
    for name, (text, commands) in GROUPS.items():
        group = typer.Typer(help=text, rich_markup_mode=None, no_args_is_help=True)
        for word, function in commands.items():
            group.command(word)(function)
        app.add_typer(group, name=name)
    if loaded is not None:
        loaded.add_commands(app)
    return app


def root(
    ctx: typer.Context,
    plugin_dir: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Also load the .py files of this folder as plugins. May stand anywhere, and repeat.",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    # `main` reads --plugin-dir itself, since plugins can add commands; here it is for the help.
    if version:
        from earthgen import __version__

        say(f"earthgen {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())
        raise typer.Exit(2)


def plugin_folders(words: list[str]) -> tuple[list[Path], list[str]]:
    """(values of --plugin-dir, the other words), wherever the option stands."""
    folders: list[Path] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            return folders, [*rest, word, *waiting]
        name, equals, value = word.partition("=")
        if name != "--plugin-dir":
            rest.append(word)
            continue
        value = value if equals else next(waiting, "")
        if not value:
            raise typer.BadParameter("--plugin-dir needs a folder")
        folders.append(Path(value))
    return folders, rest


def wants_json(words: Sequence[str]) -> bool:
    """Whether errors are to be JSON, from the bare words: the error may be that they cannot be
    parsed."""
    return (
        "--json" in words
        or "--progress=json" in words
        or ("--progress", "json") in itertools.pairwise(words)
    )


def interrupted(as_json: bool) -> int:
    say_error(
        "interrupted; what is written stays valid, continue with --resume",
        "",
        "KeyboardInterrupt",
        130,
        as_json,
    )
    return 130


def usage_error(error: Exception, as_json: bool) -> int:
    # Every ClickException has these two; a context only where the command was known.
    message: str = error.format_message()  # type: ignore[attr-defined]
    code: int = error.exit_code  # type: ignore[attr-defined]
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "earthgen"
    say_error(message, f"`{path} --help` lists the options", type(error).__name__, code, as_json)
    return code


def other_error(error: Exception, as_json: bool) -> int:
    from earthgen.files import failures
    from geo_io.errors import EarthgenError

    kind = type(error).__name__
    if isinstance(error, EarthgenError):
        say_error(error.problem, error.remedy, kind, error.exit_code, as_json)
        return error.exit_code
    if isinstance(error, OSError) and error.errno is not None:
        problem, remedy = disk_error(error)
        say_error(problem, remedy, kind, 5, as_json)
        return 5
    if isinstance(error, failures()):
        problem = f"the object store cannot be used: {str(error).rstrip('.')}"
        say_error(problem, "check the URL, your credentials and your rights", kind, 5, as_json)
        return 5
    detail = str(error).strip() or "no message"
    remedy = (
        ""
        if os.environ.get("EARTHGEN_DEBUG")
        else "run again with EARTHGEN_DEBUG=1 for the traceback"
    )
    say_error(f"unexpected {kind}: {detail}", remedy, kind, 1, as_json)
    return 1


def disk_error(error: OSError) -> tuple[str, str]:
    """(problem, remedy) of an error of the operating system."""
    problem = str(error.strerror or error)
    if error.filename is not None:
        problem = f"{os.fsdecode(error.filename)}: {problem}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem, "free some space and continue with --resume; what is written stays valid"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return problem, "choose a place you may write to, or change its permissions"
    if error.errno == errno.EMFILE:
        return problem, "raise the limit on open files (ulimit -n)"
    return problem, ""


if __name__ == "__main__":
    sys.exit(main())
