"""Heights by object: the state and back, what a network is told of buildings, and its inputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from earthgen.errors import ModelError
from earthgen.models.build import make_model
from earthgen.models.height_flow import height_loss
from earthgen.models.height_state import (
    LIMIT,
    OBJECT_MAPS,
    edge_distance,
    height_scales,
    object_maps,
    to_height,
    to_state,
)
from earthgen.models.presets import HIDDEN, STYLES, FlowConfig, HeightFlowConfig, preset
from geo_io.legend import codes

B, WATER, WOOD = (codes()[name] for name in ("building", "lake", "mixed_forest"))
SMALL = HeightFlowConfig(
    channels=(8, 12),
    blocks=(1, 1),
    state="object",
    styles=len(STYLES),
    map_kinds=True,
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
    assert float(to_state(torch.full((1, 1, 5), 1e4), *scales).max()) == LIMIT, "clipped"


def test_maps_of_a_house_say_where_a_column_lies_in_it() -> None:
    number = torch.zeros(1, 24, 40, dtype=torch.int64)
    number[0, 4:14, 5:25], number[0, 4:14, 25:33] = 3, 9
    axes = torch.zeros(1, 24, 40, 4)
    axes[0, 4:14, 5:25] = torch.tensor([2.0, 1, 10, 5])
    (maps,) = object_maps(number, axes, 1.0)
    assert maps.shape == (OBJECT_MAPS, 24, 40) and maps.dtype == torch.float32
    assert (maps[:, number[0] == 0] == 0).all()
    assert (maps[1:7, 4:14, 25:33] == 0).all(), "axes are unknown there"
    assert maps[-1, 8, 24] == maps[-1, 8, 25] == 1 and maps[-1, 8, 15] == 0, "borders"
    assert maps[0, 8, 15] > maps[0, 5, 15] > 0, "farther from the edge"
    assert maps[5, 8, 15] == pytest.approx((10 - 2) / 5)
    # Coarser voxels have the same metres.
    (half,) = object_maps(number[:, ::2, ::2], axes[:, ::2, ::2], 2.0)
    assert float(half[0].max()) == pytest.approx(float(maps[0].max()), abs=0.3)


def test_distances_to_an_edge_are_euclidean() -> None:
    inside = torch.rand(2, 40, 33, generator=torch.Generator().manual_seed(0)) > 0.02
    for each, found in zip(inside, edge_distance(inside, 9), strict=True):
        true = np.minimum(ndimage.distance_transform_edt(each.numpy()), 9)
        np.testing.assert_allclose(found.numpy(), true, atol=1e-5)
    assert bool((edge_distance(torch.ones(1, 5, 5, dtype=torch.bool), 9) == 9).all())


def test_woods_are_told_and_hidden_land_is_wide() -> None:
    semantics = torch.tensor([[[WOOD, WOOD, 0, HIDDEN]]])
    centre, scale = height_scales(semantics, torch.tensor([[[24.0, 0, 5, 5]]]))
    assert centre[0, 0, 0] == 18 and centre[0, 0, 1] == 8
    assert float(scale[0, 0, 3]) > float(scale[0, 0, 2]), "unmapped land is mostly low"
    again = height_scales(semantics, torch.zeros(1, 1, 4))
    assert torch.equal(again[0][..., 2:], centre[..., 2:]), "heights are told of objects alone"


def test_a_flow_knows_hidden_land_an_image_and_a_part_of_the_surface() -> None:
    config = SMALL.model_copy(update={"hidden_token": True, "image": True, "surface": True})
    model = make_model("height-flow", config, seed=0)
    random = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.head.weight, generator=random)
    cover, ground = torch.zeros(2, 16, 16, dtype=torch.int64), torch.zeros(2, 16, 16)
    image, surface = torch.rand(2, 3, 16, 16, generator=random), torch.full((2, 16, 16), 3.0)
    surface[:, :, 8:] = torch.nan
    image[:, :, :2] = torch.nan
    state, time = torch.randn(2, 1, 16, 16, generator=random), torch.full((2,), 0.5)

    def out(classes: torch.Tensor, **known: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(state, time, model.condition(classes, ground, 1.0, **known))
        assert bool(found.isfinite().all())
        return found

    hidden = torch.full_like(cover, HIDDEN)
    nothing = out(hidden)
    for other in (out(cover), out(hidden, image=image), out(hidden, surface=surface)):
        assert not torch.equal(other, nothing)
    unknown = {"image": image * torch.nan, "surface": surface * torch.nan}
    assert torch.equal(out(hidden, **unknown), nothing), "unknown is as if it were not given"
    # What guidance goes away from has neither classes nor image, in the same state.
    full = model.condition(cover, ground, 1.0, image=image, surface=surface)
    free = model.without_guides(full)
    assert bool((free.semantics == HIDDEN).all()) and torch.equal(free.scales[0], full.scales[0])
    assert torch.equal(free.maps[:, :-4], full.maps[:, :-4]) and not free.maps[:, -4:].any()
    with pytest.raises(ModelError, match="image"):
        model.condition(cover, ground, 1.0, image=image[:, :1])
    # Networks of before take hidden land for unmapped land.
    before = make_model("height-flow", SMALL, seed=0)
    assert torch.equal(
        before.condition(hidden, ground, 1.0).semantics,
        before.condition(cover, ground, 1.0).semantics,
    )


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
            {"map_kind": torch.tensor([1, 2])},
        )
    ]
    assert all(one.dtype == torch.float32 for one in found)
    for one, other in pairwise(found):
        assert not torch.equal(one, other)


def test_all_presets_flow_by_object() -> None:
    for name in ("tiny", "base", "paper"):
        config = preset(name).height_flow
        assert config.state == "object" and config.styles == len(STYLES)
        assert config.hidden_token and config.image and config.surface and config.map_kinds
        assert config.flow.predicts == "preconditioned" and config.flow.logit_time
