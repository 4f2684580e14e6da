"""The data that all candidates of an evaluation are measured on: crops, truth, maps, places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.dataset.crop import Crop
from earthgen.dataset.crop_sampler import Crops, open_crops
from earthgen.errors import CropError
from earthgen.evaluation import reconstruction
from earthgen.evaluation.baselines import (
    BASELINES,
    MEAN_HEIGHT,
    NEAREST,
    MeanHeights,
    NearestTile,
    mean_heights,
    nearest_tile,
)
from earthgen.evaluation.distances import FRECHET_SAMPLES
from earthgen.evaluation.maps import scene_map
from earthgen.evaluation.objects import ObjectSums
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.realism import Features
from earthgen.evaluation.selection import places_by_scene
from earthgen.evaluation.settings import Settings
from earthgen.evaluation.worlds import FlowSampling, SceneCover, choose
from earthgen.models import image_features
from earthgen.models.weights.card import WeightSet
from earthgen.plugins import Plugins
from earthgen.progress import Progress
from earthgen.training.devices import single_process

DIVERSE = 8
"""Number of crops whose worlds are made with several seeds."""

QUICK_SURFACE = 64
"""Stride of windows of voxels of a quick evaluation, about the size of a crop."""

LATENT = "latent"
"""The geometry backend of the paper's chain."""


@dataclass
class Bench:
    """The data that all backends are measured on.

    `groups` has the number of the place of each crop, by which intervals are made; `maps` the land
    cover of each scene as a map has it; `common` the options of all learned backends.
    """

    settings: Settings
    plugins: Plugins
    progress: Progress
    every: Crops
    numbers: list[int]
    crops: list[Crop]
    truths: list[Patch]
    coloured: list[bool]
    diverse: list[int]
    places: dict[str, Any]
    groups: list[int]
    maps: dict[str, NDArray]
    common: dict[str, Any]
    notes: list[str]
    true_features: list[Features] = field(default_factory=list)
    true_objects: list[ObjectSums] = field(default_factory=list)

    def known(self, place: int) -> NDArray | None:
        """Return the columns of a crop with known colour, None for a crop without colours."""
        return self.crops[place].image_known if self.coloured[place] else None

    def as_mapped(self, place: int) -> Crop:
        """Return a crop with the land cover of a map instead of its own."""
        crop = self.crops[place]
        scene = self.every.where(self.numbers[place])[0]
        layer = SceneCover(scene.frame, self.maps[scene.info.name])
        return replace(crop, cover=layer.read(crop.frame).cover)


def common_options(settings: Settings) -> dict[str, Any]:
    """Return the options that all learned backends get, if they take them."""
    # Smaller windows of voxels around each crop do not change a world.
    options: dict[str, Any] = {"surface": QUICK_SURFACE} if settings.quick else {}
    device = str(single_process(settings.device).device)
    if device != "cpu":
        options["device"] = device
    if settings.steps is not None:
        options["steps"] = settings.steps
    if settings.guidance is not None:
        options["guidance"] = settings.guidance
    return options


def flow_sampling(bench: Bench, weights: WeightSet | None) -> FlowSampling | None:
    """Return how the backend `latent` samples, by which StructFM is sampled alone; None if the
    weights have no StructFM or nothing offers the backend."""
    needed = weights is not None and set(weights.parts) >= reconstruction.FLOW_PARTS
    if not needed or not bench.settings.reconstruction:
        return None
    if LATENT not in bench.plugins.offers("geometry"):
        bench.notes.append(f"StructFM is not measured: no plugin offers geometry {LATENT!r}")
        return None
    choice = choose(
        LATENT,
        bench.plugins,
        bench.settings.weights,
        bench.settings.options,
        # Heights are a network of their own, which this does not need.
        {**bench.common, "height_map": False},
    )
    backend = bench.plugins.create("geometry", LATENT, **choice.options["geometry"])
    return getattr(backend, "sampling", None)


def make_bench(
    settings: Settings,
    plugins: Plugins,
    progress: Progress,
    every: Crops,
    numbers: list[int],
    common: dict[str, Any],
) -> Bench:
    crops = [every[number] for number in numbers]
    truths = [patch_of_crop(crop) for crop in crops]
    coloured = [
        bool(crop.image_known[crop.valid].mean() >= reconstruction.LEAST_COLOURED) for crop in crops
    ]
    places = places_by_scene(every, numbers)
    diverse = []  # the first of each place, then the second, so that few windows are needed
    for turn in range(max(len(each) for _, each in places.values())):
        diverse += [each[turn] for _, each in places.values() if turn < len(each)]
    notes = []
    if len(crops) < settings.crops:
        notes.append(
            f"only {len(crops)} of the {settings.crops} crops of the settings are held out"
        )
    groups, note = _groups(len(crops), places)
    notes += note
    if len(crops) < FRECHET_SAMPLES * image_features.FEATURES:
        notes.append(
            f"Fréchet distances need {FRECHET_SAMPLES} crops for each feature; with {len(crops)} "
            "crops the kernel distance alone is given, because it has no bias"
        )
    maps = {
        name: scene_map(scene, settings.seed) if settings.maps else np.zeros(0)
        for name, (scene, _) in places.items()
    }
    return Bench(
        settings,
        plugins,
        progress,
        every,
        numbers,
        crops,
        truths,
        coloured,
        diverse[: min(DIVERSE, len(places))],
        places,
        groups,
        maps,
        common,
        notes,
    )


def _groups(count: int, places: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """Return the number of the place of each crop, and a note if intervals are over crops.

    Scenes of one place, such as tiles of a survey or several seeds of a town, are one.
    """
    names = sorted({scene.info.place for scene, _ in places.values()})
    if len(names) < 2:
        return list(range(count)), [
            "all crops are of one place: intervals are over crops, and say nothing of other places"
        ]
    groups = [0] * count
    for scene, positions in places.values():
        for position in positions:
            groups[position] = names.index(scene.info.place)
    return groups, []


def baselines(bench: Bench, names: Sequence[str]) -> dict[str, Callable[[Crop], Patch]]:
    """Return what makes the patches of the named baselines.

    If there are no training crops, none is returned and a note added, unless the settings name a
    baseline.

    Raises
    ------
    CropError
        if the settings name a baseline, and there are no training crops
    """
    wanted = [name for name in names if name in BASELINES]
    if not wanted:
        return {}
    settings, first = bench.settings, bench.crops[0].frame
    try:
        training = open_crops(
            settings.data,
            size=first.nx,
            part="train",
            grades=settings.grades,
            voxel_size=first.voxel_size,
            band=bench.every.band,
        )
    except CropError:
        if set(settings.backends) & set(BASELINES):
            raise
        bench.notes.append("there are no training crops: no baselines")
        return {}
    makers: dict[str, Callable[[Crops], MeanHeights | NearestTile]] = {
        NEAREST: nearest_tile,
        MEAN_HEIGHT: mean_heights,
    }
    return {name: makers[name](training).patch for name in wanted}
