"""The crops of a training, each a function of the seed and its number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.dataset.crop_sampler import Crops, open_crops
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.dataset.split import read_split
from earthgen.errors import CropError, TrainingError
from earthgen.models.presets import Preset
from earthgen.training.randomness import numpy_generator
from geo_io.legend import classes

ATTEMPTS = 16
"""Crops without voxels that are skipped in a row."""

CLASSES_CROPS = 256
LEAST_SHARE = 5e-4

COLOURED = 0.5
"""Share of a crop's columns whose colour has to be known, for training texture."""


@dataclass(frozen=True)
class TrainingData:
    """The crops that a part is trained and measured on.

    Attributes
    ----------
    train : Crops
        Crops to draw from.
    cumulative : NDArray (m,) float64
        Cumulative weights of the m windows of `train`.
    held_out : tuple of Crop
        Crops to measure, from places that are not trained on; empty if the dataset holds none out.
    digest : str
        SHA-256 of the scenes and their split.
    sources : tuple of dict
        Name, source and licence of each scene that is trained on.
    """

    train: Crops
    cumulative: NDArray
    held_out: tuple[Crop, ...]
    digest: str
    sources: tuple[dict[str, str], ...]

    def crop(self, seed: int, number: int) -> Crop:
        """Return the crop of a number.

        Raises
        ------
        TrainingError
            If several crops in a row have no voxels.
        """
        for attempt in range(ATTEMPTS):
            random = numpy_generator(seed, "crop", number, attempt)
            index = int(
                np.searchsorted(
                    self.cumulative, random.random() * self.cumulative[-1], side="right"
                )
            )
            # The epoch seeds the shift and the rotation of a window: a new one for each draw.
            epoch = int(random.integers(2**31))
            crop = self.train.at_epoch(epoch)[min(index, len(self.train) - 1)]
            if len(crop):
                return crop
        raise TrainingError(
            f"{ATTEMPTS} crops in a row have no voxels",
            "look at the scenes: `earthgen dataset inspect`",
        )


def open_data(
    folder: Path | str,
    preset: Preset,
    *,
    columns: int | None = None,
    overlap: float = 0.5,
    grades: Sequence[str] = ("A", "B"),
    names: Sequence[str] = (),
    held_out: int = 6,
    coloured: bool = False,
    seed: int = 0,
    scenes: Sequence[Scene] | None = None,
) -> TrainingData:
    """Return the crops of a dataset for a preset.

    The weight of a scene is the square root of the number of its windows: large scenes are drawn
    more often, and do not drown the small ones.

    Parameters
    ----------
    folder : Path or str
        The dataset.
    preset : Preset
        Gives voxel size, band and, unless `columns` does, the edge of a crop.
    columns, overlap, grades, names, held_out, seed
        As of `earthgen.training.settings.TrainingSettings`; `names` are its `scenes`.
    coloured : bool
        Whether to take only crops with known colour, for texture.
    scenes : sequence of Scene, optional
        The scenes of the folder, if they are loaded already (`load_scenes`).

    Raises
    ------
    StoreError, FrameError
        If there is no scene of these grades and names, or one has another voxel size.
    TrainingError
        If no crop fits into the scenes.
    """
    every = load_scenes(folder, grades, names) if scenes is None else scenes
    size = columns or preset.columns
    options: dict[str, Any] = {
        "size": size,
        "grades": tuple(grades),
        "names": tuple(names) or None,
        "band": preset.band,
        "voxel_size": preset.voxel_size,
        "least_coloured": COLOURED if coloured else 0.0,
        "seed": seed,
        "split": read_split(folder, every),
    }
    what = "coloured crop" if coloured else "crop"
    try:
        train = open_crops(
            every, part="train", overlap=overlap, jitter=True, augment=True, **options
        )
    except CropError as error:
        raise TrainingError(
            f"{folder} has no {what} of {size} x {size} voxels to train on",
            "add scenes, hold out less, or take smaller crops with --columns",
        ) from error
    try:
        measured = _spread_evenly(open_crops(every, part="held_out", **options), held_out)
    except CropError:
        measured = ()
    scene = train.windows[:, 0]
    count = np.bincount(scene, minlength=len(train.scenes))
    cumulative = np.cumsum(1 / np.sqrt(count[scene]))
    used = [train.scenes[number] for number in np.unique(scene)]
    sources = tuple(
        {
            "name": each.info.place or each.info.name,
            "source": each.info.source,
            "licence": each.info.licence,
        }
        for each in used
    )
    return TrainingData(train, cumulative, measured, dataset_digest(every, folder), sources)


def classes_in_crops(data: TrainingData, coloured: bool, crops: int = CLASSES_CROPS) -> list[str]:
    """Return the names of the land classes that occur in the training, in known colour if asked.

    A class counts from 1 in 2,000 columns of `crops` crops on, or from as many voxels if it is
    seen from the side alone.
    """
    columns, voxels = np.zeros(256), np.zeros(256)
    for number in range(crops):
        crop = data.crop(0, number)
        shown = crop.valid & crop.image_known if coloured else crop.valid
        columns += np.bincount(crop.cover[shown], minlength=256)
        semantic = crop.semantic[crop.rgb_known] if coloured else crop.semantic
        voxels += np.bincount(semantic, minlength=256)
    share = np.maximum(columns / max(columns.sum(), 1), voxels / max(voxels.sum(), 1))
    return [land.name for land in classes() if share[land.code] >= LEAST_SHARE]


def load_scenes(
    folder: Path | str, grades: Sequence[str] = ("A", "B"), names: Sequence[str] = ()
) -> list[Scene]:
    """Return the scenes of a dataset, those to train on in memory.

    Raises
    ------
    StoreError
        If the folder has no scene.
    """
    return [
        scene.loaded()
        if scene.info.grade in grades and (not names or scene.info.name in names)
        else scene
        for scene in scenes_in(folder)
    ]


def dataset_digest(scenes: Sequence[Scene], folder: Path | str) -> str:
    """Return the SHA-256 of the scenes' descriptions, with their inputs' digests, and the split."""
    values = [scene.info.to_dict() for scene in scenes]
    for value in values:
        value["quality"] = {}  # figures such as seconds, which are no content
    text = json.dumps([values, read_split(folder, scenes).to_dict()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _spread_evenly(crops: Crops, count: int) -> tuple[Crop, ...]:
    """Return crops from all scenes in turn, spread over each of them."""
    scene = crops.windows[:, 0]
    rows = [np.flatnonzero(scene == number) for number in np.unique(scene)]
    result: list[Crop] = []
    for turn in range(count):
        if len(result) >= min(count, len(crops)):
            break
        windows = rows[turn % len(rows)]
        nth, of = turn // len(rows), -(-count // len(rows))
        # The middles of equal stretches: neither always the corner, nor twice the same.
        index = int(windows[min(int((nth + 0.5) / of * len(windows)), len(windows) - 1)])
        crop = crops[index]
        if len(crop):
            result.append(crop)
    return tuple(result)
