"""Classes of vector features, from a legend and their attributes; lines that stand for areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.legend import UNKNOWN, UNMAPPED, Crosswalk, Rule, codes, normalise
from geo_io.semantics.attributes import values_of
from geo_io.vector.osm import is_osm
from geo_io.vector.osm_whole import comes_back
from geo_io.vector.source import VectorSource

DRAWN = ("road", "rail", "paved", "river", "tree")
"""Classes whose lines are what they are, and no outlines."""

MOST = 200_000
"""Features of a layer from which its outlines are left as lines: they are read into memory."""

OUTLINE_SAMPLE = 2000
"""Features from the start of a file that tell whether it has outlines."""


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


def is_outline(classified: FeatureClasses, geometry: NDArray) -> NDArray:
    """Return which features are lines of a class of areas, without a width of their own, (n,)."""
    code = classified.code
    drawn = [UNMAPPED, UNKNOWN, *(codes()[name] for name in DRAWN)]
    line = shapely.get_dimensions(geometry) == 1
    return np.asarray(line & ~np.isin(code, drawn) & np.isnan(classified.width))


def with_areas(source: VectorSource, choice: LegendChoice | None) -> VectorSource:
    """Return a layer in which lines that stand for areas are areas; itself if it has none.

    Such are outlines that were drawn as lines, as CAD programs and KML have them: lines of a class
    of areas, such as a wood, that are closed, or come back to where they began. The first features
    of a layer decide whether it is looked through. Those of OpenStreetMap files are areas already
    (`geo_io.vector.osm`).
    """
    kind = source.geometry_type.casefold()
    if choice is None or "polygon" in kind or "point" in kind or source.feature_count > MOST:
        return source
    if is_osm(source.origin or ""):
        return source
    rules = choice.crosswalk.matching_rules(source.fields)
    fields = list(dict.fromkeys(field for field, _ in rules))
    table, geometry = source.everything(fields, OUTLINE_SAMPLE)
    if not is_outline(classify(table, choice), geometry).any():
        return source
    table, geometry = source.everything(source.fields)
    classified = classify(table, choice)
    rows = np.flatnonzero(is_outline(classified, geometry))
    made, gaps, names = 0, 0, list[str]()
    for row in rows.tolist():
        merged = shapely.line_merge(geometry[row])
        parts = shapely.get_parts(merged)
        if not len(parts) or not all(comes_back(part) for part in parts):
            continue
        areas = [shapely.Polygon(part.coords) for part in parts]
        geometry[row] = areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)
        made += 1
        gaps += any(not part.is_closed for part in parts)
        names.append(str(classified.value[row]))
    if not made:
        return source
    one = made == 1
    note = (
        f"{made:,} closed {'line' if one else 'lines'} of a class of areas, such as {names[0]}, "
        f"{'is' if one else 'are'} taken for {'an area' if one else 'areas'}"
    )
    if gaps:
        note += f"; {gaps:,} had a gap, which a straight line closes"
    frame = gpd.GeoDataFrame(table, geometry=geometry, crs=source.crs)
    return replace(
        source, frame=frame, geometry_type="Unknown", indexed=True, notes=(*source.notes, note)
    )
