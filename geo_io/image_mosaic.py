"""Pictures of one or several sources: rasters and folders of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geo_io.frame import Frame
from geo_io.image import SURVEY_SAMPLES, ImageReader, open_image
from geo_io.layers import Raster
from geo_io.raster.mosaic import joined, listed, over
from geo_io.raster.positions import overlaps
from geo_io.raster.source import open_raster
from geo_io.raster.survey import cover_together
from geo_io.region.region import no_overlap


@dataclass(frozen=True, eq=False)
class ImageMosaic:
    """Reader of several pictures that do not share a lattice; later ones lie on top.

    The methods are those of `ImageReader`.
    """

    readers: tuple[ImageReader, ...]

    def read(self, window: Frame) -> Raster:
        """Read the pictures on a window, (ny, nx, 4) uint8 RGBA."""
        out = np.zeros((*window.shape, 4), np.uint8)
        for reader in self.readers:
            if overlaps(reader.source, window):
                above = reader.read(window).data
                out = over(out, above, above[..., 3] > 0)
        return Raster(window, out)

    def survey(self, frame: Frame) -> dict[str, Any]:
        """Measure how much of a region the pictures cover; see `ImageReader.survey`."""
        meeting = [reader for reader in self.readers if overlaps(reader.source, frame)]
        if not meeting:
            raise no_overlap(self.readers[0].source, frame, "image")
        reports = [reader.survey(frame) for reader in meeting]
        coverage, voids = cover_together(
            [reader.source for reader in meeting],
            frame,
            SURVEY_SAMPLES,
            lambda part: self.read(part).data[..., 3] > 0,
        )
        return {
            **reports[0],
            "coverage": coverage,
            "voids": voids,
            "resolution": max(report["resolution"] for report in reports),
            "grey": all(report["grey"] for report in reports),
            "notes": [note for report in reports for note in report["notes"]],
            "outside": [reader.source.name for reader in self.readers if reader not in meeting],
        }

    def summary(self) -> dict[str, Any]:
        """Describe the sources."""
        return {
            **self.readers[0].summary(),
            "sources": [reader.summary() for reader in self.readers],
        }


Pictures = ImageReader | ImageMosaic
"""Readers with the same methods."""


def open_images(sources: Any, *, assume_crs: str | None = None) -> Pictures:
    """Open pictures: one, or several of which later ones lie over earlier ones.

    Tiles of one lattice with the same bands are scaled to 8 bits together.

    Parameters
    ----------
    sources : source or sequence of sources
        Rasters as in `open_image`, and folders and ZIPs of them.
    assume_crs : str, optional
        CRS of files that have none.

    Raises
    ------
    MissingFileError, MissingCrsError, InputError
        As `open_image`.
    """
    rasters = [open_raster(source, assume_crs=assume_crs) for source in listed(sources)]
    readers = tuple(open_image(raster) for raster in joined(rasters))
    return readers[0] if len(readers) == 1 else ImageMosaic(readers)
