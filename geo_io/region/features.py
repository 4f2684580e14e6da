"""Many regions: the polygons of a file, each with settings of its own, or the cells of a grid.

All features of a file are read and checked together, so that a long batch fails at its start.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from geo_io.crs import WGS84, parse_crs, transformer
from geo_io.errors import FrameError, InputError, RegionError
from geo_io.frame import Bounds, Frame, horizontal_crs, projected_crs, short_name
from geo_io.region.file import inside
from geo_io.region.region import unwrap_longitudes, utm_crs
from geo_io.vector.load import FALLBACK_ENCODING, call_ogr, load_frame
from geo_io.vector.parquet import is_parquet, load_parquet, parquet_file
from geo_io.vector.repair import clean, simple_parts
from geo_io.vector.source import VectorSource, open_vector, require_file, split_layer

NAME_COLUMNS = ("name", "id", "region")
"""Columns for the name of a region, in any case; the first that all features fill is used."""

OVERLAP_SHARE = 0.01
"""Share of the smaller of two features above which their common area is an overlap, however narrow
it is."""

SHOWN = 3
"""Most features, or pairs of them, that a message names."""

PAIR_LIMIT = 1000
"""Most overlapping pairs that are counted. Beyond it the message says "at least"."""

CELL_LIMIT = 100_000
"""Most cells of a grid: each becomes a world of its own."""

DBF_NAME = 10
"""Characters to which shapefiles cut the names of columns."""

LONGEST_NAME = 200
"""Most bytes of a folder's name; file systems allow 255."""

RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)),
}
"""Names that Windows reserves for devices."""


@dataclass(frozen=True)
class RegionFeature:
    """One region of a file.

    Attributes
    ----------
    name : str
        Name for a folder, unique in the file: letters, digits, ".", "_" and "-".
    geometry : shapely Polygon or MultiPolygon
        Valid 2D geometry in `crs`. Across the antimeridian its longitudes exceed 180°.
    crs : str
        CRS of the file, authority code or WKT.
    attributes : dict
        Settings of the feature by lower-case name, as plain Python values.
    number : int
        Place in the file, counted from 1 in the order of feature ids.
    """

    name: str
    geometry: shapely.Geometry
    crs: str
    attributes: dict[str, Any]
    number: int


def read_regions(
    source: str | Path | gpd.GeoDataFrame,
    *,
    settings: frozenset[str],
    assume_crs: str | None = None,
    crs: str | None = None,
    voxel_size: float = 1.0,
    allow_overlap: bool = False,
) -> list[RegionFeature]:
    """Read the regions of a file, one per polygon feature, in the order of feature ids.

    Two features overlap if both are generated in the same CRS and share, in that CRS, more than
    `OVERLAP_SHARE` of the area of the smaller one, or a part that is wider than a voxel (the larger
    of the two). A part is wider if anything is left after erosion by half a voxel. Slightly
    different borders of neighbours are therefore not an overlap. Two features with the same
    geometry and the same settings are refused even where overlaps are allowed.

    Parameters
    ----------
    source : str, Path or GeoDataFrame
        A path, a path with a layer ("file.gpkg:layer"), or a GeoDataFrame.
    settings : frozenset of str
        Names of the settings that an attribute may give; other columns are ignored. A column name
        that a shapefile cut to 10 characters stands for the one setting that begins with it. Null,
        NaN and blank text are ignored.
    assume_crs : str, optional
        CRS of a file without a CRS record.
    crs : str, optional
        CRS of features without their own, for the search for overlaps; by default the UTM zone of
        each feature's centre.
    voxel_size : float
        Voxel size of features without their own, metres, for the search for overlaps.
    allow_overlap : bool
        Do not search for overlaps.

    Raises
    ------
    MissingFileError, MissingCrsError
        If the file does not exist, or has no CRS record and `assume_crs` is not given.
    InputError
        If the file cannot be read, has several layers of polygons, or two columns for a setting.
    RegionError
        If there is no feature; if one is not a polygon, is empty or is broken beyond repair; if two
        have the same name, are the same, or overlap.
    """
    layer = _open(source, assume_crs)
    if layer.feature_count == 0:
        raise RegionError(
            f"{layer.name} has no features", "give a file with a polygon for each region"
        )
    columns = _setting_columns(layer, settings)
    named = [
        column for name in NAME_COLUMNS for column in layer.fields if column.casefold() == name
    ]
    geometry, table = _load(layer, sorted({*columns, *named}))
    filled = next(
        (column for column in named if all(value is not None for value in table[column])), None
    )
    texts = None if filled is None else [_text(value) for value in table[filled]]
    regions = _Regions(layer.name, texts)

    shapes = _polygons(geometry, layer, regions)
    names = _unique_names(regions, len(shapes))
    values: list[dict[str, Any]] = [
        {
            setting: table[column][row]
            for column, setting in columns.items()
            if table[column][row] is not None
        }
        for row in range(len(shapes))
    ]
    _refuse_twins(shapes, values, regions)
    if not allow_overlap:
        _refuse_overlaps(shapes, values, layer.crs, crs, voxel_size, regions)
    return [
        RegionFeature(name, shape, layer.crs, attributes, row + 1)
        for row, (name, shape, attributes) in enumerate(zip(names, shapes, values, strict=True))
    ]


def grid_cells(
    frame: Frame, cell_m: float, region: shapely.Geometry | None = None
) -> list[tuple[str, Bounds]]:
    """List the cells of a grid that a frame overlaps.

    Edges are multiples of `cell_m` from the origin of the CRS, so that a cell and its name
    ("x+0683_y+5538": number of cells east and north) do not depend on the frame.

    Parameters
    ----------
    frame : Frame
        The area to cover.
    cell_m : float
        Edge of a cell, metres; a multiple of the voxel size.
    region : shapely geometry, optional
        Polygons in the CRS of the frame. Cells without a voxel whose centre lies in them are left
        out.

    Returns
    -------
    list of (str, Bounds)
        Name, and left, bottom, right, top cropped to the frame, row by row from the south-west.

    Raises
    ------
    RegionError
        If the cell is not a multiple of the voxel size, if there are too many cells, or if none
        overlaps the region.
    """
    voxel = frame.voxel_size
    size = round(cell_m / voxel) if math.isfinite(cell_m) else 0
    if size < 1 or abs(size * voxel - cell_m) > 1e-6 * voxel:
        near = f", for example {max(size, 1) * voxel:g}"
        raise RegionError(
            f"a grid cell of {cell_m:g} m is not a multiple of the voxel size, {voxel:g} m",
            f"give a multiple of {voxel:g}{near}",
        )
    count = math.prod(-(-high // size) - low // size for low, high in (frame.x, frame.y))
    if count > CELL_LIMIT:
        raise RegionError(
            f"a grid of {cell_m:g} m over {frame.area_km2:g} km² has {count} cells, "
            f"more than {CELL_LIMIT}",
            "give larger cells, or a smaller region",
        )
    places = list(frame.tiles(size))
    parts = [frame.intersection(frame.tile(tx, ty, size)) for tx, ty in places]
    cells = [(place, part) for place, part in zip(places, parts, strict=True) if part is not None]
    if region is not None:
        keep = _holds_voxels([part for _, part in cells], region)
        cells = [cell for cell, kept in zip(cells, keep, strict=True) if kept]
    if not cells:
        raise RegionError(
            f"no cell of the grid overlaps the region in {frame}", "check the region and its CRS"
        )
    # Projected coordinates rarely exceed 10,000 km, so names with this many digits sort. The number
    # depends on the cell size alone.
    digits = max(4, len(str(math.ceil(1e7 / cell_m) - 1)))
    return [
        (f"x{tx:+0{digits + 1}d}_y{ty:+0{digits + 1}d}", part.bounds) for (tx, ty), part in cells
    ]


def _open(source: str | Path | gpd.GeoDataFrame, assume_crs: str | None) -> VectorSource:
    if isinstance(source, gpd.GeoDataFrame):
        return open_vector(source, assume_crs=assume_crs)
    path, layer = split_layer(source)
    require_file(path)
    if layer is None and not is_parquet(path):
        layer = _polygon_layer(path)
    return open_vector(path, layer=layer, assume_crs=assume_crs)


def _polygon_layer(path: str) -> str | None:
    """Return the one layer that can hold polygons, None if the file has a single layer."""
    layers = [
        (str(name), str(shape))
        for name, shape in call_ogr(pyogrio.list_layers, path)
        if shape is not None
    ]
    if len(layers) < 2:
        return None
    able = [
        name for name, shape in layers if re.search("Polygon|Surface|Unknown|Collection", shape)
    ]
    if not able:
        listed = ", ".join(f"{name} ({shape})" for name, shape in layers)
        raise RegionError(
            f"{path} has no layer of polygons: {listed}",
            "give a file with a polygon for each region",
        )
    if len(able) == 1:
        return able[0]
    systems = [_layer_crs(path, name) for name in able]
    if len(set(systems)) > 1:
        listed = ", ".join(f"{name} ({crs})" for name, crs in zip(able, systems, strict=True))
        raise InputError(
            f"{path} has {len(able)} layers of polygons with mixed CRSs: {listed}",
            f"name one of them, as {path}:{able[0]}, or bring them into one layer",
        )
    raise InputError(
        f"{path} has {len(able)} layers of polygons: {', '.join(able)}",
        f"name one of them, as {path}:{able[0]}",
    )


def _layer_crs(path: str, layer: str) -> str:
    record = call_ogr(pyogrio.read_info, path, layer=layer)["crs"]
    try:
        return (
            "no CRS"
            if record is None
            else short_name(horizontal_crs(pyproj.CRS.from_user_input(record)))
        )
    except pyproj.exceptions.CRSError:
        return f"CRS {record!r}"


def _setting_columns(layer: VectorSource, settings: frozenset[str]) -> dict[str, str]:
    """Return the setting of each column that gives one."""
    columns: dict[str, str] = {}
    is_shapefile = layer.path is not None and layer.path.casefold().endswith(
        (".shp", ".shz", ".dbf")
    )
    for column in layer.fields:
        setting = column.lower()
        if setting not in settings and is_shapefile and len(column) == DBF_NAME:
            longer = [name for name in settings if name.startswith(setting)]
            setting = longer[0] if len(longer) == 1 else setting
        if setting not in settings:
            continue
        twin = next((other for other, name in columns.items() if name == setting), None)
        if twin is not None:
            raise InputError(
                f"{layer.name} has two columns for `{setting}`: {twin!r} and {column!r}",
                "remove or rename one of them",
            )
        columns[column] = setting
    return columns


def _load(layer: VectorSource, columns: list[str]) -> tuple[NDArray, dict[str, list[Any]]]:
    """Load geometries (None where unreadable) and plain values by column, in the order of ids.

    Attributes are read through Arrow: pandas turns integers with nulls into floats, and loses a
    column with the name "geometry".
    """
    if layer.frame is not None:
        frame, geometry, _ = load_frame(layer.frame, None, columns, None)
        return geometry, {column: [_plain(value) for value in frame[column]] for column in columns}
    assert layer.path is not None  # A source has a frame or a path.
    if is_parquet(layer.path):
        geometry = load_parquet(layer.path, None, [])[1]
        rows = parquet_file(layer.path).read(columns=columns).to_pylist() if columns else []
        return geometry, {column: [_plain(row[column]) for row in rows] for column in columns}
    where = {"layer": layer.layer, "return_fids": True}
    _, fid, wkb, _ = call_ogr(pyogrio.raw.read, layer.path, columns=[], **where)
    geometry = np.asarray(shapely.from_wkb(wkb, on_invalid="ignore"), object)[
        np.argsort(fid, kind="stable")
    ]
    if not columns:
        return geometry, {}
    info, rows = call_ogr(_read_rows, layer.path, columns=columns, read_geometry=False, **where)
    rows.sort(key=lambda row: row[info["fid_column"] or "OGC_FID"])
    subtypes = dict(zip(info["fields"], info.get("ogr_subtypes") or [], strict=False))
    return geometry, {
        column: [_plain(row[column], is_json=subtypes.get(column) == "OFSTJSON") for row in rows]
        for column in columns
    }


def _read_rows(path: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return pyogrio's description of a layer and its rows, also if text is not in UTF-8."""
    try:
        info, table = pyogrio.read_arrow(path, **options)
        return info, table.to_pylist()
    except UnicodeDecodeError:
        info, table = pyogrio.read_arrow(path, encoding=FALLBACK_ENCODING, **options)
        return info, table.to_pylist()


def _plain(value: Any, is_json: bool = False) -> Any:
    """Convert a value to plain Python: None for null, NaN, NaT and blank text."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return _parsed(value) if is_json else value.strip() or None
    if value is None or isinstance(value, list | dict | tuple):
        return value
    # NaN and NaT are not equal to themselves; pandas.NA has no truth value.
    return None if type(value).__name__ == "NAType" or value != value else value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # A column that is declared as JSON may have other text.
        return text.strip() or None


@dataclass(frozen=True)
class _Regions:
    """Names of a file's features in messages; `texts` is None if the file has no names."""

    layer: str
    texts: list[str] | None

    def label(self, row: int) -> str:
        return f"{row + 1}" if self.texts is None else f"{row + 1} {self.texts[row]!r}"

    def list(self, rows: Sequence[int]) -> str:
        """Return text such as "2 'a', 5 'b', 6 'c' and 9 more"."""
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        return ", ".join(self.label(row) for row in rows[:SHOWN]) + more

    def pairs(self, pairs: Sequence[tuple[int, int]]) -> str:
        """Return text such as "1 'a' and 2 'b'; 3 'c' and 4 'd'"."""
        return "; ".join(f"{self.label(a)} and {self.label(b)}" for a, b in pairs[:SHOWN])


def _text(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return unicodedata.normalize("NFC", str(int(value) if whole else value))


def _unique_names(regions: _Regions, count: int) -> list[str]:
    """Make a folder name for each feature; names that would be equal get the feature's number.

    Names are compared without case, since some file systems ignore it.
    """
    if regions.texts is None:
        return [f"region-{row + 1}" for row in range(count)]
    same = _repeats(regions.texts)
    if same:
        raise RegionError(
            f"{regions.layer} gives several features the same name, "
            f"{_count(len(same), 'pair')}: {regions.pairs(same)}",
            "give each feature a unique name",
        )
    names = [_folder_name(text) for text in regions.texts]
    clashes = {row for pair in _repeats([name.casefold() for name in names]) for row in pair}
    taken = {name.casefold() for row, name in enumerate(names) if row not in clashes}
    for row in sorted(clashes):
        name = f"{names[row]}-{row + 1}"
        while name.casefold() in taken:
            name += "_"
        names[row] = name
        taken.add(name.casefold())
    return names


def _folder_name(text: str) -> str:
    """Make a folder name of letters, digits, ".", "_" and "-", not hidden, relative or reserved."""
    kept = (c if c in "._-" or unicodedata.category(c)[0] in "LMN" else "_" for c in text)
    name = re.sub(r"^[.-]|\.$", "_", "".join(kept))
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"_{name}" if name.casefold().partition(".")[0] in RESERVED else name


def _repeats(values: Iterable[Any]) -> list[tuple[int, int]]:
    """Return (first row, row) for every value that occurred before."""
    first: dict[Any, int] = {}
    return [
        (first[value], row)
        for row, value in enumerate(values)
        if first.setdefault(value, row) != row
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _polygons(geometry: NDArray, layer: VectorSource, regions: _Regions) -> NDArray:
    """Return the valid Polygon or MultiPolygon of each feature (n,), in the layer's CRS."""
    absent = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    parts, owner = simple_parts(geometry)
    parts_type = shapely.get_type_id(parts)
    areal = np.isin(np.arange(len(geometry)), owner[parts_type == 3])
    if not (areal | absent).any():
        types = ", ".join(sorted({shape.geom_type for shape in geometry}))
        raise RegionError(
            f"{layer.name} has no polygons, but {types}",
            "give polygons: buffer points or lines",
        )
    if absent.any():
        raise RegionError(
            f"{layer.name} has features without geometry, or with a broken one: "
            f"{regions.list(np.flatnonzero(absent).tolist())}",
            "draw or remove them",
        )
    if not areal.all():
        other = np.flatnonzero(~areal).tolist()
        types = ", ".join(sorted({geometry[row].geom_type for row in other}))
        raise RegionError(
            f"{layer.name} has features that are not polygons but {types}: {regions.list(other)}",
            "remove them: a region is a polygon",
        )
    # shapely.bounds skips NaN, so each coordinate is checked.
    xy, index = shapely.get_coordinates(geometry, return_index=True)
    wild = np.unique(index[~np.isfinite(xy).all(axis=1)])
    if len(wild):
        raise RegionError(
            f"{layer.name} has features with coordinates that are not finite numbers: "
            f"{regions.list(wild.tolist())}",
            "repair or remove them",
        )
    # Before the repair: a ring from 179° to -179° looks turned over.
    if parse_crs(layer.crs).is_geographic:
        left, _, right, _ = shapely.bounds(geometry).T
        wide = right - left > 180
        geometry = geometry.copy()
        geometry[wide] = [
            shapely.transform(shapely.force_2d(shape), _unwrap) for shape in geometry[wide]
        ]
    shapes, _ = clean(geometry, layer.crs, layer.crs)
    for row in np.flatnonzero(shapely.get_type_id(shapes) == 7):  # Collections: keep polygons.
        inner = simple_parts(shapes[row : row + 1])[0]
        shapes[row] = shapely.union_all(inner[shapely.get_type_id(inner) == 3])
    flat = shapely.is_missing(shapes) | (shapely.area(shapes) == 0)
    if flat.any():
        raise RegionError(
            f"{layer.name} has features without area: "
            f"{regions.list(np.flatnonzero(flat).tolist())}",
            "repair or remove them",
        )
    return shapes


def _unwrap(xy: NDArray) -> NDArray:
    return np.column_stack([unwrap_longitudes(xy[:, 0]), xy[:, 1]])


def _refuse_twins(shapes: NDArray, values: list[dict[str, Any]], regions: _Regions) -> None:
    keys = shapely.to_wkb(shapely.normalize(shapes))
    same = _repeats(
        (key, repr(sorted(given.items()))) for key, given in zip(keys, values, strict=True)
    )
    if same:
        raise RegionError(
            f"{regions.layer} has the same geometry with the same settings several times, in "
            f"{_count(len(same), 'pair')} of features: {regions.pairs(same)}",
            "remove the duplicates, or give them different settings",
        )


def _refuse_overlaps(
    shapes: NDArray,
    values: list[dict[str, Any]],
    source: str,
    crs: str | None,
    voxel_size: float,
    regions: _Regions,
) -> None:
    targets = _targets(shapes, values, source, crs)
    voxels = np.array([_voxel(given, voxel_size) for given in values])
    pairs: list[tuple[int, int]] = []
    for target in sorted({target for target in targets if target is not None}):
        rows = np.array([row for row, other in enumerate(targets) if other == target])
        projected, _ = clean(shapes[rows], source, target)
        there = ~shapely.is_missing(projected)
        overlapping = _overlaps(projected[there], voxels[rows][there], PAIR_LIMIT - len(pairs))
        pairs += [(int(a), int(b)) for a, b in rows[there][overlapping]]
        if len(pairs) >= PAIR_LIMIT:
            break
    if pairs:
        least = "at least " if len(pairs) >= PAIR_LIMIT else ""
        raise RegionError(
            f"{regions.layer} has features that overlap, {least}{_count(len(pairs), 'pair')}: "
            f"{regions.pairs(sorted(pairs))}",
            "separate them, or set `allow_overlap` to generate the common part in each",
        )


def _voxel(given: dict[str, Any], default: float) -> float:
    value = given.get("voxel_size", default)
    good = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if good else default  # A wrong one is refused with the other settings.


def _targets(
    shapes: NDArray, values: list[dict[str, Any]], source: str, crs: str | None
) -> list[str | None]:
    """Return the CRS in which each feature is generated, None if it cannot be determined."""
    requested = [given.get("crs", crs) for given in values]
    zones: list[str | None] = [None] * len(shapes)
    if None in requested:
        xy, index = shapely.get_coordinates(shapes, return_index=True)
        lon, lat = transformer(horizontal_crs(parse_crs(source)), WGS84).transform(
            xy[:, 0], xy[:, 1]
        )
        ends = np.searchsorted(index, np.arange(len(shapes) + 1))
        for row, (start, stop) in enumerate(itertools.pairwise(ends)):
            zones[row] = _zone(lon[start:stop], lat[start:stop])
    names = {str(name) for name in requested if name is not None}
    projected = {name: _projected(name) for name in names}
    return [
        zone if name is None else projected[str(name)]
        for name, zone in zip(requested, zones, strict=True)
    ]


def _zone(lon: NDArray, lat: NDArray) -> str | None:
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    lon = unwrap_longitudes(lon)
    try:
        return utm_crs((float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())))
    except RegionError:
        return None


def _projected(crs: str) -> str | None:
    try:
        return projected_crs(crs)
    except FrameError:
        return None


def _overlaps(shapes: NDArray, voxels: NDArray, limit: int) -> NDArray:
    """Return pairs a < b of polygons (metres) that overlap, (m, 2) int64, at most `limit`.

    `read_regions` defines what an overlap is.
    """
    tree = shapely.STRtree(shapes)
    area = shapely.area(shapes)
    pairs, count, step = [np.empty((0, 2), np.int64)], 0, 256
    for start in range(0, len(shapes), step):
        a, b = tree.query(shapes[start : start + step], predicate="intersects")
        a = a + start
        order = np.lexsort((b, a))
        a, b = a[order], b[order]
        a, b = a[a < b], b[a < b]
        # In blocks: where all polygons overlap each other, the limit is reached early.
        for block in range(0, len(a), 4096):
            left, right = a[block : block + 4096], b[block : block + 4096]
            common = np.asarray(shapely.intersection(shapes[left], shapes[right]), object)
            shared = shapely.area(common)
            voxel = np.maximum(voxels[left], voxels[right])
            over = shared > OVERLAP_SHARE * np.minimum(area[left], area[right])
            # A part that is wider than a voxel contains a disc of that diameter.
            unsure = np.flatnonzero(~over & (shared > math.pi / 4 * voxel**2))
            eroded = shapely.buffer(common[unsure], -voxel[unsure] / 2)
            over[unsure] = ~shapely.is_empty(eroded)
            pairs.append(np.column_stack([left[over], right[over]]).astype(np.int64))
            count += int(over.sum())
            if count >= limit:
                return np.concatenate(pairs)[:limit]
    return np.concatenate(pairs)


def _holds_voxels(parts: list[Frame], region: shapely.Geometry) -> NDArray:
    """Return which frames have a voxel whose centre lies in `region`, (n,) bool."""
    boxes = shapely.box(*np.array([part.bounds for part in parts]).T)
    # On a grid: GEOS answers with NaN, nothing or a wrong place where coordinates differ by less
    # than its arithmetic can tell.
    with np.errstate(divide="ignore", invalid="ignore"):
        snapped = shapely.set_precision(region, 1e-6 * parts[0].voxel_size)
    shapely.prepare(snapped)
    keep = np.asarray(shapely.contains(snapped, boxes))
    for row in np.flatnonzero(~keep & shapely.intersects(region, boxes)):
        common = shapely.intersection(snapped, boxes[row])
        size = parts[row].voxel_size
        keep[row] = _holds_disc(common, 0.71 * size) or bool(inside(parts[row], region).any())
    return keep


def _holds_disc(area: shapely.Geometry, radius: float) -> bool:
    """Return whether a disc was found in an area. One wider than a voxel's diagonal holds the
    centre of a voxel; narrower areas have to be rasterised to know."""
    if shapely.get_dimensions(area) < 2:
        return False
    middle = shapely.point_on_surface(shapely.buffer(area, -1.1 * radius))
    if shapely.is_empty(middle) or not shapely.contains(area, middle):
        return False
    return bool(shapely.distance(middle, shapely.boundary(area)) >= radius)
