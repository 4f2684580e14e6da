"""What a flow is trained to: its target at random times, or to agree with itself over longer steps.

A shortcut model (Frans et al. 2024, "One Step Diffusion via Shortcut Models") is told how long a
step it is to take, and learns that one step of 2 d leads where two of d lead. It then samples in 1,
2 or 4 steps, with the network and the data of the flow itself. docs/background/benchmarks.md has
the measurement by which it was chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.models.flow import Flow, between, mean_square, training_noise

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(state, time, step) -> prediction; time and step (batch,)."""

Spread = Callable[[Tensor], Tensor]
"""(batch,) values so that they broadcast over a state."""

OCTAVES = 6
"""Shortest step of a shortcut: 2^-6 of the way. Half of it counts as the flow itself."""


def flow_loss(
    flow: Flow,
    network: Network,
    data: Tensor,
    batch: int,
    spread: Spread,
    generator: torch.Generator,
    weight: Tensor | None = None,
) -> Tensor:
    """The loss of flow matching at random times, one a sample.

    data : of any shape; weight : of each element, broadcast
    """
    device = data.device
    time = flow.times(batch, generator).to(device)
    noise = training_noise(data, generator)
    found = network(between(data, noise, spread(time)), time, torch.zeros(batch, device=device))
    return flow.loss(found, data, noise, weight)


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
    """The loss of one step of 2 d against two of d, which are taken without gradients.

    teacher : takes the two steps, such as an average of the network's weights over time; by default
        the network

    Alternate it with `flow_loss`: one step in four is what the paper takes.
    """
    device, where = data.device, generator.device
    octave = torch.randint(0, OCTAVES + 1, (batch,), generator=generator, device=where).to(device)
    long = 2.0**-octave
    position = torch.rand(batch, generator=generator, device=where).to(device)
    time = (position / long).floor() * long  # whole steps lead there
    short = long / 2
    told = torch.where(octave == OCTAVES, 0.0, short)
    noise = training_noise(data, generator)
    state = between(data, noise, spread(time))
    with torch.no_grad():
        follow = teacher or network
        first = flow.velocity(follow(state, time, told), state, spread(time))
        middle = state + spread(short) * first
        second = flow.velocity(follow(middle, time + short, told), middle, spread(time + short))
        target = flow.as_prediction((first + second) / 2, state, spread(time))
    return mean_square(network(state, time, long), target, weight)


def over_maps(values: Tensor) -> Tensor:
    """(batch, 1, 1, 1): a `Spread` for maps."""
    return values[:, None, None, None]
