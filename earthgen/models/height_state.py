"""Heights as a flow sees them, object by object.

A building's height is one number, told by a map or drawn once; the flow adds the shape of its roof.
So the state of a column is

    (height - centre) / scale

where the centre is the height of the building, and the scale 2.5 m; elsewhere both depend on the
class of the land. In this state a roof's relief of half a metre is as visible to a network as it is
to the eye, whatever the height of the building. A logarithm of the height, the earlier state, hides
it: a ridge of 0.3 m on a house of 15 m is 0.02 there.

What lies around a column inside its building is an input too: the distance to the building's edge
and its place along the axes of the footprint, because a ridge is a line in these coordinates.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from geo_io.legend import classes, codes

BUILDING_SCALE = 2.5
"""Metres of roof relief that are one unit of the state."""

OBJECT_MAPS = 8
"""Channels of `object_maps`."""

LARGEST_EDGE = 15.0
"""Metres; distances to the edge of a building are capped here."""

LIMIT = 8.0
"""States are clipped to this, so that a mast does not dominate a loss."""


@functools.cache
def class_scales() -> tuple[NDArray, NDArray]:
    """Return centre and scale by class code, (256,) float32 metres each.

    A building without a height of its own, and unmapped land, have wide scales.
    """
    centre = np.full(256, 0.1, np.float32)
    scale = np.full(256, 0.6, np.float32)
    centre[0], scale[0] = 1.0, 2.5
    for land in classes():
        if land.surface in ("wood", "tree"):
            centre[land.code], scale[land.code] = 8.0, 5.0
        elif land.surface == "shrub":
            centre[land.code], scale[land.code] = 1.0, 1.0
        elif land.surface == "water":
            scale[land.code] = 0.3
        elif land.surface == "building":
            centre[land.code], scale[land.code] = 8.0, BUILDING_SCALE
        elif land.surface == "grow":
            centre[land.code], scale[land.code] = 0.8, 2.5
        elif land.surface in ("meadow", "flat"):
            scale[land.code] = 1.5
    return centre, scale


def height_scales(semantics: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and scale of the state of columns.

    Parameters
    ----------
    semantics : Tensor (batch, ny, nx)
        Class codes of the condition, 0 unknown.
    told : Tensor (batch, ny, nx) float32
        Height of the building, metres; 0 where there is none.

    Returns
    -------
    centre, scale : Tensor (batch, ny, nx) float32
        Metres.
    """
    code = semantics.long()
    centre, scale = (torch.from_numpy(table).to(told.device) for table in class_scales())
    built = (code == codes()["building"]) & (told > 0)
    return torch.where(built, told.float(), centre[code]), scale[code]


def object_maps(building: NDArray, axes: NDArray, voxel_size: float) -> NDArray:
    """Return what the flow is told about the shape of buildings, column by column.

    Parameters
    ----------
    building : NDArray (ny, nx) uint32
        Number of the building, 0 for none.
    axes : NDArray (ny, nx, 4)
        Distance from the building's centre along and across, and its half length and half width,
        metres; 0 where unknown.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (OBJECT_MAPS, ny, nx) float32
        Distance to the edge / 5 m; distance along / 10 m and across / 5 m; half length / 10 m and
        half width / 5 m; distance to the ends and to the sides / 5 m; 1 on columns beside another
        building or at the edge.
    """
    inside = building > 0
    border = np.zeros(building.shape, bool)
    for axis in (0, 1):
        differs = np.diff(building.astype(np.int64), axis=axis) != 0
        first, last = [slice(None)] * 2, [slice(None)] * 2
        first[axis], last[axis] = slice(0, -1), slice(1, None)
        border[tuple(first)] |= differs
        border[tuple(last)] |= differs
    border &= inside
    distance = ndimage.distance_transform_edt(np.pad(inside & ~border, 1, mode="edge"))
    edge = np.where(inside, (distance[1:-1, 1:-1] + 0.5) * voxel_size, 0.0)
    along, across, length, width = np.moveaxis(np.asarray(axes, np.float32), -1, 0)
    known = inside & (width > 0)
    maps = np.stack(
        [
            np.minimum(edge, LARGEST_EDGE) / 5,
            np.where(known, np.minimum(along, 40) / 10, 0),
            np.where(known, np.minimum(across, 20) / 5, 0),
            np.where(known, np.minimum(length, 40) / 10, 0),
            np.where(known, np.minimum(width, 20) / 5, 0),
            np.where(known, np.clip(length - along, 0, 20) / 5, 0),
            np.where(known, np.clip(width - across, 0, 15) / 5, 0),
            border,
        ]
    )
    return maps.astype(np.float32)


def to_state(height: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return the state of heights in metres; all (batch, ny, nx), the result (batch, 1, ny, nx)."""
    return ((height.float() - centre) / scale).clamp(-LIMIT, LIMIT)[:, None]


def to_height(state: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return metres, (batch, ny, nx) and not negative, of a state (batch, 1, ny, nx)."""
    return torch.clamp(state[:, 0].float() * scale + centre, min=0)
