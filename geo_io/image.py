"""Orthophotos and other pictures on a frame, as 8-bit RGBA.

Bands: red, green and blue are those that their descriptions name ("red", "R", "B04" of Sentinel-2),
else those that the file declares, else the first three that are not called otherwise. One band is
grey, or the index of a colour table; two are grey and alpha. A fourth band is alpha only if the
file declares it. All further bands (near infrared, for example) are ignored and listed in the
summary.

Values are scaled to 0..255 in the same way for a whole file, so that a pixel does not depend on
the window. 8-bit values stay. Floats up to 1 are multiplied by 255. Otherwise a sample of the whole
file decides: values up to 255 stay; 16-bit values that use the upper half of their range are
divided by 257; all others are stretched linearly from their 2nd and 98th percentile to 0 and 255,
the same for all three bands, so that the colour balance stays.
"""

from __future__ import annotations

import functools
import re
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
from geo_io.raster.positions import coverage_mask
from geo_io.raster.resample import read_on
from geo_io.raster.source import RasterSource, open_dataset, open_raster
from geo_io.raster.survey import survey_parts
from geo_io.region.region import no_overlap, require_overlap

COLOURS = ("red", "green", "blue")

COLOUR_NAMES = {
    "red": {"red", "r", "rot", "rouge", "rojo", "rosso", "rood", "vermelho", "red_band"},
    "green": {"green", "g", "grun", "gruen", "grün", "vert", "verde", "groen", "green_band"},
    "blue": {"blue", "b", "blau", "bleu", "azul", "blu", "blauw", "blue_band"},
}
"""Descriptions of bands, in lower case."""

NUMBERED = re.compile(r"(?:sr_)?b(0?)(\d{1,2})")
"""Numbers of bands of satellites."""

SENTINEL_2, LANDSAT_5 = (4, 3, 2), (3, 2, 1)
"""Numbers of the red, green and blue bands of Sentinel-2 and Landsat 8 and 9, and of Landsat 5 and
7, which has no band 6 among its reflectances."""

MANY_BANDS = 7
"""Bands from which b1, b2 ... are those of a satellite, and not just the first ones of a file."""

NO_COLOUR = {"edge", "infrared", "infrarouge", "infrarot", "mask", "std", "count"}
"""Words of descriptions that are not those of a visible colour, even with its name."""

UNSEEN = {
    "cirrus",
    "infrared",
    "ir",
    "mir",
    "near infrared",
    "near-infrared",
    "nir",
    "nir1",
    "nir2",
    "nir_band",
    "pan",
    "panchromatic",
    "red edge",
    "red_edge",
    "rededge",
    "swir",
    "swir1",
    "swir2",
    "thermal",
    "tir",
}
"""Descriptions of bands without a visible colour, or with all of them."""

INFRARED_NAMES = {
    *(
        "cir",
        "nir",
        "irg",
        "irc",
        "nrg",
        "irrg",
        "infrared",
        "infrarot",
        "infrarouge",
        "falsecolor",
    ),
    *("falsecolour", "fci"),
}
"""Words in the names of pictures whose first band is infrared."""

PLAIN_SHARES = {"black": 0.02, "white": 0.05}
"""Share of a region of one colour from which it is told: shadows are black, snow is white."""

SAMPLE_CELLS = 256
"""Pixels along the longer side of the sample that decides how values are scaled."""

PERCENTILES = (2.0, 98.0)

SURVEY_SAMPLES = 512
"""Most places along each side of a region that a survey reads."""


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Reader of a picture. Made by `open_image`; can be sent to another process.

    Attributes
    ----------
    source : RasterSource
        The raster.
    bands : tuple of int
        Numbers of the bands used: one (grey, or an index into `palette`) or red, green, blue.
    alpha : int or None
        Number of a band that is alpha without being declared so. Declared ones are in GDAL's mask.
    palette : NDArray (n, 4) uint8 or None
        RGBA by pixel value, if the file has a colour table.
    ignored : tuple of str
        Descriptions of the bands that are not used.
    """

    source: RasterSource
    bands: tuple[int, ...]
    alpha: int | None
    palette: NDArray | None
    ignored: tuple[str, ...]

    def read(self, window: Frame) -> Raster:
        """Read the picture on a window.

        Returns
        -------
        Raster
            (ny, nx, 4) uint8 RGBA. Alpha is 255, or 0 where less than half of a voxel has data.

        Raises
        ------
        InputError
            If the file cannot be read.
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
        """Measure how much of a region the picture covers, at up to 512 x 512 regular places.

        Returns
        -------
        dict
            `coverage`, the share of the region inside the raster; `voids`, the share of that
            without data; `resolution`, metres.

        Raises
        ------
        RegionError
            If the region and the picture do not overlap.
        InputError
            If the picture has no data in the region.
        """
        require_overlap(self.source, frame, "image")
        places, inside, with_data = 0, 0, 0
        extremes = self._extremes()
        plain = dict.fromkeys(extremes, 0)
        for part in survey_parts(self.source, frame, SURVEY_SAMPLES):
            values, valid = read_on(
                self.source, part, bands=self._read_bands, resampling="nearest", decode=self._decode
            )
            places += valid.size
            inside += int(coverage_mask(self.source, part).sum())
            with_data += int(valid.sum())
            for name, value in extremes.items():
                plain[name] += int((valid & (values == value).all(axis=0)).sum())
        if not inside:
            raise no_overlap(self.source, frame, "image")
        if not with_data:
            raise InputError(
                f"the image {self.source.name} holds nothing but nodata in the region",
                "choose a region with data, or another file",
            )
        return {
            "coverage": inside / places,
            "voids": max(0.0, 1 - with_data / inside),
            "resolution": max(self.source.pixel_metres),
            "grey": len(self.bands) == 1 and self.palette is None,
            "notes": [
                *self._grey_note(),
                *self._name_note(),
                *self._plain_notes({name: n / places for name, n in plain.items()}),
            ],
        }

    def _extremes(self) -> dict[str, float]:
        """The values of black and of white."""
        dtype = np.dtype(self.source.dtypes[self.bands[0] - 1])
        return {"black": 0, "white": np.iinfo(dtype).max if dtype.kind in "iu" else np.inf}

    def _plain_notes(self, shares: dict[str, float]) -> list[str]:
        """Tell that much of a picture has one colour, as places without data have."""
        if self.palette is not None or len(self.bands) == 1:
            return []
        values = self._extremes()
        return [
            f"{share:.1%} of the image {self.source.name} in the region is exactly {name}, and is "
            "shown so: if there is no data, declare it, for example with gdal_edit -a_nodata "
            f"{values[name]:g}"
            for name, share in shares.items()
            if share > PLAIN_SHARES[name]
        ]

    def _name_note(self) -> list[str]:
        """Tell that a picture is called infrared, but its bands do not say which they are, or that
        it may be no picture."""
        if any(self.source.descriptions[band - 1] for band in self.bands):
            return []
        words = set(re.findall(r"[^\W_]+", Path(self.source.name).stem.casefold()))
        found = sorted(words & INFRARED_NAMES)
        if found and len(self.bands) > 1:
            return [
                f"the image {self.source.name} is called {found[0]}, and bands "
                f"{', '.join(map(str, self.bands))} are shown as red, green and blue: if one is "
                "infrared, name them with gdal_edit or give another picture"
            ]
        if len(self.bands) == 1 and self.source.dtypes[0].startswith("float") and not self.ignored:
            return [
                f"the image {self.source.name} holds numbers of one band, {self.source.dtypes[0]}, "
                "and is shown in grey: heights are given as `dem` or `dsm`"
            ]
        return []

    def _grey_note(self) -> list[str]:
        """Tell that a picture of several bands is read in grey, since its colours are not known."""
        if len(self.bands) > 1 or len(self.ignored) < 2:
            return []
        used = self.source.descriptions[self.bands[0] - 1] or f"band {self.bands[0]}"
        return [
            f"the image {self.source.name} is shown in the grey of {used}: with "
            f"{', '.join(self.ignored)} it has no bands of red, green and blue"
        ]

    def summary(self) -> dict[str, Any]:
        """Describe the source; `scaling` is the pair of values that become 0 and 255."""
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
        """The stored values that become 0 and 255, the same for the whole file."""
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
        sample = values[:, valid].astype(np.float64)
        if sample.size == 0:
            return 0.0, 255.0
        low, high = np.percentile(sample, PERCENTILES)
        if dtype.kind == "f" and sample.min() >= 0 and sample.max() <= 1:
            return 0.0, 1.0
        if sample.min() >= 0 and sample.max() <= 255:
            return 0.0, 255.0
        if dtype == np.uint16 and high > 32767:
            return 0.0, 65535.0
        return float(low), float(high) if high > low else float(low) + 1.0

    def _decode(self, pixels: NDArray, valid: NDArray) -> tuple[NDArray, NDArray]:
        """Replace palette indices by colours, and apply an alpha band to the mask."""
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

    Parameters
    ----------
    source : str, Path, DataArray or RasterSource
        The picture, as in `open_raster`.
    assume_crs : str, optional
        CRS of a file that has none.

    Raises
    ------
    MissingFileError, MissingCrsError
        As `open_raster`.
    InputError
        As `open_raster`; also if the file holds complex numbers.
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
    texts = [text.strip().casefold() for text in raster.descriptions]
    described = _by_description(texts)
    if described is not None:
        return described
    by_name = {name: n for name, n in _by_colour(raster) if texts[n - 1] not in UNSEEN}
    if all(colour in by_name for colour in COLOURS):
        return tuple(by_name[colour] for colour in COLOURS)
    colours = [n for n, name in enumerate(raster.colorinterp, 1) if name != "alpha"]
    seen = [n for n in colours if texts[n - 1] not in UNSEEN] or colours
    return tuple(seen[:3]) if len(seen) >= 3 else (seen[0],)


def _by_colour(raster: RasterSource) -> list[tuple[str, int]]:
    """Return the declared colours of bands and their numbers; the first of each comes last."""
    return [(name, n) for n, name in reversed(list(enumerate(raster.colorinterp, 1)))]


def _by_description(texts: list[str]) -> tuple[int, ...] | None:
    """Return the numbers of the bands that are called red, green and blue, if all three are."""
    found: dict[str, int] = {}
    for n, text in enumerate(texts, 1):
        for colour, names in COLOUR_NAMES.items():
            words = set(re.findall(r"[^\W\d_]+", text))
            if text in names or (words & (names - {"r", "g", "b"}) and not words & NO_COLOUR):
                found.setdefault(colour, n)
    if len(found) == len(COLOURS):
        return tuple(found[colour] for colour in COLOURS)
    return _by_number(texts)


def _by_number(texts: list[str]) -> tuple[int, ...] | None:
    """Return the bands of red, green and blue of a satellite, whose bands are numbered."""
    matches = [NUMBERED.fullmatch(text) for text in texts]
    by_number = {int(match[2]): n for n, match in enumerate(matches, 1) if match}
    padded = any(match and match[1] for match in matches)
    if 1 in by_number and not padded and len(by_number) < MANY_BANDS - 1:
        return None  # the bands of any file
    older = by_number.keys() == {1, 2, 3, 4, 5, 7}
    chosen = LANDSAT_5 if older else SENTINEL_2
    if not all(number in by_number for number in chosen):
        return None
    return tuple(by_number[number] for number in chosen)


def _palette(raster: RasterSource) -> NDArray | None:
    if raster.colorinterp[0] != "palette":
        return None
    with open_dataset(raster.path) as dataset:
        colours = dataset.colormap(1)
    table = np.zeros((max(colours) + 1, 4), np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return table
