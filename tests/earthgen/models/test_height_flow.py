"""The flow on height maps: its conditions, its transform, and that a pixel looks no further than
it says."""

from __future__ import annotations

import pytest
import torch

from earthgen.errors import ModelError
from earthgen.models.build import make_model
from earthgen.models.flow import place_noise, sample
from earthgen.models.height_flow import ground_slopes, height_loss
from earthgen.models.presets import preset
from earthgen.noise.philox import Noise
from tests.helpers.model_scenes import town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_heights_come_back_and_never_depend_on_the_tile() -> None:
    model = make_model("height-flow")
    height = torch.tensor([[[0.0, 3.0], [40.0, 400.0]]])
    torch.testing.assert_close(
        model.to_height(model.to_state(height)), height, rtol=1e-5, atol=1e-5
    )
    assert float(model.to_state(height[:, :1, :1])) == float(model.to_state(height)[0, 0, 0, 0])
    assert float(model.to_height(torch.full((1, 1, 1, 1), -9.0))) == 0


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
    cover, slopes = torch.zeros(1, size, size, dtype=torch.int64), torch.zeros(1, 3, size, size)
    found = model(state, torch.tensor([0.5]), cover, slopes)
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
    slopes = torch.randn(1, 3, 128, 128, generator=generator)
    time = torch.tensor([0.5])
    with torch.no_grad():
        whole = model(state, time, cover, slopes)
        part = slice(8, 104)
        found = model(state[..., part, part], time, cover[:, part, part], slopes[..., part, part])
    inside = slice(model.reach, 96 - model.reach)
    assert inside.stop - inside.start > 8
    # Other shapes are other products: the last bits.
    torch.testing.assert_close(
        found[..., inside, inside],
        whole[..., part, part][..., inside, inside],
        rtol=1e-4,
        atol=1e-5,
    )


def test_it_learns_a_town_and_samples_it_in_few_steps() -> None:
    scene, model = town(32), make_model("height-flow")
    optimiser = torch.optim.AdamW(model.parameters(), 1.5e-3)
    random = torch.Generator().manual_seed(0)
    for step in range(70):
        objective = "shortcut" if step % 4 == 3 else "flow"
        maps = (
            one.expand(4, -1, -1) for one in (scene.height, scene.cover, scene.ground)
        )  # four times at once
        loss = height_loss(model, *maps, 1.0, random, objective)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    noise = place_noise(Noise(0).stream("height"), scene.frames[0], 1)
    predict = model.predictor(scene.cover, ground_slopes(scene.ground, 1.0))
    for steps, method in ((4, "euler"), (1, "shortcut")):
        with torch.no_grad():
            found = model.to_height(sample(model.flow, predict, noise, steps=steps, method=method))
        assert (
            float((found - scene.height).abs().mean()) < 0.4
        )  # metres; buildings are 4 to 10 high


def test_guidance_and_what_is_not_valid() -> None:
    scene, model = town(16), make_model("height-flow", small())
    slopes = ground_slopes(scene.ground, 1.0)
    state = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, free, strong = (
            model.predictor(scene.cover, slopes, g)(state, 0.5, 0.0) for g in (1.0, 0.0, 2.0)
        )
    torch.testing.assert_close(strong, 2 * plain - free)
    nothing = torch.zeros(1, 16, 16, dtype=torch.bool)
    loss = height_loss(
        model,
        scene.height,
        scene.cover,
        scene.ground,
        1.0,
        torch.Generator().manual_seed(0),
        valid=nothing,
    )
    assert float(loss.detach()) == 0


def test_maps_that_do_not_fit_are_refused() -> None:
    model = make_model("height-flow", small())
    state, time = torch.zeros(1, 1, 16, 16), torch.tensor([0.5])
    with pytest.raises(ModelError, match="do not fit a state"):
        model(state, time, torch.zeros(1, 16, 8), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ModelError, match="multiples of 4"):
        model(state[..., :15], time, torch.zeros(1, 16, 15), torch.zeros(1, 3, 16, 15))
