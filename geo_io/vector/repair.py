"""Repair of geometries: 2D, reprojected, valid, and split into simple parts."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.crs import transformer
from geo_io.safety.limits import ADDED_POINTS, too_far


def clean(geometry: NDArray, source: str, target: str) -> tuple[NDArray, NDArray]:
    """Make geometries 2D and valid, and reproject them.

    Parameters
    ----------
    geometry : NDArray (n,) object
        Shapely geometries or None.
    source, target : str
        Their CRS, and the CRS of the result.

    Returns
    -------
    geometry : NDArray (n,) object
        Valid geometries; None where nothing is left, and where it reaches beyond all data on
        Earth (`geo_io.safety.limits`).
    repaired : NDArray (n,) bool
        Geometries that were invalid.
    """
    result = np.array(geometry, object, copy=True)
    result[shapely.is_missing(result) | shapely.is_empty(result)] = None
    result = shapely.force_2d(result)
    degrees = pyproj.CRS(source).is_geographic
    result[too_far(shapely.bounds(result).reshape(-1, 4), degrees)] = None
    if source != target:
        result = _reproject(result, source, target)
    there = ~shapely.is_missing(result)
    # Infinite where the CRS does not reach, NaN where the file says so.
    there &= np.isfinite(shapely.bounds(result).reshape(-1, 4)).all(axis=1)
    result[~there] = None
    broken = there & ~shapely.is_valid(result)
    result[broken] = [_repair(shape) for shape in result[broken]]
    return result, broken


def _reproject(geometry: NDArray, source: str, target: str) -> NDArray:
    # A straight edge is curved in another CRS. Edges so long that it matters get points in between.
    step = 0.02 if pyproj.CRS(source).is_geographic else 2000.0
    bounds = shapely.bounds(geometry)
    large = np.fmax(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) > step
    length = shapely.length(geometry)
    geometry[length > step * ADDED_POINTS] = None
    large &= ~shapely.is_missing(geometry)
    geometry[large] = shapely.segmentize(geometry[large], step)
    change = transformer(source, target)
    moved = shapely.transform(
        geometry,
        lambda xy: np.column_stack(change.transform(xy[:, 0], xy[:, 1])) if len(xy) else xy,
    )
    return np.asarray(moved, object)


def _repair(shape: shapely.Geometry) -> shapely.Geometry | None:
    """Return the valid geometry of the same dimension, None if nothing is left of it."""
    dimension = shapely.get_dimensions(shape)
    try:
        valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    except shapely.errors.GEOSException:
        return None
    parts = simple_parts(np.array([valid], object))[0]
    parts = parts[(shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)]
    if len(parts) == 0:
        return None
    collect = (shapely.MultiPoint, shapely.MultiLineString, shapely.MultiPolygon)[dimension]
    result: shapely.Geometry = parts[0] if len(parts) == 1 else collect(list(parts))
    return result


def simple_parts(geometry: NDArray) -> tuple[NDArray, NDArray]:
    """Split geometries into Polygons, LineStrings and Points.

    Parameters
    ----------
    geometry : NDArray (n,) object
        Shapely geometries; collections may be nested.

    Returns
    -------
    parts : NDArray (m,) object
        The simple geometries.
    index : NDArray (m,) int
        Index in `geometry` of the geometry that each part comes from.
    """
    parts, index = shapely.get_parts(geometry, return_index=True)
    while (shapely.get_type_id(parts) > 3).any():  # 4 to 7: multi-part geometries and collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    return parts, index
