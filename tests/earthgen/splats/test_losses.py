"""The regularisers of 2DGS are 0 where they should be, and push the right way where not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.losses import depth_distortion, normal_consistency, normals_from_depth
from earthgen.splats.raster.reference import rasterize_reference
from earthgen.splats.raster.rendering import rasterize
from tests.helpers.splat_scenes import CAMERAS, above, disc, joined, leaves, oblique, scattered

SLOPE = math.radians(30)
LEANING = (math.cos(SLOPE / 2), math.sin(SLOPE / 2), 0.0, 0.0)
NORMAL = torch.tensor((0.0, -math.sin(SLOPE), math.cos(SLOPE)), dtype=torch.float64)


def plane(camera: Camera) -> torch.Tensor:
    """(h, w) depths of the leaning plane through the anchor."""
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    near, far = camera.unproject(pixels, 1.0), camera.unproject(pixels, 2.0)
    normal = NORMAL.numpy()
    depth = 1 + (near @ normal) / ((near - far) @ normal)
    return torch.from_numpy(depth.reshape(camera.height, camera.width))


@pytest.mark.parametrize("kind", CAMERAS)
def test_normals_of_a_plane(kind: str) -> None:
    camera = CAMERAS[kind]
    found = normals_from_depth(plane(camera), camera)
    inner = found[1:-1, 1:-1]
    # Differences on a plane lie in it, so the normal is exact.
    assert torch.allclose(inner, NORMAL.expand_as(inner), atol=1e-9)
    assert not found[0].any() and not found[:, -1].any()


def test_a_hole_has_no_normals_beside_it() -> None:
    camera, depth = oblique(), plane(oblique())
    depth[20, 30] = 0
    found = normals_from_depth(depth, camera).square().sum(-1) > 0
    beside = [(20, 30), (19, 30), (21, 30), (20, 29), (20, 31)]
    assert not any(found[at] for at in beside) and found[19, 29]
    assert found[1:-1, 1:-1].sum() == 43 * 68 - 5
    with pytest.raises(SplatError, match="45 rows"):
        normals_from_depth(depth[:-1], camera)


def test_a_flat_surface_is_consistent() -> None:
    camera = above()
    flat = joined(
        *(disc(mean=(x, y, 0), opacity=0.9) for x in (-0.5, 0.0, 0.5) for y in (-0.5, 0.0, 0.5))
    )
    made = rasterize_reference(flat, camera)
    assert (
        abs(float(normal_consistency(made))) < 1e-12 and abs(float(depth_distortion(made))) < 1e-12
    )


def test_discs_across_their_surface_are_not_consistent() -> None:
    camera = above()
    flat = joined(
        *(
            disc(mean=(x, y, 0), opacity=0.9, scale=(0.7, 0.7))
            for x in (-1, 0, 1)
            for y in (-1, 0, 1)
        )
    )
    turned = replace(
        flat, rotations=torch.tensor([LEANING], dtype=torch.float64).expand(9, 4).contiguous()
    )
    made = rasterize_reference(turned, camera)
    assert normal_consistency(made) > 0.02
    # 1 - cos of the slope against a flat surface.
    level = normal_consistency(made, torch.full((25, 33), 10.0, dtype=torch.float64))
    covered = made.alpha[1:-1, 1:-1]
    assert torch.allclose(level, (covered * (1 - math.cos(SLOPE))).mean(), atol=1e-9)
    nothing = rasterize_reference(disc(mean=(0, 0, 20)), camera)
    assert normal_consistency(nothing) == 0 and depth_distortion(nothing) == 0


def test_gradients_turn_discs_towards_the_surface_and_draw_them_together() -> None:
    camera = above(metres_per_pixel=0.3)
    random = torch.Generator().manual_seed(0)
    splats = scattered(300, seed=4, scales=(0.3, 0.6), opacities=(0.3, 0.9))
    lift = torch.randn(300, generator=random) * 0.2
    lean = torch.randn(300, 2, generator=random) * 0.2
    turns = torch.nn.functional.normalize(
        torch.stack([torch.ones(300), *lean.unbind(1), 0 * lift], 1), dim=1
    )
    flat = splats.means * torch.tensor((1.0, 1.0, 0.0)) + lift[:, None] * torch.tensor(
        (0.0, 0.0, 1.0)
    )
    splats = leaves(replace(splats, means=flat, rotations=turns))
    normals, spread = [], []
    for _ in range(8):
        made = rasterize(splats, camera)
        consistency, distortion = normal_consistency(made), depth_distortion(made)
        normals.append(float(consistency.detach()))
        spread.append(float(distortion.detach()))
        means, rotations = torch.autograd.grad(
            consistency + 10 * distortion, [splats.means, splats.rotations]
        )
        moved = splats.means.detach() - 0.05 * means / means.norm()
        turned = torch.nn.functional.normalize(
            splats.rotations.detach() - 0.5 * rotations / rotations.norm(), dim=1
        )
        splats = replace(splats, means=moved.requires_grad_(), rotations=turned.requires_grad_())
    assert normals[-1] < 0.9 * normals[0] and spread[-1] < spread[0]
