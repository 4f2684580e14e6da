"""What an export or a picture covers: the part of a world that was asked for, at a level of
detail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import earthgen
from earthgen.errors import StoreError
from geo_io.frame import Bounds, Frame

if TYPE_CHECKING:
    from earthgen.world.world import World
from geo_io.frame import extent


@dataclass(frozen=True)
class Selection:
    """A part of a world at one level.

    Attributes
    ----------
    frame : of the part, on the level's lattice
    level : 1, 2, 4 or 8 times the world's voxel size
    tiles : (tx, ty) of the finished tiles that the part meets, row by row from the south-west,
        never empty
    """

    frame: Frame
    level: int
    tiles: tuple[tuple[int, int], ...]

    def tile(self, world: World, tx: int, ty: int) -> Frame | None:
        """The frame of what the part has of one tile."""
        return self.frame.intersection(world.tile_frame(tx, ty, self.level))


def select(world: World, bounds: Bounds | None, level: int) -> Selection:
    """The part of `world` whose voxels meet `bounds` (CRS metres, None for all of it).

    Raises
    ------
    StoreError
        if the world has no such level, or none of its tiles there is finished
    RegionError
        if the bounds are empty or do not meet the world
    """
    frame = world.part(level, bounds)
    finished = sorted(world.tiles(), key=lambda tile: (tile[1], tile[0]))
    if not finished:
        raise StoreError(
            f"world {world.path} has no finished tile",
            "finish it with `earthgen generate --resume`",
        )
    found = Selection(frame, level, tuple(finished))
    tiles = tuple(tile for tile in finished if found.tile(world, *tile) is not None)
    if not tiles:
        raise StoreError(
            f"no tile of world {world.path} is finished within {extent(frame.bounds)}",
            "finish it with `earthgen generate --resume`",
        )
    return Selection(frame, level, tiles)


def anchor_of(world: World, selection: Selection) -> tuple[float, float, float]:
    """A point in the middle of the selection at the height of its lowest ground, rounded down to
    whole metres.

    Coordinates relative to it are small, so that float32 keeps them to better than a millimetre in
    a region of 8 km, and a viewer that turns about its origin turns about the world.
    """
    frame, coarsest = selection.frame, max(world.levels)
    s = frame.voxel_size
    lowest = np.inf
    for tx, ty in selection.tiles:
        ground = world.tile_layers(tx, ty, coarsest)["ground"]
        if np.isfinite(ground).any():
            lowest = min(lowest, float(np.nanmin(ground)))
    x, y = (sum(frame.x) // 2) * s, (sum(frame.y) // 2) * s
    return x, y, float(np.floor(lowest)) if np.isfinite(lowest) else 0.0


def origin(world: World) -> dict[str, Any]:
    """Where a world came from, as JSON values for the files made from it.

    Inputs are given by their file names: what is passed on need not tell the folders of whoever
    made it.
    """
    provenance = world.provenance
    out: dict[str, Any] = {"generator": f"earthgen {earthgen.__version__}", "seed": world.seed}
    for name in ("ground", "inputs", "licences", "attribution"):
        if name in provenance:
            out[name] = provenance[name]
    if isinstance(out.get("inputs"), dict):
        out["inputs"] = {
            name: [_named(item) for item in items] for name, items in out["inputs"].items()
        }
    return out


def _named(item: Any) -> Any:
    if not isinstance(item, dict) or "source" not in item:
        return item
    return {**item, "source": re.split(r"[\\/]", str(item["source"]))[-1]}
