"""Levels of detail of Gaussians that stand anywhere: those of a cell become one, cells double from
level to level.

A world has its own levels, made with its voxels (`earthgen.voxels.pyramid`). This is for Gaussians
without voxels: trained ones, merged worlds, files of other programs.

Method (own). Gaussians are moved together cell by cell, on a lattice that begins at the CRS origin,
so that crops agree. With the area a = 2 pi s1 s2 of a disc and the weight w = a * opacity:

- mean, covariance and colour are the w-weighted first and second moments of the mixture, as in
  mixture reduction
  (Runnalls 2007, "Kullback-Leibler approach to Gaussian mixture reduction"): the covariance is that
  of the discs plus that of their means;
- a disc has no thickness, so of the covariance's three axes the two longest stay, and the shortest
  becomes the normal;
- sum(w) stays. It is what the Gaussians hide together, averaged over all directions, where none
  hides another. The
  opacity is sum(w) / area, but not more than the a-weighted mean of the opacities; beyond that the
  disc is enlarged (overlapping discs hide more than the spread of their means tells);
- the class is that with the largest sum of w, of equals the lowest code.

A Gaussian that is alone in its cell stays as it is, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import SplatError
from earthgen.splats.gaussians import Gaussians
from earthgen.voxels.splat_math import normals

FACTORS = (2, 4, 8)
"""Of the levels that a world has beside its first."""

_KEY_BITS = (
    21  # of a cell's number along an axis, counted from the first cell: three of them in 63 bits
)


def pyramid(
    gaussians: Gaussians, voxel_size: float, factors: Sequence[int] = FACTORS
) -> dict[int, Gaussians]:
    """Levels of detail by factor: `coarsen` to cells of factor * voxel_size metres, each level from
    the one before.

    Raises
    ------
    SplatError
        as of `coarsen`, or if a factor is no multiple of the one before
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
    """One Gaussian for all whose means lie in one cell, ordered by the cells' (y, x, z).

    cell : edge, metres; the lattice begins at the origin of the CRS and at height 0

    Raises
    ------
    SplatError
        if the cell is not positive, more than 2 million cells lie along an axis, or
        `Gaussians.check` finds a fault
    """
    if not (cell > 0 and np.isfinite(cell)):
        raise SplatError(f"cells of {cell} metres hold nothing", "give a positive size")
    gaussians.check()
    if len(gaussians) == 0:
        return gaussians
    order, starts = _cells(gaussians, cell)
    counts = np.diff(np.append(starts, len(order)))
    out = gaussians.take(order[starts])  # those that are alone; the others are written over
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
    """The order that puts the Gaussians of a cell side by side, cells by (y, x, z), and where
    each cell starts."""
    key = np.zeros(len(gaussians), np.int64)
    for axis in (1, 0, 2):
        place = np.floor(
            (gaussians.means[:, axis].astype(np.float64) + gaussians.anchor[axis]) / cell
        )
        place -= place.min()
        if place.max() >= 2**_KEY_BITS:
            raise SplatError(
                f"{place.max():.0f} cells of {cell} metres along an axis are too many", "crop first"
            )
        key = (key << _KEY_BITS) | place.astype(np.int64)
    order = np.argsort(key, kind="stable")
    key = key[order]
    return order, np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))


def _merge(members: Gaussians, starts: NDArray) -> dict[str, NDArray]:
    """Attributes of the merged Gaussians; `starts` (m,) is where the members of each begin. Sums
    in float64, by row."""
    counts = np.diff(np.append(starts, len(members)))

    def total(values: NDArray) -> NDArray:
        return np.add.reduceat(values, starts, axis=0)

    def spread(values: NDArray) -> NDArray:
        return np.repeat(values, counts, axis=0)

    opacities = members.opacities.astype(np.float64)
    scales = members.scales.astype(np.float64)
    area = 2 * np.pi * scales[:, 0] * scales[:, 1]
    # Where nothing in a cell can be seen, areas alone weigh.
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
        covariance, total(normals(members.rotations).astype(np.float64) * share[:, None])
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
    """(n, 2, 3) float64: where unit quaternions turn the x and y axes."""
    w, x, y, z = rotations.astype(np.float64).T
    first = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1)
    second = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], axis=1)
    return np.stack([first, second], axis=1)


def _discs(covariance: NDArray, facing: NDArray) -> tuple[NDArray, NDArray]:
    """Quaternions (m, 4) and deviations (m, 2) of the discs nearest to covariances (m, 3, 3).

    facing : (m, 3) a disc's normal looks to the same side, and up where that is undecided
    """
    from scipy.spatial.transform import Rotation

    values, vectors = np.linalg.eigh(covariance)  # ascending
    normal, minor, major = vectors[:, :, 0], vectors[:, :, 1], vectors[:, :, 2]
    side = (normal * facing).sum(axis=1)
    undecided = np.abs(side) < 1e-9
    normal = normal * np.where(np.where(undecided, normal[:, 2], side) < 0, -1.0, 1.0)[:, None]
    # Signs of eigenvectors are the library's whim: the longest component is made positive.
    longest = np.take_along_axis(major, np.abs(major).argmax(axis=1)[:, None], axis=1)
    major = major * np.where(longest < 0, -1.0, 1.0)
    minor = np.cross(normal, major)
    turn = Rotation.from_matrix(np.stack([major, minor, normal], axis=2)).as_quat()[:, [3, 0, 1, 2]]
    turn *= np.where(turn[:, :1] < 0, -1.0, 1.0)
    return turn, np.sqrt(np.maximum(values[:, [2, 1]], np.finfo(np.float32).tiny))


def _heaviest(codes: NDArray, weight: NDArray, group: NDArray, groups: int) -> NDArray:
    """(groups,) uint8 code with the largest sum of weights in each group, of equals the lowest."""
    pair = group * 256 + codes
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    first = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    sums, pair = np.add.reduceat(weight[order], first), pair[first]
    best = np.lexsort((pair, -sums, pair // 256))  # by group, then by weight, then by code
    found = pair[best]
    return (found[np.searchsorted(found // 256, np.arange(groups))] % 256).astype(np.uint8)
