"""Reconstruction of held-out crops by the parts of a set of weights: StructVAE, TexVAE, and both
stages of StructFM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.evaluation.distances import over_places
from earthgen.evaluation.metrics import Overlap, Sums, ratios
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.views import around, clay, picture, to_bytes, views
from earthgen.evaluation.worlds import FlowSampling
from earthgen.models.conditions import Conditions
from earthgen.models.flow import place_noise
from earthgen.models.occupancy import agreement
from earthgen.models.struct_flow import StructCoarse, StructFine
from earthgen.models.struct_vae import StructVAE
from earthgen.models.tex_vae import TexVAE
from earthgen.models.weights.card import WeightSet
from earthgen.noise.philox import Noise
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.training.batches import make_batch
from earthgen.training.parts.tex_vae import compare_views, encoder_features, render_pair

PAPER_FIGURES = {
    "struct-vae": {"accuracy": 0.971},
    "tex-vae": {"psnr": 19.49, "l1": 0.056},
    "struct-flow, image": {"iou_cells": 0.861, "iou": 0.254},
}
"""Figures of the paper (arXiv 2507.16535), on other data: accuracy over its training set, views of
its held-out scenes, and mIoU under the image condition on its training data."""

LEAST_COLOURED = 0.5
"""Least share of a crop's columns with known colour for its colours to be compared."""

VIEW_PIXELS = 128
"""Edge of the views that TexVAE is compared in, pixels."""

Step = Callable[[str], None]


def sites_of(crop: Crop, device: torch.device | str = "cpu") -> tuple[Sites, Tensor]:
    """Return the voxels of a crop, and (n,) int64: the row of the crop for each of them."""
    rows = np.column_stack([np.zeros(len(crop), np.int32), crop.local]).astype(np.int64)
    return make_sites(torch.from_numpy(rows).to(device), place=Place.of(crop.frame))


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device of a network."""
    return next(model.parameters()).device


def struct_vae(
    model: StructVAE, crops: Sequence[Crop], step: Step
) -> tuple[list[Sums], list[Patch]]:
    """Measure StructVAE on crops.

    Returns
    -------
    tuple[list[Sums], list[Patch]]
        Figures of each crop for `earthgen.evaluation.metrics.ratios`, and its reconstruction.

        - accuracy: share of candidate voxels, at all levels, that are classified correctly given
          the true level before
        - iou, f1: of the voxels decoded without the truth; iou_cells, f1_cells: of the cells of
          the latent's size that they lie in
        - class_right: share of the voxels in both that have the right class
        - holes: share of columns that lost all voxels
    """
    rows, made, device = [], [], device_of(model)
    with torch.no_grad():
        for crop in crops:
            sites, order = sites_of(crop, device)
            semantic = torch.from_numpy(crop.semantic).to(device)[order]
            latent, taught = model(sites, semantic)
            there = model.levels(sites)[: len(taught.levels)]
            right = candidates = 0
            for level, true in zip(taught.levels, reversed(there), strict=True):
                target = true.rows(level.candidates.coordinates) >= 0
                right += int(((level.candidates.features[:, 0] > 0) == target).sum())
                candidates += len(target)
            free = model.decode(latent.mean)
            stride = model.config.stride
            fine = _overlap(free.sites, sites)
            cells = _overlap(free.sites.parents(stride), sites.parents(stride))
            missing = agreement(free.sites, sites)
            codes = (
                free.semantic()
                if free.classes is not None
                else torch.zeros(len(free.sites), dtype=torch.uint8, device=device)
            )
            row: Sums = {
                "accuracy": (right, candidates),
                "iou": _parts_of_iou(fine),
                "f1": _parts_of_f1(fine),
                "iou_cells": _parts_of_iou(cells),
                "f1_cells": _parts_of_f1(cells),
                "class_right": (0, 0),
                "holes": (missing.holes, missing.columns),
            }
            if free.classes is not None:
                at = sites.rows(free.sites.coordinates)
                named = at >= 0
                alike = int((semantic[at[named]] == codes[named]).sum())
                row["class_right"] = alike, int(named.sum())
            rows.append(row)
            made.append(patch_of_sites(free.sites, codes, crop))
            step("StructVAE")
    return rows, made


def _parts_of_iou(overlap: Overlap) -> tuple[float, float]:
    return overlap.both, overlap.both + overlap.predicted + overlap.true


def _parts_of_f1(overlap: Overlap) -> tuple[float, float]:
    return 2 * overlap.both, 2 * overlap.both + overlap.predicted + overlap.true


def _overlap(predicted: Sites, true: Sites) -> Overlap:
    both = int((predicted.rows(true.coordinates) >= 0).sum())
    return Overlap(both, len(predicted) - both, len(true) - both)


def patch_of_sites(sites: Sites, semantic: Tensor, crop: Crop) -> Patch:
    """Make a patch without colours of the voxels that a model made for a crop."""
    origin = np.array([crop.frame.x[0], crop.frame.y[0], crop.frame.z[0]])
    xyz = (sites.coordinates[:, 1:].cpu().numpy().astype(np.int64) + origin).astype(np.int32)
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
    return Patch(
        crop.frame,
        crop.ground,
        xyz[order],
        semantic.cpu().numpy().astype(np.uint8)[order],
        None,
        crop.valid,
    )


def tex_vae(
    model: TexVAE, crops: Sequence[Crop], step: Step
) -> tuple[list[Sums], list[tuple[Any, Any]]]:
    """Measure TexVAE on the crops with known colours.

    The truth is the crop's voxels as plain discs in their own colours. Views are one from above and
    four around.

    Returns
    -------
    tuple[list[Sums], list[tuple[Any, Any]]]
        Figures of each crop for `earthgen.evaluation.metrics.ratios`, empty without colours, and
        pairs of pictures from above: truth, reconstruction.

        - psnr (dB) and l1: of colours in [0, 1], over pixels where the truth has a surface; means
          over views
        - ssim: over whole views
    """
    rows: list[Sums] = []
    shown = []
    with torch.no_grad():
        for crop in crops:
            scores: dict[str, list[float]] = {"psnr": [], "l1": [], "ssim": []}
            if crop.image_known[crop.valid].mean() >= LEAST_COLOURED:
                truth = patch_of_crop(crop)
                # The views and figures of the training, from other sides.
                batch = make_batch([crop]).to(device_of(model))
                colours = model.decode(model.encode(encoder_features(batch, model)).mean)
                cameras = around(truth, VIEW_PIXELS)
                for row in compare_views(colours, batch, cameras):
                    scores["psnr"].append(row["view_psnr"])
                    scores["l1"].append(row["view_l1"])
                    scores["ssim"].append(row["view_similarity"])
                made, want = render_pair(colours, batch, 0, cameras[0])
                shown.append((to_bytes(want.cpu()), to_bytes(made.cpu())))
            rows.append({name: (sum(each), len(each)) for name, each in scores.items()})
            step("TexVAE")
    return rows, shown


CONDITION_SETS: dict[str, tuple[str, ...]] = {
    "semantics": ("semantics",),
    "semantics and height": ("semantics", "height"),
    "image": ("image",),
    "nothing": (),
}
"""Conditions that StructFM is measured under. A learned backend gives it a height map:
its own, or a measured one."""


def conditions_of(crop: Crop, names: Sequence[str]) -> Conditions:
    """Return the named conditions of a crop in the form of the models."""
    given: dict[str, Any] = {}
    if "semantics" in names:
        given["semantics"] = [crop.cover]
    if "height" in names:
        given["height"] = [np.where(crop.valid, crop.height, np.float32(np.nan))]
    if "image" in names:
        given |= {"image": [crop.image], "image_known": [crop.image_known]}
    return Conditions.of([crop.frame], **given)


def struct_flow(
    coarse: StructCoarse,
    fine: StructFine,
    vae: StructVAE,
    crops: Sequence[Crop],
    names: Sequence[str],
    *,
    seed: int,
    sampling: FlowSampling,
    step: Step,
) -> tuple[list[Sums], list[Patch]]:
    """Measure both stages of StructFM in sequence under some conditions.

    Parameters
    ----------
    coarse, fine : StructCoarse, StructFine
        The two stages.
    vae : StructVAE
        Decodes their latents.
    crops : Sequence[Crop]
        The truth.
    names : Sequence[str]
        Names of the conditions.
    seed : int
        Key of the noise.
    sampling : FlowSampling
        Steps, method and guidance.
    step : Callable[[str], None]
        Called after each crop.

    Returns
    -------
    tuple[list[Sums], list[Patch]]
        Figures of each crop, empty where it does not have the conditions, and the patch made for
        each other crop. The figures are means over crops, as the paper's mIoU.

        - iou_cells: of active cells after the first stage; iou_refined: after the second
        - iou: of voxels, after the decoder of StructVAE
        - right_cells: of voxels if the second stage gets the true cells
    """
    rows: list[Sums] = []
    made, device = [], device_of(coarse)
    for crop in crops:
        if "image" in names and crop.image_known[crop.valid].mean() < LEAST_COLOURED:
            rows.append({})
            step("StructFM")
            continue
        sites, _ = sites_of(crop, device)
        true = sites.parents(vae.config.stride)
        conditions = conditions_of(crop, names).to(device)
        with torch.no_grad():
            frame = crop.frame
            shape = frame.nx, frame.ny, frame.z[1] - frame.z[0]
            grid = coarse.grid(Place.of(frame), shape, device)
            free = _free(coarse, conditions, grid, sampling)
            predict = coarse.predictor(
                grid, coarse.condition(conditions, grid), free, sampling.guidance
            )
            noise = place_noise(Noise(seed).of_stage("evaluation").stream("coarse"), grid, 1)
            state = sampling.integrate(coarse.flow, predict, noise, 0.0, 1.0)
            cells = grid.select(state[:, 0] > 0)
            refined, voxels, classes = _fine(fine, vae, cells, conditions, seed, sampling)
            told = _fine(fine, vae, true, conditions, seed, sampling)[1]
        overlaps = {
            "iou_cells": _overlap(cells, true),
            "iou_refined": _overlap(refined, true),
            "iou": _overlap(voxels, sites),
            "right_cells": _overlap(told, sites),
        }
        rows.append({name: (overlap.iou, 1) for name, overlap in overlaps.items()})
        made.append(patch_of_sites(voxels, classes, crop))
        step("StructFM")
    return rows, made


def _free(model: Any, conditions: Conditions, sites: Sites, sampling: FlowSampling) -> Any:
    """Return the conditions that guidance goes away from, None without guidance."""
    return None if sampling.guidance == 1 else model.condition(conditions.hidden(), sites)


def _fine(
    fine: StructFine,
    vae: StructVAE,
    cells: Sites,
    conditions: Conditions,
    seed: int,
    sampling: FlowSampling,
) -> tuple[Sites, Sites, Tensor]:
    """Return (cells that stay, voxels, their classes) of some active cells."""
    from earthgen.sparse import SparseTensor

    if not len(cells):
        none = torch.zeros((0, 4), dtype=torch.int64, device=cells.device)
        empty = make_sites(none, place=cells.place)[0]
        return cells, empty, torch.zeros(0, dtype=torch.uint8)
    free = _free(fine, conditions, cells, sampling)
    predict = fine.predictor(cells, fine.condition(conditions, cells), free, sampling.guidance)
    noise = place_noise(Noise(seed).of_stage("evaluation").stream("fine"), cells, fine.channels)
    latent = SparseTensor(cells, sampling.integrate(fine.flow, predict, noise, 0.0, 1.0))
    kept = fine.refined(latent)
    decoded = vae.decode(vae.statistics.restored(kept))
    classes = (
        decoded.semantic()
        if decoded.classes is not None
        else torch.zeros(len(decoded.sites), dtype=torch.uint8)
    )
    return kept.sites, decoded.sites, classes


FLOW_PARTS = frozenset({"struct-vae", "struct-coarse", "struct-fine"})
"""Parts that StructFM needs."""


def steps_of(weights: WeightSet, crops: int, sampled: bool) -> int:
    """Return the number of progress steps of `measure`, with a sampling or without."""
    have = set(weights.parts)
    count = ("struct-vae" in have) + ("tex-vae" in have)
    return crops * (count + len(CONDITION_SETS) * (sampled and have >= FLOW_PARTS))


@dataclass(frozen=True)
class Measured:
    """The parts of a set of weights, measured.

    Attributes
    ----------
    figures : dict[str, dict[str, float]]
        By part.
    intervals : dict[str, dict[str, tuple[float, float] | None]]
        Their 95 % intervals over places.
    shown : list[dict[str, Any]]
        Pictures by caption, for each crop shown.
    notes : list[str]
        What could not be measured.
    """

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: dict[str, dict[str, tuple[float, float] | None]] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, rows: Sequence[Sums], places: Sequence[int], **more: float) -> None:
        """Add the figures of a part from those of each crop."""
        values, ends = over_places(lambda use: ratios(rows[number] for number in use), places)
        self.figures[name] = {**values, **more}
        self.intervals[name] = ends


def measure(
    weights: WeightSet,
    crops: Sequence[Crop],
    places: Sequence[int],
    *,
    seed: int,
    sampling: FlowSampling | None,
    device: str,
    step: Step,
) -> Measured:
    """Measure all parts of a set of weights.

    Parameters
    ----------
    weights : WeightSet
        The weights.
    crops : Sequence[Crop]
        The truth.
    places : Sequence[int]
        Number of the place of each crop.
    seed : int
        Key of the noise.
    sampling : FlowSampling | None
        As in `struct_flow`, which is left out without one.
    device : str
        Device of the networks.
    step : Callable[[str], None]
        Called after each crop and part.
    """
    found = Measured()

    def load(part: str) -> Any:
        return weights.load(part, device)

    vae: Any = load("struct-vae") if "struct-vae" in weights.parts else None
    if vae is not None:
        rows, made = struct_vae(vae, crops, step)
        found.add("struct-vae", rows, places)
        for crop, patch in list(zip(crops, made, strict=True))[:4]:
            found.shown.append({"truth": _clay(patch_of_crop(crop)), "StructVAE": _clay(patch)})
    if "tex-vae" in weights.parts:
        rows, pairs = tex_vae(load("tex-vae"), crops, step)
        views = float(sum(row["psnr"][1] for row in rows))
        found.add("tex-vae", rows, places, views=views)
        found.shown.extend({"colours": true, "TexVAE": made_} for true, made_ in pairs[:4])
    if vae is None or sampling is None or not set(weights.parts) >= FLOW_PARTS:
        return found
    coarse, fine = load("struct-coarse"), load("struct-fine")
    size = coarse.config.stride * coarse.config.patch
    fit = [
        number
        for number, crop in enumerate(crops)
        if all(getattr(crop.frame, axis)[0] % size == 0 for axis in "xyz")
    ]
    if len(fit) < len(crops):
        found.notes.append(
            f"StructFM was measured on the {len(fit)} crops that begin at multiples of {size} "
            "voxels"
        )
    chosen = [crops[number] for number in fit]
    for name, names in CONDITION_SETS.items():
        rows, made = struct_flow(
            coarse, fine, vae, chosen, names, seed=seed, sampling=sampling, step=step
        )
        if not made:
            found.notes.append(f"StructFM under {name}: no crop has this condition")
            continue
        part = f"struct-flow, {name}"
        found.add(part, rows, [places[number] for number in fit], crops=float(len(made)))
        if name == "semantics":
            for crop, patch in list(zip(chosen, made, strict=True))[:4]:
                found.shown.append(
                    {"truth": _clay(patch_of_crop(crop)), "StructFM, semantics": _clay(patch)}
                )
    return found


def _clay(patch: Patch) -> Any:
    return picture(patch, clay(patch), views(patch)["oblique"])
