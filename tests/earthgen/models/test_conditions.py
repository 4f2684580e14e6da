"""Conditions: where a map's rows lie, what is hidden when, images with heights, and CondNet's
features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from earthgen.errors import ModelError, SparseError
from earthgen.models.blocks import encode_heights, initialise
from earthgen.models.cond_net import CondNet, by_column, columns, surface_colours
from earthgen.models.conditions import (
    CONDITIONS,
    Conditions,
    drop_conditions,
    mix_conditions,
)
from earthgen.models.presets import CLASSES, BlockConfig, CondConfig, preset
from earthgen.sparse.sites import Sites
from tests.helpers.model_scenes import Town, frame, generator, town

pytestmark = pytest.mark.usefixtures("one_thread")


def net(
    cross: bool = False, levels: int = 2, plane: str = "c", hidden_token: bool = False
) -> CondNet:
    config = CondConfig(
        channels=(12, 16, 24, 24)[: levels + 1],
        plane=(plane,) * (levels + 1),
        cross=cross,
        hidden_token=hidden_token,
        blocks=BlockConfig(head=12),
    )
    found = CondNet(config, [2**level for level in range(levels)], [24, 36][:levels])
    initialise(found, generator())
    return found


def levels_of(scene: Town) -> list[Sites]:
    return [scene.sites, scene.sites.parents(2)]


def features(model: CondNet, conditions: Conditions, scene: Town) -> list[torch.Tensor]:
    with torch.no_grad():
        return [level.features for level in model(conditions, levels_of(scene))]


def test_columns_count_from_the_south_and_maps_from_the_north() -> None:
    where = frame(8)
    sites = columns(town(8, seeds=(0, 1)).sites.place, (8, 8))
    maps = torch.arange(2 * 64).reshape(2, 1, 8, 8)
    found = by_column(maps)[:, 0]
    for row, (sample, x, y, z) in enumerate(sites.coordinates.tolist()):
        assert z == 0 and int(found[row]) == int(maps[sample, 0, where.ny - 1 - y, x])


def test_a_voxel_is_told_the_class_of_its_own_column() -> None:
    """A change of one column's class, without blocks that look around, changes that column's
    voxels alone."""
    scene, model = town(16), net(plane="")
    base = features(model, scene.conditions, scene)
    cover = scene.cover.clone()
    cover[0, 3, 5] = 9  # the fourth row from the north, the sixth column: y = 12
    found = features(model, replace(scene.conditions, semantics=cover), scene)
    changed = (found[0] != base[0]).any(1)
    here = (scene.sites.coordinates[:, 1] == 5) & (scene.sites.coordinates[:, 2] == 12)
    assert torch.equal(changed, here) and bool(here.any())
    coarse = (found[1] != base[1]).any(1)
    cells = levels_of(scene)[1].coordinates
    assert torch.equal(coarse, (cells[:, 1] == 2) & (cells[:, 2] == 6))


def test_a_voxel_is_told_its_height_beside_the_map() -> None:
    scene, model = town(16), net(plane="")
    signed = model._signed_distance(scene.conditions, scene.sites, 1)
    top = scene.sites.centres()[:, 2].float()
    for row, (_, x, y, _z) in enumerate(scene.sites.coordinates.tolist()):
        height = float(scene.height[0, 15 - y, x])
        assert float(signed[row, 0]) == pytest.approx(np.tanh(float(top[row]) - height), abs=1e-5)
    assert bool((signed[:, 4] == 1).all())
    unknown = scene.height.clone()
    unknown[:] = torch.nan
    assert not model._signed_distance(
        replace(scene.conditions, height=unknown), scene.sites, 1
    ).any()


def test_heights_are_metres_above_the_ground_at_every_stride() -> None:
    scene = town(16)
    fine, coarse = encode_heights(scene.sites, 12), encode_heights(scene.sites.parents(4), 12)
    assert fine.shape[1] == 12
    a = scene.sites.lattice()[:, 2]
    assert torch.equal(fine[a == 3][0], fine[a == 3][-1]) and not torch.equal(
        fine[a == 3][0], fine[a == 2][0]
    )
    # The centre of a cell of four voxels is the border of its second and third one.
    low = scene.sites.parents(4).lattice()[:, 2]
    expected = torch.sin(torch.tensor((0 + 2) * 2 * np.pi / 8.0))
    assert float(coarse[low == 0][0, 2]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("cross", [False, True])
def test_what_is_hidden_is_as_if_it_were_not_there(cross: bool) -> None:
    scene, model = town(16, seeds=(0, 1)), net(cross)
    full = scene.conditions
    present = torch.zeros(2, len(CONDITIONS), dtype=torch.bool)
    hidden = features(model, replace(full, present=present), scene)
    for found, nothing in zip(hidden, features(model, full.hidden(), scene), strict=True):
        torch.testing.assert_close(found, nothing)
    present[1, CONDITIONS.index("height")] = True
    part = features(model, replace(full, present=present), scene)[0]
    bounds = scene.sites.bounds
    torch.testing.assert_close(part[: bounds[1]], hidden[0][: bounds[1]])
    assert not torch.allclose(part[bounds[1] :], hidden[0][bounds[1] :])
    for name in ("semantics", "height", "image"):
        one = Conditions(full.place, full.shape, **{name: getattr(full, name)})
        assert not torch.allclose(features(model, one, scene)[0], hidden[0]), name


def test_unknown_pixels_count_nothing() -> None:
    scene, model = town(16), net(plane="")
    image = scene.conditions.image.clone()
    image[:] = torch.nan
    height = torch.full_like(scene.height, torch.nan)
    blind = Conditions(scene.sites.place, (16, 16), torch.zeros_like(scene.cover), height, image)
    torch.testing.assert_close(
        features(model, blind, scene)[0], features(model, blind.hidden(), scene)[0]
    )


def test_dropping_follows_its_odds() -> None:
    scene = town(8, seeds=(0,) * 400)
    full = scene.conditions
    found = drop_conditions(full, {"semantics": 0.25, "image": 1.0}, generator()).shown(
        torch.device("cpu")
    )
    shares = found.float().mean(0)
    assert float(shares[0]) == pytest.approx(0.75, abs=0.07) and shares[1:].tolist() == [1, 0]
    again = drop_conditions(drop_conditions(full, 0.5, generator(1)), 0.5, generator(2)).shown(
        torch.device("cpu")
    )
    assert float(again[:, :3].float().mean()) == pytest.approx(0.25, abs=0.05)
    with pytest.raises(ModelError, match="unknown condition depth"):
        drop_conditions(full, {"depth": 0.1}, generator())


def test_mixtures_give_each_sample_one_set() -> None:
    full = town(8, seeds=(0,) * 300).conditions
    shown = mix_conditions(
        full, [(["semantics"], 3), (["image", "height"], 1), ([], 0)], generator()
    ).shown(torch.device("cpu"))
    kinds = {tuple(row) for row in shown.tolist()}
    assert kinds == {(True, False, False), (False, True, True)}
    assert float(shown[:, 0].float().mean()) == pytest.approx(0.75, abs=0.08)
    with pytest.raises(ModelError, match="mixture has no conditions"):
        mix_conditions(full, [], generator())


def test_image_and_heights_together_colour_the_surface() -> None:
    """The paper's image with depth: the voxel whose top the image shows has the image's colour."""
    scene = town(16, seeds=(0, 1))
    height = scene.height.clone()
    height[0, 0, 0] = torch.nan
    image = scene.conditions.image.clone()
    image[0, :, 5, 7] = torch.tensor([0.25, 0.5, 0.75])
    given = replace(scene.conditions, height=height, image=image)
    found = surface_colours(given, torch.device("cpu"))
    assert len(found) == 2 * 256 - 1, "every column with a height, once"
    for (sample, x, y, z), colour in zip(
        found.coordinates.tolist(), found.features.tolist(), strict=True
    ):
        row = 15 - y
        assert z + scene.sites.place.origins[sample][2] == int(scene.height[sample, row, x]) - 1
        assert colour == pytest.approx(image[sample, :, row, x].tolist())
    hidden = torch.tensor([[True, True, False], [True, True, True]])
    seen = surface_colours(replace(given, present=hidden), torch.device("cpu"))
    assert set(seen.coordinates[:, 0].tolist()) == {1}
    assert not len(surface_colours(given.hidden(), torch.device("cpu")))


@pytest.mark.parametrize("cross", [False, True])
def test_coloured_surfaces_reach_all_levels(cross: bool) -> None:
    scene, model = town(16), net(cross)
    plain = net(cross)
    plain.load_state_dict(model.state_dict())
    for layer in plain.colours:
        torch.nn.init.zeros_(layer.linear.weight)
    with_, without = (features(one, scene.conditions, scene) for one in (model, plain))
    assert all(not torch.allclose(a, b) for a, b in zip(with_, without, strict=True))
    # Without heights nobody knows which voxels the image shows.
    flat = replace(scene.conditions, height=None)
    with_, without = (features(one, flat, scene) for one in (model, plain))
    assert all(torch.equal(a, b) for a, b in zip(with_, without, strict=True))


def test_hidden_land_cover_is_not_unmapped_land() -> None:
    """Networks of new presets tell "no map" from "the map says nothing here"; those of before took
    one for the other."""
    scene = town(16)
    unmapped = Conditions(scene.sites.place, (16, 16), torch.zeros_like(scene.cover))
    for token in (False, True):
        model = net(hidden_token=token)
        assert model.semantic.num_embeddings == CLASSES + token
        hidden = features(model, unmapped.hidden(), scene)[0]
        assert torch.equal(features(model, unmapped, scene)[0], hidden) != token
    for name in ("tiny", "base", "paper"):
        for part in ("struct_coarse", "struct_fine", "tex_flow"):
            assert getattr(preset(name), part).condition.hidden_token


def test_conditions_from_arrays() -> None:
    scene = town(16, seeds=(0, 1))
    image = [np.full((16, 16, 3), 51, np.uint8)] * 2
    known = [np.ones((16, 16), bool), np.zeros((16, 16), bool)]
    found = Conditions.of(
        scene.frames,
        semantics=list(scene.cover.numpy()),
        height=list(scene.height.numpy()),
        image=image,
        image_known=known,
    )
    assert torch.equal(found.semantics, scene.cover) and torch.equal(found.height, scene.height)
    assert found.place == scene.sites.place
    assert float(found.image[0].mean()) == pytest.approx(0.2) and bool(found.image[1].isnan().all())
    assert Conditions.of(scene.frames, image=image).image.isfinite().all()
    assert found.to("cpu").semantics.device.type == "cpu"
    with pytest.raises(ModelError, match="frames of a batch have shapes"):
        Conditions.of([frame(8), frame(16)])
    with pytest.raises(ModelError, match="maps of a batch have shapes"):
        Conditions.of(scene.frames, height=[np.zeros((16, 16)), np.zeros((8, 8))])


def test_conditions_that_do_not_fit_are_refused() -> None:
    scene = town(16)
    with pytest.raises(ModelError, match="semantics has shape"):
        replace(scene.conditions, semantics=scene.cover[:, :8])
    with pytest.raises(ModelError, match="present has shape"):
        replace(scene.conditions, present=torch.ones(1, 4, dtype=torch.bool))
    model = net()
    with pytest.raises(ModelError, match="unknown class codes"):
        model(replace(scene.conditions, semantics=scene.cover + 40), levels_of(scene))
    with pytest.raises(SparseError):
        model(scene.moved(8, 0).conditions, levels_of(scene))
    odd = Conditions(scene.sites.place, (18, 16))
    with pytest.raises(ModelError, match="multiples of 4"):
        model(odd, levels_of(scene))
    with pytest.raises(ModelError, match="more levels"):
        CondNet(CondConfig(channels=(8,), plane=("",)), [1, 2], [8, 8])
