"""Conversions between the parameters of Gaussians and normals and colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: sRGB colour from 0 to 1 = 0.5 + SH_C0 * coefficient."""


def disc_normals(rotation: NDArray) -> NDArray:
    """Return the normals of discs: the rotated z axis.

    Parameters
    ----------
    rotation : NDArray (n, 4)
        Unit quaternions (w, x, y, z).

    Returns
    -------
    NDArray (n, 3) float32
        Unit normals.
    """
    w, x, y, z = rotation.astype(np.float32).T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def disc_rotations(normal: NDArray) -> NDArray:
    """Return the shortest rotations of the z axis to normals.

    Parameters
    ----------
    normal : NDArray (n, 3)
        Unit normals.

    Returns
    -------
    NDArray (n, 4) float32
        Unit quaternions (w, x, y, z).
    """
    n = normal.astype(np.float32)
    w = np.sqrt(np.maximum((1 + n[:, 2]) / 2, 0))
    down = w < 1e-4  # straight down: any half turn about a horizontal axis
    scale = 1 / (2 * np.where(down, 1, w))
    quaternion = np.stack([w, -n[:, 1] * scale, n[:, 0] * scale, np.zeros_like(w)], axis=1)
    quaternion[down] = (0, 1, 0, 0)
    return (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).astype(np.float32)


def base_colours(sh: NDArray) -> NDArray:
    """Return the view-independent colours of spherical harmonics.

    Parameters
    ----------
    sh : NDArray (n, k, 3)
        Coefficients of sRGB, as in `Splats`.

    Returns
    -------
    NDArray (n, 3) uint8
        sRGB.
    """
    return np.clip(np.rint((0.5 + SH_C0 * sh[:, 0, :].astype(np.float32)) * 255), 0, 255).astype(
        np.uint8
    )
