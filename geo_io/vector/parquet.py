"""GeoParquet files, read through pyarrow: metadata, and the rows that a box needs.

GDAL is not used, since it often comes without its Parquet driver.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geo_io.errors import InputError
from geo_io.frame import Bounds
from geo_io.safety.damage import damaged_file
from geo_io.vector.load import FeatureColumns, load_frame

PARQUET = {".parquet", ".geoparquet", ".pq"}
"""Suffixes of GeoParquet files."""

BATCH_ROWS = 16_384
"""Rows of a row group that are read at a time."""


def is_parquet(path: str | None) -> bool:
    """Return whether a path has a suffix of Parquet."""
    return path is not None and Path(path).suffix.casefold() in PARQUET


def parquet_file(path: str) -> pq.ParquetFile:
    """Open a Parquet file; InputError if it cannot be read."""
    with damaged_file(f"{path} cannot be read as a Parquet file", "check that it is complete"):
        return pq.ParquetFile(path)


def geo_metadata(file: pq.ParquetFile, path: str) -> dict[str, Any]:
    """Return the GeoParquet metadata of a file; InputError if it has none."""
    record = (file.schema_arrow.metadata or {}).get(b"geo")
    if record is None:
        raise InputError(f"{path} is a Parquet file without geometry", "write it as GeoParquet")
    with damaged_file(f"the GeoParquet metadata of {path} are damaged", "write it again"):
        geo: dict[str, Any] = json.loads(record)
        geo["columns"][geo["primary_column"]].get("encoding")
    return geo


def covering_columns(geo: dict[str, Any]) -> dict[str, list[str]]:
    """Return the columns of each row's "xmin", "ymin", "xmax", "ymax"; empty if there are none."""
    covering = geo["columns"][geo["primary_column"]].get("covering", {}).get("bbox", {})
    return {name: covering[name] for name in ("xmin", "ymin", "xmax", "ymax") if name in covering}


def load_parquet(
    path: str, box: Bounds | None, columns: list[str], limit: int | None = None
) -> FeatureColumns:
    """Load the rows that may intersect `box` (the CRS of the file), or the first `limit`.

    Row groups whose recorded bounds do not intersect `box` are skipped.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with damaged_file(f"{path} is a damaged GeoParquet file", "write it again"):
        return _load(path, box, columns, limit)


def _load(path: str, box: Bounds | None, columns: list[str], limit: int | None) -> FeatureColumns:
    file = parquet_file(path)
    geo = geo_metadata(file, path)
    primary = geo["primary_column"]
    if geo["columns"][primary].get("encoding", "WKB") != "WKB":
        # geopandas reads native encodings, but cannot read a part of a file.
        return load_frame(gpd.read_parquet(path), box, columns, limit)
    tables, geometries, rows, start = [], [], [], 0
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if limit is not None and start >= max(limit, 1):
            break
        if box is None or not _disjoint(file.metadata.row_group(group), covering_columns(geo), box):
            at = start
            for batch in file.iter_batches(
                BATCH_ROWS, row_groups=[group], columns=[*columns, primary]
            ):
                # What is broken becomes None, and is counted.
                geometry = shapely.from_wkb(
                    batch.column(primary).to_numpy(zero_copy_only=False), on_invalid="ignore"
                )
                keep = np.arange(len(geometry))
                if box is not None:
                    left, bottom, right, top = shapely.bounds(geometry).T
                    keep = keep[
                        (left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1])
                    ]
                elif limit is not None:
                    keep = keep[: max(limit - at, 0)]
                tables.append(batch.select(columns).take(keep))
                geometries.append(geometry[keep])
                rows.append(at + keep)
                at += len(geometry)
        start += count
    if not tables:
        return (
            file.schema_arrow.empty_table().select(columns).to_pandas(),
            np.empty(0, object),
            np.empty(0, np.int64),
        )
    table = pa.Table.from_batches(tables)
    table.validate(full=True)  # text that is no UTF-8 would fail later, where no file is known
    attributes = (
        table.to_pandas().reset_index(drop=True)
        if columns
        else pd.DataFrame(index=range(sum(map(len, rows))))
    )
    return attributes, np.concatenate(geometries), np.concatenate(rows).astype(np.int64)


def _disjoint(group: Any, covering: dict[str, list[str]], box: Bounds) -> bool:
    """Return whether the statistics of a row group show that no row intersects `box`."""
    statistics = {}
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.statistics is not None and chunk.statistics.has_min_max:
            statistics[chunk.path_in_schema] = (chunk.statistics.min, chunk.statistics.max)
    limits = {name: statistics.get(".".join(names)) for name, names in covering.items()}
    if len(limits) < 4 or any(value is None for value in limits.values()):
        return False
    low_x, low_y, high_x, high_y = (limits[name] for name in ("xmin", "ymin", "xmax", "ymax"))
    assert low_x and low_y and high_x and high_y
    return bool(low_x[0] > box[2] or high_x[1] < box[0] or low_y[0] > box[3] or high_y[1] < box[1])
