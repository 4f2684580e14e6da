"""Heights of buildings and trees in the columns of a layer: which columns, unit and meaning.

geo_io/legends/heights.yaml lists the columns of publishers, and what they mean. The choice depends
on the layer alone, and not on the region.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geo_io.errors import InputError, nearest_name
from geo_io.packaged import packaged_yaml
from geo_io.semantics.lengths import (
    FOOT,
    LEVEL,
    METRES_PER_LEVEL,
    ROOF_METRES,
    UNITS,
    UNKNOWN_NUMBERS,
    TextStyle,
    comma_is_decimal,
    is_unknown,
    parse_length,
    unit_of_word,
)

HIGHEST = 900.0
"""Heights above this, in metres, are errors of the source."""

MOST_LEVELS = 170.0
"""Numbers of levels above this are errors of the source; the tallest building has 163."""

FEWEST = 3
"""Numbers from which a median says something."""

UNKNOWN_LEVELS = (99.0,)
"""Numbers of levels that say that nothing is known."""

LOWEST = 1.0
"""A roof less than this above the ground of the DEM, in metres, has another datum or is none."""

LOOK_LIKE_HEIGHTS = re.compile(
    r"height|hgt|h(?:o|oe|ö)he|hauteur|haut_|altura|altezza|hoogte|h[öo]jd|elev|z_?m(?:ax|in)|roof|"
    r"dak|dach|toit|level|floor|stor(?:e?y|ies)|etage|geschoss|bouwlag|plantas|(?:^|_)ht(?:_|$)"
)
"""Names of columns that a message offers where no height is known."""

_ABOVE_SEA = re.compile(r"above_?sea|(?:^|_)a?m?sl(?:_|$)|(?:^|_)(?:nhn|nap|navd(?:88)?)(?:_|$)")
"""Names of columns of heights above the sea."""

_OF_ROOF = re.compile(
    r"roof|dach|dak|toit|top|max|ridge|first|traufe|nok|tetto|gronda|above_?sea|(?:^|_)z_?t(?:op)?$"
)
_OF_GROUND = re.compile(
    r"ground|gnd|base|grd|(?:^|_)min|min(?:_|$)|boden|gelaende|terrain|sol(?:_|$)|foot|fuss|maaiveld"
)
"""Names of columns of heights above the sea that are those of roofs, or of the ground."""

_UNIT_WORD = "(us_?ft|ftus|ft|feet|foot|inch(?:es)?|in|metres?|meters?|mm|cm|dm|m)"
_UNIT_IN_NAME = re.compile(rf"(?:[\s_\-.]+|(?=[(\[]))[(\[]?{_UNIT_WORD}[)\]]?[\s_\-.]*$")
_UNIT_NAMES = {
    "feet": "ft",
    "foot": "ft",
    "usft": "us-ft",
    "ftus": "us-ft",
    "inch": "in",
    "inches": "in",
}
_UNITS_BESIDE = (
    *("{}_unit", "{}_units", "{}_uom", "unit_{}", "units", "uom", "height_unit", "height_units"),
    "unit",
)
"""Columns that name the unit of another column."""


@dataclass(frozen=True)
class Publisher:
    """What the columns of a publisher mean; geo_io/legends/heights.yaml describes the fields."""

    name: str
    title: str
    source: str
    signs: tuple[tuple[str, ...], ...] = ()
    unit: str | None = None
    top: tuple[str, ...] = ()
    eaves: tuple[str, ...] = ()
    roof: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    sea: tuple[str, ...] = ()
    parcels: bool = False
    footprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeightColumn:
    """A column of heights, or the difference of two.

    Attributes
    ----------
    field : str
        The column.
    minus : str or None
        The column of heights above sea to subtract.
    style : TextStyle
        Unit and spelling of its numbers.
    why : str
        Where the unit is from: "asked", "name", "column", "publisher", "crs" or "default".
    beside : str or None
        The column that names the unit of each feature, if they differ.
    """

    field: str
    minus: str | None
    style: TextStyle
    why: str
    beside: str | None = None

    @property
    def name(self) -> str:
        """The column, or the difference, in messages."""
        return self.field if self.minus is None else f"{self.field} - {self.minus}"


@dataclass(frozen=True)
class HeightReading:
    """How the heights of a layer are read: columns in order of preference.

    Attributes
    ----------
    publisher : str
        Whose columns they are; "common" if no publisher's.
    top, eaves, roof : tuple of HeightColumn
        From the ground to the top of the roof, to the eaves, and of the roof alone.
    levels : tuple of str
        Numbers of levels.
    sea : tuple of str
        Heights above sea.
    roofs_at_sea : tuple of HeightColumn
        Those of them that are of roofs: the DEM gives the ground below.
    others : tuple of str
        Other columns that look like heights.
    too_tall : tuple of str
        Columns of heights whose middle is taller than any building, as "height (1200 m)".
    """

    publisher: str = "common"
    top: tuple[HeightColumn, ...] = ()
    eaves: tuple[HeightColumn, ...] = ()
    roof: tuple[HeightColumn, ...] = ()
    levels: tuple[str, ...] = ()
    sea: tuple[str, ...] = ()
    roofs_at_sea: tuple[HeightColumn, ...] = ()
    others: tuple[str, ...] = ()
    too_tall: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        of_heights = [*self.top, *self.eaves, *self.roof, *self.roofs_at_sea]
        names = [
            name
            for column in of_heights
            for name in (column.field, column.minus, column.beside)
            if name
        ]
        return list(dict.fromkeys([*names, *self.levels]))

    def read(self, table: pd.DataFrame) -> Heights:
        """Return the heights of the n features of a table."""
        top, unread = _first(table, self.top, HIGHEST)
        eaves, unread_eaves = _first(table, self.eaves, HIGHEST)
        roof, _ = _first(table, self.roof, HIGHEST)
        unread = np.where(unread == "", unread_eaves, unread)
        style = TextStyle(LEVEL)
        columns = tuple(HeightColumn(name, None, style, "name") for name in self.levels)
        most = MOST_LEVELS * METRES_PER_LEVEL + ROOF_METRES
        from_levels, unread_levels = _first(table, columns, most)
        unread = np.where(unread == "", unread_levels, unread)
        levels = (from_levels - ROOF_METRES) / METRES_PER_LEVEL
        unsaid = np.isin(levels, UNKNOWN_LEVELS)
        levels[unsaid] = from_levels[unsaid] = np.nan
        if self.publisher != "osm":  # there, a building of 0 levels is a roof on the ground
            levels[levels <= 0] = np.nan
        from_levels[from_levels <= ROOF_METRES] = np.nan
        eaves = np.where(eaves > top, top, eaves)
        known = ~np.isnan(top) | ~np.isnan(eaves)
        return Heights(
            top=np.where(known, top, from_levels),
            eaves=eaves,
            roof=roof,
            levels=levels,
            measured=known,
            unread=np.where(known, "", unread),
            at_sea=np.where(known, np.nan, self._at_sea(table)),
        )

    def _at_sea(self, table: pd.DataFrame) -> NDArray:
        """Return the heights of roofs above sea, (n,) float64 metres, NaN where none is known."""
        result = np.full(len(table), np.nan)
        for column in self.roofs_at_sea:
            if column.field in table.columns:
                values = _numbers(table[column.field], column.style)
                stored = values / UNITS[column.style.unit]
                values = np.where(np.isin(stored, list(UNKNOWN_NUMBERS)), np.nan, values)
                result = np.where(np.isnan(result), values, result)
        return result

    def tops(self, table: pd.DataFrame, highest: float) -> NDArray:
        """Return heights up to `highest` of other features than buildings, (n,) float64 metres."""
        return _first(table, (*self.top, *self.eaves), highest)[0]

    def summary(self) -> dict[str, object]:
        """Describe the columns as JSON values."""
        return {
            "publisher": self.publisher,
            **{
                kind: [
                    {"field": column.name, "unit": column.style.unit, "unit_from": column.why}
                    for column in getattr(self, kind)
                ]
                for kind in ("top", "eaves", "roof")
            },
            "levels": list(self.levels),
            "above_sea": list(self.sea),
            "not_read": list(self.others),
        }


@dataclass(frozen=True)
class Heights:
    """Heights of n features, metres; NaN where they are not known.

    Attributes
    ----------
    top : NDArray (n,) float64
        From the ground to the highest point of the roof; from the levels if nothing else is known.
    eaves : NDArray (n,) float64
        From the ground to the eaves.
    roof : NDArray (n,) float64
        Of the roof alone.
    levels : NDArray (n,) float64
        Number of levels; 0 only if OpenStreetMap's tags say so.
    measured : NDArray (n,) bool
        Whether top or eaves come from a height, and not from levels.
    unread : NDArray (n,) object
        A value that is there and is not understood, such as "height='tall'"; "" for others.
    at_sea : NDArray (n,) float64
        Height of the roof above sea where no height above ground is known.
    """

    top: NDArray
    eaves: NDArray
    roof: NDArray
    levels: NDArray
    measured: NDArray
    unread: NDArray
    at_sea: NDArray

    def take(self, rows: NDArray) -> Heights:
        """Return the heights of the features with these indices."""
        return Heights(**{name: values[rows] for name, values in vars(self).items()})

    def over(self, ground: NDArray) -> Heights:
        """Return heights in which a roof above sea is that much above the ground (n,), metres.

        A roof that is not above the ground is not understood.
        """
        above = self.at_sea - ground
        with np.errstate(invalid="ignore"):
            usable = (above >= LOWEST) & (above <= HIGHEST)
        odd = np.flatnonzero(np.isfinite(above) & ~usable)
        unread = self.unread.copy()
        unread[odd] = [
            f"a roof at {self.at_sea[row]:g} m above sea over ground at {ground[row]:.1f} m"
            for row in odd.tolist()
        ]
        return replace(
            self,
            top=np.where(usable, above, self.top),
            measured=self.measured | usable,
            unread=unread,
        )

    @property
    def known(self) -> NDArray:
        """Features of which a height is known, (n,) bool."""
        return ~np.isnan(self.top) | ~np.isnan(self.eaves)


def choose_heights(
    fields: Sequence[str],
    sample: pd.DataFrame,
    crs: str,
    *,
    field: str | None = None,
    unit: str | None = None,
) -> HeightReading:
    """Choose the columns of heights of a layer, and their units.

    The unit of a number is, in this order, that in the text itself, that in the column's name, the
    one asked for, that of a column of units, the publisher's, the unit of the layer's projected
    CRS, metres.

    Parameters
    ----------
    fields : sequence of str
        The columns of the layer.
    sample : DataFrame
        Its first features, which tell how texts are spelt.
    crs : str
        Its CRS.
    field : str, optional
        The column of heights above ground that the user names.
    unit : str, optional
        The unit that the user names.
    """
    by_fold = {name.casefold(): name for name in fields}
    publisher = next((each for each in publishers() if _signed(each, by_fold)), None)
    entries = [*([publisher] if publisher else []), _common()]
    found: dict[str, list[HeightColumn]] = {"top": [], "eaves": [], "roof": []}
    levels, sea = list[str](), list[str]()
    if field is not None and (named := _spelt(field, by_fold)):
        found["top"].append(_styled(named, None, sample, crs, unit, None))
    claimed: set[str] = set()
    for entry in entries:
        meant = set(claimed)  # A publisher's word on a column stands; the common names fill gaps.
        for kind, columns in found.items():
            for text in getattr(entry, kind):
                for column in _columns(text, by_fold, sample, crs, unit, entry):
                    if column.minus is None and column.field in meant:
                        continue
                    if column not in columns:
                        columns.append(column)
                    claimed.add(column.field)
        for text in entry.levels:
            name = _spelt(text, by_fold)
            if name and name not in levels and name not in meant:
                levels.append(name)
        of_sea = [name for text in entry.sea if (name := _spelt(text, by_fold))]
        sea = list(dict.fromkeys([*sea, *of_sea]))
        claimed |= set(sea)
    used = {
        name
        for columns in found.values()
        for column in columns
        for name in (column.field, column.minus)
    }
    too_tall: list[str] = []
    for kind, columns in found.items():
        middles = [_middle(column, sample) for column in columns]
        too_tall += [
            f"{column.name} ({middle:g} {column.style.unit})"
            for column, middle in zip(columns, middles, strict=True)
            if middle * UNITS[column.style.unit] > HIGHEST
        ]
        found[kind] = [
            column
            for column, middle in zip(columns, middles, strict=True)
            if not middle * UNITS[column.style.unit] > HIGHEST
        ]
    if publisher is None:  # perhaps the height of the roof above ground
        used -= {column.field for column in found["roof"]}
    sea += [name for name in fields if name not in {*used, *sea} and _is_above_sea(name)]
    roofs = [
        _styled(name, None, sample, crs, unit, publisher.unit if publisher else None)
        for name in sea
        if _OF_ROOF.search(name.casefold()) and not _OF_GROUND.search(name.casefold())
    ]
    used |= {*levels, *sea, "min_height", "min_level"}
    others = [
        name for name in fields if name not in used and LOOK_LIKE_HEIGHTS.search(name.casefold())
    ]
    return HeightReading(
        publisher=publisher.name if publisher else "common",
        top=tuple(found["top"]),
        eaves=tuple(found["eaves"]),
        roof=tuple(found["roof"]),
        levels=tuple(levels),
        sea=tuple(sea),
        roofs_at_sea=tuple(roofs),
        others=tuple(others),
        too_tall=tuple(dict.fromkeys(too_tall)),
    )


def _middle(column: HeightColumn, sample: pd.DataFrame) -> float:
    """Return the median of the numbers above 0 of a column without a unit of their own; else NaN.

    Codes for unknown are left out.
    """
    if column.field not in sample.columns or column.minus is not None or column.beside:
        return np.nan
    numbers = pd.to_numeric(sample[column.field], errors="coerce").to_numpy(float)
    numbers = numbers[(numbers > 0) & ~np.isin(numbers, list(UNKNOWN_NUMBERS))]
    return float(np.median(numbers)) if len(numbers) >= FEWEST else np.nan


def _is_above_sea(name: str) -> bool:
    """Return whether a column is one of heights above the sea, by its name.

    Its name says so, or is that of a publisher's column, also with a unit.
    """
    bare = _letters(unit_in_name(name)[0])
    return bool(_ABOVE_SEA.search(name.casefold())) or bare in _sea_names()


@functools.cache
def _sea_names() -> frozenset[str]:
    return frozenset(_letters(name) for entry in _entries() for name in entry.sea)


def footprint_columns() -> frozenset[str]:
    """Return the names of columns that only layers of footprints have."""
    return frozenset(_common().footprints)


def of_parcels(reading: HeightReading) -> bool:
    """Return whether a layer is one of lots of land, with the heights of what stands on them."""
    return any(each.name == reading.publisher and each.parcels for each in publishers())


def of_buildings(reading: HeightReading, fields: Sequence[str]) -> bool:
    """Return whether the columns of a layer are those of a publisher of footprints alone."""
    known = any(
        each.name == reading.publisher and each.name != "osm" and not each.parcels
        for each in publishers()
    )
    return known or bool({name.casefold() for name in fields} & footprint_columns())


def height_tags() -> tuple[str, ...]:
    """Return OpenStreetMap's tags of heights, which other columns can contain."""
    osm = next(each for each in publishers() if each.name == "osm")
    return (*osm.top, *osm.roof, *osm.levels)


def require_height_field(layers: Sequence[tuple[str, Sequence[str]]], name: str | None) -> None:
    """Raise InputError if none of the layers, given as (name, fields), has the column `name`."""
    every = [field for _, fields in layers for field in fields]
    if name is None or name.casefold() in {field.casefold() for field in every}:
        return
    listed = "; ".join(
        f"{layer} has {', '.join(fields) or 'no attributes'}" for layer, fields in layers
    )
    raise InputError(
        f"no layer has an attribute {name!r}: {listed or 'there is no vector layer'}",
        f"name one of them with `height_field`{nearest_name(name, every)}",
    )


@functools.cache
def publishers() -> tuple[Publisher, ...]:
    """Return the publishers of geo_io/legends/heights.yaml, without "common"."""
    return tuple(entry for entry in _entries() if entry.signs)


@functools.cache
def _common() -> Publisher:
    return next(entry for entry in _entries() if not entry.signs)


@functools.cache
def _entries() -> tuple[Publisher, ...]:
    rows = packaged_yaml("legends", "heights.yaml")
    return tuple(Publisher(**{key: _frozen(value) for key, value in row.items()}) for row in rows)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def unit_in_name(name: str) -> tuple[str, str | None]:
    """Split a column's name into the name without a unit, and the unit: "hgt_ft" is ("hgt", "ft").

    The unit is None if the name has none.
    """
    folded = name.casefold()
    match = _UNIT_IN_NAME.search(folded)
    if match is None or match.start() == 0:
        for ending in ("feet", "ft", "cm", "meters", "metres"):  # "heightft", "heightInFeet"
            if folded.endswith(ending) and len(folded) > len(ending) + 2:
                base = folded.removesuffix(ending)
                unit = "m" if ending.startswith("met") else _UNIT_NAMES.get(ending, ending)
                return base.removesuffix("in") if len(base) > 6 else base, unit
        return folded, None
    unit = match[1].replace("_", "")
    if unit.startswith("met"):
        unit = "m"
    return re.sub(r"[\s_\-.]in$", "", folded[: match.start()]), _UNIT_NAMES.get(unit, unit)


def unit_of_crs(crs: str) -> str | None:
    """Return "ft" or "us-ft" if the axes of a projected CRS are in feet, else None."""
    parsed = pyproj.CRS.from_user_input(crs)
    if not parsed.is_projected:
        return None
    factor = parsed.axis_info[0].unit_conversion_factor
    if abs(factor - UNITS["us-ft"]) < 1e-9:
        return "us-ft"
    return "ft" if abs(factor - FOOT) < 1e-7 else None


def _signed(publisher: Publisher, by_fold: dict[str, str]) -> bool:
    return any(
        all(name.casefold() in by_fold or _cut(name) in by_fold for name in names)
        for names in publisher.signs
    )


def _cut(name: str) -> str:
    """Return a name as a shapefile cuts it; itself if it is short."""
    return name.casefold()[:10]


def _columns(
    text: str,
    by_fold: dict[str, str],
    sample: pd.DataFrame,
    crs: str,
    unit: str | None,
    entry: Publisher,
) -> list[HeightColumn]:
    """Return the column that an entry of the YAML names, if the layer has it."""
    first, _, second = text.partition(" - ")
    names, below = (_names(each, by_fold, units=not entry.signs) for each in (first, second))
    chosen: list[tuple[str, str | None]] = [(name, None) for name in names]
    if second:
        chosen = [(names[0], below[0])] if names and below else []
    return [_styled(name, minus, sample, crs, unit, entry.unit) for name, minus in chosen]


def _names(text: str, by_fold: dict[str, str], *, units: bool) -> list[str]:
    """Return a layer's own names of a column, also with a unit (`units`)."""
    names = [name for name in [_spelt(text, by_fold)] if name]
    if units and text:
        bare = _letters(text)
        names += [name for fold, name in by_fold.items() if _letters(unit_in_name(fold)[0]) == bare]
    return list(dict.fromkeys(names))


def _spelt(name: str, by_fold: dict[str, str]) -> str | None:
    """Return a layer's own spelling of a column.

    Blanks and signs do not count, and a shapefile cuts names to ten letters.
    """
    bare = _letters(name.casefold())
    return (
        by_fold.get(name.casefold())
        or by_fold.get(_cut(name))
        or next((own for other, own in by_fold.items() if _letters(other) == bare), None)
    )


@functools.lru_cache(maxsize=4096)
def _letters(name: str) -> str:
    """Return the letters and digits of a name: "building height" is "building_height"."""
    return "".join(letter for letter in name if letter.isalnum())


def _unit_beside(field: str, sample: pd.DataFrame) -> tuple[str | None, str | None]:
    """Return the unit that a column beside a column of heights names for all features.

    And that column, if it names several units.
    """
    by_fold = {str(name).casefold(): str(name) for name in sample.columns}
    for pattern in _UNITS_BESIDE:
        name = by_fold.get(pattern.format(field.casefold()))
        if name is None or name == field:
            continue
        words = {str(value) for value in sample[name].dropna()}
        units = {unit_of_word(word) for word in words}
        if units and units <= set(UNITS):
            return (units.pop(), None) if len(units) == 1 else (None, name)
    return None, None


def _styled(
    field: str,
    minus: str | None,
    sample: pd.DataFrame,
    crs: str,
    asked: str | None,
    published: str | None,
) -> HeightColumn:
    named = unit_in_name(field)[1]
    one, several = (None, None) if minus else _unit_beside(field, sample)
    units = {
        "name": named,
        "asked": asked,
        "column": one,
        "publisher": published,
        "crs": unit_of_crs(crs),
    }
    why, unit = next(((why, unit) for why, unit in units.items() if unit), ("default", "m"))
    values = sample[field].tolist() if field in sample.columns else []
    beside = None if named or asked else several
    return HeightColumn(field, minus, TextStyle(unit, comma_is_decimal(values)), why, beside)


def _first(
    table: pd.DataFrame, columns: Sequence[HeightColumn], highest: float
) -> tuple[NDArray, NDArray]:
    """Return the first usable length of each feature, and a value that is not understood.

    Returns
    -------
    metres : NDArray (n,) float64
        NaN where there is none.
    unread : NDArray (n,) object
        "" where every value is understood, or is missing.
    """
    metres, unread = np.full(len(table), np.nan), np.full(len(table), "", object)
    for column in columns:
        if column.field not in table.columns:
            continue
        if column.minus is not None:
            if column.minus not in table.columns:
                continue
            high, low = (
                _numbers(table[name], column.style) for name in (column.field, column.minus)
            )
            values = high - low
            usable = (values > 0) & (values <= highest)
            odd = np.full(len(table), "", object)
        else:
            values, odd = _lengths_by_unit(table, column, highest)
            usable = ~np.isnan(values)
        fresh = np.isnan(metres)
        metres = np.where(fresh & usable, values, metres)
        unread = np.where(fresh & (unread == ""), odd, unread)
    return metres, np.where(np.isnan(metres), unread, "")


def _single(value: object) -> object:
    """Return a value of an attribute, None for no value; lists, as GML has them, as text."""
    if isinstance(value, list | tuple | dict | np.ndarray):
        return str(value)
    return None if pd.isna(value) else value  # type: ignore[call-overload]


def _lengths_by_unit(
    table: pd.DataFrame, column: HeightColumn, highest: float
) -> tuple[NDArray, NDArray]:
    """Return `_lengths` of a column whose unit may stand in another one, feature by feature."""
    series = table[column.field]
    if column.beside is None or column.beside not in table.columns:
        return _lengths(series, column, highest)
    words = table[column.beside]
    units = [None if pd.isna(word) else unit_of_word(str(word)) for word in words]
    own = np.array([unit if unit in UNITS else column.style.unit for unit in units], object)
    values, odd = np.full(len(table), np.nan), np.full(len(table), "", object)
    for unit in dict.fromkeys(own.tolist()):
        rows = np.flatnonzero(own == unit)
        styled = replace(column, style=replace(column.style, unit=unit))
        values[rows], odd[rows] = _lengths(series.iloc[rows], styled, highest)
    return values, odd


def _lengths(series: pd.Series, column: HeightColumn, highest: float) -> tuple[NDArray, NDArray]:
    """Return lengths in metres, NaN if not usable, and the texts that are not understood."""
    unit, style = UNITS.get(column.style.unit), column.style
    if series.dtype.kind in "fiu" and unit is not None:
        numbers = series.to_numpy(float)
        metres = numbers * unit
        usable = (metres > 0) & (metres <= highest)
        odd = np.full(len(series), "", object)
        strange = ~usable & ~np.isnan(numbers) & ~np.isin(numbers, list(UNKNOWN_NUMBERS))
        odd[strange] = [f"{column.field}={value:g}" for value in numbers[strange]]
        return np.where(usable, metres, np.nan), odd
    found: dict[object, tuple[float, str]] = {}
    rows = [_single(value) for value in series.tolist()]
    for value in set(rows):
        length = parse_length(value, style)
        if 0 < length <= highest:
            found[value] = length, ""
        else:
            nothing = length == 0 or is_unknown(value)  # "0 m" says as little as 0
            found[value] = np.nan, "" if nothing else f"{column.field}={value!r}"
    return (
        np.array([found[value][0] for value in rows], float),
        np.array([found[value][1] for value in rows], object).reshape(len(rows)),
    )


def _numbers(series: pd.Series, style: TextStyle) -> NDArray:
    """Return heights above sea in metres, which may be negative, (n,) float64."""
    return pd.to_numeric(series, errors="coerce").to_numpy(float) * UNITS[style.unit]
