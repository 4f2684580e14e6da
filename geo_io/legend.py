"""The 25 land classes, and crosswalks from other classifications to them.

Classes and crosswalks are YAML files in geo_io/legends; docs/guides/legends.md describes the
format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_io.errors import InputError, MissingFileError
from geo_io.packaged import YAML_LOADER, packaged_yaml
from geo_io.safety.damage import damaged_file
from geo_io.safety.limits import YAML_BYTES, bounded_text, load_yaml

FORMAT_REMEDY = "see docs/guides/legends.md for the format"

UNKNOWN = 0
"""Class code of cells whose class is unknown."""

UNMAPPED = 255
"""Class code of features whose value no rule maps. Never stored."""

RASTER_FIELD = "\0cells"
"""Field of a rule that stands for the cell values of a raster. A legend file calls it `value`; no
attribute can have this name."""

KEYS = {"name", "title", "source", "licence", "rules", "layers", "rasters", "colors"}
"""Keys of a legend file."""

ANY_VALUE = "*"
"""Entry of a rule's values that stands for every present value that is not listed."""

LATER = "later"
"""Class name of values that the rules after their own decide on."""

ABSENT = {"", "-", "--", "no", "none", "nan", "null", "<na>"}
"""Attribute values that mean that the attribute is absent."""

_NO = (
    *("false", "f", "n", "0", "off", "non", "nein", "nee", "nej", "nao", "nie", "falso", "faux"),
    *("falsch", "onwaar", "нет", "否", "无"),
)
DENIALS = ABSENT.union(_NO)
"""Attribute values that say no, where any other value says yes."""


WHOLE_TEXT = re.compile(r"-?\d+\.0+")
"""A whole number with a decimal point, as text."""


NAMED_CODE = re.compile(r"(\d{1,6})\s*[-:)\u2013]\s*[^\W\d]")
DOTTED_CODE = re.compile(r"(\d(?:\.\d){1,4})(?:$|\.?\s*[-:]?\s*[^\W\d])")
"""The start of a text with a code and its name, as "311 - Broad-leaved forest" and "3.1.1 ..."."""


CELL_VALUE = re.compile(r"-?[0-9]{1,18}")
"""A value of a raster's cells, as text."""


@dataclass(frozen=True)
class LandClass:
    """One of the 25 land classes; geo_io/legends/classes.yaml describes the fields."""

    code: int
    name: str
    title: str
    group: str
    color: str
    priority: int
    surface: str
    height: tuple[float, float]
    width: float | None
    material: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as red, green, blue from 0 to 255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@functools.cache
def classes() -> tuple[LandClass, ...]:
    """Return the classes in the order of their codes, 1 to 25."""
    rows = packaged_yaml("legends", "classes.yaml")
    return tuple(LandClass(**{**row, "height": tuple(row["height"])}) for row in rows)


@functools.cache
def codes() -> Mapping[str, int]:
    """Return the class code of each class name."""
    return {land.name: land.code for land in classes()}


@functools.cache
def palette() -> NDArray:
    """Return the RGB colours by class code, (26, 3) uint8; code 0, unknown, is black."""
    return np.array([(0, 0, 0)] + [land.rgb for land in classes()], np.uint8)


@functools.cache
def priorities() -> NDArray:
    """Return the priorities by class code, (26,) uint8; that of unknown is 0."""
    return np.array([0] + [land.priority for land in classes()], np.uint8)


@dataclass(frozen=True)
class Rule:
    """The meaning of the values of one attribute.

    Attributes
    ----------
    fields : tuple of str
        Names of the attribute; the first that a source has is used. Case does not matter.
    values : mapping of str to int
        Class code by normalised value (see `normalise`).
    widths : mapping of str to float
        Width in metres of a line, by normalised value.
    """

    fields: tuple[str, ...]
    values: Mapping[str, int]
    widths: Mapping[str, float]

    def lookup(self, value: object) -> int:
        """Return the class code of an attribute value, UNMAPPED if the rule does not list it.

        Of several values ("forest;meadow") the first that is listed counts, of a code with its name
        ("311 - Broad-leaved forest", "3.1.1. ...") the code.
        """
        text = normalise(value)
        code = self.values.get(text)
        if code is None:
            code = next((self.values[each] for each in _within(text) if each in self.values), None)
        if code is None and ANY_VALUE in self.values and not self.is_absent(value):
            code = self.values[ANY_VALUE]
        return UNMAPPED if code is None else code

    def is_absent(self, value: object) -> bool:
        """Return whether a value says that a feature does not have the attribute.

        "False", 0 and "N" do so where the rule takes any value for a yes.
        """
        return normalise(value) in (DENIALS if ANY_VALUE in self.values else ABSENT)


@dataclass(frozen=True)
class Crosswalk:
    """Mapping of a classification to the 25 classes.

    Attributes
    ----------
    name, title, source, licence : str
        What the classification is, and where it comes from.
    rules : tuple of Rule
        Rules by attribute; the first that maps a feature's value decides.
    layers : tuple of (str, int)
        Pattern of a layer name, and class of features of such a layer that no rule maps.
    rasters : tuple of str
        Patterns of the names and descriptions of rasters of this classification.
    colors : mapping of int to (int, int, int)
        Red, green and blue that its rasters have in their colour table, by cell value.
    """

    name: str
    title: str
    source: str
    licence: str
    rules: tuple[Rule, ...]
    layers: tuple[tuple[str, int], ...]
    rasters: tuple[str, ...] = ()
    colors: Mapping[int, tuple[int, int, int]] = dataclasses.field(default_factory=dict)

    def matching_rules(self, fields: Iterable[str]) -> list[tuple[str, Rule]]:
        """Return (field name of the source, rule) of each rule that applies, in order."""
        by_name = {field.casefold(): field for field in fields}
        matching = []
        for rule in self.rules:
            for name in rule.fields:
                if name.casefold() in by_name:
                    matching.append((by_name[name.casefold()], rule))
                    break
        return matching

    def layer_class(self, layer: str) -> int:
        """Return the class of features that no rule maps, by layer name; UNMAPPED without one."""
        name = normalise(layer)
        return next(
            (code for pattern, code in self.layers if fnmatch.fnmatchcase(name, pattern)), UNMAPPED
        )

    def classify(
        self, columns: Mapping[str, Sequence[object]], layer: str, count: int
    ) -> tuple[NDArray, NDArray]:
        """Classify features.

        Parameters
        ----------
        columns : mapping of str to sequence
            Attribute values of the features by field name.
        layer : str
            Name of the layer.
        count : int
            Number n of features.

        Returns
        -------
        code : NDArray (n,) uint8
            Class code from the first rule that maps a feature's value, else from the layer name,
            else UNMAPPED.
        width : NDArray (n,) float64
            Width of lines in metres, NaN where the rule gives none.
        """
        code = np.full(count, UNMAPPED, np.uint8)
        width = np.full(count, np.nan)
        rules = self.matching_rules(columns)
        for field, rule in rules:
            listed = [each for name, each in rules if name == field]
            values = [_hashable(value) for value in columns[field]]
            first = {value: _first_listed(value, listed) for value in set(values)}
            values = [first[value] for value in values]
            distinct = {value: rule.lookup(value) for value in set(values)}
            mapped = np.array([distinct[value] for value in values], np.uint8)
            wide = np.array([rule.widths.get(normalise(value), np.nan) for value in values])
            fresh = (code == UNMAPPED) & (mapped != UNMAPPED)
            code[fresh], width[fresh] = mapped[fresh], wide[fresh]
        code[code == UNMAPPED] = self.layer_class(layer)
        return code, width

    def raster_table(self) -> Mapping[int, int]:
        """Return the class code by integer cell value; empty if no rule applies to rasters."""
        table: dict[int, int] = {}
        for _, rule in self.matching_rules([RASTER_FIELD]):
            table |= {
                int(value): code
                for value, code in rule.values.items()
                if CELL_VALUE.fullmatch(value) and code != UNMAPPED
            }
        return table


def _first_listed(value: object, rules: Sequence[Rule]) -> object:
    """Return the first of several values ("forest;meadow") that a rule lists; else the value."""
    if not isinstance(value, str) or ";" not in value:
        return value
    if any(normalise(value) in rule.values for rule in rules):
        return value
    parts = (part.strip() for part in value.split(";"))
    found = (part for part in parts if any(normalise(part) in rule.values for rule in rules))
    return next(found, value)


def _within(text: str) -> list[str]:
    """Return the values that a text may consist of: several, or a code and its name."""
    if ";" in text:
        return [part.strip() for part in text.split(";") if part.strip()]
    dotted = DOTTED_CODE.match(text)
    if dotted is not None:
        return [dotted[1].replace(".", "")]
    named = NAMED_CODE.match(text)
    return [] if named is None else [named[1]]


def normalise(value: object) -> str:
    """Return a value as crosswalks spell it: lower case without accents, integers without ".0".

    The text "311.0" is an integer too.

    UTF-8 text that was read as Latin-1 (from a .dbf without a .cpg, for example) is repaired first.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if WHOLE_TEXT.fullmatch(text):  # a column of numbers with gaps, written as text
        text = text.partition(".")[0]
    with contextlib.suppress(UnicodeEncodeError, UnicodeDecodeError):  # other text stays
        text = text.encode("latin-1").decode("utf-8")
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return text.casefold()


def load_crosswalk(path: str | Path) -> Crosswalk:
    """Read a crosswalk from a YAML file (format: docs/guides/legends.md).

    Raises
    ------
    MissingFileError
        If the file does not exist.
    InputError
        If it is not YAML, is not of the format, or names an unknown class.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(
            f"legend {path} does not exist", "name a .yaml file or one of `earthgen legend`"
        )
    with damaged_file(f"legend {path} is not YAML", FORMAT_REMEDY):
        if path.stat().st_size > YAML_BYTES:
            raise InputError(f"legend {path} has more than {YAML_BYTES:,} bytes", FORMAT_REMEDY)
        text = bounded_text(path)
        document = load_yaml(text, YAML_LOADER, f"legend {path}", FORMAT_REMEDY)
    with damaged_file(f"legend {path} is not of the format", FORMAT_REMEDY):
        return parse_crosswalk(document, str(path))


def parse_crosswalk(document: Any, where: str) -> Crosswalk:
    """Make a crosswalk from parsed YAML.

    Parameters
    ----------
    document : Any
        The parsed YAML (format: docs/guides/legends.md).
    where : str
        Name of the file in messages.

    Raises
    ------
    InputError
        If the document is not of the format, or names an unknown class.
    """
    if not isinstance(document, Mapping) or not ({"rules", "layers"} & set(document)):
        raise InputError(
            f"legend {where} has neither `rules` nor `layers`",
            FORMAT_REMEDY,
        )
    unknown = set(document) - KEYS
    if unknown:
        raise InputError(
            f"legend {where} has unknown keys {sorted(unknown, key=str)}",
            FORMAT_REMEDY,
        )
    rules = []
    for number, entry in enumerate(_of_type(document.get("rules"), list, "rules", where)):
        place = f"rule {number + 1}"
        if (
            not isinstance(entry, Mapping)
            or "field" not in entry
            or not isinstance(entry.get("values"), Mapping)
        ):
            raise InputError(
                f"{place} of legend {where} needs `field` and `values`",
                FORMAT_REMEDY,
            )
        fields = entry["field"] if isinstance(entry["field"], list) else [entry["field"]]
        values = {normalise(key): _class_code(name, where) for key, name in entry["values"].items()}
        widths = _of_type(entry.get("widths"), dict, f"widths of {place}", where)
        names = tuple(RASTER_FIELD if field == "value" else str(field) for field in fields)
        rules.append(
            Rule(names, values, {normalise(k): _width(w, where) for k, w in widths.items()})
        )
    patterns = _of_type(document.get("layers"), dict, "layers", where)
    layers = tuple(
        (normalise(pattern), _class_code(name, where)) for pattern, name in patterns.items()
    )
    return Crosswalk(
        name=str(document.get("name") or Path(where).stem),
        title=str(document.get("title") or document.get("name") or Path(where).stem),
        source=str(document.get("source") or where),
        licence=str(document.get("licence") or "not stated"),
        rules=tuple(rules),
        layers=layers,
        rasters=tuple(
            normalise(pattern)
            for pattern in _of_type(document.get("rasters"), list, "rasters", where)
        ),
        colors=_colors(document.get("colors"), where),
    )


@functools.cache
def builtin_crosswalks() -> tuple[Crosswalk, ...]:
    """Return the crosswalks of the package in the order of their names, "generic" last."""
    folder = resources.files("geo_io").joinpath("legends")
    files = [
        file
        for file in folder.iterdir()
        if file.name.endswith(".yaml") and file.name not in ("classes.yaml", "heights.yaml")
    ]
    crosswalks = [parse_crosswalk(packaged_yaml("legends", file.name), file.name) for file in files]
    return tuple(
        sorted(crosswalks, key=lambda crosswalk: (crosswalk.name == "generic", crosswalk.name))
    )


def _class_code(name: object, where: str) -> int:
    if name in (None, "unknown"):
        return UNKNOWN
    if name == LATER:
        return UNMAPPED
    if not isinstance(name, str) or name not in codes():
        raise InputError(
            f"legend {where} maps to the unknown class {name!r}",
            "`earthgen legend` lists the 25 classes",
        )
    return codes()[name]


def _of_type(value: Any, expected: type, what: str, where: str) -> Any:
    """Return the value, or an empty one if it is None; InputError if it has another type."""
    if value is None:
        return expected()
    if not isinstance(value, expected):
        word = "a list" if expected is list else "a mapping"
        raise InputError(f"{what} of legend {where} must be {word}", FORMAT_REMEDY)
    return value


def _width(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError(
            f"width {value!r} in legend {where} is not a number of metres",
            FORMAT_REMEDY,
        )
    return float(value)


def _colors(value: Any, where: str) -> dict[int, tuple[int, int, int]]:
    """Return the colours of cell values; "classes" stands for those of the class table."""
    if value == "classes":
        return {land.code: land.rgb for land in classes()}
    result = {}
    for code, color in _of_type(value, dict, "colors", where).items():
        if not isinstance(code, int) or not re.fullmatch(r"#[0-9a-fA-F]{6}", str(color)):
            raise InputError(
                f"color {color!r} of {code!r} in legend {where} is not like '#1a2b3c'",
                FORMAT_REMEDY,
            )
        result[code] = (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16))
    return result


def _hashable(value: object) -> object:
    # NaN is not equal to itself, which would make every missing value its own key.
    return None if value is None or value != value else value
