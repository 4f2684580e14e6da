"""Heights, widths and underground position of vector features, from common attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# In order of preference: the first that has a usable value decides, feature by feature.
HEIGHT_FIELDS = (
    "height",
    "building:height",
    "building_height",
    "hauteur",
    "measuredheight",
    "measured_height",
    "hoogte",
    "gebaeudehoehe",
    "hoehe",
    "höhe",
    "altura",
    "altezza",
    "höjd",
    "hojd",
    "height_m",
    "height_mean",
    "mean_height",
    "h_mean",
    "bldg_height",
    "bldgheight",
    "heightroof",
    "roof_height",
    "relh2",
    "render_height",
    "est_height",
)
LEVEL_FIELDS = (
    "building:levels",
    "building_levels",
    "levels",
    "nb_etages",
    "num_floors",
    "floors",
    "numfloors",
    "storeys",
    "stories",
    "storeysaboveground",
    "geschosse",
    "anz_geschosse",
    "bouwlagen",
    "plantas",
)
CROWN_FIELDS = (
    "diameter_crown",
    "crown_diameter",
    "crown_diam",
    "diam_crown",
    "kronendurchmesser",
    "kronedurch",
    "kroondiameter",
    "crown_width",
)
WIDTH_FIELDS = (
    "width",
    "largeur",
    "larg_chaus",
    "largeur_de_chaussee",
    "est_width",
    "breite",
    "breedte",
    "road_width",
)
LANE_FIELDS = ("lanes", "nb_voies", "nombre_de_voies", "num_lanes")
TUNNEL_FIELDS = ("tunnel",)
LEVEL_OF_GROUND_FIELDS = (
    "pos_sol",
    "position_par_rapport_au_sol",
    "relatievehoogteligging",
    "relheight",
)
MAP_LAYER_FIELDS = ("layer",)
PLACE_FIELDS = ("location",)
TAG_FIELD = "other_tags"
ATTRIBUTE_FIELDS = (
    *HEIGHT_FIELDS,
    *LEVEL_FIELDS,
    *CROWN_FIELDS,
    *WIDTH_FIELDS,
    *LANE_FIELDS,
    *TUNNEL_FIELDS,
    *LEVEL_OF_GROUND_FIELDS,
    *MAP_LAYER_FIELDS,
    *PLACE_FIELDS,
)

METRES_PER_LEVEL = 3.0
ROOF_METRES = 1.0
"""A building of n levels without a height is n x 3 m + 1 m tall."""
LANE_METRES = 3.25
HIGHEST = 900.0
"""Heights above this, in metres, are errors of the source."""
WIDEST = 200.0
"""Widths of lines above this, in metres, are errors of the source. Reading margins depend on it."""

_FOOT = 0.3048
_DECIMAL = r"(\d+(?:[.,]\d+)?)"
_FEET = re.compile(
    rf"{_DECIMAL}\s*(?:ft|feet|foot|['’′])\s*(?:{_DECIMAL}\s*(?:in|inch|inches|[\"”″]|''))?"
)
_METRES = re.compile(rf"{_DECIMAL}\s*(?:m|mt|mtr|meters?|metres?)?")
_TAG = re.compile(r'"((?:[^"\\]|\\.)*)"=>"((?:[^"\\]|\\.)*)"')


def attribute_columns(fields: Iterable[str]) -> list[str]:
    """Return those of the fields that the functions of this module read."""
    wanted = {TAG_FIELD} | {spelling for name in ATTRIBUTE_FIELDS for spelling in _spellings(name)}
    return [field for field in fields if field.casefold() in wanted]


def values_of(column: pd.Series) -> list[Any]:
    """Return a column as hashable Python values, None for missing ones."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [
        value if isinstance(value, (str, int, float, type(None))) else str(value)
        for value in values
    ]


def parse_metres(value: object, highest: float = HIGHEST) -> float:
    """Parse a length in metres: 12, "12.5 m", "12,5", "40 ft", 40'6".

    NaN for zero, negative numbers, numbers above `highest`, and text that is not a length.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        metres = float(value)
    else:
        text = "" if value is None else str(value).strip().casefold()
        if match := _METRES.fullmatch(text):
            metres = _number(match[1])
        elif match := _FEET.fullmatch(text):
            metres = (_number(match[1]) + _number(match[2] or "0") / 12) * _FOOT
        else:
            metres = np.nan
    return metres if 0 < metres <= highest else np.nan


def expand_tags(table: pd.DataFrame) -> pd.DataFrame:
    """Add the tags of OSM's `other_tags` (hstore) that this module reads as columns."""
    column = next((name for name in table.columns if name.casefold() == TAG_FIELD), None)
    if column is None:
        return table
    tags = [
        dict(_TAG.findall(text)) if isinstance(text, str) else {}
        for text in values_of(table[column])
    ]
    present = {name for row in tags for name in row}
    columns = {name.casefold() for name in table.columns}
    fresh = [
        name for name in dict.fromkeys(ATTRIBUTE_FIELDS) if name in present and name not in columns
    ]
    return table.assign(
        **{name: pd.Series([row.get(name) for row in tags], dtype=object) for name in fresh}
    )


def heights(table: pd.DataFrame) -> NDArray:
    """Return metres above ground of each feature, (n,) float64, from heights, else from levels.

    NaN where there is neither.
    """
    result = first_metres(table, HEIGHT_FIELDS, HIGHEST)
    levels = first_metres(table, LEVEL_FIELDS, HIGHEST / METRES_PER_LEVEL - 1)
    return np.where(np.isnan(result), levels * METRES_PER_LEVEL + ROOF_METRES, result)


def line_widths(table: pd.DataFrame, is_road: NDArray) -> NDArray:
    """Return the width of each line in metres, (n,) float64, NaN where no attribute gives one.

    Lanes count for roads only (`is_road`, (n,) bool).
    """
    result = first_metres(table, WIDTH_FIELDS, WIDEST)
    lanes = np.where(is_road, first_metres(table, LANE_FIELDS, 20.0), np.nan)
    return np.where(np.isnan(result), lanes * LANE_METRES, result)


def underground(table: pd.DataFrame, is_water: NDArray) -> NDArray:
    """Return which features are underground, (n,) bool: tunnels, culverts, levels below 0.

    OSM's `layer` only orders crossing features, and rivers often have -1 along their whole length,
    so it does not hide water (`is_water`, (n,) bool).
    """
    hidden = np.zeros(len(table), bool)
    for name in _present(table, TUNNEL_FIELDS):
        says_no = {None, "", "no", "0", "f", "false", "nan"}  # Geofabrik writes T and F.
        hidden |= np.array([_text(value) not in says_no for value in values_of(table[name])], bool)
    for name in _present(table, PLACE_FIELDS):
        hidden |= np.array(
            [_text(value) == "underground" for value in values_of(table[name])], bool
        )
    for name in _present(table, LEVEL_OF_GROUND_FIELDS):
        hidden |= np.array([_signed(value) < 0 for value in values_of(table[name])], bool)
    for name in _present(table, MAP_LAYER_FIELDS):
        hidden |= ~is_water & np.array(
            [_signed(value) < 0 for value in values_of(table[name])], bool
        )
    return hidden


def first_metres(table: pd.DataFrame, names: Sequence[str], highest: float) -> NDArray:
    """Return the first usable length of each feature among the attributes `names`, (n,) float64."""
    result = np.full(len(table), np.nan)
    for name in _present(table, names):
        values = values_of(table[name])
        lengths = {value: parse_metres(value, highest) for value in set(values)}
        metres = np.array([lengths[value] for value in values], float)
        result = np.where(np.isnan(result), metres, result)
    return result


def _present(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    by_fold = {str(column).casefold(): str(column) for column in table.columns}
    present = [
        by_fold[spelling] for name in names for spelling in _spellings(name) if spelling in by_fold
    ]
    return list(dict.fromkeys(present))


def _spellings(name: str) -> tuple[str, ...]:
    """Return a name, and its first ten letters, to which a shapefile cuts it."""
    return (name, name[:10]) if len(name) > 10 else (name,)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip().casefold()


def _signed(value: object) -> float:
    try:
        return float(str(value).strip())
    except ValueError:
        return np.nan
