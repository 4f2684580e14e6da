"""The 16 numbers that TexVAE gives a voxel, and the 2D Gaussian that they are.

The paper counts "offset, 2 scales, opacity, rotation, SH colour" and 16 numbers, not how many each
has. Here:

| channels | what | how they are read |
|---|---|---|
| 0-2 | offset | reach * voxel * tanh(x), metres from the voxel's centre |
| 3-4 | scales | between least and largest in equal ratios: voxel * low * (high / low)^sigmoid(x) |
| 5 | opacity | sigmoid(x + 2) |
| 6-9 | rotation | (1, 0, 0, 0) + x, normalised, after the rotation that turns z into the surface's normal |
| 10-12 | colour | coefficients of degree 0, for red, green, blue |
| 13-15 | brightness | coefficients of degree 1, the same for all three colours: what changes with the view |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.errors import ModelError
from earthgen.splats.gaussians import Anchor
from earthgen.splats.tensors import SplatTensors
from earthgen.voxels.voxels import Splats
from geo_io.frame import UNKNOWN_DATUM, Frame

NUMBERS = 16


@dataclass(frozen=True)
class Discs:
    """2D Gaussians relative to their voxels, as tensors with gradients:
    `earthgen.voxels.voxels.Splats` in torch.

    Attributes
    ----------
    offset : (n, 3) float32, metres from the voxel's centre
    scale : (n, 2) float32, metres
    rotation : (n, 4) float32, unit quaternions (w, x, y, z)
    opacity : (n,) float32
    sh : (n, 4, 3) float32, coefficients of degrees 0 and 1
    voxel_size : metres
    """

    offset: Tensor
    scale: Tensor
    rotation: Tensor
    opacity: Tensor
    sh: Tensor
    voxel_size: float

    def __len__(self) -> int:
        return len(self.offset)

    def arrays(self, sh_degree: int = 0) -> Splats:
        """As numpy arrays, for a world.

        sh_degree : 0 leaves out what changes with the view

        Raises ModelError for a degree above 1.
        """
        if sh_degree not in (0, 1):
            raise ModelError(f"there are no harmonics of degree {sh_degree}", "take 0 or 1")
        parts = (
            self.offset,
            self.scale,
            self.rotation,
            self.opacity,
            self.sh[:, : (sh_degree + 1) ** 2],
        )
        return Splats(*(part.detach().cpu().float().contiguous().numpy() for part in parts))

    def splats(
        self,
        xyz: Tensor | NDArray,
        frame: Frame,
        ground: Tensor | NDArray,
        semantic: Tensor | None = None,
        anchor: Anchor | None = None,
    ) -> SplatTensors:
        """In space, for the rasteriser, with gradients.

        xyz : (n, 3) lattice indices of the voxels; ground : (ny, nx) metres on the frame
        semantic : (n,) class codes
        anchor : that means are relative to; the frame's own where None

        Positions are summed in float64 before the anchor is taken off, as in
        `earthgen.splats.from_voxels`.
        """
        where = np.asarray(xyz.cpu() if isinstance(xyz, Tensor) else xyz).astype(np.int64)
        height = np.asarray(ground.cpu() if isinstance(ground, Tensor) else ground)
        at = frame.anchor if anchor is None else anchor
        centre = (where + 0.5) * frame.voxel_size
        centre[:, 2] += height[frame.y[1] - 1 - where[:, 1], where[:, 0] - frame.x[0]]
        base = torch.from_numpy((centre - np.asarray(at)).astype(np.float32)).to(self.offset.device)
        return SplatTensors(
            base + self.offset,
            self.scale,
            self.rotation,
            self.opacity,
            self.sh,
            None if semantic is None else semantic.to(self.offset.device, torch.uint8),
            at,
            frame.crs,
            getattr(frame, "vertical_crs", UNKNOWN_DATUM),
        )


def discs(
    numbers: Tensor,
    normal: Tensor,
    voxel_size: float,
    *,
    reach: float = 1.0,
    scales: tuple[float, float] = (0.1, 2.0),
) -> Discs:
    """Read (n, 16) numbers as Gaussians.

    normal : (n, 3) unit
    reach : see `TexVaeConfig`; scales : least and largest, voxels
    """
    low, high = scales
    offset = reach * voxel_size * numbers[:, 0:3].tanh()
    scale = voxel_size * low * (high / low) ** numbers[:, 3:5].sigmoid()
    opacity = (numbers[:, 5] + 2).sigmoid()
    turn = numbers[:, 6:10] + numbers.new_tensor([1.0, 0.0, 0.0, 0.0])
    # The last one keeps the quaternion of a voxel whose numbers cancel the 1 from being divided by
    # 0.
    turn = turn / turn.norm(dim=1, keepdim=True).clamp(min=1e-6)
    rotation = multiplied(upright(normal.to(numbers.dtype)), turn)
    rotation = rotation / rotation.norm(dim=1, keepdim=True).clamp(min=1e-6)
    bright = numbers[:, 13:16, None].expand(-1, -1, 3)
    sh = torch.cat([numbers[:, None, 10:13], bright], 1)
    return Discs(offset, scale, rotation, opacity, sh, voxel_size)


def upright(normal: Tensor) -> Tensor:
    """(n, 4) unit quaternions that turn the z axis into (n, 3) unit normals by the shortest way;
    down is about x."""
    x, y, z = normal.unbind(1)
    found = torch.stack([1 + z, -y, x, torch.zeros_like(x)], 1)
    length = found.norm(dim=1, keepdim=True)
    about_x = found.new_tensor([0.0, 1.0, 0.0, 0.0]).expand_as(found)
    return torch.where(length < 1e-4, about_x, found / length.clamp(min=1e-4))


def multiplied(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4) Hamilton products: the turn of b, then that of a."""
    aw, ax, ay, az = a.unbind(1)
    bw, bx, by, bz = b.unbind(1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        1,
    )


def normals(rotation: Tensor) -> Tensor:
    """(n, 3) the z axis turned by (n, 4) unit quaternions."""
    w, x, y, z = rotation.unbind(1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
