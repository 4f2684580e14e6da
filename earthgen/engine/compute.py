"""Computes tasks: windows of stages from what they read, and tiles from windows.

A window is always computed whole, from the same inputs and the same noise, whatever box or tile
size is asked for. That is what makes a world a function of the place. The engine knows nothing of
order, workers or disks: the output of other tasks comes through a function, `Fetch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.engine.graph import TILE, Graph, Task, make_chain, reads_own
from earthgen.errors import EarthgenError, PluginError
from earthgen.noise.philox import Noise
from earthgen.stages.backends import Condition, GeometryBackend, TextureBackend
from earthgen.stages.block import Block, join
from earthgen.stages.stage import Read, Stage, rescale
from earthgen.voxels.pyramid import LEVEL_HALO, build_pyramid
from earthgen.voxels.tile import LEVELS, Tile, crop_tile, join_tiles
from geo_io.frame import Frame

Fetch = Callable[[Task], Block]
"""Gives the output of another task."""


@dataclass
class TaskStats:
    """What a task took.

    Attributes
    ----------
    seconds : dict of str to float
        Per stage, for its `compute` alone; "conditions" for reading inputs, "levels" for the levels
        of detail, "write" for writing a tile.
    clipped : int
        Voxels above or below the height band, which were left out.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    clipped: int = 0

    def spent(self, name: str, began: float) -> None:
        """Add the time since `began` (of `time.perf_counter`) to a name."""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@dataclass
class Engine:
    """Computes the tasks of one world.

    It holds settings and opened inputs only, and is pickled to workers.

    Attributes
    ----------
    frame : Frame
        Of the world.
    geometry, texture : GeometryBackend, TextureBackend
    conditions : mapping of str to Condition
    noise : Noise
    mask : callable, optional
        Gives, for a frame, the (ny, nx) bool of the cells inside the region; None where all are.
    """

    frame: Frame
    geometry: GeometryBackend
    texture: TextureBackend
    conditions: Mapping[str, Condition]
    noise: Noise
    mask: Callable[[Frame], NDArray] | None = None

    def __post_init__(self) -> None:
        geometry = tuple(self.geometry.stages())
        texture = tuple(self.texture.stages(geometry[-1]))
        self.chain = make_chain(geometry, texture, self.frame.voxel_size)

    def graph(self, tile_size: int) -> Graph:
        """Return the tasks of this world with tiles of `tile_size` voxels."""
        return Graph(self.chain, self.frame, tile_size)

    def block(
        self, task: Task, graph: Graph, fetch: Fetch, stats: TaskStats | None = None
    ) -> Block:
        """Compute the output of a task that is not a tile."""
        work = _Work(self, graph.groups[task.stage], fetch, stats or TaskStats())
        return work.block(task.stage, task.x, task.y)

    def tile(
        self, task: Task, graph: Graph, fetch: Fetch, stats: TaskStats | None = None
    ) -> list[Tile]:
        """Compute a tile at all levels, cropped to the world's frame and region."""
        work = _Work(self, graph.groups[TILE], fetch, stats or TaskStats())
        return work.tile(task.x, task.y, graph.tile_size)

    def window(
        self, stage: str, frame: Frame, outputs: MutableMapping[Task, Block] | None = None
    ) -> Block:
        """Compute the output of a stage on any frame, without a graph, workers or a store.

        Parameters
        ----------
        stage : str
            Name of a stage; "geometry" for the last one of the geometry backend.
        frame : Frame
            On the lattice of the stage.
        outputs : mutable mapping of Task to Block, optional
            Windows computed before; read and filled. A `cachetools.LRUCache` bounds the memory.

        Returns
        -------
        Block
            On `frame`.

        Raises
        ------
        KeyError
            If there is no such stage.
        PluginError
            If a stage does not give what it declares.
        """
        outputs = {} if outputs is None else outputs

        def fetch(task: Task) -> Block:
            block = outputs.get(task)
            if block is None:
                block = _Work(self, (task.stage,), fetch, TaskStats()).block(*task)
                with suppress(ValueError):  # larger than the whole cache
                    outputs[task] = block
            return block

        return _Work(self, (), fetch, TaskStats()).gather(self.chain[stage], frame)

    def reference(self, tile_size: int) -> Callable[[int, int], list[Tile]]:
        """Return a function (tx, ty) -> levels that works in memory, one tile after the other.

        It is the plain meaning of all that workers do. Every output is kept, so it is for small
        worlds.
        """
        graph = self.graph(tile_size)
        outputs: dict[Task, Block] = {}

        def fetch(task: Task) -> Block:
            if task not in outputs:
                outputs[task] = self.block(task, graph, fetch)
            return outputs[task]

        return lambda tx, ty: self.tile(Task(TILE, tx, ty), graph, fetch)


@dataclass
class _Work:
    """One task in progress: what it has computed and read so far.

    `group` names the stages that are computed here; the output of the others is fetched.
    """

    engine: Engine
    group: tuple[str, ...]
    fetch: Fetch
    stats: TaskStats
    blocks: dict[Task, Block] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)

    def block(self, name: str, x: int, y: int) -> Block:
        """Window (x, y) of a stage, computed or fetched once."""
        key = Task(name, x, y)
        if key not in self.blocks:
            here = name in self.group
            stage = self.engine.chain[name]
            self.blocks[key] = self.compute(stage, x, y) if here else self.fetch(key)
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
        try:
            block = stage.compute(window, inputs, engine.noise.of_stage(stage.name))
        except (EarthgenError, MemoryError):
            raise
        except Exception as error:
            raise PluginError(
                f"stage {stage.name!r} failed on {window}: {type(error).__name__}: {error}",
                "report it to the author of the backend",
            ) from error
        self.stats.spent(stage.name, began)
        if block.frame != window:
            raise PluginError(
                f"stage {stage.name!r} gave a block on {block.frame} for {window}",
                "report it to the plugin's author",
            )
        block.require(stage.fields, stage.name)
        return self.banded(block, stage, x, y) if stage.name == engine.chain.geometry else block

    def condition(self, name: str, frame: Frame, stage: Stage, x: int, y: int) -> Any:
        """A condition on a frame. The stages of one task read it once, as widely as the widest."""
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
        self.stats.spent("conditions", began)
        return layer

    def width(self, condition: str) -> int:
        """How far around a core, in voxels, stages on the voxel lattice read a condition."""
        stages = [self.engine.chain[name] for name in self.group]
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
        """The output of a stage on any frame of its cells, from all windows that meet it."""
        parts = []
        reach = source.counted
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
        """The geometry without the voxels above or below the height band.

        Raises PluginError if voxels lie outside the window.
        """
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
        core = self.engine.frame.tile(x, y, stage.step)
        outside = Block(window, {}, block.xyz[~keep]).crop(core).xyz
        self.stats.clipped += 0 if outside is None else len(outside)
        return Block(
            window,
            block.dense,
            block.xyz[keep],
            {name: a[keep] for name, a in block.sparse.items()},
        )

    def tile(self, tx: int, ty: int, tile_size: int) -> list[Tile]:
        """All levels of a tile."""
        engine, chain = self.engine, self.engine.chain
        geometry, texture = chain[chain.geometry], chain[chain.texture]
        whole = aligned(engine.frame)
        frame = engine.frame.tile(tx, ty, tile_size).intersection(whole)
        if frame is None:
            raise ValueError(f"tile ({tx}, {ty}) lies outside {engine.frame}")
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
            pieces.append(build_pyramid(piece, solid, colours))
            self.stats.spent("levels", began)
            if tile_size != geometry.pitch:
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
        self.stats.spent("levels", began)
        return levels


def aligned(frame: Frame) -> Frame:
    """The frame of the whole coarsest cells that cover this one."""
    return rescale(frame.coarsen(LEVELS[-1]), LEVELS[-1], 1)


def _mask_on(inside: NDArray | None, frame: Frame, part: Frame, level: int) -> NDArray | None:
    """The mask (ny, nx) of a level-1 frame on a part of it at a level.

    A coarse cell is inside if any of its children is.
    """
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
