"""What all models keep: gradients everywhere, half precision, batches, empty scenes, and where
things are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from earthgen.models.build import make_empty_model, make_model
from earthgen.models.flow import sample
from earthgen.models.presets import PARTS, PRESETS, Config, Preset, preset
from earthgen.sparse.sites import make_sites
from tests.helpers.model_cases import LOSSES, Output, cells_of, flow_case, output
from tests.helpers.model_scenes import Town, generator, town

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_every_weight(part: str) -> None:
    model = make_model(part, "tiny")
    LOSSES[part](model, town(), generator()).backward()
    dead = {
        name
        for name, value in model.named_parameters()
        if value.grad is None or not bool(value.grad.abs().sum() > 0)
    }
    assert not dead


def losses_of_training(part: str, model: Any, scene: Town, rate: float, steps: int) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    random, losses = generator(), []
    for _ in range(steps):
        loss = LOSSES[part](model, scene, random)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("part", "left"), [("struct-vae", 0.35), pytest.param("tex-vae", 0.25, marks=pytest.mark.slow)]
)
def test_an_autoencoder_learns_a_town(part: str, left: float) -> None:
    """After a few seconds of training, so much is left of the first loss, with some room."""
    losses = losses_of_training(part, make_model(part, "tiny"), town(), 3e-3, 40)
    assert np.mean(losses[-5:]) < left * losses[0]


@pytest.mark.parametrize(
    ("part", "seeds", "steps", "error"),
    [("struct-fine", (0,) * 4, 60, 0.4), ("tex-flow", (0, 0), 40, 0.3)],
)
@pytest.mark.slow
def test_a_flow_learns_a_town_and_samples_it(
    part: str, seeds: tuple[int, ...], steps: int, error: float
) -> None:
    """After seconds of training, samples in 8 steps are the town's up to a share of its square.

    Several copies give several times a step. The cells of the first stage: test_struct.py.
    """
    model, scene = make_model(part, "tiny"), town(seeds=seeds)
    losses_of_training(part, model, scene, 1.5e-3, steps)
    data, predict = flow_case(part, model, scene)
    noise = torch.randn(data.shape, generator=generator(5))
    with torch.no_grad():
        found = sample(model.flow, predict, noise, steps=8)
    assert float((found - data).square().mean()) < error * float(data.square().mean())


@pytest.mark.parametrize("part", PARTS)
def test_bfloat16_is_finite_forward_and_backward(part: str) -> None:
    model = make_model(part, "tiny")
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[part](model, town(seeds=(0, 1)), generator())
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(
        bool(torch.isfinite(value.grad).all())
        for value in model.parameters()
        if value.grad is not None
    )
    with torch.no_grad():
        exact = LOSSES[part](model, town(seeds=(0, 1)), generator())
    # bfloat16 keeps eight bits: a loss of many terms comes out within some hundredths.
    assert float(loss.detach()) == pytest.approx(float(exact), rel=0.05)


def tensor(found: Output) -> torch.Tensor:
    return found.dense if found.sparse is None else found.sparse.features


@pytest.mark.parametrize("part", PARTS)
def test_a_sample_alone_equals_it_in_a_batch(part: str) -> None:
    model = make_model(part, "tiny")
    both = output(part, model, town(seeds=(0, 1)))
    alone = output(part, model, town(seeds=(1,)))
    last = both.dense[1:] if both.sparse is None else both.sparse.samples()[1].features
    # Rows stand in other products: rounding differs in the last bits of float32 sums of some
    # hundred terms.
    torch.testing.assert_close(last, tensor(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_a_scene_that_moves_by_a_window_gives_the_same(part: str) -> None:
    """64 voxels are a window of attention at L/8: the whole of the lattice."""
    model, here = make_model(part, "tiny"), town()
    for east, north in ((64, 0), (-128, 64)):
        there = here.moved(east, north)
        torch.testing.assert_close(
            tensor(output(part, model, here)), tensor(output(part, model, there))
        )


@pytest.mark.parametrize("part", [part for part in PARTS if part != "height-flow"])
@pytest.mark.parametrize("instead", ["", "f"])
def test_a_scene_that_moves_by_a_cell_gives_the_same(part: str, instead: str) -> None:
    """8 voxels are a cell of L/8: convolutions, encodings and attention over whole samples know
    no larger lattice."""
    model = make_model(part, rechained(preset("tiny").part(part), instead))
    here = town()
    for east, north in ((8, 0), (-8, 40)):
        there = here.moved(east, north)
        if part in ("struct-vae", "tex-vae"):
            pair = [tensor(output(part, model, scene)) for scene in (here, there)]
        else:  # states that stay with the voxels, not with the place
            pair = [_forward(part, model, scene) for scene in (here, there)]
        torch.testing.assert_close(*pair)


def rechained(config: Config, instead: str) -> Config:
    """A configuration with other blocks where there are windows of all heights."""

    def walk(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {key: walk(item, key) for key, item in value.items()}
        return value.replace("t", instead) if name == "middle" and isinstance(value, str) else value

    return type(config).model_validate(walk(config.model_dump()))


def _forward(part: str, model: Any, scene: Town) -> torch.Tensor:
    sites = {
        "struct-coarse": lambda: model.grid(scene.sites.place, scene.shape),
        "struct-fine": lambda: cells_of(scene),
        "tex-flow": lambda: scene.sites,
    }[part]()
    state = torch.sin(sites.coordinates.sum(1, keepdim=True) * torch.arange(1, model.channels + 1))
    condition = model.condition(scene.conditions, sites)
    with torch.no_grad():
        return model(type(condition[0])(sites, state), torch.tensor([0.3]), condition).features


@pytest.mark.parametrize("part", ["tex-vae", "tex-flow", "height-flow"])
def test_far_from_its_edge_a_crop_gives_what_the_whole_gives(part: str) -> None:
    model = make_model(part, part_of_reach_16(part))
    whole, crop = town(96), town(64, east=32)
    large, small = output(part, model, whole), output(part, model, crop)
    if part == "height-flow":
        a, b = large.dense[0, 0, 32:, 32:], small.dense[0, 0]
        a, b = a[24:40, 24:40], b[24:40, 24:40]
    else:
        middle = (small.sparse.coordinates[:, 1:3] >= 24).all(1) & (
            small.sparse.coordinates[:, 1:3] < 40
        ).all(1)
        there = small.sparse.coordinates[middle] + torch.tensor([0, 32, 0, 0], dtype=torch.int32)
        a = large.sparse.features[large.sparse.sites.rows(there)]
        b = small.sparse.features[middle]
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # other products, as in a batch


def part_of_reach_16(part: str) -> Config:
    """A small configuration that looks less than 24 voxels far."""
    if part == "tex-vae":
        return preset("tiny").tex_vae
    if part == "height-flow":
        return preset("tiny").height_flow.model_copy(
            update={"channels": (16, 16), "blocks": (1, 1)}
        )
    whole = preset("tiny").tex_flow
    unet = whole.unet.model_copy(
        update={"channels": (16, 16), "down": ("c",), "middle": "c", "up": ("c",)}
    )
    cond = whole.condition.model_copy(update={"channels": (8, 8), "plane": ("c", "c")})
    return whole.model_copy(update={"unet": unet, "condition": cond})


@pytest.mark.parametrize("part", [part for part in PARTS if part != "height-flow"])
@pytest.mark.parametrize("count", [0, 1])
def test_scenes_of_no_voxel_and_of_one(part: str, count: int) -> None:
    scene = town()
    sites = make_sites(scene.sites.coordinates[:count], place=scene.sites.place)[0]
    small = Town(
        scene.frames,
        sites,
        scene.semantic[:count],
        scene.normal[:count],
        scene.rgb[:count],
        scene.cover,
        scene.height,
        scene.ground,
    )
    model = make_model(part, "tiny")
    loss = LOSSES[part](model, small, generator())
    loss.backward()
    assert bool(torch.isfinite(loss))
    found = output(part, model, small)
    expected = {"struct-coarse": 4 * 4 * 6, "struct-fine": count}.get(part, count)
    assert len(found.sparse) == expected
    assert bool(torch.isfinite(found.sparse.features).all())


@pytest.mark.parametrize("part", PARTS)
def test_the_paper_s_sizes_run_on_a_small_scene(part: str) -> None:
    """L = 32. Chains and depths are the preset's, widths a fourth: all of it would fill a small
    machine."""
    config = preset("paper").part(part)
    model = make_model(part, narrowed(config))
    found = output(part, model, town(32))
    assert bool(torch.isfinite(tensor(found)).all())


def narrowed(config: Config) -> Config:
    """A configuration of the paper's with a fourth of the channels, and so a fourth of the
    heads."""
    values = config.model_dump()

    def walk(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {key: walk(item, key) for key, item in value.items()}
        if name in ("channels", "embedding"):
            return (
                tuple(max(n // 4, 8) for n in value)
                if isinstance(value, tuple)
                else max(value // 4, 8)
            )
        if name == "head":
            return 8
        return value

    return type(config).model_validate(walk(values))


def test_a_model_of_the_paper_itself_runs() -> None:
    scene = town(32)
    model = make_model("tex-vae", "paper")
    assert bool(torch.isfinite(tensor(output("tex-vae", model, scene))).all())
    model = make_model("struct-vae", "paper")
    assert bool(torch.isfinite(tensor(output("struct-vae", model, scene))).all())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_go_through_json(name: str) -> None:
    given = preset(name)
    assert Preset.model_validate_json(given.model_dump_json()) == given
    counts = {
        part: sum(value.numel() for value in make_empty_model(part, name).parameters())
        for part in PARTS
    }
    assert min(counts.values()) > 0
    if name == "tiny":
        # In bfloat16 the weights stay below 20 MB.
        assert sum(counts.values()) < 9e6


def test_fresh_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    a, b, c = (
        make_model("height-flow"),
        make_model("height-flow", seed=0),
        make_model("height-flow", seed=1),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(a.parameters(), b.parameters(), c.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in pairs)
    assert not all(torch.equal(x, z) for x, _, z in pairs)
