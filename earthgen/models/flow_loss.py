"""The loss of flows: flow matching at random times."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from earthgen.models.flow import Flow, interpolate_state, training_noise

Network = Callable[[Tensor, Tensor], Tensor]
"""(state, time) -> prediction; time (batch,)."""

Spread = Callable[[Tensor], Tensor]
"""Reshapes (batch,) values so that they broadcast over a state."""


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
