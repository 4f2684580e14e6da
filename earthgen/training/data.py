"""The crops of a training: by number, a function of the seed, so that a continued run sees the
same ones."""

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
"""Crops without voxels that are passed over in a row."""

CLASSES_CROPS = 256
LEAST_SHARE = 5e-4

COLOURED = 0.5
"""Share of a crop's columns whose colour has to be known where texture is learned."""


@dataclass(frozen=True)
class Data:
    """What a part is trained and measured on.

    Attributes
    ----------
    train : crops that are drawn from
    chances : (m,) float64, running sums of the windows' odds
    held : crops that are measured, from places that are not trained on; empty where the dataset
        holds none out
    digest : of the scenes and their split
    sources : name, source and licence of each scene that is trained on
    """

    train: Crops
    chances: NDArray
    held: tuple[Crop, ...]
    digest: str
    sources: tuple[dict[str, str], ...]

    def crop(self, seed: int, drawn: int) -> Crop:
        """The crop of a number. Raises TrainingError where crop after crop has no voxels."""
        for attempt in range(ATTEMPTS):
            random = numpy_generator(seed, "crop", drawn, attempt)
            index = int(
                np.searchsorted(self.chances, random.random() * self.chances[-1], side="right")
            )
            # The epoch seeds the shift and the turn of a window: a new one for each draw.
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
) -> Data:
    """The crops of a dataset for a preset.

    coloured : only crops of which the colour is known, for texture
    scenes : those of the folder, as `load_scenes` gives them, if they are at hand

    A scene's odds are the root of the number of its windows: large scenes are seen more often, and
    do not drown the small ones.

    Raises
    ------
    StoreError, FrameError
        where there is no scene of these grades and names, or one has not the preset's voxel size
    TrainingError
        where no crop of the preset's size can be had
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
        aside = open_crops(every, part="held_out", **options)
    except CropError:
        held: tuple[Crop, ...] = ()
    else:
        held = _spread(aside, held_out)
    scene = train.windows[:, 0]
    count = np.bincount(scene, minlength=len(train.scenes))
    chances = np.cumsum(1 / np.sqrt(count[scene]))
    used = [train.scenes[number] for number in np.unique(scene)]
    sources = tuple(
        {
            "name": each.info.place or each.info.name,
            "source": each.info.source,
            "licence": each.info.licence,
        }
        for each in used
    )
    return Data(train, chances, held, digest(every, folder), sources)


def seen_classes(data: Data, coloured: bool, crops: int = CLASSES_CROPS) -> list[str]:
    """Names of the land classes that the training shows, in known colour where texture is learned.

    A class counts from 1 in 2,000 columns of `crops` crops, or of voxels where it is seen from the
    side alone.
    """
    columns, voxels = np.zeros(256), np.zeros(256)
    for drawn in range(crops):
        crop = data.crop(0, drawn)
        shown = crop.valid & crop.image_known if coloured else crop.valid
        columns += np.bincount(crop.cover[shown], minlength=256)
        known = crop.semantic[crop.rgb_known] if coloured else crop.semantic
        voxels += np.bincount(known, minlength=256)
    share = np.maximum(columns / max(columns.sum(), 1), voxels / max(voxels.sum(), 1))
    return [land.name for land in classes() if share[land.code] >= LEAST_SHARE]


def load_scenes(
    folder: Path | str, grades: Sequence[str] = ("A", "B"), names: Sequence[str] = ()
) -> list[Scene]:
    """The scenes of a dataset, those that are trained on in memory. Raises StoreError where
    there is none."""
    return [
        scene.loaded()
        if scene.info.grade in grades and (not names or scene.info.name in names)
        else scene
        for scene in scenes_in(folder)
    ]


def digest(scenes: Sequence[Scene], folder: Path | str) -> str:
    """SHA-256 of what the scenes say of themselves, their inputs' digests among it, and of the
    split."""
    values = [scene.info.to_dict() for scene in scenes]
    for value in values:
        value["quality"] = {}  # figures such as seconds, which are no content
    text = json.dumps([values, read_split(folder, scenes).to_dict()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _spread(crops: Crops, count: int) -> tuple[Crop, ...]:
    """Crops from all scenes in turn, and spread over each."""
    scene = crops.windows[:, 0]
    rows = [np.flatnonzero(scene == number) for number in np.unique(scene)]
    found: list[Crop] = []
    for turn in range(count):
        if len(found) >= min(count, len(crops)):
            break
        mine = rows[turn % len(rows)]
        nth, of = turn // len(rows), -(-count // len(rows))
        # The middles of equal stretches: neither always the corner, nor twice the same.
        index = int(mine[min(int((nth + 0.5) / of * len(mine)), len(mine) - 1)])
        crop = crops[index]
        if len(crop):
            found.append(crop)
    return tuple(found)
