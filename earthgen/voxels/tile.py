"""Tiles: voxels, Gaussians and dense layers of one frame at one level of detail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.stages.block import take_runs
from earthgen.voxels.columns import index_columns
from earthgen.voxels.splat_math import base_colours
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

LEVELS = (1, 2, 4, 8)
"""Levels of detail of a stored world: voxel sizes as multiples of the world's voxel size."""

_EMPTY = {"ground": np.nan, "surface": np.nan, "semantics": 0, "rgb": 0}
"""The dense layers and their values for no data."""


@dataclass(frozen=True)
class Tile:
    """The content of one tile of a world at one level.

    Attributes
    ----------
    frame : Frame
        The tile's frame; its voxel size is that of the level.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres; NaN for no data.
    surface : NDArray (ny, nx) float32
        Height of the highest surface, metres; NaN for no data.
    semantics : NDArray (ny, nx) uint8
        Class of the topmost voxel; 0 for no data.
    rgb : NDArray (ny, nx, 3) uint8
        Colour of the topmost voxel.
    voxels : Voxels
        The surface voxels.
    splats : Splats
        Their Gaussians, in the same order.
    """

    frame: Frame
    ground: NDArray
    surface: NDArray
    semantics: NDArray
    rgb: NDArray
    voxels: Voxels
    splats: Splats


def tile_from_voxels(frame: Frame, ground: NDArray, voxels: Voxels, splats: Splats) -> Tile:
    """Return the tile of some voxels; its dense layers show them from above.

    Columns without a voxel become no data.

    Parameters
    ----------
    frame : Frame
        Of the tile.
    ground : NDArray (ny, nx) float32
        Height of the terrain, metres.
    voxels : Voxels
        Sorted by (y, x, z).
    splats : Splats
        Their Gaussians.

    Raises
    ------
    PluginError
        If the voxels are not sorted or not in the frame.
    """
    columns = index_columns(frame, voxels.xyz, voxels.faces)
    terrain = np.full(frame.shape, np.nan, np.float32)
    surface = np.full(frame.shape, np.nan, np.float32)
    semantics, rgb = np.zeros(frame.shape, np.uint8), np.zeros((*frame.shape, 3), np.uint8)
    first, end = columns.start[:-1], columns.start[1:]
    top = end[end > first] - 1  # the last voxel of each column that has any
    colour = base_colours(splats.sh[top])
    _fill_layers(
        top,
        columns.xyz,
        frame.x[0],
        frame.y[1] - 1,
        float(np.float32(frame.voxel_size)),
        np.ascontiguousarray(ground, np.float32),
        np.ascontiguousarray(splats.offset, np.float32),
        np.ascontiguousarray(voxels.semantic),
        colour,
        terrain,
        surface,
        semantics,
        rgb,
    )
    return Tile(frame, terrain, surface, semantics, rgb, voxels, splats)


@numba.njit(cache=True, nogil=True)
def _fill_layers(  # type: ignore[no-untyped-def]
    top,
    xyz,
    x0,
    y1,
    size,
    ground,
    offset,
    semantic,
    colour,
    out_ground,
    out_surface,
    out_semantics,
    out_rgb,
):
    """Fill the dense layers from the voxels at rows `top`; y1 is the y of the northern edge."""
    for n in range(top.shape[0]):
        k = top[n]
        row, col = y1 - xyz[k, 1], xyz[k, 0] - x0
        height = (xyz[k, 2] + 0.5) * size + offset[k, 2]
        out_ground[row, col] = ground[row, col]
        out_surface[row, col] = ground[row, col] + height
        out_semantics[row, col] = semantic[k]
        for band in range(3):
            out_rgb[row, col, band] = colour[n, band]


def join_tiles(frame: Frame, tiles: Sequence[Tile]) -> Tile:
    """Join tiles that do not overlap to one tile on `frame`; cells outside them become no data.

    Raises
    ------
    FrameError
        If there are no tiles, one does not lie in the frame, or two overlap.
    """
    if not tiles:
        raise FrameError(f"there are no tiles to join on {frame}", "pass at least one")
    if len(tiles) == 1 and tiles[0].frame == frame:
        return tiles[0]
    tiles = sorted(tiles, key=lambda tile: tile.frame.x)
    dense = {name: _filled(frame, tiles[0], name) for name in _EMPTY}
    taken = np.zeros(frame.shape, bool)
    for tile in tiles:
        where = frame.slices(tile.frame)
        if taken[where].any():
            raise FrameError(f"{tile.frame} overlaps another tile", "crop one of them")
        taken[where] = True
        for name, values in dense.items():
            values[where] = getattr(tile, name)
    # In each row of cells, tiles and so their voxels follow each other from west to east.
    start = [_row_starts(tile) for tile in tiles]
    runs = [
        (tile, start[n][y - tile.frame.y[0]], start[n][y - tile.frame.y[0] + 1])
        for y in range(*frame.y)
        for n, tile in enumerate(tiles)
        if tile.frame.y[0] <= y < tile.frame.y[1]
    ]

    def joined(read: Callable[[Tile], NDArray]) -> NDArray:
        return np.concatenate([read(tile)[first:end] for tile, first, end in runs])

    voxels = Voxels(
        frame,
        joined(lambda tile: tile.voxels.xyz),
        joined(lambda tile: tile.voxels.semantic),
        joined(lambda tile: tile.voxels.faces),
        joined(lambda tile: tile.voxels.object),
    )
    splats = Splats(
        joined(lambda tile: tile.splats.offset),
        joined(lambda tile: tile.splats.scale),
        joined(lambda tile: tile.splats.rotation),
        joined(lambda tile: tile.splats.opacity),
        joined(lambda tile: tile.splats.sh),
    )
    return Tile(
        frame, dense["ground"], dense["surface"], dense["semantics"], dense["rgb"], voxels, splats
    )


def crop_tile(tile: Tile, frame: Frame, inside: NDArray | None = None) -> Tile:
    """Return the part of a tile inside `frame` and, if given, inside a mask.

    Parameters
    ----------
    tile : Tile
        The tile.
    frame : Frame
        Lies inside the tile's frame.
    inside : NDArray (ny, nx) bool, optional
        On `frame`; columns outside become no data and lose their voxels.

    Raises
    ------
    FrameError
        If the frame does not lie inside the tile's, or the mask does not fit the frame.
    """
    if inside is None and frame == tile.frame:
        return tile
    where = tile.frame.slices(frame)
    if inside is None:
        inside = np.ones(frame.shape, bool)
    elif inside.shape != frame.shape:
        raise FrameError(
            f"a mask of shape {inside.shape} does not fit {frame} of shape {frame.shape}"
        )
    dense = {name: _filled(frame, tile, name) for name in _EMPTY}
    for name, values in dense.items():
        values[inside] = getattr(tile, name)[where][inside]
    columns = np.zeros(tile.frame.shape, bool)
    columns[where] = inside
    runs = index_columns(tile.frame, tile.voxels.xyz, tile.voxels.faces).runs(columns)
    v, s = tile.voxels, tile.splats
    voxels = Voxels(frame, *(take_runs(a, runs) for a in (v.xyz, v.semantic, v.faces, v.object)))
    splats = Splats(*(take_runs(a, runs) for a in (s.offset, s.scale, s.rotation, s.opacity, s.sh)))
    return Tile(
        frame, dense["ground"], dense["surface"], dense["semantics"], dense["rgb"], voxels, splats
    )


def _filled(frame: Frame, like: Tile, name: str) -> NDArray:
    values = getattr(like, name)
    return np.full((*frame.shape, *values.shape[2:]), _EMPTY[name], values.dtype)


def _row_starts(tile: Tile) -> NDArray:
    """Return where the voxels of each row of cells begin, from south to north: (ny + 1,) int."""
    return np.searchsorted(tile.voxels.xyz[:, 1], np.arange(tile.frame.y[0], tile.frame.y[1] + 1))
