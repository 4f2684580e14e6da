"""Choice of the legend of a vector layer or class raster, from a sample of its values."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geo_io.errors import InputError, nearest_name
from geo_io.legend import ANY_VALUE, UNKNOWN, UNMAPPED, Crosswalk, Rule, normalise
from geo_io.raster.source import BASE_ONLY, RasterSource, open_dataset
from geo_io.semantics.attributes import values_of
from geo_io.semantics.classify import LegendChoice, classify
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.structures.tags import says_structure
from geo_io.vector.source import VectorSource
from geo_io.water.coastlines import says_coastline

SAMPLE_FEATURES = 2000
"""Number of features from the start of a file that decide on its legend. The choice does not depend
on the region."""

SAMPLE_CELLS = 1024
"""Cells along each edge of a raster that decide on its legend."""

SAME_COLORS = 2
"""Least values whose colours show which classification a raster has."""

COLOR_TOLERANCE = 8
"""Difference of red, green or blue from that of a classification that is still its colour."""

NAMING_TAGS = {
    "description",
    "product",
    "product_name",
    "product_type",
    "tifftag_documentname",
    "tifftag_imagedescription",
    "title",
}
"""Tags of a raster, in lower case, that may name its classification."""

MANY_VALUES = 256
"""Most distinct values of a raster of classes."""


def choose_legend(source: VectorSource, options: SemanticsOptions) -> LegendChoice | None:
    """Choose the crosswalk of a vector layer from its fields and first features.

    The first of the user's legends that maps any feature is chosen. Otherwise it is the crosswalk
    that maps the largest share of the sample; of equal ones the first, "generic" last.

    Returns
    -------
    LegendChoice or None
        None for an empty layer.

    Raises
    ------
    InputError
        If no crosswalk maps any feature.
    """
    sample = source.head(SAMPLE_FEATURES)
    if len(sample) == 0:
        return None
    field = _field_named(source, options.class_field)
    for legend in options.legends:
        choice = _choice(source, legend, field)
        if _share(sample, choice) > 0:
            return choice
    crosswalks = sorted(options.crosswalks, key=lambda crosswalk: crosswalk.name == "generic")
    choices = [_choice(source, crosswalk, field) for crosswalk in crosswalks]
    shares = [_share(sample, choice) for choice in choices]
    if shares and max(shares) > 0:
        return choices[shares.index(max(shares))]
    if says_coastline(sample).any() or says_structure(sample):
        # A file of coastlines alone: they are no land cover, and make the sea. Or one of fences,
        # walls, masts or power lines alone.
        return next((each for each in choices if each.crosswalk.name == "osm"), choices[0])
    raise _no_legend(source, sample, options, field)


def _no_legend(
    source: VectorSource, sample: pd.DataFrame, options: SemanticsOptions, field: str | None
) -> InputError:
    if field is not None:
        return InputError(
            f"no legend maps the values of {field!r} in {source.name}: {_examples(sample[field])}",
            "map them in a legend file, and name it with `legend`",
        )
    named = options.legends + options.crosswalks
    tried = {name for crosswalk in named for name, _ in crosswalk.matching_rules(source.fields)}
    # An OpenStreetMap file has a hundred columns, most of them empty.
    filled = [name for name in source.fields if name in sample and sample[name].notna().any()]
    tried &= set(filled)
    seen = "; ".join(f"{name}: {_examples(sample[name])}" for name in sorted(tried)[:3])
    return InputError(
        f"no attribute of {source.name} gives the class of its features; it has "
        f"{', '.join(filled) or 'no attributes'}"
        + (f" (values of {seen})" if seen else "")
        + "".join(f"; {note}" for note in source.notes),
        "name the attribute with `class_field`, or map its values in a legend file, named with "
        "`legend`",
    )


def _examples(column: pd.Series) -> str:
    values = dict.fromkeys(str(value) for value in values_of(column) if value is not None)
    return ", ".join(list(values)[:8]) + (", ..." if len(values) > 8 else "") if values else "empty"


def require_class_field(sources: list[VectorSource], name: str | None) -> None:
    """Raise InputError if no layer has the attribute `name`, unless that is None."""
    if name is None or any(_field_named(source, name) for source in sources):
        return
    listed = "; ".join(
        f"{source.name} has {', '.join(source.fields) or 'no attributes'}" for source in sources
    )
    listed = listed or "there is no vector layer"
    every = [field for source in sources for field in source.fields]
    raise InputError(
        f"no layer has an attribute {name!r}: {listed}",
        f"name one of them with `class_field`{nearest_name(name, every)}",
    )


def _field_named(source: VectorSource, name: str | None) -> str | None:
    if name is None:
        return None
    return next((field for field in source.fields if field.casefold() == name.casefold()), None)


def _choice(source: VectorSource, crosswalk: Crosswalk, field: str | None) -> LegendChoice:
    # A crosswalk may list the name of a layer or that of its file.
    names = [source.layer, Path(source.path).stem if source.path else source.layer]
    layer = next((name for name in names if crosswalk.layer_class(name) != UNMAPPED), source.layer)
    return LegendChoice(crosswalk if field is None else _on_field(crosswalk, field), layer)


def _on_field(crosswalk: Crosswalk, field: str) -> Crosswalk:
    """Apply all tables of a crosswalk to one field, those made for it first."""
    own, others = [], []
    for rule in crosswalk.rules:
        if field.casefold() in (name.casefold() for name in rule.fields):
            own.append(replace(rule, fields=(field,)))
        else:  # "Any value" has a meaning for its own field only.
            values = {value: code for value, code in rule.values.items() if value != ANY_VALUE}
            others.append(Rule((field,), values, rule.widths))
    return replace(crosswalk, rules=tuple(own + others))


def _share(sample: pd.DataFrame, choice: LegendChoice) -> float:
    """Return the share of features that are mapped; 0 if none is mapped to a class."""
    code = classify(sample, choice).code
    mapped = code != UNMAPPED
    return float(mapped.mean()) if (mapped & (code != UNKNOWN)).any() else 0.0


def choose_raster_legend(
    source: RasterSource, options: SemanticsOptions
) -> tuple[Crosswalk, dict[int, int]]:
    """Choose the crosswalk of a class raster from the values in a sample of the whole raster.

    The first of the user's legends that has a table for rasters is used without a check. Otherwise
    a crosswalk is taken for granted only if the file says so, by its name, a description or its
    colour table (then it may have further values), or if all others that have the values give them
    the same classes.

    Returns
    -------
    crosswalk : Crosswalk
        The legend.
    table : dict of int to int
        Class code by cell value.

    Raises
    ------
    InputError
        If the raster does not hold classes; if no table has all values, or several do and differ.
    """
    extra = [name for name in source.colorinterp[1:] if name != "alpha"]
    if extra:
        raise InputError(
            f"{source.name} has {source.count} bands; a raster of classes has one",
            "give the band with the classes",
        )
    for legend in options.legends:
        if legend.raster_table():
            return legend, _raster_table(legend, source)
    problem: InputError | None = None
    # Overviews are fast to read, but may contain averages, which are not class codes.
    for level in [None, BASE_ONLY] if source.overviews else [None]:
        sample = _sample_values(source, level)
        fractions = sample[sample != np.round(sample)]
        if len(sample) > MANY_VALUES or len(fractions):
            shown = ", ".join(f"{value:g}" for value in fractions[:5])
            shown = shown or f"{len(sample)} different values"
            problem = InputError(
                f"{source.name} holds {shown}, not classes", "give a raster of class codes"
            )
            continue
        values = [int(value) for value in sample]
        fits = [legend for legend in options.crosswalks if _maps_all(legend, values, source)]
        listed = ", ".join(map(str, values))
        tables = [_raster_table(legend, source) for legend in fits]
        said = [legend for legend in fits if _says_so(legend, source, values)]
        # Values that its classification does not have are counted by the survey.
        said = said or [
            legend
            for legend in options.crosswalks
            if set(values) & set(legend.raster_table()) and _says_so(legend, source, values)
        ]
        if len(said) == 1:
            return said[0], _raster_table(said[0], source)
        if len({tuple(table[value] for value in values) for table in tables}) > 1:
            raise InputError(
                f"the values of {source.name} ({listed}) fit several legends that differ: "
                + ", ".join(legend.name for legend in fits),
                "name the right one with `legend`",
            )
        if fits:
            return fits[0], tables[0]
        problem = InputError(
            f"no legend for rasters maps all values of {source.name}: {listed}",
            "map them in a legend file (`field: value`), and name it with `legend`",
        )
    assert problem is not None
    raise problem


def _says_so(legend: Crosswalk, source: RasterSource, values: Sequence[int]) -> bool:
    """Return whether a raster is called by a classification, or has its colours."""
    texts = [normalise(text) for text in (*_said_names(source), *source.descriptions)]
    if any(fnmatch.fnmatchcase(text, each) for text in texts for each in legend.rasters):
        return True
    shown = [value for value in values if value in legend.colors]
    if len(shown) < SAME_COLORS or not source.path or source.colorinterp[0] != "palette":
        return False
    with open_dataset(source.path) as dataset:
        colours = dataset.colormap(1)
    return all(
        value in colours
        and max(
            abs(one - other)
            for one, other in zip(colours[value][:3], legend.colors[value], strict=True)
        )
        <= COLOR_TOLERANCE
        for value in shown
    )


def _said_names(source: RasterSource) -> list[str]:
    """Return the file name and the texts by which a file may say what it is."""
    if not source.path:
        return [source.name]
    with open_dataset(source.path) as dataset:
        tags = {**dataset.tags(), **dataset.tags(1)}
    named = [text for key, text in tags.items() if key.casefold() in NAMING_TAGS]
    return [Path(source.name.partition(" ")[0]).name, *named]


def _raster_table(legend: Crosswalk, source: RasterSource) -> dict[int, int]:
    """Return class codes by cell value.

    In a raster without a nodata value, 0 and 255 are unknown unless the legend lists them.
    """
    tolerated = {0: UNKNOWN, 255: UNKNOWN} if source.nodata[0] is None else {}
    return tolerated | dict(legend.raster_table())


def _maps_all(legend: Crosswalk, values: Sequence[int], source: RasterSource) -> bool:
    return bool(legend.raster_table()) and set(values) <= set(_raster_table(legend, source))


def _sample_values(source: RasterSource, level: int | None) -> NDArray:
    """Return the distinct valid values of a coarse sample of the first band, sorted, float64."""
    step = max(1, math.ceil(max(source.shape) / SAMPLE_CELLS))
    if source.array is not None:
        cells = np.asarray(source.array[0, step // 2 :: step, step // 2 :: step].values)
        valid = (
            np.ones(cells.shape, bool) if source.nodata[0] is None else cells != source.nodata[0]
        )
    else:
        shape = tuple(max(1, size // step) for size in source.shape)
        with open_dataset(source.path, level) as dataset:
            cells = dataset.read(1, out_shape=shape)
            valid = dataset.read_masks(1, out_shape=shape) > 0
    cells = cells[valid & np.isfinite(cells)]
    return np.unique(cells).astype(np.float64)
