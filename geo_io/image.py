"""Orthophotos and other pictures on a frame, as 8-bit RGBA.

Which bands are what: red, green and blue where the file says so, else the first three; one band is
grey, or the index of a colour table; two are grey and alpha; a fourth band is alpha only where the
file says so, and anything further (near infrared, for example) is left out and named in the
summary.

How values become 0 to 255, for a whole file at once, so that it does not depend on the place: 8
bits stay. Floats up to 1 are times 255. Of anything else a sample of the whole file decides: values
up to 255 stay; 16-bit values that use the upper half of their range are divided by 257; all others
are stretched linearly, their 2nd percentile to 0 and their 98th to 255, the same for all three
bands so that the colours keep their balance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geo_io.errors import InputError
from geo_io.frame import Frame, short_name
from geo_io.layers import Raster
from geo_io.raster.grid import coarse_grid, read_grid
from geo_io.raster.positions import covered
from geo_io.raster.resample import read_on
from geo_io.raster.source import RasterSource, open_raster, opened
from geo_io.raster.survey import survey_parts
from geo_io.region.region import no_overlap, require_overlap

COLOURS = ("red", "green", "blue")

SAMPLE_CELLS = 256
"""Pixels along the longer side of the sample that decides how values are scaled."""

PERCENTILES = (2.0, 98.0)

SURVEY_SAMPLES = 512
"""A survey looks at no more than this many places along each side of the region."""


@dataclass(frozen=True, eq=False)
class ImageReader:
    """A picture. Made by `open_image`; can be sent to another process.

    Attributes
    ----------
    source : the raster
    bands : numbers of the bands used: one (grey or an index into `palette`) or red, green, blue
    alpha : number of a band that is alpha without saying so (of what says so, GDAL makes a mask),
        else None
    palette : (n, 4) uint8 RGBA by pixel value, None where there is no colour table
    ignored : what the bands that are not used are called
    """

    source: RasterSource
    bands: tuple[int, ...]
    alpha: int | None
    palette: NDArray | None
    ignored: tuple[str, ...]

    def read(self, window: Frame) -> Raster:
        """The picture on a window, (ny, nx, 4) uint8: RGB, and alpha that is 255, or 0 where there
        is no data.

        A voxel has data if at least half of it has. Raises InputError if the file cannot be read.
        """
        values, valid = read_on(
            self.source, window, bands=self._read_bands, resampling="average", decode=self._decode
        )
        if self.palette is None:
            low, high = self.scaling
            values = (values - low) * (255 / (high - low))
        out = np.zeros((*window.shape, 4), np.uint8)
        out[..., :3] = np.clip(np.round(values), 0, 255).transpose(1, 2, 0)
        out[..., 3] = 255
        out[~valid] = 0
        return Raster(window, out)

    def survey(self, frame: Frame) -> dict[str, Any]:
        """What the picture covers of a region, from at most 512 x 512 places spread evenly over it.

        Returns
        -------
        `coverage`, share of the region inside the raster; `voids`, share of that without data; `resolution`,
        metres

        Raises
        ------
        RegionError
            if the region and the picture have no place in common
        InputError
            if all of the region is without data
        """
        require_overlap(self.source, frame, "image")
        places, inside, known = 0, 0, 0
        for part in survey_parts(self.source, frame, SURVEY_SAMPLES):
            _, valid = read_on(
                self.source, part, bands=self._read_bands, resampling="nearest", decode=self._decode
            )
            places += valid.size
            inside += int(covered(self.source, part).sum())
            known += int(valid.sum())
        if not inside:
            raise no_overlap(self.source, frame, "image")
        if not known:
            raise InputError(
                f"the image {self.source.name} holds nothing but nodata in the region",
                "choose a region with data, or another file",
            )
        return {
            "coverage": inside / places,
            "voids": max(0.0, 1 - known / inside),
            "resolution": max(self.source.pixel_metres),
        }

    def summary(self) -> dict[str, Any]:
        """What is known of the source; `scaling` is the pair of values that become 0 and 255."""
        return {
            "name": self.source.name,
            "crs": short_name(self.source.crs),
            "shape": list(self.source.shape),
            "resolution": max(self.source.pixel_metres),
            "dtype": self.source.dtypes[0],
            "bands": list(self.bands),
            "palette": self.palette is not None,
            "ignored_bands": list(self.ignored),
            "scaling": list(self.scaling),
        }

    @property
    def _read_bands(self) -> tuple[int, ...]:
        return self.bands if self.alpha is None else (*self.bands, self.alpha)

    @functools.cached_property
    def scaling(self) -> tuple[float, float]:
        """The stored values that become 0 and 255: a property of the whole file."""
        dtype = np.dtype(self.source.dtypes[self.bands[0] - 1])
        if self.palette is not None or dtype == np.uint8:
            return 0.0, 255.0
        grid = coarse_grid(self.source, SAMPLE_CELLS, sparse_cells=SAMPLE_CELLS, sparse_pixels=0)
        values, valid = read_grid(
            self.source,
            grid,
            (0, grid.shape[0]),
            (0, grid.shape[1]),
            bands=self._read_bands,
            decode=self._decode,
        )
        known = values[:, valid].astype(np.float64)
        if known.size == 0:
            return 0.0, 255.0
        low, high = np.percentile(known, PERCENTILES)
        if dtype.kind == "f" and known.min() >= 0 and known.max() <= 1:
            return 0.0, 1.0
        if known.min() >= 0 and known.max() <= 255:
            return 0.0, 255.0
        if dtype == np.uint16 and high > 32767:
            return 0.0, 65535.0
        return float(low), float(high) if high > low else float(low) + 1.0

    def _decode(self, pixels: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
        """Colours of palette indices; and where an alpha band says that there is data."""
        if self.alpha is not None:
            opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
            valid = valid & (pixels[-1] > opaque // 2)
            pixels = pixels[:-1]
        if self.palette is not None:
            colours = self.palette[np.clip(pixels[0], 0, len(self.palette) - 1)]
            return np.moveaxis(colours[..., :3], -1, 0), valid & (colours[..., 3] > 127)
        return pixels, valid


def open_image(
    source: str | Path | xr.DataArray | RasterSource, *, assume_crs: str | None = None
) -> ImageReader:
    """Open a picture.

    Raises
    ------
    InputError
        as `open_raster`; also if it holds complex numbers
    """
    raster = open_raster(source, assume_crs=assume_crs)
    if raster.dtypes[0].startswith("complex"):
        raise InputError(f"the image {raster.name} holds complex numbers", "give a picture")
    bands = _choose_bands(raster)
    declared = {n for n, name in enumerate(raster.colorinterp, 1) if name == "alpha"}
    alpha = 2 if raster.count == 2 and not declared else None
    used = {*bands, *declared} | ({2} if alpha else set())
    ignored = tuple(
        raster.descriptions[n - 1] or f"band {n} ({raster.colorinterp[n - 1]})"
        for n in range(1, raster.count + 1)
        if n not in used
    )
    return ImageReader(raster, bands, alpha, _palette(raster) if len(bands) == 1 else None, ignored)


def _choose_bands(raster: RasterSource) -> tuple[int, ...]:
    by_name = {name: n for n, name in reversed(list(enumerate(raster.colorinterp, 1)))}
    if all(colour in by_name for colour in COLOURS):
        return tuple(by_name[colour] for colour in COLOURS)
    colours = [n for n, name in enumerate(raster.colorinterp, 1) if name != "alpha"]
    return tuple(colours[:3]) if len(colours) >= 3 else (colours[0],)


def _palette(raster: RasterSource) -> NDArray | None:
    if raster.colorinterp[0] != "palette":
        return None
    with opened(raster.path) as dataset:
        colours = dataset.colormap(1)
    table = np.zeros((max(colours) + 1, 4), np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return table
