"""The cost of the learned backends, by counting products, for `earthgen plan`."""

from __future__ import annotations

from collections.abc import Sequence

from earthgen.models.cost import part_cost
from earthgen.models.presets import PRESETS
from earthgen.stages.backends import Cost
from earthgen_latent.networks import Networks
from earthgen_latent.sampling import Sampling

FLOPS_PER_SECOND = 40e9
"""Speed of one core. Measured with preset `tiny` on a core with AVX-512: 128e9 (height map), 45e9
to 90e9 (voxels), 20e9 (conditions)."""

TORCH_MEMORY = 250_000_000
"""Bytes that torch itself takes in a process, measured."""


def count_cost(
    networks: Networks,
    sampling: Sampling,
    window: int,
    stride: int,
    flows: Sequence[str],
    decoders: Sequence[str],
) -> Cost:
    """Count the cost of flows and decoders on windows of a schematic town.

    Parameters
    ----------
    networks : Networks
        The weights; those without a preset have no known cost.
    sampling : Sampling
        Options of the flows.
    window, stride : int
        Of the flows' windows, voxels.
    flows, decoders : sequence of str
        Parts that are used.
    """
    if networks.preset not in PRESETS:
        return Cost(0.0, TORCH_MEMORY, "weights without a preset have no known cost: give --sample")
    heights = "height-flow" in flows
    costs = {
        part: part_cost(networks.preset, part, window, heights) for part in (*flows, *decoders)
    }
    runs = (2 if sampling.guidance not in (0, 1) else 1) * (2 if sampling.method == "heun" else 1)
    phases = sampling.phases if sampling.rule == "blended" else 1
    flops = sum(
        runs
        * (max(sampling.steps, phases) * costs[part].flops + phases * costs[part].condition_flops)
        for part in flows
    )
    flops += sum(costs[part].flops for part in decoders)
    memory = TORCH_MEMORY + max(each.memory for each in costs.values())
    speed = f"{FLOPS_PER_SECOND / 1e9:.0f} GFLOP/s per core"
    basis = f"products of preset {networks.preset} counted, at {speed}"
    return Cost(flops / FLOPS_PER_SECOND / stride**2, memory, basis)
