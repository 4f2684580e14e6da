"""Drawing 2D Gaussians.

The model is that of Huang et al. 2024, "2D Gaussian Splatting for Geometrically Accurate Radiance
Fields" (SIGGRAPH), with the constants of gsplat. docs/guides/splats.md has the formulas;
`earthgen.splats.raster.reference` is a plain implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.raster.cpu import rasterize_on_cpu
from earthgen.splats.raster.model import Rendering, check_frame
from earthgen.splats.tensors import SplatTensors, check_values


def rasterize(
    splats: SplatTensors,
    camera: Camera,
    *,
    background: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    rasterizer: str | None = None,
) -> Rendering:
    """Draw Gaussians, with gradients for their float tensors, and for `background` if it is a
    tensor.

    Gaussians whose mean is not between the camera's near and far are not drawn. On the CPU the bits
    of picture and gradients do not depend on the number of threads.

    Parameters
    ----------
    splats : SplatTensors
        The Gaussians.
    camera : Camera
        The camera.
    background : sequence of float or Tensor (3,)
        sRGB colour.
    rasterizer : str, optional
        Name of a rasterizer that a plugin offers (docs/plugins/hooks.md). By default "cpu" for
        tensors on the CPU and "gsplat" for those on CUDA; where that cannot run, they are drawn on
        the CPU, and the picture is moved back.

    Raises
    ------
    SplatError
        If a value is not finite, a scale is not positive, an opacity is outside [0, 1], the length
        of a quaternion is not 1, camera and Gaussians are in different CRSs, or the rasterizer
        cannot draw them.
    OutOfMemoryError
        If there is too little free memory.
    UnknownNameError
        If no plugin offers the rasterizer.
    """
    check_frame(splats, camera)
    check_values(splats)
    colour = background_of(background, splats)
    if rasterizer is None and splats.device.type == "cpu":
        return rasterize_on_cpu(splats, camera, colour)
    from earthgen.splats.raster.rasterizers import draws_here, pick_rasterizer

    if rasterizer is None and not draws_here(splats.device):
        return rasterize_elsewhere(splats, camera, colour)
    return pick_rasterizer(splats.device, rasterizer).rasterize(splats, camera, colour)


def rasterize_elsewhere(splats: SplatTensors, camera: Camera, colour: Tensor) -> Rendering:
    """Draw Gaussians of any device on the CPU, in float32 and with gradients."""
    drawn = rasterize_on_cpu(splats.to("cpu").to(torch.float32), camera, colour.cpu().float())
    moved = {
        field.name: getattr(drawn, field.name).to(splats.device)
        for field in fields(drawn)
        if isinstance(getattr(drawn, field.name), Tensor)
    }
    return replace(drawn, **moved)


def render(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    rasterizer: str | None = None,
    device: torch.device | str = "cpu",
) -> Rendering:
    """Draw Gaussians on a device, without gradients; see `rasterize`."""
    with torch.no_grad():
        splats = SplatTensors.of(gaussians, device=device)
        return rasterize(splats, camera, background=background, rasterizer=rasterizer)


def background_of(background: Sequence[float] | Tensor, splats: SplatTensors) -> Tensor:
    """The background colour (3,) on the device of the Gaussians and in their dtype."""
    if not isinstance(background, Tensor):
        background = torch.tensor(background, dtype=splats.dtype)
    colour = background.to(splats.device, splats.dtype)
    if colour.shape != (3,):
        raise SplatError(
            f"a background of shape {tuple(colour.shape)} is not a colour",
            "give three sRGB values",
        )
    if not bool(torch.isfinite(colour).all()):
        raise SplatError("the background is not finite", "give three sRGB values in [0, 1]")
    return colour
