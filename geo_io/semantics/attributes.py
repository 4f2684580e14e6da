"""Widths, crowns and underground position of vector features, from common attributes.

Heights are in `geo_io.semantics.heights`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geo_io.legend import DENIALS, normalise
from geo_io.semantics.building_tags import form_fields
from geo_io.semantics.heights import height_tags
from geo_io.semantics.lengths import parse_length

# In order of preference: the first that has a usable value decides, feature by feature.
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
UNDERGROUND_FIELDS = ("is_underground",)
PLACE_FIELDS = ("location",)
COVER_FIELDS = ("covered",)
TAG_FIELD = "other_tags"
ATTRIBUTE_FIELDS = (
    *CROWN_FIELDS,
    *WIDTH_FIELDS,
    *LANE_FIELDS,
    *TUNNEL_FIELDS,
    *LEVEL_OF_GROUND_FIELDS,
    *UNDERGROUND_FIELDS,
    *PLACE_FIELDS,
    *COVER_FIELDS,
    *form_fields(),
)

SHOWN_TUNNELS = {"building_passage", "avalanche_protector"}
"""Tunnels that are visible from the side."""

LANE_METRES = 3.25
WIDEST = 200.0
"""Widths of lines above this, in metres, are errors of the source. Reading margins depend on it."""

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


def expand_tags(table: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """Add the tags of OSM's `other_tags` (hstore) that this module reads, and more, as columns."""
    column = next((name for name in table.columns if name.casefold() == TAG_FIELD), None)
    if column is None:
        return table
    tags = [
        dict(_TAG.findall(text)) if isinstance(text, str) else {}
        for text in values_of(table[column])
    ]
    present = {name for row in tags for name in row}
    columns = {name.casefold() for name in table.columns}
    wanted = dict.fromkeys((*ATTRIBUTE_FIELDS, *height_tags(), *more))
    fresh = [name for name in wanted if name in present and name not in columns]
    return table.assign(
        **{name: pd.Series([row.get(name) for row in tags], dtype=object) for name in fresh}
    )


def line_widths(table: pd.DataFrame, is_road: NDArray) -> NDArray:
    """Return the width of each line in metres, (n,) float64, NaN where no attribute gives one.

    Lanes count for roads only (`is_road`, (n,) bool).
    """
    result = first_metres(table, WIDTH_FIELDS, WIDEST)
    lanes = np.where(is_road, first_metres(table, LANE_FIELDS, 20.0), np.nan)
    return np.where(np.isnan(result), lanes * LANE_METRES, result)


def underground(table: pd.DataFrame) -> NDArray:
    """Return which features are underground, (n,) bool: tunnels, culverts, levels below the ground.

    OSM's `layer` only orders what crosses, and hides nothing.
    """
    hidden = np.zeros(len(table), bool)
    for name in present_columns(table, (*TUNNEL_FIELDS, *UNDERGROUND_FIELDS)):
        shown = DENIALS | SHOWN_TUNNELS
        hidden |= np.array(
            [normalise(value) not in shown for value in values_of(table[name])], bool
        )
    for name in present_columns(table, PLACE_FIELDS):
        hidden |= np.array(
            [normalise(value) == "underground" for value in values_of(table[name])], bool
        )
    for name in present_columns(table, LEVEL_OF_GROUND_FIELDS):
        hidden |= np.array([_signed(value) < 0 for value in values_of(table[name])], bool)
    return hidden


def under_a_cover(table: pd.DataFrame) -> NDArray:
    """Return which features have a cover, (n,) bool: of water, such as a reservoir, nothing is
    seen."""
    covered = np.zeros(len(table), bool)
    for name in present_columns(table, COVER_FIELDS):
        covered |= np.array(
            [normalise(value) not in DENIALS for value in values_of(table[name])], bool
        )
    return covered


def first_metres(table: pd.DataFrame, names: Sequence[str], highest: float) -> NDArray:
    """Return the first usable length of each feature among the attributes `names`, (n,) float64."""
    result = np.full(len(table), np.nan)
    for name in present_columns(table, names):
        values = values_of(table[name])
        lengths = {value: parse_length(value) for value in set(values)}
        metres = np.array([lengths[value] for value in values], float)
        usable = (metres > 0) & (metres <= highest)
        result = np.where(np.isnan(result) & usable, metres, result)
    return result


def present_columns(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns of a table with these names, in their order, in any case."""
    by_fold = {str(column).casefold(): str(column) for column in table.columns}
    present = [
        by_fold[spelling] for name in names for spelling in _spellings(name) if spelling in by_fold
    ]
    return list(dict.fromkeys(present))


def _spellings(name: str) -> tuple[str, ...]:
    """Return a name, and its first ten letters, to which a shapefile cuts it."""
    return (name, name[:10]) if len(name) > 10 else (name,)


def _signed(value: object) -> float:
    try:
        return float(str(value).strip())
    except ValueError:
        return np.nan
