"""The crops of a training, each a function of the seed and its number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import CELL, Crop
from earthgen.dataset.crop_sampler import Crops, Placed, open_crops
from earthgen.dataset.crop_weights import COARSE, crop_weights
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.dataset.split import Split, join_splits, read_split
from earthgen.errors import CropError, JobError, TrainingError
from earthgen.models.presets import STYLES, Preset
from earthgen.training.batches import STYLE_OF_KIND
from earthgen.training.randomness import numpy_generator
from geo_io.legend import classes, codes

ATTEMPTS = 16
"""Crops without voxels that are skipped in a row."""

ADDED_CLASSES = ("tree", "broadleaf_forest", "mixed_forest", "residential", "commercial")
"""Classes that maps give to what surveys call trees and ground (`earthgen.training.map_noise`)."""

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

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the styles of the scenes that are trained on, in the order of `STYLES`."""
        scenes = self.train.scenes
        found = {STYLE_OF_KIND[scenes[index].info.kind] for index in set(self.train.windows[:, 0])}
        return tuple(name for name in STYLES if name in found)

    def crop(self, seed: int, number: int) -> Crop:
        """Return the crop of a number.

        Raises
        ------
        TrainingError
            If several crops in a row have no voxels.
        """
        for attempt in range(ATTEMPTS):
            crops, index = self._draw(seed, number, attempt)
            crop = crops[index]
            if len(crop):
                return crop
        raise TrainingError(
            f"{ATTEMPTS} crops in a row have no voxels",
            "look at the scenes: `earthgen dataset inspect`",
        )

    def place(self, seed: int, number: int) -> Placed:
        """Return where the crop of a number lies if its first window has voxels; reads nothing."""
        crops, index = self._draw(seed, number, 0)
        return crops.place(index)

    def _draw(self, seed: int, number: int, attempt: int) -> tuple[Crops, int]:
        random = numpy_generator(seed, "crop", number, attempt)
        index = int(
            np.searchsorted(self.cumulative, random.random() * self.cumulative[-1], side="right")
        )
        # The epoch seeds the shift and the rotation of a window: a new one for each draw.
        epoch = int(random.integers(2**31))
        return self.train.at_epoch(epoch), min(index, len(self.train) - 1)


def crop_cell(preset: Preset) -> int:
    """Return the voxels at whose multiples crops begin and end, so that all lattices fit.

    These are the cells of the latent, patches of them, and the halvings of the flow on heights.
    """
    coarse, heights = preset.struct_coarse, preset.height_flow
    return math.lcm(CELL, coarse.stride * coarse.patch, 2 ** (len(heights.channels) - 1))


def open_data(
    folder: Path | str | Sequence[Path | str],
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
    coarse_weight: float = COARSE,
    simulated: float | None = None,
) -> TrainingData:
    """Return the crops of one or more datasets for a preset.

    How often the crops of a scene are drawn is in `earthgen.dataset.crop_weights`.

    Parameters
    ----------
    folder : Path or str, or several
        The datasets. A place that one holds out is held out of all.
    preset : Preset
        Gives voxel size, band and, unless `columns` does, the edge of a crop.
    columns, overlap, grades, names, held_out, seed
        As of `earthgen.training.settings.TrainingSettings`; `names` are its `scenes`.
    coloured : bool
        Whether to take only crops with known colour, for texture.
    scenes : sequence of Scene, optional
        The scenes of the folder, if they are loaded already (`load_scenes`).
    coarse_weight, simulated
        As of `earthgen.dataset.crop_weights.crop_weights`.

    Raises
    ------
    StoreError, FrameError
        If there is no scene of these grades and names, or one has another voxel size.
    JobError
        If `columns` does not fit the cells of the preset.
    TrainingError
        If no crop fits into the scenes, or as of `load_scenes`.
    """
    folders = folders_of(folder)
    folder = " and ".join(map(str, folders))
    every = load_scenes(folders, grades, names) if scenes is None else scenes
    split = read_splits(folders)
    size = columns or preset.columns
    options: dict[str, Any] = {
        "size": size,
        "grades": tuple(grades),
        "names": tuple(names) or None,
        "band": preset.band,
        "voxel_size": preset.voxel_size,
        "least_coloured": COLOURED if coloured else 0.0,
        "seed": seed,
        "split": split,
        "cell": crop_cell(preset),
    }
    if size % crop_cell(preset):
        raise JobError(
            f"setting 'columns': {size} is not a multiple of {crop_cell(preset)}, the cells of "
            f"preset {preset.name}",
            f"give one, such as {-(-size // crop_cell(preset)) * crop_cell(preset)}",
        )
    what = "coloured crop" if coloured else "crop"
    try:
        train = open_crops(
            every,
            part="train",
            overlap=overlap,
            jitter=True,
            augment=True,
            turn_real=not coloured,
            **options,
        )
    except CropError as error:
        if coloured and not any(bool(each.layer("image_known").any()) for each in every):
            raise TrainingError(
                f"no scene of {folder} has colours, which texture is trained on",
                "add scenes with an image or coloured points, or simulated ones "
                "(`earthgen dataset simulate`), or train structure and heights part by part",
            ) from error
        raise TrainingError(
            f"{folder} has no {what} of {size} x {size} voxels to train on",
            "add scenes, hold out less, or take smaller crops with --columns",
        ) from error
    try:
        measured = _spread_evenly(open_crops(every, part="held_out", **options), held_out)
    except CropError:
        measured = ()
    weights = crop_weights(
        train,
        coarse=coarse_weight,
        of="colours" if coloured else "heights",
        simulated=simulated,
    )
    cumulative = np.cumsum(weights)
    if not cumulative[-1] > 0:
        raise TrainingError(
            f"the sources of all scenes of {folder} are coarser than the voxels of "
            f"{preset.voxel_size:g} m",
            "give the part a coarse_weight above 0, or add scenes from finer sources",
        )
    used = [train.scenes[number] for number in np.unique(train.windows[weights > 0, 0])]
    sources = tuple(
        {
            "name": each.info.place or each.info.name,
            "source": each.info.source,
            "licence": each.info.licence,
        }
        for each in used
    )
    return TrainingData(train, cumulative, measured, dataset_digest(every, split), sources)


def require_conditions(scenes: Sequence[Scene], folder: str) -> None:
    """Check that scenes have land cover, and numbers for their buildings.

    Raises
    ------
    TrainingError
        If no scene has land cover, or buildings stand in some and none has a number.
    """
    covered = built = False
    for scene in scenes:
        cover = scene.layer("cover")
        covered = covered or bool(cover.any())
        built = built or bool((cover == codes()["building"]).any())
        if built and bool(scene.layer("building").any()):
            return
    if not covered:
        raise TrainingError(
            f"no scene of {folder} has land cover, which all parts are conditioned on",
            "build the scenes with `cover`, classified points or an image, as "
            "docs/guides/datasets.md shows",
        )
    if built:
        raise TrainingError(
            f"no building of {folder} has a number, by which heights and colours are told",
            "build the scenes again with this version",
        )


def folders_of(data: Path | str | Sequence[Path | str]) -> tuple[Path, ...]:
    """Return the folders of one or more datasets."""
    return (Path(data),) if isinstance(data, str | Path) else tuple(map(Path, data))


def read_splits(folders: Sequence[Path]) -> Split:
    """Return the split of several datasets."""
    return join_splits([read_split(folder, scenes_in(folder)) for folder in folders])


def classes_in_crops(data: TrainingData, coloured: bool, crops: int = CLASSES_CROPS) -> list[str]:
    """Return the names of the land classes that occur in the training, in known colour if asked.

    A class counts from 1 in 2,000 columns of `crops` crops on, or from as many voxels if it is
    seen from the side alone. Structure is also trained on classes of maps, and on those that
    `earthgen.training.map_noise` adds.
    """
    columns, voxels, maps = np.zeros(256), np.zeros(256), np.zeros(256)
    for number in range(crops):
        crop = data.crop(0, number)
        shown = crop.valid & crop.image_known if coloured else crop.valid
        columns += np.bincount(crop.cover[shown], minlength=256)
        semantic = crop.semantic[crop.rgb_known] if coloured else crop.semantic
        voxels += np.bincount(semantic, minlength=256)
        if not coloured:
            maps += np.bincount(crop.map[shown], minlength=256)
    share = np.max([each / max(each.sum(), 1) for each in (columns, voxels, maps)], axis=0)
    added = () if coloured else ADDED_CLASSES
    return [
        land.name for land in classes() if share[land.code] >= LEAST_SHARE or land.name in added
    ]


def load_scenes(
    data: Path | str | Sequence[Path | str],
    grades: Sequence[str] = ("A", "B"),
    names: Sequence[str] = (),
) -> list[Scene]:
    """Return the scenes of one or more datasets, those to train on in memory.

    Raises
    ------
    StoreError
        If the folder has no scene.
    TrainingError
        If the scenes lack what all parts are conditioned on.
    """
    folders = folders_of(data)
    scenes = [
        scene.loaded()
        if scene.info.grade in grades and (not names or scene.info.name in names)
        else scene
        for folder in folders
        for scene in scenes_in(folder)
    ]
    require_conditions(scenes, " and ".join(map(str, folders)))
    return scenes


def dataset_digest(scenes: Sequence[Scene], split: Split) -> str:
    """Return the SHA-256 of the scenes' descriptions, with their inputs' digests, and the split."""
    values = [scene.info.to_dict() for scene in scenes]
    for value in values:
        value["quality"] = {}  # figures such as seconds, which are no content
    text = json.dumps([values, split.to_dict()], sort_keys=True, default=str)
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
