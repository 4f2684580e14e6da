"""`--set KEY=VALUE` of exporters: text to the values of a pydantic model, and the list of its
fields."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

SEQUENCES = (tuple, list, set, frozenset)


def read_options(pairs: Sequence[str], model: type[BaseModel] | None) -> dict[str, Any]:
    """Read KEY=VALUE pairs as options by name; the model checks them later.

    A field of several values takes them with commas between them, or in several pairs.

    Parameters
    ----------
    pairs : sequence of str
        What was typed.
    model : type or None
        The model of the options, if there is one.

    Raises
    ------
    typer.BadParameter
        If a pair is not KEY=VALUE, or an option of one value is given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not (equals and key.isidentifier()):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="'--set'")
        field = model.model_fields.get(key) if model is not None else None
        if field is not None and holds_many(field.annotation):
            options.setdefault(key, []).extend(part.strip() for part in text.split(","))
        elif key in options:
            raise typer.BadParameter(f"{key} is given twice", param_hint="'--set'")
        else:
            options[key] = text
    return options


def option_rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return (name, values, default, description) of each field of a model."""
    return [
        (name, values_text(field), default_text(field), (field.description or "").rstrip("."))
        for name, field in model.model_fields.items()
    ]


def holds_many(annotation: Any) -> bool:
    """Return whether a type is a sequence, or that or None."""
    return any(get_origin(part) in SEQUENCES or part in SEQUENCES for part in _parts(annotation))


def values_text(field: FieldInfo) -> str:
    """Describe what a field takes: "a|b", "number >= 1", "text"."""
    choices = _choices(field.annotation)
    text = "|".join(choices) if choices else _type_text(field.annotation)
    limits = [
        f"{sign} {getattr(mark, name):g}"
        for mark in field.metadata
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if isinstance(getattr(mark, name, None), int | float)
    ]
    return " ".join([text + (",..." if holds_many(field.annotation) else ""), *limits])


def default_text(field: FieldInfo) -> str:
    """Return the default of a field as it would be typed; "required" if it has none."""
    if field.is_required():
        return "required"
    return _typed(field.get_default(call_default_factory=True))


def _typed(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, SEQUENCES):
        return ",".join(map(_typed, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"


def _parts(annotation: Any) -> list[Any]:
    """The types of a union without None; marks of `Annotated` are taken off."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for part in get_args(annotation) for one in _parts(part)]
    return [] if annotation is NoneType else [annotation]


def _choices(annotation: Any) -> list[str]:
    choices: list[str] = []
    for part in _parts(annotation):
        if get_origin(part) in SEQUENCES:
            choices += _choices(next(iter(get_args(part)), None))
        elif get_origin(part) is Literal:
            choices += [_typed(value) for value in get_args(part)]
        elif part is bool:
            choices += ["yes", "no"]
        elif isinstance(part, type) and issubclass(part, Enum):
            choices += [_typed(member) for member in part]
    return list(dict.fromkeys(choices))


def _type_text(annotation: Any) -> str:
    names = {int: "integer", float: "number", str: "text", Path: "path"}
    words = []
    for part in _parts(annotation):
        if get_origin(part) in SEQUENCES:
            words.append(_type_text(next(iter(get_args(part)), Any)))
        else:
            words.append(names.get(part, getattr(part, "__name__", str(part)).lower()))
    return "|".join(dict.fromkeys(words)) or "text"
