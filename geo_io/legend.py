"""The 25 land classes, and crosswalks from other people's class codes to them.

Classes and crosswalks are data files in geo_io/legends; their format is described in
docs/guides/legends.md.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from geo_io.errors import InputError, MissingFileError

_LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml parses six times as fast, where it is there

UNKNOWN = 0
"""The code of cells about which nothing is known."""

UNMAPPED = 255
"""What `classify` gives a feature whose value no rule knows. Never stored."""

RASTER_FIELD = "\0cells"
"""The cell values of a raster, among a rule's fields: `value` in a file, and no attribute's
name."""

ANY_VALUE = "*"
"""In a rule's values: every value that is present and not listed."""

ABSENT = {"", "no", "none", "nan", "null", "<na>"}
"""Attribute values that say the attribute is not there."""


@dataclass(frozen=True)
class LandClass:
    """One of the 25 classes; the fields are those of geo_io/legends/classes.yaml."""

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
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@functools.cache
def classes() -> tuple[LandClass, ...]:
    """The classes in the order of their codes, 1 to 25."""
    text = resources.files("geo_io").joinpath("legends", "classes.yaml").read_text("utf-8")
    return tuple(LandClass(**{**row, "height": tuple(row["height"])}) for row in _parse_yaml(text))


@functools.cache
def codes() -> Mapping[str, int]:
    """Class code by class name."""
    return {land.name: land.code for land in classes()}


@functools.cache
def palette() -> NDArray:
    """(26, 3) uint8 colours by class code; row 0, unknown, is black."""
    return np.array([(0, 0, 0)] + [land.rgb for land in classes()], np.uint8)


@functools.cache
def priorities() -> NDArray:
    """(26,) uint8 priority by class code; 0 for unknown."""
    return np.array([0] + [land.priority for land in classes()], np.uint8)


@dataclass(frozen=True)
class Rule:
    """One attribute of the source and what its values mean.

    `fields` are tried in any case of letters; `values` maps a normalised value to a class code;
    `widths` maps a normalised value to the width in metres of a line with it.
    """

    fields: tuple[str, ...]
    values: Mapping[str, int]
    widths: Mapping[str, float]

    def lookup(self, value: object) -> int:
        text = normalise(value)
        code = self.values.get(text)
        if code is None and ANY_VALUE in self.values and text not in ABSENT:
            code = self.values[ANY_VALUE]
        return UNMAPPED if code is None else code


@dataclass(frozen=True)
class Crosswalk:
    """How one scheme of classes maps to the 25: rules by attribute, then defaults by layer name."""

    name: str
    title: str
    source: str
    licence: str
    rules: tuple[Rule, ...]
    layers: tuple[tuple[str, int], ...]

    def matching_rules(self, fields: Iterable[str]) -> list[tuple[str, Rule]]:
        """(the source's field name, rule) for each rule that finds one of its fields, in the
        crosswalk's order."""
        by_name = {field.casefold(): field for field in fields}
        found = []
        for rule in self.rules:
            for name in rule.fields:
                if name.casefold() in by_name:
                    found.append((by_name[name.casefold()], rule))
                    break
        return found

    def layer_class(self, layer: str) -> int:
        """Class of features of a layer with this name that no rule maps, UNMAPPED where the name
        says nothing."""
        name = normalise(layer)
        return next(
            (code for pattern, code in self.layers if fnmatch.fnmatchcase(name, pattern)), UNMAPPED
        )

    def classify(
        self, columns: Mapping[str, Sequence[object]], layer: str, count: int
    ) -> tuple[NDArray, NDArray]:
        """Class code (n,) uint8 and line width (n,) float64 (NaN: none said) of `count` features.

        A feature takes the first rule that maps its value, else the layer's default, else UNMAPPED.
        """
        code = np.full(count, UNMAPPED, np.uint8)
        width = np.full(count, np.nan)
        for field, rule in self.matching_rules(columns):
            distinct = {value: rule.lookup(value) for value in set(map(_hashable, columns[field]))}
            values = [_hashable(value) for value in columns[field]]
            mapped = np.array([distinct[value] for value in values], np.uint8)
            wide = np.array([rule.widths.get(normalise(value), np.nan) for value in values])
            fresh = (code == UNMAPPED) & (mapped != UNMAPPED)
            code[fresh], width[fresh] = mapped[fresh], wide[fresh]
        code[code == UNMAPPED] = self.layer_class(layer)
        return code, width

    def raster_table(self) -> Mapping[int, int]:
        """Class code by integer cell value; empty where the crosswalk says nothing of rasters."""
        table: dict[int, int] = {}
        for _, rule in self.matching_rules([RASTER_FIELD]):
            table |= {
                int(value): code
                for value, code in rule.values.items()
                if value.lstrip("-").isdigit()
            }
        return table


def normalise(value: object) -> str:
    """A value as crosswalks spell it: text without accents or case, whole numbers without a
    fraction.

    Text that was UTF-8 but read as Latin-1 (a .dbf without a .cpg is the classic) is repaired
    first.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    with contextlib.suppress(
        UnicodeEncodeError, UnicodeDecodeError
    ):  # most text is not that, and stays
        text = text.encode("latin-1").decode("utf-8")
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return text.casefold()


def load_crosswalk(path: str | Path) -> Crosswalk:
    """Read a crosswalk from a YAML file (format: docs/guides/legends.md).

    Raises
    ------
    MissingFileError, InputError
        if the file is absent, is not YAML, or names a class that does not exist
    """
    path = Path(path)
    try:
        document = _parse_yaml(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(
            f"legend {path} does not exist", "name a .yaml file or one of `earthgen legend`"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"legend {path} is not YAML: {str(error).splitlines()[0]}", "see docs/guides/legends.md"
        ) from error
    return parse_crosswalk(document, str(path))


def parse_crosswalk(document: Any, where: str) -> Crosswalk:
    """A crosswalk from the parsed YAML; `where` names the file in errors."""
    if not isinstance(document, Mapping) or not ({"rules", "layers"} & set(document)):
        raise InputError(
            f"legend {where} has neither `rules` nor `layers`",
            "see docs/guides/legends.md for the format",
        )
    unknown = set(document) - {"name", "title", "source", "licence", "rules", "layers"}
    if unknown:
        raise InputError(
            f"legend {where} has unknown keys {sorted(unknown)}",
            "see docs/guides/legends.md for the format",
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
                "see docs/guides/legends.md",
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
    )


@functools.cache
def builtin_crosswalks() -> tuple[Crosswalk, ...]:
    """The crosswalks that ship with the package, in the order of their names; "generic" comes
    last."""
    folder = resources.files("geo_io").joinpath("legends")
    files = [
        file
        for file in folder.iterdir()
        if file.name.endswith(".yaml") and file.name != "classes.yaml"
    ]
    found = [parse_crosswalk(_parse_yaml(file.read_text("utf-8")), file.name) for file in files]
    return tuple(sorted(found, key=lambda crosswalk: (crosswalk.name == "generic", crosswalk.name)))


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, _LOADER)


def _class_code(name: object, where: str) -> int:
    if name in (None, "unknown"):
        return UNKNOWN
    if name not in codes():
        raise InputError(
            f"legend {where} maps to {name!r}, which is no class", "`earthgen legend` prints the 25"
        )
    return codes()[str(name)]


def _of_type(value: Any, kind: type, what: str, where: str) -> Any:
    """The value, an empty one where it is absent; InputError where it is of another kind."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        word = "a list" if kind is list else "a mapping"
        raise InputError(
            f"{what} of legend {where} must be {word}", "see docs/guides/legends.md for the format"
        )
    return value


def _width(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError(
            f"width {value!r} in legend {where} is not a number of metres",
            "see docs/guides/legends.md",
        )
    return float(value)


def _hashable(value: object) -> object:
    # NaN is not equal to itself, which would make every missing value its own key.
    return None if value is None or value != value else value
