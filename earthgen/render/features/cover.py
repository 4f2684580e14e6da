"""The land cover on the ground of a world, also below crowns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from earthgen.voxels.voxels import TOP, WALL, Voxels

if TYPE_CHECKING:
    from earthgen.world.world import World


def ground_cover(world: World, tx: int, ty: int, level: int = 1) -> NDArray:
    """Return the class of the ground in each cell of a tile.

    `semantics` of a world is the class seen from above, where crowns hide roads. Here it is the
    class of the highest open voxel that belongs to no object; where there is none, as below a
    building, that seen from above.

    Returns
    -------
    NDArray (ny, nx) uint8
        On `world.tile_frame(tx, ty, level)`; 0 without data.
    """
    voxels, _ = world.tile_voxels(tx, ty, level)
    return cover_below(voxels, world.tile_layers(tx, ty, level)["semantics"])


def cover_below(voxels: Voxels, semantics: NDArray) -> NDArray:
    """Return `ground_cover` of a tile that was read: its voxels, and the class seen from above."""
    frame, cover = voxels.frame, semantics.copy()
    open_ground = (voxels.object == 0) & (voxels.faces & TOP > 0) & (voxels.faces & WALL == 0)
    x, y, _ = voxels.xyz[open_ground].T  # sorted by z in a column: the highest comes last
    cover[frame.y[1] - 1 - y, x - frame.x[0]] = voxels.semantic[open_ground]
    return cover
