"""Contour lines of the ground of a world, joined across tiles.

Lines run between the centres of cells. Neighbouring tiles compute the points on the line between
their cells from the same two heights, so that the ends of their lines are equal, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString

from earthgen.world.selection import Selection

if TYPE_CHECKING:
    from earthgen.world.world import World

SMOOTH = 0.1
"""Cells by which a line may be moved to have fewer points."""

SHORT = 4.0
"""Cells: shorter lines are left out, such as rings around a single cell."""


ROUNDING = 1e-6
"""Cells by which a point on a line of the grid may miss it."""


@dataclass(frozen=True)
class Contour:
    """A contour line.

    Attributes
    ----------
    height : float
        Metres, absolute.
    line : NDArray (n, 2) float64
        CRS metres; higher ground is to its left. A closed line ends where it begins.
    """

    height: float
    line: NDArray


def world_contours(world: World, selection: Selection, interval: float) -> Iterator[list[Contour]]:
    """Yield the contour lines of the ground within a selection.

    Parameters
    ----------
    world : World
    selection : Selection
    interval : float
        Metres between two lines.

    Yields
    ------
    list of Contour
        After each tile those that are complete, by height and place.
    """
    frame, size = selection.frame, selection.frame.voxel_size
    reader = world.layers(selection.level)["ground"]
    whole = world.level_frame(selection.level)
    joiner = _Joiner(selection)
    for tile in selection.tiles:
        part = selection.tile(world, *tile)
        assert part is not None  # the selection has only tiles that it meets
        # One more row and column: the cells between two tiles belong to the one before.
        east = min(part.x[1] + 1, frame.x[1])
        north = min(part.y[1] + 1, frame.y[1])
        wide = type(frame)(
            frame.crs, size, (part.x[0], east), (part.y[0], north), frame.z, frame.vertical_crs
        )
        rows, columns = whole.slices(wide)
        ground = np.asarray(reader[rows, columns].values, np.float64)[::-1]
        lines = []
        if min(ground.shape) >= 2 and np.isfinite(ground).any():
            x, y = np.arange(*wide.x) + 0.5, np.arange(*wide.y) + 0.5
            lines = _lines(x, y, ground, interval)
        joined = joiner.add(tile, part.x, part.y, lines)
        done = [(height, LineString(line)) for height, line in joined]
        yield [
            Contour(height, shapely.get_coordinates(line.simplify(SMOOTH)) * size)
            for height, line in done
            if line.length >= SHORT
        ]


def _lines(x: NDArray, y: NDArray, ground: NDArray, interval: float) -> list[tuple[float, NDArray]]:
    """Lines through a grid, in lattice indices."""
    masked = np.ma.masked_invalid(ground)
    maker = contourpy.contour_generator(x, y, masked, name="serial")
    first = math.ceil(float(masked.min()) / interval)
    last = math.floor(float(masked.max()) / interval)
    lines: list[tuple[float, NDArray]] = []
    for step in range(first, last + 1):
        found: Any = maker.lines(step * interval)  # a list of arrays by default
        for line in found:
            if len(line) < 2 or (line == line[0]).all():
                continue
            if (line[0] != line[-1]).any():
                for end in (0, -1):
                    line[end] = _exact(line[end], x, y, ground, step * interval)
            lines.append((step * interval, line))
    return lines


def _exact(at: NDArray, x: NDArray, y: NDArray, ground: NDArray, height: float) -> NDArray:
    """The end of a line on a side of the grid, computed alike from both sides of a border."""
    column, row = round(at[0] - x[0]), round(at[1] - y[0])
    off_column, off_row = abs(at[0] - x[column]), abs(at[1] - y[row])
    if off_column < ROUNDING:
        if off_row < ROUNDING:
            return np.array([x[column], y[row]])
        row = int(at[1] - y[0])
        low, high = ground[row : row + 2, column]
        return np.array([x[column], y[row] + (height - low) / (high - low)])
    if off_row < ROUNDING:
        column = int(at[0] - x[0])
        low, high = ground[row, column : column + 2]
        return np.array([x[column] + (height - low) / (high - low), y[row]])
    return at


Tile = tuple[int, int]
End = tuple[float, float, float]
"""Height and place of the end of a line."""


@dataclass(eq=False)
class _Open:
    """A line in parts, and the tiles in which it may go on before its start and after its end."""

    height: float
    parts: list[NDArray]
    before: set[Tile]
    after: set[Tile]

    @property
    def start(self) -> End:
        return (self.height, *self.parts[0][0].tolist())

    @property
    def end(self) -> End:
        return (self.height, *self.parts[-1][-1].tolist())

    def whole(self) -> NDArray:
        """The points, each once."""
        first, *rest = self.parts
        return np.concatenate([first, *(part[1:] for part in rest)])


class _Joiner:
    """Joins lines whose ends are equal; those that may go on in a tile to come are held.

    Higher ground is to the left of all lines, so a line goes on where another one starts.
    """

    def __init__(self, selection: Selection) -> None:
        self.tiles = set(selection.tiles)
        self.read: set[Tile] = set()
        self.by_start: dict[End, _Open] = {}
        self.by_end: dict[End, _Open] = {}

    def add(
        self,
        tile: Tile,
        x: tuple[int, int],
        y: tuple[int, int],
        lines: list[tuple[float, NDArray]],
    ) -> list[tuple[float, NDArray]]:
        """Take the lines of a tile on columns `x` and rows `y`; those that are complete."""
        self.read.add(tile)
        done: list[tuple[float, NDArray]] = []
        for height, line in lines:
            if (line[0] == line[-1]).all():
                done.append((height, line))
                continue
            me = _Open(
                height,
                [line],
                self._ahead(tile, x, y, line[0]),
                self._ahead(tile, x, y, line[-1]),
            )
            before = self.by_end.pop(me.start, None)
            if before is not None:
                del self.by_start[before.start]
                me.parts, me.before = before.parts + me.parts, before.before
            if me.start == me.end:
                done.append((height, me.whole()))
                continue
            after = self.by_start.pop(me.end, None)
            if after is not None:
                del self.by_end[after.end]
                me.parts, me.after = me.parts + after.parts, after.after
            if me.start == me.end:
                done.append((height, me.whole()))
                continue
            if me.start in self.by_start or me.end in self.by_end:
                # Two lines through one node of the grid: one of them is not joined any more.
                done.append((height, me.whole()))
                continue
            self.by_start[me.start], self.by_end[me.end] = me, me
        for held in list(self.by_start.values()):
            if held.before | held.after <= self.read:
                del self.by_start[held.start], self.by_end[held.end]
                done.append((held.height, held.whole()))
        return sorted(done, key=lambda item: (item[0], *item[1][0].tolist()))

    def _ahead(self, tile: Tile, x: tuple[int, int], y: tuple[int, int], at: NDArray) -> set[Tile]:
        """The tiles to come in which a line may go on at one of its ends."""
        east, north = at[0] == x[1] + 0.5, at[1] == y[1] + 0.5
        tx, ty = tile
        ways = {(tx + 1, ty)} if east else set()
        ways |= {(tx, ty + 1)} if north else set()
        ways |= {(tx + 1, ty + 1)} if east and north else set()
        return (ways & self.tiles) - self.read
