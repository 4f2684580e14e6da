"""Classes where no map says anything but an image shows something: by colour, height and relief.

A network that is given an aerial image alone makes heights. What stands there, a house or a tree,
and what the ground is, follows from the picture by the rules that datasets are built with
(`earthgen.dataset.builders.land_cover`), without those that look further than a few columns, so
that every window finds the same, and without that of rough crowns: a network's roofs are rough too.
A tree that is not green is then a building.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from earthgen.dataset.builders.land_cover import BROWN, GREEN, TALL, greenness
from earthgen.terrain.cover import class_code

PICTURE_REACH = 8
"""Columns around a column that its class depends on."""


def classes_of_picture(cover: NDArray, image: NDArray, height: NDArray) -> NDArray:
    """Return land cover in which unmapped columns have a class by the image, where it is known.

    Parameters
    ----------
    cover : NDArray (ny, nx) uint8
        Class codes, 0 unmapped.
    image : NDArray (ny, nx, 4) uint8
        sRGB seen from above and alpha, 0 where unknown.
    height : NDArray (ny, nx) float32
        Metres above the ground.

    Returns
    -------
    NDArray (ny, nx) uint8
        Class codes; exact from `PICTURE_REACH` columns inside.
    """
    seen = (cover == 0) & (image[..., 3] > 0)
    if not seen.any():
        return cover
    colours = image[..., :3]
    green = greenness(colours)
    smooth = ndimage.uniform_filter(colours.astype(np.float32), (3, 3, 1))
    brown = (smooth[..., 0] - smooth[..., 2]) / np.maximum(smooth.sum(axis=2), 1.0) > BROWN
    ground = np.where(brown, class_code("grassland"), class_code("paved"))
    ground = np.where(green > GREEN, class_code("grass"), ground)

    tall = height > TALL
    leaf = green > GREEN
    # What most tall columns around are: a green pixel of a roof is no tree.
    share, roofs = (
        ndimage.uniform_filter(each.astype(np.float32), 5) for each in (tall, tall & ~leaf)
    )
    roof = ndimage.binary_opening(tall & (roofs > 0.5 * share), np.ones((3, 3)))
    stands = np.where(roof, class_code("building"), class_code("tree"))
    return np.where(seen, np.where(tall, stands, ground), cover).astype(np.uint8)
