"""How high houses are of which no map tells the height: the more, the deeper in a town."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earthgen.terrain.filters import box_share, whole_cells
from earthgen.terrain.reach import Reach

TOWN_REACH = Reach(40.0)
"""How far around a house a town is looked for."""

COUNTRY, DENSER = 0.15, 0.4
"""Share of the surroundings that is built on in the country, and how much more it is in the middle
of a town."""


def house_heights(
    least: NDArray | float,
    draw: NDArray,
    built: NDArray,
    middle: tuple[NDArray, NDArray],
    voxel_size: float,
) -> NDArray:
    """Return heights of houses: isolated ones are low, those in the middle of a town the highest.

    Parameters
    ----------
    least : NDArray (n,) or float
        The lowest that each may be, metres.
    draw : NDArray (n,) float64
        A number of each house, from 0 to 1.
    built : NDArray (ny, nx) bool
        Where buildings stand; houses within `TOWN_REACH` of the edges are not exact.
    middle : (NDArray, NDArray)
        Rows and columns of the houses in `built`, (n,) int each.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (n,) float64
        Metres, from `least` to 13 m above it.
    """
    town = town_share(built, middle, voxel_size)
    return np.asarray(least + 3.0 * draw + town * (5.0 + 5.0 * draw))


def town_share(built: NDArray, middle: tuple[NDArray, NDArray], voxel_size: float) -> NDArray:
    """Return how deep in a town places lie, (n,) float64, from 0 in the country to 1 in its middle.

    Parameters
    ----------
    built : NDArray (ny, nx) bool
        Where buildings stand; places within `TOWN_REACH` of the edges are not exact.
    middle : (NDArray, NDArray)
        Rows and columns of the places in `built`, (n,) int each.
    voxel_size : float
        Metres.
    """
    crowd = box_share(built, whole_cells(TOWN_REACH.metres, voxel_size))[middle]
    return np.clip((crowd.astype(np.float64) - COUNTRY) / DENSER, 0.0, 1.0)
