"""Roofs as the flow of heights is told about them: a shape and a slope a building.

A building's height is one number that is told or drawn once (`earthgen.models.height_state`), and
so is its roof: flat, gabled or hipped, with one slope. The surface of that roof is the centre of
the flow's state, and the flow adds what differs: dormers, wings, steps, and what the map has wrong.
A network that has to agree with itself on a ridge, column by column and from noise, needs far more
training than one that is told where it is.

In training the roof is the one that fits the true heights best; roofs that none fits are not told.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLAT, GABLED, HIPPED = 0, 1, 2
"""Kinds of roofs."""

LEAST_SLOPE, LARGEST_SLOPE = 0.15, 2.0
"""Metres a metre; what is less steep is flat."""

LEAST_COLUMNS = 12
"""Columns of a building; the roof of a smaller one is not told."""

GAIN = 0.65
"""A sloping roof is taken if it leaves at most this share of a flat one's squared differences."""

LARGEST_MISFIT = 1.3
"""Metres, root of the mean square: a roof from which a building differs more is not told."""

ROOF_SCALE = 1.0
"""Metres of difference from a told roof that are one unit of the state."""


def roof_drop(kind: Tensor, slope: Tensor, depth: Tensor, across: Tensor, edge: Tensor) -> Tensor:
    """Return how far roofs lie below the tops of their buildings.

    Parameters
    ----------
    kind : Tensor int64
        `FLAT`, `GABLED` or `HIPPED`; all are of one shape.
    slope : Tensor float32
        Metres a metre.
    depth : Tensor float32
        Largest distance of a place in the building to its edge, metres.
    across, edge : Tensor float32
        Distance from the ridge of a gabled roof, and from the edge of the building, metres.

    Returns
    -------
    Tensor float32
        Metres, not negative.
    """
    hipped = slope * (depth - edge).clamp(min=0)
    drop = torch.where(kind == HIPPED, hipped, slope * across)
    return torch.where(kind == FLAT, 0.0, drop)


def fit_roofs(
    height: Tensor, told: Tensor, building: Tensor, valid: Tensor, across: Tensor, edge: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit a roof to each building by least squares.

    Parameters
    ----------
    height : Tensor (batch, ny, nx) float32
        True heights above the ground, metres.
    told : Tensor (batch, ny, nx) float32
        Height of the building, metres.
    building : Tensor (batch, ny, nx) int64
        Number of the building, 0 for none.
    valid : Tensor (batch, ny, nx) bool
        Where the height is known.
    across : Tensor (batch, ny, nx) float32
        Distance from the longer axis of the building, metres, negative where unknown.
    edge : Tensor (batch, ny, nx) float32
        Distance from the edge of the building, metres.

    Returns
    -------
    index : Tensor (batch, ny, nx) int64
        Of the building in the others, 0 for none.
    kind : Tensor (n,) int64
        -1 where no roof fits.
    slope, depth : Tensor (n,) float32
        As of `roof_drop`.
    """
    batch = len(height)
    sample = torch.arange(batch, device=height.device)[:, None, None]
    key = torch.where(building > 0, building + (sample << 33), 0)
    keys = torch.cat([key.new_zeros(1), key.reshape(-1)])  # 0 is there, and the first
    every, index = torch.unique(keys, return_inverse=True)
    index = index[1:]
    count = len(every)
    use = (valid & (building > 0)).reshape(-1)
    group, below = index[use], (told - height).reshape(-1)[use].double()
    depth = torch.zeros(count, device=height.device).scatter_reduce_(
        0, index, edge.reshape(-1).float(), "amax"
    )

    def total(values: Tensor) -> Tensor:
        out = torch.zeros(count, dtype=torch.float64, device=height.device)
        return out.index_add_(0, group, values)

    number = total(torch.ones_like(below))
    known = total((across.reshape(-1)[use] < 0).double()) == 0
    n = number.clamp(min=1)
    mean = total(below) / n
    flat = total(below**2) / n - mean**2
    best, kind = flat * GAIN, torch.full((count,), FLAT, device=height.device)
    slope = torch.zeros(count, device=height.device)
    falls = (across.reshape(-1)[use], depth[group] - edge.reshape(-1)[use])
    for number_of_kind, fall in zip((GABLED, HIPPED), falls, strict=True):
        fall = fall.clamp(min=0).double()
        middle = total(fall) / n
        spread = total(fall**2) / n - middle**2
        steep = (total(fall * below) / n - middle * mean) / spread.clamp(min=1e-6)
        rest = flat - steep**2 * spread
        fits = (rest < best) & (steep > LEAST_SLOPE) & (steep < LARGEST_SLOPE) & (spread > 1e-3)
        if number_of_kind == GABLED:
            fits &= known
        best = torch.where(fits, rest, best)
        kind = torch.where(fits, number_of_kind, kind)
        slope = torch.where(fits, steep.float(), slope)
    misfit = torch.where(kind == FLAT, flat, best)
    told_not = (misfit > LARGEST_MISFIT**2) | (number < LEAST_COLUMNS)
    kind = torch.where(told_not, -1, kind)
    kind[0] = -1
    return index.reshape(building.shape), kind, slope, depth


def fitted_drop(
    height: Tensor, told: Tensor, building: Tensor, valid: Tensor, across: Tensor, edge: Tensor
) -> Tensor:
    """Return how far the best roofs lie below the tops of their buildings, NaN where none fits.

    Parameters
    ----------
    height, told, building, valid, across, edge : Tensor (batch, ny, nx)
        As of `fit_roofs`.

    Returns
    -------
    Tensor (batch, ny, nx) float32
        Metres.
    """
    index, kind, slope, depth = fit_roofs(height, told, building, valid, across, edge)
    drop = roof_drop(kind[index], slope[index], depth[index], across.clamp(min=0), edge)
    return torch.where(kind[index] >= 0, drop, torch.nan)
