"""Heights by object: the state and back, what a network is told of buildings, and its inputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from earthgen.models.build import make_model
from earthgen.models.height_flow import height_loss
from earthgen.models.height_state import (
    OBJECT_MAPS,
    height_scales,
    object_maps,
    to_height,
    to_state,
)
from earthgen.models.presets import STYLES, FlowConfig, HeightFlowConfig, preset
from geo_io.legend import codes

B, WATER, WOOD = (codes()[name] for name in ("building", "lake", "mixed_forest"))
SMALL = HeightFlowConfig(
    channels=(8, 12),
    blocks=(1, 1),
    state="object",
    styles=len(STYLES),
    flow=FlowConfig(predicts="preconditioned", embedding=16, logit_time=True),
)


def test_a_state_and_its_height_are_one_and_relief_shows_at_any_height() -> None:
    semantics = torch.tensor([[[B, B, WOOD, WATER, 0]]])
    told = torch.tensor([[[12.0, 60.0, 0, 0, 0]]])
    scales = height_scales(semantics, told)
    height = torch.tensor([[[11.0, 62.5, 14.0, 0.0, 2.0]]])
    state = to_state(height, *scales)
    torch.testing.assert_close(to_height(state, *scales), height)
    assert state[0, 0, 0, 0] == pytest.approx(-0.4) and state[0, 0, 0, 1] == pytest.approx(1.0)
    assert float(scales[1][0, 0, 3]) < float(scales[1][0, 0, 0]) < float(scales[1][0, 0, 2])
    assert float(to_state(torch.full((1, 1, 5), 1e4), *scales).max()) == 8, "clipped"


def test_maps_of_a_house_say_where_a_column_lies_in_it() -> None:
    number = np.zeros((24, 40), np.uint32)
    number[4:14, 5:25], number[4:14, 25:33] = 3, 9
    axes = np.zeros((24, 40, 4), np.float32)
    axes[4:14, 5:25] = (2, 1, 10, 5)
    maps = object_maps(number, axes, 1.0)
    assert maps.shape == (OBJECT_MAPS, 24, 40) and maps.dtype == np.float32
    assert (maps[:, number == 0] == 0).all()
    assert (maps[1:7, 4:14, 25:33] == 0).all(), "axes are unknown there"
    assert maps[-1, 8, 24] == maps[-1, 8, 25] == 1 and maps[-1, 8, 15] == 0, "borders"
    assert maps[0, 8, 15] > maps[0, 5, 15] > 0, "farther from the edge"
    assert maps[5, 8, 15] == pytest.approx((10 - 2) / 5)
    # Coarser voxels have the same metres.
    half = object_maps(number[::2, ::2], axes[::2, ::2], 2.0)
    assert half[0].max() == pytest.approx(maps[0].max(), abs=0.3)


def test_a_flow_by_object_is_told_of_buildings_and_styles() -> None:
    model = make_model("height-flow", SMALL, seed=0)
    semantics, ground = torch.full((2, 16, 16), B), torch.zeros(2, 16, 16)
    told, objects = torch.full((2, 16, 16), 9.0), torch.zeros(2, OBJECT_MAPS, 16, 16)
    random = torch.Generator().manual_seed(0)
    condition = model.condition(semantics, ground, 1.0, told=told, objects=objects)
    assert torch.isfinite(height_loss(model, told - 1, condition, random))
    state, time = torch.randn(2, 1, 16, 16, generator=random), torch.full((2,), 0.5)
    torch.nn.init.normal_(model.head.weight, generator=random)
    found = [
        model(state, time, model.condition(semantics, ground, 1.0, **known))
        for known in (
            {},
            {"told": told},
            {"told": told, "objects": objects + 1},
            {"style": torch.tensor([1, 2])},
        )
    ]
    assert all(one.dtype == torch.float32 for one in found)
    for one, other in pairwise(found):
        assert not torch.equal(one, other)


def test_all_presets_flow_by_object() -> None:
    for name in ("tiny", "base", "paper"):
        config = preset(name).height_flow
        assert config.state == "object" and config.styles == len(STYLES)
        assert config.flow.predicts == "preconditioned" and config.flow.logit_time
