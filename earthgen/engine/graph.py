"""The task graph of a world: a task per window of each stage, and one per tile at the end.

A graph is arithmetic and never held whole: which windows a task needs, and which tasks use its
output, follow from the lattices of the stages. A stage whose readers read only their own window is
*fused* into one task with them, and its output is never written. `Traversal` visits the tasks so
that each comes after those it needs, and reports when an output is no longer needed; it holds only
the tasks around the front, whatever the size of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from earthgen.errors import PluginError
from earthgen.stages.stage import AS_READ, Read, Stage
from earthgen.voxels.pyramid import LEVEL_HALO
from earthgen.voxels.tile import LEVELS
from geo_io.frame import Frame

TILE = "tile"
"""The name of the last tasks, which assemble a tile from the windows of geometry and texture, and
write it."""

GEOMETRY = "geometry"
"""The name by which readers refer to the last stage of the geometry backend."""

BLOCK = 16
"""Edge, in tiles, of the blocks in which tiles are visited, so that few windows wait for their last
reader."""

Range = tuple[int, int]


class Task(NamedTuple):
    """Window (x, y) of a stage and of those fused into it, or a tile."""

    stage: str
    x: int
    y: int


@dataclass(frozen=True)
class Dependency:
    """What the tasks of one group read from the last stage of another.

    Attributes
    ----------
    source, reader : str
        Names of the groups.
    pad : int or None
        Voxels that are read around the reader's core; None if a window reads only the window of
        the same index.
    reach : int
        Voxels around a source's core in which its window counts: 0 unless windows are merged.
    cropped : bool
        Whether a tile at the world's border reads only what lies in the world. Stages that are
        fused into a tile are computed on whole windows.
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
    stages : tuple of Stage
        Each after those it reads.
    geometry, texture : str
        Names of the stages whose output the tiles are made of.
    """

    stages: tuple[Stage, ...]
    geometry: str
    texture: str

    def __getitem__(self, name: str) -> Stage:
        wanted = self.geometry if name == GEOMETRY else name
        for stage in self.stages:
            if stage.name == wanted:
                return stage
        raise KeyError(name)

    def __contains__(self, name: str) -> bool:
        return name == GEOMETRY or any(stage.name == name for stage in self.stages)


def make_chain(
    geometry: Sequence[Stage], texture: Sequence[Stage], voxel_size: float = 1.0
) -> Chain:
    """Join the stages of a geometry and a texture backend to a chain.

    Parameters
    ----------
    geometry, texture : sequence of Stage
    voxel_size : float
        Metres; it says how many voxels stages read around their windows.

    Raises
    ------
    PluginError
        If a name repeats, a stage reads a later one, nothing reads a stage, the lattices do not
        fit the levels of detail, or the readers of a stage with a window `AS_READ` differ in
        theirs.
    """
    stages = (*geometry, *texture)
    chain = Chain(stages, geometry[-1].name, texture[-1].name)
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1 or name in (TILE, GEOMETRY):
            raise PluginError(
                f"two stages are called {name!r}",
                "stage names must be unique: correct the plugin",
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
            or stage.window == AS_READ
            or stage.step % LEVELS[-1]
            or stage.merge is not None
            or stage.parity is not None
        ):
            raise PluginError(
                f"stage {stage.name!r} gives voxels: its scale must be 1, its windows of its own "
                f"and not merged, and its stride a multiple of {LEVELS[-1]}",
                "correct the plugin",
            )
    if chain[chain.geometry].step != chain[chain.texture].step:
        raise PluginError(
            f"texture {texture[-1].name!r} has stride {texture[-1].step}, "
            f"geometry {geometry[-1].name!r} {geometry[-1].step}",
            "the last texture stage must take the stride of its geometry: correct the plugin",
        )
    return replace(chain, stages=_with_windows(stages, voxel_size))


def _with_windows(stages: Sequence[Stage], voxel_size: float) -> tuple[Stage, ...]:
    """Give the stages with a window `AS_READ` the windows of their readers, as wide as these
    read."""
    given: list[Stage] = []
    for stage in reversed(stages):
        if stage.window == AS_READ:
            reads = [
                (one, read) for one in given for read in one.reads if read.source == stage.name
            ]
            strides = {reader.pitch for reader, _ in reads}
            if len(strides) > 1 or any(reader.parity is not None for reader, _ in reads):
                raise PluginError(
                    f"stage {stage.name!r} has a window AS_READ, but its readers differ in theirs",
                    "give it a window: correct the plugin",
                )
            margin = max(_reads_around(*each, voxel_size) for each in reads)
            stage = replace(stage, window=min(strides) + 2 * margin, stride=min(strides))
        given.append(stage)
    return tuple(reversed(given))


def _reads_around(reader: Stage, read: Read, voxel_size: float) -> int:
    """How far around its core a stage reads another one, voxels."""
    return (reader.margin + read.halo(voxel_size * reader.scale)) * reader.scale


def reads_own(reader: Stage, read: Read, source: Stage, voxel_size: float) -> bool:
    """Return whether a window of `reader` reads only the window of `source` with the same index."""
    return (
        source.merge is None
        and source.parity is None
        and reader.parity is None
        and reader.pitch == source.pitch
        and _reads_around(reader, read, voxel_size) <= source.margin * source.scale
    )


class Graph:
    """The tasks of a world.

    Parameters
    ----------
    chain : Chain
    frame : Frame
        Of the world.
    tile_size : int
        Edge of a tile, voxels.

    Attributes
    ----------
    groups : dict of str to tuple of str
        The stages that are computed in one task, by the name of the last one; tiles first.
    pitch : dict of str to int
        Distance between the windows of a group, voxels.
    range : dict of str to pair of Range
        The windows of a group that the world needs, along x and y.
    """

    def __init__(self, chain: Chain, frame: Frame, tile_size: int) -> None:
        self.chain = chain
        self.frame = frame
        self.tile_size = tile_size
        self.groups = _groups(chain, tile_size, frame.voxel_size)
        self.pitch = {
            name: tile_size if name == TILE else chain[name].pitch for name in self.groups
        }
        dependencies = _dependencies(chain, self.groups, frame.voxel_size)
        # Per group: its dependencies on sources, or those of its readers, and the other group.
        self._sources = {
            name: [(one, one.source) for one in dependencies if one.reader == name]
            for name in self.groups
        }
        self._readers = {
            name: [(one, one.reader) for one in dependencies if one.source == name]
            for name in self.groups
        }
        self._parity = {name: None if name == TILE else chain[name].parity for name in self.groups}
        self.range = self._ranges()

    def _ranges(self) -> dict[str, tuple[Range, Range]]:
        """The ranges of windows in x and y that the world needs, by group."""
        ranges: dict[str, tuple[Range, Range]] = {}
        for name in self.groups:  # from the tiles back to the first stage
            if name == TILE:
                # Coarse cells at the border include all of their children, so they are computed
                # whole.
                ranges[name] = tuple(
                    _span(low, high, self.tile_size) for low, high in (self.frame.x, self.frame.y)
                )  # type: ignore[assignment]
                continue
            per_reader = []
            for dependency, reader in self._readers[name]:
                wide = (dependency.pad or 0) + dependency.reach
                spans = []
                for axis, limits in enumerate((self.frame.x, self.frame.y)):
                    low, high = (edge * self.pitch[reader] for edge in ranges[reader][axis])
                    if dependency.cropped:
                        low, high = (edge * LEVELS[-1] for edge in _span(*limits, LEVELS[-1]))
                    spans.append(_span(low - wide, high + wide, self.pitch[name]))
                per_reader.append(spans)
            west, south = (min(spans[axis][0] for spans in per_reader) for axis in (0, 1))
            east, north = (max(spans[axis][1] for spans in per_reader) for axis in (0, 1))
            parity = self._parity[name]
            if parity is not None:  # shrink to the outermost windows that exist
                west, east = _of_parity(west, east, parity[0])
                south, north = _of_parity(south, north, parity[1])
            ranges[name] = (west, east), (south, north)
        return ranges

    def needs(self, task: Task) -> list[Task]:
        """Return the tasks whose output a task reads."""
        return self._across(task, self._sources[task.stage])

    def users(self, task: Task) -> list[Task]:
        """Return the tasks that read the output of a task."""
        return self._across(task, self._readers[task.stage])

    def _across(self, task: Task, dependencies: list[tuple[Dependency, str]]) -> list[Task]:
        """The tasks at the other end of dependencies, each once."""
        tasks: dict[Task, None] = {}
        pitch = self.pitch[task.stage]
        for dependency, other in dependencies:
            xs, ys = (
                self._windows(other, axis, index * pitch, (index + 1) * pitch, dependency)
                for axis, index in ((0, task.x), (1, task.y))
            )
            tasks.update(dict.fromkeys(self._existing(other, xs, ys)))
        return list(tasks)

    def _windows(self, name: str, axis: int, low: int, high: int, dependency: Dependency) -> Range:
        """The windows of a group that the world needs and that meet [low, high), padded.

        If a window reads only the window of the same index, both lattices are the same.
        """
        wide = (dependency.pad or 0) + dependency.reach
        first, last = _span(low - wide, high + wide, self.pitch[name])
        limits = self.range[name][axis]
        return max(first, limits[0]), min(last, limits[1])

    def _existing(self, name: str, xs: Range, ys: Range) -> Iterator[Task]:
        """The tasks of a group in ranges of windows, without those of other parity."""
        parity = self._parity[name]
        for y in range(*ys):
            for x in range(*xs):
                if parity is None or (x % 2, y % 2) == parity:
                    yield Task(name, x, y)

    def tiles(self) -> Iterator[Task]:
        """Yield the tiles, block by block and row by row from the south-west."""
        (west, east), (south, north) = self.range[TILE]
        for block_y in range(south // BLOCK, -(-north // BLOCK)):
            for block_x in range(west // BLOCK, -(-east // BLOCK)):
                for y in range(max(south, block_y * BLOCK), min(north, (block_y + 1) * BLOCK)):
                    for x in range(max(west, block_x * BLOCK), min(east, (block_x + 1) * BLOCK)):
                        yield Task(TILE, x, y)

    def counts(self) -> dict[str, int]:
        """Return the number of tasks by group, from the first stage to the tiles."""
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
    """The stages of each group in order, by the name of its last one; from the tiles backwards.

    A stage joins the group of its readers if all are in one group and read only their own window of
    it. It is then computed no more often, and its output need not be written.
    """
    group: dict[str, str] = {}
    members: dict[str, list[str]] = {TILE: []}
    for stage in reversed(chain.stages):
        groups, own = set(), True
        for reader in chain.stages:
            for read in reader.reads:
                if read.source in chain and chain[read.source] is stage:
                    groups.add(group[reader.name])
                    own &= reads_own(reader, read, stage, voxel_size)
        if stage.name in (chain.geometry, chain.texture):
            groups.add(TILE)
            own &= stage.pitch == tile_size
            own &= stage.name == chain.texture or stage.margin >= LEVEL_HALO
        if len(groups) == 1 and own:
            group[stage.name] = groups.pop()
        else:
            group[stage.name] = stage.name
            members[stage.name] = []
        members[group[stage.name]].insert(0, stage.name)
    return {name: tuple(stages) for name, stages in members.items()}


def _dependencies(
    chain: Chain, groups: dict[str, tuple[str, ...]], voxel_size: float
) -> list[Dependency]:
    """What the groups read from each other, each dependency once."""
    group_of = {stage: name for name, stages in groups.items() for stage in stages}
    dependencies: dict[Dependency, None] = {}
    for reader in chain.stages:
        for read in reader.reads:
            if read.source not in chain:
                continue
            source = chain[read.source]
            target = group_of[reader.name]
            if group_of[source.name] == target:
                continue
            if reads_own(reader, read, source, voxel_size):
                dependencies[Dependency(source.name, target, None)] = None
                continue
            pad = _reads_around(reader, read, voxel_size)
            # Frames of other scales are rounded outwards to whole cells.
            pad = -(-pad // source.scale) * source.scale if source.scale > reader.scale else pad
            reach = source.counted * source.scale
            dependencies[Dependency(source.name, target, pad, reach)] = None
    geometry, texture = chain[chain.geometry], chain[chain.texture]
    if group_of[geometry.name] != TILE:
        pad = 0 if geometry.margin >= LEVEL_HALO else LEVEL_HALO
        dependencies[Dependency(geometry.name, TILE, pad, cropped=True)] = None
    if group_of[texture.name] != TILE:
        dependencies[Dependency(texture.name, TILE, 0, cropped=True)] = None
    return list(dependencies)


@dataclass
class Traversal:
    """Visits the tasks of a graph, each after those it needs, and reports unneeded outputs.

    Iterating gives the tasks. Each one has to be passed to `complete` when it is done. Ranges of
    windows are rectangles, so some windows at the corners of a world lead to no tile; outputs that
    only these would have read are kept to the end.

    Attributes
    ----------
    graph : Graph
    finished : callable
        (task) to whether its output exists from an earlier run; such tasks are not given.
    unneeded : list of Task
        Grows by the tasks whose output no task reads any more; for the caller to empty.
    """

    graph: Graph
    finished: Callable[[Task], bool]
    unneeded: list[Task] = field(default_factory=list)
    _readers_left: dict[Task, int] = field(default_factory=dict)  # by output
    _given: set[Task] = field(default_factory=set)

    def __iter__(self) -> Iterator[Task]:
        for tile in self.graph.tiles():
            if self.finished(tile):
                self.complete(tile)
            else:
                yield from self._after_needs(tile)

    def _after_needs(self, task: Task) -> Iterator[Task]:
        """The unfinished tasks that a task needs, directly or not, and then the task itself."""
        stack = [(task, iter(self.graph.needs(task)))]
        while stack:
            current, needs = stack[-1]
            for need in needs:
                self._count_readers(need)
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
        """Note that a task is done, or not needed: it reads nothing any more."""
        tasks = [task]
        while tasks:
            for need in self.graph.needs(tasks.pop()):
                self._count_readers(need)
                self._readers_left[need] -= 1
                if self._readers_left[need]:
                    continue
                del self._readers_left[need]
                if need in self._given:
                    self._given.discard(need)
                    self.unneeded.append(need)
                else:  # no task needs it, nor what it would have needed
                    tasks.append(need)

    def _count_readers(self, task: Task) -> None:
        if task not in self._readers_left:
            self._readers_left[task] = len(self.graph.users(task))
