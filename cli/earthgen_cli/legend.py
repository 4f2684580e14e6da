"""`earthgen legend`: the 25 classes, and how other schemes map to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.output import say, say_json, say_pairs

if TYPE_CHECKING:
    from geo_io.legend import Crosswalk, LandClass


def legend(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME|FILE", help="A crosswalk to show, by name or as a YAML file."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print it as one JSON object.")
    ] = False,
) -> None:
    """Show the 25 land classes, or how another scheme maps to them."""
    crosswalks = ctx.obj.plugins.crosswalks()
    if name is not None:
        chosen = find_crosswalk(name, crosswalks)
        if json_output:
            say_json(crosswalk_values(chosen))
        else:
            say_crosswalk(chosen)
        return
    from geo_io.legend import classes

    if json_output:
        listed = [{"name": walk.name, "title": walk.title} for walk in crosswalks]
        say_json({"classes": [class_values(land) for land in classes()], "crosswalks": listed})
        return
    group = ""
    for land in classes():
        if land.group != group:
            group = land.group
            say(typer.style(group, bold=True))
        say(f"  {land.code:>2}  {swatch(land)} {land.color}  {land.name:<18} {land.title}")
    say()
    say(
        typer.style("crosswalks", bold=True)
        + " (`earthgen legend NAME` shows one; --legend NAME uses it)"
    )
    say_pairs((f"  {walk.name}", walk.title) for walk in crosswalks)


def swatch(land: LandClass) -> str:
    return typer.style("    ", bg=land.rgb)


def find_crosswalk(name: str, crosswalks: tuple[Crosswalk, ...]) -> Crosswalk:
    """The crosswalk with this name, else the one in this file.

    Raises
    ------
    InputError
        naming the nearest name
    """
    import difflib

    from geo_io.errors import InputError
    from geo_io.legend import load_crosswalk

    for walk in crosswalks:
        if walk.name == name:
            return walk
    if Path(name).suffix.lower() in (".yaml", ".yml") or Path(name).is_file():
        return load_crosswalk(name)
    names = [walk.name for walk in crosswalks]
    near = difflib.get_close_matches(name, names, 1, 0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(
        f"there is no legend {name!r}", f"{hint}there are: {', '.join(names) or 'none'}"
    )


def class_values(land: LandClass) -> dict[str, Any]:
    return {
        "code": land.code,
        "name": land.name,
        "title": land.title,
        "group": land.group,
        "color": land.color,
        "priority": land.priority,
        "surface": land.surface,
        "height": land.height,
        "width": land.width,
        "material": land.material,
    }


def crosswalk_values(walk: Crosswalk) -> dict[str, Any]:
    names = class_names()
    rules = [
        {
            "field": rule.fields,
            "values": {value: names[code] for value, code in rule.values.items()},
            "widths": rule.widths,
        }
        for rule in walk.rules
    ]
    return {
        "name": walk.name,
        "title": walk.title,
        "source": walk.source,
        "licence": walk.licence,
        "rules": rules,
        "layers": {pattern: names[code] for pattern, code in walk.layers},
    }


def say_crosswalk(walk: Crosswalk) -> None:
    names = class_names()
    say(f"{typer.style(walk.name, bold=True)}  {walk.title}")
    say(f"source   {walk.source}")
    say(f"licence  {walk.licence}")
    for rule in walk.rules:
        say()
        say(typer.style(f"attribute {' or '.join(rule.fields)}", bold=True))
        for value, code in rule.values.items():
            width = f", {rule.widths[value]:g} m wide" if value in rule.widths else ""
            say(f"  {value:<28} {names[code]}{width}")
    if walk.layers:
        say()
        say(typer.style("layer or file name", bold=True))
        for pattern, code in walk.layers:
            say(f"  {pattern:<28} {names[code]}")


def class_names() -> dict[int, str]:
    from geo_io.legend import UNKNOWN, classes

    return {UNKNOWN: "unknown", **{land.code: land.name for land in classes()}}
