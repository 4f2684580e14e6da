"""Gaussians of windows of a world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetools import LRUCache
from numpy.typing import NDArray

from earthgen.splats.gaussians import Gaussians, from_voxels
from geo_io.frame import Frame

if TYPE_CHECKING:
    from earthgen.voxels.voxels import Splats, Voxels
    from earthgen.world.world import World

CACHED_VOXELS = 2_000_000
"""Voxels of the tiles that are held in memory (about 60 bytes each)."""


class SplatReader:
    """Reads the Gaussians of windows of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._finished = set(world.tiles())
        self._held: LRUCache[tuple[int, int, int], tuple[Voxels, Splats, NDArray]] = LRUCache(
            CACHED_VOXELS, getsizeof=lambda tile: min(len(tile[0]), CACHED_VOXELS)
        )

    def window(self, part: Frame, frame: Frame, level: int) -> Gaussians | None:
        """Return the Gaussians of `frame` inside `part`; None if there are none."""
        inside = part.intersection(frame)
        if inside is None:
            return None
        found = []
        for tile in inside.tiles(self.world.tile_size // level):
            if tile not in self._finished:
                continue
            voxels, splats, ground = self._tile(*tile, level)
            here = voxels.inside(inside)
            if here.any():
                every = from_voxels(voxels.take(here), splats.take(here), ground, frame.anchor)
                found.append(every)
        return Gaussians.concatenate(found) if found else None

    def _tile(self, tx: int, ty: int, level: int) -> tuple[Voxels, Splats, NDArray]:
        key = (tx, ty, level)
        if key not in self._held:
            voxels, splats = self.world.tile_voxels(tx, ty, level)
            ground = self.world.tile_layers(tx, ty, level)["ground"]
            self._held[key] = voxels, splats, ground
        return self._held[key]
