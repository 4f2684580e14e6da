"""The base of flows over voxels: styles, and what stays in float32."""

from __future__ import annotations

import pytest
import torch

from earthgen.models.build import make_model
from earthgen.models.presets import STYLES, preset
from tests.helpers.model_cases import cells_of, latent_of
from tests.helpers.model_scenes import generator, town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_style_is_asked_for_by_number_and_0_is_any() -> None:
    model, scene = make_model("struct-fine"), town(seeds=(0, 0))
    cells = cells_of(scene)
    state, time = latent_of(cells, model.channels), torch.tensor([0.4, 0.4])
    assert model.config.styles == len(STYLES)
    with torch.no_grad():
        condition = model.condition(scene.conditions, cells)
        free, any_, mixed = (
            model(state, time, condition, style)
            for style in (None, torch.zeros(2), torch.tensor([0, 2]))
        )
    assert torch.equal(free.features, any_.features)
    first, second = mixed.samples()
    assert torch.equal(first.features, free.samples()[0].features)
    assert not torch.allclose(second.features, free.samples()[1].features, atol=1e-2)
    # One of a batch of one is that of the whole batch.
    predict = model.predictor(cells, condition, style=torch.tensor([2.0]))
    with torch.no_grad():
        found = predict(state.features, 0.4)
        input_ = state.with_features(model.flow.network_input(state.features, 0.4))
        both = model(input_, time, condition, torch.tensor([2, 2])).features
    torch.testing.assert_close(found, both)


def test_networks_without_styles_take_none() -> None:
    config = preset("tiny").struct_fine.model_copy(update={"styles": 0})
    model, scene = make_model("struct-fine", config), town()
    cells = cells_of(scene)
    condition = model.condition(scene.conditions, cells)
    state, time = latent_of(cells, model.channels), torch.tensor([0.4])
    with torch.no_grad():
        found = model(state, time, condition, torch.ones(1))
        assert torch.equal(found.features, model(state, time, condition).features)


@pytest.mark.parametrize("part", ["struct-coarse", "struct-fine", "tex-flow", "height-flow"])
def test_what_comes_in_and_goes_out_is_in_full_under_autocast(part: str) -> None:
    """The first and the last layer, and the time: their results are float32 and exact."""
    model = make_model(part, "tiny")
    time = torch.tensor([0.25, 0.9])
    with torch.autocast("cpu", torch.bfloat16):
        embedded = model.embed(time)
    assert torch.equal(embedded, model.embed(time))
    if part == "height-flow":
        seen: list[torch.Tensor] = []
        for layer in (model.stem, model.head):
            layer.register_forward_hook(lambda _, given, out: seen.extend((given[0], out)))
        scene = town(16)
        condition = model.condition(scene.cover, scene.ground, 1.0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            model(torch.zeros(1, 1, 16, 16), time[:1], condition)
        assert {value.dtype for value in seen} == {torch.float32} and len(seen) == 4
        return
    state = latent_of(cells_of(town()), model.channels)
    for layer in (model.unet.stem, model.unet.head):
        given = state.with_features(
            torch.randn(len(state), layer.linear.in_features, generator=generator())
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = layer(given).features
        with torch.no_grad():
            assert found.dtype == torch.float32 and torch.equal(found, layer(given).features)
