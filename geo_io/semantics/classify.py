"""Classes of vector features, from a legend and their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geo_io.legend import UNKNOWN, UNMAPPED, Crosswalk, Rule, normalise
from geo_io.semantics.attributes import values_of


@dataclass(frozen=True)
class LegendChoice:
    """Legend of a layer.

    Attributes
    ----------
    crosswalk : Crosswalk
        What maps its values.
    layer : str
        The name of the layer for the crosswalk.
    footprints : bool
        Whether its areas are buildings, whatever use the crosswalk maps (`footprints`).
    """

    crosswalk: Crosswalk
    layer: str
    footprints: bool = False


@dataclass(frozen=True)
class FeatureClasses:
    """Classes of n features.

    Attributes
    ----------
    code : NDArray (n,) uint8
        Class code, UNMAPPED where no rule maps the feature.
    width : NDArray (n,) float64
        Width of lines in metres, NaN where the legend gives none.
    value : NDArray (n,) object
        The attribute value that decides, as text such as "landuse=forest".
    """

    code: NDArray
    width: NDArray
    value: NDArray


def classify(table: pd.DataFrame, choice: LegendChoice) -> FeatureClasses:
    """Apply a crosswalk to attributes, once for each distinct combination of values."""
    rules = choice.crosswalk.matching_rules([str(name) for name in table.columns])
    fields = list(dict.fromkeys(field for field, _ in rules))
    rows = (
        list(zip(*(values_of(table[field]) for field in fields), strict=True))
        if fields
        else [()] * len(table)
    )
    place: dict[tuple[Any, ...], int] = {}
    inverse = np.array([place.setdefault(row, len(place)) for row in rows], np.int64)
    columns = {field: [row[k] for row in place] for k, field in enumerate(fields)}
    code, width = choice.crosswalk.classify(columns, choice.layer, len(place))
    value = np.array(
        [_value_text(dict(zip(fields, row, strict=True)), rules, choice) for row in place], object
    )
    return FeatureClasses(code[inverse], width[inverse], value[inverse])


def _value_text(row: Mapping[str, Any], rules: list[tuple[str, Rule]], choice: LegendChoice) -> str:
    """Return the value that a rule maps, else the first present value, else "".

    Rules that map to "unknown" alone exclude features, such as those under construction. Their
    fields do not say what a feature is.
    """
    deciding = next((field for field, rule in rules if rule.lookup(row[field]) != UNMAPPED), None)
    if deciding is None and choice.crosswalk.layer_class(choice.layer) != UNMAPPED:
        return f"layer {choice.layer}"
    naming = (
        (field, rule)
        for field, rule in rules
        if any(code != UNKNOWN for code in rule.values.values())
    )
    deciding = deciding or next(
        (field for field, rule in naming if not rule.is_absent(row[field])), None
    )
    return "" if deciding is None else f"{deciding}={normalise(row[deciding])}"
