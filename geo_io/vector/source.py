"""Vector files: opened for their metadata alone, read a window at a time, repaired, in the CRS
asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.crs import resolve_crs, transform_bounds
from geo_io.errors import (
    InputError,
    MissingFileError,
    nearest_name,
)
from geo_io.frame import Bounds
from geo_io.vector.load import Loaded, call_ogr, load_frame, load_ogr
from geo_io.vector.parquet import (
    covering_columns,
    geo_metadata,
    is_parquet,
    load_parquet,
    parquet_file,
)
from geo_io.vector.repair import clean

EMPTY_LIMIT = 100_000
"""How many features `VectorSource.count_empty` looks at. No window finds what has no place."""


@dataclass(frozen=True)
class Features:
    """What `VectorSource.features` returns.

    Attributes
    ----------
    table : attributes and 2D valid geometry of n features in the CRS asked for, in the order of the
        file
    fid : (n,) int64, the feature ids of the file
    repaired : (n,) bool, the geometry was invalid
    dropped : (m,) int64, ids of features that meet the bounds but have no valid geometry left
    dropped_bounds : (m, 4) float64, the bounds of these in the source's CRS
    """

    table: gpd.GeoDataFrame
    fid: NDArray
    repaired: NDArray
    dropped: NDArray
    dropped_bounds: NDArray


@dataclass(frozen=True)
class VectorSource:
    """One layer of vector features.

    Attributes
    ----------
    name : how messages call it
    path : the file, None for a GeoDataFrame
    layer : the layer's name; for formats without layers the file's stem
    crs : the horizontal CRS, authority code or WKT
    fields : attribute names
    geometry_type : as GDAL names it, "Unknown" where features differ
    feature_count : number of features
    bounds : left, bottom, right, top in `crs`, None where there is no feature
    indexed : False where each box that is read goes through the whole file
    """

    name: str
    path: str | None
    layer: str
    crs: str
    fields: tuple[str, ...]
    geometry_type: str
    feature_count: int
    bounds: Bounds | None
    frame: gpd.GeoDataFrame | None = field(default=None, repr=False, compare=False)
    indexed: bool = True

    def bounds_in(self, crs: str) -> Bounds | None:
        """The bounds in another CRS, edges densified; None where empty or where that CRS does
        not reach."""
        return None if self.bounds is None else transform_bounds(self.bounds, self.crs, crs)

    def read(
        self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None
    ) -> gpd.GeoDataFrame:
        """The features that meet `bounds`, whole; see `features`."""
        return self.features(crs, bounds, columns).table

    def features(self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None) -> Features:
        """The features whose geometry meets `bounds`, whole, reprojected to `crs`.

        Parameters
        ----------
        crs : CRS of `bounds` and of the result
        bounds : left, bottom, right, top; its border belongs to it
        columns : attributes to read, all by default

        Geometry is made 2D. Invalid geometry is repaired by `shapely.make_valid` (GEOS, structure
        method) and keeps its dimension: a self-intersecting polygon stays an area. What is returned
        depends on the features and `bounds` alone. (It is the geometry that must meet the bounds,
        not its bounding box: that is how GDAL filters, and so the one rule that every format can
        keep.)

        Raises
        ------
        InputError
            if the file cannot be read
        """
        columns = list(self.fields) if columns is None else list(columns)
        tables, geometries, fids = [], [], []
        for box in self._search_boxes(crs, bounds):
            table, geometry, fid = _load(self, box, columns)
            tables.append(table)
            geometries.append(geometry)
            fids.append(fid)
        if not tables:
            table, geometry, fid = _load(self, None, columns, limit=0)
            tables, geometries, fids = [table], [geometry], [fid]
        fid, first = np.unique(np.concatenate(fids), return_index=True)
        table = pd.concat(tables, ignore_index=True).iloc[first]
        geometry = np.concatenate(geometries)[first]
        stored = geometry
        geometry, repaired = clean(geometry, self.crs, crs)
        usable = np.array([shape is not None for shape in geometry], bool)
        meets = np.zeros(len(geometry), bool)
        window = shapely.box(*bounds)
        shapely.prepare(window)
        meets[usable] = shapely.intersects(window, geometry[usable])
        result = gpd.GeoDataFrame(
            table[meets].reset_index(drop=True), geometry=geometry[meets], crs=crs
        )
        return Features(
            result,
            fid[meets],
            repaired[meets],
            fid[~usable],
            shapely.bounds(stored[~usable]).reshape(-1, 4),
        )

    def head(self, count: int) -> pd.DataFrame:
        """The attributes of the first `count` features of the file: a sample that depends on no
        region."""
        return _load(self, None, list(self.fields), limit=count)[0]

    def count_empty(self) -> int:
        """How many of the first `EMPTY_LIMIT` features have no geometry."""
        if self.frame is None and not is_parquet(self.path):
            bounds = call_ogr(
                pyogrio.read_bounds, self.path, layer=self.layer, max_features=EMPTY_LIMIT
            )[1]
            # GDAL gives an empty polygon the bounds 0, 0, 0, 0.
            zero = (bounds == 0).all(axis=0) & ("Point" not in self.geometry_type)
            return int((np.isnan(bounds[0]) | zero).sum())
        geometry = _load(self, None, [], limit=EMPTY_LIMIT)[1]
        return int((shapely.is_missing(geometry) | shapely.is_empty(geometry)).sum())

    def _search_boxes(self, crs: str, bounds: Bounds) -> Iterator[Bounds]:
        """Boxes in the source's CRS that together hold everything within `bounds` and a little
        more."""
        left, bottom, right, top = bounds
        # Bounds and features go through the transformation at different points, so a margin is
        # needed; the exact choice is made after reprojection.
        unit = 5e-4 if pyproj.CRS(crs).is_geographic else 50.0
        margin = unit + 0.002 * max(right - left, top - bottom)
        box = transform_bounds(
            (left - margin, bottom - margin, right + margin, top + margin), crs, self.crs
        )
        if box is None or self.bounds is None:
            return
        if box[0] <= box[2]:
            yield box
        else:  # across the antimeridian
            yield box[0], box[1], 180.0, box[3]
            yield -180.0, box[1], box[2], box[3]


def open_vector(
    source: str | Path | gpd.GeoDataFrame,
    *,
    layer: str | None = None,
    assume_crs: str | None = None,
) -> VectorSource:
    """Open a layer for its metadata; no feature is kept.

    Parameters
    ----------
    source : a path, a path with a layer ("file.gpkg:layer"), or a GeoDataFrame
    layer : the layer, where the path does not name it
    assume_crs : the CRS of a source that has no CRS record; others keep theirs

    Raises
    ------
    MissingFileError, InputError, MissingCrsError
        if the file does not exist, is no vector file, has no such layer, or several where none is
        named; if it has no CRS record and none is assumed, or one that its coordinates contradict
    """
    if isinstance(source, gpd.GeoDataFrame):
        return _open_frame(source, layer, assume_crs)
    path, named = split_layer(source)
    layer = layer or named
    require_file(path)
    if is_parquet(path):
        return _open_parquet(path, layer, assume_crs)
    return _open_ogr(path, layer, assume_crs)


def split_layer(source: str | Path) -> tuple[str, str | None]:
    """("file.gpkg", "layer") from "file.gpkg:layer", and (source, None) where no layer is named.

    The colon of a drive letter, of a URL's scheme or of its port does not count.
    """
    text = str(source)
    if Path(text).exists():
        return text, None
    colons = [at for at, letter in enumerate(text) if letter == ":"]
    for at in colons:
        if at > 1 and Path(text[:at]).exists():
            return text[:at], text[at + 1 :] or None
    if not colons:
        return text, None
    head, _, tail = text.rpartition(":")
    is_drive = len(head) == 1
    is_address = "://" in text and "/" not in text.split("://", 1)[1]
    if is_drive or is_address or "/" in tail or "\\" in tail:
        return text, None
    return head, tail or None


def holds_features(path: str) -> bool:
    """Whether a file has a layer with geometry."""
    if is_parquet(path):
        return True
    try:
        return any(kind is not None for _, kind in call_ogr(pyogrio.list_layers, path))
    except InputError:
        return False


def require_file(path: str) -> None:
    """Raise MissingFileError unless the path exists or is one that only GDAL can tell (a URL,
    /vsi...)."""
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")


def _open_frame(frame: gpd.GeoDataFrame, layer: str | None, assume_crs: str | None) -> VectorSource:
    layer = layer or str(frame.attrs.get("name", ""))
    name = f"GeoDataFrame {layer}".strip()
    if frame.columns.duplicated().any():
        raise InputError(f"{name} has two columns of one name", "rename one of them")
    bounds = _finite_bounds(frame.total_bounds)
    types = sorted({str(kind) for kind in frame.geom_type.dropna().unique()})
    return VectorSource(
        name=name,
        path=None,
        layer=layer,
        crs=resolve_crs(frame.crs, assume_crs, name, bounds, " (.crs is None)"),
        fields=tuple(str(column) for column in frame.columns if column != frame.geometry.name),
        geometry_type=types[0] if len(types) == 1 else "Unknown",
        feature_count=len(frame),
        bounds=bounds,
        frame=frame,
    )


def _open_ogr(path: str, layer: str | None, assume_crs: str | None) -> VectorSource:
    layers = [(str(name), kind) for name, kind in call_ogr(pyogrio.list_layers, path)]
    spatial = [name for name, kind in layers if kind is not None]
    listed = ", ".join(spatial) or "none with geometry"
    if layer is None:
        if not spatial:
            raise InputError(
                f"{path} has no layer with geometry", "give a file of polygons, lines or points"
            )
        if len(spatial) > 1:
            raise InputError(
                f"{path} has several layers: {listed}",
                f"name one as {Path(path).name}:{spatial[0]}",
            )
        layer = spatial[0]
    elif layer not in spatial:
        what = "has no geometry" if layer in dict(layers) else "does not exist"
        raise InputError(
            f"layer {layer!r} of {path} {what}; its layers are: {listed}",
            f"name one of them{nearest_name(layer, spatial)}",
        )
    info = call_ogr(
        pyogrio.read_info, path, layer=layer, force_feature_count=True, force_total_bounds=True
    )
    bounds = _finite_bounds(info["total_bounds"]) if info["features"] else None
    name = path if len(spatial) == 1 else f"{path}:{layer}"
    hint = " (no .prj beside it)" if path.casefold().endswith(".shp") else ""
    return VectorSource(
        name=name,
        path=path,
        layer=layer,
        crs=resolve_crs(info["crs"], assume_crs, name, bounds, hint),
        fields=tuple(map(str, info["fields"])),
        geometry_type=str(info["geometry_type"]),
        feature_count=int(info["features"]),
        bounds=bounds,
        indexed=bool(info["capabilities"]["fast_spatial_filter"]),
    )


def _open_parquet(path: str, layer: str | None, assume_crs: str | None) -> VectorSource:
    if layer not in (None, Path(path).stem):
        raise InputError(
            f"layer {layer!r} of {path} does not exist", "a Parquet file has but one: name none"
        )
    file = parquet_file(path)
    geo = geo_metadata(file, path)
    column = geo["columns"][geo["primary_column"]]
    # The GeoParquet standard: no "crs" means longitude and latitude, null means not known.
    crs = pyproj.CRS.from_json_dict(column["crs"]) if column.get("crs") else None
    if "crs" not in column:
        crs = pyproj.CRS("OGC:CRS84")
    bounds = column.get("bbox")
    if bounds is None:
        boxes = shapely.bounds(load_parquet(path, None, [])[1])
        bounds = (
            [*np.nanmin(boxes[:, :2], axis=0), *np.nanmax(boxes[:, 2:], axis=0)]
            if len(boxes)
            else None
        )
    elif len(bounds) == 6:
        bounds = [bounds[0], bounds[1], bounds[3], bounds[4]]
    count = file.metadata.num_rows
    extent = _finite_bounds(bounds) if count and bounds is not None else None
    types = sorted(set(column.get("geometry_types") or []))
    helpers = {geo["primary_column"], *(names[0] for names in covering_columns(geo).values())}
    return VectorSource(
        name=path,
        path=path,
        layer=Path(path).stem,
        crs=resolve_crs(crs, assume_crs, path, extent),
        fields=tuple(name for name in file.schema_arrow.names if name not in helpers),
        geometry_type=types[0] if len(types) == 1 else "Unknown",
        feature_count=count,
        bounds=extent,
        indexed=len(covering_columns(geo)) == 4 and file.metadata.num_row_groups > 1,
    )


def _finite_bounds(bounds: Any) -> Bounds | None:
    if bounds is None or not np.isfinite(np.asarray(bounds, float)).all():
        return None
    left, bottom, right, top = (float(value) for value in bounds)
    return left, bottom, right, top


def _load(
    source: VectorSource, box: Bounds | None, columns: list[str], limit: int | None = None
) -> Loaded:
    """Features that may meet `box` (the source's CRS), or the first `limit` of all."""
    if source.frame is not None:
        return load_frame(source.frame, box, columns, limit)
    assert source.path is not None  # one of the two is always there
    if is_parquet(source.path):
        return load_parquet(source.path, box, columns, limit)
    return load_ogr(source.path, source.layer, box, columns, limit)
