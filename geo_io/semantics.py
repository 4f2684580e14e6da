"""Land cover, buildings and trees of any window, from vector and raster sources.

`SemanticsReader.read` is a pure function of the sources and the window. Overlaps are resolved in this order:

1. within a vector source a feature is painted over those of lower class priority (`legend.priorities`); of
   equal priority the smaller over the larger, so that it is seen; then by `key` and place in the file;
2. a later source replaces what an earlier one says where its class has no lower priority;
3. a voxel takes the class with the largest share of its 4 x 4 fine cells (`rasterize.majority`).
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geo_io.errors import FieldError, InputError, LegendError, RegionError
from geo_io.frame import Bounds, Frame, short_name
from geo_io.layers import Buildings, Semantics, Trees, no_buildings, no_trees
from geo_io.legend import (
    ABSENT,
    ANY_VALUE,
    UNKNOWN,
    UNMAPPED,
    Crosswalk,
    Rule,
    classes,
    codes,
    normalise,
    priorities,
)
from geo_io.raster import BASE_ONLY, RasterSource, open_raster, opened, overlaps
from geo_io.rasterize import SUPERSAMPLE, composite, majority, nearest, paint
from geo_io.region import describe, swap_hint
from geo_io.vector import (
    CROWN_FIELDS,
    HEIGHT_FIELDS,
    WIDEST,
    VectorSource,
    attribute_columns,
    expand_tags,
    first_metres,
    heights,
    holds_features,
    line_widths,
    nearest_name,
    open_vector,
    require_file,
    simple_parts,
    split_layer,
    transform_bounds,
    underground,
    values_of,
)

Source = Any
"""A path, "file.gpkg:layer", a GeoDataFrame, or an xarray.DataArray with a CRS (see rioxarray)."""

SAMPLE_FEATURES = 2000
"""Features from the start of a file by which its legend is chosen, so that the choice depends on no region."""

SAMPLE_CELLS = 1024
"""Cells along each edge of a raster by which its legend is chosen."""

RASTER_SUFFIXES = {
    ".asc", ".bil", ".bip", ".bsq", ".flt", ".grd", ".hdr", ".img", ".jp2", ".map", ".nc", ".png", ".rst", ".sdat",
    ".tif", ".tiff", ".vrt",
}  # fmt: skip
"""Files of these names are first tried as rasters, all others as vector files."""

BLOCK_VOXELS = 8192
"""Edge of the blocks in which features are read and kept."""

BLOCK_METRES = 16384.0
"""Blocks of large voxels are halved until they are no larger than this: memory goes with the area."""

MARGIN_VOXELS = 512
"""Blocks are read with so many voxels around them, for windows that stick out."""

STRIP_VOXELS = 2**21
"""Voxels whose fine cells are held at a time."""

REACH = WIDEST / 2 + 28.0
"""Metres beyond a window within which a feature can still be seen in it: half the widest line, and spare."""

BLOCKS_KEPT = 2
"""Blocks kept of each source."""

NOMINAL_WIDTH = 3.0
"""Metres of width by which the area of lines that map to nothing is counted."""

MANY_VALUES = 256
"""A raster with more different values than this does not hold classes."""

SURVEY_CELLS = 4096
"""A raster is surveyed on no more than so many places along each edge of the region."""

TALLEST_TREE = 130.0
"""Metres; tree heights above this are errors of the source. The tallest living tree has 116 m."""

WIDEST_CROWN = 60.0
"""Metres; likewise for crowns."""

SAME_CENTRE = 0.5
"""Metres between the centroids of two footprints that may be the same building."""

SAME_OVERLAP = 0.99
"""Share of their union that two footprints have in common if they are the same building."""

HALF = 0.5
"""More than this share of the classified area must map to a class."""


@dataclass(frozen=True)
class SemanticsOptions:
    """How sources are understood.

    Attributes
    ----------
    class_field : the attribute that holds the class; found by itself where None
    legends : crosswalks that the user names; tried first
    crosswalks : all that are known, built in or from plugins; "generic" last
    assume_crs : CRS of sources without a CRS record
    allow_unmapped : accept that more than half of the area maps to nothing
    """

    class_field: str | None = None
    legends: tuple[Crosswalk, ...] = ()
    crosswalks: tuple[Crosswalk, ...] = ()
    assume_crs: str | None = None
    allow_unmapped: bool = False


@dataclass(frozen=True)
class ValueArea:
    """How much of a region has one value of one source.

    `code` is its class, `legend.UNMAPPED` where no rule knows it; `area` in m2 (lines: length times width).
    `value` is "" where the features have no value at all.
    """

    source: str
    value: str
    code: int
    area: float
    features: int


@dataclass(frozen=True)
class SourceSurvey:
    """What a survey counted in one source.

    Attributes
    ----------
    features : features in the region (0 for a raster)
    repaired, dropped : of these, geometries mended, and not mendable
    empty : features without geometry in the whole file (in its first 100 000)
    underground : tunnels and the like, left out
    no_width : lines of a class that no width is known for, left out
    points : points that are no trees, left out
    """

    source: str
    meets: bool
    features: int = 0
    repaired: int = 0
    dropped: int = 0
    empty: int = 0
    underground: int = 0
    no_width: int = 0
    points: int = 0


@dataclass(frozen=True)
class Survey:
    """What the sources hold within a region."""

    values: tuple[ValueArea, ...]
    sources: tuple[SourceSurvey, ...]

    @property
    def mapped(self) -> tuple[ValueArea, ...]:
        """Values with a class (or known to mean nothing), the largest first."""
        return tuple(value for value in self.values if value.code != UNMAPPED)

    @property
    def unmapped(self) -> tuple[ValueArea, ...]:
        """Values that no rule knows, the largest first."""
        return tuple(value for value in self.values if value.code == UNMAPPED and value.value)

    @property
    def mapped_area(self) -> float:
        """m2, overlaps counted as often as they occur."""
        return sum(value.area for value in self.mapped)

    @property
    def unmapped_area(self) -> float:
        """m2 of values that no rule knows. Features without any value do not count."""
        return sum(value.area for value in self.unmapped)

    def to_dict(self) -> dict[str, Any]:
        names = {code: name for name, code in codes().items()} | {UNKNOWN: "unknown", UNMAPPED: None}
        rows = [{**vars(value), "class": names[value.code]} for value in self.values]
        return {
            "mapped_m2": self.mapped_area,
            "unmapped_m2": self.unmapped_area,
            "values": [{key: item for key, item in row.items() if key != "code"} for row in rows],
            "sources": [vars(source).copy() for source in self.sources],
        }


def open_semantics(sources: Sequence[Source], frame: Frame, options: SemanticsOptions) -> SemanticsReader:
    """Open sources, in the order in which they are laid over each other, and choose the legend of each.

    `frame` is the job's: it bounds what is kept in memory, and changes nothing in what is read.

    Raises
    ------
    InputError and its subclasses
        if a source is missing, unreadable, without CRS, or has several layers and none is named
    FieldError
        if no layer has the class field, or none of a layer's fields says its class
    LegendError
        if no legend fits, or several rasters legends fit and differ
    """
    if not sources:
        raise InputError("no semantics were given", "name a vector file or a class raster")
    opened_sources = [_open(source, options.assume_crs) for source in sources]
    _require_class_field([s for s in opened_sources if isinstance(s, VectorSource)], options.class_field)
    layers: list[_VectorLayer | _RasterLayer] = []
    for source in opened_sources:
        if isinstance(source, RasterSource):
            layers.append(_RasterLayer(source, *choose_raster_legend(source, options)))
        else:
            layers.append(_VectorLayer(source, choose_legend(source, options), frame))
    return SemanticsReader(tuple(sources), frame, options, tuple(layers))


class SemanticsReader:
    """Reads semantics on any window of a lattice. Made by `open_semantics`; threads may share it."""

    def __init__(
        self, sources: tuple[Source, ...], frame: Frame, options: SemanticsOptions,
        layers: tuple[_VectorLayer | _RasterLayer, ...],
    ) -> None:  # fmt: skip
        self.frame = frame
        self._opened_with = (sources, frame, options)
        self._layers = layers

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the sources anew: locks and blocks stay here.
        return open_semantics, self._opened_with

    def read(self, window: Frame) -> Semantics:
        """Semantics on a window of the lattice, also outside the job's frame.

        Raises
        ------
        FrameError
            if the window lies on another lattice
        """
        self.frame.require_lattice(window)
        found = [layer.seen(window) if isinstance(layer, _VectorLayer) else None for layer in self._layers]
        features = [seen for seen in found if seen is not None]
        return Semantics(
            frame=window,
            cover=self._cover(window, found),
            parcel=_parcels(window, features),
            buildings=_buildings(features),
            trees=_trees(features),
        )

    def _cover(self, window: Frame, found: list[_Seen | None]) -> NDArray:
        """(ny, nx) uint8 class codes, strip by strip so that the fine grid stays small."""
        cover = np.zeros(window.shape, np.uint8)
        height = max(1, STRIP_VOXELS // window.nx)
        for south in range(window.y[0], window.y[1], height):
            strip = replace(window, y=(south, min(south + height, window.y[1])))
            fine = np.zeros((strip.ny * SUPERSAMPLE, strip.nx * SUPERSAMPLE), np.uint8)
            for layer, seen in zip(self._layers, found, strict=True):
                if isinstance(layer, _RasterLayer):
                    top = layer.classes(strip, SUPERSAMPLE)
                else:
                    assert seen is not None  # every vector layer was looked at
                    top = paint(strip, seen.shapes, seen.code, SUPERSAMPLE) if len(seen.shapes) else None
                if top is not None:
                    composite(fine, top)
            cover[window.slices(strip)] = majority(fine, SUPERSAMPLE)
        return cover

    def summary(self) -> dict[str, Any]:
        """What was opened and how it is understood; `survey` says what is in it."""
        return {"sources": [layer.summary() for layer in self._layers]}

    def survey(self, frame: Frame | None = None) -> Survey:
        """Go over a region (the job's by default) once, block by block, and count.

        Raises
        ------
        RegionError
            if no source has anything there; both extents are named
        LegendError
            if more than half of the area that has a value maps to nothing, unless `allow_unmapped`
        """
        frame = self.frame if frame is None else frame
        self.frame.require_lattice(frame)
        values: list[ValueArea] = []
        counts: list[SourceSurvey] = []
        for layer in self._layers:
            areas, count = layer.survey(frame)
            values.extend(areas)
            counts.append(count)
        values.sort(key=lambda value: (-value.area, value.source, value.value))
        result = Survey(tuple(values), tuple(counts))
        if not values:
            raise self._nothing_there(frame, counts)
        total = result.mapped_area + result.unmapped_area
        if result.unmapped_area > HALF * total and not self._opened_with[2].allow_unmapped:
            raise _too_much_unmapped(result)
        return result

    def _nothing_there(self, frame: Frame, counts: list[SourceSurvey]) -> RegionError:
        region = describe(frame.bounds, frame.crs)
        if any(count.meets for count in counts):
            names = ", ".join(count.source for count in counts if count.meets)
            return RegionError(
                f"no feature of {names} lies in the region {region}, though its extent meets it",
                "choose a region where the layer has features",
            )
        lines, hint = [], ""
        for layer in self._layers[:5]:
            bounds = layer.source.bounds
            if bounds is None:
                lines.append(f"{layer.name} is empty")
            else:
                crs = layer.source.crs
                lines.append(f"{layer.name} covers {describe(bounds, crs)}")
                hint = hint or swap_hint(frame.bounds, frame.crs, bounds, crs)
        return RegionError(
            f"the semantics do not meet the region: {', '.join(lines)}; the region is {region}{hint}",
            "choose a region inside, or check the CRS of the file",
        )


def _too_much_unmapped(survey: Survey) -> LegendError:
    share = survey.unmapped_area / (survey.mapped_area + survey.unmapped_area)
    worst = "; ".join(
        f"{value.value} in {Path(value.source).name} ({value.area:.0f} m2, {value.area / 1e4:.2f} ha)"
        for value in survey.unmapped[:10]
    )
    return LegendError(
        f"{share:.0%} of the area has values that map to no class, the largest: {worst}",
        "map them in a legend (--legend my.yaml), name the right column (--class-field), or accept it "
        "(--allow-unmapped)",
    )


# ---- which legend ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """How the features of a layer are classified: a crosswalk, and the layer name that it goes by."""

    crosswalk: Crosswalk
    layer: str


def choose_legend(source: VectorSource, options: SemanticsOptions) -> Choice | None:
    """The crosswalk of a vector layer by its fields and first features; None for an empty layer.

    The user's legends come first: the first that maps anything. Of the others the one that maps the largest share
    of the sample; of equals the first, "generic" last.

    Raises
    ------
    FieldError, LegendError
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
) -> FieldError | LegendError:
    if field is not None:
        return LegendError(
            f"no legend knows the values of {field!r} in {source.name}: {_examples(sample[field])}",
            "map them in a legend: --legend my.yaml",
        )
    named = options.legends + options.crosswalks
    tried = {name for crosswalk in named for name, _ in crosswalk.matching_rules(source.fields)}
    seen = "; ".join(f"{name}: {_examples(sample[name])}" for name in sorted(tried)[:3])
    return FieldError(
        f"no attribute of {source.name} says what its features are; it has "
        f"{', '.join(source.fields) or 'no attributes'}" + (f" (values of {seen})" if seen else ""),
        "name the column with --class-field, or map its values in a legend with --legend my.yaml",
    )


def _examples(column: pd.Series) -> str:
    values = dict.fromkeys(str(value) for value in values_of(column) if value is not None)
    return ", ".join(list(values)[:8]) + (", ..." if len(values) > 8 else "") if values else "empty"


def _require_class_field(sources: list[VectorSource], name: str | None) -> None:
    if name is None or any(_field_named(source, name) for source in sources):
        return
    listed = "; ".join(f"{source.name} has {', '.join(source.fields) or 'none'}" for source in sources)
    listed = listed or "there is no vector layer"
    every = [field for source in sources for field in source.fields]
    raise FieldError(f"no layer has an attribute {name!r}: {listed}", f"name one of these{nearest_name(name, every)}")


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
    """The share of features that are mapped; 0 if none to a class, for knowing what means nothing is not enough."""
    code = classify(sample, choice).code
    return float((code != UNMAPPED).mean()) if ((code != UNMAPPED) & (code != UNKNOWN)).any() else 0.0


@dataclass(frozen=True)
class Classified:
    """Class code (n,) uint8, line width (n,) float64 (NaN: none said) and value (n,) text of features."""

    code: NDArray
    width: NDArray
    value: NDArray


def classify(table: pd.DataFrame, choice: Choice) -> Classified:
    """Apply a crosswalk to attributes, once for each combination of values that occurs."""
    rules = choice.crosswalk.matching_rules([str(name) for name in table.columns])
    fields = list(dict.fromkeys(field for field, _ in rules))
    rows = list(zip(*(values_of(table[field]) for field in fields), strict=True)) if fields else [()] * len(table)
    place: dict[tuple[Any, ...], int] = {}
    inverse = np.array([place.setdefault(row, len(place)) for row in rows], np.int64)
    columns = {field: [row[k] for row in place] for k, field in enumerate(fields)}
    code, width = choice.crosswalk.classify(columns, choice.layer, len(place))
    value = np.array([_value_text(dict(zip(fields, row, strict=True)), rules, choice) for row in place], object)
    return Classified(code[inverse], width[inverse], value[inverse])


def _value_text(row: Mapping[str, Any], rules: list[tuple[str, Rule]], choice: Choice) -> str:
    """The value that decides: of the rule that maps it, else the first that is there; "" if there is none.

    Rules that map to nothing but "unknown" only sort out (features under construction and the like): their fields
    do not say what a feature is.
    """
    deciding = next((field for field, rule in rules if rule.lookup(row[field]) != UNMAPPED), None)
    if deciding is None and choice.crosswalk.layer_class(choice.layer) != UNMAPPED:
        return f"layer {choice.layer}"
    naming = (field for field, rule in rules if any(code != UNKNOWN for code in rule.values.values()))
    deciding = deciding or next((field for field in naming if normalise(row[field]) not in ABSENT), None)
    return "" if deciding is None else f"{deciding}={normalise(row[deciding])}"


def choose_raster_legend(source: RasterSource, options: SemanticsOptions) -> tuple[Crosswalk, dict[int, int]]:
    """The crosswalk of a class raster and its table, by the values that occur in a sample of the whole raster.

    A user's legend with a table for rasters is taken as it is.

    Raises
    ------
    LegendError
        if no table has all the values, or several have and differ
    InputError
        if the raster does not hold classes
    """
    extra = [name for name in source.colorinterp[1:] if name != "alpha"]
    if extra:
        raise InputError(
            f"{source.name} has {source.count} bands; a raster of classes has one", "give the band with the classes"
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
            problem = InputError(f"{source.name} holds {shown}, not classes", "give a raster of class codes")
            continue
        values = [int(value) for value in found]
        fits = [legend for legend in options.crosswalks if _knows(legend, values, source)]
        listed = ", ".join(map(str, values))
        if len({tuple(_raster_table(legend, source)[value] for value in values) for legend in fits}) > 1:
            raise LegendError(
                f"the values of {source.name} ({listed}) fit several legends that differ: "
                + ", ".join(legend.name for legend in fits),
                "say which it is: --legend NAME",
            )
        if fits:
            return fits[0], _raster_table(fits[0], source)
        problem = LegendError(
            f"no legend for rasters knows all the values of {source.name}: {listed}",
            "map them in a legend (`field: value`) and name it with --legend my.yaml",
        )
    assert problem is not None
    raise problem


def _raster_table(legend: Crosswalk, source: RasterSource) -> dict[int, int]:
    """Class code by cell value. Where no nodata is set, 0 and 255 are taken for it unless the legend knows them."""
    tolerated = {0: UNKNOWN, 255: UNKNOWN} if source.nodata[0] is None else {}
    return tolerated | dict(legend.raster_table())


def _knows(legend: Crosswalk, values: Sequence[int], source: RasterSource) -> bool:
    return bool(legend.raster_table()) and set(values) <= set(_raster_table(legend, source))


def _sample_values(source: RasterSource, level: int | None) -> NDArray:
    """Distinct values of a coarse sample of the first band, nodata left out, float64, ascending."""
    step = max(1, math.ceil(max(source.shape) / SAMPLE_CELLS))
    if source.array is not None:
        cells = np.asarray(source.array[0, step // 2 :: step, step // 2 :: step].values)
        valid = np.ones(cells.shape, bool) if source.nodata[0] is None else cells != source.nodata[0]
    else:
        shape = tuple(max(1, size // step) for size in source.shape)
        with opened(source.path, level) as dataset:
            cells = dataset.read(1, out_shape=shape)
            valid = dataset.read_masks(1, out_shape=shape) > 0
    cells = cells[valid & np.isfinite(cells)]
    return np.unique(cells).astype(np.float64)


# ---- opening -----------------------------------------------------------------------------------------------


def _open(source: Source, assume_crs: str | None) -> VectorSource | RasterSource:
    if isinstance(source, gpd.GeoDataFrame):
        return open_vector(source, assume_crs=assume_crs)
    if not isinstance(source, (str, Path)):
        return _open_array(source, assume_crs)
    path, layer = split_layer(source)
    if not Path(path).exists() and _holds_raster(str(source)):  # a part of a file, such as NETCDF:file:variable
        return open_raster(source, assume_crs=assume_crs)
    require_file(path)
    if layer is None and _is_raster(path):
        return open_raster(source, assume_crs=assume_crs)
    return open_vector(source, assume_crs=assume_crs)


def _is_raster(path: str) -> bool:
    """Whether to open a file as a raster. One that is of neither kind goes by its name."""
    if Path(path).suffix.casefold() in RASTER_SUFFIXES:
        return _holds_raster(path) or not holds_features(path)
    return not holds_features(path) and _holds_raster(path)


def _holds_raster(path: str) -> bool:
    try:
        with opened(path) as dataset:
            return bool(dataset.count)
    except InputError:
        return False


def _open_array(source: Source, assume_crs: str | None) -> RasterSource:
    import xarray as xr

    if not isinstance(source, xr.DataArray):
        raise InputError(
            f"semantics cannot be a {type(source).__name__}", "give a path, a GeoDataFrame or an xarray.DataArray"
        )
    return open_raster(source, assume_crs=assume_crs)


# ---- raster layers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RasterLayer:
    source: RasterSource
    crosswalk: Crosswalk
    table: dict[int, int]

    @property
    def name(self) -> str:
        return self.source.name

    def classes(self, window: Frame, factor: int) -> NDArray | None:
        """Class codes on the fine grid of a window, None where the raster does not reach."""
        if not overlaps(self.source, window):
            return None
        return nearest(window, factor, self.source, self._codes)

    def _codes(self, values: NDArray, valid: NDArray) -> NDArray:
        integers, whole = _whole(values, valid)
        known = np.array(sorted(self.table), np.int64)
        place = np.searchsorted(known, integers).clip(0, len(known) - 1)
        code = np.array([self.table[value] for value in known.tolist()], np.uint8)[place]
        return np.where(whole & (known[place] == integers), code, UNKNOWN).astype(np.uint8)

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        if not overlaps(self.source, frame):
            return [], SourceSurvey(self.name, meets=False)
        coarse = frame.coarsen(max(1, math.ceil(max(frame.shape) / SURVEY_CELLS)))
        counts: dict[int, int] = {}
        for tx, ty in coarse.tiles(1024):
            part = coarse.intersection(coarse.tile(tx, ty, 1024))
            if part is None or not overlaps(self.source, part):
                continue
            cells = nearest(part, 1, self.source, _shifted)
            for value, count in zip(*np.unique(cells, return_counts=True), strict=True):
                counts[int(value)] = counts.get(int(value), 0) + int(count)
        counts.pop(0, None)  # outside the raster, or nodata
        area = coarse.voxel_size**2
        values = [
            ValueArea(self.name, f"value={shifted - SHIFT}", self.table.get(shifted - SHIFT, UNMAPPED), n * area, 0)
            for shifted, n in sorted(counts.items())
        ]
        return values, SourceSurvey(self.name, meets=True)

    def summary(self) -> dict[str, Any]:
        return {
            "path": self.source.path or self.name, "layer": None, "kind": "raster",
            "crs": short_name(self.source.crs), "legend": self.crosswalk.name, "fields": [],
            "shape": list(self.source.shape),
        }  # fmt: skip


SHIFT = 2**40
"""Added to cell values while a survey counts them, so that 0 is free to mean "nothing here"."""


def _whole(values: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
    """Cell values as int64, and which of them are valid and whole numbers."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64), valid
    rounded = np.round(np.where(valid, values, 0))
    whole = valid & (rounded == values) & (np.abs(rounded) < SHIFT)
    return np.where(whole, rounded, 0).astype(np.int64), whole


def _shifted(values: NDArray, valid: NDArray) -> NDArray:
    integers, whole = _whole(values, valid)
    return np.where(whole, integers + SHIFT, 0)


# ---- vector layers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """Prepared features: `shapes` (polygons, lines made wide) in the order of painting, and trees.

    code, key, height, is_area: of each shape; is_area is False for lines. xy (m, 2), tree_height, crown,
    tree_key: of each tree.
    """

    shapes: NDArray
    code: NDArray
    key: NDArray
    height: NDArray
    is_area: NDArray
    xy: NDArray
    tree_height: NDArray
    crown: NDArray
    tree_key: NDArray

    def take(self, shapes: NDArray, trees: NDArray) -> _Seen:
        """The part with these indices or masks."""
        return _Seen(
            self.shapes[shapes], self.code[shapes], self.key[shapes], self.height[shapes], self.is_area[shapes],
            self.xy[trees], self.tree_height[trees], self.crown[trees], self.tree_key[trees],
        )  # fmt: skip


@dataclass(frozen=True)
class _Block:
    """All features that can be seen in an area, prepared. `width`, metres, is that of lines."""

    fid: NDArray
    geometry: NDArray
    classified: Classified
    width: NDArray
    hidden: NDArray
    repaired: NDArray
    dropped: NDArray
    all: _Seen
    index: shapely.STRtree


class _VectorLayer:
    """A vector source with its legend, and the blocks of it that were used last."""

    def __init__(self, source: VectorSource, choice: Choice | None, frame: Frame) -> None:
        self.source = source
        self.choice = choice
        self.frame = frame
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], _Block] = OrderedDict()
        self._size = BLOCK_VOXELS
        while self._size * frame.voxel_size > BLOCK_METRES and self._size > MARGIN_VOXELS:
            self._size //= 2
        self._reach = math.ceil(REACH / frame.voxel_size)
        self._extent = source.bounds_in(frame.crs)
        fields = [] if choice is None else [field for field, _ in choice.crosswalk.matching_rules(source.fields)]
        self._fields = tuple(dict.fromkeys(fields))
        self._columns = list(dict.fromkeys([*fields, *attribute_columns(source.fields)]))

    @property
    def name(self) -> str:
        return self.source.name

    def seen(self, window: Frame) -> _Seen:
        """What of the layer can be seen in a window: depends on the window and the features alone."""
        block = self._block(window)
        left, bottom, right, top = window.bounds
        shapes = np.sort(block.index.query(shapely.box(left, bottom, right, top), predicate="intersects"))
        x, y = block.all.xy.T
        # Half-open, as voxels are: of windows side by side one has the tree.
        return block.all.take(shapes, (x >= left) & (x < right) & (y >= bottom) & (y < top))

    def _block(self, window: Frame) -> _Block:
        """A block that holds all that can be seen in a window: a kept one if one can, else one made for it."""
        need = window.pad(self._reach)
        if self.choice is None or not self._may_meet(need):
            return _no_block()
        tx, ty = (sum(axis) // 2 // self._size for axis in (window.x, window.y))
        margin = MARGIN_VOXELS + self._reach
        area = self.frame.tile(tx, ty, self._size).pad(margin).intersection(self.frame.pad(margin))
        if area is None or area.intersection(need) != replace(area, x=need.x, y=need.y):
            return _prepare(self.source, self.choice, self._columns, need)
        with self._lock:
            if (tx, ty) not in self._blocks:
                self._blocks[tx, ty] = _prepare(self.source, self.choice, self._columns, area)
                while len(self._blocks) > BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end((tx, ty))
            return self._blocks[tx, ty]

    def _may_meet(self, area: Frame) -> bool:
        if self.source.bounds is None:
            return False
        if self._extent is None:  # the frame's CRS does not reach as far as the layer does
            return self.meets(area)
        # A margin, as the bounds went through the transformation at other points than the features.
        extent = np.array(self._extent) + np.array([-1, -1, 1, 1]) * (50 + 0.01 * _longest(self._extent))
        return _meet(tuple(extent), area.bounds)

    def meets(self, frame: Frame) -> bool:
        """Whether the extents of layer and frame meet, in the layer's CRS."""
        bounds = transform_bounds(frame.bounds, frame.crs, self.source.crs)
        if bounds is None or self.source.bounds is None:
            return False
        left, bottom, right, top = bounds
        if left <= right:
            return _meet(bounds, self.source.bounds)
        return any(
            _meet(part, self.source.bounds) for part in ((left, bottom, 180.0, top), (-180.0, bottom, right, top))
        )

    def survey(self, frame: Frame) -> tuple[list[ValueArea], SourceSurvey]:
        if self.choice is None or not self.meets(frame):
            return [], SourceSurvey(self.name, meets=False)
        totals: dict[tuple[str, int], list[float]] = {}
        counts = dict.fromkeys(("features", "repaired", "underground", "no_width", "points"), 0)
        dropped: set[int] = set()
        seen: set[int] = set()  # features across a border between blocks, so that they count once
        for tx, ty in frame.tiles(self._size):
            part = frame.intersection(frame.tile(tx, ty, self._size))
            assert part is not None  # tiles() only gives tiles that meet the frame
            block = self._block(part)
            dropped.update(block.dropped.tolist())
            area, inside, whole = _areas_within(block, part)
            fresh = inside & (whole | ~np.isin(block.fid, list(seen)))
            seen.update(block.fid[inside & ~whole].tolist())
            for name, mask in _feature_kinds(block).items():
                counts[name] += int((mask & fresh).sum())
            shown = inside & ~block.hidden
            for key, each, new in zip(
                zip(block.classified.value[shown], block.classified.code[shown].tolist(), strict=True),
                area[shown], fresh[shown], strict=True,
            ):  # fmt: skip
                total = totals.setdefault(key, [0.0, 0])
                total[0] += float(each)
                total[1] += bool(new)
        values = [ValueArea(self.name, value, code, a, int(n)) for (value, code), (a, n) in totals.items()]
        empty = self.source.count_empty()
        return values, SourceSurvey(self.name, meets=True, dropped=len(dropped), empty=empty, **counts)

    def summary(self) -> dict[str, Any]:
        return {
            "path": self.source.path or self.name, "layer": self.source.layer, "kind": "vector",
            "crs": self.source.crs, "legend": self.choice.crosswalk.name if self.choice else None,
            "fields": list(self._fields), "features": self.source.feature_count,
        }  # fmt: skip


def _longest(bounds: Bounds) -> float:
    return max(bounds[2] - bounds[0], bounds[3] - bounds[1])


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _feature_kinds(block: _Block) -> dict[str, NDArray]:
    """Which features each number of a survey counts."""
    code, dimension = block.classified.code, shapely.get_dimensions(block.geometry)
    shown = ~block.hidden & (code != UNMAPPED) & (code != UNKNOWN)
    return {
        "features": np.ones(len(code), bool),
        "repaired": block.repaired,
        "underground": block.hidden,
        "no_width": shown & (dimension == 1) & np.isnan(block.width),
        "points": shown & (dimension == 0) & (code != codes()["tree"]),
    }


def _areas_within(block: _Block, part: Frame) -> tuple[NDArray, NDArray, NDArray]:
    """m2 of each feature within a frame, whether it meets the frame, and whether it lies within it wholly."""
    left, bottom, right, top = part.bounds
    box = shapely.box(left, bottom, right, top)
    shapely.prepare(box)
    bounds = shapely.bounds(block.geometry)
    whole: NDArray = np.all((bounds[:, :2] > (left, bottom)) & (bounds[:, 2:] < (right, top)), axis=1)
    inside = whole | shapely.intersects(box, block.geometry)
    pieces = block.geometry.copy()
    pieces[inside & ~whole] = shapely.intersection(box, pieces[inside & ~whole])
    width = np.where(np.isnan(block.width), NOMINAL_WIDTH, block.width)
    area = np.where(shapely.get_dimensions(block.geometry) == 1, shapely.length(pieces) * width, shapely.area(pieces))
    return np.where(inside, area, 0.0), inside, whole


# ---- preparing features ------------------------------------------------------------------------------------


def _prepare(source: VectorSource, choice: Choice, columns: list[str], area: Frame) -> _Block:
    """Read, classify and prepare all features that meet an area."""
    features = source.features(area.crs, area.bounds, columns)
    table = expand_tags(features.table)
    geometry = np.asarray(features.table.geometry.values, object)
    classified = classify(features.table, choice)
    code = classified.code
    land = {land.name: land.code for land in classes()}
    hidden = underground(table, np.isin(code, [land["river"], land["lake"], land["sea"]]))
    width = line_widths(table, code == land["road"])
    for other in (classified.width, _class_widths()[np.where(code == UNMAPPED, UNKNOWN, code)]):
        width = np.where(np.isnan(width), np.minimum(other, WIDEST), width)
    shown = ~hidden & (code != UNMAPPED) & (code != UNKNOWN)
    return _Block(
        features.fid, geometry, classified, width, hidden, features.repaired, features.dropped,
        *_shapes_and_trees(table, geometry, code, width, np.flatnonzero(shown)),
    )  # fmt: skip


def _shapes_and_trees(
    table: pd.DataFrame, geometry: NDArray, code: NDArray, width: NDArray, shown: NDArray
) -> tuple[_Seen, shapely.STRtree]:
    parts, row = simple_parts(geometry[shown])
    row = shown[row]
    dimension = shapely.get_dimensions(parts)
    wide = (dimension == 1) & ~np.isnan(width[row])
    strips, strip_of = simple_parts(
        shapely.buffer(parts[wide], width[row[wide]] / 2, cap_style="flat", join_style="round", quad_segs=4)
    )
    shapes = np.concatenate([parts[dimension == 2], strips])
    of = np.concatenate([row[dimension == 2], row[wide][strip_of]])
    is_area = np.arange(len(shapes)) < int((dimension == 2).sum())
    size = shapely.area(shapes)
    key = place_keys(shapely.get_x(shapely.centroid(shapes)), shapely.get_y(shapely.centroid(shapes)), np.sqrt(size))
    order = np.lexsort((np.arange(len(shapes)), key, -size, priorities()[code[of]]))

    tree = (dimension == 0) & (code[row] == codes()["tree"])
    xy = shapely.get_coordinates(parts[tree]).reshape(-1, 2)
    of_tree = row[tree]
    seen = _Seen(
        shapes=shapes[order],
        code=code[of[order]],
        key=key[order],
        height=heights(table)[of[order]],
        is_area=is_area[order],
        xy=xy,
        tree_height=first_metres(table, HEIGHT_FIELDS, TALLEST_TREE)[of_tree],
        crown=first_metres(table, CROWN_FIELDS, WIDEST_CROWN)[of_tree],
        tree_key=place_keys(xy[:, 0], xy[:, 1], np.zeros(len(xy))),
    )
    return seen, shapely.STRtree(seen.shapes)


@functools.cache
def _no_block() -> _Block:
    none, no = np.empty(0), np.empty(0, bool)
    keys, ids, things = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, object)
    empty = Classified(np.empty(0, np.uint8), none, things)
    seen = _Seen(things, empty.code, keys, none, no, np.empty((0, 2)), none, none, keys)
    return _Block(ids, things, empty, none, no, no, ids, seen, shapely.STRtree(things))


@functools.cache
def _class_widths() -> NDArray:
    """(26,) width of lines by class code, NaN where a line makes no sense."""
    return np.array([np.nan] + [np.nan if land.width is None else land.width for land in classes()])


def place_keys(x: NDArray, y: NDArray, size: NDArray) -> NDArray:
    """(n,) uint64 keys of things by where they are: rounded to the metre, so that the same footprint has the
    same key in whatever file and CRS it came (but for the few that lie at the edge of the rounding).

    Parameters
    ----------
    x, y : (n,) float64, CRS metres
    size : (n,) float64, metres
    """
    rows = np.column_stack([np.rint(x), np.rint(y), np.rint(size)]).astype("<i8")
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


# ---- what a window shows -----------------------------------------------------------------------------------


def _parcels(window: Frame, found: list[_Seen]) -> NDArray:
    """(ny, nx) uint32: the land-use polygon on top at each voxel's centre, by the order of painting."""
    building = codes()["building"]
    areas = [seen.take(seen.is_area & (seen.code != building), np.empty(0, np.int64)) for seen in found]
    if not areas:
        return np.zeros(window.shape, np.uint32)
    shapes = np.concatenate([seen.shapes for seen in areas])
    order = np.argsort(priorities()[np.concatenate([seen.code for seen in areas])], kind="stable")
    number = (np.concatenate([seen.key for seen in areas]) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return paint(window, shapes[order], np.maximum(number, 1)[order], 1)


def _buildings(found: list[_Seen]) -> Buildings:
    """Footprints that meet the window, each once, sorted by key and bounds."""
    building = codes()["building"]
    parts = [seen.take(seen.is_area & (seen.code == building), np.empty(0, np.int64)) for seen in found]
    parts = [part for part in parts if len(part.shapes)]
    if not parts:
        return no_buildings()
    footprint = np.concatenate([part.shapes for part in parts])
    height = np.concatenate([part.height for part in parts])
    key = np.concatenate([part.key for part in parts])
    kept = ~_repeated(footprint, height)
    footprint, height, key = footprint[kept], height[kept], key[kept]
    bounds = shapely.bounds(footprint)
    order = np.lexsort((*bounds.T[::-1], key))
    return Buildings(footprint[order], height[order], key[order])


def _repeated(footprint: NDArray, height: NDArray) -> NDArray:
    """(n,) bool: footprints that another one repeats. The one with a height stays, else the earlier."""
    centre = shapely.centroid(footprint)
    first, second = shapely.STRtree(centre).query(centre, predicate="dwithin", distance=SAME_CENTRE)
    first, second = first[first < second], second[first < second]
    common = shapely.area(shapely.intersection(footprint[first], footprint[second]))
    union = shapely.area(footprint[first]) + shapely.area(footprint[second]) - common
    same = common >= SAME_OVERLAP * union
    first, second = first[same], second[same]
    repeated = np.zeros(len(footprint), bool)
    repeated[np.where(np.isnan(height[first]) & ~np.isnan(height[second]), first, second)] = True
    return repeated


def _trees(found: list[_Seen]) -> Trees:
    if not any(len(seen.xy) for seen in found):
        return no_trees()
    xy = np.concatenate([seen.xy for seen in found])
    key = np.concatenate([seen.tree_key for seen in found])
    height = np.concatenate([seen.tree_height for seen in found])
    crown = np.concatenate([seen.crown for seen in found])
    order = np.lexsort((crown, height, xy[:, 1], xy[:, 0], key))
    return Trees(xy[order], height[order], crown[order], key[order])
