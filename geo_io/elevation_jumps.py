"""Heights of neighbouring files that do not fit: feet beside metres, one datum beside another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.crs import transform_bounds
from geo_io.errors import InputError
from geo_io.frame import Frame
from geo_io.raster.source import RasterSource

FEET = 1 / 0.3048
"""Feet in a metre: the ratio of heights of which one is taken for the other."""

RATIO = 0.02
"""Relative difference from `FEET` within which a ratio is that of units."""

SHIFT = 15.0
"""Metres from which a shift that is the same everywhere is that of a datum; geoids differ from
ellipsoids by up to 107 m, and smaller shifts are also those of surveys of other years."""

EVEN = 0.1
"""Scatter of a shift (median of the deviations), as a share of it, up to which it is the same
everywhere."""

SAMPLES = 48
"""Cells along the longer side of the strip in which two files are compared."""

FEWEST = 8
"""Cells in which two files must both have heights to be compared."""

HIGH = 5.0
"""Metres: lower heights say nothing about units."""

Read = Callable[[RasterSource, Frame], tuple[NDArray, NDArray]]
"""Returns the nearest heights (ny, nx), metres, of a raster on a frame, and where it has some."""


def require_no_jumps(rasters: Sequence[RasterSource], read: Read, what: str) -> None:
    """Refuse rasters of which one jumps against a neighbour as units or datums do.

    Each is compared with the first of the others before it that it touches or overlaps, whatever
    their CRS and pixels are.

    Parameters
    ----------
    rasters : sequence of RasterSource
        In their order.
    read : callable
        Reads one on a frame.
    what : str
        What they are called in messages.

    Raises
    ------
    InputError
        With the jump.
    """
    boxes = [_degrees(raster) for raster in rasters]
    tree = shapely.STRtree(np.array(boxes, object))
    for n, raster in enumerate(rasters):
        near = np.sort(tree.query(boxes[n])) if boxes[n] is not None else ()
        for other in (rasters[k] for k in near if k < n):
            frame = _strip(other, raster)
            if frame is None:
                continue
            (first, one), (second, two) = read(other, frame), read(raster, frame)
            known = one & two
            if not known.any():  # Files that only touch share no cell of the strip.
                (first, one), (second, two) = _grown(first, one), _grown(second, two)
                known = one & two
            if known.sum() >= FEWEST:
                _compare(first[known], second[known], other.name, raster.name, what)
                break


def _degrees(raster: RasterSource) -> shapely.Polygon | None:
    """Return the box of longitudes and latitudes of a raster, two pixels wider; None across the
    antimeridian, and where they are not known."""
    box = transform_bounds(raster.bounds, raster.crs.to_wkt(), "EPSG:4326")
    if box is None or box[0] > box[2]:
        return None
    across, down = (2 * (box[k + 2] - box[k]) / n for k, n in enumerate(raster.shape[::-1]))
    return shapely.box(box[0] - across, box[1] - down, box[2] + across, box[3] + down)


def _grown(heights: NDArray, known: NDArray) -> tuple[NDArray, NDArray]:
    """Return heights (ny, nx) in which cells beside a known one have its height, and which do."""
    out, known = heights.copy(), known.copy()
    for axis in (0, 1):
        for step in (1, -1):
            to, of = [slice(None)] * 2, [slice(None)] * 2
            to[axis], of[axis] = (
                slice(max(step, 0), min(step, 0) or None),
                slice(max(-step, 0), min(-step, 0) or None),
            )
            fresh = known[tuple(of)] & ~known[tuple(to)]
            out[tuple(to)] = np.where(fresh, out[tuple(of)], out[tuple(to)])
            known[tuple(to)] |= fresh
    return out, known


def _strip(one: RasterSource, other: RasterSource) -> Frame | None:
    """Return a frame of cells along the border, or over the overlap, of two rasters.

    It is in their CRS if that is one of metres, else in an equal-area projection around them.
    """
    crs = one.crs.to_wkt()
    if not _share_metres(one, other):
        parts = [_degrees(one), _degrees(other)]
        assert parts[0] is not None and parts[1] is not None  # they lie near each other
        middle = parts[0].intersection(parts[1]).centroid
        if middle.is_empty:
            return None
        crs = f"+proj=laea +lat_0={middle.y:.6f} +lon_0={middle.x:.6f} +datum=WGS84 +units=m"
    found = [transform_bounds(raster.bounds, raster.crs.to_wkt(), crs) for raster in (one, other)]
    boxes = [box for box in found if box is not None]
    if len(boxes) < 2:
        return None
    pixel = max(*one.pixel_metres, *other.pixel_metres)
    west, south = (max(box[k] for box in boxes) - pixel for k in (0, 1))
    east, north = (min(box[k] for box in boxes) + pixel for k in (2, 3))
    if east - west < pixel or north - south < pixel:
        return None
    size = max(max(east - west, north - south) / SAMPLES, pixel)
    # With a cell more on each side: along a border, each file has cells of its own.
    columns = math.floor(west / size) - 1, math.ceil(east / size) + 1
    rows = math.floor(south / size) - 1, math.ceil(north / size) + 1
    return Frame(crs, size, columns, rows)


def _share_metres(one: RasterSource, other: RasterSource) -> bool:
    """Return whether two rasters are in one projected CRS in metres."""
    return (
        one.crs.is_projected
        and one.crs.equals(other.crs, ignore_axis_order=True)
        and all(axis.unit_conversion_factor == 1 for axis in one.crs.axis_info[:2])
    )


def _compare(first: NDArray, second: NDArray, one: str, other: str, what: str) -> None:
    a, b = first.astype(float), second.astype(float)
    high = (np.abs(a) > HIGH) & (np.abs(b) > HIGH)
    if high.mean() > 0.5:
        ratio = b[high] / a[high]
        middle = float(np.median(ratio))
        spread = float(np.median(np.abs(ratio - middle)))
        for factor in (FEET, 1 / FEET):
            if abs(middle / factor - 1) < RATIO and spread < RATIO * factor:
                feet, metres = (other, one) if factor > 1 else (one, other)
                raise InputError(
                    f"where they meet, heights of the {what} {other} are {middle:.2f} times those "
                    f"of {one} (medians {np.median(b):.1f} and {np.median(a):.1f} m): {feet} seems "
                    f"to be in feet and {metres} in metres, and the files do not say so",
                    f"write the unit into the file: gdal_edit.py {feet} -units ft",
                )
    shift = b - a
    middle = float(np.median(shift))
    if abs(middle) >= SHIFT and np.median(np.abs(shift - middle)) < EVEN * abs(middle):
        raise InputError(
            f"where they meet, heights of the {what} {other} are {middle:+.1f} m from those of "
            f"{one}, everywhere about the same: they seem to have different vertical datums",
            "bring the files to one datum, with gdalwarp -s_srs and -t_srs, or give one of them",
        )
