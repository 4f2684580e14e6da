"""How windows that are sampled apart agree: rules that turn a sampler into plain stages.

A generative model makes one window of fixed shape at a time. What neighbouring windows make of the
cells they share has to be settled by a rule of the place alone, never by the order in which windows
happen to be made. Each rule here takes a `Sampler` and gives stages whose last is called like the
sampler; the task graph and the schedulers know nothing of rules. docs/plugins/agreement.md compares
them.

- `four_colour`: mask-based in-painting in a fixed order of four colours of windows (after Liu et
  al., "EarthCrafter",
  arXiv 2507.16535, who slide a window row by row).
- `blended`: weighted means of overlapping windows between a few phases of the sampling (after
  Bar-Tal et al.,
  "MultiDiffusion", ICML 2023, which takes the mean in every step).
- `independent`: every window for itself. The worlds have seams: it is what the others are measured
  against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
"""The field that the stages of a sampler give: (ny, nx, channels) float32."""

COLOURS = ((0, 0), (1, 0), (1, 1), (0, 1))
"""(x % 2, y % 2) of the windows of each colour, in the order of sampling.

Each colour lies beside the one before it. No chain of dependencies is then longer than two windows
to a side; in the order of rows it would be three.
"""

Weights = Callable[[int], NDArray]
"""window (cells) -> (window,) float64 along one axis, positive; the weight of a cell is the
product of two."""


@dataclass(frozen=True)
class InpaintingMask:
    """Cells of a window that earlier windows have decided.

    Attributes
    ----------
    values : (ny, nx, channels) float32, the data; 0 where not known
    mask : (ny, nx) bool, which cells are known
    noise : (ny, nx, channels) float32, the noise of the place
    again : n -> more noise of the place, of the same shape: another for each n >= 0
    """

    values: NDArray
    mask: NDArray
    noise: NDArray
    again: Callable[[int], NDArray]

    def impose(self, state: NDArray, time: float) -> NDArray:
        """The state with known cells on the straight path of flow matching: time * data + (1 -
        time) * noise."""
        data = self.values
        path = (
            data if time == 1.0 else np.float32(time) * data + np.float32(1.0 - time) * self.noise
        )
        return np.where(self.mask[..., None], path, state)


class Windowed(Protocol):
    """What samples windows with a diffusion or flow model. It goes to workers pickled, so it holds
    settings only.

    Attributes
    ----------
    name : of the last stage made of it; keys its noise
    window, stride : edge of what is sampled at once and distance of windows, cells; they overlap by
        the difference
    channels : values a cell
    reads : conditions and earlier stages it needs
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


class Sampler(Windowed, Protocol):
    """Samples one window of a grid.

    Attributes
    ----------
    scale : a cell is so many voxels wide
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
        """The state at time `stop`, from that at `start`; time runs from 0, noise, to 1, data.

        state : (ny, nx, channels) float32 on `window`, and so is what is returned. `known` is to be
            imposed at every step. A function of its arguments alone.
        """


Model = Callable[[NDArray, float, "Frame", Mapping[str, Any]], NDArray]
"""(state, time, window, inputs) -> (ny, nx, channels): a velocity, or a prediction of the data."""


@dataclass(frozen=True)
class FlowSampler:
    """A Sampler of a flow matching model, by Euler's method on equal steps of time.

    Attributes
    ----------
    name, window, stride, channels, scale, reads : as of Sampler
    model : what it follows; picklable
    steps : evaluations of the model from noise to data
    predicts : whether the model gives the velocity data - noise, or the data
    shift : above 1, steps are shorter near the noise: time = u / (shift - (shift - 1) * u) for
        equal steps of u
        (Esser et al., "Scaling rectified flow transformers", ICML 2024, equation 23, with time the
        other way round)
    repeats : how often each step is made where cells are known; between, the state goes back with
        other noise, so that
        the rest of the window can follow what is known (Lugmayr et al., "RePaint", CVPR 2022,
        section 4.2)
    """

    name: str
    model: Model
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
        """`start`, the steps between, `stop`."""
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
        times = self.times(start, stop)
        if known is not None:
            state = known.impose(state, start)
        drawn = 0
        for time, after in pairwise(times):
            for repeat in range(self.repeats if known is not None else 1):
                if known is not None and repeat:
                    state = known.impose(noisier(state, after, time, known.again(drawn)), time)
                    drawn += 1
                state = self._step(state, window, inputs, time, after)
                if known is not None:
                    state = known.impose(state, after)
        return state.astype(np.float32, copy=False)

    def _step(
        self, state: NDArray, window: Frame, inputs: Mapping[str, Any], time: float, after: float
    ) -> NDArray:
        found = self.model(state, time, window, inputs)
        if self.predicts == "velocity":
            return state + np.float32(after - time) * found
        part = (after - time) / (1.0 - time)
        return np.float32(1.0 - part) * state + np.float32(part) * found


def noisier(state: NDArray, time: float, before: float, noise: NDArray) -> NDArray:
    """The state at an earlier time, from that at `time` and fresh noise: its share of the data
    falls to before."""
    keep = before / time
    fresh = math.sqrt(max((1.0 - before) ** 2 - (keep * (1.0 - time)) ** 2, 0.0))
    return np.float32(keep) * state + np.float32(fresh) * noise


def place_noise(sampler: Sampler, window: Frame, noise: Noise, purpose: str = "initial") -> NDArray:
    """(ny, nx, channels) float32 normals of the place: the same for all the stages made of a
    sampler."""
    return (
        noise.shared().stream(f"{sampler.name}: {purpose} noise").normals(window, sampler.channels)
    )


def independent(sampler: Sampler) -> list[Stage]:
    """Every window for itself; each cell is that of the window whose core holds it. It shows
    seams."""
    return [_stage(sampler, sampler.name, partial(_alone, sampler))]


def _alone(sampler: Sampler, window: Frame, inputs: Mapping[str, Any], noise: Noise) -> Block:
    state = sampler.advance(place_noise(sampler, window, noise), window, inputs, 0.0, 1.0, None)
    return Block(window, {STATE: state})


def four_colour(sampler: Sampler) -> list[Stage]:
    """Windows in four colours, each colour after those before it, whose cells it takes as known.

    A cell has the value of the first colour that covers it. As known cells are kept, a window holds
    the values of all its cells, not only of its core: a reader that looks no further than the
    overlap needs no neighbours. The last stage samples the last colour, and passes on what windows
    of other colours hold.

    Raises
    ------
    PluginError
        if windows do not overlap, or those of one colour meet: stride < window < 2 * stride
    """
    if not sampler.stride < sampler.window < 2 * sampler.stride:
        raise PluginError(
            f"sampler {sampler.name!r}: windows of {sampler.window} cells at a stride of {sampler.stride} cannot be "
            "sampled in four colours",
            "choose stride < window < 2 * stride",
        )
    stages: list[Stage] = []
    paste = partial(_paste, sampler.channels)
    for n, colour in enumerate(COLOURS):
        last = n == len(COLOURS) - 1
        before = tuple(stage.name for stage in stages)
        stages.append(
            _stage(
                sampler,
                sampler.name if last else f"{sampler.name}/{n}",
                partial(_colour, sampler, before),
                before,
                parity=None if last else colour,
                merge=None if last else paste,
            )
        )
    return stages


def _colour(
    sampler: Sampler,
    before: tuple[str, ...],
    window: Frame,
    inputs: Mapping[str, Any],
    noise: Noise,
) -> Block:
    start = place_noise(sampler, window, noise)
    values, mask = np.zeros(start.shape, np.float32), np.zeros(window.shape, bool)
    for name in before:  # where two of them cover a cell, they hold the same value
        block = inputs[name]
        covered = block.dense["covered"]
        values[covered] = block.dense[STATE][covered]
        mask |= covered
    if not mask.any():
        state = sampler.advance(start, window, _own(inputs, before), 0.0, 1.0, None)
    elif mask.all():  # a window of an earlier colour, in the last stage
        state = values
    else:

        def again(n: int) -> NDArray:
            return place_noise(sampler, window, noise, f"repeat {n}")

        state = sampler.advance(
            start,
            window,
            _own(inputs, before),
            0.0,
            1.0,
            InpaintingMask(values, mask, start, again),
        )
        state = np.where(mask[..., None], values, state)
    return Block(window, {STATE: state})


def _paste(channels: int, frame: Frame, parts: Sequence[tuple[tuple[int, int], Block]]) -> Block:
    """Windows that do not overlap on a frame, and which cells they cover."""
    state, covered = np.zeros((*frame.shape, channels), np.float32), np.zeros(frame.shape, bool)
    for _, block in parts:
        where = frame.slices(block.frame)
        state[where], covered[where] = block.dense[STATE], True
    return Block(frame, {STATE: state, "covered": covered})


def raised_cosine(window: int) -> NDArray:
    """(window,) float64 weights: a raised cosine, from near 0.001 at the edges to 1 in the
    middle."""
    place = (np.arange(window) + 0.5) / window
    return 0.001 + 0.999 * 0.5 * (1.0 - np.cos(2.0 * math.pi * place))


def blended(
    sampler: Sampler,
    phases: int = 2,
    weights: Weights = raised_cosine,
    times: Sequence[float] | None = None,
) -> list[Stage]:
    """All windows at once, in phases; each starts from the weighted mean of the states at the end
    of the one before.

    phases : each makes the place depend on one more ring of windows
    weights : picklable
    times : (phases + 1,) rising from 0 to 1, between which the phases run; None for phases that
        last equally long

    The sums run in the order of the window index, in float64, and are divided once. What is to be
    thresholded, such as occupancy, has to be blended as logits, and thresholded by a stage that
    reads this.

    Raises
    ------
    PluginError
        if windows do not overlap, the times do not rise from 0 to 1, or a weight is not positive
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
            f"sampler {sampler.name!r}: windows of {sampler.window} cells at a stride of {sampler.stride} cannot be "
            "blended with these weights",
            "choose a stride below the window, and a positive weight for each of its cells",
        )
    stages: list[Stage] = []
    for n in range(phases):
        before = tuple(stage.name for stage in stages[-1:])
        stages.append(
            _stage(
                sampler,
                sampler.name if n == phases - 1 else f"{sampler.name}/{n}",
                partial(_phase, sampler, times[n], times[n + 1], before),
                before,
                merge=partial(blend, sampler.window, sampler.stride, weights),
            )
        )
    return stages


def _phase(
    sampler: Sampler,
    start: float,
    stop: float,
    before: tuple[str, ...],
    window: Frame,
    inputs: Mapping[str, Any],
    noise: Noise,
) -> Block:
    state = inputs[before[0]].dense[STATE] if before else place_noise(sampler, window, noise)
    return Block(
        window, {STATE: sampler.advance(state, window, _own(inputs, before), start, stop, None)}
    )


def blend(
    window: int,
    stride: int,
    weights: Weights,
    frame: Frame,
    parts: Sequence[tuple[tuple[int, int], Block]],
) -> Block:
    """The weighted mean on a frame of the windows that meet it: the merge of a blended stage.

    parts : (index, what of the window lies in the frame), in the order in which they are to be
        summed
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
            "give all of them",
        )
    return Block(frame, {STATE: (total / weight).astype(np.float32)})


RULES: Mapping[str, Callable[[Sampler], list[Stage]]] = {
    "four_colour": four_colour,
    "blended": blended,
    "independent": independent,
}
"""The rules by name."""

DEFAULT_RULE = "blended"
"""docs/background/benchmarks.md has the figures that decided it."""


def agree(sampler: Sampler, rule: str = DEFAULT_RULE) -> list[Stage]:
    """The stages of a sampler under a rule; the last is called like the sampler and gives `STATE`.

    Raises
    ------
    UnknownNameError
        if there is no such rule
    PluginError
        if the sampler's windows do not suit the rule
    """
    if rule not in RULES:
        raise UnknownNameError(
            f"there is no rule {rule!r} for neighbouring windows", f"choose of {', '.join(RULES)}"
        )
    return RULES[rule](sampler)


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
    """The inputs that are the sampler's own."""
    return {name: value for name, value in inputs.items() if name not in before}
