"""The `earthgen` command: one module per command, and every error as one line with an exit code.

Nothing heavy is imported before a command runs; tests/cli/test_main.py checks that.
"""

from __future__ import annotations

import errno
import inspect
import io
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from earthgen_cli.bbox import join_bbox
from earthgen_cli.commands import (
    batch,
    compare,
    dataset,
    demo,
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
    qgis,
    render,
    train,
    verify,
    view,
)
from earthgen_cli.log import log_error, start_log
from earthgen_cli.output import say, say_error
from earthgen_cli.settings import expanded, name_options, setting_options

if TYPE_CHECKING:
    from earthgen.plugins import Plugins

EXIT_CODES = {
    0: "success",
    1: "an unexpected error; also: `earthgen doctor` found a broken part that generation needs",
    2: "the command line, a job file, a recipe, or settings of a training or an evaluation are "
    "wrong",
    3: "an input cannot be read, or does not contain what it is used for",
    4: "the region or the CRS is not usable, or does not meet the data; a dataset has no such crop",
    5: "a world, a dataset or the disk: cannot be opened, exists already, is full; also: "
    "`earthgen verify` found damage",
    6: "a plugin is unknown or broken",
    7: "the job is very large and `--yes` was not given, or an operation needs more memory than is "
    "free",
    8: "workers or a scheduler cannot be reached, or failed repeatedly",
    9: "an operation on sparse tensors cannot be done, or its backend cannot run here",
    10: "Gaussians, cameras or pictures do not fit, or a rasteriser cannot run here",
    11: "a learned model, its conditions or its weights do not fit, are missing or are damaged",
    12: "training cannot start or continue: the loss is not finite, a checkpoint does not fit, "
    "there is nothing to train on",
    130: "interrupted by Ctrl-C; what has been written is valid",
}
"""The exit codes of all commands; docs/reference/exit-codes.md lists them with their classes."""

OBJECT_STORES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"}
)
"""Packages that speak to object stores."""

ENVIRONMENT = "EARTHGEN"
"""Beginning of the environment variables that give options: EARTHGEN_GENERATE_SEED."""

ROOT_OPTIONS = {"plugin_dir": "--plugin-dir"}
"""The options of `earthgen` itself, by the setting that errors name."""

# Click's base exception, which also prints usage errors. Newer versions of typer bring their own
# copy of click, older ones import it. Its place among the ancestors of an exception that all of
# them export is the one stable name for it.
ClickError: type[Exception] = typer.BadParameter.__mro__[2]

COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate.generate,
    "demo": demo.demo,
    "plan": plan.plan,
    "batch": batch.batch,
    "info": info.info,
    "preview": preview.preview,
    "view": view.view,
    "render": render.render,
    "compare": compare.compare,
    "export": export.export,
    "verify": verify.verify,
    "digest": digest.digest,
    "legend": legend.legend,
    "models": models.models,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "doctor": doctor.doctor,
}

GROUPS: dict[str, tuple[Callable[..., None], dict[str, Callable[..., None]]]] = {
    "plugins": (plugins.plugins, plugins.COMMANDS),
    "dataset": (dataset.dataset, dataset.COMMANDS),
    "qgis": (qgis.qgis, qgis.COMMANDS),
}
"""Commands of two words: the function of the first word, and the commands by the second."""


SPLIT: dict[str, dict[str, Callable[..., None]]] = {"train": {"compare": train.compare}}
"""Commands that a first argument replaces by another one."""


@dataclass
class State:
    """The object of every command's context."""

    plugins: Plugins
    plugin_dirs: tuple[Path, ...] = field(default_factory=tuple)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show must not end the run.
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(words)
    debug = bool(os.environ.get("EARTHGEN_DEBUG"))
    try:
        return run(words)
    except KeyboardInterrupt:
        return interrupted(as_json)
    except ClickError as error:
        return usage_error(error, as_json)
    except Exception as error:  # noqa: BLE001 - the last place to report it as one line
        log_error(error)
        if debug:
            import traceback

            traceback.print_exc()
        return other_error(error, as_json)


def run(words: list[str]) -> int:
    """Run the command line; errors pass through."""
    from earthgen.plugins import load

    folders, rest = plugin_folders(join_bbox(words))
    rest = start_log(rest)
    loaded = load(folders)
    options = [word for folder in folders for word in ("--plugin-dir", str(folder))]
    try:
        code = build_group(loaded).main(
            [*options, *rest],
            prog_name="earthgen",
            standalone_mode=False,
            auto_envvar_prefix=ENVIRONMENT,
            obj=State(loaded, tuple(folders)),
        )
    except typer.Abort:  # how some versions pass Ctrl-C on; the others pass exit code 130
        raise KeyboardInterrupt from None
    if code == 130:
        raise KeyboardInterrupt
    return code if type(code) is int else 0


def build_group(loaded: Plugins | None = None) -> TyperGroup:
    """Build the click group: the built-in commands, and those of plugins."""
    # rich_markup_mode None: importing rich would take longer than all the rest of `--help`.
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
    if loaded is not None:
        loaded.add_commands(app)
    group: Any = typer.main.get_command(app)
    builtin = lazy_commands(COMMANDS)
    builtin |= {
        name: SplitCommand(name, COMMANDS[name], commands) for name, commands in SPLIT.items()
    }
    builtin |= {name: subgroup(name, *parts) for name, parts in GROUPS.items()}
    group.commands = {**builtin, **group.commands}
    return group


def subgroup(
    name: str, function: Callable[..., None], commands: Mapping[str, Callable[..., None]]
) -> Any:
    """Build the group of a first word. One that takes a context also runs without a second word."""
    alone = bool(inspect.signature(function).parameters)
    app = typer.Typer(
        name=name,
        rich_markup_mode=None,
        add_completion=False,
        invoke_without_command=alone,
    )
    app.callback()(function)
    group: Any = typer.main.get_command(app)
    group.commands = lazy_commands(commands)
    return group


def lazy_commands(commands: Mapping[str, Callable[..., None]]) -> dict[str, Any]:
    """Wrap functions as commands that are built on use."""
    return {name: LazyCommand(name, function) for name, function in commands.items()}


class LazyCommand(TyperCommand):
    """A command whose options are made when it is called or asked for its help.

    A list of commands needs only their docstrings, and making options imports models of settings.
    """

    def __init__(self, name: str, function: Callable[..., None]) -> None:
        super().__init__(name, callback=None, help=inspect.getdoc(function), rich_markup_mode=None)
        self.function = function

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        """Make the context of the real command, which click then invokes."""
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(self.name, cls=Command)(expanded(self.function))
        command: Any = typer.main.get_command(app)
        for parameter in command.params:
            parameter.show_envvar = False  # one rule for all, which docs/reference/cli.md states
        return command.make_context(info_name, args, *rest, **more)


class SplitCommand(LazyCommand):
    """A command with some first arguments that are commands of their own: `train compare`."""

    invoke_without_command = True

    def __init__(
        self,
        name: str,
        function: Callable[..., None],
        commands: Mapping[str, Callable[..., None]],
    ) -> None:
        super().__init__(name, function)
        self.commands = lazy_commands(commands)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        """Make the context of the command itself, or of the one that the first argument names."""
        if args and args[0] in self.commands:
            word, *others = args
            return self.commands[word].make_context(f"{info_name} {word}", others, *rest, **more)
        return super().make_context(info_name, args, *rest, **more)


class Command(TyperCommand):
    """A command whose errors name options where earthgen names settings."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            renamed = name_options_of(error, setting_options(self))
            if renamed is None:
                raise
            raise renamed from error


def name_options_of(error: Exception, options: Mapping[str, str]) -> Exception | None:
    """Return an error of earthgen with options in place of settings; None if it names none."""
    from geo_io.errors import EarthgenError

    if not isinstance(error, EarthgenError):
        return None
    texts = error.problem, error.remedy
    problem, remedy = (name_options(text, options) for text in texts)
    return None if (problem, remedy) == texts else type(error)(problem, remedy)


def root(
    ctx: typer.Context,
    plugin_dir: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Also load the .py files of this folder as plugins. Can stand anywhere and be "
            "repeated.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print each step on stderr. Can stand anywhere."),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Add each step, warning and error, with time and traceback, to this file. Can "
            "stand anywhere.",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    # `run` reads --plugin-dir, --verbose and --log-file before; here they are for the help.
    if version:
        from earthgen import __version__

        say(f"earthgen {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())
        raise typer.Exit(2)


def plugin_folders(words: list[str]) -> tuple[list[Path], list[str]]:
    """Return (values of --plugin-dir, the other words), wherever the option stands."""
    folders: list[Path] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            return folders, [*rest, word, *remaining]
        name, equals, value = word.partition("=")
        if name != "--plugin-dir":
            rest.append(word)
            continue
        value = value if equals else next(remaining, "")
        if not value:
            raise typer.BadParameter("--plugin-dir needs a folder")
        folders.append(Path(value))
    return folders, rest


def wants_json(words: Sequence[str]) -> bool:
    """Return whether errors are printed as JSON.

    It is read from the bare words, because the error may be that they cannot be parsed.
    """
    return (
        "--json" in words
        or "--progress=json" in words
        or ("--progress", "json") in itertools.pairwise(words)
    )


def interrupted(as_json: bool) -> int:
    """Report Ctrl-C."""
    problem = "interrupted; what is written stays valid, continue with --resume"
    say_error(problem, "", "KeyboardInterrupt", 130, as_json)
    return 130


def usage_error(error: Exception, as_json: bool) -> int:
    """Report a command line that cannot be parsed."""
    # Every ClickException has these two; a context only where the command was known.
    message: str = error.format_message()  # type: ignore[attr-defined]
    code: int = error.exit_code  # type: ignore[attr-defined]
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "earthgen"
    say_error(message, f"`{path} --help` lists the options", type(error).__name__, code, as_json)
    return code


def other_error(error: Exception, as_json: bool) -> int:
    """Report any other error, and return its exit code."""
    from earthgen.files import failures
    from geo_io.errors import EarthgenError

    name = type(error).__name__
    if isinstance(error, EarthgenError):
        problem = name_options(error.problem, ROOT_OPTIONS)
        remedy = name_options(error.remedy, ROOT_OPTIONS)
        say_error(problem, remedy, name, error.exit_code, as_json)
        return error.exit_code
    if isinstance(error, OSError) and error.errno is not None:
        problem, remedy = disk_error(error)
        say_error(problem, remedy, name, 5, as_json)
        return 5
    if isinstance(error, failures()) and from_object_store(error):
        problem = f"the object store cannot be used: {str(error).rstrip('.')}"
        say_error(problem, "check the URL, your credentials and your rights", name, 5, as_json)
        return 5
    problem = f"unexpected {name}: {str(error).strip() or 'no message'}"
    debug = os.environ.get("EARTHGEN_DEBUG")
    remedy = "" if debug else "run again with EARTHGEN_DEBUG=1 for the traceback"
    say_error(problem, remedy, name, 1, as_json)
    return 1


def from_object_store(error: Exception) -> bool:
    """Return whether an error was raised below a client of an object store.

    Their errors are OSErrors without a number, but so are those of libraries that read pictures,
    rasters and tables.
    """
    trace, frames = error.__traceback__, []
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    raised = (type(error).__module__, *frames)
    return any(name.partition(".")[0] in OBJECT_STORES for name in raised)


def disk_error(error: OSError) -> tuple[str, str]:
    """Return (problem, remedy) of an error of the operating system."""
    problem = str(error.strerror or error)
    if error.filename is not None:
        problem = f"{os.fsdecode(error.filename)}: {problem}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem, (
            "free some space and run the command again; a world or a training continues with "
            "--resume"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return problem, "choose a place you may write to, or change its permissions"
    if error.errno == errno.EMFILE:
        return problem, "raise the limit on open files (ulimit -n)"
    return problem, ""


if __name__ == "__main__":
    sys.exit(main())
