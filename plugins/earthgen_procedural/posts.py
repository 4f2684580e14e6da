"""Posts under roofs without walls: carports, canopies, shelters and roofs of stations."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_io.frame import Frame
from geo_io.layers import Buildings

APART = 6.0
"""Largest distance between the posts along an edge, metres."""

LARGEST_VOXEL = 2.0
"""Largest voxels with posts, metres; in larger ones they would be walls."""

STRAIGHT = 0.4
"""Metres by which an outline may leave a line between two posts at its corners."""

INSET = 0.6
"""Cells from the edge of a roof to its posts."""


def on_posts(
    frame: Frame, roofs: Buildings, owner: NDArray, under: NDArray, ground: NDArray
) -> NDArray:
    """Return the undersides of hanging buildings, with posts below those without walls.

    Those with a `min_height` of their own hang as the map says. A post is a cell whose underside is
    the ground.

    Parameters
    ----------
    frame : Frame
        The padded window.
    roofs : Buildings
        What hangs.
    owner : NDArray (ny, nx) int32
        Which of them a cell belongs to; -1 for none.
    under, ground : NDArray (ny, nx) float32
        Absolute heights of undersides and of the ground, metres.
    """
    size = frame.voxel_size
    stand = roofs.form["open"] & ~(roofs.form["base"] > 0)
    if size > LARGEST_VOXEL or not stand.any():
        return under
    out = under.copy()
    for k in np.flatnonzero(stand).tolist():
        xy = _places(roofs.footprint[k], INSET * size)
        col = np.floor(xy[:, 0] / size).astype(np.int64) - frame.x[0]
        row = frame.y[1] - 1 - np.floor(xy[:, 1] / size).astype(np.int64)
        inside = (row >= 0) & (row < frame.ny) & (col >= 0) & (col < frame.nx)
        row, col = row[inside], col[inside]
        own = owner[row, col] == k
        out[row[own], col[own]] = ground[row[own], col[own]]
    return out


def _places(footprint: shapely.Polygon, inset: float) -> NDArray:
    """Return the places (n, 2) of the posts of a roof: at corners, and evenly between them."""
    inner = shapely.buffer(footprint, -inset, join_style="mitre")
    if shapely.is_empty(inner):  # narrower than two posts: one
        return np.asarray(shapely.get_coordinates(shapely.point_on_surface(footprint)))
    rings, _ = shapely.get_rings(shapely.get_parts(inner), return_index=True)
    rings = shapely.segmentize(shapely.simplify(shapely.normalize(rings), STRAIGHT), APART)
    return np.asarray(shapely.get_coordinates(rings))
