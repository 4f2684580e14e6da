"""Figures of objects, as an eye sees them: how level roofs are, how even their colour, needles on
buildings, and crowns of trees. docs/guides/evaluation.md has the formulas.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.evaluation.metrics import Sums, ratios, wasserstein
from earthgen.evaluation.patch import Patch, buildings, trees

WINDOW = 5
"""Edge of the window that a plane is fitted to, columns."""

NEEDLE = 3.0
"""Metres above its building from which a column is a needle. Learned backends limit roofs to this
step above the roof around (docs/background/models.md)."""

TALL = 25.0
"""Metres that no building of most places reaches; what is above them there is an error."""

LEAST_INNER = 9
"""Least number of inner columns of a building whose spread counts."""

CROWN = 3.0
"""Metres; lower plants have no trunk."""

SMOOTHING, ASCENT = 1.0, 2.0
"""Metres: deviation of the filter before crowns are told apart, and reach of a step upwards."""


@dataclass(frozen=True)
class ObjectSums:
    """What one patch adds to the figures of objects.

    Attributes
    ----------
    sums : dict[str, tuple[float, float]]
        Numerator and denominator, by the names of `figures_of_objects`; "roof_known" is of the
        colours of those columns where the true one is known.
    crowns : NDArray (n,) float64
        Diameters of crowns, metres.
    """

    sums: Sums = field(default_factory=dict)
    crowns: NDArray = field(default_factory=lambda: np.zeros(0))


def measure_objects(made: Patch, truth: Patch, known: NDArray | None = None) -> ObjectSums:
    """Measure the objects of a patch.

    Parameters
    ----------
    made : Patch
        A world, or the truth itself. Without buildings of its own it has those of the truth.
    truth : Patch
        The truth on the same frame, with its buildings.
    known : NDArray (ny, nx) bool | None
        Columns whose true colour is known.

    Returns
    -------
    ObjectSums
        Sums over the columns that are valid in the truth.
    """
    if made.building is None and truth.building is not None:
        made = replace(made, building=truth.building, building_height=truth.building_height)
    valid = truth.valid & made.covered
    sums: Sums = {}
    if made.building is not None:
        number = np.where(valid & buildings(made.cover), made.building, 0).astype(np.int64)
        inner = inner_columns(number)
        residual = plane_residuals(made.height, inner)
        sums["roof_residual"] = float(residual.sum()), float(residual.size)
        sums["roof_spread"] = squares_within(made.height[..., None], inner)
        if made.colour is not None:
            colour = made.colour.astype(np.float64) / 255
            sums["roof_colour"] = squares_within(colour, inner)
            if known is not None:
                sums["roof_known"] = squares_within(colour, np.where(known, inner, 0))
        told = made.building_height
        count = float((number > 0).sum())
        if told is not None:
            sums["needles"] = float(needles(made.height, number, told).sum()), count
        if not (truth.height[truth.valid & buildings(truth.cover)] > TALL).any():
            sums["above_25"] = float((made.height[number > 0] > TALL).sum()), count
    tall = valid & trees(made.cover) & (made.height >= CROWN)
    sums["crown_gaps"] = float((tall & open_below(made)).sum()), float(tall.sum())
    return ObjectSums(sums, crown_diameters(made.height, tall, made.frame.voxel_size))


def figures_of_objects(
    made: Sequence[ObjectSums], truth: Sequence[ObjectSums] | None = None
) -> dict[str, float]:
    """Compute the figures of objects over several patches.

    Parameters
    ----------
    made : Sequence[ObjectSums]
        Sums of each patch.
    truth : Sequence[ObjectSums] | None
        Those of the truth, for the ratios and the distance of crowns.

    Returns
    -------
    dict[str, float]
        NaN where there is no such object.

        - roof_residual, metres: mean distance of roofs from local planes (`plane_residuals`)
        - roof_spread, metres: deviation of heights within a building
        - roof_colour: deviation of colours within a building, of 1
        - needles, above_25: shares of columns of buildings, the second in patches without a true
          building above 25 m
        - crown_gaps: share of columns of trees of at least 3 m with air below the crown
        - NAME_ratio: of the first three, relative to the truth
        - crown_w1, metres: Wasserstein-1 distance of the diameters of crowns
    """
    own = _means(made)
    figures = {
        name: own.get(name, float("nan"))
        for name in (
            "roof_residual",
            "roof_spread",
            "roof_colour",
            "needles",
            "above_25",
            "crown_gaps",
        )
    }
    if truth is None:
        return figures
    true = _means(truth)
    for name, compared in (
        ("roof_residual", "roof_residual"),
        ("roof_spread", "roof_spread"),
        ("roof_colour", "roof_known"),
    ):
        base = true.get(compared, float("nan"))
        figures[f"{name}_ratio"] = own.get(compared, float("nan")) / base if base else float("nan")
    figures["crown_w1"] = wasserstein(_crowns(made), _crowns(truth))
    return figures


SQUARES = frozenset({"roof_spread", "roof_colour", "roof_known"})
"""Sums of squares, whose means are variances."""


def _means(parts: Iterable[ObjectSums]) -> Mapping[str, float]:
    means = ratios(part.sums for part in parts)
    return {name: mean**0.5 if name in SQUARES else mean for name, mean in means.items()}


def _crowns(parts: Sequence[ObjectSums]) -> NDArray:
    return np.concatenate([part.crowns for part in parts]) if parts else np.zeros(0)


def inner_columns(number: NDArray) -> NDArray:
    """Return building numbers without the outermost ring of each building.

    Along its edge a roof ends in a wall, which is no roughness of the roof.

    Parameters
    ----------
    number : NDArray (ny, nx) int64
        Number of the building, 0 for none.
    """
    low = ndimage.minimum_filter(number, 3, mode="nearest")
    high = ndimage.maximum_filter(number, 3, mode="nearest")
    return np.where(low == high, number, 0)


@functools.cache
def _residual_of_plane() -> NDArray:
    """Return the matrix that takes from the heights of a window their least-squares plane."""
    row, col = np.indices((WINDOW, WINDOW)).reshape(2, -1)
    plane = np.stack([np.ones(WINDOW * WINDOW), row, col], axis=1)
    return np.eye(WINDOW * WINDOW) - plane @ np.linalg.pinv(plane)


def plane_residuals(height: NDArray, inner: NDArray) -> NDArray:
    """Compute how far roofs are from planes.

    A plane is fitted by least squares to each window of 5 x 5 columns that lies inside one
    building.

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres.
    inner : NDArray (ny, nx) int64
        Number of the building, 0 outside, as of `inner_columns`.

    Returns
    -------
    NDArray (n,) float64
        For each window the mean distance of its columns from the plane, metres.
    """
    if min(height.shape) < WINDOW:
        return np.zeros(0)
    low = ndimage.minimum_filter(inner, WINDOW, mode="constant")
    high = ndimage.maximum_filter(inner, WINDOW, mode="constant")
    row, col = np.nonzero((low == high) & (inner > 0))
    half = WINDOW // 2
    windows = np.lib.stride_tricks.sliding_window_view(height.astype(np.float64), (WINDOW, WINDOW))[
        row - half, col - half
    ].reshape(len(row), WINDOW * WINDOW)
    return np.asarray(np.abs(windows @ _residual_of_plane()).mean(axis=1))


def squares_within(values: NDArray, inner: NDArray) -> tuple[float, float]:
    """Sum the squared differences from the mean of each building.

    Parameters
    ----------
    values : NDArray (ny, nx, c)
        Heights or colours.
    inner : NDArray (ny, nx) int64
        Number of the building, 0 outside; buildings below `LEAST_INNER` columns are left out.

    Returns
    -------
    tuple[float, float]
        The sum, and the number of values.
    """
    _, group = np.unique(inner, return_inverse=True)
    group = group.reshape(inner.shape)
    use = (inner > 0) & (np.bincount(group.ravel())[group] >= LEAST_INNER)
    if not use.any():
        return 0.0, 0.0
    group, chosen = group[use], values[use].astype(np.float64)
    count = np.maximum(np.bincount(group), 1)
    total = 0.0
    for channel in chosen.T:
        mean = np.bincount(group, channel) / count
        total += float(np.square(channel - mean[group]).sum())
    return total, float(chosen.size)


def needles(height: NDArray, number: NDArray, told: NDArray) -> NDArray:
    """Return which columns of buildings are needles.

    A needle stands more than `NEEDLE` metres above its building: above the height that a map would
    tell, and above three quarters of the building's columns as they were made. So a building that
    is too tall as a whole is none.

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres.
    number : NDArray (ny, nx) int64
        Number of the building, 0 for none.
    told : NDArray (ny, nx) float32
        Height of the building by the map, the 95th percentile of the true ones, metres.

    Returns
    -------
    NDArray (ny, nx) bool
    """
    _, group = np.unique(number, return_inverse=True)
    group = group.reshape(number.shape)
    order = np.lexsort((height.ravel(), group.ravel()))
    ends = np.cumsum(np.bincount(group.ravel()))
    starts = np.concatenate([[0], ends[:-1]])
    upper = height.ravel()[order][starts + (3 * (ends - starts - 1)) // 4][group]
    return np.asarray((number > 0) & (height > np.maximum(told, upper) + NEEDLE))


def open_below(patch: Patch) -> NDArray:
    """Return the columns with air between the ground and what stands above it.

    The ground's voxel is part of the surface there, and the one above it is not.

    Returns
    -------
    NDArray (ny, nx) bool
    """
    row, col = patch.rows
    level = patch.xyz[:, 2]
    ground, foot = np.zeros(patch.frame.shape, bool), np.zeros(patch.frame.shape, bool)
    ground[row[level < 0], col[level < 0]] = True
    foot[row[level == 0], col[level == 0]] = True
    return ground & ~foot


def crown_diameters(height: NDArray, tall: NDArray, voxel_size: float) -> NDArray:
    """Measure the crowns of trees from above.

    Heights are smoothed, and each column belongs to the top that steepest ascent leads to. Crowns
    that touch the edge are left out.

    Parameters
    ----------
    height : NDArray (ny, nx) float32
        Metres.
    tall : NDArray (ny, nx) bool
        Columns of trees.
    voxel_size : float
        Metres.

    Returns
    -------
    NDArray (n,) float64
        Diameters of circles of their areas, metres.
    """
    if not tall.any():
        return np.zeros(0)
    reach = max(round(ASCENT / voxel_size), 1)
    smooth = ndimage.gaussian_filter(
        np.where(tall, height, 0).astype(np.float64), SMOOTHING / voxel_size, mode="nearest"
    )
    around = np.pad(np.where(tall, smooth, -np.inf), reach, constant_values=-np.inf)
    side = 2 * reach + 1
    best = np.lib.stride_tricks.sliding_window_view(around, (side, side)).reshape(*tall.shape, -1)
    step = best.argmax(axis=2)  # the first of equal ones, so that no path is a circle
    row, col = np.indices(tall.shape)
    up = (row + step // side - reach) * tall.shape[1] + col + step % side - reach
    up = np.where(tall, up, row * tall.shape[1] + col).ravel()
    while not np.array_equal(further := up[up], up):
        up = further
    top = up.reshape(tall.shape)
    edge = np.ones(tall.shape, bool)
    edge[1:-1, 1:-1] = False
    names, area = np.unique(top[tall], return_counts=True)
    whole = ~np.isin(names, np.unique(top[edge & tall]))
    return np.asarray(2 * np.sqrt(area[whole] / np.pi) * voxel_size)
