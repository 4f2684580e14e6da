"""Rectified flow: from noise to data along straight lines.

A state at time t in [0, 1] is t * data + (1 - t) * noise (Liu et al. 2022, "Flow Straight and
Fast"), as in `earthgen.stages.blending`. Training times are logit-normal (Esser et al., ICML 2024,
equation 19), with a share of uniform ones.

A network predicts the velocity, data - noise, the data themselves, or, "preconditioned", F in

    data = c_skip * state + c_out * F(c_in * state, time)
    c_skip = t / a,  c_out = (1 - t) / sqrt(a),  c_in = 1 / sqrt(a),  a = t^2 + (1 - t)^2

after Karras et al. 2022 ("Elucidating the Design Space of Diffusion-Based Generative Models",
section 5), for this path and data of unit variance. Input and target then have unit variance at
every time, so the loss needs no weight, and F = 0 returns the best linear estimate: near the end a
network cannot do worse than returning its input.

Functions work on tensors of any shape. A batch of sparse samples is one tensor of rows, with one
time per row: `earthgen.models.blocks.expand_to_rows`.
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

Method = Literal["euler", "heun"]

Prediction = Literal["data", "velocity", "preconditioned"]

Network = Callable[[Tensor, Tensor], Tensor]
"""(state, time) -> prediction; time (batch,)."""

Spread = Callable[[Tensor], Tensor]
"""Reshapes (batch,) values so that they broadcast over a state."""

METHODS: tuple[Method, ...] = ("euler", "heun")

NEAREST = 0.02
"""Smallest 1 - t by which a velocity is computed from predicted data."""

Predict = Callable[[Tensor, float], Tensor]
"""A network's prediction: (state, time) -> tensor of the state's shape."""


@dataclass(frozen=True)
class Flow:
    """What a flow's network predicts, and the times that it is trained at.

    Attributes
    ----------
    predicts : str
        "data", "velocity" or "preconditioned".
    time_logit_mean, time_logit_std : float
        Mean and standard deviation of the logit of the training times.
    time_uniform : float
        Share of the training times that are uniform in [0, 1) instead.
    """

    predicts: Prediction = "data"
    time_logit_mean: float = 0.0
    time_logit_std: float = 1.0
    time_uniform: float = 0.0

    @classmethod
    def of(cls, config: FlowConfig) -> Flow:
        """Return the flow of a configuration."""
        return cls(
            config.predicts, config.time_logit_mean, config.time_logit_std, config.time_uniform
        )

    def times(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw training times, (count,) float32 on the generator's device."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        times = torch.sigmoid(self.time_logit_mean + self.time_logit_std * normal)
        if self.time_uniform:
            uniform = torch.rand(2, count, generator=generator, device=generator.device)
            times = torch.where(uniform[0] < self.time_uniform, uniform[1], times)
        return times

    def network_input(self, state: Tensor, time: Tensor | float) -> Tensor:
        """Return what the network gets for a state; time broadcasts over the state."""
        return state / _norm(time) if self.predicts == "preconditioned" else state

    def target(self, data: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
        """Return what the network has to predict; time broadcasts over the data."""
        if self.predicts == "data":
            return data
        if self.predicts == "velocity":
            return data - noise
        # (data - c_skip * state) / c_out, without a division by 1 - t.
        return ((1 - time) * data - time * noise) / _norm(time)

    def loss(
        self,
        prediction: Tensor,
        data: Tensor,
        noise: Tensor,
        time: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the mean square error of a prediction, with an optional weight per element."""
        return mean_square(prediction, self.target(data, noise, time), weight)

    def velocity(self, prediction: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """Return the velocity of a prediction at a state; time broadcasts over the state."""
        if self.predicts == "velocity":
            return prediction
        if self.predicts == "preconditioned":
            norm = _norm(time)
            return (2 * time - 1) / norm**2 * state + prediction / norm
        return (prediction - state) / _time_left(time)

    def data(self, prediction: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """Return the data of a prediction at a state."""
        if self.predicts == "data":
            return prediction
        return state + (1 - time) * self.velocity(prediction, state, time)

    def as_prediction(self, velocity: Tensor, state: Tensor, time: Tensor | float) -> Tensor:
        """Return the prediction that means a velocity, the inverse of `velocity`."""
        if self.predicts == "velocity":
            return velocity
        if self.predicts == "preconditioned":
            norm = _norm(time)
            return norm * velocity - (2 * time - 1) / norm * state
        return state + _time_left(time) * velocity


def _time_left(time: Tensor | float) -> Tensor | float:
    return (1 - time).clamp(min=NEAREST) if isinstance(time, Tensor) else max(1 - time, NEAREST)


def _norm(time: Tensor | float) -> Tensor | float:
    """The standard deviation of a state of unit data and noise."""
    return (time**2 + (1 - time) ** 2) ** 0.5


def interpolate_state(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Return the state at a time, which broadcasts over the data."""
    return time * data + (1 - time) * noise


def mean_square(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean square error in float32, 0 without elements or weights."""
    error = (prediction.float() - target.float()).square()
    if weight is None:
        return error.sum() / max(error.numel(), 1)
    weights = weight.float().expand_as(error)
    return (error * weights).sum() / weights.sum().clamp(min=1e-9)


def place_noise(
    stream: Stream, places: Sites | Frame, channels: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Return normal random numbers keyed by place: the same in every window that has the place.

    Parameters
    ----------
    stream : Stream
        Source of the numbers; levels of different strides need one each.
    places : Sites or Frame
        Cells, by their indices on the lattice of their stride, or the columns of a frame.
    channels : int
        Numbers per place.
    device : torch.device or str
        For a frame.

    Returns
    -------
    Tensor (n, channels) or (1, channels, ny, nx) float32
        For sites, or for a frame with the northernmost row first.
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
    """Draw normal random numbers of a tensor's shape, float32, for training only."""
    return torch.randn(data.shape, generator=generator, device=data.device)


def schedule(steps: int, shift: float = 1.0, start: float = 0.0, stop: float = 1.0) -> list[float]:
    """Return the times between steps, `steps` + 1 of them for the whole way.

    Parameters
    ----------
    steps : int
        Steps from time 0 to 1.
    shift : float
        Above 1, steps are shorter near the noise (Esser et al., ICML 2024, equation 23).
    start, stop : float
        First and last time; steps outside are left out.

    Raises
    ------
    ModelError
        If a value is out of range.
    """
    if steps < 1:
        raise ModelError(f"the number of steps is {steps}", "give at least 1")
    if shift <= 0 or not 0 <= start < stop <= 1:
        raise ModelError(
            f"the times from {start} to {stop} or the shift {shift} are out of range",
            "give 0 <= start < stop <= 1 and a shift above 0",
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
    """Integrate a flow from a state at `start` to one at `stop`.

    Parameters
    ----------
    flow : Flow
        What the network predicts.
    predict : callable
        The network, such as `SparseFlow.predictor` gives it.
    state : Tensor
        The state at `start`, noise at 0.
    steps, shift, start, stop
        As of `schedule`.
    method : str
        "euler", or "heun", of second order, with two evaluations per step except the last.

    Returns
    -------
    Tensor
        The state at `stop`, data at 1.

    Raises
    ------
    ModelError
        If the method is unknown, or as of `schedule`.
    """
    if method not in METHODS:
        raise ModelError(f"unknown method {method!r}", f"choose from {', '.join(METHODS)}")
    for time, after in pairwise(schedule(steps, shift, start, stop)):
        step = after - time
        velocity = flow.velocity(predict(state, time), state, time)
        ahead = state + step * velocity
        # At time 1 there is no noise left to compute a velocity from.
        if method == "heun" and after < 1 - 1e-6:
            velocity = (velocity + flow.velocity(predict(ahead, after), ahead, after)) / 2
            ahead = state + step * velocity
        state = ahead
    return state


def apply_guidance(conditioned: Predict, free: Predict, scale: float) -> Predict:
    """Return predictions with classifier-free guidance (Ho & Salimans 2022).

    A scale of 1 is the conditioned prediction and costs one evaluation; 0 is the free one.

    Parameters
    ----------
    conditioned, free : callable
        Predictions with and without conditions.
    scale : float
        Factor of the difference of the two.
    """
    if scale == 1:
        return conditioned
    if scale == 0:
        return free

    def predict(state: Tensor, time: float) -> Tensor:
        without = free(state, time)
        return without + scale * (conditioned(state, time) - without)

    return predict


def batch_of_times(time: float, batch: int, device: torch.device) -> Tensor:
    """Return one time for each sample, (batch,) float32."""
    return torch.full((batch,), time, dtype=torch.float32, device=device)


def flow_loss(
    flow: Flow,
    network: Network,
    data: Tensor,
    batch: int,
    spread: Spread,
    generator: torch.Generator,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the loss of flow matching at random times, one per sample.

    Parameters
    ----------
    flow : Flow
        What the network predicts.
    network : (state, time) -> Tensor
        The network.
    data : Tensor
        Data of any shape.
    batch : int
        Number of samples.
    spread : callable
        Reshapes (batch,) values so that they broadcast over the data.
    generator : torch.Generator
        Draws times and noise.
    weight : Tensor, optional
        Weight of each element, broadcast.
    """
    time = flow.times(batch, generator).to(data.device)
    noise = training_noise(data, generator)
    at = spread(time)
    state = interpolate_state(data, noise, at)
    return flow.loss(network(flow.network_input(state, at), time), data, noise, at, weight)


def over_maps(values: Tensor) -> Tensor:
    """Reshape (batch,) values to (batch, 1, 1, 1), a `Spread` for maps."""
    return values[:, None, None, None]
