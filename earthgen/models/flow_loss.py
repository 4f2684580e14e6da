"""Losses of flows: flow matching at random times, and self-consistency over longer steps.

A shortcut model (Frans et al. 2024, "One Step Diffusion via Shortcut Models") has the length of the
step as an input, and learns that one step of 2 d leads to where two of d lead. It then samples in
1, 2 or 4 steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.models.flow import Flow, interpolate_state, mean_square, training_noise

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(state, time, step) -> prediction; time and step (batch,)."""

Spread = Callable[[Tensor], Tensor]
"""Reshapes (batch,) values so that they broadcast over a state."""

OCTAVES = 6
"""The shortest step of a shortcut is 2^-6 of the way; half of it counts as 0."""


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
    network : (state, time, step) -> Tensor
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
    device = data.device
    time = flow.times(batch, generator).to(device)
    noise = training_noise(data, generator)
    state = interpolate_state(data, noise, spread(time))
    at = spread(time)
    prediction = network(flow.network_input(state, at), time, torch.zeros(batch, device=device))
    return flow.loss(prediction, data, noise, at, weight)


def shortcut_loss(
    flow: Flow,
    network: Network,
    data: Tensor,
    batch: int,
    spread: Spread,
    generator: torch.Generator,
    weight: Tensor | None = None,
    teacher: Network | None = None,
) -> Tensor:
    """Return the loss of one step of 2 d against two of d, which have no gradients.

    It is used in one of four steps of training, `flow_loss` in the others.

    Parameters
    ----------
    flow, network, data, batch, spread, generator, weight
        As of `flow_loss`.
    teacher : callable, optional
        Network of the two steps; by default `network`.
    """
    device, where = data.device, generator.device
    octave = torch.randint(0, OCTAVES + 1, (batch,), generator=generator, device=where).to(device)
    long = 2.0**-octave
    position = torch.rand(batch, generator=generator, device=where).to(device)
    time = (position / long).floor() * long  # whole steps lead there
    short = long / 2
    length = torch.where(octave == OCTAVES, 0.0, short)
    noise = training_noise(data, generator)
    state = interpolate_state(data, noise, spread(time))
    with torch.no_grad():
        follow = teacher or network
        at, later = spread(time), spread(time + short)
        first = flow.velocity(follow(flow.network_input(state, at), time, length), state, at)
        middle = state + spread(short) * first
        ahead = follow(flow.network_input(middle, later), time + short, length)
        second = flow.velocity(ahead, middle, later)
        target = flow.as_prediction((first + second) / 2, state, at)
    return mean_square(network(flow.network_input(state, at), time, long), target, weight)


def over_maps(values: Tensor) -> Tensor:
    """Reshape (batch,) values to (batch, 1, 1, 1), a `Spread` for maps."""
    return values[:, None, None, None]
