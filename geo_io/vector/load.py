"""Features of a GeoDataFrame, or of a file that GDAL reads through pyogrio."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo_io.errors import EarthgenError, InputError, remedy_for
from geo_io.frame import Bounds
from geo_io.safety.damage import describe
from geo_io.safety.gdal_files import require_safe_vector

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
    geometry = np.asarray(table.geometry.values, object)
    return pd.DataFrame(table[columns]).reset_index(drop=True), geometry, fid


REMEDY = "give a vector file that GDAL reads, such as .shp, .gpkg, .geojson, .fgb or .sqlite"


def call_ogr(call: Any, path: str | None, **options: Any) -> Any:
    """Call a function of pyogrio; InputError if it fails, or the file names other files.

    Text that is not in the declared encoding is read with `FALLBACK_ENCODING`.
    """
    if path is not None:
        require_safe_vector(path)
    try:
        try:
            return call(path, **options)
        except UnicodeDecodeError:
            if call not in (pyogrio.read_dataframe, pyogrio.read_info):
                raise
            return call(path, encoding=FALLBACK_ENCODING, **options)
    except EarthgenError:
        raise
    except Exception as error:
        message, remedy = describe(error).split(";")[0], remedy_for(str(path), REMEDY)
        if "SHAPE_RESTORE_SHX" in message:
            message, remedy = "its .shx is missing", "copy the .shx beside the .shp"
        raise InputError(f"{path} cannot be read as a vector file: {message}", remedy) from error
