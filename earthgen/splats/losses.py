"""What keeps 2D Gaussians on surfaces while they learn: the two regularisers of Huang et al. 2024,
section 5.

Both are added to a loss of pictures; the paper weighs distortion by 1000 (bounded scenes) or 100,
normals by 0.05, with depths of about one unit. Distortion grows with the square of the unit: what
is 1000 there is 1000 / s^2 for scenes of s metres.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.model import Rendering


def depth_distortion(rendering: Rendering) -> Tensor:
    """Mean over the pixels of `Rendering.distortion`, square metres: 0 where what a ray meets lies
    at one depth.

    It is the form of the paper's appendix, of squared distances; eq. 13 itself has distances.
    """
    return rendering.distortion.mean()


def normal_consistency(rendering: Rendering, depth: Tensor | None = None) -> Tensor:
    """Mean over pixels of sum w_i (1 - n_i . N): how far discs turn away from the surface they form
    (eq. 14).

    depth : (h, w) metres, of the surface; None takes the expected depth. For a surface that blends
        no foreground with
        what is behind give `Rendering.median_depth`

    N is the normal of `normals_from_depth`. Pixels that have none (at edges, beside holes) do not
    count; without any the loss is 0.
    """
    surface = normals_from_depth(rendering.depth if depth is None else depth, rendering.camera)
    known = surface.detach().square().sum(-1) > 0
    loss = torch.where(known, rendering.alpha - (rendering.normal * surface).sum(-1), 0)
    return loss.sum() / known.sum().clamp_min(1)


def normals_from_depth(depth: Tensor, camera: Camera) -> Tensor:
    """(h, w, 3) unit normals, world axes, towards the camera, of the surface at `depth` (eq. 15).

    depth : (h, w) metres along the camera's z axis; 0 or less is no surface

    A normal is the product of the differences between the points left and right, above and below.
    It is 0 at the edges of the picture, and where one of the four, or the pixel itself, is no
    surface.

    Raises
    ------
    SplatError
        if the depth does not have the camera's size
    """
    if depth.shape != (camera.height, camera.width):
        raise SplatError(
            f"a depth of shape {tuple(depth.shape)} is not of a camera of {camera.height} rows, {camera.width} columns",
            "give the camera that made it",
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
