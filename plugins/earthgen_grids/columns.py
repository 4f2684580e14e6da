"""What stands in each column of a tile: the grids that climate models read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.render.features.cover import cover_below
from earthgen.render.features.objects import object_cells
from earthgen.world.world import World
from geo_io.frame import Frame
from geo_io.legend import classes


@dataclass(frozen=True)
class Columns:
    """Grids (ny, nx) of a tile.

    Attributes
    ----------
    frame : Frame
    ground : NDArray float32
        Absolute height of the ground, metres; NaN without data.
    cover, above : NDArray uint8
        Class on the ground, and seen from above.
    roof : NDArray float32
        Height of the roof above the ground, metres; 0 without a building.
    building : NDArray uint32
        Object number of the building; 0 without one.
    crown, trunk : NDArray float32
        Top and underside of plants above the ground, metres; 0 without any.
    """

    frame: Frame
    ground: NDArray
    cover: NDArray
    above: NDArray
    roof: NDArray
    building: NDArray
    crown: NDArray
    trunk: NDArray

    def crop(self, frame: Frame) -> Columns:
        """Return the part on a frame inside this one."""
        part = self.frame.slices(frame)
        return Columns(
            frame,
            self.ground[part],
            self.cover[part],
            self.above[part],
            self.roof[part],
            self.building[part],
            self.crown[part],
            self.trunk[part],
        )


def columns_of(world: World, tx: int, ty: int, level: int) -> Columns:
    """Return the columns of a tile at a level.

    Where plants stand above each other, the highest counts, and the lowest underside.
    """
    frame = world.tile_frame(tx, ty, level)
    layers = world.tile_layers(tx, ty, level)
    voxels, splats = world.tile_voxels(tx, ty, level)
    roof, crown, trunk = (np.zeros(frame.shape, np.float32) for _ in range(3))
    building = np.zeros(frame.shape, np.uint32)
    houses = object_cells(voxels, splats, layers["ground"], buildings=True)
    houses = houses[np.argsort(houses["top"], kind="stable")]  # the highest is written last
    at = frame.y[1] - 1 - houses["y"], houses["x"] - frame.x[0]
    roof[at] = np.maximum(houses["top"] - houses["ground"], 0)
    building[at] = houses["number"]
    plants = object_cells(voxels, splats, layers["ground"], buildings=False)
    at = frame.y[1] - 1 - plants["y"], plants["x"] - frame.x[0]
    np.maximum.at(crown, at, (plants["top"] - plants["ground"]).astype(np.float32))
    trunk[:] = np.inf
    np.minimum.at(trunk, at, plants["low"])
    trunk[~np.isfinite(trunk)] = 0
    return Columns(
        frame,
        layers["ground"],
        cover_below(voxels, layers["semantics"]),
        layers["semantics"],
        roof,
        building,
        crown,
        np.minimum(trunk, crown),
    )


def class_table(values: dict[str, int], default: int) -> NDArray:
    """Return a value for each class code, (256,) int16, from values by class name."""
    table = np.full(256, default, np.int16)
    for land in classes():
        table[land.code] = values.get(land.name, default)
    return table
