"""A diffusion-like sampler whose data are known, and a plain evaluator of stages: for tests and
benchmarks/seams.py.

The model is exact where it can be. Its data are three Gaussian fields, Matern 3/2 along x times
Matern 3/2 along y, and it predicts them from a noisy window as their posterior mean given the whole
window (a Wiener filter), which is what a perfectly trained network would give. Two of them go
through a saturating function, which makes the model decide: a cell is one level or the other, and
everything within half a window follows. Neighbours that do not hear of each other decide
differently, so a broken rule shows.

- "level": -1 or 1, correlated over more than a window: what a model decides for all of a window at
  once
- "relief": Gaussian, correlated over more than the overlap of windows
- "logit": positive where the semantic map is built or wooded, negative elsewhere
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.engine.graph import Graph, Task, make_chain
from earthgen.noise.philox import Noise
from earthgen.stages.blending import (
    DEFAULT_BLENDING_RULE,
    STATE,
    FlowSampler,
    Sampler,
    blending_stages,
    initial_noise,
)
from earthgen.stages.block import Block, join
from earthgen.stages.stage import Read, Stage, rescale
from earthgen.testing.backends import PlainTexture
from earthgen.voxels.surface import face_offsets, surface_voxels
from earthgen.voxels.voxels import GEOMETRY_FIELDS, Geometry
from geo_io.frame import Frame
from geo_io.layers import Semantics, no_buildings, no_trees
from geo_io.legend import codes

CHANNELS = ("level", "relief", "logit")


@lru_cache(maxsize=64)
def spectrum(size: int, length: float) -> tuple[NDArray, NDArray]:
    """(size,) eigenvalues and (size, size) eigenvectors of the covariance of a Matern 3/2
    process on a row of cells."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) * (np.sqrt(3.0) / length)
    values, vectors = np.linalg.eigh((1.0 + apart) * np.exp(-apart))
    return np.maximum(values, 0.0), np.ascontiguousarray(vectors)


def posterior_mean(
    state: NDArray, time: float, mean: NDArray | float, length: float, deviation: float
) -> NDArray:
    """(ny, nx) E[data | state] for state = time * data + (1 - time) * noise of one Gaussian
    field in a window."""
    rows, up = spectrum(state.shape[0], length)
    columns, across = spectrum(state.shape[1], length)
    variance = deviation**2 * np.outer(rows, columns)
    gain = time * variance / (time**2 * variance + (1.0 - time) ** 2)
    rest = state.astype(np.float64) - time * mean
    return mean + up @ (gain * (up.T @ rest @ across)) @ across.T


@dataclass(frozen=True)
class Fields:
    """The model: predicts the data of all channels.

    Attributes
    ----------
    lengths, deviations : of the fields, cells and their own unit
    sharpness : how hard "level" and "logit" are made to decide; 0 leaves them Gaussian
    """

    lengths: tuple[float, float, float] = (48.0, 20.0, 12.0)
    deviations: tuple[float, float, float] = (1.0, 1.0, 0.7)
    sharpness: float = 3.0

    def __call__(
        self, state: NDArray, time: float, window: Frame, inputs: Mapping[str, Any]
    ) -> NDArray:
        means = (0.0, 0.0, target(window, inputs))
        found = [
            posterior_mean(state[..., n], time, means[n], self.lengths[n], self.deviations[n])
            for n in range(3)
        ]
        if self.sharpness:
            for n in (0, 2):
                found[n] = np.tanh(self.sharpness * found[n])
        return np.stack(found, axis=-1).astype(np.float32)


def target(window: Frame, inputs: Mapping[str, Any]) -> NDArray:
    """(ny, nx) 1 where the semantic map is built or wooded, -1 elsewhere; 0 without a map."""
    layer = inputs.get("semantics")
    if layer is None:
        return np.zeros(window.shape)
    code = codes()
    raised = [code[name] for name in ("building", "residential", "mixed_forest")]
    return np.where(np.isin(layer.cover, raised), 1.0, -1.0)


def sampler(
    window: int = 48, stride: int = 32, steps: int = 16, repeats: int = 1, name: str = "hills"
) -> FlowSampler:
    """The synthetic sampler. What reaches far is decided early in a trajectory, so steps are
    short near the noise."""
    return FlowSampler(
        name,
        Fields(),
        window,
        stride,
        len(CHANNELS),
        steps,
        reads=(Read("semantics"),),
        predicts="data",
        shift=8.0,
        repeats=repeats,
    )


def at_once(source: FlowSampler, frame: Frame, seed: int = 0) -> NDArray:
    """(ny, nx, channels) float32 on `frame`, sampled as one window: what the rules try to come
    near."""
    start = initial_noise(source, frame, Noise(seed))
    return source.advance(start, frame, {"semantics": Cover().read(frame)}, 0.0, 1.0, None)


@dataclass
class Counted:
    """A sampler that only counts: (start, stop) of every window it is asked to advance."""

    window: int
    stride: int
    name: str = "hills"
    scale: int = 1
    channels: int = 1
    reads: tuple[Read, ...] = ()
    asked: list[tuple[Frame, float, float]] = field(default_factory=list)

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: Any,
    ) -> NDArray:
        self.asked.append((window, start, stop))
        return state


@dataclass(frozen=True)
class Cover:
    """A condition that is a formula of the place: woods and villages in grassland, with edges at
    all angles."""

    def survey(self, frame: Frame) -> Mapping[str, Any]:
        return {}

    def read(self, window: Frame) -> Semantics:
        code = codes()
        x = np.arange(window.x[0], window.x[1]) + 0.5
        y = (np.arange(window.y[1], window.y[0], -1) - 0.5)[:, None]
        cover = np.full(window.shape, code["grassland"], np.uint8)
        cover[np.sin(x / 19) + np.sin((y + 0.4 * x) / 23) > 0.6] = code["mixed_forest"]
        cover[np.hypot(np.mod(x + 0.3 * y, 97) - 48, np.mod(y, 83) - 41) < 15] = code["residential"]
        return Semantics(
            window, cover, np.zeros(window.shape, np.uint32), no_buildings(), no_trees()
        )


@dataclass(frozen=True)
class DiffusionHills:
    """A geometry backend with the synthetic sampler in front: ground from "level" and "relief",
    blocks from "logit".

    Its windows of voxels reach 16 beyond their cores, more than the overlap of the sampler's
    windows.
    """

    rule: str = DEFAULT_BLENDING_RULE
    steps: int = 6
    name: str = "diffusion-hills"
    version: str = "1"
    requires: tuple[str, ...] = ()

    def stages(self) -> Sequence[Stage]:
        source = sampler(steps=self.steps)
        reads = (Read(source.name, cells=1), Read("semantics", cells=1))
        last = Stage(
            "hills/voxels", source.stride + 32, GEOMETRY_FIELDS, raise_voxels, reads, source.stride
        )
        return (*blending_stages(source, self.rule), last)


def raise_voxels(window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
    """Voxels from the sampler's state on the window and one cell around: occupancy is
    thresholded here, once."""
    level, relief, logit = np.moveaxis(inputs["hills"].dense[STATE], -1, 0)
    code = codes()
    cover = (
        inputs["semantics"].cover
        if "semantics" in inputs
        else np.full(level.shape, code["grassland"], np.uint8)
    )
    height = np.where(logit > 0, 3 + (level > 0), 0)
    solid = np.arange(-2, 4) < height[..., None]
    volume = np.where(solid, cover[..., None], 0).astype(np.uint8)
    voxels = surface_voxels(window, volume, np.zeros(volume.shape, np.uint32), -2)
    normal = np.tile(np.array([0, 0, 1], np.float32), (len(voxels), 1))
    ground = (100 + 4 * level + relief).astype(np.float32)[1:-1, 1:-1]
    return Geometry(
        window,
        np.ascontiguousarray(ground),
        voxels,
        face_offsets(voxels.faces, window.voxel_size),
        normal,
    ).block()


@dataclass
class Plain:
    """Computes windows of dense stages when they are asked for, and keeps them: the plain meaning
    of a chain.

    `order` may permute the windows that one window reads, and so the order in which all are
    computed.
    """

    stages: Sequence[Stage]
    world: Frame
    conditions: Mapping[str, Any]
    noise: Noise
    order: Callable[[list[tuple[int, int]]], list[tuple[int, int]]] = list
    blocks: dict[tuple[str, int, int], Block] = field(default_factory=dict)

    def window(self, name: str, x: int, y: int) -> Block:
        """Window (x, y) of a stage."""
        key = (name, x, y)
        if key not in self.blocks:
            stage = self.stage(name)
            frame = stage.frame(self.world, x, y)
            inputs: dict[str, Any] = {}
            for read in stage.reads:
                wanted = frame.pad(read.halo(frame.voxel_size))
                if read.source in self.conditions:
                    inputs[read.source] = self.conditions[read.source].read(wanted)
                elif any(stage.name == read.source for stage in self.stages):
                    source = self.stage(read.source)
                    inputs[read.source] = self.field(
                        read.source, rescale(wanted, stage.scale, source.scale)
                    )
            self.blocks[key] = stage.compute(frame, inputs, self.noise.of_stage(name))
        return self.blocks[key]

    def field(self, name: str, wanted: Frame) -> Block:
        """The output of a stage on any frame of its cells."""
        stage = self.stage(name)
        reach = stage.counted
        windows = [
            at
            for at in wanted.pad(reach).tiles(stage.step)
            if stage.parity in (None, (at[0] % 2, at[1] % 2))
        ]
        parts = {}
        for x, y in self.order(windows):
            meet = stage.cells(self.world).tile(x, y, stage.step).pad(reach).intersection(wanted)
            if meet is not None:
                parts[x, y] = self.window(name, x, y).crop(meet)
        ordered = [(at, parts[at]) for at in windows if at in parts]
        return (
            stage.merge(wanted, ordered)
            if stage.merge
            else join(wanted, [block for _, block in ordered])
        )

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


def sample(
    stages: Sequence[Stage],
    frame: Frame,
    seed: int = 0,
    conditions: Mapping[str, Any] | None = None,
) -> NDArray:
    """(ny, nx, channels) float32: what the last of the stages gives on a frame."""
    plain = Plain(
        stages, frame, {"semantics": Cover()} if conditions is None else conditions, Noise(seed)
    )
    return plain.field(stages[-1].name, frame).dense[STATE]


def borders(source: Sampler) -> list[int]:
    """Where along an axis, modulo two strides, two windows may meet: edges of cores, and ends of
    overlaps."""
    margin, stride = (source.window - source.stride) // 2, source.stride
    return sorted(
        {(n * stride + off) % (2 * stride) for n in (0, 1) for off in (0, -margin, margin)}
    )


def radius(stages: Sequence[Stage]) -> int:
    """How many windows away, at most, the task graph looks for one core of the last stage."""
    last = stages[-1]
    reader = Stage("reader", last.step, GEOMETRY_FIELDS, raise_voxels, (Read(last.name),))
    chain = make_chain((*stages, reader), PlainTexture().stages(reader))
    graph = Graph(
        chain,
        Frame("EPSG:32632", 1.0, (-20 * last.step, 20 * last.step), (0, 20 * last.step)),
        last.step,
    )
    far = 0
    for x, y in ((0, 9), (1, 9), (0, 10), (1, 10)):  # a window of each colour
        tasks = [Task("reader", x, y)]
        seen = set(tasks)
        while tasks:
            for need in graph.needs(tasks.pop()):
                if need not in seen:
                    seen.add(need)
                    tasks.append(need)
        far = max(far, *(max(abs(task.x - x), abs(task.y - y)) for task in seen))
    return far


def seam_ratio(values: NDArray, frame: Frame, source: Sampler) -> float:
    """The worst mean |jump| across a border of windows over the mean |jump| elsewhere; 1 where
    there are no seams.

    values : (ny, nx) on `frame`, whose edges are multiples of two strides

    A border is a segment between two others, modulo two strides in x and in y: a seam that only
    windows of one colour have, or only a part of their edge, is not thinned out.
    """
    period, edges = 2 * source.stride, borders(source)
    worst = 0.0
    for field_, low in ((values, frame.x[0]), (values[::-1].T, frame.y[0])):
        # jump[:, k] is that onto cell k from the one before it, along x; then along y, counted
        # northwards
        jump = np.abs(np.diff(field_.astype(np.float64), axis=1, prepend=np.nan))
        place = (np.arange(jump.shape[1]) + low) % period
        elsewhere = float(np.nanmean(jump[:, ~np.isin(place, edges)]))
        rows = (np.arange(jump.shape[0])) % period
        for edge in edges:
            across = np.nanmean(jump[:, place == edge], axis=1)
            for start, stop in zip(edges, [*edges[1:], period + edges[0]], strict=True):
                segment = (rows - start) % period < stop - start
                worst = max(worst, float(across[segment].mean()) / elsewhere)
    return worst


def orders(
    count: int, seed: int = 0
) -> Iterator[Callable[[list[tuple[int, int]]], list[tuple[int, int]]]]:
    """Ways to shuffle windows, for `Plain`."""
    for n in range(count):
        rng = np.random.default_rng((seed, n))
        yield lambda windows, rng=rng: [windows[k] for k in rng.permutation(len(windows))]
