"""TODO docstring of earthgen.voxels.voxels.tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError
from earthgen.stages.block import run_edges, take_runs
from earthgen.voxels.splat_math import SH_C0
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.errors import FrameError
from geo_io.frame import Frame

LEVEL_HALO = 16
"""Voxels of geometry around a piece that make all its levels exact.

Each level looks one of its own voxels further: 2 + 4 + 8 = 14 voxels, and whole voxels of level 8
make 16. That holds for any voxels and sides, also those that a height band cuts off; for a closed
surface 8 would do.
"""

_EMPTY = {"ground": np.nan, "surface": np.nan, "semantics": 0, "rgb": 0}
"""The dense layers and what stands for no data in them."""


@dataclass(frozen=True)
class Tile:
    """The content of one tile at one level.

    Attributes
    ----------
    frame : where it is
    ground, surface : (ny, nx) float32 metres, terrain and the top of what stands on it; NaN: no
        data
    semantics : (ny, nx) uint8, class of the topmost voxel; 0: no data
    rgb : (ny, nx, 3) uint8, colour of the topmost voxel
    voxels, splats : the surface voxels and their Gaussians
    """

    frame: Frame
    ground: NDArray
    surface: NDArray
    semantics: NDArray
    rgb: NDArray
    voxels: Voxels
    splats: Splats


def tile_of(frame: Frame, ground: NDArray, voxels: Voxels, splats: Splats) -> Tile:
    """A tile whose dense layers are what its voxels (sorted by y, x, z) show from above.

    Columns without a voxel become no data. Raises PluginError where the voxels are not sorted or
    not in the frame.
    """
    columns = _columns_of(frame, voxels.xyz, voxels.faces)
    shown, surface = (
        np.full(frame.shape, np.nan, np.float32),
        np.full(frame.shape, np.nan, np.float32),
    )
    semantics, rgb = np.zeros(frame.shape, np.uint8), np.zeros((*frame.shape, 3), np.uint8)
    top = (
        columns.start[1:][columns.start[1:] > columns.start[:-1]] - 1
    )  # the last voxel of each column
    colour = colours(splats.sh[top])
    _show(
        top,
        columns.xyz,
        frame.x[0],
        frame.y[1] - 1,
        float(np.float32(frame.voxel_size)),
        np.ascontiguousarray(ground, np.float32),
        np.ascontiguousarray(splats.offset, np.float32),
        np.ascontiguousarray(voxels.semantic),
        colour,
        shown,
        surface,
        semantics,
        rgb,
    )
    return Tile(frame, shown, surface, semantics, rgb, voxels, splats)


@numba.njit(cache=True, nogil=True)
def _show(  # type: ignore[no-untyped-def]
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
    """Fills dense layers from the voxels at rows `top`; y1 is the y of the first row of cells."""
    for n in range(top.shape[0]):
        k = top[n]
        row, col = y1 - xyz[k, 1], xyz[k, 0] - x0
        height = (xyz[k, 2] + 0.5) * size + offset[k, 2]
        out_ground[row, col] = ground[row, col]
        out_surface[row, col] = ground[row, col] + height
        out_semantics[row, col] = semantic[k]
        for band in range(3):
            out_rgb[row, col, band] = colour[n, band]


def colours(sh: NDArray) -> NDArray:
    """(n, 3) uint8 view-independent colours of (n, k, 3) spherical harmonics."""
    return np.clip(np.rint((0.5 + SH_C0 * sh[:, 0, :].astype(np.float32)) * 255), 0, 255).astype(
        np.uint8
    )


def join_tiles(frame: Frame, tiles: Sequence[Tile]) -> Tile:
    """One tile on `frame` from tiles that do not overlap; no data where there is none of them.

    Raises FrameError where there are no tiles, one does not lie in the frame, or two overlap.
    """
    if not tiles:
        raise FrameError(f"there are no tiles to join on {frame}", "give at least one")
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
    # In a row of cells the tiles follow each other from west to east, so their voxels do.
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
    """The part of a tile in `frame` and, with a mask, in those of its columns.

    inside : (ny, nx) bool on `frame`; columns outside become no data and lose their voxels

    Raises FrameError where the frame does not lie in the tile's, or the mask not on the frame.
    """
    if inside is None and frame == tile.frame:
        return tile
    where = tile.frame.slices(frame)
    if inside is None:
        inside = np.ones(frame.shape, bool)
    elif inside.shape != frame.shape:
        raise FrameError(
            f"a mask of shape {inside.shape} does not lie on {frame} of shape {frame.shape}"
        )
    dense = {name: _filled(frame, tile, name) for name in _EMPTY}
    for name, values in dense.items():
        values[inside] = getattr(tile, name)[where][inside]
    columns = np.zeros(tile.frame.shape, bool)
    columns[where] = inside
    runs = _runs(columns, _columns_of(tile.frame, tile.voxels.xyz, tile.voxels.faces).start)
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
    """(ny + 1,): where the voxels of each row of cells begin, from south to north."""
    return np.searchsorted(tile.voxels.xyz[:, 1], np.arange(tile.frame.y[0], tile.frame.y[1] + 1))


LEVELS = (1, 2, 4, 8)
"""The levels of detail a world is stored at, in multiples of its voxel size."""


@dataclass(frozen=True)
class _Columns:
    """Where the voxels of a frame stand: rows start[c] to start[c + 1] are those of column c.

    xyz : (n, 3) int32, sorted by (y, x, z); faces : (n,) uint8
    start : (ny * nx + 1,) int64; columns run from west to east and then from south to north, as
        voxels do
    """

    frame: Frame
    xyz: NDArray
    faces: NDArray
    start: NDArray


def _columns_of(frame: Frame, xyz: NDArray, faces: NDArray) -> _Columns:
    """The columns of sorted voxels; PluginError where they are not."""
    start = np.empty(frame.nx * frame.ny + 1, np.int64)
    xyz = np.ascontiguousarray(xyz, np.int32)
    if not _find_columns(xyz, frame.x[0], frame.y[0], frame.nx, frame.ny, start):
        raise PluginError(
            f"voxels are not sorted by (y, x, z), stand twice, or lie outside {frame}",
            "see earthgen.voxels.voxels.Voxels",
        )
    return _Columns(frame, xyz, np.ascontiguousarray(faces, np.uint8), start)


def _runs_in(columns: _Columns, frame: Frame) -> list[tuple[int, int]]:
    """`_runs` of the columns in a frame."""
    wanted = np.zeros(columns.frame.shape, bool)
    wanted[columns.frame.slices(frame)] = True
    return _runs(wanted, columns.start)


def _runs(wanted: NDArray, start: NDArray) -> list[tuple[int, int]]:
    """Ranges of rows that hold the voxels of the wanted columns, (ny, nx) bool from north to
    south, in their order."""
    edges = start[run_edges(wanted[::-1].ravel())].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


@numba.njit(cache=True, nogil=True)
def _find_columns(xyz, x0, y0, nx, ny, start):  # type: ignore[no-untyped-def]
    """Fills `start`; False where the voxels are not sorted by (y, x, z), one stands twice or
    outside."""
    at, before, below = 0, -1, 0
    for row in range(xyz.shape[0]):
        x, y, z = xyz[row, 0] - x0, xyz[row, 1] - y0, xyz[row, 2]
        if x < 0 or x >= nx or y < 0 or y >= ny:
            return False
        column = y * nx + x
        if column < before or (column == before and z <= below):
            return False
        while at <= column:
            start[at] = row
            at += 1
        before, below = column, z
    start[at:] = xyz.shape[0]
    return True
