"""Realism: distances between the features of made and true patches, by geometry and by pictures."""

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
from earthgen.evaluation.geometry_features import geometry_features, standardise
from earthgen.evaluation.patch import Patch

LEAST = 4
"""Least number of patches for a distance; reliable distances need many more."""

KINDS = ("geometry", "clay_above", "clay_oblique", "colour_above")
"""Sets of features: statistics of the geometry, pictures of geometry and classes, and pictures in
colour."""

Features = dict[str, NDArray]
"""(d,) of one patch or (n, d) of several, by kind; a kind may be missing."""


def features_of(patch: Patch, known: NDArray | None, images: bool) -> Features:
    """Compute all features of one patch.

    Parameters
    ----------
    patch : Patch
        The patch.
    known : NDArray (ny, nx) bool | None
        Columns whose colours are compared, None for none of them.
    images : bool
        Whether pictures are compared.
    """
    features: Features = {"geometry": geometry_features(patch)}
    if images:
        from earthgen.evaluation.views import clay, picture, views
        from earthgen.models.image_features import image_features

        cameras, shaded = views(patch), clay(patch)
        for name, camera in cameras.items():
            features[f"clay_{name}"] = image_features([picture(patch, shaded, camera)])[0]
        if known is not None and patch.splats is not None:
            part = picture(patch.only(known), patch.splats, cameras["above"])
            features["colour_above"] = image_features([part])[0]
    return features


def stack_features(rows: Sequence[Features]) -> Features:
    """Stack features of patches to (n, d) by kind, without kinds that no patch has."""
    values = {kind: [row[kind] for row in rows if kind in row] for kind in KINDS}
    return {kind: np.stack(each) for kind, each in values.items() if each}


def realism(rows: Sequence[Features], truth: Features) -> dict[str, Any]:
    """Compute the distances of made patches from the truth.

    They are called KIND_frechet and KIND_kernel (with its interval) for each kind of features.
    Kinds with too few patches are left out.

    Geometry is normalised by the deviations of the truth and compared by a Gaussian kernel with the
    median distance of true patches as its bandwidth; pictures are compared by the polynomial kernel
    of KID.

    Parameters
    ----------
    rows : Sequence[Features]
        Features of each made patch.
    truth : Features
        Features of all true patches.
    """
    return _distances(stack_features(rows), truth, truth)


def truth_halves(truth: Features, seed: int) -> dict[str, Any]:
    """Compute the same distances between two halves of the truth, which no backend can beat.

    The halves have half as many patches, so their Fréchet distance is larger than that of as many
    patches as backends have.

    Parameters
    ----------
    truth : Features
        Features of all true patches.
    seed : int
        Key of the draw of the halves.
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
            a, b, whole = (standardise(values, scale[kind]) for values in (a, b, scale[kind]))
            kernel = gaussian(median_distance(whole))
        out[f"{kind}_frechet"] = frechet(a, b)
        out[f"{kind}_kernel"] = asdict(kernel_distance(a, b, kernel))
        out[f"{kind}_samples"] = len(a)
    return out
