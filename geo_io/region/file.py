"""Frames of region files: polygons of a vector layer, or the extent of a raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import geometry_mask

from geo_io.errors import InputError, RegionError
from geo_io.frame import Frame
from geo_io.raster.source import RasterSource, holds_raster, open_raster
from geo_io.region.region import frame_from_polygons, frame_from_raster
from geo_io.vector.source import open_vector, split_layer


def is_raster(source: Any) -> bool:
    """Return whether a source is an xarray.DataArray or a file that GDAL opens as a raster."""
    if isinstance(source, RasterSource):
        return True
    if not isinstance(source, str | Path):
        return hasattr(source, "rio") or type(source).__name__ == "DataArray"
    path, layer = split_layer(source)
    if layer is not None or not Path(path).exists():
        return False
    return holds_raster(path)


def frame_from_file(
    source: Any, *, assume_crs: str | None = None, extent: bool = False, **options: Any
) -> tuple[Frame, shapely.Geometry | None]:
    """Make the frame of a region file.

    Parameters
    ----------
    source : str, Path, GeoDataFrame or DataArray
        Polygons, or a raster whose extent is the region.
    assume_crs : str, optional
        CRS of a source that has none.
    extent : bool
        Take the extent of the polygons, not the polygons themselves.
    **options
        `crs`, `voxel_size`, `band` and `vertical_crs` of
        `geo_io.region.region.frame_from_bbox`.

    Returns
    -------
    frame : Frame
        The frame around the region.
    polygons : shapely geometry or None
        Union of the polygons in the frame's CRS; None for a raster, and for an extent.

    Raises
    ------
    MissingFileError, MissingCrsError, InputError
        If the file cannot be read, or has no CRS.
    RegionError
        If it has no polygons, or the CRS cannot represent the region.
    """
    if is_raster(source):
        return frame_from_raster(open_raster(source, assume_crs=assume_crs), **options), None
    layer = open_vector(source, assume_crs=assume_crs)
    if layer.bounds is None:
        raise RegionError(f"{layer.name} has no features", "give a file with polygons")
    left, bottom, right, top = layer.bounds
    if not all(np.isfinite(layer.bounds)):
        raise InputError(f"{layer.name} has no finite extent", "repair the file")
    features = layer.read(layer.crs, (left - 1, bottom - 1, right + 1, top + 1), columns=())
    frame, polygons = frame_from_polygons(
        features.geometry.to_numpy(), layer.crs, name=f"region {layer.name}", **options
    )
    return frame, None if extent else polygons


def inside(frame: Frame, region: shapely.Geometry) -> NDArray:
    """Return which cells of `frame` have their centre in `region`, (ny, nx) bool.

    Parameters
    ----------
    frame : Frame
        The cells.
    region : shapely geometry
        Polygons in the CRS of the frame.
    """
    if not shapely.intersects(region, shapely.box(*frame.bounds)):
        return np.zeros(frame.shape, bool)
    return np.asarray(geometry_mask([region], frame.shape, frame.transform, invert=True))
