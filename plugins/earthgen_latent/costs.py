"""What the learned backends take, by counting products: for `earthgen plan`."""

from __future__ import annotations

from collections.abc import Sequence

from earthgen.models.cost import account
from earthgen.models.presets import PRESETS
from earthgen.stages.backends import Cost
from earthgen_latent.networks import Networks
from earthgen_latent.sampling import Sampling

FLOPS_PER_SECOND = 40e9
"""Of one core. Measured with preset `tiny` on a core with AVX-512: 128e9 (height map), 45e9 to
90e9 (voxels), 20e9 (conditions)."""

TORCH_MEMORY = 250_000_000
"""Bytes that torch itself takes in a process; measured."""


def cost_of(
    networks: Networks,
    sampling: Sampling,
    window: int,
    stride: int,
    flows: Sequence[str],
    decoders: Sequence[str],
) -> Cost:
    """What flows and decoders take, on windows of a town on its ground; nothing is known of
    weights of no preset."""
    if networks.preset not in PRESETS:
        return Cost(0.0, TORCH_MEMORY, "nothing is known of weights of no preset: give --sample")
    found = {part: account(networks.preset, part, window) for part in (*flows, *decoders)}
    runs = (2 if sampling.guidance not in (0, 1) else 1) * (2 if sampling.method == "heun" else 1)
    phases = sampling.phases if sampling.rule == "blended" else 1
    flops = sum(
        runs
        * (max(sampling.steps, phases) * found[part].flops + phases * found[part].condition_flops)
        for part in flows
    )
    flops += sum(found[part].flops for part in decoders)
    memory = TORCH_MEMORY + max(each.memory for each in found.values())
    basis = f"products of preset {networks.preset} counted, at {FLOPS_PER_SECOND / 1e9:.0f} GFLOP/s a core"
    return Cost(flops / FLOPS_PER_SECOND / stride**2, memory, basis)
