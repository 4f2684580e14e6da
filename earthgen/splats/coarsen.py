"""Levels of detail of Gaussians without voxels: the Gaussians of a cell are merged into one.

The levels of a world are computed from its voxels (`earthgen.voxels.pyramid`). This module is for
trained Gaussians, merged worlds and files of other programs.

Method (our own). Gaussians are merged cell by cell, on a lattice that begins at the origin of the
CRS, so that crops agree. With the area a = 2 pi s1 s2 of a disc and the weight w = a * opacity:

- Mean, covariance and colour are the w-weighted first and second moments of the mixture, as in
  mixture reduction (Runnalls 2007, "Kullback-Leibler Approach to Gaussian Mixture Reduction"): the
  covariance is that of the discs plus that of their means.
- A disc has no thickness. The two longest axes of the covariance are its axes, the shortest is its
  normal.
- sum(w) is kept. It is the area that the Gaussians hide together, averaged over all directions, if
  none hides another. The opacity is sum(w) / area, but not more than the a-weighted mean of the
  opacities; beyond that the disc is enlarged (overlapping discs hide more than the spread of their
  means suggests).
- The class is that with the largest sum of w, the lowest code of equal ones.

A Gaussian that is alone in its cell does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.splats.gaussians import Gaussians
from earthgen.voxels.splat_math import disc_normals

FACTORS = (2, 4, 8)
"""Factors of the coarse levels of a world."""

_KEY_BITS = 21
"""Bits of the number of a cell along an axis, counted from the first cell: three in 63 bits."""


def pyramid(
    gaussians: Gaussians, voxel_size: float, factors: Sequence[int] = FACTORS
) -> dict[int, Gaussians]:
    """Compute levels of detail, each from the one before.

    Parameters
    ----------
    gaussians : Gaussians
        The finest level.
    voxel_size : float
        Edge of a cell of factor 1, metres.
    factors : sequence of int
        Edges of the cells relative to `voxel_size`, each a multiple of the one before.

    Returns
    -------
    dict
        The levels by factor.

    Raises
    ------
    SplatError
        If a factor is not a multiple of the one before, or as in `coarsen`.
    """
    levels: dict[int, Gaussians] = {}
    finer, before = gaussians, 1
    for factor in factors:
        if factor < 1 or factor % before:
            raise SplatError(
                f"levels of {tuple(factors)} do not nest", "give factors such as 2, 4, 8"
            )
        finer, before = coarsen(finer, voxel_size * factor), factor
        levels[factor] = finer
    return levels


def coarsen(gaussians: Gaussians, cell: float) -> Gaussians:
    """Merge the Gaussians whose means lie in one cell.

    Parameters
    ----------
    gaussians : Gaussians
        What to merge.
    cell : float
        Edge of a cell, metres. The lattice begins at the origin of the CRS and at height 0.

    Returns
    -------
    Gaussians
        One Gaussian for each cell that has any, ordered by (y, x, z).

    Raises
    ------
    SplatError
        If the cell is not positive, more than 2 million cells lie along an axis, or
        `Gaussians.check` finds invalid values.
    """
    if not (cell > 0 and np.isfinite(cell)):
        raise SplatError(f"cells of {cell} metres have no size", "give a positive size")
    gaussians.check()
    if len(gaussians) == 0:
        return gaussians
    order, starts = _cells(gaussians, cell)
    counts = np.diff(np.append(starts, len(order)))
    out = gaussians.take(order[starts])  # cells with several Gaussians are overwritten below
    several = counts > 1
    if not several.any():
        return out
    members = gaussians.take(order[np.repeat(several, counts)])
    merged = _merge(members, np.concatenate([[0], np.cumsum(counts[several])[:-1]]))
    attributes = {}
    for name, value in merged.items():
        whole = getattr(out, name).astype(value.dtype)
        whole[several] = value
        attributes[name] = whole
    return replace(out, **attributes)


def _cells(gaussians: Gaussians, cell: float) -> tuple[NDArray, NDArray]:
    """The order that sorts Gaussians by cell (y, x, z), and where each cell starts."""
    key = np.zeros(len(gaussians), np.int64)
    for axis in (1, 0, 2):
        index = np.floor(
            (gaussians.means[:, axis].astype(np.float64) + gaussians.anchor[axis]) / cell
        )
        index -= index.min()
        if index.max() >= 2**_KEY_BITS:
            raise SplatError(
                f"{index.max():.0f} cells of {cell} metres along an axis are too many", "crop first"
            )
        key = (key << _KEY_BITS) | index.astype(np.int64)
    order = np.argsort(key, kind="stable")
    key = key[order]
    return order, np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))


def _merge(members: Gaussians, starts: NDArray) -> dict[str, NDArray]:
    """Fields of the merged Gaussians, summed in float64; `starts` (m,) is where the members of each
    begin."""
    counts = np.diff(np.append(starts, len(members)))

    def total(values: NDArray) -> NDArray:
        return np.add.reduceat(values, starts, axis=0)

    def spread(values: NDArray) -> NDArray:
        return np.repeat(values, counts, axis=0)

    opacities = members.opacities.astype(np.float64)
    scales = members.scales.astype(np.float64)
    area = 2 * np.pi * scales[:, 0] * scales[:, 1]
    # If no Gaussian of a cell is visible, the weights are the areas.
    hidden = spread(total(area * opacities) <= 0)
    weight = np.where(hidden, area, area * opacities)
    whole, areas = total(weight), total(area)
    share = weight / spread(whole)

    means = members.means.astype(np.float64)
    mean = total(means * share[:, None])
    away = means - spread(mean)
    axes = _disc_axes(members.rotations) * scales[:, :, None]  # (n, 2, 3)
    covariance = np.empty((len(starts), 3, 3))
    for i in range(3):
        for j in range(i + 1):
            moment = away[:, i] * away[:, j] + (axes[:, :, i] * axes[:, :, j]).sum(axis=1)
            covariance[:, i, j] = covariance[:, j, i] = total(moment * share)
    rotations, sizes = _discs(
        covariance, total(disc_normals(members.rotations).astype(np.float64) * share[:, None])
    )

    seen = total(area * opacities)
    spanned = 2 * np.pi * sizes[:, 0] * sizes[:, 1]
    enlarged = np.maximum(areas / spanned, 1)
    return {
        "means": mean.astype(np.float32),
        "scales": (sizes * np.sqrt(enlarged)[:, None]).astype(np.float32),
        "rotations": rotations.astype(np.float32),
        "opacities": np.minimum(seen / (spanned * enlarged), 1).astype(np.float32),
        "sh": total(members.sh.astype(np.float64) * share[:, None, None]).astype(np.float32),
        "semantic": _heaviest(
            members.semantic, weight, spread(np.arange(len(starts))), len(starts)
        ),
    }


def _disc_axes(rotations: NDArray) -> NDArray:
    """(n, 2, 3) float64 x and y axes, rotated by unit quaternions."""
    w, x, y, z = rotations.astype(np.float64).T
    first = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1)
    second = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], axis=1)
    return np.stack([first, second], axis=1)


def _discs(covariance: NDArray, facing: NDArray) -> tuple[NDArray, NDArray]:
    """Quaternions (m, 4) and standard deviations (m, 2) of the discs nearest to covariances (m, 3,
    3); normals point to the side of `facing` (m, 3), and up where that is undecided."""
    from scipy.spatial.transform import Rotation

    values, vectors = np.linalg.eigh(covariance)  # ascending
    normal, minor, major = vectors[:, :, 0], vectors[:, :, 1], vectors[:, :, 2]
    side = (normal * facing).sum(axis=1)
    undecided = np.abs(side) < 1e-9
    normal = normal * np.where(np.where(undecided, normal[:, 2], side) < 0, -1.0, 1.0)[:, None]
    # The signs of eigenvectors depend on the library; the longest component is made positive.
    longest = np.take_along_axis(major, np.abs(major).argmax(axis=1)[:, None], axis=1)
    major = major * np.where(longest < 0, -1.0, 1.0)
    minor = np.cross(normal, major)
    turn = Rotation.from_matrix(np.stack([major, minor, normal], axis=2)).as_quat()[:, [3, 0, 1, 2]]
    turn *= np.where(turn[:, :1] < 0, -1.0, 1.0)
    return turn, np.sqrt(np.maximum(values[:, [2, 1]], np.finfo(np.float32).tiny))


def _heaviest(codes: NDArray, weight: NDArray, group: NDArray, groups: int) -> NDArray:
    """(groups,) uint8 code with the largest sum of weights in each group, the lowest of equal
    ones."""
    pair = group * 256 + codes
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    first = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    sums, pair = np.add.reduceat(weight[order], first), pair[first]
    best = np.lexsort((pair, -sums, pair // 256))  # by group, then by weight, then by code
    ranked = pair[best]
    return (ranked[np.searchsorted(ranked // 256, np.arange(groups))] % 256).astype(np.uint8)
