"""The surface of a world as one grid that is about as fine as the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.world.selection import Selection
from earthgen.world.world import World
from earthgen_preview.light import LINEAR
from geo_io.legend import classes

WATER = np.array(
    [False] + [land.group == "water" for land in classes()] + [False] * (255 - len(classes()))
)
"""(256,) bool: which class codes are water."""


@dataclass(frozen=True)
class Relief:
    """Means over the cells of a grid, rows from north to south.

    Attributes
    ----------
    left, top : float
        Upper left corner of the grid, CRS metres.
    cell : float
        Edge of a cell, metres.
    surface : NDArray (ny, nx) float32
        Heights, metres; NaN where there is no data.
    rgb : NDArray (ny, nx, 3) float32
        Linear colours.
    water : NDArray (ny, nx) float32
        Share of water.
    """

    left: float
    top: float
    cell: float
    surface: NDArray
    rgb: NDArray
    water: NDArray


def read_relief(
    world: World, selection: Selection, metres_per_pixel: float, colours: bool = True
) -> Relief:
    """Read the dense layers of a world tile by tile.

    Cells are averaged where even the coarsest level is finer than a pixel.

    Parameters
    ----------
    world : World
        The world.
    selection : Selection
        The part and the level to read.
    metres_per_pixel : float
        Size of the picture's pixels.
    colours : bool
        If not set, `rgb` and `water` of the result are empty.
    """
    frame = selection.frame
    s = frame.voxel_size
    merge = max(int(metres_per_pixel // s), 1) if selection.level == max(world.levels) else 1
    shape = (-(-frame.ny // merge), -(-frame.nx // merge))
    number = np.zeros(shape, np.int32)
    height = np.zeros(shape, np.float32)
    rgb = np.zeros((*shape, 3) if colours else (0, 0, 3), np.float32)
    water = np.zeros(shape if colours else (0, 0), np.float32)
    whole = world.level_frame(selection.level)
    layers = world.layers(selection.level)  # lazy: only the layers used below are read
    no_rgb, no_water = np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), bool)
    for tx, ty in selection.tiles:
        part = selection.tile(world, tx, ty)
        if part is None:
            continue
        inside = whole.slices(part)
        rows, columns = frame.slices(part)
        _add(
            np.asarray(layers["surface"][inside].values),
            np.asarray(layers["rgb"][inside].values) if colours else no_rgb,
            WATER[layers["semantics"][inside].values] if colours else no_water,
            LINEAR,
            rows.start,
            columns.start,
            merge,
            number,
            height,
            rgb,
            water,
            colours,
        )
    known = np.maximum(number, 1)
    surface = np.where(number > 0, height / known, np.nan).astype(np.float32)
    if colours:
        rgb /= known[..., None]
        water /= known
    return Relief(frame.bounds[0], frame.bounds[3], s * merge, surface, rgb, water)


@numba.njit(cache=True, nogil=True)
def _add(  # type: ignore[no-untyped-def]
    surface, colour, is_water, linear, row, column, merge, number, height, rgb, water, colours
):
    for r in range(surface.shape[0]):
        for c in range(surface.shape[1]):
            if not np.isfinite(surface[r, c]):
                continue
            i, j = (row + r) // merge, (column + c) // merge
            number[i, j] += 1
            height[i, j] += surface[r, c]
            if colours:
                water[i, j] += is_water[r, c]
                for band in range(3):
                    rgb[i, j, band] += linear[colour[r, c, band]]
