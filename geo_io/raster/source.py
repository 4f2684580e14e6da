"""Raster files and DataArrays, opened for their metadata alone. `resample.read_on` reads them
onto a frame."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
import xarray as xr
from affine import Affine

from geo_io.crs import WGS84, transformer
from geo_io.errors import InputError, MissingCrsError, MissingFileError
from geo_io.frame import Bounds, short_name

BASE_ONLY = -1
"""The overview level that means: the raster itself, and no overview."""


@dataclass(frozen=True, eq=False)
class RasterSource:
    """What is known of a raster without reading its pixels. Made by `open_raster`; holds no open
    file.

    Attributes
    ----------
    name : how messages call it: the path, or the name of the DataArray
    path : what GDAL opens; empty for a DataArray
    array : (bands, rows, columns) DataArray of an in-memory source, else None
    crs : horizontal CRS
    vertical : vertical CRS, None where the file does not say
    transform : from (column, row) to CRS coordinates
    shape : (rows, columns)
    dtypes, nodata, units, descriptions, colorinterp, scales, offsets : one a band; units and
        descriptions are
        "" and nodata is None where the file does not say
    overviews : reduction factors of the overviews of the first band, finest first
    """

    name: str
    path: str
    array: xr.DataArray | None
    crs: pyproj.CRS
    vertical: pyproj.CRS | None
    transform: Affine
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    units: tuple[str, ...]
    descriptions: tuple[str, ...]
    colorinterp: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    overviews: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.dtypes)

    @property
    def resolution(self) -> tuple[float, float]:
        """Width and height of a pixel in units of the CRS."""
        a, b, _, d, e, _ = self.transform[:6]
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The four corners in CRS coordinates, in the order of a ring."""
        h, w = self.shape
        return [self.place(*corner) for corner in ((0, 0), (w, 0), (w, h), (0, h))]

    def place(self, column: float, row: float) -> tuple[float, float]:
        """CRS coordinates of a place on the pixel lattice; 0, 0 is the outer corner of the first
        pixel."""
        a, b, c, d, e, f = self.transform[:6]
        return a * column + b * row + c, d * column + e * row + f

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in the raster's CRS."""
        x, y = zip(*self.corners, strict=True)
        return min(x), min(y), max(x), max(y)

    def bounds_in(self, crs: str | pyproj.CRS) -> Bounds:
        """left, bottom, right, top in another CRS, edges densified. Across the antimeridian,
        left > right."""
        left, bottom, right, top = transformer(self.crs, pyproj.CRS(crs)).transform_bounds(
            *self.bounds, densify_pts=21
        )
        return left, bottom, right, top

    @functools.cached_property
    def pixel_metres(self) -> tuple[float, float]:
        """Width and height of the pixel in the middle of the raster on the ground, metres."""
        h, w = self.shape
        points = [self.place(*p) for p in ((w / 2, h / 2), (w / 2 + 1, h / 2), (w / 2, h / 2 + 1))]
        lon, lat = transformer(self.crs, WGS84).transform(
            [p[0] for p in points], [p[1] for p in points]
        )
        if not np.isfinite([*lon, *lat]).all():
            raise InputError(
                f"{self.name} lies where its CRS {short_name(self.crs)} is not defined",
                "check the CRS of the file, or give it anew with gdal_edit -a_srs",
            )
        geod = pyproj.Geod(ellps="WGS84")
        _, _, sizes = geod.inv(lon[:1] * 2, lat[:1] * 2, lon[1:], lat[1:])
        return float(sizes[0]), float(sizes[1])

    @functools.cached_property
    def period(self) -> float | None:
        """Columns after which a raster in longitudes repeats, None for other rasters."""
        a, b, _, d, _, _ = self.transform[:6]
        if not self.crs.is_geographic or b != 0 or d != 0:
            return None
        return float(2 * math.pi / (self.crs.axis_info[0].unit_conversion_factor * abs(a)))


def open_raster(
    source: str | Path | xr.DataArray | RasterSource, *, assume_crs: str | None = None
) -> RasterSource:
    """Read the metadata of a raster file, or of a DataArray with a CRS (see rioxarray).

    `assume_crs` is the CRS of a raster that carries none; one that it carries wins.

    Raises
    ------
    MissingFileError
        if the path does not exist
    MissingCrsError
        if there is no CRS
    InputError
        if it is no raster, has no bands, or has no position
    """
    if isinstance(source, RasterSource):
        return source
    if isinstance(source, xr.DataArray):
        return _describe_array(source, assume_crs)
    path = str(source)
    local = "://" not in path and not path.startswith("/vsi") and ":" not in path[2:]
    if local and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    with _unplaced_ignored(), opened(path) as dataset:
        if dataset.count == 0:
            parts = ", ".join(dataset.subdatasets[:5]) or "it has none"
            raise InputError(
                f"{path} holds no raster bands itself", f"name one of its parts: {parts}"
            )
        if dataset.transform == Affine.identity():
            located = (
                ", only ground control points or RPCs" if dataset.gcps[0] or dataset.rpcs else ""
            )
            raise InputError(
                f"{path} has no geotransform{located}",
                "georeference it first, with gdalwarp or a world file beside it",
            )
        crs, vertical = _parse_crs(path, dataset.crs, assume_crs)
        return RasterSource(
            name=path,
            path=path,
            array=None,
            crs=crs,
            vertical=vertical,
            transform=_checked(path, dataset.transform),
            shape=(dataset.height, dataset.width),
            dtypes=tuple(dataset.dtypes),
            nodata=tuple(dataset.nodatavals),
            units=tuple(unit or "" for unit in dataset.units),
            descriptions=tuple(text or "" for text in dataset.descriptions),
            colorinterp=tuple(each.name for each in dataset.colorinterp),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            overviews=tuple(dataset.overviews(1)),
        )


def _describe_array(array: xr.DataArray, assume_crs: str | None) -> RasterSource:
    import rioxarray  # registers the .rio accessor

    name = f"DataArray {array.name!r}" if array.name is not None else "DataArray"
    try:
        array = array.transpose(..., array.rio.y_dim, array.rio.x_dim)
        transform = array.rio.transform(recalc=True)
    except (rioxarray.exceptions.RioXarrayError, ValueError) as error:
        raise InputError(
            f"{name} is no raster: {error}", "give it dimensions y and x with coordinates"
        ) from error
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{name} has dimensions {array.dims}", "give it y and x, and bands before them if any"
        )
    if transform == Affine.identity():
        raise InputError(f"{name} has no geotransform", "give it x and y coordinates in its CRS")
    if array.ndim == 2:
        array = array.expand_dims("band")
    crs, vertical = _parse_crs(name, array.rio.crs, assume_crs)
    bands = array.shape[0]
    nodata = array.rio.nodata if array.rio.nodata is not None else array.rio.encoded_nodata
    names = array.attrs.get("long_name", "")
    texts = tuple(map(str, names)) if isinstance(names, (tuple, list)) else (str(names),) * bands
    return RasterSource(
        name=name,
        path="",
        array=array,
        crs=crs,
        vertical=vertical,
        transform=_checked(name, transform),
        shape=(array.shape[1], array.shape[2]),
        dtypes=(str(array.dtype),) * bands,
        nodata=(None if nodata is None else float(nodata),) * bands,
        units=(str(array.attrs.get("units", "")),) * bands,
        descriptions=texts,
        colorinterp=("undefined",) * bands,
        scales=(float(array.attrs.get("scale_factor", 1.0)),) * bands,
        offsets=(float(array.attrs.get("add_offset", 0.0)),) * bands,
        overviews=(),
    )


@contextlib.contextmanager
def _unplaced_ignored() -> Iterator[None]:
    """Silence rasterio about files without a position: `open_raster` raises an error instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def opened(path: str, level: int | None = None) -> Iterator[Any]:
    """An open rasterio dataset; GDAL's errors become ours.

    `level` is an overview level (0 is the finest), or `BASE_ONLY` to keep GDAL from using overviews
    by itself.
    """
    options: dict[str, Any] = {}
    if level is not None:
        options = {"OVERVIEW_LEVEL": "NONE"} if level == BASE_ONLY else {"overview_level": level}
    try:
        with rasterio.open(path, **options) as dataset:
            yield dataset
    except rasterio.errors.RasterioIOError as error:
        raise InputError(
            f"{path} cannot be read as a raster: {error}",
            "check with gdalinfo that it is whole and of a format GDAL knows",
        ) from error


def _parse_crs(name: str, crs: Any, assume_crs: str | None) -> tuple[pyproj.CRS, pyproj.CRS | None]:
    """(horizontal, vertical) from what the raster carries, or from what is assumed."""
    if not crs and assume_crs is None:
        raise MissingCrsError(
            f"{name} has no CRS", "name it with --assume-crs, for example EPSG:4326"
        )
    try:
        if crs:
            parsed = pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))
        else:
            parsed = pyproj.CRS.from_user_input(assume_crs)
    except pyproj.exceptions.CRSError as error:
        raise MissingCrsError(
            f"the CRS {str(crs or assume_crs)!r} of {name} is not understood",
            "name it with an EPSG code such as EPSG:32632",
        ) from error
    vertical = None
    if parsed.is_compound:
        parsed, vertical = parsed.sub_crs_list[0], _identified(parsed.sub_crs_list[1])
    elif len(parsed.axis_info) == 3:
        vertical, parsed = parsed, parsed.to_2d()
    base = parsed.source_crs if parsed.is_bound else parsed
    if base is None or not (base.is_geographic or base.is_projected):
        raise MissingCrsError(
            f"the CRS {parsed.name!r} of {name} is local: nothing says where on Earth it lies",
            "write its real CRS into the file with gdal_edit -a_srs",
        )
    return parsed, vertical


def _identified(vertical: pyproj.CRS) -> pyproj.CRS:
    """The EPSG vertical CRS of the same name, where GDAL gives one that has lost its code.

    GDAL 3.10 reads the vertical part of GeoTIFFs that were written with a compound code (EPSG:7415,
    7405) with the right name and a wrong datum.
    """
    if vertical.to_authority(min_confidence=70) is None:
        for match in vertical.list_authority(min_confidence=0):
            known = pyproj.CRS.from_authority(match.auth_name, match.code)
            if known.name == vertical.name:
                return known
    return vertical


def _checked(name: str, transform: Affine) -> Affine:
    if not np.isfinite(transform[:6]).all() or transform.determinant == 0:
        raise InputError(
            f"{name} has an unusable geotransform {tuple(transform[:6])}", "georeference it anew"
        )
    return Affine(*transform[:6])
