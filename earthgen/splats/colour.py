"""Colours of Gaussians seen from a camera, with gradients: `earthgen.splats.spherical_harmonics` in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from earthgen.splats.cameras import Camera
from earthgen.splats.spherical_harmonics import C0, C1, C2
from earthgen.splats.tensors import SplatTensors


def colours(splats: SplatTensors, camera: Camera) -> Tensor:
    """(n, 3) sRGB of each Gaussian, not below 0: 0.5 + sum_k basis_k(d) sh_k.

    d is the direction from a pinhole camera to the mean, and the direction of view of an orthographic one. What is
    above 1 stays (as in 3D Gaussian Splatting and gsplat); it is for whoever writes the picture to clip it.
    """
    if splats.degree == 0:
        return (splats.sh[:, 0] * C0 + 0.5).clamp_min(0)
    basis = bases(directions(splats, camera), splats.degree)
    return ((basis[:, :, None] * splats.sh).sum(1) + 0.5).clamp_min(0)


def directions(splats: SplatTensors, camera: Camera) -> Tensor:
    """(n, 3) unit vectors in world axes along which each Gaussian is seen."""
    if camera.kind == "orthographic":
        forward = torch.tensor(camera.forward, dtype=splats.dtype, device=splats.device)
        return forward.expand(len(splats), 3)
    eye = [at - origin for at, origin in zip(camera.position, splats.anchor, strict=True)]  # float64
    seen = splats.means - torch.tensor(eye, dtype=torch.float64).to(splats.device, splats.dtype)
    return torch.nn.functional.normalize(seen, dim=1)


def bases(directions: Tensor, degree: int) -> Tensor:
    """(n, (degree + 1)^2) real spherical harmonics of unit vectors (n, 3); order and signs of gsplat."""
    x, y, z = directions.unbind(1)
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        values += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [C2 * x * y, -C2 * y * z, C2 / math.sqrt(12) * (2 * zz - xx - yy), -C2 * x * z, C2 / 2 * (xx - yy)]
    if degree >= 3:
        a, b = math.sqrt(35 / (32 * math.pi)), math.sqrt(21 / (32 * math.pi))
        c = math.sqrt(105 / (4 * math.pi))
        values += [
            -a * y * (3 * xx - yy),
            c * x * y * z,
            -b * y * (4 * zz - xx - yy),
            math.sqrt(7 / (16 * math.pi)) * z * (2 * zz - 3 * xx - 3 * yy),
            -b * x * (4 * zz - xx - yy),
            c / 2 * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    return torch.stack(values, 1)
