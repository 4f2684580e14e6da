"""StructVAE and StructFM: teacher forcing, repair of holes, metrics, the two stages one after
the other."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from earthgen.errors import ModelError, SparseError
from earthgen.models.build import make_model
from earthgen.models.conditions import Conditions
from earthgen.models.flow import place_noise, sample
from earthgen.models.latents import Latent, Statistics
from earthgen.models.occupancy import REPAIRS, accuracy, agreement, select_children
from earthgen.models.presets import StructVaeConfig, preset
from earthgen.models.struct_flow import (
    active_cells,
    cells_near_heights,
    coarse_loss,
    dilate_cells,
    grid_state,
)
from earthgen.models.struct_vae import struct_loss
from earthgen.noise.philox import Noise
from earthgen.sparse import SparseTensor
from earthgen.sparse.sites import Place, make_sites
from tests.helpers.model_cases import cells_of
from tests.helpers.model_scenes import generator, town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_shell_at_even_odds_leaves_no_hole() -> None:
    """The known failure: a surface of one voxel at 0.45 in one of two heights falls below 0.5 at
    both."""
    flat = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), torch.arange(8), torch.arange(8))
    parents = make_sites(torch.nn.functional.pad(flat, (0, 1)), stride=2)[0]
    children = parents.children(2)[0]
    odds = torch.where(children.coordinates[:, 3] == 1, 0.46, 0.44)
    logits = torch.logit(odds)
    true = children.select(children.coordinates[:, 3] == 1)
    none = agreement(children.select(select_children(children, logits, "none")), true)
    cells = agreement(children.select(select_children(children, logits, "cells")), true)
    columns = agreement(children.select(select_children(children, logits, "columns")), true)
    assert (none.iou, none.holes, none.columns) == (0, 256, 256)
    assert cells.holes == 192 and cells.precision == 1  # one child of eight
    assert columns.iou == 1 and columns.holes == 0


@pytest.mark.parametrize("repair", REPAIRS)
def test_repair_takes_nothing_away_and_adds_only_where_nothing_is(repair: str) -> None:
    children = cells_of(town(32, seeds=(0, 1))).children(2)[0]
    logits = torch.randn(len(children), generator=generator()) - 1
    found = select_children(children, logits, repair)  # type: ignore[arg-type]
    assert bool(found[logits > 0].all())
    if repair == "columns":
        columns = torch.unique(children.coordinates[:, :3], dim=0)
        assert len(torch.unique(children.select(found).coordinates[:, :3], dim=0)) == len(columns)
        added = children.select(found & (logits <= 0)).coordinates[:, :3]
        assert len(torch.unique(added, dim=0)) == len(added)
    # Equal logits: the lowest child.
    same = select_children(children, torch.full_like(logits, -1.0), repair)  # type: ignore[arg-type]
    assert repair == "none" or bool((children.coordinates[same][:, 3] % 2 == 0).all())


def test_agreement_and_accuracy_by_hand() -> None:
    place = Place()
    a = make_sites(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]), place=place)[0]
    b = make_sites(torch.tensor([[0, 0, 0, 1], [0, 2, 0, 0]]), place=place)[0]
    found = agreement(a, b)
    assert (found.hits, found.false, found.missed, found.holes, found.columns) == (1, 2, 1, 1, 2)
    assert (
        found.iou == 0.25
        and found.f1 == 0.4
        and found.precision == pytest.approx(1 / 3)
        and found.recall == 0.5
    )
    nothing = make_sites(torch.zeros(0, 4, dtype=torch.int32), place=place)[0]
    assert agreement(nothing, nothing).iou == 1 and agreement(nothing, b).recall == 0
    with pytest.raises(SparseError):
        agreement(a, make_sites(torch.zeros(0, 4, dtype=torch.int32), place=Place(((8, 0, 0),)))[0])
    assert (
        accuracy(torch.tensor([1.0, -1.0, 2.0, -3.0]), torch.tensor([True, True, True, False]))
        == 0.75
    )
    assert accuracy(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 1


def late() -> StructVaeConfig:
    return StructVaeConfig(
        channels=(16, 24, 24, 32),
        latent=8,
        encoder=("c", "c", "c"),
        middle="f",
        before=("c", "c", "c"),
        after=("c", "c", "c"),
    )


@pytest.mark.parametrize("config", ["tiny", "late"])
def test_a_town_is_learned_to_the_voxel(config: str) -> None:
    model = make_model("struct-vae", "tiny" if config == "tiny" else late())
    scene = town(16)
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3)
    random = generator()
    for _ in range(60):
        latent, decoded = model(scene.sites, scene.semantic, random)
        loss = struct_loss(latent, decoded, scene.sites, scene.semantic, class_weight=0.3)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    with torch.no_grad():
        decoded = model.decode(model.encode(scene.sites, scene.semantic).mean)
    found = agreement(decoded.sites, scene.sites)
    assert found.iou > 0.99 and found.holes == 0
    rows = scene.sites.rows(decoded.sites.coordinates)
    right = decoded.semantic()[rows >= 0] == scene.semantic[rows[rows >= 0]]
    assert float(right.float().mean()) > 0.97
    teacher = model.decode(model.encode(scene.sites, scene.semantic).mean, scene.sites).levels[-1]
    true = scene.sites.rows(teacher.candidates.coordinates) >= 0
    assert accuracy(teacher.candidates.features[:, 0], true) > 0.99


@pytest.mark.parametrize("config", ["tiny", "late"])
def test_a_teacher_makes_each_level_true(config: str) -> None:
    model = make_model("struct-vae", "tiny" if config == "tiny" else late())
    scene = town(32)
    latent = model.encode(scene.sites).mean
    assert latent.stride == (8, 8, 8) and model.config.stride == 8
    decoded = model.decode(latent, scene.sites)
    for level, there in zip(decoded.levels, reversed(model.levels(scene.sites)[:-1]), strict=True):
        level.kept.check_same(there)
        # The candidates are all children of the true cells one level above, and so hold all true
        # voxels.
        assert len(level.candidates) == 8 * len(torch.unique(there.coordinates // 2, dim=0))
        assert bool((level.candidates.sites.rows(there.coordinates) >= 0).all())


def test_what_is_decoded_without_a_teacher_has_no_holes() -> None:
    model, scene = make_model("struct-vae", "tiny"), town(32)
    with torch.no_grad():
        latent = model.encode(scene.sites).mean
        assert agreement(model.decode(latent).sites, scene.sites).holes == 0
        assert len(model.decode(latent, repair="none").sites) != len(model.decode(latent).sites)
        model.judge[0].linear.bias.fill_(-50)  # nothing is kept at L
        nothing = model.decode(latent, repair="none")
    assert len(nothing.sites) == 0 and nothing.semantic().shape == (0,)


def test_losses_ignore_unknown_classes() -> None:
    model, scene = make_model("struct-vae", late()), town(16)
    latent, decoded = model(scene.sites, scene.semantic, generator())
    unknown = struct_loss(latent, decoded, scene.sites, torch.zeros_like(scene.semantic))
    assert float(unknown.classes.detach()) == 0 and len(unknown.occupancy) == 3
    known = struct_loss(
        latent, decoded, scene.sites, scene.semantic, kl_weight=0.5, class_weight=2.0
    )
    parts = sum(known.occupancy) + 0.5 * known.divergence + 2 * known.classes
    torch.testing.assert_close(known.total, parts)


def test_crops_begin_at_cells() -> None:
    model = make_model("struct-vae", late())
    off = make_sites(torch.zeros(1, 4, dtype=torch.int32), place=Place(((4, 0, 0),)))[0]
    with pytest.raises(SparseError, match="begin crops at multiples"):
        model.encode(off)
    with pytest.raises(SparseError, match="the model needs 1"):
        model.encode(town(16).sites.parents(2))


def test_without_classes_there_are_none() -> None:
    model = make_model("struct-vae", late().model_copy(update={"classes": 0}))
    decoded = model(town(16).sites)[1]
    assert decoded.classes is None
    with pytest.raises(ModelError, match="predicts no classes"):
        decoded.semantic()


def test_configurations_are_checked() -> None:
    values = late().model_dump()
    for wrong in ({"encoder": ("c", "c")}, {"early": True}, {"middle": "cx"}, {"widths": 3}):
        with pytest.raises(ValidationError):
            StructVaeConfig.model_validate(values | wrong)
    with pytest.raises(ValidationError, match="as many channels as its autoencoder"):
        tiny = preset("tiny")
        type(tiny).model_validate(tiny.model_dump() | {"struct_vae": late()})


def test_latents_are_drawn_and_scaled() -> None:
    cells = cells_of(town(32))
    mean = torch.randn(len(cells), 4, generator=generator())
    latent = Latent.of(SparseTensor(cells, torch.cat([mean, torch.full_like(mean, -60)], 1)))
    assert float(latent.log_variance.min()) == -20
    torch.testing.assert_close(latent.sample(generator()).features, mean, rtol=0, atol=1e-3)
    assert torch.equal(latent.sample(None).features, mean)
    standard = Latent(SparseTensor(cells, torch.zeros_like(mean)), torch.zeros_like(mean))
    assert float(standard.divergence()) == 0 and float(latent.divergence()) > 5
    statistics = Statistics(4)
    statistics.fit(mean * 3 + 2)
    scaled = statistics.normalised(SparseTensor(cells, mean * 3 + 2))
    torch.testing.assert_close(scaled.features.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.features.std(0), torch.ones(4), rtol=1e-5, atol=0)
    torch.testing.assert_close(statistics.restored(scaled).features, mean * 3 + 2)


@pytest.mark.slow
def test_the_first_stage_learns_the_cells_of_a_town() -> None:
    model, scene = make_model("struct-coarse", "tiny"), town(32)
    grid, cells = model.grid(scene.sites.place, scene.shape), cells_of(scene)
    four = town(32, seeds=(0,) * 4)
    whole = model.grid(four.sites.place, four.shape)
    optimiser = torch.optim.AdamW(model.parameters(), 1.5e-3)
    random = generator()
    for _ in range(60):
        loss = coarse_loss(model, cells_of(four), whole, four.conditions, random)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        features = model.condition(scene.conditions, grid)
        noise = place_noise(Noise(1).stream("coarse"), grid, 1)
        found = sample(model.flow, model.predictor(grid, features), noise, steps=8)
    assert agreement(active_cells(SparseTensor(grid, found)), cells).iou > 0.9


def test_grids_and_their_states() -> None:
    for patch in (1, 2):
        config = preset("tiny").struct_coarse.model_copy(update={"patch": patch, "channels": 24})
        condition = config.condition.model_copy(update={"channels": (8,) * 5, "plane": ("",) * 5})
        model = make_model("struct-coarse", config.model_copy(update={"condition": condition}))
        scene = town(32)
        grid = model.grid(scene.sites.place, (32, 32, 48))
        assert len(grid) == 4 * 4 * 6 and grid.stride == (8, 8, 8)
        state = grid_state(grid, cells_of(scene))
        active_cells(state).check_same(cells_of(scene))
        assert set(state.features.unique().tolist()) == {-1.0, 1.0}
        found = model(state, torch.tensor([0.5]), model.condition(scene.conditions, grid))
        assert found.sites is grid and found.channels == 1
        with pytest.raises(ModelError, match="not a whole number of patches"):
            model.grid(scene.sites.place, (32, 32, 8 * patch - 4))
    with pytest.raises(ModelError, match="patches of 3"):
        make_model("struct-coarse", preset("tiny").struct_coarse.model_copy(update={"patch": 3}))


@pytest.mark.parametrize("patch", [1, 2])
def test_cells_that_heights_cannot_reach(patch: int) -> None:
    """Two samples of 64 x 64 columns in a band from -32 to 64; a tower stands in the north-west."""
    place, model = Place(((0, 0, -32), (64, 0, -32)), 2.0), make_model("struct-coarse", "tiny")
    grid = model.grid(place, (64, 64, 96))
    height = torch.zeros(2, 64, 64)
    height[0, 0, 0] = 32.0  # metres: 16 voxels
    height[1, :, 0] = torch.nan
    conditions = Conditions(place, (64, 64), height=height)
    near = cells_near_heights(grid, conditions, patch)
    unit = 8 * patch

    def layers(sample: int, x: int, y: int) -> list[int]:
        there = near & (grid.coordinates[:, :3] == torch.tensor([sample, x, y])).all(1)
        return sorted((grid.coordinates[there][:, 3] * 8 - 32).tolist())

    def expected(top: int) -> list[int]:
        return [
            low
            for low in range(-32, 64, 8)
            if low // unit * unit < top + 2 * 8 and low // unit * unit + unit > -16
        ]

    assert layers(0, 7, 0) == expected(0), "the south-east"
    assert layers(0, 0, 7) == layers(0, 2 * patch - 1, 7) == expected(16), "and what leans over"
    assert layers(0, 2 * patch, 7) == layers(0, 0, 7 - 2 * patch) == expected(0)
    assert layers(1, 0, 0) == list(range(-32, 64, 8)), "nothing is known"
    # All or none of what the network works on, and no cell of the data is left out.
    together = grid.select(near).parents(2) if patch == 2 else grid.select(near)
    assert len(grid.select(near)) == len(together) * patch**3
    scene = town(32, seeds=(0, 1))
    whole = model.grid(scene.sites.place, scene.shape)
    kept = whole.select(cells_near_heights(whole, scene.conditions, patch))
    assert bool((kept.rows(cells_of(scene).coordinates) >= 0).all())
    assert patch == 2 or len(kept) < len(whole)
    hidden = Conditions(place, (64, 64), height=height, present=torch.zeros(2, 3, dtype=torch.bool))
    for free in (Conditions(place, (64, 64)), hidden):
        assert bool(cells_near_heights(grid, free, patch).all())


def test_dilation_adds_neighbours_within_the_box() -> None:
    cells = cells_of(town(32))
    whole = dilate_cells(cells, (4, 4, 6), 1.0)
    assert bool((whole.rows(cells.coordinates) >= 0).all())
    xyz = cells.coordinates[:, 1:]
    for row in whole.select(cells.rows(whole.coordinates) < 0).coordinates[:, 1:]:
        assert int((xyz - row).abs().sum(1).min()) == 1
    assert int(whole.coordinates[:, 1:].min()) >= 0 and bool(
        (whole.coordinates[:, 1:] < torch.tensor([4, 4, 6])).all()
    )
    some = dilate_cells(cells, (4, 4, 6), 0.3, generator())
    assert len(cells) < len(some) < len(whole)
    assert torch.equal(
        dilate_cells(cells, (4, 4, 6), 0.0, generator()).coordinates, cells.coordinates
    )


def test_cells_with_a_latent_of_nothing_are_refined_away() -> None:
    model = make_model("struct-fine", "tiny")
    cells = cells_of(town(32))
    latent = torch.randn(len(cells), 16, generator=generator())
    latent[::3] = 0.1 * torch.randn(latent[::3].shape, generator=generator(1))
    found = model.refined(SparseTensor(cells, latent))
    rows = torch.arange(len(cells)) % 3 != 0
    torch.testing.assert_close(found.coordinates, cells.coordinates[rows])
