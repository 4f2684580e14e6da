"""TODO docstring of earthgen.voxels.voxels.splat_math."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: colour = 0.5 + SH_C0 * coefficient."""


def normals(rotation: NDArray) -> NDArray:
    """(n, 3) float32: where the unit quaternions (n, 4) (w, x, y, z) turn the z axis."""
    w, x, y, z = rotation.astype(np.float32).T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def rotations(normal: NDArray) -> NDArray:
    """(n, 4) float32 unit quaternions (w, x, y, z): the shortest turns of the z axis into unit
    normals (n, 3)."""
    n = normal.astype(np.float32)
    w = np.sqrt(np.maximum((1 + n[:, 2]) / 2, 0))
    down = w < 1e-4  # straight down: any half turn about a horizontal axis
    scale = 1 / (2 * np.where(down, 1, w))
    quaternion = np.stack([w, -n[:, 1] * scale, n[:, 0] * scale, np.zeros_like(w)], axis=1)
    quaternion[down] = (0, 1, 0, 0)
    return (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).astype(np.float32)
