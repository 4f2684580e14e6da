"""Pictures of 2D Gaussians by gsplat 1.5 (https://github.com/nerfstudio-project/gsplat,
Apache-2.0).

Its kernels are compiled for CUDA only. This module is written against its API and has never been
run on a GPU by this project: the tests replace the three functions that it calls.

Differences from the definitions in `earthgen.splats.Rendering`:

- Depth, median depth and distortion use the depth of the disc's mean, not of the intersection with
  the ray, and no part of a disc is clipped at the camera's near plane.
- A disc that is exactly edge-on is not drawn (elsewhere its low-pass filter is).
- A disc ends at the box of 3.33 standard deviations around it, with the perspective at one.

What this module adds: orthographic cameras (gsplat has none for discs; its kernels take the
matrices of `earthgen.splats.raster.reference.project`), the median depth where more than half of
the light is left, classes, and a distortion of squared distances (gsplat's is of distances).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earthgen.errors import SplatError
from earthgen.splats.cameras.camera import Camera
from earthgen.splats.raster.colour import colours
from earthgen.splats.raster.model import LEAST_ALPHA, PIXEL_WEIGHT, Rasterizer, Rendering
from earthgen.splats.raster.reference import Projection, project
from earthgen.splats.tensors import SplatTensors

INSTALL = (
    "install it with `pip install 'earthgen[gpu]'`, with a CUDA build of torch and a CUDA toolkit, "
    "or use 'cpu'"
)

TILE = 16
"""Edge of gsplat's tiles, pixels."""

REACH = 3.33
"""Standard deviations at which gsplat's boxes end; an opaque Gaussian has alpha 1 / 255 there."""


class GsplatRasterizer(Rasterizer):
    """gsplat's kernels of 2D Gaussian splatting: float32 on CUDA, with gradients."""

    name = "gsplat"
    devices = ("cuda",)
    differs = ("depth", "median_depth", "distortion")
    note = "never run on a GPU by this project"

    def unavailable(self) -> str:
        if not torch.cuda.is_available():
            return f"there is no CUDA device; {INSTALL}"
        try:
            from gsplat.cuda import _backend
        except ModuleNotFoundError as error:
            if error.name == "gsplat":
                return f"gsplat is not installed; {INSTALL}"
            return f"gsplat's import fails: {error}; {INSTALL}"
        except (ImportError, OSError, RuntimeError) as error:  # errors of compiling its kernels
            return (
                f"gsplat's import fails: {type(error).__name__}: {error}".splitlines()[0]
                + f"; {INSTALL}"
            )
        return "" if _backend._C is not None else f"gsplat's kernels are not compiled; {INSTALL}"

    def rasterize(self, splats: SplatTensors, camera: Camera, background: Tensor) -> Rendering:
        reason = self.unavailable()
        if reason:
            raise SplatError(f"gsplat cannot run here: {reason}", "use the rasterizer 'cpu'")
        if splats.device.type not in self.devices:
            raise SplatError(f"gsplat does not draw on {splats.device}", "move the tensors to CUDA")
        if splats.dtype != torch.float32:
            raise SplatError(f"gsplat draws float32, not {splats.dtype}", "convert the tensors")
        projection = project(splats, camera)
        with torch.no_grad():
            lists = _lists(splats, camera, projection)
        depth = projection.depths

        # Squares of distances from the mean depth, for the precision of float32.
        middle = depth.detach().mean() if len(splats) else torch.zeros((), device=splats.device)
        square = (depth - middle).square()
        channels = torch.cat(
            [colours(splats, camera), square[:, None], depth.new_zeros(len(splats), 3)], 1
        )
        sums, alpha, normal, median = _drawn(splats, camera, projection, lists, channels)
        covered = alpha > 0
        mean = sums[..., -1]
        away = mean - alpha * middle
        return Rendering(
            rgb=sums[..., :3] + (1 - alpha)[..., None] * background,
            alpha=alpha,
            depth=torch.where(covered, mean / torch.where(covered, alpha, 1), 0),
            median_depth=torch.where(alpha >= 0.5, median, 0),
            normal=normal,
            distortion=alpha * sums[..., 3] - away.square(),
            semantics=_classes(splats, camera, projection, lists),
            camera=camera,
        )


def _lists(splats: SplatTensors, camera: Camera, projection: Projection) -> tuple[Tensor, Tensor]:
    """Where the list of each tile begins, and the Gaussians of the lists."""
    from gsplat import isect_offset_encode, isect_tiles

    depths, centres = projection.depths, projection.centres
    # gsplat's boxes ignore the low-pass filter, which may reach into the next tile.
    radii = torch.ceil(REACH * projection.extents.clamp_min(PIXEL_WEIGHT**-0.5))
    size = torch.tensor([camera.width, camera.height], device=splats.device)
    seen = (depths > camera.near) & (depths < camera.far) & (splats.opacities >= LEAST_ALPHA)
    seen &= ((centres + radii > 0) & (centres - radii < size)).all(1)
    across, down = -(-camera.width // TILE), -(-camera.height // TILE)
    whole = torch.where(seen[:, None], radii, 0).int()
    _, ids, rows = isect_tiles(centres[None], whole[None], depths[None], TILE, across, down)
    return isect_offset_encode(ids, 1, across, down).reshape(1, down, across), rows


def _drawn(
    splats: SplatTensors,
    camera: Camera,
    projection: Projection,
    lists: tuple[Tensor, Tensor],
    channels: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums (h, w, k + 1) of channels (n, k) and of the depth, alpha, normal and median depth.

    For gsplat the last channel is the depth, and the number of channels has to be a power of 2:
    others are filled with uninitialised memory.
    """
    from gsplat import rasterize_to_pixels_2dgs

    depth = projection.depths[:, None]
    sums, alpha, normal, _, median = rasterize_to_pixels_2dgs(
        projection.centres[None],
        projection.transforms[None],
        torch.cat([channels, depth], 1)[None],
        splats.opacities[None],
        projection.normals[None],
        torch.zeros_like(projection.centres)[None],
        camera.width,
        camera.height,
        TILE,
        *lists,
    )
    return sums[0], alpha[0, ..., 0], normal[0], median[0, ..., 0]


def _classes(
    splats: SplatTensors, camera: Camera, projection: Projection, lists: tuple[Tensor, Tensor]
) -> Tensor:
    """(h, w) uint8, the class with the largest sum of weights."""
    if splats.semantics is None or not len(splats):
        return torch.zeros(camera.height, camera.width, dtype=torch.uint8, device=splats.device)
    with torch.no_grad():
        codes, number = torch.unique(splats.semantics, return_inverse=True)
        # With the depth the number of channels is a power of 2.
        channels = max(1 << len(codes).bit_length(), 2) - 1
        ones: Any = torch.nn.functional.one_hot(number, channels).to(splats.dtype)
        sums, alpha, _, _ = _drawn(splats, camera, projection, lists, ones)
        return torch.where(alpha > 0, codes[sums[..., : len(codes)].argmax(-1)], 0).to(torch.uint8)
