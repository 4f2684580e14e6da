"""Realism: how far the features of made patches are from those of true ones, by geometry and by
pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthgen.evaluation.distances import (
    Kernel,
    frechet,
    gaussian,
    kernel_distance,
    median_distance,
    polynomial,
)
from earthgen.evaluation.geometry_features import geometry_features, standardised
from earthgen.evaluation.patch import Patch

LEAST = 4
"""Patches from which distances are taken at all; far more make them worth something."""

KINDS = ("geometry", "clay_above", "clay_oblique", "colour_above")
"""Sets of features: statistics of the geometry; pictures of geometry and classes; pictures in
colour."""

Features = dict[str, NDArray]
"""Of one patch (d,) or of several (n, d), by kind; a kind is left out where it cannot be had."""


def features_of(patch: Patch, known: NDArray | None, images: bool) -> Features:
    """All features of one patch.

    known : (ny, nx) bool, the columns whose colours are compared, None for none; images : whether
        pictures are compared
    """
    found: Features = {"geometry": geometry_features(patch)}
    if images:
        from earthgen.evaluation.views import clay, picture, views
        from earthgen.models.image_features import image_features

        cameras, shaded = views(patch), clay(patch)
        for name, camera in cameras.items():
            found[f"clay_{name}"] = image_features([picture(patch, shaded, camera)])[0]
        if known is not None and patch.splats is not None:
            part = picture(patch.only(known), patch.splats, cameras["above"])
            found["colour_above"] = image_features([part])[0]
    return found


def stacked(rows: Sequence[Features]) -> Features:
    """(n, d) by kind, of those kinds that at least one patch has."""
    found = {kind: [row[kind] for row in rows if kind in row] for kind in KINDS}
    return {kind: np.stack(values) for kind, values in found.items() if values}


def realism(rows: Sequence[Features], truth: Features) -> dict[str, Any]:
    """Distances by kind: KIND_frechet, and KIND_kernel with its interval; kinds of which too few
    are known left out.

    Geometry is compared in units of the truth's deviations, by a Gaussian kernel as wide as the
    median distance of true patches; pictures by the polynomial kernel of KID.
    """
    return _distances(stacked(rows), truth, truth)


def halves(truth: Features, seed: int) -> dict[str, Any]:
    """The same distances between two halves of the truth, drawn from the seed: what no backend can
    get below.

    The halves are half as many patches, so their Frechet distance is larger than that of as many as
    backends have.
    """
    one, other = {}, {}
    for kind, values in truth.items():
        order = np.random.default_rng([seed, len(values)]).permutation(len(values))
        half = len(values) // 2
        one[kind], other[kind] = values[order[:half]], values[order[half : 2 * half]]
    return _distances(one, other, truth)


def _distances(made: Features, true: Features, scale: Features) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for kind in KINDS:
        if kind not in made or kind not in true or min(len(made[kind]), len(true[kind])) < LEAST:
            continue
        a, b = made[kind], true[kind]
        kernel: Kernel = polynomial
        if kind == "geometry":
            a, b, whole = (standardised(values, scale[kind]) for values in (a, b, scale[kind]))
            kernel = gaussian(median_distance(whole))
        out[f"{kind}_frechet"] = frechet(a, b)
        out[f"{kind}_kernel"] = asdict(kernel_distance(a, b, kernel))
        out[f"{kind}_samples"] = len(a)
    return out
