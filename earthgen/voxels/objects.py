"""Object numbers: 30 bits that identify an object, and two bits for its type.

From the type the texture knows whether a roof is tiled or flat without seeing the whole building,
which may lie in two windows. Numbers of other geometry backends work too: their types are random.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earthgen.terrain.cover import CODES, class_code

FLAT_ROOF, PITCHED_ROOF, HALL_ROOF, PLAIN_ROOF = 0, 1, 2, 3
"""Types of buildings: town houses with flat roofs, tiled roofs, halls, and sheds."""

BROADLEAF, NEEDLELEAF, BUSH, HEDGE = 0, 1, 2, 3
"""Types of plants."""


@functools.cache
def structure_classes() -> NDArray:
    """Return which classes are those of structures where a voxel has an object: (CODES,) bool.

    The types of structures are their materials, `geo_io.structures.MATERIALS`.
    """
    table = np.zeros(CODES, bool)
    table[[class_code(name) for name in ("road", "rail", "paved", "river")]] = True
    return table


def object_number(key: ArrayLike, kind: ArrayLike) -> NDArray:
    """Return object numbers, never 0, from keys and types.

    Parameters
    ----------
    key : array_like of uint32 or uint64
        Random keys of the objects.
    kind : array_like of int
        Types, 0 to 3; broadcast against the keys.

    Returns
    -------
    NDArray uint32
        Of the broadcast shape.
    """
    key = np.asarray(key).astype(np.uint64)
    folded = (key ^ (key >> np.uint64(32))) & np.uint64(0xFFFFFFFC)
    folded = np.where(folded == 0, np.uint64(4), folded)
    return (folded | np.asarray(kind).astype(np.uint64)).astype(np.uint32)
