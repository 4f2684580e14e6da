"""Rows of a GeoDataFrame, or of a file that GDAL reads through pyogrio. For Parquet see
`parquet`."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray

from geo_io.errors import InputError
from geo_io.frame import Bounds

FALLBACK_ENCODING = "ISO-8859-1"
"""Reads any bytes. What was UTF-8 after all is repaired by `legend.normalise`."""

Loaded = tuple[pd.DataFrame, NDArray, NDArray]
"""Attributes (index 0..n-1), (n,) geometries or None, (n,) int64 feature ids."""


def load_frame(
    frame: gpd.GeoDataFrame, box: Bounds | None, columns: list[str], limit: int | None
) -> Loaded:
    """Rows of a GeoDataFrame that may meet `box` (its CRS), or the first `limit`; their numbers
    are the ids."""
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
    path: str, layer: str, box: Bounds | None, columns: list[str], limit: int | None
) -> Loaded:
    """Features of a layer that GDAL finds for `box` (the layer's CRS), or the first `limit`, in
    order of id."""
    table = call_ogr(
        pyogrio.read_dataframe,
        path,
        layer=layer,
        columns=columns,
        bbox=box,
        fid_as_index=True,
        max_features=None if limit is None else max(limit, 1),
    )
    table = table.iloc[:limit].sort_index(kind="stable")  # a spatial index returns its own order
    fid = table.index.to_numpy(np.int64)
    geometry = np.asarray(table.geometry.values, object)
    return pd.DataFrame(table[columns]).reset_index(drop=True), geometry, fid


_OGR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
    UnicodeDecodeError,
)


def call_ogr(call: Any, path: str | None, **options: Any) -> Any:
    """Call a function of pyogrio; errors become ours, and text in another encoding than said is
    read."""
    try:
        try:
            return call(path, **options)
        except UnicodeDecodeError:
            if call not in (pyogrio.read_dataframe, pyogrio.read_info):
                raise
            return call(path, encoding=FALLBACK_ENCODING, **options)
    except _OGR_ERRORS as error:
        message = str(error).split(";")[0]
        remedy = "give a vector file that GDAL reads: .shp, .gpkg, .geojson, .fgb, .parquet, .sqlite, ..."
        if "SHAPE_RESTORE_SHX" in message:
            message, remedy = "its .shx is missing", "copy the .shx beside the .shp too"
        raise InputError(f"{path} cannot be read as a vector file: {message}", remedy) from error
