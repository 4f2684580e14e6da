"""Heights of neighbouring files that do not fit: feet beside metres, one datum beside another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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

FILES = 64
"""Of more files, the first are compared."""

HIGH = 5.0
"""Metres: lower heights say nothing about units."""

Read = Callable[[RasterSource, Frame], tuple[NDArray, NDArray]]
"""Returns heights (ny, nx), metres, of a raster on a frame, and where the file holds them."""


def require_no_jumps(rasters: Sequence[RasterSource], read: Read, what: str) -> None:
    """Refuse rasters of which one jumps against a neighbour as units or datums do.

    Each is compared with the first of the others before it that it touches or overlaps. Rasters in
    degrees, and those in different CRS, are not compared.

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
    some = list(rasters[:FILES])
    for n, raster in enumerate(some):
        for other in some[:n]:
            frame = _strip(other, raster)
            if frame is None:
                continue
            (first, one), (second, two) = read(other, frame), read(raster, frame)
            # Files that only touch hold no cell of the strip together: what is filled is nearby.
            known = one & two
            if not known.any():
                known = _near(one) & _near(two)
            if known.sum() >= 8:
                _compare(first[known], second[known], other.name, raster.name, what)
                break


def _near(known: NDArray) -> NDArray:
    """Return cells that are known or beside a known one."""
    out = known.copy()
    out[1:] |= known[:-1]
    out[:-1] |= known[1:]
    out[:, 1:] |= known[:, :-1]
    out[:, :-1] |= known[:, 1:]
    return out


def _strip(one: RasterSource, other: RasterSource) -> Frame | None:
    """Return a frame of cells along the border, or over the overlap, of two rasters."""
    if not one.crs.is_projected or not one.crs.equals(other.crs, ignore_axis_order=True):
        return None
    if any(axis.unit_conversion_factor != 1 for axis in one.crs.axis_info[:2]):
        return None
    boxes = []
    for raster in (one, other):
        t, (down, across) = raster.transform, raster.shape
        if t.b or t.d:
            return None
        x, y = sorted((t.c, t.c + t.a * across)), sorted((t.f, t.f + t.e * down))
        boxes.append((x[0], y[0], x[1], y[1]))
    pixel = max(abs(one.transform.a), abs(other.transform.a))
    west, south = (max(box[k] for box in boxes) - pixel for k in (0, 1))
    east, north = (min(box[k] for box in boxes) + pixel for k in (2, 3))
    if east - west < pixel or north - south < pixel:
        return None
    size = max(max(east - west, north - south) / SAMPLES, pixel)
    columns = math.floor(west / size), math.ceil(east / size)
    rows = math.floor(south / size), math.ceil(north / size)
    return Frame(one.crs.to_wkt(), size, columns, rows)


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
