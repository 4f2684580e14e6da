"""Trees, bushes and hedges of a world as things: place, height, crown, kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earthgen.render.features.objects import Objects
from earthgen.voxels.objects import BROADLEAF, BUSH, HEDGE, NEEDLELEAF

KINDS = {BROADLEAF: "broadleaf", NEEDLELEAF: "needleleaf", BUSH: "bush", HEDGE: "hedge"}


@dataclass(frozen=True)
class Plants:
    """n plants of a world, as their voxels show them: where crowns touch, the visible part.

    Attributes
    ----------
    number : NDArray (n,) uint32
        Object numbers.
    xy : NDArray (n, 2) float64
        Mean of the crown's cells, CRS metres: where the trunk is, but for crowns that are partly
        hidden.
    ground : NDArray (n,) float64
        Absolute height of the ground there, metres.
    height, crown, base : NDArray (n,) float64
        Top above the ground; diameter of a circle of the crown's area; mean height of the underside
        beside the trunk, 0 where it reaches the ground, metres.
    kind : NDArray (n,) uint8
        A key of `KINDS`.
    semantic : NDArray (n,) uint8
        Class.
    rgb : NDArray (n, 3) uint8
        Mean sRGB from above.
    """

    number: NDArray
    xy: NDArray
    ground: NDArray
    height: NDArray
    crown: NDArray
    base: NDArray
    kind: NDArray
    semantic: NDArray
    rgb: NDArray

    def __len__(self) -> int:
        return len(self.number)


def plants_of(objects: Objects, size: float) -> Plants:
    """Return plants, in the order of the objects.

    Parameters
    ----------
    objects : Objects
    size : float
        Edge of a cell, metres.
    """
    cells, start = objects.cells, objects.start[:-1]
    count = np.diff(objects.start)

    def mean(values: NDArray) -> NDArray:
        total = np.add.reduceat(values.astype(np.float64), start, axis=0)
        return np.asarray((total.T / count).T)

    ground = mean(cells["ground"])
    above = cells["top"] - cells["ground"]
    number = cells["number"][start]
    return Plants(
        number=number,
        xy=np.stack([mean(cells[axis] + 0.5) * size for axis in ("x", "y")], axis=1),
        ground=ground,
        height=np.maximum.reduceat(above, start),
        crown=2 * np.sqrt(count * size**2 / np.pi),
        base=np.add.reduceat(cells["low"].astype(np.float64), start)
        / np.maximum(np.add.reduceat((cells["low"] > 0).astype(np.int64), start), 1),
        kind=(number & 3).astype(np.uint8),
        semantic=cells["semantic"][start],
        rgb=np.rint(mean(cells["rgb"])).astype(np.uint8),
    )
