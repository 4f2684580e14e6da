"""Land cover, buildings and trees of any window, from vector and raster sources.

`SemanticsReader.read` is a pure function of the sources and the window. Overlaps are resolved in
this order:

1. within a vector source a feature is painted over those of lower class priority (`legend.priorities`); of
   equal priority the smaller over the larger, so that it is seen; then by `key` and place in the
   file;
2. a later source replaces what an earlier one says where its class has no lower priority;
3. a voxel takes the class with the largest share of its 4 x 4 fine cells (`rasterize.majority`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.errors import InputError, RegionError
from geo_io.frame import Frame
from geo_io.layers import Buildings, Semantics, Trees, no_buildings, no_trees
from geo_io.legend import codes, priorities
from geo_io.raster.source import RasterSource, open_raster, opened
from geo_io.region.region import describe, swap_hint
from geo_io.semantics.choose_legend import choose_legend, choose_raster_legend, require_class_field
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.packed_features import KeptBlocks, Seen
from geo_io.semantics.raster_layer import RasterLayer
from geo_io.semantics.rasterize import SUPERSAMPLE, composite, majority, paint
from geo_io.semantics.survey import SourceSurvey, Survey, ValueArea
from geo_io.semantics.vector_layer import VectorLayer
from geo_io.vector.source import (
    VectorSource,
    holds_features,
    open_vector,
    require_file,
    split_layer,
)

Source = Any
"""A path, "file.gpkg:layer", a GeoDataFrame, or an xarray.DataArray with a CRS (see rioxarray)."""

RASTER_SUFFIXES = {
    ".asc",
    ".bil",
    ".bip",
    ".bsq",
    ".flt",
    ".grd",
    ".hdr",
    ".img",
    ".jp2",
    ".map",
    ".nc",
    ".png",
    ".rst",
    ".sdat",
    ".tif",
    ".tiff",
    ".vrt",
}
"""Files of these names are first tried as rasters, all others as vector files."""

STRIP_VOXELS = 2**21
"""Voxels whose fine cells are held at a time."""

SAME_CENTRE = 0.5
"""Metres between the centroids of two footprints that may be the same building."""

SAME_OVERLAP = 0.99
"""Share of their union that two footprints have in common if they are the same building."""

HALF = 0.5
"""More than this share of the classified area must map to a class."""


def open_semantics(
    sources: Sequence[Source], frame: Frame, options: SemanticsOptions
) -> SemanticsReader:
    """Open sources, in the order in which they are laid over each other, and choose the legend of
    each.

    `frame` is the job's: it bounds what is kept in memory, and changes nothing in what is read.

    Raises
    ------
    InputError and its subclasses
        if a source is missing, unreadable, without CRS, or has several layers and none is named
    InputError
        if no layer has the class field, or none of a layer's fields says its class
    InputError
        if no legend fits, or several rasters legends fit and differ
    """
    if not sources:
        raise InputError("no semantics were given", "name a vector file or a class raster")
    opened_sources = [_open(source, options.assume_crs) for source in sources]
    require_class_field(
        [s for s in opened_sources if isinstance(s, VectorSource)], options.class_field
    )
    layers: list[VectorLayer | RasterLayer] = []
    kept = KeptBlocks()
    for source in opened_sources:
        if isinstance(source, RasterSource):
            layers.append(RasterLayer(source, *choose_raster_legend(source, options)))
        else:
            layers.append(VectorLayer(source, choose_legend(source, options), frame, kept))
    return SemanticsReader(tuple(sources), frame, options, tuple(layers))


class SemanticsReader:
    """Reads semantics on any window of a lattice. Made by `open_semantics`; threads may share
    it."""

    def __init__(
        self,
        sources: tuple[Source, ...],
        frame: Frame,
        options: SemanticsOptions,
        layers: tuple[VectorLayer | RasterLayer, ...],
    ) -> None:
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
        found = [
            layer.seen(window) if isinstance(layer, VectorLayer) else None for layer in self._layers
        ]
        features = [seen for seen in found if seen is not None]
        return Semantics(
            frame=window,
            cover=self._cover(window, found),
            parcel=_parcels(window, features),
            buildings=_buildings(features),
            trees=_trees(features),
        )

    def _cover(self, window: Frame, found: list[Seen | None]) -> NDArray:
        """(ny, nx) uint8 class codes, strip by strip so that the fine grid stays small."""
        cover = np.zeros(window.shape, np.uint8)
        height = max(1, STRIP_VOXELS // window.nx)
        for south in range(window.y[0], window.y[1], height):
            strip = replace(window, y=(south, min(south + height, window.y[1])))
            fine = np.zeros((strip.ny * SUPERSAMPLE, strip.nx * SUPERSAMPLE), np.uint8)
            for layer, seen in zip(self._layers, found, strict=True):
                if isinstance(layer, RasterLayer):
                    top = layer.classes(strip, SUPERSAMPLE)
                else:
                    assert seen is not None  # every vector layer was looked at
                    top = (
                        paint(strip, seen.shapes, seen.code, SUPERSAMPLE)
                        if len(seen.shapes)
                        else None
                    )
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
        InputError
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


def _too_much_unmapped(survey: Survey) -> InputError:
    share = survey.unmapped_area / (survey.mapped_area + survey.unmapped_area)
    worst = "; ".join(
        f"{value.value} in {Path(value.source).name} ({value.area:.0f} m2, {value.area / 1e4:.2f} ha)"
        for value in survey.unmapped[:10]
    )
    return InputError(
        f"{share:.0%} of the area has values that map to no class, the largest: {worst}",
        "map them in a legend (--legend my.yaml), name the right column (--class-field), or accept it "
        "(--allow-unmapped)",
    )


def _open(source: Source, assume_crs: str | None) -> VectorSource | RasterSource:
    if isinstance(source, gpd.GeoDataFrame):
        return open_vector(source, assume_crs=assume_crs)
    if not isinstance(source, (str, Path)):
        return _open_array(source, assume_crs)
    path, layer = split_layer(source)
    if not Path(path).exists() and _holds_raster(
        str(source)
    ):  # a part of a file, such as NETCDF:file:variable
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
            f"semantics cannot be a {type(source).__name__}",
            "give a path, a GeoDataFrame or an xarray.DataArray",
        )
    return open_raster(source, assume_crs=assume_crs)


def _parcels(window: Frame, found: list[Seen]) -> NDArray:
    """(ny, nx) uint32: the land-use polygon on top at each voxel's centre, by the order of
    painting."""
    building = codes()["building"]
    areas = [
        seen.take(seen.is_area & (seen.code != building), np.empty(0, np.int64)) for seen in found
    ]
    if not areas:
        return np.zeros(window.shape, np.uint32)
    shapes = np.concatenate([seen.shapes for seen in areas])
    order = np.argsort(priorities()[np.concatenate([seen.code for seen in areas])], kind="stable")
    number = (np.concatenate([seen.key for seen in areas]) & np.uint64(0xFFFFFFFF)).astype(
        np.uint32
    )
    return paint(window, shapes[order], np.maximum(number, 1)[order], 1)


def _buildings(found: list[Seen]) -> Buildings:
    """Footprints that meet the window, each once, sorted by key and bounds."""
    building = codes()["building"]
    parts = [
        seen.take(seen.is_area & (seen.code == building), np.empty(0, np.int64)) for seen in found
    ]
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
    """(n,) bool: footprints that another one repeats. The one with a height stays, else the
    earlier."""
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


def _trees(found: list[Seen]) -> Trees:
    if not any(len(seen.xy) for seen in found):
        return no_trees()
    xy = np.concatenate([seen.xy for seen in found])
    key = np.concatenate([seen.tree_key for seen in found])
    height = np.concatenate([seen.tree_height for seen in found])
    crown = np.concatenate([seen.crown for seen in found])
    order = np.lexsort((crown, height, xy[:, 1], xy[:, 0], key))
    return Trees(xy[order], height[order], crown[order], key[order])
