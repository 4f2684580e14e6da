"""Measure backends and weights on the held-out crops of a dataset.

docs/guides/evaluation.md explains the figures.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earthgen._version import __version__
from earthgen.dataset.crop import Crop
from earthgen.dataset.split import read_split
from earthgen.evaluation import reconstruction
from earthgen.evaluation.baselines import BASELINES
from earthgen.evaluation.bench import (
    Bench,
    baselines,
    common_options,
    flow_sampling,
    make_bench,
)
from earthgen.evaluation.distances import over_places
from earthgen.evaluation.diversity import Seams, borders, crop_on, diversity
from earthgen.evaluation.maps import COVER, FOOTPRINTS, MAP, PICTURE, label
from earthgen.evaluation.metrics import Agreement
from earthgen.evaluation.objects import figures_of_objects, measure_objects
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.realism import Features, features_of, halves, realism, truth_halves
from earthgen.evaluation.selection import (
    SIZE,
    choose_backends,
    choose_crops,
    complete_parts,
    held_out_crops,
)
from earthgen.evaluation.settings import Settings
from earthgen.evaluation.views import first_pictures, shown_crops, world_pictures
from earthgen.evaluation.weights import find_weights
from earthgen.evaluation.worlds import (
    FlowSampling,
    SceneWorld,
    choose,
    create,
    make_world,
    sampling_settings,
)
from earthgen.models import image_features
from earthgen.models.presets import preset
from earthgen.models.weights.card import WeightSet
from earthgen.plugins import Plugins, load
from earthgen.progress import Progress

COMPARED = ("roof_residual_ratio", "roof_spread_ratio", "roof_colour_ratio", "crown_w1")
"""Figures of objects that compare two sets of places, so that halves of the truth have them too."""


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
    ModelError, TrainingError
        if weights cannot be used
    """
    with tempfile.TemporaryDirectory(prefix="earthgen-") as scratch:
        return _evaluate(settings, plugins or load(), progress or Progress(), Path(scratch))


def _evaluate(
    settings: Settings, plugins: Plugins, progress: Progress, scratch: Path
) -> Evaluation:
    given = settings.weights
    weights, notes = find_weights(settings, scratch)
    folder = weights.folder if weights is not None else None
    settings = settings.model_copy(update={"weights": folder})
    names = choose_backends(settings, plugins, complete_parts(weights))
    voxel_size = next(iter(weights.parts.values())).voxel_size if weights is not None else None
    common = common_options(settings)
    sampling: dict[str, Any] = {}
    for name in names:  # fail before anything is computed
        if name not in BASELINES:
            made = create(choose(name, plugins, folder, settings.options, common), plugins)
            found = {
                kind: values
                for kind, backend in zip(("geometry", "texture"), made, strict=True)
                if (values := sampling_settings(backend)) is not None
            }
            sampling |= {name: found} if found else {}
    size = settings.size or _columns(weights)
    every = held_out_crops(settings, size, voxel_size)
    if settings.images:
        image_features.feature_network()  # as above
    numbers = choose_crops(every, settings.crops, settings.seed)
    bench = make_bench(settings, plugins, progress, every, numbers, common)
    bench.notes[:0] = notes
    alone = flow_sampling(bench, weights)
    candidates = [
        (name, condition)
        for condition in (COVER, *((MAP, FOOTPRINTS, PICTURE) if settings.maps else ()))
        for name in names
        if _is_measured(bench, name, condition, learned=name in sampling)
    ]
    progress.start("evaluate", _steps(bench, candidates, weights, alone))

    _measure_truth(bench)
    values, ends = over_places(
        lambda use: figures_of_objects([bench.true_objects[n] for n in use]), bench.groups
    )
    report: dict[str, Any] = {
        "earthgen": __version__,
        "settings": _plain(settings, given or folder),
        "dataset": _dataset(bench),
        "weights": _weights(weights),
        "sampling": sampling,
        "reconstruction": {},
        "paper": reconstruction.PAPER_FIGURES,
        "truth": values,
        "worlds": {},
        "intervals": {"truth": ends},
        "classes": {},
        "diversity": {},
        "seams": {"truth": {}},
        "truth_halves": {},
        "seconds_per_km2": {},
        "notes": bench.notes,
    }
    evaluation = Evaluation(report, _first_pictures(bench))
    if weights is not None and settings.reconstruction:
        measured = reconstruction.measure(
            weights,
            bench.crops,
            bench.groups,
            seed=settings.seed,
            sampling=alone,
            device=common.get("device", "cpu"),
            step=progress.step,
        )
        report["reconstruction"] = measured.figures
        report["intervals"] |= {f"reconstruction: {k}": v for k, v in measured.intervals.items()}
        evaluation.reconstructions = measured.shown
        bench.notes += measured.notes
    makers = baselines(bench, names)
    for name, condition in candidates:
        if name not in BASELINES or name in makers:
            _measure(bench, name, condition, makers.get(name), evaluation)
    _measure_halves(bench, report)
    return evaluation


def _columns(weights: WeightSet | None) -> int:
    if weights is None or not weights.card.get("preset"):
        return SIZE
    return preset(weights.card["preset"]).columns


def _steps(
    bench: Bench,
    candidates: Sequence[tuple[str, str]],
    weights: WeightSet | None,
    alone: FlowSampling | None,
) -> int:
    made = [name for name, condition in candidates if _has_seeds(name, condition)]
    # Borders are one step, because their number is known only later.
    extra = len(bench.diverse) * (bench.settings.seeds - 1) + 1
    count = len(bench.crops)
    worlds = sum(len(_places(bench, condition)) for _, condition in candidates)
    total = count + worlds + len(made) * extra
    if weights is None or not bench.settings.reconstruction:
        return total
    return total + reconstruction.steps_of(weights, count, alone is not None)


def _is_measured(bench: Bench, name: str, condition: str, *, learned: bool) -> bool:
    """Whether a candidate is measured under a condition: baselines know no footprints, and only
    flows make a world from a picture."""
    if condition == FOOTPRINTS:
        return name not in BASELINES
    return condition != PICTURE or (learned and any(bench.coloured))


def _places(bench: Bench, condition: str) -> list[int]:
    """The crops on which a condition is measured."""
    every = range(len(bench.crops))
    return [place for place in every if condition != PICTURE or bench.coloured[place]]


def _has_seeds(name: str, condition: str) -> bool:
    """Whether diversity and seams of a candidate are measured."""
    return name not in BASELINES and condition == COVER


def _measure_truth(bench: Bench) -> None:
    for place, patch in enumerate(bench.truths):
        bench.true_features.append(_features(bench, place, patch))
        bench.true_objects.append(measure_objects(patch, patch, bench.known(place)))
        bench.progress.step("truth")


def _features(bench: Bench, place: int, patch: Patch) -> Features:
    """Compute the features of a patch in the place of a crop, in the columns that the truth has."""
    return features_of(
        patch.only(bench.truths[place].valid), bench.known(place), bench.settings.images
    )


def _dataset(bench: Bench) -> dict[str, Any]:
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


def _plain(settings: Settings, weights: Path | None) -> dict[str, Any]:
    values = settings.model_dump()
    return {
        **values,
        "data": settings.data.name,
        "weights": weights.name if weights else None,
    }


def _measure(
    bench: Bench,
    name: str,
    condition: str,
    baseline: Callable[[Crop], Patch] | None,
    evaluation: Evaluation,
) -> None:
    """Measure one backend or baseline under a condition, and add its figures to the report."""
    report, title = evaluation.report, label(name, condition)
    began = time.perf_counter()
    if baseline is not None:
        patches = _stepped(bench, title, condition, baseline)
    else:
        patches = _worlds(bench, name, condition)
    area = sum(bench.crops[place].frame.area_km2 for place in patches)
    report["seconds_per_km2"][title] = (time.perf_counter() - began) / area
    true_objects = [bench.true_objects[place] for place in patches]
    true_features = [bench.true_features[place] for place in patches]
    groups = [bench.groups[place] for place in patches]
    agreements, objects, rows = [], [], []
    for place, patch in patches.items():
        agreement = Agreement()
        agreement.add(patch, bench.truths[place], bench.crops[place].cover)
        agreements.append(agreement)
        objects.append(measure_objects(patch, bench.truths[place], bench.known(place)))
        rows.append(_features(bench, place, patch))

    def figures(use: list[int]) -> dict[str, float]:
        return {
            **Agreement.over(agreements[n] for n in use).table(),
            **figures_of_objects([objects[n] for n in use], [true_objects[n] for n in use]),
        }

    values, ends = over_places(figures, groups)
    report["intervals"][title] = ends
    report["worlds"][title] = {**values, **realism(rows, true_features, groups)}
    report["classes"][title] = Agreement.over(agreements).class_table()
    for row, place in zip(evaluation.pictures, _shown(bench), strict=True):
        if place not in patches:
            continue
        patch = patches[place].only(bench.truths[place].valid)
        row["pictures"] += world_pictures(patch, title, name not in BASELINES)
    if _has_seeds(name, condition):
        report["diversity"][name] = _diversity(bench, name, list(patches.values()), report)
        report["seams"][name] = _seams(bench, name, report["seams"]["truth"])
        bench.progress.step(f"{name}: seams")


def _measure_halves(bench: Bench, report: dict[str, Any]) -> None:
    """Add the figures of one half of the true crops against the other: no candidate can be expected
    to do better."""
    agreements = []
    for crop, truth in zip(bench.crops, bench.truths, strict=True):
        agreement = Agreement()
        agreement.add(truth, truth, crop.cover)
        agreements.append(agreement)
    one, other = halves(len(bench.crops), bench.settings.seed)

    def figures(use: list[int]) -> dict[str, float]:
        first, second = ([n for n in half if n in use] for half in (one, other))
        true = Agreement.over(agreements[n] for n in second)
        made = Agreement.over(agreements[n] for n in first)
        objects = figures_of_objects(
            [bench.true_objects[n] for n in first], [bench.true_objects[n] for n in second]
        )
        return {
            **made.against(true),
            **{key: value for key, value in objects.items() if key in COMPARED},
        }

    values, ends = over_places(figures, bench.groups)
    report["intervals"]["truth_halves"] = ends
    report["truth_halves"] = {
        **values,
        **truth_halves(bench.true_features, bench.settings.seed, bench.groups),
    }


def _stepped(
    bench: Bench, title: str, condition: str, make: Callable[[Crop], Patch]
) -> dict[int, Patch]:
    patches = {}
    for place, crop in enumerate(bench.crops):
        patches[place] = make(crop if condition == COVER else bench.as_mapped(place))
        bench.progress.step(title)
    return patches


def _world(bench: Bench, scene: Any, name: str, seed: int, condition: str = COVER) -> SceneWorld:
    choice = choose(
        name, bench.plugins, bench.settings.weights, bench.settings.options, bench.common
    )
    return make_world(
        scene,
        choice,
        bench.plugins,
        seed,
        bench.every.band,
        names=("image", "dem") if condition == PICTURE else ("semantics", "dem"),
        cover=bench.maps[scene.info.name] if condition == MAP else None,
        footprints=condition == FOOTPRINTS,
    )


def _worlds(bench: Bench, name: str, condition: str) -> dict[int, Patch]:
    patches: dict[int, Patch] = {}
    measured = _places(bench, condition)
    for scene, places in bench.places.values():
        here = [place for place in places if place in measured]
        if not here:
            continue
        world = _world(bench, scene, name, bench.settings.seed, condition)
        for place in here:
            crop = bench.crops[place]
            patches[place] = world.patch(crop.frame, crop.valid)
            bench.progress.step(label(name, condition))
    return {place: patches[place] for place in measured}


def _diversity(
    bench: Bench, name: str, patches: Sequence[Patch], report: dict[str, Any]
) -> dict[str, float]:
    if bench.settings.seeds < 2:
        return {}
    rows, at = [], []
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
        rows += [diversity(made, bench.truths[place]) for place, made in outcomes.items()]
        at += list(outcomes)
    values, ends = over_places(
        lambda use: {key: _mean([rows[n][key] for n in use]) for key in rows[0]},
        [bench.groups[place] for place in at],
    )
    report["intervals"][f"diversity: {name}"] = ends
    return values | {"crops": float(len(rows))}


def _mean(values: Sequence[float]) -> float:
    known = np.array(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _seams(bench: Bench, name: str, truths: dict[str, Any]) -> dict[str, Any]:
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


def _shown(bench: Bench) -> list[int]:
    return shown_crops([positions for _, positions in bench.places.values()])


def _first_pictures(bench: Bench) -> list[dict[str, Any]]:
    """Draw conditions and truth of the crops with pictures."""
    rows = []
    for place in _shown(bench):
        crop, scene = bench.crops[place], bench.every.where(bench.numbers[place])[0]
        mapped = bench.as_mapped(place).cover if bench.settings.maps else None
        rows.append(
            {
                "title": f"{scene.info.place}, {crop.frame.x[0]} {crop.frame.y[0]}",
                "pictures": first_pictures(
                    crop, bench.truths[place], mapped, bench.coloured[place]
                ),
            }
        )
    return rows
