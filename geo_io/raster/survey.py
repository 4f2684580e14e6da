"""Places of a region at which a raster is surveyed, in parts so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.raster.grid import grid_for
from geo_io.raster.positions import coverage_mask
from geo_io.raster.source import RasterSource

PART_PIXELS = 1024
"""Approximate number of raster pixels along each edge of a part."""

PART_CELLS = (16, 1024)
"""Least and most places along each edge of a part."""


TOGETHER = 256
"""Most places along each edge of a part that several rasters are read on."""


def survey_parts(
    source: RasterSource, frame: Frame, places: int, pixels: int = PART_PIXELS
) -> Iterator[Frame]:
    """Yield coarse frames that together cover a region.

    Parameters
    ----------
    source : RasterSource
        The raster that will be read at the cells of these frames.
    frame : Frame
        The region.
    places : int
        Most cells along the longer side of the region.
    pixels : int
        Approximate number of raster pixels along each edge of a part.
    """
    coarse = frame.coarsen(max(1, math.ceil(max(frame.shape) / places)))
    scale = grid_for(source, coarse.voxel_size, average=False).stride * min(source.pixel_metres)
    size = PART_CELLS[1]
    while size * coarse.voxel_size / scale > pixels and size > PART_CELLS[0]:
        size //= 2
    yield from _parts(coarse, size)


def _parts(coarse: Frame, size: int) -> Iterator[Frame]:
    for tx, ty in coarse.tiles(size):
        part = coarse.intersection(coarse.tile(tx, ty, size))
        assert part is not None  # tiles() only gives tiles that meet the frame
        yield part


def cover_together(
    sources: Sequence[RasterSource],
    frame: Frame,
    places: int,
    shown: Callable[[Frame], NDArray],
) -> tuple[float, float]:
    """Measure how much of a region several rasters cover together.

    Parameters
    ----------
    sources : sequence of RasterSource
        The rasters that meet the region.
    frame : Frame
        The region.
    places : int
        Most places along the longer side of the region.
    shown : callable
        Returns where any raster has data on a frame, (ny, nx) bool.

    Returns
    -------
    coverage, voids : float
        Share of the region inside of any raster, and share of that without data.
    """
    inside, known, total = 0, 0, 0
    for part in _parts(frame.coarsen(max(1, math.ceil(max(frame.shape) / places))), TOGETHER):
        covered = np.zeros(part.shape, bool)
        for source in sources:
            covered |= coverage_mask(source, part)
        total += covered.size
        inside += int(covered.sum())
        known += int((shown(part) & covered).sum())
    return inside / total, max(0.0, 1 - known / max(inside, 1))
