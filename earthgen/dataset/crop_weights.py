"""How often the crops of each scene are drawn in training.

Heights of a coarse source, brought to fine voxels, teach rubble: roofs that slope over half a
street. So crops are drawn by the native resolution of their scene.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop_sampler import Crops

COARSE = 0.1
"""Default odds of sources twice as coarse as the voxels, or coarser, against 1 for fine ones."""

COARSE_AT = 2.0
"""Ratio of native resolution to voxel size from which a source is coarse."""


def resolution_odds(native: float, voxel_size: float, coarse: float = COARSE) -> float:
    """Return the odds of a scene: 1 up to the voxel size, `coarse` from twice the voxel size on.

    Between the two it falls linearly with the logarithm of the resolution.

    Parameters
    ----------
    native : float
        Distance of independent heights (or colours) in the source, metres.
    voxel_size : float
        Metres.
    coarse : float
        Odds of coarse sources, in [0, 1].
    """
    ratio = max(native / voxel_size, 1.0)
    return float(1 - (1 - coarse) * min(np.log(ratio) / np.log(COARSE_AT), 1.0))


def crop_weights(
    crops: Crops,
    *,
    coarse: float = COARSE,
    of: Literal["heights", "colours"] = "heights",
    simulated: float | None = None,
) -> NDArray:
    """Return the weight of each window of a part of a dataset.

    The weight of a scene is the square root of the number of its windows, so that large scenes are
    drawn more often and do not drown the small ones, times its `resolution_odds`.

    Parameters
    ----------
    crops : Crops
        The windows.
    coarse : float
        As of `resolution_odds`.
    of : {"heights", "colours"}
        What the resolution is of.
    simulated : float | None
        Share of the draws from simulated scenes, if there are simulated and real ones; by default
        as their weights are.

    Returns
    -------
    NDArray (m,) float64
        Not negative; their sum is 0 if no scene may be used.
    """
    scene = crops.windows[:, 0]
    count = np.bincount(scene, minlength=len(crops.scenes))
    odds = np.array(
        [
            resolution_odds(each.info.native(of), each.frame.voxel_size, coarse)
            for each in crops.scenes
        ]
    )
    weights = odds[scene] / np.sqrt(count[scene])
    made_up = np.array([each.info.kind == "simulated" for each in crops.scenes])[scene]
    sums = weights[made_up].sum(), weights[~made_up].sum()
    if simulated is not None and min(sums) > 0:
        weights = np.where(
            made_up, weights * (simulated / sums[0]), weights * ((1 - simulated) / sums[1])
        )
    return np.asarray(weights)
