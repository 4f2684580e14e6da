"""Rectified flow: from noise to data along straight lines, trained and sampled.

A state at time t in [0, 1] is t * data + (1 - t) * noise (Liu et al. 2022, "Flow Straight and
Fast"), so time runs as in `earthgen.stages.blending`. A network predicts the velocity, data -
noise, or the data themselves; either is the other by arithmetic, and the loss is that of what is
predicted. Times are logit-normal (Esser et al., ICML 2024, equation 19).

Functions work on tensors of any shape. A batch of sparse samples is one tensor of rows, whose times
are one a row: `earthgen.models.blocks.spread`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from earthgen.errors import ModelError
from earthgen.models.presets import FlowConfig
from earthgen.noise import torch_philox as noise_torch
from earthgen.noise.philox import Stream
from earthgen.sparse.sites import Sites
from geo_io.frame import Frame

Method = Literal["euler", "heun", "shortcut"]

METHODS: tuple[Method, ...] = ("euler", "heun", "shortcut")

NEAREST = 0.02
"""How near to the data a velocity is told from predicted data: 1 - t is taken as this at least."""

Predict = Callable[[Tensor, float, float], Tensor]
"""What a network predicts of a state at a time, for a step of a length: (state, time, step) ->
of the state's shape."""


@dataclass(frozen=True)
class Flow:
    """What a flow's network predicts, and the times that it is trained at.

    Attributes
    ----------
    predicts : "data" or "velocity"
    mean, deviation : of the logit of the training times
    """

    predicts: Literal["data", "velocity"] = "data"
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, config: FlowConfig) -> Flow:
        return cls(config.predicts, config.mean, config.deviation)

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) float32 training times, on the generator's device."""
        drawn = torch.randn(count, generator=generator, device=generator.device)
        return torch.sigmoid(self.mean + self.deviation * drawn)

    def target(self, data: Tensor, noise: Tensor) -> Tensor:
        """What the network is to predict."""
        return data if self.predicts == "data" else data - noise

    def loss(
        self, found: Tensor, data: Tensor, noise: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Mean square error of a prediction.

        weight : of each element, broadcast; 0 leaves elements out
        """
        return mean_square(found, self.target(data, noise), weight)

    def velocity(self, found: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """The velocity by a prediction at a state; time broadcasts over the state."""
        if self.predicts == "velocity":
            return found
        return (found - state) / _rest(time)

    def data(self, found: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """The data by a prediction at a state."""
        return found if self.predicts == "data" else state + (1 - time) * found

    def as_prediction(self, velocity: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """What the network would have to predict for a velocity."""
        return velocity if self.predicts == "velocity" else state + _rest(time) * velocity


def _rest(time: Tensor | float) -> Tensor | float:
    return (1 - time).clamp(min=NEAREST) if isinstance(time, Tensor) else max(1 - time, NEAREST)


def between(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The state at a time, which broadcasts over the data."""
    return time * data + (1 - time) * noise


def mean_square(found: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean square error in float32; 0 of nothing, and where all weights are 0."""
    error = (found.float() - target.float()).square()
    if weight is None:
        return error.sum() / max(error.numel(), 1)
    spread = weight.float().expand_as(error)
    return (error * spread).sum() / spread.sum().clamp(min=1e-9)


def place_noise(
    stream: Stream, places: Sites | Frame, channels: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Normal random numbers of places alone, float32: the same in every window that holds the
    place.

    places : sites, for (n, channels), of their cells' indices on the lattice of their stride; or a
        frame, for
        (1, channels, ny, nx), the first row northernmost

    Levels of several strides want a stream each.
    """
    if isinstance(places, Frame):
        return (
            noise_torch.normals(stream, places, channels, device)
            .permute(2, 0, 1)[None]
            .contiguous()
        )
    stride = torch.tensor(places.stride, device=places.device)
    return noise_torch.normals(
        stream, places.lattice().div(stride, rounding_mode="floor"), channels
    )


def training_noise(data: Tensor, generator: torch.Generator) -> Tensor:
    """Normal random numbers in the order of a tensor, float32: for training only."""
    return torch.randn(data.shape, generator=generator, device=data.device)


def schedule(steps: int, shift: float = 1.0, start: float = 0.0, stop: float = 1.0) -> list[float]:
    """Times of `steps` steps from start to stop.

    shift : above 1, steps are shorter near the noise (Esser et al., ICML 2024, equation 23)

    Raises ModelError for fewer than one step, a shift below 0, or times that do not rise within [0,
    1].
    """
    if steps < 1:
        raise ModelError(f"{steps} steps lead nowhere", "give at least one")
    if shift <= 0 or not 0 <= start < stop <= 1:
        raise ModelError(
            f"times from {start} to {stop} with a shift of {shift} cannot be divided",
            "give 0 <= start < stop <= 1",
        )
    grid = (n / (shift * steps - (shift - 1.0) * n) for n in range(steps + 1))
    inner = [time for time in grid if start + 1e-6 < time < stop - 1e-6]
    return [start, *inner, stop]


def sample(
    flow: Flow,
    predict: Predict,
    state: Tensor,
    *,
    steps: int = 25,
    method: Method = "euler",
    shift: float = 1.0,
    start: float = 0.0,
    stop: float = 1.0,
) -> Tensor:
    """From a state at `start`, such as noise at 0, to one at `stop`, such as data at 1.

    method : "euler"; "heun", of second order, for two evaluations a step but for the last;
        "shortcut", Euler's with
        the network told how long the step is (Frans et al. 2024), for flows trained so: good with 1
        to 4 steps

    Raises ModelError for another method and as `schedule`.
    """
    if method not in METHODS:
        raise ModelError(f"there is no method {method!r}", f"there are {', '.join(METHODS)}")
    for time, after in pairwise(schedule(steps, shift, start, stop)):
        step = after - time
        told = step if method == "shortcut" else 0.0
        velocity = flow.velocity(predict(state, time, told), state, time)
        ahead = state + step * velocity
        if (
            method == "heun" and after < 1 - 1e-6
        ):  # at time 1 there is no noise left to tell a velocity from
            velocity = (velocity + flow.velocity(predict(ahead, after, 0.0), ahead, after)) / 2
            ahead = state + step * velocity
        state = ahead
    return state


def guided(conditioned: Predict, free: Predict, scale: float) -> Predict:
    """Classifier-free guidance (Ho & Salimans 2022): what the condition changes, `scale` times.

    A scale of 1 is the conditioned prediction, and costs one evaluation; 0 is the free one.
    """
    if scale == 1:
        return conditioned
    if scale == 0:
        return free

    def predict(state: Tensor, time: float, step: float) -> Tensor:
        without = free(state, time, step)
        return without + scale * (conditioned(state, time, step) - without)

    return predict


def times_of(time: float, batch: int, device: torch.device) -> Tensor:
    """(batch,) float32 of one time."""
    return torch.full((batch,), time, dtype=torch.float32, device=device)
