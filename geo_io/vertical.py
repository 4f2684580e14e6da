"""Transformation of heights from one vertical CRS to another, where PROJ has what it needs."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray

from geo_io.crs import transformer
from geo_io.frame import UNKNOWN_DATUM, Frame

NODE_METRES = 256.0
"""Distance of the places at which a transformation is evaluated. They are multiples of it in the
frame's CRS, so that a value depends on its place alone; a geoid is smooth over this distance."""


@dataclass(frozen=True)
class VerticalShift:
    """What to add to heights of one vertical CRS to get those of another.

    Attributes
    ----------
    source, target : str
        CRSs of heights in metres, as authority code or WKT: vertical, or three-dimensional.
    """

    source: str
    target: str

    def at(self, frame: Frame) -> NDArray:
        """Return the metres to add, (ny, nx) float32, linear between nodes."""
        size = NODE_METRES
        left, bottom, right, top = frame.bounds
        first_x, first_y = math.floor(left / size), math.floor(bottom / size)
        x = (first_x + np.arange(math.ceil(right / size) - first_x + 1)) * size
        y = (first_y + np.arange(math.ceil(top / size) - first_y + 1)) * size
        nodes = _evaluate(self.source, self.target, frame.crs, *np.meshgrid(x, y))
        # Places are absolute, so that rounding does not depend on where the frame starts.
        columns = (frame.x[0] + 0.5 + np.arange(frame.nx)) * frame.voxel_size / size
        rows = (frame.y[1] - 0.5 - np.arange(frame.ny)) * frame.voxel_size / size
        fx, fy = columns % 1, (rows % 1)[:, None]
        j, i = np.floor(columns).astype(int) - first_x, np.floor(rows).astype(int) - first_y
        low = nodes[i][:, j] * (1 - fx) + nodes[i][:, j + 1] * fx
        high = nodes[i + 1][:, j] * (1 - fx) + nodes[i + 1][:, j + 1] * fx
        return np.asarray(low * (1 - fy) + high * fy, np.float32)


def vertical_shift(source: str, target: str, frame: Frame) -> VerticalShift | None:
    """Return the shift between two vertical CRSs on a frame.

    None if one of them is unknown, they are the same, or PROJ lacks a grid or an operation there.
    """
    if UNKNOWN_DATUM in (source, target) or source == target:
        return None
    left, bottom, right, top = frame.bounds
    x, y = np.array([left, right, left, right]), np.array([bottom, bottom, top, top])
    try:
        values = _evaluate(source, target, frame.crs, x, y)
    except pyproj.exceptions.ProjError:
        return None
    return VerticalShift(source, target) if np.isfinite(values).all() else None


def _evaluate(source: str, target: str, crs: str, x: NDArray, y: NDArray) -> NDArray:
    """Return what to add to heights at places of a CRS; infinite where that is not known."""
    path = _transformer(source, target, crs)
    parsed = pyproj.CRS.from_user_input(source)
    horizontal = parsed.to_2d() if len(parsed.axis_info) == 3 else crs
    easting, northing = transformer(crs, horizontal).transform(x, y)
    return np.asarray(path.transform(easting, northing, np.zeros_like(x), errcheck=True)[2])


@functools.lru_cache(maxsize=8)
def _transformer(source: str, target: str, crs: str) -> pyproj.Transformer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing grid: then there is no transformation
        return pyproj.Transformer.from_crs(
            _three_dimensional(source, crs),
            _three_dimensional(target, crs),
            always_xy=True,
            allow_ballpark=False,
            only_best=True,
        )


def _three_dimensional(vertical: str, crs: str) -> pyproj.CRS:
    parsed = pyproj.CRS.from_user_input(vertical)
    if len(parsed.axis_info) == 3:
        return parsed
    return pyproj.crs.CompoundCRS("heights", [pyproj.CRS.from_user_input(crs), parsed])
