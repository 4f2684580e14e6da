"""Sets of land classes by what the rules build on them, from the `surface` field of
geo_io/legends/classes.yaml."""

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
"""Length of the look-up tables: any uint8 is a valid index."""


def code(name: str) -> int:
    return codes()[name]


@functools.cache
def surface_table(*surfaces: str) -> NDArray:
    """(256,) bool: whether a class code has one of these surfaces."""
    table = np.zeros(CODES, bool)
    for land in classes():
        table[land.code] = land.surface in surfaces
    return table


@functools.cache
def name_table(*names: str) -> NDArray:
    """(256,) bool: whether a class code is one of these classes."""
    table = np.zeros(CODES, bool)
    table[[code(name) for name in names]] = True
    return table


def on_surface(cover: NDArray, *surfaces: str) -> NDArray:
    """Bool of cover's shape: cells whose class has one of these surfaces."""
    return _look_up(surface_table(*surfaces), cover)


def is_class(cover: NDArray, *names: str) -> NDArray:
    """Bool of cover's shape: cells of one of these classes."""
    return _look_up(name_table(*names), cover)


def _look_up(table: NDArray, cover: NDArray) -> NDArray:
    flat = np.ascontiguousarray(cover, np.uint8).reshape(-1)
    return np.asarray(_entries(table, flat)).reshape(cover.shape)


@numba.njit(cache=True, nogil=True)
def _entries(table, cover):  # type: ignore[no-untyped-def]
    out = np.empty(cover.size, np.bool_)
    for n in range(cover.size):
        out[n] = table[cover[n]]
    return out


def known_cover(cover: NDArray) -> NDArray:
    """`cover` with grassland where nothing is known: open ground that promises nothing."""
    return np.where(cover == 0, np.uint8(code("grassland")), cover).astype(np.uint8)


def semantics_on(inputs: Mapping[str, Any], frame: Frame) -> Semantics:
    """The semantics condition cropped to `frame`; all unknown where the job has none."""
    layer: Semantics | None = inputs.get("semantics")
    if layer is None:
        return Semantics(frame, np.zeros(frame.shape, np.uint8), np.zeros(frame.shape, np.uint32))
    return layer.crop(frame)


def raster_on(inputs: Mapping[str, Any], name: str, frame: Frame) -> NDArray | None:
    """The array of a raster condition on `frame`, None where the job has none."""
    layer: Raster | None = inputs.get(name)
    return None if layer is None else layer.crop(frame).data
