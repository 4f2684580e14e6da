"""The reference rasterizer in plain torch: every Gaussian at every pixel. Slow, differentiable, for
any float dtype and device.

Equations are those of Huang et al. 2024, "2D Gaussian Splatting for Geometrically Accurate Radiance
Fields".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.colour import colours
from earthgen.splats.raster.model import (
    LEAST_ALPHA,
    LEAST_LIGHT,
    MOST_ALPHA,
    PIXEL_WEIGHT,
    Rendering,
    check_frame,
)
from earthgen.splats.raster.rendering import background_of
from earthgen.splats.tensors import SplatTensors, check_values

AT_ONCE = 4_000_000
"""Pairs of a pixel and a Gaussian that are computed at once; each needs a few hundred bytes."""


@dataclass(frozen=True)
class Projection:
    """Discs as a camera sees them.

    Attributes
    ----------
    transforms : Tensor (n, 3, 3)
        Rows x, y, w: the disc's point (u, v, 1) is at the pixel (x / w, y / w). It is WH of the
        paper (eq. 4) with the intrinsics; w is the depth for a pinhole camera and 1 for an
        orthographic one.
    along : Tensor (n, 3)
        Coefficients of the depth of (u, v, 1), metres.
    centres : Tensor (n, 2)
        Centre of the box around the disc at one standard deviation, pixels, as in gsplat.
    extents : Tensor (n, 2)
        Half the edges of that box, pixels.
    normals : Tensor (n, 3)
        World axes, facing the camera.
    """

    transforms: Tensor
    along: Tensor
    centres: Tensor
    extents: Tensor
    normals: Tensor

    @property
    def depths(self) -> Tensor:
        """(n,) depths of the means, metres."""
        return self.along[:, 2]


def turns(quaternions: Tensor) -> Tensor:
    """(n, 3, 3) rotation matrices of quaternions (n, 4), (w, x, y, z), of any length."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
    ]
    return torch.stack(rows, 1)


def project(splats: SplatTensors, camera: Camera) -> Projection:
    """Project discs to a camera (section 4.1)."""
    turn, shift = (
        torch.tensor(part, dtype=splats.dtype, device=splats.device)
        for part in camera.world_to_camera(splats.anchor)
    )
    means = splats.means @ turn.T + shift
    axes = turns(splats.rotations)
    tangents = turn @ (axes[:, :, :2] * splats.scales[:, None, :])
    disc = torch.cat([tangents, means[:, :, None]], 2)  # (n, 3, 3): (u, v, 1) to camera axes
    x, y, along = disc.unbind(1)
    last = along
    if camera.kind == "orthographic":
        last = torch.zeros_like(along)
        last[:, 2] = 1
    transforms = torch.stack(
        [camera.fx * x + camera.cx * last, camera.fy * y + camera.cy * last, last], 1
    )

    # The box: the lines x = const that touch the circle u^2 + v^2 = 1 are the roots of a quadratic.
    circle = torch.tensor([1.0, 1.0, -1.0], dtype=splats.dtype, device=splats.device)
    span = (last * last * circle).sum(1)
    before = span < 0  # otherwise the circle reaches the camera's plane and has no box
    factor = circle / torch.where(before, span, -1)[:, None]
    boxes = (transforms[:, :2] * last[:, None] * factor[:, None]).sum(2)
    extents = (boxes**2 - (transforms[:, :2] ** 2 * factor[:, None]).sum(2)).clamp_min(0).sqrt()
    points = transforms[:, :2, 2] / torch.where(last[:, 2:] == 0, 1, last[:, 2:])
    centres = torch.where(before[:, None], boxes, points)

    normals = axes[:, :, 2]
    towards = (
        (normals @ turn.T * means).sum(1) if camera.kind == "pinhole" else (normals @ turn.T)[:, 2]
    )
    return Projection(
        transforms, along, centres, extents, torch.where(towards[:, None] < 0, normals, -normals)
    )


def rasterize_reference(
    splats: SplatTensors, camera: Camera, *, background: Sequence[float] | Tensor = (0.0, 0.0, 0.0)
) -> Rendering:
    """Draw Gaussians of any float dtype on any device; see `earthgen.splats.rasterize`."""
    check_frame(splats, camera)
    check_values(splats)
    colour = background_of(background, splats)
    projection = project(splats, camera)
    depths = projection.depths.detach()
    seen = ((depths > camera.near) & (depths < camera.far)).nonzero()[:, 0]
    order = seen[torch.argsort(depths[seen], stable=True)]
    pixels = torch.arange(camera.height * camera.width, device=splats.device)
    step = max(AT_ONCE // max(len(order), 1), 1)
    parts = [
        _composite(
            splats,
            camera,
            projection,
            order,
            colours(splats, camera)[order],
            pixels[at : at + step],
        )
        for at in range(0, len(pixels), step)
    ]
    shape = (camera.height, camera.width)
    light, rgb, depth, median, normal, distortion, semantics = (
        torch.cat([part[index] for part in parts]).reshape(*shape, *parts[0][index].shape[1:])
        for index in range(7)
    )
    return Rendering(
        rgb + light[..., None] * colour,
        1 - light,
        depth,
        median,
        normal,
        distortion,
        semantics,
        camera,
    )


def _composite(
    splats: SplatTensors,
    camera: Camera,
    projection: Projection,
    order: Tensor,
    colour: Tensor,
    pixels: Tensor,
) -> tuple[Tensor, ...]:
    """Remaining light, colour, depth, median depth, normal, distortion and class of pixels (p,)."""
    depth, alpha = coverage(splats, camera, projection, order, pixels)
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    lit = after > LEAST_LIGHT  # false from the first Gaussian on that leaves too little light
    weight = torch.where(lit, alpha * before, 0)
    light = torch.where(lit, 1 - alpha, 1).prod(1)
    total = weight.sum(1)
    mean = (weight * depth).sum(1) / torch.where(total > 0, total, 1)
    half = lit & (before > 0.5) & (after <= 0.5)
    median = torch.where(half, depth, 0).sum(1)

    def earlier(values: Tensor) -> Tensor:
        return torch.cumsum(values, 1) - values

    pairs = (
        depth**2 * earlier(weight)
        + earlier(weight * depth**2)
        - 2 * depth * earlier(weight * depth)
    )
    classes = torch.zeros(len(pixels), 256, dtype=splats.dtype, device=splats.device)
    if splats.semantics is not None:
        classes.index_add_(1, splats.semantics[order].long(), weight.detach())
    return (
        light,
        weight @ colour,
        mean,
        median,
        weight @ projection.normals[order],
        (weight * pairs).sum(1),
        classes.argmax(1).to(torch.uint8),
    )


def coverage(
    splats: SplatTensors, camera: Camera, projection: Projection, order: Tensor, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Depths and alphas, (p, n) each, of the Gaussians at `order` (n,) in pixels (p,), which are
    numbered row by row."""
    x = (pixels % camera.width + 0.5)[:, None].to(splats.dtype)
    y = (pixels // camera.width + 0.5)[:, None].to(splats.dtype)
    rows = projection.transforms[order]

    # The ray is the intersection of two planes (eq. 8) and intersects the disc at (u, v) (eq. 9,
    # 10).
    across = x[..., None] * rows[:, 2] - rows[:, 0]
    down = y[..., None] * rows[:, 2] - rows[:, 1]
    crossing = torch.linalg.cross(across, down, dim=-1)
    parallel = crossing[..., 2] == 0
    u, v = (crossing[..., :2] / torch.where(parallel, 1, crossing[..., 2])[..., None]).unbind(-1)
    on_disc = torch.where(parallel, torch.inf, u * u + v * v)

    # Never smaller than a pixel's own Gaussian (eq. 11).
    offset = torch.stack([x, y], -1) - projection.centres[order]
    on_pixel = PIXEL_WEIGHT * offset.square().sum(-1)
    hits = on_disc <= on_pixel
    along = projection.along[order]
    depth = torch.where(hits, u * along[:, 0] + v * along[:, 1] + along[:, 2], along[:, 2])
    gaussian = torch.exp(-0.5 * torch.where(hits, on_disc, on_pixel))
    alpha = (splats.opacities[order] * gaussian).clamp_max(MOST_ALPHA)
    drawn = (alpha >= LEAST_ALPHA) & (depth > camera.near)
    return torch.where(drawn, depth, 0), torch.where(drawn, alpha, 0)
