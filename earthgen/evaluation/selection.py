"""The crops and backends that an evaluation's settings select. Loads no torch."""

from __future__ import annotations

import numpy as np

from earthgen.dataset.crop_sampler import Crops, open_crops
from earthgen.dataset.scene import Scene, scenes_in
from earthgen.errors import CropError, JobError, UnknownNameError
from earthgen.evaluation.baselines import BASELINES
from earthgen.evaluation.settings import Settings
from earthgen.models.weights.card import WeightSet
from earthgen.plugins import Plugins
from geo_io.errors import nearest_name

RULES = "procedural"
"""Name of the rule-based backend."""

SIZE = 64
"""Edge of a crop without weights, columns."""

LEAST_VALID = 0.5
"""Least share of a crop's columns with data. Small places rarely have data everywhere."""


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


def complete_parts(weights: WeightSet | None) -> set[str]:
    """Return the parts of a set, and "tex-vae" if its flow of texture needs none."""
    if weights is None:
        return set()
    flow = weights.parts.get("tex-flow")
    alone = flow is not None and flow.config.get("target") == "rgb"
    return set(weights.parts) | ({"tex-vae"} if alone else set())


def choose_backends(settings: Settings, plugins: Plugins, parts: set[str]) -> list[str]:
    """Return the names of the backends to measure.

    Parameters
    ----------
    settings : Settings
        The settings.
    plugins : Plugins
        Plugins that offer backends.
    parts : set[str]
        Parts of the weights, as of `complete_parts`.

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
