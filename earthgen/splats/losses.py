"""Regularisers that keep 2D Gaussians on surfaces during training: Huang et al. 2024, section 5.

Both are added to a loss of pictures. The paper weights distortion by 1000 (bounded scenes) or 100
and normals by 0.05, with depths of about one unit. Distortion grows with the square of the unit: a
weight of 1000 there corresponds to 1000 / s^2 for scenes of s metres.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.model import Rendering


def depth_distortion(rendering: Rendering) -> Tensor:
    """Mean of `Rendering.distortion` over the pixels, square metres.

    It is 0 where all discs on a ray lie at one depth. This is the form with squared distances of
    the paper's appendix; eq. 13 has distances.
    """
    return rendering.distortion.mean()


def normal_consistency(rendering: Rendering, depth: Tensor | None = None) -> Tensor:
    """Mean over the pixels of sum w_i (1 - n_i . N): the deviation of the discs' normals from that
    of the surface (eq. 14).

    N is the normal of `normals_from_depth`. Pixels without one (at edges, beside holes) are
    ignored; without any normal the loss is 0.

    Parameters
    ----------
    rendering : Rendering
        The picture.
    depth : Tensor (h, w), optional
        Depth of the surface, metres; by default the expected depth. `Rendering.median_depth` does
        not blend foreground and background.
    """
    surface = normals_from_depth(rendering.depth if depth is None else depth, rendering.camera)
    known = surface.detach().square().sum(-1) > 0
    loss = torch.where(known, rendering.alpha - (rendering.normal * surface).sum(-1), 0)
    return loss.sum() / known.sum().clamp_min(1)


def normals_from_depth(depth: Tensor, camera: Camera) -> Tensor:
    """Compute the normals of a surface from its depth (eq. 15).

    A normal is the cross product of the differences between the points on the left and on the
    right, above and below.

    Parameters
    ----------
    depth : Tensor (h, w)
        Metres along the camera's z axis; 0 or less where there is no surface.
    camera : Camera
        The camera.

    Returns
    -------
    Tensor (h, w, 3)
        Unit vectors in world axes that face the camera; 0 at the edges of the picture, and where
        the pixel or one of the four neighbours has no surface.

    Raises
    ------
    SplatError
        If the depth does not have the camera's size.
    """
    if depth.shape != (camera.height, camera.width):
        raise SplatError(
            f"a depth of shape {tuple(depth.shape)} does not match a camera of {camera.height} "
            f"rows, {camera.width} columns",
            "give the camera of the depth",
        )
    points = _points(depth, camera)
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = torch.linalg.cross(down, across, dim=-1)
    there = depth.detach() > 0
    known = (
        there[1:-1, 1:-1] & there[1:-1, 2:] & there[1:-1, :-2] & there[2:, 1:-1] & there[:-2, 1:-1]
    )
    length = normal.square().sum(-1)
    known &= length > 0
    normal = normal / torch.where(known, length, 1).sqrt()[..., None]
    inner = torch.where(known[..., None], normal, 0)
    return torch.nn.functional.pad(inner, (0, 0, 1, 1, 1, 1))


def _points(depth: Tensor, camera: Camera) -> Tensor:
    """(h, w, 3) metres from the camera, in world axes."""
    rows, columns = (
        torch.arange(n, dtype=depth.dtype, device=depth.device) + 0.5 for n in depth.shape
    )
    x = ((columns - camera.cx) / camera.fx).expand(depth.shape)
    y = ((rows - camera.cy) / camera.fy)[:, None].expand(depth.shape)
    if camera.kind == "pinhole":
        x, y = x * depth, y * depth
    turn = torch.tensor(camera.rotation, dtype=depth.dtype, device=depth.device)
    return torch.stack([x, y, depth], -1) @ turn.T
