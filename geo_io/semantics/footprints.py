"""Layers of building footprints, whose columns of use or type do not turn them into land use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.errors import InputError
from geo_io.legend import ABSENT, UNKNOWN, UNMAPPED, codes, normalise
from geo_io.semantics.attributes import TAG_FIELD, expand_tags
from geo_io.semantics.choose_legend import SAMPLE_FEATURES, choose_legend
from geo_io.semantics.classify import FeatureClasses, LegendChoice, classify
from geo_io.semantics.heights import (
    HeightReading,
    choose_heights,
    height_tags,
    of_buildings,
    of_parcels,
)
from geo_io.semantics.options import SemanticsOptions
from geo_io.vector.source import VectorSource

LAND_NAMES = ("zon", "landuse", "land_use", "landcover", "parcel", "plot", "flaeche", "nutzung")
"""Parts of the names of layers of land, which can have heights (the highest that may be built)."""

FORESTS = ("broadleaf_forest", "needleleaf_forest", "mixed_forest")
KEPT = ("tree", *FORESTS, "river", "lake", "sea", "road", "rail")
"""Classes that an area keeps in a layer of footprints: no use of a building has such a name."""

MIXED = 0.1
"""A layer with a larger share of `KEPT` features is a map of everything, and not of footprints."""


BUILDING_COLUMNS = ("building", "building:part", "building_part")
NOT_SAID = ABSENT | {"0", "f", "false", "n", "nein", "non"}
"""What a column `building` holds where there is none."""


def interpret(
    source: VectorSource, options: SemanticsOptions
) -> tuple[LegendChoice | None, HeightReading]:
    """Return the legend of a vector layer, None for an empty one, and its columns of heights.

    A layer without classes is one of footprints if it has the columns of one.

    Raises
    ------
    InputError
        If no crosswalk maps any feature.
    """
    sample = source.head(SAMPLE_FEATURES)
    if len(sample) == 0:
        return None, HeightReading()
    with_tags = expand_tags(sample)
    fields = list(source.fields)
    if TAG_FIELD in (name.casefold() for name in fields):
        fields += [name for name in height_tags() if name not in fields]
    heights = choose_heights(
        fields, with_tags, source.crs, field=options.height_field, unit=options.height_unit
    )
    try:
        choice = choose_legend(source, options)
    except InputError:
        if not _has_columns_of_footprints(source, heights, options):
            raise
        choice = LegendChoice(options.crosswalks[-1], source.layer)
    assert choice is not None  # There are features.
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


def _has_columns_of_footprints(
    source: VectorSource, heights: HeightReading, options: SemanticsOptions
) -> bool:
    """Return whether the columns of a layer alone say that its areas are buildings."""
    if options.class_field is not None or options.legends or not options.crosswalks:
        return False
    names = [source.layer, *([_stem(source.path)] if source.path else [])]
    if _are_of_land(names):
        return False
    return _may_be_areas(source) and of_buildings(heights, source.fields)


def _are_of_land(names: Sequence[str]) -> bool:
    return any(word in name.casefold() for name in names for word in LAND_NAMES)


def _may_be_areas(source: VectorSource) -> bool:
    return "Polygon" in source.geometry_type or source.geometry_type in ("Unknown", "")


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
    if not _may_be_areas(source) or of_parcels(heights):
        return False
    code = classify(sample, choice).code
    if not np.isin(code, [UNMAPPED, codes()["residential"], *_uses()]).any():
        return False  # nothing to turn into buildings
    if np.isin(code, [codes()[name] for name in KEPT]).mean() > MIXED:
        return False
    names = [source.layer, choice.layer, *([_stem(source.path)] if source.path else [])]
    if any(_names_buildings(name, options) for name in names):
        return True
    if _are_of_land(names):
        return False
    if _says_which_are_buildings(sample, code):
        return False
    return bool(
        heights.levels or heights.eaves or heights.roof or of_buildings(heights, source.fields)
    )


def _says_which_are_buildings(sample: pd.DataFrame, code: NDArray) -> bool:
    """Return whether a column `building` is filled for buildings alone, as in OpenStreetMap.

    Then the other areas of the layer are land, though it has columns of heights and roofs: all of
    them where it is empty.
    """
    said, has_column = np.zeros(len(sample), bool), False
    for name in sample.columns:
        if str(name).casefold() in BUILDING_COLUMNS:
            has_column = True
            said |= [normalise(value) not in NOT_SAID for value in sample[name].tolist()]
    return has_column and not said[np.isin(code, [codes()["residential"], *_uses()])].any()


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
