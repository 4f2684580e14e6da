"""Heights of contour lines and of points, interpolated to a raster once for each file.

Points become a triangulated surface (Delaunay, linear). With lines among them, a membrane is spread
between the heights, since triangles between vertices of one contour line are flat. The raster is a
function of the file alone; places outside the points are nodata, which `geo_io.elevation` fills.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree

from geo_io.cache import made_once
from geo_io.crs import parse_crs
from geo_io.elevation import spread
from geo_io.errors import InputError
from geo_io.raster.source import holds_raster, open_dataset, open_raster
from geo_io.semantics.heights import unit_in_name
from geo_io.vector.source import VectorSource, holds_features, open_vector, split_layer

VERSION = 2
"""Raised when the raster that is made of a file changes."""

HEIGHT_FIELDS = (
    "z",
    "elev",
    "elevation",
    "height",
    "altitude",
    "altitud",
    "altitudine",
    "alt",
    "ele",
    "contour",
    "hoehe",
    "höhe",
    "hoogte",
    "kote",
    "quota",
    "cota",
    "cote",
    "z_value",
    "zvalue",
    "elev_m",
    "height_m",
    "grid_code",
    "gridcode",
    "isohypse",
    "hoyde",
    "høyde",
    "hojd",
    "höjd",
    "wysokosc",
    "vyska",
    "propertyvalue",
    "prop_value",
    "level",
    "el",
    "hgt",
    "rl",
    "isoline",
    "contour_elevation",
    "contour_elev",
    "contour_height",
    "cont_elev",
    "elev_value",
    "hoehenlinie",
    "altimetria",
)
"""Attributes with the height of a feature, in order, for geometries without heights.

Blanks and signs in a name do not count, and it may end with a unit: "ELEV_FT", "Contour (m)"."""

MOST_CELLS = 4096
"""Most cells along each side of the raster."""

MOST_POINTS = 2_000_000
"""Of more points than this, those of a cell are averaged before they are triangulated."""

FINEST = 0.25
"""Least edge of a cell, metres."""

DEGREE = 111_320.0
"""Metres of a degree of latitude."""

ROWS = 256
"""Rows of the raster that are interpolated at a time."""


@dataclass(frozen=True)
class _Heights:
    """Places (n, 2) in the CRS of the file, heights (n,), whether there are lines among them.

    And the unit that the attribute of the heights names, "" without one.
    """

    xy: NDArray
    z: NDArray
    lines: bool
    unit: str


def height_raster(source: Any, *, unit: str | None, assume_crs: str | None, what: str) -> Any:
    """Return the raster of a vector file of heights; any other source as it is.

    Parameters
    ----------
    source : source
        As in `geo_io.elevation_mosaic.open_heights`.
    unit : str, optional
        Unit of the heights; the raster keeps it.
    assume_crs : str, optional
        CRS of a file that has none.
    what : str
        Name of the input in messages.

    Raises
    ------
    InputError
        If the file has no heights, or fewer than three points that are not on one line.
    """
    if not isinstance(source, str | Path):
        return source
    file, layer = split_layer(source)
    if not Path(file).exists() or holds_raster(file) or not holds_features(file):
        return source
    opened = open_vector(source, assume_crs=assume_crs)
    how = f"heights {VERSION} {layer} {opened.crs}"
    path = made_once(file, how, ".tif", lambda out: _interpolate(opened, out, what))
    with open_dataset(str(path)) as dataset:
        origin = dataset.tags().get("origin", "")
    note = f"the {what} {opened.name} was {origin}"
    return replace(open_raster(str(path)), name=opened.name, notes=(note,))


def _interpolate(source: VectorSource, out: Path, what: str) -> None:
    heights = _read(source, what)
    degrees = parse_crs(source.crs).is_geographic
    middle = math.radians(float(heights.xy[:, 1].mean())) if degrees else 0.0
    size = np.array([DEGREE * math.cos(middle), DEGREE]) if degrees else np.ones(2)
    metres = heights.xy * size
    cell = _cell(metres, heights.lines)
    left, bottom = np.floor(metres.min(axis=0) / cell)
    right, top = np.floor(metres.max(axis=0) / cell) + 1
    shape = int(top - bottom), int(right - left)
    at = np.floor(metres / cell).astype(np.int64)
    row, column = int(top) - 1 - at[:, 1], at[:, 0] - int(left)
    if heights.lines:
        values, known = _means(row, column, heights.z, shape)
        surface = spread(values, known)
        origin = f"interpolated from {len(heights.z):,} points of lines"
    else:
        surface = _triangulated(metres, heights.z, cell, (left, top), shape, source, what)
        origin = f"interpolated from {len(heights.z):,} points"
    step = cell / size
    with rasterio.open(
        out,
        "w",
        driver="GTiff",
        height=shape[0],
        width=shape[1],
        count=1,
        dtype="float32",
        crs=source.crs,
        transform=Affine(step[0], 0, left * step[0], 0, -step[1], top * step[1]),
        nodata=math.nan,
        tiled=True,
        compress="deflate",
        predictor=3,
    ) as dataset:
        dataset.write(surface.astype(np.float32), 1)
        if heights.unit:
            dataset.units = (heights.unit,)
        dataset.update_tags(origin=f"{origin}, cells of {cell:.3g} m")


def _read(source: VectorSource, what: str) -> _Heights:
    """Collect the places with heights of all features, each place once."""
    name, unit = _height_field(source)
    table, geometry = source.everything([] if name is None else [name])
    usable = np.array([shape is not None and not shape.is_empty for shape in geometry], bool)
    geometry, rows = geometry[usable], np.flatnonzero(usable)
    parts, of = shapely.get_parts(geometry, return_index=True)
    lines = bool((shapely.get_dimensions(parts) > 0).any())
    own = bool(shapely.has_z(parts).any())
    coordinates, index = shapely.get_coordinates(parts, include_z=True, return_index=True)
    z = coordinates[:, 2]
    if not own or not np.isfinite(z).any() or (name is not None and not np.nan_to_num(z).any()):
        if name is None:
            raise InputError(
                f"the {what} {source.name} is a file of points or lines without heights; its "
                f"attributes are {', '.join(source.fields) or 'none'}",
                "call the one with heights `elevation`, give 3D geometry, or make a raster of them "
                "first, for example with gdal_grid or QGIS's TIN interpolation",
            )
        z = np.array([_number(value) for value in table[name]], float)[rows][of][index]
    else:
        unit = ""  # of the attribute, and not of the geometry
    xy = coordinates[:, :2]
    good = np.isfinite(z) & np.isfinite(xy).all(axis=1)
    if lines:
        xy, z = _densified(xy[good], z[good], index[good])
    else:
        xy, z = xy[good], z[good]
    places, inverse, count = np.unique(xy, axis=0, return_inverse=True, return_counts=True)
    total = np.bincount(inverse.ravel(), z, len(places))
    heights = _Heights(places, total / count, lines, unit)
    if len(places) < 3 or np.linalg.matrix_rank(places - places[0]) < 2:
        raise InputError(
            f"the {what} {source.name} is a file of points or lines, not a raster, and has heights "
            f"at {len(places)} places; a surface needs three or more that are not on one line",
            "give all points or contour lines of the region, or make a raster of them, for example "
            "with gdal_grid or QGIS's TIN interpolation",
        )
    return heights


def _height_field(source: VectorSource) -> tuple[str | None, str]:
    """Return the attribute with the heights, None without one, and the unit that its name has."""
    by_letters: dict[str, tuple[str, str]] = {}
    for name in source.fields:
        base, unit = unit_in_name(name)
        for spelling, told in ((name.casefold(), None), (base, unit)):
            by_letters.setdefault(_letters(spelling), (name, told or ""))
    return next(
        (by_letters[_letters(name)] for name in HEIGHT_FIELDS if _letters(name) in by_letters),
        (None, ""),
    )


def _letters(name: str) -> str:
    return "".join(letter for letter in name if letter.isalnum())


def _number(value: object) -> float:
    """Return a height from a number or a text such as "12.5", "12,5" or "12 m"; NaN if none."""
    match = re.fullmatch(r"\s*(-?\d+(?:[.,]\d+)?)\s*\w{0,3}\s*", str(value))
    return float(match[1].replace(",", ".")) if match else math.nan


def _densified(xy: NDArray, z: NDArray, line: NDArray) -> tuple[NDArray, NDArray]:
    """Add places along lines, so that none is farther than a cell from the next."""
    step = np.diff(xy, axis=0)
    same = line[1:] == line[:-1]
    length = np.hypot(*step.T)
    edge = max(float(np.ptp(xy, axis=0).max()) / MOST_CELLS, 1e-12)
    pieces = np.where(same, np.maximum(np.ceil(length / edge), 1), 1).astype(np.int64)
    start = np.repeat(np.arange(len(step)), pieces)
    part = np.arange(len(start)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (part / pieces[start])[:, None] * same[start][:, None]
    places = xy[start] + share * step[start]
    heights = z[start] + share[:, 0] * np.diff(z)[start]
    return np.concatenate([places, xy[-1:]]), np.concatenate([heights, z[-1:]])


def _cell(metres: NDArray, lines: bool) -> float:
    """Choose the edge of a cell, metres: half the distance of points, the mean one of lines."""
    extent = np.ptp(metres, axis=0)
    least = max(float(extent.max()) / MOST_CELLS, FINEST)
    sample = metres[:: max(1, len(metres) // 50_000)]
    if lines:
        spacing = float(np.sqrt(extent.prod() / max(len(metres), 1)))
        return max(least, spacing)
    near = cKDTree(metres).query(sample, k=2)[0][:, 1]
    return max(least, float(np.median(near)) / 2)


def _means(
    row: NDArray, column: NDArray, z: NDArray, shape: tuple[int, int]
) -> tuple[NDArray, NDArray]:
    """Average the heights in each cell; float32 and bool, (h, w)."""
    at = row * shape[1] + column
    count = np.bincount(at, minlength=shape[0] * shape[1])
    total = np.bincount(at, z, shape[0] * shape[1])
    values = (total / np.maximum(count, 1)).astype(np.float32)
    return values.reshape(shape), (count > 0).reshape(shape)


def _triangulated(
    metres: NDArray,
    z: NDArray,
    cell: float,
    corner: tuple[float, float],
    shape: tuple[int, int],
    source: VectorSource,
    what: str,
) -> NDArray:
    """Interpolate linearly within the triangles of points, (h, w) float32, NaN outside."""
    if len(z) > MOST_POINTS:
        at = np.floor(metres / cell).astype(np.int64)
        _, first = np.unique(at, axis=0, return_index=True)
        metres, z = metres[first], z[first]
    middle = metres.mean(axis=0)
    try:
        triangles = Delaunay(metres - middle)
    except QhullError as error:
        raise InputError(
            f"the points of the {what} {source.name} cannot be triangulated",
            "make a raster of them first, for example with gdal_grid",
        ) from error
    from scipy.interpolate import LinearNDInterpolator  # takes 0.3 s, and few jobs need it

    plane = LinearNDInterpolator(triangles, z)
    x = (corner[0] + np.arange(shape[1]) + 0.5) * cell - middle[0]
    rows = []
    for start in range(0, shape[0], ROWS):
        count = min(ROWS, shape[0] - start)
        y = (corner[1] - start - np.arange(count) - 0.5) * cell - middle[1]
        rows.append(plane(*np.meshgrid(x, y)).astype(np.float32))
    return np.concatenate(rows)
