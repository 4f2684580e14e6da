"""Colours of Gaussians as a camera sees them, with gradients: the torch version of
`earthgen.splats.spherical_harmonics`."""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.splats.cameras.camera import Camera
from earthgen.splats.spherical_harmonics import C0, terms
from earthgen.splats.tensors import SplatTensors


def colours(splats: SplatTensors, camera: Camera) -> Tensor:
    """(n, 3) sRGB of each Gaussian, not below 0: 0.5 + sum_k basis_k(d) sh_k.

    d is the direction from a pinhole camera to the mean, or the view direction of an orthographic
    camera. Values above 1 are not clipped, as in 3D Gaussian Splatting and gsplat.
    """
    if splats.degree == 0:
        return (splats.sh[:, 0] * C0 + 0.5).clamp_min(0)
    basis = bases(directions(splats, camera), splats.degree)
    return ((basis[:, :, None] * splats.sh).sum(1) + 0.5).clamp_min(0)


def directions(splats: SplatTensors, camera: Camera) -> Tensor:
    """(n, 3) unit vectors from the camera to each Gaussian, world axes."""
    if camera.kind == "orthographic":
        forward = torch.tensor(camera.forward, dtype=splats.dtype, device=splats.device)
        return forward.expand(len(splats), 3)
    eye = [
        at - origin for at, origin in zip(camera.position, splats.anchor, strict=True)
    ]  # float64
    seen = splats.means - torch.tensor(eye, dtype=torch.float64).to(splats.device, splats.dtype)
    return torch.nn.functional.normalize(seen, dim=1)


def bases(directions: Tensor, degree: int) -> Tensor:
    """(n, (degree + 1)^2) real spherical harmonics of unit vectors (n, 3), with the order and signs
    of gsplat."""
    x, y, z = directions.unbind(1)
    return torch.stack([torch.full_like(x, C0), *terms(x, y, z, degree)], 1)
