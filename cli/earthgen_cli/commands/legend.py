"""`earthgen legend`: the 25 classes, and the crosswalks from other schemes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earthgen_cli.options import JsonOutput
from earthgen_cli.output import say, say_json, say_pairs
from earthgen_cli.visible import styled

if TYPE_CHECKING:
    from geo_io.legend import Crosswalk, LandClass


def legend(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE", help="A crosswalk to print, by name or as a YAML file."
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Print the 25 land classes, or the crosswalk of another scheme to them."""
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
            say(styled(group, bold=True))
        say(f"  {land.code:>2}  {swatch(land)} {land.color}  {land.name:<18} {land.title}")
    say()
    say(
        styled("crosswalks", bold=True)
        + " (`earthgen legend NAME` prints one; --legend NAME uses it)"
    )
    say_pairs((f"  {walk.name}", walk.title) for walk in crosswalks)


def swatch(land: LandClass) -> str:
    """Return a piece of the class's colour."""
    return styled("    ", bg=land.rgb)


def find_crosswalk(name: str, crosswalks: tuple[Crosswalk, ...]) -> Crosswalk:
    """Return the crosswalk with this name, else the one in this file.

    Raises
    ------
    InputError
        Naming the nearest name.
    """
    from geo_io.errors import InputError, nearest_name
    from geo_io.legend import load_crosswalk

    for walk in crosswalks:
        if walk.name == name:
            return walk
    if Path(name).suffix.lower() in (".yaml", ".yml") or Path(name).is_file():
        return load_crosswalk(name)
    names = [walk.name for walk in crosswalks]
    raise InputError(
        f"unknown legend {name!r}{nearest_name(name, names)}",
        f"name a YAML file or one of: {', '.join(names)}",
    )


def class_values(land: LandClass) -> dict[str, Any]:
    """Return a class for --json."""
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
    """Return a crosswalk for --json."""
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
    """Print a crosswalk rule by rule."""
    names = class_names()
    say(f"{styled(walk.name, bold=True)}  {walk.title}")
    say(f"source   {walk.source}")
    say(f"licence  {walk.licence}")
    for rule in walk.rules:
        say()
        say(styled(f"attribute {' or '.join(rule.fields)}", bold=True))
        for value, code in rule.values.items():
            width = f", {rule.widths[value]:g} m wide" if value in rule.widths else ""
            say(f"  {value:<28} {names[code]}{width}")
    if walk.layers:
        say()
        say(styled("layer or file name", bold=True))
        for pattern, code in walk.layers:
            say(f"  {pattern:<28} {names[code]}")


def class_names() -> dict[int, str]:
    """Return the names of the classes by code, "unknown" and "later" among them."""
    from geo_io.legend import LATER, UNKNOWN, UNMAPPED, classes

    return {UNKNOWN: "unknown", UNMAPPED: LATER, **{land.code: land.name for land in classes()}}
