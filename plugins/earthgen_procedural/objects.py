"""Object numbers: 30 bits that tell objects apart, and two that say what kind of object it is.

The kind is how the texture knows that a roof is tiled or flat without seeing the whole building,
which may stand in two windows. Numbers of other geometry backends work too: their kinds are then
random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLAT_ROOF, PITCHED_ROOF, HALL_ROOF, PLAIN_ROOF = 0, 1, 2, 3
"""Kinds of buildings: town houses with flat roofs, tiled roofs, halls, and sheds."""

BROADLEAF, NEEDLELEAF, BUSH, HEDGE = 0, 1, 2, 3
"""Kinds of plants."""


def object_number(key: ArrayLike, kind: ArrayLike) -> NDArray:
    """uint32, never 0, from integer keys (uint32 or uint64) and kinds (0 to 3), broadcast."""
    key = np.asarray(key).astype(np.uint64)
    folded = (key ^ (key >> np.uint64(32))) & np.uint64(0xFFFFFFFC)
    folded = np.where(folded == 0, np.uint64(4), folded)
    return (folded | np.asarray(kind).astype(np.uint64)).astype(np.uint32)
