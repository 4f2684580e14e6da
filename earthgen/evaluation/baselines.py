"""Baselines for learned backends, besides `procedural`: the nearest training tile, and classes at
mean height."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.builders.surface import Columns, height_field
from earthgen.dataset.crop import Crop, transform_crop
from earthgen.dataset.crop_sampler import Crops
from earthgen.dataset.scene import Scene
from earthgen.evaluation.patch import Patch, patch_of_crop, plain_splats
from geo_io.frame import Frame
from geo_io.legend import palette

CODES = 256
"""Number of class codes in a table."""

NEAREST, MEAN_HEIGHT = "nearest-tile", "mean-height"

BASELINES = {
    NEAREST: "the training crop, of all turned and mirrored ones, whose land cover agrees in most "
    "columns",
    MEAN_HEIGHT: "each column with the mean height and colour of its class in the training crops",
}
"""A description of each baseline."""


@dataclass(frozen=True)
class MeanHeights:
    """The mean height and colour of each class in the training crops.

    Attributes
    ----------
    height : NDArray (256,) float32
        By class code, metres.
    colour : NDArray (256, 3) uint8
        By class code, sRGB; the colour of the legend if none is known.
    """

    height: NDArray
    colour: NDArray

    def patch(self, crop: Crop) -> Patch:
        """Make the columns of a crop's land cover at their mean heights, on its ground."""
        columns = Columns(
            crop.frame,
            crop.ground,
            self.height[crop.cover],
            crop.cover,
            self.colour[crop.cover],
            np.ones(crop.frame.shape, bool),
            crop.valid,
        )
        data = height_field(columns)
        xyz = data.rows["xyz"]
        order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
        semantic, rgb = data.rows["semantic"][order], data.rows["rgb"][order]
        bare = Patch(
            crop.frame, crop.ground, xyz[order], semantic, None, crop.valid, columns.height
        )
        return replace(bare, splats=plain_splats(bare, rgb))


def mean_heights(training: Crops) -> MeanHeights:
    """Average over the columns of all training crops; overlaps count once per crop."""
    count, total = np.zeros(CODES), np.zeros(CODES)
    seen, colour = np.zeros(CODES), np.zeros((CODES, 3))
    for scene, windows in _windows_by_scene(training):
        # Layers are read as a whole: window by window, each chunk would be decompressed many times.
        names = ("valid", "cover", "height", "image_known", "image")
        layers = {name: scene.layer(name) for name in names}
        weight = np.zeros(scene.frame.shape, np.int32)
        for _, inner in windows:
            weight[scene.frame.slices(inner)] += 1
        times = np.where(layers["valid"], weight, 0)
        used, known = times > 0, (times > 0) & layers["image_known"]
        cover = layers["cover"]
        count += np.bincount(cover[used], times[used], CODES)
        total += np.bincount(
            cover[used], times[used] * layers["height"][used].astype(np.float64), CODES
        )
        seen += np.bincount(cover[known], times[known], CODES)
        image = layers["image"][known]
        colour += np.stack(
            [np.bincount(cover[known], times[known] * image[:, n], CODES) for n in range(3)], axis=1
        )
    legend = np.full((CODES, 3), 128.0)
    legend[: len(palette())] = palette()
    mean = colour / np.maximum(seen, 1)[:, None]
    return MeanHeights(
        (total / np.maximum(count, 1)).astype(np.float32),
        np.where(seen[:, None] > 0, mean, legend).round().astype(np.uint8),
    )


@dataclass(frozen=True)
class NearestTile:
    """Finds training crops by their land cover.

    Attributes
    ----------
    training : Crops
        The training crops.
    covers : NDArray (m, size, size) uint8
        Their land cover, 0 without data.
    """

    training: Crops
    covers: NDArray

    def find(self, crop: Crop) -> tuple[int, int, bool, float]:
        """Find the training crop whose land cover agrees best with that of a crop.

        Returns
        -------
        tuple[int, int, bool, float]
            Its number, quarter turns, whether it is mirrored, and the share of columns that
            agree; the first of several equally good ones.
        """
        target, valid = crop.cover, crop.valid & (crop.cover != 0)
        best = (0, 0, False, -1.0)
        for flip in (False, True):
            for turns in range(4):
                # Turning the target back is the same as turning all the others, and faster.
                back, mask = (np.rot90(values, -turns) for values in (target, valid))
                back, mask = (values[:, ::-1] if flip else values for values in (back, mask))
                agree = ((self.covers == back) & mask).sum(axis=(1, 2)) / max(int(valid.sum()), 1)
                number = int(agree.argmax())
                if agree[number] > best[3]:
                    best = (number, turns, flip, float(agree[number]))
        return best

    def patch(self, crop: Crop) -> Patch:
        """Put the nearest training crop in the place of a crop, on its ground."""
        number, turns, flip, _ = self.find(crop)
        nearest = transform_crop(self.training[number], turns, flip)
        move = np.array(
            [crop.frame.x[0] - nearest.frame.x[0], crop.frame.y[0] - nearest.frame.y[0], 0],
            np.int32,
        )
        keep = (nearest.xyz[:, 2] >= crop.frame.z[0]) & (nearest.xyz[:, 2] < crop.frame.z[1])
        moved = replace(
            nearest,
            frame=crop.frame,
            xyz=nearest.xyz[keep] + move,
            semantic=nearest.semantic[keep],
            rgb=nearest.rgb[keep],
            rgb_known=nearest.rgb_known[keep],
            normal=nearest.normal[keep],
            ground=crop.ground,
            valid=crop.valid,
        )
        return patch_of_crop(moved)


def nearest_tile(training: Crops) -> NearestTile:
    """Read the land cover of all training crops, one byte per column."""
    covers = np.zeros((len(training), training.size, training.size), np.uint8)
    for scene, windows in _windows_by_scene(training):
        cover = np.where(scene.layer("valid"), scene.layer("cover"), 0)
        for index, inner in windows:
            window = training.where(index)[1]
            covers[index][window.slices(inner)] = cover[scene.frame.slices(inner)]
    return NearestTile(training, covers)


def _windows_by_scene(crops: Crops) -> Iterator[tuple[Scene, list[tuple[int, Frame]]]]:
    """Yield each scene with its crops: their numbers, and their parts inside the scene."""
    for number, scene in enumerate(crops.scenes):
        windows = []
        for index in np.flatnonzero(crops.windows[:, 0] == number):
            inner = scene.frame.intersection(crops.where(int(index))[1])
            if inner is not None:
                windows.append((int(index), inner))
        if windows:
            yield scene, windows
