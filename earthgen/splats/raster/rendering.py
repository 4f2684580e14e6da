"""Pictures of 2D Gaussians: what a picture holds, and the two functions that make one.

The model is that of Huang et al. 2024, "2D Gaussian Splatting for Geometrically Accurate Radiance
Fields" (SIGGRAPH), with the constants of gsplat; docs/guides/splats.md has the formulas.
`earthgen.splats.raster.reference` computes it plainly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from earthgen.splats.raster.model import Rendering, check_frame

if TYPE_CHECKING:  # every plugin imports this module, and `earthgen --help` imports every plugin
    import torch
    from torch import Tensor

    from earthgen.splats.cameras.camera import Camera
    from earthgen.splats.tensors import SplatTensors
import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.gaussians import Gaussians
from earthgen.splats.tensors import SplatTensors, check_values


def rasterize(
    splats: SplatTensors,
    camera: Camera,
    *,
    background: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    rasterizer: str | None = None,
) -> Rendering:
    """The picture of `splats`, with gradients to every float tensor of them, and to `background`
    where it is a tensor.

    background : (3,) sRGB
    rasterizer : the name of one that a plugin offers (docs/plugins/hooks.md). None is "cpu" for
        tensors
        on the CPU, and
        "gsplat" for those on CUDA

    Gaussians whose mean does not lie between the camera's near and far are not seen; without any
    the picture is the background. On the CPU the bits of picture and gradients do not depend on the
    number of threads.

    Raises
    ------
    SplatError
        if a value is not finite, a scale not positive, an opacity outside [0, 1], or a quaternion's
        length not 1
    SplatError
        if camera and Gaussians are in different CRSs
    SplatError, SplatError, OutOfMemoryError, SplatError
        if the rasteriser cannot draw them
    UnknownNameError
        if no plugin offers the rasteriser
    """
    check_frame(splats, camera)
    check_values(splats)
    colour = backdrop(background, splats)
    if rasterizer is None and splats.device.type == "cpu":
        from earthgen.splats.raster.cpu import rasterize_on_cpu

        return rasterize_on_cpu(splats, camera, colour)
    from earthgen.splats.raster.rasterizers import pick

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


def backdrop(background: Sequence[float] | Tensor, splats: SplatTensors) -> Tensor:
    """(3,) the background on the Gaussians' device and in their dtype."""
    given = (
        background
        if isinstance(background, Tensor)
        else torch.tensor(background, dtype=splats.dtype)
    )
    colour = given.to(splats.device, splats.dtype)
    if colour.shape != (3,):
        raise SplatError(
            f"a background of shape {tuple(colour.shape)} is no colour", "give three sRGB values"
        )
    if not bool(torch.isfinite(colour).all()):
        raise SplatError("the background is not finite", "give three sRGB values in [0, 1]")
    return colour
