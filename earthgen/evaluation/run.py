"""Measure backends and weights on the held-out crops of a dataset.

docs/guides/evaluation.md explains the figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from earthgen._version import __version__
from earthgen.dataset.crop import Crop
from earthgen.dataset.crop_sampler import Crops, open_crops
from earthgen.dataset.split import read_split
from earthgen.errors import CropError
from earthgen.evaluation import reconstruction
from earthgen.evaluation.baselines import (
    BASELINES,
    MEAN_HEIGHT,
    NEAREST,
    mean_heights,
    nearest_tile,
)
from earthgen.evaluation.diversity import Seams, borders, crop_on, diversity
from earthgen.evaluation.metrics import Agreement
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.realism import Features, features_of, realism, stack_features, truth_halves
from earthgen.evaluation.selection import (
    SIZE,
    choose_backends,
    choose_crops,
    held_out_crops,
    places_by_scene,
)
from earthgen.evaluation.settings import Settings
from earthgen.evaluation.views import clay, picture, views
from earthgen.evaluation.weights import find_weights
from earthgen.evaluation.worlds import SceneWorld, choose, create, make_world
from earthgen.models import image_features
from earthgen.models.presets import preset
from earthgen.models.weights.card import WeightSet
from earthgen.plugins import Plugins, load
from earthgen.progress import Progress
from geo_io.legend import palette

SHOWN = 6
"""Number of crops with pictures in the report."""

DIVERSE = 8
"""Number of crops whose worlds are made with several seeds."""


@dataclass
class Evaluation:
    """The result of an evaluation.

    Attributes
    ----------
    report : dict[str, Any]
        JSON values; docs/guides/evaluation.md describes them.
    pictures : list[dict[str, Any]]
        For each crop shown {"title": ..., "pictures": [(caption, (h, w, 3) uint8)]}.
    reconstructions : list[dict[str, Any]]
        For each crop shown the pictures of truth and reconstruction, by caption.
    """

    report: dict[str, Any]
    pictures: list[dict[str, Any]] = field(default_factory=list)
    reconstructions: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Bench:
    """The data that all backends are measured on."""

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
    notes: list[str]


def evaluate(
    settings: Settings,
    plugins: Plugins | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure backends, and the parts of a set of weights, on the same held-out crops.

    The figures are a function of data, weights and settings; only "seconds_per_km2" depends on the
    machine.

    Parameters
    ----------
    settings : Settings
        What is measured, and on which crops.
    plugins : Plugins | None
        Plugins that offer backends; by default all installed ones.
    progress : Progress | None
        Gets a step per crop and backend.

    Raises
    ------
    JobError, UnknownNameError
        if a setting is wrong, before anything is computed
    CropError
        if nothing is held out
    FrameError
        if the dataset has another voxel size than the weights
    ModelError
        if weights cannot be used
    """
    plugins = plugins or load()
    progress = progress or Progress()
    weights, why_none = find_weights(settings)
    folder = weights.folder if weights is not None else None
    settings = settings.model_copy(update={"weights": folder})
    names = choose_backends(settings, plugins, set(weights.parts) if weights is not None else set())
    voxel_size = next(iter(weights.parts.values())).voxel_size if weights is not None else None
    for name in names:  # fail before anything is computed
        if name not in BASELINES:
            create(choose(name, plugins, settings.weights, settings.options), plugins)
    size = settings.size or _columns(weights)
    every = held_out_crops(settings, size, voxel_size)
    if settings.images:
        image_features.feature_network()  # as above
    numbers = choose_crops(every, settings.crops, settings.seed)
    bench = _bench(settings, plugins, progress, every, numbers)
    bench.notes += why_none
    progress.start("evaluate", _steps(bench, names, weights))

    truth = _truth(bench)
    report: dict[str, Any] = {
        "earthgen": __version__,
        "settings": _plain(settings),
        "dataset": _dataset(bench),
        "weights": _weights(weights),
        "reconstruction": {},
        "paper": reconstruction.PAPER_FIGURES,
        "worlds": {},
        "classes": {},
        "diversity": {},
        "seams": {"truth": {}},
        "truth_halves": truth_halves(truth, settings.seed),
        "seconds_per_km2": {},
        "notes": bench.notes,
    }
    evaluation = Evaluation(report, _first_pictures(bench))
    if weights is not None:
        figures, evaluation.reconstructions, notes = reconstruction.measure(
            weights,
            bench.crops,
            seed=settings.seed,
            sampling_steps=settings.steps,
            guidance=settings.guidance,
            step=progress.step,
        )
        report["reconstruction"] = figures
        bench.notes += notes
    training = _training(bench, size, names)
    for name in names:
        if name in BASELINES and training is None:
            continue
        _measure(bench, name, truth, training, evaluation)
    return evaluation


def _columns(weights: WeightSet | None) -> int:
    if weights is None or not weights.card.get("preset"):
        return SIZE
    return preset(weights.card["preset"]).columns


def _bench(
    settings: Settings,
    plugins: Plugins,
    progress: Progress,
    every: Crops,
    numbers: list[int],
) -> _Bench:
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
    return _Bench(
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
        notes,
    )


def _steps(bench: _Bench, names: Sequence[str], weights: WeightSet | None) -> int:
    count = len(bench.crops)
    made = [name for name in names if name not in BASELINES]
    # Borders are one step, because their number is known only later.
    extra = len(bench.diverse) * (bench.settings.seeds - 1) + 1
    total = count * (1 + len(names)) + len(made) * extra
    return total + (reconstruction.steps_of(weights, count) if weights is not None else 0)


def _truth(bench: _Bench) -> Features:
    rows = []
    for place, patch in enumerate(bench.truths):
        rows.append(_features(bench, place, patch))
        bench.progress.step("truth")
    return stack_features(rows)


def _features(bench: _Bench, place: int, patch: Patch) -> Features:
    """Compute the features of a patch in the place of a crop, in the columns that the truth has."""
    known = bench.crops[place].image_known if bench.coloured[place] else None
    return features_of(patch.only(bench.truths[place].valid), known, bench.settings.images)


def _training(bench: _Bench, size: int, names: Sequence[str]) -> Crops | None:
    """Open the crops that baselines need. If there are none, add a note and return None, unless the
    settings name a baseline."""
    if not set(names) & set(BASELINES):
        return None
    settings = bench.settings
    try:
        return open_crops(
            settings.data,
            size=size,
            part="train",
            grades=settings.grades,
            voxel_size=bench.crops[0].frame.voxel_size,
            band=bench.every.band,
        )
    except CropError:
        if set(settings.backends) & set(BASELINES):
            raise
        bench.notes.append("there are no training crops: no baselines")
        return None


def _dataset(bench: _Bench) -> dict[str, Any]:
    frame = bench.crops[0].frame
    return {
        "crops": len(bench.crops),
        "columns": frame.nx,
        "voxel_size": frame.voxel_size,
        "band": list(frame.z),
        "coloured": sum(bench.coloured),
        "places": [
            {
                "scene": name,
                "place": scene.info.place,
                "crops": len(positions),
                "source": scene.info.source,
                "licence": scene.info.licence,
                "grade": scene.info.grade,
                "kind": scene.info.kind,
            }
            for name, (scene, positions) in bench.places.items()
        ],
    }


def _weights(weights: WeightSet | None) -> dict[str, Any] | None:
    if weights is None:
        return None
    return {
        "title": weights.card.get("title", ""),
        "preset": weights.card.get("preset", ""),
        "licence": weights.card.get("licence", ""),
        "digests": {name: h.digest for name, h in weights.parts.items()},
    }


def _plain(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump()
    return {
        **values,
        "data": settings.data.name,
        "weights": settings.weights.name if settings.weights else None,
    }


def _measure(
    bench: _Bench, name: str, truth: Features, training: Crops | None, evaluation: Evaluation
) -> None:
    """Measure one backend or baseline, and add its figures to the report."""
    report = evaluation.report
    began = time.perf_counter()
    if name == NEAREST and training is not None:
        finder = nearest_tile(training)
        patches = _stepped(bench, name, finder.patch)
    elif name == MEAN_HEIGHT and training is not None:
        patches = _stepped(bench, name, mean_heights(training).patch)
    else:
        patches = _worlds(bench, name)
    area = sum(crop.frame.area_km2 for crop in bench.crops)
    report["seconds_per_km2"][name] = (time.perf_counter() - began) / area
    agreement, rows = Agreement(), []
    for place, patch in enumerate(patches):
        agreement.add(patch, bench.truths[place], bench.crops[place].cover)
        rows.append(_features(bench, place, patch))
    report["worlds"][name] = {**agreement.table(), **realism(rows, truth)}
    report["classes"][name] = agreement.class_table()
    _add_pictures(evaluation.pictures, patches, name, bench)
    if name not in BASELINES:
        report["diversity"][name] = _diversity(bench, name, patches)
        report["seams"][name] = _seams(bench, name, report["seams"]["truth"])
        bench.progress.step(f"{name}: seams")


def _stepped(bench: _Bench, name: str, make: Any) -> list[Patch]:
    patches = []
    for crop in bench.crops:
        patches.append(make(crop))
        bench.progress.step(name)
    return patches


def _world(bench: _Bench, scene: Any, name: str, seed: int) -> SceneWorld:
    choice = choose(name, bench.plugins, bench.settings.weights, bench.settings.options)
    return make_world(scene, choice, bench.plugins, seed, bench.every.band)


def _worlds(bench: _Bench, name: str) -> list[Patch]:
    patches: dict[int, Patch] = {}
    for scene, places in bench.places.values():
        world = _world(bench, scene, name, bench.settings.seed)
        for place in places:
            crop = bench.crops[place]
            patches[place] = world.patch(crop.frame, crop.valid)
            bench.progress.step(name)
    return [patches[place] for place in range(len(bench.crops))]


def _diversity(bench: _Bench, name: str, patches: Sequence[Patch]) -> dict[str, float]:
    if bench.settings.seeds < 2:
        return {}
    rows = []
    for scene, places in bench.places.values():
        compared = [place for place in places if place in bench.diverse]
        if not compared:
            continue
        outcomes = {place: [patches[place]] for place in compared}
        for extra in range(1, bench.settings.seeds):
            world = _world(bench, scene, name, bench.settings.seed + extra)
            for place in compared:
                crop = bench.crops[place]
                outcomes[place].append(world.patch(crop.frame, crop.valid))
                bench.progress.step(f"{name}: another seed")
        rows += [diversity(patches_of_seeds) for patches_of_seeds in outcomes.values()]
    return {key: _mean([row[key] for row in rows]) for key in rows[0]} | {"crops": float(len(rows))}


def _mean(values: Sequence[float]) -> float:
    known = np.array(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _seams(bench: _Bench, name: str, truths: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios of jumps by window distance, metres; `truths` gets those of the truth."""
    if not bench.settings.borders:
        return {}
    split = read_split(bench.settings.data, list(bench.every.scenes))
    worlds = {
        place: _world(bench, scene, name, bench.settings.seed)
        for place, (scene, _) in bench.places.items()
    }
    pitches = next(iter(worlds.values())).pitches
    ratios_by_pitch: dict[str, Any] = {}
    for pitch in pitches:
        made, real, count = Seams(), Seams(), 0
        share = max(bench.settings.borders // len(bench.places), 1)
        for place, (scene, _) in bench.places.items():
            cells = split.cells(scene.frame, "held_out")
            for border in borders(scene, cells, pitch, bench.every.band, most=share):
                truth = patch_of_crop(crop_on(scene, border.frame))
                made.add(worlds[place].patch(border.frame, truth.valid), pitch)
                real.add(truth, pitch)
                count += 1
        if count:
            metres = f"{pitch * bench.crops[0].frame.voxel_size:g}"
            for ratios, into in ((made.ratios(), ratios_by_pitch), (real.ratios(), truths)):
                into[metres] = {
                    **{key: asdict(ratio) for key, ratio in ratios.items()},
                    "places": count,
                }
    if not ratios_by_pitch:
        bench.notes.append(
            f"{name}: seams are not measured, because no border of windows lies in a held-out area"
        )
    return ratios_by_pitch


def _shown(bench: _Bench) -> list[int]:
    """Choose the crops with pictures, from each place in turn."""
    order = [
        positions[turn]
        for turn in range(SHOWN)
        for _, positions in bench.places.values()
        if turn < len(positions)
    ]
    return order[:SHOWN]


def _first_pictures(bench: _Bench) -> list[dict[str, Any]]:
    """Draw land cover and truth of the crops with pictures."""
    rows = []
    for place in _shown(bench):
        crop, truth = bench.crops[place], bench.truths[place]
        scene, _ = bench.every.where(bench.numbers[place])
        grey = np.full((*crop.frame.shape, 3), 128, np.uint8)
        cover = np.where(
            (crop.valid & (crop.cover > 0))[..., None], palette()[crop.cover], grey
        ).astype(np.uint8)
        cover = cover.repeat(-(-128 // cover.shape[0]), 0).repeat(-(-128 // cover.shape[1]), 1)
        pictures = [
            ("land cover", cover),
            ("truth", picture(truth, clay(truth), views(truth)["oblique"])),
        ]
        if bench.coloured[place] and truth.splats is not None:
            pictures.append(("truth, colours", picture(truth, truth.splats, views(truth)["above"])))
        rows.append(
            {
                "title": f"{scene.info.place}, {crop.frame.x[0]} {crop.frame.y[0]}",
                "pictures": pictures,
            }
        )
    return rows


def _add_pictures(
    rows: list[dict[str, Any]], patches: Sequence[Patch], name: str, bench: _Bench
) -> None:
    for row, place in zip(rows, _shown(bench), strict=True):
        patch = patches[place].only(bench.truths[place].valid)
        row["pictures"].append((name, picture(patch, clay(patch), views(patch)["oblique"])))
        if patch.splats is not None and name not in BASELINES:
            row["pictures"].append(
                (f"{name}, colours", picture(patch, patch.splats, views(patch)["above"]))
            )
