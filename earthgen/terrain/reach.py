"""How far rules look: what a stage must read around its window, so that a cell comes out the
same in any window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from earthgen.stages.stage import Read
from geo_io.errors import FrameError


@dataclass(frozen=True)
class Reach:
    """A distance of `metres` and `cells`, whatever the size of a cell.

    Filters take whole cells, and round metres down to them. The cells count the steps that look at
    least one cell far, however large cells are, and the places that are looked up in the cell that
    holds them.
    """

    metres: float
    cells: int = 0

    def __add__(self, other: Reach) -> Reach:
        """How far two rules reach, one after the other."""
        return Reach(self.metres + other.metres, self.cells + other.cells)

    def voxels(self, voxel_size: float) -> int:
        """The reach in cells of `voxel_size` metres, rounded up."""
        return self.cells + math.ceil(self.metres / voxel_size - 1e-9)

    def read(self, source: str) -> Read:
        """To read a source this far around a window."""
        return Read(source, metres=self.metres, cells=self.cells)


def widest(*reaches: Reach) -> Reach:
    """What holds each of several reaches."""
    return Reach(max(reach.metres for reach in reaches), max(reach.cells for reach in reaches))


def require_fit(chains: Mapping[str, Reach], halo: Reach) -> None:
    """Raise FrameError where a chain of rules reaches farther than the halo."""
    for name, reach in chains.items():
        if reach.metres > halo.metres or reach.cells > halo.cells:
            raise FrameError(
                f"the rules for {name} reach {reach.metres:g} m and {reach.cells} cells, the halo is "
                f"{halo.metres:g} m and {halo.cells} cells",
                "report it to the plugin's author",
            )
