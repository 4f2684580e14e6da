"""Computes tasks: windows of stages from what they read, and tiles from windows.

A window is always computed whole, from the same inputs and the same noise, whatever box or tile
size is asked for. That is what makes a world a function of the place. The engine knows nothing of
order, workers or disks: what other tasks made comes through a function, `Fetch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.engine.graph import TILE, Graph, Task, make_chain, reads_own
from earthgen.errors import PluginError
from earthgen.noise.philox import Noise
from earthgen.stages.backends import Condition, GeometryBackend, TextureBackend
from earthgen.stages.block import Block, join
from earthgen.stages.stage import Read, Stage, rescale
from earthgen.voxels.pyramid import pyramid
from earthgen.voxels.tile import LEVEL_HALO, LEVELS, Tile, crop_tile, join_tiles
from geo_io.frame import Frame

Fetch = Callable[[Task], Block]
"""Gives the output of another task."""


@dataclass
class TaskStats:
    """What a task took.

    Attributes
    ----------
    seconds : by stage, of its `compute` alone; "conditions" for reading them, "levels" for the
        levels of detail,
        "write" for writing a tile
    clipped : voxels above or below the height band, which were left out
    """

    seconds: dict[str, float] = field(default_factory=dict)
    clipped: int = 0

    def spent(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@dataclass
class Engine:
    """Computes the tasks of one world. It holds settings and opened inputs only, and goes to
    workers pickled.

    `mask` gives, for a frame, the (ny, nx) bool of the cells inside the region; None where all are.
    """

    frame: Frame
    geometry: GeometryBackend
    texture: TextureBackend
    conditions: Mapping[str, Condition]
    noise: Noise
    mask: Callable[[Frame], NDArray] | None = None

    def __post_init__(self) -> None:
        geometry = tuple(self.geometry.stages())
        self.chain = make_chain(geometry, tuple(self.texture.stages(geometry[-1])))

    def graph(self, tile_size: int) -> Graph:
        """The tasks of this world."""
        return Graph(self.chain, self.frame, tile_size)

    def block(
        self, task: Task, graph: Graph, fetch: Fetch, account: TaskStats | None = None
    ) -> Block:
        """The output of a task that is not a tile."""
        return _Work(self, graph, task, fetch, account or TaskStats()).block(
            task.stage, task.x, task.y
        )

    def tile(
        self, tx: int, ty: int, graph: Graph, fetch: Fetch, account: TaskStats | None = None
    ) -> list[Tile]:
        """A tile at all levels, cropped to the world's frame and region."""
        return _Work(self, graph, Task(TILE, tx, ty), fetch, account or TaskStats()).tile()

    def reference(self, tile_size: int) -> Callable[[int, int], list[Tile]]:
        """(tx, ty) -> levels, in memory and one after the other: the plain meaning of all that
        workers do.

        Every output is kept, so it is for small worlds.
        """
        graph = self.graph(tile_size)
        known: dict[Task, Block] = {}

        def fetch(task: Task) -> Block:
            if task not in known:
                known[task] = self.block(task, graph, fetch)
            return known[task]

        return lambda tx, ty: self.tile(tx, ty, graph, fetch)


@dataclass
class _Work:
    """One task: what it has computed and read so far."""

    engine: Engine
    graph: Graph
    task: Task
    fetch: Fetch
    account: TaskStats
    blocks: dict[Task, Block] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)

    def block(self, name: str, x: int, y: int) -> Block:
        """Window (x, y) of a stage: computed here if it belongs to this task, else fetched. Kept
        until the end."""
        key = Task(name, x, y)
        if key not in self.blocks:
            here = name in self.graph.groups[self.task.stage]
            self.blocks[key] = (
                self.compute(self.engine.chain[name], x, y) if here else self.fetch(key)
            )
        return self.blocks[key]

    def compute(self, stage: Stage, x: int, y: int) -> Block:
        engine = self.engine
        window = stage.frame(engine.frame, x, y)
        inputs = {}
        for read in stage.reads:
            if read.source in engine.chain:
                inputs[read.source] = self.read(read, window, x, y, stage)
            elif read.source in engine.conditions:
                inputs[read.source] = self.condition(
                    read.source, window.pad(read.halo(window.voxel_size)), stage, x, y
                )
        began = time.perf_counter()
        block = stage.compute(window, inputs, engine.noise.of_stage(stage.name))
        self.account.spent(stage.name, began)
        if block.frame != window:
            raise PluginError(
                f"stage {stage.name!r} gave a block on {block.frame} for {window}",
                "report it to the plugin's author",
            )
        block.require(stage.fields, stage.name)
        return self.banded(block, stage, x, y) if stage.name == engine.chain.geometry else block

    def condition(self, name: str, frame: Frame, stage: Stage, x: int, y: int) -> Any:
        """A condition on a frame. The stages of one task read it once, as widely as the widest
        of them."""
        began = time.perf_counter()
        source = self.engine.conditions[name]
        if stage.scale == 1 and name not in self.layers:
            core = self.engine.frame.tile(x, y, stage.step)
            self.layers[name] = source.read(core.pad(self.width(name)))
        layer = (
            self.layers[name]
            if stage.scale == 1 and _holds(self.layers[name].frame, frame)
            else source.read(frame)
        )
        layer = layer if layer.frame == frame else layer.crop(frame)
        self.account.spent("conditions", began)
        return layer

    def width(self, condition: str) -> int:
        """How far around a core the stages of this task on the voxel lattice read a condition,
        voxels."""
        stages = [self.engine.chain[name] for name in self.graph.groups[self.task.stage]]
        size = self.engine.frame.voxel_size
        reads = ((stage, read) for stage in stages if stage.scale == 1 for read in stage.reads)
        return max(
            stage.margin + read.halo(size) for stage, read in reads if read.source == condition
        )

    def read(self, read: Read, window: Frame, x: int, y: int, stage: Stage) -> Block:
        """What window (x, y) of `stage` reads of another stage."""
        source = self.engine.chain[read.source]
        wanted = rescale(window.pad(read.halo(window.voxel_size)), stage.scale, source.scale)
        if reads_own(stage, read, source, self.engine.frame.voxel_size):
            return self.block(source.name, x, y).crop(wanted)
        return self.gather(source, wanted)

    def gather(self, source: Stage, wanted: Frame) -> Block:
        """The output of a stage on any frame of its cells, from all windows that it takes."""
        parts = []
        reach = source.margin if source.merge is not None else 0
        for x, y in wanted.pad(reach).tiles(source.step):
            if source.parity is not None and (x % 2, y % 2) != source.parity:
                continue
            core = source.cells(self.engine.frame).tile(x, y, source.step).pad(reach)
            meet = core.intersection(wanted)
            if meet is not None:
                parts.append(((x, y), self.block(source.name, x, y).crop(meet)))
        return (
            source.merge(wanted, parts)
            if source.merge is not None
            else join(wanted, [block for _, block in parts])
        )

    def banded(self, block: Block, stage: Stage, x: int, y: int) -> Block:
        """The geometry without what lies above or below the height band; an error where it
        leaves its window."""
        window = block.frame
        if block.xyz is None or not _inside(block.xyz, window):
            raise PluginError(
                f"stage {stage.name!r} put voxels outside its window",
                "report it to the plugin's author",
            )
        z = block.xyz[:, 2]
        keep = (z >= window.z[0]) & (z < window.z[1])
        if keep.all():
            return block
        gone = (
            Block(window, {}, block.xyz[~keep]).crop(self.engine.frame.tile(x, y, stage.step)).xyz
        )
        self.account.clipped += 0 if gone is None else len(gone)
        return Block(
            window,
            block.dense,
            block.xyz[keep],
            {name: a[keep] for name, a in block.sparse.items()},
        )

    def tile(self) -> list[Tile]:
        engine, chain = self.engine, self.engine.chain
        geometry, texture = chain[chain.geometry], chain[chain.texture]
        whole = aligned(engine.frame)
        frame = engine.frame.tile(self.task.x, self.task.y, self.graph.tile_size).intersection(
            whole
        )
        if frame is None:
            raise ValueError(f"tile ({self.task.x}, {self.task.y}) lies outside {engine.frame}")
        inside = engine.mask(frame) if engine.mask is not None else None
        pieces: list[list[Tile]] = []
        for x, y in frame.tiles(geometry.step):
            piece = frame.tile(x, y, geometry.step).intersection(frame)
            assert piece is not None  # the lattice says that they meet
            around = piece.pad(LEVEL_HALO)
            if geometry.margin >= LEVEL_HALO:
                solid = self.block(geometry.name, x, y).crop(around)
            else:
                solid = self.gather(geometry, around)
            colours = self.block(texture.name, x, y).crop(piece)
            began = time.perf_counter()
            pieces.append(pyramid(piece, solid, colours))
            self.account.spent("levels", began)
            if self.graph.tile_size != geometry.pitch:
                self.blocks.clear()  # a large tile has many windows
                self.layers.clear()
        levels = []
        began = time.perf_counter()
        for n, level in enumerate(LEVELS):
            full = join_tiles(rescale(frame, 1, level), [tiles[n] for tiles in pieces])
            world = rescale(engine.frame, 1, level)
            part = full.frame.intersection(world)
            assert part is not None
            levels.append(crop_tile(full, part, _mask_on(inside, frame, part, level)))
        self.account.spent("levels", began)
        return levels


def aligned(frame: Frame) -> Frame:
    """The frame of the whole coarsest cells that cover this one."""
    return rescale(frame.coarsen(LEVELS[-1]), LEVELS[-1], 1)


def _mask_on(inside: NDArray | None, frame: Frame, part: Frame, level: int) -> NDArray | None:
    """The mask (ny, nx) of a level-1 frame on a part of it at a level: a coarse cell is in if a
    child of it is."""
    if inside is None:
        return None
    ny, nx = frame.ny // level, frame.nx // level
    coarse = np.asarray(inside.reshape(ny, level, nx, level).any(axis=(1, 3)))
    return np.asarray(coarse[rescale(frame, 1, level).slices(part)])


def _holds(outer: Frame, inner: Frame) -> bool:
    return (
        outer.x[0] <= inner.x[0]
        and inner.x[1] <= outer.x[1]
        and outer.y[0] <= inner.y[0]
        and inner.y[1] <= outer.y[1]
    )


def _inside(xyz: NDArray, frame: Frame) -> bool:
    if not len(xyz):
        return True
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    return bool(
        low[0] >= frame.x[0]
        and high[0] < frame.x[1]
        and low[1] >= frame.y[0]
        and high[1] < frame.y[1]
    )
