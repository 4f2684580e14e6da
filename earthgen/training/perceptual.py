"""How alike two pictures look: distances of features of the small network of
`earthgen.models.image_features`.

The measure is that of Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", equation 1, without its learned weights of channels. Nothing is downloaded: the
weights come with a package.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.models.image_features import feature_network, missing

__all__ = ["missing", "perceptual"]

GROUPS = (0, 1, 2, 4)
"""Groups of blocks whose outputs are compared: of strides 2, 4, 8 and 16."""


def perceptual(picture: Tensor, truth: Tensor) -> Tensor:
    """Mean over groups of the squared distance between features of unit length, a pixel; 0 for
    equal pictures.

    picture, truth : (h, w, 3) sRGB in [0, 1]

    Raises ModelError where the package of the weights is not installed; `missing` tells beforehand.
    """
    network = feature_network().to(picture.device)
    maps = network.maps(torch.stack([picture, truth]).permute(0, 3, 1, 2).float())
    lost = []
    for group in GROUPS:
        unit = maps[group] / (maps[group].square().sum(1, keepdim=True) + 1e-8).sqrt()
        lost.append((unit[0] - unit[1]).square().sum(0).mean())
    return torch.stack(lost).mean()
