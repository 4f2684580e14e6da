"""Rows of trees: where the trees of a mapped line stand."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

SPACING = 8.0
"""Metres between the trees of a row whose crowns are not known."""

NARROWEST = 3.0
"""Least distance between two trees of a row, metres."""


def trees_along(lines: NDArray, crown: NDArray) -> tuple[NDArray, NDArray]:
    """Return the places of the trees of rows, which depend on each line alone.

    They stand at equal distances, the first half a distance from the start: crowns touch, and no
    tree stands at both ends of two lines that join.

    Parameters
    ----------
    lines : NDArray (n,) object
        Shapely LineStrings, CRS metres.
    crown : NDArray (n,) float64
        Diameter of the crowns, metres; NaN unknown.

    Returns
    -------
    xy : NDArray (m, 2) float64
    line : NDArray (m,) int64
        Number of the line of each tree.
    """
    if not len(lines):
        return np.empty((0, 2)), np.empty(0, np.int64)
    length = shapely.length(lines)
    spacing = np.where(np.isfinite(crown), np.maximum(crown, NARROWEST), SPACING)
    count = np.maximum(np.rint(length / spacing), 1).astype(np.int64)
    line = np.repeat(np.arange(len(lines)), count)
    number = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
    along = (number + 0.5) / count[line] * length[line]
    return shapely.get_coordinates(shapely.line_interpolate_point(lines[line], along)), line
