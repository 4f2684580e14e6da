"""Which legend a vector layer or a class raster has, by its fields and a sample of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geo_io.errors import InputError, nearest_name
from geo_io.legend import ANY_VALUE, UNKNOWN, UNMAPPED, Crosswalk, Rule
from geo_io.raster.source import BASE_ONLY, RasterSource, opened
from geo_io.semantics.attributes import values_of
from geo_io.semantics.classify import Choice, classify
from geo_io.semantics.options import SemanticsOptions
from geo_io.vector.source import VectorSource

SAMPLE_FEATURES = 2000
"""Features from the start of a file by which its legend is chosen, so that the choice depends on
no region."""

SAMPLE_CELLS = 1024
"""Cells along each edge of a raster by which its legend is chosen."""

MANY_VALUES = 256
"""A raster with more different values than this does not hold classes."""


def choose_legend(source: VectorSource, options: SemanticsOptions) -> Choice | None:
    """The crosswalk of a vector layer by its fields and first features; None for an empty layer.

    The user's legends come first: the first that maps anything. Of the others the one that maps the
    largest share of the sample; of equals the first, "generic" last.

    Raises
    ------
    InputError, InputError
        if none maps anything
    """
    sample = source.head(SAMPLE_FEATURES)
    if len(sample) == 0:
        return None
    field = _field_named(source, options.class_field)
    for legend in options.legends:
        choice = _choice(source, legend, field)
        if _share(sample, choice) > 0:
            return choice
    known = sorted(options.crosswalks, key=lambda crosswalk: crosswalk.name == "generic")
    choices = [_choice(source, crosswalk, field) for crosswalk in known]
    shares = [_share(sample, choice) for choice in choices]
    if shares and max(shares) > 0:
        return choices[shares.index(max(shares))]
    raise _no_legend(source, sample, options, field)


def _no_legend(
    source: VectorSource, sample: pd.DataFrame, options: SemanticsOptions, field: str | None
) -> InputError | InputError:
    if field is not None:
        return InputError(
            f"no legend knows the values of {field!r} in {source.name}: {_examples(sample[field])}",
            "map them in a legend: --legend my.yaml",
        )
    named = options.legends + options.crosswalks
    tried = {name for crosswalk in named for name, _ in crosswalk.matching_rules(source.fields)}
    seen = "; ".join(f"{name}: {_examples(sample[name])}" for name in sorted(tried)[:3])
    return InputError(
        f"no attribute of {source.name} says what its features are; it has "
        f"{', '.join(source.fields) or 'no attributes'}" + (f" (values of {seen})" if seen else ""),
        "name the column with --class-field, or map its values in a legend with --legend my.yaml",
    )


def _examples(column: pd.Series) -> str:
    values = dict.fromkeys(str(value) for value in values_of(column) if value is not None)
    return ", ".join(list(values)[:8]) + (", ..." if len(values) > 8 else "") if values else "empty"


def require_class_field(sources: list[VectorSource], name: str | None) -> None:
    if name is None or any(_field_named(source, name) for source in sources):
        return
    listed = "; ".join(
        f"{source.name} has {', '.join(source.fields) or 'none'}" for source in sources
    )
    listed = listed or "there is no vector layer"
    every = [field for source in sources for field in source.fields]
    raise InputError(
        f"no layer has an attribute {name!r}: {listed}",
        f"name one of these{nearest_name(name, every)}",
    )


def _field_named(source: VectorSource, name: str | None) -> str | None:
    if name is None:
        return None
    return next((field for field in source.fields if field.casefold() == name.casefold()), None)


def _choice(source: VectorSource, crosswalk: Crosswalk, field: str | None) -> Choice:
    # A layer may be known by its own name or by that of its file.
    names = [source.layer, Path(source.path).stem if source.path else source.layer]
    layer = next((name for name in names if crosswalk.layer_class(name) != UNMAPPED), source.layer)
    return Choice(crosswalk if field is None else _on_field(crosswalk, field), layer)


def _on_field(crosswalk: Crosswalk, field: str) -> Crosswalk:
    """The crosswalk with all its tables applied to one field, those made for it first."""
    own, others = [], []
    for rule in crosswalk.rules:
        if field.casefold() in (name.casefold() for name in rule.fields):
            own.append(replace(rule, fields=(field,)))
        else:  # "any value" only means something on the field that it was said of
            values = {value: code for value, code in rule.values.items() if value != ANY_VALUE}
            others.append(Rule((field,), values, rule.widths))
    return replace(crosswalk, rules=tuple(own + others))


def _share(sample: pd.DataFrame, choice: Choice) -> float:
    """The share of features that are mapped; 0 if none to a class, for knowing what means
    nothing is not enough."""
    code = classify(sample, choice).code
    return (
        float((code != UNMAPPED).mean()) if ((code != UNMAPPED) & (code != UNKNOWN)).any() else 0.0
    )


def choose_raster_legend(
    source: RasterSource, options: SemanticsOptions
) -> tuple[Crosswalk, dict[int, int]]:
    """The crosswalk of a class raster and its table, by the values that occur in a sample of the
    whole raster.

    A user's legend with a table for rasters is taken as it is.

    Raises
    ------
    InputError
        if no table has all the values, or several have and differ
    InputError
        if the raster does not hold classes
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
    # Overviews are fast to read, but may have been made by averaging, which makes new values.
    for level in [None, BASE_ONLY] if source.overviews else [None]:
        found = _sample_values(source, level)
        if len(found) > MANY_VALUES or (found != np.round(found)).any():
            shown = ", ".join(f"{value:g}" for value in found[found != np.round(found)][:5])
            shown = shown or f"{len(found)} different values"
            problem = InputError(
                f"{source.name} holds {shown}, not classes", "give a raster of class codes"
            )
            continue
        values = [int(value) for value in found]
        fits = [legend for legend in options.crosswalks if _knows(legend, values, source)]
        listed = ", ".join(map(str, values))
        if (
            len(
                {tuple(_raster_table(legend, source)[value] for value in values) for legend in fits}
            )
            > 1
        ):
            raise InputError(
                f"the values of {source.name} ({listed}) fit several legends that differ: "
                + ", ".join(legend.name for legend in fits),
                "say which it is: --legend NAME",
            )
        if fits:
            return fits[0], _raster_table(fits[0], source)
        problem = InputError(
            f"no legend for rasters knows all the values of {source.name}: {listed}",
            "map them in a legend (`field: value`) and name it with --legend my.yaml",
        )
    assert problem is not None
    raise problem


def _raster_table(legend: Crosswalk, source: RasterSource) -> dict[int, int]:
    """Class code by cell value. Where no nodata is set, 0 and 255 are taken for it unless the
    legend knows them."""
    tolerated = {0: UNKNOWN, 255: UNKNOWN} if source.nodata[0] is None else {}
    return tolerated | dict(legend.raster_table())


def _knows(legend: Crosswalk, values: Sequence[int], source: RasterSource) -> bool:
    return bool(legend.raster_table()) and set(values) <= set(_raster_table(legend, source))


def _sample_values(source: RasterSource, level: int | None) -> NDArray:
    """Distinct values of a coarse sample of the first band, nodata left out, float64, ascending."""
    step = max(1, math.ceil(max(source.shape) / SAMPLE_CELLS))
    if source.array is not None:
        cells = np.asarray(source.array[0, step // 2 :: step, step // 2 :: step].values)
        valid = (
            np.ones(cells.shape, bool) if source.nodata[0] is None else cells != source.nodata[0]
        )
    else:
        shape = tuple(max(1, size // step) for size in source.shape)
        with opened(source.path, level) as dataset:
            cells = dataset.read(1, out_shape=shape)
            valid = dataset.read_masks(1, out_shape=shape) > 0
    cells = cells[valid & np.isfinite(cells)]
    return np.unique(cells).astype(np.float64)
