"""Perceptual distance of two pictures, by features of `earthgen.models.image_features`.

The measure is that of Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", equation 1, without its learned weights of channels. Nothing is downloaded: the
weights come with a package.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.models.image_features import feature_network

GROUPS = (0, 1, 2, 4)
"""Groups of blocks whose outputs are compared: of strides 2, 4, 8 and 16."""


def perceptual(picture: Tensor, truth: Tensor) -> Tensor:
    """Return the squared distance of features of unit length per pixel, averaged over groups.

    Parameters
    ----------
    picture, truth : Tensor (h, w, 3)
        sRGB in [0, 1].

    Returns
    -------
    Tensor ()
        0 for equal pictures.

    Raises
    ------
    ModelError
        If the package of the weights is not installed; check it with `missing_package`.
    """
    network = feature_network().to(picture.device)
    maps = network.maps(torch.stack([picture, truth]).permute(0, 3, 1, 2).float())
    distances = []
    for group in GROUPS:
        unit = maps[group] / (maps[group].square().sum(1, keepdim=True) + 1e-8).sqrt()
        distances.append((unit[0] - unit[1]).square().sum(0).mean())
    return torch.stack(distances).mean()
