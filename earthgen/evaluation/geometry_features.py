"""Statistics of the geometry of a patch as one vector: what the realism of geometry is measured by.

All are of columns seen from above, and none says which class stands where, which the condition
gives. They are brought to mean 0 and deviation 1 by those of the truth before distances are taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.evaluation.patch import Patch, buildings
from geo_io.legend import classes

HEIGHTS = (0.5, 2.0, 4.0, 7.0, 11.0, 16.0, 25.0)
"""Metres between the bins of heights above the ground."""

SLOPES = (0.25, 1.0, 3.0)
"""Metres a metre between the bins of the slope of heights above the ground."""

LAGS = (1, 4, 16)
"""Voxels apart at which heights are compared."""

NAMES = (
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
"""What each number is; see `geometry_features`."""


def geometry_features(patch: Patch) -> NDArray:
    """(len(NAMES),) float64.

    height_a_b : share of columns with heights in [a, b) metres; slope_a_b : alike, of slopes
        rough_... : mean absolute Laplacian of heights, metres, on buildings, on plants (trees,
        forest, shrub), elsewhere
    difference_n : mean absolute difference of the heights of columns n voxels apart to the east and
        to the north
    building_height, building_spread : mean and deviation of heights on buildings, metres
    building_count : buildings (joined cells, by sides) a hectare; building_area : mean logarithm of
        their areas in m2
    building_largest : logarithm of the largest area; building_edge : outline over area, 1/m
    plant_height, plant_spread : as of buildings
    voxels : surface voxels a column: walls, steps and crowns

    Shares and means of nothing are 0.
    """
    valid, size = patch.valid & patch.covered, patch.frame.voxel_size
    height = patch.height.astype(np.float64)
    if not valid.any():
        return np.zeros(len(NAMES))
    built, plants = buildings(patch.cover) & valid, _plants()[patch.cover] & valid
    south, east = (np.asarray(np.gradient(height, size, axis=axis)) for axis in (0, 1))
    # Rounded, so that a height that is a hair below a whole metre falls where that metre does.
    slope = np.round(np.hypot(south, east), 4)
    rough = np.abs(ndimage.laplace(height, mode="nearest"))
    found = [*_shares(np.round(height[valid], 3), HEIGHTS), *_shares(slope[valid], SLOPES)]
    found += [_mean(rough[mask]) for mask in (built, plants, valid & ~built & ~plants)]
    found += [_apart(height, valid, lag) for lag in LAGS]
    found += [_mean(height[built]), _spread(height[built]), *_sizes(built, valid, size)]
    found += [_mean(height[plants]), _spread(height[plants])]
    found += [len(patch.seen()) / valid.sum()]
    return np.array(found, np.float64)


def standardised(features: NDArray, truth: NDArray) -> NDArray:
    """(n, d) features by the mean and deviation of (m, d) ones of the truth; what never varies
    there is only moved."""
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
    """Count a hectare, mean log area, log of the largest area, outline over area."""
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
