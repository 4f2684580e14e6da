"""Stages: what a backend is made of. docs/plugins/stages.md explains them with a picture.

A stage computes windows on a lattice that starts at the CRS origin. Window (i, j) has a *core*, the
cells [i * stride, (i + 1) * stride) x [j * stride, (j + 1) * stride), and where `window` is larger
than `stride` a margin around it, which it shares with its neighbours. What a stage reads, it reads
on its window and a halo around. Nothing here depends on the box that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earthgen.errors import PluginError
from earthgen.stages.block import Block, Field, Inputs

if TYPE_CHECKING:
    from earthgen.noise.philox import Noise
    from geo_io.frame import Frame

    Compute = Callable[[Frame, Inputs, Noise], Block]
    Merge = Callable[[Frame, Sequence[tuple[tuple[int, int], Block]]], Block]


@dataclass(frozen=True)
class Read:
    """What a stage reads, and how far beyond its window.

    Attributes
    ----------
    source : a condition, an earlier stage, or "geometry": the last stage of the geometry backend
    metres, cells : the halo; their sum counts, metres rounded up to whole cells of the reading
        stage
    """

    source: str
    metres: float = 0.0
    cells: int = 0

    def halo(self, cell_size: float) -> int:
        """The halo in cells of `cell_size` metres."""
        return self.cells + math.ceil(self.metres / cell_size - 1e-9)


@dataclass(frozen=True)
class Stage:
    """One step of a backend.

    Attributes
    ----------
    name : unique in its chain; its noise is keyed by it
    window : edge of what one call of `compute` makes, cells
    fields : what it makes, by name; sparse fields come with `xyz`
    compute : (frame of the window, inputs by name, noise of this stage) -> Block on that frame; a
        function of its
        arguments alone
    reads : what it needs
    stride : distance between windows, cells; None: `window`, so that windows do not overlap
    scale : a cell is so many voxels wide; 1 for stages on the voxel lattice, 8 for latents at an
        eighth
    parity : of a stage that has only every second window in x and in y: (x % 2, y % 2) of those
    merge : how a reader's frame is put together from windows that overlap in it; None: each cell
        from the window
        whose core holds it. It gets the frame and the (index, Block) of all windows that meet it,
        in the order (y, x) of their index.
    """

    name: str
    window: int
    fields: Mapping[str, Field]
    compute: Compute
    reads: tuple[Read, ...] = ()
    stride: int | None = None
    scale: int = 1
    parity: tuple[int, int] | None = None
    merge: Merge | None = None

    def __post_init__(self) -> None:
        if self.window < 1 or self.step < 1 or self.scale < 1:
            raise PluginError(
                f"stage {self.name!r} has no positive window, stride and scale",
                "correct the plugin",
            )
        if self.step > self.window or (self.window - self.step) % 2:
            raise PluginError(
                f"stage {self.name!r}: window {self.window} has to be its stride {self.step} and an even margin",
                "correct the plugin",
            )

    @property
    def step(self) -> int:
        """Distance between windows, cells."""
        return self.window if self.stride is None else self.stride

    @property
    def margin(self) -> int:
        """How far a window reaches beyond its core, cells."""
        return (self.window - self.step) // 2

    @property
    def pitch(self) -> int:
        """Distance between windows, voxels."""
        return self.step * self.scale

    def frame(self, world: Frame, x: int, y: int) -> Frame:
        """The frame of window (x, y), on cells of this stage."""
        return self.cells(world).tile(x, y, self.step).pad(self.margin)

    def cells(self, frame: Frame) -> Frame:
        """A frame of voxels as the frame of this stage's cells that covers it."""
        return frame.coarsen(self.scale) if self.scale > 1 else frame


def rescale(frame: Frame, source: int, target: int) -> Frame:
    """A frame of cells of `source` voxels as the frame of cells of `target` voxels that covers
    it."""
    from dataclasses import replace

    if source == target:
        return frame
    fine = replace(
        frame,
        voxel_size=frame.voxel_size / source,
        x=(frame.x[0] * source, frame.x[1] * source),
        y=(frame.y[0] * source, frame.y[1] * source),
        z=(frame.z[0] * source, frame.z[1] * source),
    )
    return fine.coarsen(target) if target > 1 else fine
