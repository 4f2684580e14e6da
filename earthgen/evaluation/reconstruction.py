"""Reconstruction of held-out crops by the parts of a set of weights: StructVAE, TexVAE, and both
stages of StructFM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earthgen.dataset.crop import Crop
from earthgen.evaluation.metrics import Overlap
from earthgen.evaluation.patch import Patch, patch_of_crop
from earthgen.evaluation.views import around, clay, draw, picture, to_bytes, views
from earthgen.models.conditions import Conditions
from earthgen.models.flow import place_noise, sample
from earthgen.models.occupancy import agreement
from earthgen.models.struct_flow import StructCoarse, StructFine
from earthgen.models.struct_vae import StructVAE
from earthgen.models.tex_vae import TexVAE, voxel_features
from earthgen.models.weights.card import WeightSet
from earthgen.noise.philox import Noise
from earthgen.sparse.sites import Place, Sites, make_sites
from earthgen.splats.metrics import psnr, ssim
from earthgen.splats.raster.rendering import rasterize

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


def sites_of(crop: Crop) -> tuple[Sites, Tensor]:
    """Return the voxels of a crop, and (n,) int64: the row of the crop for each of them."""
    rows = np.column_stack([np.zeros(len(crop), np.int32), crop.local]).astype(np.int64)
    return make_sites(torch.from_numpy(rows), place=Place.of(crop.frame))


def struct_vae(
    model: StructVAE, crops: Sequence[Crop], step: Step
) -> tuple[dict[str, float], list[Patch]]:
    """Measure StructVAE on crops.

    Returns
    -------
    tuple[dict[str, float], list[Patch]]
        Figures over all crops together, and the reconstruction of each crop.

        - accuracy: share of candidate voxels, at all levels, that are classified correctly given
          the true level before
        - iou, f1: of the voxels decoded without the truth; iou_cells, f1_cells: of the cells of
          the latent's size that they lie in
        - class_right: share of the voxels in both that have the right class
        - holes: share of columns that lost all voxels
    """
    right = candidates = holes = columns = named = alike = 0
    fine, cells, made = Overlap(), Overlap(), []
    with torch.no_grad():
        for crop in crops:
            sites, order = sites_of(crop)
            semantic = torch.from_numpy(crop.semantic)[order]
            latent, taught = model(sites, semantic)
            there = model.levels(sites)[: len(taught.levels)]
            for level, true in zip(taught.levels, reversed(there), strict=True):
                target = true.rows(level.candidates.coordinates) >= 0
                right += int(((level.candidates.features[:, 0] > 0) == target).sum())
                candidates += len(target)
            free = model.decode(latent.mean)
            stride = model.config.stride
            fine += _overlap(free.sites, sites)
            cells += _overlap(free.sites.parents(stride), sites.parents(stride))
            missing = agreement(free.sites, sites)
            holes, columns = holes + missing.holes, columns + missing.columns
            codes = (
                free.semantic()
                if free.classes is not None
                else torch.zeros(len(free.sites), dtype=torch.uint8)
            )
            if free.classes is not None:
                rows = sites.rows(free.sites.coordinates)
                named += int((rows >= 0).sum())
                alike += int((semantic[rows[rows >= 0]] == codes[rows >= 0]).sum())
            made.append(patch_of_sites(free.sites, codes, crop))
            step("StructVAE")
    return {
        "accuracy": right / max(candidates, 1),
        "iou": fine.iou,
        "f1": fine.f1,
        "iou_cells": cells.iou,
        "f1_cells": cells.f1,
        "class_right": alike / named if named else float("nan"),
        "holes": holes / max(columns, 1),
    }, made


def _overlap(predicted: Sites, true: Sites) -> Overlap:
    both = int((predicted.rows(true.coordinates) >= 0).sum())
    return Overlap(both, len(predicted) - both, len(true) - both)


def patch_of_sites(sites: Sites, semantic: Tensor, crop: Crop) -> Patch:
    """Make a patch without colours of the voxels that a model made for a crop."""
    origin = np.array([crop.frame.x[0], crop.frame.y[0], crop.frame.z[0]])
    xyz = (sites.coordinates[:, 1:].numpy().astype(np.int64) + origin).astype(np.int32)
    order = np.lexsort((xyz[:, 2], xyz[:, 0], xyz[:, 1]))
    return Patch(
        crop.frame,
        crop.ground,
        xyz[order],
        semantic.numpy().astype(np.uint8)[order],
        None,
        crop.valid,
    )


def tex_vae(
    model: TexVAE, crops: Sequence[Crop], step: Step
) -> tuple[dict[str, float], list[tuple[Any, Any]]]:
    """Measure TexVAE on the crops with known colours.

    The truth is the crop's voxels as plain discs in their own colours. Views are one from above and
    four around.

    Returns
    -------
    tuple[dict[str, float], list[tuple[Any, Any]]]
        Figures, and pairs of pictures from above: truth, reconstruction.

        - psnr (dB) and l1: of colours in [0, 1], over pixels where the truth has a surface; means
          over views
        - ssim: over whole views
        - views: their number
    """
    scores: dict[str, list[float]] = {"psnr": [], "l1": [], "ssim": []}
    shown = []
    with torch.no_grad():
        for crop in crops:
            if crop.image_known[crop.valid].mean() >= LEAST_COLOURED:
                truth = patch_of_crop(crop)
                sites, order = sites_of(crop)
                normal = torch.from_numpy(crop.normal)[order]
                rgb = torch.from_numpy(crop.rgb)[order].float() / 255
                latent = model.encode(voxel_features(sites, rgb, normal)).mean
                splats = model.decode(latent, normal).splats(
                    torch.from_numpy(crop.xyz)[order],
                    crop.frame,
                    crop.ground,
                    torch.from_numpy(crop.semantic)[order],
                )
                assert truth.splats is not None
                for number, camera in enumerate(around(truth, VIEW_PIXELS)):
                    true = draw(truth, truth.splats, camera)
                    made = rasterize(splats, camera, background=(0.5, 0.5, 0.5)).rgb.clamp(0, 1)
                    want, mask = true.rgb.clamp(0, 1), true.alpha > 0.5
                    scores["psnr"].append(float(psnr(made, want, mask=mask)))
                    scores["l1"].append(float((made - want).abs()[mask].mean()))
                    scores["ssim"].append(float(ssim(made, want)))
                    if number == 0:
                        shown.append((to_bytes(want), to_bytes(made)))
            step("TexVAE")
    figures = {
        name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()
    }
    return {**figures, "views": float(len(scores["psnr"]))}, shown


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
    steps: int,
    guidance: float,
    step: Step,
) -> tuple[dict[str, float], list[Patch]]:
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
    steps : int
        Number of sampling steps.
    guidance : float
        Weight of classifier-free guidance, 1 for none.
    step : Callable[[str], None]
        Called after each crop.

    Returns
    -------
    tuple[dict[str, float], list[Patch]]
        Figures, and the patch made for each crop. The figures are means over crops, as the paper's
        mIoU.

        - iou_cells: of active cells after the first stage; iou_refined: after the second
        - iou: of voxels, after the decoder of StructVAE
        - right_cells: of voxels if the second stage gets the true cells
    """
    scores: dict[str, list[float]] = {
        "iou_cells": [],
        "iou_refined": [],
        "iou": [],
        "right_cells": [],
    }
    made = []
    for crop in crops:
        if "image" in names and crop.image_known[crop.valid].mean() < LEAST_COLOURED:
            step("StructFM")
            continue
        sites, _ = sites_of(crop)
        true = sites.parents(vae.config.stride)
        conditions = conditions_of(crop, names)
        with torch.no_grad():
            frame = crop.frame
            grid = coarse.grid(Place.of(frame), (frame.nx, frame.ny, frame.z[1] - frame.z[0]))
            free = coarse.condition(conditions.hidden(), grid) if guidance != 1 else None
            predict = coarse.predictor(grid, coarse.condition(conditions, grid), free, guidance)
            noise = place_noise(Noise(seed).of_stage("evaluation").stream("coarse"), grid, 1)
            state = sample(coarse.flow, predict, noise, steps=steps)
            cells = grid.select(state[:, 0] > 0)
            scores["iou_cells"].append(_overlap(cells, true).iou)
            refined, voxels, classes = _fine(fine, vae, cells, conditions, seed, steps, guidance)
            scores["iou_refined"].append(_overlap(refined, true).iou)
            scores["iou"].append(_overlap(voxels, sites).iou)
            scores["right_cells"].append(
                _overlap(_fine(fine, vae, true, conditions, seed, steps, guidance)[1], sites).iou
            )
        made.append(patch_of_sites(voxels, classes, crop))
        step("StructFM")
    figures = {
        name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()
    }
    return {**figures, "crops": float(len(made))}, made


def _fine(
    fine: StructFine,
    vae: StructVAE,
    cells: Sites,
    conditions: Conditions,
    seed: int,
    steps: int,
    guidance: float,
) -> tuple[Sites, Sites, Tensor]:
    """Return (cells that stay, voxels, their classes) of some active cells."""
    from earthgen.sparse import SparseTensor

    if not len(cells):
        empty = make_sites(torch.zeros((0, 4), dtype=torch.int64), place=cells.place)[0]
        return cells, empty, torch.zeros(0, dtype=torch.uint8)
    free = fine.condition(conditions.hidden(), cells) if guidance != 1 else None
    predict = fine.predictor(cells, fine.condition(conditions, cells), free, guidance)
    noise = place_noise(Noise(seed).of_stage("evaluation").stream("fine"), cells, fine.channels)
    latent = SparseTensor(cells, sample(fine.flow, predict, noise, steps=steps))
    kept = fine.refined(latent)
    decoded = vae.decode(vae.statistics.restored(kept))
    classes = (
        decoded.semantic()
        if decoded.classes is not None
        else torch.zeros(len(decoded.sites), dtype=torch.uint8)
    )
    return kept.sites, decoded.sites, classes


def steps_of(weights: WeightSet, crops: int) -> int:
    """Return the number of progress steps of `measure`."""
    have = set(weights.parts)
    count = ("struct-vae" in have) + ("tex-vae" in have)
    return crops * (
        count + len(CONDITION_SETS) * ({"struct-vae", "struct-coarse", "struct-fine"} <= have)
    )


def measure(
    weights: WeightSet,
    crops: Sequence[Crop],
    *,
    seed: int,
    sampling_steps: int,
    guidance: float,
    step: Step,
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]], list[str]]:
    """Measure all parts of a set of weights.

    Parameters
    ----------
    weights : WeightSet
        The weights.
    crops : Sequence[Crop]
        The truth.
    seed, sampling_steps, guidance
        As in `struct_flow`.
    step : Callable[[str], None]
        Called after each crop and part.

    Returns
    -------
    tuple[dict, list, list[str]]
        Figures by part, a dict of pictures for each crop shown, and notes about what could not be
        measured.
    """
    figures: dict[str, dict[str, float]] = {}
    shown: list[dict[str, Any]] = []
    notes: list[str] = []
    vae: Any = weights.load("struct-vae") if "struct-vae" in weights.parts else None
    if vae is not None:
        figures["struct-vae"], made = struct_vae(vae, crops, step)
        for crop, patch in list(zip(crops, made, strict=True))[:4]:
            shown.append({"truth": _clay(patch_of_crop(crop)), "StructVAE": _clay(patch)})
    if "tex-vae" in weights.parts:
        tex: Any = weights.load("tex-vae")
        if tex.config.inputs == 18:
            figures["tex-vae"], pairs = tex_vae(tex, crops, step)
            shown += [{"colours": true, "TexVAE": made_} for true, made_ in pairs[:4]]
        else:
            notes.append(
                f"TexVAE is not measured: it takes {tex.config.inputs} channels per voxel, and "
                "datasets have 18"
            )
    if vae is not None and {"struct-coarse", "struct-fine"} <= set(weights.parts):
        coarse: Any = weights.load("struct-coarse")
        fine: Any = weights.load("struct-fine")
        size = coarse.config.stride * coarse.config.patch
        fit = [crop for crop in crops if all(getattr(crop.frame, a)[0] % size == 0 for a in "xyz")]
        if len(fit) < len(crops):
            notes.append(
                f"StructFM was measured on the {len(fit)} crops that begin at multiples of {size} "
                "voxels"
            )
        for name, names in CONDITION_SETS.items():
            scores, made = struct_flow(
                coarse,
                fine,
                vae,
                fit,
                names,
                seed=seed,
                steps=sampling_steps,
                guidance=guidance,
                step=step,
            )
            if not made:
                notes.append(f"StructFM under {name}: no crop has this condition")
                continue
            figures[f"struct-flow, {name}"] = scores
            if name == "semantics":
                for crop, patch in list(zip(fit, made, strict=True))[:4]:
                    shown.append(
                        {"truth": _clay(patch_of_crop(crop)), "StructFM, semantics": _clay(patch)}
                    )
    return figures, shown, notes


def _clay(patch: Patch) -> Any:
    return picture(patch, clay(patch), views(patch)["oblique"])
