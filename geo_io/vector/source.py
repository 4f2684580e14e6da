"""Vector files and GeoDataFrames: metadata, and features by bounds, repaired and reprojected."""

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

from geo_io.crs import like_degrees, resolve_crs, transform_bounds
from geo_io.errors import InputError, MissingFileError, UnsafePathError, nearest_name
from geo_io.frame import Bounds
from geo_io.safety.access import is_remote, require_local
from geo_io.safety.damage import damaged_file
from geo_io.safety.gdal_files import VRT, head_of, require_vector_driver
from geo_io.vector.container import is_zip, opened
from geo_io.vector.load import FeatureColumns, call_ogr, load_frame, load_ogr
from geo_io.vector.osm import is_osm, osm_notes
from geo_io.vector.parquet import (
    covering_columns,
    geo_metadata,
    is_parquet,
    load_parquet,
    parquet_file,
)
from geo_io.vector.repair import clean

EMPTY_LIMIT = 100_000
"""Most features that `VectorSource.count_empty` reads."""


@dataclass(frozen=True)
class Features:
    """Features within bounds, as `VectorSource.features` returns them.

    Attributes
    ----------
    table : GeoDataFrame
        Attributes and valid 2D geometry of n features in the requested CRS, in the order of the
        file.
    fid : NDArray (n,) int64
        Feature ids of the file.
    repaired : NDArray (n,) bool
        Features whose geometry was invalid.
    dropped : NDArray (m,) int64
        Ids of further features whose geometry is beyond repair.
    dropped_bounds : NDArray (m, 4) float64
        Their bounds in the source's CRS.
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
    name : str
        Name in messages.
    path : str or None
        The file; None for a GeoDataFrame.
    layer : str
        Name of the layer; the stem of the file for formats without layers.
    crs : str
        Horizontal CRS, authority code or WKT.
    fields : tuple of str
        Names of the attributes.
    geometry_type : str
        GDAL's name of the geometry type, "Unknown" if features differ.
    feature_count : int
        Number of features.
    bounds : (float, float, float, float) or None
        Left, bottom, right, top in `crs`; None if there is no feature.
    frame : GeoDataFrame or None
        The data of an in-memory source.
    indexed : bool
        False if reading a box goes through the whole file.
    origin : str or None
        The file that the user gave, if `path` is a part of it or was made of it.
    encoding : str or None
        Encoding of texts where it is not what the file claims (`geo_io.vector.encoding`).
    notes : tuple of str
        What is odd about the source, for warnings.
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
    origin: str | None = None
    encoding: str | None = None
    notes: tuple[str, ...] = ()

    def bounds_in(self, crs: str) -> Bounds | None:
        """Return the bounds in another CRS; None if empty, or if that CRS is not defined there."""
        return None if self.bounds is None else transform_bounds(self.bounds, self.crs, crs)

    def read(
        self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None
    ) -> gpd.GeoDataFrame:
        """Return attributes and geometry of the features that intersect `bounds`.

        Parameters and errors are those of `features`.
        """
        return self.features(crs, bounds, columns).table

    def features(self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None) -> Features:
        """Read the features whose geometry intersects `bounds`, whole, reprojected to `crs`.

        Geometry is made 2D. Invalid geometry is repaired by `shapely.make_valid` (GEOS, structure
        method) and keeps its dimension: a self-intersecting polygon stays an area. The result
        depends on the features and `bounds` alone. The geometry must intersect the bounds, not only
        its bounding box, as in GDAL's filter, so that all formats give the same features.

        Parameters
        ----------
        crs : str
            CRS of `bounds` and of the result.
        bounds : (float, float, float, float)
            Left, bottom, right, top, including the border.
        columns : sequence of str, optional
            Attributes to read, all by default.

        Returns
        -------
        Features
            The features, and which of them were repaired or dropped.

        Raises
        ------
        InputError
            If the file cannot be read.
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
        """Return the attributes of the first `count` features of the file."""
        return _load(self, None, list(self.fields), limit=count)[0]

    def everything(
        self, columns: Sequence[str], limit: int | None = None
    ) -> tuple[pd.DataFrame, NDArray]:
        """Return attributes and stored geometry (n,), with heights, of all or `limit` features."""
        table, geometry, _ = _load(self, None, list(columns), limit)
        return table, geometry

    def count_empty(self) -> int:
        """Return how many of the first `EMPTY_LIMIT` features have no geometry."""
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
        """Yield boxes in the source's CRS that together cover `bounds` with a margin."""
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
    """Read the metadata of a vector layer.

    Parameters
    ----------
    source : str, Path or GeoDataFrame
        A path, a path with a layer ("file.gpkg:layer"), or a GeoDataFrame.
    layer : str, optional
        The layer, if the path does not name it.
    assume_crs : str, optional
        CRS of a source without a CRS record.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    MissingCrsError
        If there is no CRS record and `assume_crs` is not given.
    InputError
        If the file is not a vector file, does not have the layer, or has several layers and none is
        named; if the coordinates contradict the CRS.
    """
    if isinstance(source, gpd.GeoDataFrame):
        return _open_frame(source, layer, assume_crs)
    path, named = split_layer(source)
    layer = layer or named
    require_file(path)
    if is_parquet(path):
        with damaged_file(f"{path} is a damaged GeoParquet file", "write it again"):
            return _open_parquet(path, layer, assume_crs)
    return _open_ogr(path, layer, assume_crs)


def split_layer(source: str | Path) -> tuple[str, str | None]:
    """Split "file.gpkg:layer" into path and layer; the layer is None if none is named.

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
    """Return whether a file has a layer with geometry."""
    if is_parquet(path):
        return True
    if VRT.search(head_of(path)):  # of rasters
        return False
    try:
        file = opened(path).path
    except InputError:
        return is_zip(path)  # of several layers, for one
    try:
        return any(shape is not None for _, shape in call_ogr(pyogrio.list_layers, file))
    except UnsafePathError:
        raise
    except InputError:
        return False


def require_file(path: str) -> None:
    """Raise MissingFileError unless the path exists or only GDAL can open it (a URL, /vsi...).

    Addresses raise UnsafePathError unless they are allowed (`geo_io.safety.access`).
    """
    require_local(path)
    if is_remote(path):
        return
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")


def _open_frame(frame: gpd.GeoDataFrame, layer: str | None, assume_crs: str | None) -> VectorSource:
    layer = layer or str(frame.attrs.get("name", ""))
    name = f"GeoDataFrame {layer}".strip()
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{name} has two columns named {twice!r}", "rename one of them")
    bounds = _finite_bounds(frame.total_bounds)
    types = sorted({str(name) for name in frame.geom_type.dropna().unique()})
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


def _open_ogr(origin: str, named: str | None, assume_crs: str | None) -> VectorSource:
    file = opened(origin, named)
    path, layer = file.path, file.layer
    made = path != origin
    layers = [(str(name), shape) for name, shape in call_ogr(pyogrio.list_layers, path)]
    spatial = [name for name, shape in layers if shape is not None]
    listed = ", ".join(spatial) or "(no layer with geometry)"
    if layer is None:
        if not spatial:
            raise InputError(
                f"{origin} has no layer with geometry", "give a file of polygons, lines or points"
            )
        if len(spatial) > 1:
            raise InputError(
                f"{origin} has several layers: {listed}",
                f"name one as {Path(origin).name}:{spatial[0]}",
            )
        layer = spatial[0]
    elif layer not in spatial:
        what = "has no geometry" if layer in dict(layers) else "does not exist"
        raise InputError(
            f"layer {layer!r} of {origin} {what}; its layers are: {listed}",
            f"name one of them{nearest_name(layer, spatial)}",
        )
    info = call_ogr(
        pyogrio.read_info, path, layer=layer, force_feature_count=True, force_total_bounds=True
    )
    require_vector_driver(origin, info.get("driver"))
    bounds = _finite_bounds(info["total_bounds"]) if info["features"] else None
    alone = len(spatial) == 1 and not (made and named)
    name = origin if alone else f"{origin}:{named or layer}"
    hint = " (no .prj beside it)" if path.casefold().endswith(".shp") else ""
    return VectorSource(
        name=name,
        path=path,
        layer=layer,
        crs=resolve_crs(_record(info, bounds), assume_crs, name, bounds, hint),
        fields=tuple(map(str, info["fields"])),
        geometry_type=str(info["geometry_type"]),
        feature_count=int(info["features"]),
        bounds=bounds,
        indexed=bool(info["capabilities"]["fast_spatial_filter"]),
        origin=origin if made else None,
        notes=osm_notes(path) if made and is_osm(origin) else _table_notes(path),
    )


def _table_notes(path: str) -> tuple[str, ...]:
    """Return what is odd about the attributes of a file, for warnings."""
    file = Path(path)
    if file.suffix.casefold() != ".shp" or path.startswith("/vsi"):
        return ()
    if any(file.with_suffix(ending).exists() for ending in (".dbf", ".DBF", ".Dbf")):
        return ()
    return (f"its attributes are missing: copy {file.stem}.dbf beside {file.name}",)


def _record(info: dict[str, Any], bounds: Bounds | None) -> Any:
    """Return the CRS that a file records.

    GDAL takes longitude and latitude for a GeoJSON file without one, as the format has it; where
    the coordinates cannot be degrees, nothing is recorded.
    """
    crs = info["crs"]
    plain = str(info.get("driver", "")).startswith("GeoJSON") and crs == "EPSG:4326"
    return None if plain and bounds is not None and not like_degrees(bounds) else crs


def _open_parquet(path: str, layer: str | None, assume_crs: str | None) -> VectorSource:
    if layer not in (None, Path(path).stem):
        raise InputError(
            f"layer {layer!r} of {path} does not exist",
            "a Parquet file has a single layer: give the path alone",
        )
    file = parquet_file(path)
    geo = geo_metadata(file, path)
    column = geo["columns"][geo["primary_column"]]
    # GeoParquet: without "crs" coordinates are longitude and latitude; null is an unknown CRS.
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
) -> FeatureColumns:
    """Load the features that may intersect `box` (the source's CRS), or the first `limit`."""
    if source.frame is not None:
        return load_frame(source.frame, box, columns, limit)
    assert source.path is not None  # A source has a frame or a path.
    if is_parquet(source.path):
        return load_parquet(source.path, box, columns, limit)
    return load_ogr(source.path, source.layer, box, columns, limit, source.encoding)
