"""Heights as a flow sees them, object by object.

A building's height is one number, told by a map or drawn once; the flow adds the shape of its roof.
So the state of a column is

    (height - centre) / scale

where the centre is the height of the building, and the scale 2.5 m; where its roof is told too
(`earthgen.models.roofs`), the centre is the surface of that roof, and the scale 1 m. Elsewhere both
depend on the class of the land, and on the height of a wood where one is told. In this state a
roof's relief of half a metre is as visible to a network as it is to the eye, whatever the height of
the building. A logarithm of the height, the earlier state, hides it: a ridge of 0.3 m on a house of
15 m is 0.02 there.

What lies around a column inside its building is an input too: the distance to the building's edge
and its place along the axes of the footprint, because a ridge is a line in these coordinates.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.models.presets import HIDDEN
from earthgen.models.roofs import ROOF_SCALE
from geo_io.legend import classes, codes

BUILDING_SCALE = 2.5
"""Metres of roof relief that are one unit of the state."""

OBJECT_MAPS = 8
"""Channels of `object_maps`."""

BORDER = 7
"""Channel of `object_maps` that is 1 where a building ends or meets another."""

EDGE_UNIT = 5.0
"""Metres of distance from a building's edge that are 1 in `object_maps`."""

LARGEST_EDGE = 15.0
"""Metres; distances to the edge of a building are capped here."""

LIMIT = 12.0
"""States are clipped to this, so that a mast does not dominate a loss. A tree of 18 m on what the
map calls a lawn is within it."""

WOOD_CENTRE, WOOD_SCALE, LEAST_WOOD_SCALE = 0.75, 0.3, 1.5
"""Centre and scale of a wood whose height is told, as shares of that height, and metres."""


@functools.cache
def class_scales() -> tuple[NDArray, NDArray]:
    """Return centre and scale by class code, (256,) float32 metres each.

    Where no land cover is given at all (`HIDDEN`) anything can stand, and the scale is wide. On
    land that a map leaves out, most is low: a wide scale there grew rugs of bushes.
    """
    centre = np.full(256, 0.1, np.float32)
    scale = np.full(256, 0.6, np.float32)
    centre[0], scale[0] = 0.3, 2.0
    centre[HIDDEN], scale[HIDDEN] = 2.0, 4.0
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


def height_scales(
    semantics: Tensor, told: Tensor, roof: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return centre and scale of the state of columns.

    Parameters
    ----------
    semantics : Tensor (batch, ny, nx)
        Class codes of the condition, 0 unmapped, `HIDDEN` where no land cover is given.
    told : Tensor (batch, ny, nx) float32
        Height of the building, or of the canopy of the wood, metres; 0 where none is told.
    roof : Tensor (batch, ny, nx) float32, optional
        How far the told roof lies below the height of its building, metres; NaN where none is told.

    Returns
    -------
    centre, scale : Tensor (batch, ny, nx) float32
        Metres.
    """
    code, told = semantics.long(), told.float()
    centre, scale = (torch.from_numpy(table).to(told.device)[code] for table in class_scales())
    known = told > 0
    built = (code == codes()["building"]) & known
    wood = torch.from_numpy(wood_table()).to(told.device)[code] & known
    centre = torch.where(built, told, torch.where(wood, WOOD_CENTRE * told, centre))
    if roof is not None:
        shaped = built & torch.isfinite(roof)
        centre = torch.where(shaped, (told - roof).clamp(min=0), centre)
        scale = torch.where(shaped, ROOF_SCALE, scale)
    scale = torch.where(wood, (WOOD_SCALE * told).clamp(min=LEAST_WOOD_SCALE), scale)
    return centre, scale


@functools.cache
def wood_table() -> NDArray:
    """Return whether a class code is one of woods or trees, (256,) bool."""
    table = np.zeros(256, bool)
    for land in classes():
        table[land.code] = land.surface in ("wood", "tree")
    return table


def object_maps(building: Tensor, axes: Tensor, voxel_size: float) -> Tensor:
    """Return what the flow is told about the shape of buildings, column by column.

    Parameters
    ----------
    building : Tensor (batch, ny, nx) int64
        Number of the building, 0 for none.
    axes : Tensor (batch, ny, nx, 4)
        Distance from the building's centre along and across, and its half length and half width,
        metres; 0 where unknown.
    voxel_size : float
        Metres.

    Returns
    -------
    Tensor (batch, OBJECT_MAPS, ny, nx) float32
        Distance to the edge / 5 m; distance along / 10 m and across / 5 m; half length / 10 m and
        half width / 5 m; distance to the ends and to the sides / 5 m; 1 on columns beside another
        building or at the edge.
    """
    inside = building > 0
    border = torch.zeros_like(inside)
    for axis in (1, 2):
        count = building.shape[axis]
        differs = building.narrow(axis, 0, count - 1) != building.narrow(axis, 1, count - 1)
        border.narrow(axis, 0, count - 1).logical_or_(differs)
        border.narrow(axis, 1, count - 1).logical_or_(differs)
    border &= inside
    distance = edge_distance(inside & ~border, math.ceil(LARGEST_EDGE / voxel_size))
    edge = torch.where(inside, (distance + 0.5) * voxel_size, 0.0)
    along, across, length, width = axes.float().unbind(-1)
    known = inside & (width > 0)
    by_axes = [
        along.clamp(max=40) / 10,
        across.clamp(max=20) / 5,
        length.clamp(max=40) / 10,
        width.clamp(max=20) / 5,
        (length - along).clamp(0, 20) / 5,
        (width - across).clamp(0, 15) / 5,
    ]
    maps = [edge.clamp(max=LARGEST_EDGE) / EDGE_UNIT]
    maps += [torch.where(known, each, 0.0) for each in by_axes]
    return torch.stack([*maps, border.float()], 1)


def edge_distance(inside: Tensor, largest: int) -> Tensor:
    """Return the Euclidean distance of cells to the nearest cell that is not inside.

    Squared distances are separable, so each axis is one minimum over shifts (Felzenszwalb &
    Huttenlocher 2012). Cells beyond the edge of the map count as inside.

    Parameters
    ----------
    inside : Tensor (batch, ny, nx) bool
        Cells; the others have distance 0.
    largest : int
        Distances are capped at this many cells.

    Returns
    -------
    Tensor (batch, ny, nx) float32
        Cells.
    """
    squared = torch.where(inside, float(largest**2), 0.0)
    for axis in (1, 2):
        count, nearest = squared.shape[axis], squared.clone()
        for shift in range(1, min(largest, count)):
            rest = count - shift
            low, high = (squared.narrow(axis, first, rest) + shift**2 for first in (0, shift))
            torch.minimum(
                nearest.narrow(axis, shift, rest), low, out=nearest.narrow(axis, shift, rest)
            )
            torch.minimum(nearest.narrow(axis, 0, rest), high, out=nearest.narrow(axis, 0, rest))
        squared = nearest
    return squared.sqrt()


def to_state(height: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return the state of heights in metres; all (batch, ny, nx), the result (batch, 1, ny, nx)."""
    return ((height.float() - centre) / scale).clamp(-LIMIT, LIMIT)[:, None]


def to_height(state: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return metres, (batch, ny, nx) and not negative, of a state (batch, 1, ny, nx)."""
    return torch.clamp(state[:, 0].float() * scale + centre, min=0)
