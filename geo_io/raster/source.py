"""Metadata of raster files and DataArrays. `geo_io.raster.resample.read_on` reads their pixels."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
import xarray as xr
from affine import Affine
from rasterio._path import _parse_path
from rasterio.io import DatasetReader

from geo_io.crs import WGS84, transformer
from geo_io.errors import InputError, MissingCrsError, MissingFileError, remedy_for
from geo_io.frame import Bounds, short_name
from geo_io.safety.damage import damaged_file
from geo_io.safety.gdal_files import (
    allowed_drivers,
    archive_options,
    require_safe_dataset,
    require_safe_raster,
)
from geo_io.safety.limits import BLOCK_BYTES, CACHE_BYTES

CHECK = "check with gdalinfo that it is complete and of a format that GDAL reads"

BASE_ONLY = -1
"""Overview level that stands for the raster itself, without overviews."""


@dataclass(frozen=True, eq=False)
class RasterSource:
    """Metadata of a raster. Made by `open_raster`; holds no open file.

    Attributes
    ----------
    name : str
        Name in messages: the path, or the name of the DataArray.
    path : str
        Path for GDAL; empty for a DataArray.
    array : DataArray (bands, rows, columns) or None
        The data of an in-memory source.
    crs : pyproj.CRS
        Horizontal CRS.
    vertical : pyproj.CRS or None
        Vertical CRS, if the file has one.
    transform : Affine
        From (column, row) to CRS coordinates.
    shape : (int, int)
        Rows and columns.
    dtypes, nodata, units, descriptions, colorinterp, scales, offsets : tuple
        One value per band. Units and descriptions are "" and nodata is None where the file has
        none.
    overviews : tuple of int
        Reduction factors of the overviews of the first band, the finest first.
    base_only : bool
        The overviews are not to be used: `overviews` is empty, and GDAL is kept from them.
    mosaic : bool
        `path` is the text of a VRT of tiles (`geo_io.raster.mosaic`).
    notes : tuple of str
        What is odd about the source, for warnings.
    height_unit : str or None
        Unit of its heights whatever unit is asked for, if it was made of another file.
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
    base_only: bool = False
    mosaic: bool = False
    notes: tuple[str, ...] = ()
    height_unit: str | None = None

    def without_overviews(self) -> RasterSource:
        """Return the same raster, read without its overviews."""
        return replace(self, overviews=(), base_only=True) if self.overviews else self

    @property
    def count(self) -> int:
        """Number of bands."""
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
        """Return CRS coordinates of a pixel position; 0, 0 is the corner of the raster."""
        a, b, c, d, e, f = self.transform[:6]
        return a * column + b * row + c, d * column + e * row + f

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top in the raster's CRS."""
        x, y = zip(*self.corners, strict=True)
        return min(x), min(y), max(x), max(y)

    def bounds_in(self, crs: str | pyproj.CRS) -> Bounds:
        """Return left, bottom, right, top in another CRS; left > right across the antimeridian."""
        left, bottom, right, top = transformer(self.crs, pyproj.CRS(crs)).transform_bounds(
            *self.bounds, densify_pts=21
        )
        return left, bottom, right, top

    @functools.cached_property
    def pixel_metres(self) -> tuple[float, float]:
        """Width and height on the ground of the pixel in the middle of the raster, metres."""
        h, w = self.shape
        points = [self.place(*p) for p in ((w / 2, h / 2), (w / 2 + 1, h / 2), (w / 2, h / 2 + 1))]
        lon, lat = transformer(self.crs, WGS84).transform(
            [p[0] for p in points], [p[1] for p in points]
        )
        if not np.isfinite([*lon, *lat]).all():
            raise InputError(
                f"{self.name} lies where its CRS {short_name(self.crs)} is not defined",
                "check the CRS of the file, and correct it with gdal_edit -a_srs",
            )
        geod = pyproj.Geod(ellps="WGS84")
        _, _, sizes = geod.inv(lon[:1] * 2, lat[:1] * 2, lon[1:], lat[1:])
        if not (np.isfinite(sizes).all() and min(sizes) > 0):
            raise InputError(
                f"the cells of {self.name} have no size on the ground: {self.resolution}",
                "georeference it again",
            )
        return float(sizes[0]), float(sizes[1])

    @functools.cached_property
    def period(self) -> float | None:
        """Columns after which a raster in longitudes repeats; None for other rasters."""
        a, b, _, d, _, _ = self.transform[:6]
        if not self.crs.is_geographic or b != 0 or d != 0:
            return None
        return float(2 * math.pi / (self.crs.axis_info[0].unit_conversion_factor * abs(a)))


def open_raster(
    source: str | Path | xr.DataArray | RasterSource, *, assume_crs: str | None = None
) -> RasterSource:
    """Read the metadata of a raster.

    Parameters
    ----------
    source : str, Path, DataArray or RasterSource
        A path for GDAL, or a DataArray with a CRS (see rioxarray). A RasterSource is returned
        unchanged.
    assume_crs : str, optional
        CRS of a raster that has none.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    MissingCrsError
        If the raster has no CRS on Earth and `assume_crs` is not given.
    UnsafePathError
        If the path is an address, or the file names one, or files outside its folder, and that is
        not allowed (`geo_io.safety.access`).
    InputError
        If the file is not a raster, has no bands, or has no geotransform.
    """
    if isinstance(source, RasterSource):
        return source
    if isinstance(source, xr.DataArray):
        return _describe_array(source, assume_crs)
    path = str(source)
    local = "://" not in path and not path.startswith("/vsi") and ":" not in path[2:]
    if local and not Path(path).exists():
        raise MissingFileError(f"{path} does not exist", "check the path")
    require_safe_raster(path)
    with (
        damaged_file(f"{path} cannot be read as a raster", CHECK),
        _georeference_warning_ignored(),
        open_dataset(path, drivers=allowed_drivers(path)) as dataset,
    ):
        require_safe_dataset(path, dataset)
        _require_small_blocks(path, dataset)
        if dataset.count == 0:
            parts = ", ".join(dataset.subdatasets[:5])
            raise InputError(
                f"{path} has no raster bands itself",
                f"name one of its parts: {parts}" if parts else "give a file with raster bands",
            )
        if dataset.transform == Affine.identity():
            only = ", only ground control points or RPCs" if dataset.gcps[0] or dataset.rpcs else ""
            raise InputError(
                f"{path} has no geotransform{only}",
                "georeference it with gdalwarp, or with a world file beside it",
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


def split_band(source: Any) -> tuple[Any, str | None]:
    """Split "file.tif:band" into the file and the band; None if no band is named."""
    if not isinstance(source, str | Path):
        return source, None
    text = str(source)
    if Path(text).exists() or ":" not in text[2:]:
        return source, None
    file, _, band = text.rpartition(":")
    return (file, band) if band and Path(file).is_file() else (source, None)


def _describe_array(array: xr.DataArray, assume_crs: str | None) -> RasterSource:
    import rioxarray  # Registers the .rio accessor.

    name = f"DataArray {array.name!r}" if array.name is not None else "DataArray"
    try:
        array = array.transpose(..., array.rio.y_dim, array.rio.x_dim)
        transform = array.rio.transform(recalc=True)
    except (rioxarray.exceptions.RioXarrayError, ValueError) as error:
        raise InputError(
            f"{name} is not a raster: {error}", "give it dimensions y and x with coordinates"
        ) from error
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{name} has dimensions {array.dims} of size {array.shape}",
            "give it dimensions y and x, with bands before them if it has several",
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
def _georeference_warning_ignored() -> Iterator[None]:
    """Silence rasterio's warning about a missing geotransform: `open_raster` raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def open_dataset(
    path: str, level: int | None = None, drivers: list[str] | None = None
) -> Iterator[Any]:
    """Open a rasterio dataset as a context manager. `open_raster` has checked what it names.

    Parameters
    ----------
    path : str
        Path for GDAL.
    level : int, optional
        An overview level (0 is the finest), or `BASE_ONLY` to keep GDAL from using overviews. By
        default GDAL chooses.
    drivers : list of str, optional
        GDAL's drivers that may open it; all by default.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    options: dict[str, Any] = {}
    if level is not None:
        options = {"OVERVIEW_LEVEL": "NONE"} if level == BASE_ONLY else {"overview_level": level}
    try:
        environment = rasterio.Env(**_cache(), **archive_options(path))
        with environment, _opened(path, drivers, options) as dataset:
            yield dataset
    except (rasterio.errors.RasterioError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a raster: {error}", remedy_for(path, CHECK)
        ) from error


def _cache() -> dict[str, int]:
    """GDAL's memory for blocks, unless the user says: by default it is a twentieth of the memory of
    the machine in each process, which blocks of a sparse raster fill that has none on disk."""
    return {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": CACHE_BYTES}


def _opened(path: str, drivers: list[str] | None, options: dict[str, Any]) -> Any:
    """Open a dataset with some of GDAL's drivers, which `rasterio.open` documents but refuses."""
    if drivers is None:
        return rasterio.open(path, **options)
    with rasterio.Env():
        return DatasetReader(_parse_path(path), driver=drivers, **options)


def holds_raster(path: str) -> bool:
    """Return whether GDAL opens a file as a raster.

    Raises
    ------
    UnsafePathError
        If it names an address, or files outside its folder, and that is not allowed.
    """
    require_safe_raster(path)
    try:
        with open_dataset(path, drivers=allowed_drivers(path)) as dataset:
            return bool(dataset.count)
    except InputError:
        return False


def _require_small_blocks(path: str, dataset: Any) -> None:
    """Raise InputError if a single block of a raster fills the memory: GDAL reads whole blocks."""
    for (rows, columns), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = rows * columns * np.dtype(dtype.replace("complex_int16", "complex64")).itemsize
        if size > BLOCK_BYTES:
            raise InputError(
                f"{path} is stored in blocks of {columns:,} x {rows:,} cells, of which each takes "
                f"{size / 2**30:.1f} GiB",
                "write it with tiles: gdal_translate -co TILED=YES",
            )


def _parse_crs(name: str, crs: Any, assume_crs: str | None) -> tuple[pyproj.CRS, pyproj.CRS | None]:
    """Return the horizontal and vertical CRS of a raster, by its own record or `assume_crs`."""
    if not crs and assume_crs is None:
        raise MissingCrsError(
            f"{name} has no CRS", "give its CRS as `assume_crs`, such as EPSG:4326"
        )
    try:
        if crs:
            parsed = pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))
        else:
            parsed = pyproj.CRS.from_user_input(assume_crs)
    except pyproj.exceptions.CRSError as error:
        raise MissingCrsError(
            f"the CRS {str(crs or assume_crs)!r} of {name} is not understood",
            "give it as an EPSG code such as EPSG:32632",
        ) from error
    vertical = None
    if parsed.is_compound:
        parsed, vertical = parsed.sub_crs_list[0], _identified(parsed.sub_crs_list[1])
    elif len(parsed.axis_info) == 3:
        vertical, parsed = parsed, parsed.to_2d()
    base = parsed.source_crs if parsed.is_bound else parsed
    if base is None or not (base.is_geographic or base.is_projected):
        raise MissingCrsError(
            f"the CRS {parsed.name!r} of {name} is local, without a position on Earth",
            "write its real CRS into the file with gdal_edit -a_srs",
        )
    return parsed, vertical


def _identified(vertical: pyproj.CRS) -> pyproj.CRS:
    """Return the EPSG vertical CRS of the same name if GDAL lost the code.

    GDAL 3.10 reads the vertical part of GeoTIFFs that were written with a compound code (EPSG:7415,
    7405) with the right name and a wrong datum.
    """
    if vertical.to_authority(min_confidence=70) is None:
        for match in vertical.list_authority(min_confidence=0):
            candidate = pyproj.CRS.from_authority(match.auth_name, match.code)
            if candidate.name == vertical.name:
                return candidate
    return vertical


def _checked(name: str, transform: Affine) -> Affine:
    if not np.isfinite(transform[:6]).all() or transform.determinant == 0:
        raise InputError(
            f"{name} has an unusable geotransform {tuple(transform[:6])}", "georeference it again"
        )
    return Affine(*transform[:6])
