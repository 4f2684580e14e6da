"""The task graph of a world: a task a (stage, window), and the tiles at its end. It is never held
whole.

A graph is arithmetic: which windows a task needs, and which tasks use its output, follow from the
stages' lattices. Stages whose reader reads exactly their own window are *fused* into one task with
it, and their output is never written. `Walk` goes through the tasks in an order in which each comes
after what it needs, and knows when an output is no longer needed; it holds the tasks around the
front alone, whatever the size of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from earthgen.errors import PluginError
from earthgen.stages.stage import Read, Stage
from earthgen.voxels.tile import LEVEL_HALO, LEVELS
from geo_io.frame import Frame

TILE = "tile"
"""The name of the last tasks: they put a tile together from the windows of geometry and texture,
and write it."""

GEOMETRY = "geometry"
"""What the last stage of the geometry backend is called by its readers."""

BLOCK = 16
"""Tiles are visited in blocks of so many by so many, so that few windows wait for their last
reader."""

Range = tuple[int, int]


class Task(NamedTuple):
    """Window (x, y) of a stage and of those fused into it, or a tile."""

    stage: str
    x: int
    y: int


@dataclass(frozen=True)
class Dependency:
    """What the tasks of one group read of the stage at the end of another.

    Attributes
    ----------
    source, reader : groups
    pad : voxels around the reader's core; None where a window reads the window of the same index
        alone
    reach : voxels around a source's core that count as its window: its margin where windows are
        merged, else 0
    cropped : whether a tile at the world's border reads no more than what lies in the world; stages
        that are fused
        into a tile are computed on whole windows
    """

    source: str
    reader: str
    pad: int | None
    reach: int = 0
    cropped: bool = False


@dataclass(frozen=True)
class Chain:
    """The stages of a geometry and a texture backend, checked.

    Attributes
    ----------
    stages : in an order in which each comes after those it reads
    geometry, texture : names of the stages whose output the tiles are made of
    """

    stages: tuple[Stage, ...]
    geometry: str
    texture: str

    def __getitem__(self, name: str) -> Stage:
        return next(
            stage
            for stage in self.stages
            if stage.name == (self.geometry if name == GEOMETRY else name)
        )

    def __contains__(self, name: str) -> bool:
        return name == GEOMETRY or any(stage.name == name for stage in self.stages)


def make_chain(geometry: Sequence[Stage], texture: Sequence[Stage]) -> Chain:
    """The chain of two backends.

    Raises
    ------
    PluginError
        if a name repeats, a stage is read before it is made, or the lattices cannot carry the
        levels of detail
    """
    stages = (*geometry, *texture)
    chain = Chain(stages, geometry[-1].name, texture[-1].name)
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1 or name in (TILE, GEOMETRY):
            raise PluginError(
                f"two stages are called {name!r}",
                "stage names have to be unique: correct the plugin",
            )
    for n, stage in enumerate(stages):
        for read in stage.reads:
            if read.source in names[n:] or (read.source == GEOMETRY and n < len(geometry)):
                raise PluginError(
                    f"stage {stage.name!r} reads {read.source!r}, which comes later",
                    "correct the plugin",
                )
        readers = [read for later in stages[n + 1 :] for read in later.reads]
        if stage not in (geometry[-1], texture[-1]) and not any(
            read.source == stage.name for read in readers
        ):
            raise PluginError(f"nothing reads stage {stage.name!r}", "correct the plugin")
    for stage in (chain[chain.geometry], chain[chain.texture]):
        if (
            stage.scale != 1
            or stage.step % LEVELS[-1]
            or stage.merge is not None
            or stage.parity is not None
        ):
            raise PluginError(
                f"stage {stage.name!r} gives voxels: its scale has to be 1, its stride a multiple of {LEVELS[-1]}, "
                "and its windows are not merged",
                "correct the plugin",
            )
    if chain[chain.geometry].step != chain[chain.texture].step:
        raise PluginError(
            f"texture {texture[-1].name!r} has stride {texture[-1].step}, geometry {geometry[-1].name!r} "
            f"{geometry[-1].step}",
            "texture stages take the stride of the geometry they are created for: correct the plugin",
        )
    return chain


def reads_own(reader: Stage, read: Read, source: Stage, voxel_size: float) -> bool:
    """Whether a window of `reader` needs the window of the same index of `source` alone: it
    holds all that is read."""
    halo = (reader.margin + read.halo(voxel_size * reader.scale)) * reader.scale
    return (
        source.merge is None
        and source.parity is None
        and reader.parity is None
        and reader.pitch == source.pitch
        and halo <= source.margin * source.scale
    )


class Graph:
    """The tasks of a world on `frame` with tiles of `tile_size` voxels."""

    def __init__(self, chain: Chain, frame: Frame, tile_size: int) -> None:
        self.chain = chain
        self.frame = frame
        self.tile_size = tile_size
        self.groups = _groups(chain, tile_size, frame.voxel_size)
        self.pitch = {
            name: tile_size if name == TILE else chain[name].pitch for name in self.groups
        }
        links = _links(chain, self.groups, frame.voxel_size)
        # By group: the links to what it reads, or to what reads it, and the group at their other
        # end.
        self._sources = {
            name: [(link, link.source) for link in links if link.reader == name]
            for name in self.groups
        }
        self._readers = {
            name: [(link, link.reader) for link in links if link.source == name]
            for name in self.groups
        }
        self._parity = {name: None if name == TILE else chain[name].parity for name in self.groups}
        self.range = self._ranges()

    def _ranges(self) -> dict[str, tuple[Range, Range]]:
        """By group: the ranges of windows in x and y that the world needs."""
        ranges: dict[str, tuple[Range, Range]] = {}
        for name in self.groups:  # the tiles first, then back to the first stage
            if name == TILE:
                # Coarse cells at the border show all of their children, so whole ones are made.
                ranges[name] = tuple(
                    _span(low, high, self.tile_size) for low, high in (self.frame.x, self.frame.y)
                )  # type: ignore[assignment]
                continue
            found = []
            for link, _ in self._readers[name]:
                spans = []
                for axis, limits in enumerate((self.frame.x, self.frame.y)):
                    low, high = ranges[link.reader][axis]
                    pitch = self.pitch[link.reader]
                    low, high = low * pitch, high * pitch
                    if link.cropped:
                        low, high = (edge * LEVELS[-1] for edge in _span(*limits, LEVELS[-1]))
                    spans.append(
                        _span(
                            low - (link.pad or 0) - link.reach,
                            high + (link.pad or 0) + link.reach,
                            self.pitch[name],
                        )
                    )
                found.append(spans)
            west, south = (min(spans[axis][0] for spans in found) for axis in (0, 1))
            east, north = (max(spans[axis][1] for spans in found) for axis in (0, 1))
            parity = self._parity[name]
            if parity is not None:  # the outermost ones that are there
                west, east = _of_parity(west, east, parity[0])
                south, north = _of_parity(south, north, parity[1])
            ranges[name] = (west, east), (south, north)
        return ranges

    def needs(self, task: Task) -> list[Task]:
        """The tasks whose output this one reads."""
        return self._across(task, self._sources[task.stage])

    def users(self, task: Task) -> list[Task]:
        """The tasks that read the output of this one."""
        return self._across(task, self._readers[task.stage])

    def _across(self, task: Task, links: list[tuple[Dependency, str]]) -> list[Task]:
        """The tasks at the other end of links."""
        found: dict[Task, None] = {}
        pitch = self.pitch[task.stage]
        for link, other in links:
            xs, ys = (
                self._windows(other, axis, index * pitch, (index + 1) * pitch, link)
                for axis, index in ((0, task.x), (1, task.y))
            )
            self._collect(found, other, xs, ys)
        return list(found)

    def _windows(self, name: str, axis: int, low: int, high: int, link: Dependency) -> Range:
        """The windows of a group that the world needs and that meet [low, high) with what is read
        around.

        Where a window reads that of the same index alone, both lattices are the same.
        """
        wide = (link.pad or 0) + link.reach
        first, last = _span(low - wide, high + wide, self.pitch[name])
        need = self.range[name][axis]
        return max(first, need[0]), min(last, need[1])

    def _collect(self, found: dict[Task, None], name: str, xs: Range, ys: Range) -> None:
        parity = self._parity[name]
        for y in range(*ys):
            for x in range(*xs):
                if parity is None or (x % 2, y % 2) == parity:
                    found[Task(name, x, y)] = None

    def tiles(self) -> Iterator[Task]:
        """The tiles, block by block and row by row from the south-west."""
        (west, east), (south, north) = self.range[TILE]
        for block_y in range(south // BLOCK, -(-north // BLOCK)):
            for block_x in range(west // BLOCK, -(-east // BLOCK)):
                for y in range(max(south, block_y * BLOCK), min(north, (block_y + 1) * BLOCK)):
                    for x in range(max(west, block_x * BLOCK), min(east, (block_x + 1) * BLOCK)):
                        yield Task(TILE, x, y)

    def counts(self) -> dict[str, int]:
        """Number of tasks by group, from the first stage to the tiles."""
        return {name: self._count(name) for name in reversed(self.groups)}

    def _count(self, name: str) -> int:
        parity = self._parity[name]
        if parity is None:
            return _length(self.range[name][0]) * _length(self.range[name][1])
        return int(
            sum(x % 2 == parity[0] for x in range(*self.range[name][0]))
            * sum(y % 2 == parity[1] for y in range(*self.range[name][1]))
        )


def _length(span: Range) -> int:
    return max(span[1] - span[0], 0)


def _span(low: int, high: int, pitch: int) -> Range:
    """The cells of a lattice that meet [low, high)."""
    return low // pitch, -(-high // pitch)


def _of_parity(low: int, high: int, parity: int) -> Range:
    """[low, high) without the windows of the other parity at its ends."""
    return low + (low - parity) % 2, high - (high - 1 - parity) % 2


def _groups(chain: Chain, tile_size: int, voxel_size: float) -> dict[str, tuple[str, ...]]:
    """By name of its last stage, from the tiles back to the first: the stages of each group in
    order.

    A stage joins the group of its readers where all are in one group and read its own window; it is
    then computed as often as before, and nothing of it is written.
    """
    group: dict[str, str] = {}
    members: dict[str, list[str]] = {TILE: []}
    for stage in reversed(chain.stages):
        homes, own = set(), True
        for reader in chain.stages:
            for read in reader.reads:
                if read.source in chain and chain[read.source] is stage:
                    homes.add(group[reader.name])
                    own &= reads_own(reader, read, stage, voxel_size)
        if stage.name in (chain.geometry, chain.texture):
            homes.add(TILE)
            own &= stage.pitch == tile_size
            own &= stage.name == chain.texture or stage.margin >= LEVEL_HALO
        if len(homes) == 1 and own:
            group[stage.name] = homes.pop()
        else:
            group[stage.name] = stage.name
            members[stage.name] = []
        members[group[stage.name]].insert(0, stage.name)
    return {name: tuple(stages) for name, stages in members.items()}


def _links(chain: Chain, groups: dict[str, tuple[str, ...]], voxel_size: float) -> list[Dependency]:
    home = {stage: name for name, stages in groups.items() for stage in stages}
    found: dict[Dependency, None] = {}
    for reader in chain.stages:
        for read in reader.reads:
            if read.source not in chain:
                continue
            source = chain[read.source]
            if home[source.name] == home[reader.name]:
                continue
            if reads_own(reader, read, source, voxel_size):
                found[Dependency(source.name, home[reader.name], None)] = None
                continue
            pad = (reader.margin + read.halo(voxel_size * reader.scale)) * reader.scale
            # Frames of other scales are rounded outwards to whole cells.
            pad = -(-pad // source.scale) * source.scale if source.scale > reader.scale else pad
            reach = source.margin * source.scale if source.merge is not None else 0
            found[Dependency(source.name, home[reader.name], pad, reach)] = None
    geometry, texture = chain[chain.geometry], chain[chain.texture]
    if home[geometry.name] != TILE:
        found[
            Dependency(
                geometry.name,
                TILE,
                0 if geometry.margin >= LEVEL_HALO else LEVEL_HALO,
                cropped=True,
            )
        ] = None
    if home[texture.name] != TILE:
        found[Dependency(texture.name, TILE, 0, cropped=True)] = None
    return list(found)


@dataclass
class Traversal:
    """Goes through a graph, each task after those it needs, and says when an output can go.

    `finished` says of a task whether its output exists from an earlier run; such tasks are not
    given. Every task that is given has to be handed to `complete` when it is done; `unneeded`
    collects the tasks whose output no task reads any more. Ranges of windows are rectangles, so
    some at the corners of a world have no tile behind them; what these would have read is kept to
    the end.
    """

    graph: Graph
    finished: Callable[[Task], bool]
    unneeded: list[Task] = field(default_factory=list)
    _left: dict[Task, int] = field(
        default_factory=dict
    )  # how many readers of an output are still to come
    _given: set[Task] = field(default_factory=set)

    def __iter__(self) -> Iterator[Task]:
        for tile in self.graph.tiles():
            if self.finished(tile):
                self.complete(tile)
            else:
                yield from self._after_needs(tile)

    def _after_needs(self, task: Task) -> Iterator[Task]:
        stack = [(task, iter(self.graph.needs(task)))]
        while stack:
            current, needs = stack[-1]
            for need in needs:
                self._touch(need)
                if need in self._given:
                    continue
                self._given.add(need)
                if self.finished(need):
                    self.complete(need)
                    continue
                stack.append((need, iter(self.graph.needs(need))))
                break
            else:
                stack.pop()
                yield current

    def complete(self, task: Task) -> None:
        """Note that a task is done, or not wanted: it reads nothing any more."""
        tasks = [task]
        while tasks:
            for need in self.graph.needs(tasks.pop()):
                self._touch(need)
                self._left[need] -= 1
                if self._left[need]:
                    continue
                del self._left[need]
                if need in self._given:
                    self._given.discard(need)
                    self.unneeded.append(need)
                else:  # nobody wants it, nor what it would have needed
                    tasks.append(need)

    def _touch(self, task: Task) -> None:
        if task not in self._left:
            self._left[task] = len(self.graph.users(task))
