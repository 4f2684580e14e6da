"""Pictures of 2D Gaussians: what a picture holds, and the two functions that make one.

The model is that of Huang et al. 2024, "2D Gaussian Splatting for Geometrically Accurate Radiance Fields" (SIGGRAPH),
with the constants of gsplat; docs/splats.md has the formulas. `earthgen.splats.reference` computes it plainly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earthgen.splats.cameras import Camera
from earthgen.splats.errors import RasterizerError, SplatCrsError, SplatShapeError
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.tensors import SplatTensors, check_values

MOST_ALPHA = 0.999
"""What one Gaussian may cover of a pixel, as in gsplat."""

LEAST_ALPHA = 1 / 255
"""A Gaussian that covers less of a pixel is not drawn on it."""

LEAST_LIGHT = 1e-4
"""A Gaussian that would leave no more than this of the light behind a pixel is not drawn, and none behind it is."""

PIXEL_WEIGHT = 2.0
"""1 / sigma^2 of the least Gaussian that is drawn, sigma = sqrt(1/2) pixel: the low-pass of section 4.2."""


@dataclass(frozen=True)
class Rendering:
    """What a camera sees of 2D Gaussians; w_i is what the i-th Gaussian from the front gives to a pixel.

    Attributes
    ----------
    rgb : (h, w, 3), sum w_i c_i and the background through what is left of the light; sRGB as stored, not clipped
    alpha : (h, w), sum w_i
    depth : (h, w), metres along the camera's z axis: sum w_i d_i / sum w_i, 0 where nothing is. d_i is where the
        pixel's ray meets the disc; where the low-pass is the larger Gaussian, the depth of the disc's mean
    median_depth : (h, w), d_i of the Gaussian at which less than half of the light is left, 0 where more stays
    normal : (h, w, 3), sum w_i n_i, world axes, n_i unit and towards the camera
    distortion : (h, w), sum over pairs i < j of w_i w_j (d_i - d_j)^2, square metres (the paper's appendix)
    semantics : (h, w) uint8, class with the largest sum of w_i, the lowest code of equal ones, 0 where nothing is
    camera : that made it

    Floats have the dtype of the Gaussians. All but `semantics` have gradients.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    median_depth: Tensor
    normal: Tensor
    distortion: Tensor
    semantics: Tensor
    camera: Camera


def rasterize(
    splats: SplatTensors,
    camera: Camera,
    *,
    background: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    rasterizer: str | None = None,
) -> Rendering:
    """The picture of `splats`, with gradients to every float tensor of them, and to `background` where it is a tensor.

    background : (3,) sRGB
    rasterizer : the name of one that a plugin offers (docs/plugins.md). None is "cpu" for tensors on the CPU, and
        "gsplat" for those on CUDA

    Gaussians whose mean does not lie between the camera's near and far are not seen; without any the picture is the
    background. On the CPU the bits of picture and gradients do not depend on the number of threads.

    Raises
    ------
    GaussiansError
        if a value is not finite, a scale not positive, an opacity outside [0, 1], or a quaternion's length not 1
    SplatCrsError
        if camera and Gaussians are in different CRSs
    SplatDtypeError, SplatDeviceError, SplatMemoryError, RasterizerError
        if the rasteriser cannot draw them
    UnknownNameError
        if no plugin offers the rasteriser
    """
    check_frame(splats, camera)
    check_values(splats)
    colour = backdrop(background, splats)
    if rasterizer is None and splats.device.type == "cpu":
        from earthgen.splats.rasterizer import rasterize_on_cpu

        return rasterize_on_cpu(splats, camera, colour)
    from earthgen.splats.rasterizers import pick

    return pick(splats.device, rasterizer).rasterize(splats, camera, colour)


def render(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    rasterizer: str | None = None,
    device: torch.device | str = "cpu",
) -> Rendering:
    """The picture of `gaussians` without gradients; else as `rasterize`."""
    with torch.no_grad():
        splats = SplatTensors.of(gaussians, device=device)
        return rasterize(splats, camera, background=background, rasterizer=rasterizer)


def check_frame(splats: SplatTensors, camera: Camera) -> None:
    """Raise SplatCrsError where camera and Gaussians name different CRSs; "" fits any."""
    if splats.crs and camera.crs and splats.crs != camera.crs:
        raise SplatCrsError(
            f"the camera is in {camera.crs}, the Gaussians are in {splats.crs}", "give the camera in their CRS"
        )


def backdrop(background: Sequence[float] | Tensor, splats: SplatTensors) -> Tensor:
    """(3,) the background on the Gaussians' device and in their dtype."""
    given = background if isinstance(background, Tensor) else torch.tensor(background, dtype=splats.dtype)
    colour = given.to(splats.device, splats.dtype)
    if colour.shape != (3,):
        raise SplatShapeError(f"a background of shape {tuple(colour.shape)} is no colour", "give three sRGB values")
    if not bool(torch.isfinite(colour).all()):
        raise RasterizerError("the background is not finite", "give three sRGB values in [0, 1]")
    return colour
