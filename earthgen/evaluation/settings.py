"""Settings of an evaluation, and the crops and backends that they select. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earthgen.dataset.crop import CELL
from earthgen.dataset.crop_sampler import GRADES, Crops, open_crops
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.errors import CropError, JobError, UnknownNameError
from earthgen.evaluation.baselines import BASELINES
from earthgen.plugins import Plugins
from geo_io.errors import nearest_name

RULES = "procedural"
"""Name of the rule-based backend."""

SIZE = 64
"""Edge of a crop without weights, columns."""

LEAST_VALID = 0.5
"""Least share of a crop's columns with data. Small places rarely have data everywhere."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and on which crops.

    Attributes
    ----------
    data : Path
        Folder of scenes from `earthgen dataset build`.
    weights : Path | None
        Folder of a set of weights; by default those of the package, if there are any.
    learned : bool
        Whether weights are measured; otherwise only rules and baselines are.
    preset : str | None
        Preset that the weights must have.
    places : tuple[str, ...]
        Names of scenes; empty for all with a held-out part.
    backends : tuple[str, ...]
        Baselines, or geometries of plugins as GEOMETRY or GEOMETRY+TEXTURE; empty for all that can
        be measured.
    crops : int
        Number of crops, spread evenly over the places.
    size : int | None
        Edge of a crop, columns; by default that of the weights' preset, or `SIZE`.
    seed : int
        Key of the choice of crops, and seed of the worlds.
    seeds : int
        Number of seeds that are compared for diversity.
    borders : int
        Number of areas across borders of windows, for each distance of windows; 0 for none.
    grades : tuple[str, ...]
        Licence grades of scenes.
    images : bool
        Whether pictures are compared by the image network.
    steps : int
        Number of sampling steps of StructFM by itself.
    guidance : float
        Guidance of StructFM by itself.
    options : Mapping[str, mapping]
        Options of learned backends, by "geometry" and "texture".
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
                f"weights {self.weights} are given, but no weights are to be measured",
                "leave one of both out",
            )
        if self.crops < 1 or self.seeds < 1 or self.steps < 1 or self.borders < 0:
            raise JobError(
                f"{self.crops} crops, {self.seeds} seeds, {self.steps} steps and {self.borders} "
                "borders are out of range",
                "give positive numbers",
            )
        if self.size is not None and (self.size < 2 * CELL or self.size % CELL):
            raise JobError(
                f"a crop size of {self.size} columns is out of range",
                f"give a multiple of {CELL}, at least {2 * CELL}",
            )


def held_out_crops(settings: Settings, size: int, voxel_size: float | None) -> Crops:
    """Open all held-out crops of the places.

    Parameters
    ----------
    settings : Settings
        The settings.
    size : int
        Edge of a crop, columns.
    voxel_size : float | None
        Voxel size that the dataset must have, metres.

    Raises
    ------
    JobError
        if there is no scene of a place's name
    CropError
        if nothing is held out there
    StoreError, FrameError
        as `open_crops`
    """
    scenes = scenes_in(settings.data)
    existing = {scene.info.name for scene in scenes}
    for name in settings.places:
        if name not in existing:
            raise JobError(
                f"there is no scene {name!r} in {settings.data}{nearest_name(name, existing)}",
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
            f"no crop of {size} columns lies in the held-out areas of {where}{settings.data}",
            "hold places out with `earthgen dataset split`, or use smaller crops with --size",
        ) from error


def choose_crops(crops: Crops, count: int, seed: int) -> list[int]:
    """Choose crops: one of each scene in turn, in a random order within each scene.

    Parameters
    ----------
    crops : Crops
        All crops.
    count : int
        Number of crops to choose.
    seed : int
        Key of the order.

    Returns
    -------
    list[int]
        Sorted numbers of crops.
    """
    random = np.random.default_rng([seed, 0x6576616C])
    queues = [
        random.permutation(np.flatnonzero(crops.windows[:, 0] == n))
        for n in range(len(crops.scenes))
    ]
    numbers: list[int] = []
    for turn in range(max(map(len, queues))):
        numbers += [int(queue[turn]) for queue in queues if turn < len(queue)]
    return sorted(numbers[:count])


def places_by_scene(crops: Crops, numbers: list[int]) -> dict[str, tuple[Scene, list[int]]]:
    """Return each scene with the positions of its crops in `numbers`, by the scene's name."""
    places: dict[str, tuple[Scene, list[int]]] = {}
    for place, number in enumerate(numbers):
        scene = crops.where(number)[0]
        places.setdefault(scene.info.name, (scene, []))[1].append(place)
    return places


def choose_backends(settings: Settings, plugins: Plugins, parts: set[str]) -> list[str]:
    """Return the names of the backends to measure.

    Parameters
    ----------
    settings : Settings
        The settings.
    plugins : Plugins
        Plugins that offer backends.
    parts : set[str]
        Parts of the weights.

    Raises
    ------
    UnknownNameError
        if a name is neither a baseline nor offered by a plugin
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
                    f"unknown {kind} {name!r}{nearest_name(name, every)}",
                    f"give one of {', '.join(sorted(every))}",
                )
    return list(dict.fromkeys(settings.backends))
