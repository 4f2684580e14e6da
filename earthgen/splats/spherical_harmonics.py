"""Real spherical harmonics to degree 3, with the order and signs of 3D Gaussian Splatting and
gsplat.

The colour in the direction d, a unit vector from the eye to the Gaussian in world axes, is 0.5 +
sum_k basis(d)_k sh_k, and not below 0. Order and signs are those of Sloan 2008, "Stupid Spherical
Harmonics (SH) Tricks", appendix A2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError

MOST_DEGREE = 3

C0 = math.sqrt(1 / (4 * math.pi))
C1 = math.sqrt(3 / (4 * math.pi))
C2 = math.sqrt(15 / (4 * math.pi))


def basis(directions: NDArray, degree: int) -> NDArray:
    """Evaluate the basis functions.

    Parameters
    ----------
    directions : NDArray (n, 3)
        Unit vectors.
    degree : int
        0 to 3.

    Returns
    -------
    NDArray (n, (degree + 1)^2) float64
        Values.

    Raises
    ------
    SplatError
        If the degree is not 0 to 3.
    """
    if degree not in range(MOST_DEGREE + 1):
        raise SplatError(
            f"spherical harmonics of degree {degree} are not supported", "use degrees 0 to 3"
        )
    x, y, z = np.asarray(directions, np.float64).T
    return np.stack([np.full_like(x, C0), *terms(x, y, z, degree)], axis=1)


def terms(x: Any, y: Any, z: Any, degree: int) -> list[Any]:
    """Basis functions above degree 0, in order, of the components of unit directions: numpy arrays
    or torch tensors."""
    values = []
    if degree >= 1:
        values += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            C2 * x * y,
            -C2 * y * z,
            C2 / math.sqrt(12) * (2 * zz - xx - yy),
            -C2 * x * z,
            C2 / 2 * (xx - yy),
        ]
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
    return values


def colours(sh: NDArray, directions: NDArray) -> NDArray:
    """(n, 3) float64 sRGB, not below 0, of coefficients (n, k, 3) in unit directions (n, 3) from
    the eye to the Gaussian."""
    degree = round(sh.shape[1] ** 0.5) - 1
    return np.maximum(
        0.5 + np.einsum("nk,nkc->nc", basis(directions, degree), sh.astype(np.float64)), 0
    )


def rotation_matrix(turn: NDArray, degree: int) -> NDArray:
    """The matrix that rotates coefficients: M @ sh has in the direction turn @ d the colour of sh
    in d.

    A rotation maps harmonics of one degree to each other. So each block is the solution of a linear
    system: the rotated functions, evaluated in more directions than there are functions. The
    solution is exact up to rounding.

    Parameters
    ----------
    turn : NDArray (3, 3)
        Rotation.
    degree : int
        0 to 3.

    Returns
    -------
    NDArray (k, k) float64
        k = (degree + 1)^2.
    """
    turn = np.asarray(turn, np.float64)
    n = np.arange(24) + 0.5
    angle, z = n * (math.pi * (3 - math.sqrt(5))), 1 - n / 12  # spread evenly over the sphere
    directions = np.stack(
        [np.cos(angle) * np.sqrt(1 - z * z), np.sin(angle) * np.sqrt(1 - z * z), z], axis=1
    )
    here, there = basis(directions, degree), basis(directions @ turn.T, degree)
    matrix = np.zeros((here.shape[1], here.shape[1]))
    for band in range(degree + 1):
        block = slice(band**2, (band + 1) ** 2)
        matrix[block, block] = np.linalg.lstsq(there[:, block], here[:, block], rcond=None)[0]
    return matrix


def rotate(sh: NDArray, turn: NDArray) -> NDArray:
    """Rotate coefficients (n, k, 3) with their Gaussians by `turn` (3, 3); float32."""
    if sh.shape[1] == 1:
        return sh.astype(np.float32, copy=False)
    matrix = rotation_matrix(turn, round(sh.shape[1] ** 0.5) - 1)
    turned = np.tensordot(sh.astype(np.float64), matrix, axes=(1, 1))  # (n, 3, k)
    return np.ascontiguousarray(turned.transpose(0, 2, 1), np.float32)
