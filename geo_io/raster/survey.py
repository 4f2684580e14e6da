"""Places of a region at which a raster is surveyed, in parts so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator

from geo_io.frame import Frame
from geo_io.raster.grid import grid_for
from geo_io.raster.source import RasterSource

PART_PIXELS = 1024
"""Approximate number of raster pixels along each edge of a part."""

PART_CELLS = (16, 1024)
"""Least and most places along each edge of a part."""


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
    for tx, ty in coarse.tiles(size):
        part = coarse.intersection(coarse.tile(tx, ty, size))
        assert part is not None  # tiles() only gives tiles that meet the frame
        yield part
