"""What an evaluation can be told, and what it is done on; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earthgen import plugins as plugin_module
from earthgen.dataset.crop import CELL
from earthgen.dataset.crop_sampler import GRADES, Crops, open_crops
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.errors import CropError, JobError, UnknownNameError
from earthgen.evaluation.baselines import BASELINES
from geo_io.errors import nearest_name

RULES = "procedural"

SIZE = 64
"""Columns along an edge of a crop where no weights say otherwise."""

LEAST_VALID = 0.5
"""Share of a crop's columns that have data: small places are rarely full."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and on what.

    Attributes
    ----------
    data : a folder of scenes, of `earthgen dataset build`
    weights : a set of weights; None takes those that the package comes with, where it does
    learned : whether weights are measured; without, rules and baselines alone
    preset : that the weights have to be of; None takes what they are
    places : names of scenes; empty takes all that have something held out
    backends : baselines, or geometries of plugins as GEOMETRY or GEOMETRY+TEXTURE; empty takes all
        that can be measured
    crops : how many, spread evenly over the places
    size : columns along an edge of a crop; None takes the preset's, or SIZE
    seed : of the choice of crops, and of the worlds; `seeds` of them are compared for diversity
    borders : places across borders of windows that are looked at, for each distance of windows; 0
        for none
    grades : licence grades of scenes
    images : whether pictures are compared by the image network
    steps, guidance : of sampling StructFM by itself
    options : of learned backends, by "geometry" and "texture"
    """

    data: Path
    weights: Path | None = None
    learned: bool = True
    preset: str | None = None
    places: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    crops: int = 64
    size: int | None = None
    seed: int = 0
    seeds: int = 3
    borders: int = 32
    grades: tuple[str, ...] = GRADES
    images: bool = True
    steps: int = 25
    guidance: float = 1.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weights is not None and not self.learned:
            raise JobError(
                f"weights {self.weights} are given, and no weights are to be measured",
                "leave one of both out",
            )
        if self.crops < 1 or self.seeds < 1 or self.steps < 1 or self.borders < 0:
            raise JobError(
                f"{self.crops} crops, {self.seeds} seeds and {self.steps} steps measure nothing",
                "give positive numbers",
            )
        if self.size is not None and (self.size < 2 * CELL or self.size % CELL):
            raise JobError(
                f"crops of {self.size} columns are none",
                f"give a multiple of {CELL}, at least {2 * CELL}",
            )


def held_out(settings: Settings, size: int, voxel_size: float | None) -> Crops:
    """All crops of what is held out of the places.

    voxel_size : that the dataset must have, metres; None takes what it has

    Raises
    ------
    JobError
        if there is no scene of a place's name
    CropError
        if nothing is held out there
    StoreError, FrameError
        as of `open_crops`
    """
    scenes = scenes_in(settings.data)
    known = {scene.info.name for scene in scenes}
    for name in settings.places:
        if name not in known:
            raise JobError(
                f"there is no scene {name!r} in {settings.data}{nearest_name(name, known)}",
                "`earthgen dataset inspect` lists them",
            )
    try:
        return open_crops(
            settings.data,
            size=size,
            part="held_out",
            names=settings.places or None,
            grades=settings.grades,
            voxel_size=voxel_size,
            least_valid=LEAST_VALID,
        )
    except CropError as error:
        where = f"{', '.join(settings.places)} of " if settings.places else ""
        raise CropError(
            f"no crop of {size} columns lies in what is held out of {where}{settings.data}",
            "hold places out with `earthgen dataset split`, or take smaller crops with --size",
        ) from error


def chosen(crops: Crops, count: int, seed: int) -> list[int]:
    """Numbers of `count` crops: one of each scene in turn, in an order drawn from the seed
    within each; sorted."""
    random = np.random.default_rng([seed, 0x6576616C])
    queues = [
        random.permutation(np.flatnonzero(crops.windows[:, 0] == n))
        for n in range(len(crops.scenes))
    ]
    found: list[int] = []
    for turn in range(max(map(len, queues))):
        found += [int(queue[turn]) for queue in queues if turn < len(queue)]
    return sorted(found[:count])


def by_scene(crops: Crops, numbers: list[int]) -> dict[str, tuple[Scene, list[int]]]:
    """Scene, and places in `numbers`, by the scene's name."""
    found: dict[str, tuple[Scene, list[int]]] = {}
    for place, number in enumerate(numbers):
        scene = crops.where(number)[0]
        found.setdefault(scene.info.name, (scene, []))[1].append(place)
    return found


def backends_of(settings: Settings, plugins: plugin_module.Plugins, parts: set[str]) -> list[str]:
    """The backends to measure, checked.

    parts : of the weights

    Raises UnknownNameError for one that is neither a baseline nor offered by a plugin.
    """
    offers = {kind: plugins.offers(kind) for kind in ("geometry", "texture")}
    if not settings.backends:
        learned = []
        if "height-flow" in offers["geometry"] and "height-flow" in parts:
            learned.append("height-flow")
        if (
            "latent" in offers["geometry"]
            and {"struct-vae", "struct-coarse", "struct-fine"} <= parts
        ):
            textured = "latent" in offers["texture"] and {"tex-vae", "tex-flow"} <= parts
            learned.append("latent" if textured else f"latent+{RULES}")
        return [*learned, RULES, *BASELINES]
    for spec in settings.backends:
        geometry, _, texture = spec.partition("+")
        for kind, name in (("geometry", geometry), ("texture", texture)):
            if (
                name
                and name not in offers[kind]
                and not (kind == "geometry" and name in BASELINES and not texture)
            ):
                every = {*offers[kind], *(BASELINES if kind == "geometry" else ())}
                raise UnknownNameError(
                    f"there is no {kind} {name!r} to measure{nearest_name(name, every)}",
                    f"there are {', '.join(sorted(every))}",
                )
    return list(dict.fromkeys(settings.backends))
