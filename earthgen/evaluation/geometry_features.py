"""Statistics of the geometry of a patch as one vector, by which its realism is measured.

All are of columns seen from above, and none depends on where the classes are, since the condition
gives that. They are normalised by the mean and deviation of the truth before distances are taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.evaluation.patch import Patch, buildings
from geo_io.legend import classes

HEIGHTS = (0.5, 2.0, 4.0, 7.0, 11.0, 16.0, 25.0)
"""Limits between the bins of heights above the ground, metres."""

SLOPES = (0.25, 1.0, 3.0)
"""Limits between the bins of slopes of the heights above the ground, rise over run."""

LAGS = (1, 4, 16)
"""Distances at which heights are compared, voxels."""

GEOMETRY_FEATURES = (
    *(
        f"height_{low:g}_{high:g}"
        for low, high in zip((0.0, *HEIGHTS), (*HEIGHTS, np.inf), strict=True)
    ),
    *(
        f"slope_{low:g}_{high:g}"
        for low, high in zip((0.0, *SLOPES), (*SLOPES, np.inf), strict=True)
    ),
    "rough_building",
    "rough_plants",
    "rough_open",
    *(f"difference_{lag}" for lag in LAGS),
    "building_height",
    "building_spread",
    "building_count",
    "building_area",
    "building_largest",
    "building_edge",
    "plant_height",
    "plant_spread",
    "voxels",
)
"""The names of the numbers in `geometry_features`."""


def geometry_features(patch: Patch) -> NDArray:
    """Compute the statistics of a patch.

    Parameters
    ----------
    patch : Patch
        The patch; its valid columns that have voxels count.

    Returns
    -------
    NDArray (len(GEOMETRY_FEATURES),) float64
        In the order of `GEOMETRY_FEATURES`. Shares and means of nothing are 0.

        - height_a_b: share of columns with heights in [a, b) metres; slope_a_b: the same of slopes
        - rough_...: mean absolute Laplacian of heights, metres, on buildings, on plants (trees,
          forest, shrub), and elsewhere, of columns whose four neighbours are of the same kind
        - difference_n: mean absolute difference of the heights of columns n voxels apart, to the
          east and to the north
        - building_height, building_spread: mean and deviation of heights on buildings, metres
        - building_count: buildings (cells joined by sides) per hectare
        - building_area: mean logarithm of their areas in m²; building_largest: that of the largest
        - building_edge: outline over area, 1/m
        - plant_height, plant_spread: mean and deviation of heights on plants, metres
        - voxels: surface voxels per column, which counts walls, steps and crowns
    """
    valid, size = patch.valid & patch.covered, patch.frame.voxel_size
    height = patch.height.astype(np.float64)
    if not valid.any():
        return np.zeros(len(GEOMETRY_FEATURES))
    built, plants = buildings(patch.cover) & valid, _plants()[patch.cover] & valid
    south, east = (np.asarray(np.gradient(height, size, axis=axis)) for axis in (0, 1))
    # Rounded, so that a height just below a limit because of float errors is in the right bin.
    slope = np.round(np.hypot(south, east), 4)
    rough = np.abs(ndimage.laplace(height, mode="nearest"))
    features = [*_shares(np.round(height[valid], 3), HEIGHTS), *_shares(slope[valid], SLOPES)]
    # Of columns whose neighbours are alike, since walls and edges of woods are no roughness.
    cross = ndimage.generate_binary_structure(2, 1)
    for mask in (built, plants, valid & ~built & ~plants):
        features.append(_mean(rough[ndimage.binary_erosion(mask, cross, border_value=1)]))
    features += [_apart(height, valid, lag) for lag in LAGS]
    features += [_mean(height[built]), _spread(height[built]), *_sizes(built, valid, size)]
    features += [_mean(height[plants]), _spread(height[plants])]
    features += [len(patch.seen()) / valid.sum()]
    return np.array(features, np.float64)


def standardise(features: NDArray, truth: NDArray) -> NDArray:
    """Normalise features by the mean and deviation of the truth. Constant ones are only shifted.

    Parameters
    ----------
    features : NDArray (n, d)
        Features.
    truth : NDArray (m, d)
        Features of the truth.
    """
    spread = truth.std(0)
    return np.asarray((features - truth.mean(0)) / np.where(spread > 1e-6, spread, 1.0))


def _plants() -> NDArray:
    table = np.zeros(256, bool)
    for land in classes():
        table[land.code] = land.surface in ("wood", "tree", "shrub")
    return table


def _shares(values: NDArray, edges: tuple[float, ...]) -> NDArray:
    return np.asarray(
        np.bincount(np.digitize(values, edges), minlength=len(edges) + 1) / max(values.size, 1)
    )


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else 0.0


def _spread(values: NDArray) -> float:
    return float(values.std()) if values.size else 0.0


def _apart(height: NDArray, valid: NDArray, lag: int) -> float:
    differences = [
        np.abs(height[lag:] - height[:-lag])[valid[lag:] & valid[:-lag]],
        np.abs(height[:, lag:] - height[:, :-lag])[valid[:, lag:] & valid[:, :-lag]],
    ]
    return _mean(np.concatenate(differences))


def _sizes(built: NDArray, valid: NDArray, size: float) -> tuple[float, float, float, float]:
    """Return count per hectare, mean log area, log of the largest area, outline over area."""
    number, count = ndimage.label(built)
    if not count:
        return 0.0, 0.0, 0.0, 0.0
    areas = np.bincount(number.ravel())[1:] * size**2
    sides = int((built[1:] != built[:-1]).sum() + (built[:, 1:] != built[:, :-1]).sum())
    hectares = float(valid.sum()) * size**2 / 1e4
    return (
        count / hectares,
        float(np.log(areas).mean()),
        float(np.log(areas.max())),
        sides * size / float(areas.sum()),
    )
