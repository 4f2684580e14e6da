"""The reference gives what is known of pictures of discs, gsplat's own projection and picture,
and right gradients."""

import math
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.raster.colour import bases, colours, directions
from earthgen.splats.raster.model import Rendering
from earthgen.splats.raster.reference import coverage, project, rasterize_reference, turns
from earthgen.splats.spherical_harmonics import basis
from earthgen.splats.tensors import FLOATS, SplatTensors, check_values
from tests.helpers.splat_scenes import (
    CAMERAS,
    OUTPUTS,
    above,
    disc,
    joined,
    leaves,
    oblique,
    scattered,
)

MIDDLE = (12, 16)
"""Row and column of the pixel in the middle of `above()`'s picture, its centre on the axis."""


def close(found: torch.Tensor, expected: object, off: float = 1e-12) -> None:
    assert torch.allclose(
        found.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=off
    )


def test_a_disc_that_faces_the_camera() -> None:
    made = rasterize_reference(disc(), above(), background=(0, 0, 1))
    close(made.rgb[MIDDLE], (0.4, 0.4, 0.6))  # 0.8 of grey 0.5, and 0.2 of blue
    close(made.alpha[MIDDLE], 0.8)
    close(made.depth[MIDDLE], 10)
    close(made.median_depth[MIDDLE], 10)
    close(made.normal[MIDDLE], (0, 0, 0.8))
    close(made.distortion, torch.zeros(25, 33))
    assert made.semantics[MIDDLE] == 3

    # Two pixels to the right: 2 x 10 m / 20 pixels = 1 m, two standard deviations.
    close(made.alpha[12, 18], 0.8 * math.exp(-2))
    assert made.median_depth[12, 18] == 0  # more than half of the light is left
    # Further than sqrt(2 ln(255 x 0.8)) deviations alpha is below 1 / 255: nothing.
    last = math.floor(0.5 * math.sqrt(2 * math.log(255 * 0.8)) * 2)
    assert made.alpha[12, 16 + last] > 0 and made.alpha[12, 17 + last] == 0
    close(made.rgb[12, 17 + last], (0, 0, 1))
    assert made.semantics[12, 17 + last] == 0 and made.depth[12, 17 + last] == 0


def test_an_orthographic_camera_shows_a_disc_alike_at_any_height() -> None:
    near, far = (
        rasterize_reference(disc(), above(metres_per_pixel=0.5, z=z)) for z in (3.0, 3000.0)
    )
    close(near.rgb, far.rgb)
    close(near.alpha[12, 18], 0.8 * math.exp(-2))
    close(far.depth[MIDDLE], 3000)


def test_two_discs_over_each_other() -> None:
    high = disc(mean=(0, 0, 2), opacity=0.5, grey=1.0, code=9)
    made = rasterize_reference(joined(disc(), high), above())
    # In front 0.5 of white, 8 m away; behind it 0.5 x 0.8 of grey 0.5, 10 m away.
    close(made.rgb[MIDDLE], (0.7, 0.7, 0.7))
    close(made.alpha[MIDDLE], 0.9)
    close(made.depth[MIDDLE], (0.5 * 8 + 0.4 * 10) / 0.9)
    close(made.median_depth[MIDDLE], 8)  # half of the light is no more than half
    close(made.distortion[MIDDLE], 0.5 * 0.4 * 2**2)
    assert made.semantics[MIDDLE] == 9
    # Of classes with equal weights the lowest code.
    halves = joined(disc(mean=(0, 0, 1), opacity=0.5, code=7), disc(opacity=0.999, code=4))
    even = rasterize_reference(joined(halves, disc(mean=(0, 0, -1), opacity=0.9, code=7)), above())
    close(even.alpha[MIDDLE], 0.5 + 0.5 * 0.999)  # the third would leave too little light
    assert even.semantics[MIDDLE] == 7
    assert (
        rasterize_reference(
            joined(disc(opacity=0.4, code=8), disc(opacity=0.4 / 0.6, code=2)), above()
        ).semantics[MIDDLE]
        == 2
    )


def test_light_ends_before_the_gaussian_that_would_leave_too_little() -> None:
    stack = joined(*(disc(mean=(0, 0, -z), opacity=1.0, grey=0.25 * z) for z in range(4)))
    made = rasterize_reference(stack, above())
    # Each covers 0.999 at most. The second would leave 1e-6 of the light, less than 1e-4: it is not
    # drawn.
    close(made.alpha[MIDDLE], 0.999)
    close(made.rgb[MIDDLE], (0, 0, 0))


def test_a_disc_seen_obliquely_has_the_depth_of_its_plane() -> None:
    slope = math.radians(40)
    turn = (
        math.cos(slope / 2),
        math.sin(slope / 2),
        0.0,
        0.0,
    )  # about east: the normal leans to the south
    for camera in (above(), above(metres_per_pixel=0.4)):
        made = rasterize_reference(disc(rotation=turn, scale=(1, 1)), camera)
        rows, columns = (made.alpha > 0).nonzero().unbind(1)
        pixels = np.column_stack([columns + 0.5, rows + 0.5])
        points = camera.unproject(pixels, made.depth[rows, columns].numpy())
        normal = np.array((0, -math.sin(slope), math.cos(slope)))
        assert np.abs(points @ normal).max() < 1e-12
        close(made.normal[MIDDLE], 0.8 * normal)
        uv = np.column_stack([points[:, 0], points[:, 1] / math.cos(slope)])
        close(made.alpha[rows, columns], 0.8 * np.exp(-0.5 * (uv**2).sum(1)))


@pytest.mark.parametrize("size", [None, 0.5])
def test_a_disc_seen_edge_on_is_a_pixel_wide(size: float | None) -> None:
    upright = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
    made = rasterize_reference(disc(rotation=upright), above(metres_per_pixel=size))
    # What is left is the low-pass: sigma of sqrt(1/2) pixel, at the depth of the mean.
    close(made.alpha[MIDDLE], 0.8)
    close(made.alpha[11, 16], 0.8 * math.exp(-1))
    close(made.depth[11, 16], 10)


def test_the_smallest_disc_is_a_pixel_wide() -> None:
    made = rasterize_reference(disc(scale=(1e-4, 1e-4)), above())
    close(made.alpha[MIDDLE], 0.8)
    close(made.alpha[12, 17], 0.8 * math.exp(-1))


def test_nothing_to_see_is_the_background() -> None:
    behind = disc(mean=(0, 0, 11))
    none = behind.take(torch.zeros(0, dtype=torch.long))
    clear = disc(opacity=0.003)  # less than 1 / 255
    for splats in (behind, none, clear):
        made = rasterize_reference(splats, above(), background=(0.1, 0.2, 0.3))
        close(made.rgb, torch.tensor((0.1, 0.2, 0.3), dtype=torch.float64).expand(25, 33, 3))
        for name in ("alpha", "depth", "median_depth", "normal", "distortion", "semantics"):
            assert not getattr(made, name).any(), name


def test_near_and_far() -> None:
    assert rasterize_reference(disc(), replace(above(), far=10.0)).alpha.max() == 0
    assert rasterize_reference(disc(), replace(above(), near=10.0)).alpha.max() == 0
    # The half of a leaning disc that is nearer than `near` is not seen, though its mean is.
    leaning = disc(rotation=(math.cos(0.5), math.sin(0.5), 0.0, 0.0), scale=(3.0, 3.0))
    cut = rasterize_reference(leaning, replace(above(), near=9.999))
    seen = rasterize_reference(leaning, above())
    assert (cut.alpha[seen.depth < 9.99] == 0).all() and (seen.depth[seen.alpha > 0] < 9.99).any()
    assert torch.equal(cut.alpha[seen.depth > 10], seen.alpha[seen.depth > 10])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_by_direction(degree: int) -> None:
    splats = scattered(40, degree=degree, dtype=torch.float64)
    camera = oblique()
    seen = directions(splats, camera)
    expected = splats.means.numpy() + np.array(splats.anchor) - np.array(camera.position)
    close(seen, expected / np.linalg.norm(expected, axis=1, keepdims=True))
    close(bases(seen, degree), basis(seen.numpy(), degree))
    found = colours(splats, camera)
    close(
        found,
        np.maximum(
            0.5 + np.einsum("nk,nkc->nc", basis(seen.numpy(), degree), splats.sh.numpy()), 0
        ),
    )
    assert (found >= 0).all()
    # An orthographic camera sees all along one direction.
    forward = oblique(metres_per_pixel=1.0)
    close(directions(splats, forward), np.tile(forward.forward, (40, 1)))


@pytest.mark.parametrize("kind", ["pinhole", pytest.param("orthographic", marks=pytest.mark.slow)])
@pytest.mark.parametrize("output", OUTPUTS)
def test_gradients(kind: str, output: str) -> None:
    camera = oblique(9, 7, metres_per_pixel=0.5 if kind == "orthographic" else None)
    splats = leaves(
        scattered(6, degree=1, scales=(0.3, 0.9), opacities=(0.3, 0.9), seed=3, dtype=torch.float64)
    )

    def picture(*floats: torch.Tensor) -> torch.Tensor:
        given = replace(splats, **dict(zip(FLOATS, floats, strict=True)))
        return getattr(rasterize_reference(given, camera, background=(0.2, 0.1, 0.3)), output)

    assert torch.autograd.gradcheck(
        picture, tuple(getattr(splats, name) for name in FLOATS), eps=1e-7, atol=1e-6
    )


def gsplat_projection(splats: SplatTensors, camera: Camera) -> tuple[torch.Tensor, ...]:
    theirs = pytest.importorskip("gsplat.cuda._torch_impl_2dgs")
    turn, shift = camera.world_to_camera(splats.anchor)
    view = torch.eye(4, dtype=splats.dtype)
    view[:3, :3], view[:3, 3] = torch.from_numpy(turn), torch.from_numpy(shift)
    k = torch.tensor(
        [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], dtype=splats.dtype
    )
    scales = torch.cat([splats.scales, torch.ones_like(splats.scales[:, :1])], 1)
    return theirs._fully_fused_projection_2dgs(
        splats.means,
        splats.rotations,
        scales,
        view[None],
        k[None],
        camera.width,
        camera.height,
        camera.near,
        1e10,
    )


def test_projection_is_that_of_gsplat() -> None:
    splats, camera = scattered(500, dtype=torch.float64, extent=3.0), CAMERAS["pinhole"]
    radii, centres, depths, transforms, normals = (
        part[0] for part in gsplat_projection(splats, camera)
    )
    ours = project(splats, camera)
    close(ours.centres, centres, 1e-8)
    close(ours.depths, depths)
    close(ours.transforms, transforms, 1e-9)
    turn = torch.from_numpy(camera.world_to_camera(splats.anchor)[0])
    close(ours.normals @ turn.T, normals)
    seen = (radii > 0).all(1)
    assert 100 < seen.sum() < 500
    # gsplat's box is 3.33 times that of one standard deviation, rounded up; a hundredth of a pixel
    # at least.
    expected = torch.ceil(3.33 * ours.extents.clamp_min(0.01)).int()
    assert torch.equal(radii[seen], expected[seen])


def test_turns_are_those_of_gsplat() -> None:
    utils = pytest.importorskip("gsplat.cuda._torch_impl")
    quaternions = scattered(50, dtype=torch.float64).rotations * 1.005
    close(turns(quaternions), utils._quat_to_rotmat(quaternions))


def test_the_picture_is_that_of_gsplat(monkeypatch: pytest.MonkeyPatch) -> None:
    """gsplat's torch compositing, given every pair of pixel and Gaussian.

    Which pairs there are it only finds on CUDA, and nerfacc sums for it; both are written out here.
    """
    theirs = pytest.importorskip("gsplat.cuda._torch_impl_2dgs")

    def weights(
        alphas: torch.Tensor, ray_indices: torch.Tensor, n_rays: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rays = alphas.reshape(n_rays, -1)
        assert torch.equal(
            ray_indices.reshape(n_rays, -1), torch.arange(n_rays)[:, None].expand_as(rays)
        )
        light = torch.cumprod(torch.cat([torch.ones_like(rays[:, :1]), 1 - rays[:, :-1]], 1), 1)
        return (rays * light).flatten(), light.flatten()

    def total(
        weights: torch.Tensor, values: torch.Tensor | None, ray_indices: torch.Tensor, n_rays: int
    ) -> torch.Tensor:
        values = weights[:, None] if values is None else weights[:, None] * values
        return torch.zeros(n_rays, values.shape[1], dtype=values.dtype).index_add(
            0, ray_indices, values
        )

    stub = types.ModuleType("nerfacc")
    stub.render_weight_from_alpha, stub.accumulate_along_rays = weights, total  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfacc", stub)

    # Opaque enough nowhere to end early, and no pair below 1 / 255 but by little: gsplat's torch
    # code drops none.
    splats = scattered(
        60, dtype=torch.float64, extent=1.0, scales=(0.3, 0.6), opacities=(0.05, 0.2)
    )
    camera = oblique(40, 30)
    made = rasterize_reference(splats, camera)
    _, centres, depths, transforms, normals = gsplat_projection(splats, camera)
    order = torch.argsort(depths[0])
    pixels = torch.arange(camera.width * camera.height)
    _, alpha = coverage(splats, camera, project(splats, camera), order, pixels)
    drawn = (alpha > 0).flatten()
    ids, at = order.repeat(len(pixels)), pixels.repeat_interleave(len(order))

    # Pairs that our picture leaves out get no opacity, so that every ray has as many.
    opacities = splats.opacities[ids] * drawn
    rgb, covered, normal = theirs.accumulate_2dgs(
        centres[:, ids],
        transforms[:, ids],
        opacities[None],
        colours(splats, camera)[ids][None],
        normals[:, ids],
        torch.arange(len(ids)),
        at,
        torch.zeros_like(at),
        camera.width,
        camera.height,
    )
    close(made.rgb, rgb[0], 1e-10)
    close(made.alpha, covered[0, ..., 0], 1e-10)
    turn = torch.from_numpy(camera.world_to_camera(splats.anchor)[0])
    close(made.normal @ turn.T, normal[0], 1e-10)


def refused(**changes: object) -> SplatTensors:
    return replace(scattered(5), **changes)


def test_shapes_dtypes_and_devices_are_checked() -> None:
    five = scattered(5)
    for name in FLOATS:
        with pytest.raises(SplatError, match=name):
            refused(**{name: getattr(five, name)[:3] if name != "means" else five.means[:, :2]})
        if name != "means":
            with pytest.raises(SplatError, match=name):
                refused(**{name: getattr(five, name).double()})
            with pytest.raises(SplatError, match=name):
                refused(**{name: getattr(five, name).to("meta")})
    with pytest.raises(SplatError, match="sh"):
        refused(sh=torch.zeros(5, 5, 3))
    with pytest.raises(SplatError, match="semantics"):
        refused(semantics=five.semantics[:2])
    with pytest.raises(SplatError, match="semantics"):
        refused(semantics=five.semantics.long())
    with pytest.raises(SplatError, match="semantics"):
        refused(semantics=five.semantics.to("meta"))
    with pytest.raises(SplatError, match="ndarray"):
        refused(means=five.means.numpy())
    with pytest.raises(SplatError, match="int"):
        refused(means=five.means.int())


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(name: str, value: float) -> None:
    wrong = getattr(scattered(5), name).clone()
    wrong[3].view(-1)[0] = value
    with pytest.raises(SplatError, match=f"{name} of Gaussian 3.*not finite"):
        check_values(refused(**{name: wrong}))


def test_large_values_that_are_finite_pass() -> None:
    check_values(refused(means=torch.full((5, 3), 3e38)))  # their sum is not finite


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("scales", (0.0, 1.0), "not positive"),
        ("scales", (1.0, -0.5), "not positive"),
        ("opacities", 1.01, "outside"),
        ("opacities", -0.01, "outside"),
        ("rotations", (1.0, 1.0, 0.0, 0.0), "unit quaternion"),
        ("rotations", (0.0, 0.0, 0.0, 0.0), "unit quaternion"),
    ],
)
def test_what_is_no_gaussian_is_refused(name: str, value: object, what: str) -> None:
    wrong = getattr(scattered(5), name).clone()
    wrong[2] = torch.tensor(value)
    with pytest.raises(SplatError, match=f"{name} of Gaussian 2.*{what}"):
        rasterize_reference(refused(**{name: wrong}), above())


def test_other_crs_and_other_backgrounds_are_refused() -> None:
    with pytest.raises(SplatError, match=r"EPSG:32632.*EPSG:32633"):
        rasterize_reference(refused(crs="EPSG:32633"), replace(above(), crs="EPSG:32632"))
    with pytest.raises(SplatError, match="background"):
        rasterize_reference(scattered(3), above(), background=(0, 0))


def test_tensors_and_gaussians_are_the_same() -> None:
    splats = scattered(7, degree=2)
    gaussians = splats.gaussians()
    assert (
        isinstance(gaussians, Gaussians)
        and gaussians.degree == splats.degree == 2
        and len(splats) == 7
    )
    back = SplatTensors.of(gaussians)
    for name in (*FLOATS, "semantics"):
        assert torch.equal(getattr(back, name), getattr(splats, name))
    assert (back.anchor, back.crs, back.vertical_crs) == (
        splats.anchor,
        splats.crs,
        splats.vertical_crs,
    )
    double = SplatTensors.of(gaussians, dtype=torch.float64)
    assert double.dtype == torch.float64 and double.device.type == "cpu"
    assert splats.to(torch.float64).sh.dtype == torch.float64
    assert splats.take(torch.tensor([2, 4])).semantics.tolist() == splats.semantics[[2, 4]].tolist()


def test_a_read_only_array_becomes_a_tensor() -> None:
    gaussians = scattered(3).gaussians()
    gaussians.means.setflags(write=False)
    assert torch.equal(SplatTensors.of(gaussians).means, torch.tensor(gaussians.means.tolist()))


def test_a_rendering_names_its_camera() -> None:
    made = rasterize_reference(scattered(3), above())
    assert isinstance(made, Rendering) and made.camera == above()
