"""Features of the picture from above at voxels, for the encoder of a large TexVAE.

The paper's TexVAE encodes five pixels, a normal, and three scales of an image autoencoder's
features, 66 channels. That autoencoder is not public; here the three scales are those of
EfficientNet-Lite0 (`earthgen.models.image_features`), of strides 2, 4 and 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earthgen.models.image_features import feature_network
from earthgen.training.batches import Batch

GROUPS = (0, 1, 2)
"""Groups of blocks whose outputs are taken."""

CHANNELS = 16 + 24 + 40


@torch.no_grad()
def image_maps(batch: Batch) -> Tensor:
    """Return features of the picture at the columns of voxels.

    Parameters
    ----------
    batch : Batch
        The voxels. Pixels of unknown colour are taken as the mean of the known ones, or grey.

    Returns
    -------
    Tensor (n, CHANNELS) float32
        Each scale has a mean square of 1 at every column.

    Raises
    ------
    ModelError
        If the package of the network is not installed.
    """
    image, device = batch.image, batch.image.device
    mean = image.nanmean((2, 3), keepdim=True).nan_to_num(0.5)
    network = feature_network().to(device)
    nx, ny, _ = batch.shape
    sample, x, y, _ = batch.sites.coordinates.long().unbind(1)
    with torch.autocast(device.type, enabled=False):
        maps = network.maps(torch.where(image.isnan(), mean, image))
        scales = []
        for group in GROUPS:
            each = maps[group] / (maps[group].square().mean(1, keepdim=True) + 1e-6).sqrt()
            full = torch.nn.functional.interpolate(each, (ny, nx), mode="bilinear")
            scales.append(full[sample, :, ny - 1 - y, x])
    return torch.cat(scales, 1)
