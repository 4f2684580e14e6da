"""The flow on height maps: its conditions, its transform, and that a pixel looks no further than
it says."""

from __future__ import annotations

import pytest
import torch

from earthgen.errors import ModelError
from earthgen.models.build import make_model
from earthgen.models.flow import place_noise, sample
from earthgen.models.height_flow import ground_slopes, height_loss
from earthgen.models.height_state import OBJECT_MAPS
from earthgen.models.presets import HeightFlowConfig, preset
from earthgen.noise.philox import Noise
from tests.helpers.model_scenes import town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_heights_come_back_and_never_depend_on_the_tile() -> None:
    log = make_model("height-flow", HeightFlowConfig(channels=(8, 8), blocks=(1, 1)))
    height = torch.tensor([[[0.0, 3.0], [40.0, 400.0]]])
    nothing = torch.zeros(1, 2, 2)
    for model, tolerance in ((log, 1e-5), (make_model("height-flow"), 1e-5)):
        condition = model.condition(nothing.long(), nothing, 1.0)
        limit = 400.0 if model is log else 21.0  # states are clipped at 8 scales of 2.5 m
        there = height.clamp(max=limit)
        state = model.to_state(there, condition)
        torch.testing.assert_close(
            model.to_height(state, condition), there, rtol=tolerance, atol=tolerance
        )
        assert float(model.to_height(torch.full((1, 1, 2, 2), -9.0), condition).max()) == 0


def test_slopes_point_east_and_north_and_know_no_absolute_height() -> None:
    x, north = torch.arange(8.0), torch.arange(8.0).flip(0)[:, None]
    ground = (2 * x + 0.5 * north + 1000).expand(1, 8, 8)
    slopes = ground_slopes(ground, 2.0)
    inside = slopes[0, :, 1:-1, 1:-1]
    expected = torch.tensor([1.0, 0.25, 0.0])[:, None, None].expand(3, 6, 6)
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(ground_slopes(ground - 700, 2.0), slopes)


def small() -> object:
    return preset("tiny").height_flow.model_copy(
        update={"channels": (8, 8, 16), "blocks": (1, 2, 1)}
    )


def test_a_pixel_looks_as_far_as_it_says() -> None:
    model = make_model("height-flow", small())
    size = 128
    state = torch.zeros(1, 1, size, size, requires_grad=True)
    condition = model.condition(torch.zeros(1, size, size).long(), torch.zeros(1, size, size), 1.0)
    found = model(state, torch.tensor([0.5]), condition)
    for row in (64, 67):
        (gradient,) = torch.autograd.grad(found[0, 0, row, row], state, retain_graph=True)
        rows = torch.nonzero(gradient[0, 0].abs().sum(1))[:, 0]
        far = max(row - int(rows.min()), int(rows.max()) - row)
        assert far <= model.reach < far + 16
    assert make_model("height-flow").multiple == 8


def test_a_large_map_is_its_parts() -> None:
    """Trained on small maps, run on large ones: within the reach of its edge a part differs,
    further in it does not."""
    model = make_model("height-flow", small())
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(1, 1, 128, 128, generator=generator)
    cover = torch.randint(0, 26, (1, 128, 128), generator=generator)
    ground = torch.randn(1, 128, 128, generator=generator)
    told = 8 + torch.randn(1, 128, 128, generator=generator)
    objects = torch.randn(1, OBJECT_MAPS, 128, 128, generator=generator)
    time, part = torch.tensor([0.5]), slice(8, 104)
    with torch.no_grad():
        whole = model(state, time, model.condition(cover, ground, 1.0, told=told, objects=objects))
        condition = model.condition(
            cover[:, part, part],
            ground[:, part, part],
            1.0,
            told=told[:, part, part],
            objects=objects[..., part, part],
        )
        found = model(state[..., part, part], time, condition)
    inside = slice(model.reach + 1, 95 - model.reach)
    assert inside.stop - inside.start > 6
    # Other shapes are other products: the last bits.
    torch.testing.assert_close(
        found[..., inside, inside],
        whole[..., part, part][..., inside, inside],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
def test_it_learns_a_town_and_samples_it_in_few_steps() -> None:
    scene, model = town(32), make_model("height-flow")
    optimiser = torch.optim.AdamW(model.parameters(), 1.5e-3)
    random = torch.Generator().manual_seed(0)
    cover, ground = (one.expand(4, -1, -1) for one in (scene.cover, scene.ground))
    four_times = model.condition(cover, ground, 1.0)
    for _ in range(200):
        loss = height_loss(model, scene.height.expand(4, -1, -1), four_times, random)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    noise = place_noise(Noise(0).stream("height"), scene.frames[0], 1)
    condition = model.condition(scene.cover, scene.ground, 1.0)
    for steps in (4, 8, 25):
        with torch.no_grad():
            state = sample(model.flow, model.predictor(condition), noise, steps=steps)
            found = model.to_height(state, condition)
        # Metres; buildings are 4 to 10 high.
        assert float((found - scene.height).abs().mean()) < 0.4, steps


def test_guidance_and_what_is_not_valid() -> None:
    scene, model = town(16), make_model("height-flow", small())
    condition = model.condition(scene.cover, scene.ground, 1.0)
    state = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, free, strong = (model.predictor(condition, g)(state, 0.5) for g in (1.0, 0.0, 2.0))
    torch.testing.assert_close(strong, 2 * plain - free)
    nothing = torch.zeros(1, 16, 16, dtype=torch.bool)
    random = torch.Generator().manual_seed(0)
    loss = height_loss(model, scene.height, condition, random, valid=nothing)
    assert float(loss.detach()) == 0


def test_maps_that_do_not_fit_are_refused() -> None:
    model = make_model("height-flow", small())
    state, time = torch.zeros(1, 1, 16, 16), torch.tensor([0.5])
    cover, ground = torch.zeros(1, 16, 16).long(), torch.zeros(1, 16, 16)
    with pytest.raises(ModelError, match="do not fit a state"):
        model(state[..., :8], time, model.condition(cover, ground, 1.0))
    with pytest.raises(ModelError, match="multiples of 4"):
        narrow = model.condition(cover[..., :15, :15], ground[..., :15, :15], 1.0)
        model(state[..., :15, :15], time, narrow)
    with pytest.raises(ModelError, match=r"told .* does not fit"):
        model.condition(cover, ground, 1.0, told=ground[:, :8])
