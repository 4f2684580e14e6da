"""TexVAE's Gaussians: what 16 numbers mean, bounds, turns, and the way into worlds and pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from earthgen.errors import ModelError
from earthgen.models.build import make_model
from earthgen.models.gaussian_head import (
    CHANNELS,
    decode_gaussians,
    multiply_quaternions,
    normals_from_rotation,
    rotation_from_normal,
)
from earthgen.models.tex_vae import tex_loss, voxel_features
from earthgen.splats.gaussians import from_voxels
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors, check_values
from earthgen.voxels.voxels import Voxels
from tests.helpers.model_scenes import Town, town

pytestmark = pytest.mark.usefixtures("one_thread")


def random_normals(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )


def test_turns() -> None:
    normal = torch.cat([random_normals(200), torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0]])])
    rotation = rotation_from_normal(normal)
    torch.testing.assert_close(rotation.norm(dim=1), torch.ones(len(normal)))
    torch.testing.assert_close(normals_from_rotation(rotation), normal, rtol=0, atol=2e-6)
    a, b = (
        rotation_from_normal(random_normals(50)),
        rotation_from_normal(random_normals(50).flip(0)),
    )
    z = normals_from_rotation(multiply_quaternions(a, b))
    # The product turns by b first, and by a after: by matrices.
    w, x, y, zz = a.unbind(1)
    matrix = torch.stack(
        [
            1 - 2 * (y * y + zz * zz),
            2 * (x * y - w * zz),
            2 * (x * zz + w * y),
            2 * (x * y + w * zz),
            1 - 2 * (x * x + zz * zz),
            2 * (y * zz - w * x),
            2 * (x * zz - w * y),
            2 * (y * zz + w * x),
            1 - 2 * (x * x + y * y),
        ],
        1,
    ).view(-1, 3, 3)
    torch.testing.assert_close(
        z, (matrix @ normals_from_rotation(b)[:, :, None])[:, :, 0], rtol=0, atol=2e-6
    )


def test_numbers_of_nothing_are_a_disc_in_the_surface() -> None:
    normal = random_normals(20)
    found = decode_gaussians(torch.zeros(20, CHANNELS), normal, 0.5, scales=(0.25, 1.0))
    assert not found.offset.any() and not found.sh.any()
    torch.testing.assert_close(
        found.scale, torch.full((20, 2), 0.25)
    )  # between a fourth of a voxel and one, in ratio
    torch.testing.assert_close(normals_from_rotation(found.rotation), normal, rtol=0, atol=2e-6)
    torch.testing.assert_close(found.opacity, torch.full((20,), 1 / (1 + math.exp(-2))))


def test_no_number_leaves_the_bounds() -> None:
    numbers = 60 * torch.randn(500, CHANNELS, generator=torch.Generator().manual_seed(1))
    numbers[0, 6:10] = torch.tensor([-1.0, 0, 0, 0])  # the quaternion that is none
    found = decode_gaussians(numbers, random_normals(500), 2.0, reach=1.0, scales=(0.1, 2.0))
    assert float(found.offset.abs().max()) <= 2 and bool((found.opacity <= 1).all())
    assert float(found.scale.min()) >= 0.2 - 1e-6 and float(found.scale.max()) <= 4 + 1e-6
    torch.testing.assert_close(found.rotation.norm(dim=1)[1:], torch.ones(499))
    numbers.requires_grad_(True)
    found = decode_gaussians(numbers, random_normals(500), 2.0, reach=1.0, scales=(0.1, 2.0))
    sum(
        part.sum() for part in (found.offset, found.scale, found.rotation, found.opacity, found.sh)
    ).backward()
    assert bool(torch.isfinite(numbers.grad).all())


def test_each_number_has_one_meaning() -> None:
    base = decode_gaussians(torch.zeros(1, CHANNELS), torch.tensor([[0.0, 0, 1]]), 1.0)
    names = ["offset"] * 3 + ["scale"] * 2 + ["opacity"] + ["rotation"] * 4 + ["sh"] * 6
    for channel, name in enumerate(names):
        numbers = torch.zeros(1, CHANNELS)
        numbers[0, channel] = 0.5
        found = decode_gaussians(numbers, torch.tensor([[0.0, 0, 1]]), 1.0)
        changed = {
            field
            for field in ("offset", "scale", "opacity", "rotation", "sh")
            if not torch.equal(getattr(found, field), getattr(base, field))
        }
        assert changed <= {name} and (
            changed or channel == 6
        )  # w alone only lengthens the quaternion
    bright = decode_gaussians(torch.eye(CHANNELS)[13:16], torch.tensor([[0.0, 0, 1]] * 3), 1.0).sh
    assert torch.equal(bright[:, 1:, 0], torch.eye(3)) and torch.equal(
        bright[..., 0], bright[..., 2]
    )


def scene_discs(scene: Town):  # type: ignore[no-untyped-def]
    numbers = torch.randn(len(scene.sites), CHANNELS, generator=torch.Generator().manual_seed(2))
    return decode_gaussians(numbers, scene.normal, 1.0)


def test_a_world_and_a_picture_get_the_same_gaussians() -> None:
    scene = town(16)
    found, frame = scene_discs(scene), scene.frames[0]
    xyz = scene.sites.lattice().numpy()
    count = len(xyz)
    zero = np.zeros(count, np.uint8)
    voxels = Voxels(
        frame, xyz.astype(np.int32), scene.semantic.numpy(), zero, zero.astype(np.uint32)
    )
    ground = scene.ground[0].numpy()
    for degree in (0, 1):
        stored = from_voxels(voxels, found.arrays(degree), ground)
        stored.check()
        assert stored.degree == degree
    drawn = found.splats(xyz, frame, ground, scene.semantic)
    check_values(drawn)
    expected = SplatTensors.of(stored)
    for name in ("means", "scales", "rotations", "opacities", "sh", "semantics"):
        torch.testing.assert_close(getattr(drawn, name), getattr(expected, name), rtol=0, atol=1e-5)
    assert drawn.anchor == expected.anchor and drawn.crs == frame.crs
    with pytest.raises(ModelError, match="degree 2"):
        found.arrays(2)


def test_pictures_have_gradients_to_every_weight() -> None:
    from earthgen.splats.cameras.camera import look_at
    from earthgen.splats.raster.rendering import rasterize

    scene, model = town(16), make_model("tex-vae")
    latent, found = model(voxel_features(scene.sites, scene.rgb, scene.normal), scene.normal)
    splats = found.splats(scene.sites.lattice(), scene.frames[0], scene.ground[0])
    east, north, _ = scene.frames[0].anchor
    eye = (east + 8.0, north - 20.0, 130.0)
    target = (east + 8.0, north + 8.0, 100.0)
    camera = look_at(eye, target, width=32, height=32, field_of_view=60, crs=scene.frames[0].crs)
    picture = rasterize(splats, camera)
    (picture.rgb.mean() + picture.alpha.mean() + latent.divergence()).backward()
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
    for (sample, x, y, z), number in rows.items():
        for part, (east, north) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1)), 1):
            around = [(sample, x + east, y + north, z + up) for up in (0, 1, -1)]
            near = next((rows[at] for at in around if at in rows), number)
            torch.testing.assert_close(
                found[number, 3 * part : 3 * part + 3], scene.rgb[near] * 2 - 1
            )
            seen += near != number
    assert seen > 500


def test_the_loss_wants_the_colours_that_are_known() -> None:
    scene = town(16)
    numbers = torch.zeros(len(scene.sites), CHANNELS)
    numbers[:, 3:5] = math.log((0.5 / 0.1) / (2.0 / 0.5)) / 1  # near half a voxel
    numbers[:, 10:13] = (scene.rgb - 0.5) / C0
    model = make_model("tex-vae")
    latent = model.encode(voxel_features(scene.sites, scene.rgb, scene.normal))
    exact = tex_loss(latent, decode_gaussians(numbers, scene.normal, 1.0), scene.rgb, scene.normal)
    assert float(exact.colour) == pytest.approx(0, abs=1e-6)
    wrong = numbers.clone()
    wrong[::2, 10] += 1
    known = torch.arange(len(numbers)) % 2 == 1
    hidden = tex_loss(
        latent, decode_gaussians(wrong, scene.normal, 1.0), scene.rgb, scene.normal, known=known
    )
    assert float(hidden.colour) == pytest.approx(0, abs=1e-6)
    seen = tex_loss(latent, decode_gaussians(wrong, scene.normal, 1.0), scene.rgb, scene.normal)
    assert float(seen.colour) == pytest.approx(C0 / 6, rel=1e-2)
    away = decode_gaussians(torch.zeros(len(numbers), CHANNELS), -scene.normal, 1.0)
    assert float(tex_loss(latent, away, scene.rgb, scene.normal).shape) > float(exact.shape) + 1
