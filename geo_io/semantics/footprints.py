"""Layers of building footprints, whose columns of use or type do not turn them into land use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.legend import UNKNOWN, UNMAPPED, codes
from geo_io.semantics.attributes import TAG_FIELD, expand_tags
from geo_io.semantics.choose_legend import SAMPLE_FEATURES, choose_legend
from geo_io.semantics.classify import FeatureClasses, LegendChoice, classify
from geo_io.semantics.heights import HeightReading, choose_heights, footprint_columns, height_tags
from geo_io.semantics.options import SemanticsOptions
from geo_io.vector.source import VectorSource

LAND_NAMES = ("zon", "landuse", "land_use", "landcover", "parcel", "plot", "flaeche", "nutzung")
"""Parts of the names of layers of land, which can have heights (the highest that may be built)."""

FORESTS = ("broadleaf_forest", "needleleaf_forest", "mixed_forest")
KEPT = ("tree", *FORESTS, "river", "lake", "sea", "road", "rail")
"""Classes that an area keeps in a layer of footprints: no use of a building has such a name."""

MIXED = 0.1
"""A layer with a larger share of `KEPT` features is a map of everything, and not of footprints."""


def interpret(
    source: VectorSource, options: SemanticsOptions
) -> tuple[LegendChoice | None, HeightReading]:
    """Return the legend of a vector layer, None for an empty one, and its columns of heights.

    Raises
    ------
    InputError
        If no crosswalk maps any feature.
    """
    choice = choose_legend(source, options)
    if choice is None:
        return None, HeightReading()
    sample = source.head(SAMPLE_FEATURES)
    with_tags = expand_tags(sample)
    fields = list(source.fields)
    if TAG_FIELD in (name.casefold() for name in fields):
        fields += [name for name in height_tags() if name not in fields]
    heights = choose_heights(
        fields, with_tags, source.crs, field=options.height_field, unit=options.height_unit
    )
    footprints = is_footprints(source, choice, sample, heights, options)
    return replace(choice, footprints=footprints), heights


def holds_buildings(source: VectorSource, options: SemanticsOptions) -> bool:
    """Return whether most features of a layer are buildings.

    Raises
    ------
    InputError
        If no crosswalk maps any feature.
    """
    choice, _ = interpret(source, options)
    if choice is None or choice.footprints:
        return choice is not None
    code = classify(source.head(SAMPLE_FEATURES), choice).code
    return bool((code == codes()["building"]).mean() > 0.5)


def is_footprints(
    source: VectorSource,
    choice: LegendChoice,
    sample: pd.DataFrame,
    heights: HeightReading,
    options: SemanticsOptions,
) -> bool:
    """Return whether a layer holds footprints of buildings, so that its areas are buildings.

    Its name says so ("building_footprints.shp"), or columns do that only footprints have. A class
    field or a legend that the user names decides instead.
    """
    if options.class_field is not None or choice.crosswalk in options.legends:
        return False
    if "Polygon" not in source.geometry_type and source.geometry_type not in ("Unknown", ""):
        return False
    code = classify(sample, choice).code
    if not np.isin(code, [UNMAPPED, codes()["residential"], *_uses()]).any():
        return False  # nothing to turn into buildings
    if np.isin(code, [codes()[name] for name in KEPT]).mean() > MIXED:
        return False
    names = [source.layer, choice.layer, *([_stem(source.path)] if source.path else [])]
    if any(_names_buildings(name, options) for name in names):
        return True
    if any(word in name.casefold() for name in names for word in LAND_NAMES):
        return False
    fields = {field.casefold() for field in source.fields}
    return bool(heights.levels or heights.eaves or heights.roof or fields & footprint_columns())


def as_buildings(classified: FeatureClasses, geometry: NDArray) -> FeatureClasses:
    """Return the classes of footprints: areas with a use, or of no known class, are buildings."""
    area = shapely.get_dimensions(geometry) == 2
    kept = np.isin(classified.code, [UNKNOWN, *(codes()[name] for name in KEPT)])
    code = np.where(area & ~kept, codes()["building"], classified.code)
    return replace(classified, code=code.astype(classified.code.dtype))


def _uses() -> Sequence[int]:
    kept = {codes()[name] for name in KEPT} | {codes()["building"]}
    return [code for code in codes().values() if code not in kept]


def _names_buildings(name: str, options: SemanticsOptions) -> bool:
    building = codes()["building"]
    return any(crosswalk.layer_class(name) == building for crosswalk in options.crosswalks)


def _stem(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].partition(".")[0]
