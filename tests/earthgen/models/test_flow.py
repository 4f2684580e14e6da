"""Rectified flow: times, targets, samplers against fields whose answer is known, and the noise
of a place."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from earthgen.errors import ModelError
from earthgen.models.flow import (
    Flow,
    apply_guidance,
    batch_of_times,
    flow_loss,
    interpolate_state,
    mean_square,
    over_maps,
    place_noise,
    sample,
    schedule,
    training_noise,
)
from earthgen.noise.philox import Noise
from tests.helpers.model_scenes import frame, generator, town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_times_are_logit_normal() -> None:
    times = Flow(time_logit_mean=0.5, time_logit_std=0.8).times(20000, generator())
    logits = torch.logit(times.double())
    assert float(logits.mean()) == pytest.approx(0.5, abs=0.03) and float(
        logits.std()
    ) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("predicts", ["data", "velocity", "preconditioned"])
def test_a_prediction_and_its_velocity_are_one(predicts: str) -> None:
    flow = Flow(predicts)  # type: ignore[arg-type]
    data, noise = (
        torch.randn(50, 3, generator=generator(1)),
        torch.randn(50, 3, generator=generator(2)),
    )
    time = torch.rand(50, 1, generator=generator(3)) * 0.9
    state = interpolate_state(data, noise, time)
    found = flow.target(data, noise, time)
    torch.testing.assert_close(
        flow.velocity(found, state, time), data - noise, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(flow.data(found, state, time), data, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        flow.as_prediction(data - noise, state, time), found, rtol=1e-4, atol=1e-4
    )
    assert float(flow.loss(found, data, noise, time)) == 0


def test_preconditioning_gives_input_and_target_of_unit_variance_at_every_time() -> None:
    flow = Flow("preconditioned")
    data, noise = torch.randn(2, 20_000, generator=generator(1))
    for time in (0.0, 0.3, 0.5, 0.9, 0.999, 1.0):
        at = torch.tensor(time)
        state = interpolate_state(data, noise, at)
        assert float(flow.network_input(state, at).std()) == pytest.approx(1, abs=0.02)
        assert float(flow.target(data, noise, at).std()) == pytest.approx(1, abs=0.02)
        # An output of 0 is the best linear estimate: never worse than the input itself.
        estimate = flow.data(torch.zeros_like(state), state, at)
        best = float((data - estimate).square().mean())
        assert best <= float((data - state / max(time, 1e-3)).square().mean()) + 1e-6
        assert best == pytest.approx((1 - time) ** 2 / (time**2 + (1 - time) ** 2), abs=0.03)


def test_a_share_of_the_times_is_uniform() -> None:
    normal = Flow(time_logit_mean=0.8, time_logit_std=1.4).times(20_000, generator(1))
    mixed = Flow(time_logit_mean=0.8, time_logit_std=1.4, time_uniform=0.5)
    times = mixed.times(20_000, generator(1))
    assert float((normal < 0.05).float().mean()) < 0.01
    assert float((times < 0.05).float().mean()) == pytest.approx(0.025, abs=0.006)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("predicts", ["data", "velocity", "preconditioned"])
def test_one_datum_is_found_in_any_number_of_steps(method: str, predicts: str) -> None:
    """Where all data are one point, the lines are straight and one step leads there."""
    flow, point = Flow(predicts), torch.tensor([[2.0, -1.0]])  # type: ignore[arg-type]

    def predict(state: Tensor, time: float) -> Tensor:
        return flow.as_prediction((point - state) / max(1 - time, 1e-9), state, time)

    for steps in (1, 2, 7):
        found = sample(
            flow, predict, torch.randn(40, 2, generator=generator()), steps=steps, method=method
        )  # type: ignore[arg-type]
        torch.testing.assert_close(found, point.expand(40, 2), rtol=1e-5, atol=1e-5)


def gaussian(flow: Flow, deviation: float):  # type: ignore[no-untyped-def]
    """The exact prediction for normal data: along the way a state keeps its ratio to the
    deviation of its time."""

    def predict(state: Tensor, time: float) -> Tensor:
        variance = (time * deviation) ** 2 + (1 - time) ** 2
        return flow.as_prediction(
            state * (time * deviation**2 - (1 - time)) / variance, state, time
        )

    return predict


def test_heun_is_of_second_order_and_euler_of_first() -> None:
    flow = Flow("velocity")
    noise = torch.randn(100, 1, generator=generator(), dtype=torch.float64)

    def error(method: str, steps: int) -> float:
        found = sample(flow, gaussian(flow, 0.5), noise, steps=steps, method=method, stop=0.9)  # type: ignore[arg-type]
        exact = noise * math.hypot(0.9 * 0.5, 0.1)
        return float((found - exact).abs().max())

    assert 1.7 < error("euler", 50) / error("euler", 100) < 2.3
    assert 3.3 < error("heun", 50) / error("heun", 100) < 4.7


def test_sampling_in_two_parts_is_sampling() -> None:
    flow, noise = Flow("data"), torch.randn(30, 2, generator=generator())
    whole = sample(flow, gaussian(flow, 0.7), noise, steps=10)
    part = sample(flow, gaussian(flow, 0.7), noise, steps=10, stop=0.4)
    torch.testing.assert_close(sample(flow, gaussian(flow, 0.7), part, steps=10, start=0.4), whole)


def test_schedules() -> None:
    assert schedule(4) == [0, 0.25, 0.5, 0.75, 1]
    times = schedule(8, shift=3.0)
    steps = [b - a for a, b in pairwise(times)]
    assert len(times) == 9 and steps == sorted(steps) and times[-1] == 1
    for wrong in (
        {"steps": 0},
        {"steps": 4, "start": 0.5, "stop": 0.5},
        {"steps": 4, "shift": 0.0},
    ):
        with pytest.raises(ModelError):
            schedule(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="unknown method 'rk4'"):
        sample(Flow(), gaussian(Flow(), 1), torch.zeros(1, 1), method="rk4")  # type: ignore[arg-type]


def test_guidance() -> None:
    with_, without = torch.tensor([3.0]), torch.tensor([1.0])
    asked: list[str] = []

    def one(state: Tensor, time: float) -> Tensor:
        asked.append("with")
        return with_

    def other(state: Tensor, time: float) -> Tensor:
        asked.append("without")
        return without

    assert float(apply_guidance(one, other, 1.0)(with_, 0.5)) == 3 and asked == ["with"]
    assert float(apply_guidance(one, other, 0.0)(with_, 0.5)) == 1
    assert float(apply_guidance(one, other, 3.0)(with_, 0.5)) == 7


def test_losses_of_nothing_and_weights() -> None:
    assert float(mean_square(torch.zeros(0, 3), torch.zeros(0, 3))) == 0
    found, target = torch.tensor([[1.0, 1.0], [5.0, 5.0]]), torch.zeros(2, 2)
    assert float(mean_square(found, target)) == 13
    assert float(mean_square(found, target, torch.tensor([[1.0], [0.0]]))) == 1
    assert float(mean_square(found, target, torch.zeros(2, 1))) == 0


def test_a_perfect_flow_has_no_loss_but_what_noise_hides() -> None:
    """Of one point, the exact prediction has a loss of 0."""
    flow, point = Flow("velocity"), torch.full((6, 1, 2, 2), 0.5)

    def network(state: Tensor, time: Tensor) -> Tensor:
        return (point - state) / (1 - over_maps(time)).clamp(min=1e-9)

    assert float(flow_loss(flow, network, point, 6, over_maps, generator())) == pytest.approx(
        0, abs=1e-6
    )


def test_noise_is_that_of_the_place() -> None:
    stream = Noise(7).stream("test")
    whole, part = town(64).sites, town(32, east=32).sites
    there = part.coordinates + torch.tensor([0, 32, 0, 0], dtype=torch.int32)
    rows = whole.rows(there)
    found = place_noise(stream, part, 3)
    known = rows >= 0  # walls at the edge of the crop differ
    assert int(known.sum()) > 900
    assert torch.equal(found[known], place_noise(stream, whole, 3)[rows[known]])
    cells = whole.parents(2)
    assert not torch.equal(place_noise(stream, cells, 1)[:100], place_noise(stream, whole, 1)[:100])
    dense = place_noise(stream, frame(32), 2)
    assert dense.shape == (1, 2, 32, 32)
    assert torch.equal(place_noise(stream, frame(16, east=8, north=4), 2), dense[:, :, 12:28, 8:24])
    assert torch.equal(training_noise(dense, generator(3)), training_noise(dense, generator(3)))
    assert torch.equal(batch_of_times(0.25, 3, torch.device("cpu")), torch.full((3,), 0.25))
