"""`earthgen plugins`: the loaded plugins, and a template for a new one."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from earthgen_cli.options import JsonOutput, Quiet
from earthgen_cli.output import say, say_json, say_pairs, shell_quoted
from earthgen_cli.visible import styled

TEMPLATE = Path(__file__).parents[1] / "templates" / "plugin"
"""The files of a new plugin, each with the suffix .template; "package" is the package's folder."""


def plugins(ctx: typer.Context, json_output: JsonOutput = False) -> None:
    """List the plugins, or write the template of a new one.

    Each is listed with version, hooks, licences of code and of weights, source, and why it was
    skipped.
    """
    if ctx.invoked_subcommand is not None:
        return
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
        say(f"{styled(row.info.name, bold=True)} {row.info.version}")
        if row.info.summary:
            say(f"  {row.info.summary}")
        say(f"  licence  {row.info.licence}; weights: {row.info.weights_licence}")
        if row.hooks:
            say(f"  hooks    {', '.join(row.hooks)}")
        say(f"  source   {row.source}")
        if row.error:
            say(f"  {styled('skipped', fg=typer.colors.RED)}  {row.error}")


def new(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the plugin and its geometry backend.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to create; earthgen-NAME if not given."),
    ] = None,
    quiet: Quiet = False,
    json_output: JsonOutput = False,
) -> None:
    """Write a package with one geometry backend, which works and passes the conformance kit.

    docs/plugins/first-plugin.md explains it.
    """
    check_name(name, ctx.obj.plugins.offers("geometry"))
    folder = out or Path(f"earthgen-{name}")
    files = write_template(name, folder)
    if json_output:
        say_json({"folder": folder, "files": files})
    elif not quiet:
        for file in files:
            say(str(file))
        path = shell_quoted(folder)
        say_pairs(
            [
                ("next", f"pip install -e {path}"),
                ("", f"pytest {path}"),
                ("", f"earthgen generate --geometry {name} --bbox W,S,E,N --out {name}.zarr"),
            ]
        )


def check_name(name: str, taken: object) -> None:
    """Raise an error unless a plugin can have this name.

    Raises
    ------
    typer.BadParameter
        If it is not a Python identifier in lower case.
    PluginError
        If a loaded plugin offers a geometry with this name.
    """
    from earthgen.errors import PluginError

    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        raise typer.BadParameter(
            f"{name!r} is not a Python identifier in lower case, such as hills", param_hint="NAME"
        )
    if keyword.iskeyword(name):
        raise typer.BadParameter(f"{name!r} is a keyword of Python", param_hint="NAME")
    if name in taken:  # type: ignore[operator]
        raise PluginError(f"there is a geometry {name!r} already", "choose another name")


def write_template(name: str, folder: Path) -> list[Path]:
    """Write the template for a plugin, and return the files.

    Raises
    ------
    StoreExistsError
        If the folder exists.
    StoreError
        If its parent does not exist.
    """
    from earthgen.errors import StoreError, StoreExistsError

    try:
        folder.mkdir()
    except FileExistsError as error:
        raise StoreExistsError(f"{folder} exists already", "give another --out") from error
    except FileNotFoundError as error:
        raise StoreError(f"folder {folder.parent} does not exist", "create it first") from error
    title = "".join(word.capitalize() for word in name.split("_")) or name
    files = []
    for source in sorted(TEMPLATE.rglob("*.template")):
        parts = source.relative_to(TEMPLATE).with_suffix("").parts
        file = folder.joinpath(
            *(f"earthgen_{name}" if part == "package" else part for part in parts)
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        text = Template(source.read_text("utf-8")).substitute(name=name, title=title)
        file.write_text(text, "utf-8")
        files.append(file)
    return files


COMMANDS: dict[str, Callable[..., None]] = {"new": new}
