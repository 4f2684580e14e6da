"""Land cover, buildings and trees of any window, from vector and raster sources.

`SemanticsReader.read` is a pure function of the sources and the window. Overlaps are resolved in
this order:

1. Within a vector source a feature is painted over those of lower class priority
   (`legend.priorities`); of equal priority the smaller over the larger, so that it stays visible;
   then by `key` and by place in the file.
2. A later source replaces the classes of an earlier one where its class priority is not lower.
3. A voxel takes the class with the largest share of its 4 x 4 fine cells (`rasterize.majority`).
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
from geo_io.raster.source import RasterSource, open_dataset, open_raster
from geo_io.region.region import describe, swap_hint
from geo_io.semantics.choose_legend import choose_legend, choose_raster_legend, require_class_field
from geo_io.semantics.options import SemanticsOptions
from geo_io.semantics.packed_features import BlockCache, WindowFeatures
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
"""Files with these suffixes are tried as rasters first, all others as vector files."""

STRIP_VOXELS = 2**21
"""Voxels whose fine cells are in memory at a time."""

SAME_CENTRE = 0.5
"""Metres between the centroids of two footprints that may be the same building."""

SAME_OVERLAP = 0.99
"""Share of their union that two footprints of the same building have in common."""

UNMAPPED_SHARE = 0.5
"""Largest share of the area with values that may map to no class."""


def open_semantics(
    sources: Sequence[Source], frame: Frame, options: SemanticsOptions
) -> SemanticsReader:
    """Open sources of land cover, buildings and trees, and choose the legend of each.

    Parameters
    ----------
    sources : sequence
        Paths, "file.gpkg:layer", GeoDataFrames or DataArrays with a CRS; later ones are laid over
        earlier ones.
    frame : Frame
        The job's frame. It bounds what is cached, and does not change what is read.
    options : SemanticsOptions
        How the sources are interpreted.

    Raises
    ------
    MissingFileError, MissingCrsError
        If a source does not exist, or has no CRS.
    InputError
        If a source cannot be read, or has several layers and none is named; if no layer has the
        class field; if no legend fits a source, or several fit a raster and differ.
    """
    if not sources:
        raise InputError(
            "no semantics are given", "name a vector file or a class raster as `semantics`"
        )
    opened_sources = [_open(source, options.assume_crs) for source in sources]
    require_class_field(
        [s for s in opened_sources if isinstance(s, VectorSource)], options.class_field
    )
    layers: list[VectorLayer | RasterLayer] = []
    cache = BlockCache()
    for source in opened_sources:
        if isinstance(source, RasterSource):
            layers.append(RasterLayer(source, *choose_raster_legend(source, options)))
        else:
            layers.append(VectorLayer(source, choose_legend(source, options), frame, cache))
    return SemanticsReader(tuple(sources), frame, options, tuple(layers))


class SemanticsReader:
    """Reader of semantics on any window of a lattice.

    Made by `open_semantics`. Threads may share it, and it can be sent to another process.
    """

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
        # Another process opens the sources again: locks and caches are not sent.
        return open_semantics, self._opened_with

    def read(self, window: Frame) -> Semantics:
        """Read semantics on a window of the lattice, also outside the job's frame.

        Raises
        ------
        FrameError
            If the window lies on another lattice.
        InputError
            If a file cannot be read.
        """
        self.frame.require_lattice(window)
        by_layer = [
            layer.features(window) if isinstance(layer, VectorLayer) else None
            for layer in self._layers
        ]
        features = [each for each in by_layer if each is not None]
        return Semantics(
            frame=window,
            cover=self._cover(window, by_layer),
            parcel=_parcels(window, features),
            buildings=_buildings(features),
            trees=_trees(features),
        )

    def _cover(self, window: Frame, by_layer: list[WindowFeatures | None]) -> NDArray:
        """Paint class codes (ny, nx) uint8, strip by strip so that the fine grid stays small."""
        cover = np.zeros(window.shape, np.uint8)
        height = max(1, STRIP_VOXELS // window.nx)
        for south in range(window.y[0], window.y[1], height):
            strip = replace(window, y=(south, min(south + height, window.y[1])))
            fine = np.zeros((strip.ny * SUPERSAMPLE, strip.nx * SUPERSAMPLE), np.uint8)
            for layer, features in zip(self._layers, by_layer, strict=True):
                top = None
                if isinstance(layer, RasterLayer):
                    top = layer.classes(strip, SUPERSAMPLE)
                elif features is not None and len(features.shapes):
                    top = paint(strip, features.shapes, features.code, SUPERSAMPLE)
                if top is not None:
                    composite(fine, top)
            cover[window.slices(strip)] = majority(fine, SUPERSAMPLE)
        return cover

    def summary(self) -> dict[str, Any]:
        """Describe the sources and their legends; `survey` measures their content."""
        return {"sources": [layer.summary() for layer in self._layers]}

    def survey(self, frame: Frame | None = None) -> Survey:
        """Measure areas by value, and count features, in a region (the job's by default).

        Raises
        ------
        RegionError
            If no source has data there.
        InputError
            If more than half of the area with values maps to no class, unless `allow_unmapped`.
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
            raise self._no_data(frame, counts)
        total = result.mapped_area + result.unmapped_area
        if (
            result.unmapped_area > UNMAPPED_SHARE * total
            and not self._opened_with[2].allow_unmapped
        ):
            raise _too_much_unmapped(result)
        return result

    def _no_data(self, frame: Frame, counts: list[SourceSurvey]) -> RegionError:
        region = describe(frame.bounds, frame.crs)
        if any(count.meets for count in counts):
            names = ", ".join(count.source for count in counts if count.meets)
            return RegionError(
                f"no feature of {names} lies in the region {region}, although the extents overlap",
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
            f"the semantics do not overlap the region: {', '.join(lines)}; the region is "
            f"{region}{hint}",
            "choose a region inside, or check the CRS of the file",
        )


def _too_much_unmapped(survey: Survey) -> InputError:
    share = survey.unmapped_area / (survey.mapped_area + survey.unmapped_area)
    worst = "; ".join(
        f"{value.value} in {Path(value.source).name} "
        f"({value.area:.0f} m2, {value.area / 1e4:.2f} ha)"
        for value in survey.unmapped[:10]
    )
    return InputError(
        f"{share:.0%} of the area has values that map to no class, the largest: {worst}",
        "map them in a legend file, named with `legend`; name the right attribute with "
        "`class_field`; or accept it with `allow_unmapped`",
    )


def _open(source: Source, assume_crs: str | None) -> VectorSource | RasterSource:
    if isinstance(source, gpd.GeoDataFrame):
        return open_vector(source, assume_crs=assume_crs)
    if not isinstance(source, (str, Path)):
        return _open_array(source, assume_crs)
    path, layer = split_layer(source)
    # GDAL's name of a part of a file, such as NETCDF:file:variable, is not a path.
    if not Path(path).exists() and _holds_raster(str(source)):
        return open_raster(source, assume_crs=assume_crs)
    require_file(path)
    if layer is None and _is_raster(path):
        return open_raster(source, assume_crs=assume_crs)
    return open_vector(source, assume_crs=assume_crs)


def _is_raster(path: str) -> bool:
    """Return whether to open a file as a raster; by its suffix if it is neither of both."""
    if Path(path).suffix.casefold() in RASTER_SUFFIXES:
        return _holds_raster(path) or not holds_features(path)
    return not holds_features(path) and _holds_raster(path)


def _holds_raster(path: str) -> bool:
    try:
        with open_dataset(path) as dataset:
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


def _parcels(window: Frame, features: list[WindowFeatures]) -> NDArray:
    """Number the topmost land-use polygon at each voxel's centre, (ny, nx) uint32."""
    building = codes()["building"]
    areas = [
        each.take(each.is_area & (each.code != building), np.empty(0, np.int64))
        for each in features
    ]
    if not areas:
        return np.zeros(window.shape, np.uint32)
    shapes = np.concatenate([each.shapes for each in areas])
    code = np.concatenate([each.code for each in areas])
    key = np.concatenate([each.key for each in areas])
    order = np.argsort(priorities()[code], kind="stable")
    number = np.maximum((key & np.uint64(0xFFFFFFFF)).astype(np.uint32), 1)
    return paint(window, shapes[order], number[order], 1)


def _buildings(features: list[WindowFeatures]) -> Buildings:
    """Collect the footprints, each once, sorted by key and bounds."""
    building = codes()["building"]
    parts = [
        each.take(each.is_area & (each.code == building), np.empty(0, np.int64))
        for each in features
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
    """Return which footprints repeat another, (n,) bool.

    The one with a height is kept, else the first.
    """
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


def _trees(features: list[WindowFeatures]) -> Trees:
    """Collect the trees, sorted by key and place."""
    if not any(len(each.xy) for each in features):
        return no_trees()
    xy = np.concatenate([each.xy for each in features])
    key = np.concatenate([each.tree_key for each in features])
    height = np.concatenate([each.tree_height for each in features])
    crown = np.concatenate([each.crown for each in features])
    order = np.lexsort((crown, height, xy[:, 1], xy[:, 0], key))
    return Trees(xy[order], height[order], crown[order], key[order])
