"""Blending rules: they turn a sampler of single windows into stages whose windows agree.

A generative model samples one window of fixed shape at a time. The value of a cell that several
windows share must be a function of the place alone, never of the order in which windows are
computed. Each rule takes a `Sampler` and returns stages; the last has the sampler's name.
docs/plugins/agreement.md compares the rules:

- `four_colour`: mask-based in-painting in a fixed order of four colours of windows (after Liu et
  al., "EarthCrafter", arXiv 2507.16535, who slide a window row by row).
- `blended`: weighted means of overlapping windows between a few phases of the sampling (after
  Bar-Tal et al., "MultiDiffusion", ICML 2023, which takes the mean after every step).
- `crossfaded`: each window alone, on a margin of context that is dropped, but for a narrow strip
  in which neighbours fade into each other. For models whose result depends on what is near.
- `independent`: each window alone. The worlds have seams; this is the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import PluginError, UnknownNameError
from earthgen.stages.block import Block, Field
from earthgen.stages.stage import Read, Stage

if TYPE_CHECKING:
    from earthgen.noise.philox import Noise
    from geo_io.frame import Frame

STATE = "state"
"""Name of the field in the blocks of a sampler's stages: (ny, nx, channels) float32."""

COLOURS = ((0, 0), (1, 0), (1, 1), (0, 1))
"""(x % 2, y % 2) of the windows of each colour, in the order of sampling.

Each colour is adjacent to the one before it, so no chain of dependencies is longer than two windows
to a side. In row order it would be three.
"""

WindowWeights = Callable[[int], NDArray]
"""Function of the window's edge in cells to (window,) float64, the positive weights along one axis.

The weight of a cell is the product of its weights along both axes.
"""


@dataclass(frozen=True)
class InpaintingMask:
    """The known cells of a window: those that earlier windows have sampled.

    Attributes
    ----------
    values : NDArray (ny, nx, channels) float32
        The data; 0 outside the mask.
    mask : NDArray (ny, nx) bool
        Which cells are known.
    noise : NDArray (ny, nx, channels) float32
        The initial noise of the window.
    fresh_noise : callable
        n to other noise of the same shape, independent for each n >= 0.
    """

    values: NDArray
    mask: NDArray
    noise: NDArray
    fresh_noise: Callable[[int], NDArray]

    def impose(self, state: NDArray, time: float) -> NDArray:
        """Set the known cells to their state at `time`: time * data + (1 - time) * noise.

        Parameters
        ----------
        state : NDArray (ny, nx, channels) float32
            Of the window; not changed.
        time : float
            0 for noise, 1 for data.
        """
        path = self.values
        if time != 1.0:
            path = np.float32(time) * path + np.float32(1.0 - time) * self.noise
        return np.where(self.mask[..., None], path, state)


class WindowSampler(Protocol):
    """What samplers of dense and of sparse windows share.

    A sampler is pickled and sent to workers, so it holds settings only.

    Attributes
    ----------
    name : str
        Name of the last stage; keys the noise.
    window : int
        Edge of what is sampled at once, cells.
    stride : int
        Distance between windows, cells; windows overlap by window - stride.
    channels : int
        Values per cell.
    reads : tuple of Read
        Conditions and earlier stages.
    """

    @property
    def name(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def reads(self) -> tuple[Read, ...]: ...


class Sampler(WindowSampler, Protocol):
    """Samples one window of a grid with a diffusion or flow model.

    Attributes
    ----------
    scale : int
        Width of a cell in voxels.
    """

    @property
    def scale(self) -> int: ...

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        """Return the state at time `stop`: a function of the arguments alone.

        Parameters
        ----------
        state : NDArray (ny, nx, channels) float32
            The state at time `start`, on `window`.
        window : Frame
            Of cells.
        inputs : mapping of str to Block or layer
            What `reads` names.
        start, stop : float
            Time runs from 0, noise, to 1, data.
        known : InpaintingMask or None
            Cells to keep; to be imposed after every step.

        Returns
        -------
        NDArray (ny, nx, channels) float32
        """


FlowModel = Callable[[NDArray, float, "Frame", Mapping[str, Any]], NDArray]
"""Function (state, time, window, inputs) to a velocity or a prediction of the data.

State and result are (ny, nx, channels).
"""


@dataclass(frozen=True)
class FlowSampler:
    """A Sampler that integrates a flow matching model by Euler's method.

    Attributes
    ----------
    name, window, stride, channels, scale, reads
        As of Sampler.
    model : callable
        The FlowModel; must be picklable.
    steps : int
        Evaluations of the model from noise to data.
    predicts : {"velocity", "data"}
        Whether the model predicts the velocity, data - noise, or the data.
    shift : float
        Above 1, steps are shorter near the noise: time = u / (shift - (shift - 1) * u) for equal
        steps of u (Esser et al., "Scaling rectified flow transformers", ICML 2024, equation 23,
        with time reversed).
    repeats : int
        How often each step is made in windows with known cells. Before each repetition the state
        goes back in time with fresh noise, so that the other cells can adapt to the known ones
        (Lugmayr et al., "RePaint", CVPR 2022, section 4.2).
    """

    name: str
    model: FlowModel
    window: int
    stride: int
    channels: int
    steps: int = 25
    scale: int = 1
    reads: tuple[Read, ...] = ()
    predicts: Literal["velocity", "data"] = "velocity"
    shift: float = 1.0
    repeats: int = 1

    def times(self, start: float, stop: float) -> list[float]:
        """Return `start`, the times of the steps between, and `stop`."""
        grid = (
            n / (self.shift * self.steps - (self.shift - 1.0) * n) for n in range(self.steps + 1)
        )
        return [start, *(time for time in grid if start + 1e-6 < time < stop - 1e-6), stop]

    def advance(
        self,
        state: NDArray,
        window: Frame,
        inputs: Mapping[str, Any],
        start: float,
        stop: float,
        known: InpaintingMask | None,
    ) -> NDArray:
        """Return the state at time `stop`; see `Sampler.advance`."""
        times = self.times(start, stop)
        if known is not None:
            state = known.impose(state, start)
        drawn = 0
        for time, after in pairwise(times):
            for repeat in range(self.repeats if known is not None else 1):
                if known is not None and repeat:
                    state = known.impose(
                        renoise(state, after, time, known.fresh_noise(drawn)), time
                    )
                    drawn += 1
                state = self._step(state, window, inputs, time, after)
                if known is not None:
                    state = known.impose(state, after)
        return state.astype(np.float32, copy=False)

    def _step(
        self, state: NDArray, window: Frame, inputs: Mapping[str, Any], time: float, after: float
    ) -> NDArray:
        """Return the state at time `after`, one Euler step from that at `time`."""
        prediction = self.model(state, time, window, inputs)
        if self.predicts == "velocity":
            return state + np.float32(after - time) * prediction
        part = (after - time) / (1.0 - time)
        return np.float32(1.0 - part) * state + np.float32(part) * prediction


def renoise(state: NDArray, time: float, before: float, noise: NDArray) -> NDArray:
    """Return the state at the earlier time `before`, from that at `time` and fresh noise.

    Parameters
    ----------
    state, noise : NDArray (ny, nx, channels) float32
        The state at `time`, and standard normals.
    time, before : float
        0 for noise, 1 for data; before < time.
    """
    keep = before / time
    fresh = math.sqrt(max((1.0 - before) ** 2 - (keep * (1.0 - time)) ** 2, 0.0))
    return np.float32(keep) * state + np.float32(fresh) * noise


def initial_noise(
    sampler: Sampler, window: Frame, noise: Noise, purpose: str = "initial"
) -> NDArray:
    """Return the standard normals from which a window starts: the same in all stages of a sampler.

    Parameters
    ----------
    sampler : Sampler
        Its name keys the noise.
    window : Frame
        Of the sampler's cells.
    noise : Noise
        Of the world or any of its stages.
    purpose : str
        Different purposes get independent noise.

    Returns
    -------
    NDArray (ny, nx, channels) float32
    """
    return (
        noise.shared().stream(f"{sampler.name}: {purpose} noise").normals(window, sampler.channels)
    )


def independent(sampler: Sampler) -> list[Stage]:
    """Return one stage that samples each window alone; the worlds have seams.

    Each cell is taken from the window whose core holds it.
    """
    return [_stage(sampler, sampler.name, partial(_sample_window, sampler))]


def _sample_window(
    sampler: Sampler, window: Frame, inputs: Mapping[str, Any], noise: Noise
) -> Block:
    state = sampler.advance(initial_noise(sampler, window, noise), window, inputs, 0.0, 1.0, None)
    return Block(window, {STATE: state})


def four_colour(sampler: Sampler) -> list[Stage]:
    """Return four stages that sample windows of four colours, one colour after the other.

    Cells that an earlier colour covers are known and kept, so each cell has the value of the first
    colour that covers it. A window holds the final values of all its cells, not only of its core: a
    reader within the overlap needs no neighbours. The last stage samples the last colour and copies
    the values of the others.

    Raises
    ------
    PluginError
        Unless stride < window < 2 * stride: windows must overlap, those of one colour must not.
    """
    if not sampler.stride < sampler.window < 2 * sampler.stride:
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} cells at a stride of "
            f"{sampler.stride} cannot be sampled in four colours",
            "choose stride < window < 2 * stride",
        )
    stages: list[Stage] = []
    merge = partial(_paste_windows, sampler.channels)
    for n, colour in enumerate(COLOURS):
        last = n == len(COLOURS) - 1
        before = tuple(stage.name for stage in stages)
        stages.append(
            _stage(
                sampler,
                sampler.name if last else f"{sampler.name}/{n}",
                partial(_sample_colour, sampler, before),
                before,
                parity=None if last else colour,
                merge=None if last else merge,
            )
        )
    return stages


def _sample_colour(
    sampler: Sampler,
    before: tuple[str, ...],
    window: Frame,
    inputs: Mapping[str, Any],
    noise: Noise,
) -> Block:
    start = initial_noise(sampler, window, noise)
    values, mask = np.zeros(start.shape, np.float32), np.zeros(window.shape, bool)
    for name in before:  # where several colours cover a cell, they hold the same value
        block = inputs[name]
        covered = block.dense["covered"]
        values[covered] = block.dense[STATE][covered]
        mask |= covered
    if not mask.any():
        state = sampler.advance(start, window, _own(inputs, before), 0.0, 1.0, None)
    elif mask.all():  # the last stage also has the windows of earlier colours
        state = values
    else:

        def fresh_noise(n: int) -> NDArray:
            return initial_noise(sampler, window, noise, f"repeat {n}")

        state = sampler.advance(
            start,
            window,
            _own(inputs, before),
            0.0,
            1.0,
            InpaintingMask(values, mask, start, fresh_noise),
        )
        state = np.where(mask[..., None], values, state)
    return Block(window, {STATE: state})


def _paste_windows(
    channels: int, frame: Frame, parts: Sequence[tuple[tuple[int, int], Block]]
) -> Block:
    """Copy windows that do not overlap to a frame, and mark the cells that they cover."""
    state, covered = np.zeros((*frame.shape, channels), np.float32), np.zeros(frame.shape, bool)
    for _, block in parts:
        where = frame.slices(block.frame)
        state[where], covered[where] = block.dense[STATE], True
    return Block(frame, {STATE: state, "covered": covered})


def raised_cosine(window: int) -> NDArray:
    """Return raised cosine weights, from near 0.001 at the edges to 1 in the middle.

    Parameters
    ----------
    window : int
        Number of weights.

    Returns
    -------
    NDArray (window,) float64
    """
    place = (np.arange(window) + 0.5) / window
    return 0.001 + 0.999 * 0.5 * (1.0 - np.cos(2.0 * math.pi * place))


def blended(
    sampler: Sampler,
    phases: int = 2,
    weights: WindowWeights = raised_cosine,
    times: Sequence[float] | None = None,
) -> list[Stage]:
    """Return stages that sample all windows in phases and blend them after each phase.

    Each phase starts from the weighted mean of the windows' states at the end of the phase before.
    Sums run in the order of the window index, in float64, and are divided once. Values that are
    thresholded later, such as occupancy, must be blended as logits; the stage that reads the result
    applies the threshold.

    Parameters
    ----------
    sampler : Sampler
        Samples one window.
    phases : int
        Each phase makes a cell depend on one more ring of windows.
    weights : callable
        WindowWeights; must be picklable.
    times : sequence of float, optional
        (phases + 1,) times, rising from 0 to 1, between which the phases run. Default: equal steps.

    Raises
    ------
    PluginError
        If windows do not overlap, the times do not rise from 0 to 1, or a weight is not positive.
    """
    times = (
        tuple(n / max(phases, 1) for n in range(phases + 1))
        if times is None
        else tuple(float(time) for time in times)
    )
    rising = all(early < late for early, late in pairwise(times))
    if phases < 1 or len(times) != phases + 1 or not rising or (times[0], times[-1]) != (0.0, 1.0):
        raise PluginError(
            f"sampler {sampler.name!r}: {phases} phases cannot run between times {times}",
            "give phases + 1 times that rise from 0 to 1",
        )
    along = np.asarray(weights(sampler.window), np.float64)
    if (
        along.shape != (sampler.window,)
        or not (along > 0).all()
        or sampler.stride >= sampler.window
    ):
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} cells at a stride of "
            f"{sampler.stride} cannot be blended with these weights",
            "choose a stride below the window, and a positive weight for each of its cells",
        )
    stages: list[Stage] = []
    for n in range(phases):
        before = tuple(stage.name for stage in stages[-1:])
        stages.append(
            _stage(
                sampler,
                sampler.name if n == phases - 1 else f"{sampler.name}/{n}",
                partial(_sample_phase, sampler, times[n], times[n + 1], before),
                before,
                merge=partial(blend, sampler.window, sampler.stride, weights),
            )
        )
    return stages


def _sample_phase(
    sampler: Sampler,
    start: float,
    stop: float,
    before: tuple[str, ...],
    window: Frame,
    inputs: Mapping[str, Any],
    noise: Noise,
) -> Block:
    state = inputs[before[0]].dense[STATE] if before else initial_noise(sampler, window, noise)
    return Block(
        window, {STATE: sampler.advance(state, window, _own(inputs, before), start, stop, None)}
    )


def blend(
    window: int,
    stride: int,
    weights: WindowWeights,
    frame: Frame,
    parts: Sequence[tuple[tuple[int, int], Block]],
) -> Block:
    """Return the weighted mean of the windows that meet a frame: the merge of `blended`.

    Parameters
    ----------
    window, stride : int
        Of the stage, cells.
    weights : callable
        WindowWeights.
    frame : Frame
        Of the result.
    parts : sequence of (tuple of int, Block)
        Index of each window and the part of it that lies in the frame, in the order of summation.

    Raises
    ------
    PluginError
        If the windows do not cover the frame.
    """
    along = np.asarray(weights(window), np.float64)
    margin = (window - stride) // 2
    total: NDArray | None = None
    weight = np.zeros((*frame.shape, 1))
    for (x, y), block in parts:
        part = block.frame
        west, north = x * stride - margin, (y + 1) * stride + margin
        of_columns = along[part.x[0] - west : part.x[1] - west]
        of_rows = along[north - part.y[1] : north - part.y[0]]
        share = (of_rows[:, None] * of_columns)[..., None]
        state = block.dense[STATE]
        if total is None:
            total = np.zeros((*frame.shape, state.shape[2]))
        where = frame.slices(part)
        total[where] += share * state
        weight[where] += share
    if total is None or not (weight > 0).all():
        raise PluginError(
            f"windows of {window} cells at a stride of {stride} do not cover {frame}",
            "pass every window that meets the frame",
        )
    return Block(frame, {STATE: (total / weight).astype(np.float32)})


def fade_width(margin: int) -> int:
    """Return how far a window of a margin fades into its neighbours' cores, cells.

    A quarter of the margin, at least a cell; the rest of the margin is context that is dropped.
    """
    return min(max(margin // 4, 1), margin)


def crossfade(stride: int, fade: int, window: int) -> NDArray:
    """Return the weights of `crossfaded`: 1 in the core, 0 beyond `fade` cells around it.

    Between, a raised cosine falls over 2 * fade cells; the weights of neighbours sum to 1.

    Parameters
    ----------
    stride, window : int
        Of the windows, cells.
    fade : int
        Half the width of the strip in which two windows are blended, cells.

    Returns
    -------
    NDArray (window,) float64
    """
    margin = (window - stride) // 2
    inside = np.minimum(np.arange(window), window - 1 - np.arange(window)) + 0.5 - (margin - fade)
    return 0.5 - 0.5 * np.cos(math.pi * np.clip(inside / (2 * fade), 0.0, 1.0))


def crossfaded(sampler: Sampler, fade: int | None = None) -> list[Stage]:
    """Return one stage that samples each window alone and blends narrow strips of their states.

    All windows start from the noise of the place, so those of a model that depends on what is near
    agree where both have enough context. A window's margin is that context: only `fade` cells of it
    enter the result, as a weighted mean with the neighbour's, and the rest is dropped. A cell
    depends on the windows whose cores lie within `fade` of it, and on no others: readers need few
    windows, and a place alone little more than the windows that cover it.

    Parameters
    ----------
    sampler : Sampler
        Samples one window.
    fade : int, optional
        Half the width of the strip, cells; None is a quarter of the margin (`fade_width`).

    Raises
    ------
    PluginError
        If windows do not overlap, or the strip is wider than the margin or the core.
    """
    margin = (sampler.window - sampler.stride) // 2
    fade = fade_width(margin) if fade is None else fade
    if not 1 <= fade <= margin or 2 * fade > sampler.stride:
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} cells at a stride of "
            f"{sampler.stride} cannot fade over {fade} cells",
            "choose a stride below the window, and a fade of at most the margin",
        )
    merge = partial(blend, sampler.window, sampler.stride, partial(crossfade, sampler.stride, fade))
    stage = _stage(sampler, sampler.name, partial(_sample_window, sampler), merge=merge)
    return [replace(stage, overlap=fade)]


BLENDING_RULES: Mapping[str, Callable[[Sampler], list[Stage]]] = {
    "four_colour": four_colour,
    "crossfaded": crossfaded,
    "blended": blended,
    "independent": independent,
}
"""The blending rules by name."""

DEFAULT_BLENDING_RULE = "blended"
"""The rule that measured best: see docs/background/benchmarks.md."""


def blending_stages(sampler: Sampler, rule: str = DEFAULT_BLENDING_RULE) -> list[Stage]:
    """Return the stages of a sampler under a blending rule.

    The last one has the sampler's name and gives the field `STATE`::

        sampler = FlowSampler("hills", model, window=256, stride=192, channels=8)
        stages = blending_stages(sampler, "four_colour")

    Parameters
    ----------
    sampler : Sampler
        Samples one window.
    rule : str
        One of `BLENDING_RULES`.

    Raises
    ------
    UnknownNameError
        If there is no such rule.
    PluginError
        If the sampler's windows do not fit the rule.
    """
    if rule not in BLENDING_RULES:
        raise UnknownNameError(
            f"unknown blending rule {rule!r}", f"choose one of {', '.join(BLENDING_RULES)}"
        )
    return BLENDING_RULES[rule](sampler)


def _stage(
    sampler: Sampler,
    name: str,
    compute: Any,
    before: tuple[str, ...] = (),
    parity: tuple[int, int] | None = None,
    merge: Any = None,
) -> Stage:
    return Stage(
        name=name,
        window=sampler.window,
        stride=sampler.stride,
        scale=sampler.scale,
        compute=compute,
        parity=parity,
        merge=merge,
        fields={STATE: Field("float32", (sampler.channels,))},
        reads=(*sampler.reads, *(Read(source) for source in before)),
    )


def _own(inputs: Mapping[str, Any], before: tuple[str, ...]) -> dict[str, Any]:
    """Return the inputs without those from earlier stages of the same sampler."""
    return {name: value for name, value in inputs.items() if name not in before}
