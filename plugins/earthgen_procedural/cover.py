"""Sets of land classes by what the rules build on them, from the `surface` field of geo_io/legends/classes.yaml."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from earthgen.backends import Conditions
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
    return np.asarray(surface_table(*surfaces)[cover])


def is_class(cover: NDArray, *names: str) -> NDArray:
    """Bool of cover's shape: cells of one of these classes."""
    return np.asarray(name_table(*names)[cover])


def known_cover(cover: NDArray) -> NDArray:
    """`cover` with grassland where nothing is known: open ground that promises nothing."""
    return np.where(cover == 0, np.uint8(code("grassland")), cover).astype(np.uint8)


def semantics_on(conditions: Conditions, frame: Frame) -> Semantics:
    """The semantics condition cropped to `frame`; all unknown where the job has none."""
    layer: Semantics | None = conditions.get("semantics")
    if layer is None:
        return Semantics(frame, np.zeros(frame.shape, np.uint8), np.zeros(frame.shape, np.uint32))
    return layer.crop(frame)


def raster_on(conditions: Conditions, name: str, frame: Frame) -> NDArray | None:
    """The array of a raster condition on `frame`, None where the job has none."""
    layer: Raster | None = conditions.get(name)
    return None if layer is None else layer.crop(frame).data
