"""Which way of training samples well in 1 to 4 steps: measured on a mixture in the plane, where the
truth is known.

Every way trains the same small network on the same data for the same number of steps. The measure
is the sliced Wasserstein distance of samples from the data; that of two sets of true samples is the
least that can be reached.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

BATCH = 512
STEPS = 4000
SEEDS = (0, 1, 2)
COUNTS = (1, 2, 4, 25)
SAMPLES = 8192


def run(steps: int = STEPS, seeds: tuple[int, ...] = SEEDS) -> dict[str, object]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {name: [] for name in METHODS}
        took = dict.fromkeys(METHODS, 0.0)
        floor = []
        for seed in seeds:
            floor.append(distance(mixture(SAMPLES, 100 + seed), mixture(SAMPLES, 200 + seed)))
            for name, method in METHODS.items():
                began = time.process_time()
                sampler = method(seed, steps)
                took[name] += time.process_time() - began
                truth = mixture(SAMPLES, 300 + seed)
                noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(400 + seed))
                with torch.no_grad():
                    found[name].append([distance(sampler(noise, count), truth) for count in COUNTS])
    finally:
        torch.set_num_threads(threads)
    table = {
        "steps": ", ".join(map(str, COUNTS)),
        "two true sets": round(sum(floor) / len(floor), 3),
    }
    for name, rows in found.items():
        means = [sum(row[k] for row in rows) / len(rows) for k in range(len(COUNTS))]
        table[name] = (
            " / ".join(f"{mean:.3f}" for mean in means)
            + f"   ({took[name] / len(seeds):.0f} s of training)"
        )
    return table


def mixture(count, seed):  # type: ignore[no-untyped-def]
    """(count, 2) points of eight narrow Gaussians on a ring, deviation about 1 on each axis."""
    import torch

    random = torch.Generator().manual_seed(seed)
    angle = torch.randint(0, 8, (count,), generator=random) * (math.pi / 4)
    centre = torch.stack([angle.cos(), angle.sin()], 1) * 1.4
    return centre + 0.08 * torch.randn(count, 2, generator=random)


def distance(a, b, directions: int = 64) -> float:  # type: ignore[no-untyped-def]
    """Sliced Wasserstein distance of first order between sets of one size, over evenly spread
    directions."""
    import torch

    angle = torch.arange(directions) * (math.pi / directions)
    axes = torch.stack([angle.cos(), angle.sin()])
    return float(((a @ axes).sort(0).values - (b @ axes).sort(0).values).abs().mean())


def network(seed):  # type: ignore[no-untyped-def]
    import torch
    from torch import nn

    from earthgen.models.blocks import Embedding, initialise

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = Embedding(64)
            self.layers = nn.Sequential(
                nn.Linear(66, 128),
                nn.SiLU(),
                nn.Linear(128, 128),
                nn.SiLU(),
                nn.Linear(128, 128),
                nn.SiLU(),
                nn.Linear(128, 2),
            )

        def forward(self, x, time, step):  # type: ignore[no-untyped-def]
            return self.layers(torch.cat([x, self.embed(time, step)], 1))

    net = Net()
    initialise(net, torch.Generator().manual_seed(seed))
    return net


def trained(net, loss: Callable, steps: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    """`loss` is of (step, data, generator)."""
    import torch

    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.0)
    random = torch.Generator().manual_seed(1000 + seed)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for step in range(steps):
        value = loss(step, mixture(BATCH, 10_000_000 + seed * steps + step), random)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        decay.step()


def by_flow(predicts: str, shortcuts: bool):  # type: ignore[no-untyped-def]
    """Flow matching, alone or with a step of shortcut training in four."""

    def method(seed, steps):  # type: ignore[no-untyped-def]
        import torch

        from earthgen.models.flow import Flow, sample
        from earthgen.models.flow_loss import flow_loss, shortcut_loss

        flow, net = Flow(predicts), network(seed)  # type: ignore[arg-type]

        def loss(step, data, random):  # type: ignore[no-untyped-def]
            lost = shortcut_loss if shortcuts and step % 4 == 3 else flow_loss
            return lost(flow, net, data, len(data), lambda values: values[:, None], random)

        trained(net, loss, steps, seed)

        def sampler(noise, count):  # type: ignore[no-untyped-def]
            def predict(state, time, step):  # type: ignore[no-untyped-def]
                return net(state, *(torch.full((len(state),), value) for value in (time, step)))

            few = shortcuts and count <= 4
            return sample(flow, predict, noise, steps=count, method="shortcut" if few else "euler")

        return sampler

    return method


def by_mean_flow(seed, steps):  # type: ignore[no-untyped-def]
    """Mean flows (Geng et al. 2025): the mean velocity u over a step d obeys u = v + d du/dt along
    the way.

    With time from noise to data and the end of the step held, du/dt is the derivative along (v, 1,
    -1). Three samples in four have d = 0; errors are weighted by 1 / (error^2 + 1e-3), as the
    authors do.
    """
    import torch

    from earthgen.models.flow import Flow, interpolate_state

    flow, net = Flow("velocity"), network(seed)

    def loss(step, data, random):  # type: ignore[no-untyped-def]
        noise = torch.randn(data.shape, generator=random)
        a, b = flow.times(len(data), random), flow.times(len(data), random)
        flat = torch.rand(len(data), generator=random) < 0.75
        start = torch.minimum(a, b)
        long = torch.where(flat, 0.0, torch.maximum(a, b) - start)
        state, velocity = interpolate_state(data, noise, start[:, None]), data - noise
        ones = torch.ones_like(start)
        found, slope = torch.func.jvp(net, (state, start, long), (velocity, ones, -ones))
        error = (found - (velocity + long[:, None] * slope).detach()).square().sum(1)
        return (error / (error.detach() + 1e-3)).mean()

    trained(net, loss, steps, seed)

    def sampler(noise, count):  # type: ignore[no-untyped-def]
        state = noise
        for number in range(count):
            time, step = (torch.full((len(state),), value) for value in (number / count, 1 / count))
            state = state + net(state, time, step) / count
        return state

    return sampler


def by_consistency(seed, steps):  # type: ignore[no-untyped-def]
    """Consistency training (Song et al. 2023; Song & Dhariwal 2024): neighbours on a line to noise
    lead to one point.

    10 to 160 intervals, doubled as training goes on, pseudo-Huber loss weighted by 1 / interval.
    Samples of several steps are made noisy again in between.
    """
    import torch

    from earthgen.models.flow import interpolate_state

    net = network(seed)

    def data_of(state, time):  # type: ignore[no-untyped-def]
        return state + (1 - time)[:, None] * net(state, time, torch.zeros_like(time))

    def loss(step, data, random):  # type: ignore[no-untyped-def]
        count = 10 * 2 ** min(5 * step // steps, 4)
        noise = torch.randn(data.shape, generator=random)
        place = torch.sigmoid(torch.randn(len(data), generator=random))
        time = (place * count).floor() / count
        nearer = time + 1 / count
        with torch.no_grad():
            target = data_of(interpolate_state(data, noise, nearer[:, None]), nearer)
        error = (
            (data_of(interpolate_state(data, noise, time[:, None]), time) - target).square().sum(1)
        )
        return (((error + 0.03**2).sqrt() - 0.03) * count).mean()

    trained(net, loss, steps, seed)

    def sampler(noise, count):  # type: ignore[no-untyped-def]
        random = torch.Generator().manual_seed(seed)
        state = noise
        for number in range(count):
            time = torch.full((len(noise),), number / count)
            found = data_of(state, time)
            after = (number + 1) / count
            state = after * found + (1 - after) * torch.randn(noise.shape, generator=random)
        return state

    return sampler


METHODS: dict[str, Callable] = {
    "flow, velocity": by_flow("velocity", False),
    "flow, data": by_flow("data", False),
    "shortcut, velocity": by_flow("velocity", True),
    "shortcut, data": by_flow("data", True),
    "mean flow": by_mean_flow,
    "consistency": by_consistency,
}
