"""Cloud-optimised GeoTIFF, whole or window by window.

A file is written beside its place under another name and moved there when it is complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
import rasterio.shutil
from pyproj.crs import CompoundCRS
from rasterio.crs import CRS
from rasterio.windows import Window

from geo_io.errors import FrameError, InputError
from geo_io.frame import UNKNOWN_DATUM, Frame
from geo_io.layers import Raster

BLOCK_SIZE = 512

RESAMPLING = ("nearest", "average", "bilinear", "cubic", "cubicspline", "mode", "rms")
"""What overviews can be made by: "nearest" or "mode" for class codes."""


class CogWriter:
    """Writes a cloud-optimised GeoTIFF from windows, in any order; holds no more than a window in
    memory.

    Use as a context manager. The file appears when the block ends without an error, and is complete
    then.

    Parameters
    ----------
    path : of the file; replaced if it exists
    frame : where the raster is
    dtype : of all bands
    count : number of bands; four bands of uint8 are RGBA, three are RGB
    nodata : the value that means "no data"; what is never written holds it (else 0)
    colormap : RGB or RGBA by class code, for one band of uint8
    band_names : one a band
    vertical_crs : of the heights the file holds: the CRS then is a compound one, and the tag
        VERTICAL_CRS
        says it too. Leave it away for rasters that hold no heights
    tags : metadata as text
    overview_resampling : one of `RESAMPLING`

    Raises
    ------
    InputError
        if the file cannot be written
    FrameError
        if a window does not lie on the frame's lattice
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
    ) -> None:
        self.path = Path(path)
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
                f"overviews by {overview_resampling!r} are not known", f"choose of {RESAMPLING}"
            )
        if band_names is not None and len(band_names) != count:
            raise InputError(
                f"{len(band_names)} names for {count} bands of {path}", "give one a band"
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
        except (rasterio.errors.RasterioIOError, OSError) as error:
            raise self._failed(error) from error
        if self.colormap is not None:
            self._dataset.write_colormap(
                1, {code: tuple(colour) for code, colour in self.colormap.items()}
            )
        for n, name in enumerate(self.band_names or (), 1):
            self._dataset.set_band_description(n, name)
        self._dataset.update_tags(AREA_OR_POINT="Area", **self.tags)
        return self

    def write(self, raster: Raster) -> None:
        """Write a window, (ny, nx) or (ny, nx, bands); what lies outside the frame is left out."""
        inner = self.frame.intersection(raster.frame)
        if inner is None:
            return
        data = raster.crop(inner).data
        bands = data[None] if data.ndim == 2 else np.moveaxis(data, -1, 0)
        if bands.shape[0] != self.count or not np.can_cast(bands.dtype, self.dtype, "same_kind"):
            raise FrameError(
                f"{bands.shape[0]} bands of {bands.dtype} do not fit {self.count} of {self.dtype} in {self.path}",
                "convert them first",
            )
        row, column = self.frame.slices(inner)
        window = Window(column.start, row.start, inner.nx, inner.ny)
        self._dataset.write(np.ascontiguousarray(bands, self.dtype), window=window)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._dataset.close()
            if kind is None:
                self._finish()
        except (rasterio.errors.RasterioError, OSError) as problem:
            raise self._failed(problem) from problem
        finally:
            for leftover in (self._tiles, self._whole, self._whole.with_suffix(".tif.aux.xml")):
                with contextlib.suppress(FileNotFoundError):
                    leftover.unlink()

    def _failed(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path} cannot be written: {error}", "check the folder and the space on its disk"
        )

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


def write_cog(path: str | Path, raster: Raster, **options: Any) -> None:
    """Write a raster as cloud-optimised GeoTIFF; the options are those of `CogWriter`."""
    count = 1 if raster.data.ndim == 2 else raster.data.shape[2]
    with CogWriter(path, raster.frame, raster.data.dtype, count, **options) as writer:
        writer.write(raster)


def raster_crs(frame: Frame, vertical_crs: str | None) -> CRS:
    """The CRS of a frame for rasterio, compound where a vertical CRS is given and known.

    GeoTIFF has no place for a projected CRS with ellipsoidal heights (a 3D CRS such as EPSG:4979):
    there, the CRS stays plain, and the tag VERTICAL_CRS says it.

    Raises FrameError if the vertical CRS is not understood.
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
