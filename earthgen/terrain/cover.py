"""Land cover: look-ups by class or by the `surface` field of geo_io/legends/classes.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.layers import Raster, Semantics
from geo_io.legend import classes, codes

CODES = 256
"""Length of a look-up table by class code: any uint8 is a valid index."""


def class_code(name: str) -> int:
    """Return the code of a land class."""
    return codes()[name]


@functools.cache
def surface_table(*surfaces: str) -> NDArray:
    """Return whether each class code has one of these surfaces: (CODES,) bool."""
    table = np.zeros(CODES, bool)
    for land in classes():
        table[land.code] = land.surface in surfaces
    return table


@functools.cache
def class_table(*names: str) -> NDArray:
    """Return whether each class code is one of these classes: (CODES,) bool."""
    table = np.zeros(CODES, bool)
    table[[class_code(name) for name in names]] = True
    return table


def on_surface(cover: NDArray, *surfaces: str) -> NDArray:
    """Return the cells whose class has one of these surfaces: bool, of the shape of `cover`."""
    return _look_up(surface_table(*surfaces), cover)


def is_class(cover: NDArray, *names: str) -> NDArray:
    """Return the cells of one of these classes: bool, of the shape of `cover`."""
    return _look_up(class_table(*names), cover)


def _look_up(table: NDArray, cover: NDArray) -> NDArray:
    flat = np.ascontiguousarray(cover, np.uint8).reshape(-1)
    return np.asarray(_entries(table, flat)).reshape(cover.shape)


@numba.njit(cache=True, nogil=True)
def _entries(table, cover):  # type: ignore[no-untyped-def]
    out = np.empty(cover.size, np.bool_)
    for n in range(cover.size):
        out[n] = table[cover[n]]
    return out


def fill_unknown_cover(cover: NDArray) -> NDArray:
    """Replace class 0, unknown, by grassland, the most neutral open ground."""
    return np.where(cover == 0, np.uint8(class_code("grassland")), cover).astype(np.uint8)


def semantics_on(inputs: Mapping[str, Any], frame: Frame) -> Semantics:
    """Return the semantics condition on `frame`; everything is unknown if the job has none."""
    layer: Semantics | None = inputs.get("semantics")
    if layer is None:
        return Semantics(frame, np.zeros(frame.shape, np.uint8), np.zeros(frame.shape, np.uint32))
    return layer.crop(frame)


def raster_on(inputs: Mapping[str, Any], name: str, frame: Frame) -> NDArray | None:
    """Return the array of a raster condition on `frame`; None if the job has none."""
    layer: Raster | None = inputs.get(name)
    return None if layer is None else layer.crop(frame).data
