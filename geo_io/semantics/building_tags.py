"""Shape and colours of buildings from attributes: Simple 3D Buildings and its relatives.

`buildings.yaml` names the attributes and their values.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ImageColor

from geo_io.layers import ACROSS, ALONG, ROOF_NUMBER, unknown_form
from geo_io.legend import ABSENT, DENIALS, normalise
from geo_io.packaged import packaged_yaml
from geo_io.semantics.heights import Heights
from geo_io.semantics.lengths import METRES_PER_LEVEL, is_unknown, parse_length

HIGHEST_BASE = 800.0
"""Undersides above this, in metres, are errors of the source."""

TALLEST_ROOF = 200.0
"""Roofs taller than this, in metres, are errors of the source."""

ROUNDING = 0.05
"""Metres by which a roof may be taller than its building without contradicting it."""

CLASHES = {
    "base": "the underside (min_height, min_level) {of} not below the top",
    "roof_height": "the roof alone (roof:height, roof:levels) {of} taller than the whole",
}
"""What is wrong with buildings whose heights contradict each other."""

_COMPASS = [
    "n",
    "nne",
    "ne",
    "ene",
    "e",
    "ese",
    "se",
    "sse",
    "s",
    "ssw",
    "sw",
    "wsw",
    "w",
    "wnw",
    "nw",
    "nnw",
]
_COMPASS_WORDS = {"north": "n", "east": "e", "south": "s", "west": "w"}
_DEGREES = re.compile(r"\s*(?:°|deg(?:ree)?s?)$")
_HEX = re.compile(r"(?:#|0x)?([0-9a-f]{3}|[0-9a-f]{6})")


@functools.cache
def _vocabulary() -> dict[str, Any]:
    content: dict[str, Any] = packaged_yaml("semantics", "buildings.yaml")
    return content


@functools.cache
def form_fields() -> tuple[str, ...]:
    """Return the names of the attributes that this module reads."""
    return tuple(name for names in _vocabulary()["columns"].values() for name in names)


Unread = dict[str, dict[int, str]]
"""Values that are not understood: by attribute, then by row."""


def building_forms(table: pd.DataFrame, heights: Heights | None = None) -> tuple[NDArray, Unread]:
    """Return what the attributes say of n features, if they are buildings.

    Parameters
    ----------
    table : DataFrame
        n features.
    heights : Heights, optional
        Their heights, which also tell how tall a level is.

    Returns
    -------
    form : NDArray (n,) BUILDING_FORM
        Shape and colours.
    unread : dict
        Values that are not understood, by attribute and row.
    """
    form, unread = unknown_form(len(table)), Unread()

    def column(name: str, parse: Callable[[str, object], Any], default: Any) -> list[Any]:
        return _column(table, _vocabulary()["columns"][name], parse, default, unread)

    form["roof"] = column("roof_shape", _shape, 0)
    tall = np.array(column("roof_height", _length, np.nan), float)
    storeys = np.array(column("roof_levels", _levels, np.nan), float)
    tall = np.where(np.isnan(tall), storeys * METRES_PER_LEVEL, tall)
    tall = np.where((tall >= 0) & (tall <= TALLEST_ROOF), tall, np.nan)
    if heights is not None:
        form["eaves"] = heights.eaves
        tall = np.where(np.isnan(heights.roof), tall, heights.roof)  # in the unit of its column
    form["roof_height"] = tall
    base = np.array(column("min_height", _length, np.nan), float)
    below = np.array(column("min_level", _levels, np.nan), float)
    each = METRES_PER_LEVEL if heights is None else _level_heights(heights, tall, below)
    base = np.where(np.isnan(base), below * each, base)
    form["base"] = np.where((base > 0) & (base <= HIGHEST_BASE), base, 0)
    form["roof_angle"] = column("roof_angle", _angle, np.nan)
    form["roof_direction"] = column("roof_direction", _direction, np.nan)
    form["roof_orientation"] = column("roof_orientation", _orientation, 0)
    for target, names in (
        ("wall_rgba", ("wall_colour", "wall_material")),
        ("roof_rgba", ("roof_colour", "roof_material")),
    ):
        for name, parse in zip(names, (_colour, _material), strict=True):
            found = np.array(column(name, parse, (0, 0, 0, 0)), np.uint8).reshape(-1, 4)
            form[target] = np.where(form[target][:, 3:] > 0, form[target], found)
    kind = np.array(column("building", _word, ""), object)
    part = np.array(column("part", _word, ""), object)
    parent = np.array(column("parent", _word, ""), object)
    form["part"] = ((part != "") & (kind == "")) | (parent != "")
    opened = {normalise(value) for value in _vocabulary()["open"]}
    form["open"] = [bool({one, other} & opened) for one, other in zip(kind, part, strict=True)]
    return form, unread


def _level_heights(heights: Heights, roof: NDArray, below: NDArray) -> NDArray:
    """Return the height of a level of n buildings, (n,) metres.

    It is that of the walls by the number of levels, which counts those `below` the underside too
    (Simple 3D Buildings); `METRES_PER_LEVEL` where one of them is not known, or contradicts.
    """
    walls = np.where(np.isnan(heights.eaves), heights.top - np.nan_to_num(roof), heights.eaves)
    fits = heights.measured & (walls > 0) & (heights.levels >= np.maximum(below, 1))
    return np.divide(walls, heights.levels, out=np.full(len(walls), METRES_PER_LEVEL), where=fits)


def fit_to_height(form: NDArray, top: NDArray, by_levels: NDArray | None = None) -> Unread:
    """Drop, in place, undersides and roofs of n buildings that contradict their heights.

    Parameters
    ----------
    form : NDArray (n,) BUILDING_FORM
        Is changed.
    top : NDArray (n,) float64
        From the ground to the top of the roof, metres; NaN unknown.
    by_levels : NDArray (n,) float64, optional
        The same by the number of levels, where it is not known otherwise.

    Returns
    -------
    dict
        What was dropped, by what is wrong and row.
    """
    clashes = Unread()
    whole = top if by_levels is None else np.where(np.isnan(top), by_levels, top)
    for name, limit, wrong, nothing in (
        ("base", whole, form["base"] >= whole, 0.0),
        ("roof_height", top, form["roof_height"] > top - form["base"] + ROUNDING, np.nan),
    ):
        rows = np.flatnonzero(wrong & np.isfinite(limit) & (form[name] > 0))
        for row in rows.tolist():
            shown = f"{form[name][row]:g} m of {limit[row]:g} m"
            clashes.setdefault(CLASHES[name], {})[row] = shown
        form[name][rows] = nothing
    return clashes


def is_ridge(table: pd.DataFrame) -> NDArray:
    """Return which features are ridges or tips of complex roofs, (n,) bool.

    They are OpenStreetMap's roof:ridge and roof:apex.
    """
    return _says(table, "roof_ridge", "roof_apex")


def is_roof_edge(table: pd.DataFrame) -> NDArray:
    """Return which features are lines where planes of a complex roof meet, (n,) bool.

    They are OpenStreetMap's roof:edge, such as hips and valleys, which are not level.
    """
    return _says(table, "roof_edge") & ~is_ridge(table)


def _says(table: pd.DataFrame, *keys: str) -> NDArray:
    names = [name for key in keys for name in _vocabulary()["columns"][key]]
    return ~np.isin(np.array(_column(table, names, _word, "", {}), str), ["", *DENIALS])


def _column(
    table: pd.DataFrame,
    names: Sequence[str],
    parse: Callable[[str, object], Any],
    default: Any,
    unread: Unread,
) -> list[Any]:
    """Return the first usable value of each feature; note those that are not understood.

    `parse` returns None for a value that says nothing, and raises ValueError.
    """
    result = [default] * len(table)
    open_rows = np.ones(len(table), bool)
    by_fold = {str(name).casefold(): str(name) for name in table.columns}
    for name in names:
        # A shapefile cuts names to ten letters.
        field = by_fold.get(name) or (by_fold.get(name[:10]) if len(name) > 10 else None)
        if field is None:
            continue
        values = table[field].astype(object).where(table[field].notna(), None).tolist()
        known: dict[Any, Any] = {}
        for row, value in enumerate(values):
            if value is None or not open_rows[row]:
                continue
            word = value if isinstance(value, (str, int, float)) else str(value)
            if word not in known:
                try:
                    known[word] = parse(field, word)
                except ValueError:
                    known[word] = ValueError
            parsed = known[word]
            if parsed is ValueError:
                unread.setdefault(field, {})[row] = str(word)
            elif parsed is not None:
                result[row], open_rows[row] = parsed, False
    return result


def _words(value: object) -> str:
    return " ".join(re.sub(r"[_\-]", " ", normalise(value)).split())


def _word(field: str, value: object) -> str | None:
    """Return the value of a tag that is there; numbers and texts for "no" are not."""
    text = normalise(value)
    return None if text in ABSENT | {"0", "f", "false", "n", "nein", "non"} else text


def _length(field: str, value: object) -> float | None:
    text = str(value).strip()
    if isinstance(value, (int, float)) or text in ("0", "0.0"):
        number = float(text)
        if number < 0 and not is_unknown(value):
            raise ValueError(value)
        return number if np.isfinite(number) and number >= 0 else None
    metres = parse_length(value)
    if np.isnan(metres) or metres < 0:
        if is_unknown(value):
            return None
        raise ValueError(value)
    return metres


def _levels(field: str, value: object) -> float | None:
    text = _words(value)
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        if is_unknown(value):
            return None
        raise
    return number if np.isfinite(number) and number >= 0 else None


@functools.cache
def _entries(section: str) -> Mapping[str, str]:
    """Return the name of each spelling of a section of the vocabulary."""
    return {
        _words(spelling): name
        for name, spellings in _vocabulary()[section].items()
        for spelling in spellings
    }


def _entry(section: str, value: object) -> str | None:
    """Return the name that a section of the vocabulary has for a value, None for an absent one.

    Of several, such as "gabled;hipped", the first.
    """
    text = _words(value)
    if text in ABSENT:
        return None
    name = _entries(section).get(text) or _entries(section).get(_first(text))
    if name is None:
        raise ValueError(value)
    return name


def _first(text: str) -> str:
    return text.split(";")[0].strip()


def _shape(field: str, value: object) -> int | None:
    name = _entry("shapes", value)
    return None if name is None else ROOF_NUMBER[name]


def _angle(field: str, value: object) -> float | None:
    text = _DEGREES.sub("", normalise(value)).strip().replace(",", ".")
    if text in ABSENT:
        return None
    angle = float(text)
    if not 0 <= angle < 90:
        raise ValueError(value)
    return angle


def _direction(field: str, value: object) -> float | None:
    text = _DEGREES.sub("", _first(normalise(value))).strip().replace(",", ".")
    if text in ABSENT:
        return None
    for word, letter in _COMPASS_WORDS.items():
        text = re.sub(rf"[\s_\-]*{word}[\s_\-]*", letter, text)
    if text in _COMPASS:
        return _COMPASS.index(text) * 22.5
    angle = float(text)
    if not np.isfinite(angle):
        raise ValueError(value)
    return angle % 360.0


def _orientation(field: str, value: object) -> int | None:
    name = _entry("orientations", value)
    if name is None:
        return None
    return ALONG if name == "along" else ACROSS


def _colour(field: str, value: object) -> tuple[int, int, int, int] | None:
    """Return the colour of a name of CSS, with any spaces, or of "#a52", "#aa5522", "aa5522"."""
    text = normalise(value).split(";")[0].strip()
    if text in ABSENT:
        return None
    match = _HEX.fullmatch(text)
    name = f"#{match[1]}" if match else re.sub(r"[\s_\-]", "", text)
    red, green, blue = ImageColor.getrgb(name)[:3]  # ValueError if there is no such colour
    return red, green, blue, 255


def _material(field: str, value: object) -> tuple[int, int, int, int] | None:
    text = _words(normalise(value).split(";")[0])
    if text in ABSENT:
        return None
    colour = _materials().get(text)
    if colour is None:
        raise ValueError(value)
    return colour


@functools.cache
def _materials() -> Mapping[str, tuple[int, int, int, int]]:
    return {
        _words(name): (*ImageColor.getrgb(colour)[:3], 255)
        for name, colour in _vocabulary()["materials"].items()
    }


@dataclass
class TagTally:
    """Counts of buildings with tags that are not understood, over the blocks of a region."""

    counts: dict[str, int] = dataclass_field(default_factory=dict)
    examples: dict[str, str] = dataclass_field(default_factory=dict)

    def add(self, unread: Unread, shown: NDArray) -> None:
        """Count the values of a block in the rows `shown`, indices."""
        rows = set(shown.tolist())
        for name, values in unread.items():
            own = [value for row, value in values.items() if row in rows]
            if own:
                self.counts[name] = self.counts.get(name, 0) + len(own)
                self.examples.setdefault(name, own[0])

    def warnings(self) -> tuple[str, ...]:
        """Return what a user should know, a sentence for each attribute."""
        texts = []
        for name, count in sorted(self.counts.items()):
            of = f"of {count:,} {'building' if count == 1 else 'buildings'} is"
            told = name.format(of=of) if name in CLASHES.values() else f"{name} {of} not understood"
            example = self.examples[name]
            shown = example if name in CLASHES.values() else repr(example)
            texts.append(f"{told}, such as {shown}: they are made as if they had none")
        return tuple(texts)
