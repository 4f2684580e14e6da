"""The square pieces of a world that meshes are made of, on a lattice of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from earthgen.mesh.columns import CANOPY_LEVEL
from earthgen.mesh.reader import ColumnReader
from earthgen.mesh.shells import HALO
from earthgen.mesh.tile import TileMesh, tile_mesh
from earthgen.mesh.trees import REACH, Trees, trees_of
from earthgen.voxels.tile import LEVELS
from geo_io.frame import Frame

CELLS = 128
"""Edge of a piece, cells, at most: 16,384 cells make at most 150,000 triangles."""

EXTENT = 512.0
"""Edge of a piece, metres, at most: so far a plane fits the earth to 5 mm."""


def piece_cells(voxel_size: float, level: int) -> int:
    """Return the edge of the pieces of a level in cells, a power of two."""
    most = max(EXTENT / (voxel_size * level), 1)
    return min(CELLS, 2 ** int(np.log2(most)))


def levels_down_to(level: int) -> tuple[int, ...]:
    """Return the levels of a pyramid whose finest is `level`, from the coarsest."""
    return tuple(every for every in reversed(LEVELS) if every >= level)


def make_piece(
    reader: ColumnReader,
    part: Frame,
    level: int,
    x: int,
    y: int,
    n: int,
    *,
    skirt: float = 0.0,
    trees: bool = True,
) -> TileMesh | None:
    """Return the mesh of one piece, cut at the frame `part`; None where there is nothing.

    Parameters
    ----------
    reader : ColumnReader
        Of the world.
    part : Frame
        What is drawn, on the lattice of the level.
    level : int
        1, 2, 4 or 8.
    x, y, n : int
        The piece covers the cells from (x n, y n) to ((x + 1) n, (y + 1) n).
    skirt : float
        See `tile_mesh`.
    trees : bool
        With the crowns that `make_trees` gives.
    """
    frame = part.tile(x, y, n)
    shared = part.intersection(frame)
    if shared is None:
        return None
    inside = np.zeros((n, n), bool)
    rows = slice(shared.y[0] - frame.y[0], shared.y[1] - frame.y[0])
    inside[rows, shared.x[0] - frame.x[0] : shared.x[1] - frame.x[0]] = True
    columns = reader.columns(frame.pad(HALO), level)
    if not trees:
        slabs = columns.slabs
        columns = replace(columns, slabs=slabs.take(~(slabs.crown & (slabs.object > 0))))
    return tile_mesh(columns, level, inside=inside, skirt=skirt)


def has_trees(level: int) -> bool:
    """Return whether a level tells trees apart."""
    return level < CANOPY_LEVEL


def make_trees(
    reader: ColumnReader, part: Frame, level: int, x: int, y: int, n: int
) -> Trees | None:
    """Return the trees of one piece; None where there are none. Parameters as in `make_piece`."""
    shared = part.intersection(part.tile(x, y, n))
    if shared is None or not has_trees(level):
        return None
    trees = trees_of(reader.columns(shared.pad(REACH), level), shared)
    return trees if len(trees) else None
