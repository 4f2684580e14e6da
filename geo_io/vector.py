"""Vector files: opened for their metadata alone, read a window at a time, repaired, in the CRS asked for.

Also what common attributes mean: heights, widths, and what lies under the ground.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import Bounds, horizontal_crs, short_name

PARQUET = {".parquet", ".geoparquet", ".pq"}
"""Suffixes of GeoParquet, which is read through pyarrow: GDAL often comes without its Parquet driver."""

EMPTY_LIMIT = 100_000
"""How many features `VectorSource.count_empty` looks at. No window finds what has no place."""

FALLBACK_ENCODING = "ISO-8859-1"
"""Reads any bytes. What was UTF-8 after all is repaired by `legend.normalise`."""


@dataclass(frozen=True)
class Features:
    """What `VectorSource.features` returns.

    Attributes
    ----------
    table : attributes and 2D valid geometry of n features in the CRS asked for, in the order of the file
    fid : (n,) int64, the feature ids of the file
    repaired : (n,) bool, the geometry was invalid
    dropped : (m,) int64, ids of features that meet the bounds but have no valid geometry left
    """

    table: gpd.GeoDataFrame
    fid: NDArray
    repaired: NDArray
    dropped: NDArray


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

    def bounds_in(self, crs: str) -> Bounds | None:
        """The bounds in another CRS, edges densified; None where empty or where that CRS does not reach."""
        return None if self.bounds is None else transform_bounds(self.bounds, self.crs, crs)

    def read(self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None) -> gpd.GeoDataFrame:
        """The features that meet `bounds`, whole; see `features`."""
        return self.features(crs, bounds, columns).table

    def features(self, crs: str, bounds: Bounds, columns: Sequence[str] | None = None) -> Features:
        """The features whose geometry meets `bounds`, whole, reprojected to `crs`.

        Parameters
        ----------
        crs : CRS of `bounds` and of the result
        bounds : left, bottom, right, top; its border belongs to it
        columns : attributes to read, all by default

        Geometry is made 2D. Invalid geometry is repaired by `shapely.make_valid` (GEOS, structure method)
        and keeps its dimension: a self-intersecting polygon stays an area. What is returned depends on the
        features and `bounds` alone. (It is the geometry that must meet the bounds, not its bounding box:
        that is how GDAL filters, and so the one rule that every format can keep.)

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
        geometry, repaired = _clean(geometry, self.crs, crs)
        usable = np.array([shape is not None for shape in geometry], bool)
        meets = np.zeros(len(geometry), bool)
        window = shapely.box(*bounds)
        shapely.prepare(window)
        meets[usable] = shapely.intersects(window, geometry[usable])
        result = gpd.GeoDataFrame(table[meets].reset_index(drop=True), geometry=geometry[meets], crs=crs)
        return Features(result, fid[meets], repaired[meets], fid[~usable])

    def head(self, count: int) -> pd.DataFrame:
        """The attributes of the first `count` features of the file: a sample that depends on no region."""
        return _load(self, None, list(self.fields), limit=count)[0]

    def count_empty(self) -> int:
        """How many of the first `EMPTY_LIMIT` features have no geometry."""
        if self.frame is None and not _is_parquet(self.path):
            bounds = _ogr(pyogrio.read_bounds, self.path, layer=self.layer, max_features=EMPTY_LIMIT)[1]
            # GDAL gives an empty polygon the bounds 0, 0, 0, 0.
            zero = (bounds == 0).all(axis=0) & ("Point" not in self.geometry_type)
            return int((np.isnan(bounds[0]) | zero).sum())
        geometry = _load(self, None, [], limit=EMPTY_LIMIT)[1]
        return int((shapely.is_missing(geometry) | shapely.is_empty(geometry)).sum())

    def _search_boxes(self, crs: str, bounds: Bounds) -> Iterator[Bounds]:
        """Boxes in the source's CRS that together hold everything within `bounds` and a little more."""
        left, bottom, right, top = bounds
        # Bounds and features go through the transformation at different points, so a margin is needed; the
        # exact choice is made after reprojection.
        unit = 5e-4 if pyproj.CRS(crs).is_geographic else 50.0
        margin = unit + 0.002 * max(right - left, top - bottom)
        box = transform_bounds((left - margin, bottom - margin, right + margin, top + margin), crs, self.crs)
        if box is None or self.bounds is None:
            return
        if box[0] <= box[2]:
            yield box
        else:  # across the antimeridian
            yield box[0], box[1], 180.0, box[3]
            yield -180.0, box[1], box[2], box[3]


def open_vector(
    source: str | Path | gpd.GeoDataFrame, *, layer: str | None = None, assume_crs: str | None = None
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
        if the file does not exist, is no vector file, has no such layer, or several where none is named; if
        it has no CRS record and none is assumed, or one that its coordinates contradict
    """
    if isinstance(source, gpd.GeoDataFrame):
        return _open_frame(source, layer, assume_crs)
    path, named = split_layer(source)
    layer = layer or named
    require_file(path)
    if _is_parquet(path):
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
    if _is_parquet(path):
        return True
    try:
        return any(kind is not None for _, kind in _ogr(pyogrio.list_layers, path))
    except InputError:
        return False


def require_file(path: str) -> None:
    """Raise MissingFileError unless the path exists or is one that only GDAL can tell (a URL, /vsi...)."""
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")


def transform_bounds(bounds: Bounds, source: str, target: str) -> Bounds | None:
    """Bounds in another CRS, edges densified, None where that CRS does not reach.

    In a geographic CRS left > right means that they cross the antimeridian.
    """
    if source == target:
        return bounds
    result = transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    return tuple(map(float, result)) if np.isfinite(result).all() else None  # type: ignore[return-value]


@functools.lru_cache(maxsize=64)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """From `source` to `target`, x (east) before y (north) on both sides."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def resolve_crs(crs: Any, assume_crs: str | None, name: str, bounds: Bounds | None, hint: str = "") -> str:
    """The horizontal CRS of a source as text: its own record, else `assume_crs`.

    Raises
    ------
    MissingCrsError
        if there is neither
    InputError
        if the record says degrees and the coordinates cannot be degrees, or `assume_crs` is not understood
    """
    try:
        parsed = None if crs is None else horizontal_crs(pyproj.CRS.from_user_input(crs))
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS record of {name} is not understood: {error}",
            "correct it, or remove it and give --assume-crs",
        ) from error
    if parsed is not None and (parsed.type_name == "Engineering CRS" or parsed.name.startswith("Undefined")):
        parsed = None
    if parsed is None:
        if assume_crs is None:
            looks = ""
            if bounds is not None and _like_degrees(bounds):
                looks = "; its bounds look like longitude and latitude, which would be EPSG:4326"
            raise MissingCrsError(
                f"{name} has no CRS record{hint}; its bounds are {extent_text(bounds)}",
                f"say which it is with --assume-crs EPSG:...{looks}",
            )
        try:
            parsed = horizontal_crs(pyproj.CRS.from_user_input(assume_crs))
        except pyproj.exceptions.CRSError as error:
            raise InputError(
                f"--assume-crs {assume_crs!r} is not understood", "give an EPSG code such as EPSG:32632"
            ) from error
    if parsed.is_geographic and bounds is not None and not _like_degrees(bounds):
        raise InputError(
            f"{name} is said to be in {short_name(parsed)}, in degrees, but its bounds are {extent_text(bounds)}",
            "its CRS record (.prj), or --assume-crs, is wrong: correct it",
        )
    return short_name(parsed)


def extent_text(bounds: Bounds | None) -> str:
    """Bounds for a message: degrees to 5 digits, metres to 1."""
    if bounds is None:
        return "empty"
    digits = 5 if max(map(abs, bounds)) <= 360 else 1
    return "({})".format(", ".join(f"{value:.{digits}f}" for value in bounds))


def nearest_name(name: str, names: Iterable[str]) -> str:
    """A question such as "; did you mean 'class'?", or nothing."""
    by_fold = {other.casefold(): other for other in names}
    close = get_close_matches(name.casefold(), by_fold, n=1)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else ""


def _like_degrees(bounds: Bounds) -> bool:
    left, bottom, right, top = bounds
    return left >= -360 and right <= 360 and bottom >= -90.5 and top <= 90.5


# ---- opening -----------------------------------------------------------------------------------------------


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
    layers = [(str(name), kind) for name, kind in _ogr(pyogrio.list_layers, path)]
    spatial = [name for name, kind in layers if kind is not None]
    listed = ", ".join(spatial) or "none with geometry"
    if layer is None:
        if not spatial:
            raise InputError(f"{path} has no layer with geometry", "give a file of polygons, lines or points")
        if len(spatial) > 1:
            raise InputError(f"{path} has several layers: {listed}", f"name one as {Path(path).name}:{spatial[0]}")
        layer = spatial[0]
    elif layer not in spatial:
        what = "has no geometry" if layer in dict(layers) else "does not exist"
        raise InputError(
            f"layer {layer!r} of {path} {what}; its layers are: {listed}",
            f"name one of them{nearest_name(layer, spatial)}",
        )
    info = _ogr(pyogrio.read_info, path, layer=layer, force_feature_count=True, force_total_bounds=True)
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
    )


def _open_parquet(path: str, layer: str | None, assume_crs: str | None) -> VectorSource:
    if layer not in (None, Path(path).stem):
        raise InputError(f"layer {layer!r} of {path} does not exist", "a Parquet file has but one: name none")
    file = _parquet(path)
    geo = _geo_metadata(file, path)
    column = geo["columns"][geo["primary_column"]]
    # The GeoParquet standard: no "crs" means longitude and latitude, null means not known.
    crs = pyproj.CRS.from_json_dict(column["crs"]) if column.get("crs") else None
    if "crs" not in column:
        crs = pyproj.CRS("OGC:CRS84")
    bounds = column.get("bbox")
    if bounds is None:
        boxes = shapely.bounds(_parquet_rows(path, None, [])[1])
        bounds = [*np.nanmin(boxes[:, :2], axis=0), *np.nanmax(boxes[:, 2:], axis=0)] if len(boxes) else None
    elif len(bounds) == 6:
        bounds = [bounds[0], bounds[1], bounds[3], bounds[4]]
    count = file.metadata.num_rows
    extent = _finite_bounds(bounds) if count and bounds is not None else None
    types = sorted(set(column.get("geometry_types") or []))
    helpers = {geo["primary_column"], *(names[0] for names in _covering(geo).values())}
    return VectorSource(
        name=path,
        path=path,
        layer=Path(path).stem,
        crs=resolve_crs(crs, assume_crs, path, extent),
        fields=tuple(name for name in file.schema_arrow.names if name not in helpers),
        geometry_type=types[0] if len(types) == 1 else "Unknown",
        feature_count=count,
        bounds=extent,
    )


def _finite_bounds(bounds: Any) -> Bounds | None:
    if bounds is None or not np.isfinite(np.asarray(bounds, float)).all():
        return None
    left, bottom, right, top = (float(value) for value in bounds)
    return left, bottom, right, top


# ---- reading -----------------------------------------------------------------------------------------------

Loaded = tuple[pd.DataFrame, NDArray, NDArray]
"""Attributes (index 0..n-1), (n,) geometries or None, (n,) int64 feature ids."""


def _load(source: VectorSource, box: Bounds | None, columns: list[str], limit: int | None = None) -> Loaded:
    """Features that may meet `box` (the source's CRS), or the first `limit` of all."""
    if source.frame is not None:
        return _load_frame(source.frame, box, columns, limit)
    assert source.path is not None  # one of the two is always there
    if _is_parquet(source.path):
        return _parquet_rows(source.path, box, columns, limit)
    return _load_ogr(source.path, source.layer, box, columns, limit)


def _load_frame(frame: gpd.GeoDataFrame, box: Bounds | None, columns: list[str], limit: int | None) -> Loaded:
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


def _load_ogr(path: str, layer: str, box: Bounds | None, columns: list[str], limit: int | None) -> Loaded:
    table = _ogr(
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
    pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError, UnicodeDecodeError,
)  # fmt: skip


def _ogr(call: Any, path: str | None, **options: Any) -> Any:
    """Call a function of pyogrio; errors become ours, and text in another encoding than said is read."""
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


def _is_parquet(path: str | None) -> bool:
    return path is not None and Path(path).suffix.casefold() in PARQUET


def _parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError(f"{path} is no readable Parquet file: {error}", "check that it is whole") from error


def _geo_metadata(file: pq.ParquetFile, path: str) -> dict[str, Any]:
    record = (file.schema_arrow.metadata or {}).get(b"geo")
    if record is None:
        raise InputError(f"{path} is Parquet without geometry", "write it as GeoParquet")
    geo: dict[str, Any] = json.loads(record)
    return geo


def _covering(geo: dict[str, Any]) -> dict[str, list[str]]:
    """The columns that hold each row's bounds, by "xmin", "ymin", "xmax", "ymax"; empty where none do."""
    covering = geo["columns"][geo["primary_column"]].get("covering", {}).get("bbox", {})
    return {name: covering[name] for name in ("xmin", "ymin", "xmax", "ymax") if name in covering}


def _parquet_rows(path: str, box: Bounds | None, columns: list[str], limit: int | None = None) -> Loaded:
    """Row group by row group; groups whose recorded bounds do not meet `box` are not read."""
    file = _parquet(path)
    geo = _geo_metadata(file, path)
    primary = geo["primary_column"]
    if geo["columns"][primary].get("encoding", "WKB") != "WKB":
        # Native encodings are read by geopandas, whole: it offers no way to read a part of them.
        return _load_frame(gpd.read_parquet(path), box, columns, limit)
    tables, geometries, rows, start = [], [], [], 0
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if limit is not None and start >= max(limit, 1):
            break
        if box is None or not _disjoint(file.metadata.row_group(group), _covering(geo), box):
            table = file.read_row_group(group, columns=[*columns, primary])
            geometry = shapely.from_wkb(table[primary].to_numpy())
            keep = np.arange(count)
            if box is not None:
                left, bottom, right, top = shapely.bounds(geometry).T
                keep = keep[(left <= box[2]) & (right >= box[0]) & (bottom <= box[3]) & (top >= box[1])]
            elif limit is not None:
                keep = keep[: limit - start]
            tables.append(table.select(columns).to_pandas().iloc[keep])
            geometries.append(geometry[keep])
            rows.append(start + keep)
        start += count
    if not tables:
        nothing = file.schema_arrow.empty_table().select(columns).to_pandas()
        return nothing, np.empty(0, object), np.empty(0, np.int64)
    attributes = pd.concat(tables, ignore_index=True)
    return attributes, np.concatenate(geometries), np.concatenate(rows).astype(np.int64)


def _disjoint(group: Any, covering: dict[str, list[str]], box: Bounds) -> bool:
    """Whether a row group's statistics say that no row of it meets `box`."""
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


def _clean(geometry: NDArray, source: str, target: str) -> tuple[NDArray, NDArray]:
    """2D, reprojected, valid geometry (None where nothing is left), and which of them were repaired."""
    result = np.array(geometry, object, copy=True)
    result[shapely.is_missing(result) | shapely.is_empty(result)] = None
    result = shapely.force_2d(result)
    if source != target:
        result = _reproject(result, source, target)
    there = ~shapely.is_missing(result)
    # Infinite where the CRS does not reach, NaN where the file says so.
    there &= np.isfinite(shapely.bounds(result)).all(axis=1)
    result[~there] = None
    broken = there & ~shapely.is_valid(result)
    result[broken] = [_repair(shape) for shape in result[broken]]
    return result, broken


def _reproject(geometry: NDArray, source: str, target: str) -> NDArray:
    # A straight edge is no longer straight in another CRS. Edges so long that it shows get points in between.
    step = 0.02 if pyproj.CRS(source).is_geographic else 2000.0
    bounds = shapely.bounds(geometry)
    large = np.fmax(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) > step
    geometry[large] = shapely.segmentize(geometry[large], step)
    change = transformer(source, target)
    moved = shapely.transform(
        geometry, lambda xy: np.column_stack(change.transform(xy[:, 0], xy[:, 1])) if len(xy) else xy
    )
    return np.asarray(moved, object)


def _repair(shape: shapely.Geometry) -> shapely.Geometry | None:
    """The valid geometry of the same dimension, None where nothing is left of it."""
    dimension = shapely.get_dimensions(shape)
    valid = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    parts = simple_parts(np.array([valid], object))[0]
    parts = parts[(shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)]
    if len(parts) == 0:
        return None
    collect = (shapely.MultiPoint, shapely.MultiLineString, shapely.MultiPolygon)[dimension]
    result: shapely.Geometry = parts[0] if len(parts) == 1 else collect(list(parts))
    return result


def simple_parts(geometry: NDArray) -> tuple[NDArray, NDArray]:
    """Polygons, LineStrings and Points of geometries however nested, and for each the index it came from."""
    parts, index = shapely.get_parts(geometry, return_index=True)
    while (shapely.get_type_id(parts) > 3).any():  # 4 to 7 are the Multi... and the GeometryCollection
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    return parts, index


# ---- what attributes mean ----------------------------------------------------------------------------------

# The order is the order of trust: the first that holds a usable value decides, feature by feature.
HEIGHT_FIELDS = (
    "height", "building:height", "building_height", "hauteur", "measuredheight", "measured_height", "hoogte",
    "gebaeudehoehe", "hoehe", "höhe", "altura", "altezza", "höjd", "hojd", "height_m", "height_mean",
    "mean_height", "h_mean", "bldg_height", "bldgheight", "heightroof", "roof_height", "relh2",
    "render_height", "est_height",
)  # fmt: skip
LEVEL_FIELDS = (
    "building:levels", "building_levels", "levels", "nb_etages", "num_floors", "floors", "numfloors",
    "storeys", "stories", "storeysaboveground", "geschosse", "anz_geschosse", "bouwlagen", "plantas",
)  # fmt: skip
CROWN_FIELDS = (
    "diameter_crown", "crown_diameter", "crown_diam", "diam_crown", "kronendurchmesser", "kronedurch",
    "kroondiameter", "crown_width",
)  # fmt: skip
WIDTH_FIELDS = (
    "width", "largeur", "larg_chaus", "largeur_de_chaussee", "est_width", "breite", "breedte", "road_width",
)  # fmt: skip
LANE_FIELDS = ("lanes", "nb_voies", "nombre_de_voies", "num_lanes")
TUNNEL_FIELDS = ("tunnel",)
LEVEL_OF_GROUND_FIELDS = ("pos_sol", "position_par_rapport_au_sol", "relatievehoogteligging", "relheight")
MAP_LAYER_FIELDS = ("layer",)
PLACE_FIELDS = ("location",)
TAG_FIELD = "other_tags"
ATTRIBUTE_FIELDS = (
    *HEIGHT_FIELDS, *LEVEL_FIELDS, *CROWN_FIELDS, *WIDTH_FIELDS, *LANE_FIELDS, *TUNNEL_FIELDS,
    *LEVEL_OF_GROUND_FIELDS, *MAP_LAYER_FIELDS, *PLACE_FIELDS,
)  # fmt: skip

METRES_PER_LEVEL = 3.0
ROOF_METRES = 1.0
"""A building of n levels is n x 3 m + 1 m tall where no height is given."""
LANE_METRES = 3.25
HIGHEST = 900.0
"""Heights above this, in metres, are errors of the source."""
WIDEST = 200.0
"""Widths of lines above this, in metres, are errors of the source. Reading margins rely on it."""

_FOOT = 0.3048
_DECIMAL = r"(\d+(?:[.,]\d+)?)"
_FEET = re.compile(rf"{_DECIMAL}\s*(?:ft|feet|foot|['’′])\s*(?:{_DECIMAL}\s*(?:in|inch|inches|[\"”″]|''))?")
_METRES = re.compile(rf"{_DECIMAL}\s*(?:m|mt|mtr|meters?|metres?)?")
_TAG = re.compile(r'"((?:[^"\\]|\\.)*)"=>"((?:[^"\\]|\\.)*)"')


def attribute_columns(fields: Iterable[str]) -> list[str]:
    """Those of the fields that the functions below look at."""
    wanted = {TAG_FIELD} | {spelling for name in ATTRIBUTE_FIELDS for spelling in _spellings(name)}
    return [field for field in fields if field.casefold() in wanted]


def values_of(column: pd.Series) -> list[Any]:
    """A column as hashable Python values, None where there is none."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [value if isinstance(value, (str, int, float, type(None))) else str(value) for value in values]


def parse_metres(value: object, highest: float = HIGHEST) -> float:
    """A length in metres from what a source says: 12, "12.5 m", "12,5", "40 ft", 40'6".

    NaN for zero, negative, above `highest` and what cannot be read.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        metres = float(value)
    else:
        text = "" if value is None else str(value).strip().casefold()
        if match := _METRES.fullmatch(text):
            metres = _number(match[1])
        elif match := _FEET.fullmatch(text):
            metres = (_number(match[1]) + _number(match[2] or "0") / 12) * _FOOT
        else:
            metres = np.nan
    return metres if 0 < metres <= highest else np.nan


def expand_tags(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the tags of OSM's `other_tags` (hstore) that we look at as columns of their own."""
    column = next((name for name in table.columns if name.casefold() == TAG_FIELD), None)
    if column is None:
        return table
    tags = [dict(_TAG.findall(text)) if isinstance(text, str) else {} for text in values_of(table[column])]
    present = {name for row in tags for name in row}
    known = {name.casefold() for name in table.columns}
    fresh = [name for name in dict.fromkeys(ATTRIBUTE_FIELDS) if name in present and name not in known]
    return table.assign(**{name: pd.Series([row.get(name) for row in tags], dtype=object) for name in fresh})


def heights(table: pd.DataFrame) -> NDArray:
    """Metres above ground of each feature, (n,) float64, NaN where nothing says: heights, else levels."""
    result = first_metres(table, HEIGHT_FIELDS, HIGHEST)
    levels = first_metres(table, LEVEL_FIELDS, HIGHEST / METRES_PER_LEVEL - 1)
    return np.where(np.isnan(result), levels * METRES_PER_LEVEL + ROOF_METRES, result)


def line_widths(table: pd.DataFrame, is_road: NDArray) -> NDArray:
    """Metres of width that the attributes give each line, (n,) float64, NaN where they do not."""
    result = first_metres(table, WIDTH_FIELDS, WIDEST)
    lanes = np.where(is_road, first_metres(table, LANE_FIELDS, 20.0), np.nan)
    return np.where(np.isnan(result), lanes * LANE_METRES, result)


def underground(table: pd.DataFrame, is_water: NDArray) -> NDArray:
    """(n,) bool: what cannot be seen from above: tunnels, culverts, what lies below level 0.

    OSM's `layer` only orders what crosses, and rivers often carry -1 along their whole length, so it does not
    hide water.
    """
    hidden = np.zeros(len(table), bool)
    for name in _present(table, TUNNEL_FIELDS):
        says_no = {None, "", "no", "0", "f", "false", "nan"}  # Geofabrik writes T and F
        hidden |= np.array([_text(value) not in says_no for value in values_of(table[name])], bool)
    for name in _present(table, PLACE_FIELDS):
        hidden |= np.array([_text(value) == "underground" for value in values_of(table[name])], bool)
    for name in _present(table, LEVEL_OF_GROUND_FIELDS):
        hidden |= np.array([_signed(value) < 0 for value in values_of(table[name])], bool)
    for name in _present(table, MAP_LAYER_FIELDS):
        hidden |= ~is_water & np.array([_signed(value) < 0 for value in values_of(table[name])], bool)
    return hidden


def first_metres(table: pd.DataFrame, names: Sequence[str], highest: float) -> NDArray:
    """For each feature the first of the attributes `names` that holds a usable length, (n,) float64."""
    result = np.full(len(table), np.nan)
    for name in _present(table, names):
        values = values_of(table[name])
        known = {value: parse_metres(value, highest) for value in set(values)}
        found = np.array([known[value] for value in values], float)
        result = np.where(np.isnan(result), found, result)
    return result


def _present(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    by_fold = {str(column).casefold(): str(column) for column in table.columns}
    found = [by_fold[spelling] for name in names for spelling in _spellings(name) if spelling in by_fold]
    return list(dict.fromkeys(found))


def _spellings(name: str) -> tuple[str, ...]:
    """A name, and what a shapefile leaves of it: ten letters."""
    return (name, name[:10]) if len(name) > 10 else (name,)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip().casefold()


def _signed(value: object) -> float:
    try:
        return float(str(value).strip())
    except ValueError:
        return np.nan
