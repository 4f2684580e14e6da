"""Features of a GeoDataFrame, or of a file that GDAL reads through pyogrio."""

from __future__ import annotations

import struct
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from geo_io.errors import EarthgenError, InputError, remedy_for
from geo_io.frame import Bounds
from geo_io.safety.damage import describe
from geo_io.safety.gdal_files import head_of, require_safe_vector

FALLBACK_ENCODING = "ISO-8859-1"
"""Encoding that reads any bytes. `legend.normalise` repairs text that was UTF-8."""

FeatureColumns = tuple[pd.DataFrame, NDArray, NDArray]
"""Attributes (index 0..n-1), geometries or None (n,) object, and feature ids (n,) int64."""


def load_frame(
    frame: gpd.GeoDataFrame, box: Bounds | None, columns: list[str], limit: int | None
) -> FeatureColumns:
    """Load the rows of a GeoDataFrame that may intersect `box` (its CRS), or the first `limit`.

    Feature ids are row numbers.
    """
    if box is None:
        rows = np.arange(len(frame) if limit is None else min(limit, len(frame)))
    else:
        rows = np.sort(frame.sindex.query(shapely.box(*box)))
    named = frame.rename(columns=str)[columns]
    return (
        pd.DataFrame(named.iloc[rows]).reset_index(drop=True),
        np.asarray(frame.geometry.values, object)[rows],
        rows.astype(np.int64),
    )


def load_ogr(
    path: str,
    layer: str,
    box: Bounds | None,
    columns: list[str],
    limit: int | None,
    encoding: str | None = None,
) -> FeatureColumns:
    """Load the features that GDAL selects by `box` (the layer's CRS), or the first `limit`.

    They are sorted by id. With `encoding`, texts are read in it, whatever the file claims.
    """
    table = call_ogr(
        pyogrio.read_dataframe,
        path,
        layer=layer,
        columns=columns,
        bbox=box,
        fid_as_index=True,
        on_invalid="ignore",  # None, which counts as a broken feature
        max_features=None if limit is None else max(limit, 1),
        **({} if encoding is None else {"encoding": encoding}),
    )
    table = table.iloc[:limit].sort_index(kind="stable")  # A spatial index has its own order.
    fid = table.index.to_numpy(np.int64)
    geometry = np.array(table.geometry.values, object)
    lost = np.flatnonzero(shapely.is_missing(geometry))
    if len(lost):
        geometry[lost] = _surfaces(path, layer, fid[lost])
    return pd.DataFrame(table[columns]).reset_index(drop=True), geometry, fid


def _surfaces(path: str, layer: str, fid: NDArray) -> NDArray:
    """Read the features of some ids whose geometry shapely has no type for: (n,) object.

    Polyhedral surfaces and nets of triangles, such as Esri's multipatches, become MultiPolygons;
    others are None.
    """
    stored = call_ogr(pyogrio.raw.read, path, layer=layer, columns=[], fids=np.sort(fid))[2]
    made = np.full(len(fid), None, object)
    order = np.argsort(fid, kind="stable")
    for row, wkb in zip(order, stored, strict=True):
        data = bytearray(wkb or b"")
        try:
            _as_polygons(data, 0)
            made[row] = shapely.from_wkb(bytes(data), on_invalid="ignore")
        except (struct.error, IndexError, KeyError, RecursionError):
            continue
    return made


PATCHES = {15: 6, 16: 6, 17: 3}
"""Types of WKB of a polyhedral surface, a net of triangles and a triangle, and the types of
polygons that are stored in the same way (OGC 06-103r4, 8.2)."""


def _as_polygons(data: bytearray, at: int) -> int:
    """Turn the surfaces of a WKB into polygons, in place; return where the geometry ends."""
    order = "<" if data[at] == 1 else ">"
    (code,) = struct.unpack_from(f"{order}I", data, at + 1)
    flat = code & 0x1FFFFFFF
    kind, more = flat % 1000, flat // 1000
    size = 2 + (more in (1, 3) or bool(code & 0x80000000))
    size += more in (2, 3) or bool(code & 0x40000000)
    struct.pack_into(f"{order}I", data, at + 1, code - kind + PATCHES.get(kind, kind))
    at += 5
    if kind == 1:
        return at + 8 * size
    (count,) = struct.unpack_from(f"{order}I", data, at)
    at += 4
    if kind in (2, 3, 17):
        for _ in range(1 if kind == 2 else count):
            points = count
            if kind != 2:
                (points,) = struct.unpack_from(f"{order}I", data, at)
                at += 4
            at += 8 * size * points
            if at > len(data):
                raise IndexError(at)
        return at
    if kind not in (4, 5, 6, 7, 15, 16):
        raise KeyError(kind)
    for _ in range(count):
        at = _as_polygons(data, at)
    return at


OVERPASS = "it is Overpass's JSON: ask for [out:xml] and save it as .osm, or export GeoJSON"

REMEDY = "give a vector file that GDAL reads, such as .shp, .gpkg, .geojson, .fgb or .sqlite"


def call_ogr(call: Any, path: str | None, **options: Any) -> Any:
    """Call a function of pyogrio; InputError if it fails, or the file names other files.

    Text that is not in the declared encoding is read with `FALLBACK_ENCODING`.
    """
    if path is not None:
        require_safe_vector(path)
    try:
        try:
            with np.errstate(invalid="ignore"):  # NaN among coordinates: a broken feature
                return call(path, **options)
        except UnicodeDecodeError:
            if call not in (pyogrio.read_dataframe, pyogrio.read_info):
                raise
            return call(path, encoding=FALLBACK_ENCODING, **options)
    except EarthgenError:
        raise
    except Exception as error:
        message, remedy = describe(error).split(";")[0], remedy_for(str(path), REMEDY)
        if str(path).casefold().endswith(".json") and b'"elements"' in head_of(str(path)):
            remedy = OVERPASS
        if "SHAPE_RESTORE_SHX" in message:
            message, remedy = "its .shx is missing", "copy the .shx beside the .shp"
        raise InputError(f"{path} cannot be read as a vector file: {message}", remedy) from error
