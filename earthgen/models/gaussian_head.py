"""Gaussians of voxels as tensors with gradients.

The paper's decoder gives each voxel 16 numbers: offset, scales, opacity, rotation and colour. Here
a network gives the colour, and all else comes from the geometry (`earthgen.voxels.surface_splats`):
docs/background/models.md has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthgen.splats.gaussians import Anchor
from earthgen.splats.spherical_harmonics import C0
from earthgen.splats.tensors import SplatTensors
from earthgen.voxels.voxels import Splats
from geo_io.frame import Frame


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
    sh : Tensor (n, 1, 3) float32
        Coefficients of spherical harmonics of degree 0.
    """

    offset: Tensor
    scale: Tensor
    rotation: Tensor
    opacity: Tensor
    sh: Tensor

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def of(cls, shapes: Splats, colours: Tensor) -> VoxelGaussians:
        """Return Gaussians with given shapes, and colours of a network.

        Parameters
        ----------
        shapes : Splats
            Of n voxels; their colours are not used.
        colours : Tensor (n, 3) float32
            sRGB in [0, 1].
        """

        def tensor(values: NDArray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(colours.device)

        return cls(
            tensor(shapes.offset),
            tensor(shapes.scale),
            tensor(shapes.rotation),
            tensor(shapes.opacity),
            (colours.float()[:, None] - 0.5) / C0,
        )

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
