"""What a learned backend has to beat besides `procedural`: the nearest training tile, and
classes at mean height."""

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

NEAREST, MEAN_HEIGHT = "nearest-tile", "mean-height"

BASELINES = {
    NEAREST: "the training crop, of all turned and mirrored, whose land cover agrees with most columns",
    MEAN_HEIGHT: "each column as high, and coloured, as the mean of its class in the training crops",
}
"""What each is."""


@dataclass(frozen=True)
class MeanHeights:
    """Mean height, metres, and mean colour of each class code of the training crops.

    height : (256,) float32; colour : (256, 3) uint8, that of the legend where no colour of a class
        is known
    """

    height: NDArray
    colour: NDArray

    def patch(self, crop: Crop) -> Patch:
        """The columns of a crop's land cover at their mean heights, on its ground."""
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
        bare = Patch(crop.frame, crop.ground, xyz[order], semantic, None, crop.valid)
        return replace(bare, splats=plain_splats(bare, rgb))


def mean_heights(training: Crops) -> MeanHeights:
    """Of all columns of the training crops; where crops overlap, columns count once for each."""
    count, total = np.zeros(CODES), np.zeros(CODES)
    seen, colour = np.zeros(CODES), np.zeros((CODES, 3))
    for scene, windows in windows_by_scene(training):
        # Layers are read whole: window by window each of their chunks would be unpacked many times.
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

    covers : (m, size, size) uint8, of the training crops; 0 where they have no data
    """

    training: Crops
    covers: NDArray

    def find(self, crop: Crop) -> tuple[int, int, bool, float]:
        """(number, quarter turns, mirrored, share of the crop's columns that agree): the first
        of the best."""
        wanted, valid = crop.cover, crop.valid & (crop.cover != 0)
        best = (0, 0, False, -1.0)
        for flip in (False, True):
            for turns in range(4):
                # Turning the wanted cover back is the same as turning all the others, and quicker.
                back, mask = (np.rot90(values, -turns) for values in (wanted, valid))
                back, mask = (values[:, ::-1] if flip else values for values in (back, mask))
                agree = ((self.covers == back) & mask).sum(axis=(1, 2)) / max(int(valid.sum()), 1)
                number = int(agree.argmax())
                if agree[number] > best[3]:
                    best = (number, turns, flip, float(agree[number]))
        return best

    def patch(self, crop: Crop) -> Patch:
        """The nearest training crop in the place of a crop, on its ground."""
        number, turns, flip, _ = self.find(crop)
        found = transform_crop(self.training[number], turns, flip)
        move = np.array(
            [crop.frame.x[0] - found.frame.x[0], crop.frame.y[0] - found.frame.y[0], 0], np.int32
        )
        keep = (found.xyz[:, 2] >= crop.frame.z[0]) & (found.xyz[:, 2] < crop.frame.z[1])
        there = replace(
            found,
            frame=crop.frame,
            xyz=found.xyz[keep] + move,
            semantic=found.semantic[keep],
            rgb=found.rgb[keep],
            rgb_known=found.rgb_known[keep],
            normal=found.normal[keep],
            ground=crop.ground,
            valid=crop.valid,
        )
        return patch_of_crop(there)


def nearest_tile(training: Crops) -> NearestTile:
    """The finder over all training crops; their land cover is kept in memory, a byte a column."""
    covers = np.zeros((len(training), training.size, training.size), np.uint8)
    for scene, windows in windows_by_scene(training):
        cover = np.where(scene.layer("valid"), scene.layer("cover"), 0)
        for index, inner in windows:
            window = training.where(index)[1]
            covers[index][window.slices(inner)] = cover[scene.frame.slices(inner)]
    return NearestTile(training, covers)


def windows_by_scene(crops: Crops) -> Iterator[tuple[Scene, list[tuple[int, Frame]]]]:
    """Each scene with the numbers of its crops, and the part of each that lies in the scene."""
    for number, scene in enumerate(crops.scenes):
        found = []
        for index in np.flatnonzero(crops.windows[:, 0] == number):
            inner = scene.frame.intersection(crops.where(int(index))[1])
            if inner is not None:
                found.append((int(index), inner))
        if found:
            yield scene, found
