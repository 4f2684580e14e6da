"""Colours of voxels: the autoencoder, the way into pictures, and colours of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from earthgen.models.build import make_model
from earthgen.models.flow import sample
from earthgen.models.gaussian_head import VoxelGaussians, rotation_from_normal
from earthgen.models.presets import TexVaeConfig, preset
from earthgen.models.tex_flow import (
    colour_spread,
    object_colours,
    object_parts,
    tex_flow_loss,
    told_features,
)
from earthgen.models.tex_vae import COLOUR, tex_loss, voxel_features
from earthgen.sparse.sites import Place, make_sites
from earthgen.sparse.tensor import SparseTensor
from earthgen.splats.gaussians import from_voxels
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors, check_values
from earthgen.voxels.object_colours import CROWN, OTHER, ROOF, WALL
from earthgen.voxels.voxels import Splats, Voxels
from geo_io.legend import codes
from tests.helpers.model_scenes import Town, town

pytestmark = pytest.mark.usefixtures("one_thread")


def test_shortest_turns_to_normals() -> None:
    normal = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    normal[0] = torch.tensor([0.0, 0.0, -1.0])
    w, x, y, z = rotation_from_normal(normal).unbind(1)
    turned = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    torch.testing.assert_close(turned, normal, rtol=0, atol=2e-6)


def discs(scene: Town) -> Splats:
    random = np.random.default_rng(2)
    count = len(scene.sites)
    return Splats(
        random.normal(size=(count, 3)).astype(np.float32) * np.float32(0.3),
        np.full((count, 2), 0.6, np.float32),
        rotation_from_normal(scene.normal).numpy(),
        np.full(count, 0.9, np.float32),
        np.zeros((count, 1, 3), np.float32),
    )


def test_a_world_and_a_picture_get_the_same_gaussians() -> None:
    scene = town(16)
    frame, shapes = scene.frames[0], discs(scene)
    found = VoxelGaussians.of(shapes, scene.rgb)
    xyz = scene.sites.lattice().numpy()
    zero = np.zeros(len(xyz), np.uint8)
    voxels = Voxels(
        frame, xyz.astype(np.int32), scene.semantic.numpy(), zero, zero.astype(np.uint32)
    )
    ground = scene.ground[0].numpy()
    parts = (shapes.offset, shapes.scale, shapes.rotation, shapes.opacity)
    stored = from_voxels(voxels, Splats(*parts, found.sh.numpy()), ground)
    stored.check()
    drawn = found.splats(xyz, frame, ground, scene.semantic)
    check_values(drawn)
    expected = SplatTensors.of(stored)
    for name in ("means", "scales", "rotations", "opacities", "sh", "semantics"):
        torch.testing.assert_close(getattr(drawn, name), getattr(expected, name), rtol=0, atol=1e-5)
    assert drawn.anchor == expected.anchor and drawn.crs == frame.crs
    torch.testing.assert_close(found.sh[:, 0] * C0 + 0.5, scene.rgb)


def test_pictures_have_gradients_to_every_weight() -> None:
    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.raster.rendering import rasterize

    scene, model = town(16), make_model("tex-vae")
    latent, colours = model(voxel_features(scene.sites, scene.rgb, scene.normal))
    found = VoxelGaussians.of(discs(scene), colours)
    splats = found.splats(scene.sites.lattice(), scene.frames[0], scene.ground[0])
    east, north, _ = scene.frames[0].anchor
    eye = (east + 8.0, north - 20.0, 130.0)
    target = (east + 8.0, north + 8.0, 100.0)
    camera = look_at(eye, target, width=32, height=32, field_of_view=60, crs=scene.frames[0].crs)
    picture = rasterize(splats, camera)
    (picture.rgb.mean() + latent.divergence()).backward()
    assert float(picture.alpha.detach().max()) > 0.5
    dead = [
        name
        for name, value in model.named_parameters()
        if value.grad is None or not value.grad.any()
    ]
    assert not dead


def test_features_are_a_cross_of_colours_and_the_normal() -> None:
    scene = town(16)
    found = voxel_features(scene.sites, scene.rgb, scene.normal).features
    assert found.shape == (len(scene.sites), 18)
    torch.testing.assert_close(found[:, :3], scene.rgb * 2 - 1)
    torch.testing.assert_close(found[:, 15:], scene.normal)
    rows = {tuple(row): number for number, row in enumerate(scene.sites.coordinates.tolist())}
    seen = 0
    for (sample_, x, y, z), number in rows.items():
        for part, (east, north) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1)), 1):
            around = [(sample_, x + east, y + north, z + up) for up in (0, 1, -1)]
            near = next((rows[at] for at in around if at in rows), number)
            torch.testing.assert_close(
                found[number, 3 * part : 3 * part + 3], scene.rgb[near] * 2 - 1
            )
            seen += near != number
    assert seen > 500


def test_the_loss_wants_the_colours_that_are_known() -> None:
    scene = town(16)
    model = make_model("tex-vae")
    latent = model.encode(voxel_features(scene.sites, scene.rgb, scene.normal))
    assert float(tex_loss(latent, scene.rgb, scene.rgb).colour) == 0
    wrong = scene.rgb.clone()
    wrong[::2, 0] += 1
    known = torch.arange(len(wrong)) % 2 == 1
    assert float(tex_loss(latent, wrong, scene.rgb, known=known).colour) == 0
    assert float(tex_loss(latent, wrong, scene.rgb).colour) == pytest.approx(1 / 6, rel=1e-2)
    heavy = tex_loss(latent, scene.rgb, scene.rgb, kl_weight=2.0)
    assert float(heavy.total) == pytest.approx(2 * float(latent.divergence()), rel=1e-5)


def test_weights_that_decode_shapes_give_the_colours_among_them() -> None:
    values = preset("tiny").tex_vae.model_dump(mode="json", exclude={"outputs"})
    before = TexVaeConfig.model_validate({**values, "reach": 1.0, "scales": [0.1, 2.0]})
    assert before.outputs == 16 and TexVaeConfig.model_validate(values).outputs == 3
    # What is written now is read as what it is.
    assert TexVaeConfig.model_validate(before.model_dump(mode="json")) == before
    scene, model = town(16), make_model("tex-vae", before)
    latent = model.encode(voxel_features(scene.sites, scene.rgb, scene.normal)).mean
    with torch.no_grad():
        hidden = model.decoder_norm(model.decoder(model.latent(latent)))
        all_channels = model.head(hidden).features
        torch.testing.assert_close(model.decode(latent), all_channels[:, COLOUR] * C0 + 0.5)


def house() -> tuple[Any, ...]:
    """Two houses of 4 x 4 x 5 voxels and a tree on a plain, in one sample; the ground has no
    object."""
    rows, semantic, normal, objects = [], [], [], []
    building, tree, grass = (codes()[name] for name in ("building", "tree", "grass"))

    def add(x: int, y: int, z: int, code: int, up: bool, number: int) -> None:
        rows.append([0, x, y, z])
        semantic.append(code)
        normal.append([0.0, 0.0, 1.0] if up else [1.0, 0.0, 0.0])
        objects.append(number)

    for x in range(16):
        for y in range(16):
            corner = next(((a, n) for a, n in ((2, 7), (10, 8)) if a <= x < a + 4), None)
            if corner and 2 <= y < 6:
                edge = x in (corner[0], corner[0] + 3) or y in (2, 5)
                for z in range(0 if edge else 4, 5):
                    add(x, y, z, building, z == 4, corner[1])
            else:
                add(x, y, 0, grass, True, 0)
    for z in range(2, 5):
        add(8, 12, z, tree, z == 4, 12)
    sites, order = make_sites(torch.tensor(rows), place=Place())
    return (
        sites,
        torch.tensor(semantic, dtype=torch.uint8)[order],
        torch.tensor(normal)[order],
        torch.tensor(objects)[order],
    )


def test_parts_of_objects() -> None:
    sites, semantic, normal, objects = house()
    part = object_parts(sites, semantic, normal, objects)
    z = sites.coordinates[:, 3]
    for number in (7, 8):
        own = objects == number
        assert bool((part[own & (z == 4)] == ROOF).all())
        assert bool((part[own & (z < 4)] == WALL).all())
        assert int((part[own] == ROOF).sum()) == 16
    assert bool((part[objects == 12] == CROWN).all())
    assert bool((part[objects == 0] == OTHER).all())


def test_objects_have_the_median_of_what_was_seen_of_them() -> None:
    sites, semantic, normal, objects = house()
    part = object_parts(sites, semantic, normal, objects)
    rgb = torch.full((len(sites), 3), 0.5)
    base = torch.where(objects == 7, 0.2, 0.8)
    rgb[:, 0] = base
    walls = part == WALL
    rgb[walls, 1] = 0.9
    glass = walls & (sites.coordinates[:, 3] == 2)  # a row of windows: fewer than half
    rgb[glass] = 0.1
    seen = ~((objects == 12) & (sites.coordinates[:, 3] > 2))  # one voxel of the tree is seen
    found = object_colours(sites, objects, part, rgb, seen)
    told = {
        (int(objects[row]), int(part[row])): (
            [round(value, 4) for value in found.colour[found.group[row]].tolist()],
            bool(found.known[found.group[row]]),
        )
        for row in range(len(sites))
    }
    assert told[7, ROOF] == ([0.2, 0.5, 0.5], True)
    assert told[8, ROOF] == ([0.8, 0.5, 0.5], True)
    assert told[7, WALL] == ([0.2, 0.9, 0.5], True), "the wall, not its windows"
    assert not told[12, CROWN][1], "too little was seen"
    assert not told[0, OTHER][1], "the ground is no object"
    rgb[(part == ROOF) & (objects == 7)] = torch.tensor([0.2, 0.5, 0.5])
    rgb[((part == ROOF) & (objects == 7)).nonzero()[::3, 0]] = 0.9
    mottled = object_colours(sites, objects, part, rgb, seen)
    row = int(((part == ROOF) & (objects == 7)).nonzero()[0, 0])
    assert not mottled.known[mottled.group[row]], "no roof of one colour"
    assert mottled.known[mottled.group[int(((part == ROOF) & (objects == 8)).nonzero()[0, 0])]]
    nothing = object_colours(sites, objects, part, rgb, torch.zeros_like(seen))
    assert not bool(nothing.known.any())


def test_told_features_are_0_where_nothing_is_told() -> None:
    found = told_features(torch.tensor([[0.75, 0.5, 0.0], [0.9, 0.9, 0.9]]), torch.tensor([1, 0]))
    assert found.tolist() == [[1.0, 0.0, -2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]


def test_spread_is_that_within_groups() -> None:
    rgb = torch.tensor([[0.1], [0.3], [0.8], [0.8], [0.0]]).expand(-1, 3)
    group = torch.tensor([4, 4, 2, 2, 2])
    counted = torch.tensor([True, True, True, True, False])
    assert float(colour_spread(rgb, group, counted)) == pytest.approx((0.02 / 4) ** 0.5)
    assert float(colour_spread(rgb, group, torch.zeros(5, dtype=torch.bool))) == 0


@pytest.mark.parametrize("by_object", [False, True])
def test_a_flow_of_colours_learns_to_paint_what_it_is_told(by_object: bool) -> None:
    """In seconds: told red or blue, it paints so; told nothing, it does not know which."""
    config = preset("tiny").tex_flow.model_copy(
        update={"target": "rgb", "told": True, "by_object": by_object}
    )
    small = config.unet.model_copy(
        update={"channels": (16, 16), "down": ("",), "middle": "c", "up": ("c",)}
    )
    condition = config.condition.model_copy(update={"channels": (8, 8), "plane": ("", "")})
    config = config.model_copy(update={"unet": small, "condition": condition})
    model: Any = make_model("tex-flow", config, seed=1)
    scene = town(16)
    count = len(scene.sites)
    red, blue = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.2, 0.2, 0.8])
    noise = 0.05 * torch.randn(16, 3, generator=torch.Generator().manual_seed(2))
    model.statistics.fit(torch.stack([red, blue]).repeat(8, 1) + noise)
    if by_object:
        model.spread.fill_(0.1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(3)
    everywhere = torch.ones(count, dtype=torch.bool)
    part = torch.full((count,), ROOF)
    for step in range(80):
        rgb = (red if step % 2 else blue).expand(count, 3)
        told = told_features(rgb, everywhere) if step % 8 < 6 else None
        state = model.colour_scales(told, part).to_state(SparseTensor(scene.sites, rgb))
        loss = tex_flow_loss(
            model,
            state,
            scene.conditions,
            generator,
            semantic=scene.semantic,
            normal=scene.normal,
            told=told,
            style=torch.ones(1),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    errors = {}
    for name, rgb in (("red", red), ("blue", blue)):
        told = told_features(rgb.expand(count, 3), everywhere)
        with torch.no_grad():
            features = model.condition(
                scene.conditions, scene.sites, scene.semantic, scene.normal, told
            )
            noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(5))
            predict = model.predictor(scene.sites, features, style=torch.ones(1))
            state = sample(model.flow, predict, noise, steps=8)
            scales = model.colour_scales(told, part)
            made = scales.to_colours(SparseTensor(scene.sites, state))
        errors[name] = float((made.mean(0) - rgb).abs().max())
    assert max(errors.values()) < 0.12, errors


def test_colours_are_states_against_the_told_one() -> None:
    """A roof of spread 0.05 told (0.5, 0.4, 0.3), and a voxel that is told nothing."""
    config = preset("tiny").tex_flow
    assert config.by_object and config.told and config.target == "rgb"
    model: Any = make_model("tex-flow", config, seed=1)
    model.statistics.mean.fill_(0.4)
    model.statistics.deviation.fill_(0.2)
    model.spread[0, ROOF], model.spread[1, ROOF] = 0.05, 0.01
    told = told_features(
        torch.tensor([[0.5, 0.4, 0.3], [0.9, 0.9, 0.9]]), torch.tensor([True, False])
    )
    scales = model.colour_scales(told, torch.tensor([ROOF, ROOF]))
    sites = make_sites(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32))[0]
    rgb = torch.tensor([[0.55, 0.4, 0.2], [0.4, 0.6, 0.2]])
    state = scales.to_state(SparseTensor(sites, rgb))
    expected = torch.tensor([[1.0, 0.0, -2.0], [0.0, 1.0, -1.0]])
    torch.testing.assert_close(state.features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(scales.to_colours(state), rgb)
    rules = model.colour_scales(told, torch.tensor([ROOF, ROOF]), torch.tensor([1, 1]))
    torch.testing.assert_close(
        rules.to_state(SparseTensor(sites, rgb)).features[0], torch.tensor([5.0, 0.0, -10.0])
    )
    free = model.colour_scales(None, None)
    assert torch.equal(free.centre, model.statistics.mean)
