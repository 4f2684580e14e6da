"""The 16 channels that TexVAE gives each voxel, decoded to a 2D Gaussian.

The paper counts "offset, 2 scales, opacity, rotation, SH colour" and 16 numbers, not how many each
has. Here:

| channels | meaning | decoding |
|---|---|---|
| 0-2 | offset | reach * voxel * tanh(x), metres from the voxel's centre |
| 3-4 | scales | voxel * low * (high / low)^sigmoid(x) |
| 5 | opacity | sigmoid(x + 2) |
| 6-9 | rotation | (1, 0, 0, 0) + x, normalised, then z to the surface's normal |
| 10-12 | colour | coefficients of degree 0, for red, green, blue |
| 13-15 | brightness | coefficients of degree 1, shared by the three colours |
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
from geo_io.frame import Frame

CHANNELS = 16


@dataclass(frozen=True)
class VoxelGaussians:
    """2D Gaussians relative to their voxels, as tensors with gradients.

    The torch counterpart of `earthgen.voxels.voxels.Splats`.

    Attributes
    ----------
    offset : Tensor (n, 3) float32
        Metres from the voxel's centre.
    scale : Tensor (n, 2) float32
        Standard deviations, metres.
    rotation : Tensor (n, 4) float32
        Unit quaternions (w, x, y, z).
    opacity : Tensor (n,) float32
        In [0, 1].
    sh : Tensor (n, 4, 3) float32
        Coefficients of spherical harmonics of degrees 0 and 1.
    voxel_size : float
        Metres.
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
        """Return numpy arrays, for a world.

        Parameters
        ----------
        sh_degree : int
            0 or 1; 0 leaves out what changes with the view.

        Raises
        ------
        ModelError
            If the degree is another.
        """
        if sh_degree not in (0, 1):
            raise ModelError(f"there are no harmonics of degree {sh_degree}", "give 0 or 1")
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
        """Return the Gaussians in space, for the rasteriser, with gradients.

        Positions are summed in float64 before the anchor is subtracted, as in
        `earthgen.splats.from_voxels`.

        Parameters
        ----------
        xyz : Tensor or NDArray (n, 3) int32
            Lattice indices of the voxels.
        frame : Frame
            Frame of the voxels.
        ground : Tensor or NDArray (ny, nx) float32
            Metres, on the frame.
        semantic : Tensor (n,), optional
            Class codes.
        anchor : (float, float, float), optional
            Point that means are relative to; None is the frame's anchor.
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
            frame.vertical_crs,
        )


def decode_gaussians(
    numbers: Tensor,
    normal: Tensor,
    voxel_size: float,
    *,
    reach: float = 1.0,
    scales: tuple[float, float] = (0.1, 2.0),
) -> VoxelGaussians:
    """Decode channels to Gaussians.

    Parameters
    ----------
    numbers : Tensor (n, 16) float32
        Channels, see the module.
    normal : Tensor (n, 3) float32
        Unit normals of the surface.
    voxel_size : float
        Metres.
    reach, scales
        As of `earthgen.models.presets.TexVaeConfig`, voxels.
    """
    low, high = scales
    offset = reach * voxel_size * numbers[:, 0:3].tanh()
    scale = voxel_size * low * (high / low) ** numbers[:, 3:5].sigmoid()
    opacity = (numbers[:, 5] + 2).sigmoid()
    turn = numbers[:, 6:10] + numbers.new_tensor([1.0, 0.0, 0.0, 0.0])
    # Channels that cancel the 1 must not lead to a division by 0.
    turn = turn / turn.norm(dim=1, keepdim=True).clamp(min=1e-6)
    rotation = multiply_quaternions(rotation_from_normal(normal.to(numbers.dtype)), turn)
    rotation = rotation / rotation.norm(dim=1, keepdim=True).clamp(min=1e-6)
    bright = numbers[:, 13:16, None].expand(-1, -1, 3)
    sh = torch.cat([numbers[:, None, 10:13], bright], 1)
    return VoxelGaussians(offset, scale, rotation, opacity, sh, voxel_size)


def rotation_from_normal(normal: Tensor) -> Tensor:
    """Return the shortest rotations of the z axis to unit normals.

    Parameters
    ----------
    normal : Tensor (n, 3)
        Unit normals; straight down is a half turn about x.

    Returns
    -------
    Tensor (n, 4)
        Unit quaternions (w, x, y, z).
    """
    x, y, z = normal.unbind(1)
    quaternion = torch.stack([1 + z, -y, x, torch.zeros_like(x)], 1)
    length = quaternion.norm(dim=1, keepdim=True)
    about_x = quaternion.new_tensor([0.0, 1.0, 0.0, 0.0]).expand_as(quaternion)
    return torch.where(length < 1e-4, about_x, quaternion / length.clamp(min=1e-4))


def multiply_quaternions(a: Tensor, b: Tensor) -> Tensor:
    """Return Hamilton products, (n, 4): the rotation of b, then that of a."""
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


def normals_from_rotation(rotation: Tensor) -> Tensor:
    """Return the z axis rotated by (n, 4) unit quaternions, (n, 3)."""
    w, x, y, z = rotation.unbind(1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
