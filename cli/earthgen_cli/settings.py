"""Options made from the models of settings, and the way back from a setting's name to its option.

A command declares a parameter with `Settings(...)` in its annotation. The type, help and limits of
each option come from the field of the model, which is imported when the command is called or asked
for its help, not when the commands are listed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

Command = Callable[..., None]

DEFAULT_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}

SHOW_OPTIONS = ("help", "quiet", "json_output", "progress")
"""Options of the output, which are not settings."""


@dataclass(frozen=True)
class OptionStyle:
    """How a setting appears on the command line, where the model does not say it.

    Attributes
    ----------
    metavar : str
        The name of the value in the help; empty takes the usual one of the type.
    option : str
        The option, such as "--grade"; empty makes it of the setting's name.
    help : str
        Replaces the field's description.
    show_default : bool
        Whether the help states the field's default.
    kind : type
        Replaces the type of the field.
    many : bool
        Whether the option can be repeated although the field may be a single value.
    callback : callable
        Checks or changes the typed value.
    short : str
        A second spelling of one letter, such as "-o".
    complete : callable
        Yields (value, help) for what the shell completes.
    """

    metavar: str = ""
    option: str = ""
    help: str = ""
    show_default: bool = True
    kind: Any = None
    many: bool = False
    callback: Callable[[Any], Any] | None = None
    short: str = ""
    complete: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Settings:
    """The annotation of a parameter that receives the typed settings of a model, by name.

    Attributes
    ----------
    model : str
        The model as "package.module:Name".
    styles : Mapping[str, OptionStyle | str | annotation]
        The options in the order of the help, by setting. A string is a metavar. An annotation
        declares an option that is no field of the model.
    """

    model: str
    styles: Mapping[str, Any]

    def without(self, *names: str) -> Settings:
        """Return the same settings without some options."""
        return replace(
            self, styles={name: style for name, style in self.styles.items() if name not in names}
        )

    def changed(self, **styles: Any) -> Settings:
        """Return the same settings with another style for some options."""
        return replace(self, styles={**self.styles, **styles})

    def parameters(self) -> list[inspect.Parameter]:
        """Return the parameters of a function from which typer makes the options."""
        fields = load_name(self.model).model_fields
        styles = {
            name: OptionStyle(style) if isinstance(style, str) else style
            for name, style in self.styles.items()
        }
        options = {
            name: style.option or option_name(name)
            for name, style in styles.items()
            if isinstance(style, OptionStyle)
        }
        return [
            _parameter(name, fields[name], style, options)
            if isinstance(style, OptionStyle)
            else _keyword(name, style)
            for name, style in styles.items()
        ]


def load_name(path: str) -> Any:
    """Import what "package.module:Name" names."""
    import importlib

    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def expanded(command: Command) -> Command:
    """Replace the `Settings` parameters of a command by an option for each setting."""
    parameters: list[inspect.Parameter] = []
    settings: dict[str, list[str]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        marks = [mark for mark in _marks(parameter.annotation) if isinstance(mark, Settings)]
        if marks:
            options = marks[0].parameters()
            settings[parameter.name] = [option.name for option in options]
            parameters += options
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    if not settings:
        return command
    defaults = {parameter.name: parameter.default for parameter in parameters}

    @wraps(command)
    def called(**values: Any) -> None:
        given = {
            name: typed({key: values.pop(key) for key in keys}, defaults)
            for name, keys in settings.items()
        }
        command(**values, **given)

    # What typer reads; `wraps` would lead it to the command's own.
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del called.__wrapped__
    return called


def typed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Select the values that were typed, with choices as text."""
    # A repeatable option that was not typed is None or an empty list, depending on typer's version.
    return {
        name: value.value if isinstance(value, StrEnum) else value
        for name, value in values.items()
        if value is not None and value not in ([], ()) and value is not defaults[name]
    }


def option_name(setting: str) -> str:
    """Spell a setting as an option: "bbox_crs" is "--bbox-crs"."""
    return f"--{setting.replace('_', '-')}"


def setting_options(command: Any) -> dict[str, str]:
    """Return the options of a click command by the name of their setting."""
    return {
        parameter.name: max(parameter.opts, key=len)
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in SHOW_OPTIONS
    }


def name_options(text: str, options: Mapping[str, str]) -> str:
    """Write settings in backquotes as their options: `assume_crs` becomes --assume-crs.

    Parameters
    ----------
    text : str
        A message in which settings stand in backquotes.
    options : Mapping[str, str]
        The options by setting; other words in backquotes stay.
    """
    return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), text)


def _marks(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _parameter(
    name: str, model: Any, style: OptionStyle, names: Mapping[str, str]
) -> inspect.Parameter:
    """Make the parameter for one field of a pydantic model."""
    kind, many, limits = _kind(name, model.annotation, model.metadata)
    if style.kind is not None:
        kind, many = style.kind, False
    many = many or style.many
    option: dict[str, Any] = {
        "help": name_options(_help(model, style, many), names),
        "callback": style.callback,
    }
    declared, default = names[name], None
    if kind is bool:
        default = None if model.default else False
        declared += f"/--no-{declared[2:]}" if model.default else ""
        annotation: Any = bool if default is False else bool | None
    else:
        option |= limits
        option["metavar"] = style.metavar or DEFAULT_METAVARS.get(kind)
        option["autocompletion"] = style.complete
        annotation = (GenericAlias(list, (kind,)) if many else kind) | None
    spellings = [declared, style.short] if style.short else [declared]
    return _keyword(name, Annotated[annotation, typer.Option(*spellings, **option)], default)


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _help(model: Any, style: OptionStyle, many: bool) -> str:
    """Describe a field, its default, and whether the option can be repeated."""
    text = (style.help or model.description or "").rstrip(".") + "."
    default = model.default
    if many:
        text += " Can be repeated."
    if style.show_default:
        if isinstance(default, tuple) and default:
            text += f" Default: {', '.join(map(str, default))}."
        elif isinstance(default, float):
            text += f" Default: {default:g}."
        elif isinstance(default, int | str) and default != "" and not isinstance(default, bool):
            text += f" Default: {default}."
    return text


def _kind(name: str, annotation: Any, marks: Sequence[Any]) -> tuple[Any, bool, dict[str, Any]]:
    """(type of one value on the command line, whether it repeats, its closed limits)."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        return _kind(name, annotation, [*marks, *more])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return (str, False, {}) if str in parts else _kind(name, parts[0], marks)
    if get_origin(annotation) is tuple:
        return _kind(name, get_args(annotation)[0], marks)[0], True, {}
    if get_origin(annotation) is Literal:
        return StrEnum(name, {value: value for value in get_args(annotation)}), False, {}
    limits = _limits(marks) if annotation in (int, float) else {}
    return str if annotation is Any else annotation, False, limits


def _limits(marks: Sequence[Any]) -> dict[str, Any]:
    """The closed limits among pydantic's marks of a number, as typer names them."""
    limits: dict[str, Any] = {}
    for mark in marks:
        name = type(mark).__name__
        if name == "FieldInfo":
            limits |= _limits(mark.metadata)
        elif name in ("Ge", "Le"):
            limits[{"Ge": "min", "Le": "max"}[name]] = getattr(mark, name.lower())
    return limits
