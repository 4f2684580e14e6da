"""The reach of rules: what a stage must read around its window to give the same cells in any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from earthgen.stages.stage import Read
from geo_io.errors import FrameError


@dataclass(frozen=True)
class Reach:
    """How far a rule looks: a distance in metres plus a number of cells of any size.

    Filters round metres down to whole cells. `cells` counts steps that look at least one cell far
    however large cells are, and look-ups of points in the cell that contains them.

    Attributes
    ----------
    metres : float
        Distance.
    cells : int
        Cells added to it.
    """

    metres: float
    cells: int = 0

    def __add__(self, other: Reach) -> Reach:
        """Return the reach of two rules, one applied to the result of the other."""
        return Reach(self.metres + other.metres, self.cells + other.cells)

    def voxels(self, voxel_size: float) -> int:
        """Return the reach in cells of `voxel_size` metres, rounded up."""
        return self.cells + math.ceil(self.metres / voxel_size - 1e-9)

    def read(self, source: str) -> Read:
        """Return the `Read` of a source this far around a window."""
        return Read(source, metres=self.metres, cells=self.cells)


def widest_reach(*reaches: Reach) -> Reach:
    """Return the smallest reach that contains several others."""
    return Reach(max(reach.metres for reach in reaches), max(reach.cells for reach in reaches))


def require_fit(chains: Mapping[str, Reach], halo: Reach) -> None:
    """Raise FrameError if a chain of rules reaches farther than the halo.

    Parameters
    ----------
    chains : mapping of str to Reach
        By name of the rules.
    halo : Reach
        What the stage reads around its window.
    """
    for name, reach in chains.items():
        if reach.metres > halo.metres or reach.cells > halo.cells:
            raise FrameError(
                f"the rules for {name} reach {reach.metres:g} m and {reach.cells} cells, "
                f"the halo is {halo.metres:g} m and {halo.cells} cells",
                "report it to the plugin's author",
            )
