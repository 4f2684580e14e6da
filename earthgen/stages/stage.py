"""Stages: the steps of a backend. docs/plugins/stages.md explains them with a picture.

A stage computes windows on a lattice that starts at the CRS origin. Window (i, j) has a *core*, the
cells [i * stride, (i + 1) * stride) x [j * stride, (j + 1) * stride). Where `window` is larger than
`stride`, a margin surrounds the core and is shared with the neighbours. A stage reads its inputs on
its window and a halo around it. Nothing here depends on the bounding box of the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from earthgen.errors import PluginError
from earthgen.noise.philox import Noise as Noise
from earthgen.stages.block import Block, Field, Inputs
from geo_io.frame import Frame as Frame

Compute = Callable[[Frame, Inputs, Noise], Block]
Merge = Callable[[Frame, Sequence[tuple[tuple[int, int], Block]]], Block]

AS_READ = 0
"""The window of a stage that is made on the windows of its readers, as wide as these read it."""


@dataclass(frozen=True)
class Read:
    """An input of a stage, and how far beyond the window it is read.

    `Read("dem", metres=50.0)` gives the stage the terrain of its window and of 50 m around it.

    Attributes
    ----------
    source : str
        A condition, an earlier stage, or "geometry": the last stage of the geometry backend.
    metres : float
        Width of the halo; rounded up to whole cells of the stage that reads.
    cells : int
        Cells added to that.
    """

    source: str
    metres: float = 0.0
    cells: int = 0

    def halo(self, cell_size: float) -> int:
        """Return the width of the halo in cells of `cell_size` metres."""
        return self.cells + math.ceil(self.metres / cell_size - 1e-9)


@dataclass(frozen=True)
class Stage:
    """One step of a backend: a function that computes one window.

    A stage that smooths the terrain of windows of 256 cells::

        def smooth(window, inputs, noise):
            around = inputs["dem"].data  # the window and 4 cells on each side
            height = scipy.ndimage.uniform_filter(around, 9)[4:-4, 4:-4]
            return Block(window, {"height": height})


        stage = Stage(
            "smooth", 256, {"height": Field("float32")}, smooth, reads=(Read("dem", cells=4),)
        )

    Attributes
    ----------
    name : str
        Unique in its chain; keys its noise.
    window : int
        Edge of the window that one call of `compute` makes, cells. `AS_READ`: that of the stages
        that read it, and around it all that they read, whatever the size of a voxel. So it is
        computed in one task with them, if they are one.
    fields : mapping of str to Field
        The result of `compute`, by name; sparse fields come with `xyz`.
    compute : callable
        (window, inputs, noise) to a Block on the frame `window`: a function of its arguments
        alone. `inputs` has a Block or layer for each of `reads`; `noise` is that of this stage.
    reads : tuple of Read
        The inputs.
    stride : int or None
        Distance between windows, cells. None: `window`, so that windows do not overlap.
    scale : int
        Width of a cell in voxels: 1 for stages on the voxel lattice, 8 for latents at an eighth.
    parity : tuple of int or None
        (x % 2, y % 2) of the windows of a stage that has only every second window along x and y.
    merge : callable or None
        Joins windows that overlap in the frame of a reader: it gets that frame and (index, Block)
        of all windows that meet it, sorted by (y, x) of the index. None: each cell is taken from
        the window whose core holds it.
    overlap : int or None
        Of a stage with `merge`: cells around its core in which a window counts. Windows that only
        meet a reader beyond them are neither computed nor read. None: the whole margin.

    Raises
    ------
    PluginError
        If window, stride and scale are not positive, the margin is uneven or negative, the
        overlap is beyond the margin, or a window `AS_READ` comes with a stride, scale or `merge`.
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
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.window == AS_READ:
            if (self.stride, self.scale, self.parity, self.merge) != (None, 1, None, None):
                raise PluginError(
                    f"stage {self.name!r}: a window AS_READ takes its lattice from its readers",
                    "leave out stride, scale, parity and merge: correct the plugin",
                )
            return
        if self.window < 1 or self.step < 1 or self.scale < 1:
            raise PluginError(
                f"stage {self.name!r}: window, stride and scale must be positive",
                "correct the plugin",
            )
        if self.step > self.window or (self.window - self.step) % 2:
            raise PluginError(
                f"stage {self.name!r}: window {self.window} minus stride {self.step} must be even "
                "and not negative",
                "correct the plugin",
            )
        if self.overlap is not None and not 0 <= self.overlap <= self.margin:
            raise PluginError(
                f"stage {self.name!r}: an overlap of {self.overlap} cells does not fit a margin of "
                f"{self.margin}",
                "correct the plugin",
            )

    @property
    def step(self) -> int:
        """Distance between windows, cells."""
        return self.window if self.stride is None else self.stride

    @property
    def margin(self) -> int:
        """Distance from the edge of a window to its core, cells."""
        return (self.window - self.step) // 2

    @property
    def counted(self) -> int:
        """Cells around its core in which a window counts for readers: 0 without `merge`."""
        if self.merge is None:
            return 0
        return self.margin if self.overlap is None else self.overlap

    @property
    def pitch(self) -> int:
        """Distance between windows, voxels."""
        return self.step * self.scale

    def frame(self, world: Frame, x: int, y: int) -> Frame:
        """Return the frame of window (x, y), on cells of this stage.

        Parameters
        ----------
        world : Frame
            Any frame of voxels of the world; gives the lattice.
        x, y : int
            Index of the window.
        """
        return self.cells(world).tile(x, y, self.step).pad(self.margin)

    def cells(self, frame: Frame) -> Frame:
        """Return the frame of this stage's cells that covers a frame of voxels."""
        return frame.coarsen(self.scale) if self.scale > 1 else frame


def rescale(frame: Frame, source: int, target: int) -> Frame:
    """Return the frame of cells of `target` voxels that covers a frame of cells of `source`."""
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
