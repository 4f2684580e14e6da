"""Writers of cloud-optimised GeoTIFFs, whole or window by window.

A file is written under a temporary name beside its final path, and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
import rasterio.shutil
from numpy.typing import NDArray
from pyproj.crs import CompoundCRS
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.windows import Window

from geo_io.errors import FrameError, InputError
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.layers import Raster

BLOCK_SIZE = 512

WRITE_ERRORS = (rasterio.errors.RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises when it cannot write, or later when it reads what it could not write."""

SMALLEST_DISK = 2**20
"""Free bytes below which a disk counts as full when a write has failed."""

RESAMPLING = ("nearest", "average", "bilinear", "cubic", "cubicspline", "mode", "rms")
"""Resampling methods for overviews; use "nearest" or "mode" for class codes."""


class CogWriter:
    """Writer of a cloud-optimised GeoTIFF from windows in any order.

    Use it as a context manager. The file appears, complete, when the block ends without an error.
    No more than one window is held in memory.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced if it exists.
    frame : Frame
        Where the raster is.
    dtype : dtype
        Data type of all bands.
    count : int
        Number of bands; four bands of uint8 are RGBA, three are RGB.
    nodata : float, optional
        Value of cells without data. Cells that are never written have it, else 0.
    colormap : mapping of int to sequence of int, optional
        RGB or RGBA by class code, for one band of uint8.
    band_names : sequence of str, optional
        One name for each band.
    vertical_crs : str, optional
        CRS of the heights in the file, for rasters of heights only. The file then has a compound
        CRS, and the tag VERTICAL_CRS.
    tags : mapping of str to str, optional
        Metadata.
    overview_resampling : str
        One of `RESAMPLING`.
    unit : str, optional
        Unit of the values of all bands, such as "metre".
    statistics : bool
        Record minimum, maximum, mean and standard deviation of each band, by which programs choose
        the contrast. They are sums in the order of the windows.

    Raises
    ------
    InputError
        If an option is wrong, or the file cannot be written.
    OSError
        If the disk is full.
    FrameError
        If a window does not lie on the frame's lattice, or the vertical CRS is not understood.
    """

    def __init__(
        self,
        path: str | Path,
        frame: Frame,
        dtype: Any,
        count: int = 1,
        *,
        nodata: float | None = None,
        colormap: Mapping[int, Sequence[int]] | None = None,
        band_names: Sequence[str] | None = None,
        vertical_crs: str | None = None,
        tags: Mapping[str, str] | None = None,
        overview_resampling: str = "average",
        unit: str | None = None,
        statistics: bool = False,
    ) -> None:
        self.path = Path(path)
        self.unit = unit
        self.statistics = [_Statistics() for _ in range(count)] if statistics else []
        self.frame = frame
        self.dtype = np.dtype(dtype)
        self.count = count
        self.nodata = nodata
        self.colormap = colormap
        self.band_names = band_names
        self.tags = dict(tags or {}) | ({"VERTICAL_CRS": vertical_crs} if vertical_crs else {})
        self.overview_resampling = overview_resampling
        if overview_resampling not in RESAMPLING:
            raise InputError(
                f"unknown resampling {overview_resampling!r} of overviews",
                f"choose one of {', '.join(RESAMPLING)}",
            )
        if band_names is not None and len(band_names) != count:
            raise InputError(
                f"there are {len(band_names)} names for the {count} bands of {path}",
                "give one name for each band",
            )
        self.crs = raster_crs(frame, vertical_crs)
        stem = f".{self.path.name}.{os.getpid()}"
        self._tiles = self.path.with_name(f"{stem}.tiles.tif")
        self._whole = self.path.with_name(f"{stem}.cog.tif")
        self._dataset: Any = None

    def __enter__(self) -> CogWriter:
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "width": self.frame.nx,
            "height": self.frame.ny,
            "count": self.count,
            "dtype": self.dtype,
            "crs": self.crs,
            "transform": self.frame.transform,
            "nodata": self.nodata,
            "tiled": True,
            "blockxsize": BLOCK_SIZE,
            "blockysize": BLOCK_SIZE,
            "compress": "deflate",
            "zlevel": 1,
            "sparse_ok": True,
            "BIGTIFF": "IF_SAFER",
        }
        if self.dtype == np.uint8 and self.count in (3, 4):
            profile["photometric"] = "RGB"
            profile |= {"alpha": "YES"} if self.count == 4 else {}
        try:
            self._dataset = rasterio.open(self._tiles, "w", **profile)
        except WRITE_ERRORS as error:
            raise self._failed(error) from error
        if self.colormap is not None:
            self._dataset.write_colormap(
                1, {code: tuple(colour) for code, colour in self.colormap.items()}
            )
        for n, name in enumerate(self.band_names or (), 1):
            self._dataset.set_band_description(n, name)
        if self.unit is not None:
            self._dataset.units = (self.unit,) * self.count
        self._dataset.update_tags(AREA_OR_POINT="Area", **self.tags)
        return self

    def write(self, raster: Raster) -> None:
        """Write a window, (ny, nx) or (ny, nx, bands); cells outside the frame are left out.

        Raises
        ------
        FrameError
            If the window does not lie on the frame's lattice, or its bands or dtype do not fit.
        """
        inner = self.frame.intersection(raster.frame)
        if inner is None:
            return
        data = raster.crop(inner).data
        bands = data[None] if data.ndim == 2 else np.moveaxis(data, -1, 0)
        if bands.shape[0] != self.count or not np.can_cast(bands.dtype, self.dtype, "same_kind"):
            raise FrameError(
                f"{bands.shape[0]} bands of {bands.dtype} do not fit {self.count} of {self.dtype} "
                f"in {self.path}",
                "convert them first",
            )
        row, column = self.frame.slices(inner)
        window = Window(column.start, row.start, inner.nx, inner.ny)
        self._dataset.write(np.ascontiguousarray(bands, self.dtype), window=window)
        for statistics, band in zip(self.statistics, bands, strict=False):
            statistics.add(band, self.nodata)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error_type is None:
                for n, statistics in enumerate(self.statistics, 1):
                    self._dataset.update_tags(n, **statistics.tags())
                self._dataset.close()
                self._finish()
        except WRITE_ERRORS as problem:
            raise self._failed(problem) from problem
        else:
            if isinstance(error, WRITE_ERRORS) and self._is_full():
                raise self._failed(error) from error
        finally:
            with contextlib.suppress(*WRITE_ERRORS):
                self._dataset.close()
            for leftover in (self._tiles, self._whole, self._whole.with_suffix(".tif.aux.xml")):
                with contextlib.suppress(FileNotFoundError):
                    leftover.unlink()

    def _failed(self, error: Exception) -> Exception:
        """The error for one of GDAL's, which do not say that a disk is full."""
        if self._is_full():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return InputError(
            f"{self.path} cannot be written: {error}", "check the folder and the space on its disk"
        )

    def _is_full(self) -> bool:
        folder = self.path.parent
        return folder.is_dir() and shutil.disk_usage(folder).free < SMALLEST_DISK

    def _finish(self) -> None:
        rasterio.shutil.copy(
            self._tiles,
            self._whole,
            driver="COG",
            COMPRESS="DEFLATE",
            BLOCKSIZE=BLOCK_SIZE,
            PREDICTOR="YES",
            OVERVIEW_RESAMPLING=self.overview_resampling.upper(),
            BIGTIFF="IF_SAFER",
        )
        self._whole.replace(self.path)


class _Statistics:
    """Sums over the cells of a band that have data."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, data: NDArray, nodata: float | None) -> None:
        values = np.asarray(data, np.float64).ravel()
        values = values[np.isfinite(values) & (values != (np.nan if nodata is None else nodata))]
        if len(values):
            self.count += len(values)
            self.sum += float(values.sum())
            self.squares += float((values**2).sum())
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def tags(self) -> dict[str, str]:
        """GDAL's names; nothing without data."""
        if not self.count:
            return {}
        mean = self.sum / self.count
        deviation = max(self.squares / self.count - mean**2, 0.0) ** 0.5
        return {
            "STATISTICS_MINIMUM": f"{self.low:.9g}",
            "STATISTICS_MAXIMUM": f"{self.high:.9g}",
            "STATISTICS_MEAN": f"{mean:.9g}",
            "STATISTICS_STDDEV": f"{deviation:.9g}",
        }


def write_cog(path: str | Path, raster: Raster, **options: Any) -> None:
    """Write a raster as cloud-optimised GeoTIFF; options and errors are those of `CogWriter`."""
    count = 1 if raster.data.ndim == 2 else raster.data.shape[2]
    with CogWriter(path, raster.frame, raster.data.dtype, count, **options) as writer:
        writer.write(raster)


def raster_crs(frame: Frame, vertical_crs: str | None) -> CRS:
    """Return the CRS of a frame for rasterio; it is compound if a vertical CRS is given.

    GeoTIFF cannot express a projected CRS with ellipsoidal heights (a 3D CRS such as EPSG:4979). In
    that case the CRS stays two-dimensional; the writer records the vertical CRS in the tag
    VERTICAL_CRS.

    Raises
    ------
    FrameError
        If the vertical CRS is not understood.
    """
    horizontal = pyproj.CRS.from_user_input(frame.crs)
    if vertical_crs is None or vertical_crs == UNKNOWN_DATUM:
        return CRS.from_wkt(horizontal.to_wkt())
    try:
        vertical = pyproj.CRS.from_user_input(vertical_crs)
        if not vertical.is_vertical or vertical.is_compound:
            return CRS.from_wkt(horizontal.to_wkt())
        whole = CompoundCRS(f"{horizontal.name} + {vertical.name}", [horizontal, vertical])
    except pyproj.exceptions.CRSError as error:
        raise FrameError(
            f"vertical CRS {vertical_crs!r} is not understood", "give a code such as EPSG:3855"
        ) from error
    return CRS.from_wkt(whole.to_wkt())
